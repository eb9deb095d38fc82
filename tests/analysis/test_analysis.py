"""The analyze command: counts by hand, figures of the paper's Figs. 1 and 2, files, mistakes."""

import json
import math

import numpy as np
import pytest
import torch

from tinyyolo.analysis.assignment import Candidate, Scene, alike, count_positives, scenes_of
from tinyyolo.analysis.command import analyze
from tinyyolo.analysis.similarity import shift_curves, worked_example
from tinyyolo.assigners import ATSSAssigner, HierarchicalAssigner, RankingAssigner, ThresholdAssigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.similarity import SIMILARITIES
from tinyyolo.config import UserError
from tinyyolo.datasets.formats import coco as coco_json

GRID = AnchorGrid(strides=(4, 8), scales=(2,), ratios=(1, 4))
NOTHING = torch.zeros(0, 4)


def squares(*corner_and_side):
    return torch.tensor([[x, y, x + s, y + s] for x, y, s in corner_and_side], dtype=torch.float32)


@pytest.fixture
def coco_file(tmp_path):
    """Three images of 64 x 48, the last without objects; a crowd region in the first; one box over the border."""
    boxes = [(1, [10, 10, 6, 6], 0), (1, [20, 20, 12, 12], 0), (1, [0, 0, 30, 30], 1), (2, [-4, 5, 8, 4], 0)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in (1, 2, 3)],
        "annotations": [
            {"id": n + 1, "image_id": i, "category_id": 5, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
            for n, (i, b, crowd) in enumerate(boxes)
        ],
        "categories": [{"id": 5, "name": "car"}],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def test_counts_by_hand():
    scenes = [
        Scene((32, 32), squares((4, 4, 8), (20, 20, 8), (9, 9, 1)), NOTHING),
        Scene((32, 32), squares((0, 0, 80)), NOTHING),
        Scene((64, 32), squares((4, 4, 8)), squares((0, 30, 40))),
    ]
    for assigner in (RankingAssigner(topk=1), ThresholdAssigner(), ATSSAssigner(4)):
        numbers = count_positives(Candidate(assigner, GRID), scenes)
        found = [assigner.on_grid(GRID, s.size_hw, s.boxes, s.ignore) for s in scenes]
        each = [one.per_object(len(s.boxes)) for one, s in zip(found, scenes, strict=True)]
        # bins: below 2, 2-8, 8-16, 16-32, 32-64, 64 and more; 8 px belongs to the bin that it opens
        assert numbers["objects"] == [1, 0, 3, 0, 0, 1]
        assert numbers["positives"] == [int(each[0][2]), 0, int(each[0][:2].sum() + each[2][0]), 0, 0, int(each[1][0])]
        without = [int((e == 0).sum()) for e in (each[0][2:], torch.cat((each[0][:2], each[2])), each[1])]
        assert [numbers["without"][i] for i in (0, 2, 5)] == without
        assert numbers["largest"][2] == max(int(each[0][:2].max()), int(each[2].max()))
        assert numbers["negatives"] == sum(len(one.negative_idx) for one in found)
        assert numbers["ignored"] == sum(len(one.ignored_idx) for one in found)
        assert sum(a["positives"] for a in numbers["anchors"]) == sum(numbers["positives"])


def test_says_which_anchors_are_taken():
    numbers = count_positives(
        Candidate(RankingAssigner(topk=1), GRID), [Scene((32, 32), squares((4, 4, 8), (16, 16, 16)), NOTHING)]
    )
    taken = {(a["stride"], a["width"], a["height"]): a["positives"] for a in numbers["anchors"]}
    assert taken == {(4, 8, 8): 1, (4, 4, 16): 0, (8, 16, 16): 1, (8, 8, 32): 0}


def test_inside_only_is_respected():
    scene = [Scene((32, 32), squares((0, 0, 4)), NOTHING)]
    everywhere, inside = (
        count_positives(Candidate(RankingAssigner(topk=1), GRID, only), scene) for only in (False, True)
    )
    assert inside["ignored"] > everywhere["ignored"]
    assert inside["negatives"] < everywhere["negatives"]


def test_scenes_are_clipped_scaled_and_padded(coco_file):
    plain = list(scenes_of(coco_json.read(coco_file)))
    assert [s.size_hw for s in plain] == [(64, 64), (64, 64)]  # 48 rows are padded; the empty image is left out
    assert plain[0].boxes.tolist() == [[10, 10, 16, 16], [20, 20, 32, 32]]
    assert plain[0].ignore.tolist() == [[0, 0, 30, 30]]
    assert plain[1].boxes.tolist() == [[0, 5, 4, 9]]
    doubled = list(scenes_of(coco_json.read(coco_file), 128))
    assert doubled[0].size_hw == (128, 128)
    assert doubled[0].boxes.tolist() == [[20, 20, 32, 32], [40, 40, 64, 64]]


def test_worked_example_is_the_papers():
    tiny, normal, larger = worked_example()
    assert [round(v, 2) for v in tiny["iou"]] == [0.54, 0.14]
    assert [round(v, 2) for v in normal["iou"]] == [0.97, 0.91]
    assert (normal["width"], normal["height"], larger["width"]) == (100, 160, 200)
    np.testing.assert_allclose(tiny["nwd"], normal["nwd"], atol=1e-6)  # the same shift, the same NWD


def test_shift_curves():
    curves = shift_curves(sides=(4, 32), shifts=(0, 1, 4, 20))
    assert set(curves["same"]) == set(curves["half"]) == set(SIMILARITIES)
    for name in SIMILARITIES:
        values = np.array(curves["same"][name])
        assert values.shape == (2, 4)
        assert (np.diff(values) <= 0).all()
    assert curves["same"]["iou"][0] == [1.0, pytest.approx(9 / 23), 0.0, 0.0]
    assert curves["same"]["nwd"][0] == curves["same"]["nwd"][1]  # scale balance
    assert curves["same"]["nwd"][0][1] == pytest.approx(math.exp(-math.sqrt(2) / 12.7), abs=1e-5)
    assert curves["half"]["iou"][1][:3] == [0.25, 0.25, 0.25]  # within the larger box IoU does not move
    assert curves["half"]["nwd"][1][0] > curves["half"]["nwd"][1][1]


def test_command_writes_tables_numbers_and_figures(coco_file, capsys, tmp_path):
    analyze(str(coco_file), out=str(tmp_path / "run"))
    report = json.loads((tmp_path / "run/analyze.json").read_text())
    assert (report["images"], report["objects"]) == (2, 3)
    assert list(report["assigners"]) == ["max-iou", "max-nwd", "nwd-rka"]  # the model's own is nwd-rka
    ranked = report["assigners"]["nwd-rka"]
    assert sum(ranked["positives"]) >= 6
    assert sum(ranked["without"]) == 0
    printed = capsys.readouterr().out
    for text in ("3 objects in 2 images", "positives for each object", "% of objects without any", "5x8", "max-iou"):
        assert text in printed
    for name in ("positives.png", "shift.png", "example.png", "anchors.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_command_without_data_shows_the_similarities(capsys, tmp_path):
    analyze(figures=False, out=str(tmp_path))
    report = json.loads((tmp_path / "analyze.json").read_text())
    assert "assigners" not in report
    assert len(report["shift"]["same"]) == len(SIMILARITIES)
    assert "5x8" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["analyze.json"]


def test_command_takes_models_assigners_and_constant(coco_file, tmp_path):
    def names(**options):
        analyze(str(coco_file), figures=False, out=str(tmp_path), **options)
        return json.loads((tmp_path / "analyze.json").read_text())

    assert list(names(assigners="max-iou,atss")["assigners"]) == ["max-iou", "atss"]
    mine = names(assigners={"mine": {"type": "ranking", "topk": 4}}, constant="auto")
    assert list(mine["assigners"]) == ["mine"]
    assert mine["constant"] == pytest.approx((6 + 12 + 4) / 3)
    assert sum(mine["assigners"]["mine"]["positives"]) >= 3 * 3
    fitted = names(model="tinyyolo-n.yaml", assigners=["nwd-rka"], **{"head.anchors": "auto"})
    assert all(a["width"] < 20 for a in fitted["assigners"]["nwd-rka"]["anchors"])
    both = names(model=["tinyyolo-n.yaml", "faster-rcnn-r50.yaml"], assigners=["nwd-rka"])
    assert list(both["assigners"]) == ["nwd-rka", "tinyyolo-n", "faster-rcnn-r50"]
    assert (
        both["assigners"]["nwd-rka"]["anchors"][0]["stride"] == both["assigners"]["tinyyolo-n"]["anchors"][0]["stride"]
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"assigners": ["max-iuo"]}, "did you mean 'max-iou'"),
        ({"assigners": {"mine": {"type": "ranking", "top": 4}}}, r"assigners.mine.top.*'topk'"),
        ({"model": "no-such-model.yaml"}, "no such file"),
        ({"constant": -1}, "constant=-1"),
        ({"constant": "big"}, "constant=big"),
        ({"imgsz": 0}, "imgsz=0"),
        ({"data": "another.yaml"}, "takes one data set"),
        ({"imgzs": 640}, "did you mean 'imgsz'"),
        ({"rpn.assigners": 1, "model": "tinyyolo-n.yaml"}, r"rpn\.assigners"),
    ],
)
def test_mistakes_are_one_line(coco_file, options, match):
    with pytest.raises(UserError, match=match) as caught:
        analyze(str(coco_file), **options)
    assert "\n" not in str(caught.value)


def test_data_without_objects_and_auto_without_data(coco_file, tmp_path):
    content = json.loads(coco_file.read_text()) | {"annotations": []}
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no image has objects"):
        analyze(str(empty))
    with pytest.raises(UserError, match="constant=auto needs data"):
        analyze(constant="auto")
    with pytest.raises(UserError, match=r"nowhere\.json"):
        analyze(str(tmp_path / "nowhere.json"))


def test_rfla_and_simd_stand_beside_the_others(coco_file, tmp_path, capsys):
    names = "max-iou,nwd-rka,rfla,rfla-wd,simd"
    models = ["faster-rcnn-r18-nwdrka.yaml", "faster-rcnn-r18-rfla.yaml", "faster-rcnn-r18-simd.yaml"]
    analyze(str(coco_file), model=models, assigners=names, figures=False, out=tmp_path)
    rows = json.loads((tmp_path / "analyze.json").read_text())["assigners"]
    assert set(rows) == {*names.split(","), *(name.removesuffix(".yaml") for name in models)}
    assert sum(rows["faster-rcnn-r18-rfla"]["positives"]) >= 3 * sum(rows["faster-rcnn-r18-rfla"]["objects"])
    assert {anchor["width"] for anchor in rows["faster-rcnn-r18-rfla"]["anchors"]} >= {17.5, 45.5}


def test_a_models_own_rule_is_no_second_row(coco_file, tmp_path):
    analyze(str(coco_file), model="faster-rcnn-r18-rfla", assigners=None, figures=False, out=tmp_path)
    rows = json.loads((tmp_path / "analyze.json").read_text())["assigners"]
    assert set(rows) == {"max-iou", "max-nwd", "nwd-rka", "faster-rcnn-r18-rfla"}
    one, same = (HierarchicalAssigner(topk=k) for k in ((3, 1), [3, 1]))
    assert alike(one, same) and not alike(one, HierarchicalAssigner(shrink=0.8)) and not alike(one, RankingAssigner())
    assert alike(RankingAssigner(positive_iou=0.5), RankingAssigner(positive_iou=0.5))
