"""Cut large scenes into tiles, by the rules that AI-TOD and its sources were cut by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyyolo.boxes.convert import areas, centres, clip, sides
from tinyyolo.config import UserError
from tinyyolo.datasets import images
from tinyyolo.datasets.annotations import IGNORED, Annotations, take
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering

KEEP = 0.3  # least share of an object's area that stays in a tile
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


def staying(boxes: np.ndarray, corner: Tile, tile: int | np.ndarray, keep: float | str) -> np.ndarray:
    """Which boxes (K, 4) stay in the tile at `corner`: (K,) bool.

    Args:
        boxes: xyxy in pixels of the scene.
        corner: x, y of the tile.
        tile: its side, or its width and height, for each box (K, 2).
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


def cut_boxes(
    boxes: np.ndarray, ignored: np.ndarray, corner: Tile, size_hw: Tile, tile: int, keep: float | str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What lies in the tile at `corner` of boxes (K, 4) xyxy px of a scene.

    Args:
        boxes: of the scene.
        ignored: (K,) bool, ignore regions, of which whatever is inside stays.
        corner: x, y of the tile.
        size_hw: of the part of it that is in the scene, px.
        tile: its side.
        keep: see `staying`.

    Returns:
        (K, 4) boxes in px of the tile, cut at its edge; (K,) bool which of them stay, and which have a part inside.

    Examples:
        A third of the first box is inside, a tenth of the second.

        >>> boxes, none = np.array([[96.0, 0, 108, 5], [99, 0, 109, 5]]), np.zeros(2, bool)
        >>> inner, stay, solid = cut_boxes(boxes, none, (0, 0), (100, 100), 100, KEEP)
        >>> inner[0].tolist(), stay.tolist(), solid.tolist()
        ([96.0, 0.0, 100.0, 5.0], [True, False], [True, True])
    """
    inner = clip(boxes - (*corner, *corner), size_hw)
    solid = np.asarray((sides(inner) > 0).all(axis=1))
    return inner, solid & (ignored | staying(boxes, corner, tile, keep)), solid


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
    plan, rows, boxes, image_rows = [], [np.zeros(0, np.int64)], [np.zeros((0, 4))], []
    fragments = 0
    for scene, name in enumerate(scenes.file_names):
        rows_of = scenes.rows(scene)
        part = np.arange(rows_of.start, rows_of.stop)
        ignored, (h, w) = scenes.labels[part] == IGNORED, scenes.sizes_hw[scene].tolist()
        tiles = grid((h, w), tile, overlap)
        plan.append([(corner, name_of(name, corner)) for corner in tiles])
        for x, y in tiles:
            inside_hw = min(tile, h - y), min(tile, w - x)
            inner, stay, solid = cut_boxes(scenes.boxes[part], ignored, (x, y), inside_hw, tile, keep)
            fragments += int((solid & ~stay).sum())
            rows.append(part[stay])
            boxes.append(inner[stay])
            image_rows.append(int(stay.sum()))
    source, inside = np.concatenate(rows), np.concatenate(boxes)
    names = [name for tiles in plan for _, name in tiles]
    counts = {"scenes": len(plan), "tiles": len(names), "boxes": len(source)}
    counts |= {"boxes_lost": len(scenes.labels) - len(np.unique(source)), "fragments": fragments}
    made = take(
        scenes,
        source,
        file_names=names,
        sizes_hw=np.full((len(names), 2), tile, np.int64),
        image_ids=np.arange(1, len(names) + 1),
        image_index=np.repeat(np.arange(len(names)), image_rows).astype(np.int64),
        boxes=inside,
        wh=None,
        areas=areas(inside),
        ids=np.arange(1, len(source) + 1),
        problems=[],
    )
    return made, plan, counts


def cut_image(scene: np.ndarray, corner: Tile, size_hw: tuple[int, int]) -> np.ndarray:
    """The part of a scene (H, W, 3) that begins at (x, y), black where it reaches over the edge."""
    (x, y), (h, w) = corner, size_hw
    part = scene[y : y + h, x : x + w]
    return np.pad(part, ((0, h - part.shape[0]), (0, w - part.shape[1]), (0, 0)))


def cut_scene(
    path: Path, tiles: list[tuple[Tile, Path]], size_hw: tuple[int, int], rendering: Rendering = AS_DECLARED
) -> None:
    """Write the tiles of one scene, ((x, y), file) of each, as PNG; those that are there already are left as they are.

    Raises:
        UserError: the scene, which is decoded only if a tile is missing, cannot be read.
    """
    missing = [(corner, file) for corner, file in tiles if not file.exists()]
    if not missing:
        return
    try:
        scene = images.load(path, rendering)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    for corner, file in missing:
        images.save(file, cut_image(scene, corner, size_hw))
