"""How the bands and values of a file become red, green and blue of 8 bits: a setting of a run, kept with its model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyyolo.config import UserError, shown

COLOURS = ("red", "green", "blue")
MASKS = ("alpha",)  # of a band that is no picture
SATURATED = 65535  # of 16 bits: also where nothing was measured
HIGHEST_BIT, NOT_DARK = 2**15, 2**13  # of 16 bits
PERCENTILES = ("2%", "98%")  # of the valid pixels of a band: what becomes 0 and 255 unless `stretch` says it
OVERVIEW = 1024  # px of the longer side of what percentiles are taken from
MANY = 64_000_000  # pixels above which those of a scene without overviews are taken at spots
SPOTS, SPOT = 16, 64  # so many a row and a column, of so many px
BANDS_WORDS = "a band of the file from 1, or three such as [3,2,1] for red, green and blue"
STRETCH_WORDS = "the values or percentiles that become 0 and 255, such as [0,4000] or [2%,98%], or three such pairs"


@dataclass(frozen=True)
class Rendering:
    """What the keys `bands` and `stretch` say.

    Attributes:
        bands: one or three bands of the file, from 1, shown as red, green and blue; None takes the declared ones.
        stretch: what becomes 0 and 255, a pair of values or percentiles ("2%") of the whole file, or such a pair for
            each colour; None takes PERCENTILES where the file has not 8 bits, those as they are, and divides those
            of 16 bits that use them all.
    """

    bands: int | Sequence[int] | None = None
    stretch: Sequence[Any] | None = None

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Rendering:
        """The rendering that a run's arguments say.

        Raises:
            UserError: no bands, or no limits.

        Examples:
            >>> Rendering.of({"bands": [3, 2, 1], "stretch": ["2%", "98%"], "imgsz": 640})
            Rendering(bands=[3, 2, 1], stretch=['2%', '98%'])
        """
        return cls(args.get("bands"), args.get("stretch")).checked()

    def checked(self) -> Rendering:
        """Itself. UserError: no bands, or no limits."""
        if self.bands is not None and not is_bands(self.bands):
            raise UserError(f"bands={shown(self.bands)}: expected {BANDS_WORDS}")
        if self.stretch is not None and not is_stretch(self.stretch):
            raise UserError(f"stretch={shown(self.stretch)}: expected {STRETCH_WORDS}")
        return self

    @property
    def words(self) -> str:
        """What becomes 0 and 255."""
        if self.stretch is None:
            return f"{PERCENTILES[0]} to {PERCENTILES[1]} of each image, or the full 16 bits where they are used,"
        return " and ".join(f"{low} to {high}" for low, high in dict.fromkeys(map(tuple, pairs(self.stretch))))


AS_DECLARED = Rendering()


def is_bands(value: Any) -> bool:
    """Whether a value is one or three numbers of bands.

    Examples:
        >>> is_bands(1), is_bands([3, 2, 1]), is_bands([1, 2]), is_bands(0), is_bands([True])
        (True, True, False, False, False)
    """
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    return len(given) in (1, len(COLOURS)) and all(type(band) is int and band >= 1 for band in given)


def is_stretch(value: Any) -> bool:
    """Whether a value is a pair of limits, or three.

    Examples:
        >>> is_stretch([0, 4000]), is_stretch(["2%", "98%"]), is_stretch([[0, 9], [0, "99.5%"], [1, 7]])
        (True, True, True)
        >>> is_stretch([9, 0]), is_stretch(["98%", "2%"]), is_stretch([0, "101%"]), is_stretch([0]), is_stretch("auto")
        (False, False, False, False, False)
    """
    if not isinstance(value, (list, tuple)):
        return False
    nested = [isinstance(one, (list, tuple)) for one in value]
    if any(nested):
        return (
            all(nested)
            and len(value) == len(COLOURS)
            and all(map(is_stretch, value))
            and not isinstance(value[0][0], (list, tuple))
        )
    numbers = [one for one in value if isinstance(one, (int, float)) and not isinstance(one, bool)]
    shares = [share for share in map(share_of, value) if share is not None]
    if len(value) != 2 or len(numbers) + len(shares) != 2 or not all(map(math.isfinite, numbers)):
        return False
    return all(len(pair) < 2 or pair[0] < pair[1] for pair in (numbers, shares))


def share_of(limit: Any) -> float | None:
    """Percent of "2%"; None of what is no percentile.

    Examples:
        >>> share_of("99.5%"), share_of("101%"), share_of(7)
        (99.5, None, None)
    """
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) ?%", limit) if isinstance(limit, str) else None
    return share if found and (share := float(found[1])) <= 100 else None


def pairs(stretch: Sequence[Any] | None) -> list[Sequence[Any]]:
    """The limits of each colour."""
    stretch = PERCENTILES if stretch is None else stretch
    return list(stretch) if isinstance(stretch[0], (list, tuple)) else [stretch] * len(COLOURS)


def chosen_bands(path: object, names: Sequence[str], bands: int | Sequence[int] | None) -> tuple[int, int, int]:
    """Which bands, from 1, are red, green and blue.

    Args:
        path: names the file in messages.
        names: what each band is declared to be: red, green, blue, alpha, gray, palette, undefined, ...
        bands: what the user asks for.

    Raises:
        UserError: the file does not have them, or does not say which they are.

    Examples:
        >>> chosen_bands("a.tif", ["blue", "green", "red", "alpha"], None), chosen_bands("a.tif", ["gray"], None)
        ((3, 2, 1), (1, 1, 1))
    """
    there = ", ".join(f"{i} {name}" for i, name in enumerate(names, 1))
    if bands is not None:
        given = [bands] if isinstance(bands, int) else list(bands)
        if not is_bands(bands) or max(given) > len(names):
            raise UserError(f"{path}: bands={shown(bands)}: expected one or three of its bands; Choices: {there}")
        red, green, blue = given * (len(COLOURS) // len(given))
        return red, green, blue
    if all(name in names for name in COLOURS):
        return names.index("red") + 1, names.index("green") + 1, names.index("blue") + 1
    pictures = [i for i, name in enumerate(names, 1) if name not in MASKS]
    if len(pictures) == 1:
        return pictures[0], pictures[0], pictures[0]
    raise UserError(f"{path}: it does not say which bands are red, green and blue: bands=[r,g,b]; Choices: {there}")


def limits_of(path: object, values: Sequence[np.ndarray], stretch: Sequence[Any] | None) -> np.ndarray:
    """(3, 2) what becomes 0 and 255 of red, green and blue, of a sample (N,) of the valid values of each.

    Raises:
        UserError: no valid pixel.

    Examples:
        >>> limits_of("a.tif", [np.arange(101)] * 3, ["2%", 50])[0].tolist()
        [2.0, 50.0]
    """
    if stretch is None and all_bits(values):
        return np.array([[0.0, SATURATED]] * len(values))
    limits = []
    for sample, given in zip(values, pairs(stretch), strict=True):
        shares = [share_of(limit) for limit in given]
        if not sample.size and shares != [None, None]:
            raise UserError(f"{path}: no valid pixel: nothing but nodata")
        low, high = (
            float(limit) if share is None else float(np.percentile(sample, share))
            for limit, share in zip(given, shares, strict=True)
        )
        if not low < high:  # nearly all of it is one value
            low = float(sample.min()) if shares[0] is not None else low
            high = max(float(sample.max()), low + 1) if shares[1] is not None else high
            low = min(low, high - 1)
        limits.append((low, high))
    return np.array(limits)


def all_bits(values: Sequence[np.ndarray]) -> bool:
    """Whether values of 16 bits use the highest and are no darker for it: those of 8 bits at 16, for one.

    They are divided then, as pictures of 8 bits stay as they are. A few bright pixels of a sensor of 11 bits are no
    reason to, nor is 65,535, which means that nothing was measured.

    Examples:
        >>> all_bits([np.array([25_700, 59_110], np.uint16)]), all_bits([np.array([900, 2047, 65_535], np.uint16)])
        (True, False)
    """
    if any(sample.dtype != np.uint16 or not sample.size for sample in values):
        return False
    most = max(int(sample.max(initial=0, where=sample != SATURATED)) for sample in values)
    return most >= HIGHEST_BIT and max(float(np.percentile(sample, 98)) for sample in values) >= NOT_DARK


def words_of(limits: np.ndarray, stretch: Sequence[Any] | None) -> str:
    """What was done to values, in words."""
    if stretch is None and (limits == [0, SATURATED]).all():
        return f"values 0 to {SATURATED}, as they use all 16 bits"
    said = "; ".join(f"{low:g} to {high:g}" for low, high in dict.fromkeys(map(tuple, limits.tolist())))
    shares = [limit for limit in dict.fromkeys(pairs(stretch)[0]) if share_of(limit) is not None]
    return f"values {said}" + (f" ({' and '.join(shares)} of the scene)" if shares else "")


def stretched(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(…, 3) uint8 of values (…, 3): the limits (3, 2) become 0 and 255, what lies beyond them too; no number is 0.

    Examples:
        >>> stretched(np.array([[0, 500, 2000]], np.uint16), np.array([[0, 1000]] * 3)).tolist()
        [[0, 128, 255]]
    """
    exact = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    low, high = limits[:, 0].astype(exact), limits[:, 1].astype(exact)
    share = (np.where(np.isfinite(values), values, low).astype(exact) - low) / (high - low)
    return (np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)


def spots(size_hw: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of the places where the pixels of a very large scene are looked at, evenly over it."""
    rows, columns = (
        [
            slice(at, at + SPOT)
            for at in ((np.arange(SPOTS) + 0.5) * side / SPOTS - SPOT / 2).astype(int).clip(0).tolist()
        ]
        for side in size_hw
    )
    return [(y, x) for y in rows for x in columns]


def thinned(size_hw: tuple[int, int], side: int = OVERVIEW) -> tuple[int, int]:
    """Height and width of an overview whose longer side is at most `side` px; by default that of percentiles.

    Examples:
        >>> thinned((3000, 6000)), thinned((3, 6))
        ((512, 1024), (3, 6))
    """
    factor = max(1, max(size_hw) / side)
    height, width = (max(1, round(side / factor)) for side in size_hw)
    return height, width


def eight_bits(
    values: np.ndarray,
    stretch: Sequence[Any] | None = None,
    valid: np.ndarray | None = None,
    name: str = "the image",
) -> np.ndarray:
    """An image (H, W, 3) of any numbers in 8 bits; one that has them stays as it is unless `stretch` is given.

    Args:
        values: the image.
        stretch: as `Rendering.stretch`, its pairs in the order of the image's bands.
        valid: (H, W) bool, which pixels count, or (H, W, 3), in which bands; all unless given.
        name: of the image in messages.

    Raises:
        UserError: no valid pixel.

    Examples:
        >>> eight_bits(np.full((1, 1, 3), 500, np.uint16), [0, 1000]).tolist()
        [[[128, 128, 128]]]
    """
    if values.dtype == np.uint8 and stretch is None:
        return values
    if values.shape[0] * values.shape[1] > MANY:
        parts = spots((values.shape[0], values.shape[1]))
    else:  # the pixels that GDAL takes, nearest to the middle of each cell
        height, width = values.shape[:2]
        cells = zip(thinned((height, width)), (height, width), strict=True)
        parts = [np.ix_(*(((np.arange(n) + 0.5) * side / n).astype(int) for n, side in cells))]
    bands = values.shape[2]
    sample = np.concatenate([values[part].reshape(-1, bands) for part in parts])
    counted = np.isfinite(sample)
    if valid is not None:
        valid = np.broadcast_to(valid.reshape(*values.shape[:2], -1), values.shape)
        counted &= np.concatenate([valid[part].reshape(-1, bands) for part in parts])
    limits = limits_of(name, [band[known] for band, known in zip(sample.T, counted.T, strict=True)], stretch)
    return stretched(values, limits)
