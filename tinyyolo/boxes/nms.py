"""Non-maximum suppression within groups, and which candidates become detections; loses neither precision nor images."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from tinyyolo.boxes.sparse import overlapping, survive

VOTER_IOU = 0.65  # candidates of a class that overlap a detection by this much vote on it
VOTER_SLACK = 5e-8  # "at least" is "more than" half a step of float32 below
VOTER_SCORE = 0.001  # candidates below do not: their votes would not show
MANY = 5_000  # above so many boxes of a group, one NMS that looks at near pairs alone is quicker, by the same rule
LEAST = 0.1  # below this IoU too many pairs are near
MinScore = float | Sequence[float]  # of all classes, or of each


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, stable: bool = False) -> Tensor:
    """Indices (K,) of the boxes that survive suppression among those of their group, by falling score.

    One NMS per group on the coordinates as they are: shifting groups apart by an offset, as is often done, rounds
    float32 boxes to 1/256 px and changes which of two tiny boxes survives.

    Args:
        boxes: (N, 4) float32 xyxy in pixels.
        scores: (N,) float32; one sort of all decides which of two equal scores comes first, as in the authors' code.
        groups: (N,) int64: classes, or levels of images.
        iou: boxes that overlap more than this with a better one of their group are dropped.
        stable: of equal scores the first comes first.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4]])
        >>> grouped_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.5).tolist()
        [1, 2]
    """
    order = scores.sort(descending=True, stable=stable).indices
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if not tracing and len(boxes) > MANY and iou >= LEAST and int(torch.bincount(groups).max()) > MANY:
        return order[survive(boxes[order], groups[order], iou)]
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


def electorate(boxes: Tensor, labels: Tensor, able: Tensor, able_labels: Tensor) -> Tensor:
    """(N,) bool: which candidates overlap one of the `able` of their class so that they could vote on it.

    `vote` hears nobody else, so the others need not be held.

    Examples:
        >>> boxes, labels = torch.tensor([[0.0, 0, 4, 4], [9, 9, 12, 12], [0, 0, 4, 4]]), torch.tensor([0, 0, 1])
        >>> electorate(boxes, labels, torch.tensor([[0.0, 0, 4, 5]]), torch.tensor([0])).tolist()
        [True, False, False]
    """
    heard = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for _, voter, _ in overlapping(able, boxes, able_labels, labels, VOTER_IOU - VOTER_SLACK):
        heard[voter] = True
    return heard


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
    found = [*overlapping(boxes[keep], boxes, labels[keep], labels, VOTER_IOU - VOTER_SLACK)]
    if not found:  # no box has an area
        return voted, means / votes
    detection, voter, _ = (torch.cat(column) for column in zip(*found, strict=True))
    by_score = scores[voter].sort(descending=True, stable=True).indices
    by_score = by_score[detection[by_score].sort(stable=True).indices]
    detection, voter = detection[by_score], voter[by_score]
    weights = scores[voter].double()  # double sums do not depend on their order as far as float32 shows
    total = torch.zeros(len(keep), dtype=torch.float64, device=boxes.device)
    ballots = total.index_add(0, detection, weights)
    heard = ballots > 0  # a box without area overlaps nothing, not even itself
    sums = total.new_zeros(len(keep), 4).index_add(0, detection, weights[:, None] * boxes[voter])
    voted[heard] = (sums[heard] / ballots[heard, None]).to(voted)
    counts = torch.bincount(detection, minlength=len(keep))
    place = torch.arange(len(voter), device=voter.device) - (counts.cumsum(0) - counts)[detection]
    best = total.index_add(0, detection[place < votes], weights[place < votes])
    means = torch.where(heard, best.to(means), means) / votes
    return voted, means


def select(
    boxes: Tensor,
    scores: Tensor,
    min_score: MinScore,
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
        min_score: detections must score more than this; a number, or one for each class (C,).
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
    boxes, scores, labels = pick(boxes, scores, candidate_score(min_score, votes), classes)
    if max_candidates is not None and len(scores) > max_candidates:
        top = scores.topk(max_candidates).indices
        boxes, scores, labels = boxes[top], scores[top], labels[top]
    return suppress(boxes, scores, labels, min_score, iou, max_det, agnostic, votes)


def candidate_score(min_score: MinScore, votes: int) -> MinScore:
    """What a candidate must score more than: to become a detection, or, where candidates vote, to vote on one.

    Examples:
        >>> candidate_score(0.25, votes=1), candidate_score([0.25, 0.0005], votes=4)
        (0.25, [0.001, 0.0005])
    """
    if votes == 1:
        return min_score
    if isinstance(min_score, Sequence):
        return [min(score, VOTER_SCORE) for score in min_score]
    return min(min_score, VOTER_SCORE)


def above(scores: Tensor, min_score: MinScore, labels: Tensor | None = None) -> Tensor:
    """Which scores (N, C), or scores (P,) of classes `labels` (P,), are more than `min_score`."""
    if not isinstance(min_score, Sequence):
        return scores > min_score
    of_class = scores.new_tensor(min_score)
    return scores > (of_class if labels is None else of_class[labels])


def pick(
    boxes: Tensor, scores: Tensor, min_score: MinScore, classes: Collection[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of candidates (N, 4) and (N, C) the (box, class) pairs that score more: boxes (P, 4), scores and labels (P,)."""
    chosen = above(scores, min_score)
    if classes is not None:
        chosen[:, [label for label in range(scores.shape[1]) if label not in classes]] = False
    rows, labels = chosen.nonzero(as_tuple=True)
    return boxes[rows].float(), scores[rows, labels].float(), labels


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    min_score: MinScore,
    iou: float,
    max_det: int | None = None,
    agnostic: bool = False,
    votes: int = 1,
    able: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Final detections of (box, class) pairs: NMS of those above `min_score`, the best `max_det`, votes on them.

    Args and returns: as `select`, of boxes (P, 4), scores (P,) and labels (P,); `able` are the rows of those above
    `min_score`, where they are known, in an order in which equal scores come.
    """
    if able is None:
        able = above(scores, min_score, labels).nonzero().squeeze(1)
    groups = torch.zeros_like(able) if agnostic else labels[able]
    keep = able[grouped_nms(boxes[able], scores[able], groups, iou)[:max_det]]
    if votes == 1:
        return boxes[keep], scores[keep], labels[keep]
    voted, means = vote(boxes, scores, labels, keep, votes)
    order = means.sort(descending=True, stable=True).indices
    labels = labels[keep]
    order = order[above(means, min_score, labels)[order]]
    return voted[order], means[order], labels[order]
