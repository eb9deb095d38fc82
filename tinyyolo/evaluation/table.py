"""The figures of `evaluate` as text, JSON and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo import io
from tinyyolo.io import new_file, table

NOTHING = "-"  # printed where there is no object, or no right detection


def format_table(result: Mapping[str, Any]) -> str:
    """The figures of `evaluate`, percent with one decimal, `all` and then each class; thresholds as scores.

    Examples:
        >>> print(format_table({"AP": 0.2143, "AP_vt": -1.0, "per_class": {"ship": {"AP": 0.1, "threshold": 0.512}}}))
        class    AP  AP_vt  threshold
        all    21.4      -          -
        ship   10.0      -       0.51
    """
    header, rows = table_rows(result)
    texts = [header] + [
        [row[0], *(cell_text(key, v) for key, v in zip(header[1:], row[1:], strict=True))] for row in rows
    ]
    return table(texts)


def format_counts(rows: Mapping[str, Mapping[str, int]], title: str) -> str:
    """Numbers of named rows that share their columns.

    Examples:
        >>> print(format_counts({"all": {"TP": 12, "FP": 3}, "ship": {"TP": 2, "FP": 0}}, "class"))
        class  TP  FP
        all    12   3
        ship    2   0
    """
    columns = list(next(iter(rows.values()), {}))
    return table([[title, *columns]] + [[name, *(str(row[c]) for c in columns)] for name, row in rows.items()])


def table_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Header, and a row for all classes and for each one; None where a figure is absent."""
    rows = {"all": result} | dict(result.get("per_class", {}))
    keys = list(dict.fromkeys(k for row in rows.values() for k, v in row.items() if isinstance(v, (int, float))))
    return ["class", *keys], [[name, *(row.get(key) for key in keys)] for name, row in rows.items()]


def cell_text(key: str, value: float | None) -> str:
    """A figure in percent, a threshold as it is, a dash where there is none."""
    if value is None or math.isnan(value) or value < 0:
        return NOTHING
    return f"{value:.2f}" if key == "threshold" else f"{100 * value:.1f}"


def plain(value: Any) -> Any:
    """`value` ready for JSON: NaN becomes null, arrays are left out of mappings.

    Examples:
        >>> plain({"AP": 0.5, "oLRP": float("nan"), "per_class": {"ship": {"AP": -1.0}}})
        {'AP': 0.5, 'oLRP': None, 'per_class': {'ship': {'AP': -1.0}}}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if not hasattr(v, "shape")}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write fractions by name; NaN as null."""
    io.write_json(path, plain(result))


def write_csv(result: Mapping[str, Any], path: Path) -> None:
    """Write one row for all classes and one for each; fractions, empty where there is none."""
    header, rows = table_rows(result)
    with new_file(path, overwrite=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for name, *values in rows:
            writer.writerow([name, *("" if v is None or math.isnan(v) or v < 0 else repr(v) for v in values)])
