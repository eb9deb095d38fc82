"""Non-maximum suppression within groups, and which candidates become detections; loses neither precision nor images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from tinyyolo.boxes.graph import ordered, ranks, rows, traced
from tinyyolo.boxes.sparse import overlapping, survive

VOTER_IOU = 0.65  # candidates of a class that overlap a detection by this much vote on it
VOTER_SLACK = 5e-8  # "at least" is "more than" half a step of float32 below
VOTER_SCORE = 0.001  # candidates below do not: their votes would not show
MANY = 5_000  # above so many boxes of a group, one NMS that looks at near pairs alone is quicker, by the same rule
ENOUGH = 2  # so many times the wanted boxes are looked at first
LEAST = 0.1  # below this IoU too many pairs are near
VOTER_LEAST = 1e-30  # no votes add up to less; keeps a quotient finite that is not used
MinScore = float | Sequence[float]  # of all classes, or of each
Rows = tuple[Tensor, Tensor, Tensor]  # boxes (N, 4), scores (N,), groups (N,) int64
Batched = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
BoxesAt = Callable[[Tensor, Tensor], Tensor]


class Rules(NamedTuple):
    """What of the rules of a suppression a graph holds as it was recorded; see `select`."""

    votes: int
    max_candidates: int


def grouped_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, stable: bool = False, most: int | None = None
) -> Tensor:
    """Indices (K,) of the boxes that survive suppression among those of their group, by falling score.

    One NMS per group on the coordinates as they are: shifting groups apart by an offset, as is often done, rounds
    float32 boxes to 1/256 px and changes which of two tiny boxes survives.

    Args:
        boxes: (N, 4) float32 xyxy in pixels.
        scores: (N,) float32; one sort of all decides which of two equal scores comes first, as in the authors' code.
        groups: (N,) int64: classes, or levels of images.
        iou: boxes that overlap more than this with a better one of their group are dropped.
        stable: of equal scores the first comes first.
        most: only the best so many of them; who scores less changes nothing for the better ones.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4]])
        >>> grouped_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.5).tolist()
        [1, 2]
    """
    order = scores.sort(descending=True, stable=stable).indices
    if most is not None and not traced() and len(order) > ENOUGH * most:
        best = order[: ENOUGH * most]
        keep = best[_kept(boxes[best], scores[best], groups[best], iou)]
        if len(keep) >= most:
            return keep[:most]
    return order[_kept(rows(boxes, order), rows(scores, order), rows(groups, order), iou)][:most]


def _kept(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """(N,) bool: which boxes survive, given by falling score, by the quicker of two ways."""
    if not traced() and len(boxes) > MANY and iou >= LEAST and int(torch.bincount(groups).max()) > MANY:
        return survive(boxes, groups, iou)
    keep: Tensor = _traceable(boxes, scores, groups, iou)
    return keep


def _survive(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """(N,) bool: which boxes survive among those of their group."""
    keep = torch.zeros_like(groups, dtype=torch.bool)
    for group in torch.unique(groups):
        index = torch.where(groups == group)[0]
        keep[index[nms(boxes[index], scores[index], iou)]] = True
    return keep


_traceable = torch.jit.script_if_tracing(_survive)  # a trace keeps the loop


class ClassWise(torch.autograd.Function):
    """Suppression within each class of each image: ONNX's NonMaxSuppression, which takes whole batches.

    boxes (B, N, 4) xyxy, scores (B, C, N) of which those over 0 take part, iou (1,), most (1,) int64 of a class ->
    (K, 3) int64: image, class, row; by falling score within a class of an image.
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou: Tensor, most: Tensor) -> Tensor:
        """See the class; what a graph is recorded with."""
        image, label, row = (scores > 0).nonzero().unbind(1)
        group = image * scores.shape[1] + label
        keep = grouped_nms(boxes[image, row], scores[image, label, row], group, float(iou))
        keep = keep[group[keep].argsort(stable=True)]
        keep = keep[ranks(group[keep], scores.shape[0] * scores.shape[1]) < most]
        return torch.stack([image[keep], label[keep], row[keep]], dim=1)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou: Any, most: Any) -> Any:
        """The operator."""
        least = g.op("Constant", value_t=torch.tensor([0.0]))
        return g.op("NonMaxSuppression", boxes, scores, most, iou, least)


def electorate(boxes: Tensor, labels: Tensor, able: Tensor, able_labels: Tensor) -> Tensor:
    """(N,) bool: which candidates overlap one of the `able` of their class so that they could vote on it.

    `vote` hears nobody else, so the others need not be held.

    Examples:
        >>> boxes, labels = torch.tensor([[0.0, 0, 4, 4], [9, 9, 12, 12], [0, 0, 4, 4]]), torch.tensor([0, 0, 1])
        >>> electorate(boxes, labels, torch.tensor([[0.0, 0, 4, 5]]), torch.tensor([0])).tolist()
        [True, False, False]
    """
    heard = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for _, voter in overlapping(able, boxes, able_labels, labels, VOTER_IOU - VOTER_SLACK):
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
    return elected((rows(boxes, keep), rows(scores, keep), rows(labels, keep)), (boxes, scores, labels), votes)


def elected(detections: Rows, voters: Rows, votes: int) -> tuple[Tensor, Tensor]:
    """`vote`, of boxes (K, 4), scores (K,) and groups (K,) of detections, and of all who may vote, (N, ...)."""
    (own, own_scores, own_groups), (boxes, scores, groups) = detections, voters
    found = [*overlapping(own, boxes, own_groups, groups, VOTER_IOU - VOTER_SLACK)]
    if not found:  # no box has an area
        return own, own_scores / votes
    detection, voter = (torch.cat(column) for column in zip(*found, strict=True))
    by_score = ordered(detection, rows(scores, voter))
    detection, voter = rows(detection, by_score), rows(voter, by_score)
    weights = rows(scores, voter).double()  # double sums do not depend on their order as far as float32 shows
    total = torch.zeros_like(own_scores, dtype=torch.float64)
    ballots = total.scatter_add(0, detection, weights)
    heard = ballots > 0  # a box without area overlaps nothing, not even itself
    sums = torch.zeros_like(own, dtype=torch.float64)
    sums = sums.scatter_add(0, detection[:, None].expand(-1, 4), weights[:, None] * rows(boxes, voter))
    means = (sums / ballots[:, None].clamp(min=VOTER_LEAST)).to(own)
    counted = weights * (ranks(detection, own.shape[0]) < votes)
    best = total.scatter_add(0, detection, counted).to(own_scores)
    return torch.where(heard[:, None], means, own), torch.where(heard, best, own_scores) / votes


def batched(boxes_at: BoxesAt, scores: Tensor, limits: Sequence[Tensor], rules: Rules) -> Batched:
    """`select` of every image of a batch at once, as a graph that any number of images and boxes goes through.

    Args:
        boxes_at: boxes (P, 4) float32 xyxy px of images (P,) and rows (P,) of `scores`; asked for candidates alone.
        scores: (B, N, C) float32.
        limits: what detections must score more than (C,), the NMS threshold (1,), and how many an image has at most
            (1,) int64.
        rules: votes and max_candidates of `select`.

    Returns:
        boxes (K, 4), scores (K,) and labels (K,) of all images in their order, by falling score, counts (B,), and the
        candidates as pairs (P, 7) float32: image, box, score, label.

    Examples:
        >>> boxes, scores = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 5]]]), torch.tensor([[[0.5], [0.75]]])
        >>> limits = torch.tensor([0.25]), torch.tensor([0.5]), torch.tensor([9])
        >>> found = batched(lambda image, row: boxes[image, row], scores, limits, Rules(votes=1, max_candidates=9))
        >>> [x.tolist() for x in found[:4]]
        [[[0.0, 0.0, 4.0, 5.0]], [0.75], [0], [1]]
    """
    (least, iou, most), (images, _, classes) = limits, scores.shape
    voting = least.clamp(max=VOTER_SCORE) if rules.votes > 1 else least
    image_of, row_of = (scores.amax(2) > voting.min()).nonzero().unbind(1)  # few rows have a class that counts
    at, label = (scores[image_of, row_of] > voting).nonzero().unbind(1)
    image, row = image_of[at], row_of[at]
    by_score = ordered(image, scores[image, row, label])
    image, row, label = image[by_score], row[by_score], label[by_score]
    enter = ranks(image, images) < rules.max_candidates
    image, row, label = image[enter], row[enter], label[enter]
    boxes, score = boxes_at(image, row), scores[image, row, label]

    place = ranks(image, images)
    able = torch.where(score > least[label], score, -1.0)
    fullest: Any = F.pad(place, (1, 0), value=-1).max() + 1
    room = torch.zeros_like(torch.arange(fullest), dtype=torch.float32)
    listed = room[:, None].expand(images, -1, 4).index_put((image, place), boxes)
    able = (room - 1).expand(images, classes, -1).index_put((image, label, place), able)
    first = torch.zeros_like(scores[:, 0, 0], dtype=torch.int64).scatter_add(0, image, torch.ones_like(image))
    image_of, _, place_of = ClassWise.apply(listed, able, iou, most).unbind(1)
    keep = (first.cumsum(0) - first)[image_of] + place_of
    keep = keep[ordered(image[keep], score[keep])]
    keep = keep[ranks(image[keep], images) < most]
    found, means, image_of, label_of = boxes[keep], score[keep], image[keep], label[keep]
    if rules.votes > 1:
        own = image_of * classes + label_of
        found, means = elected((found, means, own), (boxes, score, image * classes + label), rules.votes)
        by_score = ordered(image_of, means)
        by_score = by_score[(means > least[label_of])[by_score]]
        found, means, image_of, label_of = found[by_score], means[by_score], image_of[by_score], label_of[by_score]
    counts = torch.zeros_like(first).scatter_add(0, image_of, torch.ones_like(image_of))
    pairs = torch.cat([image[:, None], boxes, score[:, None], label[:, None]], dim=1)
    return found, means, label_of, counts, pairs


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
    groups = torch.zeros_like(able) if agnostic else rows(labels, able)
    keep = able[grouped_nms(rows(boxes, able), rows(scores, able), groups, iou, most=max_det)]
    if votes == 1:
        return boxes[keep], scores[keep], labels[keep]
    voted, means = vote(boxes, scores, labels, keep, votes)
    order = means.sort(descending=True, stable=True).indices
    labels = labels[keep]
    order = order[above(means, min_score, labels)[order]]
    return voted[order], means[order], labels[order]
