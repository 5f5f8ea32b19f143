"""XYZ map tiles: the five formulas of the Web Mercator tile pyramid, vectorised."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAX_LAT_DEG = 85.0511287798066
"""Latitude where Web Mercator becomes a square: atan(sinh(pi))."""

EARTH_RADIUS_M = 6378137.0
ECCENTRICITY_SQUARED = 0.0066943799901413165
"""First eccentricity of WGS 84, squared."""

MAX_ZOOM = 30

_POSITION_NOISE = 1e-14
"""Of a position as a share of the world, in float64."""


class GeoBounds(NamedTuple):
    """A box on the globe, degrees; each field a number or an array."""

    west: Any
    south: Any
    east: Any
    north: Any


class TileId(NamedTuple):
    """One tile: its zoom, column x from the west and row y from the north (XYZ, not TMS)."""

    zoom: int
    x: int
    y: int


def tile(
    lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike, zoom: int
) -> tuple[np.ndarray, np.ndarray]:
    """Column x and row y of the tile that holds a place; (0, 0) is the north-west corner.

    A place north or south of the pyramid (85.05 deg) belongs to the first or last row.
    """
    num_tiles = _num_tiles(zoom)
    x, y = position(lat_deg, lon_deg, zoom)
    # floating-point noise must not lift a place on a tile's edge into the tile before it
    slack = _POSITION_NOISE * num_tiles
    column, row = np.floor(x + slack), np.floor(y + slack)
    return (
        np.clip(column, 0, num_tiles - 1).astype(np.int64),
        np.clip(row, 0, num_tiles - 1).astype(np.int64),
    )


def position(
    lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike, zoom: int
) -> tuple[np.ndarray, np.ndarray]:
    """Position (x, y) in tiles of one zoom, corner origin, x east and y south."""
    num_tiles = _num_tiles(zoom)
    lat_deg = np.asarray(lat_deg, dtype=float)
    lon_deg = np.asarray(lon_deg, dtype=float)
    if not (np.all(np.abs(lat_deg) <= 90) and np.all(np.abs(lon_deg) <= 180)):
        raise ValueError(
            f"Expected latitudes within -90..90 and longitudes within -180..180 degrees, got "
            f"{lat_deg} and {lon_deg}."
        )
    sin_lat = np.sin(np.deg2rad(np.clip(lat_deg, -MAX_LAT_DEG, MAX_LAT_DEG)))
    x = (lon_deg + 180.0) / 360.0 * num_tiles
    y = (0.5 - np.arctanh(sin_lat) / (2 * np.pi)) * num_tiles
    return x, y


def geodetic(x: npt.ArrayLike, y: npt.ArrayLike, zoom: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of position: (lat_deg, lon_deg)."""
    num_tiles = _num_tiles(zoom)
    lon_deg = np.asarray(x, dtype=float) / num_tiles * 360.0 - 180.0
    mercator = np.pi * (1.0 - 2.0 * np.asarray(y, dtype=float) / num_tiles)
    return np.rad2deg(np.arctan(np.sinh(mercator))), lon_deg


def bounds(x: npt.ArrayLike, y: npt.ArrayLike, zoom: int) -> GeoBounds:
    """West, south, east, north of tiles."""
    north, west = geodetic(x, y, zoom)
    south, east = geodetic(np.asarray(x) + 1, np.asarray(y) + 1, zoom)
    return GeoBounds(west, south, east, north)


def resolution_m(
    lat_deg: npt.ArrayLike, zoom: int, *, tile_px: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Ground size of a tile's pixel, (east-west, north-south), on the WGS 84 ellipsoid.

    The usual 156543 cos(lat) / 2**zoom is the sphere's: 0.34 % too long north-south in Canberra.
    """
    lat_rad = np.deg2rad(np.asarray(lat_deg, dtype=float))
    squeeze = 1 - ECCENTRICITY_SQUARED * np.sin(lat_rad) ** 2
    sphere_m = 2 * np.pi * EARTH_RADIUS_M * np.cos(lat_rad) / (_num_tiles(zoom) * tile_px)
    # radii of curvature over the equator's: prime vertical N / a, meridian M / a
    return sphere_m / np.sqrt(squeeze), sphere_m * (1 - ECCENTRICITY_SQUARED) / squeeze**1.5


def _num_tiles(zoom: int) -> int:
    if zoom != int(zoom) or not 0 <= zoom <= MAX_ZOOM:
        raise ValueError(f"zoom must be a whole number from 0 to {MAX_ZOOM}, got {zoom}.")
    return 2 ** int(zoom)
