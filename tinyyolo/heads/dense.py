"""What heads on anchors share: the lattice under the maps, the assignment on it, the best anchors of a level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinyyolo.assigners.assignment import IGNORE, Assignment
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.boxes.convert import Core
from tinyyolo.boxes.graph import capped, for_onnx
from tinyyolo.boxes.nms import MinScore
from tinyyolo.sizes import filled_up

BOX = 4  # deltas of one anchor
INIT_STD = 0.01  # of weights that predict, before training


class AnchorHead(nn.Module):
    """Base of heads that predict something for every anchor of every cell.

    Args:
        in_strides: strides of the neck's maps, finest first.
        anchors: one level for each map, of the same strides.
        assigner: gives each anchor its object (`tinyyolo.assigners`).
        inside_only: only anchors wholly inside the image take part in training.

    Raises:
        ValueError: the anchors' strides are not those of the maps.
    """

    beyond_counts = False  # whether cells that fill up a smaller image learn that nothing is there

    def __init__(self, in_strides: Sequence[int], anchors: AnchorGrid, assigner: Assigner, inside_only: bool = False):
        super().__init__()
        if list(anchors.strides) != list(in_strides):
            raise ValueError(f"anchors.strides={list(anchors.strides)}: the neck's maps have {list(in_strides)}")
        self.grid, self.assigner, self.inside_only = anchors, assigner, inside_only

    def anchors(self, maps: Sequence[Tensor], size_hw: tuple[int, int]) -> list[Tensor]:
        """Per level (N_l, 4) anchors under these maps, float32 xyxy px, on the maps' device."""
        return self.grid.levels(size_hw, map_sizes=map_sizes(maps), device=maps[0].device)

    def lattice(self, maps: Sequence[Tensor], size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Anchors (N, 4) xyxy of all levels and the strides (N, 1) of theirs."""
        levels = self.anchors(maps, size_hw)
        strides = [x.new_full((x.shape[0], 1), s) for x, s in zip(levels, self.grid.strides, strict=True)]
        return torch.cat(levels), torch.cat(strides)

    def assign(
        self, maps: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], size_hw: tuple[int, int]
    ) -> list[Assignment]:
        """Per image the object of each of the N anchors of all levels; see `_in_corner` for images of several sizes."""
        sizes = [(int(h), int(w)) for h, w in (t.get("size_hw", size_hw) for t in targets)]
        if not self.beyond_counts and any(size != tuple(size_hw) for size in sizes):
            return [self._in_corner(maps, target, size) for target, size in zip(targets, sizes, strict=True)]
        return self.assigner.on_grid_batch(
            self.grid,
            size_hw,
            [t["boxes"] for t in targets],
            [t.get("ignore") for t in targets],
            inside_only=self.inside_only,
            map_sizes=map_sizes(maps),
        )

    def _in_corner(self, maps: Sequence[Tensor], target: dict[str, Tensor], size_hw: tuple[int, int]) -> Assignment:
        """The assignment of an image of this size in the left upper corner of the input, by the official rule.

        Cells that begin beyond its sides, filled up to multiples of 32, are those of larger images in the batch:
        they are IGNORE; and `inside_only` is about the image itself.
        """
        own, inside = self.own_cells(maps, size_hw)
        asked = (target["boxes"], target.get("ignore"), self.inside_only)
        found = self.assigner.on_grid(self.grid, size_hw, *asked, map_sizes=own).gt_index
        gt_index = found.new_full(inside.shape, IGNORE)
        gt_index[inside.to(found.device)] = found
        return Assignment(gt_index)

    def own_cells(self, maps: Sequence[Tensor], size_hw: tuple[int, int]) -> tuple[list[tuple[int, int]], Tensor]:
        """What an image of this size has in the corner of a larger input: rows and columns per level, anchors (N,)."""
        sizes, parts = [], []
        for x, stride, each in zip(maps, self.grid.strides, self.grid.per_cell, strict=True):
            rows, columns = (
                min(math.ceil(filled_up(side) / stride), most) for side, most in zip(size_hw, x.shape[-2:], strict=True)
            )
            sizes.append((rows, columns))
            parts.append(torch.zeros(*x.shape[-2:], each, dtype=torch.bool, device=x.device))
            parts[-1][:rows, :columns] = True
        return sizes, torch.cat([part.flatten() for part in parts])

    def gt_index(
        self, maps: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], size_hw: tuple[int, int]
    ) -> Tensor:
        """`assign` as one tensor (B, N) on the device of the maps."""
        return torch.stack([a.gt_index for a in self.assign(maps, targets, size_hw)]).to(maps[0].device)


class DenseHead(AnchorHead, ABC):
    """Head of a one-stage detector: every anchor has its box and its C class scores."""

    @abstractmethod
    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"box", "cls"}, scalars.

        Args:
            maps: the neck's outputs.
            targets, size_hw: see `Detector.losses`.
            sample: of no effect: a dense head learns on every anchor.
        """

    @abstractmethod
    def candidates(
        self,
        maps: Sequence[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) clipped to the image `size_hw` and class scores (B, N, C), both float32, before NMS.

        With a `core` and `least`, see `Detector.candidates`.
        """

    def owned(self, maps: Sequence[Tensor], size_hw: tuple[int, int], core: Core) -> list[Tensor]:
        """Per level (N_l,) bool: anchors whose cell begins in the core, so that each has one owner."""
        sizes = map_sizes(maps)
        cells = self.grid.cells(size_hw, map_sizes=sizes, device=maps[0].device)
        low, high = cells.new_tensor(core[:2]), cells.new_tensor(core[2:])
        inside = ((cells >= low) & (cells < high)).all(1)
        return list(torch.split(inside, self.grid.level_sizes(size_hw, map_sizes=sizes)))


class DeltaHead(DenseHead):
    """A dense head that predicts deltas and offers the best (anchor, class) pairs of every level.

    Attributes:
        coder: deltas <-> boxes.
        pre_nms: best pairs kept per level.
    """

    coder: DeltaCoder
    pre_nms: int

    def best_candidates(
        self,
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        maps: Sequence[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`candidates` of per level scores (B, N_l, C) and deltas (B, 4 A, H, W): each pair has its one score."""
        found, kept = [], []
        levels = [None] * len(maps) if core is None else self.owned(maps, size_hw, core)
        clip = size_hw if core is None else None
        for owned, anchors, score, delta in zip(levels, self.anchors(maps, size_hw), scores, deltas, strict=True):
            top, anchor, one = best_pairs(score, self.pre_nms, owned)
            found.append(self.coder.decode(anchors[anchor], rows(flat([delta], BOX), anchor), clip))
            kept.append(top[..., None] * one)
        return torch.cat(found, dim=1), torch.cat(kept, dim=1)


def shared(in_channels: Sequence[int], anchors: AnchorGrid) -> tuple[int, int]:
    """Channels and anchors per cell, the same on all levels, of a head that the levels share.

    Raises:
        ValueError: levels that differ in either.
    """
    if len(set(in_channels)) != 1:
        raise ValueError(f"in_channels={list(in_channels)}: the levels share one head and need equal channels")
    if len(set(anchors.per_cell)) != 1:
        raise ValueError(f"anchors: every level needs as many anchors a cell, found {list(anchors.per_cell)}")
    return in_channels[0], anchors.per_cell[0]


def map_sizes(maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(height, width) of each map in cells."""
    return [(x.shape[-2], x.shape[-1]) for x in maps]  # as they are: a graph holds no sizes


def flat(maps: Sequence[Tensor], values: int) -> Tensor:
    """Maps (B, A * values, H, W) of levels -> (B, N, values), N anchors in the grid's order.

    Examples:
        >>> flat([torch.zeros(2, 12, 3, 5), torch.zeros(2, 8, 2, 3)], values=4).shape
        torch.Size([2, 57, 4])
    """
    levels = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values) for x in maps]
    return levels[0] if len(levels) == 1 else torch.cat(levels, dim=1)


def patches(x: Tensor, image: Tensor, row: Tensor, column: Tensor, reach: int) -> Tensor:
    """(P, C, K, K) what lies around cells of a map (B, C, H, W), K = 2 * reach + 1; 0 beyond the map.

    Args:
        image, row, column: (P,) int64.
        reach: cells to each side.

    Examples:
        >>> at = torch.tensor([0])
        >>> patches(torch.arange(6.0).view(1, 1, 2, 3), at, at + 1, at + 2, reach=1)[0, 0].tolist()
        [[1.0, 2.0, 0.0], [4.0, 5.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return around(x.permute(0, 2, 3, 1), image, row, column, reach).permute(0, 3, 1, 2)


def around(x: Tensor, image: Tensor, row: Tensor, column: Tensor, reach: int) -> Tensor:
    """`patches` of a map (B, H, W, C), channels last as well: (P, K, K, C)."""
    (height, width), steps = x.shape[1:3], torch.arange(-reach, reach + 1, device=x.device)
    rows, columns = row[:, None, None] + steps[:, None], column[:, None, None] + steps
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    cells = (image[:, None, None] * height + rows.clamp(0, height - 1)) * width + columns.clamp(0, width - 1)
    return x.flatten(0, 2)[cells].masked_fill(~inside[..., None], 0)


def objects_of(targets: Sequence[dict[str, Tensor]], image: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (P, 4) float32 and labels (P,) of the objects that have `index` (P,) within `image` (P,) of the batch.

    Examples:
        >>> targets = [{"boxes": torch.full((2, 4), 1.0), "labels": torch.tensor([5, 6])}]
        >>> targets.append({"boxes": torch.full((1, 4), 2.0), "labels": torch.tensor([7])})
        >>> objects_of(targets, torch.tensor([1, 0]), torch.tensor([0, 1]))
        (tensor([[2., 2., 2., 2.],
                [1., 1., 1., 1.]]), tensor([7, 6]))
    """
    row = index + index.new_tensor([0, *(len(t["boxes"]) for t in targets)]).cumsum(0)[image]
    return torch.cat([t["boxes"] for t in targets])[row].float(), torch.cat([t["labels"] for t in targets])[row]


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of (B, N) by falling score and their indices; all N in place if no more."""
    if for_onnx():
        top = scores.topk(capped(scores.shape[1], count), dim=1)
        return top.values, top.indices
    if scores.shape[1] <= count:
        return scores, torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
    values, order = scores.sort(dim=1, descending=True)  # not topk: equal scores fall as in the official code
    return values[:, :count], order[:, :count]


def best_pairs(probability: Tensor, count: int, owned: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The best (anchor, class) pairs of a level by falling score.

    Args:
        probability: (B, N, C).
        count: at most so many.
        owned: (N,) bool, anchors that count; the others score 0. None: all.

    Returns:
        scores (B, K), anchors (B, K) int64 and (B, K, C) bool, true for a pair's class.

    Examples:
        >>> scores, anchor, one = best_pairs(torch.tensor([[[0.5, 0.0], [0.25, 0.75]]]), 2)
        >>> scores.tolist(), anchor.tolist(), one.long().tolist()
        ([[0.75, 0.5]], [[1, 0]], [[[0, 1], [1, 0]]])
    """
    if owned is not None:
        probability = probability * owned[:, None]
    scores, pair = best(probability.flatten(1), count)
    classes = probability.shape[-1]
    one = torch.arange(classes, device=pair.device) == (pair % classes)[..., None]
    return scores, pair // classes, one


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x (B, N, D) at index (B, K) -> (B, K, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
