"""Two processes on the CPU: what they learn, find and save equals one process with their batches together."""

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.engine.test_engine import TINY
from tests.support.kills import Point, rows, same, train
from tests.support.processes import ENDED, by_all, told, torchrun
from tests.support.sets import write_set
from tinyyolo import Model
from tinyyolo.datasets.drawn import toy
from tinyyolo.engine import checkpoint

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
@pytest.mark.parametrize("images", [4, 3], ids=["a batch", "an odd last batch"])
def test_a_step_equals_one_of_a_single_process(model, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_set(tmp_path / "set", size=64, counts={"train": images, "val": 5})
    keys = {**KEYS, **SGD, "data": str(data), "project": str(tmp_path / "runs"), "pretrained": False}
    assert by_all(1, train, model, MODELS[model], {**keys, "name": "one"}) == [0]
    assert by_all(2, train, model, MODELS[model], {**keys, "name": "two"}) == [0, 0]
    one, two, other = (torch.load(f"{name}.pt", weights_only=False) for name in ("one", "two", "rank1/two"))
    same(other, two, "the other process")
    assert one["updates"] == two["updates"] == 1
    near({name.removeprefix("module."): value for name, value in two["model"].items()}, one["model"])
    near(two["ema"], one["ema"])
    found, expected = (json.loads(Path("runs", name, "metrics.json").read_text()) for name in ("two", "one"))
    same_figures(found, expected)
    head, *_ = rows(Path("runs", "one"))
    losses = [dict(zip(head, map(float, rows(Path("runs", name))[1]), strict=True)) for name in ("two", "one")]
    for name in head:  # those of validation are means over batches, which are other ones
        few = {"rel": 0.1} if name.startswith("val/") else {"rel": 1e-3, "abs": 1e-4}
        assert losses[0][name] == pytest.approx(losses[1][name], **few), name


def draw(folder: Path) -> None:
    """A set of 9 drawn pictures of several shapes, one of which cannot be read; its YAML is data.yaml."""
    options = toy.resolve({"size": 128, "objects": [8, 14]})
    names, images, boxes = toy.SCENES["aerial"].names, [], []
    for i in range(9):
        image, own, labels = options.draw(np.random.default_rng(i))
        height, width = 128 - 16 * (i % 3), 128 - 8 * (i % 4)
        cv2.imwrite(str(folder / f"{i}.png"), image[:height, :width])
        inside = (own[:, 2] <= width) & (own[:, 3] <= height)
        boxes += toy.records(own[inside], labels[inside], i + 1, len(boxes) + 1)
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": width, "height": height})
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))
    (folder / "data.yaml").write_text(f"path: {folder}\nval: .\nannotations: {{val: val.json}}\n")


def validate(name: str, folder: str) -> None:
    Model("tinyyolo-n.pt").val(data=f"{folder}/data.yaml", imgsz=128, batch=4, project=f"{folder}/runs", name=name)


def test_validation_divided_equals_undivided(tmp_path, monkeypatch):
    """By weights that find something."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path)
    assert by_all(1, validate, "one", str(tmp_path)) == [0]
    assert by_all(2, validate, "two", str(tmp_path)) == [0, 0]
    found, expected = (json.loads(Path("runs", name, "metrics.json").read_text()) for name in ("two", "one"))
    assert expected["AP50"] > 0.1
    same_figures(found, expected)
    same_boxes()


def same_figures(found, expected):
    """Figures to 1e-12, the detections' to the last of the digits that count."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            same_figures(found[key], value)
        elif not isinstance(value, float):
            assert found[key] == value, key
        else:
            assert found[key] == pytest.approx(value, rel=0, abs=1e-12), key


def same_boxes():
    """Each image's detections once, to a float's noise."""
    found, expected = (json.loads(Path("runs", name, "predictions.json").read_text()) for name in ("two", "one"))
    assert len(found) == len(expected) > 9
    for one, other in zip(found, expected, strict=True):
        assert one["image_id"] == other["image_id"] and one["category_id"] == other["category_id"]
        assert one["bbox"] == pytest.approx(other["bbox"], abs=2e-3)
        assert one["score"] == pytest.approx(other["score"], abs=2e-6)


class TestEnds:
    """What torchrun's launcher makes of a run."""

    KEYS = ("imgsz=64", "batch=4", "epochs=2", "plots=false", "device=cpu", "save_every=1", "pretrained=false")

    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory):
        """The words of a run, and the folder in which nobody ended it."""
        folder = tmp_path_factory.mktemp("many")
        data = write_set(folder / "set", size=64)
        overrides = [f"{key}={value}" for key, value in TINY.items()]
        words = [f"data={data}", "model=tinyyolo-n.yaml", *overrides, *self.KEYS]
        before = os.getcwd()
        os.chdir(folder)
        assert told(torchrun([*words, "name=whole"])[0]) == []
        os.chdir(before)
        return folder, words

    def test_one_is_killed_and_the_run_goes_on(self, whole, monkeypatch):
        folder, words = whole
        monkeypatch.chdir(folder)
        (said,) = torchrun([*words, "name=killed"], deaths={1: Point(STEP, 4)})
        assert time.time() - float(Path("died").read_text()) < ENDED
        (line,) = told(said)
        assert "torchrun --nproc-per-node=2 -m tinyyolo train resume=" in line
        assert torch.load("runs/killed/weights/last.pt", weights_only=True)["resume"]["processes"] == 2
        (said,) = torchrun(["resume=runs/killed/weights/last.pt"])
        assert told(said) == []
        alike(folder / "runs" / "killed", folder / "runs" / "whole")

    def test_torchrun_starts_it_again(self, whole, tmp_path, monkeypatch):
        folder, words = whole
        monkeypatch.chdir(tmp_path)
        (said,) = torchrun([*words, "name=again"], "--max-restarts=1", deaths={0: Point(STEP, 3, "behind")})
        assert Path("died").exists() and len(told(said)) == 1  # of the first attempt
        assert Path("stdout0").read_text().count("going on with") == 1
        assert os.listdir("runs") == ["again"]
        alike(tmp_path / "runs" / "again", folder / "runs" / "whole")

    def test_two_nodes(self, whole, tmp_path, monkeypatch):
        folder, words = whole
        monkeypatch.chdir(tmp_path)
        assert [told(said) for said in torchrun([*words, "name=nodes"], nodes=2)] == [[], []]
        alike(tmp_path / "runs" / "nodes", folder / "runs" / "whole")

    def test_a_mistake_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (said,) = torchrun(["data=nothing.yaml", "model=tinyyolo-n.yaml", "device=cpu"])
        assert len(told(said)) == 1 and "nothing.yaml" in told(said)[0]
        assert not Path("runs").exists()


def alike(found, expected):
    """Two finished runs: rows and weights, to the last bit."""
    assert rows(found) == rows(expected)
    for name in ("best.pt", "last.pt"):
        a, b = (checkpoint.load(run / "weights" / name) for run in (found, expected))
        same(a["model"], b["model"], name)
        same(a["thresholds"], b["thresholds"], name)
