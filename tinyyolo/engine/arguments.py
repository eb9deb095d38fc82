"""Settings of a run: tinyyolo's defaults under a model's own recipe under what the user wrote, every key checked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import torch
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import parse_device, select_device

from tinyyolo.config import UserError, load_yaml, path_of, shown, suggest
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.keys import AS_TYPED, BEST, DEFAULTS, KEYS, LAST, LETTERS, OWN, check_keys, parsed
from tinyyolo.engine.many.devices import gpus_of

CPU, IDLE = "cpu", "-1"  # words of device=: the second for a GPU that does nothing
# What a model's recipe may not say: a checkpoint of others would choose where a run writes and what it reads.
NOT_A_RECIPE = ("cfg", "data", "exist_ok", "model", "name", "pretrained", "project", "resume", "save_dir", "source")
# ours -> those of ultralytics that do nothing beside it
REPLACED = {
    "lr_steps": ("lrf", "cos_lr"),
    "warmup_iters": ("warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
}
NEEDS = {  # a key that does nothing without another
    "bias_lr": ("decay_all", "true"),
    "bias_decay": ("decay_all", "true"),
    "warmup_constant": ("warmup_iters", "N"),
}
ONE_GPU = {  # how several are used where the command itself starts no processes
    "val": "torchrun --nproc-per-node={count} -m tinyyolo val ... shares the images",
    "predict": "start {count} with device=0 shard=1/{count}, device=1 shard=2/{count}, ..., see docs/scale.md",
    "track": "give one of them",
}
NO_CHOICE = f"select={LAST} goes through all epochs; select={BEST} stops when AP does not grow"


def resolve(mode: str, recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a run in `mode`: defaults, then `recipe`, then the file that `cfg=` names, then `given`.

    Args:
        mode: train, val, predict, track or export.
        recipe: a model YAML's `train:`, or what this mode starts from; not the user's, so it may name keys that the
            mode does not use.
        given: what the user wrote.

    Raises:
        UserError: an unknown key, one that does nothing in this mode, or a bad value; names it and the choices.
    """
    given = with_file(mode, given)
    check_keys(mode, given)
    if mode == "train":
        check_keys(mode, recipe)
        for key in NOT_A_RECIPE:
            if key in recipe:
                raise UserError(f"train.{key}={shown(recipe[key])}: not a model's to say; give {key}= to the run")
    for key, taker in {"model": "Model(...)", "trust": "Model(...)", "weights": "Model(...).load"}.items():
        if key in given:
            raise UserError(f"{key}={shown(given[key])}: {taker} takes it, not Model.{mode}")
    args = {**DEFAULT_CFG_DICT, **OWN, **DEFAULTS, **recipe, **given, "task": "detect"}
    if args["mode"] != mode and "mode" in given:
        raise UserError(f"mode={args['mode']}: this is {mode}")
    args["mode"] = mode
    args["project"] = str(path_of(args["project"] or "runs", "project=").absolute())
    if args.get("save_dir"):
        args["save_dir"] = str(path_of(args["save_dir"], "save_dir="))
    published = Postprocess()
    for key, setting in {"iou": published.iou, "max_det": published.max_det, "conf": None}.items():
        if args[key] is None:
            args[key] = recipe.get(key, setting)
    own = mode == "val" and args["imgsz"] == recipe.get("imgsz")  # [height, width] of an export
    if mode in {"train", "val"} and isinstance(args["imgsz"], (list, tuple)) and not own:
        raise UserError(f"imgsz={args['imgsz']}: {mode} takes one number, the longer side")
    check_together(mode, args, given)
    if args["nbs"] is None:
        args["nbs"] = args["batch"] if args["batch"] >= 1 else DEFAULT_CFG_DICT["nbs"]
    return args


def engine_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """`args` without our own keys: ultralytics refuses those that it does not know."""
    return {key: value for key, value in args.items() if key not in OWN}


def with_file(mode: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` on top of the keys in the file that its `cfg` names, strings parsed.

    The file may be a copy of ultralytics' default.yaml: it may hold keys of other modes, and keys that do nothing here
    at their default.

    Raises:
        UserError: no such file, or a key or value in it that is refused.
    """
    given = parsed(given)
    file = given.pop("cfg", None)
    if file is None:
        return given
    path = path_of(file, "cfg=")
    if not path.is_file():
        raise UserError(f"cfg={file}: no such file")
    dotted, plain = {}, {}
    for key, value in parsed(load_yaml(path, AS_TYPED)).items():
        modes = KEYS[key].modes if key in KEYS else LETTERS[mode]
        said = value != DEFAULT_CFG_DICT.get(key, KEYS) or (value is not None and modes)
        if "." in str(key):
            dotted[key] = value
        elif said and key not in {"mode", "cfg"} and (not modes or LETTERS[mode] in modes):
            plain[key] = value
    check_keys(mode, plain, where=f"{path}: ")
    return {**dotted, **plain, **given}


def check_together(mode: str, args: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise UserError for values that are right by themselves and not in this mode, or not together."""
    if mode != "train" and args["batch"] < 1:
        raise UserError(f"batch={args['batch']}: {mode} takes images per step, 1 or more")
    check_device(args["device"])
    if mode in ONE_GPU and (count := gpus_of(args["device"])):
        how = ONE_GPU[mode].format(count=count)
        raise UserError(f"device={shown(args['device'])}: a process of {mode} computes on one GPU; {how}")
    if mode not in {"predict", "track"} and not isinstance(args["conf"], (int, float, type(None))):
        raise UserError(
            f"conf={shown(args['conf'])}: {mode} takes a number, or null for the model's own: the figures count all"
            " detections, and the scores of conf=auto come out of them"
        )
    if mode == "val" and given.get("save_json") is False:
        raise UserError("save_json=false: val always writes predictions.json")
    if given.get("save_conf") and not args["save_txt"]:
        raise UserError("save_conf=true: the scores stand in the files of save_txt=true")
    if mode != "train":
        return
    for own, keys in REPLACED.items():
        for key in keys:
            if args[own] and given.get(key):
                raise UserError(f"{key}={shown(given[key])}: {own}={args[own]} takes its place; set {own}=null")
    if args["select"] == LAST and given.get("patience"):
        raise UserError(f"patience={shown(given['patience'])}: {NO_CHOICE}")
    if args["save_every"] is not None and not args["save"]:
        raise UserError(f"save_every={args['save_every']}: save=false keeps no checkpoint before the last epoch")
    if args["decay_all"] and str(args["optimizer"]).lower() != "sgd":
        raise UserError(f"optimizer={args['optimizer']}: decay_all=true needs optimizer=SGD")
    for key, (needs, needed) in NEEDS.items():
        if args[key] != OWN[key] and not args[needs]:
            raise UserError(
                f"{key}={shown(args[key])}: it needs {needs}={needed}; {key}={shown(OWN[key])} does nothing"
            )
    if args.get("augmentations") and find_spec("albumentations") is None:
        raise UserError("augmentations: they need the package albumentations, which is not installed")


def check_device(device: Any) -> None:
    """Raise UserError for a device that this machine does not have; upstream says so in ten lines, or takes the CPU."""
    if device is None or not str(device):
        return
    idle = IDLE in str(device) and not torch.cuda.is_available()  # upstream would look for one, and say so at length
    word, found = "", None
    with suppress(ValueError):  # also of a number without end, or one that is none
        word = "" if idle else parse_device(device)
        if all(int(part) < torch.cuda.device_count() for part in word.split(",") if part.isdigit()):
            found = select_device(word, verbose=False)
    if not isinstance(found, torch.device) or (found.type == CPU and word != CPU):
        choices = [CPU, *range(torch.cuda.device_count()), *(["mps"] if torch.backends.mps.is_available() else [])]
        raise UserError(f"device={shown(device)}: not on this machine; {suggest(device, choices)}")
