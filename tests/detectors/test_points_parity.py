"""The anchor-free rows against outputs of the authors' code: weights filled from their names, one random image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.golden import (
    assert_detections,
    assert_learns,
    assert_names,
    assert_the_rest_is_frozen,
    check,
    filled,
)
from tinyyolo.boxes.coders import side_distances
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.weights import load_reference

GOLDEN = json.loads((Path(__file__).parent.parent / "parity" / "points.json").read_text())
RAN = ("fcos-r50", "fcos-r50-center", "reppoints-r50")
SIZE, LOSSES = (128, 128), 1e-5
KINDS = {"fcos": ("cls", "reg", "ctr"), "reppoints": ("cls", "pts_init", "pts_refine")}
OURS = {"loss_cls": "cls", "loss_bbox": "box", "loss_centerness": "centerness"}
OURS |= {"loss_pts_init": "init", "loss_pts_refine": "box"}


def targets():
    return [{"boxes": torch.tensor(GOLDEN["gt_boxes"]), "labels": torch.tensor(GOLDEN["gt_labels"])}]


@pytest.fixture(scope="module", params=RAN)
def case(request):
    """(golden values, detector, image, neck maps, head outputs, kinds of these)."""
    detector = build_model(load_model_yaml(request.param))
    assert not load_reference(detector, {"state_dict": filled(detector.state_dict())}).kept
    image = torch.from_numpy(np.random.RandomState(0).standard_normal((1, 3, *SIZE)).astype(np.float32))
    with torch.no_grad():
        maps = detector.neck(detector.backbone(image))
        found = detector.bbox_head(maps)
    assert_names(detector, GOLDEN["names"][request.param])
    return GOLDEN[request.param], detector, image, maps, found, KINDS[request.param.partition("-")[0]]


@pytest.mark.parametrize("name", sorted(set(GOLDEN["names"]) - set(RAN)))
def test_names_shapes_and_counts(name):
    assert_names(build_model(load_model_yaml(name)), GOLDEN["names"][name])


def test_maps(case):
    golden, _, _, maps, found, kinds = case
    groups = {"neck": maps, **{f"head_train_{kind}": found[i] for i, kind in enumerate(kinds)}}
    assert len(golden["maps"]) == sum(map(len, groups.values()))
    for group, levels in groups.items():
        for i, x in enumerate(levels):
            check(x, golden["maps"][f"{group}/{i}"], f"{group}/{i}")


def same(index, expected):
    positive = (index >= 0).nonzero()[:, 0]
    assert positive.tolist() == expected["pos"]
    assert index[positive].tolist() == expected["gt"]
    assert (index == -2).nonzero()[:, 0].tolist() == expected["ignored"]


def test_assignments(case):
    golden, detector, _, maps, found, kinds = case
    head = detector.bbox_head
    index = head.gt_index(maps, targets(), SIZE)
    same(index[0], golden["assign"][0])
    points, strides = head.points(maps, SIZE)
    if "pts_init" in kinds:
        first = torch.cat([x.flatten(2) for x in found[1]], 2).transpose(1, 2)
        boxes = head.moment_box(first) * strides + points.repeat(1, 2)
        same(head.refined_index(boxes.detach(), targets(), maps, SIZE)[0], golden["assign"][1])
    else:
        learnt = head.learnt(index, targets())
        expected = side_distances(points[learnt.point], learnt.boxes)
        check(expected / (strides[learnt.point] if head.strided else 1), golden["targets"], "targets")


@pytest.mark.parametrize(("key", "times"), [("detections", 1), ("detections_x40", 40)])
def test_detections(case, key, times, monkeypatch):
    """Of FCOS also with distances 40 times as long, so that boxes suppress each other."""
    golden, detector, _, maps, _, kinds = case
    if key not in golden:
        assert "reg" not in kinds
        return
    decode = detector.bbox_head.decode
    monkeypatch.setattr(detector.bbox_head, "decode", lambda points, level, x: decode(points, level, x * times))
    assert_detections(detector.detect(maps, SIZE), golden[key])


def test_losses_and_gradients(case):
    golden, detector, image, _, _, _ = case
    detector.train()
    detector.zero_grad()
    losses = detector.losses(detector.neck(detector.backbone(image)), targets(), SIZE)
    norms = assert_learns(detector, losses, golden, OURS.get, LOSSES)
    assert all(norms[name] == 0 for name in golden["zero_grad"])
    assert_the_rest_is_frozen(detector)
