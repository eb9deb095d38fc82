"""anchors: auto and constant: auto are settled from the training objects, and a checkpoint keeps what was settled."""

import re

import pytest
import torch

from tests.assigners.test_parity import GRID, OBJECTS, SIZE
from tests.engine.test_engine import RUN, TINY
from tinyyolo import Model
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.auto import (
    coverage,
    describe,
    grid_of,
    is_auto,
    mean_offsets,
    object_boxes,
    object_sizes,
    per_cell,
    settle,
    uses_simd,
)
from tinyyolo.detectors.build import build_model

SIMD = {"type": "threshold", "similarity": "simd", "m": "auto", "n": "auto"}


def spec_with(**head):
    return load_model_yaml("tinyyolo-n.yaml", {**TINY, **{f"head.{k}": v for k, v in head.items()}})


@pytest.mark.parametrize(("name", "counts"), [("tinyyolo-n.yaml", [3, 2, 3]), ("tinyyolo-n-p5.yaml", [3, 2, 2, 2])])
def test_builds_before_there_are_data(name, counts):
    model = build_model(load_model_yaml(name, {"head.anchors": "auto", "head.constant": "auto"}), 2)
    assert model.yaml["head"]["anchors"] == "auto", "stays open until training"
    assert model.bbox_head.grid.per_cell == counts == per_cell(len(counts)), "as many as the YAML itself has"
    assert [len(level) for level in load_model_yaml(name)["head"]["anchors"]] == counts
    settled = settle(model.yaml)
    assert list(grid_of(settled["head"]).strides) == list(model.bbox_head.grid.strides) == [4, 8, 16, 32][: len(counts)]
    assert [int(n) for n in re.findall(r"at stride (\d+)", describe(settled))] == [4, 8, 16, 32][: len(counts)]


@pytest.mark.parametrize("side", [5.0, 12.0, 40.0])
def test_fit_follows_the_objects(side):
    spec = settle(spec_with(anchors="auto", constant="auto"), torch.full((50, 2), side))
    assert spec["head"]["constant"] == side and not is_auto(spec)
    sizes = torch.tensor([size for level in spec["head"]["anchors"] for size in level])
    best = sizes[(sizes - side).abs().sum(1).argmin()]
    torch.testing.assert_close(best, torch.full_like(best, side), rtol=0.01, atol=0.01)
    assert (sizes - side).abs().max() < 0.1 * side, "no anchor is wasted on sizes that there are not"


def test_sizes_are_those_of_the_network_input():
    boxes = torch.tensor([[0.0, 0, 10, 20]])
    torch.testing.assert_close(object_sizes(boxes, torch.tensor([[512, 640]]), 320), torch.tensor([[5.0, 10]]))


def test_training_settles_and_keeps(tiny_set, caplog):
    keys = {"head.anchors": "auto", "head.constant": "auto", "head.assigner": SIMD}
    model = Model("tinyyolo-n.yaml", overrides={**TINY, **keys})
    with caplog.at_level("INFO", "ultralytics"):
        model.train(data=tiny_set, **RUN)
    spec = Model(model.ckpt_path).model.yaml
    assert not is_auto(spec)
    assert 4 <= spec["head"]["constant"] <= 9, "squares of 4 to 9 px"
    smallest = min(w for level in spec["head"]["anchors"] for w, _ in level)
    assert 3 < smallest < 10
    kept = spec["head"]["assigner"]
    assert 0.5 < kept["m"] < 10 and 0.5 < kept["n"] < 10 and kept["m"] != 1
    assert f"SimD with m = {kept['m']:g}, n = {kept['n']:g}: " in caplog.text


def images_of(*cases):
    return [(SIZE, torch.from_numpy(OBJECTS[case])) for case in cases]


@pytest.mark.parametrize(
    ("cases", "m", "n"),  # a sum over all pairs of the authors' formula
    [
        (("one",), 5.577335617705476, 7.259635676647844),
        (("tiny2px", "empty"), 7.293150594697546, 6.716635499538795),
        (tuple(OBJECTS), 5.345993353273231, 5.3705384246851855),
    ],
)
def test_mean_offsets_of_simd(cases, m, n):
    assert mean_offsets(GRID, images_of(*cases)) == pytest.approx((m, n), rel=1e-6)


def test_mean_offsets_by_hand():
    # Centres of anchors at 4 and 12 px of 4 and 8 px width, 4 and 2 px height; an object of 6 x 2 px at (5, 4).
    grid = AnchorGrid((8,), sizes=[[(4, 4), (8, 2)]], center_offset=0.5)
    m, n = mean_offsets(grid, [((8, 16), torch.tensor([[2.0, 3, 8, 5]]))])
    assert (m, n) == pytest.approx(((1 / 10 + 7 / 10 + 1 / 14 + 7 / 14) / 4, 0.0))
    with pytest.raises(UserError, match="m=auto, n=auto: there are no objects"):
        mean_offsets(grid, [((8, 16), torch.zeros(0, 4))])


def test_settled_offsets_stand_in_the_section_and_the_line_says_what_they_do():
    spec = load_model_yaml("faster-rcnn-r50-simd", {"rpn.assigner.m": "auto", "rpn.assigner.n": "auto"})
    assert is_auto(spec) and uses_simd(spec) and not uses_simd(load_model_yaml("faster-rcnn-r50"))
    open_yet = settle(spec)["rpn"]["assigner"]
    assert (open_yet["m"], open_yet["n"]) == (1, 1)
    settled = settle(spec, None, images_of("n100"))
    assert (settled["rpn"]["assigner"]["m"], settled["rpn"]["assigner"]["n"]) == (5.441, 5.482)
    assert not is_auto(settled)
    line = coverage(settled, images_of("n100", "empty"))
    assert line.startswith("SimD with m = 5.441, n = 5.482: 5.0% of 100 objects have an anchor of 0.3 or more")
    # 479 of 500 have none
    set_ = load_model_yaml("faster-rcnn-r50-simd", {"rpn.assigner.m": 6.13, "rpn.assigner.n": 4.59})
    assert ": 4.2% of 500 objects" in coverage(set_, images_of("n500_int"))
    half = settle(load_model_yaml("faster-rcnn-r50-simd", {"rpn.assigner.n": "auto"}), None, images_of("n100"))
    assert (half["rpn"]["assigner"]["m"], half["rpn"]["assigner"]["n"]) == (1, 5.482)
    with pytest.raises(UserError, match="m=auto, n=auto: only for assigners of anchors"):
        settle({"roi": {"assigner": SIMD}}, None, images_of("n100"))
    assert describe(load_model_yaml("retinanet-r18-nwdrka", {"head.anchors": "auto"})) == "", (
        "it is refused as it is built"
    )


def test_where_objects_lie_in_the_network_input():
    # 640 x 512 px at half the size lies in the middle of 320 px; an image cut into windows of 100 px, at twice the size
    boxes = torch.tensor([[0.0, 0, 10, 20], [110.0, 30, 114, 40]])
    found = object_boxes(boxes, torch.tensor([[512, 640], [100, 100]]), 320)
    expected = torch.tensor([[0.0, 32, 5, 42], [32.0, 96, 44.8, 128]])
    torch.testing.assert_close(found, expected)
