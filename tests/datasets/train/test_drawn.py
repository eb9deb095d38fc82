"""Pictures drawn while training reads them: no files, boxes of what is drawn, and the same ones after a resume."""

import logging
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from tests.engine.test_engine import TINY
from tests.support.kills import KILLED, Point, apart, go_on, same_runs, train
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.drawn import school, toy
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.datasets.train.drawn import DrawnDataset
from tinyyolo.datasets.train.loader import go_to, place_of
from tinyyolo.engine.arguments import resolve

SIDE = 64
PLAIN = dict.fromkeys(("mosaic", "paste", "scale", "translate", "fliplr", "flipud", "hsv_h", "hsv_s", "hsv_v"), 0)
STEP = "tinyyolo.engine.steps:SteppedTrainer.optimizer_step"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The YAML of a small school."""
    monkeypatch.setenv(toy.CACHE_VARIABLE, str(tmp_path / "cache"))
    options = {"scene": "school", "size": SIDE, "images": {"train": 8, "val": 3}, "objects": [6, 9], "fresh": True}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"toy": options, "names": list(school.NAMES)}))
    return tmp_path / "data.yaml"


def dataset(data, keys=PLAIN, **more):
    hyp = SimpleNamespace(**resolve("train", {}, keys))
    options = {"imgsz": SIDE, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0, "augment": True}
    return DrawnDataset(data_yaml.load(str(data)), "train", **{**options, **more})


def start(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - ultralytics' augmentation draws from the global state
    torch.manual_seed(seed)


def test_the_picture_and_its_boxes_are_what_is_drawn_now(data):
    found = dataset(data)
    start(3)
    image, boxes, labels = found.options.draw(np.random.default_rng(random.getrandbits(64)), SIDE)
    start(3)
    sample = found.get_image_and_label(5)
    assert len(labels) > 2
    np.testing.assert_array_equal(sample["img"], image)
    np.testing.assert_array_equal(sample["cls"][:, 0], labels)
    sample["instances"].convert_bbox("xyxy")
    sample["instances"].denormalize(SIDE, SIDE)
    np.testing.assert_allclose(sample["instances"].bboxes, boxes, atol=1e-4)


def test_each_time_it_is_another_picture_at_the_size_of_the_run(data):
    found = dataset(data, imgsz=96)
    start(0)
    one, other = found[2], found[2]
    assert one["img"].shape == other["img"].shape == (3, 96, 96) and (one["img"] != other["img"]).any()
    assert len(found) == 8


def test_nothing_to_learn_from_is_a_file_and_what_is_validated_on_is(data, tmp_path):
    found = dataset(data)
    start(0)
    assert len(found[0]["img"]) == 3
    assert not any(Path(file).exists() for file in found.im_files)
    pictures = sorted(tmp_path.rglob("*.png"))
    assert [path.name for path in pictures] == [f"val_{i:05d}.png" for i in range(3)]
    before = {path: path.read_bytes() for path in pictures}
    held = TinyDataset(data_yaml.load(str(data)), "val", augment=False, imgsz=SIDE, batch_size=2, rect=False)
    first = [held[i]["img"] for i in range(3)]
    start(9)
    assert all(torch.equal(held[i]["img"], first[i]) for i in range(3))
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*.png"))} == before


def test_only_wanted_classes_are_told(data):
    def labels(**options):
        found = dataset(data, **options)
        start(1)
        return np.concatenate([found[i]["cls"].numpy()[:, 0] for i in range(8)])

    every = labels()
    wanted = sorted({*every.tolist()})[:2]
    np.testing.assert_array_equal(labels(classes=wanted), every[np.isin(every, wanted)])
    assert len(every) > len(wanted) and set(labels(single_cls=True)) == {0}


def test_a_process_that_goes_on_elsewhere_draws_the_same(data):
    one, other = (dataset(data, {**PLAIN, "scale": 0.5, "hsv_v": 0.4}) for _ in range(2))
    start(4)
    assert one[0]["img"].shape == one[1]["img"].shape
    place = place_of(one)
    expected = [one[i] for i in (2, 3, 4)]
    start(77)
    go_to(other, place)
    for i, sample in zip((2, 3, 4), expected, strict=True):
        found = other[i]
        assert torch.equal(found["img"], sample["img"]) and torch.equal(found["bboxes"], sample["bboxes"])


def test_mosaic_and_copies_are_not_used_and_it_says_so(data, caplog):
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        found = dataset(data, {"paste": 12, "mosaic": 1.0})
    assert "mosaic=1.0, paste=12: not used" in caplog.text
    start(0)
    assert found[0]["img"].shape == (3, SIDE, SIDE) and found.buffer == []


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_killed_or_not(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {"data": str(data), "project": str(tmp_path / "runs"), "imgsz": SIDE, "batch": 2, "epochs": 2}
    keys |= {"save_every": 1, "plots": False, "mosaic": 0.0, "paste": 0, "seed": 5}
    for name in ("whole", "twin"):
        assert apart(train, "tinyyolo-n", TINY, {**keys, "name": name}) == 0
    same_runs(tmp_path / "runs" / "twin", tmp_path / "runs" / "whole")
    killed = {**keys, "name": "killed"}
    assert apart(train, "tinyyolo-n", TINY, killed, 0, Point(STEP, 6)) == KILLED
    go_on("tinyyolo-n", TINY, killed)
    same_runs(tmp_path / "runs" / "killed", tmp_path / "runs" / "whole")
