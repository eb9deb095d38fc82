"""The plain reader: pixels of a file by OpenCV and Pillow, without GDAL; by the same rules of bands and values."""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageMode

from tinyyolo.datasets import tiff
from tinyyolo.scenes.rendering import AS_DECLARED, MASKS, Rendering, chosen_bands, eight_bits
from tinyyolo.sizes import MOST_PIXELS

EXIF_ORIENTATION = 274
DEPTHS = ("uint8", "uint16")  # what is read
GREY = ("1", "L", "I", "F")  # how Pillow's modes of one band begin
GEO = "pip install 'tinyyolo[geo]' reads it"


class Pixels(NamedTuple):
    """A decoded image (H, W, 3) uint8 BGR, and (H, W) bool where it is valid; None for everywhere."""

    image: np.ndarray
    valid: np.ndarray | None


def decode(data: bytes, rendering: Rendering = AS_DECLARED) -> Pixels | None:
    """Pixels of a file's content; None for what is not decoded.

    Of a TIFF's pages the first is taken. Pixels that are wholly transparent, or nodata, are not valid.

    Raises:
        UserError: bands that the file does not have, or none given where it does not say which they are; or no
            valid pixel.
    """
    found = _of_tiff(data, rendering) if data[:4] in tiff.MAGIC else _of_other(data, rendering)
    if found is None or found.image.dtype not in DEPTHS:
        return None
    values, valid = found
    if values.dtype != np.uint8 or rendering.stretch is not None:
        colours = np.broadcast_to(values[..., ::-1], (*values.shape[:2], 3))
        values = eight_bits(colours, rendering.stretch, None if valid is None else valid[..., ::-1], "")[..., ::-1]
    values = values if values.shape[2] == 3 else values.repeat(3, axis=2)
    return Pixels(np.ascontiguousarray(values), None if valid is None else np.asarray(valid.any(axis=2)))


def _of_tiff(data: bytes, rendering: Rendering) -> Pixels | None:
    """Values (H, W, 1 or 3) of a TIFF, blue first, and which of them are valid, of that shape or of one band."""
    found = tiff.read(data)
    if found is None or math.prod(found.size_hw) > MOST_PIXELS:
        return None
    names = found.names
    bands = [band - 1 for band in chosen_bands("", names, rendering.bands)]
    wanted = None if names == ["palette"] else bands[:1] if len({*bands}) == 1 else bands
    image = tiff.pixels(data, found, opencv, wanted)
    if image is None:
        return None
    valid, nodata = None, found.nodata
    if nodata is not None and names != ["palette"]:
        valid = image != (np.iinfo(image.dtype).max - nodata if found.photometric == tiff.WHITE_IS_ZERO else nodata)
    elif found.plain and "alpha" in names:
        alpha = tiff.pixels(data, found, opencv, [names.index("alpha")])
        valid = None if alpha is None else alpha[..., :1] > 0
    return Pixels(image, valid)


def _of_other(data: bytes, rendering: Rendering) -> Pixels | None:
    """Values (H, W, 3) of any other format, blue first, and which of them are valid, (H, W, 1)."""
    try:
        head = header_of(data)
    except Image.DecompressionBombError:
        return None
    # Grey is read as one band, then made three: quicker than decoding into three, the same pixels.
    if head is not None and head[0] == "L":
        image = opencv(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
        image = None if image is None else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    else:
        image = opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None or (head is None and rendering.bands is None):
        return None if image is None else Pixels(image, None)
    mode, transparent, orientation = head or ("RGB", False, 1)
    alpha = None
    if transparent:
        whole = opencv(data)  # as it is stored
        if whole is not None and whole.ndim == 3 and whole.shape[2] == 4:
            alpha = tiff.UPRIGHT[orientation if orientation in tiff.UPRIGHT else 1](whole[..., 3])
    valid = None if alpha is None or alpha.shape != image.shape[:2] or alpha.all() else alpha[..., None] > 0
    if rendering.bands is not None:
        names = ["gray"] if mode.startswith(GREY) else ["red", "green", "blue"]
        layers = [image[..., 2 - i] for i in range(len(names))]
        if alpha is not None:
            names, layers = [*names, *MASKS], [*layers, alpha]
        image = np.stack([layers[band - 1] for band in chosen_bands("", names, rendering.bands)[::-1]], axis=-1)
    return Pixels(image, valid)


def header_of(data: bytes) -> tuple[str, bool, int] | None:
    """Pillow's mode of a file's content, whether it knows transparency, and its EXIF orientation; None if it is none.

    Raises:
        DecompressionBombError: it declares more than MOST_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            alpha = "A" in ImageMode.getmode(image.mode).bands or "transparency" in image.info
            orientation = image.getexif().get(EXIF_ORIENTATION, 1) if alpha and "exif" in image.info else 1
            return image.mode, alpha, orientation
    except (OSError, SyntaxError, ValueError):
        return None


def opencv(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> Any:
    """What OpenCV makes of a file's content."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # nothing, or more pixels than OpenCV takes
        return None
