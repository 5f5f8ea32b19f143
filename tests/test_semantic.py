"""The column matcher: poses of a court and a town, literal sums, turning."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fakes.court import COURT, HEIGHT_M, rig_taken, sphere_taken, taken
from fakes.court_columns import (
    BLURRED,
    FRAME,
    GRID,
    PART,
    POSE,
    SEGMENTER,
    SHARP,
    SMALL,
    SOFT,
    calibrated,
    counted,
    court_map,
    court_matcher,
    court_scores,
    court_view,
    doubled,
    scores_on,
    without_heights,
)
from pytest import approx

from crossview import angles, column_evidence, raycast
from crossview.camera_noise import CameraNoise
from crossview.columns import NUM_AZIMUTHS, ColumnView
from crossview.evidence import prior_within
from crossview.localizer import Localizer
from crossview.photos import Mount, Photo
from crossview.semantic import SemanticMatcher
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

CORNERS = tuple(Mount(heading_deg, 0.3, 0.2) for heading_deg in (0.0, 90.0, 180.0, 270.0))


@pytest.fixture(scope="module")
def matcher():
    return court_matcher()


@pytest.fixture(scope="module")
def view():
    return court_view()


@pytest.fixture(scope="module")
def soft_scores():
    return court_scores(SOFT)


@pytest.fixture(scope="module")
def sharp_scores():
    return court_scores(SHARP)


def best_pose(scores):
    return GRID.pose_at(*(int(i) for i in np.unravel_index(scores.argmax(), scores.shape)))


def assert_found(estimate, truth, *, num_headings):
    """Within a cell and a bin."""
    assert max(abs(estimate.x_m - truth.x_m), abs(estimate.y_m - truth.y_m)) <= 0.75
    turn_deg = angles.difference_deg(estimate.heading_deg, truth.heading_deg)
    assert abs(turn_deg) <= 1.5 * 360 / num_headings


# ------------------------------------------------------------------ poses in the court


def test_the_best_pose_of_the_court_is_the_true_one(soft_scores):
    assert_found(best_pose(soft_scores), POSE, num_headings=64)


def test_a_rig_is_found_too(matcher):
    scores = scores_on(matcher, rig_taken(COURT, POSE, CORNERS), GRID)
    assert_found(best_pose(scores), POSE, num_headings=64)


def test_a_photo_that_looks_down_and_is_rolled_is_found_too(matcher):
    photo = taken(COURT, POSE, pitch_deg=-6.0, roll_deg=8.0)
    scores = scores_on(matcher, photo, GRID)
    assert_found(best_pose(scores), POSE, num_headings=64)


def test_footprints_without_heights_are_enough(matcher, view):
    scores = scores_on(calibrated(matcher, BLURRED), view, GRID, maps=without_heights)
    estimate = best_pose(scores)
    assert math.hypot(estimate.x_m - POSE.x_m, estimate.y_m - POSE.y_m) < 2.5
    assert estimate.heading_deg == POSE.heading_deg


def test_footprints_without_heights_lift_the_true_pose_above_the_floor(matcher, view):
    scores = scores_on(matcher, view, SMALL, maps=without_heights)
    assert scores[SMALL.index_of(POSE)] > 1.0


def test_without_heights_the_heights_say_nothing(matcher, view):
    def lower(cells):
        raster = court_map(cells)
        return replace(raster, building_height_m=raster.building_height_m / 2).without_heights()

    blurred = calibrated(matcher, BLURRED)
    bare = scores_on(blurred, view, SMALL, maps=without_heights)
    assert np.array_equal(scores_on(blurred, view, SMALL, maps=lower), bare)


def test_wrong_heights_do_harm(matcher, view, sharp_scores):
    wrong = scores_on(calibrated(matcher, SHARP), view, SMALL, maps=doubled)
    assert wrong[SMALL.index_of(POSE)] < sharp_scores[GRID.index_of(POSE)] - 5.0


# --------------------------------------------------------------------- what a score is


def test_a_score_is_the_scaled_sum_of_a_poses_columns_over_the_level(matcher, view, sharp_scores):
    evidence = column_evidence.evidence(view[0], matcher.model)
    level = SOFT.unknown_level * evidence.best
    free = np.argwhere(np.isfinite(sharp_scores[:, :, 0]))
    for row, col in free[:: len(free) // 4]:
        for k in (11,):
            range_m, skyline_deg = raycast.look_around(
                court_map,
                FRAME,
                GRID.pose_at(int(row), int(col), k),
                height_m=HEIGHT_M,
                reach_m=matcher.sight_m,
                parts=2,
            )
            codes = column_evidence.codes_of(
                range_m.astype(np.float16), skyline_deg.astype(np.float16)
            )
            total = sum(float(evidence.log_ratio[a, codes[a]]) for a in range(NUM_AZIMUTHS))
            expected = SOFT.scale * (total - level)
            assert sharp_scores[row, col, k] == approx(expected, abs=0.02)


def test_the_floor_is_a_place_unknown(matcher, view, sharp_scores):
    share = 0.25
    scores = scores_on(calibrated(matcher, replace(SHARP, unexplained_share=share)), view, GRID)
    expected = np.log(share + (1 - share) * np.exp(sharp_scores.astype(float)))
    assert scores == approx(expected, abs=1e-3)


def test_cameras_that_a_photo_may_have_been_taken_with_are_equally_probable(matcher):
    sharp = calibrated(matcher, SHARP)
    views = [
        sharp.observe(taken(COURT, POSE, pitch_deg=pitch_deg))[0] for pitch_deg in (0.0, 4.0, -7.0)
    ]
    alone = [scores_on(sharp, (one,), GRID).astype(float) for one in views]
    expected = np.logaddexp.reduce(alone, axis=0) - math.log(3)
    assert scores_on(sharp, views, GRID) == approx(expected, abs=1e-3)


def test_cameras_of_different_heights_are_mixed_too(matcher):
    sharp = calibrated(matcher, SHARP)
    views = [
        sharp.observe(taken(COURT, POSE, height_m=height_m))[0] for height_m in (HEIGHT_M, 2.2)
    ]
    alone = [scores_on(sharp, (one,), SMALL).astype(float) for one in views]
    expected = np.logaddexp.reduce(alone, axis=0) - math.log(2)
    # one ray cast serves both: skylines, which stand on first walls here, are moved, and their
    # bins of a degree round otherwise (without moving them the answers are 3 nats apart)
    assert scores_on(sharp, views, SMALL) == approx(expected, abs=0.75)


def test_a_single_photo_is_observed_with_every_camera_of_the_noise(matcher):
    unsure = replace(matcher, noise=CameraNoise(pitch_sigma_deg=3.0, num_variants=5))
    photo = taken(COURT, POSE)
    views = unsure.observe(photo)
    assert len(views) == 5
    assert np.array_equal(views[0].probability, matcher.observe(photo)[0].probability)
    assert len(unsure.observe(sphere_taken(COURT, POSE))) == 1


def test_a_photo_whose_pitch_is_misstated_fits_where_the_pitch_may_be_wrong(matcher):
    tilted = taken(COURT, POSE, pitch_deg=5.0)
    believed = Photo(tilted.image, tilted.camera, height_m=HEIGHT_M)
    sharp, at = calibrated(matcher, SHARP), SMALL.index_of(POSE)
    unsure = replace(sharp, noise=CameraNoise(pitch_sigma_deg=4.0, num_variants=8))
    certain = scores_on(sharp, believed, SMALL)[at]
    assert scores_on(unsure, believed, SMALL)[at] > certain + 3.0


def test_images_and_what_observe_made_of_them_score_the_same(matcher, soft_scores):
    assert np.array_equal(scores_on(matcher, sphere_taken(COURT, POSE), GRID), soft_scores)


def test_scores_are_a_volume_on_the_grid(soft_scores):
    assert soft_scores.shape == GRID.shape
    assert soft_scores.dtype == np.float32
    assert not np.isnan(soft_scores).any()


# ----------------------------------------------------------------------------- turning


def test_turning_map_and_window_by_a_quarter_turns_the_scores(matcher, view, sharp_scores):
    # both are squares around the same place
    raster = court_map(SMALL.map.padded(matcher.reach_m).divided(2))
    turned = replace(
        raster,
        classes=np.rot90(raster.classes, k=-1),
        covered=np.rot90(raster.covered, k=-1),
        building_height_m=np.rot90(raster.building_height_m, k=-1),
    )
    expected = np.roll(np.rot90(sharp_scores[PART], k=-1), 16, axis=2)
    found = calibrated(matcher, SHARP).log_likelihood(view, turned, SMALL)
    assert found == approx(expected, abs=1e-3)


def test_a_query_turned_by_a_bin_scores_the_same_a_bin_further(matcher, view, soft_scores):
    (one,) = view
    # it looks 4 columns further to the right, so what it shows moves to the left
    turned = ColumnView(np.roll(one.probability, -4, axis=0), np.roll(one.seen, -4, 0), HEIGHT_M)
    scores = scores_on(matcher, (turned,), GRID)
    assert scores == approx(np.roll(soft_scores, 1, axis=2), abs=2e-3)


# ------------------------------------------------------------------------- in the town


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = Town.from_seed(0)
    path = tmp_path_factory.mktemp("town") / "town.osm"
    town.write(path)
    vector_map = VectorMap.read(path)
    scene = Scene.from_features(vector_map.features, town.frame)
    poses = town.viewpoints(4, seed=1)
    model = counted(vector_map, scene, town.frame, poses[:1])
    matcher = SemanticMatcher(SEGMENTER, model, block_cells=32, sight_blocks=3)
    return vector_map, scene, poses[3], matcher


@pytest.mark.parametrize("kind", ["panorama", "rig"])
def test_a_place_of_the_town_is_found_from_a_rough_prior(town, kind):
    vector_map, scene, truth, matcher = town
    query = sphere_taken(scene, truth) if kind == "panorama" else rig_taken(scene, truth, CORNERS)
    shift_x_m, shift_y_m = np.random.default_rng(0).uniform(-5, 5, 2)
    prior = prior_within(
        FRAME, truth.x_m + shift_x_m, truth.y_m + shift_y_m, radius_m=8.0, like=matcher
    )
    localizer = Localizer(maps=vector_map, matcher=matcher, max_windows=1, window_radius_m=8.0)
    localization = localizer.localize(query, prior)
    assert_found(localization.best.mode(), truth, num_headings=256)
    assert localization.probability_within(3.0) > 0.5
