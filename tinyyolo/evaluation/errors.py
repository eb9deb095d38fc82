"""What went wrong: every detection above its threshold and every object becomes TP, FP or FN, and each FP has a cause.

The paper's own relabelling aid (section 3.1) is the list of confident false positives on plain background.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.annotations import IGNORED as NO_CLASS
from tinyyolo.datasets.annotations import Annotations, subset, take
from tinyyolo.datasets.formats import coco
from tinyyolo.evaluation.detections import read_detections
from tinyyolo.evaluation.inputs import read_truth, spread_regions
from tinyyolo.evaluation.matching import match, overlapping_pairs, rank_detections, scores_of
from tinyyolo.evaluation.metrics import AITOD_MAX_DETS, ALL_AREAS, LRP_TAU, evaluate
from tinyyolo.io import new_file
from tinyyolo.sizes import AITOD

# Of a detection: below its threshold, on an ignore region, right, or wrong for one of four reasons.
HIDDEN, IGNORED, TRUE, LOCALISATION, CONFUSION, DUPLICATE, BACKGROUND = range(7)
CAUSES = {LOCALISATION: "localisation", CONFUSION: "confusion", DUPLICATE: "duplicate", BACKGROUND: "background"}
REGION, FOUND, MISSED = range(3)  # of an object
NEAR = 0.1  # least IoU of a localisation error
PAPER_SCORE = 0.3  # the confidence threshold of section 3.1; here for classes of which no detection is right
COUNTS = ("objects", "TP", "FP", "FN", *CAUSES.values())


@dataclass(frozen=True, eq=False)
class Errors:
    """Verdicts on D detections and M objects.

    `verdict` (D,) is one of HIDDEN to BACKGROUND, `state` (M,) one of REGION, FOUND, MISSED. `partner` (D,) is the
    object that a detection found, or else the one it overlaps most (-1 for none), with `iou` (D,). `thresholds` (C,)
    are the scores from which detections count. `dt_size`, `gt_size` index `sizes`, names of ranges of the side.
    """

    truth: Annotations
    detections: Annotations
    thresholds: np.ndarray
    sizes: tuple[str, ...]
    verdict: np.ndarray
    partner: np.ndarray
    iou: np.ndarray
    state: np.ndarray
    dt_size: np.ndarray
    gt_size: np.ndarray


def find_errors(
    gt: Any,
    dt: Any,
    *,
    threshold: float | Mapping[str, float] | None = None,
    area_ranges: Mapping[str, tuple[float, float]] = AITOD,
    max_dets: Sequence[int] = AITOD_MAX_DETS,
    ignore: Sequence[str] = (),
    rules: str = "tinyyolo",
) -> Errors:
    """Sort detections and objects into right, wrong and missed, as COCO matches them at IoU 0.5.

    A wrong detection is a duplicate if it overlaps a found object of its class at IoU >= 0.5, else a confusion if one
    of another class, else a localisation error if one of its class at 0.1 to 0.5, else background.

    Args:
        gt: objects, as `evaluate` takes them.
        dt: detections, as `evaluate` takes them.
        threshold: least score, for all classes or by class name; by default the LRP-optimal one of each class, and
            0.3 where no detection is right.
        area_ranges: names and sides (px) to count by; an object or detection belongs to the first that holds it.
        max_dets: limits for each image and class; the largest counts.
        ignore: names of categories whose boxes are ignore regions for all other classes.
        rules: how the objects are read, as of `evaluate`.

    Raises:
        UserError: as `evaluate`, or a threshold for an unknown class.

    Examples:
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ship"}],
        ...       "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 6, 6]}]}
        >>> dt = [{"image_id": 1, "category_id": 1, "bbox": [x, 0, 6, 6], "score": 0.9} for x in (0, 1, 3, 50)]
        >>> found = find_errors(gt, dt, threshold=0.5)
        >>> [CAUSES.get(v, "right") for v in found.verdict.tolist()]
        ['right', 'duplicate', 'localisation', 'background']
    """
    truth = read_truth(gt, ignore, rules=rules)
    detections = read_detections(dt, truth)
    scores, count = scores_of(detections), len(detections.labels)
    thresholds = score_thresholds(truth, detections, threshold, max_dets)
    shown = np.flatnonzero(scores >= thresholds[detections.labels])
    verdict = np.full(count, HIDDEN)
    state = np.where(truth.labels == NO_CLASS, REGION, MISSED)
    partner, iou = np.full(count, -1), np.zeros(count)
    verdict[shown], partner[shown], iou[shown] = judge(truth, take(detections, shown), max(max_dets))
    state[partner[verdict == TRUE]] = FOUND
    return Errors(
        truth=truth,
        detections=detections,
        thresholds=thresholds,
        sizes=tuple(area_ranges),
        verdict=verdict,
        partner=partner,
        iou=iou,
        state=state,
        dt_size=size_index(detections.areas, area_ranges),
        gt_size=size_index(truth.areas, area_ranges),
    )


def score_thresholds(
    truth: Annotations, detections: Annotations, threshold: float | Mapping[str, float] | None, max_dets: Sequence[int]
) -> np.ndarray:
    """Least score of each class."""
    names = list(truth.names.values())
    if isinstance(threshold, (int, float)):
        return np.full(len(names), float(threshold))
    for name in threshold or ():
        if name not in names:
            raise UserError(f"threshold.{name}: no such class; {suggest(name, names)}")
    figures = evaluate(truth, detections, max_dets=max_dets, area_ranges={}, iou_thresholds=[LRP_TAU])["per_class"]
    best = np.array([figures[name]["threshold"] for name in names], np.float64)
    best = np.where(best >= 0, best, PAPER_SCORE)  # -1 and NaN: no object, no right detection
    given = {names.index(name): value for name, value in (threshold or {}).items()}
    best[list(given)] = list(given.values())
    return best


def judge(truth: Annotations, detections: Annotations, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verdict, partner and IoU of every detection; those beyond `limit` in an image and class stay HIDDEN."""
    ranked = rank_detections(detections, limit)
    spread, classes, origin = spread_regions(truth)
    wins = next(match(spread, classes, detections, ranked, [LRP_TAU], ALL_AREAS))
    matched, won = ranked.source[wins.detection], origin[wins.object]
    verdict, partner, iou = causes(truth, detections, ranked.source, matched, won)
    verdict[matched] = np.where(wins.ignored > 0, IGNORED, TRUE)
    partner[matched], iou[matched] = won, wins.iou
    return verdict, partner, iou


def causes(
    truth: Annotations, detections: Annotations, kept: np.ndarray, matched: np.ndarray, won: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Why each detection of `kept` would be wrong, the object that it overlaps most, and their IoU."""
    objects = np.flatnonzero(truth.labels != NO_CLASS)
    plain, count = subset(truth, boxes=truth.labels != NO_CLASS), len(detections.labels)
    pairs = overlapping_pairs(plain, plain.image_index, detections, detections.image_index, kept, NEAR)
    row, pair_object, pair_iou = pairs[0], objects[pairs[1]], pairs[2]
    same = truth.labels[pair_object] == detections.labels[row]
    taken = np.zeros(len(truth.labels), bool)
    taken[won] = True
    verdict = np.full(count, HIDDEN)
    verdict[kept] = BACKGROUND
    verdict[row[same]] = LOCALISATION
    verdict[row[~same & (pair_iou >= LRP_TAU)]] = CONFUSION
    verdict[row[same & (pair_iou >= LRP_TAU) & taken[pair_object]]] = DUPLICATE
    order = np.argsort(pair_iou, kind="stable")  # the highest IoU is written last
    partner, iou = np.full(count, -1), np.zeros(count)
    partner[row[order]], iou[row[order]] = pair_object[order], pair_iou[order]
    return verdict, partner, iou


def size_index(area: np.ndarray, area_ranges: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """The first range that holds each area (px²), -1 for none.

    Examples:
        >>> size_index(np.array([10.0, 64.0, 65.0, 1e9]), {"vt": (0, 8), "t": (8, 16)}).tolist()
        [0, 0, 1, -1]
    """
    index = np.full(len(area), -1)
    for i, (low, high) in reversed(list(enumerate(area_ranges.values()))):
        index[(area >= low**2) & (area <= high**2)] = i
    return index


def count_errors(errors: Errors) -> dict[str, dict[str, dict[str, int]]]:
    """Numbers by class name ("all" first), then by size ("all" first), then by COUNTS.

    An object counts by its own size, a wrong detection by its own.
    """
    table: dict[str, dict[str, dict[str, int]]] = {}
    for k, name in enumerate(["all", *errors.truth.names.values()], -1):
        table[name] = {}
        for s, size in enumerate(["all", *errors.sizes], -1):
            gt = (k < 0) | (errors.truth.labels == k)
            dt = (k < 0) | (errors.detections.labels == k)
            state = errors.state[gt & ((s < 0) | (errors.gt_size == s))]
            verdict = errors.verdict[dt & ((s < 0) | (errors.dt_size == s))]
            found, missed = int((state == FOUND).sum()), int((state == MISSED).sum())
            causes_here = {word: int((verdict == cause).sum()) for cause, word in CAUSES.items()}
            numbers = {"objects": found + missed, "TP": found, "FP": sum(causes_here.values()), "FN": missed}
            table[name][size] = numbers | causes_here
    return table


def missed_labels(errors: Errors, score: float | None = None) -> dict[str, Any]:
    """Confident false positives on background as a COCO dict, most confident first: labels that may be missing.

    Args:
        errors: verdicts.
        score: least score; by default each class's own threshold.

    Returns:
        images (those with a candidate), annotations with `score`, categories; the ids are those of the objects' file.
    """
    scores = scores_of(errors.detections)
    wanted = (errors.verdict == BACKGROUND) & (scores >= (0 if score is None else score))
    content = coco.to_content(take(errors.detections, wanted))
    content["annotations"].sort(key=lambda record: -record["score"])
    for i, record in enumerate(content["annotations"], 1):
        record["id"] = i
    order = {key: i for i, key in enumerate(dict.fromkeys(r["image_id"] for r in content["annotations"]))}
    images = [record for record in content["images"] if record["id"] in order]
    return content | {"images": sorted(images, key=lambda record: order[record["id"]])}


def write_missed_labels(errors: Errors, path: Path, score: float | None = None) -> int:
    """Write `missed_labels` and return how many there are."""
    content = missed_labels(errors, score)
    with new_file(path, overwrite=True) as file:
        file.write(json.dumps(content) + "\n")
    return len(content["annotations"])
