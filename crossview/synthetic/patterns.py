"""Street patterns of made-up towns: organic, grid and mixed, as cells that streets lie between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from crossview.synthetic.cells import (
    Cell,
    CellComplex,
    area_m2,
    longest_direction,
    middle,
    width_m,
)
from crossview.synthetic.plan import Dice, cross, direction, dot
from crossview.synthetic.roads import Road, RoadMaker

_SNAP_M = 17.0
_MIN_WIDTH_M = 26.0
_LEAST_BLOCK_M2 = 1500.0
_GRID_TURN_DEG = (4.0, 26.0)
_BRIDGE_SHARE = 0.25
_FIELD_MESH_M = 140.0
_FIELD_REACH = 0.32


class Bend:
    """A smooth shift of the ground, and then a turn, so that straight lines become curved ones.

    Random arrows on a mesh, blended by cubic B-splines: twice continuously differentiable.

    Args:
        dice: Draws the arrows.
        size_m: Side of the square that is bent.
        turn: A unit number that turns everything.
        weights: How much of its arrow a place keeps.
    """

    def __init__(self, dice: Dice, size_m: float, turn: complex, weights: _Weights) -> None:
        self._turn = turn
        self._half_m = size_m / 2
        self._count = math.ceil(size_m / _FIELD_MESH_M) + 4
        reach_m = _FIELD_REACH * _FIELD_MESH_M
        self._arrows = [
            [
                complex(dice.between(-reach_m, reach_m), dice.between(-reach_m, reach_m))
                * weights.at(self._place(i, j))
                for j in range(self._count)
            ]
            for i in range(self._count)
        ]
        self.is_straight = weights.outside == weights.inside == 0.0

    def __call__(self, position: complex) -> complex:
        """Where a place of the straight plan comes to lie."""
        if self.is_straight:
            return self._turn * position
        x = (position.real + self._half_m) / _FIELD_MESH_M + 1.0
        y = (position.imag + self._half_m) / _FIELD_MESH_M + 1.0
        i = min(max(int(x), 1), self._count - 3)
        j = min(max(int(y), 1), self._count - 3)
        along, across = _spline(x - i), _spline(y - j)
        shift = 0j
        for m, weight in enumerate(along):
            row = self._arrows[i - 1 + m]
            shift += weight * sum(across[n] * row[j - 1 + n] for n in range(4))
        return self._turn * (position + shift)

    def _place(self, i: int, j: int) -> complex:
        return complex(i - 1, j - 1) * _FIELD_MESH_M - complex(self._half_m, self._half_m)


def _spline(t: float) -> tuple[float, float, float, float]:
    """Weights of four neighbours at t from the second to the third, of a cubic B-spline."""
    s = 1.0 - t
    return (
        s * s * s / 6.0,
        (3 * t * t * t - 6 * t * t + 4) / 6.0,
        (3 * s * s * s - 6 * s * s + 4) / 6.0,
        t * t * t / 6.0,
    )


@dataclass(frozen=True)
class _Weights:
    """How strongly the ground is bent inside and outside of a circle around a core."""

    core: complex
    radius_m: float
    inside: float
    outside: float

    def at(self, place: complex) -> float:
        """Between the two in a ring around the circle."""
        share = min(max((abs(place - self.core) / self.radius_m - 0.8) / 0.4, 0.0), 1.0)
        return self.inside + share * (self.outside - self.inside)


@dataclass
class StreetPlan:
    """The cells of a town and what runs between them.

    Args:
        size_m: Side of the square that the town fills before it is bent and turned.
        core: The middle of the old town, in the straight plan.
        cells: What lies between the lines.
        bend: From the straight plan to the ground.
        makers: Draws roads.
        roads: By the number of their line.
        blocks: Cells to build on.
        river: The cell under water; empty without one.
        flow: Unit direction along it.
        reaches: What the bridges cut the river into.
    """

    size_m: float
    core: complex
    cells: CellComplex
    bend: Bend
    makers: RoadMaker
    roads: list[Road] = field(default_factory=list)
    blocks: list[Cell] = field(default_factory=list)
    river: Cell = ()
    flow: complex = 0j
    reaches: list[Cell] = field(default_factory=list)

    def road(self, highway: str) -> int:
        """The number of a new line."""
        self.roads.append(self.makers.road(highway))
        return len(self.roads) - 1

    def closeness(self, place: complex) -> float:
        """1 in the core, 0 at half a size away from it and beyond."""
        return max(0.0, 1.0 - abs(place - self.core) / (0.5 * self.size_m))


def organic(dice: Dice, size_m: float) -> StreetPlan:
    """Old roads that meet around a market place, blocks cut from ever smaller blocks."""
    core = _core(dice, size_m)
    plan = _open_ground(dice, size_m, 1 + 0j, _Weights(core, size_m, 1.0, 1.0))
    plan.core = core
    cells = _with_river(plan, dice)
    cells = _old_roads(plan, dice, cells)
    for cell in cells:
        _grow(plan, dice, cell)
    return plan


def grid(dice: Dice, size_m: float) -> StreetPlan:
    """Two families of parallel streets, every third or fourth of them wide."""
    turn = direction(math.radians(dice.between(*_GRID_TURN_DEG)))
    plan = _open_ground(dice, size_m, turn, _Weights(0j, size_m, 0.0, 0.0))
    plan.core = _core(dice, size_m)
    _lay_grid(plan, dice, _with_river(plan, dice), 1 + 0j)
    return plan


def mixed(dice: Dice, size_m: float) -> StreetPlan:
    """An organic core; around it districts of grids, each along its own main street."""
    core = _core(dice, size_m)
    plan = _open_ground(dice, size_m, 1 + 0j, _Weights(core, 0.3 * size_m, 1.0, 0.25))
    plan.core = core
    cells = _with_river(plan, dice)
    cells = _old_roads(plan, dice, cells)
    district_m2 = dice.between(90_000.0, 150_000.0)
    while cells:
        cell = cells.pop()
        shape = plan.cells.shape(cell)
        if abs(middle(shape) - core) < 0.27 * size_m:
            _grow(plan, dice, cell)
            continue
        parts = [cell]
        if area_m2(shape) > 1.6 * district_m2:
            parts = _halved(plan, dice, cell, plan.road("tertiary"))
        if len(parts) == 2:
            cells += parts
        elif dice.chance(0.25):
            _grow(plan, dice, cell)
        else:
            _lay_grid(plan, dice, [cell], longest_direction(shape)[0])
    return plan


def _core(dice: Dice, size_m: float) -> complex:
    reach_m = 0.12 * size_m
    return complex(dice.between(-reach_m, reach_m), dice.between(-reach_m, reach_m))


def _open_ground(dice: Dice, size_m: float, turn: complex, weights: _Weights) -> StreetPlan:
    half_m = size_m / 2
    corners = [
        complex(-half_m, -half_m),
        complex(half_m, -half_m),
        complex(half_m, half_m),
        complex(-half_m, half_m),
    ]
    bend = Bend(dice, size_m, turn, weights)
    return StreetPlan(size_m, 0j, CellComplex(corners), bend, RoadMaker(dice))


def _with_river(plan: StreetPlan, dice: Dice) -> list[Cell]:
    """The dry cells of a town; two towns in three have a river or a canal beside the core."""
    if plan.size_m < 350.0 or dice.chance(0.34):
        return [plan.cells.whole]
    breadth_m = dice.between(34.0, 52.0) + (14.0 if plan.size_m > 900.0 else 0.0)
    along = 1 + 0j if dice.chance(0.5) else 1j
    tilt = 0.0 if plan.bend.is_straight else dice.between(-0.25, 0.25)
    along = along * complex(1.0, tilt)
    along /= abs(along)
    side = 1 if dice.chance(0.5) else -1
    origin = plan.core + side * dice.between(0.14, 0.24) * plan.size_m * 1j * along
    dry = [plan.cells.whole]
    for shift_m in (-breadth_m / 2, breadth_m / 2):
        quay = plan.road(dice.pick(("tertiary", "residential", "residential")))
        dry = _cut_all(plan, dry, origin + shift_m * 1j * along, along, quay, min_width_m=20.0)
    for cell in dry:
        shape = plan.cells.shape(cell)
        if all(abs(dot(corner - origin, 1j * along)) < breadth_m for corner in shape):
            plan.river, plan.flow = cell, along
            plan.reaches = [cell]
    return [cell for cell in dry if cell != plan.river]


def _cut_all(
    plan: StreetPlan,
    cells: Sequence[Cell],
    origin: complex,
    along: complex,
    line: int,
    *,
    snap_m: float = _SNAP_M,
    min_width_m: float = _MIN_WIDTH_M,
) -> list[Cell]:
    return [
        part
        for cell in cells
        for part in plan.cells.cut(
            cell, origin, along, line, snap_m=snap_m, min_width_m=min_width_m
        )
    ]


def _bridge(plan: StreetPlan, origin: complex, along: complex, line: int) -> None:
    """Continue a street over the water."""
    plan.reaches = _cut_all(plan, plan.reaches, origin, along, line)


def _old_roads(plan: StreetPlan, dice: Dice, cells: list[Cell]) -> list[Cell]:
    """Three roads that leave a three-sided market place between them, and more in a large town."""
    market_m = dice.between(24.0, 34.0)
    # at 30 and 90 degrees to a river, so that no bridge runs along it
    first = direction(dice.between(0.0, math.pi)) if not plan.river else 1j * plan.flow
    for k, highway in enumerate(("secondary", "tertiary", "secondary")):
        along = first * direction((k + dice.between(-0.15, 0.15)) * 2 * math.pi / 3)
        origin, line = plan.core - market_m * 1j * along, plan.road(highway)
        cells = _cut_all(plan, cells, origin, along, line)
        _bridge(plan, origin, along, line)
    for _ in range(int(plan.size_m / 700.0)):
        along = direction(dice.between(0.0, 2 * math.pi))
        if abs(cross(along, plan.flow)) < 0.6 and plan.river:
            along *= 1j
        origin = plan.core + dice.between(0.28, 0.36) * plan.size_m * 1j * along
        line = plan.road("tertiary")
        cells = _cut_all(plan, cells, origin, along, line)
        _bridge(plan, origin, along, line)
    return cells


def _grow(plan: StreetPlan, dice: Dice, cell: Cell) -> None:
    """Cut a cell in halves until the blocks are small: smaller in the core."""
    waiting = [cell]
    while waiting:
        cell = waiting.pop()
        shape = plan.cells.shape(cell)
        near = plan.closeness(middle(shape))
        target_m2 = (9500.0 - 6200.0 * near) * dice.between(0.7, 1.5)
        size_m2 = area_m2(shape)
        _, length_m, breadth_m = longest_direction(shape)
        is_long = length_m > 2.3 * breadth_m and length_m > 110.0
        if size_m2 < 2 * _LEAST_BLOCK_M2 or (size_m2 < 1.7 * target_m2 and not is_long):
            plan.blocks.append(cell)
            continue
        parts = _halved(plan, dice, cell, plan.road(_highway_between(dice, size_m2, near)))
        if len(parts) == 1:
            plan.blocks.append(cell)
        waiting += parts if len(parts) == 2 else []


def _highway_between(dice: Dice, size_m2: float, near: float) -> str:
    """What kind of street cuts a cell of this size."""
    if size_m2 > 110_000.0:
        return "tertiary"
    if size_m2 > 22_000.0:
        return "residential"
    quiet = ("residential", "living_street", "pedestrian") if near > 0.7 else ("residential",)
    return dice.pick((*quiet, "residential", "living_street", "service", "footway", "cycleway"))


def _halved(plan: StreetPlan, dice: Dice, cell: Cell, line: int) -> list[Cell]:
    """A cell cut across its long side, near the middle."""
    shape = plan.cells.shape(cell)
    along, length_m, _ = longest_direction(shape)
    across = 1j * along * direction(dice.between(-0.2, 0.2))
    reach = [dot(along, corner - shape[0]) for corner in shape]
    share = dice.between(0.4, 0.6)
    origin = middle(shape)
    origin += (min(reach) + share * length_m - dot(along, origin - shape[0])) * along
    return plan.cells.cut(cell, origin, across, line, snap_m=_SNAP_M, min_width_m=_MIN_WIDTH_M)


def _lay_grid(plan: StreetPlan, dice: Dice, cells: list[Cell], along: complex) -> None:
    """Cut cells into rows of blocks, and the rows into blocks."""
    is_whole_town = plan.bend.is_straight
    depth_m, length_m = dice.between(62.0, 84.0), dice.between(85.0, 150.0)
    strips = cells
    for k, at_m in enumerate(_lines_m(dice, plan.size_m, depth_m)):
        highway = _grid_highway(dice, k, is_whole_town)
        line = plan.road(highway)
        strips = _cut_all(plan, strips, at_m * 1j * along, along, line)
        if is_whole_town and (highway != "residential" or dice.chance(_BRIDGE_SHARE)):
            _bridge(plan, at_m * 1j * along, along, line)
    blocks = strips
    for k, at_m in enumerate(_lines_m(dice, plan.size_m, length_m)):
        highway = _grid_highway(dice, k, is_whole_town)
        line = plan.road(highway)
        origin = at_m * along
        # a quiet street misses a row now and then, so that blocks differ
        missed = 0.0 if highway != "residential" else 0.12
        next_blocks: list[Cell] = []
        for block in blocks:
            if dice.chance(missed):
                next_blocks.append(block)
            else:
                next_blocks += _cut_all(plan, [block], origin, 1j * along, line)
        blocks = next_blocks
        if is_whole_town and (highway != "residential" or dice.chance(_BRIDGE_SHARE)):
            _bridge(plan, origin, 1j * along, line)
    for block in blocks:
        shape = plan.cells.shape(block)
        parts = [block]
        if area_m2(shape) > 9_000.0 and width_m(shape) > 62.0 and dice.chance(0.35):
            highway = dice.pick(("service", "living_street", "footway", "cycleway", "service"))
            parts = _halved(plan, dice, block, plan.road(highway))
        plan.blocks += parts


def _grid_highway(dice: Dice, k: int, is_whole_town: bool) -> str:
    if is_whole_town and k % 4 == 1:
        return "secondary" if k % 8 == 1 else "tertiary"
    return "living_street" if dice.chance(0.08) else "residential"


def _lines_m(dice: Dice, size_m: float, step_m: float) -> list[float]:
    """Where the lines of a grid run: over all of the square, also where it is turned by 45 deg."""
    lines_m = [-0.75 * size_m + dice.between(0.3, 0.7) * step_m]
    while lines_m[-1] < 0.75 * size_m:
        lines_m.append(lines_m[-1] + step_m * dice.between(0.85, 1.2))
    return lines_m
