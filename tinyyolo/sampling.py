"""Bilinear sampling on a CPU: deformable convolution and RoIAlign as gathers of whole cells of a channels-last map.

torchvision's CPU kernels walk every channel of every sample by itself. Here a sample is a few cells and their shares,
an embedding bag adds the cells' vectors, and the gradient of the map is the same bag with sources and targets
exchanged. For one image whose map is not channels-last the results are torchvision's to the bit; otherwise products and
sums are fused, which is faster and differs in the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision import ops

CHUNK_BYTES = 8 << 20  # sampled columns held at a time: stays in cache and below the allocator's mmap threshold
CORNERS = 4
HALF_CELL = 0.5  # in RoIAlign the value of cell i stands at i + 0.5
Pair = tuple[int, int]


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
        return ops.deform_conv2d(x, offset, weight, None, stride, padding, dilation)
    batch, channels, height, width = x.shape
    rows, columns = offset.shape[-2:]
    cells = _tap_cells(tuple(weight.shape[-2:]), (rows, columns), stride, padding, dilation)
    offset = offset.permute(0, 2, 3, 1).reshape(batch, *cells.shape)
    index, share = bilinear_corners(offset + cells.to(offset.dtype), (height, width))
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    matrix = weight.flatten(1)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (table, share, matrix))
    # A traced graph cannot hold a Python autograd function, and needs none.
    product = SampledProduct.apply if learns else _product
    out = product(table, index, share, matrix)
    return out.view(batch, rows, columns, weight.shape[0]).permute(0, 3, 1, 2).contiguous()


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a map (B, C, H, W) lie innermost, and only they."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


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
    cells = _tap_cells(tuple(weight.shape[-2:]), (rows, columns), stride, padding, dilation).to(offset.dtype)
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
        torch.mm(_bags(table, index[c], share[c]).flatten(1), matrix, out=out[c])
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
    if torch.jit.is_tracing():  # the number of chunks would be fixed
        return [slice(None)]
    rows, taps, _ = index.shape
    step = max(1, CHUNK_BYTES // (taps * channels * 4))
    return [slice(start, start + step) for start in range(0, max(rows, 1), step)]


def _bags(table: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """(l, T, 4) -> (l, T, I)."""
    bags = F.embedding_bag(index.flatten(0, 1), table, mode="sum", per_sample_weights=share.flatten(0, 1))
    return bags.view(*index.shape[:2], table.shape[1])


def _columns(bags: Tensor) -> Tensor:
    """(l, T, I) -> (l, I * T): taps innermost, the order in which torchvision adds up."""
    return bags.transpose(1, 2).flatten(1)


def _product(table: Tensor, index: Tensor, share: Tensor, matrix: Tensor) -> Tensor:
    chunks = _chunks(index, table.shape[1])
    return torch.cat([_columns(_bags(table, index[c], share[c])) @ matrix.T for c in chunks])


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
                    bags = _bags(table.detach(), index[c], part)
                grad_share += torch.autograd.grad(bags, part, grad_bags)
                grad_matrix.addmm_(grad[c].T, _columns(bags.detach()))
                bag = torch.arange(len(grad_bags) * taps).repeat_interleave(corners)
                _add_scattered(grad_table, index[c].flatten(), share[c].flatten(), bag, grad_bags.flatten(0, 1))
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
    """RoIAlign (He et al., 2017): torchvision's with sampling_ratio=0 and aligned=True, in less time on a CPU.

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
        return x.flatten()[:0].view(0, channels, size, size)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels).float()
    if not (torch.is_grad_enabled() and x.requires_grad):
        table = table.contiguous()  # fused sums, three times as fast
    order, index, share, groups = _bins(rois.detach().float(), size, scale, (x.shape[-2], x.shape[-1]))
    if torch.is_grad_enabled() and x.requires_grad:
        bins = SampledBins.apply(table, index, share, groups).view(-1, size * size, channels)
        return bins[order.argsort()].transpose(1, 2).reshape(-1, channels, size, size).to(x.dtype)
    out = x.new_empty(len(rois), channels, size, size)
    members = order.split([bins // size**2 for _, bins in groups])
    for member, means in zip(members, _group_means(table, index, share, groups), strict=True):
        out[member] = means.view(-1, size, size, channels).permute(0, 3, 1, 2).to(x.dtype)
    return out


def _bins(rois: Tensor, size: int, scale: float, size_hw: Pair) -> tuple[Tensor, Tensor, Tensor, list[Pair]]:
    """Cells and shares of the samples of all bins, regions with equally many samples beside each other.

    Returns:
        order (R,) of the regions; index int32 and share (E,); per group (samples of a bin, bins): its entries are
        (samples, bins, 4).
    """
    height, width = size_hw
    low, high = (rois[:, 1:3] * scale - HALF_CELL), (rois[:, 3:5] * scale - HALF_CELL)
    samples = ((high - low) / size).ceil().clamp(min=0).long()
    kinds, kind = samples.unique(dim=0, return_inverse=True)
    members = [(kind == i).nonzero().squeeze(1) for i in range(len(kinds))]
    index, share, groups = [], [], []
    for (across, down), member in zip(kinds.tolist(), members, strict=True):
        column, share_x = _axis(low[member, 0], high[member, 0], size, across, width)
        row, share_y = _axis(low[member, 1], high[member, 1], size, down, height)
        image = rois[member, 0].to(torch.int32).view(-1, 1, 1, 1, 1) * (height * width)
        # (down, across, regions, rows of bins, columns of bins, low|high, low|high)
        cells = image + row[:, None, :, :, None, :, None] * width + column[None, :, :, None, :, None, :]
        index.append(cells.flatten())
        share.append((share_y[:, None, :, :, None, :, None] * share_x[None, :, :, None, :, None, :]).flatten())
        groups.append((across * down, len(member) * size * size))
    return torch.cat(members), torch.cat(index), torch.cat(share), groups


def _axis(low: Tensor, high: Tensor, size: int, samples: int, cells: int) -> tuple[Tensor, Tensor]:
    """Cells and shares of the samples along one axis, two for each sample; a sample off the map has no share.

    Args:
        low, high: (R,) ends in cells.
        size: bins.
        samples: in every bin.
        cells: length of the axis.

    Returns:
        int32 and float32 (samples, R, size, 2).
    """
    side = (high - low) / size
    start = low[:, None] + torch.arange(size) * side[:, None]
    within = (torch.arange(samples) + HALF_CELL)[:, None] * side / max(samples, 1)
    position = start + within[..., None]
    on_map = (position >= -1) & (position <= cells)
    position = position.clamp(0, cells - 1)
    first = position.floor()
    upper = position - first
    corner = torch.stack([first, (first + 1).clamp(max=cells - 1)], dim=-1).to(torch.int32)
    return corner, torch.stack([1 - upper, upper], dim=-1) * on_map[..., None]


def _means(table: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """(S, n, 4) -> (n, I): the mean over S samples, added one after the other as torchvision does."""
    samples, bins, _ = index.shape
    if not samples:
        return table.new_zeros(bins, table.shape[1])
    step, means = max(1, CHUNK_BYTES // (table.shape[1] * 4)), table.new_empty(bins, table.shape[1])
    for start in range(0, bins, step):
        chunk = slice(start, start + step)
        total = _bags(table, index[:1, chunk], share[:1, chunk])[0]
        for i in range(1, samples):
            total += _bags(table, index[i : i + 1, chunk], share[i : i + 1, chunk])[0]
        torch.div(total, samples, out=means[chunk])
    return means


def _group_means(table: Tensor, index: Tensor, share: Tensor, groups: list[Pair]) -> Iterator[Tensor]:
    """(bins, I) of each group."""
    ends = [samples * bins * CORNERS for samples, bins in groups]
    for group, i, s in zip(groups, index.split(ends), share.split(ends), strict=True):
        yield _means(table, i.view(*group, CORNERS), s.view(*group, CORNERS))


class SampledBins(torch.autograd.Function):
    """Bins from the entries that `_bins` lists: table (P, I) -> (bins, I); a gradient for the table alone."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, share: Tensor, groups: list[Pair]) -> Tensor:
        """See the class."""
        ctx.save_for_backward(index, share)
        ctx.cells, ctx.groups = table.shape, groups
        return torch.cat(list(_group_means(table, index, share, groups)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of the table."""
        index, share = ctx.saved_tensors
        bag, mean, first = [], [], 0
        for samples, bins in ctx.groups:
            bag.append(torch.arange(first, first + bins).view(1, -1, 1).expand(samples, -1, CORNERS).flatten())
            mean.append(torch.full_like(bag[-1], max(samples, 1), dtype=share.dtype))
            first += bins
        total = grad.new_zeros(ctx.cells)
        _add_scattered(total, index, share / torch.cat(mean), torch.cat(bag), grad.contiguous())
        return total, None, None, None
