"""The paper's Fig. 4 and Fig. 6: what changed between two sets of labels, and how many boxes of each size sets have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.evaluation.agreement import ADDED, CHANGES, MOVED, RELABELLED, REMOVED, SAME, Pairing
from tinyyolo.plots import charts
from tinyyolo.plots.frames import SMALL, Crop, Style, busiest, legend, numbered, panel, short
from tinyyolo.sizes import LARGEST_SIDE

PANEL_SIDE = 3.0  # inches
HEAD = 0.8  # inches, for the legend and the numbers under the panels
STYLES = {  # drawn in this order; the colours stay apart for those who do not tell red from green
    SAME: Style("same", "#ffffff", "-", 0.7, "#404040"),
    MOVED: Style("moved", "#ffb000"),
    RELABELLED: Style("relabelled", "#e052ff"),
    REMOVED: Style("removed", "#ff2d2d", (0, (2.2, 1)), 1.2),
    ADDED: Style("added", "#27e0ff", "-", 1.2),
}


def most_changed(pairing: Pairing) -> np.ndarray:
    """All images by falling number of boxes that came, went or got another class; then of those that moved."""
    images, counts = len(pairing.first), []
    for of_first, of_second in (((MOVED,), ()), ((REMOVED, RELABELLED), (ADDED,))):
        own = pairing.first.image_index[np.isin(pairing.first_change, of_first)]
        new = pairing.second.image_index[np.isin(pairing.second_change, of_second)]
        counts.append(np.bincount(own, minlength=images) + np.bincount(new, minlength=images))
    few, many = counts
    return np.lexsort([-few, -many])


def draw_changes(pairing: Pairing, names: Sequence[str], files: Mapping[int, Path | None], path: str | Path) -> Path:
    """A column for each image: the labels of the first set above those of the second, each box by what became of it.

    Args:
        pairing: of `evaluation.compare`.
        names: of the two sets.
        files: index of an image in `pairing.first` -> its file, or None to draw its boxes alone.
        path: the image file.

    Raises:
        UserError: an image cannot be read.
    """
    crops = [crop_of(pairing, index, file) for index, file in files.items()]
    widths = [PANEL_SIDE * crop.aspect for crop in crops]
    figure, axes = charts.chart(2, max(len(crops), 1), (max(sum(widths), 5.0), 2 * PANEL_SIDE + HEAD), widths or None)
    for column, index, crop in zip(axes.T, files, crops, strict=False):
        boxes = boxes_of(pairing, index, crop)
        for axis, own in zip(column, boxes, strict=True):
            panel(axis, crop, own, STYLES)
            axis.set_xlabel(numbered({CHANGES[change]: len(some) for change, some in own.items()}), fontsize=SMALL - 1)
        column[0].set_title(short(pairing.first.file_names[index]), fontsize=SMALL)
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=SMALL + 2, fontweight="bold")
    legend(figure, list(STYLES.values()))
    return charts.save(figure, path)


def crop_of(pairing: Pairing, index: int, file: Path | None) -> Crop:
    """The part of an image with most changes in both sets; where there are none, with most boxes."""
    own, new = pairing.first.rows(index), pairing.second.rows(index)
    both = np.concatenate([pairing.first.boxes[own], pairing.second.boxes[new]])
    changed = np.concatenate([pairing.first_change[own], pairing.second_change[new]]) != SAME
    return busiest(file, pairing.first.sizes_hw[index].tolist(), both, both[changed] if changed.any() else both)


def boxes_of(pairing: Pairing, index: int, crop: Crop) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Boxes (K, 4) of one image with their middle in the crop, by what became of them: of the first, of the second."""
    sides = []
    for notes, change, never in (
        (pairing.first, pairing.first_change, ADDED),
        (pairing.second, pairing.second_change, REMOVED),
    ):
        rows = notes.rows(index)
        inside = crop.holds(notes.boxes[rows])
        boxes, kinds = notes.boxes[rows][inside], change[rows][inside]
        sides.append({kind: boxes[kinds == kind] for kind in STYLES if kind != never})
    return sides[0], sides[1]


def draw_sizes(
    counts: Mapping[str, Mapping[str, int]], area_ranges: Mapping[str, tuple[float, float]], path: str | Path
) -> Path:
    """How many boxes of each size several sets have, a group of bars for each size (Fig. 6).

    Args:
        counts: name of a set -> size name -> boxes, "all" among them.
        area_ranges: sides of the named sizes, px.
        path: the image file.
    """
    sizes = [size for size in next(iter(counts.values())) if size != "all"]
    figure, axes = charts.chart(size=(1.5 + 0.4 * len(sizes) * (len(counts) + 1), 3.6))
    axis: Any = axes[0, 0]
    heights = {f"{name} ({row['all']:,})": [row[size] for size in sizes] for name, row in counts.items()}
    charts.bars(axis, heights, [ticked(size, area_ranges) for size in sizes], "{:,.0f}")
    axis.set(xlabel="size of the box, px", ylabel="boxes")
    axis.legend(fontsize=SMALL, frameon=False)
    return charts.save(figure, path)


def ticked(size: str, area_ranges: Mapping[str, tuple[float, float]]) -> str:
    """A size and its sides.

    Examples:
        >>> ticked("vt", {"vt": (0, 8)}), ticked("m", {"m": (32, 1e5)}), ticked("other", {})
        ('vt\\n0-8', 'm\\nfrom 32', 'other')
    """
    if size not in area_ranges:
        return size
    low, high = area_ranges[size]
    return f"{size}\n{low:g}-{high:g}" if high < LARGEST_SIDE else f"{size}\nfrom {low:g}"
