"""`weights=`: the authors' checkpoints from the command."""

import json
import re

import pytest
import torch

from tests.support.command import command
from tests.support.sets import SIZE
from tinyyolo import Model
from tinyyolo.config import UserError

SLIM = {"backbone.depth": 10, "neck.channels": 8, "rpn.channels": 8, "rpn.proposals": 20, "roi.channels": 8}
WORDS = ["faster-rcnn-r18.yaml", *(f"{key}={value}" for key, value in SLIM.items())]


@pytest.fixture
def theirs(tmp_path):
    """(checkpoint as mmdetection writes one, for two classes, and the model in it)."""
    model = Model(WORDS[0], overrides={**SLIM, "nc": 2})
    with torch.no_grad():
        model.model.roi_head.bbox_head.fc_cls.bias[:] = torch.tensor([0.0, 2, 0])
    state = model.model.state_dict()
    meta = {"mmdet_version": "2.24.1", "epoch": 12, "CLASSES": ("dark", "bright"), "config": "model = dict(...)"}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", state


def test_val_and_predict(theirs, tiny_set, tmp_path, capsys):
    weights, _ = theirs
    words = [f"model={WORDS[0]}", *WORDS[1:], f"weights={weights}", f"imgsz={SIZE}"]
    command("val", *words, f"data={tiny_set}", "plots=false", "verbose=true")
    assert "tensors loaded" in capsys.readouterr().out
    assert json.loads(next(tmp_path.rglob("metrics.json")).read_text())["per_class"].keys() == {"dark", "bright"}
    source = tiny_set.parent / "images" / "val_0.png"
    command("predict", *words, f"source={source}", "save_txt=true", "conf=0.3")
    (labels,) = tmp_path.rglob("labels/val_0.txt")
    assert {line.split()[0] for line in labels.read_text().splitlines()} == {"1"}  # bright


def test_training_starts_from_them(theirs, tiny_set):
    weights, state = theirs
    model = Model(WORDS[0], overrides=SLIM).load(weights)
    assert model.model.names == {0: "dark", 1: "bright"} and model.model.nc == 2
    run = {"lr0": 1e-9, "warmup_iters": 0, "epochs": 1, "batch": 2, "workers": 0, "plots": False, "val": False}
    model.train(data=tiny_set, imgsz=SIZE, **run)
    name = "rpn_head.rpn_conv.weight"
    torch.testing.assert_close(model.trainer.detector.state_dict()[name], state[name], atol=1e-5, rtol=0)


class Config:
    """Something that a checkpoint should not hold."""


def test_what_is_no_checkpoint_of_this_model_is_one_line(theirs, tmp_path):
    weights, state = theirs
    torch.save({"meta": {"config": Config()}, "state_dict": state}, tmp_path / "code.pth")
    Model("tinyyolo-n.yaml").save(tmp_path / "best.pt")
    slim = [f"model={WORDS[0]}", *WORDS[1:], "source=x.png"]
    for words, says in (
        ([*slim, f"weights={tmp_path / 'none.pth'}"], "none.pth: no such checkpoint"),
        (
            [*slim, f"weights={tmp_path / 'code.pth'}"],
            "which is code and is not run; have its maker save the state_dict",
        ),
        (
            [w.replace("rpn.channels=8", "rpn.channels=9") for w in slim] + [f"weights={weights}"],
            "theirs.pth: not the weights of this model",
        ),
        ([f"model={tmp_path / 'best.pt'}", f"weights={weights}", "source=x.png"], "is a checkpoint with its own"),
    ):
        with pytest.raises(UserError, match=re.escape(says)) as caught:
            command("predict", *words)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"weights=a\.pth: .*load takes it, not Model"):
        Model(WORDS[0], overrides=SLIM).val(weights="a.pth", data="toy.yaml")
