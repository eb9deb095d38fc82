"""ONNX: the network with its suppression in operators that onnxruntime and many others run; no code, any size.

The exporter is torch's recorder of traces (`dynamo=False`): the one by `torch.export` fails where a detector's shapes
depend on its data, as in what suppression leaves.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.onnx import symbolic_helper

from tinyyolo.config import UserError
from tinyyolo.detectors.archives import in_one_line
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.postprocess import AUTO, SHOWN_SCORE, of_run
from tinyyolo.detectors.tensor_files import json_of
from tinyyolo.export.graph import FOUND, IMAGES, LIMITS, PAIRS, RAW, Graph, limits_of
from tinyyolo.export.int8 import quantised
from tinyyolo.export.metadata import checked
from tinyyolo.export.runtime import Outputs, Runtime
from tinyyolo.heads.points.reppoints import RepPointsHead
from tinyyolo.layers.sac import SAConv2d
from tinyyolo.scenes import need

PACKAGES = ("onnx", "onnxruntime")
EXTRA = "'tinyyolo[export]'"
OPSET = 18  # the last that all of onnxruntime's kernels and its static quantisation take
DEFORMABLE_OPSET = 19  # the first with DeformConv
DEFORMABLE = (SAConv2d, RepPointsHead)
EXAMPLE = (2, 3, 96, 128)  # a batch, and sides that differ, to record with
FAULTS = ["Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException"]
OWN = ("names", "test")  # what the metadata of our files have
TEXTS = ("description", "version", "task", "license", "precision")  # of them; all else is JSON


def onnx_model(
    detector: Detector,
    said: Mapping[str, Any],
    nms: bool = True,
    half: bool = False,
    defaults: bool = True,
    images: Iterable[Tensor] | None = None,
) -> Any:
    """A detector as `onnx.ModelProto`, with its metadata; see `Graph` for what goes in and comes out.

    Args:
        detector: stays as it is.
        said: of `describe`.
        nms: whether detections come out, too.
        half: see `Graph`.
        defaults: whether LIMITS may be left out; the model's own rules then count.
        images: batches (B, 3, H, W) by which it is quantised, see `quantised`; None: it is not.

    Raises:
        UserError: a package is missing, or an operator of the detector has no place in ONNX.
    """
    for package in PACKAGES:
        need(package, "format=onnx", EXTRA)
    onnx = import_module("onnx")
    torch.onnx.utils.register_custom_op_symbolic("torchvision::deform_conv2d", deform_conv, DEFORMABLE_OPSET)
    limits = limits_of(of_run(detector, {"conf": AUTO}, SHOWN_SCORE), list(detector.names)) if nms else []
    free = {IMAGES: {0: "batch", 2: "height", 3: "width"}, RAW: {0: "batch", 2: "candidates"}, PAIRS: {0: "pairs"}}
    free |= {name: {0: "batch" if name == FOUND[-1] else "found"} for name in FOUND}
    file, inputs = io.BytesIO(), (torch.rand(EXAMPLE, generator=torch.Generator().manual_seed(0)), *limits)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the recorder: what is constant is meant to be
        torch.onnx.export(
            Graph(detector, nms, half),
            inputs,
            file,  # type: ignore[arg-type]  # it takes files, too
            dynamo=False,
            opset_version=DEFORMABLE_OPSET if is_deformable(detector) else OPSET,
            input_names=[IMAGES, *(LIMITS if nms else ())],
            output_names=(names := [*FOUND, PAIRS] if nms else [RAW]),
            dynamic_axes={name: free[name] for name in (IMAGES, *names)},
        )
    model, given = onnx.load_from_string(file.getvalue()), {k: v.numpy() for k, v in zip(LIMITS, limits, strict=False)}
    if images is not None:
        model = quantised(model, ({IMAGES: batch.numpy(), **given} for batch in images))
    for name, value in given.items() if defaults else ():  # an input that has a value may be left out
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.producer_name, model.producer_version = "tinyyolo", str(said["version"])
    onnx.helper.set_model_props(model, {key: as_text(key, value) for key, value in said.items()})
    return model


def is_deformable(detector: Detector) -> bool:
    """Whether there are deformable convolutions in a detector."""
    return any(isinstance(part, DEFORMABLE) for part in detector.modules())


@symbolic_helper.parse_args("v", "v", "v", "v", "v", "i", "i", "i", "i", "i", "i", "i", "i", "b")
def deform_conv(
    g: Any,
    x: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Any:
    """torchvision's deformable convolution as the operator; torch's exporter knows none. Masks are not used here."""
    places = {"strides_i": [stride_h, stride_w], "pads_i": [pad_h, pad_w] * 2, "dilations_i": [dilation_h, dilation_w]}
    return g.op("DeformConv", x, weight, offset, bias, group_i=groups, offset_group_i=offset_groups, **places)


def as_text(key: str, value: Any) -> str:
    """An entry of the metadata as ONNX holds it."""
    return str(value) if key in TEXTS else json.dumps(value)


class OnnxRuntime(Runtime):
    """An ONNX file of ours, run by onnxruntime.

    Args:
        path: the file.
        content: its bytes, where it is not written yet.

    Raises:
        UserError: no such file, one of another maker, or one that onnxruntime cannot run; or it is not installed.
    """

    def __init__(self, path: Path, content: bytes | None = None):
        need("onnxruntime", str(path), EXTRA)
        ort: Any = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        providers = [one for one in ort.get_available_providers() if one.startswith(("CUDA", "CPU"))]
        state = ort.capi.onnxruntime_pybind11_state
        try:
            session = ort.InferenceSession(content or str(path), options, providers=providers)
        except tuple(getattr(state, name) for name in FAULTS) as error:
            raise UserError(f"{path}: onnxruntime cannot run it: {in_one_line(error)}") from error
        super().__init__(path, said_in(session.get_modelmeta().custom_metadata_map, path))
        self.session = session
        self.check_outputs([output.name for output in session.get_outputs()])

    def run(self, images: Any, limits: Sequence[Any], wanted: Sequence[str]) -> Outputs:
        """See `Runtime`."""
        inputs = {IMAGES: images, **dict(zip(LIMITS, limits, strict=False))}
        return dict(zip(wanted, self.session.run(list(wanted), inputs), strict=True))


def said_in(properties: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The metadata of a file of ours from its properties.

    Raises:
        UserError: it is another's, or says something else than ours do.
    """
    if not set(OWN) <= set(properties):
        maker = properties.get("author") or properties.get("description") or "another program"
        raise UserError(
            f"{path}: not an export of tinyyolo but of {in_one_line(Exception(maker))}: its outputs are not known here"
        )
    said = {key: text if key in TEXTS else json_of(text, path) for key, text in properties.items()}
    return checked(said, path, "metadata")
