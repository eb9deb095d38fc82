"""`tinyyolo table`: runs and seeds in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.engine.history.records import read_lines, read_run, state_of
from tinyyolo.evaluation.summary.rows import BEHIND, grouped, sheet_of
from tinyyolo.evaluation.summary.sheet import form_of, write
from tinyyolo.io import tell

LINES = ".jsonl"  # of an ablation


def table(
    *runs: str | Path,
    per_class: bool = False,
    names: Sequence[str] | str | None = None,
    format: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> None:
    """Several runs and seeds in one table: tinyyolo table runs/train runs/train-2 out=table.tex

    A row is the runs whose settings and data differ in nothing but the seed: mean and standard deviation in percent,
    parameters, GFLOPs at the run's image size, hours of training, commit. What is not known is a dash, and a line says
    so; what was chosen on the images that it reports has a note.

    Args:
        runs: folders of runs, and NAME.jsonl of `tinyyolo ablate`.
        per_class: AP of each class, as the paper's Table 5.
        names: a name for each of the runs in order; those of one name are the seeds of one row.
        format: markdown, latex (booktabs) or csv; by default how `out` ends, .md, .tex or .csv.
        out: a file to write the table to as well.
        overwrite: replace that file.

    Raises:
        UserError: no runs, one that has no metrics or a damaged file, or another number of names.
    """
    if not runs:
        raise UserError("table: no runs are named; usage: tinyyolo table runs/train runs/train-2")
    form = form_of(format, out)
    records = records_of([Path(run) for run in runs])
    if names is not None:
        given = [names] if isinstance(names, str) else [str(name) for name in names]
        if len(given) != len(records):
            raise UserError(f"names={given}: {len(given)} names for {len(records)} runs")
        records = [{**record, "row": name, "label": name} for record, name in zip(records, given, strict=True)]
    else:
        records = tell_apart(records)
    for record in records:
        tell_of(record)
    for some in grouped(records).values():
        for seed, count in Counter(r.get("seed") for r in some).items():
            if count > 1 and seed is not None:
                tell(f"{some[0]['label']}: {count} runs of seed {seed}: their deviation is not that of seeds")
    data = ["data"] if len({record.get("data") for record in records}) > 1 else []
    sheet = sheet_of(records, per_class=per_class, before=[*data, "seeds"], behind=() if per_class else BEHIND)
    print(write(sheet, form, out, overwrite), end="")
    if out is not None:
        tell(f"Saved {out}")


def records_of(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of folders and of an ablation's files, with the `source` of each."""
    out = []
    for run in runs:
        if run.suffix != LINES:
            out.append({**read_run(run), "source": run})
            continue
        if not (found := read_lines(run)):
            raise UserError(f"{run}: no run is recorded in it")
        old = {} if all("gflops" in record for record in found) else {"such key, before they were counted": "GFLOPs"}
        for record in found:
            row = (str(run), record["row"], record.get("data"))
            out.append({**record, "row": row, "source": run, "lacks": old})
    return out


def tell_apart(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records whose rows have names of their own: another row of one name and data carries where it comes from."""
    rows = {record["row"]: record for record in reversed(records)}  # the first of each
    times = Counter((record["label"], record.get("data")) for record in rows.values())
    out = []
    for record in records:
        label, first = record["label"], rows[record["row"]]
        if times[first["label"], first.get("data")] > 1:
            label = f"{label} ({first['source']})"
        out.append({**record, "label": label})
    return out


def tell_of(record: dict[str, Any]) -> None:
    """Say what is not known of a run, and that it is not finished."""
    source, lacks = record["source"], record["lacks"]
    if lacks:
        tell(f"{source}: not known are {'; '.join(f'{what} (no {file})' for file, what in lacks.items())}")
    if source.suffix != LINES and state_of(source) == "resume":
        tell(f"{source}: not finished: its figures are those of its last validation so far")
