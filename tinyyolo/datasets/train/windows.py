"""Windows of large images as samples: which there are, and what lies in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.convert import sides
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.convert.tile import KEEP, cut_boxes
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.scenes.windows import Window, windows

STRIDE = 32  # windows of training begin at its multiples


class Sample(NamedTuple):
    """What is learnt from at once: an image, or one window of it.

    Attributes:
        row: of the image in the annotations.
        window: px of the image resampled by the tiling's zoom; None for the whole image.
        boxes: (M, 4) xyxy px of the image or window.
        labels: (M,) classes, -1 for ignore regions.
        size_hw: of the image, or of the window filled up to a square.
    """

    row: int
    window: Window | None
    boxes: np.ndarray
    labels: np.ndarray
    size_hw: tuple[int, int]

    @property
    def empty(self) -> bool:
        """Whether there is no object in it."""
        return not (self.labels != IGNORED).any()


@dataclass(frozen=True)
class Cutting:
    """How the images of a split become samples.

    Attributes:
        tiling: which images are cut; their windows here have the size of the network's input.
        imgsz: longer side of that, px.
        empty: windows without objects that are kept, as a share of those with objects.
        seed: of the choice among them.
        one: of each image only the window with most objects.
    """

    tiling: Tiling | None
    imgsz: int
    empty: float = 0.0
    seed: int = 0
    one: bool = False

    @property
    def zoom(self) -> float:
        """Factor by which images that are cut are resampled."""
        return self.tiling.zoom if self.tiling else 1.0

    @property
    def tile(self) -> int:
        """Side of a window, px."""
        return max(self.imgsz // STRIDE, 1) * STRIDE

    @property
    def overlap(self) -> int:
        """What neighbours share, px."""
        wanted = self.tiling.overlap if self.tiling else 0
        return min(wanted, self.tile - STRIDE)

    def cuts(self, size_hw: tuple[int, int]) -> bool:
        """Whether an image of this size is looked at in windows."""
        return self.tiling is not None and self.tiling.cuts(size_hw)

    def windows(self, size_hw: tuple[int, int]) -> list[Window]:
        """Those of an image of this size, px of the image resampled.

        Examples:
            >>> cut = Cutting(Tiling(64, 64, True, 10, 1.0, 32), 64)
            >>> [window.x.start for window in cut.windows((50, 130))]
            [0, 32, 64, 96]
        """
        assert self.tiling
        return windows(self.tiling.scaled(size_hw), self.tile, self.overlap // 2, STRIDE)

    def samples(
        self, notes: Annotations, rows: Sequence[int], boxes_of: Callable[[int], tuple[np.ndarray, np.ndarray]]
    ) -> list[Sample]:
        """All samples of some images, in their order, and of an image row by row.

        Args:
            notes: the annotations.
            rows: images in them.
            boxes_of: row -> boxes (M, 4) xyxy px of the image and classes (M,).
        """
        found: list[Sample] = []
        for row in rows:
            height, width = notes.sizes_hw[row].tolist()
            if not self.cuts((height, width)):
                found.append(Sample(row, None, *boxes_of(row), size_hw=(height, width)))
                continue
            own = list(self.of_image(row, (height, width), *boxes_of(row)))
            # Its loss stands for the image: that is looked at as a whole.
            found += [max(own, key=lambda one: int((one.labels != IGNORED).sum()))] if self.one else own
        return found if self.one else self.without_most_empty(found)

    def of_image(self, row: int, size_hw: tuple[int, int], boxes: np.ndarray, labels: np.ndarray) -> Iterator[Sample]:
        """The windows of an image with what lies in them, by the rule of `data convert tile=`."""
        assert self.tiling
        height, width = self.tiling.scaled(size_hw)
        boxes = boxes * np.array([width / size_hw[1], height / size_hw[0]] * 2)
        for window in self.windows(size_hw):
            inner, stay, _ = cut_boxes(boxes, labels == IGNORED, window.origin, window.size_hw, self.tile, KEEP)
            yield Sample(row, window, inner[stay], labels[stay], (self.tile, self.tile))

    def without_most_empty(self, samples: Sequence[Sample]) -> list[Sample]:
        """All but most of the windows without objects; which of them stay depends on the seed alone."""
        empty = [i for i, one in enumerate(samples) if one.window and one.empty]
        count = sum(one.window is not None for one in samples) - len(empty)
        kept = min(len(empty), round(self.empty * count))
        order = np.random.default_rng(self.seed).permutation(len(empty))
        gone = {empty[i] for i in order[kept:].tolist()}
        return [one for i, one in enumerate(samples) if i not in gone]

    def words(self, samples: Sequence[Sample], notes: Annotations, rows: Sequence[int]) -> list[str]:
        """What is done to large images, in a line."""
        sizes = [(h, w) for h, w in notes.sizes_hw[list(rows)].tolist() if self.cuts((h, w))]
        if (tiling := self.tiling) is None:
            return []
        if not sizes:
            said = f"zoom={tiling.zoom:g}: no image is cut, and others are fitted to imgsz"
            return [said] if tiling.zoom != 1 else []
        height, width = max(sizes, key=lambda size: size[0] * size[1])
        what = f"{len(sizes):,} image{'s' * (len(sizes) > 1)} of up to {width}x{height}"
        zoom = f", zoom {tiling.zoom:g}" if tiling.zoom != 1 else ""
        if self.one:
            count = sum(len(tiling.windows(size)) for size in sizes)
            return [f"{what} in {count:,} tiles of {tiling.tile}, overlap {tiling.overlap}{zoom}"]
        count = sum(len(self.windows(size)) for size in sizes)
        full = sum(one.window is not None and not one.empty for one in samples)
        kept = sum(one.window is not None for one in samples) - full
        network = f" (what the network takes; val looks at {tiling.tile})" if tiling.tile != self.tile else ""
        return [
            f"{what} as {count:,} tiles of {self.tile}{network}, overlap {self.overlap}{zoom}: {full:,} with objects, "
            f"and {kept:,} of {count - full:,} without (empty_tiles={self.empty:g})"
        ]


def boxes_of(notes: Annotations, row: int, least: float, classes: Sequence[int] | None) -> Any:
    """Boxes (M, 4) xyxy px and classes (M,) of an image: those with sides of at least so many px, of these classes."""
    part = notes.rows(row)
    boxes, labels = notes.boxes[part], notes.labels[part]
    kept = np.ones(len(labels), bool)
    if least:
        kept &= sides(boxes).min(1, initial=np.inf) >= least
    if classes is not None:
        kept &= np.isin(labels, [IGNORED, *classes])
    return boxes[kept], labels[kept]
