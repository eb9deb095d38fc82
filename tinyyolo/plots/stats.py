"""The paper's Fig. 5 for any data: objects by class, by image and by size, and the sizes of every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.stats.numbers import absolute_sizes, distinct, joined
from tinyyolo.plots.charts import COLOUR, chart, draw_sizes, save

IMAGE_BINS = 40


def draw(splits: Mapping[str, Annotations], path: Path, scales: Mapping[str, np.ndarray]) -> Path:
    """Draw the figure of all splits together and write it as PNG.

    Args:
        splits: split -> annotations with the same classes.
        path: the PNG; an old one is replaced.
        scales: split -> (I,) factor from original pixels to those drawn.

    Returns:
        `path`.
    """
    parts = distinct(splits)
    names = list(next(iter(parts.values())).names.values())
    keep = {name: a.labels != IGNORED for name, a in parts.items()}
    label = joined([a.labels[keep[n]] for n, a in parts.items()]).astype(int)
    size = joined([(absolute_sizes(a) * scales[n][a.image_index])[keep[n]] for n, a in parts.items()])
    per_image = joined([np.bincount(a.image_index[keep[n]], minlength=len(a)) for n, a in parts.items()])
    figure, axes = chart(2, 2, size=(11, 7.5))
    by_class(axes[0, 0], names, label)
    axes[0, 1].hist(per_image, bins=IMAGE_BINS, color=COLOUR, log=bool(len(per_image)))
    axes[0, 1].set(title="(b) objects in an image", xlabel="objects in an image", ylabel="images")
    draw_sizes(axes[1, 0], size)
    axes[1, 0].set_title("(c) absolute size, sqrt(w h)", pad=22)
    boxes_by_class(axes[1, 1], names, label, size)
    return save(figure, path)


def by_class(axis: Any, names: Sequence[str], label: np.ndarray) -> None:
    """(a) a bar a class, logarithmic because classes differ by thousands."""
    counts = np.bincount(label, minlength=len(names))
    bars = axis.bar(range(len(names)), counts, color=COLOUR)
    axis.bar_label(bars, [f"{n:,}" for n in counts], fontsize=7)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    if counts.any():
        axis.set_yscale("log")
    axis.set(title="(a) objects of each class", ylabel="objects")


def boxes_by_class(axis: Any, names: Sequence[str], label: np.ndarray, size: np.ndarray) -> None:
    """(d) a box of sizes for every class that has objects."""
    there = [i for i in range(len(names)) if (label == i).any()]
    if there:
        axis.boxplot([size[label == i] for i in there], positions=there, showfliers=False, widths=0.6)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set(title="(d) absolute size of each class, without outliers", ylabel="px")
