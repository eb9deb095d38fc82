"""The picture of docs/architecture.md: python docs/generator/architecture.py docs/architecture.svg

Boxes have a ground of their own and arrows a middle grey, so that it can be read on light and on dark pages.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH, GAP = 400, 22  # px: on a phone the letters are as large as here; between rows
LINE, ABOVE, BELOW = 16, 20, 10  # px: from line to line, from the edge to the foot of the first one, and of the last
LEFT, RIGHT, REST = (8, 208), (244, 148), (140, 252)  # x and width, px
THIRDS = ((8, 120), (140, 120), (272, 120))


class Box(NamedTuple):
    """A step of an image's way, with files and folders of tinyyolo/; or, `added`, what a contributor does."""

    title: str
    lines: tuple[str, ...]
    added: bool = False

    @property
    def height(self) -> int:
        return ABOVE + LINE * len(self.lines) + BELOW

    def drawn(self, column: tuple[int, int], y: int) -> str:
        x, width = column
        ground, edge = ("#fff3e0", "#ef6c00") if self.added else ("#e0f2f1", "#00796b")
        font = "" if self.added else ' font-family="monospace" font-size="11"'
        rect = f'<rect x="{x}" y="{y}" width="{width}" height="{self.height}" rx="6" fill="{ground}" stroke="{edge}"/>'
        title = f'<text x="{x + 10}" y="{y + ABOVE}" font-weight="bold" font-size="13">{escape(self.title)}</text>'
        below = (
            f'<text x="{x + 10}" y="{y + ABOVE + LINE * i}"{font}>{escape(text)}</text>'
            for i, text in enumerate(self.lines, 1)
        )
        return "\n".join((rect, title, *below))


# What an image goes through, and what stands beside each step.
STEPS = (
    (
        Box("Images, scenes, labels", ("datasets/images.py", "datasets/formats")),
        (Box("Add a format", ("a file in formats/,", "a line in FORMATS"), added=True),),
    ),
    (Box("Windows, augmentation", ("scenes/windows.py", "datasets/train")), ()),
    (
        Box("Backbone", ("backbones",)),
        (Box("Add a part", ("a file in its folder,", "a line in its dict"), added=True),),
    ),
    (Box("Neck", ("necks",)), ()),
    (
        Box("Head", ("heads",)),
        (
            Box("Assigner", ("assigners", "boxes/similarity.py")),
            Box("Add an assigner", ("a file in assigners/,", "a line in ASSIGNERS"), added=True),
        ),
    ),
    (Box("Candidates to detections", ("detectors/postprocess.py", "boxes/nms.py")), ()),
)
ENDS = (
    Box("Evaluation", ("evaluation", "analysis")),
    Box("Maps, tracks", ("engine/predict", "engine/track")),
    Box("Export", ("export", "engine/deploy")),
)
EXPORT = Box("Add an export", ("a file in export/, a line in engine/model.py",), added=True)


def picture() -> str:
    """The SVG."""
    parts, y, centre = [], 8, LEFT[0] + LEFT[1] // 2
    for step, beside in STEPS:
        parts.append(step.drawn(LEFT, y))
        side = y
        for box in beside:
            parts.append(box.drawn(RIGHT, side))
            if not box.added:  # in training the head asks it
                parts.append(arrow((sum(LEFT), y + step.height // 2), (RIGHT[0], y + step.height // 2), both=True))
            side += box.height + GAP // 2
        below = max(y + step.height + GAP, side + GAP // 2 if len(beside) > 1 else 0)
        ends = THIRDS if step is STEPS[-1][0] else ()
        if not ends:
            parts.append(arrow((centre, y + step.height), (centre, below)))
        y = below
    bar = y - GAP // 2
    middles = [x + width // 2 for x, width in THIRDS]
    parts.append(path(f"M{centre} {y - GAP}V{bar}M{middles[0]} {bar}H{middles[-1]}"))
    for box, third, middle in zip(ENDS, THIRDS, middles, strict=True):
        parts += [arrow((middle, bar), (middle, y)), box.drawn(third, y)]
    y += ENDS[0].height + GAP // 2
    parts.append(EXPORT.drawn(REST, y))
    height = y + EXPORT.height + 8
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="12" fill="#1b2a29">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#78909c"/></marker></defs>',
        *parts,
        "</svg>\n",
    ))  # fmt: skip


def path(way: str, more: str = "") -> str:
    return f'<path d="{way}" fill="none" stroke="#78909c" stroke-width="1.5"{more}/>'


def arrow(start: tuple[int, int], end: tuple[int, int], both: bool = False) -> str:
    more = ' marker-end="url(#tip)"' + (' marker-start="url(#tip)"' if both else "")
    return path(f"M{start[0]} {start[1]}L{end[0]} {end[1]}", more)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
