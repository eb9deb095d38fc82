"""Every key works or is refused in one line that says what to use; docs/keys.md is the table."""

from pathlib import Path

import pytest
from ultralytics.utils import DEFAULT_CFG_DICT

from tinyyolo.config import UserError
from tinyyolo.engine.arguments import resolve
from tinyyolo.engine.keys import KEYS, LETTERS, MODES, OWN, check_keys, markdown

DOCS = Path(__file__).parent.parent.parent / "docs" / "keys.md"


def test_every_key_is_in_the_table():
    assert {*DEFAULT_CFG_DICT, *OWN} <= set(KEYS)


def test_the_file_is_the_table():
    assert DOCS.read_text(encoding="utf-8") == markdown(), "python -m tinyyolo.engine.keys docs/keys.md"


@pytest.mark.parametrize("mode", MODES.values())
def test_a_key_without_effect_is_refused_with_what_to_use(mode):
    refused = [name for name, row in KEYS.items() if LETTERS[mode] not in row.modes]
    assert refused
    for name in refused:
        with pytest.raises(UserError, match=f"^{name}=7: {mode} does not take it: .{{8,}}") as caught:
            check_keys(mode, {name: 7})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "given"),
    [
        ("train", {"dfl": 0.0}),
        ("train", {"profile": True}),
        ("train", {"save_txt": True}),
        ("export", {"device": 0}),
        ("val", {"nms": True}),
        ("predict", {"augment": True}),
        ("predict", {"channels_last": False}),
        ("predict", {"retina_masks": True}),
        ("predict", {"epochs": 3}),
        ("export", {"opset": 17}),
        ("export", {"simplify": True}),
        ("train", {"half": True}),
        ("val", {"int8": True}),
    ],
)
def test_refused(mode, given):
    with pytest.raises(UserError, match="does not take it"):
        resolve(mode, {}, given)


@pytest.mark.parametrize("given", [{"augment": False}, {"tracker": None}, {"int8": False}, {"copy_paste": 0}])
def test_what_asks_for_nothing_is_taken(given):
    resolve("predict", {}, given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epochs": "abc"}, "epochs=abc: expected a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"epochs": True}, "epochs=true"),
        ({"epochs": None}, "epochs=null"),
        ({"lr0": "fast"}, "lr0=fast: expected a number of at least 0"),
        ({"lr0": float("nan")}, "lr0=nan"),
        ({"imgsz": [1, 2, 3]}, r"imgsz=\[1, 2, 3\]: expected"),
        ({"imgsz": [96, 96]}, "train takes one number"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"ema": 1}, "ema=1: expected true or false"),
        ({"lr_steps": 8}, "lr_steps=8: expected a list of epochs"),
        ({"lr_steps": [8], "cos_lr": True}, r"cos_lr=true: lr_steps=\[8\] takes its place"),
        ({"warmup_iters": 5, "warmup_epochs": 3}, "warmup_epochs=3: warmup_iters=5 takes its place"),
        ({"decay_all": True, "optimizer": "AdamW"}, "optimizer=AdamW: decay_all=true needs"),
        ({"bias_lr": 2}, "bias_lr=2: it needs decay_all=true; bias_lr=1.0 does nothing"),
        ({"bias_decay": False}, "bias_decay=false: it needs decay_all=true"),
        ({"warmup_constant": True}, "warmup_constant=true: it needs warmup_iters=N"),
        ({"augmentations": "Blur"}, "augmentations=Blur: expected a list"),
        ({"cache": "rma"}, "did you mean 'ram'"),
        ({"classes": [0.5]}, "classes such as ship"),
        ({"task": "segment"}, "task=segment"),
        ({"mode": "val"}, "this is train"),
        ({"model": "tinyyolo-s.yaml"}, r"Model\(...\) takes it"),
        ({"epochs": -1, "lr0": "x"}, "epochs=-1: .*; lr0=x: "),
    ],
)
def test_values_of_the_wrong_kind_are_one_line(given, says):
    with pytest.raises(UserError, match=says) as caught:
        resolve("train", {}, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "given"),
    [
        ("val", {"save_json": False}),
        ("val", {"batch": -1}),
        ("predict", {"save_conf": True}),
        ("val", {"imgsz": [96, 96]}),
    ],
)
def test_values_that_a_mode_would_not_obey(mode, given):
    with pytest.raises(UserError, match=next(iter(given))):
        resolve(mode, {}, given)


class TestFile:
    def test_its_keys_count_and_the_command_line_wins(self, tmp_path):
        file = tmp_path / "my.yaml"
        file.write_text("epochs: 7\nlr0: 1e-3\nbatch: 16\nconf: 0.3\nvid_stride: 2\ndfl: 1.5\n")
        args = resolve("train", {"epochs": 12}, {"cfg": str(file), "lr0": 0.5})
        assert (args["epochs"], args["lr0"], args["batch"], args["conf"]) == (7, 0.5, 16, 0.3)
        assert resolve("predict", {}, {"cfg": str(file)})["vid_stride"] == 2

    def test_a_copy_of_ultralytics_own_file_is_taken(self, tmp_path):
        import ultralytics

        text = (Path(ultralytics.__file__).parent / "cfg" / "default.yaml").read_text()
        (tmp_path / "copy.yaml").write_text(text.replace("epochs: 100", "epochs: 5"))
        assert resolve("train", {}, {"cfg": tmp_path / "copy.yaml"})["epochs"] == 5

    @pytest.mark.parametrize(
        ("text", "says"),
        [("epoch: 3", "my.yaml: epoch: unknown"), ("epochs: x", "my.yaml: epochs=x"), ("dfl: 2", "my.yaml: dfl=2")],
    )
    def test_its_mistakes_name_it(self, tmp_path, text, says):
        (tmp_path / "my.yaml").write_text(text)
        with pytest.raises(UserError, match=says):
            resolve("train", {}, {"cfg": tmp_path / "my.yaml"})

    def test_missing(self):
        with pytest.raises(UserError, match=r"cfg=nowhere\.yaml: no such file"):
            resolve("train", {}, {"cfg": "nowhere.yaml"})
