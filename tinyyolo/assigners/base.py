"""What all assigners have in common: checks, ignore regions, the two paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import IGNORE, MAX_IOF, NEGATIVE, Assignment, check_boxes
from tinyyolo.assigners.lattice import Lattice, ignore_covered, ignore_outside, lattice_of
from tinyyolo.assigners.search import Search, search_for
from tinyyolo.boxes.anchors import AnchorGrid, Size
from tinyyolo.boxes.similarity import NO_FLOAT64, pairwise_iof

CHUNK = 1 << 20  # pairs of object and anchor in work at once on the dense path: some 4 MB a float32 matrix


class Assigner:
    """Checks the input, treats ignore regions and grids; a subclass gives `_assign`, the rule itself.

    A subclass that sets `on_lattice` also gives `_search`, the same rule without the (M, N) matrix, and has
    `similarity` and `options`, as `boxes.similarity.measure` takes them.
    """

    on_lattice = False
    similarity: str
    options: dict[str, float]

    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        level_sizes: Sequence[int] | None = None,
    ) -> Assignment:
        """Assign any boxes (anchors, proposals) to objects.

        Args:
            anchors: (N, 4) xyxy, px.
            gt_boxes: (M, 4) xyxy, px; M = 0 makes every anchor negative.
            ignore_boxes: (K, 4) xyxy, px. Anchors with IoF > .5 to one are IGNORE unless positive.
            level_sizes: anchors per level, which add up to N; only atss and shape use them (default: one level).

        Raises:
            ValueError: boxes not (…, 4), not finite or with x2 < x1; level_sizes that do not add up to N.
        """
        anchors, gt_boxes = check_boxes(anchors, "anchors"), check_boxes(gt_boxes, "gt_boxes")
        sizes = [len(anchors)] if level_sizes is None else [int(n) for n in level_sizes]
        if sum(sizes) != len(anchors) or min(sizes) < 0:
            raise ValueError(f"level_sizes {sizes} do not add up to {len(anchors)} anchors")
        if len(gt_boxes) and len(anchors):
            gt_index = self._assign(anchors, gt_boxes, sizes)
        else:
            gt_index = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
        if ignore_boxes is not None and len(ignore_boxes) and len(anchors):
            regions = check_boxes(ignore_boxes, "ignore_boxes")
            gt_index = torch.where((gt_index < 0) & covered(anchors, regions), IGNORE, gt_index)
        return Assignment(gt_index)

    def on_grid(
        self,
        grid: AnchorGrid,
        size_hw: Size,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        inside_only: bool = False,
        map_sizes: Sequence[Size] | None = None,
    ) -> Assignment:
        """Assign the anchors of a grid to the objects of one image.

        Args:
            grid: the anchors.
            size_hw: network input, px.
            gt_boxes: (M, 4) xyxy, px.
            ignore_boxes: (K, 4) xyxy, px; see `__call__`.
            inside_only: only anchors wholly inside the image take part, the others are IGNORE.
            map_sizes: (rows, columns) per level where they are not ceil(side / stride).

        Returns:
            The same as `self(grid.boxes(size_hw), ...)`, N = all anchors of the grid.
        """
        ignored = None if ignore_boxes is None else [ignore_boxes]
        return self.on_grid_batch(grid, size_hw, [gt_boxes], ignored, inside_only, map_sizes)[0]

    def on_grid_batch(
        self,
        grid: AnchorGrid,
        size_hw: Size,
        gt_boxes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor | None] | None = None,
        inside_only: bool = False,
        map_sizes: Sequence[Size] | None = None,
    ) -> list[Assignment]:
        """`on_grid` for all images of a batch: lists of B tensors in, a list of B assignments out.

        Raises:
            ValueError: as `__call__`, or not as many `ignore_boxes` as `gt_boxes`.
        """
        regions = [None] * len(gt_boxes) if ignore_boxes is None else ignore_boxes
        if len(regions) != len(gt_boxes):
            raise ValueError(f"{len(gt_boxes)} gt_boxes but {len(regions)} ignore_boxes")
        if not len(gt_boxes):
            return []
        device, maps = gt_boxes[0].device, grid.map_sizes(size_hw, map_sizes)
        if self.on_lattice:
            where = torch.device("cpu") if device.type in NO_FLOAT64 else device  # a search needs them
            lattice = lattice_of(grid, tuple(size_hw), tuple(maps), inside_only, where)
            return [Assignment(row) for row in self._found(lattice, gt_boxes, regions).to(device)]
        anchors, sizes = grid.boxes(size_hw, maps, device), grid.level_sizes(size_hw, maps)
        found = torch.full((len(gt_boxes), len(anchors)), IGNORE, device=device)
        inside = grid.inside(size_hw, maps, device) if inside_only else found[0] == IGNORE
        sizes = [int(level.sum()) for level in inside.split(sizes)]
        for row, gt, region in zip(found, gt_boxes, regions, strict=True):
            row[inside] = self(anchors[inside], gt, region, sizes).gt_index
        return [Assignment(row) for row in found]

    def _found(self, lattice: Lattice, gt_boxes: Sequence[Tensor], regions: Sequence[Tensor | None]) -> Tensor:
        """(B, N) gt_index of all images, without the anchors as boxes."""
        device = lattice.base.device
        gt_boxes = [check_boxes(boxes, "gt_boxes").to(device) for boxes in gt_boxes]
        found = torch.full((len(gt_boxes), lattice.total), NEGATIVE, device=device)
        if lattice.active < lattice.total:
            ignore_outside(found, lattice)
        if lattice.active and any(len(boxes) for boxes in gt_boxes):
            self._search(search_for(self.similarity, self.options, lattice, gt_boxes), found.view(-1))
        for row, boxes in zip(found, regions, strict=True):
            if boxes is not None and len(boxes):
                ignore_covered(row, lattice, check_boxes(boxes, "ignore_boxes").to(device))
        return found

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        """gt_index (N,) of N >= 1 anchors and M >= 1 objects."""
        raise NotImplementedError

    def _search(self, search: Search, found: Tensor) -> None:
        """Enter the objects of all images into `found`, the flat (B * N,) gt_index that is still without positives."""
        raise NotImplementedError


def chunks(
    pairwise: Callable[[Tensor, Tensor], Tensor], gt_boxes: Tensor, anchors: Tensor
) -> Callable[[], Iterator[tuple[slice, Tensor]]]:
    """The matrix (M, N) in slices of columns that hold at most CHUNK pairs: a function that starts over at each call.

    It yields (slice of the anchors, (M, n) similarities). A matrix of one slice is computed once and kept.
    """
    step = max(1, CHUNK // len(gt_boxes))

    def columns() -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(anchors), step):
            part = slice(start, min(start + step, len(anchors)))
            yield part, pairwise(gt_boxes, anchors[part])

    if len(anchors) <= step:
        kept = list(columns())
        return lambda: iter(kept)
    return columns


def is_background(highest: Tensor, below: float) -> Tensor:
    """(n,) bool: an anchor's best similarity is in [0, below). Below 0, as in giou, is none: the official rule."""
    return (highest >= 0) & (highest < below)


def enter_last(gt_index: Tensor, wanted: Tensor, first: int = 0) -> None:
    """Give each anchor of gt_index (n,), in place, to the last of the objects (M, n) that want it.

    Args:
        gt_index: changed where an object wants the anchor.
        wanted: bool, a row an object.
        first: number of the first row's object.
    """
    objects = torch.arange(first, first + len(wanted), device=wanted.device)[:, None]
    last = torch.where(wanted, objects, NEGATIVE).amax(0)
    gt_index.copy_(torch.where(last >= 0, last, gt_index))


def most_similar(anchor: Tensor, gt: Tensor, value: Tensor, num_anchors: int) -> tuple[Tensor, Tensor]:
    """Per anchor its highest similarity among pairs (P,), and the object that has it, the first on ties.

    Returns:
        (N,) float, -inf where there is no pair, and (N,) int64, NEGATIVE there.
    """
    highest = value.new_full((num_anchors,), -torch.inf).scatter_reduce(0, anchor, value, "amax")
    last = torch.iinfo(gt.dtype).max
    gt = gt.masked_fill(value < highest[anchor], last)
    first = gt.new_full((num_anchors,), last).scatter_reduce(0, anchor, gt, "amin")
    return highest, first.masked_fill(first == last, NEGATIVE)


def covered(anchors: Tensor, regions: Tensor) -> Tensor:
    """(N,) bool: more than MAX_IOF of the anchor lies in one of the (K, 4) regions."""
    share = chunks(lambda regions, anchors: pairwise_iof(anchors, regions).T, regions, anchors)
    return torch.cat([matrix.amax(0) > MAX_IOF for _, matrix in share()])
