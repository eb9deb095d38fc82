"""The figures of `tinyyolo analyze`, from the numbers of its report; that of an object also from its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.boxes.convert import areas, centres, sides
from tinyyolo.datasets.views import View
from tinyyolo.plots.charts import COLOURS, bars, chart, save
from tinyyolo.plots.frames import SMALL, Crop, Style, around, frame, legend, short, show

BRIGHT = ("#ffb000", "#27e0ff", "#e052ff", "#5dff6a", "#ff5c5c")  # of lines on pictures
BOX_COLOURS = ("black", "#2f7f6f", "#b0413e")
DRAWN_EXAMPLE = 2  # how many boxes of the worked example are drawn
OBJECT = Style("object", "#ffffff", (0, (1, 1)), 1.6, "#202020")
OTHERS = Style("other objects", "#ffffff", (0, (1, 1)), 0.7, "#202020")
NEAREST = Style("anchor of the highest IoU, not positive", "#c8c8c8", (0, (4, 2)), 1.0, "#202020")
RIM = OBJECT.rim
WIDTHS, MANY = (1.4, 0.8), 9  # pt, of the lines of positive anchors, and of more than so many
PANEL, ACROSS = 2.5, 5  # inches; panels in a row
ROOM = (4.0, 16.0)  # side of a panel, in sides of the object, at least and at most
WIDER = 3.0  # the first panel shows so much more


def draw(report: Mapping[str, Any], folder: Path, kind: str = "png") -> list[Path]:
    """All figures that the report has numbers for: positives, shift and example, of a kind of `charts.FORMATS`."""
    paths = []
    if "assigners" in report:
        paths.append(positives(report["assigners"], report["sizes"], folder / f"positives.{kind}"))
    paths.append(shifts(report["shift"], folder / f"shift.{kind}"))
    paths.append(example(report["example"], folder / f"example.{kind}"))
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


def anchors(report: Mapping[str, Any], others: np.ndarray, view: View, scale: float, path: Path) -> Path:
    """An object of a picture, and a panel for each rule with the anchors that learn it (the paper's Fig. 7).

    Args:
        report: `title`, `box` and `rules` of `analysis.anchors_of`.
        others: (M, 4) xyxy px of the network input, all objects.
        view: the picture.
        scale: px of the network input for one of the picture.
        path: the image file.

    Raises:
        UserError: the picture cannot be read.
    """
    rules, box = report["rules"], np.array([report["box"]]) / scale
    side = panel_side(report) / scale
    (middle,) = centres(box)
    near, far = around(view, middle, side), around(view, middle, WIDER * side)
    across = min(len(rules) + 1, ACROSS)
    down = -(-(len(rules) + 1) // across)
    figure, axes = chart(down, across, (PANEL * across, (PANEL + 0.25) * down + 0.3))
    first, *panels = axes.flat
    show(first, far)
    frame(first, others / scale, OTHERS)
    frame(first, box, OBJECT)
    width, height = sides(box)[0] * scale
    first.set_title(f"{short(report['title'])}\nobject of {width:.3g} x {height:.3g} px", fontsize=SMALL)
    strides = sorted({anchor["stride"] for rule in rules.values() for anchor in rule["positive"]})
    styles = {
        s: Style(f"positive anchor, stride {s:g}", BRIGHT[i % len(BRIGHT)], "-", WIDTHS[0])
        for i, s in enumerate(strides)
    }
    for axis, (name, rule) in zip(panels, rules.items(), strict=False):
        draw_rule(axis, near, name, rule, styles, scale)
        frame(axis, box, OBJECT)
    for axis in panels[len(rules) :]:
        axis.set_visible(False)
    lonely = any(not rule["positive"] for rule in rules.values())
    legend(figure, [OBJECT, OTHERS, *styles.values(), *[NEAREST] * lonely])
    return save(figure, path)


def draw_rule(
    axis: Any, near: Crop, name: str, rule: Mapping[str, Any], styles: Mapping[float, Style], scale: float
) -> None:
    """The positive anchors of a rule, or where there are none the one that overlaps the object most."""
    show(axis, near)
    positive = rule["positive"]
    width = WIDTHS[len(positive) > MANY]
    for stride, style in styles.items():
        boxes = [anchor["box"] for anchor in positive if anchor["stride"] == stride]
        if boxes:
            frame(axis, np.array(boxes) / scale, style._replace(width=width))
            axis.plot(*(centres(np.array(boxes)) / scale).T, "o", color=style.colour, markersize=3, markeredgecolor=RIM)
    if not positive:
        frame(axis, np.array([rule["nearest"]["box"]]) / scale, NEAREST)
    axis.set_title(
        f"{name}: {len(positive) or 'no'} positive\n{likeness(positive or [rule['nearest']])}", fontsize=SMALL
    )


def likeness(anchors: Sequence[Mapping[str, float]]) -> str:
    """Similarities of anchors with the object, from the lowest to the highest.

    Examples:
        >>> likeness([{"iou": 0.11, "nwd": 0.5}, {"iou": 0.25, "nwd": 0.5}])
        'IoU 0.11-0.25, NWD 0.50'
    """
    spans = []
    for key, name in (("iou", "IoU"), ("nwd", "NWD")):
        ends = dict.fromkeys(f"{pick(anchor[key] for anchor in anchors):.2f}" for pick in (min, max))
        spans.append(f"{name} {'-'.join(ends)}")
    return ", ".join(spans)


def panel_side(report: Mapping[str, Any]) -> float:
    """Side of the panels, px of the network input: every positive anchor, within ROOM."""
    box = np.array([report["box"]])
    boxes = [anchor["box"] for rule in report["rules"].values() for anchor in rule["positive"] or [rule["nearest"]]]
    reach, side = np.abs(np.array(boxes) - np.tile(centres(box), 2)).max(), np.sqrt(areas(box)[0])
    return float(np.clip(2.2 * reach, ROOM[0] * side, ROOM[1] * side))
