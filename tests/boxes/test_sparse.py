"""Overlaps and suppression among many boxes are those of all pairs, whatever the sizes, the order and the parts."""

import pytest
import torch
from torchvision.ops import box_iou, nms

from tinyyolo.boxes import nms as own
from tinyyolo.boxes import sparse
from tinyyolo.boxes.graph import ordered


def crowd(count, side, seed=0, largest=1.0):
    """Boxes around a few centres, rounded in part, a fifth of them copies; a few are `largest` times as large."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.rand(count // 12 + 1, 2, generator=rng) * side
    middle = centres[torch.randint(len(centres), (count,), generator=rng)] + torch.randn(count, 2, generator=rng) * 2
    wh = torch.exp(torch.randn(count, 2, generator=rng) * 0.4) * 8
    wh[::17] *= largest
    boxes = torch.cat([middle - wh / 2, middle + wh / 2], 1)
    boxes[::3] = boxes[::3].round()
    boxes[::5] = boxes[1::5]
    scores = (torch.rand(count, generator=rng) * 50).round() / 50
    return boxes, scores, torch.randint(3, (count,), generator=rng)


@pytest.mark.parametrize("least", (0.1, 0.5, 0.65, 0.9))
@pytest.mark.parametrize("largest", (1, 60))
def test_pairs_are_those_of_the_full_matrix(least, largest):
    both, _, both_groups = crowd(500, 90, largest=largest)
    (boxes, groups), (others, other_groups) = (both[:300], both_groups[:300]), (both[200:], both_groups[200:])
    iou = box_iou(boxes, others)
    expected = ((iou.double() > least) & (groups[:, None] == other_groups)).nonzero().tolist()
    found = torch.cat([torch.stack(pair, 1) for pair in sparse.overlapping(boxes, others, groups, other_groups, least)])
    assert sorted(found.tolist()) == expected and len(expected) > 20


@pytest.mark.parametrize("least", (0.1, 0.5, 0.65, 0.9))
@pytest.mark.parametrize("largest", (1, 60))
@pytest.mark.parametrize("shift", (0.0, -70.5))
def test_pairs_of_a_set_with_itself_are_found_from_one_side_at_least(least, largest, shift):
    boxes, _, groups = crowd(500, 90, largest=largest)
    boxes = boxes + shift
    iou = box_iou(boxes, boxes)
    expected = ((iou.double() > least) & (groups[:, None] == groups)).triu(1).nonzero().tolist()
    found = torch.cat([torch.stack(pair, 1) for pair in sparse.among(boxes, groups, least)])
    assert (found[:, 0] < found[:, 1]).all() and len(found) < 2 * len(expected)
    assert found.unique(dim=0).tolist() == expected and len(expected) > 20
    both = sparse.overlapping(boxes, boxes, groups, groups, least)  # the same tensor makes no difference
    assert sum(len(i) for i, _ in both) == 2 * len(expected) + len(boxes)


def survivors(boxes, scores, groups, iou):
    """By torchvision, group by group."""
    keep = torch.zeros(len(boxes), dtype=torch.bool)
    for group in groups.unique():
        rows = (groups == group).nonzero().squeeze(1)
        keep[rows[nms(boxes[rows], scores[rows], iou)]] = True
    return keep


@pytest.mark.parametrize("iou", (0.1, 0.3, 0.5, 0.6, 0.9))
@pytest.mark.parametrize("first", (37, 1 << 16))
def test_survivors_are_those_of_torchvision(monkeypatch, iou, first):
    monkeypatch.setattr(sparse, "FIRST", first)
    monkeypatch.setattr(sparse, "PAIRS", 100)
    boxes, scores, groups = crowd(600, 120, seed=3, largest=25)
    order = scores.sort(descending=True).indices
    boxes, scores, groups = boxes[order], scores[order], groups[order]
    kept = sparse.survive(boxes, groups, iou)
    assert torch.equal(kept, survivors(boxes, scores, groups, iou))
    assert 0 < kept.sum() < len(kept)


def test_a_chain_is_decided_from_its_best():
    """Each of four overlaps the next alone, by 3 / 5 = .6: the first and the third stay."""
    boxes = torch.tensor([[0.0, 0, 4, 1], [1, 0, 5, 1], [2, 0, 6, 1], [3, 0, 7, 1]])
    assert sparse.survive(boxes, torch.zeros(4, dtype=torch.int64), 0.5).tolist() == [True, False, True, False]
    assert sparse.survive(boxes, torch.zeros(4, dtype=torch.int64), 0.61).tolist() == [True] * 4


def test_what_has_no_area_and_what_lies_far_away():
    boxes = torch.tensor([[5.0, 5, 5, 9], [5, 5, 5, 9], [-3000, -2000, -2990, -1990], [-3000, -2000, -2990, -1991]])
    groups = torch.zeros(4, dtype=torch.int64)
    assert sparse.survive(boxes, groups, 0.5).tolist() == survivors(boxes, torch.ones(4), groups, 0.5).tolist()
    assert not len(sparse.survive(boxes[:0], groups[:0], 0.5))


def test_many_boxes_take_this_way_by_the_same_rule(monkeypatch):
    boxes, scores, groups = crowd(800, 150, seed=5)
    few = own.grouped_nms(boxes, scores, groups, 0.5)
    monkeypatch.setattr(own, "MANY", 100)
    called = []
    monkeypatch.setattr(own, "survive", lambda *given: called.append(1) or sparse.survive(*given))
    assert torch.equal(own.grouped_nms(boxes, scores, groups, 0.5), few) and called


def test_a_place_beyond_32_bits_is_a_place():
    """Three boxes and their copies, in the corners of a million by a million px: 62,501 rows x 10^6 px > 2^31."""
    corners = torch.tensor([[0.0, 0], [999_990, 999_990], [0, 999_990]])
    boxes = torch.cat([corners, corners + 8], 1)
    groups = torch.zeros(3, dtype=torch.int64)
    assert sparse.line_type(groups, torch.tensor(62_501 * 1_000_000)) == torch.int64
    assert sparse.line_type(groups, torch.tensor(1000)) == torch.int32
    assert sparse.line_type(groups + 1, torch.tensor(1 << 30)) == torch.int64  # two groups of 2^30 places
    [pairs] = sparse.overlapping(boxes, boxes.flip(0), groups, groups, 0.5)
    assert sorted(torch.stack(pairs, 1).tolist()) == [[0, 2], [1, 1], [2, 0]]
    twice = torch.cat([boxes, boxes])
    assert sparse.survive(twice, torch.zeros(6, dtype=torch.int64), 0.5).tolist() == [True] * 3 + [False] * 3


def test_order_by_group_and_falling_value():
    groups = torch.tensor([2, 0, 2, 0, 2, 0, 2, 0])
    values = torch.tensor([0.0, 1e-30, -0.0, -1.5, 3e38, -2.0, -1e-30, 1e-30])
    assert ordered(groups, values).tolist() == [1, 7, 3, 5, 4, 0, 2, 6]
    rng = torch.Generator().manual_seed(2)
    groups = torch.randint(5, (3000,), generator=rng)
    values = (torch.randn(3000, generator=rng) * 9).round() / 9
    rows = sorted(range(3000), key=lambda i: (groups[i].item(), -values[i].item()))  # stable
    assert ordered(groups, values).tolist() == rows
