"""Deformable convolution (Dai et al., 2017) as a gather of whole cells; see `gather`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision import ops

from tinyyolo.boxes.graph import for_onnx, traced
from tinyyolo.layers import gather
from tinyyolo.layers.gather import Pair, add_scattered, bags_of

RING = 2  # cells of zeros around a map: a sample a cell off it is 0, but its slope is not


def own_precision(x: Tensor) -> Any:
    """A context without autocast for the device of `x`: half precision would round the places of the taps."""
    device = x.device.type  # shapes alone, on meta, have no autocast to leave
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    taps_first: bool = False,
) -> Tensor:
    """Deformable convolution (Dai et al., 2017): `torchvision.ops.deform_conv2d` in a fraction of its time on a CPU.

    Args:
        x: (B, I, H, W).
        offset: (B, 2 * kh * kw, rows, columns), y and x of each tap in cells.
        weight: (O, I, kh, kw).
        stride, padding, dilation: (vertical, horizontal).
        taps_first: on a CPU and without gradients another order of sums than torchvision's, faster for a channels-last
            map; the result is channels-last.

    Returns:
        (B, O, rows, columns).

    Examples:
        >>> x, half_a_cell = torch.arange(3.0).view(1, 1, 1, 3), torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)
        >>> deform_conv2d(x, half_a_cell.expand(1, 2, 1, 3), torch.ones(1, 1, 1, 1)).flatten().tolist()
        [0.5, 1.5, 1.0]
    """
    if x.device.type != "cpu" or for_onnx():  # ONNX has an operator of its own
        other: Tensor = ops.deform_conv2d(x, offset, weight, None, stride, padding, dilation)
        return other
    batch, channels, height, width = x.shape
    rows, columns = offset.shape[-2:]
    cells = _tap_cells((weight.shape[2], weight.shape[3]), (rows, columns), stride, padding, dilation)
    position = offset.permute(0, 2, 3, 1).reshape(batch, *cells.shape) + cells.to(offset.dtype)
    index, share = _corners(position, (height, width))
    # The zeros around the map stand for all that is off it.
    table = F.pad(x, (RING, RING, RING, RING)).permute(0, 2, 3, 1).reshape(-1, channels)
    matrix = (weight.permute(0, 2, 3, 1) if taps_first else weight).flatten(1)
    # A traced graph cannot hold a Python autograd function, and needs none.
    if torch.is_grad_enabled() and any(t.requires_grad for t in (table, share, matrix)):
        out: Tensor = SampledProduct.apply(table, index, share, matrix)
    else:
        out = _product(table, index, share, matrix, taps_first)
    out = out.view(batch, rows, columns, weight.shape[0]).permute(0, 3, 1, 2)
    return out if taps_first else out.contiguous()


def _tap_cells(kernel: Pair, size_hw: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """(rows, columns, kh * kw, 2): (y, x) cell of every tap of every output before its offset."""
    starts = [torch.arange(n) * s - p for n, s, p in zip(size_hw, stride, padding, strict=True)]
    taps = [torch.arange(k) * d for k, d in zip(kernel, dilation, strict=True)]
    y = (starts[0].view(-1, 1, 1, 1) + taps[0].view(-1, 1)).expand(*size_hw, *kernel)
    x = (starts[1].view(-1, 1, 1) + taps[1]).expand(*size_hw, *kernel)
    return torch.stack([y, x], dim=-1).flatten(2, 3)


def _corners(position: Tensor, size_hw: Pair) -> tuple[Tensor, Tensor]:
    """The four cells around every position (B, rows, columns, T, 2), (y, x) in cells, and their bilinear shares.

    Returns:
        index (B * rows * columns, T, 4) int32 into the flattened maps (B, H + 4, W + 4) with their ring, and share of
        the same shape.
    """
    height, width = size_hw
    line = width + 2 * RING
    y, x = position[..., 0].clamp(-RING, height), position[..., 1].clamp(-RING, width)
    top, left = y.detach().floor(), x.detach().floor()
    lower, right = y - top, x - left
    upper, beside = 1 - lower, 1 - right
    image = torch.arange(position.shape[0], dtype=torch.int32).view(-1, 1, 1, 1) * ((height + 2 * RING) * line)
    row, column = (low.to(torch.int32).clamp_(min=-RING) + RING for low in (top, left))  # NaN is the least integer
    corner = image + row * line + column
    index = torch.stack([corner, corner + 1, corner + line, corner + line + 1], dim=-1)
    share = torch.stack([upper * beside, upper * right, lower * beside, lower * right], dim=-1)
    return index.flatten(0, 2), share.flatten(0, 2)


def _chunks(index: Tensor, channels: int) -> list[slice]:
    if traced():  # the number of chunks would be fixed
        return [slice(None)]
    rows, taps, _ = index.shape
    step = max(1, gather.CHUNK_BYTES // (taps * channels * 4))
    return [slice(start, start + step) for start in range(0, max(rows, 1), step)]


def _columns(bags: Tensor, taps_first: bool = False) -> Tensor:
    """(l, T, I) -> (l, T * I), or (l, I * T): taps innermost, the order in which torchvision adds up."""
    return (bags if taps_first else bags.transpose(1, 2)).flatten(1)


def _product(table: Tensor, index: Tensor, share: Tensor, matrix: Tensor, taps_first: bool = False) -> Tensor:
    bags = (bags_of(table, index[c], share[c]) for c in _chunks(index, table.shape[1]))
    return torch.cat([_columns(part, taps_first) @ matrix.T for part in bags])


class SampledProduct(torch.autograd.Function):
    """out[l] = matrix @ columns[l], columns[l, i, t] = sum over k of share[l, t, k] * table[index[l, t, k], i].

    table (P, I), index (L, T, K) int32, share (L, T, K), matrix (O, I * T) -> (L, O). The columns, 9 times as large as
    the map, are made chunk by chunk, and again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, share: Tensor, matrix: Tensor) -> Tensor:
        """See the class."""
        ctx.save_for_backward(table, index, share, matrix)
        return _product(table, index, share, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Gradients of table, share and matrix."""
        table, index, share, matrix = ctx.saved_tensors
        channels, (taps, corners) = table.shape[1], index.shape[1:]
        grad_table, grad_matrix, grad_share = torch.zeros_like(table), torch.zeros_like(matrix), []
        with torch.autocast("cpu", enabled=False):
            for c in _chunks(index, channels):
                grad_bags = (grad[c] @ matrix).view(-1, channels, taps).transpose(1, 2).contiguous()
                with torch.enable_grad():
                    part = share[c].detach().requires_grad_()
                    bags = bags_of(table.detach(), index[c], part)
                grad_share += torch.autograd.grad(bags, part, grad_bags)
                grad_matrix.addmm_(grad[c].T, _columns(bags.detach()))
                bag = torch.arange(len(grad_bags) * taps).repeat_interleave(corners)
                add_scattered(grad_table, index[c].flatten(), share[c].flatten(), bag, grad_bags.flatten(0, 1))
        return grad_table, None, torch.cat(grad_share), grad_matrix
