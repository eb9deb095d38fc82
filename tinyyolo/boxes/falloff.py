"""How similarities fall as two centres move apart: what finds the anchors near an object without looking at the others.

All is float64 and, by rounding in float32, uncertain: `loosened` says how far.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tinyyolo.boxes.similarity import CONSTANT, EPS, FLOOR

# Rounding of float32 coordinates and similarities, turned into px: some 8 units in the last place of the numbers that
# enter, for both sides of a comparison. Searches go this much too far, and the float32 similarity itself decides.
SLACK = 16 * torch.finfo(torch.float32).eps
OPERATIONS = 4  # times SLACK is what a formula of a dozen operations loses of its value
# W2 / C. Beyond it exp leaves float32's normal range, its steps grow without bound, and all anchors are looked at.
DEEPEST = 80.0
HIGHEST = 1e37  # of 1 + W2² and 1 + KL, whose inverse leaves that range beyond
NARROWEST = 8  # times the uncertainty of a coordinate: a narrower anchor's side is hardly known in float32


class Terms(NamedTuple):
    """Distance of m objects and G anchors: size + loc, loc = sum of weight * (px between the centres)² over the axes.

    Where `Falloff.rooted`, it is size + loc ** 0.5.
    """

    size: Tensor  # (m, G)
    weight: Tensor  # (2, m or 1, G or 1)


class Falloff:
    """A similarity as a falling function of a distance, an ellipse around the object for anchors of one size.

    Args:
        constant, m, n: what the similarity takes of these; the others play no part.
    """

    rooted = False

    def __init__(self, constant: float = CONSTANT, m: float = 1.0, n: float = 1.0):
        self.constant, self.by_axis = constant, (m, n)

    def terms(self, own: Tensor, other: Tensor) -> Terms:
        """From the sides of objects (2, m, 1) and of anchors (2, 1, G), px."""
        raise NotImplementedError

    def distance_at(self, similarity: float) -> float:
        """The distance at which a similarity above 0 is reached."""
        raise NotImplementedError

    def loosened(self, distance: Tensor, own: Tensor, other: Tensor, extent: float) -> Tensor:
        """(m, G) or (m, 1), the distance (m, 1) or () within which all anchors lie that float32 may put at `distance`.

        Args:
            distance: of objects, infinite for all anchors.
            own, other: see `terms`.
            extent: largest coordinate, px.
        """
        raise NotImplementedError

    def together(self, terms: Terms, square: Tensor) -> Tensor:
        """The distance (m, G) from the squared px between the centres (2, m, G)."""
        loc = (terms.weight * square).sum(0)
        return terms.size + (loc.sqrt() if self.rooted else loc)

    def reach(self, terms: Terms, distance: Tensor) -> Tensor:
        """(2, m, G) px on each axis that the centres may be apart at a distance; NaN: sizes alone are farther."""
        left = distance - terms.size
        left = left.masked_fill(left < 0, math.nan)
        return ((left.square() if self.rooted else left) / terms.weight).sqrt()


class _Wasserstein(Falloff):
    """W2² without the 1e-6."""

    size_weight = 1.0

    def terms(self, own: Tensor, other: Tensor) -> Terms:
        return Terms((own - other).square().sum(0) / 4 * self.size_weight, own.new_ones(2, 1, 1))


class NwdFalloff(_Wasserstein):
    """exp(-W2 / C)."""

    def distance_at(self, similarity: float) -> float:
        return (self.constant * math.log(similarity)) ** 2 - EPS

    def loosened(self, distance: Tensor, own: Tensor, other: Tensor, extent: float) -> Tensor:
        px = (distance + EPS).sqrt()
        square = (px + SLACK * (extent + px + self.constant)).square() - EPS
        return square.masked_fill(px > DEEPEST * self.constant, math.inf)


class DotdFalloff(NwdFalloff):
    """NWD without the sizes."""

    size_weight = 0.0


class WdFalloff(_Wasserstein):
    """1 / (1 + W2²)."""

    def distance_at(self, similarity: float) -> float:
        return 1 / similarity - 1 - EPS

    def loosened(self, distance: Tensor, own: Tensor, other: Tensor, extent: float) -> Tensor:
        px = (distance.clamp(min=0) + EPS).sqrt()
        square = (px + SLACK * (extent + px)).square() + OPERATIONS * SLACK * (1 + distance)
        return square.masked_fill(square > HIGHEST, math.inf)


class KldFalloff(Falloff):
    """1 / (1 + KL), the object's sides the divisors."""

    def terms(self, own: Tensor, other: Tensor) -> Terms:
        ratio = ((other + EPS) / (own + EPS)).square()
        return Terms((ratio - ratio.log() - 1).sum(0) / 2, 2 / (own + EPS).square())

    def distance_at(self, similarity: float) -> float:
        return 1 / similarity - 1

    def loosened(self, distance: Tensor, own: Tensor, other: Tensor, extent: float) -> Tensor:
        own, other, off = own + EPS, other + EPS, SLACK * extent  # px
        place = off * (2 / own.square()).sum(0).sqrt()
        sizes = (off * (other / own.square() + 1 / other) + (off / own).square()).sum(0)
        loose = (distance.clamp(min=0).sqrt() + place).square() + sizes + OPERATIONS * SLACK * (1 + distance)
        return loose.masked_fill((loose > HIGHEST) | _unknown(other, off), math.inf)


class SimdFalloff(Falloff):
    """exp(-(location + shape)), never below `FLOOR`."""

    rooted = True

    def terms(self, own: Tensor, other: Tensor) -> Terms:
        weight = (own.new_tensor(self.by_axis)[:, None, None] / (own + other + 2 * EPS)).square()
        return Terms((weight * (own - other).square()).sum(0).sqrt(), weight)

    def distance_at(self, similarity: float) -> float:
        return -math.log(similarity)

    def loosened(self, distance: Tensor, own: Tensor, other: Tensor, extent: float) -> Tensor:
        off, both = SLACK * extent, own + other + 2 * EPS  # px
        place = 3 * off * (own.new_tensor(self.by_axis)[:, None, None] / both).square().sum(0).sqrt()
        loose = distance + place + distance * (off / both).sum(0) + OPERATIONS * SLACK * (1 + distance)
        return loose.masked_fill((loose >= -math.log(FLOOR)) | _unknown(other, off), math.inf)


def _unknown(other: Tensor, off: float) -> Tensor:
    return (other < NARROWEST * off).any(0)


FALLOFFS: dict[str, type[Falloff]] = {
    "nwd": NwdFalloff,
    "dotd": DotdFalloff,
    "kld": KldFalloff,
    "wd": WdFalloff,
    "simd": SimdFalloff,
}
