"""Shards of a prediction, joined, are one run, to the byte, whatever order they come in."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from tests.engine.test_scenes import model, raster  # noqa: F401 - a fixture
from tests.engine.test_unfinished import KEYS, PUT, files, interrupted, one_thread  # noqa: F401 - a fixture
from tests.support.kills import KILLED
from tests.support.scenes import scene
from tinyyolo import Model
from tinyyolo.cli import main
from tinyyolo.config import UserError
from tinyyolo.datasets.formats.tables import shards
from tinyyolo.datasets.images import save
from tinyyolo.engine.predict import merge as module
from tinyyolo.engine.predict.merge import merge
from tinyyolo.evaluation import evaluate

MAPS = ("boxes.geojson", "boxes.parquet")
SIZES = [(60, 50), (150, 130), (100, 40), (64, 64), (40, 120), (130, 60), (60, 60), (98, 30)]


@pytest.fixture(scope="module")
def place(model, tmp_path_factory, one_thread):  # noqa: F811
    """Weights, nine images in two folders, some cut into windows, one with a place on the map, one that is none, and
    what one run makes of them."""
    folder = tmp_path_factory.mktemp("place")
    model.save(folder / "m.pt")
    for i, size in enumerate(SIZES):
        save(folder / "in" / "ab"[i % 2] / f"{i // 2}.png", scene(*size, seed=i))
    (folder / "in" / "a" / "none.png").write_bytes(b"none")
    bands = scene(150, 130, seed=9)[..., ::-1].transpose(2, 0, 1)
    made = {"photometric": "rgb", "crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}
    raster(folder / "in" / "c.tif", np.ascontiguousarray(bands), **made)
    with rasterio.open(folder / "in" / "c.tif") as file:
        assert file.crs
    os.chdir(folder)
    run()
    return folder


@pytest.fixture(autouse=True)
def here(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in", "m.pt"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.setattr("tinyyolo.io.TOLD", set())


def run(**keys):
    return Model("m.pt").predict("in", **{**KEYS, "save_json": True, "out": list(MAPS), **keys})


def shared(count, name="p", **keys):
    for i in (*range(2, count + 1), 1):
        assert run(**keys, name=name, out=None, shard=f"{i}/{count}") == []
    return Path(f"runs/{name}.shards")


def equal_to_one_run(place):
    assert Path("runs/p/predictions.json").read_bytes() == (place / "runs/p/predictions.json").read_bytes()
    for name in MAPS:
        assert Path(name).read_bytes() == (place / name).read_bytes()


def test_rows_are_candidates_until_they_are_joined(place, caplog):
    run(shard="1/3", out=None, verbose=True)
    told = [line for line in caplog.messages if line.startswith("image ")]
    assert any(re.search(r"[1-9][\d,]* candidates? in its rows, not joined yet", line) for line in told), told


@pytest.mark.parametrize("count", (2, 3))  # of ten images, which are fewer than 4 x 3: of three each has rows of them
def test_shards_are_one_run(place, count, capsys, caplog):
    folder = shared(count)
    assert sorted(path.name for path in folder.iterdir()) == [f"{i}-of-{count}.parquet" for i in range(1, count + 1)]
    merge(*reversed(sorted(folder.iterdir())), out=list(MAPS))
    equal_to_one_run(place)
    assert {path.name for path in Path("runs").iterdir()} == {"p", "p.shards"}, "no store is left"
    assert "none.png" in caplog.text and f"Joined {count} shards of 9 images" in capsys.readouterr().out


def test_batches_stay_together(place):
    """Images of a batch are looked at together, and a shard has whole ones."""
    run(batch=2, name="two")
    merge(shared(1, batch=2), json="one.json")
    merge(shared(2, batch=2, name="four"), json="two.json")
    assert Path("runs/two/predictions.json").read_bytes() == Path("two.json").read_bytes()
    assert Path("one.json").read_bytes() == Path("two.json").read_bytes()


def test_a_killed_shard_has_the_same_bytes(place):
    run(shard="1/2")
    expected = Path("runs/p.shards/1-of-2.parquet").read_bytes()
    shutil.rmtree("runs")
    assert interrupted(PUT, 4, "behind", shard="1/2") == KILLED
    assert not Path("runs/p.shards").exists() or not [*Path("runs/p.shards").glob("*.parquet")]
    run(shard="1/2")
    assert Path("runs/p.shards/1-of-2.parquet").read_bytes() == expected


def test_a_shard_that_is_done_is_not_done_again(monkeypatch):
    run(shard="1/2")
    before = files(Path("runs/p.shards"))
    monkeypatch.setattr("tinyyolo.engine.predict.scenes.net_of", lambda *_: lambda *_: pytest.fail("looked at again"))
    assert run(shard="1/2") == [] and files(Path("runs/p.shards")) == before
    with pytest.raises(UserError, match=r"1-of-2.parquet: made with conf=0.3 where this has 0.5; exist_ok=true"):
        run(shard="1/2", conf=0.5)


def test_missing_and_double_shards_are_named(tmp_path):
    folder = shared(2)
    with pytest.raises(UserError, match=r"shard 1 of 2 is missing: run predict with shard=1/2"):
        merge(folder / "2-of-2.parquet")
    shutil.copytree(folder, tmp_path / "again")
    with pytest.raises(UserError, match=r"shard 1 is there twice: .*p.shards/1-of-2.* and .*again/1-of-2"):
        merge(folder, tmp_path / "again")
    run(shard="1/2", name="other", conf=0.5)
    with pytest.raises(UserError, match=r"made with (name=p|conf=0.3) where this has"):
        merge("runs/other.shards", folder)
    run(shard="1/3")
    with pytest.raises(UserError, match="shards of 3 and of 2"):
        merge(folder)
    with pytest.raises(UserError, match="there are no shards"):
        merge("in")
    assert not Path("runs/p").exists()


def test_what_is_not_written_is_told(caplog):
    run(shard="1/2", save_txt=True)
    assert "shard=1/2: no save_txt= save_json= out= of a shard" in caplog.text
    assert not [*Path("runs").rglob("*.txt")]


def test_the_command(place, capsys):
    shared(2)
    assert main(["merge", "runs/p.shards", "out=[boxes.geojson,boxes.parquet]"]) == 0
    equal_to_one_run(place)
    assert (
        main(["merge", "runs/p.shards"]) == 2 and "predictions.json: exists; exist_ok=true" in capsys.readouterr().err
    )
    assert main(["merge"]) == 2 and "no shards are named" in capsys.readouterr().err
    assert main(["merge", "m.pt"]) == 2 and "m.pt: not readable as Parquet" in capsys.readouterr().err


def test_evaluate_reads_whole_images_of_shards_alone(place):
    names = {row["category_name"] for row in shards.parse_json((place / "runs/p/predictions.json").read_bytes(), place)}
    gt = {"images": [], "categories": [{"id": i, "name": name} for i, name in enumerate(sorted(names), 1)]}
    gt["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 9, 9], "area": 81, "iscrowd": 0}]
    for i, path in enumerate(sorted(Path("in/").rglob("*.*")), 1):
        gt["images"].append({"id": i, "file_name": path.relative_to("in").as_posix()})
    one, many = evaluate(gt, place / "runs/p/predictions.json"), evaluate(gt, shared(2))
    assert str(one) == str(many)
    with pytest.raises(UserError, match="no detections yet: `tinyyolo merge` joins them"):
        evaluate(gt, shared(3, name="three"))


def test_no_video_in_shards(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"shard=1/2: of images alone; .*v.mp4 is a video"):
        Model("m.pt").predict([tmp_path / "v.mp4"], **KEYS, shard="1/2")
    with pytest.raises(UserError, match="shard=1/2: of image files alone"):
        Model("m.pt").predict(scene(150, 150), **KEYS, shard="1/2")


def test_without_pyarrow(monkeypatch):
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"shard=1/2 needs the package pyarrow: pip install 'tinyyolo\[geo\]'"):
        run(shard="1/2", out=None)
    assert module.RESULTS == "predictions.json"
