"""Limits and bounds of the evaluator, each number worked out by hand."""

import numpy as np
import pytest

from tinyyolo.evaluation import evaluate, find_errors
from tinyyolo.evaluation.errors import BACKGROUND, HIDDEN, TRUE


def scene(objects, detections, images=1):
    """Objects (image, box) and detections (image, box, score) of one class."""
    gt = {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"image_id": image, "category_id": 1, "bbox": box} for image, box in objects],
    }
    dt = [{"image_id": image, "category_id": 1, "bbox": box, "score": score} for image, box, score in detections]
    return gt, dt


BOX, FAR = [0, 0, 10, 10], [500, 500, 10, 10]


def test_each_limit_takes_the_most_confident_of_each_image():
    """Three objects; of four detections all but the 2nd are right: limits 1, 2, 3, 4 find 1, 1, 2, 3."""
    boxes = [[40 * i, 0, 10, 10] for i in range(3)]
    found = [(1, boxes[0], 0.9), (1, FAR, 0.8), (1, boxes[1], 0.7), (1, boxes[2], 0.6)]
    gt, dt = scene([(1, box) for box in boxes], found)
    result = evaluate(gt, dt, max_dets=(1, 2, 3, 4), iou_thresholds=[0.5], area_ranges={}, arrays=True)
    assert [result[f"AR{m}"] for m in (1, 2, 3, 4)] == [1 / 3, 1 / 3, 2 / 3, 1.0]
    # Precision at the right ones: 1 of 1, 2 of 3, 3 of 4; made falling from the right: 1, 3/4, 3/4.
    precision = result["precision"][0, :, 0, 0]
    for m, third in ((0, 0), (1, 0), (2, 2 / 3), (3, 3 / 4)):
        np.testing.assert_allclose(precision[:34, m], 1)  # recall 0 to .33
        np.testing.assert_allclose(precision[34:67, m], third)  # to .66
        np.testing.assert_allclose(precision[67:, m], 3 / 4 if m == 3 else 0)
    assert result["AP"] == pytest.approx((34 + 67 * 3 / 4) / 101)


def test_a_limit_counts_each_image_and_class_by_itself():
    gt, dt = scene([(1, BOX), (2, BOX)], [(1, BOX, 0.9), (1, FAR, 0.8), (2, FAR, 0.7), (2, BOX, 0.6)], images=2)
    result = evaluate(gt, dt, max_dets=(1, 2), iou_thresholds=[0.5], area_ranges={}, arrays=True)
    assert (result["AR1"], result["AR2"]) == (0.5, 1.0)
    # At limit 1: right, wrong. At 2: right, wrong, wrong, right: 1/1 and 2/4.
    np.testing.assert_allclose(result["precision"][0, [50, 51], 0, 0], [[1, 1], [0, 0.5]])


def test_the_limit_takes_the_first_of_equal_scores():
    gt, dt = scene([(1, BOX)], [(1, FAR, 0.5), (1, BOX, 0.5)])
    settings = {"iou_thresholds": [0.5], "area_ranges": {}}
    assert evaluate(gt, dt, max_dets=(1,), **settings)["AR1"] == 0
    assert evaluate(gt, dt[::-1], max_dets=(1,), **settings)["AR1"] == 1


def test_lrp_counts_up_to_the_largest_limit():
    gt, dt = scene([(1, BOX), (1, [40, 0, 10, 10])], [(1, BOX, 0.9), (1, [40, 0, 10, 10], 0.8)])
    ship = evaluate(gt, dt, max_dets=(1,))["per_class"]["ship"]
    assert (ship["oLRP"], ship["oLRP_fn"], ship["threshold"]) == (0.5, 0.5, 0.9)
    ship = evaluate(gt, dt, max_dets=(2,))["per_class"]["ship"]
    assert (ship["oLRP"], ship["oLRP_fn"], ship["threshold"]) == (0, 0, 0.8)


@pytest.mark.parametrize(("width", "right"), [(5, 1), (4.999, 0), (20, 1), (20.001, 0)])
def test_iou_equal_to_the_threshold_matches(width, right):
    gt, dt = scene([(1, BOX)], [(1, [0, 0, width, 10], 0.9)])
    assert evaluate(gt, dt, iou_thresholds=[0.5])["AR1500"] == right
    assert find_errors(gt, dt, threshold=0).verdict.tolist() == [TRUE if right else 3]


@pytest.mark.parametrize(("score", "verdict"), [(0.3, TRUE), (0.29999, HIDDEN)])
def test_a_score_equal_to_the_threshold_counts(score, verdict):
    gt, dt = scene([(1, BOX)], [(1, BOX, score)])
    assert find_errors(gt, dt, threshold=0.3).verdict.tolist() == [verdict]


def test_verdicts_stop_at_the_largest_limit():
    gt, dt = scene([(1, BOX)], [(1, BOX, 0.9), (1, FAR, 0.8), (1, [300, 0, 9, 9], 0.7)])
    assert find_errors(gt, dt, threshold=0, max_dets=(1, 2)).verdict.tolist() == [TRUE, BACKGROUND, HIDDEN]


@pytest.mark.parametrize(("side", "ranges"), [(8, ["vt", "t"]), (16, ["t", "s"]), (32, ["s", "m"]), (12, ["t"])])
def test_a_side_at_a_bound_is_in_both_ranges(side, ranges):
    """COCO's ranges are closed at both ends; by errors a box belongs to the first."""
    box = [0, 0, side, side]
    gt, dt = scene([(1, box)], [(1, box, 0.9)])
    result = evaluate(gt, dt)
    assert [name for name in ("vt", "t", "s", "m") if result[f"AR_{name}"] == 1] == ranges
    errors = find_errors(gt, dt)
    assert errors.sizes[errors.gt_size[0]] == ranges[0]


@pytest.mark.parametrize("ids", [(1, 2), (2, 1), ("a", "b"), ("b", "a"), ("9", "10")])
def test_of_equal_scores_the_image_with_the_lower_id_comes_first(ids):
    """The object is in image 1 of the file; its detection counts before the wrong one in the other only by id."""
    gt = {
        "images": [{"id": key} for key in ids],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"image_id": ids[0], "category_id": 1, "bbox": BOX}],
    }
    dt = [{"image_id": key, "category_id": 1, "bbox": BOX, "score": 0.5} for key in ids]
    first = sorted(ids)[0] == ids[0]
    for given in (dt, dt[::-1]):
        assert evaluate(gt, given)["AP50"] == pytest.approx(1 if first else 0.5)


def test_classes_stand_in_the_order_of_their_ids():
    kinds = [{"id": 7, "name": "ship"}, {"id": 3, "name": "car"}, {"id": 5, "name": "bus"}]
    notes = [{"image_id": 1, "category_id": 7, "bbox": BOX}, {"image_id": 1, "category_id": 3, "bbox": FAR}]
    gt = {"images": [{"id": 1}], "categories": kinds, "annotations": notes}
    dt = [{"image_id": 1, "category_id": 3, "bbox": FAR, "score": 0.5}]
    result = evaluate(gt, dt, arrays=True)
    assert list(result["per_class"]) == ["car", "bus", "ship"]
    assert result["recall"][0, :, 0, 0].tolist() == [1, -1, 0]
