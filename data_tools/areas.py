"""Areas of interest on the globe, and the map tiles that cover them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossview import tiles
from crossview.tiles import GeoBounds
from data_tools.points import Points, read_vectors, require_places

if TYPE_CHECKING:
    import geopandas as gpd
    import shapely

_TILE_EDGE = 1e-7
"""Share of a tile that an area may reach into the next one without needing it."""

_HALF_TURN_DEG, _FULL_TURN_DEG = 180.0, 360.0


@dataclass(frozen=True, eq=False)
class TileCover:
    """Tiles of one zoom as runs along rows, so that a country needs little memory.

    Args:
        zoom: Of all of them.
        row: (R,) tile row y of each run, ascending.
        first: (R,) first tile column x.
        last: (R,) last tile column x; runs of a row neither touch nor overlap.
    """

    zoom: int
    row: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of_runs(cls, zoom: int, row: np.ndarray, first: np.ndarray, last: np.ndarray) -> TileCover:
        """Runs in any order, which may overlap, as a cover."""
        order = np.lexsort((first, row))
        row, first, last = (np.asarray(a, dtype=np.int64)[order] for a in (row, first, last))
        # rows one after the other on one line, with a gap between them
        stride = 2**zoom + 2
        reach = np.maximum.accumulate(row * stride + last)
        begins = np.ones(row.size, dtype=bool)
        begins[1:] = (row * stride + first)[1:] > reach[:-1] + 1
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], row.size) - 1
        return cls(zoom, row[starts], first[starts], reach[ends] - row[ends] * stride)

    @property
    def num_tiles(self) -> int:
        """How many; nothing is listed for it."""
        return int(np.sum(self.last - self.first + 1))

    def runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, first and last column of each run."""
        return self.row, self.first, self.last

    def tiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns x and rows y of all tiles, row by row, each (num_tiles,)."""
        counts = self.last - self.first + 1
        run_start = np.cumsum(counts) - counts
        offset = np.arange(self.num_tiles) - np.repeat(run_start, counts)
        return np.repeat(self.first, counts) + offset, np.repeat(self.row, counts)


@dataclass(frozen=True, eq=False)
class Area:
    """A part of the globe.

    Args:
        shape: Polygon or MultiPolygon in degrees, longitude first, within -180..180: one that
            crosses the antimeridian is cut there.
        name: What to call it.

    Raises:
        ValueError: It is empty, has no area, is not on the globe, or reaches beyond the latitudes
            of Web Mercator.
    """

    shape: shapely.Polygon | shapely.MultiPolygon
    name: str = "area"

    def __post_init__(self) -> None:
        if self.shape.is_empty or not self.shape.area > 0:
            raise ValueError(
                f"{self.name} has no area. For imagery around single places give points and a "
                "radius: --points FILE --radius-m 100."
            )
        west, south, east, north = self.shape.bounds
        require_places(np.array([south, north]), np.array([west, east]))
        if max(-south, north) > tiles.MAX_LAT_DEG:
            raise ValueError(
                f"{self.name} reaches from latitude {south:.4f} to {north:.4f}, and map tiles in "
                f"Web Mercator end at {tiles.MAX_LAT_DEG:.4f} degrees. Cut it there."
            )

    @classmethod
    def of_box(
        cls, west: float, south: float, east: float, north: float, *, name: str = "box"
    ) -> Area:
        """A box in degrees; west > east crosses the antimeridian."""
        import shapely

        if not all(math.isfinite(side) for side in (west, south, east, north)):
            raise ValueError(f"A box needs four numbers, got {(west, south, east, north)}.")
        order = (
            f"Expected west, south, east, north in degrees, got {west}, {south}, {east}, {north}"
        )
        if max(abs(south), abs(north)) > 90:
            raise ValueError(
                f"{order}: there is no latitude {max(south, north, key=abs)}. Latitude and "
                "longitude seem to be swapped; longitude (west) comes first."
            )
        if max(abs(west), abs(east)) > _HALF_TURN_DEG:
            raise ValueError(f"{order}: longitudes go from -180 to 180.")
        if south > north:
            raise ValueError(f"{order}: south is north of north. Is the order another one?")
        if west > east:
            sides = [
                shapely.box(west, south, _HALF_TURN_DEG, north),
                shapely.box(-_HALF_TURN_DEG, south, east, north),
            ]
            return cls(shapely.MultiPolygon(sides), name)
        return cls(shapely.box(west, south, east, north), name)

    @classmethod
    def around(cls, points: Points, radius_m: float, *, name: str = "points") -> Area:
        """Squares of +-radius_m around points (crops are square), as one area."""
        import shapely

        if not radius_m > 0:
            raise ValueError(
                f"Points need a radius above 0 (--radius-m) or the size of crops (--crop-m); got "
                f"{radius_m} m."
            )

        shape = shapely.union_all(shapely.box(*_boxes_around(points, radius_m)))
        return cls(_within_globe(shape, name), name)

    @property
    def bounds(self) -> GeoBounds:
        """West, south, east, north; west > east where it crosses the antimeridian."""
        pieces = [piece.shape.bounds for piece in self.pieces]
        west, south, east, north = zip(*pieces, strict=True)
        return GeoBounds(west[0], min(south), east[-1], max(north))

    @property
    def pieces(self) -> tuple[Area, ...]:
        """The area, or its parts west and east of the antimeridian, in this order."""
        import shapely

        west, _, east, _ = self.shape.bounds
        if west > -_HALF_TURN_DEG or east < _HALF_TURN_DEG:
            return (self,)
        halves = shapely.box(0, -90, _HALF_TURN_DEG, 90), shapely.box(-_HALF_TURN_DEG, -90, 0, 90)
        return tuple(
            Area(_polygons(shapely.intersection(self.shape, half)), f"{self.name}_{side}")
            for half, side in zip(halves, ("west", "east"), strict=True)
        )

    @property
    def center(self) -> tuple[float, float]:
        """(lat_deg, lon_deg) of the middle of its bounds."""
        west, south, east, north = self.bounds
        across = (east - west) % _FULL_TURN_DEG or _FULL_TURN_DEG
        lon_deg = (west + across / 2 + _HALF_TURN_DEG) % _FULL_TURN_DEG - _HALF_TURN_DEG
        return (south + north) / 2, lon_deg

    @property
    def square_km(self) -> float:
        """On the ellipsoid."""
        import pyproj

        area_m2, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(self.shape)
        return abs(area_m2) / 1e6

    def cover(self, zoom: int) -> TileCover:
        """The tiles that the area needs; one that it only touches at an edge is none of them."""
        import shapely

        shapely.prepare(self.shape)
        x: np.ndarray = np.zeros(1, dtype=np.int64)
        y = x
        runs: list[np.ndarray] = []
        for level in range(zoom + 1):
            box = _tile_boxes(x, y, level)
            needed = shapely.intersects(self.shape, box)
            whole = needed if level == zoom else shapely.contains_properly(self.shape, box)
            side = 2 ** (zoom - level)
            runs.append(_runs_of_blocks(x[whole] * side, y[whole] * side, side))
            x, y = (2 * axis[needed & ~whole] for axis in (x, y))
            x = (x[:, None] + [0, 1, 0, 1]).ravel()
            y = (y[:, None] + [0, 0, 1, 1]).ravel()
        return TileCover.of_runs(zoom, *np.concatenate(runs, axis=1))

    def contains(self, lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> np.ndarray:
        """Which places lie in it."""
        import shapely

        return shapely.intersects_xy(self.shape, np.asarray(lon_deg), np.asarray(lat_deg))


def cover_around(points: Points, half_side_m: float, zoom: int) -> TileCover:
    """The tiles that squares of +-half_side_m around points need."""
    west, south, east, north = _boxes_around(points, half_side_m)
    if max(-south.min(), north.max()) > tiles.MAX_LAT_DEG:
        raise ValueError(
            f"Points with {half_side_m:g} m around them reach to latitude "
            f"{max(north.max(), south.min(), key=abs):.4f}; map tiles in Web Mercator end at "
            f"{tiles.MAX_LAT_DEG:.4f} degrees."
        )
    num_columns = 2**zoom
    # of the longitudes as they are, which may be beyond 180 degrees
    left = (west + _HALF_TURN_DEG) / _FULL_TURN_DEG * num_columns
    right = (east + _HALF_TURN_DEG) / _FULL_TURN_DEG * num_columns
    top = tiles.position(north, 0 * north, zoom)[1]
    bottom = tiles.position(south, 0 * south, zoom)[1]
    first, first_row = (np.floor(edge + _TILE_EDGE).astype(np.int64) for edge in (left, top))
    last, last_row = (np.ceil(edge - _TILE_EDGE).astype(np.int64) - 1 for edge in (right, bottom))
    counts = last_row - first_row + 1
    which = np.repeat(np.arange(len(points)), counts)
    row = first_row[which] + np.arange(which.size) - np.repeat(np.cumsum(counts) - counts, counts)
    first, last = first[which], last[which]
    # what leaves the world on one side comes back on the other
    parts = [
        (row, np.clip(first + turn, 0, num_columns), np.clip(last + turn, -1, num_columns - 1))
        for turn in (-num_columns, 0, num_columns)
    ]
    runs = np.concatenate([np.stack(part)[:, part[1] <= part[2]] for part in parts], axis=1)
    return TileCover.of_runs(zoom, *runs)


def read_area(path: str | Path) -> Area:
    """The polygons of a GeoJSON file, or of another vector file that GDAL reads, as one area.

    Raises:
        ValueError: It cannot be read, has no polygons, or crosses the antimeridian unclearly.
    """
    import shapely

    path = Path(path)
    shapes = read_vectors(path).geometry
    polygons = [shape for shape in shapes if shape.geom_type in ("Polygon", "MultiPolygon")]
    if not polygons:
        kinds = sorted({shape.geom_type for shape in shapes}) or ["nothing"]
        raise ValueError(
            f"{path.name} holds {', '.join(kinds)}, and an area needs polygons. For imagery around "
            f"places or along lines, give points and a radius: --points {path.name} --radius-m 100."
        )
    shape = shapely.union_all([shapely.make_valid(polygon) for polygon in polygons])
    return Area(_within_globe(shape, path.name), path.stem)


def geocoded_area(place: str, geocode: Callable[[str], gpd.GeoDataFrame]) -> Area:
    """The outline of a named place, or the box of one that has no outline.

    Args:
        place: As a person would say it: "Gmunden, Austria".
        geocode: From a name to a table with one row, geometry in degrees and, of a place that is
            a point there, columns bbox_west, bbox_south, bbox_east, bbox_north.
            openstreetmap.geocoder makes one.
    """
    found = geocode(place)
    if len(found) == 0:
        raise ValueError(f"No place is called {place!r}. Name its country too, or give a box.")
    row = found.iloc[0]
    if row.geometry.geom_type in ("Polygon", "MultiPolygon"):
        return Area(_within_globe(row.geometry, place), place)
    sides = [float(row[f"bbox_{side}"]) for side in ("west", "south", "east", "north")]
    return Area.of_box(*sides, name=place)


def _boxes_around(points: Points, radius_m: float) -> np.ndarray:
    """West, south, east, north, (4, N); longitudes may be beyond 180 degrees."""
    if not 0 < radius_m < math.inf:
        raise ValueError(f"A radius must be positive, got {radius_m} m.")
    east_m, north_m = tiles.resolution_m(points.lat_deg, 0, tile_px=1)
    # at zoom 0 the one tile's width is 360 degrees; a degree of latitude is what Mercator stretches
    across_deg = radius_m / east_m * _FULL_TURN_DEG
    up_deg = radius_m / north_m * _FULL_TURN_DEG * np.cos(np.deg2rad(points.lat_deg))
    lat_deg, lon_deg = points.lat_deg, points.lon_deg
    return np.stack(
        [lon_deg - across_deg, lat_deg - up_deg, lon_deg + across_deg, lat_deg + up_deg]
    )


def _tile_boxes(x: np.ndarray, y: np.ndarray, zoom: int) -> np.ndarray:
    """Boxes of tiles, smaller by a hair, so that a border on their edge does not count."""
    import shapely

    north, west = tiles.geodetic(x + _TILE_EDGE, y + _TILE_EDGE, zoom)
    south, east = tiles.geodetic(x + 1 - _TILE_EDGE, y + 1 - _TILE_EDGE, zoom)
    return shapely.box(west, south, east, north)


def _runs_of_blocks(x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
    """Row, first and last column, (3, R), of square blocks of tiles."""
    row = (y[:, None] + np.arange(side)).ravel()
    first = np.repeat(x, side)
    return np.stack([row, first, first + side - 1])


def _within_globe(shape: Any, name: str) -> Any:
    """A shape that may reach beyond 180 degrees, cut there, each part at home."""
    import shapely
    import shapely.affinity

    west, _, east, _ = shape.bounds if not shape.is_empty else (0.0, 0.0, 0.0, 0.0)
    if max(-west, east) > 2 * _FULL_TURN_DEG or _jumps(shape):
        raise ValueError(
            f"{name} has an edge from one side of the globe to the other, longitude {west:.2f} to "
            f"{east:.2f}: it is not clear whether it crosses the antimeridian. Cut it at 180 "
            "degrees (RFC 7946, 3.1.9), or count on beyond it (179, 181)."
        )
    if west >= -_HALF_TURN_DEG and east <= _HALF_TURN_DEG:
        return _polygons(shape)
    parts = []
    for turn_deg in (-_FULL_TURN_DEG, 0.0, _FULL_TURN_DEG):
        globe = shapely.box(-_HALF_TURN_DEG - turn_deg, -90, _HALF_TURN_DEG - turn_deg, 90)
        part = shapely.intersection(shape, globe)
        parts.append(shapely.affinity.translate(part, xoff=turn_deg))
    return _polygons(shapely.union_all(parts))


def _jumps(shape: Any) -> bool:
    """Whether an edge is longer than half of the globe."""
    import shapely

    for ring in shapely.get_parts(shapely.boundary(shape)):
        lon_deg = shapely.get_coordinates(ring)[:, 0]
        if np.any(np.abs(np.diff(lon_deg)) > _HALF_TURN_DEG):
            return True
    return False


def _polygons(shape: Any) -> Any:
    """The polygons of a shape; cutting may leave points and lines at the cut."""
    import shapely

    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts)
