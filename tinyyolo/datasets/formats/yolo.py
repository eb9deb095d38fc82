"""YOLO txt to arrays and back: lines `class cx cy w h` as fractions of the image's sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from tinyyolo.boxes.convert import convert, to_fractions
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.formats.base import Format
from tinyyolo.datasets.formats.text import OUTLINE, Categories, TextFormat, numbers

LINE = "class cx cy w h"
BOX_COLUMNS = 5
POLYGON_COLUMNS = 7  # a class and at least three points: a segmentation label, taken by its bounding box


def categories(names: list[str], ignore: tuple[str, ...]) -> Categories:
    """The ids in the files count all names, the ignored ones too."""
    return Categories(dict(enumerate(names)), names, ignore)


def parse(line: str, categories: Mapping[int, str], keypoints: int = 0) -> tuple[float, ...]:
    """One line, or a polygon `class x1 y1 x2 y2 x3 y3 ...` by its bounding box.

    Args:
        line: the line.
        categories: class ids and their names.
        keypoints: how many numbers of key points may stand behind a box; they are left out.

    Raises:
        KeyError: the class is not in `categories`.
        ValueError: another number of columns, or no numbers.

    Examples:
        >>> parse("1 0.5 0.5 0.1 0.2", {0: "ship", 1: "car"})
        (1.0, 0.5, 0.5, 0.1, 0.2, 0.0)
        >>> parse("0 0.25 0.25 0.75 0.25 0.75 0.5", {0: "ship"})[1:5]
        (0.5, 0.375, 0.5, 0.25)
        >>> parse("0 0.5 0.5 0.1 0.2 0.45 0.5 2 0.55 0.5 1", {0: "ship"}, keypoints=6)
        (0.0, 0.5, 0.5, 0.1, 0.2, 0.0)
    """
    words = line.split()
    if keypoints and len(words) == BOX_COLUMNS + keypoints:
        words = words[:BOX_COLUMNS]
    if len(words) != BOX_COLUMNS and (len(words) < POLYGON_COLUMNS or len(words) % 2 == 0):
        raise ValueError(f"expected `{LINE}`, found {len(words)} columns")
    values = numbers(words, LINE)
    if values[0] not in categories:
        raise KeyError(words[0])
    if len(words) == BOX_COLUMNS:
        return (*values, 0.0)
    xs, ys = values[1::2], values[2::2]
    corners = np.array([min(xs), min(ys), max(xs), max(ys)])
    return (values[0], *convert(corners, "xyxy", "cxcywh").tolist(), OUTLINE)


def lines(annotations: Annotations) -> list[str | None]:
    """One line a box; None for ignore regions, which the format does not have."""
    boxes = to_fractions(annotations.boxes, annotations.sizes_hw[annotations.image_index]).tolist()
    return [
        None if label == IGNORED else f"{label} {' '.join(f'{v:.12g}' for v in box)}"
        for label, box in zip(annotations.labels.tolist(), boxes, strict=True)
    ]


TEXT = TextFormat("YOLO", "labels", categories, parse, lines, form="cxcywh", fractions=True)
FORMAT = TEXT.layout()


def with_keypoints(shape: Sequence[int]) -> Format:
    """The format of labels with key points of this shape, (points, numbers each), behind the boxes."""
    return replace(TEXT, parse=partial(parse, keypoints=math.prod(shape))).layout()
