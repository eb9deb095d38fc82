"""DeltaCoder against the official figures, and as its own inverse."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tinyyolo.boxes.coders import DeltaCoder

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


def test_half_precision_is_computed_in_float32():
    anchors, objects = (
        torch.tensor([[1000.0, 1000, 1008, 1008]]).half(),
        torch.tensor([[1001.0, 1000, 1007, 1008]]).half(),
    )
    deltas = DeltaCoder().encode(anchors, objects)
    assert deltas.dtype == torch.float32
    assert_close(DeltaCoder().decode(anchors, deltas), objects.float(), atol=1e-3, rtol=0)


def test_degenerate_boxes_stay_finite():
    point = torch.tensor([[5.0, 5, 5, 5]])
    assert bool(DeltaCoder().encode(point, torch.tensor([[5.0, 5, 9, 5]])).isfinite().all())
    assert bool(DeltaCoder().encode(torch.tensor([[0.0, 0, 8, 8]]), point).isfinite().all())


def test_empty():
    coder = DeltaCoder()
    assert coder.encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert coder.decode(torch.zeros(0, 1, 4), torch.zeros(0, 3, 4), (8, 8)).shape == (0, 3, 4)


@pytest.mark.parametrize(
    "arguments", [{"means": (0, 0)}, {"stds": (1, 1, 1)}, {"stds": (1, 1, 0, 1)}, {"clip": 0}, {"clip": -1.0}]
)
def test_bad_settings_raise(arguments):
    with pytest.raises(ValueError, match=r"means and stds|must be > 0"):
        DeltaCoder(**arguments)
