"""A drive through a made-up town: along connected streets, with smooth turns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossview import angles
from crossview.frames import Pose
from crossview.synthetic.plan import Dice, Point, Street, cross, dot, unit

_STEP_M = 0.25
_TURN_M = 9.0
_TURN_PER_WIDTH = 1.4
_LEAST_BEND_RAD = 0.01
_MAX_DRAWS = 200
_STRAIGHT_ON = 0.6
_SHARPEST_COSINE = -0.82
"""No car turns by more than 145 degrees at once."""


@dataclass(frozen=True)
class _Leg:
    """A street from one junction to the next, in a direction that cars may take."""

    start: Point
    end: Point
    line: tuple[complex, ...]
    width_m: float

    @property
    def length_m(self) -> float:
        return math.fsum(abs(b - a) for a, b in itertools.pairwise(self.line))

    def is_back_of(self, other: _Leg) -> bool:
        return self.line == other.line[::-1]


_Legs = dict[Point, list[_Leg]]


def drive(streets: Sequence[Street], dice: Dice, num_frames: int, spacing_m: float) -> list[Pose]:
    """Poses spacing_m apart along a route that is drawn, headings along it.

    Raises:
        ValueError: No route in the streets is long enough.
    """
    legs = _legs(streets)
    length_m = (num_frames - 1) * spacing_m
    longest_m = 0.0
    starts = sorted(legs)
    for _ in range(_MAX_DRAWS if starts else 0):
        # rounded corners make a route shorter, by less than a quarter
        path = _smoothed(_route(legs, dice.pick(starts), dice, 1.3 * length_m + _TURN_M))
        poses = _poses(path, num_frames, spacing_m)
        if len(poses) == num_frames:
            return poses
        longest_m = max(longest_m, (len(poses) - 1) * spacing_m)
    raise ValueError(
        f"No drawn route is {length_m:.0f} m long ({num_frames} frames, {spacing_m} m apart); the "
        f"longest has {longest_m:.0f} m. Ask for fewer frames or a larger town."
    )


def _legs(streets: Sequence[Street]) -> _Legs:
    """The legs that leave each junction, without those that only lead to dead ends."""
    uses: dict[Point, int] = {}
    for street in streets:
        for k, point in enumerate(street.line):
            uses[point] = uses.get(point, 0) + (1 if 0 < k < len(street.line) - 1 else 2)
    legs: _Legs = {}
    for street in streets:
        stops = [k for k, point in enumerate(street.line) if uses[point] > 1]
        for first, last in itertools.pairwise(stops):
            line = tuple(complex(*point) for point in street.line[first : last + 1])
            start, end = street.line[first], street.line[last]
            legs.setdefault(start, []).append(_Leg(start, end, line, street.width_m))
            if street.tags.get("oneway") != "yes":
                legs.setdefault(end, []).append(_Leg(end, start, line[::-1], street.width_m))
    return _without_dead_ends(legs)


def _without_dead_ends(legs: _Legs) -> _Legs:
    while True:
        kept = {start: [leg for leg in its if _onward(legs, leg)] for start, its in legs.items()}
        kept = {start: its for start, its in kept.items() if its}
        if sum(map(len, kept.values())) == sum(map(len, legs.values())):
            return kept
        legs = kept


def _onward(legs: _Legs, leg: _Leg) -> list[_Leg]:
    """Where a car that arrives on a leg can go: not back, nor around a corner that is too sharp."""
    return [
        after
        for after in legs.get(leg.end, ())
        if not after.is_back_of(leg) and _cosine(leg, after) > _SHARPEST_COSINE
    ]


def _cosine(leg: _Leg, after: _Leg) -> float:
    return dot(unit(leg.line[-1] - leg.line[-2]), unit(after.line[1] - after.line[0]))


def _route(legs: _Legs, start: Point, dice: Dice, length_m: float) -> list[_Leg]:
    """Legs one after the other, rather new ones than known ones."""
    leg = dice.pick(legs[start])
    route, left_m = [leg], length_m - leg.length_m
    driven = {leg.line: 1}
    while left_m > 0:
        onward = _onward(legs, leg)
        if not onward:
            break
        fewest = min(driven.get(after.line, 0) for after in onward)
        fresh = [after for after in onward if driven.get(after.line, 0) == fewest]
        straight = max(fresh, key=lambda after: _cosine(route[-1], after))
        leg = straight if dice.chance(_STRAIGHT_ON) else dice.pick(fresh)
        driven[leg.line] = driven.get(leg.line, 0) + 1
        route.append(leg)
        left_m -= leg.length_m
    return route


def _smoothed(route: Sequence[_Leg]) -> list[tuple[complex, complex]]:
    """(place, unit direction) along a route: densely where it bends, every corner a parabola."""
    corners, widths_m = [route[0].line[0]], [route[0].width_m]
    for leg in route:
        # a car turns within the narrower of two streets
        widths_m[-1] = min(widths_m[-1], leg.width_m)
        corners += leg.line[1:]
        widths_m += [leg.width_m] * (len(leg.line) - 1)
    path: list[tuple[complex, complex]] = []
    here = corners[0]
    for k in range(1, len(corners) - 1):
        before, corner, after = corners[k - 1], corners[k], corners[k + 1]
        arrive, leave = unit(corner - before), unit(after - corner)
        cut_m = min(_TURN_M, _TURN_PER_WIDTH * widths_m[k])
        cut_m = min(cut_m, 0.5 * abs(corner - before), 0.5 * abs(after - corner))
        first, last = corner - cut_m * arrive, corner + cut_m * leave
        if abs(first - here) > 1e-9:
            path.append((here, arrive))
        is_straight = abs(cross(arrive, leave)) < _LEAST_BEND_RAD and dot(arrive, leave) > 0
        count = 1 if is_straight else math.ceil(2 * cut_m / _STEP_M)
        for n in range(count):
            t = n / count
            place = (1 - t) * (1 - t) * first + 2 * t * (1 - t) * corner + t * t * last
            path.append((place, unit((1 - t) * arrive + t * leave)))
        here = last
    along = unit(corners[-1] - corners[-2])
    return [*path, (here, along), (corners[-1], along)]


def _poses(
    path: Sequence[tuple[complex, complex]], num_frames: int, spacing_m: float
) -> list[Pose]:
    """Every spacing_m along the path."""
    poses: list[Pose] = []
    at_m = 0.0
    for (place, along), (after, along_after) in itertools.pairwise(path):
        length_m = abs(after - place)
        while len(poses) < num_frames and len(poses) * spacing_m <= at_m + length_m:
            share = (len(poses) * spacing_m - at_m) / length_m if length_m else 0.0
            spot = place + share * (after - place)
            step = unit((1 - share) * along + share * along_after)
            heading_deg = float(angles.heading_of(step.real, step.imag))
            poses.append(Pose(spot.real, spot.imag, heading_deg))
        at_m += length_m
    return poses
