"""How two annotation sets, or predictions and annotations, agree (the paper's section 3.3, Table 3 and Fig. 6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Annotations, arrange, subset, take
from tinyyolo.datasets.formats import coco
from tinyyolo.datasets.formats.decode import read_bytes
from tinyyolo.evaluation.detections import from_columns, read_detections
from tinyyolo.evaluation.errors import PAPER_SCORE, size_index
from tinyyolo.evaluation.inputs import read_truth
from tinyyolo.evaluation.matching import cells, overlapping_pairs, scores_of
from tinyyolo.evaluation.metrics import AITOD_MAX_DETS, IOU_THRESHOLDS, evaluate
from tinyyolo.sizes import AITOD

SAME_PLACE = 0.5  # least IoU of a box and what became of it
CHANGES = ("same", "moved", "relabelled", "removed", "added")
SAME, MOVED, RELABELLED, REMOVED, ADDED = range(len(CHANGES))


@dataclass(frozen=True, eq=False)
class Pairing:
    """What became of the boxes of `first` (M,) in `second` (D,), as indices of CHANGES.

    Boxes of `first` are same, moved, relabelled or removed, those of `second` same, moved, relabelled or added.
    `partner` (M,) is the row in `second`, -1 for removed.
    """

    first: Annotations
    second: Annotations
    first_change: np.ndarray
    second_change: np.ndarray
    partner: np.ndarray


def compare(
    first: Any,
    second: Any,
    *,
    score: float = PAPER_SCORE,
    area_ranges: Mapping[str, tuple[float, float]] = AITOD,
    max_dets: Sequence[int] = AITOD_MAX_DETS,
    ignore: Sequence[str] = (),
    rules: str = "tinyyolo",
) -> dict[str, Any]:
    """Agreement of `second` with `first`.

    Two annotation files are joined by file name and class name, since their ids may differ; predictions by id.
    Ignore regions of `first` count as in `evaluate`, those of `second` are left out.

    Args:
        first: annotations, as `evaluate` takes objects.
        second: annotations, or predictions as `evaluate` takes them.
        score: least score of a prediction that is counted or can be a change; AP takes them all.
        area_ranges: names and sides in px.
        max_dets: limits for each image and class.
        ignore: names of categories whose boxes are ignore regions.
        rules: how annotations are read, as of `evaluate`.

    Returns:
        `agreement`: what `evaluate` returns for `second` as detections of `first`, annotations with score 1.
        `counts`: by size, the boxes in `first` and in `second`. `changes`: by class ("all" first) the numbers of
        boxes that are the same, moved (IoU >= 0.5), relabelled (so, but of another class), removed, added.
        `images`: how many both have, and only one. `pairing`: the verdict on each box.

    Raises:
        UserError: as `evaluate`, or two annotation files without a common image.

    Examples:
        >>> a = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "ship"}],
        ...      "annotations": [{"image_id": 1, "category_id": 1, "bbox": [x, 0, 6, 6]} for x in (0, 20, 40)]}
        >>> b = a | {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [x, 0, 6, 6]} for x in (0, 21, 60)]}
        >>> compare(a, b)["changes"]["ship"]
        {'same': 1, 'moved': 1, 'relabelled': 0, 'removed': 1, 'added': 1}
    """
    settings: dict[str, Any] = {"area_ranges": area_ranges, "max_dets": max_dets, "ignore": ignore, "rules": rules}
    return compare_all(first, [second], score=score, **settings)[0]


def compare_all(
    first: Any,
    others: Sequence[Any],
    *,
    score: float = PAPER_SCORE,
    area_ranges: Mapping[str, tuple[float, float]] = AITOD,
    max_dets: Sequence[int] = AITOD_MAX_DETS,
    ignore: Sequence[str] = (),
    rules: str = "tinyyolo",
) -> list[dict[str, Any]]:
    """What `compare` returns of each of `others` with `first`, all on the images that all annotation sets have.

    Raises:
        UserError: as `compare`.
    """
    one, sets, images = joined(read_truth(first, ignore, rules=rules, source="first"), others, ignore, rules)
    results = []
    for two, shared in zip(sets, images, strict=True):
        agreement = evaluate(one, two, max_dets=max_dets, area_ranges=area_ranges, iou_thresholds=IOU_THRESHOLDS)
        pairing = pair_up(one, take(two, scores_of(two) >= score))
        counts, changes = count_sizes(pairing, area_ranges), count_changes(pairing)
        kept = {"agreement": agreement, "counts": counts, "changes": changes, "images": shared, "pairing": pairing}
        results.append(kept)
    return results


def joined(
    one: Annotations, others: Sequence[Any], ignore: Sequence[str], rules: str
) -> tuple[Annotations, list[Annotations], list[dict[str, int]]]:
    """`one` as objects and `others` as detections of them, on the images that all have, and how many these are.

    Raises:
        UserError: no common image, a name twice in one file, or a class that `one` lacks.
    """
    words = ["second", "third"][: len(others)]
    truths = [as_truth(given, word, ignore, rules) for word, given in zip(words, others, strict=True)]
    both = set(one.file_names).intersection(*(two.file_names for two in truths if two is not None))
    for two in truths:
        if two is not None and not both:
            raise UserError(f"{one.path} and {two.path} have no image in common (joined by file_name)")
    names, shared = sorted(both), any(two is not None for two in truths)
    here = on_images(one, names) if shared else one
    sets, images = [], []
    for word, given, two in zip(words, others, truths, strict=True):
        if two is not None:
            lone = len(two) - len(names)
            sets.append(as_detections(on_images(two, names), here))
        else:
            lone, found = 0, read_detections(given, one, word)
            sets.append(read_detections(on_images(found, names), here) if shared else found)
        images.append({"both": len(here), "first": len(one) - len(here), "second": lone})
    return here, sets, images


def as_detections(two: Annotations, one: Annotations) -> Annotations:
    """The objects of `two`, on the same images in the same order, as detections of `one`; regions are left out.

    Raises:
        UserError: a class that `one` lacks.
    """
    names = list(one.names.values())
    if alien := sorted(set(two.names.values()) - set(names)):
        raise UserError(f"{two.path}: class {alien[0]} is not in {one.path} ({', '.join(names)})")
    two = subset(two, boxes=two.labels >= 0)
    label = np.array([names.index(name) for name in two.names.values()], np.int64)[two.labels]
    return from_columns(one, str(two.path), two.image_index, label, two.xywh, np.ones(len(label)))


def annotated(given: Any) -> bool:
    """Whether a set is one of annotations, and not of predictions."""
    if isinstance(given, (str, Path)):
        return read_bytes(Path(given))[:64].lstrip()[:1] != b"["
    if isinstance(given, Annotations):
        return given.scores is None
    return isinstance(given, Mapping) and "images" in given


def as_truth(given: Any, word: str, ignore: Sequence[str], rules: str) -> Annotations | None:
    """A set if it is one of annotations; None for predictions."""
    if not annotated(given):
        return None
    two = read_truth(given, rules=rules, source=word)
    return read_truth(two, [name for name in ignore if name in two.names.values()])


def on_images(notes: Annotations, names: Sequence[str]) -> Annotations:
    """`notes` on the images of these file names only, in that order.

    Raises:
        UserError: an image stands there twice.
    """
    twice = [name for name, times in Counter(notes.file_names).items() if times > 1]
    if twice:
        raise UserError(f"{notes.path}: image {twice[0]} stands there twice; files are joined by file_name")
    index = {name: i for i, name in enumerate(notes.file_names)}
    wanted = np.array([index[name] for name in names], np.int64)
    return arrange(take(notes, np.isin(notes.image_index, wanted)), wanted)


def pair_up(first: Annotations, second: Annotations) -> Pairing:
    """Pair boxes at IoU >= 0.5, the most alike first: those of one class, then of what is left those of any."""
    plain = subset(first, boxes=first.labels >= 0)
    partner = np.full(len(plain.labels), -1)
    change = np.full(len(plain.labels), REMOVED)
    second_change = np.full(len(second.labels), ADDED)
    of_class = (cells(plain, plain.labels), cells(second, second.labels), MOVED)
    of_any = (plain.image_index, second.image_index, RELABELLED)
    for own_cell, new_cell, verdict in (of_class, of_any):
        free = np.flatnonzero(second_change == ADDED)
        row, own, iou = overlapping_pairs(plain, own_cell, second, new_cell, free, SAME_PLACE)
        for at in np.lexsort((row, own, -iou)).tolist():
            if partner[own[at]] < 0 and second_change[row[at]] == ADDED:
                partner[own[at]] = row[at]
                change[own[at]] = second_change[row[at]] = verdict
    moved = np.flatnonzero(change == MOVED)
    still = moved[(plain.xywh[moved] == second.xywh[partner[moved]]).all(1)]
    change[still], second_change[partner[still]] = SAME, SAME
    return Pairing(plain, second, change, second_change, partner)


def count_sizes(pairing: Pairing, area_ranges: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, int]]:
    """Boxes of each set by size (Fig. 6); "other" if some are in no range."""
    first, second = (size_index(notes.areas, area_ranges) for notes in (pairing.first, pairing.second))
    names = [*enumerate(area_ranges), (-1, "other")]
    table = {name: {"first": int((first == i).sum()), "second": int((second == i).sum())} for i, name in names}
    if not any(table["other"].values()):
        del table["other"]
    return {"all": {"first": len(first), "second": len(second)}, **table}


def count_changes(pairing: Pairing) -> dict[str, dict[str, int]]:
    """Numbers of each change; a relabelled box counts under its class in `first`."""
    table = {}
    for k, name in enumerate(["all", *pairing.first.names.values()], -1):
        own = pairing.first_change[(k < 0) | (pairing.first.labels == k)]
        new = pairing.second_change[(k < 0) | (pairing.second.labels == k)]
        table[name] = {word: int(((new if i == ADDED else own) == i).sum()) for i, word in enumerate(CHANGES)}
    return table


def changed_boxes(pairing: Pairing) -> dict[str, Any]:
    """Every box that is not the same as a COCO dict; `change` says what, `before` is the box and class of `first`."""
    own, new = (list(coco.annotation_records(notes)) for notes in (pairing.first, pairing.second))
    rows = [(i, int(pairing.partner[i])) for i in np.flatnonzero(pairing.first_change != SAME).tolist()]
    rows += [(-1, int(j)) for j in np.flatnonzero(pairing.second_change == ADDED)]
    annotations = []
    for key, (i, j) in enumerate(rows, 1):
        record = new[j] if j >= 0 else own[i]
        change = CHANGES[ADDED if i < 0 else int(pairing.first_change[i])]
        kept = {name: record[name] for name in ("image_id", "category_id", "bbox", "area", "iscrowd")}
        annotations.append({"id": key, **kept, "change": change})
        if i >= 0 and j >= 0:
            annotations[-1]["before"] = {name: own[i][name] for name in ("category_id", "bbox")}
    return coco.to_content(take(pairing.first, np.zeros(0, np.int64))) | {"annotations": annotations}
