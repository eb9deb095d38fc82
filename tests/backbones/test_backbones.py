"""Backbones: shapes, names, what is frozen, and batch norm in training."""

import pytest
import torch
import torchvision
from torch import nn

from tinyyolo.backbones.darknet import Darknet
from tinyyolo.backbones.darknet53 import Darknet53
from tinyyolo.backbones.hrnet import HRNet
from tinyyolo.backbones.resnet import DEPTHS, ResNet
from tinyyolo.backbones.vgg import VGG
from tinyyolo.detectors.weights import load_backbone

FACTORIES = {"resnet": lambda **more: ResNet(18, **more), "hrnet": lambda **more: HRNet(18, **more)}
SINGLES = {"darknet53": lambda: Darknet53(4, (1,) * 5), "vgg": lambda: VGG(13, 4)}  # three maps, two maps


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("size", [(32, 64), (40, 72)])
def test_maps_have_the_stated_channels_and_strides(kind, size):
    backbone = FACTORIES[kind]().eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(2, 3, *size))
    assert len(maps) == len(backbone.channels) == len(backbone.strides) == 4
    for x, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert tuple(x.shape) == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("kind", SINGLES)
@pytest.mark.parametrize("size", [(64, 64), (40, 72)])
def test_maps_of_one_stage_backbones(kind, size):
    backbone = SINGLES[kind]().eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(2, 3, *size))
    assert len(maps) == len(backbone.channels) == len(backbone.strides)
    for x, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert tuple(x.shape) == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("pools", [0, 1])
def test_how_far_the_last_map_of_darknet_looks(pools):
    """A cell reads 151 px each way from 32 j, by hand from its last convolution to the stem: 2 cells of 32, 1 of 16,
    2 of 16, 1 of 8, 2 of 8, 1 of 4, 2 of 4, 1 of 2 and 1 px; a pool of 5 x 5 two cells, 64 px, more."""
    torch.manual_seed(0)
    backbone = Darknet((4, 8, 8, 8, 8), (1, 1, 1, 1), pools=pools).eval()
    image = torch.rand(1, 3, 32, 1024)
    other = image.clone()
    other[..., 512] += 100.0  # a column of pixels
    with torch.no_grad():
        changed = (backbone(image)[-1] != backbone(other)[-1]).any(dim=1)[0, 0].nonzero().flatten().tolist()
    seen = [j for j in range(32) if abs(32 * j - 512) <= 151]
    assert seen == [*range(12, 21)] and (changed == seen) == (pools == 0)
    assert set(changed) >= set(seen) and all(abs(32 * j - 512) <= 151 + 64 * pools for j in changed)


def test_vgg_is_torchvisions():
    torch.manual_seed(0)
    ours, theirs = VGG(11).eval(), torchvision.models.vgg11().eval()
    report = load_backbone(ours, theirs.state_dict())  # fc6 and fc7 are convolutions here, and start anew
    assert report.kept == ("features.21.weight", "features.21.bias", "features.23.weight", "features.23.bias")
    assert len(report.unused) == 6 and report.unused[0] == "classifier.0.weight"
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        fine, coarse = ours(image)
        torch.testing.assert_close(fine, theirs.features[:15](image))  # ReLU before the fourth pooling
        x = theirs.features[:20](image)  # ReLU before the fifth, which is 3x3 here
        expected = ours.features[21:](nn.functional.max_pool2d(x, 3, 1, 1))
    torch.testing.assert_close(coarse, expected)


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_is_torchvisions(depth):
    ours, theirs = ResNet(depth).eval(), getattr(torchvision.models, f"resnet{depth}")().eval()
    state = {name: x for name, x in theirs.state_dict().items() if not name.startswith("fc.")}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for found, stage in zip(ours(image), (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True):
            x = stage(x)
            torch.testing.assert_close(found, x, rtol=0, atol=0)


def test_caffe_strides_in_the_first_convolution_and_its_norms_never_learn():
    ours = ResNet(50, frozen_stages=1, style="caffe")
    blocks = [stage[0] for stage in ours.stages]
    assert [(b.conv1.stride[0], b.conv2.stride[0]) for b in blocks] == [(1, 1), (2, 1), (2, 1), (2, 1)]
    assert all(b.conv1.stride == b.conv2.stride == (1, 1) for stage in ours.stages for b in stage[1:])
    ours.requires_grad_(True).train()
    norms = [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53 and not any(m.training or m.weight.requires_grad or m.bias.requires_grad for m in norms)
    still = [name for name, p in ours.named_parameters() if not p.requires_grad]
    assert len(still) == 117 and "layer2.0.conv1.weight" not in still


@pytest.mark.parametrize(
    ("stages", "frozen"),
    [
        (-1, set()),
        (0, {"conv1", "bn1"}),
        (1, {"conv1", "bn1", "layer1"}),
        (4, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_frozen_stages(stages, frozen):
    backbone = ResNet(18, frozen_stages=stages)
    backbone.requires_grad_(True)  # as a trainer does before it starts
    backbone.train()
    assert {name.split(".")[0] for name, p in backbone.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("norm_eval", [True, False])
def test_batch_norm_statistics_move_only_when_asked(kind, norm_eval):
    backbone = FACTORIES[kind](norm_eval=norm_eval, **({"frozen_stages": -1} if kind == "resnet" else {})).train()
    before = {name: x.clone() for name, x in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    same = all(torch.equal(x, before[name]) for name, x in backbone.named_buffers())
    assert same == norm_eval
    learnt = [m.weight.requires_grad for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(learnt)


def test_frozen_stages_keep_their_statistics_when_the_rest_moves():
    backbone = ResNet(18, frozen_stages=1, norm_eval=False).train()
    backbone(torch.randn(2, 3, 32, 32))
    assert backbone.bn1.num_batches_tracked == 0 and backbone.layer1[0].bn1.num_batches_tracked == 0
    assert backbone.layer2[0].bn1.num_batches_tracked == 1


def test_every_parameter_of_hrnet_learns():
    backbone = HRNet(18).train()
    sum(x.square().mean() for x in backbone(torch.randn(1, 3, 32, 32))).backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None or p.grad.norm() == 0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ResNet(19), "depth=19: choices are " + ", ".join(map(str, DEPTHS))),
        (lambda: ResNet(18, frozen_stages=5), "frozen_stages=5"),
        (lambda: VGG(12), "depth=12: choices are 11, 13, 16, 19"),
        (lambda: Darknet53(4, (1, 1)), r"blocks=\[1, 1\]: expected five numbers"),
        (lambda: Darknet(pools=-1), "pools=-1: expected a whole number of at least 0"),
        (lambda: HRNet(31), "width=31: choices are 18, 32, 48"),
    ],
)
def test_bad_values_name_the_choices(make, says):
    with pytest.raises(ValueError, match=says):
        make()
