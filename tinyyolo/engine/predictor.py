"""The predictor: ultralytics' sources and Results, our suppression."""

from __future__ import annotations

from typing import Any

import torch
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils.ops import convert_torch2numpy_batch

from tinyyolo.boxes.nms import select
from tinyyolo.engine.validator import MAX_CANDIDATES, corners


class TinyPredictor(DetectionPredictor):
    """Predicts with any tinyyolo detector or its TorchScript export."""

    def postprocess(self, preds: Any, img: torch.Tensor, orig_imgs: Any, **kwargs: Any) -> list[Results]:
        """Ultralytics Results per image; boxes in pixels of the original image."""
        y = preds[0] if isinstance(preds, (list, tuple)) else preds
        settings = self.args
        found = []
        for candidates in y.transpose(1, 2):
            boxes, scores, labels = select(
                corners(candidates[:, :4].float()),
                candidates[:, 4:],
                settings.conf,
                kwargs.get("iou", settings.iou),
                settings.max_det,
                MAX_CANDIDATES,
                settings.classes
                if settings.classes is None or isinstance(settings.classes, list)
                else [settings.classes],
                settings.agnostic_nms,
            )
            found.append(torch.cat([boxes, scores[:, None], labels[:, None].to(boxes)], dim=1))
        if not isinstance(orig_imgs, list):
            orig_imgs = convert_torch2numpy_batch(orig_imgs)[..., ::-1]
        return self.construct_results(found, img, orig_imgs)
