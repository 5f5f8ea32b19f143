"""Roofs as triangles over a footprint: flat, gabled, hipped, pyramidal and skillion ones."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossview import angles
from crossview.synthetic.mesh import at_height, triangulated

if TYPE_CHECKING:
    from shapely import Polygon

SHAPES = ("flat", "gabled", "hipped", "pyramidal", "skillion")
"""Shapes that are built; others are read as the nearest of them."""

MIN_RECTANGULARITY = 0.9
"""Least share of its smallest rectangle that a footprint under a gabled or hipped roof fills: the
rectangle's roof is cut along the footprint. Convex footprints have their own hipped roofs."""

_WELD_M = 2.0**-20
"""Corners where folds of a roof meet lie on this grid (1 micrometre), so that they are shared."""

_BEYOND_M = 1.0
_LEAST_STAR_AREA_M2 = 1e-6


@dataclass(frozen=True)
class Roof:
    """What covers a building.

    Args:
        shape: One of SHAPES.
        height_m: From the eaves to the top.
        facing_deg: Direction into which it slopes, clockwise from the frame's north (gabled: one
            of the two); None where not known.
        is_across: A ridge runs along the shorter side; `facing_deg` says better.
    """

    shape: str = "flat"
    height_m: float = 0.0
    facing_deg: float | None = None
    is_across: bool = False

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape is {self.shape!r}; expected one of {', '.join(SHAPES)}.")
        if not 0 <= self.height_m < np.inf or (self.shape != "flat" and not self.height_m):
            raise ValueError(
                f"height_m of a {self.shape} roof must be metres above its eaves, got "
                f"{self.height_m}. A flat roof has 0, others more."
            )


FLAT = Roof()


def fits(footprint: Polygon, roof: Roof) -> bool:
    """Whether a roof of that shape can stand on a footprint; where not, build a flat one."""
    if roof.shape in ("flat", "skillion"):
        return True
    if len(footprint.interiors):
        return False
    if roof.shape == "pyramidal":
        return _is_star(footprint)
    if roof.shape == "hipped" and _is_convex(footprint):
        return True
    rectangle = footprint.minimum_rotated_rectangle
    return rectangle.area > 0 and footprint.area >= MIN_RECTANGULARITY * rectangle.area


def roof_triangles(footprint: Polygon, roof: Roof, top_m: float) -> np.ndarray:
    """The roof, counter-clockwise from above, (triangles, 3, 3).

    Its border lies above the footprint's, so that walls below the border close the building: those
    under a gable reach up to the ridge.

    Args:
        footprint: A valid polygon which the roof `fits`.
        roof: The roof.
        top_m: Height of its highest point.
    """
    eaves_m = top_m - roof.height_m
    if roof.shape == "flat":
        corners, _ = triangulated(np.array([footprint], dtype=object))
        return at_height(corners, top_m)
    if roof.shape == "pyramidal":
        return _pyramid(footprint, eaves_m, top_m)
    if roof.shape == "skillion":
        corners, _ = triangulated(np.array([footprint], dtype=object))
        down = corners @ _direction(_facing_deg(footprint, roof))
        share = (down.max() - down) / max(down.max() - down.min(), _WELD_M)
        return at_height(corners, eaves_m + roof.height_m * share)
    planes = _gables(footprint, roof) if roof.shape == "gabled" else _hips(footprint)
    corners, _ = triangulated(_folded(footprint, planes))
    # every plane rises from 0 at the eaves; the roof is the lowest of them
    rise = (corners @ planes.slopes.T - planes.offsets).min(axis=-1)
    return at_height(corners, eaves_m + roof.height_m * np.clip(rise / planes.ridge, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class _Planes:
    """Half a roof each: rising with the distance from a line, (planes, 2) and (planes,).

    Args:
        slopes: Unit vectors from the line to the inside.
        offsets: Distance of the line from the origin along them.
        ridge: The greatest height that the lowest plane reaches, as a distance.
        folds: Lines where two planes meet, ((x, y), (x, y)) each.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    ridge: float
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]


def _gables(footprint: Polygon, roof: Roof) -> _Planes:
    corners, along, across = _rectangle(footprint)
    if roof.facing_deg is not None:
        facing = _direction(roof.facing_deg)
        if abs(facing @ along) > abs(facing @ across):
            along, across = across, along
    elif roof.is_across:
        along, across = across, along
    middle = corners.mean(axis=0)
    half_m = np.ptp(corners @ across) / 2
    reach = along * (np.ptp(corners @ along) / 2 + _BEYOND_M)
    slopes = np.stack([across, -across])
    return _Planes(
        slopes, slopes @ middle - half_m, float(half_m), ((middle - reach, middle + reach),)
    )


def _hips(footprint: Polygon) -> _Planes:
    """A plane on every edge of a convex footprint, or of the rectangle around another."""
    ring = _ring(footprint) if _is_convex(footprint) else _rectangle(footprint)[0]
    ring = _without_straight_corners(ring)
    edge = np.roll(ring, -1, axis=0) - ring
    edge /= np.hypot(*edge.T)[:, None]
    slopes = np.column_stack([-edge[:, 1], edge[:, 0]])
    offsets = np.einsum("ij,ij->i", slopes, ring)
    low, high = ring.min(axis=0) - _BEYOND_M, ring.max(axis=0) + _BEYOND_M
    (west, south), (east, north) = low.tolist(), high.tolist()
    plot = [(west, south), (east, south), (east, north), (west, north)]
    folds, ridge = [], 0.0
    for k in range(len(ring)):
        # the part of the plane where this edge is the nearest one
        cell = plot
        for j in range(len(ring)):
            if j != k:
                cell = _clipped(cell, slopes[j] - slopes[k], float(offsets[j] - offsets[k]))
        folds += [(np.array(a), np.array(b)) for a, b in itertools.pairwise([*cell, *cell[:1]])]
        inside = np.array(cell).reshape(-1, 2) @ slopes[k] - offsets[k]
        ridge = max(ridge, inside.max(initial=0.0))
    return _Planes(slopes, offsets, float(ridge), tuple(folds))


def _clipped(
    ring: list[tuple[float, float]], normal: np.ndarray, offset: float
) -> list[tuple[float, float]]:
    """The part of a convex ring where normal . p >= offset (Sutherland and Hodgman, 1974)."""
    kept: list[tuple[float, float]] = []
    above = [float(normal[0] * x + normal[1] * y - offset) for x, y in ring]
    for k, (point, height) in enumerate(zip(ring, above, strict=True)):
        before, height_before = ring[k - 1], above[k - 1]
        if (height >= 0) != (height_before >= 0):
            share = height_before / (height_before - height)
            kept.append(
                (
                    before[0] + share * (point[0] - before[0]),
                    before[1] + share * (point[1] - before[1]),
                )
            )
        if height >= 0:
            kept.append(point)
    return kept


def _folded(footprint: Polygon, planes: _Planes) -> np.ndarray:
    """The footprint cut along the folds, polygons that share their corners."""
    import shapely

    folds = shapely.MultiLineString([(start, end) for start, end in planes.folds])
    lines = shapely.union_all([footprint.exterior, folds], grid_size=_WELD_M)
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    inside = shapely.point_on_surface(faces)
    return faces[shapely.contains(footprint, inside)]


def _pyramid(footprint: Polygon, eaves_m: float, top_m: float) -> np.ndarray:
    ring = _ring(footprint)
    low = at_height(ring, eaves_m)
    apex = np.array([footprint.centroid.x, footprint.centroid.y, top_m])
    return np.stack([low, np.roll(low, -1, axis=0), np.broadcast_to(apex, low.shape)], axis=1)


def _facing_deg(footprint: Polygon, roof: Roof) -> float:
    """Stated, or across the ridge that a gabled roof would have."""
    if roof.facing_deg is not None:
        return roof.facing_deg
    _, along, across = _rectangle(footprint)
    return float(angles.heading_of(*(along if roof.is_across else across)))


def _direction(heading_deg: float) -> np.ndarray:
    heading = math.radians(heading_deg)
    return np.array([math.sin(heading), math.cos(heading)])


def _rectangle(footprint: Polygon) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the smallest rectangle, and unit vectors along its longer and shorter sides."""
    import shapely

    ring = shapely.get_coordinates(shapely.orient_polygons(footprint.minimum_rotated_rectangle))[:4]
    sides = ring[1] - ring[0], ring[2] - ring[1]
    lengths = [float(np.hypot(*side)) for side in sides]
    longer = int(lengths[1] > lengths[0])
    return ring, sides[longer] / lengths[longer], sides[1 - longer] / lengths[1 - longer]


def _ring(footprint: Polygon) -> np.ndarray:
    """Corners of the outer ring, counter-clockwise, without repetitions, (corners, 2)."""
    import shapely

    ring = shapely.get_coordinates(shapely.orient_polygons(footprint).exterior)[:-1]
    return ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]


def _turns(ring: np.ndarray) -> np.ndarray:
    """Sine of the turn to the left in every corner."""
    before = ring - np.roll(ring, 1, axis=0)
    after = np.roll(before, -1, axis=0)
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return cross / (np.hypot(*before.T) * np.hypot(*after.T))


_STRAIGHT = 1e-3
"""Sine of the turn below which a corner is none."""


def _without_straight_corners(ring: np.ndarray) -> np.ndarray:
    return ring[np.abs(_turns(ring)) > _STRAIGHT]


def _is_convex(footprint: Polygon) -> bool:
    return bool(_turns(_ring(footprint)).min() > -_STRAIGHT)


def _is_star(footprint: Polygon) -> bool:
    """Whether the middle sees every corner."""
    ring = _ring(footprint) - [footprint.centroid.x, footprint.centroid.y]
    following = np.roll(ring, -1, axis=0)
    doubled = ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]
    return bool(doubled.min() > 2 * _LEAST_STAR_AREA_M2)
