"""The drawing board of a made-up town: what stands where in metres, dice, and plane geometry.

Positions are complex numbers while a plan is drawn (east + 1j * north) and points (x_m, y_m),
rounded to the centimetre, once they stand.
"""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Point = tuple[float, float]
"""(x_m, y_m)."""

Tags = Mapping[str, str]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Street:
    """A carriageway along a centre line, with sidewalks of sidewalk_m on both sides (or 0)."""

    line: tuple[Point, ...]
    width_m: float
    sidewalk_m: float
    tags: Tags


@dataclass(frozen=True)
class Area:
    """A polygon: its outer ring, counter-clockwise and not closed, and the rings of its holes."""

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
    """Everything in a town, in metres around (0, 0).

    The marks are tags for points of the streets, the lines and the outlines of buildings
    (crossings, gates, entrances); the places stand on their own.
    """

    streets: tuple[Street, ...]
    buildings: tuple[Area, ...]
    areas: tuple[Area, ...]
    lines: tuple[Line, ...]
    places: tuple[Place, ...]
    marks: tuple[Place, ...] = ()


class Dice:
    """Draws that are the same on every machine: `random.Random.random` alone is promised to be."""

    def __init__(self, seed: int) -> None:
        seed = operator.index(seed)
        if seed < 0:
            # random.Random would silently take the absolute value
            raise ValueError(f"A seed is a whole number from 0, got {seed}.")
        self._random = random.Random(seed).random  # noqa: S311 (a town is no secret)

    def between(self, low: float, high: float) -> float:
        """A number from low to high."""
        return low + (high - low) * self._random()

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, share: float) -> bool:
        """True in this share of the draws."""
        return self._random() < share

    def pick(self, options: Sequence[_T]) -> _T:
        """One of the options."""
        return options[int(self._random() * len(options))]

    def weighted(self, options: Sequence[tuple[_T, float]]) -> _T:
        """One of the options, each (what, share); the shares sum to one."""
        left = self._random()
        for option, share in options:
            left -= share
            if left < 0:
                return option
        return options[0][0]

    def shuffled(self, options: Sequence[_T]) -> list[_T]:
        """The options in another order."""
        left = list(options)
        return [left.pop(int(self._random() * len(left))) for _ in options]


def to_point(position: complex) -> Point:
    """A position on the centimetre."""
    # adding 0.0 turns -0.0 into 0.0
    return round(position.real, 2) + 0.0, round(position.imag, 2) + 0.0


def to_points(positions: Sequence[complex]) -> tuple[Point, ...]:
    """Positions on the centimetre; repeated ones are dropped."""
    points: list[Point] = []
    for point in map(to_point, positions):
        if not points or point != points[-1]:
            points.append(point)
    return tuple(points)


def cross(a: complex, b: complex) -> float:
    """Positive where b points to the left of a."""
    return a.real * b.imag - a.imag * b.real


def dot(a: complex, b: complex) -> float:
    """Scalar product."""
    return a.real * b.real + a.imag * b.imag


def unit(a: complex) -> complex:
    """The step of length 1 along a."""
    return a / abs(a)


def direction(angle_rad: float) -> complex:
    """The step of length 1 at an angle, counter-clockwise from east.

    A power series instead of sine and cosine, whose last bit differs between machines.
    """
    turns = angle_rad / (2 * math.pi)
    turns -= math.floor(turns + 0.5)
    step, power, square = 1 + 0j, 1 + 0j, 2j * math.pi * turns
    for k in range(1, 30):
        power = power * square / k
        step += power
    return step


def edges(ring: Sequence[complex]) -> list[tuple[complex, complex]]:
    """(start, end) of every edge of a ring."""
    return [(ring[k], ring[(k + 1) % len(ring)]) for k in range(len(ring))]


def inset(ring: Sequence[complex], distances_m: Sequence[float]) -> list[complex] | None:
    """A convex ring with edge k moved inwards by distances_m[k]; None where nothing is left."""
    sides = [
        (start + distance_m * 1j * unit(end - start), end - start)
        for (start, end), distance_m in zip(edges(ring), distances_m, strict=True)
    ]
    corners = []
    for k, (origin, along) in enumerate(sides):
        before, along_before = sides[k - 1]
        share = cross(before - origin, along_before) / cross(along, along_before)
        corners.append(origin + share * along)
    keeps_sides = all(
        dot(end - start, along) > 0
        for (start, end), (_, along) in zip(edges(corners), sides, strict=True)
    )
    return corners if keeps_sides else None


def clearance_m(position: complex, ring: Sequence[complex]) -> float:
    """How far outside of a convex ring a position surely is; negative inside."""
    return max(-cross(unit(end - start), position - start) for start, end in edges(ring))


def is_inside(positions: Sequence[complex], ring: Sequence[complex]) -> bool:
    """Whether positions lie in or on a convex ring."""
    return all(clearance_m(position, ring) < 1e-6 for position in positions)


def are_apart(a: Sequence[complex], b: Sequence[complex], gap_m: float) -> bool:
    """Whether a strip of gap_m along an edge separates two convex rings."""
    return any(
        min(-cross(unit(end - start), corner - start) for corner in other) >= gap_m
        for ring, other in ((a, b), (b, a))
        for start, end in edges(ring)
    )


def distance_to_line_m(position: complex, line: Sequence[Point]) -> float:
    """Distance to the nearest point of a polyline."""
    vertices = [complex(*point) for point in line]
    nearest_m = math.inf
    for start, end in itertools.pairwise(vertices):
        along = end - start
        share = min(max(dot(position - start, along) / dot(along, along), 0.0), 1.0)
        nearest_m = min(nearest_m, abs(position - start - share * along))
    return nearest_m
