"""Which images are looked at in windows instead of being shrunk: one rule for training, validation and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.scenes.windows import Window, windows
from tinyyolo.sizes import SHRINK


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
        inside: IoU at which a head suppresses inside each window, so that seams need it again; None for all others.
    """

    imgsz: int
    tile: int
    auto: bool
    overlap: int
    zoom: float
    stride: int
    inside: float | None = None

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
