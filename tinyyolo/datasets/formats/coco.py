"""COCO JSON to arrays and back: the one reader of training, validation, evaluation, reports and conversion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tinyyolo.boxes.convert import convert
from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.annotations import (
    Annotations,
    Classes,
    Problem,
    assemble,
    box_faults,
    raise_fatal,
    select_classes,
    unknown_class,
)
from tinyyolo.datasets.formats.coco_tables import (
    check_lists,
    ids_of,
    number_ids,
    positions,
    read_categories,
    read_images,
    read_rows,
)
from tinyyolo.datasets.formats.decode import (
    BAD_MARK,
    BOX,
    EXTRA,
    IRREGULAR,
    NO_EXTRA,
    PLAIN,
    REGIONS,
    Columns,
    File,
    of_json,
    parse_json,
    read_bytes,
)
from tinyyolo.datasets.formats.doubts import corners, not_pixels
from tinyyolo.io import new_file

RULES = ("tinyyolo", "coco")


def read(
    path: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    strict: bool = True,
    rules: str = "tinyyolo",
    images: bool = True,
) -> Annotations:
    """Read one COCO JSON. Category ids may be any integers in any order: they are matched with `names` by name.

    A box is an ignore region if `iscrowd`, `ignore` or `uncertain` is set (true, 1, "1", "true"); null, 0, "0",
    "false", "" and a missing key do not set it, and any other value is a fault, the box an object. A box without area
    is a fault and left out. By the rules of "coco" the file is read as pycocotools does, for figures that are compared
    with published ones: `iscrowd` alone makes a region, and a box of width or height 0 stays.

    Args:
        path: the file.
        names: the classes in the wanted order; None takes the file's categories in id order without the ignored ones.
        ignore: names of categories that are ignore regions, like HIT-UAV's DontCare.
        strict: stop at the first fault that would make the numbers wrong; otherwise leave the record out and list it.
        rules: "tinyyolo" or "coco".
        images: whether the images themselves will be opened, which needs names and sizes, each name once.

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
    text = read_bytes(path)
    try:
        file = msgspec.json.decode(text, type=File)
        content = {key: msgspec.json.decode(getattr(file, key)) for key in ("images", "categories")}
        content["annotations"] = of_json(bytes(file.annotations), PLAIN, BOX)
    except (*IRREGULAR, UnicodeDecodeError):
        content = parse_json(text, path)
    return from_content(content, path, names, ignore, strict=strict, rules=rules, images=images)


def from_content(
    content: Any,
    path: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    strict: bool = True,
    rules: str = "tinyyolo",
    images: bool = False,
) -> Annotations:
    """As `read`, of a COCO dict in memory, whose `annotations` may be a mapping of arrays; `path` names it.

    Raises:
        UserError: as `read`.
    """
    path = Path(path)
    if rules not in RULES:
        raise UserError(f"rules={rules}: {suggest(rules, RULES)}")
    content = check_lists(content, path)
    problems: list[Problem] = []
    categories = read_categories(path, content["categories"], problems)
    if rules == "coco" and problems and problems[-1].kind == "duplicate name":  # two classes there, one here
        raise UserError(problems[-1])
    file_names, image_ids, sizes_hw = read_images(path, content["images"], problems, needed=images)
    rows = read_rows(path, content["annotations"], problems)
    number_ids(path, rows, problems if images else [])
    names = [] if names is None and not categories and not images else names
    classes = select_classes(categories, names, ignore, path)
    choices = [*classes.names.values(), *ignore]
    unknown = [key for key in categories if key not in classes.label_of]
    problems += [unknown_class(f"{path}: category {key}", categories[key], choices) for key in unknown]
    rows = drop_strangers(path, rows, image_ids, classes, problems)
    crowd, empty_stays, unlike = by_rules(path, rows, rules, problems)
    boxes = convert(rows["bbox"], "xywh", "xyxy")
    good = good_boxes(path, rows, boxes, empty_stays, file_names, problems)
    if not good.all():
        rows, boxes, crowd = {key: column[good] for key, column in rows.items()}, boxes[good], crowd[good]
    if images:
        problems += double_ids(path, rows["id"])
        problems[:0] = corners(rows["bbox"], path, "x, y, width, height") + not_pixels(rows["bbox"], path)
    if strict:
        raise_fatal(problems)
    wh = rows["bbox"][:, 2:]
    return assemble(
        path,
        classes,
        file_names,
        sizes_hw,
        rows["image"],
        boxes,
        ids_of(list(categories))[rows["category"]],
        problems,
        crowd=crowd,
        areas=np.where(np.isnan(rows["area"]), wh[:, 0] * wh[:, 1], rows["area"]),
        ids=rows["id"],
        image_ids=image_ids,
        extra={key: rows[key] for key in EXTRA if (rows[key] != NO_EXTRA).any()},
        wh=wh,
        unlike_coco=unlike,
    )


def drop_strangers(
    path: Path, rows: Columns, image_ids: np.ndarray, classes: Classes, problems: list[Problem]
) -> Columns:
    """The rows whose image and category the file has, with their `image` and `category` places; others are problems."""
    keys = list(classes.categories)
    image, category = positions(rows["image_id"], image_ids), positions(rows["category_id"], ids_of(keys))
    there = ", ".join(f"{key} {name}" for key, name in classes.categories.items()) or "none"
    for at, key, kind, what in (
        (image, "image_id", "unknown image", "is not in 'images'"),
        (category, "category_id", "unknown class", f"is not in 'categories'; there are: {there}"),
    ):
        for row in np.flatnonzero(at < 0).tolist():
            where = f"{path}: annotation {rows['id'][row]}"
            problems.append(Problem(kind, where, f"{key} {rows[key][row]} {what}"))
    known = np.array([key in classes.label_of for key in keys] + [False], bool)
    stay = (image >= 0) & known[category]
    rows = {**rows, "image": image, "category": category}
    return rows if stay.all() else {key: column[stay] for key, column in rows.items()}


def by_rules(path: Path, rows: Columns, rules: str, problems: list[Problem]) -> tuple[np.ndarray, np.ndarray, int]:
    """What the rules decide: ignore regions (K,), boxes that stay though empty (K,), and how many COCO reads unlike."""
    flat = rows["bbox"][:, 2:].min(axis=1) == 0 if len(rows["bbox"]) else np.zeros(0, bool)
    region = np.any([rows[key] == 1 for key in REGIONS], axis=0)
    theirs = rows["iscrowd"] != 0
    unlike = int(np.count_nonzero((region != theirs) | flat))
    if rules == "coco":
        return theirs, flat, unlike
    for key in REGIONS:
        for row in np.flatnonzero((rows[key] < 0) | (rows[key] >= BAD_MARK)).tolist():
            what = f"{key} is neither set (true, 1) nor not (false, 0, null); taken as not set"
            problems.append(Problem("bad mark", f"{path}: annotation {rows['id'][row]}", what))
    return region, np.zeros(len(flat), bool), unlike


def good_boxes(
    path: Path, rows: Columns, boxes: np.ndarray, stays: np.ndarray, names: Sequence[str], problems: list[Problem]
) -> np.ndarray:
    """(K,) bool, boxes (K, 4) xyxy with positive, finite sides, or that stay all the same; others become problems."""
    kinds = box_faults(boxes)
    bad: np.ndarray = (kinds != "") & ~(stays & (kinds == "empty box"))
    for row in np.flatnonzero(bad).tolist():
        where = f"{path}: annotation {rows['id'][row]} in {names[rows['image'][row]]}"
        problems.append(Problem(str(kinds[row]), where, f"{kinds[row]}: bbox {rows['bbox'][row].tolist()}"))
    return ~bad


def double_ids(path: Path, ids: np.ndarray) -> list[Problem]:
    """Annotation ids that stand more than once; the boxes stay."""
    values, times = np.unique(ids, return_counts=True)
    doubles = zip(values[times > 1].tolist(), times[times > 1].tolist(), strict=True)
    return [Problem("duplicate id", f"{path}: annotation {key}", f"the id stands {n} times") for key, n in doubles]


def write(path: str | Path, annotations: Annotations, *, overwrite: bool = False) -> None:
    """Write annotations as COCO JSON, ids and class order kept, ignore regions as iscrowd=1.

    Raises:
        UserError: the file exists and `overwrite` is not set.
    """
    with new_file(path, overwrite=overwrite) as stream:
        stream.write(f'{{"images": {listed(image_records(annotations))},\n')
        stream.write(f'"annotations": {listed(annotation_records(annotations))},\n')
        stream.write(f'"categories": {json.dumps(category_records(annotations))}}}\n')


def write_results(path: str | Path, detections: Annotations) -> None:
    """Write detections as COCO results, whole or not at all; an old file is replaced."""
    keys = ("image_id", "category_id", "bbox", "score")
    with new_file(path, overwrite=True) as stream:
        stream.write(listed({key: record[key] for key in keys} for record in annotation_records(detections)) + "\n")


def listed(records: Iterable[Mapping[str, Any]]) -> str:
    """A JSON array, a line for each record."""
    return "[" + ",\n".join(map(json.dumps, records)) + "]"


def to_content(annotations: Annotations) -> dict[str, list[dict[str, Any]]]:
    """A COCO dict, as `write` writes it."""
    images, records = list(image_records(annotations)), list(annotation_records(annotations))
    return {"images": images, "annotations": records, "categories": category_records(annotations)}


def category_records(annotations: Annotations) -> list[dict[str, Any]]:
    """COCO `categories`: the classes in their order, then the ignored categories."""
    classes = dict(zip(annotations.category_ids.tolist(), annotations.names.values(), strict=True))
    every = {**classes, **{k: name for k, name in annotations.categories.items() if k not in classes}}
    return [{"id": key, "name": name} for key, name in every.items()]


def image_records(annotations: Annotations) -> Iterator[dict[str, Any]]:
    """COCO `images`; a size that is not known is left out."""
    sizes = annotations.sizes_hw.tolist()
    for key, name, (h, w) in zip(annotations.image_ids.tolist(), annotations.file_names, sizes, strict=True):
        yield {"id": key, "file_name": name, **({"width": w, "height": h} if w and h else {})}


def annotation_records(annotations: Annotations) -> Iterator[dict[str, Any]]:
    """COCO `annotations`, with `score` if there are scores."""
    notes = annotations
    columns = {
        "id": notes.ids,
        "image_id": notes.image_ids[notes.image_index],
        "category_id": notes.box_categories,
        "bbox": notes.xywh,
        "area": notes.areas,
        "iscrowd": (notes.labels < 0).astype(np.int64),
        **notes.extra,
        **({} if notes.scores is None else {"score": notes.scores}),
    }
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, row, strict=True))
