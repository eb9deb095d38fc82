"""Images in a corner of the network's input, as the published rows have them: batches filled up right and below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from tinyyolo.sizes import PAD, filled_up


def content_of(sample: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the image itself in a validation sample that is filled up."""
    gains, (height, width) = sample["ratio_pad"][0], sample["ori_shape"]
    return round(height * gains[0]), round(width * gains[1])


def grown(batch: Mapping[str, Any], size_hw: Sequence[int]) -> dict[str, Any]:
    """A batch of images in a corner, filled up to a larger size, of whose sides its boxes then are fractions.

    Examples:
        >>> boxes = torch.tensor([[0.5, 0.5, 0.25, 0.25]])
        >>> out = grown({"img": torch.zeros(1, 3, 32, 64), "bboxes": boxes, "ignore_bboxes": boxes[:0]}, (64, 64))
        >>> tuple(out["img"].shape), out["bboxes"].tolist()
        ((1, 3, 64, 64), [[0.5, 0.25, 0.25, 0.125]])
    """
    (height, width), (h, w) = size_hw, batch["img"].shape[2:]
    share = torch.tensor([w / width, h / height] * 2, dtype=torch.float32)
    image = F.pad(batch["img"], (0, width - w, 0, height - h), value=PAD)
    return {**batch, "img": image, **{key: batch[key] * share for key in ("bboxes", "ignore_bboxes")}}


def in_corner(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples filled up to the right and below to one size, the least whose sides are multiples of 32.

    Examples:
        >>> sizes, box = [(40, 64), (33, 20)], torch.tensor([[0.5, 0.5, 0.25, 0.25]])
        >>> samples = in_corner([{"img": torch.zeros(3, h, w), "bboxes": box} for h, w in sizes])
        >>> [tuple(one["img"].shape) for one in samples], samples[1]["bboxes"] * torch.tensor([64, 64, 64, 64])
        ([(3, 64, 64), (3, 64, 64)], tensor([[10.0000, 16.5000,  5.0000,  8.2500]]))
    """
    height, width = (filled_up(max(one["img"].shape[axis] for one in samples)) for axis in (1, 2))
    out = []
    for one in samples:
        h, w = one["img"].shape[1:]
        image = F.pad(one["img"], (0, width - w, 0, height - h), value=PAD)
        share = torch.tensor([w / width, h / height] * 2, dtype=torch.float32)
        out.append({**one, "img": image, "bboxes": one["bboxes"] * share})
    return out
