"""Settings of a run: tinyyolo's defaults under a model's own recipe under what the user wrote, every key checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo.compat import DEFAULT_CFG_DICT, get_cfg
from tinyyolo.config import ROOTS, UserError, load_yaml, parse_value, suggest

OWN = {  # key -> default; see cfg/default.yaml for what they mean
    "lr_steps": None,
    "lr_batch": None,
    "warmup_iters": None,
    "warmup_factor": 0.001,
    "clip_grad": 10.0,
    "ema": True,
    "decay_all": False,
    "skip_empty": False,
    "min_side": 0.0,
    "paste": 0,
}
SMALLEST = {"epochs": 1, "imgsz": 32, "max_det": 1, "patience": 0, "workers": 0, "paste": 0}
OPTIMIZERS = ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "MuSGD", "auto")  # upstream's, any case
UNSUPPORTED = {"distill_model", "quantize", "compile"}  # parts of the engine that know ultralytics' own heads only
SHOW = 60  # characters of a refused value in a message


def defaults() -> dict[str, Any]:
    """The content of cfg/default.yaml."""
    return load_yaml(next(root / "cfg/default.yaml" for root in ROOTS if (root / "cfg/default.yaml").is_file()))


def resolve(mode: str, recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a run in `mode`: defaults, then `recipe` (a model YAML's `train:`), then `given`.

    Raises:
        UserError: an unknown key or a bad value; names it and the choices.
    """
    given = {
        key: parse_value(value) if key not in {"model", "data", "source", "name"} else value
        for key, value in given.items()
    }
    for source in (recipe, given):
        check_keys(source)
    args = {**DEFAULT_CFG_DICT, **OWN, **defaults(), **recipe, **given, "task": "detect", "mode": mode}
    args["project"] = str(Path(args["project"] or "runs").expanduser().absolute())
    check_values(args)
    if args["nbs"] is None:
        args["nbs"] = args["batch"] if args["batch"] >= 1 else DEFAULT_CFG_DICT["nbs"]
    return args


def check_keys(given: Mapping[str, Any]) -> None:
    """Raise UserError for a key that is neither ultralytics' nor ours."""
    for key in given:
        if key not in DEFAULT_CFG_DICT and key not in OWN and key != "save_dir":
            raise UserError(f"{key}: unknown argument; {nearest(key)}")


def nearest(key: str) -> str:
    """A suggestion without the full list of some 120 keys."""
    text = suggest(key, {*DEFAULT_CFG_DICT, *OWN})
    return text.split(" Choices")[0] if text.startswith("did you mean") else "see cfg/default.yaml"


def check_values(args: Mapping[str, Any]) -> None:
    """Raise UserError for a value the engine would refuse late, or take silently for something else."""
    for key, least in SMALLEST.items():
        values = args[key] if isinstance(args[key], (list, tuple)) else [args[key]]
        if any(isinstance(v, bool) or not isinstance(v, (int, float)) or v < least for v in values):
            raise UserError(f"{key}={str(args[key])[:SHOW]}: expected a number of at least {least}")
    batch = args["batch"]
    if (
        isinstance(batch, bool)
        or not isinstance(batch, (int, float))
        or not (batch == -1 or 0 < batch < 1 or batch >= 1)
    ):
        raise UserError(f"batch={str(batch)[:SHOW]}: expected images per step (1 or more), -1 or a share of GPU memory")
    for key in UNSUPPORTED:
        if args.get(key):
            raise UserError(f"{key}={args[key]}: not supported by tinyyolo")
    try:
        get_cfg(overrides={k: v for k, v in args.items() if k not in OWN and not (k == "nbs" and v is None)})
    except (TypeError, ValueError, SyntaxError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if str(args["optimizer"]).lower() not in map(str.lower, OPTIMIZERS):
        raise UserError(f"optimizer={str(args['optimizer'])[:SHOW]}: unknown; {suggest(args['optimizer'], OPTIMIZERS)}")
