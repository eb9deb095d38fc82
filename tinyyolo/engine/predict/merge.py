"""`tinyyolo merge`: the shards of a prediction become what one run would have written."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from tinyyolo.config import UserError, path_of
from tinyyolo.datasets.formats.tables.shards import NONE, WHOLE, Image, Parts, Rows, Shard, complete, files_of
from tinyyolo.datasets.train.dataset import MAX_LISTED, report
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.predict.maps import checked, maps_of
from tinyyolo.engine.predict.results import SceneResults
from tinyyolo.engine.predict.rows import write_rows
from tinyyolo.engine.predict.scenes import as_rows, whole_scene
from tinyyolo.engine.predict.shards import FOLDER
from tinyyolo.engine.predict.unfinished import STORE
from tinyyolo.scenes.bands import Bands, rows_of
from tinyyolo.scenes.sweep import Found
from tinyyolo.scenes.tiling import Tiling

RESULTS = "predictions.json"
ROOT = Path("/shards")  # of the names of images, which are relative


def merge(*shards: str | Path, json: str | Path | None = None, out: Any = None, exist_ok: bool = False) -> None:
    """Join the shards of a prediction: tinyyolo merge runs/predict.shards out=boxes.gpkg

    Writes what one run without shard= writes, to the byte: COCO results and maps. It needs neither the images nor the
    model; the order of the shards does not matter; one that is missing or there twice is named, and nothing is written.

    Args:
        shards: folders or files of shards (1-of-3.parquet), of one run.
        json: the file of the COCO results; by default predictions.json where one run writes it: of
            runs/predict.shards in runs/predict.
        out: maps of all images, as out= of predict: NAME.geojson, .gpkg, .fgb, .parquet, .csv, or a list of them.
        exist_ok: replace files that are there.
    """
    if not shards:
        raise UserError("merge: no shards are named; usage: tinyyolo merge runs/predict.shards out=boxes.gpkg")
    found = complete([Shard(path) for path in files_of(shards)])
    paths = checked(out, exist_ok)
    rows = run_of(found[0].path) / RESULTS if json is None else path_of(json, "json=")
    if rows.exists() and not exist_ok:
        raise UserError(f"{rows}: exists; exist_ok=true replaces it")
    results = Joined(found)
    count = 0
    with maps_of(paths) as maps:
        for result in write_rows(results, rows, lambda: ROOT):
            maps.add(result, Path(result.path).relative_to(ROOT).as_posix())
            count += 1
        if results.faults and not count:
            raise UserError(f"no readable image: {'; '.join(results.faults[:MAX_LISTED])}")
    report("", "unreadable images left out", results.faults)
    clear(found)
    print(f"Joined {len(found)} shards of {count:,} images into {', '.join(map(str, [rows, *paths]))}")


def run_of(path: Path) -> Path:
    """The run folder beside the folder of a shard.

    Examples:
        >>> run_of(Path("runs/predict.shards/1-of-2.parquet")).as_posix()
        'runs/predict'
    """
    return path.parent.with_name(path.parent.name.removesuffix(FOLDER)) if path.parent.name else path.parent


class Joined:
    """The results of a run from its shards, image by image; `faults` become known on the way."""

    def __init__(self, shards: Sequence[Shard]):
        self.shards, self.names, self.faults = shards, shards[0].names, list[str]()
        settings = shards[0].about["settings"]
        self.max_det = shards[0].about["max_det"]
        self.tiling, self.rules = restored(Tiling, settings), restored(Postprocess, settings)

    def __iter__(self) -> Iterator[Any]:
        """A result of each image that could be read."""
        ordered = heapq.merge(*self.shards, key=lambda pair: pair[0].index)
        for _, group in groupby(ordered, key=lambda pair: pair[0].index):
            images, parts = zip(*group, strict=True)
            if fault := next((image.fault for image in images if image.fault), ""):
                self.faults.append(fault)
                continue
            yield self.result(images[0], {band: rows for part in parts for band, rows in part.items()})

    def result(self, image: Image, parts: Parts) -> SceneResults:
        """The result of one image."""
        whole = WHOLE in parts or not parts
        rows = as_rows(found_of(parts.get(WHOLE, NONE)) if whole else self.of_bands(image, parts))
        picture = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (*image.size_hw, 3))
        result = SceneResults(picture, str(ROOT / image.name), self.names, boxes=rows)
        result.place = image.place
        return result

    def of_bands(self, image: Image, parts: Parts) -> Found:
        """Detections of a scene whose rows of windows several shards have looked at."""
        with TemporaryDirectory(prefix="tinyyolo-") as folder:
            bands = Bands(Path(folder))
            for band in range(len(rows_of(self.tiling.windows(image.size_hw)))):
                bands.put(band, found_of(parts.get(band, NONE)))
            return whole_scene(self.tiling, self.rules, image.size_hw, bands, self.max_det)[0]


def found_of(rows: Rows) -> Found:
    """Rows of a shard as tensors."""
    boxes, scores, labels = (torch.from_numpy(np.array(column)) for column in rows)
    return Found(boxes, scores, labels.long())


def restored(kind: Any, settings: dict[str, Any]) -> Any:
    """A Tiling or a Postprocess from the settings of a run, in which lists were tuples."""
    own = {name: settings[name] for name in kind.__dataclass_fields__}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in own.items()})


def clear(shards: Sequence[Shard]) -> None:
    """Remove what the shards kept of unfinished scenes beside their folders."""
    for folder in {shard.path.absolute().parent.parent for shard in shards}:
        for store in {shard.about["store"] for shard in shards}:
            if (folder / f"{STORE}{store}").is_dir():
                shutil.rmtree(folder / f"{STORE}{store}")
