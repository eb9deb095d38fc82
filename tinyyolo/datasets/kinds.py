"""Pictures that are not three bands of 8 bits: what is done to each kind, told once with how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tinyyolo.datasets.images import Look, look
from tinyyolo.io import in_threads, tell


def remarks(found: Look) -> list[str]:
    """What is done to a picture of this kind on the way to three bands of 8 bits, besides decoding.

    Examples:
        >>> remarks(Look((9, 9), 3, "uint8")), remarks(Look((9, 9), 4, "uint8", alpha=True))
        ([], ['transparency, which is not used: the colours count as they are under it'])
    """
    bands = 3 if found.inks else found.bands - found.alpha
    said = {
        "16-bit values, divided to 8 bits by the bits (8, 10, 11, 12, 14 or 16) that the image uses": (
            found.depth == "uint16"
        ),
        "transparency, which is not used: the colours count as they are under it": found.alpha,
        f"{bands} bands, of which the first {'three are red, green and blue' if bands > 3 else 'is taken as grey'}": (
            bands == 2 or bands > 3
        ),
        "four inks (CMYK), which become colours by a plain rule, without a profile": found.inks,
        "a palette, whose colours are taken": found.palette,
        "an EXIF orientation, by which they are turned upright before boxes count": found.orientation > 1,
        "several pages, of which the first is taken": found.pages > 1,
    }
    return [words for words, is_so in said.items() if is_so and not found.fault]


def told_kinds(looks: Iterable[Look]) -> list[str]:
    """A line for each kind of picture that is not simply decoded, with how many there are."""
    counts = Counter(words for found in looks for words in remarks(found))
    return [f"{count:,} image{'s' if count > 1 else ''} with {words}" for words, count in counts.items()]


def tell_kinds(folder: Path, names: Sequence[str]) -> None:
    """Say on stderr what is done to the pictures of a folder, by their headers."""
    for line in told_kinds(in_threads(lambda name: look(folder / name), names, f"{folder.name}: kinds")):
        tell(f"{folder}: {line}")
