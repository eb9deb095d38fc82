"""Where a scene lies on the Earth: its CRS and transform, and what they make of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinyyolo.scenes import need

LON_LAT = "EPSG:4326"
# Of the ellipsoid of WGS 84: half axis in m, and the square of the eccentricity.
AXIS, ECCENTRICITY_2 = 6378137.0, 0.0066943799901413165


@dataclass(frozen=True)
class Place:
    """Attributes:
        crs: well-known text, "" if there is none.
        transform: a, b, c, d, e, f of x = a col + b row + c, y = d col + e row + f; None if there is none.

    Examples:
        >>> place = Place("EPSG:32633", (10.0, 0.0, 500.0, 0.0, -10.0, 900.0))
        >>> place.on_map(np.array([[2.0, 3.0]])).tolist()
        [[520.0, 870.0]]
    """

    crs: str = ""
    transform: tuple[float, ...] | None = None

    @cached_property
    def known(self) -> bool:
        """Whether pixels have a longitude and a latitude: not without a CRS, nor in a room's or the Moon's."""
        if not self.crs or self.transform is None:
            return False
        need("rasterio", "a place on the map")
        from rasterio._err import CPLE_NotSupportedError  # of CRSs that nothing connects; it has no public name
        from rasterio.errors import CRSError

        try:
            self.in_crs(np.zeros((1, 2)), LON_LAT)
        except (CPLE_NotSupportedError, CRSError):
            return False
        return True

    def on_map(self, points: np.ndarray) -> np.ndarray:
        """Points (…, 2) x, y px as coordinates of the CRS; pixels as they are without a transform."""
        if self.transform is None:
            return points
        a, b, c, d, e, f = self.transform
        x, y = points[..., 0], points[..., 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    def in_crs(self, points: np.ndarray, crs: str) -> np.ndarray:
        """Points (…, 2) x, y px of a known place as coordinates (…, 2) of another CRS, x or longitude first."""
        return reprojected(self.on_map(points), self.crs, crs)

    def metres(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 2) width and height of boxes (N, 4) xyxy px on the ground, m; NaN where the place is not known.

        They are lengths on the ellipsoid, whatever the CRS: a Web Mercator metre is none, and degrees have no length.

        Examples:
            >>> Place("EPSG:3857", (1, 0, 0, 0, -1, 8399738)).metres(np.array([[0, 0, 20, 10]])).round(2).tolist()
            [[10.03, 5.0]]
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if not self.known or not len(boxes):
            return np.full((len(boxes), 2), np.nan)
        x1, y1, x2, y2 = boxes.T
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        ends = np.stack([x1, y, x2, y, x, y1, x, y2], axis=1).reshape(-1, 4, 2)  # of the lines through the middle
        ends = in_space(self.in_crs(ends, LON_LAT))
        lengths: np.ndarray = np.linalg.norm(ends[:, 1::2] - ends[:, ::2], axis=-1)
        return lengths

    def pixel(self, size_hw: tuple[int, int]) -> float:
        """Mean side of a pixel in the middle of a scene on the ground, m; NaN where the place is not known."""
        height, width = size_hw
        middle = np.array([[width / 2 - 0.5, height / 2 - 0.5, width / 2 + 0.5, height / 2 + 0.5]])
        return float(np.sqrt(self.metres(middle).prod()))


def reprojected(points: np.ndarray, from_crs: str, to_crs: str) -> np.ndarray:
    """Coordinates (…, 2) of one CRS in another, NaN where it has none; x, or longitude, comes first in both."""
    if from_crs == to_crs or not points.size:
        return points
    need("rasterio", "another CRS")
    from rasterio._err import CPLE_AppDefinedError  # of a point among many; it has no public name
    from rasterio.warp import transform

    flat = points.reshape(-1, 2)
    try:
        out = np.array(transform(from_crs, to_crs, flat[:, 0].tolist(), flat[:, 1].tolist())[:2]).T
    except CPLE_AppDefinedError:
        if len(flat) == 1:
            return np.full_like(points, np.nan)
        out = np.concatenate([reprojected(half, from_crs, to_crs) for half in np.array_split(flat, 2)])
    there: np.ndarray = out.reshape(points.shape)
    return there


def in_space(lon_lat: np.ndarray) -> np.ndarray:
    """(…, 3) m from the Earth's centre of points (…, 2) degrees on the ellipsoid.

    Examples:
        >>> in_space(np.array([[0.0, 0.0], [90.0, 0.0]])).round().tolist()
        [[6378137.0, 0.0, 0.0], [0.0, 6378137.0, 0.0]]
    """
    lon, lat = np.radians(lon_lat[..., 0]), np.radians(lon_lat[..., 1])
    radius = AXIS / np.sqrt(1 - ECCENTRICITY_2 * np.sin(lat) ** 2)
    flat = radius * np.cos(lat)
    up = radius * (1 - ECCENTRICITY_2) * np.sin(lat)
    return np.stack([flat * np.cos(lon), flat * np.sin(lon), up], axis=-1)
