"""What the published backbones share: which part of them a trainer may not move."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from torch import nn

Self = TypeVar("Self", bound="Backbone")


class Backbone(nn.Module):
    """Image (B, 3, H, W) -> maps, finest first; stays partly in eval mode during training.

    The frozen part is frozen again by every call of `train()`, because a trainer may set `requires_grad` on everything
    before it starts.

    Attributes:
        channels, strides: of the maps.
        norm_eval: all batch norm in eval mode during training, with weight and bias still learnt.
    """

    channels: Sequence[int]
    strides: Sequence[int]
    norm_eval: bool

    def frozen(self) -> Iterable[nn.Module]:
        """The modules that never learn."""
        return ()

    def train(self: Self, mode: bool = True) -> Self:
        """Train mode with the frozen part and, if `norm_eval`, all batch norm left in eval mode."""
        super().train(mode)
        for module in self.frozen():
            module.eval().requires_grad_(False)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class StagedResNet(Backbone):
    """A backbone of a stem `conv1`, `bn1` and stages `layer1` to `layer4`, the first of which may be frozen.

    Attributes:
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
    """

    frozen_stages: int
    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The stages, four or fewer, finest first."""
        return tuple(stage for name, stage in self.named_children() if name.startswith("layer"))

    def frozen(self) -> Iterable[nn.Module]:
        """The stem and the first stages."""
        return () if self.frozen_stages < 0 else (self.conv1, self.bn1, *self.stages[: self.frozen_stages])


def check_depth(depth: int, choices: Collection[int], frozen_stages: int, stages: int = 4) -> None:
    """Refuse a ResNet that there is not.

    Raises:
        ValueError: unknown depth, or no such stage to freeze.
    """
    if depth not in choices:
        raise ValueError(f"depth={depth}: choices are {', '.join(map(str, choices))}")
    if frozen_stages not in range(-1, stages + 1):
        raise ValueError(f"frozen_stages={frozen_stages}: choices are -1 to {stages}")
