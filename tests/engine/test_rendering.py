"""Bands and stretch of a run: training, validation, prediction and exports see the same pixels."""

import json

import numpy as np
import pytest
import rasterio

from tests.support.checkpoints import content
from tinyyolo import Model
from tinyyolo.cli import main
from tinyyolo.config import UserError
from tinyyolo.datasets import images, spec
from tinyyolo.datasets.audit import check
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.engine import checkpoint
from tinyyolo.engine.predict import scenes
from tinyyolo.export.torchscript import metadata
from tinyyolo.scenes.rendering import Rendering

SIDE = 64
ASKED = {"bands": [4, 3, 2], "stretch": [0, 1000]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four pictures of five bands of 16 bits that say nothing of their colours; 32 px of an object in band 4."""
    folder = tmp_path_factory.mktemp("five")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for i in range(4):
        bands = np.random.default_rng(i).integers(100, 300, (5, SIDE, SIDE)).astype(np.uint16)
        bands[3, 10 + i : 18 + i, 30:38] = 900
        profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 5, "dtype": "uint16"}
        with rasterio.open(folder / "images" / f"{i}.tif", "w", **profile) as file:
            file.write(bands)
        (folder / "labels" / f"{i}.txt").write_text(f"0 {34 / SIDE} {(14 + i) / SIDE} {8 / SIDE} {8 / SIDE}\n")
    (folder / "d.yaml").write_text("path: .\ntrain: images\nval: images\nnames: {0: thing}\n")
    return folder / "d.yaml"


@pytest.fixture
def told(monkeypatch):
    """What is said of a training that saw other pixels."""
    lines = []
    monkeypatch.setattr("tinyyolo.engine.model.LOGGER.warning", lines.append)
    return lambda: [line for line in lines if "was trained with" in line or "are for files" in line]


def saved(path, **train_args):
    held = content()
    checkpoint.save(path, {**held, "train_args": {**held["train_args"], **train_args}})
    return path


def test_the_same_pixels_from_training_to_prediction(data, tmp_path, told):
    keys = {"imgsz": SIDE, "project": str(tmp_path), "workers": 0}
    model = Model("tinyyolo-n.yaml")
    model.train(data=str(data), epochs=1, batch=4, name="t", plots=True, **ASKED, **keys)
    assert (tmp_path / "t" / "predictions.jpg").is_file()  # drawn on the same pixels
    best = tmp_path / "t" / "weights" / "best.pt"
    assert {key: checkpoint.load(best)["train_args"][key] for key in ASKED} == ASKED
    path = data.parent / "images" / "2.tif"
    expected = images.load(path, Rendering(**ASKED))
    assert expected[14, 34, 2] == 230 and expected[14, 34, 0] < 77  # 900 of 1,000 in band 4, red
    seen = Model(best).predict(path, conf=0.9, imgsz=SIDE, project=str(tmp_path), verbose=False)
    np.testing.assert_array_equal(seen[0].orig_img, expected)
    metrics = Model(best).val(data=str(data), plots=False, name="v", **keys)
    assert metrics.result["AP"] >= 0 and not told()
    dataset = TinyDataset(spec.load(data), "val", rendering=Rendering(**ASKED), imgsz=SIDE, augment=False)
    np.testing.assert_array_equal(dataset.load_image(2)[0], expected)
    raster = scenes.load(str(path), Rendering(**ASKED))
    np.testing.assert_array_equal(np.asarray(raster), expected)


def test_bands_that_are_not_known_stop_a_run_before_it_begins(data, tmp_path):
    with pytest.raises(UserError, match="no usable image in split 'train', 4 listed"):
        Model("tinyyolo-n.yaml").train(data=str(data), epochs=1, imgsz=SIDE, project=str(tmp_path))
    found = check.inspect(spec.load(data))[0]["problems"]["unreadable image"]
    assert len(found) == 4 and "which bands are red, green and blue: bands=[r,g,b]; Choices: 1 gray, 2 " in found[0]
    report = check.inspect(spec.load(data), rendering=Rendering(**ASKED))[0]
    assert report["ok"] and report["notes"]["image mode"] == [
        "train: 4 images with values of uint16, of which 0 to 1000 become 0 and 255 (stretch=)",
        "train: 4 images with 5 bands, of which bands=[4, 3, 2] as red, green and blue are taken",
    ]


def test_what_a_model_was_trained_with_counts_unless_other_is_given_and_that_is_told(data, tmp_path, told):
    path, keys = data.parent / "images" / "1.tif", {"imgsz": SIDE, "project": str(tmp_path), "conf": 0.9}
    model = Model(saved(tmp_path / "a.pt", **ASKED))
    (own,) = model.predict(path, **keys)
    np.testing.assert_array_equal(own.orig_img, images.load(path, Rendering(**ASKED)))
    assert not told()
    (other,) = model.predict(path, bands=[1, 2, 3], **keys)
    np.testing.assert_array_equal(other.orig_img, images.load(path, Rendering([1, 2, 3], [0, 1000])))
    assert told() == [f"bands=[1, 2, 3]: {tmp_path / 'a.pt'} was trained with bands=[4, 3, 2]"]
    plain = Model(saved(tmp_path / "b.pt"))
    plain.predict(path, bands=1, **keys)
    assert len(told()) == 1
    plain.predict(np.zeros((SIDE, SIDE, 3), np.uint8), stretch=[0, 9], **keys)
    assert told()[1:] == ["stretch=[0, 9]: bands and values are for files, not for source=array of uint8"]


def test_exports_keep_them(data, tmp_path, told):
    path, keys = data.parent / "images" / "1.tif", {"project": str(tmp_path), "conf": 0.9}
    model = Model(saved(tmp_path / "a.pt", **ASKED))
    assert metadata(model.export(imgsz=SIDE))["rendering"] == ASKED
    for file in (tmp_path / "a.torchscript", model.export(format="safetensors")):
        (found,) = Model(file).predict(path, **keys)
        np.testing.assert_array_equal(found.orig_img, images.load(path, Rendering(**ASKED)))
    assert not told()


@pytest.mark.parametrize(
    ("words", "said"),
    (
        ("bands=[1,2]", "bands=[1, 2]: expected a band of the file from 1, or three such as [3,2,1] for red, green"),
        ("bands=rgb", "bands=rgb: expected a band of the file"),
        ("stretch=[9,1]", "stretch=[9, 1]: expected the values or percentiles that become 0 and 255, such as [0,4000]"),
        ("stretch=auto", "stretch=auto: expected the values or percentiles"),
        ("bands=[1,2,9]", "1.tif: bands=[1, 2, 9]: expected one or three of its bands; Choices: 1 gray, 2 undefined"),
    ),
)
def test_wrong_values_are_one_line(data, tmp_path, capsys, words, said):
    source = data.parent / "images" / "1.tif"
    model = saved(tmp_path / "a.pt")
    assert main(["predict", f"model={model}", f"source={source}", words, f"project={tmp_path}"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1], lines


def test_the_command_reads_percentiles(data, tmp_path, capsys):
    source = data.parent / "images" / "1.tif"
    words = [f"model={saved(tmp_path / 'a.pt')}", f"source={source}", "bands=4", "stretch=[2%,99.5%]", "save_json=true"]
    assert main(["predict", *words, f"project={tmp_path}", "name=p", "conf=0"]) == 0
    assert json.loads((tmp_path / "p" / "predictions.json").read_text())
    assert main(["data", "check", str(data), "bands=[4,3,2]", "stretch=[0,99%]", f"runs={tmp_path}"]) == 0
    assert "of which 0 to 99% become 0 and 255" in capsys.readouterr().out
