"""Detections as `Annotations` with scores, from COCO results, records or arrays, joined with the objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.boxes.convert import convert
from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.annotations import FARTHEST, IGNORED, Annotations, freeze, take
from tinyyolo.datasets.formats.coco_tables import positions
from tinyyolo.datasets.formats.decode import (
    Box,
    Detection,
    of_arrays,
    parse_json,
    read_bytes,
    record_of,
    regular,
    to_columns,
)

DETECTION = ("image_id", "x", "y", "width", "height", "score", "category_id")  # columns of pycocotools' (D, 7) array


def read_detections(dt: Any, truth: Annotations, source: str = "dt") -> Annotations:
    """Detections on the images of `truth`, with its images and classes.

    Args:
        dt: a path to COCO results JSON, its list of records, a dict of arrays {"image_id": (D,), "category_id": (D,),
            "bbox": (D, 4) xywh px, "score": (D,)}, the (D, 7) array image_id, x, y, w, h, score, category_id that
            pycocotools takes, a COCO dict with "annotations" (boxes without a score count 1), or `Annotations` with
            `scores`. Records with `file_name` and `category_name`, as predict writes them, are joined by these.
        truth: the objects, whose images and categories the ids refer to.
        source: how messages call `dt`; of a file, its path.

    Raises:
        UserError: unreadable, a field is missing, an id or name that the objects lack, a NaN, a negative size, or a
            score outside 0..1.
    """
    if isinstance(dt, Annotations):
        return aligned(dt, truth)
    source = str(dt) if isinstance(dt, (str, Path)) else source
    columns = detection_columns(dt, source)
    check_detections(columns, source)
    if "file_name" in columns:
        image, label = joined_by_name(columns, truth, source)
    else:
        image = known_positions(columns["image_id"], truth.image_ids, f"{source}: image_id", truth)
        label = label_of(columns["category_id"], truth, source)
    return from_columns(truth, source, image, label, columns["bbox"], columns["score"])


def from_columns(
    truth: Annotations, source: str, image: np.ndarray, label: np.ndarray, xywh: np.ndarray, scores: np.ndarray
) -> Annotations:
    """Detections by the indices (D,) of their images and classes in `truth`, boxes (D, 4) xywh px, scores (D,)."""
    boxes = convert(xywh, "xywh", "xyxy")
    wh = xywh[:, 2:]
    made = replace(
        truth,
        path=Path(source),
        image_index=image,
        boxes=boxes,
        labels=label,
        areas=wh[:, 0] * wh[:, 1],
        ids=np.arange(1, len(boxes) + 1),
        problems=[],
        box_categories=truth.category_ids[label] if len(label) else truth.category_ids[:0],
        crowd=np.zeros(len(boxes), bool),
        extra={},
        scores=scores,
        wh=wh,
        unlike_coco=0,
    )
    return freeze(made) if (image[1:] >= image[:-1]).all() else take(made, np.argsort(image, kind="stable"))


def aligned(detections: Annotations, truth: Annotations) -> Annotations:
    """Detections in memory, their images and classes those of `truth`."""
    if detections.image_ids is truth.image_ids and detections.category_ids is truth.category_ids:
        return detections
    source = str(detections.path)
    if detections.scores is None:
        raise UserError(f"{source}: annotations without scores are no detections")
    image = known_positions(detections.image_ids, truth.image_ids, f"{source}: image_id", truth)
    label = label_of(detections.box_categories, truth, source)
    index = image[detections.image_index]
    return from_columns(truth, source, index, label, detections.xywh, detections.scores)


def detection_columns(dt: Any, source: str) -> dict[str, np.ndarray]:
    """image_id, category_id, bbox, score of any form of detections, and file_name, category_name if one has them.

    Raises:
        UserError: no form of detections, or a record that cannot be understood.
    """
    text = read_bytes(Path(dt)) if isinstance(dt, (str, Path)) else None
    if text is not None:
        found = regular(text, Detection) if text[:64].lstrip()[:1] == b"[" else None
        if found is not None:
            return found
        dt = parse_json(text, Path(source))
    if isinstance(dt, Mapping) and "annotations" in dt:
        return annotated_columns(dt["annotations"], source)
    if isinstance(dt, np.ndarray) and dt.ndim == 2 and dt.shape[1] == len(DETECTION):
        dt = {"image_id": dt[:, 0], "bbox": dt[:, 1:5], "score": dt[:, 5], "category_id": dt[:, 6]}
    if isinstance(dt, Mapping):
        return array_columns(dt, source, Detection)
    return regular_or_slow(dt, source, Detection)


def annotated_columns(records: Any, source: str) -> dict[str, np.ndarray]:
    """As `detection_columns`, of a COCO file's annotations; a box without a score counts 1."""
    read: Callable[..., dict[str, np.ndarray]] = array_columns if isinstance(records, Mapping) else regular_or_slow
    columns = read(records, source, Box)
    return columns | {"score": np.where(np.isnan(columns["score"]), 1.0, columns["score"])}


def array_columns(given: Mapping[str, Any], source: str, kind: type[Box] | type[Detection]) -> dict[str, np.ndarray]:
    """`of_arrays`, its faults told."""
    try:
        return of_arrays(given, kind)
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: detections: {' '.join(str(error).split())}") from error


def regular_or_slow(records: Any, source: str, kind: type[Box] | type[Detection]) -> dict[str, np.ndarray]:
    """Columns of a list of records; with names if one has a `file_name`.

    Raises:
        UserError: no list, or a record that cannot be understood.
    """
    if not isinstance(records, Sequence) or isinstance(records, (str, bytes)):
        raise UserError(f"{source}: expected a list of detections, found {type(records).__name__}")
    found = regular(records, kind)
    if found is not None:
        return found
    rows = []
    for i, record in enumerate(records):
        try:
            rows.append(record_of(record, kind))
        except ValueError as error:
            raise UserError(f"{source}: detection {i}: {error}") from error
    columns = to_columns(rows, kind)
    if any(record.get("file_name") is not None for record in records):
        for key in ("file_name", "category_name"):
            columns[key] = np.array([record.get(key) for record in records], object)
    return columns


def check_detections(columns: Mapping[str, np.ndarray], source: str) -> None:
    """Scores within 0..1, finite boxes without negative sides. A box without area stays: it is a wrong detection.

    Raises:
        UserError: one is not so.
    """
    scores, xywh = columns["score"], columns["bbox"]
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if wrong.size:
        raise UserError(f"{source}: detection {wrong[0]} has score {scores[wrong[0]]}, expected 0 to 1")
    if not (xywh.max(initial=0) <= FARTHEST and xywh.min(initial=0) >= -FARTHEST and xywh[:, 2:].min(initial=0) >= 0):
        good = (abs(xywh) <= FARTHEST).all(axis=1) & (xywh[:, 2:] >= 0).all(axis=1)
        wrong = np.flatnonzero(~good)
        box = xywh[wrong[0]].tolist()
        raise UserError(f"{source}: detection {wrong[0]} has bbox {box}: not finite, a negative size, or too far away")


def known_positions(ids: np.ndarray, known: np.ndarray, what: str, truth: Annotations) -> np.ndarray:
    """`positions`, all of them known.

    Raises:
        UserError: one is not.
    """
    at = positions(ids, known)
    missing = np.flatnonzero(at < 0)
    if missing.size:
        raise UserError(f"{what} {ids[missing[0]]!s} is not in {truth.path} ({missing.size} such)")
    return at


def label_of(category_ids: np.ndarray, truth: Annotations, source: str) -> np.ndarray:
    """The class index of category ids (D,), of two ids with one name the same.

    Raises:
        UserError: an id that `truth` lacks, or of an ignored category.
    """
    keys = list(truth.categories) or truth.category_ids.tolist()
    index = {name: i for i, name in truth.names.items()}
    labels = np.array([index.get(truth.categories.get(key, ""), IGNORED) for key in keys], np.int64)
    own = dict(zip(truth.category_ids.tolist(), truth.names, strict=True))
    labels = np.array([own.get(key, label) for key, label in zip(keys, labels.tolist(), strict=True)], np.int64)
    what = f"{source}: category_id"
    if not len(keys):
        return known_positions(category_ids, truth.category_ids, what, truth)
    at = known_positions(category_ids, np.array(keys), what, truth)
    ignored = np.flatnonzero(labels[at] < 0)
    if ignored.size:
        name = truth.categories[keys[at[ignored[0]]]]
        raise UserError(f"{what} {category_ids[ignored[0]]} is not in {truth.path}: {name} is ignored there")
    out: np.ndarray = labels[at]
    return out


def joined_by_name(columns: Mapping[str, np.ndarray], truth: Annotations, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and class indices (D,) of detections by `file_name` and `category_name`, since their ids count otherwise.

    A name without folders stands for the one image that is called so.

    Raises:
        UserError: a row without one of the names, or a name that `truth` lacks or has twice.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(truth.file_names):
        for word in {name, Path(name).name}:
            places.setdefault(word, []).append(i)
    exact = {name: i for i, name in enumerate(truth.file_names)}
    index = {name: i for i, name in truth.names.items()}
    image, label = [], []
    for row, (file, name) in enumerate(zip(columns["file_name"], columns["category_name"], strict=True)):
        if not isinstance(file, str) or not isinstance(name, str):
            raise UserError(
                f"{source}: detection {row} has file_name {file!r} and category_name {name!r}: rows with a file_name "
                "are joined by both names; write them with `tinyyolo predict save_json=true`, or leave file_name out "
                f"and use the ids of {truth.path}"
            )
        found = [exact[file]] if file in exact else places.get(file, [])
        if len(found) != 1:
            what = "has several images of that name" if found else "has no such image; predict its images, or use val"
            raise UserError(f"{source}: detection {row}: file_name {file!r}: {truth.path} {what}")
        if name not in index:
            raise UserError(
                f"{source}: detection {row}: category_name {name!r} is no class of {truth.path}; {suggest(name, index)}"
            )
        image.append(found[0])
        label.append(index[name])
    return np.array(image, np.int64), np.array(label, np.int64)
