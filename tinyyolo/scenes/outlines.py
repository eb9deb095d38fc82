"""Outlines that people drew on a map: a vector file as arrays, and its points as pixels of a scene."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyyolo.config import UserError, shown, suggest
from tinyyolo.scenes import need
from tinyyolo.scenes.place import reprojected

# Suffix -> how such a file begins; others are JSON. GDAL goes by the content and would open any other format too, some
# of which lead to files elsewhere.
BEGINS = {".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb", ".geojson": b"{"}
BLANKS = b"\xef\xbb\xbf \t\r\n"  # before the first brace of a JSON
POLYGONS = ("Polygon", "MultiPolygon")
DEGREES = np.array([180.0, 90.0])  # the most that longitude and latitude can be
SLACK = 1e-6
MOST_NAMED = 24  # choices in a message


@dataclass(frozen=True)
class Layer:
    """A layer of a vector file, N features.

    Attributes:
        path: the file.
        name: of the layer.
        ids: (N,) int64, the file's own.
        kinds: (N,) text, Polygon, Point, ...; "" for what has no geometry, or one that cannot be read.
        points: (M, 2) x, y, or longitude, latitude, of all features.
        owners: (M,) int64, rising: the feature of every point.
        fields: name -> (N,) values of each attribute.
        crs: what rasterio understands, "" where the file says none.
        said: what GDAL said while it read, each once, and that heights are not used.
    """

    path: Path
    name: str
    ids: np.ndarray
    kinds: np.ndarray
    points: np.ndarray
    owners: np.ndarray
    fields: dict[str, np.ndarray]
    crs: str
    said: tuple[str, ...]


def read_layer(path: str | Path, name: str = "") -> Layer:
    """Read a layer of a GeoJSON, GeoPackage, Shapefile or FlatGeobuf; needs `pip install tinyyolo[geo]`.

    Args:
        path: the file.
        name: of the layer; "" for the only one that has geometries.

    Raises:
        UserError: no such file or layer, not a file of that kind, damaged, or several layers and no name.
    """
    path = Path(path)
    for package in ("pyogrio", "shapely"):
        need(package, f"{path}: reading labels of a map")
    import pyogrio
    import shapely

    looks_right(path)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            name = the_layer(path, pyogrio.list_layers(path), name)
            meta, ids, wkb, columns = pyogrio.raw.read(path, layer=name, return_fids=True)
    except UserError:
        raise
    except (RuntimeError, ValueError, OSError, UnboundLocalError) as error:  # the last is pyogrio's for a bad .prj
        raise UserError(f"{path}: not readable: {' '.join(str(error).split())}") from error
    with np.errstate(invalid="ignore"):  # of coordinates that are no numbers
        shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    points, owners = shapely.get_coordinates(shapes, return_index=True)
    kinds = [shape.geom_type if shape is not None and not shape.is_empty else "" for shape in shapes]
    words = [" ".join(str(one.message).split()) for one in said]
    words += ["heights (z) are not used"] if shapely.has_z(shapes).any() else []
    return Layer(
        path,
        name,
        np.asarray(ids, np.int64),
        np.array(kinds, object),
        points,
        owners.astype(np.int64),
        dict(zip(map(str, meta["fields"]), columns, strict=True)),
        meta["crs"] or "",
        tuple(dict.fromkeys(words)),
    )


def looks_right(path: Path) -> None:
    """Raise UserError unless a file is there and begins as those of its suffix do."""
    kind = path.suffix.lower()
    if kind not in BEGINS:
        raise UserError(f"{path}: {suggest(kind, BEGINS)}")
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except FileNotFoundError as error:
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in BEGINS)
        raise UserError(f"{path}: no such file of labels; in that folder: {named(there)}") from error
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror or error}") from error
    if not start:
        raise UserError(f"{path}: the file is empty")
    if not start.lstrip(BLANKS if kind == ".geojson" else b"").startswith(BEGINS[kind]):
        raise UserError(f"{path}: it does not begin as a {kind} file does")


def named(names: Sequence[str]) -> str:
    """Names in a line, of many the first.

    Examples:
        >>> named(["a", "b"]), named([]), named([str(i) for i in range(40)])[-20:]
        ('a, b', 'none', '22, 23 and 16 others')
    """
    more = f" and {len(names) - MOST_NAMED:,} others" if len(names) > MOST_NAMED else ""
    return ", ".join(map(shown, names[:MOST_NAMED])) + more or "none"


def the_layer(path: Path, rows: np.ndarray, name: str) -> str:
    """The layer that is meant, of rows (name, kind of geometry or None).

    Raises:
        UserError: there is none, not this one, or several and no name.
    """
    names = [str(row[0]) for row in rows if row[1] is not None]
    if name and name not in names:
        raise UserError(f"{path}: no layer {name!r}; {suggest(name, names)}")
    if not names:
        raise UserError(f"{path}: no layer with geometries in it")
    if not name and len(names) > 1:
        raise UserError(f"{path}: it has several layers; say which: layer: NAME; {suggest('', names)}")
    return name or names[0]


def transformed(points: np.ndarray, source: str, target: str) -> np.ndarray:
    """Points (M, 2), x y or longitude latitude, of one CRS in another; NaN where they have no place in it.

    Raises:
        UserError: one of the two is no CRS.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        first, second = CRS.from_user_input(source), CRS.from_user_input(target)
    except CRSError as error:
        raise UserError(f"not a CRS: {' '.join(str(error).split())}") from error
    if first == second:
        return points
    out, sound = np.full_like(points, np.nan), np.isfinite(points).all(axis=1)
    out[sound] = _transformed(points[sound], source, target)
    return np.where(np.isfinite(out).all(axis=1, keepdims=True), out, np.nan)


def _transformed(points: np.ndarray, source: str, target: str) -> np.ndarray:
    """As `transformed`, of numbers. PROJ refuses all for one that has no place: that one is looked for by halves."""
    from rasterio.errors import RasterioError

    try:
        return reprojected(points, source, target)
    except (RasterioError, RuntimeError, ValueError):
        if len(points) == 1:
            return np.full_like(points, np.nan)
    middle = len(points) // 2
    parts = _transformed(points[:middle], source, target), _transformed(points[middle:], source, target)
    return np.concatenate(parts)


def on_scene(points: np.ndarray, transform: tuple[float, ...]) -> np.ndarray:
    """Points (…, 2) of a scene's CRS as x, y px of it: the inverse of `Place.on_map`.

    Examples:
        >>> on_scene(np.array([[520.0, 870.0]]), (10.0, 0.0, 500.0, 0.0, -10.0, 900.0)).tolist()
        [[2.0, 3.0]]
    """
    a, b, c, d, e, f = transform
    x, y = points[..., 0] - c, points[..., 1] - f
    scale = a * e - b * d
    return np.stack([(e * x - b * y) / scale, (a * y - d * x) / scale], axis=-1)


def bounds(points: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """(count, 4) xyxy of the points (M, 2) of each of `owners` (M,), which rise; NaN for one without points.

    Examples:
        >>> bounds(np.array([[1.0, 5], [3, 2], [7, 7]]), np.array([0, 0, 2]), 3).tolist()
        [[1.0, 2.0, 3.0, 5.0], [nan, nan, nan, nan], [7.0, 7.0, 7.0, 7.0]]
    """
    out = np.full((count, 4), np.nan)
    if len(points):
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        low, high = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
        out[owners[first]] = np.concatenate([low, high], axis=1)
    return out


def is_geographic(crs: str) -> bool:
    """Whether coordinates are degrees."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return bool(CRS.from_user_input(crs).is_geographic)
    except CRSError:
        return False


def short(crs: str) -> str:
    """A CRS by its code where it has one, such as EPSG:32633, else by its name."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if not crs:
        return "no CRS"
    try:
        known = CRS.from_user_input(crs)
    except CRSError:
        return crs[:60]
    code = known.to_epsg()
    return f"EPSG:{code}" if code else known.to_wkt().split('"')[1]
