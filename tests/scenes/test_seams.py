"""A scene in windows is the whole scene, bit for bit, as long as the halo covers the network's field.

The network has small integer weights, so that its sums are exact in float32 whatever way a convolution takes, and a
sigmoid of straight lines, as torch's differs in the last bit between the middle and the end of a tensor.
"""

import numpy as np
import pytest
import torch
from torch import nn

from tinyyolo.assigners import RankingAssigner
from tinyyolo.detectors.one_stage import OneStage
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.heads.yolo import YoloHead
from tinyyolo.scenes import sweep as sweeping
from tinyyolo.scenes.sweep import gathered, sweep
from tinyyolo.scenes.windows import Span, Window, windows

STRIDES = (4, 8)
FIELD = 32  # px to either side: see `Maps`
RULES = Postprocess(score=0.1, iou=0.5, votes=3)


class Whole(nn.Conv2d):
    """A convolution whose weights are -1, 0 and 1, most of them 0."""

    def reset_parameters(self):
        rng = torch.Generator().manual_seed(sum(self.weight.shape))
        self.weight.data = (torch.rand(self.weight.shape, generator=rng) * 9).floor().clamp(max=2) - 1
        self.weight.data = torch.where(torch.rand(self.weight.shape, generator=rng) < 0.3, self.weight.data, 0.0)
        if self.bias is not None:
            self.bias.data.zero_()


class Maps(nn.Module):
    """Maps of strides 4 and 8 by three 3 x 3 convolutions of steps 4, 1 and 2.

    The first sees 1 px around its pixel, the second another 4, the third another 4: with the head's 3 x 3 on maps of
    stride 8 it is 1 + 4 + 4 + 8 = 17 px on one side; downwards a cell of 8 px begins 8 px earlier: less than FIELD.
    """

    strides, channels, channels_last = STRIDES, (4, 4), False

    def __init__(self):
        super().__init__()
        self.first, self.second = Whole(3, 4, 3, stride=4, padding=1), Whole(4, 4, 3, padding=1)
        self.third = Whole(4, 4, 3, stride=2, padding=1)

    def forward(self, x):
        fine = self.second(self.first((x * 255).round()).relu()).relu()
        return [fine, self.third(fine).relu()]


class Levels(nn.Identity):
    strides, channels = STRIDES, (4, 4)


@pytest.fixture(scope="module")
def detector():
    anchors = [[(6.0, 8.0)], [(16.0, 12.0), (24.0, 40.0)]]
    head = YoloHead((4, 4), STRIDES, 3, anchors, RankingAssigner(), hidden=(4, 4), box_loss={"nwd": 1})
    head.class_branch = nn.ModuleList(Whole(4, a * 3, 3, padding=1) for a in head.grid.per_cell)
    head.box_branch = nn.ModuleList(Whole(4, a * 4, 1) for a in head.grid.per_cell)
    for branch, a in zip(head.box_branch, head.grid.per_cell, strict=True):
        branch.weight.data.view(a, 4, 4)[:, 2:] = 0  # sides stay the anchors': exp() of others is not exact
        branch.weight.data /= 8
    for branch in head.class_branch:
        branch.weight.data /= 64
        branch.bias.data.fill_(-4.5)
    return OneStage(Maps(), Levels(), head, num_classes=3).eval()


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "sigmoid", lambda logits: (logits / 8 + 0.5).clamp(0, 1))


def net_of(detector):
    def net(images, core):
        with torch.no_grad():
            found = detector.candidates(detector.features(images), tuple(images.shape[-2:]), core, RULES.least)
        return [RULES.candidates(*one) for one in zip(*found, strict=True)]

    return net


def detections(detector, image, parts, batch=3):
    def read(window):
        return image[window.y.start : window.y.stop, window.x.start : window.x.stop]

    swept = sweep(parts, read, net_of(detector), image.shape[:2], 8, batch)
    return united([found for part in swept for _, found in part])


def united(parts):
    found, able = gathered(parts, RULES.able)
    return RULES.of_candidates(*found, able=able)


def scene(height, width, seed=0):
    """A dark picture with a crowd of bright rectangles."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 3, (height, width, 3), dtype=np.uint8)
    for x, y in rng.integers(0, (width, height), (height * width // 400 + 1, 2)):
        image[y : y + 6, x : x + 9] = rng.integers(3, 9, 3)
    return image


def whole(image):
    height, width = image.shape[:2]
    return [Window(Span(0, width, 0, width), Span(0, height, 0, height))]


def same(found, expected):
    """Whether two sets of detections are the same to the bit, and how many there are."""
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), len(expected[1])


@pytest.mark.parametrize("tile", (256, 320, 640))
@pytest.mark.parametrize("size_hw", ((700, 300), (133, 1001), (1, 900), (900, 1), (655, 7), (321, 320)))
def test_windows_are_the_whole_scene(detector, tile, size_hw):
    image = scene(*size_hw)
    expected = detections(detector, image, whole(image))
    equal, count = same(detections(detector, image, windows(size_hw, tile, FIELD, 8)), expected)
    assert equal and count > (size_hw[0] * size_hw[1]) // 2000


def test_order_and_batch_change_nothing(detector):
    image = scene(500, 610)
    parts = windows((500, 610), 128, FIELD, 8)
    expected = detections(detector, image, parts, batch=1)
    assert same(detections(detector, image, parts[::-1], batch=4), expected)[0]
    middle = len(parts) // 2
    assert same(detections(detector, image, parts[middle:] + parts[:middle], batch=2), expected)[0]


def broken(name, size_hw, monkeypatch):
    """Windows that break one rule."""
    good = windows(size_hw, 128, FIELD, 8)
    if name == "halo too small":
        return windows(size_hw, 128, 8, 8)
    if name == "off the lattice":
        return [Window(Span(max(w.x.start - 4, 0), *w.x[1:]), w.y) for w in good]
    if name == "moved back":  # the last window as long as the others, as slicers do
        return [Window(Span(max(w.x.stop - 128, 0), *w.x[1:]), w.y) for w in good]
    if name == "two owners":
        return [Window(w.x, Span(*w.y[:2], max(w.y.core_start - 8, 0), w.y.core_stop)) for w in good]
    if name == "no owner":
        return [Window(w.x, Span(*w.y[:3], w.y.core_stop - 8)) for w in good]
    if name == "boxes cut at the window":
        monkeypatch.setattr(sweeping, "clip", cut)
    if name == "padded":  # beyond the end of the scene
        return [Window(Span(w.x.start, w.x.start + 128, *w.x[2:]), w.y) for w in good]
    return good


def cut(boxes, size_hw):
    """Boxes of a window cut at its core's surroundings: nothing reaches over a multiple of 96 px."""
    low = (boxes[:, :2] / 96).floor() * 96
    return torch.cat([boxes[:, :2], torch.minimum(boxes[:, 2:], low + 96)], 1)


@pytest.mark.parametrize(
    "name",
    ("halo too small", "off the lattice", "moved back", "two owners", "no owner", "boxes cut at the window", "padded"),
)
def test_each_rule_counts(detector, name, monkeypatch):
    image = scene(300, 404)
    expected = detections(detector, image, whole(image))
    parts = broken(name, (300, 404), monkeypatch)
    image = np.pad(image, ((0, 0), (0, 128), (0, 0)))  # what "padded" reads
    read = lambda w: image[w.y.start : w.y.stop, w.x.start : w.x.stop]  # noqa: E731
    swept = sweep(parts, read, net_of(detector), (300, 404), 8, 2)
    found = united([part for batch in swept for _, part in batch])
    assert not (found[1].shape == expected[1].shape and same(found, expected)[0])
