"""The scores of conf=auto: from a validation into checkpoints and exports, and from there to predict."""

import json
from pathlib import Path

import pytest
from ultralytics.utils import LOGGER

from tests.engine.test_engine import RUN, TINY
from tests.engine.test_resume import Killed, kill
from tests.engine.test_rules import by_eye
from tests.support.checkpoints import content, saved
from tests.support.sets import SIZE, write_set
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.detectors.base import Detector
from tinyyolo.engine import checkpoint
from tinyyolo.evaluation import evaluate, operating_scores
from tinyyolo.export.torchscript import metadata

QUIET = {"imgsz": SIZE, "verbose": False}
NAMES = ["dark", "bright"]


def seeing(self, x, *_, **__):
    """Finds drawn squares, and nothing else learns from it: scores differ as the weights do."""
    y, _ = by_eye(self, x)
    weight = next(self.parameters()).detach().double().abs().sum()
    y[:, 4:] *= 0.5 + 0.5 * float((7 * weight) % 1)
    return y, self.features(x)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images to validate on: more than ten objects of each class."""
    return write_set(tmp_path_factory.mktemp("set"), counts={"train": 4, "val": 8})


def trained(data, dies=False, **keys):
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    if dies:
        model.add_callback("on_train_epoch_end", kill)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "predict", seeing)
        model.train(data=data, **{**RUN, "epochs": 2, **keys})
    return model


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    return trained(data, project=str(tmp_path_factory.mktemp("runs")))


@pytest.fixture
def image(data):
    return data.parent / "images" / "val_0.png"


def said(monkeypatch):
    """What is told of scores, line by line."""
    lines = []
    monkeypatch.setattr(LOGGER, "info", lambda line: lines.append(line) if line.startswith("conf") else None)
    return lines


def rules(model, image, **keys):
    model.predict(image, **{**QUIET, "verbose": True}, **keys)
    return model.predictor.rules


class TestTheyTravel:
    def test_into_the_files_of_a_training(self, model, data):
        folder = Path(model.trainer.save_dir)
        figures = evaluate(data.parent / "val.json", folder / "predictions.json")
        objects = {"dark": 17, "bright": 14}
        truth = json.loads((data.parent / "val.json").read_text())["annotations"]
        assert [sum(box["category_id"] == i for box in truth) for i in (3, 7)] == list(objects.values())
        expected, common = operating_scores(figures, objects, NAMES)
        assert not common and 0.05 < expected["dark"] < 0.3 and expected["dark"] != expected["bright"]
        best, last = (checkpoint.load(file)["thresholds"] for file in (model.trainer.best, model.trainer.last))
        assert best == [expected[name] for name in NAMES] == model.model.thresholds
        assert len(last) == 2 and 0.05 < min(last) < max(last) < 0.3
        assert json.loads((folder / "metrics.json").read_text())["thresholds"] == expected

    @pytest.mark.parametrize("kind", ["pt", "safetensors", "torchscript"])
    def test_to_predict(self, model, image, kind, monkeypatch):
        size = {"imgsz": SIZE} if kind == "torchscript" else {}
        path = model.ckpt_path if kind == "pt" else Model(model.ckpt_path).export(format=kind, **size)
        lines, own = said(monkeypatch), Model(path)
        dark, bright = scores = model.model.thresholds
        assert rules(own, image).score == rules(own, image, conf="auto").score == tuple(scores)
        assert lines == [f"conf=auto: dark {dark:.4g}, bright {bright:.4g}"] * 2
        assert rules(own, image, conf={"bright": 0.9}).score == (dark, 0.9)
        assert lines[2:] == [f"conf by class: dark {dark:.4g}, bright 0.9"]
        assert rules(own, image, conf=0.3).score == 0.3 and len(lines) == 3
        rules(own, image, classes="bright")
        assert lines[3:] == [f"conf=auto: bright {bright:.4g}"]

    def test_through_an_export_of_its_own(self, model, tmp_path):
        model = Model(model.ckpt_path)
        model.save(tmp_path / "saved.pt")
        assert Model(tmp_path / "saved.pt").model.thresholds == model.model.thresholds
        path = Model(model.export(format="safetensors")).export(imgsz=SIZE)
        assert metadata(path)["thresholds"] == model.model.thresholds

    def test_a_validation_of_a_checkpoint_finds_and_tells_the_same(self, model, data, monkeypatch):
        lines = said(monkeypatch)
        monkeypatch.setattr(Detector, "predict", seeing)
        own = Model(model.ckpt_path)
        metrics = own.val(data=data, plots=False, **QUIET)
        dark, bright = model.model.thresholds
        assert metrics.thresholds == {"dark": dark, "bright": bright}
        assert lines == [f"conf=auto of predict: dark {dark:.4g}, bright {bright:.4g}"]
        assert checkpoint.load(model.ckpt_path)["thresholds"] == own.model.thresholds == [dark, bright], "left alone"

    def test_over_a_resume(self, model, data):
        with pytest.raises(Killed):
            trained(data, dies=True, name="victim")
        victim = Path("runs/victim/weights/last.pt")
        first = checkpoint.load(victim)["thresholds"]
        resumed = Model(victim)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Detector, "predict", seeing)
            resumed.train(resume=True)
        for name in ("best", "last"):
            found, whole = (checkpoint.load(getattr(m.trainer, name)) for m in (resumed, model))
            assert found["thresholds"] == whole["thresholds"]
            assert (found["epoch"], whole["epoch"]) in {(0, 0), (1, 1)}
        assert first != checkpoint.load(resumed.trainer.last)["thresholds"], "each epoch has its own"

    def test_to_weights_that_are_loaded(self, model, tmp_path):
        other = Model(saved({**checkpoint.load(model.ckpt_path), "thresholds": [0.7, 0.8]}, tmp_path / "other.pt"))
        assert other.load(model.ckpt_path).model.thresholds == model.model.thresholds
        assert other.load(model.model.state_dict()).model.thresholds is None, "not those of other weights"

    def test_not_to_a_training_that_starts_from_them(self, model, data):
        """Other weights: without a right detection nothing is known of them."""
        own = Model(model.ckpt_path)
        own.train(data=data, **RUN)
        assert checkpoint.load(own.trainer.best)["thresholds"] is None


class TestOfAModelWithout:
    @pytest.mark.parametrize("more", [{}, {"thresholds": None}])
    def test_it_predicts_as_before_and_says_so(self, image, tmp_path, monkeypatch, more):
        held = checkpoint.plain(content())
        held.pop("thresholds")
        lines, model = said(monkeypatch), Model(saved({**held, **more}, tmp_path / "old.pt"))
        assert rules(model, image).score == 0.25
        assert lines == [f"conf=auto: 0.25 for every class, as {tmp_path / 'old.pt'} has no scores by a validation"]
        assert rules(model, image, conf={"dark": 0.1}).score == (0.1, 0.25)

    def test_an_older_export(self, image, tmp_path):
        model = Model(saved(checkpoint.plain(content()), tmp_path / "a.pt"))
        assert metadata(path := model.export(imgsz=SIZE))["thresholds"] is None
        assert rules(Model(path), image).score == 0.25

    def test_vectors_need_no_scores(self, image, tmp_path, monkeypatch):
        lines, model = said(monkeypatch), Model(saved(checkpoint.plain(content()), tmp_path / "a.pt"))
        model.embed(image, **QUIET)
        assert not lines


def test_each_class_is_shown_from_its_own_score_on(model, image, monkeypatch):
    monkeypatch.setattr(Detector, "predict", by_eye)

    def count(**keys):
        (result,) = Model(model.ckpt_path).predict(image, **QUIET, **keys)
        return [int((result.boxes.cls == label).sum()) for label in (0, 1)]

    dark, bright = count(conf=0.1)  # a square is found once, so the other three votes are missing: .5 / 4 and more
    assert dark and bright and count(conf=0.25) == [0, 0]
    assert count(conf={"dark": 1, "bright": 0.1}) == count(conf={0: 1, 1: 0.1}) == [0, bright]
    assert count(conf={"dark": 0.1, "bright": 1.0}) == [dark, 0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return saved(checkpoint.plain(content(thresholds=[0.5, 0.4])), tmp_path_factory.mktemp("w") / "w.pt")


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ("otto", "conf=otto: expected auto, a number from 0 to 1, or scores by class in quotes such as '{ship: 0.1"),
        ("1.5", "conf=1.5: expected auto"),
        ("[.1,.2]", "conf=[0.1, 0.2]: expected auto"),
        ("{}", "conf={}: expected auto"),
        ("{dark:.1}", "conf={'dark:.1': None}: expected auto"),  # YAML wants a space
        ("{dark: 2}", "conf={'dark': 2}: expected auto"),
        ("{dark: yes}", "conf={'dark': 'yes'}: expected auto"),
        ("{drak: .1}", "conf=drak: no such class; Choices: 0 dark, 1 bright"),
        ("{2: .1}", "conf=2: no such class; Choices: 0 dark, 1 bright"),
        ("{dark: .1, 0: .2}", "conf={'dark': 0.1, '0': 0.2}: dark stands there twice"),
    ],
)
def test_bad_values_are_one_line(weights, image, conf, says, capsys, tmp_path):
    code, _, err = call("predict", f"model={weights}", f"source={image}", f"conf={conf}", "imgsz=96", capsys=capsys)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("conf", ["auto", "{dark: .1}"])
@pytest.mark.parametrize("command", ["train", "val"])
def test_figures_count_by_one_number(weights, data, command, conf, capsys):
    words = [f"model={weights}", f"data={data}", "imgsz=96", f"conf={conf}"]
    code, _, err = call(command, *words, capsys=capsys)
    assert code == 2 and f"{command} takes a number, or null for the model's own" in err
    assert len(err.strip().splitlines()) == 1


def test_the_command_takes_scores_by_name_and_number(weights, image, capsys):
    for conf in ("auto", "{dark: .1}", "{0: .1, bright: 0}"):
        words = [f"model={weights}", f"source={image}", "imgsz=96", "save=false", f"conf={conf}"]
        assert call("predict", *words, capsys=capsys)[0] == 0
