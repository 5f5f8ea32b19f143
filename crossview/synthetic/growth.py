"""A grown town: streets of a pattern, what every block between them is for, and all that stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from crossview.synthetic import homes, patterns, public_lots
from crossview.synthetic.cells import area_m2, width_m
from crossview.synthetic.lots import Drawing
from crossview.synthetic.network import Lot, RoadNetwork, points_of
from crossview.synthetic.patterns import StreetPlan
from crossview.synthetic.plan import Area, Dice, Line, Plan, to_points
from crossview.synthetic.sites import Site
from crossview.synthetic.town_buildings import BuildingMaker
from crossview.synthetic.town_furniture import StreetSide, bollards, furnish, mark_crossings

LEAST_SIZE_M = 300.0
MOST_SIZE_M = 2500.0

_LARGE = ("slabs", "towers", "offices", "industry")
_LEAST_LOT_M2 = 500.0
_LEAST_LOT_WIDTH_M = 13.0

PATTERNS: Mapping[str, Callable[[Dice, float], StreetPlan]] = MappingProxyType(
    {"grid": patterns.grid, "organic": patterns.organic, "mixed": patterns.mixed}
)

_FILLERS: Mapping[str, Callable[[Site], None]] = MappingProxyType(
    {
        "rows": homes.fill_rows,
        "gardens": homes.fill_gardens,
        "court": homes.fill_court,
        "slabs": homes.fill_slabs,
        "towers": homes.fill_towers,
        "offices": public_lots.fill_offices,
        "industry": public_lots.fill_industry,
        "school": public_lots.fill_school,
        "church": public_lots.fill_church,
        "square": public_lots.fill_square,
        "park": public_lots.fill_park,
        "car_park": public_lots.fill_car_park,
        "allotments": public_lots.fill_allotments,
        "cemetery": public_lots.fill_cemetery,
        "sports": public_lots.fill_sports,
        "playground": public_lots.fill_playground,
        "green": public_lots.fill_green,
    }
)


@dataclass(frozen=True)
class _Wish:
    """A use that a town wants some blocks for.

    Args:
        use: Which.
        per_km2: How many.
        area_m2: Least and most.
        closeness: To the core, least and most.
    """

    use: str
    per_km2: float
    area_m2: tuple[float, float]
    closeness: tuple[float, float] = (0.0, 1.0)


_WISHES = (
    _Wish("square", 3.0, (700.0, 5500.0), (0.6, 1.0)),
    _Wish("church", 2.5, (1400.0, 9000.0), (0.25, 1.0)),
    _Wish("industry", 5.0, (7000.0, 1e6), (0.0, 0.3)),
    _Wish("school", 3.0, (5000.0, 2e4)),
    _Wish("park", 4.5, (3500.0, 1e6)),
    _Wish("sports", 2.0, (7500.0, 1e6), (0.0, 0.55)),
    _Wish("cemetery", 1.0, (5000.0, 1e6), (0.0, 0.6)),
    _Wish("allotments", 2.5, (4000.0, 1e6), (0.0, 0.45)),
    _Wish("slabs", 5.0, (6500.0, 1e6), (0.0, 0.65)),
    _Wish("towers", 2.5, (3500.0, 1e6), (0.0, 0.8)),
    _Wish("car_park", 3.0, (2500.0, 9000.0)),
    _Wish("offices", 7.0, (2200.0, 1e6), (0.15, 1.0)),
    _Wish("playground", 2.5, (700.0, 4500.0), (0.0, 0.7)),
    _Wish("green", 4.0, (1500.0, 1e6), (0.0, 0.2)),
)


def grown_plan(dice: Dice, pattern: str, size_m: float) -> Plan:
    """Everything in a town of a street pattern.

    Args:
        dice: For all of it.
        pattern: One of PATTERNS.
        size_m: Side of the square that it fills, before that is bent and turned.
    """
    street_plan = PATTERNS[pattern](dice, size_m)
    network = RoadNetwork(street_plan, dice)
    mark_crossings(network, dice)
    maker = BuildingMaker(dice)
    drawing = Drawing()
    for lot, use in _uses(network, street_plan, dice):
        # lots lie apart, so that each is filled without a look at the others
        site = Site(lot, dice, network, maker)
        _FILLERS[use](site)
        if use in _LARGE and not site.drawing.buildings:
            # too narrow for anything large
            homes.fill_rows(site)
        drawing.extend(site.drawing)
    streets, footways = network.streets(), network.footways()
    water = _water(street_plan, network)
    ways = [*footways, *(line for line in drawing.lines if "highway" in line.tags)]
    side = StreetSide(streets, ways, drawing.walls)
    furniture = furnish(streets, side, network, dice)
    return Plan(
        streets=streets,
        buildings=tuple(drawing.buildings),
        areas=(*drawing.areas, *water.areas, *network.islands()),
        lines=(*footways, *drawing.lines, *furniture.lines, *water.lines),
        places=(*drawing.places, *furniture.places),
        marks=(*network.marks, *bollards(footways, dice)),
    )


def _water(street_plan: StreetPlan, network: RoadNetwork) -> Drawing:
    """The river between its quays, as an area and as the line that it flows along."""
    drawing = Drawing()
    if street_plan.river:
        kind = "canal" if street_plan.bend.is_straight else "river"
        name = network.names.of_something(kind.capitalize())
        shore = points_of(network.shore(street_plan.river))
        drawing.areas.append(Area(shore, {"natural": "water", "water": kind, "name": name}))
        line = to_points(network.stream(street_plan.river))
        drawing.lines.append(Line(line, {"waterway": kind, "name": name}))
    return drawing


def _uses(network: RoadNetwork, street_plan: StreetPlan, dice: Dice) -> list[tuple[Lot, str]]:
    """What every block is for: first what a town needs a few of, then homes."""
    uses: list[tuple[Lot, str]] = []
    free: list[Lot] = []
    for cell in dice.shuffled(street_plan.blocks):
        lot = network.lot(cell)
        if lot is None:
            continue
        is_small = area_m2(lot.ring) < _LEAST_LOT_M2 or width_m(lot.ring) < _LEAST_LOT_WIDTH_M
        if is_small:
            uses.append((lot, "green"))
        else:
            free.append(lot)
    for wish in _WISHES:
        wanted = wish.per_km2 * street_plan.size_m**2 / 1e6
        count = int(wanted) + dice.chance(wanted - int(wanted))
        fitting = [lot for lot in free if _fits(lot, wish)][:count]
        uses += [(lot, wish.use) for lot in fitting]
        taken = set(map(id, fitting))
        free = [lot for lot in free if id(lot) not in taken]
    return uses + [(lot, _homes(dice, lot.closeness)) for lot in free]


def _fits(lot: Lot, wish: _Wish) -> bool:
    return (
        wish.area_m2[0] <= area_m2(lot.ring) <= wish.area_m2[1]
        and wish.closeness[0] <= lot.closeness <= wish.closeness[1]
    )


def _homes(dice: Dice, closeness: float) -> str:
    shares: Sequence[tuple[str, float]] = (("gardens", 0.78), ("rows", 0.2), ("court", 0.02))
    if closeness > 0.62:
        shares = (("rows", 0.6), ("court", 0.4))
    elif closeness > 0.35:
        shares = (("rows", 0.45), ("court", 0.2), ("gardens", 0.35))
    return dice.weighted(shares)


def check_size_m(size_m: float) -> float:
    """The size, if a town can have it.

    Raises:
        ValueError: It is smaller or larger than towns are made.
    """
    if not (math.isfinite(size_m) and LEAST_SIZE_M <= size_m <= MOST_SIZE_M):
        raise ValueError(
            f"size_m is {size_m}; a town is {LEAST_SIZE_M:.0f} to {MOST_SIZE_M:.0f} m wide. Give "
            "a size in between."
        )
    return float(size_m)
