"""OpenVINO's files find what the checkpoint finds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.test_onnx import best, images, own  # noqa: F401 - fixtures
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.deploy import write
from tinyyolo.export.compare import paired
from tinyyolo.export.openvino import GRAPH, METADATA, WEIGHTS, OpenVinoRuntime


@pytest.fixture(scope="module")
def folder(best):  # noqa: F811
    return Path(Model(best).export(format="openvino"))


@pytest.fixture(scope="module")
def runtime(folder):
    return OpenVinoRuntime(folder)


@pytest.mark.parametrize("shape", [(1, 96, 128), (3, 64, 64)])
def test_the_detections_are_those_of_the_checkpoint(own, runtime, shape):  # noqa: F811
    rules, batch = Postprocess(score=0.05, votes=4), images(*shape)
    with torch.no_grad():
        expected = rules.of_output(own.predict(batch))
    assert sum(len(scores) for _, scores, _ in expected) > 20
    for one, other in zip(expected, runtime.detect(batch, rules), strict=True):
        seen = paired(one, other, 0.0)
        assert len(one[1]) == len(other[1]) and not seen.alone and seen.boxes < 1e-2 and seen.scores < 1e-4


def test_predict_takes_the_folder(best, folder):  # noqa: F811
    source = np.random.default_rng(0).integers(0, 255, (100, 150, 3), dtype=np.uint8)
    (own,), (found,) = (Model(path).predict(source, verbose=False, imgsz=160) for path in (best, f"{folder}/"))  # noqa: F811
    seen = paired(*((r.boxes.xyxy, r.boxes.conf, r.boxes.cls.long()) for r in (own, found)), 0.0)
    assert len(own) > 3 and seen.seen == len(own) and not seen.alone and seen.boxes < 1e-2 and seen.scores < 1e-4


def test_half_the_size(best, folder, own, tmp_path):  # noqa: F811
    copy = tmp_path / "a.pt"
    copy.write_bytes(best.read_bytes())
    half = Path(Model(copy).export(format="openvino", half=True))
    assert half.name == "a_openvino" and {path.name for path in half.iterdir()} == {GRAPH, METADATA, WEIGHTS}
    assert (half / WEIGHTS).stat().st_size < 0.8 * (folder / WEIGHTS).stat().st_size
    assert json.loads((half / METADATA).read_text())["precision"] == "float16"


def test_what_finds_something_else_is_not_written(best, tmp_path, monkeypatch):  # noqa: F811
    find = OpenVinoRuntime.detect
    shifted = lambda self, *given: [(b + 0.25, s, labels) for b, s, labels in find(self, *given)]  # noqa: E731
    monkeypatch.setattr(OpenVinoRuntime, "detect", shifted)
    with pytest.raises(UserError, match=r"a_openvino: not written: .* differ by 0\.25 px"):
        write.to_openvino(Model(best).model, tmp_path / "a_openvino", 64, True, False)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", [GRAPH, METADATA, WEIGHTS])
def test_an_incomplete_folder_is_refused_in_one_line(folder, tmp_path, name, capsys):
    copy = tmp_path / "a_openvino"
    shutil.copytree(folder, copy)
    (copy / name).unlink()
    code, _, err = call("predict", f"model={copy}", f"source={tmp_path}", capsys=capsys)
    assert code == 2 and f"it has no {name}" in err and len(err.strip().splitlines()) == 1
    (copy / name).write_text("nothing")
    code, _, err = call("predict", f"model={copy}", f"source={tmp_path}", capsys=capsys)
    assert code == 2 and "a_openvino" in err and len(err.strip().splitlines()) == 1, err


def test_that_of_ultralytics_is_refused(tmp_path, capsys):
    (tmp_path / "yolo_openvino_model").mkdir()
    code, _, err = call("predict", f"model={tmp_path / 'yolo_openvino_model'}", f"source={tmp_path}", capsys=capsys)
    assert code == 2 and "not an export of tinyyolo" in err and len(err.strip().splitlines()) == 1
