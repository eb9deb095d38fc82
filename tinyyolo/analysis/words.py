"""The report of `tinyyolo analyze` as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyyolo.boxes.similarity import SIMILARITIES


def in_words(report: Mapping[str, Any]) -> str:
    """The tables of the report: positives for each object, objects without, anchors taken."""
    rows, names = report["assigners"], report["sizes"]
    shown = [i for i in range(len(names)) if any(row["objects"][i] for row in rows.values())]
    width = max(map(len, rows)) + 2
    head = "".join(f"{names[i]:>9}" for i in shown) + f"{'all':>9}"
    lines = [
        f"{report['data']}: {report['objects']:,} objects in {report['images']:,} images, sizes in px of the input",
        "",
    ]
    first = next(iter(rows.values()))["objects"]
    lines += [f"{'objects':<{width}}" + "".join(f"{first[i]:>9,}" for i in shown) + f"{sum(first):>9,}"]
    for title, key, scale in (
        ("positives for each object", "positives", 1),
        ("% of objects without any", "without", 100),
    ):
        lines += ["", f"{title}", " " * width + head]
        for name, row in rows.items():
            cells = [scale * row[key][i] / max(row["objects"][i], 1) for i in shown]
            cells.append(scale * sum(row[key]) / max(sum(row["objects"]), 1))
            lines.append(f"{name:<{width}}" + "".join(f"{cell:9.2f}" for cell in cells))
    lines += [
        "",
        f"{'in one epoch':<{width}}{'positives':>12}{'negatives':>14}{'ignored':>12}   positives by stride, by h/w",
    ]
    for name, row in rows.items():
        numbers = f"{sum(row['positives']):>12,}{row['negatives']:>14,}{row['ignored']:>12,}"
        lines.append(f"{name:<{width}}{numbers}   {shares(row['anchors'])}")
    return "\n".join(lines)


def shares(anchors: Sequence[Mapping[str, float]]) -> str:
    """Where positives lie: percent by stride, then by height / width; less than half a percent is left out."""
    total = max(sum(a["positives"] for a in anchors), 1)
    texts = []
    strides, shapes = [f"{a['stride']:g}" for a in anchors], [f"{a['height'] / a['width']:.1g}" for a in anchors]
    for names in (strides, shapes):
        counts: dict[str, float] = {}
        for name, anchor in zip(names, anchors, strict=True):
            counts[name] = counts.get(name, 0) + 100 * anchor["positives"] / total
        texts.append(" ".join(f"{name}:{percent:.0f}%" for name, percent in counts.items() if percent >= 0.5))
    return ", ".join(texts)


def example_in_words(example: Sequence[Mapping[str, Any]]) -> str:
    """The worked example as a table."""
    shifts = " and ".join(map(str, example[0]["shifts"]))
    lines = ["", f"similarity of a box with itself moved right and down by {shifts} px"]
    lines.append(f"{'box':<10}" + "".join(f"{name:>14}" for name in SIMILARITIES))
    for row in example:
        cells = (" ".join(f"{value:.3f}" for value in row[name]) for name in SIMILARITIES)
        lines.append(f"{row['width']:g}x{row['height']:g}".ljust(10) + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)
