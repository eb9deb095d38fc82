"""SSD's head: anchors, hard negatives and scores by hand."""

import math

import pytest
import torch

from tinyyolo.assigners import ThresholdAssigner
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.heads.ssd import SSDHead, ssd_anchors

SIZE, CHANNELS = (16, 16), 4


def head_of(**more):
    """Two levels of 2x2 and 1 cells with 4 anchors each, 20 in all, of which an 8x8 object overlaps one by half."""
    assigner = ThresholdAssigner("iou", 0.5, 0.5, 0.0, all_best=False)
    return SSDHead((CHANNELS,) * 2, (8, 16), 2, [8, 20, 50], [[3], [3]], assigner, **more)


def maps_of(images=1):
    return [torch.zeros(images, CHANNELS, 2, 2), torch.zeros(images, CHANNELS, 1, 1)]


def target_of(*boxes):
    return {"boxes": torch.tensor(boxes).view(-1, 4), "labels": torch.zeros(len(boxes), dtype=torch.int64)}


def fixed(head, background):
    """All outputs 0 but the logits of the background, one for each of a cell's four anchors."""
    for conv in (*head.cls_convs, *head.reg_convs):
        torch.nn.init.zeros_(conv[0].weight)
    for (conv,) in head.cls_convs:
        conv.bias.data.view(-1, 3)[:, 2] = torch.tensor(background)
    return head


def test_anchors_by_hand():
    r2, r3 = math.sqrt(2), math.sqrt(3)
    (level,) = ssd_anchors([20, 80], [[2, 3]])
    expected = [(20, 20), (40, 40), (20 * r2, 20 / r2), (20 / r2, 20 * r2), (20 * r3, 20 / r3), (20 / r3, 20 * r3)]
    torch.testing.assert_close(torch.tensor(level), torch.tensor(expected))


def test_anchors_of_the_published_row():
    grid = build_model(load_model_yaml("ssd512-vgg16", {"backbone.width": 1})).bbox_head.grid
    assert grid.per_cell == [4, 6, 6, 6, 6, 4, 4] and len(grid.boxes((512, 512))) == 24_564
    assert grid.base_boxes[0][0].tolist() == [-6, -6, 14, 14]  # 20 px around the middle of a cell of 8
    assert grid.base_boxes[6][0].tolist() == [26, 26, 486, 486]


def test_the_hardest_negatives_learn_three_for_a_positive():
    """One object is the square of the first cell: one positive. Three of 19 negatives count, the least sure ones.

    Logits of the background are 0, 1, 2, 3 by anchor of a cell, those of the two classes 0. The hardest negatives have
    cross entropy ln 3 (background 0), of which there is one in each of the four other cells.
    """
    head = fixed(head_of(), [0.0, 1.0, 2.0, 3.0])
    losses = head.losses(maps_of(), [target_of([0.0, 0, 8, 8])], SIZE)
    assert losses["cls"].item() == pytest.approx((1 + 3) * math.log(3), rel=1e-6) and losses["box"] == 0
    losses = fixed(head_of(negatives=5), [0.0, 1.0, 2.0, 3.0]).losses(maps_of(), [target_of([0.0, 0, 8, 8])], SIZE)
    fifth = math.log(1 + 2 / math.e)  # background 1
    assert losses["cls"].item() == pytest.approx((1 + 4) * math.log(3) + fifth, rel=1e-6)


def test_losses_are_shared_by_the_positives_of_the_batch_at_least_one_an_image():
    """A positive with one positive and an image of none: 2; the second image learns nothing, as it has no positive."""
    head = fixed(head_of(), [0.0] * 4)
    one = head.losses(maps_of(), [target_of([0.0, 0, 8, 8])], SIZE)
    two = head.losses(maps_of(2), [target_of([0.0, 0, 8, 8]), target_of()], SIZE)
    torch.testing.assert_close(two["cls"], one["cls"] / 2)


def test_box_loss_by_hand():
    """The object lies 1 px to the right of its anchor of 8 px: dx = 1 / 8 / .1 = 1.25, smooth L1 1.25 - .5."""
    head = head_of(coder=None)
    assert head.coder.stds == (1, 1, 1, 1)
    head.coder = type(head.coder)(stds=(0.1, 0.1, 0.2, 0.2))
    losses = fixed(head, [0.0] * 4).losses(maps_of(), [target_of([1.0, 0, 9, 8])], SIZE)
    assert losses["box"].item() == pytest.approx(0.75, rel=1e-5)


def test_scores_are_those_of_the_classes_beside_the_background():
    head = fixed(head_of(pre_nms=8), [0.0] * 4)
    boxes, scores = head.candidates(maps_of(), SIZE)
    assert boxes.shape == (1, 16, 4) and scores.shape == (1, 16, 2)  # 8 pairs of 2 levels
    torch.testing.assert_close(scores.sum(-1), torch.full((1, 16), 1 / 3))
    assert boxes.amin() >= 0 and boxes.amax() <= 16


def test_a_core_owns_the_cells_that_begin_in_it():
    head = fixed(head_of(), [0.0] * 4)
    _, scores = head.candidates(maps_of(), SIZE, (8, 0, 16, 8))
    assert (scores > 0).sum() == 4 * 2  # one cell of the fine level, none of the coarse one


@pytest.mark.parametrize(
    ("sizes", "ratios", "says"),
    [
        ([8, 16], [[2], [2]], r"sizes=\[8, 16\]: expected 3, one more than levels"),
        ([8, 16, 0], [[2], [2]], "sizes=.*: expected numbers above 0"),
        ([8, 16, 32], [[2], [0]], "ratios=.*: expected numbers above 0"),
        ([8, 16, 32], [[2]], "ratios=.*: expected a list for each of 2 maps"),
    ],
)
def test_what_does_not_fit_is_named(sizes, ratios, says):
    with pytest.raises(ValueError, match=says):
        SSDHead((4, 4), (8, 16), 2, sizes, ratios, ThresholdAssigner())
