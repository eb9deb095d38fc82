"""ResNet of DetectoRS (Qiao et al., 2021): standardised weights, switchable atrous convolution in stages 2-4."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tinyyolo.backbones.base import StagedResNet, check_depth
from tinyyolo.backbones.resnet import STAGE_STRIDES
from tinyyolo.config import whole
from tinyyolo.layers.blocks import initialise
from tinyyolo.layers.sac import ConvAWS2d, SAConv2d

# depth -> blocks in each of the four stages; 14 is for tests, 26 for laptops
DEPTHS = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
EXPANSION = 4
STEM_KERNEL = 7
IMAGE_CHANNELS = 3


class Block(nn.Module):
    """Bottleneck 1x1, 3x3, 1x1 with a shortcut; names as torchvision's; the 3x3 is a SAConv2d if `switchable`."""

    def __init__(self, inputs: int, width: int, stride: int, switchable: bool):
        super().__init__()
        outputs = width * EXPANSION
        self.conv1, self.bn1 = ConvAWS2d(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2 = SAConv2d(width, width, stride) if switchable else ConvAWS2d(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = ConvAWS2d(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs or stride != 1:
            self.downsample = nn.Sequential(ConvAWS2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.rfp_conv: nn.Conv2d | None = None

    def add_feedback(self, channels: int) -> None:
        """Give the block a 1x1 convolution, zero at first, of pyramid maps of `channels`."""
        self.rfp_conv = nn.Conv2d(channels, self.bn3.num_features, 1)
        initialise(self.rfp_conv, nn.init.zeros_)

    def forward(self, x: Tensor, feedback: Tensor | None = None) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 * width, H/stride, W/stride); `feedback` is a pyramid map of the output's size."""
        y = F.relu(self.conv1(x, self.bn1), inplace=True)
        y = F.relu(self.conv2(y, self.bn2), inplace=True)
        y = self.conv3(y, self.bn3)
        if self.downsample is None:
            y += x
        else:
            conv, norm = self.downsample
            y += conv(x, norm)
        if self.rfp_conv is not None and feedback is not None:
            y += self.rfp_conv(feedback)
        return F.relu(y, inplace=True)


class DetectoRSResNet(StagedResNet):
    """Image (B, 3, H, W) -> the image, then maps of the four stages at strides 4, 8, 16, 32.

    The image comes first because the recursive pyramid (`necks.rfp.RFP`) looks at it a second time, through the
    `twin` of this backbone. The frozen part records no gradients, whatever a trainer set on its parameters.

    Args:
        depth: 14, 26, 50 or 101.
        width: channels of the first stage's 3x3 convolutions; stage i has `width * 2**i`, and its output four times
            that. 64 is the published one.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: all batch norm in eval mode during training, with weight and bias still learnt, as in the published
            rows. Set it False when training from scratch.
        checkpoint: in training keep only the blocks' inputs and compute the rest again in the backward pass: less
            memory for more time. Needs `norm_eval`, as a second pass would count twice in running statistics.

    Raises:
        ValueError: unknown depth, width < 1, no such stage, or `checkpoint` without `norm_eval`.

    Examples:
        >>> backbone = DetectoRSResNet(depth=14, width=4)
        >>> backbone.channels, [tuple(x.shape[1:]) for x in backbone(torch.zeros(1, 3, 96, 128))]
        ((3, 16, 32, 64, 128), [(3, 96, 128), (16, 24, 32), (32, 12, 16), (64, 6, 8), (128, 3, 4)])
    """

    # Parts of names of what a network trained on ImageNet lacks.
    not_pretrained = ("weight_diff", "switch.", "pre_context.", "post_context.", "offset_s.", "offset_l.")
    conv1: ConvAWS2d

    def __init__(
        self,
        depth: int = 50,
        width: int = 64,
        frozen_stages: int = 1,
        norm_eval: bool = True,
        checkpoint: bool = False,
    ):
        super().__init__()
        check_depth(depth, DEPTHS, frozen_stages)
        whole(1, width=width)
        if checkpoint and not norm_eval:
            raise ValueError("checkpoint=True needs norm_eval=True: running statistics would be updated twice")
        self.frozen_stages, self.norm_eval, self.checkpoint = frozen_stages, norm_eval, checkpoint
        self.conv1, self.bn1 = ConvAWS2d(IMAGE_CHANNELS, width, STEM_KERNEL, stride=2), nn.BatchNorm2d(width)
        widths = [width * 2**i for i in range(len(STAGE_STRIDES))]
        self.channels = (IMAGE_CHANNELS, *(w * EXPANSION for w in widths))
        for i, (w, count) in enumerate(zip(widths, DEPTHS[depth], strict=True)):
            first = Block(self.channels[i] if i else width, w, stride=2 if i else 1, switchable=i > 0)
            rest = [Block(w * EXPANSION, w, stride=1, switchable=i > 0) for _ in range(count - 1)]
            self.add_module(f"layer{i + 1}", nn.ModuleList([first, *rest]))
        self.strides = (1, *STAGE_STRIDES)
        self.train()

    def twin(self, feedback_channels: int) -> DetectoRSResNet:
        """A copy with the same weights that also takes pyramid maps, in the first block of stages 2-4."""
        other = copy.deepcopy(self)
        for stage in other.stages[1:]:
            first = next(stage.children())
            assert isinstance(first, Block)
            first.add_feedback(feedback_channels)
        return other.train(self.training)

    def forward(self, images: Tensor, feedback: Sequence[Tensor] = ()) -> list[Tensor]:
        """(B, 3, H, W) -> image and four maps, finest first.

        Args:
            images: normalised.
            feedback: for the twin, pyramid maps of stages 2-4 at strides 8, 16, 32.
        """
        outputs = [images]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_stages < 0):
            x = F.relu(self.conv1(images, self.bn1), inplace=True)
            x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for i, (stage, fed) in enumerate(zip(self.stages, (None, *(feedback or (None,) * 3)), strict=True)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_stages <= i):
                for j, block in enumerate(stage.children()):
                    x = self._run(block, x, fed if j == 0 else None)
            outputs.append(x)
        return outputs

    def _run(self, block: nn.Module, x: Tensor, feedback: Tensor | None) -> Tensor:
        y: Tensor
        if self.checkpoint and self.training and torch.is_grad_enabled():
            y = checkpoint(block, x, feedback, use_reentrant=False, preserve_rng_state=False)
        else:
            y = block(x, feedback)
        return y
