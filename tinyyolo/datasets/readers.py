"""Which reader a file needs: GDAL, or the plain one, which must not read what GDAL alone knows."""

from __future__ import annotations

import mmap
from pathlib import Path

from PIL import UnidentifiedImageError

from tinyyolo.config import UserError
from tinyyolo.datasets import tiff
from tinyyolo.datasets.pixels import GEO
from tinyyolo.scenes import has, need
from tinyyolo.scenes.raster import RASTERS

TIFFS = frozenset({".tif", ".tiff"})  # of the rasters, those that are read without GDAL too, as far as that goes


def without(path: str | Path, error: Exception) -> str:
    """The words of a fault without the file that they begin with."""
    return str(error).removeprefix(f"{path}: ").removeprefix(": ")


def tiff_of(path: Path) -> tiff.Directory | None:
    """The directory of a TIFF; None for another format.

    Raises:
        UnidentifiedImageError: it begins as a TIFF, and is none.
    """
    with path.open("rb") as stream:
        if stream.read(4) not in tiff.MAGIC:
            return None
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = tiff.read(content)
    if found is None:
        raise UnidentifiedImageError
    return found


def plain_content(path: Path) -> bytes | None:
    """The content of a file of which nobody asks which reader it needs; None for a TIFF and what GDAL alone reads.

    Training reads such a file millions of times, and looking whether a package is installed takes long.
    """
    if path.suffix.lower() in RASTERS:
        return None
    with path.open("rb") as stream:
        return None if stream.peek(4)[:4] in tiff.MAGIC else stream.read()


def read_by_gdal(path: str | Path) -> bool:
    """Whether a file is read by GDAL: every TIFF but those of cameras and printers, which it shows as they are stored.

    Raises:
        UserError: nothing else reads it, and it is not installed.
        OSError: there is no such file.
    """
    path = Path(path)
    if (suffix := path.suffix.lower()) in RASTERS and suffix not in TIFFS:
        need("rasterio", f"{path}: a {suffix} file")
        return True
    if not has("rasterio") or (found := tiff_of(path)) is None:
        return False
    return found.photometric != tiff.INKS and (found.first(tiff.ORIENTATION, 1) == 1 or found.placed)


def check_plain(path: Path) -> None:
    """Raise UserError where GDAL, which is not installed, knows more of a TIFF, by it or by a file beside it."""
    if has("rasterio") or (found := tiff_of(path)) is None:
        return
    said = found.needs_gdal
    mask, aux = Path(f"{path}.msk"), Path(f"{path}.aux.xml")
    if aux.is_file() and any(word in aux.read_bytes() for word in (b"<ColorInterp", b"<NoDataValue")):
        said = said or f"{aux.name} says more of it"
    if mask.is_file():
        said = said or f"{mask.name} is its mask"
    if said:
        raise UserError(f"{path}: {said}: {GEO}")
