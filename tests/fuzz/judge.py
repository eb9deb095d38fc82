"""Runs a malformed input in this process and says what is wrong with how it ended."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from tests.fuzz.inputs import Attempt
from tinyyolo.cli import MISTAKE, main
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model

CODES = (0, 1, MISTAKE)  # done, done with faults found, a user's mistake
MOST_SECONDS = 10
MOST_KIB = 1 << 20  # of memory, above what the process had
WRITES = ("runs", "out")  # folders that a command may write to
SOUND = {"images", "labels", "visdrone", "dota", "xview"}  # those of the sound set
LONGEST = 255  # of a folder's name


def call(words: tuple[str, ...]) -> int:
    """A command line, or "build NAME key value" without memory for weights."""
    if words[0] != "build":
        return main(words)
    _, name, key, value = words
    try:
        with torch.device("meta"):
            build_model(load_model_yaml(name, {key: value}))
    except UserError:
        return MISTAKE
    return 0


def fault_of(attempt: Attempt, root: Path, run: Callable[[tuple[str, ...]], int] = call) -> str:
    """What is wrong with how `attempt` ends in the sound folder `root`, the current one; '' for an end as promised.

    The folder is put back as it was.
    """
    sound = {name: (root / name).read_bytes() for name in attempt.files if (root / name).exists()}
    for name, content in attempt.files.items():
        (root / name).write_bytes(content)
    before, start = snapshot(root.parent), time.perf_counter()
    out, err, base = io.StringIO(), io.StringIO(), peak(reset=True)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as noted,
        ):
            warnings.simplefilter("always", RuntimeWarning)
            code = run(attempt.words)
    except Exception:  # what a user would see as a traceback
        return f"traceback: {traceback.format_exc(limit=-3)}"
    else:
        seconds, memory = time.perf_counter() - start, peak() - base
        told = err.getvalue().strip().splitlines()
        new = changes(before, snapshot(root.parent), allowed(attempt, root))
        faults = {
            f"exit code {code}": code not in CODES,
            f"{len(told)} lines on stderr for one mistake": code == MISTAKE
            and attempt.words[0] != "build"
            and len(told) != 1,
            f"numpy warns: {[str(w.message) for w in noted]}": any(w.category is RuntimeWarning for w in noted),
            f"{seconds:.1f} s": seconds > MOST_SECONDS,
            f"{memory // 1024} MB": memory > MOST_KIB,
            f"wrote or changed {new}": bool(new),
        }
        return "; ".join(what for what, wrong in faults.items() if wrong)
    finally:
        for folder in allowed(attempt, root):
            shutil.rmtree(folder, ignore_errors=True)
        for name in attempt.files:
            (root / name).unlink() if name not in sound else (root / name).write_bytes(sound[name])


def allowed(attempt: Attempt, root: Path) -> set[Path]:
    """Folders that the attempt may write to: the usual ones, and what stands behind a key of its command line."""
    given = {str(word).partition("=")[2].split("/")[0] for word in attempt.words[1:]}
    names = {name for name in given - {"", ".", ".."} if len(name) < LONGEST and "\0" not in name}
    return {root / name for name in {*WRITES, *names} - SOUND}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and time."""
    files = (Path(top, name) for top, _, names in os.walk(folder) for name in names)
    return {str(file): (file.lstat().st_size, file.lstat().st_mtime_ns) for file in files}


def changes(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], folders: Iterable[Path]
) -> list[str]:
    """Files that are new, gone or other, outside some folders."""
    inside = tuple(f"{folder}{os.sep}" for folder in folders)
    other = [file for file in {*before, *after} if before.get(file) != after.get(file)]
    return sorted(file for file in other if not file.startswith(inside))


def peak(reset: bool = False) -> int:
    """Most memory in use, KiB, of the process, or since the last reset where the system can say so."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def smallest(faults: Iterable[tuple[Attempt, str]]) -> str:
    """The faults for an assertion: how many, and the shortest input of each kind."""
    found = sorted(faults, key=lambda pair: -len(pair[0].what))
    first = {attempt.kind: (attempt, what) for attempt, what in found}
    lines = [f"{kind}: {a.words[:4]!r:.300}, {a.what}\n{what}" for kind, (a, what) in first.items()]
    return f"{len(found)} inputs end badly; the smallest of each kind:\n" + "\n".join(lines)
