"""YOLOv5's rule: an anchor of like shape in the object's cell or in one of the two cells beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import NEGATIVE
from tinyyolo.assigners.base import CHUNK, Assigner, enter_last
from tinyyolo.boxes.convert import centres, sides
from tinyyolo.config import above

MIN_SPACING = 0.5  # px; centres nearer than this belong to one column, rounding apart


class ShapeAssigner(Assigner):
    """Shape matching of YOLOv5 (`ComputeLoss.build_targets`), a control for the anchor YOLO; no similarity takes part.

    Per level an object takes the anchors whose sides are within a factor `ratio` of its own, in the cell that holds
    its centre and in the nearer cell to the left or right and above or below (none at exactly the middle of a cell).
    All others are negative. An object unlike every anchor gets none. Where YOLOv5 trains an anchor for several objects
    at once, here the last one has it.

    Cells are squares whose side is the distance of neighbouring anchor centres of the level.

    Args:
        ratio: bound of max(w / w', w' / w, h / h', h' / h), not reached.

    Raises:
        ValueError: ratio no number above 1.

    Examples:
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8]])
        >>> ShapeAssigner()(anchors, torch.tensor([[3.0, 0, 11, 8]])).gt_index
        tensor([ 0,  0, -1])
    """

    def __init__(self, ratio: float = 4.0):
        above(1, ratio=ratio)
        self.ratio = float(ratio)

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        parts = [self._level(level, gt_boxes) for level in anchors.split(level_sizes) if len(level)]
        return torch.cat(parts)

    def _level(self, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """gt_index (n,) of one level."""
        points, wh = centres(anchors), sides(anchors)
        stride = spacing(points)
        found = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
        step = max(1, CHUNK // len(anchors))
        for i, some in enumerate(gt_boxes.split(step)):
            away = (centres(some)[:, None] - points) / stride  # (m, n, 2), in cells
            holds, near = (away >= -0.5) & (away < 0.5), away.abs() < 1
            inside = (holds & near.flip(-1)).any(-1)
            own = sides(some)[:, None]
            # Products, not ratios: a side of 0 px matches nothing.
            alike = ((own < self.ratio * wh) & (wh < self.ratio * own)).all(-1)
            enter_last(found, inside & alike, i * step)
        return found


def spacing(points: Tensor) -> float:
    """Distance in px of neighbouring columns of (n, 2) centres, else of rows; infinite for a single cell."""
    for axis in (0, 1):
        gaps = points[:, axis].sort().values.diff()
        gaps = gaps[gaps > MIN_SPACING]
        if len(gaps):
            return float(gaps.amin())
    return float("inf")
