"""Decode a COCO JSON without keeping it: annotations become packed rows while the decoder runs."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Problem

# One annotation as packed bytes: id, image, category, place in the file, marked to be ignored, x, y, w, h, area, and
# what VisDrone and DOTA say besides (NO_EXTRA where the file does not).
ROW = struct.Struct("<4q?5d3h")
EXTRA = ("difficult", "truncation", "occlusion")
NO_EXTRA = -32768
ROW_TYPE = np.dtype(
    [
        ("id", "<i8"),
        ("image", "<i8"),
        ("category", "<i8"),
        ("place", "<i8"),
        ("crowd", "?"),
        ("xywh", "<f8", 4),
        ("area", "<f8"),
        *[(key, "<i2") for key in EXTRA],
    ]
)
NO_AREA = float("nan")
PACKED = object()
ABSENT = (NO_EXTRA,) * len(EXTRA)


def parse(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Decode the file; annotations that are in order become rows at once, the others stay in the returned mapping.

    Returns:
        the mapping, its `annotations` a list of PACKED or the record as it stood, and (R,) rows of ROW_TYPE.

    Raises:
        UserError: missing, not JSON, or without the three lists.
    """
    packed = bytearray()

    def pack(record: dict[str, Any]) -> Any:
        try:
            x, y, w, h = record["bbox"]
            crowd = bool(record.get("iscrowd", 0) or record.get("ignore", 0))
            area = record.get("area", NO_AREA)
            ids = record["id"], record["image_id"], record["category_id"]
            extra = (
                (record.get(key, NO_EXTRA) for key in EXTRA)
                if "difficult" in record or "truncation" in record
                else ABSENT
            )
            packed.extend(ROW.pack(*ids, 0, crowd, x, y, w, h, area, *extra))
        except (KeyError, TypeError, ValueError, struct.error):
            return record
        return PACKED

    content = load_json(path, pack)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a COCO JSON object at the top, found {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise UserError(
                f"{path}: not a COCO JSON: no list {key!r}; it has {', '.join(map(repr, content)) or 'nothing'}"
            )
    rows = np.frombuffer(packed, ROW_TYPE).copy()
    places = [i for i, record in enumerate(content["annotations"]) if record is PACKED]
    if len(places) != len(rows):
        raise UserError(f"{path}: {len(rows) - len(places)} annotations stand outside the list 'annotations'")
    rows["place"] = places
    return content, rows


def load_json(path: Path, hook: Callable[[dict[str, Any]], Any]) -> Any:
    """Decode a file; every object in it goes through `hook`, innermost first.

    Raises:
        UserError: missing, or no JSON; with the line.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), object_hook=hook)
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))) or "none"
        kind = path.suffix.lstrip(".").upper()
        raise UserError(f"{path}: no such annotation file; {kind} files in that folder: {there}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {' '.join(str(error).split())}") from error


def read_categories(path: Path, records: list[Any], problems: list[Problem]) -> dict[int, str]:
    """Category id -> name, in the file's order."""
    out: dict[int, str] = {}
    for i, record in enumerate(records):
        where = f"{path}: category {i + 1}"
        key, name = (record.get("id"), record.get("name")) if isinstance(record, dict) else (None, None)
        if not is_integer(key) or not isinstance(name, str):
            problems.append(
                Problem("bad record", where, f"needs an integer 'id' and a 'name', found {shorten(record)}")
            )
        elif key in out:
            problems.append(Problem("duplicate category", where, f"id {key} is {out[key]!r} already, here {name!r}"))
        else:
            if name in out.values():
                problems.append(
                    Problem("duplicate name", where, f"{name!r} has another id already; both are one class")
                )
            out[int(key)] = name
    return out


def read_images(path: Path, records: list[Any], problems: list[Problem]) -> dict[str, Any]:
    """Names, ids (I,) and sizes (I, 2) of the images; an image without its keys or with a known id is left out."""
    names: list[str] = []
    ids: dict[int, str] = {}
    sizes: list[tuple[int, int]] = []
    for i, record in enumerate(records):
        record = record if isinstance(record, dict) else {}
        key, name = record.get("id"), record.get("file_name")
        where = f"{path}: image {name if name else i + 1}"
        size = (record.get("height"), record.get("width"))
        if not is_integer(key) or not isinstance(name, str) or not name:
            problems.append(Problem("bad record", where, f"needs an integer 'id' and a 'file_name', found id {key!r}"))
        elif key in ids:
            problems.append(Problem("duplicate image", where, f"id {key} belongs to {ids[key]} already"))
        elif not all(is_integer(side) and side > 0 for side in size):
            problems.append(
                Problem("no size", where, f"needs 'width' and 'height' over 0, found {size[1]!r} x {size[0]!r}")
            )
        else:
            names.append(name)
            ids[int(key)] = name
            sizes.append(size)
    for name, times in Counter(names).items():
        if times > 1:
            problems.append(
                Problem("duplicate image", f"{path}: image {name}", f"stands {times} times, under different ids")
            )
    size_hw = np.array(sizes, np.int64).reshape(-1, 2)
    return {"file_name": names, "id": np.fromiter(ids, np.int64, len(ids)), "size_hw": size_hw}


def repair(path: Path, records: list[Any], rows: np.ndarray, problems: list[Problem]) -> np.ndarray:
    """Rows of the annotations that could not be packed as they stand; what cannot be understood is a problem."""
    found = []
    fresh = int(rows["id"].max(initial=0))
    for place, record in enumerate(records):
        if record is PACKED:
            continue
        where = f"{path}: annotation {place + 1} of the list"
        try:
            box = [float("nan") if v is None else float(v) for v in record["bbox"]]
            image, category = whole(record["image_id"]), whole(record["category_id"])
            key = whole(record.get("id", fresh + 1))
            x, y, w, h = box
            area = NO_AREA if record.get("area") is None else float(record["area"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            problems.append(Problem("bad record", where, f"needs image_id, category_id and bbox [x, y, w, h]: {what}"))
            continue
        if "id" not in record:
            fresh += 1
            problems.append(Problem("no id", where, f"no 'id'; {key} is used"))
        crowd = bool(record.get("iscrowd", 0) or record.get("ignore", 0))
        found.append((key, image, category, place, crowd, (x, y, w, h), area, *ABSENT))
    return np.array(found, ROW_TYPE)


def is_integer(value: Any) -> bool:
    """Whether a JSON value is a whole number (a bool is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value: Any) -> int:
    """A JSON value as an integer: 3, 3.0 and "3" are.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError(f"{value!r} is no whole number")
    return int(float(value))


def shorten(record: Any, width: int = 80) -> str:
    """A record on one line, cut to `width` characters."""
    text = " ".join(repr(record).split())
    return text if len(text) <= width else f"{text[: width - 3]}..."
