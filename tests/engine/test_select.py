"""Which epoch becomes best.pt, and what a table says that was chosen on its own split."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from tests.engine.test_engine import RUN, TINY, trained
from tests.support.sets import write_set
from tinyyolo import Model
from tinyyolo.config import UserError, load_model_yaml, yaml_names
from tinyyolo.engine import checkpoint
from tinyyolo.engine.arguments import resolve
from tinyyolo.engine.prepare import data_dict

CHOSEN = "these weights are the best of 2 epochs on this very split"
PUBLISHED = [name for name in yaml_names("cfg/models") if load_model_yaml(name).get("published")]


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("tinyyolo.engine.validator.LOGGER.info", lines.append)
    return lines


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Train and test without val, and the YAML of the same with val."""
    root = tmp_path_factory.mktemp("select")
    with_val = write_set(root, counts={"train": 4, "val": 2})
    content = yaml.safe_load(with_val.read_text())
    content["test"] = content.pop("val")
    content["annotations"]["test"] = content["annotations"].pop("val")
    without = root / "test.yaml"
    without.write_text(yaml.safe_dump(content))
    return with_val, without


def test_the_last_epoch_is_kept_and_looked_at_once(sets, tmp_path, said):
    model = trained(sets[1], epochs=2, select="last", val=False, project=str(tmp_path))
    folder = Path(model.trainer.save_dir)
    best, last = (checkpoint.load(folder / "weights" / name) for name in ("best.pt", "last.pt"))
    assert best["epoch"] == last["epoch"] == 1
    for name, tensor in last["model"].items():
        torch.testing.assert_close(best["model"][name], tensor, rtol=0, atol=0)
    rows = [row["metrics/AP"] for row in csv.DictReader((folder / "results.csv").open())]
    assert [math.isnan(float(value)) for value in rows] == [True, False]
    assert model.metrics.AP >= 0 and model.trainer.best == Path(model.ckpt_path)
    assert not [line for line in said if "very split" in str(line)]
    assert "best_of_epochs_on_this_split" not in json.loads((folder / "metrics.json").read_text())


def test_a_better_epoch_before_the_last_is_not_kept(sets, tmp_path, monkeypatch):
    """The figure of the first epoch is made the highest; val=true looks at each."""
    monkeypatch.setattr("tinyyolo.engine.validator.TinyMetrics.fitness", property(lambda self: next(falling)))
    falling = iter([0.9, 0.1, 0.1])
    model = trained(sets[0], epochs=2, select="last", project=str(tmp_path))
    assert checkpoint.load(model.trainer.best)["epoch"] == 1


def test_a_table_of_the_split_that_chose_says_so(sets, tmp_path, said):
    model = trained(sets[0], epochs=2, project=str(tmp_path))
    assert len([line for line in said if CHOSEN in str(line)]) == 1
    folder = Path(model.trainer.save_dir)
    assert json.loads((folder / "metrics.json").read_text())["best_of_epochs_on_this_split"] == 2
    for weights, data, split, told in (
        ("best.pt", sets[0], "val", True),
        ("best.pt", sets[1], "test", False),
        ("last.pt", sets[0], "val", False),
    ):
        said.clear()
        Model(folder / "weights" / weights).val(data=data, split=split, plots=False, project=str(tmp_path))
        assert any(CHOSEN in str(line) for line in said) == told, (weights, split)


def test_without_val_the_test_set_is_looked_at_and_that_is_told(sets, monkeypatch):
    lines = []
    monkeypatch.setattr("tinyyolo.engine.prepare.tell", lines.append)
    assert data_dict(str(sets[0]))["val"] == "val" and not lines
    assert data_dict(str(sets[1]))["val"] == "test"
    assert lines == [f"{sets[1]}: no split val: validation looks at test"]
    assert data_dict("AI-TOD-v2.yaml")["val"] == "test" and data_dict("AI-TOD-v2-dev.yaml")["val"] == "val"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rows_choose_nothing_and_lie_in_the_corner(name):
    spec = load_model_yaml(name)
    args = resolve("train", spec["train"], {})
    assert (args["select"], args["val"], spec["pad"]) == ("last", False, "corner")


def test_patience_and_the_last_epoch_do_not_go_together(sets, tmp_path):
    with pytest.raises(UserError, match="patience=3: select=last goes through all epochs; select=best stops"):
        trained(sets[0], select="last", patience=3)
    with pytest.raises(UserError, match=r"select=first: unknown; .*Choices: best, last"):
        trained(sets[0], select="first")
    assert resolve("train", {"select": "last"}, {"patience": 0})["patience"] == 0


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_its_last_epoch(sets, tmp_path):
    whole = trained(sets[0], epochs=2, select="last", val=False, project=str(tmp_path), name="whole")
    victim = Model("tinyyolo-n.yaml", overrides=TINY)

    def kill(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    victim.add_callback("on_train_epoch_start", kill)
    more = {"epochs": 2, "select": "last", "val": False, "project": str(tmp_path), "name": "victim"}
    with pytest.raises((KeyboardInterrupt, SystemExit, UserError)):
        victim.train(data=sets[0], **{**RUN, **more})
    last = tmp_path / "victim" / "weights" / "last.pt"
    with pytest.raises(UserError, match="patience=5: select=last"):
        Model(last).train(resume=True, patience=5)
    resumed = Model(last)
    resumed.train(resume=True)
    a, b = (checkpoint.load(one.trainer.best)["model"] for one in (whole, resumed))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)
