"""Rasters by windows: bands, values, masks, damage; every file is read right or refused in one line."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from tinyyolo.config import UserError
from tinyyolo.scenes.raster import open_raster, overview
from tinyyolo.scenes.rendering import Rendering, chosen_bands
from tinyyolo.scenes.windows import Span, Window, windows

SIZE = (50, 70)


def tif(path, bands, colours=None, **more):
    """A GeoTIFF of these bands (B, H, W), `colours` what they are declared to be."""
    bands = np.asarray(bands)
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    profile |= {"dtype": bands.dtype, "crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 0.5, 0.5)}
    with rasterio.open(path, "w", **{**profile, **more}) as file:
        if colours:
            file.colorinterp = [ColorInterp[name] for name in colours]
        file.write(bands)
    return path


def ramp(dtype=np.uint8, factor=1):
    """Three bands that differ: x, y and x + y."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return (np.stack([x, y, x + y]) * factor).astype(dtype)


def whole(raster):
    height, width = raster.size_hw
    return raster.read(Window(Span(0, width, 0, width), Span(0, height, 0, height)))


def test_windows_are_parts_of_the_picture(tmp_path):
    """Red is x, green y, blue x + y, in OpenCV's order blue first."""
    raster = open_raster(tif(tmp_path / "a.tif", ramp(), ("red", "green", "blue")))
    pixels, valid = whole(raster)
    assert pixels[20, 30].tolist() == [50, 20, 30] and valid.all() and raster.stretch is None
    for window in windows(SIZE, 32, 4, 8):
        part, _ = raster.read(window)
        (x1, y1), (height, width) = window.origin, window.size_hw
        assert np.array_equal(part, pixels[y1 : y1 + height, x1 : x1 + width])


def test_the_declared_order_of_colours_counts(tmp_path):
    blue_first = open_raster(tif(tmp_path / "a.tif", ramp()[::-1], ("blue", "green", "red")))
    assert whole(blue_first)[0][20, 30].tolist() == [50, 20, 30]


def test_bands_that_are_asked_for(tmp_path):
    path = tif(tmp_path / "a.tif", np.concatenate([ramp(), ramp()]), photometric="minisblack")
    with pytest.raises(UserError, match=r"which bands are red, green and blue: bands=\[r,g,b\]; Choices: 1 gray, 2 "):
        open_raster(path)
    assert whole(open_raster(path, Rendering(bands=[3, 2, 1])))[0][20, 30].tolist() == [30, 20, 50]
    assert whole(open_raster(path, Rendering(bands=[2])))[0][20, 30].tolist() == [20, 20, 20]
    for bands in ([1, 2], [0, 1, 2], [1, 2, 7], ["a"], [True]):
        with pytest.raises(UserError, match="expected one or three of its bands"):
            open_raster(path, Rendering(bands=bands))


def test_which_bands():
    assert chosen_bands("a.tif", ["gray", "alpha"], None) == (1, 1, 1)
    assert chosen_bands("a.tif", ["red", "green", "blue", "undefined"], None) == (1, 2, 3)


def test_alpha_and_nodata_are_masks_not_pixels(tmp_path):
    alpha = np.full((1, *SIZE), 255, np.uint8)
    alpha[0, :, :10] = 0
    raster = open_raster(tif(tmp_path / "a.tif", np.concatenate([ramp(), alpha]), ("red", "green", "blue", "alpha")))
    pixels, valid = whole(raster)
    assert pixels[20, 30].tolist() == [50, 20, 30] and not valid[:, :10].any() and valid[:, 10:].all()
    nodata = ramp()
    nodata[:, :5] = 0
    _, valid = whole(open_raster(tif(tmp_path / "b.tif", nodata, ("red", "green", "blue"), nodata=0)))
    assert not valid[:5].any() and valid[6:, 1:].all()


def test_values_of_16_bits_by_percentiles_of_the_whole_scene(tmp_path):
    """0 to 100 of 11 bits each: the 2nd and 98th percentiles of a scene of 101 equal shares are 2 and 98 times 20."""
    column = np.repeat(np.arange(101), 2)[None, None] * 20
    raster = open_raster(tif(tmp_path / "a.tif", np.tile(column, (1, 40, 1)).astype(np.uint16)))
    assert np.allclose(raster.stretch, [[40, 1960]] * 3, atol=1)
    pixels, _ = whole(raster)
    assert pixels[0, 0].tolist() == [0, 0, 0] and pixels[0, -1].tolist() == [255, 255, 255]
    assert abs(int(pixels[0, 101, 0]) - 128) <= 1  # 50 * 20 = 1000 is in the middle
    part, _ = raster.read(Window(Span(100, 110, 100, 110), Span(0, 10, 0, 10)))
    assert np.array_equal(part, pixels[:10, 100:110])  # the same for every window


def test_limits_that_are_given(tmp_path):
    path = tif(tmp_path / "a.tif", ramp(np.int16, 10), ("red", "green", "blue"))
    pixels, _ = whole(open_raster(path, Rendering(stretch=[0, 500])))
    assert pixels[20, 30].tolist() == [255, 102, 153]  # 500, 200 and 300 of 500
    for limits in ([5, 5], [9, 1], [1]):
        with pytest.raises(UserError, match="expected the values or percentiles that become 0 and 255"):
            open_raster(path, Rendering(stretch=limits))


def test_nan_is_no_pixel(tmp_path):
    values = ramp(np.float32)[:1] / 10
    values[0, 3, 4] = np.nan
    pixels, valid = whole(open_raster(tif(tmp_path / "a.tif", values, nodata=np.nan)))
    assert not valid[3, 4] and valid.sum() == SIZE[0] * SIZE[1] - 1 and pixels.dtype == np.uint8


def test_zoom_is_a_resampling_of_the_window(tmp_path):
    flat = np.zeros((3, 64, 64), np.uint8)
    flat[:, 32:, 16:] = 200
    raster = open_raster(tif(tmp_path / "a.tif", flat, ("red", "green", "blue")))
    half, _ = raster.read(Window(Span(0, 32, 0, 32), Span(0, 32, 0, 32)), 0.5)
    assert half[15, 20, 0] == 0 and half[16, 20, 0] == 200 and half[20, 7, 0] == 0 and half[20, 8, 0] == 200
    double, _ = raster.read(Window(Span(0, 64, 0, 64), Span(32, 96, 32, 96)), 2)
    assert double.shape == (64, 64, 3) and double[10, 60, 0] == 0 and double[40, 60, 0] == 200
    assert overview(raster, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("content", (b"", b"II*\0no tiff", b"text"))
def test_what_is_no_raster(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tif: not readable as a raster: "):
        open_raster(tmp_path / "a.tif")


def test_damage_in_the_middle_names_the_place(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 256, 256), dtype=np.uint8)
    path = tif(
        tmp_path / "a.tif",
        noise,
        ("red", "green", "blue"),
        compress="deflate",
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(data)
    raster = open_raster(path)
    with pytest.raises(UserError, match=r"a\.tif: \d+x\d+ px at \d+, \d+: not readable as a raster"):
        for window in windows((256, 256), 64, 8, 8):
            raster.read(window)


def test_nothing_but_nodata(tmp_path):
    with pytest.raises(UserError, match=r"a\.tif: no valid pixel: nothing but nodata"):
        open_raster(tif(tmp_path / "a.tif", np.zeros((1, 9, 9), np.uint16), nodata=0))


def test_a_scene_of_one_value(tmp_path):
    pixels, valid = whole(open_raster(tif(tmp_path / "a.tif", np.full((1, 9, 9), 700, np.uint16))))
    assert valid.all() and not pixels.any()
