"""Candidates vote on the detections that survive suppression."""

import pytest
import torch
from torch.testing import assert_close

from tinyyolo import Model
from tinyyolo.boxes import sparse
from tinyyolo.boxes.nms import select, vote
from tinyyolo.config import UserError
from tinyyolo.detectors.build import build_model

# One object found four times and one false box, class 0; the same place in class 1.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 8], [0, 0, 10, 6], [50, 50, 60, 60]])
SCORES = torch.tensor([[0.8, 0.1], [0.6, 0.0], [0.4, 0.0], [0.3, 0.0], [0.7, 0.0]])


def chosen(votes, min_score=0.01, **more):
    return select(BOXES, SCORES, min_score, 0.5, 100, votes=votes, **more)


def test_one_vote_changes_nothing():
    for one, plain in zip(chosen(1), select(BOXES, SCORES, 0.01, 0.5, 100), strict=True):
        assert_close(one, plain, rtol=0, atol=0)


def test_what_many_found_rises_over_what_one_found():
    boxes, scores, labels = chosen(3)
    # IoU with the first box: 1, .83, .8, .6 (not a voter); heights 10, 12 and 8 by score
    assert_close(scores, torch.tensor([(0.8 + 0.6 + 0.4) / 3, 0.7 / 3, 0.1 / 3]))
    assert labels.tolist() == [0, 0, 1]
    assert_close(boxes[0], torch.tensor([0, 0, 10, (8 + 7.2 + 3.2) / 1.8]))
    assert_close(boxes[1:], BOXES[[4, 0]])


def test_order_is_by_voted_score():
    scores = SCORES.clone()
    scores[4, 0] = 0.9
    boxes, means, _ = select(BOXES, scores, 0.01, 0.5, 100, votes=2)
    assert_close(means, torch.tensor([0.7, 0.45, 0.05]))
    assert boxes[1, 0] == 50


@pytest.mark.parametrize("min_score", [0.05, 0.2, 0.5])
def test_a_score_does_not_depend_on_the_least_score(min_score):
    boxes, scores, labels = chosen(3)
    kept = scores > min_score
    for found, expected in zip(chosen(3, min_score), (boxes[kept], scores[kept], labels[kept]), strict=True):
        assert_close(found, expected)


def test_only_wanted_classes_and_the_best():
    assert chosen(3, classes=[1])[2].tolist() == [1]
    assert len(chosen(3, agnostic=True)[1]) == 2


def test_chunks_change_nothing(monkeypatch):
    torch.manual_seed(0)
    corner = torch.rand(300, 2) * 60
    boxes, scores = torch.cat([corner, corner + 4 + torch.rand(300, 2) * 8], 1), torch.rand(300, 3)
    whole = select(boxes, scores, 0.3, 0.5, 200, votes=4)
    monkeypatch.setattr(sparse, "PAIRS", 7)
    for a, b in zip(select(boxes, scores, 0.3, 0.5, 200, votes=4), whole, strict=True):
        assert_close(a, b)


def test_a_box_without_area_stays_where_it_is():
    boxes, scores = vote(torch.tensor([[3.0, 3, 3, 8]]), torch.tensor([0.8]), torch.tensor([0]), torch.tensor([0]), 4)
    assert_close(boxes, torch.tensor([[3.0, 3, 3, 8]]))
    assert_close(scores, torch.tensor([0.2]))


def test_nothing_to_vote_on():
    boxes, scores, labels = select(torch.zeros(0, 4), torch.zeros(0, 2), 0.01, 0.5, 10, votes=4)
    assert boxes.shape == (0, 4) and not len(scores) and not len(labels)


def test_who_votes_is_up_to_the_model():
    assert Model("tinyyolo-n.yaml").model.settings.votes == 4
    assert Model("faster-rcnn-r18.yaml").model.settings.votes == 1


@pytest.mark.parametrize(
    ("test", "words"), [({"vote": 4}, "test.vote: unknown"), ({"votes": 0}, "test.votes=0"), ({"votes": "a"}, "=a")]
)
def test_bad_settings_are_named(test, words):
    with pytest.raises(UserError, match=words):
        build_model({**Model("tinyyolo-n.yaml").model.yaml, "test": test}, 2)


def test_detect_votes():
    spec = Model("tinyyolo-n.yaml").model.yaml
    found = {}
    for votes in (1, 4):
        torch.manual_seed(0)
        model = build_model({**spec, "test": {"votes": votes, "score": 0.0}}, 2).eval()
        with torch.no_grad():
            maps = model.features(torch.rand(1, 3, 64, 64))
            found[votes] = model.detect(maps, (64, 64))[0]
    assert len(found[1][1]) and not torch.equal(found[1][1][:5], found[4][1][:5])


def test_a_voter_overlaps_by_065_at_least_and_little_scores_weigh_alike():
    """13 of 20 px is just enough: the right edge is (.4 * 20 + .2 * 13) / .6; 12 px are too few."""
    boxes, scores, labels = torch.zeros(3, 4), torch.tensor([0.4, 0.2, 0.1]), torch.zeros(3, dtype=torch.int64)
    boxes[:, 2:] = torch.tensor([[20.0, 1], [13, 1], [12, 1]])
    voted, means = vote(boxes, scores, labels, torch.tensor([0]), votes=2)
    torch.testing.assert_close(voted, torch.tensor([[0, 0, 10.6 / 0.6, 1]]))
    torch.testing.assert_close(means, torch.tensor([0.3]))
