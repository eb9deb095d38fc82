"""Which windows a scene is read in, and which part of the scene each of them decides about.

A window is a core and a halo around it. The cores partition the scene; what a detector says of a core is what it says
of it in the whole scene as soon as the halo covers its field of view, because windows start on the lattice of its
largest stride (elsewhere pooling and anchors fall on other pixels) and end where the scene ends (beyond it the layers
pad, as they do at the border of the whole scene).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from tinyyolo.config import UserError


class Span(NamedTuple):
    """Pixels [start, stop) of an axis that are read, and those [core_start, core_stop) that are decided about."""

    start: int
    stop: int
    core_start: int
    core_stop: int


@dataclass(frozen=True)
class Window:
    """A part of a scene, px of the scene."""

    x: Span
    y: Span

    @property
    def origin(self) -> tuple[int, int]:
        """x, y of its left upper corner."""
        return self.x.start, self.y.start

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.y.stop - self.y.start, self.x.stop - self.x.start

    @property
    def core(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of the core in pixels of the window, half open."""
        left, top = self.x.start, self.y.start
        return self.x.core_start - left, self.y.core_start - top, self.x.core_stop - left, self.y.core_stop - top


def spans(length: int, tile: int, halo: int, stride: int) -> list[Span]:
    """The windows of one axis, none longer than `tile`.

    Args:
        length: of the scene, px, at least 1.
        tile: of a window, px, a multiple of `stride`.
        halo: at least this much is read on either side of a core, where the scene has it, px.
        stride: windows start at its multiples.

    Raises:
        UserError: no core is left beside the halo.

    Examples:
        >>> spans(1300, 640, 64, 32)
        [Span(start=0, stop=640, core_start=0, core_stop=576), Span(start=512, stop=1152, core_start=576, \
core_stop=1088), Span(start=1024, stop=1300, core_start=1088, core_stop=1300)]
        >>> spans(640, 640, 64, 32)
        [Span(start=0, stop=640, core_start=0, core_stop=640)]
    """
    if tile % stride or tile < 2 * halo + stride:
        raise UserError(
            f"tile={tile}: expected a multiple of the model's largest stride, {stride}, of at least {2 * halo + stride}"
            f" px at a halo of {halo} px (half of overlap={2 * halo})"
        )
    out: list[Span] = []
    core = 0
    while True:
        start = max(core - halo, 0) // stride * stride
        if start + tile >= length:
            return [*out, Span(start, length, core, length)]
        out.append(Span(start, start + tile, core, start + tile - halo))
        core = start + tile - halo


def windows(size_hw: tuple[int, int], tile: int, halo: int, stride: int) -> list[Window]:
    """All windows of a scene, row by row; see `spans`.

    Examples:
        >>> [window.core for window in windows((100, 1000), 640, 64, 32)]
        [(0, 0, 576, 100), (64, 0, 488, 100)]
    """
    rows, columns = (spans(length, tile, halo, stride) for length in size_hw)
    return [Window(x, y) for y, x in product(rows, columns)]
