"""VisDrone-DET txt to arrays and back: lines `x,y,w,h,score,category,truncation,occlusion` in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.formats.text import TextFormat, numbers, read_folder, write_folder

LINE = "x,y,w,h,score,category,truncation,occlusion"
COLUMNS = 8
REGION, OTHERS = "ignored regions", "others"
NAMES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
IGNORE = (REGION, OTHERS)
CATEGORIES = dict(enumerate((REGION, *NAMES, OTHERS)))


def read(
    images_dir: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = IGNORE,
    *,
    labels_dir: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
) -> Annotations:
    """Read VisDrone-DET annotations from the folder `annotations` beside `images`.

    Categories 0 (ignored regions) and 11 (others) and every box with score 0 are ignore regions, as in the official
    evaluation; truncation and occlusion are kept in `.extra`. Arguments and errors as `yolo_txt.read`; `names` may
    be other ten names, or fewer of the official ones.
    """
    own = [*names.values()] if isinstance(names, Mapping) else list(names or NAMES)
    known = set(own) <= set(NAMES)
    categories = CATEGORIES if known else dict(enumerate((REGION, *own, OTHERS)))
    if known and len(own) < len(NAMES):
        ignore = (*ignore, *(name for name in NAMES if name not in own))
    places = {"labels_dir": labels_dir, "file_names": file_names, "strict": strict}
    return read_folder(LAYOUT, images_dir, categories, own, (*ignore, *IGNORE), **places)


def parse(line: str, categories: Mapping[int, str]) -> tuple[float, ...]:
    """One line, with or without the comma at its end that some files have.

    Raises:
        KeyError: the category is not in `categories`.
        ValueError: another number of columns, or no numbers.

    Examples:
        >>> parse("684,8,273,116,0,0,0,0", CATEGORIES)
        (0.0, 684.0, 8.0, 957.0, 124.0, True, 0.0, 0.0)
        >>> parse("10,20,4,8,1,4,0,1,", CATEGORIES)
        (4.0, 10.0, 20.0, 14.0, 28.0, False, 0.0, 1.0)
    """
    words = line.strip().rstrip(",").split(",")
    if len(words) != COLUMNS:
        raise ValueError(f"expected `{LINE}`, found {len(words)} columns")
    x, y, w, h, score, category, truncation, occlusion = numbers(words, LINE)
    if category not in categories:
        raise KeyError(words[5])
    return category, x, y, x + w, y + h, score == 0, truncation, occlusion


def write(labels_dir: str | Path, annotations: Annotations, *, overwrite: bool = False) -> dict[str, int]:
    """Write one file for every image: classes are 1..C, ignore regions 0, those named "others" C + 1, with score 0.

    Returns:
        Counts by name: `boxes` and `ignore_regions` written.

    Raises:
        UserError: a file exists and `overwrite` is not set.
    """
    category_of = {name: i + 1 for i, name in annotations.names.items()}
    category_of |= {OTHERS: len(annotations.names) + 1}
    zeros = [0] * len(annotations.labels)
    extra = [annotations.extra[key].tolist() if key in annotations.extra else zeros for key in LAYOUT.extra]
    rows = zip(
        annotations.boxes.tolist(),
        annotations.labels.tolist(),
        annotations.box_categories.tolist(),
        *extra,
        strict=True,
    )
    lines = []
    for (x1, y1, x2, y2), label, own, truncation, occlusion in rows:
        category = category_of.get(annotations.categories.get(own, ""), 0)
        numbers_of = ",".join(f"{v:.10g}" for v in (x1, y1, x2 - x1, y2 - y1))
        lines.append(f"{numbers_of},{int(label != IGNORED)},{category},{truncation},{occlusion}")
    write_folder(labels_dir, annotations, lines, overwrite=overwrite)
    ignored = int((annotations.labels == IGNORED).sum())
    return {"boxes": len(lines) - ignored, "ignore_regions": ignored}


LAYOUT = TextFormat("VisDrone", "annotations", parse, extra=("truncation", "occlusion"))
