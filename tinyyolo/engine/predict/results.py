"""What one image's detections write: names from a checkpoint stay inside the folder, files are whole or not there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from ultralytics.engine.results import Boxes, Results
from ultralytics.utils.files import increment_path
from ultralytics.utils.plotting import save_one_box

from tinyyolo.datasets.images import save
from tinyyolo.engine.predict.unfinished import MARK
from tinyyolo.io import as_file_names, named, new_file, place_in
from tinyyolo.scenes import vectors
from tinyyolo.scenes.raster import place_of_file
from tinyyolo.scenes.windows import Span, Window

AROUND, SHARE = 5, 0.01  # px, and share of its side, around a box in a crop: upstream's
WRITES = ("save", "save_txt", "save_crop", "save_json", "save_geojson", "out")  # what predict makes of detections
BEGUN = {"args.yaml", MARK}  # what a run writes before it has a result


class TinyResults(Results):
    """Ultralytics' Results, whose `save_txt` and `save_crop` write by our rules for files."""

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Add `class cx cy w h [score]`, fractions of the image, to a text file; none is made without detections."""
        boxes: Any = self.boxes
        path, rows = Path(txt_file), boxes.xywhn.tolist() if boxes is not None else []
        if rows:
            old = path.read_text(encoding="utf-8") if path.is_file() else ""
            columns = zip(boxes.cls.int().tolist(), rows, boxes.conf.tolist(), strict=True)
            lines = [" ".join(f"{v:g}" for v in (c, *row, *[conf] * save_conf)) + "\n" for c, row, conf in columns]
            with new_file(path, overwrite=True) as file:
                file.write(old + "".join(lines))
        return str(txt_file)

    def save_geojson(self, path: str | Path) -> None:
        """Write the boxes as polygons: longitude and latitude of a georeferenced scene, else pixels. See `vectors`."""
        raster: Any = getattr(self, "raster", None)
        boxes: Any = self.boxes
        rows = boxes.data.cpu().double().numpy() if boxes is not None else np.zeros((0, 6))
        place = place_of_file(self.path) if raster is None else (raster.crs, raster.transform)
        vectors.write(path, rows[:, :4], rows[:, 4], rows[:, 5].astype(int), self.names, *place)

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "im.jpg") -> None:
        """Write each detection as `save_dir`/CLASS/NAME.jpg, NAME2.jpg, ...; CLASS as `io.as_file_name` makes it."""
        folders, boxes = as_file_names(self.names), self.boxes
        for box in boxes.cpu() if boxes is not None else []:
            name = f"{folders[int(box.cls.item())]}/{Path(file_name).with_suffix('.jpg').name}"
            path = increment_path(place_in(save_dir, name), sep="")
            save(path, self.crop(box.xyxy))

    def crop(self, xyxy: Tensor) -> np.ndarray:
        """The pixels of a box (1, 4) and a little around it."""
        pixels: np.ndarray = save_one_box(xyxy, self.orig_img.copy(), BGR=True, save=False)
        return pixels


class SceneResults(TinyResults):
    """Results of a scene: boxes in its pixels; `orig_img` is the picture that is drawn on, an overview of a raster.

    Attributes:
        raster: the file's bands, CRS and transform, None for a plain picture.
        dropped: there is no result, and nothing is written of it.
    """

    raster: Any = None
    dropped = False

    def plot(self, *args: Any, **kwargs: Any) -> Any:
        """As upstream, on `orig_img`."""
        shape = self.orig_img.shape[:2]
        if shape == self.orig_shape:
            return super().plot(*args, **kwargs)
        boxes: Any = self.boxes
        rows = boxes.data.clone()
        rows[:, :4] *= rows.new_tensor([shape[1] / self.orig_shape[1], shape[0] / self.orig_shape[0]] * 2)
        return Results(self.orig_img, self.path, self.names, boxes=rows).plot(*args, **kwargs)

    def crop(self, xyxy: Tensor) -> np.ndarray:
        """As of a picture; of a raster its pixels there, as `orig_img` is but an overview."""
        if self.raster is None:
            return super().crop(xyxy)
        height, width = self.orig_shape
        x1, y1, x2, y2 = xyxy[0].tolist()
        more_x, more_y = AROUND + SHARE * (x2 - x1), AROUND + SHARE * (y2 - y1)
        left, right = max(0, int(x1 - more_x)), min(width, math.ceil(x2 + more_x))
        top, bottom = max(0, int(y1 - more_y)), min(height, math.ceil(y2 + more_y))
        pixels, _ = self.raster.read(Window(Span(left, right, left, right), Span(top, bottom, top, bottom)))
        return np.asarray(pixels)

    def save_crop(self, *args: Any, **kwargs: Any) -> None:
        """As of a picture; a raster is opened once for all."""
        super().save_crop(*args, **kwargs)
        if self.raster is not None:
            self.raster.close()


def scene_result(rows: Tensor, image: np.ndarray, path: str, names: dict[int, str]) -> SceneResults:
    """The result of a scene from its detections (K, 6) in pixels of the scene."""
    raster = getattr(image, "raster", None)
    result = SceneResults(np.asarray(image), path, names, boxes=rows)
    if raster is not None:
        result.raster, result.orig_shape = raster, raster.size_hw
        result.boxes = Boxes(rows, raster.size_hw)
    return result


@contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Within this context a run that fails before it has a result leaves no folder where there was none.

    A folder that was there stays, with all that is in it.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with named(folder):
            yield
    except BaseException:
        inside = [path for path in folder.rglob("*") if missing]
        if all(path.is_dir() or path.name in BEGUN for path in inside):
            for path in (*sorted(inside, reverse=True), *missing):
                with suppress(OSError):  # another run has put something there
                    path.rmdir() if path.is_dir() else path.unlink()
        raise
