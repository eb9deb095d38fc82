"""DOTA txt to arrays and back: lines `x1 y1 x2 y2 x3 y3 x4 y4 class difficult` in pixels, after up to two headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations, as_names
from tinyyolo.datasets.formats.text import TextFormat, numbers, read_folder, write_folder

LINE = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"
CORNERS = 8
HEADERS = ("imagesource:", "gsd:")


def read(
    images_dir: str | Path,
    names: Sequence[str] | Mapping[int, str],
    ignore: Sequence[str] = (),
    *,
    labels_dir: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
) -> Annotations:
    """Read DOTA annotations from the folder `labelTxt` beside `images`; an oriented box becomes its bounding box.

    Objects marked difficult stay objects, their mark is kept in `.extra["difficult"]`. Arguments and errors as
    `yolo_txt.read`; the files name their classes, so the order is that of `names`.
    """
    if not names:
        raise UserError(f"{images_dir}: DOTA labels carry no class order; give `names:` in the data YAML")
    own = list(as_names(names).values())
    categories = dict(enumerate(dict.fromkeys((*own, *ignore)), 1))
    places = {"labels_dir": labels_dir, "file_names": file_names, "strict": strict}
    return read_folder(LAYOUT, images_dir, categories, own, ignore, **places)


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
    if words[0].lower().startswith(HEADERS):
        return None
    if len(words) not in (CORNERS + 1, CORNERS + 2):
        raise ValueError(f"expected `{LINE}`, found {len(words)} columns")
    corners = numbers(words[:CORNERS], LINE)
    difficult = numbers(words[CORNERS + 1 :] or ["0"], LINE)[0]
    key = next((key for key, name in categories.items() if name == words[CORNERS]), None)
    if key is None:
        raise KeyError(words[CORNERS])
    xs, ys = corners[0::2], corners[1::2]
    return key, min(xs), min(ys), max(xs), max(ys), 0, difficult


def write(labels_dir: str | Path, annotations: Annotations, *, overwrite: bool = False) -> dict[str, int]:
    """Write one file for every image, boxes as upright quadrangles, clockwise from the top left.

    Returns:
        Counts by name: `boxes` written, `ignore_regions` left out because the format has none.

    Raises:
        UserError: a file exists and `overwrite` is not set, or a class name has a blank in it.
    """
    blank = [name for name in annotations.names.values() if " " in name]
    if blank:
        raise UserError(f"class {blank[0]!r}: DOTA txt parts its columns by blanks; rename the class without one")
    difficult = annotations.extra.get("difficult", [0] * len(annotations.labels))
    lines = []
    for box, label, mark in zip(annotations.boxes.tolist(), annotations.labels.tolist(), difficult, strict=True):
        x1, y1, x2, y2 = (f"{v:.10g}" for v in box)
        corners = f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}"
        lines.append(None if label == IGNORED else f"{corners} {annotations.names[label]} {mark}")
    write_folder(labels_dir, annotations, lines, overwrite=overwrite)
    return {"boxes": len(lines) - lines.count(None), "ignore_regions": lines.count(None)}


LAYOUT = TextFormat("DOTA", "labelTxt", parse, extra=("difficult",))
