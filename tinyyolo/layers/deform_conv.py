"""Deformable convolution (Dai et al., 2017) as a gather of whole cells; see `gather`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision import ops

from tinyyolo.layers import gather
from tinyyolo.layers.gather import CORNERS, Pair, add_scattered, bags_of, traced


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """Deformable convolution (Dai et al., 2017): `torchvision.ops.deform_conv2d` in a fraction of its time on a CPU.

    Args:
        x: (B, I, H, W).
        offset: (B, 2 * kh * kw, rows, columns), y and x of each tap in cells.
        weight: (O, I, kh, kw).
        stride, padding, dilation: (vertical, horizontal).

    Returns:
        (B, O, rows, columns).

    Examples:
        >>> x, half_a_cell = torch.arange(3.0).view(1, 1, 1, 3), torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)
        >>> deform_conv2d(x, half_a_cell.expand(1, 2, 1, 3), torch.ones(1, 1, 1, 1)).flatten().tolist()
        [0.5, 1.5, 1.0]
    """
    if x.device.type != "cpu":
        other: Tensor = ops.deform_conv2d(x, offset, weight, None, stride, padding, dilation)
        return other
    batch, channels, height, width = x.shape
    rows, columns = offset.shape[-2:]
    cells = _tap_cells((weight.shape[2], weight.shape[3]), (rows, columns), stride, padding, dilation)
    offset = offset.permute(0, 2, 3, 1).reshape(batch, *cells.shape)
    index, share = bilinear_corners(offset + cells.to(offset.dtype), (height, width))
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    matrix = weight.flatten(1)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (table, share, matrix))
    # A traced graph cannot hold a Python autograd function, and needs none.
    product = SampledProduct.apply if learns else _product
    out = product(table, index, share, matrix)
    return out.view(batch, rows, columns, weight.shape[0]).permute(0, 3, 1, 2).contiguous()


def deform_conv2d_inference(
    x: Tensor, offset: Tensor, weight: Tensor, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """`deform_conv2d` on a CPU without gradients, in less time: no transposes, no masks, another order of sums.

    The taps come outermost in the columns, and a ring of zeros around the map stands for all that is off it. Fastest
    for a channels-last map; the result is channels-last.
    """
    batch, channels, height, width = x.shape
    rows, columns = offset.shape[-2:]
    table = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).view(-1, channels)
    cells = _tap_cells((weight.shape[2], weight.shape[3]), (rows, columns), stride, padding, dilation).to(offset.dtype)
    position = offset.permute(0, 2, 3, 1).reshape(batch, *cells.shape) + cells
    # Off the map a sample is 0 and stays on the ring, whose cells are -1 and the map's size.
    y, x_ = position[..., 0].clamp_(-1, height), position[..., 1].clamp_(-1, width)
    top, left = y.floor().clamp_(max=height - 1), x_.floor().clamp_(max=width - 1)
    lower, right = y - top, x_ - left
    image = torch.arange(batch, dtype=torch.int32).view(-1, 1, 1, 1) * ((height + 2) * (width + 2))
    corner = image + (top.to(torch.int32) + 1) * (width + 2) + (left.to(torch.int32) + 1)
    index = torch.stack([corner, corner + 1, corner + (width + 2), corner + (width + 3)], dim=-1)
    upper, beside = 1 - lower, 1 - right
    share = torch.stack([upper * beside, upper * right, lower * beside, lower * right], dim=-1)
    index, share = index.flatten(0, 2), share.flatten(0, 2)
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
    out = table.new_empty(len(index), weight.shape[0])
    for c in _chunks(index, channels):
        torch.mm(bags_of(table, index[c], share[c]).flatten(1), matrix, out=out[c])
    return out.view(batch, rows, columns, -1).permute(0, 3, 1, 2)


def _tap_cells(kernel: Pair, size_hw: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """(rows, columns, kh * kw, 2): (y, x) cell of every tap of every output before its offset."""
    starts = [torch.arange(n) * s - p for n, s, p in zip(size_hw, stride, padding, strict=True)]
    taps = [torch.arange(k) * d for k, d in zip(kernel, dilation, strict=True)]
    y = (starts[0].view(-1, 1, 1, 1) + taps[0].view(-1, 1)).expand(*size_hw, *kernel)
    x = (starts[1].view(-1, 1, 1) + taps[1]).expand(*size_hw, *kernel)
    return torch.stack([y, x], dim=-1).flatten(2, 3)


def bilinear_corners(position: Tensor, size_hw: Pair) -> tuple[Tensor, Tensor]:
    """The four cells around every position, and their bilinear shares; a cell outside the map has share 0.

    Args:
        position: (B, ..., T, 2), (y, x) in cells of image b of the batch.
        size_hw: H, W of the map.

    Returns:
        index (B * ..., T, 4) int32 into the map flattened to (B * H * W), and share of the same shape.

    Examples:
        >>> index, share = bilinear_corners(torch.tensor([[[0.0, 0.25]], [[-0.5, 1.0]]]), (2, 3))
        >>> index.flatten(1).tolist(), share.flatten(1).tolist()
        ([[0, 1, 3, 4], [7, 8, 7, 8]], [[0.75, 0.25, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0]])
    """
    batch, (height, width) = position.shape[0], size_hw
    low = position.detach().floor()
    upper = position - low
    last = torch.tensor([height - 1, width - 1]).view(2, 1)
    corner = torch.stack([low, low + 1], dim=-1)  # (B, ..., T, y|x, low|high)
    share = torch.stack([1 - upper, upper], dim=-1) * ((corner >= 0) & (corner <= last))
    corner = corner.to(torch.int32).clamp_(min=0).minimum(last.to(torch.int32))
    image = torch.arange(batch, dtype=torch.int32).view(-1, *[1] * position.dim()) * (height * width)
    index = image + corner[..., 0, :, None] * width + corner[..., 1, None, :]
    shares = share[..., 0, :, None] * share[..., 1, None, :]
    taps = position.shape[-2]
    return index.view(-1, taps, CORNERS), shares.view(-1, taps, CORNERS)


def _chunks(index: Tensor, channels: int) -> list[slice]:
    if traced():  # the number of chunks would be fixed
        return [slice(None)]
    rows, taps, _ = index.shape
    step = max(1, gather.CHUNK_BYTES // (taps * channels * 4))
    return [slice(start, start + step) for start in range(0, max(rows, 1), step)]


def _columns(bags: Tensor) -> Tensor:
    """(l, T, I) -> (l, I * T): taps innermost, the order in which torchvision adds up."""
    return bags.transpose(1, 2).flatten(1)


def _product(table: Tensor, index: Tensor, share: Tensor, matrix: Tensor) -> Tensor:
    chunks = _chunks(index, table.shape[1])
    return torch.cat([_columns(bags_of(table, index[c], share[c])) @ matrix.T for c in chunks])


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
