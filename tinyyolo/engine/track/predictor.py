"""The predictor that follows what it finds: sources, windows and files are those of a prediction."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.engine.predict.rows import write_rows
from tinyyolo.engine.predict.sources import LISTS, is_video
from tinyyolo.engine.predictor import TinyPredictor
from tinyyolo.engine.track.files import MOT, ROWS, write_mot
from tinyyolo.engine.track.following import Following

MOT_OF_ONE = "MOT text holds one video or one folder of frames"


class TinyTracker(TinyPredictor):
    """Predicts with any tinyyolo detector, and says which detections of a video are the same object.

    `own["following"]` is what it follows by, `own["tracks"]` the files that it writes.
    """

    resumes = False  # a frame says nothing without those before it

    def settle(self, source: Any) -> None:
        """As of a prediction; detections go down to the low threshold, and frames in files stand in their order."""
        super().settle(source)
        following: Following = self.own["following"]
        self.rules = replace(self.rules, score=following.begin(self.rules.score, len(self.model.names)))
        self.places: dict[str, tuple[str, int]] = {}  # of each image file: what it is a frame of, and which
        if self.found is None:
            return
        files, folder = self.found
        if not isinstance(source, (list, tuple)) and Path(str(source)).suffix.lower() not in LISTS:
            files = sorted(files, key=in_order)
            self.found = files, folder
        count: Counter[str] = Counter()
        for file in files:
            if not is_video(file):
                home = str(Path(file).parent)
                count[home] += 1
                self.places[file] = home, count[home]
        sequences = len(count) + sum(map(is_video, files))
        if sequences > 1 and any(path.suffix.lower() == MOT for path in self.own["tracks"]):
            said = f"out={MOT}: {MOT_OF_ONE}, source={self.shown} has {sequences}"
            raise UserError(f"{said}: track them one by one, or write {ROWS}")

    def whole_run(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As of a prediction, then the files of tracks."""
        results: Iterator[Any] = super().whole_run(*args, **kwargs)
        for path in self.own["tracks"]:
            if path.suffix.lower() == MOT:
                results = write_mot(results, path)
            else:
                results = write_rows(results, path, lambda: self.folder)
        yield from results

    def postprocess(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Ultralytics Results per image, of the objects that are followed, with their ids."""
        names: Any = self.batch[0]
        return [
            result if getattr(result, "dropped", False) else self.follow(result, str(name))
            for result, name in zip(super().postprocess(*args, **kwargs), names, strict=True)
        ]

    def follow(self, result: Any, name: str) -> Any:
        """The result with ids; see `Following.follow`."""
        following: Following = self.own["following"]
        if name in self.places:
            return following.follow(result, *self.places[name], False)
        stream, video = self.dataset.mode == "stream", self.found is not None
        tracked = following.follow(result, name if stream or video else "", None, stream)
        if video:
            tracked.frame *= self.args.vid_stride  # as the video counts them
        return tracked


def in_order(path: str) -> list[str | int]:
    """A key by which frame 2 stands before frame 10.

    Examples:
        >>> sorted(["f10.png", "f2.png"], key=in_order)
        ['f2.png', 'f10.png']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]
