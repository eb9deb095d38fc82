"""Runs of several processes: by forks for speed, by torchrun for the real thing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.kills import CONTEXT, Point, arm

LIMIT = 600  # s, on a busy machine
ENDED = 60  # s in which a run ends after one of its processes has died
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ranked(environment: dict[str, str], work: Callable[..., None], *args: Any) -> None:
    os.environ.update(environment)
    if int(environment["RANK"]):
        (own := Path(f"rank{environment['RANK']}")).mkdir(exist_ok=True)
        os.chdir(own)
    work(*args)


def by_all(count: int, work: Callable[..., None], *args: Any) -> list[int | None]:
    """The exit codes of `count` processes that do the same work as ranks of one run, each in a folder of its own."""
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = str(free_port())
    started = []
    for rank in range(count):
        own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = CONTEXT.Process(target=ranked, args=(own, work, *args))
        process.start()
        started.append(process)
    for process in started:
        process.join(LIMIT)
    alive = [process for process in started if process.is_alive()]
    for process in alive:
        process.kill()
    assert not alive, "hangs"
    return [process.exitcode for process in started]


def torchrun(words: Sequence[str], *options: str, nodes: int = 1, deaths: dict[int, Point] | None = None) -> list[str]:
    """What a training of two processes says on stderr, of each node, by torchrun; what it prints is in stdout{node}.

    Args:
        words: of the command.
        options: of torchrun.
        nodes: process groups that stand for them.
        deaths: rank -> where its process kills itself, once.
    """
    port, environment = free_port(), {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for rank, point in (deaths or {}).items():
        environment |= {"DIES": str(rank), "POINT": "|".join(map(str, point))}
    started = []
    for node in range(nodes):
        place = [f"--nnodes={nodes}", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        place = place if nodes > 1 else ["--standalone"]
        own = [f"--nproc-per-node={2 // nodes}", "-m", "tests.support.processes", "train", *words]
        command = [sys.executable, "-m", "torch.distributed.run", *place, *options, *own]
        with open(f"stdout{node}", "w") as out:
            how = {"stdout": out, "stderr": subprocess.PIPE, "env": environment, "start_new_session": True}
            started.append(subprocess.Popen(command, **how))
    try:
        return [process.communicate(timeout=LIMIT)[1].decode() for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def told(said: str) -> list[str]:
    """The lines of tinyyolo's own in what a run says on stderr."""
    return [line for line in said.splitlines() if line.startswith("tinyyolo: ")]


def mark(path: str = "died") -> None:
    """Write down when this process dies, then die."""
    Path(path).write_text(str(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from tinyyolo.cli import main

    if os.environ.get("DIES") == os.environ["RANK"] and not Path("died").exists():
        place, call, when = os.environ["POINT"].split("|")
        arm(Point(place, int(call), when), mark)
    main()
