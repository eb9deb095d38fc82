"""Costs of pairs, worked out by hand, and what trackers make of them: a crossing, a gap, steps of a tiny box."""

import numpy as np
import pytest
from ultralytics.engine.results import Boxes
from ultralytics.trackers.bot_sort import BOTSORT
from ultralytics.trackers.byte_tracker import BYTETracker
from ultralytics.utils import YAML, IterableSimpleNamespace
from ultralytics.utils.checks import check_yaml

from tinyyolo.boxes.similarity import CONSTANT
from tinyyolo.config import UserError
from tinyyolo.engine.track.association import FAR, Association
from tinyyolo.engine.track.following import tracker_of
from tinyyolo.engine.track.settings import SETTINGS, constant_of, settings_of

FRAME = (128, 128)
PIXELS = np.zeros((*FRAME, 3), np.uint8)
SCORES = {"track_high_thresh": 0.25, "track_low_thresh": 0.1, "new_track_thresh": 0.25}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # (0, 0, 4, 4) and a diagonal step, (1, 1, 5, 5); and (3, 4, 11, 12), twice as large, 5 and 6 px away, touching
        ({"name": "iou"}, [9 / 23, 0]),
        ({"name": "diou"}, [(1 + 9 / 23 - 2 / 50) / 2, (1 - 61 / 265) / 2]),
        ({"name": "expand", "expand": 2.0}, [49 / 79, 42 / 278]),
        ({"name": "nwd", "constant": 10.0}, [np.exp(-np.sqrt(2) / 10), np.exp(-np.sqrt(61 + 8) / 10)]),
        ({"name": "centre", "constant": 10.0}, [np.exp(-np.sqrt(2) / 10), np.exp(-np.sqrt(61) / 10)]),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_costs(how, expected):
    boxes = np.array([[0.0, 0, 4, 4], [1, 1, 5, 5], [3, 4, 11, 12]])
    cost = Association(**how).cost(boxes[:1], boxes[1:])
    assert cost.dtype == np.float32
    np.testing.assert_allclose(1 - cost[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["nwd", "centre", "diou", "iou", "expand"])
def test_nothing_is_matched_beyond_the_gate(name):
    """Sides of 4 and 16 px: 2 sides of their mean are 20 px, with 3 px of slack 23; centres are 22 and 24 px apart."""
    track, found = np.array([[0.0, 0, 4, 4]]), np.array([[16.0, -6, 32, 10], [18, -6, 34, 10]])
    cost = Association(name, gate=2.0, slack=3.0).cost(track, found)
    assert cost[0, 0] <= 1 and cost[0, 1] == FAR
    assert (Association(name).cost(track, found) <= 1).all(), "no gate"


def test_costs_of_nothing():
    some = np.ones((2, 4))
    assert Association(gate=1.0).cost(some[:0], some).shape == (0, 2)
    assert Association().cost(some, some[:0]).shape == (2, 0)


def seen(tracker, *rows):
    """{x of a track's middle: its id} after a frame with boxes (cx, cy, side, score)."""
    xywh = np.array(rows, dtype=float).reshape(-1, 4)
    half = xywh[:, 2:3] / 2
    data = np.hstack([xywh[:, :2] - half, xywh[:, :2] + half, xywh[:, 3:], np.zeros((len(rows), 1))])
    out = tracker.update(Boxes(data.astype(np.float32), FRAME), PIXELS)
    return {int(row[4]): ((row[0] + row[2]) / 2, (row[1] + row[3]) / 2) for row in out}


def made(tracker="bytetrack.yaml", **over):
    settings = settings_of(tracker, **{**SCORES, "fuse_score": False, "gate": 2.0, **over})
    return tracker_of(settings, CONSTANT, settings.thresholds(0.25, 1))


@pytest.mark.parametrize("tracker", ["bytetrack.yaml", "botsort.yaml"])
def test_a_crossing_keeps_the_ids(tracker):
    """Boxes of 4 px pass each other 4 px apart at 3 px a frame: between frames 10 and 11 they change sides."""
    tracker = made(tracker)
    for t in range(21):
        ids = seen(tracker, (20 + 3 * t, 50, 4, 0.9), (81 - 3 * t, 54, 4, 0.9))
    assert {number: round(y) for number, (_, y) in ids.items()} == {1: 50, 2: 54}
    assert ids[1][0] > 75 and ids[2][0] < 25


@pytest.mark.parametrize("tracker", ["bytetrack.yaml", "botsort.yaml"])
def test_a_gap_keeps_the_id(tracker):
    tracker = made(tracker)
    for t in range(15):
        ids = seen(tracker, *([] if 8 <= t < 12 else [(20 + 2 * t, 50, 6, 0.9)]))
        assert set(ids) == (set() if 8 <= t < 12 else {1})


def test_a_lost_track_is_given_up():
    tracker = made(track_buffer=2)
    seen(tracker, (20, 50, 6, 0.9))
    for _ in range(4):
        assert not seen(tracker)
    seen(tracker, (20, 50, 6, 0.9))  # a new one is confirmed by the next frame
    assert set(seen(tracker, (20, 50, 6, 0.9))) == {2}


def test_iou_loses_what_nwd_holds():
    """Steps of 3 px down and 3 px right leave two boxes of 4 px an IoU of 1/31."""
    steps = [(20 + 3 * t, 20 + 3 * t, 4, 0.9) for t in range(10)]
    nwd, iou = made(), made(association="iou")
    assert [set(seen(nwd, step)) for step in steps] == [{1}] * 10
    assert [set(seen(iou, step)) for step in steps] == [{1}] + [set()] * 9


def test_a_low_score_continues_a_track_and_begins_none():
    tracker = made()
    seen(tracker, (20, 50, 6, 0.9))
    for t in range(1, 4):
        assert set(seen(tracker, (20 + t, 50, 6, 0.15), (90, 90, 6, 0.15))) == {1}
    assert not seen(tracker, (23, 50, 6, 0.05))


def test_each_class_has_its_own_threshold():
    settings = settings_of("bytetrack.yaml")
    tracker = tracker_of(settings, CONSTANT, settings.thresholds((0.5, 0.2), 2))
    rows = np.array([[10, 10, 16, 16, 0.4, 0], [50, 50, 56, 56, 0.4, 1]], dtype=np.float32)
    assert tracker.update(Boxes(rows, FRAME), PIXELS)[:, 6].tolist() == [1]
    assert settings.thresholds((0.5, 0.2), 2).low.tolist() == [0.2, pytest.approx(0.08)]


@pytest.mark.parametrize(("name", "theirs"), [("bytetrack", BYTETracker), ("botsort", BOTSORT)])
def test_by_iou_it_is_upstreams_own_tracker(name, theirs, rng):
    """Boxes of 12 px, some missing, some of low scores: the same rows, bit by bit."""
    keys = YAML.load(check_yaml(f"{name}.yaml"))
    known = {field: keys[field] for field in keys if hasattr(SETTINGS[name](), field)}
    assert set(known) == set(keys), "every key of upstream's YAML is one here"
    settings = SETTINGS[name](**{**known, "association": "iou", "gate": None, "second_thresh": 0.5})
    ours = tracker_of(settings, CONSTANT, settings.thresholds(0.25, 1))
    upstream = theirs(IterableSimpleNamespace(**keys))
    way, speed, count = rng.uniform(20, 100, (12, 2)), rng.uniform(-2, 2, (12, 2)), 0
    pixels = rng.integers(0, 255, (*FRAME, 3), dtype=np.uint8)
    for t in range(20):
        middles = (way + t * speed + rng.normal(0, 0.5, way.shape))[rng.random(12) > 0.2]
        scores = rng.uniform(0.05, 0.95, (len(middles), 1))
        data = np.hstack([middles - 6, middles + 6, scores, np.zeros_like(scores)]).astype(np.float32)
        frames = [np.roll(pixels, t, 1)] * 2
        rows, expected = (
            one.update(Boxes(data, FRAME), frame) for one, frame in zip((ours, upstream), frames, strict=True)
        )
        np.testing.assert_array_equal(rows, expected.reshape(-1, 8))
        count += len(rows)
    assert count > 100


def test_the_constant_is_the_models():
    assert constant_of({"head": {"assigner": {"constant": 9.5}, "constant": 3.0}}) == 9.5
    assert constant_of({"head": {"constant": 3.0}, "rpn": {"assigner": {"type": "iou"}}}) == 3.0
    assert constant_of({"rpn": {"assigner": {"constant": "auto"}}}) == constant_of({}) == CONSTANT
    settings = settings_of("bytetrack.yaml")
    assert settings.associate(9.5).constant == 9.5
    assert settings_of("bytetrack.yaml", constant=4.0).associate(9.5).constant == 4.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tracker_type: ocsort", "tracker_type=ocsort: unknown; "),
        ("track_buffer: 3", "tracker_type=null: unknown; Choices: botsort, bytetrack"),
        ("tracker_type: bytetrack\nmatch_thres: 0.5", "match_thres: unknown; did you mean 'match_thresh'?"),
        ("tracker_type: bytetrack\ngmc_method: orb", "gmc_method: unknown; "),
        ("tracker_type: botsort\ngmc_method: ord", "gmc_method=ord: unknown; did you mean 'orb'?"),
        ("tracker_type: botsort\nwith_reid: true", "with_reid=true: no model here"),
        ("tracker_type: bytetrack\nmatch_thresh: high", "match_thresh=high"),
        ("tracker_type: bytetrack\nmatch_thresh: 1.5", "match_thresh=1.5: expected"),
        ("tracker_type: bytetrack\ntrack_low_thresh: low", "track_low_thresh=low: expected a number or auto"),
        ("tracker_type: bytetrack\nassociation: nvd", "association=nvd: unknown; did you mean 'nwd'?"),
        ("tracker_type: bytetrack\nconstant: 0", "constant=0"),
        ("tracker_type: bytetrack\ngate: 0", "gate=0"),
        ("tracker_type: bytetrack\nslack: -1", "slack=-1"),
        ("tracker_type: bytetrack\ntrack_buffer: 0", "track_buffer=0"),
        ("- 1", "expected a YAML mapping"),
    ],
)
def test_what_a_yaml_cannot_say_is_one_line(tmp_path, text, says):
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        settings_of(tmp_path / "my.yaml")
    assert says in str(caught.value) and "my.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_no_such_tracker_names_those_there_are():
    with pytest.raises(UserError, match=r"bytrack.yaml: no such file, nor a name in cfg/trackers; did you mean 'bytet"):
        settings_of("bytrack.yaml")
