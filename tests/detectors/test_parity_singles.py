"""YOLOv3 and SSD-512 against outputs of the authors' code; see test_parity. SSD's 512 px take half a minute: slow."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.golden import assert_detections, assert_learns, check, filled
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.weights import load_reference

GOLDEN = json.loads((Path(__file__).parent.parent / "parity" / "singles.json").read_text())
SIZES = {"yolov3-d53": (128, 128), "ssd512-vgg16": (512, 512)}
OURS = {"loss_cls": "cls", "loss_conf": "obj", "loss_xy": "xy", "loss_wh": "wh", "loss_bbox": "box"}
LOSSES = 1e-5
NARROW = {"yolov3-d53": {"backbone.width": 1}, "ssd512-vgg16": {"backbone.width": 1}}  # anchors know no width


def image_of(name):
    random = np.random.RandomState(0)
    shape = (1, 3, *SIZES[name])
    if name == "yolov3-d53":
        return torch.from_numpy(random.standard_normal(shape).astype(np.float32))
    return torch.from_numpy(random.randint(-120, 121, shape).astype(np.float32))


def targets_of(name):
    return [{"boxes": torch.tensor(GOLDEN[name]["gt_boxes"]), "labels": torch.tensor(GOLDEN[name]["gt_labels"])}]


@pytest.fixture(scope="module", params=["yolov3-d53", pytest.param("ssd512-vgg16", marks=pytest.mark.slow)])
def case(request):
    """(name, golden values, detector, state, image, backbone maps, neck maps)."""
    name = request.param
    detector = build_model(load_model_yaml(name)).eval()
    state = filled(detector.state_dict())
    assert not load_reference(detector, {"state_dict": state}).kept
    image = image_of(name)
    with torch.no_grad():
        features = detector.backbone(image)
        maps = detector.neck(features)
    return name, GOLDEN[name], detector, state, image, features, maps


@pytest.mark.parametrize("name", GOLDEN)
def test_names_shapes_and_counts(name):
    with torch.device("meta"):
        detector = build_model(load_model_yaml(name)).train()
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in sorted(detector.state_dict().items()))
    assert len(detector.state_dict()) == GOLDEN[name]["tensors"]
    assert zlib.crc32(lines.encode()) == GOLDEN[name]["crc32"]
    assert sum(p.numel() for p in detector.parameters()) == GOLDEN[name]["parameters"]
    assert all(p.requires_grad for p in detector.parameters())


@pytest.mark.parametrize("on_boxes", [False, True])
@pytest.mark.parametrize("name", GOLDEN)
def test_assignments(name, on_boxes):
    """Index by index, over all anchors; the authors' YOLOv3 counts from the coarsest level on."""
    golden, size, (target,) = GOLDEN[name]["assigned"], SIZES[name], targets_of(name)
    head = build_model(load_model_yaml(name, NARROW[name])).bbox_head
    counts = head.grid.level_sizes(size)
    if on_boxes:
        gt_index = head.assigner(head.grid.boxes(size), target["boxes"], level_sizes=counts).gt_index
    else:
        gt_index = head.assigner.on_grid(head.grid, size, target["boxes"]).gt_index
    if name == "yolov3-d53":
        gt_index = torch.cat(gt_index.split(counts)[::-1])
    positive = (gt_index >= 0).nonzero()[:, 0]
    assert positive.tolist() == golden["pos"] and gt_index[positive].tolist() == golden["gt"]
    assert (gt_index == -2).nonzero()[:, 0].tolist() == golden["ignored"]


def test_maps(case):
    name, golden, detector, _, _, features, maps = case
    with torch.no_grad():
        outputs = detector.bbox_head(maps)
    found = {"backbone": features, "neck": maps}
    found |= (
        {"head_pred": outputs} if name == "yolov3-d53" else dict(zip(("head_cls", "head_reg"), outputs, strict=True))
    )
    for part, expected in golden["maps"].items():
        assert len(found[part]) == len(expected)
        for i, (x, brief) in enumerate(zip(found[part], expected, strict=True)):
            check(x[:, :: x.shape[1] // brief["shape"][1]], brief, f"{part}/{i}")  # of large maps every 16th channel


def test_detections(case):
    name, golden, detector, *_, maps = case
    assert_detections(detector.detect(maps, SIZES[name]), golden["detections"])


def test_losses_gradients_and_statistics(case):
    name, golden, detector, state, image, _, _ = case
    detector.train()
    detector.load_state_dict(state)
    detector.zero_grad()
    losses = detector.losses(detector.neck(detector.backbone(image)), targets_of(name), SIZES[name], sample=False)
    norms = assert_learns(detector, losses, golden, OURS.get, LOSSES)
    assert len(norms) == len([*detector.parameters()])
    assert sum(norm == 0 for norm in norms.values()) == golden["zero_grad"]
    after = detector.state_dict()
    for key, expected in golden["after"].items():  # neck and head learn on their own statistics, the backbone does not
        np.testing.assert_allclose(after[key][:3].numpy(), expected, rtol=1e-5, err_msg=key)
    still = [key for key in after if key.startswith("backbone") and "running" in key]
    assert all(torch.equal(after[key], state[key]) for key in still)
    detector.eval().load_state_dict(state)
