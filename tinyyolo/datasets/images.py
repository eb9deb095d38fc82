"""Image files: which there are, how large they are without decoding them, and whether they can be decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from tinyyolo.config import UserError
from tinyyolo.io import THREADS

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
EXIF_ORIENTATION = 274
TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height; OpenCV applies them on reading
# Pillow takes an image of 180 million pixels for an attack; DOTA's scenes have up to 400. OpenCV stops at 2^30.
Image.MAX_IMAGE_PIXELS = 2**29


def list_images(folder: str | Path) -> list[str]:
    """Image files under a folder, sorted, as POSIX paths relative to it.

    Raises:
        UserError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such image folder{nearest_folder(folder)}")
    found = []
    for root, _, files in os.walk(folder, followlinks=True):
        inside = Path(root).relative_to(folder)
        found += [(inside / name).as_posix() for name in files if is_image(name)]
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file name ends as an image's does; hidden files are none.

    Examples:
        >>> is_image("a.PNG"), is_image("a.txt"), is_image(".a.png")
        (True, False, False)
    """
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def nearest_folder(folder: Path) -> str:
    """'; X has a, b' for the deepest parent that exists."""
    for parent in folder.absolute().parents:
        if parent.is_dir():
            names = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
            return f"; {parent} has the folders {', '.join(names[:12]) or 'none'}{' ...' if len(names) > 12 else ''}"
    return ""


def size_hw(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels from the header, as OpenCV would read the image (EXIF orientation applied).

    Raises:
        ValueError: no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.format == "JPEG" and image.getexif().get(EXIF_ORIENTATION) in TURNED
    except UnidentifiedImageError:  # such as TIFF with four bands of 16 bits, which OpenCV reads
        return load(path, cv2.IMREAD_UNCHANGED).shape[:2]
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not readable as an image: {' '.join(str(error).split())}") from error
    return (width, height) if turned else (height, width)


def sizes_hw(folder: Path, names: Sequence[str]) -> list[tuple[int, int] | str]:
    """`size_hw` of many images at once; the reason in words where one is no image."""

    def one(name: str) -> tuple[int, int] | str:
        try:
            return size_hw(folder / name)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, names))


def load(path: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """The decoded image (H, W, 3) uint8 BGR, from a path with any characters in it.

    Raises:
        ValueError: missing, truncated or no image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"not readable: {error.strerror}") from error
    try:
        image = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise ValueError("not readable as an image: " + ("the file is empty" if not len(data) else "OpenCV refuses it"))
    return image
