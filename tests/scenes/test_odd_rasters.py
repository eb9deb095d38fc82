"""Rasters of every odd kind: read right, by numbers worked out by hand, or refused in one line."""

import pickle
import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.env import get_gdal_config
from rasterio.shutil import copy
from rasterio.windows import Window as Part

from tests.scenes.test_raster import ramp, tif, whole
from tests.support.tiff import write_tiff
from tinyyolo.config import UserError
from tinyyolo.datasets import images
from tinyyolo.datasets.scene_files import open_scene
from tinyyolo.scenes.raster import Raster, open_raster, overview
from tinyyolo.scenes.rendering import Rendering
from tinyyolo.scenes.windows import Span, Window

RGB = ("red", "green", "blue")


def grey_of(path, **rendering):
    """The first channel of the whole file, and where it is valid."""
    pixels, valid = whole(open_raster(path, Rendering(**rendering)))
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    return pixels[..., 0], valid


@pytest.mark.parametrize("kind", ("int8", "int16", "int32", "uint16", "uint32", "float32", "float64"))
def test_every_type_of_number_by_percentiles(tmp_path, kind):
    """0 to 100, a hundredth of them each, below zero too where there is such: 2 and 98 are the ends, 50 the middle."""
    shift = 50 if kind[0] != "u" else 0
    values = (np.tile(np.arange(101), (1, 4, 1)) - shift).astype(kind)
    found, valid = grey_of(tif(tmp_path / "a.tif", values))
    assert valid.all() and found[0, [0, 2, 50, 98, 100]].tolist() == [0, 0, 128, 255, 255]


def test_large_numbers_keep_their_differences(tmp_path):
    """A float32 has 24 bits: 1e9 and 1e9 + 10 would be the same in it."""
    values = np.array([[[1e9, 1e9 + 10, 1e9 + 20]]])
    found, _ = grey_of(tif(tmp_path / "a.tif", values), stretch=["0%", "100%"])
    assert found.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("kind", ("complex64", "complex_int16"))
def test_complex_numbers_are_refused(tmp_path, kind):
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=3, height=2, count=1, dtype=kind) as file:
        file.write(np.ones((1, 2, 3), np.complex64))
    words = f"it holds {kind}: expected real numbers; write its magnitude first"
    with pytest.raises(UserError, match=words):
        open_raster(tmp_path / "a.tif")
    assert images.look(tmp_path / "a.tif", to_end=True, rendering=Rendering()).fault == words


def test_two_bands_are_grey_and_alpha_or_not_known(tmp_path):
    bands = np.stack([ramp()[0], np.full((50, 70), 255, np.uint8)])
    bands[1, :, :9] = 0
    found, valid = grey_of(tif(tmp_path / "a.tif", bands, ("gray", "alpha")))
    assert found[3, 20] == 20 and not valid[:, :9].any() and valid[:, 9:].all()
    path = tif(tmp_path / "b.tif", bands, ("gray", "undefined"))
    with pytest.raises(UserError, match=r"bands=\[r,g,b\]; Choices: 1 gray, 2 undefined"):
        open_raster(path)
    assert (images.load(path, Rendering(bands=2))[:, 9:] == 255).all()


def test_a_palette_with_nodata_and_a_transparent_colour(tmp_path):
    """1 is pure red, 2 green of half, 3 transparent, 0 nodata."""
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=4, height=1, count=1, dtype="uint8", nodata=0) as file:
        file.write(np.array([[[0, 1, 2, 3]]], np.uint8))
        file.write_colormap(1, {1: (255, 0, 0, 255), 2: (0, 128, 0, 255), 3: (9, 9, 9, 255)})
    for bands in (None, 1, [1, 1, 1]):
        pixels, valid = whole(open_raster(path, Rendering(bands)))
        assert pixels[0, 1:3].tolist() == [[0, 0, 255], [0, 128, 0]] and valid.tolist() == [[False, True, True, True]]


def test_nodata_is_not_among_the_percentiles(tmp_path):
    """Half of the file is nodata; 0 to 100 of the rest are 0 to 255."""
    values = np.full((1, 20, 202), -9999, np.float32)
    values[0, :, 101:] = np.arange(101)
    found, valid = grey_of(tif(tmp_path / "a.tif", values, nodata=-9999), stretch=["0%", "100%"])
    assert found[0, 101] == 0 and found[0, -1] == 255 and found[0, 151] == 128
    assert not valid[:, :101].any() and valid[:, 101:].all()


def test_a_pixel_is_valid_where_one_of_its_bands_is(tmp_path):
    values = np.zeros((3, 1, 3), np.uint8)
    values[0, 0, 1], values[:, 0, 2] = 7, 9
    pixels, valid = whole(open_raster(tif(tmp_path / "a.tif", values, RGB, nodata=0)))
    assert valid.tolist() == [[False, True, True]] and pixels[0, 1].tolist() == [0, 0, 7]
    floats = np.full((3, 1, 3), np.nan, np.float32)
    floats[0, 0, 1], floats[:, 0, 2] = 7, 9
    _, valid = whole(open_raster(tif(tmp_path / "b.tif", floats, RGB)))
    assert valid.tolist() == [[False, True, True]]


def test_nodata_that_the_type_cannot_hold_is_no_value(tmp_path):
    tif(tmp_path / "a.tif", ramp(np.int16), RGB, nodata=-9999)
    vrt = (tmp_path / "a.vrt").resolve()
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><ColorInterp>{name.title()}</ColorInterp>'
        "<NoDataValue>-9999</NoDataValue><SimpleSource>"
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i, name in enumerate(RGB, 1)
    )
    vrt.write_text(f'<VRTDataset rasterXSize="70" rasterYSize="50">{bands}</VRTDataset>')
    pixels, valid = whole(open_scene(vrt))
    assert pixels[20, 30].tolist() == [50, 20, 30] and valid.all()
    assert images.look(vrt, to_end=True) == images.Look((50, 70), 3, "uint8")
    np.testing.assert_array_equal(images.load(vrt), pixels)


@pytest.mark.parametrize("internal", (True, False))
def test_masks_inside_and_beside_the_file(tmp_path, internal):
    mask = np.ones((50, 70), bool)
    mask[:, :30] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = tif(tmp_path / "a.tif", ramp(np.uint16), RGB)
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() != internal
    scene = open_raster(path, Rendering(stretch=["0%", "100%"]))
    assert scene.stretch[0].tolist() == [30, 69]  # x of what is valid
    _, valid = whole(scene)
    np.testing.assert_array_equal(valid, mask)
    assert (images.load(path)[:, :30] == 114).all()


@pytest.mark.parametrize("size", ((1, 1), (1, 3000), (3000, 1)))
def test_thin_scenes(tmp_path, size):
    values = np.full((3, *size), 5, np.uint8)
    scene = open_raster(tif(tmp_path / "a.tif", values, RGB))
    assert (whole(scene)[0] == 5).all() and overview(scene).shape[:2] == tuple(min(1024, side) for side in size)
    assert (images.load(tmp_path / "a.tif") == 5).all()
    deep = tif(tmp_path / "b.tif", values.astype(np.uint16), RGB)
    assert images.load(deep).shape == (*size, 3)


@pytest.mark.parametrize(
    "profile",
    (
        {"compress": "packbits"},
        {"compress": "lzw", "predictor": 2},
        {"compress": "deflate", "interleave": "band"},
        {"compress": "deflate", "zlevel": 9, "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
        {"SPARSE_OK": True},
    ),
    ids=lambda profile: "-".join(map(str, profile.values())),
)
@pytest.mark.parametrize("kind", (np.uint8, np.uint16))
def test_layouts_give_the_same_pixels_with_and_without_gdal(tmp_path, profile, kind, monkeypatch):
    path = tif(tmp_path / "a.tif", ramp(kind), RGB, photometric="rgb", **profile)
    expected = ramp()[::-1].transpose(1, 2, 0) if kind == np.uint8 else None
    for gdal in (True, False):
        monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name, there=gdal: there or None)
        found = images.load(path)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)
        assert isinstance(open_scene(path), Raster) == gdal


@pytest.mark.parametrize("compress", ("zstd", "lzma", "lerc"))
def test_what_opencv_may_not_unpack_is_read_by_gdal_or_told(tmp_path, compress, monkeypatch):
    path = tif(tmp_path / "a.tif", ramp(), RGB, photometric="rgb", compress=compress)
    found = images.load(path)
    np.testing.assert_array_equal(found, ramp()[::-1].transpose(1, 2, 0))
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)
    fault = images.look(path, to_end=True).fault
    assert fault in ("", f"{images.NOT_DECODED}; pip install 'tinyyolo[geo]' reads it")
    if not fault:  # a build of OpenCV that knows it
        np.testing.assert_array_equal(images.load(path), found)


def test_parts_that_were_never_written_are_zero_or_nodata(tmp_path):
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    profile |= {"SPARSE_OK": True, "tiled": True, "blockxsize": 16, "blockysize": 16}
    for name, nodata in (("a.tif", None), ("b.tif", 0)):
        with rasterio.open(tmp_path / name, "w", nodata=nodata, **profile) as file:
            file.write(np.full((3, 16, 16), 9, np.uint8), window=Part(16, 0, 16, 16))
        _, valid = whole(open_raster(tmp_path / name))
        assert valid.sum() == (64 * 64 if nodata is None else 256)
        assert images.load(tmp_path / name)[40, 40, 0] == (0 if nodata is None else 114)


def test_jpeg_in_a_tiff_is_colours(tmp_path):
    flat = np.stack([np.full((64, 64), value, np.uint8) for value in (200, 40, 90)])
    path = tif(tmp_path / "a.tif", flat, None, photometric="ycbcr", compress="jpeg")
    assert abs(whole(open_raster(path))[0].astype(int) - [90, 40, 200]).max() <= 3


def test_jpeg_2000(tmp_path):
    path = tif(tmp_path / "a.jp2", ramp(), RGB, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    pixels, _ = whole(open_scene(path))
    assert pixels[20, 30].tolist() == [50, 20, 30]
    np.testing.assert_array_equal(images.load(path), pixels)
    assert "a.jp2" in images.list_images(tmp_path)


def test_several_pages_and_bands_one_after_another_of_a_big_endian_file(tmp_path):
    first, second = (Image.fromarray(np.full((9, 9, 3), value, np.uint8)) for value in (7, 9))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    assert (whole(open_raster(tmp_path / "pages.tif"))[0] == 7).all() and images.look(tmp_path / "pages.tif").pages == 2
    path = write_tiff(tmp_path / "planar.tif", ramp(np.uint16), planar=2, order=">", big=True)
    pixels, _ = whole(open_raster(path, Rendering(stretch=[0, 255])))
    assert pixels[20, 30].tolist() == [50, 20, 30]


@pytest.mark.parametrize(("bits", "most"), ((1, 1), (2, 3), (4, 15)))
def test_fewer_than_eight_bits_fill_the_range(tmp_path, bits, most):
    values = np.array([[[0, 1, most]]], np.uint8)
    found, _ = grey_of(tif(tmp_path / "a.tif", values, NBITS=bits))
    assert found.tolist() == [[0, round(255 / most), 255]]


def test_white_may_be_zero(tmp_path):
    values = np.array([[[0, 200, 255]]], np.uint8)
    path = tif(tmp_path / "a.tif", values, photometric="miniswhite")
    assert grey_of(path)[0].tolist() == [[255, 55, 0]]


@pytest.mark.parametrize("name", ("a#b.tif", "a?b.tif", "zip+a!b.tif", "ä ö.tif", "a%20b.TIF"))
def test_names_are_names(tmp_path, name):
    path = tif(tmp_path / "plain.tif", ramp(), RGB)
    shutil.copy(path, tmp_path / name)
    np.testing.assert_array_equal(images.load(tmp_path / name), images.load(path))


def test_values_that_are_no_numbers_throughout(tmp_path):
    for i, values in enumerate((np.full((1, 9, 9), np.nan, np.float32), np.full((1, 9, 9), np.inf, np.float32))):
        path = tif(tmp_path / f"{i}.tif", values)
        with pytest.raises(UserError, match=rf"{i}\.tif: no valid pixel: nothing but nodata"):
            open_raster(path)
        assert images.look(path, to_end=True, rendering=Rendering()).fault == "no valid pixel: nothing but nodata"


def test_bands_of_several_types(tmp_path):
    tif(tmp_path / "a.tif", ramp()[:1])
    tif(tmp_path / "b.tif", ramp(np.float32)[1:2] / 2)
    source = (
        '<VRTRasterBand dataType="{}" band="{}"><SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>'
    )
    bands = "".join(
        source.format(kind, i, name) + "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (kind, name) in enumerate((("Byte", "a.tif"), ("Float32", "b.tif")), 1)
    )
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="70" rasterYSize="50">{bands}</VRTDataset>')
    scene = open_raster(tmp_path / "a.vrt", Rendering([1, 2, 2], [0, 51]))  # times 5
    assert whole(scene)[0][20, 30].tolist() == [50, 50, 150]


def test_a_vrt_whose_file_is_gone_is_named(tmp_path):
    path = tif(tmp_path / "a.tif", ramp(), RGB)
    with rasterio.open(path) as source:
        copy(source, tmp_path / "a.vrt", driver="VRT")
    path.unlink()
    assert "a.tif: No such file" in images.look(tmp_path / "a.vrt", to_end=True).fault
    (tmp_path / "b.vrt").write_text("<html>")
    assert images.look(tmp_path / "b.vrt").fault.startswith("not readable as a raster: ")


def test_an_open_scene_goes_to_another_process_closed(tmp_path):
    scene = open_raster(tif(tmp_path / "a.tif", ramp(), RGB))
    other = pickle.loads(pickle.dumps(scene))
    assert other.source is None and scene.source is not None
    window = Window(Span(3, 9, 3, 9), Span(0, 5, 0, 5))
    np.testing.assert_array_equal(other.read(window)[0], scene.read(window)[0])
    mine, scene.process = scene.source, -1  # as after a fork
    scene.read(window)
    assert scene.source is not mine and not mine.closed


def test_percentiles_of_a_very_large_scene_are_of_spots_all_over_it(tmp_path, monkeypatch):
    """Every row counts its columns: the percentiles of spots are those of all to a hundredth."""
    monkeypatch.setattr("tinyyolo.scenes.raster.MANY", 1000)
    values = np.tile(np.arange(3000, dtype=np.uint16), (1, 1200, 1))
    (low, high), *_ = open_raster(tif(tmp_path / "a.tif", values, compress="deflate")).stretch
    assert abs(low - 60) < 40 and abs(high - 2940) < 40
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.build_overviews([4])
    (low, high), *_ = open_raster(tmp_path / "a.tif").stretch
    assert abs(low - 60) < 5 and abs(high - 2940) < 5


def test_the_colours_of_sixteen_bits_are_those_declared(tmp_path):
    """Blue, green, red, alpha, as a real file has them."""
    bands = np.concatenate([ramp(np.uint16, 100)[::-1], np.full((1, 50, 70), 255, np.uint16)])
    path = tif(tmp_path / "a.tif", bands, ("blue", "green", "red", "alpha"))
    pixels, valid = whole(open_raster(path, Rendering(stretch=[0, 25500])))
    assert pixels[20, 30].tolist() == [50, 20, 30] and valid.all()
    with rasterio.open(path) as file:
        assert file.colorinterp[0] == ColorInterp.blue


def test_gdal_remembers_a_row_of_windows_and_no_more(tmp_path):
    """640 rows and a quarter more, and two strips of a row, of 30,000 px of three bytes: 802 * 90,000; of an overview
    and of a narrow scene the least."""
    profile = {
        "driver": "GTiff",
        "count": 3,
        "dtype": "uint8",
        "photometric": "rgb",
        "SPARSE_OK": True,
        "blockysize": 1,
    }
    window = Window(Span(0, 640, 0, 640), Span(0, 640, 0, 640))
    for name, width, expected in (("a.tif", 30_000, 72_180_000), ("b.tif", 3000, 32_000_000)):
        with rasterio.open(tmp_path / name, "w", width=width, height=1000, **profile):
            pass
        scene = open_raster(tmp_path / name)
        scene.read(window)
        assert get_gdal_config("GDAL_CACHEMAX") == expected
    wide = open_raster(tmp_path / "a.tif")
    overview(wide, 600)
    assert get_gdal_config("GDAL_CACHEMAX") == 32_000_000


def test_gdal_remembers_two_windows_of_a_file_in_tiles(tmp_path):
    """2,000 rows and a quarter more, and two tiles of 512: 3,524; twice 2,000 columns and two tiles: 6,048; 3 bytes."""
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "photometric": "rgb", "SPARSE_OK": True}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(tmp_path / "a.tif", "w", width=30_000, height=3000, **profile, **tiles):
        pass
    open_raster(tmp_path / "a.tif").read(Window(Span(0, 2000, 0, 2000), Span(0, 2000, 0, 2000)))
    assert get_gdal_config("GDAL_CACHEMAX") == 3524 * 6048 * 3
