"""Pictures with boxes: a pixel of the image becomes a whole square, and thin lines stay outside what they frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tinyyolo.config import UserError
from tinyyolo.io import new_file

FOUND, WRONG, MISSED = (60, 240, 60), (255, 120, 20), (50, 50, 255)  # BGR: true positive, false positive, missed
CLASS_COLOURS = [  # BGR, far apart on green, grey and blue ground
    *[(0, 230, 255), (255, 60, 255), (255, 255, 0), (60, 120, 255), (60, 255, 60), (255, 140, 160)],
    *[(140, 255, 255), (50, 50, 255), (255, 120, 20), (200, 200, 200)],
]
MATCH_IOU = 0.5
PANEL = 720  # px, longest side of one image in a picture
ZOOM = 8  # at most
WANTED_SIDE = 24  # px, what the median object should measure in the picture
HEADER, GUTTER, INK, PAPER = 18, 6, 40, 255


class View(NamedTuple):
    """A part of an image, px, and how many times larger it is shown."""

    x0: int
    y0: int
    x1: int
    y1: int
    zoom: int


def compare_images(rows: Sequence[Mapping[str, Any]], path: str | Path, iou: float = MATCH_IOU) -> Path:
    """Ground truth (left) beside predictions (right): green what agrees, red what was missed, blue what is not there.

    Args:
        rows: one mapping an image: "path" of the image, or "image" (H, W, 3) uint8 BGR; "truth" (M, 4) and "found"
            (D, 4) xyxy px, the surest first; optional "truth_labels" (M,) and "found_labels" (D,), which must agree.
        path: the image file.
        iou: overlap from which a prediction agrees.

    Raises:
        UserError: an image cannot be read.
    """
    strips = []
    for row in rows:
        truth, found = as_boxes(row.get("truth")), as_boxes(row.get("found"))
        hit, right = agreement(truth, found, iou, row.get("truth_labels"), row.get("found_labels"))
        image = read_image(row)
        view = window(image, np.vstack([truth, found]))
        left = framed(image, truth, [FOUND if h else MISSED for h in hit], view)
        other = framed(image, found, [FOUND if r else WRONG for r in right], view)
        left = titled(left, f"{caption(row, view)}truth {len(truth)}: {hit.sum()} found, {(~hit).sum()} missed")
        strips.append(
            beside([left, titled(other, f"predicted {len(found)}: {right.sum()} right, {(~right).sum()} wrong")])
        )
    return write(stacked(strips), path)


def label_mosaic(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: str | Path, across: int = 4) -> Path:
    """Images with their boxes, a colour a class, in a grid under a legend.

    Args:
        rows: one mapping an image: "path" of the image, or "image" (H, W, 3) uint8 BGR, as of a training batch;
            "boxes" (M, 4) xyxy px; "labels" (M,) indices into `names`.
        names: class names.
        path: the image file.
        across: images beside each other.

    Raises:
        UserError: an image cannot be read.
    """
    cells = []
    for row in rows:
        image, boxes = read_image(row), as_boxes(row.get("boxes"))
        colours = [class_colour(label) for label in np.asarray(row.get("labels", ()), dtype=int)]
        view = window(image, boxes)
        cells.append(titled(framed(image, boxes, colours, view), f"{caption(row, view)}{len(boxes)} objects"))
    grid = [beside(cells[start : start + across]) for start in range(0, len(cells), across)]
    return write(stacked([legend(names), *grid]), path)


def class_colour(label: int) -> tuple[int, int, int]:
    """BGR of a class; colours repeat after the last."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def agreement(
    truth: np.ndarray, found: np.ndarray, iou: float, truth_labels: Any = None, found_labels: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which objects (M,) and which predictions (D,) agree, one to one; earlier predictions choose first.

    Examples:
        >>> boxes = np.array([[0.0, 0, 4, 4], [8, 8, 12, 12]])
        >>> [x.tolist() for x in agreement(boxes, boxes[[1, 1]], 0.5)]
        [[False, True], [True, False]]
    """
    low, high = np.maximum(truth[None, :, :2], found[:, None, :2]), np.minimum(truth[None, :, 2:], found[:, None, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (truth, found)]
    overlap = both / np.maximum(areas[0][None] + areas[1][:, None] - both, np.finfo(float).tiny)
    if truth_labels is not None and found_labels is not None:
        overlap = np.where(np.asarray(found_labels)[:, None] == np.asarray(truth_labels)[None], overlap, 0)
    hit, right = np.zeros(len(truth), bool), np.zeros(len(found), bool)
    for index, row in enumerate(overlap):
        free = np.where(hit, 0, row)
        if len(free) and free.max() >= iou:
            hit[free.argmax()] = right[index] = True
    return hit, right


def as_boxes(boxes: Any) -> np.ndarray:
    """(N, 4) float64, also for None and for an empty list."""
    return np.asarray([] if boxes is None else boxes, dtype=np.float64).reshape(-1, 4)


def read_image(row: Mapping[str, Any]) -> np.ndarray:
    """The image of a row, (H, W, 3) uint8 BGR."""
    if "image" in row:
        return np.asarray(row["image"], dtype=np.uint8)
    image = cv2.imread(str(row["path"]), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{row['path']}: cannot be read as an image")
    return image


def window(image: np.ndarray, boxes: np.ndarray) -> View:
    """What to show of an image.

    The median object is brought to WANTED_SIDE px; where the whole image then has no room, the part with most objects
    is shown.
    """
    size = np.array(image.shape[1::-1])
    sides = np.sqrt(np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1))
    wanted = WANTED_SIDE / np.median(sides) if len(sides) else PANEL / size.max()
    zoom = int(np.clip(round(wanted), 1, ZOOM))
    zoom = max(zoom, min(ZOOM, PANEL // int(size.max())))
    shown = np.minimum(size, PANEL // zoom)
    centres = np.clip((boxes[:, :2] + boxes[:, 2:]) / 2, 0, size) if len(boxes) else size[None] / 2
    low = np.clip(centres - shown / 2, 0, size - shown)
    inside = ((centres[None] >= low[:, None]) & (centres[None] <= (low + shown)[:, None])).all(2)
    most = centres[inside[inside.sum(1).argmax()]]
    x, y = np.clip((most.min(0) + most.max(0) - shown) / 2, 0, size - shown).astype(int)
    return View(int(x), int(y), int(x + shown[0]), int(y + shown[1]), zoom)


def framed(image: np.ndarray, boxes: np.ndarray, colours: Sequence[tuple[int, int, int]], view: View) -> np.ndarray:
    """The part of the image, enlarged, with a line of one pixel just outside every box."""
    part = image[view.y0 : view.y1, view.x0 : view.x1]
    out = np.repeat(np.repeat(part, view.zoom, axis=0), view.zoom, axis=1)
    for box, colour in zip((boxes - (view.x0, view.y0) * 2) * view.zoom, colours, strict=True):
        left, top = (int(v) - 1 for v in np.floor(box[:2]))
        right, bottom = (int(v) for v in np.ceil(box[2:]))
        cv2.rectangle(out, (left, top), (right, bottom), colour, 1)
    return out


def caption(row: Mapping[str, Any], view: View) -> str:
    """The image's name and its enlargement."""
    return f"{Path(str(row.get('path', ''))).name} x{view.zoom}  "


def titled(image: np.ndarray, text: str) -> np.ndarray:
    """The image under a line of text."""
    head = np.full((HEADER, image.shape[1], 3), PAPER, np.uint8)
    cv2.putText(head, text, (3, HEADER - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (INK, INK, INK), 1, cv2.LINE_AA)
    return np.vstack([head, image])


def legend(names: Sequence[str]) -> np.ndarray:
    """A strip with a square and a name for every class."""
    strip = np.full((HEADER, max(PANEL, 110 * len(names)), 3), PAPER, np.uint8)
    for index, name in enumerate(names):
        x = 110 * index + 4
        cv2.rectangle(strip, (x, 4), (x + 10, 14), class_colour(index), -1)
        ink = (INK, INK, INK)
        cv2.putText(strip, str(name)[:13], (x + 15, HEADER - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)
    return strip


def beside(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images in a row, a gutter between them."""
    return stacked([image.transpose(1, 0, 2) for image in images]).transpose(1, 0, 2)


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images under each other, a gutter between them, the narrow ones filled up with paper; none: an empty sheet."""
    if not images:
        return np.full((HEADER, PANEL, 3), PAPER, np.uint8)
    width = max(image.shape[1] for image in images)
    rows = []
    for image in images:
        missing = width - image.shape[1]
        rows.append(np.pad(image, ((0, GUTTER), (0, missing), (0, 0)), constant_values=PAPER))
    return np.vstack(rows)[:-GUTTER]


def write(image: np.ndarray, path: str | Path) -> Path:
    """Write a picture whole or not at all, in the format of the path's suffix."""
    path = Path(path)
    data = cv2.imencode(path.suffix or ".png", np.ascontiguousarray(image))[1]
    with new_file(path, overwrite=True, mode="wb") as stream:
        stream.write(data.tobytes())
    return path
