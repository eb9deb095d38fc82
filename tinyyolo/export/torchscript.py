"""Exports that run without this package."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tinyyolo import __version__
from tinyyolo.config import UserError
from tinyyolo.detectors.base import ENGINE_STRIDE, votes_of

if TYPE_CHECKING:
    from tinyyolo.engine.model import Model

METADATA = "config.txt"  # where ultralytics' AutoBackend looks for names, stride and image size


def torchscript(model: Model, args: Mapping[str, Any]) -> str:
    """Trace a model at a fixed image size.

    The file takes RGB images (B, 3, H, W) in [0, 1] and gives (B, 4 + C, N): cx, cy, w, h in pixels and class scores
    before NMS. It is written beside the checkpoint, whole or not at all.

    Args:
        model: the loaded model.
        args: `imgsz`, an int or [height, width]; rounded up to the stride.

    Returns:
        The path of the file.

    Raises:
        UserError: the file cannot be written.
    """
    size = args["imgsz"] if isinstance(args["imgsz"], (list, tuple)) else [args["imgsz"]] * 2
    size = [-(-int(side) // ENGINE_STRIDE) * ENGINE_STRIDE for side in size]
    network = deepcopy(model.model).float().eval().fuse(verbose=False)
    network.export = True
    for parameter in network.parameters():
        parameter.requires_grad = False
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants is intended; that torch has newer exporters too
        traced = torch.jit.trace(network, torch.zeros(1, 3, *size), strict=False, check_trace=False)
    metadata = {
        "description": f"tinyyolo {Path(str(model.model_name)).stem}",
        "version": __version__,
        "stride": ENGINE_STRIDE,
        "task": "detect",
        "batch": 1,
        "imgsz": size,
        "names": model.names,
        "channels": 3,
        "votes": votes_of(network),
        "args": {},
    }
    source = Path(model.ckpt_path) if model.ckpt_path else Path(Path(str(model.model_name)).name)
    path = source.with_suffix(".torchscript")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        torch.jit.save(traced, str(part), _extra_files={METADATA: json.dumps(metadata)})
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path}: not written: {' '.join(str(error).split())[:200]}") from error
    return str(path)
