"""Overlaps among very many boxes: time and memory grow with the pairs that do overlap, not with all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tinyyolo.boxes.convert import sides
from tinyyolo.boxes.graph import for_onnx, places, repeated
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
    if not for_onnx() and not (len(boxes) and len(others)):
        return
    corners = torch.cat([boxes[:, :2], others[:, :2], others.new_zeros(1, 2)]).double()  # never none
    low, high = corners.amin(0), corners.amax(0)
    left, top = ((others[:, :2].double() - low) / others.new_tensor([1, ROW])).floor().long().unbind(1)
    most = ((high - low) / others.new_tensor([1, ROW])).floor().long()
    # All rows of all groups are laid on one line, each as long as the widest, one after the other.
    step, rows = most[0] + 2, most[1] + 1
    key, order = ((other_groups * rows + top) * step + left).sort(dim=0)
    edge, size = boxes[:, :2].double() - low, sides(boxes).double()
    slack = 1e-6 * (edge.abs() + size) + 1e-3  # against the rounding of float32 boxes
    before, after = edge - (1 / least - 1) * size - slack, edge + (1 - least) * size + slack
    first_row = (before[:, 1] / ROW).floor().long().clamp(min=0).minimum(rows)
    count = ((after[:, 1] / ROW).floor().long().clamp(min=-1).minimum(rows - 1) - first_row + 1).clamp(min=0)
    box, row = ramps(first_row, count)
    base = (groups[box] * rows + row) * step
    first = places(key, base + before[box, 0].floor().long().clamp(min=0).minimum(step - 1))
    last = base + after[box, 0].floor().long().clamp(min=-1).minimum(step - 2)
    found = (places(key, last, right=True) - first).clamp(min=0)
    if for_onnx():
        yield near_pairs(boxes, others, box, order, *ramps(first, found), least)
        return
    ends = found.cumsum(0)
    start = 0
    while start < len(box):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, done + PAIRS, right=True)))
        yield near_pairs(boxes, others, box[start:stop], order, *ramps(first[start:stop], found[start:stop]), least)
        start = stop


def near_pairs(
    boxes: Tensor, others: Tensor, box: Tensor, order: Tensor, which: Tensor, place: Tensor, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the pairs of box[which] and order[place] those of an IoU over `least`, and that."""
    i, j = box[which], order[place]
    iou = IOU.aligned(boxes[i], others[j])
    near = iou.double() > least
    return i[near], j[near], iou[near]


def ramps(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """For each row i of `first` the numbers first[i], first[i] + 1, ... `count[i]` of them: i and the number.

    Examples:
        >>> [x.tolist() for x in ramps(torch.tensor([5, 9]), torch.tensor([2, 1]))]
        [[0, 0, 1], [5, 6, 9]]
    """
    which = repeated(count)
    return which, torch.arange(which.shape[0], device=count.device) - (count.cumsum(0) - count - first)[which]


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
