"""Boxes as offsets from reference boxes, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_RATIO = math.log(1000 / 16)  # the R-CNN family's bound: no box grows beyond 62.5 times its anchor in one step
MIN_SIDE = 1e-6  # px; keeps the logarithm and the quotient finite for boxes without width


class DeltaCoder:
    """(dx, dy, dw, dh) of R-CNN (Girshick et al. 2014, appendix C), normalised by means and stds.

    Args:
        means: 4 numbers subtracted after encoding.
        stds: 4 numbers divided by after encoding.
        clip: bound of |dw| and |dh| in decoding, on both sides.

    Raises:
        ValueError: not 4 means or stds, a std <= 0, or clip <= 0.

    Examples:
        >>> coder = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
        >>> anchors, objects = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[2.0, 2, 6, 10]])
        >>> coder.decode(anchors, coder.encode(anchors, objects))
        tensor([[ 2.,  2.,  6., 10.]])
    """

    def __init__(
        self,
        means: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        clip: float = MAX_LOG_RATIO,
    ):
        if len(means) != 4 or len(stds) != 4:
            raise ValueError(f"means and stds must be 4 numbers each, got {list(means)} and {list(stds)}")
        if not all(s > 0 for s in stds) or not clip > 0:
            raise ValueError(f"stds and clip must be > 0, got {list(stds)} and {clip}")
        self.means, self.stds, self.clip = tuple(means), tuple(stds), clip

    def encode(self, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """Deltas that lead from anchors to objects.

        Args:
            anchors: (…, 4) xyxy, px.
            gt_boxes: (…, 4) xyxy, px, as many.

        Returns:
            (…, 4) float32. Sides under 1e-6 px count as 1e-6, so the result is finite.
        """
        centre, side = _centre_side(anchors.float())
        gt_centre, gt_side = _centre_side(gt_boxes.float())
        side, gt_side = side.clamp(min=MIN_SIDE), gt_side.clamp(min=MIN_SIDE)
        deltas = torch.cat(((gt_centre - centre) / side, torch.log(gt_side / side)), -1)
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(self, anchors: Tensor, deltas: Tensor, size_hw: tuple[int, int] | None = None) -> Tensor:
        """Boxes that the deltas lead to.

        Args:
            anchors: (…, 4) xyxy, px; broadcasts against deltas, e.g. (N, 1, 4) against (N, C, 4).
            deltas: (…, 4).
            size_hw: if given, boxes are clipped to this image, px.

        Returns:
            (…, 4) float32 xyxy, px.
        """
        deltas = deltas.float()
        deltas = deltas * deltas.new_tensor(self.stds) + deltas.new_tensor(self.means)
        centre, side = _centre_side(anchors.float())
        centre = centre + side * deltas[..., :2]
        side = side * deltas[..., 2:].clamp(-self.clip, self.clip).exp()
        boxes = torch.cat((centre - side * 0.5, centre + side * 0.5), -1)
        if size_hw is None:
            return boxes
        height, width = size_hw
        return boxes.clamp(min=0).minimum(boxes.new_tensor((width, height, width, height)))


def _centre_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]
