"""A drive through a made-up town: along connected streets, with smooth turns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossview import angles
from crossview.frames import Pose
from crossview.synthetic.plan import Dice, Point, Street, dot, unit

_STEP_M = 0.5
_NEIGHBOURS = 4
_TURN_M = 9.0
_TURN_PER_WIDTH = 1.4
_MAX_DRAWS = 200
_STRAIGHT_ON = 0.6
_SHARP_SINE = 0.13
"""Of half a turn: 15 degrees."""

_NEAR = 6
"""How many points of a street may lie on the way into a turn."""

_SHARPEST_COSINE = -0.64
"""No car turns by more than 130 degrees at once."""


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
    length_m = (num_frames - 1) * spacing_m
    longest_m = 0.0
    everywhere = _legs(streets)
    # in a small town a drive may have to end where the street does
    for legs in (_without_dead_ends(everywhere), everywhere):
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
    """The legs that leave each junction."""
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
    return legs


def _without_dead_ends(legs: _Legs) -> _Legs:
    """Only the legs from which a drive can go on for ever."""
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


def _smoothed(route: Sequence[_Leg]) -> list[complex]:
    """Places along a route, _STEP_M apart before they are averaged, every corner a parabola."""
    corners, widths_m = [route[0].line[0]], [route[0].width_m]
    for leg in route:
        # a car turns within the narrower of two streets
        widths_m[-1] = min(widths_m[-1], leg.width_m)
        corners += leg.line[1:]
        widths_m += [leg.width_m] * (len(leg.line) - 1)
    corners, widths_m = _eased(corners, widths_m)
    path = [corners[0]]
    for k in range(1, len(corners) - 1):
        before, corner, after = corners[k - 1], corners[k], corners[k + 1]
        cut_m = min(_TURN_M, _TURN_PER_WIDTH * widths_m[k])
        cut_m = min(cut_m, 0.5 * abs(corner - before), 0.5 * abs(after - corner))
        first = corner + cut_m * unit(before - corner)
        last = corner + cut_m * unit(after - corner)
        count = math.ceil(2 * cut_m / _STEP_M)
        path += [
            (1 - t) * (1 - t) * first + 2 * t * (1 - t) * corner + t * t * last
            for t in (n / count for n in range(count + 1))
        ]
    places = [place for place, _ in _spaced([*path, corners[-1]], _STEP_M)]
    return _averaged(_averaged(places))


def _averaged(path: Sequence[complex]) -> list[complex]:
    """Every place as the mean of its neighbours on both sides, which rounds what is still sharp."""
    means = []
    for k in range(len(path)):
        reach = min(_NEIGHBOURS, k, len(path) - 1 - k)
        means.append(sum(path[k - reach : k + reach + 1]) / (2 * reach + 1))
    return means


def _spaced(path: Sequence[complex], spacing_m: float) -> list[tuple[complex, complex]]:
    """(place, direction) every spacing_m along a path, from its start."""
    last = len(path) - 1
    along = [path[min(k + 1, last)] - path[max(k - 1, 0)] for k in range(last + 1)]
    spots: list[tuple[complex, complex]] = []
    at_m = 0.0
    for k, (start, end) in enumerate(itertools.pairwise(path)):
        length_m = abs(end - start)
        while length_m and len(spots) * spacing_m <= at_m + length_m:
            share = (len(spots) * spacing_m - at_m) / length_m
            step = (1 - share) * along[k] + share * along[k + 1]
            spots.append((start + share * (end - start), step))
        at_m += length_m
    return spots


def _eased(
    corners: Sequence[complex], widths_m: Sequence[float]
) -> tuple[list[complex], list[float]]:
    """Without the points of a street that are near to a corner: they would leave no room to turn.

    Where the street bends a little there, the route leaves its centre line by centimetres.
    """
    count = len(corners)
    is_sharp = [
        0 < k < count - 1 and _bend(*corners[k - 1 : k + 2]) > _SHARP_SINE for k in range(count)
    ]
    sharp = [k for k in range(count) if is_sharp[k]]
    near = [
        any(0 < abs(corners[k] - corners[n]) < 2 * _TURN_M and abs(k - n) < _NEAR for n in sharp)
        for k in range(count)
    ]
    kept = [k for k in range(count) if is_sharp[k] or not near[k] or k in (0, count - 1)]
    return [corners[k] for k in kept], [widths_m[k] for k in kept]


def _bend(before: complex, corner: complex, after: complex) -> float:
    """Sine of half the turn at a corner."""
    return abs(unit(after - corner) - unit(corner - before)) / 2


def _poses(path: Sequence[complex], num_frames: int, spacing_m: float) -> list[Pose]:
    """Every spacing_m along a smooth path, headings along it."""
    return [
        Pose(place.real, place.imag, float(angles.heading_of(step.real, step.imag)))
        for place, step in _spaced(path, spacing_m)[:num_frames]
    ]
