"""The sheet of a scene: boxes at their places, density where there are too many, crops of the right pixels."""

import math

import numpy as np
import pytest

from tinyyolo.plots.pictures import class_colour
from tinyyolo.plots.scene import (
    CELL,
    GRID,
    MAP,
    Detections,
    chosen,
    crowded,
    density,
    enlarged,
    headline,
    image_sheet,
    marks_of,
    scene_sheet,
    shade,
)


def detections(boxes, labels=None, size_hw=(2800, 2800), pixel=0.5):
    boxes = np.array(boxes, float).reshape(-1, 4)
    labels = np.zeros(len(boxes), int) if labels is None else np.array(labels)
    scores = np.linspace(0.9, 0.3, len(boxes))
    metres = (boxes[:, 2:] - boxes[:, :2]) * pixel
    return Detections(size_hw, boxes, scores, labels, {0: "ship", 1: "car"}, metres, pixel)


def crop_of(scene):
    return lambda left, top, right, bottom: scene[top:bottom, left:right]


GREY = np.full((2800, 2800, 3), 120, np.uint8)


def test_boxes_are_at_their_places():
    """Half the size: a box of 100 px at 1000, 600 is one of 50 px at 500, 300 of the map, in its class's colour."""
    found = detections([[1000, 600, 1100, 700], [2000, 2000, 2060, 2040]], [0, 1])
    sheet = scene_sheet(GREY[::4, ::4], found, crop_of(GREY), "a scene")
    grey = (sheet == 120).all(-1)
    y, x = (int(np.flatnonzero(grey.sum(axis) > 1000)[0]) for axis in (1, 0))  # the map's corner
    assert MAP == 1400
    for label, (left, top, right, bottom) in enumerate(((500, 300, 550, 350), (1000, 1000, 1030, 1020))):
        for at in ((top, left), (top, right), (bottom, left), (bottom, right)):
            assert tuple(sheet[y + at[0], x + at[1]]) == class_colour(label)
        assert tuple(sheet[y + top + 8, x + left + 8]) == (120, 120, 120)
    bare = scene_sheet(GREY[::4, ::4], found, crop_of(GREY), "a scene", boxes=False)
    assert tuple(bare[y + 300, x + 500]) == (120, 120, 120)


def test_too_many_boxes_become_density():
    """1,000 in one cell and one in another, which has the darkest colour."""
    middle = 1400 + GRID  # px of the scene, 700 + 7 of the map
    boxes = [[middle - 5, middle - 5, middle + 5, middle + 5]] * 1000 + [[205, 205, 215, 215]]
    found = detections(boxes)
    marks = marks_of(found.boxes / 2)
    assert (
        crowded(marks) and not crowded(marks[-1:]) and not crowded(marks_of(np.array([[0.0, 0, 9, 9], [20, 0, 29, 9]])))
    )
    picture, most = density(GREY[::2, ::2], marks)
    assert most == 1000 and shade(np.array([1000]), 1000).sum() > shade(np.array([1]), 1000).sum()
    lit = np.unique(np.argwhere(picture[..., 0] != picture[..., 1]) // GRID, axis=0)
    assert lit.tolist() == [[7, 7], [50, 50]]  # 105 / 14 and 707 / 14
    assert scene_sheet(GREY[::4, ::4], found, crop_of(GREY), "a scene").shape[1] > 1400


def test_classes_take_turns_among_the_best():
    best, doubtful = chosen(detections([[0, 0, 9, 9]] * 5, [0, 0, 0, 1, 0]), 2)
    assert best == [0, 3] and doubtful == [4, 2]


def test_a_crop_is_of_the_scenes_pixels():
    """A box of 10 px is shown with 38 px around it, five times as large: its pixel 0, 0 lies at 14 * 5."""
    scene = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    found = detections([[200, 100, 210, 110]], size_hw=(400, 400))
    shown = enlarged(found, 0, 1, crop_of(scene))
    assert shown.shape[1] == CELL == 190
    assert np.array_equal(shown[14 * 5 : 24 * 5, 14 * 5 : 24 * 5], scene[100:110, 200:210].repeat(5, 0).repeat(5, 1))
    assert tuple(shown[14 * 5 - 1, 14 * 5 - 1]) == class_colour(0)


@pytest.mark.parametrize("size_hw", ((1, 9000), (9000, 1), (30, 30), (5000, 2000)))
@pytest.mark.parametrize("count", (0, 1, 40))
def test_any_shape_and_number(size_hw, count):
    scene = np.zeros((*size_hw, 3), np.uint8)
    low = np.random.default_rng(0).uniform(0, 0.5, (count, 2)) * size_hw[::-1]
    boxes = np.concatenate([low, low + np.array(size_hw[::-1]) / 2], axis=1)
    sheet = scene_sheet(scene, detections(boxes, size_hw=size_hw, pixel=math.nan), crop_of(scene), "a" * 300)
    assert sheet.shape[2] == 3 and max(sheet.shape) < 2600


def test_what_stands_above():
    assert headline("a.tif", detections([[0, 0, 9, 9]], size_hw=(4000, 5000)))[1] == (
        "5,000 x 4,000 px = 2.5 km x 2 km at 0.5 m a pixel, 1 detection"
    )
    assert headline("a", detections([], size_hw=(10, 1200), pixel=math.nan))[1] == "1,200 x 10 px, 0 detections"


def test_a_small_image_is_enlarged_under_thin_boxes_and_over_its_classes():
    """40 px become 320 (at most 8 times): a box from 5, 6 to 9, 10 fills 40..72 and 48..80; its line lies outside."""
    boxes, unknown = np.array([[5.0, 6, 9, 10], [20, 20, 30, 24]]), np.full((2, 2), np.nan)
    found = Detections((40, 40), boxes, np.array([0.9, 0.2]), np.array([1, 0]), {0: "car", 1: "ship"}, unknown)
    sheet = image_sheet(np.full((40, 40, 3), 100, np.uint8), found)
    assert sheet.shape[1] == 320 and 320 < sheet.shape[0] < 370
    assert (sheet[48:80, 40:72] == 100).all(), "nothing is drawn on the object"
    for line in (sheet[47, 39:73], sheet[80, 39:73], sheet[47:81, 39], sheet[47:81, 72]):
        assert (line == class_colour(1)).all()
    assert (sheet[46, 30:80] == 100).all(), "one pixel thin"
    below = sheet[320:].reshape(-1, 3)
    assert all((below == class_colour(label)).all(1).any() for label in (0, 1)), "both in the legend"


def test_a_wider_line_grows_outwards():
    """At 8 times the box (5, 6) to (9, 10) fills 40..72 and 48..80; two lines lie 1 and 2 px from it, on all sides."""
    unknown = np.full((1, 2), np.nan)
    found = Detections((40, 40), np.array([[5.0, 6, 9, 10]]), np.ones(1), np.zeros(1, int), {0: "car"}, unknown)
    sheet = image_sheet(np.full((40, 40, 3), 100, np.uint8), found, line=2)
    inked = (sheet[:320] == class_colour(0)).all(2)
    frame = np.zeros((320, 320), bool)
    frame[46:82, 38:74] = True
    frame[48:80, 40:72] = False
    np.testing.assert_array_equal(inked, frame)


def test_a_picture_of_nothing_says_so():
    found = Detections((50, 20), np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), {0: "car"}, np.zeros((0, 2)))
    sheet = image_sheet(np.full((50, 20, 3), 100, np.uint8), found)
    assert sheet.shape[1] == 240 and (sheet[:400, :160] == 100).all() and (sheet[404:] < 128).any()
