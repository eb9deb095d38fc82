"""YOLOv3's neck: from the coarsest map down, five convolutions a level."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.config import whole
from tinyyolo.layers.blocks import leaky_conv


class YOLOv3Neck(nn.Module):
    """Maps of a backbone -> as many, finest first (Redmon and Farhadi, 2018, section 2.3).

    From the coarsest: 1x1 to n channels, 3x3 to 2 n, 1x1, 3x3, 1x1 to n; then 1x1 to the next level's n, twice the
    size, and the backbone's next map behind it. `detect1` is the coarsest level's, as in the authors' checkpoints.

    Args:
        in_channels, in_strides: of the backbone's maps, finest first.
        channels: n of each level, finest first.

    Raises:
        ValueError: channels not one whole number of at least 1 for each map.

    Examples:
        >>> neck = YOLOv3Neck((8, 16), (8, 16), channels=(2, 4))
        >>> [tuple(x.shape) for x in neck([torch.zeros(1, 8, 5, 3), torch.zeros(1, 16, 3, 2)])]
        [(1, 2, 5, 3), (1, 4, 3, 2)]
    """

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int], channels: Sequence[int]):
        super().__init__()
        whole(1, channels=channels)
        if len(channels) != len(in_channels):
            raise ValueError(f"channels={list(channels)}: expected one number for each of {len(in_channels)} maps")
        self.channels, self.strides = tuple(channels), tuple(in_strides)
        above = 0
        for i, (inputs, width) in enumerate(zip(in_channels[::-1], channels[::-1], strict=True), start=1):
            if above:
                self.add_module(f"conv{i - 1}", leaky_conv(above, width, kernel=1))
                inputs += width
            self.add_module(f"detect{i}", five(inputs, width))
            above = width

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Backbone maps -> maps (B, n, H, W) of the same sizes, both finest first."""
        outputs: list[Tensor] = []
        for i, x in enumerate(reversed(maps), start=1):
            if outputs:
                up = F.interpolate(self.get_submodule(f"conv{i - 1}")(outputs[-1]), size=x.shape[-2:], mode="nearest")
                x = torch.cat((up, x), 1)
            outputs.append(self.get_submodule(f"detect{i}")(x))
        return outputs[::-1]


def five(inputs: int, width: int) -> nn.Sequential:
    """The block of a level: 1x1 and 3x3 in turn, five of them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (outputs, kernel) in enumerate([(width, 1), (2 * width, 3)] * 2 + [(width, 1)], start=1):
        layers[f"conv{i}"] = leaky_conv(inputs, outputs, kernel)
        inputs = outputs
    return nn.Sequential(layers)
