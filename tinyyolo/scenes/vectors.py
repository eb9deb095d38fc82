"""Detections of scenes as polygons on a map."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.config import UserError, suggest
from tinyyolo.io import copy_file, tell
from tinyyolo.scenes import need
from tinyyolo.scenes.place import LON_LAT, Place

GEOJSON, PARQUET = ".geojson", ".parquet"
# Suffix -> GDAL's driver, and its options. GDAL's wheels have no driver for Parquet, pyarrow writes that.
DRIVERS: dict[str, tuple[str, dict[str, str]]] = {
    GEOJSON: ("GeoJSON", {}),
    ".gpkg": ("GPKG", {}),
    ".fgb": ("FlatGeobuf", {}),
    ".csv": ("CSV", {"GEOMETRY": "AS_WKT"}),
}
FORMS = (*DRIVERS, PARQUET)
SHAPEFILE = {
    ".shp": ("ESRI Shapefile", {"ENCODING": "UTF-8"})
}  # of labels; names of a map's columns are too long for it
GEOPARQUET = "1.1.0"
# A polygon of one ring of five points in well-known binary: little endian, kind, rings, points; then x, y, ...
HEAD = np.frombuffer(b"\x01" + np.array([3, 1, 5], "<u4").tobytes(), np.uint8)
DEGREE = 111_320  # m, the longest
LEAST_DECIMALS = 7  # of a degree: what the standard's example and others write, 1 cm
SHARE = 0.1  # of a pixel, what rounding may cost
WRITTEN = "1970-01-01T00:00:00Z"  # in a GeoPackage, whose bytes are then those of the next run


class Part(NamedTuple):
    """Detections of one scene: boxes (N, 4) xyxy px, scores (N,), labels (N,) int; its name, size and place."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    scene: str = ""
    place: Place = Place()


def corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 5, 2) px of boxes (N, 4) xyxy: a closed ring, counter-clockwise where y points up."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([x1, y1, x1, y2, x2, y2, x2, y1, x1, y1], axis=1).reshape(-1, 5, 2)


def counter_clockwise(rings: np.ndarray) -> np.ndarray:
    """Rings (N, 5, 2), those turned round that run clockwise, as of a scene whose rows go north.

    Examples:
        >>> counter_clockwise(np.array([[[0, 0], [0, 2], [1, 2], [1, 0], [0, 0]]]))[0].tolist()
        [[0, 0], [1, 0], [1, 2], [0, 2], [0, 0]]
    """
    across, down = rings[:, 3] - rings[:, 0], rings[:, 1] - rings[:, 0]  # of a parallelogram, and no large numbers
    wrong = down[:, 0] * across[:, 1] - down[:, 1] * across[:, 0] < 0
    return np.where(wrong[:, None, None], rings[:, ::-1], rings)


def polygons(rings: np.ndarray) -> np.ndarray:
    """(N, 93) uint8, the well-known binary of rings (N, 5, 2)."""
    points = np.ascontiguousarray(rings, "<f8").reshape(-1, 10).view(np.uint8)
    return np.concatenate([np.broadcast_to(HEAD, (len(rings), len(HEAD))), points], axis=1)


def columns(part: Part, names: Mapping[int, str]) -> dict[str, np.ndarray]:
    """What is written of each detection beside its polygon, (N,) each; metres are NaN where there are none."""
    boxes = np.asarray(part.boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(part.labels, np.int32)
    words = {label: spelled(name) for label, name in names.items()}
    out: dict[str, Any] = {"class": np.array([words[label] for label in labels.tolist()], object)}
    out |= {"class_index": labels, "score": np.asarray(part.scores, np.float64).round(5)}
    out |= {name: boxes[:, i].round(2) for i, name in enumerate(("x1", "y1", "x2", "y2"))}
    out |= dict(zip(("width_m", "height_m"), part.place.metres(boxes).round(3).T, strict=True))
    out["scene"] = np.full(len(boxes), spelled(part.scene), object)
    return out


def spelled(text: str) -> str:
    """A text as every file takes it: bytes that are no character, as in a file's name, as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def common_crs(parts: Sequence[Part], suffix: str) -> str:
    """The CRS of a file of several scenes: longitude and latitude in GeoJSON, else the first; "" if none has one."""
    known = [part.place.crs for part in parts if part.place.known]
    return "" if not known else LON_LAT if suffix == GEOJSON else known[0]


def shapes(part: Part, crs: str) -> np.ndarray:
    """Rings (N, 5, 2) of a scene in the file's CRS, or px if it has none; NaN of a scene whose place is not known."""
    rings = corners(np.asarray(part.boxes, np.float64).reshape(-1, 4))
    if crs and not part.place.known:
        return np.full_like(rings, np.nan)
    return counter_clockwise(part.place.in_crs(rings, crs) if crs else rings)


def check_form(path: Path, said: str = "") -> None:
    """Raise UserError for a path whose suffix is no form of a map, or that needs a package that is not there."""
    if path.suffix.lower() not in FORMS:
        raise UserError(f"{said}{path}: unknown form {path.suffix!r}; {suggest(path.suffix, FORMS)}")
    need("rasterio", f"{said}{path}: a map")
    need("pyarrow" if path.suffix.lower() == PARQUET else "pyogrio", f"{said}{path}: writing a map")


def write(
    path: str | Path,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    crs: str = "",
    transform: tuple[float, ...] | None = None,
    scene: str = "",
) -> None:
    """Write the detections of one scene as polygons, see `write_parts`.

    Args:
        path: the suffix says the form.
        boxes: (N, 4) xyxy px of the scene.
        scores: (N,).
        labels: (N,) int.
        names: the classes.
        crs: well-known text.
        transform: see `Place`.
        scene: its name, in a column.

    Raises:
        UserError: no such form, or it cannot be written.
    """
    write_parts(path, [Part(boxes, scores, labels, scene, Place(crs, transform))], names)


def write_parts(path: str | Path, parts: Sequence[Part], names: Mapping[int, str]) -> None:
    """Write the detections of scenes as polygons in one file, whole or not at all, in place of an older one.

    GeoJSON is in longitude and latitude (RFC 7946), the other forms in the CRS of the first scene that has one. Where
    no scene has one it is pixels, with y downwards; where only some have, the others' rows have no polygon.

    Args:
        path: the suffix says the form: .geojson, .gpkg, .fgb, .csv or .parquet.
        parts: the scenes.
        names: the classes.

    Raises:
        UserError: no such form, or it cannot be written.
    """
    path = Path(path)
    check_form(path)
    suffix, parts = path.suffix.lower(), parts or [Part(np.zeros((0, 4)), np.zeros(0), np.zeros(0))]
    crs = common_crs(parts, suffix)
    tell_places(path, parts, crs)
    rows = [columns(part, names) for part in parts]
    table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    rings = np.concatenate([shapes(part, crs) for part in parts])
    beyond = np.count_nonzero(~np.isfinite(rings).all((1, 2)))
    beyond -= sum(len(part.boxes) for part in parts if crs and not part.place.known)
    if beyond:
        tell(f"{path}: {beyond:,} boxes lie where its CRS has no coordinates: rows without a polygon")
    save(path, table, rings, crs, decimals(parts), overwrite=True)


def save(
    path: Path, table: Mapping[str, Any], rings: np.ndarray, crs: str, digits: int, *, overwrite: bool = False
) -> None:
    """Write a table with polygons, rings (N, 5, 2) in a CRS; a row of NaN has none. `digits` are those of degrees.

    Raises:
        UserError: it cannot be written, or it is there and `overwrite` is not set.
    """
    suffix, there = path.suffix.lower(), np.isfinite(rings).all((1, 2))
    binary = polygons(rings[there])
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"map{suffix}"
        if suffix == PARQUET:
            write_parquet(made, table, binary, there, crs)
        else:
            write_by_gdal(made, path, table, binary, there, crs, digits)
        for file in sorted(Path(folder).iterdir(), key=lambda file: file == made):  # a Shapefile is several files
            copy_file(file, path.with_suffix(file.suffix), overwrite=overwrite)


def geodataframe(part: Part, names: Mapping[int, str]) -> Any:
    """The detections of a scene as a geopandas.GeoDataFrame in its CRS, or in px with y downwards if it has none.

    Raises:
        UserError: geopandas is not installed.
    """
    need("geopandas", "a GeoDataFrame", "geopandas")
    import geopandas

    crs = common_crs([part], "")
    geometry = geopandas.GeoSeries.from_wkb([row.tobytes() for row in polygons(shapes(part, crs))], crs=crs or None)
    return geopandas.GeoDataFrame(columns(part, names), geometry=geometry)


def tell_places(path: Path, parts: Sequence[Part], crs: str) -> None:
    """Say which scenes are not where one would look for them in the file."""
    lost = [part.scene or "the scene" for part in parts if not part.place.known]
    others = {part.place.crs for part in parts if part.place.known} - {crs}
    if not crs:
        tell(f"{path}: in pixels, y downwards: {lost[0]} has no place on the map")
    elif lost:
        more = f" and {len(lost) - 1:,} more have" if len(lost) > 1 else " has"
        tell(f"{path}: {lost[0]}{more} no place on the map: rows without a polygon")
    if others and path.suffix.lower() != GEOJSON:
        tell(f"{path}: scenes of {len(others) + 1} CRSs, all in that of the first")


def decimals(parts: Sequence[Part]) -> int:
    """Of degrees, so that rounding costs no more than SHARE of a pixel.

    Examples:
        >>> place = Place("EPSG:32633", (0.01, 0, 500_000, 0, -0.01, 5_000_000))
        >>> decimals([Part(np.array([[0, 0, 9, 9]]), np.ones(1), np.zeros(1), "a", place)])
        8
    """
    known = [part.place.metres(np.array([[0.0, 0, 1, 1]])) for part in parts if part.place.known]
    pixel = min((float(side.min()) for side in known if np.isfinite(side).all()), default=1.0)
    return max(LEAST_DECIMALS, math.ceil(math.log10(DEGREE / 2 / (SHARE * max(pixel, 1e-6)))))


def write_by_gdal(
    made: Path, path: Path, table: Mapping[str, Any], binary: np.ndarray, there: np.ndarray, crs: str, digits: int
) -> None:
    """Write a table and the polygons of the rows that have one; `path` is named in messages and gives the layer's name.

    Raises:
        UserError: GDAL cannot.
    """
    import pyogrio

    driver, options = (DRIVERS | SHAPEFILE)[made.suffix]
    if driver == "GeoJSON" and crs:
        options = {"RFC7946": "YES", "COORDINATE_PRECISION": str(digits)}
    elif driver == "FlatGeobuf" and not there.all():
        options = {"SPATIAL_INDEX": "NO"}  # it has no place for what has none
    geometry = np.full(len(there), None, object)
    geometry[there] = [row.tobytes() for row in binary]
    with warnings.catch_warnings(), dated(WRITTEN):
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # a scene may have none
        try:
            pyogrio.raw.write(
                made,
                geometry,
                field_data=list(table.values()),
                fields=list(table),
                geometry_type="Polygon",
                crs=crs or None,
                driver=driver,
                layer=spelled(path.stem),
                layer_options=options,
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise UserError(f"{path}: not written: {' '.join(str(error).split())}") from error


@contextmanager
def dated(when: str) -> Iterator[None]:
    """Within this context GDAL takes this for the time of day."""
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": when})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def write_parquet(made: Path, table: Mapping[str, Any], binary: np.ndarray, there: np.ndarray, crs: str) -> None:
    """GeoParquet: the columns, polygons in well-known binary, and what they are as the standard has it."""
    import pyarrow as arrow
    from pyarrow import parquet
    from rasterio.crs import CRS

    ends = np.concatenate([[0], np.cumsum(there)]) * binary.shape[1]
    buffers = [arrow.array(there).buffers()[1], arrow.py_buffer(ends.astype("<i4")), arrow.py_buffer(binary.tobytes())]
    geometry = arrow.Array.from_buffers(arrow.binary(), len(there), buffers)
    described: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "orientation": "counterclockwise"}
    described["crs"] = CRS.from_user_input(crs).to_dict(projjson=True) if crs else None  # null: not on the Earth
    if len(binary):
        points = np.ascontiguousarray(binary[:, len(HEAD) :]).view("<f8").reshape(-1, 2)
        described["bbox"] = [*points.min(0).tolist(), *points.max(0).tolist()]
    about = {"version": GEOPARQUET, "primary_column": "geometry", "columns": {"geometry": described}}
    arrays = {name: arrow.array(values, from_pandas=True) for name, values in table.items()}  # NaN is empty
    arrays |= {name: arrow.array(table[name], arrow.string()) for name in ("class", "scene")}  # of no row, too
    whole = arrow.table({**arrays, "geometry": geometry})
    parquet.write_table(whole.replace_schema_metadata({"geo": json.dumps(about)}), made, compression="zstd")
