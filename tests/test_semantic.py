"""The column matcher: literal sums, invariances, refusals, poses of a court and a town."""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
from fakes.court import COURT, HEIGHT_M, rig_taken, sphere_taken, taken
from pytest import approx
from scipy import special

from crossview import angles, column_evidence, column_kernels, columns, legends, raycast, semantic
from crossview.camera_noise import CameraNoise
from crossview.column_model import NUM_RANGES, Calibration, ColumnModel
from crossview.columns import GROUPS, NUM_AZIMUTHS, NUM_ELEVATIONS, ColumnView
from crossview.errors import FrameMismatchError, GridMismatchError
from crossview.evidence import prior_within
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localizer
from crossview.photos import Mount, Panorama, Photo
from crossview.posterior import Posterior
from crossview.rasters import MapRaster
from crossview.semantic import RayCache, SemanticMatcher, column_sums, sums_without_compiler
from crossview.synthetic.palette import CLASSES, PaletteSegmenter, colored
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

FRAME = LocalFrame(50.0, 8.0)
SEGMENTER = PaletteSegmenter()
POSE = Pose(3.25, -4.25, 45.0)
CORNERS = tuple(Mount(heading_deg, 0.3, 0.2) for heading_deg in (0.0, 90.0, 180.0, 270.0))
SOFT = Calibration()
SHARP = Calibration(position_sigma_m=0.0, heading_sigma_deg=0.0, unexplained_share=0.0)
"""Without blur and floor: the score itself."""

BLURRED = replace(SHARP, position_sigma_m=0.6, heading_sigma_deg=5.0)


@functools.cache
def court_map(grid: MapGrid) -> MapRaster:
    """The court as a map source, cell by cell."""
    x_m, y_m = grid.centers()
    height_m = np.zeros(grid.shape, np.float32)
    for house in COURT.buildings:
        west_m, south_m, east_m, north_m = house.footprint.bounds  # boxes, all of them
        rows, cols = (south_m < y_m) & (y_m < north_m), (west_m < x_m) & (x_m < east_m)
        height_m[np.ix_(rows, cols)] = house.height_m
    return raster_on(grid, height_m > 0, height_m)


def raster_on(grid, building, height_m=None, *, covered=None):
    _, class_id = legends.legend("crossview").find("building")
    classes = np.zeros((*grid.shape, 3), np.uint8)
    classes[..., 0][building] = class_id
    return MapRaster(
        grid,
        classes,
        "crossview",
        np.ones(grid.shape, bool) if covered is None else covered,
        frozenset({"building"}),
        np.where(building, 8.0, 0.0).astype(np.float32) if height_m is None else height_m,
    )


def empty_map(grid: MapGrid) -> MapRaster:
    return raster_on(grid, np.zeros(grid.shape, bool))


def counted(maps, scene, frame, poses):
    """Tables of exact panoramas of a few poses."""
    counts = sum(
        column_evidence.region_counts(
            columns.observed(sphere_taken(scene, pose), SEGMENTER),
            *raycast.look_around(maps, frame, pose, height_m=HEIGHT_M, reach_m=40.0),
        )
        for pose in poses
    )
    return ColumnModel(counts, np.full(NUM_RANGES, 1 / NUM_RANGES), 8.0, 2.5, SOFT)


@pytest.fixture(scope="module")
def model():
    # not the pose that is looked for
    poses = [Pose(-5.0, 8.0, 10.0), Pose(8.0, 3.0, 260.0)]
    return counted(court_map, COURT, FRAME, poses)


@pytest.fixture(scope="module")
def rays():
    """One memory of the court for all matchers here."""
    return RayCache()


@pytest.fixture(scope="module")
def matcher(model, rays):
    """The court with 64 headings and small blocks, as the calibration's defaults have it."""
    return SemanticMatcher(
        SEGMENTER, model, num_headings=64, block_cells=32, sight_blocks=2, rays=rays
    )


def calibrated(matcher, calibration, **changes):
    return replace(matcher, model=matcher.model.calibrated(calibration), **changes)


@pytest.fixture(scope="module")
def view(matcher):
    return matcher.observe(sphere_taken(COURT, POSE))


@pytest.fixture(scope="module")
def grid():
    """10 x 10 m around the pose, in four blocks of rays."""
    return PoseGrid(MapGrid.around(FRAME, 5.0, -3.0, radius_m=5.0, cell_m=0.5), 64)


def scores_on(matcher, query, grid, *, maps=court_map, more_m=0.0, headings=None):
    cells = grid.map.padded(matcher.reach_m + more_m).divided(matcher.map_parts)
    return matcher.log_likelihood(query, maps(cells), grid, headings=headings)


def window_of(grid, rows, cols):
    cells = grid.map
    return PoseGrid(
        MapGrid(
            FRAME,
            cells.west_m + cols.start * 0.5,
            cells.north_m - rows.start * 0.5,
            0.5,
            rows.stop - rows.start,
            cols.stop - cols.start,
        ),
        grid.num_headings,
    )


@pytest.fixture(scope="module")
def small(grid):
    """3 x 3 m around the pose, in one block of rays with all that a blur brings."""
    rows, cols = slice(9, 15), slice(5, 11)
    return window_of(grid, rows, cols), (rows, cols)


@pytest.fixture(scope="module")
def soft_scores(matcher, view, grid):
    return scores_on(matcher, view, grid)


@pytest.fixture(scope="module")
def sharp_scores(matcher, view, grid):
    return scores_on(calibrated(matcher, SHARP), view, grid)


def best_pose(scores, grid):
    return grid.pose_at(*(int(i) for i in np.unravel_index(scores.argmax(), scores.shape)))


def assert_found(estimate, truth, *, num_headings):
    """Within a cell and a bin."""
    assert max(abs(estimate.x_m - truth.x_m), abs(estimate.y_m - truth.y_m)) <= 0.75
    turn_deg = angles.difference_deg(estimate.heading_deg, truth.heading_deg)
    assert abs(turn_deg) <= 1.5 * 360 / num_headings


def same_class(name, *, seen=True):
    """A view of one group everywhere, or of nothing."""
    probability = np.zeros((NUM_AZIMUTHS, NUM_ELEVATIONS, len(GROUPS)), np.float32)
    if seen:
        probability[..., list(GROUPS).index(name)] = 1.0
    return (ColumnView(probability, np.full(probability.shape[:2], seen), HEIGHT_M),)


# ---------------------------------------------------------------- poses in the court


def test_the_best_pose_of_the_court_is_the_true_one(soft_scores, grid):
    assert_found(best_pose(soft_scores, grid), POSE, num_headings=64)


def test_a_rig_is_found_too(matcher, grid):
    scores = scores_on(matcher, rig_taken(COURT, POSE, CORNERS), grid)
    assert_found(best_pose(scores, grid), POSE, num_headings=64)


def test_a_photo_that_looks_down_and_is_rolled_is_found_too(matcher, grid):
    photo = taken(COURT, POSE, pitch_deg=-6.0, roll_deg=8.0)
    scores = scores_on(matcher, photo, grid)
    assert_found(best_pose(scores, grid), POSE, num_headings=64)


def without_heights(cells):
    return court_map(cells).without_heights()


def test_footprints_without_heights_are_enough(matcher, view, grid):
    scores = scores_on(calibrated(matcher, BLURRED), view, grid, maps=without_heights)
    estimate = best_pose(scores, grid)
    assert math.hypot(estimate.x_m - POSE.x_m, estimate.y_m - POSE.y_m) < 2.5
    assert estimate.heading_deg == POSE.heading_deg


def test_footprints_without_heights_lift_the_true_pose_above_the_floor(matcher, view, small):
    scores = scores_on(matcher, view, small[0], maps=without_heights)
    assert scores[small[0].index_of(POSE)] > 1.0


def test_without_heights_the_heights_say_nothing(matcher, view, small):
    def lower(cells):
        raster = court_map(cells)
        return replace(raster, building_height_m=raster.building_height_m / 2).without_heights()

    blurred = calibrated(matcher, BLURRED)
    bare = scores_on(blurred, view, small[0], maps=without_heights)
    assert np.array_equal(scores_on(blurred, view, small[0], maps=lower), bare)


def doubled(cells):
    raster = court_map(cells)
    return replace(raster, building_height_m=raster.building_height_m * 2)


def test_wrong_heights_do_harm(matcher, view, small, sharp_scores, grid):
    wrong = scores_on(calibrated(matcher, SHARP), view, small[0], maps=doubled)
    assert wrong[small[0].index_of(POSE)] < sharp_scores[grid.index_of(POSE)] - 5.0


# -------------------------------------------------------------------- what a score is


def test_a_score_is_the_scaled_sum_of_a_poses_columns_over_the_level(
    matcher, view, grid, sharp_scores
):
    evidence = column_evidence.evidence(view[0], matcher.model)
    level = SOFT.unknown_level * evidence.best
    free = np.argwhere(np.isfinite(sharp_scores[:, :, 0]))
    for row, col in free[:: len(free) // 4]:
        for k in (11,):
            range_m, skyline_deg = raycast.look_around(
                court_map,
                FRAME,
                grid.pose_at(int(row), int(col), k),
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


def test_the_floor_is_a_place_unknown(matcher, view, grid, sharp_scores):
    share = 0.25
    scores = scores_on(calibrated(matcher, replace(SHARP, unexplained_share=share)), view, grid)
    expected = np.log(share + (1 - share) * np.exp(sharp_scores.astype(float)))
    assert scores == approx(expected, abs=1e-3)


def test_cameras_that_a_photo_may_have_been_taken_with_are_equally_probable(matcher, grid):
    sharp = calibrated(matcher, SHARP)
    views = [
        sharp.observe(taken(COURT, POSE, pitch_deg=pitch_deg))[0] for pitch_deg in (0.0, 4.0, -7.0)
    ]
    alone = [scores_on(sharp, (one,), grid).astype(float) for one in views]
    expected = np.logaddexp.reduce(alone, axis=0) - math.log(3)
    assert scores_on(sharp, views, grid) == approx(expected, abs=1e-3)


def test_cameras_of_different_heights_are_mixed_too(matcher, small):
    sharp = calibrated(matcher, SHARP)
    views = [
        sharp.observe(taken(COURT, POSE, height_m=height_m))[0] for height_m in (HEIGHT_M, 2.2)
    ]
    alone = [scores_on(sharp, (one,), small[0]).astype(float) for one in views]
    expected = np.logaddexp.reduce(alone, axis=0) - math.log(2)
    # one ray cast serves both: skylines, which stand on first walls here, are moved, and their
    # bins of a degree round otherwise (without moving them the answers are 3 nats apart)
    assert scores_on(sharp, views, small[0]) == approx(expected, abs=0.75)


def test_a_single_photo_is_observed_with_every_camera_of_the_noise(matcher):
    unsure = replace(matcher, noise=CameraNoise(pitch_sigma_deg=3.0, num_variants=5))
    photo = taken(COURT, POSE)
    views = unsure.observe(photo)
    assert len(views) == 5
    assert np.array_equal(views[0].probability, matcher.observe(photo)[0].probability)
    assert len(unsure.observe(sphere_taken(COURT, POSE))) == 1


def test_a_photo_whose_pitch_is_misstated_fits_where_the_pitch_may_be_wrong(matcher, small):
    tilted = taken(COURT, POSE, pitch_deg=5.0)
    believed = Photo(tilted.image, tilted.camera, height_m=HEIGHT_M)
    sharp, at = calibrated(matcher, SHARP), small[0].index_of(POSE)
    unsure = replace(sharp, noise=CameraNoise(pitch_sigma_deg=4.0, num_variants=8))
    certain = scores_on(sharp, believed, small[0])[at]
    assert scores_on(unsure, believed, small[0])[at] > certain + 3.0


def test_images_and_what_observe_made_of_them_score_the_same(matcher, soft_scores, grid):
    assert np.array_equal(scores_on(matcher, sphere_taken(COURT, POSE), grid), soft_scores)


def test_scores_are_a_volume_on_the_grid(soft_scores, grid):
    assert soft_scores.shape == grid.shape
    assert soft_scores.dtype == np.float32
    assert not np.isnan(soft_scores).any()


# ------------------------------------------------------------------------- turning


def test_turning_map_and_window_by_a_quarter_turns_the_scores(matcher, view, small, sharp_scores):
    # both are squares around the same place
    window, part = small
    raster = court_map(window.map.padded(matcher.reach_m).divided(2))
    turned = replace(
        raster,
        classes=np.rot90(raster.classes, k=-1),
        covered=np.rot90(raster.covered, k=-1),
        building_height_m=np.rot90(raster.building_height_m, k=-1),
    )
    expected = np.roll(np.rot90(sharp_scores[part], k=-1), 16, axis=2)
    found = calibrated(matcher, SHARP).log_likelihood(view, turned, window)
    assert found == approx(expected, abs=1e-3)


def test_a_query_turned_by_a_bin_scores_the_same_a_bin_further(matcher, view, grid, soft_scores):
    (one,) = view
    # it looks 4 columns further to the right, so what it shows moves to the left
    turned = ColumnView(np.roll(one.probability, -4, axis=0), np.roll(one.seen, -4, 0), HEIGHT_M)
    scores = scores_on(matcher, (turned,), grid)
    assert scores == approx(np.roll(soft_scores, 1, axis=2), abs=2e-3)


# ----------------------------------------------------------------------- invariances


@pytest.mark.parametrize("calibration", [SOFT, BLURRED], ids=["default", "no floor"])
def test_a_window_scores_like_the_same_cells_of_a_larger_grid(matcher, view, grid, calibration):
    matcher = calibrated(matcher, calibration)
    rows, cols = slice(3, 12), slice(5, 18)
    scores = scores_on(matcher, view, window_of(grid, rows, cols))
    assert scores == approx(scores_on(matcher, view, grid)[rows, cols], abs=1e-4)


def test_a_single_cell_scores_like_the_same_cell_of_a_larger_grid(matcher, view, grid, soft_scores):
    row, col, _ = grid.index_of(POSE)
    window = window_of(grid, slice(row, row + 1), slice(col, col + 1))
    assert scores_on(matcher, view, window)[0, 0] == approx(soft_scores[row, col], abs=1e-4)


def test_the_score_of_a_pose_does_not_depend_on_how_much_map_was_cut_out(
    matcher, view, grid, soft_scores
):
    assert np.array_equal(scores_on(matcher, view, grid, more_m=17.5), soft_scores)


def test_a_fresh_memory_of_rays_changes_nothing(matcher, view, small, soft_scores):
    window, part = small
    fresh = RayCache()
    assert np.array_equal(scores_on(replace(matcher, rays=fresh), view, window), soft_scores[part])
    assert fresh.num_bytes == 32 * 32 * (2 * NUM_AZIMUTHS + 1)


def test_a_tiny_memory_of_rays_changes_nothing(matcher, view, grid, soft_scores):
    # two blocks, of which only one is kept
    part = slice(2, 6), slice(5, 8)
    tiny = RayCache(max_bytes=1)
    scores = scores_on(replace(matcher, rays=tiny), view, window_of(grid, *part))
    assert scores == approx(soft_scores[part], abs=1e-4)
    assert tiny.num_bytes == 32 * 32 * (2 * NUM_AZIMUTHS + 1)


def test_what_was_cast_once_is_not_cast_again(matcher, view, grid, soft_scores, monkeypatch):
    monkeypatch.setattr(raycast, "cast", None)
    assert np.array_equal(scores_on(matcher, view, grid), soft_scores)


def with_a_kiosk(cells):
    raster = court_map(cells)
    x_m, y_m = np.meshgrid(*cells.centers())
    kiosk = shapely.contains_xy(shapely.box(-4, -4, -1, -1), x_m, y_m)
    height_m = np.where(kiosk, 6.0, raster.building_height_m).astype(np.float32)
    return raster_on(cells, raster.class_mask("building") | kiosk, height_m)


@pytest.mark.parametrize("maps", [with_a_kiosk, doubled, without_heights])
def test_a_changed_map_is_cast_again(matcher, view, small, sharp_scores, maps):
    window, part = small
    sharp = calibrated(matcher, SHARP)
    changed = scores_on(sharp, view, window, maps=maps)
    fresh = scores_on(replace(sharp, rays=RayCache()), view, window, maps=maps)
    assert np.array_equal(changed, fresh)
    assert np.abs(changed - sharp_scores[part]).max() > 1.0


def test_the_memory_forgets_what_was_used_longest_ago():
    def block(_):
        return semantic.CodeBlock(np.zeros((2, 2, 8), np.uint16), np.ones((2, 2), bool))

    made = []

    def get(cache, key):
        return cache.get(key, lambda: made.append(key) or block(key))

    cache = RayCache(max_bytes=2 * (64 + 4))
    for key in "abacab":
        get(cache, key)
    # a is used before c comes, so b goes; and c goes for b
    assert made == ["a", "b", "c", "b"]
    assert cache.num_bytes == 2 * (64 + 4)


# -------------------------------------------------------------------------- headings


@pytest.mark.parametrize("calibration", [SOFT, BLURRED], ids=["default", "no floor"])
@pytest.mark.parametrize("asked", [[0], [5, 6, 7, 40], [63, 0, 1, 0]], ids=str)
def test_headings_that_are_not_asked_for_are_impossible_and_the_others_the_same(
    matcher, view, grid, calibration, asked
):
    matcher = calibrated(matcher, calibration)
    scores = scores_on(matcher, view, grid, headings=np.array(asked))
    whole = scores_on(matcher, view, grid)
    assert scores[..., asked] == approx(whole[..., asked], abs=1e-4)
    others = np.setdiff1d(np.arange(64), asked)
    assert np.all(scores[..., others] == -np.inf)


@pytest.mark.parametrize("calibration", [SOFT, BLURRED], ids=["default", "no floor"])
def test_one_heading_bin_holds_the_log_of_the_mean_over_all_headings(
    matcher, view, grid, calibration
):
    matcher = calibrated(matcher, calibration)
    scores = scores_on(matcher, view, PoseGrid(grid.map, 1))
    whole = scores_on(matcher, view, grid).astype(float)
    assert scores.shape == (*grid.map.shape, 1)
    assert scores[..., 0] == approx(np.logaddexp.reduce(whole, axis=2) - np.log(64), abs=1e-4)


@pytest.mark.parametrize(
    "calibration",
    [
        pytest.param(SOFT, id="default"),
        pytest.param(BLURRED, id="no floor"),
    ],
)
@pytest.mark.parametrize("asked", [[8], [5, 6, 7, 8, 9, 40]], ids=str)
def test_one_heading_bin_counts_headings_that_are_not_asked_for_as_impossible(
    matcher, view, grid, calibration, asked
):
    matcher = calibrated(matcher, calibration)
    scores = scores_on(matcher, view, PoseGrid(grid.map, 1), headings=np.array(asked))
    whole = scores_on(matcher, view, grid, headings=np.array(asked)).astype(float)
    assert scores[..., 0] == approx(np.logaddexp.reduce(whole, axis=2) - np.log(64), abs=1e-4)


# ------------------------------------------------------------------------------ blur


def normal_weights(sigma, reach, *, cumulative):
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    if cumulative:
        weights = special.ndtr((offsets + 0.5) / sigma) - special.ndtr((offsets - 0.5) / sigma)
    return weights / weights.sum()


def test_the_blur_is_a_literal_convolution_of_probabilities(matcher, view, grid):
    """Mass moves by 0.6 m along rows and columns, and by 5 degrees around."""
    across, around = (
        normal_weights(1.2, 4, cumulative=False),
        normal_weights(5.0 * 64 / 360, 3, cumulative=True),
    )
    wide = PoseGrid(grid.map.padded(2.0), 64)
    ratio = np.exp(scores_on(calibrated(matcher, SHARP), view, wide).astype(float))
    expected = np.zeros(grid.shape)
    for down, weight_down in enumerate(across):
        for right, weight_right in enumerate(across):
            part = ratio[down : down + grid.map.height, right : right + grid.map.width]
            expected += weight_down * weight_right * part
    expected = sum(w * np.roll(expected, k - 3, axis=2) for k, w in enumerate(around))
    # the literal weights spread as far as they should
    assert math.sqrt(across @ np.arange(-4, 5) ** 2) * 0.5 == approx(0.6, rel=0.02)
    found = scores_on(calibrated(matcher, BLURRED), view, grid)
    with np.errstate(divide="ignore"):
        log_expected = np.log(expected)
    possible = np.isfinite(log_expected)
    assert found[possible] == approx(log_expected[possible], abs=1e-3)
    assert np.all(found[~possible] == -np.inf)
    assert possible.any()


def test_a_blur_moves_no_mass_in_or_out_of_what_is_alike_everywhere(matcher, small, view):
    sharp = scores_on(calibrated(matcher, SHARP), view, small[0], maps=empty_map)
    blurred = scores_on(calibrated(matcher, BLURRED), view, small[0], maps=empty_map)
    assert blurred == approx(sharp, abs=1e-3)


# ------------------------------------------------------------------ saying nothing


def test_a_panorama_that_is_alike_all_around_says_nothing_of_its_heading(matcher, small):
    labels = np.full((90, 180), CLASSES.index("sky"), np.uint8)
    labels[40:] = CLASSES.index("building")
    labels[50:] = CLASSES.index("road")
    scores = scores_on(calibrated(matcher, SHARP), Panorama(colored(labels)), small[0])
    assert np.ptp(scores, axis=2).max() < 1e-2
    assert np.ptp(scores) > 1.0


def test_a_map_without_buildings_says_the_same_everywhere(matcher, view, small):
    scores = scores_on(calibrated(matcher, BLURRED), view, small[0], maps=empty_map)
    prior = Posterior.flat(small[0])
    assert prior.update(scores).log_mass == approx(prior.log_mass, abs=2e-2)
    # headings sum the same columns in another order
    assert np.ptp(scores) < 2e-2


def test_a_query_that_sees_nothing_is_as_good_as_a_place_unknown_on_open_ground(
    matcher, grid, small
):
    nothing = same_class("sky", seen=False)
    assert scores_on(matcher, nothing, small[0], maps=empty_map) == approx(0.0, abs=1e-4)
    sharp = scores_on(calibrated(matcher, SHARP), nothing, grid)
    assert sharp[np.isfinite(sharp)] == approx(0.0, abs=1e-4)


def test_of_a_query_that_sees_nothing_all_free_places_are_alike(matcher, grid):
    nothing = same_class("sky", seen=False)
    free = np.isfinite(scores_on(calibrated(matcher, SHARP), nothing, grid))
    scores = scores_on(calibrated(matcher, replace(SHARP, unexplained_share=0.02)), nothing, grid)
    assert scores[free] == approx(0.0, abs=1e-4)
    # and a camera is not inside of a building, whatever it sees
    assert scores[~free] == approx(math.log(0.02))


@pytest.mark.parametrize("name", GROUPS)
def test_a_query_of_one_class_all_around_fits_no_place_better_than_another(matcher, small, name):
    window, _ = small
    scores = scores_on(matcher, same_class(name), window)
    prior = Posterior.flat(window)
    assert prior.update(scores).log_mass == approx(prior.log_mass, abs=1e-3)


def test_where_all_groups_show_alike_everywhere_any_query_says_nothing(matcher, small):
    flat = ColumnModel(np.full_like(matcher.model.counts, 500.0), matcher.model.range_shares)
    scores = scores_on(replace(matcher, model=flat), same_class("wall"), small[0])
    assert scores == approx(0.0, abs=1e-3)


def inside_a_building():
    """3 x 3 m in the eastern building of the court, farther from its wall than the blur."""
    return MapGrid(FRAME, 14.5, 0.0, 0.5, 6, 6)


def test_a_camera_inside_of_a_building_keeps_the_floor(matcher, view):
    scores = scores_on(matcher, view, PoseGrid(inside_a_building(), 64))
    assert scores == approx(math.log(SOFT.unexplained_share))


@pytest.mark.parametrize("num_headings", [64, 1])
def test_without_a_floor_a_camera_inside_of_a_building_is_impossible(matcher, view, num_headings):
    grid = PoseGrid(inside_a_building(), num_headings)
    assert np.all(scores_on(calibrated(matcher, BLURRED), view, grid) == -np.inf)


def test_a_place_that_the_map_does_not_cover_is_a_place_unknown(matcher, view, small):
    def unknown(cells):
        nowhere = np.zeros(cells.shape, bool)
        return raster_on(cells, nowhere, covered=nowhere)

    assert scores_on(matcher, view, small[0], maps=unknown) == approx(0.0, abs=1e-3)


# ------------------------------------------------------------------------- refusals


def test_a_map_in_another_frame_is_refused(matcher, view, grid):
    elsewhere = MapGrid(LocalFrame(50.0, 8.001), -60.0, 60.0, 0.25, 480, 480)
    with pytest.raises(FrameMismatchError, match="Build both from one LocalFrame"):
        matcher.log_likelihood(view, empty_map(elsewhere), grid)


@pytest.mark.parametrize(
    "poses",
    [
        PoseGrid(MapGrid(FRAME, -2.0, 2.0, 1.0, 4, 4), 64),
        PoseGrid(MapGrid(FRAME, -2.0, 2.0, 0.5, 8, 8), 32),
        PoseGrid(MapGrid(FRAME, -2.2, 2.0, 0.5, 8, 8), 64),
        PoseGrid(MapGrid(FRAME, -2.0, 2.2, 0.5, 8, 8), 64),
    ],
    ids=["cells of 1 m", "32 headings", "off the lattice in x", "off the lattice in y"],
)
def test_a_grid_that_the_matcher_does_not_look_at_is_refused(matcher, view, poses):
    with pytest.raises(GridMismatchError, match=r"cells of 0\.5 m .*64 headings.*like=matcher"):
        scores_on(matcher, view, poses)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_map_of_other_cells_is_refused(matcher, view, grid, parts):
    raster = empty_map(grid.map.padded(matcher.reach_m).divided(parts))
    with pytest.raises(GridMismatchError, match=r"the map is on.*divided\(matcher\.map_parts\)"):
        matcher.log_likelihood(view, raster, grid)


def test_a_map_that_ends_before_the_reach_is_refused(matcher, view, grid):
    with pytest.raises(GridMismatchError, match=r"padded\(matcher\.reach_m\)"):
        scores_on(matcher, view, grid, more_m=-12.0)


@pytest.mark.parametrize("shift", [0, 3, 8, 15])
def test_the_reach_is_enough_wherever_blocks_begin(matcher, view, shift):
    cells = MapGrid(FRAME, 0.5 * shift, -0.5 * shift, 0.5, 3, 3)
    assert scores_on(matcher, view, PoseGrid(cells, 64)).shape == (3, 3, 64)


def test_a_segmenter_of_unknown_classes_is_refused(model):
    class Strange:
        classes = ("road", "unicorn")

    with pytest.raises(ValueError, match="do not: unicorn"):
        SemanticMatcher(Strange(), model)


@pytest.mark.parametrize("num_headings", [0, 1, 2, 96, 512])
def test_headings_that_do_not_divide_the_columns_are_refused(model, num_headings):
    with pytest.raises(ValueError, match=f"divide 256 columns, got {num_headings}"):
        SemanticMatcher(SEGMENTER, model, num_headings=num_headings)


# ------------------------------------------------------------------------- kernels


def made_up_sums(*, num_cells=150, num_azimuths=16, num_codes=40, num_headings=8):
    rng = np.random.default_rng(0)
    log_ratio = rng.normal(size=(num_azimuths, num_codes)).astype(np.float32)
    codes = rng.integers(0, num_codes, (num_cells, num_azimuths)).astype(np.uint16)
    used = np.array([0, 3, 4, 11, 15])
    turns = np.arange(num_headings) * (num_azimuths // num_headings)
    return log_ratio, codes, used, turns


def literal_sums(log_ratio, codes, used, turns):
    total = np.zeros((len(codes), len(turns)))
    for cell in range(len(codes)):
        for k, turn in enumerate(turns):
            for column in used:
                seen = codes[cell, (column + turn) % codes.shape[1]]
                total[cell, k] += log_ratio[column, seen]
    return total


@pytest.mark.parametrize("num_headings", [4, 8, 16])
def test_sums_without_a_compiler_are_those_of_a_loop(num_headings):
    arguments = made_up_sums(num_headings=num_headings)
    assert sums_without_compiler(*arguments) == approx(literal_sums(*arguments), abs=1e-5)


def test_compiled_sums_are_those_of_a_loop():
    kernel = column_kernels.compiled()
    if kernel is None:
        pytest.skip("numba is not installed: pip install crossview[fast]")
    arguments = made_up_sums()
    assert kernel(*arguments) == approx(literal_sums(*arguments), abs=1e-5)


def test_without_numba_there_is_no_kernel_and_the_sums_are_the_same(monkeypatch):
    log_ratio, codes, _, _ = made_up_sums(num_cells=700)
    evidence = column_evidence.ColumnEvidence(log_ratio)
    headings = np.array([0, 2, 5])
    found = column_sums(evidence, codes, headings, num_headings=8)
    monkeypatch.setattr(column_kernels, "compiled", lambda: None)
    slow = column_sums(evidence, codes, headings, num_headings=8)
    assert found.shape == slow.shape == (3, 700)
    assert found == approx(slow, abs=1e-4)


def test_columns_that_say_nothing_are_left_out_of_the_sums():
    log_ratio, codes, _, turns = made_up_sums()
    log_ratio[1::2] = 0.0
    evidence = column_evidence.ColumnEvidence(log_ratio)
    assert evidence.active.tolist() == [True, False] * 8
    expected = literal_sums(log_ratio, codes, range(16), turns)
    found = column_sums(evidence, codes, np.arange(8), num_headings=8)
    assert found == approx(expected.T, abs=1e-4)


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
