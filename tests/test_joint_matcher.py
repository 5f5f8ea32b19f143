"""Columns and votes together: the sum of both, on the same cells, and the network asked once."""

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
from fakes.court import COURT, sphere_taken
from pytest import approx

from crossview import legends
from crossview.birdseye_matcher import BirdsEyeMatcher
from crossview.column_model import COUNTS_SHAPE, NUM_RANGES, Calibration, ColumnModel
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.joint_matcher import JointMatcher
from crossview.pose_evaluation import Evaluation
from crossview.rasters import MapRaster
from crossview.semantic import SemanticMatcher
from crossview.synthetic.palette import PaletteSegmenter

FRAME = LocalFrame(50.0, 8.0)
POSE = Pose(4.25, -4.25, 45.0)


class Counting(PaletteSegmenter):
    asked = 0

    def __call__(self, image):
        self.asked += 1
        return super().__call__(image)


def court_map(cells):
    """The court's buildings on any cells, by their centres."""
    x_m, y_m = np.meshgrid(*cells.centers())
    inside = np.zeros(cells.shape, bool)
    height_m = np.zeros(cells.shape, np.float32)
    for building in COURT.buildings:
        here = shapely.contains_xy(building.footprint, x_m, y_m)
        inside |= here
        height_m[here] = building.height_m
    classes = np.zeros((*cells.shape, 3), np.uint8)
    channel, building_id = legends.legend("crossview").find("building")
    classes[..., channel][inside] = building_id
    return MapRaster(
        cells,
        classes,
        "crossview",
        np.ones(cells.shape, bool),
        frozenset({"building"}),
        height_m,
    )


@pytest.fixture(scope="module")
def joint():
    counts = np.random.default_rng(0).gamma(1.0, 1000.0, COUNTS_SHAPE)
    model = ColumnModel(
        counts, np.full(NUM_RANGES, 1 / NUM_RANGES), calibration=Calibration(scale=0.1)
    )
    columns = SemanticMatcher(Counting(), model, num_headings=16, sight_blocks=2, block_cells=32)
    return JointMatcher.of(columns)


GRID = PoseGrid(MapGrid(FRAME, 2.0, -2.0, 0.5, 8, 8), 16)


def test_the_network_is_asked_once_for_both(joint):
    segmenter = joint.columns.segmenter
    segmenter.asked = 0
    joint.observe(sphere_taken(COURT, POSE))
    assert segmenter.asked == 1


@pytest.mark.parametrize("headings", [None, np.array([2, 3])])
def test_the_answer_is_the_sum_of_both_at_the_votes_share(joint, headings):
    view = joint.observe(sphere_taken(COURT, POSE))
    fine = court_map(GRID.map.padded(joint.reach_m).divided(2))
    coarse = court_map(GRID.map.padded(joint.votes.reach_m))
    columns = joint.columns.log_likelihood(view.columns, fine, GRID, headings=headings)
    votes = joint.votes.log_likelihood(view.birdseye, coarse, GRID, headings=headings)
    found = joint.log_likelihood(view, fine, GRID, headings=headings)
    tried = slice(None) if headings is None else headings
    assert found[:, :, tried] == approx(columns[:, :, tried] + 0.5 * votes[:, :, tried], abs=1e-3)
    assert np.ptp(votes[:, :, tried]) > 1
    if headings is not None:
        assert np.isneginf(np.delete(found, headings, axis=2)).all()


def test_one_heading_bin_is_the_mean_over_headings(joint):
    view = joint.observe(sphere_taken(COURT, POSE))
    fine = court_map(GRID.map.padded(joint.reach_m).divided(2))
    whole = joint.log_likelihood(view, fine, GRID).astype(float)
    found = joint.log_likelihood(view, fine, PoseGrid(GRID.map, 1))
    assert found[..., 0] == approx(np.logaddexp.reduce(whole, axis=2) - math.log(16), abs=1e-4)


def test_it_reaches_as_far_as_the_farther_and_draws_the_map_as_finely_as_columns(joint):
    assert joint.reach_m == joint.columns.reach_m > joint.votes.reach_m
    assert (joint.map_parts, joint.cell_m, joint.num_headings) == (2, 0.5, 16)
    assert joint.scale == 0.1


def test_a_drive_takes_the_correlation_of_the_columns_model(joint):
    calibration = replace(joint.model.calibration, correlation_m=12.5)
    drive = JointMatcher.of(replace(joint.columns, model=joint.model.calibrated(calibration)))
    tracker = Evaluation(None, drive).tracker(lambda *_: 0.0)
    assert tracker.correlation_m == 12.5


def test_matchers_of_other_cells_or_headings_are_refused(joint):
    other = BirdsEyeMatcher(PaletteSegmenter(), num_headings=32)
    with pytest.raises(ValueError, match="same cells and headings"):
        JointMatcher(joint.columns, other)
    with pytest.raises(ValueError, match="share"):
        replace(joint, votes_share=0.0)
