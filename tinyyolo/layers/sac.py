"""Convolutions of DetectoRS (Qiao et al., 2021): weight standardisation and switchable atrous convolution.

In training every sum is taken in the order of the plain formula. Cheaper orders exist (batch norm folded into the
weight, both dilations in one product), but they turn the sign of units that are 1e-7 from zero, and with them a percent
of the gradient of a switch: enough to fail a comparison with the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.boxes.graph import for_onnx, traced
from tinyyolo.layers.blocks import he_normal, initialise
from tinyyolo.layers.deform_conv import deform_conv2d, own_precision
from tinyyolo.layers.gather import is_channels_last

VARIANCE_EPS = 1e-5
KERNEL = 3
DILATIONS = (1, 3)  # of the near and the far convolution
POOL = 5  # window of the map that the switch and the offsets look at
STANDARDISATION = ("weight_gamma", "weight_beta")


class Memo:
    """A value made from tensors, kept until one of them changes, and never kept while gradients are recorded.

    A change is a new tensor or a write in place (an optimizer step, an EMA update, `load_state_dict`), so a model that
    stays in eval mode while its weights move is safe too.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the value and release its sources."""
        self.key: tuple[tuple[int, int], ...] = ()
        self.sources: tuple[Tensor, ...] = ()
        self.value: Any = None

    def get(self, sources: Sequence[Tensor], compute: Callable[[], Any]) -> Any:
        """`compute()`, or its last result if the sources are as they were."""
        if torch.is_grad_enabled() or any(source.is_inference() for source in sources):
            return compute()
        key = tuple((source.data_ptr(), source._version) for source in sources)
        if key != self.key:
            value = compute()
            if traced():
                return value
            # Holding the sources' memory keeps a new tensor from taking their address.
            self.key, self.sources, self.value = key, tuple(s.detach() for s in sources), value
        return self.value


def infers(x: Tensor) -> bool:
    """Whether the cheaper order of sums may be used: a channels-last map on a CPU, no gradients, no tracing."""
    plain = torch.is_grad_enabled() or traced() or torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and x.dtype == torch.float32 and not plain and is_channels_last(x)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Batch norm in eval mode as x * scale + shift, (1, C, 1, 1) each."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1)


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

    weight_gamma: Tensor
    weight_beta: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.steps = (stride, stride)
        initialise(self, he_normal)
        for name in STANDARDISATION:
            self.register_buffer(name, torch.empty(outputs, 1, 1, 1))
        self.reset_standardisation()
        self.memo = Memo()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the weight per output channel, (O, 1, 1, 1) each."""
        rows = self.weight.flatten(1)
        mean, std = rows.mean(1), (rows.var(1) + VARIANCE_EPS).sqrt()
        return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)

    @torch.no_grad()
    def reset_standardisation(self) -> None:
        """Set gamma and beta so that the standardised weight equals the weight."""
        mean, std = self._statistics()
        self.weight_gamma.copy_(std)
        self.weight_beta.copy_(mean)

    def standardised(self) -> Tensor:
        """The weight that convolves, (O, I, k, k)."""
        mean, std = self._statistics()
        return self.weight_gamma * ((self.weight - mean) / std) + self.weight_beta

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """(B, I, H, W) -> (B, O, ceil(H/stride), ceil(W/stride)), with `norm` after it if given.

        The norm is folded in where nothing depends on the order of the sums: in eval mode, where `infers(x)`.
        """
        if norm is not None and (norm.training or not infers(x)):
            y: Tensor = norm(self(x))
            return y
        return self._convolved(x, norm)

    def _convolved(self, x: Tensor, norm: nn.BatchNorm2d | None) -> Tensor:
        sources = (self.weight, self.weight_gamma, self.weight_beta)
        if norm is None:
            return F.conv2d(x, self.memo.get(sources, self.standardised), None, self.stride, self.padding)
        learnt = norm.state_dict(keep_vars=True).values()
        weight, shift = self.memo.get((*sources, *learnt), lambda: self._folded(norm))
        return F.conv2d(x, weight, shift, self.stride, self.padding)

    def _folded(self, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        scale, shift = scale_and_shift(norm)
        weight = self.standardised() * scale.view(-1, 1, 1, 1)
        return weight.contiguous(memory_format=torch.channels_last), shift.flatten()

    def train(self, mode: bool = True) -> ConvAWS2d:
        """Switch the mode; what was computed for the other one is released."""
        self.memo.clear()
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        absent = [prefix + name for name in STANDARDISATION if prefix + name not in state_dict]
        if absent and prefix + "weight" in state_dict:
            self.reset_standardisation()
            missing_keys = args[2]
            missing_keys[:] = [key for key in missing_keys if key not in absent]


def reflected(side: int, pad: int) -> Tensor:
    """(side + 2 * pad,) which cells a line of `side` cells has with a reflected border, as `numpy.pad` reflects.

    Where the border is wider than what can be reflected, the reflection is reflected again; a single cell is repeated.

    Examples:
        >>> reflected(4, 2).tolist(), reflected(2, 2).tolist(), reflected(1, 2).tolist()
        ([2, 1, 0, 1, 2, 3, 2, 1], [0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0])
    """
    period = torch.as_tensor(2 * (side - 1)).clamp(min=1)
    there = torch.arange(-pad, side + pad).abs() % period
    return torch.minimum(there, period - there)


def bordered(x: Tensor, pad: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2 * pad, W + 2 * pad) with a reflected border, of maps of any size but none.

    The authors' code and torch know no border that is as wide as the map; a graph of any size has one path for all.
    """
    if not for_onnx() and min(x.shape[-2:]) > pad:
        return F.pad(x, (pad, pad, pad, pad), mode="reflect")
    rows, columns = (reflected(side, pad).to(x.device) for side in x.shape[-2:])
    return x.index_select(2, rows).index_select(3, columns)


class SAConv2d(ConvAWS2d):
    """Switchable atrous convolution, 3x3: two deformable convolutions blended cell by cell, between two contexts.

    x += pre_context(mean of x); with p = 5x5 average of x (`bordered`): s = switch(p), out = s * deform(x, w,
    offset_s(p)) + (1 - s) * deform(x, w + weight_diff, offset_l(p), dilation 3); out += post_context(mean of out).
    w is the standardised weight, made once for both. At first s = 1 and all else is 0: a plain convolution.

    It runs in the precision of its weights under autocast too: half precision would round the sampling positions of
    far cells to a quarter of a cell or worse.

    Args:
        inputs, outputs: channels.
        stride: step in cells.

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
            initialise(layer, nn.init.zeros_, bias=float(layer is self.switch))

    def _convolved(self, x: Tensor, norm: nn.BatchNorm2d | None) -> Tensor:
        fast = infers(x)
        with own_precision(x):
            x = x.to(self.weight.dtype)
            x = x + self.pre_context(x.mean((2, 3), keepdim=True))
            if not torch.is_grad_enabled():  # faster to pool and to sample; the sums differ in the last bit
                x = x.contiguous(memory_format=torch.channels_last)
            pooled = F.avg_pool2d(bordered(x, POOL // 2), POOL, stride=1)
            pooled = pooled if fast else pooled.contiguous()
            switch, offsets = self.switch(pooled), self._offsets(pooled, fast)
            sources = (self.weight, self.weight_gamma, self.weight_beta, self.weight_diff)
            weights = self.memo.get(sources, lambda: self._weights(fast))
            near, far = (
                deform_conv2d(x, offset, weight, self.steps, (d, d), (d, d), taps_first=fast)
                for offset, weight, d in zip(offsets, weights, DILATIONS, strict=True)
            )
            out: Tensor = far.lerp_(near, switch) if fast else switch * near + (1 - switch) * far
            context = self.post_context(out.mean((2, 3), keepdim=True))
            if norm is None:
                return out.add(context)
            scale, shift = scale_and_shift(norm)
            return torch.addcmul(context * scale + shift, out, scale)

    def _offsets(self, pooled: Tensor, fast: bool) -> tuple[Tensor, ...]:
        near, far = self.offset_s, self.offset_l
        if not fast:
            return near(pooled), far(pooled)
        assert near.bias is not None and far.bias is not None
        weight, bias = torch.cat([near.weight, far.weight]), torch.cat([near.bias, far.bias])
        return F.conv2d(pooled, weight, bias, self.stride, KERNEL // 2).chunk(2, dim=1)

    def _weights(self, fast: bool) -> tuple[Tensor, ...]:
        weight = self.standardised()
        order = torch.channels_last if fast else torch.contiguous_format
        return tuple(w.contiguous(memory_format=order) for w in (weight, weight + self.weight_diff))
