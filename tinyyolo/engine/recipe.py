"""What a run's arguments make of a model: its loss gains, and which parts do not learn."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from tinyyolo.config import UserError
from tinyyolo.detectors.base import Detector
from tinyyolo.heads import HEADS

GAINS = ("box", "cls")  # keys that set the gains of a model's YAML


def with_gains(spec: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """A copy of a model YAML with the loss gains `box` and `cls` of `given`, and what these two then are, if anything.

    Raises:
        UserError: the head of this model weighs no losses.

    Examples:
        >>> with_gains({"head": {"type": "yolo", "gains": {"box": 7.5, "cls": 1.0}}}, {"box": 5, "lr0": 0.1})
        ({'head': {'type': 'yolo', 'gains': {'box': 5, 'cls': 1.0}}}, {'box': 5, 'cls': 1.0})
    """
    gains = {key: given[key] for key in GAINS if given.get(key) is not None}
    head = spec.get("head") or {}
    kind = HEADS.get(str(head.get("type")))
    if gains and (kind is None or "gains" not in inspect.signature(kind).parameters):
        name, value = next(iter(gains.items()))
        raise UserError(f"{name}={value}: this model's losses have no gains, as published; only the anchor YOLO's do")
    own = {**(head.get("gains") or {}), **gains}
    spec = {**spec, "head": {**head, "gains": own}} if gains else dict(spec)
    return spec, {key: own[key] for key in GAINS if isinstance(own.get(key), (int, float))}


def parts(model: Detector) -> list[list[str]]:
    """What `freeze=n` counts, in data-flow order: the stages of the backbone, then the neck, then each head.

    Returns:
        Names of modules; a norm belongs to the layer before it.
    """
    out: list[list[str]] = []
    for name, module in stages("backbone", model.backbone):
        if isinstance(module, nn.BatchNorm2d) and out:
            out[-1].append(name)
        elif any(True for _ in module.parameters()):
            out.append([name])
    return out + [[name] for name, _ in model.named_children() if name != "backbone"]


def stages(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children of a module, and of its lists, with their names."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from stages(f"{prefix}.{name}", child)
        else:
            yield f"{prefix}.{name}", child


def freeze(model: Detector, given: int | str | Sequence[int | str] | None) -> list[str]:
    """Set `requires_grad` of the parameters that `freeze=` names to False.

    Args:
        model: the detector.
        given: how many of `parts`, or a list of their numbers, or names of modules such as "backbone" or "neck".

    Returns:
        The names of the frozen modules; empty for none.

    Raises:
        UserError: a number or name that there is not, or nothing left to train.
    """
    if given is None:
        return []
    every = parts(model)
    listed = ", ".join(f"{i} {part[0]}" for i, part in enumerate(every))
    wanted = range(given) if isinstance(given, int) else [given] if isinstance(given, str) else given
    names: list[str] = []
    for one in wanted:
        found = every[one] if isinstance(one, int) and one < len(every) else [str(one)]
        if not any(under(name, found) for name, _ in model.named_parameters()):
            raise UserError(f"freeze={given}: no part {one!r}; there are {listed}")
        names += found
    for name, parameter in model.named_parameters():
        if under(name, names):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze={given}: nothing would be left to train; there are {listed}")
    return names


def under(name: str, modules: Sequence[str]) -> bool:
    """Whether a parameter or module is one of these modules or inside one.

    Examples:
        >>> under("backbone.stages.1.conv", ["backbone.stages.1"]), under("backbone.stages.10", ["backbone.stages.1"])
        (True, False)
    """
    return any(f"{name}.".startswith(f"{module}.") for module in modules)
