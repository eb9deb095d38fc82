"""One form of boxes from another: xyxy, xywh and cxcywh, their sides, centres and areas, and fractions of an image.

Every function takes numpy arrays and tensors alike and returns the same kind; of tensors the forms are torchvision's.
torch is imported only when a tensor is given, so that evaluation and the data commands need numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Boxes = TypeVar("Boxes", np.ndarray, Tensor)
else:
    Boxes = TypeVar("Boxes")

Core = tuple[int, int, int, int]  # x1, y1, x2, y2 px of the network input, half open: a part of it
FORMS = ("xyxy", "xywh", "cxcywh")


def convert(boxes: Boxes, source: str, target: str) -> Boxes:
    """Boxes (…, 4) in the form `target` from the form `source`, both of FORMS.

    Raises:
        ValueError: an unknown form.

    Examples:
        >>> convert(np.array([[2.0, 3, 4, 6]]), "xywh", "xyxy").tolist()
        [[2.0, 3.0, 6.0, 9.0]]
        >>> convert(np.array([[2.0, 3, 6, 9]]), "xyxy", "cxcywh").tolist()
        [[4.0, 6.0, 4.0, 6.0]]
    """
    if source not in FORMS or target not in FORMS:
        raise ValueError(f"{source} to {target}: expected two of {', '.join(FORMS)}")
    if source == target:
        return boxes
    if not isinstance(boxes, np.ndarray):
        from torchvision.ops import box_convert

        converted: Boxes = box_convert(boxes, source, target)
        return converted
    columns: list[Any] = [None] * 4
    for axis in (0, 1):  # column by column: numpy takes five times as long for pairs of columns
        first, second = boxes[..., axis], boxes[..., axis + 2]
        if source == "xywh":
            second = first + second
        elif source == "cxcywh":
            first, second = first - 0.5 * second, first + 0.5 * second
        if target == "xywh":
            second = second - first
        elif target == "cxcywh":
            first, second = (first + second) / 2, second - first
        columns[axis], columns[axis + 2] = first, second
    return np.stack(columns, axis=-1)


def sides(boxes: Boxes) -> Boxes:
    """(…, 2) width and height of xyxy boxes (…, 4).

    Examples:
        >>> sides(np.array([[2.0, 3, 6, 9]])).tolist()
        [[4.0, 6.0]]
    """
    wh: Boxes = boxes[..., 2:] - boxes[..., :2]
    return wh


def centres(boxes: Boxes) -> Boxes:
    """(…, 2) x and y of the middle of xyxy boxes (…, 4).

    Examples:
        >>> centres(np.array([[2.0, 3, 6, 9]])).tolist()
        [[4.0, 6.0]]
    """
    middles: Boxes = (boxes[..., :2] + boxes[..., 2:]) / 2
    return middles


def scaled(boxes: Boxes, factor: float) -> Boxes:
    """xyxy boxes (…, 4) with sides `factor` times as long, around the same centres.

    Examples:
        >>> scaled(np.array([[2.0, 4, 6, 12]]), 0.5).tolist()
        [[3.0, 6.0, 5.0, 10.0]]
    """
    parts: Any = (centres(boxes), sides(boxes) * factor)
    if isinstance(boxes, np.ndarray):
        return convert(np.concatenate(parts, axis=-1), "cxcywh", "xyxy")
    import torch

    return convert(torch.cat(parts, dim=-1), "cxcywh", "xyxy")


def areas(boxes: Boxes) -> Boxes:
    """(…,) width times height of xyxy boxes (…, 4)."""
    wh = sides(boxes)
    product: Boxes = wh[..., 0] * wh[..., 1]
    return product


def to_pixels(boxes: Boxes, sizes_hw: Any) -> Boxes:
    """xyxy in pixels of boxes (…, 4) cxcywh that are fractions of images of sizes (…, 2) height and width.

    Examples:
        >>> to_pixels(np.array([[0.05, 0.15, 0.1, 0.1]]), np.array([[100, 200]])).tolist()
        [[0.0, 10.0, 20.0, 20.0]]
    """
    return convert(boxes * _scale(boxes, sizes_hw), "cxcywh", "xyxy")


def to_fractions(boxes: Boxes, sizes_hw: Any) -> Boxes:
    """cxcywh as fractions of images of sizes (…, 2) height and width, of boxes (…, 4) xyxy in pixels.

    Examples:
        >>> to_fractions(np.array([[0.0, 10, 20, 20]]), np.array([[100, 200]])).tolist()
        [[0.05, 0.15, 0.1, 0.1]]
    """
    fractions: Boxes = convert(boxes, "xyxy", "cxcywh") / _scale(boxes, sizes_hw)
    return fractions


def clip(boxes: Boxes, sizes_hw: Any) -> Boxes:
    """Boxes (…, 4) xyxy cut at the edges of images of sizes (…, 2) height and width, px.

    Examples:
        >>> clip(np.array([[-2.0, 3, 12, 8]]), np.array([[6, 10]])).tolist()
        [[0.0, 3.0, 10.0, 6.0]]
    """
    scale = _scale(boxes, sizes_hw)
    inside: Boxes = np.clip(boxes, 0, scale) if isinstance(boxes, np.ndarray) else boxes.clamp(min=0).minimum(scale)
    return inside


def _scale(boxes: Boxes, sizes_hw: Any) -> Boxes:
    """(…, 4) width, height, width, height, of the kind, device and floating type of `boxes`."""
    if isinstance(boxes, np.ndarray):
        wh = np.asarray(sizes_hw, dtype=np.float64 if boxes.dtype != np.float32 else np.float32)[..., ::-1]
        return np.concatenate([wh, wh], axis=-1)
    import torch

    if isinstance(sizes_hw, tuple) and isinstance(sizes_hw[0], torch.Tensor):  # of a graph, which holds no sizes
        sizes_hw = torch.stack(sizes_hw)
    wh = torch.as_tensor(sizes_hw, device=boxes.device, dtype=boxes.dtype).flip(-1)
    return torch.cat([wh, wh], dim=-1)
