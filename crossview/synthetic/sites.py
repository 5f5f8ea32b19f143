"""A lot while it is being built on: what stands there, and whether there is room for more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from crossview.synthetic.cells import middle, shrunk
from crossview.synthetic.lots import TREE_GAP_M, WALL_GAP_M, Drawing, Front
from crossview.synthetic.network import Lot, RoadNetwork
from crossview.synthetic.plan import (
    Area,
    Dice,
    Line,
    Place,
    Tags,
    are_apart,
    clearance_m,
    cross,
    dot,
    edges,
    to_point,
    to_points,
    unit,
)
from crossview.synthetic.town_buildings import BuildingMaker, Footprint

_OPENING_M = 6.0


@dataclass(frozen=True)
class Solid:
    """A convex ring that nothing else may stand on, with a circle around it."""

    ring: tuple[complex, ...]
    center: complex
    radius_m: float

    @classmethod
    def around(cls, ring: Sequence[complex]) -> Solid:
        """The solid of a ring."""
        center = middle(ring)
        return cls(tuple(ring), center, max(abs(corner - center) for corner in ring))


@dataclass
class Site:
    """A lot with what stands on it so far.

    Args:
        lot: Where it is.
        dice: For everything on it.
        network: Of the streets around.
        maker: Of the tags of buildings.
        drawing: Where things are added.
    """

    lot: Lot
    dice: Dice
    network: RoadNetwork
    maker: BuildingMaker
    drawing: Drawing = field(default_factory=Drawing)

    def __post_init__(self) -> None:
        self._walls: list[Solid] = []
        self._grounds: list[Solid] = []
        self._trees: list[tuple[complex, float]] = []
        self.openings: list[complex] = []

    @property
    def ring(self) -> Sequence[complex]:
        """Of the lot."""
        return self.lot.ring

    def fronts(self, setback_m: float = 0.0) -> list[tuple[Front, int]]:
        """The edges along streets that cars or walkers use, and their sides of the block.

        Args:
            setback_m: How far behind the lot's edges.
        """
        ring = self.ring
        fronts = []
        for k, (start, end) in enumerate(edges(ring)):
            side = self.lot.sides[k]
            if self.lot.roads[side] is not None and abs(end - start) > 8.0:
                shift = setback_m * 1j * unit(end - start)
                fronts.append((Front(start + shift, end + shift), side))
        return fronts

    def longest_front(self) -> tuple[Front, int] | None:
        """The longest edge along a street."""
        return max(self.fronts(), key=lambda front: front[0].length_m, default=None)

    def has_room(
        self,
        parts: Iterable[Sequence[complex]],
        *,
        margin_m: float = 0.0,
        gap_m: float = WALL_GAP_M,
    ) -> bool:
        """Whether convex parts fit on the lot, margin_m from its edges, clear of all others."""
        for part in parts:
            if any(clearance_m(corner, self.ring) > 1e-6 - margin_m for corner in part):
                return False
            here = Solid.around(part)
            for other in (*self._walls, *self._grounds):
                reach_m = here.radius_m + other.radius_m + gap_m
                if abs(here.center - other.center) < reach_m and not are_apart(
                    part, other.ring, gap_m
                ):
                    return False
            if any(clearance_m(tree, part) < crown_m + TREE_GAP_M for tree, crown_m in self._trees):
                return False
        return True

    def build(self, footprint: Footprint, tags: Tags) -> None:
        """Add a building."""
        self.drawing.buildings.append(Area(to_points(footprint.ring), tags))
        self.occupy(footprint.parts)

    def occupy(self, parts: Iterable[Sequence[complex]]) -> None:
        """Say that walls stand here."""
        for part in parts:
            self._walls.append(Solid.around(part))
            self.drawing.walls.append(list(part))

    def clear(self, part: Sequence[complex]) -> None:
        """Say that the ground is taken: no building, no tree."""
        self._grounds.append(Solid.around(part))
        self.drawing.clearings.append(list(part))

    def cover(self, ring: Sequence[complex], tags: Tags) -> None:
        """Add a ground area."""
        self.drawing.areas.append(Area(to_points(ring), tags))

    def place(self, position: complex, tags: Tags) -> None:
        """Add a thing that stands at a point."""
        self.drawing.places.append(Place(to_point(position), tags))

    def is_free(self, position: complex, gap_m: float) -> bool:
        """Whether a place on the lot is this far from walls and from ground that is taken."""
        return all(
            abs(solid.center - position) > solid.radius_m + gap_m
            or clearance_m(position, solid.ring) > gap_m
            for solid in (*self._walls, *self._grounds)
        )

    def draw_line(
        self, line: Sequence[complex], tags: Tags, *, gates: Sequence[complex] = ()
    ) -> None:
        """Add a fence, a hedge or a wall; its gates are points of the line."""
        self.drawing.lines.append(Line(to_points(line), tags))
        for gate in gates:
            kind = "gate" if self.dice.chance(0.8) else "entrance"
            self.network.marks.append(Place(to_point(gate), {"barrier": kind}))

    def walk(self, line: Sequence[complex], tags: Tags, *, half_m: float = 1.25) -> None:
        """Add a path, and keep trees off it."""
        self.drawing.lines.append(Line(to_points(line), tags))
        for start, end in itertools.pairwise(line):
            if abs(end - start) < 0.1:
                continue
            side = half_m * 1j * unit(end - start)
            self.clear([start - side, end - side, end + side, start + side])

    def plant(self, position: complex, *, crown_m: float, height_m: float) -> bool:
        """Add a tree unless something is too near: walls, taken ground or another tree."""
        if clearance_m(position, self.ring) > -1.2:
            return False
        if not self.is_free(position, crown_m + TREE_GAP_M):
            return False
        if any(
            abs(place - position) < 0.75 * (crown_m + other_m) for place, other_m in self._trees
        ):
            return False
        self._trees.append((position, crown_m))
        self.place(position, tree_tags(self.dice, crown_m, height_m))
        return True

    def scatter_trees(self, per_hectare: float, *, crown_m: tuple[float, float]) -> None:
        """Plant trees anywhere on the lot."""
        west, east = min(z.real for z in self.ring), max(z.real for z in self.ring)
        south, north = min(z.imag for z in self.ring), max(z.imag for z in self.ring)
        count = int((east - west) * (north - south) / 10_000.0 * per_hectare)
        for _ in range(count):
            place = complex(self.dice.between(west, east), self.dice.between(south, north))
            crown = self.dice.between(*crown_m)
            self.plant(place, crown_m=crown, height_m=crown * self.dice.between(2.4, 3.6))

    def enclose(self, kind: str) -> None:
        """A fence, hedge or wall around the lot, a little inside.

        It is open where a way for cars leads in, and has a gate on every other long street.
        """
        inner = shrunk(self.ring, 0.4)
        if not inner:
            return
        tags = {"barrier": kind, **self.barrier_tags(kind)}
        pieces: list[list[complex]] = [[]]
        gates: list[complex] = []
        for start, end in edges(inner):
            pieces[-1].append(start)
            along = unit(end - start)
            length_m = abs(end - start)
            openings = [
                dot(along, z - start)
                for z in self.openings
                if abs(cross(along, z - start)) < 1.0 and 0 < dot(along, z - start) < length_m
            ]
            for at_m in openings[:1]:
                pieces[-1].append(start + max(at_m - _OPENING_M / 2, 0.1) * along)
                pieces.append([start + min(at_m + _OPENING_M / 2, length_m - 0.1) * along])
            if not openings and length_m > 20.0 and self._faces_street(start, end):
                gates.append(start + self.dice.between(0.3, 0.7) * (end - start))
                pieces[-1].append(gates[-1])
        pieces[0] = pieces.pop() + pieces[0] if len(pieces) > 1 else [*pieces[0], pieces[0][0]]
        for piece in pieces:
            self.draw_line(piece, tags, gates=[gate for gate in gates if gate in piece])

    def barrier_tags(self, kind: str) -> dict[str, str]:
        """The height of a barrier, which one map in two tells."""
        low, high = {"hedge": (1.2, 1.9), "wall": (0.9, 2.0)}.get(kind, (0.9, 1.6))
        height_m = self.dice.between(low, high)
        return {"height": f"{height_m:.1f}"} if self.dice.chance(0.5) else {}

    def _faces_street(self, start: complex, end: complex) -> bool:
        center = (start + end) / 2
        return any(
            0 < dot(center - front.start, front.end - front.start) < front.length_m**2
            and abs(cross(unit(front.end - front.start), center - front.start)) < 1.0
            for front, _ in self.fronts()
        )


def tree_tags(dice: Dice, crown_m: float, height_m: float) -> dict[str, str]:
    """A tree, as far as a map tells: two in three say more than that it is one."""
    tags = {"natural": "tree"}
    if dice.chance(0.6):
        tags["leaf_type"] = "needleleaved" if dice.chance(0.15) else "broadleaved"
    if dice.chance(0.65):
        tags["height"] = f"{height_m:.1f}"
    # a crown that is not told would be taken for the usual one, which may be wider than the room
    tags["diameter_crown"] = f"{math.floor(20 * crown_m) / 10:.1f}"
    return tags
