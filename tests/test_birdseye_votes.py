"""Ground and walls of class images: on the ground where geometry says."""

import numpy as np
import pytest
import shapely
from fakes.court import COURT, HEIGHT_M, WALLS, rig_taken, sphere_taken, taken
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from shapely import box

from crossview import angles, birdseye_matcher, rectify
from crossview.birdseye_matcher import BEHIND, FREE, WALL_BASE, ground_points, observed
from crossview.cameras import Pinhole, RadialDistortion, map_from_camera
from crossview.frames import Pose
from crossview.photos import Mount, Photo
from crossview.segmenters import upright_images
from crossview.synthetic.palette import CLASSES, PaletteSegmenter
from crossview.synthetic.scene import Building, Scene

ROAD, BUILDING, SKY, CAR = (CLASSES.index(n) for n in ("road", "building", "sky", "car"))
REACH_M = 22.0
SMALL = Pinhole.from_focal(80, 60, 40.0)
SEGMENTER = PaletteSegmenter()
NORTH = Pose(0.0, 0.0, 0.0)


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(len(CLASSES), dtype=np.float32)[labels]


def blank_photo(camera=SMALL, **options) -> Photo:
    return Photo(np.zeros((camera.height_px, camera.width_px, 3), np.uint8), camera, **options)


def points_of(labels, query, *, classes=CLASSES, reach_m=REACH_M, mount=None):
    mount = Mount() if mount is None else mount
    return ground_points(query, one_hot(labels), classes, reach_m=reach_m, mount=mount)


def labels_with(pixels: dict, *, camera=SMALL, else_class=SKY) -> np.ndarray:
    labels = np.full((camera.height_px, camera.width_px), else_class)
    for (row, col), name in pixels.items():
        labels[row, col] = name
    return labels


def seen_in(query):
    """All points of a query on the ground, in the query's own frame."""
    parts = [
        ground_points(image, SEGMENTER(image.image), CLASSES, reach_m=REACH_M, mount=mount)
        for image, mount in upright_images(query)
    ]
    return birdseye_matcher.GroundPoints.joined(parts)


def on_map(points, pose, channel):
    """Where points of a channel are, (points, 2) in the map's metres."""
    east, north = angles.forward(pose.heading_deg)
    keep = points.channel == channel
    ahead, right = points.forward_m[keep], points.right_m[keep]
    return np.stack(
        [pose.x_m + ahead * east + right * north, pose.y_m + ahead * north - right * east], axis=1
    )


def distance_to_walls(xy_m):
    return shapely.distance(shapely.points(xy_m), WALLS.boundary)


def view_from_above(query):
    return observed(query, SEGMENTER, cell_m=0.5, reach_m=REACH_M)


# --------------------------------------------------------- pixels on the ground


def test_a_ground_pixel_lies_at_the_height_over_the_tangent_of_its_angle():
    # row 47 has its centre 17.5 px below the middle: 1.6 * 40 / 17.5 m ahead
    points = points_of(labels_with({(47, 60): ROAD}), blank_photo())
    assert points.forward_m == approx([1.6 * 40 / 17.5])
    # column 60 has its centre 20.5 px right of the middle
    assert points.right_m == approx([1.6 * 20.5 / 17.5])
    assert points.channel.tolist() == [FREE]


def test_a_ground_pixel_left_of_the_middle_lies_to_the_left():
    points = points_of(labels_with({(47, 10): ROAD}), blank_photo())
    assert points.right_m == approx([-1.6 * 29.5 / 17.5])


def test_a_camera_twice_as_high_sees_ground_twice_as_far():
    points = points_of(labels_with({(50, 40): ROAD}), blank_photo(height_m=3.2))
    assert points.forward_m == approx([3.2 * 40 / 20.5])


def test_the_middle_row_of_a_camera_that_looks_10_degrees_down_lies_at_h_over_tan_10():
    camera = Pinhole.from_focal(81, 61, 40.0)
    photo = blank_photo(camera, pitch_deg=-10.0)
    points = points_of(labels_with({(30, 40): ROAD}, camera=camera), photo)
    assert (points.forward_m[0], points.right_m[0]) == approx((1.6 / np.tan(np.deg2rad(10)), 0.0))


@given(
    pitch_deg=st.floats(-30, 20),
    roll_deg=st.floats(-40, 40),
    heading_deg=st.floats(0, 359),
    col=st.integers(0, 79),
    row=st.integers(0, 59),
)
def test_the_camera_sees_a_ground_point_in_the_pixel_that_it_came_from(
    pitch_deg, roll_deg, heading_deg, col, row
):
    photo = blank_photo(pitch_deg=pitch_deg, roll_deg=roll_deg)
    mount = Mount(heading_deg, forward_m=0.7, right_m=-1.1)
    points = points_of(labels_with({(row, col): ROAD}), photo, reach_m=1000.0, mount=mount)
    rotation = map_from_camera(heading_deg, pitch_deg, roll_deg)
    if points.channel.size == 0:
        assert (rotation @ SMALL.rays(col + 0.5, row + 0.5))[2] > -1.6 / 999.0
        return
    from_camera = np.array([points.right_m[0] + 1.1, points.forward_m[0] - 0.7, -1.6])
    assert SMALL.project(rotation.T @ from_camera) == approx((col + 0.5, row + 0.5), abs=1e-6)


def test_nothing_at_or_above_the_horizon_and_nothing_beyond_the_reach_is_on_the_ground():
    photo = blank_photo()
    points = points_of(np.full((60, 80), ROAD), photo, reach_m=10.0)
    range_m = np.hypot(points.forward_m, points.right_m)
    assert range_m.max() < 10.0
    assert np.all(points.forward_m > 0)
    # in the middle columns the first row nearer than 10 m is 6.5 px below the middle
    nearest_column = points.forward_m[np.abs(points.right_m) < 0.02 * points.forward_m]
    assert nearest_column.max() == approx(1.6 * 40 / 6.5)


def test_a_photo_to_the_right_of_the_rig_sees_ground_to_the_right_of_its_mount():
    labels = labels_with({(47, 40): ROAD})
    ahead = points_of(labels, blank_photo())
    mounted = points_of(labels, blank_photo(), mount=Mount(90.0, forward_m=2.0, right_m=0.5))
    assert mounted.right_m == approx(ahead.forward_m + 0.5)
    assert mounted.forward_m == approx(2.0 - ahead.right_m)


def test_pixels_of_the_own_vehicle_are_no_ground():
    labels = np.full((60, 80), ROAD)
    mask = np.ones((60, 80), bool)
    mask[45:, :] = False
    points = points_of(labels, blank_photo(mask=mask))
    assert points.forward_m.min() == approx(1.6 * 40 / 14.5)
    assert len(points.channel) < len(points_of(labels, blank_photo()).channel)


def test_a_wall_base_among_pixels_of_the_own_vehicle_is_none():
    labels = labels_with({(46, 40): BUILDING, (47, 40): ROAD})
    mask = np.ones((60, 80), bool)
    assert WALL_BASE in points_of(labels, blank_photo(mask=mask)).channel
    mask[46, 40] = False
    assert points_of(labels, blank_photo(mask=mask)).channel.tolist() == [FREE]


def test_a_mask_fits_probabilities_of_another_size():
    mask = np.ones((60, 80), bool)
    mask[:, :40] = False
    points = points_of(np.full((30, 40), ROAD), blank_photo(mask=mask))
    assert points.right_m.size > 0
    assert np.all(points.right_m > 0)


def test_probabilities_of_half_the_size_see_the_same_ground():
    coarse = points_of(labels_with({(24, 12): ROAD}, else_class=SKY)[:30, :40], blank_photo())
    # the coarse pixel's centre is the corner of four fine ones: (25, 49) in the photo's pixels
    assert coarse.forward_m == approx([1.6 * 40 / (49 - 30)])
    assert coarse.right_m == approx([1.6 * (25 - 40) / (49 - 30)])


def test_pixels_that_no_ray_reaches_are_left_out():
    lens = RadialDistortion(40.0, 30.0, (-2e-4,))
    camera = Pinhole(80, 60, 40.0, 40.0, 40.0, 30.0, lens)
    assert np.isnan(camera.rays(0.5, 59.5)).all()
    points = points_of(np.full((60, 80), ROAD), blank_photo(camera))
    assert np.isfinite(points.forward_m).all()
    assert np.isfinite(points.right_m).all()
    assert points.channel.size > 100


def test_classes_are_looked_up_by_name_and_not_by_place():
    labels = labels_with({(47, 60): ROAD, (46, 60): BUILDING})
    expected = points_of(labels, blank_photo())
    order = np.random.default_rng(0).permutation(len(CLASSES))
    shuffled = ground_points(
        blank_photo(),
        one_hot(labels)[..., order],
        [CLASSES[i] for i in order],
        reach_m=REACH_M,
        mount=Mount(),
    )
    assert np.array_equal(shuffled.channel, expected.channel)
    assert np.array_equal(shuffled.forward_m, expected.forward_m)
    assert (WALL_BASE in expected.channel, FREE in expected.channel) == (True, True)


# ------------------------------------------------------------------- wall bases


def base_rows(column: list[int]) -> np.ndarray:
    """Range of the wall bases of a photo whose middle column has these labels from the bottom."""
    labels = np.full((60, 80), SKY)
    for i, label in enumerate(column):
        labels[59 - i, 40] = label
    points = points_of(labels, blank_photo())
    return points.forward_m[points.channel == WALL_BASE]


def test_a_wall_stands_on_the_border_between_its_lowest_pixel_and_the_ground():
    # five pixels of road (rows 55 to 59), then wall: the border is 25 px below the middle
    assert base_rows([ROAD] * 5 + [BUILDING] * 20) == approx([1.6 * 40 / 25])


def test_of_two_walls_in_a_column_the_nearer_one_stands_there():
    column = [ROAD] * 5 + [BUILDING] * 3 + [ROAD] * 3 + [BUILDING] * 9
    assert base_rows(column) == approx([1.6 * 40 / 25])


def test_a_wall_whose_foot_is_hidden_by_a_car_has_no_base():
    assert base_rows([ROAD] * 5 + [CAR] * 3 + [BUILDING] * 20).size == 0


def test_a_wall_without_ground_before_it_has_no_base():
    assert base_rows([BUILDING] * 30).size == 0


@pytest.mark.parametrize("pitch_deg, roll_deg", [(0, 0), (-8, 0), (6, 0), (0, 7), (-5, -9)])
def test_the_foot_of_a_wall_10_m_ahead_lies_10_m_ahead(pitch_deg, roll_deg):
    scene = Scene((Building(box(-50, 10, 50, 30), 8.0),))
    photo = taken(scene, NORTH, pitch_deg=pitch_deg, roll_deg=roll_deg)
    points = seen_in(photo)
    foot_m = points.forward_m[points.channel == WALL_BASE]
    # half a pixel is 1 / 400 rad high, which at 10 m distance and 1.6 m height covers 0.16 m
    half_footprint_m = 10.0**2 / (HEIGHT_M * 400)
    assert foot_m.size > 300
    assert np.abs(foot_m - 10.0).max() < 1.3 * half_footprint_m
    assert foot_m.mean() == approx(10.0, abs=0.1)


@pytest.mark.parametrize(
    "pose", [Pose(0, 0, 0), Pose(3, -4, 33), Pose(-6, 8, 170), Pose(8, 9, 281)], ids=str
)
@pytest.mark.parametrize("kind", ["panorama", "rig"])
def test_wall_bases_of_any_pose_lie_on_the_walls_of_the_court(pose, kind):
    mounts = (Mount(0, 0.5, 0), Mount(90, 0.2, 0.4), Mount(180, -0.7, 0.1), Mount(270, 0.1, -0.4))
    query = sphere_taken(COURT, pose) if kind == "panorama" else rig_taken(COURT, pose, mounts)
    bases = on_map(seen_in(query), pose, WALL_BASE)
    assert len(bases) > 500
    # half a pixel covers range^2 / (2 height focal): 0.13 m at 9 m, 0.6 m at 20 m
    range_m = np.hypot(*(bases - (pose.x_m, pose.y_m)).T)
    focal_px = 720 / (2 * np.pi) if kind == "panorama" else 200
    half_footprint_m = range_m**2 / (2 * HEIGHT_M * focal_px)
    assert np.mean(distance_to_walls(bases) < 1.3 * half_footprint_m) > 0.97
    # and all around, not only ahead
    azimuth = np.arctan2(*(bases - (pose.x_m, pose.y_m)).T)
    assert np.count_nonzero(np.histogram(azimuth, bins=8, range=(-np.pi, np.pi))[0]) > 5


def test_open_ground_of_any_pose_lies_outside_of_buildings():
    pose = Pose(3.0, -4.0, 33.0)
    free = on_map(seen_in(sphere_taken(COURT, pose)), pose, FREE)
    assert len(free) > 10_000
    # a line of sight ends half a metre before a foot that may be half a pixel, 1.1 m, off at 20 m
    assert np.mean(shapely.contains_xy(WALLS, *free.T)) < 1e-3
    assert not shapely.contains_xy(WALLS.buffer(-0.6), *free.T).any()


def test_a_clear_line_of_sight_is_open_ground_and_what_is_behind_the_wall_is_hidden():
    labels = labels_with({(row, 40): BUILDING for row in range(10, 38)})
    labels[38, 40] = ROAD
    labels[39:, 40] = CAR
    points = points_of(labels, blank_photo())
    wall_m = 1.6 * 40 / 8
    assert points.forward_m[points.channel == WALL_BASE] == approx([wall_m])
    free_m = np.sort(points.forward_m[points.channel == FREE])
    # the one road pixel, and the line of sight over the car, up to half a metre before the wall
    assert free_m[0] < 0.3
    assert np.diff(free_m).max() < 0.3
    assert wall_m - 1.0 < free_m[-1] <= wall_m
    hidden_m = points.forward_m[points.channel == BEHIND]
    assert hidden_m.min() == approx(wall_m + 0.5, abs=0.01)
    assert hidden_m.max() == approx(wall_m + 3.0, abs=0.3)


# ------------------------------------------------------------------- from above


def test_ground_ahead_is_above_the_camera_in_the_view_and_ground_to_the_right_is_right_of_it():
    scene = Scene((Building(box(-50, 10, 50, 30), 8.0), Building(box(6, -50, 50, 50), 8.0)))
    view = view_from_above(sphere_taken(scene, NORTH))
    at = view.values[..., WALL_BASE]
    ahead, right = round(10.0 / 0.5), round(6.0 / 0.5)
    row, col = view.camera_row, view.camera_col
    assert at[row - ahead - 1 : row - ahead + 2, col].max() > 0.5
    assert at[row, col + right - 1 : col + right + 2].max() > 0.5
    assert at[row + 1 :, :col].max() == 0


def test_the_view_from_above_says_how_sure_it_is():
    view = view_from_above(sphere_taken(COURT, NORTH))
    assert view.values.min() >= 0.0
    assert view.values.max() <= 1.0
    assert view.values[view.camera_row, view.camera_col, FREE] > 0.95
    assert np.all(view.values[~view.seen] == 0)


def test_three_points_in_a_cell_are_two_thirds_certain():
    points = birdseye_matcher.GroundPoints(np.full(3, 2.0), np.zeros(3), np.full(3, WALL_BASE))
    view = birdseye_matcher.gathered(points, cell_m=0.5, reach_m=5.0)
    assert view.values[view.camera_row - 4, view.camera_col] == approx([0, 1 - np.exp(-1), 0])


def test_what_is_open_is_not_hidden():
    channel = np.repeat([FREE, BEHIND], [200, 200])
    points = birdseye_matcher.GroundPoints(np.full(400, 2.0), np.zeros(400), channel)
    view = birdseye_matcher.gathered(points, cell_m=0.5, reach_m=5.0)
    assert view.values[view.camera_row - 4, view.camera_col] == approx([1, 0, 0], abs=1e-6)


def test_where_the_camera_stands_there_is_no_building():
    labels_of_nothing = blank_photo()
    view = observed(
        labels_of_nothing,
        _Constant("background"),
        cell_m=0.5,
        reach_m=10.0,
        vehicle_radius_m=1.5,
    )
    rows, cols = np.nonzero(view.seen)
    range_m = 0.5 * np.hypot(rows - view.camera_row, cols - view.camera_col)
    assert range_m.max() <= 1.5 + 0.5
    assert view.values[view.camera_row - 2, view.camera_col, FREE] > 0.9
    assert np.all(view.values[..., [WALL_BASE, BEHIND]] == 0)


@pytest.mark.parametrize("num_quarters", [1, 2, 3])
def test_a_photo_stored_upside_down_gives_the_same_view_from_above(num_quarters):
    camera = Pinhole(400, 300, 200.0, 195.0, 190.0, 160.0)
    upright = taken(COURT, Pose(2.0, -3.0, 40.0), camera, pitch_deg=-4.0, roll_deg=3.0)
    stored = Photo(
        rectify.turned_image(upright.image, -num_quarters),
        rectify.turned_camera(camera, -num_quarters),
        roll_deg=3.0 + 90.0 * num_quarters,
        pitch_deg=-4.0,
        height_m=HEIGHT_M,
    )
    expected, view = view_from_above(upright), view_from_above(stored)
    assert np.array_equal(view.seen, expected.seen)
    assert view.values == approx(expected.values, abs=1e-5)


def test_a_pitched_and_rolled_camera_sees_the_same_from_above_as_a_level_one():
    pose = Pose(2.0, -3.0, 40.0)
    level = view_from_above(taken(COURT, pose)).values
    tilted = view_from_above(taken(COURT, pose, pitch_deg=-5.0, roll_deg=6.0)).values
    both = (level[..., FREE] > 0.9) & (tilted[..., FREE] > 0.9)
    assert both.sum() > 0.8 * (level[..., FREE] > 0.9).sum()
    assert not np.any((level[..., FREE] > 0.9) & (tilted[..., BEHIND] > 0.5))


def test_a_panorama_and_a_rig_of_four_see_the_same_from_above():
    pose = Pose(3.0, -4.0, 33.0)
    mounts = tuple(Mount(heading_deg) for heading_deg in (0, 90, 180, 270))
    around = view_from_above(sphere_taken(COURT, pose, width_px=1000)).values
    rig = view_from_above(rig_taken(COURT, pose, mounts)).values
    both = (around[..., FREE] > 0.9) & (rig[..., FREE] > 0.9)
    assert both.sum() > 0.9 * (rig[..., FREE] > 0.9).sum()


def test_a_segmenter_of_half_the_resolution_sees_nearly_the_same_from_above():
    photo = taken(COURT, Pose(2.0, -3.0, 40.0))
    full = view_from_above(photo)
    half = observed(photo, _Halved(), cell_m=0.5, reach_m=REACH_M)
    sure = full.values[..., FREE] > 0.95
    assert np.mean(half.values[sure][:, FREE] > 0.5) > 0.95


def test_upright_images_of_a_single_photo_stand_at_the_reference():
    ((image, mount),) = upright_images(blank_photo(roll_deg=182.0))
    assert mount == Mount()
    assert image.roll_deg == approx(2.0)


class _Constant:
    """A segmenter that sees one class everywhere."""

    classes = CLASSES

    def __init__(self, name):
        self._label = CLASSES.index(name)

    def __call__(self, image):
        return one_hot(np.full(image.shape[:2], self._label))


class _Halved:
    """The class of every other pixel."""

    classes = CLASSES

    def __call__(self, image):
        return SEGMENTER(image)[1::2, 1::2]
