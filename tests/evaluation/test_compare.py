"""Two annotation sets side by side."""

import copy
import json

import numpy as np
import pytest

from tinyyolo.analysis.compare import compare as compare_command
from tinyyolo.config import UserError
from tinyyolo.evaluation import compare, evaluate
from tinyyolo.evaluation.agreement import changed_boxes


def box(key, image, category, bbox, **more):
    return {"id": key, "image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], **more}


def first():
    return {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 3, "file_name": "c.png"}],
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "car"}],
        "annotations": [
            box(1, 1, 1, [10, 10, 6, 6]),  # stays
            box(2, 1, 1, [30, 10, 12, 12]),  # moves
            box(3, 1, 2, [60, 10, 20, 20]),  # becomes a ship
            box(4, 2, 2, [10, 10, 9, 9]),  # is removed
            box(5, 3, 2, [10, 10, 9, 9]),  # its image is missing in the second file
            box(6, 2, 1, [50, 50, 30, 30], iscrowd=1),
        ],
    }


def second():
    """Other ids for images and classes, as a later version of a data set may have."""
    return {
        "images": [{"id": 20, "file_name": "b.png"}, {"id": 10, "file_name": "a.png"}, {"id": 7, "file_name": "d.png"}],
        "categories": [{"id": 1, "name": "car"}, {"id": 5, "name": "ship"}],
        "annotations": [
            box(1, 10, 5, [10, 10, 6, 6]),
            box(2, 10, 5, [31, 10, 12, 12]),
            box(3, 10, 5, [60, 10, 20, 18]),
            box(4, 20, 1, [40, 10, 5, 5]),  # is added
            box(5, 7, 1, [40, 10, 5, 5]),
        ],
    }


def test_changes_and_counts():
    result = compare(first(), second())
    assert result["images"] == {"both": 2, "first": 1, "second": 1}
    assert result["changes"] == {
        "all": {"same": 1, "moved": 1, "relabelled": 1, "removed": 1, "added": 1},
        "ship": {"same": 1, "moved": 1, "relabelled": 0, "removed": 0, "added": 0},
        "car": {"same": 0, "moved": 0, "relabelled": 1, "removed": 1, "added": 1},
    }
    assert result["counts"] == {
        "all": {"first": 4, "second": 4},
        "vt": {"first": 1, "second": 2},
        "t": {"first": 2, "second": 1},
        "s": {"first": 1, "second": 1},
        "m": {"first": 0, "second": 0},
    }


def test_agreement_is_the_evaluation_with_joined_ids():
    ids, classes = {10: 1, 20: 2}, {1: 2, 5: 1}
    known = [a for a in second()["annotations"] if a["image_id"] in ids]
    dt = [
        {"image_id": ids[a["image_id"]], "category_id": classes[a["category_id"]], "bbox": a["bbox"], "score": 1.0}
        for a in known
    ]
    gt = first()
    gt["images"] = gt["images"][:2]
    gt["annotations"] = [a for a in gt["annotations"] if a["image_id"] != 3]
    agreement = compare(first(), second())["agreement"]
    assert agreement["AP50"] == evaluate(gt, dt)["AP50"]
    assert agreement["per_class"]["ship"] == evaluate(gt, dt)["per_class"]["ship"]


def test_a_set_agrees_with_itself():
    gt = first()
    gt["annotations"].pop()
    result = compare(gt, copy.deepcopy(gt))
    assert result["agreement"]["AP"] == pytest.approx(1) and result["agreement"]["oLRP"] == 0
    assert result["changes"]["all"] == {"same": 5, "moved": 0, "relabelled": 0, "removed": 0, "added": 0}
    assert changed_boxes(result["pairing"])["annotations"] == []


def test_predictions_count_from_a_score_on_but_ap_takes_all():
    dt = [
        {"image_id": 1, "category_id": 1, "bbox": [10, 10, 6, 6], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [30, 10, 12, 12], "score": 0.2},
    ]
    result = compare(first(), dt)
    assert result["counts"]["all"] == {"first": 5, "second": 1}
    assert result["changes"]["ship"] == {"same": 1, "moved": 0, "relabelled": 0, "removed": 1, "added": 0}
    assert result["agreement"]["per_class"]["ship"]["AP"] == pytest.approx(1)
    assert compare(first(), dt, score=0.1)["changes"]["ship"]["same"] == 2


def test_each_box_is_paired_once_and_with_the_most_alike():
    gt, other = first(), second()
    gt["annotations"] = [box(1, 1, 1, [10, 10, 10, 10]), box(2, 1, 1, [12, 10, 10, 10])]
    other["annotations"] = [box(1, 10, 5, [12, 10, 10, 10]), box(2, 10, 5, [13, 10, 10, 10])]
    result = compare(gt, other)
    assert result["pairing"].partner.tolist() == [1, 0]
    assert result["changes"]["ship"] == {"same": 1, "moved": 1, "relabelled": 0, "removed": 0, "added": 0}


def test_changed_boxes_say_what_and_from_where():
    found = {a["change"]: a for a in changed_boxes(compare(first(), second())["pairing"])["annotations"]}
    assert found.keys() == {"moved", "relabelled", "removed", "added"}
    assert found["moved"]["bbox"] == [31, 10, 12, 12]
    assert found["moved"]["before"] == {"category_id": 1, "bbox": [30, 10, 12, 12]}
    assert found["relabelled"]["category_id"] == 1 and found["relabelled"]["before"]["category_id"] == 2
    assert found["removed"]["bbox"] == [10, 10, 9, 9] and "before" not in found["removed"]
    assert (found["added"]["image_id"], found["added"]["category_id"], found["added"]["bbox"]) == (2, 2, [40, 10, 5, 5])


def test_ignored_category_is_left_out_on_both_sides():
    gt, other = first(), second()
    for content in (gt, other):
        content["categories"].append({"id": 9, "name": "DontCare"})
    other["annotations"].append(box(9, 10, 9, [0, 0, 50, 50]))
    result = compare(gt, other, ignore=["DontCare"])
    assert result["changes"]["all"] == compare(first(), second())["changes"]["all"]


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_nothing_is_normal(empty):
    gt, other = first(), second()
    for content, number in ((gt, 1), (other, 2)):
        if empty in (0, number):
            content["annotations"] = []
    changes = compare(gt, other)["changes"]["all"]
    assert changes["same"] == changes["moved"] == 0
    assert (changes["removed"], changes["added"]) == {0: (0, 0), 1: (0, 4), 2: (4, 0)}[empty]


def test_command_prints_and_writes(tmp_path, capsys):
    for name, content in (("a", first()), ("b", second())):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    compare_command(str(tmp_path / "a.json"), str(tmp_path / "b.json"), out=str(tmp_path / "out"))
    printed = capsys.readouterr().out
    assert "2 images in both, 1 only in the first, 1 in the second" in printed and "relabelled" in printed
    written = json.loads((tmp_path / "out/compare.json").read_text())
    assert written["changes"] == compare(first(), second())["changes"]
    assert written["agreement"]["AP50"] == compare(first(), second())["agreement"]["AP50"]
    assert len(json.loads((tmp_path / "out/changes.json").read_text())["annotations"]) == 4


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="two or three are needed"):
        compare_command("a.json")
    alien = second()
    alien["categories"][0]["name"] = "boat"
    with pytest.raises(UserError, match="boat"):
        compare(first(), alien)
    elsewhere = second()
    elsewhere["images"] = [{"id": i["id"], "file_name": "x" + i["file_name"]} for i in elsewhere["images"]]
    with pytest.raises(UserError, match="no image in common"):
        compare(first(), elsewhere)
    with pytest.raises(UserError, match="score"):
        compare(first(), [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}])


def test_nothing_given_is_changed():
    one, two = first(), second()
    result = compare(one, two)
    assert one == first() and two == second()
    assert np.array_equal(result["pairing"].first_change, compare(one, two)["pairing"].first_change)
