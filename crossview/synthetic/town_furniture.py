"""What stands along the streets of a grown town: crossings, signals, stops, lamps and trees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crossview.synthetic.cells import Buckets
from crossview.synthetic.network import ROUNDABOUT_RADIUS_M, Arm, RoadNetwork
from crossview.synthetic.plan import (
    Dice,
    Line,
    Place,
    Street,
    Tags,
    clearance_m,
    dot,
    to_point,
    to_points,
)
from crossview.synthetic.sites import tree_tags

_CROSSING_SHARE = (0.85, 0.7, 0.3, 0.0, 0.0)
"""Of the arms of crossings, by the rank of their road."""

_CROSSING_ARM_M = 34.0


def mark_crossings(network: RoadNetwork, dice: Dice) -> None:
    """Signals, zebras and signs, as nodes of the streets: before their lines are drawn."""
    for node, arms in network.nodes():
        driven = [arm for arm in arms if arm.road.is_drivable]
        if len(driven) < 3:
            continue
        ranks = sorted(arm.road.rank for arm in driven)
        is_round = node in network.roundabouts
        has_signals = not is_round and ranks[:3] in ([0, 0, 0], [0, 0, 1], [0, 1, 1])
        has_signals = has_signals and ranks[-1] < 3 and dice.chance(0.75)
        if has_signals:
            place = to_point(network.node_at(node))
            network.marks.append(Place(place, {"highway": "traffic_signals"}))
        for arm in driven:
            others_m = max(o.road.half_m for o in driven if o is not arm)
            back_m = max(others_m, ROUNDABOUT_RADIUS_M + 4.0 if is_round else 0.0) + 2.5
            _mark_arm(network, dice, arm, back_m, ranks, has_signals=has_signals)


def _mark_arm(
    network: RoadNetwork,
    dice: Dice,
    arm: Arm,
    back_m: float,
    ranks: Sequence[int],
    *,
    has_signals: bool,
) -> None:
    """A crossing, or else a sign, on one arm of a junction."""
    length_m = network.length_m(arm.node, arm.other)
    edge = (min(arm.node, arm.other), max(arm.node, arm.other))
    if length_m < _CROSSING_ARM_M + back_m or edge in network.bridges:
        return
    share = back_m / length_m
    if arm.road.sidewalk_m and (has_signals or dice.chance(_CROSSING_SHARE[arm.road.rank])):
        tags = {"highway": "crossing"}
        kind = "traffic_signals" if has_signals else dice.pick(("uncontrolled", "marked"))
        tags["crossing"] = kind
        if dice.chance(0.8):
            tags["crossing:markings"] = "zebra" if dice.chance(0.9) else "lines"
        if dice.chance(0.3):
            tags["tactile_paving"] = dice.pick(("yes", "no"))
        network.mouth(arm.node, arm.other, share, tags)
    elif arm.road.rank > ranks[0] and not has_signals and dice.chance(0.4):
        sign = dice.pick(("give_way", "give_way", "stop"))
        direction = "backward" if arm.node < arm.other else "forward"
        network.mouth(arm.node, arm.other, share, {"highway": sign, "direction": direction})


@dataclass(frozen=True)
class _Strip:
    start: complex
    end: complex
    half_m: float


class StreetSide:
    """Where there is room beside carriageways: clear of all of them, of walls and of water."""

    def __init__(
        self, streets: Iterable[Street], ways: Iterable[Line], walls: Iterable[Sequence[complex]]
    ) -> None:
        self._strips: Buckets[_Strip] = Buckets()
        self._walls: Buckets[Sequence[complex]] = Buckets()
        self._taken: Buckets[tuple[complex, float]] = Buckets()
        for street in streets:
            self._pave(street.line, street.width_m / 2)
        for way in ways:
            if "highway" in way.tags:
                self._pave(way.line, 1.75 if way.tags["highway"] == "service" else 1.25)
        for wall in walls:
            self._walls.add(wall, wall, 4.0)

    def is_free(self, place: complex, *, road_gap_m: float, wall_gap_m: float) -> bool:
        """Whether a place keeps these distances from carriageways and walls."""
        for strip in self._strips.at(place):
            along = strip.end - strip.start
            share = min(max(dot(place - strip.start, along) / dot(along, along), 0.0), 1.0)
            if abs(place - strip.start - share * along) < strip.half_m + road_gap_m:
                return False
        return not any(clearance_m(place, wall) < wall_gap_m for wall in self._walls.at(place))

    def take(self, place: complex, radius_m: float) -> bool:
        """Claim a disc, unless another one is there."""
        for other, other_m in self._taken.at(place):
            if abs(other - place) < radius_m + other_m:
                return False
        self._taken.add((place, radius_m), [place], radius_m + 4.0)
        return True

    def _pave(self, line: Sequence[tuple[float, float]], half_m: float) -> None:
        for start, end in itertools.pairwise(line):
            strip = _Strip(complex(*start), complex(*end), half_m)
            self._strips.add(strip, [strip.start, strip.end], half_m + 4.0)


@dataclass
class Furniture:
    """Places and lines along the streets."""

    places: list[Place]
    lines: list[Line]
    marks: list[Place]


def furnish(
    streets: Sequence[Street], side: StreetSide, network: RoadNetwork, dice: Dice
) -> Furniture:
    """Bus stops, trees, lamps and small things along streets with sidewalks."""
    out = Furniture([], [], [])
    maps_lamps, maps_rows = dice.between(0.2, 1.0), dice.between(0.0, 0.4)
    for street in streets:
        if street.tags.get("bridge") or street.tags.get("junction"):
            continue
        if street.tags["highway"] in ("secondary", "tertiary") and dice.chance(0.7):
            _bus_stops(street, side, network, dice, out)
        has_trees = street.sidewalk_m >= 2.5 and dice.chance(0.7)
        for sign in (-1, 1):
            if street.sidewalk_m and dice.chance(maps_lamps):
                _lamps(street, sign, side, dice, out)
            if has_trees and dice.chance(0.8):
                _trees(street, sign, side, dice, out, as_row=dice.chance(maps_rows))
        _small_things(street, side, dice, out)
    return out


def _stations(street: Street, first_m: float, step_m: float) -> list[tuple[complex, complex]]:
    """(place, unit direction) along a street's centre line, every step_m."""
    stops = []
    left_m = first_m
    for start, end in itertools.pairwise(street.line):
        a, b = complex(*start), complex(*end)
        length_m = abs(b - a)
        along = (b - a) / length_m
        while left_m < length_m:
            stops.append((a + left_m * along, along))
            left_m += step_m
        left_m -= length_m
    return stops


def _lamps(street: Street, sign: int, side: StreetSide, dice: Dice, out: Furniture) -> None:
    offset_m = street.width_m / 2 + 0.5
    for place, along in _stations(street, dice.between(5.0, 20.0), dice.between(26.0, 38.0)):
        lamp = place + sign * offset_m * 1j * along
        if side.is_free(lamp, road_gap_m=0.3, wall_gap_m=0.4) and side.take(lamp, 0.4):
            tags = {"highway": "street_lamp"}
            if dice.chance(0.2):
                tags["lamp_mount"] = "straight_mast"
            out.places.append(Place(to_point(lamp), tags))


def _trees(
    street: Street, sign: int, side: StreetSide, dice: Dice, out: Furniture, *, as_row: bool
) -> None:
    """Trees at the kerb; some maps draw a line of them as one row."""
    crown_m = dice.between(1.1, min(2.0, street.sidewalk_m - 1.5 + 0.35))
    offset_m = street.width_m / 2 + 1.0
    row: list[complex] = []
    step_m = 5.0 if as_row else dice.between(8.0, 14.0)
    for place, along in _stations(street, dice.between(4.0, 12.0), step_m):
        tree = place + sign * offset_m * 1j * along
        is_free = side.is_free(tree, road_gap_m=0.6, wall_gap_m=crown_m + 0.45)
        if not as_row:
            if is_free and dice.chance(0.92) and side.take(tree, 1.0):
                height_m = crown_m * dice.between(3.0, 4.2)
                out.places.append(Place(to_point(tree), tree_tags(dice, crown_m, height_m)))
            continue
        # a way into a car park may lead through between two trees
        is_open = row and not side.is_free((row[-1] + tree) / 2, road_gap_m=0.6, wall_gap_m=1.0)
        has_room = is_free and side.take(tree, 0.8)
        if is_open or not has_room:
            _finish_row(row, out)
            row = []
        if has_room:
            row.append(tree)
    _finish_row(row, out)


def _finish_row(row: Sequence[complex], out: Furniture) -> None:
    if len(row) > 3:
        out.lines.append(Line(to_points(row), {"natural": "tree_row"}))


def _bus_stops(
    street: Street, side: StreetSide, network: RoadNetwork, dice: Dice, out: Furniture
) -> None:
    """A pair of stops now and then, each at the right-hand kerb."""
    for place, along in _stations(street, dice.between(40.0, 120.0), dice.between(260.0, 420.0)):
        name = network.names.of_something("Cross")
        for sign in (-1, 1):
            spot = place - sign * 12.0 * along + sign * (street.width_m / 2 + 0.9) * 1j * along
            if not side.is_free(spot, road_gap_m=0.5, wall_gap_m=0.5) or not side.take(spot, 1.5):
                continue
            tags = {"highway": "bus_stop", "name": name}
            if dice.chance(0.7):
                tags |= {"public_transport": "platform", "bus": "yes"}
            tags |= {"shelter": "yes"} if dice.chance(0.5) else {}
            out.places.append(Place(to_point(spot), tags))


_SMALL: tuple[Tags, ...] = (
    {"amenity": "bench"},
    {"amenity": "waste_basket"},
    {"amenity": "bicycle_parking"},
    {"amenity": "post_box"},
    {"emergency": "fire_hydrant"},
    {"man_made": "street_cabinet"},
    {"amenity": "recycling"},
    {"amenity": "vending_machine"},
    {"advertising": "column"},
)


def _small_things(street: Street, side: StreetSide, dice: Dice, out: Furniture) -> None:
    """Benches, bins, boxes on the sidewalk, and bollards where a quiet street begins."""
    if street.tags["highway"] == "living_street":
        place, along = _stations(street, 9.0, 1e6)[0] if _length_m(street) > 20 else (0j, 0j)
        for sign in (-1, 1):
            post = place + sign * (street.width_m / 2 + 0.3) * 1j * along
            if along and side.is_free(post, road_gap_m=0.1, wall_gap_m=0.1):
                out.places.append(Place(to_point(post), {"barrier": "bollard"}))
    if street.sidewalk_m < 1.5:
        return
    for place, along in _stations(street, dice.between(10.0, 80.0), dice.between(60.0, 140.0)):
        sign = 1 if dice.chance(0.5) else -1
        spot = place + sign * (street.width_m / 2 + street.sidewalk_m - 0.5) * 1j * along
        if side.is_free(spot, road_gap_m=0.6, wall_gap_m=0.3) and side.take(spot, 0.6):
            out.places.append(Place(to_point(spot), dice.pick(_SMALL)))


def _length_m(street: Street) -> float:
    points = [complex(*point) for point in street.line]
    return math.fsum(abs(b - a) for a, b in itertools.pairwise(points))


def bollards(footways: Sequence[Line], dice: Dice) -> list[Place]:
    """A bollard at the mouth of some footways: a node of theirs, not the one on the street."""
    return [
        Place(line.line[1], {"barrier": "bollard"})
        for line in footways
        if len(line.line) > 3 and dice.chance(0.3)
    ]
