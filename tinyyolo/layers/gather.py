"""Bilinear sampling on a CPU: deformable convolution and RoIAlign as gathers of whole cells of a channels-last map.

torchvision's CPU kernels walk every channel of every sample by itself. Here a sample is a few cells and their shares,
an embedding bag adds the cells' vectors, and the gradient of the map is the same bag with sources and targets
exchanged. For one image whose map is not channels-last the results are torchvision's to the bit; otherwise products and
sums are fused, which is faster and differs in the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_BYTES = 8 << 20  # sampled columns held at a time: stays in cache and below the allocator's mmap threshold
CORNERS = 4
Pair = tuple[int, int]


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a map (B, C, H, W) lie innermost, and only they."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def bags_of(table: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """(l, T, 4) -> (l, T, I)."""
    bags = F.embedding_bag(index.flatten(0, 1), table, mode="sum", per_sample_weights=share.flatten(0, 1))
    return bags.view(*index.shape[:2], table.shape[1])


def add_scattered(total: Tensor, index: Tensor, share: Tensor, bag: Tensor, rows: Tensor) -> None:
    """total[index[e]] += share[e] * rows[bag[e]]: the gather, with sources and targets exchanged."""
    if not len(index):
        return
    cell, order = index.sort(stable=True)
    first, end = int(cell[0]), int(cell[-1]) + 1
    starts = torch.searchsorted(cell, torch.arange(first, end, dtype=cell.dtype))
    total[first:end] += F.embedding_bag(bag[order], rows, starts, mode="sum", per_sample_weights=share[order])
