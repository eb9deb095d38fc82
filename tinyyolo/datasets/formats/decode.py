"""JSON of boxes as columns: typed records where the file is regular, and a slower way that names each fault."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tinyyolo.config import UserError

PIECE = 1 << 16  # bytes decoded at once: their records stay in the processor's cache, and few stand in memory
NO_ID = -(2**63)  # of a record without an id
NO_EXTRA = -32768
EXTRA = ("difficult", "truncation", "occlusion")  # what VisDrone and DOTA say besides
NAN = float("nan")
BAD_MARK = 2
MARKS = {None: 0, "": 0, "0": 0, "false": 0, 0: 0, "1": 1, "true": 1, 1: 1}
NEXT = re.compile(rb"\s*,\s*(?=\{)")


class Detection(msgspec.Struct, gc=False):
    """A record of a results file. With names, as `predict` writes them, it is one for the slower way."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float
    file_name: None = None
    category_name: None = None


class Plain(msgspec.Struct, gc=False):
    """A record of `annotations` with nothing of what `Box` knows besides."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int = NO_ID
    area: float = NAN
    iscrowd: int = 0
    ignore: int = 0
    difficult: None = None
    truncation: None = None
    occlusion: None = None
    score: None = None


class Box(msgspec.Struct, gc=False):
    """A record of `annotations`, with marks of VisDrone or DOTA, or with a score."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int = NO_ID
    area: float = NAN
    iscrowd: int = 0
    ignore: int = 0
    difficult: int = NO_EXTRA
    truncation: int = NO_EXTRA
    occlusion: int = NO_EXTRA
    score: float = NAN


class File(msgspec.Struct):
    """A COCO JSON, its lists not decoded yet."""

    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


Many: Any = list  # of a kind that is known only when it runs
FLOATS = ("bbox", "area", "score")
FIELDS: dict[Any, tuple[str, ...]] = {
    Box: Box.__struct_fields__,
    Plain: Plain.__struct_fields__[:7],
    Detection: Detection.__struct_fields__[:4],
}


def read_bytes(path: Path) -> bytes:
    """The content of a file, without a byte order mark.

    Raises:
        UserError: missing, or not readable.
    """
    try:
        return path.expanduser().read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))) or "none"
        kind = path.suffix.lstrip(".").upper()
        raise UserError(f"{path}: no such annotation file; {kind} files in that folder: {there}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not readable: {' '.join(str(error).split())}") from error


def load_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Decode a file; every object in it goes through `hook`, innermost first.

    Raises:
        UserError: missing, or no JSON; with the line.
    """
    return parse_json(read_bytes(path), path, hook)


def parse_json(text: bytes, path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """As `load_json`, of bytes read before."""
    try:
        return json.loads(text.decode(), object_hook=hook)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {' '.join(str(error).split())}") from error


def regular(records: bytes | Sequence[Any], kind: type[Box] | type[Detection]) -> dict[str, np.ndarray] | None:
    """Columns of a JSON array, or of a list of mappings, whose records are all of one kind; None if they are not.

    Examples:
        >>> columns = regular(b'[{"image_id": 1, "category_id": 2, "bbox": [3, 4, 5, 6.5], "score": 0.5}]', Detection)
        >>> columns["bbox"].tolist(), columns["score"].tolist()
        ([[3.0, 4.0, 5.0, 6.5]], [0.5])
        >>> regular(b'[{"image_id": "one", "category_id": 2, "bbox": [3, 4, 5, 6], "score": 0.5}]', Detection)
    """
    for typed in (Plain, Box) if kind is Box else (kind,):
        try:
            found = pieces(records, typed) if isinstance(records, bytes) else [msgspec.convert(records, Many[typed])]
            parts = [columns_of(part, typed) for part in found]
        except (msgspec.MsgspecError, OverflowError, TypeError):
            continue
        columns = {name: np.concatenate([part[name] for part in parts]) for name in FIELDS[typed]}
        rest = FIELDS[kind][len(columns) :]
        return columns | {name: np.full(len(columns["bbox"]), defaults(kind)[name]) for name in rest}
    return None


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


def columns_of(records: Sequence[Any], kind: type[Any]) -> dict[str, np.ndarray]:
    """A column for each field: bbox (n, 4) float64, floats, and int64."""
    count, out = len(records), {}
    for name in FIELDS[kind]:
        values: Any = map(attrgetter(name), records)
        if name == "bbox":
            out[name] = np.fromiter(chain.from_iterable(values), np.float64, 4 * count).reshape(-1, 4)
        else:
            out[name] = np.fromiter(values, np.float64 if name in FLOATS else np.int64, count)
    return out


def of_arrays(given: Mapping[str, Any], kind: type[Box] | type[Detection]) -> dict[str, np.ndarray]:
    """Columns of a mapping of arrays, fields that it lacks filled up.

    Raises:
        ValueError: columns of unlike length or a wrong kind of number; says which.
    """
    columns: dict[str, Any] = {}
    count = len(given["bbox"]) if "bbox" in given else 0
    for name, default in {"image_id": ..., "category_id": ..., "bbox": ..., **defaults(kind)}.items():
        if name not in given and default is ...:
            raise ValueError(f"no {name!r}")
        values = given[name] if name in given else np.full(count, default)
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} rows, bbox has {count}")
        if name in ("iscrowd", "ignore"):
            columns[name] = np.array([mark(v) for v in np.asarray(values).tolist()], np.int64)
        elif name in ("image_id", "category_id"):
            columns[name] = np.asarray(values)
        else:
            columns[name] = np.asarray(values, np.float64 if name in FLOATS else np.int64)[:]
    columns["bbox"] = columns["bbox"].reshape(-1, 4)
    return columns


def defaults(kind: type[Box] | type[Detection]) -> dict[str, Any]:
    """The fields of a kind besides ids and box; `...` where one is required."""
    names = FIELDS[kind][3:]
    values = kind.__struct_defaults__ if kind is Box else (...,)
    return dict(zip(names, values, strict=False))


def record_of(record: Any, kind: type[Box] | type[Detection]) -> dict[str, Any]:
    """The fields of one record as they can be understood: 3, 3.0 and "3" are whole numbers, null in a box is NaN.

    Raises:
        ValueError: a field is missing or cannot be understood; says which.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"found {shorten(record)}")
    for name in ("image_id", "category_id", "bbox", *(["score"] if kind is Detection else [])):
        if name not in record:
            raise ValueError(f"no {name!r}")
    out: dict[str, Any] = {name: plain_id(record[name], name) for name in ("image_id", "category_id")}
    box = record["bbox"]
    if not isinstance(box, (Sequence, np.ndarray)) or isinstance(box, str) or len(box) != 4:
        raise ValueError(f"bbox {shorten(box)} is not [x, y, width, height]")
    out["bbox"] = [NAN if v is None else number(v, "bbox") for v in box]
    for name in FIELDS[kind][3:]:
        value = record.get(name)
        if name in FLOATS:
            out[name] = NAN if value is None else number(value, name)
        elif name in ("iscrowd", "ignore"):
            out[name] = mark(value)
        elif name == "id":
            out[name] = NO_ID if value is None else annotation_id(value)
        else:
            out[name] = NO_EXTRA if value is None else whole(value)
    return out


def to_columns(rows: Sequence[Mapping[str, Any]], kind: type[Box] | type[Detection]) -> dict[str, np.ndarray]:
    """Columns of what `record_of` returned; ids of whole numbers and text together are text."""
    out = {name: np.array([row[name] for row in rows]) for name in FIELDS[kind]}
    out["bbox"] = out["bbox"].astype(np.float64).reshape(-1, 4)
    return {name: column if len(column) else column.astype(np.int64) for name, column in out.items()}


def mark(value: Any) -> int:
    """1 if `iscrowd` or `ignore` is set, 0 if it is not, BAD_MARK for what says neither.

    Examples:
        >>> [mark(v) for v in (True, 1.0, "1", "True", None, 0, False, "0", "false", "", 2, "yes", [])]
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 2, 2, 2]
    """
    try:
        return MARKS.get(value.strip().lower() if isinstance(value, str) else value, BAD_MARK)
    except TypeError:  # a list or a mapping
        return BAD_MARK


def plain_id(value: Any, name: str = "id") -> int | str:
    """An id of an image or category: whole numbers as int, text as it is.

    Raises:
        ValueError: neither.
    """
    return value if isinstance(value, str) else whole(value, name)


def annotation_id(value: Any) -> int:
    """An annotation's own id; NO_ID where it is no whole number, as nothing refers to it."""
    try:
        return whole(value)
    except ValueError:
        return NO_ID


def number(value: Any, name: str) -> float:
    """A JSON value as a number.

    Raises:
        ValueError: it is none.
    """
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


def shorten(record: Any, width: int = 80) -> str:
    """A record on one line, cut to `width` characters."""
    text = " ".join(repr(record).split())
    return text if len(text) <= width else f"{text[: width - 3]}..."
