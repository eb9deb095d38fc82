"""Views of one image: what an aerial image could as well look like, image by image, before the mosaic."""

from __future__ import annotations

from typing import Any

import numpy as np
from ultralytics.utils.instance import Instances


def transpose(label: dict[str, Any]) -> None:
    """Swap x and y of a sample in place: with both mirrors, all eight quarter turns and mirrors of a scene.

    Args:
        label: "img" (H, W, 3), "instances" and "resized_shape" (H, W) of ultralytics' datasets.
    """
    label["img"] = np.ascontiguousarray(label["img"].swapaxes(0, 1))
    label["resized_shape"] = tuple(label["resized_shape"][::-1])
    old = label["instances"]
    old.convert_bbox("xyxy")
    label["instances"] = Instances(
        old.bboxes[:, [1, 0, 3, 2]], old.segments, bbox_format="xyxy", normalized=old.normalized
    )


def invert(image: np.ndarray) -> np.ndarray:
    """The negative (H, W, 3): hot objects become cold ones."""
    return 255 - image
