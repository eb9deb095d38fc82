"""A cleaned copy of a data set's annotations. The images and the old annotations are left as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.boxes.convert import areas, clip
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Annotations, subset
from tinyyolo.datasets.audit.faults import Checked, box_masks, repeated
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.datasets.formats.doubts import REMARKS
from tinyyolo.datasets.spec import DataSpec, write_yaml
from tinyyolo.io import counted


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
    content |= {"names": list(spec.names.values()), "ignore": list(spec.ignore)}
    write_yaml(target, content, f"Cleaned by `tinyyolo data check {spec.file.name} fix=true`.", overwrite=overwrite)
    return done


def clean(found: Checked) -> tuple[Annotations, dict[str, int]]:
    """The annotations without what cannot be used, and what was done to them.

    Images that are missing or unreadable go with their boxes, sizes are the images' own, boxes are cut at the edge,
    boxes outside and second copies go, areas become w * h where they were impossible, double ids are numbered anew.
    Tiny boxes stay: they may be objects.
    """
    annotations = found.annotations
    looks = [look for look, _ in found.opened]
    usable = np.array([not look.fault for look in looks], bool)
    sizes_hw = annotations.sizes_hw.copy()
    for i, look in enumerate(looks):
        sizes_hw[i] = look.size_hw if look.bands else sizes_hw[i]
    kept = subset(replace(annotations, sizes_hw=sizes_hw), images=usable)
    masks = box_masks(kept)
    clipped = clip(kept.boxes, kept.sizes_hw[kept.image_index])
    solid = np.where(masks["area"] | masks["over the edge"], areas(clipped), kept.areas)
    good = ~(masks["outside"] | masks["duplicate box"])
    again, ids = repeated(kept.ids), kept.ids.copy()
    ids[again] = int(ids.max(initial=0)) + 1 + np.arange(again.sum())
    done = {
        "images left out": int((~usable).sum()),
        "boxes of those images left out": len(annotations.labels) - len(kept.labels),
        "sizes set to the image's": int((sizes_hw != annotations.sizes_hw).any(axis=1).sum()),
        "boxes outside left out": int(masks["outside"].sum()),
        "second copies left out": int((masks["duplicate box"] & ~masks["outside"]).sum()),
        "boxes cut at the edge": int(masks["over the edge"].sum()),
        "areas set to w * h": int(masks["area"].sum()),
        "ids numbered anew": int(again.sum()),
        "records that could not be read left out": sum(problem.kind not in REMARKS for problem in annotations.problems),
    }
    return subset(replace(kept, boxes=clipped, areas=solid, ids=ids, wh=None), boxes=good), done


def in_words(done: Mapping[str, Mapping[str, int]], folder: Path) -> str:
    """What was done, for people."""
    lines = [f"  {split}: {counted(counts) or 'nothing to do'}" for split, counts in done.items()]
    return "\n".join([f"cleaned copy: {folder}", *lines])
