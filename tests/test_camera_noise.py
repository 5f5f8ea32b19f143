"""Cameras that a photo may have been taken with: their spread, and who has none."""

import math

import numpy as np
import pytest
from fakes.court import COURT, rig_taken
from pytest import approx

from crossview import columns
from crossview.camera_noise import CameraNoise
from crossview.cameras import Pinhole, RadialDistortion
from crossview.columns import GROUPS, SegmentedImage
from crossview.frames import Pose
from crossview.photos import Mount, Panorama, Photo, Rig
from crossview.segmenters import upright_images
from crossview.synthetic.palette import PaletteSegmenter

LENS = RadialDistortion(40.0, 30.0, (-1e-6,))
CAMERA = Pinhole(80, 60, 50.0, 52.0, 41.0, 29.0, LENS)
ALL = CameraNoise(3.0, 2.0, 0.25, 0.08, num_variants=2048)
SHOWN = np.zeros((6, 8, len(GROUPS)), np.float32), np.zeros((6, 8), int), ("road",)
STATED = {"pitch_deg": 4.0, "roll_deg": -3.0, "height_m": 2.0}


def segmented(image):
    return SegmentedImage(image, Mount(), *SHOWN)


def photo(**changes):
    return Photo(np.zeros((60, 80, 3), np.uint8), CAMERA, **(STATED | changes))


def cameras(noise, **changes):
    """Pitch, roll, height and focal length of all variants, (variants, 4)."""
    images = [image.image for (image,) in noise.variants([segmented(photo(**changes))])]
    return np.array([(p.pitch_deg, p.roll_deg, p.height_m, p.camera.fx / 50.0) for p in images])


# -------------------------------------------------------------------------- spread


def test_variants_have_the_stated_mean_and_standard_deviation():
    values = cameras(ALL)
    assert values.shape == (2048, 4)
    assert values.mean(axis=0) == approx([4.0, -3.0, 2.0, 1.0], abs=0.02)
    assert values.std(axis=0) == approx([3.0, 2.0, 0.25, 0.08], rel=0.02)


def test_variants_are_normally_distributed():
    pitch_deg = np.sort(cameras(ALL)[:, 0])
    shares = [np.mean(pitch_deg < 4.0 + z * 3.0) for z in (-1.959964, -1.0, 0.0, 1.0, 1.644854)]
    assert shares == approx([0.025, 0.158655, 0.5, 0.841345, 0.95], abs=0.005)


def test_errors_of_one_kind_do_not_depend_on_those_of_another():
    assert np.corrcoef(cameras(ALL).T) == approx(np.eye(4), abs=0.02)


def test_as_few_variants_as_the_default_spread_like_many():
    values = cameras(CameraNoise(3.0, 2.0, 0.25, 0.08))
    errors = (values - [4.0, -3.0, 2.0, 1.0]) / [3.0, 2.0, 0.25, 0.08]
    assert errors.mean(axis=0) == approx(0.0, abs=0.1)
    assert errors.std(axis=0) == approx(1.0, abs=0.1)


def test_the_first_variant_is_the_stated_camera():
    assert cameras(ALL)[0] == approx([4.0, -3.0, 2.0, 1.0])


def test_only_what_is_uncertain_varies():
    values = cameras(CameraNoise(roll_sigma_deg=2.0, num_variants=64))
    assert values[:, 1].std() > 1.5
    assert np.ptp(values[:, [0, 2, 3]], axis=0) == approx(0.0)


def test_the_draws_are_the_same_for_every_photo():
    noise = CameraNoise(3.0, 2.0)
    moved = cameras(noise, pitch_deg=10.0) - cameras(noise)
    assert moved == approx(np.broadcast_to([6.0, 0.0, 0.0, 0.0], (16, 4)), abs=1e-9)


def test_the_focal_length_varies_in_both_directions_alike_and_the_rest_of_the_camera_stays():
    for (image,) in CameraNoise(focal_sigma=0.1).variants([segmented(photo())]):
        camera = image.image.camera
        assert camera.fy / camera.fx == approx(52.0 / 50.0)
        assert (camera.cx, camera.cy, camera.distortion) == (41.0, 29.0, LENS)
        assert (camera.width_px, camera.height_px) == (80, 60)


def test_impossible_cameras_are_clipped_to_possible_ones():
    values = cameras(CameraNoise(60.0, 0.0, 3.0, 1.0, num_variants=256), pitch_deg=40.0)
    assert values[:, 0].max() == 90.0
    assert values[:, 2].min() == 0.3
    assert (values[:, 3].min(), values[:, 3].max()) == approx((0.5, 2.0))


def test_what_the_pixels_show_is_shared_and_stays_where_it_was_mounted():
    one = SegmentedImage(photo(), Mount(10.0, 1.0), *SHOWN)
    for (image,) in CameraNoise(3.0).variants([one]):
        assert image.grouped is one.grouped
        assert image.mount == one.mount


# --------------------------------------------------------------------------- errors


def test_mis_stated_cameras_are_off_by_normal_errors_of_the_stated_sizes():
    rng = np.random.default_rng(0)
    found = [ALL.misstated(photo(), rng) for _ in range(2000)]
    values = np.array([(p.pitch_deg, p.roll_deg, p.height_m, p.camera.fx / 50.0) for p in found])
    errors = (values - [4.0, -3.0, 2.0, 1.0]) / [3.0, 2.0, 0.25, 0.08]
    assert errors.mean(axis=0) == approx(0.0, abs=0.08)
    assert errors.std(axis=0) == approx(1.0, rel=0.05)
    assert np.corrcoef(errors.T) == approx(np.eye(4), abs=0.08)


def test_a_camera_without_noise_is_stated_as_it_is():
    one = photo()
    same = CameraNoise().misstated(one, np.random.default_rng(0))
    assert (same.pitch_deg, same.roll_deg, same.height_m) == (4.0, -3.0, 2.0)
    assert same.camera == one.camera
    assert np.array_equal(same.image, one.image)


# --------------------------------------------------------------------- no variants


def test_a_calibrated_camera_has_one_variant():
    one = segmented(photo())
    assert CameraNoise().variants([one]) == [(one,)]


def test_rigs_do_not_vary():
    mounts = (Mount(), Mount(180.0))
    rig = columns.segmented(rig_taken(COURT, Pose(0, 0, 0), mounts), PaletteSegmenter())
    assert CameraNoise(3.0, 2.0).variants(rig) == [rig]


def test_panoramas_do_not_vary():
    one = segmented(Panorama(np.zeros((40, 80, 3), np.uint8)))
    assert CameraNoise(3.0, 2.0).variants([one]) == [(one,)]


@pytest.mark.parametrize("noise", [CameraNoise(), CameraNoise(3.0, num_variants=5)])
@pytest.mark.parametrize(
    "query",
    [
        photo(),
        Panorama(np.zeros((40, 80, 3), np.uint8)),
        Rig((photo(), photo()), (Mount(), Mount(180.0))),
        Rig((photo(),), (Mount(),)),
    ],
    ids=["photo", "panorama", "rig", "rig of one"],
)
def test_the_number_of_views_is_known_before_they_are_made(query, noise):
    images = [segmented(image) for image, _ in upright_images(query)]
    assert noise.num_views(query) == len(noise.variants(images))


# ----------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "wrong",
    [
        {"pitch_sigma_deg": -1.0},
        {"roll_sigma_deg": math.nan},
        {"height_sigma_m": math.inf},
        {"focal_sigma": -0.1},
        {"num_variants": 0},
        {"num_variants": 2},
    ],
    ids=str,
)
def test_senseless_noise_is_refused(wrong):
    with pytest.raises(ValueError, match="0 or more and num_variants at least 3"):
        CameraNoise(**wrong)
