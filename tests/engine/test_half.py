"""half=true: maps of 16 bits in val, predict and track, and boxes where float32 has them."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.exports import compared, lively
from tests.engine.test_scene_runs import rows_of, scenes
from tests.support.scenes import scene
from tests.test_cuda import CLOSE, detector
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.deploy.write import trials
from tinyyolo.engine.predict.merge import merge
from tinyyolo.export.compare import paired

SHIPPED = "tinyyolo-n.pt"
KEYS = {"imgsz": 64, "conf": 0.01, "save_json": True, "verbose": False}
FILES = {"wide.png": scene(100, 130), "small.png": scene(64, 50, seed=3)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("set") / "s", Model(SHIPPED).names, FILES)


def pair(net):
    """A model of random weights that finds something, or one that has learnt; and the same with half maps."""
    net.eval().requires_grad_(False)
    half = deepcopy(net)
    half.half_maps = True
    return net, half


def random(name):
    net = detector(name)
    lively(net, 0.1)
    return net


@pytest.mark.parametrize(
    ("made", "most"), [(lambda: Model(SHIPPED).model, 0.0), (lambda: random("faster-rcnn-r18-nwdrka"), 0.1)]
)
def test_no_box_moves(made, most):
    """Of random weights `most` of the regions may be others: which of nearly equal ones are the best is chance."""
    net, half = pair(made())
    rules = Postprocess.of({**net.test, "score": 0.02, "iou": 1.0, "votes": 1, "max_det": 1000})
    for images in trials((96, 96))[:2]:
        maps, boxes, scores = half.look(images)
        assert {x.dtype for x in maps} == {torch.float16} and boxes.dtype == scores.dtype == torch.float32
        for one, other in zip(*(rules.of_output(x.predict(images)) for x in (net, half)), strict=True):
            seen = paired(one, other, 0.025)
            assert seen.seen > 10 and 0 < seen.boxes < CLOSE and seen.alone <= most * seen.seen, seen


@pytest.mark.parametrize(("name", "most"), [("tinyyolo-n", 0.003), ("faster-rcnn-r18-nwdrka", 0.01)])
def test_precision_is_what_it_was(name, most):
    """On pictures with noise: equal places score alike, and either may come first; so do regions of random weights."""
    net, half = pair(random(name))
    net.thresholds = half.thresholds = [0.1] * 3
    chance = torch.Generator().manual_seed(0)
    batches = [0.5 * (x + torch.rand(x.shape, generator=chance)) for x in trials((128, 160))[:2]]
    row = compared(net, lambda images, rules: rules.of_output(half.predict(images)), half, batches)
    assert 0.1 < row.own_ap < 0.9 and 0 < abs(row.ap - row.own_ap) < most, row


def test_val_predict_and_track_compute_in_halves(data, capsys, monkeypatch):
    """Scenes in windows and images that are not cut: near what float32 finds, and not the same."""
    monkeypatch.setattr("tinyyolo.io.TOLD", set())
    folder, model = data.parent / "images", Model(SHIPPED)
    model.val(data=str(data), half=True, name="v", plots=False, **KEYS)
    said = "half=true: maps in float16 on cpu, which most processors take longer for than for float32; boxes and"
    assert capsys.readouterr().err.count(said) == 1
    plain, half, again = (model.predict(folder, half=half, **KEYS) for half in (False, True, False))
    for i, found in enumerate(half):
        assert torch.equal(plain[i].boxes.data, again[i].boxes.data), "the kept predictor is as it was"
        seen = paired(*((r.boxes.xyxy, r.boxes.conf, r.boxes.cls) for r in (plain[i], found)), 0.012)
        assert seen.seen > 2 and 0 < seen.boxes < CLOSE and seen.scores > 0 and not seen.alone, seen
        name = Path(found.path).name
        rows = rows_of(Path("runs/v/predictions.json"), 1 + [*FILES].index(name))
        scores = found.boxes.conf.sort().values.numpy()
        np.testing.assert_allclose(sorted(row[-1] for row in rows), scores, rtol=0, atol=1e-6)
        (tracked,) = model.track(folder / name, half=True, **{**KEYS, "save_json": False})
        own, exact, mine = ({*r.boxes.conf.tolist()} for r in (found, plain[i], tracked))
        assert len(mine & own) > 1 and not mine & exact


def test_vectors_of_an_image_are_near():
    image, model = scene(64, 64), Model(SHIPPED)
    (plain,), (half,) = (model.embed(image, half=half, imgsz=64, verbose=False) for half in (False, True))
    assert half.dtype == torch.float32 and not torch.equal(plain, half)
    torch.testing.assert_close(plain, half, rtol=0, atol=1e-2)


def test_shards_and_batches_are_one_run_of_one_precision(data):
    folder, model = data.parent / "images", Model(SHIPPED)
    model.predict(folder, half=True, name="one", batch=4, **KEYS)
    for i in (2, 1):
        model.predict(folder, half=True, shard=f"{i}/2", name="p", **KEYS)
    with pytest.raises(UserError, match=r"1-of-2.parquet: made with half=true where this has false; exist_ok=true"):
        model.predict(folder, shard="1/2", name="p", **KEYS)
    merge("runs/p.shards", json="joined.json")
    assert Path("joined.json").read_bytes() == Path("runs/one/predictions.json").read_bytes()
    model.predict(folder, shard="1/2", name="p", exist_ok=True, **KEYS)
    with pytest.raises(UserError, match=r"made with half=(true|false) where this has"):
        merge("runs/p.shards", json="other.json")
