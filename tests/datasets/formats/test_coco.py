"""COCO JSON to arrays and back."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.data_sets import annotation, coco
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Problem, subset
from tinyyolo.datasets.formats import coco as coco_json

IMAGES = [(30, "b.png", 64, 48), (5, "a.png", 100, 80)]
KINDS = [(9, "ship"), (2, "car"), (4, "DontCare")]


@pytest.fixture
def sample(tmp_path):
    rows = [
        (11, 5, 2, [1, 2, 3, 4]),
        (12, 30, 9, [10.5, 11.25, 2, 2]),
        (13, 5, 4, [50, 50, 20, 20]),
        annotation(14, 5, 9, [0, 0, 5, 5], iscrowd=1),
        annotation(15, 30, 2, [3, 3, 2, 6], ignore=1, area=7.5),
        (16, 30, 9, [10.5, 11.25, 2, 2]),
    ]
    return coco(tmp_path / "s.json", IMAGES, rows, KINDS)


def test_arrays_by_hand(sample):
    found = coco_json.read(sample, ["ship", "car"], ["DontCare"])
    assert found.file_names == ["b.png", "a.png"]
    np.testing.assert_array_equal(found.sizes_hw, [[48, 64], [80, 100]])
    np.testing.assert_array_equal(found.image_ids, [30, 5])
    assert found.names == {0: "ship", 1: "car"}
    np.testing.assert_array_equal(found.category_ids, [9, 2])
    np.testing.assert_array_equal(found.ids, [12, 15, 16, 11, 13, 14])
    np.testing.assert_array_equal(found.image_index, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.labels, [0, -1, 0, 1, -1, -1])
    np.testing.assert_array_equal(found.box_categories, [9, 2, 9, 2, 4, 9])
    np.testing.assert_array_equal(found.crowd, [False, True, False, False, False, True])
    np.testing.assert_array_equal(found.boxes[0], [10.5, 11.25, 12.5, 13.25])
    np.testing.assert_array_equal(found.areas, [4, 7.5, 4, 12, 400, 25])
    np.testing.assert_array_equal(found.offsets, [0, 3, 6])
    assert found.rows(1) == slice(3, 6)
    assert found.problems == []  # a duplicate box and a 2 px box are no faults of reading
    with pytest.raises(ValueError, match="read-only"):
        found.boxes[0] = 0


@pytest.mark.parametrize(
    ("names", "ignore", "expected", "ids", "labels"),
    [
        (None, ["DontCare"], {0: "car", 1: "ship"}, [2, 9], [1, -1, 1, 0, -1, -1]),
        (None, [], {0: "car", 1: "DontCare", 2: "ship"}, [2, 4, 9], [2, -1, 2, 0, 1, -1]),
        ({1: "car", 0: "ship"}, ["DontCare"], {0: "ship", 1: "car"}, [9, 2], [0, -1, 0, 1, -1, -1]),
        (["boat", "car", "ship"], ["DontCare"], {0: "boat", 1: "car", 2: "ship"}, [10, 2, 9], [2, -1, 2, 1, -1, -1]),
    ],
)
def test_classes_go_by_name(sample, names, ignore, expected, ids, labels):
    found = coco_json.read(sample, names, ignore)
    assert found.names == expected
    np.testing.assert_array_equal(found.category_ids, ids)
    np.testing.assert_array_equal(found.labels, labels)


def test_unknown_category_names_the_choices(sample):
    with pytest.raises(UserError, match=r"s\.json: category 4: class 'DontCare' is not in names.*car, ship"):
        coco_json.read(sample, ["ship", "car"])


@pytest.mark.parametrize("empty", ["both", "boxes"])
def test_nothing_is_normal(tmp_path, empty):
    path = coco(tmp_path / "e.json", [] if empty == "both" else IMAGES, [], KINDS)
    found = coco_json.read(path, ["ship", "car", "DontCare"])
    assert found.boxes.shape == (0, 4) and len(found) == (0 if empty == "both" else 2)
    assert found.sizes_hw.shape == (len(found), 2) and found.to_arrays()["bbox"].shape == (0, 4)
    np.testing.assert_array_equal(found.offsets, np.zeros(len(found) + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=77), r"annotation 1: image_id 77 is not in 'images'"),
        (lambda c: c["annotations"][0].update(category_id=8), r"annotation 1: category_id 8 is not in.*9 ship, 2 car"),
        (lambda c: c["annotations"][0].pop("bbox"), r"annotation 1 of the list: needs.*no 'bbox'"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 1 of the list: needs"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, "x"]), r"annotation 1 of the list: needs.*'x'"),
        (lambda c: c["annotations"].insert(0, "text"), r"annotation 1 of the list: needs"),
        (lambda c: c["images"][1].update(id=30), r"image a\.png: id 30 belongs to b\.png already"),
        (lambda c: c["images"][1].update(file_name="b.png"), r"image b\.png: stands 2 times"),
        (lambda c: c["images"][0].pop("width"), r"image b\.png: needs 'width' and 'height' over 0, found None x 48"),
        (lambda c: c["images"][0].update(height=0), r"image b\.png: needs 'width' and 'height'"),
        (lambda c: c["images"][0].update(id="b"), r"image b\.png: needs an integer 'id'"),
        (lambda c: c["categories"].append({"id": 9, "name": "car"}), r"category 4: id 9 is 'ship' already"),
        (lambda c: c["categories"].append({"id": 7}), r"category 4: needs an integer 'id' and a 'name'"),
        (lambda c: c.pop("images"), r"not a COCO JSON: no list 'images'"),
        (lambda c: c.update(extra=[c["annotations"].pop()]), r"1 annotations stand outside the list 'annotations'"),
    ],
)
def test_faults_that_stop(tmp_path, change, message):
    path = coco(tmp_path / "s.json", IMAGES, [(1, 5, 2, [1, 2, 3, 4]), (2, 30, 9, [0, 0, 4, 4])], KINDS)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        coco_json.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "annotations": [\n}', r"s\.json:3: not valid JSON"),
        ("[1, 2]", r"expected a COCO JSON object at the top, found list"),
        ("", r"s\.json:1: not valid JSON"),
        (b"\xff\xfe{", r"s\.json.*(not valid|not readable)"),
    ],
)
def test_malformed_files(tmp_path, text, message):
    path = tmp_path / "s.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        coco_json.read(path)


def test_missing_file_lists_those_there(sample):
    with pytest.raises(UserError, match=r"no such annotation file; JSON files in that folder: s\.json"):
        coco_json.read(sample.parent / "t.json")


def test_bad_boxes_are_listed_not_lost(tmp_path):
    rows = [
        (1, 5, 2, [1, 2, 0, 4]),
        (2, 5, 2, [1, 2, 3, -1]),
        annotation(3, 5, 2, [float("nan"), 2, 3, 4]),
        annotation(4, 5, 2, [1, 2, 3, 4], bbox=[1, None, 3, 4], area=None),
        (5, 5, 2, [1, 2, 3, 4]),
        (5, 5, 2, [float("inf"), 2, 3, 4]),
    ]
    found = coco_json.read(coco(tmp_path / "s.json", IMAGES, rows, KINDS))
    np.testing.assert_array_equal(found.ids, [5])
    kinds = [problem.kind for problem in found.problems]
    assert kinds == ["empty box", "empty box", "not a number", "not a number", "not a number"]
    assert "annotation 2 in a.png: empty box: bbox [1.0, 2.0, 3.0, -1.0]" in found.problems[1]


def test_what_can_be_understood_is_read(tmp_path):
    """Ids as 5.0 or "5", no id, no area, a double id, two ids of one name: boxes stay, faults are listed."""
    rows = [
        annotation(1.0, "5", 2, [1, 2, 3, 4]),
        {"image_id": 30, "category_id": 2, "bbox": [0, 0, 2, 3]},
        annotation(1, 5, 8, [1, 2, 3, 5]),
    ]
    found = coco_json.read(coco(tmp_path / "s.json", IMAGES, rows, [(2, "car"), (8, "car")]))
    assert found.names == {0: "car"} and found.category_ids.tolist() == [2]
    np.testing.assert_array_equal(found.labels, [0, 0, 0])
    np.testing.assert_array_equal(found.areas, [6, 12, 15])
    assert [problem.kind for problem in found.problems] == ["duplicate name", "no id", "duplicate id"]


def test_lenient_reading_leaves_out_and_lists(tmp_path):
    rows = [(1, 99, 2, [1, 2, 3, 4]), (2, 5, 77, [1, 2, 3, 4]), (3, 5, 4, [1, 2, 3, 4]), (4, 5, 2, [1, 2, 3, 4])]
    path = coco(tmp_path / "s.json", IMAGES, rows, KINDS)
    found = coco_json.read(path, ["ship", "car"], strict=False)
    np.testing.assert_array_equal(found.ids, [4])
    assert sorted(p.kind for p in found.problems) == ["unknown class", "unknown class", "unknown image"]
    with pytest.raises(UserError, match=r"and 2 more; `tinyyolo data check` lists them"):
        coco_json.read(path, ["ship", "car"])


numbers = st.floats(-1e4, 1e4, allow_nan=False).map(lambda v: round(v, 6))
sides = st.floats(1e-3, 1e4).map(lambda v: round(v, 6))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), numbers, numbers, sides, sides, st.booleans()), max_size=8)
)
def test_round_trip_keeps_everything(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("trip")
    notes = [
        annotation(i + 3, IMAGES[image][0], KINDS[kind][0], [x, y, w, h], iscrowd=int(crowd))
        for i, (image, kind, x, y, w, h, crowd) in enumerate(rows)
    ]
    first = coco_json.read(coco(folder / "a.json", IMAGES, notes, KINDS), ["ship", "car"], ["DontCare"])
    coco_json.write(folder / "b.json", first)
    second = coco_json.read(folder / "b.json", ["ship", "car"], ["DontCare"])
    assert (second.file_names, second.names, second.categories) == (first.file_names, first.names, first.categories)
    for name in ("image_ids", "sizes_hw", "category_ids", "image_index", "labels", "ids", "box_categories"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name), err_msg=name)
    np.testing.assert_allclose(second.boxes, first.boxes, rtol=0, atol=1e-6)
    np.testing.assert_allclose(second.areas, first.areas)


def test_write_overwrites_only_when_told_and_leaves_no_half_file(sample, tmp_path, monkeypatch):
    found = coco_json.read(sample, ["ship", "car"], ["DontCare"])
    before = sample.read_bytes()
    with pytest.raises(UserError, match="exists; overwrite=true replaces it"):
        coco_json.write(sample, found)

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(coco_json, "annotation_records", stop)
    with pytest.raises(KeyboardInterrupt):
        coco_json.write(sample, found, overwrite=True)
    assert sample.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["s.json"]


def test_subset_and_arrays(sample):
    found = coco_json.read(sample, ["ship", "car"], ["DontCare"])
    part = subset(found, images=np.array([False, True]), boxes=found.labels >= 0)
    assert part.file_names == ["a.png"] and part.ids.tolist() == [11] and part.image_index.tolist() == [0]
    arrays = found.to_arrays()
    np.testing.assert_array_equal(arrays["image_id"], [30, 30, 30, 5, 5, 5])
    np.testing.assert_array_equal(arrays["iscrowd"], [0, 1, 0, 0, 1, 1])
    np.testing.assert_allclose(arrays["bbox"][3], [1, 2, 3, 4])


def test_problem_travels_between_processes():
    copy = pickle.loads(pickle.dumps(Problem("tiny box", "a.json: annotation 3", "1 px: 2")))
    assert (copy, copy.kind) == ("a.json: annotation 3: 1 px: 2", "tiny box")
