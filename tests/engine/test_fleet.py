"""`engine=ray`: actors find what the one process finds, whatever happens to them."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.test_scenes import model, raster  # noqa: F401 - a fixture
from tests.engine.test_unfinished import KEYS, one_thread  # noqa: F401 - a fixture
from tests.support.scenes import scene
from tinyyolo import Model
from tinyyolo.cli import main
from tinyyolo.config import UserError
from tinyyolo.datasets.images import save
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.predict import fleet
from tinyyolo.engine.predict.fleet import NO_BAND, Fleet, Looker, Memory
from tinyyolo.engine.predict.scenes import as_rows, look_at
from tinyyolo.scenes.bands import rows_of
from tinyyolo.scenes.picture import Picture
from tinyyolo.scenes.rendering import AS_DECLARED
from tinyyolo.scenes.tiling import Tiling

SCENES = 20
TILING = Tiling(64, 64, True, 10, 1.0, 32)


def rest():
    rules = Postprocess(score=0.4)
    return {"threads": 1, "device": "cpu", "tiling": TILING, "rules": rules, "batch": 1, "rendering": AS_DECLARED}


def tasks(*rows):
    return {
        name: np.array(column) for name, column in zip(("path", "start", "stop"), zip(*rows, strict=True), strict=True)
    }


def test_an_actor_finds_what_the_one_process_finds(model, tmp_path, one_thread):  # noqa: F811
    save(tmp_path / "a.png", scene(150, 130))
    (tmp_path / "b.png").write_bytes(b"none")
    found = Looker(model.model, rest())(tasks((str(tmp_path / "a.png"), 1, 3), (str(tmp_path / "b.png"), 0, 1)))
    assert found["path"] == [str(tmp_path / "a.png")] * 2 + [str(tmp_path / "b.png")]
    assert found["band"] == [1, 2, NO_BAND] and "b.png" in found["fault"][2]
    bands = Memory()
    with torch.inference_mode():
        look_at(TILING, Looker(model.model, rest()).model, rest()["rules"], Picture(scene(150, 130)), 1, bands)
    assert len(bands.held) == len(rows_of(TILING.windows((150, 130)))) == 4
    for band, rows in zip((1, 2), found["rows"], strict=False):
        assert rows == as_rows(bands.held[band][0]).numpy().tobytes() and len(rows)


def test_tasks_are_rows_of_scenes_that_are_not_there_yet(model, tmp_path, monkeypatch):  # noqa: F811
    for name, size in (("a", (150, 130)), ("b", (60, 60)), ("c", (150, 130))):
        save(tmp_path / f"{name}.png", scene(*size))
    monkeypatch.setattr(fleet, "AT_LEAST", 8)  # two rows of four windows
    made = Fleet(Looker(model.model, rest()).model, TILING, rest()["rules"], 1, AS_DECLARED, None)
    known = Memory()
    for band in (0, 1, 3):
        known.held[band] = None, 0  # something
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    listed = made.tasks(paths, lambda path: known if path == paths[0] else None)
    assert listed == [
        {"path": paths[0], "start": 2, "stop": 4},
        {"path": paths[2], "start": 0, "stop": 2},
        {"path": paths[2], "start": 2, "stop": 4},
    ]
    assert made.missing == {paths[0]: 2, paths[2]: 4}
    made.close()


@pytest.mark.parametrize(
    ("there", "device", "threads", "actors", "needs"),
    (
        ({"CPU": 8}, "cpu", 2, None, {"concurrency": 4, "num_cpus": 2}),
        ({"CPU": 2}, "cpu", 4, None, {"concurrency": 1, "num_cpus": 2}),
        ({"CPU": 2}, "cpu", 1, 3, {"concurrency": 3, "num_cpus": 2 / 3}),
        ({"CPU": 8, "GPU": 4}, "cuda", 8, None, {"concurrency": 4, "num_gpus": 1}),
        ({"CPU": 8, "GPU": 1}, "cuda", 8, 2, {"concurrency": 2, "num_gpus": 0.5}),
    ),
)
def test_what_actors_need(model, there, device, threads, actors, needs):  # noqa: F811
    made = Fleet(Looker(model.model, rest()).model, TILING, rest()["rules"], 1, AS_DECLARED, actors)
    made.rest |= {"device": device, "threads": threads}
    assert made.needs(there) == needs
    made.close()


def test_no_gpu_in_the_cluster(model):  # noqa: F811
    made = Fleet(Looker(model.model, rest()).model, TILING, rest()["rules"], 1, AS_DECLARED, None)
    made.rest["device"] = "cuda"
    with pytest.raises(UserError, match="engine=ray device=cuda: the cluster has no GPU"):
        made.needs({"CPU": 2})
    made.close()


@pytest.mark.parametrize(
    ("words", "said"),
    (
        (["engine=dask"], "engine=dask: unknown; Choices: ray"),
        (["engine=ray", "actors=0"], "actors=0: expected"),
        (["engine=ray"], "engine=ray needs the package ray: pip install 'tinyyolo[ray]'"),
    ),
)
def test_what_is_told_before_the_work(tmp_path, monkeypatch, capsys, words, said):
    save(tmp_path / "a.png", scene(60, 60))
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)
    assert main(["predict", "source=a.png", "model=tinyyolo-n.pt", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def place(model, tmp_path_factory, one_thread):  # noqa: F811
    """Weights, twenty scenes, one of which is cut short, a small image, and what one process makes of them."""
    pytest.importorskip("ray", reason="engine=ray needs the package ray")
    folder = tmp_path_factory.mktemp("place")
    model.save(folder / "m.pt")
    for i in range(SCENES):
        save(folder / "in" / f"{i:02}.png", scene(130 + i, 150, seed=i))
    save(folder / "in" / "small.png", scene(60, 60))
    bands = np.random.default_rng(0).integers(0, 255, (3, 1100, 120), dtype=np.uint8)
    raster(folder / "in" / "cut.tif", bands, photometric="rgb", tiled=True, blockxsize=64, blockysize=64)
    os.truncate(folder / "in" / "cut.tif", 150_000)
    os.chdir(folder)
    predict()
    return folder


def predict(**keys):
    slim = Model("m.pt")
    slim.predict("in", **{**KEYS, "save_json": True, "out": "boxes.geojson", **keys})
    return slim.predictor


def workers():
    """The processes of actors."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"Looker" in path.read_bytes():
                yield int(path.parent.name)
        except OSError:  # it has ended
            continue


@pytest.mark.slow
@pytest.mark.parametrize("killed", (False, True))
def test_two_actors_give_the_same_bytes(place, tmp_path, monkeypatch, killed, capfd, caplog):
    for name in ("in", "m.pt"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinyyolo.io.TOLD", set())
    (tmp_path / "t").mkdir()
    take, seen = Fleet.take, []

    def taken(self, row):
        seen.append(row["path"])
        if killed and len(seen) == 5:
            pid = min(workers())
            os.kill(pid, signal.SIGKILL)
            seen.append(pid)
        take(self, row)

    monkeypatch.setattr(Fleet, "take", taken)
    before = set(Path("/tmp").glob("ray*"))
    predictor = predict(engine="ray", actors=2)
    # What an actor says of the damaged one may come after the run has found it out itself.
    names = {Path(path).name for path in seen if isinstance(path, str)} - {"cut.tif"}
    assert names == {f"{i:02}.png" for i in range(SCENES)}
    assert any(isinstance(path, int) for path in seen) == killed
    for name in ("runs/p/predictions.json", "boxes.geojson"):
        assert Path(name).read_bytes() == (place / name).read_bytes()
    assert [Path(line.split(":")[0]).name for line in predictor.bad_images] == ["cut.tif"]
    assert set(Path("/tmp").glob("ray*")) == before, "nothing is left behind"
    end = time.monotonic() + 20
    while [*workers()] and time.monotonic() < end:  # they go when they have seen that their raylet is gone
        time.sleep(0.2)
    assert not [*workers()]
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
    assert "engine=ray: 1 of 22 images are not cut into tiles: looked at here" in caplog.text
