"""What `evaluate` takes, returns and refuses; its reader; its command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Annotations
from tinyyolo.datasets.formats import coco
from tinyyolo.evaluation import COCO, COCO_MAX_DETS, evaluate, format_table
from tinyyolo.evaluation.commands import evaluate_command
from tinyyolo.evaluation.detections import read_detections
from tinyyolo.evaluation.inputs import read_truth

OVERALL = "AP AP50 AP75 AP_vt AP_t AP_s AP_m AR100 AR300 AR1500 AR_vt AR_t AR_s AR_m oLRP oLRP_loc oLRP_fp oLRP_fn"


def truth(**changes):
    return {
        "images": [{"id": 7, "file_name": "b.png", "width": 64, "height": 48}, {"id": 3, "file_name": "a.png"}],
        "categories": [{"id": 5, "name": "ship"}, {"id": 2, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 10, 6, 6], "area": 36, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [30, 10, 12, 12], "area": 144, "iscrowd": 0},
            {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
        ],
        **changes,
    }


def found():
    return [
        {"image_id": 7, "category_id": 5, "bbox": [10, 10, 6, 6], "score": 0.9},
        {"image_id": 3, "category_id": 2, "bbox": [0, 0, 20, 18], "score": 0.8},
        {"image_id": 3, "category_id": 5, "bbox": [0, 0, 20, 18], "score": 0.4},
    ]


def same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, dict):
            same(value, second[key])
        else:
            np.testing.assert_array_equal(value, second[key], err_msg=key)


def test_figures_stand_under_their_names():
    result = evaluate(truth(), found())
    assert list(result) == [*OVERALL.split(), "threshold", "per_class"]
    assert list(result["per_class"]) == ["car", "ship"]
    assert list(result["per_class"]["ship"]) == [*OVERALL.split(), "threshold"]
    ship, car = result["per_class"]["ship"], result["per_class"]["car"]
    assert (
        ship["AP50"] == pytest.approx(51 / 101)
        and ship["AP_vt"] == pytest.approx(1)
        and ship["AP_t"] == 0
        and ship["AP_s"] == -1
    )
    assert ship["oLRP"] == pytest.approx(0.5) and ship["oLRP_fn"] == 0.5 and ship["threshold"] == 0.9
    assert car["AP"] == pytest.approx(0.9) and car["oLRP_loc"] == pytest.approx(0.1)
    assert result["AP50"] == pytest.approx((51 / 101 + 1) / 2)


def test_own_ranges_and_limits_name_the_keys():
    result = evaluate(truth(), found(), max_dets=(10, 1), area_ranges={"mini": (0, 8)}, lrp=False)
    assert list(result) == ["AP", "AP50", "AP75", "AP_mini", "AR1", "AR10", "AR_mini", "per_class"]
    assert result["AP_mini"] == pytest.approx(1)
    assert list(evaluate(truth(), found(), area_ranges=COCO, max_dets=COCO_MAX_DETS))[3:9] == [
        "AP_s", "AP_m", "AP_l", "AR1", "AR10", "AR100",
    ]  # fmt: skip


def test_a_threshold_that_was_not_asked_for_is_no_figure():
    result = evaluate(truth(), found(), iou_thresholds=[0.25])
    assert result["AP50"] == result["AP75"] == -1 and result["AP"] > 0
    assert result["oLRP"] == evaluate(truth(), found())["oLRP"]


def test_arrays_on_request():
    result = evaluate(truth(), found(), arrays=True)
    assert result["precision"].shape == result["scores"].shape == (10, 101, 2, 5, 3)
    assert result["recall"].shape == (10, 2, 5, 3) and result["lrp"]["threshold"].shape == (2, 5, 3)


def test_every_form_of_input_gives_the_same_figures(tmp_path):
    want = evaluate(truth(), found())
    for name, content in (("gt", truth()), ("dt", found())):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    same(want, evaluate(tmp_path / "gt.json", str(tmp_path / "dt.json")))
    columns = {key: np.array([d[key] for d in found()]) for key in ("image_id", "category_id", "bbox", "score")}
    same(want, evaluate(truth(), columns))
    same(want, evaluate(truth(), columns | {"file_name": ["x.png"] * 3}))  # arrays go by their ids
    rows = np.column_stack([columns["image_id"], columns["bbox"], columns["score"], columns["category_id"]])
    same(want, evaluate(truth(), rows))
    same(
        want,
        evaluate(
            {**truth(), "annotations": {k: [a[k] for a in truth()["annotations"]] for k in truth()["annotations"][0]}},
            columns,
        ),
    )


def test_written_results_are_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    dt = {"image_id": np.full(500, 7), "category_id": rng.choice([2, 5], 500), "bbox": 50 * rng.random((500, 4))}
    dt["score"] = rng.random(500).astype(np.float32)
    given = read_detections(dt, read_truth(truth()))
    coco.write_results(tmp_path / "new/predictions.json", given)
    same(evaluate(truth(), dt), evaluate(truth(), tmp_path / "new/predictions.json"))
    same(evaluate(truth(), dt), evaluate(truth(), given))
    assert json.loads((tmp_path / "new/predictions.json").read_text())[499]["bbox"] == dt["bbox"][499].tolist()
    none = read_detections({key: value[:0] for key, value in dt.items()}, read_truth(truth()))
    coco.write_results(tmp_path / "none.json", none)
    assert json.loads((tmp_path / "none.json").read_text()) == [] and len(list(tmp_path.iterdir())) == 2


def annotations(**changes):
    """What `tinyyolo.datasets` hands over: the same objects as `truth()`, its classes in another order."""
    given = {
        "path": Path("a.json"),
        "file_names": ["b.png", "a.png"],
        "sizes_hw": np.array([[48, 64], [0, 0]]),
        "image_ids": np.array([7, 3]),
        "names": {0: "ship", 1: "car"},
        "category_ids": np.array([5, 2]),
        "image_index": np.array([0, 0, 1]),
        "boxes": np.array([[10, 10, 16, 16], [30, 10, 42, 22], [0, 0, 20, 20.0]]),
        "labels": np.array([0, 0, 1]),
        "areas": np.array([36.0, 144, 400]),
        "box_categories": np.array([5, 5, 2]),
        "ids": np.array([1, 2, 3]),
        "crowd": np.zeros(3, bool),
        "categories": {5: "ship", 2: "car"},
    }
    return Annotations(**{**given, **changes})


def test_annotations_in_memory_give_the_same_figures():
    same(evaluate(truth(), found()), evaluate(annotations(), found()))
    shown = evaluate(annotations(), {"image_id": [], "category_id": [], "bbox": np.empty((0, 4)), "score": []})
    assert shown["AP"] == 0 and shown["oLRP"] == 1


def test_ignore_regions_of_annotations():
    crowd = annotations(labels=np.array([-1, 0, 1]))  # a crowd of ships, where a car is then a false positive
    as_json = truth()
    as_json["annotations"][0]["iscrowd"] = 1
    on_region = [*found(), {"image_id": 7, "category_id": 2, "bbox": [10, 10, 6, 6], "score": 0.95}]
    same(evaluate(as_json, on_region), evaluate(crowd, on_region))
    everyone = annotations(labels=np.array([-1, 0, 1]), box_categories=np.array([99, 5, 2]))
    assert (
        evaluate(everyone, on_region)["per_class"]["car"]["AP"] == evaluate(truth(), found())["per_class"]["car"]["AP"]
    )
    assert evaluate(crowd, on_region)["per_class"]["car"]["AP"] < 0.5


@pytest.mark.parametrize("dt", [[], {"image_id": [], "category_id": [], "bbox": [], "score": []}, np.empty((0, 7))])
def test_no_detections_is_normal(dt):
    result = evaluate(truth(), dt)
    assert result["AP"] == 0 and result["AR1500"] == 0 and result["oLRP"] == 1 and np.isnan(result["oLRP_fp"])


def test_no_objects_is_normal():
    result = evaluate(truth(annotations=[]), found())
    assert result["AP"] == result["AR100"] == result["oLRP"] == -1


def test_detection_order_within_equal_scores_is_kept():
    boxes = [[10, 10, 6, 6], [50, 10, 6, 6]]
    first, second = ([{**found()[0], "bbox": b} for b in order] for order in (boxes, boxes[::-1]))
    assert (
        evaluate(truth(), first)["per_class"]["ship"]["AP50"] > evaluate(truth(), second)["per_class"]["ship"]["AP50"]
    )


def detection(**changes):
    return [{**found()[0], **changes}]


def without(key):
    return [{k: v for k, v in found()[0].items() if k != key}]


@pytest.mark.parametrize(
    "gt, dt, words",
    [
        (truth(), detection(image_id=8), ["dt", "image_id 8", "not in gt (1 such)"]),
        (truth(), detection(category_id=1), ["dt", "category_id 1", "not in gt"]),
        (truth(), detection(image_id="b"), ["image_id b"]),
        (truth(), detection(image_id=7.5), ["image_id 7.5"]),
        (truth(), detection(score=1.5), ["detection 0", "score 1.5", "0 to 1"]),
        (truth(), detection(score=-0.1), ["score -0.1"]),
        (truth(), detection(score=float("nan")), ["score nan"]),
        (truth(), detection(score="high"), ["detection 0", "'high'"]),
        (truth(), detection(bbox=[1, 2, -3, 4]), ["detection 0", "negative size"]),
        (truth(), detection(bbox=[1, 2, float("nan"), 4]), ["not finite"]),
        (truth(), detection(bbox=[1, 2, 3]), ["detection 0", "[1, 2, 3]", "[x, y, width, height]"]),
        (truth(), detection(bbox=None), ["detection 0", "None"]),
        (truth(), without("score"), ["detection 0", "'score'"]),
        (truth(), without("bbox"), ["detection 0", "'bbox'"]),
        (truth(), ["box"], ["box", "no such"]),  # texts are files
        (truth(), 3, ["dt", "int"]),
        (truth(), {"image_id": [7], "category_id": [5], "bbox": [[0, 0, 1, 1]]}, ["'score'"]),
        (truth(), {"image_id": [7, 7], "category_id": [5], "bbox": [[0, 0, 1, 1]], "score": [1]}, ["2 rows"]),
        (truth(images=[{"id": 7}, {"id": 3}, {"id": 7}]), [], ["image 3", "id 7", "already"]),
        (truth(categories=[{"id": 5, "name": "ship"}]), [], ["annotation 3", "category_id 2", "categories"]),
        (truth(images=[{"id": 7}]), [], ["annotation 3", "image_id 3", "images"]),
        (truth(images=[{"file_name": "a.png"}]), [], ["image a.png", "'id'"]),
        (truth(categories=[{"id": 1}]), [], ["category 1", "name"]),
        (truth(annotations=[{"image_id": 7, "category_id": 5, "bbox": [0, 0, "a", 2]}]), [], ["annotation 1", "'a'"]),
        ({"images": []}, [], ["'annotations'", "it has 'images'"]),
        ([], [], ["COCO"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(gt, dt, words):
    with pytest.raises(UserError) as error:
        evaluate(gt, dt)
    line = str(error.value)
    assert "\n" not in line and all(word in line for word in words), line


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"max_dets": ()}, ["max_dets"]),
        ({"max_dets": (0, 10)}, ["max_dets"]),
        ({"iou_thresholds": ()}, ["iou_thresholds"]),
        ({"iou_thresholds": (0.5, 1.5)}, ["iou_thresholds", "1.5"]),
        ({"iou_thresholds": (0,)}, ["iou_thresholds"]),
        ({"area_ranges": {"vt": (8, 2)}}, ["vt", "(8, 2)"]),
        ({"area_ranges": {"vt": (8,)}}, ["vt"]),
    ],
)
def test_bad_settings_name_themselves(settings, words):
    with pytest.raises(UserError) as error:
        evaluate(truth(), found(), **settings)
    assert all(word in str(error.value) for word in words)


def test_more_lanes_than_a_word_holds():
    sides = {f"s{i}": (i, i + 5) for i in range(20)}
    many = evaluate(truth(), found(), area_ranges=sides)
    for name, bounds in sides.items():
        assert many[f"AP_{name}"] == evaluate(truth(), found(), area_ranges={name: bounds})[f"AP_{name}"]


@pytest.mark.parametrize("text", ["", "[{", '{"images": [', "[1,]"])
def test_malformed_json_names_the_file(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.json:1: not valid JSON"):
        evaluate(truth(), path)
    with pytest.raises(UserError, match=r"missing\.json"):
        evaluate(tmp_path / "missing.json", path)


def test_table_shows_percent_and_dashes():
    lines = format_table(evaluate(truth(), found())).splitlines()
    assert [line.split()[0] for line in lines] == ["class", "all", "car", "ship"]
    shown = dict(zip(lines[0].split(), lines[3].split(), strict=True))
    assert shown["AP50"] == "50.5" and shown["AP_s"] == "-" and shown["threshold"] == "0.90"


def test_command_writes_json_and_csv(tmp_path, capsys):
    for name, content in (("gt", truth()), ("dt", found())):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    evaluate_command(gt=str(tmp_path / "gt.json"), dt=str(tmp_path / "dt.json"), out=str(tmp_path / "out"))
    want = evaluate(truth(), found())
    assert "50.5" in capsys.readouterr().out
    same(want, json.loads((tmp_path / "out/metrics.json").read_text()))
    rows = list(csv.DictReader((tmp_path / "out/metrics.csv").open()))
    assert [row["class"] for row in rows] == ["all", "car", "ship"]
    assert float(rows[2]["AP50"]) == want["per_class"]["ship"]["AP50"] and rows[2]["AP_s"] == ""


def test_command_says_that_a_file_has_no_detections(tmp_path, capsys):
    (tmp_path / "gt.json").write_text(json.dumps(truth()))
    (tmp_path / "dt.json").write_text("[]")
    evaluate_command(gt=str(tmp_path / "gt.json"), dt=str(tmp_path / "dt.json"), out=str(tmp_path / "out"))
    assert capsys.readouterr().err == f"{tmp_path / 'dt.json'}: there are no detections in it\n"
    assert json.loads((tmp_path / "out/metrics.json").read_text())["AP"] == 0


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, ["gt=", "tinyyolo evaluate"]),
        ({"gt": "a.json"}, ["dt="]),
        ({"gt": "a.json", "dt": "b.json", "sizes": "coko"}, ["sizes=coko", "coco"]),
        ({"gt": "a.json", "dt": "b.json", "sizes": {"vt": "small"}}, ["sizes.vt"]),
        ({"gt": "a.json", "dt": "b.json", "max_dets": "many"}, ["max_dets=many"]),
    ],
)
def test_command_refuses_in_one_line(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        evaluate_command(**given)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not list(tmp_path.iterdir())
