"""Blocks of upstream's as a graph runs them quickest."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from tinyyolo.compat import C2f


class Halves(nn.Module):
    """`C2f` with its first convolution in two: onnxruntime would unpack its blocks of channels to cut it.

    Args:
        block: fused; stays as it is.
    """

    def __init__(self, block: C2f):
        super().__init__()
        halves: list[Any] = [deepcopy(block.cv1), deepcopy(block.cv1)]
        for half, rows in zip(halves, (slice(block.c), slice(block.c, None)), strict=True):
            half.conv.weight, half.conv.bias = (nn.Parameter(x[rows]) for x in (half.conv.weight, half.conv.bias))
            half.conv.out_channels = block.c
        self.first, self.m, self.cv2 = nn.ModuleList(halves), block.m, block.cv2

    def forward(self, x: Tensor) -> Tensor:
        """As upstream's."""
        y = [half(x) for half in self.first]
        for part in self.m:
            y.append(part(y[-1]))
        said: Tensor = self.cv2(torch.cat(y, 1))
        return said


def halved(network: Any) -> Any:
    """A fused network, changed: every `C2f` in it as `Halves`."""
    for parent in [*network.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, C2f):
                setattr(parent, name, Halves(child))
    return network
