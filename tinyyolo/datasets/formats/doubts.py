"""What the numbers of a whole set say that those of one box cannot: that they are of another kind than the format's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinyyolo.datasets.annotations import Problem

SLACK = 1e-3  # of a fraction, over 1 by rounding
PIXELS_FROM = 2.0  # a number above this is no fraction that rounding or an edge could explain
LEAST_BOXES = 10  # of a set whose boxes may be doubted as a whole
NEARLY_ALL = 0.9
NOT_LABELS = frozenset({"classes.txt", "notes.txt", "labels.txt", "predefined_classes.txt", "obj.names", "readme.txt"})
# Of labels of a map: what is taken in which way, and what is no fault of theirs.
ON_MAP = frozenset({"coordinates", "class field", "scores", "edges", "elsewhere", "GDAL"})
# Kinds of problems that leave no box out.
REMARKS = ON_MAP | {"not fractions", "not pixels", "corners", "outlines", "label without image", "wrong sizes"}
REMARKS |= {"nowhere"}  # objects of a map, none of which lies in an image


def not_fractions(numbers: np.ndarray, where: Path) -> list[Problem]:
    """Boxes (K, 4) that should be fractions of the image's sides, with numbers over 1.

    Examples:
        >>> not_fractions(np.array([[64.0, 20, 8, 8], [0.5, 0.5, 0.1, 0.1]]), Path("labels"))[0]
        'labels: 1 of 2 boxes have numbers over 1, such as 64 20 8 8: they look like pixels, not like fractions of the \
image (normalised, 0 to 1)'
    """
    with np.errstate(invalid="ignore"):
        over = np.asarray((numbers > 1 + SLACK).any(axis=1))
    if not over.any():
        return []
    first = " ".join(f"{value:g}" for value in numbers[over][0])
    kind = "they look like pixels, not like" if numbers[over].max() > PIXELS_FROM else "the numbers should be"
    what = f"{over.sum():,} of {len(over):,} boxes have numbers over 1, such as {first}: {kind} fractions of the image"
    return [Problem("not fractions", str(where), f"{what} (normalised, 0 to 1)")]


def not_pixels(numbers: np.ndarray, where: Path) -> list[Problem]:
    """Boxes (K, 4) that should be pixels, nearly all of them within 0 to 1.

    Examples:
        >>> not_pixels(np.array([[0.5, 0.2, 0.1, 0.1]] * 20), Path("a.json"))[0]
        'a.json: 20 of 20 boxes have no number over 1: they look like fractions of the image, not like pixels'
    """
    with np.errstate(invalid="ignore"):
        small = np.asarray(((numbers >= 0) & (numbers <= 1)).all(axis=1))
    if len(numbers) < LEAST_BOXES or small.mean() < NEARLY_ALL:
        return []
    what = f"{small.sum():,} of {len(small):,} boxes have no number over 1: they look like fractions of the image, not "
    return [Problem("not pixels", str(where), f"{what}like pixels")]


def corners(numbers: np.ndarray, where: Path, expected: str) -> list[Problem]:
    """Boxes (K, 4) of a place and two sides, nearly all of whose sides are larger than the place is far from the edge.

    Examples:
        >>> corners(np.array([[10, 10, 14, 14]] * 20), Path("a.json"), "x, y, width, height")[0]
        'a.json: 20 of 20 boxes look like corners x1, y1, x2, y2, not like x, y, width, height'
    """
    with np.errstate(invalid="ignore"):
        larger = np.asarray(((numbers[:, 2:] > numbers[:, :2]) & (numbers[:, :2] > 0)).all(axis=1))
    if len(numbers) < LEAST_BOXES or larger.mean() < NEARLY_ALL:
        return []
    what = f"{larger.sum():,} of {len(larger):,} boxes look like corners x1, y1, x2, y2, not like {expected}"
    return [Problem("corners", str(where), what)]


def outlines(count: int, where: Path) -> list[Problem]:
    """Objects that were outlines."""
    what = f"{count:,} objects are outlines (polygons), taken by their bounding boxes"
    return [Problem("outlines", str(where), what)] if count else []


def from_one(unknown: Sequence[Problem], ids: np.ndarray, categories: Mapping[int, str], where: Path) -> list[Problem]:
    """That the class ids count from 1, where they should from 0: the last of them is unknown, and 0 does not occur."""
    last = f"class {len(categories)} is not in names"
    if 0 not in categories or not unknown or (ids == 0).any() or not all(last in problem for problem in unknown):
        return []
    what = f"the classes seem to be numbered from 1 to {len(categories)}, as there is no 0; they count from 0"
    return [Problem("unknown class", str(where), what)]


def without_image(wanted: Sequence[Path], folder: Path, names: Sequence[str], *, every: bool) -> list[Problem]:
    """Label files that belong to no image, while images have none; or that no image has one.

    Args:
        wanted: the label file of each image.
        folder: the label folder.
        names: the images.
        every: whether these are all images of the folder, not those of a list.
    """
    folders = {path.parent for path in wanted} if folder not in {path.parent for path in wanted} else {folder}
    endings = {path.suffix for path in wanted}
    there = {path for one in folders if one.is_dir() for path in one.rglob("*") if path.suffix.lower() in endings}
    absent = [name for name, path in zip(names, wanted, strict=True) if path not in there]
    if not absent or (len(absent) < len(wanted) and not every):
        return []
    strangers = sorted(path for path in there - {*wanted} if path.name.lower() not in NOT_LABELS)
    if not strangers and len(absent) < len(wanted):
        return []
    what = f"{len(absent):,} of {len(wanted):,} images have no label file (that of {absent[0]} would be "
    what += f"{wanted[names.index(absent[0])].name})"
    if strangers:
        what += f", and {len(strangers):,} label files belong to no image, such as {strangers[0].name}"
    return [Problem("label without image", str(folder), what)]
