"""One-stage detectors: a dense head on the neck's maps (RetinaNet, the anchor YOLO)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tinyyolo.boxes.convert import Core
from tinyyolo.boxes.nms import MinScore
from tinyyolo.detectors.base import Detector
from tinyyolo.heads.dense import DenseHead


class OneStage(Detector):
    """backbone -> neck -> dense head.

    Args:
        backbone, neck: see `Detector`.
        head: on every anchor of the maps.
        base: further arguments of `Detector`.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: DenseHead, **base: Any):
        super().__init__(backbone, neck, **base)
        self.bbox_head = head

    @property
    def first_head(self) -> nn.Module:
        """See `Detector.first_head`."""
        return self.bbox_head

    def losses(
        self, maps: list[Tensor], targets: list[dict[str, Tensor]], size_hw: tuple[int, int], sample: bool = True
    ) -> dict[str, Tensor]:
        """See `Detector.losses`."""
        return self.bbox_head.losses(maps, targets, size_hw, sample=sample)

    def candidates(
        self,
        maps: list[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Detector.candidates`."""
        return self.bbox_head.candidates(maps, size_hw, core, least)
