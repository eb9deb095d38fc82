"""How alike two boxes are: iou, iof, giou, diou, ciou, gwd, nwd, dotd, kld, wd and simd.

`pairwise_x(boxes (M, 4), others (N, 4)) -> (M, N)` compares every row with every row, `aligned_x(boxes, others) -> (…)`
two tensors (…, 4) that broadcast against each other, box by box. Boxes are xyxy in pixels. Half precision and integers
become float32, float64 stays float64; both forms of a measure are made of one formula and so agree bit by bit. All are
differentiable. Both raise ValueError for a tensor that is not (…, 4). Adding a measure is one formula, one line that
makes its two forms, and one line in SIMILARITIES.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Concatenate, NamedTuple, ParamSpec

import torch
from torch import Tensor

from tinyyolo.boxes.convert import areas, centres, sides
from tinyyolo.config import above, suggest

CONSTANT = 12.7  # px, mean absolute object size of AI-TOD-v2 (paper, section 3.2); C in Eq. 7
EPS = 1e-6  # keeps quotients and the gradient of a root finite; part of the official definitions of NWD, RFLA, SimD
FLOOR = 1e-6  # SimD is never less
NO_FLOAT64 = ("mps",)  # devices that have only float32

P = ParamSpec("P")
Measure = Callable[Concatenate[Tensor, Tensor, P], Tensor]


def _forms(formula: Measure[P]) -> tuple[Measure[P], Measure[P]]:
    """The pairwise and the aligned form of a formula on boxes that broadcast; the pairwise one has its docstring."""

    @wraps(formula)
    def pairwise(boxes: Tensor, others: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        if boxes.ndim != 2 or others.ndim != 2:
            raise ValueError(f"expected (M, 4) and (N, 4), got {tuple(boxes.shape)} and {tuple(others.shape)}")
        return formula(_as_boxes(boxes)[:, None], _as_boxes(others)[None], *args, **kwargs)

    @wraps(formula)
    def aligned(boxes: Tensor, others: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        try:
            torch.broadcast_shapes(boxes.shape, others.shape)
        except RuntimeError as error:
            raise ValueError(f"{tuple(boxes.shape)} and {tuple(others.shape)} do not pair up box by box") from error
        return formula(_as_boxes(boxes), _as_boxes(others), *args, **kwargs)

    for name, form in {"pairwise": pairwise, "aligned": aligned}.items():
        form.__name__ = form.__qualname__ = name + formula.__name__
    aligned.__doc__ = f"Box by box what `{pairwise.__name__}` says of every pair: (…, 4) and (…, 4) -> (…)."
    return pairwise, aligned


def _as_boxes(boxes: Tensor) -> Tensor:
    """Checked, in float32 or float64, its columns contiguous: reading every fourth number takes twice the time."""
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be (…, 4) xyxy, got shape {tuple(boxes.shape)}")
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    return torch.stack(boxes.unbind(-1)).movedim(0, -1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union: |A ∩ B| / max(|A ∪ B|, 1e-6), in [0, 1].

    Two boxes without area are 0 to each other, never NaN.

    Examples:
        >>> pairwise_iou(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[0.0, 0, 4, 2], [8, 8, 9, 9]]))
        tensor([[0.5000, 0.0000]])
        >>> aligned_iou(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[0.0, 0, 4, 2]]))
        tensor([0.5000])
    """
    overlap, union = _overlap_union(a, b)
    return overlap / union


def _iof(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over the area of the first box ("foreground"): |A ∩ B| / max(|A|, 1e-6), in [0, 1].

    Not symmetric: it says how much of `boxes[i]` lies in `others[j]`.

    Examples:
        >>> pairwise_iof(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2]]))
        tensor([[1.0000, 0.5000]])
    """
    return _overlap(a, b) / areas(a).clamp(min=EPS)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019, Eq. 3): IoU - (|E| - |A ∪ B|) / |E|, E the hull of both, in [-1, 1].

    Examples:
        >>> pairwise_giou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2], [2, 0, 4, 2]]))
        tensor([[1., 0.]])
    """
    overlap, union = _overlap_union(a, b)
    width, height = _hull(a, b)
    hull = (width * height).clamp(min=EPS)
    return overlap / union - (hull - union) / hull


def _diou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU (Zheng et al. 2020, Eq. 6): IoU - d² / c², d between centres, c the hull's diagonal, in [-1, 1].

    Examples:
        >>> pairwise_diou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([[-0.2000]])
    """
    width, height = _hull(a, b)
    return _iou(a, b) - _centre_square(a, b) / (width * width + height * height).clamp(min=EPS)


def _ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU (Zheng et al. 2020, Eq. 8-11): DIoU - a v.

    v = 4 / π² (atan(w1/h1) - atan(w2/h2))² and a = v / (1 - IoU + v), a constant for the gradient.

    Examples:
        >>> pairwise_ciou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([[-0.2000]])
    """
    (w1, h1), (w2, h2) = sides(a).unbind(-1), sides(b).unbind(-1)
    v = (torch.atan(w1 / h1.clamp(min=EPS)) - torch.atan(w2 / h2.clamp(min=EPS))) ** 2 * (4 / math.pi**2)
    with torch.no_grad():
        weight = v / (1 - _iou(a, b) + v).clamp(min=EPS)
    return _diou(a, b) - weight * v


def _gwd(a: Tensor, b: Tensor) -> Tensor:
    """Gaussian Wasserstein similarity: 1 / (1 + ln(1 + W2²)) in (0, 1], W2² as in `pairwise_nwd`.

    The paper's Table 6 names GWD (Yang et al. 2021) without its formula; this form, with tau = 1, is our choice.

    Examples:
        >>> pairwise_gwd(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]]))
        tensor([[1.0000, 0.5906]])
    """
    return 1 / (1 + torch.log1p(_centre_square(a, b) + _size_square(a, b)))


def _nwd(a: Tensor, b: Tensor, constant: float = CONSTANT) -> Tensor:
    """Normalised Wasserstein distance (paper, Eq. 6 and 7) in [0, 1); 1 is best, as in all measures here.

    NWD = exp(-W2 / C), W2² = (cx1 - cx2)² + (cy1 - cy2)² + ((w1 - w2)² + (h1 - h2)²) / 4. As in the official code 1e-6
    stands under the root, so that equal boxes give .99992 and not 1.

    Args:
        constant: C in px; it stretches the scale and never changes an order.

    Raises:
        ValueError: a tensor is not (…, 4), or constant <= 0.

    Examples:
        >>> pairwise_nwd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 8, 8], [3, 4, 11, 12]]))
        tensor([[0.9999, 0.6746]])
        >>> aligned_nwd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[3.0, 4, 11, 12]]), constant=25.4)
        tensor([0.8213])
    """
    return _fall(_wasserstein_square(a, b), constant)


def _dotd(a: Tensor, b: Tensor, constant: float = CONSTANT) -> Tensor:
    """Dot distance (Xu et al. 2021, Eq. 1): exp(-d / C) in [0, 1), d between the centres; sizes play no part.

    1e-6 stands under the root as in `pairwise_nwd`.

    Raises:
        ValueError: a tensor is not (…, 4), or constant <= 0.

    Examples:
        >>> pairwise_dotd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[3.0, 4, 11, 12]]))
        tensor([[0.6746]])
    """
    return _fall(_centre_square(a, b).add_(EPS), constant)


def _kld(a: Tensor, b: Tensor) -> Tensor:
    """Receptive field distance of RFLA (Xu et al. 2022, Eq. 4 and 5): 1 / (1 + KL) in [0, 1].

    KL = (w² / w1² + h² / h1² + 4 dx² / w1² + 4 dy² / h1² + ln(w1² / w²) + ln(h1² / h²) - 2) / 2, the Kullback-Leibler
    divergence of two Gaussians whose deviations are half the sides; 1e-6 is added to every side. Not symmetric: the
    sides w1, h1 of the first box, the object, divide; w, h are those of the second, the prior.

    Examples:
        >>> pairwise_kld(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8]]))
        tensor([[1.0000, 0.6667]])
    """
    # In the official order: rankings are compared bit by bit.
    (w1, h1), (w2, h2) = (sides(a) + EPS).square().unbind(-1), (sides(b) + EPS).square().unbind(-1)
    dx, dy = (4 * (centres(a) - centres(b)).square()).unbind(-1)
    total = w2 / w1 + h2 / h1 + dx / w1 + dy / h1 + (w1 / w2).log() + (h1 / h2).log() - 2
    return 1 / (1 + total / 2)


def _wd(a: Tensor, b: Tensor) -> Tensor:
    """The Wasserstein form of RFLA (Xu et al. 2022, Table 2): 1 / (1 + W2²) in (0, 1), W2² as in `pairwise_nwd`.

    Examples:
        >>> pairwise_wd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 8, 8], [1, 0, 9, 8]]))
        tensor([[1.0000, 0.5000]])
    """
    return 1 / (1 + _wasserstein_square(a, b))


def _simd(a: Tensor, b: Tensor, m: float = 1.0, n: float = 1.0) -> Tensor:
    """Similarity distance (SimD; Shi et al. 2024, Eq. 1 to 3): max(exp(-(location + shape)), 1e-6); 1 is best.

    location = |(dx / W, dy / H)| and shape = |((w1 - w2) / W, (h1 - h2) / H)|, with W = (w1 + w2) / m and
    H = (h1 + h2) / n. As in the official code 1e-6 is added to centres and sides.

    Args:
        m, n: divisors of widths and heights, the mean of |dx| / (w1 + w2) and of |dy| / (h1 + h2) over a data set
            (`detectors.auto.mean_offsets`). The larger, the stricter.

    Raises:
        ValueError: a tensor is not (…, 4), or m or n <= 0.

    Examples:
        >>> pairwise_simd(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]]))
        tensor([[1.0000, 0.6065]])
    """
    above(0, m=m, n=n)
    (w1, h1), (w2, h2) = (sides(a) + EPS).unbind(-1), (sides(b) + EPS).unbind(-1)
    dx, dy = ((centres(a) + EPS) - (centres(b) + EPS)).unbind(-1)
    w, h = (w1 + w2) / m, (h1 + h2) / n
    return (-(_norm(dx / w, dy / h) + _norm((w1 - w2) / w, (h1 - h2) / h))).exp().clamp(min=FLOOR)


pairwise_iou, aligned_iou = _forms(_iou)
pairwise_iof, aligned_iof = _forms(_iof)
pairwise_giou, aligned_giou = _forms(_giou)
pairwise_diou, aligned_diou = _forms(_diou)
pairwise_ciou, aligned_ciou = _forms(_ciou)
pairwise_gwd, aligned_gwd = _forms(_gwd)
pairwise_nwd, aligned_nwd = _forms(_nwd)
pairwise_dotd, aligned_dotd = _forms(_dotd)
pairwise_kld, aligned_kld = _forms(_kld)
pairwise_wd, aligned_wd = _forms(_wd)
pairwise_simd, aligned_simd = _forms(_simd)


class Similarity(NamedTuple):
    """One measure: its two forms, and the numbers that they take by name."""

    pairwise: Callable[..., Tensor]
    aligned: Callable[..., Tensor]
    options: tuple[str, ...] = ()


SIMILARITIES = {
    "iou": Similarity(pairwise_iou, aligned_iou),
    "iof": Similarity(pairwise_iof, aligned_iof),
    "giou": Similarity(pairwise_giou, aligned_giou),
    "diou": Similarity(pairwise_diou, aligned_diou),
    "ciou": Similarity(pairwise_ciou, aligned_ciou),
    "gwd": Similarity(pairwise_gwd, aligned_gwd),
    "nwd": Similarity(pairwise_nwd, aligned_nwd, ("constant",)),
    "dotd": Similarity(pairwise_dotd, aligned_dotd, ("constant",)),
    "kld": Similarity(pairwise_kld, aligned_kld),
    "wd": Similarity(pairwise_wd, aligned_wd),
    "simd": Similarity(pairwise_simd, aligned_simd, ("m", "n")),
}


def measure(name: str, constant: float = CONSTANT, m: float = 1.0, n: float = 1.0) -> Similarity:
    """The measure of a name in SIMILARITIES, its forms bound to those of C, m and n that it takes.

    Raises:
        ValueError: unknown name, or constant, m or n <= 0.
    """
    if name not in SIMILARITIES:
        raise ValueError(f"similarity={name}: unknown; {suggest(name, SIMILARITIES)}")
    given = {"constant": constant, "m": m, "n": n}
    above(0, **given)
    entry = SIMILARITIES[name]
    if not entry.options:
        return entry
    options = {key: given[key] for key in entry.options}
    return entry._replace(pairwise=partial(entry.pairwise, **options), aligned=partial(entry.aligned, **options))


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    wh = torch.minimum(a[..., 2:], b[..., 2:]).sub_(torch.maximum(a[..., :2], b[..., :2])).clamp_(min=0)
    return wh[..., 0] * wh[..., 1]


def _overlap_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    overlap = _overlap(a, b)
    return overlap, (areas(a) + areas(b) - overlap).clamp(min=EPS)


def _hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    width, height = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).unbind(-1)
    return width, height


def _centre_square(a: Tensor, b: Tensor) -> Tensor:
    return _distance_square(centres(a), centres(b))


def _size_square(a: Tensor, b: Tensor) -> Tensor:
    return _distance_square(sides(a) + EPS, sides(b) + EPS).div_(4)


def _wasserstein_square(a: Tensor, b: Tensor) -> Tensor:
    return _centre_square(a, b).add_(EPS).add_(_size_square(a, b))


def _distance_square(a: Tensor, b: Tensor) -> Tensor:
    """In the official order: rankings are compared bit by bit. In place: fresh memory costs most of the time."""
    (x1, y1), (x2, y2) = a.unbind(-1), b.unbind(-1)
    return (x1 - x2).square_().add_((y1 - y2).square_())


def _fall(square: Tensor, constant: float) -> Tensor:
    above(0, constant=constant)
    return square.sqrt_().div(-constant).exp_()


def _norm(x: Tensor, y: Tensor) -> Tensor:
    """The root of x² + y², with a gradient of 0, not NaN, where both are 0.

    By way of float64, where there is one, so that it is rounded correctly: some CPUs' roots of float32 are a unit off
    in one of six cases, and break ties that there are.
    """
    square = x.square().add_(y.square())
    some = square > 0
    wide = square.dtype if square.device.type in NO_FLOAT64 else torch.float64
    return torch.where(some, square, 1).to(wide).sqrt().to(square.dtype) * some
