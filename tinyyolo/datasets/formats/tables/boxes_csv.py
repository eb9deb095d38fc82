"""A CSV of boxes to arrays and back: `image_path,xmin,ymin,xmax,ymax,label`, a row an object, as DeepForest has it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinyyolo.config import UserError, shown
from tinyyolo.datasets.annotations import (
    IGNORED,
    Annotations,
    Problem,
    as_names,
    assemble,
    box_faults,
    raise_fatal,
    select_classes,
)
from tinyyolo.datasets.formats.base import Format
from tinyyolo.datasets.formats.decode import as_text, read_bytes
from tinyyolo.datasets.formats.doubts import not_pixels
from tinyyolo.datasets.formats.gis.fields import keys_of, names_in, text_of
from tinyyolo.datasets.formats.text import numbers, readable
from tinyyolo.io import new_file

HEADER = ("image_path", "xmin", "ymin", "xmax", "ymax", "label")
# What else a column is called, in whatever letters.
CALLED = {
    "image_path": ("image_path", "image", "filename", "file_name", "image_id", "scene"),
    **{own: (own, other) for own, other in zip(HEADER[1:5], ("x1", "y1", "x2", "y2"), strict=True)},
    "label": ("label", "class", "class_name", "name", "category"),
}
SCORES = ("score", "scores", "confidence")
CORNERS = " ".join(HEADER[1:5])


def read(
    images_dir: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    labels: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
) -> Annotations:
    """Arguments and errors of every Reader. Without `names` the classes are those of the file; a row of nothing or
    zeros stands for an image without objects."""
    if labels is None:
        raise UserError(f"{images_dir}: give the CSV: annotations: {{split: file.csv}}")
    path, images_dir, problems = Path(labels), Path(images_dir), list[Problem]()
    kept, size_hw = readable(images_dir, file_names, problems)
    index, classes, boxes, lines, remarks = parse(path, {name: i for i, name in enumerate(kept)}, problems)
    every = names_in(classes) if names is None else list(dict.fromkeys((*as_names(names).values(), *ignore)))
    keys = keys_of(path, classes, every, problems, remarks)
    problems += [Problem("no class", f"{path}:{lines[i]}", "no class; left out") for i in np.flatnonzero(classes == "")]
    kinds = box_faults(boxes)
    for i in np.flatnonzero(kinds != ""):
        what = f"{kinds[i]}: {' '.join(f'{value:g}' for value in boxes[i])}"
        problems.append(Problem(str(kinds[i]), f"{path}:{lines[i]}", what))
    problems[:0] = [*remarks, *not_pixels(boxes, path)]
    if strict:
        raise_fatal(problems)
    own = None if names is None else [name for name in every if name not in ignore]
    table = select_classes(dict(enumerate(every)), own, ignore, path)
    good = (keys >= 0) & (kinds == "")
    return assemble(path, table, kept, size_hw, index[good], boxes[good], keys[good], problems)


def parse(
    path: Path, index: Mapping[str, int], problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int], list[Problem]]:
    """Image (K,), class (K,), box (K, 4), line of every object, and remarks.

    Raises:
        UserError: no such file, no CSV, or a column is missing.
    """
    rows, found, boxes, lines = [], list[int](), list[list[float]](), list[int]()
    absent = Counter[str]()
    try:
        table = csv.DictReader(io.StringIO(read_bytes(path).decode(), newline=""), restval="", strict=True)
        called = columns_of(path, table.fieldnames or [])
        for record in table:
            image = record[called["image_path"]].strip()
            words = [record[called[name]].strip() for name in HEADER[1:5]]
            try:
                corners = numbers([word or "0" for word in words], CORNERS)
            except ValueError as error:
                problems.append(Problem("bad record", f"{path}:{table.line_num}", str(error)))
                continue
            if not any(corners):  # an image without objects
                continue
            if image not in index:
                absent[image] += 1
                continue
            found.append(index[image])
            boxes.append(corners)
            rows.append(text_of(record[called["label"]]))
            lines.append(table.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV: {' '.join(str(error).split())}") from error
    problems += [
        Problem("missing image", shown(name), f"{n:,} objects of {path.name} lie in it") for name, n in absent.items()
    ]
    scores = [name for name in table.fieldnames or [] if name.strip().lower() in SCORES]
    what = f"its objects have scores ({', '.join(scores)}): predictions, taken as objects without them"
    remarks = [Problem("scores", str(path), what)] if scores and rows else []
    classes = np.empty(len(rows), object)
    classes[:] = rows
    return np.array(found, np.int64), classes, np.array(boxes, np.float64).reshape(-1, 4), lines, remarks


def columns_of(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Our name of each column -> that of the file.

    Raises:
        UserError: one is missing.
    """
    own = {name.strip().lower(): name for name in reversed(header)}
    called = {name: next((own[one] for one in others if one in own), None) for name, others in CALLED.items()}
    missing = [name for name, column in called.items() if column is None]
    if missing:
        there = shown(", ".join(header)) or "none"
        raise UserError(
            f"{path}: no column {', '.join(missing)}; expected the header {','.join(HEADER)}, found {there}"
        )
    return {name: column for name, column in called.items() if column is not None}


def write(
    labels: str | Path, annotations: Annotations, *, images_dir: str | Path | None = None, overwrite: bool = False
) -> dict[str, int]:
    """See `base.Writer`; ignore regions are left out, and an image without objects has no row."""
    notes, objects = annotations, annotations.labels != IGNORED
    images = [notes.file_names[i] for i in notes.image_index[objects].tolist()]
    corners = [[f"{value:.12g}" for value in box] for box in notes.boxes[objects].tolist()]
    classes = [notes.names[label] for label in notes.labels[objects].tolist()]
    as_text(labels, {*images, *classes})
    with new_file(labels, overwrite=overwrite) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(HEADER)
        table.writerows([image, *box, name] for image, box, name in zip(images, corners, classes, strict=True))
    return {"boxes": len(images), "ignore_regions": int((~objects).sum())}


FORMAT = Format(read, write, "annotations/{split}.csv")
