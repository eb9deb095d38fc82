"""`data convert`: between formats and back, and cut into tiles."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.data_sets import annotation, clean_set, coco, data_yaml, dota_set, picture, visdrone_set, xview_set
from tinyyolo.config import UserError
from tinyyolo.datasets import images, spec
from tinyyolo.datasets.audit import check
from tinyyolo.datasets.convert import convert
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.datasets.formats.table import FORMATS

WRITTEN = [name for name, layout in FORMATS.items() if layout.write]  # a new format is picked up
TEXTS = [name for name in WRITTEN if not FORMATS[name].labels.endswith(".json")]
KEEPS_IGNORED = {name for name in WRITTEN if FORMATS[name].regions is not None}


def boxes_by_image(found):
    """image -> its boxes, labels in the file's order."""
    return {name: (found.boxes[found.rows(i)], found.labels[found.rows(i)]) for i, name in enumerate(found.file_names)}


def assert_same(first, second, ignored=True):
    """The same images, classes, boxes to 1e-6 px and, where the format has them, ignore regions."""
    assert first.names == second.names
    old, new = boxes_by_image(first), boxes_by_image(second)
    assert old.keys() == new.keys()
    for name, (boxes, labels) in old.items():
        kept = np.ones(len(labels), bool) if ignored else labels >= 0
        np.testing.assert_allclose(new[name][0], boxes[kept], rtol=0, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(new[name][1], labels[kept], err_msg=name)


@pytest.fixture
def mixed(tmp_path):
    """Fractions of pixels, an ignored category, a crowd box, an image without objects, a class without any."""
    for i in range(3):
        picture(tmp_path / "set" / "pics" / f"i{i}.png", 97 + i, 61, seed=i)
    rows = [
        (1, 10, 5, [1.123456, 2.654321, 7.000001, 3.9]),
        (2, 10, 3, [0, 0, 97, 61]),
        (3, 12, 9, [3, 3, 30, 30]),
        annotation(4, 12, 5, [8, 8, 20.5, 20.25], iscrowd=1),
        (5, 12, 5, [1 / 3, 2 / 3, 10 / 3, 20 / 3]),
    ]
    images = [(10, "i0.png", 97, 61), (11, "i1.png", 98, 61), (12, "i2.png", 99, 61)]
    kinds = [(9, "blur"), (5, "ship"), (3, "car"), (4, "bus")]
    coco(tmp_path / "set" / "a.json", images, rows, kinds)
    names = ["ship", "bus", "car"]
    return data_yaml(
        tmp_path / "set" / "m.yaml", val="pics", annotations={"val": "a.json"}, names=names, ignore=["blur"]
    )


@pytest.mark.parametrize("first", WRITTEN)
@pytest.mark.parametrize("second", WRITTEN)
def test_round_trips(mixed, tmp_path, first, second, capsys):
    original = spec.load(mixed).read("val")
    assert convert.convert(str(mixed), to=first, out=str(tmp_path / "one")) == 0
    assert convert.convert(str(tmp_path / "one" / "data.yaml"), to=second, out=str(tmp_path / "two")) == 0
    once, twice = (
        spec.load(tmp_path / "one" / "data.yaml").read("val"),
        spec.load(tmp_path / "two" / "data.yaml").read("val"),
    )
    assert_same(original, once, ignored=first in KEEPS_IGNORED)
    assert_same(original, twice, ignored={first, second} <= KEEPS_IGNORED)
    if first == second == "coco":
        for name in ("image_ids", "ids", "category_ids", "box_categories"):
            np.testing.assert_array_equal(getattr(original, name), getattr(twice, name), err_msg=name)
    assert ("2 ignore regions are left out" in capsys.readouterr().out) == (not {first, second} <= KEEPS_IGNORED)
    code = check.check(str(tmp_path / "two" / "data.yaml"))
    assert code == 0


coordinate = st.floats(0, 90).map(lambda v: round(v, 6))
side = st.floats(0.01, 9).map(lambda v: round(v, 6))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate, side, side, st.integers(0, 1)), max_size=6))
def test_text_formats_are_lossless_to_a_millionth_of_a_pixel(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("trip")
    picture(folder / "images" / "a.png", 100, 99)
    notes = [(i + 1, 1, kind + 1, [x, y, w, h]) for i, (x, y, w, h, kind) in enumerate(rows)]
    found = coco_json.read(coco(folder / "a.json", [(1, "a.png", 100, 99)], notes, [(1, "ship"), (2, "car")]))
    for name in TEXTS:
        layout = FORMATS[name]
        labels = folder / layout.labels.format(split="all")
        counts = layout.write(labels, found, overwrite=True)
        assert counts == {"boxes": len(rows), "ignore_regions": 0}
        assert_same(found, layout.read(folder / "images", ["ship", "car"], labels=labels))


def test_official_formats_to_coco_by_hand(tmp_path):
    for draw, name in ((visdrone_set, "v"), (dota_set, "d"), (xview_set, "x")):
        assert convert.convert(str(draw(tmp_path / name)), out=str(tmp_path / f"{name}-coco")) == 0
    content = json.loads((tmp_path / "v-coco" / "annotations" / "train.json").read_text())
    assert [c["id"] for c in content["categories"]] == [*range(1, 11), 0, 11]
    row = content["annotations"][12]
    assert row == {
        "id": 13,
        "image_id": 2,
        "category_id": 4,
        "bbox": [5, 6, 7, 8],
        "area": 56,
        "iscrowd": 0,
        "truncation": 1,
        "occlusion": 2,
    }
    assert [a["iscrowd"] for a in content["annotations"]] == [1, *[0] * 10, 1, 0, 1]
    content = json.loads((tmp_path / "d-coco" / "annotations" / "train.json").read_text())
    assert [(a["bbox"], a["difficult"]) for a in content["annotations"]] == [
        ([5, 5, 10, 10], 0),
        ([100.5, 50.25, 10, 10], 1),
        ([780, 100, 40, 20], 0),
        ([1385, 895, 5, 5], 0),
    ]
    assert content["categories"] == [{"id": 1, "name": "plane"}, {"id": 2, "name": "ship"}]
    content = json.loads((tmp_path / "x-coco" / "annotations" / "train.json").read_text())
    assert [c["id"] for c in content["categories"][:2]] == [18, 86]
    assert [a["bbox"] for a in content["annotations"]] == [[1, 2, 8, 7], [10, 20, 12, 10], [700, 700, 40, 30]]


@pytest.mark.parametrize(("draw", "to"), [(visdrone_set, "visdrone"), (dota_set, "dota")])
def test_there_and_back_keeps_marks(tmp_path, draw, to):
    file = draw(tmp_path / "set")
    convert.convert(str(file), to="coco", out=str(tmp_path / "coco"))
    convert.convert(str(tmp_path / "coco" / "data.yaml"), to=to, out=str(tmp_path / "back"))
    first, last = spec.load(file).read("train"), spec.load(tmp_path / "back" / "data.yaml").read("train")
    assert_same(first, last)
    for name in first.extra:
        np.testing.assert_array_equal(first.extra[name], last.extra[name], err_msg=name)
    if to == "visdrone":
        np.testing.assert_array_equal(first.box_categories, last.box_categories)


def test_yolo_files_are_what_ultralytics_reads(mixed, tmp_path):
    convert.convert(str(mixed), to="yolo", out=str(tmp_path / "y"))
    lines = (tmp_path / "y" / "labels" / "val" / "i0.txt").read_text().split("\n")
    assert lines[1] == "2 0.5 0.5 1 1" and (tmp_path / "y" / "labels" / "val" / "i1.txt").read_text() == ""
    assert (tmp_path / "y" / "images" / "val" / "i1.png").is_symlink()
    content = (tmp_path / "y" / "data.yaml").read_text()
    assert "val: images/val" in content and "0: ship" in content and "annotations" not in content


def test_copies_are_no_links(mixed, tmp_path):
    convert.convert(str(mixed), out=str(tmp_path / "c"), images="copy")
    copied = tmp_path / "c" / "images" / "val" / "i1.png"
    assert not copied.is_symlink() and copied.read_bytes() == (tmp_path / "set" / "pics" / "i1.png").read_bytes()


@pytest.mark.parametrize("to", WRITTEN)
def test_dota_scenes_cut(tmp_path, to):
    file = dota_set(tmp_path / "set")
    assert convert.convert(str(file), to=to, out=str(tmp_path / "t"), tile=800, overlap=200, keep=0.5) == 0
    found = spec.load(tmp_path / "t" / "data.yaml").read("train")
    corners = [(x, y) for y in (0, 100) for x in (0, 600, 590)]
    names = sorted([f"P0000__{x}_{y}.png" for x, y in corners] + ["P0001__0_0.png"])
    assert sorted(found.file_names) == names
    by_image = {name: rows[0].round(6).tolist() for name, rows in boxes_by_image(found).items()}
    assert by_image["P0000__0_0.png"] == [[5, 5, 15, 15], [100.5, 50.25, 110.5, 60.25], [780, 100, 800, 120]]
    assert by_image["P0000__600_0.png"] == [[180, 100, 220, 120]]
    assert by_image["P0000__590_100.png"] == [[190, 0, 230, 20], [795, 795, 800, 800]]
    assert by_image["P0001__0_0.png"] == []
    scene = cv2.imread(str(tmp_path / "set" / "images" / "P0000.png"))
    part = cv2.imread(str(tmp_path / "t" / "images" / "train" / "P0000__600_100.png"))
    np.testing.assert_array_equal(part[:, :790], scene[100:, 600:])
    assert part.shape == (800, 800, 3) and part[:, 790:].max() == 0
    assert len(set(found.ids.tolist())) == len(found.ids)


def test_centre_rule_by_name(tmp_path):
    convert.convert(str(dota_set(tmp_path / "set")), out=str(tmp_path / "t"), tile=800, keep="centre")
    found = boxes_by_image(spec.load(tmp_path / "t" / "data.yaml").read("train"))
    assert found["P0000__0_0.png"][0].tolist() == [[5, 5, 15, 15], [100.5, 50.25, 110.5, 60.25]]


def test_an_interrupted_cut_is_taken_up_again(tmp_path, monkeypatch):
    file, out = dota_set(tmp_path / "set"), tmp_path / "t"
    written = []
    real = images.save

    def stop_after_two(path, image, **options):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        real(path, image, **options)

    monkeypatch.setattr(images, "save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        convert.convert(str(file), out=str(out), tile=800)
    assert not (out / "data.yaml").exists() and (out / convert.MARKER).exists()
    assert sorted(p for p in out.rglob("*.png")) == sorted(written)
    before = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.setattr(images, "save", real)
    with pytest.raises(UserError, match="holds an unfinished conversion with other settings; overwrite=true"):
        convert.convert(str(file), out=str(out), tile=400)
    assert convert.convert(str(file), out=str(out), tile=800) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == before
    assert not (out / convert.MARKER).exists() and check.check(str(out / "data.yaml")) == 0


def test_nothing_is_overwritten_unasked(tmp_path):
    file = clean_set(tmp_path / "set")
    before = {p: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()}
    for out in (tmp_path / "set", tmp_path / "set" / "images"):
        with pytest.raises(UserError, match="is not empty; overwrite=true writes over what is there"):
            convert.convert(str(file), to="yolo", out=str(out))
    with pytest.raises(UserError, match="is a file"):
        convert.convert(str(file), to="yolo", out=str(file))
    assert {p: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()} == before
    assert convert.convert(str(file), to="yolo", out=str(tmp_path / "y")) == 0
    assert convert.convert(str(file), to="yolo", out=str(tmp_path / "y"), overwrite=True) == 0


def test_missing_images_are_named_and_the_exit_code_is_1(tmp_path, capsys):
    file = clean_set(tmp_path / "set")
    (tmp_path / "set" / "images" / "t1.png").unlink()
    assert convert.convert(str(file), to="coco", out=str(tmp_path / "c")) == 1
    assert "MISSING: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"to": "kml", "out": "x"},
            "to=kml: unknown format; .*Choices: coco, csv, dota, geojson, gpkg, shp, visdrone, voc, yolo",
        ),
        ({"to": "coco"}, "give the folder to write to: out=FOLDER"),
        ({"out": "x", "images": "move"}, "images=move: Choices: copy, link"),
        ({"out": "x", "tile": 0}, "tile=0"),
        ({"out": "x", "tile": 100, "overlap": 100}, "overlap=100"),
        ({"out": "x", "split": "tset"}, "no split 'tset'"),
        ({"out": "x", "to": "dota"}, "class 'big ship': DOTA txt parts its columns by blanks"),
    ],
)
def test_bad_calls(tmp_path, options, message):
    coco(tmp_path / "a.json", [], [], [(1, "big ship")])
    file = data_yaml(tmp_path / "a.yaml", train=".", annotations={"train": "a.json"})
    with pytest.raises(UserError, match=message):
        convert.convert(str(file), **options)
    assert not list(Path("x").rglob("*.yaml"))
