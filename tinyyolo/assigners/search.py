"""Pairs of object and anchor that matter, found on the lattice.

The search runs in float64 and a little too wide; the float32 similarity of the few pairs found then decides, so that
the answer equals the dense one bit by bit, ties included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tinyyolo.assigners.lattice import BOXES, Lattice, cells_between
from tinyyolo.boxes.convert import centres, sides
from tinyyolo.boxes.falloff import FALLOFFS, SLACK, Terms
from tinyyolo.boxes.similarity import measure

TABLE = 1 << 18  # distances in work at once while the k-th is sought
TOUCH = 1e-9  # an IoU that any real overlap exceeds


class Pairs(NamedTuple):
    """P pairs of object and anchor."""

    gt: Tensor  # (P,) int64
    anchor: Tensor  # (P,) int64
    value: Tensor  # (P,) float32, similarity

    def keep(self, hit: Tensor) -> Pairs:
        """Those where `hit` (P,) bool."""
        return Pairs(self.gt[hit], self.anchor[hit], self.value[hit])


def can_search(similarity: str) -> bool:
    """Whether a similarity has a search."""
    return similarity == "iou" or similarity in FALLOFFS


def search_for(similarity: str, options: Mapping[str, float], lattice: Lattice, gt_boxes: Sequence[Tensor]) -> Search:
    """The search of a similarity, in all images of a batch at once; see `Search`."""
    kind = OverlapSearch if similarity == "iou" else EllipseSearch
    return kind(lattice, gt_boxes, similarity, options)


class Search:
    """What is common: objects of a batch, and the similarity of those pairs that a subclass finds.

    Objects count through the batch, and so do anchors: that of image b is b * N + its index.

    Args:
        lattice: the anchors of each image.
        gt_boxes: per image (M, 4) float32 xyxy, px; at least one object in all.
        similarity: its name.
        options: numbers by name, as `measure` takes them.

    Attributes:
        images: `gt_boxes` as given.
        number: (objects,) int64, the index of each object in its own image.
    """

    def __init__(self, lattice: Lattice, gt_boxes: Sequence[Tensor], similarity: str, options: Mapping[str, float]):
        self.lattice, self.images = lattice, gt_boxes
        self.measure = measure(similarity, **options)
        self.gt_boxes = torch.cat(list(gt_boxes))
        counts = [len(boxes) for boxes in gt_boxes]
        self.number = torch.cat([torch.arange(n, device=self.gt_boxes.device) for n in counts])
        self.image_start = torch.cat([self.number.new_full((n,), b * lattice.total) for b, n in enumerate(counts)])
        wide = self.gt_boxes.double()
        self.centre = centres(wide).T
        self.half = (sides(wide) / 2).T
        reach = lattice.origin + lattice.high * lattice.stride + lattice.half
        self.extent = float(torch.cat((reach.abs().flatten(), wide.abs().flatten())).amax())  # px, largest coordinate

    def above(self, bound: float) -> Iterator[Pairs]:
        """Pairs whose similarity is at least `bound`, which is in [0, 1]."""
        for _, pairs, _ in self._pairs(lambda part, _: self._reach(part, bound)):
            yield pairs.keep(pairs.value >= bound)

    def best(self, least: float) -> Iterator[Pairs]:
        """Pairs whose similarity is the object's best, ties included, if that is at least `least`."""
        if least <= 0:
            yield from self.nearest(1)
            return
        for pairs in self.above(least):
            top = pairs.value.new_zeros(len(self.number)).scatter_reduce(0, pairs.gt, pairs.value, "amax")
            yield pairs.keep(pairs.value == top[pairs.gt])

    def nearest(self, k: int) -> Iterator[Pairs]:
        """Pairs whose similarity is at least the object's k-th best, ties included; k is at most lattice.active."""
        raise NotImplementedError

    def joined(self, parts: Iterable[Pairs]) -> Pairs:
        """All pairs in one; there may be none."""
        none = Pairs(self.number[:0], self.number[:0], self.gt_boxes[:0, 0])
        return Pairs(*(torch.cat(columns) for columns in zip(none, *parts, strict=True)))

    def enter_last(self, found: Tensor, pairs: Pairs) -> None:
        """Give each anchor, in the flat `found` (B * N,), to the last of the objects that want it, or that have it."""
        found.scatter_reduce_(0, pairs.anchor, self.number[pairs.gt], "amax")

    def _reach(self, part: Tensor, bound: float) -> Tensor:
        """(2, m, G), cells between the centres on each axis beyond which the similarity to the objects `part` (m,) is
        below `bound`; NaN: nowhere near it.
        """
        raise NotImplementedError

    def _pairs(
        self, reach_of: Callable[[Tensor, Tensor], Tensor], objects: Tensor | None = None, table: int = 1
    ) -> Iterator[tuple[Tensor, Pairs, Tensor]]:
        """Pairs of objects with the anchors within reach, whole objects at a time.

        `reach_of` gives it as `_reach` does, from objects (m,) and their places (2, m, G) on the lattice, so many at a
        time that TABLE numbers are at work of `table` for each. Yields the row of each pair, from 0 on; the pairs; and
        for each row the place of its first pair.
        """
        lattice = self.lattice
        objects = torch.arange(len(self.number), device=self.number.device) if objects is None else objects
        for part in objects.split(max(1, min(BOXES, TABLE // table))):
            place = (self.centre[:, part, None] - lattice.origin[:, None]) / lattice.stride
            reach = reach_of(part, place)
            for rows, row, anchor, boxes, starts in cells_between(lattice, place - reach, place + reach):
                gt = part[rows][row]
                value = self.measure.aligned(self.gt_boxes[gt], boxes)
                yield row, Pairs(gt, anchor + self.image_start[gt], value), starts


class EllipseSearch(Search):
    """For similarities that have a `Falloff`: anchors of one size at one distance from an object lie on an ellipse."""

    def __init__(self, lattice: Lattice, gt_boxes: Sequence[Tensor], similarity: str, options: Mapping[str, float]):
        super().__init__(lattice, gt_boxes, similarity, options)
        self.falloff = FALLOFFS[similarity](**options)

    def best(self, least: float) -> Iterator[Pairs]:
        """See `Search`: many may be above `least`, and the nearest are found at once."""

        def reach(part: Tensor, place: Tensor) -> Tensor:
            return self._reach_of_nearest(1, part, place).minimum(self._reach(part, least))

        for row, pairs, _ in self._pairs(reach):
            top = pairs.value.new_zeros(len(self.number)).scatter_reduce(0, row, pairs.value, "amax")
            yield pairs.keep((pairs.value >= least) & (pairs.value == top[row]))

    def nearest(self, k: int, objects: Tensor | None = None) -> Iterator[Pairs]:
        """See `Search`. Pairs come object by object; `objects` (m,), rising, picks some of them, all if None."""
        table = min(k, len(self.lattice.stride)) * k * k
        for row, pairs, starts in self._pairs(partial(self._reach_of_nearest, k), objects, table):
            yield pairs.keep(_at_least_kth(row, pairs.value, starts, k))

    def ranked(self, objects: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each of `objects` (m,) in turn: the object, and its k nearest anchors or more, the most similar first."""
        for gt, anchor, value in self.nearest(k, objects):
            order = anchor.argsort()
            order = order[value[order].argsort(descending=True, stable=True)]
            order = order[gt[order].argsort(stable=True)]
            some, counts = gt.unique_consecutive(return_counts=True)
            yield from zip(some, anchor[order].split(counts.tolist()), strict=True)

    def _reach(self, part: Tensor, bound: float) -> Tensor:
        distance = math.inf if bound <= 0 else self.falloff.distance_at(bound)
        own, other, terms = self._terms(part)
        return self._within(own, other, terms, self.half.new_tensor(distance))

    def _reach_of_nearest(self, k: int, part: Tensor, place: Tensor) -> Tensor:
        own, other, terms = self._terms(part)
        if k * k >= self.lattice.active:
            return self._within(own, other, terms, self.half.new_tensor(math.inf))
        return self._within(own, other, terms, self._kth_distance(place, terms, k)[:, None])

    def _terms(self, part: Tensor) -> tuple[Tensor, Tensor, Terms]:
        """Sides of objects (2, m, 1) and of anchors (2, 1, G), px, and the terms of their distances."""
        own, other = 2 * self.half[:, part, None], 2 * self.lattice.half[:, None]
        return own, other, self.falloff.terms(own, other)

    def _within(self, own: Tensor, other: Tensor, terms: Terms, distance: Tensor) -> Tensor:
        """(2, m, G), reach of what may be no farther than a distance () or (m, 1)."""
        reach = self.falloff.reach(terms, self.falloff.loosened(distance, own, other, self.extent))
        return (reach / self.lattice.stride).expand(2, len(terms.size), -1)

    def _kth_distance(self, place: Tensor, terms: Terms, k: int) -> Tensor:
        """(m,) distance of the k-th nearest anchor.

        The k nearest lie in the k lattices whose own nearest is nearest, and there in the k nearest columns and rows.
        """
        low, high = self.lattice.low[:, None], self.lattice.high[:, None]
        off = (place - place.round().clamp(low, high)) * self.lattice.stride
        closest = self.falloff.together(terms, off.square()).masked_fill((high < low).any(0), torch.inf)
        chosen = closest.topk(min(k, closest.shape[1]), dim=1, largest=False).indices
        both = chosen.expand(2, -1, -1)
        place, weight = place.gather(2, both), terms.weight.expand(2, *terms.size.shape).gather(2, both)
        low, high = (edge.expand(2, len(place[0]), -1).gather(2, both)[..., None] for edge in (low, high))
        start = (place[..., None] - (k - 1) / 2).round().minimum(high - (k - 1)).maximum(low)
        index = start + torch.arange(k, device=start.device)
        square = ((place[..., None] - index) * self.lattice.stride[chosen][..., None]).square()
        column, row = square.masked_fill(index > high, torch.inf)
        axes = torch.stack((column[..., :, None].expand(-1, -1, k, k), row[..., None, :].expand(-1, -1, k, k)))
        found = Terms(terms.size.gather(1, chosen)[..., None, None], weight[..., None, None])
        table = self.falloff.together(found, axes)
        # Not kthvalue, which has no deterministic form on CUDA.
        return table.flatten(1).topk(k, dim=1, largest=False, sorted=False).values.amax(1)


class OverlapSearch(Search):
    """For IoU."""

    def nearest(self, k: int) -> Iterator[Pairs]:
        lacking = torch.ones_like(self.number, dtype=torch.bool)
        for _, pairs, _ in self._pairs(lambda part, _: self._reach(part, TOUCH)):
            pairs = pairs.keep(pairs.value > 0)
            counts = torch.bincount(pairs.gt, minlength=len(self.number))
            enough = counts >= k
            lacking &= ~enough
            pairs, counts = pairs.keep(enough[pairs.gt]), counts[enough]
            row = (enough.cumsum(0) - 1)[pairs.gt]
            yield pairs.keep(_at_least_kth(row, pairs.value, counts.cumsum(0) - counts, k))
        # Fewer than k overlap the object: the k-th best is 0, and every anchor is at least that.
        for _, pairs, _ in self._pairs(lambda _, place: torch.full_like(place, math.inf), lacking.nonzero()[:, 0]):
            yield pairs

    def _reach(self, part: Tensor, bound: float) -> Tensor:
        # IoU >= bound needs overlap x * overlap y >= bound * the larger area; an overlap is at most the smaller side.
        slack = SLACK * self.extent
        side, other = 2 * self.half[:, part, None], 2 * self.lattice.half[:, None]
        if bound <= 0:
            return torch.full_like(side + other, math.inf)
        least_area = (side - slack).clamp(min=0).prod(0).maximum((other - slack).clamp(min=0).prod(0))
        smaller = side.minimum(other) + slack
        need = bound * least_area / smaller.flip(0)
        reach = ((side + other) / 2 + slack - need) / self.lattice.stride
        return reach.masked_fill((need > smaller).any(0), math.nan)


def _at_least_kth(row: Tensor, value: Tensor, starts: Tensor, k: int) -> Tensor:
    """(P,) bool: the value is at least the k-th best of its row; pairs come row by row, rows begin at `starts`."""
    # Bits of floats >= 0 order as the floats do: one sort of (row, falling value) as whole numbers.
    key = row << 32 | (torch.iinfo(torch.int32).max - value.view(torch.int32)).long()
    return key <= key.sort().values[starts + (k - 1)][row]
