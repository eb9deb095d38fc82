"""Loss functions that several heads share; sums, so that each head divides by the normaliser its paper states."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tinyyolo.boxes.similarity import aligned_diou, aligned_iou

MIN_IOU = 1e-6  # of the logarithm


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Summed sigmoid focal loss (Lin et al., 2017b, eq. 5).

    Args:
        logits: (N, C), any float type; computed in float32.
        labels: (N,) int64 class of each row, negative for background.
        gamma: how much well-classified entries are weighed down.
        alpha: weight of the positive entries; 1 - alpha of the negative ones.

    Returns:
        Scalar, 0 for N = 0.

    Examples:
        >>> import torch
        >>> round(focal_loss(torch.zeros(1, 1), torch.tensor([0])).item(), 4)  # .25 * .5^2 * ln 2
        0.0433
    """
    logits = logits.float()
    rows = (labels >= 0).nonzero().squeeze(1)
    target = logits.new_zeros(logits.shape)
    target[rows, labels[rows]] = 1.0
    probability = logits.sigmoid()
    wrong = probability + target - 2 * probability * target  # 1 - p where the target is 1, p where it is 0
    weight = (1 - alpha + (2 * alpha - 1) * target) * wrong.pow(gamma)
    return (weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum()


def smooth_l1(prediction: Tensor, target: Tensor, beta: float = 0.0) -> Tensor:
    """Summed smooth L1: d^2 / (2 beta) for d < beta, else d - beta / 2 (Girshick, 2015); beta = 0 is plain L1.

    Args:
        prediction, target: (N, 4), computed in float32.
        beta: where the square ends.

    Returns:
        Scalar with a gradient even for N = 0, so that unused branches take part in every step.

    Examples:
        >>> import torch
        >>> d = torch.tensor([[0.5, 2.0, 0.0, 0.0]])
        >>> smooth_l1(d, 0 * d).item(), smooth_l1(d, 0 * d, beta=1.0).item()
        (2.5, 1.625)
    """
    return F.smooth_l1_loss(prediction.float(), target.float(), reduction="sum", beta=beta)


def iou_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """-ln IoU of each box (Yu et al., 2016, eq. 3), IoU taken as at least 1e-6, where no gradient comes back.

    Args:
        prediction, target: (P, 4) xyxy, computed in float32.

    Returns:
        (P,).

    Examples:
        >>> import torch
        >>> iou_loss(torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4]]), torch.tensor([[0.0, 0, 4, 2], [5, 5, 6, 6]]))
        tensor([ 0.6931, 13.8155])
    """
    return -aligned_iou(prediction.float(), target.float()).clamp(min=MIN_IOU).log()


def diou_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - DIoU of each box (Zheng et al., 2020, eq. 7); see `iou_loss`.

    Examples:
        >>> import torch
        >>> diou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 2]]))
        tensor([1.2000])
    """
    return 1 - aligned_diou(prediction.float(), target.float())
