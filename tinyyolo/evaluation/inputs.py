"""Objects and detections as `Annotations`, from COCO JSON paths, dicts, records or arrays, checked once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.annotations import IGNORED, Annotations, by_id, take
from tinyyolo.datasets.formats import coco


def read_truth(gt: Any, ignore: Sequence[str] = (), *, rules: str = "tinyyolo", source: str = "gt") -> Annotations:
    """Objects from a COCO JSON path, a COCO dict, or `Annotations`; images and classes in the order of their ids.

    Of what is read here, faults are told in a line on stderr.

    Args:
        gt: the objects.
        ignore: names of categories whose boxes are ignore regions for all other classes, such as HIT-UAV's DontCare.
        rules: how a file is read: "tinyyolo", or "coco" for exactly as pycocotools does (`formats.coco.read`).
        source: how messages call `gt`; of a file, its path.

    Raises:
        UserError: unreadable, a key or value is wrong, an id is doubled or refers to nothing.
    """
    if isinstance(gt, Annotations):
        return by_id(ignore_classes(gt, ignore))
    if isinstance(gt, (str, Path)):
        truth = coco.read(gt, rules=rules, images=False)
    else:
        truth = coco.from_content(gt, source, rules=rules)
    tell(truth)
    return by_id(ignore_classes(truth, ignore))


def ignore_classes(truth: Annotations, names: Sequence[str]) -> Annotations:
    """`truth` without the named classes, whose boxes become ignore regions of all others."""
    known = list(truth.names.values())
    for name in names:
        if name not in [*known, *truth.categories.values()]:
            raise UserError(f"ignore: {truth.path} has no class {name!r}; {suggest(name, known)}")
    keep = np.array([name not in names for name in known], bool)
    if keep.all():
        return truth
    index = np.append(np.where(keep, np.cumsum(keep) - 1, IGNORED), IGNORED)
    left = dict(enumerate(name for name in known if name not in names))
    return replace(truth, names=left, category_ids=truth.category_ids[keep], labels=index[truth.labels])


def tell(truth: Annotations) -> None:
    """A line to stderr of the faults in a file, and one where COCO's rules would read it otherwise."""
    if truth.problems:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in Counter(p.kind for p in truth.problems).items())
        first = truth.problems[0].removeprefix(f"{truth.path}: ")
        print(f"{truth.path}: {len(truth.problems):,} faults ({kinds}); the first: {first}", file=sys.stderr)
    if truth.unlike_coco:
        print(
            f"{truth.path}: {truth.unlike_coco:,} boxes are read in one way by rules=tinyyolo and in another by "
            "rules=coco (marked `ignore`, or without area); compare published figures by rules=coco",
            file=sys.stderr,
        )


def spread_regions(truth: Annotations) -> tuple[Annotations, np.ndarray, np.ndarray]:
    """`truth` with every region of all classes repeated for each class, each box's class, and the row it came from."""
    classes, count = truth.classes, len(truth.names)
    shared = classes < 0
    if not shared.any():
        return truth, classes, np.arange(len(classes))
    rows = np.repeat(np.arange(len(classes)), np.where(shared, count, 1))
    spread = classes[rows]
    spread[shared[rows]] = np.tile(np.arange(count), int(shared.sum()))
    return take(truth, rows), spread, rows
