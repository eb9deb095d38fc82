"""Contrast varied image by image: bounds, colours, and training images only."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.sets import write_set
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.contrast import SHIFT, vary
from tinyyolo.datasets.dataset import TinyDataset
from tinyyolo.engine.arguments import resolve

IMAGE = np.stack([np.full((8, 8), 100), np.full((8, 8), 120), np.full((8, 8), 140)], -1).astype(np.uint8)


def draws(contrast, count=300):
    random.seed(0)
    return np.stack([vary(IMAGE, contrast)[0, 0] for _ in range(count)]).astype(float)


def test_the_spread_changes_by_the_factor_and_the_mean_by_the_shift():
    found = draws(1.0)
    spread, mean = (found[:, 2] - found[:, 0]) / 40, found.mean(1) - 120
    assert 0.47 < spread.min() < 0.55 and 1.85 < spread.max() < 2.06
    assert abs(np.log(spread).mean()) < 0.06
    assert SHIFT - 3 < mean.max() <= SHIFT + 1 and -SHIFT - 1 <= mean.min() < -SHIFT + 3


def test_all_channels_follow_one_rising_curve():
    found = draws(3.0)
    assert (np.diff(found, axis=1) >= 0).all() and found.min() >= 0 and found.max() <= 255


def test_nothing_varies_by_nothing_and_the_argument_stays():
    image = IMAGE.copy()
    np.testing.assert_array_equal(vary(image, 0.0), IMAGE)
    vary(image, 1.0)
    np.testing.assert_array_equal(image, IMAGE)
    assert vary(IMAGE[:0], 1.0).shape == (0, 8, 3)


@pytest.mark.parametrize(
    ("contrast", "augment", "varies"), [(1.0, True, True), (0.0, True, False), (1.0, False, False)]
)
def test_training_images_only(tmp_path, contrast, augment, varies):
    data = data_yaml.load(str(write_set(tmp_path)))
    off = dict.fromkeys(("mosaic", "scale", "translate", "fliplr", "flipud", "hsv_h", "hsv_s", "hsv_v"), 0)
    hyp = SimpleNamespace(**resolve("train", {}, {"contrast": contrast, **off}))
    options = {"imgsz": 96, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0}
    dataset = TinyDataset(data, "train" if augment else "val", augment=augment, **options)
    random.seed(0)
    first, second = dataset[0]["img"].float(), dataset[0]["img"].float()
    assert bool((first - second).abs().amax() > 2) == varies
