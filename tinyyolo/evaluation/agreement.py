"""How two annotation sets, or predictions and annotations, agree (the paper's section 3.3, Table 3 and Fig. 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.evaluation.errors import PAPER_SCORE, categories, image_record, size_index
from tinyyolo.evaluation.inputs import Detections, Truth, read_detections, read_truth, take
from tinyyolo.evaluation.matching import overlapping_pairs
from tinyyolo.evaluation.metrics import AITOD, AITOD_MAX_DETS, IOU_THRESHOLDS, evaluate
from tinyyolo.evaluation.records import read_json

SAME_PLACE = 0.5  # least IoU of a box and what became of it
CHANGES = ("same", "moved", "relabelled", "removed", "added")
SAME, MOVED, RELABELLED, REMOVED, ADDED = range(len(CHANGES))


@dataclass(frozen=True, eq=False)
class Pairing:
    """What became of the boxes of `first` (M,) in `second` (D,), as indices of CHANGES.

    Boxes of `first` are same, moved, relabelled or removed, those of `second` same, moved, relabelled or added.
    `partner` (M,) is the row in `second`, -1 for removed.
    """

    first: Truth
    second: Detections
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
    one, two, images = joined(first, second, ignore)
    agreement = evaluate(one, two, max_dets=max_dets, area_ranges=area_ranges, iou_thresholds=IOU_THRESHOLDS)
    pairing = pair_up(one, take(two, two.scores >= score))
    return {
        "agreement": agreement,
        "counts": count_sizes(pairing, area_ranges),
        "changes": count_changes(pairing),
        "images": images,
        "pairing": pairing,
    }


def joined(first: Any, second: Any, ignore: Sequence[str]) -> tuple[Truth, Detections, dict[str, int]]:
    """`first` as objects and `second` as detections of them, on the images that both have."""
    one = read_truth(first, ignore)
    content = read_json(second) if isinstance(second, (str, Path)) else second
    if not ((isinstance(content, Mapping) and "images" in content) or hasattr(content, "image_index")):
        source = str(second) if isinstance(second, (str, Path)) else "second"
        return one, read_detections(content, one, source), {"both": len(one.image_ids), "first": 0, "second": 0}
    two = read_truth(content, [name for name in ignore if name in class_names(content)])
    both = sorted(set(one.file_names) & set(two.file_names))
    if not both:
        raise UserError(f"{one.source} and {two.source} have no image in common (joined by file_name)")
    alien = sorted(set(two.names) - set(one.names))
    if alien:
        raise UserError(f"{two.source}: class {alien[0]} is not in {one.source} ({', '.join(one.names)})")
    images = {"both": len(both), "first": len(one.image_ids) - len(both), "second": len(two.image_ids) - len(both)}
    place = {name: i for i, name in enumerate(both)}
    one = on_images(one, place)
    two = on_images(two, place)
    rows = np.flatnonzero(~two.crowd)
    to_one = np.array([one.names.index(name) for name in two.names], np.int64)
    scores = np.ones(len(rows))
    return one, Detections(two.source, two.image[rows], to_one[two.category[rows]], two.boxes[rows], scores), images


def class_names(content: Any) -> list[str]:
    """The class names of a COCO dict; none of Annotations, which have left the ignored ones out already."""
    return [str(c.get("name")) for c in content["categories"]] if isinstance(content, Mapping) else []


def on_images(truth: Truth, place: Mapping[str, int]) -> Truth:
    """`truth` on the images of `place` (file name -> index) only, in that order."""
    index = np.array([place.get(name, -1) for name in truth.file_names], np.int64)
    order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    rows = np.flatnonzero(index[truth.image] >= 0)
    return replace(
        truth,
        image_ids=truth.image_ids[order],
        file_names=tuple(place),
        sizes_hw=truth.sizes_hw[order],
        image=index[truth.image[rows]],
        **{key: getattr(truth, key)[rows] for key in ("category", "boxes", "area", "crowd")},
    )


def pair_up(first: Truth, second: Detections) -> Pairing:
    """Pair boxes at IoU >= 0.5, the most alike first: those of one class, then of what is left those of any."""
    objects = np.flatnonzero(~first.crowd)
    columns = {key: getattr(first, key)[objects] for key in ("image", "category", "boxes", "area", "crowd")}
    plain = replace(first, **columns)
    partner = np.full(len(objects), -1)
    change = np.full(len(objects), REMOVED)
    second_change = np.full(len(second), ADDED)
    one_class = np.zeros(1, np.int64)
    flat = replace(plain, category_ids=one_class, category=np.zeros(len(objects), np.int64))
    flat_second = replace(second, category=np.zeros(len(second), np.int64))
    for truth, detections, verdict in ((plain, second, MOVED), (flat, flat_second, RELABELLED)):
        free = np.flatnonzero(second_change == ADDED)
        row, own, iou = overlapping_pairs(truth, detections, free, SAME_PLACE)
        for at in np.lexsort((row, own, -iou)).tolist():
            if partner[own[at]] < 0 and second_change[row[at]] == ADDED:
                partner[own[at]] = row[at]
                change[own[at]] = second_change[row[at]] = verdict
    moved = np.flatnonzero(change == MOVED)
    still = moved[(plain.boxes[moved] == second.boxes[partner[moved]]).all(1)]
    change[still], second_change[partner[still]] = SAME, SAME
    return Pairing(plain, second, change, second_change, partner)


def count_sizes(pairing: Pairing, area_ranges: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, int]]:
    """Boxes of each set by size (Fig. 6); "other" if some are in no range."""
    area = pairing.second.boxes[:, 2] * pairing.second.boxes[:, 3]
    first, second = size_index(pairing.first.area, area_ranges), size_index(area, area_ranges)
    names = [*enumerate(area_ranges), (-1, "other")]
    table = {name: {"first": int((first == i).sum()), "second": int((second == i).sum())} for i, name in names}
    if not any(table["other"].values()):
        del table["other"]
    return {"all": {"first": len(first), "second": len(second)}, **table}


def count_changes(pairing: Pairing) -> dict[str, dict[str, int]]:
    """Numbers of each change; a relabelled box counts under its class in `first`."""
    table = {}
    for k, name in enumerate(["all", *pairing.first.names], -1):
        own = pairing.first_change[(k < 0) | (pairing.first.category == k)]
        new = pairing.second_change[(k < 0) | (pairing.second.category == k)]
        table[name] = {word: int(((new if i == ADDED else own) == i).sum()) for i, word in enumerate(CHANGES)}
    return table


def changed_boxes(pairing: Pairing) -> dict[str, Any]:
    """Every box that is not the same as a COCO dict; `change` says what, `before` is the box and class of `first`."""
    first, second = pairing.first, pairing.second
    rows = [(i, int(pairing.partner[i])) for i in np.flatnonzero(pairing.first_change != SAME)]
    rows += [(-1, int(j)) for j in np.flatnonzero(pairing.second_change == ADDED)]
    annotations = []
    for key, (i, j) in enumerate(rows, 1):
        image, category, box = (
            (second.image[j], second.category[j], second.boxes[j])
            if j >= 0
            else (first.image[i], first.category[i], first.boxes[i])
        )
        change = ADDED if i < 0 else int(pairing.first_change[i])
        annotations.append(
            {
                "id": key,
                "image_id": first.image_ids[image].item(),
                "category_id": first.category_ids[category].item(),
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
                "change": CHANGES[change],
            }
        )
        if i >= 0 and j >= 0:
            before = {"category_id": first.category_ids[first.category[i]].item(), "bbox": first.boxes[i].tolist()}
            annotations[-1]["before"] = before
    images = [image_record(first, i) for i in range(len(first.image_ids))]
    return {"images": images, "annotations": annotations, "categories": categories(first)}
