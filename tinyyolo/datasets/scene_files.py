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
    try:
        by_gdal = read_by_gdal(path)
    except (OSError, ValueError):
        by_gdal = False  # said below, in the words of all other images
    return open_raster(path, rendering) if by_gdal else Picture(*images.read(path, rendering))
