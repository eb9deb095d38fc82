"""Data, images and disks as they come: through the command or the model, one clear line or a counted warning."""

import errno
import json
import os
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
import yaml

from tests.engine.test_engine import RUN, TINY, trained
from tests.support.sets import SIZE, write_set
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.engine import checkpoint

TRAIN = ["train", *(f"{k}={v}" for k, v in {**RUN, **TINY}.items())]


@pytest.fixture(scope="module")
def weights(tiny_set, tmp_path_factory):
    return trained(tiny_set, project=str(tmp_path_factory.mktemp("runs"))).ckpt_path


def edit_json(root, change):
    content = json.loads((root / "train.json").read_text())
    change(content)
    (root / "train.json").write_text(json.dumps(content))


def edit_yaml(root, **keys):
    spec = yaml.safe_load((root / "data.yaml").read_text()) | keys
    (root / "data.yaml").write_text(yaml.safe_dump({k: v for k, v in spec.items() if v is not None}))


def yolo_labels(root, line):
    """The set as YOLO txt, without names unless given later, with `line` in one file."""
    edit_yaml(root, annotations=None, train="yolo/images", val="yolo/images", names={0: "bright"})
    (root / "yolo" / "images").mkdir(parents=True)
    (root / "yolo" / "labels").mkdir()
    shutil.copy(root / "images" / "train_0.png", root / "yolo" / "images" / "a.png")
    (root / "yolo" / "labels" / "a.txt").write_text(line)


STOPS = {
    "missing folder": (lambda root: edit_yaml(root, train="photos"), "photos"),
    "empty folder": (lambda root: [p.unlink() for p in (root / "images").iterdir()], "no usable image"),
    "missing JSON": (lambda root: (root / "train.json").unlink(), "train.json"),
    "malformed JSON": (lambda root: (root / "train.json").write_text('{"images": ['), "train.json"),
    "empty JSON": (lambda root: (root / "train.json").write_text(""), "train.json"),
    "YAML without names": (lambda root: (yolo_labels(root, ""), edit_yaml(root, names=None)), "names"),
    "malformed txt line": (lambda root: yolo_labels(root, "0 .5 .5 abc .1\n"), "a.txt"),
    "class id out of range": (lambda root: yolo_labels(root, "7 .5 .5 .1 .1\n"), "a.txt"),
}


@pytest.mark.parametrize("fault", STOPS)
def test_what_training_cannot_start_from(tmp_path, capsys, fault):
    spoil, says = STOPS[fault]
    data = write_set(tmp_path / "set")
    spoil(tmp_path / "set")
    code, _, err = call(*TRAIN, f"data={data}", capsys=capsys)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1, err


def add_boxes(root, *boxes):
    def change(content):
        image = content["images"][0]["id"]
        for i, bbox in enumerate(boxes):
            content["annotations"].append({"id": 900 + i, "image_id": image, "category_id": 7, "bbox": bbox})

    edit_json(root, change)


def test_bad_boxes_are_counted_and_training_goes_on(tmp_path, caplog, monkeypatch):
    data = write_set(tmp_path / "set")
    nan, huge = float("nan"), 1e30
    add_boxes(tmp_path / "set", [nan, 1, 5, 5], [1, 1, -5, 5], [1, 1, 0, 5], [-huge, -huge, 2 * huge, 2 * huge])
    monkeypatch.setattr("tinyyolo.datasets.train.dataset.LOGGER.propagate", True)
    model = trained(data)
    warned = [r.getMessage() for r in caplog.records if "annotation problems" in r.getMessage()]
    assert warned and "train: 4 annotation problems" in strip(warned[0]) and "train.json" in warned[0]
    assert all(torch.isfinite(p).all() for p in model.model.state_dict().values() if p.is_floating_point())


def strip(text):
    """Without colours."""
    return text.replace("\033[34m", "").replace("\033[1m", "").replace("\033[0m", "")


def png(width, height, pixels=b""):
    """A PNG with sound checksums, whatever its header and pixels say."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def half(suffix):
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    content = cv2.imencode(suffix, noise)[1].tobytes()
    return content[: len(content) // 2]


UNREADABLE = {
    "empty file": (b"", "the file is empty"),
    "text": (b"<html>not found</html>", "neither Pillow nor OpenCV can read it as an image"),
    "truncated JPEG": (half(".jpg"), "truncated JPEG"),
    "truncated PNG": (half(".png"), "Truncated"),
    "truncated BMP": (half(".bmp"), "cannot decode"),
    "truncated TIFF": (half(".tiff"), "neither Pillow nor OpenCV can read it as an image"),
    "zero-size": (png(0, 5), "neither Pillow nor OpenCV can read it as an image"),
    "too many pixels": (png(60_000, 60_000), "more than 536,870,912 pixels"),
    "no numbers": (cv2.imencode(".tiff", np.full((SIZE, SIZE, 3), np.nan, np.float32))[1].tobytes(), "no valid pixel"),
}
NO_PIXELS = png(SIZE, SIZE)  # what only decoding finds out


def spoil_images(folder, split):
    """Spoil the first images of a split, each in another way; returns how the lines about them must begin."""
    for i, (content, _) in enumerate(UNREADABLE.values()):
        (folder / f"{split}_{i}.png").write_bytes(content)
    return [f"{folder / f'{split}_{i}.png'}: " for i in range(len(UNREADABLE))]


def assert_listed(message, lines):
    assert f"{len(lines)} unreadable images left out" in strip(message)
    for line, (_, reason) in zip(lines, UNREADABLE.values(), strict=True):
        said = [found for found in message.splitlines() if line in found]
        assert len(said) == 1 and reason in said[0].partition(line)[2], (line, message)


def test_bad_images_are_counted_and_training_goes_on(tmp_path, caplog, monkeypatch):
    count = len(UNREADABLE)
    data = write_set(tmp_path / "set", counts={"train": count + 2, "val": count + 1})
    expected = {split: spoil_images(tmp_path / "set" / "images", split) for split in ("train", "val")}
    monkeypatch.setattr("tinyyolo.datasets.train.dataset.LOGGER.propagate", True)
    assert len(trained(data).trainer.train_loader.dataset) == 2
    messages = {r.getMessage() for r in caplog.records}
    for split, lines in expected.items():
        (listed,) = [m for m in messages if "left out:" in m and f"{split}: " in strip(m)]
        assert_listed(listed, lines)
        assert any(
            m.endswith(f"left out of split '{split}', listed above: {count} unreadable images") for m in messages
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_that_only_decoding_finds_is_skipped_and_named(tmp_path, capsys, workers):
    data = write_set(tmp_path / "set")
    (tmp_path / "set" / "images" / "train_1.png").write_bytes(NO_PIXELS)
    words = [word for word in TRAIN if not word.startswith("workers")]
    code, _, err = call(*words, f"data={data}", f"workers={workers}", capsys=capsys)
    assert code == 0 and "Traceback" not in err
    (file,) = (tmp_path / "runs").rglob("skipped.txt")
    (line,) = file.read_text().splitlines()
    assert "train_1.png: " in line and "cannot decode" in line


def test_unreadable_sources_are_counted(weights, tmp_path, caplog, monkeypatch, capsys):
    write_set(tmp_path, counts={"val": len(UNREADABLE) + 2})
    lines = spoil_images(tmp_path / "images", "val")
    monkeypatch.setattr("tinyyolo.datasets.train.dataset.LOGGER.propagate", True)
    code, _, err = call("predict", f"model={weights}", f"source={tmp_path / 'images'}", capsys=capsys)
    assert code == 0, err
    (message,) = {r.getMessage() for r in caplog.records if "unreadable images left out" in r.getMessage()}
    assert_listed(message, lines)
    assert len(list((tmp_path / "runs" / "predict").glob("*.jpg"))) == 2
    code, _, err = call("predict", f"model={weights}", f"source={tmp_path / 'images/val_1.png'}", capsys=capsys)
    assert code == 2 and "val_1.png" in err and len(err.strip().splitlines()) == 1


def detections(weights, image, path):
    cv2.imwrite(str(path), image)
    stretch = [0, 65535] if image.dtype == np.uint16 else None
    (result,) = Model(weights).predict(path, conf=0.0, max_det=20, imgsz=SIZE, stretch=stretch)
    return result.boxes.data


@pytest.mark.parametrize("kind", ["16 bit", "grey", "RGBA", "16-bit grey TIFF"])
def test_kinds_of_images_give_the_same_boxes(weights, tmp_path, kind):
    rng = np.random.default_rng(0)
    grey = rng.integers(60, 160, (SIZE, SIZE), dtype=np.uint8)
    grey[40:46, 20:25] = 250
    colour = cv2.merge([grey] * 3)
    expected = detections(weights, colour, tmp_path / "plain.png")
    image, suffix = {
        "16 bit": (colour.astype(np.uint16) * 257, "png"),
        "grey": (grey, "png"),
        "RGBA": (cv2.merge([grey, grey, grey, np.full_like(grey, 255)]), "png"),
        "16-bit grey TIFF": (grey.astype(np.uint16) * 257, "tiff"),
    }[kind]
    assert len(expected) == 20
    torch.testing.assert_close(detections(weights, image, tmp_path / f"other.{suffix}"), expected, atol=1e-4, rtol=1e-4)


def test_validation_sees_16_bits_and_alpha_as_8_bit_colours(weights, tmp_path, capsys):
    found = []
    for name, more in (("plain", []), ("alpha", []), ("deep", ["stretch=[0,65535]"])):
        data = write_set(tmp_path / name)
        for i in range(4 * (name != "plain")):
            path = tmp_path / name / "images" / f"val_{i}.png"
            image = cv2.imread(str(path))
            deep = image.astype(np.uint16) * 257
            cv2.imwrite(str(path), deep if name == "deep" else cv2.merge([image, np.full_like(image[..., 0], 9)]))
        words = [*more, "conf=0", "max_det=20", f"imgsz={SIZE}", "plots=false", f"name={name}"]
        code, _, err = call("val", f"model={weights}", f"data={data}", *words, capsys=capsys)
        assert code == 0, err
        found.append(json.loads((tmp_path / "runs" / name / "predictions.json").read_text()))
    assert len(found[0]) == 80 and found[0] == found[1] == found[2]


def test_one_pixel_is_an_image(weights, tmp_path):
    boxes = detections(weights, np.full((1, 1, 3), 128, np.uint8), tmp_path / "dot.png")
    assert len(boxes) and bool((boxes[:, :4] >= 0).all()) and bool((boxes[:, :4] <= 1).all())


@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_project_that_cannot_be_written(tiny_set, weights, tmp_path, capsys, command):
    (tmp_path / "file").write_text("")
    words = {
        "train": [*TRAIN, f"data={tiny_set}"],
        "val": ["val", f"model={weights}", f"data={tiny_set}", "imgsz=96"],
        "predict": ["predict", f"model={weights}", f"source={tiny_set.parent / 'images'}"],
    }[command]
    code, _, err = call(*words, f"project={tmp_path / 'file' / 'runs'}", capsys=capsys)
    assert code == 2 and str(tmp_path / "file") in err and len(err.strip().splitlines()) == 1, err


class FullDisk:
    """A file that opens and takes nothing."""

    def __init__(self, handle, *_, **__):
        self.handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.handle)

    def write(self, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["val", "plots=false"], "metrics.json"),
        (["predict"], "val_0.jpg"),
        (["predict", "save=false", "save_json=true"], "predictions.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_full_disk_names_the_file(tiny_set, weights, tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.setattr("tinyyolo.io.os.fdopen", FullDisk)
    more = f"data={tiny_set}" if words[0] == "val" else f"source={tiny_set.parent / 'images' / 'val_0.png'}"
    code, _, err = call(*words, f"model={weights}", more, "conf=0", f"imgsz={SIZE}", capsys=capsys)
    assert code == 2 and f"{says}: No space left" in err and len(err.strip().splitlines()) == 1, err
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()], "half a file"


def test_full_disk_keeps_the_last_good_checkpoint(tiny_set, tmp_path, capsys, monkeypatch):
    save, saved = torch.save, []

    def runs_full(content, file):
        saved.append(content["epoch"])
        if len(saved) > 2:  # last.pt and best.pt of the first epoch fit
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr("tinyyolo.engine.checkpoint.torch.save", runs_full)
    words = [word for word in TRAIN if not word.startswith("epochs")]
    code, _, err = call(*words, f"data={tiny_set}", "epochs=3", capsys=capsys)
    assert code == 2 and "last.pt" in err and "No space left" in err and len(err.strip().splitlines()) == 1, err
    folder = tmp_path / "runs" / "train" / "weights"
    assert checkpoint.load(folder / "last.pt")["epoch"] == 0
    assert not list(folder.glob("*.part"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, _, err = call("train", f"resume={folder / 'last.pt'}", capsys=capsys)
    assert code == 0 and checkpoint.load(folder / "last.pt")["epoch"] == 2, err
