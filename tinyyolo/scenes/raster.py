"""Georeferenced scenes, read by windows: which bands are red, green and blue, which values are dark and bright."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.scenes import need
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering
from tinyyolo.scenes.sweep import PAD
from tinyyolo.scenes.windows import Span, Window

COLOURS = ("red", "green", "blue")
MASKS = ("alpha",)  # of a band that is no picture
RASTERS = (".tif", ".tiff")  # files that may have a place on the map
OVERVIEW = 1024  # px of the longer side of what percentiles are taken from
PERCENTILES = (2.0, 98.0)  # of the valid pixels of a band: what becomes 0 and 255


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Within this context a fault of the file is a UserError that names it."""
    import rasterio

    try:
        yield
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError, OSError) as error:
        raise UserError(f"{path}: not readable as a raster: {' '.join(str(error).split())}") from error


@dataclass
class Raster:
    """An open scene.

    Attributes:
        path: of the file.
        size_hw: px.
        bands: three of the file, from 1, that are shown as red, green and blue; all the same for a grey one.
        stretch: (3, 2) values that become 0 and 255, None where they are 0 to 255 already.
        crs: well-known text, "" if there is none.
        transform: a, b, c, d, e, f of x = a col + b row + c, y = d col + e row + f; None if there is none.
        palette: (256, 3) RGB of an indexed band.
        words: how bands and values are taken, for one line.
    """

    path: Path
    size_hw: tuple[int, int]
    bands: tuple[int, int, int]
    stretch: np.ndarray | None
    crs: str
    transform: tuple[float, float, float, float, float, float] | None
    palette: np.ndarray | None
    words: str
    source: Any = field(repr=False)  # None while it is closed

    def read(self, window: Window, zoom: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (h, w, 3) uint8 BGR of a window, and (h, w) bool where they are valid.

        Args:
            window: in pixels of the scene resampled by `zoom`.
            zoom: the factor.

        Raises:
            UserError: that part of the file is damaged.
        """
        import rasterio
        from rasterio.enums import Resampling
        from rasterio.windows import Window as Part

        (height, width), (x, y) = window.size_hw, window.origin
        if self.source is None:
            with readable(self.path):
                self.source = rasterio.open(self.path)
        part = Part(x / zoom, y / zoom, width / zoom, height / zoom)
        way = Resampling.nearest if zoom == 1 or self.palette is not None else Resampling.average
        way = Resampling.bilinear if zoom > 1 and self.palette is None else way
        with readable(f"{self.path}: {width}x{height} px at {x}, {y}"):
            wanted = sorted(set(self.bands))
            found = self.source.read(wanted, window=part, out_shape=(len(wanted), height, width), resampling=way)
            valid = self.source.dataset_mask(window=part, out_shape=(height, width)) > 0
        if found.dtype.kind == "f":
            valid &= np.isfinite(found).all(axis=0)
        layers = [found[wanted.index(band)] for band in self.bands]
        if self.palette is not None:
            pixels = self.palette[layers[0]]
        elif self.stretch is None:
            pixels = np.stack(layers, axis=-1)
        else:
            pixels = stretched(np.stack(layers, axis=-1), self.stretch)
        return np.ascontiguousarray(pixels[..., ::-1]), valid

    def close(self) -> None:
        """Close the file; `read` opens it again."""
        if self.source is not None:
            self.source.close()
            self.source = None


def open_raster(path: str | Path, rendering: Rendering = AS_DECLARED) -> Raster:
    """Open a scene of any format that GDAL reads; needs `pip install tinyyolo[geo]`.

    Args:
        path: the file.
        rendering: which of its bands and values are shown, and how.

    Raises:
        UserError: unreadable, nothing but nodata, bands that it does not have, or none given where the file does not
            say which they are.
    """
    need("rasterio", f"{path}: reading a scene by windows")
    import rasterio

    path, bands, stretch = Path(path), rendering.bands, rendering.stretch
    with readable(path):
        source = rasterio.open(path)
        names = [colour.name for colour in source.colorinterp]
        chosen = chosen_bands(path, names, bands)
        palette = None
        if bands is None and names[chosen[0] - 1] == "palette":
            table = source.colormap(chosen[0])
            palette = np.array([table.get(i, (0, 0, 0))[:3] for i in range(256)], np.uint8)
        limits, said = None, "bit values as they are"
        if palette is None and (stretch is not None or source.dtypes[chosen[0] - 1] != "uint8"):
            limits, said = limits_of(path, source, chosen, stretch)
    return Raster(
        path,
        (source.height, source.width),
        chosen,
        limits,
        *place_of(source),
        palette,
        f"bands {', '.join(map(str, dict.fromkeys(chosen)))} of {source.count}, {said}",
        source,
    )


def place_of(source: Any) -> tuple[str, tuple[float, float, float, float, float, float] | None]:
    """CRS and transform of an open file, see `Raster`; a CRS without a transform, as of control points, is no place."""
    transform = source.transform
    if transform.is_identity:
        return "", None
    six = transform.a, transform.b, transform.c, transform.d, transform.e, transform.f
    return source.crs.to_wkt() if source.crs else "", six


def place_of_file(path: str | Path) -> tuple[str, tuple[float, float, float, float, float, float] | None]:
    """CRS and transform of a picture, whatever its bands; "" and None of what is no raster on a map."""
    if Path(path).suffix.lower() not in RASTERS or not Path(path).is_file():
        return "", None
    need("rasterio", f"{path}: its place on the map")
    import rasterio

    with readable(path), rasterio.open(path) as source:
        return place_of(source)


def chosen_bands(path: str | Path, names: Sequence[str], bands: Sequence[int] | None) -> tuple[int, int, int]:
    """Which bands, from 1, are red, green and blue.

    Args:
        path: names the file in messages.
        names: what each band is declared to be: red, green, blue, alpha, gray, palette, undefined, ...
        bands: what the user asks for.

    Raises:
        UserError: the file does not have them, or does not say which they are.

    Examples:
        >>> chosen_bands("a.tif", ["blue", "green", "red", "alpha"], None), chosen_bands("a.tif", ["gray"], None)
        ((3, 2, 1), (1, 1, 1))
    """
    there = ", ".join(f"{i} {name}" for i, name in enumerate(names, 1))
    if bands is not None:
        given = [bands] if isinstance(bands, int) else list(bands)
        if len(given) not in (1, 3) or not all(type(b) is int and 1 <= b <= len(names) for b in given):
            raise UserError(f"bands={bands}: {path}: expected one or three of its bands; Choices: {there}")
        red, green, blue = given * (3 // len(given))
        return red, green, blue
    if all(name in names for name in COLOURS):
        return names.index("red") + 1, names.index("green") + 1, names.index("blue") + 1
    pictures = [i for i, name in enumerate(names, 1) if name not in MASKS]
    if len(pictures) == 1:
        return pictures[0], pictures[0], pictures[0]
    raise UserError(f"{path}: it does not say which bands are red, green and blue: bands=[r,g,b]; Choices: {there}")


def limits_of(
    path: str | Path, source: Any, bands: Sequence[int], stretch: Sequence[float] | None
) -> tuple[np.ndarray, str]:
    """(3, 2) values of each band that become 0 and 255, and the words for it.

    Raises:
        UserError: no valid pixel, or limits that are none.
    """
    if stretch is not None:
        low, high = (float(value) for value in stretch) if len(list(stretch)) == 2 else (0.0, 0.0)
        if not low < high:
            raise UserError(f"stretch={list(stretch)}: expected the values that become 0 and 255, as [low, high]")
        return np.array([[low, high]] * 3), f"values {low:g} to {high:g}"
    factor = max(1, max(source.height, source.width) / OVERVIEW)
    shape = (max(1, round(source.height / factor)), max(1, round(source.width / factor)))
    limits = []
    for band in bands:
        values = source.read(band, out_shape=shape, masked=True)
        values = np.ma.masked_invalid(values).compressed()
        if not values.size:
            raise UserError(f"{path}: no valid pixel in band {band}: nothing but nodata")
        low, high = np.percentile(values, PERCENTILES)
        if low == high:  # nearly all the scene is one value
            low, high = values.min(), max(values.max(), values.min() + 1)
        limits.append((float(low), float(high)))
    said = "; ".join(f"{low:g} to {high:g}" for low, high in dict.fromkeys(limits))
    return np.array(limits), f"values {said} (2 and 98 % of the scene)"


def stretched(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(…, 3) uint8 of values (…, 3): the limits (3, 2) become 0 and 255, what lies beyond them too.

    Examples:
        >>> stretched(np.array([[0, 500, 2000]], np.uint16), np.array([[0, 1000]] * 3)).tolist()
        [[0, 128, 255]]
    """
    low, high = limits[:, 0].astype(np.float32), limits[:, 1].astype(np.float32)
    share = (np.nan_to_num(values.astype(np.float32)) - low) / (high - low)
    return (np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)


def overview(raster: Raster, side: int = OVERVIEW) -> np.ndarray:
    """The whole scene (h, w, 3) uint8 BGR, its longer side at most `side` px; what is not valid is grey."""
    height, width = raster.size_hw
    zoom = min(1.0, side / max(height, width))
    h, w = max(1, round(height * zoom)), max(1, round(width * zoom))
    pixels, valid = raster.read(Window(Span(0, w, 0, w), Span(0, h, 0, h)), min(w / width, h / height))
    pixels[~valid] = PAD
    return pixels
