"""ResNet of torchvision, as the published detectors train it: first stages frozen, batch norm in eval mode."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from tinyyolo.backbones.base import StagedResNet, check_depth

# depth -> (block, blocks in each of the four stages); 10 is for tests
DEPTHS = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_STRIDES = (4, 8, 16, 32)
STYLES = ("pytorch", "caffe")


class ResNet(StagedResNet, TorchvisionResNet):  # type: ignore[misc]  # torchvision has no types
    """Image (B, 3, H, W) -> maps of the four stages at strides 4, 8, 16, 32, finest first.

    Parameter names are torchvision's, without `fc`.

    Args:
        depth: 10, 18, 34, 50 or 101.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: all batch norm in eval mode during training, with weight and bias still learnt (He et al., 2016, as
            fine-tuned in the published rows). Set it False when training from scratch.
        style: "caffe" is the network of weights that come from Caffe: bottlenecks have their stride in the first 1x1
            convolution, not in the 3x3, and no batch norm ever learns. See `normalize` for its images.

    Raises:
        ValueError: unknown depth or style, or no such stage.

    Examples:
        >>> import torch
        >>> backbone = ResNet(depth=18, frozen_stages=1)
        >>> [tuple(m.shape[1:]) for m in backbone(torch.zeros(1, 3, 64, 96))]
        [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    """

    maxpool: nn.MaxPool2d
    relu: nn.ReLU

    def __init__(self, depth: int = 50, frozen_stages: int = 1, norm_eval: bool = True, style: str = "pytorch"):
        check_depth(depth, DEPTHS, frozen_stages)
        if style not in STYLES:
            raise ValueError(f"style={style}: choices are {', '.join(STYLES)}")
        block, blocks = DEPTHS[depth]
        super().__init__(block, list(blocks))
        del self.avgpool, self.fc
        self.frozen_stages, self.norm_eval, self.style = frozen_stages, norm_eval, style
        for module in self.modules():
            if style == "caffe" and isinstance(module, Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        self.channels = tuple(width * block.expansion for width in STAGE_WIDTHS)
        self.strides = STAGE_STRIDES
        self.train()

    def frozen(self) -> Iterable[nn.Module]:
        """The stem and the first stages; in the style of Caffe all batch norm, too."""
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)] if self.style == "caffe" else []
        return (*super().frozen(), *norms)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps, finest first."""
        x, maps = self.maxpool(self.relu(self.bn1(self.conv1(images)))), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
