"""predictions.json: the rows of a run as COCO results, written one by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ultralytics.engine.results import Results
from ultralytics.utils import LOGGER

from tinyyolo.datasets.formats.tables.shards import as_results
from tinyyolo.engine.predict.sources import is_video
from tinyyolo.io import new_file


def name_in(folder: Path | None, path: str | Path) -> str:
    """The name of an image in what is written of several: its path in `folder`, or the file's name.

    Examples:
        >>> name_in(Path("/data"), "/data/a/b.png"), name_in(None, "/data/a/b.png")
        ('a/b.png', 'b.png')
    """
    source = Path(path)
    return source.relative_to(folder).as_posix() if folder and folder in source.parents else source.name


def write_rows(results: Iterable[Results], path: Path, within: Callable[[], Path | None]) -> Iterator[Results]:
    """Pass `results` on and write each to `path` as COCO results: holding them would fill the memory.

    `file_name` is the file's name, or its path in the folder `within()`, known from the first result on. The image id
    is that without its ending, a number where it can be one, and for a video with the frame from 1; category_id is the
    model's class from 0, bbox x, y, w, h in pixels of the image. `evaluate` joins them with annotations by file name
    and category_name, as ids there count otherwise. Of objects that are followed a row has its frame, from 1, and
    track_id. A consumer that stops early leaves a whole file of what it has
    seen.
    """
    frames: Counter[Path] = Counter()
    mark = "["
    with new_file(path, overwrite=True) as file:
        try:
            for result in results:
                source, name = Path(result.path), Path(name_in(within(), result.path))
                boxes: Any = result.boxes  # upstream's type says that there may be none
                frames[source] += 1
                stem = name.with_suffix("").as_posix()
                image_id: int | str = int(stem) if stem.isdecimal() else stem
                if is_video(source):
                    image_id = f"{stem}_{frames[source]}"
                xywh, scores = as_results(boxes.xyxy.cpu().numpy(), boxes.conf.cpu().numpy())
                ids = boxes.id.int().tolist() if boxes.is_track else [None] * len(xywh)
                columns = (boxes.cls.int().tolist(), xywh.tolist(), scores, ids)
                for label, bbox, score, number in zip(*columns, strict=True):
                    row = {"image_id": image_id, "file_name": name.as_posix(), "category_id": label}
                    row |= {"category_name": result.names[label], "bbox": bbox, "score": score}
                    row |= {} if number is None else {"frame": result.frame, "track_id": number}
                    file.write(f"{mark}\n{json.dumps(row)}")
                    mark = ","
                yield result
        except GeneratorExit:  # the consumer has seen enough
            LOGGER.info(f"{path}: of the first {sum(frames.values())} images")
        file.write("\n]\n" if mark == "," else "[]\n")
