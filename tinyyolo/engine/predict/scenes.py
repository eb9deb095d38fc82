"""Prediction of images too large for the network, in windows at their own resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.utils import LOGGER

from tinyyolo.boxes.convert import Core, centres
from tinyyolo.datasets.scene_files import open_scene
from tinyyolo.detectors.base import ENGINE_STRIDE, Detector
from tinyyolo.detectors.postprocess import Postprocess, boxes_and_scores
from tinyyolo.detectors.two_stage import centred_in
from tinyyolo.engine.predict.results import SHOWN
from tinyyolo.scenes.picture import Picture, Scene
from tinyyolo.scenes.raster import Raster, overview
from tinyyolo.scenes.sweep import PAD, Found, gathered, sweep
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.scenes.windows import Window


class SceneImage(np.ndarray):
    """An overview (h, w, 3) uint8 BGR of a scene that is read by windows, its `raster`."""

    raster: Raster


def load(path: str) -> np.ndarray:
    """An image as training reads it; of a larger TIFF its overview, where the extra `geo` is installed.

    Raises:
        ValueError: it cannot be read; says why.
    """
    scene = open_scene(path)
    if isinstance(scene, Picture):
        return scene.pixels
    image = overview(scene, SHOWN).view(SceneImage)
    image.raster = scene
    return image


def fault_of(path: str) -> str:
    """Why `load` cannot read a file; "" if it can."""
    try:
        load(path)
    except ValueError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def scene_of(image: np.ndarray) -> Scene:
    """The scene that an image is, or that stands behind it."""
    return image.raster if isinstance(image, SceneImage) else Picture(image)


def size_of(image: np.ndarray) -> tuple[int, int]:
    """Height and width of an image, or of the scene behind it."""
    height, width = image.raster.size_hw if isinstance(image, SceneImage) else image.shape[:2]
    return height, width


def detect(
    tiling: Tiling, model: Any, rules: Postprocess, scene: Scene, batch: int, max_det: int | None = None
) -> Tensor:
    """Detections (K, 6) xyxy px of a scene, score, class.

    Args:
        tiling: how it is cut.
        model: the engine's wrapper of a Detector or of an export.
        rules: what of the candidates is a detection.
        scene: an open one; it is closed at the end.
        batch: windows at once.
        max_det: at most so many; a model's own limit is that of an image, and does not count for scenes.
    """
    height, width = tiling.scaled(scene.size_hw)
    every = tiling.windows(scene.size_hw)
    ground = Ground(scene, tiling.zoom)
    pad = tiling.tile if is_export(model) else ENGINE_STRIDE
    swept = sweep(every, ground.read, net_of(model, rules), (height, width), pad, batch)
    parts = [ground.on(window, found) for part in swept for window, found in part]
    boxes, scores, labels = rules.of_candidates(*gathered(parts), max_det)
    scene.close()
    if ground.empty:
        LOGGER.info(f"{ground.empty} of {len(every)} tiles have no valid pixel: left out")
    scale = boxes.new_tensor([scene.size_hw[1] / width, scene.size_hw[0] / height] * 2)
    return torch.cat([boxes * scale, scores[:, None], labels[:, None].to(boxes)], 1)


class Ground:
    """Reads the windows of a scene, and knows where they are valid.

    Attributes:
        empty: how many windows had no valid pixel.
    """

    def __init__(self, scene: Scene, zoom: float):
        self.scene, self.zoom, self.empty = scene, zoom, 0
        self.valid: dict[Window, np.ndarray] = {}  # of the windows of a batch that are valid in part

    def read(self, window: Window) -> np.ndarray | None:
        """The pixels of a window, what is not valid as grey as what the engine pads with; None where nothing is."""
        pixels, valid = self.scene.read(window, self.zoom)
        if not valid.any():
            self.empty += 1
            return None
        if not valid.all():
            pixels[~valid], self.valid[window] = PAD, valid
        return pixels

    def on(self, window: Window, found: Found) -> Found:
        """The candidates of a window whose centre is valid."""
        if (valid := self.valid.pop(window, None)) is None:
            return found
        middle = (centres(found.boxes) - found.boxes.new_tensor(window.origin)).long().cpu().numpy()
        x, y = (middle[:, axis].clip(0, valid.shape[1 - axis] - 1) for axis in (0, 1))
        kept = torch.from_numpy(valid[y, x]).to(found.boxes.device)
        return Found(*(column[kept] for column in found))


def net_of(model: Any, rules: Postprocess) -> Any:
    """What `sweep` asks of a model: candidates of the core of each window."""

    def detector(images: Tensor, core: Core) -> list[tuple[Tensor, Tensor, Tensor]]:
        net = model.model
        images = images.to(next(net.parameters()))
        found = net.candidates(net.features(images), (images.shape[-2], images.shape[-1]), core)
        return [rules.candidates(*one) for one in zip(*found, strict=True)]

    def export(images: Tensor, core: Core) -> list[tuple[Tensor, Tensor, Tensor]]:
        """An export does not say where its candidates come from: they belong where their centre lies."""
        found = boxes_and_scores(model(images.to(model.device)))
        owned = ((boxes, scores * centred_in(boxes, core)[:, None]) for boxes, scores in zip(*found, strict=True))
        return [rules.candidates(boxes, scores) for boxes, scores in owned]

    return export if is_export(model) else detector


def is_export(model: Any) -> bool:
    """Whether the engine's wrapper holds an export instead of a Detector."""
    return not isinstance(model.model, Detector)


def stride_of(model: Any) -> int:
    """The largest stride of a detector's maps; of an export the engine's."""
    if is_export(model):
        return ENGINE_STRIDE
    neck: Any = model.model.neck
    return max(ENGINE_STRIDE, *map(int, neck.strides))
