"""The engine's dataset of pictures that are drawn as they are asked for: endless, and nothing on disk."""

from __future__ import annotations

import random
from copy import copy
from typing import Any

import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import LOGGER

from tinyyolo.boxes.convert import to_fractions
from tinyyolo.datasets.drawn import toy
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.datasets.train.windows import Sample

UNUSED = ("mosaic", "paste")  # no picture stays at hand for them, and one takes ten times as long as reading a file


class DrawnDataset(TinyDataset):
    """The training split of a drawn set with `fresh: true`; each sample is another picture, at the size of the run.

    What is drawn follows from Python's random state, which the engine seeds for each sample: the same run
    draws the same pictures, resumed or not.
    """

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """The names of the pictures; there are no files."""
        self.options = toy.resolve(self.spec.content["toy"])
        self.problems: list[Any] = []
        self.side = int(np.max(self.imgsz))
        size_hw, none = (self.side, self.side), (np.zeros((0, 4)), np.zeros(0, np.int64))
        self.samples = [Sample(row, None, *none, size_hw=size_hw) for row in range(len(self.annotations))]
        self.rows = [sample.row for sample in self.samples]
        names = [str(self.spec.path / name) for name in self.annotations.file_names]
        self.sizes_hw = dict.fromkeys(names, size_hw)
        return names

    def build_transforms(self, hyp: Any) -> Any:
        """As for files, but for UNUSED; says so where it was asked for."""
        if unused := [f"{key}={value}" for key in UNUSED if (value := getattr(hyp, key, 0))]:
            hyp = copy(hyp)
            for key in UNUSED:
                setattr(hyp, key, 0)
            LOGGER.info(
                f"{self.prefix}{', '.join(unused)}: not used with pictures that are drawn as they are asked for"
            )
        return super().build_transforms(hyp)

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        """A new picture, whose boxes become those of sample i."""
        image, boxes, classes = self.options.draw(np.random.default_rng(random.getrandbits(64)), self.side)
        fractions = to_fractions(boxes, (self.side, self.side)).astype(np.float32)
        kept = np.isin(classes, self.wanted) if self.wanted is not None else np.ones(len(classes), bool)
        label = classes[kept].reshape(-1, 1).astype(np.float32)
        self.labels[i] |= {"bboxes": fractions[kept], "cls": label * (not self.single_cls)}
        return image, image.shape[:2], image.shape[:2]

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """As upstream, of a picture that is drawn first."""
        image, _, shape = self.load_image(index)
        label = {key: value for key, value in self.labels[index].items() if key not in ("shape", "window")}
        label |= {"img": image, "ori_shape": shape, "resized_shape": shape, "ratio_pad": (1.0, 1.0)}
        return YOLODataset.update_labels_info(self, label)
