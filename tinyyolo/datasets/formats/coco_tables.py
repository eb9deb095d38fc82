"""A COCO JSON's lists as tables: categories, images, and a column for each field of its annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Problem
from tinyyolo.datasets.formats.decode import (
    NO_ID,
    Box,
    File,
    of_arrays,
    parse_json,
    plain_id,
    read_bytes,
    record_of,
    regular,
    shorten,
    to_columns,
    whole,
)

LISTS = ("images", "annotations", "categories")


def lists_of(text: bytes, path: Path) -> dict[str, Any]:
    """The three lists of a file: images and categories decoded, annotations as JSON if they may be regular."""
    try:
        file = msgspec.json.decode(text, type=File)
        out = {key: msgspec.json.decode(getattr(file, key)) for key in ("images", "categories")}
        return out | {"annotations": bytes(file.annotations), "text": text}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return parse_json(text, path)  # type: ignore[no-any-return]  # from_content looks at it


def is_results(path: Path) -> bool:
    """Whether a file has a list of detections at its top, not a COCO dict.

    Raises:
        UserError: not readable.
    """
    return read_bytes(path)[:64].lstrip()[:1] == b"["


def check_lists(content: Any, path: Path) -> None:
    """Whether the three lists are there.

    Raises:
        UserError: they are not; says what is.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected a COCO JSON object at the top, found {type(content).__name__}")
    for key in LISTS:
        kinds = (list, tuple, bytes, Mapping) if key == "annotations" else (list, tuple)
        if not isinstance(content.get(key), kinds):
            there = ", ".join(repr(k) for k in content if k != "text") or "nothing"
            raise UserError(f"{path}: not a COCO JSON: no list {key!r}; it has {there}")


def read_categories(path: Path, records: Sequence[Any], problems: list[Problem]) -> dict[Any, str]:
    """Category id -> name, in the file's order; ids are text as soon as one is."""
    out: dict[Any, str] = {}
    text = any(isinstance(record, Mapping) and isinstance(record.get("id"), str) for record in records)
    for i, record in enumerate(records):
        where = f"{path}: category {i + 1}"
        try:
            key: Any = plain_id(record["id"])
            key, name = str(key) if text else key, record["name"]
            if isinstance(name, bool) or not isinstance(name, (str, int, float)):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            what = f"needs an integer 'id' and a 'name', found {shorten(record)}"
            problems.append(Problem("bad record", where, what))
            continue
        name = str(name)
        if key in out:
            problems.append(Problem("duplicate category", where, f"id {key} is {out[key]!r} already, here {name!r}"))
            continue
        if name in out.values():
            problems.append(Problem("duplicate name", where, f"{name!r} has another id already; both are one class"))
        out[key] = name
    return out


def read_images(path: Path, records: Sequence[Any], problems: list[Problem], *, needed: bool) -> dict[str, Any]:
    """Names, ids (I,) and sizes (I, 2) of the images; an image without its keys or with a known id is left out.

    Unless they are needed, a missing name is the id, a missing size 0, and a name may stand twice.
    """
    names: list[str] = []
    ids: dict[Any, str] = {}
    sizes: list[tuple[int, int]] = []
    text = any(isinstance(record, Mapping) and isinstance(record.get("id"), str) for record in records)
    for i, record in enumerate(records):
        record = record if isinstance(record, Mapping) else {}
        name = record.get("file_name")
        where = f"{path}: image {name if name else i + 1}"
        size = side_of(record.get("height")), side_of(record.get("width"))
        try:
            key: Any = plain_id(record.get("id"))
            key = str(key) if text else key
            name = str(key) if name is None and not needed else name
            if not isinstance(name, str) or not name:
                raise ValueError
        except ValueError:
            what = f"needs an integer 'id' and a 'file_name', found id {record.get('id')!r}"
            problems.append(Problem("bad record", where, what))
            continue
        if key in ids:
            problems.append(Problem("duplicate image", where, f"id {key} belongs to {ids[key]} already"))
        elif needed and not all(size):
            found = f"{record.get('width')!r} x {record.get('height')!r}"
            problems.append(Problem("no size", where, f"needs 'width' and 'height' over 0, found {found}"))
        else:
            names.append(name)
            ids[key] = name
            sizes.append(size if all(size) else (0, 0))
    for name, times in Counter(names).items() if needed else ():
        if times > 1:
            what = f"stands {times} times, under different ids"
            problems.append(Problem("duplicate image", f"{path}: image {name}", what))
    size_hw = np.array(sizes, np.int64).reshape(-1, 2)
    return {"file_name": names, "id": np.array(list(ids), None if text else np.int64), "size_hw": size_hw}


def side_of(value: Any) -> int:
    """A side of an image, px; 0 for what is none."""
    try:
        side = whole(value)
    except ValueError:
        return 0
    return side if 0 < side < 2**31 else 0


def read_rows(path: Path, content: Mapping[str, Any], problems: list[Problem]) -> dict[str, np.ndarray]:
    """Columns of the annotations, `place` their place in the list; what cannot be understood is a problem."""
    records = content["annotations"]
    found = None if isinstance(records, Mapping) else regular(records, Box)
    if found is None and isinstance(records, bytes):
        content = parse_json(content["text"], path)
        check_lists(content, path)
        records = content["annotations"]
    if isinstance(records, Mapping):
        try:
            found = of_arrays(records, Box)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: annotations: {' '.join(str(error).split())}") from error
    if found is not None:
        return found | {"place": np.arange(len(found["bbox"]))}
    kept, places = [], []
    for place, record in enumerate(records):
        try:
            kept.append(record_of(record, Box))
            places.append(place)
        except ValueError as error:
            what = f"needs image_id, category_id and bbox [x, y, w, h]: {error}"
            problems.append(Problem("bad record", f"{path}: annotation {place + 1} of the list", what))
    return to_columns(kept, Box) | {"place": np.array(places, np.int64)}


def number_ids(path: Path, rows: dict[str, np.ndarray], problems: list[Problem]) -> None:
    """Give every annotation without an id one above all others."""
    absent = np.flatnonzero(rows["id"] == NO_ID)
    if not len(absent):
        return
    first = max(int(rows["id"].max()), 0) + 1
    rows["id"] = rows["id"].copy()
    rows["id"][absent] = np.arange(first, first + len(absent))
    for row in absent.tolist():
        where = f"{path}: annotation {rows['place'][row] + 1} of the list"
        problems.append(Problem("no id", where, f"no 'id'; {rows['id'][row]} is used"))


def positions(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(K,) where each of `ids` stands in `known`, -1 where it does not; 3.0 and "3" are 3.

    Examples:
        >>> positions(np.array([5, 3, 4]), np.array([3, 5])).tolist()
        [1, 0, -1]
        >>> positions(np.array([3.0, 3.5]), np.array([3])).tolist(), positions(np.array([3]), np.array(["3"])).tolist()
        ([0, -1], [0])
    """
    if not len(ids) or not len(known):
        return np.full(len(ids), -1)
    if ids.dtype.kind in "iu" and known.dtype.kind in "iu":
        order = np.argsort(known, kind="stable")
        at = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
        return np.where(known[at] == ids, at, -1)
    text, table = known.dtype.kind not in "iu", {key: i for i, key in enumerate(known.tolist())}

    def find(value: Any) -> int:
        try:
            plain = value if text and isinstance(value, str) else whole(value)
        except ValueError:
            return -1
        return table.get(str(plain) if text else plain, -1)

    values, inverse = np.unique(ids, return_inverse=True)
    return np.array([find(value) for value in values.tolist()], np.int64)[inverse]
