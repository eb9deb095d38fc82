"""Which anchors each rule gives to one object of a picture: the paper's Fig. 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyyolo.analysis.assignment import Candidate, Scene, scenes_of
from tinyyolo.boxes.convert import centres, clip, sides
from tinyyolo.boxes.similarity import measure
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations, subset
from tinyyolo.datasets.drawn.toy import draw_scene
from tinyyolo.datasets.views import View, in_memory
from tinyyolo.evaluation.report import find_image
from tinyyolo.io import tell
from tinyyolo.plots.frames import place_of, view_of

DRAWN, DRAWN_SIDES, DRAWN_SEED = 256, (10, 2), 6  # px, of the example that is drawn where there are no data
MARGIN = 2  # sides: an object is better shown with so much around it
LARGEST, LATTICE = 2048, 512  # px: of a larger picture only the part around the object is assigned, at a multiple of


@dataclass(frozen=True)
class Example:
    """One object of a picture: all objects in px of the network input, which of them, and the picture itself."""

    scene: Scene
    index: int
    view: View
    scale: float  # px of the network input for one of the picture
    title: str

    @property
    def box(self) -> Tensor:
        """(4,) xyxy, px of the network input."""
        return self.scene.boxes[self.index]


def drawn_example() -> Example:
    """A drawn scene and one of its tiny objects, of about the median size."""
    pixels, boxes, _ = draw_scene(np.random.default_rng(DRAWN_SEED), DRAWN, side_px=DRAWN_SIDES)
    index = middling(boxes, np.full((len(boxes), 2), DRAWN))
    scene = Scene((DRAWN, DRAWN), torch.from_numpy(boxes).float(), torch.zeros(0, 4))
    return Example(scene, index, in_memory(pixels), 1.0, "drawn example")


def example_of(
    found: Annotations, folder: Path | None, image: str | None, key: int | None, imgsz: int | None
) -> Example:
    """An object of a data set: one of about the median size, if it is not named.

    Args:
        found: all objects.
        folder: of the pictures; None, or a picture that is not there: plain ground, which is told.
        image: the object is on the image of this file name.
        key: its annotation id.
        imgsz: longer side of the network input, px; None leaves pictures as they are.

    Raises:
        UserError: no such image, object or folder, or none with objects.
    """
    if folder is not None and not folder.is_dir():
        raise UserError(f"images={folder}: no such folder")
    boxes = clip(found.boxes, found.sizes_hw[found.image_index])
    wanted = (found.labels != IGNORED) & (sides(boxes) > 0).all(1)
    if image is not None:
        wanted &= found.image_index == place_of(found.file_names, image, "image")
    if key is not None:
        wanted &= found.ids == key
    rows = np.flatnonzero(wanted)
    if not len(rows):
        what = [f"image={image}"] * (image is not None) + [f"object={key}"] * (key is not None)
        raise UserError(f"{', '.join(what)}: {found.path} has no such object")
    row = int(rows[middling(boxes[rows], found.sizes_hw[found.image_index[rows]])])
    number = int(found.image_index[row])
    scene = next(scenes_of(subset(found, np.arange(len(found)) == number), imgsz))
    height, width = found.sizes_hw[number].tolist()
    scale = imgsz / max(height, width) if imgsz else 1.0
    name = found.file_names[number]
    if (file := find_image(folder, name)) is None:
        tell(f"{name}: no such picture in {folder}" if folder else f"{name}: images= gives the folder of its picture")
    view = view_of(file, (height, width), boxes[row : row + 1])
    return Example(scene, nearest(scene.boxes, boxes[row] * scale), view, scale, name)


def nearest(boxes: Tensor, box: np.ndarray) -> int:
    """The box (M, 4) that is this one (4,); of equal ones the last, which keeps the anchors."""
    away = (boxes - torch.from_numpy(box).float()).abs().sum(1)
    return int((away == away.min()).nonzero()[-1])


def middling(boxes: np.ndarray, sizes_hw: np.ndarray) -> int:
    """Of objects (K, 4) xyxy px the first of the size nearest to the median, with room around it if there is one.

    Examples:
        >>> middling(np.array([[0.0, 0, 9, 9], [40, 40, 49, 49], [20, 20, 60, 60]]), np.full((3, 2), 90))
        1
    """
    size = np.sqrt(sides(boxes).prod(1))
    margin = MARGIN * size[:, None]
    roomy = ((boxes[:, :2] >= margin) & (boxes[:, 2:] <= sizes_hw[:, ::-1] - margin)).all(1)
    away = np.abs(np.log(size / np.median(size)))
    return int(np.where(roomy | ~roomy.any(), away, np.inf).argmin())


def anchors_of(candidates: Mapping[str, Candidate], example: Example, constant: float) -> dict[str, Any]:
    """The positive anchors of the object by rule; `constant` is C of the NWD that is told, px.

    Returns:
        `title`, `box` (px of the network input), and `rules`: name -> {"positive": anchors, "nearest": the anchor of
        the highest IoU}; an anchor is {"box", "stride", "iou", "nwd"}.
    """
    scene, index, start = part_of(example.scene, example.index)
    rules = {}
    for name, candidate in candidates.items():
        grid = candidate.grid
        anchors, levels = grid.boxes(scene.size_hw), grid.level_sizes(scene.size_hw)
        found = candidate.assigner.on_grid(grid, scene.size_hw, scene.boxes, scene.ignore, candidate.inside_only)
        strides = torch.repeat_interleave(torch.tensor(grid.strides), torch.tensor(levels))
        taken = (found.gt_index == index).nonzero()[:, 0]
        iou = measure("iou").aligned(scene.boxes[index : index + 1], anchors)
        rows = torch.cat((taken, iou.argmax()[None]))
        nwd = measure("nwd", constant).aligned(scene.boxes[index : index + 1], anchors[rows])
        columns = {"box": anchors[rows] + start, "stride": strides[rows], "iou": iou[rows], "nwd": nwd}
        records = zip(*(column.tolist() for column in columns.values()), strict=True)
        *positive, best = [dict(zip(columns, record, strict=True)) for record in records]
        rules[name] = {"positive": positive, "nearest": best}
    return {"title": example.title, "box": example.box.tolist(), "rules": rules}


def part_of(scene: Scene, index: int) -> tuple[Scene, int, Tensor]:
    """What is assigned of a picture: all, or of a large one the part around the object.

    Returns:
        the part, the object's index in it, and where it begins, (4,) x, y, x, y px: whole cells of every level.
    """
    height, width = scene.size_hw
    if max(height, width) <= LARGEST:
        return scene, index, torch.zeros(4)
    corner = ((centres(scene.boxes[index]) - LARGEST / 2) / LATTICE).floor().clamp(min=0) * LATTICE
    start = corner.repeat(2)
    size = min(LARGEST, height - int(corner[1])), min(LARGEST, width - int(corner[0]))

    def inside(boxes: Tensor) -> Tensor:
        far = torch.tensor([size[1], size[0]]) + corner
        return ((boxes[:, 2:] > corner) & (boxes[:, :2] < far)).all(1)

    kept = inside(scene.boxes)
    part = Scene(size, scene.boxes[kept] - start, scene.ignore[inside(scene.ignore)] - start)
    return part, int(kept[:index].sum()), start
