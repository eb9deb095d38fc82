"""Path aggregation network: top-down, then bottom-up (Liu et al., CVPR 2018), with CSP blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tinyyolo.boxes.graph import for_onnx
from tinyyolo.compat import C2f, Conv, initialize_weights
from tinyyolo.config import whole


class PAN(nn.Module):
    """Top-down and bottom-up fusion of L maps.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        in_strides: their strides.
        channels: output channels per level, finest first.
        depth: bottlenecks per CSP block.

    Attributes:
        channels, strides: of the outputs.

    Raises:
        ValueError: not one entry of `channels` per map, or one of them or `depth` is no whole number of at least 1.
    """

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int], channels: Sequence[int], depth: int = 1):
        super().__init__()
        whole(1, channels=channels, depth=depth)
        if len(channels) != len(in_channels):
            raise ValueError(f"channels={list(channels)}: one entry per backbone map, {len(in_channels)}, is needed")
        self.channels, self.strides = list(channels), list(in_strides)
        top = [*channels[:-1], in_channels[-1]]  # the coarsest map enters the bottom-up path as it is
        levels = range(len(channels) - 1)
        self.top_down = nn.ModuleList(C2f(in_channels[i] + top[i + 1], channels[i], depth) for i in levels)
        self.downsample = nn.ModuleList(Conv(channels[i], channels[i], 3, 2) for i in levels)
        self.bottom_up = nn.ModuleList(C2f(channels[i] + top[i + 1], channels[i + 1], depth) for i in levels)
        initialize_weights(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """L maps -> L maps, finest first."""
        fused = list(maps)
        for i in reversed(range(len(self.top_down))):
            # A fixed factor lets onnxruntime keep its blocks of channels; sides of exports are multiples of strides.
            place = (
                {"scale_factor": self.strides[i + 1] // self.strides[i]}
                if for_onnx()
                else {"size": fused[i].shape[-2:]}
            )
            up = interpolate(fused[i + 1], **place, mode="nearest")
            fused[i] = self.top_down[i](torch.cat([up, fused[i]], dim=1))
        out = [fused[0]]
        for i, (down, block) in enumerate(zip(self.downsample, self.bottom_up, strict=True)):
            out.append(block(torch.cat([down(out[-1]), fused[i + 1]], dim=1)))
        return out
