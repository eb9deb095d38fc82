"""Copies of tiny objects: where from, where to, how often, and what the picture looks like."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from ultralytics.utils.instance import Instances

from tests.support.sets import write_set
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.datasets.train.paste import LEAST_MARGIN, PER_CLASS, PasteTiny, blend, candidates, free_place
from tinyyolo.engine.arguments import resolve

SIDE = 100
BACKGROUND = 40


class Scenes:
    """Two pictures: bright 10x6 squares of class 0 (many), one dark of class 1, an ignore region, a large one."""

    imgsz, augment = SIDE, True

    def __init__(self):
        boxes = [[20 * i + 15, 50, 10, 6] for i in range(4)]  # cx, cy, w, h
        self.images = [np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8) for _ in range(2)]
        for cx, cy, w, h in boxes:
            self.images[0][cy - h // 2 : cy + h // 2, cx - w // 2 : cx + w // 2] = 240
        self.images[1][40:48, 40:48] = 0
        self.labels = [
            self.label([*boxes, [4, 20, 6, 6], [50, 80, 40, 10]], [0] * 6),  # one at the border, one too large
            self.label([[44, 44, 8, 8], [80, 80, 10, 10]], [1, -1]),
        ]

    def label(self, boxes, classes):
        return {
            "shape": (SIDE, SIDE),
            "bboxes": np.array(boxes, np.float32) / SIDE,
            "cls": np.array(classes, np.float32).reshape(-1, 1),
        }

    def load_image(self, i):
        return self.images[i], (SIDE, SIDE), (SIDE, SIDE)


def sample(boxes=(), classes=()):
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        "img": np.full((SIDE, SIDE, 3), 100, np.uint8),
        "instances": Instances(rows, np.zeros((0, 1000, 2), np.float32), bbox_format="xyxy", normalized=False),
        "cls": np.array(classes, np.float32).reshape(-1, 1),
    }


def pasted(count=8, seed=0, given=None):
    random.seed(seed)
    return PasteTiny(Scenes(), count)(given or sample())


def test_only_whole_tiny_objects_are_copied():
    assert candidates(Scenes()) == {0: [(0, 0), (0, 1), (0, 2), (0, 3)], 1: [(1, 0)]}


def test_common_classes_are_sampled_the_same_way_every_time():
    scenes = Scenes()
    one = scenes.label([[50, 50, 8, 8]] * (PER_CLASS + 50), [2] * (PER_CLASS + 50))
    scenes.labels = [one]
    assert len(candidates(scenes)[2]) == PER_CLASS and candidates(scenes) == candidates(scenes)


def test_a_copy_looks_like_its_object_in_its_new_place():
    found = pasted(count=6)
    assert len(found["cls"]) > 2
    image, boxes = found["img"].astype(int), found["instances"].bboxes
    outside = np.ones((SIDE, SIDE), bool)
    for (x1, y1, x2, y2), label in zip(boxes, found["cls"][:, 0], strict=True):
        inner = image[round(y1) + 1 : round(y2) - 1, round(x1) + 1 : round(x2) - 1]
        # The contrast of an object with its surroundings goes along: 200 brighter, or 40 darker.
        assert inner.min() >= 230 if label == 0 else (np.abs(inner - 60) <= 6).all()
        far = 2 * LEAST_MARGIN + 2
        outside[max(int(y1) - far, 0) : int(y2) + far, max(int(x1) - far, 0) : int(x2) + far] = False
    assert (image[outside] == 100).all() and outside.any()


def test_classes_are_copied_alike_however_rare():
    random.seed(0)
    step = PasteTiny(Scenes(), 6)
    labels = np.concatenate([step(sample())["cls"][:, 0] for _ in range(60)])
    assert 0.4 < labels.mean() < 0.6 and 2 < len(labels) / 60 < 3.5


def test_nothing_that_stands_there_is_covered():
    given = [[0, 0, 100, 40], [0, 60, 100, 100]]
    for seed in range(8):
        found = pasted(given=sample(given, [0, -1]), seed=seed)
        assert found["cls"][:2, 0].tolist() == [0, -1]
        boxes = found["instances"].bboxes
        np.testing.assert_array_equal(boxes[:2], given)
        new = boxes[2:]
        assert ((new[:, 1] >= 40) & (new[:, 3] <= 60)).all()
        for i, box in enumerate(new):
            others = np.delete(new, i, 0)
            apart = (others[:, :2] >= box[2:]) | (others[:, 2:] <= box[:2])
            assert apart.any(1).all()


def test_the_seed_decides_and_the_argument_stays():
    given = sample()
    first, second = pasted(given=given, seed=3), pasted(seed=3)
    np.testing.assert_array_equal(first["img"], second["img"])
    np.testing.assert_array_equal(first["instances"].bboxes, second["instances"].bboxes)
    untouched = sample()["img"]
    image = untouched.copy()
    random.seed(3)
    PasteTiny(Scenes(), 8)({**sample(), "img": image})
    np.testing.assert_array_equal(image, untouched)


@pytest.mark.parametrize("labels", [[], [{"shape": (9, 9), "bboxes": np.zeros((0, 4)), "cls": np.zeros((0, 1))}]])
def test_nothing_to_copy(labels):
    scenes = Scenes()
    scenes.labels = labels
    random.seed(0)
    assert len(PasteTiny(scenes, 5)(sample([[1, 1, 5, 5]], [0]))["cls"]) == 1


def test_no_room():
    taken = np.array([[0.0, 0, SIDE, SIDE]])
    assert free_place((9, 9), np.array([2, 2, 7, 7]), taken, (SIDE, SIDE)) is None
    assert free_place((SIDE, 9), np.array([2, 2, 7, 7]), taken[:0], (SIDE, SIDE)) is None


def test_blend_keeps_the_object_and_the_far_surroundings():
    image, crop = np.full((20, 20, 3), 100, np.uint8), np.full((12, 12, 3), 50, np.uint8)
    crop[4:8, 4:8] = 90
    blend(image, crop, np.array([4.0, 4, 8, 8]), (4, 4))
    assert (
        (image[8:12, 8:12] == 140).all()
        and (image[:4] == 100).all()
        and (np.abs(image[4:8].astype(int) - 100) <= 1).all()
    )


@pytest.mark.parametrize("count", [0, 20])
def test_training_images_get_copies_and_validation_none(tmp_path, count):
    data = data_yaml.load(str(write_set(tmp_path, counts={"train": 6, "val": 4})))
    hyp = SimpleNamespace(**resolve("train", {}, {"paste": count, "mosaic": 0, "scale": 0, "translate": 0}))

    def objects(split, augment):
        options = {"imgsz": 96, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0}
        dataset = TinyDataset(data, split, augment=augment, **options)
        random.seed(0)
        return sum(len(dataset[i]["cls"]) for i in range(len(dataset))), sum(len(x["cls"]) for x in dataset.labels)

    with_copies, without = objects("train", True)
    assert with_copies > without if count else with_copies == without
    seen, there = objects("val", False)
    assert seen == there


def test_the_buffer_of_mosaic_does_not_depend_on_which_crops_are_known(tmp_path):
    data = data_yaml.load(str(write_set(tmp_path, counts={"train": 6})))
    hyp = SimpleNamespace(**resolve("train", {}, {"paste": 20, "mosaic": 0}))
    options = {"imgsz": 96, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0}
    dataset = TinyDataset(data, "train", augment=True, **options)
    random.seed(0)
    assert len(dataset[3]["cls"]) > len(dataset.labels[3]["cls"]) and dataset.buffer == [3]
