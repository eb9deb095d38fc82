"""How alike two boxes are: iou, iof, giou, diou, ciou, gwd, nwd and dotd.

`pairwise_x(boxes (M, 4), others (N, 4)) -> (M, N)` compares every row with every row, `aligned_x(boxes, others)` two
tensors that broadcast against each other, box by box. Boxes are xyxy in pixels. Half precision and integers become
float32, float64 stays float64; both forms of a measure share one formula and so agree bit by bit. All are
differentiable. Adding a measure is one formula and one line in SIMILARITIES.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

CONSTANT = 12.7  # px, mean absolute object size of AI-TOD-v2 (paper, section 3.2); C in Eq. 7
EPS = 1e-6  # keeps quotients and the gradient of a root finite; part of the official definition of NWD


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every pair.

    IoU = |A ∩ B| / max(|A ∪ B|, 1e-6): two boxes without area are 0 to each other, never NaN.

    Args:
        boxes: (M, 4) xyxy, px.
        others: (N, 4) xyxy, px.

    Returns:
        (M, N) in [0, 1].

    Raises:
        ValueError: a tensor is not (…, 4).

    Examples:
        >>> pairwise_iou(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[0.0, 0, 4, 2], [8, 8, 9, 9]]))
        tensor([[0.5000, 0.0000]])
    """
    return _iou(*_pairwise(boxes, others))


def aligned_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union, box by box; see `pairwise_iou`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_iou(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[0.0, 0, 4, 2]]))
        tensor([0.5000])
    """
    return _iou(*_aligned(boxes, others))


def pairwise_iof(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over the area of the first box ("foreground") of every pair: |A ∩ B| / max(|A|, 1e-6).

    Not symmetric: it says how much of `boxes[i]` lies in `others[j]`. (M, 4) and (N, 4) -> (M, N) in [0, 1].

    Examples:
        >>> pairwise_iof(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2]]))
        tensor([[1.0000, 0.5000]])
    """
    return _iof(*_pairwise(boxes, others))


def aligned_iof(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over the area of the first box, box by box; see `pairwise_iof`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_iof(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.5000])
    """
    return _iof(*_aligned(boxes, others))


def pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of every pair (Rezatofighi et al. 2019, Eq. 3): IoU - (|E| - |A ∪ B|) / |E|, E the hull of both.

    (M, 4) and (N, 4) -> (M, N) in [-1, 1].

    Examples:
        >>> pairwise_giou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2], [2, 0, 4, 2]]))
        tensor([[1., 0.]])
    """
    return _giou(*_pairwise(boxes, others))


def aligned_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU, box by box; see `pairwise_giou`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_giou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([0.])
    """
    return _giou(*_aligned(boxes, others))


def pairwise_diou(boxes: Tensor, others: Tensor) -> Tensor:
    """Distance IoU of every pair (Zheng et al. 2020, Eq. 6): IoU - d² / c², d between centres, c the hull's diagonal.

    (M, 4) and (N, 4) -> (M, N) in [-1, 1].

    Examples:
        >>> pairwise_diou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([[-0.2000]])
    """
    return _diou(*_pairwise(boxes, others))


def aligned_diou(boxes: Tensor, others: Tensor) -> Tensor:
    """Distance IoU, box by box; see `pairwise_diou`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_diou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([-0.2000])
    """
    return _diou(*_aligned(boxes, others))


def pairwise_ciou(boxes: Tensor, others: Tensor) -> Tensor:
    """Complete IoU of every pair (Zheng et al. 2020, Eq. 8-11): DIoU - a v.

    v = 4 / π² (atan(w1/h1) - atan(w2/h2))² and a = v / (1 - IoU + v), a constant for the gradient.
    (M, 4) and (N, 4) -> (M, N).

    Examples:
        >>> pairwise_ciou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([[-0.2000]])
    """
    return _ciou(*_pairwise(boxes, others))


def aligned_ciou(boxes: Tensor, others: Tensor) -> Tensor:
    """Complete IoU, box by box; see `pairwise_ciou`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_ciou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([-0.2000])
    """
    return _ciou(*_aligned(boxes, others))


def pairwise_gwd(boxes: Tensor, others: Tensor) -> Tensor:
    """Gaussian Wasserstein similarity of every pair: 1 / (1 + ln(1 + W2²)), W2² as in `pairwise_nwd`.

    The paper's Table 6 names GWD (Yang et al. 2021) without its formula; this form, with tau = 1, is our choice.
    (M, 4) and (N, 4) -> (M, N) in (0, 1].

    Examples:
        >>> pairwise_gwd(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]]))
        tensor([[1.0000, 0.5906]])
    """
    return _gwd(*_pairwise(boxes, others))


def aligned_gwd(boxes: Tensor, others: Tensor) -> Tensor:
    """Gaussian Wasserstein similarity, box by box; see `pairwise_gwd`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_gwd(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor([0.5906])
    """
    return _gwd(*_aligned(boxes, others))


def pairwise_nwd(boxes: Tensor, others: Tensor, constant: float = CONSTANT) -> Tensor:
    """Normalised Wasserstein distance of every pair (paper, Eq. 6 and 7); 1 is best, as in all measures here.

    NWD = exp(-W2 / C), W2² = (cx1 - cx2)² + (cy1 - cy2)² + ((w1 - w2)² + (h1 - h2)²) / 4. As in the official code 1e-6
    stands under the root, so that equal boxes give .99992 and not 1.

    Args:
        boxes: (M, 4) xyxy, px.
        others: (N, 4) xyxy, px.
        constant: C in px; it stretches the scale and never changes an order.

    Returns:
        (M, N) in [0, 1).

    Raises:
        ValueError: a tensor is not (…, 4), or constant <= 0.

    Examples:
        >>> pairwise_nwd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 8, 8], [3, 4, 11, 12]]))
        tensor([[0.9999, 0.6746]])
    """
    return _nwd(*_pairwise(boxes, others), constant)


def aligned_nwd(boxes: Tensor, others: Tensor, constant: float = CONSTANT) -> Tensor:
    """Normalised Wasserstein distance, box by box; see `pairwise_nwd`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_nwd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[3.0, 4, 11, 12]]))
        tensor([0.6746])
    """
    return _nwd(*_aligned(boxes, others), constant)


def pairwise_dotd(boxes: Tensor, others: Tensor, constant: float = CONSTANT) -> Tensor:
    """Dot distance of every pair (Xu et al. 2021, Eq. 1): exp(-d / C), d between the centres; sizes play no part.

    (M, 4) and (N, 4) -> (M, N) in [0, 1). 1e-6 stands under the root as in `pairwise_nwd`.

    Raises:
        ValueError: a tensor is not (…, 4), or constant <= 0.

    Examples:
        >>> pairwise_dotd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[3.0, 4, 11, 12]]))
        tensor([[0.6746]])
    """
    return _dotd(*_pairwise(boxes, others), constant)


def aligned_dotd(boxes: Tensor, others: Tensor, constant: float = CONSTANT) -> Tensor:
    """Dot distance, box by box; see `pairwise_dotd`. (…, 4) and (…, 4) -> (…).

    Examples:
        >>> aligned_dotd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[3.0, 4, 11, 12]]))
        tensor([0.6746])
    """
    return _dotd(*_aligned(boxes, others), constant)


class Similarity(NamedTuple):
    """One measure: its two forms and what an assigner has to know about it."""

    pairwise: Callable[..., Tensor]
    aligned: Callable[..., Tensor]
    takes_constant: bool = False
    # Weight of ((w1 - w2)² + (h1 - h2)²) / 4 beside the squared distance of the centres, for measures that fall with
    # that sum alone: those can be ranked on the anchor lattice. None for all others.
    size_weight: float | None = None


SIMILARITIES = {
    "iou": Similarity(pairwise_iou, aligned_iou),
    "iof": Similarity(pairwise_iof, aligned_iof),
    "giou": Similarity(pairwise_giou, aligned_giou),
    "diou": Similarity(pairwise_diou, aligned_diou),
    "ciou": Similarity(pairwise_ciou, aligned_ciou),
    "gwd": Similarity(pairwise_gwd, aligned_gwd),
    "nwd": Similarity(pairwise_nwd, aligned_nwd, takes_constant=True, size_weight=1.0),
    "dotd": Similarity(pairwise_dotd, aligned_dotd, takes_constant=True, size_weight=0.0),
}


def _as_boxes(boxes: Tensor) -> Tensor:
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be (…, 4) xyxy, got shape {tuple(boxes.shape)}")
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def _pairwise(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    if boxes.ndim != 2 or others.ndim != 2:
        raise ValueError(f"expected (M, 4) and (N, 4), got {tuple(boxes.shape)} and {tuple(others.shape)}")
    return _as_boxes(boxes)[:, None], _as_boxes(others)[None]


def _aligned(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    try:
        torch.broadcast_shapes(boxes.shape, others.shape)
    except RuntimeError as error:
        raise ValueError(f"{tuple(boxes.shape)} and {tuple(others.shape)} do not pair up box by box") from error
    return _as_boxes(boxes), _as_boxes(others)


def _area(a: Tensor) -> Tensor:
    return (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    return width * height


def _overlap_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    overlap = _overlap(a, b)
    return overlap, (_area(a) + _area(b) - overlap).clamp(min=EPS)


def _hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    return width, height


def _iou(a: Tensor, b: Tensor) -> Tensor:
    overlap, union = _overlap_union(a, b)
    return overlap / union


def _iof(a: Tensor, b: Tensor) -> Tensor:
    return _overlap(a, b) / _area(a).clamp(min=EPS)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    overlap, union = _overlap_union(a, b)
    width, height = _hull(a, b)
    hull = (width * height).clamp(min=EPS)
    return overlap / union - (hull - union) / hull


def _diou(a: Tensor, b: Tensor) -> Tensor:
    width, height = _hull(a, b)
    return _iou(a, b) - _centre_square(a, b) / (width * width + height * height).clamp(min=EPS)


def _ciou(a: Tensor, b: Tensor) -> Tensor:
    angles = [torch.atan((x[..., 2] - x[..., 0]) / (x[..., 3] - x[..., 1]).clamp(min=EPS)) for x in (a, b)]
    v = (angles[0] - angles[1]) ** 2 * (4 / math.pi**2)
    with torch.no_grad():
        weight = v / (1 - _iou(a, b) + v).clamp(min=EPS)
    return _diou(a, b) - weight * v


def _centre_square(a: Tensor, b: Tensor) -> Tensor:
    # The order of operations is the official one: rankings are compared bit by bit.
    dx = (a[..., 0] + a[..., 2]) / 2 - (b[..., 0] + b[..., 2]) / 2
    dy = (a[..., 1] + a[..., 3]) / 2 - (b[..., 1] + b[..., 3]) / 2
    return dx * dx + dy * dy


def _size_square(a: Tensor, b: Tensor) -> Tensor:
    dw = (a[..., 2] - a[..., 0] + EPS) - (b[..., 2] - b[..., 0] + EPS)
    dh = (a[..., 3] - a[..., 1] + EPS) - (b[..., 3] - b[..., 1] + EPS)
    return (dw * dw + dh * dh) / 4


def _gwd(a: Tensor, b: Tensor) -> Tensor:
    return 1 / (1 + torch.log1p(_centre_square(a, b) + _size_square(a, b)))


def _fall(square: Tensor, constant: float) -> Tensor:
    if not constant > 0:
        raise ValueError(f"constant must be > 0 px, got {constant}")
    return torch.exp(-torch.sqrt(square) / constant)


def _nwd(a: Tensor, b: Tensor, constant: float) -> Tensor:
    return _fall(_centre_square(a, b) + EPS + _size_square(a, b), constant)


def _dotd(a: Tensor, b: Tensor, constant: float) -> Tensor:
    return _fall(_centre_square(a, b) + EPS, constant)
