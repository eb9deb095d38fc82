"""The paper's detectors against outputs of the authors' code: weights filled from their names, one random image."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.weights import load_reference

GOLDEN = json.loads((Path(__file__).parent.parent / "parity" / "detectors.json").read_text())
RAN = ("faster-rcnn-r50-nwdrka", "cascade-rcnn-r50-nwdrka")
SIZE = (128, 128)
FEATURES, BOXES, SCORES, LOSSES, GRADIENTS = 1e-5, 1e-3, 1e-5, 1e-4, 1e-3


def filled(state):
    """Name -> tensor with values drawn from the name: scaled by fan-in, norms near 1, biases small."""
    out = {}
    for name, tensor in state.items():
        shape, leaf = tuple(tensor.shape), name.rpartition(".")[2]
        z = np.asarray(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape))
        if leaf == "num_batches_tracked":
            z = np.zeros(())
        elif leaf == "running_var":
            z = 1 + 0.1 * abs(z)
        elif leaf == "running_mean":
            z = 0.1 * z
        elif len(shape) > 1:
            z = z / np.sqrt(np.prod(shape[1:]))
        else:
            z = 0.05 * z if leaf == "bias" else 1 + 0.1 * z
        out[name] = torch.from_numpy(np.asarray(z, np.float32)).to(tensor.dtype)
    return out


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


def ours(name):
    """Our name of a loss from the authors': 'loss_rpn_bbox' -> 'rpn_box', 's1.loss_cls' -> 'roi1_cls'.

    Examples:
        >>> ours("loss_rpn_bbox"), ours("loss_cls"), ours("s1.loss_bbox")
        ('rpn_box', 'roi_cls', 'roi1_box')
    """
    stage, _, kind = name.removeprefix("loss_").rpartition("loss_")
    kind = kind.replace("bbox", "box")
    return kind if kind.startswith("rpn") else f"roi{stage.strip('s.')}_{kind}"


def targets():
    return [{"boxes": torch.tensor(GOLDEN["gt_boxes"]), "labels": torch.tensor(GOLDEN["gt_labels"])}]


def check(found, golden, name):
    flat = found.flatten().double().numpy()
    assert list(found.shape) == golden["shape"], name
    bound = FEATURES * golden["max"]
    np.testing.assert_allclose(flat[golden["at"]], golden["values"], atol=bound, rtol=0, err_msg=name)
    np.testing.assert_allclose(flat.mean(), golden["mean"], atol=bound, rtol=0, err_msg=name)
    np.testing.assert_allclose(np.sqrt((flat**2).mean()), golden["rms"], atol=bound, rtol=0, err_msg=name)
    np.testing.assert_allclose(abs(flat).max(), golden["max"], atol=bound, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", GOLDEN["names"])
def test_names_shapes_and_counts(name):
    golden, detector = GOLDEN["names"][name], build_model(load_model_yaml(name)).train()
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in sorted(detector.state_dict().items()))
    assert len(detector.state_dict()) == golden["tensors"]
    assert zlib.crc32(lines.encode()) == golden["crc32"]
    assert sum(p.numel() for p in detector.parameters()) == golden["parameters"]
    frozen = sorted(key for key, p in detector.named_parameters() if not p.requires_grad)
    assert len(frozen) == golden["without_gradient"]
    assert zlib.crc32("\n".join(frozen).encode()) == golden["no_grad_crc32"]


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
    ((boxes, scores, labels),) = detector.detect(maps, SIZE)
    rows = torch.cat([boxes, scores[:, None]], 1).double().numpy()
    assert [int((labels == c).sum()) for c in range(8)] == [g["count"] for g in golden["detections"]]
    for c, expected in enumerate(golden["detections"]):
        found = rows[(labels == c).numpy()]
        np.testing.assert_allclose(found[:2, :4], np.array(expected["first"])[:, :4], atol=BOXES, rtol=0)
        np.testing.assert_allclose(found[:2, 4], np.array(expected["first"])[:, 4], atol=SCORES, rtol=0)
        np.testing.assert_allclose(found.sum(), expected["sum"], rtol=FEATURES)


def test_losses_and_gradients(case):
    golden, detector, image, _, _ = case
    detector.train()
    detector.zero_grad()
    losses = detector.losses(detector.neck(detector.backbone(image)), targets(), SIZE, sample=False)
    expected = {ours(name): value for name, value in golden["losses"].items()}
    assert set(losses) == set(expected)
    for name, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[name], rtol=LOSSES, err_msg=name)
    total = sum(losses.values())
    np.testing.assert_allclose(total.item(), golden["loss"], rtol=LOSSES)
    total.backward()
    norms = {name: p.grad.norm().item() for name, p in detector.named_parameters() if p.grad is not None}
    for name, expected in golden["grad_norm"].items():
        np.testing.assert_allclose(norms[name], expected, rtol=GRADIENTS, err_msg=name)
    np.testing.assert_allclose(np.linalg.norm(list(norms.values())), golden["grad_norm_total"], rtol=GRADIENTS)
    without = {name for name, p in detector.named_parameters() if p.grad is None}
    assert without == {name for name, p in detector.named_parameters() if not p.requires_grad}
