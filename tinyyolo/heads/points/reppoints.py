"""RepPoints: nine points of an object, found in two stages, and the box that their mean and spread make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from tinyyolo.assigners.assignment import IGNORE
from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.points import NearestAssigner
from tinyyolo.boxes.graph import traced
from tinyyolo.config import within
from tinyyolo.heads.dense import flat
from tinyyolo.heads.points.common import PointHead
from tinyyolo.layers.deform_conv import deform_conv2d, own_precision
from tinyyolo.layers.losses import smooth_l1
from tinyyolo.together import of_batch

KERNEL = (-1, 0, 1)  # cells: where the taps of a 3x3 convolution lie
PAIR = 2  # values of a point: y, x
INIT_GRADIENT = 0.1  # of the first points through the places where the second stage looks
MOMENT_GRADIENT = 0.01  # of the learnt factors of the spread
INIT_WEIGHT = 0.5  # of the first boxes' loss


class RepPointsHead(PointHead):
    """RepPoints with boxes by moments (Yang et al., 2019).

    The box branch gives nine points a cell; there both branches look, by deformable convolutions, for the class and for
    how the points move on. A box reaches from the mean of the points by their standard deviation (n - 1) times a learnt
    factor, by x and by y.

    Args:
        in_channels, in_strides, num_classes, channels, convs, norm_groups, gamma, alpha, pre_nms: see `PointHead`.
        assigner: gives the first stage's boxes their objects, of which the classes and the second stage learn.
        scale: of the first stage, see `NearestAssigner`; losses are in units of `scale` strides.
        box_beta: where the smooth L1 becomes linear.
        prior: the score of every class before training (Lin et al., 2017b).

    Raises:
        ValueError: what `PointHead` or an assigner refuses.
    """

    taps: Tensor

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        assigner: Assigner,
        scale: float = 4.0,
        channels: int = 256,
        convs: int = 3,
        norm_groups: int = 0,
        prior: float = 0.01,
        gamma: float = 2.0,
        alpha: float = 0.25,
        box_beta: float = 0.11,
        pre_nms: int = 3000,
    ):
        rest = (channels, convs, norm_groups, gamma, alpha, pre_nms)
        super().__init__(in_channels, in_strides, num_classes, NearestAssigner(scale), *rest, offset=0.0)
        within(0, math.inf, box_beta=box_beta)
        self.refine, self.scale, self.box_beta = assigner, scale, box_beta
        taps = torch.tensor(list(product(KERNEL, KERNEL)), dtype=torch.float32)
        self.register_buffer("taps", taps.view(1, -1, 1, 1), persistent=False)
        values = taps.numel()
        self.moment_transfer = nn.Parameter(torch.zeros(PAIR))
        self.reppoints_cls_conv = nn.Conv2d(self.width, channels, 3, padding=1, bias=False)
        self.reppoints_cls_out = nn.Conv2d(channels, num_classes, 1)
        self.reppoints_pts_init_conv = nn.Conv2d(self.width, channels, 3, padding=1)
        self.reppoints_pts_init_out = nn.Conv2d(channels, values, 1)
        self.reppoints_pts_refine_conv = nn.Conv2d(self.width, channels, 3, padding=1, bias=False)
        self.reppoints_pts_refine_out = nn.Conv2d(channels, values, 1)
        self.start(self.reppoints_cls_out, prior)
        for layer in (self.reppoints_cls_conv, self.reppoints_pts_refine_conv):  # mmcv's way with deformable ones
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Per level class logits (B, C, H, W), first and refined points (B, 18, H, W): nine times y, x in strides from
        the cell's point."""
        logits, first, refined = [], [], []
        for x in maps:
            classes, boxes = self.branches(x)
            init = self.reppoints_pts_init_out(self.reppoints_pts_init_conv(boxes).relu())
            offset = INIT_GRADIENT * init + (1 - INIT_GRADIENT) * init.detach() - self.taps
            classes = looked_at(classes, offset, self.reppoints_cls_conv).relu()
            boxes = looked_at(boxes, offset, self.reppoints_pts_refine_conv).relu()
            logits.append(self.reppoints_cls_out(classes))
            first.append(init)
            refined.append(self.reppoints_pts_refine_out(boxes) + init.detach())
        return logits, first, refined

    def moment_box(self, points: Tensor) -> Tensor:
        """Boxes (…, 4), float32 xyxy in strides from the cell's point, of points (…, 18)."""
        pairs = points.float().unflatten(-1, (-1, PAIR)).flip(-1)  # x, y
        learnt = MOMENT_GRADIENT * self.moment_transfer + (1 - MOMENT_GRADIENT) * self.moment_transfer.detach()
        middle, half = pairs.mean(-2), pairs.std(-2) * learnt.float().exp()
        return torch.cat((middle - half, middle + half), -1)

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"cls", "init", "box"}: the loss of the first boxes by the positives of the first stage, the others by those
        of the second, at least 1 an image. See `DenseHead.losses`."""
        values = self.taps.numel()
        logits, first, refined = map(flat, self(maps), (self.num_classes, values, values))
        points, strides = self.points(maps, size_hw)
        shift = points.repeat(1, PAIR)
        boxes = self.moment_box(first) * strides + shift
        index = self.gt_index(maps, targets, size_hw)
        refined_index = self.refined_index(boxes.detach(), targets, maps, size_hw)

        def box_loss(boxes: Tensor, index: Tensor) -> Tensor:
            learnt = self.learnt(index, targets)
            unit = self.scale * strides[learnt.point]
            return smooth_l1(boxes[learnt.image, learnt.point] / unit, learnt.boxes / unit, self.box_beta)

        second = box_loss(self.moment_box(refined) * strides + shift, refined_index)
        classes = self.class_loss(logits, refined_index, self.learnt(refined_index, targets))
        count = positives(refined_index)
        init = INIT_WEIGHT * box_loss(boxes, index) / positives(index)
        return {"cls": classes / count, "init": init, "box": second / count}

    def refined_index(
        self, boxes: Tensor, targets: Sequence[dict[str, Tensor]], maps: Sequence[Tensor], size_hw: tuple[int, int]
    ) -> Tensor:
        """Objects (B, N) of the first stage's boxes (B, N, 4) as gt_index; of cells beyond an image IGNORE."""
        boxes = boxes.nan_to_num(0, 0, 0)  # of a training that diverged: its loss says so
        index = torch.full(boxes.shape[:2], IGNORE, device=boxes.device)
        for i, target in enumerate(targets):
            height, width = (int(side) for side in target.get("size_hw", size_hw))
            own, inside = self.own_cells(maps, (height, width))
            sizes = self.grid.level_sizes(size_hw, map_sizes=own)
            found = self.refine(boxes[i, inside], target["boxes"], target.get("ignore"), sizes)
            index[i, inside] = found.gt_index.to(index)
        return index

    def found(self, maps: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor | None]]:
        """See `PointHead.found`."""
        logits, _, refined = self(maps)
        return logits, refined, [None] * len(maps)

    def decode(self, points: Tensor, level: int, values: Tensor) -> Tensor:
        """See `PointHead.decode`."""
        return self.moment_box(values) * self.grid.strides[level] + points.repeat(1, 1, PAIR)


def looked_at(x: Tensor, offset: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 3x3 convolution whose taps lie `offset` (B, 18, H, W) beside their places, in the precision of its weights."""
    fast = not (torch.is_grad_enabled() or traced())
    with own_precision(x):
        x, offset = x.to(layer.weight), offset.to(layer.weight)
        return deform_conv2d(x, offset, layer.weight, padding=(1, 1), taps_first=fast)


def positives(index: Tensor) -> int:
    """How many of the whole batch's (B, N) learn an object, at least 1 an image."""
    return of_batch(int((index >= 0).sum(1).clamp(min=1).sum()))
