"""What a model costs, as a record has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyyolo.detectors.base import Detector


def cost(model: Detector, imgsz: int | Sequence[int]) -> dict[str, Any]:
    """`params` and `gflops` of a model on images of `imgsz` px."""
    return {"params": sum(p.numel() for p in model.parameters()), "gflops": round(model.gflops(imgsz), 3)}
