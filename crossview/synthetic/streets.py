"""The streets of a made-up town: a jittered lattice, lanes that split blocks, and the blocks."""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossview.synthetic.plan import Dice, Street, edges, inset, to_points

BLOCKS_PER_SIDE = 5

_SIDE_M = 370.0
_BLOCK_SHARES = (0.75, 1.3)
_CROSSING_JITTER_M = 8.0
_TURN_DEG = (6.0, 24.0)
_VERGE_M = 0.7
"""Least distance from a carriageway to the lots, where there is no sidewalk."""

_NAMES = (
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
)
_LANE_NAMES = ("Cat Lane", "Rope Walk", "Well Lane", "Salt Lane", "Thimble Lane", "Goose Lane")


@dataclass(frozen=True)
class StreetKind:
    """What a street is like along its whole length."""

    highway: str
    name: str
    width_m: float
    sidewalk_m: float

    @property
    def half_m(self) -> float:
        """From the centre line to the lots."""
        return self.width_m / 2 + max(self.sidewalk_m, _VERGE_M)

    def along(self, line: Sequence[complex]) -> Street:
        """The street on the ground."""
        tags = {
            "highway": self.highway,
            "name": self.name,
            "surface": "asphalt" if self.sidewalk_m else "sett",
            "width": f"{self.width_m:g}",
        }
        if self.highway != "living_street":
            tags["lanes"] = "2" if self.width_m >= 5.5 else "1"
        if self.sidewalk_m:
            tags |= {"sidewalk": "both", "sidewalk:both:width": f"{self.sidewalk_m:g}"}
        else:
            tags["sidewalk"] = "no"
        return Street(to_points(line), self.width_m, self.sidewalk_m, tags)


@dataclass(frozen=True)
class Block:
    """A convex quadrilateral between centre lines, counter-clockwise.

    Args:
        corners: Where the centre lines cross.
        streets: The street along the edge from corner k to corner k + 1.
    """

    corners: tuple[complex, ...]
    streets: tuple[StreetKind, ...]

    @property
    def longest_edge_m(self) -> float:
        """Between the centre lines."""
        return max(abs(end - start) for start, end in edges(self.corners))

    def lot(self, setback_m: float = 0.0) -> list[complex]:
        """The ring that is left behind the sidewalks, less a setback."""
        ring = inset(self.corners, [street.half_m + setback_m for street in self.streets])
        if ring is None:
            raise RuntimeError(f"{self} is narrower than its streets; the lattice is too jittery.")
        return ring


class StreetNetwork:
    """A jittered lattice of streets: crossings[i][j], i counted to the east, j to the north."""

    def __init__(self, dice: Dice) -> None:
        turn = cmath.rect(1.0, math.radians(dice.between(*_TURN_DEG)))
        columns, rows = _lattice_lines_m(dice), _lattice_lines_m(dice)
        self.crossings = [
            [turn * (complex(x_m, y_m) + _jitter(dice)) for y_m in rows] for x_m in columns
        ]
        kinds = _street_kinds(dice)
        self._northward, self._eastward = kinds[: len(columns)], kinds[len(columns) :]
        self._lane_names = dice.shuffled(_LANE_NAMES)
        self._lanes: list[tuple[StreetKind, complex, complex]] = []
        self._mouths: dict[tuple[complex, complex], list[tuple[float, complex]]] = {}

    def block(self, i: int, j: int) -> Block:
        """The block east of lattice column i and north of lattice row j."""
        at = self.crossings
        return Block(
            (at[i][j], at[i + 1][j], at[i + 1][j + 1], at[i][j + 1]),
            (self._eastward[j], self._northward[i + 1], self._eastward[j + 1], self._northward[i]),
        )

    def split(self, block: Block, dice: Dice) -> tuple[Block, Block]:
        """Two blocks with a new lane between them, which opens into the two longer edges."""
        a, b, c, d = block.corners
        south, east, north, west = block.streets
        if abs(b - a) + abs(d - c) < abs(c - b) + abs(a - d):
            a, b, c, d = b, c, d, a
            south, east, north, west = east, north, west, south
        share_south, share_north = dice.between(0.42, 0.58), dice.between(0.42, 0.58)
        start, end = a + share_south * (b - a), d + share_north * (c - d)
        lane = StreetKind(
            highway=dice.pick(("living_street", "service")),
            name=self._lane_names[len(self._lanes) % len(self._lane_names)],
            width_m=dice.pick((3.5, 4.0, 4.5)),
            sidewalk_m=0.0,
        )
        self._lanes.append((lane, start, end))
        self._open(a, b, share_south, start)
        self._open(d, c, share_north, end)
        return (
            Block((a, start, end, d), (south, lane, north, west)),
            Block((start, b, c, end), (south, east, north, lane)),
        )

    def streets(self) -> tuple[Street, ...]:
        """All streets; where they meet, their lines share a point."""
        columns, rows = self.crossings, list(zip(*self.crossings, strict=True))
        lattice = [
            *zip(self._northward, columns, strict=True),
            *zip(self._eastward, rows, strict=True),
        ]
        return (
            *(kind.along(self._with_mouths(line)) for kind, line in lattice),
            *(lane.along([start, end]) for lane, start, end in self._lanes),
        )

    def _open(self, start: complex, end: complex, share: float, mouth: complex) -> None:
        """Remember a lane's mouth on the lattice edge that it opens into."""
        self._mouths.setdefault((start, end), []).append((share, mouth))
        self._mouths.setdefault((end, start), []).append((1.0 - share, mouth))

    def _with_mouths(self, line: Sequence[complex]) -> list[complex]:
        vertices = [line[0]]
        for start, end in itertools.pairwise(line):
            mouths = sorted(self._mouths.get((start, end), []), key=lambda mouth: mouth[0])
            vertices += [mouth for _, mouth in mouths]
            vertices.append(end)
        return vertices


def _lattice_lines_m(dice: Dice) -> list[float]:
    """Where the lattice lines run, centred on 0."""
    shares = [dice.between(*_BLOCK_SHARES) for _ in range(BLOCKS_PER_SIDE)]
    lines_m = [-_SIDE_M / 2]
    for share in shares:
        lines_m.append(lines_m[-1] + _SIDE_M * share / sum(shares))
    return lines_m


def _jitter(dice: Dice) -> complex:
    return complex(
        dice.between(-_CROSSING_JITTER_M, _CROSSING_JITTER_M),
        dice.between(-_CROSSING_JITTER_M, _CROSSING_JITTER_M),
    )


def _street_kinds(dice: Dice) -> list[StreetKind]:
    """One wide, two middling and three quiet streets in each direction."""
    names = dice.shuffled(_NAMES)
    kinds = []
    for direction in range(2):
        highways = dice.shuffled(("secondary",) + ("tertiary",) * 2 + ("residential",) * 3)
        for k, highway in enumerate(highways):
            width_m, sidewalk_m = _profile(dice, highway)
            name = names[direction * len(highways) + k]
            kinds.append(StreetKind(highway, name, width_m, sidewalk_m))
    return kinds


def _profile(dice: Dice, highway: str) -> tuple[float, float]:
    """Width of the carriageway and of each sidewalk."""
    if highway == "secondary":
        return dice.pick((9.5, 10.0, 11.0)), dice.pick((4.0, 4.5))
    if highway == "tertiary":
        return dice.pick((7.5, 8.0, 8.5)), dice.pick((3.0, 3.5, 4.0))
    return dice.pick((5.0, 5.5, 6.0, 6.5)), dice.pick((1.5, 2.0, 2.5))
