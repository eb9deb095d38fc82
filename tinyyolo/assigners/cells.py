"""YOLOv3's rule: the anchors of the cells that hold an object's centre answer for the objects."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import IGNORE, NEGATIVE
from tinyyolo.assigners.base import CHUNK, Assigner, chunks, enter_last
from tinyyolo.assigners.shape import spacing
from tinyyolo.boxes.convert import centres
from tinyyolo.boxes.similarity import pairwise_iou
from tinyyolo.config import within


class CellAssigner(Assigner):
    """Grid assignment of YOLOv3 (Redmon and Farhadi, 2018, section 2.1), by the IoU of the boxes themselves.

    An anchor is responsible if its cell holds the centre of any object. Let best be an anchor's highest IoU with any
    object. best <= negative: background; best > positive and responsible: it learns that object, the first on ties;
    otherwise IGNORE. Then each object in order whose highest IoU with a responsible anchor, of any level and of another
    object's cell too, is above min_positive takes every responsible anchor that equals it.

    Cells are squares whose side is the distance of neighbouring anchor centres of the level.

    Args:
        positive, negative: bounds of IoU.
        min_positive: what an object's best IoU must exceed.

    Raises:
        ValueError: a bound outside [0, 1], or negative > positive.

    Examples:
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8]])
        >>> CellAssigner()(anchors, torch.tensor([[3.0, 0, 11, 8]])).gt_index
        tensor([ 0, -1, -1])
    """

    def __init__(self, positive: float = 0.5, negative: float = 0.5, min_positive: float = 0.0):
        within(0, 1, positive=positive, negative=negative, min_positive=min_positive)
        if negative > positive:
            raise ValueError(f"negative={negative}: expected no more than positive={positive}")
        self.positive, self.negative, self.min_positive = positive, negative, min_positive

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        responsible = torch.cat([in_cells(level, gt_boxes) for level in anchors.split(level_sizes) if len(level)])
        columns = chunks(pairwise_iou, gt_boxes, anchors)
        gt_index = torch.full((len(anchors),), IGNORE, device=anchors.device)
        best = torch.full((len(gt_boxes),), -torch.inf, device=anchors.device)
        for part, matrix in columns():
            highest, first = matrix.max(0)
            found = torch.where(responsible[part] & (highest > self.positive), first, IGNORE)
            gt_index[part] = torch.where(highest <= self.negative, NEGATIVE, found)
            best = best.maximum(matrix.masked_fill(~responsible[part], -torch.inf).amax(1))
        best = best.masked_fill(best <= self.min_positive, torch.inf)  # equals no similarity
        for part, matrix in columns():
            enter_last(gt_index[part], (matrix == best[:, None]) & responsible[part])
        return gt_index


def in_cells(anchors: Tensor, gt_boxes: Tensor) -> Tensor:
    """(n,) bool: which anchors of a level lie in the middle of a cell that holds the centre of an object.

    Examples:
        >>> in_cells(torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]]), torch.tensor([[7.0, 3, 9, 5]]))
        tensor([False,  True])
    """
    points = centres(anchors)
    stride, found = spacing(points), points.new_zeros(len(points), dtype=torch.bool)
    for some in centres(gt_boxes).split(max(1, CHUNK // len(anchors))):
        away = (some[:, None] - points) / stride
        found |= ((away >= -0.5) & (away < 0.5)).all(-1).any(0)
    return found
