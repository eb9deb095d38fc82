"""Detections as `Annotations` with scores, from COCO results, records or arrays, joined with the objects."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.boxes.convert import convert
from tinyyolo.config import UserError, path_of, shown, suggest
from tinyyolo.datasets.annotations import IGNORED, Annotations, take
from tinyyolo.datasets.formats.coco_tables import positions
from tinyyolo.datasets.formats.decode import (
    DETECTION,
    IRREGULAR,
    NAMES,
    NO_SCORE,
    Columns,
    of_arrays,
    of_json,
    of_records,
    parse_json,
    read_bytes,
)
from tinyyolo.datasets.formats.tables import shards
from tinyyolo.sizes import FARTHEST

NAMED = (*DETECTION, *NAMES)
PARQUET = shards.SUFFIX
FORMS = (".json", PARQUET)  # of detections in many files
RECORD = 100  # bytes of a detection in JSON, about
ROW = ("image_id", "x", "y", "width", "height", "score", "category_id")  # columns of pycocotools' (D, 7) array


def read_detections(dt: Any, truth: Annotations, source: str = "dt") -> Annotations:
    """Detections on the images of `truth`, with its images and classes.

    Args:
        dt: a path to COCO results JSON, or to many files (`files_of`), a list of records, a dict of arrays {"image_id":
            (D,), "category_id": (D,), "bbox": (D, 4) xywh px, "score": (D,)}, the (D, 7) array image_id, x, y, w, h,
            score, category_id that pycocotools takes, a COCO dict with "annotations" (boxes without a score count 1),
            or `Annotations` with `scores`. Records with `file_name` and `category_name`, as predict writes them, are
            joined by these.
        truth: the objects, whose images and categories the ids refer to.
        source: how messages call `dt`; of a file, its path.

    Raises:
        UserError: unreadable, a field is missing, an id or name that the objects lack, a NaN, a negative size, or a
            score outside 0..1.
    """
    if isinstance(dt, Annotations):
        return aligned(dt, truth)
    if files := files_of(dt):
        return from_columns(truth, str(dt), *map(np.concatenate, zip(*pieces(files, truth), strict=True)))
    source = str(dt) if isinstance(dt, (str, Path)) else source
    return from_columns(truth, source, *placed(detection_columns(dt, source), Truth(truth), source))


def files_of(dt: Any) -> list[Path]:
    """The files of detections in many: those of a folder, of a glob or in a list, or shards; [] for another form.

    Raises:
        UserError: there are none, of two kinds, or the shards are not all of one run.
    """
    if isinstance(dt, (list, tuple)) and dt and all(isinstance(one, (str, Path)) for one in dt):
        files = [path_of(one, "dt=") for one in dt]
    elif not isinstance(dt, (str, Path)):
        return []
    elif (path := path_of(dt, "dt=")).is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in FORMS)
    elif glob.has_magic(str(dt)) and not path.exists():
        files = sorted(map(Path, glob.glob(str(dt), recursive=True)))
    else:
        files = [path] if path.suffix.lower() == PARQUET else []
        if not files:
            return []
    kinds = {file.suffix.lower() for file in files}
    if not files:
        raise UserError(f"dt={dt}: no COCO results (.json) or shards (.parquet) there")
    if len(kinds) > 1:
        raise UserError(
            f"dt={shown(str(dt))}: files of two kinds, {' and '.join(sorted(kinds))}; name one: '{dt}/*.json'"
        )
    return [shard.path for shard in shards.complete([*map(shards.Shard, files)])] if kinds == {PARQUET} else files


def pieces(files: Sequence[Path], truth: Annotations) -> Iterator[tuple[np.ndarray, ...]]:
    """Images, classes, boxes and scores of files, a file at a time, or a group of rows of a shard; see `from_columns`.

    Raises:
        UserError: as `read_detections`.
    """
    known = Truth(truth)
    for path in files:
        if path.suffix.lower() != PARQUET:
            yield placed(detection_columns(path, str(path)), known, str(path))
            continue
        for columns in shards.Shard(path).results():
            yield placed(columns, known, str(path))


def count_in(path: Path) -> int:
    """How many detections there are in a file of many; in JSON about as many, by its length."""
    if path.suffix.lower() == PARQUET:
        return int(shards.Shard(path).footer.num_rows)
    return path.stat().st_size // RECORD if path.is_file() else 0


class Truth:
    """The images and classes of the objects, by name.

    Attributes:
        exact: the position of every image by its name.
        places: those of all images by their names with and without folders.
        index: the class by its name.
    """

    def __init__(self, truth: Annotations):
        self.all = truth

    @cached_property
    def exact(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.all.file_names)}

    @cached_property
    def places(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, name in enumerate(self.all.file_names):
            for word in {name, Path(name).name}:
                found.setdefault(word, []).append(i)
        return found

    @cached_property
    def index(self) -> dict[str, int]:
        return {name: i for i, name in self.all.names.items()}


def placed(columns: Columns, known: Truth, source: str) -> tuple[np.ndarray, ...]:
    """Image and class indices, boxes xywh and scores of the columns of detections, checked.

    Raises:
        UserError: as `read_detections`.
    """
    check_detections(columns, source)
    if any(name is not None for name in columns.get("file_name", ())):
        image, label = joined_by_name(columns, known, source)
    else:
        image = known_positions(columns["image_id"], known.all.image_ids, f"{source}: image_id", known.all)
        label = labels_of(columns["category_id"], known.all, source)
    return image, label, columns["bbox"], columns["score"]


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
    return made if (image[1:] >= image[:-1]).all() else take(made, np.argsort(image, kind="stable"))


def aligned(detections: Annotations, truth: Annotations) -> Annotations:
    """Detections in memory, their images and classes those of `truth`."""
    if detections.image_ids is truth.image_ids and detections.category_ids is truth.category_ids:
        return detections
    source = str(detections.path)
    if detections.scores is None:
        raise UserError(f"{source}: annotations without scores are no detections")
    image = known_positions(detections.image_ids, truth.image_ids, f"{source}: image_id", truth)
    label = labels_of(detections.box_categories, truth, source)
    index = image[detections.image_index]
    return from_columns(truth, source, index, label, detections.xywh, detections.scores)


def detection_columns(dt: Any, source: str) -> Columns:
    """The columns DETECTION of any form of detections; a box of a COCO file without a score counts 1.

    Raises:
        UserError: no form of detections, or a record that cannot be understood.
    """
    if isinstance(dt, (str, Path)):
        text = read_bytes(Path(dt))
        try:
            return of_json(text, DETECTION)
        except IRREGULAR:
            dt = parse_json(text, Path(source))
    if isinstance(dt, Mapping) and "annotations" in dt:
        columns = detection_columns(dt["annotations"], source)
        return columns | {"score": np.where(columns["score"] == NO_SCORE, 1.0, columns["score"])}
    if isinstance(dt, np.ndarray) and dt.ndim == 2 and dt.shape[1] == len(ROW):
        dt = {"image_id": dt[:, 0], "bbox": dt[:, 1:5], "score": dt[:, 5], "category_id": dt[:, 6]}
    try:
        if isinstance(dt, Mapping):
            return of_arrays(dt, DETECTION)
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: detections: {' '.join(str(error).split())}") from error
    if not isinstance(dt, Sequence) or isinstance(dt, (str, bytes)):
        raise UserError(f"{source}: expected a list of detections, found {type(dt).__name__}")

    def fault(place: int, error: ValueError) -> None:
        raise UserError(f"{source}: detection {place}: {error}") from error

    return of_records(dt, NAMED, fault)


def check_detections(columns: Columns, source: str) -> None:
    """Stop unless scores are within 0..1, boxes finite, no side negative. One without area stays: it is wrong."""
    scores, xywh = columns["score"], columns["bbox"]
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if wrong.size:
        found = "no 'score'" if scores[wrong[0]] == NO_SCORE else f"score {scores[wrong[0]]}"
        raise UserError(f"{source}: detection {wrong[0]} has {found}, expected 0 to 1")
    if not (xywh.max(initial=0) <= FARTHEST and xywh.min(initial=0) >= -FARTHEST and xywh[:, 2:].min(initial=0) >= 0):
        good = (abs(xywh) <= FARTHEST).all(axis=1) & (xywh[:, 2:] >= 0).all(axis=1)
        wrong = np.flatnonzero(~good)
        box = xywh[wrong[0]].tolist()
        raise UserError(f"{source}: detection {wrong[0]} has bbox {box}: not finite, a negative size, or too far away")


def known_positions(ids: np.ndarray, known: np.ndarray, what: str, truth: Annotations) -> np.ndarray:
    """`positions`; one that is not known is a UserError."""
    at = positions(ids, known)
    missing = np.flatnonzero(at < 0)
    if missing.size:
        raise UserError(f"{what} {ids[missing[0]]!s} is not in {truth.path} ({missing.size} such)")
    return at


def labels_of(category_ids: np.ndarray, truth: Annotations, source: str) -> np.ndarray:
    """The class index of category ids (D,); an id that `truth` lacks or ignores is a UserError."""
    what, label_of = f"{source}: category_id", truth.label_of
    at = known_positions(category_ids, np.array(list(label_of)), what, truth)
    labels: np.ndarray = np.array([*label_of.values(), IGNORED], np.int64)[at]
    ignored = np.flatnonzero(labels < 0)
    if ignored.size:
        name = truth.categories[list(label_of)[at[ignored[0]]]]
        raise UserError(f"{what} {category_ids[ignored[0]]} is not in {truth.path}: {name} is ignored there")
    return labels


def joined_by_name(columns: Columns, known: Truth, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and class indices (D,) of detections by `file_name` and `category_name`, since their ids count otherwise.

    A name without folders stands for the one image that is called so.

    Raises:
        UserError: a row without one of the names, or a name that the objects lack or have twice.
    """
    truth, exact, index = known.all, known.exact, known.index
    image, label = [], []
    for row, (file, name) in enumerate(zip(columns["file_name"], columns["category_name"], strict=True)):
        if not isinstance(file, str) or not isinstance(name, str):
            raise UserError(
                f"{source}: detection {row} has file_name {file!r} and category_name {name!r}: rows with a file_name "
                "are joined by both names; write them with `tinyyolo predict save_json=true`, or leave file_name out "
                f"and use the ids of {truth.path}"
            )
        found = [exact[file]] if file in exact else known.places.get(file, [])
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
