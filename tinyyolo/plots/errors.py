"""The paper's Fig. 9: what several detectors found, missed and invented in the same images, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.evaluation.errors import CAUSES, MISSED, REGION, TRUE, Errors, count_errors
from tinyyolo.evaluation.report import COLOURS
from tinyyolo.plots import charts
from tinyyolo.plots.frames import SMALL, Crop, Style, busiest, legend, numbered, panel, short

ROW, BARS = 2.1, 2.6  # inches: height of a row, width of its bars
HEAD = 0.7  # inches, for the legend and what the figure says of itself
GREY = "#9a9a9a"


def colour_of(kind: str) -> str:
    """The report's colour of TP, FP or FN for matplotlib."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[kind])


STYLES = {  # drawn in this order
    "region": Style("ignore region", GREY, (0, (1, 1))),
    "TP": Style("true positive (TP)", colour_of("TP")),
    "FP": Style("false positive (FP)", colour_of("FP")),
    "FN": Style("missed object (FN)", colour_of("FN"), (0, (2.2, 1))),
}
BAR_NAMES = ("TP", "FN", *CAUSES.values())


def error_page(found: Mapping[str, Errors], files: Mapping[int, Path | None], path: str | Path) -> Path:
    """A row for each detector: the same parts of images with its boxes, and bars of its counts over all images.

    Green is right, blue wrong, red missed. An image is shown where most boxes of all rows are.

    Args:
        found: name of a detector -> its verdicts, all on the same objects.
        files: index of an image -> its file, or None to draw its boxes alone; a column each.
        path: .pdf, .svg or .png.

    Raises:
        UserError: an image cannot be read.
    """
    crops = [crop_of(list(found.values()), index, file) for index, file in files.items()]
    widths = [ROW * crop.aspect for crop in crops] + [BARS]
    figure, axes = charts.chart(len(found), len(widths), (sum(widths), ROW * len(found) + HEAD), widths)
    regions = False
    for row, (name, errors) in zip(axes, found.items(), strict=True):
        for axis, index, crop in zip(row, files, crops, strict=False):
            boxes = boxes_of(errors, index, crop)
            regions |= bool(len(boxes["region"]))
            draw_panel(axis, crop, boxes)
        row[0].set_ylabel(name, fontsize=SMALL + 2, fontweight="bold")
        draw_bars(row[-1], shares(errors))
    for axis, index in zip(axes[-1], files, strict=False):
        axis.set_xlabel(short(next(iter(found.values())).truth.file_names[index]), fontsize=SMALL - 1)
    share_bars(axes[:, -1])
    legend(figure, [style for word, style in STYLES.items() if word != "region" or regions])
    return charts.save(figure, path)


def crop_of(found: list[Errors], index: int, file: Path | None) -> Crop:
    """The part of an image with most boxes of all detectors."""
    truth = found[0].truth
    boxes = [truth.boxes[truth.rows(index)]]
    for errors in found:
        rows = errors.detections.rows(index)
        wrong_or_right = np.isin(errors.verdict[rows], [TRUE, *CAUSES])
        boxes.append(errors.detections.boxes[rows][wrong_or_right])
    every = np.concatenate(boxes)
    return busiest(file, truth.sizes_hw[index].tolist(), every, every)


def boxes_of(errors: Errors, index: int, crop: Crop) -> dict[str, np.ndarray]:
    """Boxes (K, 4) of one image by the words of STYLES, those with their middle in the crop."""
    truth, found = errors.truth, errors.detections
    own, new = truth.rows(index), found.rows(index)
    boxes = {
        "region": truth.boxes[own][errors.state[own] == REGION],
        "TP": found.boxes[new][errors.verdict[new] == TRUE],
        "FP": found.boxes[new][np.isin(errors.verdict[new], list(CAUSES))],
        "FN": truth.boxes[own][errors.state[own] == MISSED],
    }
    return {word: some[crop.holds(some)] for word, some in boxes.items()}


def draw_panel(axis: Any, crop: Crop, boxes: Mapping[str, np.ndarray]) -> None:
    """A part of an image with its boxes, under their numbers."""
    panel(axis, crop, boxes, STYLES)
    axis.set_title(numbered({word: len(boxes[word]) for word in ("TP", "FP", "FN")}), fontsize=SMALL - 1, pad=2)


def shares(errors: Errors) -> dict[str, tuple[int, float]]:
    """Number and share over all images by BAR_NAMES: TP and FN of the objects, each cause of the false positives.

    Examples:
        >>> from tinyyolo.evaluation import find_errors
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ship"}],
        ...       "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, y, 6, 6]} for y in (0, 90)]}
        >>> dt = [{"image_id": 1, "category_id": 1, "bbox": [x, 0, 6, 6], "score": 0.9} for x in (0, 1, 3, 50)]
        >>> {name: share for name, share in shares(find_errors(gt, dt, threshold=0.5)).items() if share[0]}
        {'TP': (1, 0.5), 'FN': (1, 0.5), 'localisation': (1, 0.333...), 'duplicate': (1, 0.333...), 'background': ...}
    """
    counts = count_errors(errors)["all"]["all"]
    whole = {"TP": counts["objects"], "FN": counts["objects"]}
    return {name: (counts[name], counts[name] / max(whole.get(name, counts["FP"]), 1)) for name in BAR_NAMES}


def draw_bars(axis: Any, numbers: Mapping[str, tuple[int, float]]) -> None:
    """A bar for each number, and its share beside it."""
    colours = [colour_of(name if name in COLOURS else "FP") for name in numbers]
    drawn = axis.barh(range(len(numbers)), [count for count, _ in numbers.values()], color=colours, height=0.72)
    words = [f"{count:,} ({share:.0%})" for count, share in numbers.values()]
    axis.bar_label(drawn, words, fontsize=SMALL - 1, padding=2)
    names = [name if name in COLOURS else f"FP: {name}" for name in numbers]
    axis.set_yticks(range(len(numbers)), names, fontsize=SMALL - 1)
    axis.invert_yaxis()
    axis.tick_params(length=0)


def share_bars(axes: Any) -> None:
    """One scale for the bars of all rows, with room for the numbers beside the longest."""
    most = max(axis.get_xlim()[1] for axis in axes)
    for axis in axes:
        axis.set(xlim=(0, 1.45 * most), xticks=[])
        axis.spines["bottom"].set_visible(False)
    axes[0].set_title(
        "all images; TP, FN: % of the objects,\ncauses of FP: % of the false positives", fontsize=SMALL - 1
    )
