"""Atrous spatial pyramid pooling as DetectoRS has it (Qiao et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ASPP_KERNELS = (1, 3, 3)
ASPP_DILATIONS = (1, 3, 6)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, 3x3 dilation 3, 3x3 dilation 6, and the global mean, concatenated.

    Args:
        inputs: channels that enter.
        channels: channels that leave, a quarter from each branch, with ReLU.

    Raises:
        ValueError: `channels` is no multiple of 4.

    Examples:
        >>> tuple(ASPP(8, 16)(torch.zeros(2, 8, 5, 6)).shape)
        (2, 16, 5, 6)
    """

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        branches = len(ASPP_KERNELS) + 1
        if channels % branches:
            raise ValueError(f"channels={channels}: must be a multiple of {branches}")
        local = [
            nn.Conv2d(inputs, channels // branches, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            for kernel, dilation in zip(ASPP_KERNELS, ASPP_DILATIONS, strict=True)
        ]
        self.aspp = nn.ModuleList([*local, nn.Conv2d(inputs, channels // branches, 1)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, channels, H, W)."""
        *local, glob = self.aspp
        mean = glob(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return F.relu(torch.cat([*(branch(x) for branch in local), mean], dim=1), inplace=True)
