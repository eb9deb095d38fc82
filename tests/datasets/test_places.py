"""Data YAMLs as other tools and other machines write them: right, and told, or one line."""

import os

import pytest

from tests.support.data_sets import data_yaml, picture
from tinyyolo import io
from tinyyolo.config import UserError
from tinyyolo.datasets import images, spec
from tinyyolo.datasets.places import find, meant

LINE = "0 0.5 0.5 0.25 0.25\n"


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(io, "TOLD", set())


def exported(root, body, seed=0):
    """An export of two splits of one picture each in `root`, and its data.yaml."""
    for i, split in enumerate(("train", "valid")):
        picture(root / split / "images" / f"{split}.png", 32, 32, seed=seed + i)
        (root / split / "labels").mkdir()
        (root / split / "labels" / f"{split}.txt").write_text(LINE)
    file = root / "data.yaml"
    file.write_bytes(body if isinstance(body, bytes) else body.encode())
    return file


def folders(data):
    return {split: place.images[0].relative_to(data.path).as_posix() for split, place in data.splits.items()}


NAMES = "nc: 1\nnames: ['ship']\n"
PLAIN = f"train: train/images\nval: valid/images\n{NAMES}"
WRITTEN = {  # what a YAML says -> a part of the line that tells of it
    "as it is": (PLAIN, ""),
    "two dots": (
        f"train: ../train/images\nval: ../valid/images\n{NAMES}",
        "../train/images: not taken as it is written",
    ),
    "two dots and a section": (
        f"train: ../train/images\nval: ../valid/images\n{NAMES}roboflow:\n  workspace: w\n  version: 1\n",
        "not used: roboflow",
    ),
    "a test split that is not there": (f"{PLAIN}test: ../test/images\n", "test: left out"),
    "a folder of all sets": (f"path: ../datasets/set\n{PLAIN}", "path: ../datasets/set is not there"),
    "a script": (f"{PLAIN}download: https://example.org/set.zip\n", "download: is never run"),
    "another machine": (f"train: /content/set/train/images\nval: /content/set/valid/images\n{NAMES}", "/content/set"),
    "Windows": (f"train: C:\\sets\\set\\train\\images\nval: ..\\valid\\images\n{NAMES}", "C:\\sets"),
    "blanks": (f"train: 'train/images  '\nval: valid/images/   \n{NAMES}", ""),
    "no names": ("train: train/images\nval: valid/images\nnc: 1\n", "class_0"),
    "what others say of it": (f"{PLAIN}license: MIT\nauthor: x\ndate: 2026-11-25\n", "not used: license, author, date"),
    "bands": (f"{PLAIN}channels: 4\n", "channels: 4: not used"),
    "a byte order mark and Windows' lines": (b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(), ""),
    "two bytes a letter": (PLAIN.encode("utf-16"), ""),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_exports_are_read_as_they_are(tmp_path, capsys, kind):
    body, told = WRITTEN[kind]
    data = spec.load(exported(tmp_path / "set", body))
    assert folders(data) == {"train": "train/images", "val": "valid/images"}
    assert [data.read(split).file_names for split in ("train", "val")] == [["train.png"], ["valid.png"]]
    assert len(data.read("train").labels) == 1 and len(data.names) == 1
    said = capsys.readouterr().err
    assert told in said if told else not said


def test_what_an_export_means_by_two_dots_comes_first_in_an_export_only(tmp_path, capsys):
    """There is a train/images above the set as well, of another set."""
    body = f"train: ../train/images\nval: ../valid/images\n{NAMES}"
    exported(tmp_path, "", seed=5)
    plain = spec.load(exported(tmp_path / "set", body))
    assert os.path.samefile(plain.image_dir("train"), tmp_path / "train" / "images")
    assert "there is" in capsys.readouterr().err
    (tmp_path / "set" / "data.yaml").write_text(body + "roboflow: {workspace: w}\n")
    export = spec.load(tmp_path / "set" / "data.yaml")
    assert export.image_dir("train") == tmp_path / "set" / "train" / "images"


def test_what_is_not_there_stays_as_it_is_written(tmp_path):
    file = exported(tmp_path / "set", f"train: ../no/images\nval: ../nor/images\ntest: ../neither\n{NAMES}")
    data = spec.load(file)
    assert set(data.splits) == {"train", "val", "test"}
    with pytest.raises(UserError, match=r"train: no such image folder: .*\.\./no/images"):
        data.must_exist()
    (tmp_path / "set" / "images").mkdir()  # one word that fits is not enough
    assert find([tmp_path / "set"], "/content/other/images") == (tmp_path / "set" / "/content/other/images", False)
    assert list(meant("..")) == [] and list(meant("")) == []


@pytest.mark.parametrize("root", ["/home/someone/sets/x", "D:\\sets\\x"])
def test_the_root_of_another_machine_is_not_guessed(tmp_path, root):
    """It may be a disk that is not mounted, and what lies beside the YAML an older copy."""
    data = spec.load(exported(tmp_path / "set", f"path: {root}\n{PLAIN}"))
    with pytest.raises(UserError, match=r"the data are not in .*; there are such data beside the YAML"):
        data.read("train")


def test_unknown_keys_stay_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"unknown key 'nmaes'; did you mean 'names'\?") as caught:
        spec.load(exported(tmp_path, PLAIN + "nmaes: [a]\n"))
    assert "roboflow" not in str(caught.value)


def test_labels_with_key_points(tmp_path):
    file = exported(tmp_path, PLAIN + "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n")
    label = tmp_path / "train" / "labels" / "train.txt"
    label.write_text("0 0.5 0.5 0.25 0.25 0.1 0.1 2 0.9 0.9 1\n" + LINE)
    assert spec.load(file).read("train").boxes.tolist() == [[12, 12, 20, 20]] * 2
    label.write_text("0 0.5 0.5 0.25 0.25 0.1 0.1 2\n")
    with pytest.raises(UserError, match=r"train\.txt:1: expected `class cx cy w h`, found 8 columns"):
        spec.load(file).read("train")


@pytest.mark.parametrize(
    ("line", "guessed"),
    [
        ("./train/images/train.png", False),
        ("train/images/train.png  ", False),
        ("../train/images/train.png", True),
        (".\\train\\images\\train.png", True),
        ("/home/someone/set/train/images/train.png", True),
        ("C:\\set\\train\\images\\train.png", True),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_images(tmp_path, capsys, line, guessed, encoding):
    file = exported(tmp_path, f"train: train.txt\nval: valid/images\n{NAMES}")
    (tmp_path / "train.txt").write_text(f"# a comment\r\n\r\n{line}\r\n", encoding=encoding, newline="")
    found = spec.load(file).read("train")
    assert found.file_names == ["train/images/train.png"] and len(found.labels) == 1
    assert ("1 lines are not taken as they are written" in capsys.readouterr().err) == guessed


def test_a_list_that_is_no_text(tmp_path):
    file = exported(tmp_path, f"train: train.txt\nval: valid/images\n{NAMES}")
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"train\.txt: not readable as a list in UTF-8"):
        spec.load(file).read("train")


def test_links_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "set" / "a" / "x.png", 8, 8)
    picture(tmp_path / "other" / "y.png", 8, 8)
    os.symlink(tmp_path / "other", tmp_path / "set" / "link")
    os.symlink(tmp_path / "set", tmp_path / "set" / "a" / "up")
    assert images.list_images(tmp_path / "set") == ["a/x.png", "link/y.png"]


def test_lines_may_be_relative_to_their_list(tmp_path, capsys):
    file = exported(tmp_path, f"train: train/list.txt\nval: valid/images\n{NAMES}")
    (tmp_path / "train" / "list.txt").write_text("images/train.png\nvalid/images/valid.png\n")
    assert spec.load(file).read("train").file_names == ["train/images/train.png", "valid/images/valid.png"]
    assert "such as images/train.png as" in capsys.readouterr().err


def test_told_once(tmp_path, capsys):
    file = data_yaml(tmp_path / "d.yaml", train=".", names=["a"], download="x")
    spec.load(file)
    spec.load(file)
    assert capsys.readouterr().err.count("download: is never run") == 1
