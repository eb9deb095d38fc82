"""Data YAMLs, sizes and pictures that say what cannot be: one line or a counted fault, before memory is asked for."""

import json
import re
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from tests.support.data_sets import clean_set, coco, data_yaml
from tests.test_cli import call
from tinyyolo.config import UserError
from tinyyolo.datasets import images, spec
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.sizes import FARTHEST, MOST_PIXELS


def test_names_and_folders_are_the_text_that_stands_there(tmp_path):
    """By YAML 1.1 these are False, 1000.0, a date, 7, 1.5, True and 20241125."""
    words = ["no", "1e3", "2024-01-01", "007", "1.50", "true", "2024_11_25"]
    text = "train: 2024_11_25\nval: [12:30, 007]\npath: 1e3\nignore: [no]\nannotations: {train: 0123}\n"
    text += f"names: [{', '.join(words)}]\n"
    (tmp_path / "d.yaml").write_text(text)
    found = spec.load(tmp_path / "d.yaml")
    assert list(found.names.values()) == words[1:] and found.ignore == ("no",)
    root = tmp_path / "1e3"
    assert found.split("train").images == (root / "2024_11_25",) and found.split("train").annotations == root / "0123"
    assert found.split("val").images == (root / "12:30", root / "007")
    text = text.replace(f"[{', '.join(words)}]", "{" + ", ".join(f"{i}: {word}" for i, word in enumerate(words)) + "}")
    (tmp_path / "d.yaml").write_text(text)
    assert list(spec.load(tmp_path / "d.yaml").names.values()) == words[1:]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("path", "~nosuchuser/x", "path: ~nosuchuser/x: no path: "),
        ("train", "a" * 300, "no path: File name too long"),
        ("annotations", {"train": "~nosuchuser"}, "no path: "),
        ("stands_for", {"train": ["x"]}, "stands_for: expected a mapping split: official split"),
        ("expected", {"train": {"boxes": 1}}, "expected: expected split"),
        ("expected", {"train": {"images": 1, "boxes": "x"}}, "expected: expected split"),
        ("expected", {"train": {"images": 1, "classes": {"a": [1]}}}, "expected: expected split"),
    ],
)
def test_values_that_once_ended_in_a_traceback(tmp_path, key, value, says):
    file = data_yaml(tmp_path / "d.yaml", **({"train": "images", "names": ["a"]} | {key: value}))
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        spec.load(file)
    assert str(caught.value).startswith(str(file))


def test_a_list_of_images_that_is_no_text(tmp_path):
    clean_set(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"images/\xff\xfe.png\n")
    (tmp_path / "labels").mkdir()
    found = spec.load(data_yaml(tmp_path / "d.yaml", train="list.txt", names=["a"], annotations={"train": "labels"}))
    with pytest.raises(UserError, match=r"list\.txt: not readable as a list in UTF-8"):
        found.read("train")


# 30,000 x 30,000 = 900 million px; 2^29 = 536,870,912 = 32,768 x 16,384.
SIZES = {(30_000, 30_000): False, (2_000_000, 10): False, (32_768, 16_384): True, (32_768, 16_385): False}


@pytest.mark.parametrize("size", SIZES)
def test_declared_sizes_are_bounded(size, tmp_path):
    assert FARTHEST == 1e6 and MOST_PIXELS == 2**29
    file = coco(tmp_path / "a.json", [(1, "a.png", *size)], [], [(1, "ship")])
    for needed in (True, False):
        found = coco_json.read(file, strict=False, images=needed)
        assert len(found) == (SIZES[size] or not needed)
        assert found.sizes_hw.tolist() == ([list(size[::-1])] if SIZES[size] else [] if needed else [[0, 0]])
        assert [p.kind for p in found.problems] == ([] if SIZES[size] else ["no size" if needed else "bad size"])
    if not SIZES[size]:
        with pytest.raises(UserError, match=rf"found {size[0]} x {size[1]}; at most 1,000,000 px a side, 536,870,912"):
            coco_json.read(file)


def test_commands_do_not_believe_a_size(tmp_path, capsys):
    clean_set(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    content["images"][0] |= {"width": 2_000_000, "height": 2_000_000}
    (tmp_path / "train.json").write_text(json.dumps(content))
    (tmp_path / "dt.json").write_text("[]")
    code, _, err = call("data", "convert", "set.yaml", "out=out", "tile=64", "overlap=0", capsys=capsys)
    assert code == 2 and "found 2000000 x 2000000" in err and not (tmp_path / "out").exists()
    code, _, err = call("report", "gt=train.json", "dt=dt.json", "pngs=2", capsys=capsys)
    assert code == 0 and "1 bad size" in err and len(list((tmp_path / "runs/report/images").iterdir())) == 2


def test_a_blank_picture_is_not_drawn_at_any_size(tmp_path, capsys):
    """8,192 x 4,097 px are over 2^25; the image of 64 x 48 px is drawn."""
    notes = [(1, 1, 1, [2, 3, 4, 5]), (2, 2, 1, [2, 3, 4, 5])]
    coco(tmp_path / "gt.json", [(1, "a.png", 8192, 4097), (2, "b.png", 64, 48)], notes, [(1, "ship")])
    (tmp_path / "dt.json").write_text("[]")
    code, _, err = call("report", "gt=gt.json", "dt=dt.json", capsys=capsys)
    assert code == 0 and err.endswith("1 PNGs left out: images that are not there, of over 33,554,432 px\n")
    assert [path.name for path in (tmp_path / "runs/report/images").iterdir()] == ["002_b.png"]


def png(width, height):
    """A PNG whose header declares a size; its pixels end after a line."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(4096)))]
    chunks = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff_of_four_bands(width, height):
    """A TIFF of four bands of 16 bits, which only OpenCV reads; its tags declare a size."""
    content = cv2.imencode(".tif", np.zeros((40, 30, 4), np.uint16))[1].tobytes()
    for tag, old, new in ((256, 30, width), (257, 40, height)):
        for kind, form in ((3, "HHIHH"), (4, "HHII")):  # a short is followed by two bytes that say nothing
            tail = (old, 0) if kind == 3 else (old,)
            content = content.replace(
                struct.pack(f"<{form}", tag, kind, 1, *tail), struct.pack("<HHII", tag, 4, 1, new)
            )
    return content


@pytest.mark.parametrize("make", [png, tiff_of_four_bands])
def test_declared_pixels_are_bounded_before_decoding(make, tmp_path, monkeypatch):
    monkeypatch.setattr("tinyyolo.scenes.find_spec", lambda name: None)  # GDAL reads windows of what is larger
    file = tmp_path / ("a.png" if make is png else "a.tif")
    file.write_bytes(make(30_000, 30_000))
    tracemalloc.start()
    assert images.decode(file.read_bytes()) is None
    assert images.look(file).fault == images.look(file, to_end=True).fault == "more than 536,870,912 pixels"
    with pytest.raises(UserError, match=re.escape(str(file))) as caught:
        images.opened(file)
    assert len(str(caught.value).splitlines()) == 1 and tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["\ud800", "", 7, None])
def test_names_that_are_no_text(name, tmp_path, capsys):
    clean_set(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    content["images"][0]["file_name"] = name
    content["categories"][1]["name"] = [] if name == 7 else name
    (tmp_path / "train.json").write_text(json.dumps(content))
    found = coco_json.read(tmp_path / "train.json", strict=False)
    assert found.file_names == ["t1.png"] and list(found.names.values()) == ["ship"]
    assert [p.kind for p in found.problems][:2] == ["bad record", "bad record"]
    (tmp_path / "dt.json").write_text("[]")
    code, _, err = call("evaluate", "gt=train.json", "dt=dt.json", capsys=capsys)
    assert code == 2 and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "a\nb", "../../a.png"])
def test_names_that_no_image_here_can_have(name, tmp_path):
    file = clean_set(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    content["images"][0]["file_name"] = name
    (tmp_path / "train.json").write_text(json.dumps(content))
    found = spec.load(file).read("train", strict=False)
    assert found.file_names == ["t1.png"] and [p.kind for p in found.problems] == ["image name"]


@pytest.mark.parametrize(
    "value", [[], {}, 10**30, 2**63, -(2**63) - 1, 1e308, float("inf"), float("nan"), "\ud800", [1, [2]]]
)
@pytest.mark.parametrize(
    "place", [("images", "id"), ("annotations", "id"), ("annotations", "image_id"), ("categories", "id")]
)
def test_ids_that_are_none(place, value, tmp_path):
    clean_set(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    content[place[0]][0][place[1]] = value
    (tmp_path / "train.json").write_text(json.dumps(content))
    found = coco_json.read(tmp_path / "train.json", strict=False)
    assert found.problems and len(found.boxes) == (
        3 if place == ("annotations", "id") else {"i": 1, "a": 2, "c": 1}[place[0][0]]
    )
