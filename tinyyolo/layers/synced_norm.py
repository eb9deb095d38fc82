"""Batch norm by the statistics of the whole batch, of which every process has a part."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinyyolo.together import SHARING


class SyncedNorm(nn.BatchNorm2d):
    """Batch norm (Ioffe and Szegedy, 2015) whose mean and variance in training are those of all processes' images.

    torch's SyncBatchNorm does so on GPUs alone, and is no BatchNorm2d, which is what freezing and fusing look for.
    Tensors have the same names as before; outside `together.sharing` it is a plain batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if not (self.training and SHARING.get()):
            plain: Tensor = super().forward(input)
            return plain
        x = input.float()
        sums = Sum.apply(torch.cat([x.sum((0, 2, 3)), x.new_tensor([x.numel() / x.shape[1]])]))
        total = sums[-1]  # a tensor: nobody waits for a number
        mean = sums[:-1] / total
        centred = x - mean.view(1, -1, 1, 1)
        variance = Sum.apply(centred.square().sum((0, 2, 3))) / total
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean), share)
                unbiased = variance * total / (total - 1).clamp(min=1)
                self.running_var.lerp_(unbiased.to(self.running_var), share)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        out: Tensor = centred * scale.view(1, -1, 1, 1)
        out = out + self.bias.view(1, -1, 1, 1) if self.affine else out
        return out.to(input)


class Sum(torch.autograd.Function):
    """The sum over the processes, and of gradients on the way back."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        """As it says."""
        out = value.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        """As it says."""
        out = grad.clone()
        dist.all_reduce(out)
        return out


def sync(model: nn.Module) -> None:
    """Make every BatchNorm2d in a model a `SyncedNorm`, in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedNorm
