"""Trains what is not recorded yet and records it at once; processes share the work by locks that end with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.datasets.formats.decode import parse_json, read_bytes
from tinyyolo.datasets.spec import load
from tinyyolo.engine import checkpoint
from tinyyolo.engine.ablate.spec import Job, Spec, recorded
from tinyyolo.engine.history.cost import cost
from tinyyolo.engine.history.provenance import TOP, commit, count_cpus, git, machine, now
from tinyyolo.engine.history.records import (
    METRICS,
    fingerprint,
    logged_seconds,
    read_lines,
    split_metrics,
    state_of,
    weights_of,
)
from tinyyolo.engine.prepare import looked_at
from tinyyolo.evaluation.summary.rows import figure_names, spread
from tinyyolo.evaluation.summary.sheet import cell_text
from tinyyolo.io import locked

TAIL = 12  # lines of a failed run's log that are shown
GIT_TRIES = 10
PAUSE = 0.05  # s between two looks at a lock
PEER = "peer.json"  # in the folder of a stock model's run: its parameters
appending = threading.Lock()


class Harness:
    """Runs the jobs of a spec.

    Args:
        spec: the spec.
        out: folder of the record, NAME.jsonl.
        commits: commit the record and what stands beside it after each run, in the repository of `out`.
        renew: called behind each run, to write table and picture again; returns the files.
    """

    def __init__(self, spec: Spec, out: Path, commits: bool, renew: Callable[[], Sequence[Path]]):
        self.spec, self.out, self.commits, self.renew = spec, out, commits, renew
        self.results = out / f"{spec.name}.jsonl"

    def finished(self) -> list[dict[str, Any]]:
        """All recorded runs."""
        return read_lines(self.results) if self.results.exists() else []

    def pending(self, jobs: Sequence[Job]) -> list[Job]:
        """The runs that are not recorded; tells of those recorded with other settings than they would have now.

        Raises:
            UserError: a row that the command would refuse; better now than hours later.
        """
        known = {key_of(record): record["settings"] for record in self.finished()}
        left = []
        for job in jobs:
            settings = fingerprint(self.spec.settings(job))
            if job.key not in known:
                left.append(job)
            elif known[job.key] != settings:
                changed = "kept, though its settings have changed since"
                print(f"{job.name}: {changed}; a row of another name, or another out=, takes the new ones")
        return left

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one run to the record, at once and whole, whoever else writes."""
        self.out.mkdir(parents=True, exist_ok=True)
        with open(self.results, "a+b") as file:
            while not locked(file.fileno()):
                time.sleep(PAUSE)
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
        self.spec.runs.mkdir(parents=True, exist_ok=True)
        with open(self.spec.runs / f"{job.name}.lock", "a+", encoding="utf-8") as file:
            if not locked(file.fileno()):
                yield None
                return
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield file.fileno()

    def work(self, jobs: list[Job], cpus: str | None) -> int:
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
                    log = self.spec.runs / f"{job.name}.log"
                    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
                    print("\n".join([f"{job.name}: FAILED, {log}:", *said]))
                    continue
                with appending:
                    self.append(record)
                    files = [self.results, *self.renew()]
                    if self.commits:
                        commit_results(f"Results: {self.spec.name}, {job.name}", files)
            figures = ((name, spread([record["metrics"][name]])) for name in figure_names([record]))
            shown = " ".join(f"{name} {cell_text(value)}" for name, value in figures)
            print(f"{job.name}: {record['seconds']:.0f} s, {shown}", flush=True)

    def run(self, job: Job, cpus: str | None, lock: int) -> dict[str, Any] | None:
        """Train and read the figures; None if the command failed. The command holds on to the open file `lock`."""
        folder, words, settings = self.spec.runs / job.name, self.spec.command(job), self.spec.settings(job)
        peer = self.spec.is_peer(job)
        record = {"row": job.row, "label": self.spec.rows[job.row].get("label") or job.row, "seed": job.seed}
        record |= {"data": job.title, "command": recorded(words, job), "commit": commit() or None, "started": now()}
        known = self.spec.runs / f"{job.name}.settings"  # a folder of other settings is not continued
        same = known.exists() and known.read_text(encoding="utf-8") == fingerprint(settings)
        state = state_of(folder) if same and not peer else "new"
        spent = logged_seconds(folder) if state != "new" else 0.0
        if state == "new" and folder.exists():
            shutil.rmtree(folder)
        if state == "done":
            print(f"{job.name}: it was finished before, {folder}: its figures are taken as they are", flush=True)
        known.write_text(fingerprint(settings), encoding="utf-8")
        start = time.monotonic()
        if state != "done" and not self.train(job, words, cpus, lock, again=state == "resume"):
            return None
        record |= {"seconds": round(spent + (time.monotonic() - start if state != "done" else 0), 1)}
        record |= {"resumed": state != "new", "machine": machine(cpus, self.spec.keys(job).get("device"))}
        record |= {key: settings[key] for key in ("epochs", "imgsz", "batch")}
        record |= {"settings": fingerprint(settings), "images": set_sizes(job.file)}
        return record | figures_of(folder, settings)

    def train(self, job: Job, words: Sequence[str], cpus: str | None, lock: int, again: bool) -> bool:
        """Run the training command to its end, in a log; whether it went well."""
        folder = self.spec.runs / job.name
        if self.spec.is_peer(job):
            actual = [sys.executable, str(TOP / words[1])]
        else:
            actual = [sys.executable, "-m", "tinyyolo.cli", "train"]
        if again:
            actual.append(f"resume={folder / 'weights' / 'last.pt'}")
        else:
            actual += [word for word in words[2:] if not word.startswith("project=")] + [f"project={self.spec.runs}"]
        with open(self.spec.runs / f"{job.name}.log", "a", encoding="utf-8") as log:
            done = subprocess.run(
                [*(["taskset", "-c", cpus] if cpus else []), *actual],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(cpus),
                pass_fds=[lock],
                check=False,
            )
        return not done.returncode


def key_of(record: Mapping[str, Any]) -> tuple[str, int, str]:
    """`Job.key` of a recorded run."""
    return record["row"], record["seed"], record["data"]


def environment(cpus: str | None) -> dict[str, str]:
    """Threads for the cores of `cpus` ("0", "0-3", "0,2")."""
    out = {**os.environ, "PYTHONUNBUFFERED": "1", "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false"}
    if cpus:
        out |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(count_cpus(cpus)))
    return out


def commit_results(message: str, files: Sequence[Path]) -> None:
    """Commit the files, and nothing else, where they lie; others may be at git too."""
    top, names = files[0].parent, [str(file) for file in files]
    for _ in range(GIT_TRIES):
        done = git("add", "--", *names, top=top)
        done = done if done.returncode else git("commit", "-q", "-m", message, "--", *names, top=top)
        if not done.returncode:
            return
        time.sleep(1)
    print(f"{message}: not committed: {done.stderr.strip()}", file=sys.stderr)


def set_sizes(data: str) -> dict[str, list[int]]:
    """Split -> [images, objects] of what is learnt from and of what is looked at."""
    spec = load(data)
    splits = [split for split in ("train", looked_at(spec)) if split in spec.splits]
    read = {split: spec.read(split, strict=False) for split in splits}
    return {split: [len(notes), int((notes.labels >= 0).sum())] for split, notes in read.items()}


def figures_of(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Size and all metrics of a finished run, from its own files.

    Raises:
        UserError: a file is missing or damaged.
    """
    out = split_metrics(folder / METRICS)
    if (folder / PEER).is_file():
        out |= {"params": parse_json(read_bytes(folder / PEER), folder / PEER)["params"], "gflops": None}
        out["chosen"] = settings["epochs"] if settings["epochs"] > 1 else 0  # best.pt, by the split that is reported
    elif weights := weights_of(folder):
        content = checkpoint.load(weights)
        out |= cost(checkpoint.to_model(content, weights), settings["imgsz"])
        out["commit"] = content.get("commit") or None  # that trained: a folder may have been finished before
    else:
        raise UserError(f"{folder}: it has neither best.pt nor last.pt")
    stem = Path(METRICS).stem
    others = {
        path.stem.removeprefix(f"{stem}_"): split_metrics(path)["metrics"]
        for path in sorted(folder.glob(f"{stem}_*.json"))
    }
    return out | ({"others": others} if others else {})
