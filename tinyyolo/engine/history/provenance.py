"""Which code runs, on which machine, and when."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import tinyyolo

TOP = Path(tinyyolo.__file__).resolve().parent.parent  # of a checkout
CODE = ("tinyyolo", "cfg")  # in it, what decides a result
DIGITS = 12
CHANGED = "+"  # behind the commit of a tree that is not as it was committed


def git(*words: str, top: Path = TOP) -> subprocess.CompletedProcess[str]:
    """Run git in a folder; without git, as if it had failed."""
    words = ("git", "-C", str(top), *words)
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(words, 127, "", f"git: {error.strerror}")


def commit(top: Path = TOP) -> str:
    """The commit of the code at work, with "+" where it was changed since; "" where the package is no checkout."""
    if not git("ls-files", "tinyyolo/__init__.py", top=top).stdout:  # a package inside another project's checkout
        return ""
    head = git("rev-parse", f"--short={DIGITS}", "HEAD", top=top).stdout.strip()
    return head and head + CHANGED * bool(git("status", "--porcelain", "--", *CODE, top=top).stdout.strip())


def count_cpus(cpus: str) -> int:
    """Cores in a list for taskset.

    Examples:
        >>> count_cpus("0"), count_cpus("0-3,6")
        (1, 5)
    """
    ends = [[int(end) for end in part.split("-")] for part in cpus.split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)


def machine(cpus: str | None = None, device: Any = None) -> str:
    """The hardware in words: the GPU, or the processor and how many of its cores `cpus` (for taskset) leaves."""
    if device not in (None, "cpu") and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    used = count_cpus(cpus) if cpus else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return f"{model}, {used} of {os.cpu_count()} cores, torch {torch.__version__}"


def now() -> str:
    """UTC to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
