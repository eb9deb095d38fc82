"""The writer of labels as polygons on a map: one file for all images of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.formats.decode import as_text
from tinyyolo.datasets.formats.gis.scenes import Scene, scene_of
from tinyyolo.io import some, tell
from tinyyolo.scenes import need
from tinyyolo.scenes.place import LON_LAT, Place
from tinyyolo.scenes.vectors import GEOJSON, SHAPEFILE, Part, corners, counter_clockwise, decimals, save

LONGEST_TEXT = 254  # bytes of an attribute of a Shapefile


def write(
    labels: str | Path,
    annotations: Annotations,
    *,
    images_dir: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """See `base.Writer`; each box is a polygon with its class, image and id.

    GeoJSON is in longitude and latitude (RFC 7946), the others are in the CRS of the first image. Where no image has a
    place on the map, or `images_dir` is None, the numbers are pixels.

    Raises:
        UserError: as every Writer, or some of the images have a place and others have none.
    """
    path, notes = Path(labels), annotations
    for package in ("rasterio", "pyogrio"):
        need(package, f"{path}: writing labels of a map")
    there = zip(notes.file_names, notes.sizes_hw.tolist(), strict=True)
    scenes = [
        scene_of(Path(images_dir), name, size) if images_dir else Scene(name, size, Place()) for name, size in there
    ]
    crs = the_crs(path, scenes)
    if scenes and scenes[0].transform is None:
        tell(f"{path}: in pixels, y downwards: the images have no place on the map")
    rings, parts = corners(notes.boxes), []
    for i, scene in enumerate(scenes):
        rows = notes.rows(i)
        place = scene.place
        rings[rows] = place.in_crs(rings[rows], crs) if crs else place.on_map(rings[rows])
        parts.append(Part(notes.boxes[rows], np.zeros(0), notes.labels[rows], scene.name, scene.place))
    save(path, columns_of(path, notes), counter_clockwise(rings), crs, decimals(parts), overwrite=overwrite)
    ignored = int((notes.labels == IGNORED).sum())
    return {"boxes": len(notes.labels) - ignored, "ignore_regions": ignored}


def the_crs(path: Path, scenes: Sequence[Scene]) -> str:
    """The CRS to write in, "" for pixels and for transforms without a CRS.

    Raises:
        UserError: images with and without a place on the map, which one file cannot hold.
    """
    kinds = {(scene.transform is not None, bool(scene.crs)) for scene in scenes}
    if len(kinds) > 1:
        without = [scene.name for scene in scenes if not scene.crs or scene.transform is None]
        such = f"{len(without):,} of {len(scenes):,} images have no place on the map, such as {without[0]}"
        raise UserError(f"{path}: {such}; they and the others cannot be in one file: to=coco")
    return "" if not scenes or not scenes[0].crs else LON_LAT if path.suffix == GEOJSON else scenes[0].crs


def columns_of(path: Path, notes: Annotations) -> dict[str, np.ndarray]:
    """The attributes of every box; no name of one has over ten characters, which a Shapefile would cut.

    Raises:
        UserError: a text is too long for a Shapefile.
    """
    images = np.array(notes.file_names, object)[notes.image_index] if len(notes) else np.zeros(0, object)
    classes = np.array([notes.categories[key] for key in notes.box_categories.tolist()], object)
    as_text(path, {*images, *classes})
    long = [text for text in {*images, *classes} if len(text.encode()) > LONGEST_TEXT]
    if long and path.suffix in SHAPEFILE:
        raise UserError(f"{path}: a Shapefile holds {LONGEST_TEXT} bytes of text: {some(long, 1, '')[0]}; to=gpkg")
    columns = {"id": notes.ids, "class": classes, "image": images, **notes.extra}
    if notes.crowd.any():
        columns["iscrowd"] = notes.crowd.astype(np.int64)
    return columns if notes.scores is None else {**columns, "score": notes.scores}
