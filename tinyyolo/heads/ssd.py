"""SSD's head: softmax scores and deltas for every anchor, trained on the positives and the hardest negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tinyyolo.assigners.assignment import NEGATIVE
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.boxes.convert import Core
from tinyyolo.boxes.nms import MinScore
from tinyyolo.config import above, whole, within
from tinyyolo.heads.dense import BOX, DeltaHead, flat
from tinyyolo.layers.blocks import initialise
from tinyyolo.layers.losses import smooth_l1
from tinyyolo.together import of_batch


class SSDHead(DeltaHead):
    """One 3x3 convolution for the classes and one for the boxes of each level (Liu et al., 2016a, section 2).

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C; the background is class C of the softmax.
        sizes, ratios: of the anchors, see `ssd_anchors`.
        assigner: gives each anchor its object (`tinyyolo.assigners`).
        coder: deltas <-> boxes; by default mean 0 and std 1.
        negatives: at most so many for each positive of an image, those of the largest loss.
        box_beta: where the smooth L1 of the deltas becomes linear.
        pre_nms: best (anchor, class) pairs kept per level.

    Raises:
        ValueError: sizes or ratios that do not fit the maps, or a number out of its bounds.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        sizes: Sequence[float],
        ratios: Sequence[Sequence[float]],
        assigner: Assigner,
        coder: DeltaCoder | None = None,
        negatives: float = 3.0,
        box_beta: float = 1.0,
        pre_nms: int = 3000,
    ):
        if len(ratios) != len(in_channels):
            raise ValueError(f"ratios={list(ratios)}: expected a list for each of {len(in_channels)} maps")
        whole(1, num_classes=num_classes, pre_nms=pre_nms)
        within(0, math.inf, negatives=negatives, box_beta=box_beta)
        anchors = AnchorGrid(strides=in_strides, sizes=ssd_anchors(sizes, ratios), center_offset=0.5)
        super().__init__(in_strides, anchors, assigner)
        self.coder, self.num_classes, self.pre_nms = coder or DeltaCoder(), num_classes, pre_nms
        self.negatives, self.box_beta = negatives, box_beta
        self.cls_convs = self._branch(in_channels, num_classes + 1)
        self.reg_convs = self._branch(in_channels, BOX)
        initialise(self, nn.init.xavier_uniform_)

    def _branch(self, in_channels: Sequence[int], values: int) -> nn.ModuleList:
        return nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, a * values, 3, padding=1))
            for c, a in zip(in_channels, self.grid.per_cell, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level class logits (B, A (C + 1), H, W), background last, and deltas (B, 4 A, H, W)."""
        logits = [conv(x) for conv, x in zip(self.cls_convs, maps, strict=True)]
        return logits, [conv(x) for conv, x in zip(self.reg_convs, maps, strict=True)]

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"cls", "box"}: softmax and smooth L1, divided by the positives of the batch, at least 1 an image.

        The classes learn from all positives of an image and its hardest negatives, which is no chance: `sample` has no
        effect. See `DenseHead.losses`.
        """
        logits, deltas = self(maps)
        logits, deltas = flat(logits, self.num_classes + 1).float(), flat(deltas, BOX)
        anchors, count = torch.cat(self.anchors(maps, size_hw)), 0
        classes = boxes = logits.new_zeros(())
        for i, assignment in enumerate(self.assign(maps, targets, size_hw)):
            gt_index = assignment.gt_index.to(logits.device)
            positive = (gt_index >= 0).nonzero().squeeze(1)
            objects = gt_index[positive]
            negative = logits[i][gt_index == NEGATIVE]
            background = gt_index.new_full((len(negative),), self.num_classes)
            missed = cross_entropy(negative, background, reduction="none")
            hardest = missed.topk(min(len(missed), int(self.negatives * len(positive)))).values
            found = cross_entropy(logits[i][positive], targets[i]["labels"].to(gt_index)[objects], reduction="sum")
            expected = self.coder.encode(anchors[positive], targets[i]["boxes"][objects])
            classes = classes + found + hardest.sum()
            boxes = boxes + smooth_l1(deltas[i, positive], expected, self.box_beta)
            count += max(len(positive), 1)
        count = of_batch(count)
        return {"cls": classes / count, "box": boxes / count}

    @torch.no_grad()
    def candidates(
        self,
        maps: Sequence[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4), scores (B, N, C): the best (anchor, class) pairs of every level, each with its one score."""
        logits, deltas = self(maps)
        scores = [flat([x], self.num_classes + 1).float().softmax(-1)[..., :-1] for x in logits]
        return self.best_candidates(scores, deltas, maps, size_hw, core)


def ssd_anchors(sizes: Sequence[float], ratios: Sequence[Sequence[float]]) -> list[list[tuple[float, float]]]:
    """Anchors of every level by SSD's rule (Liu et al., 2016a, section 2.2), in the order of the official code.

    Args:
        sizes: px, one more than levels: of each level and what would be the next one's.
        ratios: of each level beside 1; each stands for h / w = 1 / r and r.

    Returns:
        Per level (w, h): a square of its size m, one of the mean sqrt(m M) with the next size M, then of each ratio.

    Raises:
        ValueError: not one size more than levels, or a size or ratio that is not above 0.

    Examples:
        >>> ssd_anchors([4, 16], [[4]])
        [[(4.0, 4.0), (8.0, 8.0), (8.0, 2.0), (2.0, 8.0)]]
    """
    above(0, sizes=list(sizes))
    if len(sizes) != len(ratios) + 1:
        raise ValueError(f"sizes={list(sizes)}: expected {len(ratios) + 1}, one more than levels")
    levels = []
    for size, following, own in zip(sizes, sizes[1:], ratios, strict=False):
        if own:
            above(0, ratios=list(own))
        every = [1.0, following / size, *(x for r in own for x in (1 / r, r))]
        root = np.sqrt(every).astype(np.float32)  # as in the official code
        wide, high = (np.float32(size) / root).tolist(), (np.float32(size) * root).tolist()
        levels.append([(high[i] if i == 1 else wide[i], high[i]) for i in range(len(every))])
    return levels
