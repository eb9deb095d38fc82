"""Georeferenced images and labels on a map, drawn by the tests."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine

UTM33 = "EPSG:32633"
NORTH_UP = (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)  # half a metre a pixel


def scene(path: Path, crs: str = UTM33, transform: tuple = NORTH_UP, size: tuple = (100, 80), seed: int = 0) -> Path:
    """Write a GeoTIFF of three bands, width x height px; transform None gives it no place on the map."""
    width, height = size
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {} if transform is None else {"transform": Affine(*transform)}
    kind = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    pixels = np.random.default_rng(seed).integers(1, 256, (3, height, width), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **kind, crs=crs or None, **place) as file:
            file.write(pixels)
    return path


def ring(x1: float, y1: float, x2: float, y2: float) -> list:
    """The corners of a box on the map."""
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]


def geojson(path: Path, rings: list, **attributes: list) -> Path:
    """Write a GeoJSON of polygons, one of each ring, with attributes by name, a value for each."""
    features = [
        {
            "type": "Feature",
            "properties": {name: values[i] for name, values in attributes.items()},
            "geometry": points if isinstance(points, dict) or points is None else polygon(points),
        }
        for i, points in enumerate(rings)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def polygon(points: list) -> dict:
    return {"type": "Polygon", "coordinates": [points]}


def vectors(
    path: Path, rings: list, crs: str = UTM33, layer: str = "labels", append: bool = False, **attributes
) -> Path:
    """Write polygons in the form of the path's suffix, in a CRS."""
    shapes = shapely.to_wkb(np.array([shapely.Polygon(points) for points in rings], object))
    columns = [np.array(values, object if isinstance(values[0], str) else None) for values in attributes.values()]
    more = {} if path.suffix == ".shp" else {"layer": layer}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of no CRS
        pyogrio.raw.write(
            path, shapes, columns, [*attributes], geometry_type="Polygon", crs=crs or None, append=append, **more
        )
    return path
