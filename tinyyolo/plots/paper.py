"""Paper to write on: type, and images laid out beside and under each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tinyyolo.plots.pictures import INK, PAPER

GAP = 10  # px
TEXT, SMALL = 20, 14  # px, sizes of type


@cache
def font(size: int, bold: bool = False) -> Any:
    """A font with the letters of Europe, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def fitting(text: str, size: int, width: int, bold: bool = False) -> str:
    """As much of a text as is no wider than `width` px."""
    while text and font(size, bold).getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 1 else ""
    return text


class Pen:
    """Writes on an image (h, w, 3) uint8 BGR, of which `image` is the result."""

    def __init__(self, image: np.ndarray):
        self.canvas = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
        self.draw = ImageDraw.Draw(self.canvas)

    def text(self, xy: tuple[float, float], words: str, size: int, **more: Any) -> None:
        """Words whose left upper corner is at `xy`."""
        bold = more.pop("bold", False)
        self.draw.text(xy, words, font=font(size, bold), **{"fill": (INK,) * 3, **more})

    @property
    def image(self) -> np.ndarray:
        """What was drawn, (H, W, 3) uint8 BGR."""
        return np.ascontiguousarray(np.asarray(self.canvas)[..., ::-1])


def sheet_of(height: int, width: int) -> np.ndarray:
    """Paper."""
    return np.full((height, width, 3), PAPER, np.uint8)


def pile(images: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Images under each other on paper."""
    width = max(image.shape[1] for image in images)
    pads = [((0, gap), (0, width - image.shape[1]), (0, 0)) for image in images]
    rows = [np.pad(image, pad, constant_values=PAPER) for image, pad in zip(images, pads, strict=True)]
    return np.vstack(rows)[: -gap or None]


def side_by_side(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images in a row on paper."""
    row: np.ndarray = pile([image.transpose(1, 0, 2) for image in images]).transpose(1, 0, 2)
    return row
