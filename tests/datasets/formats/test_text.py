"""YOLO, VisDrone, DOTA and xView files of exactly the official formats, expectations by hand."""

import numpy as np
import pytest
from PIL import Image

from tests.support.data_sets import dota_set, picture, visdrone_set, xview_set
from tinyyolo.config import UserError
from tinyyolo.datasets import images, spec
from tinyyolo.datasets.formats.table import FORMATS


def test_visdrone(tmp_path):
    found = spec.load(visdrone_set(tmp_path)).read("train")
    assert found.file_names == ["0000000.jpg", "0000001.jpg"] and len(found.names) == 10
    np.testing.assert_array_equal(found.labels, [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, 3, -1])
    np.testing.assert_array_equal(found.box_categories, [*range(12), 4, 4])
    np.testing.assert_array_equal(found.boxes[[1, 12]], [[8, 10, 14, 17], [5, 6, 12, 14]])
    np.testing.assert_array_equal(found.crowd, [*[i in (0, 11) for i in range(12)], False, True])
    np.testing.assert_array_equal(found.extra["occlusion"][[0, 12, 13]], [1, 2, 0])
    np.testing.assert_array_equal(found.extra["truncation"][[0, 12]], [0, 1])
    np.testing.assert_array_equal(found.sizes_hw, [[80, 120], [80, 120]])


def test_dota(tmp_path):
    found = spec.load(dota_set(tmp_path)).read("train")
    assert found.file_names == ["P0000.png", "P0001.png"] and found.names == {0: "plane", 1: "ship"}
    expected = [[5, 5, 15, 15], [100.5, 50.25, 110.5, 60.25], [780, 100, 820, 120], [1385, 895, 1390, 900]]
    np.testing.assert_array_equal(found.boxes, expected)
    np.testing.assert_array_equal(found.labels, [1, 0, 1, 0])
    np.testing.assert_array_equal(found.extra["difficult"], [0, 1, 0, 0])
    np.testing.assert_array_equal(found.areas, [100, 100, 800, 25])


def test_xview(tmp_path):
    data = spec.load(xview_set(tmp_path))
    with_missing = data.read("train")
    assert with_missing.file_names == ["109.tif", "24.tif"]
    np.testing.assert_array_equal(with_missing.sizes_hw, [[700, 900], [1000, 1390]])
    np.testing.assert_array_equal(with_missing.boxes, [[1, 2, 9, 9], [10, 20, 22, 30], [700, 700, 740, 730]])
    np.testing.assert_array_equal(with_missing.labels, [-1, 0, 1])  # a type without a name is an ignore region
    np.testing.assert_array_equal(with_missing.category_ids, [18, 86])
    assert [p.kind for p in with_missing.problems] == ["missing image"] and "1395.tif" in with_missing.problems[0]


def test_xview_has_sixty_classes(tmp_path):
    xview_set(tmp_path)
    found = FORMATS["xview"].read(tmp_path / "train_images")
    assert len(found.names) == 60 and found.names[0] == "Fixed-wing Aircraft" and found.names[59] == "Tower"


@pytest.mark.parametrize(
    ("reader", "folder", "text", "message"),
    [
        ("yolo", "labels", "0 .5 .5 .1 .1\n3 .5 .5 .1 .1\n", r"a\.txt:2: class 3 is not in names.*: 0 ship, 1 car"),
        ("yolo", "labels", "0 0.5 0.5 0.1\n", r"a\.txt:1: expected `class cx cy w h`, found 4 columns"),
        ("yolo", "labels", "0 0.5 x 0.1 0.1\n", r"a\.txt:1: expected numbers `class cx cy w h`: .*'x'"),
        ("yolo", "labels", "0.5 0.5 0.5 0.1 0.1\n", r"a\.txt:1: class 0\.5 is not in names"),
        ("visdrone", "annotations", "1,2,3,4,1,12,0,0\n", r"a\.txt:1: class 12 is not in names.* 0 ignored"),
        ("visdrone", "annotations", "1,2,3,4,1,1\n", r"a\.txt:1: expected `x,y,w,h,score,category,.*`, found 6"),
        ("visdrone", "annotations", "1;2;3\n", r"a\.txt:1: expected .* found 1 columns"),
        ("dota", "labelTxt", "gsd:1\n1 1 2 1 2 2 1 2 boat 0\n", r"a\.txt:2: class boat is not in.*: 1 ship, 2 car"),
        ("dota", "labelTxt", "1 1 2 1 2 2 1 ship 0\n1\n", r"a\.txt:1: expected numbers|a\.txt:2: expected `x1 y1"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path, reader, folder, text, message):
    picture(tmp_path / "images" / "a.png", 20, 20)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "a.txt").write_text(text)
    names = None if reader == "visdrone" else ["ship", "car"]
    with pytest.raises(UserError, match=message) as caught:
        FORMATS[reader].read(tmp_path / "images", names)
    assert "\n" not in str(caught.value)
    lenient = FORMATS[reader].read(tmp_path / "images", names, strict=False)
    assert len(lenient.labels) + len(lenient.problems) == len([x for x in text.split("\n") if x and "gsd" not in x])


def test_yolo_bad_geometry_is_listed(tmp_path):
    picture(tmp_path / "images" / "a.png", 20, 20)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(
        "0 0.5 0.5 0 0.1\n0 nan 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n"
    )
    found = FORMATS["yolo"].read(tmp_path / "images", ["ship"])
    np.testing.assert_allclose(found.boxes, [[9, 9, 11, 11], [9, 9, 11, 11]])  # the double line stays
    assert [p.kind for p in found.problems] == ["empty box", "not a number"]
    np.testing.assert_array_equal(found.ids, [1, 2])


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"pics: no such image folder; .* has the folders none"):
        FORMATS["yolo"].read(tmp_path / "pics", ["ship"])
    picture(tmp_path / "images" / "a.png", 20, 20)
    with pytest.raises(UserError, match=r"labels: no such YOLO label folder for the images in .*images"):
        FORMATS["yolo"].read(tmp_path / "images", ["ship"])
    with pytest.raises(UserError, match=r"YOLO labels carry no class names"):
        FORMATS["yolo"].read(tmp_path / "images", [])


@pytest.mark.parametrize("reader", ["yolo", "visdrone", "dota"])
def test_an_empty_folder_is_normal(tmp_path, reader):
    (tmp_path / "images").mkdir()
    (tmp_path / FORMATS[reader].labels.format(split=".")).mkdir(parents=True)
    found = FORMATS[reader].read(tmp_path / "images", ["ship"])
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.sizes_hw.shape == (0, 2)


@pytest.mark.parametrize(("orientation", "size"), [(1, (20, 30)), (6, (30, 20))])
def test_sizes_are_as_opencv_reads_them(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert images.look(tmp_path / "a.jpg").size_hw == size == images.load(tmp_path / "a.jpg").shape[:2]


def test_scenes_larger_than_pillow_likes(tmp_path):
    """DOTA's reach 20,000 x 20,000 px; Pillow refuses from 179 million."""
    Image.new("1", (14000, 14000)).save(tmp_path / "a.png")
    assert images.look(tmp_path / "a.png").size_hw == (14000, 14000)


def test_unreadable_image_is_a_problem(tmp_path):
    picture(tmp_path / "images" / "a.png", 20, 20)
    (tmp_path / "images" / "b.png").write_text("no picture")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("")
    found = FORMATS["yolo"].read(tmp_path / "images", ["ship"])
    assert found.file_names == ["a.png"] and [p.kind for p in found.problems] == ["unreadable image"]
    with pytest.raises(ValueError, match="neither Pillow nor OpenCV can read it as an image"):
        images.load(tmp_path / "images" / "b.png")
