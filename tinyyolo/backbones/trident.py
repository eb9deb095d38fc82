"""TridentNet's body (Li et al., 2019b): one set of weights sees every image at several dilations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from tinyyolo.backbones.base import check_depth
from tinyyolo.backbones.resnet import DEPTHS, ResNet
from tinyyolo.config import whole

STAGES = 3


class TridentConv2d(nn.Conv2d):
    """A convolution of several dilations and one set of weights; padded so that all give maps of one size.

    In training the input holds the images once a dilation, all of the first dilation before all of the second, and so
    does the output; in eval mode all of it belongs to one dilation, `branch`.

    Args:
        conv: whose weights and stride are taken over.
        dilations: one a branch.
        branch: index of the dilation in eval mode.
    """

    def __init__(self, conv: nn.Conv2d, dilations: Sequence[int], branch: int):
        inputs, outputs, (kernel, _), (stride, _) = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride
        super().__init__(inputs, outputs, kernel, stride, bias=conv.bias is not None)
        self.weight, self.bias = conv.weight, conv.bias
        self.dilations, self.branch, self.reach = tuple(dilations), branch, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        if not self.training:
            return self._dilated(x, self.dilations[self.branch])
        branches = zip(x.chunk(len(self.dilations)), self.dilations, strict=True)
        return torch.cat([self._dilated(y, dilation) for y, dilation in branches])

    def _dilated(self, x: Tensor, dilation: int) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.reach * dilation, dilation)


class TridentResNet(ResNet):
    """Image (B, 3, H, W) -> one map at stride 16: in eval mode (B, D, H/16, W/16), in training (K * B, D, H/16, W/16).

    In training a map holds every image once for each of the K branches, all images of the first branch before all of
    the second; the detector then takes each image's objects K times. Every branch learns all objects, as in the
    official code of the published row, which left out the paper's ranges of scale. Parameter names are torchvision's,
    without `layer4` and `fc`: the last stage is the second stage's (`heads.c5`).

    Args:
        depth, norm_eval, style: see `ResNet`.
        frozen_stages: -1 freezes nothing, 0 the stem, 1 or 2 the stem and the first stages.
        dilations: of the 3x3 convolutions of the third stage, one a branch.
        branch: index of the dilation in eval mode ("TridentNet Fast").

    Raises:
        ValueError: unknown depth or style, no such stage or branch, or a dilation < 1.

    Examples:
        >>> backbone, image = TridentResNet(depth=10), torch.zeros(2, 3, 64, 96)
        >>> [tuple(x.shape) for x in backbone.train()(image)], [tuple(x.shape) for x in backbone.eval()(image)]
        ([(6, 256, 4, 6)], [(2, 256, 4, 6)])
    """

    # Parts of names of weights from ImageNet that are another module's.
    elsewhere = ("layer4.",)

    def __init__(
        self,
        depth: int = 50,
        frozen_stages: int = 1,
        norm_eval: bool = True,
        style: str = "caffe",
        dilations: Sequence[int] = (1, 2, 3),
        branch: int = 1,
    ):
        check_depth(depth, DEPTHS, frozen_stages, STAGES - 1)
        whole(1, dilations=list(dilations))
        if branch not in range(len(dilations)):
            raise ValueError(f"branch={branch}: choices are 0 to {len(dilations) - 1}")
        super().__init__(depth, frozen_stages, norm_eval, style)
        del self.layer4
        self.branches = len(dilations)
        for block in self.stages[-1].children():
            assert isinstance(block, BasicBlock | Bottleneck)
            block.conv2 = TridentConv2d(block.conv2, dilations, branch)
        self.channels, self.strides = self.channels[STAGES - 1 : STAGES], self.strides[STAGES - 1 : STAGES]
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one map; see the class."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        *first, last = self.stages
        for stage in first:
            x = stage(x)
        return [last(torch.cat([x] * self.branches) if self.training else x)]
