"""The one opener: what it says of every kind of file, in the same words in check, train, val, predict and tiles."""

import json
import re
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support.data_sets import coco, data_yaml
from tinyyolo.compat import FileLoader
from tinyyolo.datasets import images, kinds, spec
from tinyyolo.datasets.audit import check
from tinyyolo.datasets.convert import tile
from tinyyolo.datasets.formats.coco import read as read_coco
from tinyyolo.datasets.images import CUT_SHORT, EMPTY, MISSING, NOT_DECODED, UNKNOWN, Look
from tinyyolo.datasets.train.dataset import TinyDataset, why_not
from tinyyolo.engine.arguments import resolve
from tinyyolo.scenes.rendering import Rendering

H, W = 40, 60
PIXELS = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)  # BGR
SIXTEEN = np.random.default_rng(1).integers(0, 65536, (H, W, 4), np.uint16)


def divided(values):
    """Values that use all 16 bits: 65,535 becomes 255."""
    return (values.astype(np.float32) / 65535 * 255 + 0.5).astype(np.uint8)


def by_percentiles(values):
    """The 2nd and 98th percentiles of each band become 0 and 255."""
    low, high = np.percentile(values.reshape(-1, 3), [2, 98], axis=0).astype(np.float32)
    return (((values - low) / (high - low)).clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def encoded(suffix, pixels=PIXELS):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def pillow(path, mode="RGB", orientation=0, **more):
    """Write by Pillow, as a camera would with an orientation."""
    picture = Image.fromarray(np.ascontiguousarray(PIXELS[..., ::-1])).convert(mode)
    if orientation and path.suffix == ".tif":
        more["tiffinfo"] = {images.EXIF_ORIENTATION: orientation}
    elif orientation:
        more["exif"] = Image.Exif()
        more["exif"][images.EXIF_ORIENTATION] = orientation
    picture.save(path, **more)


def several(path, orientation):
    """A JPEG with a second picture behind it, as drones write."""
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = orientation
    first, second = (Image.fromarray(np.ascontiguousarray(p)) for p in (PIXELS, PIXELS[:9, :9]))
    first.save(path, "MPO", save_all=True, append_images=[second], exif=exif)


def half(suffix):
    return lambda path: path.write_bytes(encoded(suffix)[: len(encoded(suffix)) // 2])


def bad_checksum(path):
    content = bytearray(encoded(".png"))
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def too_large(path):
    """A PNG of 60,000 x 60,000 px with sound checksums, and without pixels."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        with path.open("ab") as stream:
            stream.write(struct.pack(">I", len(content)) + kind + content)
            stream.write(struct.pack(">I", zlib.crc32(kind + content)))


SOUND = {  # name -> how it is written, and what the header says
    "a.jpg": (lambda p: p.write_bytes(encoded(".jpg")), Look((H, W), 3, "uint8")),
    "a.png": (lambda p: p.write_bytes(encoded(".png")), Look((H, W), 3, "uint8")),
    "a.tif": (lambda p: p.write_bytes(encoded(".tif")), Look((H, W), 3, "uint8")),
    "a.bmp": (lambda p: p.write_bytes(encoded(".bmp")), Look((H, W), 3, "uint8")),
    "a.webp": (lambda p: p.write_bytes(encoded(".webp")), Look((H, W), 3, "uint8")),
    "tail.jpg": (lambda p: p.write_bytes(encoded(".jpg") + b"camera"), Look((H, W), 3, "uint8")),
    "tiff called.png": (lambda p: p.write_bytes(encoded(".tif", PIXELS[::-1])), Look((H, W), 3, "uint8")),
    "turned.jpg": (lambda p: pillow(p, orientation=6), Look((W, H), 3, "uint8", 6)),
    "turned.png": (lambda p: pillow(p, orientation=6), Look((W, H), 3, "uint8", 6)),
    "turned.tif": (lambda p: pillow(p, orientation=8), Look((W, H), 3, "uint8", 8)),
    "turned.webp": (lambda p: pillow(p, orientation=5), Look((W, H), 3, "uint8", 5)),
    "mirrored.jpg": (lambda p: pillow(p, orientation=2), Look((H, W), 3, "uint8", 2)),
    "drone.jpg": (lambda p: several(p, orientation=6), Look((W, H), 3, "uint8", 6)),
    "grey.png": (lambda p: p.write_bytes(encoded(".png", PIXELS[..., 0])), Look((H, W), 1, "uint8")),
    "palette.png": (lambda p: pillow(p, "P"), Look((H, W), 1, "uint8", palette=True)),
    "bits.png": (lambda p: pillow(p, "1"), Look((H, W), 1, "uint8")),
    "cmyk.jpg": (lambda p: pillow(p, "CMYK"), Look((H, W), 4, "uint8", inks=True)),
    "alpha.png": (lambda p: pillow(p, "RGBA"), Look((H, W), 4, "uint8", alpha=True)),
    "deep.png": (lambda p: p.write_bytes(encoded(".png", SIXTEEN[..., :3])), Look((H, W), 3, "uint16")),
    "deep grey.png": (lambda p: p.write_bytes(encoded(".png", SIXTEEN[..., 0])), Look((H, W), 1, "uint16")),
    "deep.tif": (lambda p: p.write_bytes(encoded(".tif", SIXTEEN[..., :3])), Look((H, W), 3, "uint16")),
    "four bands.tif": (lambda p: p.write_bytes(encoded(".tif", SIXTEEN)), Look((H, W), 4, "uint16")),
    "twelve bits.tif": (lambda p: p.write_bytes(encoded(".tif", SIXTEEN[..., :3] // 16)), Look((H, W), 3, "uint16")),
    "point.png": (lambda p: p.write_bytes(encoded(".png", PIXELS[:1, :1])), Look((1, 1), 3, "uint8")),
}
FAULTY = {  # name -> how it is written, why it cannot be used, and whether the header alone tells
    "missing.png": (lambda p: None, MISSING, True),
    "empty.png": (lambda p: p.write_bytes(b""), EMPTY, True),
    "text.png": (lambda p: p.write_text("<html>not found</html>"), UNKNOWN, True),
    "half.jpg": (half(".jpg"), CUT_SHORT, False),
    "half.png": (half(".png"), "Truncated File Read", False),
    "checksum.png": (bad_checksum, "broken PNG file", False),
    "half.tif": (half(".tif"), UNKNOWN, True),
    "half.bmp": (half(".bmp"), NOT_DECODED, False),
    "large.png": (too_large, "more than 536,870,912 pixels", True),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_read_of_a_sound_file(tmp_path, name):
    write, expected = SOUND[name]
    write(tmp_path / name)
    assert images.look(tmp_path / name) == images.look(tmp_path / name, to_end=True) == expected
    pixels = images.load(tmp_path / name)
    assert pixels.shape == (*expected.size_hw, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", PIXELS),
        ("a.tif", PIXELS),
        ("a.bmp", PIXELS),
        ("turned.png", PIXELS[::-1].transpose(1, 0, 2)),  # EXIF 6: turned clockwise to stand upright
        ("turned.tif", PIXELS[:, ::-1].transpose(1, 0, 2)),  # 8: turned counterclockwise
        ("grey.png", PIXELS[..., :1].repeat(3, 2)),
        ("alpha.png", PIXELS),
        ("deep.png", divided(SIXTEEN[..., :3])),
        ("deep.tif", divided(SIXTEEN[..., :3])),
        ("four bands.tif", divided(SIXTEEN[..., :3])),
        ("twelve bits.tif", by_percentiles(SIXTEEN[..., :3] // 16)),
    ],
)
@pytest.mark.parametrize("gdal", (True, False))
def test_pixels_by_hand(tmp_path, name, expected, gdal, monkeypatch):
    """With rasterio and without."""
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: gdal or None)
    SOUND[name][0](tmp_path / name)
    np.testing.assert_array_equal(images.load(tmp_path / name), expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".pgm"])
def test_grey_files_have_the_pixels_that_opencv_gives_in_colour(tmp_path, suffix):
    """Every value, then noise; the JPEG lies on its side."""
    noise, exif = np.random.default_rng(0).integers(0, 256, (40, 64), np.uint8), Image.Exif()
    exif[0x0112] = 6
    turned, file = {"exif": exif} if suffix == ".jpg" else {}, tmp_path / f"a{suffix}"
    Image.fromarray(np.concatenate([np.arange(256, dtype=np.uint8).reshape(4, 64), noise])).save(file, **turned)
    found = images.load(file)
    assert found.shape == ((64, 44, 3) if turned else (44, 64, 3))
    np.testing.assert_array_equal(found, cv2.imread(str(file), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("gdal", (True, False))
def test_values_of_16_bits_by_limits_and_by_percentiles(tmp_path, suffix, gdal, monkeypatch):
    """500, 1,000 and 2,000 of 0 to 1,000 are 127.5, 255 and over; the 10th percentile of 0 to 100 is 10."""
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: gdal or None)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, np.array([[0, 500, 1000, 2000]], np.uint16)))
    limited = images.load(path, Rendering(stretch=[0, 1000]))
    assert limited[..., 0].tolist() == limited[..., 2].tolist() == [[0, 128, 255, 255]]
    path.write_bytes(encoded(suffix, np.arange(101, dtype=np.uint16)[None]))
    shares = images.load(path, Rendering(stretch=["10%", "90%"]))
    assert shares[0, [10, 50, 90], 0].tolist() == [0, 128, 255]
    colours = np.array([[[300, 200, 100]]], np.uint16)  # blue first
    path.write_bytes(encoded(suffix, colours))
    each = images.load(path, Rendering(stretch=[[0, 100], [0, 400], [0, 1200]]))  # red first
    assert each[0, 0].tolist() == [64, 128, 255]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
@pytest.mark.parametrize("gdal", (True, False))
def test_bands_that_are_asked_for(tmp_path, name, gdal, monkeypatch):
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: gdal or None)
    SOUND[name][0](tmp_path / name)
    declared = images.load(tmp_path / name)
    swapped = images.load(tmp_path / name, Rendering(bands=[3, 2, 1]))
    np.testing.assert_array_equal(swapped, declared[..., ::-1])
    np.testing.assert_array_equal(images.load(tmp_path / name, Rendering(bands=2)), declared[..., [1, 1, 1]])
    with pytest.raises(ValueError, match=r"bands=\[1, 2, 4\]: expected one or three of its bands; Choices: 1 red, 2 "):
        images.load(tmp_path / name, Rendering(bands=[1, 2, 4]))
    assert "Choices: 1 red, 2 " in images.look(tmp_path / name, rendering=Rendering(bands=4)).fault


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("gdal", (True, False))
def test_what_is_transparent_is_no_pixel(tmp_path, suffix, gdal, monkeypatch):
    """Wholly transparent is the grey that the engine pads with; nearly so is as it was."""
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: gdal or None)
    alpha = np.full((H, W, 1), 255, np.uint8)
    alpha[:, :5], alpha[:, 5:9] = 0, 1
    picture = Image.fromarray(np.concatenate([PIXELS[..., ::-1], alpha], axis=2))
    picture.save(tmp_path / f"a{suffix}", lossless=True, exact=True)
    found = images.load(tmp_path / f"a{suffix}")
    assert (found[:, :5] == 114).all()
    np.testing.assert_array_equal(found[:, 5:], PIXELS[:, 5:])
    turned = Image.Exif()
    turned[images.EXIF_ORIENTATION] = 6  # clockwise: the left columns are the upper rows
    if suffix != ".tif":
        picture.save(tmp_path / f"a{suffix}", lossless=True, exact=True, exif=turned)
        found = images.load(tmp_path / f"a{suffix}")
        assert (found[:5] == 114).all() and not (found[5:] == 114).all(axis=(1, 2)).any() and len(found) == W


@pytest.mark.parametrize("gdal", (True, False))
def test_nodata_is_no_pixel_with_and_without_gdal(tmp_path, gdal, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    values = np.tile(np.arange(0, 300, 10, np.uint16), (3, 2, 1)) + np.array([0, 1, 2], np.uint16)[:, None, None]
    values[:, :, 0] = 7
    profile = {"driver": "GTiff", "width": 30, "height": 2, "count": 3, "dtype": "uint16", "nodata": 7}
    with rasterio.open(tmp_path / "a.tif", "w", photometric="rgb", **profile) as file:
        file.write(values)
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: gdal or None)
    found = images.load(tmp_path / "a.tif", Rendering(stretch=["0%", "100%"]))
    assert (found[:, 0] == 114).all() and not found[:, 1].any() and (found[:, -1] == 255).all()


def test_what_gdal_alone_knows_is_refused_without_it(tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "width": 9, "height": 8, "count": 3, "dtype": "uint8"}
    for name, more in (("order.tif", {}), ("mask.tif", {}), ("beside.tif", {}), ("five.tif", {"count": 5})):
        inside = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=name == "mask.tif")
        with inside, rasterio.open(tmp_path / name, "w", **{**profile, **more}) as file:
            if name == "order.tif":
                file.colorinterp = [rasterio.enums.ColorInterp[c] for c in ("blue", "green", "red")]
            file.write(np.tile(np.arange(1, file.count + 1, dtype=np.uint8)[:, None, None], (1, 8, 9)))
            if name in ("mask.tif", "beside.tif"):
                file.write_mask(np.eye(8, 9) > 0)
    for name in ("a.vrt", "a.jp2"):
        (tmp_path / name).write_text("<VRTDataset/>")
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)
    said = {
        "mask.tif": "it has a mask: pip install 'tinyyolo[geo]' reads it",
        "beside.tif": "beside.tif.msk is its mask: pip install 'tinyyolo[geo]' reads it",
        "a.vrt": "a .vrt file needs the package rasterio: pip install 'tinyyolo[geo]'",
        "a.jp2": "a .jp2 file needs the package rasterio: pip install 'tinyyolo[geo]'",
    }
    for name, words in said.items():
        assert images.look(tmp_path / name).fault == words
        with pytest.raises(ValueError, match=re.escape(words)):
            images.load(tmp_path / name)
    assert images.load(tmp_path / "order.tif")[0, 0].tolist() == [1, 2, 3]
    assert images.look(tmp_path / "five.tif").fault == ""  # which reads labels, not pixels
    with pytest.raises(ValueError, match=r"which bands are red, green and blue: bands=\[r,g,b\]; Choices: 1 "):
        images.load(tmp_path / "five.tif")


def test_what_becomes_of_every_kind_is_told(tmp_path):
    looks = []
    for name, (write, _) in SOUND.items():
        write(tmp_path / name)
        looks.append(images.look(tmp_path / name))
    lines = kinds.told_kinds(looks)
    counts = {line.partition(" with ")[2].split(",")[0].split(":")[0]: int(line.split()[0]) for line in lines}
    assert counts == {
        "an EXIF orientation": 6,
        "a palette": 1,
        "four inks (CMYK)": 1,
        "transparency": 1,
        "values of uint16": 5,
        "4 bands": 1,
    }
    assert kinds.told_kinds([images.Look((9, 9), 4, "uint8", fault=UNKNOWN)]) == []


@pytest.mark.parametrize("name", FAULTY)
def test_why_a_file_cannot_be_used(tmp_path, name):
    write, words, told_by_header = FAULTY[name]
    write(tmp_path / name)
    found = images.look(tmp_path / name, to_end=True)
    assert words in found.fault and "\n" not in found.fault
    assert images.look(tmp_path / name).fault == (found.fault if told_by_header else "")
    with pytest.raises(ValueError, match=re.escape(found.fault)) as caught:
        images.load(tmp_path / name)
    assert str(caught.value) == found.fault


def test_the_same_words_everywhere(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, (write, *_) in (SOUND | FAULTY).items():
        write(folder / name)
    names = [*SOUND, *FAULTY]
    records = [(i, name, *(SOUND[name][1].size_hw[::-1] if name in SOUND else (W, H))) for i, name in enumerate(names)]
    path = coco(tmp_path / "a.json", records, [], [(1, "ship")])
    splits = {"train": path.name, "val": path.name}
    data = spec.load(data_yaml(tmp_path / "d.yaml", train="images", val="images", annotations=splits))
    expected = {str(folder / name): images.look(folder / name, to_end=True).fault for name in FAULTY}

    report, _ = check.inspect(data, ["val"])
    lines = report["problems"]["unreadable image"]
    assert set(report["problems"]) == {"missing image", "unreadable image"}
    missing = str(folder / "missing.png")
    assert dict(line.split(": ", 1) for line in lines) == {k: v for k, v in expected.items() if k != missing}

    hyp = SimpleNamespace(**resolve("train", {}, {}))
    for split in ("train", "val"):
        options = {"imgsz": 64, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0}
        dataset = TinyDataset(data, split, augment=split == "train", **options)
        assert dict(line.split(": ", 1) for line in dataset.bad_images) == expected
        assert [str(folder / name) for name in SOUND] == dataset.im_files
        for i, name in enumerate(SOUND):
            assert dataset.load_image(i)[1] == SOUND[name][1].size_hw

    bad, good, there = {}, [], [str(folder / name) for name in names if name != "missing.png"]
    loader = FileLoader(there, [], 4, 1, lambda file: bad.update({file: why_not(file)}), good.append)
    read = {file: pixels for files, batch, _ in loader for file, pixels in zip(files, batch, strict=True)}
    assert bad == {k: v for k, v in expected.items() if k != missing} and sorted(good) == sorted(read)
    for name in SOUND:
        np.testing.assert_array_equal(read[str(folder / name)], images.load(folder / name), err_msg=name)
    for name in FAULTY:
        with pytest.raises(ValueError, match=re.escape(f"{folder / name}: {expected[str(folder / name)]}")):
            tile.cut_scene(folder / name, [((0, 0), tmp_path / "t.png")], (8, 8))


def test_check_notes_what_is_not_eight_bit_colour_or_grey(tmp_path):
    for name in ("a.png", "grey.png", "four bands.tif", "palette.png"):
        SOUND[name][0](tmp_path / name)
    records = [(i, name, W, H) for i, name in enumerate(("a.png", "grey.png", "four bands.tif", "palette.png"))]
    coco(tmp_path / "a.json", records, [], [(1, "ship")])
    data = spec.load(data_yaml(tmp_path / "d.yaml", train=".", annotations={"train": "a.json"}))
    assert check.inspect(data)[0]["notes"]["image mode"] == [
        "train: 1 image with values of uint16, of which 2% to 98% of each image, or the full 16 bits "
        "where they are used, become 0 and 255 (stretch=)",
        "train: 1 image with 4 bands, of which those declared as red, green and blue are taken",
        "train: 1 image with a palette, whose colours are taken",
    ]


def test_what_shrinking_does_is_told(tmp_path):
    """Of 64 x 48 px at 32 px, factor 2: boxes of 10, 6 and 3 px on the longer side become 5, 3 and 1.5: one of three
    falls under 4 px, as that of 3 px was under before."""
    path = tmp_path / "a.json"
    boxes = [[1, 1, 10, 4], [20, 1, 2, 6], [30, 1, 3, 3]]
    notes = [dict(id=i, image_id=1, category_id=1, bbox=box, area=1, iscrowd=0) for i, box in enumerate(boxes, 1)]
    images_ = [dict(id=1, file_name="a.png", width=64, height=48), dict(id=2, file_name="b.png", width=30, height=30)]
    path.write_text(json.dumps(dict(images=images_, annotations=notes, categories=[dict(id=1, name="ship")])))
    found = read_coco(path)
    assert kinds.shrunk(found, 48) == []
    (line,) = kinds.shrunk(found, 32)
    assert line.startswith("1 of 2 images are shrunk by up to 2.0 to imgsz=32: 33% of the objects fall under 4 px; ")
