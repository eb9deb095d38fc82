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


class Copy(NamedTuple):
    """A crop and where its left upper corner is put."""

    crop: Crop
    place: Place


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
        taken, count = [tuple(box) for box in instances.bboxes.tolist()], len(instances)
        copies, classes = list[Copy](), list[int]()
        for _ in range(wanted):
            label = random.choice(self.classes)
            which = random.choice(self.bank[label])
            if (found := self.crop(which)) is None:
                continue  # its image is gone
            place = free_place(found.pixels.shape[:2], found.box, taken, (height, width))
            if place is not None:
                copies.append(Copy(found, place))
                (x1, y1, x2, y2), (x, y) = found.box, place
                taken.append(tuple(np.array((x1 + x, y1 + y, x2 + x, y2 + y), np.float32).tolist()))
                classes.append(label)
        if copies:
            labels["img"] = labels["img"].copy()
            for apart in disjoint(copies):
                blend(labels["img"], apart)
            boxes = np.concatenate([instances.bboxes, np.array(taken[count:], np.float32)], dtype=np.float32)
            outlines = np.zeros((0, 1000, 2), np.float32)
            labels["instances"] = Instances(boxes, outlines, bbox_format="xyxy", normalized=False)
            labels["cls"] = np.concatenate([labels["cls"], np.array(classes, np.float32).reshape(-1, 1)])
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


def free_place(shape: tuple[int, int], inner: Box, taken: Sequence[Box], size_hw: tuple[int, int]) -> Place | None:
    """Corner (x, y) for a crop (h, w) whose object overlaps none of `taken`, or None after some tries."""
    if shape[0] >= size_hw[0] or shape[1] >= size_hw[1]:
        return None
    for _ in range(TRIES):
        x, y = random.randint(0, size_hw[1] - shape[1]), random.randint(0, size_hw[0] - shape[0])
        if not meets((inner[0] + x, inner[1] + y, inner[2] + x, inner[3] + y), taken):
            return x, y
    return None


def meets(box: Box, others: Sequence[Box]) -> bool:
    """Whether a box overlaps any of some dozens, most of which are told apart by one side."""
    x1, y1, x2, y2 = box
    return any(left < x2 and right > x1 and top < y2 and bottom > y1 for left, top, right, bottom in others)


def disjoint(copies: Sequence[Copy]) -> list[list[Copy]]:
    """The copies in their order, in as few runs as keep those apart of which one is blended into another's margin."""
    runs: list[list[Copy]] = [[]]
    areas: list[Box] = []
    for copied in copies:
        (height, width), (x, y) = copied.crop.pixels.shape[:2], copied.place
        if meets(area := (x, y, x + width, y + height), areas):
            runs.append([])
            areas.clear()
        runs[-1].append(copied)
        areas.append(area)
    return runs


def blend(image: np.ndarray, copies: Sequence[Copy]) -> None:
    """Write crops into `image`: whole within their boxes, fading out over the margin, of the new brightness.

    Their pixels lie behind one another here, in planes (3, N): numpy takes as long for one crop as for all of them,
    which are disjoint.
    """
    targets = []
    for copied in copies:
        (height, width), (x, y) = copied.crop.pixels.shape[:2], copied.place
        targets.append(image[y : y + height, x : x + width])
    counts = [target.shape[0] * target.shape[1] for target in targets]
    ends = np.cumsum(counts)
    starts, parts = ends - counts, [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    bytes_old, bytes_new = np.empty((2, sum(counts), 3), np.uint8)
    weight, fades = np.empty(sum(counts), np.float32), iter(ramps(copies))
    for copied, part, target in zip(copies, parts, targets, strict=True):
        bytes_old[part].reshape(target.shape)[:] = target
        bytes_new[part].reshape(target.shape)[:] = copied.crop.pixels
        np.multiply(next(fades)[:, None], next(fades), out=weight[part].reshape(target.shape[:2]))
    old, new = (np.array(pixels.T, np.float32, order="C") for pixels in (bytes_old, bytes_new))
    edge = 1 - weight
    bands = (old - new) * edge
    sums = np.add.reduceat(np.concatenate([bands, edge[None]]), starts, axis=1, dtype=np.float64)
    shifts = sums[:3] / np.maximum(sums[3], 1e-6)
    new += shifts.astype(np.float32).repeat(counts, axis=1)
    new *= weight
    old *= edge
    new += old
    mixed = np.minimum(np.maximum(new, 0, out=new), 255, out=new).astype(np.uint8).T
    for part, target in zip(parts, targets, strict=True):
        target[:] = mixed[part].reshape(target.shape)


def ramps(copies: Sequence[Copy]) -> list[np.ndarray]:
    """Of each crop, along its height and along its width: 1 at pixels within the box, falling linearly to the ends."""
    lengths, starts, ends = list[int](), list[float](), list[float]()
    for copied in copies:
        (height, width), (x1, y1, x2, y2) = copied.crop.pixels.shape[:2], copied.crop.box
        lengths += [height, width]
        starts += [max(y1, 0.5), max(x1, 0.5)]
        ends += [max(height - y2, 0.5), max(width - x2, 0.5)]
    centres = np.concatenate([centres_of(length) for length in lengths])
    rise = centres / np.repeat(starts, lengths)
    fall = (np.repeat(lengths, lengths) - centres) / np.repeat(ends, lengths)
    every, place = np.minimum(np.minimum(rise, fall), 1.0).astype(np.float32), np.cumsum(lengths).tolist()
    return [every[end - length : end] for end, length in zip(place, lengths, strict=True)]


@lru_cache
def centres_of(length: int) -> np.ndarray:
    """(length,) the middles of so many pixels."""
    return np.arange(length) + 0.5
