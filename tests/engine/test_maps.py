"""`out=` of predict, and what a result says of its place."""

import os

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine.predict.maps import checked, maps_of
from tinyyolo.engine.predict.results import SHOWN, TinyResults, scene_result
from tinyyolo.engine.predict.scenes import load
from tinyyolo.engine.predictor import TinyPredictor

NAMES = {0: "ship", 1: "car"}
ROWS = torch.tensor([[10.0, 20.0, 30.0, 45.0, 0.9, 1.0], [0.0, 0.0, 8.0, 6.0, 0.5, 0.0]])


def picture(path, crs="EPSG:32633", size=(64, 96)):
    """A GeoTIFF of half a metre a pixel whose left upper corner is at 500000, 5000000."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": size[0], "width": size[1]}
    place = {"crs": crs, "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)} if crs else {}
    with rasterio.open(path, "w", **profile, photometric="rgb", **place) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (3, *size), dtype=np.uint8))
    return str(path)


def result(path, rows=ROWS):
    return TinyResults(np.zeros((64, 96, 3), np.uint8), str(path), NAMES, boxes=rows)


@pytest.fixture
def predict(monkeypatch):
    """predict of a network that finds ROWS in every picture."""
    model = Model("tinyyolo-n.yaml")

    def postprocess(self, preds, img, orig_imgs, **_):
        return [result(path) for path in self.batch[0]]

    monkeypatch.setattr("tinyyolo.engine.predictor.TinyPredictor.postprocess", postprocess)
    return lambda source, **keys: model.predict(source, imgsz=64, verbose=False, **keys)


def test_one_file_of_all_images(predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/sub").mkdir(parents=True)
    picture(tmp_path / "in/a.tif")
    picture(tmp_path / "in/sub/a.tif")
    predict("in", out="[maps/all.gpkg, all.csv]", project=str(tmp_path), name="run")
    frame = geopandas.read_file("maps/all.gpkg")
    assert frame["scene"].tolist() == ["a.tif"] * 2 + ["sub/a.tif"] * 2
    assert frame["class"].tolist() == ["car", "ship"] * 2 and frame["class_index"].tolist() == [1, 0] * 2
    # x from 10 / 2 to 30 / 2, y from 20 / 2 to 45 / 2 m
    assert frame.geometry[0].bounds == (500_005, 4_999_977.5, 500_015, 4_999_990) and frame.crs == "EPSG:32633"
    assert abs(frame["width_m"][0] - 10) < 0.01 and abs(frame["height_m"][0] - 12.5) < 0.01
    assert (tmp_path / "all.csv").read_text().count("\n") == 5 and not (tmp_path / "run").exists()


def test_what_is_wrong_is_told_before_the_work(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tinyyolo.engine.predictor.TinyPredictor.stream_inference", lambda *_, **__: pytest.fail("work")
    )
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    source = picture(tmp_path / "a.tif")
    for out, said in {
        "boxes.shp": r"boxes\.shp: unknown form '\.shp'; .*\.geojson, \.gpkg",
        "there.csv": r"there\.csv: exists; exist_ok=true replaces it",
        "folder.csv": r"folder\.csv: is a folder; expected a file such as folder\.csv/boxes\.csv",
        "a.tif/boxes.csv": r"boxes\.csv: nothing can be written to .*a\.tif: Not a directory",
    }.items():
        with pytest.raises(UserError, match=said):
            predict(source, out=str(tmp_path / out))
    with pytest.raises(UserError, match="named twice"):
        predict(source, out=[tmp_path / "a.csv", tmp_path / "a.csv"])
    with pytest.raises(UserError, match="unknown form ''"):
        predict(source, out=5)
    with pytest.raises(UserError, match=r"embed=\[0\]: gives vectors, in Python; out= needs detections"):
        predict(source, out=tmp_path / "b.csv", embed=[0])
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "folder.csv", "there.csv"]


def test_a_file_that_is_there_is_replaced_if_asked(predict, tmp_path):
    (tmp_path / "a.csv").write_text("old")
    predict(picture(tmp_path / "a.tif"), out=tmp_path / "a.csv", exist_ok=True)
    assert (tmp_path / "a.csv").read_text().startswith("WKT,class,class_index,score,x1,y1,x2,y2,width_m,height_m,scene")


def test_whole_or_not_at_all(predict, tmp_path, monkeypatch):
    """A run that fails leaves the older file; one whose consumer stops early leaves what it has seen."""
    path, sources = tmp_path / "a.csv", [picture(tmp_path / f"{i}.tif") for i in range(4)]
    path.write_text("old")
    keys = {"out": path, "exist_ok": True, "stream": True}
    with monkeypatch.context() as patch:
        patch.setattr("tinyyolo.engine.predictor.TinyPredictor.preprocess", interrupted(after=2))
        running = predict(sources, **keys)
        next(running)
        next(running)
        with pytest.raises(KeyboardInterrupt):
            next(running)
    assert path.read_text() == "old" and len(os.listdir(tmp_path)) == 5
    running = predict(sources, **keys)
    next(running)
    next(running)
    running.close()
    assert path.read_text().count("\n") == 1 + 2 * len(ROWS)
    assert [row.rpartition(",")[2] for row in path.read_text().splitlines()[-3:]] == ["0.tif", "1.tif", "1.tif"]


def interrupted(after):
    """preprocess of a predictor that is interrupted after so many batches."""
    whole, calls = TinyPredictor.preprocess, []

    def preprocess(self, images):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return whole(self, images)

    return preprocess


def test_a_video_has_no_map(tmp_path, capsys):
    with maps_of([tmp_path / "a.csv"]) as maps:
        maps.add(result(tmp_path / "film.mp4"), "film")
    assert "out=: not of videos such as" in capsys.readouterr().err and not (tmp_path / "a.csv").exists()


def test_names_are_text():
    assert [path.name for path in checked("results #2: b.csv", False)] == ["results #2: b.csv"]


def test_a_result_knows_its_place(tmp_path):
    found = result(picture(tmp_path / "a.tif"))
    assert found.geo.known and found.geo.transform == (0.5, 0, 500_000, 0, -0.5, 5_000_000)
    part = found[:1].cpu()
    assert type(part) is TinyResults and part.geo.known and len(part) == 1
    frame = part.to_geodataframe()
    assert frame.crs == "EPSG:32633" and frame.geometry[0].bounds == (500_005, 4_999_977.5, 500_015, 4_999_990)
    assert frame["scene"].tolist() == ["a.tif"] and frame["class"].tolist() == ["car"]
    nowhere = result(tmp_path / "b.png")
    assert not nowhere.geo.known and nowhere.to_geodataframe().crs is None
    assert nowhere.to_geodataframe().geometry[0].bounds == (10, 20, 30, 45)
    found.save_map(tmp_path / "a.parquet")
    assert len(geopandas.read_parquet(tmp_path / "a.parquet")) == 2


def test_geopandas_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)
    with pytest.raises(UserError, match="a GeoDataFrame needs the package geopandas: pip install geopandas"):
        result(tmp_path / "b.png").to_geodataframe()


def test_a_scene_is_drawn_on_a_sheet(tmp_path):
    """Its result holds the overview, not the pixels, and a part of it is a result of the scene."""
    path = picture(tmp_path / "a.tif", size=(1200, 3200))
    image = load(path)
    found = scene_result(ROWS + torch.tensor([3000.0, 1000, 3000, 1000, 0, 0]), image, path, NAMES)
    assert found.orig_img.shape == (600, SHOWN, 3) and found[:1].orig_shape == (1200, 3200)
    sheet = found[:1].plot(save=True, filename=str(tmp_path / "sheet.png"))
    assert 1400 < sheet.shape[1] < 2000 and np.array_equal(cv2.imread(str(tmp_path / "sheet.png")), sheet)
    assert found.raster.source is None and len(found.plot(boxes=False)) == len(found.plot())
    assert np.array_equal(found.pixels(3010, 1020, 3030, 1045), rasterio_pixels(path)[1020:1045, 3010:3030])
    small = scene_result(ROWS, np.zeros((200, 300, 3), np.uint8), "b.png", NAMES)
    assert small.plot().shape == (200, 300, 3)


def rasterio_pixels(path):
    with rasterio.open(path) as file:
        return file.read()[::-1].transpose(1, 2, 0)
