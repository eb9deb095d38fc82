"""A training looks at its data first, and loads, parses and builds once."""

import sys
import types
from collections import Counter

import pytest
import ultralytics.data.augment
from ultralytics.data.augment import Albumentations

from tests.engine.test_engine import RUN, TINY, trained
from tests.engine.test_pitfalls import default_hyp, walk
from tests.support.sets import SIZE, write_set
from tinyyolo import Model, config
from tinyyolo.config import UserError
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.formats import coco
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.detectors import build
from tinyyolo.engine import checkpoint, model, prepare


@pytest.fixture
def counts(monkeypatch):
    """How often a model was built, an annotation file parsed and a YAML loaded."""
    found = Counter()

    def counted(what, function):
        def call(*args, **kwargs):
            found[what if isinstance(what, str) else what(*args)] += 1
            return function(*args, **kwargs)

        return call

    built, loaded = counted("build", build.build_model), counted(lambda path, *_: path.name, config.load_yaml)
    for module in (model, prepare, checkpoint):
        monkeypatch.setattr(module, "build_model", built)
    monkeypatch.setattr(config, "load_yaml", loaded)
    monkeypatch.setattr(coco, "read", counted(lambda path, *_: path.name, coco.read))
    return found


ONCE = {"build": 1, "train.json": 1, "val.json": 1, "data.yaml": 1, "tinyyolo-n.yaml": 1}


def assert_once(counts, expected):
    assert {key: counts[key] for key in expected} == expected, counts


def test_from_a_yaml(tmp_path, counts):
    data = write_set(tmp_path / "set")
    (tmp_path / "set" / "data.yaml").write_text(data.read_text() + "names: {0: dark, 1: bright}\n")
    model = trained(data, plots=True)
    assert_once(counts, ONCE)
    assert model.model.names == {0: "dark", 1: "bright"}  # nothing is built again to look at the result
    assert_once(counts, {"build": 1})


@pytest.mark.slow
def test_from_a_checkpoint_and_on_resuming(tmp_path, counts):
    data = write_set(tmp_path / "set")
    (tmp_path / "set" / "data.yaml").write_text(data.read_text() + "names: {0: dark, 1: bright}\n")
    first = trained(data)
    counts.clear()
    second = Model(first.ckpt_path)
    second.add_callback("on_train_epoch_end", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        second.train(data=data, **{**RUN, "epochs": 2})
    assert_once(counts, {**ONCE, "tinyyolo-n.yaml": 0})
    counts.clear()
    Model(second.trainer.last).train(resume=True)
    assert_once(counts, {**ONCE, "tinyyolo-n.yaml": 0})


def stop_after_one(trainer):
    if trainer.epoch == 1:
        raise KeyboardInterrupt


def test_the_model_is_built_when_it_is_looked_at(counts):
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    assert not counts["build"]
    assert model.model is model.model and model.nc == 8
    assert counts["build"] == 1


@pytest.mark.parametrize("what", ["root", "train.json", "images"])
def test_missing_data_come_before_building_and_before_the_folder(tmp_path, counts, what):
    data = write_set(tmp_path / "set")
    text = data.read_text() + "names: {0: dark, 1: bright}\n"
    if what == "root":
        text = text.replace(str(tmp_path / "set"), str(tmp_path / "elsewhere"))
    elif what == "images":
        text = text.replace("train: images", "train: photos")
    else:
        (tmp_path / "set" / "train.json").unlink()
    data.write_text(text)
    with pytest.raises(UserError, match={"root": "elsewhere", "images": "photos"}.get(what, what)):
        Model("tinyyolo-n.yaml", overrides=TINY).train(data=data, **RUN)
    assert not counts["build"]
    assert not (tmp_path / "runs").exists()


def test_a_split_that_is_not_there(tiny_set, tmp_path):
    with pytest.raises(UserError, match=r"no split 'test'.*train, val"):
        Model("tinyyolo-n.yaml", overrides=TINY).train(data=tiny_set, **RUN, split="test")
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_the_model_leaves_no_folder(tiny_set, tmp_path):
    with pytest.raises(UserError, match="topq"):
        Model("tinyyolo-n.yaml", overrides={"head.assigner.topq": 3}).train(data=tiny_set, **RUN)
    assert not (tmp_path / "runs").exists()


class TestAlbumentations:
    """Upstream adds Blur, MedianBlur, ToGray and CLAHE to every training where the package is installed."""

    @pytest.fixture
    def asked(self, monkeypatch):
        """A stand-in for the installed package that notes which transforms were asked for."""
        asked = []

        def stand_in(*_, p=1.0, transforms=None, **__):
            asked.append(transforms)
            step = Albumentations.__new__(Albumentations)
            step.p, step.transform = p, None
            return step

        monkeypatch.setattr(ultralytics.data.augment, "Albumentations", stand_in)
        monkeypatch.setitem(sys.modules, "albumentations", types.ModuleType("albumentations"))
        return asked

    def dataset(self, data, **more):
        hyp = default_hyp()
        vars(hyp).update(more)
        options = {"imgsz": SIZE, "augment": True, "hyp": hyp, "batch_size": 2, "stride": 32, "pad": 0.0}
        return TinyDataset(data_yaml.load(data), "train", **options)

    def test_none_unless_given(self, tiny_set, asked):
        dataset = self.dataset(tiny_set)
        assert not asked
        assert Albumentations not in [type(step) for step in walk(dataset.transforms)]
        dataset.close_mosaic(dataset_hyp := default_hyp())
        assert not asked and dataset_hyp.mosaic == 0
        assert dataset[0]["img"].shape == (3, SIZE, SIZE)

    def test_those_that_are_given(self, tiny_set, asked):
        given = [{"transform": "Blur"}]
        self.dataset(tiny_set, augmentations=given)
        assert asked == [given]

    def test_given_without_the_package(self, tiny_set, monkeypatch):
        monkeypatch.setattr("tinyyolo.engine.arguments.find_spec", lambda name: None)
        with pytest.raises(UserError, match="need the package albumentations"):
            Model("tinyyolo-n.yaml").train(data=tiny_set, **RUN, augmentations=[{"transform": "Blur"}])
