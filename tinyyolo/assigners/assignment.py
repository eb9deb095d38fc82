"""What an assigner answers, and the checks of what it is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEGATIVE = -1  # background: the anchor learns that nothing is there
IGNORE = -2  # the anchor takes no part in the loss
MAX_IOF = 0.5  # an anchor with more than this part of itself in an ignore region is not called background


@dataclass(frozen=True)
class Assignment:
    """Which anchor learns which object.

    Attributes:
        gt_index: (N,) int64, per anchor its object in [0, M), or NEGATIVE = -1, or IGNORE = -2.

    Examples:
        >>> found = Assignment(torch.tensor([-1, 0, -2, 2, 0]))
        >>> found.positive_idx, found.negative_idx, found.ignored_idx
        (tensor([1, 3, 4]), tensor([0]), tensor([2]))
        >>> found.per_object(3)
        tensor([2, 0, 1])
    """

    gt_index: Tensor

    @property
    def positive_idx(self) -> Tensor:
        """(P,) int64, rising indices of the anchors that learn an object."""
        return (self.gt_index >= 0).nonzero()[:, 0]

    @property
    def negative_idx(self) -> Tensor:
        """(Q,) int64, rising indices of the anchors that learn background."""
        return (self.gt_index == NEGATIVE).nonzero()[:, 0]

    @property
    def ignored_idx(self) -> Tensor:
        """(R,) int64, rising indices of the anchors that learn nothing."""
        return (self.gt_index == IGNORE).nonzero()[:, 0]

    def per_object(self, num_objects: int) -> Tensor:
        """(M,) int64, how many anchors each object has."""
        return torch.bincount(self.gt_index[self.positive_idx], minlength=num_objects)


def check_boxes(boxes: Tensor, name: str) -> Tensor:
    """The boxes as float32.

    Raises:
        ValueError: not (…, 4), not finite, or x2 < x1 or y2 < y1.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must be (…, 4) xyxy, got shape {tuple(boxes.shape)}")
    boxes = boxes.detach().float()
    wrong = ~(boxes.isfinite().all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{name}[{row}] = {boxes[row].tolist()}: expected finite x1 <= x2, y1 <= y2")
    return boxes
