"""Copy-paste of tiny objects (Kisantal et al., "Augmentation for small object detection", 2019), rare classes first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from ultralytics.data.augment import BaseTransform
from ultralytics.utils.instance import Instances

from tinyyolo.boxes.convert import convert
from tinyyolo.io import in_threads

MAX_SIDE = 32.0  # px of the network input; what is larger covers what stands there already
PER_CLASS = 300  # objects of a class to copy from
MARGIN = 0.3  # of a side, over which a copy fades into its new place
LEAST_MARGIN = 2  # px
SCALES = (0.8, 1.25)
TRIES = 5  # places tried for a copy before it is left out


Box = tuple[float, float, float, float]  # xyxy
Place = tuple[int, int]  # x, y of a corner


class Crop(NamedTuple):
    """Pixels (h, w, 3) of an object with its margin, and its box in them."""

    pixels: np.ndarray
    box: Box


class PasteTiny(BaseTransform):
    """Adds copies of other training objects to an image, every class as often as any other.

    A copy is mirrored and scaled at random, put where no object is, brought to the brightness of its new surroundings
    and faded into them. Objects whose margin touches the border of their image are not copied.

    Args:
        dataset: a `TinyDataset` with its labels read.
        count: copies an image at most; the number is drawn from 0 to `count`.
        crops: what is cut out already, and will be: (image, object) -> its pixels.
    """

    def __init__(self, dataset: Any, count: int, crops: dict[tuple[int, int], Crop] | None = None):
        self.dataset, self.count = copy(dataset), int(count)
        # Reads images past the buffer that mosaic draws from: a resumed run has other crops at hand.
        self.dataset.augment = False
        self.bank = candidates(dataset)
        self.classes = list(self.bank)
        self.of_image: dict[int, list[int]] = {}
        for i, j in (which for some in self.bank.values() for which in some):
            self.of_image.setdefault(i, []).append(j)
        self.crops = {} if crops is None else crops

    def cut_ahead(self, prefix: str = "") -> None:
        """Cut out all that may be copied now, in threads: later each worker process would decode these images anew.

        Windows of scenes are left for later: which of them are open together is not for threads to say.
        """
        whole = [i for i in self.of_image if self.dataset.labels[i]["window"] is None]
        fresh = [i for i in whole if (i, self.of_image[i][0]) not in self.crops]
        work = lambda i: cut(self.dataset, i, self.of_image[i])  # noqa: E731
        for found in in_threads(work, fresh, f"{prefix}cutting out objects to copy") if fresh else []:
            self.crops.update(found)

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """The sample with copies in its "img", "instances" and "cls"."""
        wanted = random.randint(0, self.count) if self.bank else 0
        if not wanted:
            return labels
        instances = labels["instances"]
        height, width = labels["img"].shape[:2]
        instances.convert_bbox("xyxy")
        instances.denormalize(width, height)
        image, count, classes = labels["img"].copy(), len(instances), list[int]()
        taken = np.empty((4, count + wanted))  # columns, so that each side of all boxes lies together
        taken[:, :count] = instances.bboxes.T
        for _ in range(wanted):
            label = random.choice(self.classes)
            which = random.choice(self.bank[label])
            if (found := self.crop(which)) is None:
                continue  # its image is gone
            crop, (x1, y1, x2, y2) = found
            known = count + len(classes)
            place = free_place(crop.shape[:2], found.box, taken[:, :known], (height, width))
            if place is not None:
                blend(image, crop, found.box, place)
                x, y = place
                taken[:, known] = np.array((x1 + x, y1 + y, x2 + x, y2 + y), np.float32)
                classes.append(label)
        if classes:
            boxes = np.ascontiguousarray(taken[:, : count + len(classes)].T, np.float32)
            outlines = np.zeros((0, 1000, 2), np.float32)
            labels["instances"] = Instances(boxes, outlines, bbox_format="xyxy", normalized=False)
            labels["cls"] = np.concatenate([labels["cls"], np.array(classes, np.float32).reshape(-1, 1)])
            labels["img"] = image
        return labels

    def crop(self, which: tuple[int, int]) -> Crop | None:
        """An object with its margin, mirrored and scaled at random; None if its image is gone."""
        if which not in self.crops:
            self.crops.update(cut(self.dataset, which[0], self.of_image[which[0]]))
            if which not in self.crops:
                return None
        stored, (x1, y1, x2, y2) = self.crops[which]
        scale = random.uniform(*SCALES)
        height, width = (max(1, round(side * scale)) for side in stored.shape[:2])
        pixels: np.ndarray = cv2.resize(stored, (width, height), interpolation=cv2.INTER_LINEAR)
        across, down = width / stored.shape[1], height / stored.shape[0]
        x1, y1, x2, y2 = x1 * across, y1 * down, x2 * across, y2 * down
        if random.random() < 0.5:
            pixels, x1, x2 = cv2.flip(pixels, 1), width - x2, width - x1
        return Crop(pixels, (x1, y1, x2, y2))


def candidates(dataset: Any) -> dict[int, list[tuple[int, int]]]:
    """Class -> (image, object) of up to PER_CLASS objects that can be copied, the same ones every time."""
    found: dict[int, list[tuple[int, int]]] = {}
    for i, label in enumerate(dataset.labels):
        height, width = label["shape"]
        scale = dataset.imgsz / max(height, width)
        centres, sides = label["bboxes"][:, :2], label["bboxes"][:, 2:]
        size = np.array([width, height]) * scale
        reach = (0.5 * sides + np.maximum(MARGIN * sides, LEAST_MARGIN / size)) * size
        inside = ((centres * size >= reach) & (centres * size + reach <= size)).all(1)
        usable = inside & ((sides * size).max(1, initial=0) <= MAX_SIDE) & (label["cls"][:, 0] >= 0)
        for j in np.flatnonzero(usable).tolist():
            found.setdefault(int(label["cls"][j, 0]), []).append((i, j))
    draw = random.Random(0)
    return {k: sorted(draw.sample(some, min(PER_CLASS, len(some)))) for k, some in sorted(found.items())}


def cut(dataset: Any, i: int, objects: Sequence[int]) -> dict[tuple[int, int], Crop]:
    """(i, j) -> object j of image i, of these objects, at the network's scale; none if the image is gone.

    All of an image together: decoding it takes a hundred times as long as the rest.
    """
    image, original, (height, width) = dataset.load_image(i)
    if min(original) < 0:
        return {}
    found = {}
    for j in objects:
        cxcywh = dataset.labels[i]["bboxes"][j] * np.array([width, height] * 2)
        left, top, right, bottom = box = convert(cxcywh, "cxcywh", "xyxy")
        mx, my = (max(MARGIN * side, LEAST_MARGIN) for side in cxcywh[2:])
        x1, y1 = max(int(left - mx), 0), max(int(top - my), 0)
        x2, y2 = min(int(np.ceil(right + mx)), width), min(int(np.ceil(bottom + my)), height)
        found[i, j] = Crop(image[y1:y2, x1:x2].copy(), tuple((box - np.array([x1, y1, x1, y1])).tolist()))
    return found


def free_place(shape: tuple[int, int], inner: Box, taken: np.ndarray, size_hw: tuple[int, int]) -> Place | None:
    """Corner (x, y) for a crop (h, w) whose object overlaps none of `taken` (4, M) xyxy, or None after some tries."""
    if shape[0] >= size_hw[0] or shape[1] >= size_hw[1]:
        return None
    (x1, y1, x2, y2), (left, top, right, bottom) = inner, taken
    for _ in range(TRIES):
        x, y = random.randint(0, size_hw[1] - shape[1]), random.randint(0, size_hw[0] - shape[0])
        if not ((left < x2 + x) & (right > x1 + x) & (top < y2 + y) & (bottom > y1 + y)).any():
            return x, y
    return None


def blend(image: np.ndarray, crop: np.ndarray, inner: Box, place: Place) -> None:
    """Write `crop` into `image` at `place`: whole within its box, fading out over the margin, of the new brightness.

    The three bands of a pixel stand side by side in a row here: over a last axis of three, numpy is slow.
    """
    (height, width), (x, y) = crop.shape[:2], place
    weight = ramp(height, inner[1], inner[3])[:, None] * ramp(width, inner[0], inner[2])
    share = max(float((1 - weight).sum()), 1e-6)
    weight = weight.repeat(3, axis=1)
    edge = 1 - weight
    target = image[y : y + height, x : x + width]
    old, new = target.reshape(height, -1).astype(np.float32), crop.reshape(height, -1).astype(np.float32)
    bands = np.ascontiguousarray(((old - new) * edge).reshape(-1, 3).T)
    shift = bands.cumsum(axis=1)[:, -1] / share
    new += shift[bands_of(width)]
    new *= weight
    old *= edge
    new += old
    target[:] = np.minimum(np.maximum(new, 0, out=new), 255, out=new).reshape(height, width, 3).astype(np.uint8)


def ramp(length: int, start: float, end: float) -> np.ndarray:
    """(length,) 1 at pixels between `start` and `end`, falling linearly to 0 at the ends."""
    centres = centres_of(length)
    rise, fall = centres / max(start, 0.5), centres[::-1] / max(length - end, 0.5)
    return np.minimum(np.minimum(rise, fall), 1.0).astype(np.float32)


@lru_cache
def bands_of(width: int) -> np.ndarray:
    """(3 * width,) the band of each value in a row of so many pixels."""
    return np.tile(np.arange(3), width)


@lru_cache
def centres_of(length: int) -> np.ndarray:
    """(length,) the middles of so many pixels."""
    return np.arange(length) + 0.5
