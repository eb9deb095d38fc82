"""The school: learns the starting weights from drawn scenes, from nothing, for as long as it is let.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/pretrain.py n --out ~/school           # goes on where it stopped
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/pretrain.py n --out ~/school --finish  # then: the rate falls to 0

Pictures are drawn as they are asked for (data/school.yaml), another one every time; an epoch is 1,000 of them. The
rate of learning stays as it is, so that any day's work can be added to; stop it with Ctrl-C, or kill it. `--finish`
learns from the state so far for some epochs with a falling rate, and leaves that state for more. SIZE/record.jsonl has
a line for each epoch: pictures seen, CPU seconds, AP on 300 drawn pictures, seed, commit, machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from tinyyolo import Model
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
    "workers": 0,
    "save_every": 20,
    "patience": 0,
    "plots": False,
    "lrf": 1.0,
}


def commit() -> str:
    """Of the code at work, with a mark where it was changed."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


class Record:
    """Adds a line to a file after each epoch."""

    def __init__(self, file: Path, phase: str):
        self.file, self.phase = file, phase
        self.started = time.process_time()

    def __call__(self, trainer: Any) -> None:
        """Of a trainer whose epoch has been validated."""
        row = {"phase": self.phase, "epoch": trainer.epoch + 1, "pictures": len(trainer.train_loader.dataset)}
        now = time.process_time()
        row |= {"cpu_s": round(now - self.started, 1), "seed": trainer.args.seed, "commit": commit()}
        row |= {"machine": platform.processor() or platform.machine()}
        row |= {key.removeprefix("metrics/"): round(float(value), 5) for key, value in trainer.metrics.items()}
        old = self.file.read_text(encoding="utf-8") if self.file.is_file() else ""
        with new_file(self.file, overwrite=True) as stream:
            stream.write(old + json.dumps(row) + "\n")
        self.started = now


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=("n", "s"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--finish", action="store_true")
    parser.add_argument("--epochs", type=int, default=FINISH, help="of --finish")
    words = parser.parse_args()
    folder = words.out.expanduser() / words.size
    last = folder / "school/weights/last.pt"
    settings: dict[str, Any] = {**SETTINGS, "data": "school.yaml", "seed": words.seed, "project": str(folder)}
    if words.finish:
        model = Model(last)
        settings |= {"name": "finish", "exist_ok": True, "epochs": words.epochs, "lrf": 0.01, "warmup_epochs": 0}
    elif last.is_file():
        model, settings = Model(last), {"resume": True}
    else:
        model = Model(f"tinyyolo-{words.size}.yaml")
        settings |= {"name": "school", "epochs": EPOCHS}
    model.add_callback("on_fit_epoch_end", Record(folder / "record.jsonl", "finish" if words.finish else "school"))
    model.train(**settings)


if __name__ == "__main__":
    main()
