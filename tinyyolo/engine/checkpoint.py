"""Checkpoints of tensors and plain values, no pickled class: written whole or not at all, read, and resumed from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from tinyyolo import __version__, ranks
from tinyyolo.config import UserError, path_of, shipped_weights, suggest
from tinyyolo.detectors import tensor_files
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.transfer import Start
from tinyyolo.detectors.weights import state_in
from tinyyolo.engine.arguments import NO_CHOICE
from tinyyolo.engine.contents import FORMAT, check_content, check_optimizer, check_train_args, own_yaml
from tinyyolo.engine.keys import DEFAULTS, KEYS, LAST, OWN, check_keys, parsed
from tinyyolo.engine.stopping import command
from tinyyolo.io import new_file, printable, whole_file

MAY_CHANGE = ("device", "workers", "cache", "patience", "plots", "save_period", "save_every", "val", "data")
TRAIN, EVALUATE = "train", "evaluate"  # phases of a run: epochs, then the final evaluation; then nothing is to resume
SHIPPED_HEAD = "yolo"  # of the models for which starting weights may come with the package
AHEAD = ("grads", "batch", "mean", "place", "places", "others", "workers")  # of the epoch that comes, or goes on


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with whole_file(path) as file:
        torch.save(plain(content), file)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, .pt or .safetensors; nothing in it is executed, and all of it is checked.

    Raises:
        UserError: missing, damaged, a file of another kind or of a newer format, or one with a part that is missing or
            does not fit; see `tensor_files.read` and `contents.check_content`.
    """
    return check_content(tensor_files.read(path), Path(path).expanduser())


def to_model(content: Mapping[str, Any], path: str | Path | None = None) -> Detector:
    """The detector of a checkpoint, in eval mode, float32.

    Raises:
        UserError: the weights do not fit the YAML beside them.
    """
    return fill(build_model(own_yaml(content), len(content["names"])), content, path)


def fill(model: Detector, content: Mapping[str, Any], path: str | Path | None = None) -> Detector:
    """Put a checkpoint into a model of its YAML: weights, names, training arguments; in eval mode, float32.

    Raises:
        UserError: the weights do not fit.
    """
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: its weights do not fit its own model YAML: {reason}") from error
    model.yaml = {**own_yaml(content), "nc": len(content["names"])}
    model.names = {int(key): printable(str(value)) for key, value in content["names"].items()}
    model.args = dict(content["train_args"])
    model.thresholds = content.get("thresholds")
    model.pt_path = str(path) if path else None
    return model.float().eval()


def of_model(model: Detector, train_args: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The content of a checkpoint that predicts: resolved YAML, names, weights, training arguments, scores of the
    classes and `more`."""
    return {
        "format": FORMAT,
        "tinyyolo": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "yaml": model.yaml,
        "names": model.names,
        "model": {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()},
        "train_args": dict(train_args or {}),
        "thresholds": model.thresholds,
        **more,
    }


def plain(value: Any) -> Any:
    """`value` with tensors kept and all else as what `weights_only` reads: str, int, float, bool, None, list, dict."""
    if isinstance(value, torch.Tensor) or value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {k if isinstance(k, (int, str)) else str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def start_of(path: str | Path) -> Start:
    """The weights in a file to start a training from: a checkpoint, or a state dict of another network.

    Raises:
        UserError: see `load`; a file that holds code; or no state dict.
    """
    content = tensor_files.read(path)
    if isinstance(content, dict) and "yaml" in content:
        content = check_content(content, Path(path).expanduser())
        return Start(str(path), content["model"], content["names"])
    return Start(*state_in(content, str(path)), foreign=True)


def shipped_for(spec: Mapping[str, Any], asked: bool = False) -> Start | None:
    """The weights that come with the package for a model of this size, which is: with the same backbone.

    None if there are none; then it says so, of other kinds of detectors only where they were `asked` for.
    """
    files = shipped_weights() if (spec.get("head") or {}).get("type") == SHIPPED_HEAD else {}
    for name, file in files.items():
        content = load(file)
        if own_yaml(content)["backbone"] == spec.get("backbone"):
            return Start(name, content["model"], content["names"])
    if files or asked:
        others = ", ".join(shipped_weights()) or "none"
        LOGGER.info(f"pretrained=true: this model starts from scratch; for others there come with tinyyolo: {others}")
    return None


def to_resume(path: str | Path | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint to go on from, and its arguments with those of `given`, which do not change the result.

    Raises:
        UserError: no checkpoint, or none named, an argument that a running training cannot change, or a run that is
            finished; ultralytics would start another on a downloaded set.
    """
    if not path:
        raise UserError("resume= needs the checkpoint of the run: resume=runs/train/weights/last.pt")
    more = parsed({key: value for key, value in given.items() if value is not None})
    for key in more:
        if key not in MAY_CHANGE:
            raise UserError(f"{key}: cannot change when resuming; {suggest(key, MAY_CHANGE)}")
    check_keys("train", more)
    path = path_of(path, "resume=")
    try:
        content = load(path)
    except UserError as error:
        raise UserError(f"{error}{sound_one(path)}") from error
    if not content.get("resume"):
        raise UserError(
            f"{path}: this training is finished, there is nothing to resume; start a new one from it: model={path}"
        )
    if "patience" in more and phase(content) == EVALUATE:
        raise UserError(f"patience={more['patience']}: the epochs of {path} are over, only its evaluation is left")
    kept = check_train_args(content["train_args"], path)
    if more.get("patience") and kept.get("select") == LAST:
        raise UserError(f"patience={more['patience']}: {NO_CHOICE}")
    save_dir = str(path.resolve().parent.parent)
    # What a training does not take is at its default in every run, and no checkpoint is asked for it.
    others = {key: value for key, value in DEFAULTS.items() if key not in OWN and "t" not in KEYS[key].modes}
    return content, {**others, **kept, **more, "resume": str(path), "save_dir": save_dir}


def sound_one(damaged: Path) -> str:
    """'; ...' with the command that resumes from the newest sound checkpoint beside a damaged one, if there is one."""
    files = [file for file in damaged.parent.glob("*.pt") if file != damaged and file.is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            content = load(file)
        except UserError:
            continue  # the next one is looked at
        if content.get("resume"):
            return f"; the newest sound one is of epoch {content['epoch'] + 1}: {command(file)}"
        return f"; {file} is sound, of a finished run: model={file} starts a new one from it"
    return "; there is no sound one beside it"


def phase(content: Mapping[str, Any]) -> str:
    """In which phase the run of a checkpoint is: TRAIN or EVALUATE. Older ones do not say; their last epoch does."""
    over = content.get("epoch", 0) + 1 >= content["train_args"].get("epochs", math.inf)
    return str(content["resume"].get("phase", EVALUATE if over else TRAIN))


def state(trainer: Any) -> dict[str, Any]:
    """The state of a training at the end of an epoch, beside its averaged weights."""
    raw = unwrap_model(trainer.model).state_dict()
    open_step = trainer.last_step != trainer.iteration - 1  # gradients wait for the batches that make a step
    named = unwrap_model(trainer.model).named_parameters() if open_step else ()
    return {
        "phase": EVALUATE if trainer.stop else TRAIN,
        "last_step": trainer.last_step,
        "attempts": trainer.nan_recovery_attempts,
        "processes": ranks.size(),
        "grads": {name: p.grad.detach().cpu() for name, p in named if p.grad is not None},
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
    check_optimizer(trainer.optimizer, saved["optimizer"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"]:
        trainer.scaler.load_state_dict(saved["scaler"])
    trainer.best_fitness = saved["best_fitness"]
    trainer.stopper.best_fitness = saved["stopper"]["best_fitness"]
    trainer.stopper.best_epoch = saved["stopper"]["best_epoch"]
    trainer.start_epoch = content["epoch"] + 1
    trainer.thresholds = content.get("thresholds")
    trainer.scheduler.base_lrs = [group["initial_lr"] for group in trainer.optimizer.param_groups]
    trainer.last_step = saved.get("last_step", -1)
    trainer.nan_recovery_attempts = saved.get("attempts", 0)
    trainer.ahead = {key: saved[key] for key in AHEAD if key in saved}
    then, now = saved.get("processes", 1), ranks.size()
    if then != now:
        LOGGER.warning(f"{now} processes, {then} when it was saved: what follows is right, but not the same to the bit")
    if trainer.csv.exists() and ranks.first():  # a run killed after writing a row would write it twice
        rows = trainer.csv.read_text(encoding="utf-8").splitlines(keepends=True)
        with new_file(trainer.csv, overwrite=True) as file:
            file.write("".join(rows[: trainer.start_epoch + 1]))
    if phase(content) == EVALUATE:
        LOGGER.info("Resuming with the final evaluation")
    else:
        inside = f", behind batch {saved['batch']}" if saved.get("batch") else ""
        LOGGER.info(f"Resuming at epoch {trainer.start_epoch + 1} of {trainer.epochs}{inside}")
