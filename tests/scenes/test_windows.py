"""Windows of a scene: the cores partition it, the halo is there, every window starts on the lattice."""

from itertools import pairwise

import pytest

from tinyyolo.config import UserError
from tinyyolo.scenes.windows import Span, spans, windows


def test_by_hand():
    """640 px, halo 48, stride 32: the first core ends at 640 - 48 = 592; 592 - 48 = 544 is on the lattice; the second
    window ends at 1184, its core at 1136; 1136 - 48 = 1088 is on the lattice, and 1088 + 640 > 1200."""
    assert spans(1200, 640, 48, 32) == [Span(0, 640, 0, 592), Span(544, 1184, 592, 1136), Span(1088, 1200, 1136, 1200)]


def test_a_coarse_lattice_makes_the_halo_wider():
    """Stride 128, halo 64: the second window starts at 512, as 576 - 64 = 512 is on the lattice; the third core begins
    at 1088, and 1088 - 64 = 1024 is; at halo 48: 592 - 48 = 544 is not, so it starts at 512, 80 px before its core."""
    assert spans(1200, 640, 64, 128)[1] == Span(512, 1152, 576, 1088)
    assert spans(1200, 640, 48, 128)[1] == Span(512, 1152, 592, 1104)


@pytest.mark.parametrize("length", (1, 31, 32, 639, 640, 641, 1151, 1152, 1153, 5000))
@pytest.mark.parametrize(("tile", "halo", "stride"), ((640, 64, 32), (256, 0, 32), (320, 70, 64), (640, 100, 128)))
def test_cores_partition_an_axis(length, tile, halo, stride):
    found = spans(length, tile, halo, stride)
    assert found[0].core_start == 0 and found[-1].core_stop == length
    assert all(a.core_stop == b.core_start for a, b in pairwise(found))
    for span in found:
        assert span.start % stride == 0 and 0 < span.stop - span.start <= tile
        assert span.core_start < span.core_stop
        assert span.start == 0 or span.core_start - span.start >= halo
        assert span.stop == length or span.stop - span.core_stop >= halo


def test_every_pixel_has_one_window():
    seen = [[0] * 70 for _ in range(50)]
    for window in windows((50, 70), 32, 4, 8):
        x1, y1, x2, y2 = window.core
        for y in range(window.y.start + y1, window.y.start + y2):
            for x in range(window.x.start + x1, window.x.start + x2):
                seen[y][x] += 1
    assert all(count == 1 for row in seen for count in row)


@pytest.mark.parametrize(("tile", "halo"), ((600, 64), (640, 320), (64, 32)))
def test_a_tile_without_a_core_is_refused(tile, halo):
    with pytest.raises(UserError, match=f"tile={tile}: expected a multiple"):
        spans(5000, tile, halo, 32)
