"""Which exported file is run by what."""

from __future__ import annotations

from pathlib import Path

from tinyyolo.detectors.tensor_files import start
from tinyyolo.export.onnx import OnnxRuntime
from tinyyolo.export.openvino import FOLDER, OpenVinoRuntime
from tinyyolo.export.runtime import Runtime


def opened(path: Path) -> Runtime | None:
    """What runs an export that takes any size; None for another file.

    Raises:
        UserError: see `OnnxRuntime` and `OpenVinoRuntime`.
    """
    if path.name.lower().endswith((FOLDER, f"{FOLDER}_model")):  # the second are upstream's, which it refuses
        return OpenVinoRuntime(path)
    return OnnxRuntime(start(path)[0]) if path.suffix.lower() == ".onnx" else None
