"""Loss gains and frozen parts: what `box=`, `cls=` and `freeze=` make of a run, by values."""

import pytest
import torch

from tests.engine.test_engine import RUN, TINY, trained
from tinyyolo import Model
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint, prepare


def rows(model):
    """results.csv as dicts of numbers."""
    lines = [line.split(",") for line in model.trainer.csv.read_text().splitlines()]
    return [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]


class TestGains:
    def test_they_weigh_the_losses_and_stay_in_the_checkpoint(self, tiny_set):
        model = trained(tiny_set, box=2.5, cls=0.25, seed=1)
        head = model.trainer.model.bbox_head
        assert (head.gains["box"], head.gains["cls"]) == (2.5, 0.25)
        assert checkpoint.load(model.ckpt_path)["yaml"]["head"]["gains"] == {"box": 2.5, "cls": 0.25}
        assert Model(model.ckpt_path).model.bbox_head.gains["box"] == 2.5
        assert (model.trainer.args.box, model.trainer.args.cls) == (2.5, 0.25)

    def test_a_gain_scales_its_loss_alone(self, tiny_set):
        """The first epoch of a rate of 0: the same weights, losses in the ratio of the gains."""
        still = {"lr0": 0.0, "warmup_epochs": 0, "optimizer": "SGD", "seed": 1, "val": False}
        plain, changed = (rows(trained(tiny_set, **still, **more))[0] for more in ({}, {"box": 15.0}))
        assert plain["train/box"] > 0
        assert changed["train/box"] == pytest.approx(2 * plain["train/box"], rel=1e-4)  # the YAML's gain is 7.5
        assert changed["train/cls"] == pytest.approx(plain["train/cls"], rel=1e-6)

    def test_what_is_not_given_stays_the_models_own(self, tiny_set):
        model = trained(tiny_set, cls=2)
        assert checkpoint.load(model.ckpt_path)["yaml"]["head"]["gains"] == {"box": 7.5, "cls": 2}
        assert model.trainer.args.box == 7.5

    @pytest.mark.parametrize("name", ["retinanet-r18-nwdrka.yaml", "faster-rcnn-r50.yaml"])
    def test_other_detectors_refuse(self, tiny_set, tmp_path, name):
        with pytest.raises(UserError, match=r"box=5: .*no gains"):
            Model(name).train(data=tiny_set, **RUN, box=5)
        assert not (tmp_path / "runs").exists()


def before_and_after(data, freeze):
    """State of a model as built and after an epoch with `freeze`; the model."""
    first = {}
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.add_callback(
        "on_train_start", lambda t: first.update({k: v.clone() for k, v in t.model.state_dict().items()})
    )
    model.train(data=data, **RUN, freeze=freeze)
    return first, model.trainer.model.state_dict(), model


class TestFreeze:
    @pytest.mark.parametrize(
        ("freeze", "prefixes"),
        [
            (2, ["backbone.stem.", "backbone.stages.0."]),
            ([0, 2], ["backbone.stem.", "backbone.stages.1."]),
            ("backbone", ["backbone."]),
            (["neck.top_down", "backbone.stages.2"], ["neck.top_down.", "backbone.stages.2."]),
            (["backbone", "head"], ["backbone.", "bbox_head."]),
        ],
    )
    def test_nothing_in_them_moves_and_the_rest_does(self, tiny_set, freeze, prefixes):
        first, last, model = before_and_after(tiny_set, freeze)
        saved = checkpoint.load(model.ckpt_path)["model"]
        moved = {name for name in first if not torch.equal(first[name], last[name])}
        frozen = {name for name in first if name.startswith(tuple(prefixes))}
        assert any("running_mean" in name for name in frozen) and not moved & frozen
        for name in frozen:
            torch.testing.assert_close(saved[name], first[name], rtol=0, atol=0, msg=name)
        rest = {name for name in first if name.endswith(("conv.weight", "running_mean"))} - frozen
        assert rest and rest <= moved

    def test_it_says_how_many(self, tiny_set, caplog, monkeypatch):
        monkeypatch.setattr("tinyyolo.engine.prepare.LOGGER.propagate", True)
        _, _, model = before_and_after(tiny_set, 1)
        count = sum(1 for name, _ in model.model.named_parameters() if name.startswith("backbone.stem."))
        said = [record.getMessage() for record in caplog.records if "do not learn" in record.getMessage()]
        assert set(said) == {f"freeze=1: {count} tensors do not learn: backbone.stem"}

    @pytest.mark.parametrize(
        ("freeze", "says"),
        [
            (["backbnoe"], r"no part 'backbnoe'; there are 0 backbone\.stem, .*neck, .*bbox_head"),
            (["back"], "no part 'back'"),
            ([99], "no part 99"),
            (99, "no part"),
            (["backbone", "neck", "bbox_head"], "nothing would be left"),
            (-1, "freeze=-1: expected"),
            (1.5, "freeze=1.5: expected"),
        ],
    )
    def test_mistakes_are_one_line_and_leave_no_folder(self, tiny_set, tmp_path, freeze, says):
        with pytest.raises(UserError, match=says) as caught:
            Model("tinyyolo-n.yaml", overrides=TINY).train(data=tiny_set, **RUN, freeze=freeze)
        assert "\n" not in str(caught.value) and not (tmp_path / "runs").exists()

    def test_sections_of_the_yaml_are_names(self):
        model = build_model(load_model_yaml("faster-rcnn-r18-nwdrka.yaml"))
        assert prepare.freeze(model, ["rpn", "roi"]) == ["rpn_head", "roi_head"]
        learns = {name.split(".")[0] for name, x in model.named_parameters() if x.requires_grad}
        assert learns == {"backbone", "neck"}

    def test_parts_of_a_resnet_take_their_norms_along(self):
        model = build_model(load_model_yaml("retinanet-r18-nwdrka.yaml"))
        assert prepare.parts(model) == [
            ["backbone.conv1", "backbone.bn1"],
            *[[f"backbone.layer{i}"] for i in (1, 2, 3, 4)],
            ["neck"],
            ["bbox_head"],
        ]
