"""What the tags of maps become: roofs, parts, materials, sidewalks, markings, trees, the sea."""

import logging
import math

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import LineString, MultiPolygon, Point, Polygon, box

from crossview.features import Feature, MapFeatures, feature_table
from crossview.frames import LocalFrame
from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.scene import STOREYS, Building, Scene
from crossview.tags import height_m, min_height_m
from crossview.tiles import GeoBounds

FRAME = LocalFrame(50.0, 8.0)
STREET = LineString([(0, 0), (100, 0)])
HOUSE = box(0, 20, 12, 28)


def to_lon_lat(geometry_m):
    """A geometry of the frame, on the globe."""

    def turned(x_y: np.ndarray) -> np.ndarray:
        lat_deg, lon_deg = FRAME.to_geodetic(x_y[:, 0], x_y[:, 1])
        return np.column_stack([lon_deg, lat_deg])

    return shapely.transform(geometry_m, turned)


def scene_of(
    *rows: tuple, first_id: int = 0, half_m: float = 5000.0, storeys: tuple[int, ...] = ()
) -> Scene:
    """The scene of (kind, geometry in metres, tags) features, on a map of 2 half_m squared."""
    features = [
        Feature("way", k, kind, tags, to_lon_lat(geometry), height_m(tags), min_height_m(tags))
        for k, (kind, geometry, tags) in enumerate(rows, first_id)
    ]
    extent = GeoBounds(*shapely.bounds(to_lon_lat(box(-half_m, -half_m, half_m, half_m))))
    features_of_map = MapFeatures(feature_table(features), extent, "test")
    return Scene.from_features(features_of_map, FRAME, storeys=storeys)


def house(**tags: str) -> Building:
    (building,) = scene_of(("area", HOUSE, {"building": "yes", "height": "9"} | tags)).buildings
    return building


def area_of(scene: Scene, material: str) -> shapely.Geometry:
    """What layers of a material cover, whatever lies on top."""
    return shapely.union_all([layer.area for layer in scene.layers if layer.material == material])


def test_roofs_are_read_from_their_tags():
    gabled = house(**{"roof:shape": "gabled", "roof:height": "3"}).roof
    assert (gabled.shape, gabled.height_m, gabled.facing_deg) == ("gabled", 3.0, None)
    levels = house(**{"roof:shape": "half-hipped", "roof:levels": "1"}).roof
    assert (levels.shape, levels.height_m) == ("hipped", 3.0)
    skillion = house(**{"roof:shape": "skillion", "roof:direction": "NE"}).roof
    assert (skillion.shape, skillion.facing_deg) == ("skillion", approx(45.0, abs=0.01))
    assert house(**{"roof:shape": "gabled", "roof:orientation": "across"}).roof.is_across
    assert house().roof.shape == "flat"


def test_a_roof_without_a_height_rises_by_35_degrees_but_not_above_its_share():
    assert house(**{"roof:shape": "gabled"}).roof.height_m == approx(0.7 * 4, rel=1e-3)
    low = house(**{"roof:shape": "gabled", "height": "4"}).roof
    assert low.height_m == approx(0.4 * 4)


def test_what_a_roof_cannot_be_is_counted():
    rows = [
        ("area", HOUSE, {"building": "yes", "height": "5", "roof:shape": "gabled"} | tags)
        for tags in ({"roof:height": "7"}, {"roof:shape": "many"}, {"roof:direction": "up"})
    ]
    corner = Polygon([(0, 0), (12, 0), (12, 5), (5, 5), (5, 12), (0, 12)])
    rows.append(("area", corner, rows[0][2]))
    scene = scene_of(*rows)
    assert [b.roof.shape for b in scene.buildings] == ["gabled", "flat", "gabled", "flat"]
    assert scene.buildings[0].roof.height_m == 5.0
    assert scene.notes == {
        "gabled roofs that do not fit their footprints made flat": 1,
        "roofs higher than their buildings lowered": 2,
        "roofs of unknown shapes made flat": 1,
        "values of roof:direction that cannot be": 1,
    }


def test_a_part_stands_in_place_of_its_building():
    scene = scene_of(
        ("area", box(0, 0, 20, 20), {"building": "yes", "height": "6"}),
        ("area", box(0, 0, 10, 20), {"building:part": "yes", "height": "15", "min_height": "3"}),
    )
    rest, part = sorted(scene.buildings, key=lambda building: building.height_m)
    assert rest.footprint.area == approx(200, rel=1e-3)
    assert (part.height_m, part.base_m) == (15.0, 3.0)


def test_parts_that_fill_a_building_leave_nothing_of_it():
    halves = [box(0, 0, 10, 20), box(10, 0, 20, 20)]
    parts = [("area", half, {"building:part": "yes", "height": "9"}) for half in halves]
    scene = scene_of(("area", box(0, 0, 20, 20), {"building": "yes"}), *parts)
    assert [building.height_m for building in scene.buildings] == [9.0, 9.0]


def test_a_part_without_a_height_is_as_high_as_its_building():
    scene = scene_of(
        ("area", box(0, 0, 20, 20), {"building": "yes", "height": "14"}),
        ("area", box(0, 0, 20, 20), {"building:part": "yes"}),
    )
    assert [building.height_m for building in scene.buildings] == [14.0]


def test_heights_that_are_not_known_are_drawn_where_storeys_are_given():
    rows = [("area", box(20 * k, 0, 20 * k + 9, 9), {"building": "yes"}) for k in range(40)]
    rows += [
        ("area", box(0, 50, 5, 55), {"building": "garage"}),
        ("area", box(20, 50, 30, 60), {"building": "yes", "height": "77"}),
    ]
    *drawn, shed, known = (b.height_m for b in scene_of(*rows, storeys=STOREYS).buildings)
    assert set(drawn) <= {3.0 * storeys for storeys in STOREYS}
    assert len(set(drawn)) >= 5
    assert (shed, known) == (3.0, 77.0)


def test_materials_are_stated_or_follow_from_who_a_building_is():
    assert house(**{"building:material": "brick"}).wall_material == "brick"
    assert house(**{"roof:material": "slate"}).roof_material == "slate"
    rows = [("area", box(20 * k, 0, 20 * k + 9, 9), {"building": "yes"}) for k in range(40)]
    forth = [building.wall_material for building in scene_of(*rows).buildings]
    assert len(set(forth)) > 2
    # the same houses in a map that holds fewer of them
    assert [b.wall_material for b in scene_of(*rows[30:], first_id=30).buildings] == forth[30:]


@pytest.mark.parametrize(
    ("tags", "left_m", "right_m"),
    [
        ({}, 2.0, 2.0),
        ({"sidewalk": "left"}, 2.0, 0.0),
        ({"sidewalk": "separate"}, 0.0, 0.0),
        ({"sidewalk:right": "yes", "sidewalk": "no"}, 0.0, 2.0),
        ({"sidewalk:left:width": "3.5", "sidewalk": "left"}, 3.5, 0.0),
        ({"highway": "motorway"}, 0.0, 0.0),
        ({"highway": "service"}, 0.0, 0.0),
    ],
)
def test_sidewalks_lie_on_the_sides_that_are_said(tags: dict, left_m: float, right_m: float):
    scene = scene_of(("line", STREET, {"highway": "residential", "width": "6"} | tags))
    # the street runs east, so that its left is north
    for side, width_m in ((1, left_m), (-1, right_m)):
        for offset_m in (0.1, 1.9, 3.4):
            is_sidewalk = scene.sidewalks.contains(Point(50, side * (3.0 + offset_m)))
            assert is_sidewalk == (offset_m < width_m)
    assert scene.carriageways[0].sidewalks_m == (left_m, right_m)


def test_kerbs_are_strips_of_15_cm_between_road_and_sidewalk():
    kerbs = area_of(scene_of(("line", STREET, {"highway": "residential", "width": "6"})), "kerb")
    assert kerbs.contains(Point(50, 3.14))
    assert not kerbs.contains(Point(50, 3.16))


def test_lanes_are_divided_by_dashes_off_junctions():
    cross = LineString([(50, -60), (50, 0), (50, 60)])
    tags = {"highway": "secondary", "width": "7", "lanes": "2"}
    first, second = LineString([(0, 0), (50, 0)]), LineString([(50, 0), (100, 0)])
    scene = scene_of(*(("line", line, tags) for line in (first, second, cross)))
    dashes = shapely.get_parts(area_of(scene, "paint"))
    assert shapely.area(dashes) == approx(3.0 * 0.12, rel=1e-3)
    along = [dash for dash in dashes if abs(dash.centroid.y) < 0.1]
    assert all(abs(dash.centroid.x - 50) > 3.5 for dash in dashes if dash in along)
    gaps = np.diff(sorted(dash.centroid.x for dash in along if dash.centroid.x < 50))
    assert gaps == approx([9.0] * len(gaps), rel=1e-3)


def test_one_way_lanes_are_divided_and_narrow_streets_are_not():
    def marks(**tags: str) -> np.ndarray:
        return shapely.get_parts(area_of(scene_of(("line", STREET, tags)), "paint"))

    three = marks(highway="primary", lanes="3", oneway="yes", width="9")
    assert sorted({round(mark.centroid.y, 1) for mark in three}) == [-1.5, 1.5]
    assert not len(marks(highway="residential", width="5"))
    assert not len(marks(highway="residential", width="6", oneway="yes"))
    four = marks(highway="primary", lanes="4", width="12")
    solid = [mark for mark in four if abs(mark.centroid.y) < 0.1]
    assert sum(mark.area for mark in solid) == approx(0.12 * 99, rel=0.02)


@pytest.mark.parametrize(
    ("tags", "is_striped"),
    [
        ({}, True),
        ({"crossing": "zebra"}, True),
        ({"crossing": "unmarked"}, False),
        ({"crossing:markings": "no", "crossing": "traffic_signals"}, False),
    ],
)
def test_marked_crossings_have_stripes_along_the_street(tags: dict, is_striped: bool):
    scene = scene_of(
        ("line", STREET, {"highway": "residential", "width": "6", "lanes": "1"}),
        ("point", Point(50, 0), {"highway": "crossing"} | tags),
    )
    paint = area_of(scene, "paint").intersection(box(40, -5, 60, 5))
    assert paint.area == approx(6 * 4.0 * 0.5 if is_striped else 0.0, rel=1e-3, abs=1e-9)
    if is_striped:
        assert paint.bounds == approx((48, -2.75, 52, 2.75), abs=1e-3)


def test_a_crossing_way_is_striped_where_it_meets_the_street():
    way = LineString([(30, -8), (30, 8)])
    scene = scene_of(
        ("line", STREET, {"highway": "residential", "width": "6", "lanes": "1"}),
        ("line", way, {"highway": "footway", "footway": "crossing", "crossing": "zebra"}),
    )
    assert area_of(scene, "paint").bounds == approx((28, -2.75, 32, 2.75), abs=1e-3)
    assert not scene.footways


def test_car_parks_have_rows_of_bays_with_an_aisle():
    scene = scene_of(("area", box(0, 0, 30, 16), {"amenity": "parking"}))
    assert len(scene.bays) == 24
    assert {round(bay.y_m, 1) for bay in scene.bays} == {2.5, 13.5}
    lines = area_of(scene, "paint")
    assert scene.roads.buffer(0.1).contains(lines)
    parallel = scene_of(("area", box(0, 0, 30, 2.2), {"amenity": "parking"})).bays
    assert [bay.heading_deg % 180 for bay in parallel] == approx([90.0] * 5, abs=1e-3)


def test_bays_leave_the_lane_through_a_car_park_free():
    lane = LineString([(15, -20), (15, 40)])
    scene = scene_of(
        ("area", box(0, 0, 30, 16), {"amenity": "parking"}),
        ("line", lane, {"highway": "service", "width": "4"}),
    )
    assert len(scene.bays) == 20
    assert all(abs(bay.x_m - 15) > 3.2 for bay in scene.bays)


def test_surfaces_are_materials():
    scene = scene_of(
        ("line", STREET, {"highway": "residential", "surface": "sett"}),
        ("line", LineString([(0, 50), (99, 50)]), {"highway": "path", "surface": "gravel"}),
        ("area", box(0, 80, 9, 89), {"leisure": "pitch"}),
        ("area", box(20, 80, 29, 89), {"landuse": "grass"}),
    )
    for material, place in (("sett", (50, 0)), ("gravel", (50, 50)), ("court", (4, 84))):
        assert area_of(scene, material).contains(Point(place))
    mesh = scene.mesh
    kinds = set(zip(mesh.classes.tolist(), mesh.materials.tolist(), strict=True))
    for pair in (("road", "sett"), ("sidewalk", "gravel"), ("terrain", "grass")):
        assert (CLASSES.index(pair[0]), MATERIALS.index(pair[1])) in kinds


def test_lights_and_signs_on_a_street_stand_at_its_right_kerb_and_face_those_who_come():
    scene = scene_of(
        ("line", STREET, {"highway": "residential", "width": "6"}),
        ("point", Point(50, 0), {"highway": "traffic_signals"}),
        ("point", Point(60, 0), {"highway": "stop", "direction": "backward"}),
        ("point", Point(70, 4), {"highway": "street_lamp"}),
    )
    light, stop, lamp = scene.posts
    assert (light.kind, light.x_m, light.y_m) == ("signal", approx(50), approx(-3.5, abs=1e-3))
    assert light.facing_deg == approx(270.0, abs=0.01)
    assert (stop.y_m, stop.facing_deg) == (approx(3.5, abs=1e-3), approx(90.0, abs=0.01))
    # its arm reaches over the street
    assert (lamp.y_m, lamp.facing_deg) == (approx(4, abs=1e-3), approx(180.0, abs=0.01))


def test_a_fence_across_a_street_leaves_it_open():
    scene = scene_of(
        ("line", STREET, {"highway": "residential", "width": "6"}),
        ("line", LineString([(50, -20), (50, 20)]), {"barrier": "fence"}),
    )
    ends = sorted(barrier.line.bounds[1::2] for barrier in scene.barriers)
    assert ends == [approx((-20, -3), abs=1e-3), approx((3, 20), abs=1e-3)]
    assert scene.notes == {"fences, walls and hedges across streets cut": 1}


def test_trees_do_not_stand_on_streets_or_in_buildings():
    tree = {"natural": "tree", "leaf_type": "needleleaved"}
    scene = scene_of(
        ("line", STREET, {"highway": "residential", "width": "6"}),
        ("area", HOUSE, {"building": "yes"}),
        *(("point", Point(place), tree) for place in ((50, 1), (5, 24), (50, 8))),
    )
    (left,) = scene.trees
    assert (left.y_m, left.leaves) == (approx(8, abs=1e-3), "needles")
    assert scene.notes == {"trees in buildings or on streets left out": 2}


def test_tree_rows_are_planted_every_8_m():
    trees = scene_of(("line", LineString([(0, 9), (80, 9)]), {"natural": "tree_row"})).trees
    assert [tree.x_m for tree in trees] == approx([8.0 * k for k in range(11)], abs=1e-2)


def test_woods_get_trees_unless_some_are_mapped():
    wood = box(0, 0, 140, 140)
    scene = scene_of(("area", wood, {"natural": "wood"}))
    assert 300 < len(scene.trees) <= 441
    assert all(wood.buffer(0.1).contains(Point(tree.x_m, tree.y_m)) for tree in scene.trees)
    assert scene.trees == scene_of(("area", wood, {"natural": "wood"})).trees
    tree = "point", Point(5, 5), {"natural": "tree"}
    assert len(scene_of(("area", wood, {"natural": "wood"}), tree).trees) == 1


def test_the_sea_is_right_of_the_coast():
    west = scene_of(
        ("line", LineString([(0, 900), (0, -900)]), {"natural": "coastline"}), half_m=500
    )
    east = scene_of(
        ("line", LineString([(0, -900), (0, 900)]), {"natural": "coastline"}), half_m=500
    )
    island = LineString([(-50, -50), (50, -50), (50, 50), (-50, 50), (-50, -50)])
    around = scene_of(("line", island, {"natural": "coastline"}), half_m=500)
    for scene, is_sea in ((west, (True, False)), (east, (False, True)), (around, (True, True))):
        assert tuple(scene.water.contains(Point(x, 0)) for x in (-400, 400)) == is_sea
    assert not around.water.contains(Point(0, 0))


def test_what_lies_beyond_the_map_is_left_out():
    houses = [box(x, 0, x + 10, 10) for x in (0, 600, 800)]
    rows = [("area", footprint, {"building": "yes"}) for footprint in houses]
    lake = "area", box(-9000, -9000, -100, 9000), {"natural": "water"}
    scene = scene_of(*rows, lake, half_m=500)
    assert len(scene.buildings) == 2
    west, south, _, north = scene.water.bounds
    assert (west, south, north) == approx((-700, -700, 700), abs=2)


ABSURD = {
    "height": ({"height": "1e9"}, "heights of buildings that cannot be"),
    "words": ({"height": "tall"}, "heights of buildings that cannot be"),
    "levels": ({"building:levels": "-3"}, "heights of buildings that cannot be"),
    "base": (
        {"height": "5", "min_height": "7"},
        "buildings that end below where they begin put on the ground",
    ),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_tags_give_a_usual_building_and_a_note(case: str, caplog):
    tags, note = ABSURD[case]
    with caplog.at_level(logging.WARNING):
        scene = scene_of(("area", HOUSE, {"building": "yes"} | tags))
    (building,) = scene.buildings
    assert (building.height_m, building.base_m) == (5.0 if case == "base" else 8.0, 0.0)
    assert scene.notes == {note: 1}
    assert note in caplog.text


def test_absurd_trees_and_fences_get_usual_sizes():
    scene = scene_of(
        ("point", Point(0, 0), {"natural": "tree", "height": "1e9", "diameter_crown": "900"}),
        ("line", STREET, {"barrier": "fence", "height": "300"}),
    )
    assert (scene.trees[0].height_m, scene.trees[0].crown_radius_m) == (8.0, 2.5)
    assert scene.barriers[0].height_m == 1.2
    assert sum(scene.notes.values()) == 3


def test_crossed_and_empty_outlines_are_mended_or_left_out():
    bow_tie = Polygon([(0, 0), (20, 20), (20, 0), (0, 20)])
    sliver = Polygon([(0, 0), (20, 0), (20, 0.001)])
    with np.errstate(invalid="ignore"):
        nowhere = Polygon([(0, 0), (math.nan, 0), (5, 5)])
    features = [
        Feature("way", k, "area", {"building": "yes"}, geometry)
        for k, geometry in enumerate([to_lon_lat(bow_tie), to_lon_lat(sliver), nowhere])
    ]
    features.append(Feature("way", 9, "area", {"building": "yes"}, Polygon()))
    extent = GeoBounds(7.9, 49.9, 8.1, 50.1)
    scene = Scene.from_features(MapFeatures(feature_table(features), extent, "test"), FRAME)
    assert sum(building.footprint.area for building in scene.buildings) == approx(200, rel=1e-3)
    assert scene.notes["features without a place left out"] == 2
    assert scene.notes["buildings of less than 0.5 m2 left out"] == 1


@pytest.mark.parametrize("noise_m", [0.0, 3.0])
def test_half_a_million_corners_are_simplified(noise_m: float):
    turn = np.linspace(0, 2 * np.pi, 500_000, endpoint=False)
    noise = noise_m * np.random.default_rng(0).random(len(turn))
    radius = 100 + 5 * np.sin(40 * turn) + noise
    star = Polygon(np.column_stack([radius * np.cos(turn), radius * np.sin(turn)]))
    scene = scene_of(("area", star, {"building": "yes", "height": "20"}))
    corners = sum(shapely.get_num_coordinates(b.footprint) for b in scene.buildings)
    assert corners <= 2000
    area = sum(building.footprint.area for building in scene.buildings)
    assert area == approx(star.area, rel=0.01 if noise_m == 0 else 0.1)
    assert scene.notes["outlines of more than 2000 corners simplified"] == 1


def test_buildings_may_overlap():
    rows = [
        ("area", box(k, 0, k + 10, 10), {"building": "yes", "height": f"{9 + k}"}) for k in (0, 5)
    ]
    mesh = scene_of(*rows).mesh
    assert set(mesh.instances) == {0, 1, 2}


@pytest.mark.parametrize("rows", [(), (("point", Point(0, 0), {"amenity": "bench"}),)])
def test_a_map_of_next_to_nothing_is_a_lawn(rows: tuple):
    mesh = scene_of(*rows).mesh
    assert CLASSES.index("terrain") in mesh.classes
    west, south, low, east, north, _ = mesh.bounds
    assert low == 0.0
    assert east - west == approx(100, abs=3)
    assert north - south == approx(100, abs=3)


def test_multipolygons_are_as_many_buildings():
    scene = scene_of(
        ("area", MultiPolygon([box(0, 0, 9, 9), box(20, 0, 29, 9)]), {"building": "yes"})
    )
    assert len(scene.buildings) == 2
    assert len({building.wall_material for building in scene.buildings}) == 1


def test_shops_are_where_their_points_or_areas_are():
    scene = scene_of(
        ("point", Point(6, 21), {"shop": "bakery"}),
        ("area", HOUSE, {"building": "retail", "shop": "supermarket"}),
    )
    assert [tuple(np.round(place)) for place in scene.shops_m] == [(6, 21), (6, 24)]
