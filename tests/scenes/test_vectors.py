"""Maps: every corner within half a pixel of where it stands, whatever CRS and transform, read back by GDAL."""

import json

import numpy as np
import pyogrio
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as reproject

from tinyyolo.config import UserError
from tinyyolo.scenes.vectors import DRIVERS, corners, on_map, write

BOXES = np.array([[10.0, 20.0, 30.0, 45.0], [100.5, 7.25, 104.75, 9.0]])
NAMES = {0: "ship", 1: "small car"}
PLACES = {
    "UTM 33 north": ("EPSG:32633", Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)),
    "UTM 60 south, rotated": ("EPSG:32760", Affine(0.5, 0, 300_000, 0, -0.5, 5_500_000) * Affine.rotation(30)),
    "south up": ("EPSG:32611", Affine(1.0, 0, 400_000, 0, 1.0, 4_000_000)),
    "geographic": ("EPSG:4326", Affine(1e-5, 0, 12.5, 0, -1e-5, 48.25)),
    "web mercator": ("EPSG:3857", Affine(0.3, 0, 1_391_000, 0, -0.3, 6_160_000)),
}


def written(path, place):
    crs, transform = PLACES[place] if place else ("", None)
    wkt = CRS.from_string(crs).to_wkt() if crs else ""
    write(path, BOXES, np.array([0.9, 0.123456]), np.array([0, 1]), NAMES, wkt, transform and tuple(transform)[:6])
    return path, crs, transform


def ring_of(wkb):
    """The 5 points of a polygon in well-known binary."""
    return np.frombuffer(wkb[13:], "<f8").reshape(-1, 2)


@pytest.mark.parametrize("suffix", (".gpkg", ".fgb"))
@pytest.mark.parametrize("place", PLACES)
def test_in_the_crs_of_the_scene(tmp_path, place, suffix):
    path, crs, transform = written(tmp_path / f"a{suffix}", place)
    meta, _, geometry, fields = pyogrio.raw.read(path)
    assert CRS.from_string(meta["crs"]) == CRS.from_string(crs)
    found = {name: values.tolist() for name, values in zip(meta["fields"], fields, strict=True)}
    rows = [found["class"].index(name) for name in ("ship", "small car")]  # FlatGeobuf sorts by place
    assert [found["score"][row] for row in rows] == [0.9, 0.12346] and found["x1"][rows[1]] == 100.5
    for row, box in zip(rows, BOXES, strict=True):
        expected = [transform * tuple(point) for point in corners(box[None])[0]]
        back = [~transform * tuple(point) for point in ring_of(geometry[row])]
        assert np.allclose(back, corners(box[None])[0], atol=1e-3)
        assert {tuple(np.round(p, 6)) for p in ring_of(geometry[row])} == {tuple(np.round(p, 6)) for p in expected}


@pytest.mark.parametrize("place", PLACES)
def test_geojson_is_longitude_and_latitude(tmp_path, place):
    path, crs, transform = written(tmp_path / "a.geojson", place)
    content = json.loads(path.read_text())
    assert "crs" not in content and len(content["features"]) == 2
    for feature, box in zip(content["features"], BOXES, strict=True):
        lon, lat = np.array(feature["geometry"]["coordinates"][0]).T
        assert (abs(lon) <= 180).all() and (abs(lat) <= 90).all()
        x, y = reproject("EPSG:4326", crs, lon.tolist(), lat.tolist())
        back = np.array([~transform * point for point in zip(x, y, strict=True)])
        centre = back[:4].mean(0)
        assert np.allclose(centre, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], atol=0.5)
        assert np.allclose(back.min(0), box[:2], atol=0.5) and np.allclose(back.max(0), box[2:], atol=0.5)


def test_without_a_crs_it_is_pixels(tmp_path):
    path, _, _ = written(tmp_path / "a.geojson", None)
    ring = json.loads(path.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert sorted(map(tuple, ring))[0] == (10.0, 20.0) and max(map(tuple, ring)) == (30.0, 45.0)


def test_by_hand():
    """3 px to the right and 4 down of a corner at 100, 200, at 10 m a pixel, north up."""
    assert on_map(np.array([3.0, 4.0]), (10, 0, 100, 0, -10, 200)).tolist() == [130.0, 160.0]


@pytest.mark.parametrize("suffix", DRIVERS)
def test_no_detection_is_a_file_too(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write(
        path, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), NAMES, CRS.from_epsg(32633).to_wkt(), (1, 0, 0, 0, -1, 0)
    )
    assert path.stat().st_size > 0


def test_an_unknown_form(tmp_path):
    with pytest.raises(UserError, match=r"a\.kml: .*\.geojson"):
        written(tmp_path / "a.kml", None)
