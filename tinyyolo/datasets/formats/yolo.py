"""YOLO txt to arrays and back: lines `class cx cy w h` as fractions of the image's sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations, as_names
from tinyyolo.datasets.formats.text import TextFormat, numbers, read_folder, to_norm, write_folder

LINE = "class cx cy w h"
BOX_COLUMNS = 5
POLYGON_COLUMNS = 7  # a class and at least three points: a segmentation label, taken by its bounding box


def read(
    images_dir: str | Path,
    names: Sequence[str] | Mapping[int, str],
    ignore: Sequence[str] = (),
    *,
    labels_dir: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
) -> Annotations:
    """Read the labels of an image folder from its sibling `labels` folder (the last `images` of the path -> `labels`).

    Args:
        images_dir: folder with images, searched through. Sizes come from the images' headers.
        names: all classes, in the order of the ids in the files; an image without a label file has no objects.
        ignore: names among them that are ignore regions; the other classes move up and stay in order.
        labels_dir: the label folder, where it is not the sibling.
        file_names: only these images, relative to `images_dir`.
        strict: stop at a line that cannot be read; otherwise leave it out and list it.

    Returns:
        The annotations, with image ids 1..I and box ids 1..K; double lines stay.

    Raises:
        UserError: no such folder, no names, or (strict) an unreadable line or class id, with file and line.
    """
    if not names:
        raise UserError(f"{images_dir}: YOLO labels carry no class names; give `names:` in the data YAML")
    every = as_names(names)
    places = {"labels_dir": labels_dir, "file_names": file_names, "strict": strict}
    return read_folder(LAYOUT, images_dir, every, list(every.values()), ignore, **places)


def parse(line: str, categories: Mapping[int, str]) -> tuple[float, ...]:
    """One line, or a polygon `class x1 y1 x2 y2 x3 y3 ...` by its bounding box.

    Raises:
        KeyError: the class is not in `categories`.
        ValueError: another number of columns, or no numbers.

    Examples:
        >>> parse("1 0.5 0.5 0.1 0.2", {0: "ship", 1: "car"})
        (1.0, 0.5, 0.5, 0.1, 0.2, 0.0)
        >>> parse("0 0.25 0.25 0.75 0.25 0.75 0.5", {0: "ship"})[1:5]
        (0.5, 0.375, 0.5, 0.25)
    """
    words = line.split()
    if len(words) != BOX_COLUMNS and (len(words) < POLYGON_COLUMNS or len(words) % 2 == 0):
        raise ValueError(f"expected `{LINE}`, found {len(words)} columns")
    values = numbers(words, LINE)
    if values[0] not in categories:
        raise KeyError(words[0])
    if len(words) == BOX_COLUMNS:
        return (*values, 0.0)
    xs, ys = values[1::2], values[2::2]
    x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return values[0], (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0


def write(labels_dir: str | Path, annotations: Annotations, *, overwrite: bool = False) -> dict[str, int]:
    """Write one label file for every image (an empty one where it has no objects), digits enough to read them back.

    Returns:
        Counts by name: `boxes` written, `ignore_regions` left out because the format has none.

    Raises:
        UserError: a label file exists and `overwrite` is not set.
    """
    norm = to_norm(annotations.boxes, annotations.sizes_hw[annotations.image_index]).tolist()
    labels = annotations.labels.tolist()
    lines = [
        None if label == IGNORED else f"{label} {' '.join(f'{v:.12g}' for v in box)}"
        for label, box in zip(labels, norm, strict=True)
    ]
    write_folder(labels_dir, annotations, lines, overwrite=overwrite)
    left_out = labels.count(IGNORED)
    return {"boxes": len(labels) - left_out, "ignore_regions": left_out}


LAYOUT = TextFormat("YOLO", "labels", parse, normalised=True)
