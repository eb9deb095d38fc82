"""Records of runs as rows of a table: mean and standard deviation over the seeds of each, percent.

A record is a mapping: `row` (those of one row are its seeds), `label` (its name), `metrics` and `per_class` as
`evaluate` gives them (fractions, -1 where there are no objects), and what is known of `seed`, `data`, `params`,
`gflops`, `seconds`, `commit`, `settings` (text that changes with any setting) and `chosen` (of how many epochs the
weights are the best on the very images that were reported).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinyyolo.evaluation.summary.sheet import Line, Sheet, Spread

Record = Mapping[str, Any]
OF_CLASSES = "AP50"  # the last column of the paper's Table 5
MIXED = "its seeds ran with different settings"


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (of a sample; None of one value).

    Examples:
        >>> mean_std([1.0, 3.0]), mean_std([2.0])
        ((2.0, 1.4142135623730951), (2.0, None))
    """
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def spread(values: Sequence[float | None], scale: float = 100.0, decimals: int = 1) -> Spread | None:
    """Mean and deviation of values times `scale`; None where one is not known or below 0 (no objects).

    Examples:
        >>> spread([0.25, 0.75]), spread([0.25, -1])
        (Spread(mean=50.0, std=35.35533905932738, decimals=1), None)
    """
    known = [v * scale for v in values if v is not None and v >= 0]
    return Spread(*mean_std(known), decimals) if known and len(known) == len(values) else None


def one_or_all(values: Iterable[Any]) -> str | None:
    """Different values, in order; None if none is known.

    Examples:
        >>> one_or_all([3, 3, 4]), one_or_all([None])
        ('3, 4', None)
    """
    return ", ".join(dict.fromkeys(str(v) for v in values if v is not None)) or None


def size_of(records: Sequence[Record], key: str, scale: float, decimals: int) -> Spread | str | None:
    """What is the same for every seed, as a number; the different ones in words where it is not."""
    values = [r.get(key) for r in records]
    if len(set(values)) == 1:
        return spread(values[:1], scale, decimals)
    return one_or_all(None if v is None else f"{v * scale:.{decimals}f}" for v in values)


# Columns beside the figures.
COLUMNS: dict[str, Callable[[Sequence[Record]], Spread | str | None]] = {
    "data": lambda rs: one_or_all(r.get("data") for r in rs),
    "seeds": lambda rs: one_or_all(r.get("seed") for r in rs),
    "M parameters": lambda rs: size_of(rs, "params", 1e-6, 2),
    "GFLOPs": lambda rs: size_of(rs, "gflops", 1.0, 1),
    "hours": lambda rs: spread([r.get("seconds") for r in rs], 1 / 3600, 2),
    "commit": lambda rs: one_or_all(r.get("commit") for r in rs),
}
BEHIND = ("M parameters", "GFLOPs", "hours", "commit")


def grouped(records: Iterable[Record]) -> dict[Any, list[Record]]:
    """Records by row, in the order in which rows come, seeds in theirs."""
    out: dict[Any, list[Record]] = {}
    for record in records:
        out.setdefault(record["row"], []).append(record)
    return {row: sorted(some, key=lambda r: (r.get("seed") is None, r.get("seed"))) for row, some in out.items()}


def figure_names(records: Sequence[Record]) -> list[str]:
    """Metrics that a table shows: every AP, and AR at the highest limit that all records have.

    Examples:
        >>> figure_names([{"metrics": {"AP": 0.1, "AP_vt": 0.2, "AR100": 0.3, "AR1500": 0.4, "oLRP": 0.9}}])
        ['AP', 'AP_vt', 'AR1500']
    """
    names = dict.fromkeys(name for record in records for name in record["metrics"])
    recalls = [n for n in names if re.fullmatch(r"AR\d+", n) and all(n in r["metrics"] for r in records)]
    return [*(name for name in names if name.startswith("AP")), *recalls[-1:]]


def class_names(records: Sequence[Record]) -> list[str]:
    """All classes, in the order in which they come."""
    return list(dict.fromkeys(name for record in records for name in record.get("per_class") or {}))


def notes_of(records: Sequence[Record]) -> tuple[str, ...]:
    """What a reader of a row must know."""
    notes = [MIXED] if len({r.get("settings") for r in records} - {None}) > 1 else []
    epochs = one_or_all(r.get("chosen") or None for r in records)
    if epochs:
        notes.append(f"its weights are the best of {epochs} epochs on the very images that its figures are of")
    return tuple(notes)


def sheet_of(
    records: Sequence[Record],
    *,
    per_class: bool = False,
    before: Sequence[str] = ("seeds",),
    behind: Sequence[str] = BEHIND,
    published: Mapping[Any, Mapping[str, Mapping[str, float]]] | None = None,
) -> Sheet:
    """A table of records, a row for each `row`.

    Args:
        records: see the head of this module.
        per_class: AP of each class and AP50 of all in place of the figures, as the paper's Table 5.
        before: columns of COLUMNS before the figures.
        behind: columns behind them.
        published: row -> data set -> figure -> percent, lines beneath the rows.
    """
    classes = class_names(records) if per_class else []
    names = [OF_CLASSES] if per_class else figure_names(records)
    lines = []
    for row, some in grouped(records).items():
        figures = [spread([((r.get("per_class") or {}).get(name) or {}).get("AP") for r in some]) for name in classes]
        figures += [spread([r["metrics"].get(name) for r in some]) for name in names]
        ends = [[COLUMNS[name](some) for name in columns] for columns in (before, behind)]
        lines.append(Line([some[0]["label"], *ends[0], *figures, *ends[1]], notes_of(some)))
        for data, values in ((published or {}).get(row) or {}).items():
            known = [values.get(name) for name in (*classes, *names)]
            cells = [None if value is None else Spread(float(value)) for value in known]
            lines.append(Line([f"published, {data}", *[""] * len(before), *cells, *[""] * len(behind)], quoted=True))
    return Sheet(["", *before, *classes, *names, *behind], lines)
