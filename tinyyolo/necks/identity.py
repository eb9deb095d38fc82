"""No neck: the heads see the backbone's maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Identity(nn.Module):
    """The backbone's maps as they are.

    Args:
        in_channels, in_strides: of the backbone's maps.

    Examples:
        >>> import torch
        >>> neck, maps = Identity((8,), (16,)), [torch.zeros(1, 8, 2, 2)]
        >>> neck(maps)[0] is maps[0], neck.channels, neck.strides
        (True, (8,), (16,))
    """

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int]):
        super().__init__()
        self.channels, self.strides = tuple(in_channels), tuple(in_strides)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps -> the same maps."""
        return maps
