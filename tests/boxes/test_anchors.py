"""AnchorGrid: order, counts and the official numbers; anchor fitting."""

import pytest
import torch
from torch.testing import assert_close

from tinyyolo.boxes.anchors import AnchorGrid, auto_constant, fit_anchors
from tinyyolo.boxes.similarity import pairwise_nwd

PUBLISHED = {"strides": (4, 8, 16, 32, 64), "scales": (8,), "ratios": (0.5, 1, 2)}


def test_published_counts():
    grid = AnchorGrid(**PUBLISHED)
    assert grid.level_sizes((800, 800)) == [120000, 30000, 7500, 1875, 507]
    inside = grid.inside((800, 800)).split(grid.level_sizes((800, 800)))
    assert [int(level.sum()) for level in inside] == [110574, 25374, 5274, 849, 39]
    assert len(grid.boxes((800, 800))) == len(grid.inside((800, 800))) == 159882
    assert len(grid.boxes((800, 800), [(200, 200), (100, 100), (50, 50), (25, 25), (12, 12)])) == 159807


def test_published_base_boxes():
    long, short = 22.627416610717773, 11.313708305358887  # 32 * sqrt(1/2) * sqrt(2) and its half, in float32
    expected = torch.tensor([[-long, -short, long, short], [-16, -16, 16, 16], [-short, -long, short, long]])
    for base, factor in zip(AnchorGrid(**PUBLISHED).base_boxes, (1, 2, 4, 8, 16), strict=True):
        assert_close(base, expected * factor, atol=0, rtol=0)


def test_order_is_level_row_column_ratio_scale():
    grid = AnchorGrid(strides=(4, 8), scales=(1, 2), ratios=(1, 4))
    boxes = grid.boxes((8, 12))
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    assert grid.per_cell == [4, 4]
    assert_close(sides[:4], torch.tensor([[4.0, 4], [8, 8], [2, 8], [4, 16]]))  # ratio-major, scale-minor
    assert_close(centres[:24:4], torch.tensor([[0.0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]]))
    assert_close(centres[24::4], torch.tensor([[0.0, 0], [8, 0]]))


def test_explicit_sizes_may_differ_by_level():
    grid = AnchorGrid(strides=(4, 8), sizes=[[(3, 5)], [(6, 8), (10, 4)]], center_offset=0.5)
    assert grid.per_cell == [1, 2]
    expected = torch.tensor([[0.5, -0.5, 3.5, 4.5], [1.0, 0, 7, 8], [-1.0, 2, 9, 6]])
    assert_close(grid.boxes((4, 4)), expected)


def test_priors_of_receptive_fields():
    grid = AnchorGrid(strides=(4, 8), fields=(35, 91), ratios=(0.5, 1, 2))
    wide = 24.748737335205078  # 17.5 * sqrt(2), by float32's 1 / sqrt(1/2)
    assert_close(
        grid.base_boxes[0][:2], torch.tensor([[-wide / 2, -wide / 4, wide / 2, wide / 4], [-8.75] * 2 + [8.75] * 2])
    )
    assert_close(grid.base_boxes[1][1], torch.tensor([-22.75, -22.75, 22.75, 22.75]), atol=0, rtol=0)
    third = AnchorGrid(strides=(8,), fields=(91,), ratios=(1,), field_part=1 / 3, center_offset=0.5)
    assert_close(third.base_boxes[0], torch.tensor([[4 - 91 / 6] * 2 + [4 + 91 / 6] * 2]))


@pytest.mark.parametrize("size_hw", [(800, 801), (33, 7), (1, 1)])
def test_maps_are_rounded_up(size_hw):
    grid = AnchorGrid(**PUBLISHED)
    assert grid.map_sizes(size_hw) == [(-(-size_hw[0] // s), -(-size_hw[1] // s)) for s in PUBLISHED["strides"]]
    assert sum(grid.level_sizes(size_hw)) == len(grid.boxes(size_hw))


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("size_hw", [(800, 800), (64, 100), (40, 8)])
def test_inside_is_what_its_rule_says(size_hw, offset):
    grid = AnchorGrid(strides=(4, 16), scales=(2, 8), ratios=(0.5, 1), center_offset=offset)
    x1, y1, x2, y2 = grid.boxes(size_hw).unbind(1)
    expected = (x1 >= 0) & (y1 >= 0) & (x2 < size_hw[1]) & (y2 < size_hw[0])
    assert_close(grid.inside(size_hw), expected)
    low, high = grid.ranges(size_hw, inside_only=True)
    assert int((high - low + 1).clamp(min=0).prod(0).sum()) == int(expected.sum())


def test_anchors_that_touch_the_far_edge_are_outside():
    grid = AnchorGrid(strides=(4,), sizes=[[(4, 4)]])
    assert grid.inside((9, 9)).nonzero()[:, 0].tolist() == [4]  # columns and rows 0 | 4 | 8; only 4 has 2..6 in 0..8
    assert not grid.inside((8, 6)).any()  # 2..6 touches x = 6


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "either scales and ratios, fields and ratios, or sizes"),
        ({"scales": (8,)}, "either scales and ratios, fields and ratios, or sizes"),
        (
            {"scales": (8,), "ratios": (1,), "sizes": [[(1, 1)]]},
            "either scales and ratios, fields and ratios, or sizes",
        ),
        ({"scales": (8,), "ratios": (1,), "fields": (35,)}, "either scales and ratios, fields and ratios, or sizes"),
        ({"fields": (35,)}, "either scales and ratios, fields and ratios, or sizes"),
        ({"ratios": (1,), "sizes": [[(1, 1)]]}, "either scales and ratios, fields and ratios, or sizes"),
        ({"fields": (35, 91), "ratios": (1,)}, "fields: 2 levels, but 1 strides"),
        ({"fields": (0,), "ratios": (1,)}, "fields=.*numbers above 0"),
        ({"fields": (35,), "ratios": (1,), "field_part": 0}, "field_part=0: expected a number above 0"),
        ({"scales": (0,), "ratios": (1,)}, "scales=.*numbers above 0"),
        ({"scales": (8,), "ratios": (-1,)}, "ratios=.*numbers above 0"),
        ({"sizes": [[(1, 1)], [(2, 2)]]}, "2 levels, but 1 strides"),
        ({"sizes": [[(1, 0)]]}, "pairs .w, h. > 0"),
        ({"sizes": [[1, 2]]}, "pairs .w, h. > 0"),
        ({"sizes": [[]]}, "pairs .w, h. > 0"),
        ({"sizes": [[(1, float("nan"))]]}, "pairs .w, h. > 0"),
        ({"scales": (float("inf"),), "ratios": (1,)}, "scales=.*numbers above 0"),
        ({"sizes": [[(1, 1)]], "center_offset": -1}, "center_offset=-1: expected a number from 0 to 1"),
        ({"strides": (), "sizes": []}, "strides=.*numbers above 0"),
    ],
)
def test_bad_settings_raise(arguments, match):
    with pytest.raises(ValueError, match=match):
        AnchorGrid(**{"strides": (4,), **arguments})


@pytest.mark.parametrize(
    ("size_hw", "maps", "match"),
    [
        ((0, 8), None, "size_hw"),
        ((8,), None, "size_hw"),
        ((8, 8), [(1, 1)], "2 pairs"),
        ((8, 8), [(1, 1), (0, 1)], "2 pairs"),
    ],
)
def test_bad_sizes_raise(size_hw, maps, match):
    with pytest.raises(ValueError, match=match):
        AnchorGrid((4, 8), (1,), (1,)).boxes(size_hw, maps)


def mean_best_nwd(wh, levels, constant):
    sizes = torch.tensor([size for level in levels for size in level])
    return float(pairwise_nwd(centred(wh), centred(sizes), constant).amax(1).mean())


def centred(wh):
    return torch.cat((-wh / 2, wh / 2), 1)


def test_fitted_anchors_beat_quantiles_and_repeat_themselves():
    wh = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)).mul(0.4).add(2.4).exp()
    constant = auto_constant(wh)
    fitted = fit_anchors(wh, [2, 2, 2], [4, 8, 16])
    assert fitted == fit_anchors(wh.flip(0), [2, 2, 2], [4, 8, 16])
    by_area = wh[wh.prod(1).argsort()]
    quantiles = [[tuple(by_area[int(len(wh) * (i + 0.5) / 6)].tolist()) for i in range(6)]]
    assert mean_best_nwd(wh, fitted, constant) > mean_best_nwd(wh, quantiles, constant) + 0.005


def test_small_anchors_go_to_the_finest_stride_in_any_order():
    wh = torch.tensor([[4.0, 4.0], [20.0, 10.0]]).repeat(50, 1)
    assert fit_anchors(wh, [1, 1], [4, 8]) == [[(4.0, 4.0)], [(20.0, 10.0)]]
    assert fit_anchors(wh, [1, 1], [8, 4]) == [[(20.0, 10.0)], [(4.0, 4.0)]]


def test_fitting_ignores_an_outlier_and_keeps_sizes_apart():
    wh = torch.cat((torch.full((500, 2), 8.0), torch.tensor([[400.0, 400.0]])))
    ((first, second),) = fit_anchors(wh, [2], [4])
    assert first != second
    assert max(*first, *second) < 20
    AnchorGrid((4,), sizes=[[first, second]])


@pytest.mark.parametrize(
    ("wh", "counts", "constant", "match"),
    [
        (torch.zeros(0, 2), [1], None, "K >= 1"),
        (torch.zeros(3, 4), [1], None, r"\(3, 4\)"),
        (torch.tensor([[4.0, float("nan")]]), [1], None, "finite"),
        (torch.zeros(3, 2), [1], None, "without area"),
        (torch.ones(3, 2), [1, 1], None, "1 strides"),
        (torch.ones(3, 2), [0], None, "at least 1"),
        (torch.ones(3, 2), [1], -1.0, "constant"),
    ],
)
def test_bad_fits_raise(wh, counts, constant, match):
    with pytest.raises(ValueError, match=match):
        fit_anchors(wh, counts, [4], constant)
