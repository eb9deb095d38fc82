"""What the processes of a run do together: they agree, read once for all, and add up what their losses divide by."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinyyolo import ranks
from tinyyolo.config import UserError

PATIENCE = timedelta(hours=3)  # for a process that reads, evaluates or draws for all; upstream's value
ON_CPU, ON_GPU = "gloo", "cpu:gloo,cuda:nccl"
SHARING: ContextVar[bool] = ContextVar("SHARING", default=False)  # see `sharing`
NODES: list[tuple[int, Any]] = []  # first process and group of this node, once it was asked for
T = TypeVar("T")
Number = TypeVar("Number", int, float, Tensor)


def several() -> bool:
    """Whether there are other processes to agree with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def place_of_attempt() -> dict[str, Any]:
    """Where the processes of a later attempt of torchrun meet: its store still has the addresses of those that died."""
    if not ranks.restarts():
        return {}
    return {"store": ranks.store(f"attempt {ranks.restarts()}"), "rank": ranks.rank(), "world_size": ranks.size()}


@contextmanager
def joined(gpu: bool) -> Iterator[None]:
    """Within this context the processes that torchrun started know each other, over gloo, and nccl for GPUs.

    Raises:
        UserError: they cannot find each other, or one of them has ended.
    """
    if ranks.size() == 1 or dist.is_initialized():
        yield
        return
    whole = False
    try:
        try:
            dist.init_process_group(ON_GPU if gpu else ON_CPU, timeout=PATIENCE, **place_of_attempt())
        except (ValueError, dist.DistError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"WORLD_SIZE={ranks.size()}: the processes do not meet: {said}; start by torchrun"
            ) from error
        yield
        whole = True
    except Exception as error:
        ranks.first_to_tell()  # before the others see that this one goes
        if lost(error):
            raise UserError(ranks.LOST) from error
        raise
    finally:
        NODES.clear()
        if dist.is_initialized() and (whole or not gpu):  # nccl would wait for those that have gone
            dist.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Whether an exception says that another process has gone.

    Examples:
        >>> lost(RuntimeError("[gloo/tcp/pair.cc:545] Connection reset by peer")), lost(RuntimeError("shapes differ"))
        (True, False)
    """
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


# ---- one value for all


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process; a UserError there is one everywhere."""
    return _from(0, None, make) if several() else make()


def once_per_node(make: Callable[[], T]) -> T:
    """What `make` gives in the first process of a node; a UserError there is one in all of them."""
    if not several():
        return make()
    if not NODES:
        nodes = gathered(int(os.environ.get("GROUP_RANK") or 0))
        members = [[i for i, node in enumerate(nodes) if node == one] for one in sorted(set(nodes))]
        groups = [dist.new_group(some, backend=ON_CPU) for some in members]
        NODES.extend((some[0], group) for some, group in zip(members, groups, strict=True) if ranks.rank() in some)
    return _from(*NODES[0], make)


def _from(owner: int, group: Any, make: Callable[[], T]) -> T:
    box: list[Any] = [None]
    if ranks.rank() == owner:
        try:
            box = [("value", make())]
        except UserError as error:
            box = [("fault", str(error))]
    dist.broadcast_object_list(box, src=owner, group=group, device=torch.device("cpu"))
    kind, found = box[0]
    if kind == "fault":
        raise UserError(found)
    value: T = found
    return value


def gathered(value: T) -> list[T]:
    """The values of all processes, in their order, in each of them."""
    if not several():
        return [value]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, value)
    return parts


def in_any(flag: bool) -> bool:
    """Whether it is so in one of the processes."""
    return bool(summed(torch.tensor(float(flag)))) if several() else flag


def summed(value: Tensor) -> Tensor:
    """The sum over the processes, on its device."""
    if several():
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def largest(values: Sequence[int]) -> list[int]:
    """Of each number the largest that a process has."""
    found = torch.tensor(values)
    if several():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return [int(value) for value in found]


# ---- losses


@contextmanager
def sharing() -> Iterator[None]:
    """Within this context, which all processes enter together, each has a part of a batch: see `of_batch`."""
    token = SHARING.set(several())
    try:
        yield
    finally:
        SHARING.reset(token)


def of_batch(count: Number, least: float = 0) -> Number:
    """What the losses of a batch are divided by: the sum of `count` over all processes that share it, at least `least`.

    So the losses of N processes that have B images each, and their gradients, add up to those of one process that has
    all N B. A mean over processes, each by its own objects, would count an object among few more than one among many.

    Args:
        count: of this process's images: positives, sampled regions, summed qualities.
        least: of the whole batch.

    Examples:
        >>> of_batch(0, 1), of_batch(torch.tensor(0.25), 1).item()
        (1, 1.0)
    """
    if isinstance(count, Tensor):
        return (summed(count) if SHARING.get() else count).clamp(min=least)
    total: Any = summed(torch.tensor(count)).item() if SHARING.get() else count
    most: Number = max(total, type(total)(least))
    return most


class Summed(nn.parallel.DistributedDataParallel):
    """A detector that learns from a batch which the processes share: forward takes this one's part of it.

    Its loss is this part's times the number of processes, over which the gradients are then averaged: their sum. The
    losses by name are those of the whole batch, in every process; where one is no number, every process's loss is none.

    Args:
        module: gives a loss and losses by name, as `Detector` does.
    """

    def __init__(self, module: nn.Module):
        known = inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters
        older = "broadcast_buffers"  # before torch 2.13
        buffers: Any = {name if (name := "forward_sync_buffers") in known else older: False}
        super().__init__(module, find_unused_parameters=True, **buffers)

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """As the module."""
        with sharing():
            loss, items = super().forward(batch)  # type: ignore[no-untyped-call]
        whole = summed(torch.stack([value.float() for value in items.values()]))
        return loss * dist.get_world_size() + 0 * whole.sum(), dict(zip(items, whole, strict=True))


def as_first(tensors: Iterable[Tensor]) -> None:
    """Give these tensors the values that they have in the first process, such as running statistics."""
    for tensor in tensors if several() else ():
        dist.broadcast(tensor, src=0)
