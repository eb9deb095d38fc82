"""A small CSP-Darknet whose width is set level by level, so that it can be spent where tiny objects live."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tinyyolo.compat import SPPF, C2f, Conv, initialize_weights
from tinyyolo.config import whole


class Darknet(nn.Module):
    """Stem, then one stride-2 stage per level; the map of each is returned, P2 first.

    Args:
        channels: output channels of the stem (stride 2) and of the stages at stride 4, 8, 16, and so on.
        depths: bottlenecks in the CSP block of each stage.
        in_channels: image channels.
        pools: max pools of 5 x 5 cells over the last map, one after the other (SPPF); 0: the map as it is. Each lets it
            see 2 cells further each way, 64 px: a score then depends on more of what lies beyond a window of a scene.

    Attributes:
        channels, strides: of the returned maps, finest first.
        channels_last: its narrow layers train a quarter faster on channels-last maps on a CPU.

    Raises:
        ValueError: `channels` has not one entry more than `depths`, or one of them is no whole number of at least 1,
            or `pools` none of at least 0.

    Examples:
        >>> import torch
        >>> net = Darknet(channels=(8, 16, 16, 16, 16), depths=(1, 1, 1, 1))
        >>> [tuple(m.shape) for m in net(torch.zeros(1, 3, 64, 64))]
        [(1, 16, 16, 16), (1, 16, 8, 8), (1, 16, 4, 4), (1, 16, 2, 2)]
    """

    channels_last = True

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        depths: Sequence[int] = (1, 2, 2, 1),
        in_channels: int = 3,
        pools: int = 3,
    ):
        super().__init__()
        whole(1, channels=channels, depths=depths, in_channels=in_channels)
        whole(0, pools=pools)
        if len(channels) != len(depths) + 1:
            raise ValueError(
                f"channels={list(channels)}: one entry more than depths={list(depths)} is needed, the stem"
            )
        self.stem = Conv(in_channels, channels[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(Conv(c1, c2, 3, 2), C2f(c2, c2, n, shortcut=True))
            for c1, c2, n in zip(channels, channels[1:], depths, strict=False)
        )
        self.pool = SPPF(channels[-1], channels[-1], 5, pools) if pools else nn.Identity()
        initialize_weights(self)  # upstream's batch norm: averages over three times as many batches as torch's
        self.channels = list(channels[1:])
        self.strides = [4 * 2**i for i in range(len(depths))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps, finest first."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps[-1] = self.pool(maps[-1])
        return maps
