"""`tinyyolo data stats`: the paper's Table 1, Table 2 and Fig. 5 for any data set, and what follows for training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo.datasets.spec import load
from tinyyolo.datasets.stats.numbers import collect, scales_of
from tinyyolo.io import new_file
from tinyyolo.plots.stats import draw


def stats(
    data: str,
    *,
    path: str | None = None,
    split: str | None = None,
    imgsz: int | None = None,
    figure: bool = True,
    runs: str = "runs/data-stats",
) -> int:
    """Statistics of a data set: objects by class, split and size, a figure, and advice with the numbers behind it.

    Args:
        data: a data YAML, by path or name.
        path: the root of the data, instead of the YAML's.
        split: only this one.
        imgsz: sizes as after resizing the longer side to this; the default is original pixels.
        figure: draw NAME.png (the paper's Fig. 5).
        runs: folder of NAME.json and NAME.png.

    Raises:
        UserError: no such YAML, split or annotations.
    """
    spec = load(data, path)
    splits = {name: spec.read(name) for name in ([split] if split else spec.splits)}
    report = collect(splits, imgsz=imgsz) | {"data": str(spec.file)}
    target = Path(runs) / f"{spec.title}.json"
    with new_file(target, overwrite=True) as stream:
        json.dump(report, stream, indent=1)
    print(in_words(report))
    print(f"numbers: {target}")
    if figure:
        print(f"figure: {draw(splits, target.with_suffix('.png'), scales_of(splits, imgsz))}")
    return 0


def in_words(report: Mapping[str, Any]) -> str:
    """Tables 1 and 2 as text, then the advice."""
    columns = dict(report["splits"]) | ({"all": report["all"]} if len(report["splits"]) > 1 else {})
    unit = f"px at imgsz {report['imgsz']}" if report["imgsz"] else "px"
    rows = [["", *columns]]
    for key in ("images", "boxes", "ignore_regions"):
        rows.append([key.replace("_", " "), *(f"{c[key]:,}" for c in columns.values())])
    rows += [[f"  {name}", *(f"{c['classes'][name]:,}" for c in columns.values())] for name in report["all"]["classes"]]
    rows.append([f"absolute size, {unit}", *(plus_minus(c["size"], 1) for c in columns.values())])
    rows.append(["  median", *(one_digit(c["size"]["median"]) for c in columns.values())])
    if report["all"]["ignore_regions"]:
        both = [c["size_with_ignore_regions"] for c in columns.values()]
        rows.append(["  with ignore regions", *(plus_minus(values, 1) for values in both)])
        rows.append(["  median", *(one_digit(values["median"]) for values in both)])
    rows.append(["relative size", *(plus_minus(c["relative_size"], 3) for c in columns.values())])
    rows += [
        [f"  {name}", *(f"{100 * c['shares'][name]:.1f} %" for c in columns.values())]
        for name in report["all"]["shares"]
    ]
    rows.append(["objects an image", *(plus_minus(c["per_image"], 1) for c in columns.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([report.get("data", ""), *table, "", *(f"- {line}" for line in report["advice"]["words"])])


def plus_minus(values: Mapping[str, Any], digits: int) -> str:
    """'12.7 ± 5.6'."""
    return "-" if values["mean"] is None else f"{values['mean']:.{digits}f} ± {values['std']:.{digits}f}"


def one_digit(value: float | None) -> str:
    """'12.7'."""
    return "-" if value is None else f"{value:.1f}"
