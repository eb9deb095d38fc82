"""The anchors that rules give to one object of a picture, worked out by hand, and the figure of them."""

import json

import cv2
import numpy as np
import pytest
import torch

from tests.support.command import command
from tests.support.figures import words_of
from tinyyolo.analysis import anchors as module
from tinyyolo.analysis.anchors import Example, anchors_of, drawn_example, example_of, part_of
from tinyyolo.analysis.assignment import Candidate, Scene
from tinyyolo.assigners import RankingAssigner, ThresholdAssigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.config import UserError
from tinyyolo.datasets.formats import coco
from tinyyolo.datasets.views import blank

GRID = AnchorGrid(strides=(4, 8), sizes=[[(8, 8)], [(16, 16)]])
RULES = {"rka": Candidate(RankingAssigner(topk=1), GRID), "iou": Candidate(ThresholdAssigner(), GRID)}
NOTHING = torch.zeros(0, 4)


def example(boxes, index, size_hw=(32, 32), ignore=NOTHING):
    scene = Scene(size_hw, torch.tensor(boxes, dtype=torch.float32), ignore)
    return Example(scene, index, blank(size_hw, 9), 1.0, "a.png")


def numbers(anchors):
    """Box, stride, IoU and NWD of each."""
    return [[*anchor["box"], anchor["stride"], anchor["iou"], anchor["nwd"]] for anchor in anchors]


def test_anchors_by_hand():
    """The object is the anchor of cell (2, 2); its neighbours overlap it by 1/3, which is no positive."""
    found = anchors_of(RULES, example([[20, 20, 29, 29], [4, 4, 12, 12]], 1), constant=12.7)
    assert found["rules"]["rka"]["positive"] == found["rules"]["iou"]["positive"]
    assert numbers(found["rules"]["rka"]["positive"]) == [pytest.approx([4, 4, 12, 12, 4, 1, 1], abs=1e-3)]
    assert (found["title"], found["box"]) == ("a.png", [4, 4, 12, 12])


def test_an_object_without_a_positive_has_its_nearest():
    """2 x 2 px at (7, 7) in 8 x 8 at (4, 4): IoU 4 / 64, below every threshold; NWD exp(-sqrt(2 * 3²) / 6)."""
    found = anchors_of(RULES, example([[7, 7, 9, 9]], 0), constant=6.0)["rules"]["iou"]
    assert found["positive"] == []
    assert numbers([found["nearest"]]) == [
        pytest.approx([4, 4, 12, 12, 4, 1 / 16, float(np.exp(-np.sqrt(18) / 6))], abs=1e-3)
    ]


def test_a_large_picture_is_assigned_in_part_alike():
    """The part begins at whole cells, so the anchors are those of the whole picture."""
    boxes = [[100, 100, 108, 108], [3001, 3002, 3010, 3009], [3020, 3002, 3029, 3009]]
    large = example(boxes, 2, (4096, 5000), torch.tensor([[3000.0, 3000, 3005, 3005]]))
    part, index, start = part_of(large.scene, 2)
    assert (part.size_hw, index, start.tolist()) == ((2048, 2048), 1, [1536, 1536, 1536, 1536])
    assert part.boxes.tolist()[0] == [1465, 1466, 1474, 1473] and len(part.ignore) == 1
    cut, whole = anchors_of(RULES, large, 12.7), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LARGEST", 5000)
        whole = anchors_of(RULES, large, 12.7)
    assert cut["rules"]["rka"]["positive"] and cut == whole


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two pictures; sides 4, 6 and 30 px, so that the second is the median; the third touches the border."""
    monkeypatch.chdir(tmp_path)
    boxes = [(7, 1, [20, 20, 4, 4]), (8, 2, [20, 30, 6, 6]), (9, 1, [0, 10, 30, 30])]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in (1, 2)],
        "annotations": [{"id": k, "image_id": i, "category_id": 1, "bbox": b, "iscrowd": 0} for k, i, b in boxes],
        "categories": [{"id": 1, "name": "car"}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png"):
        cv2.imwrite(f"photos/{name}", np.full((48, 64, 3), 70, np.uint8))
    return tmp_path


def test_which_object_is_shown(data):
    found = coco.read("gt.json")
    chosen = example_of(found, data / "photos", None, None, None)
    assert chosen.title == "2.png" and chosen.box.tolist() == [20, 30, 26, 36]
    assert example_of(found, None, "1.png", None, None).box.tolist() == [20, 20, 24, 24]  # the other has no room
    large = example_of(found, None, None, 9, 128)
    assert large.scale == 2 and large.box.tolist() == [0, 20, 60, 80] and large.scene.size_hw == (128, 128)


def test_of_equal_boxes_the_last_is_shown(data):
    content = json.loads((data / "gt.json").read_text())
    content["annotations"] += [{**content["annotations"][1], "id": 10}]
    chosen = example_of(coco.from_content(content, "gt"), None, "2.png", 8, None)
    assert chosen.index == 1  # it alone keeps anchors


@pytest.fixture
def alone(monkeypatch):
    """The other figures of the command are left out, which take seconds; tests/analysis/test_analysis.py has them."""
    monkeypatch.setattr("tinyyolo.analysis.command.draw", lambda *_: [])


def test_the_figure(data, alone, capsys):
    given = {"images": "photos", "format": "svg", "assigners": "[max-iou,nwd-rka]", "out": "out"}
    command("analyze", "gt.json", **given)
    assert sorted(path.name for path in (data / "out").iterdir()) == ["analyze.json", "anchors.svg"]
    report = json.loads((data / "out/analyze.json").read_text())["anchors"]
    assert report["rules"]["max-iou"]["positive"] == [] and len(report["rules"]["nwd-rka"]["positive"]) >= 2
    words = words_of("out/anchors.svg")
    assert {"object", "other objects", "positive anchor, stride 4", "2.png", "object of 6 x 6 px"} <= {*words}
    assert "max-iou: no positive" in words and "anchor of the highest IoU, not positive" in words
    assert f"nwd-rka: {len(report['rules']['nwd-rka']['positive'])} positive" in words
    assert "figure: out/anchors.svg" in capsys.readouterr().out


def test_without_data_an_example_is_drawn(tmp_path, alone, capsys):
    one, same = drawn_example(), drawn_example()
    assert torch.equal(one.box, same.box) and 4 < float((one.box[2:] - one.box[:2]).prod().sqrt()) < 16
    command("analyze", image="a.png", out=tmp_path, assigners="nwd-rka", model="tinyyolo-n.yaml")
    assert cv2.imread(str(tmp_path / "anchors.png")) is not None
    assert "not used in analyze without data: image=" in capsys.readouterr().err


BAD = {
    "image=3.png": "image=3.png: no such image; .*1.png",
    "object=3": "object=3: gt.json has no such object",
    "format=gif": "format=gif: .*Choices: pdf, png, svg",
    "images=gone": "images=gone: no such folder",
}


@pytest.mark.parametrize("word", BAD)
def test_bad_input_is_one_line(word, data):
    with pytest.raises(UserError, match=BAD[word]) as caught:
        command("analyze", "gt.json", word, "out=out")
    assert "\n" not in str(caught.value) and not (data / "out").exists()
