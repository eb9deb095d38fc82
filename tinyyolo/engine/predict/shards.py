"""A shard of a prediction: which images, or rows of their windows, are its own, and the file of what it found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER

from tinyyolo.config import UserError
from tinyyolo.datasets.formats.tables.shards import (
    NONE,
    SUFFIX,
    WHOLE,
    Image,
    Parts,
    Rows,
    Shard,
    Writer,
    difference,
    write_shard,
)
from tinyyolo.datasets.images import MISSING
from tinyyolo.engine.predict.rows import name_in
from tinyyolo.engine.predict.sources import is_video
from tinyyolo.engine.predict.unfinished import digest, plain, state_of
from tinyyolo.io import tell
from tinyyolo.scenes import need

FOLDER = ".shards"  # behind the name of the run
AT_LEAST = 4  # batches of images a shard, where each has whole images; of fewer each has rows of windows of all


def file_of(folder: Path, share: tuple[int, int]) -> Path:
    """The file of a shard i, n from 1."""
    return folder / f"{share[0]}-of-{share[1]}{SUFFIX}"


class Share:
    """What one shard does.

    Of many images a shard has every n-th batch, of few every n-th row of windows of all of them: `whole` says which. So
    nothing depends on what another shard does, and a shard that is run again finds the same.

    Args:
        share: i, n from 1.
        files: of the run, all of them.
        root: what their names are relative to.
        batch: images at a time.
        settings: what the detections depend on, see `unfinished.settings_of`.
        more: beside them, for who joins the shards.

    Raises:
        UserError: there are videos among the files, or pyarrow is not installed.
    """

    def __init__(
        self,
        share: tuple[int, int],
        files: Sequence[str],
        root: Path | None,
        batch: int,
        settings: Mapping[str, Any],
        more: Mapping[str, Any],
    ):
        self.number, self.count = share
        self.words = f"shard={self.number}/{self.count}"
        need("pyarrow", self.words)
        if video := next(filter(is_video, files), ""):
            raise UserError(f"{self.words}: of images alone; {video} is a video")
        self.files, self.root, self.batch = files, root, batch
        # Which images a batch holds may change the last bits of what is found in them.
        there = range(len(files)) if batch == 1 else [i for i, file in enumerate(files) if os.path.isfile(file)]
        self.whole = -(-len(there) // batch) >= AT_LEAST * self.count
        absent = sorted({*range(len(files))} - {*there}) if len(there) < len(files) else []
        mine = [i for place, i in enumerate(there) if self.has(place // batch)] if self.whole else there
        self.own = sorted([*mine, *(absent if self.number == 1 or not self.whole else [])])
        names = [name_in(root, file) for file in files]
        self.settings = plain({**settings, "source": digest("\n".join(names))})
        key = digest(str(sorted(self.settings.items())))
        self.about = {"key": key, "shard": [*share], "total": len(files), "settings": self.settings, **more}

    def has(self, batch: int) -> bool:
        """Whether a batch of images, counted from 0, is this shard's."""
        return batch % self.count == self.number - 1

    def rows(self, place: int, count: int) -> range:
        """Which of the rows of windows of the image in this place of the run are its own.

        Of scenes with few rows not all are those of the first shard.
        """
        return range((self.number - 1 + place) % self.count, count, self.count)

    @property
    def part(self) -> list[str]:
        """The files that it looks at."""
        return [self.files[i] for i in self.own]

    def done(self, path: Path, replace: bool) -> bool:
        """Whether the shard is there already, made by the same settings of the same images.

        Raises:
            UserError: another run's, or something else, is there, and is not to be replaced.
        """
        self.about["state"] = digest(str([[name_in(self.root, file), state_of(file)] for file in self.part]))
        if not os.path.lexists(path):
            return False
        try:
            there = Shard(path)
        except UserError:
            if not replace:
                raise
            return False
        if there.about["key"] != self.about["key"]:
            if not replace:
                words = f"{path}: {difference(there, self.about)}"
                raise UserError(f"{words}; exist_ok=true replaces it, name= puts this run elsewhere")
            return False
        if there.about["state"] != self.about["state"]:
            tell(f"{path}: an image has changed since it was made: looked at anew")
            return False
        return True

    @contextmanager
    def writing(self, path: Path, names: Mapping[int, str], faults: Callable[[], Sequence[str]]) -> Iterator[Written]:
        """Takes the results of its images, and writes the file at the end.

        Args:
            path: of the file.
            names: the classes.
            faults: gives the lines of what could not be read, each after its path.
        """
        with write_shard(path, self.about, names) as file:
            written = Written(self, file, faults)
            yield written
            written.rest()
        count = len(written.share.own)
        LOGGER.info(
            f"{self.words}: {count:,} of {len(self.files):,} images{'' if self.whole else ', rows of their tiles,'} in "
            f"{path}; `tinyyolo merge {path.parent}` joins all shards"
        )


class Written:
    """Puts results into their places in the run; what has none could not be read."""

    def __init__(self, share: Share, file: Writer, faults: Callable[[], Sequence[str]]):
        self.share, self.file, self.faults, self.next = share, file, faults, 0

    def add(self, result: Any) -> None:
        """Keep a result; it stands behind those before in the run."""
        while self.share.files[self.share.own[self.next]] != result.path:
            self.missing()
        if getattr(result, "dropped", False) and self.fault(result.path):
            self.missing()
            return
        index = self.share.own[self.next]
        self.next += 1
        if getattr(result, "dropped", False):
            return  # an image that is another shard's
        size: tuple[int, int] = tuple(result.orig_shape)
        self.file.add(Image(index, name_in(self.share.root, result.path), size, result.geo), parts_of(result))

    def rest(self) -> None:
        """The images behind the last result."""
        while self.next < len(self.share.own):
            self.missing()

    def missing(self) -> None:
        """The next image has no result."""
        index = self.share.own[self.next]
        self.next += 1
        path = self.share.files[index]
        said = self.fault(path) or f"{path}: {MISSING}"
        self.file.add(Image(index, name_in(self.share.root, path), fault=said), {})

    def fault(self, path: str) -> str:
        """What was said of a file that could not be read."""
        return next((line for line in self.faults() if line.startswith(f"{path}:")), "")


def parts_of(result: Any) -> Parts:
    """What a shard keeps of a result: candidates of bands, or detections."""
    if (bands := getattr(result, "bands", None)) is not None:
        return {band: rows_of(*found) for band, (found, _) in bands.items()}
    rows = result.boxes.data if result.boxes is not None else np.zeros((0, 6))
    return {WHOLE: rows_of(rows[:, :4], rows[:, 4], rows[:, 5])}


def rows_of(*columns: Any) -> Rows:
    """Boxes, scores and labels, tensors, as they are kept."""
    if not len(columns[1]):
        return NONE
    boxes, scores, labels = (column.cpu().float().numpy() for column in columns)
    return Rows(boxes, scores, labels.astype(np.int32))
