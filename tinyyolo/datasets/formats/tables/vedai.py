"""VEDAI's txt to arrays, a file an image: `cx cy angle class contained occluded x1 x2 x3 x4 y1 y2 y3 y4` in pixels.

An oriented box becomes its bounding box. The files are called as the images without `_co` (colour) or `_ir` (infrared).
A few have no corners, only `cx cy class contained occluded`: such an object has no box, it is left out and listed.
Whether an object is not contained or occluded is kept in `.extra`.
Layout: Razakarivony and Jurie, Vehicle detection in aerial imagery (J. Vis. Commun. Image R. 34, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinyyolo.datasets.formats.text import Categories, TextFormat, around, numbers

LINE = "cx cy angle class contained occluded x1 x2 x3 x4 y1 y2 y3 y4"
SHORT = "cx cy class contained occluded"
MARKS = 3  # columns from the class on
CORNERS = 8
# The paper's nine classes, two with few objects, and two groups of them.
CATEGORIES = {
    1: "car",
    2: "truck",
    4: "tractor",
    5: "camping car",
    7: "motorcycle",
    8: "bus",
    9: "van",
    10: "other",
    11: "pickup",
    12: "small land vehicle",
    13: "large land vehicle",
    23: "boat",
    31: "plane",
}


def categories(names: list[str], ignore: tuple[str, ...]) -> Categories:
    """Of VEDAI's classes those that are not in `names` are ignore regions, as nobody said what they are."""
    own = [name for name in names if name not in ignore]
    return Categories(CATEGORIES, own, (*ignore, *(name for name in CATEGORIES.values() if name not in own)))


def parse(line: str, categories: Mapping[int, str]) -> tuple[float, ...]:
    """One line.

    Raises:
        KeyError: the class is none of VEDAI's.
        ValueError: another number of columns, or no numbers.

    Examples:
        >>> parse("413.2 811.2 -0.01 9 1 0 392 435 435 390 803 803 818 819", CATEGORIES)
        (9, 390.0, 803.0, 435.0, 819.0, 0, 0.0, 0.0)
        >>> parse("413.2 811.2 9 0 1", CATEGORIES)
        (9, nan, nan, nan, nan, 0, 1.0, 1.0)
    """
    words = line.split()
    if len(words) not in (len(LINE.split()), len(SHORT.split())):
        raise ValueError(f"expected `{LINE}`, found {len(words)} columns")
    values = numbers(words, LINE)
    whole = len(words) == len(LINE.split())
    box = around(values[-CORNERS:]) if whole else (math.nan,) * 4
    kind, contained, occluded = values[:-CORNERS][-MARKS:] if whole else values[-MARKS:]
    if kind not in categories:
        raise KeyError(words[3] if whole else words[2])
    return int(kind), *box, 0, 1 - contained, occluded


def stem(image: str) -> str:
    """The name of an image's label file, both without suffix.

    Examples:
        >>> stem("00000001_co"), stem("00000001")
        ('00000001', '00000001')
    """
    return image.removesuffix("_co").removesuffix("_ir")


EXTRA = ("truncation", "occlusion")
NAMES = tuple(CATEGORIES.values())
FORMAT = TextFormat("VEDAI", "Annotations1024", categories, parse, extra=EXTRA, names=NAMES, stem=stem).layout()
