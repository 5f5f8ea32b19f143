import math

import numpy as np
import pytest
from pytest import approx

from crossview.evaluation import (
    PoseResult,
    coverage_interval,
    credible_level,
    pose_result,
    pose_summary,
)
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.posterior import Posterior
from crossview.statements import Statement

FRAME = LocalFrame(-35.28, 149.13)
GRID = PoseGrid(MapGrid(FRAME, 0.0, 0.0, 1.0, 20, 20), 8)


def certain(row, col, k, grid=GRID):
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[row, col, k] = 0.0
    return Posterior(grid, log_mass)


def result(error_m=0.0, turn_deg=0.0, nll=0.0, covered=(True, True, True), stated=None):
    return PoseResult(error_m, turn_deg, 0.0, 0.0, nll, covered, stated)


def test_the_position_error_is_the_distance_of_the_mode():
    # the estimate is (3.5, -4.5), the truth 3 m east and 4 m north of it
    found = pose_result(certain(4, 3, 0), Pose(6.5, -0.5, 0))
    assert found.position_error_m == approx(5)


def test_the_heading_error_is_the_shorter_turn():
    assert pose_result(certain(0, 0, 7), Pose(0.5, -0.5, 10)).heading_error_deg == approx(55)
    assert pose_result(certain(0, 0, 4), Pose(0.5, -0.5, 0)).heading_error_deg == approx(180)


@pytest.mark.parametrize(
    "heading_deg, longitudinal_m, lateral_m",
    [(0, 2, 3), (90, 3, -2), (180, -2, -3), (270, -3, 2)],
)
def test_errors_along_and_across_are_those_of_the_true_heading(
    heading_deg, longitudinal_m, lateral_m
):
    # the estimate is 3 m east and 2 m north of the truth
    found = pose_result(certain(10, 10, 0), Pose(7.5, -12.5, heading_deg))
    assert found.longitudinal_m == approx(longitudinal_m)
    assert found.lateral_m == approx(lateral_m)


def test_the_nll_of_a_flat_posterior_is_the_log_of_its_area_times_360():
    found = pose_result(Posterior.flat(GRID), Pose(3.3, -8.8, 123))
    assert found.nll == approx(math.log(400 * 360), abs=1e-5)
    without = PoseGrid(GRID.map, 1)
    found = pose_result(Posterior.flat(without), Pose(3.3, -8.8, 123))
    assert found.nll == approx(math.log(400 * 360), abs=1e-5)


def test_the_nll_does_not_depend_on_the_fineness_of_the_grid():
    fine = PoseGrid(MapGrid(FRAME, 0.0, 0.0, 0.25, 80, 80), 32)
    truth = Pose(3.3, -8.8, 123)
    coarse_nll = pose_result(Posterior.flat(GRID), truth).nll
    assert pose_result(Posterior.flat(fine), truth).nll == approx(coarse_nll, abs=1e-5)


def test_an_excluded_truth_has_infinite_nll_and_is_not_covered():
    for truth in (Pose(0.5, -0.5, 0), Pose(1000, 1000, 0)):
        found = pose_result(certain(10, 10, 0), truth)
        assert found.nll == math.inf
        assert found.covered == (False, False, False)


def test_coverage_asks_whether_the_truth_is_in_each_smallest_region():
    grid = PoseGrid(MapGrid(FRAME, 0.0, 0.0, 1.0, 1, 4), 4)
    mass = np.array([0.6, 0.32, 0.06, 0.02])
    posterior = Posterior(grid, np.log(np.repeat(mass[None, :, None] / 4, 4, axis=2)))
    covered = [pose_result(posterior, Pose(x + 0.5, -0.5, 0)).covered for x in range(4)]
    # regions of 50, 90 and 95 %: the first cell, the first two, the first three
    assert covered == [
        (True, True, True),
        (False, True, True),
        (False, False, True),
        (False, False, False),
    ]


def test_stated_regions_of_an_honest_posterior_hold_their_share_of_truths():
    rng = np.random.default_rng(0)
    grid = PoseGrid(MapGrid(FRAME, 0.0, 0.0, 1.0, 20, 20), 4)
    posterior = Posterior.flat(grid).update(rng.normal(0, 1, grid.shape))
    truths = posterior.sample(1500, rng)
    summary = pose_summary(pose_result(posterior, truth) for truth in truths)
    # three standard deviations of a share of 1500
    assert summary["coverage_50"] == approx(0.5, abs=0.04)
    assert summary["coverage_90"] == approx(0.9, abs=0.024)
    assert summary["coverage_95"] == approx(0.95, abs=0.018)
    assert summary["nll"] == approx(posterior.entropy_nats() + math.log(90), abs=0.1)


def test_a_truth_without_heading_has_position_figures_only():
    found = pose_result(certain(4, 3, 2), Pose(6.5, -0.5))
    assert found.position_error_m == approx(5)
    assert found.heading_error_deg is None
    assert (found.lateral_m, found.longitudinal_m) == (None, None)
    assert pose_result(certain(4, 3, 2), Pose(3.5, -4.5)).nll == approx(math.log(360))


def test_an_answer_without_heading_has_no_heading_error():
    grid = PoseGrid(GRID.map, 1)
    found = pose_result(certain(4, 3, 0, grid), Pose(6.5, -0.5, 90))
    assert found.heading_error_deg is None
    assert found.longitudinal_m == approx(-3)


def test_the_summary_has_the_keys_that_were_promised():
    assert list(pose_summary([result()])) == [
        "n",
        "median_position_error_m",
        "within_1m",
        "within_2m",
        "within_5m",
        "median_heading_error_deg",
        "within_5deg",
        "within_10deg",
        "nll",
        "coverage_50",
        "coverage_90",
        "coverage_95",
    ]


def test_the_summary_of_four_answers_by_hand():
    summary = pose_summary(
        [
            result(0.5, 1.0, 2.0, (True, True, True)),
            result(1.5, 7.0, 4.0, (False, True, True)),
            result(3.0, 20.0, 6.0, (False, False, True)),
            result(9.0, 170.0, 8.0, (False, False, False)),
        ]
    )
    assert summary == approx(
        {
            "n": 4,
            "median_position_error_m": 2.25,
            "within_1m": 0.25,
            "within_2m": 0.5,
            "within_5m": 0.75,
            "median_heading_error_deg": 13.5,
            "within_5deg": 0.25,
            "within_10deg": 0.5,
            "nll": 5.0,
            "coverage_50": 0.25,
            "coverage_90": 0.5,
            "coverage_95": 0.75,
        }
    )


def test_thresholds_are_strict():
    summary = pose_summary([result(5.0, 10.0), result(1.0, 5.0)])
    assert (summary["within_5m"], summary["within_1m"]) == (0.5, 0.0)
    assert (summary["within_10deg"], summary["within_5deg"]) == (0.5, 0.0)


def test_one_excluded_truth_makes_the_mean_nll_infinite():
    assert pose_summary([result(nll=1.0), result(nll=math.inf)])["nll"] == math.inf


def test_heading_figures_are_none_where_no_answer_has_a_heading():
    summary = pose_summary([result(turn_deg=None)])
    assert summary["median_heading_error_deg"] is None
    assert summary["within_5deg"] is None
    assert summary["within_1m"] == 1.0


def test_the_accuracy_of_what_is_answered_by_hand():
    stated = [(1.0, 0.9), (7.0, 0.6), (5.0, 0.5), (3.0, 0.49), (9.0, 0.01)]
    results = [result(error_m, stated=Statement(p, 0.2)) for error_m, p in stated]
    summary = pose_summary(results)
    assert list(summary)[-4:] == [
        "probability_elsewhere",
        "answered",
        "probability_within_5m",
        "selective_accuracy_5m",
    ]
    assert summary["probability_elsewhere"] == approx(0.2)
    assert summary["probability_within_5m"] == approx(0.5)
    # three are answered, and 5 m are not within 5 m
    assert summary["answered"] == approx(3 / 5)
    assert summary["selective_accuracy_5m"] == approx(1 / 3)
    assert pose_summary(results[3:])["selective_accuracy_5m"] is None


def test_figures_of_statements_need_a_statement_of_every_answer():
    assert "answered" not in pose_summary([result(), result(stated=Statement(0.9, 0.0))])


def test_no_results_cannot_be_summarised():
    with pytest.raises(ValueError, match="No results"):
        pose_summary([])


def test_a_collapsed_answer_does_not_look_good():
    """A matcher that returns a constant: the mode is one corner, coverage is chance."""
    flat = Posterior.flat(GRID)
    truths = [GRID.pose_at(row, col, 0) for row in range(20) for col in range(20)]
    summary = pose_summary([pose_result(flat, truth) for truth in truths])
    assert summary["within_1m"] <= 4 / 400
    assert summary["coverage_50"] == approx(0.5, abs=0.01)
    assert summary["nll"] == approx(math.log(400 * 360), abs=1e-5)


# ------------------------------------------------------------------ levels


def random_posterior(rng, shape=(6, 7), num_headings=4):
    grid = PoseGrid(MapGrid(FRAME, 0.0, 0.0, 1.0, *shape), num_headings)
    return Posterior.flat(grid).update(rng.normal(0, 2, grid.shape))


def test_the_level_of_a_truth_is_the_sum_of_what_is_as_probable():
    posterior = random_posterior(np.random.default_rng(1))
    ranked = sorted(posterior.position().ravel(), reverse=True)
    for row, col in np.ndindex(6, 7):
        rank = ranked.index(posterior.position()[row, col])
        expected = math.fsum(ranked[: rank + 1]) / math.fsum(ranked)
        level = credible_level(posterior, Pose(col + 0.5, -row - 0.5))
        assert level == approx(expected, abs=1e-9)


def test_a_region_holds_the_truths_of_lower_levels_and_no_others():
    posterior = random_posterior(np.random.default_rng(2))
    levels = np.array(
        [[credible_level(posterior, Pose(c + 0.5, -r - 0.5)) for c in range(7)] for r in range(6)]
    )
    for mass in (0.1, 0.5, 0.9, 0.99):
        region = posterior.region(mass)
        assert region[levels <= mass].all()
        # a region ends with the cell that reaches its mass
        assert np.count_nonzero(region & (levels > mass)) == 1


def test_the_level_of_an_excluded_truth_is_1():
    assert credible_level(certain(10, 10, 0), Pose(0.5, -0.5)) == 1.0
    assert credible_level(certain(10, 10, 0), Pose(1000, 1000)) == 1.0
    assert credible_level(certain(10, 10, 0), Pose(10.5, -10.5)) == 1.0


def test_ties_count_in_full_or_are_drawn():
    flat = Posterior.flat(GRID)
    assert credible_level(flat, Pose(3.5, -3.5)) == approx(1.0)
    rng = np.random.default_rng(0)
    levels = [credible_level(flat, Pose(3.5, -3.5), rng=rng) for _ in range(1000)]
    assert np.quantile(levels, [0.1, 0.5, 0.9]) == approx([0.1, 0.5, 0.9], abs=0.05)


def test_drawn_levels_of_an_honest_posterior_are_uniform_however_coarse_its_cells():
    from scipy import stats

    rng = np.random.default_rng(3)
    posterior = random_posterior(rng, shape=(2, 2))
    truths = posterior.sample(1000, rng)
    drawn = [credible_level(posterior, truth, rng=rng) for truth in truths]
    assert stats.kstest(drawn, "uniform").pvalue > 0.01
    in_full = [credible_level(posterior, truth) for truth in truths]
    assert stats.kstest(in_full, "uniform").pvalue < 1e-6
    # a drawn level is in a region too
    assert min(drawn) > 0
    assert all(a <= b for a, b in zip(sorted(drawn), sorted(in_full), strict=True))


@pytest.mark.parametrize("num_covered, num_answers", [(0, 10), (1, 10), (45, 50), (10, 10)])
def test_the_coverage_interval_is_that_of_jeffreys(num_covered, num_answers):
    from scipy import stats

    low, high = coverage_interval(num_covered, num_answers, 0.9)
    beta = stats.beta(num_covered + 0.5, num_answers - num_covered + 0.5)
    assert low == (approx(beta.ppf(0.05)) if num_covered else 0.0)
    assert high == (approx(beta.ppf(0.95)) if num_covered < num_answers else 1.0)
    assert low <= num_covered / num_answers <= high


def test_a_mean_count_has_an_interval_between_those_of_its_neighbours():
    low, high = coverage_interval(12.5, 14)
    assert coverage_interval(12, 14)[0] < low < coverage_interval(13, 14)[0]
    assert coverage_interval(12, 14)[1] < high < coverage_interval(13, 14)[1]


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_a_coverage_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="0 to num_answers covered"):
        coverage_interval(*arguments)
