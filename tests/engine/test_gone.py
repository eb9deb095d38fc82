"""Images that go bad while a run is going on: skipped, counted, named; half of them stop it."""

import logging
import shutil
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.engine.test_engine import RUN, TINY
from tests.support.sets import write_set
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.engine.arguments import resolve
from tinyyolo.engine.prepare import data_dict, split_dataset

COUNTS = {"train": 6, "val": 5}


@pytest.fixture
def data(tmp_path):
    return write_set(tmp_path / "set", size=64, counts=COUNTS)


def damaged_inside(path):
    """Make it a PNG whose checksums hold and whose pixels do not: found by decoding alone."""
    content = path.read_bytes()
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    pixels = bytearray(content[start + 4 : start + 4 + length])
    pixels[length // 2 : length // 2 + 50] = bytes(50)
    check = struct.pack(">I", zlib.crc32(b"IDAT" + bytes(pixels)))
    path.write_bytes(content[: start + 4] + bytes(pixels) + check + content[start + 8 + length :])


def smaller(path):
    cv2.imwrite(str(path), np.zeros((32, 48, 3), np.uint8))


WAYS = {
    "vanished": (lambda path: path.unlink(), "no such file"),
    "inside": (damaged_inside, "OpenCV cannot decode it"),
    "size": (smaller, r"from (64, 64) to (32, 48)"),
}


def dataset_of(data, split, **keys) -> TinyDataset:
    args = SimpleNamespace(**resolve("train", {}, {"data": str(data), "imgsz": 64, **keys}))
    options = {"augment": split == "train", "rect": split == "val"}
    return split_dataset(data_dict(str(data)), split, args, "train", 2, **options)


class TestSamples:
    @pytest.mark.parametrize("way", WAYS)
    def test_the_next_image_stands_in(self, data, way):
        spoil, reason = WAYS[way]
        dataset = dataset_of(data, "train", mosaic=0.0)
        spoil(data.parent / "images" / "train_5.png")
        sample = dataset.get_image_and_label(5)
        assert sample["im_file"].endswith("train_0.png") and sample["img"].shape == (64, 64, 3)
        assert list(dataset.lost) == [5] and reason in dataset.lost[5] and dataset.gone == {5}
        assert dataset[5]["img"].shape == (3, 64, 64)

    def test_one_that_comes_back_is_used_again(self, data):
        dataset, file = dataset_of(data, "val"), data.parent / "images" / "val_1.png"
        file.rename(file.with_suffix(".away"))
        assert dataset.get_image_and_label(1)["image_index"] == ~1
        file.with_suffix(".away").rename(file)
        assert dataset.get_image_and_label(1)["image_index"] == 1
        assert not dataset.gone and list(dataset.lost) == [1], "told all the same"
        assert [i for i, _ in dataset.news] == [1, 1]

    def test_the_shape_of_its_batch_stays(self, tmp_path):
        data = write_set(tmp_path / "wide", size=64, counts={"train": 2, "val": 6})
        for i in range(4):
            file = data.parent / "images" / f"val_{i}.png"
            cv2.imwrite(str(file), cv2.imread(str(file))[:32])
        text = (data.parent / "val.json").read_text()
        (data.parent / "val.json").write_text(text.replace('"height": 64', '"height": 32', 4))
        dataset = dataset_of(data, "val")
        dataset.im_files[3], spoilt = str(tmp_path / "none.png"), dataset.im_files[3]
        dataset.sizes_hw[dataset.im_files[3]] = dataset.sizes_hw[spoilt]
        assert dataset[2]["img"].shape == dataset[3]["img"].shape == (3, 32, 64)
        assert dataset[4]["img"].shape == (3, 64, 64)

    def test_half_of_them_stop_the_run(self, data):
        dataset = dataset_of(data, "train")
        shutil.rmtree(data.parent / "images")
        with pytest.raises(UserError, match=r"3 of the 6 images of split 'train'.*no such file"):
            dataset[4]

    def test_no_copy_is_pasted_from_one(self, data):
        dataset = dataset_of(data, "train", paste=5, mosaic=0.0)
        (paste,) = [step for step in dataset.transforms.transforms if type(step).__name__ == "PasteTiny"]
        which = next(pair for pairs in paste.bank.values() for pair in pairs)
        (data.parent / "images" / f"train_{which[0]}.png").unlink()
        paste.crops.clear()  # cut out before it was gone, and usable as long as it is at hand
        assert paste.crop(which) is None and which not in paste.crops


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_goes_on_without_them(data, workers, tmp_path, caplog):
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    images = data.parent / "images"

    def spoil(trainer):
        if trainer.epoch == 1:
            (images / "train_2.png").unlink()
            damaged_inside(images / "val_1.png")

    model.add_callback("on_train_epoch_start", spoil)
    model.add_callback("on_pretrain_routine_start", lambda t: setattr(t.args, "workers", workers))
    with caplog.at_level(logging.WARNING):
        # processes had read the images of the second validation before they went
        model.train(data=data, **{**RUN, "imgsz": 64, "epochs": 3 if workers else 2, "mosaic": 0.0})
    folder = tmp_path / "runs" / "train"
    lines = sorted((folder / "skipped.txt").read_text().splitlines())
    assert [line.partition(": ")[0].rpartition("/")[2] for line in lines] == ["train_2.png", "val_1.png"]
    told = [r.getMessage() for r in caplog.records if "images skipped" in r.getMessage()]
    assert len(told) == 1 and "2 images skipped" in told[0] and "val_1.png" in told[0]
    left_out = [r.getMessage() for r in caplog.records if "do not count" in r.getMessage()]
    assert len(left_out) >= 1 and "1 images" in left_out[-1]
    assert len(model.trainer.validator.truth.file_names) == 4


def test_a_disk_that_vanishes_stops_it_with_the_command(data, tmp_path):
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.add_callback("on_fit_epoch_end", lambda trainer: shutil.rmtree(data.parent / "images"))
    with pytest.raises(UserError, match=r"can no longer be read.*; go on with: tinyyolo train resume=") as caught:
        model.train(data=data, **{**RUN, "imgsz": 64, "epochs": 2})
    assert "\n" not in str(caught.value)
