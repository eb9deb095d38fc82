"""Ranking: every object takes its k most similar anchors (paper, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import CONSTANT, IGNORE, NEGATIVE, Assigner, chunks, measure


class RankingAssigner(Assigner):
    """NWD-RKA: the k anchors most similar to an object become positive for it, however small the similarity.

    Exactly the official rule, oddities included:

    * every anchor that equals one of the k best values is taken, so ties give an object more than k anchors;
    * an anchor that several objects want goes to the last of them. Of identical objects only the last keeps anchors,
      and a crowded object may keep none (`keep_one`);
    * there is no floor. Where even the k-th best value is 0 (IoU of an object that too few anchors touch; NWD beyond
      about 104 * constant px, where float32 ends) every anchor at 0 ties and is taken.

    Args:
        similarity: a name in SIMILARITIES; any but "nwd" and "dotd" is ranked without the lattice, hence slowly.
        topk: k, anchors per object.
        negative_below: anchors whose best similarity is below this are negative, those between are IGNORE: 0.3 in the
            official code. None makes all remaining anchors negative, as the paper's text has it.
        constant: C of nwd and dotd, px. It never changes which anchors are positive, only the negative bound.
        keep_one: an object whose anchors all went to later objects takes its best anchor that is not positive; such
            objects choose in their order, the lowest anchor index first on ties. Off in the published rows.

    Raises:
        ValueError: unknown similarity, topk < 1, negative_below < 0 or constant <= 0; when called, topk > N.

    Examples:
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [40, 0, 48, 8]])
        >>> RankingAssigner(topk=1)(anchors, torch.tensor([[1.0, 0, 9, 8]])).gt_index
        tensor([ 0, -2, -1])
    """

    def __init__(
        self,
        similarity: str = "nwd",
        topk: int = 2,
        negative_below: float | None = 0.3,
        constant: float = CONSTANT,
        keep_one: bool = False,
    ):
        self.pairwise = measure(similarity, constant)
        if not (isinstance(topk, int) and topk >= 1):
            raise ValueError(f"topk must be a whole number >= 1, got {topk}")
        if negative_below is not None and not negative_below >= 0:
            raise ValueError(f"negative_below must be >= 0 or None, got {negative_below}")
        self.similarity, self.topk, self.constant = similarity, topk, float(constant)
        self.negative_below, self.keep_one = negative_below, bool(keep_one)

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        if self.topk > len(anchors):
            raise ValueError(f"topk is {self.topk} but only {len(anchors)} anchors take part")
        columns = chunks(self.pairwise, gt_boxes, anchors)
        gt_index = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
        best = torch.empty((len(gt_boxes), 0), device=anchors.device)
        for part, matrix in columns():
            top = matrix.topk(min(self.topk, matrix.shape[1]), dim=1).values
            best = torch.cat((best, top), 1)
            best = best.topk(min(self.topk, best.shape[1]), dim=1).values
            if self.negative_below is not None:
                highest = matrix.amax(0)
                clear = (highest >= 0) & (highest < self.negative_below)
                gt_index[part] = torch.where(clear, NEGATIVE, IGNORE)
        objects = torch.arange(len(gt_boxes), device=anchors.device)[:, None]
        for part, matrix in columns():
            last = torch.where(matrix >= best[:, -1:], objects, NEGATIVE).amax(0)
            gt_index[part] = torch.where(last >= 0, last, gt_index[part])
        return self._keep_one(gt_index, anchors, gt_boxes) if self.keep_one else gt_index

    def _keep_one(self, gt_index: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        count = torch.bincount(gt_index[gt_index >= 0], minlength=len(gt_boxes))
        for i in (count == 0).nonzero()[:, 0].tolist():
            values = self.pairwise(gt_boxes[i : i + 1], anchors)[0].masked_fill(gt_index >= 0, -torch.inf)
            choice = int((values == values.max()).nonzero()[0])
            if gt_index[choice] < 0:
                gt_index[choice] = i
        return gt_index
