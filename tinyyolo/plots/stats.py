"""The paper's Fig. 5 for any data: objects by class, by image and by size, and the sizes of every class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyyolo.datasets.stats.numbers import Objects
from tinyyolo.plots.charts import COLOUR, bars, chart, draw_sizes, save

IMAGE_BINS = 40


def draw(names: Sequence[str], objects: Objects, path: Path) -> Path:
    """Draw the figure and write it as PNG, in place of an old one.

    Args:
        names: of the classes.
        objects: what to draw, of all splits together.
        path: the PNG.
    """
    figure, axes = chart(2, 2, size=(11, 7.5))
    by_class, by_image, by_size, of_classes = axes.flat
    counts = np.bincount(objects.labels, minlength=len(names))
    bars(by_class, {"": counts}, names, "{:,.0f}", rotation=30, ha="right")
    if counts.any():
        by_class.set_yscale("log")  # classes differ by thousands
    by_class.set(title="(a) objects of each class", ylabel="objects")
    by_image.hist(objects.per_image, bins=IMAGE_BINS, color=COLOUR, log=bool(len(objects.per_image)))
    by_image.set(title="(b) objects in an image", xlabel="objects in an image", ylabel="images")
    draw_sizes(by_size, objects.sizes)
    by_size.set_title("(c) absolute size, sqrt(w h)", pad=22)
    there = np.flatnonzero(counts).tolist()
    if there:
        sizes = [objects.sizes[objects.labels == i] for i in there]
        of_classes.boxplot(sizes, positions=there, showfliers=False, widths=0.6)
    of_classes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    of_classes.set(title="(d) absolute size of each class, without outliers", ylabel="px")
    return save(figure, path)
