"""`data stats`: Tables 1 and 2 and Fig. 5 of the paper for a set whose numbers are known by hand."""

import json

import cv2
import numpy as np
import pytest

from tests.support.data_sets import annotation, clean_set, coco, data_yaml
from tinyyolo.analysis import stats as command
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.datasets.stats import numbers as stats

KINDS = [(1, "ship"), (2, "car"), (3, "bus"), (9, "region")]


def by_hand(tmp_path, rows, images=((1, "a.png", 100, 50), (2, "b.png", 200, 200)), name="a"):
    path = coco(tmp_path / f"{name}.json", list(images), rows, KINDS)
    return coco_json.read(path, ["ship", "car", "bus"], ["region"])


ROWS = [
    (1, 1, 1, [0, 0, 4, 4]),
    (2, 1, 1, [0, 0, 16, 4]),
    (3, 1, 2, [0, 0, 32, 8]),
    (4, 2, 2, [0, 0, 32, 32]),
    annotation(5, 2, 2, [0, 0, 64, 64]),
    (6, 2, 9, [0, 0, 100, 100]),
]


def test_numbers_by_hand(tmp_path):
    report = stats.collect({"train": by_hand(tmp_path, ROWS)})
    row = report["splits"]["train"]
    assert (row["images"], row["boxes"], row["ignore_regions"]) == (2, 5, 1)
    assert row["classes"] == {"ship": 2, "car": 3, "bus": 0}
    sizes = np.array([4, 8, 16, 32, 64.0])
    assert row["size"]["mean"] == pytest.approx(24.8) and row["size"]["std"] == pytest.approx(sizes.std())
    assert (row["size"]["median"], row["size"]["q0"], row["size"]["q100"]) == (16, 4, 64)
    assert row["size_with_ignore_regions"]["mean"] == pytest.approx(224 / 6)
    relative = [4 / 5000**0.5, 8 / 5000**0.5, 16 / 5000**0.5, 32 / 200, 64 / 200]
    assert row["relative_size"]["mean"] == pytest.approx(np.mean(relative))
    assert row["relative_size"]["std"] == pytest.approx(np.std(relative))
    assert row["shares"] == {"very tiny": 0.2, "tiny": 0.2, "small": 0.2, "medium": 0.2, "large": 0.2}
    assert row["per_image"]["mean"] == 2.5 and row["per_image"]["q100"] == 3
    assert row["aspect"]["median"] == 1.0
    assert row["size_by_class"]["car"]["count"] == 3 and row["size_by_class"]["bus"]["mean"] is None


def test_sizes_after_resizing(tmp_path):
    row = stats.collect({"train": by_hand(tmp_path, ROWS)}, imgsz=100)["splits"]["train"]
    assert row["size"]["mean"] == pytest.approx(np.mean([4, 8, 16, 16, 32]))
    assert row["relative_size"]["q100"] == pytest.approx(64 / 200)  # does not depend on it
    assert row["image_size_hw"]["largest"] == [100, 100]


def test_splits_of_one_file_count_once(tmp_path):
    train, test = by_hand(tmp_path, ROWS), by_hand(tmp_path, ROWS[:1], name="b")
    report = stats.collect({"train": train, "val": test, "test": test})
    assert report["all"]["boxes"] == 6 and list(report["splits"]) == ["train", "val", "test"]


@pytest.mark.parametrize("rows", [[], [(6, 2, 9, [0, 0, 100, 100])]])
def test_no_objects(tmp_path, rows):
    report = stats.collect({"train": by_hand(tmp_path, rows)})
    assert report["all"]["size"]["mean"] is None and report["all"]["shares"]["tiny"] == 0
    assert report["advice"] == {"words": ["no objects: nothing to advise"]}
    assert "  -" in command.in_words(report)


def uniform(tmp_path, side, count=10, size=800):
    rows = [(i + 1, 1, 1, [0, 0, side, side]) for i in range(count)]
    return stats.collect({"train": by_hand(tmp_path, rows, [(1, "a.png", size, size)])})["advice"]


@pytest.mark.parametrize(
    ("side", "count", "size", "expected"),
    [
        (12, 10, 800, {"imgsz": 800, "tile": False, "p2": True, "scale": 3.0, "constant": 12, "max_det": 300}),
        (15.9, 10, 800, {"p2": True}),
        (16, 10, 800, {"p2": False, "scale": 4.0}),
        (40, 10, 790, {"imgsz": 800, "p2": False, "scale": 10.0, "constant": 40}),
        (12, 298, 512, {"imgsz": 512, "max_det": 500}),
        (12, 10, 4000, {"imgsz": 800, "tile": True}),
        (1, 10, 800, {"scale": 1.0}),
    ],
)
def test_advice_follows_the_numbers(tmp_path, side, count, size, expected):
    advice = uniform(tmp_path, side, count, size)
    assert {key: advice[key] for key in expected} == expected


def test_advice_says_why(tmp_path):
    words = "\n".join(uniform(tmp_path, 12)["words"])
    for part in (
        "imgsz=800: the images' own size; at half of it the median object of 12.0 px would be 6.0 px",
        "keep P2 (stride 4): 100 % of the objects are under 16 px, 2 cells of P3 (stride 8)",
        "rpn.anchors.scales=[3], so that the finest anchor is 12 px",
        "C: constant=12, the mean object size",
        "max_det=300: the fullest image holds 10 objects",
    ):
        assert part in words
    assert "P2 is not needed: only 0 % of the objects" in "\n".join(uniform(tmp_path, 40)["words"])
    assert "imgsz=1216 is worth a try" in "\n".join(uniform(tmp_path, 3)["words"])


def test_the_command_writes_numbers_and_a_figure(tmp_path, capsys):
    file = clean_set(tmp_path / "set")
    assert command.stats(str(file)) == 0
    report = json.loads((tmp_path / "runs" / "data-stats" / "set.json").read_text())
    assert report["all"]["classes"] == {"ship": 3, "car": 2} and report["splits"]["val"]["boxes"] == 2
    figure = cv2.imread(str(tmp_path / "runs" / "data-stats" / "set.png"))
    assert figure.shape[0] > 500 and figure.std() > 5
    out = capsys.readouterr().out
    assert "absolute size, px" in out and "train" in out and "C: constant=" in out
    assert command.stats(str(file), split="val", imgsz=128, figure=False, runs=str(tmp_path / "r")) == 0
    assert not (tmp_path / "r" / "set.png").exists()
    with pytest.raises(UserError, match="imgsz=-3"):
        command.stats(str(file), imgsz=-3)
    with pytest.raises(UserError, match="no split 'tes'"):
        command.stats(str(file), split="tes")


def test_an_empty_set_has_a_figure(tmp_path):
    coco(tmp_path / "e.json", [], [], KINDS[:2])
    file = data_yaml(tmp_path / "e.yaml", train=".", annotations={"train": "e.json"})
    assert command.stats(str(file), runs=str(tmp_path / "runs")) == 0 and (tmp_path / "runs" / "e.png").is_file()
    assert spec.load(file).names == {0: "ship", 1: "car"}


def test_boxes_of_one_size_up_to_rounding(tmp_path):
    """As boxes made around points are: numpy's own bins have no width then."""
    rows = [(i + 1, 1, 1, [x, x, 12.8, 12.8]) for i, x in enumerate((0.1, 3.3, 70.7, 900.1))]
    coco(tmp_path / "e.json", [(1, "a.png", 2000, 2000)], rows, KINDS[:1])
    file = data_yaml(tmp_path / "e.yaml", train=".", annotations={"train": "e.json"})
    assert len(set(stats.absolute_sizes(spec.load(file).read("train")).tolist())) > 1
    assert command.stats(str(file), runs=str(tmp_path / "runs")) == 0
    assert cv2.imread(str(tmp_path / "runs" / "e.png")).std() > 5
