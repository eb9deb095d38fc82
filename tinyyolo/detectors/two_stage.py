"""Two-stage detectors: proposals of a region proposal network, then box heads on them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tinyyolo.boxes.convert import Core, centres
from tinyyolo.boxes.nms import MinScore
from tinyyolo.detectors.base import Detector
from tinyyolo.heads.roi import StagedHead
from tinyyolo.heads.rpn import RPNHead

REGIONS, SIDE = 8, 8  # regions on which a second stage is counted, side of the maps that it sees


class TwoStage(Detector):
    """backbone -> neck -> proposals -> box heads (Faster R-CNN and its kin).

    Args:
        backbone, neck: see `Detector`.
        rpn_head: proposes regions.
        roi_head: classifies them and refines their boxes, in one stage or several.
        base: further arguments of `Detector`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: RPNHead,
        roi_head: StagedHead,
        **base: Any,
    ):
        super().__init__(backbone, neck, **base)
        self.rpn_head, self.roi_head = rpn_head, roi_head

    @property
    def first_head(self) -> nn.Module:
        """See `Detector.first_head`."""
        return self.rpn_head

    def gflops(self, imgsz: int | Sequence[int] = 640) -> float:
        """See `Detector.gflops`; the second stage counts with as many regions as its RPN gives at most.

        Upstream's counter, which looks at what a random image makes of it, says another number at every call.
        """
        head, neck = deepcopy(self.roi_head).float().cpu().eval(), cast(Any, self.neck)
        blank = [torch.zeros(1, channels, SIDE, SIDE) for channels in neck.channels]
        boxes, valid = torch.tensor([[0.0, 0, SIDE, SIDE]]).repeat(1, REGIONS, 1), torch.ones(1, REGIONS).bool()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            head.candidates(blank, boxes, valid, (SIDE, SIDE))
        each = counter.get_total_flops() / REGIONS
        return super().gflops(imgsz) + float(each * self.rpn_head.counts[1] / 1e9)

    def losses(
        self, maps: list[Tensor], targets: list[dict[str, Tensor]], size_hw: tuple[int, int], sample: bool = True
    ) -> dict[str, Tensor]:
        """See `Detector.losses`."""
        # A backbone of several branches gives every image once a branch, in training.
        targets = list(targets) * (len(maps[0]) // max(len(targets), 1))
        losses, (boxes, scores) = self.rpn_head.losses_and_proposals(maps, targets, size_hw, sample=sample)
        proposals = [b[s >= 0] for b, s in zip(boxes, scores, strict=True)]
        return losses | self.roi_head.losses(maps, proposals, targets, size_hw, sample=sample)

    @torch.no_grad()
    def candidates(
        self,
        maps: list[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Detector.candidates`."""
        boxes, scores = self.rpn_head.proposals(self.rpn_head(maps), size_hw)
        boxes, scores = self.roi_head.candidates(maps, boxes, scores >= 0, size_hw)
        return boxes, scores if core is None else scores * centred_in(boxes, core)[..., None]


def centred_in(boxes: Tensor, core: Core) -> Tensor:
    """(…,) bool: whether the centre of a box (…, 4) lies in the half-open core.

    Examples:
        >>> centred_in(torch.tensor([[0.0, 0, 4, 4], [6, 0, 10, 4]]), (0, 0, 8, 8)).tolist()
        [True, False]
    """
    middle = centres(boxes)
    return ((middle >= middle.new_tensor(core[:2])) & (middle < middle.new_tensor(core[2:]))).all(-1)
