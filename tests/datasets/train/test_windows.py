"""Windows of large images as samples: which there are, which boxes lie in them, what is read, and in which order."""

import logging
import os
import pickle
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import rasterio

from tests.support.data_sets import annotation, coco, data_yaml, picture
from tinyyolo.config import UserError
from tinyyolo.datasets.scene_files import open_scene
from tinyyolo.datasets.train.loader import InBlocks
from tinyyolo.datasets.train.opened import OpenScenes
from tinyyolo.engine.arguments import resolve
from tinyyolo.engine.prepare import data_dict, split_dataset
from tinyyolo.scenes.picture import Picture
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.scenes.windows import windows

# Of 130 x 50 px. At imgsz=64 and overlap=10 the halo is 5 px: cores end at 59, 91 and 123, and windows begin at the
# last multiple of 32 that is 5 px before a core: at 0, 54 -> 32, 86 -> 64 and 118 -> 96.
A, B, C = [2, 3, 8, 6], [60, 10, 10, 10], [62, 30, 10, 10]  # xywh
REGION = [94, 0, 36, 4]
STARTS = [0, 32, 64, 96]
# x1, y1, x2, y2 in the windows: B is there with .4, all and .6 of its area, C with .2 (too little), all and .8.
INSIDE = [
    {"a": [2, 3, 10, 9], "b": [60, 10, 64, 20]},
    {"b": [28, 10, 38, 20], "c": [30, 30, 40, 40], "region": [62, 0, 64, 4]},
    {"b": [0, 10, 6, 20], "c": [0, 30, 8, 40], "region": [30, 0, 64, 4]},
    {"region": [0, 0, 34, 4]},
]
LABELS = {"a": 0, "b": 1, "c": 2, "region": -1}


def wide_set(root, zoom=1, name="wide.png"):
    """One image of 130 x 50 px and one of 64 x 48 px, both shrunk by `zoom`, for training and validation."""
    picture(root / "images" / name, 130 // zoom, 50 // zoom, seed=1)
    picture(root / "images" / "small.png", 64 // zoom, 48 // zoom, seed=2)
    boxes = [[side / zoom for side in box] for box in (A, B, C, REGION)]
    notes = [annotation(i + 1, 1, i + 1, box) for i, box in enumerate(boxes)] + [annotation(9, 2, 1, [5, 5, 6, 6])]
    kinds = [(1, "a"), (2, "b"), (3, "c"), (4, "region")]
    records = [(1, name, 130 // zoom, 50 // zoom), (2, "small.png", 64 // zoom, 48 // zoom)]
    coco(root / "all.json", records, notes, kinds)
    return data_yaml(
        root / "d.yaml",
        train="images",
        val="images",
        annotations={"train": "all.json", "val": "all.json"},
        ignore=["region"],
    )


def dataset_of(data, split="train", **keys):
    own = {"data": str(data), "imgsz": 64, "overlap": 10, "mosaic": 0.0, **keys}
    args = SimpleNamespace(**resolve("train", {}, own))
    tiling = Tiling.of(vars(args), 32)
    options = {"tiling": tiling, "augment": split == "train", "rect": split == "val", "cache": args.cache or None}
    if split == "train":
        options |= {key: getattr(args, key) for key in ("empty_tiles", "seed", "skip_empty", "min_side", "fraction")}
        options["classes"] = args.classes
    return split_dataset(data_dict(str(data)), split, args, split, 2, **options)


def boxes_of(dataset, i):
    """Name -> xyxy px of what the label of sample i holds."""
    label, names = dataset.labels[i], {number: name for name, number in LABELS.items()}
    cx, cy, w, h = (label["bboxes"] * 64).T
    rows = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1).round(3).tolist()
    return {names[int(k)]: row for k, row in zip(label["cls"][:, 0], rows, strict=True)}


@pytest.mark.parametrize("zoom", (1, 2))
def test_which_windows_and_what_lies_in_them(tmp_path, zoom):
    dataset = dataset_of(wide_set(tmp_path, zoom), zoom=zoom, empty_tiles=1)
    assert [label["window"] and label["window"].origin for label in dataset.labels] == [(x, 0) for x in STARTS] + [None]
    assert [boxes_of(dataset, i) for i in range(4)] == INSIDE
    assert dataset.rows == [0, 0, 0, 0, 1] and dataset.ni == 5
    assert dataset.labels[4]["shape"] == (48 // zoom, 64 // zoom) and dataset.labels[0]["shape"] == (64, 64)


def test_pixels_are_those_of_the_image_and_grey_beyond_it(tmp_path):
    dataset = dataset_of(wide_set(tmp_path), empty_tiles=1)
    image = cv2.imread(str(tmp_path / "images" / "wide.png"))
    for i, x in enumerate(STARTS):
        pixels, original, size = dataset.load_image(i)
        assert pixels.shape == (64, 64, 3) and original == size == (64, 64)
        width = min(64, 130 - x)
        np.testing.assert_array_equal(pixels[:50, :width], image[:, x : x + width])
        assert (pixels[50:] == 114).all() and (pixels[:, width:] == 114).all()
    sample = dataset[1]
    assert sample["img"].shape == (3, 64, 64) and "window" not in sample and sample["image_index"] == 0


def test_zoomed_windows_are_resampled_as_in_prediction(tmp_path):
    dataset = dataset_of(wide_set(tmp_path, 2), zoom=2, empty_tiles=1)
    image = cv2.resize(cv2.imread(str(tmp_path / "images" / "wide.png")), (130, 50), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(dataset.load_image(1)[0][:50], image[:, 32:96])


@pytest.mark.parametrize(
    ("keys", "starts"),
    (
        ({"empty_tiles": 0}, STARTS[:3]),
        ({"empty_tiles": 0.1}, STARTS[:3]),  # .1 of three is none
        ({"empty_tiles": 0.25}, STARTS),  # .75 of one is one
        ({"empty_tiles": 1, "skip_empty": True}, STARTS[:3]),
        ({"empty_tiles": 0, "classes": [0]}, STARTS[:1]),
        ({"empty_tiles": 0, "min_side": 9}, STARTS[:3]),  # A goes, of 8 x 6 px in the image, not B, cut to 4 px
        ({"empty_tiles": 0, "min_side": 11}, []),
        ({"tile": "off"}, None),
    ),
)
def test_which_windows_are_learnt_from(tmp_path, keys, starts):
    dataset = dataset_of(wide_set(tmp_path), **keys)
    found = [label["window"].origin[0] for label in dataset.labels if label["window"]]
    assert found == (starts or []) and len(dataset.labels) == (2 if starts is None else len(starts) + 1)


def test_classes_and_single_cls(tmp_path):
    dataset = dataset_of(wide_set(tmp_path), classes=[1], empty_tiles=0, single_cls=True)
    assert [label["cls"][:, 0].tolist() for label in dataset.labels] == [[0], [0, -1], [0, -1], []]


def test_empty_windows_follow_the_seed_and_nothing_else(tmp_path):
    """Of 1 x 3,000 px the 95 windows of 64 px have one object: with a share of 20 so many of the others stay."""
    picture(tmp_path / "images" / "a.png", 3000, 1, seed=3)
    coco(tmp_path / "a.json", [(1, "a.png", 3000, 1)], [annotation(1, 1, 1, [10, 0, 5, 1])], [(1, "ship")])
    data = data_yaml(tmp_path / "d.yaml", train="images", annotations={"train": "a.json"})
    found = []
    for seed in (0, 0, 1):
        np.random.seed(len(found))  # noqa: NPY002 - what a process has drawn before does not count
        dataset = dataset_of(data, empty_tiles=20, seed=seed)
        found.append([label["window"].origin[0] for label in dataset.labels])
    assert len(found[0]) == 21 and found[0] == sorted(found[0]) and found[0] == found[1] != found[2]


def test_validation_has_one_sample_of_an_image_that_is_cut(tmp_path):
    """The window with most objects: its loss counts; two have two objects and a region, the first of them is taken."""
    dataset = dataset_of(wide_set(tmp_path), "val")
    assert sorted((label["image_index"], label["window"] and label["window"].origin) for label in dataset.labels) == [
        (0, (0, 0)),
        (1, None),
    ]


def test_what_is_done_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ultralytics"), "propagate", True)
    data = wide_set(tmp_path)
    with caplog.at_level("INFO"):
        dataset_of(data, empty_tiles=0.1)
        dataset_of(data, "val", tile=96)
        dataset_of(data, tile="off")
        dataset_of(data, imgsz=128, zoom=1.2)
    said = [line.partition(": \x1b[0m")[2] for line in caplog.messages]
    assert (
        "1 image of up to 130x50 as 4 tiles of 64, overlap 10: 3 with objects, and 0 of 1 without (empty_tiles=0.1)"
        in said
    )
    assert "1 image of up to 130x50 in 2 tiles of 96, overlap 10" in said
    (line,) = {line for line in said if "shrunk" in line}
    assert line.startswith("1 of 2 images are shrunk by up to 2.0 to imgsz=64: ") and "tile=auto reads them" in line
    assert "zoom=1.2: no image is cut, and others are fitted to imgsz" in said


@pytest.mark.parametrize("cache", (False, "ram"))
def test_mosaic_paste_and_cache(tmp_path, cache):
    dataset = dataset_of(wide_set(tmp_path), cache=cache, mosaic=1.0, paste=3, empty_tiles=1)
    samples = [dataset[i] for i in range(5)]
    assert all(sample["img"].shape == (3, 64, 64) for sample in samples)
    assert set(dataset.collate_fn(samples)["cls"].view(-1).tolist()) <= {0, 1, 2}


def test_fraction_counts_images(tmp_path):
    assert [label["window"] is None for label in dataset_of(wide_set(tmp_path), fraction=0.5).labels] == [False] * 4


class TestGone:
    def test_an_image_that_vanishes(self, tmp_path):
        data = wide_set(tmp_path)
        for i in range(3, 12):
            picture(tmp_path / "images" / f"{i}.png", 64, 48, seed=i)
        names = [(1, "wide.png", 130, 50), *((i, f"{i}.png", 64, 48) for i in range(3, 12))]
        coco(tmp_path / "all.json", names, [annotation(1, 1, 1, A), annotation(2, 3, 1, A)], [(1, "a")])
        data_yaml(data, train="images", annotations={"train": "all.json"})
        dataset = dataset_of(data)
        assert [label["window"] is None for label in dataset.labels] == [False] + [True] * 9, ".25 of one is none"
        (tmp_path / "images" / "wide.png").unlink()
        assert dataset.get_image_and_label(0)["im_file"].endswith("3.png")
        assert dataset.gone == {0} and "no such file" in dataset.lost[0]
        picture(tmp_path / "images" / "wide.png", 131, 50)
        dataset.load_image(0)
        assert dataset.gone == {0}, "not the one that was cut"
        picture(tmp_path / "images" / "wide.png", 130, 50)
        dataset.load_image(0)
        assert not dataset.gone

    def test_one_that_is_most_of_all(self, tmp_path):
        dataset = dataset_of(wide_set(tmp_path))
        (tmp_path / "images" / "wide.png").unlink()
        with pytest.raises(UserError, match="3 of the 5 images of split 'train' can no longer be read"):
            dataset.get_image_and_label(0)


def tif(path, width, height, seed=0):
    bands = np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8", photometric="rgb"
    ) as file:
        file.write(bands)
    return bands.transpose(1, 2, 0)[..., ::-1]


class TestOpenScenes:
    def test_a_raster_is_read_by_windows_and_does_not_cross_processes(self, tmp_path):
        image = tif(tmp_path / "a.tif", 1100, 70)
        scenes, (window, *_) = OpenScenes(), windows((70, 1100), 64, 5, 32)[1:]
        path = str(tmp_path / "a.tif")
        np.testing.assert_array_equal(scenes.read(path, window, 1.0, 64), image[:64, 32:96])
        own = scenes.held[path].source
        copied = pickle.loads(pickle.dumps(scenes)).held[path]
        assert copied.source is None and copied.words == scenes.held[path].words and own is scenes.held[path].source
        if (child := os.fork()) == 0:
            same = (scenes.read(path, window, 1.0, 64) == image[:64, 32:96]).all()
            os._exit(0 if same and scenes.held[path].source is not own and not own.closed else 1)
        assert os.waitpid(child, 0)[1] == 0 and not own.closed
        np.testing.assert_array_equal(scenes.read(path, window, 1.0, 64), image[:64, 32:96])

    def test_a_picture_is_decoded_once_and_held_within_bounds(self, tmp_path, monkeypatch):
        decoded = []
        for name in "abc":
            picture(tmp_path / f"{name}.png", 100, 70)
        real = Picture.__init__
        monkeypatch.setattr(Picture, "__init__", lambda self, *a: (decoded.append(1), real(self, *a))[1])
        monkeypatch.setattr("tinyyolo.datasets.train.opened.MOST_BYTES", 2 * 100 * 70 * 3)
        scenes, (window, *_) = OpenScenes(), windows((70, 100), 64, 5, 32)
        for name, count in (("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)):  # c puts b out, not a
            scenes.read(str(tmp_path / f"{name}.png"), window, 1.0, 64)
            assert len(decoded) == count, name
        assert [path[-5] for path in scenes.held] == ["a", "b"]

    def test_no_more_files_are_open_than_may_be(self, tmp_path, monkeypatch):
        """What a raster is shown by is looked for once, all the same."""
        opened = []
        monkeypatch.setattr(
            "tinyyolo.datasets.train.opened.open_scene", lambda *a: (opened.append(a), open_scene(*a))[1]
        )
        monkeypatch.setattr("tinyyolo.datasets.train.opened.MOST_OPEN", 2)
        scenes, (window, *_) = OpenScenes(), windows((70, 1100), 64, 5, 32)
        images = {name: tif(tmp_path / f"{name}.tif", 1100, 70, seed=ord(name)) for name in "abc"}
        for name in "abcab":
            found = scenes.read(str(tmp_path / f"{name}.tif"), window, 1.0, 64)
            np.testing.assert_array_equal(found, images[name][:64, :64])
        assert [scene.source is not None for scene in scenes.held.values()] == [False, True, True] and len(opened) == 3


def test_a_raster_is_trained_on_without_being_decoded(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    image = tif(tmp_path / "images" / "a.tif", 1100, 70)
    tif(tmp_path / "images" / "b.tif", 1100, 70)
    (tmp_path / "images" / "b.tif").write_bytes((tmp_path / "images" / "b.tif").read_bytes()[:100])
    records = [(1, "a.tif", 1100, 70), (2, "b.tif", 1100, 70)]
    notes = [annotation(1, 1, 1, [40, 10, 8, 8]), annotation(2, 2, 1, [40, 10, 8, 8])]
    coco(tmp_path / "a.json", records, notes, [(1, "ship")])
    data = data_yaml(tmp_path / "d.yaml", train="images", annotations={"train": "a.json"})
    monkeypatch.setattr("tinyyolo.datasets.images.load", lambda path: pytest.fail(f"{path} decoded whole"))
    dataset = dataset_of(data, empty_tiles=0)
    assert [line.partition(": ")[0][-5:] for line in dataset.bad_images] == ["b.tif"]
    assert [label["window"].origin for label in dataset.labels] == [(0, 0), (32, 0)]
    np.testing.assert_array_equal(dataset.load_image(1)[0], image[:64, 32:96])
    assert dataset.decoded() == ([None, None], {})


def test_samples_of_decoded_images_come_together(tmp_path):
    """Four images of 10 bytes, 20 at once: a block is two images, as they come first, and a quarter of the others."""
    images = [*"aabbccdd", None, None, None, None]
    order = [0, 8, 2, 4, 9, 6, 10, 1, 3, 5, 11, 7]
    found = list(InBlocks(order, images, dict.fromkeys("abcd", 10), 20))
    assert found == [0, 8, 2, 9, 1, 3, 4, 6, 10, 5, 11, 7]
    assert list(InBlocks(order, images, dict.fromkeys("abcd", 10), 40)) == order and len(InBlocks(order, [], {})) == 12
    dataset = dataset_of(wide_set(tmp_path), zoom=2)
    path = str(tmp_path / "images" / "wide.png")
    images, sizes = dataset.decoded()
    assert set(images) == {path, str(tmp_path / "images" / "small.png")} and sizes[path] == 3 * 130 * 50 * 5
