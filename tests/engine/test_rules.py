"""One set of test settings in training, val, predict and exports: the model's own, under the run's keys."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.engine.test_engine import RUN, TINY
from tests.support.sets import SIZE, write_set
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine import checkpoint
from tinyyolo.engine.trainer import TinyTrainer
from tinyyolo.export.torchscript import METADATA, metadata

TEST = {"score": 0.002, "iou": 0.3, "max_det": 7, "votes": 2}
OWN = Postprocess(**TEST)
HOW = {"imgsz": SIZE, "plots": False, "verbose": False}


@pytest.fixture(scope="module")
def trained(tiny_set, tmp_path_factory):
    """A model whose YAML has test settings of its own, trained; with it the trainer's validation rules."""
    seen = []

    class Watched(TinyTrainer):
        def get_validator(self):
            validator = super().get_validator()
            validator.add_callback("on_val_batch_end", lambda v: seen.append(v.rules))
            return validator

    model = Model("tinyyolo-n.yaml", overrides={**TINY, **{f"test.{key}": value for key, value in TEST.items()}})
    model.train(trainer=Watched, data=tiny_set, **RUN, project=str(tmp_path_factory.mktemp("runs")))
    return Path(model.ckpt_path), seen


@pytest.fixture(scope="module")
def weights(trained):
    return trained[0]


@pytest.fixture(scope="module")
def export(weights):
    return Model(weights).export(imgsz=SIZE)


@pytest.fixture
def image(tiny_set):
    return tiny_set.parent / "images" / "val_0.png"


def rules_of_val(model, **keys):
    model.val(**HOW, **keys)
    return model.validator.rules


def rules_of_predict(model, image, **keys):
    model.predict(image, imgsz=SIZE, verbose=False, **keys)
    return model.predictor.rules


def test_the_checkpoint_carries_them(weights):
    assert checkpoint.load(weights)["yaml"]["test"] == TEST
    assert Model(weights).model.settings == OWN


def test_the_validation_of_a_training_follows_them(trained):
    assert trained[1] and set(trained[1]) == {OWN}


@pytest.mark.parametrize("kind", ["checkpoint", "export"])
def test_val_and_predict_follow_them(weights, export, tiny_set, image, kind):
    path = weights if kind == "checkpoint" else export
    assert rules_of_val(Model(path), data=tiny_set) == OWN
    assert rules_of_predict(Model(path), image) == Postprocess(**{**TEST, "score": 0.25})


@pytest.mark.parametrize("kind", ["checkpoint", "export"])
@pytest.mark.parametrize(
    ("key", "value", "setting", "expected"),
    [
        ("conf", 0.5, "score", 0.5),
        ("iou", 0.9, "iou", 0.9),
        ("max_det", 3000, "max_det", 3000),
        ("agnostic_nms", True, "agnostic", True),
        ("classes", "bright", "classes", (1,)),
        ("iou", None, "iou", 0.3),
    ],
)
def test_each_key_overrides_each(weights, export, tiny_set, image, kind, key, value, setting, expected):
    path = weights if kind == "checkpoint" else export
    own = {**vars(OWN), setting: expected}
    assert vars(rules_of_val(Model(path), data=tiny_set, **{key: value})) == own
    assert vars(rules_of_predict(Model(path), image, **{"conf": 0.002, key: value})) == own


def test_keys_of_one_run_do_not_stay_for_the_next(weights, image):
    model = Model(weights)
    assert rules_of_predict(model, image, iou=0.9, max_det=2, classes=1).max_det == 2
    assert rules_of_predict(model, image) == Postprocess(**{**TEST, "score": 0.25})


def test_a_training_takes_the_keys_too(tiny_set):
    seen = []
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.add_callback("on_val_batch_end", lambda v: seen.append(v.rules))
    model.train(data=tiny_set, **RUN, iou=0.7, max_det=11, conf=0.1, classes="dark")
    assert set(seen) == {Postprocess(score=0.1, iou=0.7, max_det=11, votes=4, classes=(0,))}


def test_max_det_is_what_comes_out(weights, export, image):
    for path in (weights, export):
        assert len(Model(path).predict(image, imgsz=SIZE, conf=0)[0].boxes) == 7
        assert len(Model(path).predict(image, imgsz=SIZE, conf=0, max_det=3)[0].boxes) == 3


def test_a_model_that_says_nothing_counts_from_a_thousandth(tiny_set):
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.train(data=tiny_set, **RUN)
    assert rules_of_val(Model(model.ckpt_path), data=tiny_set) == Postprocess(score=0.001, votes=4)


class TestExport:
    def test_it_says_what_the_yaml_says(self, export):
        content = metadata(export)
        assert content["test"] == TEST and content["imgsz"] == [SIZE, SIZE]
        assert content["names"] == {"0": "dark", "1": "bright"}

    def test_the_same_figures_as_its_checkpoint(self, weights, export, tiny_set):
        one, two = (Model(path).val(data=tiny_set, **HOW) for path in (weights, export))
        np.testing.assert_allclose([two.AP50, two.AR1500], [one.AP50, one.AR1500], atol=1e-4)

    def test_an_older_one_is_refused(self, export, tmp_path):
        old = tmp_path / "old.torchscript"
        with zipfile.ZipFile(export) as source, zipfile.ZipFile(old, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name.endswith(METADATA):
                    content = json.dumps({"version": "0.0.1", "votes": 4, "imgsz": [SIZE, SIZE]})
                target.writestr(name, content)
        with pytest.raises(UserError, match=r"old\.torchscript: written by tinyyolo 0\.0\.1.*export the checkpoint"):
            Model(old)

    @pytest.mark.parametrize("content", [b"", b"not a zip"])
    def test_another_file_is_refused(self, tmp_path, content):
        (tmp_path / "a.torchscript").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.torchscript: not a TorchScript export"):
            Model(tmp_path / "a.torchscript")

    def test_it_knows_its_size_and_takes_no_other(self, export, image):
        assert len(Model(export).predict(image, conf=0, verbose=False)[0].boxes) == 7
        with pytest.raises(UserError, match=rf"imgsz=640: .* takes height, width \[{SIZE}, {SIZE}\]"):
            Model(export).predict(image, imgsz=640)

    def test_height_and_width(self, weights, image, tiny_set, tmp_path):
        checkpoint.save(tmp_path / "flat.pt", checkpoint.load(weights))
        path = Model(tmp_path / "flat.pt").export(imgsz=[64, 100])
        assert metadata(path)["imgsz"] == [64, 128]  # rounded up to the stride
        assert len(Model(path).predict(image, conf=0, verbose=False)[0].boxes) == 7
        model = Model(path)
        for size in ({}, {"imgsz": [64, 128]}):
            metrics = model.val(data=tiny_set, plots=False, verbose=False, **size)
            (batch, *_) = model.validator.dataloader
            assert tuple(batch["img"].shape[-2:]) == (64, 128) and 0 <= metrics.AP <= 1
        with pytest.raises(UserError, match=r"imgsz=\[128, 64\]: val takes one number"):
            model.val(data=tiny_set, imgsz=[128, 64])

    @pytest.mark.parametrize("key", ["dynamic", "batch", "opset", "simplify", "optimize", "workspace", "device"])
    def test_a_key_that_does_nothing_is_refused(self, weights, key):
        value = {"batch": 4, "opset": 12, "workspace": 4, "device": 0}.get(key, True)
        with pytest.raises(UserError, match=f"{key}=.*: export does not take it: ") as caught:
            Model(weights).export(**{key: value})
        assert "\n" not in str(caught.value)

    def test_it_is_written_whole_or_not_at_all(self, weights, tmp_path, monkeypatch):
        checkpoint.save(tmp_path / "a.pt", checkpoint.load(weights))
        older = tmp_path / "a.torchscript"
        older.write_text("older")

        def full(_, file, **__):
            file.write(b"half of it")
            raise RuntimeError("PytorchStreamWriter failed writing file")  # what torch makes of a full disk

        monkeypatch.setattr("tinyyolo.export.torchscript.torch.jit.save", full)
        with pytest.raises(UserError, match=r"a\.torchscript: not written: PytorchStreamWriter"):
            Model(tmp_path / "a.pt").export(imgsz=SIZE)
        assert older.read_text() == "older" and len(list(tmp_path.iterdir())) == 2


def by_eye(detector, x, *_, **__):
    """A detector that needs no training on drawn squares: (B, 4 + 2, 50) of the dark and of the bright ones."""
    y = torch.zeros(len(x), 6, 50)
    for i, image in enumerate(x):
        grey, column = image.mean(0).numpy(), 0
        for label, where in enumerate((grey < 0.2, grey > 0.8)):
            for left, top, width, height, area in cv2.connectedComponentsWithStats(where.astype(np.uint8))[2][1:]:
                y[i, :4, column] = torch.tensor([left + width / 2, top + height / 2, width, height])
                y[i, 4 + label, column] = 0.5 + area / 1000
                column += 1
    return y, None


def figures(table):
    """Figures of a class; nan where there is none."""
    return {name: str(value) for name, value in table.items()}


class TestClasses:
    @pytest.fixture
    def model(self, weights, monkeypatch):
        monkeypatch.setattr(Detector, "predict", by_eye)
        return Model(weights)

    @pytest.mark.parametrize("classes", [1, [1], "bright", ["bright"]])
    def test_val_counts_them_alone(self, model, tiny_set, classes):
        """The figures of a class do not depend on what the others do, as long as max_det leaves room."""
        rest = {**HOW, "data": tiny_set, "max_det": 3000}
        everything, alone = model.val(**rest), model.val(classes=classes, **rest)
        assert set(everything.per_class) == {"dark", "bright"} and set(alone.per_class) == {"bright"}
        assert figures(alone.per_class["bright"]) == figures(everything.per_class["bright"])
        assert alone.AP == alone.per_class["bright"]["AP"] > 0.3

    def test_a_set_that_counts_otherwise_is_matched_by_name(self, model, tiny_set, tmp_path):
        """The model's class 1 is the set's class 0."""
        data = write_set(tmp_path / "set")
        file = tmp_path / "set" / "val.json"
        content = json.loads(file.read_text())
        for entry in [*content["categories"], *content["annotations"]]:
            key = "category_id" if "category_id" in entry else "id"
            entry[key] = {7: 1, 3: 9}[entry[key]]
        file.write_text(json.dumps(content))
        (tmp_path / "set" / "train.json").write_text(file.read_text())
        one, two = (model.val(data=each, classes=1, max_det=3000, **HOW) for each in (tiny_set, data))
        assert set(one.per_class) == set(two.per_class) == {"bright"} and two.AP > 0.3
        assert figures(two.per_class["bright"]) == figures(one.per_class["bright"])

    def test_predict_finds_them_alone(self, weights, image):
        for classes in (0, [0], "dark"):
            (result,) = Model(weights).predict(image, imgsz=SIZE, conf=0, classes=classes, verbose=False)
            assert set(result.boxes.cls.tolist()) == {0.0}

    def test_a_training_learns_and_counts_them_alone(self, tiny_set):
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        metrics = model.train(data=tiny_set, **RUN, classes="bright")
        assert set(metrics.per_class) == {"bright"}
        assert {int(label) for row in model.trainer.train_loader.dataset.labels for label in row["cls"][:, 0]} == {1}

    @pytest.mark.parametrize("command", ["train", "val", "predict"])
    @pytest.mark.parametrize("classes", ["5", "boat", "[dark,boat]"])
    def test_another_is_one_line_with_the_choices(self, weights, tiny_set, image, capsys, command, classes):
        words = {
            "train": [f"data={tiny_set}", "epochs=1", *(f"{key}={value}" for key, value in TINY.items())],
            "val": [f"model={weights}", f"data={tiny_set}"],
            "predict": [f"model={weights}", f"source={image}"],
        }[command]
        code, _, err = call(command, *words, f"imgsz={SIZE}", "plots=false" if command != "predict" else "save=false",
                            f"classes={classes}", capsys=capsys)  # fmt: skip
        assert code == 2 and "no such class; Choices: 0 dark, 1 bright" in err and "Traceback" not in err


class TestEmbed:
    WIDTH = sum(TINY["neck.channels"])

    def test_one_vector_an_image(self, weights, tiny_set):
        files = sorted((tiny_set.parent / "images").glob("val_*.png"))
        model = Model(weights)
        for batch in (1, 3):
            vectors = model.embed(files, imgsz=SIZE, batch=batch, verbose=False)
            assert [tuple(vector.shape) for vector in vectors] == [(self.WIDTH,)] * len(files)
        assert not torch.allclose(vectors[0], vectors[1])
        (one,) = model.embed(files[1], imgsz=SIZE, verbose=False)
        torch.testing.assert_close(one, vectors[1], atol=1e-4, rtol=1e-4)

    def test_it_is_the_mean_of_the_maps_finest_first(self, weights, image):
        model, picture = Model(weights), torch.from_numpy(cv2.imread(str(image))[..., ::-1].copy())
        (whole,) = model.embed(image, imgsz=SIZE, verbose=False)
        maps = model.model.eval().features(picture.permute(2, 0, 1)[None] / 255)
        assert [m.shape[-1] for m in maps] == [24, 12, 6]
        expected = torch.tensor([channel.mean().item() for m in maps for channel in m[0]])
        torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-3)
        (two,) = model.predict(image, embed=[2, 0], imgsz=SIZE, verbose=False)
        torch.testing.assert_close(two, torch.cat([whole[-16:], whole[:16]]))

    @pytest.mark.parametrize("name", ["retinanet-r18-nwdrka", "faster-rcnn-r18-nwdrka", "detectors-slim-nwdrka"])
    def test_every_detector(self, name, image):
        model = Model(name)
        (vector,) = model.embed(image, imgsz=64, verbose=False)
        assert vector.shape == (sum(model.model.neck.channels),)

    @pytest.mark.parametrize("levels", [[4], [-1], []])
    def test_no_such_map(self, weights, image, levels):
        with pytest.raises(UserError, match=r"embed=.*Choices: 0 \(finest\) to 2"):
            Model(weights).embed(image, embed=levels, imgsz=SIZE)

    def test_nothing_can_be_written_of_them(self, weights, image, capsys):
        code, _, err = call("predict", f"model={weights}", f"source={image}", "embed=[0]", capsys=capsys)
        assert code == 2 and "gives vectors, in Python; save= needs detections" in err
        with pytest.raises(UserError, match="save_json= needs detections"):
            Model(weights).embed(image, save_json=True)

    def test_an_export_has_no_maps(self, export, image):
        for ask in (Model(export).embed, lambda source: Model(export).predict(source, embed=[0])):
            with pytest.raises(UserError, match=r"use the \.pt checkpoint"):
                ask(image)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the devices are there")
@pytest.mark.parametrize("device", ["0", "cuda", "[0,1]", "0,1", "gpu", "cuda:7", "-1", "mps", "tpu"])
@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_a_device_that_is_not_there_is_one_line(weights, tiny_set, image, capsys, command, device):
    words = {
        "train": [f"data={tiny_set}"],
        "val": [f"model={weights}", f"data={tiny_set}"],
        "predict": [f"model={weights}", f"source={image}"],
    }[command]
    code, out, err = call(command, *words, f"device={device}", capsys=capsys)
    assert code == 2 and "not on this machine; " in err and len(err.strip().splitlines()) == 1, err
    assert out == "" or device == "gpu", "no line before it"  # to upstream a word that it does not know


@pytest.mark.parametrize(("rect", "shape"), [(True, (64, 96)), (False, (96, 96))])
def test_val_pads_to_a_square_when_asked(weights, tiny_set, tmp_path, rect, shape):
    data = write_set(tmp_path / "set")
    for file in (tmp_path / "set" / "images").glob("val_*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file))[:64])
    content = json.loads((tmp_path / "set" / "val.json").read_text())
    content["images"] = [{**entry, "height": 64} for entry in content["images"]]
    (tmp_path / "set" / "val.json").write_text(json.dumps(content))
    model = Model(weights)
    model.val(data=data, rect=rect, **HOW)
    (batch, *_) = model.validator.dataloader
    assert tuple(batch["img"].shape[-2:]) == shape
