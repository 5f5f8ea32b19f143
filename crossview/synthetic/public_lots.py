"""Blocks where people work, learn, play, park and rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossview.synthetic.cells import area_m2, middle, shrunk, width_m
from crossview.synthetic.homes import fill_gardens
from crossview.synthetic.lots import Front
from crossview.synthetic.plan import (
    Line,
    clearance_m,
    direction,
    dot,
    edges,
    to_points,
    unit,
)
from crossview.synthetic.sites import Site
from crossview.synthetic.town_buildings import Footprint, rectangle, with_two_wings, with_wing

_BAY_M = (2.5, 5.0)
_AISLE_M = 6.0
_POND_CORNERS = 18


def fill_offices(site: Site) -> None:
    """A few large buildings, some with wings, and a car park."""
    dice = site.dice
    setback_m = dice.between(1.0, 4.0)
    fronts = site.fronts(setback_m)
    for front, _ in dice.shuffled(fronts):
        s_m = dice.between(0.0, 6.0)
        while s_m < front.length_m - 18.0:
            width = min(dice.between(18.0, 36.0), front.length_m - s_m)
            main = rectangle(front, s_m, 0.0, width, dice.between(13.0, 17.0))
            if not site.has_room(main.parts):
                s_m += 2.0
                continue
            shaped = _winged(site, main, width)
            kind = dice.pick(("office", "commercial", "retail"))
            site.build(shaped, site.maker.tags(kind, dice.whole(3, 8), shaped))
            s_m += width + dice.between(6.0, 14.0)
    _car_park(site, rows=1)
    site.scatter_trees(20.0, crown_m=(1.5, 2.8))


def _winged(site: Site, main: Footprint, width: float) -> Footprint:
    """A large building as an L, a T or a U where there is room."""
    dice = site.dice
    depth_m, wing_m = dice.between(8.0, 14.0), dice.between(8.0, min(12.0, width / 2.6))
    options = [
        with_wing(main, 0.0, wing_m, depth_m),
        with_wing(main, (width - wing_m) / 2, wing_m, depth_m),
        with_two_wings(main, wing_m, depth_m),
        main,
    ]
    bent = dice.pick(options)
    return bent if len(bent.parts) == 1 or site.has_room(bent.parts[1:]) else main


def _car_park(site: Site, *, rows: int) -> bool:
    """An asphalt area with bays on both sides of aisles, and a way in from the street."""
    dice = site.dice
    depth_m = _AISLE_M + 2 * _BAY_M[1]
    for front, side in dice.shuffled(site.fronts()):
        for _ in range(8):
            count = dice.whole(5, 16)
            width = count * _BAY_M[0] + 1.0
            if width > front.length_m - 8.0:
                continue
            s_m = dice.between(3.0, front.length_m - width - 3.0)
            near_m = dice.pick((3.0, 6.0, 14.0, 20.0))
            area = front.rectangle(s_m, near_m, width, rows * depth_m)
            entry_m = s_m + width / 2
            drive = front.rectangle(entry_m - 2.5, 0.0, 5.0, near_m - 0.1)
            if not site.has_room([area, drive], gap_m=1.0):
                continue
            mouth = site.network.mouth_of(site.lot, side, front.at(entry_m, 0.0))
            if mouth is None:
                continue
            site.clear(area)
            site.clear(drive)
            site.cover(area, {"amenity": "parking", "parking": "surface", "surface": "asphalt"})
            site.openings.append(front.at(entry_m, 0.0))
            inside = front.at(entry_m, near_m + 1.0)
            way_in = {"highway": "service", "service": "driveway", "width": "3.5"}
            site.drawing.lines.append(Line(to_points([mouth, site.openings[-1], inside]), way_in))
            _bays(site, front, (s_m, near_m, count, rows), inside)
            return True
    return False


def _bays(site: Site, front: Front, area: tuple[float, float, int, int], inside: complex) -> None:
    """Aisles and bays; the way in crosses the first row, where there are none.

    Args:
        site: Where.
        front: What the car park lies along.
        area: Where it begins, along the front and behind it; bays in a row; rows.
        inside: Where the way in arrives.
    """
    s_m, near_m, count, rows = area
    entry_m = s_m + (count * _BAY_M[0] + 1.0) / 2
    aisle = {"highway": "service", "service": "parking_aisle", "width": "3.5"}
    is_told = site.dice.chance(0.6)
    here = inside
    for row in range(rows):
        low_m = near_m + row * (_AISLE_M + 2 * _BAY_M[1])
        mid_m = low_m + _BAY_M[1] + _AISLE_M / 2
        crossing = front.at(entry_m, mid_m)
        ends = [front.at(s_m + 1.5, mid_m), crossing]
        ends.append(front.at(s_m + count * _BAY_M[0] - 0.5, mid_m))
        site.drawing.lines += [Line(to_points(line), aisle) for line in ([here, crossing], ends)]
        here = crossing
        for k in range(count if is_told else 0):
            at_m = s_m + 0.5 + k * _BAY_M[0]
            for depth_m in (low_m, low_m + _BAY_M[1] + _AISLE_M):
                is_way = abs(at_m + _BAY_M[0] / 2 - entry_m) < 3.2
                if not is_way or (row == rows - 1 and depth_m > mid_m):
                    bay = front.rectangle(at_m, depth_m, *_BAY_M)
                    site.cover(bay, {"amenity": "parking_space"})


def fill_car_park(site: Site) -> None:
    """A large car park, with a shop where there is room."""
    dice = site.dice
    if not _car_park(site, rows=2):
        _car_park(site, rows=1)
    for front, _ in site.fronts(3.0):
        shop = rectangle(front, dice.between(3.0, 8.0), 0.0, dice.between(24.0, 34.0), 18.0)
        if site.has_room(shop.parts):
            tags = {"shop": "supermarket", "name": site.network.names.of_someone("Supermarket")}
            site.build(shop, site.maker.tags("retail", 1, shop, tags))
            break
    site.scatter_trees(40.0, crown_m=(1.5, 2.6))


def fill_industry(site: Site) -> None:
    """Halls with yards behind a fence."""
    dice = site.dice
    if dice.chance(0.6):
        site.cover(shrunk(site.ring, 0.3) or site.ring, {"landuse": "industrial"})
    for front, _ in dice.shuffled(site.fronts(dice.between(5.0, 9.0))):
        s_m = dice.between(2.0, 8.0)
        while s_m < front.length_m - 20.0:
            width = dice.between(22.0, 48.0)
            hall = rectangle(front, s_m, 0.0, width, dice.between(20.0, 34.0))
            if not site.has_room(hall.parts, margin_m=2.0, gap_m=5.0):
                s_m += 3.0
                continue
            kind = dice.pick(("industrial", "warehouse", "industrial"))
            site.build(hall, site.maker.tags(kind, dice.whole(1, 3), hall))
            s_m += width + dice.between(7.0, 16.0)
    _car_park(site, rows=1)
    if site.drawing.buildings:
        site.enclose("fence")
    site.scatter_trees(12.0, crown_m=(1.5, 3.0))


def fill_school(site: Site) -> None:
    """A school of one bent building, its yard, a pitch and a fence."""
    dice = site.dice
    name = site.network.names.of_something("School")
    site.cover(shrunk(site.ring, 0.2) or site.ring, {"amenity": "school", "name": name})
    for front, _ in sorted(site.fronts(5.0), key=lambda f: -f[0].length_m):
        width = min(dice.between(38.0, 56.0), front.length_m - 12.0)
        main = rectangle(front, (front.length_m - width) / 2, 0.0, max(width, 10.0), 14.0)
        if width < 24.0 or not site.has_room(main.parts, margin_m=2.0):
            continue
        wings = with_two_wings(main, 11.0, dice.between(10.0, 18.0))
        chosen = wings if site.has_room(wings.parts[1:], margin_m=2.0) else main
        site.build(chosen, site.maker.tags("school", dice.whole(2, 3), chosen))
        break
    _pitches(site, ("soccer", "basketball"))
    site.enclose(dice.pick(("fence", "hedge")))
    site.scatter_trees(50.0, crown_m=(1.8, 3.6))


_PITCHES = {"soccer": (60.0, 38.0), "tennis": (36.6, 18.3), "basketball": (28.0, 15.0)}


def _pitches(site: Site, sports: Sequence[str]) -> None:
    """One pitch of each sport, smaller ones where it does not fit, along some edge."""
    for sport in sports:
        long_m, short_m = _PITCHES[sport]
        tags = {"leisure": "pitch", "sport": sport}
        tags["surface"] = "grass" if sport == "soccer" else "acrylic"
        _lay_pitch(site, long_m, short_m, tags)


def _lay_pitch(site: Site, long_m: float, short_m: float, tags: dict[str, str]) -> bool:
    for scale in (1.0, 0.7, 0.5):
        for front, _ in site.fronts():
            for width, depth in ((long_m, short_m), (short_m, long_m)):
                for s_m in range(4, max(5, int(front.length_m - width * scale)), 6):
                    for near_m in (5.0, 14.0, 24.0, 36.0):
                        ring = front.rectangle(s_m, near_m, width * scale, depth * scale)
                        if site.has_room([ring], margin_m=2.5, gap_m=3.0):
                            site.cover(ring, tags)
                            site.clear(ring)
                            return True
    return False


def fill_sports(site: Site) -> None:
    """Pitches, a club house and a fence."""
    dice = site.dice
    _pitches(site, ("soccer", "tennis", "tennis", "basketball"))
    for front, _ in site.fronts(4.0):
        house = rectangle(front, dice.between(4.0, 10.0), 0.0, 14.0, 8.0)
        if site.has_room(house.parts, margin_m=2.0):
            site.build(house, site.maker.tags("yes", 1, house, {"leisure": "sports_centre"}))
            break
    _car_park(site, rows=1)
    site.enclose("fence")
    site.scatter_trees(60.0, crown_m=(2.0, 3.8))


def fill_church(site: Site) -> None:
    """A church with its tower in a yard with trees, a wall around it; in the core, on a square."""
    dice = site.dice
    longest = site.longest_front()
    if longest is None:
        return
    if site.lot.closeness > 0.5:
        _pave(site)
    else:
        site.cover(shrunk(site.ring, 0.3) or site.ring, {"landuse": "grass"})
        site.enclose("wall")
    front, _ = longest
    nave_m, breadth_m, tower_m = dice.between(20.0, 27.0), dice.between(10.0, 13.0), 6.5
    for near_m in (16.0, 11.0, 7.0, 4.0):
        s_m = (front.length_m - nave_m - tower_m) / 2
        nave = front.rectangle(s_m, near_m, nave_m, breadth_m)
        side_m = near_m + (breadth_m - tower_m) / 2
        tower = front.rectangle(s_m + nave_m, side_m, tower_m, tower_m)
        if site.has_room([nave, tower], margin_m=2.0):
            # the nave's ring passes through the tower's corners, so that they share a wall
            ring = (*nave[:2], tower[0], tower[3], *nave[2:])
            along = unit(nave[1] - nave[0])
            church = Footprint(ring, (tuple(nave),), breadth_m, along)
            holy = {
                "amenity": "place_of_worship",
                "religion": "christian",
                "name": site.network.names.of_something("Church"),
                "height": "14",
                "roof:shape": "gabled",
                "roof:height": "5",
            }
            site.build(church, {"building": "church", **holy})
            steeple = {"building": "tower", "height": "32", "roof:shape": "pyramidal"}
            box = Footprint(tuple(tower), (tuple(tower),), tower_m, along)
            site.build(box, steeple | {"roof:height": "9"})
            break
    _benches(site, 4)
    site.scatter_trees(50.0, crown_m=(1.8, 3.6))


def fill_square(site: Site) -> None:
    """A paved square with a fountain or a monument, trees in a row, benches and kiosks."""
    dice = site.dice
    _pave(site)
    center = middle(site.ring)
    basin = [center + 3.0 * direction(2 * math.pi * k / 10) for k in range(10)]
    if dice.chance(0.6) and site.has_room([basin], margin_m=2.0):
        site.cover(basin, {"amenity": "fountain"})
        site.clear(basin)
    else:
        site.place(center, {"historic": "memorial"})
    for front, _ in site.fronts(5.0):
        s_m = 5.0
        while s_m < front.length_m - 5.0:
            site.plant(front.at(s_m, 0.0), crown_m=1.9, height_m=7.0)
            s_m += 8.0
    kiosk = rectangle(Front(center + 9.0, center + 10.0), 0.0, 0.0, 3.5, 3.0)
    if dice.chance(0.5) and site.has_room(kiosk.parts, margin_m=3.0):
        site.build(kiosk, {"building": "kiosk", "shop": "kiosk", "roof:shape": "flat"})
    _benches(site, 6)
    for tags in ({"amenity": "waste_basket"}, {"amenity": "bicycle_parking"}):
        _stand(site, tags)
    _stand(site, {"amenity": "post_box"})


def _pave(site: Site) -> None:
    name = site.network.names.of_something("Square")
    tags = {"highway": "pedestrian", "area": "yes", "place": "square", "name": name}
    site.cover(site.ring, tags | {"surface": site.dice.pick(("sett", "paving_stones"))})


def _benches(site: Site, count: int) -> None:
    for _ in range(count):
        _stand(site, {"amenity": "bench"})


def _stand(site: Site, tags: dict[str, str]) -> None:
    """Put a thing near an edge of the lot, in the open."""
    for _ in range(6):
        start, end = site.dice.pick(edges(site.ring))
        place = start + site.dice.between(0.15, 0.85) * (end - start)
        place += site.dice.between(1.5, 4.0) * 1j * unit(end - start)
        if clearance_m(place, site.ring) < -0.5 and site.is_free(place, 0.6):
            site.place(place, tags)
            return


def fill_park(site: Site) -> None:
    """Lawn, paths that meet, a pond, a playground, trees, benches, lamps and a hedge."""
    dice = site.dice
    name = site.network.names.of_something("Park")
    site.cover(shrunk(site.ring, 0.2) or site.ring, {"leisure": "park", "name": name})
    center = middle(site.ring)
    radius_m = -clearance_m(center, site.ring)
    hub = center + dice.between(0.1, 0.35) * radius_m * direction(dice.between(0.0, 6.283))
    paths = _park_paths(site, hub)
    if radius_m > 22.0:
        _pond(site, paths)
    if dice.chance(0.6):
        _lay_pitch(site, 22.0, 14.0, {"leisure": "playground"})
    for path in paths:
        for k in range(1, len(path) - 1, 2):
            step = unit(path[k + 1] - path[k - 1])
            for turn, tags in ((2.2j, {"amenity": "bench"}), (-2.0j, {"highway": "street_lamp"})):
                spot = path[k] + turn * step
                if (
                    dice.chance(0.6)
                    and site.is_free(spot, 0.3)
                    and clearance_m(spot, site.ring) < -1
                ):
                    site.place(spot, tags)
    if dice.chance(0.5):
        _hedge_rows(site, paths)
    site.scatter_trees(dice.between(70.0, 150.0), crown_m=(1.8, 4.6))


def _park_paths(site: Site, hub: complex) -> list[list[complex]]:
    """Curved paths from the streets to one place in the park."""
    dice = site.dice
    surface = dice.pick(("gravel", "fine_gravel", "asphalt"))
    tags = {"highway": "footway", "surface": surface, "width": "2.5"}
    paths = []
    for front, side in site.fronts():
        if front.length_m < 30.0:
            continue
        door = front.at(dice.between(0.25, 0.75) * front.length_m, 0.0)
        mouth = site.network.mouth_of(site.lot, side, door)
        inward = 1j * unit(front.end - front.start)
        reach_m = abs(hub - door)
        bend = door + 0.55 * reach_m * inward
        path = [
            (1 - t) * (1 - t) * door + 2 * t * (1 - t) * bend + t * t * hub
            for t in (k / 8 for k in range(9))
        ]
        site.walk(path if mouth is None else [mouth, *path], tags)
        paths.append(path)
    return paths


def _pond(site: Site, paths: Sequence[Sequence[complex]]) -> None:
    """A slightly irregular oval where the largest of a few drawn places has room for it."""
    dice = site.dice
    best, room_m = 0j, 0.0
    west, east = min(z.real for z in site.ring), max(z.real for z in site.ring)
    south, north = min(z.imag for z in site.ring), max(z.imag for z in site.ring)
    for _ in range(40):
        place = complex(dice.between(west, east), dice.between(south, north))
        free_m = min(
            -clearance_m(place, site.ring) - 4.0,
            min((abs(place - stop) for path in paths for stop in path), default=40.0) - 5.0,
        )
        if free_m > room_m:
            best, room_m = place, free_m
    if room_m < 4.0:
        return
    radius_m, axis = min(room_m, 18.0), direction(dice.between(0.0, math.pi))
    flat = dice.between(0.6, 0.95)
    ring = []
    for k in range(_POND_CORNERS):
        step = direction(2 * math.pi * k / _POND_CORNERS)
        wave = dice.between(0.9, 1.0)
        ring.append(best + wave * radius_m * axis * complex(step.real, flat * step.imag))
    site.cover(ring, {"natural": "water", "water": "pond"})
    # a hull that is surely convex, for trees to stay out of
    hull = [
        best + radius_m * axis * complex(s.real, flat * s.imag)
        for s in (direction(2 * math.pi * k / 12) / math.cos(math.pi / 12) for k in range(12))
    ]
    site.clear(hull)


def _hedge_rows(site: Site, paths: Sequence[Sequence[complex]]) -> None:
    """A hedge or a row of trees along each straight edge, open where paths come in."""
    kind = site.dice.pick(("hedge", "tree_row"))
    doors = [path[0] for path in paths]
    for front, _ in site.fronts(1.6 if kind == "hedge" else 3.5):
        gaps_m = sorted(
            dot(door - front.start, unit(front.end - front.start))
            for door in doors
            if abs(clearance_m(door, [front.start, front.end])) < 4.5
        )
        stops_m = [3.0, *(g + side for g in gaps_m for side in (-2.5, 2.5)), front.length_m - 3.0]
        for low_m, high_m in zip(stops_m[::2], stops_m[1::2], strict=True):
            line = [front.at(low_m, 0.0), front.at(high_m, 0.0)]
            middle_m = (low_m + high_m) / 2
            clear = [front.at(s, 0.0) for s in (low_m, middle_m, high_m)]
            if high_m - low_m < 6.0 or not all(
                clearance_m(z, site.ring) < -0.8 and site.is_free(z, 1.0) for z in clear
            ):
                continue
            if kind == "hedge":
                site.draw_line(line, {"barrier": "hedge", **site.barrier_tags("hedge")})
            else:
                site.draw_line(line, {"natural": "tree_row"})
            strip = front.rectangle(low_m, -1.0, high_m - low_m, 2.0)
            site.clear(strip)


def fill_allotments(site: Site) -> None:
    """Narrow gardens with a hut each, paths between them, a hedge around."""
    dice = site.dice
    site.cover(shrunk(site.ring, 0.3) or site.ring, {"landuse": "allotments"})
    longest = site.longest_front()
    if longest is None:
        return
    front, _ = longest
    step_m, depth_m = dice.between(11.0, 15.0), dice.between(16.0, 22.0)
    near_m = 3.0
    while near_m < 200.0:
        path = [
            front.at(s_m, near_m + depth_m)
            for s_m in range(2, int(front.length_m), 4)
            if clearance_m(front.at(s_m, near_m + depth_m), site.ring) < -2.0
        ]
        s_m = 3.0
        while s_m < front.length_m:
            hut = rectangle(
                front,
                s_m + dice.between(1.0, 5.0),
                near_m + dice.between(2.0, depth_m - 6.0),
                dice.between(2.8, 4.0),
                dice.between(2.8, 3.6),
            )
            if site.has_room(hut.parts, margin_m=2.0):
                site.build(hut, site.maker.tags("shed", 1, hut))
            s_m += step_m
        if len(path) < 2:
            break
        site.walk([path[0], path[-1]], {"highway": "footway", "surface": "gravel"}, half_m=1.0)
        near_m += depth_m + 2.5
    site.enclose("hedge")
    site.scatter_trees(90.0, crown_m=(1.0, 2.2))


def fill_cemetery(site: Site) -> None:
    """Paths crossing at right angles, a chapel, trees along them, a wall around."""
    dice = site.dice
    name = site.network.names.of_something("Cemetery")
    site.cover(shrunk(site.ring, 0.3) or site.ring, {"landuse": "cemetery", "name": name})
    longest = site.longest_front()
    if longest is None:
        return
    front, side = longest
    tags = {"highway": "footway", "surface": "gravel"}
    door = front.at(front.length_m / 2, 0.0)
    depth_m = 4.0
    while clearance_m(front.at(front.length_m / 2, depth_m + 4.0), site.ring) < -4.0:
        depth_m += 2.0
    chapel = rectangle(front, front.length_m / 2 + 4.0, 10.0, 8.0, 12.0)
    if site.has_room(chapel.parts, margin_m=3.0):
        site.build(chapel, site.maker.tags("yes", 1, chapel, {"building": "chapel"}))
    mouth = site.network.mouth_of(site.lot, side, door)
    start = [door] if mouth is None else [mouth, door]
    site.walk([*start, front.at(front.length_m / 2, depth_m)], tags)
    for near_m in range(27, int(depth_m), 18):
        s_m = [
            s
            for s in range(3, int(front.length_m), 2)
            if clearance_m(front.at(s, near_m), site.ring) < -3.0
        ]
        if len(s_m) > 4:
            for s in range(s_m[0], s_m[-1], 9):
                site.plant(front.at(s, near_m + 3.0), crown_m=1.5, height_m=dice.between(5.0, 9.0))
            site.walk([front.at(s_m[0], near_m), front.at(s_m[-1], near_m)], tags, half_m=0.9)
    site.enclose("wall")
    site.scatter_trees(40.0, crown_m=(1.5, 3.5))


def fill_green(site: Site) -> None:
    """A meadow or a wood, where a lot is too small or too pointed for anything else."""
    dice = site.dice
    kind = dice.pick(("meadow", "grass", "wood"))
    tags = {"natural": "wood"} if kind == "wood" else {"landuse": kind}
    site.cover(shrunk(site.ring, 0.3) or site.ring, tags)
    site.scatter_trees(150.0 if kind == "wood" else 25.0, crown_m=(1.6, 3.8))


def fill_playground(site: Site) -> None:
    """A playground between gardens."""
    if area_m2(site.ring) > 5000.0 or width_m(site.ring) < 20.0:
        fill_gardens(site)
        return
    site.cover(shrunk(site.ring, 0.5) or site.ring, {"leisure": "playground"})
    site.enclose("fence")
    _benches(site, 4)
    site.scatter_trees(60.0, crown_m=(1.5, 3.0))
