"""A detector's candidates over the windows of a scene, each in the window that owns it."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from tinyyolo.boxes.convert import Core, clip
from tinyyolo.scenes.windows import Window
from tinyyolo.sizes import PAD

AHEAD = 2  # batches that are read while the network looks at one
Item = TypeVar("Item")
Result = TypeVar("Result")


class Found(NamedTuple):
    """Candidates of a part of a scene: boxes (P, 4) xyxy px of the scene, scores (P,), labels (P,) int64."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def of(self, chosen: Tensor) -> Found:
        """Those of them that are `chosen`, (P,) bool or indices."""
        return Found(self.boxes[chosen], self.scores[chosen], self.labels[chosen])


Net = Callable[[Tensor, Core], list[tuple[Tensor, Tensor, Tensor]]]


def batches(windows: Sequence[Window], batch: int) -> Iterator[list[Window]]:
    """Windows in their order, at most `batch` at a time, those of one batch of one row, one size and one core.

    A row is cut the same whichever rows are asked for.
    """
    for _, group in groupby(windows, lambda window: (window.y, window.size_hw, window.core)):
        alike = list(group)
        for start in range(0, len(alike), batch):
            yield alike[start : start + batch]


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` on each item, in their order, in a thread of its own that is AHEAD of who asks; its errors come here.

    Examples:
        >>> list(ahead(abs, [-1, 2, -3, 4]))
        [1, 2, 3, 4]
    """
    with ThreadPoolExecutor(1, "tinyyolo-ahead") as pool:
        try:
            waiting: deque[Future[Result]] = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # the block waits for what is being read


def network_input(images: Sequence[np.ndarray], stride: int) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] of images (h, w, 3) uint8 BGR of one size, filled up to the right and below."""
    height, width = (-(-side // stride) * stride for side in images[0].shape[:2])
    out = torch.full((len(images), height, width, 3), PAD, dtype=torch.uint8)
    for i, image in enumerate(images):
        out[i, : image.shape[0], : image.shape[1]] = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return out.permute(0, 3, 1, 2).float().div_(255)


def sweep(
    windows: Sequence[Window],
    read: Callable[[Window], np.ndarray | None],
    net: Net,
    size_hw: tuple[int, int],
    stride: int,
    batch: int = 1,
) -> Generator[list[tuple[Window, Found | None]]]:
    """Candidates of every window, batch by batch; None of one with nothing to look at.

    Args:
        windows: which parts are looked at.
        read: the pixels (h, w, 3) uint8 BGR of a window, None where there is nothing to look at; called in a thread,
            while the network looks at the windows before.
        net: of a batch and its core, per image boxes (P, 4) px of the input, scores (P,) and labels (P,).
        size_hw: of the scene; boxes are clipped to it.
        stride: the input's sides are its multiples.
        batch: at most so many windows at once.
    """

    def prepared(group: list[Window]) -> tuple[list[Window], list[Window], Tensor | None]:
        seen = [(window, pixels) for window in group if (pixels := read(window)) is not None]
        images = network_input([pixels for _, pixels in seen], stride) if seen else None
        return group, [window for window, _ in seen], images

    for group, seen, images in ahead(prepared, batches(windows, batch)):
        results = net(images, group[0].core) if images is not None else []
        found = {
            window: Found(clip(boxes + boxes.new_tensor(window.origin * 2), size_hw), scores, labels)
            for window, (boxes, scores, labels) in zip(seen, results, strict=True)
        }
        yield [(window, found.get(window)) for window in group]


def give_back() -> None:
    """Let the C library (glibc) give the system what it holds of memory and does not use.

    Candidates are another number in every window; between the large maps that come and go, the holes that they leave
    grew by 10 MB a row of windows, as long as the scene was.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if trim := getattr(library, "malloc_trim", None):
        trim(0)


def joined(parts: Sequence[Found]) -> Found:
    """All candidates of some parts, one part after the other."""
    if not parts:
        return Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return Found(*(torch.cat(column) for column in zip(*parts, strict=True)))


def gathered(parts: Sequence[Found], able: Callable[[Tensor, Tensor], Tensor]) -> tuple[Found, Tensor]:
    """All candidates, one part after the other, and the rows of those that may become detections, by falling score.

    The order of these is the same whichever window they came from and when: of equal scores class and box decide. The
    others only vote, which has no order.

    Args:
        parts: candidates.
        able: of scores (P,) and labels (P,), (P,) bool: which may become detections.

    Examples:
        >>> one = Found(torch.zeros(1, 4), torch.tensor([0.5]), torch.tensor([1]))
        >>> two = Found(torch.ones(3, 4), torch.tensor([0.5, 0.1, 0.9]), torch.tensor([0, 3, 2]))
        >>> for parts in ([one, two], [two, one]):
        ...     found, rows = gathered(parts, lambda scores, labels: scores > 0.25)
        ...     found.of(rows).labels.tolist()
        [2, 0, 1]
        [2, 0, 1]
    """
    found = joined(parts)
    rows = able(found.scores, found.labels).nonzero().squeeze(1)
    falling = -found.scores[rows].cpu().numpy()
    order = np.argsort(falling, kind="stable")
    alike = np.diff(falling[order], prepend=np.nan) == 0  # as the one before
    some = np.flatnonzero(alike | np.append(alike[1:], False))  # few: sorting all by all keys takes ten times as long
    tied = order[some]
    boxes, _, labels = found.of(rows[torch.from_numpy(tied).to(rows.device)])
    keys = torch.cat([boxes, labels[:, None].to(boxes)], dim=1).cpu().numpy()
    order[some] = tied[np.lexsort((*keys.T, falling[tied]))]
    return found, rows[torch.from_numpy(order).to(rows.device)]
