"""Overlaps among very many boxes: time and memory grow with the pairs that do overlap, not with all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tinyyolo.boxes.convert import sides
from tinyyolo.boxes.similarity import measure

IOU = measure("iou")
PAIRS = 1 << 18  # pairs looked at at once, which bounds the memory
FIRST = 1 << 16  # boxes decided at once, by falling score
ROW = 16.0  # px, height of the rows that boxes are hung into: about that of a tiny object


def overlapping(
    boxes: Tensor, others: Tensor, groups: Tensor, other_groups: Tensor, least: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All pairs of a group that overlap by more than `least`: rows of `boxes`, rows of `others`, IoU, some at a time.

    IoU over t asks for an overlap of t times either side, so what overlaps a box of width w at x begins within
    [x - (1 / t - 1) w, x + (1 - t) w], and so with heights: `others` are hung into rows by their top and sorted by
    their left edge there, and each box searches that stretch of its rows. The IoU is float32, as torchvision's.

    Args:
        boxes: (N, 4) float32 xyxy px, finite.
        others: (M, 4) the same.
        groups, other_groups: (N,), (M,) int64 from 0.
        least: bound of the IoU, over 0.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 1, 4, 5], [50, 0, 54, 4]])
        >>> [(i, j, iou)] = overlapping(boxes[:1], boxes, torch.tensor([0]), torch.tensor([0, 0, 0]), 0.5)
        >>> i.tolist(), j.tolist(), iou.tolist()
        ([0, 0], [0, 1], [1.0, 0.6000000238418579])
    """
    if not len(boxes) or not len(others):
        return
    low = torch.cat([boxes, others])[:, :2].amin(0).double()
    left, top = (others[:, :2].double() - low).unbind(1)
    rows = int(top.max() / ROW) + 1
    step = 2 * float(left.max()) + 2  # of the line that all rows of all groups are laid on, one after the other
    key, order = ((other_groups * rows + (top / ROW).long()).double() * step + left).sort()
    edge, size = boxes[:, :2].double() - low, sides(boxes).double()
    slack = 1e-6 * (edge.abs() + size) + 1e-3  # against the rounding of float32 boxes
    before, after = edge - (1 / least - 1) * size - slack, edge + (1 - least) * size + slack
    first_row = (before[:, 1] / ROW).floor().long().clamp(0, rows)
    count = ((after[:, 1] / ROW).floor().long().clamp(-1, rows - 1) - first_row + 1).clamp(min=0)
    box, row = ramps(first_row, count)
    base = (groups[box] * rows + row).double() * step
    first = torch.searchsorted(key, base + before[box, 0].clamp(0, step))
    found = (torch.searchsorted(key, base + after[box, 0].clamp(-1, step / 2), right=True) - first).clamp(min=0)
    ends = found.cumsum(0)
    start = 0
    while start < len(box):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, done + PAIRS, right=True)))
        which, place = ramps(first[start:stop], found[start:stop])
        i, j = box[start:stop][which], order[place]
        iou = IOU.aligned(boxes[i], others[j])
        near = iou.double() > least
        yield i[near], j[near], iou[near]
        start = stop


def ramps(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """For each row i of `first` the numbers first[i], first[i] + 1, ... `count[i]` of them: i and the number.

    Examples:
        >>> [x.tolist() for x in ramps(torch.tensor([5, 9]), torch.tensor([2, 1]))]
        [[0, 0, 1], [5, 6, 9]]
    """
    which = torch.repeat_interleave(count)
    return which, torch.arange(len(which), device=count.device) - (count.cumsum(0) - count - first)[which]


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
        for _, j, _ in overlapping(boxes[kept], boxes[part], groups[kept], groups[part], iou):
            free[j] = False
        part = part[free]
        keep[part] = _decide(boxes[part], groups[part], iou)
    return keep


def _decide(boxes: Tensor, groups: Tensor, iou: float) -> Tensor:
    """`survive` at once: in each round all boxes are kept that no better undecided one overlaps."""
    keep = torch.ones(len(groups), dtype=torch.bool, device=boxes.device)
    found = [(i[i < j], j[i < j]) for i, j, _ in overlapping(boxes, boxes, groups, groups, iou)]
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
