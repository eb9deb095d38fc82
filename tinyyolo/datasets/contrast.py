"""Contrast and brightness at random, image by image, so that a mosaic's parts differ as days and sensors do."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np

SHIFT = 32.0  # grey levels of 255, at contrast = 1 and more (SSD: Liu et al., ECCV 2016)


def vary(image: np.ndarray, contrast: float) -> np.ndarray:
    """A copy with its grey levels spread about their mean by a factor in [1 / (1 + contrast), 1 + contrast].

    All channels follow one curve, so that colours keep their hue; the mean moves by up to SHIFT * min(contrast, 1).

    Args:
        image: (H, W, 3) uint8.
        contrast: 0 changes nothing.

    Examples:
        >>> random.seed(0)
        >>> image = np.full((2, 2, 3), 100, np.uint8)
        >>> vary(image, 0.0).tolist() == image.tolist()
        True
    """
    factor = math.exp(random.uniform(-1, 1) * math.log1p(contrast))
    shift = random.uniform(-1, 1) * SHIFT * min(contrast, 1.0)
    if not image.size:  # OpenCV has no table of nothing
        return image.copy()
    mean = float(image.mean())
    curve = (np.arange(256) - mean) * factor + mean + shift
    return cv2.LUT(image, curve.round().clip(0, 255).astype(np.uint8))
