"""COCO JSON to arrays and back. A file of 376 thousand boxes never stands in memory as Python objects."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import (
    IGNORED,
    Annotations,
    Problem,
    box_faults,
    freeze,
    raise_fatal,
    select_classes,
    unknown_class,
)
from tinyyolo.datasets.files import new_file

# One annotation as packed bytes: id, image, category, place in the file, marked to be ignored, x, y, w, h, area.
ROW = struct.Struct("<4q?5d")
ROW_TYPE = np.dtype(
    [
        ("id", "<i8"),
        ("image", "<i8"),
        ("category", "<i8"),
        ("place", "<i8"),
        ("crowd", "?"),
        ("xywh", "<f8", 4),
        ("area", "<f8"),
    ]
)
NO_AREA = float("nan")
PACKED = object()


def read(
    path: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    strict: bool = True,
) -> Annotations:
    """Read one COCO JSON. Category ids may be any integers in any order: they are matched with `names` by name.

    Args:
        path: the file.
        names: the classes in the wanted order; None takes the file's categories in id order without the ignored ones.
        ignore: names of categories that are ignore regions, like HIT-UAV's DontCare; so is a box with iscrowd=1 or
            ignore=1.
        strict: stop at the first fault that would make the numbers wrong; otherwise leave the record out and list it.

    Returns:
        The annotations; duplicate boxes and boxes of any positive size stay, in the file's order within an image.

    Raises:
        UserError: missing file, malformed JSON, or (strict) unknown class or image, double image, incomplete record.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.json").write_text('''{
        ...     "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 32}],
        ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 4, 5], "area": 20}],
        ...     "categories": [{"id": 3, "name": "ship"}]}''')
        >>> found = read(folder / "a.json")
        >>> found.names, found.boxes.tolist(), found.sizes_hw.tolist()
        ({0: 'ship'}, [[1.0, 2.0, 5.0, 7.0]], [[32, 64]])
    """
    path = Path(path)
    content, rows = parse(path)
    problems: list[Problem] = []
    categories = read_categories(path, content["categories"], problems)
    images = read_images(path, content["images"], problems)
    rows = np.concatenate([rows, repair(path, content["annotations"], rows, problems)])
    classes, category_ids, label_of = select_classes(categories, names, ignore, path)
    problems += [
        unknown_class(f"{path}: category {key}", name, [*classes.values(), *ignore])
        for key, name in categories.items()
        if key not in label_of
    ]
    rows = drop_strangers(path, np.sort(rows, order="place"), images["id"], categories, label_of, problems)
    boxes = np.concatenate([rows["xywh"][:, :2], rows["xywh"][:, :2] + rows["xywh"][:, 2:]], axis=1)
    rows, boxes = drop_bad_boxes(path, rows, boxes, images, problems)
    problems += double_ids(path, rows["id"])
    if strict:
        raise_fatal(problems)
    by_id = np.argsort(images["id"], kind="stable")
    image_index = by_id[np.searchsorted(images["id"], rows["image"], sorter=by_id)].astype(np.int64)
    order = np.argsort(image_index, kind="stable")
    rows, boxes = rows[order], boxes[order]
    labels = lookup(rows["category"], label_of)
    labels[rows["crowd"]] = IGNORED
    area = np.where(np.isnan(rows["area"]), rows["xywh"][:, 2] * rows["xywh"][:, 3], rows["area"])
    return freeze(
        Annotations(
            path=path,
            file_names=images["file_name"],
            sizes_hw=images["size_hw"],
            image_ids=images["id"],
            names=classes,
            category_ids=category_ids,
            image_index=image_index[order],
            boxes=boxes,
            labels=labels,
            areas=area,
            ids=rows["id"].copy(),
            problems=problems,
            categories=categories,
            box_categories=rows["category"].copy(),
            crowd=rows["crowd"].copy(),
        )
    )


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
            packed.extend(ROW.pack(record["id"], record["image_id"], record["category_id"], 0, crowd, x, y, w, h, area))
        except (KeyError, TypeError, ValueError, struct.error):
            return record
        return PACKED

    try:
        content = json.loads(path.read_bytes(), object_hook=pack)
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.json"))) or "none"
        raise UserError(f"{path}: no such annotation file; JSON files in that folder: {there}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {' '.join(str(error).split())}") from error
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
        found.append((key, image, category, place, crowd, (x, y, w, h), area))
    return np.array(found, ROW_TYPE)


def drop_strangers(
    path: Path,
    rows: np.ndarray,
    image_ids: np.ndarray,
    categories: Mapping[int, str],
    label_of: Mapping[int, int],
    problems: list[Problem],
) -> np.ndarray:
    """The rows whose image and category the file has; the others become problems, one line each."""
    no_image = ~np.isin(rows["image"], image_ids)
    no_class = ~np.isin(rows["category"], np.fromiter(label_of, np.int64, len(label_of)))
    for row in rows[no_image]:
        what = f"image_id {row['image']} is not in 'images'"
        problems.append(Problem("unknown image", f"{path}: annotation {row['id']}", what))
    for row in rows[no_class]:
        key = int(row["category"])
        if key not in categories:
            ids = ", ".join(f"{k} {name}" for k, name in categories.items())
            what = f"category_id {key} is not in 'categories'; there are: {ids or 'none'}"
            problems.append(Problem("unknown class", f"{path}: annotation {row['id']}", what))
    return rows[~(no_image | no_class)]


def drop_bad_boxes(
    path: Path, rows: np.ndarray, boxes: np.ndarray, images: Mapping[str, Any], problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and boxes (K, 4) with positive, finite sides; the others become problems."""
    kinds = np.array(box_faults(boxes), dtype=object)
    bad = kinds != ""
    name_of = dict(zip(images["id"].tolist(), images["file_name"], strict=True)) if bad.any() else {}
    for row, kind in zip(rows[bad], kinds[bad], strict=True):
        where = f"{path}: annotation {row['id']} in {name_of[int(row['image'])]}"
        problems.append(Problem(kind, where, f"{kind}: bbox {row['xywh'].tolist()}"))
    return rows[~bad], boxes[~bad]


def double_ids(path: Path, ids: np.ndarray) -> list[Problem]:
    """Annotation ids that stand more than once; the boxes stay."""
    values, times = np.unique(ids, return_counts=True)
    doubles = zip(values[times > 1].tolist(), times[times > 1].tolist(), strict=True)
    return [Problem("duplicate id", f"{path}: annotation {key}", f"the id stands {n} times") for key, n in doubles]


def lookup(keys: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """`table[key]` for every key (K,), all of them known."""
    known = np.array(sorted(table), np.int64)
    values = np.array([table[key] for key in known.tolist()], np.int64)
    return values[np.searchsorted(known, keys)] if len(keys) else np.zeros(0, np.int64)


def write(path: str | Path, annotations: Annotations, *, overwrite: bool = False) -> None:
    """Write annotations as COCO JSON, ids and class order kept, ignore regions as iscrowd=1.

    Raises:
        UserError: the file exists and `overwrite` is not set.
    """
    with new_file(path, overwrite=overwrite) as stream:
        stream.write('{"images": [')
        stream.writelines(separated(map(json.dumps, image_records(annotations))))
        stream.write('],\n"annotations": [')
        stream.writelines(separated(map(json.dumps, annotation_records(annotations))))
        categories = [{"id": key, "name": name} for key, name in all_categories(annotations).items()]
        stream.write(f'],\n"categories": {json.dumps(categories)}}}\n')


def all_categories(annotations: Annotations) -> dict[int, str]:
    """id -> name: the classes in their order, then the ignored categories."""
    classes = dict(zip(annotations.category_ids.tolist(), annotations.names.values(), strict=True))
    return {**classes, **{k: name for k, name in annotations.categories.items() if k not in classes}}


def image_records(annotations: Annotations) -> Iterator[dict[str, Any]]:
    """COCO `images`."""
    sizes = annotations.sizes_hw.tolist()
    for key, name, (h, w) in zip(annotations.image_ids.tolist(), annotations.file_names, sizes, strict=True):
        yield {"id": key, "file_name": name, "width": w, "height": h}


def annotation_records(annotations: Annotations) -> Iterator[dict[str, Any]]:
    """COCO `annotations`."""
    arrays = annotations.to_arrays()
    columns = [arrays[key].tolist() for key in ("id", "image_id", "category_id", "bbox", "area")]
    for row in zip(*columns, arrays["iscrowd"].astype(int).tolist(), strict=True):
        yield dict(zip(("id", "image_id", "category_id", "bbox", "area", "iscrowd"), row, strict=True))


def separated(items: Iterable[str]) -> Iterator[str]:
    """The items with a comma and a line break between them."""
    for i, item in enumerate(items):
        yield f",\n{item}" if i else item


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
