"""FoveaBox: the cells in the middle of an object say where its sides are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from tinyyolo.assigners.points import FoveaAssigner
from tinyyolo.boxes.coders import boxes_around, side_distances
from tinyyolo.config import above, within
from tinyyolo.heads.dense import BOX, flat
from tinyyolo.heads.points.common import PointHead
from tinyyolo.layers.losses import smooth_l1
from tinyyolo.together import of_batch

RANGES = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
BASES = (16, 32, 64, 128, 256)  # px
MOST = 16.0  # a distance learnt is at most so many bases, and at least a base / MOST


class FoveaHead(PointHead):
    """FoveaBox (Kong et al., 2020): a class and ln(distance / base length of the level) to the four sides.

    Args:
        in_channels, in_strides, num_classes, channels, convs, norm_groups, gamma, alpha, pre_nms: see `PointHead`.
        ranges, sigma: see `FoveaAssigner`.
        bases: base length of each level, px.
        box_beta: where the smooth L1 becomes linear.
        prior: the score of every class before training (Lin et al., 2017b).

    Raises:
        ValueError: what `PointHead` or the assigner refuses, or not one range and base a level.
    """

    beyond_counts = True  # as in the official code, which has no flags of valid points here

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        ranges: Sequence[Sequence[float]] = RANGES,
        bases: Sequence[float] = BASES,
        sigma: float = 0.4,
        channels: int = 256,
        convs: int = 4,
        norm_groups: int = 0,
        prior: float = 0.01,
        gamma: float = 1.5,
        alpha: float = 0.4,
        box_beta: float = 0.11,
        pre_nms: int = 3000,
    ):
        rest = (channels, convs, norm_groups, gamma, alpha, pre_nms)
        super().__init__(in_channels, in_strides, num_classes, FoveaAssigner(ranges, sigma), *rest)
        above(0, bases=list(bases))
        if len(ranges) != len(in_strides) or len(bases) != len(in_strides):
            raise ValueError(f"ranges and bases: they need one entry per level, {len(in_strides)}")
        within(0, math.inf, box_beta=box_beta)
        self.bases, self.box_beta = tuple(bases), box_beta
        self.conv_cls = nn.Conv2d(self.width, num_classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(self.width, BOX, 3, padding=1)
        self.start(self.conv_cls, prior)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level class logits (B, C, H, W) and logarithms of distances in bases (B, 4, H, W)."""
        both = [self.branches(x) for x in maps]
        return [self.conv_cls(classes) for classes, _ in both], [self.conv_reg(boxes) for _, boxes in both]

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"cls", "box"}: the class loss by the positives and the images of the batch, the box loss by the positives.

        See `DenseHead.losses`.
        """
        logits, values = map(flat, self(maps), (self.num_classes, BOX))
        index = self.gt_index(maps, targets, size_hw)
        learnt, (points, bases) = self.learnt(index, targets), self.points(maps, size_hw, self.bases)
        far = side_distances(points[learnt.point], learnt.boxes) / bases[learnt.point]
        expected = far.clamp(1 / MOST, MOST).log()  # a cell that a bound was moved to may lie outside
        boxes = smooth_l1(values[learnt.image, learnt.point], expected, self.box_beta)
        count = of_batch(len(learnt.point))
        classes = self.class_loss(logits, index, learnt) / (count + of_batch(len(targets)))
        return {"cls": classes, "box": boxes / max(count, 1)}

    def found(self, maps: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor | None]]:
        """See `PointHead.found`."""
        return *self(maps), [None] * len(maps)

    def decode(self, points: Tensor, level: int, values: Tensor) -> Tensor:
        """See `PointHead.decode`."""
        return boxes_around(points, values.float().exp() * self.bases[level])

    def bounds(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """The official code ends boxes a pixel before the image does."""
        return size_hw[0] - 1, size_hw[1] - 1
