"""Overlaps among very many boxes: time and memory grow with the pairs that do overlap, not with all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyyolo.boxes.convert import sides
from tinyyolo.boxes.graph import for_onnx, places, repeated, rows
from tinyyolo.boxes.similarity import measure

IOU = measure("iou")
PAIRS = 1 << 18  # pairs looked at at once, which bounds the memory
FIRST = 1 << 16  # boxes decided at once, by falling score
ROW = 16.0  # px, height of the rows that boxes are hung into: about that of a tiny object


def overlapping(
    boxes: Tensor, others: Tensor, groups: Tensor, other_groups: Tensor, least: float, itself: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs of a group that overlap by more than `least`: rows of `boxes` and of `others`, some at a time.

    IoU over t asks for an overlap of t times either side, so what overlaps a box of width w at x begins within
    [x - (1 / t - 1) w, x + (1 - t) w], and so with heights: `others` are hung into rows by their top and sorted by
    their left edge there, and each box searches that stretch of its rows, neighbours one after the other, whose
    stretches lie near each other in memory. The IoU is float32, as torchvision's.

    Args:
        boxes: (N, 4) float32 xyxy px, finite.
        others: (M, 4) the same.
        groups, other_groups: (N,), (M,) int64 from 0.
        least: bound of the IoU, over 0.
        itself: `others` are `boxes`, of which two are wanted in one order at least: see `among`.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 1, 4, 5], [50, 0, 54, 4]])
        >>> [(i, j)] = overlapping(boxes[:1], boxes, torch.tensor([0]), torch.tensor([0, 0, 0]), 0.5)
        >>> i.tolist(), j.tolist()
        ([0, 0], [0, 1])
    """
    if not for_onnx() and not (len(boxes) and len(others)):
        return
    line = Line.of(others, other_groups)
    key, order = line.place(others, other_groups).sort(dim=0)
    if itself:
        turn = order
    elif for_onnx():
        turn = torch.arange(boxes.shape[0])
    else:
        turn = line.place(boxes, groups).argsort()
    at, begin, end = line.stretches(rows(boxes, turn), rows(groups, turn), least, onward=itself)
    box, first = rows(turn, at), places(key, begin)
    found = (places(key, end, right=True) - first).clamp(min=0)
    if for_onnx():
        yield near_pairs(boxes, others, box, order, *ramps(first, found), least)
        return
    if itself:
        own = (first <= at) & (at < first + found)  # its row: nobody before it there, nor itself
        first, found = torch.where(own, at + 1, first), torch.where(own, first + found - at - 1, found)
    ends = found.cumsum(0)
    start = 0
    while start < len(box):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, done + PAIRS, right=True)))
        yield near_pairs(boxes, others, box[start:stop], order, *ramps(first[start:stop], found[start:stop]), least)
        start = stop


def among(boxes: Tensor, groups: Tensor, least: float) -> Iterator[tuple[Tensor, Tensor]]:
    """`overlapping` of some boxes with each other: rows i < j, some pairs at a time, each once or twice.

    Of two boxes one begins further left, or where the other does, and finds it: half of the way is saved.

    Examples:
        >>> boxes = torch.tensor([[1.0, 0, 5, 4], [0, 0, 4, 4], [50, 0, 54, 4]])
        >>> [[x.tolist() for x in pair] for pair in among(boxes, torch.tensor([0, 0, 0]), 0.5)]
        [[[0], [1]]]
    """
    for pair in overlapping(boxes, boxes, groups, groups, least, itself=True):
        i, j = torch.stack(pair).sort(dim=0).values
        yield i, j


class Line(NamedTuple):
    """All rows of all groups, one after the other and each as long as the widest, on which boxes have a place.

    Attributes:
        west, north: () float32, where rows begin, px, and which is the first of a group.
        step, lines: () int64, places of a row and rows of a group.
        whole: type of places.
    """

    west: Tensor
    north: Tensor
    step: Tensor
    lines: Tensor
    whole: torch.dtype

    @classmethod
    def of(cls, boxes: Tensor, groups: Tensor) -> Line:
        """On which these boxes (N, 4), of `groups` (N,), have a place."""
        (west, east), (north, south) = (extent(cells) for cells in cells_of(boxes))
        step, lines = (east - west).long() + 2, (south - north).long() + 1
        return cls(west, north, step, lines, line_type(groups, lines * step))

    def place(self, boxes: Tensor, groups: Tensor) -> Tensor:
        """(N,) where the left upper corners of boxes are; an order at least, where they are beyond the rows."""
        left, top = cells_of(boxes)
        row = groups.to(self.whole) * self.lines.to(self.whole) + (top - self.north).to(self.whole)
        return row * self.step.to(self.whole) + (left - self.west).to(self.whole)

    def stretches(self, boxes: Tensor, groups: Tensor, least: float, onward: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Which box, first and last place (P,) of each stretch where what overlaps it by `least` has its corner.

        `onward`: only what does not begin further left: whichever of two begins there finds the other.
        """
        corner, size = boxes[:, :2].double(), sides(boxes).double()
        edge = corner - torch.stack([self.west, self.north * ROW]).double()
        slack = 1e-6 * (corner.abs() + size) + 1e-3  # against the rounding of float32 boxes
        before, after = edge - (1 / least - 1) * size - slack, edge + (1 - least) * size + slack
        if onward:
            before[:, 0] = edge[:, 0]
        first_row = (before[:, 1] / ROW).floor().long().clamp(min=0).minimum(self.lines)
        last_row = (after[:, 1] / ROW).floor().long().clamp(min=-1).minimum(self.lines - 1)
        at, row = ramps(first_row, (last_row - first_row + 1).clamp(min=0))
        base = (rows(groups, at) * self.lines + row) * self.step
        begin = before[:, 0].floor().long().clamp(min=0).minimum(self.step - 1)
        end = after[:, 0].floor().long().clamp(min=-1).minimum(self.step - 2)
        return at, (base + rows(begin, at)).to(self.whole), (base + rows(end, at)).to(self.whole)


def cells_of(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the pixel that boxes begin in, and the row: whole, as what a float32 is rounded down to is exact."""
    return boxes[:, 0].floor(), (boxes[:, 1] / ROW).floor()


def extent(cells: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the most of (N,) whole numbers; in a graph, which may have none, 0 is one of them."""
    cells = F.pad(cells, (0, 1)) if for_onnx() else cells
    return cells.amin(0), cells.amax(0)


def line_type(groups: Tensor, places: Tensor) -> torch.dtype:
    """Of whole numbers for all `groups` (N,) of so many places each: a quarter of the time to sort where 32 bits do."""
    if for_onnx():
        return torch.int64
    return torch.int32 if (int(groups.max()) + 1) * int(places) < 1 << 31 else torch.int64


def near_pairs(
    boxes: Tensor, others: Tensor, box: Tensor, order: Tensor, which: Tensor, place: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """Of the pairs of box[which] and order[place] those of an IoU over `least`."""
    i, j = rows(box, which), rows(order, place)
    near = (IOU.aligned(rows(boxes, i), rows(others, j)).double() > least).nonzero().squeeze(1)
    return rows(i, near), rows(j, near)


def ramps(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """For each row i of `first` the numbers first[i], first[i] + 1, ... `count[i]` of them: i and the number.

    Examples:
        >>> [x.tolist() for x in ramps(torch.tensor([5, 9]), torch.tensor([2, 1]))]
        [[0, 0, 1], [5, 6, 9]]
    """
    which = repeated(count)
    return which, torch.arange(which.shape[0], device=count.device) - rows(count.cumsum(0) - count - first, which)


def survive(boxes: Tensor, groups: Tensor, iou: float) -> Tensor:
    """(N,) bool: which boxes, given by falling score, survive greedy suppression among those of their group.

    The best `FIRST` are decided, then the next, which those kept so far may suppress: as one NMS over all.

    Examples:
        >>> survive(torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4]]), torch.tensor([0, 0, 1]), 0.5).tolist()
        [True, False, True]
    """
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for part in torch.arange(len(boxes), device=boxes.device).split(FIRST):
        kept = keep.nonzero().squeeze(1)
        free = torch.ones(len(part), dtype=torch.bool, device=boxes.device)
        for _, j in overlapping(boxes[kept], boxes[part], groups[kept], groups[part], iou):
            free[j] = False
        part = part[free]
        keep[part] = _decide(boxes[part], groups[part], iou)
    return keep


def _decide(boxes: Tensor, groups: Tensor, iou: float) -> Tensor:
    """`survive` at once: in each round all boxes are kept that no better undecided one overlaps."""
    keep = torch.ones(len(groups), dtype=torch.bool, device=boxes.device)
    found = [*among(boxes, groups, iou)]
    if not found:
        return keep
    better, worse = (torch.cat(column) for column in zip(*found, strict=True))
    while len(better):
        waits = torch.zeros_like(keep)
        waits[worse] = True
        winner = ~waits[better]
        gone = torch.zeros_like(keep)
        gone[worse[winner]] = True
        keep &= ~gone
        left = ~(winner | gone[better] | gone[worse])
        better, worse = better[left], worse[left]
    return keep
