"""RoIAlign (He et al., 2017) as a gather of whole cells; see `gather`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision import ops

from tinyyolo.layers import gather
from tinyyolo.layers.gather import CORNERS, Pair, add_scattered, bags_of, is_channels_last, traced

HALF_CELL = 0.5  # in RoIAlign the value of cell i stands at i + 0.5


def roi_align(x: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    """RoIAlign (He et al., 2017): torchvision's with sampling_ratio=0 and aligned=True, in less time on a CPU.

    Less time for training and for channels-last maps; in all other cases it is torchvision's own, to the last bit.

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
    learns = torch.is_grad_enabled() and x.requires_grad
    # Groups that depend on the regions' sizes cannot be traced; for a plain map without gradient the fast path would
    # add up in another order than the published code, and on other devices it is not fast.
    if x.device.type != "cpu" or traced() or not (learns or is_channels_last(x)):
        # Half precision would round the corners of a region to half a pixel.
        pooled: Tensor = ops.roi_align(x.float(), rois.float(), size, scale, sampling_ratio=0, aligned=True)
        return pooled.to(x.dtype)
    channels = x.shape[1]
    if not len(rois):
        return x.flatten()[:0].view(0, channels, size, size)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels).float()
    order, index, share, groups = _bins(rois.detach().float(), size, scale, (x.shape[-2], x.shape[-1]))
    if learns:
        bins: Tensor = SampledBins.apply(table, index, share, groups)
        bins = bins.view(-1, size * size, channels)[order.argsort()]
        return bins.transpose(1, 2).reshape(-1, channels, size, size).to(x.dtype)
    out = x.new_empty(len(rois), channels, size, size)
    members = torch.split(order, [bins // size**2 for _, bins in groups])
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
    step, means = max(1, gather.CHUNK_BYTES // (table.shape[1] * 4)), table.new_empty(bins, table.shape[1])
    for start in range(0, bins, step):
        chunk = slice(start, start + step)
        total = bags_of(table, index[:1, chunk], share[:1, chunk])[0]
        for i in range(1, samples):
            total += bags_of(table, index[i : i + 1, chunk], share[i : i + 1, chunk])[0]
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
        add_scattered(total, index, share / torch.cat(mean), torch.cat(bag), grad.contiguous())
        return total, None, None, None
