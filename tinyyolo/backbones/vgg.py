"""VGG of torchvision without batch norm, its fully connected layers turned into convolutions, as SSD takes it."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import vgg

from tinyyolo.backbones.base import Backbone
from tinyyolo.config import whole
from tinyyolo.layers.blocks import he_normal, initialise

DEPTHS = {11: "A", 13: "B", 16: "D", 19: "E"}  # torchvision's names of them
FULL_WIDTH = 64  # channels of the first convolution
FC_WIDTH = 16  # channels of fc6 and fc7, in those of the first convolution
DILATION = 6  # of fc6: its 3x3 taps see what 7x7 ones saw


class VGG(Backbone):
    """Image (B, 3, H, W) -> conv4_3 at stride 8 and fc7 at stride 16, after ReLU (Liu et al., 2016a, section 3).

    Poolings round up, the last one is 3x3 of stride 1; parameter names are torchvision's (`features.N`), fc6 and fc7
    follow on. Nothing is frozen.

    Args:
        depth: 11, 13, 16 or 19.
        width: channels of the first convolution; all others in proportion, fc6 and fc7 16 times as many.

    Raises:
        ValueError: unknown depth, or width no whole number of at least 1.

    Examples:
        >>> import torch
        >>> backbone = VGG(depth=11, width=4)
        >>> [tuple(x.shape[1:]) for x in backbone(torch.zeros(1, 3, 64, 100))]
        [(32, 8, 13), (64, 4, 7)]
    """

    norm_eval = False  # there is no norm

    def __init__(self, depth: int = 16, width: int = FULL_WIDTH):
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth={depth}: choices are {', '.join(map(str, DEPTHS))}")
        whole(1, width=width)
        layers = vgg.make_layers([v if v == "M" else v * width // FULL_WIDTH for v in vgg.cfgs[DEPTHS[depth]]])
        pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        for i in pools:
            layers[i].ceil_mode = True
        layers[pools[-1]] = nn.MaxPool2d(3, stride=1, padding=1)
        self.taps = (pools[3] - 1, len(layers) + 3)  # the ReLU before the fourth pooling, the last one of all
        last, fc = layers[pools[3] - 2].out_channels, FC_WIDTH * width
        self.not_pretrained = (f"features.{len(layers)}.", f"features.{len(layers) + 2}.")  # fc6, fc7
        layers.extend([nn.Conv2d(last, fc, 3, padding=DILATION, dilation=DILATION), nn.ReLU(inplace=True)])
        layers.extend([nn.Conv2d(fc, fc, 1), nn.ReLU(inplace=True)])
        self.features = layers
        self.channels, self.strides = (last, fc), (8, 16)
        initialise(self, he_normal)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> two maps, finest first."""
        x, maps = images, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps
