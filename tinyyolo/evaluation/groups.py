"""Detections in many files, matched by groups of images: memory holds a group, the objects, and what matches them.

Precision, recall and LRP change at matched detections only. Of all others it is enough to know how many stand between
two of those, by area range and limit; they wait on the disk until all that match are known. So the figures are those of
one file with all detections, to the last bit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from tinyyolo.datasets.annotations import Annotations, take
from tinyyolo.evaluation.detections import count_in, from_columns, pieces
from tinyyolo.evaluation.matching import Ranked, Wins, lane_groups, match, rank_detections

AT_ONCE = 1 << 18  # detections of a group of images, on average
COLUMNS = ("image", "label", "xywh", "score")
ROW = np.dtype([("image", "<i8"), ("label", "<i8"), ("xywh", "<f8", 4), ("score", "<f8")])


class Kept(NamedTuple):
    """Of a group the detections that stay in memory, their places among all, and their pairs by group of lanes."""

    ranked: Ranked
    place: np.ndarray
    wins: list[Wins]


def match_files(
    files: Sequence[Path],
    truth: Annotations,
    classes: np.ndarray,
    thresholds: Sequence[float],
    areas: np.ndarray,
    limits: Sequence[int],
) -> tuple[Ranked, list[Wins]]:
    """What `rank_detections` and `match` make of the detections in some files, without those that match nothing.

    How many of these stand behind each that is kept is in `Ranked.behind` and `Ranked.behind_all`.

    Args:
        files: of detections; one after the other, as if they were one.
        truth: the objects, a row for each class that an ignore region is of.
        classes: (M,) the class of each.
        thresholds, areas: of the lanes, see `match`.
        limits: detections an image and class, rising.

    Raises:
        UserError: as `read_detections`.
    """
    spare = np.dtype(
        [("label", "<i8"), ("score", "<f8"), ("place", "<i8"), ("limit", "<i8"), ("areas", "?", len(areas))]
    )
    with TemporaryDirectory(prefix="tinyyolo-") as folder:
        groups = max(1, -(-sum(map(count_in, files)) // AT_ONCE))
        step = max(1, -(-len(truth.file_names) // groups))
        rest = Path(folder) / "rest"
        kept: list[Kept] = []
        count = 0
        with rest.open("wb") as file:
            for group, path in parted(files, truth, Path(folder), step):
                rows = np.fromfile(path, ROW)
                path.unlink()
                found = from_columns(truth, str(files[0]), *(rows[name] for name in COLUMNS))
                at = slice(*np.searchsorted(truth.image_index, [group * step, (group + 1) * step]))
                ranked = rank_detections(found, limits[-1])
                wins = list(
                    match(take(truth, np.arange(at.start, at.stop)), classes[at], found, ranked, thresholds, areas)
                )
                one, others = sifted(ranked, wins, count, areas, limits, spare)
                kept.append(one)
                others.tofile(file)
                count += len(rows)
        if not count:
            print(f"{files[0]}: there are no detections in it", file=sys.stderr)
        ranked, place, wins = joined(kept, len(lane_groups(len(areas), len(thresholds))))
        waiting = chunks(rest, spare)
        return counted(ranked, place, count, waiting, truth, len(areas), len(limits)), wins


def parted(files: Sequence[Path], truth: Annotations, folder: Path, step: int) -> list[tuple[int, Path]]:
    """The detections of each `step` images in a file of their own, in the order in which they come; by group."""
    made: dict[int, Path] = {}
    for columns in pieces(files, truth):
        rows = np.empty(len(columns[0]), ROW)
        for name, column in zip(COLUMNS, columns, strict=True):
            rows[name] = column
        group = rows["image"] // step
        order = np.argsort(group, kind="stable")
        rows, group = rows[order], group[order]
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        for part in np.split(rows, starts[1:]) if len(rows) else []:
            number = int(part["image"][0] // step)
            made[number] = folder / f"{number}.rows"
            with made[number].open("ab") as file:
                part.tofile(file)
    if not made:
        (folder / "0.rows").touch()
    return sorted(made.items()) or [(0, folder / "0.rows")]


def sifted(
    ranked: Ranked, wins: Sequence[Wins], before: int, areas: np.ndarray, limits: Sequence[int], spare: np.dtype
) -> tuple[Kept, np.ndarray]:
    """What stays of a group, and the others: they match nothing and are not the first of their class in any range."""
    alone = np.ones(len(ranked.scores), bool)
    for one in wins:
        alone[one.detection] = False
    inside = (ranked.area[:, None] >= areas[:, 0]) & (ranked.area[:, None] <= areas[:, 1])
    stays = ~alone
    for seen in (np.ones(len(alone), bool), *inside.T):
        for limit in limits:
            rows = np.flatnonzero(alone & seen & (ranked.rank < limit))
            stays[rows[np.diff(ranked.category[rows], prepend=-1) != 0]] = True
    place = ranked.source + before
    number = np.cumsum(stays) - 1
    own = [replace(one, detection=number[one.detection]) for one in wins]
    others = np.empty(int((~stays).sum()), spare)
    within = np.searchsorted(limits, ranked.rank, side="right")  # the first limit
    values: tuple[np.ndarray, ...] = (ranked.category, ranked.scores, place, within, inside)
    for name, column in zip(spare.names or (), values, strict=True):
        others[name] = column[~stays]
    return Kept(ranked.at(stays), place[stays], own), others


def joined(kept: Sequence[Kept], lanes: int) -> tuple[Ranked, np.ndarray, list[Wins]]:
    """All that was kept in the order of accumulation, and the place of each among all detections."""
    ranked = Ranked(*(np.concatenate(column) for column in zip(*(one.ranked.columns for one in kept), strict=True)))
    place = np.concatenate([one.place for one in kept])
    order = np.lexsort((place, -ranked.scores, ranked.category))
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    starts = np.cumsum([0, *(len(one.place) for one in kept)])
    wins = []
    for lane in range(lanes):
        parts = [vars(one.wins[lane]) for one in kept]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        own = [part["detection"] + start for part, start in zip(parts, starts, strict=False)]
        columns["detection"] = number[np.concatenate(own)]
        by_detection = np.argsort(columns["detection"], kind="stable")
        wins.append(Wins(**{name: column[by_detection] for name, column in columns.items()}))
    return ranked.at(order), place[order], wins


def chunks(path: Path, kind: np.dtype) -> Iterator[np.ndarray]:
    """The rows of a file, some at a time."""
    with path.open("rb") as file:
        while len(rows := np.fromfile(file, kind, AT_ONCE)):
            yield rows


def counted(
    ranked: Ranked,
    place: np.ndarray,
    count: int,
    others: Iterator[np.ndarray],
    truth: Annotations,
    areas: int,
    limits: int,
) -> Ranked:
    """`ranked` with how many of the `others` stand behind each, of its class and of all classes that have objects.

    Keys are complex, which numpy orders by their real and then by their imaginary parts: by falling score, then place.
    """
    objects = np.bincount(truth.labels[truth.labels >= 0], minlength=len(truth.names)) > 0
    keys = -ranked.scores + 1j * place
    starts = np.searchsorted(ranked.category, np.arange(len(objects) + 1))
    # Of all classes together equal scores come by class, then place.
    mine = np.flatnonzero(objects[ranked.category])
    pooled = mine[np.argsort(-ranked.scores[mine] + 1j * (ranked.category[mine] * count + place[mine]), kind="stable")]
    pooled_keys = -ranked.scores[pooled] + 1j * (ranked.category[pooled] * count + place[pooled])
    behind = np.zeros((len(keys), areas, limits), np.int64)
    behind_all = np.zeros(len(keys), np.int64)
    for rows in others:
        key = -rows["score"] + 1j * rows["place"]
        at = np.empty(len(rows), np.int64)
        for k in np.unique(rows["label"]):
            own, one = rows["label"] == k, keys[starts[k] : starts[k + 1]]
            at[own] = starts[k] + np.searchsorted(one, key[own], side="right") - 1
        for a in range(areas):
            for m in range(limits):
                some = at[rows["areas"][:, a] & (rows["limit"] <= m)]
                behind[:, a, m] += np.bincount(some, minlength=len(keys))
        rows = rows[objects[rows["label"]]]
        key = -rows["score"] + 1j * (rows["label"] * count + rows["place"])
        ahead = pooled[np.searchsorted(pooled_keys, key, side="right") - 1]
        behind_all += np.bincount(ahead, minlength=len(keys))
    return replace(ranked, behind=behind, behind_all=behind_all)
