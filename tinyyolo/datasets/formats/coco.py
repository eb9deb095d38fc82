"""COCO JSON to arrays and back: the one reader of training, validation, evaluation, reports and conversion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.boxes.convert import convert
from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.annotations import (
    FARTHEST,
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
    lists_of,
    number_ids,
    positions,
    read_categories,
    read_images,
    read_rows,
)
from tinyyolo.datasets.formats.decode import (
    BAD_MARK,
    EXTRA,
    NO_EXTRA,
    read_bytes,
)
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

    A box is an ignore region if `iscrowd` or `ignore` is set (true, 1, "1", "true"); null, 0, "0", "false", "" and a
    missing key do not set it, and any other value is a fault, the box an object. A box without area is a fault and
    left out. By the rules of "coco" the file is read as pycocotools does, for figures that are compared with published
    ones: `iscrowd` alone makes a region, and a box of width or height 0 stays.

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
    return from_content(
        lists_of(read_bytes(path), path), path, names, ignore, strict=strict, rules=rules, images=images
    )


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
    check_lists(content, path)
    problems: list[Problem] = []
    categories = read_categories(path, content["categories"], problems)
    if rules == "coco":
        raise_first(problems, "duplicate name")  # two classes there, one here
    frames = read_images(path, content["images"], problems, needed=images)
    rows = read_rows(path, content, problems)
    number_ids(path, rows, problems if images else [])
    names = [] if names is None and not categories and not images else names
    classes = select_classes(categories, names, ignore, path)
    choices = [*classes.names.values(), *ignore]
    unknown = [key for key in categories if key not in classes.label_of]
    problems += [unknown_class(f"{path}: category {key}", categories[key], choices) for key in unknown]
    rows = drop_strangers(path, rows, frames["id"], classes, problems)
    crowd, empty_stays, unlike = by_rules(path, rows, rules, problems)
    boxes = convert(rows["bbox"], "xywh", "xyxy")
    good = good_boxes(path, rows, boxes, empty_stays, frames["file_name"], problems)
    rows, boxes, crowd = {key: column[good] for key, column in rows.items()}, boxes[good], crowd[good]
    if images:
        problems += double_ids(path, rows["id"])
    if strict:
        raise_fatal(problems)
    wh = rows["bbox"][:, 2:]
    keys = np.array(list(categories)) if categories else np.zeros(0, np.int64)
    return assemble(
        path,
        classes,
        frames["file_name"],
        frames["size_hw"],
        rows["image"],
        boxes,
        keys[rows["category"]],
        problems,
        crowd=crowd,
        areas=np.where(np.isnan(rows["area"]), wh[:, 0] * wh[:, 1], rows["area"]),
        ids=rows["id"],
        image_ids=frames["id"],
        extra={key: rows[key] for key in EXTRA if (rows[key] != NO_EXTRA).any()},
        wh=wh,
        unlike_coco=unlike,
    )


def raise_first(problems: Sequence[Problem], kind: str) -> None:
    """Stop at the first fault of a kind.

    Raises:
        UserError: there is one.
    """
    for problem in problems:
        if problem.kind == kind:
            raise UserError(problem)


def drop_strangers(
    path: Path, rows: Mapping[str, np.ndarray], image_ids: np.ndarray, classes: Classes, problems: list[Problem]
) -> dict[str, np.ndarray]:
    """The rows whose image and category the file has, with their `image` and `category` places; others are problems."""
    keys = list(classes.categories)
    known = np.array([key in classes.label_of for key in keys], bool)
    image = positions(rows["image_id"], image_ids)
    category = positions(rows["category_id"], np.array(keys) if keys else np.zeros(0, np.int64))
    for row in np.flatnonzero(image < 0).tolist():
        what = f"image_id {rows['image_id'][row]} is not in 'images'"
        problems.append(Problem("unknown image", f"{path}: annotation {rows['id'][row]}", what))
    for row in np.flatnonzero(category < 0).tolist():
        ids = ", ".join(f"{k} {name}" for k, name in classes.categories.items())
        what = f"category_id {rows['category_id'][row]} is not in 'categories'; there are: {ids or 'none'}"
        problems.append(Problem("unknown class", f"{path}: annotation {rows['id'][row]}", what))
    stay = (image >= 0) & (category >= 0)
    stay[stay] &= known[category[stay]]
    rows = {**rows, "image": image, "category": category}
    return {key: column[stay] for key, column in rows.items()}


def by_rules(
    path: Path, rows: Mapping[str, np.ndarray], rules: str, problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray, int]:
    """What the rules decide: ignore regions (K,), boxes that stay though empty (K,), and how many COCO reads unlike."""
    flat = rows["bbox"][:, 2:].min(axis=1) == 0 if len(rows["bbox"]) else np.zeros(0, bool)
    region = (rows["iscrowd"] == 1) | (rows["ignore"] == 1)
    theirs = rows["iscrowd"] != 0
    unlike = int(np.count_nonzero((region != theirs) | flat))
    if rules == "coco":
        return theirs, flat, unlike
    for key in ("iscrowd", "ignore"):
        for row in np.flatnonzero((rows[key] < 0) | (rows[key] >= BAD_MARK)).tolist():
            what = f"{key} is neither set (true, 1) nor not (false, 0, null); taken as not set"
            problems.append(Problem("bad mark", f"{path}: annotation {rows['id'][row]}", what))
    return region, np.zeros(len(flat), bool), unlike


def good_boxes(
    path: Path,
    rows: Mapping[str, np.ndarray],
    boxes: np.ndarray,
    stays: np.ndarray,
    file_names: Sequence[str],
    problems: list[Problem],
) -> np.ndarray:
    """(K,) bool, boxes (K, 4) xyxy with positive, finite sides, or that stay all the same; others become problems."""
    if len(boxes) and boxes.min() >= -FARTHEST and boxes.max() <= FARTHEST and (boxes[:, 2:] > boxes[:, :2]).all():
        return np.ones(len(boxes), bool)  # the rule, and by far faster than a word for each
    kinds = np.array(box_faults(boxes), dtype=object)
    bad: np.ndarray = (kinds != "") & ~(stays & (kinds == "empty box"))
    for row in np.flatnonzero(bad).tolist():
        where = f"{path}: annotation {rows['id'][row]} in {file_names[rows['image'][row]]}"
        problems.append(Problem(kinds[row], where, f"{kinds[row]}: bbox {rows['bbox'][row].tolist()}"))
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
        stream.write('{"images": [')
        stream.writelines(separated(map(json.dumps, image_records(annotations))))
        stream.write('],\n"annotations": [')
        stream.writelines(separated(map(json.dumps, annotation_records(annotations))))
        stream.write(f'],\n"categories": {json.dumps(category_records(annotations))}}}\n')


def write_results(path: str | Path, detections: Annotations) -> None:
    """Write detections as COCO results, whole or not at all; an old file is replaced."""
    keys = ("image_id", "category_id", "bbox", "score")
    with new_file(path, overwrite=True) as stream:
        rows = ({key: record[key] for key in keys} for record in annotation_records(detections))
        stream.write("[")
        stream.writelines(separated(map(json.dumps, rows)))
        stream.write("]\n")


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


def separated(items: Iterable[str]) -> Iterator[str]:
    """The items with a comma and a line break between them."""
    for i, item in enumerate(items):
        yield f",\n{item}" if i else item
