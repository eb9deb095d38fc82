"""Non-maximum suppression within groups, and which candidates become detections; loses neither precision nor images."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

VOTER_IOU = 0.65  # candidates of a class that overlap a detection by this much vote on it
VOTER_SCORE = 0.001  # candidates below do not: their votes would not show
ROWS = 256  # detections voted on at a time, which bounds the memory


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Indices (K,) of the boxes that survive suppression among those of their group, by falling score.

    One NMS per group on the coordinates as they are: shifting groups apart by an offset, as is often done, rounds
    float32 boxes to 1/256 px and changes which of two tiny boxes survives.

    Args:
        boxes: (N, 4) float32 xyxy in pixels.
        scores: (N,) float32; one sort of all decides which of two equal scores comes first, as in the authors' code.
        groups: (N,) int64: classes, or levels of images.
        iou: boxes that overlap more than this with a better one of their group are dropped.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4]])
        >>> grouped_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.5).tolist()
        [1, 2]
    """
    order = scores.sort(descending=True).indices
    keep: Tensor = _traceable(boxes[order], scores[order], groups[order], iou)
    return order[keep]


def _survive(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """(N,) bool: which boxes survive among those of their group."""
    keep = torch.zeros_like(groups, dtype=torch.bool)
    for group in torch.unique(groups):
        index = torch.where(groups == group)[0]
        keep[index[nms(boxes[index], scores[index], iou)]] = True
    return keep


_traceable = torch.jit.script_if_tracing(_survive)  # a trace keeps the loop


def vote(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, votes: int) -> tuple[Tensor, Tensor]:
    """Boxes and scores of the detections `keep` after the candidates that found the same object have voted.

    Ranking teaches an object to k anchors, so a true detection has k candidates on it and a false one is often alone:
    a score becomes the mean of the `votes` best scores among its voters, a missing voter counting 0; a box becomes the
    mean of its voters, weighted by score (box voting: Gidaris & Komodakis, ICCV 2015).

    Args:
        boxes: (N, 4) xyxy in pixels, all candidates.
        scores: (N,) floats.
        labels: (N,) int64.
        keep: (K,) indices of detections, from `grouped_nms`.
        votes: at least 1; scores stay as they are at 1.

    Returns:
        boxes (K, 4) and scores (K,), in the order of `keep`.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
        >>> scores, labels = torch.tensor([0.9, 0.6, 0.8]), torch.tensor([0, 0, 0])
        >>> voted, means = vote(boxes, scores, labels, torch.tensor([0, 2]), votes=2)
        >>> means.tolist() == [0.75, 0.4000000059604645], round(voted[0, 3].item(), 3)
        (True, 4.4)
    """
    voted, means = boxes[keep], scores[keep]  # copies, as indexing by a tensor makes them
    for label in torch.unique(labels[keep]):
        mine, voters = (labels[keep] == label).nonzero().squeeze(1), labels == label
        around, weights = boxes[voters], scores[voters]
        for part in mine.split(ROWS):
            agree = box_iou(boxes[keep[part]], around) >= VOTER_IOU
            # A box without area overlaps nothing, not even itself.
            ballots = torch.where(agree, weights, 0.0)
            total = ballots.sum(1, keepdim=True)
            voted[part] = torch.where(total > 0, ballots @ around / total.clamp(min=1e-12), voted[part])
            best = ballots.topk(min(votes, ballots.shape[1]), dim=1).values.sum(1) / votes
            means[part] = torch.where(total[:, 0] > 0, best, means[part] / votes)
    return voted, means


def select(
    boxes: Tensor,
    scores: Tensor,
    min_score: float,
    iou: float,
    max_det: int,
    max_candidates: int | None = None,
    classes: Collection[int] | None = None,
    agnostic: bool = False,
    votes: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Final detections of one image from candidates: score filter, class-wise NMS, the best `max_det`, votes on them.

    Args:
        boxes: (N, 4) xyxy in pixels, one for all classes of a candidate.
        scores: (N, C) class scores; every class above `min_score` is a detection of its own.
        min_score: detections must score more than this.
        iou: NMS threshold.
        max_det: at most this many detections.
        max_candidates: at most this many enter NMS, the best ones (all if None).
        classes: keep these class indices only (all if None).
        agnostic: suppress across classes.
        votes: more than 1 lets candidates vote on the survivors (`vote`), also those under `min_score`, so that a
            detection's score does not depend on it.

    Returns:
        boxes (K, 4), scores (K,), labels (K,) int64, by falling score.
    """
    above = scores > (min_score if votes == 1 else min(min_score, VOTER_SCORE))
    if classes is not None:
        above[:, [label for label in range(scores.shape[1]) if label not in classes]] = False
    rows, labels = above.nonzero(as_tuple=True)
    boxes, scores = boxes[rows].float(), scores[rows, labels].float()
    if max_candidates is not None and len(scores) > max_candidates:
        top = scores.topk(max_candidates).indices
        boxes, scores, labels = boxes[top], scores[top], labels[top]
    able = (scores > min_score).nonzero().squeeze(1)
    groups = torch.zeros_like(able) if agnostic else labels[able]
    keep = able[grouped_nms(boxes[able], scores[able], groups, iou)[:max_det]]
    if votes == 1:
        return boxes[keep], scores[keep], labels[keep]
    voted, means = vote(boxes, scores, labels, keep, votes)
    order = means.sort(descending=True, stable=True).indices
    order = order[means[order] > min_score]
    return voted[order], means[order], labels[keep][order]
