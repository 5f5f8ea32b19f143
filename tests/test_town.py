"""The made-up town: the same everywhere, sound as a map, and good to stand in."""

import functools
import hashlib
import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import LineString, Point, Polygon

from crossview import angles
from crossview.frames import LocalFrame
from crossview.osm import read_osm
from crossview.synthetic.plan import (
    Dice,
    are_apart,
    clearance_m,
    distance_to_line_m,
    inset,
    is_inside,
)
from crossview.synthetic.town import Town

SEED_0_SHA256 = "cdd0b0543464dc6a63fd80e9ea4d8fb625668cb654bd67bb742fb2bc20b26b66"

SQUARE = (0j, 10 + 0j, 10 + 10j, 10j)


class ParsedTown:
    """The elements of an OSM file, parsed by the standard library, in local metres."""

    def __init__(self, xml: bytes, frame: LocalFrame) -> None:
        self.root = ET.fromstring(xml)
        self.nodes = {}
        for node in self.root.iter("node"):
            place = float(node.get("lat")), float(node.get("lon"))
            self.nodes[node.get("id")] = (frame.to_local(*place), tags_of(node))
        self.ways = {
            way.get("id"): ([nd.get("ref") for nd in way.iter("nd")], tags_of(way))
            for way in self.root.iter("way")
        }
        self.relations = {
            relation.get("id"): (
                [(member.get("role"), member.get("ref")) for member in relation.iter("member")],
                tags_of(relation),
            )
            for relation in self.root.iter("relation")
        }

    def points(self, way_id: str) -> list[tuple[float, float]]:
        return [self.nodes[ref][0] for ref in self.ways[way_id][0]]

    def places(self, key: str) -> list[tuple[Point, dict[str, str]]]:
        return [(Point(place), tags) for place, tags in self.nodes.values() if key in tags]

    def buildings(self) -> list[tuple[Polygon, dict[str, str]]]:
        simple = [
            (Polygon(self.points(way_id)), tags)
            for way_id, (_, tags) in self.ways.items()
            if "building" in tags
        ]
        with_courts = []
        for members, tags in self.relations.values():
            rings = {"outer": [], "inner": []}
            for role, way_id in members:
                rings[role].append(self.points(way_id))
            with_courts.append((Polygon(rings["outer"][0], rings["inner"]), tags))
        return simple + with_courts

    def carriageways(self) -> list[Polygon]:
        return [
            LineString(self.points(way_id)).buffer(float(tags["width"]) / 2)
            for way_id, (_, tags) in self.ways.items()
            if "lanes" in tags or tags.get("highway") == "living_street"
        ]

    def areas(self, key: str, value: str) -> list[Polygon]:
        return [
            Polygon(self.points(way_id))
            for way_id, (_, tags) in self.ways.items()
            if tags.get(key) == value
        ]


def tags_of(element: ET.Element) -> dict[str, str]:
    return {tag.get("k"): tag.get("v") for tag in element.iter("tag")}


@functools.lru_cache(maxsize=8)
def parsed_town(seed: int) -> ParsedTown:
    town = Town.from_seed(seed)
    return ParsedTown(town.to_osm_xml(), town.frame)


@pytest.fixture(scope="module")
def town() -> Town:
    return Town.from_seed(0)


@pytest.fixture(scope="module")
def parsed(town: Town) -> ParsedTown:
    return ParsedTown(town.to_osm_xml(), town.frame)


def test_the_town_of_seed_0_is_the_same_on_every_machine(town: Town):
    assert hashlib.sha256(town.to_osm_xml()).hexdigest() == SEED_0_SHA256


def test_another_process_with_other_hashes_makes_the_same_town(town: Town):
    code = (
        "import sys; from crossview.synthetic.town import Town;"
        "sys.stdout.buffer.write(Town.from_seed(0).to_osm_xml())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert run.stdout == town.to_osm_xml()


def test_other_seeds_make_other_towns(town: Town):
    assert Town.from_seed(1).to_osm_xml() != town.to_osm_xml()


def test_write_puts_the_xml_into_a_file(town: Town, tmp_path):
    town.write(tmp_path / "town.osm")
    assert (tmp_path / "town.osm").read_bytes() == town.to_osm_xml()


def test_a_negative_seed_is_refused_because_random_would_drop_the_sign():
    with pytest.raises(ValueError, match="from 0, got -1"):
        Town.from_seed(-1)


def test_every_reference_leads_to_an_element_that_comes_before_it(parsed: ParsedTown):
    assert all(ref in parsed.nodes for refs, _ in parsed.ways.values() for ref in refs)
    assert all(ref in parsed.ways for members, _ in parsed.relations.values() for _, ref in members)
    kinds = [child.tag for child in parsed.root]
    assert [kind for kind, _ in itertools.groupby(kinds)] == ["bounds", "node", "way", "relation"]


def test_ids_are_unique_and_ascend_in_each_id_space(parsed: ParsedTown):
    for name in ("node", "way", "relation"):
        ids = [int(element.get("id")) for element in parsed.root.iter(name)]
        assert ids == list(range(1, len(ids) + 1))


def test_no_way_stays_in_place(parsed: ParsedTown):
    for refs, _ in parsed.ways.values():
        assert len(refs) >= 2
        assert all(ref != after for ref, after in itertools.pairwise(refs))


def test_coordinates_have_seven_decimals(town: Town):
    values = re.findall(rb'(?:lat|lon)="([^"]*)"', town.to_osm_xml())
    assert len(values) > 2000
    assert all(re.fullmatch(rb"-?\d+\.\d{7}", value) for value in values)


def test_bounds_hold_every_node_and_about_400_by_400_m(town: Town, parsed: ParsedTown):
    bounds = parsed.root.find("bounds")
    west_m, south_m = town.frame.to_local(float(bounds.get("minlat")), float(bounds.get("minlon")))
    east_m, north_m = town.frame.to_local(float(bounds.get("maxlat")), float(bounds.get("maxlon")))
    places = np.array([place for place, _ in parsed.nodes.values()])
    assert np.all(places > (west_m, south_m))
    assert np.all(places < (east_m, north_m))
    hull = shapely.convex_hull(shapely.MultiPoint(places))
    assert 350**2 < hull.area < 450**2


@pytest.mark.parametrize("seed", range(4))
def test_no_building_overlaps_another_or_a_carriageway(seed: int):
    parsed = parsed_town(seed)
    footprints = [footprint for footprint, _ in parsed.buildings()]
    assert len(footprints) > 150
    assert all(footprint.is_valid for footprint in footprints)
    tree = shapely.STRtree(footprints)
    one, other = tree.query(footprints, predicate="intersects")
    overlap_m2 = [
        footprints[a].intersection(footprints[b]).area
        for a, b in zip(one, other, strict=True)
        if a < b
    ]
    assert max(overlap_m2) == approx(0, abs=1e-6)
    for carriageway in parsed.carriageways():
        assert not tree.query(carriageway, predicate="intersects").size


@pytest.mark.parametrize("seed", range(4))
def test_row_houses_share_walls_and_their_nodes(seed: int):
    parsed = parsed_town(seed)
    edges = [
        frozenset(edge)
        for refs, tags in parsed.ways.values()
        if "building" in tags
        for edge in itertools.pairwise(refs)
    ]
    num_shared = len(edges) - len(set(edges))
    assert num_shared > 20
    # where walls touch they are the same edge: no corner ends in the middle of another's wall
    footprints = [footprint for footprint, _ in parsed.buildings()]
    one, other = shapely.STRtree(footprints).query(footprints, predicate="intersects")
    lengths_m = [
        footprints[a].intersection(footprints[b]).length
        for a, b in zip(one, other, strict=True)
        if a < b
    ]
    assert sum(length_m > 1.0 for length_m in lengths_m) == num_shared


@pytest.mark.parametrize("seed", range(4))
def test_every_town_has_what_a_map_has(seed: int):
    parsed = parsed_town(seed)
    assert len(parsed.areas("natural", "water")) == 2
    assert len(parsed.areas("leisure", "park")) == 2
    assert len(parsed.places("natural")) > 100
    assert len(parsed.places("shop")) + len(parsed.places("amenity")) > 20
    barriers = {tags.get("barrier") for _, tags in parsed.ways.values()}
    assert {"fence", "hedge"} <= barriers
    highways = {tags.get("highway") for _, tags in parsed.ways.values()}
    assert {"secondary", "tertiary", "residential", "footway"} <= highways
    courts = [tags for _, tags in parsed.relations.values()]
    assert courts
    assert all(tags["type"] == "multipolygon" and "building" in tags for tags in courts)


@pytest.mark.parametrize("seed", range(4))
def test_ponds_lie_in_parks_beside_the_path(seed: int):
    parsed = parsed_town(seed)
    parks = shapely.union_all(parsed.areas("leisure", "park"))
    paths = [parsed.points(w) for w, (_, t) in parsed.ways.items() if t.get("surface") == "gravel"]
    for pond in parsed.areas("natural", "water"):
        assert parks.contains(pond)
        assert min(LineString(path).distance(pond) for path in paths) > 1.25


def test_a_court_is_a_hole_in_its_building(parsed: ParsedTown):
    with_courts = [polygon for polygon, _ in parsed.buildings() if polygon.interiors]
    assert len(with_courts) == len(parsed.relations) > 0
    for polygon in with_courts:
        court = Polygon(polygon.interiors[0])
        assert court.area > 100
        assert not polygon.contains(court.representative_point())


def test_some_buildings_are_shaped_like_an_l(parsed: ParsedTown):
    bent = [p for p, _ in parsed.buildings() if p.area < 0.97 * shapely.convex_hull(p).area]
    assert len([p for p in bent if not p.interiors]) > 10


@pytest.mark.parametrize("seed", range(4))
def test_every_building_tells_its_height_or_its_storeys(seed: int):
    tags = [tags for _, tags in parsed_town(seed).buildings()]
    assert all(("height" in t) != ("building:levels" in t) for t in tags)
    assert {t["building:levels"] for t in tags if "building:levels" in t} >= {"1", "2", "3"}


@pytest.mark.parametrize("seed", range(4))
def test_trees_stand_in_the_open_and_their_crowns_touch_no_wall(seed: int):
    parsed = parsed_town(seed)
    footprints = shapely.STRtree([footprint for footprint, _ in parsed.buildings()])
    on_the_way = shapely.union_all([*parsed.carriageways(), *parsed.areas("natural", "water")])
    for place, tags in parsed.places("natural"):
        crown = place.buffer(float(tags["diameter_crown"]) / 2)
        assert not footprints.query(crown, predicate="intersects").size
        assert not on_the_way.intersects(place)


def test_streets_that_meet_share_a_node_so_that_all_are_connected(parsed: ParsedTown):
    streets = [set(refs) for refs, tags in parsed.ways.values() if "width" in tags]
    reached, waiting = set(), [streets[0]]
    while waiting:
        nodes = waiting.pop()
        reached |= nodes
        waiting += [other for other in streets if other & reached and not other <= reached]
    assert all(nodes <= reached for nodes in streets)


def test_streets_keep_their_width_apart_from_the_blocks(parsed: ParsedTown):
    widths_m = {tags["width"] for _, tags in parsed.ways.values() if tags.get("lanes")}
    assert len(widths_m) >= 5


def test_the_anchor_is_the_middle_of_the_town():
    town = Town.from_seed(3, lat_deg=-35.3, lon_deg=149.1)
    places = np.array(
        [place for place, _ in ParsedTown(town.to_osm_xml(), town.frame).nodes.values()]
    )
    assert town.frame == LocalFrame(-35.3, 149.1)
    assert np.abs(places.mean(axis=0)).max() < 40


def test_moving_the_anchor_moves_the_town_and_does_not_change_it():
    here, there = Town.from_seed(2), Town.from_seed(2, lat_deg=-35.3, lon_deg=149.1)
    assert here.plan == there.plan


def test_viewpoints_stand_on_centre_lines_away_from_walls(town: Town, parsed: ParsedTown):
    poses = town.viewpoints(30, seed=5, clearance_m=5.0, radius_m=120.0)
    assert len(poses) == 30
    walls = shapely.union_all([footprint for footprint, _ in parsed.buildings()])
    centre_lines = shapely.MultiLineString([street.line for street in town.plan.streets])
    for pose in poses:
        place = Point(pose.x_m, pose.y_m)
        assert centre_lines.distance(place) < 1e-6
        assert walls.distance(place) > 5.0 - 0.02
        assert np.hypot(pose.x_m, pose.y_m) <= 120.0


def test_viewpoints_look_along_the_street_within_the_spread(town: Town):
    segments = [
        (LineString([start, end]), angles.heading_of(end[0] - start[0], end[1] - start[1]))
        for street in town.plan.streets
        for start, end in itertools.pairwise(street.line)
    ]
    turns_deg = []
    for pose in town.viewpoints(60, seed=1, heading_spread_deg=15.0):
        _, along_deg = min(segments, key=lambda s: s[0].distance(Point(pose.x_m, pose.y_m)))
        turn_deg = float(angles.difference_deg(pose.heading_deg, along_deg))
        turns_deg.append(turn_deg)
        assert min(abs(turn_deg), 180 - abs(turn_deg)) <= 15.0 + 1e-6
    assert min(np.abs(turns_deg)) < 15  # one way
    assert max(np.abs(turns_deg)) > 165  # and the other


def test_viewpoints_depend_on_the_seed_alone(town: Town):
    assert town.viewpoints(5, seed=1) == Town.from_seed(0).viewpoints(5, seed=1)
    assert town.viewpoints(5, seed=1) != town.viewpoints(5, seed=2)


def test_a_clearance_that_no_street_has_is_refused(town: Town):
    with pytest.raises(ValueError, match=r"Found 0 of 1 places .* Lower clearance_m"):
        town.viewpoints(1, seed=0, clearance_m=500.0)


def test_dice_draw_the_numbers_that_random_promises():
    # the first numbers of random.Random(1), as Python has printed them since 3.2
    dice = Dice(1)
    assert dice.between(0, 1) == 0.13436424411240122
    assert dice.between(10, 20) == 10 + 10 * 0.8474337369372327


def test_inset_moves_each_edge_by_its_own_distance():
    assert inset(SQUARE, [1, 2, 3, 4]) == approx([4 + 1j, 8 + 1j, 8 + 7j, 4 + 7j])


def test_inset_beyond_the_middle_leaves_nothing():
    assert inset(SQUARE, [6, 0, 6, 0]) is None


def test_clearance_is_negative_inside_and_positive_outside():
    assert clearance_m(3 + 5j, SQUARE) == approx(-3)
    assert clearance_m(12 + 5j, SQUARE) == approx(2)


def test_rings_are_apart_by_their_gap_and_no_more():
    neighbor = [z + 11.5 for z in SQUARE]
    assert are_apart(SQUARE, neighbor, 1.5)
    assert not are_apart(SQUARE, neighbor, 1.6)


def test_a_corner_on_the_edge_is_inside():
    assert is_inside([5 + 0j, 10 + 10j], SQUARE)
    assert not is_inside([5 + 0j, 10.1 + 10j], SQUARE)


def test_distance_to_a_line_ends_at_its_ends():
    assert distance_to_line_m(3 + 4j, [(-5, 0), (0, 0)]) == approx(5)
    assert distance_to_line_m(-2 + 4j, [(-5, 0), (0, 0)]) == approx(4)


def test_a_made_up_town_names_no_openstreetmap_contributors(town, tmp_path):
    town.write(tmp_path / "town.osm")
    assert read_osm(tmp_path / "town.osm").attribution == ""
