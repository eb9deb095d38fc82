"""TIFF files of every layout: the pixels that were written, or none."""

import itertools

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from tests.support.tiff import DEFLATE, LZW, NONE, write_tiff
from tinyyolo.datasets import images, tiff
from tinyyolo.datasets.pixels import opencv

H, W = 37, 45


def drawn(count, bits, seed=0):
    return np.random.default_rng(seed).integers(0, 2**bits, (count, H, W)).astype(f"u{bits // 8}")


def expected(bands):
    """(H, W, 3) blue, green, red of the first three bands, or the first three times."""
    return (bands[:3] if len(bands) > 2 else bands[[0, 0, 0]])[::-1].transpose(1, 2, 0)


def read(path):
    content = path.read_bytes()
    return tiff.pixels(content, tiff.read(content), opencv)


LAYOUTS = list(itertools.product((1, 2, 3, 4, 5, 8), (8, 16), (1, 2), (NONE, LZW, DEFLATE), (0, 32)))


@pytest.mark.parametrize(("count", "bits", "planar", "compression", "tile"), LAYOUTS)
def test_bands_in_every_layout(tmp_path, count, bits, planar, compression, tile):
    bands = drawn(count, bits)
    more = {"order": "<>"[count % 2], "big": tile > 0, "predictor": 1 if compression == NONE else 2}
    for photometric in (1, None, *([2] if count > 2 else [])):
        path = write_tiff(
            tmp_path / "a.tif",
            bands,
            photometric=photometric,
            planar=planar,
            compression=compression,
            tile=tile,
            rows=0 if tile else 10,
            **more,
        )
        np.testing.assert_array_equal(np.broadcast_to(read(path), (H, W, 3)), expected(bands), err_msg=str(photometric))
        seen = images.look(path, to_end=True)
        assert (seen.size_hw, seen.bands, seen.depth, seen.fault) == ((H, W), count, f"uint{bits}", "")


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_is_left_aside_and_white_may_be_zero(tmp_path, bits):
    bands = drawn(4, bits)
    for extra in (1, 2):
        path = write_tiff(tmp_path / "alpha.tif", bands, extra=extra)
        np.testing.assert_array_equal(read(path), expected(bands))
        assert images.look(path).alpha
    path = write_tiff(tmp_path / "white.tif", bands[:1], photometric=0)
    np.testing.assert_array_equal(read(path), (2**bits - 1 - bands[0])[..., None])


@pytest.mark.parametrize("kind", ["i1", "i2", "u4", "f4"])
def test_other_numbers_are_refused_by_name_without_gdal(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)
    sample = {"i": 2, "u": 1, "f": 3}[kind[0]]
    path = write_tiff(tmp_path / "a.tif", np.zeros((3, H, W), kind), sample=sample)
    with pytest.raises(ValueError, match=f"cannot decode.*it holds {np.dtype(kind).name}"):
        images.load(path)


def test_colours_that_are_stored_band_by_band_but_compressed_as_pictures_are_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", drawn(4, 8), photometric=5, planar=2)
    assert images.look(path, to_end=True).fault == images.NOT_DECODED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_the_same_for_every_layout(tmp_path, orientation):
    """By the tag's definition: where the first row and the first column of the file are in the picture."""
    bands = drawn(3, 16)
    stored = expected(bands)
    upright = {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: np.rot90(stored.transpose(1, 0, 2), 2),
        8: np.rot90(stored),
    }[orientation]
    for planar in (1, 2):
        path = write_tiff(tmp_path / "a.tif", bands, planar=planar, orientation=orientation)
        np.testing.assert_array_equal(read(path), upright)
        assert images.look(path).size_hw == upright.shape[:2]


def test_damaged_directories_are_none(tmp_path):
    content = write_tiff(tmp_path / "a.tif", drawn(3, 8)).read_bytes()
    at = int.from_bytes(content[4:8], "little")
    assert tiff.read(content) is not None
    for cut in range(at, len(content)):
        tiff.read(content[:cut])  # nothing is raised
    assert tiff.read(content[:at]) is None and tiff.read(content[:at] + b"\xff\xff") is None
    assert tiff.read(b"II*\0" + b"\xff" * 40) is None and tiff.read(b"PNG") is None
    circle = content[: at + 2 + 12 * content[at]] + at.to_bytes(4, "little") + content[at + 6 + 12 * content[at] :]
    assert tiff.read(circle).pages == 1


@pytest.mark.parametrize("sort", ["RGB", "CMYK", "palette", "MINISBLACK"])
def test_places_on_the_map_are_read_without_a_warning(tmp_path, sort, capfd):
    """OpenCV's TIFF reader warns on stderr of each tag that it does not know, file by file."""
    bands = drawn({"RGB": 3, "CMYK": 4}.get(sort, 1), 8)
    sizes = {"width": W, "height": H, "count": len(bands), "dtype": "uint8", "photometric": sort}
    nodata = {} if sort == "palette" else {"nodata": 7}
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **sizes, **place, **nodata) as file:
        file.update_tags(of="a scene")
        if sort == "palette":
            file.write_colormap(1, {i: (255 - i, i, i // 2, 255) for i in range(256)})
        file.write(bands)
    found = read(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""
    first = bands[0].astype(int)
    if sort == "palette":
        np.testing.assert_array_equal(found, np.stack([first // 2, first, 255 - first], -1))
    elif sort != "CMYK":
        np.testing.assert_array_equal(np.broadcast_to(found, (H, W, 3)), expected(bands))


KINDS = {  # name -> bands, type, values below, how they are written
    "nodata in one band": (3, "uint16", 2048, {"photometric": "RGB", "nodata": 3}),
    "white is zero": (1, "uint8", 256, {"photometric": "MINISWHITE", "nodata": 9}),
    "alpha": (4, "uint16", 2048, {"photometric": "RGB", "alpha": "yes", "interleave": "band"}),
    "five bands": (5, "uint8", 256, {"photometric": "RGB", "nodata": 0, "interleave": "pixel"}),
    "grey and alpha": (2, "uint16", 4096, {"alpha": "yes", "interleave": "pixel"}),
    "two values": (1, "uint8", 2, {"nbits": 1}),
    "two values, one nodata": (1, "uint8", 2, {"nbits": 1, "nodata": 1}),
    "four bits": (1, "uint8", 16, {"nbits": 4}),
    "eleven bits": (3, "uint16", 2048, {"nbits": 11, "photometric": "RGB"}),
    "twelve bits": (1, "uint16", 4096, {"nbits": 12}),
    "palette": (1, "uint8", 256, {"photometric": "palette"}),
    "palette of two": (1, "uint8", 2, {"photometric": "palette", "nbits": 1}),
    "palette with nodata": (1, "uint8", 16, {"photometric": "palette", "nodata": 0}),
}
REFUSED = {
    "two values, one nodata": "nodata, told by one of two values",
    "four bits": "4 bits",
    "eleven bits": "11 bits",
    "twelve bits": "12 bits",
    "palette of two": "1 bit",
    "palette with nodata": "nodata, told by their place in a palette",
}


@pytest.mark.parametrize("kind", KINDS)
def test_without_gdal_pixels_are_the_same_or_refused_in_a_line(tmp_path, kind, monkeypatch, capfd):
    count, dtype, below, how = KINDS[kind]
    bands = np.random.default_rng(0).integers(0, below, (count, H, W)).astype(dtype)
    bands[:, :9] = how.get("nodata", 0)
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=W, height=H, count=count, dtype=dtype, **how) as file:
        if "palette" in kind:
            file.write_colormap(1, {i: ((i * 37) % 256, (i * 91) % 256, (i * 53) % 256, 255) for i in range(below)})
        file.write(bands)
    by_gdal = images.load(path)
    capfd.readouterr()
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)
    if kind in REFUSED:
        with pytest.raises(ValueError, match=rf"{REFUSED[kind]}: pip install"):
            images.load(path)
    else:
        np.testing.assert_array_equal(images.load(path), by_gdal)
        assert capfd.readouterr().err == ""
