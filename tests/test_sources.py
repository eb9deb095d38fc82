"""Prediction from every kind of source ultralytics users know, and what it writes."""

import json
import types

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.sets import SIZE
from tests.test_cli import call
from tests.test_engine import trained
from tinyyolo import Model

HOW = {"conf": 0.0, "max_det": 10, "imgsz": SIZE}


@pytest.fixture(scope="module")
def weights(tiny_set, tmp_path_factory):
    return trained(tiny_set, project=str(tmp_path_factory.mktemp("runs"))).ckpt_path


@pytest.fixture(scope="module")
def model(weights):
    return Model(weights)


@pytest.fixture(scope="module")
def files(tiny_set):
    return sorted((tiny_set.parent / "images").glob("val_*.png"))


@pytest.fixture(scope="module")
def expected(model, files):
    return [model.predict(file, **HOW)[0].boxes.data for file in files]


def listed(files, folder):
    path = folder / "list.txt"
    path.write_text("\n".join(map(str, files)))
    return path


SOURCES = {
    "list of paths": lambda files, _: files,
    "list of strings": lambda files, _: [str(file) for file in files],
    "glob": lambda files, _: str(files[0].parent / "val_*.png"),
    "txt list": listed,
    "numpy arrays": lambda files, _: [cv2.imread(str(file)) for file in files],
    "PIL images": lambda files, _: [Image.open(file) for file in files],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_gives_the_same_boxes(model, files, expected, tmp_path, kind):
    found = model.predict(SOURCES[kind](files, tmp_path), **HOW)
    assert len(found) == len(expected)
    for result, boxes in zip(found, expected, strict=True):
        assert len(boxes) == HOW["max_det"]
        torch.testing.assert_close(result.boxes.data, boxes, atol=1e-3, rtol=1e-4)


def test_one_array_and_a_folder(model, files, expected):
    (one,) = model.predict(cv2.imread(str(files[0])), **HOW)
    torch.testing.assert_close(one.boxes.data, expected[0], atol=1e-3, rtol=1e-4)
    assert len(model.predict(files[0].parent, **HOW)) == len(list(files[0].parent.iterdir()))


def test_stream_yields_one_by_one(model, files, expected):
    stream = model.predict(files, stream=True, **HOW)
    assert isinstance(stream, types.GeneratorType)
    first = next(stream)
    torch.testing.assert_close(first.boxes.data, expected[0], atol=1e-3, rtol=1e-4)
    assert model.predictor.seen == 1, "images were read ahead"
    assert len(list(stream)) == len(files) - 1


def test_video(weights, files, tmp_path, capsys):
    video, frames = tmp_path / "flight.avi", 6
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 5, (SIZE, SIZE))
    for _ in range(frames):
        writer.write(cv2.imread(str(files[0])))
    writer.release()
    assert len(Model(weights).predict(video, **HOW)) == frames
    code, _, err = call("predict", f"model={weights}", f"source={video}", "conf=0", "max_det=10", capsys=capsys)
    assert code == 0, err
    (drawn,) = (tmp_path / "runs" / "predict").glob("flight.*")
    capture = cv2.VideoCapture(str(drawn))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == frames
    _, frame = capture.read()
    assert np.abs(frame.astype(int) - cv2.imread(str(files[0]))).max() > 60, "no boxes drawn"


def test_what_predict_writes(weights, files, expected, tmp_path, capsys):
    words = ["save_txt=true", "save_conf=true", "save_crop=true", "save_json=true", "conf=0", "max_det=10"]
    source = str(files[0].parent / "val_*.png")
    code, _, err = call("predict", f"model={weights}", f"source={source}", f"imgsz={SIZE}", *words, capsys=capsys)
    assert code == 0, err
    folder = tmp_path / "runs" / "predict"
    for file, boxes in zip(files, expected, strict=True):
        assert (folder / f"{file.stem}.jpg").stat().st_size > 0
        rows = np.loadtxt(folder / "labels" / f"{file.stem}.txt")
        np.testing.assert_allclose(rows[:, 5], boxes[:, 4], atol=1e-4)
        sides = (boxes[:, 2:4] - boxes[:, :2]) / SIZE
        np.testing.assert_allclose(rows[:, 3:5], sides, atol=1e-4)
    assert list((folder / "crops").rglob("*.jpg"))
    rows = json.loads((folder / "predictions.json").read_text())
    assert len(rows) == sum(map(len, expected))
    first = [row for row in rows if row["file_name"] == files[0].name]
    np.testing.assert_allclose([row["score"] for row in first], expected[0][:, 4], atol=1e-4)
    corners = np.array([row["bbox"] for row in first])
    np.testing.assert_allclose(corners[:, :2], expected[0][:, :2], atol=1e-2)
    np.testing.assert_allclose(corners[:, 2:], expected[0][:, 2:4] - expected[0][:, :2], atol=1e-2)
