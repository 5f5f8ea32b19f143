"""Rectifying, against images whose pixels say which way they look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview import rectify
from crossview.cameras import Equirectangular, Pinhole, RadialDistortion, map_from_camera

LENS = RadialDistortion(center_col=52.0, center_row=37.0, coefficients=(-1.2e-5, 2e-10))
CAMERA = Pinhole(100, 80, fx=90.0, fy=92.0, cx=51.0, cy=39.0, distortion=LENS)
INTERPOLATION = 2e-3


def pixel_centers(camera):
    return np.arange(camera.width_px) + 0.5, np.arange(camera.height_px)[:, None] + 0.5


def directions(camera, map_from_axes):
    """An image whose three channels are the direction, on the map, in which each pixel looks."""
    return camera.rays(*pixel_centers(camera)) @ map_from_axes.T


def test_the_same_camera_gives_the_same_image():
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    same, valid = rectify.rectified(image, CAMERA, CAMERA, np.eye(3))
    assert np.array_equal(same, image)
    assert valid.all()


def test_every_pixel_of_the_target_shows_what_its_ray_looks_at():
    source, target = map_from_camera(33.0, 8.0, -5.0), map_from_camera(40.0, -3.0, 12.0)
    wanted = Pinhole.from_focal(70, 60, 80.0)
    image, valid = rectify.rectified(directions(CAMERA, source), CAMERA, wanted, target.T @ source)
    error = np.abs(image - directions(wanted, target)).max(axis=-1)
    assert 0.5 < valid.mean() < 1.0
    # within half a pixel of the edges the nearest pixel is repeated
    assert np.quantile(error[valid], 0.95) < INTERPOLATION
    assert error[valid].max() < 1.0 / CAMERA.fx


def test_a_levelled_photo_looks_along_its_heading_without_pitch_roll_or_lens():
    tilted = map_from_camera(0.0, 10.0, 6.0)
    image, valid = rectify.levelled(
        directions(CAMERA, tilted), CAMERA, pitch_deg=10.0, roll_deg=6.0
    )
    expected = directions(CAMERA.undistorted(), map_from_camera(0.0))
    assert image.shape == (80, 100, 3)
    assert np.quantile(np.abs(image - expected)[valid], 0.95) < INTERPOLATION


def test_a_pole_is_a_column_after_levelling_and_was_none_before():
    azimuth = np.arctan2(*np.moveaxis(directions(CAMERA, map_from_camera(0.0, 25.0)), -1, 0)[:2])
    pole = np.exp(-(((azimuth - np.deg2rad(15.0)) / np.deg2rad(1.5)) ** 2))
    level, valid = rectify.levelled(pole, CAMERA, pitch_deg=25.0, roll_deg=0.0)

    def columns(image, rows):
        weight = image[rows] / image[rows].sum(axis=1, keepdims=True)
        return (weight * np.arange(image.shape[1])).sum(axis=1)

    seen = np.flatnonzero((level.max(axis=1) > 0.9) & valid.all(axis=1))
    assert len(seen) > 20
    assert np.ptp(columns(level, seen)) < 0.1
    assert np.ptp(columns(pole, [5, 75])) > 4.0


def test_an_image_stored_upside_down_becomes_upright_when_levelled():
    camera = Pinhole(100, 80, fx=90.0, fy=90.0, cx=47.0, cy=42.0)
    image = np.random.default_rng(1).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    level, valid = rectify.levelled(image, camera, pitch_deg=0.0, roll_deg=180.0)
    assert np.array_equal(level, image[::-1, ::-1])
    assert valid.all()


def test_what_the_source_did_not_see_is_zero_and_not_valid():
    source = np.full((80, 100), 7, dtype=np.int16)
    turned = map_from_camera(50.0).T @ map_from_camera(0.0)
    image, valid = rectify.rectified(source, CAMERA, CAMERA.undistorted(), turned)
    # the target looks 50 deg to the right of a photo that spans about 29 deg to each side
    assert valid[:, 0].any() and not valid[:, 50:].any()
    assert set(np.unique(image[valid])) == {7}
    assert set(np.unique(image[~valid])) == {0}


@pytest.mark.parametrize("turn_deg", [0.0, 90.0, 180.0, 181.0, -37.0])
def test_a_crop_of_a_panorama_looks_where_it_was_told_also_across_the_seam(turn_deg):
    sphere = Equirectangular(360, 180)
    crop_camera = Pinhole.from_focal(50, 40, 45.0)
    image, valid = rectify.perspective(
        directions(sphere, map_from_camera(20.0)), crop_camera, turn_deg=turn_deg, pitch_deg=15.0,
        roll_deg=-7.0,
    )  # fmt: skip
    expected = directions(crop_camera, map_from_camera(20.0 + turn_deg, 15.0, -7.0))
    assert valid.all()
    assert np.abs(image - expected).max() < INTERPOLATION


def test_there_and_back_gives_a_smooth_image_again():
    smooth = directions(CAMERA, map_from_camera(0.0))
    rotation = map_from_camera(5.0, 3.0, 4.0).T @ map_from_camera(0.0)
    wide = Pinhole.from_focal(160, 140, 90.0)
    there, _ = rectify.rectified(smooth, CAMERA, wide, rotation)
    back, valid = rectify.rectified(there, wide, CAMERA, rotation.T)
    inner = (slice(5, -5), slice(5, -5))
    assert valid[inner].all()
    assert np.abs(back - smooth)[inner].max() < INTERPOLATION


def test_a_mask_is_true_only_where_all_pixels_around_are():
    mask = np.ones((80, 100), dtype=bool)
    mask[:, 50:] = False
    half = np.deg2rad(0.5 / 90.0 * 180 / np.pi)
    shift = map_from_camera(np.rad2deg(half)).T @ map_from_camera(0.0)
    camera = Pinhole.from_focal(100, 80, 90.0)
    image, _ = rectify.rectified(mask, camera, camera, shift)
    assert image.dtype == bool
    # the edge of column 50 lies in the middle of a pixel of the target
    assert image[40, :49].all() and not image[40, 49:].any()


@pytest.mark.parametrize(
    ("roll_deg", "expected"), [(0, 0), (44, 0), (46, 1), (180.3, 2), (-179, 2), (-90, 3), (359, 0)]
)
def test_quarter_turns_bring_an_image_upright(roll_deg, expected):
    assert rectify.quarter_turns(roll_deg) == expected


@given(
    col=st.floats(0, 100), row=st.floats(0, 80), quarters=st.integers(0, 4),
    roll_deg=st.floats(-180, 180), pitch_deg=st.floats(-80, 80),
)  # fmt: skip
def test_turning_image_and_camera_by_quarters_does_not_change_where_a_position_looks(
    col, row, quarters, roll_deg, pitch_deg
):
    turned = rectify.turned_camera(CAMERA, quarters)
    position = col, row
    for _ in range(quarters):
        # the height of the image before this turn
        height = 80 if _ % 2 == 0 else 100
        position = height - position[1], position[0]
    before = map_from_camera(0.0, pitch_deg, roll_deg) @ CAMERA.rays(col, row)
    upright = map_from_camera(0.0, pitch_deg, roll_deg - 90.0 * quarters)
    assert upright @ turned.rays(*position) == pytest.approx(before, abs=1e-9)


def test_a_quarter_turn_moves_the_left_edge_to_the_top():
    image = np.zeros((2, 3), dtype=np.uint8)
    image[:, 0] = 9
    assert rectify.turned_image(image, 1).tolist() == [[9, 9], [0, 0], [0, 0]]


def test_a_matrix_that_is_no_rotation_is_refused():
    with pytest.raises(ValueError, match="rotation between camera axes"):
        rectify.rectified(np.zeros((80, 100)), CAMERA, CAMERA, np.diag([1.0, 1.0, 2.0]))


def test_an_image_of_another_size_than_its_camera_is_refused():
    with pytest.raises(ValueError, match=r"80 x 100.*Scale the camera"):
        rectify.rectified(np.zeros((40, 50)), CAMERA, CAMERA, np.eye(3))
