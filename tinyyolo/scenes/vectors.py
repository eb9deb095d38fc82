"""Detections of a scene as polygons on a map."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError, suggest
from tinyyolo.io import copy_file
from tinyyolo.scenes import need

# Suffix -> GDAL's driver, and its options.
DRIVERS: dict[str, tuple[str, dict[str, str]]] = {
    ".geojson": ("GeoJSON", {"RFC7946": "YES"}),  # longitude and latitude, as the standard has it
    ".gpkg": ("GPKG", {}),
    ".fgb": ("FlatGeobuf", {}),
    ".csv": ("CSV", {"GEOMETRY": "AS_WKT"}),
    ".shp": ("ESRI Shapefile", {"ENCODING": "UTF-8"}),  # several files of one name
}
POLYGON = np.array([1, 1], np.uint32)  # little endian, in well-known binary


def on_map(points: np.ndarray, transform: tuple[float, ...] | None) -> np.ndarray:
    """Points (…, 2) x, y px of a scene as coordinates of its CRS; pixels where it has no transform.

    Examples:
        >>> on_map(np.array([[2.0, 3.0]]), (10.0, 0.0, 500.0, 0.0, -10.0, 900.0)).tolist()
        [[520.0, 870.0]]
    """
    if transform is None:
        return points
    a, b, c, d, e, f = transform
    x, y = points[..., 0], points[..., 1]
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)


def corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 5, 2) px of boxes (N, 4) xyxy: a closed ring, counter-clockwise where y points up."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([x1, y1, x1, y2, x2, y2, x2, y1, x1, y1], axis=1).reshape(-1, 5, 2)


def polygons(rings: np.ndarray) -> np.ndarray:
    """(N,) well-known binary of rings (N, 5, 2)."""
    head = b"\x01" + np.array([3, 1, 5], "<u4").tobytes()
    out = np.empty(len(rings), object)
    out[:] = [head + ring.tobytes() for ring in rings.astype("<f8")]
    return out


def write(
    path: str | Path,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    crs: str = "",
    transform: tuple[float, ...] | None = None,
) -> None:
    """Write detections as polygons: GeoJSON in longitude and latitude (RFC 7946), other forms in the scene's CRS.

    A scene without a CRS gives pixels, with y downwards.

    Args:
        path: the suffix says the form, see DRIVERS.
        boxes: (N, 4) xyxy px of the scene.
        scores: (N,).
        labels: (N,) int.
        names: the classes.
        crs: well-known text.
        transform: see `Raster`.

    Raises:
        UserError: no such form, or it cannot be written.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    classes = np.array([names[int(label)] for label in labels], object)
    columns: dict[str, Any] = {"class": classes, "score": np.asarray(scores, np.float64).round(5)}
    columns |= {name: boxes[:, i].round(2) for i, name in enumerate(("x1", "y1", "x2", "y2"))}
    save(path, on_map(corners(boxes), transform), columns, crs, overwrite=True)


def save(
    path: str | Path, rings: np.ndarray, columns: Mapping[str, np.ndarray], crs: str, *, overwrite: bool = False
) -> None:
    """Write polygons (N, 5, 2) of a CRS with their attributes (N,), in the form of the path's suffix.

    Raises:
        UserError: no such form, it cannot be written, or it exists and `overwrite` is not set.
    """
    need("pyogrio", f"{path}: writing a map")
    import pyogrio

    path = Path(path)
    if path.suffix not in DRIVERS:
        raise UserError(f"{path}: {suggest(path.suffix, DRIVERS)}")
    driver, options = DRIVERS[path.suffix]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        try:
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # a scene may have none
            pyogrio.raw.write(
                Path(folder) / path.name,
                polygons(rings),
                field_data=list(columns.values()),
                fields=list(columns),
                geometry_type="Polygon",
                crs=crs or None,
                driver=driver,
                layer=path.stem,
                layer_options=options if crs or driver != "GeoJSON" else {},
            )
        except pyogrio.errors.DataSourceError as error:
            raise UserError(f"{path}: not written: {' '.join(str(error).split())}") from error
        for made in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):  # itself is the last
            copy_file(made, path.with_name(made.name), overwrite=overwrite)
