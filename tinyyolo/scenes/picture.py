"""What every scene can do, and one whose pixels are in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from tinyyolo.scenes.windows import Window


class Scene(Protocol):
    """An open scene, `Picture` or `raster.Raster`."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width, px."""

    def read(self, window: Window, zoom: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (h, w, 3) uint8 BGR of a window, and (h, w) bool where they are valid.

        Args:
            window: in pixels of the scene resampled by `zoom`.
            zoom: the factor.
        """

    def close(self) -> None:
        """Close the file; `read` opens it again."""


@dataclass
class Picture:
    """A scene whose pixels (H, W, 3) uint8 BGR are in memory; `valid` (H, W) bool says which are, None that all are."""

    pixels: np.ndarray
    valid: np.ndarray | None = None
    zoomed: tuple[float, Any] = field(default=(1.0, None), repr=False)  # the factor, and the pixels resampled by it

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width = self.pixels.shape[:2]
        return height, width

    def read(self, window: Window, zoom: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """See `Scene`.

        Examples:
            >>> from tinyyolo.scenes.windows import windows
            >>> picture = Picture(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
            >>> picture.read(windows((2, 2), 2, 0, 1)[0])[0].tolist()
            [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
        """
        pixels = self.pixels if zoom == 1 else self._resampled(zoom)
        place = np.s_[window.y.start : window.y.stop, window.x.start : window.x.stop]
        part = pixels[place]
        if self.valid is None:
            return part, np.ones(part.shape[:2], bool)
        valid = self.valid
        if zoom != 1:
            size = pixels.shape[1::-1]
            valid = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        return part.copy(), valid[place]

    def _resampled(self, zoom: float) -> np.ndarray:
        if self.zoomed[0] != zoom:
            height, width = (max(1, round(side * zoom)) for side in self.size_hw)
            way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
            self.zoomed = zoom, cv2.resize(self.pixels, (width, height), interpolation=way)
        pixels: np.ndarray = self.zoomed[1]
        return pixels

    def close(self) -> None:
        """Forget the resampled pixels."""
        self.zoomed = 1.0, None
