"""Where cameras may stand: on the right lane or a sidewalk, and never in or near to anything."""

import itertools
from collections import Counter

import numpy as np
import pytest
import shapely

from crossview.errors import MapError
from crossview.frames import Pose
from crossview.grids import Bounds
from crossview.synthetic.drives import RoadGraph, odometry, poses_along
from crossview.synthetic.places import MAX_DRAWS, Obstacles, Place, Streets, open_place
from crossview.synthetic.scene import Barrier, Building, Post, Scene, Tree
from crossview.synthetic.things import Carriageway

BOUNDS = Bounds(-100.0, -100.0, 100.0, 100.0)


def street(*points, **options):
    return Carriageway(shapely.LineString(points), 8.0, **options)


EAST = street((-200.0, 0.0), (200.0, 0.0), sidewalks_m=(2.0, 3.0))


def drawn(scene, count=300, **options):
    streets = Streets(scene, BOUNDS)
    rng = np.random.default_rng(0)
    given = {"sidewalks": 0.0, "spread_deg": 0.0} | options
    return [streets.place(rng, **given) for _ in range(count)]


def test_on_a_two_way_street_one_keeps_to_the_right():
    poses = [place.pose for place in drawn(Scene(carriageways=(EAST,)))]
    sides = {(round(pose.y_m, 6), round(pose.heading_deg, 6)) for pose in poses}
    assert sides == {(-2.0, 90.0), (2.0, 270.0)}  # a quarter of 8 m from the middle
    x_m = [pose.x_m for pose in poses]
    assert -100 <= min(x_m) < -90 and 90 < max(x_m) <= 100  # the line goes on beyond the bounds


def test_a_one_way_street_is_driven_in_its_middle_and_its_way():
    places = drawn(Scene(carriageways=(street((0.0, 50.0), (0.0, -50.0), is_oneway=True),)))
    assert {(place.pose.x_m, round(place.pose.heading_deg, 6)) for place in places} == {
        (0.0, 180.0)
    }


def test_the_stated_share_stands_in_the_middle_of_sidewalks():
    places = drawn(Scene(carriageways=(EAST,)), 2000, sidewalks=0.3)
    walking = [place for place in places if place.ground == "sidewalk"]
    assert len(walking) / 2000 == pytest.approx(0.3, abs=0.03)
    sides = {(round(p.pose.y_m, 6), round(p.pose.heading_deg, 6)) for p in walking}
    assert sides == {(y, heading) for y in (5.0, -5.5) for heading in (90.0, 270.0)}


def test_headings_spread_evenly_around_the_street():
    headings_deg = [p.pose.heading_deg for p in drawn(Scene(carriageways=(EAST,)), spread_deg=30.0)]
    off_deg = np.array([min(abs(h - 90), abs(h - 270)) for h in headings_deg])
    assert off_deg.max() <= 30.0
    assert off_deg.mean() == pytest.approx(15.0, abs=1.5)


def test_a_scene_without_streets_in_the_bounds_is_refused():
    with pytest.raises(MapError, match="no street"):
        Streets(Scene(carriageways=(street((300.0, 0.0), (400.0, 0.0)),)), BOUNDS)


def test_what_a_lens_is_in_or_near_to_refuses_it():
    scene = Scene(
        buildings=(
            Building(shapely.box(10, 10, 20, 20), 8.0),
            Building(shapely.box(-20, -5, -10, 5), 12.0, base_m=6.0),  # spans the street
        ),
        barriers=(Barrier(shapely.LineString([(30, -10), (30, 10)]), 1.0),),
        trees=(Tree(0.0, 30.0, height_m=8.0, crown_radius_m=3.0),),
        posts=(Post("lamp", 50.0, 0.0),),
        carriageways=(EAST,),
    )
    refusal = Obstacles(scene, scene.mesh).refusal
    assert refusal(15.0, 15.0, 1.6) == "building"
    assert refusal(9.3, 15.0, 1.6) == "building"
    assert refusal(9.1, 15.0, 1.6) is None
    assert refusal(-15.0, 0.0, 1.6) == "building"
    assert refusal(30.5, 0.0, 1.6) == "thing"
    assert refusal(31.0, 0.0, 1.6) is None
    assert refusal(50.3, 0.3, 1.6) == "thing"
    assert refusal(2.0, 30.0, 5.0) == "crown"
    x, y, middle_m, radius_m, half_m = scene.mesh.crowns_m[0]
    assert refusal(x + radius_m + 0.9, y, middle_m) == "crown"
    assert refusal(x + radius_m + 1.1, y, middle_m) is None
    assert refusal(x + 1.0, y, middle_m - half_m - 1.2) is None


def test_refused_places_are_drawn_again_and_counted():
    scene = Scene(buildings=(Building(shapely.box(-5, -5, 5, 5), 8.0),), carriageways=(EAST,))
    obstacles = Obstacles(scene, scene.mesh)
    places = iter([Place(Pose(x, 0.0, 0.0), "lane") for x in (0.0, 3.0, 90.0, 20.0)])
    refused = Counter()
    found = open_place(lambda: next(places), obstacles, 1.6, refused=refused)
    assert found.pose.x_m == 20.0
    assert refused == {"building": 2, "bare": 1}
    inside = Place(Pose(0.0, 0.0, 0.0), "lane")
    with pytest.raises(MapError, match=f"None of {MAX_DRAWS} places .* has room"):
        open_place(lambda: inside, obstacles, 1.6, refused=Counter())


# ------------------------------------------------------------------ drives


def test_a_drive_turns_at_a_crossing_without_leaving_the_streets_or_turning_back():
    streets = (
        street((-90.0, 0.0), (0.0, 0.0), (90.0, 0.0)),
        street((0.0, -90.0), (0.0, 0.0), (0.0, 90.0)),
    )
    graph = RoadGraph(Scene(carriageways=streets), BOUNDS)
    turned = 0
    for seed in range(40):
        poses = poses_along(
            graph.route(np.random.default_rng(seed), 300.0), spacing_m=4.0, count=30
        )
        x_m, y_m = (np.array([getattr(pose, name) for pose in poses]) for name in ("x_m", "y_m"))
        assert np.minimum(np.abs(x_m), np.abs(y_m)).max() < 3.5  # kerbs are at 4
        turns_deg = [
            (b.heading_deg - a.heading_deg + 180) % 360 - 180 for a, b in itertools.pairwise(poses)
        ]
        assert np.abs(turns_deg).max() < 75
        turned += abs(abs(sum(turns_deg)) - 90) < 20
        away = min(range(len(poses)), key=lambda k: x_m[k] ** 2 + y_m[k] ** 2)
        for pose in poses[:: max(1, len(poses) - 1)]:  # both ends: right of the middle
            k = poses.index(pose)
            if abs(k - away) > 4:
                right = pose.x_m * np.cos(np.deg2rad(pose.heading_deg)) - pose.y_m * np.sin(
                    np.deg2rad(pose.heading_deg)
                )
                assert right == pytest.approx(2.0, abs=0.2)
    assert turned > 5  # half of the routes begin on the way out


def test_one_way_streets_are_kept_to():
    loop = [
        street((0.0, 0.0), (50.0, 0.0), is_oneway=True),
        street((50.0, 0.0), (50.0, 50.0), is_oneway=True),
        street((50.0, 50.0), (0.0, 50.0), is_oneway=True),
        street((0.0, 50.0), (0.0, 0.0), is_oneway=True),
    ]
    graph = RoadGraph(Scene(carriageways=tuple(loop)), BOUNDS)
    path = graph.route(np.random.default_rng(1), 400.0)
    x, y = (path - 25.0).T
    area = (x[:-1] * y[1:] - x[1:] * y[:-1]) / 2  # swept from the middle, counter-clockwise
    assert len(path) > 700
    assert (area > 0).all()


def test_odometry_without_a_motion_says_none():
    stands = [Pose(1.0, 2.0, 30.0)] * 3
    motions = odometry(stands, np.random.default_rng(0))
    assert [motion.forward_m for motion in motions] == [0.0, 0.0]
    assert all(abs(motion.turn_deg) < 5 for motion in motions)
