"""A data loader that can begin inside an epoch, with exactly the samples that would have come next."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info
from ultralytics.data.build import InfiniteDataLoader, seed_worker

from tinyyolo.datasets.train.opened import MOST_BYTES


class Behind:
    """The batches of a sampler behind the first so many."""

    def __init__(self, sampler: Any, first: int):
        self.sampler, self.first = sampler, first

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.sampler), self.first, None)


class InBlocks:
    """The order of a sampler, so changed that samples of images that are decoded whole come together.

    As many images as a process can hold make a block, in the order in which the sampler comes to them; samples of other
    images are spread over all blocks. Within a block the order stays: a window is no more bound to its neighbours than
    these images are to each other.

    Args:
        sampler: indices of samples.
        images: of each sample the image that must be decoded for it, None for others.
        sizes: bytes of each of these images.
        most: bytes of a block.

    Examples:
        >>> images, sizes = ["a", "b", "a", "b", None, None], {"a": 3, "b": 3}
        >>> list(InBlocks([3, 4, 0, 1, 5, 2], images, sizes, 4)), list(InBlocks([3, 4, 0, 1, 5, 2], images, sizes, 6))
        ([3, 4, 1, 0, 5, 2], [3, 4, 0, 1, 5, 2])
    """

    def __init__(self, sampler: Any, images: Sequence[str | None], sizes: Mapping[str, int], most: int = MOST_BYTES):
        self.sampler, self.images, self.sizes, self.most = sampler, images, sizes, most

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        order = list(self.sampler)
        blocks, last, filled = dict[str, int](), 0, 0
        for name in dict.fromkeys(image for i in order if (image := self.images[i]) is not None):
            if filled and filled + self.sizes[name] > self.most:
                last, filled = last + 1, 0
            blocks[name], filled = last, filled + self.sizes[name]
        count = last + 1
        key = [
            place * count // len(order) if (image := self.images[i]) is None else blocks[image]
            for place, i in enumerate(order)
        ]
        return iter([order[j] for j in sorted(range(len(order)), key=key.__getitem__)])


class Seeded(NamedTuple):
    """A sample to make, and the seed of its augmentation."""

    sample: int
    seed: int

    def sow(self) -> None:
        """Put the random states that augmentation draws from there."""
        random.seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002 - ultralytics' augmentation draws from the global state


class Share:
    """What one of several processes takes of a sampler's order: its slice of every batch.

    All processes follow the same order, and a sample's seed is that of its place in it: N processes see the samples of
    one, batch by batch. A last batch of fewer samples than processes is filled up from the start of the order.

    Args:
        sampler: indices of samples; the same in all processes.
        batch: samples of a batch, over all processes.
        rank, size: of this process.
        fill: whether every process has a part of the last batch.

    Attributes:
        seed: of the epoch; None gives plain indices.

    Examples:
        >>> [[list(Share(range(7), 4, rank, 2, fill)) for rank in (0, 1)] for fill in (False, True)]
        [[[0, 1, 4, 5], [2, 3, 6]], [[0, 1, 4, 5], [2, 3, 6]]]
        >>> [[list(Share(range(5), 4, rank, 2, fill)) for rank in (0, 1)] for fill in (False, True)]
        [[[0, 1, 4], [2, 3]], [[0, 1, 4], [2, 3, 0]]]
    """

    seed: int | None = None

    def __init__(self, sampler: Any, batch: int, rank: int = 0, size: int = 1, fill: bool = True):
        self.sampler, self.batch, self.rank, self.size, self.fill = sampler, batch, rank, size, fill

    def places(self, count: int) -> list[int]:
        """Places of this process's samples in an order of so many; beyond its end they are those from its start."""
        own: list[int] = []
        for begin in range(0, count, self.batch):
            length = min(self.batch, count - begin)
            length = max(length, self.size) if self.fill else length
            each, more = divmod(length, self.size)
            first = begin + self.rank * each + min(self.rank, more)
            own += range(first, first + each + (self.rank < more))
        return own

    def __len__(self) -> int:
        return len(self.places(len(self.sampler)))

    def __iter__(self) -> Iterator[Any]:
        order = list(self.sampler)
        for place in self.places(len(order)):
            index = order[place % len(order)]
            yield index if self.seed is None else Seeded(index, seed_of(self.seed, place))


def seed_of(*numbers: int) -> int:
    """A seed by whole numbers, such as an epoch's seed and a place in it; neighbours have nothing to do with another.

    Examples:
        >>> seed_of(1, 2) == seed_of(1, 2), seed_of(1, 2) == seed_of(2, 1)
        (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def share_out(loader: Any, rank: int, size: int, fill: bool) -> Share:
    """Let a loader give this process's share of its batches; returns what chooses it."""
    batches = loader.batch_sampler.sampler
    share = batches.sampler = Share(batches.sampler, batches.batch_size, rank, size, fill)
    batches.batch_size = -(-batches.batch_size // size)
    return share


class TinyLoader(InfiniteDataLoader):
    """Upstream's loader, which can begin inside an epoch; of one that stands, `loader.__class__ = TinyLoader` makes it.

    Attributes:
        first: how many batches of the epoch are done already; the order stays that of the whole epoch.
    """

    first = 0
    iterator: Any

    @property
    def _index_sampler(self) -> Any:
        return Behind(self.batch_sampler, self.first)

    def __iter__(self) -> Any:
        """What is left of the epoch."""
        if self.iterator is None:
            self.iterator = self._get_iterator()
        for _ in range(len(self) - self.first):
            yield next(self.iterator)

    def begin(self, first: int = 0, places: Mapping[int, Any] | None = None) -> None:
        """Start afresh, behind the first so many batches; worker processes go on from `places`, see `place_of`.

        Batch i is made by process i modulo their number: a new process takes the place of the one whose turn it is.
        """
        self.first, turn = first, first % (self.num_workers or 1)
        start = partial(begin_worker, self.num_workers, turn, dict(places or {})) if first else seed_worker
        self.worker_init_fn = partial(begin_silent, start)
        self.reset()


def begin_silent(start: Callable[[int], None], worker: int) -> None:
    """Begin as `start` does, with nothing to say of a training that is gone.

    The thread that hands tensors over calls the hook then; what else goes wrong here is an error of the training, too.
    A process that was forked has the training's hook already, one of a fork server or spawned has not.
    """
    sys.excepthook = say_nothing
    start(worker)


def say_nothing(*_: Any) -> None:
    """An excepthook."""


def begin_worker(count: int, turn: int, places: Mapping[int, Any], worker: int) -> None:
    """Go on in the place of process `turn` + `worker`, or begin as it would if no batch had come from it yet."""
    info: Any = get_worker_info()
    former = (turn + worker) % count
    torch.manual_seed(torch.initial_seed() - worker + former)
    seed_worker(former)
    if former in places:
        go_to(info.dataset, places[former])


def place_of(dataset: Any) -> dict[str, Any]:
    """Where this process stands: its random states and the recent images that mosaic draws from, as plain values."""
    numpy: Any = np.random.get_state()  # noqa: NPY002 - ultralytics' augmentation draws from the global state
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": [numpy[0], numpy[1].tolist(), *numpy[2:]],
        "torch": torch.get_rng_state().tolist(),
        "recent": list(dataset.buffer),
    }


def packed(content: Any) -> torch.Tensor:
    """Plain values as bytes of shared memory: what goes through a loader's pipe itself must stay small.

    A process that waits for room in the pipe of a killed training would wait for ever.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def unpacked(data: torch.Tensor) -> Any:
    """What `packed` was given."""
    return torch.load(io.BytesIO(data.cpu().numpy().tobytes()), weights_only=True)


def go_to(dataset: Any, place: Mapping[str, Any]) -> None:
    """Put this process where `place_of` found one; the recent images are read again."""
    dataset.forget()
    for i in place["recent"]:
        dataset.load_image(i)
    version, words, gauss = place["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *more = place["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *more))  # noqa: NPY002
    torch.set_rng_state(torch.tensor(place["torch"], dtype=torch.uint8))
