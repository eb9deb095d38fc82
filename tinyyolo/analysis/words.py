"""The report of `tinyyolo analyze` as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyyolo.boxes.similarity import SIMILARITIES
from tinyyolo.io import table

Anchor = Mapping[str, float]


def in_words(report: Mapping[str, Any]) -> str:
    """The tables of the report: positives for each object, objects without, anchors taken."""
    rows, names = report["assigners"], report["sizes"]
    shown = [i for i in range(len(names)) if any(row["objects"][i] for row in rows.values())]

    def numbers(row: Mapping[str, Any], key: str) -> list[int]:
        return [*(row[key][i] for i in shown), sum(row[key])]

    head = [*(names[i] for i in shown), "all"]
    objects = numbers(next(iter(rows.values())), "objects")
    tables = [[["size, px", *head], ["objects", *(f"{n:,}" for n in objects)]]]
    for title, key, scale in (
        ("positives for each object", "positives", 1),
        ("% of objects without any", "without", 100),
    ):
        tables.append([[title, *head]])
        for name, row in rows.items():
            each = [scale * n / max(count, 1) for n, count in zip(numbers(row, key), objects, strict=True)]
            tables[-1].append([name, *(f"{value:.2f}" for value in each)])
    tables.append([["in one epoch", "positives", "negatives", "ignored", "positives by stride", "by h/w"]])
    for name, row in rows.items():
        counts = (sum(row["positives"]), row["negatives"], row["ignored"])
        by_stride = shares(row["anchors"], lambda a: f"{a['stride']:g}")
        by_shape = shares(row["anchors"], lambda a: f"{a['height'] / a['width']:.1g}")
        tables[-1].append([name, *(f"{n:,}" for n in counts), by_stride, by_shape])
    title = f"{report['data']}: {report['objects']:,} objects in {report['images']:,} images, sizes in px of the input"
    return "\n\n".join([title, *map(table, tables)])


def shares(anchors: Sequence[Anchor], name_of: Callable[[Anchor], str]) -> str:
    """Where positives lie, percent by the anchors' names; less than half a percent is left out."""
    counts: Counter[str] = Counter()
    for anchor in anchors:
        counts[name_of(anchor)] += int(anchor["positives"])
    percent = {name: 100 * n / max(counts.total(), 1) for name, n in counts.items()}
    return " ".join(f"{name}:{share:.0f}%" for name, share in percent.items() if share >= 0.5)


def example_in_words(example: Sequence[Mapping[str, Any]]) -> str:
    """The worked example as a table."""
    shifts = " and ".join(map(str, example[0]["shifts"]))
    rows = [["box", *SIMILARITIES]]
    for row in example:
        cells = (" ".join(f"{value:.3f}" for value in row[name]) for name in SIMILARITIES)
        rows.append([f"{row['width']:g}x{row['height']:g}", *cells])
    return f"\nsimilarity of a box with itself moved right and down by {shifts} px\n{table(rows)}"
