"""What is painted on roads: lane markings, zebra crossings, and the bays of car parks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossview import angles
from crossview.synthetic.mesh import turned
from crossview.synthetic.things import Bay, Carriageway

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry


LINE_WIDTH_M = 0.12
DASH_M = 3.0
GAP_M = 6.0
STRIPE_M = 0.5
"""Width of a stripe of a crossing, and of the gap to the next one."""

CROSSING_LENGTH_M = 4.0
BAY_LINE_WIDTH_M = 0.1
BAY_DEPTH_M = 5.0
BAY_WIDTH_M = 2.5
AISLE_M = 6.0
PARALLEL_BAY_M = 6.0
MAX_BAYS = 2000
"""Bays of one car park; a larger one is some other thing."""

_UNMARKED = frozenset(("service", "track", "living_street", "pedestrian", "busway"))
_MARKED_WIDTH_M = 5.5
_NEAR_STREET_M = 2.0
_SAME_CROSSING_M = 4.0


class _Spots(NamedTuple):
    """Places along carriageways: where, and into which direction they run, (n, 2) and (n,)."""

    places_m: np.ndarray
    headings_deg: np.ndarray


def rectangles(
    middles_m: np.ndarray, headings_deg: np.ndarray, lengths_m: Any, widths_m: Any
) -> np.ndarray:
    """Rectangles as polygons, (n,): lengths along the headings (n,), around the middles (n, 2)."""
    import shapely

    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    size = np.broadcast_to(
        np.column_stack(np.broadcast_arrays(widths_m, lengths_m)), (len(middles_m), 2)
    )
    offsets = turned(corners * size[:, None], np.asarray(headings_deg)[:, None])
    return shapely.polygons(np.asarray(middles_m)[:, None] + offsets)


def lane_marks(
    carriageways: Sequence[Carriageway], crossings_m: np.ndarray, roads: BaseGeometry
) -> np.ndarray:
    """Dashes between lanes, solid lines between the two ways of wide streets, as polygons.

    None lies on a junction, on a crossing, or beside the roads.

    Args:
        carriageways: The streets.
        crossings_m: Places of crossings, (n, 2).
        roads: What is road.
    """
    import shapely

    plans = [_dividers(street) for street in carriageways]
    street = np.repeat(np.arange(len(plans)), [len(plan) for plan in plans])
    plan = np.array([row for plan in plans for row in plan]).reshape(-1, 3)
    if not len(plan):
        return np.zeros(0, dtype=object)
    start_m, length_m, right_m = plan.T
    lines = np.array([carriageway.line for carriageway in carriageways], dtype=object)[street]
    spots = _spots(lines, start_m + length_m / 2, length_m)
    middles = spots.places_m + turned(
        np.column_stack([right_m, np.zeros_like(right_m)]), spots.headings_deg
    )
    marks = rectangles(middles, spots.headings_deg, length_m, LINE_WIDTH_M)
    points = shapely.points(middles)
    is_free = shapely.contains(roads, marks)
    places, radii_m = junctions(carriageways)
    places, radii_m = (
        np.concatenate([places, crossings_m]),
        np.concatenate([radii_m, np.full(len(crossings_m), CROSSING_LENGTH_M)]),
    )
    if len(places):
        covered = shapely.STRtree(points).query(
            shapely.points(places), predicate="dwithin", distance=radii_m
        )[1]
        is_free[covered] = False
    return marks[is_free]


def _dividers(street: Carriageway) -> list[tuple[float, float, float]]:
    """Marks of a street: where each begins along the line, its length, metres to the right."""
    if street.lanes < 2 or street.width_m < _MARKED_WIDTH_M or street.highway in _UNMARKED:
        return []
    marks = []
    for k in range(1, street.lanes):
        right_m = street.width_m * (k / street.lanes - 0.5)
        is_solid = not street.is_oneway and street.lanes >= 4 and 2 * k == street.lanes
        step_m = DASH_M if is_solid else DASH_M + GAP_M
        starts = np.arange(0.0, street.line.length - DASH_M, step_m)
        marks += [(float(start), DASH_M, right_m) for start in starts]
    return marks


def junctions(carriageways: Sequence[Carriageway]) -> tuple[np.ndarray, np.ndarray]:
    """Where three or more ends of streets meet.

    Returns:
        places_m: (junctions, 2).
        reach_m: How far each reaches from there, (junctions,).
    """
    import shapely

    if not carriageways:
        return np.zeros((0, 2)), np.zeros(0)
    corners, street = shapely.get_coordinates(
        [carriageway.line for carriageway in carriageways], return_index=True
    )
    half_m = np.array([carriageway.width_m / 2 for carriageway in carriageways])[street]
    is_inner = np.ones(len(street), bool)
    is_inner[:1] = is_inner[-1:] = False
    is_inner[1:] &= street[1:] == street[:-1]
    is_inner[:-1] &= street[:-1] == street[1:]
    # on the centimetre: nodes that ways share
    places, node = np.unique(np.round(corners, 2), axis=0, return_inverse=True)
    ends, reach_m = np.zeros(len(places)), np.zeros(len(places))
    np.add.at(ends, node, np.where(is_inner, 2, 1))
    np.maximum.at(reach_m, node, half_m + DASH_M)
    return places[ends >= 3], reach_m[ends >= 3]


def crossing_places(
    nodes_m: np.ndarray,
    unmarked_m: np.ndarray,
    ways: Sequence[BaseGeometry],
    carriageways: Sequence[Carriageway],
) -> np.ndarray:
    """Where people cross on stripes: nodes, and where crossing ways without a node meet streets.

    Args:
        nodes_m: Nodes that are marked crossings, (n, 2).
        unmarked_m: Nodes that are crossings without stripes, (n, 2).
        ways: Ways that are marked crossings.
        carriageways: The streets.
    """
    import shapely

    places = [tuple(place) for place in nodes_m]
    lines = [street.line for street in carriageways]
    if ways and lines:
        way, street = shapely.STRtree(lines).query(ways, predicate="intersects")
        met = shapely.intersection(np.array(ways)[way], np.array(lines)[street])
        places += map(tuple, shapely.get_coordinates(shapely.centroid(met)))
    kept: list[tuple[float, ...]] = []
    for place in places:
        others = [*kept, *map(tuple, unmarked_m)]
        if all(np.hypot(place[0] - x, place[1] - y) >= _SAME_CROSSING_M for x, y in others):
            kept.append(place)
    return np.array(kept).reshape(-1, 2)


def crossing_stripes(
    places_m: np.ndarray, carriageways: Sequence[Carriageway], roads: BaseGeometry
) -> np.ndarray:
    """Stripes along the street at every place (n, 2) on one, as polygons."""
    import shapely

    if not len(places_m) or not carriageways:
        return np.zeros(0, dtype=object)
    lines = np.array([street.line for street in carriageways], dtype=object)
    points = np.array(shapely.points(places_m), dtype=object)
    place, street = shapely.STRtree(lines).query_nearest(
        points, max_distance=_NEAR_STREET_M, all_matches=False
    )
    along_m = shapely.line_locate_point(lines[street], points[place])
    spots = _spots(lines[street], along_m, 1.0)
    middles, headings = [], []
    for position, heading, k in zip(*spots, street.tolist(), strict=True):
        width_m = carriageways[k].width_m
        # as many as fit, a hand's breadth from the kerbs
        num_stripes = int((width_m - 2 * LINE_WIDTH_M + STRIPE_M) // (2 * STRIPE_M))
        right_m = 2 * STRIPE_M * (np.arange(num_stripes) - (num_stripes - 1) / 2)
        middles.append(position + turned(np.column_stack([right_m, 0 * right_m]), heading))
        headings.append(np.full(num_stripes, heading))
    stripes = rectangles(
        np.concatenate([np.zeros((0, 2)), *middles]),
        np.concatenate([np.zeros(0), *headings]),
        CROSSING_LENGTH_M,
        STRIPE_M,
    )
    return stripes[shapely.contains(roads, stripes)]


def _spots(lines: np.ndarray, middles_m: Any, lengths_m: Any) -> _Spots:
    """The middles and directions of chords of lines, given where their middles are along them."""
    import shapely

    half = np.asarray(lengths_m) / 2
    start = shapely.get_coordinates(
        shapely.line_interpolate_point(lines, np.maximum(middles_m - half, 0.0))
    )
    end = shapely.get_coordinates(shapely.line_interpolate_point(lines, middles_m + half))
    along = end - start
    return _Spots((start + end) / 2, np.asarray(angles.heading_of(along[:, 0], along[:, 1])))


def parking_bays(area: Polygon, streets: BaseGeometry) -> list[Bay]:
    """Bays in rows along the longer side of a car park, with aisles between pairs of rows.

    A strip narrower than 4 m has bays one behind another. Bays lie inside of the area and off the
    streets through it.

    Args:
        area: The car park.
        streets: Carriageways that lead through it.
    """
    import shapely

    rectangle = area.minimum_rotated_rectangle
    ring = shapely.get_coordinates(shapely.orient_polygons(rectangle))[:4]
    sides = ring[1] - ring[0], ring[2] - ring[1]
    lengths = [float(np.hypot(*side)) for side in sides]
    k = int(lengths[1] > lengths[0])
    length_m, depth_m = lengths[k], lengths[1 - k]
    if depth_m <= 0 or area.area > MAX_BAYS * BAY_DEPTH_M * BAY_WIDTH_M * 2:
        return []
    along, across = sides[k] / length_m, sides[1 - k] / depth_m
    if k:
        across = -across  # from the first corner of the side into the rectangle
    heading_deg = float(angles.heading_of(*along))
    if depth_m < BAY_DEPTH_M - 1.0:
        steps, rows, size = PARALLEL_BAY_M, [depth_m / 2], (PARALLEL_BAY_M - 0.5, min(depth_m, 2.2))
    else:
        steps, rows, size = BAY_WIDTH_M, _rows_m(depth_m), (BAY_DEPTH_M, BAY_WIDTH_M)
        heading_deg = float(angles.heading_of(*across))
    start = ring[k]
    middles = np.array(
        [
            start + (i + 0.5) * steps * along + row_m * across
            for row_m in rows
            for i in range(int(length_m // steps))
        ]
    ).reshape(-1, 2)
    shapes = rectangles(middles, np.full(len(middles), heading_deg), size[0] - 0.02, size[1] - 0.02)
    # the smallest rectangle is a hair smaller than what it holds
    kept = shapely.contains(area.buffer(0.01), shapes) & ~shapely.intersects(streets, shapes)
    return [Bay(float(x), float(y), heading_deg, *size) for x, y in middles[kept]]


def _rows_m(depth_m: float) -> list[float]:
    """Middles of rows of bays across a car park: a row, an aisle, a row; and again."""
    rows, near_m = [], 0.0
    while near_m + BAY_DEPTH_M <= depth_m:
        rows.append(near_m + BAY_DEPTH_M / 2)
        far_m = near_m + BAY_DEPTH_M + AISLE_M
        if far_m + BAY_DEPTH_M <= depth_m:
            rows.append(far_m + BAY_DEPTH_M / 2)
        near_m = far_m + BAY_DEPTH_M
    return rows


def bay_lines(bays: Sequence[Bay]) -> np.ndarray:
    """Lines on both sides of every bay, as polygons."""
    table = np.array([(b.x_m, b.y_m, b.heading_deg, b.length_m, b.width_m) for b in bays])
    x_m, y_m, heading_deg, length_m, width_m = table.reshape(-1, 5).T
    lines = []
    for side in (-0.5, 0.5):
        aside = turned(np.column_stack([side * width_m, 0 * width_m]), heading_deg)
        middles = np.column_stack([x_m, y_m]) + aside
        lines.append(rectangles(middles, heading_deg, length_m, BAY_LINE_WIDTH_M))
    return np.concatenate(lines)
