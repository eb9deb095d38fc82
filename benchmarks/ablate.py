"""Rows of overrides x seeds x data, each trained by the `tinyyolo train` command, as a table and a plot.

    python benchmarks/ablate.py benchmarks/specs/table7.yaml                       # what is not finished yet
    python benchmarks/ablate.py benchmarks/specs/recipe.yaml --data my.yaml --cpus 0 1 --commit
    python benchmarks/ablate.py benchmarks/specs/recipe.yaml --data my.yaml --only default shape --seeds 0
    python benchmarks/ablate.py benchmarks/specs/table7.yaml --tables              # only draw again

A finished (row, seed, data) is appended at once to docs/results/NAME.jsonl with its command, commit, seconds, machine
and all metrics, and never runs again; --commit commits it. A run that was cut off is resumed from its last epoch
(peers start anew). Processes share the work: each run holds a lock that ends with the process, even a killed one.
--cpus gives one worker per entry, held to those cores by taskset. `{seed}` in --data stands for the seed.

A spec: `train` (keys of every row, as on the command line), `seeds`, `data`, and `rows`: name -> `set` (more keys,
dotted ones for the model), `label`, `peer` (a stock ultralytics model, see peers.py, in place of the model) and
`published` ({data set: {AP: percent}}). `base: other.yaml` starts from another spec.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from tinyyolo.config import UserError, load_model_yaml, load_yaml, merge, suggest

ROOT = Path(__file__).resolve().parent.parent
HEADLINE = ("AP", "AP50", "AP75", "AP_vt", "AP_t", "AP_s", "AP_m", "AR1500")
PLOTTED = ("AP", "AP50", "AP_vt", "AP_t")
SPEC_KEYS = {"title", "note", "train", "seeds", "data", "rows", "plot"}
ROW_KEYS = {"set", "label", "peer", "published"}
MACHINE_KEYS = {"device", "workers", "cache"}  # where and how fast, not what
NOT_SETTINGS = MACHINE_KEYS | {
    "project",
    "name",
    "data",
    "seed",
    "exist_ok",
    "plots",
    "verbose",
    "model",
    "mode",
    "task",
}
TAIL = 12  # lines of a failed run's log that are shown
GIT_TRIES = 10
appending = threading.Lock()


@dataclass(frozen=True)
class Job:
    """One run: a row of the spec with a seed and a data YAML."""

    row: str
    seed: int
    data: str  # as given, `{seed}` included

    @property
    def title(self) -> str:
        """The data's name in the results."""
        path = Path(self.data)
        return path.parent.name if path.stem == "data" else path.stem

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes a run the same run."""
        return self.row, self.seed, self.title

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.row}-{self.title}-{self.seed}".replace("{seed}", "split")

    @property
    def file(self) -> str:
        """The data YAML: absolute where it is a file, else its name in data/."""
        path = Path(self.data.replace("{seed}", str(self.seed))).expanduser()
        return str(path.absolute()) if path.is_file() else str(path)


class Ablation:
    """A spec and where its results go.

    Args:
        path: the spec.
        out: folder of the results.
        runs: folder of the training runs.
        extra: keys of MACHINE_KEYS for every run.

    Raises:
        UserError: an unreadable spec, or an unknown key in it.
    """

    def __init__(self, path: Path, out: Path, runs: Path, extra: Mapping[str, Any] | None = None):
        self.spec, self.extra = read_spec(path), dict(extra or {})
        self.name, self.out, self.runs = path.stem, out, (runs / path.stem).absolute()
        self.rows: dict[str, dict[str, Any]] = {row: dict(given or {}) for row, given in self.spec["rows"].items()}
        self.results = out / f"{self.name}.jsonl"

    def jobs(self, only: Sequence[str], seeds: Sequence[int], data: Sequence[str]) -> list[Job]:
        """All runs asked for, one seed of every row first.

        Raises:
            UserError: no such row, or no data.
        """
        for row in only:
            if row not in self.rows:
                raise UserError(f"--only {row}: no such row; {suggest(row, self.rows)}")
        given = self.spec.get("data") or []
        files = list(data) or ([given] if isinstance(given, str) else list(given))
        if not files:
            raise UserError(f"{self.name}: the spec names no data: --data my.yaml")
        seeds = list(seeds) or self.spec.get("seeds") or [0]
        return [Job(row, seed, file) for file, seed, row in product(files, seeds, list(only) or self.rows)]

    # ---- one run

    def keys(self, job: Job) -> dict[str, Any]:
        """The keys of the run's command but for where it writes."""
        row = self.rows[job.row]
        common = dict(self.spec.get("train") or {})
        if "peer" in row:
            common = {key: common[key] for key in ("epochs", "imgsz", "batch", *MACHINE_KEYS) if key in common}
            common["model"] = row["peer"]
        return {**common, **(row.get("set") or {}), **self.extra, "data": job.file, "seed": job.seed}

    def command(self, job: Job) -> list[str]:
        """The words of the run's command."""
        where = {"project": shown_path(self.runs), "name": job.name}
        if "peer" in self.rows[job.row]:
            program = ["python", "benchmarks/peers.py"]
        else:
            program, where = ["tinyyolo", "train"], {**where, "exist_ok": True}
        return [*program, *[f"{key}={text(value)}" for key, value in {**self.keys(job), **where}.items()]]

    def settings(self, job: Job) -> dict[str, Any]:
        """Every setting that decides the result, a model's own defaults included.

        Raises:
            UserError: a key or value that the command would refuse.
        """
        keys = self.keys(job)
        if "peer" in self.rows[job.row]:
            return {key: value for key, value in keys.items() if key not in NOT_SETTINGS} | {"peer": keys["model"]}
        from tinyyolo.engine.arguments import OWN, resolve

        model = load_model_yaml(keys["model"], {k: v for k, v in keys.items() if "." in k})
        plain = {k: v for k, v in keys.items() if "." not in k and k not in {"model", "data"}}
        args = resolve("train", model.get("train") or {}, plain)
        # A key that is new to tinyyolo and left at its default changes no result, and so no fingerprint.
        args = {key: value for key, value in args.items() if key not in OWN or value != OWN[key]}
        if args.get("tile") == "off":  # what runs did that were recorded before images were cut
            del args["tile"]
        # Runs were from scratch and said `true` before there were weights to start from; now `true` names these.
        starts: dict[Any, Any] = {False: True, True: "shipped"}
        args["pretrained"] = starts.get(args["pretrained"], args["pretrained"])
        settings = {key: value for key, value in args.items() if key not in NOT_SETTINGS}
        return settings | {"model": {k: v for k, v in model.items() if k not in {"published", "train"}}}

    def run(self, job: Job, cpus: str | None, lock: int) -> dict[str, Any] | None:
        """Train and read the figures; None if the command failed. The command holds on to the open file `lock`."""
        folder, words, settings = self.runs / job.name, self.command(job), self.settings(job)
        peer = "peer" in self.rows[job.row]
        record = {"row": job.row, "label": self.rows[job.row].get("label") or job.row, "seed": job.seed}
        record |= {"data": job.title, "command": recorded(words, job), "commit": commit(), "started": now()}
        known = self.runs / f"{job.name}.settings"  # a folder of other settings is not continued
        same = known.exists() and known.read_text() == fingerprint(settings)
        state = state_of(folder) if same and not peer else "new"
        spent = logged_seconds(folder) if state != "new" else 0.0
        if state == "new" and folder.exists():
            shutil.rmtree(folder)
        known.write_text(fingerprint(settings))
        start = time.monotonic()
        if state != "done":
            actual = [sys.executable, str(ROOT / words[1])] if peer else [sys.executable, "-m", "tinyyolo.cli", "train"]
            again = [f"resume={folder / 'weights' / 'last.pt'}"]
            actual += again if state == "resume" else [w for w in words[2:] if not w.startswith("project=")]
            actual += [] if state == "resume" else [f"project={self.runs}"]
            with open(self.runs / f"{job.name}.log", "a", encoding="utf-8") as log:
                done = subprocess.run(
                    [*(["taskset", "-c", cpus] if cpus else []), *actual],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment(cpus),
                    pass_fds=[lock],
                    check=False,
                )
            if done.returncode:
                return None
        record |= {"seconds": round(spent + (time.monotonic() - start if state != "done" else 0), 1)}
        record |= {"resumed": state != "new", "machine": machine(cpus, self.keys(job).get("device"))}
        record |= {key: settings[key] for key in ("epochs", "imgsz", "batch")}
        record |= {"settings": fingerprint(settings), "images": set_sizes(job.file)} | figures(folder, peer)
        return record

    # ---- the record

    def finished(self) -> list[dict[str, Any]]:
        """All recorded runs; half a line at the end, of a process killed in writing, is no record."""
        if not self.results.exists():
            return []
        out = []
        lines = self.results.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines):
            try:
                out += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                if number < len(lines) - 1:
                    raise UserError(f"{self.results}:{number + 1}: not JSON: {error}") from error
        return out

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one run to the record, at once and whole, whoever else writes."""
        self.out.mkdir(parents=True, exist_ok=True)
        with open(self.results, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # half a line of a killed process
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write((json.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def lock(self, job: Job) -> Iterator[int | None]:
        """The lock of a run as an open file, None where another holds it; it ends with the last process that has it."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with open(self.runs / f"{job.name}.lock", "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield file.fileno()

    def work(self, jobs: list[Job], cpus: str | None, commits: bool) -> int:
        """Take runs off the shared list until it is empty; returns how many failed."""
        failed = 0
        while True:
            with appending:
                if not jobs:
                    return failed
                job = jobs.pop(0)
            with self.lock(job) as lock:
                if lock is None:
                    print(f"{job.name}: another process is at it")
                    continue
                if job.key in {key_of(record) for record in self.finished()}:
                    continue
                print(f"{job.name}: started {now()}", flush=True)
                record = self.run(job, cpus, lock)
                if record is None:
                    failed += 1
                    log = self.runs / f"{job.name}.log"
                    print(f"{job.name}: FAILED, {log}:\n" + "\n".join(log.read_text().splitlines()[-TAIL:]))
                    continue
                with appending:
                    self.append(record)
                    self.tables()
                    if commits:
                        commit_results(self, job)
            shown = " ".join(f"{name} {percent(record['metrics'].get(name))}" for name in HEADLINE)
            print(f"{job.name}: {record['seconds']:.0f} s, {shown}", flush=True)

    # ---- tables

    def tables(self) -> None:
        """Write NAME.md and NAME.png from the record."""
        records = self.finished()
        groups = {
            data: self.grouped([r for r in records if r["data"] == data])
            for data in dict.fromkeys(r["data"] for r in records)
        }
        content = markdown(self, groups)
        write_whole(self.out / f"{self.name}.md", content)
        if groups:
            draw(self, groups, self.out / f"{self.name}.png")

    def grouped(self, records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Runs by row, in the spec's order, then rows that have left the spec."""
        names = dict.fromkeys([*self.rows, *[r["row"] for r in records]])
        out = {row: sorted((r for r in records if r["row"] == row), key=lambda r: r["seed"]) for row in names}
        return {row: some for row, some in out.items() if some}


def read_spec(path: Path) -> dict[str, Any]:
    """A spec with its `base` applied.

    Raises:
        UserError: unreadable, an unknown key, or no rows.
    """
    spec = load_yaml(path)
    if "base" in spec:
        spec = merge(read_spec(path.parent / str(spec["base"])), {k: v for k, v in spec.items() if k != "base"})
    for key in spec:
        if key not in SPEC_KEYS:
            raise UserError(f"{path}: {key}: unknown key; {suggest(key, SPEC_KEYS)}")
    if not isinstance(spec.get("rows"), dict) or not spec["rows"]:
        raise UserError(f"{path}: rows: expected a mapping name: {{set: ...}}, found {spec.get('rows')!r}")
    for row, given in spec["rows"].items():
        for key in given or {}:
            if key not in ROW_KEYS:
                raise UserError(f"{path}: rows.{row}.{key}: unknown key; {suggest(key, ROW_KEYS)}")
    return spec


def text(value: Any) -> str:
    """A value as the command line takes it.

    Examples:
        >>> text(True), text(None), text(0.5), text({"type": "shape", "ratio": 4.0}), text([8, 11])
        ('true', 'null', '0.5', '{type: shape, ratio: 4.0}', '[8, 11]')
    """
    if isinstance(value, (Mapping, list, tuple)):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf")).strip()
    return (
        {True: "true", False: "false", None: "null"}[value]
        if value is None or value is True or value is False
        else str(value)
    )


def shown_path(path: Path) -> str:
    """Relative to the repository where it lies in it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def recorded(words: Sequence[str], job: Job) -> str:
    """The command as others can use it: data by its file name, not by its place on this machine."""
    return shlex.join(f"data={Path(job.file).name}" if word.startswith("data=") else word for word in words)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Eight hex digits that change with any setting."""
    return hashlib.sha1(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]


def key_of(record: Mapping[str, Any]) -> tuple[str, int, str]:
    """`Job.key` of a recorded run."""
    return record["row"], record["seed"], record["data"]


def state_of(folder: Path) -> str:
    """Of a run's folder: "done" (also finally validated), "resume" (cut off after an epoch) or "new"."""
    last, found = folder / "weights" / "last.pt", folder / "predictions.json"
    if not last.exists():
        return "new"
    if found.exists() and found.stat().st_mtime >= last.stat().st_mtime:
        return "done"  # predictions are written by the final validation only
    from tinyyolo.engine import checkpoint

    try:
        return "resume" if checkpoint.load(last).get("resume") else "new"
    except UserError:  # cut off in writing
        return "new"


def logged_seconds(folder: Path) -> float:
    """Training seconds that results.csv tells of; its clock starts anew at every resume."""
    path = folder / "results.csv"
    if not path.exists():
        return 0.0
    with open(path, encoding="utf-8", newline="") as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    ends = [t for t, following in zip(times, [*times[1:], 0.0], strict=True) if following < t]
    return sum(ends)


def environment(cpus: str | None) -> dict[str, str]:
    """Threads for the cores of `cpus` ("0", "0-3", "0,2")."""
    out = {**os.environ, "PYTHONUNBUFFERED": "1", "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false"}
    if cpus:
        out |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(count_cpus(cpus)))
    return out


def count_cpus(cpus: str) -> int:
    """Cores in a list for taskset.

    Examples:
        >>> count_cpus("0"), count_cpus("0-3,6")
        (1, 5)
    """
    ends = [[int(end) for end in part.split("-")] for part in cpus.split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)


def machine(cpus: str | None, device: Any) -> str:
    """The hardware in words."""
    import torch

    if device not in (None, "cpu") and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    used = count_cpus(cpus) if cpus else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return f"{model}, {used} of {os.cpu_count()} cores, torch {torch.__version__}"


def now() -> str:
    """UTC to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def git(*words: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repository."""
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)


def commit() -> str:
    """The commit that runs, with "+" where its code was changed since."""
    head = git("rev-parse", "--short", "HEAD").stdout.strip()
    return (head + ("+" if git("status", "--porcelain", "--", "tinyyolo", "cfg").stdout.strip() else "")) or "unknown"


def commit_results(ablation: Ablation, job: Job) -> None:
    """Commit the record, table and plot, and nothing else; others may be at git too."""
    files = [str(ablation.out / f"{ablation.name}.{kind}") for kind in ("jsonl", "md", "png")]
    for _ in range(GIT_TRIES):
        done = git("add", "--", *files)
        done = (
            done
            if done.returncode
            else git("commit", "-q", "-m", f"Results: {ablation.name}, {job.name}", "--", *files)
        )
        if not done.returncode:
            return
        time.sleep(1)
    print(f"{job.name}: not committed: {done.stderr.strip()}", file=sys.stderr)


def set_sizes(data: str) -> dict[str, list[int]]:
    """Split -> [images, objects] of the splits that take part."""
    from tinyyolo.datasets.spec import load

    spec = load(data)
    read = {split: spec.read(split, strict=False) for split in ("train", "val") if split in spec.splits}
    return {split: [len(notes), int((notes.labels >= 0).sum())] for split, notes in read.items()}


def figures(folder: Path, peer: bool) -> dict[str, Any]:
    """Parameters and all metrics of a finished run, from its own files."""
    if peer:
        params = json.loads((folder / "peer.json").read_text(encoding="utf-8"))["params"]
    else:
        from tinyyolo.engine import checkpoint

        best = folder / "weights" / "best.pt"
        best = best if best.exists() else folder / "weights" / "last.pt"
        params = sum(p.numel() for p in checkpoint.to_model(checkpoint.load(best), best).parameters())
    out = {"params": params, **split_metrics(folder / "metrics.json")}
    others = {
        path.stem.removeprefix("metrics_"): split_metrics(path)["metrics"] for path in folder.glob("metrics_*.json")
    }
    return out | ({"others": others} if others else {})


def split_metrics(path: Path) -> dict[str, Any]:
    """`metrics` of all classes and `per_class`, rounded to what a hundredth of a percent needs and two digits more."""
    content = json.loads(path.read_text(encoding="utf-8"))
    per_class = content.pop("per_class", {})
    return {
        "metrics": numbers(content),
        "per_class": {name: numbers(of) for name, of in per_class.items()},
    }


def numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a mapping, to six digits after the point."""
    return {
        key: round(value, 6)
        for key, value in content.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


# ---- words and pictures


def percent(value: float | None) -> str:
    """A fraction in percent; a dash where there are no objects (-1).

    Examples:
        >>> percent(0.1234), percent(-1), percent(None)
        ('12.3', '-', '-')
    """
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"


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


def spread(values: Sequence[float | None]) -> str:
    """Fractions as mean and standard deviation in percent.

    Examples:
        >>> spread([0.1, 0.3]), spread([0.1]), spread([-1, -1])
        ('20.0 ± 14.1', '10.0', '-')
    """
    known = [v for v in values if v is not None and v >= 0]
    if not known or len(known) < len(values):
        return "-"
    mean, std = mean_std(known)
    return percent(mean) + (f" ± {100 * std:.1f}" if std is not None else "")


def one_or_all(values: Sequence[Any]) -> str:
    """Different values, in order.

    Examples:
        >>> one_or_all([3, 3, 4])
        '3, 4'
    """
    return ", ".join(dict.fromkeys(map(str, values)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines] + [""]


def markdown(ablation: Ablation, groups: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> str:
    """The whole page."""
    spec = ablation.spec
    lines = [f"# {spec.get('title') or ablation.name}", ""]
    lines += [f"{spec['note'].strip()}", ""] if spec.get("note") else []
    lines += [f"Written by `python benchmarks/ablate.py benchmarks/specs/{ablation.name}.yaml --tables` from"]
    lines += [
        f"[{ablation.name}.jsonl]({ablation.name}.jsonl), which has every run and metric. Percent; mean ± standard"
    ]
    lines += [
        "deviation over seeds; the best checkpoint of each run, found on the same images that the figures are of.",
        "",
    ]
    lines += [f"![{ablation.name}]({ablation.name}.png)", ""] if groups else ["No run is finished.", ""]
    for data, rows in groups.items():
        every = [record for some in rows.values() for record in some]
        lines += [f"## {data}", "", about(every), ""]
        lines += table(["", "parameters", "seeds", *HEADLINE], main_rows(ablation, rows))
        if any(len({r["settings"] for r in some}) > 1 for some in rows.values()):
            lines += ["\\* Its seeds ran with different settings: defaults or the spec changed between them.", ""]
        names = list(dict.fromkeys(name for r in every for name in r["per_class"]))
        if len(names) > 1:
            cells = [
                [some[0]["label"], *[spread([r["per_class"].get(n, {}).get("AP") for r in some]) for n in names]]
                for some in rows.values()
            ]
            lines += ["AP by class:", "", *table(["", *names], cells)]
        lines += ["Commands, one a seed:", ""]
        lines += table(["", "seed", "commit", "seconds", "command"], [command_row(r) for r in every])
    return "\n".join(lines).rstrip() + "\n"


def about(records: list[dict[str, Any]]) -> str:
    """What figures need to be read: data, sizes, machine."""
    sizes = {
        f"{split} {images:,} images, {objects:,} objects": None
        for record in records
        for split, (images, objects) in record["images"].items()
    }
    said = {
        "Data": "; ".join(sizes),
        "image size": one_or_all([f"{r['imgsz']} px" for r in records]),
        "epochs": one_or_all([r["epochs"] for r in records]),
        "batch": one_or_all([r["batch"] for r in records]),
        "seeds": one_or_all(sorted({r["seed"] for r in records})),
        "machine": "; ".join(dict.fromkeys(r["machine"] for r in records)),
    }
    return ". ".join(f"{what[0].upper()}{what[1:]}: {value}" for what, value in said.items()) + "."


def main_rows(ablation: Ablation, rows: Mapping[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Measured rows, each with what was published of it underneath."""
    out = []
    for row, records in rows.items():
        mark = "\\*" if len({r["settings"] for r in records}) > 1 else ""
        gone = "" if row in ablation.rows else " (no longer in the spec)"
        seeds = one_or_all([r["seed"] for r in records])
        params = one_or_all([f"{r['params'] / 1e6:.2f} M" for r in records])
        cells = [spread([r["metrics"].get(name) for r in records]) for name in HEADLINE]
        out.append([f"{records[0]['label']}{mark}{gone}", params, seeds, *cells])
        for name in records[0].get("others", {}):
            cells = [spread([r["others"][name].get(key) for r in records]) for key in HEADLINE]
            out.append([f"{records[0]['label']}, {name.replace('_', ' ')}", params, seeds, *cells])
        for data, values in published(ablation, row).items():
            cells = [f"*{values[name]:.1f}*" if values.get(name) is not None else "" for name in HEADLINE]
            out.append([f"*published, {data}*", "", "", *cells])
    return out


def published(ablation: Ablation, row: str) -> dict[str, dict[str, float]]:
    """Published figures of a row by data set, percent."""
    return ablation.rows.get(row, {}).get("published") or {}


def command_row(record: Mapping[str, Any]) -> list[str]:
    """Which command gave a run, at which commit, and how long it took."""
    seconds = f"{record['seconds']:.0f}" + (", resumed" if record["resumed"] else "")
    return [record["label"], str(record["seed"]), record["commit"], seconds, f"`{record['command']}`"]


def write_whole(path: Path, content: str) -> None:
    """Replace a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def draw(ablation: Ablation, groups: Mapping[str, Mapping[str, list[dict[str, Any]]]], path: Path) -> None:
    """Rows from top to bottom, a panel per metric and data: seeds, mean and deviation, published figures hollow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = ablation.spec.get("plot") or PLOTTED
    most = max(len(rows) for rows in groups.values())
    figure = Figure(figsize=(2.2 + 2.6 * len(metrics), len(groups) * (1.4 + 0.32 * most)), layout="constrained")
    panels = figure.subplots(len(groups), len(metrics), squeeze=False, sharey="row")
    handles: dict[str, Any] = {}
    for line, (data, rows) in zip(panels, groups.items(), strict=True):
        for panel, metric in zip(line, metrics, strict=True):
            for y, (row, records) in enumerate(rows.items()):
                values = [100 * r["metrics"].get(metric, -1) for r in records if r["metrics"].get(metric, -1) >= 0]
                if values:
                    mean, std = mean_std(values)
                    panel.errorbar(mean, y, xerr=std, fmt="o", color="C0", capsize=3)
                    panel.plot(values, [y] * len(values), ".", color="C0", alpha=0.4)
                for k, (source, known) in enumerate(published(ablation, row).items()):
                    if known.get(metric) is not None:
                        panel.plot(known[metric], y, "D", mfc="none", color=f"C{k + 1}", label=f"published, {source}")
            panel.set_xlabel(f"{metric}, %")
            panel.grid(axis="x", alpha=0.3)
        line[0].set_yticks(range(len(rows)), [some[0]["label"] for some in rows.values()])
        line[0].set_ylim(len(rows) - 0.5, -0.5)
        seeds = sorted({r["seed"] for some in rows.values() for r in some})
        line[0].set_title(f"{data}, {about_short(rows)}, seeds {one_or_all(seeds)}", loc="left", fontsize=9)
        for panel in line:
            handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=8)
    part = path.with_name(f".{path.stem}.{os.getpid()}.png")
    FigureCanvasAgg(figure).print_png(part)
    part.replace(path)


def about_short(rows: Mapping[str, list[dict[str, Any]]]) -> str:
    """Image size and epochs of the runs of a panel."""
    records = [r for some in rows.values() for r in some]
    sizes, epochs = one_or_all([r["imgsz"] for r in records]), one_or_all([r["epochs"] for r in records])
    return f"{sizes} px, {epochs} epochs"


# ---- command line


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--data", nargs="+", default=[], help="data YAMLs in place of the spec's")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW")
    parser.add_argument("--seeds", nargs="+", default=[], type=int)
    parser.add_argument("--cpus", nargs="+", default=[None], help="one worker per entry: 0 1, or 0-3 4-7")
    parser.add_argument("--on", nargs="+", default=[], metavar="KEY=VALUE", help=f"{', '.join(sorted(MACHINE_KEYS))}")
    parser.add_argument("--commit", action="store_true", help="commit each finished run")
    parser.add_argument("--tables", action="store_true", help="only draw again")
    parser.add_argument("--list", action="store_true", help="print the commands that are left, run nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "ablate")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run what is left; 1 if a run failed, 2 for a user's mistake."""
    args = arguments(words)
    try:
        extra = dict(pair.partition("=")[::2] for pair in args.on)
        for key in extra:
            if key not in MACHINE_KEYS:
                raise UserError(f"--on {key}: {suggest(key, MACHINE_KEYS)}; what changes a result belongs in the spec")
        ablation = Ablation(args.spec, args.out.absolute(), args.runs, extra)
        if args.tables:
            ablation.tables()
            return 0
        left = pending(ablation, ablation.jobs(args.only, args.seeds, args.data))
        if args.list:
            print("\n".join(recorded(ablation.command(job), job) for job in left))
            return 0
        with ThreadPoolExecutor(len(args.cpus)) as pool:
            failed = sum(pool.map(lambda cpus: ablation.work(left, cpus, args.commit), args.cpus))
        ablation.tables()
    except UserError as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def pending(ablation: Ablation, jobs: Sequence[Job]) -> list[Job]:
    """The runs that are not recorded; tells of those recorded with other settings than they would have now.

    Raises:
        UserError: a row that the command would refuse; better now than hours later.
    """
    known = {key_of(record): record["settings"] for record in ablation.finished()}
    left = []
    for job in jobs:
        settings = fingerprint(ablation.settings(job))
        if job.key not in known:
            left.append(job)
        elif known[job.key] != settings:
            print(f"{job.name}: kept, though its settings have changed since; a row of another name takes the new ones")
    return left


if __name__ == "__main__":
    sys.exit(main())
