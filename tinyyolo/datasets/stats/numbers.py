"""`tinyyolo data stats`: the paper's Table 1, Table 2 and Fig. 5 for any data set, and what follows for training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.spec import load
from tinyyolo.datasets.stats.advice import advise, pixels
from tinyyolo.io import new_file

# Side in px below which an object has the name: Section 3.2 of the paper; AI-TOD's evaluator cuts area at the squares.
SIZE_NAMES = (("very tiny", 8.0), ("tiny", 16.0), ("small", 32.0), ("medium", 64.0), ("large", np.inf))
QUARTILES = (0, 5, 25, 50, 75, 95, 100)


def stats(
    data: str,
    *,
    path: str | None = None,
    split: str | None = None,
    imgsz: int | None = None,
    figure: bool = True,
    runs: str = "runs/data-stats",
) -> int:
    """Statistics of a data set: objects by class, split and size, a figure, and advice with the numbers behind it.

    Args:
        data: a data YAML, by path or name.
        path: the root of the data, instead of the YAML's.
        split: only this one.
        imgsz: sizes as after resizing the longer side to this; the default is original pixels.
        figure: draw NAME.png (the paper's Fig. 5).
        runs: folder of NAME.json and NAME.png.

    Raises:
        UserError: no such YAML, split or annotations.
    """
    spec = load(data, path)
    splits = {name: spec.read(name) for name in ([split] if split else spec.splits)}
    report = collect(splits, imgsz=imgsz) | {"data": str(spec.file)}
    target = Path(runs) / f"{spec.title}.json"
    with new_file(target, overwrite=True) as stream:
        json.dump(report, stream, indent=1)
    print(in_words(report))
    print(f"numbers: {target}")
    if figure:
        from tinyyolo.plots.stats import draw

        print(f"figure: {draw(splits, target.with_suffix('.png'), scales_of(splits, imgsz))}")
    return 0


def collect(splits: Mapping[str, Annotations], *, imgsz: int | None = None) -> dict[str, Any]:
    """Every number of the report as plain values.

    Args:
        splits: split -> its annotations.
        imgsz: as in `stats`.

    Returns:
        `splits` (split -> `describe`), `all` (the union, splits that are one file counted once), `imgsz`, `advice`.
    """
    scales = scales_of(splits, imgsz)
    one_each = {annotations.path: name for name, annotations in reversed(splits.items())}
    union = [name for name in splits if name in one_each.values()]
    out = {name: describe([splits[name]], [scales[name]]) for name in splits}
    together = describe([splits[name] for name in union], [scales[name] for name in union])
    return {"imgsz": imgsz, "splits": out, "all": together, "advice": advise(together, imgsz)}


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
    sides = joined([a.sizes_hw * s[:, None] for a, s in zip(parts, scales, strict=True)], width=2)
    return {
        "images": sum(map(len, parts)),
        "boxes": len(size),
        "ignore_regions": int(sum((~m).sum() for m in objects)),
        "image_size_hw": {"median": pixels(np.median(sides, axis=0)), "largest": pixels(sides.max(axis=0))}
        if len(sides)
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
    return np.sqrt((annotations.boxes[:, 2:] - annotations.boxes[:, :2]).prod(axis=1))


def relative_sizes(annotations: Annotations) -> np.ndarray:
    """(K,) sqrt(w * h / (W * H)), the paper's relative object size."""
    area = annotations.sizes_hw.prod(axis=1)[annotations.image_index]
    return absolute_sizes(annotations) / np.sqrt(area)


def aspects(annotations: Annotations) -> np.ndarray:
    """(K,) height / width."""
    sides = annotations.boxes[:, 2:] - annotations.boxes[:, :2]
    return sides[:, 1] / sides[:, 0]


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
    bounds = [0.0, *(bound for _, bound in SIZE_NAMES)]
    counts = np.histogram(size, bounds)[0] if len(size) else np.zeros(len(SIZE_NAMES))
    return {name: float(n / max(len(size), 1)) for (name, _), n in zip(SIZE_NAMES, counts, strict=True)}


def in_words(report: Mapping[str, Any]) -> str:
    """Tables 1 and 2 as text, then the advice."""
    columns = dict(report["splits"]) | ({"all": report["all"]} if len(report["splits"]) > 1 else {})
    unit = f"px at imgsz {report['imgsz']}" if report["imgsz"] else "px"
    rows = [["", *columns]]
    for key in ("images", "boxes", "ignore_regions"):
        rows.append([key.replace("_", " "), *(f"{c[key]:,}" for c in columns.values())])
    rows += [[f"  {name}", *(f"{c['classes'][name]:,}" for c in columns.values())] for name in report["all"]["classes"]]
    rows.append([f"absolute size, {unit}", *(plus_minus(c["size"], 1) for c in columns.values())])
    rows.append(["  median", *(one_digit(c["size"]["median"]) for c in columns.values())])
    if report["all"]["ignore_regions"]:
        both = [c["size_with_ignore_regions"] for c in columns.values()]
        rows.append(["  with ignore regions", *(plus_minus(values, 1) for values in both)])
        rows.append(["  median", *(one_digit(values["median"]) for values in both)])
    rows.append(["relative size", *(plus_minus(c["relative_size"], 3) for c in columns.values())])
    rows += [[f"  {name}", *(f"{100 * c['shares'][name]:.1f} %" for c in columns.values())] for name, _ in SIZE_NAMES]
    rows.append(["objects an image", *(plus_minus(c["per_image"], 1) for c in columns.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([report.get("data", ""), *table, "", *(f"- {line}" for line in report["advice"]["words"])])


def plus_minus(values: Mapping[str, Any], digits: int) -> str:
    """'12.7 ± 5.6'."""
    return "-" if values["mean"] is None else f"{values['mean']:.{digits}f} ± {values['std']:.{digits}f}"


def one_digit(value: float | None) -> str:
    """'12.7'."""
    return "-" if value is None else f"{value:.1f}"
