"""anchors: auto and constant: auto are settled from the training objects, and a checkpoint keeps what was settled."""

import pytest
import torch

from tests.engine.test_engine import RUN, TINY
from tinyyolo import Model
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.auto import DEFAULT_ANCHORS, is_auto, object_sizes, settle
from tinyyolo.detectors.build import build_model


def spec_with(**head):
    return load_model_yaml("tinyyolo-n.yaml", {**TINY, **{f"head.{k}": v for k, v in head.items()}})


def test_builds_before_there_are_data():
    model = build_model(spec_with(anchors="auto", constant="auto"), 2)
    assert model.yaml["head"]["anchors"] == "auto", "stays open until training"
    assert model.bbox_head.grid.per_cell == [len(level) for level in DEFAULT_ANCHORS]


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


def test_training_settles_and_keeps(tiny_set):
    model = Model("tinyyolo-n.yaml", overrides={**TINY, "head.anchors": "auto", "head.constant": "auto"})
    model.train(data=tiny_set, **RUN)
    spec = Model(model.ckpt_path).model.yaml
    assert not is_auto(spec)
    assert 4 <= spec["head"]["constant"] <= 9, "squares of 4 to 9 px"
    smallest = min(w for level in spec["head"]["anchors"] for w, _ in level)
    assert 3 < smallest < 10
