"""RFLA: the prior boxes that lie nearest in a receptive field's sense, in two stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import NEGATIVE
from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.ranking import RankingAssigner, add
from tinyyolo.assigners.search import Search, can_search, search_for
from tinyyolo.boxes.convert import scaled
from tinyyolo.boxes.similarity import CONSTANT
from tinyyolo.config import above, whole, within


class HierarchicalAssigner(Assigner):
    """Hierarchical label assignment of RFLA (Xu et al. 2022, section 3.3), exactly as in the official code.

    First every object takes the topk[0] priors most similar to it, as in `RankingAssigner`: ties all count, the last of
    the objects that want a prior has it, and there is no floor. Then all priors shrink around their centres and every
    object takes the topk[1] best of these. What the first stage gave stays; every other prior has the state of the
    second: its object, background where its best similarity is below `negative_below`, else IGNORE.

    Meant for priors that are receptive fields (`anchors: {fields: ...}`, see `AnchorGrid`), but it takes any. No prior
    is changed here. The official code shrinks them where they lie: its RPN then encodes against priors of .9 (targets
    1.11 times as far, .105 added to the logarithms of sides), and its FCOS gives later images of a batch ever smaller
    ones. Detection never sees that, so its checkpoints need nothing of it.

    `on_grid` finds kld, wd, simd, nwd, dotd and iou on the lattice, with the same result.

    Args:
        similarity: a name in SIMILARITIES; kld and wd are RFLA's.
        topk: priors per object in the first and in the second stage.
        shrink: sides of the second stage's priors in those of the first's, in (0, 1].
        negative_below: see above; it is never reached by wd.
        constant: C of nwd and dotd, px.

    Raises:
        ValueError: unknown similarity, topk not two whole numbers of at least 1, shrink not in (0, 1], negative_below
            outside [0, 1], or constant <= 0; when called, more to take than there are priors.

    Examples:
        >>> priors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [40, 0, 48, 8]])
        >>> HierarchicalAssigner(topk=(1, 1))(priors, torch.tensor([[1.0, 0, 9, 8]])).gt_index
        tensor([ 0, -1, -1])
    """

    def __init__(
        self,
        similarity: str = "kld",
        topk: Sequence[int] = (3, 1),
        shrink: float = 0.9,
        negative_below: float = 0.8,
        constant: float = CONSTANT,
    ):
        topk = list(topk)
        whole(1, topk=topk)
        if len(topk) != 2:
            raise ValueError(f"topk={topk}: expected two whole numbers, one a stage")
        above(0, shrink=shrink)
        within(0, 1, shrink=shrink)
        self.full = RankingAssigner(similarity, topk[0], None, constant)
        self.small = RankingAssigner(similarity, topk[1], negative_below, constant)
        self.similarity, self.options, self.shrink = similarity, self.full.options, float(shrink)
        self.on_lattice = can_search(similarity)

    def _search(self, search: Search, found: Tensor) -> None:
        self.full._search(search, found)
        rest = torch.full_like(found, NEGATIVE)
        small = search_for(self.similarity, self.options, search.lattice.scaled(self.shrink), search.images)
        self.small._search(small, rest)
        found.copy_(add(found, rest))

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        first = self.full._assign(anchors, gt_boxes, level_sizes)
        return add(first, self.small._assign(scaled(anchors.float(), self.shrink), gt_boxes, level_sizes))
