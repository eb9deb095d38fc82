"""Quarter turns and negatives of training images: pixels and boxes together, and training images only."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from ultralytics.utils.instance import Instances

from tests.sets import write_set
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.dataset import TinyDataset
from tinyyolo.datasets.views import invert, transpose
from tinyyolo.engine.arguments import resolve

OFF = dict.fromkeys(("mosaic", "scale", "translate", "fliplr", "flipud", "hsv_h", "hsv_s", "hsv_v"), 0)


def sample(normalized=False, bbox_format="xyxy"):
    """A 20 x 30 image with one bright object at x 4..10, y 12..15."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[12:15, 4:10] = 255
    boxes = np.array([[4, 12, 10, 15]] if bbox_format == "xyxy" else [[7, 13.5, 6, 3]], np.float32)
    if normalized:
        boxes /= np.array([30, 20, 30, 20], np.float32)
    instances = Instances(boxes, np.zeros((0, 1000, 2), np.float32), bbox_format=bbox_format, normalized=normalized)
    return {"img": image, "instances": instances, "resized_shape": (20, 30), "cls": np.zeros((1, 1), np.float32)}


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("bbox_format", ["xyxy", "xywh"])
def test_the_box_stays_on_its_object(normalized, bbox_format):
    label = sample(normalized, bbox_format)
    transpose(label)
    assert label["img"].shape == (30, 20, 3) and label["resized_shape"] == (30, 20)
    instances = label["instances"]
    instances.convert_bbox("xyxy")
    instances.denormalize(20, 30)
    np.testing.assert_allclose(instances.bboxes, [[12, 4, 15, 10]], atol=1e-5)
    assert label["img"][4:10, 12:15].min() == 255 and label["img"].sum() == 255 * 3 * 18


def test_twice_is_nothing():
    label = sample()
    transpose(label)
    transpose(label)
    np.testing.assert_array_equal(label["img"], sample()["img"])
    np.testing.assert_array_equal(label["instances"].bboxes, sample()["instances"].bboxes)


def test_the_negative_of_a_negative():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert invert(image)[0, 0, 0] == 255 and invert(image).dtype == np.uint8
    np.testing.assert_array_equal(invert(invert(image)), image)


@pytest.mark.parametrize("key", ["transpose", "invert"])
@pytest.mark.parametrize("augment", [True, False])
def test_training_images_only(tmp_path, key, augment):
    data = data_yaml.load(str(write_set(tmp_path)))
    found = []
    for share in (0, 1):
        hyp = SimpleNamespace(**resolve("train", {}, {key: share, **OFF}))
        options = {"imgsz": 96, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0}
        random.seed(0)
        found.append(TinyDataset(data, "train" if augment else "val", augment=augment, **options)[0])
    plain, changed = found
    assert bool((plain["img"].float() - changed["img"].float()).abs().amax() > 2) == augment
    expected = plain["bboxes"][:, [1, 0, 3, 2]] if augment and key == "transpose" else plain["bboxes"]
    np.testing.assert_allclose(changed["bboxes"], expected, atol=1e-5)


def test_half_of_the_images_are_turned(tmp_path):
    data = data_yaml.load(str(write_set(tmp_path)))
    hyp = SimpleNamespace(**resolve("train", {}, {"transpose": 0.5, **OFF}))
    dataset = TinyDataset(data, "train", augment=True, imgsz=96, batch_size=2, hyp=hyp, rect=False, stride=32, pad=0.0)
    random.seed(0)
    seen = {tuple(dataset[0]["bboxes"].flatten().tolist()) for _ in range(20)}
    assert len(seen) == 2
