"""The weights that come with the package: what the file is, where it is found, and what starts from it."""

import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.engine.test_engine import RUN, TINY, trained
from tinyyolo import Model
from tinyyolo.cli import main
from tinyyolo.config import UserError, load_model_yaml, shipped_weights
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.transfer import carry_over
from tinyyolo.engine import checkpoint

NAME = "tinyyolo-n.pt"
NORM = ("weight", "bias", "running_mean", "running_var")
LOGITS = re.compile(r"bbox_head\.class_branch\.\d\.1\.")


@pytest.fixture
def said(caplog, monkeypatch):
    """Lines that were logged."""
    monkeypatch.setattr("ultralytics.utils.LOGGER.propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


class TestFile:
    def test_it_is_small_plain_and_the_smallest_model(self):
        path = shipped_weights()[NAME]
        content = torch.load(path, weights_only=True)
        assert path.stat().st_size < 15e6
        assert {x.dtype for x in content["model"].values() if x.is_floating_point()} == {torch.float16}
        spec = dict(content["yaml"])
        assert spec.pop("nc") == len(content["names"]) == len(content["thresholds"])
        assert spec == load_model_yaml("tinyyolo-n.yaml"), "the model has changed: its weights must be learnt again"

    def test_it_says_where_it_is_from_and_nothing_of_the_machine(self):
        content = checkpoint.load(NAME)
        card = content["card"]
        assert card["licence"] == "AGPL-3.0-only" and card["pictures"] > 0 and card["cpu_hours"] > 0
        assert content["train_args"] == {"task": "detect", "data": "school.yaml"} and "resume" not in content

    def test_a_file_of_that_name_goes_before(self, tmp_path):
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        model.save(NAME)
        assert Model(NAME).model.yaml["backbone"]["channels"] == TINY["backbone.channels"]
        (tmp_path / NAME).unlink()
        assert Model(NAME).ckpt_path == str(shipped_weights()[NAME])

    def test_other_names_are_refused_with_it(self):
        with pytest.raises(UserError, match=rf"tinyyolo-q\.pt: no such checkpoint; with tinyyolo come {NAME}"):
            Model("tinyyolo-q.pt")
        with pytest.raises(UserError, match="no such checkpoint"):
            Model(f"here/{NAME}")

    def test_an_export_goes_to_the_current_folder(self, tmp_path):
        assert Model(NAME).export(format="safetensors") == "tinyyolo-n.safetensors"
        assert (tmp_path / "tinyyolo-n.safetensors").is_file()
        assert Model(tmp_path / "tinyyolo-n.safetensors").model.names == Model(NAME).model.names

    def test_predict_without_a_model_says_which(self, tiny_set, tmp_path, capsys):
        assert main(["predict", f"source={tiny_set.parent / 'images' / 'val_0.png'}", "imgsz=96"]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if NAME in line]
        assert len(lines) == 1 and "docs/weights.md" in lines[0]
        assert (tmp_path / "runs/predict/val_0.jpg").is_file() or (tmp_path / "runs/predict/val_0.png").is_file()


class Begun(Exception):
    """The training stands at its first step."""


def first_state(model, data, **keys):
    """What a training of `model` would start from; it is stopped there."""
    first = {}

    def stop(trainer):
        first.update({name: x.clone() for name, x in trainer.model.state_dict().items()})
        raise Begun

    model.add_callback("on_train_start", stop)
    with pytest.raises(Begun):
        model.train(data=data, **{**RUN, **keys})
    return first


class Watched:
    """State and losses of a training, step by step."""

    def __init__(self, data, **keys):
        self.states, self.losses, self.rates = [], [], []
        model = Model("tinyyolo-n.yaml")
        model.add_callback("on_train_start", self.keep)
        model.add_callback("on_train_batch_end", self.step)
        model.train(data=data, **{**RUN, "epochs": 3, "val": False, **keys})
        self.trainer = model.trainer

    def keep(self, trainer):
        self.states.append({name: x.clone() for name, x in trainer.model.state_dict().items()})

    def step(self, trainer):
        self.losses.append(float(trainer.loss.detach()))
        self.rates.append(max(group["lr"] for group in trainer.optimizer.param_groups))
        if len(self.losses) == 1:
            self.keep(trainer)


class TestTraining:
    def test_a_training_starts_from_it_and_goes_on_from_there(self, tiny_set, said):
        run = Watched(tiny_set)
        given, (first, second) = checkpoint.load(NAME)["model"], run.states
        same = [name for name, x in first.items() if x.shape == given[name].shape and torch.equal(x, given[name].to(x))]
        assert set(first) - set(same) == {name for name in first if LOGITS.match(name)}  # its classes are others
        line = f"Training starts from {NAME}: {len(same)} of {len(first)} tensors carried over; no class by name"
        assert [text for text in said() if text.startswith(line)]
        # The warm-up begins at a rate of 0: the first step moves the averages of the norms alone.
        assert run.rates[0] == 0 and max(run.rates) > 0
        moved = {name for name in first if not torch.equal(first[name], second[name])}
        assert moved and all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in moved)
        assert max(run.losses[1:]) < 2 * run.losses[0], "the start is lost in the warm-up"

    def test_false_is_from_scratch(self, tiny_set, said):
        first, given = first_state(Model("tinyyolo-n.yaml"), tiny_set, pretrained=False), checkpoint.load(NAME)["model"]
        weights = [name for name in given if name.startswith("backbone.") and name.endswith("conv.weight")]
        assert weights and not any(torch.equal(first[name], given[name].float()) for name in weights)
        assert not [text for text in said() if "carried over" in text]

    def test_a_trained_model_starts_from_itself(self, tiny_set, said):
        other = Model("tinyyolo-n.yaml")
        other.model = build_model(other.spec, 2)
        other.model.names = {0: "ship", 1: "Bright"}
        other.save("mine.pt")
        own = other.model.state_dict()
        first = first_state(Model("mine.pt"), tiny_set)
        scores = {name for name in own if LOGITS.match(name)}
        assert all(torch.equal(x, own[name]) for name, x in first.items() if name not in scores)
        for (
            name
        ) in scores:  # (A 2, ...): bright was the second of two classes, as the classes of the set are dark, bright
            torch.testing.assert_close(first[name][1::2], own[name][1::2], rtol=0, atol=0)
        line = f"Training starts from mine.pt: {len(own)} of {len(own)} tensors carried over; scores of bright by name"
        assert f"{line}, those of dark from scratch" in said()


class TestWhichModel:
    def test_the_same_backbone_counts(self, said):
        for overrides in ({}, {"head.anchors": "auto"}, {"head.assigner.topk": 3}, {"head.hidden": [8, 8, 8]}):
            assert checkpoint.shipped_for(load_model_yaml("tinyyolo-n.yaml", overrides)).source == NAME
        assert not said()

    @pytest.mark.parametrize(("name", "overrides"), [("tinyyolo-n.yaml", TINY), ("tinyyolo-m.yaml", {})])
    def test_another_width_is_told(self, name, overrides, said):
        assert checkpoint.shipped_for(load_model_yaml(name, overrides)) is None
        assert said() == [
            f"pretrained=true: this model starts from scratch; for others there come with tinyyolo: {NAME}"
        ]

    def test_other_detectors_say_so_only_when_asked(self, said):
        spec = load_model_yaml("faster-rcnn-r18.yaml")
        assert checkpoint.shipped_for(spec) is None and not said()
        assert checkpoint.shipped_for(spec, asked=True) is None and len(said()) == 1


class TestFiles:
    @pytest.mark.parametrize("kind", ["pt", "pth", "safetensors"])
    def test_a_state_dict_of_another_network(self, tiny_set, tmp_path, kind, said):
        """Its own names, the shapes of one stage."""
        own = Model("tinyyolo-n.yaml", overrides=TINY).model.state_dict()
        state = {
            name.replace("backbone.stages.0.0", "model.1"): x + 1 if x.is_floating_point() else x
            for name, x in own.items()
            if name.startswith("backbone.stages.0.0.")
        }
        path = tmp_path / f"their.{kind}"
        if kind == "safetensors":
            save_file(state, path)
        else:
            torch.save(state if kind == "pt" else {"state_dict": state}, path)
        first = first_state(Model("tinyyolo-n.yaml", overrides=TINY), tiny_set, pretrained=str(path))
        taken = {name for name, x in first.items() if x.is_floating_point() and torch.equal(x, own[name] + 1)}
        assert taken == {f"backbone.stages.0.0.{leaf}" for leaf in ("conv.weight", *(f"bn.{n}" for n in NORM))}
        line = f"Training starts from {path}: 6 of {len(own)} tensors carried over, 6 of them by role and shape"
        assert [text for text in said() if text.startswith(line)]

    def test_a_checkpoint_brings_its_classes(self, tmp_path):
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        model.save(tmp_path / "mine.pt")
        start = checkpoint.start_of(tmp_path / "mine.pt")
        assert not start.foreign and start.names == model.model.names

    @pytest.mark.slow
    def test_a_pickled_checkpoint_is_refused_with_a_way_that_works(self, tiny_set, tmp_path):
        from ultralytics import YOLO

        theirs = YOLO("yolov8n.yaml")
        theirs.save("THEIRS.pt")
        with pytest.raises(UserError, match=r"^THEIRS\.pt: refused: it pickles ultralytics\..*python -c") as caught:
            trained(tiny_set, pretrained="THEIRS.pt")
        assert "\n" not in str(caught.value)
        code = re.search(r'python -c "(.+)"', str(caught.value))[1]
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        start = checkpoint.start_of("state.pt")
        # Its first three layers are our backbone up to stride 4, and see the same; at stride 8 we have a block more.
        ours, layers = build_model(load_model_yaml("tinyyolo-n.yaml")).eval(), theirs.model.eval().model
        assert len([name for name in carry_over(ours, start).loaded if name.startswith("backbone.")]) == 72
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            maps = ours.backbone(x)
            for layer in layers[:3]:
                x = layer(x)
            torch.testing.assert_close(maps[0], x)


@pytest.mark.slow
def test_the_card_is_true():
    """Drawn scenes that it was validated on while it learnt, measured again with the rounded weights."""
    card = checkpoint.load(NAME)["card"]["drawn_val"]
    metrics = Model(NAME).val(data="school.yaml", imgsz=320, plots=False, workers=0)
    assert metrics.AP50 > 0.05
    for name in ("AP", "AP50"):  # those of a size are of few objects: rounding moves them further
        assert getattr(metrics, name) == pytest.approx(card[name], abs=0.01), name
