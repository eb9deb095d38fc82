"""FCOS: every point inside an object says how far its sides are, and how central it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.points import InsideAssigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import boxes_around, side_distances
from tinyyolo.config import within
from tinyyolo.heads.dense import BOX, flat
from tinyyolo.heads.points.common import PointHead
from tinyyolo.layers.losses import diou_loss, iou_loss
from tinyyolo.together import of_batch

RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))
BOX_LOSSES = {"iou": iou_loss, "diou": diou_loss}
LEAST_DISTANCE = 0.01  # strides, to the nearer side of an object by RFLA: its points may lie outside
LEAST = 1e-6  # sum of the weights of the box loss


class Scale(nn.Module):
    """x * a learnt number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x * self.scale


class FCOSHead(PointHead):
    """Fully convolutional one-stage detection (Tian et al., 2019), as first published or with its later improvements.

    Args:
        in_channels, in_strides, num_classes, channels, convs, norm_groups, gamma, alpha, pre_nms: see `PointHead`.
        ranges, radius: see `InsideAssigner`.
        anchors, assigner: in place of that one: an assigner that gives priors, one around each point, their objects, as
            RFLA's. Points may then lie outside their objects.
        strided: distances are in strides of their level, through a ReLU; False: in px, through an exponential.
        centerness_of_boxes: the box branch gives the centerness; False: the class branch.
        box_loss: iou or diou.
        min_score: pairs must score more before the centerness is multiplied in, and then stay whatever becomes of them.
        prior: the score of every class before training (Lin et al., 2017b).

    Raises:
        ValueError: what `PointHead` or the assigner refuses, not one range a level, no such loss, or one of anchors and
            assigner alone.
    """

    beyond_counts = True  # as in the official code, which has no flags of valid points here

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        ranges: Sequence[Sequence[float]] = RANGES,
        radius: float | None = None,
        anchors: AnchorGrid | None = None,
        assigner: Assigner | None = None,
        strided: bool = False,
        centerness_of_boxes: bool = False,
        box_loss: str = "iou",
        channels: int = 256,
        convs: int = 4,
        norm_groups: int = 0,
        prior: float = 0.01,
        gamma: float = 2.0,
        alpha: float = 0.25,
        min_score: float = 0.05,
        pre_nms: int = 3000,
    ):
        rest = (channels, convs, norm_groups, gamma, alpha, pre_nms)
        if (anchors is None) != (assigner is None):
            raise ValueError("anchors and assigner: one without the other")
        if assigner is not None and radius is not None:
            raise ValueError(f"radius={radius}: an assigner of its own does not look at it")
        self.least = 0.0 if assigner is None else LEAST_DISTANCE
        own = assigner or InsideAssigner(ranges, radius)
        super().__init__(in_channels, in_strides, num_classes, own, *rest, grid=anchors)
        within(0, 1, min_score=min_score)
        if len(ranges) != len(in_strides):
            raise ValueError(f"ranges: {len(ranges)}, but the neck has {len(in_strides)} levels")
        if box_loss not in BOX_LOSSES:
            raise ValueError(f"box_loss={box_loss}: unknown. Choices: {', '.join(BOX_LOSSES)}")
        self.strided, self.centerness_of_boxes, self.min_score = strided, centerness_of_boxes, min_score
        self.box_loss = BOX_LOSSES[box_loss]
        self.conv_cls = nn.Conv2d(self.width, num_classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(self.width, BOX, 3, padding=1)
        self.conv_centerness = nn.Conv2d(self.width, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in in_strides)
        self.start(self.conv_cls, prior)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Per level class logits (B, C, H, W), distances (B, 4, H, W) float32, px or strides, and centerness logits
        (B, 1, H, W)."""
        logits, distances, centerness = [], [], []
        for x, scale in zip(maps, self.scales, strict=True):
            classes, boxes = self.branches(x)
            logits.append(self.conv_cls(classes))
            far = scale(self.conv_reg(boxes)).float()
            distances.append(far.clamp(min=0) if self.strided else far.exp())
            centerness.append(self.conv_centerness(boxes if self.centerness_of_boxes else classes))
        return logits, distances, centerness

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"cls", "box", "centerness"}: class and centerness loss by the positives of the batch, the box loss a mean
        weighted by the centerness. See `DenseHead.losses`."""
        logits, distances, centerness = map(flat, self(maps), (self.num_classes, BOX, 1))
        index = self.gt_index(maps, targets, size_hw)
        learnt, (points, strides) = self.learnt(index, targets), self.points(maps, size_hw)
        at, points = (learnt.image, learnt.point), points[learnt.point]
        expected = side_distances(points, learnt.boxes) / (strides[learnt.point] if self.strided else 1)
        weight, count = centerness_of(expected, self.least), of_batch(len(points), 1)
        boxes = self.box_loss(boxes_around(points, distances[at]), boxes_around(points, expected))
        return {
            "cls": self.class_loss(logits, index, learnt) / count,
            "box": (boxes * weight).sum() / of_batch(weight.sum(), LEAST),
            "centerness": bce(centerness[at][:, 0].float(), weight, reduction="sum") / count,
        }

    def found(self, maps: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor | None]]:
        """See `PointHead.found`."""
        logits, distances, centerness = self(maps)
        return logits, distances, centerness

    def decode(self, points: Tensor, level: int, values: Tensor) -> Tensor:
        """See `PointHead.decode`."""
        return boxes_around(points, values * (self.grid.strides[level] if self.strided else 1))

    def weighed(self, scores: Tensor, factor: Tensor) -> Tensor:
        """Score times centerness of the pairs whose score alone is more than `min_score`, 0 of the others."""
        return scores * factor * (scores > self.min_score)


def centerness_of(distances: Tensor, least: float = 0.0) -> Tensor:
    """(…,) how central points are by their distances (…, 4) to the sides (Tian et al., 2019, eq. 3).

    The smaller of two opposite distances counts as `least` at least: of a point outside its object it is negative.

    Examples:
        >>> centerness_of(torch.tensor([[2.0, 2, 2, 2], [1, 1, 4, 4]]))
        tensor([1.0000, 0.2500])
    """
    pairs = torch.stack((distances[..., ::2], distances[..., 1::2]), -2)  # (l, r), (t, b)
    return (pairs.amin(-1).clamp(min=least) / pairs.amax(-1)).prod(-1).sqrt()
