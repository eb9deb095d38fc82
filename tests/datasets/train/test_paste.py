"""Copies of tiny objects: where from, where to, how often, and what the picture looks like."""

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ultralytics.data.augment import Format, Mosaic, RandomHSV
from ultralytics.utils.instance import Instances

from tests.support.sets import write_set
from tinyyolo.compat import TinyFormat, TinyHSV, TinyMosaic, grey_of
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.datasets.train.paste import (
    LEAST_MARGIN,
    PER_CLASS,
    TRIES,
    Copy,
    Crop,
    PasteTiny,
    blend,
    candidates,
    disjoint,
    free_place,
)
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
    taken = [(0.0, 0.0, SIDE, SIDE)]
    assert free_place((9, 9), (2, 2, 7, 7), taken, (SIDE, SIDE)) is None
    assert free_place((SIDE, 9), (2, 2, 7, 7), [], (SIDE, SIDE)) is None


def plain_place(shape, inner, taken, size_hw):
    """The rule of `free_place`, box by box."""
    for _ in range(TRIES):
        x, y = random.randint(0, size_hw[1] - shape[1]), random.randint(0, size_hw[0] - shape[0])
        x1, y1, x2, y2 = inner[0] + x, inner[1] + y, inner[2] + x, inner[3] + y
        if not any(a < x2 and x1 < c and b < y2 and y1 < d for a, b, c, d in taken):
            return x, y
    return None


def test_places_are_those_of_the_plain_rule_and_take_as_many_random_numbers():
    rng, found = np.random.default_rng(0), []
    for seed in range(200):
        corner = rng.uniform(0, 80, (30, 2)).astype(np.float32)
        taken = np.concatenate([corner, corner + rng.uniform(3, 25, (30, 2)).astype(np.float32)], axis=1).tolist()
        random.seed(seed)
        place = free_place((14, 18), (3.3, 2.2, 14.1, 11.9), taken, (SIDE, SIDE))
        state = random.getstate()
        random.seed(seed)
        assert plain_place((14, 18), (3.3, 2.2, 14.1, 11.9), taken, (SIDE, SIDE)) == place
        assert random.getstate() == state
        found.append(place)
    assert 20 < found.count(None) < 180


def plain_blend(image, crop, inner, place):
    """The formula of `blend` as it is read, the whole of it in (h, w, 3)."""
    (height, width), (x, y) = crop.shape[:2], place

    def along(length, start, end):
        centres = np.arange(length) + 0.5
        fade = np.minimum(centres / max(start, 0.5), (length - centres) / max(length - end, 0.5))
        return np.minimum(1.0, fade).astype(np.float32)

    weight = np.outer(along(height, inner[1], inner[3]), along(width, inner[0], inner[2]))[..., None]
    target, edge = image[y : y + height, x : x + width], 1 - weight
    shift = ((target - crop.astype(np.float32)) * edge).sum((0, 1)) / max(float(edge.sum()), 1e-6)
    target[:] = (weight * (crop + shift) + edge * target).clip(0, 255).astype(np.uint8)


def copies_for(rng, shape, count, largest):
    """Crops of noise with a box somewhere in them, at places of an image (h, w)."""
    for _ in range(count):
        height, width = rng.integers(4, largest, 2).tolist()
        (x1, x2), (y1, y2) = (np.sort(rng.uniform(0, side, 2)).tolist() for side in (width, height))
        crop = Crop(rng.integers(0, 256, (height, width, 3), np.uint8), (x1, y1, x2, y2))
        yield Copy(crop, (int(rng.integers(shape[1] - width)), int(rng.integers(shape[0] - height))))


def test_blending_gives_the_bytes_of_the_plain_formula_one_crop_after_the_other():
    rng, runs = np.random.default_rng(0), list[int]()
    for count, largest in [(1, 60)] * 100 + [(6, 25)] * 100 + [(12, 12)] * 100:
        image = rng.integers(0, 256, (90, 80, 3), np.uint8)
        copies, expected = [*copies_for(rng, image.shape, count, largest)], image.copy()
        for (pixels, box), place in copies:
            plain_blend(expected, pixels, box, place)
        found = disjoint(copies)
        assert [copied for some in found for copied in some] == copies
        for apart in found:
            blend(image, apart)
        np.testing.assert_array_equal(image, expected)
        runs.append(len(found))
    assert min(runs) == 1 and max(runs) > 3


def test_runs_end_before_a_crop_that_meets_another():
    crop = Crop(np.zeros((10, 6, 3), np.uint8), (2.0, 2, 4, 8))
    first, beside, below, across = (Copy(crop, place) for place in ((0, 0), (6, 0), (0, 10), (5, 9)))
    assert disjoint([first, beside, below]) == [[first, beside, below]]
    assert disjoint([first, across, beside, below]) == [[first], [across], [beside, below]]


def test_blend_keeps_the_object_and_the_far_surroundings():
    image, crop = np.full((20, 20, 3), 100, np.uint8), np.full((12, 12, 3), 50, np.uint8)
    crop[4:8, 4:8] = 90
    blend(image, [Copy(Crop(crop, (4.0, 4.0, 8.0, 8.0)), (4, 4))])
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


def test_what_is_cut_ahead_is_what_would_be_cut_later(tmp_path):
    """Copies, and the random numbers they take, do not depend on which crops are at hand, as after a resume."""
    data = data_yaml.load(str(write_set(tmp_path, counts={"train": 6})))
    hyp = SimpleNamespace(**resolve("train", {}, {"paste": 20}))
    options = {"imgsz": 96, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0}
    found = []
    for ahead in (True, False):
        dataset = TinyDataset(data, "train", augment=True, **options)
        assert set(dataset.crops) == {which for some in dataset.transforms[1].bank.values() for which in some}
        if not ahead:
            dataset.crops.clear()
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - ultralytics' augmentation draws from the global state
        samples = [dataset[i] for i in (3, 0, 5, 1)]
        found.append((samples, random.getstate(), dataset.buffer))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        for key in ("img", "bboxes", "cls"):
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=0)
    assert found[0][1:] == found[1][1:]


def test_a_sample_may_be_written_into(tmp_path):
    """Augmentation writes into what it gets; the labels stay."""
    dataset = TinyDataset(
        data_yaml.load(str(write_set(tmp_path))), "train", augment=False, imgsz=96, batch_size=2, rect=False
    )
    before = copy.deepcopy(dict(dataset.labels[2]))
    sample = dataset.get_image_and_label(2)
    sample["instances"].bboxes[:] = 7
    sample["cls"][:] = 7
    assert len(before["cls"]) and {**dataset.labels[2]}.keys() == before.keys()
    for key in ("bboxes", "cls"):
        np.testing.assert_array_equal(dataset.labels[2][key], before[key])


@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)])
def test_our_format_gives_upstreams_tensors(flips):
    rng = np.random.default_rng(len(flips))
    image, rows = rng.integers(0, 256, (23, 37, 3), np.uint8), rng.uniform(0, 20, (5, 4)).astype(np.float32)
    for count, bgr, crooked in ((5, 0.0, False), (0, 1.0, False), (1, 0.5, True)):
        found = []
        for kind in (Format, TinyFormat):
            picture = np.flip(image[:, 3:30] if crooked else image, flips)
            boxes = Instances(rows[:count].copy(), bbox_format="xyxy", normalized=False)
            sample = {"img": picture, "instances": boxes, "cls": np.arange(count, dtype=np.float32)[:, None]}
            random.seed(4)
            found.append((kind(bbox_format="xywh", normalize=True, batch_idx=True, bgr=bgr)(sample), random.random()))
        (expected, then), (ours, now) = found
        assert then == now and ours.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(ours[key], tensor, rtol=0, atol=0)
            assert ours[key].is_contiguous()


@pytest.mark.parametrize("grey", [True, False])
def test_our_colours_are_upstreams(grey):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (31, 45, 3), np.uint8)
    image[0] = image[0, :, :1]  # its first row is grey in any case
    image = np.repeat(image[..., :1], 3, axis=2) if grey else image
    assert (grey_of(image) is not None) == grey
    found = []
    for kind in (RandomHSV, TinyHSV):
        np.random.seed(2)  # noqa: NPY002 - ultralytics' augmentation draws from the global state
        picture = image.copy()
        pictures = [kind(0.015, 0.7, 0.4).apply_image({"img": picture})["img"].copy() for _ in range(5)]
        found.append((pictures, np.random.random()))  # noqa: NPY002
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] and (found[0][0][0] != image).any()


def test_our_mosaics_are_upstreams_one_after_another(tmp_path):
    """Of images smaller than a quarter too: what the mosaic before has left on the canvas is gone."""
    data = data_yaml.load(str(write_set(tmp_path, counts={"train": 6})))
    hyp = SimpleNamespace(**resolve("train", {}, {"mosaic": 1.0}))
    options = {"imgsz": 96, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0}
    dataset = TinyDataset(data, "train", augment=True, **options)
    found = []
    for kind in (Mosaic, TinyMosaic):
        step, images = kind(dataset, imgsz=96, p=1.0), []
        random.seed(6)
        for i in (0, 3, 4, 1):
            sample = dataset.get_image_and_label(i)
            dataset.buffer = [2, 5]  # whatever was read before
            made = step(sample)
            images.append((made["img"].copy(), made["instances"].bboxes, made["cls"]))
        found.append(images)
    for ours, expected in zip(found[1], found[0], strict=True):
        for mine, theirs in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert any((image == 114).all(2).mean() > 0.2 for image, *_ in found[0])
