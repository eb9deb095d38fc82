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
    EXTRA,
    NO_EXTRA,
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
from tinyyolo.io import new_file

LISTS = ("images", "annotations", "categories")
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


def lists_of(text: bytes, path: Path) -> dict[str, Any]:
    """The three lists of a file: images and categories decoded, annotations as JSON if they may be regular."""
    try:
        file = msgspec.json.decode(text, type=File)
        out = {key: msgspec.json.decode(getattr(file, key)) for key in ("images", "categories")}
        return out | {"annotations": bytes(file.annotations), "text": text}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return parse_json(text, path)  # type: ignore[no-any-return]  # from_content looks at it


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


def raise_first(problems: Sequence[Problem], kind: str) -> None:
    """Stop at the first fault of a kind.

    Raises:
        UserError: there is one.
    """
    for problem in problems:
        if problem.kind == kind:
            raise UserError(problem)


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
