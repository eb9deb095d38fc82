"""Bilinear sampling on a CPU: gathers of whole cells of a channels-last map, as embedding bags.

torchvision's CPU kernels of RoIAlign and deformable convolution walk every channel of every sample by itself. Here a
sample is a few cells and their shares, whole vectors are added, and the gradient of the map is the same gather with
sources and targets exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision import ops

CHUNK_BYTES = 8 << 20  # sampled columns held at a time: stays in cache and below the allocator's mmap threshold
CORNERS = 4
HALF_CELL = 0.5  # in RoIAlign the value of cell i stands at i + 0.5


def tap_positions(kernel: int, dilations: Sequence[int]) -> Tensor:
    """(y, x) of the taps of kernels centred on 0, one kernel per dilation, row by row: (T, 2) float32.

    Examples:
        >>> tap_positions(3, [2])[[0, 1, 8]].tolist()
        [[-2.0, -2.0], [-2.0, 0.0], [2.0, 2.0]]
    """
    side = torch.arange(kernel, dtype=torch.float32) - kernel // 2
    taps = torch.cartesian_prod(side, side)
    return torch.cat([taps * dilation for dilation in dilations])


def bilinear_corners(
    offsets: Tensor,
    blend: Tensor,
    size_hw: tuple[int, int],
    stride: tuple[int, int],
    kernel: int,
    dilations: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """The four source cells of every deformed tap, and their bilinear shares; cells outside the map share 0.

    Args:
        offsets: (B, rows, columns, T, 2), (y, x) displacement in cells.
        blend: (B, rows, columns, T), factor of every tap.
        size_hw: H, W of the sampled map.
        stride: of the output in cells of the map.
        kernel: side of the kernel.
        dilations: one kernel each; T = kernel**2 * len(dilations).

    Returns:
        index (B * rows * columns, T, 4) int32 into the map flattened to (B * H * W); share of the same shape.
    """
    batch, rows, columns, taps = blend.shape
    height, width = size_hw
    device = offsets.device
    grid_y = torch.arange(rows, device=device).view(-1, 1, 1, 1) * stride[0]
    grid_x = torch.arange(columns, device=device).view(1, -1, 1, 1) * stride[1]
    cells = torch.cat([grid_y.expand(rows, columns, 1, 1), grid_x.expand(rows, columns, 1, 1)], dim=-1)
    position = offsets + (cells + tap_positions(kernel, dilations).to(device))
    low = position.detach().floor()
    upper_share = position - low
    share = torch.stack([1 - upper_share, upper_share], dim=-1)  # (B, rows, columns, T, y|x, low|high)
    corner = torch.stack([low, low + 1], dim=-1)
    last = torch.tensor([height - 1, width - 1], device=device).view(2, 1)
    share = share * ((corner >= 0) & (corner <= last))
    corner = corner.to(torch.int32).clamp_(min=0).minimum(last.to(torch.int32))
    share_y, share_x = (share * torch.stack([blend, torch.ones_like(blend)], dim=-1)[..., None]).unbind(-2)
    corner_y, corner_x = corner.unbind(-2)
    image = torch.arange(batch, dtype=torch.int32, device=device).view(-1, 1, 1, 1, 1, 1) * (height * width)
    index = image + (corner_y * width)[..., None] + corner_x[..., None, :]
    share = share_y[..., None] * share_x[..., None, :]
    return index.view(-1, taps, CORNERS), share.view(-1, taps, CORNERS)


def sampled_matmul(table: Tensor, index: Tensor, share: Tensor, matrix: Tensor) -> Tensor:
    """out[l] = sum over t of (sum over k of share[l, t, k] * table[index[l, t, k]]) @ matrix[t].

    The sampled columns are made chunk by chunk and again in the backward pass: they are 18 times as large as the map.

    Args:
        table: (P, I) float32.
        index: (L, T, K) int32 in [0, P).
        share: (L, T, K) float32.
        matrix: (T * I, O) float32.

    Returns:
        (L, O).
    """
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (table, share, matrix))
    # A traced graph cannot hold a Python autograd function, and needs none.
    return SampledMatmul.apply(table, index, share, matrix) if learns else _product(table, index, share, matrix)


def _chunks(index: Tensor, channels: int) -> list[slice]:
    rows, taps, _ = index.shape
    step = max(1, CHUNK_BYTES // (taps * channels * 4))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _columns(table: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """(l, T, K) -> (l * T, I)."""
    return F.embedding_bag(index.flatten(0, 1), table, mode="sum", per_sample_weights=share.flatten(0, 1))


def _product(table: Tensor, index: Tensor, share: Tensor, matrix: Tensor) -> Tensor:
    chunks = _chunks(index, table.shape[1])
    return torch.cat([_columns(table, index[c], share[c]).view(-1, len(matrix)) @ matrix for c in chunks])


class SampledMatmul(torch.autograd.Function):
    """`sampled_matmul` with its gradients; the columns are not kept."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, share: Tensor, matrix: Tensor) -> Tensor:
        """See `sampled_matmul`."""
        ctx.save_for_backward(table, index, share, matrix)
        return _product(table, index, share, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Gradients of table, share and matrix."""
        table, index, share, matrix = ctx.saved_tensors
        grad_table, grad_matrix, grad_share = torch.zeros_like(table), torch.zeros_like(matrix), []
        with torch.autocast("cpu", enabled=False):
            for c in _chunks(index, table.shape[1]):
                grad_columns = (grad[c] @ matrix.T).view(-1, table.shape[1])
                with torch.enable_grad():
                    part = share[c].detach().requires_grad_()
                    columns = _columns(table.detach(), index[c], part)
                grad_share += torch.autograd.grad(columns, part, grad_columns)
                grad_matrix.addmm_(columns.detach().view(-1, len(matrix)).T, grad[c])
                bag = torch.arange(len(columns)).repeat_interleave(index.shape[-1])
                _add_scattered(grad_table, index[c].flatten(), share[c].flatten(), bag, grad_columns)
        return grad_table, None, torch.cat(grad_share), grad_matrix


def _add_scattered(total: Tensor, index: Tensor, share: Tensor, bag: Tensor, rows: Tensor) -> None:
    """total[index[e]] += share[e] * rows[bag[e]]: the gather, with sources and targets exchanged."""
    if not len(index):
        return
    cell, order = index.sort(stable=True)
    first, end = int(cell[0]), int(cell[-1]) + 1
    starts = torch.searchsorted(cell, torch.arange(first, end, dtype=cell.dtype))
    total[first:end] += F.embedding_bag(bag[order], rows, starts, mode="sum", per_sample_weights=share[order])


def roi_align(x: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    """RoIAlign (He et al., 2017) as torchvision's with sampling_ratio=0 and aligned=True, several times as fast.

    Every region is cut into size x size bins; a bin is the mean of about one bilinear sample a cell of the map.
    Regions get no gradient. Coordinates are float32 whatever the precision of the map.

    Args:
        x: map (B, D, H, W).
        rois: (R, 5), image index, then xyxy in pixels.
        size: bins a side.
        scale: cells per pixel.

    Returns:
        (R, D, size, size), of the map's precision.

    Examples:
        >>> x = torch.arange(16.0).view(1, 1, 4, 4)
        >>> roi_align(x, torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), size=2, scale=1.0).flatten().tolist()
        [2.5, 4.5, 10.5, 12.5]
    """
    # Groups that depend on the regions' sizes cannot be traced.
    if x.device.type != "cpu" or torch.jit.is_tracing():
        return ops.roi_align(x.float(), rois.float(), size, scale, sampling_ratio=0, aligned=True).to(x.dtype)
    channels = x.shape[1]
    if not len(rois):
        return x.new_zeros(0, channels, size, size)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels).float()
    order, index, share, starts = _bins(rois.detach().float(), size, scale, (x.shape[-2], x.shape[-1]))
    bins = SampledRows.apply(table, index, share, starts).view(-1, size * size, channels)
    return bins[order.argsort()].transpose(1, 2).reshape(-1, channels, size, size).to(x.dtype)


def _bins(rois: Tensor, size: int, scale: float, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells and shares of all bins as bags, regions with equally many samples beside each other.

    Returns:
        order (R,) of the regions; index int32 and share (E,); starts (R * size * size,) of the bins in them.
    """
    height, width = size_hw
    low, high = (rois[:, 1:3] * scale - HALF_CELL), (rois[:, 3:5] * scale - HALF_CELL)
    samples = ((high - low) / size).ceil().clamp(min=0).long()
    kinds, kind = samples.unique(dim=0, return_inverse=True)
    members = [(kind == i).nonzero().squeeze(1) for i in range(len(kinds))]
    index, share, counts = [], [], []
    for (across, down), member in zip(kinds.tolist(), members, strict=True):
        column, share_x = _axis(low[member, 0], high[member, 0], size, across, width)
        row, share_y = _axis(low[member, 1], high[member, 1], size, down, height)
        image = rois[member, 0].to(torch.int32).view(-1, 1, 1, 1, 1) * (height * width)
        cells = image + row[:, :, None, :, None] * width + column[:, None, :, None, :]
        index.append(cells.flatten())
        share.append((share_y[:, :, None, :, None] * share_x[:, None, :, None, :]).flatten())
        counts.append(torch.full((len(member) * size * size,), across * down * CORNERS))
    count = torch.cat(counts)
    return torch.cat(members), torch.cat(index), torch.cat(share), (count.cumsum(0) - count).to(torch.int32)


def _axis(low: Tensor, high: Tensor, size: int, samples: int, cells: int) -> tuple[Tensor, Tensor]:
    """Cells and shares of the samples along one axis, two for each sample; a sample off the map has no share.

    Args:
        low, high: (R,) ends in cells.
        size: bins.
        samples: in every bin.
        cells: length of the axis.

    Returns:
        int32 and float32 (R, size, 2 * samples).
    """
    side = ((high - low) / size).view(-1, 1, 1)
    within = (torch.arange(samples, dtype=torch.float32) + HALF_CELL) * side / max(samples, 1)
    position = low.view(-1, 1, 1) + torch.arange(size).view(1, -1, 1) * side + within
    on_map = (position >= -1) & (position <= cells)
    position = position.clamp(0, cells - 1)
    first = position.floor()
    upper = position - first
    corner = torch.stack([first, (first + 1).clamp(max=cells - 1)], dim=-1).to(torch.int32)
    share = torch.stack([1 - upper, upper], dim=-1) * (on_map / max(samples, 1))[..., None]
    return corner.flatten(2), share.flatten(2)


class SampledRows(torch.autograd.Function):
    """out[n] = sum over the entries e of bag n of share[e] * table[index[e]]; a gradient for the table alone."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, share: Tensor, starts: Tensor) -> Tensor:
        """table (P, I), index int32 and share (E,), starts (N,) int32 -> (N, I)."""
        ctx.save_for_backward(index, share, starts)
        ctx.cells = table.shape
        return F.embedding_bag(index, table, starts, mode="sum", per_sample_weights=share)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of the table."""
        index, share, starts = ctx.saved_tensors
        counts = torch.diff(starts, append=starts.new_tensor([len(index)]))
        bag = torch.arange(len(starts)).repeat_interleave(counts)
        total = grad.new_zeros(ctx.cells)
        _add_scattered(total, index, share, bag, grad.contiguous())
        return total, None, None, None
