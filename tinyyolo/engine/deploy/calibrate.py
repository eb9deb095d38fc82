"""Exports of 8 bits: the images by which they are quantised, and what that costs of AP."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor
from ultralytics.utils import LOGGER

from tinyyolo.detectors.base import Detector, filled
from tinyyolo.engine.predict.scenes import stride_of
from tinyyolo.engine.prepare import data_dict, looked_at, split_dataset
from tinyyolo.scenes.tiling import Tiling

ENOUGH = 100  # images; ranges of maps hardly grow by more
FIGURES = ("AP", "AP_vt")


def calibration(detector: Detector, args: Mapping[str, Any], share: float | None) -> Iterator[Tensor]:
    """Inputs (1, 3, H, W) of the network as validation gives them, from all over the training images; told.

    Of a split whose images are drawn anew each time, and where there is none to learn from, those of validation.

    Args:
        detector: what they are for.
        args: of a validation.
        share: of the images, or how many; None for ENOUGH.

    Raises:
        UserError: not one readable image.
    """
    data = data_dict(args["data"])
    spec, last = data["spec"], looked_at(data["spec"])
    split = "train" if "train" in spec.splits and not spec.fresh("train") else last
    tiling = Tiling.of(args, stride_of(SimpleNamespace(model=detector)))
    corner = detector.pad_colour is not None
    options: dict[str, Any] = {"augment": False, "rect": True, "corner": corner, "tiling": tiling}
    images = split_dataset(data, split, SimpleNamespace(**args), "int8", 1, **options)
    wanted = ENOUGH if share is None else share if isinstance(share, int) else max(1, round(share * len(images)))
    rows = np.unique(np.linspace(0, len(images) - 1, min(wanted, len(images))).round().astype(int)).tolist()
    print(
        f"int8: the ranges of maps are those of {len(rows):,} of {len(images):,} images of {spec.file}, split {split}"
    )

    def inputs() -> Iterator[Tensor]:
        for row in rows:
            batch = images.collate_fn([images[row]])
            image = batch["img"].float() / 255
            yield image if detector.pad_colour is None else filled(image, batch["content_hw"], detector.pad_colour)

    return inputs()


def beside(own: Any, other: Any, data: str, split: str, imgsz: int) -> str:
    """AP and AP_vt of a checkpoint and of its export, two `Model`s, on one split, in a line."""
    found, level = [], LOGGER.level
    LOGGER.setLevel(logging.WARNING)  # what is written there does not stay
    try:
        for model in (own, other):
            with TemporaryDirectory(prefix="tinyyolo-") as folder:
                run = {"plots": False, "verbose": False, "save_dir": str(Path(folder) / "val"), "workers": 0}
                found.append(model.val(data=data, split=split, imgsz=imgsz, **run))
    finally:
        LOGGER.setLevel(level)
    figures = [", ".join(f"{name} {100 * metrics[name]:.2f}" for name in FIGURES) for metrics in found]
    return f"{figures[0]} of the checkpoint, {figures[1]} of int8 on {Path(data).name}, split {split}"
