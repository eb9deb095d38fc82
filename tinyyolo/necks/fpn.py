"""Feature pyramid network with extra coarse levels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.config import whole, within
from tinyyolo.layers.blocks import conv_layer, initialise

EXTRA_LEVELS = ("pool", "conv", "conv_on_output")
MOST_LEVELS = 16  # whose last stride, 2^15 times the first, is beyond any image


class FPN(nn.Module):
    """Maps of a backbone -> maps of equal channels, finest first, with coarser levels added (Lin et al., 2017a).

    Args:
        in_channels: channels of the backbone's maps, finest first.
        in_strides: their strides.
        channels: channels of every output.
        levels: number of outputs.
        start_level: index of the first backbone map that is used.
        extra: the levels beyond the backbone's: "pool" takes every second cell of the last output (Faster R-CNN),
            "conv" adds 3x3 convolutions of stride 2, the first on the backbone's last map, without ReLU between
            (RetinaNet); "conv_on_output" begins on the last output instead and has a ReLU between (FCOS).
        norm_groups: of a group norm behind every convolution, which then has no bias; 0 is none.

    Raises:
        ValueError: channels < 1, unknown kind of extra levels, fewer outputs than used maps or over 16, or no such
            start level.

    Examples:
        >>> import torch
        >>> neck = FPN((8, 16), (4, 8), channels=4, levels=3)
        >>> neck.strides, [tuple(m.shape) for m in neck([torch.zeros(1, 8, 6, 6), torch.zeros(1, 16, 3, 3)])]
        ((4, 8, 16), [(1, 4, 6, 6), (1, 4, 3, 3), (1, 4, 2, 2)])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: int = 256,
        levels: int = 5,
        start_level: int = 0,
        extra: str = "pool",
        norm_groups: int = 0,
    ):
        super().__init__()
        whole(1, channels=channels, levels=levels)
        whole(0, norm_groups=norm_groups)
        within(1, MOST_LEVELS, levels=levels)
        if extra not in EXTRA_LEVELS:
            raise ValueError(f"extra={extra}: choices are {', '.join(EXTRA_LEVELS)}")
        if not 0 <= start_level < len(in_channels):
            raise ValueError(f"start_level={start_level}: choices are 0 to {len(in_channels) - 1}")
        used = list(in_channels)[start_level:]
        if levels < len(used):
            raise ValueError(f"levels={levels}: the maps from start_level={start_level} on need at least {len(used)}")
        self.start_level, self.extra = start_level, extra
        self.added = levels - len(used)
        strides = list(in_strides)[start_level:]
        self.strides = tuple(strides + [strides[-1] * 2 ** (i + 1) for i in range(self.added)])
        self.channels = (channels,) * levels

        layer = partial(conv_layer, norm_groups=norm_groups)
        self.lateral_convs = nn.ModuleList(layer(c, channels, kernel=1) for c in used)
        self.fpn_convs = nn.ModuleList(layer(channels, channels, kernel=3) for _ in used)
        if extra != "pool":
            sources = [used[-1] if extra == "conv" else channels] + [channels] * (self.added - 1)
            self.fpn_convs.extend(layer(c, channels, kernel=3, stride=2) for c in sources[: self.added])
        initialise(self, nn.init.xavier_uniform_)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Backbone maps, finest first -> `levels` maps (B, channels, H/stride, W/stride), finest first."""
        used = list(maps)[self.start_level :]
        tops = [lateral(x) for lateral, x in zip(self.lateral_convs, used, strict=True)]
        for i in range(len(tops) - 1, 0, -1):
            tops[i - 1] = tops[i - 1] + F.interpolate(tops[i], size=tops[i - 1].shape[-2:], mode="nearest")
        outputs = [self.fpn_convs[i](x) for i, x in enumerate(tops)]
        x = used[-1] if self.extra == "conv" else outputs[-1]
        for i in range(self.added):  # "pool" takes every second cell
            if i and self.extra == "conv_on_output":
                x = F.relu(x)
            x = F.max_pool2d(x, 1, stride=2) if self.extra == "pool" else self.fpn_convs[len(used) + i](x)
            outputs.append(x)
        return outputs
