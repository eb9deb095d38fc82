"""SIGKILL at chosen points of a run: what is resumed equals what was never killed, to the last bit."""

import os

import pytest

from tests.engine.test_engine import TINY
from tests.support.kills import KILLED, Point, apart, go_on, same_runs, train
from tests.support.sets import write_set

TRAINER, STEPS = "tinyyolo.engine.trainer:TinyTrainer", "tinyyolo.engine.steps:SteppedTrainer"
VALIDATOR, SAVE = "tinyyolo.engine.validator:TinyValidator", "tinyyolo.engine.checkpoint:save"
# Two epochs of three batches with a checkpoint after each batch. Checkpoints are written in this order: two inside the
# first epoch, its best.pt and last.pt, the same of the second epoch, then best.pt and last.pt without what resumes.
POINTS = {
    "before anything is saved": Point(f"{STEPS}.optimizer_step", 1),
    "inside the write of a checkpoint inside an epoch": Point("torch:save", 2, "half"),
    "inside the write of an epoch's checkpoint": Point("torch:save", 4, "half"),
    "between write and rename": Point("os:fsync", 4, "behind"),
    "between best.pt and last.pt": Point(SAVE, 3, "behind"),
    "between the row of results.csv and the checkpoint": Point(f"{TRAINER}.save_metrics", 2, "behind"),
    "inside an epoch": Point(f"{STEPS}.optimizer_step", 5),
    "in the validation of an epoch": Point(f"{VALIDATOR}.get_stats", 2),
    "behind the last epoch's checkpoint": Point(f"{TRAINER}.save_model", 2, "behind"),
    "in the final evaluation": Point(f"{VALIDATOR}.get_stats", 3),
    "while its pictures are drawn": Point(f"{VALIDATOR}.draw", 1),
    "before the curves are drawn": Point("tinyyolo.plots:training_curves", 1),
    "between the last two checkpoints": Point(SAVE, 9, "behind"),
    "inside the write of the last one": Point("torch:save", 10, "half"),
}
MODELS = {
    "tinyyolo-n": TINY,
    "faster-rcnn-r18-nwdrka": {"backbone.depth": 10, "neck.channels": 16, "rpn.proposals": 40, "roi.channels": 32},
}
KEYS = {"imgsz": 64, "batch": 2, "epochs": 2, "save_every": 1, "plots": True, "val": True, "select": "best"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=MODELS)
def whole(request, tmp_path_factory):
    """A model, its overrides, the keys of its runs, and the run that nobody killed, in a folder of its own."""
    folder = tmp_path_factory.mktemp("kills")
    before = os.getcwd()
    os.chdir(folder)
    data = write_set(folder / "set", size=64)
    keys = {"data": str(data), "project": str(folder / "runs"), **KEYS}
    assert apart(train, request.param, MODELS[request.param], {**keys, "name": "whole"}) == 0
    os.chdir(before)
    return folder, request.param, MODELS[request.param], keys


@pytest.mark.parametrize("point", POINTS)
def test_resumed_equals_one_that_was_not_killed(whole, point, monkeypatch):
    folder, model, overrides, keys = whole
    monkeypatch.chdir(folder)
    name = point.replace(" ", "-")
    keys = {**keys, "name": name}
    assert apart(train, model, overrides, keys, 0, POINTS[point]) == KILLED, "it never came to that point"
    go_on(model, overrides, keys)
    same_runs(folder / "runs" / name, folder / "runs" / "whole")
