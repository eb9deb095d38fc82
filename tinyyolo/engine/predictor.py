"""The predictor: ultralytics' sources and Results, our suppression."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ultralytics.data.loaders import LoadImagesAndVideos, SourceTypes
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils.ops import convert_torch2numpy_batch

from tinyyolo.boxes.nms import select
from tinyyolo.compat import on_unreadable
from tinyyolo.config import UserError
from tinyyolo.datasets.dataset import MAX_LISTED, fault_of, report
from tinyyolo.engine.validator import MAX_CANDIDATES, corners
from tinyyolo.evaluation import write_json


class TinyPredictor(DetectionPredictor):
    """Predicts with any tinyyolo detector or its TorchScript export."""

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """As upstream; a list of files is read file by file, and what cannot be read is noted in `bad_images`."""
        if isinstance(source, (list, tuple)) and source and all(is_file(item) for item in source):
            source = LoadImagesAndVideos([str(item) for item in source], self.args.batch, self.args.vid_stride)
            source.source_type = SourceTypes()
        super().setup_source(source, stride)
        self.bad_images: list[str] = []
        on_unreadable(self.dataset, lambda path: self.bad_images.append(f"{path}: {fault_of(Path(path)) or 'unknown'}"))

    def stream_inference(self, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """As upstream, then predictions.json with `save_json` and the images that could not be read.

        Raises:
            UserError: not one could.
        """
        rows: list[dict[str, Any]] = []
        for result in super().stream_inference(*args, **kwargs):
            if self.args.save_json:
                rows += json_rows(result)
            yield result
        if self.args.save_json:
            write_json(rows, self.save_dir / "predictions.json")
        if self.bad_images and not self.seen:
            raise UserError(f"no readable image: {'; '.join(self.bad_images[:MAX_LISTED])}")
        report("", "unreadable images left out", self.bad_images)

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


def is_file(item: Any) -> bool:
    """Whether an entry of a list of sources is the path of a file."""
    return isinstance(item, (str, Path)) and Path(item).is_file()


def json_rows(result: Results) -> list[dict[str, Any]]:
    """Detections as COCO results with the file's name; its stem is the image id, a number where it can be one.

    Boxes are x, y, w, h in pixels of the image. The frames of a video follow each other.
    """
    path = Path(result.path)
    image_id = int(path.stem) if path.stem.isdecimal() else path.stem
    boxes = result.boxes.xyxy.double().cpu()
    boxes[:, 2:] -= boxes[:, :2].clone()
    columns = (result.boxes.cls.int().tolist(), boxes.numpy().round(3).tolist(), result.boxes.conf.tolist())
    return [
        {"image_id": image_id, "file_name": path.name, "category_id": c, "bbox": b, "score": round(s, 5)}
        for c, b, s in zip(*columns, strict=True)
    ]
