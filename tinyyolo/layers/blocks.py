"""Convolutions and initialisation that several backbones, necks and heads share."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from tinyyolo.compat import Conv

Fill = Callable[[Tensor], object]
he_normal: Fill = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")  # torchvision's for ResNets


def conv_layer(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    relu: bool = False,
    padding: int | None = None,
    norm_groups: int = 0,
) -> nn.Sequential:
    """Convolution under the name `conv`, padded to keep the size at stride 1, with ReLU if wanted.

    With `norm_groups` a group norm `gn` of so many groups follows, and the convolution has no bias.
    """
    pad = kernel // 2 if padding is None else padding
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, padding=pad, bias=not norm_groups)
    )
    if norm_groups:
        layers["gn"] = nn.GroupNorm(norm_groups, outputs)
    if relu:
        layers["activate"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def leaky_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """Convolution without bias, batch norm and leaky ReLU of slope .1, under the names `conv` and `bn` (YOLOv3)."""
    layer: nn.Module = Conv(inputs, outputs, kernel, stride, act=nn.LeakyReLU(0.1, inplace=True))
    return layer


def initialise(module: nn.Module, fill: Fill | None, bias: float = 0.0) -> None:
    """Fill the weights of the convolutions and linear layers of `module`, and set their biases.

    Args:
        module: changed in place, child by child in its own order.
        fill: of `nn.init`, for the weights; see also `he_normal` and `normal`. None leaves them.
        bias: of every output.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.Linear):
            if fill is not None:
                fill(child.weight)
            if child.bias is not None:
                nn.init.constant_(child.bias, bias)


def normal(std: float) -> Fill:
    """Normal around 0, for `initialise`."""
    return partial(nn.init.normal_, std=std)


def logit(probability: float) -> float:
    """The bias from which a sigmoid starts at this probability, in (0, 1)."""
    return math.log(probability / (1 - probability))
