"""A COCO JSON's lists as tables: categories, images, and a column for each field of its annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Problem
from tinyyolo.datasets.formats.decode import (
    BOX,
    NO_ID,
    Columns,
    of_arrays,
    of_records,
    plain_id,
    shorten,
    whole,
    word,
)
from tinyyolo.sizes import FARTHEST, MOST_PIXELS

LISTS = ("images", "annotations", "categories")
SIDES = ("width", "height")


def check_lists(content: Any, path: Path) -> Mapping[str, Any]:
    """The content with the three lists; `annotation`, as HIT-UAV's authors write it, is one of them.

    Raises:
        UserError: one of them is not there.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected a COCO JSON object at the top, found {type(content).__name__}")
    lists: Mapping[str, Any] = content
    if "annotation" in content:
        lists = {"annotations": content["annotation"], **content}
    for key in LISTS:
        if not isinstance(lists.get(key), (list, tuple, Mapping) if key == "annotations" else (list, tuple)):
            there = ", ".join(map(repr, content)) or "nothing"
            hint = "; it is a GeoJSON, whose name ends in .geojson" if "features" in content else ""
            raise UserError(f"{path}: not a COCO JSON: no list {key!r}; it has {there}{hint}")
    return lists


def keys_of(records: Sequence[Any]) -> list[Any]:
    """The `id` of each record, None where it has none; all are text as soon as one is."""
    keys: list[Any] = []
    for record in records:
        try:
            keys.append(plain_id(record["id"]))
        except (KeyError, TypeError, ValueError):
            keys.append(None)
    text = any(isinstance(key, str) for key in keys)
    return [str(key) if text and key is not None else key for key in keys]


def ids_of(keys: Sequence[Any]) -> np.ndarray:
    """Ids as an array, int64 or text."""
    return np.array(keys) if keys else np.zeros(0, np.int64)


def read_categories(path: Path, records: Sequence[Any], problems: list[Problem]) -> dict[Any, str]:
    """Category id -> name, in the file's order; duplicate names are the last of the problems."""
    out: dict[Any, str] = {}
    twice = []
    for i, (key, record) in enumerate(zip(keys_of(records), records, strict=True), 1):
        where, name = f"{path}: category {i}", None if key is None else record.get("name")
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not is_name(str(name)):
            what = f"needs an integer 'id' and a 'name', found {shorten(record)}"
            problems.append(Problem("bad record", where, what))
        elif key in out:
            what = f"id {key} is {out[key]!r} already, here {str(name)!r}"
            problems.append(Problem("duplicate category", where, what))
        else:
            if str(name) in out.values():
                what = f"{str(name)!r} has another id already; both are one class"
                twice.append(Problem("duplicate name", where, what))
            out[key] = str(name)
    problems += twice
    return out


def read_images(
    path: Path, records: Sequence[Any], problems: list[Problem], *, needed: bool
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, ids (I,) and sizes (I, 2) of the images; an image without its keys or with a known id is left out.

    Unless they are needed, a missing name is the id, a missing size 0, and a name may stand twice.
    """
    ids: dict[Any, str] = {}
    sizes: list[tuple[int, int]] = []
    for i, (key, record) in enumerate(zip(keys_of(records), records, strict=True), 1):
        record = record if isinstance(record, Mapping) else {}
        name: Any = name_of(record)
        where = f"{path}: image {name if name and is_name(name) else i}"
        name = str(key) if name is None and not needed else name
        if key is None or not is_name(name):
            what = f"needs an integer 'id' and a 'file_name', found {shorten(record)}"
            problems.append(Problem("bad record", where, what))
        elif key in ids:
            problems.append(Problem("duplicate image", where, f"id {key} belongs to {ids[key]} already"))
        else:
            size = size_of(record)
            if not all(size) and (needed or any(record.get(side) for side in SIDES)):
                found = shorten(record.get("width")), shorten(record.get("height"))
                most = f"at most {FARTHEST:,.0f} px a side, {MOST_PIXELS:,} px in all"
                what = f"needs 'width' and 'height' over 0, found {' x '.join(found)}; {most}"
                problems.append(Problem("no size" if needed else "bad size", where, what))
            if all(size) or not needed:
                ids[key] = name
                sizes.append(size)
    for name, times in Counter(ids.values()).items() if needed else ():
        if times > 1:
            what = f"stands {times} times, under different ids"
            problems.append(Problem("duplicate image", f"{path}: image {name}", what))
    return list(ids.values()), ids_of(list(ids)), np.array(sizes, np.int64).reshape(-1, 2)


def name_of(record: Mapping[str, Any]) -> Any:
    """The file name that an image's record gives; HIT-UAV's authors write `filename`."""
    return record.get("file_name", record.get("filename"))


def size_of(record: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of an image, px; 0, 0 for what is none."""
    try:
        size = whole(record.get("height")), whole(record.get("width"))
    except ValueError:
        return 0, 0
    return size if min(size) > 0 and max(size) <= FARTHEST and size[0] * size[1] <= MOST_PIXELS else (0, 0)


def is_name(name: Any) -> bool:
    """Whether a JSON value is text that can be the name of a file or class."""
    try:
        return bool(word(name, ""))
    except ValueError:
        return False


def read_rows(path: Path, records: Any, problems: list[Problem]) -> Columns:
    """Columns of the annotations; what cannot be understood is a problem."""

    def fault(place: int, error: ValueError) -> None:
        what = f"needs image_id, category_id and bbox [x, y, w, h]: {error}"
        problems.append(Problem("bad record", f"{path}: annotation {place + 1} of the list", what))

    if not isinstance(records, Mapping):
        return of_records(records, BOX, fault)
    try:
        return of_arrays(records, BOX)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: annotations: {' '.join(str(error).split())}") from error


def number_ids(path: Path, rows: Columns, problems: list[Problem]) -> None:
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
