"""The names and bounds of sizes, as AI-TOD-v2's paper (section 3.2) and COCO's evaluator have them."""

import math

from tinyyolo.sizes import AITOD, BOUNDS, COCO, LARGEST_SIDE, NAMED, SMALLEST


def test_names_and_bounds():
    assert [(size.key, size.low, size.high) for size in NAMED] == [
        ("vt", 2, 8),
        ("t", 8, 16),
        ("s", 16, 32),
        ("m", 32, 64),
        ("l", 64, math.inf),
    ]
    assert BOUNDS == (2, 8, 16, 32, 64) and SMALLEST == 2


def test_ranges_of_the_evaluators():
    assert LARGEST_SIDE == 100000
    assert AITOD == {"vt": (0, 8), "t": (8, 16), "s": (16, 32), "m": (32, 100000)}
    assert COCO == {"s": (0, 32), "m": (32, 96), "l": (96, 100000)}
