"""What encoders look at: azimuth by columns, elevation by rows, north in the middle."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview.cameras import Pinhole
from crossview.frames import Fix
from crossview.photos import Panorama, Photo
from crossview.preprocessing import UNSEEN_RGB, Preprocessing, stated_heading_deg

ALIGNED = Preprocessing((9, 36), (9, 36), elevation_deg=(-45.0, 45.0))


def sphere(rows=36, cols=72, *, azimuth_deg=None, elevation_deg=0.0):
    """Black, with one white pixel that holds a direction, if there is one."""
    image = np.zeros((rows, cols, 3), np.uint8)
    if azimuth_deg is not None:
        row = math.floor((0.5 - elevation_deg / 180) * rows)
        image[row, math.floor((azimuth_deg / 360 + 0.5) * cols) % cols] = 255
    return image


def literal_area_mean(image, box, rows, cols):
    """Mean of what every cell covers, pixel by pixel, columns going around."""
    top, bottom, left, right = box
    width = image.shape[1]
    out = np.zeros((rows, cols, 3))
    for i in range(rows):
        for j in range(cols):
            r0, r1 = (top + (bottom - top) * k / rows for k in (i, i + 1))
            c0, c1 = (left + (right - left) * k / cols for k in (j, j + 1))
            total = 0.0
            for r in range(math.floor(r0), math.ceil(r1)):
                for c in range(math.floor(c0), math.ceil(c1)):
                    share = (min(r + 1, r1) - max(r, r0)) * (min(c + 1, c1) - max(c, c0))
                    out[i, j] += share * image[r, c % width]
                    total += share
            out[i, j] /= total
    return out


@given(heading_deg=st.floats(-720, 720), seed=st.integers(0, 99))
def test_a_panorama_is_averaged_over_the_area_of_every_cell(heading_deg, seed):
    image = np.random.default_rng(seed).integers(0, 256, (23, 50, 3), dtype=np.uint8)
    rules = Preprocessing((5, 11), (5, 11), elevation_deg=(-40.0, 60.0))
    left = -heading_deg / 360 * 50
    box = (0.5 - 60 / 180) * 23, (0.5 + 40 / 180) * 23, left, left + 50
    expected = literal_area_mean(image, box, 5, 11)
    ground = rules.ground_of_sphere(image, heading_deg=heading_deg)
    assert np.abs(ground - expected).max() <= 0.5 + 1e-3


@given(heading_deg=st.floats(-720, 720))
def test_a_coarse_panorama_is_interpolated_around_its_seam(heading_deg):
    azimuth = (np.arange(8) + 0.5) * 45 - 180
    wave = np.rint(127 + 100 * np.cos(np.deg2rad(azimuth)))
    image = np.broadcast_to(wave[None, :, None], (4, 8, 3)).astype(np.uint8)
    rules = Preprocessing((4, 40), (4, 40), elevation_deg=(-90.0, 90.0))
    ground = rules.ground_of_sphere(image, heading_deg=heading_deg)
    looks_deg = (np.arange(40) + 0.5) * 9 - 180 - heading_deg
    expected = np.interp(looks_deg, azimuth, wave, period=360)
    np.testing.assert_allclose(ground[2, :, 0], expected, atol=0.6)


@pytest.mark.parametrize(
    ("heading_deg", "column"), [(0.0, 18), (90.0, 27), (180.0, 0), (270.0, 9), (None, 18)]
)
def test_north_is_in_the_middle_whatever_the_heading(heading_deg, column):
    """A white pixel straight ahead of the camera comes to the column of its heading."""
    panorama = Panorama(sphere(azimuth_deg=2.5), heading_deg)
    ground = ALIGNED.ground(panorama)
    assert ground.dtype == np.uint8
    assert np.unravel_index(ground[..., 0].argmax(), (9, 36)) == (4, column)


def test_a_heading_that_is_asked_for_wins_over_the_panoramas_own():
    panorama = Panorama(sphere(azimuth_deg=2.5), 200.0)
    np.testing.assert_array_equal(
        ALIGNED.ground(panorama, heading_deg=90.0),
        ALIGNED.ground(Panorama(panorama.image, 90.0)),
    )


def test_a_photos_compass_says_where_it_looks_if_it_counts_from_true_north():
    image = np.full((60, 80, 3), 200, np.uint8)
    true, magnetic, none = (
        Photo(image, Pinhole.from_focal(80, 60, 40.0), fix=fix)
        for fix in (Fix(50.0, 8.0, heading_deg=90.0),
                    Fix(50.0, 8.0, heading_deg=90.0, heading_reference="magnetic"), None)
    )  # fmt: skip
    assert [stated_heading_deg(each) for each in (true, magnetic, none)] == [90.0, None, None]
    sphere = Panorama(np.zeros((60, 120, 3), np.uint8), 20.0, fix=true.fix)
    assert stated_heading_deg(sphere) == 20.0
    rules = Preprocessing((16, 64), (16, 64))
    np.testing.assert_array_equal(rules.ground(true), rules.ground(none, heading_deg=90.0))
    np.testing.assert_array_equal(rules.ground(magnetic), rules.ground(none, heading_deg=0.0))
    assert not np.array_equal(rules.ground(true), rules.ground(none))


def test_rows_span_the_elevations_that_are_asked_for():
    """30 degrees up is in the second of nine rows between 45 and -45."""
    ground = ALIGNED.ground(Panorama(sphere(azimuth_deg=2.5, elevation_deg=32.0)))
    assert ground[..., 0].max(axis=1).argmax() == 1


def test_a_narrow_ground_image_looks_where_the_middle_of_the_query_looks():
    rules = Preprocessing((9, 9), (9, 36), fov_deg=90.0)
    for heading_deg in (0.0, 123.0):
        ground = rules.ground(Panorama(sphere(azimuth_deg=2.5), heading_deg))
        assert np.unravel_index(ground[..., 0].argmax(), (9, 9)) == (4, 4)


def test_what_a_mask_hides_is_unseen():
    image = np.full((36, 72, 3), 200, np.uint8)
    mask = np.ones((36, 72), bool)
    mask[18:] = False
    ground = ALIGNED.ground(Panorama(image, 0.0, mask=mask))
    assert (ground[:4] == 200).all()
    assert (ground[5:] == UNSEEN_RGB).all()


def photo(direction_deg=(0.0, 0.0), **pose):
    """A level photo of 90 degrees, black, with a white spot in a direction (azimuth, elevation)."""
    camera = Pinhole.from_focal(400, 400, 200.0)
    azimuth, elevation = np.deg2rad(direction_deg)
    ray = np.array([np.tan(azimuth), -np.tan(elevation) / np.cos(azimuth), 1.0])
    col, row = camera.project(ray)
    image = np.zeros((400, 400, 3), np.uint8)
    image[int(row) - 24 : int(row) + 25, int(col) - 24 : int(col) + 25] = 255
    return Photo(image, camera, **pose)


@pytest.mark.parametrize("azimuth_deg", [-35.0, -5.0, 25.0])
@pytest.mark.parametrize("heading_deg", [0.0, 90.0, 170.0])
def test_a_photo_lies_at_its_azimuths_and_the_rest_is_unseen(azimuth_deg, heading_deg):
    ground = ALIGNED.ground(photo((azimuth_deg, 0.0)), heading_deg=heading_deg)
    spot = np.unravel_index(ground[..., 0].astype(int).argmax(), (9, 36))
    assert spot == (4, math.floor((azimuth_deg + heading_deg) / 10 + 18) % 36)
    seen = (ground != UNSEEN_RGB).any(axis=(0, 2))
    columns_deg = (np.arange(36) - 17.5) * 10
    off_deg = np.abs((columns_deg - heading_deg + 180) % 360 - 180)
    assert seen[off_deg < 44].all()
    assert not seen[off_deg > 51].any()


def test_a_photo_that_looks_up_is_levelled():
    """The middle of a photo with a pitch of 20 degrees lies at elevation 20."""
    ground = ALIGNED.ground(photo((0.0, 0.0), pitch_deg=20.0))
    assert ground[..., 0].astype(int).max(axis=1).argmax() == 2
    assert (ground[-1, 18] == UNSEEN_RGB).all()


def test_a_photo_much_finer_than_the_ground_image_is_averaged():
    """Stripes of one pixel become grey, not a pattern."""
    image = np.zeros((1200, 1600, 3), np.uint8)
    image[:, ::2] = 255
    ground = ALIGNED.ground(Photo(image, Pinhole.from_focal(1600, 1200, 1200.0)))
    middle = ground[3:6, 16:20]
    assert (np.abs(middle.astype(float) - 127.5) < 8).all()


@pytest.mark.parametrize("polar", ["crossview", "safa"])
def test_a_polar_overhead_image_has_north_in_the_middle_and_the_rim_above(polar):
    tile = np.zeros((64, 64, 3), np.uint8)
    tile[:16, 31:33] = 255  # north, far
    tile[30:34, 48:] = 128  # east
    overhead = Preprocessing((8, 64), (8, 64), polar=polar).overhead(tile)
    assert overhead[0, :, 0].argmax() in (31, 32)
    assert overhead[1, 47:50].max() > 30
    assert overhead[1, 15:18].max() == 0
    assert overhead[-1].max() == 0


def test_a_fine_tile_is_averaged_before_it_becomes_polar():
    tile = np.zeros((640, 640, 3), np.uint8)
    tile[::2] = 255
    overhead = Preprocessing((8, 32), (8, 32)).overhead(tile)
    assert (np.abs(overhead.astype(float) - 127.5) < 1).all()


def test_a_square_overhead_image_is_averaged():
    tile = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    overhead = Preprocessing((8, 8), (8, 8), polar=None).overhead(tile)
    means = tile.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(overhead - means).max() <= 0.5


def test_preprocessing_survives_json():
    rules = Preprocessing((9, 18), (10, 10), (-30.0, 20.5), 90.0, 50.0, None)
    assert Preprocessing.from_json(rules.to_json()) == rules
    stretched = Preprocessing((9, 18), (10, 10), polar="safa", rescale="minmax")
    assert Preprocessing.from_json(stretched.to_json()) == stretched
    # fingerprints of encoders that were stored before there was such a thing
    assert "rescale" not in rules.to_json()


def test_polar_images_are_stretched_as_published_weights_expect_them():
    tile = np.random.default_rng(0).integers(60, 160, (40, 40, 3), dtype=np.uint8)
    rules = Preprocessing((8, 32), (8, 32), polar="safa")
    plain, stretched = rules.overhead(tile), replace(rules, rescale="minmax").overhead(tile)
    assert (stretched.min(), stretched.max()) == (0, 255)
    low, high = float(plain.min()), float(plain.max())
    expected = (plain - low) * 255 / (high - low)
    assert np.abs(stretched - expected).max() < 5  # of values before they were rounded


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ground_px": (0, 4)}, "ground_px"),
        ({"elevation_deg": (10.0, -10.0)}, "lowest"),
        ({"fov_deg": 0.0}, "fov_deg"),
        ({"footprint_m": -1.0}, "footprint_m"),
        ({"polar": "polar"}, "safa"),
        ({"rescale": "byte"}, "minmax"),
        ({"rescale": "minmax", "polar": None}, "polar images only"),
    ],
)
def test_impossible_preprocessing_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"ground_px": (4, 4), "overhead_px": (4, 4), **wrong})


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match="square"):
        ALIGNED.overhead(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        ALIGNED.overhead(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="description"):
        Preprocessing.from_json({"size": 3})
