"""The column matcher with votes of the ground: added pose by pose, and alone where no wall is."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from fakes.court import sphere_taken
from fakes.court_columns import (
    FRAME,
    SHARP,
    calibrated,
    court_map,
    court_matcher,
    court_view,
    scores_on,
)
from pytest import approx
from shapely import box

from crossview import angles, columns, ground_votes, semantic
from crossview.frames import Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.ground_votes import GroundTable
from crossview.legends import CROSSVIEW
from crossview.rasters import MapRaster
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.scene import Scene

CROSSROADS = Scene(roads=box(-3, -40, 3, 40).union(box(-40, 8, 40, 13)))
TRUTH = Pose(1.25, -4.25, 45.0)
GRID = PoseGrid(MapGrid.around(FRAME, 2.0, -3.0, radius_m=6.0, cell_m=0.5), 64)
VOTING = replace(SHARP, votes_share=0.02)


def crossroads_map(grid: MapGrid) -> MapRaster:
    """The roads, drawn; nobody built anything."""
    x_m, y_m = grid.centers()
    road = (np.abs(x_m) < 3)[None] | ((y_m > 8) & (y_m < 13))[:, None]
    classes = np.zeros((*grid.shape, 3), np.uint8)
    classes[road, 0] = CROSSVIEW.find("road")[1]
    everywhere, nowhere = np.ones(grid.shape, bool), np.zeros(grid.shape, np.float32)
    return MapRaster(grid, classes, "crossview", everywhere, CROSSVIEW.names, nowhere)


@pytest.fixture(scope="module")
def matcher():
    """With a table that was counted at another pose."""
    counting = Pose(-1.0, 6.0, 200.0)
    plain = court_matcher()
    (seen,) = plain.observe(sphere_taken(CROSSROADS, counting))
    around = MapGrid.around(FRAME, -1.0, 6.0, radius_m=ground_votes.MARGIN_M, cell_m=0.25)
    table = GroundTable(ground_votes.counts(seen.ground, counting, crossroads_map(around)))
    model = replace(plain.model, ground=table, calibration=VOTING)
    return replace(plain, model=model)


@pytest.fixture(scope="module")
def view(matcher):
    return matcher.observe(sphere_taken(CROSSROADS, TRUTH))


def on(matcher, query, grid=GRID, **options):
    return scores_on(matcher, query, grid, maps=crossroads_map, **options)


def test_where_no_wall_stands_the_ground_alone_finds_the_pose(matcher, view, caplog):
    with caplog.at_level(logging.WARNING):
        scores = on(matcher, view)
    assert "columns say nothing" in caplog.text
    best = GRID.pose_at(*np.unravel_index(int(scores.argmax()), scores.shape))
    assert np.hypot(best.x_m - TRUTH.x_m, best.y_m - TRUTH.y_m) <= 0.75
    assert abs(angles.difference_deg(best.heading_deg, TRUTH.heading_deg)) <= 360 / 64


def test_votes_are_sums_over_seen_cells_of_the_map_under_them(matcher, view):
    """Written out for one pose whose heading is a quarter turn, where cells fall on cells."""
    ground = view[0].ground
    row, col, k = 10, 7, 16
    pose = GRID.pose_at(row, col, k)
    rows, cols = np.nonzero(ground.seen)
    ahead, right = (ground.camera_row - rows) * 0.5, (cols - ground.camera_col) * 0.5
    around = GRID.map.padded(24.0)
    votes = matcher.model.ground.log_ratios(crossroads_map(around.divided(2)), parts=2)
    # heading east: ahead is east and right is south
    at_col, at_row = around.to_pixel(pose.x_m + ahead, pose.y_m - right)
    own = votes[at_row.astype(int), at_col.astype(int)] * ground.values[rows, cols]
    assert on(matcher, view)[row, col, k] == approx(0.02 * own.sum(), abs=1e-3)


def street_in_the_court(grid: MapGrid) -> MapRaster:
    """The court with a road through it, surveyed in full."""
    court, roads = court_map(grid), crossroads_map(grid)
    classes = np.where(court.classes > 0, court.classes, roads.classes)
    return replace(court, classes=classes, surveyed=CROSSVIEW.names)


def test_votes_come_on_top_of_columns(matcher):
    view = court_view()
    alone = scores_on(calibrated(matcher, SHARP), view, GRID, maps=street_in_the_court)
    both = scores_on(matcher, view, GRID, maps=street_in_the_court)
    free = np.isfinite(alone)
    around = GRID.map.padded(30.0)
    votes = ground_votes.GroundVotes.on(
        matcher.model.ground, street_in_the_court(around.divided(2)), GRID.map, parts=2
    )
    every = slice(0, GRID.map.height), slice(0, GRID.map.width), np.arange(64)
    expected = 0.02 * votes.scores(view[0].ground, *every, num_headings=64)
    assert np.ptp(expected[free]) > 1.0
    assert (both - alone)[free] == approx(expected[free], abs=2e-3)


def test_a_map_of_buildings_only_has_no_votes_of_what_it_does_not_know(matcher):
    # the table has counted roads and nothing, and a court knows buildings and open ground
    view = court_view()
    alone = scores_on(calibrated(matcher, SHARP), view, GRID)
    assert scores_on(matcher, view, GRID) == approx(alone, abs=1e-3)


def test_a_share_of_nothing_leaves_the_columns(matcher, view):
    silent = calibrated(matcher, replace(VOTING, votes_share=0.0))
    assert np.unique(on(silent, view)).tolist() == [0.0]


def test_without_headings_the_answer_is_the_mean_over_them(matcher, view):
    scores = on(matcher, view)
    mean = np.logaddexp.reduce(scores.astype(float), axis=2) - np.log(64)
    assert on(matcher, view, PoseGrid(GRID.map, 1))[..., 0] == approx(mean, abs=1e-3)


def test_votes_block_by_block_are_those_of_all_blocks_at_once(matcher, view, monkeypatch):
    at_once = on(matcher, view)
    monkeypatch.setattr(semantic, "_VOTES_BYTES", 0)
    assert on(matcher, view) == approx(at_once, abs=1e-3)


def test_the_headings_asked_for_score_as_among_all(matcher, view):
    asked = np.array([3, 8, 9, 40])
    scores = on(matcher, view, headings=asked)
    assert scores[..., asked] == approx(on(matcher, view)[..., asked], abs=1e-3)
    rest = np.delete(scores, asked, axis=2)
    assert np.all(np.isneginf(rest))


def test_a_window_votes_like_the_same_cells_of_a_larger_grid(matcher, view):
    part = replace(GRID.map.shifted(rows=5, cols=3), height=6, width=9)
    assert on(matcher, view, PoseGrid(part, 64)) == approx(on(matcher, view)[5:11, 3:12], abs=1e-3)


def test_several_possible_cameras_are_mixed_with_their_own_ground(matcher, view):
    other = matcher.observe(sphere_taken(CROSSROADS, Pose(-2.0, -2.0, 60.0)))
    both = on(matcher, (view[0], other[0]))
    mean = np.logaddexp(on(matcher, view), on(matcher, other)) - np.log(2)
    assert both == approx(mean, abs=1e-3)


def test_cells_of_another_size_are_refused(matcher):
    with pytest.raises(ValueError, match=r"votes count in cells of 0\.5 m"):
        replace(matcher, cell_m=1.0)


def test_a_share_without_a_table_is_refused(matcher):
    with pytest.raises(ValueError, match="no table of what lies on the ground"):
        replace(matcher.model, ground=None)


def test_observing_looks_at_the_ground(view):
    (seen,) = view
    assert seen.ground.seen.sum() > 500
    directly = ground_votes.observed(
        columns.segmented(sphere_taken(CROSSROADS, TRUTH), PaletteSegmenter())
    )
    assert np.array_equal(seen.ground.values, directly.values)
