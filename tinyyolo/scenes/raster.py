"""Georeferenced scenes, read by windows: which bands are red, green and blue, which values are dark and bright."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tinyyolo.config import UserError
from tinyyolo.scenes import need
from tinyyolo.scenes.rendering import (
    AS_DECLARED,
    MANY,
    MASKS,
    OVERVIEW,
    Rendering,
    chosen_bands,
    limits_of,
    spots,
    stretched,
    thinned,
    words_of,
)
from tinyyolo.scenes.windows import Span, Window, windows
from tinyyolo.sizes import PAD

RASTERS = (".tif", ".tiff", ".jp2", ".j2k", ".vrt")  # files that may have a place on the map
CACHE = 32_000_000, 512_000_000  # bytes of GDAL's memory of decoded blocks: least, and most
SPARE = 1.25  # of its rows: what it writes down of its blocks counts, and one row too few decodes all again
COARSE = 0.25  # zoom below which it need not hold what the next window reads again
CHECKED = 2048  # px of a window's side where a file is read to its end
WHITE_IS_ZERO = "MINISWHITE"  # GDAL's words, of bands that are stored so
BITS = "NBITS"
warnings.filterwarnings("ignore", "Dataset has no geotransform")  # rasterio's, of a scene without a place on the map


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Within this context a fault of the file is a UserError that names it."""
    import rasterio

    try:
        yield
    except UserError:
        raise
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError, OSError, ValueError) as error:
        words = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{path}: not readable as a raster: {words}") from error


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
        palette: (N, 4) RGB and alpha of an indexed band.
        words: how bands and values are taken, for one line.
        white_is_zero: the values are those of a negative.
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
    white_is_zero: bool = False
    process: int = field(default_factory=os.getpid, repr=False)  # which may use `source`

    def read(self, window: Window, zoom: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (h, w, 3) uint8 BGR of a window, and (h, w) bool where they are valid.

        Args:
            window: in pixels of the scene resampled by `zoom`.
            zoom: the factor.

        Raises:
            UserError: that part of the file is damaged.
        """
        from rasterio.enums import Resampling
        from rasterio.windows import Window as Part

        (height, width), (x, y) = window.size_hw, window.origin
        if self.source is None or self.process != os.getpid():  # a handle of another process is not for this one
            with readable(self.path):
                self.source, self.process = opened(self.path), os.getpid()
        # The scene's sides by those that it has resampled: its last window ends where it ends.
        down, across = (side / max(1, round(side * zoom)) for side in self.size_hw)
        part = Part(x * across, y * down, width * across, height * down)
        way = Resampling.nearest if zoom == 1 or self.palette is not None else Resampling.average
        way = Resampling.bilinear if zoom > 1 and self.palette is None else way
        large = self.size_hw[0] * self.size_hw[1] > MANY and not self.source.overviews(self.bands[0])
        if zoom < COARSE and large:  # the mean would decode every pixel of it for one picture
            way = Resampling.nearest
        beside = zoom >= COARSE and part.width < self.size_hw[1]  # another window of these rows is read next
        remember(self.source, part.height if beside else 0, part.width)
        with readable(f"{self.path}: {width}x{height} px at {x}, {y}"):
            wanted = sorted(set(self.bands))
            found = values_of(self.source, wanted, window=part, out_shape=(len(wanted), height, width), resampling=way)
            masks = masks_of(self.source, wanted, window=part, out_shape=(len(wanted), height, width))
        valid: np.ndarray = np.asarray(masks.any(axis=0))
        if found.dtype.kind == "f":
            valid &= np.isfinite(found).any(axis=0)
        layers = [found[wanted.index(band)] for band in self.bands]
        if self.palette is not None:
            colours = self.palette[layers[0].clip(0, len(self.palette) - 1)]
            layers, valid = [*colours[..., :3].transpose(2, 0, 1)], valid & (colours[..., 3] > 0)
        elif self.stretch is not None:
            layers = [*stretched(np.stack(layers, axis=-1), self.stretch).transpose(2, 0, 1)]
        pixels = cv2.merge(layers[::-1])  # a fiftieth of the time that numpy takes
        return 255 - pixels if self.white_is_zero else pixels, valid

    def close(self) -> None:
        """Close the file; `read` opens it again."""
        if self.source is not None and self.process == os.getpid():
            self.source.close()
        self.source = None

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: all but the open file."""
        return {**vars(self), "source": None}


def opened(path: Path) -> Any:
    """A file open for reading."""
    import rasterio

    return rasterio.open(path)


def remember(source: Any, rows: float, columns: float) -> None:
    """Let GDAL's memory of decoded blocks hold two windows of an open file, rows x columns, and not much more.

    A file in strips is held over its width: a row of windows then decodes a strip once, not once a window (20,000 px
    wide and deflated: 2.2 s instead of 5.6 for 111 windows), and memory does not grow with the height of the scene. It
    is one memory for the whole process.
    """
    import rasterio

    kinds = [np.dtype(kind).itemsize if not kind.startswith("complex") else 0 for kind in source.dtypes]
    height, width = (max(sides) for sides in zip(*source.block_shapes, strict=True))
    rows = SPARE * rows + 2 * height if rows else SPARE * height  # an overview is read line by line
    columns = source.width if width >= source.width else min(source.width, 2 * (columns + 2 * width))
    least, most = CACHE
    rasterio.env.set_gdal_config("GDAL_CACHEMAX", int(min(max(least, rows * columns * sum(kinds)), most)))


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
    path, stretch = Path(path), Rendering(stretch=rendering.stretch).checked().stretch
    with readable(path), ExitStack() as fault:
        source = opened(path)
        fault.callback(source.close)
        names = names_of(source)
        chosen = chosen_bands(path, names, rendering.bands)
        stored = [source.dtypes[band - 1] for band in chosen]
        if complex_ones := [kind for kind in stored if kind.startswith("complex")]:
            raise UserError(f"{path}: it holds {complex_ones[0]}: expected real numbers; write its magnitude first")
        palette = palette_of(source, chosen[0]) if names[chosen[0] - 1] == "palette" and len({*chosen}) == 1 else None
        told = source.tags(chosen[0], ns="IMAGE_STRUCTURE") | source.tags(ns="IMAGE_STRUCTURE")
        bits = int(told.get(BITS, 8))
        limits, said = None, "8-bit values as they are"
        if palette is not None:
            said = "colours of its palette"
        elif stretch is not None or {*stored} != {"uint8"}:
            limits = limits_of(path, samples(source, chosen), stretch)
            said = words_of(limits, stretch)
        elif bits < 8:
            limits, said = np.array([[0, 2**bits - 1]] * len(chosen)), f"{bits}-bit values"
        fault.pop_all()  # there was none: it stays open
    return Raster(
        path,
        (source.height, source.width),
        chosen,
        limits,
        *place_of(source),
        palette,
        f"bands {', '.join(map(str, dict.fromkeys(chosen)))} of {source.count}, {said}",
        source,
        told.get(WHITE_IS_ZERO) == "YES" and palette is None,
    )


def header(path: str | Path) -> tuple[tuple[int, int], list[str], str]:
    """Height and width of a file that GDAL reads, what each band is declared to be, and numpy's name of their type.

    Raises:
        UserError: it is none.
    """
    with readable(path), opened(Path(path)) as source:
        kinds = [kind for kind, name in zip(source.dtypes, names_of(source), strict=True) if name not in MASKS]
        return (source.height, source.width), names_of(source), (kinds or source.dtypes)[0]


def read_all(path: str | Path, rendering: Rendering = AS_DECLARED) -> None:
    """Decode every pixel that a rendering shows, and keep none. UserError: it cannot be opened, or is damaged."""
    with closing(open_raster(path, rendering)) as scene:
        for window in windows(scene.size_hw, CHECKED, 0, 1):
            scene.read(window)


def names_of(source: Any) -> list[str]:
    """What each band of an open file is declared to be."""
    return [colour.name for colour in source.colorinterp]


def palette_of(source: Any, band: int) -> np.ndarray:
    """(N, 4) uint8 RGB and alpha of the values of an indexed band."""
    table = source.colormap(band)
    return np.array([table.get(i, (0, 0, 0, 255)) for i in range(max(table, default=0) + 1)], np.uint8)


def values_of(source: Any, bands: Sequence[int], **how: Any) -> np.ndarray:
    """(B, h, w) values of some bands of an open file, of one type that holds them all."""
    if len({source.dtypes[band - 1] for band in bands}) > 1:  # which no one call reads
        one = {**how, "out_shape": how["out_shape"][1:]}
        return np.stack([source.read(band, **one) for band in bands])
    found: np.ndarray = source.read(list(bands), **how)
    return found


def masks_of(source: Any, bands: Sequence[int], **how: Any) -> np.ndarray:
    """(B, h, w) bool, where some bands of an open file are valid by nodata, alpha or masks."""
    from rasterio.enums import MaskFlags

    flags = source.mask_flag_enums
    if all(MaskFlags.all_valid in flags[band - 1] for band in bands):
        return np.ones(how["out_shape"], bool)
    found: np.ndarray = source.read_masks(list(bands), **how) > 0
    return found


def samples(source: Any, bands: Sequence[int]) -> list[np.ndarray]:
    """Valid values of each of some bands: of the overview, or where a large scene has none, of spots all over it."""
    from rasterio.windows import Window as Part

    wanted, size_hw = sorted(set(bands)), (source.height, source.width)
    if source.overviews(wanted[0]) or source.height * source.width <= MANY:
        shape = (len(wanted), *thinned(size_hw))
        parts = [(values_of(source, wanted, out_shape=shape), masks_of(source, wanted, out_shape=shape))]
    else:
        parts = []
        for y, x in spots(size_hw):
            h, w = min(y.stop, size_hw[0]) - y.start, min(x.stop, size_hw[1]) - x.start
            how = {"window": Part(x.start, y.start, w, h), "out_shape": (len(wanted), h, w)}
            parts.append((values_of(source, wanted, **how), masks_of(source, wanted, **how)))
    found = [np.concatenate([values[i][valid[i]] for values, valid in parts]) for i in range(len(wanted))]
    found = [values[np.isfinite(values)] for values in found]
    return [found[wanted.index(band)] for band in bands]


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


def overview(raster: Raster, side: int = OVERVIEW) -> np.ndarray:
    """The whole scene (h, w, 3) uint8 BGR, its longer side at most `side` px; what is not valid is grey."""
    height, width = raster.size_hw
    zoom = min(1.0, side / max(height, width))
    h, w = thinned(raster.size_hw, side)
    pixels, valid = raster.read(Window(Span(0, w, 0, w), Span(0, h, 0, h)), zoom)
    pixels[~valid] = PAD
    return pixels
