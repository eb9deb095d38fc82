"""Weights and maps of 8 bits: static quantisation by onnxruntime, of the network alone.

Which nodes are the network is read off the graph: layers, and what stands between them, from which another layer is
reached by maps. The last convolution of a head, decoding, suppression and votes are not, and stay in float32: boxes are
numbers of pixels, and 256 steps over an image are coarser than a tiny object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.detectors.archives import in_one_line

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BETWEEN = ("Relu", "Sigmoid", "Mul", "Add", "Concat", "MaxPool", "Resize")  # they take maps of 8 bits, too
THROUGH = (  # they give maps of what maps they are given, and stay as they are
    *("Slice", "Split", "Pad", "Clip", "LeakyRelu", "Sub", "Div", "Reshape", "Flatten", "AveragePool", "ReduceMean"),
    *("BatchNormalization", "InstanceNormalization", "GlobalAveragePool", "DeformConv", "Cast", "Sqrt"),
)
FIRST_ALONE = ("Resize", "Slice", "Pad", "Clip", "Reshape", "RoiAlign")  # their other inputs are sizes, bounds, boxes
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # layers are fused; it then asks for no preparation


def maps_of(node: Any) -> list[str]:
    """The inputs of a node that may be maps."""
    return [*node.input[:1]] if node.op_type in FIRST_ALONE else [*node.input]


def network_nodes(graph: Any) -> list[str]:
    """Names of the nodes of an `onnx.GraphProto` that are computed with 8 bits; see the module."""
    takers = defaultdict[str, list[Any]](list)
    for node in graph.node:
        for name in maps_of(node):
            takers[name].append(node)
    leads: dict[str, bool] = {}  # whether its output comes to a layer by maps
    for node in reversed(graph.node):  # they stand in the order in which they are computed
        after = [one for name in node.output for one in takers[name]]
        known = (*LAYERS, *BETWEEN, *THROUGH)
        leads[node.name] = any(one.op_type in LAYERS or (one.op_type in known and leads[one.name]) for one in after)
    maps, found = set[str](), []
    for node in graph.node:
        if node.op_type in LAYERS or (node.op_type in (*BETWEEN, *THROUGH) and not maps.isdisjoint(maps_of(node))):
            maps.update(node.output)
            if node.op_type in (*LAYERS, *BETWEEN) and leads[node.name]:
                found.append(node.name)
    return found


def own_weights(graph: Any) -> None:
    """Give each node of an `onnx.GraphProto` weights of its own: the exporter writes equal ones once, with Identity."""
    held = {one.name: one for one in graph.initializer}
    for node in [one for one in graph.node if one.op_type == "Identity" and one.input[0] in held]:
        graph.initializer.add().CopyFrom(held[node.input[0]])
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)


class Reader:
    """Inputs of a graph one after the other, as onnxruntime asks for them."""

    def __init__(self, rows: Iterator[dict[str, np.ndarray]]):
        self.rows = rows

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next ones; None after the last."""
        return next(self.rows, None)


def quantised(model: Any, inputs: Iterable[dict[str, np.ndarray]]) -> Any:
    """An `onnx.ModelProto` whose network has weights and maps of 8 bits, a scale for each channel of a weight.

    The maps' ranges are the least and the greatest value seen. Weights use 7 of their bits: without VNNI x86 processors
    add products in 16 bits, where 8 would overflow and find something else than here.

    Args:
        model: stays as it is.
        inputs: of the graph, by name, for each image.

    Raises:
        UserError: nothing of it can be quantised, or its operators are not known there.
    """
    onnx, ort, quantization = map(import_module, ("onnx", "onnxruntime", "onnxruntime.quantization"))
    if not (nodes := network_nodes(model.graph)):
        raise UserError("int8=true: this model has no layer behind another: nothing to quantise")

    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    own_weights(prepared.graph)
    onnx.helper.set_model_props(prepared, PREPARED)
    state = ort.capi.onnxruntime_pybind11_state
    with TemporaryDirectory(prefix="tinyyolo-") as folder:
        path = Path(folder) / "int8.onnx"
        try:
            quantization.quantize_static(
                prepared,
                path,
                Reader(iter(inputs)),
                op_types_to_quantize=[*LAYERS, *BETWEEN],
                nodes_to_quantize=nodes,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
            )
        except (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented) as error:
            raise UserError(f"int8=true: onnxruntime cannot quantise it: {in_one_line(error)}") from error
        return onnx.load(path)
