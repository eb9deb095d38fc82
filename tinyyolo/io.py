"""Files that appear whole or not at all, work in threads with a bar on a terminal, and plain text for people."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tinyyolo import ranks
from tinyyolo.config import UserError

try:
    import fcntl
except ImportError:  # Windows, where nothing is swept
    fcntl = None  # type: ignore[assignment]  # its type is the module's

THREADS = min(8, os.cpu_count() or 1)
Item = TypeVar("Item")
Result = TypeVar("Result")
WIDTH = 30  # characters of a bar
REFRESH = 0.5  # s between two rates
# How editors begin a file.
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
TOLD: set[str] = set()
DRAFT, DRAFT_END = ".tinyyolo-", ".part"  # around the name of a file that is being written
SWEPT: set[Path] = set()  # folders that this process has written into
UMASK_LOCK = threading.Lock()  # reading the umask sets it
LONGEST_PART = 255  # bytes of a file's name, on every common file system
LONGEST_NAME = 80  # characters of a name made of a class's or a picture's
# What moves or turns the text on a terminal, and what is no character; a name may hold bytes as \udc80 to \udcff.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")
LEADS_OUT = "it leads out of the folder"
NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')  # on one of the common systems


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

    What a killed process left in the folder is removed first, see `sweep`. A link in the file's place is replaced,
    never followed.

    Raises:
        UserError: it exists and `overwrite` is not set.
    """
    path = Path(path)
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{path}: exists; overwrite=true replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    if (folder := path.parent.absolute()) not in SWEPT:
        SWEPT.add(folder)
        sweep(folder)
    with named(path):
        handle, temporary = draft_file(folder)
    held = os.dup(handle) if fcntl else None  # the lock, until the file has its name
    try:
        with named(path), os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        if held is not None:
            os.close(held)


def draft_file(folder: Path) -> tuple[int, str]:
    """A new file under a name of ours, held by a lock until it is closed: its handle and path."""
    while True:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=DRAFT, suffix=DRAFT_END)
        if locked(handle) and os.path.exists(temporary):  # or a sweep came between the two
            return handle, temporary
        os.close(handle)


def locked(handle: int, shared: bool = False) -> bool:
    """Take the lock of an open file, which the system takes back when its process ends; False if another has it.

    A `shared` one may be held by many, while nobody has it alone.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing is swept there
        return True
    return True


def sweep(folder: str | Path, *, deep: bool = False) -> None:
    """Remove what killed runs were writing in a folder: files under our temporary name that no process holds.

    A process that is writing holds a lock on its file, on whatever machine or in whatever container it runs, and the
    system drops the lock when the process ends; nothing goes by age or number. Where there are no locks nothing is
    removed. `new_file` sweeps each folder that it writes into once, a run its whole folder (`deep`) when it starts.
    """
    found = Path(folder).rglob if deep else Path(folder).glob
    for path in list(found(f"{DRAFT}*{DRAFT_END}")):
        with left(path) as free:
            if free:
                path.unlink(missing_ok=True)


def abandoned(folder: str | Path) -> bool:
    """Whether the draft that `draft_file` made in a folder is held by nobody any more; False where there is none."""
    for path in Path(folder).glob(f"{DRAFT}*{DRAFT_END}"):
        with left(path) as free:
            return free
    return False


@contextmanager
def left(draft: Path) -> Iterator[bool]:
    """Whether a draft's lock could be taken, which is then held in this context; False where there are no locks."""
    try:
        handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW) if fcntl else -1
    except OSError:  # another sweep was faster, or it is not ours to remove
        handle = -1
    if handle < 0:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:  # it is being written, or the file system has no locks
        free = False
    try:
        yield free
    finally:
        os.close(handle)


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


def place_in(folder: str | Path, name: str) -> Path:
    """Where in an output folder a file goes whose name comes from data, such as the `file_name` of a COCO JSON.

    Every writer whose file names come from data asks here. A name is plain parts with `/` between them; neither it nor
    a link in the folder leads out of the folder.

    Raises:
        UserError: it is no such name, or the folder has a link that leads out of it; says why.

    Examples:
        >>> place_in("out", "train/a.png").as_posix()
        'out/train/a.png'
        >>> place_in("out", "../a.png")
        Traceback (most recent call last):
        tinyyolo.config.UserError: '../a.png': not written to out: it leads out of the folder
    """
    path = Path(folder, name)
    fault = name_fault(name)
    if not fault and not path.parent.resolve().is_relative_to(Path(folder).resolve()):
        fault = "a link there leads out of the folder"
    if fault:
        raise UserError(f"{name!r}: not written to {folder}: {fault}")
    return path


def name_fault(name: str) -> str:
    """Why a name from data is no place in a folder; "" if it is one.

    Examples:
        >>> name_fault("a/b.png"), name_fault("/etc/x.png"), name_fault("a/..")
        ('', 'it leads out of the folder', 'it names no file')
    """
    parts = re.split(r"[/\\]", name)
    if parts[-1] in {"", ".", ".."}:
        return "it names no file"
    if CONTROL.search(name):
        return "it has control characters"
    try:
        longest = max(map(len, map(os.fsencode, parts)))
    except UnicodeEncodeError:
        return f"a file's name in {sys.getfilesystemencoding()}, as LC_ALL sets it, cannot spell it"
    if longest > LONGEST_PART:
        return f"a part of it is longer than {LONGEST_PART} bytes"
    return LEADS_OUT if ".." in parts or not parts[0] or Path(name).anchor else ""


def as_file_name(text: str) -> str:
    """A text from data, such as the name of a class, as one part of a path: what cannot stand there becomes `_`.

    Examples:
        >>> as_file_name("small ship"), as_file_name("../../etc"), as_file_name("..")
        ('small ship', '.._.._etc', '__')
    """
    system = sys.getfilesystemencoding()
    name = NOT_IN_NAMES.sub("_", text.encode(system, "replace").decode(system))[:LONGEST_NAME]
    return name if name.strip(". ") else "_" * max(len(name), 1)


def as_file_names(names: Mapping[int, str]) -> dict[int, str]:
    """`as_file_name` of every class; those that no disk or only some tell apart carry their number.

    Examples:
        >>> as_file_names({0: "ship", 1: "car/van", 2: "car?van"})
        {0: 'ship', 1: 'car_van_1', 2: 'car_van_2'}
    """
    plain = {key: as_file_name(name) for key, name in names.items()}
    times = Counter(name.casefold() for name in plain.values())
    return {key: f"{name}_{key}" if times[name.casefold()] > 1 else name for key, name in plain.items()}


def printable(text: str) -> str:
    """A text without what moves or colours a terminal: control characters as escapes.

    Examples:
        >>> print(printable("a\x1b[31mb"), printable("小船"))
        a\\x1b[31mb 小船
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


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
    if line not in TOLD and ranks.first():
        TOLD.add(line)
        print(line, file=sys.stderr)


def current_umask() -> int:
    """The process's umask, which mkstemp does not apply."""
    with UMASK_LOCK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


class Bar:
    """One line of stderr that says how many are done; silent where stderr is no terminal.

    Args:
        total: how many there are.
        what: the words before the bar.
        done: how many are done already.
        unit: of the rate that is shown, with the time left; "" for neither.
    """

    def __init__(self, total: int, what: str, done: int = 0, unit: str = ""):
        self.total, self.what, self.done, self.first, self.unit = total, what, done, done, unit
        self.live, self.shown, self.width = sys.stderr.isatty() and ranks.first(), -1, 0
        self.begun = self.told = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live and self.shown >= 0:
            print(file=sys.stderr)

    def add(self, count: int = 1) -> None:
        """Say that so many more are done."""
        self.done += count
        part, now = WIDTH * self.done // max(self.total, 1), time.monotonic()
        late = bool(self.unit) and now - self.told >= REFRESH
        if self.live and (part != self.shown or self.done == self.total or late):
            self.shown, self.told = part, now
            line = f"{self.what} {'#' * part}{'.' * (WIDTH - part)} {self.done}/{self.total}{self.pace(now)}"
            self.width = max(self.width, len(line))  # what a longer line left is overwritten
            print(f"\r{line:<{self.width}}", end="", file=sys.stderr, flush=True)

    def pace(self, now: float) -> str:
        """Rate and time left by what has been done since the start."""
        if not self.unit or now <= self.begun or self.done == self.first:
            return ""
        rate = (self.done - self.first) / (now - self.begun)
        return f", {rate:.1f} {self.unit}/s, {clock((self.total - self.done) / rate)} left"


def clock(seconds: float) -> str:
    """A duration.

    Examples:
        >>> clock(59.6), clock(3725)
        ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bar(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, while a `Bar` counts them."""
    with Bar(total, what) as shown:
        for item in items:
            yield item
            shown.add()


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
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip((str.ljust, *[str.rjust] * len(row)), row, widths, strict=False) for row in rows)
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in row) for row in padded)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a bar in a cell does not end it.

    Examples:
        >>> markdown_table(["row", "AP"], [["a|b", "1.0"]])
        ['| row | AP |', '|---|---|', '| a\\\\|b | 1.0 |']
    """
    escaped = [[cell.replace("|", "\\|") for cell in cells] for cells in (header, *rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in escaped]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


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
    return [before + printable(line) for line in [*lines[:most], *more]]
