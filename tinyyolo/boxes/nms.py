"""Class-wise non-maximum suppression that loses neither precision nor images."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


def class_wise_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, max_det: int | None = None, agnostic: bool = False
) -> Tensor:
    """Indices of the boxes that survive suppression within their class, by falling score.

    One NMS call per class on the coordinates as they are: shifting classes apart by an offset, as is often done,
    rounds float32 boxes to 1/256 px and changes which of two tiny boxes survives.

    Args:
        boxes: (N, 4) xyxy in pixels.
        scores: (N,) floats.
        labels: (N,) int64.
        iou: boxes of one class that overlap more than this with a better one are dropped.
        max_det: keep at most this many (all if None).
        agnostic: suppress across classes.

    Returns:
        (K,) int64 indices into `boxes`.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4]])
        >>> class_wise_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), iou=0.5).tolist()
        [0, 2]
    """
    # Of equal scores the first of this sort wins, as in the authors' code; boxes at a border often score exactly alike.
    order = scores.float().sort(descending=True).indices
    boxes, scores, labels = boxes[order].float(), scores[order].float(), labels[order]
    parts = []
    if agnostic:
        labels = torch.zeros_like(labels)
    for label in labels.unique():
        index = (labels == label).nonzero().squeeze(1)
        parts.append(index[nms(boxes[index], scores[index], iou)])
    keep = order[torch.cat(parts).sort().values] if parts else order
    return keep if max_det is None else keep[:max_det]


def select(
    boxes: Tensor,
    scores: Tensor,
    min_score: float,
    iou: float,
    max_det: int,
    max_candidates: int | None = None,
    classes: list[int] | None = None,
    agnostic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Final detections of one image from candidates: score filter, class-wise NMS, the best `max_det`.

    Args:
        boxes: (N, 4) xyxy in pixels, one for all classes of a candidate.
        scores: (N, C) class scores; every class above `min_score` is a detection of its own.
        min_score: detections must score more than this.
        iou: NMS threshold.
        max_det: at most this many detections.
        max_candidates: at most this many enter NMS, the best ones (all if None).
        classes: keep these class indices only (all if None).
        agnostic: suppress across classes.

    Returns:
        boxes (K, 4), scores (K,), labels (K,) int64, by falling score.
    """
    above = scores > min_score
    if classes is not None:
        wanted = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        wanted[[c for c in classes if 0 <= c < scores.shape[1]]] = True
        above = above & wanted
    rows, labels = above.nonzero(as_tuple=True)
    boxes, scores = boxes[rows].float(), scores[rows, labels].float()
    if max_candidates is not None and len(scores) > max_candidates:
        top = scores.topk(max_candidates).indices
        boxes, scores, labels = boxes[top], scores[top], labels[top]
    keep = class_wise_nms(boxes, scores, labels, iou, max_det, agnostic)
    return boxes[keep], scores[keep], labels[keep]
