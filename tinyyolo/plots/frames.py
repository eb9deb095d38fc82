"""Parts of images with boxes as panels of a figure: pixels stay squares and lines stay lines in PDF and SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.convert import centres, convert
from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.views import View, blank, opened_view, part
from tinyyolo.evaluation.report import find_image
from tinyyolo.plots.pictures import window

PANEL = 400  # px of the image, at most, where objects are as large as `pictures.WANTED_SIDE`
PRINTED = 500  # a panel has about so many pixels: viewers smooth what they enlarge
NO_IMAGE = 222  # grey of the ground where there is no file
LINE, RIM = 0.9, 0.4  # pt, of a line, and beyond a light one
SMALL = 8  # pt, of words
SUGGESTED = 10  # names of images that a message may choose from


class Style(NamedTuple):
    """How boxes of one kind are drawn, and what the legend calls them; `rim` is a darker line around a light one."""

    name: str
    colour: str
    line: Any = "-"
    width: float = LINE
    rim: str = ""

    def effects(self, width: float) -> list[Any]:
        """The rim, for a line of this width."""
        from matplotlib.patheffects import withStroke

        return [withStroke(linewidth=width + 2 * RIM, foreground=self.rim)] if self.rim else []


class Crop(NamedTuple):
    """A part of an image: its pixels (h, w, 3) uint8 RGB and where it lies, px."""

    pixels: np.ndarray
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def aspect(self) -> float:
        """Width by height."""
        return (self.x1 - self.x0) / (self.y1 - self.y0)

    def holds(self, boxes: np.ndarray) -> np.ndarray:
        """Which boxes (K, 4) xyxy have their centre in it, (K,) bool."""
        middle = centres(boxes)
        return np.asarray(((middle >= (self.x0, self.y0)) & (middle <= (self.x1, self.y1))).all(1))


def chosen_files(
    names: Sequence[str], order: Iterable[int], folder: Path | None, show: Sequence[str], limit: int
) -> dict[int, Path | None]:
    """Index and file of the images of a figure: those of `show`, else the first of `order` whose files are there.

    Args:
        names: file names of all images.
        order: indices, the best ones first.
        folder: of the files; None gives none, and boxes are drawn alone.
        show: names of the wanted images, whole or without folders.
        limit: how many of `order`.

    Raises:
        UserError: no such folder, or none of the images in it, or one of `show` that there is not.

    Examples:
        >>> names = ["a.png", "b/c.png"]
        >>> chosen_files(names, [1, 0], None, [], 1), chosen_files(names, [], None, ["a.png", "c.png"], 1)
        ({1: None}, {0: None, 1: None})
    """
    if folder is not None and not folder.is_dir():
        raise UserError(f"images={folder}: no such folder")
    chosen: dict[int, Path | None] = {}
    for i in [place_of(names, name, "show") for name in show] or order:
        if len(chosen) >= limit and not show:
            break
        file = find_image(folder, names[i])
        if file is not None or folder is None:
            chosen[i] = file
        elif show:
            raise UserError(f"images={folder}: has no {names[i]!r} that can be opened; links out of it do not count")
    if names and limit and not chosen:
        raise UserError(f"images={folder}: has none of the images, such as {names[0]!r}; links out of it do not count")
    return chosen


def place_of(names: Sequence[str], name: str, key: str) -> int:
    """Index of an image by its file name, whole or without folders; `key` is what a message calls it.

    Raises:
        UserError: no such image.
    """
    index = {Path(one).name: i for i, one in enumerate(names)} | {one: i for i, one in enumerate(names)}
    if name not in index:
        raise UserError(f"{key}={name}: no such image; {suggest(name, list(index)[:SUGGESTED])}")
    return index[name]


def view_of(file: Path | None, size_hw: Sequence[int], boxes: np.ndarray) -> View:
    """An open image; where there is no file, plain ground of `size_hw` px, of which 0 is as far as the boxes go.

    Raises:
        UserError: the image cannot be read.
    """
    if file is not None:
        return opened_view(file)
    far_x, far_y = np.ceil(np.concatenate([boxes[:, 2:], [[1.0, 1]]]).max(0)).astype(int).tolist()
    height, width = size_hw
    return blank((int(height) or far_y, int(width) or far_x), NO_IMAGE)


def busiest(file: Path | None, size_hw: Sequence[int], boxes: np.ndarray, wanted: np.ndarray) -> Crop:
    """The part of an image with most of the `wanted` boxes, see `pictures.window`.

    Args:
        file, size_hw, boxes: the image, see `view_of`.
        wanted: (K, 4) xyxy px.

    Raises:
        UserError: the image cannot be read.
    """
    view = view_of(file, size_hw, boxes)
    try:
        place = window(np.broadcast_to(np.uint8(0), (*view.size_hw, 3)), wanted, PANEL)
        return crop(view, *place[:4])
    finally:
        view.close()


def around(view: View, middle: Sequence[float], side: float) -> Crop:
    """A square of `side` px around a place (x, y), moved into the image and no larger than it."""
    height, width = view.size_hw
    w, h = (max(1, min(round(side), length)) for length in (width, height))
    x0 = int(np.clip(round(middle[0] - w / 2), 0, width - w))
    y0 = int(np.clip(round(middle[1] - h / 2), 0, height - h))
    return crop(view, x0, y0, x0 + w, y0 + h)


def crop(view: View, x0: int, y0: int, x1: int, y1: int) -> Crop:
    """A part of an image."""
    return Crop(part(view, x0, y0, x1, y1)[..., ::-1], x0, y0, x1, y1)


def show(axis: Any, shown: Crop) -> None:
    """Put a part of an image on an axis, whose units then are the image's pixels."""
    times = -(-PRINTED // max(shown.pixels.shape[:2]))
    pixels = shown.pixels.repeat(times, 0).repeat(times, 1)
    axis.imshow(pixels, extent=(shown.x0, shown.x1, shown.y1, shown.y0), interpolation="none")
    axis.set(xlim=(shown.x0, shown.x1), ylim=(shown.y1, shown.y0), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def frame(axis: Any, boxes: np.ndarray, style: Style) -> None:
    """Draw boxes (K, 4) xyxy px with one style."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    patches = [Rectangle((x, y), w, h) for x, y, w, h in convert(boxes, "xyxy", "xywh").tolist()]
    drawn = PatchCollection(patches, facecolors="none", edgecolors=style.colour, linestyles=[style.line])
    drawn.set(linewidths=style.width, label=style.name, path_effects=style.effects(style.width))
    axis.add_collection(drawn, autolim=False)


def panel(axis: Any, shown: Crop, boxes: Mapping[Any, np.ndarray], styles: Mapping[Any, Style]) -> None:
    """A part of an image with its boxes (K, 4) xyxy px by their styles' names, in the order of the styles."""
    show(axis, shown)
    for word, style in styles.items():
        if len(boxes.get(word, ())):
            frame(axis, boxes[word], style)


def legend(figure: Any, styles: Sequence[Style]) -> None:
    """The legend of a figure, a sample of each style, above all panels."""
    from matplotlib.lines import Line2D

    lines = []
    for style in styles:
        width = 2 * style.width
        look = {"color": style.colour, "linestyle": style.line, "path_effects": style.effects(width)}
        lines.append(Line2D([], [], linewidth=width, label=style.name, **look))
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), fontsize=SMALL + 1, frameon=False)


def numbered(counts: Mapping[str, int]) -> str:
    """Numbers behind their names in one line.

    Examples:
        >>> numbered({"TP": 1200, "FP": 0})
        'TP 1,200, FP 0'
    """
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def short(name: str, most: int = 28) -> str:
    """The last part of a path, its middle left out where it is long.

    Examples:
        >>> short("a/b.png"), short("0123456789.png", 9)
        ('b.png', '0123….png')
    """
    name = Path(name).name
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2) :]}"
