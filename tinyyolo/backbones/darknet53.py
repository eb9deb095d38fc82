"""DarkNet-53 of YOLOv3, as the published row trains it: batch norm in eval mode, nothing frozen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from tinyyolo.backbones.base import Backbone
from tinyyolo.config import whole
from tinyyolo.layers.blocks import leaky_conv

RETURNED = 3  # stages


class Darknet53(Backbone):
    """Image (B, 3, H, W) -> maps of the last three of five stages, at strides 8, 16, 32, finest first.

    A stage is a 3x3 convolution of stride 2 that doubles the channels, and residual blocks of a 1x1 convolution to half
    the channels and a 3x3 one back (Redmon and Farhadi, 2018, table 1).

    Args:
        width: channels of the stem.
        blocks: residual blocks in each of the five stages.
        norm_eval: all batch norm in eval mode during training, with weight and bias still learnt. Set it False when
            training from scratch.

    Raises:
        ValueError: width no whole number of at least 1, or blocks not five such numbers.

    Examples:
        >>> import torch
        >>> backbone = Darknet53(width=4, blocks=(1, 1, 1, 1, 1))
        >>> [tuple(x.shape[1:]) for x in backbone(torch.zeros(1, 3, 64, 96))]
        [(32, 8, 12), (64, 4, 6), (128, 2, 3)]
    """

    def __init__(self, width: int = 32, blocks: Sequence[int] = (1, 2, 8, 8, 4), norm_eval: bool = True):
        super().__init__()
        whole(1, width=width, blocks=blocks)
        if len(blocks) != 5:
            raise ValueError(f"blocks={list(blocks)}: expected five numbers, one a stage")
        self.norm_eval = norm_eval
        widths = [width * 2**i for i in range(len(blocks) + 1)]
        self.conv1 = leaky_conv(3, width, kernel=3)
        self.stages = [f"conv_res_block{i + 1}" for i in range(len(blocks))]
        for name, (inputs, outputs), count in zip(self.stages, pairwise(widths), blocks, strict=True):
            parts: OrderedDict[str, nn.Module] = OrderedDict(conv=leaky_conv(inputs, outputs, kernel=3, stride=2))
            parts |= {f"res{j}": Residual(outputs) for j in range(count)}
            self.add_module(name, nn.Sequential(parts))
        self.channels = tuple(widths[-RETURNED:])
        self.strides = tuple(2 ** (i + 1) for i in range(len(blocks)))[-RETURNED:]
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> three maps, finest first."""
        x, maps = self.conv1(images), []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps[-RETURNED:]


class Residual(nn.Module):
    """1x1 to half the channels, 3x3 back, and the input added after the activation."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2 or 1
        self.conv1 = leaky_conv(channels, half, kernel=1)
        self.conv2 = leaky_conv(half, channels, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        out: Tensor = x + self.conv2(self.conv1(x))
        return out
