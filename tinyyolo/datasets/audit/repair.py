"""A cleaned copy of a data set's annotations. The images and the old annotations are left as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tinyyolo.boxes.convert import areas, clip
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Annotations, subset
from tinyyolo.datasets.audit.faults import Checked, box_masks
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.datasets.spec import DataSpec
from tinyyolo.io import new_file

DROPPED_BY_READING = "records that could not be read left out"


def write(
    spec: DataSpec, checked: Mapping[str, Checked], folder: Path, *, overwrite: bool = False
) -> dict[str, dict[str, int]]:
    """Write a COCO JSON for every split and a data YAML that points at them and at the old images.

    Returns:
        Split -> what was done -> how many times.

    Raises:
        UserError: the copy exists and `overwrite` is not set, or would stand where the old annotations are.
    """
    target = folder / f"{spec.title}.yaml"
    if target.exists() and not overwrite:
        raise UserError(f"{target}: exists; overwrite=true replaces it")
    done, jsons = {}, {}
    for split, found in checked.items():
        cleaned, done[split] = clean(found)
        jsons[split] = (folder / f"{split}.json").absolute()
        if jsons[split] == spec.splits[split].annotations:
            raise UserError(f"{jsons[split]}: is the set's own file; give another folder: out=...")
        coco_json.write(jsons[split], cleaned, overwrite=overwrite)
    content: dict[str, Any] = {"path": str(spec.path)}
    content |= {split: str(found.folder.absolute()) for split, found in checked.items()}
    content["annotations"] = {split: str(path) for split, path in jsons.items()}
    content["names"] = list(spec.names.values())
    content |= {"ignore": list(spec.ignore)} if spec.ignore else {}
    with new_file(target, overwrite=overwrite) as stream:
        stream.write(f"# Cleaned by `tinyyolo data check {spec.file.name} fix=true`.\n")
        yaml.safe_dump(content, stream, sort_keys=False)
    return done


def clean(found: Checked) -> tuple[Annotations, dict[str, int]]:
    """The annotations without what cannot be used, and what was done to them.

    Images that are missing or unreadable go with their boxes, sizes are the images' own, boxes are cut at the edge,
    boxes outside and second copies go, areas become w * h where they were impossible, double ids are numbered anew.
    Tiny boxes stay: they may be objects.
    """
    annotations = found.annotations
    usable = np.array([not image.look.fault for image in found.opened], bool)
    told = zip(found.opened, annotations.sizes_hw.tolist(), strict=True)
    sizes = [image.look.size_hw if image.look.bands else size for image, size in told]
    sizes_hw = np.array(sizes, np.int64).reshape(-1, 2)
    resized = int((sizes_hw != annotations.sizes_hw).any(axis=1).sum())
    kept = subset(replace(annotations, sizes_hw=sizes_hw), images=usable)
    masks = box_masks(kept)
    clipped = clip(kept.boxes, kept.sizes_hw[kept.image_index])
    solid = np.where(masks["area"] | masks["over the edge"], areas(clipped), kept.areas)
    good = ~(masks["outside"] | masks["duplicate box"])
    ids, renumbered = unique_ids(kept.ids)
    done = {
        "images left out": int((~usable).sum()),
        "boxes of those images left out": len(annotations.labels) - len(kept.labels),
        "sizes set to the image's": resized,
        "boxes outside left out": int(masks["outside"].sum()),
        "second copies left out": int((masks["duplicate box"] & ~masks["outside"]).sum()),
        "boxes cut at the edge": int(masks["over the edge"].sum()),
        "areas set to w * h": int(masks["area"].sum()),
        "ids numbered anew": renumbered,
        DROPPED_BY_READING: len(annotations.problems),
    }
    return subset(replace(kept, boxes=clipped, areas=solid, ids=ids, wh=None), boxes=good), done


def unique_ids(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """The ids (K,) with later doubles replaced by new ones above all others, and how many were.

    Examples:
        >>> unique_ids(np.array([4, 4, 2]))
        (array([4, 5, 2]), 1)
    """
    _, first = np.unique(ids, return_index=True)
    again = np.ones(len(ids), bool)
    again[first] = False
    out = ids.copy()
    out[again] = int(ids.max(initial=0)) + 1 + np.arange(int(again.sum()))
    return out, int(again.sum())


def in_words(done: Mapping[str, Mapping[str, int]], folder: Path) -> str:
    """What was done, for people."""
    lines = [f"cleaned copy: {folder}"]
    for split, counts in done.items():
        acts = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
        lines.append(f"  {split}: {acts or 'nothing to do'}")
    return "\n".join(lines)
