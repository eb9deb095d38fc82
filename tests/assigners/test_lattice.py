"""The lattice gives the dense answer: random grids, images, objects, regions and settings."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tinyyolo.assigners import Assigner, HierarchicalAssigner, RankingAssigner, ThresholdAssigner, lattice, search
from tinyyolo.boxes.anchors import AnchorGrid

SIDES = st.integers(8, 110)
STRIDES = st.sampled_from([(4, 8, 16), (3,), (8, 16), (1, 2), (5, 10, 20, 40)])
OFFSETS = st.sampled_from([0.0, 0.5, 0.3])
RATIOS = st.sampled_from([(0.5, 1, 2), (1,), (0.4, 3)])
SCALES = st.sampled_from([(8,), (2, 3.3), (1,)])
SIZES = st.lists(st.tuples(st.floats(2, 40, width=32), st.floats(2, 40, width=32)), min_size=1, max_size=3)


@st.composite
def grids(draw):
    strides = draw(STRIDES)
    if draw(st.booleans()):
        return AnchorGrid(strides, draw(SCALES), draw(RATIOS), draw(OFFSETS))
    return AnchorGrid(strides, center_offset=draw(OFFSETS), sizes=[draw(SIZES) for _ in strides])


@st.composite
def objects(draw, size_hw, largest=600.0, most=25):
    """(M, 4): anywhere in and around the image; some on whole or quarter pixels, some twice, some without area."""
    count = draw(st.integers(0, most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    reach = torch.tensor([size_hw[1], size_hw[0]])
    corner = (torch.rand(count, 2, generator=generator) * 1.2 - 0.1) * reach
    side = torch.rand(count, 2, generator=generator) ** 2 * draw(st.sampled_from([0.0, 8.0, 60.0, largest]))
    boxes = torch.cat((corner, corner + side), 1)
    parts = draw(st.sampled_from([None, 1, 2, 4]))
    boxes = boxes if parts is None else (boxes * parts).round() / parts
    twice = torch.randint(0, max(count, 1), (draw(st.integers(0, 3)) * (count > 0),), generator=generator)
    return torch.cat((boxes, boxes[twice]))


@st.composite
def cases(draw):
    grid, size_hw = draw(grids()), (draw(SIDES), draw(SIDES))
    maps = draw(st.none() | st.just([(i + 2, 7 - i) for i in range(len(grid.strides))]))
    images = draw(st.integers(1, 3))
    batch = [draw(objects(size_hw)) for _ in range(images)]
    regions = draw(st.none() | st.just([draw(st.none() | objects(size_hw, 150.0, 3)) for _ in range(images)]))
    return grid, size_hw, batch, regions, draw(st.booleans()), maps


ASSIGNER_SETTINGS = st.fixed_dictionaries(
    {
        "similarity": st.sampled_from(["nwd", "nwd", "dotd", "iou", "kld", "wd", "simd"]),
        "topk": st.integers(1, 9),
        "negative_below": st.sampled_from([0.3, 0.3, None, 0.05, 0.9, 1.0, 0.0]),
        "constant": st.sampled_from([12.7, 12.7, 1.0, 0.3, 60.0, 1e4]),
        "keep_one": st.booleans(),
        "positive_iou": st.sampled_from([None, 0.5, 0.7, 0.1]),
        "negative_iou": st.sampled_from([None, 0.1, 0.05]),
    }
).filter(lambda options: options["positive_iou"] or options["negative_iou"] is None)


THRESHOLD_SETTINGS = st.fixed_dictionaries(
    {
        "similarity": st.sampled_from(["iou", "iou", "nwd", "dotd", "simd", "simd", "kld", "wd"]),
        "positive": st.sampled_from([0.7, 0.5, 1.0]),
        "negative": st.sampled_from([0.3, 0.1, 0.5, 0.0]),
        "min_positive": st.sampled_from([0.3, 0.0, 0.1]),
        "low_quality": st.booleans(),
        "all_best": st.booleans(),
        "constant": st.sampled_from([12.7, 12.7, 1.0, 60.0]),
        "m": st.sampled_from([1.0, 6.13, 0.2]),
        "n": st.sampled_from([1.0, 4.59, 0.2]),
    }
).map(lambda options: options if options["similarity"] == "simd" else {**options, "m": 1.0, "n": 1.0})


HIERARCHICAL_SETTINGS = st.fixed_dictionaries(
    {
        "similarity": st.sampled_from(["kld", "kld", "kld", "wd", "simd", "nwd", "iou"]),
        "topk": st.tuples(st.integers(1, 9), st.integers(1, 5)),
        "shrink": st.sampled_from([0.9, 0.9, 1.0, 0.5, 0.05]),
        "negative_below": st.sampled_from([0.8, 0.8, 0.3, 1.0, 0.0]),
    }
)


def answer(path, *arguments):
    try:
        return [found.gt_index for found in path(*arguments)]
    except ValueError as error:
        return str(error)


def assert_equal_paths(assigner, case):
    fast = answer(assigner.on_grid_batch, *case)
    slow = copy.copy(assigner)
    slow.on_lattice = False
    dense = answer(slow.on_grid_batch, *case)
    if isinstance(fast, str) or isinstance(dense, str):
        assert fast == dense
    else:
        assert_close(fast, dense)


UNDERFLOW = (
    AnchorGrid((4,), (2,), (1,)),
    (60, 60),
    [torch.tensor([[0.0, 0, 500, 500], [3, 3, 9, 9]])],
    None,
    False,
    None,
)

# Anchors so thin that float32 hardly knows their sides where they lie.
THREAD = (
    AnchorGrid((8,), sizes=[[(0.001, 0.002), (9, 9)]], center_offset=0.3),
    (100, 100),
    [torch.tensor([[3.0, 3, 9, 9], [50, 50, 50, 50], [95, 95, 95.5, 96]])],
    None,
    False,
    None,
)


@settings(deadline=None, max_examples=50)
@given(cases(), ASSIGNER_SETTINGS)
@example(UNDERFLOW, {"constant": 1.0})  # NWD is 0 in float32 everywhere: every anchor ties
@example(UNDERFLOW, {"constant": 3.6})  # and here below its normal range
def test_lattice_equals_dense(case, options):
    assert_equal_paths(RankingAssigner(**options), case)


@settings(deadline=None, max_examples=50)
@given(cases(), THRESHOLD_SETTINGS)
def test_threshold_on_the_lattice_equals_dense(case, options):
    assert_equal_paths(ThresholdAssigner(**options), case)


@settings(deadline=None, max_examples=60)
@given(cases(), HIERARCHICAL_SETTINGS)
@example(UNDERFLOW, {"topk": (3, 1)})
@example(THREAD, {"topk": (3, 2)})
@example(THREAD, {"similarity": "simd"})
def test_hierarchical_on_the_lattice_equals_dense(case, options):
    assert_equal_paths(HierarchicalAssigner(**options), case)


@settings(deadline=None, max_examples=15)
@given(cases(), ASSIGNER_SETTINGS, THRESHOLD_SETTINGS, HIERARCHICAL_SETTINGS)
def test_lattice_equals_dense_in_the_smallest_portions(case, ranking, threshold, hierarchical):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice, "PAIRS", 50)
        patch.setattr(lattice, "BOXES", 3)
        patch.setattr(search, "BOXES", 3)
        patch.setattr(search, "TABLE", 50)
        assert_equal_paths(RankingAssigner(**ranking), case)
        assert_equal_paths(ThresholdAssigner(**threshold), case)
        assert_equal_paths(HierarchicalAssigner(**hierarchical), case)


@pytest.mark.parametrize("inside_only", [False, True])
@pytest.mark.parametrize("keep_one", [False, True])
def test_published_anchors_with_many_twins(inside_only, keep_one):
    torch.manual_seed(0)
    corner = torch.rand(60, 2) * 300
    boxes = torch.cat((corner, corner + 2 + 20 * torch.rand(60, 2)), 1).round()
    grid = AnchorGrid((4, 8, 16, 32, 64), (8,), (0.5, 1, 2))
    assigner = RankingAssigner(keep_one=keep_one)
    crowd = torch.cat((boxes, boxes[:20], boxes[:20], boxes[:1].repeat(30, 1)))
    assert_equal_paths(assigner, (grid, (320, 320), [crowd, boxes], None, inside_only, None))
    counts = assigner.on_grid(grid, (320, 320), crowd, inside_only=inside_only).per_object(len(crowd))
    assert bool((counts > 0).all()) == keep_one


def test_keep_one_leaves_an_object_alone_when_no_anchor_is_free():
    grid = AnchorGrid((8,), (1,), (1,), 0.5)
    crowd = torch.tensor([[0.0, 0, 8, 8]]).repeat(6, 1)
    found = RankingAssigner(topk=1, keep_one=True).on_grid(grid, (16, 16), crowd)
    assert sorted(found.gt_index.tolist()) == [0, 1, 2, 5]
    assert_equal_paths(RankingAssigner(topk=1, keep_one=True), (grid, (16, 16), [crowd], None, False, None))


def test_inputs_stay_as_they_are():
    boxes, region = torch.tensor([[3.0, 4, 12, 9]]), torch.tensor([[0.0, 0, 30, 30]])
    grid = AnchorGrid((4, 8), (8,), (1,))
    copies = [t.clone() for t in (boxes, region, *grid.base_boxes)]
    first = RankingAssigner(keep_one=True).on_grid(grid, (64, 64), boxes, region, True).gt_index
    first.fill_(99)  # what an answer holds is its own
    again = RankingAssigner(keep_one=True).on_grid(grid, (64, 64), boxes, region, True).gt_index
    assert int(again.max()) == 0
    assert_close([boxes, region, *grid.base_boxes], copies, atol=0, rtol=0)


@pytest.mark.parametrize(
    "assigner",
    [
        RankingAssigner(),
        RankingAssigner("dotd"),
        ThresholdAssigner(min_positive=0.0),
        ThresholdAssigner("simd"),
        HierarchicalAssigner(),
        HierarchicalAssigner("wd"),
    ],
)
def test_lattice_makes_neither_anchors_nor_matrix(assigner, monkeypatch):
    monkeypatch.setattr(AnchorGrid, "boxes", None)
    monkeypatch.setattr(Assigner, "__call__", None)
    found = assigner.on_grid(AnchorGrid((4, 8), (8,), (1,)), (64, 64), torch.tensor([[3.0, 4, 12, 9]]))
    assert len(found.positive_idx) >= 1
