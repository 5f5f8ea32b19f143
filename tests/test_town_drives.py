"""Drives through made-up towns: on the streets, by their rules, smoothly."""

import itertools

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import LineString, Point

from crossview import angles
from crossview.synthetic.plan import Dice, Street
from crossview.synthetic.town import Town
from crossview.synthetic.town_drives import drive

PATTERNS = ("lattice", "grid", "organic", "mixed")


@pytest.fixture(scope="module", params=PATTERNS)
def town(request):
    return Town.from_seed(4, pattern=request.param)


def positions(poses):
    return np.array([(pose.x_m, pose.y_m) for pose in poses])


def headings(poses):
    return np.array([pose.heading_deg for pose in poses])


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_evenly_spaced_along_the_route(town, seed):
    poses = town.drive(seed, 300, 1.0)
    assert len(poses) == 300
    steps_m = np.linalg.norm(np.diff(positions(poses), axis=0), axis=1)
    # a chord of a bend is a little shorter than the bend
    assert steps_m.max() <= 1.0 + 1e-6
    assert steps_m.min() > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_a_drive_stays_on_carriageways_and_clear_of_walls(town, seed):
    poses = town.drive(seed, 300, 1.0)
    roads = shapely.union_all([LineString(s.line).buffer(s.width_m / 2) for s in town.plan.streets])
    walls = shapely.union_all([shapely.Polygon(b.outer, b.inner) for b in town.plan.buildings])
    places = shapely.points(positions(poses))
    assert shapely.distance(roads, places).max() < 0.05
    assert shapely.distance(walls, places).min() > 1.5


@pytest.mark.parametrize("seed", range(3))
def test_headings_are_tangent_and_turns_are_smooth(town, seed):
    poses = town.drive(seed, 600, 0.5)
    steps = np.diff(positions(poses), axis=0)
    along_deg = angles.heading_of(steps[:, 0], steps[:, 1])
    before, after = headings(poses)[:-1], headings(poses)[1:]
    turn_deg = angles.difference_deg(after, before)
    # the chord's direction is the mean of the two tangents
    off_deg = angles.difference_deg(along_deg, before + turn_deg / 2)
    assert np.abs(off_deg).max() < 3.0
    # no circle of less than 2 m radius
    assert np.abs(turn_deg).max() < np.degrees(0.5 / 2.0)


def test_a_drive_turns_corners(town):
    turns_deg = [
        np.ptp(np.unwrap(headings(town.drive(seed, 400, 2.0)), period=360)) for seed in range(4)
    ]
    assert max(turns_deg) > 60


def test_a_drive_depends_on_the_seed_alone(town):
    assert town.drive(7, 50, 2.0) == town.drive(7, 50, 2.0)
    assert town.drive(7, 50, 2.0) != town.drive(8, 50, 2.0)


def street(*line, **tags):
    return Street(tuple(line), 6.0, 0.0, {"highway": "residential", **tags})


def test_a_one_way_ring_is_driven_one_way():
    corners = [(0, 0), (100, 0), (100, 100), (0, 100), (0, 0)]
    ring = [street(a, b, oneway="yes") for a, b in itertools.pairwise(corners)]
    for seed in range(5):
        poses = drive(ring, Dice(seed), 300, 2.0)
        middle = np.array([50, 50])
        arm = positions(poses) - middle
        forward = np.column_stack([np.sin(np.radians(headings(poses)))] * 2)
        forward[:, 1] = np.cos(np.radians(headings(poses)))
        # counter-clockwise all the way
        assert (arm[:, 0] * forward[:, 1] - arm[:, 1] * forward[:, 0]).min() > 0


def test_a_dead_end_is_never_entered():
    corners = [(0, 0), (100, 0), (100, 100), (0, 100), (0, 0)]
    ring = [street(a, b) for a, b in itertools.pairwise(corners)]
    blind = street((100, 0), (200, 0), (200, 50))
    for seed in range(5):
        poses = drive([*ring, blind], Dice(seed), 300, 2.0)
        is_inside = positions(poses)[:, 0] > 105.0
        # a drive may begin there, and then leaves for good
        assert not (is_inside[1:] & ~is_inside[:-1]).any()


def test_a_corner_is_rounded_inside_of_it():
    ring = [
        street(a, b, oneway="yes")
        for a, b in itertools.pairwise([(0, 0), (100, 0), (100, 100), (0, 100), (0, 0)])
    ]
    path = LineString(positions(drive(ring, Dice(0), 900, 0.5)[20:]))
    corner_m = min(path.distance(Point(corner)) for corner in ((100, 0), (100, 100)))
    assert 1.0 < corner_m < 3.5


def test_the_first_frame_is_one_pose(town):
    (pose,) = town.drive(0, 1, 5.0)
    first = town.drive(0, 20, 5.0)[0]
    assert (pose.x_m, pose.y_m, pose.heading_deg) == approx(
        (first.x_m, first.y_m, first.heading_deg)
    )


def test_a_town_without_a_way_around_has_no_drive():
    with pytest.raises(ValueError, match="longest has 100 m"):
        drive([street((0, 0), (100, 0))], Dice(0), 1000, 1.0)


@pytest.mark.parametrize("num_frames,spacing_m", [(0, 1.0), (5, 0.0), (5, float("nan"))])
def test_a_drive_of_nothing_is_refused(town, num_frames, spacing_m):
    with pytest.raises(ValueError, match="one frame or more, some metres apart"):
        town.drive(0, num_frames, spacing_m)
