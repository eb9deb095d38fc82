"""What dense anchor heads share: the lattice under the maps, the assignment on it, and the best anchors per level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinyyolo.assigners.assignment import Assignment
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder

BOX = 4  # deltas of one anchor


class DenseHead(nn.Module):
    """Base of heads that predict something for every anchor of every cell.

    Args:
        in_strides: strides of the neck's maps, finest first.
        anchors: one level for each map, of the same strides.
        assigner: gives each anchor its object (`tinyyolo.assigners`).
        coder: deltas <-> boxes; by default mean 0 and std 1.
        inside_only: only anchors wholly inside the image take part in training.

    Raises:
        ValueError: the anchors' strides are not those of the maps.
    """

    def __init__(
        self,
        in_strides: Sequence[int],
        anchors: AnchorGrid,
        assigner: Assigner,
        coder: DeltaCoder | None = None,
        inside_only: bool = False,
    ):
        super().__init__()
        if list(anchors.strides) != list(in_strides):
            raise ValueError(f"anchors.strides={list(anchors.strides)}: the neck's maps have {list(in_strides)}")
        if len(set(anchors.per_cell)) != 1:
            raise ValueError(f"anchors: every level needs as many anchors a cell, found {list(anchors.per_cell)}")
        self.grid, self.assigner, self.coder = anchors, assigner, coder or DeltaCoder()
        self.inside_only = inside_only

    def anchors(self, maps: Sequence[Tensor], size_hw: tuple[int, int]) -> list[Tensor]:
        """Per level (N_l, 4) anchors under these maps, on their device."""
        sizes = map_sizes(maps)
        boxes = self.grid.boxes(size_hw, map_sizes=sizes).to(maps[0].device)
        return list(boxes.split([h * w * n for (h, w), n in zip(sizes, self.grid.per_cell, strict=True)]))

    def assign(
        self, maps: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], size_hw: tuple[int, int]
    ) -> list[Assignment]:
        """Per image the object of each of the N anchors of all levels."""
        ignore = [t["ignore"] for t in targets] if all("ignore" in t for t in targets) else None
        return self.assigner.on_grid_batch(
            self.grid,
            size_hw,
            [t["boxes"] for t in targets],
            ignore,
            inside_only=self.inside_only,
            map_sizes=map_sizes(maps),
        )


def map_sizes(maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(height, width) of each map in cells."""
    return [(int(x.shape[-2]), int(x.shape[-1])) for x in maps]


def flat(x: Tensor, values: int) -> Tensor:
    """Map (B, A * values, H, W) -> (B, H * W * A, values), anchors in the grid's order.

    Examples:
        >>> flat(torch.zeros(2, 12, 3, 5), values=4).shape
        torch.Size([2, 45, 4])
    """
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of (B, N) by falling score and their indices; all N in place if no more."""
    if scores.shape[1] <= count:
        return scores, torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
    values, order = scores.sort(dim=1, descending=True)  # not topk: equal scores fall as in the official code
    return values[:, :count], order[:, :count]


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x (B, N, D) at index (B, K) -> (B, K, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
