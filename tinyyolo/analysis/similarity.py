"""Similarity of two boxes under a shift: the paper's Figs. 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyyolo.boxes.convert import convert
from tinyyolo.boxes.similarity import CONSTANT, SIMILARITIES, measure

SHIFT_SIDES = (4, 12, 32, 48)  # px, side of the square box of each curve
SHIFTS = tuple(range(21))  # px to the right and down
EXAMPLE_SIZES = ((5, 8), (100, 160), (200, 320))  # (w, h) px of the paper's Fig. 1; see `worked_example`
EXAMPLE_SHIFTS = (1, 3)  # px


def shift_curves(
    sides: Sequence[float] = SHIFT_SIDES, shifts: Sequence[float] = SHIFTS, constant: float = CONSTANT
) -> dict[str, Any]:
    """Every similarity of a square box A with a box B moved right and down, as in the paper's Fig. 2.

    Returns:
        `sides`, `shifts`, and `same` (B as large as A) and `half` (half its side): similarity -> per side a list.

    Examples:
        >>> shift_curves([8], [0, 4])["same"]["iou"]
        [[1.0, 0.1428571492433548]]
    """
    out: dict[str, Any] = {"sides": list(sides), "shifts": list(shifts), "constant": constant}
    for kind, factor in (("same", 1.0), ("half", 0.5)):
        pairs = [((side, side), (side * factor, side * factor)) for side in sides]
        out[kind] = {name: [compare(name, *wh, shifts, constant).tolist() for wh in pairs] for name in SIMILARITIES}
    return out


def compare(
    similarity: str, wh: Sequence[float], other_wh: Sequence[float], shifts: Sequence[float], constant: float
) -> Tensor:
    """(S,) similarity of a box with one moved right and down by each shift; both have the same centre at 0."""
    box = convert(torch.tensor([[0, 0, *wh]], dtype=torch.float32), "cxcywh", "xyxy")
    others = convert(torch.tensor([[s, s, *other_wh] for s in shifts], dtype=torch.float32), "cxcywh", "xyxy")
    return measure(similarity, constant).aligned(box, others)


def worked_example(constant: float = CONSTANT) -> list[dict[str, Any]]:
    """The paper's Fig. 1: what 1 and 3 px do to the similarity of a box with itself.

    The paper gives IoU .54 and .14 for 5x8 px, and .97 and .91 for "200x320" px; those are the values of 100x160 px,
    and 200x320 px has .98 and .95.

    Returns:
        One entry per size: `width`, `height`, `shifts`, and each similarity by its name as a list.
    """
    out = []
    for wh in EXAMPLE_SIZES:
        values = {name: compare(name, wh, wh, EXAMPLE_SHIFTS, constant).tolist() for name in SIMILARITIES}
        out.append({"width": wh[0], "height": wh[1], "shifts": list(EXAMPLE_SHIFTS)} | values)
    return out
