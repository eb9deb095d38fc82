"""The paper's detectors against outputs of the authors' code: weights filled from their names, one random image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.golden import (
    BOXES,
    FEATURES,
    LOSSES,
    SCORES,
    assert_detections,
    assert_learns,
    assert_names,
    assert_the_rest_is_frozen,
    check,
    filled,
    ours,
)
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.weights import load_reference

GOLDEN = json.loads((Path(__file__).parent.parent / "parity" / "detectors.json").read_text())
RAN = ("faster-rcnn-r50-nwdrka", "cascade-rcnn-r50-nwdrka")
SIZE = (128, 128)


@pytest.fixture(scope="module", params=RAN)
def case(request):
    """(golden values, detector, image, backbone maps, neck maps)."""
    detector = build_model(load_model_yaml(request.param))
    report = load_reference(detector, {"state_dict": filled(detector.state_dict())})
    assert not report.kept
    image = np.random.RandomState(0).standard_normal((1, 3, *SIZE)).astype(np.float32)
    image = torch.from_numpy(image)
    with torch.no_grad():
        features = detector.backbone(image)
        maps = detector.neck(features)
    return GOLDEN[request.param], detector, image, features, maps


def targets():
    return [{"boxes": torch.tensor(GOLDEN["gt_boxes"]), "labels": torch.tensor(GOLDEN["gt_labels"])}]


@pytest.mark.parametrize("name", GOLDEN["names"])
def test_names_shapes_and_counts(name):
    golden, detector = GOLDEN["names"][name], build_model(load_model_yaml(name)).train()
    assert_names(detector, golden)


def test_maps(case):
    golden, detector, _, features, maps = case
    with torch.no_grad():
        logits, deltas = detector.rpn_head(maps)
    for group, found in (("backbone", features), ("neck", maps), ("rpn_cls", logits), ("rpn_reg", deltas)):
        expected = [value for key, value in golden["maps"].items() if key.split("/")[0] == group]
        assert len(expected) == len(found)
        for i, (x, brief) in enumerate(zip(found, expected, strict=True)):
            check(x, brief, f"{group}/{i}")


def test_proposals(case):
    golden, detector, _, _, maps = case
    with torch.no_grad():
        boxes, scores = detector.rpn_head.proposals(detector.rpn_head(maps), SIZE)
    found = torch.cat([boxes, scores[..., None]], 2)[scores >= 0].double().numpy()
    assert len(found) == golden["proposals"]["count"]
    for part, rows in (("first", found[:4]), ("last", found[-2:])):
        np.testing.assert_allclose(rows[:, :4], np.array(golden["proposals"][part])[:, :4], atol=BOXES, rtol=0)
        np.testing.assert_allclose(rows[:, 4], np.array(golden["proposals"][part])[:, 4], atol=SCORES, rtol=0)
    np.testing.assert_allclose(found.sum(), golden["proposals"]["sum"], rtol=FEATURES)


def test_box_heads(case):
    golden, detector, _, _, maps = case
    rois = torch.tensor(GOLDEN["rois"])
    heads = detector.roi_head.bbox_head
    with torch.no_grad():
        pooled = detector.roi_head.pool(maps, rois)
        for i, head in enumerate(heads if isinstance(heads, nn.ModuleList) else [heads]):
            logits, deltas = head(pooled)
            found = {"feats": pooled[: golden["maps"][f"roi/{i}/feats"]["shape"][0]], "cls": logits}
            for part, x in {**found, "reg": deltas.flatten(1)}.items():
                check(x, golden["maps"][f"roi/{i}/{part}"], f"roi/{i}/{part}")


def test_detections(case):
    golden, detector, _, _, maps = case
    assert_detections(detector.detect(maps, SIZE), golden["detections"])


def test_losses_and_gradients(case):
    golden, detector, image, _, _ = case
    detector.train()
    detector.zero_grad()
    losses = detector.losses(detector.neck(detector.backbone(image)), targets(), SIZE, sample=False)
    assert_learns(detector, losses, golden, ours, LOSSES)
    assert_the_rest_is_frozen(detector)
