"""The features of a map in local metres, cut where the map ends and mended."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.features import MapFeatures, repaired
from crossview.frames import LocalFrame
from crossview.tags import Tags

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

REACH_M = 200.0
"""What lies farther beyond the extent of a map is left out."""

MAX_CORNERS = 2000
"""A footprint with more corners is simplified: no building is that detailed."""

_LEAST_TOLERANCE_M = 0.05


@dataclass(frozen=True, eq=False)
class Row:
    """A feature in local metres."""

    kind: Any
    tags: Tags
    height_m: float
    base_m: float
    identity: str
    geometry: Any

    def draw(self, what: str) -> float:
        """A number from 0 to 1 that depends on the feature's identity and on what it is for."""
        return zlib.crc32(f"{self.identity} {what}".encode()) / 2**32


def rows_of(features: MapFeatures, frame: LocalFrame, notes: Counter[str]) -> Iterator[Row]:
    """Features within REACH_M of the map's extent, cut there; what is no place is noted."""
    import shapely

    def to_local(lon_lat: np.ndarray) -> np.ndarray:
        return np.column_stack(frame.to_local(lon_lat[:, 1], lon_lat[:, 0]))

    table = features.table
    geometry = table.geometry.to_numpy().copy()
    bounds = np.array(shapely.bounds(geometry))
    corners, owner = shapely.get_coordinates(geometry, return_index=True)
    is_place = np.asarray(np.isfinite(bounds).all(axis=1))
    is_place[owner[~np.isfinite(corners).all(axis=1)]] = False
    notes["features without a place left out"] += int((~is_place).sum())
    low, high = np.split(_reach_deg(features), 2)
    is_near = (bounds[:, :2] <= high).all(axis=1) & (bounds[:, 2:] >= low).all(axis=1)
    sticks_out = (bounds[:, :2] < low).any(axis=1) | (bounds[:, 2:] > high).any(axis=1)
    keep = np.flatnonzero(is_place & is_near)
    is_area = np.asarray(table["kind"] == "area")
    cut = np.flatnonzero(is_place & is_near & sticks_out)
    whole = geometry[cut]
    whole[is_area[cut]] = repaired(whole[is_area[cut]])
    geometry[cut] = shapely.intersection(whole, shapely.box(*low, *high))
    geometry[keep] = shapely.transform(geometry[keep], to_local)
    kind, tags = table["kind"].to_numpy(), table["tags"].to_numpy()
    areas = keep[is_area[keep]]
    is_house = [not {"building", "building:part"}.isdisjoint(tags[k]) for k in areas.tolist()]
    houses = areas[np.array(is_house, bool)]
    geometry[houses] = _simplified(geometry[houses], notes)
    geometry[areas] = repaired(geometry[areas])
    height_m, base_m = table["height_m"].to_numpy(), table["min_height_m"].to_numpy()
    identities = table["osm_type"].astype(str) + table["osm_id"].astype(str)
    for k in keep.tolist():
        if not geometry[k].is_empty:
            yield Row(kind[k], tags[k], height_m[k], base_m[k], identities.iat[k], geometry[k])


def _reach_deg(features: MapFeatures) -> np.ndarray:
    """West, south, east and north of the extent, grown by REACH_M."""
    west, south, east, north = features.extent
    north_deg = REACH_M / 111_000.0
    east_deg = north_deg / max(math.cos(math.radians(max(abs(south), abs(north)))), 0.01)
    return np.array([west - east_deg, south - north_deg, east + east_deg, north + north_deg])


def extent_of(features: MapFeatures, frame: LocalFrame) -> BaseGeometry:
    """The reach of the map in local metres."""
    import shapely

    west, south, east, north = _reach_deg(features)
    lat_deg, lon_deg = np.array([south, south, north, north]), np.array([west, east, east, west])
    return shapely.Polygon(np.column_stack(frame.to_local(lat_deg, lon_deg)))


def _simplified(polygons: np.ndarray, notes: Counter[str]) -> np.ndarray:
    """Outlines of no more than MAX_CORNERS corners, as little changed as that takes."""
    import shapely

    polygons = polygons.copy()
    for k in np.flatnonzero(shapely.get_num_coordinates(polygons) > MAX_CORNERS):
        notes[f"outlines of more than {MAX_CORNERS} corners simplified"] += 1
        tolerance_m = _LEAST_TOLERANCE_M
        while shapely.get_num_coordinates(polygons[k]) > MAX_CORNERS:
            polygons[k] = shapely.simplify(polygons[k], tolerance_m, preserve_topology=False)
            tolerance_m *= 2
    return polygons


def polygons_of(geometry: Any) -> list[Any]:
    """The polygons of a geometry; a repaired outline may hold stray lines beside them."""
    import shapely

    return [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"]


def lines_of(geometry: Any) -> Iterator[Any]:
    """The lines of a feature; of an area (a hedge drawn as a polygon) its rings."""
    import shapely

    is_area = geometry.geom_type in ("Polygon", "MultiPolygon")
    parts = shapely.get_parts(geometry.boundary if is_area else geometry)
    yield from (part for part in parts if part.length > 0)
