"""RFLA and SimD: the rules by hand, and index by index the outputs of their authors' code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.assigners.test_assigners import ROW, both, shifted
from tests.assigners.test_parity import CROWDED, GRID, OBJECTS, SIZE, compare, expected_of
from tinyyolo.assigners import IGNORE, NEGATIVE, HierarchicalAssigner, ThresholdAssigner
from tinyyolo.boxes.anchors import AnchorGrid

EXPECTED = expected_of(dict(np.load(Path(__file__).parent.parent / "parity/assign_rfla.npz")))
FIELDS = (35, 91, 267, 427, 555, 811)  # px, ResNet-50's P2 to P7
FINE, COARSE = (4, 8, 16, 32, 64), (8, 16, 32, 64, 128)
GRIDS = {
    "faster": AnchorGrid(FINE, fields=FIELDS[:5], ratios=(0.5, 1, 2)),
    "retina": AnchorGrid(COARSE, fields=FIELDS[1:], ratios=(0.5, 1, 2)),
    "fcos_p2": AnchorGrid(FINE, fields=FIELDS[:5], ratios=(1,), center_offset=0.5),
    "simd_all": GRID,
}
GRIDS["faster_inside"] = GRIDS["faster"]
MODES = {
    "kl_31": HierarchicalAssigner(similarity="kld", topk=(3, 1), shrink=0.9, negative_below=0.8),
    "wd_21": HierarchicalAssigner("wd", topk=[2, 1]),
    "simd": ThresholdAssigner(
        similarity="simd", m=6.13, n=4.59, positive=0.7, negative=0.3, min_positive=0.3, low_quality=True
    ),
    "simd_11": ThresholdAssigner("simd"),
}


def centred(*sides, at=(4.0, 4.0)):
    return torch.tensor([[at[0] - s / 2, at[1] - s / 2, at[0] + s / 2, at[1] + s / 2] for s in sides])


def test_every_comparison_is_here():
    assert len(EXPECTED) == 120
    assert {key.split("/")[2] for key in EXPECTED} == set(MODES)
    assert {key.split("/")[1] for key in EXPECTED} == set(GRIDS)


@pytest.mark.parametrize("key", EXPECTED)
def test_on_grid_equals_the_official_code(key):
    case, which, mode = key.split("/")
    grid, only = GRIDS[which], which == "faster_inside"
    gt_index = MODES[mode].on_grid(grid, SIZE, torch.from_numpy(OBJECTS[case]), inside_only=only).gt_index
    if only:
        assert bool((gt_index[~grid.inside(SIZE)] == IGNORE).all())
        gt_index = gt_index[grid.inside(SIZE)]
    compare(gt_index, EXPECTED[key])


def slow_if_crowded(key):
    case, which, _ = key.split("/")
    quick = len(OBJECTS[case]) <= CROWDED and which != "faster"
    return key if quick else pytest.param(key, marks=pytest.mark.slow)


@pytest.mark.parametrize("key", [slow_if_crowded(key) for key in EXPECTED if len(OBJECTS[key.split("/")[0]]) <= 100])
def test_dense_equals_the_official_code(key):
    case, which, mode = key.split("/")
    anchors = GRIDS[which].boxes(SIZE)
    if which == "faster_inside":
        anchors = anchors[GRIDS[which].inside(SIZE)]
    compare(MODES[mode](anchors, torch.from_numpy(OBJECTS[case])).gt_index, EXPECTED[key])


@pytest.mark.parametrize(
    ("settings", "objects", "expected"),
    [
        # kld of boxes of 8 px at d px: 1 / (1 + 2 d² / 8²): 1 -> .97, 5 -> .56, 9 -> .28, 11 -> .21; of those shrunk
        # by .9 a little less (KL + .0207): 1 -> .95, 9 -> .28
        ({"topk": (1, 1)}, shifted(1), [0] + [NEGATIVE] * 5),
        ({"topk": (2, 1)}, shifted(1), [0, 0] + [NEGATIVE] * 4),
        ({"topk": (1, 2)}, shifted(1), [0, 0] + [NEGATIVE] * 4),
        ({"topk": (3, 1)}, shifted(1), [0, 0, 0] + [NEGATIVE] * 3),
        # a tie at 5 px gives both
        ({"topk": (1, 1)}, shifted(15), [NEGATIVE, 0, 0] + [NEGATIVE] * 3),
        # the state of what is left over is that of the shrunken priors: .2815 at 9 px, .2832 if they were not
        ({"topk": (1, 1), "negative_below": 0.281}, shifted(1), [0, IGNORE] + [NEGATIVE] * 4),
        ({"topk": (1, 1), "negative_below": 0.283}, shifted(1), [0] + [NEGATIVE] * 5),
        # the last of equal objects keeps the priors; no floor
        ({"topk": (1, 1)}, shifted(1, 1), [1] + [NEGATIVE] * 5),
        ({"topk": (1, 1)}, shifted(400), [NEGATIVE] * 5 + [0]),
        # wd: 1 / (1 + d²)
        ({"similarity": "wd", "topk": (1, 1)}, shifted(1), [0] + [NEGATIVE] * 5),
        ({"similarity": "wd", "topk": (1, 1), "negative_below": 0.012}, shifted(1), [0, IGNORE] + [NEGATIVE] * 4),
    ],
)
def test_rules(settings, objects, expected):
    assert both(HierarchicalAssigner(**settings), objects) == expected


def test_an_object_robbed_in_the_first_stage_gets_a_prior_in_the_second():
    # Priors of 8 and 12 px. Objects of 9.6 px: r² - 1 - 2 ln r is .059 for 8 and .116 for 12 px, but .138 for 7.2 and
    # .030 for 10.8 px; of 8 px: the smaller in both stages.
    priors, objects = centred(8, 12), centred(9.6, 8)
    assert HierarchicalAssigner(topk=(1, 1))(priors, objects).gt_index.tolist() == [1, 0]
    grid = AnchorGrid((8,), sizes=[[(8, 8), (12, 12)]], center_offset=0.5)
    assert HierarchicalAssigner(topk=(1, 1)).on_grid(grid, (8, 8), objects).gt_index.tolist() == [1, 0]
    whole = HierarchicalAssigner(topk=(1, 1), shrink=1, negative_below=0)
    assert whole(priors, objects).gt_index.tolist() == [1, IGNORE]


def test_what_the_first_stage_gave_stays():
    # Priors of 6 and 8 px. The second object, 6.8 px, wants the smaller in the first stage (.029 to .059) and in the
    # second the larger (5.4 and 7.2 px: .092 to .007), which the first object, 8 px, has already.
    assert HierarchicalAssigner(topk=(1, 1))(centred(6, 8), centred(8, 6.8)).gt_index.tolist() == [1, 0]


def test_no_prior_is_changed():
    priors, objects = ROW.clone(), shifted(1, 20)
    HierarchicalAssigner()(priors, objects)
    assert_close(priors, ROW, atol=0, rtol=0)
    grid = GRIDS["faster"]
    twice = HierarchicalAssigner().on_grid_batch(grid, (64, 64), [objects, objects])
    assert_close(twice[0].gt_index, twice[1].gt_index)


@pytest.mark.parametrize("similarity", ["kld", "wd"])
def test_objects_without_area_take_priors(similarity):
    points = torch.tensor([[20.0, 20, 20, 20], [41.0, 9, 41, 9]])
    found = HierarchicalAssigner(similarity).on_grid(GRIDS["faster"], (64, 64), points)
    assert (found.per_object(2) >= 3).all()
    assert_close(found.gt_index, HierarchicalAssigner(similarity)(GRIDS["faster"].boxes((64, 64)), points).gt_index)


@pytest.mark.parametrize("inside_only", [False, True])
def test_images_in_which_nothing_can_be_assigned(inside_only):
    grid, objects = AnchorGrid((16,), fields=(100,), ratios=(1,)), torch.tensor([[3.0, 3, 9, 9]])
    if inside_only:  # no prior of 50 px lies in an image of 32
        assert (
            HierarchicalAssigner().on_grid(grid, (32, 32), objects, inside_only=True).gt_index.tolist() == [IGNORE] * 4
        )
    empty = HierarchicalAssigner().on_grid(grid, (32, 32), objects[:0], inside_only=inside_only).gt_index
    assert empty.tolist() == [IGNORE if inside_only else NEGATIVE] * 4


def test_more_than_there_are_priors_raises_on_both_paths():
    grid, objects = AnchorGrid((8,), (1,), (1,)), torch.tensor([[3.0, 3, 9, 9]])
    for topk in ((5, 1), (1, 5)):
        with pytest.raises(ValueError, match="topk=5: only 4"):
            HierarchicalAssigner(topk=topk)(grid.boxes((16, 16)), objects)
        with pytest.raises(ValueError, match="topk=5: only 4"):
            HierarchicalAssigner(topk=topk).on_grid(grid, (16, 16), objects)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"topk": (3,)}, r"topk=\[3\]: expected two"),
        ({"topk": (3, 0)}, r"topk=\[3, 0\]: expected whole numbers of at least 1"),
        ({"topk": (3, 1, 1)}, "expected two"),
        ({"shrink": 0}, "shrink=0"),
        ({"shrink": 1.1}, "shrink=1.1"),
        ({"negative_below": 1.1}, "negative_below=1.1"),
        ({"similarity": "kl"}, "similarity=kl: unknown; did you mean 'kld'"),
        ({"similarity": "nwd", "constant": 0}, "constant=0"),
    ],
)
def test_bad_settings_raise(settings, match):
    with pytest.raises(ValueError, match=match):
        HierarchicalAssigner(**settings)
    with pytest.raises(ValueError, match="m=2: iou has none"):
        ThresholdAssigner("iou", m=2)
