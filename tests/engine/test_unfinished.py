"""An interrupted prediction of scenes goes on where it was, also by shards, and every file has the same bytes."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from tests.engine.test_scenes import QUIET, model, raster, scene  # noqa: F401 - a fixture
from tests.support.kills import CONTEXT, KILLED, LIMIT, Point, apart, arm
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.datasets.images import save
from tinyyolo.engine.predict.unfinished import STORE, Unfinished, files_of

KEYS = {"imgsz": 64, "conf": 0.3, "name": "p", "project": "runs", "verbose": False}
OUTPUTS = ("save", "save_txt", "save_crop", "save_json", "save_geojson")
WRITTEN = "tinyyolo.engine.predict.results:TinyResults.save_txt"
PUT = "tinyyolo.scenes.bands:Bands.put"  # of a.png 4 rows and their detections, then of b.png


@pytest.fixture(scope="module")
def one_thread():
    """As in the processes of `apart`, which are forks: torch's last bits follow the number of its threads."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ultralytics.utils.torch_utils.NUM_THREADS", 1)  # which every prediction sets anew
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(model, tmp_path_factory, one_thread):  # noqa: F811
    """A folder with weights, two scenes of four and three rows of windows, and runs/p, which nothing interrupted."""
    folder = tmp_path_factory.mktemp("place")
    model.save(folder / "m.pt")
    for name, seed, size in (("a", 0, (150, 130)), ("b", 5, (100, 160))):
        save(folder / "in" / f"{name}.png", scene(*size, seed=seed))
    os.chdir(folder)
    predict(**KEYS, **dict.fromkeys(OUTPUTS, True))
    return folder


@pytest.fixture(autouse=True)
def here(place, tmp_path, monkeypatch):
    """Work in a folder of its own, on the same scenes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").symlink_to(place / "in")
    (tmp_path / "m.pt").symlink_to(place / "m.pt")
    monkeypatch.setattr("tinyyolo.io.TOLD", set())


def predict(point=None, source="in", **keys):
    if point:
        arm(point)
    return len(Model("m.pt").predict(source, **keys))


def interrupted(*words, **keys):
    return apart(told_to, words, {**KEYS, **dict.fromkeys(OUTPUTS, True), **keys})


def told_to(words, keys):
    predict(Point(*words) if words else None, **keys)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_as_never_interrupted(place, again=True):
    if again:
        predict(**KEYS, **dict.fromkeys(OUTPUTS, True))
    assert {path.name for path in Path("runs").iterdir()} - {"p.shards"} == {"p"}, "one run folder, and no store"
    expected = files(place / "runs" / "p")
    assert files(Path("runs/p")) == expected
    assert {"a.jpg", "labels/b.txt", "predictions.json", "a.geojson"} <= expected.keys()


@pytest.mark.parametrize(
    ("where", "call", "when", "left"),
    (
        (PUT, 2, "before", 1),
        (PUT, 3, "behind", 3),
        pytest.param(PUT, 6, "behind", 2, marks=pytest.mark.slow),  # of a.png the detections, of b.png a row
        pytest.param(WRITTEN, 2, "behind", 2, marks=pytest.mark.slow),  # their detections
        ("tinyyolo.engine.predict.unfinished:Unfinished.finish", 1, "before", 2),
    ),
)
def test_killed_and_run_again_is_as_never_killed(place, where, call, when, left):
    assert interrupted(where, call, when) == KILLED
    (store,) = Path("runs").glob(f"{STORE}*")
    assert len([*store.rglob("*.band")]) == left
    assert Path("runs/p/.tinyyolo-unfinished").read_text() == store.name.removeprefix(STORE)
    same_as_never_interrupted(place)


def test_it_says_that_it_goes_on(monkeypatch):
    said = []
    monkeypatch.setattr("tinyyolo.engine.predict.scenes.LOGGER.info", said.append)
    assert interrupted(PUT, 3) == KILLED
    predict(**KEYS, save_txt=True)
    assert [line for line in said if "goes on" in line] == [
        "a.png: goes on, 8 of 16 tiles are done"
    ]  # 4 x 4 windows of 64 px over 130 x 150 px


def test_shards_at_once_and_a_merge(place, monkeypatch):
    keys = {**KEYS, **dict.fromkeys(OUTPUTS, True)}
    halves = [CONTEXT.Process(target=told_to, args=((), {**keys, "shard": f"{i}/2"})) for i in (1, 2)]
    for half in halves:
        half.start()
    for half in halves:
        half.join(LIMIT)
        assert half.exitcode == 0
    (store,) = Path("runs").glob(f"{STORE}*")
    assert len([*store.rglob("*.band")]) == 4 + 3
    monkeypatch.setattr("tinyyolo.engine.predict.scenes.net_of", lambda *_: lambda *_: pytest.fail("looked at again"))
    predict(**keys)
    same_as_never_interrupted(place, again=False)


def test_a_shard_gives_no_result_and_half_of_the_bands():
    assert predict(**KEYS, shard="2/2", save_txt=True) == 0
    bands = [path.relative_to(Path("runs")).parts[1:] for path in Path("runs").rglob("*.band")]
    assert len({scene for scene, _ in bands}) == 2
    assert sorted(name for _, name in bands) == ["0.band", "1.band", "2.band", "3.band"], "b.png's 0, 2, a.png's 1, 3"


def test_a_damaged_band_is_computed_anew(place, capsys):
    predict(**KEYS, shard="1/1", save_txt=True)
    (first, *_, last) = sorted(Path("runs").rglob("*.band"))
    data = bytearray(first.read_bytes())
    data[-3] ^= 1
    first.write_bytes(data)
    last.write_bytes(last.read_bytes()[:50])
    same_as_never_interrupted(place)
    said = capsys.readouterr().err
    assert f"{first.absolute()}: damaged: computed anew" in said and f"{last.absolute()}: damaged" in said


def test_another_parameter_starts_anew_and_says_so(place, capsys):
    assert interrupted(PUT, 3, conf=0.35) == KILLED
    (old,) = Path("runs").glob(f"{STORE}*")
    predict(**KEYS, save_txt=True)
    assert f"{old.absolute()}: unfinished, with conf=0.35 where this run has 0.3" in capsys.readouterr().err
    assert files(Path("runs/p-2"))["labels/a.txt"] == files(place / "runs" / "p")["labels/a.txt"] and old.is_dir()


def test_another_scene_is_looked_at_anew(tmp_path, monkeypatch):
    save(tmp_path / "own" / "a.png", scene(150, 130))
    keys = {**KEYS, "source": "own", "save_txt": True}
    predict(**keys, shard="1/1")
    save(tmp_path / "own" / "a.png", scene(150, 130, seed=8), overwrite=True)
    predict(**keys)
    predict(**keys, exist_ok=False)
    assert files(Path("runs/p"))["labels/a.txt"] == files(Path("runs/p-2"))["labels/a.txt"]


def test_lines_of_a_user_stay(place):
    """exist_ok=true adds to label files that were there, once."""
    Path("runs/p/labels").mkdir(parents=True)
    Path("runs/p/labels/mine.txt").write_text("mine")
    assert interrupted(PUT, 7, exist_ok=True) == KILLED
    predict(**KEYS, **dict.fromkeys(OUTPUTS, True), exist_ok=True)
    assert files(Path("runs/p")) == {**files(place / "runs" / "p"), "labels/mine.txt": b"mine"}


def store(folder, shard=False, **settings):
    return Unfinished(folder, {"source": ["a"], **settings}, shard)


def test_one_writer_or_many_shards(tmp_path, capsys):
    run, twin = store(tmp_path), store(tmp_path)
    run.begin(tmp_path / "p", [])
    twin.begin(tmp_path / "p2", [])
    assert twin.scene(__file__) is None and not (tmp_path / "p2").exists()
    assert "the same run is at work in another process" in capsys.readouterr().err
    with pytest.raises(UserError, match="the run itself is at work: a shard has nothing to add"):
        store(tmp_path, shard=True).begin(tmp_path / "p", [])
    run.release()
    shards = [store(tmp_path, shard=True) for _ in range(2)]
    for shard in shards:
        shard.begin(tmp_path / "p", [])
    with pytest.raises(UserError, match="shards of this run are still at work"):
        store(tmp_path).run_folder(tmp_path / "p2")
    for shard in shards:
        shard.release()
    assert store(tmp_path).run_folder(tmp_path / "p2") == tmp_path / "p"
    assert store(tmp_path, tile=64).run_folder(tmp_path / "p2") == tmp_path / "p2"


def test_a_scene_is_its_mask_too(tmp_path):
    raster(tmp_path / "a.tif", np.zeros((3, 20, 20), np.uint8), photometric="rgb")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.write_mask(np.ones((20, 20), bool))
    names = {path.name for path in files_of(tmp_path / "a.tif")}
    assert names == {"a.tif", "a.tif.msk"}


def test_a_scene_that_is_cut_short_does_not_stop_the_others(tmp_path):
    for name in ("1.tif", "2.tif"):
        bands = np.random.default_rng(0).integers(0, 255, (3, 1100, 120), dtype=np.uint8)
        raster(tmp_path / name, bands, photometric="rgb", tiled=True, blockxsize=64, blockysize=64)
    os.truncate(tmp_path / "1.tif", 150_000)
    slim = Model("m.pt")
    found = slim.predict([tmp_path / "1.tif", tmp_path / "2.tif"], **{**KEYS, "conf": 0.9}, save_txt=True)
    assert [Path(result.path).name for result in found] == ["2.tif"]
    (fault,) = slim.predictor.bad_images
    assert fault.startswith(str(tmp_path / "1.tif")) and "not readable as a raster" in fault
    assert [path.name for path in Path("runs").iterdir()] == ["p"]
    with pytest.raises(UserError, match=re.escape("1.tif")):
        slim.predict(tmp_path / "1.tif", **KEYS)


@pytest.mark.parametrize("shard", ("3/2", "0/2", "1", 0.5, "-1/2", "0/0"))
def test_what_is_no_shard(shard):
    with pytest.raises(UserError, match=r"shard=.*i/n, such as 1/2 and 2/2"):
        predict(shard=shard, **KEYS)


def test_the_batch_changes_nothing(place):
    one, five = (Model("m.pt").predict("in", imgsz=64, conf=0.3, batch=batch, **QUIET) for batch in (1, 5))
    for a, b in zip(one, five, strict=True):
        assert len(a) and torch.equal(a.boxes.data, b.boxes.data)
