"""Training on windows and validation of whole scenes: figures and boxes in pixels of the scene, exact resume."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.engine.test_engine import RUN, TINY
from tests.engine.test_resume import Killed, assert_same_tensors, run
from tests.engine.test_scenes import model, raster, scene  # noqa: F401 - a fixture
from tests.support.data_sets import annotation, coco, data_yaml
from tests.support.sets import write_set
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint
from tinyyolo.engine.validator import TinyValidator
from tinyyolo.evaluation import evaluate

KEYS = {"imgsz": 128, "conf": 0.2, "batch": 2}


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("chance") / "a.pt"
    model.save(path)
    return path


def scenes(root, names, files):
    """A set of image files {name: (H, W, 3)} with an object each, for every class of a model."""
    (root / "images").mkdir(parents=True)
    for name, image in files.items():
        if name.endswith(".tif"):
            raster(root / "images" / name, image[..., ::-1].transpose(2, 0, 1), photometric="rgb")
        else:
            cv2.imwrite(str(root / "images" / name), image)
    kinds = [(i + 1, name) for i, name in names.items()]
    records = [(i, name, image.shape[1], image.shape[0]) for i, (name, image) in enumerate(files.items(), 1)]
    notes = [annotation(i, i, 1, [20, 30, 9, 7]) for i, _ in enumerate(files, 1)]
    coco(root / "all.json", records, notes, kinds)
    return data_yaml(root / "d.yaml", val="images", annotations={"val": "all.json"})


def rows_of(file, image):
    rows = [row for row in json.loads(file.read_text()) if row["image_id"] == image]
    return sorted((row["category_id"], *row["bbox"], row["score"]) for row in rows)


def test_val_of_a_scene_is_predict_of_it(saved, tmp_path):
    """In one run with an image that is not cut; a raster is read by windows; pictures and txt are in its pixels."""
    files = {"wide.png": scene(200, 300), "small.png": scene(120, 100, seed=3), "long.tif": scene(100, 1100, seed=4)}
    own = Model(saved)
    data = scenes(tmp_path / "set", own.model.names, files)
    metrics = own.val(data=str(data), name="all", save_txt=True, zoom=1.25, **KEYS)
    found = tmp_path / "runs" / "all" / "predictions.json"
    expected = Model(saved).predict(tmp_path / "set" / "images", save_json=True, zoom=1.25, name="p", **KEYS)
    sizes = {Path(result.path).name: len(result) for result in expected}
    rows = json.loads((tmp_path / "runs" / "p" / "predictions.json").read_text())
    for i, name in enumerate(files, 1):
        mine = rows_of(found, i)
        theirs = [(row["category_id"] + 1, *row["bbox"], row["score"]) for row in rows if row["file_name"] == name]
        assert len(mine) == len(theirs) == sizes[name] > 10
        np.testing.assert_allclose(mine, sorted(theirs), atol=2e-3)
    lines = (tmp_path / "runs" / "all" / "labels" / "long.txt").read_text().split("\n")[:-1]
    assert len(lines) == sizes["long.tif"]
    x, w = (float(lines[0].split()[at]) * 1100 for at in (1, 3))
    assert min(abs(row[1] - (x - w / 2)) for row in rows_of(found, 3)) < 0.02, "a fraction of the whole scene"
    assert cv2.imread(str(tmp_path / "runs" / "all" / "predictions.jpg")).shape[1] < 2000
    figures = evaluate(str(tmp_path / "set" / "all.json"), str(found), max_dets=[100, 300, 1500, 1500 * 14])
    assert figures["AP"] == metrics.AP and "AR21000" in metrics.result, "14 windows: see below"


def test_an_image_that_is_not_cut_is_as_it_was(saved, tmp_path):
    small, wide = scene(120, 100, seed=3), scene(200, 300)
    alone = scenes(tmp_path / "alone", Model(saved).model.names, {"small.png": small})
    both = scenes(tmp_path / "both", Model(saved).model.names, {"small.png": small, "wide.png": wide})
    for data, name in ((alone, "a"), (both, "b")):
        Model(saved).val(data=str(data), name=name, plots=False, rect=False, **KEYS)
    first, second = (rows_of(tmp_path / "runs" / name / "predictions.json", 1) for name in "ab")
    np.testing.assert_allclose(first, second, atol=2e-3)
    assert len(first) > 10


def test_max_det_cuts_no_scene_unless_asked_for(saved, tmp_path, monkeypatch):
    data = scenes(tmp_path / "set", Model(saved).model.names, {"wide.png": scene(300, 300)})
    counts = []
    for given in ({}, {"max_det": 7}):
        own = Model(saved)
        monkeypatch.setitem(own.spec, "test", {**own.spec["test"], "max_det": 5})
        own.model.test = own.spec["test"]
        own.val(data=str(data), name=f"v{len(counts)}", plots=False, **{**KEYS, "conf": 0.1}, **given)
        counts.append(len(rows_of(tmp_path / "runs" / f"v{len(counts)}" / "predictions.json", 1)))
    assert counts[0] > 50 and counts[1] == 7


def test_an_export_is_asked_for_windows_of_its_size(saved, tmp_path):
    exported = Model(Model(saved).export(imgsz=128))
    data = scenes(tmp_path / "set", Model(saved).model.names, {"wide.png": scene(224, 224)})
    exported.val(data=str(data), name="v", plots=False, conf=0.3)
    (found,) = exported.predict(tmp_path / "set" / "images" / "wide.png", conf=0.3, verbose=False, save=False)
    assert len(rows_of(tmp_path / "runs" / "v" / "predictions.json", 1)) == len(found) > 10
    with pytest.raises(UserError, match="tile=256: this export takes 128 x 128 px alone"):
        exported.val(data=str(data), tile=256)


def test_a_scene_that_breaks_in_the_middle_does_not_count(saved, tmp_path, monkeypatch):
    files = {"long.tif": scene(100, 1100), "a.png": scene(100, 100), "b.png": scene(100, 90)}
    data = scenes(tmp_path / "set", Model(saved).model.names, files)
    real = TinyValidator.init_metrics

    def cut(self, *args):
        real(self, *args)
        path = tmp_path / "set" / "images" / "long.tif"
        self.dataloader.dataset.scenes.held.clear()
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    monkeypatch.setattr(TinyValidator, "init_metrics", cut)
    Model(saved).val(data=str(data), name="v", plots=False, **KEYS)
    assert not rows_of(tmp_path / "runs" / "v" / "predictions.json", 1)
    assert rows_of(tmp_path / "runs" / "v" / "predictions.json", 2)
    (line,) = (tmp_path / "runs" / "v" / "skipped.txt").read_text().splitlines()
    assert "long.tif: " in line


@pytest.fixture(scope="module")
def large_set(tmp_path_factory):
    """Two images of 160 px for training and one for validation, which 64 px see in windows."""
    return write_set(tmp_path_factory.mktemp("large"), size=160, counts={"train": 2, "val": 1}, ignore=True)


@pytest.mark.slow
def test_training_on_windows_goes_on_where_it_was_cut_off(large_set):
    """Inside an epoch, whose windows come in another order than they lie."""
    recipe = {"imgsz": 64, "save_every": 4, "paste": 2, "seed": 3, "epochs": 2}
    whole = run(large_set, "whole", **recipe)
    windows = [label["window"] for label in whole.trainer.train_loader.dataset.labels]
    assert len(windows) > 10 and None not in windows

    def die(trainer):
        if trainer.iteration == len(trainer.train_loader) + 6:
            raise Killed

    victim = Model("tinyyolo-n.yaml", overrides=TINY)
    victim.add_callback("on_train_batch_end", die)
    with pytest.raises(Killed):
        victim.train(data=large_set, **{**RUN, **recipe, "name": "victim"})
    resumed = Model(victim.trainer.last)
    resumed.train(resume=True)
    assert_same_tensors(resumed.trainer.model.state_dict(), whole.trainer.model.state_dict())
    assert_same_tensors(*(checkpoint.load(m.trainer.last)["model"] for m in (resumed, whole)))
    assert str(resumed.metrics.result) == str(whole.metrics.result)  # with its NaN
    assert {"AR1500", "AR24000"} <= set(whole.metrics.result), "16 windows"
    assert Model(whole.trainer.best).looks == {"tile": "auto", "overlap": 0.15, "zoom": 1.0}


def test_the_model_keeps_how_it_looked(large_set, tmp_path):
    own = Model("tinyyolo-n.yaml", overrides=TINY)
    own.train(data=large_set, **{**RUN, "imgsz": 64, "tile": "off", "val": False})
    assert own.arguments("predict", {}, {})["tile"] == "off"
    assert own.arguments("predict", {}, {"tile": 96})["tile"] == 96
    assert [label["window"] for label in own.trainer.train_loader.dataset.labels] == [None, None]


def test_anchors_know_the_scale(large_set):
    """Objects of windows are not shrunk: auto constant C is that of the boxes as they are."""
    found = {}
    for keys in ({}, {"tile": "off"}, {"zoom": 2}):
        own = Model("tinyyolo-n.yaml", overrides={**TINY, "head.constant": "auto"})
        own.add_callback("on_train_start", lambda trainer: (_ for _ in ()).throw(Killed(trainer)))
        with pytest.raises(Killed) as caught:
            own.train(data=large_set, **{**RUN, "imgsz": 64, **keys})
        found[str(keys)] = caught.value.args[0].model.yaml["head"]["constant"]
    plain, off, zoomed = found.values()
    assert off == pytest.approx(plain * 64 / 160, abs=0.02) and zoomed == pytest.approx(plain * 2, abs=0.02)
