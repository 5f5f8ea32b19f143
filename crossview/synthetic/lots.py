"""What stands on the blocks of a made-up town: rows of houses, gardens, courts, offices, parks."""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from crossview.synthetic.plan import (
    Area,
    Dice,
    Line,
    Place,
    Street,
    Tags,
    are_apart,
    clearance_m,
    distance_to_line_m,
    edges,
    inset,
    is_inside,
    to_point,
    to_points,
    unit,
)
from crossview.synthetic.streets import Block

WALL_GAP_M = 1.5
"""Least distance between buildings that share no wall."""

TREE_GAP_M = 0.4
"""Least distance from a crown to a wall."""

LEVEL_M = 3.0
"""Height of a storey."""

_STEP_M = 1.0
_COURT_DEPTH_M = 12.0
_POND_VERTICES = 14
_POND_RAGGEDNESS = (0.92, 1.08)
_SHORE_M = 2.5

_SHOPS: tuple[Tags, ...] = (
    {"amenity": "bank"},
    {"amenity": "cafe"},
    {"amenity": "pharmacy"},
    {"amenity": "pub"},
    {"amenity": "restaurant"},
    {"shop": "bakery"},
    {"shop": "bicycle"},
    {"shop": "books"},
    {"shop": "hairdresser"},
    {"shop": "supermarket"},
)


@dataclass
class Drawing:
    """What stands so far on a block, or in a town.

    Trees grow neither at `walls` nor on `clearings`, both lists of convex rings.
    """

    buildings: list[Area] = field(default_factory=list)
    areas: list[Area] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    walls: list[list[complex]] = field(default_factory=list)
    clearings: list[list[complex]] = field(default_factory=list)

    def extend(self, other: Drawing) -> None:
        """Add all that stands in another drawing."""
        self.buildings += other.buildings
        self.areas += other.areas
        self.lines += other.lines
        self.places += other.places
        self.walls += other.walls
        self.clearings += other.clearings

    def has_room(self, part: Sequence[complex], lot: Sequence[complex]) -> bool:
        """Whether a convex part of a building fits into a lot, away from all others."""
        return is_inside(part, lot) and all(
            are_apart(part, wall, WALL_GAP_M) for wall in self.walls
        )

    def build(self, ring: Sequence[complex], parts: Sequence[list[complex]], tags: Tags) -> None:
        """Add a building whose ring is the union of convex parts."""
        self.buildings.append(Area(to_points(ring), tags))
        self.walls.extend(parts)

    def plant(self, dice: Dice, position: complex, *, crown_m: float, height_m: float) -> None:
        """Add a tree, unless a wall, a clearing or another tree is too near."""
        taken = self.walls + self.clearings
        if any(clearance_m(position, ring) < crown_m + TREE_GAP_M for ring in taken):
            return
        trees = (place.point for place in self.places if place.tags.get("natural") == "tree")
        if any(abs(complex(*point) - position) < 2 * crown_m for point in trees):
            return
        tags = {
            "natural": "tree",
            "leaf_type": "needleleaved" if dice.chance(0.15) else "broadleaved",
            "height": f"{height_m:.1f}",
            "diameter_crown": f"{2 * crown_m:.1f}",
        }
        self.places.append(Place(to_point(position), tags))


@dataclass(frozen=True)
class Front:
    """A straight edge that houses stand along: s metres along it, depth metres to its left."""

    start: complex
    end: complex

    @property
    def length_m(self) -> float:
        """From start to end."""
        return abs(self.end - self.start)

    def at(self, s_m: float, depth_m: float) -> complex:
        """A position on the lot behind the edge."""
        along = unit(self.end - self.start)
        return self.start + s_m * along + depth_m * 1j * along

    def rectangle(self, s_m: float, depth_m: float, width: float, depth: float) -> list[complex]:
        """Counter-clockwise from its near corner; width along the edge, depth away from it."""
        return [
            self.at(s_m, depth_m),
            self.at(s_m + width, depth_m),
            self.at(s_m + width, depth_m + depth),
            self.at(s_m, depth_m + depth),
        ]


def fill_rows(drawing: Drawing, dice: Dice, block: Block) -> None:
    """Houses wall to wall along every street, with a passage now and then."""
    lot = block.lot(dice.pick((0.0, 0.0, 0.5, 1.5)))
    usual_levels = dice.whole(2, 5)
    for start, end in edges(lot):
        _build_rows(drawing, dice, Front(start, end), lot, usual_levels)
    _plant_scattered(drawing, dice, lot, count=dice.whole(6, 12))


@dataclass(frozen=True)
class _RowHouse:
    s_m: float
    width_m: float
    depth_m: float
    tags: Tags


def _build_rows(
    drawing: Drawing, dice: Dice, front: Front, lot: Sequence[complex], usual_levels: int
) -> None:
    row: list[_RowHouse] = []
    s_m = 0.0
    while s_m < front.length_m - 6.0:
        width_m = min(dice.between(7.0, 16.0), front.length_m - s_m)
        # half metres: two depths are equal or clearly different
        depth_m = dice.whole(18, 26) / 2
        if not drawing.has_room(front.rectangle(s_m, 0.0, width_m, depth_m), lot):
            _build_row(drawing, front, row)
            s_m += _STEP_M
            row = []
            continue
        levels = max(1, usual_levels + dice.whole(-1, 1))
        row.append(_RowHouse(s_m, width_m, depth_m, _building_tags(dice, "apartments", levels)))
        if dice.chance(0.3):
            shop = dict(dice.pick(_SHOPS))
            drawing.places.append(Place(to_point(front.at(s_m + width_m / 2, 1.5)), shop))
        s_m += width_m
        if dice.chance(0.15):
            _build_row(drawing, front, row)
            s_m += dice.between(2.5, 6.0)
            row = []
    _build_row(drawing, front, row)


def _build_row(drawing: Drawing, front: Front, row: Sequence[_RowHouse]) -> None:
    """Houses that share walls: where the neighbour ends first, its corner is a vertex of both."""
    for k, house in enumerate(row):
        left_m, right_m = house.s_m, house.s_m + house.width_m
        ring = [front.at(left_m, 0.0), front.at(right_m, 0.0)]
        if k + 1 < len(row) and row[k + 1].depth_m < house.depth_m:
            ring.append(front.at(right_m, row[k + 1].depth_m))
        ring += [front.at(right_m, house.depth_m), front.at(left_m, house.depth_m)]
        if k > 0 and row[k - 1].depth_m < house.depth_m:
            ring.append(front.at(left_m, row[k - 1].depth_m))
        part = front.rectangle(left_m, 0.0, house.width_m, house.depth_m)
        drawing.build(ring, [part], house.tags)


def fill_gardens(drawing: Drawing, dice: Dice, block: Block) -> None:
    """Houses on their own, a third of them L-shaped, behind hedges and fences with gates."""
    lot = block.lot()
    setback_m = dice.between(2.5, 5.0)
    for start, end in edges(lot):
        front = Front(start, end)
        gates_m = _build_houses(drawing, dice, front, lot, setback_m)
        if dice.chance(0.75):
            _fence(drawing, dice, front, gates_m)
    _plant_scattered(drawing, dice, lot, count=dice.whole(40, 70))


def _build_houses(
    drawing: Drawing, dice: Dice, front: Front, lot: Sequence[complex], setback_m: float
) -> list[float]:
    """Build along a front; where the gates are, metres along it."""
    gates_m = []
    s_m = dice.between(2.0, 5.0)
    while s_m < front.length_m - 9.0:
        width_m, depth_m = dice.between(8.0, 14.0), dice.between(8.0, 11.0)
        near_m = setback_m + dice.between(0.0, 1.5)
        main = front.rectangle(s_m, near_m, width_m, depth_m)
        if not drawing.has_room(main, lot):
            s_m += _STEP_M
            continue
        tags = _building_tags(dice, dice.pick(("house", "detached", "yes")), dice.whole(1, 2))
        wing_m = dice.between(0.35, 0.6) * width_m
        wing = front.rectangle(s_m, near_m + depth_m, wing_m, dice.between(3.5, 6.0))
        if dice.chance(0.35) and drawing.has_room(wing, lot):
            drawing.build([*main[:3], wing[1], *wing[2:]], [main, wing], tags)
        else:
            drawing.build(main, [main], tags)
        gates_m.append(s_m + width_m + 1.5)
        s_m += width_m + dice.between(4.0, 9.0)
    return gates_m


def _fence(drawing: Drawing, dice: Dice, front: Front, gates_m: Sequence[float]) -> None:
    """A fence or a hedge a little behind the sidewalk, with an opening of 3 m at every gate."""
    kind = dice.pick(("hedge", "hedge", "fence", "wall"))
    height_m = dice.between(1.3, 1.9) if kind == "hedge" else dice.between(0.9, 1.3)
    stops_m = [0.6, *(gate + side for gate in gates_m for side in (-1.5, 1.5))]
    stops_m.append(front.length_m - 0.6)
    for start_m, stop_m in zip(stops_m[::2], stops_m[1::2], strict=True):
        end_m = min(stop_m, front.length_m - 0.6)
        if end_m - start_m > 1.0:
            line = to_points([front.at(start_m, 0.4), front.at(end_m, 0.4)])
            drawing.lines.append(Line(line, {"barrier": kind, "height": f"{height_m:.1f}"}))


def fill_court(drawing: Drawing, dice: Dice, block: Block) -> None:
    """One building around an open court."""
    outer = block.lot(dice.between(0.0, 2.0))
    inner = inset(outer, [_COURT_DEPTH_M] * len(outer))
    if inner is None:
        fill_rows(drawing, dice, block)
        return
    tags = _building_tags(dice, dice.pick(("apartments", "yes")), dice.whole(3, 6))
    court = tuple(reversed(to_points(inner)))
    drawing.buildings.append(Area(to_points(outer), tags, inner=(court,)))
    drawing.walls += [
        [*outer_edge, *reversed(inner_edge)]
        for outer_edge, inner_edge in zip(edges(outer), edges(inner), strict=True)
    ]
    _plant_scattered(drawing, dice, inner, count=3)


def fill_offices(drawing: Drawing, dice: Dice, block: Block) -> None:
    """A few large buildings, one of them L-shaped, and a car park."""
    lot = block.lot(dice.between(1.0, 4.0))
    fronts = [Front(start, end) for start, end in edges(lot)]
    for front in dice.shuffled(fronts):
        s_m = dice.between(0.0, 6.0)
        while s_m < front.length_m - 18.0:
            width_m = min(dice.between(18.0, 34.0), front.length_m - s_m)
            depth_m = dice.between(13.0, 17.0)
            main = front.rectangle(s_m, 0.0, width_m, depth_m)
            if not drawing.has_room(main, lot):
                s_m += 2 * _STEP_M
                continue
            wing = front.rectangle(s_m, depth_m, dice.between(8.0, 12.0), dice.between(8.0, 14.0))
            tags = _building_tags(dice, dice.pick(("office", "commercial")), dice.whole(4, 9))
            if drawing.has_room(wing, lot):
                drawing.build([*main[:3], wing[1], *wing[2:]], [main, wing], tags)
            else:
                drawing.build(main, [main], tags)
            s_m += width_m + dice.between(6.0, 14.0)
    _pave_car_park(drawing, dice, lot, fronts[0])
    _plant_scattered(drawing, dice, lot, count=dice.whole(3, 7))


def _pave_car_park(drawing: Drawing, dice: Dice, lot: Sequence[complex], front: Front) -> None:
    for _ in range(40):
        corner_m = dice.between(0.0, front.length_m), dice.between(2.0, 60.0)
        ring = front.rectangle(*corner_m, width=17.0, depth=11.0)
        if drawing.has_room(ring, lot):
            drawing.areas.append(Area(to_points(ring), {"amenity": "parking", "access": "private"}))
            drawing.clearings.append(ring)
            return


def fill_church(drawing: Drawing, dice: Dice, block: Block) -> None:
    """A square with a church: a nave, and a tower at the middle of its end."""
    lot = block.lot()
    longest = max(edges(lot), key=lambda edge: abs(edge[1] - edge[0]))
    front = Front(*longest)
    depth_m = max(clearance_m(corner, [front.start, front.end]) for corner in lot)
    nave_m, nave_width_m, tower_m = dice.between(22.0, 28.0), dice.between(11.0, 14.0), 7.0
    s_m = (front.length_m - nave_m - tower_m) / 2
    near_m = (min(depth_m, 60.0) - nave_width_m) / 2
    side_m = near_m + (nave_width_m - tower_m) / 2
    nave = front.rectangle(s_m, near_m, nave_m, nave_width_m)
    tower = front.rectangle(s_m + nave_m, side_m, tower_m, tower_m)
    drawing.areas.append(Area(to_points(lot), {"highway": "pedestrian", "area": "yes"}))
    if drawing.has_room(nave, lot) and drawing.has_room(tower, lot):
        # the nave's ring passes through the tower's corners, so that they share a wall
        ring = [*nave[:2], tower[0], tower[3], *nave[2:]]
        tags = {"building": "church", "amenity": "place_of_worship", "height": "13"}
        drawing.build(ring, [nave], tags)
        drawing.build(tower, [tower], {"building": "tower", "height": "31"})
    for share in (0.15, 0.5, 0.85):
        bench = front.at(share * front.length_m, 2.0)
        drawing.places.append(Place(to_point(bench), {"amenity": "bench"}))
    _plant_scattered(drawing, dice, lot, count=dice.whole(6, 10))


def fill_park(drawing: Drawing, dice: Dice, block: Block) -> None:
    """Grass, a pond, a path from corner to corner, trees and benches, a hedge on one side."""
    lot = block.lot()
    drawing.areas.append(Area(to_points(lot), {"leisure": "park"}))
    path = to_points([block.corners[0], lot[0], lot[2], block.corners[2]])
    drawing.lines.append(Line(path, {"highway": "footway", "width": "2.5", "surface": "gravel"}))
    pond = _pond(dice, lot[:3] if dice.chance(0.5) else [lot[0], *lot[2:]])
    drawing.areas.append(Area(to_points(pond), {"natural": "water", "water": "pond"}))
    drawing.clearings.append(pond)
    _fence(drawing, dice, Front(lot[2], lot[3]), [])
    for share in (0.25, 0.4, 0.6, 0.75):
        bench = lot[0] + share * (lot[2] - lot[0]) + 2.0j * unit(lot[2] - lot[0])
        drawing.places.append(Place(to_point(bench), {"amenity": "bench"}))
    _plant_scattered(drawing, dice, lot, count=dice.whole(26, 40), path=path)


def _pond(dice: Dice, triangle: Sequence[complex]) -> list[complex]:
    """A slightly irregular oval about the centre of a triangle's inscribed circle, inside of it."""
    opposite_m = [abs(triangle[k - 1] - triangle[k - 2]) for k in range(3)]
    weighted = [length * corner for length, corner in zip(opposite_m, triangle, strict=True)]
    center = sum(weighted) / sum(opposite_m)
    room_m = (-clearance_m(center, triangle) - _SHORE_M) / _POND_RAGGEDNESS[1]
    long_m, short_m = min(dice.between(9.0, 13.0), room_m), min(dice.between(5.5, 7.5), room_m)
    axis = unit(triangle[2] - triangle[0])
    ring = []
    for k in range(_POND_VERTICES):
        step = cmath.rect(dice.between(*_POND_RAGGEDNESS), 2 * math.pi * k / _POND_VERTICES)
        ring.append(center + axis * complex(long_m * step.real, short_m * step.imag))
    return ring


def _plant_scattered(
    drawing: Drawing,
    dice: Dice,
    lot: Sequence[complex],
    *,
    count: int,
    path: Sequence[tuple[float, float]] = (),
) -> None:
    for _ in range(count):
        across, along = dice.between(0.0, 1.0), dice.between(0.0, 1.0)
        south = lot[0] + across * (lot[1] - lot[0])
        position = south + along * (lot[3] + across * (lot[2] - lot[3]) - south)
        crown_m, height_m = dice.between(1.8, 3.6), dice.between(6.0, 12.0)
        is_on_path = len(path) > 1 and distance_to_line_m(position, path) < 2.0
        if not is_on_path and clearance_m(position, lot) < -1.5:
            drawing.plant(dice, position, crown_m=crown_m, height_m=height_m)


def plant_along_streets(drawing: Drawing, dice: Dice, streets: Sequence[Street]) -> None:
    """Trees at the kerb of wide sidewalks, away from the mouths of other streets."""
    for street in streets:
        if street.sidewalk_m < 3.0:
            continue
        for side in (-1, 1):
            if dice.chance(0.25):
                continue
            offset_m = side * (street.width_m / 2 + 1.1)
            for position in _spaced_positions(dice, street, offset_m):
                others = (other for other in streets if other is not street)
                if all(
                    distance_to_line_m(position, other.line) > other.width_m / 2 + 5.0
                    for other in others
                ):
                    crown_m = dice.between(1.3, 1.9)
                    drawing.plant(dice, position, crown_m=crown_m, height_m=dice.between(5.5, 9.0))


def _spaced_positions(dice: Dice, street: Street, offset_m: float) -> list[complex]:
    """Every 9 to 15 m along a street, offset_m to the left of its centre line."""
    positions = []
    for first, last in itertools.pairwise(street.line):
        front = Front(complex(*first), complex(*last))
        s_m = dice.between(2.0, 12.0)
        while s_m < front.length_m:
            positions.append(front.at(s_m, offset_m))
            s_m += dice.between(9.0, 15.0)
    return positions


def _building_tags(dice: Dice, building: str, levels: int) -> dict[str, str]:
    """Half of the buildings tell their height, the others their storeys."""
    if dice.chance(0.5):
        return {"building": building, "building:levels": str(levels)}
    height_m = levels * LEVEL_M + dice.between(0.3, 2.5)
    return {"building": building, "height": f"{height_m:.1f}"}


Filler = Callable[[Drawing, Dice, Block], None]

FILLERS: Mapping[str, Filler] = {
    "rows": fill_rows,
    "gardens": fill_gardens,
    "court": fill_court,
    "offices": fill_offices,
    "church": fill_church,
    "park": fill_park,
}
