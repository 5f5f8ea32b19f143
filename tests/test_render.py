"""Class images: every edge at the pixel that geometry says, distances as shapely has them."""

import itertools
import math

import numpy as np
import pytest
import shapely
from pytest import approx
from rasterio.features import rasterize
from shapely import LineString, Point, Polygon, box

from crossview import angles
from crossview.cameras import Equirectangular, Pinhole, RadialDistortion, map_from_camera
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.synthetic import render
from crossview.synthetic.appearance import Appearance
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.render import render_photo, render_satellite
from crossview.synthetic.scene import Barrier, Building, Scene, Tree

FOCAL_PX = 100.0
CAMERA = Pinhole.from_focal(200, 160, FOCAL_PX)
NORTH = Pose(0.0, 0.0, 0.0)
EYE_M = 1.6

ROAD, SIDEWALK, BUILDING = (CLASSES.index(name) for name in ("road", "sidewalk", "building"))
FENCE, VEGETATION = CLASSES.index("fence"), CLASSES.index("vegetation")
TERRAIN, SKY = CLASSES.index("terrain"), CLASSES.index("sky")
BACKGROUND = CLASSES.index("background")


def wall_ahead(distance_m: float, height_m: float, *, half_width_m: float = 100.0) -> Building:
    """A house north of the origin whose near wall runs east and west."""
    return Building(box(-half_width_m, distance_m, half_width_m, distance_m + 5), height_m)


def rows_of(rendering: render.Rendering, index: int, *, col: int) -> np.ndarray:
    return np.flatnonzero(rendering.classes[:, col] == index)


def random_houses(seed: int, count: int) -> list[Building]:
    """Turned rectangles and L-shapes in a ring around the origin."""
    rng = np.random.default_rng(seed)
    houses = []
    for k in range(count):
        corner = Polygon([(0, 0), (8, 0), (8, 12), (4, 12), (4, 5), (0, 5)])
        shape = corner if k % 2 else box(0, 0, rng.uniform(4, 15), rng.uniform(4, 15))
        turned = shapely.affinity.rotate(shape, rng.uniform(0, 360))
        range_m, azimuth = rng.uniform(14, 70), rng.uniform(0, 2 * math.pi)
        placed = shapely.affinity.translate(
            turned, range_m * math.sin(azimuth), range_m * math.cos(azimuth)
        )
        if placed.distance(Point(0, 0)) > 2:
            houses.append(Building(placed, rng.uniform(1.0, 20)))
    return houses


def first_house_m(houses: list[Building], ray: np.ndarray, eye_m: float) -> float:
    """Distance along the ground of the first wall or roof on a ray, by shapely."""
    level = math.hypot(ray[0], ray[1])
    line = LineString([(0, 0), (500 * ray[0] / level, 500 * ray[1] / level)])
    hits = []
    for house in houses:
        crossing = line.intersection(house.footprint.boundary)
        distances = [Point(0, 0).distance(part) for part in shapely.get_parts(crossing)]
        hits += [d for d in distances if 0 <= eye_m + d * ray[2] / level <= house.height_m]
        roof_m = (house.height_m - eye_m) * level / ray[2]
        if roof_m > 0 and house.footprint.contains(line.interpolate(roof_m)):
            hits.append(roof_m)
    return min(hits, default=math.inf)


def test_a_wall_10_m_ahead_and_5_m_high_has_its_base_and_top_on_the_analytic_rows():
    rendering = render_photo(Scene((wall_ahead(10, 5.0),)), NORTH, CAMERA, height_m=EYE_M)
    # base: 100 * 1.6 / 10 = 16 px below the middle; top: 100 * 3.4 / 10 = 34 px above it
    for col in (0, 100, 199):
        assert rows_of(rendering, BUILDING, col=col).tolist() == list(range(80 - 34, 80 + 16))
        assert rows_of(rendering, SKY, col=col).tolist() == list(range(80 - 34))
        assert rows_of(rendering, TERRAIN, col=col).tolist() == list(range(80 + 16, 160))


def test_distance_is_along_the_ground_and_infinite_in_the_sky():
    rendering = render_photo(Scene((wall_ahead(10, 5.0),)), NORTH, CAMERA, height_m=EYE_M)
    # the ray through the centre of column 150 goes 0.505 m east on every metre north
    assert rendering.distance_m[80, 150] == approx(10 * math.hypot(1, 0.505))
    # the ray through the centre of row 120 falls 0.405 m on every metre north
    assert rendering.distance_m[120, 99] == approx(1.6 / 0.405 * math.hypot(1, 0.005))
    assert np.all(np.isinf(rendering.distance_m[rendering.classes == SKY]))


def test_a_taller_building_shows_above_the_one_before_it_and_a_lower_one_does_not():
    tall, low = wall_ahead(30, 16.6), wall_ahead(40, 5.0)
    rendering = render_photo(Scene((wall_ahead(10, 3.6), tall, low)), NORTH, CAMERA)
    column = rendering.distance_m[:, 100]
    # 15 m above the eye in 30 m: 50 px above the middle; 2 m in 10 m: 20 px
    assert column[80 - 51] == math.inf
    assert column[80 - 50 : 80 - 20] == approx(30, abs=1e-2)
    assert column[80 - 20 : 80] == approx(10, abs=1e-2)


def test_the_order_of_buildings_changes_nothing():
    near, far = wall_ahead(10, 3.6), wall_ahead(30, 16.6)
    one = render_photo(Scene((near, far)), NORTH, CAMERA)
    other = render_photo(Scene((far, near)), NORTH, CAMERA)
    assert np.array_equal(one.distance_m, other.distance_m)


@pytest.mark.parametrize(("pitch_deg", "shift_px"), [(10.0, 17.63), (-10.0, -17.63)])
def test_pitch_up_moves_the_horizon_down_by_f_tan_pitch(pitch_deg: float, shift_px: float):
    rendering = render_photo(Scene(), NORTH, CAMERA, pitch_deg=pitch_deg)
    sky_rows = rows_of(rendering, SKY, col=100)
    assert sky_rows.tolist() == list(range(round(80 + shift_px)))


@pytest.mark.parametrize(("roll_deg", "left_is_lower"), [(10.0, True), (-10.0, False)])
def test_roll_right_side_down_lifts_the_right_end_of_the_horizon(
    roll_deg: float, left_is_lower: bool
):
    rendering = render_photo(Scene(), NORTH, CAMERA, roll_deg=roll_deg)
    left, right = len(rows_of(rendering, SKY, col=0)), len(rows_of(rendering, SKY, col=199))
    # the horizon turns about the middle: 100 px * tan(10 deg) = 17.6 px up or down at the ends
    lift = 18 if left_is_lower else -18
    assert (left, right) == (approx(80 + lift, abs=1), approx(80 - lift, abs=1))


@pytest.mark.parametrize(
    ("heading_deg", "house"),
    [
        (0.0, box(-2, 20, 2, 24)),
        (90.0, box(20, -2, 24, 2)),
        (180.0, box(-2, -24, 2, -20)),
        (270.0, box(-24, -2, -20, 2)),
    ],
)
def test_heading_90_sees_the_eastern_wall_in_the_middle(heading_deg: float, house: Polygon):
    scene = Scene((Building(house, 6.0),))
    for camera in (CAMERA, Equirectangular(256, 64)):
        rendering = render_photo(scene, Pose(0, 0, heading_deg), camera)
        cols = np.flatnonzero((rendering.classes == BUILDING).any(axis=0))
        assert cols.mean() + 0.5 == approx(camera.width_px / 2)


def test_a_house_to_the_right_of_the_heading_is_on_the_right():
    scene = Scene((Building(box(12, 20, 16, 24), 6.0),))
    rendering = render_photo(scene, NORTH, CAMERA)
    assert np.flatnonzero((rendering.classes == BUILDING).any(axis=0)).min() > 100


def test_azimuth_grows_to_the_right_of_a_panorama_from_the_centre_column():
    # a house 90 deg to the right of heading 30 deg, that is at azimuth 120 deg
    east, north = angles.forward(120.0)
    scene = Scene((Building(Point(20 * east, 20 * north).buffer(2), 6.0),))
    rendering = render_photo(scene, Pose(0, 0, 30.0), Equirectangular(360, 90))
    cols = np.flatnonzero((rendering.classes == BUILDING).any(axis=0))
    assert cols.mean() + 0.5 == approx(270, abs=0.5)


def test_a_house_behind_straddles_the_seam_of_a_panorama():
    scene = Scene((Building(box(-2, -24, 2, -20), 6.0),))
    rendering = render_photo(scene, NORTH, Equirectangular(360, 90))
    cols = np.flatnonzero((rendering.classes == BUILDING).any(axis=0))
    # half of 4 m at 20 m is 5.7 deg on either side
    assert cols.tolist() == [*range(6), *range(354, 360)]


@pytest.mark.parametrize("eye_m", [1.6, 9.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_wall_or_roof_is_where_shapely_finds_it(seed: int, eye_m: float):
    houses = random_houses(seed, 40)
    rng = np.random.default_rng(seed)
    heading_deg, pitch_deg, roll_deg = rng.uniform(0, 360), rng.uniform(-15, 15), rng.uniform(-9, 9)
    rendering = render_photo(
        Scene(tuple(houses)), Pose(0, 0, heading_deg), CAMERA,
        height_m=eye_m, pitch_deg=pitch_deg, roll_deg=roll_deg,
    )  # fmt: skip
    turn = map_from_camera(heading_deg, pitch_deg, roll_deg)
    num_houses = 0
    for row, col in zip(rng.integers(0, 160, 250), rng.integers(0, 200, 250), strict=True):
        # the camera's own formula, again: x right, y down, z forward
        ray = turn @ [(col + 0.5 - 100) / FOCAL_PX, (row + 0.5 - 80) / FOCAL_PX, 1.0]
        ground_m = eye_m * math.hypot(ray[0], ray[1]) / -ray[2] if ray[2] < 0 else math.inf
        house_m = first_house_m(houses, ray, eye_m)
        assert rendering.distance_m[row, col] == approx(min(house_m, ground_m), abs=1e-6)
        expected = BUILDING if house_m < ground_m else TERRAIN if ray[2] < 0 else SKY
        assert rendering.classes[row, col] == expected
        num_houses += house_m < ground_m
    assert num_houses > 30


PANORAMA = Equirectangular(180, 60)


def test_no_ray_slips_through_a_corner():
    # many walls that meet in front of pixel centres: a closed ring leaves no gap
    ring = Point(0, 0).buffer(20, quad_segs=90)
    around = Polygon(Point(0, 0).buffer(30).exterior.coords, [ring.exterior.coords])
    rendering = render_photo(Scene((Building(around, 200.0),)), NORTH, Equirectangular(360, 9))
    assert np.all(rendering.classes[4] == BUILDING)


def test_a_camera_in_a_court_sees_its_walls_from_within():
    court = Polygon(box(-20, -20, 20, 20).exterior.coords, [box(-8, -8, 8, 8).exterior.coords])
    rendering = render_photo(Scene((Building(court, 10.0),)), NORTH, CAMERA)
    assert rendering.distance_m[80, 100] == approx(8, abs=1e-3)


def test_a_roof_below_the_camera_is_seen_where_the_ray_meets_it():
    # 20 m high over a roof of 5 m: the ray down 1 m per metre meets it 15 m ahead
    scene = Scene((Building(box(-50, 10, 50, 40), 5.0),))
    camera = Pinhole.from_focal(3, 3, FOCAL_PX)
    rendering = render_photo(scene, NORTH, camera, height_m=20.0, pitch_deg=-45)
    assert rendering.classes[1, 1] == BUILDING
    assert rendering.distance_m[1, 1] == approx(15)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_roofs_above_each_other_the_upper_one_is_seen(order: int):
    # maps draw a building and its higher part as two outlines
    whole, part = Building(box(-50, 5, 50, 40), 5.0), Building(box(-50, 8, 50, 40), 10.0)
    camera = Pinhole.from_focal(3, 3, FOCAL_PX)
    scene = Scene((whole, part)[::order])
    rendering = render_photo(scene, NORTH, camera, height_m=20.0, pitch_deg=-45)
    assert rendering.distance_m[1, 1] == approx(10)


def test_a_camera_on_a_roof_is_in_the_open():
    scene = Scene((Building(box(-5, -5, 5, 5), 5.0),))
    rendering = render_photo(scene, NORTH, PANORAMA, height_m=7.0)
    assert np.all(rendering.classes[-1] == BUILDING)
    assert rendering.classes[31, 0] == TERRAIN


def test_straight_up_is_sky_and_straight_down_is_the_ground():
    scene = Scene(roads=box(-1, -1, 1, 1))
    camera = Pinhole.from_focal(3, 3, FOCAL_PX)
    up = render_photo(scene, NORTH, camera, pitch_deg=90)
    down = render_photo(scene, NORTH, camera, pitch_deg=-90)
    assert np.all(up.classes == SKY)
    assert np.all(down.classes == ROAD)
    assert down.distance_m[1, 1] == approx(0, abs=1e-9)


def test_the_ground_is_road_before_sidewalk_before_water_before_terrain():
    scene = Scene(roads=box(-50, 0, 50, 4), sidewalks=box(-50, 0, 50, 6), water=box(-50, 5, 50, 10))
    rendering = render_photo(scene, NORTH, CAMERA, height_m=EYE_M)
    column = rendering.classes[:, 100]
    # 1.6 m down at d m ahead is 160 / d px below the middle: 40, 26.7, 16
    assert np.all(column[80 + 40 :] == ROAD)
    assert np.all(column[80 + 27 : 80 + 40] == SIDEWALK)
    assert np.all(column[80 + 16 : 80 + 26] == BACKGROUND)
    assert np.all(column[81 : 80 + 16] == TERRAIN)


def test_a_fence_hides_the_base_of_the_wall_behind_it():
    fence = Barrier(LineString([(-50, 5), (50, 5)]), 1.2, "fence")
    rendering = render_photo(Scene((wall_ahead(10, 5.0),), barriers=(fence,)), NORTH, CAMERA)
    # the fence's top is 0.4 m below the eye in 5 m: 8 px below the middle; its foot 32 px
    assert rows_of(rendering, FENCE, col=100).tolist() == list(range(88, 112))
    assert rows_of(rendering, BUILDING, col=100).tolist() == list(range(46, 88))


def test_a_fence_is_seen_from_both_sides():
    fence = Barrier(LineString([(50, 5), (-50, 5)]), 1.2, "vegetation")
    rendering = render_photo(Scene(barriers=(fence,)), NORTH, CAMERA)
    # a hedge is as thick as it is; its axis would show from 8 to 32 px below the middle
    rows = rows_of(rendering, VEGETATION, col=100)
    assert rows.tolist() == list(range(rows.min(), rows.max() + 1))
    assert (rows.min(), rows.max()) == (approx(88, abs=2), approx(111, abs=3))


def test_a_tree_is_a_crown_on_a_trunk():
    tree = Tree(0.0, 20.0, height_m=11.6, crown_radius_m=2.0)
    rendering = render_photo(Scene(trees=(tree,)), NORTH, CAMERA, height_m=EYE_M)
    green = rendering.classes == VEGETATION
    rows = np.flatnonzero(green[:, 100])
    # an ellipsoid's outline: its top is seen a little before and above its axis, at less than
    # 10 m in 18 m and more than 10 m in 20 m
    assert 80 - 56 < rows.min() <= 80 - 50
    # the trunk of 0.4 m stands on the ground, 160 / 20 = 8 px below the middle, 2 px wide
    assert rows.max() == 87
    assert np.flatnonzero(green[85]).tolist() == [99, 100]
    # the crown is 4 m wide in 20 m
    assert green.sum(axis=1).max() == approx(20, abs=1)
    assert rendering.distance_m[86, 100] == approx(20 - math.sqrt(0.2**2 - 0.1**2), abs=0.01)
    assert rendering.distance_m[80 - 30, 100] == approx(18, abs=0.3)


def test_the_sky_shows_beside_a_trunk_below_the_crown():
    rendering = render_photo(Scene(trees=(Tree(0.0, 10.0, 10.0, 3.0),)), NORTH, CAMERA)
    assert rendering.classes[78, 90] == SKY
    assert rendering.classes[78, 100] == VEGETATION


def test_a_tree_before_a_wall_hides_it_and_one_behind_does_not_show():
    scene = Scene((wall_ahead(20, 15.0),), (Tree(-5, 10, 8.0, 2.0), Tree(6, 40, 12.0, 2.0)))
    rendering = render_photo(scene, NORTH, CAMERA)
    assert rendering.classes[50, 50] == VEGETATION
    assert np.all(rendering.classes[:, 100:] != VEGETATION)


def test_within_a_crown_everything_is_leaves():
    rendering = render_photo(Scene(trees=(Tree(0, 0, 10.0, 3.0),)), NORTH, CAMERA, height_m=6.5)
    assert np.all(rendering.classes == VEGETATION)
    assert np.all(rendering.distance_m == 0)


def test_a_distorted_lens_shows_a_wall_where_it_projects_it():
    lens = RadialDistortion(100.0, 80.0, (-8e-6,))
    camera = Pinhole(200, 160, FOCAL_PX, FOCAL_PX, 100.0, 80.0, lens)
    scene = Scene((wall_ahead(10, 5.0, half_width_m=6.0),))
    rendering = render_photo(scene, NORTH, camera, height_m=EYE_M)
    # the wall's eastern edge, from camera axes (right, down, forward) to pixels
    for down_m in (-3.0, 0.0, 1.2):
        col, row = camera.project([6.0, down_m, 10.0])
        line = rendering.classes[math.floor(row)] == BUILDING
        assert np.flatnonzero(line).max() + 1 == approx(col, abs=1.0)
    straight = render_photo(scene, NORTH, camera.undistorted(), height_m=EYE_M)
    assert not np.array_equal(straight.classes, rendering.classes)


def test_pixels_that_the_lens_model_does_not_reach_are_background():
    lens = RadialDistortion(100.0, 80.0, (-3e-5,))
    camera = Pinhole(200, 160, FOCAL_PX, FOCAL_PX, 100.0, 80.0, lens)
    rendering = render_photo(Scene(), NORTH, camera)
    assert rendering.classes[0, 0] == BACKGROUND
    assert math.isnan(rendering.distance_m[0, 0])
    assert np.array_equal(rendering.classes == BACKGROUND, np.isnan(rendering.distance_m))


def test_moving_and_turning_town_and_camera_together_changes_nothing():
    houses = random_houses(3, 25)
    moved = [
        Building(
            shapely.affinity.translate(
                shapely.affinity.rotate(house.footprint, -90, origin=(0, 0)), 300.0, -200.0
            ),
            house.height_m,
        )
        for house in houses
    ]
    here = render_photo(Scene(tuple(houses)), Pose(0, 0, 17), CAMERA, pitch_deg=4)
    there = render_photo(Scene(tuple(moved)), Pose(300, -200, 17 + 90), CAMERA, pitch_deg=4)
    assert (here.classes == there.classes).mean() > 0.9999


def test_a_rendering_cannot_be_written_to():
    rendering = render_photo(Scene(), NORTH, PANORAMA)
    assert rendering.classes.dtype == np.uint8
    assert rendering.classes.shape == rendering.distance_m.shape == (60, 180)
    with pytest.raises(ValueError, match="read-only"):
        rendering.classes[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        rendering.distance_m[0, 0] = 1


def test_a_rendering_holds_its_own_arrays_and_leaves_the_callers_alone():
    arrays = {
        "classes": np.zeros((2, 3), np.uint8),
        "instances": np.zeros((2, 3), np.int32),
        "distance_m": np.zeros((2, 3)),
        "depth_m": np.zeros((2, 3)),
        "normals": np.zeros((2, 3, 3), np.float32),
    }
    rendering = render.Rendering(**arrays)
    for name, array in arrays.items():
        array[:] = 1
        assert not getattr(rendering, name).any()
    assert rendering != render.Rendering(**arrays)


def test_a_camera_inside_of_a_building_is_refused():
    scene = Scene((Building(box(-5, -5, 5, 5), 6.0),))
    with pytest.raises(ValueError, match=r"inside of a building that is 6.0 m high. Move it"):
        render_photo(scene, NORTH, CAMERA)


def test_a_pose_without_heading_is_refused():
    with pytest.raises(ValueError, match="no heading"):
        render_photo(Scene(), Pose(0, 0), CAMERA)


def test_depth_is_along_the_ray_and_normals_point_to_the_camera():
    rendering = render_photo(Scene((wall_ahead(10, 5.0),)), NORTH, CAMERA, height_m=EYE_M)
    ray = [0.505, -0.205, 1.0]  # through the centre of column 150, row 59
    assert rendering.depth_m[59, 150] == approx(10 * math.hypot(*ray))
    assert rendering.normals[59, 150] == approx(np.array([0, -1, 0]))
    assert rendering.normals[120, 99] == approx(np.array([0, 0, 1]))
    assert not rendering.normals[0, 0].any()
    assert rendering.rgb is None


def test_every_building_has_a_number_of_its_own_and_the_ground_and_the_sky_are_0():
    houses = (wall_ahead(10, 3.6), wall_ahead(30, 16.6))
    column = render_photo(Scene(houses), NORTH, CAMERA).instances[:, 100]
    near, far = column[70], column[40]
    assert 0 < near != far > 0
    assert column[0] == column[-1] == 0


def room(distances_m: tuple[float, float, float, float], height_m: float) -> Scene:
    """Walls all around the origin, at distances to the north, east, south and west."""
    north, east, south, west = distances_m
    inside = box(-west, -south, east, north)
    outside = box(-west - 1, -south - 1, east + 1, north + 1)
    return Scene((Building(Polygon(outside.exterior.coords, [inside.exterior.coords]), height_m),))


def test_depth_in_a_box_is_that_of_the_closed_form_within_1_mm():
    distances_m, wall_m = (100.0, 60.0, 35.0, 80.0), 30.0
    scene, camera = room(distances_m, wall_m), Equirectangular(360, 180)
    rendering = render_photo(scene, Pose(0, 0, 33.0), camera, height_m=1.7)
    col, row = np.meshgrid(np.arange(360) + 0.5, np.arange(180) + 0.5)
    azimuth = np.deg2rad(33.0) + (col / 360 - 0.5) * 2 * np.pi
    elevation = (0.5 - row / 180) * np.pi
    north, east, south, west = distances_m
    with np.errstate(divide="ignore"):
        wall = np.minimum(
            np.where(np.cos(azimuth) > 0, north, -south) / np.cos(azimuth),
            np.where(np.sin(azimuth) > 0, east, -west) / np.sin(azimuth),
        )
    ground = np.where(elevation < 0, 1.7 / -np.tan(elevation), np.inf)
    level = np.minimum(wall, ground)
    level[(ground > wall) & (1.7 + wall * np.tan(elevation) > wall_m)] = np.inf
    assert rendering.depth_m == approx(level / np.cos(elevation), abs=1e-3)
    assert rendering.distance_m == approx(level, abs=1e-3)
    assert level.max(where=np.isfinite(level), initial=0) > 115


def test_a_panorama_turned_by_90_degrees_is_its_columns_rolled():
    scene = Scene(tuple(random_houses(5, 40)), (Tree(5, 9), Tree(-8, 3), Tree(2, -6)))
    ahead, turned = (
        render_photo(
            scene,
            Pose(0.3, 0.2, h),
            Equirectangular(256, 64),
            appearance=Appearance(cloud_cover=0.4),
        )
        for h in (20.0, 110.0)
    )
    assert np.array_equal(np.roll(ahead.classes, -64, axis=1), turned.classes)
    assert np.array_equal(np.roll(ahead.instances, -64, axis=1), turned.instances)
    assert np.roll(ahead.distance_m, -64, axis=1) == approx(turned.distance_m, rel=1e-9)
    assert np.array_equal(np.roll(ahead.rgb, -64, axis=1), turned.rgb)


@pytest.mark.parametrize("camera", [CAMERA, Equirectangular(180, 60)])
def test_a_level_camera_sees_by_columns_what_it_sees_ray_by_ray(camera, monkeypatch):
    scene = Scene(tuple(random_houses(7, 40)), (Tree(5, 9), Tree(-8, 3), Tree(2, -6)))
    pose = Pose(0.3, 0.2, 200)
    by_columns = render_photo(scene, pose, camera)
    rays = render._rays(camera)
    assert rays.azimuths_rad is not None
    monkeypatch.setattr(render, "_rays", lambda camera: rays._replace(azimuths_rad=None))
    one_by_one = render_photo(scene, pose, camera)
    assert (by_columns.classes == one_by_one.classes).mean() > 0.9999
    assert (by_columns.instances == one_by_one.instances).mean() > 0.9999
    is_same = by_columns.instances == one_by_one.instances
    assert by_columns.depth_m[is_same] == approx(one_by_one.depth_m[is_same], rel=1e-6)


@pytest.mark.parametrize(
    ("pitch_deg", "roll_deg", "lens"),
    [(0, 0, None), (8, -5, None), (-4, 3, RadialDistortion(100.0, 80.0, (-4e-6, 1e-11)))],
)
def test_buildings_cover_their_footprints_as_the_camera_projects_them(pitch_deg, roll_deg, lens):
    camera = Pinhole(200, 160, FOCAL_PX, FOCAL_PX, 100.0, 80.0, lens)
    houses = random_houses(11, 40)
    rendering = render_photo(
        Scene(tuple(houses)), Pose(0, 0, 70.0), camera, pitch_deg=pitch_deg, roll_deg=roll_deg
    )  # fmt: skip
    camera_from_map = map_from_camera(70.0, pitch_deg, roll_deg).T
    outlines = []
    for house in houses:
        ring = shapely.segmentize(house.footprint.exterior, 0.05)
        places = shapely.get_coordinates(ring)
        for start, end in itertools.pairwise(places):
            wall = np.array([[*start, 0], [*end, 0], [*end, 1], [*start, 1]]) * [
                1,
                1,
                house.height_m,
            ]
            seen = (wall - [0, 0, EYE_M]) @ camera_from_map.T
            if seen[:, 2].min() > 0.5:
                outlines.append(Polygon(np.column_stack(camera.project(seen))))
    silhouettes = shapely.union_all([o for o in outlines if o.is_valid])
    col, row = np.meshgrid(np.arange(200) + 0.5, np.arange(160) + 0.5)
    expected = shapely.contains_xy(silhouettes, col, row)
    found = rendering.classes == BUILDING
    assert (expected & found).sum() / (expected | found).sum() >= 0.99
    assert 0.1 < expected.mean() < 0.9


# ---------------------------------------------------------------------- from above


MAP = MapGrid(LocalFrame(51.75, -1.25), -80.0, 80.0, 0.5, 320, 320)


def test_buildings_from_above_cover_their_rasterised_footprints():
    houses = random_houses(2, 40)
    view = render_satellite(Scene(tuple(houses)), MAP)
    shapes = [house.footprint for house in houses]
    burned = rasterize(shapes, out_shape=MAP.shape, transform=MAP.transform).astype(bool)
    found = view.classes == BUILDING
    assert (burned & found).sum() / (burned | found).sum() >= 0.99
    assert view.height_m[~found] == approx(0, abs=1e-9)
    assert 0.05 < found.mean() < 0.9


def test_row_0_of_the_satellite_view_is_north_and_column_0_west():
    view = render_satellite(Scene((Building(box(-70, 60, -60, 75), 6.0),)), MAP)
    rows, cols = np.nonzero(view.classes == BUILDING)
    # 75 to 60 m north is 5 to 20 m below the edge: rows 10 to 39
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (10, 39, 20, 39)
    assert view.height_m[20, 30] == approx(6.0)
    assert view.normals[20, 30] == approx(np.array([0, 0, 1]))


@pytest.mark.parametrize(("tilt_deg", "azimuth_deg"), [(20, 0), (30, 90), (35, 225)])
def test_roofs_are_displaced_by_height_times_tan_tilt_away_from_the_satellite(
    tilt_deg: float, azimuth_deg: float
):
    height_m = 12.0
    scene = Scene((Building(box(-10, -10, 10, 10), height_m),))
    view = render_satellite(scene, MAP, tilt_deg=tilt_deg, tilt_azimuth_deg=azimuth_deg)
    shift_m = height_m * math.tan(math.radians(tilt_deg))
    east, north = angles.forward(azimuth_deg)
    roof = shapely.affinity.translate(box(-10, -10, 10, 10), -shift_m * east, -shift_m * north)
    x_m, y_m = np.meshgrid(*MAP.centers())
    assert np.array_equal(
        view.normals[..., 2] * view.height_m > 0, shapely.contains_xy(roof, x_m, y_m)
    )
    # and the walls reach from there to the foot
    whole = shapely.union_all([roof, box(-10, -10, 10, 10)]).convex_hull
    found = view.classes == BUILDING
    expected = shapely.contains_xy(whole, x_m, y_m)
    assert (expected & found).sum() / (expected | found).sum() >= 0.99


@pytest.mark.parametrize("tilt_deg", [-1.0, 61.0, math.nan])
def test_a_satellite_below_the_horizon_is_refused(tilt_deg: float):
    with pytest.raises(ValueError, match=r"from 0 .straight down. to 60"):
        render_satellite(Scene(), MAP, tilt_deg=tilt_deg)


@pytest.mark.parametrize("height_m", [0.0, -1.6, math.nan, math.inf])
def test_a_camera_on_or_below_the_ground_is_refused(height_m: float):
    with pytest.raises(ValueError, match="height_m must be positive"):
        render_photo(Scene(), NORTH, CAMERA, height_m=height_m)
