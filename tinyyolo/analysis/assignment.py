"""What assigners do with the objects of a data set: the paper's Fig. 8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyyolo.assigners import ASSIGNERS, Assigner
from tinyyolo.boxes.anchors import AnchorGrid, Size
from tinyyolo.boxes.convert import areas, clip, sides
from tinyyolo.config import UserError, build, load_model_yaml, suggest
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.detectors.auto import Objects, settle
from tinyyolo.detectors.build import build_model
from tinyyolo.sizes import BOUNDS, filled_up

SIZE_NAMES = [f"<{BOUNDS[0]:g}", *(f"{low:g}-{high:g}" for low, high in pairwise(BOUNDS)), f">={BOUNDS[-1]:g}"]  # px
PRESETS = {  # the paper's Tables 6 to 8, RFLA and SimD
    "max-iou": {"type": "threshold", "similarity": "iou", "positive": 0.7, "negative": 0.3, "min_positive": 0.3},
    "max-nwd": {"type": "threshold", "similarity": "nwd", "positive": 0.7, "negative": 0.3, "min_positive": 0.3},
    "max-dotd": {"type": "threshold", "similarity": "dotd", "positive": 0.7, "negative": 0.3, "min_positive": 0.3},
    "nwd-rka": {"type": "ranking", "similarity": "nwd", "topk": 2, "negative_below": 0.3},
    "iou-rka": {"type": "ranking", "similarity": "iou", "topk": 2, "negative_below": 0.3},
    "atss": {"type": "atss", "topk": 9},
    "rfla": {"type": "hierarchical", "similarity": "kld", "topk": [3, 1]},
    "rfla-wd": {"type": "hierarchical", "similarity": "wd", "topk": [3, 1]},
    "simd": {"type": "threshold", "similarity": "simd", "positive": 0.7, "negative": 0.3, "min_positive": 0.3},
}
SIDE_BY_SIDE = ("max-iou", "max-nwd", "nwd-rka")  # the paper's Fig. 8
BATCH = 16  # images assigned at once


@dataclass(frozen=True)
class Scene:
    """One image in network input pixels: its size, objects (M, 4) and ignore regions (K, 4)."""

    size_hw: Size
    boxes: Tensor
    ignore: Tensor


@dataclass(frozen=True)
class Candidate:
    """An assigner on the anchors it works with."""

    assigner: Assigner
    grid: AnchorGrid
    inside_only: bool = False


def scenes_of(found: Annotations, imgsz: int | None = None) -> Iterator[Scene]:
    """The images of annotations that have objects, scaled to a longer side of `imgsz` px, padded, boxes clipped."""
    for image, rows in enumerate(map(found.rows, range(len(found)))):
        labels, (height, width) = found.labels[rows], found.sizes_hw[image].tolist()
        scale = imgsz / max(height, width) if imgsz else 1.0
        boxes = torch.from_numpy(clip(found.boxes[rows], (height, width)) * scale).float()
        kept = torch.from_numpy(labels != IGNORED) & (sides(boxes) > 0).all(1)
        ignored = torch.from_numpy(labels == IGNORED)
        if bool(kept.any()):
            height, width = (filled_up(int(imgsz or side)) for side in (height, width))
            yield Scene((height, width), boxes[kept], boxes[ignored])


def gather(
    model: str | Sequence[str],
    assigners: Any,
    constant: float,
    overrides: Mapping[str, Any],
    wh: Tensor,
    images: Objects = (),
) -> dict[str, Candidate]:
    """What stands side by side, by name: the assigners asked for, on the first model's anchors, and the models' own.

    Args:
        model, assigners, overrides: see `analyze`.
        constant: C, px, of assigners that do not name their own.
        wh, images: sizes (K, 2) and places of the objects, from which every `auto` of a model is settled.

    Raises:
        UserError: unknown model, assigner or key.
    """
    names = [model] if isinstance(model, str) else list(model)
    own = {Path(name).stem: candidate_of(name, overrides, wh, images) for name in names}
    first = next(iter(own.values()))
    if isinstance(assigners, Mapping):
        wanted = dict(assigners)
    else:
        chosen = assigners.split(",") if isinstance(assigners, str) else assigners or SIDE_BY_SIDE
        wanted = {str(name).strip(): PRESETS.get(str(name).strip()) for name in chosen}
        for name in wanted:
            if name not in PRESETS:
                raise UserError(f"assigners={name}: unknown; {suggest(name, PRESETS)}")
    out = {}
    for name, settings in wanted.items():
        if isinstance(settings, Mapping) and settings.get("similarity") in ("nwd", "dotd"):
            settings = {"constant": constant, **settings}
        out[name] = Candidate(build(ASSIGNERS, settings, f"assigners.{name}"), first.grid, first.inside_only)
    new = assigners is None and not any(alike(first.assigner, other.assigner) for other in out.values())
    return out | (own if len(own) > 1 or new else {})


def candidate_of(model: str, overrides: Mapping[str, Any], wh: Tensor, images: Objects = ()) -> Candidate:
    """The assigner and anchors with which a model's dense head (RPN, RetinaNet, YOLO) is trained."""
    detector = build_model(settle(load_model_yaml(model, overrides), wh, images))
    head: Any = detector.rpn_head if hasattr(detector, "rpn_head") else detector.bbox_head
    return Candidate(head.assigner, head.grid, getattr(head, "inside_only", False))


def alike(one: Assigner, other: Assigner) -> bool:
    """Whether two assigners have the same rule and settings."""
    return settings_of(one) == settings_of(other)


def settings_of(assigner: Assigner) -> dict[str, Any]:
    """The rule and settings of an assigner, those of the assigners that it is made of too."""
    parts = {key: settings_of(value) if isinstance(value, Assigner) else value for key, value in vars(assigner).items()}
    return {"rule": type(assigner), **{key: value for key, value in parts.items() if key != "pairwise"}}


def count_positives(candidate: Candidate, scenes: Sequence[Scene]) -> dict[str, Any]:
    """What an assigner does with images, as in the paper's Fig. 8.

    Args:
        candidate: the assigner and its anchors.
        scenes: images with objects.

    Returns:
        Lists over SIZE_NAMES: `objects`, `positives`, `without` (objects that have no anchor), `largest` (most anchors
        of one object). Totals: `negatives`, `ignored`. `anchors`: per level and box {stride, width, height, positives}.
    """
    sizes, counts, totals = [], [], {"negatives": 0, "ignored": 0}
    taken = [torch.zeros(n, dtype=torch.int64) for n in candidate.grid.per_cell]
    for size_hw, alike_sized in groupby(sorted(scenes, key=lambda s: s.size_hw), key=lambda s: s.size_hw):
        group = list(alike_sized)
        levels = candidate.grid.level_sizes(size_hw)
        for some in (group[i : i + BATCH] for i in range(0, len(group), BATCH)):
            boxes, ignore = [s.boxes for s in some], [s.ignore for s in some]
            found = candidate.assigner.on_grid_batch(candidate.grid, size_hw, boxes, ignore, candidate.inside_only)
            for one, objects in zip(found, boxes, strict=True):
                sizes.append(areas(objects).sqrt())
                counts.append(one.per_object(len(objects)))
                totals["negatives"] += len(one.negative_idx)
                totals["ignored"] += len(one.ignored_idx)
                for level, part in enumerate(torch.split(one.gt_index, levels)):
                    taken[level] += ((part >= 0).view(-1, candidate.grid.per_cell[level])).sum(0)
    size_bin, count = torch.bucketize(torch.cat(sizes), torch.tensor(BOUNDS), right=True), torch.cat(counts)
    each = [count[size_bin == i] for i in range(len(SIZE_NAMES))]
    anchors = [
        {"stride": stride, "width": float(x2 - x1), "height": float(y2 - y1), "positives": int(n)}
        for stride, base, level in zip(candidate.grid.strides, candidate.grid.base_boxes, taken, strict=True)
        for (x1, y1, x2, y2), n in zip(base.tolist(), level, strict=True)
    ]
    return {
        "objects": [len(c) for c in each],
        "positives": [int(c.sum()) for c in each],
        "without": [int((c == 0).sum()) for c in each],
        "largest": [int(c.max()) if len(c) else 0 for c in each],
        **totals,
        "anchors": anchors,
    }
