"""The pyramid on top of HRNet: one fused fine map, pooled to every level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.config import whole, within
from tinyyolo.layers.blocks import conv_layer, initialise
from tinyyolo.necks.fpn import MOST_LEVELS


class HRFPN(nn.Module):
    """Maps of HRNet -> maps of equal channels, finest first (Sun et al., 2019, HRNetV2p).

    All maps are brought to the finest by bilinear upsampling, concatenated and mixed by a 1x1 convolution; level i is
    the average over windows of 2^i x 2^i, followed by a 3x3 convolution of its own. A last level of odd size is
    rounded down, so the anchors must follow the sizes of the maps.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        in_strides: their strides.
        channels: channels of every output.
        levels: number of outputs.

    Raises:
        ValueError: channels or levels < 1, or over 16 levels.

    Examples:
        >>> neck = HRFPN((2, 4), (4, 8), channels=6, levels=3)
        >>> [tuple(m.shape[1:]) for m in neck([torch.zeros(1, 2, 10, 10), torch.zeros(1, 4, 5, 5)])]
        [(6, 10, 10), (6, 5, 5), (6, 2, 2)]
    """

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int], channels: int = 256, levels: int = 5):
        super().__init__()
        whole(1, channels=channels, levels=levels)
        within(1, MOST_LEVELS, levels=levels)
        self.strides = tuple(in_strides[0] * 2**i for i in range(levels))
        self.channels = (channels,) * levels
        self.reduction_conv = conv_layer(sum(in_channels), channels, kernel=1)
        self.fpn_convs = nn.ModuleList(conv_layer(channels, channels, kernel=3) for _ in range(levels))
        initialise(self, partial(nn.init.kaiming_uniform_, a=1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Backbone maps, finest first -> `levels` maps, finest first."""
        size = maps[0].shape[-2:]
        same = [maps[0], *(F.interpolate(x, size=size, mode="bilinear") for x in maps[1:])]
        fused = self.reduction_conv(torch.cat(same, dim=1))
        pooled = [fused, *(F.avg_pool2d(fused, 2**i) for i in range(1, len(self.fpn_convs)))]
        return [conv(x) for conv, x in zip(self.fpn_convs, pooled, strict=True)]
