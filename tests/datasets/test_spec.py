"""Data YAMLs: those that ship, and what can be wrong with one's own."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support.command import command
from tests.support.data_sets import AITOD_NAMES, clean_set, coco, data_yaml, picture
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.audit.faults import astray

# Table 1 of the paper, test and train sets: airplane ... wind-mill.
TABLE_1 = {
    ("AI-TOD-v2", "train"): [666, 603, 5584, 14074, 787, 265194, 14446, 180],
    ("AI-TOD-v2", "val"): [177, 152, 2635, 3839, 112, 64247, 3860, 69],
    ("AI-TOD-v2", "test"): [855, 803, 6090, 18946, 466, 332604, 16030, 335],
    ("AI-TOD", "train"): [623, 512, 5269, 13539, 293, 248042, 14126, 176],
    ("AI-TOD", "val"): [170, 140, 2477, 3791, 34, 59904, 3841, 67],
    ("AI-TOD", "test"): [745, 689, 5860, 17633, 292, 306665, 15443, 290],
}
SHIPPED = ["AI-TOD-v2", "AI-TOD-v2-dev", "AI-TOD", "VisDrone2019", "DOTA-v2"]
OTHERS = ["DIOR", "DOTA-v1.0", "DOTA-v1.5", "HIT-UAV", "SeaDronesSee-v2", "SODA-D", "TinyPerson", "xView"]


@pytest.mark.parametrize(("name", "split"), TABLE_1)
def test_expected_counts_are_table_1(name, split):
    data = spec.load(name)
    assert list(data.names.values()) == AITOD_NAMES
    assert list(data.expected[split]["classes"].values()) == TABLE_1[name, split]


@pytest.mark.parametrize("name", SHIPPED)
def test_counts_add_up(name):
    expected = spec.load(f"{name}.yaml").expected
    for row in expected.values():
        assert "classes" not in row or sum(row["classes"].values()) == row["boxes"]
    if "trainval" in expected:
        train, val, both = (expected[split] for split in ("train", "val", "trainval"))
        assert (train["images"], val["images"], both["images"]) == (11214, 2804, 14018)
        for key in both["classes"]:
            assert train["classes"][key] + val["classes"][key] == both["classes"][key], key


def test_totals_are_the_published_ones():
    totals = {
        name: sum(spec.load(name).expected[s]["boxes"] for s in ("trainval", "test"))
        for name in ("AI-TOD", "AI-TOD-v2")
    }
    assert totals == {"AI-TOD": 700621, "AI-TOD-v2": 752754}


@pytest.mark.parametrize(
    ("name", "split", "json"),
    [
        ("AI-TOD-v2", "train", "aitodv2_trainval.json"),
        ("AI-TOD-v2", "test", "aitodv2_test.json"),
        ("AI-TOD-v2-dev", "train", "aitodv2_train.json"),
        ("AI-TOD-v2-dev", "val", "aitodv2_val.json"),
        ("AI-TOD", "train", "aitod_trainval_v1.json"),
    ],
)
def test_splits_are_the_papers(name, split, json):
    data = spec.load(name)
    assert data.splits[split].annotations.name == json
    assert data.stands_for.get(split, split) in json


def test_shipped_sets_lie_in_the_datasets_folder(tmp_path, monkeypatch):
    assert spec.load("AI-TOD-v2").path == tmp_path / "datasets" / "AI-TOD"
    monkeypatch.setenv("TINYYOLO_DATASETS", str(tmp_path / "elsewhere"))
    assert spec.load("DOTA-v2").path == tmp_path / "elsewhere" / "DOTA-v2"
    assert spec.load("DOTA-v2", path=tmp_path / "given").path == tmp_path / "given"
    with pytest.raises(UserError, match=r"DOTA-v2\.yaml: the data are not in .*elsewhere/DOTA-v2; set `path:`"):
        spec.load("DOTA-v2").read("train")


def test_own_yaml(tmp_path):
    data = spec.load(clean_set(tmp_path / "set"))
    assert (data.path, data.names, list(data.splits)) == (tmp_path / "set", {0: "ship", 1: "car"}, ["train", "val"])
    found = data.read("val")
    np.testing.assert_array_equal(found.boxes, [[0, 0, 3, 3], [20, 20, 36, 36]])
    assert data.image_path("val", "v0.png").is_file() and data.image_dir("val") == tmp_path / "set" / "images"
    assert spec.load(data) is data


def test_paths_home_and_relative(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    clean_set(tmp_path / "sets" / "a")
    jsons = {"train": "train.json"}
    for place, file in (("~/sets/a", tmp_path / "x.yaml"), ("../sets/a", tmp_path / "yamls" / "y.yaml")):
        data = spec.load(data_yaml(file, path=place, train="images", annotations=jsons))
        assert len(data.read("train")) == 2 and data.names == {0: "ship", 1: "car"}, place


def test_names_from_the_json_without_the_ignored(tmp_path):
    coco(
        tmp_path / "a.json",
        [(1, "a.png", 8, 8)],
        [(1, 1, 0, [1, 1, 4, 4])],
        [(4, "DontCare"), (2, "car"), (0, "person")],
    )
    file = data_yaml(tmp_path / "d.yaml", train=".", annotations={"train": "a.json"}, ignore=["DontCare"])
    assert spec.load(file).names == {0: "person", 1: "car"}


def test_yolo_labels_with_an_ignored_class(tmp_path):
    picture(tmp_path / "images" / "train" / "sub" / "a.png", 100, 50)
    (tmp_path / "labels" / "train" / "sub").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "sub" / "a.txt").write_text(
        "1 0.5 0.5 0.2 0.2\n0 0.1 0.2 0.1 0.2\n2 0.9 0.9 0.1 0.1\n"
    )
    file = data_yaml(
        tmp_path / "d.yaml", train="images/train", names={0: "car", 1: "region", 2: "bus"}, ignore=["region"], nc=3
    )
    found = spec.load(file).read("train")
    assert found.names == {0: "car", 1: "bus"} and found.file_names == ["sub/a.png"]
    np.testing.assert_array_equal(found.labels, [-1, 0, 1])
    np.testing.assert_allclose(found.boxes, [[40, 20, 60, 30], [5, 5, 15, 15], [85, 42.5, 95, 47.5]])


@pytest.mark.parametrize("listed", ["images/a.png\n./images/b.png\n", None])
def test_several_folders_and_lists(tmp_path, listed):
    for name in ("images/a.png", "images/b.png"):
        picture(tmp_path / name, 10, 10)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "list.txt").write_text(listed or "images/b.png")
    train = "list.txt" if listed else ["list.txt", "images"]
    data = spec.load(data_yaml(tmp_path / "d.yaml", train=train, names=["car"]))
    assert data.image_dir("train") == tmp_path
    assert data.read("train").file_names == (
        ["images/a.png", "images/b.png"] if listed else ["images/b.png", "images/a.png"]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": "images"}, r"no names: give `names:`"),
        ({"names": ["a"]}, r"no split; give at least one of train, val"),
        ({"train": "images", "names": ["a"], "nmaes": 1}, r"unknown key 'nmaes'; did you mean 'names'\?"),
        ({"train": "images", "names": {1: "a"}}, r"names must be numbered 0 to 0, found \[1\]"),
        ({"train": "images", "names": ["a", "a"]}, r"the same name stands twice in names: a"),
        ({"train": "images", "names": "a"}, r"names: expected a list or a mapping"),
        ({"train": "images", "names": ["a"], "nc": 2}, r"nc: 2, but there are 1 names"),
        ({"train": "images", "names": ["a"], "ignore": "b"}, r"ignore: expected a list of category names"),
        ({"train": "images", "names": ["a"], "format": "kml"}, r"format: 'kml' unknown; .*visdrone"),
        (
            {"train": "images", "names": ["a"], "annotations": {"vall": "x"}},
            r"annotations\.vall: no images for it.*train",
        ),
        ({"train": "images", "names": ["a"], "annotations": "x.json"}, r"annotations: expected split: file\.json"),
        ({"train": "images", "names": ["a"], "annotations": {"train": ["x"]}}, r"annotations: expected split: file"),
        ({"train": {"a": 1}, "names": ["a"]}, r"train: expected an image folder, .*, found \{'a': '1'\}"),
        ({"train": [["a"]], "names": ["a"]}, r"train: expected an image folder, .*, found"),
        ({"train": "images", "names": ["a", None]}, r"names: expected a list or a mapping id: name, found"),
        ({"train": "images", "names": {"x": "a"}}, r"names: .*'x'"),
        ({"train": "images", "names": ["a"], "path": ["x"]}, r"path: expected a text, found \['x'\]"),
        ({"train": "images", "names": ["a"], "format": ["x"]}, r"format: expected a text, found"),
        ({"train": "images", "names": ["a"], "nc": "two"}, r"nc: expected a number, found 'two'"),
        ({"train": "images", "names": ["a"], "toy": "aerial"}, r"toy: expected a mapping, found 'aerial'"),
        (
            {"train": "images", "names": ["a"], "stands_for": "test"},
            r"stands_for: expected a mapping split: official split, found",
        ),
        ({"train": "images", "names": ["a"], "expected": {"train": 3}}, r"expected: expected split: \{images"),
        ({"train": "images", "names": ["a"], "about": {"get": "ask"}}, r"about\.get: expected a list of texts"),
    ],
)
def test_bad_yamls(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        spec.load(data_yaml(tmp_path / "d.yaml", **content))
    assert "\n" not in str(caught.value) and "d.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda data: data.read("test"), r"set\.yaml: no split 'test'; Choices: train, val"),
        (lambda data: data.image_dir("vall"), r"no split 'vall'; did you mean 'val'\?"),
        (
            lambda data: (data.path / "val.json").unlink() or data.read("val"),
            r"val\.json: no such annotation file.*train\.json",
        ),
        (
            lambda data: (
                data.image_path("val", "x")
                and (data.path / "images").rename(data.path / "pics")
                and data.image_dir("val")
            ),
            r"val: no such image folder: .*images; .* has the folders pics",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, act, message):
    data = spec.load(clean_set(tmp_path / "set"))
    with pytest.raises(UserError, match=message):
        act(data)


def test_missing_yaml_lists_those_in_data():
    with pytest.raises(
        UserError,
        match=r"AI-TOD-v3\.yaml: no such file, nor a name in data; did you mean 'AI-TOD-v2\.yaml'.*VisDrone2019",
    ):
        spec.load("AI-TOD-v3.yaml")


def test_base_is_another_yaml(tmp_path):
    clean_set(tmp_path)
    file = data_yaml(tmp_path / "b.yaml", base="set.yaml", names=["car", "ship"])
    assert spec.load(file).read("train").labels.tolist() == [1, 0, 1]


def test_a_base_that_leads_back_is_one_line(tmp_path):
    file = data_yaml(tmp_path / "a.yaml", base="b.yaml")
    data_yaml(tmp_path / "b.yaml", base="a.yaml")
    with pytest.raises(UserError, match=r"b\.yaml: base=a\.yaml leads back to itself"):
        spec.load(file)


def count_parses(monkeypatch):
    """How many times each file or folder is parsed from now on."""
    parsed = Counter()
    for name, layout in spec.FORMATS.items():

        def read(images_dir, *args, layout=layout, **options):
            parsed[str(options["labels"] or images_dir)] += 1
            return layout.read(images_dir, *args, **options)

        monkeypatch.setitem(spec.FORMATS, name, replace(layout, read=read))
    return parsed


def test_annotations_are_parsed_once(tmp_path, monkeypatch):
    parsed = count_parses(monkeypatch)
    clean_set(tmp_path)
    jsons = {"train": "train.json", "val": "val.json", "test": "val.json"}
    data = spec.load(data_yaml(tmp_path / "n.yaml", **dict.fromkeys(jsons, "images"), annotations=jsons))
    assert data.names == {0: "ship", 1: "car"}  # read from the first JSON
    assert data.read("train") is data.read("train", strict=False) and data.read("val") is data.read("test")
    assert parsed == {str(tmp_path / "train.json"): 1, str(tmp_path / "val.json"): 1}
    assert not data.read("train").boxes.flags.writeable
    spec.load(tmp_path / "n.yaml").read("train")
    assert parsed[str(tmp_path / "train.json")] == 2  # memory belongs to one DataSpec


def test_a_fault_stops_the_strict_reader_after_the_lenient_one(tmp_path):
    file = clean_set(tmp_path)
    (tmp_path / "train.json").write_text(
        (tmp_path / "train.json").read_text().replace('"image_id": 2', '"image_id": 9')
    )
    data = spec.load(file)
    assert [p.kind for p in data.read("train", strict=False).problems] == ["unknown image"]
    with pytest.raises(UserError, match=r"train\.json: annotation 3: image_id 9 is not in 'images'"):
        data.read("train")


@pytest.mark.parametrize(
    ("name", "classes", "images"),
    [
        ("DIOR", 20, 23463),
        ("DOTA-v1.0", 15, 1869),  # without the 937 of the test set
        ("DOTA-v1.5", 16, 1869),
        ("HIT-UAV", 4, 2898),
        ("SeaDronesSee-v2", 5, 14227 - 3750),  # without the test set
        ("SODA-D", 9, None),
        ("TinyPerson", 2, None),
        ("xView", 60, None),
    ],
)
def test_other_shipped_sets(name, classes, images):
    data = spec.load(name)
    assert len(data.names) == classes and "train" in data.splits
    assert images is None or sum(row["images"] for row in data.expected.values()) == images
    assert data.splits.get("val", data.splits["train"]) != data.splits.get("test"), "a test set called val"


@pytest.mark.parametrize("name", [*SHIPPED, *OTHERS])
def test_missing_data_say_how_to_get_them(name):
    data = spec.load(name)
    for act in (data.must_exist, lambda: data.read("train")):
        with pytest.raises(UserError) as caught:
            act()
        line, about = str(caught.value), data.content["about"]
        assert "\n" not in line and str(data.path) in line and "set `path:`, or $TINYYOLO_DATASETS" in line
        assert about["ask"] in line and about["licence"] in line and "; get it: (1) " in line
        assert all(step in line for step in about["get"]) and "tinyyolo data check" in line


@pytest.mark.parametrize(
    ("gone", "splits", "message"),
    [
        ("val.json", None, r"set\.yaml: val: no such annotation file: .*val\.json; .* has the folders images"),
        ("val.json", ["train"], None),
        ("images", ["train"], r"set\.yaml: train: no such image folder: .*images; .* has the folders"),
        (None, ["test"], r"no split 'test'; Choices: train, val"),
        (None, None, None),
    ],
)
def test_what_must_exist(tmp_path, gone, splits, message):
    data = spec.load(clean_set(tmp_path / "set"))
    if gone:
        (tmp_path / "set" / gone).rename(tmp_path / "gone")
    if message is None:
        assert data.must_exist(splits) is None
    else:
        with pytest.raises(UserError, match=message):
            data.must_exist(splits)


def test_lists_and_label_folders_must_exist(tmp_path):
    (tmp_path / "images").mkdir()
    for content, message in (
        ({"train": ["images", "list.txt"]}, r"train: no such list of images: .*list\.txt"),
        ({"train": "images", "annotations": {"train": "labelTxt"}, "format": "dota"}, r"no such label folder"),
    ):
        data = spec.load(data_yaml(tmp_path / "d.yaml", names=["a"], **content))
        with pytest.raises(UserError, match=message):
            data.must_exist()


def sized(root, size_of, orientation=0):
    """Two pictures of 64 x 32 px, a box in each, and a JSON that says `size_of` (width, height) of them."""
    for i in range(2):
        picture(root / "images" / f"{i}.jpg", 64, 32, seed=i)
        if orientation:
            exif = Image.Exif()
            exif[0x0112] = orientation
            with Image.open(root / "images" / f"{i}.jpg") as image:
                image.load()
            image.save(root / "images" / f"{i}.jpg", exif=exif)
    boxes = [(1, 1, 1, [40, 20, 8, 4]), (2, 2, 1, [0, 0, 8, 4])]
    coco(root / "a.json", [(i + 1, f"{i}.jpg", *size_of) for i in range(2)], boxes, [(1, "ship")])
    splits = {"train": "a.json", "val": "a.json"}
    return data_yaml(root / "a.yaml", train="images", val="images", annotations=splits)


@pytest.mark.parametrize("size_of", [(32, 64), (128, 64), (640, 480)])
def test_the_pictures_own_sizes_count(tmp_path, capsys, size_of):
    """Boxes are pixels of the picture: their fractions, and with them the labels of a training, need its size."""
    data = spec.load(sized(tmp_path / "set", size_of))
    assert data.read("train").sizes_hw.tolist() == [[size_of[1], size_of[0]]] * 2
    notes = data.measured("train")
    assert notes.sizes_hw.tolist() == [[32, 64]] * 2 and data.read("train") is notes is data.measured("val")
    line = f"2 of 2 images have a wrong size, such as 0.jpg: {size_of[0]} x {size_of[1]} px, the picture is 64 x 32"
    assert [p.kind for p in notes.problems] == ["wrong sizes"] and line in notes.problems[0]
    assert command("data", "convert", data.file, to="yolo", out=str(tmp_path / "new")) == 0
    assert line in capsys.readouterr().err
    assert (tmp_path / "new" / "labels" / "train" / "0.txt").read_text().split() == [
        "0",
        "0.6875",
        "0.6875",
        "0.125",
        "0.125",
    ]


def test_sizes_that_are_right_or_cannot_be_read_stay(tmp_path):
    data = spec.load(sized(tmp_path / "set", (64, 32)))
    assert data.measured("train") is data.read("train") and not data.read("train").problems
    shutil.rmtree(tmp_path / "set" / "images")
    gone = spec.load(tmp_path / "set" / "a.yaml")
    assert gone.measured("train").sizes_hw.tolist() == [[32, 64]] * 2


def test_pictures_that_were_turned_after_they_were_labelled(tmp_path):
    """The JSON says the size as stored, the picture stands upright by its EXIF: the boxes are of the stored one."""
    notes = spec.load(sized(tmp_path / "set", (64, 32), orientation=6)).measured("train")
    assert notes.sizes_hw.tolist() == [[64, 32]] * 2
    with pytest.raises(UserError, match=r"1 of 2 boxes lie outside .* 0\.jpg of 32 x 64 px.* have a wrong size"):
        astray(notes)
    (line,) = astray(notes, stop=False)
    assert "\n" not in line
