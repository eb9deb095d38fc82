"""Deformable sampling on a CPU: bilinear gathers of channels-last vectors, multiplied by a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_BYTES = 8 << 20  # sampled columns held at a time: stays in cache and below the allocator's mmap threshold
CORNERS = 4


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
                _add_scattered(grad_table, index[c], share[c], grad_columns)
        return grad_table, None, torch.cat(grad_share), grad_matrix


def _add_scattered(total: Tensor, index: Tensor, share: Tensor, columns: Tensor) -> None:
    """total[index[l, t, k]] += share[l, t, k] * columns[l * T + t]: the gather, with sources and targets exchanged."""
    cell, order = index.flatten().sort(stable=True)
    first, end = int(cell[0]), int(cell[-1]) + 1
    starts = torch.searchsorted(cell, torch.arange(first, end, dtype=cell.dtype))
    source = order // index.shape[-1]
    total[first:end] += F.embedding_bag(source, columns, starts, mode="sum", per_sample_weights=share.flatten()[order])
