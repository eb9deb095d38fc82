"""The numbers of the paper's Table 1, Table 2 and Fig. 5 for any data set. The command is in `analysis/stats.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.convert import areas, sides
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.stats.advice import advise
from tinyyolo.sizes import NAMED

QUARTILES = (0, 5, 25, 50, 75, 95, 100)


class Objects(NamedTuple):
    """The objects of some splits, one after another.

    Attributes:
        labels: (K,) class indices.
        sizes: (K,) sqrt(w * h) in px, the paper's absolute object size.
        relative: (K,) sqrt(w * h / (W * H)), the paper's relative object size.
        aspects: (K,) height / width.
        per_image: (I,) objects of every image.
        extents: (I, 2) height and width of every image, px.
        with_regions: (K + J,) sizes of objects and ignore regions.
    """

    labels: np.ndarray
    sizes: np.ndarray
    relative: np.ndarray
    aspects: np.ndarray
    per_image: np.ndarray
    extents: np.ndarray
    with_regions: np.ndarray


def objects_of(parts: Sequence[Annotations], imgsz: float | None = None) -> Objects:
    """The objects of annotations with the same classes.

    Args:
        parts: at least one.
        imgsz: sizes as after resizing the longer side to this; None leaves original pixels.
    """
    columns = []
    for part in parts:
        own = part.labels != IGNORED
        owner, sizes_hw, sizes = part.image_index[own], part.sizes_hw, absolute_sizes(part)
        scale = imgsz / sizes_hw.max(axis=1, initial=1) if imgsz else np.ones(len(part))
        scaled, relative = sizes * scale[part.image_index], sizes[own] / np.sqrt(sizes_hw.prod(axis=1)[owner])
        width, height = sides(part.boxes[own]).T
        per_image, extents = np.bincount(owner, minlength=len(part)), sizes_hw * scale[:, None]
        columns.append((part.labels[own], scaled[own], relative, height / width, per_image, extents, scaled))
    return Objects(*map(np.concatenate, zip(*columns, strict=True)))


def absolute_sizes(annotations: Annotations) -> np.ndarray:
    """(K,) sqrt(w * h) of all boxes, px."""
    return np.asarray(np.sqrt(areas(annotations.boxes)))


def collect(splits: Mapping[str, Annotations], *, imgsz: float | None = None) -> dict[str, Any]:
    """Every number of the report as plain values.

    Args:
        splits: split -> its annotations.
        imgsz: see `objects_of`.

    Returns:
        `splits` (split -> `describe`), `all` (the union, splits that are one file counted once), `imgsz`, `advice`.
    """
    together = describe(distinct(splits), imgsz)
    each = {name: describe([part], imgsz) for name, part in splits.items()}
    return {"imgsz": imgsz, "splits": each, "all": together, "advice": advise(together, imgsz)}


def distinct(splits: Mapping[str, Annotations]) -> list[Annotations]:
    """The splits without those that are another's file once more."""
    return list({part.path: part for part in splits.values()}.values())


def describe(parts: Sequence[Annotations], imgsz: float | None = None) -> dict[str, Any]:
    """The numbers of some annotations together; ignore regions are counted and left out of all else."""
    found = objects_of(parts, imgsz)
    by_class = {name: found.sizes[found.labels == i] for i, name in parts[0].names.items()}
    hw = found.extents
    extents = {"median": np.median(hw, axis=0), "largest": hw.max(axis=0)} if len(hw) else {}
    return {
        "images": len(found.per_image),
        "boxes": len(found.sizes),
        "ignore_regions": len(found.with_regions) - len(found.sizes),
        "image_size_hw": {key: side.round().astype(int).tolist() for key, side in extents.items()},
        "classes": {name: len(sizes) for name, sizes in by_class.items()},
        "size": spread(found.sizes),
        "size_with_ignore_regions": spread(found.with_regions),
        "relative_size": spread(found.relative),
        "shares": shares(found.sizes),
        "aspect": spread(found.aspects),
        "per_image": spread(found.per_image),
        "size_by_class": {name: spread(sizes) for name, sizes in by_class.items()},
    }


def spread(values: np.ndarray) -> dict[str, float | int | None]:
    """Count, mean, standard deviation (of the population) and quantiles; None where there is nothing.

    Examples:
        >>> spread(np.array([1.0, 2, 3]))["mean"], spread(np.zeros(0))["mean"]
        (2.0, None)
    """
    numbers: list[float | None] = [None] * (2 + len(QUARTILES))
    if len(values):
        numbers = [float(values.mean()), float(values.std()), *np.percentile(values, QUARTILES).tolist()]
    mean, std, *quantiles = numbers
    named = {f"q{q}": value for q, value in zip(QUARTILES, quantiles, strict=True)}
    return {"count": len(values), "mean": mean, "std": std, "median": named["q50"], **named}


def shares(size: np.ndarray) -> dict[str, float]:
    """Share of the objects by the paper's names of sizes; a bound belongs to the larger.

    Examples:
        >>> {k: round(v, 2) for k, v in shares(np.array([2.0, 8, 12, 40])).items()}
        {'very tiny': 0.25, 'tiny': 0.5, 'small': 0.0, 'medium': 0.25, 'large': 0.0}
    """
    counts = np.histogram(size, [0.0, *(named.high for named in NAMED)])[0] if len(size) else np.zeros(len(NAMED))
    return {named.name: float(n / max(len(size), 1)) for named, n in zip(NAMED, counts, strict=True)}
