"""The paper's Fig. 5 for any data: objects by class, by image and by size, and the sizes of every class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.io import new_file

SIZE_BINS = 64
BOUNDS = (8, 16, 32, 64)  # px: very tiny, tiny, small, medium


def draw(splits: Mapping[str, Annotations], path: Path, scales: Mapping[str, np.ndarray]) -> Path:
    """Draw the figure of all splits together and write it as PNG.

    Args:
        splits: split -> annotations with the same classes.
        path: the PNG; an old one is replaced.
        scales: split -> (I,) factor from original pixels to those drawn.

    Returns:
        `path`.
    """
    from tinyyolo.datasets.stats.numbers import absolute_sizes, joined

    unique = {annotations.path: name for name, annotations in splits.items()}
    parts = {name: splits[name] for name in unique.values()}
    names = list(next(iter(parts.values())).names.values())
    keep = {name: a.labels != IGNORED for name, a in parts.items()}
    label = joined([a.labels[keep[n]] for n, a in parts.items()]).astype(int)
    size = joined([(absolute_sizes(a) * scales[n][a.image_index])[keep[n]] for n, a in parts.items()])
    per_image = joined([np.bincount(a.image_index[keep[n]], minlength=len(a)) for n, a in parts.items()])
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(11, 7.5), layout="constrained")
        axes = figure.subplots(2, 2)
        by_class(axes[0, 0], names, label)
        histogram(axes[0, 1], per_image, "objects in an image", "images", "(b) objects in an image")
        by_size(axes[1, 0], size)
        boxes_by_class(axes[1, 1], names, label, size)
        with new_file(path, overwrite=True, mode="wb") as stream:
            figure.savefig(stream, format="png", dpi=130)
    return path


def by_class(axis: matplotlib.axes.Axes, names: list[str], label: np.ndarray) -> None:
    """(a) a bar a class, logarithmic because classes differ by thousands."""
    counts = np.bincount(label, minlength=len(names))
    bars = axis.bar(range(len(names)), counts, color="#4878a8")
    axis.bar_label(bars, [f"{n:,}" for n in counts], fontsize=7)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    if counts.any():
        axis.set_yscale("log")
    axis.set(title="(a) objects of each class", ylabel="objects")


def histogram(axis: matplotlib.axes.Axes, values: np.ndarray, xlabel: str, ylabel: str, title: str) -> None:
    """A histogram with a logarithmic count."""
    axis.hist(values, bins=40, color="#4878a8", log=bool(len(values)))
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)


def by_size(axis: matplotlib.axes.Axes, size: np.ndarray) -> None:
    """(c) sizes up to the 99.5 % quantile, with the bounds of the size names."""
    last = float(np.percentile(size, 99.5)) if len(size) else 1.0
    axis.hist(size[size <= last], bins=SIZE_BINS, color="#4878a8")
    for bound in BOUNDS:
        if bound <= last:
            axis.axvline(bound, color="0.5", linewidth=0.8, linestyle="--")
    axis.set(
        title="(c) absolute size, sqrt(w h)", xlabel="px (lines: very tiny, tiny, small, medium)", ylabel="objects"
    )


def boxes_by_class(axis: matplotlib.axes.Axes, names: list[str], label: np.ndarray, size: np.ndarray) -> None:
    """(d) a box of sizes for every class that has objects."""
    there = [i for i in range(len(names)) if (label == i).any()]
    if there:
        axis.boxplot([size[label == i] for i in there], positions=there, showfliers=False, widths=0.6)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set(title="(d) absolute size of each class, without outliers", ylabel="px")
