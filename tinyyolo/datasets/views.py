"""Views of an image file of any size: all of it, small, and parts of it at its own size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.scene_files import open_scene
from tinyyolo.scenes import raster
from tinyyolo.scenes.picture import Picture
from tinyyolo.scenes.windows import Span, Window

View = Picture | raster.Raster


def opened_view(path: str | Path) -> View:
    """An open image; a larger TIFF is read by windows where the extra `geo` is installed. Close it.

    Raises:
        UserError: it cannot be read; names the file and says why.
    """
    try:
        return open_scene(path)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def blank(size_hw: tuple[int, int], grey: int) -> View:
    """An image of one grey, of any size; none of it stands in memory.

    Examples:
        >>> part(blank((900000, 900000), 7), 5, 5, 6, 6).tolist()
        [[[7, 7, 7]]]
    """
    return Picture(np.broadcast_to(np.uint8(grey), (*size_hw, 3)))


def in_memory(pixels: np.ndarray) -> View:
    """An image of pixels (H, W, 3) uint8 BGR."""
    return Picture(pixels)


def whole(view: View, side: int) -> np.ndarray:
    """All of it (h, w, 3) uint8 BGR, its longer side at most `side` px.

    Examples:
        >>> whole(Picture(np.zeros((40, 90, 3), np.uint8)), 30).shape
        (13, 30, 3)
    """
    if isinstance(view, raster.Raster):
        return raster.overview(view, side)
    factor = min(1.0, side / max(view.size_hw))
    height, width = (max(1, round(length * factor)) for length in view.size_hw)
    return cv2.resize(view.pixels, (width, height), interpolation=cv2.INTER_AREA)


def part(view: View, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The pixels (bottom - top, right - left, 3) uint8 BGR of a part inside it.

    Examples:
        >>> part(Picture(np.arange(75, dtype=np.uint8).reshape(5, 5, 3)), 1, 2, 3, 3).tolist()
        [[[33, 34, 35], [36, 37, 38]]]
    """
    pixels, _ = view.read(Window(Span(left, right, left, right), Span(top, bottom, top, bottom)))
    return np.asarray(pixels)
