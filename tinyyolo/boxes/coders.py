"""Boxes as offsets from reference boxes, and back; float32 whatever the precision of the offsets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tinyyolo.boxes.convert import centres, clip, convert, sides
from tinyyolo.config import above

MAX_LOG_RATIO = math.log(1000 / 16)  # the R-CNN family's bound: no box grows beyond 62.5 times its anchor in one step
MAX_LOG_RATIO_YOLO = math.log(16)  # the anchor YOLO's sides stay within a factor 16 of their anchor's
MAX_LOG_RATIO_FREE = 20.0  # for a coder without a bound: what grows by e^20 covers every image, and stays finite
CELL_EPS = 1e-6  # cells; keeps the logit of a place in its cell finite
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
        for name, values in {"means": means, "stds": stds}.items():
            if len(values) != 4:
                raise ValueError(f"{name}={list(values)}: expected 4 numbers")
        above(-math.inf, means=list(means))
        above(0, stds=list(stds), clip=clip)
        self.means, self.stds, self.clip = tuple(means), tuple(stds), clip

    def encode(self, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """Deltas that lead from anchors to objects.

        Args:
            anchors: (…, 4) xyxy, px.
            gt_boxes: (…, 4) xyxy, px, as many.

        Returns:
            (…, 4) float32. Sides under 1e-6 px count as 1e-6, so the result is finite.
        """
        anchors, gt_boxes = anchors.float(), gt_boxes.float()
        side, gt_side = sides(anchors).clamp(min=MIN_SIDE), sides(gt_boxes).clamp(min=MIN_SIDE)
        deltas = torch.cat(((centres(gt_boxes) - centres(anchors)) / side, torch.log(gt_side / side)), -1)
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
        anchors, deltas = anchors.float(), deltas.float()
        deltas = deltas * deltas.new_tensor(self.stds) + deltas.new_tensor(self.means)
        return _boxes(anchors, sides(anchors) * deltas[..., :2], deltas[..., 2:], self.clip, size_hw)


class StrideCoder:
    """(tx, ty, tw, th) of the anchor YOLO: the centre moves in strides of its level, a side grows by a factor exp(t).

    Examples:
        >>> anchors, deltas = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.5, 0, math.log(2), 0]])
        >>> StrideCoder().decode(anchors, deltas, torch.tensor([[4.0]]))
        tensor([[-2.,  0., 14.,  8.]])
    """

    def decode(
        self, anchors: Tensor, deltas: Tensor, strides: Tensor, size_hw: tuple[int, int] | None = None
    ) -> Tensor:
        """Boxes that the deltas lead to.

        Args:
            anchors: (…, 4) xyxy, px.
            deltas: (…, 4).
            strides: (…, 1) px per cell of each anchor's level.
            size_hw: if given, boxes are clipped to this image, px.

        Returns:
            (…, 4) float32 xyxy, px.
        """
        anchors, deltas = anchors.float(), deltas.float()
        return _boxes(anchors, strides * deltas[..., :2], deltas[..., 2:], MAX_LOG_RATIO_YOLO, size_hw)


class CellCoder:
    """(tx, ty, tw, th) of YOLOv3: the centre stays in the anchor's cell, by a sigmoid; a side grows by exp(t).

    Source: Redmon and Farhadi, 2018, section 2.1. Boxes are not clipped, as in the official code.

    Examples:
        >>> coder, stride = CellCoder(), torch.tensor([[8.0]])
        >>> anchors, objects = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[2.0, 2, 10, 10]])
        >>> coder.encode(anchors, objects, stride)
        tensor([[0.7500, 0.7500, 0.0000, 0.0000]])
        >>> coder.decode(anchors, torch.tensor([[0.0, math.log(3), 0, 0]]), stride).round(decimals=3)
        tensor([[ 0.,  2.,  8., 10.]])
    """

    def encode(self, anchors: Tensor, gt_boxes: Tensor, strides: Tensor) -> Tensor:
        """What the outputs learn: place in the cell, in cells, for the sigmoid of tx and ty; tw and th themselves.

        Args:
            anchors: (…, 4) xyxy, px, centred in their cells.
            gt_boxes: (…, 4) xyxy, px, as many.
            strides: (…, 1) px per cell of each anchor's level.

        Returns:
            (…, 4) float32; a place is kept 1e-6 inside the cell, which may be that of another object.
        """
        anchors, gt_boxes = anchors.float(), gt_boxes.float()
        place = (centres(gt_boxes) - centres(anchors)) / strides + 0.5
        ratio = sides(gt_boxes) / sides(anchors)
        return torch.cat((place.clamp(CELL_EPS, 1 - CELL_EPS), ratio.clamp(min=MIN_SIDE).log()), -1)

    def decode(self, anchors: Tensor, outputs: Tensor, strides: Tensor) -> Tensor:
        """Boxes (…, 4) float32 xyxy, px, that outputs (…, 4) before the sigmoid lead to; see `encode`."""
        anchors, outputs = anchors.float(), outputs.float()
        shift = strides * (outputs[..., :2].sigmoid() - 0.5)
        return _boxes(anchors, shift, outputs[..., 2:], MAX_LOG_RATIO_FREE, None)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """(…, 4) from points (…, 2) to the left, upper, right and lower side of boxes (…, 4) xyxy; negative outside.

    Examples:
        >>> side_distances(torch.tensor([[4.0, 4]]), torch.tensor([[1.0, 2, 9, 3]]))
        tensor([[ 3.,  2.,  5., -1.]])
    """
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), -1)


def boxes_around(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (…, 4) xyxy of which points (…, 2) have `side_distances` (…, 4).

    Examples:
        >>> boxes_around(torch.tensor([[4.0, 4]]), torch.tensor([[3.0, 2, 5, -1]]))
        tensor([[1., 2., 9., 3.]])
    """
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def _boxes(anchors: Tensor, shift: Tensor, log_ratio: Tensor, bound: float, size_hw: tuple[int, int] | None) -> Tensor:
    """Boxes (…, 4) whose centres are `shift` (…, 2) px from the anchors', sides exp(log_ratio) times as long."""
    side = sides(anchors) * log_ratio.clamp(-bound, bound).exp()
    boxes = convert(torch.cat((centres(anchors) + shift, side), -1), "cxcywh", "xyxy")
    return boxes if size_hw is None else clip(boxes, size_hw)
