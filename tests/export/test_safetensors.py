"""Safetensors stand wherever a .pt may stand, and give the same numbers."""

import pytest
import torch
from safetensors.torch import load_file

from tests.support.checkpoints import SMALLEST, content
from tests.support.command import command
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint


@pytest.fixture
def pair(tmp_path):
    """A checkpoint, and what export makes of it."""
    checkpoint.save(tmp_path / "best.pt", content())
    command("export", model=tmp_path / "best.pt", format="safetensors")
    return tmp_path / "best.pt", tmp_path / "best.safetensors"


def same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_bit_for_bit_there_and_back(pair):
    first, second = map(checkpoint.load, pair)
    same(second["model"], first["model"])
    for key in ("yaml", "names", "train_args", "format"):
        assert second[key] == first[key], key
    Model(pair[1]).save(pair[1].with_name("back.pt"))
    same(checkpoint.load(pair[1].with_name("back.pt"))["model"], first["model"])


def test_other_programs_read_it(pair):
    same(load_file(pair[1]), checkpoint.load(pair[0])["model"])


def test_it_predicts_validates_trains_and_exports(pair, tiny_set):
    image = tiny_set.parent / "images" / "val_0.png"
    one, two = (Model(path).predict(image, conf=0, imgsz=64, verbose=False)[0].boxes.data for path in pair)
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    one, two = (Model(path).val(data=tiny_set, imgsz=64, plots=False, verbose=False).results_dict for path in pair)
    assert one == two
    run = {"data": tiny_set, "imgsz": 64, "epochs": 1, "batch": 2, "plots": False, "workers": 0}
    states = []
    for path in pair:
        model = Model(path)
        model.train(**run)
        states.append(checkpoint.load(model.ckpt_path)["model"])
    same(*states)
    assert command("export", model=pair[1], imgsz=64) == 0 and pair[1].with_suffix(".torchscript").is_file()


def test_its_weights_go_into_other_models(pair, tiny_set):
    state = checkpoint.load(pair[0])["model"]
    model = Model(pair[0])
    for parameter in model.model.parameters():
        parameter.data.zero_()
    same(model.load(pair[1]).model.state_dict(), state)
    made = Model("tinyyolo-n.yaml", overrides={**SMALLEST, "backbone.weights": str(pair[1])})
    built = made.model.backbone.state_dict()
    same(built, {key.removeprefix("backbone."): x for key, x in state.items() if key.startswith("backbone.")})


def test_there_is_nothing_to_resume(pair):
    with pytest.raises(UserError, match=r"best\.safetensors: this training is finished"):
        Model(pair[1]).train(resume=True)


def test_keys_that_do_nothing(pair):
    with pytest.raises(UserError, match="imgsz=64: safetensors holds weights"):
        Model(pair[0]).export(format="safetensors", imgsz=64)
    with pytest.raises(UserError, match="it is a safetensors file already"):
        Model(pair[1]).export(format="safetensors")
