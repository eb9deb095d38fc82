"""The numbers of the paper's Table 1, Table 2 and Fig. 5 for any data set. The command is in `analysis/stats.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyyolo.boxes.convert import areas, sides
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.stats.advice import advise
from tinyyolo.sizes import NAMED

QUARTILES = (0, 5, 25, 50, 75, 95, 100)


def collect(splits: Mapping[str, Annotations], *, imgsz: int | None = None) -> dict[str, Any]:
    """Every number of the report as plain values.

    Args:
        splits: split -> its annotations.
        imgsz: sizes as after resizing the longer side to this; None leaves original pixels.

    Returns:
        `splits` (split -> `describe`), `all` (the union, splits that are one file counted once), `imgsz`, `advice`.
    """
    scales = scales_of(splits, imgsz)
    union = list(distinct(splits))
    out = {name: describe([splits[name]], [scales[name]]) for name in splits}
    together = describe([splits[name] for name in union], [scales[name] for name in union])
    return {"imgsz": imgsz, "splits": out, "all": together, "advice": advise(together, imgsz)}


def distinct(splits: Mapping[str, Annotations]) -> dict[str, Annotations]:
    """The splits without those that are another's file once more."""
    out: dict[str, Annotations] = {}
    for name, found in splits.items():
        if found.path not in [other.path for other in out.values()]:
            out[name] = found
    return out


def scales_of(splits: Mapping[str, Annotations], imgsz: int | None) -> dict[str, np.ndarray]:
    """Split -> (I,) factor from original pixels to those of the report.

    Raises:
        UserError: imgsz is no positive number.
    """
    if imgsz is not None and not (isinstance(imgsz, (int, float)) and imgsz > 0):
        raise UserError(f"imgsz={imgsz}: expected a positive number of pixels")
    longest = {name: a.sizes_hw.max(axis=1, initial=1) for name, a in splits.items()}
    return {name: (imgsz / side if imgsz else np.ones(len(side))) for name, side in longest.items()}


def describe(parts: list[Annotations], scales: list[np.ndarray]) -> dict[str, Any]:
    """The numbers of some annotations taken together; ignore regions are counted and left out of all else.

    Args:
        parts: annotations with the same classes.
        scales: one (I,) factor for each.
    """
    names = list(parts[0].names.values()) if parts else []
    sizes = [absolute_sizes(a) * s[a.image_index] for a, s in zip(parts, scales, strict=True)]
    objects = [a.labels != IGNORED for a in parts]
    label = joined([a.labels[m] for a, m in zip(parts, objects, strict=True)]).astype(np.int64)
    size = joined([s[m] for s, m in zip(sizes, objects, strict=True)])
    relative = joined([relative_sizes(a)[m] for a, m in zip(parts, objects, strict=True)])
    per_image = joined(
        [np.bincount(a.image_index[m], minlength=len(a)) for a, m in zip(parts, objects, strict=True)]
    ).astype(np.int64)
    extents = joined([a.sizes_hw * s[:, None] for a, s in zip(parts, scales, strict=True)], width=2)
    return {
        "images": sum(map(len, parts)),
        "boxes": len(size),
        "ignore_regions": int(sum((~m).sum() for m in objects)),
        "image_size_hw": {"median": pixels(np.median(extents, axis=0)), "largest": pixels(extents.max(axis=0))}
        if len(extents)
        else {},
        "classes": {name: int((label == i).sum()) for i, name in enumerate(names)},
        "size": spread(size),
        "size_with_ignore_regions": spread(joined(sizes)),
        "relative_size": spread(relative),
        "shares": shares(size),
        "aspect": spread(joined([aspects(a)[m] for a, m in zip(parts, objects, strict=True)])),
        "per_image": spread(per_image),
        "size_by_class": {name: spread(size[label == i]) for i, name in enumerate(names)},
    }


def joined(arrays: list[np.ndarray], width: int = 0) -> np.ndarray:
    """Arrays one after another; none of them is normal."""
    return np.concatenate([np.zeros((0, width) if width else 0), *arrays])


def absolute_sizes(annotations: Annotations) -> np.ndarray:
    """(K,) sqrt(w * h) in px, the paper's absolute object size."""
    return np.asarray(np.sqrt(areas(annotations.boxes)))


def relative_sizes(annotations: Annotations) -> np.ndarray:
    """(K,) sqrt(w * h / (W * H)), the paper's relative object size."""
    area = annotations.sizes_hw.prod(axis=1)[annotations.image_index]
    return np.asarray(absolute_sizes(annotations) / np.sqrt(area))


def aspects(annotations: Annotations) -> np.ndarray:
    """(K,) height / width."""
    width, height = sides(annotations.boxes).T
    return np.asarray(height / width)


def spread(values: np.ndarray) -> dict[str, float | int | None]:
    """Count, mean, standard deviation (of the population) and quantiles; None where there is nothing.

    Examples:
        >>> spread(np.array([1.0, 2, 3]))["mean"], spread(np.zeros(0))["mean"]
        (2.0, None)
    """
    empty = not len(values)
    quantiles = [None] * len(QUARTILES) if empty else np.percentile(values, QUARTILES).tolist()
    named = {f"q{q}": value for q, value in zip(QUARTILES, quantiles, strict=True)}
    mean, std = (None, None) if empty else (float(values.mean()), float(values.std()))
    return {"count": len(values), "mean": mean, "std": std, "median": named["q50"], **named}


def shares(size: np.ndarray) -> dict[str, float]:
    """Share of the objects by the paper's names of sizes; a bound belongs to the larger.

    Examples:
        >>> {k: round(v, 2) for k, v in shares(np.array([2.0, 8, 12, 40])).items()}
        {'very tiny': 0.25, 'tiny': 0.5, 'small': 0.0, 'medium': 0.25, 'large': 0.0}
    """
    counts = np.histogram(size, [0.0, *(named.high for named in NAMED)])[0] if len(size) else np.zeros(len(NAMED))
    return {named.name: float(n / max(len(size), 1)) for named, n in zip(NAMED, counts, strict=True)}


def pixels(values: np.ndarray) -> list[int]:
    """Values as whole pixels."""
    return [round(float(v)) for v in values]
