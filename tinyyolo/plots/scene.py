"""A sheet of a scene: all of it with its boxes or their density, a legend, and detections enlarged beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tinyyolo.boxes.convert import centres, convert, sides
from tinyyolo.plots.paper import GAP, SMALL, TEXT, Pen, fitting, font, pile, sheet_of, side_by_side
from tinyyolo.plots.pictures import INK, PANEL, PAPER, View, class_colour, framed

MAP = 1400  # px, longer side of the scene in the sheet
MARGIN = 16  # px
CELL, CAPTION = 190, 40  # px, of a crop, and of the words below it
BESIDE = 0.6  # crops stand beside a scene whose height is at least this share of its width, else below it
AROUND = 3  # times its longer side is what is shown around a box
LEAST_CROP = 32  # px of the scene
ZOOM = 8  # at most
MARK = 6  # px, of a box that would be smaller
CROWDED = 0.5  # share of marks on top of others from which density is drawn instead
GRID = 14  # px, of a cell of the density
BAR_SHARE = 0.2  # of the scene's width, at most, is the bar of scale
DIMMED = 0.45  # what is left of the picture's brightness under the density
LEAST_LEGEND = 240  # px, its width
MOST_ROWS, ROW_HEIGHT = 3, 420  # rows of crops of each kind beside a scene, one for so many px of its height


@dataclass(frozen=True)
class Detections:
    """What a sheet shows.

    Attributes:
        size_hw: of the scene, px.
        boxes: (N, 4) xyxy px of the scene.
        scores: (N,).
        labels: (N,) int.
        names: the classes.
        metres: (N, 2) width and height of each box, NaN where they are not known.
        pixel: m, side of a pixel; NaN where it is not known.
    """

    size_hw: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: Mapping[int, str]
    metres: np.ndarray
    pixel: float = math.nan


Crop = Callable[[int, int, int, int], np.ndarray]  # left, top, right, bottom px -> (h, w, 3) uint8 BGR


def scene_sheet(
    overview: np.ndarray, found: Detections, crop: Crop, title: str, line: int = 1, boxes: bool = True
) -> np.ndarray:
    """The sheet (H, W, 3) uint8 BGR.

    Args:
        overview: (h, w, 3) uint8 BGR, the whole scene, of any size.
        found: the detections.
        crop: gives pixels of the scene.
        title: what stands above it.
        line: px, of boxes in the scene.
        boxes: draw them, or their density.
    """
    height, width = found.size_hw
    factor = MAP / max(height, width)
    shown = max(1, round(height * factor)), max(1, round(width * factor))
    way = cv2.INTER_AREA if shown[0] < overview.shape[0] else cv2.INTER_LINEAR
    picture = cv2.resize(overview, (shown[1], shown[0]), interpolation=way)
    beside = height >= BESIDE * width
    rows = min(MOST_ROWS, max(1, round(shown[0] / ROW_HEIGHT)))
    best, doubtful = chosen(found, 2 * rows if beside else (shown[1] + GAP) // (CELL + GAP))
    most = 0
    if boxes and len(found.boxes):
        marks = marks_of(found.boxes * factor)
        if crowded(marks):
            picture, most = density(picture, marks)
        else:
            draw_marks(picture, marks, found.labels, line)
    picture = with_numbers(picture, found.boxes * factor, [*best, *doubtful])
    blocks = [
        block(words, found, rows, first, crop, 2 if beside else len(rows))
        for words, rows, first in (("highest scores", best, 1), ("lowest scores", doubtful, len(best) + 1))
        if rows
    ]
    key = legend(found, shown[1], most, GRID / factor)
    scene = pile([picture, scale_bar(shown[1], found.pixel / factor, 1 / factor), key], 4)
    body = side_by_side([scene, pile(blocks)]) if beside and blocks else pile([scene, *blocks])
    return framed_sheet(body, headline(title, found))


def image_sheet(image: np.ndarray, found: Detections, line: int = 1) -> np.ndarray:
    """A whole image with a box for every detection and a legend below it, small images enlarged: (H, W, 3) uint8 BGR.

    Args:
        image: (h, w, 3) uint8 BGR; a pixel of it becomes a square of up to ZOOM px.
        found: the detections; those with the highest scores are drawn last.
        line: px, of boxes.
    """
    height, width = image.shape[:2]
    zoom = int(np.clip(PANEL // max(height, width), 1, ZOOM))
    order = np.argsort(found.scores, kind="stable")
    colours = [class_colour(label) for label in found.labels[order].tolist()]
    picture = framed(image, found.boxes[order], colours, View(0, 0, width, height, zoom), line)
    return pile([picture, legend(found, max(picture.shape[1], LEAST_LEGEND), 0, 0)], 4)


def chosen(found: Detections, count: int) -> tuple[list[int], list[int]]:
    """The rows with the highest scores, the classes in turn, and of the others those with the lowest.

    Examples:
        >>> nothing = np.zeros((4, 2))
        >>> some = Detections((9, 9), np.zeros((4, 4)), np.array([.9, .8, .7, .3]), np.array([0, 0, 1, 0]), {}, nothing)
        >>> chosen(some, 2)
        ([0, 2], [3, 1])
    """
    order = np.argsort(-found.scores, kind="stable")
    turn = np.zeros(len(order), int)
    for label in np.unique(found.labels):
        own = order[found.labels[order] == label]
        turn[own] = np.arange(len(own))
    best = sorted(order.tolist(), key=lambda row: turn[row])[:count]
    best.sort(key=lambda row: -found.scores[row])
    rest = [row for row in order[::-1].tolist() if row not in best]
    return best, rest[:count]


def marks_of(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) px of the sheet as int corners, none smaller than MARK px."""
    shown = np.concatenate([centres(boxes), np.maximum(sides(boxes), MARK)], axis=1)
    marks: np.ndarray = np.round(convert(shown, "cxcywh", "xyxy")).astype(int)
    return marks


def crowded(marks: np.ndarray) -> bool:
    """Whether most marks (N, 4) lie on top of another, so that none can be seen."""
    cells = np.unique(centres(marks) // MARK, axis=0)
    return len(cells) < (1 - CROWDED) * len(marks)


def draw_marks(picture: np.ndarray, marks: np.ndarray, labels: np.ndarray, line: int) -> None:
    """Frames in the colours of the classes, on a dark line that shows them on bright ground."""
    for x1, y1, x2, y2 in marks.tolist():
        cv2.rectangle(picture, (x1 - 1, y1 - 1), (x2 + 1, y2 + 1), (0, 0, 0), line)
    for (x1, y1, x2, y2), label in zip(marks.tolist(), labels.tolist(), strict=True):
        cv2.rectangle(picture, (x1, y1), (x2, y2), class_colour(label), line)


def density(picture: np.ndarray, marks: np.ndarray) -> tuple[np.ndarray, int]:
    """The picture, grey and dark, under squares whose colour is the number of detections there, and the largest one."""
    height, width = picture.shape[:2]
    columns, rows = -(-width // GRID), -(-height // GRID)
    middles = centres(marks) / GRID
    x, y = (middles[:, i].astype(int).clip(0, most - 1) for i, most in enumerate((columns, rows)))
    counts = np.bincount(y * columns + x, minlength=rows * columns).reshape(rows, columns)
    most = int(counts.max())
    colours = shade(counts, most).repeat(GRID, axis=0).repeat(GRID, axis=1)[:height, :width]
    there = (counts > 0).repeat(GRID, axis=0).repeat(GRID, axis=1)[:height, :width, None]
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) * DIMMED
    return np.where(there, 0.25 * grey + 0.75 * colours, grey).astype(np.uint8), most


def shade(counts: np.ndarray, most: int) -> np.ndarray:
    """(…, 3) uint8 BGR of counts from 1 to `most`, by their logarithm."""
    share = np.log(np.maximum(counts, 1)) / max(math.log(most), 1e-6) if most > 1 else np.ones(counts.shape)
    values = (70 + 185 * share).clip(0, 255).astype(np.uint8)
    out: np.ndarray = cv2.applyColorMap(values.reshape(-1, 1), cv2.COLORMAP_INFERNO).reshape(*counts.shape, 3)
    return out


def with_numbers(picture: np.ndarray, boxes: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """The picture with the numbers of the crops beside what they show, those that have room there."""
    pen, taken = Pen(picture), list[tuple[float, float, float, float]]()
    height, width = picture.shape[:2]
    for number, row in enumerate(rows, 1):
        words, (x1, y1, x2, y2) = str(number), boxes[row].tolist()
        w, h = font(SMALL, True).getlength(words) + 6, SMALL + 5
        for x, y in ((x2 + 4, y1 - h), (x1 - w - 4, y1 - h), (x2 + 4, y2), (x1 - w - 4, y2)):
            free = all(x >= r or x + w <= left or y >= b or y + h <= t for left, t, r, b in taken)
            if free and x >= 0 and y >= 0 and x + w <= width and y + h <= height:
                taken.append((x, y, x + w, y + h))
                pen.draw.rectangle((x, y, x + w, y + h), fill=(255, 255, 255), outline=(0, 0, 0))
                pen.text((x + 3, y + 1), words, SMALL, bold=True, fill=(0, 0, 0))
                break
    return pen.image


def nice(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not over `most`.

    Examples:
        >>> nice(730), nice(0.3), nice(20)
        (500.0, 0.2, 20.0)
    """
    step = 10.0 ** math.floor(math.log10(most))
    return max(factor * step for factor in (1, 2, 5) if factor * step <= most * (1 + 1e-9))


def scale_bar(width: int, metre: float, pixel: float) -> np.ndarray:
    """A strip with a bar of scale.

    Args:
        width: of the picture of the scene, px.
        metre: m of a pixel of the picture, NaN where it is not known.
        pixel: px of the scene of a pixel of the picture, which are shown then.
    """
    unit = metre if math.isfinite(metre) else pixel
    length = nice(max(unit, BAR_SHARE * width * unit))
    words = lengths(length) if math.isfinite(metre) else f"{length:,g} px of the scene"
    pen, end = Pen(sheet_of(TEXT + GAP, width)), length / unit
    pen.draw.rectangle((0, 13, end, 17), fill=(INK,) * 3)
    for x in (0, end):
        pen.draw.rectangle((x - 1, 7, x + 1, 23), fill=(INK,) * 3)
    pen.text((end + 10, 2), words, TEXT)
    return pen.image


def lengths(metres: float) -> str:
    """A length in words.

    Examples:
        >>> lengths(2500), lengths(200), lengths(0.5)
        ('2.5 km', '200 m', '0.5 m')
    """
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


def headline(title: str, found: Detections) -> tuple[str, str]:
    """The title, and the scene's size and number of detections."""
    height, width = found.size_hw
    ground = ""
    if math.isfinite(found.pixel):
        w, h = (float(f"{side * found.pixel:.3g}") for side in (width, height))
        ground = f" = {lengths(w)} x {lengths(h)} at {lengths(float(f'{found.pixel:.3g}'))} a pixel"
    count = len(found.scores)
    return title, f"{width:,} x {height:,} px{ground}, {count:,} detection{'s' * (count != 1)}"


def legend(found: Detections, width: int, most: int, cell: float) -> np.ndarray:
    """Classes with their colours and numbers, the most frequent first; the colours of the density, of cells in px."""
    rows, x, step = [sheet_of(TEXT + GAP, width)], 0, TEXT + GAP
    pen = Pen(rows[0])
    counts = np.bincount(found.labels.astype(int), minlength=1)
    order = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]
    for label in order:
        words = fitting(f"{found.names[label]}  {counts[label]:,}", TEXT, width // 2)
        wide = 26 + math.ceil(font(TEXT).getlength(words)) + 24
        if x + wide > width:
            rows[-1], x = pen.image, 0
            rows.append(sheet_of(step, width))
            pen = Pen(rows[-1])
        if not most:
            blue, green, red = class_colour(label)
            pen.draw.rectangle((x, 6, x + 16, 22), fill=(red, green, blue), outline=(90, 90, 90))
        pen.text((x + (0 if most else 24), 2), words, TEXT)
        x += wide
    rows[-1] = pen.image
    if not order:
        pen.text((0, 2), "no detection", TEXT)
        rows[-1] = pen.image
    return pile([*([colour_key(width, most, cell, found.pixel)] if most else []), *rows], 2)


def colour_key(width: int, most: int, cell: float, pixel: float) -> np.ndarray:
    """The colours of the density, from one detection to the largest number in a cell."""
    strip = sheet_of(TEXT + GAP, width)
    bar = min(260, width // 4)
    strip[6:24, 22 : 22 + bar] = shade(np.geomspace(1, most, bar)[None], most)
    pen = Pen(strip)
    side = lengths(float(f"{cell * pixel:.2g}")) if math.isfinite(pixel) else f"{cell:.0f} px"
    pen.text((0, 2), "1", TEXT)
    words = f"{most:,} detections in a square of {side}: too many for boxes"
    pen.text((30 + bar, 2), fitting(words, TEXT, width - 30 - bar), TEXT)
    return pen.image


def block(words: str, found: Detections, rows: Sequence[int], first: int, crop: Crop, across: int) -> np.ndarray:
    """Crops in rows of `across` under a line of words."""
    head = Pen(sheet_of(TEXT + GAP, across * (CELL + GAP) - GAP))
    head.text((0, 2), words, TEXT, bold=True)
    cells = [enlarged(found, row, first + i, crop) for i, row in enumerate(rows)]
    lines = [side_by_side(cells[start : start + across]) for start in range(0, len(cells), across)]
    return pile([head.image, *lines], 4)


def enlarged(found: Detections, row: int, number: int, crop: Crop) -> np.ndarray:
    """A detection and what is around it, CELL px wide, with its number, class, score, size and place."""
    box, (height, width) = found.boxes[row], found.size_hw
    longer = float(sides(box).max())
    zoom = min(ZOOM, CELL / max(longer * AROUND, LEAST_CROP)) if longer * AROUND <= CELL else CELL / (longer * 1.3)
    zoom = math.floor(zoom) if zoom >= 1 else zoom
    side = math.ceil(CELL / zoom)
    middle = centres(box).tolist()
    left, top = (
        int(np.clip(round(m - side / 2), 0, max(0, size - side)))
        for m, size in zip(middle, (width, height), strict=True)
    )
    pixels = crop(left, top, min(width, left + side), min(height, top + side))
    w, h = (max(1, round(length * zoom)) for length in pixels.shape[1::-1])
    way = cv2.INTER_NEAREST if zoom >= 1 else cv2.INTER_AREA
    shown = sheet_of(CELL + CAPTION, CELL)
    shown[:CELL] = 235
    shown[: min(h, CELL), : min(w, CELL)] = cv2.resize(pixels, (w, h), interpolation=way)[:CELL, :CELL]
    x1, y1, x2, y2 = ((box - [left, top, left, top]) * zoom).tolist()
    view = shown[:CELL]
    for away, colour in enumerate((class_colour(int(found.labels[row])),) * 2 + ((0, 0, 0),), 1):  # outside the box
        low, high = (math.floor(x1) - away, math.floor(y1) - away), (math.ceil(x2) + away - 1, math.ceil(y2) + away - 1)
        cv2.rectangle(view, low, high, colour, 1)
    pen = Pen(shown)
    pen.draw.rectangle((0, 0, font(SMALL, True).getlength(str(number)) + 6, SMALL + 5), fill=(255, 255, 255))
    pen.text((3, 1), str(number), SMALL, bold=True, fill=(0, 0, 0))
    score = f"{found.scores[row]:.2f}"
    name = fitting(found.names[int(found.labels[row])], SMALL, CELL - 48)
    pen.text((0, CELL + 2), name, SMALL)
    pen.text((CELL - font(SMALL, True).getlength(score), CELL + 2), score, SMALL, bold=True)
    pen.text((0, CELL + 20), fitting(measured(box, found.metres[row]), SMALL - 1, CELL), SMALL - 1, fill=(110,) * 3)
    return pen.image


def measured(box: np.ndarray, metres: np.ndarray) -> str:
    """The size and place of a box in words.

    Examples:
        >>> measured(np.array([10, 20, 31, 40]), np.array([np.nan, np.nan])), measured(
        ...     np.array([10, 20, 31, 40]), np.array([10.52, 10.0]))
        ('21 x 20 px at 20, 30', '10.5 x 10 m at 20, 30')
    """
    lengths_xy, unit = (metres, "m") if np.isfinite(metres).all() else (sides(box), "px")
    x, y = centres(box).astype(int).tolist()
    return f"{lengths_xy[0]:.3g} x {lengths_xy[1]:.3g} {unit} at {x}, {y}"


def framed_sheet(body: np.ndarray, words: tuple[str, str]) -> np.ndarray:
    """The sheet with its margin and headline."""
    head, width = Pen(sheet_of(2 * TEXT + 18, body.shape[1])), body.shape[1]
    head.text((0, 0), fitting(words[0], TEXT + 4, width, True), TEXT + 4, bold=True)
    head.text((0, TEXT + 12), fitting(words[1], TEXT, width), TEXT)
    return np.pad(pile([head.image, body]), ((MARGIN,) * 2, (MARGIN,) * 2, (0, 0)), constant_values=PAPER)
