"""Checkpoints of tensors and plain values: no pickled class, loaded with weights_only, written whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinyyolo import __version__
from tinyyolo.config import UserError
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.build import build_model
from tinyyolo.io import whole_file

FORMAT = 1
KEYS = ("format", "yaml", "names", "model", "train_args")


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with whole_file(path) as file:
        torch.save(plain(content), file)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        UserError: missing, truncated, a pickle of another program, or of a newer format.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused: not a tinyyolo checkpoint, or a damaged one (it is no file of plain tensors)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: not a readable checkpoint: {' '.join(str(error).split())[:200]}") from error
    if isinstance(content, dict) and "state_dict" in content:
        raise UserError(
            f"{path}: a bare state_dict; load it into a model by its name: Model('NAME.yaml').load('{path.name}')"
        )
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        raise UserError(f"{path}: no tinyyolo checkpoint: it lacks {', '.join(KEYS)}")
    if content["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer tinyyolo, {content.get('tinyyolo')}; this is {__version__}")
    return content


def to_model(content: Mapping[str, Any], path: str | Path | None = None) -> Detector:
    """The detector of a checkpoint, in eval mode, float32.

    Raises:
        UserError: the weights do not fit the YAML beside them.
    """
    return fill(build_model(own_yaml(content), len(content["names"])), content, path)


def own_yaml(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's model YAML without the file of backbone weights, which its state dict has."""
    spec = dict(content["yaml"]) if isinstance(content["yaml"], Mapping) else {}
    if isinstance(spec.get("backbone"), Mapping):
        spec["backbone"] = {key: value for key, value in spec["backbone"].items() if key != "weights"}
    return spec


def fill(model: Detector, content: Mapping[str, Any], path: str | Path | None = None) -> Detector:
    """Put a checkpoint into a model of its YAML: weights, names, training arguments; in eval mode, float32.

    Raises:
        UserError: the weights do not fit.
    """
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise UserError(
            f"{path}: its weights do not fit its own model YAML: {str(error).splitlines()[-1].strip()}"
        ) from error
    model.yaml = {**own_yaml(content), "nc": len(content["names"])}
    model.names = {int(key): str(value) for key, value in content["names"].items()}
    model.args = dict(content["train_args"])
    model.pt_path = str(path) if path else None
    return model.float().eval()


def of_model(model: Detector, train_args: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The content of a checkpoint that predicts: resolved YAML, names, weights, training arguments and `more`."""
    return {
        "format": FORMAT,
        "tinyyolo": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "yaml": model.yaml,
        "names": model.names,
        "model": {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()},
        "train_args": dict(train_args or {}),
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
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def transfer(model: nn.Module, state: Mapping[str, torch.Tensor]) -> int:
    """Copy the tensors of `state` whose name and shape match; returns how many."""
    own = model.state_dict()
    fit = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict(fit, strict=False)
    return len(fit)
