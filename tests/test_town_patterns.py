"""Grown towns: the same everywhere, nothing in the way of anything, sound as maps."""

import functools
import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter

import networkx
import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import LineString, Point, Polygon

from crossview.synthetic.cells import BORDER, CellComplex, area_m2, clipped, shrunk, width_m
from crossview.synthetic.plan import Area, Dice, direction
from crossview.synthetic.roads import DRIVABLE
from crossview.synthetic.town import Town
from crossview.tags import strip_width_m
from crossview.vectors import VectorMap

PATTERNS = ("grid", "organic", "mixed")
SEEDS = range(3)
SIZE_M = 600.0
TOWNS = [(pattern, seed) for pattern in PATTERNS for seed in SEEDS]
SHA256 = {
    ("grid", 0): "5ae9e5a8f79b2861d7056818f75a1284d2c7b3a5e609a50cfcbd604fd1520515",
    ("organic", 1): "acab95f8ad40800692765f29ab1a44d7cfb48c106a9aed65d5cc5ddeba35596c",
    ("mixed", 2): "873a223cf5785aca967782f74b1c77ec68083532222f200b23a20145c71a29e7",
}
LEAST_BUILDINGS, LEAST_TREES, LEAST_BARRIERS = 250, 300, 50

SQUARE = [0j, 100 + 0j, 100 + 100j, 100j]


@functools.cache
def town_of(pattern, seed):
    return Town.from_seed(seed, pattern=pattern, size_m=SIZE_M)


def polygon(area: Area) -> Polygon:
    return Polygon(area.outer, area.inner)


@functools.cache
def footprints(pattern, seed):
    return [polygon(building) for building in town_of(pattern, seed).plan.buildings]


def carriageways(plan):
    """Every carriageway, the ways of car parks too, as wide as it is and as a map would say."""
    for street in plan.streets:
        width = max(street.width_m, strip_width_m(street.tags))
        yield LineString(street.line), width
    for line in plan.lines:
        if line.tags.get("highway") == "service":
            yield LineString(line.line), strip_width_m(line.tags)


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_no_building_overlaps_another(pattern, seed):
    buildings = footprints(pattern, seed)
    assert len(buildings) > LEAST_BUILDINGS
    assert all(footprint.is_valid for footprint in buildings)
    one, other = shapely.STRtree(buildings).query(buildings, predicate="intersects")
    overlaps_m2 = [
        buildings[a].intersection(buildings[b]).area
        for a, b in zip(one, other, strict=True)
        if a < b
    ]
    # walls that are shared are rounded to the centimetre
    assert max(overlaps_m2, default=0.0) < 0.1


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_every_wall_is_half_a_width_or_more_from_every_street_line(pattern, seed):
    walls = shapely.STRtree(footprints(pattern, seed))
    for line, width in carriageways(town_of(pattern, seed).plan):
        assert not walls.query(line, predicate="dwithin", distance=width / 2).size


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_footways_do_not_lead_through_walls(pattern, seed):
    walls = shapely.STRtree(footprints(pattern, seed))
    for line in town_of(pattern, seed).plan.lines:
        if "highway" in line.tags:
            assert not walls.query(LineString(line.line), predicate="dwithin", distance=0.5).size


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_barriers_stand_outside_of_walls_and_beside_carriageways(pattern, seed):
    plan = town_of(pattern, seed).plan
    walls = shapely.STRtree(footprints(pattern, seed))
    roads = shapely.union_all([line.buffer(width / 2) for line, width in carriageways(plan)])
    shapely.prepare(roads)
    barriers = [LineString(line.line) for line in plan.lines if "barrier" in line.tags]
    assert len(barriers) > LEAST_BARRIERS
    for barrier in barriers:
        assert not walls.query(barrier, predicate="intersects").size
        assert not roads.intersects(barrier)


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_trees_stand_in_the_open(pattern, seed):
    plan = town_of(pattern, seed).plan
    walls = shapely.STRtree(footprints(pattern, seed))
    blocked = [line.buffer(width / 2) for line, width in carriageways(plan)]
    blocked += [polygon(a) for a in plan.areas if a.tags.get("natural") == "water"]
    blocked = shapely.STRtree(blocked)
    trees = [place for place in plan.places if place.tags.get("natural") == "tree"]
    assert len(trees) > LEAST_TREES
    for tree in trees:
        crown = Point(tree.point).buffer(float(tree.tags["diameter_crown"]) / 2)
        assert not walls.query(crown, predicate="intersects").size
        assert not blocked.query(Point(tree.point), predicate="dwithin", distance=0.25).size
    rows = [line for line in plan.lines if line.tags.get("natural") == "tree_row"]
    for row in rows:
        assert not walls.query(LineString(row.line), predicate="dwithin", distance=1.0).size
        assert not blocked.query(LineString(row.line), predicate="intersects").size


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_lamps_stops_and_bollards_stand_beside_the_carriageways(pattern, seed):
    plan = town_of(pattern, seed).plan
    walls = shapely.STRtree(footprints(pattern, seed))
    roads = shapely.STRtree([LineString(s.line).buffer(s.width_m / 2) for s in plan.streets])
    for place in plan.places:
        if place.tags.get("highway") in ("street_lamp", "bus_stop") or "barrier" in place.tags:
            assert not roads.query(Point(place.point), predicate="intersects").size
            assert not walls.query(Point(place.point), predicate="dwithin", distance=0.05).size


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_water_lies_clear_of_buildings_and_only_bridges_cross_it(pattern, seed):
    plan = town_of(pattern, seed).plan
    walls = shapely.STRtree(footprints(pattern, seed))
    for area in plan.areas:
        if area.tags.get("natural") != "water":
            continue
        water = polygon(area)
        assert water.is_valid
        assert not walls.query(water, predicate="intersects").size
        if area.tags["water"] == "pond":
            continue
        for street in plan.streets:
            is_bridge = street.tags.get("bridge") == "yes"
            assert is_bridge or LineString(street.line).distance(water) > street.width_m / 2


def directed(plan):
    """The streets as cars may take them."""
    graph = networkx.DiGraph()
    for street in plan.streets:
        for start, end in itertools.pairwise(street.line):
            graph.add_edge(start, end)
            if street.tags.get("oneway") != "yes":
                graph.add_edge(end, start)
    return graph


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_cars_come_from_everywhere_to_everywhere(pattern, seed):
    graph = directed(town_of(pattern, seed).plan)
    assert networkx.is_strongly_connected(graph)


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_streets_cross_only_at_nodes_that_they_share(pattern, seed):
    plan = town_of(pattern, seed).plan
    lines = [LineString(street.line) for street in plan.streets]
    shared = Counter(point for street in plan.streets for point in set(street.line))
    one, other = shapely.STRtree(lines).query(lines, predicate="intersects")
    for a, b in zip(one, other, strict=True):
        if a < b:
            meeting = shapely.get_coordinates(lines[a].intersection(lines[b]))
            assert all(shared[tuple(point)] > 1 for point in meeting)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_hierarchy_of_streets_is_there(pattern):
    plans = [town_of(pattern, seed).plan for seed in SEEDS]
    kinds = Counter(street.tags["highway"] for plan in plans for street in plan.streets)
    assert {"secondary", "tertiary", "residential", "living_street", "service"} <= set(kinds)
    assert set(kinds) <= set(DRIVABLE)
    assert kinds["residential"] > kinds["secondary"]
    walked = {line.tags.get("highway") for plan in plans for line in plan.lines}
    assert "footway" in walked


def test_some_streets_end_are_one_way_bridge_water_or_go_round():
    plans = [town_of(pattern, seed).plan for pattern, seed in TOWNS]
    streets = [street for plan in plans for street in plan.streets]
    assert sum(s.tags.get("oneway") == "yes" and "junction" not in s.tags for s in streets) > 5
    assert sum(s.tags.get("bridge") == "yes" for s in streets) > 5
    assert sum(s.tags.get("junction") == "roundabout" for s in streets) > 3
    marks = [mark.tags.get("highway") for plan in plans for mark in plan.marks]
    assert marks.count("turning_circle") > 5


def bend_deg(line):
    steps = np.diff(np.array(line), axis=0)
    headings = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
    return np.degrees(np.ptp(headings))


def test_organic_streets_are_curved_and_those_of_a_grid_are_straight():
    long = {
        pattern: [
            bend_deg(street.line)
            for seed in SEEDS
            for street in town_of(pattern, seed).plan.streets
            if LineString(street.line).length > 150 and "junction" not in street.tags
        ]
        for pattern in ("organic", "grid")
    }
    assert np.median(long["organic"]) > 8
    assert np.median(long["grid"]) < 0.5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_blocks_serve_many_ends(pattern):
    areas = Counter()
    for seed in SEEDS:
        for area in town_of(pattern, seed).plan.areas:
            areas.update(area.tags.items())
    for tag in (
        ("leisure", "park"),
        ("leisure", "pitch"),
        ("amenity", "school"),
        ("amenity", "parking"),
        ("amenity", "parking_space"),
        ("place", "square"),
        ("landuse", "grass"),
    ):
        assert areas[tag], tag
    buildings = [b for seed in SEEDS for b in town_of(pattern, seed).plan.buildings]
    kinds = Counter(building.tags["building"] for building in buildings)
    assert {"apartments", "house", "yes", "shed", "garage", "office", "school"} <= set(kinds)
    corners = Counter(len(building.outer) for building in buildings)
    assert corners[6] > 10  # L
    assert corners[8] > 10  # T and U
    assert any(building.inner for building in buildings)


def test_building_tags_have_the_gaps_of_real_maps():
    buildings = [b.tags for pattern, seed in TOWNS for b in town_of(pattern, seed).plan.buildings]
    told = Counter(key for tags in buildings for key in tags)
    nothing = sum("height" not in t and "building:levels" not in t for t in buildings)
    count = len(buildings)
    assert 0.15 < nothing / count < 0.5
    assert 0.4 < told["building:levels"] / count < 0.8
    assert 0.1 < told["height"] / count < 0.5
    assert 0.3 < told["roof:shape"] / count < 0.7
    assert 0 < told["building:colour"] / count < 0.2
    shapes = {tags["roof:shape"] for tags in buildings if "roof:shape" in tags}
    assert shapes == {"flat", "gabled", "hipped", "pyramidal", "skillion"}
    for tags in buildings:
        if tags.get("roof:shape") in ("flat", None):
            assert "roof:height" not in tags
            assert "roof:levels" not in tags
        if "height" in tags and "roof:height" in tags:
            assert float(tags["height"]) > float(tags["roof:height"])
    assert {tags["roof:orientation"] for tags in buildings if "roof:orientation" in tags} == {
        "along",
        "across",
    }
    assert any("roof:direction" in tags for tags in buildings)


def test_building_parts_fill_the_towers_that_they_belong_to():
    found = 0
    for pattern, seed in TOWNS:
        plan = town_of(pattern, seed).plan
        parts = [area for area in plan.areas if "building:part" in area.tags]
        wholes = shapely.STRtree(footprints(pattern, seed))
        for part in parts:
            (owner,) = wholes.query(polygon(part).buffer(-0.1), predicate="intersects")
            assert wholes.geometries[owner].buffer(0.02).contains(polygon(part))
            if "min_height" in part.tags:
                found += 1
                assert 0 < float(part.tags["min_height"]) < float(part.tags["height"])
                height = float(plan.buildings[owner].tags["height"])
                assert float(part.tags["height"]) == height
    assert found > 3


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_marks_are_nodes_of_ways_and_crossings_of_streets(pattern, seed):
    plan = town_of(pattern, seed).plan
    on_streets = {point for street in plan.streets for point in street.line}
    on_lines = {point for line in plan.lines for point in line.line}
    on_walls = {point for building in plan.buildings for point in building.outer}
    kinds = Counter()
    for mark in plan.marks:
        kinds.update(mark.tags.items())
        key = next(iter(mark.tags))
        home = {"highway": on_streets, "barrier": on_lines, "entrance": on_walls}[key]
        assert mark.point in home, mark
    assert kinds["highway", "crossing"] > 10
    assert kinds["crossing:markings", "zebra"] > 5
    assert kinds["barrier", "gate"] > 10
    assert kinds["entrance", "yes"] > 5


@pytest.mark.parametrize("pattern,seed", TOWNS)
def test_streets_carry_the_tags_of_real_ones(pattern, seed):
    plan = town_of(pattern, seed).plan
    named = [s for s in plan.streets if s.tags["highway"] not in ("service",)]
    named = [s for s in named if "junction" not in s.tags]
    assert all(street.tags.get("name") for street in named)
    assert len({street.tags["name"] for street in named}) > 0.5 * len(named)
    told = Counter(key for street in plan.streets for key in street.tags)
    assert 0 < told["width"] < len(plan.streets)
    assert told["lanes"] and told["maxspeed"] and told["surface"] and told["lit"]
    assert any(key.startswith("parking:") for key in told)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_everything_is_found_again_in_the_file(pattern, tmp_path):
    town = town_of(pattern, 0)
    path = tmp_path / "town.osm"
    town.write(path)
    vector_map = VectorMap.read(path)
    table = vector_map.features.table
    assert not any(vector_map.features.skipped.values())
    plan = town.plan
    tags = table["tags"]
    assert sum("building" in t for t in tags) == len(plan.buildings)
    is_area = table["kind"] == "area"
    assert is_area.sum() == len(plan.buildings) + len(plan.areas)
    assert (table["kind"] == "line").sum() == len(plan.streets) + len(plan.lines)
    tagged = len({mark.point for mark in plan.marks}) + len(plan.places)
    assert (table["kind"] == "point").sum() == tagged
    x_m, y_m = town.frame.to_local(*np.array(vector_map.features.extent)[[1, 0]])
    assert max(abs(x_m), abs(y_m)) < SIZE_M


def test_osmnx_itself_reads_the_same(tmp_path):
    import osmnx

    town = town_of("mixed", 1)
    town.write(tmp_path / "town.osm")
    table = osmnx.features_from_xml(tmp_path / "town.osm", tags={"building": True})
    assert len(table) == len(town.plan.buildings)
    areas = shapely.transform(
        table.geometry.to_numpy(),
        lambda lon_lat: np.column_stack(town.frame.to_local(lon_lat[:, 1], lon_lat[:, 0])),
    )
    ours = sorted(footprint.area for footprint in footprints("mixed", 1))
    assert sorted(shapely.area(areas)) == approx(ours, rel=0.01)


def test_another_process_with_other_hashes_makes_the_same_town():
    code = (
        "import sys; from crossview.synthetic.town import Town;"
        f"town = Town.from_seed(2, pattern='mixed', size_m={SIZE_M});"
        "sys.stdout.buffer.write(town.to_osm_xml())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert run.stdout == town_of("mixed", 2).to_osm_xml()


@pytest.mark.parametrize("pattern,seed", [("grid", 0), ("organic", 1), ("mixed", 2)])
def test_a_seed_and_a_pattern_make_the_same_town_on_every_machine(pattern, seed):
    xml = town_of(pattern, seed).to_osm_xml()
    assert hashlib.sha256(xml).hexdigest() == SHA256[pattern, seed]


def test_the_default_is_the_lattice_as_it_always_was():
    # models were fitted on these towns
    assert (
        hashlib.sha256(Town.from_seed(100).to_osm_xml()).hexdigest()
        == "1f9359c773872bfd448317a88f44d9e7753d9d3e0746c32d156e994ff689c893"
    )
    assert Town.from_seed(3, pattern="lattice").plan == Town.from_seed(3).plan


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_town_about_fills_its_square(pattern):
    plan = town_of(pattern, 0).plan
    hull = shapely.convex_hull(
        shapely.MultiPoint([point for street in plan.streets for point in street.line])
    )
    assert 0.8 * SIZE_M**2 < hull.area < 1.25 * SIZE_M**2
    assert abs(shapely.centroid(hull).x) < 0.06 * SIZE_M


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_large_town_has_proportionally_more(pattern):
    plan = Town.from_seed(5, pattern=pattern, size_m=1600.0).plan
    assert len(plan.buildings) > 1600
    assert networkx.is_strongly_connected(directed(plan))


@pytest.mark.parametrize(
    "options,words",
    [
        ({"pattern": "radial"}, "lattice, grid, organic, mixed"),
        ({"pattern": "grid", "size_m": 10.0}, "300 to 2500 m"),
        ({"pattern": "grid", "size_m": float("nan")}, "300 to 2500 m"),
        ({"size_m": 500.0}, "always 370 m"),
    ],
)
def test_a_town_that_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Town.from_seed(0, **options)


def test_viewpoints_reach_as_far_as_the_town_is_large():
    town = town_of("organic", 0)
    poses = town.viewpoints(60, seed=1)
    far_m = [np.hypot(pose.x_m, pose.y_m) for pose in poses]
    assert 140.0 < max(far_m) <= 140.0 * SIZE_M / 370.0
    walls = shapely.union_all(footprints("organic", 0))
    assert min(walls.distance(Point(pose.x_m, pose.y_m)) for pose in poses) >= 4.0 - 1e-6


def test_cutting_a_cell_leaves_its_area_and_makes_convex_parts():
    dice = Dice(3)
    cells = CellComplex(SQUARE)
    waiting = [cells.whole]
    for line in range(30):
        cell = waiting.pop(0)
        origin = complex(dice.between(0, 100), dice.between(0, 100))
        along = direction(dice.between(0, 7))
        waiting += cells.cut(cell, origin, along, line, snap_m=1.0, min_width_m=0.5)
    shapes = [cells.shape(cell) for cell in waiting]
    assert len(shapes) > 5
    assert sum(map(area_m2, shapes)) == approx(10_000)
    for shape in shapes:
        ring = Polygon([(z.real, z.imag) for z in shape])
        assert ring.area == approx(shapely.convex_hull(ring).area)
    lines = set(cells.line_of.values())
    assert BORDER in lines
    assert len(lines) > 5


def test_a_cut_that_ends_near_a_node_moves_into_it():
    cells = CellComplex(SQUARE)
    west, east = cells.cut(cells.whole, 50 + 0j, 1j, 0, snap_m=5.0, min_width_m=1.0)
    left = west if cells.nodes[west[0]].real + cells.nodes[west[1]].real < 150 else east
    before = len(cells.nodes)
    cells.cut(left, 48 + 97j, direction(-0.4), 1, snap_m=5.0, min_width_m=1.0)
    assert len(cells.nodes) <= before + 1


def test_clipping_keeps_the_labels_of_edges():
    ring, labels = clipped(SQUARE, list("sena"), 50 + 0j, 1j, "cut")
    assert {(z.real, z.imag) for z in ring} == {(0, 0), (50, 0), (50, 100), (0, 100)}
    label_of = dict(zip(ring, labels, strict=True))
    assert label_of[50 + 0j] == "cut"
    assert label_of[0j] == "s"
    assert label_of[100j] == "a"


def test_shrinking_a_ring_moves_every_edge_and_drops_those_that_vanish():
    assert area_m2(shrunk(SQUARE, 10.0)) == approx(6400)
    assert shrunk(SQUARE, 51.0) == []
    house = [0j, 10 + 0j, 10 + 9j, 5 + 10j, 9j]
    buffered = Polygon([(z.real, z.imag) for z in house]).buffer(-2.0, join_style="mitre")
    assert area_m2(shrunk(house, 2.0)) == approx(buffered.area)


def test_the_width_of_a_ring_is_that_of_the_narrowest_strip_around_it():
    assert width_m([0j, 30 + 0j, 30 + 10j, 10j]) == approx(10)
    assert width_m([0j, 10 + 0j, 5 + 5j]) == approx(5)


def test_a_direction_is_what_sine_and_cosine_say():
    angles_rad = np.linspace(-20, 20, 101)
    steps = np.array([direction(float(angle)) for angle in angles_rad])
    assert steps == approx(np.exp(1j * angles_rad), abs=1e-12)


def test_a_street_that_only_touches_a_corner_of_a_block_is_clear_of_it_too():
    # the secondary street passes the corner of a block between two streets that end there
    plan = Town.from_seed(34, pattern="mixed", size_m=1500.0).plan
    walls = shapely.STRtree([polygon(building) for building in plan.buildings])
    fences = shapely.STRtree(
        [LineString(line.line) for line in plan.lines if "barrier" in line.tags]
    )
    for line, width in carriageways(plan):
        assert not walls.query(line, predicate="dwithin", distance=width / 2).size
        assert not fences.query(line, predicate="dwithin", distance=width / 2).size
