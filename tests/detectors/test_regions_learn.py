"""Faster R-CNN with ATSS and TridentNet learn: a picture of toy-easy's shapes by heart, from scratch."""

import numpy as np
import pytest
import torch

from tinyyolo.boxes.similarity import pairwise_iou
from tinyyolo.config import load_model_yaml
from tinyyolo.datasets.drawn.toy import draw_scene
from tinyyolo.detectors.build import build_model

SIDE, STEPS, FALLEN, FOUND = 96, 60, 0.5, 0.5
SMALL = {"backbone.depth": 10, "rpn.pre_nms": 100, "rpn.proposals": 30, "roi.sampler.num": 32}
SLIM = {
    "faster-rcnn-r18": {
        "neck.channels": 32,
        "roi.channels": 32,
        "rpn.assigner": {"type": "atss", "topk": 9},
        "rpn.anchors.scales": [2],
    },
    "tridentnet-r18-nwdrka": {"roi.depth": 10, "rpn.train_proposals": 30},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLIM)
def test_the_loss_falls_and_boxes_lie_on_objects(name):
    torch.manual_seed(0)
    image, boxes, labels = draw_scene(np.random.default_rng(0), SIDE, "easy", objects=(4, 4), side_px=(14.0, 2.0))
    images = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    targets = [{"boxes": torch.from_numpy(boxes).float(), "labels": torch.from_numpy(labels)}]
    detector = build_model(load_model_yaml(name, {**SMALL, **SLIM[name]}), 3)
    optimizer, totals = torch.optim.Adam(detector.parameters(), lr=2e-3), []
    for _ in range(STEPS):
        total = sum(detector.losses(detector.train().features(images), targets, (SIDE, SIDE)).values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10)
        optimizer.step()
        totals.append(total.item())
    assert np.mean(totals[-5:]) < FALLEN * totals[0], totals
    with torch.no_grad():
        ((found, _, classes),) = detector.eval().detect(detector.features(images), (SIDE, SIDE))
    overlap = pairwise_iou(targets[0]["boxes"], found) * (targets[0]["labels"][:, None] == classes)
    assert (overlap.amax(1) > FOUND).sum() >= len(boxes) - 1, (overlap.amax(1), totals[::10])
