"""The anchor-free rows against outputs of the authors' code: weights filled from their names, one random image."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.detectors.test_parity import BOXES, FEATURES, GRADIENTS, SCORES, check, filled
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


def assert_names(name, detector):
    """Names, shapes, numbers of parameters and those that do not learn."""
    golden = GOLDEN["names"][name]
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in sorted(detector.state_dict().items()))
    assert len(detector.state_dict()) == golden["tensors"]
    assert zlib.crc32(lines.encode()) == golden["crc32"]
    assert sum(p.numel() for p in detector.parameters()) == golden["parameters"]
    frozen = sorted(key for key, p in detector.named_parameters() if not p.requires_grad)
    assert len(frozen) == golden["without_gradient"]
    assert zlib.crc32("\n".join(frozen).encode()) == golden["no_grad_crc32"]


@pytest.fixture(scope="module", params=RAN)
def case(request):
    """(golden values, detector, image, neck maps, head outputs, kinds of these)."""
    detector = build_model(load_model_yaml(request.param))
    assert not load_reference(detector, {"state_dict": filled(detector.state_dict())}).kept
    image = torch.from_numpy(np.random.RandomState(0).standard_normal((1, 3, *SIZE)).astype(np.float32))
    with torch.no_grad():
        maps = detector.neck(detector.backbone(image))
        found = detector.bbox_head(maps)
    assert_names(request.param, detector)
    return GOLDEN[request.param], detector, image, maps, found, KINDS[request.param.partition("-")[0]]


@pytest.mark.parametrize("name", sorted(set(GOLDEN["names"]) - set(RAN)))
def test_names_shapes_and_counts(name):
    assert_names(name, build_model(load_model_yaml(name)))


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
    ((boxes, scores, labels),) = detector.detect(maps, SIZE)
    rows = torch.cat([boxes, scores[:, None]], 1).double().numpy()
    assert [int((labels == c).sum()) for c in range(8)] == [g["count"] for g in golden[key]]
    for c, expected in enumerate(golden[key]):
        found = rows[(labels == c).numpy()]
        np.testing.assert_allclose(found[:2, :4], np.array(expected["first"])[:, :4], atol=BOXES, rtol=0)
        np.testing.assert_allclose(found[:2, 4], np.array(expected["first"])[:, 4], atol=SCORES, rtol=0)
        np.testing.assert_allclose(found.sum(), expected["sum"], rtol=FEATURES)


def test_losses_and_gradients(case):
    golden, detector, image, _, _, _ = case
    detector.train()
    detector.zero_grad()
    losses = detector.losses(detector.neck(detector.backbone(image)), targets(), SIZE)
    assert set(losses) == {OURS[name] for name in golden["losses"]}
    for name, expected in golden["losses"].items():
        np.testing.assert_allclose(losses[OURS[name]].item(), expected, rtol=LOSSES, err_msg=name)
    total = sum(losses.values())
    np.testing.assert_allclose(total.item(), golden["loss"], rtol=LOSSES)
    total.backward()
    norms = {name: p.grad.norm().item() for name, p in detector.named_parameters() if p.grad is not None}
    for name, expected in golden["grad_norm"].items():
        np.testing.assert_allclose(norms[name], expected, rtol=GRADIENTS, err_msg=name)
    assert all(norms[name] == 0 for name in golden["zero_grad"])
    np.testing.assert_allclose(np.linalg.norm(list(norms.values())), golden["grad_norm_total"], rtol=GRADIENTS)
    without = {name for name, p in detector.named_parameters() if p.grad is None}
    assert without == {name for name, p in detector.named_parameters() if not p.requires_grad}
