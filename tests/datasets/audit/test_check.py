"""`data check`: every planted fault has its name, a clean set is clean, and the repaired copy is."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest

from tests.support.data_sets import annotation, clean_set, coco, data_yaml, dota_set, picture, visdrone_set, xview_set
from tinyyolo.cli import main
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.audit import check, faults

KINDS = [(1, "ship"), (2, "car")]


def change(root, split, act):
    """Change a split's JSON in place."""
    path = root / f"{split}.json"
    content = json.loads(path.read_text())
    act(content)
    path.write_text(json.dumps(content))


def first_box(root, **values):
    change(root, "train", lambda c: c["annotations"][0].update(values))


def add(root, record):
    change(root, "train", lambda c: c["annotations"].append(record))


def cut_short(root):
    path = root / "images" / "t0.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def jpeg_cut_short(root):
    """OpenCV reads such a file without a word and fills the rest with grey."""
    image = cv2.imread(str(root / "images" / "t0.png"))
    data = cv2.imencode(".jpg", image)[1].tobytes()
    (root / "images" / "t0.png").write_bytes(data[: len(data) // 2])


def twin_across(root):
    shutil.copy(root / "images" / "t0.png", root / "images" / "v0.png")


def twin_within(root):
    shutil.copy(root / "images" / "t0.png", root / "images" / "t1.png")


FAULTS = [
    ("missing image", lambda r: (r / "images" / "t0.png").unlink(), "t0.png: no such image"),
    ("missing image", lambda r: (r / "images" / "t0.png").rename(r / "images" / "T0.PNG"), "there is T0.PNG"),
    ("unreadable image", lambda r: (r / "images" / "t0.png").write_bytes(b""), "t0.png: the file is empty"),
    ("unreadable image", lambda r: (r / "images" / "t0.png").write_text("x" * 99), "neither Pillow nor OpenCV"),
    ("unreadable image", cut_short, "t0.png"),
    ("unreadable image", jpeg_cut_short, "t0.png: truncated JPEG"),
    ("wrong size", lambda r: picture(r / "images" / "t0.png", 48, 64), "is 48 x 64 px, the annotations say 64 x 48"),
    (
        "outside",
        lambda r: first_box(r, bbox=[70, 3, 4, 5]),
        "annotation 1 in t0.png: outside: x1 y1 x2 y2 = 70, 3, 74, 8",
    ),
    ("over the edge", lambda r: first_box(r, bbox=[62, 3, 4, 5]), "annotation 1 in t0.png"),
    ("over the edge", lambda r: first_box(r, bbox=[-2, 3, 6, 5], area=30), "= -2, 3, 4, 8 in 64 x 48 px"),
    ("empty box", lambda r: first_box(r, bbox=[2, 3, 0, 5]), "annotation 1 in t0.png: empty box"),
    ("not a number", lambda r: first_box(r, bbox=[2, float("nan"), 4, 5]), "annotation 1 in t0.png: not a number"),
    ("tiny box", lambda r: first_box(r, bbox=[2, 3, 1.5, 5], area=7.5), "annotation 1 in t0.png: tiny box"),
    ("duplicate box", lambda r: add(r, annotation(9, 1, 2, [10, 10, 8, 8])), "annotation 9 in t0.png: duplicate box"),
    ("area", lambda r: first_box(r, area=999), "annotation 1 in t0.png: area: .* area 999"),
    (
        "unknown class",
        lambda r: first_box(r, category_id=7),
        "category_id 7 is not in 'categories'; there are: 1 ship, 2 car",
    ),
    (
        "unknown class",
        lambda r: change(r, "train", lambda c: c["categories"][1].update(name="bus")),
        "class 'bus' is not in names",
    ),
    ("unknown image", lambda r: first_box(r, image_id=9), "annotation 1: image_id 9 is not in 'images'"),
    (
        "duplicate image",
        lambda r: change(r, "train", lambda c: c["images"][1].update(id=1)),
        "t1.png: id 1 belongs to t0.png",
    ),
    ("duplicate id", lambda r: first_box(r, id=2), "annotation 2: the id stands 2 times"),
    (
        "duplicate category",
        lambda r: change(r, "train", lambda c: c["categories"][1].update(id=1)),
        "id 1 is 'ship' already",
    ),
    (
        "no size",
        lambda r: change(r, "train", lambda c: c["images"][0].pop("width")),
        "t0.png: needs 'width' and 'height'",
    ),
    (
        "no id",
        lambda r: change(r, "train", lambda c: c["annotations"][0].pop("id")),
        "annotation 1 of the list: no 'id'",
    ),
    ("bad record", lambda r: change(r, "train", lambda c: c["annotations"][0].pop("bbox")), "annotation 1 of the list"),
    ("unreadable annotations", lambda r: (r / "val.json").write_text("{"), "val.json:1: not valid JSON"),
    ("unreadable annotations", lambda r: (r / "val.json").unlink(), "val: .*val.json: no such annotation file"),
    ("leak", twin_across, "v0.png: in val, is the same picture as .*t0.png in train"),
    ("same picture", twin_within, "t1.png: is the same picture as .*t0.png"),
]


def run(file, tmp_path, **options):
    code = check.check(str(file), runs=str(tmp_path / "runs"), **options)
    report = json.loads((tmp_path / "runs" / f"{file.stem}.json").read_text())
    return code, report


def test_a_clean_set_is_clean(tmp_path, capsys):
    code, report = run(clean_set(tmp_path / "set"), tmp_path)
    assert code == 0 and report["ok"] and report["problems"] == {} and report["notes"] == {}
    assert report["splits"]["train"] == {"images": 2, "boxes": 3, "ignore_regions": 0, "classes": {"ship": 2, "car": 1}}
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "plant", "message"), FAULTS)
def test_each_fault_alone(tmp_path, kind, plant, message):
    file = clean_set(tmp_path / "set")
    plant(tmp_path / "set")
    code, report = run(file, tmp_path)
    assert code == 1 and not report["ok"]
    text = "\n".join(report["problems"][kind])
    assert re.search(message, text), text


def test_twenty_kinds_at_once(tmp_path, capsys):
    """A set with everything wrong with it: each kind is named, with the file and the record."""
    root = tmp_path / "set"
    names = [f"i{k}.png" for k in range(9)]
    for k, name in enumerate(names):
        picture(root / "images" / name, 64, 48, seed=k)
    (root / "images" / "i1.png").unlink()
    (root / "images" / "i2.png").write_bytes(b"not a picture")
    picture(root / "images" / "i3.png", 48, 64, seed=3)
    shutil.copy(root / "images" / "i0.png", root / "images" / "i4.png")
    picture(root / "images" / "extra.png", 8, 8, seed=30)
    images = [{"id": k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(names[:6])]
    images += [{"id": 5, "file_name": "i6.png", "width": 64, "height": 48}, {"id": 7, "file_name": "i7.png"}]
    rows = [
        (1, 0, 1, [1, 1, 9, 9]),
        (2, 0, 1, [80, 1, 9, 9]),
        (3, 0, 1, [-4, 1, 9, 9]),
        (4, 0, 1, [5, 5, 0, 9]),
        (5, 0, 1, [5, 5, 1, 9]),
        (6, 0, 1, [1, 1, 9, 9]),
        (7, 5, 1, [2, float("nan"), 9, 9]),
        (8, 99, 1, [5, 5, 9, 9]),
        (9, 0, 77, [5, 5, 9, 9]),
        (1, 5, 1, [9, 9, 9, 9]),
        annotation(11, 5, 1, [20, 20, 9, 9], area=1e4),
        {"image_id": 5, "category_id": 1, "bbox": [30, 20, 9, 9]},
        {"id": 13, "image_id": 5, "category_id": 1},
    ]
    kinds = [(1, "ship"), (2, "car"), (2, "bus"), (5, "ship"), (6, "dog")]
    coco(root / "train.json", images, rows, kinds)
    shutil.copy(root / "images" / "i5.png", root / "images" / "i8.png")
    coco(root / "val.json", [(1, "i8.png", 64, 48)], [(1, 1, 1, [1, 1, 9, 9])], [(1, "ship")])
    (root / "test.json").write_text('{"images": [}')
    splits = {split: f"{split}.json" for split in ("train", "val", "test")}
    expected = {"train": {"images": 10, "boxes": 12, "classes": {"ship": 11, "car": 1}}}
    file = data_yaml(
        root / "bad.yaml",
        **dict.fromkeys(splits, "images"),
        annotations=splits,
        names=["ship", "car"],
        expected=expected,
    )
    code, report = run(file, tmp_path)
    wanted = """missing image, unreadable image, wrong size, same picture, leak, outside, over the edge, empty box,
        tiny box, duplicate box, not a number, area, unknown image, unknown class, duplicate id, duplicate image,
        duplicate category, duplicate name, no size, no id, bad record, unreadable annotations, image count, box count,
        class count"""
    wanted = {" ".join(kind.split()) for kind in wanted.split(",")}
    assert code == 1 and set(report["problems"]) == wanted and len(wanted) == 25
    assert set(report["notes"]) == {"no objects", "unused class", "extra image"}
    out = capsys.readouterr().out
    for kind in wanted:
        assert f"WRONG: {kind}, " in out


@pytest.mark.parametrize(
    ("counts", "kinds", "message"),
    [
        ((2, {"ship": 2, "car": 1}), [], ""),
        ((1, {"ship": 1, "car": 0}), ["image count", "box count", "class count"], "1 images, expected 2, 50 % of them"),
        (
            (2, {"ship": 1, "car": 2}),
            ["shifted classes"],
            "the ids are shifted: ship 1 .expected 2., car 2 .expected 1.",
        ),
        (
            (4, {"ship": 5, "car": 1}),
            ["image count", "box count", "class count", "wrong split"],
            "are the counts of s.yaml, test",
        ),
    ],
)
def test_counts_are_compared(tmp_path, counts, kinds, message):
    rows = {"trainval": (2, {"ship": 2, "car": 1}), "test": (4, {"ship": 5, "car": 1})}
    expected = {k: {"images": n, "boxes": sum(c.values()), "classes": c} for k, (n, c) in rows.items()}
    file = data_yaml(
        tmp_path / "s.yaml", train="i", names=["ship", "car"], expected=expected, stands_for={"train": "trainval"}
    )
    found = faults.count_problems(spec.load(file), "train", *counts)
    assert [p.kind for p in found] == kinds
    assert re.search(message, "\n".join(found))


@pytest.mark.parametrize(
    ("version", "split", "twin"),
    [("AI-TOD-v2", "train", "AI-TOD.yaml, trainval"), ("AI-TOD", "val", "AI-TOD-v2.yaml, test")],
)
def test_the_other_version_is_named(version, split, twin):
    own, (file, row) = spec.load(version), twin.split(".yaml, ")
    found = faults.count_problems(own, split, 14018, spec.load(file).expected[row]["classes"])
    assert any(p.kind == "wrong split" and p.endswith(f"these are the counts of {twin}") for p in found)


def test_faulty_boxes_may_be_among_the_expected(tmp_path):
    """VisDrone's own files hold a few empty boxes: they are named, but the set is whole."""
    file = data_yaml(
        tmp_path / "s.yaml",
        train="i",
        names=["ship"],
        expected={"train": {"images": 1, "boxes": 5, "classes": {"ship": 5}}},
    )
    data = spec.load(file)
    assert faults.count_problems(data, "train", 1, {"ship": 4}, faulty=1) == []
    assert [p.kind for p in faults.count_problems(data, "train", 1, {"ship": 3}, faulty=1)] == [
        "box count",
        "class count",
    ]


@pytest.mark.parametrize("draw", [visdrone_set, dota_set])
def test_text_formats_as_downloaded(tmp_path, draw):
    code, report = run(draw(tmp_path / "set"), tmp_path)
    assert code == 0, report["problems"]


def test_xview_names_the_missing_scene(tmp_path):
    code, report = run(xview_set(tmp_path / "set"), tmp_path)
    assert code == 1 and report["problems"] == {
        "missing image": ["1395.tif: 1 objects of xView_train.geojson lie in it"]
    }


def test_label_without_image(tmp_path):
    picture(tmp_path / "images" / "train" / "a.png", 20, 20)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "labels" / "train" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    file = data_yaml(tmp_path / "y.yaml", train="images/train", names=["ship"])
    code, report = run(file, tmp_path)
    assert code == 1 and list(report["problems"]) == ["missing image"]
    assert report["problems"]["missing image"][0].endswith("b.txt: a label file without an image of its name")


def test_one_split_of_two_names_is_checked_once(tmp_path):
    root = tmp_path / "set"
    clean_set(root)
    first_box(root, bbox=[70, 3, 4, 5])
    jsons = {"train": "train.json", "val": "val.json", "test": "val.json"}
    file = data_yaml(root / "set.yaml", **dict.fromkeys(jsons, "images"), annotations=jsons)
    code, report = run(file, tmp_path)
    assert code == 1 and list(report["problems"]) == ["outside"] and set(report["splits"]) == set(jsons)
    assert run(file, tmp_path, split="test")[0] == 0
    with pytest.raises(UserError, match="no split 'tets'; did you mean 'test'"):
        run(file, tmp_path, split="tets")


def test_images_false_opens_none(tmp_path):
    file = clean_set(tmp_path / "set")
    (tmp_path / "set" / "images" / "t0.png").write_bytes(b"")
    assert run(file, tmp_path, images=False)[0] == 0
    (tmp_path / "set" / "images" / "t0.png").unlink()
    assert list(run(file, tmp_path, images=False)[1]["problems"]) == ["missing image"]


def test_fix_writes_a_clean_copy_and_says_what_it_did(tmp_path, capsys):
    root = tmp_path / "set"
    file = clean_set(root)
    first_box(root, bbox=[-2, 3, 6, 5], area=30)
    for record in (
        annotation(2, 1, 2, [10, 10, 8, 8]),
        annotation(7, 1, 2, [90, 10, 8, 8]),
        annotation(8, 2, 2, [9, 9, 0, 8]),
        annotation(9, 2, 2, [9, 9, 8, 8], area=500),
        annotation(10, 2, 1, [30, 30, 1, 1]),
    ):
        add(root, record)
    picture(root / "images" / "v1.png", 70, 50, seed=9)
    (root / "images" / "v0.png").unlink()
    before = {p.name: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    code = check.check(str(file), fix=True, out=str(tmp_path / "fixed"), runs=str(tmp_path / "runs"))
    assert code == 1 and {p.name: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before
    out = capsys.readouterr().out
    assert (
        "train: 1 boxes outside left out, 1 second copies left out, 1 boxes cut at the edge, 1 areas set to w * h"
        in out
    )
    assert "val: 1 images left out, 1 boxes of those images left out, 1 sizes set to the image's" in out
    fixed = spec.load(tmp_path / "fixed" / "set.yaml")
    found = fixed.read("train")
    np.testing.assert_array_equal(found.ids, [1, 2, 3, 9, 10])
    np.testing.assert_array_equal(found.boxes[[0, 3]], [[0, 3, 4, 8], [9, 9, 17, 17]])
    np.testing.assert_array_equal(found.areas, [20, 64, 16, 64, 1])
    assert fixed.read("val").file_names == ["v1.png"] and fixed.read("val").sizes_hw.tolist() == [[50, 70]]
    _, report = run(tmp_path / "fixed" / "set.yaml", tmp_path)
    assert set(report["problems"]) == {"tiny box"}  # it may be an object
    with pytest.raises(UserError, match=r"set\.yaml: exists; overwrite=true replaces it"):
        check.check(str(file), fix=True, out=str(tmp_path / "fixed"), runs=str(tmp_path / "runs"))
    assert (
        check.check(str(file), fix=True, out=str(tmp_path / "fixed"), overwrite=True, runs=str(tmp_path / "runs")) == 1
    )


def test_the_command(tmp_path, capsys):
    file = clean_set(tmp_path / "set")
    assert main(["data", "check", str(file), "images=false"]) == 0
    (tmp_path / "set" / "images" / "t0.png").unlink()
    assert main(["data", "check", f"data={file}"]) == 1
    capsys.readouterr()
    assert main(["data", "check", "--help"]) == 0
    assert "tinyyolo data check DATA path=null split=null images=true fix=false" in capsys.readouterr().out
