"""The anchors of a grid as rectangles of rows and columns: what makes assignment fast.

All anchors of one level and one shape have the same size and centres on a regular lattice, so those near an object are
found by rounding. No (M, N) matrix is needed, no search tree and no loop over objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import IGNORE, MAX_IOF
from tinyyolo.boxes.anchors import AnchorGrid, Size
from tinyyolo.boxes.convert import centres, scaled, sides
from tinyyolo.boxes.falloff import SLACK
from tinyyolo.boxes.similarity import aligned_iof

PAIRS = 1 << 16  # pairs of box and anchor in work at once, some 200 bytes each
BOXES = 1024  # boxes in work at once


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
    factor: float | None  # by which each box is then scaled around its centre

    def scaled(self, factor: float) -> Lattice:
        """The same anchors, which all keep their places, with sides `factor` times as long."""
        return replace(self, half=self.half * factor, factor=factor)


@lru_cache(maxsize=16)
def lattice_of(
    grid: AnchorGrid, size_hw: Size, maps: tuple[Size, ...], inside_only: bool, device: torch.device
) -> Lattice:
    """The lattice of a grid; kept for the last few image sizes, as it is small and asked for in every step."""
    sizes = grid.level_sizes(size_hw, maps)
    levels = [(sum(sizes[:i]), *maps[i], n) for i, n in enumerate(grid.per_cell)]
    low, high = grid.ranges(size_hw, maps, inside_only)
    base = torch.cat(grid.base_boxes)
    wide = base.double()
    tensors = {
        "base": base,
        "stride": torch.tensor(grid.strides).float().repeat_interleave(torch.tensor(grid.per_cell)),
        "origin": centres(wide).T,
        "half": (sides(wide) / 2).T,
        "low": low.double(),
        "high": high.double(),
        "first": torch.tensor([s + box for s, _, _, n in levels for box in range(n)]),
        "step": torch.tensor([(n, n * columns) for _, _, columns, n in levels for _ in range(n)]).T,
    }
    tensors = {name: value.contiguous().to(device) for name, value in tensors.items()}
    active = int((high - low + 1).clamp(min=0).prod(0).sum())
    return Lattice(**tensors, levels=levels, total=sum(sizes), active=active, factor=None)


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


def ignore_covered(gt_index: Tensor, lattice: Lattice, regions: Tensor) -> None:
    """Set anchors of one image's gt_index (N,) to IGNORE that have more than MAX_IOF of their area in one of the (K, 4)
    regions, unless they are positive.
    """
    for part in regions.split(BOXES):
        corners = part.double().T.view(2, 2, -1, 1)  # (low and high corner, axis, region, 1)
        # So much of its area inside needs, on each axis alone, a centre at least this far inside the region.
        margin = (2 * MAX_IOF - 1) * lattice.half[:, None]
        margin = margin - SLACK * (corners.abs().amax() + lattice.half.amax())
        low = (corners[0] + margin - lattice.origin[:, None]) / lattice.stride
        high = (corners[1] - margin - lattice.origin[:, None]) / lattice.stride
        for rows, row, anchor, boxes, _ in cells_between(lattice, low, high):
            anchor = anchor[aligned_iof(boxes, part[rows][row]) > MAX_IOF]
            gt_index[anchor[gt_index[anchor] < 0]] = IGNORE


def cells_between(
    lattice: Lattice, low: Tensor, high: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
    """All anchors whose column and row lie between bounds (2, m, G) that need not be whole; NaN or low > high: none.

    Goes through slices of the m rows that hold at most PAIRS anchors, or one row. Yields the slice, and of its P
    anchors the row, counted from the slice's start; the index; the box (P, 4); and per row the place of its first.
    """
    low, high = low.ceil().maximum(lattice.low[:, None]), high.floor().minimum(lattice.high[:, None])
    extent = (high - low + 1).clamp(min=0).nan_to_num(0)
    cells = extent.prod(0).long()
    sums = cells.sum(1)
    shape = torch.cat((lattice.base, lattice.stride[:, None]), 1)
    for rows in _batches(sums.cumsum(0).tolist()):
        count = cells[rows].flatten()
        filled = count.nonzero()[:, 0]
        count, group = count[filled], filled % len(shape)
        left, top = low[:, rows].flatten(1)[:, filled].long()
        width = extent[0, rows].flatten()[filled].long()
        # One gather of whole records costs less than one of each number.
        cell = (filled // len(shape), group, width, left, top, count.cumsum(0) - count, lattice.first[group])
        record = torch.stack((*cell, *lattice.step[:, group]), 1)
        row, group, width, left, top, start, first, right, down = record.repeat_interleave(count, 0).unbind(1)
        place = torch.arange(len(row), device=row.device) - start
        line = place // width
        column, line = left + place - line * width, top + line
        base = shape[group]
        boxes = base[:, :4] + torch.stack((column, line, column, line), 1).float() * base[:, 4:]
        if lattice.factor is not None:
            boxes = scaled(boxes, lattice.factor)
        yield rows, row, first + column * right + line * down, boxes, sums[rows].cumsum(0) - sums[rows]


def _batches(ends: Sequence[int]) -> Iterator[slice]:
    """Runs of rows that hold at most PAIRS cells, or one row."""
    start, before = 0, 0
    for row, end in enumerate(ends):
        if end - before > PAIRS and row > start:
            yield slice(start, row)
            start, before = row, ends[row - 1]
    if ends and ends[-1] > before:
        yield slice(start, len(ends))
