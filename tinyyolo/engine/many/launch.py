"""`device=0,1`: the same training as by torchrun, whose processes a child of this one starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from tinyyolo.config import UserError

TOLD = b"tinyyolo: "  # how the line begins that says why a command ended
LONGEST = 60.0  # s that processes have to end in
CHUNK, STDERR = 1 << 16, 2


def start(count: int, model: str, keys: Mapping[str, Any]) -> None:
    """Train in `count` processes, by torchrun in a child; what it prints comes through.

    Args:
        count: processes.
        model: as `model=` takes it.
        keys: all others, plain values, dotted ones of the model YAML too.

    Raises:
        UserError: the run ended otherwise than it should; says what its processes say.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "keys.yaml")
        file.write_text(yaml.safe_dump(dict(keys), allow_unicode=True), encoding="utf-8")
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "tinyyolo"]
        command = [sys.executable, *words, "train", f"cfg={file}", f"model={model}"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=child_environment())
        assert process.stderr is not None  # it is a pipe
        try:
            said = passed_on(process.stderr, STDERR)
        except KeyboardInterrupt:  # or another signal, see `stopping`; the processes say how to go on
            process.send_signal(signal.SIGTERM)
            said = passed_on(process.stderr, STDERR)
        code = process.wait(LONGEST)
    if code:
        raise UserError(said or f"a process of the run ended with code {code}, see above")


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child finds the same packages."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def passed_on(stream: IO[bytes], to: int) -> str:
    """Write all that comes from a stream to a file descriptor, up to a line that begins with TOLD; returns that line.

    What comes behind it is the launcher's report of the processes that it had to end.
    """
    held, told, fresh = b"", b"", True  # fresh: at the start of a line
    while part := os.read(stream.fileno(), CHUNK):
        held += part
        while held and not told.endswith(b"\n"):
            line, end, rest = held.partition(b"\n")
            if told or (fresh and line.startswith(TOLD)):
                told, held = told + line + end, rest
            elif fresh and not end and TOLD.startswith(line):
                break  # it may become such a line
            else:
                os.write(to, line + end)
                held, fresh = rest, bool(end)
    if not told:
        os.write(to, held)
    return told.removeprefix(TOLD).decode(errors="replace").strip()
