"""Files that appear whole or not at all, and never over others unasked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Within this context a write that fails without saying where, as on a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


@contextmanager
def new_file(path: str | Path, *, overwrite: bool = False, mode: str = "w") -> Iterator[Any]:
    """A file that appears whole or not at all: written beside its place and renamed.

    Raises:
        UserError: it exists and `overwrite` is not set.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists; overwrite=true replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with named(path), os.fdopen(handle, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as stream:
            yield stream
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def current_umask() -> int:
    """The process's umask, which mkstemp does not apply."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
