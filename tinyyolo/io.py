"""Files that appear whole or not at all, work in threads with a bar on a terminal, and plain text for people."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tinyyolo.config import UserError

THREADS = min(8, os.cpu_count() or 1)
Item = TypeVar("Item")
Result = TypeVar("Result")
WIDTH = 30  # characters of a bar
# How editors begin a file.
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
TOLD: set[str] = set()


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
        with named(path), os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def copy_file(source: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Copy a file's content, whole or not at all.

    Raises:
        UserError: the target exists and `overwrite` is not set.
    """
    with new_file(target, overwrite=overwrite, mode="wb") as stream, Path(source).open("rb") as content:
        shutil.copyfileobj(content, stream)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Any]:
    """A binary file as `new_file` gives it, in place of an older one, on the disk before it is renamed.

    A killed process or a full disk leaves the older file whole.

    Raises:
        UserError: it cannot be written; says why. torch reports a full disk as a RuntimeError.
    """
    try:
        with new_file(path, overwrite=True, mode="wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: not written: {' '.join(str(reason).split())[:200]}") from error


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values as JSON for people, in place of an older file."""
    with new_file(path, overwrite=True) as stream:
        json.dump(content, stream, indent=1)


def plain_text(data: bytes) -> str:
    """The text of a file as editors save it: in UTF-8, or in what its byte order mark says, which is left out.

    Raises:
        UnicodeDecodeError: it is neither.

    Examples:
        >>> plain_text("Straße".encode("utf-16")), plain_text(b"\\xef\\xbb\\xbf0 1")
        ('Straße', '0 1')
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), b"")
    return data[len(mark) :].decode(BYTE_ORDER_MARKS.get(mark, "utf-8"))


def tell(line: str) -> None:
    """Say something on stderr, once in a process."""
    if line not in TOLD:
        TOLD.add(line)
        print(line, file=sys.stderr)


def current_umask() -> int:
    """The process's umask, which mkstemp does not apply."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def bar(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, while one line of stderr says how many are done; silent where stderr is no terminal."""
    shown = -1
    live = sys.stderr.isatty()
    for done, item in enumerate(items, 1):
        yield item
        part = WIDTH * done // max(total, 1)
        if live and (part != shown or done == total):
            shown = part
            print(f"\r{what} {'#' * part}{'.' * (WIDTH - part)} {done}/{total}", end="", file=sys.stderr, flush=True)
    if live and shown >= 0:
        print(file=sys.stderr)


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    """`work` on every item, results in order.

    Examples:
        >>> in_threads(abs, [-1, 2], "counting")
        [1, 2]
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return list(bar(pool.map(work, items), len(items), what))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lines of equal columns, two blanks between them, the first to the left, the others to the right.

    Examples:
        >>> print(table([["class", "TP"], ["all", "12"]]))
        class  TP
        all    12
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip((str.ljust, *[str.rjust] * len(row)), row, widths, strict=False) for row in rows)
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in row) for row in padded)


def counted(counts: Mapping[str, int]) -> str:
    """Counts by name in words, without those of 0.

    Examples:
        >>> counted({"boxes": 1200, "ignore_regions": 3, "fragments": 0})
        '1,200 boxes, 3 ignore regions'
    """
    return ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items() if n)


def some(lines: Sequence[str], most: int, before: str) -> list[str]:
    """The first `most` of some lines, and how many more there are; `before` stands before each.

    Examples:
        >>> some(["a", "b", "c"], 1, "- ")
        ['- a', '- ... and 2 more']
    """
    more = [f"... and {len(lines) - most:,} more"] if len(lines) > most else []
    return [before + line for line in [*lines[:most], *more]]
