"""DOTA txt to arrays and back: lines `x1 y1 x2 y2 x3 y3 x4 y4 class difficult` in pixels, after up to two headers.

An oriented box becomes its bounding box. Objects marked difficult stay objects, their mark is kept in `.extra`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.formats.text import Categories, TextFormat, around, numbers

LINE = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"
CORNERS = 8
HEADERS = ("imagesource:", "gsd:")


def categories(names: list[str], ignore: tuple[str, ...]) -> Categories:
    """The files name their classes; ids are given from 1, the classes first."""
    own = [name for name in names if name not in ignore]
    return Categories(dict(enumerate(dict.fromkeys((*own, *ignore)), 1)), own, ignore)


def parse(line: str, categories: Mapping[int, str]) -> tuple[float, ...] | None:
    """One line; None for a header.

    Raises:
        KeyError: the class is not in `categories`.
        ValueError: another number of columns, or corners that are no numbers.

    Examples:
        >>> parse("10 5 15 10 10 15 5 10 ship 1", {1: "ship"})
        (1, 5.0, 5.0, 15.0, 15.0, 0, 1.0)
        >>> parse("gsd:0.146", {})
    """
    words = line.replace(",", " ").split()
    if words and words[0].lower().startswith(HEADERS):
        return None
    if len(words) not in (CORNERS + 1, CORNERS + 2):
        raise ValueError(f"expected `{LINE}`, found {len(words)} columns")
    corners = numbers(words[:CORNERS], LINE)
    difficult = numbers(words[CORNERS + 1 :] or ["0"], LINE)[0]
    key = next((key for key, name in categories.items() if name == words[CORNERS]), None)
    if key is None:
        raise KeyError(words[CORNERS])
    return key, *around(corners[0::2] + corners[1::2]), 0, difficult


def lines(annotations: Annotations) -> list[str | None]:
    """One line a box, an upright quadrangle, clockwise from the top left; None for ignore regions, which it has not.

    Raises:
        UserError: a class name has a blank in it.
    """
    blank = [name for name in annotations.names.values() if " " in name]
    if blank:
        raise UserError(f"class {blank[0]!r}: DOTA txt parts its columns by blanks; rename the class without one")
    difficult = annotations.extra.get("difficult", [0] * len(annotations.labels))
    out: list[str | None] = []
    for box, label, mark in zip(annotations.boxes.tolist(), annotations.labels.tolist(), difficult, strict=True):
        x1, y1, x2, y2 = (f"{v:.10g}" for v in box)
        corners = f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}"
        out.append(None if label == IGNORED else f"{corners} {annotations.names[label]} {mark}")
    return out


TEXT = TextFormat("DOTA", "labelTxt", categories, parse, lines, extra=("difficult",))
FORMAT = TEXT.layout()
