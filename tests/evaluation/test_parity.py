"""Figures of the AI-TOD evaluator itself, and random sets against pycocotools, both to the last digit."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO as CocoApi
from pycocotools.cocoeval import COCOeval

from tinyyolo.evaluation import AITOD, COCO, COCO_MAX_DETS, IOU_THRESHOLDS, evaluate

PARITY = Path(__file__).parent.parent / "parity"
EXACT = {"rtol": 0, "atol": 1e-12}
ROWS = {
    "AP": "AP", "AP_50": "AP50", "AP_75": "AP75", "AP_vt": "AP_vt", "AP_t": "AP_t", "AP_s": "AP_s", "AP_m": "AP_m",
    "AR@100": "AR100", "AR@300": "AR300", "AR@1500": "AR1500",
    "AR_vt@1500": "AR_vt", "AR_t@1500": "AR_t", "AR_s@1500": "AR_s", "AR_m@1500": "AR_m",
    "oLRP": "oLRP", "oLRP_Localisation": "oLRP_loc",
    "oLRP_false_positive": "oLRP_fp", "oLRP_false_negative": "oLRP_fn",
}  # fmt: skip
LRP = {"oLRP": "olrp", "oLRP_loc": "olrp_loc", "oLRP_fp": "olrp_fp", "oLRP_fn": "olrp_fn", "threshold": "lrp_opt_thr"}


def load_case(name, first_id=1):
    """Objects, detections, and the official evaluator's arrays of one set."""
    case = np.load(PARITY / f"{name}.npz")
    boxes, detected = case["gt_bbox"].T / 100, case["dt_bbox"].T / 100
    gt = {
        "images": [{"id": int(i)} for i in case["images"]],
        "categories": [{"id": i, "name": str(n)} for i, n in enumerate(case["classes"], 1)],
        "annotations": [
            {"id": i, "image_id": int(image), "category_id": int(c), "bbox": box, "area": area, "iscrowd": int(crowd)}
            for i, (image, c, box, area, crowd) in enumerate(
                zip(
                    case["gt_image"],
                    case["gt_category"],
                    boxes.tolist(),
                    (case["gt_area"] / 1e4).tolist(),
                    case["gt_crowd"],
                    strict=True,
                ),
                first_id,
            )
        ],
    }
    dt = {
        "image_id": case["dt_image"].astype(np.int64),
        "category_id": case["dt_category"].astype(np.int64),
        "bbox": detected,
        "score": case["dt_score"] / 1e4,
    }
    return gt, dt, case


@pytest.mark.parametrize("name", ["eval_100", "eval_corner_cases"])
def test_every_figure_of_the_official_evaluator(name):
    gt, dt, case = load_case(name)
    result = evaluate(gt, dt, arrays=True)
    want = dict(zip(case["row_names"].tolist(), case["rows"].tolist(), strict=True))
    for theirs, ours in ROWS.items():
        np.testing.assert_allclose(result[ours], want[theirs], **EXACT, err_msg=ours)
    for ours, theirs in LRP.items():
        np.testing.assert_allclose(result["lrp"][ours], case[theirs], **EXACT, err_msg=ours)
        for k, label in enumerate(case["classes"].tolist()):
            np.testing.assert_allclose(result["per_class"][label][ours], case[theirs][k, 0, 2], **EXACT)
    np.testing.assert_array_equal(result["recall"], case["recall"])
    if "precision" in case:
        np.testing.assert_array_equal(result["precision"], case["precision"])
        np.testing.assert_array_equal(result["scores"], case["scores"])
    else:
        np.testing.assert_allclose(result["precision"].mean(1), case["mean_precision"], **EXACT)
        np.testing.assert_allclose(result["scores"].mean(1), case["mean_scores"], **EXACT)


def test_an_annotation_with_id_0_counts_like_any_other():
    gt, dt, case = load_case("eval_corner_cases", first_id=0)
    result = evaluate(gt, dt)
    assert result["AP"] == pytest.approx(0.2706669650446003, abs=1e-12)  # the official evaluator says .27060 here
    assert result["AP"] == pytest.approx(float(case["rows"][0]), abs=1e-12)


def scene(seed, images, classes, objects, detections, integer, crowds, levels, quirks):
    """A random set: detections are moved objects and noise; scores have `levels` values, so that ties are common."""
    rng = np.random.default_rng(seed)
    gt_boxes, dt_boxes = [], []
    for image in range(1, images + 1):
        number = rng.integers(0, objects + 1)
        boxes = np.column_stack([rng.uniform(0, 60, (number, 2)), rng.choice([4, 7.5, 8, 16, 17, 40], (number, 2))])
        boxes = np.round(boxes) if integer else boxes
        gt_boxes += [(image, int(rng.integers(1, classes + 1)), box) for box in boxes]
        for _ in range(rng.integers(0, detections + 1)):
            if number and rng.random() < 0.8:
                box = boxes[rng.integers(number)] + rng.normal(0, 1, 4) * rng.choice([0, 0.5, 2])
            else:
                box = np.append(rng.uniform(0, 60, 2), rng.uniform(1, 40, 2))
            box = np.append(box[:2], np.maximum(box[2:], 0))
            dt_boxes.append((image, int(rng.integers(1, classes + 1)), np.round(box) if integer else box))
    annotations = [
        {
            "id": i,
            "image_id": image,
            "category_id": category,
            "bbox": box.tolist(),
            "area": float(box[2] * box[3] * (rng.choice([1, 0.7]) if quirks else 1)),
            "iscrowd": int(rng.random() < crowds),
        }
        for i, (image, category, box) in enumerate(gt_boxes, 1)
    ]
    results = [
        {"image_id": i, "category_id": c, "bbox": b.tolist(), "score": float(rng.integers(1, levels + 1) / levels)}
        for i, c, b in dt_boxes
    ]
    gt = {
        "images": [{"id": i, "width": 100, "height": 100} for i in range(images, 0, -1)],
        "categories": [{"id": c, "name": f"class {c}"} for c in range(1, classes + 2)],  # the last has nothing
        "annotations": annotations,
    }
    return gt, results


def pycocotools_arrays(gt, dt, max_dets, sides, thresholds=IOU_THRESHOLDS):
    """precision, recall, scores and LRP of the reference; LRP by its definition from the reference's own matches."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = CocoApi()
        api.dataset = gt
        api.createIndex()
        # pycocotools' loadRes cannot take an empty list.
        evaluator = COCOeval(api, api.loadRes(dt) if dt else empty_results(gt), "bbox")
        evaluator.params.maxDets = list(max_dets)
        evaluator.params.iouThrs = np.asarray(thresholds)
        evaluator.params.areaRng = [[0, 1e10], *([low**2, high**2] for low, high in sides.values())]
        evaluator.params.areaRngLbl = ["all", *sides]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def empty_results(gt):
    api = CocoApi()
    api.dataset = {**gt, "annotations": []}
    api.createIndex()
    return api


def lrp_by_definition(evaluator, k, a, limit):
    """Optimal LRP of one class and area at IoU .5, one detection after the other."""
    images, areas = len(evaluator.params.imgIds), len(evaluator.params.areaRng)
    found = [e for e in evaluator.evalImgs[(k * areas + a) * images : (k * areas + a + 1) * images] if e is not None]
    objects = sum(int(np.sum(np.asarray(e["gtIgnore"]) == 0)) for e in found)
    if not objects:
        return (-1.0,) * 5
    rows = []
    for e in found:
        iou = evaluator.ious[e["image_id"], e["category_id"]]
        gt_ids = [g["id"] for g in evaluator._gts[e["image_id"], e["category_id"]]]
        for d, score in enumerate(e["dtScores"][:limit]):
            if not e["dtIgnore"][0][d]:
                matched = int(e["dtMatches"][0][d])
                rows.append((score, iou[d][gt_ids.index(matched)] if matched else None))
    rows.sort(key=lambda row: -row[0])
    best, true, false, loc = None, 0, 0, 0.0
    for score, overlap in rows:
        true, false = true + (overlap is not None), false + (overlap is None)
        loc += 0.0 if overlap is None else 1 - overlap
        missed = objects - true
        value = (loc / 0.5 + false + missed) / (true + false + missed)
        if best is None or value < best[0]:
            mean_loc = loc / true if true else np.nan
            best = (value, mean_loc, false / (true + false), missed / objects, score)
    return best if true else (1.0, np.nan, np.nan, 1.0, np.nan)


def compare(gt, dt, max_dets, sides, thresholds=IOU_THRESHOLDS):
    theirs = pycocotools_arrays(gt, dt, max_dets, sides, thresholds)
    ours = evaluate(gt, dt, max_dets=max_dets, area_ranges=sides, iou_thresholds=thresholds, arrays=True)
    theirs_rules = evaluate(
        gt, dt, max_dets=max_dets, area_ranges=sides, iou_thresholds=thresholds, arrays=True, rules="coco"
    )
    for key in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours[key], theirs.eval[key], err_msg=key)
        np.testing.assert_array_equal(theirs_rules[key], theirs.eval[key], err_msg=key)
    if thresholds[0] != 0.5:
        return
    for k in range(len(gt["categories"])):
        for a in range(1 + len(sides)):
            for m, limit in enumerate(max_dets):
                got = [ours["lrp"][part][k, a, m] for part in LRP]
                np.testing.assert_allclose(got, lrp_by_definition(theirs, k, a, limit), **EXACT, err_msg=f"{k} {a} {m}")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 4),
    classes=st.integers(1, 3),
    objects=st.integers(0, 25),
    detections=st.integers(0, 80),
    integer=st.booleans(),
    crowds=st.sampled_from([0, 0.1, 0.5]),
    levels=st.sampled_from([1, 3, 1000]),
    quirks=st.booleans(),
    official=st.booleans(),
)
def test_equals_pycocotools_on_random_sets(official, **parameters):
    gt, dt = scene(**parameters)
    if official:
        compare(gt, dt, (3, 10, 1500), AITOD)
    else:
        compare(gt, dt, COCO_MAX_DETS, COCO)


def test_equals_pycocotools_with_3000_detections_an_image():
    gt, dt = scene(
        1, images=2, classes=1, objects=60, detections=3000, integer=True, crowds=0.05, levels=50, quirks=True
    )
    dt += [{**d, "image_id": 2} for d in dt[: 3000 - sum(d["image_id"] == 2 for d in dt)]]
    compare(gt, dt, (100, 300, 1500), AITOD)


@pytest.mark.parametrize(
    "thresholds",
    [(0.05,), (0.3, 0.5, 1.0), (0.75, 0.5, 0.9), tuple(np.linspace(0.5, 0.99, 40).tolist())],
)
def test_equals_pycocotools_at_other_thresholds(thresholds):
    gt, dt = scene(2, images=3, classes=2, objects=20, detections=60, integer=True, crowds=0.1, levels=5, quirks=False)
    compare(gt, dt, (1, 10, 100), AITOD, thresholds)


@pytest.mark.parametrize("objects, detections", [(0, 0), (0, 20), (20, 0)])
def test_equals_pycocotools_where_something_is_missing(objects, detections):
    gt, dt = scene(3, 3, 2, objects, detections, integer=True, crowds=0, levels=5, quirks=False)
    compare(gt, dt, (1, 10, 100), AITOD)


def test_boxes_far_from_the_origin_and_huge_ones():
    gt, dt = scene(4, images=3, classes=2, objects=20, detections=60, integer=False, crowds=0.2, levels=5, quirks=False)
    for record in [*gt["annotations"], *dt]:
        record["bbox"] = [
            record["bbox"][0] * 1000 - 30000,
            record["bbox"][1] * 1000,
            *(1000 * s for s in record["bbox"][2:]),
        ]
    for record in gt["annotations"]:
        record["area"] = record["bbox"][2] * record["bbox"][3]
    compare(gt, dt, (1, 10, 100), {"small": (0, 8000), "large": (8000, 1e5)})


def one_class(objects, detections, **more):
    """A set of one image and class; detections by falling score."""
    gt = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": 0, **more}
            for i, b in enumerate(objects, 1)
        ],
    }
    dt = [
        {"image_id": 1, "category_id": 1, "bbox": b, "score": round(0.9 - 0.1 * i, 1)} for i, b in enumerate(detections)
    ]
    return gt, dt


def test_of_two_objects_with_equal_iou_the_later_is_matched():
    objects, found = [[0, 0, 10, 10], [2, 0, 10, 10]], [[1, 0, 10, 10], [-2, 0, 10, 10]]
    gt, dt = one_class(objects, found)
    compare(gt, dt, (10,), AITOD)
    assert evaluate(gt, dt)["per_class"]["ship"]["AR1500"] > evaluate(one_class(objects[::-1], found)[0], dt)["AR1500"]


@pytest.mark.parametrize(
    "box",
    [
        [10, 0, 20, 10],  # reaches as far to the left as IoU .5 allows
        [20, 0, 20, 10],
        [25, 0, 5, 10],  # begins as far to the right
        [20, 0, 5, 10],
        [20, -10, 10, 20],
        [20, 0, 10, 20],
        [20, 5, 10, 5],
    ],
)
def test_no_box_of_iou_one_half_is_overlooked(box):
    gt, dt = one_class([[20, 0, 10, 10]], [box])
    compare(gt, dt, (10,), AITOD)
    assert evaluate(gt, dt)["AR1500"] == 0.1


def test_iou_1_is_reached_by_equal_boxes_in_spite_of_rounding():
    box = [0.7, 0.7, 0.1, 0.1]  # its right edge minus its left one is less than its width
    gt, dt = one_class([box], [box])
    compare(gt, dt, (10,), AITOD, (0.5, 1.0))
    assert evaluate(gt, dt, iou_thresholds=[1.0])["AR1500"] == 1


def test_lrp_of_1_everywhere_is_that_of_the_first_detection():
    gt, dt = one_class([[0, 0, 10, 10]], [[50, 50, 10, 10], [0, 0, 10, 5]])
    compare(gt, dt, (10,), AITOD)
    ship = evaluate(gt, dt)["per_class"]["ship"]
    assert ship["oLRP"] == 1 and ship["oLRP_fp"] == 1 and ship["threshold"] == 0.9 and ship["AP50"] == 0.5
