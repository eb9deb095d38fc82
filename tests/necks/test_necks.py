"""Pyramids: values against a few lines of plain torch, level by level."""

import pytest
import torch
from torch.nn import functional as F

from tinyyolo.necks.fpn import FPN
from tinyyolo.necks.hrfpn import HRFPN
from tinyyolo.necks.ssd import L2Norm, SSDNeck
from tinyyolo.necks.yolov3 import YOLOv3Neck

CHANNELS, STRIDES = (4, 6, 8), (4, 8, 16)


def maps_of(sides, channels=CHANNELS):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *side, generator=generator) for c, side in zip(channels, sides, strict=True)]


def wrap(conv, x, stride=1):
    return F.conv2d(x, conv.conv.weight, conv.conv.bias, stride=stride, padding=conv.conv.weight.shape[-1] // 2)


@pytest.mark.parametrize("sides", [[(8, 8), (4, 4), (2, 2)], [(9, 7), (5, 4), (3, 2)]])
@pytest.mark.parametrize("extra", ["pool", "conv", "conv_on_output"])
def test_fpn_values(sides, extra):
    neck, maps = FPN(CHANNELS, STRIDES, channels=5, levels=5, extra=extra), maps_of(sides)
    found = neck(maps)
    tops = [wrap(lateral, x) for lateral, x in zip(neck.lateral_convs, maps, strict=True)]
    tops[1] = tops[1] + F.interpolate(tops[2], size=tops[1].shape[-2:])
    tops[0] = tops[0] + F.interpolate(tops[1], size=tops[0].shape[-2:])
    expected = [wrap(conv, x) for conv, x in zip(list(neck.fpn_convs)[:3], tops, strict=True)]
    if extra == "pool":
        expected += [expected[2][..., ::2, ::2], expected[2][..., ::4, ::4]]
    elif extra == "conv_on_output":
        expected.append(wrap(neck.fpn_convs[3], expected[2], stride=2))
        expected.append(wrap(neck.fpn_convs[4], expected[3].relu(), stride=2))
    else:  # on the input, and no ReLU between
        expected.append(wrap(neck.fpn_convs[3], maps[2], stride=2))
        expected.append(wrap(neck.fpn_convs[4], expected[3], stride=2))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_group_norm_follows_every_convolution():
    neck, maps = (
        FPN(CHANNELS, STRIDES, channels=6, levels=4, extra="conv", norm_groups=3),
        maps_of([(8, 8), (4, 4), (2, 2)]),
    )
    assert not [name for name, _ in neck.named_parameters() if name.endswith("conv.bias")]
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter)

    def normed(conv, x, stride=1):
        return F.group_norm(wrap(conv, x, stride), 3, conv.gn.weight, conv.gn.bias)

    found = neck(maps)
    torch.testing.assert_close(found[2], normed(neck.fpn_convs[2], normed(neck.lateral_convs[2], maps[2])))
    torch.testing.assert_close(found[3], normed(neck.fpn_convs[3], maps[2], stride=2))


def test_fpn_from_a_coarser_map():
    neck = FPN(CHANNELS, STRIDES, channels=5, levels=3, start_level=1, extra="conv")
    assert neck.strides == (8, 16, 32) and neck.channels == (5, 5, 5)
    assert [tuple(x.shape) for x in neck(maps_of([(8, 8), (4, 4), (2, 2)]))] == [
        (2, 5, 4, 4),
        (2, 5, 2, 2),
        (2, 5, 1, 1),
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"extra": "p6"}, "extra=p6"),
        ({"levels": 2}, "levels=2"),
        ({"levels": 17}, "levels=17: expected a number from 1 to 16"),
        ({"start_level": 3}, "start_level=3: choices are 0 to 2"),
    ],
)
def test_fpn_refuses(settings, says):
    with pytest.raises(ValueError, match=says):
        FPN(CHANNELS, STRIDES, **settings)


def test_hrfpn_values():
    neck, maps = HRFPN(CHANNELS, STRIDES, channels=5, levels=4), maps_of([(12, 8), (6, 4), (3, 2)])
    found = neck(maps)
    up = [F.interpolate(x, scale_factor=2**i, mode="bilinear") for i, x in enumerate(maps)]
    fused = wrap(neck.reduction_conv, torch.cat(up, 1))
    for i, x in enumerate(found):
        torch.testing.assert_close(x, wrap(neck.fpn_convs[i], F.avg_pool2d(fused, 2**i, 2**i)))
    assert neck.strides == (4, 8, 16, 32) and [tuple(x.shape[-2:]) for x in found] == [(12, 8), (6, 4), (3, 2), (1, 1)]


def test_yolov3_neck_puts_the_coarser_level_before_the_finer_one():
    neck, maps = YOLOv3Neck(CHANNELS, STRIDES, channels=(2, 3, 4)).eval(), maps_of([(9, 7), (5, 4), (3, 2)])
    fine, middle, coarse = neck(maps)
    torch.testing.assert_close(coarse, neck.detect1(maps[2]))
    for found, detect, conv, above, own in (
        (middle, neck.detect2, neck.conv1, coarse, maps[1]),
        (fine, neck.detect3, neck.conv2, middle, maps[0]),
    ):
        up = F.interpolate(conv(above), size=own.shape[-2:])
        torch.testing.assert_close(found, detect(torch.cat((up, own), 1)))
    assert neck.channels == (2, 3, 4) and [x.shape[1] for x in (fine, middle, coarse)] == [2, 3, 4]


@pytest.mark.parametrize("side", [64, 32, 4, 1])
def test_ssd_neck_takes_images_of_any_size(side):
    """64 cells are those of 512 px; the authors' code takes no fewer than 33."""
    neck = SSDNeck((4, 6), (8, 16), channels=(4,) * 5, last_kernel=4)
    found = neck(maps_of([(side, side), (-(-side // 2),) * 2], (4, 6)))
    assert neck.strides == (8, 16, 32, 64, 128, 256, 512) and neck.channels == (4, 6, 4, 4, 4, 4, 4)
    assert [x.shape[-1] for x in found] == [max(1, side // 2**i) for i in range(7)]


def test_l2_norm_by_hand_and_where_all_is_zero():
    x = torch.tensor([[3.0, 0], [4.0, 0]]).view(1, 2, 1, 2).requires_grad_()
    out = L2Norm(2, 10)(x)
    torch.testing.assert_close(out[0, :, 0].tolist(), [[6.0, 0.0], [8.0, 0.0]])
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: YOLOv3Neck(CHANNELS, STRIDES, channels=(2, 3)),
            r"channels=\[2, 3\]: expected one number for each of 3",
        ),
        (lambda: SSDNeck((4, 6), (8, 16), channels=(1,)), "channels=.*: expected whole numbers of at least 2"),
        (lambda: SSDNeck((4, 6), (8, 16), channels=(4,), last_kernel=1), "last_kernel=1"),
        (lambda: SSDNeck((4, 6), (8, 16), channels=(4,), scale=0), "scale=0"),
    ],
)
def test_one_stage_necks_refuse(make, says):
    with pytest.raises(ValueError, match=says):
        make()
