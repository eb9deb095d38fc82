"""Rows of an ablation: the figures of every seed, their mean and deviation, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyyolo.evaluation.summary.rows import mean_std
from tinyyolo.plots.charts import chart, save

COLUMN, ROW = 2.6, 0.32  # inches of a metric's panel and of a row
MARGINS = (2.2, 1.4)  # inches for the names and the titles


class Panel(NamedTuple):
    """What is drawn of one data set.

    Attributes:
        title: stands above it.
        rows: names from top to bottom.
        values: metric -> fractions of the seeds, row by row.
        published: data set -> metric -> percent, row by row.
    """

    title: str
    rows: Sequence[str]
    values: Mapping[str, Sequence[Sequence[float]]]
    published: Sequence[Mapping[str, Mapping[str, float]]]


def draw(panels: Sequence[Panel], path: Path) -> Path:
    """A line of charts for each data set, one a metric: seeds as dots, mean and deviation, published figures hollow."""
    metrics, most = list(panels[0].values), max(len(panel.rows) for panel in panels)
    size = MARGINS[0] + COLUMN * len(metrics), len(panels) * (MARGINS[1] + ROW * most)
    figure, axes = chart(len(panels), len(metrics), size)
    handles: dict[str, Any] = {}
    for line, panel in zip(axes, panels, strict=True):
        for axis, metric in zip(line, metrics, strict=True):
            one_metric(axis, panel, metric)
            axis.set_yticks(range(len(panel.rows)), panel.rows if axis is line[0] else [])
            axis.set_ylim(len(panel.rows) - 0.5, -0.5)
            handles |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        line[0].set_title(panel.title, loc="left", fontsize=9)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=8)
    return save(figure, path)


def one_metric(axis: Any, panel: Panel, metric: str) -> None:
    """The rows of a panel in one metric."""
    for y, seeds in enumerate(panel.values[metric]):
        if seeds:
            values = [100 * value for value in seeds]
            mean, std = mean_std(values)
            axis.errorbar(mean, y, xerr=std, fmt="o", color="C0", capsize=3)
            axis.plot(values, [y] * len(values), ".", color="C0", alpha=0.4)
        for k, (source, known) in enumerate(panel.published[y].items()):
            if known.get(metric) is not None:
                label = f"published, {source}"
                axis.plot(known[metric], y, "D", mfc="none", color=f"C{k + 1}", label=label)
    axis.set_xlabel(f"{metric}, %")
    axis.grid(axis="x", alpha=0.3)
