"""One rule for marks, ids and empty boxes, whoever reads the file, and one line that says what was found."""

import json

import pytest

from tests.test_cli import call
from tinyyolo.config import UserError
from tinyyolo.datasets.formats import coco
from tinyyolo.evaluation import compare, evaluate, find_errors

BOX, OTHER = [0, 0, 10, 10], [40, 0, 10, 10]


def truth(*, box=OTHER, **marks):
    """Two ships, the second with the marks."""
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": box, **marks},
        ],
    }


FOUND = [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9}]


def recall(gt, **more):
    return evaluate(gt, FOUND, iou_thresholds=[0.5], **more)["AR1500"]


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("form", ["dict", "file", "arrays", "annotations"])
@pytest.mark.parametrize(("value", "region"), [(1, 1), (True, 1), ("1", 1), ("true", 1), (None, 0), ("0", 0), (0, 0)])
def test_a_mark_is_the_same_in_every_form(key, form, value, region, tmp_path):
    gt = truth(**{key: value})
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    if form == "file":
        gt = tmp_path / "gt.json"
    elif form == "arrays":
        rows = [{"iscrowd": 0, "ignore": 0, **row} for row in gt["annotations"]]
        gt = gt | {"annotations": {name: [row[name] for row in rows] for name in rows[0]}}
    elif form == "annotations":
        gt = coco.read(tmp_path / "gt.json")
    assert recall(gt) == (1 if region else 0.5)
    assert find_errors(gt, FOUND, threshold=0.5).state.tolist() == [1, 0 if region else 2]


def test_rules_of_coco_decide_differently_and_only_there():
    assert (recall(truth(ignore=1)), recall(truth(ignore=1), rules="coco")) == (1, 0.5)
    assert (recall(truth(iscrowd=1)), recall(truth(iscrowd=1), rules="coco")) == (1, 1)
    empty = truth(box=[40, 0, 0, 10])
    assert (recall(empty), recall(empty, rules="coco")) == (1, 0.5)
    assert find_errors(empty, FOUND, rules="coco").state.tolist() == [1, 2]
    assert compare(empty, FOUND)["counts"]["all"]["first"] == 1
    assert compare(empty, FOUND, rules="coco")["counts"]["all"]["first"] == 2
    with pytest.raises(UserError, match="rules=pycoco"):
        evaluate(truth(), FOUND, rules="pycoco")


COMMANDS = {
    "evaluate": ["evaluate", "gt=gt.json", "dt=dt.json"],
    "report": ["report", "gt=gt.json", "dt=dt.json"],
    "compare": ["compare", "gt.json", "dt.json"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_tell_what_was_left_out_and_where_the_rules_differ(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gt = truth(ignore=1)
    gt["annotations"] += [
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [1, 1, 0, 4]},
        {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, -4]},
        {"id": 5, "image_id": 1, "category_id": 1, "bbox": [20, 20, 4, 4], "iscrowd": "maybe"},
    ]
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(FOUND))
    code, _, err = call(*COMMANDS[command], capsys=capsys)
    lines = err.strip().splitlines()
    assert code == 0 and len(lines) == 2
    assert lines[0].startswith("gt.json: 3 faults (1 bad mark, 2 empty box); the first: annotation 5: iscrowd")
    assert lines[1].startswith("gt.json: 3 boxes are read in one way by rules=tinyyolo and in another by rules=coco")
    code, _, err = call(*COMMANDS[command], "rules=coco", capsys=capsys)
    assert code == 0 and err.startswith("gt.json: 1 faults (1 empty box)")
    (tmp_path / "gt.json").write_text(json.dumps(truth()))
    assert call(*COMMANDS[command], capsys=capsys)[2] == ""


@pytest.mark.parametrize("tool", [evaluate, find_errors, compare])
def test_python_tells_it_too_and_once(tool, tmp_path, capsys):
    gt = truth(box=[1, 1, 0, 4])
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    for given, path in ((gt, "gt" if tool is not compare else "first"), (tmp_path / "gt.json", tmp_path / "gt.json")):
        tool(given, FOUND)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2 and lines[0].startswith(f"{path}: 1 faults (1 empty box); the first: annotation 2")
    tool(coco.read(tmp_path / "gt.json"), FOUND)  # who reads a file by himself has its problems
    assert capsys.readouterr().err == ""


def named(**changes):
    """A row as `predict save_json=true` writes it: ids of its own, and names."""
    row = {"image_id": "a", "file_name": "a.png", "category_id": 0, "category_name": "ship", "bbox": BOX, "score": 0.9}
    return {key: value for key, value in {**row, **changes}.items() if value is not ...}


def test_rows_with_names_are_joined_by_them(tmp_path):
    gt = truth()
    gt["images"].insert(0, {"id": 0, "file_name": "sub/b.png"})
    gt["categories"].insert(0, {"id": 0, "name": "car"})
    rows = [named(image_id=0), named(file_name="b.png", image_id=1)]
    by_id = [{"image_id": key, "category_id": 1, "bbox": BOX, "score": 0.9} for key in (1, 0)]
    want = evaluate(gt, by_id)
    assert want["per_class"]["ship"]["AP50"] > 0
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    for dt in (rows, tmp_path / "dt.json"):
        assert evaluate(gt, dt)["per_class"]["ship"] == want["per_class"]["ship"]
    assert compare(gt, tmp_path / "dt.json")["changes"]["ship"]["same"] == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (named(category_name=...), "predict save_json=true"),
        (named(category_name=None), "joined by both names"),
        (named(file_name="c.png"), "file_name 'c.png': gt has no such image"),
        (named(file_name="b.png"), "several images of that name"),
        (named(category_name="boat"), "category_name 'boat' is no class of gt"),
        (named(file_name=..., image_id=1), "joined by both names"),
    ],
)
def test_rows_whose_names_say_nothing_are_refused(row, says):
    gt = truth()
    gt["images"] += [{"id": i, "file_name": f"{folder}/b.png"} for i, folder in enumerate("xy", 2)]
    with pytest.raises(UserError, match="detection 1") as caught:
        evaluate(gt, [named(), row])
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("rules", ["tinyyolo", "coco"])
@pytest.mark.parametrize(("size", "right"), [([0, 10], 0), ([10, 0], 0), ([10, 10], 1)])
def test_a_detection_without_area_is_a_wrong_one(rules, size, right):
    dt = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, *size], "score": 0.9}]
    assert evaluate(truth(), dt, rules=rules)["AR1500"] == right / 2


def test_two_categories_of_one_name_are_one_class():
    gt = truth(category_id=2)
    gt["categories"].append({"id": 2, "name": "ship"})
    dt = [*FOUND, {"image_id": 1, "category_id": 2, "bbox": OTHER, "score": 0.8}]
    result = evaluate(gt, dt)
    assert result["AP50"] == pytest.approx(1) and list(result["per_class"]) == ["ship"]


def test_an_ignored_class_has_no_detections():
    gt = truth()
    gt["categories"].append({"id": 9, "name": "DontCare"})
    with pytest.raises(UserError, match="category_id 9 is not in gt: DontCare is ignored there"):
        evaluate(gt, [{"image_id": 1, "category_id": 9, "bbox": BOX, "score": 0.5}], ignore=["DontCare"])


def test_a_file_that_compare_cannot_join():
    twice = truth()
    twice["images"].append({"id": 2, "file_name": "a.png"})
    with pytest.raises(UserError, match=r"second: image a\.png stands there twice"):
        compare(truth(), twice)
    assert recall(twice) == 0.5
