"""Which exported file is run by what."""

from __future__ import annotations

from pathlib import Path

from tinyyolo.export.onnx import OnnxRuntime
from tinyyolo.export.runtime import Runtime


def opened(path: Path) -> Runtime | None:
    """What runs an export that takes any size; None for another file.

    Raises:
        UserError: see `OnnxRuntime`.
    """
    return OnnxRuntime(path) if path.suffix.lower() == ".onnx" else None
