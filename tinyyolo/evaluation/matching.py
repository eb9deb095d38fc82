"""COCO's greedy matching of detections with objects, all area ranges and IoU thresholds at once.

A lane is one (area range, IoU threshold). COCO's evaluator matches each lane in a triple Python loop. Here a pair
(detection, object) carries a 64-bit word with one bit per lane, so that one array operation decides all lanes of all
detections whose turn it is, and only pairs that reach the lowest threshold are ever looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinyyolo.datasets.annotations import IGNORED, Annotations

WORD = 64  # lanes in one word
ALMOST_ONE = 1 - 1e-10  # COCO's evaluator lowers a threshold of 1 to this
PAIRS_AT_ONCE = 1 << 18  # bounds the memory of the IoU computation
MARGIN = 1e-6  # widens the search windows against rounding, relative


@dataclass(frozen=True, eq=False)
class Ranked:
    """Detections sorted by class, then falling score, image and place in the file: COCO's order of accumulation.

    `rank` is the place within (image, class), `area` px², `source` the rows of the detections as given; all (D,).
    Where detections that match nothing are left out, `behind` (D, A, M) says how many of them stand between a detection
    and the next one of its class, in A area ranges within M limits, and `behind_all` (D,) the same of all classes that
    have objects together.
    """

    category: np.ndarray
    scores: np.ndarray
    area: np.ndarray
    rank: np.ndarray
    source: np.ndarray
    behind: np.ndarray | None = None
    behind_all: np.ndarray | None = None

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The arrays that are always there."""
        return self.category, self.scores, self.area, self.rank, self.source

    def at(self, rows: np.ndarray | slice) -> Ranked:
        """Some of the detections, by a (D,) bool or by indices."""
        counts = (None if column is None else column[rows] for column in (self.behind, self.behind_all))
        return Ranked(*(column[rows] for column in self.columns), *counts)


@dataclass(frozen=True, eq=False)
class Wins:
    """Pairs matched in at least one lane, sorted by detection.

    `lanes` (P,) uint64 has a bit for each lane in which the pair is matched; `ignored` those where its object does not
    count (crowd, or its area out of range). Bit a * T + t is area range a of the group and threshold t.
    """

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray
    lanes: np.ndarray
    ignored: np.ndarray


def rank_detections(detections: Annotations, limit: int) -> Ranked:
    """Detections in the order of accumulation, at most `limit` for each image and class."""
    scores = scores_of(detections)
    order = falling(scores)
    order = order[stable_argsort(detections.labels[order])]
    cell = cells(detections, detections.labels)[order]
    rank = place_in_group(cell)
    if (rank >= limit).any():
        order, rank = order[rank < limit], rank[rank < limit]
    return Ranked(
        category=detections.labels[order],
        scores=scores[order],
        area=detections.areas[order],
        rank=rank,
        source=order,
    )


def scores_of(detections: Annotations) -> np.ndarray:
    """(D,) scores.

    Raises:
        ValueError: there are none.
    """
    if detections.scores is None:
        raise ValueError(f"{detections.path}: annotations without scores are no detections")
    return detections.scores


def cells(annotations: Annotations, classes: np.ndarray) -> np.ndarray:
    """(K,) a number for each image and class; boxes of one cell can match."""
    out: np.ndarray = annotations.image_index * len(annotations.names) + classes
    return out


def stable_argsort(values: np.ndarray) -> np.ndarray:
    """Stable order of non-negative integers, by 16-bit digits: numpy sorts those by radix.

    Examples:
        >>> stable_argsort(np.array([70000, 3, 70000, 0])).tolist()
        [3, 1, 0, 2]
    """
    if len(values) < 2 or (values[1:] >= values[:-1]).all():
        return np.arange(len(values))
    order = np.argsort(values.astype(np.uint16), kind="stable")
    rest = values >> 16
    while rest.any():
        order = order[np.argsort(rest[order].astype(np.uint16), kind="stable")]
        rest = rest >> 16
    return order


def falling(scores: np.ndarray) -> np.ndarray:
    """Stable order of float64, highest first: the bits of floats from 0 up, as integers, have the order of the floats.

    Examples:
        >>> falling(np.array([0.5, 0.75, 0.5, -0.0])).tolist(), falling(np.array([-1.0, np.nan, 2.0])).tolist()
        ([1, 0, 2, 3], [2, 0, 1])
    """
    if not scores.min(initial=0) >= 0:
        return np.argsort(-scores, kind="stable")
    bits = (scores + 0.0).view(np.int64)  # + 0.0 makes 0 of -0
    return stable_argsort(bits.max(initial=0) - bits)


def place_in_group(group: np.ndarray) -> np.ndarray:
    """How many earlier rows are in the same group.

    Examples:
        >>> place_in_group(np.array([5, 5, 2, 5])).tolist()
        [0, 1, 0, 2]
    """
    order = stable_argsort(group)
    ordered = group[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    lengths = np.diff(np.append(starts, len(group)))
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(starts, lengths)
    return place


def match(
    truth: Annotations,
    classes: np.ndarray,
    detections: Annotations,
    ranked: Ranked,
    thresholds: Sequence[float],
    areas: np.ndarray,
) -> Iterator[Wins]:
    """Match in all lanes; yields one `Wins` for each group of area ranges that fits into a word.

    Args:
        truth: objects.
        classes: (M,) the one class of each (`inputs.spread_regions`).
        detections: as `ranked` was made from.
        ranked: their order, which `Wins.detection` counts in.
        thresholds: T IoU thresholds in (0, 1], at most 64.
        areas: (A, 2) px², both bounds inclusive.
    """
    limits = np.minimum(np.asarray(thresholds, np.float64), ALMOST_ONE)
    cell = cells(detections, detections.labels)
    row, gt, iou = overlapping_pairs(truth, cells(truth, classes), detections, cell, ranked.source, limits.min())
    place = np.empty(len(cell), np.int64)
    place[ranked.source] = np.arange(len(ranked.source))
    detection = place[row]
    # Within a detection: highest IoU first, and of equal IoU the later object, as COCO's loop decides.
    order = stable_argsort(gt)[::-1]
    order = order[np.argsort(-iou[order], kind="stable")]
    order = order[stable_argsort(detection[order])]
    detection, gt, iou = detection[order], gt[order], iou[order]
    for group in lane_groups(len(areas), len(limits)):
        yield match_group(truth, detection, gt, iou, limits, areas[group])


def lane_groups(areas: int, thresholds: int) -> list[slice]:
    """Slices of the area ranges whose lanes fit into a word."""
    step = WORD // thresholds
    return [slice(i, min(i + step, areas)) for i in range(0, areas, step)]


def overlapping_pairs(
    truth: Annotations,
    gt_cell: np.ndarray,
    detections: Annotations,
    dt_cell: np.ndarray,
    kept: np.ndarray,
    least: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every (row of `detections`, object, IoU) of one cell with IoU >= `least`; COCO's IoU for ignore regions.

    IoU >= t needs an overlap of t times either width, so the left edge of the detection lies within
    [x - (1 / t - 1) w, x + (1 - t) w] of an object at x with width w: one sort, two searches.

    Args:
        truth: objects.
        gt_cell: (M,) `cells`, or whatever else must be equal.
        detections: what may overlap them.
        dt_cell: (D,) the same of detections.
        kept: rows of `detections` to look at.
        least: bound of the IoU, above 0.
    """
    inside = np.zeros(1 + max(gt_cell.max(initial=0), dt_cell.max(initial=0)), bool)
    inside[gt_cell] = True
    wanted = np.zeros(len(dt_cell), bool)
    wanted[kept] = True
    rows = np.flatnonzero(inside[dt_cell] & wanted)
    if not len(rows):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    crowd = truth.labels == IGNORED
    left, width, dt_left = truth.boxes[:, 0], truth.sides[:, 0], detections.boxes[rows, 0]
    before = np.where(crowd, np.inf, (1 / least - 1) * width)
    after = np.where(crowd, np.inf, (1 - least) * width)
    origin = min(left.min(), dt_left.min())
    span = max(truth.boxes[:, 2].max(), dt_left.max()) - origin + 1
    slack = MARGIN * span
    step = 2 * span + 2 * slack  # distance of two cells on the line
    keys = dt_cell[rows] * step + (dt_left - origin)
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    low = np.searchsorted(keys, gt_cell * step + np.maximum(left - origin - before, 0) - slack, side="left")
    high = np.searchsorted(keys, gt_cell * step + np.minimum(left - origin + after, span) + slack, side="right")
    return iou_in_windows(truth, crowd, detections, rows, low, high, least)


def iou_in_windows(
    truth: Annotations,
    crowd: np.ndarray,
    detections: Annotations,
    rows: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    least: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs with IoU >= `least` among the sorted detections `rows[low[i]:high[i]]` and object i."""
    x1, y1, x2, y2 = (detections.boxes[rows, column] for column in range(4))
    gx1, gy1, gx2, gy2 = (np.ascontiguousarray(c) for c in truth.boxes.T)
    # An object's `areas` may be that of its outline; COCO's IoU takes its box.
    area, garea = detections.areas[rows], truth.sides[:, 0] * truth.sides[:, 1]
    counts = high - low
    ends = np.cumsum(counts)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        part = counts[start:stop]
        g = np.repeat(np.arange(start, stop), part)
        d = np.arange(len(g)) + np.repeat(low[start:stop] - (ends[start:stop] - part - done), part)
        height = np.minimum(y2[d], gy2[g]) - np.maximum(y1[d], gy1[g])
        near = height > 0
        g, d, height = g[near], d[near], height[near]
        overlap = np.minimum(x2[d], gx2[g]) - np.maximum(x1[d], gx1[g])
        near = overlap > 0
        g, d = g[near], d[near]
        inter = overlap[near] * height[near]
        iou = inter / np.where(crowd[g], area[d], area[d] + garea[g] - inter)
        near = iou >= least
        found.append((rows[d[near]], g[near], iou[near]))
        start = stop
    row, gt, overlap = (np.concatenate(column) for column in zip(*found, strict=True))
    return row, gt, overlap


def match_group(
    truth: Annotations, detection: np.ndarray, gt: np.ndarray, iou: np.ndarray, limits: np.ndarray, areas: np.ndarray
) -> Wins:
    """Match the lanes of a few area ranges. Pairs are sorted by detection, then by falling preference.

    Of the pairs that still can win in some lane, those detections are decided together whose every object has no
    earlier detection waiting for it. An object of a crowd is never used up, so nobody waits for it.
    """
    steps = np.sort(limits)
    bits = [sum(1 << t for t in range(len(limits)) if limits[t] <= step) for step in steps]
    spread = sum(1 << (a * len(limits)) for a in range(len(areas)))
    reach = np.array([0] + [b * spread for b in bits], np.uint64)[np.searchsorted(steps, iou, side="right")]
    ignored_in = ignored_lanes(truth, len(limits), areas)
    region = truth.labels == IGNORED
    taken = np.zeros(len(region), np.uint64)
    first = np.empty(len(region), np.int64)
    won = np.zeros(len(detection), np.uint64)
    alive = np.arange(len(detection))
    while len(alive):
        d, g = detection[alive], gt[alive]
        crowd = region[g]
        first[g[::-1]] = d[::-1]
        starts = np.flatnonzero(np.diff(d, prepend=-1))
        counts = np.diff(np.append(starts, len(d)))
        ready = np.logical_and.reduceat((first[g] == d) | crowd, starts)
        pairs = np.repeat(ready, counts)
        now, sizes = alive[pairs], counts[ready]
        free = reach[now] & ~np.where(region[gt[now]], np.uint64(0), taken[gt[now]])
        won[now] = choose(free, ignored_in[gt[now]], sizes)
        # Crowds may stand in several pairs of this round; their word is never read.
        taken[gt[now]] |= won[now]
        alive, d, g, crowd = alive[~pairs], d[~pairs], g[~pairs], crowd[~pairs]
        alive = alive[crowd | ((reach[alive] & ~taken[g]) != 0)]
    hit = np.flatnonzero(won)
    return Wins(detection[hit], gt[hit], iou[hit], won[hit], won[hit] & ignored_in[gt[hit]])


def ignored_lanes(truth: Annotations, thresholds: int, areas: np.ndarray) -> np.ndarray:
    """For each object the lanes in which it does not count."""
    words = np.zeros(len(truth.labels), np.uint64)
    for a, (low, high) in enumerate(areas):
        out = (truth.labels == IGNORED) | (truth.areas < low) | (truth.areas > high)
        words |= np.where(out, np.uint64(((1 << thresholds) - 1) << (a * thresholds)), np.uint64(0))
    return words


def choose(free: np.ndarray, ignored: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The lanes each pair wins: in a lane the first free object that counts, else the first free one.

    Args:
        free: (P,) lanes in which the pair may match, detection after detection, best pair first.
        ignored: (P,) lanes in which the object does not count.
        sizes: pairs of each detection.
    """
    starts = np.cumsum(sizes) - sizes
    open_lanes = np.full(len(sizes), ~np.uint64(0))
    won = np.zeros_like(free)
    for allowed in (free & ~ignored, free & ignored):
        for place in range(int(sizes.max())):
            rows = np.flatnonzero(sizes > place)
            pair = starts[rows] + place
            gain = allowed[pair] & open_lanes[rows]
            won[pair] |= gain
            open_lanes[rows] &= ~gain
    return won
