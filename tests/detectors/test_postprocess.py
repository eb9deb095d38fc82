"""The settings from candidates to detections: what a YAML may say, what a run's keys override, which class is meant."""

import types

import pytest
import torch
from torch.testing import assert_close

from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import Postprocess, class_indices, class_scores, of_run, score_words

NAMES = {0: "car", 1: "ship", 2: "person"}


def test_the_defaults_are_the_published_settings():
    rules = Postprocess()
    assert (rules.score, rules.iou, rules.max_det, rules.votes, rules.max_candidates) == (0.05, 0.5, 3000, 1, 30_000)
    assert Postprocess.of({}) == rules


def test_a_yaml_wins_over_the_fallback_and_the_fallback_over_the_default():
    rules = Postprocess.of({"score": 0.2, "votes": 3}, score=0.001, iou=0.6)
    assert (rules.score, rules.iou, rules.max_det, rules.votes) == (0.2, 0.6, 3000, 3)


BAD = [
    ({"vote": 4}, "test.vote: unknown; did you mean 'votes'"),
    ({"classes": [0]}, "test.classes: unknown"),
    ({"max_candidates": 0}, "test.max_candidates=0"),
    ({"votes": 0}, "test.votes=0: expected a whole number"),
    ({"votes": True}, "test.votes=[tT]rue"),
    ({"votes": 1.5}, "test.votes=1.5"),
    ({"max_det": "many"}, "test.max_det=many"),
    ({"iou": 1.1}, "test.iou=1.1: expected a number from 0 to 1"),
    ({"iou": -0.1}, "test.iou=-0.1"),
    ({"score": None}, "test.score=(None|null)"),
    ({"score": True}, "test.score=[tT]rue"),
    ({"score": [0.1, 0.2]}, r"test.score=\[0.1, 0.2\]: expected a number; conf= of predict takes one a class"),
]


@pytest.mark.parametrize(("test", "says"), BAD)
def test_a_bad_setting_is_one_line(test, says):
    with pytest.raises(UserError, match=says) as caught:
        Postprocess.of(test)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=says):
        build_model({**load_model_yaml("tinyyolo-n.yaml"), "test": test}, 2)


@pytest.mark.parametrize(
    ("key", "value", "setting", "expected"),
    [
        ("conf", 0.3, "score", 0.3),
        ("conf", 0.0, "score", 0.0),
        ("iou", 0.7, "iou", 0.7),
        ("max_det", 7, "max_det", 7),
        ("classes", "ship", "classes", (1,)),
        ("classes", [2, "car"], "classes", (2, 0)),
        ("agnostic_nms", True, "agnostic", True),
        ("single_cls", True, "agnostic", True),
    ],
)
def test_a_key_of_the_run_overrides_one_setting(key, value, setting, expected):
    own = Postprocess.of({"score": 0.2, "iou": 0.4, "max_det": 20, "votes": 3})
    run = own.over({"conf": None, "iou": None, "max_det": None, key: value}, NAMES)
    assert getattr(run, setting) == expected
    others = {name: getattr(own, name) for name in vars(own) if name != setting}
    assert others == {name: getattr(run, name) for name in others}


def test_one_class_of_all_has_no_names_to_choose_from():
    assert Postprocess().over({"single_cls": True, "classes": [2]}, {0: "item"}).classes is None


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(None, None), (0, [0]), ([0, 2], [0, 2]), ("ship", [1]), (["ship", 1, "car"], [1, 0]), ((2,), [2])],
)
def test_which_classes(classes, expected):
    assert class_indices(classes, NAMES) == expected


@pytest.mark.parametrize("classes", [3, -1, "boat", ["car", 9], [], True, [0.0], [[0]], [None], {"a": 1}])
def test_no_such_class_is_one_line_with_the_choices(classes):
    with pytest.raises(UserError, match=r"^classes=.*: no such class; Choices: 0 car, 1 ship, 2 person$"):
        class_indices(classes, NAMES)


def test_a_network_output_and_its_boxes_give_the_same_detections():
    """Centre 5, 5 and sides 4, 6 is the box 3, 2, 7, 8."""
    y = torch.tensor([[5.0, 5, 4, 6, 0.9, 0.1]]).T[None]
    ((boxes, scores, labels),) = Postprocess().of_output((y, "maps"))
    assert boxes.tolist() == [[3, 2, 7, 8], [3, 2, 7, 8]] and labels.tolist() == [0, 1]
    ((again, *_),) = Postprocess()(boxes[None, :1], y[:, 4:].transpose(1, 2))
    assert_close(again, boxes, rtol=0, atol=0)
    assert_close(scores, torch.tensor([0.9, 0.1]))


def test_every_setting_reaches_the_suppression():
    """Two neighbours (overlap .6) and a lone box, in two classes: each setting changes what is left."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [2.5, 0, 12.5, 10], [50, 0, 60, 10]]])
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.0], [0.3, 0.7]]])

    def left(**settings):
        ((_, found, labels),) = Postprocess(**settings)(boxes, scores)
        return [round(score, 3) for score in found.tolist()], labels.tolist()

    assert left() == ([0.9, 0.7, 0.3], [0, 1, 0])
    assert left(score=0.3) == ([0.9, 0.7], [0, 1])
    assert left(iou=0.65) == ([0.9, 0.8, 0.7, 0.3], [0, 0, 1, 0])
    assert left(max_det=1) == ([0.9], [0])
    assert left(classes=(1,)) == ([0.7], [1])
    assert left(agnostic=True) == ([0.9, 0.7], [0, 1])
    assert left(max_candidates=2) == ([0.9], [0])
    assert left(votes=2) == ([0.45, 0.35, 0.15], [0, 1, 0])


# Of 60 boxes in three classes; some neighbours suppress and vote on each other.
CROWD = torch.rand(1, 60, 4, generator=torch.Generator().manual_seed(1)) * 20
CROWD[..., 2:] = CROWD[..., :2] + 8
SCORES = torch.rand(1, 60, 3, generator=torch.Generator().manual_seed(2)) ** 2


@pytest.mark.parametrize("votes", [1, 3])
def test_scores_by_class_keep_of_all_detections_those_that_reach_their_class(votes):
    """So what validation has counted, with its low score, is what predict shows, to the bit."""
    least = (0.1, 0.3, 0.02)
    ((boxes, scores, labels),) = Postprocess(score=0.001, votes=votes)(CROWD, SCORES)
    kept = scores > torch.tensor(least)[labels]
    assert kept.any() and [bool((~kept & (labels == k)).any()) for k in range(3)] == [True] * 3
    rules = Postprocess(score=least, votes=votes)
    ((*found,),) = rules(CROWD, SCORES)
    for a, b in zip(found, (boxes, scores, labels), strict=True):
        assert_close(a, b[kept], rtol=0, atol=0)
    for a, b in zip(rules.of_candidates(*rules.candidates(CROWD[0], SCORES[0])), found, strict=True):  # of a scene
        assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("votes", [1, 3])
@pytest.mark.parametrize("agnostic", [False, True])
def test_one_score_for_each_class_is_that_score_for_all(votes, agnostic):
    one, each = (Postprocess(score=s, votes=votes, agnostic=agnostic, classes=(0, 2)) for s in (0.25, (0.25,) * 3))
    assert len(one(CROWD, SCORES)[0][1]) > 3
    for a, b in zip(one(CROWD, SCORES)[0], each(CROWD, SCORES)[0], strict=True):
        assert_close(a, b, rtol=0, atol=0)


def test_what_its_own_class_hides_suppresses_no_other_class():
    """The car of .5 is under its .6; at agnostic NMS it would take the ship of .3 under it away."""
    boxes, scores = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10]]]), torch.tensor([[[0.5, 0.0], [0.0, 0.3]]])
    for car, expected in ((0.6, [1]), (0.4, [0])):
        ((_, _, labels),) = Postprocess(score=(car, 0.1), agnostic=True)(boxes, scores)
        assert labels.tolist() == expected


OWN = [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("conf", "thresholds", "expected"),
    [
        ("auto", OWN, (0.1, 0.2, 0.3)),
        ("auto", None, 0.25),
        (0.7, OWN, 0.7),
        (None, OWN, None),
        ({"ship": 0.5}, OWN, (0.1, 0.5, 0.3)),
        ({"2": 0, 0: 1}, OWN, (1, 0.2, 0)),
        ({"person": 0.5}, None, (0.25, 0.25, 0.5)),
    ],
)
def test_what_conf_says(conf, thresholds, expected):
    assert class_scores(conf, NAMES, thresholds, 0.25) == expected


def test_a_class_whose_name_is_a_number_is_meant_by_its_name():
    assert class_scores({"0": 0.5}, {0: "7", 1: "0"}, None, 0.25) == (0.25, 0.5)


@pytest.mark.parametrize("key", ["boat", 3, -1, "3", "-1", "", True])
def test_scores_of_no_class(key):
    with pytest.raises(UserError, match=rf"^conf={key}: no such class; Choices: 0 car, 1 ship, 2 person$"):
        class_scores({key: 0.1}, NAMES, None, 0.25)


def test_a_class_by_name_and_number():
    with pytest.raises(UserError, match="ship stands there twice"):
        class_scores({"ship": 0.1, "1": 0.2}, NAMES, None, 0.25)


def test_scores_in_words():
    assert score_words([0.1, 0.25, 0.12345], NAMES) == "car 0.1, ship 0.25, person 0.1235"
    assert score_words([0.1, 0.25, 0.5], NAMES, (2, 0)) == "person 0.5, car 0.1"


def test_a_models_own_scores_are_taken_where_conf_is_auto_and_nowhere_else():
    model = types.SimpleNamespace(names=NAMES, test={"score": 0.05}, thresholds=OWN)
    assert of_run(model, {"conf": "auto"}, 0.25).score == (0.1, 0.2, 0.3)
    assert (of_run(model, {}, 0.001).score, of_run(model, {"conf": 0.4}, 0.25).score) == (0.05, 0.4)
    model.thresholds = None
    assert of_run(model, {"conf": "auto"}, 0.25).score == 0.25


def test_the_engines_wrapper_of_a_detector_and_an_export_carry_the_section():
    model = build_model({**load_model_yaml("tinyyolo-n.yaml"), "test": {"votes": 4, "iou": 0.3}}, 2)
    wrapper = types.SimpleNamespace(model=model, names=model.names)
    export = types.SimpleNamespace(model=object(), names={0: "a", 1: "b"}, test={"votes": 4, "iou": 0.3})
    for holder in (model, wrapper, export):
        rules = of_run(holder, {"max_det": 9}, score=0.001)
        assert (rules.score, rules.iou, rules.max_det, rules.votes) == (0.001, 0.3, 9, 4)
    with pytest.raises(UserError, match="export the checkpoint again"):
        of_run(types.SimpleNamespace(model=object(), names={}), {}, 0.1)


def test_detect_follows_the_models_own_settings():
    spec = load_model_yaml("tinyyolo-n.yaml")
    found = {}
    for name, test in {"two": {"score": 0.0, "max_det": 2}, "none": {"score": 0.999}}.items():
        torch.manual_seed(0)
        model = build_model({**spec, "test": test}, 2).eval()
        with torch.no_grad():
            ((_, scores, _),) = model.detect(model.features(torch.rand(1, 3, 64, 64)), (64, 64))
        found[name] = len(scores)
    assert found == {"two": 2, "none": 0}
