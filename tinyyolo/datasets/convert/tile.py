"""Cut large scenes into tiles, by the rules that AI-TOD and its sources were cut by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from tinyyolo.boxes.convert import areas, centres, sides
from tinyyolo.config import UserError
from tinyyolo.datasets import images
from tinyyolo.datasets.annotations import IGNORED, Annotations, freeze
from tinyyolo.io import new_file

CENTRE = "centre"  # AI-TOD's rule: an object belongs to every tile that its centre lies in
ROUNDING = 1e-9  # so that three tenths of a box are 0.3 of it in floating point too
Tile = tuple[int, int]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along one side: every `tile - overlap` px, the last moved back to end with the scene.

    Only the last one moves, so the one before it may reach over the edge; it is filled with black there. This is how
    the tiles of AI-TOD were cut (their names say where): a 1,390 px scene has tiles at 0, 600 and 590.

    Examples:
        >>> starts(3219, 800, 200), starts(1390, 800, 200), starts(500, 800, 200)
        ([0, 600, 1200, 1800, 2400, 2419], [0, 600, 590], [0])
    """
    out = list(range(0, length, tile - overlap))
    if length - out[-1] <= tile:
        out[-1] = max(length - tile, 0)
    return list(dict.fromkeys(out))


def grid(size_hw: tuple[int, int], tile: int, overlap: int) -> list[Tile]:
    """(x, y) of every tile of a scene, row by row."""
    return [(x, y) for y in starts(size_hw[0], tile, overlap) for x in starts(size_hw[1], tile, overlap)]


def check_arguments(tile: int, overlap: int, keep: float | str) -> None:
    """Look whether there is such a tiling.

    Raises:
        UserError: sizes or a rule that cannot be.
    """
    if not (isinstance(tile, int) and tile > 0):
        raise UserError(f"tile={tile}: expected a positive number of pixels")
    if not (isinstance(overlap, int) and 0 <= overlap < tile):
        raise UserError(f"overlap={overlap}: expected 0 to tile - 1 = {tile - 1} pixels")
    if keep != CENTRE and not (isinstance(keep, (int, float)) and 0 < keep <= 1):
        raise UserError(f"keep={keep}: expected a share of the area in (0, 1], or {CENTRE!r}")


def staying(boxes: np.ndarray, corner: Tile, tile: int, keep: float | str) -> np.ndarray:
    """Which boxes (K, 4) stay in the tile at `corner`: (K,) bool.

    Args:
        boxes: xyxy in pixels of the scene.
        corner: x, y of the tile.
        tile: its side.
        keep: least share of a box's area inside the tile, or "centre": its centre is in [x, x + tile).

    Examples:
        >>> halved = np.array([[790.0, 0, 810, 10]])
        >>> staying(halved, (0, 0), 800, 0.5), staying(halved, (0, 0), 800, "centre")
        (array([ True]), array([False]))
    """
    low = np.array(corner, np.float64)
    if isinstance(keep, str):
        middle = centres(boxes)
        return np.asarray(((middle >= low) & (middle < low + tile)).all(axis=1))
    cut = np.clip(boxes, np.tile(low, 2), np.tile(low + tile, 2))
    return np.asarray(areas(cut) >= (keep - ROUNDING) * areas(boxes))


def cut_annotations(
    scenes: Annotations, tile: int, overlap: int, keep: float | str, name_of: Callable[[str, Tile], str]
) -> tuple[Annotations, list[list[tuple[Tile, str]]], dict[str, int]]:
    """The annotations of the tiles.

    Args:
        scenes: annotations of the scenes.
        tile: side of a tile in px.
        overlap: px that neighbouring tiles share.
        keep: which objects stay, see `staying`; those that do are cut at the tile's edge. Ignore regions stay with
            whatever part of them is inside.
        name_of: (scene's file name, (x, y)) -> the tile's file name.

    Returns:
        Annotations with new ids 1..I and 1..K; for every scene its tiles, ((x, y), name); and counts by name:
        `scenes`, `tiles`, `boxes` written, `boxes_lost` (in no tile) and `fragments` (parts left out of a tile).
    """
    plan, rows, image_rows = [], [], []
    fragments = 0
    offsets = scenes.offsets
    for scene, name in enumerate(scenes.file_names):
        part = np.arange(offsets[scene], offsets[scene + 1])
        h, w = scenes.sizes_hw[scene].tolist()
        tiles = grid((h, w), tile, overlap)
        plan.append([(corner, name_of(name, corner)) for corner in tiles])
        for corner in tiles:
            low = np.array(corner, np.float64)
            inner = np.clip(scenes.boxes[part], np.tile(low, 2), np.tile(np.minimum(low + tile, (w, h)), 2))
            solid = (sides(inner) > 0).all(axis=1)
            ignored = scenes.labels[part] == IGNORED
            stay = np.where(ignored, solid, solid & staying(scenes.boxes[part], corner, tile, keep))
            fragments += int((solid & ~stay).sum())
            rows.append((part[stay], inner[stay] - np.tile(low, 2)))
            image_rows.append(int(stay.sum()))
    source = np.concatenate([np.zeros(0, np.int64), *(which for which, _ in rows)])
    boxes = np.concatenate([np.zeros((0, 4)), *(corners for _, corners in rows)])
    names = [name for tiles in plan for _, name in tiles]
    counts = {"scenes": len(plan), "tiles": len(names), "boxes": len(source)}
    counts |= {"boxes_lost": len(scenes.labels) - len(np.unique(source)), "fragments": fragments}
    return freeze(tiled(scenes, names, tile, source, boxes, image_rows)), plan, counts


def tiled(
    scenes: Annotations, names: list[str], tile: int, source: np.ndarray, boxes: np.ndarray, image_rows: list[int]
) -> Annotations:
    """The tiles' annotations: boxes (K, 4) taken from the scenes' rows `source`, `image_rows` of them for each tile."""
    return replace(
        scenes,
        file_names=names,
        sizes_hw=np.full((len(names), 2), tile, np.int64),
        image_ids=np.arange(1, len(names) + 1),
        image_index=np.repeat(np.arange(len(names)), image_rows).astype(np.int64),
        boxes=boxes,
        wh=None,
        labels=scenes.labels[source],
        areas=areas(boxes),
        ids=np.arange(1, len(source) + 1),
        problems=[],
        box_categories=scenes.box_categories[source],
        crowd=scenes.crowd[source],
        extra={name: column[source] for name, column in scenes.extra.items()},
    )


def cut_image(scene: np.ndarray, corner: Tile, size_hw: tuple[int, int]) -> np.ndarray:
    """The part of a scene (H, W, 3) that begins at (x, y), black where it reaches over the edge."""
    (x, y), (h, w) = corner, size_hw
    part = scene[y : y + h, x : x + w]
    if part.shape[:2] == (h, w):
        return part
    out = np.zeros((h, w, *scene.shape[2:]), scene.dtype)
    out[: part.shape[0], : part.shape[1]] = part
    return out


def cut_scene(path: Path, tiles: list[tuple[Tile, Path]], size_hw: tuple[int, int]) -> Iterator[Path]:
    """Write the tiles of one scene as PNG, those that are there already left as they are.

    Args:
        path: the scene, decoded only if a tile is missing.
        tiles: ((x, y), file) of each.
        size_hw: height and width of every tile.

    Yields:
        Every file written.

    Raises:
        UserError: the scene cannot be read.
    """
    missing = [(corner, file) for corner, file in tiles if not file.exists()]
    if not missing:
        return
    try:
        scene = images.load(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    for corner, file in missing:
        write_png(file, cut_image(scene, corner, size_hw))
        yield file


def write_png(path: Path, image: np.ndarray, *, overwrite: bool = False) -> None:
    """Write an image (H, W, 3) BGR as PNG, whole or not at all.

    Raises:
        UserError: the file exists and `overwrite` is not set.
        ValueError: no image.
    """
    done, data = cv2.imencode(".png", image)
    if not done:
        raise ValueError(f"{path}: OpenCV cannot encode an image of shape {image.shape} as PNG")
    with new_file(path, overwrite=overwrite, mode="wb") as stream:
        stream.write(data.tobytes())
