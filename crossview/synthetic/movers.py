"""What moves in a world: parked and driving cars and pedestrians, others at another time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossview import angles
from crossview.synthetic.markings import CROSSING_LENGTH_M, junctions, rectangles
from crossview.synthetic.mesh import (
    Mesh,
    MeshBuilder,
    at_height,
    prism,
    quads,
    regular_ring,
    turned,
)

if TYPE_CHECKING:
    from crossview.synthetic.scene import Scene
    from crossview.synthetic.things import Carriageway

KEEP_OUT_M = 3.0
"""Nothing comes closer to a camera."""

BAY_SHARE = 0.6
KERB_SHARE = 0.4
LANE_SHARE = 0.3
SIDEWALK_SHARE = 0.25
"""How many of the places for parked and driving cars and for pedestrians are taken at density 1."""

_KERB_STEP_M = 6.5
_LANE_STEP_M = 30.0
_SIDEWALK_STEP_M = 10.0
_JUNCTION_M = 5.0
"""Free of parked cars at both ends of a street, before junctions and at crossings."""

_KERB_GAP_M = 0.25
_PARKING_STREETS = frozenset(
    ("residential", "living_street", "unclassified", "tertiary", "secondary", "road")
)
_LEAST_PARKING_WIDTH_M = 5.5
_LEAST_SIDEWALK_M = 1.0
_PERSON_RADIUS_M = 0.25
_SHOULDERS_M = 1.5
_HALF_HEAD_M = 0.13
_NO_CARS = frozenset(("track", "busway", "bus_guideway", "pedestrian"))
_ASKING = threading.Lock()
"""A prepared shape grows its index while it is first asked: two threads that ask crash GEOS."""


class _Kind(NamedTuple):
    """A kind of vehicle: its class, how many of a hundred, length, width, and heights in metres."""

    class_name: str
    share: float
    length_m: float
    width_m: float
    hood_m: float
    roof_m: float
    cabin_m: tuple[float, float]


_KINDS = (
    # the cabin from so far behind the front to so far, as shares of the length
    _Kind("car", 0.55, 4.3, 1.8, 0.85, 1.47, (0.28, 0.92)),
    _Kind("car", 0.22, 3.7, 1.7, 0.9, 1.5, (0.25, 0.97)),
    _Kind("car", 0.13, 4.7, 1.9, 1.0, 1.75, (0.27, 0.97)),
    _Kind("car", 0.07, 5.2, 1.95, 1.1, 2.3, (0.2, 1.0)),
    _Kind("truck", 0.03, 7.0, 2.3, 1.2, 3.2, (0.05, 1.0)),
)
"""Small and large cars, vans and trucks; ours, by looking at streets."""

_CABIN_INSET_M = 0.12


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Places where something may be: a middle, a heading, and what it is, (n,) each."""

    middles_m: np.ndarray
    headings_deg: np.ndarray
    kinds: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[_Candidates]) -> _Candidates:
        return cls(
            np.concatenate([np.zeros((0, 2)), *(part.middles_m for part in parts)]),
            np.concatenate([np.zeros(0), *(part.headings_deg for part in parts)]),
            np.concatenate([np.zeros(0, int), *(part.kinds for part in parts)]),
        )

    def at(self, kept: np.ndarray) -> _Candidates:
        return _Candidates(self.middles_m[kept], self.headings_deg[kept], self.kinds[kept])

    def shapes(self) -> np.ndarray:
        """What they cover, polygons; a person is a square."""
        is_person = self.kinds < 0
        sizes = np.array([(kind.length_m, kind.width_m) for kind in _KINDS])[self.kinds]
        sizes[is_person] = 2 * _PERSON_RADIUS_M
        return rectangles(self.middles_m, self.headings_deg, *sizes.T)


_PERSON = -1
"""In place of a kind of vehicle."""


def movers_mesh(
    scene: Scene,
    seed: int,
    *,
    density: float = 1.0,
    keep_out_m: Sequence[tuple[float, float]] = (),
    keeps_left: bool = False,
    bounds_m: tuple[float, float, float, float] | None = None,
) -> Mesh:
    """Cars in bays, at kerbs and in lanes, and people on sidewalks, at some moment.

    None stands in a building, a barrier, a post, a trunk or another mover. The same seed gives the
    same movers. Their instances count from 1; in pictures they follow those of `scene.mesh`.

    Args:
        scene: The town.
        seed: Of the moment.
        density: Share of the usual number; 0 is an empty town, 2 a crowded one.
        keep_out_m: Places, (x, y), from which everything stays KEEP_OUT_M away: cameras.
        keeps_left: Traffic drives on the left side.
        bounds_m: West, south, east and north of the part of the town where movers are wanted, which
            is quicker; they are those of the whole town, but for some at its border.

    Raises:
        ValueError: The density is negative.
    """
    if not 0 <= density < np.inf:
        raise ValueError(f"density must be 0 or more, got {density}.")
    rng = np.random.default_rng(np.random.SeedSequence([seed]))
    side = -1.0 if keeps_left else 1.0
    candidates = _Candidates.joined(
        [
            _driving(scene.carriageways, rng, density, side),
            _in_bays(scene, rng, density),
            _at_kerbs(scene, rng, density, side),
            _walking(scene, rng, density),
        ]
    )
    if bounds_m is not None:
        low, high = np.split(np.array(bounds_m), 2)
        is_here = (candidates.middles_m >= low) & (candidates.middles_m <= high)
        candidates = candidates.at(np.flatnonzero(is_here[:, 0] & is_here[:, 1]))
    return _mesh(candidates.at(_free(scene, candidates, keep_out_m)), rng)


def _driving(
    streets: Sequence[Carriageway], rng: np.random.Generator, density: float, side: float
) -> _Candidates:
    """In the middle of every lane, along it; on two-way streets half of the lanes each way."""
    parts = []
    for street in streets:
        if street.highway in _NO_CARS:
            continue
        for k in range(street.lanes):
            right_m = street.width_m * ((k + 0.5) / street.lanes - 0.5)
            is_forward = street.is_oneway or side * right_m >= -1e-6
            share = min(LANE_SHARE * density, 1.0)
            along_m = _places_m(street.line.length, _LANE_STEP_M, share, rng)
            parts.append(_Row(street.line, along_m, np.full(len(along_m), right_m), is_forward))
    return _along(parts, rng, parked=False)


def _in_bays(scene: Scene, rng: np.random.Generator, density: float) -> _Candidates:
    bays = np.array([(b.x_m, b.y_m, b.heading_deg) for b in scene.bays]).reshape(-1, 3)
    is_taken = rng.random(len(bays)) < min(BAY_SHARE * density, 1.0)
    turn_deg = 180.0 * (rng.random(len(bays)) < 0.5)
    kinds = _drawn_kinds(len(bays), rng, parked=True)
    taken = _Candidates(bays[:, :2], (bays[:, 2] + turn_deg) % 360.0, kinds)
    return taken.at(is_taken)


def _at_kerbs(scene: Scene, rng: np.random.Generator, density: float, side: float) -> _Candidates:
    """One behind another; where nothing is said, on one side of streets that are wide enough."""
    import shapely

    parts = []
    for street in scene.carriageways:
        usual = street.width_m >= _LEAST_PARKING_WIDTH_M and street.highway in _PARKING_STREETS
        sides = [stated is True for stated in street.parking]
        if usual and street.parking == (None, None):
            sides = [side < 0, side > 0]
        for way, parks in zip((-1.0, 1.0), sides, strict=True):
            if not parks:
                continue
            room_m = street.line.length - 2 * _JUNCTION_M
            along_m = _JUNCTION_M + _places_m(room_m, _KERB_STEP_M, KERB_SHARE * density, rng)
            right_m = np.full(len(along_m), way * (street.width_m / 2 - _KERB_GAP_M))
            parts.append(_Row(street.line, along_m, right_m, street.is_oneway or way * side > 0))
    parked = _along(parts, rng, parked=True)
    # from the kerb to the middle of the car, which the kerb is on the right of if it heads along
    # the line and the kerb is there, or if neither
    is_right = np.concatenate(
        [np.zeros(0, bool), *((row.right_m > 0) == row.is_forward for row in parts)]
    )
    widths_m = np.array([kind.width_m for kind in _KINDS])[parked.kinds]
    inwards = np.column_stack([np.where(is_right, -0.5, 0.5) * widths_m, 0 * widths_m])
    middles_m = parked.middles_m + turned(inwards, parked.headings_deg)
    parked = _Candidates(middles_m, parked.headings_deg, parked.kinds)
    places_m, reach_m = junctions(scene.carriageways)
    places_m = np.concatenate([places_m, np.reshape(scene.crossings_m, (-1, 2))])
    crossings_m = np.full(len(scene.crossings_m), CROSSING_LENGTH_M / 2)
    closed_m = np.concatenate([reach_m, crossings_m]) + _JUNCTION_M
    is_open = np.ones(len(parked.kinds), bool)
    if len(places_m):
        cars = shapely.STRtree(list(map(shapely.Point, parked.middles_m)))
        places = list(map(shapely.Point, places_m))
        is_open[cars.query(places, predicate="dwithin", distance=closed_m)[1]] = False
    return parked.at(is_open)


def _walking(scene: Scene, rng: np.random.Generator, density: float) -> _Candidates:
    lines = [(line, 0.0, 0.6) for line in scene.footways]
    for street in scene.carriageways:
        for way, sidewalk_m in zip((-1.0, 1.0), street.sidewalks_m, strict=True):
            if sidewalk_m >= _LEAST_SIDEWALK_M:
                middle_m = way * (street.width_m / 2 + sidewalk_m / 2)
                lines.append((street.line, middle_m, sidewalk_m / 2 - _PERSON_RADIUS_M - 0.1))
    parts = []
    for line, right_m, spread_m in lines:
        share = min(SIDEWALK_SHARE * density, 1.0)
        along_m = _places_m(line.length, _SIDEWALK_STEP_M, share, rng)
        aside_m = right_m + spread_m * (2 * rng.random(len(along_m)) - 1)
        parts.append(_Row(line, along_m, aside_m, is_forward=True))
    walking = _along(parts, rng, parked=False)
    return _Candidates(
        walking.middles_m, walking.headings_deg, np.full(len(walking.kinds), _PERSON)
    )


def _places_m(length_m: float, step_m: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """Some places along a line, a step apart but for a quarter of it."""
    count = max(int(length_m // step_m), 0)
    jitter, draw = rng.random(count) - 0.5, rng.random(count)
    slack_m = step_m / 4 if step_m > _KERB_STEP_M else 0.3
    return ((np.arange(count) + 0.5) * step_m + slack_m * jitter)[draw < share]


class _Row(NamedTuple):
    """Places beside a line: metres along it and to its right, and whether things head along it."""

    line: Any
    along_m: np.ndarray
    right_m: np.ndarray
    is_forward: bool


def _along(rows: Sequence[_Row], rng: np.random.Generator, *, parked: bool) -> _Candidates:
    """Vehicles at all places."""
    import shapely

    counts = [len(row.along_m) for row in rows]
    lines = np.repeat(np.array([row.line for row in rows], dtype=object), counts)
    along_m = np.concatenate([np.zeros(0), *(row.along_m for row in rows)])
    right_m = np.concatenate([np.zeros(0), *(row.right_m for row in rows)])
    turn_deg = np.repeat([0.0 if row.is_forward else 180.0 for row in rows], counts)
    start, end = (
        shapely.get_coordinates(shapely.line_interpolate_point(lines, np.maximum(place, 0.0)))
        for place in (along_m - 1.0, along_m + 1.0)
    )
    heading_deg = np.asarray(angles.heading_of(*(end - start).T))
    middles = (start + end) / 2 + turned(np.column_stack([right_m, 0 * right_m]), heading_deg)
    kinds = _drawn_kinds(len(along_m), rng, parked=parked)
    return _Candidates(middles, (heading_deg + turn_deg) % 360.0, kinds)


def _drawn_kinds(count: int, rng: np.random.Generator, *, parked: bool) -> np.ndarray:
    """Kinds of vehicles; trucks do not park at kerbs and in bays."""
    shares = np.cumsum([kind.share for kind in _KINDS if not parked or kind.class_name == "car"])
    return np.searchsorted(shares / shares[-1], rng.random(count), side="right")


def _free(
    scene: Scene, candidates: _Candidates, keep_out_m: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Numbers of the candidates that are in nobody's way; the first of two that are."""
    import shapely

    shapes = candidates.shapes()
    if not len(shapes):
        return np.zeros(0, int)
    tree = shapely.STRtree(shapes)
    is_free = np.ones(len(shapes), bool)
    footprints = [building.footprint for building in scene.buildings if building.base_m == 0]
    places = [(post.x_m, post.y_m) for post in scene.posts]
    places += [(stem.x_m, stem.y_m) for stem in scene.trees]
    places += [(x_m, y_m) for x_m, y_m, _ in scene.benches]
    for things, distance_m in (
        (footprints, 0.1),
        ([barrier.line for barrier in scene.barriers], 0.5),
        (list(map(shapely.Point, places)), 0.5),
        (list(map(shapely.Point, keep_out_m)), KEEP_OUT_M),
    ):
        if things:
            hit = tree.query(things, predicate="dwithin", distance=distance_m)[1]
            is_free[hit] = False
    is_person = candidates.kinds < 0
    with _ASKING:
        for area, who in ((scene.roads, ~is_person), (scene.sidewalks, is_person)):
            wanted = np.flatnonzero(is_free & who)
            is_free[wanted] = shapely.contains(area, shapes[wanted])
        wanted = np.flatnonzero(is_free & is_person)
        is_free[wanted] = ~shapely.intersects(scene.roads, shapes[wanted])
    for one, other in sorted(tree.query(shapes, predicate="intersects").T.tolist()):
        # sorted by the later of two, so that the earlier one is settled
        if other < one and is_free[other]:
            is_free[one] = False
    return np.flatnonzero(is_free)


def _mesh(movers: _Candidates, rng: np.random.Generator) -> Mesh:
    builder = MeshBuilder()
    instances = 1 + np.arange(len(movers.kinds))
    for k, kind in enumerate(_KINDS):
        of_kind = np.flatnonzero(movers.kinds == k)
        some = movers.at(of_kind)
        for material, shape in _vehicle(kind).items():
            rows = builder.surfaces(kind.class_name, [material] * len(of_kind), instances[of_kind])
            builder.triangles(_placed(shape, some), np.repeat(rows, len(shape)))
    people = np.flatnonzero(movers.kinds == _PERSON)
    rows = builder.surfaces("person", ["clothes"] * len(people), instances[people])
    sizes = 0.94 + 0.1 * rng.random(len(people))
    shape = prism(regular_ring(0.0, 0.0, 0.22, 8), 0.0, _SHOULDERS_M)
    placed = _placed(shape * sizes[:, None, None, None], movers.at(people))
    builder.triangles(placed, np.repeat(rows, len(shape)))
    for (x_m, y_m), size, row in zip(movers.middles_m[people], sizes, rows, strict=True):
        middle_m = (_SHOULDERS_M + _HALF_HEAD_M) * size
        head = float(x_m), float(y_m), middle_m, 0.1 * size, _HALF_HEAD_M * size
        builder.crown(head, int(row))
    return builder.mesh()


def _placed(shapes: np.ndarray, movers: _Candidates) -> np.ndarray:
    """Triangles (triangles, 3, 3) around the origin, ahead to the north, for every mover."""
    shapes = np.broadcast_to(shapes, (len(movers.kinds), *shapes.shape[-3:]))
    offsets = turned(shapes[..., :2], movers.headings_deg[:, None, None])
    middles = movers.middles_m[:, None, None]
    return np.concatenate([offsets + middles, shapes[..., 2:]], axis=-1).reshape(-1, 3, 3)


def _vehicle(kind: _Kind) -> dict[str, np.ndarray]:
    """Triangles of each material: a body, and a cabin that narrows to a roof."""

    def ring(ahead_m: tuple[float, float], inset_m: float) -> np.ndarray:
        side, (rear, front) = kind.width_m / 2 - inset_m, ahead_m
        return np.array([(-side, rear), (side, rear), (side, front), (-side, front)])

    half_m = kind.length_m / 2
    body = prism(ring((-half_m, half_m), 0.0), 0.0, kind.hood_m)
    front_m, rear_m = (half_m - share * kind.length_m for share in kind.cabin_m)
    slant_m = 2 * _CABIN_INSET_M
    low = at_height(ring((rear_m, front_m), 0.02), kind.hood_m)
    roof = ring((rear_m + slant_m, front_m - 2 * slant_m), _CABIN_INSET_M)
    high = at_height(roof, kind.roof_m)
    windows = quads(low, np.roll(low, -1, axis=0), np.roll(high, -1, axis=0), high)
    lid = quads(*high[:, None])
    return {"paintwork": np.concatenate([body, lid]), "car_glass": windows}
