"""What the pictures are against what is expected of them: their sizes, and what is done to kinds other than three bands
of 8 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyyolo.config import shown
from tinyyolo.datasets.annotations import IGNORED, Annotations, Problem
from tinyyolo.datasets.images import Look, look
from tinyyolo.io import in_threads, tell
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering
from tinyyolo.sizes import SEEN, SHRINK


def remarks(found: Look, rendering: Rendering = AS_DECLARED) -> list[str]:
    """What is done to a picture of this kind on the way to three bands of 8 bits, besides decoding.

    Examples:
        >>> remarks(Look((9, 9), 3, "uint8")), remarks(Look((9, 9), 4, "uint8", alpha=True))
        ([], ['transparency: what is wholly transparent is left grey, all else counts as it is'])
    """
    bands = 3 if found.inks else found.bands - found.alpha
    which = "those declared as" if rendering.bands is None else f"bands={shown(rendering.bands)} as"
    said = {
        f"values of {found.depth}, of which {rendering.words} become 0 and 255 (stretch=)": (
            found.depth != "uint8" or rendering.stretch is not None
        ),
        "transparency: what is wholly transparent is left grey, all else counts as it is": found.alpha,
        f"{bands} bands, of which {which} red, green and blue are taken": bands not in (1, 3)
        or (rendering.bands is not None),
        "four inks (CMYK), which become colours by a plain rule, without a profile": found.inks,
        "a palette, whose colours are taken": found.palette,
        "an EXIF orientation, by which they are turned upright before boxes count": found.orientation > 1,
        "several pages, of which the first is taken": found.pages > 1,
    }
    return [words for words, is_so in said.items() if is_so and not found.fault]


def shrunk(notes: Annotations, imgsz: int) -> list[str]:
    """That images are shrunk by more than SHRINK when their longer side becomes `imgsz` px, and what that does."""
    factor = notes.sizes_hw.max(axis=1, initial=0) / imgsz
    count = int((factor > SHRINK).sum())
    if not count:
        return []
    objects = notes.labels != IGNORED
    sides = notes.sides[objects].max(axis=1, initial=0)
    after = sides / factor[notes.image_index[objects]].clip(min=1)
    lost = ((sides >= SEEN) & (after < SEEN)).sum() / max(len(sides), 1)
    return [
        f"{count:,} of {len(factor):,} images are shrunk by up to {factor.max():.1f} to imgsz={imgsz}: {lost:.0%} of "
        f"the objects fall under {SEEN} px; tile=auto reads them in windows of their own resolution"
    ]


def told_kinds(looks: Iterable[Look], rendering: Rendering = AS_DECLARED) -> list[str]:
    """A line for each kind of picture that is not simply decoded, with how many there are."""
    return lines_of_kinds(Counter(words for found in looks for words in remarks(found, rendering)))


def lines_of_kinds(counts: Mapping[str, int]) -> list[str]:
    """The lines of `told_kinds` from how often each of the `remarks` was made."""
    return [f"{count:,} image{'s' if count > 1 else ''} with {words}" for words, count in counts.items()]


def tell_kinds(folder: Path, names: Sequence[str], rendering: Rendering = AS_DECLARED) -> None:
    """Say on stderr what is done to the pictures of a folder, by their headers."""
    for line in told_kinds(in_threads(lambda name: look(folder / name), names, f"{folder.name}: kinds"), rendering):
        tell(f"{folder}: {line}")


def with_own_sizes(notes: Annotations, folder: Path) -> Annotations:
    """Annotations with the sizes of the pictures in `folder` where theirs are others, and a problem that tells it."""
    looks = in_threads(lambda name: look(folder / name), notes.file_names, f"{folder.name}: sizes")
    own = [(h, w) if found.fault else found.size_hw for found, (h, w) in zip(looks, notes.sizes_hw, strict=True)]
    sizes = np.array(own, np.int64).reshape(-1, 2)
    wrong = np.flatnonzero((sizes != notes.sizes_hw).any(axis=1))
    if not len(wrong):
        return notes
    (h, w), (own_h, own_w) = notes.sizes_hw[wrong[0]].tolist(), sizes[wrong[0]].tolist()
    such = f"such as {notes.file_names[wrong[0]]}: {w} x {h} px, the picture is {own_w} x {own_h}"
    what = f"{len(wrong):,} of {len(notes):,} images have a wrong size, {such}; the pictures' own sizes count"
    return replace(notes, sizes_hw=sizes, problems=[Problem("wrong sizes", str(notes.path), what), *notes.problems])
