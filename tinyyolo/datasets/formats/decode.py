"""Records of boxes as columns, from JSON, mappings or arrays: typed where all is regular, else a slower way that names
each fault."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tinyyolo.config import UserError
from tinyyolo.io import BYTE_ORDER_MARKS, plain_text

PIECE = 1 << 16  # bytes decoded at once: their records stay in the processor's cache, and few stand in memory
NO_ID = -(2**63)  # of a record without an id
NO_EXTRA = -32768
NO_SCORE = -1e308
BAD_MARK = 2
MARKS = {None: 0, "": 0, "0": 0, "false": 0, 0: 0, "1": 1, "true": 1, 1: 1}
NEXT = re.compile(rb"\s*,\s*(?=\{)")


class File(msgspec.Struct):
    """A COCO JSON, its lists not decoded yet."""

    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


Columns = dict[str, np.ndarray]
Many: Any = list  # of a type that is known only when it runs
FLOAT, INT, ANY = (float, math.nan), (int, NO_EXTRA), (Any, None)
# The fields of a box in a COCO file or in results: type, and the default of those that may be missing.
FIELDS: dict[str, tuple[Any, ...]] = {
    "image_id": (int,),
    "category_id": (int,),
    "bbox": (tuple[float, float, float, float],),
    "id": (int, NO_ID),
    "area": FLOAT,
    "iscrowd": (int, 0),
    "ignore": (int, 0),
    "uncertain": (int, 0),
    "difficult": INT,
    "truncation": INT,
    "occlusion": INT,
    "score": (float, NO_SCORE),
    "file_name": ANY,
    "category_name": ANY,
}
EVERY = tuple(FIELDS)
NEEDED, IDS, NAMES = EVERY[:3], EVERY[:2], EVERY[-2:]
FLOATS = ("area", "score")
REGIONS = ("iscrowd", "ignore", "uncertain")  # marks of ignore regions; the last is TinyPerson's
EXTRA = ("difficult", "truncation", "occlusion")  # what VisDrone and DOTA say besides
PLAIN, BOX, DETECTION = EVERY[:6], EVERY[:-2], (*NEEDED, "score")  # read of a COCO file, and of results without names


def typed(fields: Sequence[str]) -> Any:
    """The type of a record in which all but `fields` is null or missing."""
    kinds = [(name, *(kind if name in fields else (None, None))) for name, kind in FIELDS.items()]
    return msgspec.defstruct("Record", sorted(kinds, key=len), gc=False)


TYPED = {fields: typed(fields) for fields in (PLAIN, BOX, DETECTION, EVERY)}
# Of records that are not all typed, or that msgspec cannot hold; json reads the last two.
IRREGULAR = (msgspec.MsgspecError, OverflowError, TypeError, RecursionError, UnicodeError)


def read_bytes(path: Path) -> bytes:
    """The content of a file in UTF-8, without a byte order mark.

    Raises:
        UserError: missing, or not readable.
    """
    try:
        data = path.expanduser().read_bytes()
        return plain_text(data).encode() if data.startswith(tuple(BYTE_ORDER_MARKS)) else data
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))) or "none"
        kind = path.suffix.lstrip(".").upper()
        raise UserError(
            f"{path}: no such annotation file; {f'{kind} files'.strip()} in that folder: {there}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not readable: {' '.join(str(error).split())}") from error


def parse_json(text: bytes, path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Decode a file's content; every object in it goes through `hook`, innermost first.

    Raises:
        UserError: no JSON; with the line.
    """
    try:
        return json.loads(text.decode(), object_hook=hook)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {' '.join(str(error).split())}") from error


def of_json(text: bytes, *choices: tuple[str, ...]) -> Columns:
    """Columns of a JSON array of records that have the fields of the first of `choices`, or of the next.

    Raises:
        IRREGULAR: malformed, or a record that is not regular.

    Examples:
        >>> columns = of_json(b'[{"image_id": 1, "category_id": 2, "bbox": [3, 4, 5, 6.5], "score": 0.5}]', DETECTION)
        >>> columns["bbox"].tolist(), columns["score"].tolist()
        ([[3.0, 4.0, 5.0, 6.5]], [0.5])
    """
    fields, *rest = choices
    try:
        parts = [columns_of(part, fields) for part in pieces(text, TYPED[fields])]
    except IRREGULAR:
        if not rest:
            raise
        return of_json(text, *rest)
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in fields}


def pieces(text: bytes, kind: type[Any]) -> Iterator[list[Any]]:
    """The records of a JSON array, some at a time. A cut that is none between records makes an error of JSON."""
    decoder = msgspec.json.Decoder(Many[kind])
    start = text.find(b"[") + 1
    if text[: max(start - 1, 0)].strip():
        raise msgspec.DecodeError("no array")
    view = memoryview(text)
    while stop := text.find(b"}", start + PIECE) + 1:
        following = NEXT.match(text, stop)
        if following is None:
            break
        piece = bytearray(view[start - 1 : stop + 1])
        piece[0], piece[-1] = b"[]"
        yield decoder.decode(piece)
        start = following.end()
    yield decoder.decode(b"[" + text[start:])


def columns_of(records: Sequence[Any], fields: Sequence[str], text: bool = False) -> Columns:
    """A column for each field: bbox (n, 4) float64, floats, int64, and names; ids with `text` in them are text."""
    count, out = len(records), {}
    for name in fields:
        values: Any = map(attrgetter(name), records)
        if name == "bbox":
            packed = struct.pack(f"{4 * count}d", *chain.from_iterable(values))  # quicker than np.fromiter
            out[name] = np.frombuffer(packed).reshape(-1, 4)
        elif name in NAMES or (text and name in IDS):
            out[name] = np.array([*values], object if name in NAMES else None)
        else:
            out[name] = np.fromiter(values, np.float64 if name in FLOATS else np.int64, count)
    return out


def of_records(records: Sequence[Any], fields: Sequence[str], fault: Callable[[int, ValueError], None]) -> Columns:
    """Columns of a list of mappings, and `place` in it; `fault` is told of those that cannot be understood."""
    try:
        return columns_of(msgspec.convert(records, Many[TYPED[EVERY]]), fields) | {"place": np.arange(len(records))}
    except IRREGULAR:
        kept, places = [], []
    for place, record in enumerate(records):
        try:
            kept.append(record_of(record, fields))
            places.append(place)
        except ValueError as error:
            fault(place, error)
    text = any(isinstance(key, str) for record in kept for key in (record.image_id, record.category_id))
    return columns_of(kept, fields, text) | {"place": np.array(places, np.int64)}


def of_arrays(given: Mapping[str, Any], fields: Sequence[str]) -> Columns:
    """Columns of a mapping of arrays, and `place`; numbers that it lacks are filled up.

    Raises:
        ValueError: columns of unlike length or a wrong kind of number; says which.
    """
    columns: Columns = {}
    require(given)
    count = len(given["bbox"])
    for name in (name for name in fields if name in given):
        values = np.asarray(given[name], np.float64 if name in (*FLOATS, "bbox") else None)
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} rows, bbox has {count}")
        if name in REGIONS and values.dtype.kind != "i":
            values = np.array([mark(value, name) for value in values.tolist()], np.int64)
        columns[name] = values[:] if name in (*IDS, *FLOATS, "bbox") else values.astype(np.int64)
    columns["bbox"] = columns["bbox"].reshape(-1, 4)
    absent = {name: np.full(count, FIELDS[name][1]) for name in fields if name not in given}
    return columns | absent | {"place": np.arange(count)}


def require(given: Mapping[str, Any]) -> None:
    """Stop unless what no box can lack is given."""
    for name in NEEDED:
        if name not in given:
            raise ValueError(f"no {name!r}")


def record_of(record: Any, fields: Sequence[str]) -> Any:
    """The fields of a record as they can be understood: 3, 3.0 and "3" are whole numbers, null in a box is NaN.

    Raises:
        ValueError: a field is missing or cannot be understood; says which.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"found {shorten(record)}")
    require(record)
    there = [name for name in fields if name in NEEDED or record.get(name) is not None]
    return TYPED[EVERY](**{name: AS[name](record[name], name) for name in there})


def mark(value: Any, name: str = "") -> int:
    """1 if `iscrowd`, `ignore` or `uncertain` is set, 0 if it is not, BAD_MARK for what says neither.

    Examples:
        >>> [mark(v) for v in (True, 1.0, "1", "True", None, 0, False, "0", "false", "", 2, "yes", [])]
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 2, 2, 2]
    """
    try:
        return MARKS.get(value.strip().lower() if isinstance(value, str) else value, BAD_MARK)
    except TypeError:  # a list or a mapping
        return BAD_MARK


def four(value: Any, name: str) -> list[float]:
    """The numbers of a box, NaN for null."""
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str) or len(value) != 4:
        raise ValueError(f"bbox {shorten(value)} is not [x, y, width, height]")
    return [math.nan if v is None else number(v, name) for v in value]


def plain_id(value: Any, name: str = "id") -> int | str:
    """An id of an image or category: whole numbers as int, text as it is."""
    if isinstance(value, str):
        return word(value, name)
    return whole(value, name)


def word(value: Any, name: str) -> str:
    """A name as text that a file can hold; whether an image can be called so is asked where images are opened.

    Raises:
        ValueError: it is none, is empty, or has characters that no text has; says which.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} {shorten(value)} is no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} {shorten(value)} has characters that no text has") from None
    return value


def as_text(path: str | Path, names: Iterable[str]) -> None:
    """Raise UserError for a name, as of a file, that a text file at `path` cannot hold."""
    for name in sorted(names):
        try:
            word(name, "name")
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error


def annotation_id(value: Any, name: str) -> int:
    """An annotation's own id; NO_ID where it is no whole number, as nothing refers to it."""
    try:
        return whole(value)
    except ValueError:
        return NO_ID


def number(value: Any, name: str) -> float:
    """A JSON value as a number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} {value!r}, expected a number") from None


def whole(value: Any, name: str = "") -> int:
    """A JSON value as an integer of 64 bits: 3, 3.0 and "3" are.

    Raises:
        ValueError: it is none.
    """
    if type(value) is int and abs(value) < 2**63:
        return value
    try:
        exact = isinstance(value, (int, np.integer)) or (isinstance(value, str) and value.strip().isdigit())
        found = int(value) if exact else int(float(value))
        if isinstance(value, bool) or abs(found) >= 2**63 or not (exact or found == float(value)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} {shorten(value)} is no whole number".strip()) from None
    return found


# How a value of each field is understood.
AS: dict[str, Callable[[Any, str], Any]] = dict.fromkeys(IDS, plain_id) | dict.fromkeys(EXTRA, whole)
AS |= dict.fromkeys(FLOATS, number) | dict.fromkeys(NAMES, lambda value, name: value)
AS |= {"bbox": four, "id": annotation_id} | dict.fromkeys(REGIONS, mark)


def shorten(record: Any, width: int = 80) -> str:
    """A record on one line, cut to `width` characters."""
    text = " ".join(repr(record).split())
    return text if len(text) <= width else f"{text[: width - 3]}..."
