"""OpenVINO: the same graph as ONNX, as a folder of OpenVINO's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tinyyolo.config import UserError
from tinyyolo.detectors.archives import in_one_line
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.tensor_files import json_of
from tinyyolo.export.graph import IMAGES, LIMITS
from tinyyolo.export.metadata import checked
from tinyyolo.export.onnx import EXTRA, is_deformable, onnx_model
from tinyyolo.export.runtime import Outputs, Runtime
from tinyyolo.io import whole_file, write_json
from tinyyolo.scenes import need

FOLDER = "_openvino"  # behind a checkpoint's name
METADATA, GRAPH, WEIGHTS = "metadata.json", "model.xml", "model.bin"


def openvino_files(detector: Detector, said: Mapping[str, Any], folder: Path, nms: bool, half: bool) -> None:
    """Write a detector as OpenVINO's files into a folder that is there.

    Args:
        detector: stays as it is.
        said: of `describe`.
        folder: for model.xml, model.bin and metadata.json.
        nms: whether detections come out, too; score, iou and max_det are then inputs without defaults.
        half: weights of 16 bits; OpenVINO computes with 32 all the same.

    Raises:
        UserError: the package is missing, or the detector has operators that its reader does not know.
    """
    need("openvino", "format=openvino", EXTRA)
    if is_deformable(detector):
        raise UserError("format=openvino: its reader has no deformable convolution; format=onnx runs by onnxruntime")
    openvino: Any = import_module("openvino")
    content = onnx_model(detector, said, nms, defaults=False).SerializeToString()
    model = openvino.Core().read_model(content)
    openvino.save_model(model, folder / GRAPH, compress_to_fp16=half)
    write_json(folder / METADATA, dict(said))


def put(source: Path, target: Path) -> None:
    """Copy an export's files into its folder; the metadata come last, without which it is none.

    Raises:
        UserError: they cannot be written.
    """
    target.mkdir(exist_ok=True)
    (target / METADATA).unlink(missing_ok=True)
    for name in (WEIGHTS, GRAPH, METADATA):
        with whole_file(target / name) as file:
            file.write((source / name).read_bytes())


class OpenVinoRuntime(Runtime):
    """A folder of ours, run by OpenVINO on the CPU, in float32.

    Args:
        path: the folder.

    Raises:
        UserError: a file is missing or damaged, or of another maker; or OpenVINO is not installed.
    """

    def __init__(self, path: Path):
        need("openvino", str(path), EXTRA)
        openvino: Any = import_module("openvino")
        missing = [name for name in (METADATA, GRAPH, WEIGHTS) if not (path / name).is_file()]
        if missing:
            raise UserError(f"{path}: not an export of tinyyolo, or one cut short: it has no {missing[0]}")
        said = json_of((path / METADATA).read_text(encoding="utf-8", errors="replace"), path / METADATA)
        super().__init__(path, checked(said, path, METADATA))
        # By itself OpenVINO computes in 16 bits where a processor can, which moves boxes.
        options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        try:
            model = core.read_model(path / GRAPH, path / WEIGHTS)
            self.compiled = core.compile_model(model, "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"})
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot run it: {in_one_line(error)}") from error
        self.check_outputs([name for output in self.compiled.outputs for name in output.names])

    def run(self, images: Any, limits: Sequence[Any], wanted: Sequence[str]) -> Outputs:
        """See `Runtime`."""
        found = self.compiled({IMAGES: images, **dict(zip(LIMITS, limits, strict=False))})
        return {name: found[name].copy() for name in wanted}  # the next call writes into the same memory
