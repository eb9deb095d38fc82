"""What one image's detections write: names from a checkpoint stay inside the folder, files are whole or not there."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from ultralytics.engine.results import Boxes, Results
from ultralytics.utils.files import increment_path
from ultralytics.utils.plotting import save_one_box

from tinyyolo.datasets.images import save
from tinyyolo.datasets.views import part
from tinyyolo.engine.predict.scenes import SHOWN
from tinyyolo.engine.predict.unfinished import MARK
from tinyyolo.io import as_file_names, named, new_file, place_in
from tinyyolo.plots.scene import Detections, image_sheet, scene_sheet
from tinyyolo.scenes import vectors
from tinyyolo.scenes.picture import Picture
from tinyyolo.scenes.place import Place
from tinyyolo.scenes.raster import overview, place_of_file

AROUND, SHARE = 5, 0.01  # px, and share of its side, around a box in a crop: upstream's
WRITES = ("save", "save_txt", "save_crop", "save_json", "save_geojson", "out")  # what predict makes of detections
OWN_PARTS = ("raster", "place", "drawn", "took")  # of results here, which upstream does not copy
BEGUN = {"args.yaml", MARK}  # what a run writes before it has a result


class TinyResults(Results):
    """Ultralytics' Results, whose `save_txt` and `save_crop` write by our rules for files."""

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Add `class cx cy w h [score] [id]`, fractions of the image, to a text file; none is made without detections.

        The id is that of the track, where objects are followed.
        """
        boxes: Any = self.boxes
        path, rows = Path(txt_file), boxes.xywhn.tolist() if boxes is not None else []
        if rows:
            old = path.read_text(encoding="utf-8") if path.is_file() else ""
            ids = [[number] for number in boxes.id.int().tolist()] if boxes.is_track else [[]] * len(rows)
            columns = zip(boxes.cls.int().tolist(), rows, boxes.conf.tolist(), ids, strict=True)
            lines = [
                " ".join(f"{v:g}" for v in (c, *row, *[conf] * save_conf, *number)) + "\n"
                for c, row, conf, number in columns
            ]
            with new_file(path, overwrite=True) as file:
                file.write(old + "".join(lines))
        return str(txt_file)

    def plot(self, *args: Any, **kwargs: Any) -> Any:
        """As upstream; of tracks each in a colour of its own."""
        tracks = self.boxes is not None and self.boxes.is_track
        return super().plot(*args, **{**({"color_mode": "instance"} if tracks else {}), **kwargs})

    def new(self) -> TinyResults:
        """As upstream, of this class: parts of a result, and copies on another device, keep its place."""
        made = super().new()
        made.__class__, made.orig_shape = type(self), self.orig_shape
        made.__dict__ |= {name: value for name, value in self.__dict__.items() if name in OWN_PARTS}
        return made

    def picture(self, line_width: int | None = None, boxes: bool = True, **text: Any) -> np.ndarray:
        """What `predict` writes: thin boxes, a legend of the classes, small images enlarged: (H, W, 3) uint8 BGR.

        With words in it (`conf`, `labels`) or without boxes it is upstream's, of the size of the image.
        """
        if not boxes or any(text.values()):
            return np.asarray(type(self).plot(self, line_width=line_width, boxes=boxes, **text))
        rows = self.rows
        unknown = np.full((len(rows), 2), math.nan)
        found = Detections(self.orig_shape, rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32), self.names, unknown)
        return image_sheet(self.orig_img, found, line_width or 1)

    @property
    def rows(self) -> np.ndarray:
        """(N, 6) float64: xyxy px, score, class."""
        boxes: Any = self.boxes
        if boxes is None:
            return np.zeros((0, 6))
        columns = boxes.xyxy, boxes.conf[:, None], boxes.cls[:, None]  # a track's number may stand between them
        return np.concatenate([column.cpu().double().numpy() for column in columns], axis=1)

    @property
    def geo(self) -> Place:
        """CRS and transform of the image, those of its file; `geo.known` is false where it has no place on the map."""
        if "place" not in self.__dict__:
            self.place = Place(*place_of_file(self.path))
        return self.place

    @property
    def part(self) -> vectors.Part:
        """What a map has of the result: boxes and scores in plain arrays, the image's name and place."""
        rows = self.rows
        return vectors.Part(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32), Path(self.path).name, self.geo)

    def save_map(self, path: str | Path) -> None:
        """Write the boxes as polygons in the form of the suffix, in place of an older file; see `vectors.write_parts`.

        Raises:
            UserError: no such form, a package that is not installed, or it cannot be written.
        """
        vectors.write_parts(path, [self.part], self.names)

    def save_geojson(self, path: str | Path) -> None:
        """`save_map` of a GeoJSON: longitude and latitude of an image with a place on the map, else pixels."""
        self.save_map(path)

    def to_geodataframe(self) -> Any:
        """The boxes as a geopandas.GeoDataFrame: a polygon a row in the image's CRS, or in pixels, y downwards.

        Its columns are those of the files: class, class_index, score, x1, y1, x2, y2 in px, width_m, height_m, scene.

        Raises:
            UserError: geopandas is not installed.
        """
        return vectors.geodataframe(self.part, self.names)

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
        took: what looking at it took, ms.
    """

    raster: Any = None
    dropped = False
    took = 0.0  # ms
    bands: Any = None  # of a shard that looked at some rows of windows: their candidates by band
    drawn: Any = None  # the picture; None while it has not been asked for

    @property
    def orig_img(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR: of a raster an overview, read when it is asked for."""
        if self.drawn is None:
            self.drawn = overview(self.raster, SHOWN)
            self.raster.close()
        pixels: np.ndarray = self.drawn
        return pixels

    @orig_img.setter
    def orig_img(self, image: np.ndarray) -> None:
        self.drawn = None if getattr(image, "blank", False) else np.asarray(image)

    def verbose(self) -> str:
        """As upstream; of a shard's rows of windows the candidates, as what they make is not known before the merge."""
        if self.bands is None:
            words: str = super().verbose()
            return words
        count = sum(len(scores) for (_, scores, _), _ in self.bands.values())
        return f"{count:,} candidate{'s' * (count != 1)} in its rows, not joined yet, "

    def plot(self, *args: Any, **kwargs: Any) -> Any:
        """As upstream, of a scene that can be shown at its own size; of a larger one its sheet, see `plots.scene`.

        The sheet heeds `boxes`, `line_width`, `save`, `filename` and `show`.
        """
        frame = self.raster is None and self.boxes is not None and self.boxes.is_track  # of a video, as large as others
        if frame or max(self.orig_shape) <= SHOWN:
            return super().plot(*args, **kwargs)
        keys = inspect.signature(Results.plot).bind(self, *args, **kwargs)
        keys.apply_defaults()
        given = keys.arguments
        sheet = self.sheet(round(given["line_width"] or 1), given["boxes"])
        if given["show"]:
            Image.fromarray(sheet[..., ::-1]).show(Path(self.path).name)
        if given["save"]:
            save(given["filename"] or f"results_{Path(self.path).name}.jpg", sheet, overwrite=True)
        return sheet

    def picture(self, line_width: int | None = None, boxes: bool = True, **text: Any) -> np.ndarray:
        """As that of an image; of a large scene its sheet."""
        if max(self.orig_shape) > SHOWN:
            return self.sheet(line_width or 1, boxes)
        return super().picture(line_width, boxes, **text)

    def sheet(self, line: int = 1, boxes: bool = True) -> np.ndarray:
        """All of the scene with its boxes or their density, a legend, and detections enlarged: (H, W, 3) uint8 BGR."""
        own = self.part
        metres, pixel = self.geo.metres(own.boxes), self.geo.pixel(self.orig_shape)
        found = Detections(self.orig_shape, own.boxes, own.scores, own.labels, self.names, metres, pixel)
        drawn = scene_sheet(self.orig_img, found, self.pixels, own.scene, line, boxes)
        if self.raster is not None:
            self.raster.close()
        return drawn

    def pixels(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """A part of the scene at its own size."""
        return part(self.raster or Picture(self.orig_img), left, top, right, bottom)

    def crop(self, xyxy: Tensor) -> np.ndarray:
        """As of a picture; of a raster its pixels there, as `orig_img` is but an overview."""
        if self.raster is None:
            return super().crop(xyxy)
        height, width = self.orig_shape
        x1, y1, x2, y2 = xyxy[0].tolist()
        more_x, more_y = AROUND + SHARE * (x2 - x1), AROUND + SHARE * (y2 - y1)
        left, right = max(0, int(x1 - more_x)), min(width, math.ceil(x2 + more_x))
        top, bottom = max(0, int(y1 - more_y)), min(height, math.ceil(y2 + more_y))
        return self.pixels(left, top, right, bottom)

    def save_crop(self, *args: Any, **kwargs: Any) -> None:
        """As of a picture; a raster is opened once for all."""
        super().save_crop(*args, **kwargs)
        if self.raster is not None:
            self.raster.close()


def scene_result(rows: Tensor, image: np.ndarray, path: str, names: dict[int, str]) -> SceneResults:
    """The result of a scene from its detections (K, 6) in pixels of the scene."""
    raster = getattr(image, "raster", None)
    result = SceneResults(image, path, names, boxes=rows)
    if raster is not None:
        result.raster, result.orig_shape = raster, raster.size_hw
        result.place = Place(raster.crs, raster.transform)
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
