"""Nearest anchors in closed form: what makes ranking fast.

NWD and DotD fall with the Euclidean distance in (cx, cy, w / 2, h / 2), see Eq. 6 of the paper. All anchors of one
level and one shape have the same size and centres on a regular lattice, so the nearest of them are known by rounding,
and those within a radius are a rectangle of rows and columns. No (M, N) matrix and no search tree is needed.

The search runs in float64 and a little too wide; the float32 similarity of the few pairs found then decides, so that
the answer equals the dense one bit by bit, ties included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import IGNORE, MAX_IOF
from tinyyolo.boxes.anchors import AnchorGrid, Size
from tinyyolo.boxes.similarity import EPS, aligned_iof

PAIRS = 1 << 16  # pairs of object and anchor in work at once, some 150 bytes each
TABLE = 1 << 18  # distances in work at once while the k-th is sought
OBJECTS = 1024  # objects in work at once
# Rounding of a float32 similarity, turned into px: at most some 8 units in the last place of the numbers that enter it,
# for both sides of a comparison.
SLACK = 16 * torch.finfo(torch.float32).eps
# W2 / C. Beyond it exp leaves float32's normal range, its steps grow without bound, and all anchors are looked at.
DEEPEST = 80.0


@dataclass(frozen=True)
class Lattice:
    """The anchors of a grid as G index rectangles, one per level and box of the cell. Axis 0 is x, axis 1 is y."""

    base: Tensor  # (G, 4) float32 xyxy, box of cell (0, 0)
    stride: Tensor  # (G,) float32
    origin: Tensor  # (2, G) float64, centre of cell (0, 0)
    half: Tensor  # (2, G) float64, half width and half height
    low: Tensor  # (2, G) float64, first column and row that take part
    high: Tensor  # (2, G) float64, last ones; high < low: none
    first: Tensor  # (G,) int64, index of the anchor in cell (0, 0)
    step: Tensor  # (2, G) int64, from an anchor's index to the next column's and row's
    levels: list[tuple[int, int, int, int]]  # start, rows, columns, boxes per cell
    total: int  # N, all anchors
    active: int  # anchors that take part


class Pairs(NamedTuple):
    """P pairs of object and anchor, object by object."""

    gt: Tensor  # (P,) int64
    anchor: Tensor  # (P,) int64
    value: Tensor  # (P,) float32, similarity


def lattice_of(
    grid: AnchorGrid,
    size_hw: Size,
    map_sizes: Sequence[Size] | None,
    inside_only: bool,
    device: torch.device,
) -> Lattice:
    """The lattice of a grid; kept for the last few image sizes, as it is small and asked for in every step."""
    maps = tuple(grid.map_sizes(size_hw, map_sizes))
    return _lattice(grid, tuple(size_hw), maps, bool(inside_only), device)


@lru_cache(maxsize=16)
def _lattice(
    grid: AnchorGrid, size_hw: Size, maps: tuple[Size, ...], inside_only: bool, device: torch.device
) -> Lattice:
    base = torch.cat(grid.base_boxes)
    starts, start = [], 0
    for (rows, columns), count in zip(maps, grid.per_cell, strict=True):
        starts.append(start)
        start += rows * columns * count
    levels = [(s, rows, columns, n) for s, (rows, columns), n in zip(starts, maps, grid.per_cell, strict=True)]
    low, high = grid.ranges(size_hw, maps, inside_only)
    wide = base.double()
    tensors = {
        "base": base,
        "stride": torch.tensor([s for s, n in zip(grid.strides, grid.per_cell, strict=True) for _ in range(n)]).float(),
        "origin": ((wide[:, :2] + wide[:, 2:]) / 2).T,
        "half": ((wide[:, 2:] - wide[:, :2]) / 2).T,
        "low": low.double(),
        "high": high.double(),
        "first": torch.tensor([s + box for s, _, _, n in levels for box in range(n)]),
        "step": torch.tensor([(n, n * columns) for _, _, columns, n in levels for _ in range(n)]).T,
    }
    tensors = {name: value.contiguous().to(device) for name, value in tensors.items()}
    active = int((high - low + 1).clamp(min=0).prod(0).sum())
    return Lattice(**tensors, levels=levels, total=start, active=active)


def ignore_outside(gt_index: Tensor, lattice: Lattice) -> None:
    """Set the anchors of a fresh (B, N) gt_index that take no part to IGNORE: strips along the border, no more work."""
    groups = zip(lattice.low.long().T.tolist(), lattice.high.long().T.tolist(), strict=True)
    for start, rows, columns, count in lattice.levels:
        level = gt_index[:, start : start + rows * columns * count].view(-1, rows, columns, count)
        for box in range(count):
            (left, top), (right, bottom) = next(groups)
            level[:, :top, :, box] = IGNORE
            level[:, bottom + 1 :, :, box] = IGNORE
            level[:, :, :left, box] = IGNORE
            level[:, :, right + 1 :, box] = IGNORE


class Search:
    """Pairs of object and anchor that lie near each other, in all images of a batch at once.

    Objects count through the batch, and so do anchors: that of image b is b * N + its index.

    Args:
        lattice: the anchors of each image.
        gt_boxes: per image (M, 4) float32 xyxy, px; at least one object in all.
        aligned: float32 similarity of objects (P, 4) with anchors (P, 4).
        constant: C, px.
        size_weight: weight of the size term in the squared distance, 1 for NWD and 0 for DotD.

    Attributes:
        number: (objects,) int64, the index of each object in its own image.
    """

    def __init__(
        self,
        lattice: Lattice,
        gt_boxes: Sequence[Tensor],
        aligned: Callable[[Tensor, Tensor], Tensor],
        constant: float,
        size_weight: float,
    ):
        self.lattice, self.aligned, self.constant, self.size_weight = lattice, aligned, constant, size_weight
        self.gt_boxes = torch.cat(list(gt_boxes))
        counts = [len(boxes) for boxes in gt_boxes]
        self.number = torch.cat([torch.arange(n, device=self.gt_boxes.device) for n in counts])
        self.image_start = torch.cat([self.number.new_full((n,), b * lattice.total) for b, n in enumerate(counts)])
        wide = self.gt_boxes.double()
        self.centre = ((wide[:, :2] + wide[:, 2:]) / 2).T
        self.half = ((wide[:, 2:] - wide[:, :2]) / 2).T
        reach = lattice.origin + lattice.high * lattice.stride + lattice.half
        self.extent = float(torch.cat((reach.abs().flatten(), wide.abs().flatten())).amax())  # px, largest coordinate

    def nearest(self, k: int, objects: Tensor | None = None) -> Iterator[Pairs]:
        """Pairs whose similarity is at least the object's k-th best, ties included; k is at most lattice.active.

        `objects` (m,), rising, picks some of them; all if None.
        """
        for part in self._parts(objects, min(k, len(self.lattice.stride)) * k * k):
            place, size = self._place(part)
            if k * k < self.lattice.active:
                distance = (self._kth_square(place, size, k) + EPS).sqrt()
                slack = SLACK * (self.extent + distance + self.constant)
                square = ((distance + slack) ** 2 - EPS).masked_fill(distance > DEEPEST * self.constant, math.inf)
            else:
                square = size.new_full((len(size),), math.inf)
            for row, pairs, starts in self._within(part, place, size, square):
                yield _at_least_kth(row, pairs, starts, k)

    def ranked(self, objects: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each of `objects` (m,) in turn: the object, and its k nearest anchors or more, the most similar first."""
        for gt, anchor, value in self.nearest(k, objects):
            order = anchor.argsort()
            order = order[value[order].argsort(descending=True, stable=True)]
            order = order[gt[order].argsort(stable=True)]
            some, counts = gt.unique_consecutive(return_counts=True)
            yield from zip(some, anchor[order].split(counts.tolist()), strict=True)

    def above(self, bound: float) -> Iterator[Pairs]:
        """Pairs whose similarity is at least `bound`."""
        if bound > 1:
            return
        radius = math.inf if bound <= 0 else -self.constant * math.log(bound)
        radius += SLACK * (self.extent + radius + self.constant)
        square = math.inf if radius > DEEPEST * self.constant else radius**2
        for part in self._parts(None, 1):
            place, size = self._place(part)
            for _, pairs, _ in self._within(part, place, size, size.new_full((len(size),), square)):
                hit = pairs.value >= bound
                yield Pairs(pairs.gt[hit], pairs.anchor[hit], pairs.value[hit])

    def _parts(self, objects: Tensor | None, table: int) -> Iterator[Tensor]:
        if objects is None:
            objects = torch.arange(len(self.gt_boxes), device=self.gt_boxes.device)
        yield from objects.split(max(1, min(OBJECTS, TABLE // table)))

    def _place(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Objects in lattice coordinates (2, m, G), and their squared size distance (m, G)."""
        place = (self.centre[:, part, None] - self.lattice.origin[:, None]) / self.lattice.stride
        size = (self.half[:, part, None] - self.lattice.half[:, None]).square().sum(0) * self.size_weight
        return place, size

    def _kth_square(self, place: Tensor, size: Tensor, k: int) -> Tensor:
        """(m,) squared distance of the k-th nearest anchor.

        The k nearest lie in the k lattices whose own nearest is nearest, and there in the k nearest columns and rows.
        """
        low, high = self.lattice.low[:, None], self.lattice.high[:, None]
        off = (place - place.round().clamp(low, high)) * self.lattice.stride
        closest = (off.square().sum(0) + size).masked_fill((high < low).any(0), torch.inf)
        chosen = closest.topk(min(k, closest.shape[1]), dim=1, largest=False).indices
        both = chosen.expand(2, -1, -1)
        place, size = place.gather(2, both), size.gather(1, chosen)
        low, high = (edge.expand(2, len(size), -1).gather(2, both)[..., None] for edge in (low, high))
        start = (place[..., None] - (k - 1) / 2).round().minimum(high - (k - 1)).maximum(low)
        index = start + torch.arange(k, device=start.device)
        square = ((place[..., None] - index) * self.lattice.stride[chosen][..., None]).square()
        square = square.masked_fill(index > high, torch.inf)
        table = size[..., None, None] + square[0][..., :, None] + square[1][..., None, :]
        return table.flatten(1).kthvalue(k, dim=1).values

    def _within(
        self, part: Tensor, place: Tensor, size: Tensor, square: Tensor
    ) -> Iterator[tuple[Tensor, Pairs, Tensor]]:
        """Pairs within the squared distance (m,) of their object, and a few beyond, whole objects at a time.

        Yields the row of each pair, from 0 on; the pairs; and for each row the place of its first pair.
        """
        left = square[:, None] - size
        reach = left.clamp(min=0).sqrt() / self.lattice.stride
        low = (place - reach).ceil().maximum(self.lattice.low[:, None])
        high = (place + reach).floor().minimum(self.lattice.high[:, None])
        extent = (high - low + 1).clamp(min=0).masked_fill(left < 0, 0)
        for rows, row, anchor, boxes, starts in expand(self.lattice, low, extent):
            gt = part[rows][row]
            value = self.aligned(self.gt_boxes[gt], boxes)
            yield row, Pairs(gt, anchor + self.image_start[gt], value), starts


def covered_cells(lattice: Lattice, regions: Tensor) -> Iterator[Tensor]:
    """Anchors (P,) with more than MAX_IOF of their area in one of the (K, 4) regions."""
    for part in regions.split(OBJECTS):
        corners = part.double().T.view(2, 2, -1, 1)  # (low and high corner, axis, region, 1)
        # So much overlap needs, on each axis alone, a centre at least this far inside the region.
        margin = (2 * MAX_IOF - 1) * lattice.half[:, None]
        slack = SLACK * (corners.abs().amax() + lattice.half.amax())
        low = (corners[0] + margin - slack - lattice.origin[:, None]) / lattice.stride
        high = (corners[1] - margin + slack - lattice.origin[:, None]) / lattice.stride
        low, high = low.ceil().maximum(lattice.low[:, None]), high.floor().minimum(lattice.high[:, None])
        for rows, row, anchor, boxes, _ in expand(lattice, low, (high - low + 1).clamp(min=0)):
            yield anchor[aligned_iof(boxes, part[rows][row]) > MAX_IOF]


def expand(lattice: Lattice, low: Tensor, extent: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
    """Every cell of rectangles of columns and rows, given by first cell and extent, (2, m, G) each.

    Goes through slices of the m rows that hold at most PAIRS cells, or one row. Yields the slice, and of all its P
    cells the row, counted from the slice's start; the anchor's index; its box (P, 4); and for each row the place of its
    first cell.
    """
    cells = extent.prod(0).long()
    sums = cells.sum(1)
    for rows in _batches(sums.cumsum(0).tolist()):
        count, corner, width = cells[rows].flatten(), low[:, rows].flatten(1), extent[0, rows].flatten()
        filled = count.nonzero()[:, 0]
        count, corner, width = count[filled], corner[:, filled].long(), width[filled].long()
        entry = torch.repeat_interleave(count)
        row, group = filled[entry] // len(lattice.stride), filled[entry] % len(lattice.stride)
        local = torch.arange(len(entry), device=entry.device) - (count.cumsum(0) - count)[entry]
        down = local // width[entry]
        column, line = corner[0][entry] + local - down * width[entry], corner[1][entry] + down
        shift = torch.stack((column, line, column, line), 1).float() * lattice.stride[group][:, None]
        anchor = lattice.first[group] + column * lattice.step[0][group] + line * lattice.step[1][group]
        yield rows, row, anchor, lattice.base[group] + shift, sums[rows].cumsum(0) - sums[rows]


def _batches(ends: Sequence[int]) -> Iterator[slice]:
    """Runs of rows that hold at most PAIRS cells, or one row."""
    start, before = 0, 0
    for row, end in enumerate(ends):
        if end - before > PAIRS and row > start:
            yield slice(start, row)
            start, before = row, ends[row - 1]
    if ends and ends[-1] > before:
        yield slice(start, len(ends))


def _at_least_kth(row: Tensor, pairs: Pairs, starts: Tensor, k: int) -> Pairs:
    """The pairs whose value is at least the k-th best of their object; pairs come object by object."""
    # Bits of floats >= 0 order as the floats do: one sort of (object, falling value) as whole numbers.
    key = row << 32 | (torch.iinfo(torch.int32).max - pairs.value.view(torch.int32)).long()
    hit = key <= key.sort().values[starts + (k - 1)][row]
    return Pairs(pairs.gt[hit], pairs.anchor[hit], pairs.value[hit])
