"""The lattice of anchor boxes: every level is a map of cells, every cell carries the same few boxes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tinyyolo.boxes.graph import for_onnx
from tinyyolo.boxes.similarity import EPS
from tinyyolo.config import above, shown, whole, within

Size = tuple[int, int]

# Anchor fitting.
FIT_BOXES = 50_000  # boxes looked at, evenly by area
FIT_ROUNDS = 300
FIT_STEP = 1e-3  # px; the sizes stand still
FIT_SPREAD = 0.05  # starting points differ by up to this part of their size even where all boxes are alike
FIT_SMALLEST = 1.0  # px, least side of an anchor
FIT_DIGITS = 2


class AnchorGrid:
    """Anchors of a feature pyramid.

    Either `scales` and `ratios` (base size = stride, the same for all levels; boxes of a cell ratio-major, scale-minor,
    ratios are h / w), or `fields` and `ratios`, the priors of RFLA (Xu et al. 2022): base size = field_part * field, or
    explicit `sizes` per level. The centre of cell i is at (i + center_offset) * stride px: 0 in the official code, .5
    in YOLO.

    Args:
        strides: px per cell of each level, finest first.
        scales: multiples of the stride.
        ratios: h / w.
        center_offset: place of the centre in its cell, in cells.
        sizes: per level a list of (w, h) in px, in place of scales and ratios.
        fields: theoretical receptive field of each level, px, in place of scales; of ResNet-50's P2 to P7 they are 35,
            91, 267, 427, 555 and 811.
        field_part: side of a square prior in fields.

    Attributes:
        strides: as given.
        base_boxes: per level (A, 4) float32 xyxy of cell (0, 0).
        per_cell: boxes per cell of each level.

    Raises:
        ValueError: not exactly one of scales+ratios, fields+ratios and sizes given, a number <= 0, or sizes or fields
            not one per stride.

    Examples:
        >>> grid = AnchorGrid(strides=(4, 8), scales=(8,), ratios=(0.5, 1, 2))
        >>> grid.map_sizes((800, 804)), len(grid.boxes((800, 804)))
        ([(200, 201), (100, 101)], 150900)
        >>> AnchorGrid(strides=(8,), sizes=[[(4, 6)]], center_offset=0.5).boxes((8, 16))
        tensor([[ 2.,  1.,  6.,  7.],
                [10.,  1., 14.,  7.]])
        >>> AnchorGrid(strides=(4,), fields=(35,), ratios=(1,)).boxes((4, 4))
        tensor([[-8.7500, -8.7500,  8.7500,  8.7500]])
    """

    def __init__(
        self,
        strides: Sequence[float],
        scales: Sequence[float] | None = None,
        ratios: Sequence[float] | None = None,
        center_offset: float = 0.0,
        sizes: Sequence[Sequence[Sequence[float]]] | None = None,
        fields: Sequence[float] | None = None,
        field_part: float = 0.5,
    ):
        above(0, strides=list(strides), field_part=field_part)
        within(0, 1, center_offset=center_offset)
        self.strides, self.center_offset = tuple(strides), float(center_offset)
        given = [
            name for name, value in {"scales": scales, "fields": fields, "sizes": sizes}.items() if value is not None
        ]
        if len(given) != 1 or (ratios is None) != (given == ["sizes"]):
            raise ValueError("an AnchorGrid takes either scales and ratios, fields and ratios, or sizes")
        for name, levels in {"sizes": sizes, "fields": fields}.items():
            if levels is not None and len(levels) != len(self.strides):
                raise ValueError(f"{name}: {len(levels)} levels, but {len(self.strides)} strides")
        if sizes is not None:
            sizes_wh = [_explicit(level) for level in sizes]
        else:
            above(0, **{given[0]: list(scales or fields or ()), "ratios": list(ratios or ())})
            bases = self.strides if fields is None else [field_part * field for field in fields]
            sizes_wh = [_scaled(base, scales or (1,), ratios or ()) for base in bases]
        self.base_boxes = [
            torch.cat((self.center_offset * s - 0.5 * wh, self.center_offset * s + 0.5 * wh), 1)
            for s, wh in zip(self.strides, sizes_wh, strict=True)
        ]
        self.per_cell = [len(base) for base in self.base_boxes]

    def map_sizes(self, size_hw: Size, map_sizes: Sequence[Size] | None = None) -> list[Size]:
        """Cells (rows, columns) of each level: `map_sizes` if given, otherwise ceil(side / stride).

        Raises:
            ValueError: size_hw or map_sizes below 1, or not one pair per level.
        """
        if map_sizes is not None and for_onnx():
            return list(map_sizes)
        if len(size_hw) != 2 or min(size_hw) < 1:
            raise ValueError(f"size_hw must be (height, width) in px >= 1, got {tuple(size_hw)}")
        if map_sizes is None:
            return [(math.ceil(size_hw[0] / s), math.ceil(size_hw[1] / s)) for s in self.strides]
        maps = [(int(rows), int(columns)) for rows, columns in map_sizes]
        if len(maps) != len(self.strides) or min(min(m) for m in maps) < 1:
            raise ValueError(f"map_sizes must be {len(self.strides)} pairs of rows and columns >= 1, got {maps}")
        return maps

    def level_sizes(self, size_hw: Size, map_sizes: Sequence[Size] | None = None) -> list[int]:
        """Anchors of each level."""
        maps = self.map_sizes(size_hw, map_sizes)
        return [rows * columns * a for (rows, columns), a in zip(maps, self.per_cell, strict=True)]

    def boxes(
        self, size_hw: Size, map_sizes: Sequence[Size] | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """All anchors, (N, 4) float32 xyxy px, in the order level, row, column, box of the cell.

        Args:
            size_hw: network input, px.
            map_sizes: (rows, columns) of each level where they are not ceil(side / stride): HRNet's last level.
            device: where the tensor lives; CPU if None.
        """
        return torch.cat(self.levels(size_hw, map_sizes, device))

    def levels(
        self, size_hw: Size, map_sizes: Sequence[Size] | None = None, device: torch.device | str | None = None
    ) -> list[Tensor]:
        """`boxes` of each level."""
        levels = []
        maps = self.map_sizes(size_hw, map_sizes)
        for base, stride, (rows, columns) in zip(self.base_boxes, self.strides, maps, strict=True):
            x, y = (torch.arange(n, dtype=torch.float32, device=device) * stride for n in (columns, rows))
            shifts = torch.stack((x.expand(rows, -1), y[:, None].expand(-1, columns)), -1).repeat(1, 1, 2)
            levels.append((base.to(device) + shifts[:, :, None]).reshape(-1, 4))
        return levels

    def cells(
        self, size_hw: Size, map_sizes: Sequence[Size] | None = None, device: torch.device | None = None
    ) -> Tensor:
        """Left upper corner of the cell of each anchor, (N, 2) int64 x, y px, in the order of `boxes`.

        Examples:
            >>> AnchorGrid(strides=[4], sizes=[[(8, 8), (16, 16)]]).cells((4, 8)).tolist()
            [[0, 0], [0, 0], [4, 0], [4, 0]]
        """
        levels = []
        for stride, (rows, columns), count in zip(
            self.strides, self.map_sizes(size_hw, map_sizes), self.per_cell, strict=True
        ):
            y, x = torch.meshgrid(
                torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
            )
            corner = torch.stack((x, y), -1).view(-1, 1, 2) * stride
            levels.append(corner.expand(-1, count, 2).reshape(-1, 2))
        return torch.cat(levels)

    def inside(
        self, size_hw: Size, map_sizes: Sequence[Size] | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Which anchors lie wholly in the image, (N,) bool: x1 >= 0, y1 >= 0, x2 < width, y2 < height."""
        boxes, (height, width) = self.boxes(size_hw, map_sizes, device), size_hw
        return (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] < width) & (boxes[:, 3] < height)

    def ranges(
        self, size_hw: Size, map_sizes: Sequence[Size] | None = None, inside_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """First and last cell of the rectangle of anchors, per box of a cell and level.

        Returns:
            low and high, (2, G) int64 each: row 0 columns, row 1 rows of the map; G counts the boxes of a cell over all
            levels. high < low where no anchor is inside.
        """
        low: tuple[list[Tensor], list[Tensor]] = ([], [])
        high: tuple[list[Tensor], list[Tensor]] = ([], [])
        maps = self.map_sizes(size_hw, map_sizes)
        for base, stride, (rows, columns) in zip(self.base_boxes, self.strides, maps, strict=True):
            for axis, (cells, size) in enumerate(((columns, size_hw[1]), (rows, size_hw[0]))):
                start = torch.arange(cells, dtype=torch.float32)[:, None] * stride
                fits = (base[:, axis] + start >= 0) & (base[:, axis + 2] + start < size) | (not inside_only)
                # Those that fit are one run: what is before it, and how many they are, say all.
                low[axis].append((fits.cumsum(0) == 0).sum(0))
                high[axis].append(low[axis][-1] + fits.sum(0) - 1)
        return torch.stack([torch.cat(part) for part in low]), torch.stack([torch.cat(part) for part in high])


def _scaled(base: float, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    # float32 from here on, in the official order: anchors are compared bit by bit.
    scale, root = torch.tensor(scales, dtype=torch.float32), torch.tensor(ratios, dtype=torch.float32).sqrt()[:, None]
    return torch.stack((base * (1 / root) * scale, base * root * scale), -1).reshape(-1, 2)


def _explicit(level: Sequence[Sequence[float]]) -> Tensor:
    try:
        pairs = [(float(w), float(h)) for w, h in level]
        above(0, sizes=[side for pair in pairs for side in pair])
    except (TypeError, ValueError) as error:
        raise ValueError(f"anchors need pairs (w, h) > 0 px as sizes of a level, got {shown(level)}") from error
    return torch.tensor(pairs, dtype=torch.float32)


def auto_constant(wh: Tensor) -> float:
    """C of NWD for a data set: the mean absolute object size, mean of sqrt(w * h), px (paper, sections 3.2 and 6.3.3).

    Args:
        wh: (K, 2) widths and heights in px of the network input.

    Raises:
        ValueError: no boxes, or not (K, 2) finite sizes >= 0, or all without area.

    Examples:
        >>> auto_constant(torch.tensor([[4.0, 9.0], [8.0, 8.0]]))
        7.0
    """
    constant = float(_checked_wh(wh).prod(1).sqrt().mean())
    if not constant > 0:
        raise ValueError("all boxes are without area: they have no mean size")
    return constant


def fit_anchors(
    wh: Tensor, per_level: Sequence[int], strides: Sequence[float], constant: float | None = None
) -> list[list[tuple[float, float]]]:
    """Anchor sizes that suit given boxes: those that maximise the mean NWD of each box with its best anchor.

    Sizes are compared at the same centre, so NWD = exp(-d / C) with d the distance in (w / 2, h / 2). Each round weighs
    every box by how NWD changes with the squared distance and moves each anchor to the weighted mean of its boxes; that
    never lowers the mean; outliers weigh little. Without chance: the same boxes give the same sizes.

    Args:
        wh: (K, 2) widths and heights in px of the network input.
        per_level: anchors per cell of each level.
        strides: px per cell of each level; the smallest sizes go to the finest stride.
        constant: C in px; `auto_constant(wh)` if None.

    Returns:
        Per level, in the order of `strides`, its (w, h) px by rising area: the `sizes` of an AnchorGrid.

    Raises:
        ValueError: as `auto_constant`; per_level not one count >= 1 per stride; constant <= 0.

    Examples:
        >>> fit_anchors(torch.tensor([[4.0, 4], [4, 4], [20, 10], [20, 10]]), [1, 1], [4, 8])
        [[(4.0, 4.0)], [(20.0, 10.0)]]
    """
    if len(per_level) != len(strides):
        raise ValueError(f"per_level={list(per_level)}: expected one count for each of {len(strides)} strides")
    whole(1, per_level=list(per_level))
    constant = auto_constant(wh) if constant is None else constant
    above(0, constant=constant)
    half = _checked_wh(wh) / 2
    half = half[half.prod(1).argsort(stable=True)]
    half = half[:: math.ceil(len(half) / FIT_BOXES)]
    anchors = _climb(half, sum(per_level), constant)
    anchors = anchors[anchors.prod(1).argsort(stable=True)] * 2
    sizes = iter([(round(w, FIT_DIGITS), round(h, FIT_DIGITS)) for w, h in anchors.tolist()])
    finest_first = sorted(range(len(strides)), key=lambda level: strides[level])
    levels = {level: list(itertools.islice(sizes, per_level[level])) for level in finest_first}
    return [levels[level] for level in range(len(strides))]


def _checked_wh(wh: Tensor) -> Tensor:
    if wh.ndim != 2 or wh.shape[1] != 2 or not len(wh):
        raise ValueError(f"wh must be (K, 2) with K >= 1, got shape {tuple(wh.shape)}")
    if not bool((wh.isfinite() & (wh >= 0)).all()):
        raise ValueError("wh must be finite and >= 0 px")
    return wh.detach().double().cpu()


def _climb(half: Tensor, count: int, constant: float) -> Tensor:
    """(count, 2) half sides, from quantiles by area that are pulled apart a little so that no two are equal."""
    rank = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    apart = 1 + FIT_SPREAD * (2 * rank - 1)
    anchors = half[(rank * len(half)).long()].clamp(min=FIT_SMALLEST / 2) * apart[:, None]
    for _ in range(FIT_ROUNDS):
        nearest, best = torch.cdist(half, anchors, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        distance = (nearest.square() + EPS).sqrt()
        weight = torch.exp(-distance / constant) / distance
        total = torch.zeros(count, dtype=half.dtype).index_add(0, best, weight)[:, None]
        moved = torch.zeros_like(anchors).index_add(0, best, half * weight[:, None]) / total
        before, anchors = anchors, torch.where(total > 0, moved, anchors).clamp(min=FIT_SMALLEST / 2)
        if bool((anchors - before).abs().amax() < FIT_STEP):
            break
    return anchors
