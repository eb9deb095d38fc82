"""All comparisons with the official code, index by index."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tinyyolo.assigners import IGNORE, NEGATIVE, ATSSAssigner, RankingAssigner, ThresholdAssigner
from tinyyolo.boxes.anchors import AnchorGrid

OFFICIAL = dict(np.load(Path(__file__).parent.parent / "parity/assign_all.npz"))
GRID = AnchorGrid(strides=(4, 8, 16, 32, 64), scales=(8,), ratios=(0.5, 1, 2))
SIZE = (800, 800)
MODES = {
    "rank_nwd_k2": RankingAssigner(topk=2),
    "rank_nwd_k3": RankingAssigner(topk=3),
    "rank_iou_k2": RankingAssigner("iou", topk=2),
    "max_iou": ThresholdAssigner(),
    "max_nwd": ThresholdAssigner("nwd"),
    "atss_k9": ATSSAssigner(topk=9),
}
CROWDED = 20  # objects; a dense (M, N) matrix of more takes a second or many


def pieces(official, values, counts):
    return np.split(official[values], np.cumsum(official[counts])[:-1])


def expected_of(official):
    """What the official code gives, by case/anchors/mode."""
    return {
        key: {"positive": np.cumsum(positive), "gt": gt, "ignored": np.cumsum(ignored), "negative_sum": int(total)}
        for key, positive, gt, ignored, total in zip(
            official["keys"],
            pieces(official, "positive_steps", "positives"),
            pieces(official, "positive_gt", "positives"),
            pieces(official, "ignored_steps", "ignored"),
            official["negative_sum"],
            strict=True,
        )
    }


OBJECTS = dict(zip(OFFICIAL["cases"], pieces(OFFICIAL, "gt_boxes", "case_objects"), strict=True))
EXPECTED = expected_of(OFFICIAL)


def marked(key, dense):
    case, _, mode = key.split("/")
    slow = len(OBJECTS[case]) > CROWDED and (dense or not MODES[mode].on_lattice)
    return pytest.param(key, marks=pytest.mark.slow) if slow else key


def compare(gt_index, expected):
    positive = (gt_index >= 0).nonzero()[:, 0]
    np.testing.assert_array_equal(positive, expected["positive"])
    np.testing.assert_array_equal(gt_index[positive], expected["gt"])
    np.testing.assert_array_equal((gt_index == IGNORE).nonzero()[:, 0], expected["ignored"])
    assert int((gt_index == NEGATIVE).nonzero().sum()) == expected["negative_sum"]


@pytest.fixture(scope="module")
def anchors():
    return GRID.boxes(SIZE), GRID.inside(SIZE)


def test_every_comparison_is_here():
    assert len(EXPECTED) == 144
    assert {key.split("/")[2] for key in EXPECTED} == set(MODES)


@pytest.mark.parametrize("key", [marked(key, dense=False) for key in EXPECTED])
def test_on_grid_equals_the_official_code(key, anchors):
    case, which, mode = key.split("/")
    objects = torch.from_numpy(OBJECTS[case])
    gt_index = MODES[mode].on_grid(GRID, SIZE, objects, inside_only=which == "inside").gt_index
    assert len(gt_index) == len(anchors[0])
    if which == "inside":
        assert bool((gt_index[~anchors[1]] == IGNORE).all())
        gt_index = gt_index[anchors[1]]
    compare(gt_index, EXPECTED[key])


@pytest.mark.parametrize("key", [marked(key, dense=True) for key in EXPECTED])
def test_dense_equals_the_official_code(key, anchors):
    case, which, mode = key.split("/")
    boxes, inside = anchors
    levels = inside.split(GRID.level_sizes(SIZE))
    sizes = [int(level.sum()) if which == "inside" else len(level) for level in levels]
    boxes = boxes[inside] if which == "inside" else boxes
    compare(MODES[mode](boxes, torch.from_numpy(OBJECTS[case]), None, sizes).gt_index, EXPECTED[key])


def test_constant_never_changes_the_positives():
    objects = torch.from_numpy(OBJECTS["n100"])
    positives = [RankingAssigner(constant=c).on_grid(GRID, SIZE, objects).positive_idx for c in (6.0, 12.7, 24.0)]
    assert_close(positives[0], positives[1])
    assert_close(positives[2], positives[1])


def test_negative_below_none_leaves_no_ignored_and_the_same_positives():
    objects = torch.from_numpy(OBJECTS["n100"])
    code, paper = (RankingAssigner(negative_below=b).on_grid(GRID, SIZE, objects) for b in (0.3, None))
    assert len(code.ignored_idx) > 0
    assert len(paper.ignored_idx) == 0
    assert_close(paper.positive_idx, code.positive_idx)
