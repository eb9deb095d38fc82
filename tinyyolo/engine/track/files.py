"""The files of `out=` that hold tracks: MOT text and JSON, written frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from tinyyolo.boxes.convert import convert
from tinyyolo.config import UserError, suggest
from tinyyolo.io import new_file

MOT, ROWS = ".txt", ".json"
FORMS = (ROWS, MOT)


def check_form(path: Path, said: str = "") -> None:
    """Raise UserError for a path whose suffix is no form of tracks."""
    if path.suffix.lower() not in FORMS:
        raise UserError(f"{said}{path}: no form of tracks: {path.suffix!r}; {suggest(path.suffix, FORMS)}")


def write_mot(results: Iterable[Any], path: Path) -> Iterator[Any]:
    """Pass `results` on and write each to `path` as MOT text: `frame,id,x,y,w,h,score,-1,-1,-1`, frames from 1, in px.

    That is what the MOT Challenge takes (Dendorfer et al. 2020); it holds no classes. A consumer that stops early
    leaves a whole file of what it has seen.
    """
    with new_file(path, overwrite=True) as file:
        try:
            for result in results:
                boxes = result.boxes
                xywh = convert(boxes.xyxy.cpu().double().numpy(), "xyxy", "xywh").round(3).tolist()
                for number, box, score in zip(boxes.id.int().tolist(), xywh, boxes.conf.tolist(), strict=True):
                    place = ",".join(map(str, box))
                    file.write(f"{result.frame},{number},{place},{score:.5f},-1,-1,-1\n")
                yield result
        except GeneratorExit:  # the consumer has seen enough
            LOGGER.info(f"{path}: of the frames seen so far")
