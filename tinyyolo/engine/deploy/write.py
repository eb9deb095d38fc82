"""Exports that are compared with their checkpoint before they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyyolo.config import UserError, shown, suggest
from tinyyolo.datasets.drawn.aerial import draw_aerial
from tinyyolo.detectors.base import Detector
from tinyyolo.export.compare import TOLERANCES, Difference, check, difference
from tinyyolo.export.graph import sides
from tinyyolo.export.metadata import describe
from tinyyolo.export.onnx import OnnxRuntime, onnx_model
from tinyyolo.export.openvino import OpenVinoRuntime, openvino_files, put
from tinyyolo.export.runtime import Runtime
from tinyyolo.io import whole_file
from tinyyolo.sizes import filled_up

# What other programs make of the ONNX file; nothing of it is run here.
ELSEWHERE = {
    "engine": "trtexec --onnx={file} --saveEngine=best.engine --minShapes=images:1x3x{size} "
    "--maxShapes=images:8x3x{size} (export with nms=false)",
    "ncnn": "pnnx {file} inputshape=[1,3,{size}] (export with nms=false)",
    "coreml": "coremltools no longer reads ONNX: convert the .torchscript file by coremltools.convert",
    "litert": "onnx2tf -i {file} (export with nms=false)",
    "mnn": "MNNConvert -f ONNX --modelFile {file} --MNNModel best.mnn (export with nms=false)",
    "rknn": "rknn-toolkit2's load_onnx on {file} (export with nms=false)",
}
FAINT = 0.1  # detections of about that score come and go with 8 bits
OTHER_NAMES = {"tensorrt": "engine", "mlpackage": "coreml", "tflite": "litert"}
DRAWN = (40, 80), (4.0, 24.0)  # objects in the picture that an export is tried on, and their sides, px


Images = Iterable[Tensor] | None  # batches by which an export is quantised


def to_onnx(detector: Detector, path: Path, imgsz: Any, nms: bool, half: bool, images: Images = None) -> None:
    """Write an ONNX file beside a checkpoint, whole or not at all, and only if it finds what the checkpoint finds.

    With `images` it has 8 bits and finds something else, which is told and not refused.

    Raises:
        UserError: a package is missing, the file finds something else, or cannot be written.
    """
    size_hw, precision = sides(imgsz), precision_of(half, images)
    said = describe(detector, size_hw, path.stem, dynamic=True, nms=nms, precision=precision)
    content = onnx_model(detector, said, nms, half, images=images).SerializeToString()
    compared(detector, OnnxRuntime(path, content), size_hw, path)
    with whole_file(path) as file:
        file.write(content)


def to_openvino(detector: Detector, path: Path, imgsz: Any, nms: bool, half: bool) -> None:
    """Write a folder of OpenVINO's files, as `to_onnx` writes a file.

    Raises:
        UserError: see there.
    """
    size_hw, precision = sides(imgsz), precision_of(half)
    said = describe(detector, size_hw, path.name, dynamic=True, nms=nms, precision=precision)
    with TemporaryDirectory(prefix="tinyyolo-") as folder:
        openvino_files(detector, said, Path(folder), nms, half)
        compared(detector, OpenVinoRuntime(Path(folder)), size_hw, path)
        put(Path(folder), path)


def precision_of(half: bool, images: Images = None) -> str:
    """What the metadata say of the weights.

    Examples:
        >>> precision_of(False), precision_of(True), precision_of(False, [])
        ('float32', 'float16', 'int8')
    """
    return "int8" if images is not None else "float16" if half else "float32"


def compared(detector: Detector, runtime: Runtime, size_hw: Sequence[int], path: Path) -> Difference:
    """Tell how far an export is from its checkpoint.

    Raises:
        UserError: too far.
    """
    precision = runtime.said["precision"]
    own, known = deepcopy(detector).cpu().float().eval(), TOLERANCES.get(precision)
    seen = difference(own, runtime.detect, trials(size_hw), known.scores if known else FAINT, known)
    print(f"{path}: compared with the checkpoint on drawn images: {seen.words}")
    if known:
        check(path, seen, precision)
    return seen


def trials(size_hw: Sequence[int]) -> list[Tensor]:
    """Batches of one drawn picture, of three parts of it, and of one without anything in it."""
    height, width = size_hw
    picture, *_ = draw_aerial(np.random.default_rng(0), max(size_hw), *DRAWN)
    image = torch.from_numpy(picture[:height, :width, ::-1].copy()).permute(2, 0, 1).float() / 255
    high, wide = filled_up(height // 2), filled_up(width // 2)
    parts = torch.stack([image[:, :high, :wide], image[:, -high:, -wide:], image[:, :high, -wide:]])
    blank = torch.full((1, 3, high, filled_up(width)), 0.5)
    return [image[None], parts, blank]


def refuse_format(given: Mapping[str, Any], formats: Sequence[str]) -> None:
    """Raise UserError for a format that is not offered, with what makes it of an ONNX file, where something does."""
    if given["format"] in formats:
        return
    name = str(given["format"]).lower()
    if route := ELSEWHERE.get(OTHER_NAMES.get(name, name)):
        size = "x".join(map(str, sides(given["imgsz"])))
        command = route.format(file="best.onnx", size=size)
        raise UserError(f"format={name}: not written here; format=onnx first, then {command}; not tried here")
    raise UserError(f"format={shown(given['format'])}: not supported; {suggest(name, formats)}")
