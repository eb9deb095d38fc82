"""Models whose images lie in the corner of the input, as the published rows: training, validation and prediction."""

import json

import cv2
import numpy as np
import pytest
import torch
import yaml

from tests.support.sets import box
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.detectors.base import Detector

SIDE = 96
SLIM = {"nc": 1, "neck.channels": 16, "head.channels": 16, "head.convs": 1}
RUN = {"imgsz": SIDE, "batch": 2, "epochs": 1, "plots": False, "workers": 0, "warmup_iters": None}
SIZES = [(50, 96), (96, 41), (64, 80), (30, 90)]  # of images; two of them fill their longer side
INPUTS = {(50, 96): (64, 96), (96, 41): (96, 64), (64, 80): (96, 96), (30, 90): (32, 96)}  # alone, scaled to 96 px


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of several shapes with squares in their right lower corners, where filling up would show."""
    root, rng = tmp_path_factory.mktemp("corner"), np.random.default_rng(3)
    (root / "images").mkdir()
    images, notes = [], []
    for i, (height, width) in enumerate(SIZES):
        image = rng.normal(110, 6, (height, width, 3)).clip(0, 255).astype(np.uint8)
        image[-9:-1, -9:-1] = 240
        cv2.imwrite(str(root / "images" / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        notes.append(box(i + 1, i, 1, [width - 9, height - 9, 8, 8]))
    content = {
        "images": images,
        "annotations": notes,
        "categories": [{"id": 1, "name": "0"}],
    }  # as an untrained model calls it
    (root / "all.json").write_text(json.dumps(content))
    splits = {split: "images" for split in ("train", "val")}
    given = {"path": str(root), **splits, "annotations": dict.fromkeys(splits, "all.json")}
    (root / "data.yaml").write_text(yaml.safe_dump(given))
    return root / "data.yaml"


def slim():
    torch.manual_seed(0)
    return Model("retinanet-r18-nwdrka.yaml", overrides=SLIM)


@pytest.fixture
def seen(monkeypatch):
    """The normalised inputs of every pass through a detector."""
    inputs, features = [], Detector.features

    def noted(self, images):
        if images.device.type != "meta":  # where operations are counted
            inputs.append((images - self.mean) / self.std)
        return features(self, images)

    monkeypatch.setattr(Detector, "features", noted)
    return inputs


def test_what_fills_up_is_zero_in_training_validation_and_prediction(data, seen, tmp_path):
    model = slim()
    model.train(data=data, project=str(tmp_path), **RUN)
    assert len(seen) >= 4, "two batches of training, two of validation at least"
    for batch in seen:
        assert not (np.array(batch.shape[2:]) % 32).any()
        zero = (batch == 0).all(1)
        assert zero.flatten(1).any(1).sum() >= len(batch) - 1, "at most one image fills the input"
        for mask in zero:
            inner = ~mask
            rows, columns = inner.any(1), inner.any(0)
            assert rows[0] and columns[0] and inner.sum() == rows.sum() * columns.sum(), "not right and below alone"
    seen.clear()
    for i, size in enumerate(SIZES):
        model.predict(data.parent / "images" / f"{i}.png", imgsz=SIDE, conf=0, verbose=False)
        assert tuple(seen[-1].shape[2:]) == INPUTS[size]


def test_prediction_and_validation_find_the_same_boxes(data, tmp_path):
    """One by one, so that both see inputs of the same size."""
    model = slim()
    model.val(data=data, imgsz=SIDE, batch=1, project=str(tmp_path), conf=0, iou=1, plots=False)
    found = json.loads((tmp_path / "val" / "predictions.json").read_text())
    for i, (height, width) in enumerate(SIZES):
        (result,) = model.predict(data.parent / "images" / f"{i}.png", imgsz=SIDE, conf=0, iou=1, verbose=False)
        own = [row for row in found if row["image_id"] == i]
        boxes = result.boxes.xyxy
        assert len(own) == len(boxes) > 0
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
        there = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in own)])
        if height * SIDE % width == 0 or width * SIDE % height == 0:  # else loaders differ by a part of a pixel
            torch.testing.assert_close(boxes[:20], there[:20], atol=0.01, rtol=0)


def test_a_batch_of_several_shapes_is_predicted_as_one_image_is_placed(data):
    """A stack of inputs is as large as its largest; each image's boxes come back in its own pixels."""
    model = slim()
    paths = [data.parent / "images" / f"{i}.png" for i in (0, 2)]
    for result, (height, width) in zip(
        model.predict(paths, imgsz=SIDE, batch=2, conf=0, iou=1, verbose=False), (SIZES[0], SIZES[2]), strict=True
    ):
        boxes = result.boxes.xyxy
        assert result.orig_shape == (height, width)
        assert boxes[:, 2].max() == width and boxes[:, 3].max() == height, "clipped to the image, up to its edge"


def test_an_export_says_how_it_is_filled_up(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = slim()
    export = Model(model.export(format="torchscript", imgsz=SIDE))
    assert export.exported["pad_colour"] == pytest.approx([0.485, 0.456, 0.406], abs=1e-3)
    image = data.parent / "images" / "0.png"
    a = model.predict(image, imgsz=SIDE, rect=False, conf=0, iou=1, verbose=False)[0].boxes.data
    b = export.predict(image, imgsz=SIDE, conf=0, iou=1, verbose=False)[0].boxes.data
    torch.testing.assert_close(a[:50], b[:50], atol=1e-3, rtol=1e-4)
    found = []
    for one, name in ((model, "a"), (export, "b")):
        one.val(data=data, imgsz=SIDE, rect=False, plots=False, conf=0, name=name)
        rows = json.loads((tmp_path / "runs" / name / "predictions.json").read_text())
        found.append(torch.tensor([row["bbox"] for row in rows]))
    assert len(found[0]) == len(found[1]) > 100
    torch.testing.assert_close(found[0].sum(0), found[1].sum(0), atol=1, rtol=1e-4)


def test_a_wrong_word_is_told():
    with pytest.raises(UserError, match=r"pad=corners: unknown; did you mean 'corner'\? Choices: center, corner"):
        Model("retinanet-r18-nwdrka.yaml", overrides={"pad": "corners"}).info()
