"""Recursive feature pyramid of DetectoRS (Qiao et al., 2021): a second backbone looks again, with the first pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tinyyolo.backbones.detectors_resnet import DetectoRSResNet
from tinyyolo.config import whole
from tinyyolo.layers.aspp import ASPP
from tinyyolo.layers.blocks import initialise
from tinyyolo.necks.fpn import FPN


class RFP(FPN):
    """FPN run `steps` times: each further step feeds the pyramid, through an ASPP, into a second backbone.

    new = FPN(second backbone(image, ASPP(P3-P5))), then on every level sigma * new + (1 - sigma) * old with
    sigma = sigmoid(rfp_weight(new)). The FPN's convolutions and the ASPP are the same in all steps.

    Args:
        in_channels: (3, C2, C3, C4, C5): the image, then the backbone's maps, finest first.
        in_strides: their strides.
        backbone: the first backbone; every further step gets a `twin` of it, which starts with the same weights.
        channels: channels of every output.
        levels: number of outputs, those beyond the backbone's by taking every second cell.
        steps: how often the pyramid is made; 1 is a plain FPN.

    Raises:
        ValueError: steps < 1, a backbone without a twin, or as FPN and ASPP.

    Examples:
        >>> import torch
        >>> backbone = DetectoRSResNet(depth=14, width=4)
        >>> neck = RFP(backbone.channels, backbone.strides, backbone, channels=16)
        >>> neck.strides, [tuple(m.shape[1:]) for m in neck(backbone(torch.zeros(1, 3, 96, 96)))][:2]
        ((4, 8, 16, 32, 64), [(16, 24, 24), (16, 12, 12)])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        backbone: DetectoRSResNet,
        channels: int = 256,
        levels: int = 5,
        steps: int = 2,
    ):
        whole(1, steps=steps, channels=channels)
        if not isinstance(backbone, DetectoRSResNet):
            raise ValueError("a recursive pyramid needs a backbone of type detectors_resnet, which looks twice")
        super().__init__(in_channels[1:], in_strides[1:], channels, levels)
        self.rfp_modules = nn.ModuleList(backbone.twin(channels) for _ in range(steps - 1))
        self.rfp_aspp = ASPP(channels, channels)
        self.rfp_weight = nn.Conv2d(channels, 1, 1)
        initialise(self.rfp_weight, nn.init.zeros_)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The image and backbone maps, finest first -> `levels` maps (B, channels, H/stride, W/stride)."""
        image, *stages = maps
        pyramid = super().forward(stages)
        for backbone in self.rfp_modules:
            feedback = [self.rfp_aspp(x) for x in pyramid[1 : len(stages)]]
            _, *stages = backbone(image, feedback)
            again = super().forward(stages)
            shares = (self.rfp_weight(new).sigmoid() for new in again)
            pyramid = [s * new + (1 - s) * old for s, new, old in zip(shares, again, pyramid, strict=True)]
        return pyramid
