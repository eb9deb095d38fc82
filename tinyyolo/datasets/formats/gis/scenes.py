"""Where outlines of a map lie in the pixels of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tinyyolo.boxes.convert import centres, sides
from tinyyolo.datasets.annotations import Problem
from tinyyolo.scenes.outlines import DEGREES, SLACK, Layer, bounds, is_geographic, on_scene, short, transformed
from tinyyolo.scenes.place import Place
from tinyyolo.scenes.raster import place_of_file
from tinyyolo.scenes.vectors import corners

HALF = 0.5  # of the objects that must lie in an image without a place for their numbers to be its pixels
LEAST_SIDE = 0.5  # px, of the middle one of these objects
CORNER, CORNER_SHARE = 0.5, 0.1  # px, and share of a side, that a point may be off the corner of a box


@dataclass(frozen=True)
class Scene:
    """An image: its file name, height and width in px, and where it lies; a CRS that is not of the Earth is none."""

    name: str
    size_hw: tuple[int, int]
    place: Place

    @property
    def crs(self) -> str:
        """Well-known text, or ""."""
        return self.place.crs if self.place.known else ""

    @property
    def transform(self) -> tuple[float, ...] | None:
        """See `Place`; None also for one whose pixels have no area."""
        six = self.place.transform
        return None if six is None or six[0] * six[4] == six[1] * six[3] else six

    @property
    def extent(self) -> np.ndarray:
        """(4,) xyxy of its corners on the map."""
        h, w = self.size_hw
        ring = self.place.on_map(corners(np.array([[0.0, 0.0, w, h]])))[0]
        return np.concatenate([ring.min(0), ring.max(0)])


@dataclass(frozen=True)
class Placed:
    """Outlines in images, K of them.

    Attributes:
        rows: (K,) which feature of the layer.
        images: (K,) which image.
        boxes: (K, 4) xyxy px.
        given: (K,) bool, the feature names its image.
        outlines: (K,) bool, it is no box.
    """

    rows: np.ndarray
    images: np.ndarray
    boxes: np.ndarray
    given: np.ndarray
    outlines: np.ndarray


def scene_of(folder: Path, name: str, size_hw: Sequence[int]) -> Scene:
    """An image of a folder, with its place on the map."""
    return Scene(name, (int(size_hw[0]), int(size_hw[1])), Place(*place_of_file(folder / name)))


def placed(
    layer: Layer,
    usable: np.ndarray,
    scenes: Sequence[Scene],
    among: Sequence[int],
    images: np.ndarray,
    remarks: list[Problem],
) -> tuple[Placed, list[int]]:
    """Find a layer's outlines in images.

    Args:
        layer: N features.
        usable: (N,) bool, those with an outline.
        scenes: all images.
        among: the indices of those that the layer is for.
        images: (N,) the file name of the image that a feature names, "" for none.
        remarks: what is taken in which way is added here.

    Returns:
        What was found, an outline in every image that it touches; and the images whose place is not known.
    """
    drawn = usable[layer.owners]
    points, owners, count, where = layer.points[drawn], layer.owners[drawn], len(usable), str(layer.path)
    crs = layer.crs
    if crs and is_geographic(crs) and (abs(points) > DEGREES + SLACK).any() and any(scenes[i].transform for i in among):
        remarks.append(Problem("coordinates", where, f"its numbers are no degrees, as {short(crs)} would have them"))
        crs = ""

    @cache
    def on(target: str) -> tuple[np.ndarray, np.ndarray]:
        """The points in a CRS, and the bounds of the features."""
        found = transformed(points, crs, target) if crs and target else points
        return found, bounds(found, owners, count)

    index = {name: i for i, name in enumerate(scene.name for scene in scenes)}
    named = np.array([index.get(name, -2) if name else -1 for name in images.tolist()], np.int64)
    if not (by_name := bool((named >= 0).any())):
        named[:] = -1  # these are no names of images
    parts, lost, used = [], [], set[tuple[bool, bool]]()
    for i in among:
        scene, own, free = scenes[i], usable & (named == i), usable & (named == -1)
        found, boxes = on(scene.crs)
        close = near(scene, boxes) if scene.transform is not None else np.zeros(count, bool)
        to_pixels = None
        if scene.transform is None or not (scene.crs or own.any() or close.any()):
            to_pixels = in_pixels(scene, boxes[free | own], alone=len(among) == 1)
        if to_pixels is not None and (to_pixels is upside_down or (free.any() and not own.any())):
            ways = "y upwards, as QGIS shows them" if to_pixels is upside_down else "y downwards"
            what = f"it has no place on the map: the labels ({short(crs)}) are taken as its pixels, {ways}"
            remarks.append(Problem("coordinates", f"{where}: {scene.name}", what))
        elif to_pixels is None and scene.transform is not None:
            to_pixels, free = on_map_of(scene), free & close
            used.add((bool(crs), bool(scene.crs)))
        elif to_pixels is None:
            lost += [i] if free.any() and not by_name else []
            to_pixels, free = as_they_are, np.zeros(count, bool)
        parts.append(rows_in(i, scene, found, owners, to_pixels, free | own, own))
    if (False, True) in used and count:
        its = sorted({short(scenes[i].crs) for i in among if scenes[i].crs})
        what = f"its coordinates are taken as those of the images, {', '.join(its)}"
        remarks.append(Problem("coordinates", where, what if layer.crs else f"it has no CRS: {what}"))
    if (True, False) in used and count:
        what = f"images without a CRS are taken to be in that of the labels, {short(crs)}"
        remarks.append(Problem("coordinates", where, what))
    columns = zip(*parts, strict=True) if parts else ()
    empty = Placed(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, bool), np.zeros(0, bool))
    return Placed(*map(np.concatenate, columns)) if parts else empty, lost


def near(scene: Scene, boxes: np.ndarray) -> np.ndarray:
    """(N,) bool, which of the boxes (N, 4) in a scene's CRS touch the bounds of its corners."""
    (left, low, right, high), (x1, y1, x2, y2) = scene.extent, boxes.T
    return np.asarray((x2 >= left) & (y2 >= low) & (x1 <= right) & (y1 <= high))


ToPixels = Callable[[np.ndarray], np.ndarray]


def as_they_are(points: np.ndarray) -> np.ndarray:
    """Points that are pixels."""
    return points


def upside_down(points: np.ndarray) -> np.ndarray:
    """Pixels of points of an image as QGIS shows it where it has no place: y runs from 0 to minus the height."""
    return points * (1, -1)


def on_map_of(scene: Scene) -> ToPixels:
    """Pixels of points of a scene's CRS."""
    return lambda points: on_scene(points, scene.transform or ())


def in_pixels(scene: Scene, boxes: np.ndarray, *, alone: bool) -> ToPixels | None:
    """How outlines with these bounds (N, 4) are pixels of an image without a place; None if they seem to be none.

    Args:
        scene: the image.
        boxes: xyxy.
        alone: there is no other image that they could be in.
    """
    if not alone or not len(boxes):
        return None
    way = upside_down if np.median(boxes[:, 3]) <= 0 else as_they_are
    middle = way(centres(boxes))
    inside = ((middle >= 0) & (middle <= scene.size_hw[::-1])).all(axis=1)
    fits = inside.mean() >= HALF and np.median(sides(boxes)) >= LEAST_SIDE
    return way if fits else None


def rows_in(
    image: int,
    scene: Scene,
    points: np.ndarray,
    owners: np.ndarray,
    to_pixels: ToPixels,
    which: np.ndarray,
    own: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """The columns of `Placed` for one image, of the features `which` (N,) that touch it, or name it (`own`)."""
    rows, picked = np.flatnonzero(which), which[owners]  # of many features few lie in one image
    pixels, owner = to_pixels(points[picked]), np.searchsorted(rows, owners[picked])
    boxes = bounds(pixels, owner, len(rows))
    h, w = scene.size_hw
    off = np.minimum(abs(pixels - boxes[owner, :2]), abs(pixels - boxes[owner, 2:]))
    far = off > np.maximum(CORNER, CORNER_SHARE * sides(boxes))[owner]
    outlines = np.bincount(owner, far.any(axis=1), len(rows)) > 0
    stay = own[rows] | ((boxes[:, 2:] >= 0).all(axis=1) & (boxes[:, :2] <= (w, h)).all(axis=1))
    images = np.full(int(stay.sum()), image, np.int64)
    return rows[stay], images, boxes[stay], own[rows][stay], outlines[stay]
