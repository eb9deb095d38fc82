"""Safetensors: weights in a file that many programs read and that cannot hold code, with our settings beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo.detectors.tensor_files import write_safetensors

LEFT_OUT = ("model", "resume")  # the weights themselves, and what only a training goes on from


def safetensors(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint as safetensors, whole or not at all; `Model(path)` reads it wherever a .pt may stand.

    The header holds the rest as JSON texts: format, yaml, names, train_args and so on, and a checksum of the file.

    Args:
        content: of a checkpoint, plain values, as `engine.checkpoint` gives it.
        path: of the file.

    Raises:
        UserError: the file cannot be written.
    """
    values = {key: value for key, value in content.items() if key not in LEFT_OUT}
    write_safetensors(Path(path), content["model"], values)
