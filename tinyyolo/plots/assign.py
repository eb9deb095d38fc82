"""The figures of `tinyyolo analyze`, from the numbers of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.plots.charts import COLOURS, bars, chart, save

BOX_COLOURS = ("black", "#2f7f6f", "#b0413e")
DRAWN_EXAMPLE = 2  # how many boxes of the worked example are drawn


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """All figures that the report has numbers for: positives.png, shift.png, example.png."""
    paths = []
    if "assigners" in report:
        paths.append(positives(report["assigners"], report["sizes"], folder / "positives.png"))
    paths.append(shifts(report["shift"], folder / "shift.png"))
    paths.append(example(report["example"], folder / "example.png"))
    return paths


def positives(assigners: Mapping[str, Mapping[str, Any]], names: Sequence[str], path: Path) -> Path:
    """Positives for each object and objects without any, by size, a bar for each assigner (the paper's Fig. 8).

    Args:
        assigners: name -> numbers of `analysis.count_positives`.
        names: of the size bins.
        path: the PNG.
    """
    shown = [i for i in range(len(names)) if any(row["objects"][i] for row in assigners.values())]
    figure, axes = chart(1, 2, (11, 4.2))
    objects = next(iter(assigners.values()))["objects"]
    ticks = [f"{names[b]}\n{objects[b]:,} objects" for b in shown]
    for axis, key, factor, form, title in (
        (axes[0, 0], "positives", 1, "{:.2f}", "positive anchors for each object"),
        (axes[0, 1], "without", 100, "{:.3g}", "objects without any positive anchor, %"),
    ):
        heights = {name: [factor * row[key][b] / max(objects[b], 1) for b in shown] for name, row in assigners.items()}
        bars(axis, heights, ticks, form)
        axis.set_xlabel("size of the object, px")
        axis.set_title(title, fontsize=10)
    axes[0, 0].legend(frameon=False, fontsize=8)
    return save(figure, path)


def shifts(curves: Mapping[str, Any], path: Path) -> Path:
    """Similarity against a shift, one panel a similarity, one curve a box size (the paper's Fig. 2).

    Args:
        curves: numbers of `analysis.shift_curves`.
        path: the PNG.
    """
    names = list(curves["same"])
    figure, axes = chart(2, len(names), (2.1 * len(names), 4.6))
    for row, (kind, text) in enumerate((("same", "same size"), ("half", "half the side"))):
        for column, name in enumerate(names):
            axis = axes[row, column]
            for i, (side, values) in enumerate(zip(curves["sides"], curves[kind][name], strict=True)):
                style = {"color": COLOURS[i], "markersize": 4, "linewidth": 0.8}
                axis.plot(curves["shifts"], values, ".-", label=f"{side:g} px", **style)
            axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
            axis.set_ylim(-1.05 if name in ("giou", "diou", "ciou") else -0.05, 1.05)
            axis.set_title(f"{name}, {text}", fontsize=9)
    for axis in axes[1]:
        axis.set_xlabel("shift right and down, px", fontsize=8)
    axes[0, 0].legend(title="side of box A", fontsize=7, title_fontsize=7, frameon=False)
    return save(figure, path)


def example(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """A tiny and a normal box, each with itself moved by a few pixels (the paper's Fig. 1).

    Args:
        rows: numbers of `analysis.worked_example`.
        path: the PNG.
    """
    from matplotlib.patches import Rectangle

    rows = rows[:DRAWN_EXAMPLE]
    figure, axes = chart(1, len(rows), (4.6 * len(rows), 5))
    for axis, row in zip(axes[0], rows, strict=True):
        w, h = row["width"], row["height"]
        each = zip("BC", row["shifts"], row["iou"], row["nwd"], strict=True)
        texts = ["A", *(f"{name}, {shift:g} px: IoU {iou:.2f}, NWD {nwd:.2f}" for name, shift, iou, nwd in each)]
        for shift, color, text in zip((0, *row["shifts"]), BOX_COLOURS, texts, strict=False):
            axis.add_patch(Rectangle((shift, shift), w, h, fill=False, edgecolor=color, linewidth=1.6, label=text))
        far = max(row["shifts"])
        axis.set(xlim=(-1, w + far + 1), ylim=(h + far + 1, -1), aspect="equal", title=f"{w:g} x {h:g} px")
        if w + far < 30:  # each pixel is a cell
            axis.set_xticks(range(w + far + 1))
            axis.set_yticks(range(h + far + 1))
            axis.grid(color="0.85", linewidth=0.6)
            axis.set_axisbelow(True)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.06), frameon=False)
    return save(figure, path)
