"""What a checkpoint must hold, by kind and shape, before a model is built of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tinyyolo import __version__
from tinyyolo.config import UserError, kind_fault, shown
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import thresholds_fault
from tinyyolo.engine.keys import KEYS, check_keys

FORMAT = 1
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
SPARE = 2_000  # operations that building a model takes beside a few for each of its tensors
PER_TENSOR = 10  # these few; measured: 2 to 3 with the models of cfg/models


class Content(TypedDict):
    """What every checkpoint holds; newer ones also `thresholds`, scores of the classes or null, and `commit`."""

    format: int
    yaml: dict[str, Any]
    names: dict[int, str]
    model: dict[str, Any]  # tensors, each looked at by name
    train_args: dict[str, Any]


class Group(TypedDict):
    """Parameters of an optimiser that have the same settings, as many as it has."""

    params: list[int]
    lr: float


class Optimizer(TypedDict):
    """An optimiser's state dict."""

    state: dict[int, dict[str, Any]]
    param_groups: list[Group]


class Stopper(TypedDict):
    """The best epoch so far."""

    best_fitness: float
    best_epoch: int


class Place(TypedDict, total=False):
    """Where a process stands inside an epoch, see `datasets.train.loader.place_of`."""

    python: list[Any]
    numpy: list[Any]
    torch: list[int]
    recent: list[int]
    cuda: list[int] | None


class Others(TypedDict):
    """Where another process of the run stands."""

    place: Place
    places: dict[int, Place]


class Ahead(TypedDict, total=False):
    """What older checkpoints lack: the phase of the run, and the epoch that comes or goes on."""

    phase: Literal["train", "evaluate"]
    last_step: int
    attempts: int
    grads: dict[str, Any]  # tensors
    batch: int
    mean: dict[str, Any]  # tensors
    place: Place
    places: dict[int, Place]
    others: list[Others]
    workers: int
    processes: int


class Resume(Ahead):
    """What a training goes on from, beside the averaged weights."""

    model: dict[str, Any]  # tensors, each looked at by name
    optimizer: Optimizer
    scaler: dict[str, Any]
    updates: int
    best_fitness: float | None
    stopper: Stopper


class Unfinished(TypedDict):
    """A checkpoint to resume from."""

    epoch: int
    resume: Resume


def check_content(content: Any, path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, its class names as {index: name}.

    Raises:
        UserError: it is something else, which is named; a part is missing or of another kind, or tensors are not those
            of its model YAML, or not finite.
    """
    if other := what_else(content, path):
        raise UserError(f"{path}: {other}")
    if isinstance(number := content["format"], int) and number > FORMAT:
        raise UserError(f"{path}: written by a newer tinyyolo, {content.get('tinyyolo')}; this is {__version__}")
    content = {**content, "names": by_index(content["names"])}
    check_kinds(content, Content, path)
    if content.get("resume") is not None:
        check_kinds(content, Unfinished, path)
    for part in ("yaml", "train_args"):
        try:
            json.dumps(content[part])
        except TypeError as error:
            raise UserError(f"{path}: {part}: no plain values: {error}") from error
    names = content["names"]
    if not names or sorted(names) != list(range(len(names))):
        raise UserError(f"{path}: names={shown(names)}: expected the class names 0, 1, 2 ...")
    said = content["yaml"].get("nc", len(names))
    if said != len(names):
        raise UserError(f"{path}: {len(names)} names, but nc={shown(said)} in its model YAML")
    if fault := thresholds_fault(content.get("thresholds"), len(names)):
        raise UserError(f"{path}: {fault}")
    check_tensors(content, path)
    return content


def by_index(names: Any) -> Any:
    """Class names as {index: name}, where they are a list, or have the text keys of JSON.

    Examples:
        >>> by_index(["ship"]), by_index({"0": "ship"})
        ({0: 'ship'}, {0: 'ship'})
    """
    if isinstance(names, list):
        return dict(enumerate(names))
    if isinstance(names, dict) and all(isinstance(key, str) and re.fullmatch(r"\d{1,9}", key) for key in names):
        return {int(key): name for key, name in names.items()}
    return names


def what_else(content: Any, path: Path) -> str:
    """What a file of tensors is if it is no checkpoint of tinyyolo, and what to do with it; or ''."""
    if not isinstance(content, dict):
        return f"no tinyyolo checkpoint: it holds a {type(content).__name__} alone"
    if all(key in content for key in Content.__annotations__):
        return ""
    bare = bool(content) and all(isinstance(value, Tensor) for value in content.values())
    if bare or "state_dict" in content:
        return f"a bare state_dict; load it into a model by its name: Model('NAME.yaml').load('{path.name}')"
    if "param_groups" in content and "model" not in content:
        return "the state of an optimizer, without a model; the checkpoint of the run is best.pt or last.pt"
    missing = [key for key in Content.__annotations__ if key not in content]
    return f"no tinyyolo checkpoint: it lacks {', '.join(missing)}"


def check_kinds(content: Mapping[str, Any], kind: Any, path: Path) -> None:
    """Check that the parts of a checkpoint are of their kinds. UserError: names the first that is not."""
    said, place = kind_fault(content, kind)
    if said:
        place = place.replace("`", "").replace("$.", "").lstrip(".")  # of ".names[0]", "key` in `$.names"
        raise UserError(f"{path}: damaged, or none of tinyyolo's: {f'{place}: ' if place else ''}{said}")


def check_train_args(args: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The training arguments of a checkpoint that this version knows. UserError: a value that no training takes."""
    known = {key: value for key, value in args.items() if key in KEYS and "t" in KEYS[key].modes}
    check_keys("train", known, where=f"{path}: train_args: ")
    return known


# ---- tensors


def own_yaml(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's model YAML without the file of backbone weights, which its state dict has."""
    spec = dict(content["yaml"]) if isinstance(content["yaml"], Mapping) else {}
    if isinstance(spec.get("backbone"), Mapping):
        spec["backbone"] = {key: value for key, value in spec["backbone"].items() if key != "weights"}
    return spec


class AtMost(TorchDispatchMode):
    """Within this context at most so many operations: a YAML of a few words can name a model of 10^9 layers."""

    def __init__(self, most: int):
        super().__init__()
        self.left = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise UserError("its model YAML names far more layers than it has tensors")
        return func(*args, **(kwargs or {}))


def check_tensors(content: Mapping[str, Any], path: Path) -> None:
    """Check the weights, and those to resume from, against the model of the YAML, which takes no memory.

    Raises:
        UserError: a YAML that cannot be built, a tensor that is missing, unknown, of another shape or kind, or with
            values that are not finite; names the tensor.
    """
    state: dict[str, Tensor] = content["model"]
    try:
        with torch.device("meta"), AtMost(SPARE + PER_TENSOR * len(state)):
            own = build_model(own_yaml(content), len(content["names"])).state_dict()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    parts = {"model": state} | ({"resume.model": content["resume"]["model"]} if content.get("resume") else {})
    for part, tensors in parts.items():
        if fault := fault_of_tensors(own, tensors):
            raise UserError(f"{path}: {part}: its weights do not fit its own model YAML: {fault}")
    for name, tensor in state.items():
        if tensor.numel() and not all(math.isfinite(bound) for bound in tensor.aminmax()):  # 40 times isfinite's speed
            raise UserError(f"{path}: model: {name} has values that are not finite: its training had failed")


def fault_of_tensors(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    """The first of `given` that does not fit a model's own tensors, or ''."""
    if missing := [name for name in own if name not in given]:
        return f"{missing[0]} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
    for name, tensor in given.items():
        if name not in own:
            return f"{shown(name)} is none of its tensors"
        if not isinstance(tensor, Tensor):
            return f"{name}={shown(tensor)} is no tensor"
        if tensor.shape != own[name].shape:
            return f"{name} has the shape {tuple(tensor.shape)}, the YAML's {tuple(own[name].shape)}"
        if tensor.dtype != own[name].dtype and not {tensor.dtype, own[name].dtype} <= FLOATS:
            return f"{name} is of {tensor.dtype}, the YAML's of {own[name].dtype}"
    return ""


def check_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Check an optimiser's saved state against the optimiser that is to go on from it.

    Raises:
        UserError: other groups, a setting that is missing, or a tensor of another shape than its parameter.
    """
    own, groups = optimizer.param_groups, saved["param_groups"]
    sizes, wanted = ([len(group.get("params") or ()) for group in some] for some in (groups, own))
    if sizes != wanted:
        raise UserError(f"resume.optimizer.param_groups: of {sizes} parameters, the model's are of {wanted}")
    for i, (group, mine) in enumerate(zip(groups, own, strict=True)):
        if missing := [key for key in mine if key not in group]:
            raise UserError(f"resume.optimizer.param_groups[{i}]: it lacks {', '.join(missing)}")
        for number, parameter in zip(group["params"], mine["params"], strict=True):
            for key, value in saved["state"].get(number, {}).items():
                if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                    shapes = f"{tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
                    raise UserError(f"resume.optimizer.state[{number}].{key} has the shape {shapes}")
