"""Formats of annotations. A new one is a file with a `FORMAT` and a line here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.formats import coco, dota, visdrone, voc, xview, yolo
from tinyyolo.datasets.formats.base import Format
from tinyyolo.datasets.formats.gis import read as gis
from tinyyolo.datasets.formats.tables import boxes_csv, vedai

__all__ = ["DEFAULT", "FORMATS", "JSON", "Format"]


def read_coco(
    images_dir: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    labels: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
) -> Annotations:
    """`coco.read` with a Reader's arguments; the JSON itself says which images there are."""
    if labels is None:
        raise UserError(f"{images_dir}: give the COCO JSON: annotations: {{split: file.json}}")
    return coco.read(labels, names, ignore, strict=strict)


def write_coco(
    labels: str | Path, annotations: Annotations, *, images_dir: str | Path | None = None, overwrite: bool = False
) -> dict[str, int]:
    """`coco.write` with a Writer's counts."""
    coco.write(labels, annotations, overwrite=overwrite)
    ignored = int((annotations.labels == IGNORED).sum())
    return {"boxes": len(annotations.labels) - ignored, "ignore_regions": ignored}


JSON, DEFAULT = "coco", "yolo"  # of a file that ends in .json; of label folders whose YAML names no format
FORMATS: dict[str, Format] = {
    "coco": Format(read_coco, write_coco, "annotations/{split}.json", regions=()),
    "yolo": yolo.FORMAT,
    "visdrone": visdrone.FORMAT,
    "dota": dota.FORMAT,
    "xview": xview.FORMAT,
    "voc": voc.FORMAT,
    "vedai": vedai.FORMAT,
    "csv": boxes_csv.FORMAT,
    **{name: gis.layout(f".{name}") for name in ("geojson", "gpkg", "shp")},
}
