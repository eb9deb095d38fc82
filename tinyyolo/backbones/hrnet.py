"""HRNet: branches of several resolutions side by side that exchange features after every module."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import Conv2dNormActivation

from tinyyolo.backbones.base import Backbone
from tinyyolo.layers.blocks import he_normal, initialise

WIDTHS = (18, 32, 48)
STEM_CHANNELS = 64
BLOCKS = 4  # blocks a branch in every module
MODULES = {2: 1, 3: 4, 4: 3}  # stage -> modules; stage i has i branches
STRIDES = (4, 8, 16, 32)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch norm and, if wanted, ReLU, padded to keep the size at stride 1."""
    block: nn.Sequential = Conv2dNormActivation(
        inputs, outputs, kernel, stride, activation_layer=nn.ReLU if relu else None
    )
    return block


def fusion(channels: Sequence[int], source: int, target: int) -> nn.Sequential:
    """What takes branch `source` to the channels of branch `target`, and to its size if that is coarser."""
    inputs, outputs = channels[source], channels[target]
    if source > target:
        return conv_bn(inputs, outputs, kernel=1, relu=False)
    halvings = [conv_bn(inputs, inputs, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*halvings, conv_bn(inputs, outputs, stride=2, relu=False))


class HighResolutionModule(nn.Module):
    """Four basic blocks on each branch, then every branch receives the sum of all branches at its own resolution."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c, c) for _ in range(BLOCKS))) for c in channels)
        # fuse_layers[i][j] takes branch j to branch i; there is none for j == i.
        self.fuse_layers = nn.ModuleList(
            nn.ModuleDict({str(j): fusion(channels, j, i) for j in range(len(channels)) if j != i})
            for i in range(len(channels))
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the branches, finest first -> as many maps of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [F.relu(self._gather(maps, i)) for i in range(len(maps))]

    def _gather(self, maps: list[Tensor], target: int) -> Tensor:
        size, parts = maps[target].shape[-2:], []
        for source, x in enumerate(maps):
            if source != target:
                x = self.get_submodule(f"fuse_layers.{target}.{source}")(x)
            if source > target:
                x = F.interpolate(x, size=size, mode="nearest")
            parts.append(x)
        return reduce(torch.add, parts)


class HRNet(Backbone):
    """Image (B, 3, H, W) -> maps of w, 2w, 4w and 8w channels at strides 4, 8, 16, 32, finest first.

    Sun et al., 2019 (HRNetV2). Nothing is frozen by stage. Parameter names are those of the published weights.

    Args:
        width: channels of the finest branch: 18, 32 or 48.
        norm_eval: all batch norm in eval mode during training, with weight and bias still learnt.

    Raises:
        ValueError: unknown width.

    Examples:
        >>> backbone = HRNet(width=18)
        >>> [tuple(m.shape[1:]) for m in backbone(torch.zeros(1, 3, 64, 64))]
        [(18, 16, 16), (36, 8, 8), (72, 4, 4), (144, 2, 2)]
    """

    def __init__(self, width: int = 32, norm_eval: bool = True):
        super().__init__()
        if width not in WIDTHS:
            raise ValueError(f"width={width}: choices are {', '.join(map(str, WIDTHS))}")
        self.norm_eval = norm_eval
        self.channels = tuple(width * 2**i for i in range(len(STRIDES)))
        self.strides = STRIDES

        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        first = STEM_CHANNELS * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            Bottleneck(STEM_CHANNELS, STEM_CHANNELS, downsample=conv_bn(STEM_CHANNELS, first, kernel=1, relu=False)),
            *(Bottleneck(first, STEM_CHANNELS) for _ in range(BLOCKS - 1)),
        )
        # A transition adds one branch; the first one also brings the finest branch to its width.
        self.transition1 = nn.ModuleDict(
            {"0": conv_bn(first, self.channels[0]), "1": nn.Sequential(conv_bn(first, self.channels[1], stride=2))}
        )
        for stage, modules in MODULES.items():
            channels = self.channels[:stage]
            if stage > 2:
                added = nn.Sequential(conv_bn(channels[-2], channels[-1], stride=2))
                setattr(self, f"transition{stage - 1}", nn.ModuleDict({str(stage - 1): added}))
            setattr(self, f"stage{stage}", nn.Sequential(*(HighResolutionModule(channels) for _ in range(modules))))
        initialise(self, he_normal)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps, finest first."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer1(F.relu(self.bn2(self.conv2(x))))
        maps: list[Tensor] = [self.transition1["0"](x), self.transition1["1"](x)]
        for stage in MODULES:
            if stage > 2:
                maps.append(self.get_submodule(f"transition{stage - 1}.{stage - 1}")(maps[-1]))
            maps = self.get_submodule(f"stage{stage}")(maps)
        return maps
