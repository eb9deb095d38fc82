"""TIFF files of every layout, written tag by tag: what no library at hand writes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SHORT, LONG, LONG8 = 3, 4, 16
TYPES = {SHORT: "H", LONG: "I", LONG8: "Q"}
NONE, LZW, DEFLATE = 1, 5, 8


def lzw(data: bytes) -> bytes:
    """LZW without a dictionary: a clear code before the codes would grow to ten bits."""
    codes = []
    for i, byte in enumerate(data):
        codes += [256, byte] if i % 250 == 0 else [byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


PACK = {NONE: bytes, LZW: lzw, DEFLATE: zlib.compress}


def write_tiff(
    path: Path,
    bands: np.ndarray,
    *,
    photometric: int | None = 2,
    planar: int = 1,
    compression: int = NONE,
    tile: int = 0,
    rows: int = 0,
    predictor: int = 1,
    order: str = "<",
    big: bool = False,
    extra: int | None = None,
    sample: int | None = None,
    orientation: int = 1,
) -> Path:
    """Write `bands` (bands, H, W) of any type of number.

    Args:
        path: the file.
        bands: the pixels.
        photometric: the tag's value; None leaves it out.
        planar: 1 pixel by pixel, 2 band by band.
        compression: NONE, LZW or DEFLATE.
        tile: side of a tile; 0 writes strips.
        rows: rows of a strip; 0 is all of them.
        predictor: 2 stores differences along a row.
        order: "<" little-endian, ">" big-endian.
        big: a BigTIFF.
        extra: what the bands over one or three are: 0 nothing said, 1 or 2 alpha; None leaves the tag out.
        sample: SampleFormat; None leaves it out.
        orientation: where the first row and column are in the picture.
    """
    count, h, w = bands.shape
    dtype = bands.dtype.newbyteorder(order)
    chunks, groups = [], [bands[i : i + 1] for i in range(count)] if planar == 2 else [bands]
    for group in groups:
        pixels = group.transpose(1, 2, 0)
        side_h, side_w = (tile, tile) if tile else (rows or h, w)
        for y in range(0, h, side_h):
            for x in range(0, w, side_w):
                part = pixels[y : y + side_h, x : x + side_w]
                if tile:
                    part = np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)))
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=part[:, :1] * 0)
                chunks.append(PACK[compression](part.astype(dtype).tobytes()))
    start, places = 16, []
    for chunk in chunks:
        places.append(start)
        start += len(chunk)
    offset_type = LONG8 if big else LONG
    tags = {
        256: (LONG, [w]),
        257: (LONG, [h]),
        258: (SHORT, [8 * bands.dtype.itemsize] * count),
        259: (SHORT, [compression]),
        277: (SHORT, [count]),
        284: (SHORT, [planar]),
    }
    tags |= {} if photometric is None else {262: (SHORT, [photometric])}
    tags |= {} if orientation == 1 else {274: (SHORT, [orientation])}
    tags |= {} if predictor == 1 else {317: (SHORT, [predictor])}
    sizes = (LONG, list(map(len, chunks)))
    if tile:
        tags |= {322: (LONG, [tile]), 323: (LONG, [tile]), 324: (offset_type, places), 325: sizes}
    else:
        tags |= {273: (offset_type, places), 278: (LONG, [rows or h]), 279: sizes}
    spare = count - (3 if photometric == 2 else 1)
    tags |= {338: (SHORT, [extra] * spare)} if extra is not None and spare > 0 else {}
    tags |= {339: (SHORT, [sample] * count)} if sample is not None else {}
    path.write_bytes(header(order, big, start + start % 2) + b"".join(chunks) + b"\0" * (start % 2))
    with path.open("ab") as stream:
        stream.write(directory(tags, order, big, start + start % 2))
    return path


def header(order: str, big: bool, at: int) -> bytes:
    """The first 16 bytes; the directory stands at `at`."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        return struct.pack(f"{order}2sHHHQ", mark, 43, 8, 0, at)
    return struct.pack(f"{order}2sHI8x", mark, 42, at)


def directory(tags: dict[int, tuple[int, list[int]]], order: str, big: bool, at: int) -> bytes:
    """The directory that stands at `at`, and the values that do not fit into it."""
    count, entry, word, room = ("Q", 20, "Q", 8) if big else ("H", 12, "I", 4)
    after = at + struct.calcsize(f"={count}") + entry * len(tags) + room
    table, spare = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(values)}{TYPES[kind]}", *values)
        table += struct.pack(f"{order}HH{word}", tag, kind, len(values))
        if len(raw) <= room:
            table += raw.ljust(room, b"\0")
        else:
            table += struct.pack(f"{order}{word}", after + len(spare))
            spare += raw + b"\0" * (len(raw) % 2)
    return struct.pack(f"{order}{count}", len(tags)) + table + struct.pack(f"{order}{word}", 0) + spare
