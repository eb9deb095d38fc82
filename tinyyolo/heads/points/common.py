"""What anchor-free heads share: the points, the two branches, the class loss, and the best candidates of a level."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinyyolo.assigners.assignment import IGNORE
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.convert import Core, centres, clip
from tinyyolo.boxes.nms import MinScore
from tinyyolo.config import whole, within
from tinyyolo.heads.dense import INIT_STD, DenseHead, best_pairs, flat, objects_of, rows, shared
from tinyyolo.layers.blocks import conv_layer, initialise, logit, normal
from tinyyolo.layers.losses import focal_loss

CENTRE = 0.5  # of a cell, in cells


class Learnt(NamedTuple):
    """What the P points that learn an object learn: image and point (P,), boxes (P, 4) float32 and labels (P,)."""

    image: Tensor
    point: Tensor
    boxes: Tensor
    labels: Tensor


class PointHead(DenseHead):
    """Two branches of 3x3 convolutions on every point, shared by all levels.

    Its grid has one anchor a cell: the square of a stride around the point.

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        assigner: gives each point its object.
        channels: of the branches.
        convs: 3x3 convolutions with ReLU in each branch.
        norm_groups: of the group norm behind each of them; 0: none.
        gamma, alpha: of the focal loss.
        pre_nms: best (point, class) pairs kept per level.
        offset: place of the point in its cell, in cells.
        grid: what the assigner is given in place of the squares, one box a cell around its point.

    Raises:
        ValueError: levels of unequal channels, a number out of its bounds, or a grid of several boxes a cell.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        assigner: Assigner,
        channels: int,
        convs: int,
        norm_groups: int,
        gamma: float,
        alpha: float,
        pre_nms: int,
        offset: float = CENTRE,
        grid: AnchorGrid | None = None,
    ):
        grid = grid or AnchorGrid(in_strides, sizes=[[(s, s)] for s in in_strides], center_offset=offset)
        super().__init__(in_strides, grid, assigner)
        inputs, per_cell = shared(in_channels, grid)
        if per_cell != 1 or grid.center_offset != offset:
            raise ValueError(f"anchors: expected one a cell, around its point, center_offset {offset}")
        whole(1, num_classes=num_classes, channels=channels, pre_nms=pre_nms)
        whole(0, convs=convs, norm_groups=norm_groups)
        within(0, 1, alpha=alpha)
        within(0, math.inf, gamma=gamma)
        self.num_classes, self.gamma, self.alpha, self.pre_nms = num_classes, gamma, alpha, pre_nms
        widths = list(pairwise([inputs] + [channels] * convs))
        self.width = channels if convs else inputs  # of what the branches give

        def branch() -> nn.ModuleList:
            return nn.ModuleList(conv_layer(i, o, kernel=3, relu=True, norm_groups=norm_groups) for i, o in widths)

        self.cls_convs, self.reg_convs = branch(), branch()

    def start(self, classifier: nn.Conv2d, prior: float) -> None:
        """Fill all convolutions as published; the classifier starts from the probability `prior` of an object.

        Raises:
            ValueError: it is not between 0 and 1.
        """
        if not 0 < prior < 1:
            raise ValueError(f"prior={prior}: expected a number between 0 and 1, neither of them")
        initialise(self, normal(INIT_STD))
        initialise(classifier, None, bias=logit(prior))

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the class branch and the box branch make of a map."""
        classes = boxes = x
        for class_conv, box_conv in zip(self.cls_convs, self.reg_convs, strict=True):
            classes, boxes = class_conv(classes), box_conv(boxes)
        return classes, boxes

    def learnt(self, index: Tensor, targets: Sequence[dict[str, Tensor]]) -> Learnt:
        """The positives of an assignment (B, N)."""
        image, point = (index >= 0).nonzero(as_tuple=True)
        return Learnt(image, point, *objects_of(targets, image, index[image, point]))

    def class_loss(self, logits: Tensor, index: Tensor, learnt: Learnt) -> Tensor:
        """Summed focal loss of logits (B, N, C) on every point that is not ignored."""
        labels, used = index.clone(), index != IGNORE  # negative values stay: background
        labels[learnt.image, learnt.point] = learnt.labels.to(labels)
        return focal_loss(logits[used], labels[used], self.gamma, self.alpha)

    def points(
        self, maps: Sequence[Tensor], size_hw: tuple[int, int], by_level: Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Points (N, 2) of all levels, px, and a number (N, 1) of the level of each: `by_level`, else the stride."""
        levels = [centres(cells) for cells in self.anchors(maps, size_hw)]
        numbers = zip(levels, by_level or self.grid.strides, strict=True)
        return torch.cat(levels), torch.cat([x.new_full((x.shape[0], 1), float(number)) for x, number in numbers])

    @abstractmethod
    def found(self, maps: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor | None]]:
        """Per level class logits (B, C, H, W), what `decode` takes (B, D, H, W), and logits of a factor of the scores
        (B, 1, H, W) or None."""

    @abstractmethod
    def decode(self, points: Tensor, level: int, values: Tensor) -> Tensor:
        """Boxes (B, K, 4), float32 xyxy px, of points (B, K, 2) of a level and their values (B, K, D)."""

    def weighed(self, scores: Tensor, factor: Tensor) -> Tensor:
        """Class scores (B, K) under the factors of their points (B, K)."""
        return scores * factor

    def bounds(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Largest y and x of a box in an image."""
        return size_hw

    @torch.no_grad()
    def candidates(
        self,
        maps: Sequence[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4), scores (B, N, C): the best (point, class) pairs of every level, each with its one score."""
        boxes, scores = [], []
        owned = [None] * len(maps) if core is None else self.owned(maps, size_hw, core)
        levels = zip(owned, self.anchors(maps, size_hw), *self.found(maps), strict=True)
        for level, (own, cells, logits, values, factor) in enumerate(levels):
            top, point, one = best_pairs(flat([logits], self.num_classes).float().sigmoid(), self.pre_nms, own)
            found = self.decode(centres(cells)[point], level, rows(flat([values], values.shape[1]), point))
            boxes.append(found if core is not None else clip(found, self.bounds(size_hw)))
            if factor is not None:
                top = self.weighed(top, rows(flat([factor], 1).float().sigmoid(), point)[..., 0])
            scores.append(top[..., None] * one)
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
