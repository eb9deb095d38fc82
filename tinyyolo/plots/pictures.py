"""Pictures with boxes: a pixel of the image becomes a whole square, and thin lines stay outside what they frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tinyyolo.boxes.convert import areas, centres
from tinyyolo.datasets.images import opened, save
from tinyyolo.evaluation.errors import FOUND as HIT
from tinyyolo.evaluation.errors import HIDDEN, IGNORED, REGION, TRUE, Errors
from tinyyolo.evaluation.errors import MISSED as MISS

# BGR: true positive, false positive, missed object, ignore region and what lies on it
FOUND, WRONG, MISSED, NEITHER = (60, 240, 60), (255, 120, 20), (50, 50, 255), (160, 160, 160)
STATES = {HIT: FOUND, MISS: MISSED, REGION: NEITHER}
VERDICTS = {TRUE: FOUND, IGNORED: NEITHER}  # of the others WRONG
CLASS_COLOURS = [  # BGR, far apart on green, grey and blue ground
    *[(0, 230, 255), (255, 60, 255), (255, 255, 0), (60, 120, 255), (60, 255, 60), (255, 140, 160)],
    *[(140, 255, 255), (50, 50, 255), (255, 120, 20), (200, 200, 200)],
]
PANEL = 720  # px, longest side of one image in a picture
ZOOM = 8  # at most
WANTED_SIDE = 24  # px, what the median object should measure in the picture
TRIED = 2000  # objects around which the part to show is looked for, at most so many or a few more
HEADER, GUTTER, INK, PAPER = 18, 6, 40, 255


class View(NamedTuple):
    """A part of an image, px, and how many times larger it is shown."""

    x0: int
    y0: int
    x1: int
    y1: int
    zoom: int


def compare_images(
    errors: Errors,
    images: Mapping[int, Any],
    path: str | Path,
    load: Callable[[str | Path], np.ndarray] = opened,
) -> Path:
    """Ground truth (left) beside predictions (right): green what agrees, red what was missed, blue what is not there.

    Ignore regions and the predictions on them are grey, and counted neither right nor wrong.

    Args:
        errors: verdicts of `evaluation.find_errors`; predictions below its thresholds are not drawn.
        images: index of an image in `errors.truth` -> its file, or its pixels (H, W, 3) uint8 BGR, or what has a shape
            and gives them for plain bounds, [y1:y2, x1:x2].
        path: the image file.
        load: reads a file.

    Raises:
        UserError: an image cannot be read.
    """
    truth, found = errors.truth, errors.detections
    strips = []
    for index, image in images.items():
        state, judged = errors.state[truth.rows(index)], errors.verdict[found.rows(index)]
        own, boxes = truth.boxes[truth.rows(index)], found.boxes[found.rows(index)][judged != HIDDEN]
        judged = judged[judged != HIDDEN]
        path_of = image if isinstance(image, (str, Path)) else getattr(image, "path", "")
        name, pixels = Path(path_of).name, load(image) if isinstance(image, (str, Path)) else image
        view = window(pixels, np.vstack([own, boxes]))
        left = framed(pixels, own, [STATES[s] for s in state.tolist()], view)
        right = framed(pixels, boxes, [VERDICTS.get(v, WRONG) for v in judged.tolist()], view)
        hits, misses = np.count_nonzero(state == HIT), np.count_nonzero(state == MISS)
        words = f"truth {hits + misses}: {hits} found, {misses} missed"
        ignored, true = np.count_nonzero(judged == IGNORED), np.count_nonzero(judged == TRUE)
        told = f"predicted {len(judged)}: {true} right, {len(judged) - true - ignored} wrong"
        told += f", {ignored} on ignore regions" if ignored else ""
        strips.append(beside([titled(left, f"{name} x{view.zoom}  {words}"), titled(right, told)]))
    return save(path, stacked(strips), overwrite=True)


def label_mosaic(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: str | Path, across: int = 4) -> Path:
    """Images with their boxes, a colour a class, in a grid under a legend.

    Args:
        rows: one mapping an image: "image" (H, W, 3) uint8 BGR, as of a training batch; "boxes" (M, 4) xyxy px;
            "labels" (M,) indices into `names`.
        names: class names.
        path: the image file.
        across: images beside each other.
    """
    cells = []
    for row in rows:
        image, boxes = row["image"], np.asarray(row["boxes"], np.float64).reshape(-1, 4)
        colours = [class_colour(label) for label in np.asarray(row["labels"], dtype=int)]
        view = window(image, boxes)
        cells.append(titled(framed(image, boxes, colours, view), f" x{view.zoom}  {len(boxes)} objects"))
    grid = [beside(cells[start : start + across]) for start in range(0, len(cells), across)]
    return save(path, stacked([legend(names), *grid]), overwrite=True)


def class_colour(label: int) -> tuple[int, int, int]:
    """BGR of a class; colours repeat after the last."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def window(image: np.ndarray, boxes: np.ndarray, panel: int = PANEL) -> View:
    """What to show of an image on at most `panel` px.

    The median object is brought to WANTED_SIDE px; where the whole image then has no room, the part with most objects
    is shown.
    """
    size = np.array(image.shape[1::-1])
    wanted = WANTED_SIDE / np.median(np.sqrt(np.maximum(areas(boxes), 1))) if len(boxes) else panel / size.max()
    zoom = int(np.clip(round(wanted), 1, ZOOM))
    zoom = max(zoom, min(ZOOM, panel // int(size.max())))
    shown = np.minimum(size, panel // zoom)
    middles = np.clip(centres(boxes), 0, size) if len(boxes) else size[None] / 2
    low = np.clip(middles[:: max(1, len(middles) // TRIED)] - shown / 2, 0, size - shown)
    inside = ((middles[None] >= low[:, None]) & (middles[None] <= (low + shown)[:, None])).all(2)
    most = middles[inside[inside.sum(1).argmax()]]
    x, y = np.clip((most.min(0) + most.max(0) - shown) / 2, 0, size - shown).astype(int).tolist()
    return View(x, y, x + int(shown[0]), y + int(shown[1]), zoom)


def framed(
    image: np.ndarray, boxes: np.ndarray, colours: Sequence[tuple[int, int, int]], view: View, line: int = 1
) -> np.ndarray:
    """The part of the image, enlarged, with a line of so many pixels just outside every box."""
    x0, y0, x1, y1, _ = view
    out = image[y0:y1, x0:x1].repeat(view.zoom, axis=0).repeat(view.zoom, axis=1)
    for box, colour in zip((boxes - (x0, y0, x0, y0)) * view.zoom, colours, strict=True):
        left, top = (int(v) - 1 for v in np.floor(box[:2]))
        right, bottom = (int(v) for v in np.ceil(box[2:]))
        for wider in range(line):
            cv2.rectangle(out, (left - wider, top - wider), (right + wider, bottom + wider), colour, 1)
    return out


def titled(image: np.ndarray, text: str) -> np.ndarray:
    """The image under a line of text."""
    head = np.full((HEADER, image.shape[1], 3), PAPER, np.uint8)
    put_text(head, text, 3)
    return np.vstack([head, image])


def put_text(strip: np.ndarray, text: str, x: int) -> None:
    """Write a line into a strip of paper."""
    cv2.putText(strip, text, (x, HEADER - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (INK, INK, INK), 1, cv2.LINE_AA)


def legend(names: Sequence[str]) -> np.ndarray:
    """A strip with a square and a name for every class."""
    strip = np.full((HEADER, max(PANEL, 110 * len(names)), 3), PAPER, np.uint8)
    for index, name in enumerate(names):
        x = 110 * index + 4
        cv2.rectangle(strip, (x, 4), (x + 10, 14), class_colour(index), -1)
        put_text(strip, str(name)[:13], x + 15)
    return strip


def beside(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images in a row, a gutter between them."""
    row: np.ndarray = stacked([image.transpose(1, 0, 2) for image in images]).transpose(1, 0, 2)
    return row


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images under each other, a gutter between them, the narrow ones filled up with paper; none: an empty sheet."""
    if not images:
        return np.full((HEADER, PANEL, 3), PAPER, np.uint8)
    width = max(image.shape[1] for image in images)
    pads = [((0, GUTTER), (0, width - image.shape[1]), (0, 0)) for image in images]
    rows = [np.pad(image, pad, constant_values=PAPER) for image, pad in zip(images, pads, strict=True)]
    return np.vstack(rows)[:-GUTTER]
