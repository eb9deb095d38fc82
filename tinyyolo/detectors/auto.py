"""`anchors: auto`, `constant: auto`, and SimD's `m: auto` and `n: auto`: settled from the training objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tinyyolo.assigners.lattice import lattice_of
from tinyyolo.assigners.search import search_for
from tinyyolo.assigners.threshold import ThresholdAssigner
from tinyyolo.boxes.anchors import AnchorGrid, Size, auto_constant, fit_anchors
from tinyyolo.boxes.convert import centres, sides
from tinyyolo.boxes.similarity import CONSTANT
from tinyyolo.config import UserError, build, construct

AUTO = "auto"
BY_AXIS = ("m", "n")  # of SimD
OFFSET_DIGITS = 3  # of m and n
Objects = Sequence[tuple[Size, Tensor]]  # of each image the network input's height and width, and boxes (M, 4), px
FINEST = 4  # px, the first stride of an anchor YOLO; each level has twice the one before
SMALLEST, RISE = 6, 1.5  # px: before there are data to fit to, squares that grow from level to level


def is_auto(spec: Mapping[str, Any]) -> bool:
    """Whether anything in a model YAML waits for the data."""
    return any(v == AUTO if not isinstance(v, Mapping) else is_auto(v) for k, v in spec.items() if k != "train")


def settle(spec: Mapping[str, Any], wh: Tensor | None = None, images: Objects = ()) -> dict[str, Any]:
    """A copy of `spec` with every `auto` replaced by numbers: `constant`, a YOLO head's `anchors`, SimD's `m` and `n`.

    Args:
        spec: a model YAML.
        wh: (K, 2) sizes of the training objects in px of the network input; None takes 12.7 px and squares from 6 px.
        images: where these objects lie; none: m and n are 1.

    Returns:
        C is the mean absolute object size (paper, section 6.3.3); anchors maximise the mean NWD of each object with its
        best anchor; for m and n see `mean_offsets`.

    Raises:
        UserError: m or n is auto where there are no anchors, or those are wrong.

    Examples:
        >>> settle({"head": {"constant": "auto", "assigner": {"constant": "auto"}}}, torch.full((3, 2), 8.0))
        {'head': {'constant': 8.0, 'assigner': {'constant': 8.0}}}
    """
    known = wh if wh is not None and len(wh) else None
    constant = CONSTANT if known is None else round(auto_constant(known), 2)

    def walk(node: Mapping[str, Any]) -> dict[str, Any]:
        out = {}
        for key, value in node.items():
            if isinstance(value, Mapping):
                value = walk(value)
            elif value == AUTO and key == "constant":
                value = constant
            elif value == AUTO and key == "anchors" and node.get("type") == "yolo":
                levels = node.get("hidden")  # what is none is refused as the head is built
                counts = per_cell(len(levels) if isinstance(levels, Sequence) else 1)
                fitted = squares(counts) if known is None else fit_anchors(known, counts, strides_of(counts), constant)
                value = [[list(map(float, size)) for size in level] for level in fitted]
            out[key] = value
        rule = out.get("assigner")
        waiting = [key for key in BY_AXIS if isinstance(rule, Mapping) and rule.get(key) == AUTO]
        if waiting:
            found = mean_offsets(grid_of(out), images) if images else (1.0, 1.0)
            means = dict(zip(BY_AXIS, found, strict=True))
            out["assigner"] = {**out["assigner"], **{key: round(means[key], OFFSET_DIGITS) for key in waiting}}
        return out

    return walk(spec)


def per_cell(levels: int) -> list[int]:
    """Anchors a cell of an anchor YOLO of so many levels: most where tiny objects live, and as many where the last one
    of three stands for all that is larger.

    Examples:
        >>> per_cell(3), per_cell(4)
        ([3, 2, 3], [3, 2, 2, 2])
    """
    return [3 if level == 0 or (levels == 3 and level == 2) else 2 for level in range(levels)]


def squares(counts: Sequence[int]) -> list[list[tuple[float, float]]]:
    """Anchors of so many a cell and level that follow no objects."""
    sides_px = iter([SMALLEST * RISE**i for i in range(sum(counts))])
    return [[(side, side) for side in islice(sides_px, count)] for count in counts]


def strides_of(levels: Sequence[Any]) -> list[int]:
    """Strides of an anchor YOLO's levels, px."""
    return [FINEST * 2**level for level in range(len(levels))]


def grid_of(head: Mapping[str, Any]) -> AnchorGrid:
    """The anchors of a head's section that is settled.

    Raises:
        UserError: it has none, or wrong ones.
    """
    anchors = head.get("anchors")
    if anchors is None:
        raise UserError("m=auto, n=auto: only for assigners of anchors; expected numbers")
    if head.get("type") == "yolo":
        given = {"strides": strides_of(anchors), "sizes": anchors, "center_offset": 0.5}
        grid = construct(AnchorGrid, given, "anchors")
    else:
        grid = build({"grid": AnchorGrid}, anchors, "anchors")
    assert isinstance(grid, AnchorGrid)
    return grid


def mean_offsets(grid: AnchorGrid, images: Objects) -> tuple[float, float]:
    """m and n of SimD (Shi et al. 2024, Eq. 4 and 5): the means of |dx| / (w1 + w2) and of |dy| / (h1 + h2).

    They go over all pairs of an object and an anchor of its image, so that an image of many objects weighs more. Column
    by column and row by row: no pair is looked at alone.

    Args:
        grid: the anchors.
        images: their objects; images without any add nothing.

    Raises:
        UserError: no object at all.

    Examples:
        >>> grid = AnchorGrid(strides=(8,), sizes=[[(8, 8)]], center_offset=0.5)
        >>> mean_offsets(grid, [((8, 16), torch.tensor([[0.0, 0, 8, 16]]))])  # (0 + 8) / 16 and (4 + 4) / 24, of two
        (0.25, 0.16666666666666666)
    """
    total, pairs = torch.zeros(2, dtype=torch.float64), 0
    for size_hw, boxes in images:
        wide = boxes.double().cpu()
        middle, own = centres(wide).T[..., None], sides(wide).T[..., None]  # (2, M, 1)
        for (rows, columns), stride, base in zip(grid.map_sizes(size_hw), grid.strides, grid.base_boxes, strict=True):
            for axis, (cells, across) in enumerate(((columns, rows), (rows, columns))):
                places = (torch.arange(cells) + grid.center_offset) * stride
                apart = (middle[axis] - places).abs().sum(1) * across
                total[axis] += (apart[:, None] / (own[axis] + sides(base.double())[:, axis])).sum()
            pairs += len(boxes) * rows * columns * len(base)
    if not pairs:
        raise UserError("m=auto, n=auto: there are no objects to settle them from")
    m, n = (total / pairs).tolist()
    return m, n


def uses_simd(spec: Mapping[str, Any]) -> bool:
    """Whether `coverage` has something to say."""
    return any(_simd_rule(head) is not None for head in spec.values())


def _simd_rule(head: Any) -> Mapping[str, Any] | None:
    """The assigner of a head's section, if it is SimD's."""
    rule = head.get("assigner") if isinstance(head, Mapping) else None
    named = isinstance(rule, Mapping) and (rule.get("type"), rule.get("similarity")) == ("threshold", "simd")
    return rule if named and "anchors" in head else None


def coverage(spec: Mapping[str, Any], images: Objects) -> str:
    """A line on how many objects the SimD of a settled spec finds an anchor for; "" without SimD."""
    lines = []
    for name, head in spec.items():
        if (rule := _simd_rule(head)) is None:
            continue
        assigner = build({"threshold": ThresholdAssigner}, rule, f"{name}.assigner")
        found = sum(reached(assigner, grid_of(head), *image) for image in images if len(image[1]))
        of = sum(len(boxes) for _, boxes in images)
        options = ", ".join(f"{key} = {assigner.options[key]:g}" for key in BY_AXIS)
        lines.append(
            f"SimD with {options}: {100 * found / of:.1f}% of {of:,} objects have an anchor of "
            f"{assigner.min_positive:g} or more, the others learn nothing"
        )
    return "\n".join(lines)


def reached(assigner: ThresholdAssigner, grid: AnchorGrid, size_hw: Size, boxes: Tensor) -> int:
    """How many objects (M, 4) of an image, M > 0, have an anchor of at least `min_positive`."""
    lattice = lattice_of(grid, size_hw, tuple(grid.map_sizes(size_hw)), False, torch.device("cpu"))
    search = search_for(assigner.similarity, assigner.options, lattice, [boxes.float().cpu()])
    return len(search.joined(search.best(assigner.min_positive)).gt.unique())


def describe(spec: Mapping[str, Any]) -> str:
    """The anchors of a dense head and C, a line a level."""
    head = spec.get("head", {})
    lines = [f"constant C = {head['constant']} px"] if "constant" in head else []
    levels = head.get("anchors", []) if head.get("type") == "yolo" else []
    for stride, level in zip(strides_of(levels), levels, strict=True):
        lines.append(f"anchors at stride {stride}: " + ", ".join(f"{w:g}x{h:g}" for w, h in level) + " px")
    return "\n".join(lines)


def object_sizes(boxes: Tensor, sizes_hw: Tensor, imgsz: int) -> Tensor:
    """(K, 2) w, h in px of the network input.

    Args:
        boxes: (K, 4) xyxy in px of the original image.
        sizes_hw: (K, 2) height and width of each box's image.
        imgsz: longer side of the network input.
    """
    return (sides(boxes) * scale_of(sizes_hw, imgsz)).to(torch.float32)


def object_boxes(boxes: Tensor, sizes_hw: Tensor, imgsz: int) -> Tensor:
    """(K, 4) float32 xyxy in px of the network input, a square with the image in its middle.

    An image that is cut, as its boxes are beyond `sizes_hw`, counts as cut into squares side by side.

    Args:
        boxes, sizes_hw, imgsz: see `object_sizes`.

    Examples:
        >>> object_boxes(torch.tensor([[0.0, 0, 4, 8]]), torch.tensor([[40, 80]]), 160)
        tensor([[ 0., 40.,  8., 56.]])
    """
    scale = scale_of(sizes_hw, imgsz)
    margin = (imgsz - sizes_hw.flip(1) * scale) / 2
    placed = boxes * scale + margin.repeat(1, 2)
    cut = (centres(placed) / imgsz).floor() * imgsz
    return (placed - cut.repeat(1, 2)).to(torch.float32)


def scale_of(sizes_hw: Tensor, imgsz: int) -> Tensor:
    """(K, 1) by which images are scaled so that their longer side is imgsz."""
    return imgsz / sizes_hw.amax(dim=1, keepdim=True).clamp(min=1)
