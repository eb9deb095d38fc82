"""Drawn scenes, and a model of chance that finds something in them."""

from __future__ import annotations

import numpy as np
import torch

from tinyyolo import Model
from tinyyolo.scenes.sweep import network_input


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coloured rectangles of 9 x 7 px on noise, (H, W, 3) uint8 BGR."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 90, np.uint8) + rng.integers(0, 20, (height, width, 3), dtype=np.uint8)
    for x, y in rng.integers(0, (width - 9, height - 9), (height * width // 2000, 2)):
        image[y : y + 7, x : x + 9] = rng.integers(0, 255, 3)
    return image


def lively_model() -> Model:
    """Its norms know a scene, so that its maps are alive."""
    torch.manual_seed(1)
    made = Model("tinyyolo-n.yaml")
    net = made.model
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    images = network_input([scene(320, 320), scene(320, 320, seed=9)], 32)
    with torch.no_grad():
        net.train().bbox_head(net.features(images))
    for branch in net.bbox_head.class_branch:
        torch.nn.init.normal_(branch[1].weight, std=0.5)
        torch.nn.init.constant_(branch[1].bias, -4.0)
    net.eval()
    return made
