"""Convolutions, initialisation and freezing that several backbones, necks and heads share."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def conv_layer(inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = False) -> nn.Sequential:
    """Convolution with bias under the name `conv`, padded to keep the size at stride 1, with ReLU if wanted."""
    layers = OrderedDict(conv=nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2))
    if relu:
        layers["activate"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def xavier_uniform(module: nn.Module) -> None:
    """Glorot's uniform initialisation and no bias, for the convolutions and linear layers of `module`."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            nn.init.zeros_(child.bias)


def freeze(module: nn.Module) -> None:
    """No gradients for `module`, and its batch norm keeps its statistics."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def norms_to_eval(module: nn.Module) -> None:
    """Batch norm of `module` uses its running statistics; its weight and bias still learn."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eval()
