"""COCO JSON to arrays and back. A file of 376 thousand boxes never stands in memory as Python objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
from tinyyolo.datasets.formats.coco_parse import EXTRA, NO_EXTRA, parse, read_categories, read_images, repair
from tinyyolo.io import new_file


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
    rows = rows[np.argsort(rows["place"], kind="stable")]
    classes = select_classes(categories, names, ignore, path)
    choices = [*classes.names.values(), *ignore]
    unknown = [key for key in categories if key not in classes.label_of]
    problems += [unknown_class(f"{path}: category {key}", categories[key], choices) for key in unknown]
    rows = drop_strangers(path, rows, images["id"], classes, problems)
    boxes = np.concatenate([rows["xywh"][:, :2], rows["xywh"][:, :2] + rows["xywh"][:, 2:]], axis=1)
    rows, boxes = drop_bad_boxes(path, rows, boxes, images, problems)
    problems += double_ids(path, rows["id"])
    if strict:
        raise_fatal(problems)
    by_id = np.argsort(images["id"], kind="stable")
    return assemble(
        path,
        classes,
        images["file_name"],
        images["size_hw"],
        by_id[np.searchsorted(images["id"], rows["image"], sorter=by_id)],
        boxes,
        rows["category"],
        problems,
        crowd=rows["crowd"],
        areas=np.where(np.isnan(rows["area"]), rows["xywh"][:, 2] * rows["xywh"][:, 3], rows["area"]),
        ids=rows["id"],
        image_ids=images["id"],
        extra={key: rows[key] for key in EXTRA if (rows[key] != NO_EXTRA).any()},
    )


def drop_strangers(
    path: Path, rows: np.ndarray, image_ids: np.ndarray, classes: Classes, problems: list[Problem]
) -> np.ndarray:
    """The rows whose image and category the file has; the others become problems, one line each."""
    no_image = ~np.isin(rows["image"], image_ids)
    no_class = ~np.isin(rows["category"], list(classes.label_of))
    for row in rows[no_image]:
        what = f"image_id {row['image']} is not in 'images'"
        problems.append(Problem("unknown image", f"{path}: annotation {row['id']}", what))
    for row in rows[no_class]:
        key = int(row["category"])
        if key not in classes.categories:
            ids = ", ".join(f"{k} {name}" for k, name in classes.categories.items())
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
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", *annotations.extra)
    extra = [column.tolist() for column in annotations.extra.values()]
    for row in zip(*columns, arrays["iscrowd"].astype(int).tolist(), *extra, strict=True):
        yield dict(zip(keys, row, strict=True))


def separated(items: Iterable[str]) -> Iterator[str]:
    """The items with a comma and a line break between them."""
    for i, item in enumerate(items):
        yield f",\n{item}" if i else item
