"""What stands where in a made-up town, in metres: streets, blocks, buildings, trees, water.

Positions are complex numbers while the plan is drawn (east + 1j * north), and points (x_m, y_m)
rounded to the centimetre once they stand. Only additions, multiplications and draws of
`random.Random.random` decide, so a seed gives the same plan on every machine.
"""

from __future__ import annotations

import cmath
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Point = tuple[float, float]
"""(x_m, y_m)."""

Tags = Mapping[str, str]

BLOCKS_PER_SIDE = 5
_TOWN_SIDE_M = 370.0
_BLOCK_SHARE = (0.75, 1.3)
_CROSSING_JITTER_M = 8.0
_TURN_DEG = (6.0, 24.0)

_WALL_GAP_M = 1.5
"""Least distance between buildings that share no wall."""

_LEVEL_M = 3.0

_BLOCK_KINDS = ("park",) * 2 + ("court",) * 3 + ("offices",) * 4 + ("church",)
"""Blocks that every town has; the others are rows of houses or gardens with houses."""

_STREET_NAMES = (
    "Alder Street",
    "Baker's Row",
    "Candle Street",
    "Dyers' Street",
    "Elm Street",
    "Ferry Road",
    "Glover Street",
    "Harbour Road",
    "Ivy Street",
    "Juniper Street",
    "Kiln Road",
    "Linden Avenue",
    "Mill Street",
    "Nettle Street",
    "Orchard Road",
    "Potter Street",
)
_LANE_NAMES = ("Cat Lane", "Rope Walk", "Well Lane", "Salt Lane", "Thimble Lane", "Goose Lane")
_SHOPS = (
    {"amenity": "cafe"},
    {"amenity": "restaurant"},
    {"amenity": "pharmacy"},
    {"amenity": "bank"},
    {"amenity": "pub"},
    {"shop": "bakery"},
    {"shop": "books"},
    {"shop": "hairdresser"},
    {"shop": "supermarket"},
    {"shop": "bicycle"},
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Street:
    """A carriageway along a centre line, with a sidewalk of sidewalk_m on either side."""

    line: tuple[Point, ...]
    width_m: float
    sidewalk_m: float
    tags: Tags


@dataclass(frozen=True)
class Area:
    """A polygon: outer ring counter-clockwise, not closed, and the rings of its holes."""

    outer: tuple[Point, ...]
    tags: Tags
    inner: tuple[tuple[Point, ...], ...] = ()


@dataclass(frozen=True)
class Line:
    """A fence, a hedge, a wall or a footway."""

    line: tuple[Point, ...]
    tags: Tags


@dataclass(frozen=True)
class Place:
    """A tree or a point of interest."""

    point: Point
    tags: Tags


@dataclass(frozen=True)
class Plan:
    """Everything in a town of about 400 x 400 m around (0, 0)."""

    streets: tuple[Street, ...]
    buildings: tuple[Area, ...]
    areas: tuple[Area, ...]
    lines: tuple[Line, ...]
    places: tuple[Place, ...]


def town_plan(seed: int) -> Plan:
    """A town: bent streets and lanes, and on the blocks between them houses, gardens and parks.

    No building overlaps another (row houses share walls and corner points), a carriageway or a
    sidewalk.
    """
    dice = _Dice(seed)
    network = _Network(dice)
    blocks = _blocks(network, dice)
    drawing = _Drawing()
    for kind, block in blocks:
        _FILLERS[kind](drawing, dice, block)
    streets = network.streets()
    _line_with_trees(drawing, dice, streets)
    _furnish(drawing, dice, streets)
    return Plan(
        streets,
        tuple(drawing.buildings),
        tuple(drawing.areas),
        tuple(drawing.lines),
        tuple(drawing.places),
    )


class _Dice:
    """Draws that are the same on every machine and Python (only `random` is promised to be)."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random  # noqa: S311 (a town is no secret)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random()

    def chance(self, share: float) -> bool:
        return self._random() < share

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self._random() * len(options))]

    def shuffled(self, options: Sequence[_T]) -> list[_T]:
        left = list(options)
        return [left.pop(int(self._random() * len(left))) for _ in options]


# ------------------------------------------------------------------ plane geometry


def _cross(a: complex, b: complex) -> float:
    return a.real * b.imag - a.imag * b.real


def _dot(a: complex, b: complex) -> float:
    return a.real * b.real + a.imag * b.imag


def _unit(a: complex) -> complex:
    return a / abs(a)


def _point(position: complex) -> Point:
    # adding 0.0 turns -0.0 into 0.0
    return round(position.real, 2) + 0.0, round(position.imag, 2) + 0.0


def _points(positions: Sequence[complex]) -> tuple[Point, ...]:
    return tuple(_point(position) for position in positions)


def _edges(ring: Sequence[complex]) -> list[tuple[complex, complex]]:
    return [(ring[k], ring[(k + 1) % len(ring)]) for k in range(len(ring))]


def _inset(corners: Sequence[complex], distances_m: Sequence[float]) -> list[complex] | None:
    """A convex ring with every edge moved inwards; None where nothing is left."""
    sides = [
        (start + 1j * _unit(end - start) * distance_m, end - start)
        for (start, end), distance_m in zip(_edges(corners), distances_m, strict=True)
    ]
    ring = []
    for k, (origin, along) in enumerate(sides):
        before, along_before = sides[k - 1]
        step = _cross(before - origin, along_before) / _cross(along, along_before)
        ring.append(origin + step * along)
    keeps_sides = all(
        _dot(new_end - new_start, end - start) > 0
        for (new_start, new_end), (start, end) in zip(_edges(ring), _edges(corners), strict=True)
    )
    return ring if keeps_sides else None


def _clearance_m(position: complex, ring: Sequence[complex]) -> float:
    """Distance to a convex ring, or less; negative inside, where it is exact."""
    return max(-_cross(_unit(end - start), position - start) for start, end in _edges(ring))


def _inside(positions: Sequence[complex], ring: Sequence[complex]) -> bool:
    return all(_clearance_m(position, ring) < 1e-6 for position in positions)


def _apart(a: Sequence[complex], b: Sequence[complex], gap_m: float) -> bool:
    """Whether some line along an edge keeps two convex rings gap_m apart."""
    return any(
        min(-_cross(_unit(end - start), corner - start) for corner in other) >= gap_m
        for ring, other in ((a, b), (b, a))
        for start, end in _edges(ring)
    )


def _distance_to_line_m(position: complex, line: Sequence[Point]) -> float:
    vertices = [complex(*point) for point in line]
    nearest_m = math.inf
    for start, end in zip(vertices[:-1], vertices[1:], strict=True):
        along = end - start
        share = min(max(_dot(position - start, along) / _dot(along, along), 0.0), 1.0)
        nearest_m = min(nearest_m, abs(position - start - share * along))
    return nearest_m


@dataclass(frozen=True)
class _Front:
    """A straight edge of a block that houses stand along: s metres along, depth metres inwards."""

    start: complex
    end: complex

    @property
    def length_m(self) -> float:
        return abs(self.end - self.start)

    def at(self, s_m: float, depth_m: float) -> complex:
        along = _unit(self.end - self.start)
        return self.start + s_m * along + depth_m * 1j * along

    def rectangle(self, s_m: float, width_m: float, near_m: float, far_m: float) -> list[complex]:
        return [
            self.at(s_m, near_m),
            self.at(s_m + width_m, near_m),
            self.at(s_m + width_m, far_m),
            self.at(s_m, far_m),
        ]


# ------------------------------------------------------------------ streets and blocks


@dataclass(frozen=True)
class _StreetKind:
    highway: str
    name: str
    width_m: float
    sidewalk_m: float
    tree_lined: bool = False

    @property
    def half_m(self) -> float:
        """From the centre line to the far side of the sidewalk."""
        return self.width_m / 2 + self.sidewalk_m


@dataclass(frozen=True)
class _Block:
    """A convex quadrilateral between centre lines, counter-clockwise, and the streets of its edges."""

    corners: tuple[complex, ...]
    streets: tuple[_StreetKind, ...]

    def lot(self, setback_m: float = 0.0) -> list[complex]:
        """The block without its streets and sidewalks."""
        ring = _inset(self.corners, [street.half_m + setback_m for street in self.streets])
        if ring is None:
            raise RuntimeError("A block of the made-up town is narrower than its streets.")
        return ring


class _Network:
    """A jittered lattice of streets: crossings[i][j], i counted to the east, j to the north."""

    def __init__(self, dice: _Dice) -> None:
        turn = cmath.rect(1.0, math.radians(dice.between(*_TURN_DEG)))
        east, north = _spaced(dice), _spaced(dice)
        self.crossings = [
            [
                turn
                * complex(
                    x_m + dice.between(-_CROSSING_JITTER_M, _CROSSING_JITTER_M),
                    y_m + dice.between(-_CROSSING_JITTER_M, _CROSSING_JITTER_M),
                )
                for y_m in north
            ]
            for x_m in east
        ]
        kinds = _street_kinds(dice)
        self.northward = kinds[: BLOCKS_PER_SIDE + 1]
        self.eastward = kinds[BLOCKS_PER_SIDE + 1 :]
        self._lane_names = dice.shuffled(_LANE_NAMES)
        self._lanes: list[tuple[_StreetKind, complex, complex]] = []
        self._mouths: dict[tuple[complex, complex], list[tuple[float, complex]]] = {}

    def block(self, i: int, j: int) -> _Block:
        at = self.crossings
        return _Block(
            (at[i][j], at[i + 1][j], at[i + 1][j + 1], at[i][j + 1]),
            (self.eastward[j], self.northward[i + 1], self.eastward[j + 1], self.northward[i]),
        )

    def split(self, block: _Block, dice: _Dice) -> tuple[_Block, _Block]:
        """Two blocks with a lane between them, which cuts the two longer edges."""
        a, b, c, d = block.corners
        south, east, north, west = block.streets
        if abs(b - a) + abs(d - c) < abs(c - b) + abs(a - d):
            a, b, c, d = b, c, d, a
            south, east, north, west = east, north, west, south
        share_start, share_end = dice.between(0.42, 0.58), dice.between(0.42, 0.58)
        start, end = a + share_start * (b - a), d + share_end * (c - d)
        lane = _StreetKind(
            dice.pick(("living_street", "service")),
            self._lane_names[len(self._lanes) % len(self._lane_names)],
            width_m=dice.pick((3.5, 4.0, 4.5)),
            sidewalk_m=0.0,
        )
        self._lanes.append((lane, start, end))
        self._open(a, b, share_start, start)
        self._open(d, c, share_end, end)
        return (
            _Block((a, start, end, d), (south, lane, north, west)),
            _Block((start, b, c, end), (south, east, north, lane)),
        )

    def streets(self) -> tuple[Street, ...]:
        count = BLOCKS_PER_SIDE + 1
        lines = [
            *((kind, self.crossings[i]) for i, kind in enumerate(self.northward)),
            *(
                (kind, [self.crossings[i][j] for i in range(count)])
                for j, kind in enumerate(self.eastward)
            ),
            *((lane, [start, end]) for lane, start, end in self._lanes),
        ]
        return tuple(_street(kind, self._with_mouths(line)) for kind, line in lines)

    def _open(self, start: complex, end: complex, share: float, mouth: complex) -> None:
        """Remember a lane's mouth on a lattice edge, in the direction of its street."""
        self._mouths.setdefault((start, end), []).append((share, mouth))
        self._mouths.setdefault((end, start), []).append((1.0 - share, mouth))

    def _with_mouths(self, line: Sequence[complex]) -> list[complex]:
        """The street's vertices with the places where lanes open into it, in order."""
        vertices = [line[0]]
        for start, end in zip(line[:-1], line[1:], strict=True):
            mouths = sorted(self._mouths.get((start, end), []), key=lambda mouth: mouth[0])
            vertices += [mouth for _, mouth in mouths]
            vertices.append(end)
        return vertices
