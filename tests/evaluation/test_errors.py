"""What went wrong: verdicts, counts, labels that may be missing, and the files of the command."""

import json

import cv2
import numpy as np
import pytest

from tests.support.report_scene import (
    CAR,
    COLOURS,
    DETECTIONS,
    FOUND_BOXES,
    OBJECTS,
    SHIP,
    SIDE,
    box,
    pixel_of,
    truth,
    write_run,
)
from tinyyolo.analysis.report import report as report_command
from tinyyolo.config import UserError
from tinyyolo.evaluation import evaluate
from tinyyolo.evaluation.errors import FOUND, IGNORED, MISSED, REGION, TRUE, count_errors, find_errors, missed_labels


def test_every_detection_and_object_has_its_verdict():
    errors = find_errors(truth(), DETECTIONS, threshold=0.5)
    assert errors.verdict.tolist() == [verdict for _, verdict, _ in FOUND_BOXES]
    assert errors.partner.tolist() == [partner for *_, partner in FOUND_BOXES]
    assert errors.state.tolist() == [FOUND, MISSED, FOUND, MISSED, REGION]
    np.testing.assert_allclose(errors.iou[[0, 2, 3]], [1, 6 * 12 / (2 * 144 - 72), 0.9])


def test_counts_by_class_and_size():
    counts = count_errors(find_errors(truth(), DETECTIONS, threshold=0.5))
    causes = {"localisation": 1, "confusion": 1, "duplicate": 1, "background": 3}
    assert counts["all"]["all"] == {"objects": 4, "TP": 2, "FP": 6, "FN": 2, **causes}
    assert counts["ship"]["all"]["FP"] == 5 and counts["car"]["all"]["FP"] == 1
    assert counts["ship"]["vt"] == {
        "objects": 1, "TP": 1, "FP": 2, "FN": 0, "localisation": 0, "confusion": 0, "duplicate": 1, "background": 1,
    }  # fmt: skip
    assert counts["all"]["m"]["background"] == 1 and counts["car"]["vt"]["FN"] == 1
    for by_size in counts.values():
        for key, number in by_size["all"].items():
            assert sum(by_size[size][key] for size in ("vt", "t", "s", "m")) == number


def test_default_thresholds_are_those_of_least_lrp():
    errors = find_errors(truth(), DETECTIONS)
    figures = evaluate(truth(), DETECTIONS)["per_class"]
    assert errors.thresholds.tolist() == [figures["ship"]["threshold"], figures["car"]["threshold"]]
    own = find_errors(truth(), DETECTIONS, threshold={"car": 0.05}).thresholds.tolist()
    assert own == [figures["ship"]["threshold"], 0.05]
    hopeless = [box(1, SHIP, [70, 70, 5, 5], 0.4)]
    assert find_errors(truth(), hopeless).thresholds.tolist() == [0.3, 0.3]


def test_true_positives_are_those_of_the_evaluator():
    errors = find_errors(truth(), DETECTIONS, threshold=0)
    recall = evaluate(truth(), DETECTIONS, arrays=True)["recall"][0, :, 0, -1]
    found = [int((errors.verdict[errors.detections.labels == k] == TRUE).sum()) for k in (0, 1)]
    np.testing.assert_allclose(recall, np.array(found) / [2, 2])


@pytest.mark.parametrize("objects, detections", [([], []), (OBJECTS, []), ([], DETECTIONS)])
def test_nothing_is_normal(objects, detections, tmp_path):
    gt = {**truth(), "annotations": [{"id": i, **record} for i, record in enumerate(objects)]}
    counts = count_errors(find_errors(gt, detections, threshold=0.5))["all"]["all"]
    assert counts["FN"] == (4 if objects else 0) and counts["background"] == (9 if detections else 0)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(detections))
    report_command(gt=str(tmp_path / "gt.json"), dt=str(tmp_path / "dt.json"), out=str(tmp_path / "out"))
    assert (tmp_path / "out/report.html").is_file()


def test_missed_labels_are_coco_json_by_falling_score():
    errors = find_errors(truth(), DETECTIONS, threshold=0.5)
    content = missed_labels(errors)
    assert [(a["image_id"], a["category_id"], a["score"]) for a in content["annotations"]] == [
        (1, CAR, 0.85),
        (3, SHIP, 0.75),
        (2, SHIP, 0.55),
    ]
    assert content["images"][1] == {"id": 3, "file_name": "third.png", "width": SIDE, "height": SIDE}
    assert content["categories"] == truth()["categories"]
    assert len(missed_labels(errors, score=0.8)["annotations"]) == 1
    assert evaluate(content, [box(1, CAR, [5, 70, 10, 10], 0.9)])["per_class"]["car"]["AP"] == pytest.approx(1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


def test_command_writes_all_files(written):
    out = written / "out"
    assert sorted(p.name for p in out.iterdir()) == ["errors.json", "images", "missed_labels.json", "report.html"]
    assert sorted(p.name for p in (out / "images").iterdir()) == ["001_first.png", "002_second image.png"]
    content = json.loads((out / "errors.json").read_text())
    assert content["counts"] == count_errors(find_errors(truth(), DETECTIONS, threshold=0.5))
    assert content["thresholds"] == {"ship": 0.5, "car": 0.5}
    assert len(json.loads((out / "missed_labels.json").read_text())["annotations"]) == 3
    assert "data:image" not in (out / "report.html").read_text()
    assert (written / "alone/report.html").read_text().count("data:image/png") == 4


def test_pngs_show_boxes_in_their_colours(written):
    picture = cv2.imread(str(written / "out/images/001_first.png"))[..., ::-1]
    assert picture.shape == (8 * SIDE, 8 * SIDE, 3)
    assert tuple(picture[8 * 10 + 4, 8 * 10 + 4]) == pixel_of(1, 10, 10)
    assert tuple(picture[8 * 10, 8 * 12]) == COLOURS["TP"]
    assert tuple(picture[8 * 10, 8 * 41]) == COLOURS["FN"]
    assert tuple(picture[8 * 70, 8 * 6]) == COLOURS["FP"]


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, ["gt="]),
        ({"gt": "gt.json", "dt": "dt.json", "images": "nowhere"}, ["images=nowhere", "no such folder"]),
        ({"gt": "gt.json", "dt": "dt.json", "images": "out"}, ["first.png", "any other"]),
        ({"gt": "gt.json", "dt": "dt.json", "threshold": {"boat": 0.5}}, ["boat", "ship"]),
        ({"gt": "gt.json", "dt": "dt.json", "ignore": "boat"}, ["boat", "ship"]),
    ],
)
def test_command_refuses_in_one_line(given, words, written, monkeypatch):
    monkeypatch.chdir(written)
    with pytest.raises(UserError) as error:
        report_command(**given)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_ignored_category_is_a_region_of_all_classes():
    gt = truth()
    gt["categories"].append({"id": 9, "name": "DontCare"})
    gt["annotations"].append({"id": 9, **box(3, 9, [10, 10, 60, 60])})
    errors = find_errors(gt, DETECTIONS, threshold=0.5, ignore=["DontCare"])
    assert errors.verdict[-1] == IGNORED and errors.truth.names == {0: "ship", 1: "car"}
    assert evaluate(gt, DETECTIONS, ignore=["DontCare"])["per_class"].keys() == {"ship", "car"}
