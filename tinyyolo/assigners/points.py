"""Which point of an anchor-free head learns which object. Its anchors are cells: squares of a stride around points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import NEGATIVE
from tinyyolo.assigners.base import CHUNK, Assigner, enter_last, most_similar
from tinyyolo.boxes.coders import side_distances
from tinyyolo.boxes.convert import areas, centres, sides
from tinyyolo.config import above, within

Ranges = Sequence[Sequence[float]]
MIN_SIDE = 1e-6  # px, of an object that a distance is measured by


class PointAssigner(Assigner):
    """Base: `_assign` level by level, the points of each in slices.

    Args:
        ranges: per level the least and the largest size, px, of the objects that it takes, both of them included.

    Raises:
        ValueError: no pairs of numbers.
    """

    def __init__(self, ranges: Ranges):
        for pair in ranges:
            within(-1, float("inf"), ranges=list(pair))
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ValueError(f"ranges={list(map(list, ranges))}: expected a pair (least, largest) for each level")
        self.ranges = [(float(low), float(high)) for low, high in ranges]

    def levels(self, anchors: Tensor, sizes: Sequence[int], objects: int) -> Iterator[tuple[int, slice, Tensor]]:
        """Level, slice of the anchors and bounds (2,) of the level, so that its points times the objects fit."""
        start, step = 0, max(1, CHUNK // objects)
        for level, count in enumerate(sizes):
            for first in range(start, start + count, step):
                part = slice(first, min(first + step, start + count))
                yield level, part, anchors.new_tensor(self.ranges[level])
            start += count


class InsideAssigner(PointAssigner):
    """FCOS (Tian et al., 2019, section 3.1): a point learns the smallest object that it lies in, if its level takes it.

    A level takes an object for a point by the longest of the four distances from the point to the object's sides.

    Args:
        ranges: see `PointAssigner`.
        radius: a point must also lie within so many strides of the object's centre, by x and by y; None: anywhere in
            the object.

    Raises:
        ValueError: no pairs of numbers, or radius <= 0.

    Examples:
        >>> cells = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8]])
        >>> InsideAssigner([(-1, 64)])(cells, torch.tensor([[1.0, 0, 17, 8], [10, 2, 14, 6]])).gt_index
        tensor([ 0,  1, -1])
    """

    def __init__(self, ranges: Ranges, radius: float | None = None):
        super().__init__(ranges)
        if radius is not None:
            above(0, radius=radius)
        self.radius = radius

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        gt_index = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
        for _, part, (low, high) in self.levels(anchors, level_sizes, len(gt_boxes)):
            points = centres(anchors[part])[:, None]
            distances = side_distances(points, gt_boxes)  # (n, M, 4)
            inside = distances.amin(-1) > 0
            if self.radius is not None:
                reach = self.radius * sides(anchors[part])[:, None]
                middle = centres(gt_boxes)
                least, most = (middle - reach).maximum(gt_boxes[:, :2]), (middle + reach).minimum(gt_boxes[:, 2:])
                inside = side_distances(points, torch.cat((least, most), -1)).amin(-1) > 0
            longest = distances.amax(-1)
            size = areas(gt_boxes).masked_fill(~(inside & (longest >= low) & (longest <= high)), torch.inf)
            smallest, first = size.min(1)
            gt_index[part] = torch.where(smallest.isinf(), NEGATIVE, first)
        return gt_index


class FoveaAssigner(PointAssigner):
    """FoveaBox (Kong et al., 2020, section 3.2): the cells in the middle of an object learn it, on each of its levels.

    A level takes an object by the root of its area. In cells of the level the middle reaches from ceil(x1 + (1 - sigma)
    w / 2 - .5) to floor(x1 + (1 + sigma) w / 2 - .5), the same by y, each bound moved into the map; it is often empty
    for tiny objects. A cell in several middles learns the smallest object.

    Args:
        ranges: see `PointAssigner`.
        sigma: share of an object's sides that its middle has.

    Raises:
        ValueError: no pairs of numbers, or sigma not from 0 to 1.

    Examples:
        >>> cells = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8]])
        >>> FoveaAssigner([(1, 64)])(cells, torch.tensor([[2.0, 0, 22, 8]])).gt_index
        tensor([-1,  0, -1])
    """

    def __init__(self, ranges: Ranges, sigma: float = 0.4):
        super().__init__(ranges)
        within(0, 1, sigma=sigma)
        self.sigma = sigma

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        gt_index, size = torch.full((len(anchors),), NEGATIVE, device=anchors.device), areas(gt_boxes).sqrt()
        last = [level[-1:] for level in anchors.split(level_sizes)]  # the cell that ends a map
        for level, part, (low, high) in self.levels(anchors, level_sizes, len(gt_boxes)):
            taken = ((size >= low) & (size <= high)).nonzero()[:, 0]
            taken = taken[torch.sort(-size[taken]).indices]  # the smallest comes last and wins
            if not len(taken):
                continue
            stride = sides(last[level])
            cells, end = ((centres(x) / stride).floor() for x in (anchors[part], last[level]))
            boxes = gt_boxes[taken] / stride.repeat(1, 2)
            half = 0.5 * sides(boxes)
            first = (boxes[:, :2] + (1 - self.sigma) * half - 0.5).ceil().clamp(min=0).minimum(end)
            final = (boxes[:, :2] + (1 + self.sigma) * half - 0.5).floor().clamp(min=0).minimum(end)
            wanted = ((cells >= first[:, None]) & (cells <= final[:, None])).all(-1)  # (m, n)
            place = torch.full_like(gt_index[part], NEGATIVE)
            enter_last(place, wanted)
            gt_index[part] = torch.where(place >= 0, taken[place], NEGATIVE)
        return gt_index


class NearestAssigner(Assigner):
    """RepPoints, first stage (Yang et al., 2019, section 4.2): the point nearest to an object's centre learns it.

    Its level is log2 of the stride = (log2(w / scale) + log2(h / scale)) / 2, cut to a whole number and to the levels
    there are. Distances are in sides of the object; a point that several objects want goes to the nearest one, the
    first on ties. Which of several equally near points an object takes is the choice of `torch.topk`.

    Args:
        scale: px of an object's side per px of stride.

    Raises:
        ValueError: scale <= 0.

    Examples:
        >>> cells = torch.tensor([[-4.0, -4, 4, 4], [4, -4, 12, 4], [12, -4, 20, 4]])
        >>> NearestAssigner()(cells, torch.tensor([[6.0, 0, 14, 4], [4, 0, 6, 4]])).gt_index
        tensor([-1,  0, -1])
    """

    def __init__(self, scale: float = 4.0):
        above(0, scale=scale)
        self.scale = scale

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        strides = [float(sides(level[:1])[0, 0]) for level in anchors.split(level_sizes) if len(level)]
        known = torch.tensor(strides, device=anchors.device).log2().int()
        sizes = sides(gt_boxes).clamp(min=MIN_SIDE)
        wanted = ((sizes / self.scale).log2().sum(1) / 2).int().clamp(known.min(), known.max())
        points, middles, start = centres(anchors), centres(gt_boxes), 0
        found = []
        for stride, count in zip(known, filter(None, level_sizes), strict=True):
            objects = (wanted == stride).nonzero()[:, 0]
            for some in objects.split(max(1, CHUNK // count)):
                distance = ((points[start : start + count] - middles[some, None]) / sizes[some, None]).norm(dim=-1)
                nearest, index = distance.topk(1, dim=1, largest=False)
                found.append((start + index[:, 0], some, -nearest[:, 0]))
            start += count
        anchor, gt, value = (torch.cat(column) for column in zip(*found, strict=True))
        return most_similar(anchor, gt, value, len(anchors))[1]
