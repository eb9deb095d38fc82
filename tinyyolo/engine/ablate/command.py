"""`tinyyolo ablate`: what a spec asks for and is not recorded yet is trained, one row and seed after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.engine.ablate.harness import Harness
from tinyyolo.engine.ablate.page import write_page
from tinyyolo.engine.ablate.spec import Spec, recorded

CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")  # as taskset takes them


def ablate(
    spec: str | Path,
    *,
    data: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    only: str | Sequence[str] = (),
    cpus: str | Sequence[str] | None = None,
    plan: bool = False,
    tables: bool = False,
    commit: bool = False,
    out: str | Path = "runs/ablate",
    runs: str | Path = "runs/ablate",
    **keys: Any,
) -> int:
    """Train the rows of a spec and compare them: tinyyolo ablate table7.yaml data=my.yaml seeds=[0,1,2]

    Tables 6 to 11 of the paper come along as table6.yaml to table11.yaml. Each row, seed and data set is trained by
    `tinyyolo train`; when it is finished it is added to NAME.jsonl with its command, commit, hours, machine and all
    metrics, and NAME.md and NAME.png are written again: it never runs twice. What was cut off goes on from its last
    epoch (stock models start anew). Several processes may share the work.

    A spec is a YAML of `train` (keys of every row, as on the command line), `seeds`, `data` and `rows`: name -> `set`
    (more keys, dotted ones for the model), `label`, `published` ({data set: {AP: percent}}) and, in a checkout, `peer`
    (a stock ultralytics model in place of ours). `base: other.yaml` starts from another spec.

    Args:
        spec: a spec by path, or by the name of one that comes along.
        data: data YAMLs in place of the spec's; `{seed}` in a name stands for the seed.
        seeds: in place of the spec's.
        only: rows.
        cpus: a worker for each, held to these cores by taskset: [0,1] or ["0-3","4-7"].
        plan: print the commands that are left, run nothing.
        tables: only write table and picture again.
        commit: commit each finished run to the git repository in which `out` lies.
        out: folder of NAME.jsonl, NAME.md and NAME.png.
        runs: folder of the training runs, in runs/NAME.
        keys: in place of the spec's `train`, such as epochs=4, device=0 or backbone.weights=resnet50.pth; a row's own
            stand over them.

    Returns:
        1 if a run failed, else 0.

    Raises:
        UserError: a fault in the spec, an unknown row or key, or no data; before anything is trained.
    """
    known, folder = Spec(spec, Path(runs), keys), Path(out).absolute()

    def renew() -> list[Path]:
        return write_page(known, harness.finished(), folder)

    harness = Harness(known, folder, commit, renew)
    if tables:
        print("\n".join(f"Saved {path}" for path in renew()))
        return 0
    numbers = [seeds] if isinstance(seeds, int) else list(seeds or ())
    left = harness.pending(known.jobs(as_list(only), numbers, as_list(data)))
    if plan:
        print("\n".join(recorded(known.command(job), job) for job in left) or "nothing is left to run")
        return 0
    workers: list[str | None] = [*as_list(cpus)] or [None]
    for cores in workers:
        if cores is not None and not CPUS.fullmatch(cores):
            raise UserError(f"cpus={cores}: expected cores such as 0 or 0-3, one entry for each worker")
    with ThreadPoolExecutor(len(workers)) as pool:
        failed = sum(pool.map(lambda cores: harness.work(left, cores), workers))
    print("\n".join(f"Saved {path}" for path in renew()))
    return 1 if failed else 0


def as_list(words: str | Sequence[str] | None) -> list[str]:
    """One word or several as a list."""
    return [words] if isinstance(words, str) else [str(word) for word in words or ()]
