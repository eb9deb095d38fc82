"""Convolutions of DetectoRS (Qiao et al., 2021): weight standardisation and switchable atrous convolution.

Both take the batch norm that follows them and, while it is in eval mode (as the published rows train), fold it into
their weights: one pass over the activations less, forward and backward, and one tensor less kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from tinyyolo.sampling import bilinear_corners, sampled_matmul

VARIANCE_EPS = 1e-5
KERNEL = 3
SMALL_DILATION, LARGE_DILATION = 1, 3
POOL = 5  # window of the map that the switch and the offsets look at
STANDARDISATION = ("weight_gamma", "weight_beta")


class Memo:
    """A value made from tensors, kept until one of them changes, and never kept while gradients are recorded.

    A change is a new tensor or a write in place (an optimizer step, an EMA update, `load_state_dict`), so a model that
    stays in eval mode while its weights move is safe too.
    """

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Forget the value and release its sources."""
        self.sources: tuple[Tensor, ...] = ()
        self.versions: tuple[int, ...] = ()
        self.value: Any = None

    def get(self, sources: Sequence[Tensor], compute: Callable[[], Any]) -> Any:
        """`compute()`, or its last result if the sources are as they were."""
        if torch.is_grad_enabled() or any(source.is_inference() for source in sources):
            return compute()
        versions = tuple(source._version for source in sources)
        if versions != self.versions or not all(map(_same_memory, sources, self.sources)):
            value = compute()
            if torch.jit.is_tracing():
                return value
            # Holding the sources' memory keeps a new tensor from taking their address.
            self.sources, self.versions, self.value = tuple(s.detach() for s in sources), versions, value
        return self.value


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.device == b.device


def norm_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (C,), that a batch norm in eval mode applies."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def norm_sources(norm: nn.BatchNorm2d | None) -> tuple[Tensor, ...]:
    """The tensors that `norm_affine` reads."""
    return () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)


class ConvAWS2d(nn.Conv2d):
    """Convolution without bias whose weight is standardised per output channel, then scaled and shifted.

    weight = weight_gamma * (w - mean(w)) / sqrt(var(w) + 1e-5) + weight_beta, var unbiased; gamma and beta (O, 1, 1, 1)
    are buffers, not learnt. They start as, and where a checkpoint lacks them become, the standard deviation and mean
    of the weight, so that the convolution is at first the plain one of that weight.

    Args:
        inputs, outputs: channels.
        kernel: its side; padding keeps the size at stride 1.
        stride: step in cells.

    Examples:
        >>> conv = ConvAWS2d(4, 6, kernel=3)
        >>> torch.testing.assert_close(conv.standardised(), conv.weight)
        >>> tuple(conv(torch.zeros(1, 4, 5, 7)).shape)
        (1, 6, 5, 7)
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        for name in STANDARDISATION:
            self.register_buffer(name, torch.empty(outputs, 1, 1, 1))
        self.reset_standardisation()
        self.memo = Memo()

    @torch.no_grad()
    def reset_standardisation(self) -> None:
        """Set gamma and beta so that the standardised weight equals the weight."""
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        self.weight_gamma.copy_((var + VARIANCE_EPS).sqrt())
        self.weight_beta.copy_(mean)

    def standardised(self) -> Tensor:
        """The weight that convolves, (O, I, k, k)."""
        return torch.addcmul(*self._affine())

    def _affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """shift, weight, scale of the standardised weight = shift + weight * scale."""
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        scale = self.weight_gamma * (var + VARIANCE_EPS).rsqrt()
        return self.weight_beta - mean * scale, self.weight, scale

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """(B, I, H, W) -> (B, O, H/stride, W/stride).

        Args:
            x: input.
            norm: a batch norm to apply to the output.
        """
        folded = None if norm is None or norm.training else norm
        sources = (self.weight, self.weight_gamma, self.weight_beta, *norm_sources(folded))
        weight, bias = self.memo.get(sources, lambda: self._folded(folded))
        y = F.conv2d(x, weight, bias, self.stride, self.padding)
        return y if norm is folded else norm(y)

    def _folded(self, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
        if norm is None:
            return self.standardised(), None
        norm_scale, norm_shift = norm_affine(norm)
        shift, weight, scale = self._affine()
        norm_scale = norm_scale.view(-1, 1, 1, 1)
        return torch.addcmul(shift * norm_scale, weight, scale * norm_scale), norm_shift

    def train(self, mode: bool = True) -> ConvAWS2d:
        """Switch the mode; what was computed for the other one is released."""
        self.memo.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConvAWS2d:
        self.memo.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        absent = [prefix + name for name in STANDARDISATION if prefix + name not in state_dict]
        if absent and prefix + "weight" in state_dict:
            self.reset_standardisation()
            missing_keys = args[2]
            missing_keys[:] = [key for key in missing_keys if key not in absent]


class SAConv2d(ConvAWS2d):
    """Switchable atrous convolution, 3x3: two deformable convolutions blended cell by cell, between two contexts.

    x += pre_context(mean of x); with p = 5x5 average of x (reflected border): s = switch(p), out = s * deform(x, w,
    offset_s(p)) + (1 - s) * deform(x, w + weight_diff, offset_l(p), dilation 3); out += post_context(mean of out).
    w is the standardised weight, made once for both. At first s = 1 and all else is 0: a plain convolution.

    On a CPU both convolutions are one gather and one matrix product (`sampling.sampled_matmul`), the switch in the
    gather's weights; elsewhere they are `torchvision.ops.deform_conv2d`. All of it runs in float32 under autocast:
    half precision would round sampling positions of far cells to a quarter of a cell or worse.

    Args:
        inputs, outputs: channels.
        stride: step in cells.

    Raises:
        RuntimeError: (in forward) a map under 3x3, whose border cannot be reflected.

    Examples:
        >>> tuple(SAConv2d(4, 6, stride=2)(torch.zeros(1, 4, 5, 8)).shape)
        (1, 6, 3, 4)
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, KERNEL, stride)
        self.weight_diff = nn.Parameter(torch.zeros_like(self.weight))
        self.switch = nn.Conv2d(inputs, 1, 1, stride)
        self.pre_context = nn.Conv2d(inputs, inputs, 1)
        self.post_context = nn.Conv2d(outputs, outputs, 1)
        self.offset_s = nn.Conv2d(inputs, 2 * KERNEL**2, KERNEL, stride, padding=KERNEL // 2)
        self.offset_l = nn.Conv2d(inputs, 2 * KERNEL**2, KERNEL, stride, padding=KERNEL // 2)
        for layer in (self.switch, self.pre_context, self.post_context, self.offset_s, self.offset_l):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.ones_(self.switch.bias)

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """(B, I, H, W) -> (B, O, ceil(H/stride), ceil(W/stride)) float32; `norm` as in ConvAWS2d."""
        with torch.autocast(x.device.type, enabled=False):
            out = self._convolve(x.float())
            context = F.linear(out.mean((2, 3)), self.post_context.weight.flatten(1), self.post_context.bias)
            if norm is None or norm.training:
                out = out + context[:, :, None, None]
                return out if norm is None else norm(out)
            scale, shift = norm_affine(norm)
            return torch.addcmul((context * scale + shift)[:, :, None, None], out, scale.view(-1, 1, 1))

    def _convolve(self, x: Tensor) -> Tensor:
        x = x + self.pre_context(x.mean((2, 3), keepdim=True))
        pooled = F.avg_pool2d(F.pad(x, (POOL // 2,) * 4, mode="reflect"), POOL, stride=1)
        guides = (self.switch, self.offset_s, self.offset_l)
        sources = (self.weight, self.weight_gamma, self.weight_beta, self.weight_diff)
        sources += tuple(p for layer in guides for p in (layer.weight, layer.bias))
        on_cpu = x.device.type == "cpu"
        weights, *guide = self.memo.get(sources, lambda: (self._matrix() if on_cpu else self._pair(), *self._guide()))
        guided = F.conv2d(pooled, *guide, self.stride, padding=KERNEL // 2)
        taps = 2 * KERNEL**2
        switch, small, large = guided.split([1, taps, taps], dim=1)
        if on_cpu:
            return self._gathered(x, switch, guided[:, 1:], weights)
        return switch * self._deformed(x, small, weights[0], SMALL_DILATION) + (1 - switch) * self._deformed(
            x, large, weights[1], LARGE_DILATION
        )

    def _guide(self) -> tuple[Tensor, Tensor]:
        """Weight (1 + 18 + 18, I, 3, 3) and bias of switch and both offsets as one convolution."""
        switch = F.pad(self.switch.weight, (KERNEL // 2,) * 4)
        weight = torch.cat([switch, self.offset_s.weight, self.offset_l.weight])
        return weight, torch.cat([self.switch.bias, self.offset_s.bias, self.offset_l.bias])

    def _pair(self) -> tuple[Tensor, Tensor]:
        weight = self.standardised()
        return weight, weight + self.weight_diff

    def _matrix(self) -> Tensor:
        """Both weights as (2 * 9 * I, O), taps outermost."""
        weight = torch.stack(self._pair())
        return weight.permute(0, 3, 4, 2, 1).reshape(-1, self.out_channels)

    def _deformed(self, x: Tensor, offset: Tensor, weight: Tensor, dilation: int) -> Tensor:
        return deform_conv2d(x, offset, weight, None, self.stride, (dilation, dilation), (dilation, dilation))

    def _gathered(self, x: Tensor, switch: Tensor, offsets: Tensor, matrix: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows, columns = offsets.shape[-2:]
        offsets = offsets.permute(0, 2, 3, 1).reshape(batch, rows, columns, 2 * KERNEL**2, 2)
        small = switch.permute(0, 2, 3, 1).expand(-1, -1, -1, KERNEL**2)
        blend = torch.cat([small, 1 - small], dim=-1)
        index, share = bilinear_corners(
            offsets, blend, (height, width), self.stride, KERNEL, (SMALL_DILATION, LARGE_DILATION)
        )
        table = x.permute(0, 2, 3, 1).reshape(-1, channels)
        out = sampled_matmul(table, index, share, matrix)
        return out.view(batch, rows, columns, -1).permute(0, 3, 1, 2)
