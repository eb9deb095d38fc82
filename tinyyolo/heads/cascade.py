"""Cascade of box heads: each stage learns on the boxes of the one before, at a stricter overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.config import within
from tinyyolo.heads.roi import BoxHead, RoIPool, StagedHead


class CascadeHead(StagedHead):
    """Class-agnostic box heads in a row (Cai and Vasconcelos, 2018).

    Args:
        in_channels, in_strides, num_classes, sampler, channels, box_beta: see `RoIHead`.
        assigner, coder, loss_weights: one for each stage.
        levels, finest_scale: see `RoIPool`.
        pool_size: cells a side of what is seen of a region.

    Raises:
        ValueError: not one assigner, coder and weight for each of two or more stages, or a number out of its bounds.
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
        if not len(assigner) == len(coder) == len(loss_weights) > 1:
            counts = f"{len(assigner)}, {len(coder)} and {len(loss_weights)}"
            raise ValueError(f"assigner, coder and loss_weights need one entry for each of the stages, found {counts}")
        within(0, math.inf, loss_weights=loss_weights)
        pool, features = RoIPool(in_strides, levels, pool_size, finest_scale), in_channels[0] * pool_size**2
        heads = [BoxHead(features, num_classes, channels, True, stage, box_beta) for stage in coder]
        super().__init__(heads, assigner, loss_weights, sampler, pool, max_candidates=1)
