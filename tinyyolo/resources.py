"""Where the YAMLs and weights that come with the package lie on the disk, however it was imported."""

from __future__ import annotations

import atexit
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

FOLDERS = ("cfg", "data", "weights")


def roots() -> tuple[Path, ...]:
    """Folders that hold `cfg`, `data` and `weights`: of a wheel inside the package, of a checkout beside it.

    Where the package is imported from a zip they are unpacked into a temporary folder that goes with the process.
    """
    package = Path(__file__).resolve().parent
    if package.is_dir():
        return package, package.parent
    unpacked = tempfile.TemporaryDirectory(prefix="tinyyolo-")
    atexit.register(unpacked.cleanup)
    for name in FOLDERS:
        unpack(files("tinyyolo") / name, Path(unpacked.name) / name)
    return (Path(unpacked.name),)


def unpack(source: Any, target: Path) -> None:
    """Copy a folder of a package, wherever it is stored."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            unpack(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
