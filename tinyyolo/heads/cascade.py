"""Cascade of box heads: each stage learns on the boxes of the one before, at a stricter overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.config import within
from tinyyolo.heads.roi import BoxHead, RoIPool, RoISample, image_rois, sample_rois, spread


class CascadeHead(nn.Module):
    """Class-agnostic box heads in a row (Cai and Vasconcelos, 2018).

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        assigner: one for each stage.
        sampler: picks the regions of every stage.
        coder: one for each stage.
        loss_weights: one for each stage.
        channels: of the two shared linear layers of a stage.
        box_beta: where the smooth L1 of the deltas becomes linear.
        levels, pool_size, finest_scale: see `RoIPool`.

    Raises:
        ValueError: not one assigner, coder and weight for each stage.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        assigner: Sequence[Assigner],
        sampler: RandomSampler,
        coder: Sequence[DeltaCoder],
        loss_weights: Sequence[float],
        channels: int = 1024,
        box_beta: float = 1.0,
        levels: int = 4,
        pool_size: int = 7,
        finest_scale: float = 56.0,
    ):
        super().__init__()
        if not len(assigner) == len(coder) == len(loss_weights):
            counts = f"{len(assigner)}, {len(coder)} and {len(loss_weights)}"
            raise ValueError(f"assigner, coder and loss_weights need one entry for each stage, found {counts}")
        within(0, math.inf, loss_weights=loss_weights)
        self.assigners, self.sampler, self.everything = list(assigner), sampler, RandomSampler(None, 1.0)
        self.num_classes, self.loss_weights = num_classes, tuple(loss_weights)
        self.pool = RoIPool(in_strides, levels, pool_size, finest_scale)
        features = in_channels[0] * pool_size**2
        self.bbox_head = nn.ModuleList(
            BoxHead(features, num_classes, channels, True, stage_coder, box_beta) for stage_coder in coder
        )

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"s0.loss_cls", "s0.loss_bbox", "s1.loss_cls", ...}, weighted; see `RoIHead.losses`."""
        sampler, losses = self.sampler if sample else self.everything, {}
        for i, (head, assigner, weight) in enumerate(
            zip(self.bbox_head, self.assigners, self.loss_weights, strict=True)
        ):
            regions = sample_rois(proposals, targets, assigner, sampler, self.num_classes)
            logits, deltas = head(self.pool(maps, regions.rois))
            stage = head.losses(logits, deltas, regions)
            losses.update({f"s{i}.{name}": weight * value for name, value in stage.items()})
            proposals = refined(head, regions, deltas, size_hw, images=len(targets))
        return losses

    def candidates(
        self, maps: Sequence[Tensor], proposals: Tensor, valid: Tensor, size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, K, 4) of the last stage and scores (B, K, C): softmax of the stages' mean logits.

        Args:
            maps, proposals, valid, size_hw: see `RoIHead.candidates`.
        """
        rois, total = image_rois(proposals, valid), 0
        for head in self.bbox_head:
            logits, deltas = head(self.pool(maps, rois))
            total = total + logits
            rois = torch.cat([rois[:, :1], head.boxes(rois, deltas, size_hw).squeeze(1)], dim=1)
        scores = (total / len(self.bbox_head)).softmax(dim=1)[:, : self.num_classes]
        return spread(rois[:, 1:], valid), spread(scores, valid)


@torch.no_grad()
def refined(head: BoxHead, regions: RoISample, deltas: Tensor, size_hw: tuple[int, int], images: int) -> list[Tensor]:
    """Per image the boxes (K, 4) of this stage for the next one, without those that were ground truth."""
    boxes = head.boxes(regions.rois, deltas, size_hw).squeeze(1)
    return [boxes[(regions.rois[:, 0] == i) & ~regions.from_gt] for i in range(images)]
