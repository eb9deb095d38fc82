"""Precision, recall and LRP from matched pairs, by true positives only: there precision peaks and LRP is least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tinyyolo.datasets.annotations import Annotations
from tinyyolo.evaluation.matching import Ranked, Wins, falling

RECALLS = np.linspace(0, 1, 101)  # COCO's recall thresholds
LRP_PARTS = ("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "threshold")
TINY = np.spacing(1)  # COCO's evaluator adds it to the denominator of the precision


@dataclass(frozen=True, eq=False)
class Curves:
    """T thresholds, R = 101 recalls, K classes, A area ranges, M detection limits; -1 where a class has no object.

    `precision`, `scores` (T, R, K, A, M), `recall` (T, K, A, M), and `lrp`, one (K, A, M) array for each of LRP_PARTS.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    lrp: dict[str, np.ndarray]


def empty_curves(thresholds: int, classes: int, areas: int, limits: int) -> Curves:
    """Curves of -1."""
    shape = (classes, areas, limits)
    return Curves(
        precision=np.full((thresholds, len(RECALLS), *shape), -1.0),
        recall=np.full((thresholds, *shape), -1.0),
        scores=np.full((thresholds, len(RECALLS), *shape), -1.0),
        lrp={part: np.full(shape, -1.0) for part in LRP_PARTS},
    )


def accumulate(
    curves: Curves,
    truth: Annotations,
    ranked: Ranked,
    wins: Wins,
    areas: np.ndarray,
    at: slice,
    max_dets: Sequence[int],
    lanes: int,
    tau: int | None,
) -> None:
    """Fill the area ranges `at` of `curves` from the wins of that group.

    Args:
        areas: (A, 2) px² of all ranges.
        lanes: thresholds in a word for each area range; those beyond the arrays serve LRP only.
        tau: index of LRP's threshold, None for no LRP.
    """
    classes = np.arange(len(truth.names) + 1)
    bounds = np.searchsorted(ranked.category, classes)
    win_bounds = np.searchsorted(wins.detection, bounds)
    for k in classes[:-1]:
        rows, pairs = slice(bounds[k], bounds[k + 1]), slice(win_bounds[k], win_bounds[k + 1])
        own = truth.areas[truth.labels == k]
        for a in range(at.start, at.stop):
            low, high = areas[a]
            count = int(np.count_nonzero((own >= low) & (own <= high)))
            if not count:
                continue
            in_range = (ranked.area[rows] >= low) & (ranked.area[rows] <= high)
            lane = ClassLane(ranked, wins, rows, pairs, in_range, count)
            for m, limit in enumerate(max_dets):
                left = None if ranked.behind is None else ranked.behind[rows, a]
                before = m and (ranked.rank[rows] < max_dets[m - 1]).all()
                if before and (left is None or (left[:, m] == left[:, m - 1]).all()):
                    copy_limit(curves, k, a, m)  # no image has more detections than the last limit: nothing changes
                    continue
                lane.behind = None if left is None else left[:, m]
                lane.fill(curves, (k, a, m), limit, (a - at.start) * lanes, tau)


def pooled_threshold(truth: Annotations, ranked: Ranked, wins: Wins, lane: int, limit: int) -> float:
    """The score at which LRP is least if it is one for all classes that have objects; sizes all.

    Args:
        lane: of the range `all` at LRP's IoU.
        limit: detections for each image and class.

    Returns:
        -1 without objects, NaN if no detection is right, as of a class.
    """
    objects = np.bincount(truth.labels[truth.labels >= 0], minlength=len(truth.names))
    if not objects.any():
        return -1.0
    mine = np.flatnonzero((ranked.category >= 0) & (objects[ranked.category] > 0))
    order = mine[falling(ranked.scores[mine])]
    place = np.full(len(ranked.scores), -1)
    place[order] = np.arange(len(order))
    pairs = np.flatnonzero(place[wins.detection] >= 0)
    pairs = pairs[np.argsort(place[wins.detection[pairs]], kind="stable")]
    one = ranked.at(order)
    found = Wins(*(column[pairs] for column in vars(wins).values()))
    found = replace(found, detection=place[found.detection])
    whole = ClassLane(one, found, slice(0, len(order)), slice(0, len(pairs)), np.ones(len(order), bool), objects.sum())
    whole.behind = one.behind_all
    return whole.least(lane, *whole.kept(limit))[-1]


def copy_limit(curves: Curves, k: int, a: int, m: int) -> None:
    """Take the curves of class k and range a at the limit before the m-th, which cuts nothing."""
    for array in (curves.precision, curves.recall, curves.scores, *curves.lrp.values()):
        array[..., k, a, m] = array[..., k, a, m - 1]


class Pairs(NamedTuple):
    """Matched pairs of a class by falling score: places of detections, whether in range, and what `Wins` holds."""

    place: np.ndarray
    lanes: np.ndarray
    ignored: np.ndarray
    iou: np.ndarray
    in_range: np.ndarray


class ClassLane:
    """One class and area range: what its detections share over thresholds and limits.

    `behind` (D,) says how many detections that match nothing, and are left out, stand behind each.
    """

    behind: np.ndarray | None = None

    def __init__(self, ranked: Ranked, wins: Wins, rows: slice, pairs: slice, in_range: np.ndarray, count: int) -> None:
        self.scores, self.rank = ranked.scores[rows], ranked.rank[rows]
        self.in_range, self.count = in_range, count
        place = wins.detection[pairs] - rows.start
        self.pairs = Pairs(place, wins.lanes[pairs], wins.ignored[pairs], wins.iou[pairs], in_range[place])

    def fill(self, curves: Curves, at: tuple[int, int, int], limit: int, first_lane: int, tau: int | None) -> None:
        """Write the curves of one (class, range, limit), and its LRP where `tau` says at which threshold."""
        kept, pairs, counted = self.kept(limit)
        for t in range(len(curves.recall)):
            place, falses, _ = self.true_positives(pairs, first_lane + t, counted)
            k, a, m = at
            curves.recall[t, k, a, m], curves.precision[t, :, k, a, m], curves.scores[t, :, k, a, m] = self.curve(
                place, falses
            )
        if tau is not None:
            for part, value in zip(LRP_PARTS, self.least(first_lane + tau, kept, pairs, counted), strict=True):
                curves.lrp[part][at] = value

    def kept(self, limit: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        """Which detections are within a limit, their pairs, and how many there are up to each; false unless matched."""
        kept = self.rank < limit
        pairs = self.pairs if kept.all() else Pairs(*(column[kept[self.pairs.place]] for column in self.pairs))
        counted = np.cumsum(self.in_range & kept)
        if self.behind is not None:
            counted += np.cumsum(self.behind) - self.behind
        return kept, pairs, counted

    def least(
        self, lane: int, kept: np.ndarray, pairs: Pairs, counted: np.ndarray
    ) -> tuple[float, float, float, float, float]:
        """LRP_PARTS of one lane, of what is `kept`."""
        place, falses, rows = self.true_positives(pairs, lane, counted)
        return self.lrp(place, falses, pairs.iou[rows], self.first_counted(lane, kept), 0.5)

    @staticmethod
    def true_positives(pairs: Pairs, lane: int, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places, false positives up to there, and rows in `pairs` of one lane's true positives, by falling score."""
        bit = np.uint64(1 << lane)
        matched = np.flatnonzero((pairs.lanes & bit) != 0)
        place = pairs.place[matched]
        falses = counted[place] - np.cumsum(pairs.in_range[matched])
        true = (pairs.ignored[matched] & bit) == 0
        if true.all():
            return place, falses, matched
        return place[true], falses[true], matched[true]

    def curve(self, place: np.ndarray, falses: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Recall, and precision and score at each of RECALLS."""
        precision, scores = np.zeros(len(RECALLS)), np.zeros(len(RECALLS))
        if not len(self.scores):
            return 0.0, precision, scores
        scores[0] = self.scores[0]  # recall 0 is reached by the first detection, whatever it is
        if not len(place):
            return 0.0, precision, scores
        trues = np.arange(1, len(place) + 1, dtype=np.float64)
        recall = trues / self.count
        best = np.maximum.accumulate((trues / (falses + trues + TINY))[::-1])[::-1]
        index = np.searchsorted(recall, RECALLS, side="left")
        reached = index < len(recall)
        precision[reached] = best[index[reached]]
        scores[reached] = self.scores[place[index[reached]]]
        scores[0] = self.scores[0]
        return recall[-1], precision, scores

    def first_counted(self, lane: int, kept: np.ndarray) -> int:
        """Place of the first detection that is not ignored in a lane, -1 if there is none."""
        bit = np.uint64(1 << lane)
        matched = np.flatnonzero((self.pairs.lanes & bit) != 0)
        counts = self.in_range.copy()
        counts[self.pairs.place[matched]] = (self.pairs.ignored[matched] & bit) == 0
        counts &= kept
        return int(np.argmax(counts)) if counts.any() else -1

    def lrp(
        self, place: np.ndarray, falses: np.ndarray, iou: np.ndarray, opening: int, tau: float
    ) -> tuple[float, float, float, float, float]:
        """Least LRP over all score thresholds, its three parts and that threshold (Oksuz et al., 2018 and 2021).

        A false positive never lowers LRP, so the minimum is at a true positive, or at the first detection.
        """
        nan = float("nan")
        if not len(place):
            return 1.0, nan, nan, 1.0, nan
        trues = np.arange(1, len(place) + 1, dtype=np.float64)
        if opening != place[0]:
            place, falses = np.append(opening, place), np.append(1, falses)
            trues, iou = np.append(0.0, trues), np.append(1.0, iou)
        missed = self.count - trues
        loc = np.cumsum(1 - iou)
        lrp = (loc / (1 - tau) + falses + missed) / (trues + falses + missed)
        i = int(np.argmin(lrp))
        found = trues[i] > 0
        return (
            float(lrp[i]),
            float(loc[i] / trues[i]) if found else nan,
            float(falses[i] / (trues[i] + falses[i])),
            float(missed[i] / self.count),
            float(self.scores[place[i]]),
        )
