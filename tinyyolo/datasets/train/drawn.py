"""The engine's dataset of pictures that are drawn as they are asked for: endless, and nothing on disk."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from ultralytics.data.dataset import YOLODataset

from tinyyolo.boxes.convert import to_fractions
from tinyyolo.datasets.drawn import toy
from tinyyolo.datasets.train.dataset import TinyDataset


class DrawnDataset(TinyDataset):
    """The training split of a drawn set with `fresh: true`; each sample is another picture, at the size of the run.

    What is drawn follows from Python's random state, which the engine seeds for each epoch and saves: the same run
    draws the same pictures, resumed or not.
    """

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """The names of the pictures; there are no files."""
        self.options = toy.resolve(self.spec.content["toy"])
        self.problems: list[Any] = []
        self.rows = list(range(len(self.annotations)))
        names = [str(self.spec.path / name) for name in self.annotations.file_names]
        self.side = int(np.max(self.imgsz))
        self.sizes_hw = dict.fromkeys(names, (self.side, self.side))
        return names

    def update_labels(self, include_class: Sequence[int] | None) -> None:
        """As usual; the classes count for what will be drawn, too."""
        self.wanted = include_class
        super().update_labels(include_class)

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
        label = {key: value for key, value in self.labels[index].items() if key != "shape"}
        label |= {"img": image, "ori_shape": shape, "resized_shape": shape, "ratio_pad": (1.0, 1.0)}
        return YOLODataset.update_labels_info(self, label)
