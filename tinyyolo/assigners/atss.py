"""ATSS: a threshold of its own for every object."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyyolo.assigners.base import CHUNK, Assigner, most_similar
from tinyyolo.boxes.coders import side_distances
from tinyyolo.boxes.convert import centres
from tinyyolo.boxes.similarity import aligned_iou
from tinyyolo.config import whole

MIN_MARGIN = 0.01  # px that an anchor's centre must lie inside the object


class ATSSAssigner(Assigner):
    """Adaptive training sample selection (Zhang et al. 2020), as in the paper's Table 4.

    Per object the topk anchors of each level with the nearest centres are candidates; those with IoU >= mean + standard
    deviation (unbiased) of the candidates' IoU, and a centre inside the object by more than .01 px, are positive. An
    anchor that several objects want goes to the one of highest IoU, the first on ties. All others are negative.

    Anchors of one cell lie equally near, and which of them `torch.topk` takes first is torch's choice: the result is
    the official code's on the same device and torch version, and may differ in such ties on another.

    Args:
        topk: candidates per level.

    Raises:
        ValueError: topk no whole number of at least 1.

    Examples:
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [40, 0, 48, 8], [44, 0, 52, 8]])
        >>> ATSSAssigner()(anchors, torch.tensor([[1.0, 0, 9, 8]])).gt_index
        tensor([ 0, -1, -1, -1])
    """

    def __init__(self, topk: int = 9):
        whole(1, topk=topk)
        self.topk = topk

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        candidates = self._candidates(anchors, gt_boxes, level_sizes)
        overlaps = aligned_iou(anchors[candidates], gt_boxes)
        # One candidate has no deviation; torch would answer NaN and the object would stay without anchors.
        good = overlaps >= overlaps.mean(0) + overlaps.std(0, correction=min(1, len(overlaps) - 1))
        margins = side_distances(centres(anchors)[candidates], gt_boxes)
        row, column = (good & (margins.amin(-1) > MIN_MARGIN)).nonzero(as_tuple=True)
        _, first = most_similar(candidates[row, column], column, overlaps[row, column], len(anchors))
        return first

    def _candidates(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        """(L * topk, M) int64, indices of the nearest anchors."""
        points = centres(anchors)
        starts = [sum(level_sizes[:i]) for i in range(len(level_sizes))]
        parts = []
        for some in centres(gt_boxes).split(max(1, CHUNK // len(anchors))):
            distances = (points[:, None] - some).pow(2).sum(-1).sqrt()
            levels = [
                distances[start : start + n].topk(min(self.topk, n), dim=0, largest=False).indices + start
                for start, n in zip(starts, level_sizes, strict=True)
            ]
            parts.append(torch.cat(levels))
        return torch.cat(parts, 1)
