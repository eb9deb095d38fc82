"""Exports of 8 bits: which nodes are, what it costs is told, and boxes stay in float32."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torchvision.ops import box_iou

from benchmarks.exports import built
from tests.export.test_onnx import best  # noqa: F401 - a fixture
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.export.int8 import network_nodes, own_weights
from tinyyolo.export.metadata import describe
from tinyyolo.export.onnx import OnnxRuntime, onnx_model

BEST = 30  # detections of an image, by score


def graph(*rows):
    """A graph of nodes, each as "name: Operator inputs > output"."""
    nodes = []
    for row in rows:
        (name, kind), (inputs, output) = (row.split(" > ")[0].split(" ")[:2]), (row.split(" > "))
        nodes.append(onnx.helper.make_node(kind, inputs.split(" ")[2:], [output], name=name.rstrip(":")))
    return onnx.helper.make_graph(nodes, "by hand", [], [])


def test_the_last_layer_of_a_head_and_what_follows_are_not_of_the_network():
    nodes = network_nodes(
        graph(
            "norm: Div images 255 > a",
            "stem: Conv a w > b",
            "act: Sigmoid b > c",
            "silu: Mul b c > d",
            "half: Slice d from to > e",
            "add: Add d e > f",
            "last: Conv f w > logits",
            "flat: Reshape logits shape > g",
            "score: Sigmoid g > scores",
            "decode: Mul g anchors > boxes",
        )
    )
    assert nodes == ["stem", "act", "silu", "add"]


def test_boxes_of_regions_are_not_but_what_is_seen_of_them_is():
    """RoIAlign takes maps and boxes; an RPN ends at the boxes, sizes of a map lead nowhere."""
    nodes = network_nodes(
        graph(
            "stem: Conv images w > a",
            "side: Add size one > s",
            "up: Resize a none none s > b",
            "rpn: Conv b w > c",
            "deltas: Conv c w > d",
            "decode: Add d anchors > rois",
            "pool: RoiAlign b rois of > e",
            "rows: Flatten e > f",
            "first: Gemm f w > g",
            "relu: Relu g > h",
            "second: Gemm h w > logits",
        )
    )
    assert nodes == ["stem", "up", "rpn", "first", "relu"]


def test_weights_that_stand_for_several_layers_are_copied():
    shared = graph("same: Identity w > v", "one: Conv images w > a", "other: Conv a v > b")
    shared.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w"))
    own_weights(shared)
    assert [one.name for one in shared.initializer] == ["w", "v"] and [n.name for n in shared.node] == ["one", "other"]
    assert onnx.numpy_helper.to_array(shared.initializer[1]).item() == 1


def test_the_command_says_what_it_costs(best, tiny_set, tmp_path, capfd):  # noqa: F811
    copy = tmp_path / "a.pt"
    copy.write_bytes(best.read_bytes())
    words = [f"model={copy}", "format=onnx", "int8=true", f"data={tiny_set}", "fraction=0.5", "imgsz=64"]
    code, out, err = call("export", *words, capsys=capfd)
    said = out + err
    assert code == 0 and "those of 3 of 6 images" in said and "split train" in said
    assert "detections, boxes differ by" in said and "of the checkpoint, AP " in said and "split val" in said
    runtime = OnnxRuntime(copy.with_suffix(".onnx"))
    assert runtime.said["precision"] == "int8"
    assert len(Model(runtime.path).predict(np.zeros((64, 64, 3), np.uint8), conf=0, verbose=False)) == 1
    weights = [one.data_type for one in onnx.load(runtime.path).graph.initializer]
    assert weights.count(onnx.TensorProto.INT8) > 10
    nodes = onnx.load(runtime.path).graph.node
    suppression = next(node for node in nodes if node.op_type == "NonMaxSuppression")
    maker = {name: node for node in nodes for name in node.output}
    assert maker[suppression.input[0]].op_type != "DequantizeLinear"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["format=onnx", "int8=true", "half=true", "data=toy.yaml"], "int8=true is another precision"),
        (["format=onnx", "data=toy.yaml"], "data=toy.yaml: an export asks for images with int8=true alone"),
        (["format=onnx", "int8=true"], "data= is missing"),
        (["format=torchscript", "int8=true"], "int8=true: a setting of format=onnx"),
        (["format=openvino", "int8=true", "data=toy.yaml"], "use nncf.quantize on the folder of float32"),
        (["format=onnx", "int8=true", "data=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(best, given, says, capsys):  # noqa: F811
    code, _, err = call("export", f"model={best}", *given, capsys=capsys)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1, err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet-r18-nwdrka", "faster-rcnn-r18-rfla"])
def test_what_scores_best_is_found_there_too(name):
    """Of an untrained one; of another image's detections about .4 lie on them by chance."""
    model, generator = built(name), torch.Generator().manual_seed(0)
    batches = [torch.rand(*shape, generator=generator) for shape in ((1, 3, 96, 128), (2, 3, 96, 64))]
    said = describe(model, [96, 96], "a", dynamic=True, nms=True, precision="int8")
    runtime = OnnxRuntime(Path("a.onnx"), onnx_model(model, said, images=batches).SerializeToString())
    rules, shares = Postprocess.of({**model.test, "score": 1e-4, "max_det": 100}), []
    for batch in batches:
        with torch.no_grad():
            own = rules.of_output(model.predict(batch))
        for (boxes, _, labels), (others, _, theirs) in zip(own, runtime.detect(batch, rules), strict=True):
            near = (box_iou(boxes[:BEST], others) > 0.7) & (labels[:BEST, None] == theirs)
            shares.append(near.any(dim=1).float().mean().item())
    assert len(shares) == 3 and min(shares) > 0.7, shares
