"""Two processes on the CPU: what they learn, find and save equals one process with their batches together."""

import json
from pathlib import Path

import pytest
import torch

from tests.engine.test_engine import TINY
from tests.support.kills import apart, rows, train
from tests.support.processes import by_all
from tests.support.sets import write_set

pytestmark = pytest.mark.slow
ALL = 10**6  # samples: then none is drawn by chance
MODELS = {
    "tinyyolo-n": TINY,
    "faster-rcnn-r18-nwdrka": {
        "backbone.depth": 10,
        "neck.channels": 16,
        "rpn.proposals": 40,
        "rpn.sampler.num": ALL,
        "roi.sampler.num": ALL,
        "roi.channels": 32,
    },
}
SGD = {"optimizer": "SGD", "lr0": 0.01, "warmup_epochs": 0, "warmup_iters": None, "lr_steps": None, "lr_batch": None}
KEYS = {"imgsz": 64, "batch": 4, "epochs": 1, "plots": False, "mosaic": 0, "sync_bn": True, "device": "cpu"}
STEP = "tinyyolo.engine.steps:SteppedTrainer.optimizer_step"


def near(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        words = f"{name}: {{}}".format
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-6, msg=words)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("images", "batches"), [(4, 1), (7, 2)], ids=["one step", "an odd last batch"])
def test_a_step_equals_one_of_a_single_process(model, images, batches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_set(tmp_path / "set", size=64, counts={"train": images, "val": 5})
    keys = {**KEYS, **SGD, "data": str(data), "project": str(tmp_path / "runs"), "pretrained": False}
    assert apart(train, model, MODELS[model], {**keys, "name": "one"}) == 0
    assert by_all(2, train, model, MODELS[model], {**keys, "name": "two"}) == [0, 0]
    one, two = (torch.load(f"{name}.pt", weights_only=False) for name in ("one", "two"))
    assert one["updates"] == two["updates"] == batches
    near({name.removeprefix("module."): value for name, value in two["model"].items()}, one["model"])
    near(two["ema"], one["ema"])
    found, expected = (json.loads(Path("runs", name, "metrics.json").read_text()) for name in ("two", "one"))
    assert found["n_images"] == expected["n_images"] == 5 if "n_images" in expected else True
    for key, value in expected.items():
        if isinstance(value, float):
            assert abs(found[key] - value) <= 1e-12, key
    boxes = [json.loads(Path("runs", name, "predictions.json").read_text()) for name in ("two", "one")]
    assert len(boxes[0]) == len(boxes[1]) > 0
    losses = [[float(value) for value in rows(Path("runs", name))[1]] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-4)


def test_validation_divided_equals_undivided(tmp_path, monkeypatch):
    """Weights that find something, in images of several shapes, one of which cannot be read."""
    monkeypatch.chdir(tmp_path)
    assert apart(draw, str(tmp_path)) == 0
    for name, count in {"one": 1, "two": 2}.items():
        assert by_all(count, validate, name) == [0] * count
    found, expected = (json.loads(Path("runs", name, "metrics.json").read_text()) for name in ("two", "one"))
    assert expected["AP50"] > 0.05 and set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, float):
            assert abs(found[key] - value) <= 1e-12, key
    assert found["per_class"] == expected["per_class"]
    same(*(json.loads(Path("runs", name, "predictions.json").read_text()) for name in ("two", "one")), "predictions")
    assert Path("runs/two/skipped.txt").read_text() == Path("runs/one/skipped.txt").read_text()


def draw(folder):
    """A set of 9 drawn pictures, cut to other shapes."""
    options = toy.resolve({"scene": "aerial", "size": 128, "images": {"train": 1, "val": 9}, "objects": [8, 14]})
    categories, images, boxes = [{"id": i, "name": name} for i, name in enumerate(options.names)], [], []
    for i in range(9):
        image, own, classes = options.draw(np.random.default_rng(i), 128)
        height, width = 128 - 8 * (i % 3), 128 - 4 * (i % 5)
        cv2.imwrite(f"{folder}/{i}.png", image[:height, :width])
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
