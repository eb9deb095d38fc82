"""Image files: which there are, and the one opener that says what a file holds, or why not, and decodes it."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Sequence, Set
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageMode, UnidentifiedImageError

from tinyyolo.config import UserError
from tinyyolo.datasets import tiff
from tinyyolo.datasets.pixels import DEPTHS, EXIF_ORIENTATION, GEO, Pixels, decode
from tinyyolo.datasets.readers import check_plain, plain_content, read_by_gdal, tiff_of, without
from tinyyolo.io import new_file
from tinyyolo.scenes import has
from tinyyolo.scenes.raster import RASTERS, header, open_raster, overview, read_all
from tinyyolo.scenes.rendering import AS_DECLARED, COLOURS, MASKS, Rendering, chosen_bands
from tinyyolo.sizes import MOST_PIXELS, PAD

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp", *RASTERS})
TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height; OpenCV applies them on reading
LARGE_PIXELS = 50_000_000  # images above this are decoded one at a time when they are looked through
ONE_LARGE = threading.Lock()
JPEGS = ("JPEG", "MPO")  # MPO is several JPEGs, as drones write; the first counts
ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}  # how a JPEG and a PNG begin, and end unless cut short
# Pillow refuses what declares twice this, before anything is decoded; a file of 100 kB can declare gigabytes.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is above once this
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # the fault is told in our words

# Why an image cannot be used; further words are Pillow's own about damage that it found.
MISSING = "no such file"
EMPTY = "the file is empty"
UNKNOWN = "neither Pillow nor OpenCV can read it as an image"
CUT_SHORT = "truncated JPEG"
TOO_LARGE = f"more than {MOST_PIXELS:,} pixels"
NOT_DECODED = "OpenCV cannot decode it as an image of 8 or 16 bits"


class Look(NamedTuple):
    """What an image file holds, as `look` found it.

    Attributes:
        size_hw: height and width as decoded, orientation applied; 0, 0 where that could not be read.
        bands: in the file; three are decoded.
        depth: numpy's name of the type of a band; fewer than 8 bits count as uint8.
        orientation: EXIF's, 1 to 8; 1 is upright.
        palette: the band holds indices of colours.
        fault: why the image cannot be used; "" if it can.
        pages: pictures in the file, counted to two; the first is decoded.
        alpha: one of the bands is transparency.
        inks: the bands are cyan, magenta, yellow and black.
    """

    size_hw: tuple[int, int] = (0, 0)
    bands: int = 0
    depth: str = ""
    orientation: int = 1
    palette: bool = False
    fault: str = ""
    pages: int = 1
    alpha: bool = False
    inks: bool = False


def look(path: str | Path, *, to_end: bool = False, rendering: Rendering | None = None) -> Look:
    """What an image file holds, by its header; it does not raise for a file that is no image.

    Args:
        path: the file.
        to_end: look whether all of it is there too: a PNG's checksums, the end of a JPEG (which OpenCV reads without a
            word when it is cut short), the pixels of other formats, which have neither.
        rendering: look too whether it has these bands, or says which they are.
    """
    path, kind, found, gdal = Path(path), "", Look(), False
    try:
        if not path.stat().st_size:
            return Look(fault=EMPTY)
        gdal = read_by_gdal(path)
        if (described := _of_tiff(path)) is not None:
            kind, found = "TIFF", described
        elif not gdal:
            with Image.open(path) as image:
                kind, found = image.format or "", _described(image)
                if to_end:
                    image.verify()
        if gdal:
            found = _of_raster(path, found)
    except FileNotFoundError:
        return Look(fault=MISSING)
    except UnidentifiedImageError:
        return Look(fault=UNKNOWN)
    except Image.DecompressionBombError:
        return found._replace(fault=TOO_LARGE)
    except UserError as error:
        return found._replace(fault=without(path, error))
    except (OSError, SyntaxError, ValueError) as error:
        system = isinstance(error, OSError) and error.strerror
        words = f"not readable: {system}" if system else str(error) or type(error).__name__
        return found._replace(fault=" ".join(words.split()))
    if not gdal and math.prod(found.size_hw) > MOST_PIXELS:
        return found._replace(fault=TOO_LARGE)
    if not gdal and found.depth not in DEPTHS:
        return found._replace(fault=f"{NOT_DECODED}, it holds {found.depth}{f'; {GEO}' if kind == 'TIFF' else ''}")
    if not gdal and found.orientation in TURNED and kind not in (*JPEGS, "TIFF"):  # not every OpenCV turns these
        pixels = decode(path.read_bytes())
        return found._replace(fault=NOT_DECODED) if pixels is None else found._replace(size_hw=pixels.image.shape[:2])
    fault = _fault(path, found, kind, gdal, to_end, rendering)
    return found if not fault else found._replace(fault=fault)


def _fault(path: Path, found: Look, kind: str, gdal: bool, to_end: bool, rendering: Rendering | None) -> str:
    """Why a file whose header is sound cannot be shown, or is not all there; "" if it can and is."""
    try:
        if rendering is not None:
            chosen_bands(path, names_of(path, found, gdal), rendering.bands)
        if gdal and to_end:
            read_all(path, rendering or Rendering(bands=1))
        if gdal:
            return ""
        check_plain(path)
        if to_end and kind not in (*JPEGS, "PNG"):
            with ONE_LARGE if math.prod(found.size_hw) > LARGE_PIXELS else nullcontext():
                if decode(path.read_bytes(), rendering or Rendering(bands=1)) is not None:
                    return ""
            return NOT_DECODED if kind != "TIFF" or has("rasterio") else f"{NOT_DECODED}; {GEO}"
    except UserError as error:
        return without(path, error)
    return CUT_SHORT if to_end and kind in JPEGS and not _ends(path) else ""


def names_of(path: Path, found: Look, gdal: bool) -> Sequence[str]:
    """What each band of a file is declared to be."""
    if gdal:
        return header(path)[1]
    if (directory := tiff_of(path)) is not None:
        return directory.names
    return [*(["gray"] if found.bands - found.alpha == 1 and not found.palette else COLOURS), *MASKS * found.alpha]


def _of_raster(path: Path, found: Look) -> Look:
    """What GDAL says of a file."""
    size_hw, names, depth = header(path)
    return found._replace(
        size_hw=size_hw,
        bands=len(names),
        depth=depth,
        palette="palette" in names,
        alpha="alpha" in names,
        orientation=1,
    )


def _of_tiff(path: Path) -> Look | None:
    """What a TIFF's directory says; None for another format."""
    if (found := tiff_of(path)) is None:
        return None
    return Look(
        found.size_hw,
        found.bands,
        found.depth,
        found.first(tiff.ORIENTATION, 1),
        palette=found.photometric == tiff.PALETTE,
        pages=found.pages,
        alpha=found.bands in (2, 4) and found.alpha,
        inks=found.photometric == tiff.INKS,
    )


def _described(image: Any) -> Look:
    """What the header of a Pillow image of any other format says."""
    mode = ImageMode.getmode(image.mode)
    bands, depth = len(mode.bands), np.dtype(mode.typestr).name
    orientation = image.getexif().get(EXIF_ORIENTATION, 1) if "exif" in image.info else 1
    size_hw = image.size if orientation in TURNED else image.size[::-1]
    if ";16" in str(image.tile):  # a colour PNG, which Pillow reads as 8 bits
        depth = "uint16"
    depth, pages = "uint8" if depth == "bool" else depth, 1
    if image.format not in JPEGS:  # whose other pictures are previews
        pages = min(getattr(image, "n_frames", 1), 2)
    return Look(
        size_hw, bands, depth, orientation, image.mode == "P", "", pages, "A" in mode.bands, mode.mode == "CMYK"
    )


def _ends(path: Path) -> bool:
    """Whether a JPEG with a sound header has its end; some cameras write bytes behind it."""
    with path.open("rb") as stream:
        stream.seek(-2, os.SEEK_END)
        if stream.read() == ENDS[b"\xff\xd8"]:
            return True
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True


def read(path: str | Path, rendering: Rendering = AS_DECLARED) -> Pixels:
    """The decoded image (H, W, 3) uint8 BGR and where it is valid, from a path with any characters in it.

    Raises:
        ValueError: it is missing, cut short or no image, or its bands are not known, in the words of `look`.
    """
    path = Path(path)
    try:
        data = plain_content(path)
        if data is None and read_by_gdal(path):
            with closing(open_raster(path, rendering)) as scene:
                if math.prod(scene.size_hw) > MOST_PIXELS:
                    raise UserError(TOO_LARGE)
                return Pixels(overview(scene, max(scene.size_hw)), None)
        if data is None:
            check_plain(path)
            data = path.read_bytes()
        image = decode(data, rendering)
    except UserError as error:
        raise ValueError(without(path, error)) from error
    except (OSError, UnidentifiedImageError):
        data, image = b"", None
    if image is None or any(data.startswith(start) and not data.endswith(end) for start, end in ENDS.items()):
        fault = look(path, to_end=True, rendering=rendering).fault or ("" if image is not None else NOT_DECODED)
        if image is None or fault:
            raise ValueError(fault)
    return image


def load(path: str | Path, rendering: Rendering = AS_DECLARED) -> np.ndarray:
    """The decoded image (H, W, 3) uint8 BGR, what is not valid as grey as what the engine pads with; see `read`."""
    image, valid = read(path, rendering)
    if valid is not None:
        image[~valid] = PAD
    return image


def opened(path: str | Path, rendering: Rendering = AS_DECLARED) -> np.ndarray:
    """As `load`, for a path that a user gave.

    Raises:
        UserError: it is missing, cut short or no image; names the file.
    """
    try:
        return load(path, rendering)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    """The content of an image file, of an image (H, W, 3) uint8 BGR.

    Raises:
        UserError: OpenCV writes no such format, or not this image.
    """
    try:
        done, data = cv2.imencode(suffix, np.ascontiguousarray(image))
    except cv2.error:
        done = False
    if not done:
        raise UserError(f"OpenCV cannot encode an image of shape {image.shape} as {suffix}")
    return data.tobytes()


def save(path: str | Path, image: np.ndarray, *, overwrite: bool = False) -> Path:
    """Write an image (H, W, 3) uint8 BGR in the format of the path's suffix, whole or not at all; returns the path.

    Raises:
        UserError: the file exists and `overwrite` is not set, or it cannot be encoded.
    """
    path = Path(path)
    data = encode(image, path.suffix or ".png")
    with new_file(path, overwrite=overwrite, mode="wb") as stream:
        stream.write(data)
    return path


def list_images(folder: str | Path, suffixes: Set[str] = SUFFIXES) -> list[str]:
    """Image files under a folder by their suffix, hidden ones left out, sorted, as POSIX paths relative to it.

    Links to folders are followed, except to one that holds the link.

    Raises:
        UserError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such image folder{nearest_folder(folder)}")
    found: list[str] = []
    for root, folders, names in os.walk(str(folder), followlinks=True):
        above = {os.path.realpath(str(parent)) for parent in (root, *Path(root).absolute().parents)}
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(root, name)) not in above]
        paths = (Path(root, name) for name in names if not name.startswith("."))
        found += [path.relative_to(folder).as_posix() for path in paths if path.suffix.lower() in suffixes]
    return sorted(found)


def nearest_folder(folder: Path) -> str:
    """'; X has the folders a, b' for the deepest parent that exists."""
    for parent in folder.absolute().parents:
        if parent.is_dir():
            names = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
            return f"; {parent} has the folders {', '.join(names[:12]) or 'none'}{' ...' if len(names) > 12 else ''}"
    return ""
