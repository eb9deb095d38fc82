"""What a model costs: its parameters, and its operations on one image."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.one_stage import OneStage
from tinyyolo.detectors.two_stage import TwoStage

REGIONS, SIDE = 8, 8  # regions on which a second stage is counted, side of the maps that it sees


def gflops(model: Detector, imgsz: int) -> float:
    """Billions of operations on one square image, two a multiply-add; the sum over all convolutions and products.

    A second stage counts with as many regions as its RPN gives at most, whatever an image holds: upstream's counter,
    which looks at what a random image makes of it, says another number at every call. Deformable convolutions are
    not counted beside their offsets, nor what a head does with its findings alone, as Grid R-CNN's grids.

    Args:
        model: the detector; it stays as it is.
        imgsz: side in px.
    """
    shapes = deepcopy(model).eval().to("meta")  # no memory and no arithmetic
    with torch.no_grad(), FlopCounterMode(display=False) as first:
        maps = shapes.features(torch.zeros(1, 3, imgsz, imgsz, device="meta"))
        if isinstance(shapes, OneStage):
            shapes.bbox_head(maps)
        elif isinstance(shapes, TwoStage):
            shapes.rpn_head(maps)
    total = first.get_total_flops()
    if isinstance(model, TwoStage):
        own = next(model.parameters())
        blank = [torch.zeros(1, level.shape[1], SIDE, SIDE, device=own.device, dtype=own.dtype) for level in maps]
        boxes = torch.tensor([[0.0, 0, SIDE, SIDE]], device=own.device).repeat(1, REGIONS, 1)
        valid = torch.ones(1, REGIONS, dtype=torch.bool, device=own.device)
        with torch.no_grad(), FlopCounterMode(display=False) as second:
            deepcopy(model.roi_head).eval().candidates(blank, boxes, valid, (SIDE, SIDE))
        total += second.get_total_flops() * model.rpn_head.counts[1] // REGIONS
    return total / 1e9


def cost(model: Detector, imgsz: Any) -> dict[str, Any]:
    """`params` and `gflops` of a model on images of `imgsz` px, the longer side of two."""
    side = max(imgsz) if isinstance(imgsz, (list, tuple)) else imgsz
    return {"params": sum(p.numel() for p in model.parameters()), "gflops": round(gflops(model, side), 3)}
