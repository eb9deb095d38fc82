"""Where a training and a validation sample lie in the network's input: not one pixel moves against its boxes."""

import json
import random

import cv2
import numpy as np
import pytest
import torch
import ultralytics.data.augment
import yaml
from ultralytics.cfg import get_cfg

from tests.support.sets import box
from tinyyolo.config import load_model_yaml, yaml_names
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.engine.arguments import engine_args, resolve
from tinyyolo.sizes import PAD

SIDE = 128
STILL = {"mosaic": 0, "scale": 0, "translate": 0, "fliplr": 0, "flipud": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0}


def noise(height, width, seed=0):
    """(height, width, 3) uint8, black and white in blocks of one pixel: whatever is resampled has a third grey."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(0, 2, (height, width, 1), np.uint8) * 255, 3, axis=2)


def dataset(folder, sizes_hw, augment=True, corner=False, recipe=None, **more):
    """Noise of these sizes, one object of 5 x 3 px at x 7, y 9 in each."""
    (folder / "images").mkdir(parents=True)
    images, notes = [], []
    for i, (height, width) in enumerate(sizes_hw):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), noise(height, width, i))
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        notes.append(box(i + 1, i, 1, [7, 9, 5, 3]))
    content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "train.json").write_text(json.dumps(content))
    given = {"path": str(folder), "train": "images", "annotations": {"train": "train.json"}}
    (folder / "data.yaml").write_text(yaml.safe_dump(given))
    args = resolve("train", {}, {**STILL, **more}) if recipe is None else resolve("train", recipe, {})
    hyp = get_cfg(overrides=engine_args(args))
    options = {"imgsz": SIDE, "hyp": hyp, "batch_size": len(sizes_hw), "stride": 32, "pad": 0.0, "rect": not augment}
    return TinyDataset(data_yaml.load(folder / "data.yaml"), "train", augment=augment, corner=corner, **options)


def pixels_of(image):
    """(H, W) of a sample's image (3, H, W)."""
    return image[0].numpy()


@pytest.mark.parametrize("upright", [False, True], ids=["wide", "upright"])
def test_a_sample_is_moved_by_no_pixel_against_its_boxes(tmp_path, upright):
    """All margins from 0 to 63: each image is there bit by bit where its box says, and all else is grey."""
    sizes = [(SIDE, side) if upright else (side, SIDE) for side in range(65, SIDE + 1)]
    data = dataset(tmp_path / "set", sizes)
    for i, (height, width) in enumerate(sizes):
        sample = data[i]
        x, y, w, h = (sample["bboxes"][0] * SIDE).tolist()
        left, top = round(x - w / 2 - 7), round(y - h / 2 - 9)
        assert (w, h) == pytest.approx((5, 3), abs=1e-4)
        assert (x - w / 2, y - h / 2) == pytest.approx((left + 7, top + 9), abs=1e-4)
        assert (left, top) == ((SIDE - width) // 2, (SIDE - height) // 2), "not where validation has it"
        expected = np.full((SIDE, SIDE), PAD, np.uint8)
        expected[top : top + height, left : left + width] = noise(height, width, i)[..., 0]
        np.testing.assert_array_equal(pixels_of(sample["img"]), expected)


def test_a_shift_that_is_asked_for_goes_by_whole_pixels(tmp_path):
    data = dataset(tmp_path / "set", [(65, SIDE)], translate=0.04)  # of up to 5 px
    found = set()
    for _ in range(4):
        sample = data[0]
        assert set(np.unique(pixels_of(sample["img"]))) <= {0, PAD, 255}
        corner = (sample["bboxes"][0, :2] - sample["bboxes"][0, 2:] / 2) * SIDE
        torch.testing.assert_close(corner, corner.round(), atol=1e-4, rtol=0)
        x, y = corner.round().int().tolist()
        seen = pixels_of(sample["img"])[y : y + 3, x : x + 5]
        np.testing.assert_array_equal(seen, noise(65, SIDE)[9:12, 7:12, 0])
        found.add((x, y))
    assert len(found) > 1


@pytest.mark.parametrize("augment", [True, False], ids=["train", "val"])
def test_in_the_corner_a_batch_is_filled_up_right_and_below(tmp_path, augment):
    """65 x 128 and 40 x 128: the least multiples of 32 that hold both are 96 x 128."""
    sizes = [(65, SIDE), (40, SIDE)]
    data = dataset(tmp_path / "set", sizes, augment, corner=True)
    samples = [data[i] for i in range(2)]
    batch = data.collate_fn(samples)
    assert batch["img"].shape == (2, 3, 96, SIDE)
    for i, (height, width) in enumerate(batch["content_hw"].tolist()):
        assert (height, width) in sizes
        own = pixels_of(batch["img"][i])
        np.testing.assert_array_equal(own[:height], noise(height, width, sizes.index((height, width)))[..., 0])
        assert (own[height:] == PAD).all()
    corners = (batch["bboxes"][:, :2] - batch["bboxes"][:, 2:] / 2) * torch.tensor([SIDE, 96.0])
    torch.testing.assert_close(corners, torch.tensor([[7.0, 9], [7, 9]]), atol=1e-4, rtol=0)


def test_in_the_corner_an_image_is_flipped_before_it_is_filled_up(tmp_path):
    data = dataset(tmp_path / "set", [(SIDE, 65)], corner=True, fliplr=1.0)
    batch = data.collate_fn([data[0]])
    assert batch["img"].shape == (1, 3, SIDE, 96)
    own = pixels_of(batch["img"][0])
    np.testing.assert_array_equal(own[:, :65], noise(SIDE, 65)[:, ::-1, 0])
    assert (own[:, 65:] == PAD).all()
    x, _, w, _ = (batch["bboxes"][0] * torch.tensor([96, SIDE, 96, SIDE])).tolist()
    assert x - w / 2 == pytest.approx(65 - 7 - 5, abs=1e-4)


def test_mixed_images_are_squares_and_that_is_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("tinyyolo.datasets.train.dataset.LOGGER.info", said.append)
    data = dataset(tmp_path / "set", [(65, SIDE), (SIDE, 65)], corner=True, mixup=1.0)
    batch = data.collate_fn([data[0], data[1]])
    assert batch["img"].shape == (2, 3, SIDE, SIDE) and batch["content_hw"].tolist() == [[SIDE, SIDE]] * 2
    assert any("mixup takes squares" in line for line in said)


def mirrors_alone(name):
    """Whether a YAML is one of a published row that asks for no other augmentation: SSD and YOLOv3 do."""
    spec = load_model_yaml(name)
    return bool(spec.get("published")) and not any(spec["train"].get(key) for key in ("scale", "hsv_h", "mosaic"))


ROWS = [name for name in yaml_names("cfg/models") if mirrors_alone(name)]


@pytest.mark.parametrize("name", ROWS)
def test_published_rows_mirror_images_and_do_nothing_else(tmp_path, monkeypatch, name):
    """Even where albumentations is installed, of which upstream adds four transforms; a stand-in turns pixels over."""

    class Inverting:
        def __init__(self, **_):
            self.asked = True

        def __call__(self, labels):
            return {**labels, "img": 255 - labels["img"]}

    monkeypatch.setattr(ultralytics.data.augment, "Albumentations", Inverting)
    recipe = load_model_yaml(name)["train"]
    assert recipe["fliplr"] == 0.5 and not recipe.get("paste")
    data = dataset(tmp_path / "set", [(65, SIDE)], corner=True, recipe=recipe)
    own = noise(65, SIDE)[..., 0]
    seen = []
    for seed in range(8):
        random.seed(seed)
        found = pixels_of(data[0]["img"])
        mirrored = (found == own[:, ::-1]).all()
        assert mirrored or (found == own).all()
        seen.append(bool(mirrored))
    assert set(seen) == {True, False}


def test_mosaics_are_as_large_as_ever(tmp_path):
    data = dataset(tmp_path / "set", [(65, SIDE)] * 4, corner=True, mosaic=1.0)
    assert data.collate_fn([data[0]])["img"].shape == (1, 3, SIDE, SIDE)
