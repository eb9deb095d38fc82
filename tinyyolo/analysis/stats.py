"""`tinyyolo data stats`: the paper's Table 1, Table 2 and Fig. 5 for any data set, and what follows for training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, above
from tinyyolo.datasets.audit.faults import tell_doubts
from tinyyolo.datasets.spec import load
from tinyyolo.datasets.stats.numbers import collect, distinct, objects_of
from tinyyolo.io import table, write_json
from tinyyolo.plots.stats import draw


def stats(
    data: str,
    *,
    path: str | Path | None = None,
    split: str | None = None,
    imgsz: int | None = None,
    figure: bool = True,
    runs: str | Path = "runs/data-stats",
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
    try:
        above(0, **({} if imgsz is None else {"imgsz": imgsz}))
    except ValueError as error:
        raise UserError(str(error)) from error
    spec = load(data, path)
    splits = {name: spec.measured(name) for name in ([split] if split else spec.splits)}
    for found in splits.values():
        tell_doubts(found)
    report = collect(splits, imgsz=imgsz) | {"data": str(spec.file)}
    target = Path(runs) / f"{spec.title}.json"
    write_json(target, report)
    print(in_words(report))
    print(f"numbers: {target}")
    if figure:
        parts = distinct(splits)
        names = list(parts[0].names.values())
        print(f"figure: {draw(names, objects_of(parts, imgsz), target.with_suffix('.png'))}")
    return 0


def in_words(report: Mapping[str, Any]) -> str:
    """Tables 1 and 2 as text, then the advice."""
    columns = dict(report["splits"]) | ({"all": report["all"]} if len(report["splits"]) > 1 else {})
    every, cells = report["all"], list(columns.values())
    unit = f"px at imgsz {report['imgsz']}" if report["imgsz"] else "px"
    rows = [["", *columns]]
    for key in ("images", "boxes", "ignore_regions"):
        rows.append([key.replace("_", " "), *(f"{c[key]:,}" for c in cells)])
    rows += [[f"  {name}", *(f"{c['classes'][name]:,}" for c in cells)] for name in every["classes"]]
    rows.append([f"absolute size, {unit}", *(in_short(c["size"], 1) for c in cells)])
    rows.append(["  median", *(in_short(c["size"], 1, "median") for c in cells)])
    if every["ignore_regions"]:
        both = [c["size_with_ignore_regions"] for c in cells]
        rows.append(["  with ignore regions", *(in_short(values, 1) for values in both)])
        rows.append(["  median", *(in_short(values, 1, "median") for values in both)])
    rows.append(["relative size", *(in_short(c["relative_size"], 3) for c in cells)])
    rows += [[f"  {name}", *(f"{100 * c['shares'][name]:.1f} %" for c in cells)] for name in every["shares"]]
    rows.append(["objects an image", *(in_short(c["per_image"], 1) for c in cells)])
    return "\n".join([report.get("data", ""), table(rows), "", *(f"- {line}" for line in report["advice"]["words"])])


def in_short(values: Mapping[str, Any], digits: int, *keys: str) -> str:
    """'12.7 ± 5.6', mean and standard deviation, or another number; '-' where there is none."""
    found = [values[key] for key in keys or ("mean", "std")]
    return "-" if None in found else " ± ".join(f"{value:.{digits}f}" for value in found)
