"""Anchor-free heads by hand: losses, boxes, scores; no objects; who owns a candidate; learning."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision.ops import deform_conv2d

from tests.assigners.test_parity import OBJECTS
from tests.detectors.test_detectors import HW, POINTS, detector
from tinyyolo.assigners import HierarchicalAssigner, ThresholdAssigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import side_distances
from tinyyolo.boxes.similarity import pairwise_iou
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.heads.points.fcos import FCOSHead, centerness_of
from tinyyolo.heads.points.foveabox import FoveaHead
from tinyyolo.heads.points.reppoints import RepPointsHead

STRIDES, CHANNELS, SIZE = (8, 16), 4, (16, 32)
RANGES = [(-1, 64), (64, 128)]
LN2 = math.log(2)
OWN = {FCOSHead: {"ranges": RANGES}, FoveaHead: {"ranges": RANGES, "bases": [16, 32]}}
OWN |= {RepPointsHead: {"assigner": ThresholdAssigner("iou", 0.5, 0.4, 0)}}


def maps_of(value=0.0):
    """Of an image of 16 x 32 px: 2 x 4 and 1 x 2 cells."""
    return [torch.full((1, CHANNELS, 2, 4), value), torch.full((1, CHANNELS, 1, 2), value)]


def fresh(kind, inputs=CHANNELS, **more):
    more = {"channels": inputs, "convs": 1, "num_classes": 2, **OWN[kind], **more}
    return kind((inputs,) * 2, STRIDES, **more)


def head_of(kind, **more):
    """A head that says 0 everywhere: all weights and biases are."""
    head = fresh(kind, **more)
    for name, parameter in head.named_parameters():
        if "scale" not in name:
            nn.init.zeros_(parameter)
    return head


def target(*boxes, label=1):
    return [{"boxes": torch.tensor(boxes).view(-1, 4), "labels": torch.full((len(boxes),), label)}]


def test_fcos_losses_by_hand():
    """One positive, (4, 4), 4 px from all sides; boxes of 1 px to each side."""
    losses = head_of(FCOSHead).losses(maps_of(), target([0.0, 0, 8, 8]), SIZE)
    # 10 points x 2 classes at p = .5: the focal loss is .25 * ln 2 * (.25 of a positive, .75 of a negative)
    assert_close(losses["cls"].item(), 0.25 * LN2 * (0.25 + 19 * 0.75), rtol=1e-5, atol=0)
    assert_close(losses["box"].item(), math.log(16), rtol=1e-5, atol=0)  # 4 px² of 64
    assert_close(losses["centerness"].item(), LN2, rtol=1e-5, atol=0)


def test_fcos_by_priors_as_in_the_official_code():
    """The first of the 85 points that 27 objects have by RFLA; 42 of them lie so near to a side, or beyond it, that .01
    strides count."""
    spec = load_model_yaml("fcos-r50-rfla")["head"]
    grid = AnchorGrid(**{**spec["anchors"], "strides": tuple(spec["anchors"]["strides"])})
    rules = {key: value for key, value in spec["assigner"].items() if key != "type"}
    head = FCOSHead((1,) * 5, grid.strides, 8, anchors=grid, assigner=HierarchicalAssigner(**rules), strided=True)
    maps = [torch.zeros(1, 1, *side) for side in grid.map_sizes((800, 800))]
    objects = torch.from_numpy(OBJECTS["n27_int"])
    targets = [{"boxes": objects, "labels": torch.zeros(len(objects), dtype=torch.int64)}]
    (index,), (points, strides) = head.gt_index(maps, targets, (800, 800)), head.points(maps, (800, 800))
    positive = (index >= 0).nonzero().squeeze(1)
    assert len(positive) == 85 and positive[:4].tolist() == [219, 220, 319, 574] and not (index == -2).any()
    distances = side_distances(points[positive], objects[index[positive]]) / strides[positive]
    assert distances[2].tolist() == [0.625, 1.625, 1.5, -0.125] and distances.abs().sum() == 316.75
    found = centerness_of(distances, head.least)
    assert_close(found[:4], torch.tensor([0.54554, 0.46881, 0.050637, 0.5]), rtol=1e-4, atol=0)
    assert (found < 0.2).sum() == 42
    assert_close(found.sum().item(), 24.302309, rtol=1e-6, atol=0)


def test_fcos_takes_priors_and_their_assigner_together():
    with pytest.raises(ValueError, match="anchors and assigner: one without the other"):
        fresh(FCOSHead, assigner=HierarchicalAssigner())
    squares = AnchorGrid(STRIDES, sizes=[[(8, 8), (9, 9)]] * 2, center_offset=0.5)
    with pytest.raises(ValueError, match="anchors: expected one a cell"):
        fresh(FCOSHead, assigner=HierarchicalAssigner(), anchors=squares)
    with pytest.raises(ValueError, match="an assigner of its own"):
        fresh(FCOSHead, assigner=HierarchicalAssigner(), anchors=squares, radius=1.5)


def test_fcos_box_loss_is_weighted_by_centerness():
    """x 0..16, y 0..8: the points (4, 4) and (12, 4) have 4 and 12 px to left and right, 4 px up and down."""
    head = head_of(FCOSHead, strided=True, box_loss="diou")
    nn.init.constant_(head.conv_reg.bias, 0.5)  # strides: 4 px to every side
    losses = head.losses(maps_of(), target([0.0, 0, 16, 8]), SIZE)
    # 64 of 128 px², the centres 4 px apart, a hull of 16 x 8: 1 - .5 + 16 / 320
    assert_close(losses["box"].item(), 0.5 + 16 / 320, rtol=1e-5, atol=0)
    centre = math.sqrt(1 / 3)
    assert_close(losses["centerness"].item(), LN2, rtol=1e-5, atol=0)  # at 0 any target costs ln 2
    nn.init.constant_(head.conv_centerness.bias, 2.0)
    expected = math.log(1 + math.exp(2)) - 2 * centre
    again = head.losses(maps_of(), target([0.0, 0, 16, 8]), SIZE)
    assert_close(again["centerness"].item(), expected, rtol=1e-5, atol=0)


def test_fcos_scores_are_cut_before_the_centerness():
    head = head_of(FCOSHead, min_score=0.4)
    head.conv_cls.bias.data = torch.tensor([0.0, -1.0])  # .5 and .27
    nn.init.constant_(head.conv_centerness.bias, -3.0)
    boxes, scores = head.candidates(maps_of(), SIZE)
    assert scores.shape == (1, 20, 2)
    kept = scores[scores > 0]
    assert_close(kept, torch.full((10,), 0.5 * torch.tensor(-3.0).sigmoid().item()))
    assert (scores[..., 1] == 0).all()
    first = boxes[0, :8][scores[0, :8, 0] > 0]
    assert_close(first[0], torch.tensor([3.0, 3, 5, 5]))


@pytest.mark.parametrize("centerness_of_boxes", [False, True])
def test_centerness_comes_from_the_branch_that_is_said(centerness_of_boxes):
    head = head_of(FCOSHead, centerness_of_boxes=centerness_of_boxes)
    nn.init.ones_(head.conv_centerness.weight)
    nn.init.ones_(head.cls_convs[0].conv.bias)
    _, _, centerness = head(maps_of())
    assert (centerness[0].amax() > 0) is not centerness_of_boxes or centerness[0].amax() == 0
    assert bool((centerness[0] == 0).all()) is centerness_of_boxes


def test_foveabox_by_hand():
    """x 0..16, y 0..16: cells 2 * .5 * .6 - .5 = .1 to .9: none; 0..24, 0..16 with sigma 1: -.5 to 2.5, -.5 to 1.5."""
    head = head_of(FoveaHead, sigma=1.0)
    losses = head.losses(maps_of(), target([0.0, 0, 24, 16]), SIZE)
    points = [(x, y) for y in (4.0, 12.0) for x in (4.0, 12.0, 20.0)]
    far = [d for x, y in points for d in (x, y, 24 - x, 16 - y)]
    logs = [abs(math.log(max(d / 16, 1 / 16))) for d in far]
    smooth = sum(d * d / 0.22 if d < 0.11 else d - 0.055 for d in logs)
    assert_close(losses["box"].item(), smooth / 6, rtol=1e-5, atol=0)
    focal = 0.5**1.5 * LN2 * (6 * 0.4 + 14 * 0.6)  # gamma 1.5, alpha .4; 6 positives and an image
    assert_close(losses["cls"].item(), focal / 7, rtol=1e-5, atol=0)
    boxes, _ = head.candidates(maps_of(), SIZE)
    assert_close(boxes[0, 0], torch.tensor([0.0, 0, 20, 15]))  # 16 px around (4, 4), to a px before the end
    boxes, _ = head.candidates(maps_of(), SIZE, core=(0, 0, 8, 8))
    assert_close(boxes[0, 0], torch.tensor([-12.0, -12, 20, 20]))


def test_moments_make_the_box():
    """Points on a 3 x 3 grid one stride apart: mean 0, standard deviation sqrt(6 / 8); y at 2, twice as far apart."""
    head = head_of(RepPointsHead)
    y, x = 2 * head.taps[0, ::2, 0, 0] + 2, head.taps[0, 1::2, 0, 0]
    points = torch.stack((y, x), 1).flatten().requires_grad_()
    s = math.sqrt(0.75)
    box = head.moment_box(points)
    assert_close(box, torch.tensor([-s, 2 - 2 * s, s, 2 + 2 * s]))
    box[2].backward()
    assert_close(head.moment_transfer.grad, torch.tensor([0.01 * s, 0]))
    head.moment_transfer.data = torch.tensor([0.0, LN2])
    assert_close(head.moment_box(points), torch.tensor([-s, 2 - 4 * s, s, 2 + 4 * s]))


def test_reppoints_look_where_their_points_are():
    torch.manual_seed(0)
    head = head_of(RepPointsHead)
    for p in head.parameters():
        nn.init.normal_(p, std=0.5)
    x = torch.randn(2, CHANNELS, 5, 7, requires_grad=True)
    logits, first, refined = head([x])
    classes, _ = head.branches(x)
    where = first[0] - head.taps  # a tap at (y, x) of the kernel then lies at the point
    seen = deform_conv2d(classes, where, head.reppoints_cls_conv.weight, padding=1).relu()
    assert_close(logits[0], head.reppoints_cls_out(seen), rtol=1e-4, atol=1e-5)
    refined[0].sum().backward()
    through = head.reppoints_pts_init_out.weight.grad.clone()
    head.zero_grad()
    _, boxes = head.branches(x)
    init = head.reppoints_pts_init_out(head.reppoints_pts_init_conv(boxes).relu())
    moved = deform_conv2d(boxes.detach(), init - head.taps, head.reppoints_pts_refine_conv.weight, padding=1).relu()
    head.reppoints_pts_refine_out(moved).sum().backward()
    assert_close(through, 0.1 * head.reppoints_pts_init_out.weight.grad, rtol=1e-3, atol=1e-4)


def test_reppoints_losses_by_hand():
    """All points lie on the cells' corners: boxes without a side, which overlap nothing."""
    head = head_of(RepPointsHead)
    losses = head.losses(maps_of(), target([0.0, 0, 16, 8]), SIZE)
    # first stage: (8, 4) is nearest to (8, 0) or (8, 8) of stride 8, 32 px a unit: |d| of 8, 8 or 0, 8, 0 or 8
    small = [8 / 32, 8 / 32, 0, 8 / 32]
    assert_close(losses["init"].item(), 0.5 * sum(d - 0.055 if d else 0 for d in small), rtol=1e-5, atol=0)
    # second: best IoU 0 reaches min_positive 0, so that all 10 boxes are the object's
    assert_close(losses["cls"].item(), 0.25 * LN2 * (10 * 0.25 + 10 * 0.75) / 10, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("boxes", [[], [[-400.0, -400, 500, 500]]])
def test_no_objects_and_objects_outside_all_ranges(kind, boxes):
    head = head_of(kind)
    targets = [{"boxes": torch.tensor(boxes).view(-1, 4), "labels": torch.zeros(len(boxes), dtype=torch.int64)}]
    losses = head.losses(maps_of(1.0), targets, SIZE)
    assert losses["cls"] > 0 and all(torch.isfinite(x) for x in losses.values())
    if kind is not RepPointsHead:
        assert all(value == 0 for name, value in losses.items() if name != "cls")
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(("kind", "points"), [(FCOSHead, 64 + 16), (FoveaHead, 64 + 16), (RepPointsHead, 16 + 4)])
def test_whether_cells_beyond_a_smaller_image_learn_background(kind, points):
    """An image of 32 x 32 px in an input of 64 x 64: RepPoints alone leaves the cells beyond out, in both stages."""
    maps = [torch.zeros(1, CHANNELS, 8, 8), torch.zeros(1, CHANNELS, 4, 4)]
    (one,) = target(label=0)
    losses = head_of(kind).losses(maps, [{**one, "size_hw": torch.tensor([32, 32])}], (64, 64))
    # no object: points x 2 classes at p = .5, the focal loss of a negative is (1 - alpha) * .5^gamma * ln 2
    negative = 0.6 * 0.5**1.5 if kind is FoveaHead else 0.75 * 0.25
    assert_close(losses["cls"].item(), 2 * points * negative * LN2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", OWN)
def test_a_training_that_diverged_has_a_loss_that_says_so(kind):
    losses = head_of(kind).losses(maps_of(math.nan), target([0.0, 0, 16, 16]), SIZE)
    assert not sum(losses.values()).isfinite()


def test_a_point_that_is_ignored_learns_nothing():
    everything = torch.tensor([[0.0, 0, 32, 16]])
    for kind in OWN:
        losses = head_of(kind).losses(maps_of(), [{**target()[0], "ignore": everything}], SIZE)
        left = 0 if kind is not RepPointsHead else 20  # boxes without an area lie in no region
        assert_close(losses["cls"].item(), 0.25 * LN2 * 0.75 * left, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", POINTS)
def test_every_candidate_has_one_owner(name):
    """The cores of two halves find what the whole image does, but that their boxes may reach out of it."""
    model = detector(name, **{"head.pre_nms": 5000}).eval()
    nn.init.normal_(model.bbox_head.conv_cls.weight if "rep" not in name else model.bbox_head.reppoints_cls_out.weight)
    maps = model.features(torch.rand(1, 3, *HW, generator=torch.Generator().manual_seed(1)))
    _, whole = model.candidates(maps, HW)
    halves = [model.candidates(maps, HW, core) for core in ((0, 0, 72, HW[0]), (72, 0, HW[1], HW[0]))]
    scores = torch.cat([scores[0].amax(1) for _, scores in halves])
    assert_close(scores[scores > 0].sort().values, whole[0].amax(1).sort().values)


@pytest.mark.parametrize("kind", OWN)
def test_learns_and_then_finds_its_objects(kind):
    """On maps of noise, which are known by heart in the end: two objects of 96 x 128 px."""
    torch.manual_seed(0)
    head = fresh(kind, inputs=32, norm_groups=8)
    maps = [torch.randn(1, 32, 96 // s, 128 // s) for s in STRIDES]
    boxes = torch.tensor([[10.0, 10, 34, 34], [60, 40, 100, 80]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 0])}]
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    found = []
    for _ in range(60):
        total = sum(head.losses(maps, targets, (96, 128)).values())
        found.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert found[-1] < 0.5 * found[0], found
    ((predicted, scores, labels),) = Postprocess(score=0.2)(*head.candidates(maps, (96, 128)))
    for box, label in zip(boxes, (1, 0), strict=True):
        own = predicted[labels == label]
        assert pairwise_iou(box[None], own).amax() > 0.6, (predicted, scores, labels)


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("fcos-r18", {"head.ranges": [[0, 64]]}, "head.ranges: 1, but the neck has 5 levels"),
        ("fcos-r18", {"head.ranges": [[64, 0]] * 5}, "head.ranges=.*: expected a pair"),
        ("fcos-r18", {"head.box_loss": "ciou"}, "head.box_loss=ciou: unknown. Choices: iou, diou"),
        ("fcos-r18", {"head.radius": 0}, "head.radius=0: expected a number above 0"),
        ("fcos-r18", {"head.norm_groups": 7}, "head: num_channels .64. must be divisible by num_groups"),
        ("fcos-r18", {"head.prior": 1}, "head.prior=1: expected a number between 0 and 1"),
        ("fcos-r18", {"head.min_score": 2}, "head.min_score=2: expected a number from 0 to 1"),
        ("fcos-r18", {"neck.norm_groups": -1}, "neck.norm_groups=-1"),
        ("fcos-r18", {"backbone.style": "tf"}, "backbone.style=tf: choices are pytorch, caffe"),
        ("fcos-r18", {"normalize": {"mean": [0, 0, 0], "std": [1, 1, 1], "bgr": 1}}, "normalize.bgr=1: expected true"),
        ("foveabox-r50", {"head.bases": [16]}, "head.ranges and bases: they need one entry per level, 5"),
        ("foveabox-r50", {"head.sigma": 2}, "head.sigma=2"),
        ("reppoints-r50", {"head.scale": 0}, "head.scale=0"),
        ("reppoints-r50", {"head.assigner": None}, "head.assigner=null: expected a section"),
    ],
)
def test_mistakes_are_one_line(name, overrides, says):
    with pytest.raises(UserError, match=says) as caught:
        build_model(load_model_yaml(name, {"backbone.depth": 10, **overrides}))
    assert "\n" not in str(caught.value)
