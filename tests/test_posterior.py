"""Posterior: what it holds, how evidence combines, and what is read from it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import evidence
from crossview.errors import (
    GridMismatchError,
    ImpossibleEvidenceError,
    VolumeTooLargeError,
)
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.posterior import Posterior

FRAME = LocalFrame(-35.28, 149.13)
seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from([(5, 7, 8), (6, 4, 1), (1, 1, 4), (3, 9, 12)])


def grid_of(shape, cell_m=0.5):
    height, width, num_headings = shape
    return PoseGrid(MapGrid(FRAME, 100.0, -40.0, cell_m, height, width), num_headings)


def random_scores(shape, seed, *, spread=10.0, excluded=0.2):
    """Log-likelihoods with a share of cells excluded, never all."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, spread, shape)
    scores[rng.random(shape) < excluded] = -np.inf
    scores.flat[rng.integers(scores.size)] = 0.0
    return scores


def random_posterior(shape, seed, **options):
    return Posterior.flat(grid_of(shape)).update(random_scores(shape, seed, **options))


def certain(grid, row, col, k=0):
    """All mass at one pose."""
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[row, col, k] = 0.0
    return Posterior(grid, log_mass)


def mass_of(posterior):
    return np.exp(posterior.log_mass.astype(float))


def same(a, b, *, abs_evidence=1e-5):
    return (
        a.grid == b.grid
        and mass_of(a) == approx(mass_of(b), abs=1e-5)
        and a.log_evidence == approx(b.log_evidence, abs=abs_evidence)
    )


# ---------------------------------------------------------------- what it holds


@given(shapes)
def test_a_flat_posterior_gives_every_pose_the_same_probability(shape):
    flat = Posterior.flat(grid_of(shape))
    assert mass_of(flat) == approx(np.full(shape, 1 / math.prod(shape)), rel=1e-6)
    assert flat.log_evidence == 0


def test_the_arrays_are_float32_and_read_only(pose_grid):
    scores = np.zeros(pose_grid.shape)
    for posterior in (Posterior.flat(pose_grid), Posterior.flat(pose_grid).update(scores)):
        assert posterior.log_mass.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            posterior.log_mass[0, 0, 0] = 0


def test_a_posterior_does_not_share_memory_with_the_array_it_was_made_from(pose_grid):
    log_mass = np.full(pose_grid.shape, -math.log(math.prod(pose_grid.shape)), np.float32)
    posterior = Posterior(pose_grid, log_mass)
    log_mass[:] = 5
    assert mass_of(posterior).sum() == approx(1, abs=1e-5)


def test_mass_that_does_not_sum_to_one_is_refused(pose_grid):
    with pytest.raises(ValueError, match="not to one"):
        Posterior(pose_grid, np.zeros(pose_grid.shape))
    with pytest.raises(ValueError, match="not to one"):
        Posterior(pose_grid, np.full(pose_grid.shape, -np.inf))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_mass_that_is_not_a_number_is_refused(pose_grid, value):
    log_mass = np.full(pose_grid.shape, -math.log(math.prod(pose_grid.shape)))
    log_mass[2, 3, 4] = value
    with pytest.raises(ValueError, match="NaN"):
        Posterior(pose_grid, log_mass)


def test_mass_of_another_shape_is_refused(pose_grid):
    with pytest.raises(GridMismatchError, match=r"\(8, 6, 8\).*\(6, 8, 8\)"):
        Posterior(pose_grid, np.zeros((8, 6, 8)))


def test_a_volume_that_is_too_large_is_refused_and_the_message_names_one_heading():
    grid = PoseGrid(MapGrid(FRAME, 0, 0, 0.5, 20_000, 20_000), 64)
    with pytest.raises(VolumeTooLargeError, match="num_headings=1"):
        Posterior.flat(grid)
    small = grid_of((5, 7, 8))
    with pytest.raises(VolumeTooLargeError):
        Posterior.flat(small, max_bytes=4 * 5 * 7 * 8 - 1)
    Posterior.flat(small, max_bytes=4 * 5 * 7 * 8)


# ---------------------------------------------------------------- update


def test_update_is_the_rule_of_bayes():
    grid = grid_of((1, 2, 1))
    prior = Posterior.flat(grid).update(np.log([[[0.2], [0.8]]]))
    posterior = prior.update(np.log([[[0.5], [0.25]]]))
    # 0.2 * 0.5 = 0.1 against 0.8 * 0.25 = 0.2; the first update had evidence 0.5
    assert mass_of(posterior).ravel() == approx([1 / 3, 2 / 3], abs=1e-6)
    assert posterior.log_evidence == approx(math.log(0.5) + math.log(0.3), abs=1e-6)


@given(shapes, seeds, st.sampled_from([0.01, 1.0, 30.0, 1e3]))
def test_mass_sums_to_one_after_any_update(shape, seed, spread):
    posterior = random_posterior(shape, seed, spread=spread)
    assert mass_of(posterior).sum() == approx(1, abs=1e-5)
    assert mass_of(posterior.update(random_scores(shape, seed + 1))).sum() == approx(1, abs=1e-5)


@given(shapes, seeds, st.sampled_from([1.0, 30.0, 300.0]))
def test_update_agrees_with_a_sum_in_float64(shape, seed, spread):
    prior = random_posterior(shape, seed)
    scores = random_scores(shape, seed + 1, spread=spread, excluded=0)
    joint = prior.log_mass.astype(float) + scores
    log_sum = np.logaddexp.reduce(joint, axis=None)
    posterior = prior.update(scores)
    assert mass_of(posterior) == approx(np.exp(joint - log_sum), abs=1e-5)
    assert posterior.log_evidence - prior.log_evidence == approx(log_sum, abs=1e-5)


@given(shapes, seeds)
def test_updates_commute(shape, seed):
    prior = random_posterior(shape, seed, excluded=0)
    a, b = (random_scores(shape, seed + i, excluded=0) for i in (1, 2))
    assert same(prior.update(a).update(b), prior.update(b).update(a))


@given(shapes, seeds)
def test_updates_are_associative(shape, seed):
    prior = random_posterior(shape, seed, excluded=0)
    a, b = (random_scores(shape, seed + i, excluded=0) for i in (1, 2))
    assert same(prior.update(a).update(b), prior.update(a + b))


@given(shapes, seeds, st.sampled_from([0.0, 0.37, -5.0, 1e6, -1e6, 1e9]))
def test_updating_with_a_constant_changes_only_the_evidence(shape, seed, constant):
    prior = random_posterior(shape, seed)
    for scores in (constant, np.full(shape, constant), np.full((1, 1, 1), constant, np.float32)):
        posterior = prior.update(scores)
        assert posterior.log_mass == approx(prior.log_mass, abs=1e-5)
        assert posterior.log_evidence == approx(prior.log_evidence + constant, rel=1e-12, abs=1e-5)


@given(seeds, st.sampled_from([1e4, 1e6, 1e8]))
def test_a_large_common_offset_does_not_cost_digits(seed, offset):
    prior = random_posterior((5, 7, 8), seed)
    scores = random_scores((5, 7, 8), seed + 1, spread=1.0)
    assert prior.update(scores + offset).log_mass == approx(prior.update(scores).log_mass, abs=1e-5)


def test_a_high_likelihood_where_the_prior_excludes_does_not_cost_digits():
    prior = Posterior.flat(grid_of((1, 4, 1))).update([[[-np.inf], [0], [0], [0]]])
    posterior = prior.update([[[1e6], [0], [0.01], [0.02]]])
    weights = np.exp([0, 0.01, 0.02])
    assert mass_of(posterior).ravel() == approx([0, *(weights / weights.sum())], abs=1e-6)


def test_evidence_far_in_the_tail_of_the_prior_still_gives_a_distribution():
    grid = PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=100, cell_m=1), 1)
    prior = Posterior.flat(grid).update(evidence.gaussian(grid, -99, -99, sigma_m=0.5))
    posterior = prior.update(evidence.disc(grid, 99, 99, radius_m=3))
    assert mass_of(posterior).sum() == approx(1, abs=1e-5)
    # the edge of the disc that is nearest to the prior wins
    mode = posterior.mode()
    assert (mode.x_m, mode.y_m) == approx((99 - 3 / math.sqrt(2),) * 2, abs=0.75)


def test_minus_infinity_excludes_for_good(pose_grid):
    scores = np.zeros(pose_grid.shape)
    scores[:, :4] = -np.inf
    posterior = Posterior.flat(pose_grid).update(scores).update(np.full(pose_grid.shape, 50.0))
    assert posterior.position()[:, :4].max() == 0
    assert posterior.position()[:, 4:].sum() == approx(1, abs=1e-5)


def test_a_likelihood_too_small_for_float32_excludes_without_a_warning(pose_grid):
    scores = np.zeros(pose_grid.shape)
    scores[0, 0, 0] = -1e300
    assert Posterior.flat(pose_grid).update(scores).log_mass[0, 0, 0] == -math.inf


@pytest.mark.parametrize("shape", [(6, 8, 8), (6, 8, 1), (8,), (1, 1, 8), (), (1, 8, 1), (6, 1, 1)])
def test_any_answer_that_broadcasts_to_the_grid_is_knowledge(pose_grid, shape):
    scores = np.random.default_rng(1).normal(size=shape)
    posterior = Posterior.flat(pose_grid).update(scores)
    assert same(posterior, Posterior.flat(pose_grid).update(np.broadcast_to(scores, (6, 8, 8))))


@pytest.mark.parametrize("shape", [(8, 6, 8), (6, 8), (6, 8, 4), (2, 6, 8, 8), (1, 6, 8, 8), (0,)])
def test_any_other_shape_is_refused_with_both_shapes(pose_grid, shape):
    with pytest.raises(GridMismatchError, match=r"does not broadcast.*\(6, 8, 8\)"):
        Posterior.flat(pose_grid).update(np.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_likelihood_that_is_not_a_number_is_refused_as_a_bug(pose_grid, value):
    scores = np.full(pose_grid.shape, -np.inf)
    scores[0, 0, 0] = 1.0
    scores[1, 2, 3] = value
    with pytest.raises(ValueError, match="NaN"):
        Posterior.flat(pose_grid).update(scores)
    with pytest.raises(ValueError, match="NaN"):
        Posterior.flat(pose_grid).update(value)


def test_nan_is_refused_even_where_the_prior_excludes(pose_grid):
    scores = np.zeros(pose_grid.shape)
    scores[0, 0, 0] = -np.inf
    prior = Posterior.flat(pose_grid).update(scores)
    scores[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        prior.update(scores)


def test_evidence_that_excludes_everything_is_refused(pose_grid):
    with pytest.raises(ImpossibleEvidenceError, match="every pose of the grid"):
        Posterior.flat(pose_grid).update(-np.inf)


def test_evidence_that_excludes_all_that_was_left_is_refused(pose_grid):
    west, east = np.zeros((2, *pose_grid.shape))
    west[:, 4:] = east[:, :4] = -np.inf
    with pytest.raises(ImpossibleEvidenceError, match="still possible"):
        Posterior.flat(pose_grid).update(west).update(east)


# ---------------------------------------------------------------- read


def test_the_mode_is_the_most_probable_pose(pose_grid):
    scores = np.zeros(pose_grid.shape)
    scores[4, 6, 3] = 1.0
    assert Posterior.flat(pose_grid).update(scores).mode() == pose_grid.pose_at(4, 6, 3)


def test_without_headings_the_mode_has_none(map_grid):
    posterior = Posterior.flat(PoseGrid(map_grid, 1))
    assert posterior.mode().heading_deg is None
    assert posterior.mean().heading_deg is None
    assert posterior.heading_std_deg() is None


@given(shapes, seeds)
def test_marginals_are_sums_of_the_volume(shape, seed):
    posterior = random_posterior(shape, seed)
    assert posterior.position() == approx(mass_of(posterior).sum(axis=2), abs=1e-9)
    assert posterior.heading() == approx(mass_of(posterior).sum(axis=(0, 1)), abs=1e-9)


def test_large_volumes_are_read_in_blocks_with_the_same_result(monkeypatch):
    posterior = random_posterior((37, 11, 8), 3)
    scores = random_scores((37, 11, 1), 4)
    whole = [posterior.position(), posterior.heading(), posterior.entropy_nats()]
    updated = posterior.update(scores)
    monkeypatch.setattr("crossview.posterior._BLOCK_CELLS", 500)
    assert posterior.position() == approx(whole[0])
    assert posterior.heading() == approx(whole[1])
    assert posterior.entropy_nats() == approx(whole[2])
    assert same(posterior.update(scores), updated)


def test_the_mean_is_the_centre_of_mass_and_wraps_headings():
    grid = grid_of((1, 3, 8), cell_m=2)
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[0, 0, 7] = math.log(0.25)  # x 101, heading 315
    log_mass[0, 2, 1] = math.log(0.25)  # x 105, heading 45
    log_mass[0, 2, 0] = math.log(0.5)  # x 105, heading 0
    mean = Posterior(grid, log_mass).mean()
    assert (mean.x_m, mean.y_m) == approx((104, -41), abs=1e-5)
    assert (mean.heading_deg + 180) % 360 == approx(180, abs=1e-5)


def test_the_mean_far_from_the_anchor_is_exact_to_a_tenth_of_a_millimetre():
    grid = PoseGrid(MapGrid(FRAME, 40_000 - 50, 40, 0.5, 160, 200), 4)
    mean = Posterior.flat(grid).mean()
    assert (mean.x_m, mean.y_m) == approx((40_000, 0), abs=1e-4)


def test_the_covariance_of_two_places_by_hand():
    grid = grid_of((3, 3, 1), cell_m=2)
    log_mass = np.full(grid.shape, -np.inf)
    # (101, -41) and (105, -45): east goes with south
    log_mass[0, 0, 0] = log_mass[2, 2, 0] = math.log(0.5)
    # variance 4 between them, plus 2^2 / 12 inside a cell; covariance -4
    expected = [[4 + 1 / 3, -4], [-4, 4 + 1 / 3]]
    assert Posterior(grid, log_mass).position_covariance_m2() == approx(np.array(expected))


def test_a_gaussian_prior_is_read_back_with_its_mean_and_spread():
    grid = PoseGrid(MapGrid.around(FRAME, 12, -7, radius_m=40, cell_m=0.5), 36)
    posterior = (
        Posterior.flat(grid)
        .update(evidence.gaussian(grid, 12.3, -7.9, sigma_m=5))
        .update(evidence.compass(grid, 350, sigma_deg=12))
    )
    mean = posterior.mean()
    assert (mean.x_m, mean.y_m) == approx((12.3, -7.9), abs=1e-3)
    assert mean.heading_deg == approx(350, abs=1e-2)
    # cells and bins widen it by their own variance, once when rounded and once inside
    assert posterior.position_covariance_m2() == approx(
        np.eye(2) * (25 + 2 * 0.5**2 / 12), abs=0.02
    )
    assert posterior.heading_std_deg() == approx(math.sqrt(144 + 2 * 10**2 / 12), abs=0.05)


def test_the_heading_spread_of_one_bin_is_that_of_a_uniform_bin(pose_grid):
    assert certain(pose_grid, 1, 2, 3).heading_std_deg() == approx(45 / math.sqrt(12))


def test_entropy_is_0_when_certain_and_log_of_the_size_when_flat(pose_grid):
    assert certain(pose_grid, 1, 2, 3).entropy_nats() == 0
    assert Posterior.flat(pose_grid).entropy_nats() == approx(math.log(6 * 8 * 8), abs=1e-5)


@given(seeds, st.sampled_from([0.1, 0.5, 0.9, 0.95, 1.0]))
def test_a_region_is_the_smallest_set_of_cells_with_its_mass(seed, level):
    posterior = random_posterior((5, 7, 8), seed, spread=2.0)
    region = posterior.region(level)
    position = posterior.position()
    assert region.shape == (5, 7)
    assert region.dtype == bool
    assert position[region].sum() >= level * (1 - 1e-5)
    # without its least probable cell it holds too little, and no better cell is outside
    assert position[region].sum() - position[region].min() < level + 1e-9
    if not region.all():
        assert position[region].min() >= position[~region].max()


def test_half_of_a_flat_posterior_is_half_of_the_cells(pose_grid):
    assert Posterior.flat(pose_grid).region(0.5).sum() == 24


def test_a_region_leaves_out_what_is_impossible(pose_grid):
    scores = np.zeros((6, 8, 1))
    scores[:2] = -np.inf
    region = Posterior.flat(pose_grid).update(scores).region(1.0)
    assert not region[:2].any()
    assert region[2:].all()


@pytest.mark.parametrize("level", [0, -0.1, 1.1, math.nan])
def test_a_region_of_a_senseless_mass_is_refused(pose_grid, level):
    with pytest.raises(ValueError, match="mass"):
        Posterior.flat(pose_grid).region(level)


def test_density_is_per_square_metre_and_degree(pose_grid):
    # 48 cells of 4 m2 and 360 degrees
    density = Posterior.flat(pose_grid).log_density(Pose(107, -45, 200))
    assert density == approx(-math.log(48 * 4 * 360), abs=1e-5)


def test_density_without_headings_counts_all_of_them_as_equal(map_grid):
    flat = Posterior.flat(PoseGrid(map_grid, 1))
    for heading_deg in (None, 200):
        density = flat.log_density(Pose(107, -45, heading_deg))
        assert density == approx(-math.log(48 * 4 * 360), abs=1e-5)


def test_density_at_a_pose_without_heading_is_that_of_its_position(pose_grid):
    density = certain(pose_grid, 1, 2, 3).log_density(Pose(105, -43))
    assert density == approx(-math.log(4 * 360), abs=1e-5)


def test_density_outside_of_the_grid_is_zero(pose_grid):
    assert Posterior.flat(pose_grid).log_density(Pose(0, 0, 0)) == -math.inf


@given(seeds)
def test_density_integrates_to_one(seed):
    posterior = random_posterior((3, 4, 8), seed, spread=1.0)
    grid = posterior.grid
    density = [
        math.exp(posterior.log_density(grid.pose_at(*index))) for index in np.ndindex(grid.shape)
    ]
    assert sum(density) * grid.map.cell_m**2 * 45 == approx(1, abs=1e-5)


def test_probability_within_a_distance_counts_cells_by_their_centres(pose_grid):
    flat = Posterior.flat(pose_grid)
    # around the centre of a cell: 5 of 48 cells have their centre within 2 m, 9 within 2.9 m
    assert flat.probability_within(2.0, 107, -45) == approx(5 / 48, abs=1e-5)
    assert flat.probability_within(2.9, 107, -45) == approx(9 / 48, abs=1e-5)
    assert flat.probability_within(1e3, 107, -45) == approx(1, abs=1e-5)


def test_modes_are_peaks_highest_first_and_take_the_mass_around_them():
    grid = grid_of((40, 40, 8), cell_m=1)
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[5, 5, 0] = math.log(0.4)
    log_mass[6, 5, 0] = math.log(0.15)
    log_mass[30, 30, 2] = math.log(0.45)
    first, second = Posterior(grid, log_mass).modes(5)
    assert first.pose == grid.pose_at(30, 30, 2)
    assert first.mass == approx(0.45, abs=1e-5)
    assert second.pose == grid.pose_at(5, 5, 0)
    assert second.mass == approx(0.55, abs=1e-5)


def test_opposite_headings_at_one_place_are_two_modes_and_neighbours_across_north_are_one():
    grid = grid_of((9, 9, 16), cell_m=1)
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[4, 4, 0] = math.log(0.4)
    log_mass[4, 4, 15] = math.log(0.3)
    log_mass[4, 4, 8] = math.log(0.3)
    modes = Posterior(grid, log_mass).modes(3)
    assert [mode.pose.heading_deg for mode in modes] == [0, 180]
    assert [mode.mass for mode in modes] == approx([0.7, 0.3], abs=1e-5)


@given(seeds)
def test_the_mass_of_the_modes_is_never_more_than_one(seed):
    modes = random_posterior((9, 7, 8), seed).modes(50, radius_m=1.0)
    assert sum(mode.mass for mode in modes) <= 1 + 1e-5
    assert all(mode.pose.heading_deg is not None for mode in modes)


def test_samples_follow_the_distribution_and_fill_cells_and_bins():
    grid = grid_of((2, 2, 4), cell_m=2)
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[0, 0, 0] = math.log(0.75)
    log_mass[1, 1, 2] = math.log(0.25)
    poses = Posterior(grid, log_mass).sample(4000, np.random.default_rng(0))
    index = [grid.index_of(pose) for pose in poses]
    assert index.count((0, 0, 0)) == approx(3000, abs=150)
    assert index.count((1, 1, 2)) == 4000 - index.count((0, 0, 0))
    first = [pose for pose in poses if pose.y_m > -42]
    x_m = np.array([pose.x_m for pose in first])
    turns_deg = np.array([(pose.heading_deg + 180) % 360 - 180 for pose in first])
    # uniform over 2 m and over 90 degrees centred on north
    assert (x_m.mean(), x_m.std()) == approx((101, 2 / math.sqrt(12)), abs=0.05)
    assert (turns_deg.mean(), turns_deg.std()) == approx((0, 90 / math.sqrt(12)), abs=2)
    assert (turns_deg.min(), turns_deg.max()) == approx((-45, 45), abs=1)


def test_sampling_is_reproducible_and_without_headings_has_none(map_grid):
    posterior = Posterior.flat(PoseGrid(map_grid, 1))
    a, b = (posterior.sample(5, np.random.default_rng(7)) for _ in range(2))
    assert a == b
    assert all(pose.heading_deg is None for pose in a)


# -------------------------------------------------------------------- peak


def test_the_peak_is_between_cells_and_bins_that_share_the_mass():
    grid = PoseGrid(MapGrid(LocalFrame(50.0, 8.0), 0.0, 4.0, 0.5, 8, 8), 360)
    log_mass = np.full(grid.shape, -np.inf, np.float32)
    log_mass[3, 2, 10], log_mass[3, 3, 11] = math.log(0.75), math.log(0.25)
    peak = Posterior(grid, log_mass).peak()
    assert (peak.x_m, peak.y_m) == approx((1.25 + 0.25 * 0.5, 4.0 - 1.75))
    assert peak.heading_deg == approx(10.25)


def test_the_peak_ignores_other_modes_and_wraps_around_north():
    grid = PoseGrid(MapGrid(LocalFrame(50.0, 8.0), 0.0, 10.0, 0.5, 20, 20), 360)
    log_mass = np.full(grid.shape, -np.inf, np.float32)
    for row, col, k, mass in ((2, 2, 359, 0.3), (2, 2, 1, 0.3), (18, 18, 0, 0.2), (2, 2, 180, 0.2)):
        log_mass[row, col, k] = math.log(mass)
    peak = Posterior(grid, log_mass).peak()
    assert (peak.x_m, peak.y_m) == approx((1.25, 8.75))
    assert min(peak.heading_deg, 360 - peak.heading_deg) == approx(0.0, abs=1e-6)


def test_the_peak_of_a_posterior_without_headings_has_none():
    grid = PoseGrid(MapGrid(LocalFrame(50.0, 8.0), 0.0, 4.0, 0.5, 8, 8), 1)
    assert Posterior.flat(grid).peak().heading_deg is None
