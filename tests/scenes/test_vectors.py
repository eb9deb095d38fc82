"""Maps: a rectangle drawn at a known place of a raster is found there in every form, CRS and transform."""

import json
import math
import os

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
from affine import Affine
from pyarrow import parquet

from tinyyolo.config import UserError
from tinyyolo.scenes.place import LON_LAT, Place, reprojected
from tinyyolo.scenes.raster import place_of_file
from tinyyolo.scenes.vectors import DRIVERS, FORMS, Part, corners, counter_clockwise, write, write_parts

BOX = (30, 20, 70, 45)  # x1, y1, x2, y2 px, of the bright rectangle
SIZE = (60, 100)  # of the raster
NAMES = {0: "ship", 1: "small car", 7: "boat"}
ALBERS = (  # of ESRI, as its software writes it, without a number of EPSG's
    'PROJCS["USA_Contiguous_Albers_Equal_Area_Conic_USGS_version",GEOGCS["GCS_North_American_1983",'
    'DATUM["D_North_American_1983",SPHEROID["GRS_1980",6378137.0,298.257222101]],PRIMEM["Greenwich",0.0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Albers"],PARAMETER["False_Easting",0.0],'
    'PARAMETER["False_Northing",0.0],PARAMETER["Central_Meridian",-96.0],PARAMETER["Standard_Parallel_1",29.5],'
    'PARAMETER["Standard_Parallel_2",45.5],PARAMETER["Latitude_Of_Origin",23.0],UNIT["Meter",1.0]]'
)
# CRS, transform, and the map coordinates of the box's corners: left upper, left lower, right lower, right upper.
PLACES = {
    # x = 500000 + .5 col, y = 5000000 - .5 row
    "UTM": (
        "EPSG:32633",
        Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000),
        [(500_015, 4_999_990), (500_015, 4_999_977.5), (500_035, 4_999_977.5), (500_035, 4_999_990)],
    ),
    # x = 300000 + .3 col + .4 row, y = 5500000 + .4 col - .3 row: pixels of .5 m, turned
    "rotated": (
        "EPSG:32760",
        Affine(0.3, 0.4, 300_000, 0.4, -0.3, 5_500_000),
        [(300_017, 5_500_006), (300_027, 5_499_998.5), (300_039, 5_500_014.5), (300_029, 5_500_022)],
    ),
    # the first row is the southernmost
    "south up": (
        "EPSG:32611",
        Affine(1, 0, 400_000, 0, 1, 4_000_000),
        [(400_030, 4_000_020), (400_030, 4_000_045), (400_070, 4_000_045), (400_070, 4_000_020)],
    ),
    "geographic": (
        "EPSG:4326",
        Affine(1e-5, 0, 12.5, 0, -1e-5, 48.25),
        [(12.5003, 48.2498), (12.5003, 48.24955), (12.5007, 48.24955), (12.5007, 48.2498)],
    ),
    "Web Mercator": (
        "EPSG:3857",
        Affine(0.3, 0, 1_391_000, 0, -0.3, 6_160_000),
        [(1_391_009, 6_159_994), (1_391_009, 6_159_986.5), (1_391_021, 6_159_986.5), (1_391_021, 6_159_994)],
    ),
    "ESRI": (
        ALBERS,
        Affine(2, 0, 100_000, 0, -2, 1_500_000),
        [(100_060, 1_499_960), (100_060, 1_499_910), (100_140, 1_499_910), (100_140, 1_499_960)],
    ),
    "US feet": (
        "EPSG:2263",
        Affine(1.5, 0, 980_000, 0, -1.5, 190_000),
        [(980_045, 189_970), (980_045, 189_932.5), (980_105, 189_932.5), (980_105, 189_970)],
    ),
}


@pytest.fixture(params=PLACES)
def drawn(request, tmp_path):
    """A raster with one bright rectangle; its name in PLACES and its path."""
    crs, transform, _ = PLACES[request.param]
    values = np.zeros((1, *SIZE), np.uint8)
    values[:, BOX[1] : BOX[3], BOX[0] : BOX[2]] = 200
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": SIZE[1], "height": SIZE[0]}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as file:
        file.write(values)
    return request.param, path


def found(path):
    """The box of what is bright, as a detector would say it: whole pixels, their outer edges."""
    with rasterio.open(path) as file:
        rows, columns = np.nonzero(file.read(1))
    boxes = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
    assert boxes.tolist() == [list(BOX)]
    return Part(boxes, np.array([0.876543]), np.array([1]), "scene.tif", Place(*place_of_file(path)))


def read(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    frame = geopandas.read_file(path)
    if path.suffix == ".csv":
        words = [text or None for text in frame.pop("WKT")]
        frame = geopandas.GeoDataFrame(frame, geometry=geopandas.GeoSeries.from_wkt(words))
    return frame


def at(transform, x, y):
    """Where a point in px lies."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def ring(frame, row=0):
    return np.array(frame.geometry.iloc[row].exterior.coords)


def nearest(points, expected):
    """The largest distance, in both directions, from each point to the nearest of the other set."""
    gaps = np.linalg.norm(np.array(points)[:, None] - np.array(expected)[None], axis=-1)
    return max(gaps.min(0).max(), gaps.min(1).max())


@pytest.mark.parametrize("suffix", FORMS)
def test_every_corner_is_where_it_is_drawn(drawn, tmp_path, suffix):
    name, scene = drawn
    crs, transform, expected = PLACES[name]
    path = tmp_path / f"boxes{suffix}"
    write_parts(path, [found(scene)], NAMES)
    frame = read(path)
    points = ring(frame)
    assert len(points) == 5 and len(frame) == 1
    if suffix == ".geojson":
        lon, lat = pyproj.Transformer.from_crs(crs, LON_LAT, always_xy=True).transform(*np.transpose(expected))
        metre = np.array([111_320 * math.cos(math.radians(lat[0])), 111_320])
        side = Place(crs, tuple(transform)[:6]).pixel(SIZE)
        assert nearest(points * metre, np.stack([lon, lat], -1) * metre) < min(side / 2, 0.02)
    else:
        side = math.sqrt(abs(transform.determinant))
        assert nearest(points, expected) < 1e-6 * max(side, 1)
        back = [at(~transform, *point) for point in points]
        assert nearest(back, corners(np.array([BOX]))[0]) < 1e-3
    if suffix in (".gpkg", ".fgb", ".parquet"):
        assert frame.crs == pyproj.CRS.from_user_input(crs) or frame.crs.equals(crs, ignore_axis_order=True)
    east, north = np.diff(points, axis=0).T
    assert east[0] * north[1] - north[0] * east[1] > 0  # counter-clockwise
    row = frame.iloc[0]
    assert row["class"] == "small car" and row["scene"] == "scene.tif" and float(row["score"]) == 0.87654
    assert [float(row[key]) for key in ("x1", "y1", "x2", "y2")] == list(map(float, BOX))
    assert int(row["class_index"]) == 1


# Pixels of the box are 40 x 25. A scale factor is that of the projection in its place.
METRES = {
    "UTM": (20 / 0.9996, 12.5 / 0.9996),  # on the central meridian
    "rotated": (20 / 1.0001, 12.5 / 1.0001),  # 200 km off it; see the tolerance
    "south up": (40 / 0.99972, 25 / 0.99972),  # 100 km off it
    "geographic": (40e-5 * 111_320 * 0.66588 * 1.00186, 25e-5 * 111_195),  # cos 48.2497, radius of curvature there
    "Web Mercator": (12 * 0.6652 * 1.00187, 7.5 * 0.6652 * 0.99888),  # cos 48.3, radii there over the axis
    "US feet": (60 * 0.3048006, 37.5 * 0.3048006),
}


def test_metres_are_those_of_the_ground(drawn, tmp_path):
    """Also against geodesics; the Albers of the ESRI file keeps areas: 80 m x 50 m are 4,000 square metres."""
    name, scene = drawn
    crs, transform, _ = PLACES[name]
    write_parts(tmp_path / "a.gpkg", [found(scene)], NAMES)
    row = read(tmp_path / "a.gpkg").iloc[0]
    assert abs(row["width_m"] * row["height_m"] / 4000 - 1) < 1e-3 or name != "ESRI"
    if name in METRES:
        assert np.allclose((row["width_m"], row["height_m"]), METRES[name], rtol=2e-3)
    ends = np.array([at(transform, *point) for point in ((30, 32.5), (70, 32.5), (50, 20), (50, 45))])
    lon, lat = pyproj.Transformer.from_crs(crs, LON_LAT, always_xy=True).transform(*ends.T)
    _, _, lengths = pyproj.Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
    assert np.allclose((row["width_m"], row["height_m"]), lengths, atol=2e-3)


def test_geojson_is_that_of_the_standard(drawn, tmp_path):
    _, scene = drawn
    write_parts(tmp_path / "a.geojson", [found(scene)], NAMES)
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection" and "crs" not in content
    ((first, *_, last),) = content["features"][0]["geometry"]["coordinates"]
    assert first == last and abs(first[0]) <= 180 and abs(first[1]) <= 90


def test_what_gdal_says_of_the_files(drawn, tmp_path):
    _, scene = drawn
    for suffix in (".geojson", ".gpkg", ".fgb"):
        path = tmp_path / f"boxes of a scene{suffix}"
        write_parts(path, [found(scene)], NAMES)
        said = pyogrio.read_info(path)
        assert (said["driver"], said["features"], said["geometry_type"]) == (DRIVERS[suffix][0], 1, "Polygon")
        assert said["crs"] == "EPSG:4326" if suffix == ".geojson" else said["crs"]
        assert said["layer_name"] == "boxes of a scene"
        left, bottom, right, top = said["total_bounds"]
        assert left < right and bottom < top


def test_geoparquet_says_what_its_columns_are(tmp_path):
    place = Place("EPSG:32633", (0.5, 0, 500_000, 0, -0.5, 5_000_000))
    write(tmp_path / "a.parquet", np.array([BOX]), [1.0], [0], NAMES, place.crs, place.transform)
    schema = parquet.read_schema(tmp_path / "a.parquet")
    about = json.loads(schema.metadata[b"geo"])
    assert (about["version"], about["primary_column"]) == ("1.1.0", "geometry")
    column = about["columns"]["geometry"]
    assert column["encoding"] == "WKB" and column["geometry_types"] == ["Polygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32633} and column["crs"]["type"] == "ProjectedCRS"
    assert column["bbox"] == [500_015, 4_999_977.5, 500_035, 4_999_990]
    write(tmp_path / "b.parquet", np.array([BOX]), [1.0], [0], NAMES)
    assert (
        json.loads(parquet.read_schema(tmp_path / "b.parquet").metadata[b"geo"])["columns"]["geometry"]["crs"] is None
    )


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("place", (Place(), Place("", (17.3, 5.0, 100.0, 10.0, -8.7, 200.0))))
def test_without_a_crs_it_is_pixels(tmp_path, suffix, place, capsys):
    path = tmp_path / f"a{suffix}"
    write_parts(path, [Part(np.array([BOX]), np.ones(1), np.zeros(1, int), "a.png", place)], NAMES)
    frame = read(path)
    assert nearest(ring(frame), corners(np.array([BOX]))[0]) == 0
    assert frame["width_m"].iloc[0] in ("", None) or math.isnan(float(frame["width_m"].iloc[0]))
    assert f"{path}: in pixels, y downwards: a.png has no place on the map" in capsys.readouterr().err


def test_control_points_alone_are_no_place(tmp_path):
    points = [
        rasterio.control.GroundControlPoint(0, 0, 12.5, 48.2),
        rasterio.control.GroundControlPoint(9, 9, 12.6, 48),
    ]
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": 9, "height": 9}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, gcps=points, crs="EPSG:4326") as file:
        file.write(np.ones((1, 9, 9), np.uint8))
    assert not Place(*place_of_file(tmp_path / "a.tif")).known


@pytest.mark.parametrize(
    "crs",
    (
        'GEOGCS["Moon",DATUM["Moon",SPHEROID["Moon",1737400,0]],PRIMEM["x",0],UNIT["Degree",0.0174532925199433]]',
        'LOCAL_CS["a room",UNIT["metre",1]]',
    ),
)
def test_what_is_not_on_the_earth_has_no_place(crs):
    place = Place(crs, (1.0, 0, 10, 0, -1, 20))
    assert not place.known and np.isnan(place.metres(np.array([BOX]))).all()


def test_boxes_beyond_a_projection_are_told(tmp_path, capsys):
    """A transform that leads to 95 degrees north."""
    first = Part(np.array([BOX]), np.ones(1), np.zeros(1, int), "a.tif", Place("EPSG:3857", (1, 0, 0, 0, -1, 0)))
    wrong = first._replace(scene="b.tif", place=Place("EPSG:4326", (0.001, 0, 0, 0, -0.001, 95)))
    points = reprojected(np.array([[0.0, 0], [0, 95], [0, 0]]), LON_LAT, "EPSG:3857")
    assert np.isfinite(points).tolist() == [[True] * 2, [False] * 2, [True] * 2]
    write_parts(tmp_path / "a.gpkg", [first, wrong], NAMES)
    assert [shape is None for shape in read(tmp_path / "a.gpkg").geometry] == [False, True]
    assert "1 boxes lie where its CRS has no coordinates" in capsys.readouterr().err


def test_scenes_of_several_crs_in_one_file(tmp_path, capsys):
    """Zone 33 and 34 meet at 18 degrees: the box of the second lies there in the CRS of the first, too."""
    first = Part(np.array([BOX]), np.ones(1), np.zeros(1, int), "a.tif", Place("EPSG:32633", (1, 0, 5e5, 0, -1, 5e6)))
    x, y = pyproj.Transformer.from_crs(LON_LAT, "EPSG:32634", always_xy=True).transform(18, 45)
    second = first._replace(scene="b.tif", place=Place("EPSG:32634", (1, 0, x - 30, 0, -1, y + 20)))
    lost = first._replace(scene="c.png", place=Place())
    expected = pyproj.Transformer.from_crs(LON_LAT, "EPSG:32633", always_xy=True).transform(18, 45)
    for suffix in FORMS:
        path = tmp_path / f"a{suffix}"
        write_parts(path, [lost, first, second], NAMES)
        frame = read(path)
        place = (18, 45) if suffix == ".geojson" else expected
        (row,) = np.flatnonzero(frame["scene"] == "b.tif")
        assert nearest(ring(frame, row), [place]) > 1 or suffix == ".geojson"
        assert np.linalg.norm(ring(frame, row) - place, axis=1).min() < (1e-6 if suffix == ".geojson" else 0.01)
        (row,) = np.flatnonzero(frame["scene"] == "c.png")
        assert frame.geometry.iloc[row] is None
        said = capsys.readouterr().err
        assert "c.png has no place on the map: rows without a polygon" in said
        assert ("scenes of 2 CRSs, all in that of the first" in said) == (suffix != ".geojson")


def test_across_the_date_line(tmp_path):
    place = Place("EPSG:3460", (1.0, 0, 2_133_000, 0, -1, 4_000_000))  # Fiji
    lon = place.in_crs(np.array([[0.0, 0.0]]), LON_LAT)[0, 0]
    start = (180 - lon) * 111_320 * math.cos(math.radians(17)) - 10
    boxes = np.array([[start, 0, start + 20, 10]])
    write(tmp_path / "a.geojson", boxes, [1.0], [0], NAMES, place.crs, place.transform)
    geometry = json.loads((tmp_path / "a.geojson").read_text())["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"  # cut in two, as the standard asks
    assert all(abs(abs(x) - 180) < 0.001 for polygon in geometry["coordinates"] for x, _ in polygon[0])


def test_pixels_of_a_centimetre_have_more_decimals(tmp_path):
    write(tmp_path / "a.geojson", np.array([BOX]), [1.0], [0], NAMES, "EPSG:32633", (0.01, 0, 5e5, 0, -0.01, 5e6))
    lon = json.loads((tmp_path / "a.geojson").read_text())["features"][0]["geometry"]["coordinates"][0][0][0]
    assert lon != round(lon, 7) and lon == round(lon, 8)


def test_rings_are_turned_the_same_way():
    square = np.array([[[0.0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]])
    assert counter_clockwise(square)[0].tolist() == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    assert counter_clockwise(counter_clockwise(square)).tolist() == counter_clockwise(square).tolist()


@pytest.mark.parametrize("suffix", FORMS)
def test_no_detection_is_a_file_too(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    write(path, *nothing, NAMES, "EPSG:32633", (1, 0, 0, 0, -1, 0))
    assert len(read(path)) == 0
    assert {"class", "score", "width_m"} <= set(read(path).columns) or suffix == ".geojson"  # which has no table


@pytest.mark.parametrize("suffix", FORMS)
def test_the_same_bytes_twice(tmp_path, suffix, monkeypatch):
    """Whatever the day: a GeoPackage would have it."""
    part = Part(
        np.array([BOX]), np.ones(1), np.zeros(1, int), os.fsdecode(b"sc\xffne"), Place("EPSG:32633", (1, 0, 0, 0, 1, 0))
    )
    for name in ("a", "b"):
        write_parts(tmp_path / name / f"x{suffix}", [part], NAMES)
    assert (tmp_path / "a" / f"x{suffix}").read_bytes() == (tmp_path / "b" / f"x{suffix}").read_bytes()
    assert read(tmp_path / "a" / f"x{suffix}")["scene"].iloc[0] == r"sc\udcffne"
    if suffix == ".gpkg":
        assert b"1970-01-01" in (tmp_path / "a" / "x.gpkg").read_bytes()


def test_an_unknown_form_and_a_missing_package(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"a\.kml: unknown form '\.kml'; .*\.geojson"):
        write(tmp_path / "a.kml", np.zeros((0, 4)), [], [], NAMES)
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None if name == "pyarrow" else True)
    with pytest.raises(UserError, match=r"a map needs the package pyarrow: pip install 'tinyyolo\[geo\]'"):
        write(tmp_path / "a.parquet", np.zeros((0, 4)), [], [], NAMES)


def test_a_disk_that_takes_nothing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.gpkg"
    path.write_bytes(b"old")
    monkeypatch.setattr("tinyyolo.io.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        write(path, np.array([BOX]), [1.0], [0], NAMES)
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["a.gpkg"]
