"""The one opener of image files that are read by windows."""

from __future__ import annotations

from pathlib import Path

from tinyyolo.datasets import images
from tinyyolo.datasets.readers import read_by_gdal
from tinyyolo.scenes.picture import Picture
from tinyyolo.scenes.raster import Raster, open_raster
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering


def open_scene(path: str | Path, rendering: Rendering = AS_DECLARED) -> Picture | Raster:
    """An image file whose windows can be read: what GDAL reads from its file, all else decoded.

    Args:
        path: the file.
        rendering: which of its bands and values are shown, and how.

    Raises:
        ValueError: it cannot be read; says why.
    """
    return open_raster(path, rendering) if by_windows(path) else Picture(*images.read(path, rendering))


def by_windows(path: str | Path) -> bool:
    """Whether the windows of a file are read from it: of others all pixels are decoded first."""
    try:
        return read_by_gdal(path)
    except (OSError, ValueError):
        return False  # said elsewhere, in the words of all other images
