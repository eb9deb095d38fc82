"""Data, images and disks as they come: through the command or the model, one clear line or a counted warning."""

import errno
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml

from tests.sets import SIZE, write_set
from tests.test_cli import call
from tests.test_engine import RUN, TINY, trained
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
    monkeypatch.setattr("tinyyolo.datasets.dataset.LOGGER.propagate", True)
    model = trained(data)
    warned = [r.getMessage() for r in caplog.records if "annotation problems" in r.getMessage()]
    assert warned and "train: 4 annotation problems" in strip(warned[0]) and "train.json" in warned[0]
    assert all(torch.isfinite(p).all() for p in model.model.state_dict().values() if p.is_floating_point())


def strip(text):
    """Without colours."""
    return text.replace("\033[34m", "").replace("\033[1m", "").replace("\033[0m", "")


def spoil_image(path, how):
    if how == "zero bytes":
        path.write_bytes(b"")
    elif how == "truncated JPEG":
        noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        content = cv2.imencode(".jpg", noise)[1].tobytes()
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_text("<html>not found</html>")


@pytest.mark.parametrize("how", ["zero bytes", "truncated JPEG", "text"])
def test_bad_images_are_counted_and_training_goes_on(tmp_path, caplog, monkeypatch, how):
    data = write_set(tmp_path / "set")
    spoil_image(tmp_path / "set" / "images" / "train_2.png", how)
    monkeypatch.setattr("tinyyolo.datasets.dataset.LOGGER.propagate", True)
    trained(data)
    warned = [strip(r.getMessage()) for r in caplog.records if "unreadable images" in r.getMessage()]
    assert warned and "train: 1 unreadable images left out" in warned[0] and "train_2.png: " in warned[0]


def test_unreadable_sources_are_counted(weights, tmp_path, caplog, monkeypatch, capsys):
    folder = tmp_path / "pictures"
    write_set(folder)
    spoil_image(folder / "images" / "train_1.png", "zero bytes")
    spoil_image(folder / "images" / "val_1.png", "text")
    monkeypatch.setattr("tinyyolo.datasets.dataset.LOGGER.propagate", True)
    code, _, err = call("predict", f"model={weights}", f"source={folder / 'images'}", capsys=capsys)
    assert code == 0, err
    warned, *_ = [r.getMessage() for r in caplog.records if "unreadable images left out" in r.getMessage()]
    assert "2 unreadable" in warned and "train_1.png: " in warned and "val_1.png: " in warned
    code, _, err = call("predict", f"model={weights}", f"source={folder / 'images/val_1.png'}", capsys=capsys)
    assert code == 2 and "val_1.png" in err and len(err.strip().splitlines()) == 1


def detections(weights, image, path):
    cv2.imwrite(str(path), image)
    (result,) = Model(weights).predict(path, conf=0.0, max_det=20, imgsz=SIZE)
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
