"""TIFF directories: what a file says of its bands, and the same file said anew where OpenCV would read it wrong.

OpenCV decodes every compression, but takes bands that are stored one after another for pixels, multiplies colours by
alpha, shows several grey bands as one and does not know more than four. No pixel is decoded here: a directory that
names one band, or one wide row of all bands, is put behind the file, and OpenCV reads that.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
KIND, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, ORIENTATION = 254, 256, 257, 258, 259, 262, 273, 274
SAMPLES, COUNTS, PLANAR, PREDICTOR, TILE_WIDTH, TILE_OFFSETS, TILE_COUNTS = 277, 279, 284, 317, 322, 324, 325
EXTRA, SAMPLE_FORMAT = 338, 339
GDAL_METADATA, GDAL_NODATA = 42112, 42113
COLOURS = rb'sample="(\d{1,4})" role="colorinterp">(\w+)<'  # in GDAL_METADATA
PLACE = frozenset({33550, 33922, 34264, 34735})  # pixel scale, tie points, transformation, keys of GeoTIFF
UNKNOWN = PLACE | {34736, 34737, 50844, GDAL_METADATA, GDAL_NODATA}  # to OpenCV, which warns of each in each file
USED = {KIND, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, ORIENTATION, SAMPLES, COUNTS, PLANAR, PREDICTOR}
USED |= {TILE_WIDTH, TILE_OFFSETS, TILE_COUNTS, EXTRA, SAMPLE_FORMAT}
USED |= {GDAL_METADATA, GDAL_NODATA}
NUMBERS = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}  # types of the tags that are looked at; 2 is text
SHORT, LONG, LONG8 = 3, 4, 16
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, INKS = 0, 1, 2, 3, 5
BAND_BY_BAND, DIFFERENCES = 2, 2  # values of PLANAR and PREDICTOR
LOSSLESS = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})  # none, LZW, deflate, PackBits, LZMA, Zstandard
MASK, REDUCED = 4, 1 | 4  # KIND of an overview or a mask, which is no page of its own
MOST_TAGS = 4096
FORMATS = {1: "uint", 2: "int", 3: "float", 4: "uint"}  # 4 says nothing
# Orientation -> the picture upright, of the pixels as they are stored.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


class Directory(NamedTuple):
    """The first directory of a TIFF.

    Attributes:
        order: "<" or ">".
        big: whether it is a BigTIFF.
        entries: tag -> its bytes in the directory.
        tags: tag -> its values, of those that are looked at.
        pages: pictures in the file, overviews and masks aside; counted to two.
        masked: a page of the file is the mask of the first.
    """

    order: str
    big: bool
    entries: dict[int, bytes]
    tags: dict[int, tuple[int, ...]]
    pages: int = 1
    masked: bool = False

    def first(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]

    @property
    def bands(self) -> int:
        """Bands of the picture."""
        return self.first(SAMPLES, 1)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels, orientation applied."""
        h, w = self.first(HEIGHT, 0), self.first(WIDTH, 0)
        return (w, h) if self.first(ORIENTATION, 1) >= 5 else (h, w)

    @property
    def bits(self) -> int:
        """Of a value, of the band that has most."""
        return max(self.tags.get(BITS, (1,)))

    @property
    def depth(self) -> str:
        """numpy's name of the type of a band; 12 bits come in 16, fewer than 8 in 8."""
        sort = max(self.tags.get(SAMPLE_FORMAT, (1,)))
        return f"{FORMATS.get(sort, 'complex')}{next((b for b in (8, 16, 32) if self.bits <= b), 64)}"

    @property
    def photometric(self) -> int:
        """How values become colours; where nothing is said, three bands and more are red, green and blue."""
        return self.first(PHOTOMETRIC, RGB if self.bands >= 3 else BLACK_IS_ZERO)

    @property
    def plain(self) -> bool:
        """Whether its bands are stored as they are, whole bytes each."""
        photometric = self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
        return photometric and self.bits in (8, 16)

    @property
    def placed(self) -> bool:
        """Whether it says where on the map it lies."""
        return not PLACE.isdisjoint(self.entries)

    @property
    def names(self) -> list[str]:
        """What each band is declared to be, in the words that GDAL has."""
        if self.photometric == PALETTE:
            return ["palette"]
        black = self.first(PHOTOMETRIC, BLACK_IS_ZERO) in (WHITE_IS_ZERO, BLACK_IS_ZERO)  # where nothing is said, grey
        base = ["gray"] if black else ["red", "green", "blue"]
        if not self.plain:
            return base
        told = self.declared
        extra = self.tags.get(EXTRA, ())
        spare = ["alpha" if kind in (1, 2) else "undefined" for kind in (*extra, *[0] * self.bands)]
        return [told.get(i, name) for i, name in enumerate([*base, *spare][: self.bands])]

    @property
    def declared(self) -> dict[int, str]:
        """What bands, from 0, are declared to be in GDAL's own words, where these differ from the other tags."""
        found = re.findall(COLOURS, bytes(self.tags.get(GDAL_METADATA, ())))
        return {int(band): name.decode().lower() for band, name in found}

    @property
    def nodata(self) -> float | None:
        """The value of what is no pixel, as GDAL writes it."""
        text = bytes(self.tags.get(GDAL_NODATA, ())).rstrip(b"\0 ")
        try:
            return float(text) if text else None
        except ValueError:
            return None

    @property
    def needs_gdal(self) -> str:
        """What the file says that only GDAL knows how to read; "" if nothing."""
        if not self.plain and list(self.declared.values()) not in ([], self.names):
            return "it declares what its bands are in GDAL's own way"
        bits, palette = self.bits, self.photometric == PALETTE
        if bits < 16 and bits not in ((4, 8) if palette else (1, 8)):
            return f"its values have {bits} bit{'s' * (bits > 1)}"
        if self.nodata is not None and (palette or bits == 1):
            return f"it has nodata, told by {'their place in a palette' if palette else 'one of two values'}"
        return "it has a mask" if self.masked else ""

    @property
    def alpha(self) -> bool:
        """Whether the spare bands of the colours are transparency."""
        return any(kind in (1, 2) for kind in self.tags.get(EXTRA, ()))


def read(data: Any) -> Directory | None:
    """The first directory of a file's content (bytes or a memory map); None for what is no TIFF, or a damaged one."""
    if data[:4] not in MAGIC:
        return None
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    try:
        at = struct.unpack_from(f"{order}Q", data, 8)[0] if big else struct.unpack_from(f"{order}I", data, 4)[0]
        entries, tags, following = _directory(data, at, order, big)
        pages, masked = 1, False
        while following and pages == 1 and following > at:  # a circle would never end
            at, (_, more, following) = following, _directory(data, following, order, big)
            pages += not more.get(KIND, (0,))[0] & REDUCED
            masked |= bool(more.get(KIND, (0,))[0] & MASK)
        return Directory(order, big, entries, tags, pages, masked) if min(tags[WIDTH][0], tags[HEIGHT][0]) > 0 else None
    except (struct.error, KeyError, IndexError, OverflowError, ValueError):
        return None


def _directory(data: Any, at: int, order: str, big: bool) -> tuple[dict[int, bytes], dict[int, tuple[int, ...]], int]:
    """The entries and values of the directory at `at`, and where the next one stands."""
    count_type, size, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
    (count,) = struct.unpack_from(order + count_type, data, at)
    at += struct.calcsize(order + count_type)
    if count > MOST_TAGS:
        raise ValueError("no directory")
    entries, tags = {}, {}
    for place in range(at, at + size * count, size):
        entry = bytes(data[place : place + size])
        tag, kind, number = struct.unpack_from(f"{order}HH{offset}", entry)
        entries[tag] = entry
        if tag in USED and kind in NUMBERS:
            length, room = number * struct.calcsize(f"={NUMBERS[kind]}"), struct.calcsize(f"={offset}")
            start = place + size - room
            if length > room:
                (start,) = struct.unpack_from(order + offset, data, start)
            tags[tag] = struct.unpack(f"{order}{number}{NUMBERS[kind]}", data[start : start + length])
    return entries, tags, struct.unpack_from(order + offset, data, at + size * count)[0]


def said_anew(data: bytes, found: Directory, changes: Mapping[int, tuple[int, ...] | None]) -> bytes:
    """The file with another directory behind it, of one page: some tags changed (None: left out), UNKNOWN left out."""
    order, big = found.order, found.big
    room, offset = (8, "Q") if big else (4, "I")
    entries = {tag: entry for tag, entry in found.entries.items() if tag not in changes and tag not in UNKNOWN}
    given = {tag: values for tag, values in changes.items() if values is not None}
    at = len(data) + len(data) % 2
    spare, after = b"", at + (8 if big else 2) + (20 if big else 12) * (len(entries) + len(given)) + room
    for tag, values in given.items():
        kind = SHORT if max(values) < 2**16 else LONG if max(values) < 2**32 else LONG8
        raw = struct.pack(f"{order}{len(values)}{NUMBERS[kind]}", *values)
        place = raw.ljust(room, b"\0") if len(raw) <= room else struct.pack(order + offset, after + len(spare))
        spare += b"" if len(raw) <= room else raw + b"\0" * (len(raw) % 2)
        entries[tag] = struct.pack(f"{order}HH{offset}", tag, kind, len(values)) + place
    table = struct.pack(order + ("Q" if big else "H"), len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    start = data[:8] + struct.pack(f"{order}Q", at) if big else data[:4] + struct.pack(f"{order}I", at)
    return b"".join([start, data[len(start) :], b"\0" * (len(data) % 2), table, bytes(room), spare])


def pixels(
    data: bytes,
    found: Directory,
    decode: Callable[[bytes], np.ndarray | None],
    wanted: Sequence[int] | None = None,
) -> np.ndarray | None:
    """(H, W, 1 or 3) uint8 or uint16, grey or blue, green, red, as the file says; None for what cannot be read right.

    Args:
        data: the file's content.
        found: its first directory.
        decode: what reads a file's content by OpenCV, unchanged.
        wanted: bands of the file, from 0, that are red, green and blue, or grey; the first three, or the first of two,
            unless given. Of a palette (all three unless given), YCbCr or CMYK they are those of the colours that it
            stands for.
    """
    if found.depth not in ("uint8", "uint16"):
        return None
    wanted = range(3 if found.bands >= 3 or found.photometric == PALETTE else 1) if wanted is None else wanted
    apart = found.bands > 1 and found.first(PLANAR, 1) == BAND_BY_BAND
    if not found.plain:  # colours of a palette, YCbCr, CMYK, 1 and 12 bits
        image = None if apart else decode(said_anew(data, found, {}))
        image = None if image is None else image.reshape(*image.shape[:2], -1)
        if image is None or image.shape[2] not in (1, 3, 4):
            return None
        image = image[..., :3]
        return image if image.shape[2] == 1 else np.ascontiguousarray(image[..., [2 - band for band in wanted[::-1]]])
    grey: dict[int, Any] = {BITS: found.tags[BITS][:1], SAMPLES: (1,), PLANAR: (1,), PHOTOMETRIC: (BLACK_IS_ZERO,)}
    grey |= dict.fromkeys((EXTRA, SAMPLE_FORMAT, ORIENTATION))
    if apart:
        bands = [_band(data, found, i, grey, decode) for i in wanted]
        image = None if any(band is None for band in bands) else np.stack(bands, axis=-1)  # type: ignore[arg-type]
    elif found.bands in (3, 4):
        spare = {EXTRA: (0,) if found.bands == 4 else None, PHOTOMETRIC: (RGB,), ORIENTATION: None}
        image = decode(said_anew(data, found, spare))
        whole = image is not None and image.ndim == 3 and image.shape[2] == found.bands
        image = image[..., [(2, 1, 0, 3)[band] for band in wanted]] if image is not None and whole else None
    else:
        image = _wide(data, found, grey, decode)
        image = None if image is None else image[..., list(wanted)]
    if image is None or image.shape[:2] != (found.first(HEIGHT, 0), found.first(WIDTH, 0)):
        return None
    image = image[..., ::-1]
    image = np.iinfo(image.dtype).max - image if found.photometric == WHITE_IS_ZERO else image
    return UPRIGHT.get(found.first(ORIENTATION, 1), UPRIGHT[1])(image)


def _band(data: bytes, found: Directory, i: int, grey: Mapping[int, Any], decode: Any) -> np.ndarray | None:
    """(H, W) band i of a file that stores one after another."""
    change: dict[int, Any] = {}
    for tag in (OFFSETS, COUNTS, TILE_OFFSETS, TILE_COUNTS):
        if tag in found.tags:
            each = len(found.tags[tag]) // found.bands
            change[tag] = found.tags[tag][i * each : (i + 1) * each]
    image: np.ndarray | None = decode(said_anew(data, found, {**grey, **change}))
    return image if image is not None and image.ndim == 2 else None


def _wide(data: bytes, found: Directory, grey: Mapping[int, Any], decode: Any) -> np.ndarray | None:
    """(H, W, bands) of a file that stores pixel by pixel, read as one grey band of rows that are as much wider."""
    count, width = found.bands, found.first(WIDTH, 0)
    if count > 1 and found.first(COMPRESSION, 1) not in LOSSLESS:
        return None
    tile = found.first(TILE_WIDTH, width)
    change = {**grey, WIDTH: (width * count,), PREDICTOR: None}
    change |= {TILE_WIDTH: (tile * count,)} if TILE_WIDTH in found.tags else {}
    image: np.ndarray | None = decode(said_anew(data, found, grey if count == 1 else change))
    if image is None or image.ndim != 2:
        return None
    image = image.reshape(len(image), -1, count)
    if count > 1 and found.first(PREDICTOR, 1) == DIFFERENCES:  # of the bands, which the wide picture does not know
        parts = [image[:, x : x + tile].cumsum(axis=1, dtype=image.dtype) for x in range(0, width, tile)]
        image = np.concatenate(parts, axis=1)
    return image
