"""What must not change a score: windows, the memory of rays, and which headings are asked for."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from fakes.court_columns import (
    BLURRED,
    GRID,
    PART,
    POSE,
    SHARP,
    SMALL,
    SOFT,
    calibrated,
    court_map,
    court_matcher,
    court_scores,
    court_view,
    doubled,
    raster_on,
    scores_on,
    window_of,
    without_heights,
)
from pytest import approx

from crossview import raycast, semantic
from crossview.columns import NUM_AZIMUTHS
from crossview.grids import PoseGrid
from crossview.semantic import RayCache


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


# ----------------------------------------------------------------------------- windows


@pytest.mark.parametrize("calibration", [SOFT, BLURRED], ids=["default", "no floor"])
def test_a_window_scores_like_the_same_cells_of_a_larger_grid(matcher, view, calibration):
    matcher = calibrated(matcher, calibration)
    rows, cols = slice(3, 12), slice(5, 18)
    scores = scores_on(matcher, view, window_of(GRID, rows, cols))
    assert scores == approx(scores_on(matcher, view, GRID)[rows, cols], abs=1e-4)


def test_a_single_cell_scores_like_the_same_cell_of_a_larger_grid(matcher, view, soft_scores):
    row, col, _ = GRID.index_of(POSE)
    window = window_of(GRID, slice(row, row + 1), slice(col, col + 1))
    assert scores_on(matcher, view, window)[0, 0] == approx(soft_scores[row, col], abs=1e-4)


def test_the_score_of_a_pose_does_not_depend_on_how_much_map_was_cut_out(
    matcher, view, soft_scores
):
    assert np.array_equal(scores_on(matcher, view, GRID, more_m=17.5), soft_scores)


# ---------------------------------------------------------------------- memory of rays


def test_a_fresh_memory_of_rays_changes_nothing(matcher, view, soft_scores):
    fresh = RayCache()
    assert np.array_equal(scores_on(replace(matcher, rays=fresh), view, SMALL), soft_scores[PART])
    assert fresh.num_bytes == 32 * 32 * (2 * NUM_AZIMUTHS + 1)


def test_a_tiny_memory_of_rays_changes_nothing(matcher, view, soft_scores):
    # two blocks, of which only one is kept
    part = slice(2, 6), slice(5, 8)
    tiny = RayCache(max_bytes=1)
    scores = scores_on(replace(matcher, rays=tiny), view, window_of(GRID, *part))
    assert scores == approx(soft_scores[part], abs=1e-4)
    assert tiny.num_bytes == 32 * 32 * (2 * NUM_AZIMUTHS + 1)


def test_what_was_cast_once_is_not_cast_again(matcher, view, soft_scores, monkeypatch):
    monkeypatch.setattr(raycast, "cast", None)
    assert np.array_equal(scores_on(matcher, view, GRID), soft_scores)


def with_a_kiosk(cells):
    raster = court_map(cells)
    x_m, y_m = np.meshgrid(*cells.centers())
    kiosk = shapely.contains_xy(shapely.box(-4, -4, -1, -1), x_m, y_m)
    height_m = np.where(kiosk, 6.0, raster.building_height_m).astype(np.float32)
    return raster_on(cells, raster.class_mask("building") | kiosk, height_m)


@pytest.mark.parametrize("maps", [with_a_kiosk, doubled, without_heights])
def test_a_changed_map_is_cast_again(matcher, view, sharp_scores, maps):
    sharp = calibrated(matcher, SHARP)
    changed = scores_on(sharp, view, SMALL, maps=maps)
    fresh = scores_on(replace(sharp, rays=RayCache()), view, SMALL, maps=maps)
    assert np.array_equal(changed, fresh)
    assert np.abs(changed - sharp_scores[PART]).max() > 1.0


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


# ---------------------------------------------------------------------------- headings


@pytest.mark.parametrize("calibration", [SOFT, BLURRED], ids=["default", "no floor"])
@pytest.mark.parametrize("asked", [[0], [5, 6, 7, 40], [63, 0, 1, 0]], ids=str)
def test_headings_that_are_not_asked_for_are_impossible_and_the_others_the_same(
    matcher, view, calibration, asked
):
    matcher = calibrated(matcher, calibration)
    scores = scores_on(matcher, view, GRID, headings=np.array(asked))
    whole = scores_on(matcher, view, GRID)
    assert scores[..., asked] == approx(whole[..., asked], abs=1e-4)
    others = np.setdiff1d(np.arange(64), asked)
    assert np.all(scores[..., others] == -np.inf)


@pytest.mark.parametrize("calibration", [SOFT, BLURRED], ids=["default", "no floor"])
def test_one_heading_bin_holds_the_log_of_the_mean_over_all_headings(matcher, view, calibration):
    matcher = calibrated(matcher, calibration)
    scores = scores_on(matcher, view, PoseGrid(GRID.map, 1))
    whole = scores_on(matcher, view, GRID).astype(float)
    assert scores.shape == (*GRID.map.shape, 1)
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
    matcher, view, calibration, asked
):
    matcher = calibrated(matcher, calibration)
    scores = scores_on(matcher, view, PoseGrid(GRID.map, 1), headings=np.array(asked))
    whole = scores_on(matcher, view, GRID, headings=np.array(asked)).astype(float)
    assert scores[..., 0] == approx(np.logaddexp.reduce(whole, axis=2) - np.log(64), abs=1e-4)
