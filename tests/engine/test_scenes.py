"""predict looks at large images in windows: what it says, what it returns, and what stays as it was."""

import json
import logging
import pickle
import re

import cv2
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.warp import transform as reproject
from torchvision.ops import box_iou

from tests.support.scenes import lively_model, scene
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine.predictor import TinyPredictor
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.scenes.windows import spans

QUIET = {"verbose": False, "save": False}


@pytest.fixture(scope="module")
def model():
    return lively_model()


def test_a_scene_is_not_shrunk(model):
    """Windows find what one window over the whole scene finds; most of it, as chance made the network's field wide."""
    image = scene(704, 512)
    (whole,) = model.predict(image, imgsz=128, tile=736, conf=0.3, **QUIET)
    (cut,) = model.predict(image, imgsz=128, tile=448, overlap=256, conf=0.3, **QUIET)
    (shrunk,) = model.predict(image, imgsz=128, tile="off", conf=0.3, **QUIET)
    near = box_iou(whole.boxes.xyxy, cut.boxes.xyxy) > 0.9
    assert len(whole) > 100 and near.any(1).float().mean() > 0.6 and near.any(0).float().mean() > 0.6
    assert cut.orig_shape == (704, 512) and len(shrunk) < len(whole) / 2


@pytest.mark.parametrize(
    ("keys", "size", "said"),
    (
        ({}, (400, 300), "300x400: 12 tiles of 128, overlap 18"),  # cores begin at 0, 119, 215, 311 and 0, 119, 215
        ({"overlap": 64, "zoom": 2}, (100, 200), "200x100: 18 tiles of 128, overlap 64, zoom 2"),  # 3 rows of 6
        ({"tile": "off"}, (400, 300), "300x400: shrunk by 3.1 (tile=off)"),
        ({"tile": False}, (400, 300), "300x400: shrunk by 3.1 (tile=off)"),
        ({}, (192, 100), ""),
        ({"tile": 256}, (250, 100), "100x250: 1 tile of 256, overlap 38"),
        ({"tile": 160}, (161, 100), "100x161: 2 tiles of 160, overlap 24"),
    ),
)
def test_what_is_done_is_told(model, caplog, keys, size, said):
    tiling = Tiling.of({"imgsz": 128, "tile": "auto", "overlap": 0.15, "zoom": 1.0, **keys}, 32)
    assert tiling.words(size) == said


@pytest.mark.parametrize(("imgsz", "stride", "tile"), ((32, 32, 64), (128, 128, 256), (640, 128, 640), (100, 32, 128)))
def test_auto_leaves_room_for_a_core(imgsz, stride, tile):
    """32 px have an overlap of .15 * 32 = 4.8, so 4, and 4 + 32 > 32; 128 px of 18, and 18 + 128 > 128."""
    assert Tiling.of({"imgsz": imgsz, "tile": "auto", "overlap": 0.15, "zoom": 1.0}, stride).tile == tile


def test_small_images_are_as_they_were(model, tmp_path):
    """A batch of a scene and two small images gives what each gives alone, in order."""
    paths = []
    for i, size in enumerate(((100, 120), (300, 400), (128, 90))):
        paths.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(paths[-1], scene(*size, seed=i))
    together = model.predict(paths, imgsz=128, batch=3, conf=0.3, rect=False, **QUIET)
    for path, result in zip(paths, together, strict=True):
        (alone,) = model.predict(path, imgsz=128, conf=0.3, rect=False, **QUIET)
        assert result.path == alone.path == path and len(result)
        torch.testing.assert_close(result.boxes.data, alone.boxes.data, rtol=0, atol=1e-3)


def test_no_number_of_detections_is_too_large_unless_asked_for(model, monkeypatch):
    image = scene(700, 700)
    monkeypatch.setitem(model.spec, "test", {**model.spec["test"], "max_det": 5})
    monkeypatch.setattr(model.model, "test", model.spec["test"])
    monkeypatch.setattr(model, "predictor", None)  # it holds the model as it was
    (few,) = model.predict(image[:128, :128], imgsz=128, conf=0.2, **QUIET)
    (many,) = model.predict(image, imgsz=128, conf=0.2, **QUIET)
    (asked,) = model.predict(image, imgsz=128, conf=0.2, max_det=7, **QUIET)
    assert len(few) == 5 and len(many) > 100 and len(asked) == 7


def test_zoom_gives_boxes_of_the_scene(model):
    image = scene(300, 260)
    (found,) = model.predict(image, imgsz=128, zoom=2, conf=0.3, **QUIET)
    boxes = found.boxes.xyxy
    assert len(boxes) and boxes[:, 2].max() > 200 and boxes.max() <= 300 and boxes[:, 2].max() <= 260


def test_the_network_is_set_up_once_for_calls_with_other_keys(model, monkeypatch):
    """Tools that cut scenes themselves call once a window."""
    count, image = [], scene(300, 260)
    set_up = TinyPredictor.setup_model
    monkeypatch.setattr(TinyPredictor, "setup_model", lambda self, *a, **k: count.append(1) or set_up(self, *a, **k))
    monkeypatch.setattr(model, "predictor", None)
    found = [len(model.predict(image, imgsz=128, conf=0.3, tile=tile, **QUIET)[0]) for tile in ("off", 128, "off")]
    assert len(count) == 1 and found[0] == found[2] < found[1]
    assert (
        len(model.predict(image, imgsz=128, conf=0.3, tile=128, device="cpu", **QUIET)[0]) == found[1]
        and len(count) == 2
    )

    class Another(TinyPredictor):
        pass

    (other,) = model.predict(image, predictor=Another, imgsz=128, conf=0.3, tile=128, **QUIET)
    assert type(model.predictor) is Another and len(other) == found[1]
    monkeypatch.setattr(model, "predictor", None)


@pytest.mark.parametrize("keys", ({"tile": "of"}, {"tile": 16}, {"overlap": 1.5}, {"overlap": -1}, {"zoom": 0}))
def test_wrong_values(model, keys):
    with pytest.raises(UserError, match=next(iter(keys))):
        model.predict(scene(300, 300), imgsz=128, **keys, **QUIET)


def test_a_tile_smaller_than_its_overlap(model):
    with pytest.raises(UserError, match=re.escape("tile=128: expected a multiple of the model's largest stride, 32")):
        model.predict(scene(300, 300), imgsz=128, tile=128, overlap=120, **QUIET)


def test_two_stage_models():
    slim = Model("faster-rcnn-r18-nwdrka.yaml")
    (found,) = slim.predict(scene(300, 280), imgsz=128, conf=0.01, **QUIET)
    assert found.orig_shape == (300, 280)


def test_a_head_that_suppresses_inside_has_no_doubles_at_seams(monkeypatch):
    """Two windows box one object, each with its centre half a pixel on its own side: 11 of 13 px in common, .85."""
    slim = Model("grid-rcnn-r18-nwdrka.yaml")
    assert slim.model.roi_head.nms_iou == 0.5 and slim.model.test["iou"] == 1

    def candidates(maps, size_hw, core, least):
        middle, score = (core[2] - 0.5, 0.9) if core[0] == 0 else (core[0] + 0.5, 0.8)
        scores = torch.zeros(1, 1, slim.model.nc)
        scores[..., 0] = score
        return torch.tensor([[[middle - 6, 20.0, middle + 6, 30.0]]]), scores

    monkeypatch.setattr(slim.model, "candidates", candidates)
    monkeypatch.setattr(slim.model, "features", lambda images: None)
    for expected in ([0.9], [0.9, 0.8]):
        (found,) = slim.predict(scene(64, 192), imgsz=128, tile=128, overlap=64, conf=0.1, **QUIET)
        assert found.boxes.conf.tolist() == pytest.approx(expected)
        monkeypatch.setattr("tinyyolo.engine.predict.scenes.iou_inside", lambda model: 0.9)


def test_exports_own_by_the_centre(model, tmp_path):
    """Their boxes are those of the checkpoint but for some at cuts: an export does not say whence candidates come."""
    model.save(tmp_path / "a.pt")
    image = scene(224, 224)  # which windows of 128 px that begin at 0 and 96 fill
    (expected,) = Model(tmp_path / "a.pt").predict(image, imgsz=128, conf=0.3, **QUIET)
    (found,) = Model(Model(tmp_path / "a.pt").export(imgsz=128)).predict(image, conf=0.3, **QUIET)
    near = box_iou(expected.boxes.xyxy, found.boxes.xyxy) > 0.9
    assert len(expected) > 20 and near.any(1).float().mean() > 0.7


def test_an_export_takes_its_own_size_alone(model, tmp_path):
    model.save(tmp_path / "a.pt")
    exported = Model(Model(tmp_path / "a.pt").export(imgsz=128))
    with pytest.raises(UserError, match="tile=256: this export takes 128 px alone"):
        exported.predict(scene(300, 300), tile=256, **QUIET)
    oblong = Model(Model(tmp_path / "a.pt").export(imgsz=[128, 64]))
    assert len(oblong.predict(scene(300, 300), **QUIET)) == 1


def raster(path, bands, **more):
    """A GeoTIFF of bands (B, H, W)."""
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype="uint8", **more
    ) as file:
        file.write(bands)


def test_a_georeferenced_scene_becomes_a_map(model, tmp_path, monkeypatch):
    """Of a raster over 1,024 px only windows are decoded, and the boxes of the GeoJSON lie where it lies."""
    image, place = scene(1200, 400), from_origin(500_000, 5_000_000, 0.5, 0.5)
    raster(
        tmp_path / "a.tif", image[..., ::-1].transpose(2, 0, 1), photometric="rgb", crs="EPSG:32633", transform=place
    )
    (plain,) = model.predict(image, imgsz=128, conf=0.3, **QUIET)
    monkeypatch.setattr("tinyyolo.datasets.images.load", lambda path: pytest.fail(f"{path} decoded whole"))
    keys = {"imgsz": 128, "conf": 0.3, "save_geojson": True, "save_crop": True, "project": str(tmp_path), "name": "p"}
    (found,) = model.predict(tmp_path / "a.tif", **keys, **QUIET)
    torch.testing.assert_close(found.boxes.data, plain.boxes.data, rtol=0, atol=1e-3)
    assert found.orig_shape == (1200, 400) and found.orig_img.shape == (1200, 400, 3) and len(found) > 20
    assert found.plot().shape == (1200, 400, 3)
    (first, *_) = sorted((tmp_path / "p" / "crops").rglob("a.jpg"), key=lambda file: file.parent.name)
    box = found.boxes[found.boxes.cls == found.boxes.cls.min()][0].xyxy[0].tolist()
    h, w = cv2.imread(str(first)).shape[:2]
    more = [5 + 0.01 * (box[2] - box[0]), 5 + 0.01 * (box[3] - box[1])]  # px on each side, as ultralytics cuts
    low = [max(0, int(box[0] - more[0])), max(0, int(box[1] - more[1]))]
    inside = [*low, min(400, int(box[2] + more[0] + 1)), min(1200, int(box[3] + more[1] + 1))]
    assert abs(w - (inside[2] - inside[0])) <= 2 and abs(h - (inside[3] - inside[1])) <= 2
    assert found.raster.source is None and pickle.loads(pickle.dumps(found)).orig_shape == (1200, 400)
    features = json.loads((tmp_path / "p" / "a.geojson").read_text())["features"]
    lon, lat = np.array([feature["geometry"]["coordinates"][0] for feature in features]).reshape(-1, 2).T
    x, y = reproject("EPSG:4326", "EPSG:32633", lon.tolist(), lat.tolist())
    boxes = found.boxes.xyxy
    assert len(features) == len(found)
    assert abs((min(x) - 500_000) / 0.5 - boxes[:, 0].min()) < 0.5
    assert abs((5_000_000 - min(y)) / 0.5 - boxes[:, 3].max()) < 0.5


@pytest.mark.parametrize("bands", (3, 5))
def test_a_small_georeferenced_picture_has_its_place_too(model, tmp_path, bands):
    image, place = scene(128, 128)[..., ::-1].transpose(2, 0, 1), from_origin(500_000, 5_000_000, 0.5, 0.5)
    raster(tmp_path / "a.tif", np.concatenate([image, image])[:bands], crs="EPSG:32633", transform=place)
    keys = {"imgsz": 128, "conf": 0.3, "save_geojson": True, "project": str(tmp_path), "name": "p"}
    (found,) = model.predict(tmp_path / "a.tif", bands=[1, 2, 3], **keys, **QUIET)
    lon, lat = json.loads((tmp_path / "p" / "a.geojson").read_text())["features"][0]["geometry"]["coordinates"][0][0]
    (x,), (y,) = reproject("EPSG:4326", "EPSG:32633", [lon], [lat])
    assert -0.5 <= (x - 500_000) / 0.5 <= 128.5 and -0.5 <= (5_000_000 - y) / 0.5 <= 128.5 and len(found)


def test_windows_without_a_valid_pixel_are_left_out(model, tmp_path, monkeypatch):
    """Of 1,100 x 120 px the first 600 columns are nodata."""
    bands = np.ascontiguousarray(scene(120, 1100)[..., ::-1].transpose(2, 0, 1)).clip(1)
    bands[:, :, :600] = 0
    raster(tmp_path / "a.tif", bands, photometric="rgb", nodata=0)
    said = []
    monkeypatch.setattr("tinyyolo.engine.predict.scenes.LOGGER.info", said.append)
    (found,) = model.predict(tmp_path / "a.tif", imgsz=128, conf=0.3, **QUIET)
    empty = sum(span.stop <= 600 for span in spans(1100, 128, 9, 32))
    assert said[-1] == f"{empty} of {len(spans(1100, 128, 9, 32))} tiles have no valid pixel: left out" and empty > 3
    assert len(found) and found.boxes.xywh[:, 0].min() >= 599
    bands[:] = 0
    raster(tmp_path / "b.tif", bands, photometric="rgb", nodata=0)
    (nothing,) = model.predict(tmp_path / "b.tif", imgsz=128, conf=0.3, **QUIET)
    assert len(nothing) == 0


def test_a_raster_that_is_shrunk_is_told_and_closed(model, tmp_path, monkeypatch):
    bands = np.ascontiguousarray(scene(60, 1100)[..., ::-1].transpose(2, 0, 1))
    raster(tmp_path / "a.tif", bands, photometric="rgb")
    said, closed = [], []
    monkeypatch.setattr("tinyyolo.engine.predictor.LOGGER.info", said.append)
    monkeypatch.setattr("tinyyolo.scenes.raster.Raster.close", lambda self: closed.append(self.path.name))
    (found,) = model.predict(tmp_path / "a.tif", imgsz=128, tile="off", **QUIET)
    assert said[0] == "1100x60: shrunk by 8.6 (tile=off)" and {*closed} == {"a.tif"} and found.orig_shape == (60, 1100)


def test_a_raster_that_cannot_be_read_is_named(model, tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), scene(64, 64))
    raster(tmp_path / "in" / "b.tif", np.zeros((5, 30, 1100), np.uint8))
    assert len(model.predict(tmp_path / "in", imgsz=64, **QUIET)) == 1
    (fault,) = model.predictor.bad_images
    assert "bands=[r,g,b]; Choices: 1 gray, 2 undefined" in fault


def test_the_line_of_a_scene_says_its_own_size_and_time(model, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ultralytics"), "propagate", True)
    with caplog.at_level(logging.INFO):
        model.predict(scene(300, 400), imgsz=128, conf=0.3, save=False, verbose=True)
    (line,) = {line for text in caplog.messages for line in text.splitlines() if line.startswith("0: ")}
    assert "300x400 " in line and float(line.split(", ")[-1].removesuffix("ms")) > 1
