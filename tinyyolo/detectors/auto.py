"""`anchors: auto` and `constant: auto` of a model YAML: settled from the training objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tinyyolo.boxes.anchors import auto_constant, fit_anchors
from tinyyolo.boxes.convert import sides
from tinyyolo.boxes.similarity import CONSTANT

AUTO = "auto"
STRIDES = (4, 8, 16, 32)
PER_LEVEL = (3, 2, 2, 2)  # anchors a cell, most where tiny objects live
# Before there are data to fit to: squares that rise from 6 px by about a half each.
DEFAULT_ANCHORS = (((6, 6), (10, 10), (15, 15)), ((22, 22), (32, 32)), ((48, 48), (72, 72)), ((110, 110), (180, 180)))


def is_auto(spec: Mapping[str, Any]) -> bool:
    """Whether anything in a model YAML waits for the data."""
    return any(v == AUTO if not isinstance(v, Mapping) else is_auto(v) for k, v in spec.items() if k != "train")


def settle(spec: Mapping[str, Any], wh: Tensor | None = None) -> dict[str, Any]:
    """A copy of `spec` with every `constant: auto` and a YOLO head's `anchors: auto` replaced by numbers.

    Args:
        spec: a model YAML.
        wh: (K, 2) sizes of the training objects in px of the network input; None takes 12.7 px and `DEFAULT_ANCHORS`.

    Returns:
        C is the mean absolute object size (paper, section 6.3.3); anchors maximise the mean NWD of each object with its
        best anchor.

    Examples:
        >>> settle({"head": {"constant": "auto", "assigner": {"constant": "auto"}}}, torch.full((3, 2), 8.0))
        {'head': {'constant': 8.0, 'assigner': {'constant': 8.0}}}
    """
    known = wh if wh is not None and len(wh) else None
    constant = CONSTANT if known is None else round(auto_constant(known), 2)

    def walk(node: Mapping[str, Any]) -> dict[str, Any]:
        out = {}
        for key, value in node.items():
            if isinstance(value, Mapping):
                value = walk(value)
            elif value == AUTO and key == "constant":
                value = constant
            elif value == AUTO and key == "anchors" and node.get("type") == "yolo":
                fitted = DEFAULT_ANCHORS if known is None else fit_anchors(known, PER_LEVEL, STRIDES, constant)
                value = [[list(map(float, size)) for size in level] for level in fitted]
            out[key] = value
        return out

    return walk(spec)


def describe(spec: Mapping[str, Any]) -> str:
    """The anchors of a dense head and C, a line a level."""
    head = spec.get("head", {})
    lines = [f"constant C = {head['constant']} px"] if "constant" in head else []
    for stride, level in zip(STRIDES, head.get("anchors", []), strict=False):
        lines.append(f"anchors at stride {stride}: " + ", ".join(f"{w:g}x{h:g}" for w, h in level) + " px")
    return "\n".join(lines)


def object_sizes(boxes: Tensor, sizes_hw: Tensor, imgsz: int) -> Tensor:
    """(K, 2) w, h in px of the network input.

    Args:
        boxes: (K, 4) xyxy in px of the original image.
        sizes_hw: (K, 2) height and width of each box's image.
        imgsz: longer side of the network input.
    """
    scale = imgsz / sizes_hw.amax(dim=1, keepdim=True).clamp(min=1)
    return (sides(boxes) * scale).to(torch.float32)
