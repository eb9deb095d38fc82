"""The one opener of image files that are read by windows."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tinyyolo.datasets import images
from tinyyolo.scenes.picture import Picture
from tinyyolo.scenes.raster import OVERVIEW, RASTERS, Raster, open_raster
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering


def open_scene(path: str | Path, rendering: Rendering = AS_DECLARED) -> Picture | Raster:
    """An image file whose windows can be read: a larger TIFF from its file, where the extra `geo` is installed.

    Args:
        path: the file.
        rendering: which of its bands and values are shown, and how.

    Raises:
        ValueError: it cannot be read; says why.
    """
    return open_raster(path, rendering) if by_windows(path) else Picture(images.load(path))


def by_windows(path: str | Path) -> bool:
    """Whether the windows of a file are read from it: of others all pixels are decoded first."""
    if Path(path).suffix.lower() not in RASTERS or find_spec("rasterio") is None:
        return False
    return max(images.look(path).size_hw) > OVERVIEW
