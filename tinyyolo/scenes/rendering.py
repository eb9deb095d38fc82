"""How the bands and values of a file become red, green and blue of 8 bits: a setting of a run, kept with its model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rendering:
    """What the keys `bands` and `stretch` say.

    Attributes:
        bands: one or three bands of the file, from 1, shown as red, green and blue; None takes the declared ones.
        stretch: the values that become 0 and 255; None takes percentiles of the whole file where it has not 8 bits.
    """

    bands: tuple[int, ...] | None = None
    stretch: tuple[float, float] | None = None


AS_DECLARED = Rendering()
