"""The names of object sizes and their bounds, once. A size is sqrt(w h) in px (AI-TOD-v2's paper, section 3.2)."""

from __future__ import annotations

import math
from typing import NamedTuple


class Size(NamedTuple):
    """A named range of sizes, px: `key` as in AP_vt, `name` in words."""

    key: str
    name: str
    low: float
    high: float


NAMED = (
    Size("vt", "very tiny", 2, 8),
    Size("t", "tiny", 8, 16),
    Size("s", "small", 16, 32),
    Size("m", "medium", 32, 64),
    Size("l", "large", 64, math.inf),
)
BOUNDS = tuple(size.low for size in NAMED)  # px, where a name begins: 2, 8, 16, 32, 64
SMALLEST = BOUNDS[0]  # px; a narrower box is more often a slip of the mouse than an object
FARTHEST = 1e6  # px; no scene has a side this long
THINNEST = 1e-6  # px; a side below it is what rounding leaves of none
SHRINK = 1.5  # an image whose longer side is over so many times the network's loses what is tiny
SEEN = 4  # px, longer side of the smallest object that is still seen as one
MOST_PIXELS = 2**29  # of an image, as its file or its annotations say; DOTA's scenes have up to 400 million
ENGINE_STRIDE = 32  # px: images are filled up to its multiples, not to the largest stride's: 800 px stay 800 px
PAD = 114  # grey beyond an image where the network needs a multiple of its stride, as the engine pads; and of no pixel
LARGEST_SIDE = 1e5  # px, the upper bound of a side in COCO's evaluator
# What the evaluators call the ranges: least and greatest side, px, both inclusive. The first and last are open.
AITOD: dict[str, tuple[float, float]] = {
    "vt": (0, BOUNDS[1]),
    "t": (BOUNDS[1], BOUNDS[2]),
    "s": (BOUNDS[2], BOUNDS[3]),
    "m": (BOUNDS[3], LARGEST_SIDE),
}
COCO: dict[str, tuple[float, float]] = {"s": (0, 32), "m": (32, 96), "l": (96, LARGEST_SIDE)}


def filled_up(side: int) -> int:
    """The least multiple of ENGINE_STRIDE, px, that holds a side.

    Examples:
        >>> filled_up(800), filled_up(801)
        (800, 832)
    """
    return -(-side // ENGINE_STRIDE) * ENGINE_STRIDE
