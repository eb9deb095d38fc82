"""Objects and detections as columns, from COCO JSON paths, dicts, records, arrays or `Annotations`, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError, suggest
from tinyyolo.evaluation.columns import (
    category_table,
    check_unique,
    checked_areas,
    checked_boxes,
    columns_of,
    image_table,
    index_of,
    numbers,
)
from tinyyolo.evaluation.records import read_json


@dataclass(frozen=True, eq=False)
class Truth:
    """Objects of I images and C categories, both sorted by id as COCO's evaluator sorts them.

    `image`, `category` (M,) index `image_ids` and `category_ids`; -1 in `category` is an ignore region of every class.
    `boxes` (M, 4) float64 xywh px, `area` (M,) px², `crowd` (M,) bool. Objects keep the order of the file, since of two
    objects with equal IoU the later one is matched. `file_names` and `sizes_hw` (I, 2) serve the report, 0 if unknown.
    """

    source: str
    image_ids: np.ndarray
    file_names: tuple[str, ...]
    sizes_hw: np.ndarray
    category_ids: np.ndarray
    names: tuple[str, ...]
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, eq=False)
class Detections:
    """D detections, `image` and `category` (D,) as in `Truth`; `boxes` (D, 4) float64 xywh px, `scores` (D,)."""

    source: str
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def read_truth(gt: Any, ignore: Sequence[str] = ()) -> Truth:
    """Objects from a COCO JSON path, a COCO dict, or `tinyyolo.datasets` Annotations.

    As in COCO's evaluator `iscrowd` alone makes an ignore region; the key `ignore` is not read.

    Args:
        gt: the objects.
        ignore: names of categories whose boxes are ignore regions for all other classes, such as HIT-UAV's DontCare.

    Raises:
        UserError: unreadable, a key or value is wrong, an id is doubled or refers to nothing.
    """
    if isinstance(gt, Truth):
        return ignore_classes(gt, ignore)
    if hasattr(gt, "image_index") and hasattr(gt, "category_ids"):
        return ignore_classes(truth_from_annotations(gt), ignore)
    source = str(gt) if isinstance(gt, (str, Path)) else "gt"
    content = read_json(gt) if isinstance(gt, (str, Path)) else gt
    if not isinstance(content, Mapping) or not {"images", "annotations", "categories"} <= content.keys():
        raise UserError(f"{source}: not a COCO annotation file: it needs the keys images, annotations and categories")
    image_ids, file_names, sizes = image_table(content["images"], source)
    category_ids, names = category_table(content["categories"], source)
    columns = columns_of(content["annotations"], source, "annotation", optional={"area": None, "iscrowd": 0})
    boxes = checked_boxes(columns["bbox"], source, "annotation")
    truth = Truth(
        source=source,
        image_ids=image_ids,
        file_names=file_names,
        sizes_hw=sizes,
        category_ids=category_ids,
        names=names,
        image=index_of(columns["image_id"], image_ids, f"{source}: annotations", "image_id", "images"),
        category=index_of(columns["category_id"], category_ids, f"{source}: annotations", "category_id", "categories"),
        boxes=boxes,
        area=checked_areas(columns["area"], boxes, source),
        crowd=numbers(columns["iscrowd"], source, "annotation", "iscrowd").astype(bool),
    )
    return ignore_classes(truth, ignore)


def ignore_classes(truth: Truth, names: Sequence[str]) -> Truth:
    """`truth` without the named classes, whose boxes become ignore regions of all others."""
    for name in names:
        if name not in truth.names:
            raise UserError(f"ignore: {truth.source} has no class {name!r}; {suggest(name, truth.names)}")
    keep = np.array([name not in names for name in truth.names], bool)
    if keep.all():
        return truth
    index = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)
    return replace(
        truth,
        category_ids=truth.category_ids[keep],
        names=tuple(name for name in truth.names if name not in names),
        category=index[truth.category],
        crowd=truth.crowd | (index[truth.category] < 0),
    )


def read_detections(dt: Any, truth: Truth, source: str | None = None) -> Detections:
    """Detections on the images of `truth`.

    Args:
        dt: a path to COCO results JSON, its list of records, a dict of arrays {"image_id": (D,), "category_id": (D,),
            "bbox": (D, 4) xywh px, "score": (D,)}, the (D, 7) array image_id, x, y, w, h, score, category_id that
            pycocotools takes, or a COCO dict with "annotations" (boxes without a score count 1).
        truth: the objects, whose images and categories the ids refer to.
        source: how messages call `dt`; by default its path.

    Raises:
        UserError: unreadable, a field is missing, an id that the objects lack, a NaN, a negative size, or a score
            outside 0..1.
    """
    if isinstance(dt, Detections):
        return dt
    source = source or (str(dt) if isinstance(dt, (str, Path)) else "dt")
    content = read_json(dt) if isinstance(dt, (str, Path)) else dt
    optional: dict[str, Any] = {"score": ...}
    if isinstance(content, Mapping) and "annotations" in content:
        content, optional = content["annotations"], {"score": 1.0}
    if isinstance(content, np.ndarray) and content.ndim == 2 and content.shape[1] == 7:
        content = {
            "image_id": content[:, 0],
            "bbox": content[:, 1:5],
            "score": content[:, 5],
            "category_id": content[:, 6],
        }
    columns = columns_of(content, source, "detection", optional)
    scores = numbers(columns["score"], source, "detection", "score")
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if wrong.size:
        raise UserError(f"{source}: detection {wrong[0]} has score {scores[wrong[0]]}, expected 0 to 1")
    return Detections(
        source=source,
        image=index_of(columns["image_id"], truth.image_ids, source, "image_id", f"{truth.source}"),
        category=index_of(columns["category_id"], truth.category_ids, source, "category_id", f"{truth.source}"),
        boxes=checked_boxes(columns["bbox"], source, "detection"),
        scores=scores,
    )


def truth_from_annotations(annotations: Any) -> Truth:
    """The columns of `tinyyolo.datasets` Annotations.

    A box marked as a crowd is an ignore region of its own class, one of an ignored category is a region of every class.
    """
    source = str(annotations.path)
    image_ids = np.asarray(annotations.image_ids)
    category_ids = np.asarray(annotations.category_ids)
    check_unique(image_ids, source, "image id")
    images, classes = np.argsort(image_ids, kind="stable"), np.argsort(category_ids, kind="stable")
    labels = np.asarray(annotations.labels, np.int64)
    label_of = {int(key): label for label, key in enumerate(category_ids)}
    own = [label_of.get(int(key), -1) for key in annotations.box_categories[labels < 0]]
    index = labels.copy()
    index[labels < 0] = own if len(annotations.box_categories) else -1
    corners = np.asarray(annotations.boxes, np.float64).reshape(-1, 4)
    names = [str(annotations.names[i]) for i in range(len(category_ids))]
    return Truth(
        source=source,
        image_ids=image_ids[images],
        file_names=tuple(str(annotations.file_names[i]) for i in images),
        sizes_hw=np.asarray(annotations.sizes_hw, np.int64).reshape(-1, 2)[images],
        category_ids=category_ids[classes],
        names=tuple(names[i] for i in classes),
        image=np.argsort(images)[np.asarray(annotations.image_index, np.int64)],
        category=np.append(np.argsort(classes), -1)[index],
        boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1),
        area=np.asarray(annotations.areas, np.float64),
        crowd=labels < 0,
    )


def take(detections: Detections, rows: np.ndarray) -> Detections:
    """Some rows of `detections`."""
    columns = {key: getattr(detections, key)[rows] for key in ("image", "category", "boxes", "scores")}
    return replace(detections, **columns)


def spread_regions(truth: Truth) -> tuple[Truth, np.ndarray]:
    """`truth` with every region of all classes (category -1) repeated for each class, and the row each came from."""
    shared = truth.category < 0
    rows = np.arange(len(shared))
    if not shared.any():
        return truth, rows
    classes = len(truth.category_ids)
    rows = np.concatenate([rows[~shared], np.repeat(rows[shared], classes)])
    category = np.concatenate([truth.category[~shared], np.tile(np.arange(classes), int(shared.sum()))])
    columns = {key: getattr(truth, key)[rows] for key in ("image", "boxes", "area", "crowd")}
    return replace(truth, category=category, **columns), rows
