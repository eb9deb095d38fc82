"""Shards of a prediction as Parquet: the boxes of some of its images, and all that joining them needs.

A row is a box in px of its image, with the image's place in the run, its name and the class's. Whoever reads Parquet
can read it; a description of the run and of all its images, those without boxes too, stands in the file's metadata.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.convert import convert
from tinyyolo.config import UserError, path_of, shown
from tinyyolo.datasets.formats.decode import parse_json
from tinyyolo.io import whole_file
from tinyyolo.scenes import need
from tinyyolo.scenes.place import Place

SUFFIX = ".parquet"
ABOUT = b"tinyyolo"  # in the metadata of a shard
WHOLE = -1  # in the column of bands: detections of a whole image, no candidates of a row of its windows
ROWS = 1 << 14  # of a group, in which it is read again, at least
SIDES = ("x1", "y1", "x2", "y2")
DIGITS, SCORE_DIGITS = 3, 5  # of pixels and scores in COCO results


class Image(NamedTuple):
    """An image of a run: its number from 0, name, height and width in px, place, and why it is not there, if so."""

    index: int  # type: ignore[assignment]  # a tuple's method of that name is not used
    name: str
    size_hw: tuple[int, int] = (0, 0)
    place: Place = Place()
    fault: str = ""


class Rows(NamedTuple):
    """Boxes (K, 4) float32 xyxy px, scores (K,) float32, labels (K,) int32."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


NONE = Rows(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
Parts = Mapping[int, Rows]  # by band, or WHOLE


def as_results(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Boxes (K, 4) xyxy px as xywh, and scores (K,), rounded as COCO results are written.

    Examples:
        >>> xywh, scores = as_results(np.array([[1, 2, 4.00049, 6]]), np.array([0.123456]))
        >>> xywh.tolist(), scores
        ([[1.0, 2.0, 3.0, 4.0]], [0.12346])
    """
    xywh = convert(boxes.astype(np.float64), "xyxy", "xywh").round(DIGITS)
    return xywh, [round(score, SCORE_DIGITS) for score in scores.astype(np.float64).tolist()]


class Writer:
    """Takes what a shard found, image by image, in the order of the run; see `write_shard`."""

    def __init__(self, file: Any, names: Mapping[int, str]):
        import pyarrow as arrow
        from pyarrow import parquet

        word = arrow.dictionary(arrow.int32(), arrow.string())
        sides = [(side, arrow.float32()) for side in SIDES]
        head = [("image", arrow.int32()), ("file_name", word), ("band", arrow.int32())]
        tail = [("class_index", arrow.int32()), ("class", word), ("score", arrow.float32())]
        self.schema = arrow.schema([*head, *tail, *sides])
        self.file, self.names = parquet.ParquetWriter(file, self.schema, compression="zstd"), dict(names)
        self.images: list[Image] = []
        self.waiting: list[tuple[int, str, int, Rows]] = []

    def add(self, image: Image, parts: Parts) -> None:
        """Keep an image and its boxes, those of WHOLE or of some of its bands."""
        self.images.append(image)
        self.waiting += [(image.index, image.name, band, rows) for band, rows in sorted(parts.items())]
        if sum(len(rows.scores) for *_, rows in self.waiting) >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a group."""
        import pyarrow as arrow

        counts = [len(rows.scores) for *_, rows in self.waiting]
        if not sum(counts):
            self.waiting = []
            return
        index, files, band, rows = zip(*self.waiting, strict=True)
        boxes, scores, labels = (np.concatenate(column) for column in zip(*rows, strict=True))
        words = arrow.array([self.names[label] for label in self.names], arrow.string())
        place = {label: i for i, label in enumerate(self.names)}
        classes = np.array([place[label] for label in labels.tolist()], np.int32)
        columns = [
            arrow.array(np.repeat(np.array(index, np.int32), counts)),
            arrow.DictionaryArray.from_arrays(np.repeat(np.arange(len(files), dtype=np.int32), counts), [*files]),
            arrow.array(np.repeat(np.array(band, np.int32), counts)),
            arrow.array(labels.astype(np.int32)),
            arrow.DictionaryArray.from_arrays(classes, words),
            arrow.array(scores.astype(np.float32)),
            *(arrow.array(np.ascontiguousarray(side, np.float32)) for side in boxes.T),
        ]
        self.file.write_table(arrow.Table.from_arrays(columns, schema=self.schema), row_group_size=sum(counts))
        self.waiting = []

    def close(self, about: Mapping[str, Any]) -> None:
        """Write the rest, and the description."""
        self.flush()
        places = list(dict.fromkeys(image.place for image in self.images))
        number = {place: i for i, place in enumerate(places)}
        images = [[i, name, *size, number[place], fault] for i, name, size, place, fault in self.images]
        known = {"names": self.names, "places": [[p.crs, p.transform] for p in places], "images": images}
        self.file.add_key_value_metadata({ABOUT: json.dumps({**about, **known})})
        self.file.close()


@contextmanager
def write_shard(path: Path, about: Mapping[str, Any], names: Mapping[int, str]) -> Iterator[Writer]:
    """A new shard, whole at the end of the context or not there, in place of an older one.

    Args:
        path: its file.
        about: of the run, plain values: `shard` [i, n] from 1, `total` images, `key` and `settings`.
        names: the classes.

    Raises:
        UserError: it cannot be written.
    """
    need("pyarrow", f"{path}: a shard")
    with whole_file(path) as file:
        writer = Writer(file, names)
        yield writer
        writer.close(about)


class Shard:
    """A shard that is read, a group of rows at a time.

    Attributes:
        about: what `write_shard` was told of the run.
        share: i, n from 1.
        names: the classes.
        images: those that the shard has seen, by their numbers.

    Raises:
        UserError: it is no shard.
    """

    def __init__(self, path: str | Path):
        need("pyarrow", f"{path}: a shard")
        from pyarrow import parquet

        self.path = Path(path)
        with parquet_errors(self.path):
            self.footer = parquet.read_metadata(self.path)
        if ABOUT not in (self.footer.metadata or {}):
            raise UserError(f"{path}: no shard of a prediction: `tinyyolo predict shard=i/n` writes them")
        about = parse_json(self.footer.metadata[ABOUT], self.path)
        places = [Place(crs, None if transform is None else tuple(transform)) for crs, transform in about.pop("places")]
        rows = ((i, name, (h, w), places[place], fault) for i, name, h, w, place, fault in about.pop("images"))
        self.images = {row[0]: Image(*row) for row in rows}
        self.names = {int(label): name for label, name in about.pop("names").items()}
        self.share: tuple[int, int] = tuple(about["shard"])
        self.about: dict[str, Any] = about

    def __iter__(self) -> Iterator[tuple[Image, Parts]]:
        """Every image in the order of the run, with what was found in it."""
        found = groupby(self.rows(), key=lambda row: row[0])
        index, parts = next(found, (None, iter(())))
        for image in self.images.values():
            if image.index != index:
                yield image, {}
                continue
            yield image, {band: rows for _, band, rows in parts}
            index, parts = next(found, (None, iter(())))

    def results(self) -> Iterator[dict[str, Any]]:
        """Detections as COCO results have them, a group of rows at a time: file_name, category_name, bbox and score.

        Raises:
            UserError: they are candidates, which `tinyyolo merge` has yet to join.
        """
        for table in tables(self.path, self.footer, ("file_name", "class", "band", "score", *SIDES)):
            if (table["band"] != WHOLE).any():
                raise UserError(f"{self.path}: rows of scenes' windows, no detections yet: `tinyyolo merge` joins them")
            xywh, scores = as_results(np.stack([table[side] for side in SIDES], axis=1), table["score"])
            names = {"file_name": table["file_name"], "category_name": table["class"]}
            yield {**names, "bbox": xywh, "score": np.array(scores)}

    def rows(self) -> Iterator[tuple[int, int, Rows]]:
        """Number of the image, band and rows, as they stand in the file."""
        for table in tables(self.path, self.footer, ("image", "band", "class_index", "score", *SIDES)):
            boxes = np.stack([table[side] for side in SIDES], axis=1)
            cuts = np.flatnonzero((np.diff(table["image"]) != 0) | (np.diff(table["band"]) != 0)) + 1
            for at in np.split(np.arange(len(boxes)), cuts):
                own = Rows(boxes[at], table["score"][at], table["class_index"][at])
                yield int(table["image"][at[0]]), int(table["band"][at[0]]), own


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """What reading a file in this context fails of, in a line."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: not readable as Parquet: {' '.join(str(reason).split())[:200]}") from error


def tables(path: Path, footer: Any, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The columns of a Parquet file, a group of rows at a time; it is not held open between two."""
    from pyarrow import parquet

    for group in range(footer.num_row_groups):
        with parquet_errors(path), parquet.ParquetFile(path, metadata=footer) as file:
            table = file.read_row_group(group, columns=list(columns))
        yield {name: table[name].to_numpy() for name in columns}


def files_of(named: Sequence[str | Path]) -> list[Path]:
    """The files of shards: those named, and those in the folders that are named.

    Raises:
        UserError: there is none.
    """
    files: list[Path] = []
    for path in (path_of(one, "shard ") for one in named):
        inside = sorted(path.glob(f"*-of-*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: there are no shards (1-of-3{SUFFIX}) in it")
        files += inside
    return files


def complete(shards: Sequence[Shard]) -> list[Shard]:
    """The shards by their numbers, one each.

    Raises:
        UserError: one is missing, there twice, or of another run; says which.
    """
    first, by_number = shards[0], defaultdict[int, list[Shard]](list)
    for shard in shards:
        if shard.about["key"] != first.about["key"]:
            raise UserError(f"{shard.path}: {difference(shard, first.about)}, {first.path}: shards of two runs")
        if shard.share[1] != first.share[1]:
            raise UserError(f"{shard.path} and {first.path}: shards of {shard.share[1]} and of {first.share[1]}")
        by_number[shard.share[0]].append(shard)
    for number, same in sorted(by_number.items()):
        if len(same) > 1:
            raise UserError(f"shard {number} is there twice: {same[0].path} and {same[1].path}")
    count = first.share[1]
    if absent := {*range(1, count + 1)} - {*by_number}:
        words = (
            f"shard{'s' * (len(absent) > 1)} {listed(absent)} of {count} {'are' if len(absent) > 1 else 'is'} missing"
        )
        raise UserError(f"{words}: run predict with shard={min(absent)}/{count}")
    seen = {index for shard in shards for index in shard.images}
    if lost := sorted({*range(first.about["total"])} - seen):
        raise UserError(
            f"{len(lost):,} images are in no shard, the first is number {lost[0] + 1}: run all shards again"
        )
    return [same[0] for _, same in sorted(by_number.items())]


def difference(there: Shard, here: Mapping[str, Any]) -> str:
    """In which setting a shard differs from a run."""
    own, other = here["settings"], there.about["settings"]
    for name in own:
        if own[name] != other.get(name):
            if name == "source":
                return "of another source"
            return f"made with {name}={shown(other.get(name))} where this has {shown(own[name])}"
    return "of another version"


def listed(numbers: Iterable[int]) -> str:
    """'2, 3 and 7'."""
    *head, last = map(str, sorted(numbers))
    return f"{', '.join(head)} and {last}" if head else last
