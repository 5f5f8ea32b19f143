"""Blocks where people live: rows, gardens, courts, slabs and towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossview.synthetic.cells import area_m2, middle, shrunk
from crossview.synthetic.lots import Front
from crossview.synthetic.network import points_of
from crossview.synthetic.plan import Area, Place, Tags, clearance_m, edges, inset, to_point, unit
from crossview.synthetic.shops import shop
from crossview.synthetic.sites import Site
from crossview.synthetic.town_buildings import Footprint, rectangle, with_wing

_STEP_M = 1.0
_GARAGE_M = (3.2, 5.6)
_LEVEL_PART_M = 3.2


def fill_rows(site: Site) -> None:
    """Houses wall to wall along every street, with a passage now and then, yards behind them."""
    dice, near = site.dice, site.lot.closeness
    setback_m = dice.pick((0.0, 0.0, 0.0, 0.5, 2.0, 3.5)) if near < 0.7 else 0.0
    levels = dice.whole(2, 3) if near < 0.4 else dice.whole(3, 5)
    kind = "terrace" if levels < 3 else "apartments"
    for front, _ in site.fronts(setback_m):
        _row(site, front, levels, kind)
    _back_yards(site)


@dataclass(frozen=True)
class _House:
    s_m: float
    width_m: float
    depth_m: float
    tags: Tags
    footprint: Footprint


def _row(site: Site, front: Front, usual_levels: int, kind: str) -> None:
    """Houses along one front; those in one row are alike where they are terraced."""
    dice = site.dice
    widths_m = (5.5, 8.5) if kind == "terrace" else (8.0, 17.0)
    shops = 0.1 + 0.4 * site.lot.closeness
    row: list[_House] = []
    s_m = 0.0
    own_m = dice.between(*widths_m)
    while s_m < front.length_m - widths_m[0]:
        wanted_m = own_m if kind == "terrace" else dice.between(*widths_m)
        width_m = min(wanted_m, front.length_m - s_m)
        # half metres: two depths are equal or clearly different
        depth_m = dice.whole(16, 19) / 2 if kind == "terrace" else dice.whole(20, 28) / 2
        footprint = rectangle(front, s_m, 0.0, width_m, depth_m)
        if not site.has_room(footprint.parts):
            _finish_row(site, front, row)
            s_m += _STEP_M
            row = []
            continue
        levels = usual_levels if kind == "terrace" else max(2, usual_levels + dice.whole(-1, 1))
        row.append(
            _House(s_m, width_m, depth_m, site.maker.tags(kind, levels, footprint), footprint)
        )
        if dice.chance(shops):
            site.place(front.at(s_m + width_m / 2, 1.5), shop(dice, site.network.names))
        s_m += width_m
        if dice.chance(0.1):
            _finish_row(site, front, row)
            s_m += dice.between(2.5, 6.0)
            row = []
            own_m = dice.between(*widths_m)
    _finish_row(site, front, row)


def _finish_row(site: Site, front: Front, row: Sequence[_House]) -> None:
    """Houses that share walls: where the neighbour ends first, its corner is a vertex of both."""
    for k, house in enumerate(row):
        left_m, right_m = house.s_m, house.s_m + house.width_m
        door = front.at((left_m + right_m) / 2, 0.0)
        has_door = site.dice.chance(0.15)
        ring = [front.at(left_m, 0.0), *([door] if has_door else []), front.at(right_m, 0.0)]
        if k + 1 < len(row) and row[k + 1].depth_m < house.depth_m:
            ring.append(front.at(right_m, row[k + 1].depth_m))
        ring += [front.at(right_m, house.depth_m), front.at(left_m, house.depth_m)]
        if k > 0 and row[k - 1].depth_m < house.depth_m:
            ring.append(front.at(left_m, row[k - 1].depth_m))
        parts = house.footprint.parts
        site.build(Footprint(tuple(ring), parts, house.depth_m, house.footprint.along), house.tags)
        if has_door:
            site.network.marks.append(Place(to_point(door), {"entrance": "yes"}))


def _back_yards(site: Site) -> None:
    """Sheds, a little grass and trees behind the rows."""
    dice = site.dice
    inner = shrunk(site.ring, 17.0)
    if inner and area_m2(inner) > 150.0 and dice.chance(0.5):
        site.cover(inner, {"landuse": "grass"})
    for _ in range(dice.whole(0, 4)):
        _try_outbuilding(site, middle(site.ring), "shed")
    site.scatter_trees(dice.between(15.0, 60.0), crown_m=(1.4, 3.2))


def _try_outbuilding(site: Site, around: complex, kind: str) -> None:
    """A shed somewhere on the lot, parallel to one of its fronts."""
    dice = site.dice
    fronts = site.fronts()
    if not fronts:
        return
    front, _ = dice.pick(fronts)
    reach_m = 25.0
    place = around + complex(dice.between(-reach_m, reach_m), dice.between(-reach_m, reach_m))
    along = unit(front.end - front.start)
    footprint = rectangle(
        Front(place, place + along), 0.0, 0.0, dice.between(2.4, 4.5), dice.between(2.4, 3.5)
    )
    if site.has_room(footprint.parts, margin_m=3.0):
        site.build(footprint, site.maker.tags(kind, 1, footprint))


def fill_gardens(site: Site) -> None:
    """Houses on parcels of their own, with hedges and fences between them, garages and sheds."""
    dice = site.dice
    setback_m = dice.between(3.0, 6.0)
    kind = dice.pick(("hedge", "fence", "fence", "wall", "hedge"))
    has_fences = dice.chance(0.7)
    houses = "semidetached_house" if dice.chance(0.3) else "house"
    streets = [(front, _houses(site, front, setback_m, houses)) for front, _ in site.fronts()]
    for front, parcels in streets if has_fences else ():
        if parcels:
            _front_fence(site, front, kind, [gate_m for _, gate_m in parcels])
        for start_m, _ in parcels:
            _side_fence(site, front, start_m, dice.pick((kind, "fence", "hedge")))
    if dice.chance(0.3):
        inner = shrunk(site.ring, 0.5)
        site.cover(inner or site.ring, {"landuse": "residential"})
    site.scatter_trees(dice.between(50.0, 110.0), crown_m=(1.2, 3.4))


def _houses(site: Site, front: Front, setback_m: float, kind: str) -> list[tuple[float, float]]:
    """Build along a front; (where each parcel begins, where its gate is), metres along it."""
    dice = site.dice
    parcels: list[tuple[float, float]] = []
    s_m = dice.between(2.0, 5.0)
    while s_m < front.length_m - 9.0:
        footprint = _house(site, front, s_m, setback_m + dice.between(0.0, 1.5))
        if footprint is None:
            s_m += 1.5 * _STEP_M
            continue
        width_m = abs(footprint.ring[1] - footprint.ring[0])
        site.build(footprint, site.maker.tags(kind, dice.pick((1, 1, 2, 2, 2)), footprint))
        gap_m = dice.between(4.5, 10.0)
        gate_m = s_m + width_m + min(2.0, gap_m / 2)
        if dice.chance(0.3) and gap_m > _GARAGE_M[0] + 3.2:
            garage = rectangle(
                front, s_m + width_m + 1.6, setback_m + dice.between(1.0, 4.0), *_GARAGE_M
            )
            if site.has_room(garage.parts, margin_m=1.0):
                site.build(garage, site.maker.tags("garage", 1, garage))
        parcels.append((s_m - 2.2, gate_m))
        s_m += width_m + gap_m
    return parcels


def _house(site: Site, front: Front, s_m: float, near_m: float) -> Footprint | None:
    """A box, an L or a T where there is room."""
    dice = site.dice
    width_m = dice.between(8.0, 14.0)
    main = rectangle(front, s_m, near_m, width_m, dice.between(7.5, 11.0))
    if not site.has_room(main.parts, margin_m=1.0):
        return None
    if dice.chance(0.35):
        wing_m = dice.between(0.35, 0.55) * width_m
        at_m = dice.pick((0.0, width_m - wing_m, (width_m - wing_m) / 2))
        bent = with_wing(main, at_m, wing_m, dice.between(3.0, 6.0))
        if site.has_room(bent.parts[1:], margin_m=1.0):
            return bent
    return main


def _front_fence(site: Site, front: Front, kind: str, gates_m: Sequence[float]) -> None:
    """Along the sidewalk, with a gate before every house: in the map or left open."""
    tags = {"barrier": kind, **site.barrier_tags(kind)}
    stops_m = [0.6, *gates_m, front.length_m - 0.6]
    start_m = stops_m[0]
    gates: list[complex] = []
    points = [front.at(start_m, 0.4)]
    for gate_m in gates_m:
        if not start_m + 1.5 < gate_m < front.length_m - 2.5:
            continue
        if site.dice.chance(0.5):
            gates.append(front.at(gate_m, 0.4))
            points.append(gates[-1])
        else:
            points.append(front.at(gate_m - 1.2, 0.4))
            site.draw_line(points, tags, gates=gates)
            gates, points = [], [front.at(gate_m + 1.2, 0.4)]
        start_m = gate_m
    points.append(front.at(front.length_m - 0.6, 0.4))
    if abs(points[-1] - points[0]) > 1.0:
        site.draw_line(points, tags, gates=gates)


def _side_fence(site: Site, front: Front, s_m: float, kind: str) -> None:
    """From the front into the depth of the block, up to where another street is as near."""
    if not 1.0 < s_m < front.length_m - 1.0:
        return
    depth_m = 0.0
    while depth_m < 34.0:
        room_m = -clearance_m(front.at(s_m, depth_m + 2.0), site.ring)
        strip = front.rectangle(s_m - 0.1, 0.5, 0.2, depth_m + 2.0)
        if room_m < min(depth_m, 12.0) * 0.7 or not site.has_room([strip], gap_m=0.3):
            break
        depth_m += 2.0
    if depth_m > 8.0:
        tags = {"barrier": kind, **site.barrier_tags(kind)}
        site.draw_line([front.at(s_m, 0.4), front.at(s_m, depth_m)], tags)


def fill_court(site: Site) -> None:
    """One building around an open court, or houses all around where the lot is too pointed."""
    dice = site.dice
    outer = shrunk(site.ring, dice.pick((0.05, 0.05, 1.0, 2.5)))
    depth_m = dice.between(10.5, 13.5)
    inner = inset(outer, [depth_m] * len(outer)) if len(outer) >= 3 else None
    if inner is None or area_m2(inner) < 120.0:
        fill_rows(site)
        return
    tags = site.maker.tags("apartments", dice.whole(3, 6), None)
    court = tuple(reversed(points_of(inner)))
    site.drawing.buildings.append(Area(points_of(outer), tags, inner=(court,)))
    site.occupy(
        [*outer_edge, *reversed(inner_edge)]
        for outer_edge, inner_edge in zip(edges(outer), edges(inner), strict=True)
    )
    for start, end in edges(outer):
        front = Front(start, end)
        s_m = dice.between(4.0, 12.0)
        while s_m < front.length_m - 4.0:
            if dice.chance(0.2 + 0.3 * site.lot.closeness):
                site.place(front.at(s_m, 1.5), shop(dice, site.network.names))
            s_m += dice.between(9.0, 20.0)
    _plant_in(site, inner)


def _plant_in(site: Site, court: Sequence[complex]) -> None:
    dice = site.dice
    center = middle(court)
    if dice.chance(0.5):
        site.cover(shrunk(court, 2.0) or court, {"landuse": "grass"})
    for corner in court:
        crown_m = dice.between(1.5, 3.0)
        place = center + dice.between(0.1, 0.6) * (corner - center)
        site.plant(place, crown_m=crown_m, height_m=dice.between(6.0, 11.0))


def fill_slabs(site: Site) -> None:
    """Long blocks of flats in parallel on a lawn, a car park beside them, footways between."""
    dice = site.dice
    longest = site.longest_front()
    if longest is None:
        return
    front, _ = longest
    levels = dice.whole(4, 8)
    site.cover(shrunk(site.ring, 0.5) or site.ring, {"landuse": "grass"})
    depth_m, length_m = dice.between(10.0, 13.0), dice.between(34.0, 62.0)
    gap_m = dice.between(16.0, 24.0)
    s_m = dice.between(4.0, 9.0)
    while s_m < front.length_m:
        near_m = dice.between(5.0, 9.0)
        while near_m < 160.0:
            slab = rectangle(front, s_m, near_m, depth_m, length_m)
            short = rectangle(front, s_m, near_m, depth_m, length_m * 0.55)
            chosen = next((f for f in (slab, short) if site.has_room(f.parts, margin_m=3.0)), None)
            if chosen is None:
                near_m += 4.0
                continue
            site.build(chosen, site.maker.tags("apartments", levels, chosen))
            near_m += length_m + dice.between(10.0, 16.0)
        s_m += depth_m + gap_m
    site.scatter_trees(40.0, crown_m=(2.0, 4.0))


def fill_towers(site: Site) -> None:
    """Towers on a lawn; the tall ones are a base and a shaft, each a building:part."""
    dice = site.dice
    site.cover(shrunk(site.ring, 0.5) or site.ring, {"landuse": "grass"})
    for front, _ in site.fronts():
        s_m = dice.between(5.0, 14.0)
        while s_m < front.length_m - 20.0:
            base = rectangle(
                front,
                s_m,
                dice.between(5.0, 9.0),
                dice.between(20.0, 30.0),
                dice.between(18.0, 26.0),
            )
            if site.has_room(base.parts, margin_m=3.0):
                _tower(site, base)
                s_m += 40.0
            s_m += 3.0
    site.scatter_trees(45.0, crown_m=(2.0, 4.0))


def _tower(site: Site, base: Footprint) -> None:
    dice = site.dice
    levels = dice.whole(8, 20)
    kind = dice.pick(("apartments", "office"))
    shaft = inset(base.ring, [dice.between(2.5, 5.0)] * 4)
    if shaft is None or dice.chance(0.4):
        tags = {"building": kind, "building:levels": str(levels), "roof:shape": "flat"}
        site.build(base, tags)
        return
    low = dice.whole(1, 3)
    height_m = levels * _LEVEL_PART_M
    site.build(
        base, {"building": kind, "height": f"{height_m:.1f}", "building:levels": str(levels)}
    )
    common = {"building:part": "yes", "roof:shape": "flat"}
    low_m = low * _LEVEL_PART_M
    site.cover(base.ring, common | {"height": f"{low_m:.1f}", "building:levels": str(low)})
    upper = {"height": f"{height_m:.1f}", "min_height": f"{low_m:.1f}"}
    levels_tags = {"building:levels": str(levels), "building:min_level": str(low)}
    site.cover(shaft, common | upper | levels_tags)
