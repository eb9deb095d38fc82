"""A detector's candidates over the windows of a scene, each in the window that owns it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tinyyolo.boxes.convert import Core, clip
from tinyyolo.scenes.windows import Window
from tinyyolo.sizes import PAD as PAD


class Found(NamedTuple):
    """Candidates of a part of a scene: boxes (P, 4) xyxy px of the scene, scores (P,), labels (P,) int64."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


Net = Callable[[Tensor, Core], list[tuple[Tensor, Tensor, Tensor]]]


def batches(windows: Sequence[Window], batch: int) -> Iterator[list[Window]]:
    """Windows in their order, at most `batch` at a time, those of one batch of one size and one core."""
    for _, group in groupby(windows, lambda window: (window.size_hw, window.core)):
        alike = list(group)
        for start in range(0, len(alike), batch):
            yield alike[start : start + batch]


def network_input(images: Sequence[np.ndarray], stride: int) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] of images (h, w, 3) uint8 BGR of one size, filled up to the right and below."""
    height, width = (-(-side // stride) * stride for side in images[0].shape[:2])
    out = torch.full((len(images), height, width, 3), PAD, dtype=torch.uint8)
    for i, image in enumerate(images):
        out[i, : image.shape[0], : image.shape[1]] = torch.from_numpy(image[..., ::-1].copy())
    return out.permute(0, 3, 1, 2).float() / 255


def sweep(
    windows: Sequence[Window],
    read: Callable[[Window], np.ndarray | None],
    net: Net,
    size_hw: tuple[int, int],
    stride: int,
    batch: int = 1,
) -> Iterator[list[tuple[Window, Found]]]:
    """Candidates of every window, batch by batch.

    Args:
        windows: which parts are looked at.
        read: the pixels (h, w, 3) uint8 BGR of a window, None where there is nothing to look at.
        net: of a batch and its core, per image boxes (P, 4) px of the input, scores (P,) and labels (P,).
        size_hw: of the scene; boxes are clipped to it.
        stride: the input's sides are its multiples.
        batch: at most so many windows at once.
    """
    for group in batches(windows, batch):
        seen = [(window, pixels) for window in group if (pixels := read(window)) is not None]
        if not seen:
            continue
        found = net(network_input([pixels for _, pixels in seen], stride), group[0].core)
        yield [
            (window, Found(clip(boxes + boxes.new_tensor(window.origin * 2), size_hw), scores, labels))
            for (window, _), (boxes, scores, labels) in zip(seen, found, strict=True)
        ]


def gathered(parts: Sequence[Found]) -> Found:
    """All candidates, in an order that is the same whichever window they came from and when."""
    if not parts:
        return Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    boxes, scores, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    keys = torch.cat([boxes, labels[:, None].to(boxes), -scores[:, None]], dim=1).cpu().numpy()
    order = torch.from_numpy(np.lexsort(keys.T)).to(boxes.device)
    return Found(boxes[order], scores[order], labels[order])
