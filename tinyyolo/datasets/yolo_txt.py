"""YOLO txt to arrays and back: one text file an image, lines `class cx cy w h` as fractions of the image's sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets import images as image_files
from tinyyolo.datasets.annotations import (
    IGNORED,
    Annotations,
    Problem,
    as_names,
    box_faults,
    freeze,
    raise_fatal,
)
from tinyyolo.datasets.files import new_file

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
        UserError: no such folder, no names, or (strict) an unreadable line, class id or image, with file and line.
    """
    images_dir = Path(images_dir)
    if not names:
        raise UserError(f"{images_dir}: YOLO labels carry no class names; give `names:` in the data YAML")
    every = as_names(names)
    found = image_files.list_images(images_dir) if file_names is None else list(file_names)
    labels_dir = sibling_labels(images_dir) if labels_dir is None else Path(labels_dir)
    if not labels_dir.is_dir():
        raise UserError(
            f"{labels_dir}: no such label folder for the images in {images_dir}; make it, or give `annotations:`"
        )
    problems: list[Problem] = []
    kept, sizes = readable(images_dir, found, problems)
    parts = [read_labels(labels_dir / Path(name).with_suffix(".txt"), every, problems) for name in kept]
    counts = [len(part) for part in parts]
    table = np.concatenate([np.zeros((0, BOX_COLUMNS)), *parts])
    image_index = np.repeat(np.arange(len(kept)), counts)
    size_hw = np.array(sizes, np.int64).reshape(-1, 2)
    boxes = to_xyxy(table[:, 1:], size_hw[image_index])
    kinds = np.array(box_faults(boxes), dtype=object)
    for i in np.flatnonzero(kinds != ""):
        where = str(labels_dir / Path(kept[image_index[i]]).with_suffix(".txt"))
        problems.append(Problem(kinds[i], where, f"{kinds[i]}: {' '.join(f'{v:g}' for v in table[i])}"))
    if strict:
        raise_fatal(problems)
    good = kinds == ""
    classes = {i: name for i, name in enumerate(name for name in every.values() if name not in set(ignore))}
    index = {name: i for i, name in classes.items()}
    label_of = np.array([index.get(name, IGNORED) for name in every.values()], np.int64)
    own = table[good, 0].astype(np.int64)
    return freeze(
        Annotations(
            path=labels_dir,
            file_names=kept,
            sizes_hw=size_hw,
            image_ids=np.arange(1, len(kept) + 1),
            names=classes,
            category_ids=np.array([key for key, name in every.items() if name in index], np.int64),
            image_index=image_index[good].astype(np.int64),
            boxes=boxes[good],
            labels=label_of[own],
            areas=(boxes[good, 2:] - boxes[good, :2]).prod(axis=1),
            ids=np.arange(1, int(good.sum()) + 1),
            problems=problems,
            categories=every,
            box_categories=own,
            crowd=np.zeros(len(own), bool),
        )
    )


def sibling_labels(images_dir: str | Path) -> Path:
    """The folder of the labels: the last part `images` of the path becomes `labels`, else `labels` beside the folder.

    Examples:
        >>> sibling_labels("set/images/train").as_posix(), sibling_labels("set/train").as_posix()
        ('set/labels/train', 'set/labels')
    """
    parts = list(Path(images_dir).parts)
    if "images" not in parts:
        return Path(images_dir).parent / "labels"
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def readable(folder: Path, names: Sequence[str], problems: list[Problem]) -> tuple[list[str], list[tuple[int, int]]]:
    """The images whose header can be read and their sizes; the others become problems."""
    kept, sizes = [], []
    for name, size in zip(names, image_files.sizes_hw(folder, names), strict=True):
        if isinstance(size, str):
            problems.append(Problem("unreadable image", str(folder / name), size))
        else:
            kept.append(name)
            sizes.append(size)
    return kept, sizes


def read_labels(path: Path, names: Mapping[int, str], problems: list[Problem]) -> np.ndarray:
    """The lines of one label file as (M, 5) `class cx cy w h`; none where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return np.zeros((0, BOX_COLUMNS))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("bad record", str(path), f"not readable as text: {error}"))
        return np.zeros((0, BOX_COLUMNS))
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            rows.append(parse_line(words, names))
        except KeyError as error:
            choices = ", ".join(f"{key} {name}" for key, name in names.items())
            problems.append(
                Problem(
                    "unknown class",
                    f"{path}:{number}",
                    f"class id {error.args[0]} is not in names; there are: {choices}",
                )
            )
        except ValueError as error:
            problems.append(Problem("bad record", f"{path}:{number}", str(error)))
    return np.array(rows, np.float64).reshape(-1, BOX_COLUMNS)


def parse_line(words: Sequence[str], names: Mapping[int, str]) -> tuple[float, ...]:
    """`class cx cy w h`, or a polygon `class x1 y1 x2 y2 x3 y3 ...` by its bounding box.

    Raises:
        KeyError: the class is not in names.
        ValueError: another number of columns, or no numbers.
    """
    if len(words) != BOX_COLUMNS and (len(words) < POLYGON_COLUMNS or len(words) % 2 == 0):
        raise ValueError(f"expected `class cx cy w h`, found {len(words)} columns")
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"expected numbers `class cx cy w h`: {error}") from error
    if values[0] not in names:
        raise KeyError(words[0])
    if len(words) == BOX_COLUMNS:
        return tuple(values)
    xs, ys = values[1::2], values[2::2]
    return values[0], (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)


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


def write(labels_dir: str | Path, annotations: Annotations, *, overwrite: bool = False) -> dict[str, int]:
    """Write one label file for every image (an empty one where it has no objects), digits enough to read them back.

    Returns:
        counts by name: `boxes` written, `ignore_regions` left out because the format has none.

    Raises:
        UserError: a label file exists and `overwrite` is not set.
    """
    labels_dir, kept = Path(labels_dir), annotations.labels != IGNORED
    norm = to_norm(annotations.boxes, annotations.sizes_hw[annotations.image_index])
    offsets = annotations.offsets
    for i, name in enumerate(annotations.file_names):
        rows = np.arange(offsets[i], offsets[i + 1])
        with new_file(labels_dir / Path(name).with_suffix(".txt"), overwrite=overwrite) as stream:
            for k in rows[kept[rows]]:
                stream.write(f"{annotations.labels[k]} {' '.join(f'{v:.12g}' for v in norm[k])}\n")
    return {"boxes": int(kept.sum()), "ignore_regions": int((~kept).sum())}
