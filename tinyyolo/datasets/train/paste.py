"""Copy-paste of tiny objects (Kisantal et al., "Augmentation for small object detection", 2019), rare classes first."""

from __future__ import annotations

import random
from copy import copy
from typing import Any

import cv2
import numpy as np
from ultralytics.data.augment import BaseTransform
from ultralytics.utils.instance import Instances

from tinyyolo.boxes.convert import convert

MAX_SIDE = 32.0  # px of the network input; what is larger covers what stands there already
PER_CLASS = 300  # objects of a class to copy from
MARGIN = 0.3  # of a side, over which a copy fades into its new place
LEAST_MARGIN = 2  # px
SCALES = (0.8, 1.25)
TRIES = 5  # places tried for a copy before it is left out


class PasteTiny(BaseTransform):
    """Adds copies of other training objects to an image, every class as often as any other.

    A copy is mirrored and scaled at random, put where no object is, brought to the brightness of its new surroundings
    and faded into them. Objects whose margin touches the border of their image are not copied.

    Args:
        dataset: a `TinyDataset` with its labels read.
        count: copies an image at most; the number is drawn from 0 to `count`.
    """

    def __init__(self, dataset: Any, count: int):
        self.dataset, self.count = copy(dataset), int(count)
        # Reads images past the buffer that mosaic draws from: a resumed run has other crops at hand.
        self.dataset.augment = False
        self.bank = candidates(dataset)
        self.crops: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """The sample with copies in its "img", "instances" and "cls"."""
        wanted = random.randint(0, self.count) if self.bank else 0
        if not wanted:
            return labels
        instances = labels["instances"]
        height, width = labels["img"].shape[:2]
        instances.convert_bbox("xyxy")
        instances.denormalize(width, height)
        image, taken, classes = labels["img"].copy(), [*instances.bboxes], []
        for _ in range(wanted):
            label = random.choice(list(self.bank))
            which = random.choice(self.bank[label])
            if (found := self.crop(which)) is None:
                continue  # its image is gone
            crop, inner = found
            place = free_place(crop.shape[:2], inner, np.array(taken).reshape(-1, 4), (height, width))
            if place is not None:
                blend(image, crop, inner, place)
                taken.append((inner + np.array(place * 2)).astype(np.float32))
                classes.append(label)
        if classes:
            boxes, outlines = np.stack(taken).astype(np.float32), np.zeros((0, 1000, 2), np.float32)
            labels["instances"] = Instances(boxes, outlines, bbox_format="xyxy", normalized=False)
            labels["cls"] = np.concatenate([labels["cls"], np.array(classes, np.float32).reshape(-1, 1)])
            labels["img"] = image
        return labels

    def crop(self, which: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        """Pixels (h, w, 3) of an object with its margin, mirrored and scaled at random, and its box (4,) in them."""
        if which not in self.crops:
            if (fresh := cut(self.dataset, *which)) is None:
                return None
            self.crops[which] = fresh
        stored, box = self.crops[which]
        scale = random.uniform(*SCALES)
        height, width = (max(1, round(side * scale)) for side in stored.shape[:2])
        pixels: np.ndarray = cv2.resize(stored, (width, height), interpolation=cv2.INTER_LINEAR)
        x1, y1, x2, y2 = box * np.array([width / stored.shape[1], height / stored.shape[0]] * 2)
        if random.random() < 0.5:
            pixels, x1, x2 = np.fliplr(pixels), width - x2, width - x1
        return pixels, np.array([x1, y1, x2, y2])


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


def cut(dataset: Any, i: int, j: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels of object j of image i with its margin at the network's scale, and its box in them; None if it is gone."""
    image, original, (height, width) = dataset.load_image(i)
    if min(original) < 0:
        return None
    cxcywh = dataset.labels[i]["bboxes"][j] * np.array([width, height] * 2)
    left, top, right, bottom = box = convert(cxcywh, "cxcywh", "xyxy")
    mx, my = (max(MARGIN * side, LEAST_MARGIN) for side in cxcywh[2:])
    x1, y1 = max(int(left - mx), 0), max(int(top - my), 0)
    x2, y2 = min(int(np.ceil(right + mx)), width), min(int(np.ceil(bottom + my)), height)
    return image[y1:y2, x1:x2].copy(), box - np.array([x1, y1, x1, y1])


def free_place(
    shape: tuple[int, int], inner: np.ndarray, taken: np.ndarray, size_hw: tuple[int, int]
) -> tuple[int, int] | None:
    """Corner (x, y) for a crop whose object overlaps no taken box, or None after some tries."""
    if shape[0] >= size_hw[0] or shape[1] >= size_hw[1]:
        return None
    for _ in range(TRIES):
        x, y = random.randint(0, size_hw[1] - shape[1]), random.randint(0, size_hw[0] - shape[0])
        box = inner + (x, y, x, y)
        if not ((taken[:, :2] < box[2:]) & (taken[:, 2:] > box[:2])).all(1).any():
            return x, y
    return None


def blend(image: np.ndarray, crop: np.ndarray, inner: np.ndarray, place: tuple[int, int]) -> None:
    """Write `crop` into `image` at `place`: whole within its box, fading out over the margin, of the new brightness."""
    height, width = crop.shape[:2]
    weight = np.outer(ramp(height, inner[1], inner[3]), ramp(width, inner[0], inner[2]))[..., None]
    target = image[place[1] : place[1] + height, place[0] : place[0] + width]
    edge = 1 - weight
    share = max(float(edge.sum()), 1e-6)
    shift = ((target - crop.astype(np.float32)) * edge).sum((0, 1)) / share
    target[:] = (weight * (crop + shift) + edge * target).clip(0, 255).astype(np.uint8)


def ramp(length: int, start: float, end: float) -> np.ndarray:
    """(length,) 1 at pixels between `start` and `end`, falling linearly to 0 at the ends."""
    centres = np.arange(length) + 0.5
    rise, fall = centres / max(start, 0.5), (length - centres) / max(length - end, 0.5)
    return np.minimum(1.0, np.minimum(rise, fall)).astype(np.float32)
