"""The anchor YOLO's head by numbers worked out by hand: every box, score and loss is in the comments."""

import math

import pytest
import torch
from torch.testing import assert_close
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from tinyyolo.assigners import RankingAssigner
from tinyyolo.assigners.assignment import Assignment
from tinyyolo.heads import yolo
from tinyyolo.heads.dense import flat
from tinyyolo.heads.yolo import YoloHead

LN2, LN3, LN4_3 = math.log(2), math.log(3), math.log(4 / 3)


class Fixed:
    """An assigner with a ready answer, which notes what it was asked."""

    def __init__(self, *gt_index):
        self.answers = [Assignment(torch.tensor(row)) for row in gt_index]

    def on_grid_batch(self, grid, size_hw, gt_boxes, ignore_boxes, inside_only, map_sizes):
        self.asked = {"boxes": gt_boxes, "ignore": ignore_boxes, "inside_only": inside_only, "maps": map_sizes}
        return self.answers


def constant(head, box, classes):
    """Every cell of a level predicts the same: `box` (per level A * 4) and `classes` (per level A * C) are biases."""
    for branches, values in ((head.box_branch, box), (head.class_branch, classes)):
        for branch, bias in zip(branches, values, strict=True):
            torch.nn.init.zeros_(branch[-1].weight)
            branch[-1].bias.data = torch.tensor(bias)
    return head.eval()


# Two levels with unequal numbers of anchors a cell, on an image 16 px high and 32 px wide.
WIDE = (16, 32)


def two_levels(**more):
    given = {"box_loss": {"iou": 1.0}, **more}
    return YoloHead((3, 4), (8, 16), 2, [[(4, 4), (8, 16)], [(32, 16)]], RankingAssigner(), (5, 6), **given)


def wide_maps(images=1):
    return [torch.zeros(images, 3, 2, 4), torch.zeros(images, 4, 1, 2)]


def test_boxes_and_scores_by_hand():
    head = constant(
        two_levels(),
        [[0.5, -0.25, LN2, 0.0, 0.0, 0.0, 9.0, -9.0], [0.0, 1.0, -LN2, 0.0]],
        [[0.0, LN3, -LN3, 0.0], [LN3, LN3]],
    )
    boxes, scores = head.candidates(wide_maps(), WIDE)
    assert boxes.shape == (1, 18, 4) and scores.shape == (1, 18, 2)
    expected = {
        0: [4.0, 0, 12, 4],  # 4x4 at (4, 4): + 4 px, - 2 px, twice as wide: centre (8, 2), 8x4
        14: [28.0, 8, 32, 12],  # the same at (28, 12): centre (32, 10), cut at the width
        1: [0.0, 3.5, 32, 4.5],  # 8x16 at (4, 4): 128 wide and 1 high, cut at both sides
        16: [0.0, 16, 16, 16],  # 32x16 at (8, 8): 16 px down and half as wide: (0, 16) to (16, 32), cut at the height
        17: [16.0, 16, 32, 16],  # the same at (24, 8)
    }
    for row, box in expected.items():
        assert_close(boxes[0, row], torch.tensor(box), msg=lambda m, row=row: f"{row}: {m}")
    assert_close(scores[0, :3], torch.tensor([[0.5, 0.75], [0.25, 0.5], [0.5, 0.75]]))
    assert_close(scores[0, 16:], torch.full((2, 2), 0.75))


def test_anchors_are_at_the_middle_of_their_cells():
    first, second = two_levels().anchors(wide_maps(), WIDE)
    assert first.shape == (16, 4) and second.shape == (2, 4)
    assert_close(first[:4], torch.tensor([[2.0, 2, 6, 6], [0, -4, 8, 12], [10, 2, 14, 6], [8, -4, 16, 12]]))
    assert_close(first[8], torch.tensor([2.0, 10, 6, 14]))  # the second row of four cells begins
    assert_close(second, torch.tensor([[-8.0, 0, 24, 16], [8, 0, 40, 16]]))


def test_the_prior_by_hand():
    """640 px hold 80 * 80 * 2 + 40 * 40 = 14,400 anchors: 10 positives of 2 classes are a share of 1 / 2,880 each."""
    head = YoloHead((3, 4), (8, 16), 2, [[(4, 4), (8, 16)], [(32, 16)]], RankingAssigner(), (400, 400), {"iou": 1.0})
    for box, classes in zip(head.box_branch, head.class_branch, strict=True):
        assert_close(classes[-1].bias, torch.full_like(classes[-1].bias, -7.965546))  # -ln 2880
        assert (box[-1].bias == 0).all()
        assert 0.009 < box[-1].weight.std() < 0.011 and box[-1].weight.mean().abs() < 0.001
        assert box[0].bn.eps == classes[0].bn.eps == 1e-3  # upstream's
    head.reset_bias(objects_per_image=28.8, reference=320)  # 3,600 anchors: 1 / 250 each
    assert_close(head.class_branch[0][-1].bias, torch.full((4,), -5.521461))  # -ln 250


# One level of 2x2 cells of 8 px with one anchor of 8x8: predicted are the cells themselves, scores .5 and .25.
SIZE = (16, 16)
TARGETS = [
    {"boxes": torch.tensor([[0.0, 0, 8, 4]]), "labels": torch.tensor([1])},  # half of the first cell
    {"boxes": torch.tensor([[8.0, 0, 16, 8], [0, 8, 8, 10]]), "labels": torch.tensor([0, 1])},  # all; a quarter
]
GT_INDEX = ([0, -1, -2, -1], [-1, 0, 1, -1])


def one_level(*gt_index, **more):
    assigner = Fixed(*(gt_index or GT_INDEX))
    given = {"box_loss": {"iou": 1.0}, "quality": "iou", **more}
    return constant(YoloHead((3,), (8,), 2, [[(8, 8)]], assigner, (4,), **given), [[0.0] * 4], [[0.0, -LN3]])


def losses(head, targets=TARGETS):
    return head.losses([torch.zeros(len(targets), 3, 2, 2)], targets, SIZE)


# Class loss of an anchor: ln 2 for class 0; for class 1 q ln 4 + (1 - q) ln(4/3), q its quality, 0 for background.
BACKGROUND = LN2 + LN4_3
HALF, QUARTER = LN2 + 0.5 * 2 * LN2 + 0.5 * LN4_3, LN2 + 0.25 * 2 * LN2 + 0.75 * LN4_3
WHOLE = BACKGROUND  # the object of class 0, q = 1: ln 2 either way


def test_losses_by_hand():
    """Qualities .5, 1, .25, so the norm is 1.75. The ignored anchor adds nothing."""
    found = losses(one_level())
    assert list(found) == ["box", "cls"]
    assert_close(found["box"].item(), (0.5 * 0.5 + 0 * 1 + 0.75 * 0.25) / 1.75)
    assert_close(found["cls"].item(), (HALF + WHOLE + QUARTER + 4 * BACKGROUND) / 1.75)


def test_quality_one_by_hand():
    """All three positives count alike, and each learns the score 1: ln 4 more than nothing, less ln(4/3)."""
    found = losses(one_level(quality="one"))
    assert_close(found["box"].item(), (0.5 + 0 + 0.75) / 3)
    assert_close(found["cls"].item(), (2 * (LN2 + 2 * LN2) + WHOLE + 4 * BACKGROUND) / 3)


def test_gains():
    found = losses(one_level(gains={"box": 3.0, "cls": 0.5}))
    assert_close(found["box"].item(), 3 * 0.25)
    assert_close(found["cls"].item(), 0.5 * (HALF + WHOLE + QUARTER + 4 * BACKGROUND) / 1.75)
    assert_close(losses(one_level(gains={"cls": 2.0}))["box"].item(), 0.25)  # what is not given is 1


def test_class_weights_count_at_positives_only():
    """Class 0 counts 3, class 1 counts 2, the background 1; the box loss and the norm do not change."""
    head = one_level()
    head.class_weights = torch.tensor([3.0, 2.0])
    found = losses(head)
    assert_close(found["box"].item(), 0.25)
    assert_close(found["cls"].item(), (2 * HALF + 3 * WHOLE + 2 * QUARTER + 4 * BACKGROUND) / 1.75)
    assert not [name for name in head.state_dict() if "class_weights" in name]


def test_norm_is_at_least_one():
    """The one object of image 0 has quality .5, which is no divisor."""
    found = losses(one_level(GT_INDEX[0]), TARGETS[:1])
    assert_close(found["box"].item(), 0.5 * 0.5)
    assert_close(found["cls"].item(), HALF + 2 * BACKGROUND)


def test_no_gradient_through_the_quality_target():
    """IoU = 16 / (64 e^(tw + th)) = .25 at 0; (1 - IoU) * .25 rises by .25 * .25 with tw and th.

    If the quality learnt too, it would be (1 - 2 * .25) * -.25; and the class loss would move the box.
    """
    head = one_level([0, -1, -1, -1])
    found = losses(head, [{"boxes": torch.tensor([[2.0, 2, 6, 6]]), "labels": torch.tensor([0])}])
    assert_close(found["box"].item(), 0.75 * 0.25)
    last = head.box_branch[0][-1]
    found["box"].backward(retain_graph=True)
    assert_close(last.bias.grad, torch.tensor([0.0, 0.0, 0.0625, 0.0625]))
    last.bias.grad = None
    found["cls"].backward()
    assert last.bias.grad is None


# Half as high around the same centre: IoU .5; half the sides differ by (0, 2) px, so NWD = e^(-2 / C), .5 for this C.
SLIM = [{"boxes": torch.tensor([[0.0, 2, 8, 6]]), "labels": torch.tensor([0])}]
C = 2 / LN2


@pytest.mark.parametrize(
    ("weights", "distance"),
    [
        ({"iou": 1.0}, 0.5),
        ({"nwd": 1.0}, 0.5),
        ({"iou": 0.5, "nwd": 3.0}, 1.75),
        ({"iou": 0.0, "nwd": 1.0}, 0.5),
        ({}, 0),
    ],
)
def test_box_loss_is_a_weighted_sum_of_distances(weights, distance):
    found = losses(one_level([0, -1, -1, -1], box_loss=weights, quality="one", constant=C), SLIM)
    assert_close(found["box"].item(), float(distance), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("scale", "nwd"), [(1, 0.5), (2, 0.7071)])
def test_constant_of_the_nwd(scale, nwd):
    """In the quality, e^(-2 / C), and in the distance, 1 - that; 12.7 px if not given."""
    more = {"box_loss": {"nwd": 1.0}, "quality": "nwd"}
    found = losses(one_level([0, -1, -1, -1], constant=scale * C, **more), SLIM)
    assert_close(found["box"].item(), (1 - nwd) * nwd, atol=1e-4, rtol=0)
    found = losses(one_level([0, -1, -1, -1], **more), SLIM)  # e^(-2 / 12.7) = .8543
    assert_close(found["box"].item(), (1 - 0.8543) * 0.8543, atol=1e-4, rtol=0)


def test_what_the_assigner_is_asked():
    region = torch.tensor([[0.0, 8, 8, 16]])
    head = one_level()
    losses(head, [{**TARGETS[0], "ignore": region}, TARGETS[1]])
    asked = head.assigner.asked
    assert asked["maps"] == [(2, 2)] and not asked["inside_only"]
    assert asked["boxes"][1] is TARGETS[1]["boxes"]
    assert asked["ignore"][0] is region and asked["ignore"][1] is None


def test_losses_of_nothing_have_a_gradient():
    """All 8 anchors are background, and nothing divides."""
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    head = one_level([-1] * 4, [-1] * 4)
    found = losses(head, [empty] * 2)
    assert found["box"] == 0
    assert_close(found["cls"].item(), 8 * BACKGROUND)
    sum(found.values()).backward()
    assert_close(head.class_branch[0][-1].bias.grad, torch.tensor([8 * 0.5, 8 * 0.25]))  # the scores


def test_float32_whatever_the_precision():
    head = one_level()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [*losses(head).values(), *head.candidates([torch.zeros(1, 3, 2, 2)], SIZE)]
    assert {x.dtype for x in found} == {torch.float32}
    assert_close(found[0].item(), 0.25)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"quality": "both"}, r"quality=both: unknown\. Choices: one, iou, nwd"),
        ({"gains": {"box": 1.0, "obj": 1.0}}, r"gains: unknown obj\. Choices: box, cls"),
        ({"gains": {"box": "abc"}}, r"gains=\{'box': 'abc'\}: expected a number for each of some of box, cls"),
        ({"gains": 3}, r"gains=3: expected a number"),
        ({"gains": {"box": -1.0}}, r"gains\.box=-1\.0: expected a number of at least 0"),
        ({"box_loss": {"ciuo": 1.0}}, r"box_loss: unknown ciuo\. Choices: .*ciou"),
        ({"constant": 0}, r"constant=0: expected a number above 0"),
        ({"constant": -1.5}, r"constant=-1\.5: expected a number above 0"),
        ({"hidden": (4, 0)}, r"hidden=\(4, 0\): expected whole numbers of at least 1"),
        ({"hidden": (4,)}, "anchors and hidden: they need one entry per level, 2"),
        ({"anchors": [[(4, 4)]]}, "anchors and hidden: they need one entry per level, 2"),
    ],
)
def test_mistakes_are_told(wrong, says):
    given = {"anchors": [[(8, 8)], [(16, 16)]], "hidden": (4, 4), "box_loss": {"iou": 1.0}, **wrong}
    with pytest.raises(ValueError, match=says):
        YoloHead((3, 3), (8, 16), 2, assigner=RankingAssigner(), **given)


def test_a_constant_below_a_pixel_is_one():
    assert one_level(constant=0.5).constant == 0.5


@pytest.mark.parametrize("core", [(16, 8, 72, 100), (0, 0, 128, 120), (40, 40, 44, 48), (17, 41, 30, 47)])
def test_candidates_of_a_core_are_those_of_the_whole(core):
    """Of maps of 16 x 15 and 8 x 8 cells; in (17, 41, 30, 47) no cell of 8 px begins in y, nor one of 16."""
    torch.manual_seed(0)
    head, size = two_levels().eval(), (120, 128)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    maps = [torch.randn(2, 3, 15, 16), torch.randn(2, 4, 8, 8)]
    logits, deltas = (flat(x, n) for x, n in zip(head(maps), (2, 4), strict=True))
    owned = torch.cat(head.owned(maps, size, core))
    anchors, strides = head.lattice(maps, size)
    boxes, scores = head.candidates(maps, size, core)
    assert int(owned.sum()) == {16: 7 * 12 * 2 + 4 * 6, 0: 15 * 16 * 2 + 8 * 8, 40: 2, 17: 0}[core[0]]
    assert_close(boxes, head.coder.decode(anchors[owned], deltas[:, owned], strides[owned]))
    assert_close(scores, logits[:, owned].sigmoid())


@pytest.mark.parametrize("core", [(16, 8, 72, 100), (0, 0, 128, 120)])
def test_boxes_of_a_core_are_those_of_the_whole_where_a_class_scores_more(core, monkeypatch):
    """Few of each level, at its edges too: there the box branch sees their patches, never a level."""
    torch.manual_seed(0)
    monkeypatch.setattr(yolo, "PATCHES", 1)
    head, size = two_levels().eval(), (120, 128)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    maps = [torch.randn(2, 3, 15, 16), torch.randn(2, 4, 8, 8)]
    boxes, scores = head.candidates(maps, size, core)
    shown = []
    for branch in head.box_branch:
        branch.register_forward_pre_hook(lambda _, given: shown.append(tuple(given[0].shape)))
    least = scores[..., 0].flatten().sort(descending=True).values[6].item(), scores[..., 1].max().item()
    fewer, same = head.candidates(maps, size, core, least)
    wanted = scores[..., 0] > least[0]
    assert int(wanted.sum()) == 6 and torch.equal(same, scores)
    assert_close(fewer[wanted], boxes[wanted])
    assert not fewer[~wanted].any()
    assert {shape[2:] for shape in shown} == {(3, 3)} and sum(shape[0] for shape in shown) <= 6
    monkeypatch.setattr(yolo, "PATCHES", 4)
    shown.clear()
    assert_close(head.candidates(maps, size, core, least)[0], fewer)
    assert {shape[0] for shape in shown} - {0} == {4}  # the last of a level are filled up


def test_boxes_at_some_anchors_are_those_of_all():
    """Also where cells lie at the edge, two anchors share a cell, and one is asked for twice."""
    torch.manual_seed(0)
    head, maps = two_levels().eval(), [torch.rand(2, 3, 2, 4), torch.rand(2, 4, 1, 2)]
    for branch in head.box_branch:
        layer = branch[0]
        layer.conv, layer.forward = fuse_conv_and_bn(layer.conv, layer.bn), layer.forward_fuse
    image, row = torch.tensor([0, 1, 1, 0, 1, 1, 0]), torch.tensor([0, 3, 2, 15, 16, 17, 0])
    with torch.no_grad():
        expected = head.boxes(maps, WIDE)[image, row]
        assert_close(head.boxes_at(maps, WIDE, image, row), expected)
        assert head.boxes_at(maps, WIDE, image[:0], row[:0]).shape == (0, 4)
    assert len(expected.unique(dim=0)) == 6
