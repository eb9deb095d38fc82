"""Tiles by AI-TOD's own rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.data_sets import annotation, coco
from tinyyolo.config import UserError
from tinyyolo.datasets.convert import tile
from tinyyolo.datasets.formats import coco as coco_json


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (800, [0]),
        (801, [0, 1]),
        (600, [0]),
        (1, [0]),
        (1200, [0, 400]),
        (1400, [0, 600]),
        (1390, [0, 600, 590]),  # the one before the last reaches over the edge
        (3000, [0, 600, 1200, 1800, 2200]),
        (3219, [0, 600, 1200, 1800, 2400, 2419]),
        (4990, [0, 600, 1200, 1800, 2400, 3000, 3600, 4200, 4190]),  # AI-TOD has 1987__4200_600 and 1987__4190_1800
    ],
)
def test_starts(length, expected):
    assert tile.starts(length, 800, 200) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 900), st.data())
def test_tiles_cover_a_scene_without_doubles(length, side, data):
    overlap = data.draw(st.integers(0, side - 1))
    found = tile.starts(length, side, overlap)
    assert len(set(found)) == len(found)
    covered = np.zeros(length, bool)
    for start in found:
        assert 0 <= start < length
        covered[start : start + side] = True
    assert covered.all()


def test_which_boxes_stay():
    boxes = np.array([[0.0, 0, 8, 8], [796, 0, 804, 8], [797.6, 0, 805.6, 8], [797.5, 0, 805.5, 8], [800, 0, 808, 8]])
    np.testing.assert_array_equal(tile.staying(boxes, (0, 0), 800, 0.3), [True, True, True, True, False])
    np.testing.assert_array_equal(tile.staying(boxes, (0, 0), 800, 0.31), [True, True, False, True, False])
    np.testing.assert_array_equal(tile.staying(boxes, (0, 0), 800, 1.0), [True, False, False, False, False])
    np.testing.assert_array_equal(tile.staying(boxes, (0, 0), 800, "centre"), [True, False, False, False, False])
    np.testing.assert_array_equal(tile.staying(boxes, (600, 0), 800, "centre"), [False, True, True, True, True])
    assert tile.staying(np.zeros((0, 4)), (0, 0), 800, 0.3).shape == (0,)


@pytest.fixture
def scenes(tmp_path):
    rows = [
        (1, 1, 1, [10, 10, 20, 20]),  # first tile only
        (2, 1, 1, [60, 10, 60, 10]),  # 40 of 60 px in the first tile, 60 in the second, which begins at 50
        (3, 1, 2, [140, 90, 10, 10]),  # the last corner
        annotation(4, 1, 1, [90, 0, 40, 40], iscrowd=1),
        (5, 2, 1, [5, 5, 10, 10]),
    ]
    path = coco(tmp_path / "s.json", [(1, "p/s.tif", 150, 100), (2, "t.png", 60, 40)], rows, [(1, "ship"), (2, "car")])
    return coco_json.read(path)


def name_of(scene, corner):
    return f"{scene}@{corner[0]},{corner[1]}"


@pytest.mark.parametrize(
    ("keep", "expected", "lost", "fragments"),
    [
        (
            0.3,
            [
                ("p/s.tif@0,0", [10, 10, 30, 30], 0),
                ("p/s.tif@0,0", [60, 10, 100, 20], 0),
                ("p/s.tif@0,0", [90, 0, 100, 40], -1),
                ("p/s.tif@50,0", [10, 10, 70, 20], 0),
                ("p/s.tif@50,0", [90, 90, 100, 100], 1),
                ("p/s.tif@50,0", [40, 0, 80, 40], -1),
                ("t.png@0,0", [5, 5, 15, 15], 0),
            ],
            0,
            0,
        ),
        (
            0.7,
            [
                ("p/s.tif@0,0", [10, 10, 30, 30], 0),
                ("p/s.tif@0,0", [90, 0, 100, 40], -1),
                ("p/s.tif@50,0", [10, 10, 70, 20], 0),
                ("p/s.tif@50,0", [90, 90, 100, 100], 1),
                ("p/s.tif@50,0", [40, 0, 80, 40], -1),
                ("t.png@0,0", [5, 5, 15, 15], 0),
            ],
            0,
            1,
        ),
    ],
)
def test_annotations_of_tiles_by_hand(scenes, keep, expected, lost, fragments):
    made, plan, counts = tile.cut_annotations(scenes, 100, 50, keep, name_of)
    assert made.file_names == ["p/s.tif@0,0", "p/s.tif@50,0", "t.png@0,0"]
    assert [[corner for corner, _ in tiles] for tiles in plan] == [[(0, 0), (50, 0)], [(0, 0)]]
    found = [
        (made.file_names[i], box, label)
        for i, box, label in zip(made.image_index, made.boxes.tolist(), made.labels.tolist(), strict=True)
    ]
    assert found == expected
    assert counts == {"scenes": 2, "tiles": 3, "boxes": len(expected), "boxes_lost": lost, "fragments": fragments}
    np.testing.assert_array_equal(made.sizes_hw, np.full((3, 2), 100))
    for ids in (made.ids, made.image_ids):
        np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))


def test_centre_rule_puts_each_object_into_the_tiles_of_its_centre(scenes):
    made, _, counts = tile.cut_annotations(scenes, 100, 0, "centre", name_of)
    ships = made.labels == 0
    assert counts["boxes_lost"] == 0
    assert made.boxes[ships].tolist() == [[10, 10, 30, 30], [60, 10, 100, 20], [10, 10, 70, 20], [5, 5, 15, 15]]


def test_a_box_larger_than_a_tile_is_lost_and_counted(tmp_path):
    path = coco(tmp_path / "s.json", [(1, "s.png", 300, 300)], [(1, 1, 1, [0, 0, 300, 300])], [(1, "ship")])
    made, _, counts = tile.cut_annotations(coco_json.read(path), 100, 50, 0.3, name_of)
    assert len(made.labels) == 0 and counts["boxes_lost"] == 1 and counts["fragments"] == counts["tiles"]


def test_images_are_black_beyond_the_edge(rng):
    scene = rng.integers(1, 256, (90, 130, 3), np.uint8)
    part = tile.cut_image(scene, (100, 50), (60, 60))
    np.testing.assert_array_equal(part[:40, :30], scene[50:, 100:])
    assert part.shape == (60, 60, 3) and part[40:].max() == 0 and part[:, 30:].max() == 0
    np.testing.assert_array_equal(tile.cut_image(scene, (10, 20), (60, 60)), scene[20:80, 10:70])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 0, 0.3), "tile=0: expected a positive number"),
        ((800, 800, 0.3), "overlap=800: expected 0 to tile - 1 = 799"),
        ((800, -1, 0.3), "overlap=-1"),
        ((800, 200, 0), "keep=0: expected a share of the area"),
        ((800, 200, 1.2), "keep=1.2"),
        ((800, 200, "center"), "keep=center: .* or 'centre'"),
    ],
)
def test_bad_arguments(values, message):
    with pytest.raises(UserError, match=message):
        tile.check_arguments(*values)
