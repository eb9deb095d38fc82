"""What a training needs to go on as if it had not stopped: written into a checkpoint, and taken out of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from tinyyolo.config import UserError, parse_value, suggest
from tinyyolo.engine import checkpoint
from tinyyolo.engine.keys import KEYS, check_keys
from tinyyolo.io import new_file

MAY_CHANGE = ("device", "workers", "cache", "patience", "plots", "save_period", "val", "data")


def arguments(path: str | Path | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint to go on from, and its arguments with those of `given`, which do not change the result.

    Raises:
        UserError: no checkpoint, or none named, an argument that a running training cannot change, or a run that is
            finished; ultralytics would start another on a downloaded set.
    """
    if not path:
        raise UserError("resume= needs the checkpoint of the run: resume=runs/train/weights/last.pt")
    more = {key: parse_value(value) if key != "data" else value for key, value in given.items() if value is not None}
    for key in more:
        if key not in MAY_CHANGE:
            raise UserError(f"{key}: cannot change when resuming; {suggest(key, MAY_CHANGE)}")
    check_keys("train", more)
    content = checkpoint.load(path)
    if not content.get("resume"):
        raise UserError(
            f"{path}: this training is finished, there is nothing to resume; start a new one from it: model={path}"
        )
    kept = {key: value for key, value in content["train_args"].items() if key in KEYS}
    save_dir = str(Path(path).expanduser().resolve().parent.parent)
    return content, {**kept, **more, "resume": str(path), "save_dir": save_dir}


def state(trainer: Any) -> dict[str, Any]:
    """The state of a training at the end of an epoch, beside its averaged weights."""
    raw = unwrap_model(trainer.model).state_dict()
    return {
        "model": {key: value.detach().cpu() for key, value in raw.items()},
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "updates": trainer.ema.updates,
        "best_fitness": trainer.best_fitness,
        "stopper": {"best_fitness": trainer.stopper.best_fitness, "best_epoch": trainer.stopper.best_epoch},
    }


def restore(trainer: Any, content: Mapping[str, Any]) -> None:
    """Put a training where `state` found it: weights, their average, optimiser, scaler, best epoch, results.csv."""
    saved = content["resume"]
    unwrap_model(trainer.model).load_state_dict(saved["model"])
    trainer.ema.ema.load_state_dict(content["model"])
    trainer.ema.updates = saved["updates"]
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"]:
        trainer.scaler.load_state_dict(saved["scaler"])
    trainer.best_fitness = saved["best_fitness"]
    trainer.stopper.best_fitness = saved["stopper"]["best_fitness"]
    trainer.stopper.best_epoch = saved["stopper"]["best_epoch"]
    trainer.start_epoch = content["epoch"] + 1
    keep_rows(trainer.csv, trainer.start_epoch)
    LOGGER.info(f"Resuming at epoch {trainer.start_epoch + 1} of {trainer.epochs}")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of results.csv so far."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keep_rows(path: Path, count: int) -> None:
    """Cut results.csv to its first `count` epochs: a run killed after writing its row would write it twice."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        with new_file(path, overwrite=True) as file:
            file.write("".join(lines[: count + 1]))
