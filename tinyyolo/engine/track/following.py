"""The trackers of a run: one for each video, folder of frames or stream, and the frames they have seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from ultralytics.utils import IterableSimpleNamespace

from tinyyolo.config import UserError
from tinyyolo.engine.track.settings import ByteTrackSettings, Thresholds
from tinyyolo.io import tell


class Following:
    """What a model knows of the objects it follows; `persist=true` keeps it from call to call.

    Args:
        settings: of the tracker.
        constant: C of the model, px.
        persist: go on with the same tracks when another video or call begins.
    """

    def __init__(self, settings: ByteTrackSettings, constant: float, persist: bool = False):
        self.settings, self.constant, self.persist = settings, constant, persist
        self.trackers: dict[str, Any] = {}  # by the name of what is followed
        self.frames: Counter[str] = Counter()  # that each has seen
        self.scores: Any = None  # `Thresholds`, from `begin` on

    def goes_on(self, other: Following | None) -> bool:
        """Whether this call takes up the tracks of `other`, of the call before: both persist, by the same rules."""
        if other is None or not (self.persist and other.persist):
            return False
        same = (other.settings, other.constant) == (self.settings, self.constant)
        if not same:
            tell("persist=true: by other settings than the call before: tracks begin anew")
        return same

    def begin(self, high: Any, classes: int) -> tuple[float, ...]:
        """Take the scores of `conf=`; returns those that detections must have to be of use, one a class."""
        self.scores = self.settings.thresholds(high, classes)
        return tuple(self.scores.low.tolist())

    def follow(self, result: Any, sequence: str, number: int | None, at_once: bool) -> Any:
        """The part of a result that belongs to tracks, with their ids, and with `sequence` and `frame` as attributes.

        Args:
            result: all detections down to the low threshold.
            sequence: what the frame is of.
            number: of the frame, from 1; None counts on.
            at_once: whether other sequences go on beside this one.
        """
        known = "" if self.persist and not at_once else sequence
        if known not in self.trackers:
            if not at_once:
                self.trackers.clear()
            self.trackers[known] = tracker_of(self.settings, self.constant, self.scores)
        self.frames[known] += 1
        rows = self.trackers[known].update(result.boxes.cpu().numpy(), picture_of(result))
        part = result[rows[:, -1].astype(int)]
        part.update(boxes=torch.as_tensor(rows[:, :-1], device=result.boxes.data.device))
        part.sequence, part.frame = sequence, self.frames[known] if number is None else number
        return part


def picture_of(result: Any) -> np.ndarray | None:
    """The pixels in which the camera's motion is looked for; None of a scene that is never read as a whole."""
    if getattr(result, "raster", None) is not None:
        tell(f"{result.path}: a raster read by windows: the camera's motion is not looked for in such frames")
        return None
    pixels: np.ndarray = result.orig_img
    return pixels


def tracker_of(settings: ByteTrackSettings, constant: float, thresholds: Thresholds) -> Any:
    """A tracker at its first frame; its `update` takes detections as upstream's does.

    Raises:
        UserError: the package lap is not installed.
    """
    if find_spec("lap") is None:  # upstream would try to install it
        raise UserError("track: it needs the package lap: pip install lap")
    from tinyyolo.engine.track.trackers import TRACKERS

    args = IterableSimpleNamespace(**{field.name: getattr(settings, field.name) for field in fields(settings)})
    return TRACKERS[settings.tracker_type](args, settings.associate(constant), thresholds)
