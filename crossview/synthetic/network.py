"""The streets of a grown town on the ground: centre lines that share nodes, lots between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossview.synthetic.cells import (
    BORDER,
    Cell,
    Edge,
    clipped,
    middle,
    nearest_on_ring,
)
from crossview.synthetic.names import Names
from crossview.synthetic.patterns import StreetPlan
from crossview.synthetic.plan import (
    Area,
    Dice,
    Line,
    Place,
    Point,
    Street,
    Tags,
    cross,
    direction,
    distance_to_line_m,
    dot,
    to_point,
    to_points,
    unit,
)
from crossview.synthetic.roads import VERGE_M, Road

ROUNDABOUT_RADIUS_M = 11.0
_ROUNDABOUT_WIDTH_M = 5.5
_ROUNDABOUT_ARM_M = 48.0
_ROUNDABOUT_ROOM_M = 26.0
_STEP_M = 14.0
_TOLERANCE_M = 0.5
_BULGE_M = 0.25
_SHORE_M = 0.8
_FAR_M = 9.0
_BORDER_M = 2.0
_CUL_DE_SAC = (32.0, 0.3)
"""Least length, and share of the quiet streets that end in one."""


@dataclass(frozen=True)
class Lot:
    """What is left to build on between the streets around a block.

    Args:
        ring: Convex, counter-clockwise.
        sides: For the edge that starts at each corner, which side of the block it runs along.
        roads: The road of each side; None at the border of the town.
        runs: The edges of each side, (a, b) from corner to corner.
        closeness: 1 in the core of the town, 0 far out.
    """

    ring: tuple[complex, ...]
    sides: tuple[int, ...]
    roads: tuple[Road | None, ...]
    runs: tuple[tuple[Edge, ...], ...]
    closeness: float


@dataclass(frozen=True)
class Arm:
    """A street that leaves a crossing: the edge from its node to another one."""

    node: int
    other: int
    road: Road


class RoadNetwork:
    """The lines of a street plan, bent, named and tagged."""

    def __init__(self, plan: StreetPlan, dice: Dice) -> None:
        self._plan = plan
        self._dice = dice
        self.names = Names(dice)
        self._curves: dict[Edge, list[complex]] = {}
        self._mouths: dict[Edge, list[tuple[float, complex]]] = {}
        self.marks: list[Place] = []
        self.bridges = _shared_edges(plan, plan.reaches)
        _end_some_streets(plan, dice, self.bridges, self.marks)
        _connect(plan)
        self._arms = _arms(plan)
        self.roundabouts = self._choose_roundabouts()
        self._street_names: dict[int, str] = {}
        self._oneway = self._choose_oneway()

    def nodes(self) -> Iterator[tuple[int, list[Arm]]]:
        """Every node with the streets and paths that leave it."""
        yield from self._arms.items()

    def node_at(self, node: int) -> complex:
        """Where a node lies on the ground."""
        return self._plan.bend(self._plan.cells.nodes[node])

    def length_m(self, a: int, b: int) -> float:
        """Of the edge between two nodes."""
        return math.fsum(abs(end - start) for start, end in itertools.pairwise(self.curve(a, b)))

    def curve(self, a: int, b: int) -> list[complex]:
        """An edge's centre line from node a to node b, without the mouths in it."""
        key = (a, b) if a < b else (b, a)
        if key not in self._curves:
            start, end = (self._plan.cells.nodes[node] for node in key)
            count = 1 if self._plan.bend.is_straight else math.ceil(abs(end - start) / _STEP_M)
            self._curves[key] = [
                self._plan.bend(start + k / count * (end - start)) for k in range(count)
            ] + [self._plan.bend(end)]
        return self._curves[key] if a < b else self._curves[key][::-1]

    def mouth(self, a: int, b: int, share: float, tags: Tags | None = None) -> complex:
        """A point on an edge's centre line, which becomes a node of the street.

        Args:
            a: The node that the edge comes from.
            b: The node that it goes to.
            share: Of the way, 0 to 1.
            tags: Of the node.
        """
        if a > b:
            a, b, share = b, a, 1.0 - share
        start, end = self._plan.cells.nodes[a], self._plan.cells.nodes[b]
        place = self._plan.bend(start + share * (end - start))
        self._mouths.setdefault((a, b), []).append((share, place))
        if tags:
            self.marks.append(Place(to_point(place), tags))
        return place

    def mouth_of(self, lot: Lot, side: int, position: complex) -> complex | None:
        """A mouth in the street along a side of a lot, where it is nearest to a position.

        None where that is too near to a crossing, or where no cars come.
        """
        best: tuple[float, int, int, float] | None = None
        for a, b in lot.runs[side]:
            curve = self.curve(a, b)
            for k, (start, end) in enumerate(itertools.pairwise(curve)):
                along = end - start
                t = min(max(dot(position - start, along) / dot(along, along), 0.0), 1.0)
                distance_m = abs(start + t * along - position)
                if best is None or distance_m < best[0]:
                    best = (distance_m, a, b, (k + t) / (len(curve) - 1))
        road = lot.roads[side]
        if best is None or road is None or not road.is_drivable:
            return None
        distance_m, a, b, share = best
        if distance_m > road.half_m + _FAR_M:
            # the edge of the lot cuts a corner, and no street runs along it
            return None
        room = 10.0 / self.length_m(a, b)
        taken = self._mouths.get((min(a, b), max(a, b)), ())
        forward = share if a < b else 1.0 - share
        if not room < share < 1 - room or any(abs(s - forward) < room / 2 for s, _ in taken):
            return None
        return self.mouth(a, b, share)

    def lot(self, cell: Cell) -> Lot | None:
        """The lot of a block; None where the streets around it leave nothing."""
        ring = self._plan.cells.ring(cell)
        runs = self._runs(ring)
        numbers = [self._line(run[0]) for run in runs]
        roads = tuple(None if n == BORDER else self._plan.roads[n] for n in numbers)
        curves = [self._joined(run) for run in runs]
        everything = [place for curve in curves for place in curve]
        corners, labels = _box(everything)
        for side, (curve, road) in enumerate(zip(curves, roads, strict=True)):
            offset_m = (_BORDER_M if road is None else road.half_m) + _BULGE_M
            for origin, along in _supports(curve):
                shifted = origin + offset_m * 1j * along
                corners, labels = clipped(corners, labels, shifted, along, side)
        for place, reach_m in self._keep_outs(ring):
            if len(corners) < 3:
                return None
            nearest = nearest_on_ring(place, corners)
            if abs(nearest - place) < reach_m:
                away = unit(nearest - place)
                k = labels[corners.index(min(corners, key=lambda c: abs(c - place)))]
                corners, labels = clipped(corners, labels, place + reach_m * away, -1j * away, k)
        if len(corners) < 3:
            return None
        near = self._plan.closeness(middle(self._plan.cells.shape(cell)))
        return Lot(tuple(corners), tuple(labels), roads, tuple(map(tuple, runs)), near)

    def streets(self) -> tuple[Street, ...]:
        """All carriageways; where they meet, their lines share a point."""
        streets = []
        for number, path in self._paths():
            road = self._plan.roads[number]
            if road.is_drivable:
                streets += [self._street(number, run) for run in self._pieces(path)]
        return (*streets, *(self._ring_road(node) for node in self.roundabouts))

    def islands(self) -> list[Area]:
        """The green inside of the roundabouts."""
        radius_m = ROUNDABOUT_RADIUS_M - _ROUNDABOUT_WIDTH_M / 2 - 0.5
        return [
            Area(
                to_points(
                    [self.node_at(n) + radius_m * direction(math.pi * k / 8) for k in range(16)]
                ),
                {"landuse": "grass"},
            )
            for n in self.roundabouts
        ]

    def footways(self) -> list[Line]:
        """All lines of the plan that are for walkers or cyclists."""
        lines = []
        for number, path in self._paths():
            if not self._plan.roads[number].is_drivable:
                lines += [
                    Line(to_points(self._trimmed(run)), self._tags(number, run))
                    for run in self._pieces(path)
                ]
        return lines

    def shore(self, cell: Cell) -> list[complex]:
        """The ring of water between the quays around a cell, clear of their walls."""
        ring: list[complex] = []
        for run in self._runs(self._plan.cells.ring(cell)):
            number = self._line(run[0])
            if number != BORDER:
                # a wide street that ends at a narrow quay reaches beyond it
                reach_m = max(self._reach_m(node) for edge in run for node in edge)
                offset_m = max(self._plan.roads[number].half_m, reach_m) + _SHORE_M
                ring += _shifted(self._joined(run), offset_m)
        return ring

    def stream(self, cell: Cell) -> list[complex]:
        """A line through the middle of a cell from border to border."""
        banks = [
            self._joined(run)
            for run in self._runs(self._plan.cells.ring(cell))
            if self._line(run[0]) != BORDER
        ]
        count = 12
        one, other = ([_along(bank, k / count) for k in range(count + 1)] for bank in banks[:2])
        return [(a + b) / 2 for a, b in zip(one, reversed(other), strict=True)]

    def _line(self, edge: Edge) -> int:
        a, b = edge
        return self._plan.cells.line_of[(a, b) if a < b else (b, a)]

    def _runs(self, ring: Sequence[int]) -> list[list[Edge]]:
        """The edges of a ring, one list for each line along it."""
        steps = [(node, ring[(k + 1) % len(ring)]) for k, node in enumerate(ring)]
        first = next(
            k for k in range(len(steps)) if self._line(steps[k - 1]) != self._line(steps[k])
        )
        steps = steps[first:] + steps[:first]
        return [list(run) for _, run in itertools.groupby(steps, key=self._line)]

    def _joined(self, run: Sequence[Edge]) -> list[complex]:
        curve = self.curve(*run[0])
        for edge in run[1:]:
            curve = curve + self.curve(*edge)[1:]
        return curve

    def _keep_outs(self, ring: Sequence[int]) -> Iterator[tuple[complex, float]]:
        """Discs around a block that belong to its crossings and to the streets beyond them.

        A street that leaves a corner at a sharp angle to one of the sides runs close to the block.
        """
        around = set(ring)
        for node in ring:
            yield self.node_at(node), self._reach_m(node)
            for arm in self._arms.get(node, ()):
                if arm.other in around or not arm.road.is_drivable:
                    continue
                curve = self.curve(node, arm.other)
                length_m = math.fsum(abs(b - a) for a, b in itertools.pairwise(curve))
                reach_m = arm.road.width_m / 2 + VERGE_M
                for at_m in range(4, min(int(length_m), 40), 4):
                    yield _along(curve, at_m / length_m), reach_m

    def _reach_m(self, node: int) -> float:
        """How far lots stay away from a node."""
        if node in self.roundabouts:
            return ROUNDABOUT_RADIUS_M + _ROUNDABOUT_WIDTH_M / 2 + 2.5
        widths_m = (arm.road.width_m for arm in self._arms.get(node, ()) if arm.road.is_drivable)
        return max(widths_m, default=0.0) / 2 + VERGE_M

    def _paths(self) -> Iterator[tuple[int, list[int]]]:
        """Every line as lists of nodes, unbroken."""
        by_line: dict[int, dict[int, list[int]]] = {}
        for (a, b), number in self._plan.cells.line_of.items():
            if number != BORDER:
                beside = by_line.setdefault(number, {})
                beside.setdefault(a, []).append(b)
                beside.setdefault(b, []).append(a)
        for number, beside in by_line.items():
            ends = [node for node, others in beside.items() if len(others) == 1]
            seen: set[int] = set()
            for end in ends:
                if end in seen:
                    continue
                path, before = [end], -1
                while True:
                    onward = [node for node in beside[path[-1]] if node != before]
                    if not onward:
                        break
                    before = path[-1]
                    path.append(onward[0])
                seen |= {path[0], path[-1]}
                yield number, path

    def _pieces(self, path: Sequence[int]) -> list[list[int]]:
        """A path cut where a bridge or a roundabout begins or ends."""
        pieces = [[path[0]]]
        was_bridge = None
        for a, b in itertools.pairwise(path):
            is_bridge = ((a, b) if a < b else (b, a)) in self.bridges
            if len(pieces[-1]) > 1 and (is_bridge != was_bridge or a in self.roundabouts):
                pieces.append([a])
            pieces[-1].append(b)
            was_bridge = is_bridge
        return pieces

    def _trimmed(self, run: Sequence[int]) -> list[complex]:
        """The centre line through nodes, with its mouths, up to the roundabouts at its ends."""
        line: list[complex] = []
        for a, b in itertools.pairwise(run):
            line += self._with_mouths(a, b)[1 if line else 0 :]
        if run[0] in self.roundabouts:
            line = _outside(line[::-1], self.node_at(run[0]))[::-1]
        if run[-1] in self.roundabouts:
            line = _outside(line, self.node_at(run[-1]))
        return line

    def _with_mouths(self, a: int, b: int) -> list[complex]:
        key = (a, b) if a < b else (b, a)
        curve = self.curve(*key)
        stops = [(k / (len(curve) - 1), place) for k, place in enumerate(curve)]
        stops = sorted(stops + self._mouths.get(key, []), key=lambda stop: stop[0])
        line = [place for _, place in stops]
        return line if a < b else line[::-1]

    def _street(self, number: int, run: Sequence[int]) -> Street:
        road = self._plan.roads[number]
        tags = self._tags(number, run)
        line = self._trimmed(run)
        if number in self._oneway:
            tags["oneway"] = "yes"
            if tags.get("lanes") == "2":
                tags["lanes"] = "1"
            line = line if self._oneway[number] > 0 else line[::-1]
        return Street(to_points(line), road.width_m, road.sidewalk_m, tags)

    def _tags(self, number: int, run: Sequence[int]) -> dict[str, str]:
        tags = dict(self._plan.roads[number].tags)
        if number not in self._street_names:
            self._street_names[number] = self.names.street(tags["highway"])
        if self._street_names[number]:
            tags["name"] = self._street_names[number]
        if (min(run[:2]), max(run[:2])) in self.bridges:
            tags |= {"bridge": "yes", "layer": "1"}
        return tags

    def _ring_road(self, node: int) -> Street:
        """A roundabout; traffic keeps to the right, so that it runs counter-clockwise."""
        center = self.node_at(node)
        places = []
        for arm in self._arms[node]:
            line = _outside(self._with_mouths(arm.other, node), center)
            places.append(line[-1])
        turns = {_turn(place - center): place for place in places}
        for k in range(16):
            step = direction(2 * math.pi * k / 16)
            if all(abs(step - unit(place - center)) > 0.2 for place in places):
                turns[_turn(step)] = center + ROUNDABOUT_RADIUS_M * step
        line = [turns[turn] for turn in sorted(turns)]
        highway = min((arm.road for arm in self._arms[node]), key=lambda road: road.rank).highway
        tags = {
            "highway": highway,
            "junction": "roundabout",
            "oneway": "yes",
            "lanes": "1",
            "width": f"{_ROUNDABOUT_WIDTH_M:g}",
            "surface": "asphalt",
            "sidewalk": "no",
        }
        return Street(to_points([*line, line[0]]), _ROUNDABOUT_WIDTH_M, 0.0, tags)

    def _choose_roundabouts(self) -> list[int]:
        """A few crossings of larger streets whose arms are long and well apart."""
        candidates = []
        banks = {node for reach in self._plan.reaches for node in self._plan.cells.ring(reach)}
        for node, arms in self._arms.items():
            ranks = sorted(arm.road.rank for arm in arms)
            if not 3 <= len(arms) <= 5 or ranks[-1] > 2 or ranks[2] > 2 or ranks[0] > 1:
                continue
            steps = [unit(self.curve(arm.node, arm.other)[1] - self.node_at(node)) for arm in arms]
            apart = min(abs(a - b) for a, b in itertools.combinations(steps, 2))
            room_m = min(self.length_m(arm.node, arm.other) for arm in arms)
            is_dry = node not in banks
            if apart > 0.95 and room_m > _ROUNDABOUT_ARM_M and is_dry:
                candidates.append(node)
        wanted = round(self._plan.size_m**2 / 350_000.0)
        roomy = (node for node in self._dice.shuffled(candidates) if self._is_roomy(node))
        return list(itertools.islice(roomy, wanted))

    def _is_roomy(self, node: int) -> bool:
        """Whether no street passes near to a crossing that does not lead there."""
        center = self.node_at(node)
        return all(
            node in (a, b)
            or distance_to_line_m(center, [(z.real, z.imag) for z in self.curve(a, b)])
            > _ROUNDABOUT_ROOM_M
            for a, b in self._plan.cells.line_of
        )

    def _choose_oneway(self) -> Mapping[int, int]:
        """Quiet streets that cars can go around, 1 or -1 for the direction of their path."""
        onward: dict[int, set[int]] = {node: set() for node in self._arms}
        for node, arms in self._arms.items():
            onward[node] |= {arm.other for arm in arms if arm.road.is_drivable}
        chosen: dict[int, int] = {}
        paths: dict[int, list[list[int]]] = {}
        for number, path in self._paths():
            paths.setdefault(number, []).append(path)
        for number, its_paths in paths.items():
            road = self._plan.roads[number]
            path = its_paths[0]
            if not road.wants_oneway or len(its_paths) > 1:
                continue
            if any(node in self.roundabouts for node in path):
                continue
            if self._dice.chance(0.5):
                path = path[::-1]
            steps = list(itertools.pairwise(path))
            for a, b in steps:
                onward[b].discard(a)
            if all(_leads(onward, b, a) for a, b in steps):
                chosen[number] = 1 if path is its_paths[0] else -1
            else:
                for a, b in steps:
                    onward[b].add(a)
        return chosen


def _arms(plan: StreetPlan) -> dict[int, list[Arm]]:
    arms: dict[int, list[Arm]] = {}
    for (a, b), number in plan.cells.line_of.items():
        if number != BORDER:
            road = plan.roads[number]
            arms.setdefault(a, []).append(Arm(a, b, road))
            arms.setdefault(b, []).append(Arm(b, a, road))
    return arms


def _shared_edges(plan: StreetPlan, cells: Iterable[Cell]) -> frozenset[Edge]:
    """The edges between two of the cells."""
    seen: set[Edge] = set()
    shared: set[Edge] = set()
    for cell in cells:
        ring = plan.cells.ring(cell)
        for k, node in enumerate(ring):
            edge = min(node, ring[k - 1]), max(node, ring[k - 1])
            (shared if edge in seen else seen).add(edge)
    return frozenset(shared)


def _end_some_streets(
    plan: StreetPlan, dice: Dice, bridges: frozenset[Edge], marks: list[Place]
) -> None:
    """Turn the far end of some quiet streets into a footway, so that cars find a dead end."""
    degree: dict[int, int] = {}
    pieces: dict[int, list[Edge]] = {}
    for edge, number in plan.cells.line_of.items():
        if number != BORDER:
            pieces.setdefault(number, []).append(edge)
        for node in edge:
            degree[node] = degree.get(node, 0) + 1
    least_m, share_of_streets = _CUL_DE_SAC
    for number, its_edges in list(pieces.items()):
        road = plan.roads[number]
        a, b = its_edges[0]
        if len(its_edges) > 1 or its_edges[0] in bridges or not road.is_drivable:
            continue
        length_m = abs(plan.cells.nodes[b] - plan.cells.nodes[a])
        is_quiet = road.rank >= 2 and length_m > 2 * least_m and min(degree[a], degree[b]) > 2
        if not is_quiet or not dice.chance(share_of_streets):
            continue
        if dice.chance(0.5):
            a, b = b, a
        node = plan.cells.split(a, b, dice.between(0.5, 1.0 - least_m / 2 / length_m))
        footway = plan.road("footway")
        plan.cells.line_of[min(node, b), max(node, b)] = footway
        place = to_point(plan.bend(plan.cells.nodes[node]))
        marks.append(Place(place, {"highway": "turning_circle"}))


def _connect(plan: StreetPlan) -> None:
    """Open footways to cars, and close streets that nothing leads to, until all are connected."""
    by_line: dict[int, list[Edge]] = {}
    for edge, number in plan.cells.line_of.items():
        if number != BORDER:
            by_line.setdefault(number, []).append(edge)
    while True:
        part = _parts(plan)
        if len(set(part.values())) <= 1:
            return
        joining = next(
            (
                number
                for number, its_edges in by_line.items()
                if not plan.roads[number].is_drivable
                and len({part[node] for edge in its_edges for node in edge if node in part}) > 1
            ),
            None,
        )
        if joining is None:
            break
        plan.roads[joining] = plan.makers.road("living_street")
    sizes: dict[int, int] = {}
    for root in part.values():
        sizes[root] = sizes.get(root, 0) + 1
    largest = max(sizes, key=lambda root: sizes[root])
    for (a, b), number in list(plan.cells.line_of.items()):
        if number != BORDER and plan.roads[number].is_drivable and part[a] != largest:
            plan.cells.line_of[a, b] = plan.road("pedestrian")


def _parts(plan: StreetPlan) -> dict[int, int]:
    """For every node that cars reach, one node of the part of the network that it belongs to."""
    above: dict[int, int] = {}

    def root(node: int) -> int:
        while above.setdefault(node, node) != node:
            above[node] = above[above[node]]
            node = above[node]
        return node

    for (a, b), number in plan.cells.line_of.items():
        if number != BORDER and plan.roads[number].is_drivable:
            above[root(a)] = root(b)
    return {node: root(node) for node in list(above)}


def _leads(onward: Mapping[int, set[int]], start: int, goal: int) -> bool:
    """Whether a way leads from one node to another."""
    reached, waiting = {start}, [start]
    while waiting:
        following = []
        for node in waiting:
            if goal in onward[node]:
                return True
            fresh = onward[node] - reached
            reached |= fresh
            following += sorted(fresh)
        waiting = following
    return False


def _box(places: Sequence[complex]) -> tuple[list[complex], list[int]]:
    """A ring around places."""
    west, east = min(p.real for p in places), max(p.real for p in places)
    south, north = min(p.imag for p in places), max(p.imag for p in places)
    ring = [complex(x, y) for x, y in ((west, south), (east, south), (east, north), (west, north))]
    return ring, [0] * 4


def _supports(curve: Sequence[complex]) -> list[tuple[complex, complex]]:
    """Lines, as (point, unit direction), with a whole curve to the right of each or on it.

    Where the curve bends to the left all along, one line for each piece of it that is nearly
    straight; where it bends to the right, one for all.
    """
    kept = _simplified(curve)
    turns = [cross(kept[k] - kept[k - 1], kept[k + 1] - kept[k]) for k in range(1, len(kept) - 1)]
    if any(turn < 0 for turn in turns):
        kept = [curve[0], curve[-1]]
    lines = []
    for start, end in itertools.pairwise(kept):
        along = unit(end - start)
        # of the pieces of a curve to the left, the others lie to the left of each: only its own
        first, last = curve.index(start), curve.index(end)
        bulge_m = max(cross(along, place - start) for place in curve[first : last + 1])
        lines.append((start + bulge_m * 1j * along, along))
    return lines


def _simplified(curve: Sequence[complex]) -> list[complex]:
    """A curve without the points that lie within the tolerance of its chords (Douglas-Peucker)."""
    start, end = curve[0], curve[-1]
    if len(curve) == 2:
        return [start, end]
    along = unit(end - start)
    off_m = [abs(cross(along, place - start)) for place in curve]
    far = max(range(len(curve)), key=lambda k: off_m[k])
    if off_m[far] <= _TOLERANCE_M:
        return [start, end]
    return _simplified(curve[: far + 1])[:-1] + _simplified(curve[far:])


def _shifted(curve: Sequence[complex], offset_m: float) -> list[complex]:
    """A curve moved to its left."""
    places = []
    for k, place in enumerate(curve):
        before, after = curve[max(k - 1, 0)], curve[min(k + 1, len(curve) - 1)]
        places.append(place + offset_m * 1j * unit(after - before))
    return places


def _outside(line: Sequence[complex], center: complex) -> list[complex]:
    """A line that ends at a roundabout's middle, up to where it meets the roundabout."""
    k = len(line) - 1
    while abs(line[k - 1] - center) < ROUNDABOUT_RADIUS_M:
        k -= 1
    start, end = line[k - 1], line[k]
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        if abs(start + share * (end - start) - center) > ROUNDABOUT_RADIUS_M:
            low = share
        else:
            high = share
    return [*line[:k], start + high * (end - start)]


def _turn(step: complex) -> float:
    """A number that grows with the direction of a step, counter-clockwise from west."""
    x = step.real / (abs(step.real) + abs(step.imag))
    return x - 1.0 if step.imag < 0 else 1.0 - x


def _along(curve: Sequence[complex], share: float) -> complex:
    """The place at a share of the points of a curve."""
    at = share * (len(curve) - 1)
    k = min(int(at), len(curve) - 2)
    return curve[k] + (at - k) * (curve[k + 1] - curve[k])


def points_of(ring: Iterable[complex]) -> tuple[Point, ...]:
    """A closed ring's points, the first one once."""
    points = to_points(list(ring))
    return points[:-1] if points[0] == points[-1] else points
