"""DeltaCoder by hand, against the official figures and as its own inverse; StrideCoder by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tinyyolo.boxes.coders import DeltaCoder, StrideCoder

OFFICIAL = np.load(Path(__file__).parent.parent / "parity/assign_boxes.npz")
STDS = {
    "rpn": (1, 1, 1, 1),
    "rcnn1": (0.1, 0.1, 0.2, 0.2),
    "rcnn2": (0.05, 0.05, 0.1, 0.1),
    "rcnn3": (0.033, 0.033, 0.067, 0.067),
}


@pytest.mark.parametrize("stage", STDS)
def test_equal_to_official_code(stage):
    coder = DeltaCoder(stds=STDS[stage])
    anchors, objects, deltas = (torch.from_numpy(OFFICIAL[f"coder_{key}"]) for key in "PGD")
    expected = torch.from_numpy(OFFICIAL[f"coder_{stage}_enc"])
    assert_close(coder.encode(anchors, objects), expected, atol=1e-6, rtol=1e-6)
    expected = torch.from_numpy(OFFICIAL[f"coder_{stage}_dec"])
    assert_close(coder.decode(anchors, deltas, (800, 800)), expected, atol=1e-6, rtol=1e-6)


def test_round_trip():
    torch.manual_seed(0)
    anchors, objects = (torch.cat((c, c + 1 + 30 * torch.rand(50, 2)), 1) for c in 100 * torch.rand(2, 50, 2))
    coder = DeltaCoder((0.1, 0, 0, -0.2), STDS["rcnn3"])
    assert_close(coder.decode(anchors, coder.encode(anchors, objects)), objects, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_growth_is_bounded_on_both_sides(sign):
    box = DeltaCoder().decode(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, sign * 99, sign * 4.2]]))
    bound = math.log(1000 / 16)
    assert_close((box[:, 2:] - box[:, :2]), 16 * torch.tensor([[math.exp(sign * bound)] * 2]), atol=1e-3, rtol=0)


def test_clips_to_the_image_and_only_when_told():
    anchors, deltas = torch.tensor([[-4.0, -4, 12, 30]]), torch.zeros(1, 4)
    assert_close(DeltaCoder().decode(anchors, deltas, (20, 10)), torch.tensor([[0.0, 0, 10, 20]]))
    assert_close(DeltaCoder().decode(anchors, deltas), anchors)


def test_one_box_per_class():
    anchors, deltas = torch.tensor([[0.0, 0, 8, 8], [8.0, 8, 16, 16]]), torch.randn(2, 3, 4) / 9
    each = torch.stack([DeltaCoder().decode(anchors, deltas[:, c]) for c in range(3)], 1)
    assert_close(DeltaCoder().decode(anchors[:, None], deltas), each)


ANCHOR = torch.tensor([[10.0, 20, 18, 36]])  # centre (14, 28), sides 8 and 16
LN2 = math.log(2)


def test_deltas_by_hand():
    """Centre (16, 30) is a quarter of 8 to the right and an eighth of 16 down; sides 4 and 32 are half and twice."""
    deltas = DeltaCoder().encode(ANCHOR, torch.tensor([[14.0, 14, 18, 46]]))
    assert_close(deltas, torch.tensor([[0.25, 0.125, -LN2, LN2]]))
    means, stds = (0.25, 0.025, -LN2, 0.0), (0.5, 0.1, 1.0, 0.2)
    deltas = DeltaCoder(means, stds).encode(ANCHOR, torch.tensor([[14.0, 14, 18, 46]]))
    assert_close(deltas, torch.tensor([[0.0, 1.0, 0.0, 5 * LN2]]))


def test_boxes_by_hand():
    """2 px to the right, 2 px up, twice as wide, half as high: centre (16, 26), sides 16 and 8."""
    expected = torch.tensor([[8.0, 22, 24, 30]])
    assert_close(DeltaCoder().decode(ANCHOR, torch.tensor([[0.25, -0.125, LN2, -LN2]])), expected)
    normalised = torch.tensor([[1.0, -2.0, LN2, -3 * LN2]])
    assert_close(DeltaCoder((0.0, 0.125, 0.0, LN2 / 2), (0.25, 0.125, 1.0, 0.5)).decode(ANCHOR, normalised), expected)


def test_the_bound_is_a_setting():
    box = DeltaCoder(clip=0.5).decode(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 0.7, -0.7]]))
    assert_close(box[:, 2:] - box[:, :2], torch.tensor([[26.379541, 9.704491]]))  # 16 * e^.5 and 16 * e^-.5


@pytest.mark.parametrize("leading", [(), (1,), (2, 3)])
def test_any_leading_dimensions(leading):
    anchors, objects = ANCHOR[0].expand(*leading, 4), torch.tensor([14.0, 14, 18, 46]).expand(*leading, 4)
    deltas = DeltaCoder().encode(anchors, objects)
    assert_close(deltas, torch.tensor([0.25, 0.125, -LN2, LN2]).expand(*leading, 4))
    assert_close(DeltaCoder().decode(anchors, deltas), objects)


def test_half_precision_is_computed_in_float32():
    """1025 + 1032 is no half, nor is any of these deltas after its std."""
    anchors = torch.tensor([[1025.0, 1025, 1032, 1032]]).half()
    objects = torch.tensor([[1026.0, 1025, 1031, 1032]]).half()
    coder = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
    deltas = coder.encode(anchors, objects)
    assert deltas.dtype == torch.float32
    assert_close(deltas, torch.tensor([[0.0, 0.0, 5 * math.log(5 / 7), 0.0]]), atol=1e-6, rtol=1e-6)
    assert_close(coder.decode(anchors, deltas), objects.float())
    rough = torch.tensor([[1.1, 0.3, 0.7, -0.7]]).half()
    assert_close(coder.decode(anchors, rough), coder.decode(anchors.float(), rough.float()), atol=0, rtol=0)
    strides = torch.tensor([[8.0]])
    found, plain = (
        StrideCoder().decode(a, d, strides) for a, d in ((anchors, rough), (anchors.float(), rough.float()))
    )
    assert found.dtype == torch.float32
    assert_close(found, plain, atol=0, rtol=0)


def test_degenerate_boxes_count_as_a_millionth_of_a_pixel():
    point = torch.tensor([[5.0, 5, 5, 5]])
    found = DeltaCoder().encode(point, torch.tensor([[5.0, 5, 9, 5]]))  # 2 px / 1e-6 px; ln(4 / 1e-6)
    assert_close(found, torch.tensor([[2e6, 0.0, 15.201805, 0.0]]))
    found = DeltaCoder().encode(torch.tensor([[0.0, 0, 8, 8]]), point)  # 1 px / 8 px; ln(1e-6 / 8)
    assert_close(found, torch.tensor([[0.125, 0.125, -15.894952, -15.894952]]))


STRIDE_CASES = {
    "moves in strides, not in anchors": ([0.5, -0.25, 0.0, 0.0], [14.0, 18, 22, 34]),  # 4 px right, 2 px up
    "grows by a factor": ([0.0, 0.0, LN2, -LN2], [6.0, 24, 22, 32]),
    "at most 16 times": ([0.0, 0.0, 2.9, 0.0], [-50.0, 20, 78, 36]),  # 8 -> 128
    "at least a sixteenth": ([0.0, 0.0, 0.0, -2.9], [10.0, 27.5, 18, 28.5]),  # 16 -> 1
}


@pytest.mark.parametrize("case", STRIDE_CASES)
def test_boxes_of_the_anchor_yolo_by_hand(case):
    deltas, expected = STRIDE_CASES[case]
    deltas, strides = torch.tensor([deltas]), torch.tensor([[8.0]])
    assert_close(StrideCoder().decode(ANCHOR, deltas, strides), torch.tensor([expected]))


def test_boxes_of_the_anchor_yolo_are_clipped_when_told():
    """x by the width 20, y by the height 30; without a size nothing is clipped."""
    deltas, strides = torch.tensor([[0.5, -0.25, 2.9, 0.0]]), torch.tensor([[8.0]])
    assert_close(StrideCoder().decode(ANCHOR, deltas, strides, (30, 20)), torch.tensor([[0.0, 18, 20, 30]]))
    assert_close(StrideCoder().decode(ANCHOR, deltas, strides), torch.tensor([[-46.0, 18, 82, 34]]))


def test_empty():
    coder = DeltaCoder()
    assert coder.encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert coder.decode(torch.zeros(0, 1, 4), torch.zeros(0, 3, 4), (8, 8)).shape == (0, 3, 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"means": (0, 0)},
        {"stds": (1, 1, 1)},
        {"stds": (1, 1, 0, 1)},
        {"means": (0, 0, math.nan, 0)},
        {"clip": 0},
        {"clip": -1.0},
    ],
)
def test_bad_settings_raise(arguments):
    with pytest.raises(ValueError, match=r"=.*: expected (4 numbers|a number above 0|numbers above)"):
        DeltaCoder(**arguments)
