"""An ONNX file finds what its checkpoint finds, at any size and of any number of images, and says what it is."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks.exports import lively
from tests.support.checkpoints import content
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.detectors.postprocess import Postprocess, boxes_and_scores
from tinyyolo.engine import checkpoint
from tinyyolo.engine.deploy import write
from tinyyolo.export import compare
from tinyyolo.export.compare import paired
from tinyyolo.export.graph import FOUND, PAIRS, RAW
from tinyyolo.export.onnx import OnnxRuntime

THRESHOLDS = [0.15, 0.14]


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """A checkpoint whose untrained model scores every place otherwise."""
    folder = tmp_path_factory.mktemp("onnx")
    model = checkpoint.to_model(content())
    lively(model)
    model.thresholds = THRESHOLDS
    model.settings = Postprocess.of(model.test)
    checkpoint.save(folder / "best.pt", checkpoint.of_model(model, {"imgsz": 64, "overlap": 0.25}))
    return folder / "best.pt"


@pytest.fixture(scope="module")
def file(best):
    return Path(Model(best).export(format="onnx"))


@pytest.fixture(scope="module")
def own(best):
    return Model(best).model


@pytest.fixture(scope="module")
def runtime(file):
    return OnnxRuntime(file)


def images(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("shape", [(1, 96, 128), (3, 64, 64), (2, 160, 32)])
@pytest.mark.parametrize(
    "rules", [{}, {"score": 0.001}, {"score": (0.2, 0.02), "max_det": 7}, {"votes": 4, "classes": (1,)}]
)
def test_the_detections_are_those_of_the_checkpoint(own, runtime, shape, rules):
    rules, batch = Postprocess(**{"votes": 4, "score": 0.1, **rules}), images(*shape)
    with torch.no_grad():
        expected = rules.of_output(own.predict(batch))
    found = runtime.detect(batch, rules)
    assert sum(len(scores) for _, scores, _ in expected) > 3 and len(found) == shape[0]
    for one, other in zip(expected, found, strict=True):
        seen = paired(one, other, 0.0)
        assert len(one[1]) == len(other[1]) and not seen.alone and seen.boxes < 1e-2 and seen.scores < 1e-4
        assert (other[1][:-1] >= other[1][1:]).all()


def test_an_image_without_detections(runtime):
    (boxes, scores, labels), *_ = runtime.detect(torch.full((1, 3, 64, 64), 0.5), Postprocess(score=1.0))
    assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)


def test_what_is_not_given_is_the_models_own(own, runtime):
    """The thresholds of its validation, its NMS and votes."""
    batch = images(1, 96, 96)
    boxes, scores, labels, counts, pairs = runtime.session.run([*FOUND, PAIRS], {"images": batch.numpy()})
    with torch.no_grad():
        (expected,) = Postprocess(score=tuple(THRESHOLDS), votes=4).of_output(y := own.predict(batch))
    assert len(scores) == counts.tolist()[0] == len(expected[1]) > 0
    assert paired(expected, tuple(map(torch.from_numpy, (boxes, scores, labels))), 0.0).boxes < 1e-2
    raw = Postprocess(score=0.0, votes=4).candidates(*(x[0] for x in boxes_and_scores(y)))
    rows = torch.from_numpy(pairs)
    assert not rows[:, 0].any() and (rows[:, 5] > 0.001).all() and len(rows) == (raw[1] > 0.001).sum()
    assert not (seen := paired(raw, (rows[:, 1:5], rows[:, 5], rows[:, 6].long()), 0.001)).alone and seen.boxes < 1e-2


def test_it_says_what_it_is(file):
    said = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert json.loads(said["names"]) == {"0": "dark", "1": "bright"} and json.loads(said["thresholds"]) == THRESHOLDS
    assert json.loads(said["test"]) == {"votes": 4} and json.loads(said["looks"]) == {"overlap": 0.25}
    assert said["license"] == "AGPL-3.0-only" and said["precision"] == "float32" and json.loads(said["stride"]) == 32
    assert onnx.load(file).opset_import[0].version == 18
    onnx.checker.check_model(onnx.load(file))


def test_the_command_says_how_far_it_is_off_and_nothing_else(best, tmp_path, capfd):
    copy = tmp_path / "a.pt"
    copy.write_bytes(best.read_bytes())
    code, out, err = call("export", f"model={copy}", "format=onnx", "nms=false", capsys=capfd)
    assert code == 0 and "detections, boxes differ by" in out + err
    assert len((out + err).strip().splitlines()) == 2, out + err
    model = onnx.load(tmp_path / "a.onnx")
    assert [one.name for one in model.graph.output] == [RAW] and [one.name for one in model.graph.input] == ["images"]
    assert Model(tmp_path / "a.onnx").predict(np.zeros((64, 64, 3), np.uint8), conf=0, verbose=False)


def test_what_finds_something_else_is_not_written(best, tmp_path, monkeypatch):
    copy = tmp_path / "a.pt"
    copy.write_bytes(best.read_bytes())
    find = OnnxRuntime.detect
    shifted = lambda self, *given: [(b + 0.25, s, labels) for b, s, labels in find(self, *given)]  # noqa: E731
    monkeypatch.setattr(OnnxRuntime, "detect", shifted)
    with pytest.raises(
        UserError, match=r"a\.onnx: not written: it finds something else .* differ by 0\.25 px"
    ) as caught:
        Model(copy).export(format="onnx")
    assert "\n" not in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda b, s, c: (b, s, c), (0.0, 0.0, 0)),
        (lambda b, s, c: (b.flip(0), s.flip(0), c.flip(0)), (0.0, 0.0, 0)),
        (lambda b, s, c: (b + 0.5, s, c), (0.5, 0.0, 0)),
        (lambda b, s, c: (b, s - 0.125, c), (0.0, 0.125, 0)),
        (lambda b, s, c: (b[1:], s[1:], c[1:]), (0.0, 0.0, 1)),
        (lambda b, s, c: (b, s, 1 - c), (0.0, 0.0, 6)),
        (lambda b, s, c: (b[:0], s[:0], c[:0]), (0.0, 0.0, 3)),
    ],
)
def test_differences_of_sets(change, seen):
    boxes = torch.tensor([[0.0, 0, 4, 4], [20, 20, 24, 24], [40, 40, 44, 44]])
    own = boxes, torch.tensor([0.75, 0.5, 0.25]), torch.tensor([0, 1, 0])
    found = paired(own, change(*own))
    assert (found.boxes, found.scores, found.alone) == seen


def test_one_detection_may_be_moved_by_a_vote_at_its_limit():
    boxes = torch.tensor([[0.0, 0, 4, 4], [20, 20, 24, 24], [40, 40, 44, 44]])
    own = boxes, torch.tensor([0.75, 0.5, 0.25]), torch.tensor([0, 1, 0])
    within = compare.Tolerance(0.01, 1e-4, 0.002)
    moved = paired(own, (boxes + torch.tensor([[0.0], [0.25], [0.005]]), *own[1:]), within=within)
    assert (moved.alone, moved.moved, moved.far_boxes, moved.far_scores) == (0, 1, 0.25, 0.0)
    assert moved.boxes == pytest.approx(0.005, abs=1e-5) and "; 1 by 0.25 px and 0" in moved.words
    compare.check("a.onnx", moved, "float32")
    less = own[1] - torch.tensor([0.0, 0.125, 0.25])
    twice = paired(own, (boxes + torch.tensor([[0.005], [0], [0]]), less, own[2]), within=within)
    assert (twice.moved, twice.far_scores, twice.scores) == (2, 0.25, 0.0)
    with pytest.raises(UserError, match=r"by 0\.005 px at most, scores by 0\.25; at most 0\.01 px"):
        compare.check("a.onnx", twice, "float32")
    with pytest.raises(UserError, match="are right for float16"):
        compare.check("a.onnx", moved._replace(seen=300, moved=2, far_boxes=0.25), "float16")


@pytest.mark.parametrize("mode", ["predict", "track", "val"])
def test_a_file_has_a_precision_of_its_own(file, mode):
    given = {"data": "toy.yaml"} if mode == "val" else {"source": np.zeros((64, 64, 3), np.uint8)}
    said = "a precision of its own, float32; leave half= out, or give it to export"
    with pytest.raises(UserError, match=f"^half=true: .*best.onnx has {said}$"):
        getattr(Model(file), mode)(**given, half=True)


def test_few_candidates_are_compared(own):
    """Of a region proposal network in a small image, too, there are fewer than are asked for."""
    batch = images(1, 32, 32)
    with torch.no_grad():
        assert own.predict(batch)[0][:, 4:].numel() < compare.MOST
    same = lambda batch, rules: rules.of_output(own.predict(batch))  # noqa: E731
    seen = compare.difference(own, same, [batch], 0.0)
    assert seen.seen > 3 and not any(seen[1:])


def test_half_keeps_boxes_where_they_are(best, own, tmp_path):
    copy = tmp_path / "a.pt"
    copy.write_bytes(best.read_bytes())
    half = OnnxRuntime(Path(Model(copy).export(format="onnx", half=True)))
    assert half.said["precision"] == "float16" and half.path.stat().st_size > 0
    batch, rules = images(2, 96, 128), Postprocess(score=0.05, votes=4)
    with torch.no_grad():
        pairs = zip(rules.of_output(own.predict(batch)), half.detect(batch, rules), strict=True)
    for one, other in pairs:
        seen = paired(one, other, 0.06)
        assert 0 < seen.boxes < 0.05 and seen.alone <= 0.05 * seen.seen


@pytest.mark.parametrize(
    "keys", [{}, {"conf": 0.12}, {"agnostic_nms": True, "conf": 0.1}, {"classes": [1], "conf": 0.1}]
)
def test_predict_takes_it(best, file, keys):
    """Through the same engine. In a scene a candidate of a file belongs where its centre lies, a detector's to the
    cell that found it: next to a seam the two may differ."""
    source = np.random.default_rng(0).integers(0, 255, (200, 150, 3), dtype=np.uint8)
    (own,), (found,) = (Model(path).predict(source, verbose=False, imgsz=160, **keys) for path in (best, file))
    seen = paired(*((r.boxes.xyxy, r.boxes.conf, r.boxes.cls.long()) for r in (own, found)), 0.0)
    assert len(own) > 3 and seen.seen == len(own) and not seen.alone and seen.boxes < 1e-2 and seen.scores < 1e-4


def test_predict_takes_it_for_scenes(best, file):
    source = np.random.default_rng(0).integers(0, 255, (200, 150, 3), dtype=np.uint8)
    own, found = (Model(path).predict(source, verbose=False, tile=64, conf=0.02)[0] for path in (best, file))
    assert len(own) > 100 and len(found) == pytest.approx(len(own), rel=0.02)


def test_val_takes_it(best, file, tiny_set):
    own, found = (Model(path).val(data=tiny_set, imgsz=96, plots=False, verbose=False) for path in (best, file))
    assert pytest.approx(found.AP, abs=1e-4) == own.AP and pytest.approx(found.AR1500, abs=1e-4) == own.AR1500
    assert own.AR1500 > 0


def of_others(path, **properties):
    """An ONNX file of one operator with such metadata."""
    value = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["images"], ["output0"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "other", [value], [other]), opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            lambda p: of_others(p, author="Ultralytics", names="{0: 'a'}"),
            "not an export of tinyyolo but of Ultralytics",
        ),
        (lambda p: of_others(p), "not an export of tinyyolo but of another program"),
        (lambda p: of_others(p, names="{", test="{}"), "damaged"),
        (lambda p: of_others(p, names='{"1": "a"}', test="{}", imgsz="[64, 64]"), "expected the class names 0, 1, 2"),
        (lambda p: of_others(p, names='{"0": "a"}', test="{}", imgsz="[64, 64]"), "it gives no candidates"),
        (lambda p: p.write_bytes(b"no graph"), "onnxruntime cannot run it"),
        (lambda p: None, "no such"),
    ],
)
@pytest.mark.parametrize("mode", ["predict", "val", "export"])
def test_another_file_is_refused_in_one_line(tmp_path, capsys, made, says, mode):
    made(tmp_path / "a.onnx")
    more = {"predict": [f"source={tmp_path}"], "val": ["data=toy.yaml"], "export": []}[mode]
    code, _, err = call(mode, f"model={tmp_path / 'a.onnx'}", *more, capsys=capsys)
    assert code == 2 and "a.onnx" in err and says in err and len(err.strip().splitlines()) == 1, err


def test_it_does_not_train(file):
    with pytest.raises(UserError, match=r"best\.onnx: an export predicts and validates; use the \.pt"):
        Model(file).train(data="toy.yaml")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"format": "engine"}, r"format=engine: not written here; format=onnx first, then trtexec --onnx=best\.onnx"),
        ({"format": "tensorrt", "imgsz": 320}, "320x320"),
        ({"format": "ncnn"}, "pnnx"),
        ({"format": "ONNX"}, "format=ONNX: not supported; did you mean 'onnx'"),
        ({"format": "onx"}, "format=onx: not supported; did you mean 'onnx'"),
        ({"format": "torchscript", "half": True}, "half=true: a setting of format=onnx"),
        ({"format": "safetensors", "nms": False}, "nms=false: a setting of format=onnx"),
        ({"format": "onnx", "dynamic": True}, "takes any size and batch"),
    ],
)
def test_what_is_not_offered_says_what_to_do(best, given, says):
    with pytest.raises(UserError, match=says) as caught:
        Model(best).export(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_its_packages(best, package, monkeypatch):
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None if name == package else True)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'tinyyolo\[export\]'"):
        Model(best).export(format="onnx")


def test_tolerances_are_used(best, monkeypatch):
    monkeypatch.setattr(compare, "TOLERANCES", {"float32": compare.Tolerance(0.0, 0.0, 0.0)})
    with pytest.raises(UserError, match="at most 0 px and 0 are right for float32"):
        write.to_onnx(Model(best).model, best.with_name("b.onnx"), 64, True, False)
    assert not best.with_name("b.onnx").exists()
