"""What lies beside the images is the user's: never read for a picture, written or deleted."""

import cv2
import numpy as np
import pytest
from ultralytics.cfg import get_cfg

from tests.engine.test_engine import trained
from tests.support.sets import SIZE, write_set
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.train.dataset import TinyDataset


def arrays():
    """Name -> what a user may keep beside the image of that name."""
    return {
        "train_0": np.zeros((SIZE, SIZE, 8), np.float32),  # bands
        "train_1": np.zeros((SIZE, SIZE), np.uint16),  # heights
        "train_2": np.zeros((SIZE, SIZE, 3), np.uint8),  # a mask that could be the picture
    }


@pytest.fixture
def kept(tmp_path):
    """A set with arrays beside its images, one of them damaged, and what every file of it holds."""
    data = write_set(tmp_path / "set")
    for name, array in arrays().items():
        np.save(tmp_path / "set" / "images" / f"{name}.npy", array)
    (tmp_path / "set" / "images" / "val_0.npy").write_bytes(b"no array")
    return data


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dataset(data, split="train", **options):
    return TinyDataset(spec.load(data), split, imgsz=SIZE, augment=True, hyp=get_cfg(), batch_size=1, **options)


@pytest.mark.parametrize("cache", [None, "ram"])
def test_the_picture_is_the_image_file(kept, cache):
    before = content(kept.parent)
    found = dataset(kept, cache=cache)
    for i, path in enumerate(found.im_files):
        np.testing.assert_array_equal(found.load_image(i)[0], cv2.imread(path))
    assert len(found) == 6 and content(kept.parent) == before


def test_training_and_validation_leave_the_set_as_it_is(kept):
    before = content(kept.parent)
    model = trained(kept)
    model.val(data=kept, plots=False)
    assert content(kept.parent) == before


def test_arrays_beside_the_images_are_refused(kept):
    before = content(kept.parent)
    with pytest.raises(UserError, match="cache=disk: it puts arrays beside your images; use cache=ram"):
        dataset(kept, cache="Disk")
    assert content(kept.parent) == before


def test_the_old_place_of_the_dataset():
    from tinyyolo.datasets import dataset as old

    assert old.TinyDataset is TinyDataset
