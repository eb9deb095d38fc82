"""Ranking: every object takes its k most similar anchors (paper, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import IGNORE, NEGATIVE
from tinyyolo.assigners.base import Assigner, chunks, enter_last, is_background
from tinyyolo.assigners.search import EllipseSearch, Search, can_search, search_for
from tinyyolo.assigners.threshold import ThresholdAssigner
from tinyyolo.boxes.falloff import FALLOFFS
from tinyyolo.boxes.similarity import CONSTANT, measure
from tinyyolo.config import UserError, above, whole, within

WIDER = 4  # how much further to look when all anchors near a robbed object are taken


class RankingAssigner(Assigner):
    """NWD-RKA: the k anchors most similar to an object become positive for it, however small the similarity.

    Exactly the official rule, oddities included:

    * every anchor that equals one of the k best values is taken, so ties give an object more than k anchors;
    * an anchor that several objects want goes to the last of them. Of identical objects only the last keeps anchors,
      and a crowded object may keep none (`keep_one`);
    * there is no floor. Where even the k-th best value is 0 (IoU of an object that too few anchors touch; NWD beyond
      about 104 * constant px, where float32 ends) every anchor at 0 ties and is taken.

    `on_grid` and `on_grid_batch` find nwd, dotd, kld, wd, simd and iou on the lattice, in milliseconds and with the
    same result.

    Args:
        similarity: a name in SIMILARITIES; any other than those is ranked without the lattice, hence slowly.
        topk: k, anchors per object.
        negative_below: anchors whose best similarity is below this are negative, those between are IGNORE: 0.3 in the
            official code. None makes all remaining anchors negative, as the paper's text has it.
        constant: C of nwd and dotd, px. It never changes which anchors are positive, only the negative bound.
        keep_one: an object whose anchors all went to later objects takes its best anchor that is not positive; such
            objects choose in their order, the lowest anchor index first on ties. Off in the published rows.
        positive_iou: of the anchors left over, those whose IoU with an object is at least this learn the object they
            overlap most (the first on ties). Tiny objects have next to none; larger ones have more good anchors than k.
            None, as in the published rows: no others.
        negative_iou: those left over with an IoU from this to `positive_iou` are IGNORE. None: `positive_iou`, so none.

    Raises:
        ValueError: unknown similarity, topk no whole number of at least 1, negative_below outside [0, 1],
            constant <= 0, or not 0 < negative_iou <= positive_iou <= 1; when called, topk > N.

    Examples:
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [40, 0, 48, 8]])
        >>> RankingAssigner(topk=1)(anchors, torch.tensor([[1.0, 0, 9, 8]])).gt_index
        tensor([ 0, -2, -1])
        >>> from tinyyolo.boxes.anchors import AnchorGrid
        >>> grid = AnchorGrid(strides=(4, 8), scales=(8,), ratios=(1,))
        >>> RankingAssigner().on_grid(grid, (800, 800), torch.tensor([[9.0, 9, 21, 19]])).positive_idx
        tensor([604, 804])
    """

    def __init__(
        self,
        similarity: str = "nwd",
        topk: int = 2,
        negative_below: float | None = 0.3,
        constant: float = CONSTANT,
        keep_one: bool = False,
        positive_iou: float | None = None,
        negative_iou: float | None = None,
    ):
        self.pairwise = measure(similarity, constant).pairwise
        whole(1, topk=topk)
        if negative_below is not None:
            within(0, 1, negative_below=negative_below)
        self.overlap = overlap_rule(positive_iou, negative_iou)
        self.similarity, self.topk, self.options = similarity, topk, {"constant": float(constant)}
        self.negative_below, self.keep_one = negative_below, bool(keep_one)
        ordered = similarity in FALLOFFS  # the search can tell the next best, and the next
        self.on_lattice = can_search(similarity) and (ordered or not keep_one)

    def _search(self, search: Search, found: Tensor) -> None:
        self._check_topk(search.lattice.active)
        if self.negative_below is not None:
            for _, anchor, _ in search.above(self.negative_below):
                found[anchor] = IGNORE
        taken = []
        for pairs in search.nearest(self.topk):
            search.enter_last(found, pairs)
            taken.append(pairs)
        if self.keep_one:
            owns = torch.zeros_like(search.number, dtype=torch.bool)
            for gt, anchor, _ in taken:
                owns[gt[found[anchor] == search.number[gt]]] = True
            self._rescue(search, found, (~owns).nonzero()[:, 0])
        if self.overlap:
            more = torch.full_like(found, NEGATIVE)
            self.overlap._search(search_for("iou", self.options, search.lattice, search.images), more)
            found.copy_(add(found, more))

    def _rescue(self, search: Search, found: Tensor, robbed: Tensor) -> None:
        """Give each robbed object in turn its best anchor that is free, looking wider while there is none."""
        assert isinstance(search, EllipseSearch), "on_lattice says so: only this one can tell the next best"
        k = self.topk
        while len(robbed) and k < search.lattice.active:
            k = min(k * WIDER, search.lattice.active)
            served = 0
            for gt, choices in search.ranked(robbed, k):
                free = (found[choices] < 0).nonzero()[:, 0]
                if not len(free) and k < search.lattice.active:
                    break
                found[choices[free[:1]]] = search.number[gt]
                served += 1
            robbed = robbed[served:]

    def _check_topk(self, active: int) -> None:
        if self.topk > active:
            raise UserError(f"topk={self.topk}: only {active} anchors take part")  # in a training, one line

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        self._check_topk(len(anchors))
        columns = chunks(self.pairwise, gt_boxes, anchors)
        gt_index = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
        best = torch.empty((len(gt_boxes), 0), device=anchors.device)
        for part, matrix in columns():
            best = torch.cat((best, matrix.topk(min(self.topk, matrix.shape[1]), dim=1).values), 1)
            best = best.topk(min(self.topk, best.shape[1]), dim=1).values
            if self.negative_below is not None:
                highest = matrix.amax(0)
                gt_index[part] = torch.where(is_background(highest, self.negative_below), NEGATIVE, IGNORE)
        for part, matrix in columns():
            enter_last(gt_index[part], matrix >= best[:, -1:])
        if self.keep_one:
            self._rescue_dense(gt_index, anchors, gt_boxes)
        return add(gt_index, self.overlap._assign(anchors, gt_boxes, level_sizes)) if self.overlap else gt_index

    def _rescue_dense(self, gt_index: Tensor, anchors: Tensor, gt_boxes: Tensor) -> None:
        owned = torch.bincount(gt_index[gt_index >= 0], minlength=len(gt_boxes))
        for gt in (owned == 0).nonzero()[:, 0].tolist():
            values = self.pairwise(gt_boxes[gt : gt + 1], anchors)[0].masked_fill(gt_index >= 0, -torch.inf)
            choice = (values == values.amax()).nonzero()[0]
            if bool(gt_index[choice] < 0):
                gt_index[choice] = gt


def overlap_rule(positive_iou: float | None, negative_iou: float | None) -> ThresholdAssigner | None:
    """The rule of the anchors that ranking leaves over; None: they stay as they are."""
    if positive_iou is None:
        if negative_iou is not None:
            raise ValueError(f"negative_iou={negative_iou}: it needs a positive_iou")
        return None
    negative_iou = positive_iou if negative_iou is None else negative_iou
    above(0, positive_iou=positive_iou, negative_iou=negative_iou)
    within(0, 1, positive_iou=positive_iou)
    if negative_iou > positive_iou:
        raise ValueError(f"negative_iou={negative_iou}: expected no more than positive_iou={positive_iou}")
    return ThresholdAssigner("iou", positive_iou, negative_iou, low_quality=False)


def add(gt_index: Tensor, more: Tensor) -> Tensor:
    """(N,) gt_index, with what a second rule says of the anchors that are not positive."""
    return torch.where((gt_index < 0) & (more != NEGATIVE), more, gt_index)
