"""Image files: which there are, and the one opener that says what a file holds, or why not, and decodes it."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageMode, ImageOps, TiffTags, UnidentifiedImageError

from tinyyolo.config import UserError
from tinyyolo.io import in_threads

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
EXIF_ORIENTATION = 274
TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height; OpenCV applies them on reading
DEPTHS = ("uint8", "uint16")  # what is read; of 16 bits the high byte
LARGE_PIXELS = 50_000_000  # images above this are decoded one at a time when they are looked through
ONE_LARGE = threading.Lock()
ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}  # how a JPEG and a PNG begin, and end unless cut short
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIF = b"ftyp"  # at byte 4 of AVIF and HEIC, which Pillow decodes
SAMPLE_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint"}  # TIFF's SampleFormat; 4 says nothing
# Pillow takes an image of 180 million pixels for an attack; DOTA's scenes have up to 400. OpenCV stops at 2^30.
Image.MAX_IMAGE_PIXELS = 2**29
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # the fault is told in our words

# Why an image cannot be used; further words are Pillow's own about damage that it found.
MISSING = "no such file"
EMPTY = "the file is empty"
UNKNOWN = "neither Pillow nor OpenCV can read it as an image"
CUT_SHORT = "truncated JPEG"
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
    """

    size_hw: tuple[int, int] = (0, 0)
    bands: int = 0
    depth: str = ""
    orientation: int = 1
    palette: bool = False
    fault: str = ""

    @property
    def kind(self) -> str:
        """What the pixels are, in words.

        Examples:
            >>> Look((4, 4), 3, "uint8").kind, Look((4, 4), 1, "uint8", palette=True).kind
            ('3 bands of uint8', '1 band of uint8 with a palette')
        """
        plural = "s" if self.bands != 1 else ""
        return f"{self.bands} band{plural} of {self.depth}{' with a palette' if self.palette else ''}"


def look(path: str | Path, *, to_end: bool = False) -> Look:
    """What an image file holds, by its header; it does not raise for a file that is no image.

    Args:
        path: the file.
        to_end: look whether all of it is there too: a PNG's checksums, the end of a JPEG (which OpenCV reads without a
            word when it is cut short), the pixels of other formats, which have neither.
    """
    path, kind = Path(path), None
    found = Look()
    try:
        if not path.stat().st_size:
            return Look(fault=EMPTY)
        with Image.open(path) as image:
            kind = "JPEG" if image.format == "MPO" else image.format  # several JPEGs, as drones write; the first counts
            found = described(image)
            if to_end:
                image.verify()
    except FileNotFoundError:
        return Look(fault=MISSING)
    except UnidentifiedImageError:  # such as a TIFF with four bands of 16 bits, which OpenCV reads
        found = undescribed(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return found._replace(fault=in_words(error))
    if not found.fault and found.depth not in DEPTHS:
        found = found._replace(fault=NOT_DECODED)
    if found.fault:
        return found
    if kind not in ("JPEG", "TIFF") and found.orientation in TURNED:  # not every OpenCV turns these
        pixels = decode(path.read_bytes())
        return found._replace(fault=NOT_DECODED) if pixels is None else found._replace(size_hw=pixels.shape[:2])
    return found._replace(fault=damage(path, kind, found.size_hw)) if to_end else found


def described(image: Any) -> Look:
    """What the header of a Pillow image of any format says."""
    mode = ImageMode.getmode(image.mode)
    bands, depth = len(mode.bands), np.dtype(mode.typestr).name
    if image.format == "TIFF":  # Pillow's mode hides spare bands and 16 bits of colour
        tags = {TiffTags.lookup(key).name: value for key, value in image.tag_v2.items()}
        most, sort = max(tags.get("BitsPerSample", (1,))), max(tags.get("SampleFormat", (1,)))
        bits = next((b for b in (8, 16, 32) if most <= b), 64)  # 12 bits come in 16
        bands, depth = tags.get("SamplesPerPixel", bands), f"{SAMPLE_KINDS.get(sort, 'complex')}{bits}"
    elif ";16" in str(image.tile):  # a colour PNG, which Pillow reads as 8 bits
        depth = "uint16"
    depth = "uint8" if depth == "bool" else depth
    orientation = image.getexif().get(EXIF_ORIENTATION, 1) if "exif" in image.info else 1
    width, height = image.size
    turned = orientation in TURNED
    if image.format == "TIFF":  # whose size Pillow has turned already
        orientation, turned = tags.get("Orientation", 1), False
    return Look((width, height) if turned else (height, width), bands, depth, orientation, image.mode == "P")


def undescribed(path: Path) -> Look:
    """What OpenCV finds in a file that Pillow does not know, by decoding it."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        return Look(fault=UNKNOWN)
    height, width = pixels.shape[:2]
    return Look((height, width), pixels.shape[2] if pixels.ndim == 3 else 1, pixels.dtype.name)


def damage(path: Path, kind: str | None, size_hw: tuple[int, int]) -> str:
    """What is wrong behind a sound header, '' for nothing. A PNG's checksums have been verified already."""
    if kind == "PNG":
        return ""
    with ONE_LARGE if size_hw[0] * size_hw[1] > LARGE_PIXELS else nullcontext():
        if kind != "JPEG":
            return NOT_DECODED if decode(path.read_bytes()) is None else ""
        with path.open("rb") as stream:
            stream.seek(-2, os.SEEK_END)
            if stream.read() == ENDS[b"\xff\xd8"]:
                return ""
        try:  # some cameras write bytes behind the end of a sound JPEG
            with Image.open(path) as image:
                image.load()
        except OSError:
            return CUT_SHORT
    return ""


def in_words(error: BaseException) -> str:
    """An error of the system or of Pillow in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"not readable: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def load(path: str | Path) -> np.ndarray:
    """The decoded image (H, W, 3) uint8 BGR, from a path with any characters in it.

    Raises:
        ValueError: it is missing, cut short or no image, in the words of `look`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError:
        data = b""
    image = decode(data) if data else None
    whole = all(data.endswith(end) for start, end in ENDS.items() if data.startswith(start))
    if image is None or not whole:
        fault = look(path, to_end=True).fault or ("" if image is not None else NOT_DECODED)
        if image is None or fault:
            raise ValueError(fault)
    return image


def decode(data: bytes) -> np.ndarray | None:
    """Pixels (H, W, 3) uint8 BGR of a file's content as ultralytics reads it; None for what is not decoded.

    Of 16 bits the high byte is taken, of a TIFF's bands the first three, of its pages the first.
    """
    buffer = np.frombuffer(data, np.uint8)
    image: np.ndarray | None = None
    try:
        if data.startswith(TIFF):
            done, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
            image = np.ascontiguousarray(pages[0][..., :3]) if done and pages[0].ndim == 3 else None
        elif data[4:8] == HEIF:
            image = decode_by_pillow(data)
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if image is None else image
    except cv2.error:  # more pixels than OpenCV takes
        return None
    if image is not None and image.dtype == np.uint16:
        image = np.right_shift(image, 8).astype(np.uint8)
    return image if image is not None and image.dtype == np.uint8 and image.shape[2:] == (3,) else None


def decode_by_pillow(data: bytes) -> np.ndarray | None:
    """As `decode`, by Pillow; None where it does not know the format."""
    from io import BytesIO

    try:
        with ImageOps.exif_transpose(Image.open(BytesIO(data))) as image:
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def size_hw(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels by the header, as `load` gives them.

    Raises:
        ValueError: no image, in the words of `look`.
    """
    found = look(path)
    if found.fault:
        raise ValueError(found.fault)
    return found.size_hw


def look_at_all(folder: Path, names: Sequence[str], what: str, *, to_end: bool = False) -> list[Look]:
    """`look` at many images of a folder at once; `what` names the work on a terminal."""
    return in_threads(lambda name: look(folder / name, to_end=to_end), names, what)


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
    """'; X has the folders a, b' for the deepest parent that exists."""
    for parent in folder.absolute().parents:
        if parent.is_dir():
            names = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
            return f"; {parent} has the folders {', '.join(names[:12]) or 'none'}{' ...' if len(names) > 12 else ''}"
    return ""
