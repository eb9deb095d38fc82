"""Which points learn which objects, by hand: cells of 8 and 16 px under maps of 32 x 64 px."""

import pytest
import torch

from tinyyolo.assigners.points import FoveaAssigner, InsideAssigner, NearestAssigner
from tinyyolo.boxes.anchors import AnchorGrid

SIZE, STRIDES = (32, 64), (8, 16)
RANGES = [(-1, 16), (16, 32)]


def grid(offset=0.5):
    return AnchorGrid(STRIDES, sizes=[[(s, s)] for s in STRIDES], center_offset=offset)


def found(assigner, *boxes, offset=0.5, ignore=None):
    """{(stride, column, row): object} of the positives, and the indices that are ignored."""
    objects = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    index = assigner.on_grid(grid(offset), SIZE, objects, ignore).gt_index
    cells = grid().cells(SIZE)
    strides = torch.tensor([8] * 32 + [16] * 8)
    positive = (index >= 0).nonzero()[:, 0].tolist()
    at = {(int(strides[i]), *(cells[i] // strides[i]).tolist()): int(index[i]) for i in positive}
    return at, (index == -2).nonzero()[:, 0].tolist()


def inside(*boxes, ranges=RANGES, radius=None):
    return found(InsideAssigner(ranges, radius), *boxes)[0]


def test_points_inside_learn_and_the_side_itself_is_outside():
    # of x 4..20 the points 4 and 20 lie on a side and 12 is inside; of y 0..12 the point 12 lies on one
    assert inside([4, 0, 20, 12]) == {(8, 1, 0): 0}
    # 4 and 20 are now inside, but 17 px from a side, which their level does not take; (8, 8) of stride 16 only 13 px
    assert inside([3, 0, 21, 12.5]).keys() == {(8, 1, 0), (8, 1, 1)}


def test_both_bounds_of_a_range_are_its_own():
    # the point (8, 8) of stride 16: 16 px to the right side; (12, 4) and (12, 12) of stride 8: 12 px
    box = [1.0, 1, 24, 13]
    assert inside(box, ranges=[(-1, 12), (16, 32)]).keys() == {(8, 1, 0), (8, 1, 1), (16, 0, 0)}
    assert inside(box, ranges=[(-1, 11.9), (16.1, 32)]) == {}
    assert inside(box, ranges=[(12, 13), (0, 16)]).keys() == {(8, 1, 0), (8, 1, 1), (16, 0, 0)}


def test_the_smallest_object_wins_and_the_first_of_equals():
    large, small = [0, 0, 24, 24], [8, 8, 16, 16]
    for boxes, expected in (([large, small], 1), ([small, large], 0), ([small, small, large], 0)):
        assert inside(*boxes, ranges=[(-1, 64), (64, 65)])[8, 1, 1] == expected
    # the smallest that the level takes: (12, 12) is 52 px from the right side of the flat one, and not of its level
    assert inside([0, 11, 64, 14], [0, 0, 24, 24], ranges=[(-1, 51), (64, 65)])[8, 1, 1] == 1


def test_radius_looks_from_the_centre_and_stays_in_the_object():
    # centre (32, 16); 1.5 strides of 8 are 12 px: x 20..44 and y 4..28, points on the edge (20, 44 and 4, 28) are out
    at = inside([0, 0, 64, 32], ranges=[(-1, 64), (64, 65)], radius=1.5)
    assert at.keys() == {(8, column, row) for column in (3, 4) for row in (1, 2)}
    assert inside([27, 11, 37, 21], ranges=[(-1, 64), (64, 65)], radius=1.5).keys() == {
        (8, column, row) for column in (3, 4) for row in (1, 2)
    }
    assert not inside([29, 13, 35, 19], ranges=[(-1, 64), (64, 65)], radius=1.5), "no point in the object"


@pytest.mark.parametrize(
    "assigner", [InsideAssigner(RANGES), InsideAssigner(RANGES, 1.5), FoveaAssigner(RANGES), NearestAssigner()]
)
def test_no_objects_and_ignore_regions(assigner):
    assert found(assigner) == ({}, [])
    region = torch.tensor([[0.0, 0, 16, 8]])  # all of the first two cells of stride 8, half of the first of stride 16
    assert found(assigner, ignore=region) == ({}, [0, 1])


@pytest.mark.parametrize("assigner", [InsideAssigner(RANGES), FoveaAssigner(RANGES)])
def test_objects_outside_all_ranges_have_no_points(assigner):
    assert found(assigner, [-100, -100, 160, 130])[0] == {}


def fovea(*boxes, ranges=RANGES, sigma=0.4):
    return found(FoveaAssigner(ranges, sigma), *boxes)[0]


def test_the_middle_of_an_object_learns():
    # 24 x 24 at 8: cells 1 + 1.5 * .6 - .5 = 1.4 to 1 + 1.5 * 1.4 - .5 = 2.6, so cell 2 alone
    assert fovea([8, 0, 32, 24], ranges=[(1, 64), (64, 65)]) == {(8, 2, 1): 0}
    # sigma .8: 1 + 1.5 * .2 - .5 = .8 to 1 + 1.5 * 1.8 - .5 = 3.2: cells 1 to 3
    wide = fovea([8, 0, 32, 24], ranges=[(1, 64), (64, 65)], sigma=0.8)
    assert wide.keys() == {(8, column, row) for column in (1, 2, 3) for row in (0, 1, 2)}


def test_tiny_objects_often_have_no_middle():
    # 8 px from 0: cells .5 * .6 - .5 = -.2 to .5 * 1.4 - .5 = .2: cell 0; from 4: .3 to .7: none
    assert fovea([0, 0, 8, 8]) == {(8, 0, 0): 0}
    assert fovea([4, 0, 12, 8]) == {}


def test_levels_overlap_and_the_smaller_object_wins():
    both = [(1, 64), (8, 64)]
    assert fovea([8, 0, 32, 24], ranges=both).keys() == {(8, 2, 1), (16, 1, 0)}
    large, small = [0, 0, 40, 24], [16, 8, 24, 16]
    assert fovea(large, small, ranges=both)[8, 2, 1] == fovea(small, large, ranges=both)[8, 2, 1] + 1 == 1


def test_bounds_beyond_the_map_are_moved_into_it():
    # x: 7.5 + 2.5 * .6 - .5 = 8.5 to 10.5, beyond the last column, 7; y: cells 0 to 0
    assert fovea([60, 0, 100, 8], ranges=[(1, 64), (64, 65)]) == {(8, 7, 0): 0}


def nearest(*boxes, scale=4.0):
    return found(NearestAssigner(scale), *boxes, offset=0.0)[0]


def test_the_level_by_size_and_the_nearest_point():
    # points at 0, 8, 16 ... and 0, 16, 32 ...; 32 px are stride 8 (log2 8 = 3), 64 px stride 16; 63 px are cut to 3
    assert nearest([0, 0, 32, 32]) == {(8, 2, 2): 0}
    assert nearest([0, 0, 64, 64]).keys() == {(16, 2, 1)}, "(32, 32) lies below the map: the nearest row is at 16"
    assert nearest([0, 0, 63, 63]).keys() == {(8, 4, 3)}
    assert nearest([10, 10, 12, 12]) == {(8, 1, 1): 0}, "as small as it may be"
    assert nearest([0, 0, 600, 600]).keys() == {(16, 3, 1)}
    assert nearest([1, 1, 17, 17], scale=1.0).keys() == {(16, 1, 1)}, "16 px of stride 16, (9, 9) is nearer to 16"


def test_distance_is_in_sides_and_the_nearer_object_takes_a_point():
    # centres (9, 8) and (8, 10): 1 px of a side of 2 px against 2 px of a side of 16 px
    first, second = [8, 4, 10, 12], [0, 2, 16, 18]
    assert nearest(first, second) == nearest(second, first) | {(8, 1, 1): 1} == {(8, 1, 1): 1}
    assert nearest(second, second) == {(8, 1, 1): 0}, "the earlier of two as near"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: InsideAssigner([(64, 1)]), "expected a pair"),
        (lambda: InsideAssigner([(1, 2, 3)]), "expected a pair"),
        (lambda: InsideAssigner(RANGES, 0), "radius=0"),
        (lambda: FoveaAssigner(RANGES, 1.5), "sigma=1.5"),
        (lambda: NearestAssigner(0), "scale=0"),
    ],
)
def test_settings_that_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
