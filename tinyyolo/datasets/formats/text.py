"""What the formats with one text file an image have in common: YOLO, VisDrone and DOTA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets import images as image_files
from tinyyolo.datasets.annotations import (
    Annotations,
    Problem,
    assemble,
    box_faults,
    raise_fatal,
    select_classes,
)
from tinyyolo.io import new_file

BOX = slice(1, 5)
CROWD = 5


class TextFormat(NamedTuple):
    """One format.

    Attributes:
        name: for messages and the command.
        folder: the label folder beside the image folder `images`.
        parse: (line, {category id: name}) -> (category, x1, y1, x2, y2, crowd, *extra), or None for a header. Raises
            KeyError for a class that is not in names, ValueError for a line it cannot read.
        extra: names of the further numbers that `parse` gives.
        normalised: boxes are cx cy w h as fractions of the image's sides instead of pixel corners.
    """

    name: str
    folder: str
    parse: Callable[[str, Mapping[int, str]], tuple[float, ...] | None]
    extra: tuple[str, ...] = ()
    normalised: bool = False


def read_folder(
    layout: TextFormat,
    images_dir: str | Path,
    categories: Mapping[int, str],
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    labels_dir: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
) -> Annotations:
    """Read the images of a folder (sizes from their headers) and their label files; an image without one is empty.

    Args:
        layout: the format.
        images_dir: searched through for images.
        categories: every category id that the files may hold, and its name.
        names: wanted classes in order; None takes all categories but the ignored ones.
        ignore: names of categories that are ignore regions.
        labels_dir: where the label files are, if not beside the images.
        file_names: only these images, relative to `images_dir`.
        strict: stop at the first line that cannot be read; otherwise leave it out and list it.

    Returns:
        The annotations, with image ids 1..I and box ids 1..K.

    Raises:
        UserError: no such folder, or (strict) a bad line or unknown class, with file and line.
    """
    images_dir = Path(images_dir)
    found = image_files.list_images(images_dir) if file_names is None else list(file_names)
    inner = labels_dir is None and all("images" in Path(name).parts for name in found) and bool(found)
    labels_dir = sibling(images_dir, layout.folder) if labels_dir is None else Path(labels_dir)
    labels_dir = images_dir if inner else labels_dir
    if not labels_dir.is_dir():
        raise UserError(f"{labels_dir}: no such {layout.name} label folder for the images in {images_dir}")
    problems: list[Problem] = []
    kept, size_hw = readable(images_dir, found, problems)
    stems = [sibling(Path(name).parent, layout.folder) / Path(name).name if inner else name for name in kept]
    label_files = [labels_dir / Path(stem).with_suffix(".txt") for stem in stems]
    parts = [read_labels(layout, path, categories, problems) for path in label_files]
    table = np.concatenate([np.zeros((0, CROWD + 1 + len(layout.extra))), *parts])
    image_index = np.repeat(np.arange(len(kept)), [len(part) for part in parts]).astype(np.int64)
    boxes = to_xyxy(table[:, BOX], size_hw[image_index]) if layout.normalised else table[:, BOX]
    kinds = np.array(box_faults(boxes), dtype=object)
    for i in np.flatnonzero(kinds != ""):
        what = f"{kinds[i]}: {' '.join(f'{v:g}' for v in table[i, BOX])}"
        problems.append(Problem(kinds[i], str(label_files[image_index[i]]), what))
    if strict:
        raise_fatal(problems)
    classes = select_classes(categories, names, ignore, labels_dir)
    good = (kinds == "") & np.isin(table[:, 0], list(classes.label_of))
    table = table[good]
    return assemble(
        labels_dir,
        classes,
        kept,
        size_hw,
        image_index[good],
        boxes[good],
        table[:, 0].astype(np.int64),
        problems,
        crowd=table[:, CROWD] > 0,
        extra={name: table[:, CROWD + 1 + i] for i, name in enumerate(layout.extra)},
    )


def sibling(images_dir: str | Path, folder: str) -> Path:
    """The label folder of an image folder: the last part `images` of the path becomes `folder`, else beside it.

    Examples:
        >>> sibling("set/images/train", "labels").as_posix(), sibling("set/train", "labels").as_posix()
        ('set/labels/train', 'set/labels')
    """
    parts = list(Path(images_dir).parts)
    if "images" not in parts:
        return Path(images_dir).parent / folder
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], folder, *parts[last + 1 :])


def readable(folder: Path, names: Sequence[str], problems: list[Problem]) -> tuple[list[str], np.ndarray]:
    """The images whose header can be read, and their sizes (I, 2); the others become problems."""
    kept, sizes = [], []
    for name, size in zip(names, image_files.sizes_hw(folder, names), strict=True):
        if isinstance(size, str):
            problems.append(Problem("unreadable image", str(folder / name), size))
        else:
            kept.append(name)
            sizes.append(size)
    for stem, times in Counter(Path(name).with_suffix("") for name in kept).items():
        if times > 1:
            what = f"{times} images of this name with other endings share one label file"
            problems.append(Problem("shared label", str(folder / stem), what))
    return kept, np.array(sizes, np.int64).reshape(-1, 2)


def read_labels(layout: TextFormat, path: Path, categories: Mapping[int, str], problems: list[Problem]) -> np.ndarray:
    """The objects of one label file, (M, 6 + extra); none where there is no file."""
    width = CROWD + 1 + len(layout.extra)
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("bad record", str(path), f"not readable as text: {error}"))
        lines = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = layout.parse(line, categories)
        except KeyError as error:
            choices = ", ".join(f"{key} {name}" for key, name in categories.items())
            what = f"class {error.args[0]} is not in names; there are: {choices}"
            problems.append(Problem("unknown class", f"{path}:{number}", what))
        except ValueError as error:
            problems.append(Problem("bad record", f"{path}:{number}", str(error)))
        else:
            rows += [row] if row is not None else []
    return np.array(rows, np.float64).reshape(-1, width)


def numbers(words: Sequence[str], expected: str) -> list[float]:
    """Words as numbers.

    Raises:
        ValueError: one is none; says what the line should be.
    """
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"expected numbers `{expected}`: {error}") from error


def to_xyxy(cxcywh_norm: np.ndarray, sizes_hw: np.ndarray) -> np.ndarray:
    """Fractions (K, 4) cxcywh to pixels (K, 4) xyxy, for images of sizes (K, 2)."""
    scale = sizes_hw[:, ::-1].astype(np.float64)
    centre, side = cxcywh_norm[:, :2] * scale, cxcywh_norm[:, 2:] * scale
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def to_norm(boxes: np.ndarray, sizes_hw: np.ndarray) -> np.ndarray:
    """Pixels (K, 4) xyxy to fractions (K, 4) cxcywh, for images of sizes (K, 2).

    Examples:
        >>> to_norm(np.array([[0.0, 10, 20, 20]]), np.array([[100, 200]])).tolist()
        [[0.05, 0.15, 0.1, 0.1]]
    """
    scale = sizes_hw[:, ::-1].astype(np.float64)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2 / scale, (boxes[:, 2:] - boxes[:, :2]) / scale], axis=1)


def write_folder(
    labels_dir: str | Path, annotations: Annotations, lines: Sequence[str | None], *, overwrite: bool = False
) -> None:
    """Write one label file for every image, an empty one where it has no objects.

    Args:
        labels_dir: folder to write to; files lie in it as the images in theirs.
        annotations: whose images and boxes.
        lines: K lines, None for a box that the format cannot hold.
        overwrite: replace files that are there.

    Raises:
        UserError: a file exists and `overwrite` is not set, or two images would share one.
    """
    targets = [Path(labels_dir) / Path(name).with_suffix(".txt") for name in annotations.file_names]
    if len(set(targets)) < len(targets):
        twice = next(path for path, times in Counter(targets).items() if times > 1)
        raise UserError(f"{twice}: two images of this name with other endings would share one label file")
    offsets = annotations.offsets
    for target, first, last in zip(targets, offsets[:-1], offsets[1:], strict=True):
        with new_file(target, overwrite=overwrite) as stream:
            stream.writelines(f"{line}\n" for line in lines[first:last] if line is not None)
