"""Charts by matplotlib, without pyplot and its global state; it is imported when the first chart is drawn."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.io import new_file
from tinyyolo.sizes import NAMED

SIZE_BOUNDS = {size.name: size.high for size in NAMED if np.isfinite(size.high)}  # px, upper bounds of the names
COLOURS = ("#b0413e", "#d9a441", "#2f7f6f", "#4878a8", "#7a5195", "#8a8a8a")
COLOUR = COLOURS[3]  # of one thing alone
RECALL = np.linspace(0, 1, 101)  # COCO's recall levels
BINS, LAST_PERCENTILE = 60, 99.5
DPI = 130
RATES = "learning rate"
FORMATS = ("png", "pdf", "svg")  # of files of figures that a user may ask for
TRUETYPE = 42  # of PDF; publishers refuse matplotlib's own Type 3


def chart(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 4.5), widths: Sequence[float] | None = None
) -> tuple[Any, np.ndarray]:
    """A figure of `size` inches and its (rows, columns) axes, of equal or of these relative widths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure whole or not at all, in the format of the path's suffix; words stay words in PDF and SVG."""
    from matplotlib import rc_context

    path = Path(path)
    as_words = rc_context({"svg.fonttype": "none", "pdf.fonttype": TRUETYPE})
    with as_words, new_file(path, overwrite=True, mode="wb") as stream:
        figure.savefig(stream, format=path.suffix[1:] or "png", dpi=DPI)
    return path


def bars(axis: Any, groups: Mapping[str, Any], ticks: Sequence[str], form: str, **style: Any) -> None:
    """A group of bars at every tick, one for each of `groups` (name -> heights); NaN or below 0 draws none."""
    width = 0.8 / max(len(groups), 1)
    for index, (name, values) in enumerate(groups.items()):
        heights = np.asarray(values, dtype=np.float64)
        there = np.flatnonzero(heights >= 0)
        places, colour = there + (index + 0.5) * width - 0.4, COLOURS[index % len(COLOURS)]
        drawn = axis.bar(places, heights[there], width * 0.92, label=name, color=colour if len(groups) > 1 else COLOUR)
        axis.bar_label(drawn, [form.format(height) for height in heights[there]], fontsize=7)
    axis.set_xticks(range(len(ticks)), ticks, **style)


def pr_curves(precision: Mapping[str, Any], path: str | Path) -> Path:
    """Precision over recall, one curve a class, the class's AP in the legend, and their mean.

    Args:
        precision: class name -> (101,) precision at COCO's levels of recall, fractions; below 0 or NaN: no objects.
        path: the image file.
    """
    figure, axes = chart(size=(7.5, 5))
    axis, curves = axes[0, 0], {}
    for name, values in precision.items():
        curve = np.asarray(values, dtype=np.float64)
        if curve.size and np.isfinite(curve).all() and (curve >= 0).all():
            curves[name] = curve
            axis.plot(RECALL, curve, linewidth=1.2, label=f"{name} {curve.mean():.3f}")
    if curves:
        mean = np.mean(list(curves.values()), axis=0)
        axis.plot(RECALL, mean, color="black", linewidth=2.2, label=f"mean {mean.mean():.3f}")
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall")
    return save(figure, path)


def confusion_matrix(counts: Any, names: Sequence[str], path: str | Path) -> Path:
    """What became of the objects of every class.

    Args:
        counts: (C + 1, C + 1): row i, column j: objects of class i detected as class j; the last column counts missed
            objects, the last row detections where nothing is.
        names: C class names.
        path: the image file.

    Raises:
        ValueError: `counts` and `names` do not fit.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape != (len(names) + 1, len(names) + 1):
        raise ValueError(f"counts: expected {(len(names) + 1,) * 2} for {len(names)} names, found {counts.shape}")
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 3.2 + 0.55 * len(counts)
    figure, axes = chart(size=(side + 0.8, side))
    axis = axes[0, 0]
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(counts > 0):
        colour = "white" if share[i, j] > 0.5 else "black"
        axis.text(j, i, f"{counts[i, j]:,.0f}", ha="center", va="center", fontsize=7, color=colour)
    ticks = range(len(counts))
    axis.set_xticks(ticks, [*names, "missed"], rotation=40, ha="right")
    axis.set_yticks(ticks, [*names, "background"])
    axis.set(xlabel="detected as", ylabel="is", title="Confusion (colour: share of the row)")
    figure.colorbar(image, ax=axis, shrink=0.7)
    return save(figure, path)


def ap_by_size(values: Mapping[str, Mapping[str, float]], path: str | Path) -> Path:
    """AP by size of object, a group of bars a size and a bar a model.

    Args:
        values: model -> {size name: AP as a fraction}; NaN or below 0, as where there are no objects, draws no bar.
        path: the image file.
    """
    sizes = list(dict.fromkeys(size for row in values.values() for size in row))
    figure, axes = chart(size=(2.5 + 0.9 * len(sizes) * max(len(values) / 2, 1), 4))
    axis = axes[0, 0]
    bars(axis, {name: [100 * row.get(s, np.nan) for s in sizes] for name, row in values.items()}, sizes, "{:.1f}")
    axis.set(ylabel="AP, %", title="AP by size of object")
    if len(values) > 1:
        axis.legend(fontsize=8, frameon=False)
    return save(figure, path)


def size_histogram(sides: Any, path: str | Path) -> Path:
    """How large the objects of a data set are: (N,) sqrt(w * h) in px, none is fine."""
    sides = np.asarray(sides, dtype=np.float64).ravel()
    figure, axes = chart(size=(8, 4))
    draw_sizes(axes[0, 0], sides)
    spread = f": mean {sides.mean():.1f}, std {sides.std():.1f}, median {np.median(sides):.1f} px" if sides.size else ""
    axes[0, 0].set_title(f"{sides.size:,} objects{spread}", pad=22)
    return save(figure, path)


def draw_sizes(axis: Any, sides: np.ndarray) -> None:
    """Sizes (N,) up to a high quantile, with the share of each name; equal sizes have bins too, from 0."""
    last = max(float(np.percentile(sides, LAST_PERCENTILE)), 1.0) if sides.size else max(SIZE_BOUNDS.values())
    axis.hist(sides, bins=np.linspace(0, last, BINS + 1), color=COLOUR)
    low, above = 0.0, axis.get_xaxis_transform()
    for name, high in SIZE_BOUNDS.items():
        if low < last:
            share = np.mean((sides >= low) & (sides < high)) if sides.size else 0
            middle = (low + min(high, last)) / 2
            axis.text(middle, 1, f"{name}\n{share:.0%}", transform=above, ha="center", fontsize=7)
            axis.axvline(high, color="0.5", linewidth=0.8, linestyle="--")
        low = high
    axis.set(xlabel="side sqrt(w h), px", ylabel="objects", xlim=(0, last))


def training_curves(results: str | Path, path: str | Path) -> Path:
    """Losses, metrics (percent) and learning rates over the epochs, from a run's results.csv; train and val share a
    panel, parameter groups that learn at the same rates a curve.

    A metric below 0, as where there are no objects of a size, draws nothing, and the panel says so.

    Raises:
        UserError: the file cannot be read as a table of numbers with an `epoch` column.
    """
    from matplotlib.ticker import MaxNLocator

    columns = read_results(Path(results))
    epochs = columns.pop("epoch")
    columns.pop("time", None)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for name, values in columns.items():
        group, _, short = name.rpartition("/")
        panel = {"train": short, "val": short, "lr": RATES}.get(group, name)
        panels.setdefault(panel, {})[group if group in ("train", "val") else short] = values
    across = min(len(panels), 4) or 1
    down = -(-len(panels) // across) or 1
    figure, axes = chart(down, across, size=(3.2 * across, 2.5 * down))
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        metric = title.startswith("metrics/")
        for label, values in (alike(curves) if title == RATES else curves).items():
            shown = np.where(values < 0, np.nan, 100 * values) if metric else values
            axis.plot(epochs, shown, marker="." if len(epochs) < 30 else "", linewidth=1.3, label=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(epochs):
            axis.set_xlim(epochs[0] - 0.5, max(epochs[-1], epochs[0] + 1) + 0.5)
        if metric or title == RATES:
            axis.set_ylim(bottom=0)
        if metric and not any((values >= 0).any() for values in curves.values()):
            axis.set_yticks([])
            axis.text(0.5, 0.5, "nothing of this kind", ha="center", transform=axis.transAxes, fontsize=8, color="0.5")
        axis.set_title(title.removeprefix("metrics/") + " %" * metric, fontsize=9)
        if len(axis.lines) > 1:
            axis.legend(fontsize=7, frameon=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    return save(figure, path)


def alike(curves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Curves with the same values as one, under all their names.

    Examples:
        >>> list(alike({"pg0": np.ones(2), "pg1": np.zeros(2), "pg2": np.ones(2)}))
        ['pg0, pg2', 'pg1']
    """
    found: dict[bytes, list[str]] = {}
    for name, values in curves.items():
        found.setdefault(values.tobytes(), []).append(name)
    return {", ".join(names): curves[names[0]] for names in found.values()}


def read_results(path: Path) -> dict[str, np.ndarray]:
    """Columns of a results.csv by name; an empty cell is NaN."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row] or [[]]
        table = np.array([[float(cell or "nan") for cell in row] for row in rows]).reshape(-1, len(header) or 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as a table of numbers: {error}") from error
    if "epoch" not in header:
        raise UserError(f"{path}: no column 'epoch'; it has {', '.join(header) or 'none'}")
    return dict(zip(header, table.T, strict=True))
