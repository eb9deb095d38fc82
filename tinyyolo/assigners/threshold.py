"""Thresholds: an anchor learns the object it is most similar to, if it is similar enough."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import IGNORE, NEGATIVE
from tinyyolo.assigners.base import Assigner, chunks, enter_last, is_background, most_similar
from tinyyolo.assigners.search import Search, can_search
from tinyyolo.boxes.similarity import CONSTANT, measure
from tinyyolo.config import within


class ThresholdAssigner(Assigner):
    """Max-similarity assignment of Faster R-CNN and RetinaNet; the baselines of the paper's Tables 6 and 8.

    Let best be an anchor's highest similarity to any object (the first object on ties). best >= positive: it learns
    that object; best < negative: background; between: IGNORE. Then, with `low_quality`, each object in order whose own
    best anchor reaches min_positive takes every anchor that equals it, also from objects before.

    As in the official code a best similarity below 0, which giou, diou and ciou give to boxes far apart, is not
    background but IGNORE. `on_grid` finds iou, nwd, dotd, kld, wd and simd on the lattice, with the same result.

    With "simd" it is the assigner of SimD (Shi et al. 2024). Its m and n, 6.13 and 4.59 in the official code or `auto`
    in a model YAML, which is the mean over the training set as its paper has it, leave most tiny objects without a
    positive on anchors of 8 strides; 1 and 1 do not.

    Args:
        similarity: a name in SIMILARITIES.
        positive: bound of positives.
        negative: bound of negatives.
        min_positive: lowest best similarity of an object for the low-quality rule.
        low_quality: whether that rule applies.
        all_best: by that rule an object takes all anchors that equal its best; False: the first of them alone (SSD).
        constant: C of nwd and dotd, px.
        m, n: of simd alone; see `pairwise_simd`.

    Raises:
        ValueError: unknown similarity, a bound outside [0, 1], negative > positive, constant, m or n <= 0, or m or n
            for another similarity.

    Examples:
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [40, 0, 48, 8]])
        >>> ThresholdAssigner()(anchors, torch.tensor([[1.0, 0, 9, 8]])).gt_index
        tensor([ 0, -2, -1])
    """

    def __init__(
        self,
        similarity: str = "iou",
        positive: float = 0.7,
        negative: float = 0.3,
        min_positive: float = 0.3,
        low_quality: bool = True,
        constant: float = CONSTANT,
        all_best: bool = True,
        m: float = 1.0,
        n: float = 1.0,
    ):
        self.pairwise = measure(similarity, constant, m, n).pairwise
        for name, value in {"m": m, "n": n}.items():
            if similarity != "simd" and value != 1:
                raise ValueError(f"{name}={value}: {similarity} has none, only simd")
        within(0, 1, positive=positive, negative=negative, min_positive=min_positive)
        if negative > positive:
            raise ValueError(f"negative={negative}: expected no more than positive={positive}")
        self.similarity, self.options = similarity, {"constant": float(constant), "m": float(m), "n": float(n)}
        self.positive, self.negative, self.min_positive = positive, negative, min_positive
        self.low_quality, self.all_best = bool(low_quality), bool(all_best)
        self.on_lattice = can_search(similarity)

    def _search(self, search: Search, found: Tensor) -> None:
        gt, anchor, value = search.joined(search.above(self.negative))
        anchor, place = anchor.unique(return_inverse=True)
        highest, first = most_similar(place, search.number[gt], value, len(anchor))
        found[anchor] = torch.where(highest >= self.positive, first, IGNORE)
        if self.low_quality:
            best = search.joined(search.best(self.min_positive))
            if not self.all_best:
                least = torch.full_like(search.number, torch.iinfo(best.anchor.dtype).max)
                best = best.keep(best.anchor == least.scatter_reduce(0, best.gt, best.anchor, "amin")[best.gt])
            found[best.anchor] = NEGATIVE
            search.enter_last(found, best)

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        columns = chunks(self.pairwise, gt_boxes, anchors)
        gt_index = torch.full((len(anchors),), IGNORE, device=anchors.device)
        best = torch.full((len(gt_boxes),), -torch.inf, device=anchors.device)
        first_best = torch.zeros_like(best, dtype=torch.int64)
        for part, matrix in columns():
            highest, first = matrix.max(0)
            found = torch.where(highest >= self.positive, first, IGNORE)
            gt_index[part] = torch.where(is_background(highest, self.negative), NEGATIVE, found)
            most, at = matrix.max(1)
            first_best = torch.where(most > best, at + part.start, first_best)
            best = best.maximum(most)
        if not self.low_quality:
            return gt_index
        best = best.masked_fill(best < self.min_positive, torch.inf)  # equals no similarity
        for part, matrix in columns():
            wanted = matrix == best[:, None]
            if not self.all_best:
                wanted &= torch.arange(len(anchors), device=anchors.device)[part] == first_best[:, None]
            enter_last(gt_index[part], wanted)
        return gt_index
