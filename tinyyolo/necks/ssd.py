"""SSD's neck: the fine map normalised, and ever coarser maps behind the last one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.config import above, whole
from tinyyolo.layers.blocks import conv_layer, initialise

NORM_EPS = 1e-10


class SSDNeck(nn.Module):
    """Maps of a backbone -> the same, the finest one normalised, and extra levels, finest first (Liu et al., 2016a).

    An extra level is a 1x1 convolution to half its channels and a 3x3 one of stride 2, each with ReLU, on the level
    before. SSD-512's last one is 4x4 of stride 1, which leaves one cell of the 2x2 of a 512 px image.

    Args:
        in_channels, in_strides: of the backbone's maps, finest first.
        channels: of each extra level.
        last_kernel: side of the last level's convolution, which then has stride 1; null: as the others.
        scale: what the learnt factor of each channel of the finest map starts from.

    Raises:
        ValueError: channels no whole numbers of at least 2, last_kernel under 2, or scale not above 0.

    Examples:
        >>> neck = SSDNeck((8, 16), (8, 16), channels=(8, 8), last_kernel=4)
        >>> neck.strides, [tuple(x.shape) for x in neck([torch.zeros(1, 8, 8, 8), torch.zeros(1, 16, 4, 4)])]
        ((8, 16, 32, 64), [(1, 8, 8, 8), (1, 16, 4, 4), (1, 8, 2, 2), (1, 8, 1, 1)])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Sequence[int],
        last_kernel: int | None = None,
        scale: float = 20.0,
    ):
        super().__init__()
        whole(2, channels=channels)
        if last_kernel is not None:
            whole(2, last_kernel=last_kernel)
        above(0, scale=scale)
        self.last_kernel = last_kernel
        self.channels = (*in_channels, *channels)
        self.strides = (*in_strides, *(in_strides[-1] * 2 ** (i + 1) for i in range(len(channels))))
        self.l2_norm = L2Norm(in_channels[0], scale)
        steps: list[tuple[int, int]] = [(3, 2)] * len(channels)
        if last_kernel is not None:
            steps[-1] = (last_kernel, 1)
        before = self.channels[len(in_channels) - 1 : -1]
        self.extra_layers = nn.ModuleList(
            nn.Sequential(conv_layer(i, o // 2, 1, relu=True), conv_layer(o // 2, o, *step, relu=True, padding=1))
            for i, o, step in zip(before, channels, steps, strict=True)
        )
        initialise(self, nn.init.xavier_uniform_)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Backbone maps, finest first -> maps (B, C, H, W), finest first."""
        outputs = [self.l2_norm(maps[0]), *maps[1:]]
        for i, layer in enumerate(self.extra_layers):
            x = outputs[-1]
            if self.last_kernel is not None and i == len(self.extra_layers) - 1:
                x = grown(x, self.last_kernel - 2)  # the authors' code takes no image under 257 px
            outputs.append(layer(x))
        return outputs


class L2Norm(nn.Module):
    """Every cell divided by the norm of its channels, times a learnt factor a channel (Liu et al., 2015, ParseNet).

    Examples:
        >>> L2Norm(2, 10.0)(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten().tolist()
        [6.0, 8.0]
    """

    def __init__(self, channels: int, scale: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; the norm in float32."""
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True) + NORM_EPS  # has a gradient where all is 0, too
        out: Tensor = (self.weight.float()[:, None, None] * wide / norm).to(x.dtype)
        return out


def grown(x: Tensor, side: int) -> Tensor:
    """x (B, C, H, W) with zeros on the right and below up to `side` cells."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, max(side - width, 0), 0, max(side - height, 0)))
