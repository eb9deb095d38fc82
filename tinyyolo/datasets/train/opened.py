"""The large images of a data set that a process reads windows of: opened once, held within bounds, never shared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.images import Look, look
from tinyyolo.datasets.scene_files import by_windows, open_scene
from tinyyolo.scenes.picture import Picture
from tinyyolo.scenes.raster import Raster
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering
from tinyyolo.scenes.windows import Span, Window
from tinyyolo.sizes import PAD

MOST_BYTES = 512 * 2**20  # of decoded scenes that a process holds; one that is larger is held alone
MOST_OPEN = 16  # files that are read by windows


@dataclass
class OpenScenes:
    """The large images that a process reads windows of: open files, and pixels of those that are decoded whole.

    Files do not cross processes: one that is forked off opens its own, and keeps pixels. What a raster is shown by,
    which may have been looked for in all of it, is kept as long as the data set is.

    Attributes:
        rendering: how they are shown.
        sizes_hw: path -> height and width, px, that it had at the start.
    """

    rendering: Rendering = AS_DECLARED
    sizes_hw: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    held: dict[str, Picture | Raster] = field(default_factory=dict, repr=False)  # the last used one last
    process: int = field(default_factory=os.getpid, repr=False)
    lock: Any = field(default_factory=RLock, repr=False)
    left: list[Any] = field(default_factory=list, repr=False)  # of the process that this one was forked off from

    def __getstate__(self) -> dict[str, Any]:
        """Nothing that is open, and no pixels."""
        return {"rendering": self.rendering, "sizes_hw": self.sizes_hw, "held": self.rasters()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with nothing open."""
        self.__init__(**state)  # type: ignore[misc]

    def rasters(self) -> dict[str, Picture | Raster]:
        """The files that are read by windows, closed."""
        return {path: replace(scene, source=None) for path, scene in self.held.items() if isinstance(scene, Raster)}

    def look_at(self, path: Path, cut: bool) -> tuple[Look, str]:
        """What a file holds, to its end; of one that is read by windows, as it is opened, and how it is shown."""
        if not cut or not by_windows(path):
            return look(path, to_end=True, rendering=self.rendering), ""
        try:
            scene = open_scene(path, self.rendering)
        except ValueError as error:
            return Look(fault=str(error).removeprefix(f"{path}: ")), ""
        scene.close()
        self.held[str(path)] = scene
        return Look(scene.size_hw, 3, "uint8"), getattr(scene, "words", "")

    def open(self, path: str) -> Picture | Raster:
        """The image.

        Raises:
            ValueError: it cannot be read, or has another size than at the start; says why.
        """
        with self.own():
            scene = self.held.pop(path, None)
            if scene is None:
                scene = open_scene(path, self.rendering)
                if scene.size_hw != (before := self.sizes_hw.get(path, scene.size_hw)):
                    scene.close()
                    raise UserError(f"its size has changed from {before} to {scene.size_hw}")
            self.held[path] = scene
            self.forget_oldest()
            return scene

    def own(self) -> Any:
        """The lock of this process; behind a fork, files of the other one are put aside, unclosed."""
        if self.process != os.getpid():
            self.lock, self.process = RLock(), os.getpid()
            self.left += [scene for scene in self.held.values() if isinstance(scene, Raster)]
            self.held |= self.rasters()
        return self.lock

    def forget_oldest(self) -> None:
        """Close the files and forget the pixels that were used longest ago, where there are too many."""
        pixels = files = 0
        for path, scene in reversed(list(self.held.items())):
            if isinstance(scene, Picture):
                before, pixels = pixels, pixels + bytes_of(scene.size_hw, scene.zoomed[0])
                if before and pixels > MOST_BYTES:
                    del self.held[path]
            elif scene.source is not None and (files := files + 1) > MOST_OPEN:
                scene.close()

    def read(self, path: str, window: Window, zoom: float, side: int) -> np.ndarray:
        """(side, side, 3) uint8 BGR: a window, and grey where it ends or is not valid.

        Raises:
            ValueError: it cannot be read; says why.
        """
        with self.own():
            pixels, valid = self.open(path).read(window, zoom)
            self.forget_oldest()
        out = np.full((side, side, 3), PAD, np.uint8)
        part = out[: pixels.shape[0], : pixels.shape[1]]
        part[valid] = pixels[valid]
        return out


def bytes_of(size_hw: tuple[int, int], zoom: float) -> int:
    """Of the pixels of an image that is decoded whole, and of those that are resampled."""
    return round(3 * size_hw[0] * size_hw[1] * (1 + (zoom**2 if zoom != 1 else 0)))


class Pixels:
    """An image of which parts are read when they are asked for: `pixels[y1:y2, x1:x2]` is (h, w, 3) uint8 BGR."""

    def __init__(self, scenes: OpenScenes, path: str):
        self.scenes, self.path, self.shape = scenes, path, (*scenes.open(path).size_hw, 3)

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        """A part of it, by plain bounds."""
        y, x = (Span(one.start, one.stop, one.start, one.stop) for one in part)
        return self.scenes.open(self.path).read(Window(x, y))[0]
