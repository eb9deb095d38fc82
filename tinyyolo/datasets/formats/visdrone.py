"""VisDrone-DET txt to arrays and back: lines `x,y,w,h,score,category,truncation,occlusion` in pixels."""

from __future__ import annotations

from collections.abc import Mapping

from tinyyolo.boxes.convert import convert
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.formats.text import Categories, TextFormat, numbers

LINE = "x,y,w,h,score,category,truncation,occlusion"
COLUMNS = 8
REGION, OTHERS = "ignored regions", "others"
NAMES = ("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor")
IGNORE = (REGION, OTHERS)
EXTRA = ("truncation", "occlusion")
CATEGORIES = dict(enumerate((REGION, *NAMES, OTHERS)))


def categories(names: list[str], ignore: tuple[str, ...]) -> Categories:
    """0 (ignored regions) and C + 1 (others) are ignore regions, as in the official evaluation.

    `names` may be some of the official ten (the rest are ignore regions then), or others.
    """
    names = [name for name in names if name not in (*ignore, *IGNORE)]
    known = set(names) <= set(NAMES)
    if known:
        ignore = (*ignore, *(name for name in NAMES if name not in names))
    return Categories(CATEGORIES if known else dict(enumerate((REGION, *names, OTHERS))), names, (*ignore, *IGNORE))


def parse(line: str, categories: Mapping[int, str]) -> tuple[float, ...]:
    """One line, with or without the comma at its end that some files have; score 0 marks an ignore region.

    Raises:
        KeyError: the category is not in `categories`.
        ValueError: another number of columns, or no numbers.

    Examples:
        >>> parse("684,8,273,116,0,0,0,0", CATEGORIES)
        (0.0, 684.0, 8.0, 273.0, 116.0, True, 0.0, 0.0)
        >>> parse("10,20,4,8,1,4,0,1,", CATEGORIES)
        (4.0, 10.0, 20.0, 4.0, 8.0, False, 0.0, 1.0)
    """
    words = line.strip().rstrip(",").split(",")
    if len(words) != COLUMNS:
        raise ValueError(f"expected `{LINE}`, found {len(words)} columns")
    x, y, w, h, score, category, truncation, occlusion = numbers(words, LINE)
    if category not in categories:
        raise KeyError(words[5])
    return category, x, y, w, h, score == 0, truncation, occlusion


def lines(annotations: Annotations) -> list[str | None]:
    """One line a box: classes are 1..C, ignore regions 0, those named "others" C + 1, with score 0."""
    category_of = {name: i + 1 for i, name in annotations.names.items()}
    category_of |= {OTHERS: len(annotations.names) + 1}
    zeros = [0] * len(annotations.labels)
    extra = [annotations.extra[key].tolist() if key in annotations.extra else zeros for key in EXTRA]
    boxes = convert(annotations.boxes, "xyxy", "xywh").tolist()
    columns = zip(boxes, annotations.labels.tolist(), annotations.box_categories.tolist(), *extra, strict=True)
    out: list[str | None] = []
    for box, label, own, truncation, occlusion in columns:
        category = category_of.get(annotations.categories.get(own, ""), 0)
        xywh = ",".join(f"{v:.10g}" for v in box)
        out.append(f"{xywh},{int(label != IGNORED)},{category},{truncation},{occlusion}")
    return out


TEXT = TextFormat("VisDrone", "annotations", categories, parse, lines, form="xywh", extra=EXTRA, names=NAMES)
FORMAT = TEXT.layout(regions=IGNORE)
