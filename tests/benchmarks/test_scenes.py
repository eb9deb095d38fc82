"""The scenes that benchmarks/scenes.py makes, and how it counts; positions worked out by hand."""

import json
from argparse import Namespace

import cv2
import numpy as np
import pytest
import rasterio

from benchmarks import scenes
from tests.support.data_sets import annotation, coco, picture

SIZES = {"a": (60, 40), "b": (50, 40)}  # width, height


@pytest.fixture
def small(tmp_path):
    """Two images with a box each; the second also has a region to ignore."""
    pixels = {name: picture(tmp_path / "images" / f"{name}.png", *size, seed=ord(name)) for name, size in SIZES.items()}
    records = [(i, f"{name}.png", *size) for i, (name, size) in enumerate(SIZES.items())]
    boxes = [annotation(1, 0, 7, [4, 6, 10, 8]), annotation(2, 1, 7, [20, 10, 6, 4]), annotation(3, 1, 9, [0, 0, 5, 5])]
    file = coco(tmp_path / "all.json", records, boxes, [(7, "ship"), (9, "haze")])
    return Namespace(file=file, images=tmp_path / "images", pixels=pixels)


def made(small, **how):
    mosaic = scenes.Mosaic.of(small.file, small.images, **{"side": 100, "ignore": ["haze"], **how})
    first = mosaic.notes.file_names[mosaic.order[0]]
    return mosaic, first


def seed_of(small, first):
    return next(seed for seed in range(20) if made(small, seed=seed)[1] == first)


def test_images_and_boxes_stand_where_they_are_put(small):
    """Rows of 40 px: a at 0, b at 60, whose end at 110 reaches 100; so do three rows; 110 x 120 px become 128 x 128."""
    mosaic, _ = made(small, seed=seed_of(small, "a.png"))
    assert mosaic.size_hw == (128, 128) and len(mosaic.cells) == 6
    scene = np.concatenate([*mosaic.bands()])
    assert scene.shape == (128, 128, 3) and (scene[120:] == 114).all() and (scene[:, 110:] == 114).all()
    np.testing.assert_array_equal(scene[:40, :60], small.pixels["a"])
    np.testing.assert_array_equal(scene[:40, 60:110], small.pixels["b"])
    np.testing.assert_array_equal(scene[40:80, :60], small.pixels["a"][:, ::-1])
    np.testing.assert_array_equal(scene[80:120, 60:110], small.pixels["b"][::-1])
    truth = mosaic.truth()
    boxes = [row["bbox"] for row in truth["annotations"]]
    assert boxes[:3] == [[4, 6, 10, 8], [80, 10, 6, 4], [60, 0, 5, 5]]
    assert boxes[3:6] == [[46, 46, 10, 8], [84, 50, 6, 4], [105, 40, 5, 5]]  # mirrored: 60 - 14, 60 + 50 - 26, 60 + 45
    assert boxes[6:] == [[4, 106, 10, 8], [80, 106, 6, 4], [60, 115, 5, 5]]  # 80 + 40 - 14, 80 + 40 - 14, 80 + 35
    assert [row["category_id"] for row in truth["annotations"][:3]] == [1, 1, 0]
    assert truth["categories"] == [{"id": 0, "name": scenes.REGIONS}, {"id": 1, "name": "ship"}]


def test_half_the_size_and_a_gap(small):
    """30 x 20 and 25 x 20 px with 10 px between them: 0, 40, 75, then 100 is reached; rows at 0, 30, 60, 90."""
    mosaic, _ = made(small, seed=seed_of(small, "a.png"), scale=0.5, gap=10)
    assert [(cell.x, cell.y) for cell in mosaic.cells[:4]] == [(0, 0), (40, 0), (75, 0), (0, 30)]
    assert mosaic.cells[-1].y == 90 and mosaic.size_hw == (128, 128)
    scene, boxes = np.concatenate([*mosaic.bands()]), [row["bbox"] for row in mosaic.truth()["annotations"]]
    assert (scene[20:30] == 114).all() and (scene[:20, 30:40] == 114).all()
    assert boxes[:3] == [[2, 3, 5, 4], [50, 5, 3, 2], [40, 0, 2.5, 2.5]]


@pytest.mark.parametrize("layout", scenes.SUFFIXES)
def test_files_hold_the_scene(small, layout, tmp_path):
    mosaic, _ = made(small)
    path, scene = mosaic.write(tmp_path / "out", layout), np.concatenate([*mosaic.bands()])
    np.testing.assert_array_equal(cv2.imread(str(path)), scene)
    if layout != "png":
        with rasterio.open(path) as file:
            assert file.crs.to_epsg() == 32633 and file.transform[:6] == (0.3, 0, 500_000, 0, -0.3, 5_000_000)
            assert file.profile["tiled"] == (layout == "tiled")


def test_counts(small):
    """One of four ships found twice, a detection on haze that does not count, one on nothing."""
    mosaic, _ = made(small, side=60, seed=seed_of(small, "b.png"))  # b and a, below them both mirrored
    truth = mosaic.truth()
    ship = np.array([20.0, 10, 26, 14])
    rows = [[*ship, 0.9, 0], [*ship, 0.8, 0], [0, 0, 5, 5, 0.7, 0], [90, 30, 95, 35, 0.6, 0], [90, 30, 95, 35, 0.2, 0]]
    found, right = scenes.right_of(scenes.judged(truth, np.array(rows), 0.5))
    assert found.tolist() == [True, False, False, False] and right.tolist() == [True, False, False]


def test_cuts_are_where_cores_end():
    """Windows of 640 px with a halo of 64: cores end at 576, and at 512 + 640 - 64 = 1088."""
    columns, rows = scenes.cuts((600, 1300), {"tile": 640, "overlap": 128})
    assert columns.tolist() == [576, 1088] and rows.tolist() == []
    assert scenes.distance(np.array([[590.0, 0, 600, 9], [1000, 0, 1088, 5]]), columns, rows).tolist() == [14, 0]


def test_the_same_detection():
    """IoU of 10 x 10 px moved by .5 px: 95 / 105 = .905; by .6 px: 94 / 106 = .887."""
    rows = np.array([[0, 0, 10, 10, 0.5, 0]] * 4, float)
    others = rows + [[0.5, 0, 0.5, 0, 0.01, 0], [0.6, 0, 0.6, 0, 0, 0], [0, 0, 0, 0, 0.03, 0], [0, 0, 0, 0, 0, 1]]
    found = [bool(scenes.matched(rows[:1], others[i : i + 1])) for i in range(4)]
    assert found == [True, False, False, False]


def test_a_clock_counts_inner_calls_once():
    class Work:
        @classmethod
        def outer(cls, n):
            return cls.inner(n) + 1

        @classmethod
        def inner(cls, n):
            return sum(range(n))

    clock = scenes.Clock()
    clock.on(Work, "outer")
    clock.on(Work, "inner")
    assert Work.outer(100_000) == sum(range(100_000)) + 1
    once = clock.seconds
    assert once > 0 and clock.depth == 0
    clock.on_path("tinyyolo.boxes.nms", "no_such.thing")


def test_the_command_writes_scenes_and_their_truth(small, tmp_path, capsys):
    words = ["mosaic", "-", small.file, small.images, "--side", "100", "--out", tmp_path / "made", "--scale", "0.5"]
    scenes.main([str(word) for word in words])
    truth = json.loads((tmp_path / "made" / "scene.tif.json").read_text())
    assert truth["images"] == [{"id": 1, "file_name": "scene.tif", "width": 128, "height": 128}]
    assert cv2.imread(str(tmp_path / "made" / "scene.png")).shape == (128, 128, 3)
    assert "128 x 128 px, 20 images" in capsys.readouterr().out


def test_joining_is_measured_of_drawn_objects(capsys):
    scenes.main(["unite", "-", "-", "-", "--objects", "50", "200"])
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines() if "|" in line]
    few, many = rows[2:]
    assert few[1:3] == ["50", "600"] and many[1:3] == ["200", "2,400"]
    assert 50 <= int(few[3]) <= 60 and 200 <= int(many[3]) <= 240
