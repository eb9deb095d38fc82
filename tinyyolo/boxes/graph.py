"""What a recorded graph needs of operations on boxes: no loop, no number read off a tensor, operators of ONNX alone.

While torch records for ONNX (`for_onnx`), `boxes/nms.py` and `boxes/sparse.py` take these; otherwise torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def traced() -> bool:
    """Whether a graph is being recorded, which knows one path only."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]  # torch neither exports nor types it


def for_onnx() -> bool:
    """Whether a graph of ONNX's operators is being recorded, of any size and any number of images."""
    return bool(torch.onnx.is_in_onnx_export())


def rows(values: Tensor, index: Tensor) -> Tensor:
    """`values[index]` of (N, ...) and (P,): in a quarter of the time where there are very many.

    Examples:
        >>> rows(torch.tensor([5, 6, 7]), torch.tensor([2, 0])).tolist()
        [7, 5]
    """
    return values.index_select(0, index)


def capped(count: int, most: int) -> int:
    """The smaller of a number of rows and a bound; in a graph the rows' number is not known.

    Examples:
        >>> capped(3, 5), capped(9, 5)
        (3, 5)
    """
    if not for_onnx():
        return min(count, most)
    least: Any = torch.minimum(torch.as_tensor(count), torch.tensor(most))
    return least  # type: ignore[no-any-return]  # what a recorder takes for a number


def falling(values: Tensor) -> Tensor:
    """Indices that sort (N,) by falling value, of equal ones the first first.

    Examples:
        >>> falling(torch.tensor([1.0, 3, 3])).tolist()
        [1, 2, 0]
    """
    if for_onnx():  # the exporter knows no other
        return values.sort(dim=0, descending=True).indices
    return values.sort(descending=True, stable=True).indices


def ordered(group: Tensor, values: Tensor) -> Tensor:
    """Indices that sort (N,) by rising group (N,) int64, of at most 31 bits, and within one by falling float32 value.

    Examples:
        >>> ordered(torch.tensor([1, 0, 1]), torch.tensor([0.5, 0.25, 0.75])).tolist()
        [1, 2, 0]
    """
    if not for_onnx():  # one sort of whole numbers, as which float32 are in order once the negative ones are turned
        bits = (values + 0.0).view(torch.int32).long()  # -0 as 0
        return ((group << 32) - (bits ^ ((bits >> 31) & 0x7FFFFFFF))).sort(stable=True).indices
    order = falling(values)
    place = torch.zeros_like(group).scatter(0, order, torch.arange(group.shape[0]))  # not every program sorts stably
    return (group * group.shape[0] + place).sort(dim=0, descending=False).indices


def repeated(count: Tensor) -> Tensor:
    """Row i of (N,) `count` times: `torch.repeat_interleave(count)`.

    Examples:
        >>> repeated(torch.tensor([2, 0, 1])).tolist()
        [0, 0, 2]
    """
    if not for_onnx():
        return torch.repeat_interleave(count)
    ends = count.cumsum(0)
    total: Any = F.pad(ends, (1, 0))[-1]  # 0 of none
    steps = torch.zeros_like(torch.arange(total + 1)).scatter_add(0, F.pad(ends, (1, 0))[:-1], torch.ones_like(count))
    return steps.cumsum(0)[:-1] - 1


def places(line: Tensor, values: Tensor, right: bool = False) -> Tensor:
    """Where (N,) `values` belong in a rising `line` (M,), of integers: `torch.searchsorted`.

    Examples:
        >>> line, values = torch.tensor([1, 3, 3]), torch.tensor([3, 0])
        >>> places(line, values).tolist(), places(line, values, right=True).tolist()
        ([1, 0], [3, 0])
    """
    if not for_onnx():
        return torch.searchsorted(line, values, right=right)
    counts = torch.cat([torch.zeros_like(values), torch.ones_like(line)])
    both = torch.cat([values, line]) * 2 + (1 if right else -1) * (1 - counts)  # a value beside the equal of the line
    order = both.sort(dim=0, descending=False).indices
    return torch.zeros_like(both).scatter(0, order, counts[order].cumsum(0))[: values.shape[0]]


def ranks(group: Tensor, groups: int) -> Tensor:
    """(N,) how many of a rising `group` (N,), of `groups`, stand before each in its own.

    Examples:
        >>> ranks(torch.tensor([0, 0, 2, 2]), 3).tolist()
        [0, 1, 0, 1]
    """
    counts = torch.zeros_like(torch.arange(groups, device=group.device)).scatter_add(0, group, torch.ones_like(group))
    return torch.arange(group.shape[0], device=group.device) - rows(counts.cumsum(0) - counts, group)
