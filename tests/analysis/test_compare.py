"""The command compare: its files in any order, pictures of what changed, three sets."""

import json

import cv2
import numpy as np
import pytest

from tests.evaluation.test_compare import first, second
from tests.support.command import command
from tests.support.figures import boxes_of, words_of
from tinyyolo.config import UserError
from tinyyolo.evaluation import compare
from tinyyolo.plots.changes import STYLES, most_changed

PREDICTED = [
    {"image_id": 1, "category_id": 1, "bbox": [10, 10, 6, 6], "score": 0.9},
    {"image_id": 2, "category_id": 1, "bbox": [60, 60, 40, 40], "score": 0.8},
    {"image_id": 2, "category_id": 1, "bbox": [5, 60, 40, 40], "score": 0.2},  # not shown: below .3
]
SAME, MOVED, RELABELLED, REMOVED, ADDED = (style.colour for style in STYLES.values())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {"old": first(), "new": second(), "found": PREDICTED}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "photos").mkdir()
    for name in "abcd":
        cv2.imwrite(f"photos/{name}.png", np.full((100, 100, 3), 90, np.uint8))
    return tmp_path


def test_predictions_may_stand_first(folder, capsys):
    command("compare", "old.json", "found.json", out="a")
    right = capsys.readouterr().out
    command("compare", "found.json", "old.json", out="b")
    swapped = capsys.readouterr().out
    told = "first: old.json (annotations); second: found.json (predictions)\n"
    assert right.startswith(told) and swapped == right.replace("a/", "b/")
    assert (folder / "a/compare.json").read_text() == (folder / "b/compare.json").read_text()


def test_two_label_sets_keep_their_order(folder, capsys):
    command("compare", "new.json", "old.json")
    assert capsys.readouterr().out.startswith("first: new.json (annotations); second: old.json (annotations)\n")
    changes = json.loads((folder / "runs/compare/compare.json").read_text())["changes"]["all"]
    assert changes == {"same": 1, "moved": 1, "relabelled": 1, "removed": 1, "added": 1}
    assert sorted(path.name for path in (folder / "runs/compare").iterdir()) == ["changes.json", "compare.json"]


def test_a_picture_of_what_changed(folder):
    """a.png has 1 box of each of same, moved, relabelled; b.png one removed and one added, hence it comes first."""
    command("compare", "old.json", "new.json", images="photos", format="svg", out="out", names="[v1,v2]")
    words = words_of("out/changes.svg")
    assert {"same", "moved", "relabelled", "removed", "added", "v1", "v2"} <= {*words}
    assert [word for word in words if word.endswith(".png")] == ["b.png", "a.png"]
    assert [word for word in words if word.startswith("same ")] == [
        *("same 0, moved 0, relabelled 0, removed 1", "same 1, moved 1, relabelled 1, removed 0"),
        *("same 0, moved 0, relabelled 0, added 1", "same 1, moved 1, relabelled 1, added 0"),
    ]
    shown = boxes_of("out/changes.svg")
    assert {colour: shown[colour] for colour in (MOVED, RELABELLED, REMOVED, ADDED)} == {
        MOVED: 2,
        RELABELLED: 2,
        REMOVED: 1,
        ADDED: 1,
    }
    assert {"v1 (4)", "v2 (4)"} <= {*words_of("out/sizes.svg")}


def test_images_with_more_changes_come_first():
    gt, other = first(), second()
    assert most_changed(compare(gt, other)["pairing"]).tolist() == [1, 0]
    other["annotations"].pop(3)  # nothing is added to b.png: one change in each, and in a.png one that moved too
    assert most_changed(compare(gt, other)["pairing"]).tolist() == [0, 1]


def test_three_sets(folder, capsys):
    """On the images that both label sets have: old 4 boxes, new 4, predicted 2; vt 1, 2, 1 of them, and m 0, 0, 1."""
    command("compare", "found.json", "old.json", "new.json", out="out", format="svg")
    printed = capsys.readouterr().out
    assert printed.startswith("first: old.json (annotations); second: new.json (annotations); third: found.json (pred")
    assert "Second against first" in printed and "Third against first" in printed
    written = json.loads((folder / "out/compare.json").read_text())
    assert written["second"]["changes"] == compare(first(), second())["changes"]
    assert written["third"]["changes"]["all"] == {"same": 1, "moved": 0, "relabelled": 0, "removed": 3, "added": 1}
    assert written["counts"] == {
        "all": {"first": 4, "second": 4, "third": 2},
        "vt": {"first": 1, "second": 2, "third": 1},
        "t": {"first": 2, "second": 1, "third": 0},
        "s": {"first": 1, "second": 1, "third": 0},
        "m": {"first": 0, "second": 0, "third": 1},
    }
    words = words_of("out/sizes.svg")
    assert {"old (4)", "new (4)", "found (2)", "vt", "0-8", "from 32"} <= {*words}
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["changes_second.json", "changes_third.json", "compare.json", "sizes.svg"]
    command("compare", "old.json", "new.json", "found.json", out="out", images="photos", limit=1)
    assert all(cv2.imread(f"out/changes_{place}.png") is not None for place in ("second", "third"))


def test_boxes_outside_the_named_sizes(folder):
    command("compare", "old.json", "new.json", "found.json", sizes="{vt: [0, 8]}", out="out")
    counts = json.loads((folder / "out/compare.json").read_text())["counts"]
    assert counts["other"] == {"first": 3, "second": 2, "third": 1}


BAD = {
    ("old.json",): "1 files given, two or three are needed",
    ("old.json",) * 4: "4 files given",
    ("found.json", "found.json"): "found.json and found.json are predictions .*; one file must be annotations",
    ("old.json", "new.json", "format=jpg"): "format=jpg: .*Choices: pdf, png, svg",
    ("old.json", "new.json", "limit=x"): "limit=x: expected a whole number",
    ("old.json", "new.json", "images=photos", "show=z.png"): "show=z.png: no such image",
    ("old.json", "new.json", "images=gone"): "images=gone: no such folder",
    ("old.json", "old.json", "images=photos"): "called 'old'|are called",
    ("old.json", "gone.json"): "gone.json",
}


@pytest.mark.parametrize("words", BAD, ids=" ".join)
def test_bad_input_is_one_line(words, folder):
    with pytest.raises(UserError, match=BAD[words]) as caught:
        command("compare", *words)
    assert "\n" not in str(caught.value) and not (folder / "runs").exists()


def test_what_is_not_used_is_told(folder, capsys):
    command("compare", "old.json", "new.json", names="[a,b]", show="a.png", limit=2, format="svg")
    told = capsys.readouterr().err
    assert "not used in what draws nothing: names=, format=" in told
    assert "not used in a comparison without images=: show=, limit=" in told
