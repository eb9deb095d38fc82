"""Columns of COCO records, checked: every fault is one line that names the file, the record and the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyyolo.config import UserError

FIELDS = ("image_id", "category_id", "bbox")


def columns_of(records: Any, source: str, what: str, optional: Mapping[str, Any]) -> dict[str, Any]:
    """Columns by name from a list of records or a mapping of arrays; `optional` maps a field to its default.

    A default of `...` makes the field required.
    """
    wanted = [*FIELDS, *optional]
    if isinstance(records, Mapping):
        given = {key: np.asarray(records[key]) for key in wanted if key in records}
        size = len(given["bbox"]) if "bbox" in given else 0
        uneven = [key for key, value in given.items() if len(value) != size]
        if uneven:
            raise UserError(f"{source}: {uneven[0]} has {len(given[uneven[0]])} rows, bbox has {size}")
    elif isinstance(records, Sequence) and not isinstance(records, (str, bytes)):
        size = len(records)
        given = {key: column_of(records, key, optional.get(key, ...), source, what) for key in wanted}
    else:
        raise UserError(f"{source}: expected a list of {what}s, found {type(records).__name__}")
    out = {}
    for key in wanted:
        default = optional.get(key, ...)
        if key not in given and default is ...:
            raise UserError(f"{source}: {what}s have no {key!r}")
        out[key] = given[key] if key in given else (None if default is None else np.full(size, default))
    return out


def column_of(records: Sequence[Any], key: str, default: Any, source: str, what: str) -> Any:
    """The values of one field of all records as a list."""
    try:
        return [r[key] for r in records] if default is ... else [r.get(key, default) for r in records]
    except (KeyError, TypeError, AttributeError):
        at = next(i for i, r in enumerate(records) if not isinstance(r, Mapping) or key not in r)
        raise UserError(f"{source}: {what} {at} has no {key!r}") from None


def numbers(values: Any, source: str, what: str, key: str) -> np.ndarray:
    """`values` as float64 (n,).

    Raises:
        UserError: a value is no number; the line names the first.
    """
    try:
        return np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError):
        at = next((i for i, v in enumerate(values) if isinstance(v, bool) or not isinstance(v, (int, float))), 0)
        raise UserError(f"{source}: {what} {at} has {key} {values[at]!r}, expected a number") from None


def checked_boxes(values: Any, source: str, what: str) -> np.ndarray:
    """`values` as float64 (n, 4) xywh, finite and without negative sizes."""
    try:
        boxes = np.asarray(values, np.float64)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    except (TypeError, ValueError):
        boxes = np.empty((0, 0))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        at = next((i for i, b in enumerate(values) if not (isinstance(b, Sequence) and len(b) == 4)), 0)
        raise UserError(f"{source}: {what} {at} has bbox {values[at]!r}, expected [x, y, width, height]")
    wrong = np.flatnonzero(~(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= 0).all(1)))
    if wrong.size:
        raise UserError(
            f"{source}: {what} {wrong[0]} has bbox {boxes[wrong[0]].tolist()}: not finite or a negative size"
        )
    return boxes


def checked_areas(values: Any, boxes: np.ndarray, source: str) -> np.ndarray:
    """The `area` column; where it is missing, width times height."""
    own = boxes[:, 2] * boxes[:, 3]
    if values is None:
        return own
    area = numbers(
        [np.nan if v is None else v for v in values] if isinstance(values, list) else values,
        source,
        "annotation",
        "area",
    )
    return np.where(np.isnan(area), own, area)


def image_table(images: Any, source: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Image ids sorted, their file names, and their (height, width), 0 where unknown."""
    try:
        ids = np.asarray([r["id"] for r in images])
        names = [str(r.get("file_name", r["id"])) for r in images]
        sizes = [(int(r.get("height") or 0), int(r.get("width") or 0)) for r in images]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{source}: every entry of images needs an id") from None
    check_unique(ids, source, "image id")
    order = np.argsort(ids, kind="stable")
    return ids[order], tuple(names[i] for i in order), np.asarray(sizes, np.int64).reshape(-1, 2)[order]


def category_table(categories: Any, source: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Category ids sorted, and their names."""
    try:
        ids, names = np.asarray([r["id"] for r in categories]), [str(r["name"]) for r in categories]
    except (KeyError, TypeError):
        raise UserError(f"{source}: every entry of categories needs an id and a name") from None
    check_unique(ids, source, "category id")
    check_unique(np.asarray(names), source, "category name")
    order = np.argsort(ids, kind="stable")
    return ids[order], tuple(names[i] for i in order)


def check_unique(ids: np.ndarray, source: str, what: str) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{source}: {what} {values[counts > 1][0]} stands there {counts.max()} times")


def index_of(ids: Any, known: np.ndarray, source: str, key: str, where: str) -> np.ndarray:
    """Positions of `ids` in the sorted `known`.

    Raises:
        UserError: an id that `known` lacks.
    """
    ids = np.asarray(ids)
    if not ids.size:
        return np.empty(0, np.int64)
    if ids.dtype.kind == "f" and known.dtype.kind in "iu" and (ids == np.floor(ids)).all():
        ids = ids.astype(np.int64)
    alike = known.size and (ids.dtype.kind in "iuf") == (known.dtype.kind in "iuf") and ids.ndim == 1
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1) if alike else np.zeros(len(ids), np.int64)
    missing = np.flatnonzero(known[at] != ids) if alike else np.arange(len(ids))
    if missing.size:
        raise UserError(f"{source}: {key} {ids[missing[0]]!s} is not in {where} ({missing.size} such)")
    return at
