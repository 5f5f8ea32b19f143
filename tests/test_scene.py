"""Scenes: what the tags of a map look like from the street, in metres."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import LineString, MultiPolygon, Point, Polygon, box

from crossview.features import Feature, MapFeatures, feature_table
from crossview.frames import LocalFrame
from crossview.osm import read_osm
from crossview.synthetic import scene as scenes
from crossview.synthetic.scene import Barrier, Building, Scene, Tree
from crossview.synthetic.town import Town
from crossview.tags import height_m
from crossview.tiles import GeoBounds

FRAME = LocalFrame(50.0, 8.0)


def to_lon_lat(geometry_m):
    """A geometry of the frame, on the globe."""

    def turned(x_y: np.ndarray) -> np.ndarray:
        lat_deg, lon_deg = FRAME.to_geodetic(x_y[:, 0], x_y[:, 1])
        return np.column_stack([lon_deg, lat_deg])

    return shapely.transform(geometry_m, turned)


def scene_of(*rows: tuple) -> Scene:
    """The scene of (kind, geometry in metres, tags) features."""
    features = [
        Feature("way", k, kind, tags, to_lon_lat(geometry), height_m(tags))
        for k, (kind, geometry, tags) in enumerate(rows)
    ]
    extent = GeoBounds(7.9, 49.9, 8.1, 50.1)
    return Scene.from_features(MapFeatures(feature_table(features), extent, "test"), FRAME)


STREET = LineString([(0, 0), (100, 0)])


@pytest.fixture(scope="module")
def town() -> Town:
    return Town.from_seed(0)


@pytest.fixture(scope="module")
def town_features(town: Town, tmp_path_factory) -> MapFeatures:
    path = tmp_path_factory.mktemp("town") / "town.osm"
    town.write(path)
    return read_osm(path)


def test_a_building_has_the_height_of_its_tag():
    (building,) = scene_of(
        ("area", box(0, 0, 10, 20), {"building": "yes", "height": "12.5"})
    ).buildings
    assert building.height_m == 12.5
    assert building.footprint.symmetric_difference(box(0, 0, 10, 20)).area < 1e-3


def test_a_building_has_3_m_per_storey_and_8_m_where_nothing_is_known():
    scene = scene_of(
        ("area", box(0, 0, 10, 20), {"building": "yes", "building:levels": "4"}),
        ("area", box(20, 0, 30, 20), {"building": "yes"}),
    )
    assert [building.height_m for building in scene.buildings] == [12.0, 8.0]


def test_every_part_of_a_multipolygon_is_a_building_with_its_court():
    ring = box(0, 0, 30, 30).difference(box(10, 10, 20, 20))
    scene = scene_of(("area", MultiPolygon([ring, box(40, 0, 50, 9)]), {"building": "yes"}))
    assert [len(b.footprint.interiors) for b in scene.buildings] == [1, 0]


def test_a_road_is_as_wide_as_its_tag_with_a_sidewalk_on_both_sides():
    scene = scene_of(("line", STREET, {"highway": "residential", "width": "7"}))
    assert scene.roads.intersects(Point(50, 3.49))
    assert not scene.roads.intersects(Point(50, 3.51))
    assert scene.sidewalks.intersects(Point(50, -3.5 - 1.99))
    assert not scene.sidewalks.intersects(Point(50, -3.5 - 2.01))


def test_a_road_without_sidewalk_has_none_and_a_stated_width_counts():
    tags = {"highway": "residential", "width": "7"}
    assert scene_of(("line", STREET, tags | {"sidewalk": "no"})).sidewalks.is_empty
    wide = scene_of(("line", STREET, tags | {"sidewalk:both:width": "4"}))
    assert wide.sidewalks.intersects(Point(50, 3.5 + 3.99))
    assert not wide.sidewalks.intersects(Point(50, 3.5 + 4.01))


def test_footways_and_squares_are_sidewalk_and_car_parks_are_road():
    scene = scene_of(
        ("line", STREET, {"highway": "footway", "width": "3"}),
        ("area", box(0, 50, 20, 70), {"highway": "pedestrian", "area": "yes"}),
        ("area", box(50, 50, 70, 70), {"amenity": "parking"}),
        ("area", box(80, 50, 90, 70), {"natural": "water"}),
    )
    assert scene.sidewalks.area == approx(100 * 3 + np.pi * 1.5**2 + 400, rel=1e-2)
    assert scene.roads.area == approx(400, rel=1e-4)
    assert scene.water.area == approx(200, rel=1e-4)


def test_what_is_underground_is_not_seen():
    scene = scene_of(
        ("line", STREET, {"highway": "primary", "tunnel": "yes", "layer": "-1"}),
        ("area", box(0, 0, 10, 10), {"building": "yes", "location": "underground"}),
    )
    assert scene.roads.is_empty
    assert not scene.buildings


def test_barriers_have_their_own_height_and_look():
    scene = scene_of(
        ("line", STREET, {"barrier": "fence"}),
        ("line", STREET, {"barrier": "hedge", "height": "2.1"}),
        ("line", STREET, {"barrier": "wall"}),
        ("line", STREET, {"barrier": "kerb"}),
    )
    looks = [(barrier.class_name, barrier.height_m) for barrier in scene.barriers]
    assert looks == [("fence", 1.2), ("vegetation", 2.1), ("wall", 1.8)]


def test_a_hedge_drawn_as_an_area_is_its_outline():
    (hedge,) = scene_of(("area", box(0, 0, 10, 2), {"barrier": "hedge", "area": "yes"})).barriers
    assert hedge.line.length == approx(24, rel=1e-4)


def test_a_tree_has_the_size_of_its_tags():
    tags = {"natural": "tree", "height": "12", "diameter_crown": "6"}
    stated, usual = scene_of(
        ("point", Point(5, 7), tags), ("point", Point(9, 7), {"natural": "tree"})
    ).trees
    assert (stated.x_m, stated.y_m) == (approx(5, abs=1e-6), approx(7, abs=1e-6))
    assert (stated.height_m, stated.crown_radius_m) == (12.0, 3.0)
    assert (usual.height_m, usual.crown_radius_m) == (8.0, 2.5)


def test_an_empty_scene_has_nothing_on_the_ground():
    scene = scene_of(("point", Point(0, 0), {"amenity": "bench"}))
    assert scene.roads.is_empty
    assert scene.sidewalks.is_empty
    assert not scene.buildings


@pytest.mark.parametrize("top_m", [0.0, -3.0, float("nan"), float("inf")])
def test_a_building_without_a_positive_height_is_refused(top_m: float):
    with pytest.raises(ValueError, match="height_m must be positive"):
        Building(box(0, 0, 1, 1), top_m)


def test_a_building_on_a_multipolygon_is_refused():
    with pytest.raises(ValueError, match="one building per part"):
        Building(MultiPolygon([box(0, 0, 1, 1), box(2, 2, 3, 3)]), 5.0)


def test_a_tree_without_a_crown_and_a_barrier_of_no_class_are_refused():
    with pytest.raises(ValueError, match="positive height and crown"):
        Tree(0.0, 0.0, 8.0, 0.0)
    with pytest.raises(ValueError, match="class_name is 'hedge'; expected one of road"):
        Barrier(STREET, 1.5, "hedge")
    with pytest.raises(ValueError, match="height_m must be positive"):
        Barrier(STREET, 0.0)


def test_the_osm_reader_reads_the_whole_town(town: Town, town_features: MapFeatures):
    assert dict(town_features.skipped) == {}
    scene = Scene.from_features(town_features, town.frame)
    plan = town.plan
    assert len(scene.buildings) == len(plan.buildings)
    num_trees = sum(place.tags.get("natural") == "tree" for place in plan.places)
    assert len(scene.trees) == num_trees
    assert len(scene.barriers) == sum("barrier" in line.tags for line in plan.lines)


def test_buildings_come_through_the_file_to_the_centimetre(town: Town, town_features: MapFeatures):
    scene = Scene.from_features(town_features, town.frame)
    tree = shapely.STRtree([Polygon(area.outer, area.inner) for area in town.plan.buildings])
    for building in scene.buildings:
        nearest = tree.geometries[tree.nearest(building.footprint.representative_point())]
        assert building.footprint.hausdorff_distance(nearest) < 0.015


def test_carriageways_come_through_the_file_to_the_centimetre(
    town: Town, town_features: MapFeatures
):
    scene = Scene.from_features(town_features, town.frame)
    streets = [LineString(street.line).buffer(street.width_m / 2) for street in town.plan.streets]
    car_parks = [Polygon(a.outer) for a in town.plan.areas if a.tags.get("amenity") == "parking"]
    expected = shapely.union_all(streets + car_parks)
    assert scene.roads.symmetric_difference(expected).area < 0.002 * expected.area


def test_only_the_church_stands_where_people_walk(town: Town, town_features: MapFeatures):
    scene = Scene.from_features(town_features, town.frame)
    squares = [Polygon(area.outer) for area in town.plan.areas if "highway" in area.tags]
    for building in scene.buildings:
        assert not scene.roads.intersects(building.footprint)
        if not any(square.intersects(building.footprint) for square in squares):
            assert scene.sidewalks.intersection(building.footprint).area < 1.0


def test_the_mesh_is_made_once_by_threads_that_ask_at_the_same_time(monkeypatch):
    made, start, together = [], threading.Barrier(4), threading.Barrier(2)
    ground_mesh = scenes.ground_mesh

    def counted(*arguments, **options):
        made.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=0.1)  # for a second one that makes it
        return ground_mesh(*arguments, **options)

    monkeypatch.setattr(scenes, "ground_mesh", counted)
    asked = Scene((Building(box(0, 0, 10, 10), 9.0),))

    def ask(_):
        start.wait()
        return asked.mesh

    with ThreadPoolExecutor(4) as pool:
        meshes = list(pool.map(ask, range(4)))
    assert len(made) == 1
    assert all(mesh is asked.mesh for mesh in meshes)
