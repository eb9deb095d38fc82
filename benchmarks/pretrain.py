"""The school: learns the starting weights from drawn scenes, from nothing, for as long as it is let.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/pretrain.py n --out ~/school           # goes on where it stopped
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/pretrain.py n --out ~/school --finish  # then: the rate falls to 0
    python benchmarks/pretrain.py n --out ~/school --ship    # then: weights/tinyyolo-n.pt, which travels in the package

After a change of the network it need not begin from nothing: `--start FILE` takes over what fits of earlier weights.

On a GPU beside cores that draw, all of it at once, with a rate that falls to 0 by the end of so many hours:

    python benchmarks/pretrain.py n --out ~/school --device 0 --workers 12 --batch 32 --pictures 8000 --hours 1

Pictures are drawn as they are asked for (data/school.yaml), another one every time; an epoch is 1,000 of them. The
rate of learning stays as it is, so that any day's work can be added to; stop it with Ctrl-C, or kill it. `--finish`
learns from the state so far for some epochs with a falling rate, and leaves that state for more; a run of `--hours` is
finished as it ends, and lets nothing be added to it. SIZE/record.jsonl has
a line for each epoch: pictures seen, CPU seconds, AP on 300 drawn pictures, seed, commit, machine.
"""

from __future__ import annotations

import argparse
import json
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from tinyyolo import Model
from tinyyolo.engine import checkpoint
from tinyyolo.engine.history.provenance import commit, machine
from tinyyolo.io import new_file

EPOCHS = 100_000  # of the school: it ends when it is stopped
FINISH = 30  # epochs with a falling rate
BATCH = 16
SETTINGS = {  # the scenes are various enough, and four of them in one picture take four times as long to draw
    "mosaic": 0.0,
    "paste": 0,
    "imgsz": 320,
    "batch": BATCH,
    "scale": 0.3,
    "flipud": 0.5,
    "device": "cpu",
    "workers": 0,
    "save_every": 20,
    "patience": 0,
    "plots": False,
    "lrf": 1.0,
}


WEIGHTS = Path(__file__).resolve().parent.parent / "weights"  # where the package's are
LICENCE = "AGPL-3.0-only"
RUSAGE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class Record:
    """Adds a line to a file after each epoch."""

    def __init__(self, file: Path, phase: str):
        self.file, self.phase = file, phase
        self.started = cpu_seconds()

    def __call__(self, trainer: Any) -> None:
        """Of a trainer whose epoch has been validated."""
        row = {"phase": self.phase, "epoch": trainer.epoch + 1, "pictures": len(trainer.train_loader.dataset)}
        now = cpu_seconds()
        row |= {"cpu_s": round(now - self.started, 1), "seed": trainer.args.seed, "commit": commit()}
        row |= {"machine": machine(device=trainer.args.device)}
        row |= {key.removeprefix("metrics/"): round(float(value), 5) for key, value in trainer.metrics.items()}
        add_line(self.file, row)
        self.started = now


def add_line(file: Path, row: dict[str, Any]) -> None:
    """Add a line to a record, which is whole whenever this is killed."""
    old = file.read_text(encoding="utf-8") if file.is_file() else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    with new_file(file, overwrite=True) as stream:
        stream.write(old + json.dumps(row) + "\n")


def taken_over(start: Path, file: Path) -> None:
    """Add what earlier weights have seen to a record, so that all of it is counted."""
    card = checkpoint.load(start).get("card")
    if not card:
        raise ValueError(f"{start}: without a card: no weights that were shipped")
    row = {"phase": "school", "epoch": 0, "pictures": card["pictures"], "cpu_s": 3600 * card["cpu_hours"]}
    add_line(file, row | {"start": start.name, "seed": card["seed"], "commit": card["commit"]})


def cpu_seconds() -> float:
    """Of this process and of those that drew for it, the ended ones too."""
    used = sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in RUSAGE)
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # one that has just ended
            used += sum(child.cpu_times()[:2])
    return used


def ship(folder: Path, target: Path) -> dict[str, Any]:
    """Write the averaged weights of the last state in float16, with what a reader of the file wants to know.

    Args:
        folder: of a size, with `finish` or `school`, and record.jsonl.
        target: the file.

    Returns:
        The card that is in it: what was seen, for how long, with which figures.
    """
    states = [folder / phase / "weights/last.pt" for phase in ("finish", "school")]
    source = next(file for file in states if file.is_file())
    content = checkpoint.load(source)
    rows = [json.loads(line) for line in (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()]
    last = max((i for i, row in enumerate(rows) if (row["phase"], row["epoch"]) == ("finish", 1)), default=len(rows))
    school = [row for row in rows[:last] if row["phase"] == "school"]
    rows = school + rows[last:] if source == states[0] else [row for row in rows if row["phase"] == "school"]
    card = {
        "data": "drawn scenes, data/school.yaml",
        "finished": source == states[0],
        "pictures": sum(row["pictures"] for row in rows),
        "cpu_hours": round(sum(row["cpu_s"] for row in rows) / 3600, 1),
        "seed": rows[-1]["seed"],
        "commit": rows[-1]["commit"],
        "drawn_val": {key: value for key, value in rows[-1].items() if key.startswith("A")},
        "licence": LICENCE,
    }
    half = {name: x.half() if x.is_floating_point() else x for name, x in content["model"].items()}
    if lost := [name for name, x in half.items() if not torch.isfinite(x).all()]:
        raise ValueError(f"{lost[0]}: beyond what float16 holds")
    kept = {key: content[key] for key in ("format", "tinyyolo", "date", "yaml", "names", "thresholds")}
    train_args = {"task": "detect", "data": "school.yaml"}  # pictures of any size: the default is imgsz=640
    target.parent.mkdir(exist_ok=True)
    checkpoint.save(target, {**kept, "model": half, "train_args": train_args, "card": card})
    checkpoint.load(target)
    return card


def school_of(pictures: int, val: int | None, file: Path) -> Path:
    """Write the school's data YAML with other numbers of pictures: of an epoch, and, if given, to validate on."""
    content = yaml.safe_load((WEIGHTS.parent / "data/school.yaml").read_text(encoding="utf-8"))
    content["toy"]["images"] |= {"train": pictures} if val is None else {"train": pictures, "val": val}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def without_effect(words: argparse.Namespace, goes_on: bool) -> list[str]:
    """The options that change nothing beside those given; `goes_on`: whether there is a school to go on with."""
    if words.ship or (goes_on and not words.hours and not words.finish):
        return ["seed", "epochs", "device", "workers", "batch", "pictures", "val", "hours", "start", "finish"]
    phase = ["epochs", "start", "finish"] if words.hours else ["start"] if words.finish else ["epochs"]
    return phase if words.pictures else [*phase, "val"]


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=("n", "s"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, help="default: 0; of --finish 1, for other pictures")
    parser.add_argument("--finish", action="store_true", default=None)
    parser.add_argument("--epochs", type=int, help=f"of --finish; default: {FINISH}")
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--device", help="default: cpu")
    parser.add_argument("--workers", type=int, help="processes that draw, on a GPU; default: 0")
    parser.add_argument("--batch", type=int, help=f"default: {BATCH}")
    parser.add_argument("--pictures", type=int, help="an epoch; default: as many as data/school.yaml says")
    parser.add_argument("--val", type=int, help="with --pictures: to validate on; default: as data/school.yaml says")
    parser.add_argument("--hours", type=float, help="learn from nothing for so long, with a falling rate")
    parser.add_argument("--start", type=Path, help="shipped weights of another network, to begin from")
    words = parser.parse_args()
    folder = words.out.expanduser() / words.size
    last = folder / "school/weights/last.pt"
    unused = [key for key in without_effect(words, goes_on=last.is_file()) if getattr(words, key) is not None]
    if unused:
        parser.error(f"{', '.join(f'--{key}' for key in unused)}: nothing here takes it, see --help")
    if words.ship:
        print(json.dumps(ship(folder, WEIGHTS / f"tinyyolo-{words.size}.pt"), indent=1))
        return
    settings: dict[str, Any] = {**SETTINGS, "data": "school.yaml", "project": str(folder)}
    settings["seed"] = int(bool(words.finish)) if words.seed is None else words.seed  # pictures of its own
    settings |= {key: value for key in ("device", "workers", "batch") if (value := getattr(words, key)) is not None}
    if words.pictures:
        settings["data"] = str(school_of(words.pictures, words.val, folder / "school.yaml"))
    if words.hours:
        model = Model(f"tinyyolo-{words.size}.yaml")
        settings |= {"name": "finish", "epochs": EPOCHS, "time": words.hours, "lrf": 0.01, "val": False}
        settings |= {"pretrained": False}
    elif words.finish:
        model, epochs = Model(last), FINISH if words.epochs is None else words.epochs
        settings |= {"name": "finish", "exist_ok": True, "epochs": epochs, "lrf": 0.01, "warmup_epochs": 0}
    elif last.is_file():
        model, settings = Model(last), {"resume": True}
    else:
        model = Model(f"tinyyolo-{words.size}.yaml")
        settings |= {"name": "school", "epochs": EPOCHS, "pretrained": str(words.start) if words.start else False}
        if words.start:
            try:
                taken_over(words.start, folder / "record.jsonl")
            except ValueError as error:  # a UserError is one
                parser.error(f"--start {error}")
    phase = "finish" if words.finish or words.hours else "school"
    model.add_callback("on_fit_epoch_end", Record(folder / "record.jsonl", phase))
    model.train(**settings)


if __name__ == "__main__":
    main()
