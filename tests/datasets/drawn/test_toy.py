"""Drawn sets: the same bytes everywhere, boxes to the pixel, the promised sizes, one line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tinyyolo.config import UserError, find_yaml, load_yaml
from tinyyolo.datasets import spec
from tinyyolo.datasets.drawn import aerial as toy_aerial
from tinyyolo.datasets.drawn import toy
from tinyyolo.datasets.drawn.objects import OBJECTS, SUPER, fit_side, paint, rectangle
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.io import draft_file

SMALL = {"scene": "aerial", "size": 96, "images": {"train": 3, "val": 2}, "seed": 4, "objects": [4, 8]}
DRAW = "import sys, json; from tinyyolo.datasets.drawn import toy; print(toy.ensure(json.loads(sys.argv[1])))"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Every test draws into its own folder."""
    monkeypatch.setenv("TINYYOLO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start_drawing(options: dict, cache: Path) -> subprocess.Popen:
    environment = {**os.environ, "TINYYOLO_CACHE": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", DRAW, json.dumps(options)], env=environment, **pipes)


@pytest.mark.parametrize("scene", ["aerial", "easy"])
def test_another_process_draws_the_same_bytes(scene, tmp_path):
    options = {**SMALL, "scene": scene}
    here = toy.ensure(options)
    process = start_drawing(options, tmp_path / "other")
    there, errors = process.communicate()
    assert process.returncode == 0, errors
    there = Path(there.strip())
    assert there.name == here.name and there != here
    assert contents(there) == contents(here)
    assert len(contents(here)) == 5 + 2


def test_an_image_does_not_depend_on_the_others():
    small = contents(toy.ensure(SMALL))
    large = contents(toy.ensure({**SMALL, "images": {"train": 4, "val": 2}}))
    assert {name: large[name] for name in small if name.endswith(".png")} == {
        name: data for name, data in small.items() if name.endswith(".png")
    }


def test_seed_split_and_index_all_change_the_image():
    one, other = (contents(toy.ensure({**SMALL, "seed": seed})) for seed in (4, 5))
    images = [data for drawn in (one, other) for name, data in drawn.items() if name.endswith(".png")]
    assert len(set(images)) == len(images) == 10


def test_a_drawn_set_is_not_drawn_again(monkeypatch, capsys):
    folder = toy.ensure(SMALL)
    assert str(folder) in capsys.readouterr().err
    monkeypatch.setattr(toy, "draw_scene", None)
    assert toy.ensure(SMALL) == folder
    assert capsys.readouterr().err == ""


def test_runs_side_by_side_agree_and_leave_no_drafts(cache):
    runs = [start_drawing(SMALL, cache) for _ in range(3)]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert [path.name for path in cache.iterdir()] == [Path(outputs[0][0].strip()).name]


def test_an_interrupted_drawing_leaves_nothing(cache, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(toy, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy.ensure(SMALL)
    assert list(cache.iterdir()) == []


def test_a_damaged_set_is_named():
    folder = toy.ensure(SMALL)
    next((folder / "images").iterdir()).unlink()
    with pytest.raises(UserError, match="lost files"):
        toy.ensure(SMALL)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYYOLO_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="TINYYOLO_CACHE"):
        toy.ensure(SMALL)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TINYYOLO_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/tinyyolo"),
        ({"HOME": "/home/me"}, "/home/me/.cache/tinyyolo"),
        ({"TINYYOLO_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/tinyyolo"),
    ],
)
def test_where_the_cache_is(variables, expected, monkeypatch):
    for name in ("TINYYOLO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(toy.cache_folder()) == expected


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("aerial", "mapping"),
        (None, "mapping"),
        ({"sise": 320}, "did you mean 'size'"),
        ({"scene": "moon"}, "aerial, easy"),
        ({"scene": ["easy"]}, "scene"),
        ({"size": 31}, "from 32"),
        ({"size": 320.0}, "size=320.0"),
        ({"size": True}, "size=True"),
        ({"images": 300}, "images=300"),
        ({"images": {"train": 3}}, "val: count"),
        ({"images": {"train": 3, "val": 0}}, "images.val=0"),
        ({"images": {"train": 3, "val": 2, "test": 1}}, "test"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "0"}, "seed=0"),
        ({"objects": 12}, "objects=12"),
        ({"objects": [5, 4]}, "objects=4"),
        ({"objects": [1, 2, 3]}, "objects"),
        ({"side_px": [12.7]}, "side_px"),
        ({"side_px": [5, 12]}, "deviation < mean"),
        ({"side_px": [float("nan"), 1]}, "deviation < mean"),
        ({"side_px": ["12", 5]}, "side_px"),
    ],
)
def test_bad_options_are_one_line(options, word, cache):
    with pytest.raises(UserError) as caught:
        toy.ensure(options)
    assert word in str(caught.value) and "\n" not in str(caught.value)
    assert not cache.exists()


@pytest.mark.parametrize("name", ["toy.yaml", "toy-easy.yaml"])
def test_shipped_yamls_name_the_classes_of_their_scene(name):
    content = load_yaml(find_yaml(name, "data"))
    options = toy.resolve(content["toy"])
    scene = toy.SCENES[options.scene]
    assert content["names"] == list(scene.names)
    assert (options.objects, options.side_px) == (scene.objects, scene.side_px)


def test_the_json_is_coco_and_reads_clean(tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text(f"toy: {json.dumps(SMALL)}\nnames: {json.dumps(toy.SCENES['aerial'].names)}\n")
    data = spec.load(file)
    for split, count in SMALL["images"].items():
        raw = json.loads((data.path / f"{split}.json").read_text())
        for kind in ("images", "annotations", "categories"):
            assert [entry["id"] for entry in raw[kind]] == list(range(1, len(raw[kind]) + 1))
        read = data.read(split)
        assert isinstance(read, coco_json.Annotations) and read.problems == []
        assert len(read.file_names) == count and len(read.boxes) == len(raw["annotations"]) >= 4 * count
        for name, size_hw in zip(read.file_names, read.sizes_hw, strict=True):
            assert cv2.imread(str(data.image_path(split, name))).shape == (*size_hw, 3) == (96, 96, 3)


@pytest.mark.parametrize("scene", ["aerial", "easy"])
def test_no_objects_is_normal(scene):
    image, boxes, labels = toy.draw_scene(np.random.default_rng(0), 64, scene, objects=(0, 0))
    assert image.shape == (64, 64, 3) and boxes.shape == (0, 4) and labels.shape == (0,)
    folder = toy.ensure({**SMALL, "scene": scene, "objects": [0, 0]})
    assert json.loads((folder / "train.json").read_text())["annotations"] == []


def test_drawing_refuses_an_unknown_scene():
    with pytest.raises(UserError, match="aerial, easy"):
        toy.draw_scene(np.random.default_rng(0), 64, "moon")


# Boxes


@pytest.mark.parametrize(
    ("x0", "x1", "half", "centre", "expected"),
    [
        (-2, 2, 1, (8, 8), (6, 7, 10, 9)),
        (-2, 2, 1, (8.5, 8.25), (6.5, 7.25, 10.5, 9.25)),
        (-2, 2, 1, (0.5, 8), (0, 7, 2.5, 9)),
        (-2, 2, 1, (15.5, 16.5), (13.5, 15.5, 16, 16)),
        (-40, 40, 40, (8, 8), (0, 0, 16, 16)),
    ],
)
def test_box_and_coverage_of_a_rectangle(x0, x1, half, centre, expected):
    sprite = paint([(rectangle(x0, x1, half), np.array((10.0, 20.0, 30.0)))], np.array(centre), 16)
    np.testing.assert_allclose(sprite.box, expected, atol=1 / SUPER)
    area = np.prod(sprite.box[2:] - sprite.box[:2])
    np.testing.assert_allclose(sprite.alpha.sum(), area, rtol=0.01)
    painted = sprite.alpha > 0.4
    flat = sprite.colour[painted] / sprite.alpha[painted, None]
    np.testing.assert_allclose(flat, np.broadcast_to((10, 20, 30), flat.shape), atol=2)


def test_nothing_inside_the_image_is_no_sprite():
    assert paint([(rectangle(-2, 2, 1), np.zeros(3))], np.array((-10.0, 8.0)), 16) is None


@pytest.mark.parametrize("name", list(OBJECTS))
@pytest.mark.parametrize("side", [4.0, 12.7, 40.0])
def test_objects_have_the_wanted_side_and_a_tight_box(name, side):
    rng = np.random.default_rng(3)
    for angle in rng.uniform(0, 2 * np.pi, 8):
        parts = fit_side(OBJECTS[name](rng, np.array((0.6, 0.8))), angle, side)
        sprite = paint(parts, rng.uniform(79, 81, 2), 160)
        size = sprite.box[2:] - sprite.box[:2]
        np.testing.assert_allclose(np.sqrt(np.prod(size)), side, atol=2.5 / SUPER)
        rows, columns = np.nonzero(sprite.alpha.max(1))[0], np.nonzero(sprite.alpha.max(0))[0]
        covered = [columns[0] + sprite.x, rows[0] + sprite.y, columns[-1] + 1 + sprite.x, rows[-1] + 1 + sprite.y]
        np.testing.assert_array_equal(covered, [*np.floor(sprite.box[:2]), *np.ceil(sprite.box[2:])])


def test_easy_boxes_are_the_bright_spots_of_the_picture():
    for seed in range(4):
        image, boxes, labels = toy.draw_scene(np.random.default_rng(seed), 256, "easy")
        spread = image.max(2).astype(int) - image.min(2)
        _, marks, stats, _ = cv2.connectedComponentsWithStats((spread > 50).astype(np.uint8))
        found = np.array([(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area > 1])
        assert len(found) == len(boxes) == len(labels) >= 18
        gap = np.abs(found[:, None] - boxes[None]).max(2)
        assert (np.sort(gap.argmin(0)) == np.arange(len(boxes))).all()
        assert gap.min(0).max() <= 1.5
        brightest = [image[marks == gap[:, k].argmin() + 1].astype(int).mean(0).argmax() for k in range(len(boxes))]
        np.testing.assert_array_equal(2 - np.array(brightest), labels)  # BGR: disc red, bar green, arrow blue


def test_aerial_boxes_are_where_objects_change_the_picture(monkeypatch):
    settle = toy_aerial.settle
    monkeypatch.setattr(toy_aerial, "sensor", lambda rng, image: image)
    monkeypatch.setattr(toy_aerial, "wakes", lambda scene, placed, image: image)
    monkeypatch.setattr(toy_aerial, "cast_all", lambda scene, placed: np.zeros_like(scene.shade))
    for seed in range(6):
        image, boxes, _ = toy.draw_scene(np.random.default_rng(seed), 320)
        with monkeypatch.context() as bare:
            bare.setattr(toy_aerial, "settle", lambda *args: settle(*args)[:0])
            ground, none, _ = toy.draw_scene(np.random.default_rng(seed), 320)
        assert len(none) == 0 and len(boxes) >= 12
        changed = np.abs(image - ground).max(2) > 0.5
        rest = changed.copy()
        for x0, y0, x1, y1 in np.column_stack([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])]).astype(int):
            inside = changed[y0:y1, x0:x1]
            # A pointed end covers a pixel by less than can be seen, so that a border row or column may look empty.
            assert inside[:2].any() and inside[-2:].any() and inside[:, :2].any() and inside[:, -2:].any()
            rest[y0:y1, x0:x1] = False
        assert not rest.any()


def test_aerial_sizes_are_those_of_ai_tod_and_all_classes_appear():
    drawn = [toy.draw_scene(np.random.default_rng([1, seed]), 320) for seed in range(40)]
    boxes, labels = np.vstack([d[1] for d in drawn]), np.concatenate([d[2] for d in drawn])
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    np.testing.assert_allclose([side.mean(), side.std()], [12.7, 5.6], atol=1.0)
    log = np.log(side)
    assert abs(((log - log.mean()) ** 3).mean() / log.std() ** 3) < 0.6  # lognormal: the log is about symmetric
    assert boxes.min() >= 0 and boxes.max() <= 320 and (boxes[:, 2:] > boxes[:, :2]).all()
    assert np.bincount(labels, minlength=4).min() > 0.05 * len(labels)
    assert all(12 <= len(d[1]) <= 30 for d in drawn)


def test_sizes_follow_the_wanted_mean():
    sides = []
    for mean in (8.0, 16.0):
        drawn = [toy.draw_scene(np.random.default_rng([2, s]), 256, "easy", side_px=(mean, 2.0))[1] for s in range(6)]
        boxes = np.vstack(drawn)
        sides.append(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)).mean())
    np.testing.assert_allclose(sides, [8, 16], atol=0.5)


def test_aerial_objects_do_not_cover_each_other():
    for seed in range(5):
        scene = toy_aerial.Scene(np.random.default_rng(seed), 320, (12.7, 5.6))
        toy_aerial.town(scene)
        count = np.zeros((320, 320), int)
        for _, sprite in toy_aerial.settle(scene, {toy_aerial.VEHICLE: 1.0}, 40):
            count[sprite.window] += sprite.alpha > 0
        assert count.max() == 1


def test_what_a_killed_drawing_left_is_removed(tmp_path, monkeypatch):
    """A draft that nobody holds goes; one that another process is drawing stays, and so does what is not ours."""
    monkeypatch.setenv(toy.CACHE_VARIABLE, str(tmp_path))
    left, drawn, other = (tmp_path / name for name in (".toy-easy-a.x", ".toy-easy-b.y", ".toy-other"))
    for folder in (left, drawn, other):
        folder.mkdir()
    handle, _ = draft_file(left)
    os.close(handle)
    held, _ = draft_file(drawn)
    folder = toy.ensure({"scene": "easy", "size": 64, "images": {"train": 1, "val": 1}})
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, drawn.name, other.name}
    assert not list(folder.rglob("*.part"))
    os.close(held)
