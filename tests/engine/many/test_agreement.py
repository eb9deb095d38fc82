"""What two processes decide for themselves, they decide alike: when to stop, anchors; and that their number is told."""

import json
import logging
from pathlib import Path

import pytest
import torch
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from tests.engine.many.test_processes import KEYS, SGD, draw
from tests.engine.test_engine import TINY
from tests.support.kills import KILLED, Point, arm, rows, same
from tests.support.processes import by_all
from tests.support.sets import write_set
from tinyyolo import Model
from tinyyolo.engine import checkpoint

pytestmark = pytest.mark.slow
EPOCHS = 5
LINE = "what follows is right, but not the same to the bit"


def learn(model, overrides, keys, point=None):
    """Train or resume; where it ended and with which anchors goes to keys["name"].json."""
    if point:
        arm(point)
    out = Model(model, overrides=overrides)
    told = []
    out.add_callback("on_train_start", lambda t: told.append(unwrap_model(t.model).yaml["head"]["anchors"]))
    said = logging.Handler()
    said.emit = lambda record: told.append(record.getMessage()) if LINE in record.getMessage() else None
    LOGGER.addHandler(said)
    out.train(**keys)
    trainer = out.trainer
    held = {"epoch": trainer.epoch, "best": trainer.stopper.best_epoch, "fitness": float(trainer.best_fitness)}
    Path(f"{trainer.save_dir.name}.json").write_text(json.dumps({**held, "anchors": told.pop(), "told": told}))


def of_ranks(name):
    return [json.loads(path.read_text()) for path in (Path(f"{name}.json"), Path("rank1", f"{name}.json"))]


def test_both_stop_at_the_same_epoch(tmp_path, monkeypatch):
    """From weights that find something, by steps that change nothing but what the norms have seen."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path)
    data = tmp_path / "data.yaml"
    data.write_text(data.read_text().replace("val: .", "train: .\nval: .").replace("{val:", "{train: val.json, val:"))
    keys = {**KEYS, **SGD, "imgsz": 128, "batch": 8, "lr0": 1e-9, "epochs": EPOCHS, "patience": 1}
    keys |= {"data": str(data), "project": str(tmp_path / "runs"), "name": "two", "pretrained": "tinyyolo-n.pt"}
    assert by_all(2, learn, "tinyyolo-n.yaml", {}, keys) == [0, 0]
    one, other = of_ranks("two")
    assert one == other and one["fitness"] > 0
    _, *lines = rows(tmp_path / "runs" / "two")
    assert len(lines) == one["epoch"] + 1 == one["best"] + 1 < EPOCHS, "one epoch without a better AP"


def test_anchors_are_those_of_one_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_set(tmp_path / "set", size=64, counts={"train": 6, "val": 2})
    keys = {**KEYS, **SGD, "data": str(data), "project": str(tmp_path / "runs"), "pretrained": False}
    for count, name in ((1, "one"), (2, "two")):
        assert (
            by_all(count, learn, "tinyyolo-n.yaml", {**TINY, "head.anchors": "auto"}, {**keys, "name": name})
            == [0] * count
        )
    alone, (one, other) = json.loads(Path("one.json").read_text()), of_ranks("two")
    assert one["anchors"] == other["anchors"] == alone["anchors"]
    assert len(alone["anchors"]) == 3 and alone["anchors"][0][0][0] > 0, "settled: (w, h) of each level"
    specs = [checkpoint.load(Path("runs", name, "weights", "last.pt"))["yaml"] for name in ("one", "two")]
    same(specs[1]["head"]["anchors"], specs[0]["head"]["anchors"], "anchors")


def test_another_number_of_processes_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_set(tmp_path / "set", size=64, counts={"train": 4, "val": 2})
    keys = {**KEYS, **SGD, "data": str(data), "epochs": 2, "name": "one", "pretrained": False, "save_every": 1}
    keys |= {"project": str(tmp_path / "runs")}
    step = Point("tinyyolo.engine.steps:SteppedTrainer.optimizer_step", 2)
    assert by_all(1, learn, "tinyyolo-n.yaml", TINY, keys, step) == [KILLED]
    last = str(tmp_path / "runs" / "one" / "weights" / "last.pt")
    assert by_all(2, learn, "tinyyolo-n.yaml", {}, {"resume": last}) == [0, 0]
    one, other = of_ranks("one")
    (line,), _ = one.pop("told"), other.pop("told")  # a fork's logger is that of its parent, which was no rank
    assert line.endswith(f"2 processes, 1 when it was saved: {LINE}")
    assert one == other and one["epoch"] == 1
    assert torch.load(last, weights_only=True)["resume"] is None
