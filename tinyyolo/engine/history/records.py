"""A run's folder, and the lines of an ablation, as records; see `evaluation.summary.rows` for what a record holds."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, load_yaml
from tinyyolo.datasets.formats.decode import parse_json, read_bytes
from tinyyolo.datasets.spec import title_of
from tinyyolo.engine import checkpoint
from tinyyolo.engine.contents import own_yaml
from tinyyolo.engine.history.cost import cost
from tinyyolo.engine.keys import AS_TYPED

METRICS, ARGS, CURVES, FOUND = "metrics.json", "args.yaml", "results.csv", "predictions.json"  # in a run's folder
CHOSEN = "best_of_epochs_on_this_split"  # in METRICS, by the validator
MACHINE_KEYS = ("device", "workers", "cache")  # where and how fast, not what
NOT_SETTINGS = {*MACHINE_KEYS, "project", "name", "data", "seed", "exist_ok", "plots", "verbose"}
NOT_SETTINGS |= {"model", "mode", "task"}
PLACES = {"save_dir", "resume"}  # where a folder's run stood, beside these
NOT_OF_MODEL = {"published", "train"}  # sections of a model YAML that change no result
DECIMALS = 6  # of fractions: two more than a hundredth of a percent


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Eight hex digits that change with any setting."""
    return hashlib.sha1(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]


def weights_of(folder: Path) -> Path | None:
    """The checkpoint that a run reports: best.pt, or last.pt where there is no best; None without both."""
    files = [folder / "weights" / name for name in ("best.pt", "last.pt")]
    return next((file for file in files if file.is_file()), None)


def state_of(folder: Path) -> str:
    """Of a run's folder: "done" (its last validation too), "resume" (cut off, may go on) or "new" (neither)."""
    last = folder / "weights" / "last.pt"
    if not last.is_file():
        return "new"
    try:
        if checkpoint.load(last).get("resume"):
            return "resume"
    except UserError:  # cut off in writing
        return "new"
    return "done" if (folder / FOUND).is_file() and (folder / METRICS).is_file() else "new"


def logged_seconds(folder: Path) -> float:
    """Seconds of training that results.csv tells of, validations among them; its clock starts anew at every resume."""
    path = folder / CURVES
    if not path.exists():
        return 0.0
    with open(path, encoding="utf-8", newline="") as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    return sum(t for t, following in zip(times, [*times[1:], 0.0], strict=True) if following < t)


def numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a mapping, to six decimals."""
    return {
        key: round(value, DECIMALS)
        for key, value in content.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def split_metrics(path: Path) -> dict[str, Any]:
    """`metrics` of all classes, `per_class`, and of how many epochs the weights were `chosen` on this split.

    Raises:
        UserError: not readable, or none of our metrics.
    """
    content = parse_json(read_bytes(path), path)
    if not isinstance(content, dict) or "AP" not in content:
        raise UserError(f"{path}: no metrics: it has no AP")
    per_class, chosen = content.pop("per_class", {}), content.pop(CHOSEN, 0)
    found = {name: numbers(of) for name, of in per_class.items()}
    return {"metrics": numbers(content), "per_class": found, "chosen": chosen}


def read_run(folder: Path) -> dict[str, Any]:
    """The record of a run's folder, of training or validation, as far as its files go.

    Beside a record's keys it has `lacks`, what of it is not known and why. Its `row` is the same for runs on the same
    data whose settings differ in nothing but the seed; without its weights a run is a row by itself, since its model's
    own settings are not known.

    Raises:
        UserError: it has no metrics, or a file in it is damaged.
    """
    if not (folder / METRICS).is_file():
        raise UserError(f"{folder}: no run: it has no {METRICS}")
    weights = weights_of(folder)
    content = checkpoint.load(weights) if weights else None
    args = load_yaml(folder / ARGS, AS_TYPED) if (folder / ARGS).is_file() else (content or {}).get("train_args") or {}
    record: dict[str, Any] = {"label": label_of(folder, args), **split_metrics(folder / METRICS)}
    record |= {"seed": args.get("seed"), "data": title_of(Path(args["data"])) if args.get("data") else None}
    record["seconds"] = logged_seconds(folder) or None
    lacks = {} if args else {ARGS: "seed and data"}
    lacks |= {} if record["seconds"] else {CURVES: "hours"}
    own = {key: value for key, value in args.items() if key not in NOT_SETTINGS | PLACES}
    record |= {"row": str(folder), "settings": None}
    if content:
        spec = {key: value for key, value in own_yaml(content).items() if key not in NOT_OF_MODEL}
        record["settings"] = fingerprint({**own, "model": spec})
        record["row"] = (record["data"], record["settings"])
        record |= cost(checkpoint.to_model(content, weights), args.get("imgsz") or 640)
        record["commit"] = content.get("commit") or f"v{content['tinyyolo']}"
    else:
        lacks["weights"] = "parameters, GFLOPs and commit"
    return record | {"lacks": lacks}


def label_of(folder: Path, args: Mapping[str, Any]) -> str:
    """A run's name: its model's, or its folder's where that is a checkpoint or not known."""
    model = Path(str(args.get("model") or ""))
    return model.stem if model.suffix in {".yaml", ".yml"} else folder.resolve().name


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of an ablation's NAME.jsonl; half a line at the end, of a process killed in writing, is none.

    Raises:
        UserError: not readable, or a line in it is no record.
    """
    lines, out = read_bytes(path).split(b"\n"), []
    for number, line in enumerate(lines):
        try:
            record = parse_json(line, path) if line.strip() else None
        except UserError as error:
            if number < len(lines) - 1:
                raise UserError(f"{path}:{number + 1}: not JSON: {str(error).rpartition(': ')[2]}") from error
            continue
        if record is not None:
            if not isinstance(record, dict) or not {"row", "label", "metrics", "command"} <= set(record):
                raise UserError(f"{path}:{number + 1}: no record of an ablation")
            out.append(record if "chosen" in record else {**record, "chosen": chosen_by(record)})
    return out


def chosen_by(record: Mapping[str, Any]) -> int:
    """Of how many epochs a run was the best that was recorded before runs said so: all, unless it looked at none."""
    epochs = int(record.get("epochs") or 0)
    return 0 if "val=false" in str(record["command"]).split() or epochs == 1 else epochs
