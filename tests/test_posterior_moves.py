"""Posterior in motion (moved) and on other grids (onto), against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import evidence
from crossview.errors import FrameMismatchError, ImpossibleEvidenceError, VolumeTooLargeError
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.posterior import Posterior

FRAME = LocalFrame(-35.28, 149.13)
seeds = st.integers(0, 2**32 - 1)
bin_counts = st.sampled_from([1, 4, 8, 12, 16])


def grid_of(height, width, num_headings, *, west_m=0.0, north_m=0.0, cell_m=1.0):
    return PoseGrid(MapGrid(FRAME, west_m, north_m, cell_m, height, width), num_headings)


def random_posterior(grid, seed, *, margin=0):
    """Random mass, zero within a margin of cells from the border."""
    rng = np.random.default_rng(seed)
    mass = rng.random(grid.shape) ** 3
    if margin:
        inner = np.zeros(grid.map.shape)
        inner[margin:-margin, margin:-margin] = 1
        mass = mass * inner[:, :, None]
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass / mass.sum())
    return Posterior(grid, log_mass, log_evidence=float(rng.normal(0, 10)))


def certain(grid, row, col, k=0):
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[row, col, k] = 0.0
    return Posterior(grid, log_mass)


def mass_of(posterior):
    return np.exp(posterior.log_mass.astype(float))


# ---------------------------------------------------------------- onto


def shared_length(start_a, end_a, start_b, end_b):
    return max(0.0, min(end_a, end_b) - max(start_a, start_b))


def overlaps_m(source, target, edges):
    """Share of every source interval in every target interval, (target, source)."""
    return np.array(
        [
            [
                shared_length(*edges(source, i), *edges(target, j))
                for i in range(edges.count(source))
            ]
            for j in range(edges.count(target))
        ]
    )


class Columns:
    def __call__(self, cells, i):
        return cells.west_m + i * cells.cell_m, cells.west_m + (i + 1) * cells.cell_m

    def count(self, cells):
        return cells.width


class Rows:
    def __call__(self, cells, i):
        return cells.north_m - (i + 1) * cells.cell_m, cells.north_m - i * cells.cell_m

    def count(self, cells):
        return cells.height


def heading_shares(num_from, num_to):
    shares = np.zeros((num_to, num_from))
    for i in range(num_from):
        start, end = (i - 0.5) * 360 / num_from, (i + 0.5) * 360 / num_from
        for j in range(num_to):
            for turn in (-360, 0, 360):
                low, high = (j - 0.5) * 360 / num_to + turn, (j + 0.5) * 360 / num_to + turn
                shares[j, i] += shared_length(start, end, low, high) * num_from / 360
    return shares


def onto_by_hand(posterior, grid):
    """Mass by overlap in x, y and heading, not normalised."""
    source = posterior.grid.map
    return np.einsum(
        "ra,cb,kh,abh->rck",
        overlaps_m(source, grid.map, Rows()) / source.cell_m,
        overlaps_m(source, grid.map, Columns()) / source.cell_m,
        heading_shares(posterior.grid.num_headings, grid.num_headings),
        mass_of(posterior),
    )


targets = st.builds(
    grid_of,
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    num_headings=bin_counts,
    west_m=st.floats(-4, 4),
    north_m=st.floats(-4, 4),
    cell_m=st.sampled_from([0.3, 0.5, 1.0, 1.7, 3.0]),
)


@given(seeds, bin_counts, targets)
def test_onto_agrees_with_brute_force_overlap(seed, num_headings, target):
    posterior = random_posterior(grid_of(5, 6, num_headings), seed)
    expected = onto_by_hand(posterior, target)
    inside = expected.sum()
    if inside < 1e-6:
        return
    result = posterior.onto(target)
    assert result.grid == target
    assert mass_of(result) == approx(expected / inside, abs=1e-5)
    assert mass_of(result).sum() == approx(1, abs=1e-5)
    assert result.log_evidence == approx(posterior.log_evidence + math.log(inside), abs=1e-5)


def test_half_a_cell_to_the_east_splits_every_cell_in_two():
    posterior = certain(grid_of(1, 3, 1), 0, 1)
    assert mass_of(posterior.onto(grid_of(1, 3, 1, west_m=0.5))).ravel() == approx([0.5, 0.5, 0])


def test_a_window_is_placed_by_its_north_edge():
    posterior = certain(grid_of(4, 4, 1), 1, 2)
    window = grid_of(2, 2, 1, west_m=2, north_m=-1)
    assert mass_of(posterior.onto(window))[0, 0, 0] == approx(1)


@given(seeds, st.sampled_from([1, 8]), st.integers(1, 5), st.integers(1, 6))
def test_onto_a_partition_conserves_mass_through_the_evidence(seed, num_headings, row, col):
    grid = grid_of(6, 7, num_headings)
    posterior = random_posterior(grid, seed)
    parts = [
        grid_of(row, col, num_headings),
        grid_of(row, 7 - col, num_headings, west_m=col),
        grid_of(6 - row, col, num_headings, north_m=-row),
        grid_of(6 - row, 7 - col, num_headings, north_m=-row, west_m=col),
    ]
    log_evidences = [posterior.onto(part).log_evidence for part in parts]
    total = np.logaddexp.reduce(log_evidences)
    assert total == approx(posterior.log_evidence, abs=1e-5)
    # and a window's evidence is the mass it holds
    held = posterior.position()[:row, :col].sum()
    assert log_evidences[0] - posterior.log_evidence == approx(math.log(held), abs=1e-5)


@given(seeds)
def test_onto_its_own_grid_is_the_identity(seed):
    posterior = random_posterior(grid_of(4, 5, 8), seed)
    result = posterior.onto(grid_of(4, 5, 8))
    assert result.log_mass == approx(posterior.log_mass, abs=1e-5)
    assert result.log_evidence == approx(posterior.log_evidence, abs=1e-5)


@given(seeds, st.sampled_from([(8, 8), (4, 12), (8, 40), (1, 8)]))
def test_finer_cells_and_bins_and_back_is_the_identity_where_they_nest(seed, counts):
    """Centred bins nest in odd numbers: three of twelve in one of four, but not two of eight."""
    coarse, fine = counts
    posterior = random_posterior(grid_of(3, 4, coarse), seed)
    there = posterior.onto(grid_of(6, 8, fine, cell_m=0.5))
    back = there.onto(posterior.grid)
    assert mass_of(back) == approx(mass_of(posterior), abs=1e-5)
    assert back.log_evidence == approx(posterior.log_evidence, abs=1e-5)


def test_summing_out_headings_keeps_positions():
    posterior = random_posterior(grid_of(3, 4, 8), 5)
    assert posterior.onto(grid_of(3, 4, 1)).position() == approx(posterior.position(), abs=1e-6)


def test_update_before_or_after_a_window_is_the_same():
    posterior = random_posterior(grid_of(6, 6, 8), 1)
    scores = np.random.default_rng(2).normal(0, 5, (6, 6, 8))
    window = grid_of(3, 2, 8, west_m=2, north_m=-1)
    before = posterior.update(scores).onto(window)
    after = posterior.onto(window).update(scores[1:4, 2:4])
    assert before.log_mass == approx(after.log_mass, abs=1e-5)
    assert before.log_evidence == approx(after.log_evidence, abs=1e-5)


def test_a_window_does_not_make_the_improbable_impossible():
    """A window on the same cells is a crop: exp(-1000) is not zero in logs."""
    grid = grid_of(60, 60, 4)
    prior = Posterior.flat(grid).update(evidence.gaussian(grid, 5, -5, sigma_m=1.0))
    window = grid_of(50, 50, 4, west_m=2, north_m=-2)
    cropped = prior.onto(window)
    log_inside = cropped.log_evidence - prior.log_evidence
    assert cropped.log_mass == approx(prior.log_mass[2:52, 2:52] - log_inside, abs=1e-3)
    far = cropped.update(evidence.disc(window, 50, -50, radius_m=2))
    assert far.mean().x_m == approx(50, abs=2)


def test_cells_that_touch_only_by_rounding_do_not_share_mass():
    # 0.1 * 3 is not 0.3 in floats
    posterior = certain(grid_of(1, 10, 1, cell_m=0.1), 0, 2)
    window = grid_of(1, 5, 1, cell_m=0.1, west_m=0.1 * 3)
    with pytest.raises(ImpossibleEvidenceError):
        posterior.onto(window)


def test_a_grid_in_another_frame_is_refused():
    posterior = certain(grid_of(1, 1, 1), 0, 0)
    elsewhere = PoseGrid(MapGrid(LocalFrame(51.75, -1.26), 0, 0, 1, 1, 1), 1)
    with pytest.raises(FrameMismatchError, match=r"-35\.28.*51\.75"):
        posterior.onto(elsewhere)


def test_a_grid_where_no_mass_is_is_refused_with_both_places():
    posterior = certain(grid_of(2, 2, 1), 0, 0)
    with pytest.raises(ImpossibleEvidenceError, match="about the same place"):
        posterior.onto(grid_of(2, 2, 1, west_m=100))
    with pytest.raises(ImpossibleEvidenceError):
        posterior.onto(grid_of(1, 1, 1, west_m=1))


def test_a_target_volume_that_is_too_large_is_refused():
    with pytest.raises(VolumeTooLargeError):
        certain(grid_of(2, 2, 1), 0, 0).onto(grid_of(9000, 9000, 64, cell_m=0.01))


# ---------------------------------------------------------------- moved


def split(position):
    """The two whole numbers around a position and the share of each."""
    low = math.floor(position)
    return [(low, low + 1 - position), (low + 1, position - low)]


def moved_by_hand(posterior, motion, target):
    """Every cell and bin goes its way by area overlap; (rows, cols, headings) on target."""
    grid = posterior.grid
    num_headings, cell_m = grid.num_headings, grid.map.cell_m
    down_to_target = round((target.map.north_m - grid.map.north_m) / cell_m)
    right_to_target = round((grid.map.west_m - target.map.west_m) / cell_m)
    mass = np.zeros(target.shape)
    for (row, col, k), value in np.ndenumerate(mass_of(posterior)):
        heading = math.radians(k * 360 / num_headings)
        east_m = motion.forward_m * math.sin(heading) + motion.right_m * math.cos(heading)
        north_m = motion.forward_m * math.cos(heading) - motion.right_m * math.sin(heading)
        for to_row, row_share in split(row - north_m / cell_m + down_to_target):
            for to_col, col_share in split(col + east_m / cell_m + right_to_target):
                if not (0 <= to_row < target.map.height and 0 <= to_col < target.map.width):
                    continue
                for to_k, k_share in split(k + motion.turn_deg * num_headings / 360):
                    share = row_share * col_share * k_share
                    mass[to_row, to_col, to_k % num_headings] += value * share
    return mass


@given(
    seeds,
    st.floats(-0.7, 0.7),
    st.floats(-0.7, 0.7),
    st.floats(-400, 400),
    st.sampled_from([0.5, 2.0]),
)
def test_moved_agrees_with_brute_force(seed, forward, right, turn_deg, cell_m):
    """Displacements of less than a cell per bin, where a bin moves as its centre does."""
    posterior = random_posterior(grid_of(4, 5, 16, cell_m=cell_m, west_m=10, north_m=20), seed)
    motion = Motion(forward_m=forward * cell_m, right_m=right * cell_m, turn_deg=turn_deg)
    result = posterior.moved(motion)
    expected = moved_by_hand(posterior, motion, result.grid)
    held = expected.sum()
    assert mass_of(result) == approx(expected / held, abs=1e-5)
    assert result.log_evidence == approx(posterior.log_evidence + math.log(held), abs=1e-5)
    assert mass_of(result).sum() == approx(1, abs=1e-5)


@given(seeds, bin_counts)
def test_no_motion_is_the_identity(seed, num_headings):
    posterior = random_posterior(grid_of(4, 5, num_headings), seed)
    for motion in (Motion(), Motion(turn_deg=360.0), Motion(forward_m=1e-9, turn_deg=-1e-9)):
        result = posterior.moved(motion)
        assert result.grid == posterior.grid
        assert mass_of(result) == approx(mass_of(posterior), abs=1e-5)
        assert result.log_evidence == approx(posterior.log_evidence, abs=1e-5)


@pytest.mark.parametrize("k, expected", [(0, (0, 3)), (2, (3, 0)), (4, (0, -3)), (6, (-3, 0))])
def test_forward_goes_along_the_heading(k, expected):
    start = grid_of(9, 9, 8)
    mode = certain(start, 4, 4, k).moved(Motion(forward_m=3)).mode()
    assert (mode.x_m - 4.5, mode.y_m + 4.5) == approx(expected)
    assert mode.heading_deg == k * 45


@pytest.mark.parametrize("k, expected", [(0, (3, 0)), (2, (0, -3)), (4, (-3, 0)), (6, (0, 3))])
def test_right_goes_to_the_right_of_the_heading(k, expected):
    mode = certain(grid_of(9, 9, 8), 4, 4, k).moved(Motion(right_m=3)).mode()
    assert (mode.x_m - 4.5, mode.y_m + 4.5) == approx(expected)


def test_the_displacement_comes_before_the_turn():
    mode = certain(grid_of(9, 9, 8), 4, 4, 0).moved(Motion(forward_m=3, turn_deg=90)).mode()
    assert mode == Pose(4.5, -1.5, 90)


@given(st.integers(0, 15), st.floats(-9, 9), st.floats(-9, 9), st.integers(-16, 16))
def test_a_certain_pose_moves_as_a_pose_does(k, forward_m, right_m, sixteenths):
    grid = grid_of(25, 25, 16)
    start, motion = grid.pose_at(12, 12, k), Motion(forward_m, right_m, sixteenths * 22.5)
    expected = start.moved(motion)
    mean = certain(grid, 12, 12, k).moved(motion).mean()
    # a bin of 22.5 degrees is an arc, whose mean is nearer by up to sin(11.25) / 11.25 deg
    step = np.array([expected.x_m - start.x_m, expected.y_m - start.y_m])
    found = np.array([mean.x_m - start.x_m, mean.y_m - start.y_m])
    assert found == approx(step, abs=0.007 * np.linalg.norm(step) + 1e-4)
    assert (mean.heading_deg - expected.heading_deg + 180) % 360 - 180 == approx(0, abs=1e-4)


def test_the_grid_follows_the_camera_by_whole_cells():
    posterior = random_posterior(grid_of(20, 20, 4), 3, margin=6)
    posterior = posterior.update(evidence.compass(posterior.grid, 90, sigma_deg=8))
    for step in range(1, 6):
        posterior = posterior.moved(Motion(forward_m=7.3))
        west_m = posterior.grid.map.west_m
        assert west_m == approx(round(west_m), abs=1e-9)
        # the camera stays within half a cell per step of where it was in the grid
        assert posterior.mean().x_m - west_m == approx(10, abs=1 + 0.5 * step)
    assert posterior.grid.map.shape == (20, 20)
    assert posterior.grid.map.west_m > 20


def test_a_slow_drive_is_not_lost_to_rounding():
    """Steps of a tenth of a cell never shift the grid at once, and still add up."""
    grid = grid_of(9, 41, 4)
    posterior = certain(grid, 4, 4, 1)
    start_x = posterior.mean().x_m
    for _ in range(50):
        posterior = posterior.moved(Motion(forward_m=0.1))
    assert posterior.mean().x_m - start_x == approx(5, abs=0.01)


def test_what_falls_off_the_grid_is_charged_to_the_evidence():
    """Two opposite headings part company: the grid follows neither, and loses both ends."""
    grid = grid_of(1, 5, 4)
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[0, 0, 1] = math.log(0.5)  # to the east from the west end: stays
    log_mass[0, 0, 3] = math.log(0.5)  # to the west from the west end: falls off
    result = Posterior(grid, log_mass, log_evidence=-2.0).moved(Motion(forward_m=0.4))
    # 0.4 of the second falls off; nothing of the first does
    assert result.log_evidence == approx(-2 + math.log(1 - 0.5 * 0.4), abs=1e-5)
    assert mass_of(result).sum() == approx(1, abs=1e-5)


def test_a_motion_that_leaves_nothing_on_the_grid_is_refused():
    flat = Posterior.flat(grid_of(3, 3, 8))
    with pytest.raises(ImpossibleEvidenceError, match="leads off the grid"):
        flat.moved(Motion(forward_m=1000))


def test_turning_map_and_motion_together_turns_the_answer():
    posterior = random_posterior(grid_of(7, 7, 8), 4, margin=2)
    motion = Motion(forward_m=0.3, right_m=-0.2, turn_deg=30, sigma_m=0.5, sigma_deg=20)
    # a quarter turn clockwise: rows become columns, every heading grows by two bins of 45
    turned = Posterior(
        posterior.grid, np.roll(np.rot90(posterior.log_mass, k=-1), 2, axis=2), 0.0
    ).moved(motion)
    straight = posterior.moved(motion)
    # the motion is too small to shift the grid
    assert straight.grid.map == turned.grid.map == posterior.grid.map
    expected = np.roll(np.rot90(mass_of(straight), k=-1), 2, axis=2)
    assert mass_of(turned) == approx(expected, abs=1e-5)


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("sigma_m", [0.05, 0.1, 0.3, 0.4, 1.0, 3.0])
def test_noise_of_the_displacement_adds_its_variance_per_axis(sigma_m):
    posterior = certain(grid_of(81, 81, 1, cell_m=0.5), 40, 40)
    before = posterior.position_covariance_m2()
    for _ in range(3):
        posterior = posterior.moved(Motion(sigma_m=sigma_m))
    added = posterior.position_covariance_m2() - before
    assert added == approx(np.eye(2) * 3 * sigma_m**2, rel=0.01, abs=1e-4)


@pytest.mark.parametrize("sigma_deg", [0.5, 2.0, 4.0, 12.0])
def test_noise_of_the_turn_adds_its_variance(sigma_deg):
    posterior = certain(grid_of(1, 1, 64), 0, 0, 5)
    before = posterior.heading_std_deg() ** 2
    for _ in range(3):
        posterior = posterior.moved(Motion(sigma_deg=sigma_deg))
    assert posterior.heading_std_deg() ** 2 - before == approx(3 * sigma_deg**2, rel=0.01)


def test_turn_noise_goes_around_north():
    posterior = certain(grid_of(1, 1, 8), 0, 0, 0).moved(Motion(sigma_deg=60))
    heading = posterior.heading()
    assert heading[7] == approx(heading[1])
    assert heading[7] > heading[6] > heading[4]


def test_endless_turn_noise_makes_every_heading_equal():
    posterior = certain(grid_of(1, 1, 8), 0, 0, 3).moved(Motion(sigma_deg=1000))
    assert posterior.heading() == approx(np.full(8, 1 / 8), abs=1e-4)


def test_moved_agrees_with_monte_carlo():
    rng = np.random.default_rng(0)
    grid = PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=30, cell_m=0.5), 64)
    posterior = (
        Posterior.flat(grid)
        .update(evidence.gaussian(grid, 2, -3, sigma_m=2.5))
        .update(evidence.compass(grid, 20, sigma_deg=25))
    )
    motion = Motion(forward_m=8, right_m=1.5, turn_deg=40, sigma_m=0.7, sigma_deg=6)
    result = posterior.moved(motion)
    poses = [pose.moved(motion) for pose in posterior.sample(20_000, rng)]
    places = np.array([(pose.x_m, pose.y_m) for pose in poses]) + rng.normal(0, 0.7, (20_000, 2))
    headings = np.array([pose.heading_deg for pose in poses]) + rng.normal(0, 6, 20_000)
    mean = result.mean()
    assert (mean.x_m, mean.y_m) == approx(tuple(places.mean(axis=0)), abs=0.08)
    assert result.position_covariance_m2() == approx(np.cov(places.T), abs=0.35)
    turns = (headings - mean.heading_deg + 180) % 360 - 180
    assert turns.mean() == approx(0, abs=0.6)
    assert result.heading_std_deg() == approx(turns.std(), abs=0.6)
    # position and heading stay tied: those who looked farther right went farther right
    east_by_heading = mass_of(result).sum(axis=0).T @ grid_x(result)
    looked = result.heading()
    weighted = east_by_heading / looked
    right, left = round(85 * 64 / 360), round(35 * 64 / 360)
    near = [np.abs((headings - b * 360 / 64 + 180) % 360 - 180) < 360 / 128 for b in (right, left)]
    expected = [places[chosen, 0].mean() for chosen in near]
    assert weighted[[right, left]] == approx(expected, abs=0.5)
    assert expected[0] > expected[1] + 1


def grid_x(posterior):
    return posterior.grid.map.centers()[0]


def test_a_sampled_pose_is_still_possible_after_a_long_motion():
    """Mass is uniform inside a bin: 30 m away a bin of 22.5 degrees is an arc of 12 m."""
    posterior = certain(grid_of(41, 41, 16), 20, 20, 3)
    motion = Motion(forward_m=30)
    result = posterior.moved(motion)
    position = result.position()
    places = [pose.moved(motion) for pose in posterior.sample(300, np.random.default_rng(1))]
    possible = [position[result.grid.map.cell_of(place.x_m, place.y_m)] > 0 for place in places]
    assert np.mean(possible) > 0.95


# ---------------------------------------------------------------- unknown heading


def test_without_headings_a_displacement_becomes_a_ring():
    posterior = certain(grid_of(81, 81, 1), 40, 40).moved(Motion(forward_m=12, right_m=5))
    center_x, center_y = posterior.grid.map.centers()
    radius_m = np.hypot(center_x[None] - 40.5, center_y[:, None] + 40.5)
    position = posterior.position()
    assert posterior.grid.map == grid_of(81, 81, 1).map
    # hypot(12, 5) = 13, smeared by less than a cell's diagonal
    assert position[np.abs(radius_m - 13) > 1.5].sum() == approx(0, abs=1e-9)
    assert (position * radius_m).sum() == approx(13, abs=0.1)
    assert posterior.mean().x_m == approx(40.5, abs=1e-3)
    assert posterior.log_evidence == approx(0, abs=1e-6)


@pytest.mark.parametrize("distance_m", [5.0, 20.0])
def test_the_ring_has_no_gaps(distance_m):
    posterior = certain(grid_of(101, 101, 1, cell_m=0.5), 50, 50)
    result = posterior.moved(Motion(forward_m=distance_m))
    angle = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    col, row = result.grid.map.to_pixel(
        25.25 + distance_m * np.sin(angle), -25.25 + distance_m * np.cos(angle)
    )
    on_ring = result.position()[np.floor(row).astype(int), np.floor(col).astype(int)]
    assert (on_ring > 0).all()
    # and no direction is preferred
    position = result.position()
    assert position[:50].sum() == approx(position[51:].sum(), abs=1e-3)
    assert position[:, :50].sum() == approx(position[:, 51:].sum(), abs=1e-3)


def test_without_headings_a_turn_changes_nothing():
    posterior = random_posterior(grid_of(5, 5, 1), 2)
    result = posterior.moved(Motion(turn_deg=33, sigma_deg=5))
    assert mass_of(result) == approx(mass_of(posterior), abs=1e-6)
