"""COCO JSON to arrays and back."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.data_sets import annotation, coco
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Problem, by_id, subset
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.datasets.formats import decode

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
    assert found.sizes_hw.shape == (len(found), 2) and found.xywh.shape == (0, 4)
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
        (lambda c: c["images"][0].update(id=[]), r"image b\.png: needs an integer 'id'"),
        (lambda c: c["images"][0].update(id=1e308), r"image b\.png: needs an integer 'id'"),
        (lambda c: c["images"][0].update(width=1e30), r"image b\.png: needs 'width' and 'height'"),
        (lambda c: c["annotations"][0].update(image_id={}), r"annotation 1 of the list: needs.*image_id {}"),
        (lambda c: c["annotations"][0].update(area="wide"), r"annotation 1 of the list: needs.*area 'wide'"),
        (lambda c: c["categories"].append({"id": 9, "name": "car"}), r"category 4: id 9 is 'ship' already"),
        (lambda c: c["categories"].append({"id": 7}), r"category 4: needs an integer 'id' and a 'name'"),
        (lambda c: c.pop("images"), r"not a COCO JSON: no list 'images'"),
        (lambda c: c.update(annotations=3), r"not a COCO JSON: no list 'annotations'"),
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
    np.testing.assert_array_equal(found.xywh[3], [1, 2, 3, 4])
    np.testing.assert_array_equal(found.classes, [0, 1, 0, 1, -1, 0])  # of marked boxes their own, of DontCare every


def marked(tmp_path, **marks):
    """Two boxes, the first with the marks; read."""
    rows = [annotation(1, 5, 2, [1, 2, 3, 4], **marks), (2, 5, 2, [5, 6, 7, 8])]
    return coco(tmp_path / "s.json", IMAGES, rows, KINDS)


@pytest.mark.parametrize("key", ["iscrowd", "ignore", "uncertain"])
@pytest.mark.parametrize(
    ("value", "region", "fault"),
    [
        *[(value, True, False) for value in (1, 1.0, True, "1", "true", "True")],
        *[(value, False, False) for value in (0, 0.0, False, None, "0", "false", "False", "")],
        *[(value, False, True) for value in (2, -1, 0.5, "yes", "2", [], {})],
    ],
)
def test_what_a_mark_means(tmp_path, key, value, region, fault):
    found = coco_json.read(marked(tmp_path, **{key: value}))
    np.testing.assert_array_equal(found.labels, [-1 if region else 0, 0])
    np.testing.assert_array_equal(found.crowd, [region, False])
    kinds = [problem.kind for problem in found.problems]
    assert kinds == ["bad mark"] * fault and all(key in problem for problem in found.problems)


def test_a_box_without_marks_is_an_object(tmp_path):
    path = coco(tmp_path / "s.json", IMAGES, [{"image_id": 5, "category_id": 2, "bbox": [1, 2, 3, 4]}], KINDS)
    assert coco_json.read(path).labels.tolist() == [0]


def test_the_rules_of_coco(tmp_path):
    """`iscrowd` alone is a region, boxes of width or height 0 stay, negative ones do not."""
    rows = [
        annotation(1, 5, 2, [1, 2, 3, 4], iscrowd=1),
        annotation(2, 5, 2, [1, 2, 3, 4], ignore=1),
        annotation(3, 5, 2, [1, 2, 0, 4]),
        annotation(4, 5, 2, [1, 2, 3, -4]),
        annotation(5, 5, 2, [1, 2, 3, 4], iscrowd=1, ignore=1),
    ]
    path = coco(tmp_path / "s.json", IMAGES, rows, KINDS)
    ours, theirs = coco_json.read(path), coco_json.read(path, rules="coco")
    assert ours.ids.tolist() == [1, 2, 5] and ours.labels.tolist() == [-1, -1, -1]
    assert theirs.ids.tolist() == [1, 2, 3, 5] and theirs.labels.tolist() == [-1, 0, 0, -1]
    assert [p.kind for p in ours.problems] == ["empty box", "empty box"]
    assert [p.kind for p in theirs.problems] == ["empty box"]
    assert ours.unlike_coco == theirs.unlike_coco == 2  # 2 and 3
    with pytest.raises(UserError, match=r"rules=cocoa: .*coco"):
        coco_json.read(path, rules="cocoa")


def test_two_categories_of_one_name_are_two_classes_to_coco(tmp_path):
    path = coco(tmp_path / "s.json", IMAGES, [], [(2, "car"), (8, "car")])
    assert coco_json.read(path).names == {0: "car"}
    with pytest.raises(UserError, match="'car' has another id already"):
        coco_json.read(path, rules="coco")


def test_ids_may_be_text(tmp_path):
    """Then they are compared as text; 7 is "7", and "07" is another."""
    images = [("07", "b.png", 64, 48), ("7", "a.png", 100, 80), ("x", "c.png", 100, 80)]
    rows = [
        annotation(1, 7, "b", [1, 2, 3, 4]),
        annotation(2, "07", "a", [1, 2, 3, 4]),
        annotation(3, "x", "a", [0, 0, 2, 2]),
    ]
    found = coco_json.read(coco(tmp_path / "s.json", images, rows, [("b", "ship"), ("a", "car")]))
    assert found.image_ids.tolist() == ["07", "7", "x"] and found.file_names == ["b.png", "a.png", "c.png"]
    assert found.ids.tolist() == [2, 1, 3] and found.names == {0: "car", 1: "ship"}
    assert found.labels.tolist() == [0, 1, 0] and found.box_categories.tolist() == ["a", "b", "a"]
    coco_json.write(tmp_path / "t.json", found)
    again = coco_json.read(tmp_path / "t.json")
    assert again.image_ids.tolist() == found.image_ids.tolist() and again.labels.tolist() == found.labels.tolist()
    assert coco_json.read(tmp_path / "s.json", ["boat", "car", "ship"]).category_ids.tolist() == ["boat", "a", "b"]


def test_numbers_as_text_refer_to_numbers(tmp_path):
    rows = [annotation("1", "5", "2", [1, 2, 3, 4]), annotation(2, 30.0, 9.0, [1, 2, 3, 4], bbox=["1", 2, 3, 4])]
    found = coco_json.read(coco(tmp_path / "s.json", IMAGES, rows, KINDS))
    assert found.ids.tolist() == [2, 1] and found.image_ids.tolist() == [30, 5] and found.problems == []
    assert [found.names[label] for label in found.labels] == ["ship", "car"]


def test_names_and_sizes_are_needed_only_for_images(tmp_path):
    content = {
        "images": [{"id": 5}, {"id": 3, "file_name": "a.png", "width": -1, "height": 1e308}],
        "annotations": [{"image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 2, "name": 17}],
    }
    (tmp_path / "s.json").write_text(json.dumps(content))
    found = coco_json.read(tmp_path / "s.json", images=False)
    assert found.file_names == ["5", "a.png"] and found.sizes_hw.tolist() == [[0, 0], [0, 0]]
    assert [p.kind for p in found.problems] == ["bad size"] and found.names == {0: "17"}
    with pytest.raises(UserError, match=r"image 1: needs an integer 'id' and a 'file_name'"):
        coco_json.read(tmp_path / "s.json")


def test_by_id_sorts_images_and_classes_as_coco_does(sample):
    found = by_id(coco_json.read(sample, ["ship", "car"], ["DontCare"]))
    assert found.image_ids.tolist() == [5, 30] and found.file_names == ["a.png", "b.png"]
    assert found.sizes_hw.tolist() == [[80, 100], [48, 64]]
    assert found.names == {0: "car", 1: "ship"} and found.category_ids.tolist() == [2, 9]
    assert found.ids.tolist() == [11, 13, 14, 12, 15, 16] and found.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.labels.tolist() == [0, -1, -1, 1, -1, 1]
    assert by_id(found) is found


def test_sides_are_those_of_the_file_and_come_back_exactly(tmp_path):
    box = [0.7, 0.7, 0.1, 0.1]  # (.7 + .1) - .7 is less than .1
    found = coco_json.read(coco(tmp_path / "s.json", IMAGES, [(1, 5, 2, box)], KINDS))
    assert found.sides.tolist() == [[0.1, 0.1]] and found.boxes[0, 2] - found.boxes[0, 0] < 0.1
    coco_json.write(tmp_path / "t.json", found)
    assert json.loads((tmp_path / "t.json").read_text())["annotations"][0]["bbox"] == box


@pytest.mark.parametrize("space", ["", "  ", "\n \t"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 40])
def test_a_list_decoded_in_pieces_is_whole(monkeypatch, space, number):
    monkeypatch.setattr(decode, "PIECE", 100)
    records = [{"image_id": i, "category_id": 2, "bbox": [i, 0.5, 3, 4], "score": 0.25} for i in range(number)]
    text = f"{space}[{space}" + f"{space},{space}".join(map(json.dumps, records)) + f"{space}]{space}"
    columns = decode.of_json(text.encode(), decode.DETECTION)
    assert columns["image_id"].tolist() == list(range(number)) and columns["bbox"].shape == (number, 4)
    assert columns["bbox"][:, 0].tolist() == list(range(number))


@pytest.mark.parametrize(
    "fault", ["[{r}, ]", "[{r} {r}]", "[{r}", "{r}]", "[{r}]]", "[{r}] 3", "[,{r}]", "[{r}, 3]", "x[{r}]"]
)
def test_a_malformed_list_is_not_decoded(monkeypatch, fault):
    record = '{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}'
    for piece in (1, 1 << 16):
        monkeypatch.setattr(decode, "PIECE", piece)
        many = fault.replace("{r}", ", ".join([record] * 5))
        with pytest.raises(decode.IRREGULAR):
            decode.of_json(many.encode(), decode.DETECTION)


@pytest.mark.parametrize("note", ["a } b", "a }, { b", [{"a": {}}, {"b": 1}]])
def test_a_cut_within_a_record_is_no_loss(monkeypatch, tmp_path, note):
    monkeypatch.setattr(decode, "PIECE", 90)
    rows = [annotation(i, 5, 2, [i, 2, 3, 4], note=note) for i in range(1, 10)]
    found = coco_json.read(coco(tmp_path / "s.json", IMAGES, rows, KINDS))
    assert found.ids.tolist() == list(range(1, 10)) == found.boxes[:, 0].tolist()


@pytest.mark.parametrize("key", ["score", "sc\\u006fre"])
def test_a_key_may_be_written_in_any_way(key):
    text = '[{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "KEY": 0.5}]'.replace("KEY", key)
    assert decode.of_json(text.encode(), decode.DETECTION)["score"].tolist() == [0.5]


def test_every_number_is_decoded_as_json_does():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(2000), 800 * rng.random(2000), rng.random(2000).astype(np.float32)]).tolist()
    values += [0.30000000000000004, 1e-07, 1.5e300, 123456789.12345678, 0.00000001, 0.535212049028314929]
    records = [{"image_id": 2**53 + 1, "category_id": 1, "bbox": [v, 0, 1, 1], "score": v} for v in values]
    columns = decode.of_json(json.dumps(records).encode(), decode.DETECTION)
    assert columns["score"].tolist() == values and columns["bbox"][:, 0].tolist() == values
    assert set(columns["image_id"].tolist()) == {2**53 + 1}


def test_problem_travels_between_processes():
    copy = pickle.loads(pickle.dumps(Problem("tiny box", "a.json: annotation 3", "1 px: 2")))
    assert (copy, copy.kind) == ("a.json: annotation 3: 1 px: 2", "tiny box")


def test_what_else_a_file_says_is_kept_only_where_it_says_it():
    record = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}
    content = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ship"}]}
    marked = content | {"annotations": [{"id": 1, **record, "truncation": 2}, {"id": 2, **record}]}
    found = coco_json.from_content(marked, "gt.json").extra
    assert list(found) == ["truncation"] and found["truncation"].tolist()[0] == 2
    assert coco_json.from_content(content | {"annotations": [{"id": 1, **record}]}, "gt.json").extra == {}


def test_the_name_that_was_documented_first_still_reads():
    from tinyyolo.datasets import coco_json as former

    assert former is coco_json
