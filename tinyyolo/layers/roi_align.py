"""RoIAlign (He et al., 2017) as a gather of whole cells; see `gather`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torchvision  # noqa: F401 - brings its operators
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinyyolo.boxes.graph import traced
from tinyyolo.layers import gather
from tinyyolo.layers.gather import CORNERS, Pair, add_scattered, bags_of, is_channels_last

Group = tuple[Tensor, Tensor, Tensor]  # regions (r,), then int32 cells and shares (samples, r * size * size, 4)
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
        # Half precision would round the corners of a region to half a pixel. Not ops.roi_align: where deterministic
        # algorithms are asked for it compiles a form in Python on a GPU, for minutes.
        pooled: Tensor = torch.ops.torchvision.roi_align(x.float(), rois.float(), scale, size, size, 0, True)
        return pooled.to(x.dtype)
    channels = x.shape[1]
    if not len(rois):
        return x.flatten()[:0].view(0, channels, size, size)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels).float()
    groups = _groups(rois.detach().float(), size, scale, (x.shape[-2], x.shape[-1]))
    bins: Tensor = (
        SampledBins.apply(table, list(groups), size, len(rois)) if learns else _pooled(table, groups, size, len(rois))
    )
    return bins.to(x.dtype)


def _groups(rois: Tensor, size: int, scale: float, size_hw: Pair) -> Iterator[Group]:
    """Regions with equally many samples in every bin."""
    height, width = size_hw
    low, high = (rois[:, 1:3] * scale - HALF_CELL), (rois[:, 3:5] * scale - HALF_CELL)
    samples = ((high - low) / size).ceil().clamp(min=0).long()
    kinds, kind = samples.unique(dim=0, return_inverse=True)
    for i, (across, down) in enumerate(kinds.tolist()):
        member = (kind == i).nonzero().squeeze(1)
        column, share_x = _axis(low[member, 0], high[member, 0], size, across, width)
        row, share_y = _axis(low[member, 1], high[member, 1], size, down, height)
        image = rois[member, 0].to(torch.int32).view(-1, 1, 1, 1, 1) * (height * width)
        # (down, across, regions, rows of bins, columns of bins, low|high, low|high)
        cells = image + row[:, None, :, :, None, :, None] * width + column[None, :, :, None, :, None, :]
        share = share_y[:, None, :, :, None, :, None] * share_x[None, :, :, None, :, None, :]
        shape = (across * down, len(member) * size * size, CORNERS)
        yield member, cells.reshape(shape), share.reshape(shape)


def _axis(low: Tensor, high: Tensor, size: int, samples: int, cells: int) -> tuple[Tensor, Tensor]:
    """Cells int32 and shares (samples, R, size, 2) of the samples along an axis of R regions from `low` to `high`.

    Every bin has `samples`, every sample two of the axis' `cells`; one off the map has no share.
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


def _pooled(table: Tensor, groups: Iterable[Group], size: int, regions: int) -> Tensor:
    """Means (R, I, size, size) of the samples of all bins, added one after the other as torchvision does."""
    channels = table.shape[1]
    out, step = table.new_empty(regions, channels, size, size), max(1, gather.CHUNK_BYTES // (channels * 4))
    for member, index, share in groups:
        means = table.new_zeros(index.shape[1], channels)
        for total, *parts in zip(means.split(step), index.split(step, 1), share.split(step, 1), strict=True):
            for i, s in zip(*parts, strict=True):
                total += bags_of(table, i[None], s[None])[0]
            total /= max(len(index), 1)
        out[member] = means.view(-1, size, size, channels).permute(0, 3, 1, 2)
    return out


class SampledBins(torch.autograd.Function):
    """`_pooled` with a gradient, for the table alone."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, groups: list[Group], size: int, regions: int) -> Tensor:
        """See the class."""
        ctx.cells, ctx.groups = table.shape, groups
        return _pooled(table, groups, size, regions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of the table."""
        total, (members, indices, shares) = grad.new_zeros(ctx.cells), zip(*ctx.groups, strict=True)
        rows = grad[torch.cat(members)].flatten(2).transpose(1, 2).flatten(0, 1)
        mean = torch.cat([(share / max(len(share), 1)).flatten() for share in shares])
        bags = torch.arange(len(rows)).split([index.shape[1] for index in indices])
        bag = [b[:, None].expand(index.shape).flatten() for b, index in zip(bags, indices, strict=True)]
        add_scattered(total, torch.cat([index.flatten() for index in indices]), mean, torch.cat(bag), rows)
        return total, None, None, None
