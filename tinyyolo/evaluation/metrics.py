"""`evaluate`: AI-TOD's and COCO's figures by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.evaluation.accumulate import Curves, accumulate, empty_curves, pooled_threshold
from tinyyolo.evaluation.detections import files_of, read_detections
from tinyyolo.evaluation.inputs import read_truth, spread_regions
from tinyyolo.evaluation.matching import WORD, Wins, lane_groups, match, rank_detections
from tinyyolo.sizes import AITOD, LARGEST_SIDE

IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
AITOD_MAX_DETS = (100, 300, 1500)
COCO_MAX_DETS = (1, 10, 100)
LRP_TAU = 0.5
FEW = 10  # a class with fewer objects has no threshold of its own: one object more or less would move it far
BOUNDS = (0.01, 0.9)  # of thresholds: outside, a small or easy validation set has spoken, and other images suffer
STEP = 1e-4  # thresholds are its multiples
ALL_AREAS = np.array([[0.0, LARGEST_SIDE**2]])  # the range `all`, px²


def evaluate(
    gt: Any,
    dt: Any,
    *,
    max_dets: Sequence[int] = AITOD_MAX_DETS,
    area_ranges: Mapping[str, tuple[float, float]] = AITOD,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    lrp: bool = True,
    arrays: bool = False,
    ignore: Sequence[str] = (),
    rules: str = "tinyyolo",
) -> dict[str, Any]:
    """AP, AR and optimal LRP of detections, to the digit of AI-TOD's and COCO's own evaluators.

    Args:
        gt: objects: a COCO JSON path, a COCO dict, or `tinyyolo.datasets` Annotations.
        dt: detections: a COCO results path, its list of records, a dict of arrays {"image_id": (D,),
            "category_id": (D,), "bbox": (D, 4) xywh in px of the original image, "score": (D,)}, the (D, 7) array
            that pycocotools takes, or Annotations with `scores`. Many files, as a folder, a glob or a list of COCO
            results or of the shards of `predict shard=`, are matched by groups of images, in bounded memory; the
            figures are those of one file with all of it.
        max_dets: limits of detections for each image and class; AP takes the largest.
        area_ranges: name -> (least, greatest) side in px, both inclusive, e.g. {"vt": (0, 8)}. An object's side is the
            square root of its `area`, a detection's that of width times height.
        iou_thresholds: IoU values that AP and AR average over, in (0, 1].
        lrp: also the optimal localisation recall precision error at IoU 0.5 (Oksuz et al., 2018).
        arrays: also `precision` and `scores` (T, 101, K, A, M), `recall` (T, K, A, M) and `lrp`, a dict of (K, A, M):
            thresholds, recalls, classes by id, areas (all first), limits.
        ignore: names of categories whose boxes are ignore regions for all other classes.
        rules: how the objects are read (`formats.coco.read`): "coco" is exactly as pycocotools does.

    Returns:
        Fractions by name: AP, AP50, AP75, AP_<area>, AR<limit>, AR_<area>, oLRP, oLRP_loc, oLRP_fp, oLRP_fn, and under
        `per_class` the same for each category name. `threshold` is the score at which LRP is least, of all classes the
        one score at which that of their detections together is. -1 means that there is no object (or no such
        threshold), NaN that no detection is right.

    Raises:
        UserError: unreadable or inconsistent input; one line names the place.

    Examples:
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ship"}],
        ...       "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 6, 6], "area": 36, "iscrowd": 0}]}
        >>> r = evaluate(gt, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 6, 5], "score": 0.9}])
        >>> round(r["AP50"], 3), round(r["AP"], 3), round(r["per_class"]["ship"]["AP_vt"], 3), r["AP_t"]
        (1.0, 0.7, 0.7, -1.0)
    """
    limits, thresholds, areas = check_settings(max_dets, iou_thresholds, area_ranges)
    truth = read_truth(gt, ignore, rules=rules)
    spread, classes, _ = spread_regions(truth)
    lanes, tau = list(thresholds), None
    if lrp:
        if not np.isclose(lanes, LRP_TAU).any():
            lanes.append(LRP_TAU)
        tau = int(np.argmin(np.abs(np.asarray(lanes) - LRP_TAU)))
    found: Iterable[Wins]
    if files := files_of(dt):
        from tinyyolo.evaluation.groups import match_files

        ranked, found = match_files(files, spread, classes, lanes, areas, limits)
    else:
        detections = read_detections(dt, truth)
        ranked = rank_detections(detections, limits[-1])
        found = match(spread, classes, detections, ranked, lanes, areas)
    curves = empty_curves(len(thresholds), len(truth.names), len(areas), len(limits))
    groups = lane_groups(len(areas), len(lanes))
    pooled = {}
    for group, wins in zip(groups, found, strict=True):
        accumulate(curves, spread, ranked, wins, areas, group, limits, len(lanes), tau)
        if tau is not None and group.start == 0:
            pooled["threshold"] = pooled_threshold(spread, ranked, wins, tau, limits[-1])
    out = summarise(curves, slice(None), limits, thresholds, area_ranges, lrp) | pooled
    out["per_class"] = {
        name: summarise(curves, slice(k, k + 1), limits, thresholds, area_ranges, lrp)
        | ({"threshold": float(curves.lrp["threshold"][k, 0, -1])} if lrp else {})
        for k, name in truth.names.items()
    }
    if arrays:
        out |= {"precision": curves.precision, "recall": curves.recall, "scores": curves.scores}
        out |= {"lrp": curves.lrp} if lrp else {}
    return out


def check_settings(
    max_dets: Sequence[int], iou_thresholds: Sequence[float], area_ranges: Mapping[str, tuple[float, float]]
) -> tuple[list[int], list[float], np.ndarray]:
    """Limits rising, thresholds, and (1 + A, 2) areas in px² with `all` first."""
    limits = sorted(int(m) for m in max_dets)
    if not limits or limits[0] < 1:
        raise UserError(f"max_dets={list(max_dets)}: expected one or more positive numbers")
    thresholds = [float(t) for t in iou_thresholds]
    if not 0 < len(thresholds) < WORD or not all(0 < t <= 1 for t in thresholds):
        raise UserError(f"iou_thresholds={thresholds}: expected 1 to {WORD - 1} numbers above 0, at most 1")
    sides = []
    for name, bounds in area_ranges.items():
        if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1]:
            raise UserError(f"area_ranges: {name}={bounds}: expected (least, greatest) side in pixels")
        sides.append((float(bounds[0]), float(bounds[1])))
    return limits, thresholds, np.concatenate([ALL_AREAS, np.asarray(sides).reshape(-1, 2) ** 2])


def summarise(
    curves: Curves, classes: slice, limits: list[int], thresholds: list[float], area_names: Mapping[str, Any], lrp: bool
) -> dict[str, Any]:
    """The named figures of some classes."""
    ap, ar = curves.precision[:, :, classes], curves.recall[:, classes]
    out = {"AP": mean_of(ap[..., 0, -1])}
    for percent in (50, 75):
        at = np.flatnonzero(np.isclose(thresholds, percent / 100))
        out[f"AP{percent}"] = mean_of(ap[at][..., 0, -1])
    out |= {f"AP_{name}": mean_of(ap[..., a, -1]) for a, name in enumerate(area_names, 1)}
    out |= {f"AR{limit}": mean_of(ar[..., 0, m]) for m, limit in enumerate(limits)}
    out |= {f"AR_{name}": mean_of(ar[..., a, -1]) for a, name in enumerate(area_names, 1)}
    if lrp:
        out |= {part: lrp_mean(values[classes, 0, -1]) for part, values in curves.lrp.items() if part != "threshold"}
    return out


def operating_scores(
    result: Mapping[str, Any], objects: Mapping[str, int], names: Iterable[str]
) -> tuple[dict[str, float], list[str]]:
    """What detections of each class must score more than where they are shown instead of ranked.

    A class with at least FEW objects has the score at which its LRP is least, every other class the one of all classes
    together; both within BOUNDS. The next multiple of STEP below, so that the detection that reaches it is shown too.

    Args:
        result: of `evaluate`.
        objects: how many each class has.
        names: of the classes that are asked for; they may have no objects.

    Returns:
        The scores by name, and the names of those that have the common one. Nothing if all classes together have too
        few objects, or no detection is right.

    Examples:
        >>> result = {"threshold": 0.5, "per_class": {"car": {"threshold": 0.12345}, "ship": {"threshold": 0.99}}}
        >>> operating_scores(result, {"car": 50, "ship": 2}, ["car", "ship", "boat"])
        ({'car': 0.1234, 'ship': 0.4999, 'boat': 0.4999}, ['ship', 'boat'])
    """

    def below(score: float) -> float:
        return min(max(round((math.ceil(score / STEP) - 1) * STEP, 4), BOUNDS[0]), BOUNDS[1])

    if sum(objects.values()) < FEW or not result["threshold"] >= 0:
        return {}, []
    best = {name: row["threshold"] for name, row in result["per_class"].items() if objects.get(name, 0) >= FEW}
    own = {name: below(score) for name, score in best.items() if score >= 0}
    common = below(result["threshold"])
    return {name: own.get(name, common) for name in names}, [name for name in names if name not in own]


def mean_of(values: np.ndarray) -> float:
    """Mean of what is there, -1 if nothing is."""
    there = values[values > -1]
    return float(there.mean()) if there.size else -1.0


def lrp_mean(values: np.ndarray) -> float:
    """Mean over classes that have objects and a value; NaN if classes have objects but none a value."""
    there = values[~np.isnan(values) & (values > -1)]
    if there.size:
        return float(there.mean())
    return float("nan") if np.isnan(values).any() else -1.0
