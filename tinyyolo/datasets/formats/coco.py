"""COCO JSON to arrays and back: the one reader of training, validation, evaluation, reports and conversion."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
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
from tinyyolo.datasets.formats.decode import (
    BAD_MARK,
    BOX,
    EXTRA,
    IRREGULAR,
    NO_EXTRA,
    NO_ID,
    PLAIN,
    Columns,
    File,
    of_arrays,
    of_json,
    of_records,
    parse_json,
    plain_id,
    positions,
    read_bytes,
    shorten,
    whole,
)
from tinyyolo.io import new_file

RULES = ("tinyyolo", "coco")
LISTS = ("images", "annotations", "categories")


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
    check_lists(content, path)
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


def check_lists(content: Any, path: Path) -> None:
    """Stop unless the three lists are there."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected a COCO JSON object at the top, found {type(content).__name__}")
    for key in LISTS:
        if not isinstance(content.get(key), (list, tuple, Mapping) if key == "annotations" else (list, tuple)):
            there = ", ".join(map(repr, content)) or "nothing"
            raise UserError(f"{path}: not a COCO JSON: no list {key!r}; it has {there}")


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
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
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
        name = record.get("file_name")
        where = f"{path}: image {name if name else i}"
        name = str(key) if name is None and not needed else name
        size = side_of(record.get("height")), side_of(record.get("width"))
        if key is None or not isinstance(name, str) or not name:
            what = f"needs an integer 'id' and a 'file_name', found id {record.get('id')!r}"
            problems.append(Problem("bad record", where, what))
        elif key in ids:
            problems.append(Problem("duplicate image", where, f"id {key} belongs to {ids[key]} already"))
        elif needed and not all(size):
            found = f"{record.get('width')!r} x {record.get('height')!r}"
            problems.append(Problem("no size", where, f"needs 'width' and 'height' over 0, found {found}"))
        else:
            ids[key] = name
            sizes.append(size if all(size) else (0, 0))
    for name, times in Counter(ids.values()).items() if needed else ():
        if times > 1:
            what = f"stands {times} times, under different ids"
            problems.append(Problem("duplicate image", f"{path}: image {name}", what))
    return list(ids.values()), ids_of(list(ids)), np.array(sizes, np.int64).reshape(-1, 2)


def side_of(value: Any) -> int:
    """A side of an image, px; 0 for what is none."""
    try:
        side = whole(value)
    except ValueError:
        return 0
    return side if 0 < side < 2**31 else 0


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
    rows: Columns,
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
