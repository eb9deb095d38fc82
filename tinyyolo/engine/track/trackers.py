"""Ultralytics' ByteTrack and BoT-SORT, which ask an `Association` instead of the IoU; their steps are upstream's."""

from __future__ import annotations

from typing import Any

import numpy as np
from ultralytics.trackers.basetrack import TrackState
from ultralytics.trackers.bot_sort import BOTSORT
from ultralytics.trackers.byte_tracker import BYTETracker
from ultralytics.trackers.utils import matching

from tinyyolo.engine.track.association import Association
from tinyyolo.engine.track.settings import Thresholds


def boxes_of(tracks: list[Any]) -> np.ndarray:
    """(N, 4) xyxy px of upstream's tracks."""
    return np.array([track.xyxy for track in tracks], dtype=np.float32).reshape(-1, 4)


class Associating:
    """What both trackers do otherwise than upstream: all costs by an `Association`, and thresholds by class.

    Args:
        args: upstream's, a namespace of the keys of a tracker's YAML, which is changed.
        association: what says how alike two boxes are.
        thresholds: of each class.
    """

    args: Any

    def __init__(self, args: Any, association: Association, thresholds: Thresholds):
        self.association, self.thresholds = association, thresholds
        args.new_track_thresh = 0.0  # `thresholds` says it, class by class
        super().__init__(args)  # type: ignore[call-arg]  # upstream's, the next in line

    def update(self, results: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """As upstream, with the thresholds of each detection's class."""
        labels = results.cls.astype(int)
        self.args.track_high_thresh, self.args.track_low_thresh = (part[labels] for part in self.thresholds[:2])
        rows: np.ndarray = super().update(results, *args, **kwargs)  # type: ignore[misc]
        return rows.reshape(-1, 8)

    def get_dists(self, tracks: list[Any], detections: list[Any]) -> np.ndarray:
        """Costs of the first stage and of tracks that are not confirmed yet."""
        cost = self.association.cost(boxes_of(tracks), boxes_of(detections))
        return np.asarray(matching.fuse_score(cost, detections) if self.args.fuse_score else cost)

    def _second_association(self, pool: list[Any], left: Any, low: list[Any], *lists: Any) -> None:
        """As upstream for what is still left after low scores have been matched by our costs."""
        tracked = [i for i in left if pool[i].state == TrackState.Tracked]
        cost = self.association.cost(boxes_of([pool[i] for i in tracked]), boxes_of(low))
        pairs, rest, _ = matching.linear_assignment(cost, thresh=self.args.second_thresh)
        activated, refound, _ = lists
        self._apply_matches([(tracked[i], j) for i, j in pairs], pool, low, activated, refound)  # type: ignore[attr-defined]
        super()._second_association(pool, [tracked[i] for i in rest], [], *lists)  # type: ignore[misc]

    def _init_new_tracks(self, left: Any, detections: list[Any], *lists: Any) -> None:
        """As upstream, with the threshold of each detection's class."""
        able = [i for i in left if detections[i].score >= self.thresholds.new[int(detections[i].cls)]]
        super()._init_new_tracks(able, detections, *lists)  # type: ignore[misc]


class ByteTrack(Associating, BYTETracker):
    """Zhang et al. 2022: first the sure detections, then the others for tracks that found none."""


class BotSort(Associating, BOTSORT):
    """Aharon et al. 2022: ByteTrack with the camera's motion taken out and a filter of width and height."""


TRACKERS = {"bytetrack": ByteTrack, "botsort": BotSort}
