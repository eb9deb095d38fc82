"""The score from which on detections of a class are shown: where LRP is least, worked out by hand."""

import pytest

from tinyyolo.evaluation import evaluate, operating_scores
from tinyyolo.evaluation.metrics import BOUNDS, FEW

CAR, SHIP, BOAT = 1, 2, 3
CARS, SHIPS = 12, 2
NAMES = ("car", "ship", "boat")


def square(i, category):
    return [40 * i, 60 * category, 10, 10]


def found(category, score, objects=(), wrong=0, height=10):
    """Detections of some objects, `height` of their 10 px, and wrong ones."""
    right = [[*square(i, category)[:3], height] for i in objects]
    boxes = right + [[40 * i, 60 * category + 30, 10, 10] for i in range(wrong)]
    return [{"image_id": 1, "category_id": category, "bbox": box, "score": score} for box in boxes]


GT = {
    "images": [{"id": 1}],
    "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)],
    "annotations": [
        {"image_id": 1, "category_id": category, "bbox": square(i, category)}
        for category, count in ((CAR, CARS), (SHIP, SHIPS))
        for i in range(count)
    ],
}
# Right, wrong and missed cars at .9: 6, 0, 6; at .7: 9, 1, 3; at .5: 10, 5, 2. LRP 6/12, 4/13 and 7/17.
DT = [
    *found(CAR, 0.9, range(6)),
    *found(CAR, 0.8, wrong=1),
    *found(CAR, 0.7, range(6, 9)),
    *found(CAR, 0.6, wrong=4),
    *found(CAR, 0.5, [9]),
    # With the ships 14 objects: 8/14 at .9, 6/15 at .7, 9/19 at .5, 8/19 at .3, 7/19 at .2.
    *found(SHIP, 0.3, [0]),
    *found(SHIP, 0.2, [1]),
    *found(BOAT, 0.95, wrong=20),  # there is no boat: whether they are right is not known
]
OBJECTS = {"car": CARS, "ship": SHIPS, "boat": 0}


def test_it_is_where_the_lrp_of_a_class_is_least_and_of_all_together():
    result = evaluate(GT, DT)
    assert result["per_class"]["car"]["oLRP"] == pytest.approx(4 / 13)
    assert {name: result["per_class"][name]["threshold"] for name in NAMES} == {"car": 0.7, "ship": 0.2, "boat": -1}
    assert result["threshold"] == 0.2


def test_loose_boxes_are_worth_less():
    """At IoU .6 each of the three costs .4 / .5 = .8: 6.4/13 is still less than 6/12; at .55 .9 each: 6.7/13 is not."""
    for height, expected in ((6, 0.7), (5.5, 0.9)):
        dt = [*found(CAR, 0.9, range(6)), *found(CAR, 0.8, wrong=1), *found(CAR, 0.7, range(6, 9), height=height)]
        assert evaluate(GT, dt)["per_class"]["car"]["threshold"] == expected


def test_a_class_with_few_objects_has_the_score_of_all():
    scores, common = operating_scores(evaluate(GT, DT), OBJECTS, NAMES)
    assert scores == {"car": 0.6999, "ship": 0.1999, "boat": 0.1999}  # more than these is .7, and .2
    assert common == ["ship", "boat"]
    assert operating_scores(evaluate(GT, DT), OBJECTS, ["ship", "tram"]) == ({"ship": 0.1999, "tram": 0.1999}, NOT_OWN)


NOT_OWN = ["ship", "tram"]


@pytest.mark.parametrize(("count", "expected"), [(FEW - 1, 0.1999), (FEW, 0.6999)])
def test_how_many_are_few(count, expected):
    assert operating_scores(evaluate(GT, DT), {"car": count, "ship": 2}, ["car"])[0] == {"car": expected}


@pytest.mark.parametrize(("score", "expected"), [(0.99995, BOUNDS[1]), (0.002, BOUNDS[0]), (0.0, BOUNDS[0])])
def test_bounds(score, expected):
    dt = found(CAR, score, range(12))
    assert operating_scores(evaluate(GT, dt), OBJECTS, ["car"])[0] == {"car": expected}


@pytest.mark.parametrize(
    ("dt", "objects"),
    [([], OBJECTS), (found(CAR, 0.5, wrong=5), OBJECTS), (found(CAR, 0.5, range(2)), {"car": 5, "ship": 4})],
    ids=["nothing found", "nothing right", "too few objects in all"],
)
def test_nothing_can_be_said(dt, objects):
    assert operating_scores(evaluate(GT, dt), objects, NAMES) == ({}, [])


def test_a_class_of_which_nothing_is_right_has_the_score_of_all():
    dt = [*found(CAR, 0.9, wrong=3), *found(SHIP, 0.4, range(2))]
    result = evaluate(GT, dt)
    # All together: no right one among the first three; then 2 right, 3 wrong, 12 missed.
    assert result["threshold"] == 0.4
    assert operating_scores(result, OBJECTS, NAMES)[0] == dict.fromkeys(NAMES, 0.3999)


def test_one_class_alone_is_all_together():
    gt = {**GT, "annotations": GT["annotations"][:CARS], "categories": GT["categories"][:1]}
    result = evaluate(gt, [row for row in DT if row["category_id"] == CAR], max_dets=(100,))
    assert result["threshold"] == result["per_class"]["car"]["threshold"] == 0.7


def test_the_limit_counts_here_too():
    """Of the cars the best six alone: 6 right, 6 missed; the ships are as before. All: 8/14 at .9, 6/14 at .2."""
    result = evaluate(GT, DT, max_dets=(6,))
    assert (result["per_class"]["car"]["threshold"], result["threshold"]) == (0.9, 0.2)


def test_without_objects():
    assert evaluate({**GT, "annotations": []}, DT)["threshold"] == -1
