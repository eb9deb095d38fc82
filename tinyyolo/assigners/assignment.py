"""What an assigner answers, and what all assigners have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tinyyolo.boxes.anchors import AnchorGrid, Size
from tinyyolo.boxes.similarity import CONSTANT, SIMILARITIES, pairwise_iof

NEGATIVE = -1  # background: the anchor learns that nothing is there
IGNORE = -2  # the anchor takes no part in the loss
MAX_IOF = 0.5  # an anchor with more than this part of itself in an ignore region is not called background
CHUNK = 1 << 20  # pairs of object and anchor in work at once: some 4 MB a float32 matrix


@dataclass(frozen=True)
class Assignment:
    """Which anchor learns which object.

    Attributes:
        gt_index: (N,) int64, per anchor its object in [0, M), or NEGATIVE = -1, or IGNORE = -2.

    Examples:
        >>> found = Assignment(torch.tensor([-1, 0, -2, 2, 0]))
        >>> found.positive_idx, found.negative_idx, found.ignored_idx
        (tensor([1, 3, 4]), tensor([0]), tensor([2]))
        >>> found.per_object(3)
        tensor([2, 0, 1])
    """

    gt_index: Tensor

    @property
    def positive_idx(self) -> Tensor:
        """(P,) int64, rising indices of the anchors that learn an object."""
        return (self.gt_index >= 0).nonzero()[:, 0]

    @property
    def negative_idx(self) -> Tensor:
        """(Q,) int64, rising indices of the anchors that learn background."""
        return (self.gt_index == NEGATIVE).nonzero()[:, 0]

    @property
    def ignored_idx(self) -> Tensor:
        """(R,) int64, rising indices of the anchors that learn nothing."""
        return (self.gt_index == IGNORE).nonzero()[:, 0]

    def per_object(self, num_objects: int) -> Tensor:
        """(M,) int64, how many anchors each object has."""
        return torch.bincount(self.gt_index[self.positive_idx], minlength=num_objects)


class Assigner:
    """Checks the input, treats ignore regions and grids; a subclass gives `_assign`, the rule itself."""

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
            level_sizes: anchors per level, which add up to N; only ATSS uses them (default: one level).

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
        """`on_grid` for all images of a batch: lists of B tensors in, a list of B assignments out."""
        ignored = check_batch(gt_boxes, ignore_boxes)
        if not len(gt_boxes):
            return []
        device = gt_boxes[0].device
        anchors = grid.boxes(size_hw, map_sizes, device)
        sizes = grid.level_sizes(size_hw, map_sizes)
        if not inside_only:
            return [self(anchors, gt, region, sizes) for gt, region in zip(gt_boxes, ignored, strict=True)]
        inside = grid.inside(size_hw, map_sizes, device)
        sizes = [int(level.sum()) for level in inside.split(sizes)]
        found = []
        for gt, region in zip(gt_boxes, ignored, strict=True):
            gt_index = torch.full((len(anchors),), IGNORE, device=device)
            gt_index[inside] = self(anchors[inside], gt, region, sizes).gt_index
            found.append(Assignment(gt_index))
        return found

    def _assign(self, anchors: Tensor, gt_boxes: Tensor, level_sizes: list[int]) -> Tensor:
        """gt_index (N,) of N >= 1 anchors and M >= 1 objects."""
        raise NotImplementedError


def check_boxes(boxes: Tensor, name: str) -> Tensor:
    """The boxes as float32.

    Raises:
        ValueError: not (…, 4), not finite, or x2 < x1 or y2 < y1.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must be (…, 4) xyxy, got shape {tuple(boxes.shape)}")
    boxes = boxes.detach().float()
    wrong = ~(boxes.isfinite().all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{name}[{row}] = {boxes[row].tolist()}: expected finite x1 <= x2, y1 <= y2")
    return boxes


def check_batch(gt_boxes: Sequence[Tensor], ignore_boxes: Sequence[Tensor | None] | None) -> Sequence[Tensor | None]:
    """The ignore boxes, one entry an image.

    Raises:
        ValueError: not as many as gt_boxes.
    """
    ignored = [None] * len(gt_boxes) if ignore_boxes is None else ignore_boxes
    if len(ignored) != len(gt_boxes):
        raise ValueError(f"{len(gt_boxes)} gt_boxes but {len(ignored)} ignore_boxes")
    return ignored


def measure(similarity: str, constant: float) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The pairwise and the aligned function of a similarity by its name.

    Raises:
        ValueError: unknown name, or constant <= 0.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity {similarity!r} is unknown; choices: {', '.join(sorted(SIMILARITIES))}")
    if not constant > 0:
        raise ValueError(f"constant must be > 0 px, got {constant}")
    entry = SIMILARITIES[similarity]
    if not entry.takes_constant:
        return entry.pairwise, entry.aligned
    return partial(entry.pairwise, constant=constant), partial(entry.aligned, constant=constant)


def chunks(pairwise: Callable[[Tensor, Tensor], Tensor], gt_boxes: Tensor, anchors: Tensor) -> Callable[[], Iterator]:
    """The matrix (M, N) in slices of columns that hold at most CHUNK pairs: a function that starts over at each call.

    It yields (slice of the anchors, (M, n) similarities). A matrix of one slice is computed once and kept.
    """
    step = max(1, CHUNK // max(1, len(gt_boxes)))

    def columns() -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(anchors), step):
            part = slice(start, min(start + step, len(anchors)))
            yield part, pairwise(gt_boxes, anchors[part])

    if len(anchors) <= step:
        kept = list(columns())
        return lambda: iter(kept)
    return columns


def covered(anchors: Tensor, regions: Tensor) -> Tensor:
    """(N,) bool: more than MAX_IOF of the anchor lies in one of the (K, 4) regions."""
    parts = [matrix.amax(0) > MAX_IOF for _, matrix in chunks(_region_share, regions, anchors)()]
    return torch.cat(parts)


def _region_share(regions: Tensor, anchors: Tensor) -> Tensor:
    return pairwise_iof(anchors, regions).T


__all__ = ["CHUNK", "CONSTANT", "IGNORE", "NEGATIVE", "Assigner", "Assignment"]
