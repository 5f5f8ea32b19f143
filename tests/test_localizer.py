"""The whole way with made-up maps and matchers whose answers are known."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from pytest import approx

from crossview import evidence
from crossview.errors import ImpossibleEvidenceError, MapOutsideError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localization, Localizer
from crossview.posterior import Posterior

FRAME = LocalFrame(-35.28, 149.13)
TRUTH = Pose(30.3, -20.2, 93.0)


class Recorder:
    """A map source that remembers what it was asked for and answers with the grid itself."""

    def __init__(self):
        self.asked = []

    def __call__(self, grid):
        self.asked.append(grid)
        return grid


@dataclass
class PeakMatcher:
    """Scores every pose by its distance from a query that is the true pose."""

    cell_m: float = 1.0
    num_headings: int = 16
    reach_m: float = 7.5
    scale: float = 1.0
    map_parts: int = 1
    asked_headings: list = field(default_factory=list)

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        assert map_raster == grid.map.padded(self.reach_m)
        assert grid.num_headings == self.num_headings
        self.asked_headings.append(headings)
        center_x, center_y = grid.map.centers()
        distance_m = np.hypot(center_x[None] - query.x_m, center_y[:, None] - query.y_m)
        turn_deg = (grid.headings_deg - query.heading_deg + 180) % 360 - 180
        # a ratio: far above one at the pose, far below one elsewhere
        scores = self.scale * (
            10 - 0.5 * (distance_m[:, :, None] / 2.0) ** 2 - 0.5 * (turn_deg / 15.0) ** 2
        )
        if headings is not None:
            unasked = np.setdiff1d(np.arange(grid.num_headings), headings)
            scores[:, :, unasked] = -np.inf
        return scores


class Constant(PeakMatcher):
    """Knows nothing: the same score everywhere."""

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        return np.zeros(grid.shape, np.float32)


class TwoPlaceGallery:
    """Says that a query is at one of several places."""

    def __init__(self, places, sigma_m=4.0):
        self.places, self.sigma_m = places, sigma_m

    def log_likelihood(self, query, grid):
        answers = [
            evidence.gaussian(grid, x, y, sigma_m=self.sigma_m) + math.log(w)
            for x, y, w in self.places
        ]
        return np.logaddexp.reduce(answers)


def flat_prior(num_headings=1, radius_m=100.0):
    grid = PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=radius_m, cell_m=2.0), num_headings)
    return Posterior.flat(grid)


def localizer(matcher=None, **options):
    options = {"max_windows": 3, "window_radius_m": 12.0} | options
    return Localizer(maps=Recorder(), matcher=matcher or PeakMatcher(), **options)


# ---------------------------------------------------------------- localize


def test_a_query_is_placed_within_a_cell_and_a_bin():
    answer = localizer(gallery=TwoPlaceGallery([(28, -22, 1.0)])).localize(TRUTH, flat_prior())
    pose = answer.best.mode()
    assert math.hypot(pose.x_m - TRUTH.x_m, pose.y_m - TRUTH.y_m) < 1.0
    assert pose.heading_deg == 90.0
    assert answer.best.grid.index_of(TRUTH)


def test_the_evidence_of_the_matcher_chooses_the_window_against_the_galleries_ranking():
    gallery = TwoPlaceGallery([(-50, 50, 0.6), (30, -20, 0.3), (-60, -60, 0.1)])
    answer = localizer(gallery=gallery).localize(TRUTH, flat_prior())
    assert len(answer.posteriors) == 3
    best = answer.best.grid.map.bounds
    assert best.west_m < 30 < best.east_m
    assert best.south_m < -20 < best.north_m
    assert answer.weights[0] > 0.999


def test_a_matcher_that_knows_nothing_leaves_the_galleries_weights():
    gallery = TwoPlaceGallery([(-50, 50, 0.6), (30, -20, 0.3), (-60, -60, 0.1)], sigma_m=2.0)
    answer = localizer(Constant(), gallery=gallery).localize(TRUTH, flat_prior())
    assert answer.weights == approx([0.6, 0.3, 0.1], abs=1e-3)
    assert answer.probability_elsewhere == approx(0, abs=1e-3)


def test_what_no_window_holds_stays_elsewhere():
    gallery = TwoPlaceGallery([(-50, 50, 0.6), (30, -20, 0.3), (-60, -60, 0.1)], sigma_m=2.0)
    answer = localizer(Constant(), gallery=gallery, max_windows=2).localize(TRUTH, flat_prior())
    assert answer.weights == approx([0.6, 0.3], abs=1e-3)
    assert answer.probability_elsewhere == approx(0.1, abs=1e-3)


def test_windows_and_elsewhere_sum_to_one():
    answer = localizer().localize(TRUTH, flat_prior())
    assert answer.weights.sum() + answer.probability_elsewhere == approx(1, abs=1e-9)
    assert answer.probability_elsewhere > 0.05


def test_one_window_over_the_whole_prior_is_a_single_update():
    prior = evidence.prior_within(FRAME, 25, -25, radius_m=20, like=PeakMatcher())
    matcher = PeakMatcher()
    answer = localizer(matcher, max_windows=4, window_radius_m=64.0).localize(TRUTH, prior)
    (posterior,) = answer.posteriors
    window = PoseGrid(prior.grid.map, 16)
    scores = matcher.log_likelihood(TRUTH, window.map.padded(7.5), window)
    direct = prior.onto(window).update(scores)
    assert posterior.grid == window
    assert posterior.log_mass == approx(direct.log_mass, abs=1e-4)
    assert posterior.log_evidence == approx(direct.log_evidence, abs=1e-4)
    assert answer.probability_elsewhere == 0


def test_the_four_lines_are_what_localize_does():
    """Update by the gallery, windows, onto and update in each, the rest kept."""
    gallery = TwoPlaceGallery([(-50, 50, 0.6), (30, -20, 0.4)])
    subject, prior = localizer(gallery=gallery), flat_prior()
    coarse = prior.update(gallery.log_likelihood(TRUTH, prior.grid))
    windows = coarse.windows(3, 12.0, like=subject.matcher)
    fine = [coarse.onto(w).update(subject.match(TRUTH, w, coarse)) for w in windows]
    expected = Localization(tuple(fine), log_rest=coarse.log_mass_outside(windows))
    answer = subject.localize(TRUTH, prior)
    assert answer.weights == approx(expected.weights, abs=1e-6)
    assert answer.log_rest == approx(expected.log_rest, abs=1e-6)


def test_without_a_gallery_the_prior_alone_chooses_windows():
    prior = flat_prior()
    prior = prior.update(evidence.disc(prior.grid, 31, -21, radius_m=9))
    answer = localizer().localize(TRUTH, prior)
    assert len(answer.posteriors) == 1
    assert answer.best.mode().heading_deg == 90


# ---------------------------------------------------------------- match


def test_the_map_is_cut_with_the_matchers_reach():
    subject = localizer(gallery=TwoPlaceGallery([(30, -20, 1.0)]), max_windows=1)
    answer = subject.localize(TRUTH, flat_prior())
    (asked,) = subject.maps.asked
    window = answer.best.grid.map.bounds
    assert asked.cell_m == 1.0
    assert asked.bounds.west_m <= window.west_m - 7.5
    assert asked.bounds.north_m >= window.north_m + 7.5


def test_all_headings_are_asked_for_where_all_are_possible():
    subject = localizer(max_windows=1)
    subject.localize(TRUTH, flat_prior(num_headings=8))
    assert subject.matcher.asked_headings == [None]


def test_headings_that_the_prior_excludes_are_not_asked_for():
    prior = flat_prior(num_headings=16, radius_m=40)
    compass = np.full(16, -np.inf)
    compass[3:6] = 0.0
    subject = localizer(max_windows=1, window_radius_m=50)
    answer = subject.localize(TRUTH, prior.update(compass))
    (headings,) = subject.matcher.asked_headings
    assert headings.tolist() == [3, 4, 5]
    assert answer.best.heading()[[2, 6, 12]] == approx([0, 0, 0])
    assert answer.best.mode().heading_deg == 90


def test_a_narrow_compass_asks_for_the_same_headings_in_finer_bins():
    prior = flat_prior(num_headings=4, radius_m=40).update([-np.inf, 0.0, -np.inf, -np.inf])
    subject = localizer(max_windows=1, window_radius_m=50)
    subject.localize(TRUTH, prior)
    (headings,) = subject.matcher.asked_headings
    # 45..135 degrees in bins of 22.5, those that straddle its edges included
    assert headings.tolist() == [2, 3, 4, 5, 6]


def test_a_matcher_that_excludes_every_pose_is_refused():
    class Excluding(PeakMatcher):
        def log_likelihood(self, query, map_raster, grid, *, headings=None):
            return np.full(grid.shape, -np.inf)

    with pytest.raises(ImpossibleEvidenceError):
        localizer(Excluding()).localize(TRUTH, flat_prior())


# ---------------------------------------------------------------- Localization


def posterior_at(row, col, log_evidence, *, west_m=0.0):
    grid = PoseGrid(MapGrid(FRAME, west_m, 0.0, 1.0, 10, 10), 4)
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[row, col, 1] = math.log(0.75)
    log_mass[9, 9, 2] = math.log(0.25)
    return Posterior(grid, log_mass, log_evidence)


def test_windows_compete_by_their_evidence_best_first():
    weak, strong = posterior_at(0, 0, math.log(2)), posterior_at(0, 0, math.log(6), west_m=50)
    answer = Localization((weak, strong), log_rest=math.log(2))
    assert answer.best is strong
    assert answer.weights == approx([0.6, 0.2])
    assert answer.probability_elsewhere == approx(0.2)


def test_a_large_common_evidence_does_not_overflow():
    for offset in (-1e5, 1e5):
        weak, strong = (
            posterior_at(0, 0, math.log(mass) + offset, west_m=west)
            for mass, west in ((2, 0), (6, 50))
        )
        answer = Localization((weak, strong), log_rest=math.log(2) + offset)
        assert answer.weights == approx([0.6, 0.2], abs=1e-6)


def test_the_probability_within_a_distance_counts_all_windows_and_not_elsewhere():
    near = posterior_at(0, 9, math.log(6))  # 75 % at (9.5, -0.5), 25 % at (9.5, -9.5)
    beside = posterior_at(0, 0, math.log(2), west_m=10)  # 75 % at (10.5, -0.5)
    answer = Localization((near, beside), log_rest=math.log(2))
    assert answer.probability_within(0.5) == approx(0.6 * 0.75, abs=1e-6)
    assert answer.probability_within(2.0) == approx(0.6 * 0.75 + 0.2 * 0.75, abs=1e-6)
    assert answer.probability_within(1e4) == approx(0.8, abs=1e-6)


def test_modes_of_all_windows_are_ranked_together():
    near = posterior_at(0, 0, math.log(6))
    far = posterior_at(0, 0, math.log(2), west_m=50)
    modes = Localization((near, far), log_rest=math.log(2)).modes(3)
    assert [mode.mass for mode in modes] == approx([0.45, 0.15, 0.15], abs=1e-6)
    assert modes[0].pose == Pose(0.5, -0.5, 90)


def test_a_localization_without_windows_is_refused():
    with pytest.raises(ValueError, match="at least one window"):
        Localization(())


def test_a_certain_answer_leaves_nothing_elsewhere():
    answer = Localization((posterior_at(0, 0, 3.0),))
    assert answer.weights == approx([1.0])
    assert answer.probability_elsewhere == 0.0


def reaches_only_the_east(grid):
    if grid.bounds.east_m < 0:
        raise MapOutsideError("The map does not reach the grid.")
    return grid


def test_a_window_off_the_map_is_no_evidence_and_the_others_are_searched():
    options = {"matcher": PeakMatcher(), "max_windows": 64, "window_radius_m": 16.0}
    found = Localizer(maps=reaches_only_the_east, **options).localize(TRUTH, flat_prior())
    pose = found.best.mode()
    assert math.hypot(pose.x_m - TRUTH.x_m, pose.y_m - TRUTH.y_m) < 1.0
    assert any(posterior.grid.map.bounds.east_m < -20 for posterior in found.posteriors)


def test_a_map_that_reaches_nothing_of_the_prior_is_refused():
    def reaches_nothing(grid):
        raise MapOutsideError("The map does not reach the grid.")

    with pytest.raises(MapOutsideError):
        Localizer(maps=reaches_nothing, matcher=PeakMatcher()).localize(TRUTH, flat_prior())


# --------------------------------------------------------------------- hedging


def certain(log_ratio=0.0):
    grid = PoseGrid(MapGrid.around(FRAME, 0.0, 0.0, radius_m=5.0, cell_m=1.0), 4)
    return Localization((Posterior.flat(grid).update(np.full((1, 1, 1), log_ratio)),))


def test_a_query_that_says_nothing_leaves_the_probability_of_outside():
    assert certain().hedged(0.05).probability_elsewhere == approx(0.05)
    assert certain().hedged(0.0).probability_elsewhere == 0.0


def test_a_query_that_fits_badly_makes_outside_probable_and_one_that_fits_well_excludes_it():
    # odds of 1 : 19 times a ratio of exp(-5) against 1
    expected = 0.05 / (0.05 + 0.95 * math.exp(-5.0))
    assert certain(-5.0).hedged(0.05).probability_elsewhere == approx(expected)
    assert certain(15.0).hedged(0.05).probability_elsewhere < 1e-6


def test_hedging_adds_to_what_no_window_holds():
    localization = Localization(certain().posteriors, log_rest=math.log(1.0))
    assert localization.probability_elsewhere == approx(0.5)
    # 1 in the window, 1 in the rest of the prior, 1 outside of it
    assert localization.hedged(0.5).probability_elsewhere == approx(2 / 3)


def test_a_probability_of_one_of_being_outside_is_refused():
    with pytest.raises(ValueError, match="outside must be a probability"):
        certain().hedged(1.0)
