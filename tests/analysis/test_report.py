"""Several detectors on one page: counts worked out by hand, what stands in the file, one line for bad input."""

import json

import cv2
import numpy as np
import pytest

from tests.support.command import command
from tests.support.figures import boxes_of, words_of
from tests.support.report_scene import DETECTIONS, NAMES, OBJECTS, SIDE, truth
from tinyyolo.config import UserError
from tinyyolo.evaluation import find_errors
from tinyyolo.evaluation.commands import result_names
from tinyyolo.plots import errors as page
from tinyyolo.plots.errors import error_page, shares

GREEN, BLUE, RED, GREY = "#00c853", "#2979ff", "#ff1744", "#9a9a9a"
PERFECT = [dict(record, score=0.9) for record in OBJECTS if "iscrowd" not in record]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Objects, two detectors and grey images; the commands run there."""
    monkeypatch.chdir(tmp_path)
    for name, content in {"gt": truth(), "old": DETECTIONS, "new": PERFECT}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "photos").mkdir()
    for name in NAMES.values():
        cv2.imwrite(str(tmp_path / "photos" / name), np.full((SIDE, SIDE, 3), 90, np.uint8))
    return tmp_path


def test_shares_by_hand():
    """4 objects of which 2 are found; 6 wrong: 1 beside, 1 of another class, 1 twice, 3 on background."""
    third, half = pytest.approx(1 / 6), pytest.approx(1 / 2)
    assert shares(find_errors(truth(), DETECTIONS, threshold=0.5)) == {
        "TP": (2, half),
        "FN": (2, half),
        "localisation": (1, third),
        "confusion": (1, third),
        "duplicate": (1, third),
        "background": (3, half),
    }
    assert shares(find_errors(truth(), [], threshold=0.5))["FN"] == (4, 1.0)
    assert shares(find_errors(truth(), PERFECT, threshold=0.5))["background"] == (0, 0.0)


def test_a_page_of_two_detectors(folder, capsys):
    command("report", gt="gt.json", dt="[old.json,new.json]", images="photos", out="fig9.svg", threshold=0.5, limit=2)
    words = words_of("fig9.svg")
    assert {"true positive (TP)", "false positive (FP)", "missed object (FN)", "ignore region", "old", "new"} <= {
        *words
    }
    # The first image has most errors, 5; the second 2 and an ignore region, which both detectors' rows show.
    assert [word for word in words if word.startswith("TP ")] == [
        *("TP 2, FP 4, FN 1", "TP 0, FP 1, FN 1", "TP 3, FP 0, FN 0", "TP 1, FP 0, FN 0")
    ]
    assert [word for word in words if word.endswith("%)")] == [
        *("2 (50%)", "2 (50%)", "1 (17%)", "1 (17%)", "1 (17%)", "3 (50%)"),
        *("4 (100%)", "0 (0%)", "0 (0%)", "0 (0%)", "0 (0%)", "0 (0%)"),
    ]
    assert boxes_of("fig9.svg") == {GREEN: 2 + 3 + 1, BLUE: 4 + 1, RED: 1 + 1, GREY: 2}
    printed = capsys.readouterr().out
    assert "Saved fig9.svg (2 detectors, 2 images)" in printed and "detector" in printed


def test_runs_are_given_as_folders(folder, capsys):
    for name, source in {"iou": "old.json", "nwd": "new.json"}.items():
        (folder / "runs" / name).mkdir(parents=True)
        (folder / source).rename(folder / "runs" / name / "predictions.json")
    command("report", gt="gt.json", dt="[runs/iou,runs/nwd]", out="a.svg", threshold=0.5, limit=0)
    assert {"iou", "nwd"} <= {*words_of("a.svg")}
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["iou", "4", "2"],
        ["nwd", "4", "4"],
    ]


def test_pdf_png_and_one_detector(folder):
    common = {"gt": "gt.json", "threshold": 0.5, "images": "photos", "limit": 1}
    command("report", dt="[old.json,new.json]", out="page", **common)
    assert (folder / "page/report.pdf").read_bytes().startswith(b"%PDF")
    command("report", dt="new.json", out="one.PNG", names="ours", **common)
    assert cv2.imread("one.PNG") is not None
    assert not (folder / "report.html").exists()


def test_images_are_chosen_by_name_and_drawn_without_files(folder):
    command("report", gt="gt.json", dt="[old.json,new.json]", out="a.svg", threshold=0.5, show="[third.png,empty.png]")
    assert [word for word in words_of("a.svg") if word.endswith(".png")] == ["third.png", "empty.png"]
    assert boxes_of("a.svg") == {BLUE: 1}


def test_a_part_of_a_large_image_is_the_same_in_every_row(monkeypatch):
    """Objects lie in two corners; the page shows the one where more of all detectors' boxes are."""
    objects = [{"image_id": 1, "category_id": 1, "bbox": [x, 10, 8, 8]} for x in (10, 30)]
    gt = {
        "images": [{"id": 1, "file_name": "a.png", "width": 4000, "height": 4000}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": objects,
    }
    far = [{"image_id": 1, "category_id": 1, "bbox": [x, 3900, 8, 8], "score": 0.9} for x in (3900, 3920, 3940, 3960)]
    found = [find_errors(gt, far[:some], threshold=0.5) for some in (4, 1)]
    crop = page.crop_of(found, 0, None)
    assert crop.x0 > 3000 and crop.y0 > 3000 and crop.pixels.shape[:2] == (crop.y1 - crop.y0, crop.x1 - crop.x0)
    assert [len(page.boxes_of(errors, 0, crop)["FP"]) for errors in found] == [4, 1]
    assert [len(page.boxes_of(errors, 0, crop)["FN"]) for errors in found] == [0, 0]


def test_no_image_at_all(tmp_path):
    error_page({"a": find_errors(truth(), DETECTIONS)}, {}, tmp_path / "a.svg")
    assert "background" in " ".join(words_of(tmp_path / "a.svg"))


def test_names_of_results(tmp_path):
    assert result_names(["a.json", "b.json"], ["ours", "theirs"]) == ["ours", "theirs"]
    assert result_names(["runs/x/predictions.json", "y.json"]) == ["x", "y"]
    assert result_names(["1/train.json", "2/train.json"]) == ["1/train", "2/train"]
    with pytest.raises(UserError, match="called 'train'"):
        result_names(["a/train.json", "b/train.json"], ["train", "train"])
    with pytest.raises(UserError, match="1 names for 2 files"):
        result_names(["a.json", "b.json"], "ours")


BAD = {
    "out=x.html": "out=x.html: of 2 files a figure is drawn; Choices: .pdf, .png, .svg, or a folder",
    "names=[a]": r"names=\['a'\]: 1 names for 2 files",
    "show=frist.png": "show=frist.png: no such image; did you mean 'first.png'",
    "images=absent": "images=absent: no such folder",
    "images=empty": "images=empty: has none of the images, such as 'first.png'",
    "limit=-1": "limit=-1: expected a whole number of at least 0",
}


@pytest.mark.parametrize("word", BAD)
def test_bad_input_is_one_line(word, folder):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=BAD[word]) as caught:
        command("report", "gt=gt.json", "dt=[old.json,new.json]", word)
    assert "\n" not in str(caught.value) and not list(folder.rglob("*.pdf"))


def test_what_is_not_used_is_told(folder, capsys):
    command("report", gt="gt.json", dt="old.json", out="a.svg", embed=True, missed=0.5)
    assert "not used in a figure: embed=, missed=" in capsys.readouterr().err
    command("report", gt="gt.json", dt="old.json", pngs=0, names="old")
    assert "not used in the page of one detector: names=" in capsys.readouterr().err
