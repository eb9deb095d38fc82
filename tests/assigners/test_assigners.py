"""The rules of each assigner on hand-made matrices, ignore regions, bad input."""

import pytest
import torch
from torch.testing import assert_close

from tinyyolo.assigners import (
    ASSIGNERS,
    IGNORE,
    NEGATIVE,
    Assignment,
    ATSSAssigner,
    CellAssigner,
    HierarchicalAssigner,
    RankingAssigner,
    ShapeAssigner,
    ThresholdAssigner,
)
from tinyyolo.boxes.anchors import AnchorGrid

GRID = AnchorGrid(strides=(4, 8), scales=(2, 8), ratios=(0.5, 1))
ROW = torch.tensor([[10.0 * i, 0, 10 * i + 8, 8] for i in range(6)])  # anchors 0..5, 10 px apart
# Every entry of the table as it comes, and what takes another path: the rules that all must keep are tested on these.
VARIANTS = {"ranking-iou": RankingAssigner("iou"), "ranking-giou": RankingAssigner("giou", topk=1)}
VARIANTS |= {"threshold-simd": ThresholdAssigner("simd"), "hierarchical-giou": HierarchicalAssigner("giou")}
VARIANTS |= {"ranking-one": RankingAssigner(keep_one=True, positive_iou=0.5), "threshold-nwd": ThresholdAssigner("nwd")}
BY_NAME = {name: make() for name, make in ASSIGNERS.items()} | VARIANTS
ALL, NAMES = list(BY_NAME.values()), list(BY_NAME)
ROW_GRID, ROW_SIZE = AnchorGrid(strides=(10,), sizes=[[(8, 8)]], center_offset=0.4), (10, 60)  # the anchors of ROW


def both(assigner, objects):
    """gt_index of ROW's anchors, which the call on boxes and the grid must agree on."""
    assert_close(ROW_GRID.boxes(ROW_SIZE), ROW, atol=0, rtol=0)
    called = assigner(ROW, objects).gt_index.tolist()
    assert assigner.on_grid(ROW_GRID, ROW_SIZE, objects).gt_index.tolist() == called
    return called


def shifted(*dx):
    return torch.tensor([[x, 0.0, x + 8, 8] for x in dx])


def wide(x):
    return torch.tensor([[x, 0.0, x + 12, 8]])  # at 4, IoU .25 with anchor 0 and .43 with anchor 1


@pytest.mark.parametrize(
    ("settings", "objects", "expected"),
    [
        # NWD at d px: 1 -> .92, 4 -> .73, 9 -> .49, 11 -> .42, 15.3 -> .3
        ({"topk": 1}, shifted(1), [0, IGNORE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]),
        ({"topk": 2}, shifted(1), [0, 0, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]),
        ({"topk": 1, "negative_below": None}, shifted(1), [0] + [NEGATIVE] * 5),
        ({"topk": 1, "negative_below": 0.5}, shifted(1), [0] + [NEGATIVE] * 5),
        ({"topk": 1, "constant": 6.0}, shifted(1), [0] + [NEGATIVE] * 5),
        # a tie at d = 5 gives both
        ({"topk": 1}, shifted(15), [IGNORE, 0, 0, IGNORE, NEGATIVE, NEGATIVE]),
        # no floor: far from every anchor is still positive for the nearest
        ({"topk": 1}, shifted(400), [NEGATIVE] * 5 + [0]),
        # the later object takes both anchors of its twin
        ({"topk": 2}, shifted(1, 1), [1, 1, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]),
        # one anchor wanted twice goes to the later object
        ({"topk": 1}, shifted(1, -2), [1, IGNORE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]),
        ({"topk": 1}, shifted(-2, 1), [1, IGNORE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]),
        # the robbed object takes its best free anchor
        ({"topk": 1, "keep_one": True}, shifted(1, -2), [1, 0, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]),
        ({"topk": 2, "keep_one": True}, shifted(1, 1), [1, 1, 0, NEGATIVE, NEGATIVE, NEGATIVE]),
        # k = 1 takes the nearer anchor, 1; IoU decides over 0
        ({"topk": 1, "negative_below": None, "positive_iou": 0.2}, wide(4), [0, 0] + [NEGATIVE] * 4),
        ({"topk": 1, "negative_below": None, "positive_iou": 0.6}, wide(4), [NEGATIVE, 0] + [NEGATIVE] * 4),
        (
            {"topk": 1, "negative_below": None, "positive_iou": 0.6, "negative_iou": 0.2},
            wide(4),
            [IGNORE, 0] + [NEGATIVE] * 4,
        ),
        # what ranking gave stays, also an anchor that overlaps another object more
        ({"topk": 1, "negative_below": None, "positive_iou": 0.5}, shifted(1, -2), [1] + [NEGATIVE] * 5),
        # IoU makes positive what the negative bound had ignored
        ({"topk": 1, "negative_below": 0.3, "positive_iou": 0.2}, wide(4), [0, 0, IGNORE] + [NEGATIVE] * 3),
        # robbed objects choose in their order, nearest first
        ({"topk": 1, "keep_one": True}, shifted(1, 1, 1), [2, 0, 1, NEGATIVE, NEGATIVE, NEGATIVE]),
        # of two free anchors 15 px away (NWD .307) the first
        ({"topk": 1, "keep_one": True}, shifted(15, 15), [0, 1, 1, IGNORE, NEGATIVE, NEGATIVE]),
        # the negative bound itself is no background
        ({"topk": 1, "similarity": "iou", "negative_below": 0.25}, wide(4), [IGNORE, 0] + [NEGATIVE] * 4),
        ({"topk": 1, "similarity": "iou", "negative_below": 0.2501}, wide(4), [NEGATIVE, 0] + [NEGATIVE] * 4),
        ({"topk": 1, "similarity": "iou", "negative_below": 0}, wide(4), [IGNORE, 0] + [IGNORE] * 4),
        # and the bounds of IoU themselves are positive and ignored
        ({"topk": 1, "negative_below": None, "positive_iou": 0.25}, wide(4), [0, 0] + [NEGATIVE] * 4),
        ({"topk": 1, "negative_below": None, "positive_iou": 0.2501}, wide(4), [NEGATIVE, 0] + [NEGATIVE] * 4),
        (
            {"topk": 1, "negative_below": None, "positive_iou": 0.6, "negative_iou": 0.25},
            wide(4),
            [IGNORE, 0] + [NEGATIVE] * 4,
        ),
        (
            {"topk": 1, "negative_below": None, "positive_iou": 0.6, "negative_iou": 0.2501},
            wide(4),
            [NEGATIVE, 0] + [NEGATIVE] * 4,
        ),
        # by IoU an anchor learns the object it overlaps most: .25 with 4..16, .14 with 6..14; the first of twins
        (
            {"topk": 1, "negative_below": None, "positive_iou": 0.1},
            torch.cat((wide(4), shifted(6))),
            [0, 1] + [NEGATIVE] * 4,
        ),
        (
            {"topk": 1, "negative_below": None, "positive_iou": 0.1},
            torch.cat((shifted(6), wide(4))),
            [1, 1] + [NEGATIVE] * 4,
        ),
        (
            {"topk": 1, "negative_below": None, "positive_iou": 0.2},
            torch.cat((wide(4), wide(4))),
            [0, 1] + [NEGATIVE] * 4,
        ),
        # IoU: k = 2 with one overlap means that 0 is among the best, and everything ties
        ({"topk": 2, "similarity": "iou"}, shifted(0), [0] * 6),
        ({"topk": 6}, shifted(0), [0] * 6),
    ],
)
def test_ranking_rules(settings, objects, expected):
    assert both(RankingAssigner(**settings), objects) == expected


@pytest.mark.parametrize(
    ("settings", "objects", "expected"),
    [
        # IoU of 8 px boxes at d px: 1 -> .778, 2 -> .6, 3 -> .4545, 5 -> .2308
        ({}, shifted(1), [0] + [NEGATIVE] * 5),
        ({}, shifted(3), [0] + [NEGATIVE] * 5),  # low quality: .4545 >= .3
        ({"low_quality": False}, shifted(3), [IGNORE] + [NEGATIVE] * 5),
        ({"min_positive": 0.5}, shifted(3), [IGNORE] + [NEGATIVE] * 5),
        ({"min_positive": 0.2}, shifted(5), [0, 0] + [NEGATIVE] * 4),  # 5 px from both: two equal bests
        ({"min_positive": 0.2, "all_best": False}, shifted(5), [0] + [NEGATIVE] * 5),  # the first of them
        ({"min_positive": 0, "all_best": False}, shifted(400), [0] + [NEGATIVE] * 5),  # 0 is its best, with all alike
        ({"min_positive": 0}, shifted(400), [0] * 6),
        ({"min_positive": 0.2, "all_best": False}, shifted(5, 4), [1] + [NEGATIVE] * 5),
        ({}, shifted(5), [NEGATIVE] * 6),
        ({"min_positive": 0.25}, wide(-8), [0] + [NEGATIVE] * 5),  # IoU .25: the bound itself is enough
        ({"min_positive": 0.2501}, wide(-8), [NEGATIVE] * 6),
        ({"positive": 0.4545454680919647}, shifted(3), [0] + [NEGATIVE] * 5),  # the bound itself is positive
        ({"negative": 0.6000000238418579, "min_positive": 0.65}, shifted(2), [IGNORE] + [NEGATIVE] * 5),
        # equal objects: the first by threshold, the last by the low-quality rule
        ({"low_quality": False}, shifted(1, 1), [0] + [NEGATIVE] * 5),
        ({}, shifted(1, 1), [1] + [NEGATIVE] * 5),
        # the low-quality rule takes an anchor from the object that it fits better
        ({"min_positive": 0.3}, shifted(0, 3), [1] + [NEGATIVE] * 5),
        # also from a later one: .25 with the second, .14 with the first, whose best it is
        (
            {"positive": 0.2, "negative": 0.1, "min_positive": 0.1},
            torch.cat((shifted(-6), wide(4))),
            [0, 1] + [NEGATIVE] * 4,
        ),
        ({"similarity": "nwd", "positive": 0.7, "negative": 0.3}, shifted(1), [0, IGNORE] + [NEGATIVE] * 4),
    ],
)
def test_threshold_rules(settings, objects, expected):
    assert both(ThresholdAssigner(**settings), objects) == expected


def test_dissimilar_is_not_background_in_giou():
    """The official rule calls an anchor background when its best similarity is in [0, negative)."""
    # GIoU with the object 0..8: 1, and below 0 for the five others.
    assert ThresholdAssigner("giou")(ROW, shifted(0)).gt_index.tolist() == [0] + [IGNORE] * 5
    assert RankingAssigner("giou", topk=1)(ROW, shifted(0)).gt_index.tolist() == [0] + [IGNORE] * 5


def test_atss_by_hand():
    # IoU with the object 0..8: 1, .6, .4545, 0, 0; mean .411, deviation .42: only the first is above .83.
    anchors = torch.cat((shifted(0), shifted(2), shifted(3), shifted(30), shifted(40)))
    assert ATSSAssigner(9)(anchors, shifted(0)).gt_index.tolist() == [0] + [NEGATIVE] * 4
    # With two candidates, mean + deviation exceeds both unless they are equal.
    assert ATSSAssigner(2)(anchors, shifted(0)).gt_index.tolist() == [NEGATIVE] * 5
    assert ATSSAssigner(1)(anchors, shifted(0)).gt_index.tolist() == [0] + [NEGATIVE] * 4
    # Levels are searched apart.
    assert ATSSAssigner(1)(anchors, shifted(0), level_sizes=[3, 1, 1]).gt_index.tolist() == [0] + [NEGATIVE] * 4
    assert ATSSAssigner(1)(anchors, shifted(0), level_sizes=[1, 2, 2]).gt_index.tolist() == [NEGATIVE] * 5


def test_atss_wants_the_centre_inside_and_gives_an_anchor_to_the_best_overlap():
    wide = torch.tensor([[0.0, 0, 8, 8]])
    beside = torch.tensor([[4.0, 0, 12, 8]])  # the anchor's centre lies on its left edge
    assert ATSSAssigner(1)(wide, beside).gt_index.tolist() == [NEGATIVE]
    assert ATSSAssigner(1)(wide, torch.cat((shifted(2), shifted(1), shifted(1)))).gt_index.tolist() == [1]


@pytest.mark.parametrize(
    ("centre", "cells"),
    [
        ((12, 12), {(1, 1)}),  # the middle of a cell: no neighbour
        ((11, 12), {(1, 1), (1, 0)}),  # (row, column)
        ((13, 12), {(1, 1), (1, 2)}),
        ((13, 11), {(1, 1), (1, 2), (0, 1)}),
        ((8, 14), {(1, 1), (1, 0), (2, 1)}),  # an edge belongs to the right; no diagonal neighbour
        ((1, 1), {(0, 0)}),  # no neighbour beyond the border
    ],
)
def test_shape_takes_the_cell_and_its_nearer_neighbours(centre, cells):
    # The rule of YOLOv5's build_targets: floor of the centre, and of the centre moved by half a cell on each axis.
    grid = AnchorGrid(strides=(8,), sizes=[[(8, 8), (40, 40)]], center_offset=0.5)
    x, y = centre
    found = ShapeAssigner().on_grid(grid, (24, 24), torch.tensor([[x - 3.0, y - 4, x + 3, y + 4]]))
    boxes = grid.boxes((24, 24))[found.positive_idx]
    assert boxes.shape == (len(cells), 4) and bool((boxes[:, 2] - boxes[:, 0] == 8).all())
    assert {(int(b) // 8, int(a) // 8) for a, b in (boxes[:, :2] + 4).tolist()} == cells


@pytest.mark.parametrize(
    ("settings", "objects", "expected"),
    [
        ({}, [[0.0, 0, 8, 8]], [0] + [NEGATIVE] * 5),
        ({}, [[1.0, 0, 7, 2.1]], [0] + [NEGATIVE] * 5),
        ({}, [[1.0, 3, 7, 5]], [NEGATIVE] * 6),  # 8 / 2 is not below 4
        ({}, [[-12.0, -12, 20, 20]], [NEGATIVE] * 6),
        ({"ratio": 4.1}, [[1.0, 3, 7, 5]], [0] + [NEGATIVE] * 5),
        ({}, [[1.0, 0, 9, 8], [1.0, 0, 9, 8]], [1, 1] + [NEGATIVE] * 4),  # the last of those that want an anchor
        ({}, [[1.0, 0, 1, 8]], [NEGATIVE] * 6),
    ],
)
def test_shape_rules(settings, objects, expected):
    assert ShapeAssigner(**settings)(ROW, torch.tensor(objects)).gt_index.tolist() == expected


@pytest.mark.parametrize(
    ("settings", "objects", "expected"),
    [
        # The cell of anchor i reaches from 10 i - 1 to 10 i + 9. IoU of 8 px boxes at d px: 1 -> .778, 4 -> .333
        ({}, shifted(1), [0] + [NEGATIVE] * 5),
        ({}, shifted(4), [0] + [NEGATIVE] * 5),  # its best, though background by the bound
        ({}, shifted(5), [NEGATIVE, 0] + [NEGATIVE] * 4),  # of two equal bests that in whose cell the centre lies
        ({}, shifted(0, 4), [1] + [NEGATIVE] * 5),  # the last of those that want an anchor
        ({}, [[8.2, 3, 8.8, 5]], [NEGATIVE] * 6),  # between the anchors of its cell and of the next
        # .5 is background, and an object's best must be more than min_positive
        ({"min_positive": 0.5}, [[0.0, 0, 8, 4]], [NEGATIVE] * 6),
        ({"min_positive": 0.49}, [[0.0, 0, 8, 4]], [0] + [NEGATIVE] * 5),
        # between the bounds
        ({"min_positive": 0.9, "positive": 0.7, "negative": 0.7}, shifted(1), [0] + [NEGATIVE] * 5),
        ({"min_positive": 0.9, "positive": 0.8, "negative": 0.7}, shifted(1), [IGNORE] + [NEGATIVE] * 5),
    ],
)
def test_cells_rules(settings, objects, expected):
    assert both(CellAssigner(**settings), torch.as_tensor(objects)) == expected


def test_cells_of_other_objects_count_and_those_beside_are_ignored():
    anchors = torch.cat((shifted(0), shifted(2), shifted(4)))  # cells of 2 px: 3 to 5, 5 to 7, 7 to 9
    # The centre 4 lies in the first; the second is over .5, .6, and not responsible.
    assert CellAssigner()(anchors, shifted(0)).gt_index.tolist() == [0, IGNORE, NEGATIVE]
    # The 2 px wide one makes the second cell responsible, and has its best there, .25, as in the first and third.
    thin = torch.tensor([[5.0, 0, 7, 8]])
    assert CellAssigner()(anchors, torch.cat((thin, shifted(0)))).gt_index.tolist() == [1, 0, NEGATIVE]
    # Alone, the object over .5 would have it.
    assert CellAssigner(min_positive=0.3)(anchors, torch.cat((thin, shifted(0)))).gt_index.tolist() == [1, 1, NEGATIVE]
    # Levels have cells of their own: of 2 and of 10 px; equal bests of both.
    levels = torch.cat((anchors, ROW))
    found = CellAssigner()(levels, shifted(0), level_sizes=[3, 6]).gt_index.tolist()
    assert found == [0, IGNORE, NEGATIVE, 0] + [NEGATIVE] * 5


@pytest.mark.parametrize("assigner", ALL, ids=NAMES)
def test_no_object_makes_every_anchor_negative(assigner):
    assert assigner(ROW, torch.zeros(0, 4)).gt_index.tolist() == [NEGATIVE] * 6
    found = assigner.on_grid(GRID, (64, 64), torch.zeros(0, 4), inside_only=True).gt_index
    inside = GRID.inside((64, 64))
    assert_close(found, torch.where(inside, NEGATIVE, IGNORE))


@pytest.mark.parametrize("assigner", ALL, ids=NAMES)
def test_no_anchor_and_no_image_are_normal(assigner):
    assert assigner(torch.zeros(0, 4), ROW).gt_index.shape == (0,)
    assert assigner(torch.zeros(0, 4), ROW, ROW).gt_index.dtype == torch.int64
    assert assigner.on_grid_batch(GRID, (64, 64), []) == []


@pytest.mark.parametrize("assigner", ALL, ids=NAMES)
def test_ignore_regions_spare_what_is_positive(assigner):
    region = torch.tensor([[0.0, 0, 4.1, 8], [29.0, 0, 70, 60]])  # 51 % of anchor 0; anchors 3 to 5 wholly
    plain = assigner(ROW, shifted(1, 51)).gt_index
    spared = assigner(ROW, shifted(1, 51), region).gt_index
    covered = torch.tensor([True, False, False, True, True, True])
    assert_close(spared, torch.where(covered & (plain < 0), IGNORE, plain))
    assert int((plain >= 0).sum()) >= 1
    assert_close(assigner(ROW, shifted(1, 51), torch.zeros(0, 4)).gt_index, plain)
    assert assigner(ROW, torch.zeros(0, 4), region).gt_index.tolist() == [IGNORE, -1, -1, IGNORE, IGNORE, IGNORE]


def test_exactly_half_in_a_region_is_not_ignored():
    half = torch.tensor([[0.0, 0, 4, 8]])
    assert ThresholdAssigner()(ROW, torch.zeros(0, 4), half).gt_index[0] == NEGATIVE
    assert (
        RankingAssigner().on_grid(AnchorGrid((8,), (1,), (1,), 0.5), (8, 8), torch.zeros(0, 4), half).gt_index
        == NEGATIVE
    )


@pytest.mark.parametrize("assigner", ALL, ids=NAMES)
@pytest.mark.parametrize("inside_only", [False, True])
def test_batch_equals_single_images_and_the_call_on_boxes(assigner, inside_only):
    torch.manual_seed(1)
    corners = 60 * torch.rand(3, 12, 2)
    batch = list(torch.cat((corners, corners + 1 + 20 * torch.rand(3, 12, 2)), 2))
    batch[1] = batch[1][:0]
    regions = [batch[2][:2], None, batch[0][:0]]
    found = assigner.on_grid_batch(GRID, (64, 80), batch, regions, inside_only)
    inside = GRID.inside((64, 80)) if inside_only else torch.ones(sum(GRID.level_sizes((64, 80))), dtype=torch.bool)
    levels = [int(level.sum()) for level in inside.split(GRID.level_sizes((64, 80)))]
    for one, gt_boxes, region in zip(found, batch, regions, strict=True):
        assert_close(one.gt_index, assigner.on_grid(GRID, (64, 80), gt_boxes, region, inside_only).gt_index)
        called = assigner(GRID.boxes((64, 80))[inside], gt_boxes, region, levels).gt_index
        assert_close(one.gt_index[inside], called)
        assert bool((one.gt_index[~inside] == IGNORE).all())


@pytest.mark.parametrize("assigner", ALL, ids=NAMES)
def test_chunks_do_not_change_the_answer(assigner, monkeypatch):
    torch.manual_seed(2)
    corners = 60 * torch.rand(15, 2)
    objects = torch.cat((corners, corners + 1 + 20 * torch.rand(15, 2)), 1)
    anchors, levels = GRID.boxes((64, 80)), GRID.level_sizes((64, 80))
    whole = assigner(anchors, objects, objects[:3], levels).gt_index
    monkeypatch.setattr("tinyyolo.assigners.base.CHUNK", 100)
    monkeypatch.setattr("tinyyolo.assigners.atss.CHUNK", 100)
    monkeypatch.setattr("tinyyolo.assigners.shape.CHUNK", 100)
    monkeypatch.setattr("tinyyolo.assigners.cells.CHUNK", 100)
    assert_close(assigner(anchors, objects, objects[:3], levels).gt_index, whole)


@pytest.mark.parametrize("assigner", ALL, ids=NAMES)
def test_half_precision_and_gradients_go_in_plain_indices_come_out(assigner):
    objects = shifted(1, 20).half()
    assert_close(assigner(ROW.half(), objects).gt_index, assigner(ROW, objects.float()).gt_index)
    found = assigner(ROW.clone().requires_grad_(), objects.float().requires_grad_()).gt_index
    assert (found.dtype, found.requires_grad) == (torch.int64, False)


@pytest.mark.parametrize("assigner", ALL, ids=NAMES)
@pytest.mark.parametrize(
    ("boxes", "match"),
    [
        (torch.zeros(3, 5), r"\(3, 5\)"),
        (torch.zeros(4), r"\(4,\)"),
        (torch.tensor([[0.0, 0, 4, 4], [0, 0, float("nan"), 4]]), r"gt_boxes\[1\].*nan"),
        (torch.tensor([[0.0, 0, float("inf"), 4]]), r"gt_boxes\[0\].*inf"),
        (torch.tensor([[5.0, 0, 4, 4]]), r"x1 <= x2"),
        (torch.tensor([[0.0, 5, 4, 4]]), r"y1 <= y2"),
    ],
)
def test_bad_boxes_raise_on_both_paths(assigner, boxes, match):
    with pytest.raises(ValueError, match=match):
        assigner(ROW, boxes)
    with pytest.raises(ValueError, match=match):
        assigner.on_grid(GRID, (64, 64), boxes)
    with pytest.raises(ValueError, match=match.replace("gt_boxes", "ignore_boxes")):
        assigner.on_grid(GRID, (64, 64), ROW, boxes)
    with pytest.raises(ValueError, match=match.replace("gt_boxes", "anchors")):
        assigner(boxes, ROW)


def test_wrong_level_sizes_and_batches_raise():
    with pytest.raises(ValueError, match="do not add up to 6"):
        ATSSAssigner()(ROW, ROW, level_sizes=[3, 2])
    for assigner in ALL:
        with pytest.raises(ValueError, match="2 gt_boxes but 1 ignore_boxes"):
            assigner.on_grid_batch(GRID, (64, 64), [ROW, ROW], [None])


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        ("ranking", {"topk": 0}, "topk"),
        ("ranking", {"topk": 1.5}, "topk"),
        ("ranking", {"constant": 0}, "constant"),
        ("ranking", {"constant": -3.0}, "constant"),
        ("ranking", {"constant": float("nan")}, "constant"),
        ("ranking", {"topk": True}, "topk"),
        ("ranking", {"negative_below": -0.1}, "negative_below"),
        ("ranking", {"negative_below": 30}, "negative_below=30: expected a number from 0 to 1"),
        ("ranking", {"similarity": "nws"}, "similarity=nws: unknown; did you mean 'nwd'. Choices: ciou, diou"),
        ("ranking", {"negative_iou": 0.4}, "negative_iou=0.4: it needs"),
        ("ranking", {"positive_iou": 0.5, "negative_iou": 0.6}, "negative_iou=0.6: .* positive_iou=0.5"),
        ("ranking", {"positive_iou": 0}, "positive_iou=0"),
        ("ranking", {"positive_iou": 50}, "positive_iou=50"),
        ("threshold", {"positive": -0.1}, "positive"),
        ("threshold", {"negative": -0.1}, "negative"),
        ("threshold", {"min_positive": -0.1}, "min_positive"),
        ("threshold", {"positive": float("nan")}, "positive"),
        ("threshold", {"positive": 70}, "positive"),
        ("threshold", {"positive": 1.01}, "positive=1.01: expected a number from 0 to 1"),
        ("ranking", {"negative_below": 1.01}, "negative_below=1.01: expected a number from 0 to 1"),
        ("ranking", {"positive_iou": 1.01}, "positive_iou=1.01: expected a number from 0 to 1"),
        ("threshold", {"positive": 0.3, "negative": 0.4}, "negative=0.4: .* positive=0.3"),
        ("threshold", {"constant": 0, "similarity": "nwd"}, "constant"),
        ("threshold", {"similarity": ""}, "unknown"),
        ("atss", {"topk": 0}, "topk"),
        ("atss", {"topk": 2.0}, "topk"),
        ("cells", {"positive": 0.4}, "negative=0.5: .* positive=0.4"),
        ("cells", {"min_positive": -1}, "min_positive=-1"),
        ("shape", {"ratio": 1}, "ratio"),
        ("shape", {"ratio": float("inf")}, "ratio"),
    ],
)
def test_bad_settings_raise(kind, settings, match):
    with pytest.raises(ValueError, match=match):
        ASSIGNERS[kind](**settings)


def test_more_than_there_are_anchors_raises_on_both_paths():
    grid = AnchorGrid((8,), (1,), (1,))
    with pytest.raises(ValueError, match="topk=5: only 4"):
        RankingAssigner(topk=5)(grid.boxes((16, 16)), ROW)
    with pytest.raises(ValueError, match="topk=5: only 4"):
        RankingAssigner(topk=5).on_grid(grid, (16, 16), ROW)
    with pytest.raises(ValueError, match="topk=4: only 1"):
        RankingAssigner(topk=4).on_grid(grid, (16, 16), ROW, inside_only=True)


def test_assignment_says_what_it_holds():
    found = Assignment(torch.tensor([2, NEGATIVE, 0, IGNORE, 2]))
    assert found.positive_idx.tolist() == [0, 2, 4]
    assert found.negative_idx.tolist() == [1]
    assert found.ignored_idx.tolist() == [3]
    assert found.per_object(4).tolist() == [1, 0, 2, 0]
    assert Assignment(torch.zeros(0, dtype=torch.int64)).per_object(0).tolist() == []


def test_overlap_adds_no_low_quality_anchor():
    # the small anchor is nearer (7.1 px against 8), the shifted one overlaps more (IoU .43 against .25)
    anchors = torch.tensor([[5.0, 5, 15, 15], [8.0, 0, 28, 20]])
    found = RankingAssigner(topk=1, negative_below=None, positive_iou=0.6)(anchors, torch.tensor([[0.0, 0, 20, 20]]))
    assert found.gt_index.tolist() == [0, NEGATIVE]


def test_one_full_image_does_not_keep_the_next_from_its_anchors():
    grid, crowd = AnchorGrid((8,), (1,), (1,), 0.5), torch.tensor([[0.0, 0, 8, 8]]).repeat(6, 1)
    assigner = RankingAssigner(topk=1, negative_below=None, keep_one=True)
    full, roomy = assigner.on_grid_batch(grid, (16, 16), [crowd, crowd[:2]])
    assert full.gt_index.tolist() == [5, 0, 1, 2]
    assert roomy.gt_index.tolist() == [1, 0, NEGATIVE, NEGATIVE]


def test_keep_one_takes_no_anchor_from_the_first_object_either():
    assigner, objects = RankingAssigner(topk=1, keep_one=True), shifted(0, 10, 10)
    assert assigner(ROW[:2], objects).gt_index.tolist() == [0, 2]
    assert assigner.on_grid(ROW_GRID, (10, 20), objects).gt_index.tolist() == [0, 2]
