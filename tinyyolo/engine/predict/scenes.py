"""Prediction of images too large for the network, in windows at their own resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from ultralytics.utils import LOGGER

from tinyyolo.boxes.convert import Core, centres
from tinyyolo.config import UserError
from tinyyolo.datasets import images
from tinyyolo.detectors.base import ENGINE_STRIDE, Detector
from tinyyolo.detectors.postprocess import Postprocess, boxes_and_scores
from tinyyolo.detectors.two_stage import centred_in
from tinyyolo.scenes.raster import OVERVIEW, RASTERS, Raster, open_raster, overview
from tinyyolo.scenes.sweep import PAD, Found, gathered, sweep
from tinyyolo.scenes.windows import Window, windows
from tinyyolo.sizes import SHRINK


class SceneImage(np.ndarray):
    """An overview (h, w, 3) uint8 BGR of a scene that is read by windows, its `raster`."""

    raster: Raster


def load(path: str) -> np.ndarray:
    """An image as training reads it; of a larger TIFF its overview, where the extra `geo` is installed.

    Raises:
        ValueError: it cannot be read; says why.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in RASTERS or find_spec("rasterio") is None or max(images.look(path).size_hw) <= OVERVIEW:
        return images.load(path)
    raster = open_raster(path)
    scene = overview(raster).view(SceneImage)
    scene.raster = raster
    return scene


def fault_of(path: str) -> str:
    """Why `load` cannot read a file; "" if it can."""
    try:
        load(path)
    except ValueError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def size_of(image: np.ndarray) -> tuple[int, int]:
    """Height and width of an image, or of the scene behind it."""
    height, width = image.raster.size_hw if isinstance(image, SceneImage) else image.shape[:2]
    return height, width


@dataclass(frozen=True)
class Tiling:
    """How a scene is cut: windows of `tile` px that share `overlap` px, of the scene resampled by `zoom`.

    Attributes:
        imgsz: longer side of the network input, px.
        tile: 0 for none: images are shrunk.
        auto: only images over SHRINK times `imgsz` are cut.
        overlap: px; half of it is the halo of a window.
        zoom: 2 shows objects at twice their size.
        stride: windows start at its multiples.
    """

    imgsz: int
    tile: int
    auto: bool
    overlap: int
    zoom: float
    stride: int

    @classmethod
    def of(cls, args: Mapping[str, Any], stride: int, fixed: bool = False) -> Tiling:
        """The tiling of a run by its keys tile, overlap, zoom and imgsz; `fixed` for an export, which takes one size.

        Raises:
            UserError: a tile that an export does not take, or that leaves no room beside the overlap.
        """
        sides = [args["imgsz"]] if isinstance(args["imgsz"], int) else list(args["imgsz"])
        imgsz = max(sides)
        # Vectors and activations are those of whole images.
        whole = args["tile"] in ("off", False) or args.get("embed") or args.get("visualize")
        auto = args["tile"] == "auto"
        tile = 0 if whole else imgsz if auto else args["tile"]
        overlap = args["overlap"] if args["overlap"] >= 1 else round(args["overlap"] * tile)
        overlap -= overlap % 2
        tile = -(-max(tile, overlap + stride if auto and tile else 0) // stride) * stride  # with room for a core
        if fixed and tile and {tile} != set(sides):
            if not auto:
                raise UserError(f"tile={args['tile']}: this export takes {' x '.join(map(str, sides))} px alone")
            tile = 0
        made = cls(imgsz, tile, auto, overlap, float(args["zoom"]), stride)
        if tile:
            windows((1, 1), tile, made.overlap // 2, stride)  # says what is wrong
        return made

    def cuts(self, size_hw: tuple[int, int]) -> bool:
        """Whether an image is looked at in windows.

        Examples:
            >>> tiling = Tiling(640, 640, True, 96, 1.0, 32)
            >>> tiling.cuts((960, 400)), tiling.cuts((961, 400))
            (False, True)
        """
        most = SHRINK * self.imgsz
        return bool(self.tile) and max(size_hw) * self.zoom > (most if self.auto else min(most, self.tile))

    def scaled(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the scene as the network sees it."""
        height, width = (max(1, round(side * self.zoom)) for side in size_hw)
        return height, width

    def windows(self, size_hw: tuple[int, int]) -> list[Window]:
        """The windows of a scene, in pixels of the network."""
        return windows(self.scaled(size_hw), self.tile, self.overlap // 2, self.stride)

    def words(self, size_hw: tuple[int, int]) -> str:
        """What is done to an image of this size, in a line.

        Examples:
            >>> Tiling(640, 640, True, 96, 1.0, 32).words((6000, 6000))
            '6000x6000: 121 tiles of 640, overlap 96'
        """
        size = f"{size_hw[1]}x{size_hw[0]}"
        if self.cuts(size_hw):
            zoom = f", zoom {self.zoom:g}" if self.zoom != 1 else ""
            count = len(self.windows(size_hw))
            return f"{size}: {count} tile{'s' * (count > 1)} of {self.tile}, overlap {self.overlap}{zoom}"
        factor = max(size_hw) / self.imgsz
        return f"{size}: shrunk by {factor:.1f} (tile=off)" if factor > SHRINK and not self.tile else ""

    def detect(
        self, model: Any, rules: Postprocess, image: np.ndarray, batch: int, max_det: int | None = None
    ) -> Tensor:
        """Detections (K, 6) xyxy px of the image, score, class.

        Args:
            model: the engine's wrapper of a Detector or of an export.
            rules: what of the candidates is a detection.
            image: (H, W, 3) uint8 BGR, or a `SceneImage`.
            batch: windows at once.
            max_det: at most so many; a model's own limit is that of an image, and does not count for scenes.
        """
        size_hw = size_of(image)
        height, width = self.scaled(size_hw)
        raster = image.raster if isinstance(image, SceneImage) else None
        if raster is None and self.zoom != 1:
            way = cv2.INTER_AREA if self.zoom < 1 else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=way)
        ground = Ground(raster, self.zoom)
        read = partial(cut, image) if raster is None else ground.read
        pad = self.tile if is_export(model) else ENGINE_STRIDE
        swept = sweep(self.windows(size_hw), read, net_of(model, rules), (height, width), pad, batch)
        parts = [ground.on(window, found) for part in swept for window, found in part]
        boxes, scores, labels = rules.of_candidates(*gathered(parts), max_det)
        if raster is not None:
            raster.close()
        if ground.empty:
            LOGGER.info(f"{ground.empty} of {len(self.windows(size_hw))} tiles have no valid pixel: left out")
        scale = boxes.new_tensor([size_hw[1] / width, size_hw[0] / height] * 2)
        return torch.cat([boxes * scale, scores[:, None], labels[:, None].to(boxes)], 1)


def cut(image: np.ndarray, window: Window) -> np.ndarray:
    """The pixels of a window."""
    return image[window.y.start : window.y.stop, window.x.start : window.x.stop]


class Ground:
    """Reads the windows of a raster, and knows where they are valid.

    Attributes:
        empty: how many windows had no valid pixel.
    """

    def __init__(self, raster: Raster | None, zoom: float):
        self.raster, self.zoom, self.empty = raster, zoom, 0
        self.valid: dict[Window, np.ndarray] = {}  # of the windows of a batch that are valid in part

    def read(self, window: Window) -> np.ndarray | None:
        """The pixels of a window, what is not valid as grey as what the engine pads with; None where nothing is."""
        if self.raster is None:
            return None
        pixels, valid = self.raster.read(window, self.zoom)
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
