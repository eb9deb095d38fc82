"""Grid R-CNN, TridentNet and Faster R-CNN with ATSS against outputs of the authors' code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck
from torchvision.ops import roi_align

from tests.support.golden import BOXES, SCORES, assert_learns, assert_names, check, filled, ours
from tinyyolo import Model
from tinyyolo.assigners import ASSIGNERS
from tinyyolo.backbones.resnet import ResNet
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.config import build, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.weights import load_backbone, load_reference
from tinyyolo.heads import grid

GOLDEN = json.loads((Path(__file__).parent.parent / "parity" / "regions.json").read_text())
SIZE, LOSSES = (128, 128), 1e-5
TARGETS = [{"boxes": torch.tensor(GOLDEN["gt_boxes"]), "labels": torch.tensor(GOLDEN["gt_labels"])}]
IMAGE = torch.from_numpy(np.random.RandomState(0).standard_normal((1, 3, *SIZE)).astype(np.float32))


@pytest.mark.parametrize("name", GOLDEN["names"])
def test_names_shapes_and_counts(name):
    with torch.device("meta"):  # without memory for the weights
        golden, detector = GOLDEN["names"][name], build_model(load_model_yaml(name)).train()
    assert_names(detector, golden)


@pytest.fixture(scope="module")
def grid_rcnn():
    """(detector, neck maps) of the published Grid R-CNN with weights from their names."""
    detector = build_model(load_model_yaml("grid-rcnn-r50"))
    assert not load_reference(detector, {"state_dict": filled(detector.state_dict())}).kept
    with torch.no_grad():
        return detector, detector.neck(detector.backbone(IMAGE))


def test_maps_and_heads(grid_rcnn):
    detector, maps = grid_rcnn
    head, rois = detector.roi_head, torch.tensor(GOLDEN["rois"])
    with torch.no_grad():
        logits, deltas = detector.rpn_head(maps)
        found = {"neck/0": maps[0], "neck/4": maps[4], "rpn_cls/0": logits[0], "rpn_reg/0": deltas[0]}
        found["roi/0/cls"], boxes = head.bbox_head(head.pool(maps, rois))
        pooled = head.grid_pool(maps, rois[:8])
        unfused, fused = (head.grid_head.heatmaps(x) for x in head.grid_head(pooled))
    found |= {"roi/0/grid_feats": pooled[:2], "roi/0/grid_unfused": unfused, "roi/0/grid_fused": fused}
    assert boxes.shape == (40, 0, 4)
    assert set(found) == set(GOLDEN["maps"])
    for name, x in found.items():
        check(x, GOLDEN["maps"][name], name)


def test_assignments(grid_rcnn):
    detector, maps = grid_rcnn
    with torch.no_grad():
        boxes, scores = detector.rpn_head.proposals(detector.rpn_head(maps), SIZE, detector.rpn_head.train_counts)
    proposals = boxes[0][scores[0] >= 0]
    assert len(proposals) == GOLDEN["proposal_count"]
    anchors = detector.rpn_head.assign(maps, TARGETS, SIZE)[0]
    outside = (~detector.rpn_head.grid.inside(SIZE, [x.shape[-2:] for x in maps])).sum()
    regions = detector.roi_head.assigners[0](proposals, TARGETS[0]["boxes"])
    for found, key, left_out in ((anchors, "0", outside), (regions, "1", 0)):
        golden = GOLDEN["assign"][key]
        assert found.positive_idx.tolist() == golden["pos"]
        assert (found.gt_index[found.positive_idx] + 1).tolist() == golden["gt"]
        assert (len(found.negative_idx), len(found.ignored_idx) - left_out) == (golden["negatives"], golden["ignored"])


def test_points_and_jitter():
    golden = {key: torch.tensor(value) for key, value in GOLDEN["targets"].items()}
    found = grid.point_targets(golden["rois"], golden["gt"], size=28, radius=1)
    assert found.flatten().nonzero()[:, 0].tolist() == golden["at"].tolist()
    before, offsets, after = (torch.tensor(GOLDEN["jitter"][key]) for key in ("in", "offsets", "out"))
    torch.testing.assert_close(grid.jittered(before, offsets, SIZE), after, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_detections(grid_rcnn):
    detector, maps = grid_rcnn
    ((boxes, scores, labels),) = detector.eval().detect(maps, SIZE)
    rows = torch.cat([boxes, scores[:, None]], 1).double().numpy()
    assert [int((labels == c).sum()) for c in range(8)] == GOLDEN["det_counts"]
    assert boxes.min() < 0 and boxes.max() > SIZE[0]  # the official code cuts a copy
    for c, expected in enumerate(np.array(GOLDEN["det_first"])):
        found = rows[(labels == c).numpy()]
        np.testing.assert_allclose(found[:2, :4], expected[:, :4], atol=BOXES, rtol=0)
        np.testing.assert_allclose(found[:2, 4], expected[:, 4], atol=SCORES, rtol=0)


@pytest.mark.slow
def test_losses_and_gradients(grid_rcnn):
    detector, _ = grid_rcnn
    detector.train().zero_grad()
    losses = detector.losses(detector.neck(detector.backbone(IMAGE)), TARGETS, SIZE, sample=False)
    assert_learns(detector, losses, GOLDEN, ours, LOSSES)


def test_atss_in_the_rpn():
    """99 positives of 13 objects among all 4092 anchors, all others negative, in the authors' assigner."""
    spec = load_model_yaml("faster-rcnn-r50-atss")["rpn"]
    assigner = build(ASSIGNERS, spec["assigner"], "rpn.assigner")
    found = assigner.on_grid(AnchorGrid(**spec["anchors"]), SIZE, TARGETS[0]["boxes"], inside_only=spec["inside_only"])
    assert (len(found.positive_idx), len(found.negative_idx), len(found.ignored_idx)) == (99, 4092 - 99, 0)


TRIDENT = {"backbone.frozen_stages": 1, "rpn.channels": 8, "rpn.pre_nms": 90, "rpn.proposals": 40}


@pytest.fixture(scope="module")
def trident():
    """The published TridentNet's body and box head, a slim RPN."""
    torch.manual_seed(0)
    detector = build_model(load_model_yaml("tridentnet-r50", TRIDENT))
    load_reference(detector, filled(detector.state_dict()))
    return detector


def plain_c4(body, image, dilation):
    """What one branch sees, by torchvision's blocks and functions alone."""
    x = F.max_pool2d(F.relu(body.bn1(body.conv1(image))), 3, 2, 1)
    for stage in (body.layer1, body.layer2, body.layer3):
        for i, block in enumerate(stage):
            stride = 1 if i or stage is body.layer1 else 2
            reach = dilation if stage is body.layer3 else 1
            y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, stride=stride)))  # Caffe: the stride comes first
            y = F.relu(block.bn2(F.conv2d(y, block.conv2.weight, padding=reach, dilation=reach)))
            y = block.bn3(F.conv2d(y, block.conv3.weight))
            x = F.relu(y + (x if block.downsample is None else block.downsample(x)))
    return x


def test_every_branch_is_a_network_of_its_dilation(trident):
    images = torch.cat([IMAGE, -IMAGE])
    with torch.no_grad():
        trident.train()
        (found,) = trident.backbone(images)
        for i, dilation in enumerate((1, 2, 3)):  # all images of a branch before all of the next
            expected = plain_c4(trident.backbone, images, dilation)
            torch.testing.assert_close(found[2 * i : 2 * i + 2], expected, atol=1e-5 * expected.abs().max(), rtol=0)
        trident.eval()
        torch.testing.assert_close(trident.backbone(images)[0], found[2:4])
    assert not [m for m in trident.backbone.modules() if isinstance(m, Bottleneck) and m.conv2.stride != (1, 1)]


def test_all_branches_learn_all_objects():
    torch.manual_seed(0)
    slim = TRIDENT | {"backbone.depth": 10, "roi.depth": 10, "rpn.train_proposals": 12}
    trident = build_model(load_model_yaml("tridentnet-r50", slim))
    targets = [TARGETS[0], {"boxes": TARGETS[0]["boxes"][:2] + 3, "labels": TARGETS[0]["labels"][:2]}]
    with torch.no_grad():
        maps = trident.train().neck(trident.backbone(torch.cat([IMAGE, -IMAGE])))
        found = trident.losses(maps, targets, SIZE, sample=False)
        expected = trident.losses(maps, targets * 3, SIZE, sample=False)
        assert all(found[name] == expected[name] for name in found)
        _, (_, scores) = trident.rpn_head.losses_and_proposals(maps, targets * 3, SIZE)
    assert scores.shape == (6, 12)


def test_box_head_is_the_last_stage(trident):
    head, rois = trident.eval().roi_head, torch.tensor(GOLDEN["rois"])[:5]
    with torch.no_grad():
        (c4,) = trident.backbone(IMAGE)
        x = roi_align(c4, rois, 14, 1 / 16, sampling_ratio=0, aligned=True)
        for i, block in enumerate(head.shared_head.layer4):
            y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, stride=1 if i else 2)))
            y = block.bn3(block.conv3(F.relu(block.bn2(F.conv2d(y, block.conv2.weight, padding=1)))))
            x = F.relu(y + (x if block.downsample is None else block.downsample(x)))
        logits, deltas = head.bbox_head(head.features([c4], rois))
        mean = F.avg_pool2d(x, 7).flatten(1)
    assert x.shape == (5, 2048, 7, 7)
    torch.testing.assert_close(logits, head.bbox_head.fc_cls(mean), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(deltas.flatten(1), head.bbox_head.fc_reg(mean), atol=1e-4, rtol=1e-5)
    assert not head.add_gt and head.sampler.num == 128 and head.sampler.positive_fraction == 0.5


def test_anchors_of_a_cell_go_by_ratio_then_scale(trident):
    wh = trident.rpn_head.grid.base_boxes[0][:, 2:] * 2  # centred on the corner of the cell
    expected = [[16 * s / r**0.5, 16 * s * r**0.5] for r in (0.5, 1, 2) for s in (2, 4, 8, 16, 32)]
    torch.testing.assert_close(wh, torch.tensor(expected))
    assert trident.rpn_head.inside_only


def test_images_reach_the_backbone_blue_first(trident):
    """A pixel of red 255 is 255 - 123.675 in the last channel: BGR, less the means, not divided."""
    seen = []
    hook = trident.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        trident.eval().features(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 64, 64))
    hook.remove()
    torch.testing.assert_close(seen[0][0, :, 5, 7], torch.tensor([-103.53, -116.28, 131.325]), atol=1e-4, rtol=0)


def test_weights_from_imagenet_fill_body_and_box_head(tmp_path):
    whole = ResNet(10, style="caffe")
    nn.init.normal_(whole.layer4[0].conv1.weight)
    torch.save(whole.state_dict() | {"fc.weight": torch.zeros(1)}, tmp_path / "r10.pth")
    spec = load_model_yaml("tridentnet-r50", {"backbone.depth": 10, "roi.depth": 10, "rpn.channels": 8})
    spec["backbone"]["weights"] = str(tmp_path / "r10.pth")
    detector = build_model(spec)
    for name, x in whole.state_dict().items():
        part = detector.roi_head.shared_head if name.startswith("layer4") else detector.backbone
        assert torch.equal(part.state_dict()[name], x), name
    again = ResNet(10, style="caffe")  # and out of the detector's own checkpoint
    load_backbone(again, {"state_dict": detector.state_dict()})
    assert torch.equal(again.layer4[0].conv1.weight, whole.layer4[0].conv1.weight)


def test_a_lower_conf_than_the_head_knows_is_told(caplog):
    model = Model("grid-rcnn-r18-nwdrka.yaml")
    model.arguments("predict", {}, {"conf": 0.05})
    assert "least_score" not in caplog.text
    model.arguments("predict", {}, {"conf": 0.01})
    assert "scores no box 0.05 or less: roi.least_score=0.05" in caplog.text
