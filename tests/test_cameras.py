import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview.cameras import (
    Equirectangular,
    Pinhole,
    RadialDistortion,
    map_from_camera,
    orientation_from_rotation,
)

# a street survey's front camera (2048 px): projection and lens as calibrated
SURVEY_LENS = RadialDistortion(
    1042.178,
    1027.565,
    (-1.40358671178762456e-7, 3.68704437301178485e-14, -4.70823660788942483e-21),
)
SURVEY_CAMERA = Pinhole(2048, 2048, 1134.1024991511, 1134.1024991511, 1036.59, 1027.39, SURVEY_LENS)
PHONE = Pinhole.from_focal(4032, 3024, 3100.0)

angle = st.floats(-180, 180)
# within the image; the survey lens reaches 1459 px, a hair less than its farthest corner
share = st.floats(0.01, 0.99)


def turn_deg(a_deg, b_deg):
    return (a_deg - b_deg + 180) % 360 - 180


# ---------------------------------------------------------------- pinhole


def test_the_middle_of_the_image_looks_straight_ahead():
    assert Pinhole.from_focal(100, 60, 50).rays(50, 30) == approx([0, 0, 1])


def test_x_is_right_and_y_is_down():
    camera = Pinhole.from_focal(100, 60, 50)
    # 50 px right of the middle with a focal length of 50 px is 45 degrees
    assert camera.rays(100, 30) == approx([math.sqrt(0.5), 0, math.sqrt(0.5)])
    assert camera.rays(50, 80) == approx([0, math.sqrt(0.5), math.sqrt(0.5)])


def test_pixel_positions_have_a_corner_origin():
    # the only pixel of a one-pixel image looks straight ahead through its centre
    assert Pinhole.from_focal(1, 1, 1).rays(0.5, 0.5) == approx([0, 0, 1])


def test_the_field_of_view_of_a_focal_length_of_half_the_width_is_90_degrees():
    assert Pinhole.from_focal(100, 60, 50).horizontal_fov_deg == approx(90)


@pytest.mark.parametrize("camera", [SURVEY_CAMERA, PHONE], ids=["survey", "phone"])
@given(across=share, along=share)
def test_project_inverts_rays_everywhere_in_the_image(camera, across, along):
    col, row = across * camera.width_px, along * camera.height_px
    assert camera.project(camera.rays(col, row)) == approx((col, row), abs=1e-5)


@given(st.floats(-40, 40), st.floats(-40, 40), st.floats(0.01, 1000))
def test_rays_inverts_project_for_directions_of_any_length(azimuth_deg, elevation_deg, length):
    x, y = math.tan(math.radians(azimuth_deg)), math.tan(math.radians(elevation_deg))
    direction = np.array([x, y, 1.0])
    ray = SURVEY_CAMERA.rays(*SURVEY_CAMERA.project(direction * length))
    assert ray == approx(direction / np.linalg.norm(direction), abs=1e-9)


def test_rays_have_length_one_and_keep_the_shape_of_positions():
    col, row = np.meshgrid(np.arange(5) * 400.0 + 50, np.arange(4) * 500.0 + 50)
    rays = SURVEY_CAMERA.rays(col, row)
    assert rays.shape == (4, 5, 3)
    assert np.linalg.norm(rays, axis=-1) == approx(np.ones((4, 5)))
    assert PHONE.rays(col[:1], row[:, :1]).shape == (4, 5, 3)


def test_what_is_behind_the_camera_is_not_seen():
    col, row = PHONE.project([[0, 0, -1], [1, 0, 0], [0.1, 0.1, 1]])
    assert np.isnan(col).tolist() == np.isnan(row).tolist() == [True, True, False]


def test_positions_outside_of_the_image_are_not_contained():
    camera = Pinhole.from_focal(100, 60, 50)
    assert camera.contains([0, 99.9, 100, -0.1, 50], [0, 59.9, 5, 5, 60]).tolist() == (
        [True, True, False, False, False]
    )
    assert not camera.contains(math.nan, 5)


@given(share, share, st.sampled_from([0.25, 0.5, 2.0]))
def test_a_resized_image_has_the_same_rays(across, along, factor):
    small = SURVEY_CAMERA.scaled(factor)
    assert (small.width_px, small.height_px) == (2048 * factor, 2048 * factor)
    col, row = across * 2048, along * 2048
    assert small.rays(col * factor, row * factor) == approx(SURVEY_CAMERA.rays(col, row), abs=1e-9)


def test_an_undistorted_camera_differs_only_by_its_lens():
    ideal = SURVEY_CAMERA.undistorted()
    assert ideal.distortion is None
    assert ideal.rays(1036.59, 1027.39) == approx([0, 0, 1])


@pytest.mark.parametrize("focal_px", [0, -5, math.nan, math.inf])
def test_a_senseless_focal_length_is_refused(focal_px):
    with pytest.raises(ValueError, match="Focal lengths"):
        Pinhole.from_focal(10, 10, focal_px)


@pytest.mark.parametrize("make", [Equirectangular, lambda w, h: Pinhole.from_focal(w, h, 5)])
def test_an_image_without_pixels_is_refused(make):
    with pytest.raises(ValueError, match="at least one pixel"):
        make(0, 10)


# ---------------------------------------------------------------- lens


def test_a_lens_moves_positions_along_the_radius_by_its_polynomial():
    lens = RadialDistortion(10.0, 20.0, (0.01, 0.001))
    # r = 2: factor 1 + 0.01 * 4 + 0.001 * 16 = 1.056
    assert lens.distorted(12.0, 20.0) == approx((10 + 2 * 1.056, 20.0))
    assert lens.distorted(10.0, 18.0) == approx((10.0, 20 - 2 * 1.056))


def test_the_survey_lens_pulls_its_corner_inwards_by_a_hand_computed_amount():
    # 1000 px to the right of the centre: 1 - 0.140359 + 0.036870 - 0.004708 = 0.891803
    col, row = SURVEY_LENS.distorted(2042.178, 1027.565)
    assert (col, row) == approx((1042.178 + 891.8033, 1027.565), abs=1e-3)


@given(share, share)
def test_undistorted_inverts_distorted_within_the_image(across, along):
    col, row = across * 2048, along * 2048
    assert SURVEY_LENS.distorted(*SURVEY_LENS.undistorted(col, row)) == approx((col, row), abs=1e-6)


@given(st.integers(-100, 100), st.integers(-100, 100), share, share)
def test_any_gentle_lens_makes_the_round_trip(k1, k2, across, along):
    lens = RadialDistortion(1003, 745, (k1 * 1e-10, k2 * 1e-17))
    camera = Pinhole(2000, 1500, 1200, 1200, 990, 760, lens)
    col, row = across * 2000, along * 1500
    assert camera.project(camera.rays(col, row)) == approx((col, row), abs=1e-5)


def test_undistorting_a_position_does_not_depend_on_the_others():
    alone = np.array(SURVEY_LENS.undistorted(1500.0, 1000.0))
    for far in (3e3, 1e4, 1e5, 1e6, math.nan):
        col, row = SURVEY_LENS.undistorted([1500.0, far], [1000.0, 0.0])
        assert (col[0], row[0]) == approx(tuple(alone), abs=1e-9)


def test_a_ray_where_the_lens_polynomial_has_turned_back_is_not_folded_into_the_image():
    # the polynomial grows up to an ideal radius of 2057 px, 61 degrees; 65 would come back in
    far = [math.tan(math.radians(65)), 0.0, 1.0]
    folded_col, folded_row = SURVEY_LENS.distorted(*SURVEY_CAMERA.undistorted().project(far))
    assert SURVEY_CAMERA.contains(folded_col - 900, folded_row)
    assert np.isnan(SURVEY_CAMERA.project(far)).all()


def test_the_survey_lens_grows_up_to_the_root_of_its_slope():
    radius = SURVEY_LENS.max_ideal_radius_px
    k1, k2, k3 = SURVEY_LENS.coefficients
    slope = [1 + 3 * k1 * r**2 + 5 * k2 * r**4 + 7 * k3 * r**6 for r in (radius - 1, radius + 1)]
    assert slope[0] > 0 > slope[1]
    assert radius == approx(2050, abs=30)


def test_a_position_that_no_ideal_ray_reaches_has_no_ray():
    # the polynomial's largest distorted radius is 1459 px; the image's corner is at 1463
    assert np.isnan(SURVEY_CAMERA.rays(1042 + 1470.0, 1027.0)).all()
    assert np.isfinite(SURVEY_CAMERA.rays(1042 + 1450.0, 1027.0)).all()


def test_the_centre_of_the_lens_stays_where_it_is():
    assert SURVEY_LENS.undistorted(1042.178, 1027.565) == approx((1042.178, 1027.565))


def test_a_lens_with_a_missing_number_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        RadialDistortion(1, 2, (math.nan,))


# ---------------------------------------------------------------- panorama


def test_a_panoramas_middle_column_looks_ahead_and_azimuth_grows_to_the_right():
    panorama = Equirectangular(400, 200)
    assert panorama.rays(200, 100) == approx([0, 0, 1], abs=1e-12)
    assert panorama.rays(300, 100) == approx([1, 0, 0], abs=1e-12)
    assert panorama.rays(100, 100) == approx([-1, 0, 0], abs=1e-12)
    assert panorama.rays(0, 100) == approx([0, 0, -1], abs=1e-12)


def test_a_panoramas_top_edge_looks_up_and_its_bottom_edge_down():
    panorama = Equirectangular(400, 200)
    assert panorama.rays(77, 0) == approx([0, -1, 0], abs=1e-12)
    assert panorama.rays(77, 200) == approx([0, 1, 0], abs=1e-12)
    assert panorama.rays(200, 50) == approx([0, -math.sqrt(0.5), math.sqrt(0.5)])


@given(st.floats(0, 399.99), st.floats(0.01, 199.99), st.floats(0.1, 100))
def test_a_panoramas_project_inverts_its_rays(col, row, length):
    panorama = Equirectangular(400, 200)
    back_col, back_row = panorama.project(panorama.rays(col, row) * length)
    assert (back_col - col + 200) % 400 - 200 == approx(0, abs=1e-6)
    assert back_row == approx(row, abs=1e-6)
    assert 0 <= back_col < 400


def test_straight_behind_is_column_0_from_either_side():
    col, _ = Equirectangular(400, 200).project([[0.0, 0, -1], [-0.0, 0, -1]])
    assert col.tolist() == [0, 0]


def test_a_panorama_contains_the_positions_of_its_image_and_no_others():
    contained = Equirectangular(400, 200).contains([0, 399, 5, 5, math.nan], [0, 199, -10, 300, 5])
    assert contained.tolist() == [True, True, False, False, False]


# ---------------------------------------------------------------- orientation


def test_a_level_camera_to_the_north():
    # columns: x right is east, y down is down, z forward is north
    assert map_from_camera(0) == approx(np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]))


def test_a_level_camera_to_the_east():
    # x right is south, y down is down, z forward is east
    expected = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    assert map_from_camera(90) == approx(expected, abs=1e-12)


def test_positive_pitch_looks_up():
    ahead = map_from_camera(0, 30) @ [0, 0, 1]
    assert ahead == approx([0, math.cos(math.radians(30)), 0.5])


def test_positive_roll_puts_the_right_side_down():
    right = map_from_camera(0, 0, 10) @ [1, 0, 0]
    assert right == approx([math.cos(math.radians(10)), 0, -math.sin(math.radians(10))])


def test_a_camera_rolled_by_90_has_its_images_bottom_to_the_left():
    below = map_from_camera(0, 0, 90) @ [0, 1, 0]
    assert below == approx([-1, 0, 0], abs=1e-12)


def about(axis, angle_deg):
    """Rotation matrix about an axis by the right-hand rule (Rodrigues)."""
    axis, turn = np.asarray(axis, float), math.radians(angle_deg)
    cross = np.cross(axis, np.eye(3)).T
    along = np.outer(axis, axis)
    return math.cos(turn) * np.eye(3) + math.sin(turn) * cross + (1 - math.cos(turn)) * along


@given(angle, st.floats(-90, 90), angle)
def test_heading_then_pitch_then_roll_each_about_the_cameras_own_axis(heading, pitch, roll):
    # in camera axes: heading turns z to x (about y, down), pitch z to -y (about x), roll x to y
    # (about z); own axes: later turns multiply on the right
    level_north = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    expected = level_north @ about([0, 1, 0], heading) @ about([1, 0, 0], pitch)
    expected = expected @ about([0, 0, 1], roll)
    assert map_from_camera(heading, pitch, roll) == approx(expected, abs=1e-9)


@given(angle, st.floats(-90, 90), angle)
def test_a_camera_is_a_rotation_never_a_mirror(heading, pitch, roll):
    rotation = map_from_camera(heading, pitch, roll)
    assert rotation.T @ rotation == approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == approx(1)


@given(angle, st.floats(-89.9, 89.9), angle)
def test_orientation_inverts_the_rotation(heading, pitch, roll):
    found = orientation_from_rotation(map_from_camera(heading, pitch, roll))
    assert 0 <= found.heading_deg < 360
    assert turn_deg(found.heading_deg, heading) == approx(0, abs=1e-6)
    assert found.pitch_deg == approx(pitch, abs=1e-6)
    assert turn_deg(found.roll_deg, roll) == approx(0, abs=1e-6)


@given(angle, st.sampled_from([-90, 90]), angle)
def test_a_camera_that_looks_straight_up_or_down_keeps_its_rotation(heading, pitch, roll):
    rotation = map_from_camera(heading, pitch, roll)
    found = orientation_from_rotation(rotation)
    assert found.roll_deg == 0
    assert found.pitch_deg == approx(pitch)
    assert map_from_camera(*found) == approx(rotation, abs=1e-7)


@pytest.mark.parametrize(
    "matrix",
    [np.eye(4), np.zeros((3, 3)), 2 * np.eye(3), np.full((3, 3), math.nan)],
    ids=["4x4", "zeros", "scaled", "nan"],
)
def test_what_is_no_rotation_is_refused(matrix):
    with pytest.raises(ValueError, match="rotation matrix"):
        orientation_from_rotation(matrix)


def test_a_mirrored_camera_is_refused():
    # what comes out of axes with y up taken for axes with y down
    mirrored = map_from_camera(30, 5, 2) @ np.diag([1, -1, 1])
    with pytest.raises(ValueError, match="mirror"):
        orientation_from_rotation(mirrored)


def test_a_lens_that_turns_back_is_inverted_up_to_where_it_turns():
    lens = RadialDistortion(1000.0, 1000.0, (3e-7, 1e-13, -1e-19))
    ideal_px = np.linspace(0.0, 0.9999 * lens.max_ideal_radius_px, 500)
    col, row = lens.undistorted(*lens.distorted(1000.0 + ideal_px, np.full(500, 1000.0)))
    assert col == approx(1000.0 + ideal_px, abs=1e-4)
    assert row == approx(1000.0)


@given(
    st.floats(-4e-7, 4e-7), st.floats(-2e-13, 2e-13), st.floats(-1e-19, 1e-19), st.floats(0.0, 0.99)
)
def test_any_lens_is_inverted_where_it_grows(k1, k2, k3, share):
    lens = RadialDistortion(0.0, 0.0, (k1, k2, k3))
    ideal_px = share * min(lens.max_ideal_radius_px, 2000.0)
    assert lens.undistorted(*lens.distorted(ideal_px, 0.0))[0] == approx(ideal_px, abs=1e-4)
