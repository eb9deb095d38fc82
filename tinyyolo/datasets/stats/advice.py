"""From the sizes in a data set to settings, in words, with the numbers behind each. Rules of thumb, stated as such."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tinyyolo.sizes import NAMED

STRIDE_P2, STRIDE_P3 = 4, 8
CELLS_NEEDED = 2  # an object narrower than two cells of a map leaves little of itself there
UNDER_TWO_CELLS = tuple(named.name for named in NAMED if named.high <= CELLS_NEEDED * STRIDE_P3)
P2_SHARE = 0.2  # from this share of objects below two cells of P3 a P2 level pays
LARGEST_INPUT = 1600  # px: scenes above this are cut, not shrunk
TILE = 800  # px, AI-TOD's own
IMGSZ_STEP = 32
FEW_PIXELS = 4.0  # px: below this a detector has next to nothing to see, and enlarging the input is worth a try
ENLARGE = 1.5
MAX_DET_ROOM, MAX_DET_STEP, MAX_DET_LEAST = 1.5, 100, 300
PAPER_CONSTANT, PAPER_SCALE = 12.7, 8
ANCHORS_AT = (5, 25, 50, 75, 95)  # quantiles of size that anchors should cover


def advise(numbers: Mapping[str, Any], imgsz: float | None = None) -> dict[str, Any]:
    """Settings for a set with these numbers.

    Args:
        numbers: as `stats.describe` gives them.
        imgsz: the input size that the sizes hold for; None if they are in original pixels.

    Returns:
        `imgsz`, `tile`, `p2`, `scale`, `constant`, `max_det` and `words`, a list of sentences; {"words": [...]} alone
        for a set without objects.
    """
    if not numbers["boxes"]:
        return {"words": ["no objects: nothing to advise"]}
    size, per_image = numbers["size"], numbers["per_image"]
    median, native = size["median"], int(max(numbers["image_size_hw"]["median"]))
    tiled = native > LARGEST_INPUT and imgsz is None
    side = imgsz or (TILE if tiled else math.ceil(native / IMGSZ_STEP) * IMGSZ_STEP)
    scale = max(1.0, round(2 * median / STRIDE_P2) / 2)
    constant = round(size["mean"], 1)
    room = max(MAX_DET_LEAST, math.ceil(per_image["q100"] * MAX_DET_ROOM / MAX_DET_STEP) * MAX_DET_STEP)

    object_of = f"the median object of {median:.1f} px"
    if imgsz is not None:
        image = f"imgsz={side}: as asked; {object_of} and a twentieth under {size['q5']:.1f} px are what it leaves"
    elif tiled:
        image = f"imgsz={side}: the scenes (median side {native} px) are then read in windows of it (tile=auto); shrunk"
        image += f" to {side} px instead, {object_of} would be {median * side / native:.1f} px"
    else:
        image = f"imgsz={side}: the images' own size; at half of it {object_of} would be {median / 2:.1f} px"
        if size["q25"] < FEW_PIXELS:
            larger = math.ceil(native * ENLARGE / IMGSZ_STEP) * IMGSZ_STEP
            image += f"; a quarter is under {size['q25']:.1f} px, so imgsz={larger} is worth a try"

    below = sum(numbers["shares"][name] for name in UNDER_TWO_CELLS)
    cells = f"{CELLS_NEEDED * STRIDE_P3} px, {CELLS_NEEDED} cells of P3 (stride {STRIDE_P3})"
    fact = f"{100 * below:.0f} % of the objects are under {cells}"
    p2 = f"keep P2 (stride {STRIDE_P2}): {fact}; the median object is {median / STRIDE_P3:.1f} cells wide there"
    if below < P2_SHARE:
        p2 = f"P2 is not needed: only {fact}; leaving it out saves most of the anchors"

    wanted, quantiles = ", ".join(f"{size[f'q{q}']:.0f}" for q in ANCHORS_AT), ", ".join(map(str, ANCHORS_AT))
    words = [
        image,
        p2,
        f"anchors: rpn.anchors.scales=[{scale:g}], so that the finest anchor is {scale * STRIDE_P2:g} px like the "
        f"median object ({median:.1f} px); the published scale is {PAPER_SCALE}, {PAPER_SCALE * STRIDE_P2} px; the "
        f"anchors of a YOLO should cover {wanted} px, the {quantiles} % quantiles of size",
        f"C: constant={constant:g}, the mean object size (AI-TOD's is {PAPER_CONSTANT}); it changes thresholds and "
        "losses, never which anchors are the top k",
        f"max_det={room}: the fullest image holds {per_image['q100']:.0f} objects, the mean {per_image['mean']:.1f}",
    ]
    chosen = {"imgsz": side, "tile": tiled, "p2": below >= P2_SHARE, "scale": scale}
    return chosen | {"constant": constant, "max_det": room, "words": words}
