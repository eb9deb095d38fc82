"""Labels drawn on a map: where they lie in images of any CRS and transform, which class they are, what is told."""

import shutil

import numpy as np
import pyogrio
import pytest

from tests.support.command import command
from tests.support.data_sets import data_yaml
from tests.support.maps import NORTH_UP, UTM33, geojson, ring, scene, vectors
from tests.test_cli import call
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.audit import check
from tinyyolo.datasets.formats.gis.fields import called, class_field
from tinyyolo.scenes import vectors as maps

# 5 m right of and 10 m below the corner of the scene, 5 m wide and 10 m high, at half a metre a pixel.
BOX, PIXELS = ring(500_005, 4_999_980, 500_010, 4_999_990), [10, 20, 20, 40]


def read(root, labels, images="scene.tif", strict=False, **content):
    """The annotations of a YAML with these labels, and class ship unless it says others."""
    content = {"names": ["ship"], "annotations": {"train": labels}} | content
    file = data_yaml(root / "set.yaml", train=images, **{key: value for key, value in content.items() if value})
    return spec.load(file).read("train", strict=strict)


def kinds(found):
    return [problem.kind for problem in found.problems]


def said(found, kind):
    return next(str(problem) for problem in found.problems if problem.kind == kind)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".geojson"])
def test_a_box_in_the_crs_of_the_scene(tmp_path, suffix):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / f"l{suffix}", [BOX], **{"class": ["ship"]})
    found = read(tmp_path, f"l{suffix}")
    np.testing.assert_allclose(found.boxes, [PIXELS], atol=1e-6)
    assert found.labels.tolist() == [0] and found.file_names == ["scene.tif"] and not found.problems
    assert found.sizes_hw.tolist() == [[80, 100]]


@pytest.mark.parametrize(
    ("transform", "points", "box"),
    [
        # x = 1000 + row, y = 2000 + column: a quarter turn.
        ((0, 1, 1000, 1, 0, 2000), ring(1010, 2005, 1020, 2008), [5, 10, 8, 20]),
        # Turned by the angle whose cosine is .8: pixels 10 to 20 in both directions, corner by corner.
        ((0.8, 0.6, 500, 0.6, -0.8, 900), [[514, 898], [522, 904], [528, 896], [520, 890]], [10, 10, 20, 20]),
        ((1, 0, 400_000, 0, 1, 4_000_000), ring(400_003, 4_000_010, 400_007, 4_000_012), [3, 10, 7, 12]),  # south up
    ],
)
def test_turned_scenes(tmp_path, transform, points, box):
    scene(tmp_path / "scene.tif", transform=transform)
    vectors(tmp_path / "l.gpkg", [points], **{"class": ["ship"]})
    found = read(tmp_path, "l.gpkg")
    np.testing.assert_allclose(found.boxes, [box], atol=1e-6)
    assert not found.problems  # a box of the picture is no outline, however it is turned


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_longitude_and_latitude_over_utm(tmp_path, suffix):
    """On the middle meridian, at the equator, UTM is 500,000 and 0, and a degree is 111,319.5 * .9996 m to the east and
    110,574.4 * .9996 m to the north: .0001 of them are 11.1275 and 11.0530 m."""
    scene(tmp_path / "scene.tif", transform=(0.5, 0, 499_990, 0, -0.5, 20))
    points = ring(15.0, 0.0, 15.0001, 0.0001)
    if suffix == ".geojson":
        geojson(tmp_path / "l.geojson", [points], **{"class": ["ship"]})
    else:
        vectors(tmp_path / f"l{suffix}", [points], "EPSG:4326", **{"class": ["ship"]})
    found = read(tmp_path, f"l{suffix}")
    np.testing.assert_allclose(found.boxes, [[20, 40 - 2 * 11.0530, 20 + 2 * 11.1275, 40]], atol=2e-3)
    assert not found.problems


def test_an_old_geojson_that_names_its_crs(tmp_path):
    scene(tmp_path / "scene.tif")
    file = geojson(tmp_path / "l.geojson", [BOX], **{"class": ["ship"]})
    crs = '"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}, "features"'
    file.write_text(file.read_text().replace('"features"', crs))
    found = read(tmp_path, "l.geojson")
    np.testing.assert_allclose(found.boxes, [PIXELS], atol=1e-6)
    assert not found.problems


def test_metres_in_a_geojson_that_names_no_crs(tmp_path):
    scene(tmp_path / "scene.tif")
    geojson(tmp_path / "l.geojson", [BOX], **{"class": ["ship"]})
    found = read(tmp_path, "l.geojson")
    np.testing.assert_allclose(found.boxes, [PIXELS], atol=1e-6)
    told = [str(problem) for problem in found.problems]
    assert "its numbers are no degrees, as EPSG:4326 would have them" in told[0]
    assert "its coordinates are taken as those of the images, EPSG:32633" in told[1]


def test_a_shapefile_without_prj(tmp_path):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.shp", [BOX], "", **{"class": ["ship"]})
    found = read(tmp_path, "l.shp")
    np.testing.assert_allclose(found.boxes, [PIXELS], atol=1e-6)
    assert kinds(found) == ["coordinates"] and "it has no CRS: its coordinates are taken as" in found.problems[0]


@pytest.mark.parametrize(
    ("y", "ways"), [((-30, -20), "y upwards, as QGIS shows them"), ((20, 30), "y downwards")], ids=["QGIS", "down"]
)
def test_a_scene_without_a_place_is_pixels(tmp_path, y, ways):
    scene(tmp_path / "scene.tif", "", None)
    geojson(tmp_path / "l.geojson", [ring(5, y[0], 9, y[1]), ring(50, y[0], 60, y[1])], **{"class": ["ship"] * 2})
    found = read(tmp_path, "l.geojson")
    assert found.boxes.tolist() == [[5, 20, 9, 30], [50, 20, 60, 30]]
    assert kinds(found) == ["coordinates"] and ways in found.problems[0]


def test_degrees_over_a_scene_without_a_place_are_no_pixels(tmp_path):
    scene(tmp_path / "scene.tif", "", None)
    geojson(tmp_path / "l.geojson", [ring(13.4, 52.5, 13.4001, 52.5001)], **{"class": ["ship"]})
    found = read(tmp_path, "l.geojson")
    assert not len(found) and "no place on the map, and l.geojson is not in its pixels" in said(found, "no place")
    assert command("data", "check", tmp_path / "set.yaml", runs=tmp_path / "runs") == 1


def test_neighbouring_tiles_share_objects_by_the_rule_of_tiles(tmp_path):
    """Two tiles of 100 px side by side; objects with 60 and 40 % in each, with 80 and 20 %, and one far from both."""
    scene(tmp_path / "images" / "a.tif")
    scene(tmp_path / "images" / "b.tif", transform=(0.5, 0, 500_050, 0, -0.5, 5_000_000), seed=1)
    tops = [[500_000 + x1 / 2, 4_999_990, 500_000 + x2 / 2, 4_999_995] for x1, x2 in ((94, 104), (92, 102), (900, 910))]
    vectors(tmp_path / "l.gpkg", [ring(*box) for box in tops], **{"class": ["ship"] * 3})
    found = read(tmp_path, "l.gpkg", images="images")
    rows = [found.boxes[found.rows(i)].tolist() for i in (0, 1)]
    assert rows == [[[94, 10, 100, 20], [92, 10, 100, 20]], [[0, 10, 4, 20]]]
    assert [str(problem).split("gpkg: ")[1] for problem in found.problems] == [
        "3 objects reach over the edge of an image and are cut there",
        "1 parts at edges have less than 0.3 of the area of their object: left out",
        "1 of 3 objects lie in none of the images",
    ]
    report, _ = check.inspect(spec.load(tmp_path / "set.yaml"))
    assert report["ok"], report["problems"]  # all of this is how tiles are


def test_one_file_for_two_splits(tmp_path):
    scene(tmp_path / "a.tif")
    scene(tmp_path / "b.tif", transform=(0.5, 0, 600_000, 0, -0.5, 5_000_000), seed=1)
    vectors(tmp_path / "l.gpkg", [BOX, ring(600_001, 4_999_980, 600_002, 4_999_990)], **{"class": ["ship", "car"]})
    both = dict.fromkeys(("train", "val"), "l.gpkg")
    data = spec.load(
        data_yaml(tmp_path / "d.yaml", train="a.tif", val="b.tif", annotations=both, names=["ship", "car"])
    )
    assert data.read("train").labels.tolist() == [0] and data.read("val").labels.tolist() == [1]
    assert data.read("val").boxes.round(6).tolist() == [[2, 20, 4, 40]]
    assert "1 of 2 objects lie in none of the images" in said(data.read("val"), "elsewhere")


def test_labels_elsewhere_are_wrong_and_say_where(tmp_path, capsys):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.gpkg", [ring(1, 1, 2, 2)], **{"class": ["ship"]})
    assert command("data", "check", data_yaml(tmp_path / "s.yaml", train="scene.tif", annotations={"train": "l.gpkg"},
                   names=["ship"]), runs=tmp_path / "runs") == 1  # fmt: skip
    text = capsys.readouterr().out
    assert "none of 1 objects lies in an image: they reach over x 1 to 2, y 1 to 2 (EPSG:32633), scene.tif over" in text


def test_a_file_for_each_image(tmp_path):
    for i, name in enumerate("abc"):
        scene(tmp_path / "images" / f"{name}.tif", seed=i)
    vectors(tmp_path / "images" / "a.gpkg", [BOX], **{"class": ["ship"]})
    vectors(tmp_path / "images" / "c.gpkg", [BOX, BOX], **{"class": ["ship", "ship"]})
    found = read(tmp_path, None, images="images", annotations=None, format="gpkg")
    assert found.image_index.tolist() == [0, 2, 2] and len(found) == 3
    assert "1 of 3 images have no label file, such as b.gpkg" in said(found, "label without image")
    with pytest.raises(UserError, match=r"no label file of an image's name, such as a\.shp; a file for all images"):
        read(tmp_path, None, images="images", annotations=None, format="shp")


@pytest.mark.parametrize(
    ("attributes", "names", "labels"),
    [
        ({"fid_": [1, 2], "Label": ["car", "ship"]}, ["ship", "car"], [1, 0]),
        ({"name": ["A 1", "A 2"], "kind": ["ship", "car"]}, ["ship", "car"], [0, 1]),  # values decide
        ({"note": ["ship", "car"]}, ["ship", "car"], [0, 1]),  # no such name, but all are classes
        ({"class": [1, 0]}, ["ship", "car"], [1, 0]),
        ({"class_id": [1.0, 0.0]}, ["ship", "car"], [1, 0]),
        ({"class": ["7", "9"]}, ["9", "7"], [1, 0]),  # names that are numbers
        ({"height": [3.5, 4.5]}, ["ship"], [0, 0]),  # one class only
        ({"class": ["tree", "bush"]}, None, [1, 0]),  # in the order of the alphabet
        ({"class": [10, 9]}, None, [1, 0]),
    ],
)
def test_which_attribute_names_the_class(tmp_path, attributes, names, labels):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.gpkg", [BOX, BOX], **attributes)
    found = read(tmp_path, "l.gpkg", names=names)
    assert found.labels.tolist() == labels and not {"unknown class", "no class"} & {*kinds(found)}


@pytest.mark.parametrize(
    ("attributes", "content", "message"),
    [
        (
            {"height": [3.5]},
            {"names": ["ship", "car"]},
            r"l\.gpkg: which attribute names the class\? class_field: NAME; C",
        ),
        ({"class": ["sihp"]}, {}, r"1 objects: class 'sihp' is not in names; did you mean 'ship'"),
        ({"class": [3]}, {"names": ["ship", "car"]}, r"class 3 is not in names; there are: 0 ship, 1 car"),
        ({"a": ["x"]}, {"class_field": "clas"}, r"l\.gpkg: class_field: clas: no such attribute; Choices: a"),
        ({"class": ["ship"]}, {"layer": "labls"}, r"l\.gpkg: no layer 'labls'; did you mean 'labels'\?"),
        ({"class": ["ship"]}, {"layer": {"tset": "labels"}}, r"layer\.tset: no images for it"),
    ],
)
def test_what_cannot_be_known_is_asked(tmp_path, attributes, content, message):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.gpkg", [BOX], **attributes)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, "l.gpkg", strict=True, **content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("scene.tiff", "l.gpkg", r"set\.yaml: train: no such image: .*scene\.tiff"),
        ("scene.tif", "l.json", r"l\.json: not a COCO JSON: .*; it is a GeoJSON, whose name ends in \.geojson"),
        ("scene.tif", "l.kml", r"l\.kml: not a file of labels by its name .*Choices: \.csv, \.fgb, \.geojson, \.gpkg"),
        ("scene.tif", "m.gpkg", r"m\.gpkg: no such file of labels; in that folder: l\.gpkg"),
    ],
)
def test_names_of_files_that_are_wrong(tmp_path, images, labels, message):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.gpkg", [BOX], **{"class": ["ship"]})
    for suffix in (".json", ".kml"):
        geojson(tmp_path / f"l{suffix}", [BOX], **{"class": ["ship"]})
    with pytest.raises(UserError, match=message):
        read(tmp_path, labels, images=images)


def test_classes_from_one_instead_of_zero_are_suspected(tmp_path):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.gpkg", [BOX, BOX], **{"class": [1, 2]})
    with pytest.raises(UserError, match="the classes seem to be numbered from 1 to 2, as there is no 0"):
        read(tmp_path, "l.gpkg", strict=True, names=["ship", "car"])


def test_class_field_and_layer_are_keys(tmp_path):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.gpkg", [BOX], layer="first", **{"class": ["car"], "what": ["ship"]})
    vectors(
        tmp_path / "l.gpkg", [BOX, BOX], layer="second", append=True, **{"class": ["car"] * 2, "what": ["ship"] * 2}
    )
    with pytest.raises(UserError, match=r"several layers; say which: layer: NAME; Choices: first, second"):
        read(tmp_path, "l.gpkg")
    assert read(tmp_path, "l.gpkg", layer="second", class_field="WHAT").labels.tolist() == [0, 0]
    both = {"train": "first", "val": "second"}
    files = dict.fromkeys(both, "l.gpkg")
    data = data_yaml(
        tmp_path / "t.yaml", **dict.fromkeys(both, "scene.tif"), annotations=files, layer=both, names=["car"]
    )
    data = spec.load(data)
    assert [len(data.read(split).labels) for split in both] == [1, 2]


def test_what_is_no_object_is_told_and_left_out(tmp_path):
    scene(tmp_path / "scene.tif", transform=(0.5, 0, 499_990, 0, -0.5, 20))
    good = ring(15.0, 0.0, 15.0001, 0.0001)
    high = [[x, y, 7.5] for x, y in good]
    two = {"type": "MultiPolygon", "coordinates": [[good], [ring(15.0002, 0.0, 15.0003, 0.0001)]]}
    flat = [[15.0, 0.0], [15.0001, 0.0], [15.0, 0.0], [15.0, 0.0]]
    point, line = {"type": "Point", "coordinates": [15, 0]}, {"type": "LineString", "coordinates": good[:2]}
    shapes = [high, two, None, point, line, flat, good, good]
    names = ["ship"] * 6 + [None, "blur"]
    geojson(tmp_path / "l.geojson", shapes, **{"class": names, "iscrowd": [0, 0, 0, 0, 0, 0, 0, "maybe"]})
    found = read(tmp_path, "l.geojson", names=["ship", "blur"], ignore=["blur"])
    assert found.labels.tolist() == [0, 0, -1]
    np.testing.assert_allclose(found.boxes[1], [20, 17.894, 20 + 6 * 11.1275, 40], atol=5e-3)  # a multipolygon is one
    left_out = ["no geometry", "not a polygon", "not a polygon", "empty box", "bad mark", "no class"]
    assert kinds(found) == ["outlines", "GDAL", *left_out]
    assert "heights (z) are not used" in said(found, "GDAL") and "feature 3: a Point" in said(found, "not a polygon")


def test_outlines_and_marks(tmp_path):
    scene(tmp_path / "scene.tif")
    star = [[500_005, 4_999_990], [500_010, 4_999_985], [500_005, 4_999_980], [500_000, 4_999_985]]
    columns = {"class": ["ship", "ship"], "iscrowd": [0, 1], "difficult": [1, 0], "id": [41, 17]}
    vectors(tmp_path / "l.gpkg", [star, BOX], **columns)
    found = read(tmp_path, "l.gpkg")
    np.testing.assert_allclose(found.boxes, [[0, 20, 20, 40], PIXELS], atol=1e-6)
    assert found.labels.tolist() == [0, -1] and found.extra["difficult"].tolist() == [1, 0]
    assert found.ids.tolist() == [41, 17] and "1 objects are outlines" in said(found, "outlines")


def test_our_own_predictions_are_labels(tmp_path):
    scene(tmp_path / "scene.tif")
    boxes = np.array([[10.0, 20, 20, 40], [50.5, 3.25, 60, 9]])
    maps.write(
        tmp_path / "p.geojson", boxes, np.array([0.9, 0.4]), np.array([1, 0]), {0: "ship", 1: "car"}, UTM33, NORTH_UP
    )
    found = read(tmp_path, "p.geojson", names=["ship", "car"])
    np.testing.assert_allclose(found.boxes, boxes, atol=0.05)  # seven digits of a degree
    assert found.labels.tolist() == [1, 0] and found.scores is None and kinds(found) == ["scores"]


def test_pixels_over_a_scene_with_a_transform_alone(tmp_path):
    """As predictions are written of a scene without a CRS."""
    scene(tmp_path / "scene.tif", "")
    maps.write(tmp_path / "p.gpkg", np.array([PIXELS], float), np.ones(1), np.zeros(1, int), {0: "ship"}, "", NORTH_UP)
    found = read(tmp_path, "p.gpkg")
    assert found.boxes.tolist() == [PIXELS] and "taken as its pixels, y downwards" in said(found, "coordinates")


def test_images_of_two_zones_in_one_file(tmp_path):
    """The same place in zones 32 and 33; the file is in the CRS of the first image."""
    scene(tmp_path / "images" / "a.tif", "EPSG:32632", (0.5, 0, 500_000, 0, -0.5, 5_000_000))
    scene(tmp_path / "images" / "b.tif", seed=1)
    (tmp_path / "labels").mkdir()
    for name in "ab":
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.5")
    file = data_yaml(tmp_path / "set.yaml", train="images", names=["ship"])
    assert command("data", "convert", file, to="gpkg", out=tmp_path / "out") == 0
    assert pyogrio.read_info(tmp_path / "out" / "annotations" / "train.gpkg")["crs"] == "EPSG:32632"
    found = spec.load(tmp_path / "out" / "data.yaml").read("train", strict=True)
    np.testing.assert_allclose(found.boxes, [[37.5, 20, 62.5, 60]] * 2, atol=1e-3)


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    scene(tmp_path / "scene.tif")
    geojson(tmp_path / "l.geojson", [BOX], **{"class": ["ship"]})
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None if name == "shapely" else True)
    with pytest.raises(UserError, match=r"l\.geojson: reading labels of a map needs the package shapely: pip install"):
        read(tmp_path, "l.geojson")


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: 60 if path.suffix == ".shp" else 300]),
    "nothing behind the first bytes": lambda path: path.write_bytes(path.read_bytes()[:16] + b"\0" * 5000),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb"])
def test_a_damaged_file_is_one_line(tmp_path, capsys, suffix, damage):
    scene(tmp_path / "scene.tif")
    path = vectors(tmp_path / f"l{suffix}", [BOX], **{"class": ["ship"]})
    DAMAGED[damage](path)
    if (suffix, damage) == (".shp", "nothing behind the first bytes"):  # its index says that there is an object
        assert kinds(read(tmp_path, path.name)) == ["no geometry"]
        return
    with pytest.raises(UserError) as error:
        read(tmp_path, path.name, strict=True)
    assert path.name in str(error.value) and "\n" not in str(error.value)
    code, _, err = call("data", "stats", str(tmp_path / "set.yaml"), f"runs={tmp_path}", capsys=capsys)
    assert code == 2 and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("part", "message"),
    [("shx", r"l\.shp: not readable: .*l\.shx"), ("dbf", "which attribute names the class"), ("prj", "")],
)
def test_a_shapefile_without_one_of_its_files(tmp_path, part, message):
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "l.shp", [BOX], **{"class": ["ship"]})
    (tmp_path / f"l.{part}").unlink()
    if message:
        with pytest.raises(UserError, match=message):
            read(tmp_path, "l.shp", names=["ship", "car"])
    else:
        assert "it has no CRS" in said(read(tmp_path, "l.shp"), "coordinates")


@pytest.mark.parametrize(
    ("number", "kind"), [("NaN", "no geometry"), ('"x"', "no geometry"), ("1e300", "nowhere"), ("null", "no geometry")]
)
def test_coordinates_that_are_none(tmp_path, number, kind):
    scene(tmp_path / "scene.tif")
    file = geojson(tmp_path / "l.geojson", [[["@", 0], [1, 1], [1, 0], ["@", 0]]], **{"class": ["ship"]})
    file.write_text(file.read_text().replace('"@"', number))
    found = read(tmp_path, "l.geojson")
    assert not len(found.labels) and kind in kinds(found)


def test_other_formats_under_a_name_of_ours_are_not_opened(tmp_path):
    """GDAL goes by content: a VRT would lead to another file."""
    scene(tmp_path / "scene.tif")
    vectors(tmp_path / "other.gpkg", [BOX], **{"class": ["ship"]})
    layer = f"<OGRVRTLayer name='labels'><SrcDataSource>{tmp_path}/other.gpkg</SrcDataSource></OGRVRTLayer>"
    (tmp_path / "l.geojson").write_text(f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>")
    with pytest.raises(UserError, match=r"l\.geojson: it does not begin as a \.geojson file does"):
        read(tmp_path, "l.geojson")


def test_the_first_of_several_candidates(tmp_path):
    fields = {"Name": np.array(["a", None], object), "LABEL": np.array(["x", "ship"], object)}
    assert called(("label", "name"), fields) == ["LABEL", "Name"]
    assert class_field(tmp_path, fields, ["ship"], "") == "LABEL" and class_field(tmp_path, fields, (), "") == "LABEL"
    assert class_field(tmp_path, {"height": np.array([1.0])}, (), "") == ""


@pytest.mark.parametrize("to", ["gpkg", "geojson", "shp"])
@pytest.mark.parametrize(
    "place",
    [
        (UTM33, NORTH_UP),
        ("EPSG:32760", (0.4, 0.3, 300_000, 0.3, -0.4, 5_500_000)),
        ("EPSG:32611", (1, 0, 400_000, 0, 1, 4_000_000)),
        ("EPSG:4326", (1e-5, 0, 12.5, 0, -1e-5, 48.25)),
        ("EPSG:3857", (0.3, 0, 1_391_000, 0, -0.3, 6_160_000)),
        ("", (0.5, 0, 100, 0, -0.5, 200)),
        ("", None),
    ],
    ids=["UTM", "turned", "south up", "degrees", "Mercator", "no CRS", "no place"],
)
def test_written_and_read_again(tmp_path, capsys, to, place):
    """Two images side by side, boxes in both, and an ignore region: the same boxes in the same images."""
    crs, transform = place
    scene(tmp_path / "images" / "a.tif", crs, transform)
    scene(tmp_path / "images" / "b.tif", crs, transform, seed=1)  # of the same place: the attribute says which is meant
    lines = {"a": ["0 0.5 0.5 0.25 0.5", "1 0.1 0.9 0.03 0.05"], "b": ["1 0.25 0.25 0.1 0.1"]}
    for name, rows in lines.items():
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text("\n".join(rows))
    file = data_yaml(tmp_path / "set.yaml", train="images", names=["ship", "blur"], ignore=["blur"])
    assert command("data", "convert", file, to=to, out=tmp_path / "out") == 0
    first, again = spec.load(file).read("train"), spec.load(tmp_path / "out" / "data.yaml").read("train", strict=True)
    tolerance = 0.11 if to == "geojson" and crs else 1e-6  # degrees have digits for a tenth of a pixel
    np.testing.assert_allclose(again.boxes, first.boxes, atol=tolerance)
    for name in ("labels", "image_index", "ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name), err_msg=name)
    assert again.names == first.names and again.file_names == first.file_names
    assert ("in pixels, y downwards: the images have no place" in capsys.readouterr().err) == (transform is None)


def test_images_with_and_without_a_place_cannot_be_in_one_file(tmp_path, capsys):
    scene(tmp_path / "images" / "a.tif")
    scene(tmp_path / "images" / "b.tif", "", None, seed=1)
    shutil.copytree(tmp_path / "images", tmp_path / "labels", ignore=lambda *_: ["a.tif", "b.tif"])
    file = data_yaml(tmp_path / "set.yaml", train="images", names=["ship"])
    code, _, err = call("data", "convert", str(file), "to=gpkg", f"out={tmp_path / 'out'}", capsys=capsys)
    assert code == 2 and "1 of 2 images have no place on the map, such as b.tif" in err and "to=coco" in err


@pytest.mark.slow
def test_trained_from_labels_of_a_map(tmp_path):
    scene(tmp_path / "scene.tif", size=(64, 64))
    vectors(tmp_path / "l.gpkg", [BOX], **{"class": ["ship"]})
    both = dict.fromkeys(("train", "val"), "l.gpkg")
    file = data_yaml(tmp_path / "d.yaml", **dict.fromkeys(both, "scene.tif"), annotations=both)
    keys = {"imgsz": 64, "epochs": 1, "batch": 1, "workers": 0, "device": "cpu", "project": tmp_path / "runs"}
    assert command("train", model="tinyyolo-n.yaml", data=file, **keys) == 0
