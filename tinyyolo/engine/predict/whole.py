"""Images of a data set that validation looks at as whole scenes, in windows at their own resolution."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.datasets.train.opened import Pixels
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.predict.scenes import detect
from tinyyolo.evaluation import AITOD_MAX_DETS
from tinyyolo.scenes.tiling import Tiling


class Whole:
    """Finds what there is in the images of a data set that its tiling cuts.

    Args:
        dataset: a split, for validation.
        model: the engine's wrapper of a Detector or of an export.
        rules: what of the candidates is a detection.
        batch: windows at once.
        max_det: detections a scene, None for any number.
    """

    def __init__(self, dataset: TinyDataset, model: Any, rules: Postprocess, batch: int, max_det: int | None):
        self.dataset, self.model, self.rules, self.batch, self.max_det = dataset, model, rules, batch, max_det
        self.rows = {label["image_index"] for label in dataset.labels if label["window"] is not None}

    @property
    def limits(self) -> tuple[int, ...]:
        """Detections an image and class that figures count: those of a published image for each window of a scene."""
        if not self.rows:
            return AITOD_MAX_DETS
        tiling: Any = self.dataset.cutting.tiling
        sizes = self.dataset.annotations.sizes_hw[sorted(self.rows)].tolist()
        most = max(len(tiling.windows((height, width))) for height, width in sizes)
        return tuple(dict.fromkeys([*AITOD_MAX_DETS, AITOD_MAX_DETS[-1] * most]))

    def found_in(self, path: str) -> tuple[dict[str, Tensor], tuple[int, int]] | None:
        """Detections in a scene, boxes in its pixels, as a batch has them, and its height and width; None if it cannot
        be read any more, which the data set then knows.

        Raises:
            UserError: half of the images are gone.
        """
        tiling: Tiling = self.dataset.cutting.tiling  # type: ignore[assignment]  # there is one where there are rows
        try:
            scene = self.dataset.scenes.open(path)
            rows = detect(tiling, self.model, self.rules, scene, self.batch, self.max_det)
        except ValueError as error:
            self.dataset.note([(self.dataset.im_files.index(path), str(error).removeprefix(f"{path}: "))])
            return None
        return {"bboxes": rows[:, :4], "conf": rows[:, 4], "cls": rows[:, 5]}, scene.size_hw

    def pixels(self, path: str) -> Pixels:
        """The scene as something that a picture is cut from."""
        return Pixels(self.dataset.scenes, path)
