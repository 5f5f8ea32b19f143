"""Drives against a dense hidden Markov model, and through made-up towns whose answer is known."""

import functools
import itertools
import logging
import math

import numpy as np
import pytest
from pytest import approx

from crossview import evidence
from crossview.errors import ImpossibleEvidenceError, MapOutsideError
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localizer
from crossview.posterior import Posterior
from crossview.tracking import Tracker, aligned, odometry

FRAME = LocalFrame(-35.28, 149.13)
NORTH_4 = Motion(forward_m=4, sigma_m=0.3, sigma_deg=2)


def grid_of(height, width, num_headings, *, west_m=0.0, north_m=0.0, cell_m=1.0):
    return PoseGrid(MapGrid(FRAME, west_m, north_m, cell_m, height, width), num_headings)


def square(radius_m, num_headings=16, cell_m=1.0):
    return PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=radius_m, cell_m=cell_m), num_headings)


def mass_of(posterior):
    return np.exp(posterior.log_mass.astype(float))


def peak_at(query, grid, posterior, *, sigma_m=2.0, sigma_deg=20.0, height=8.0):
    """A matcher whose query is the true pose: a bump there over a floor of 0 everywhere."""
    center_x, center_y = grid.map.centers()
    distance_m = np.hypot(center_x[None] - query.x_m, center_y[:, None] - query.y_m)[:, :, None]
    turn_deg = (grid.headings_deg - query.heading_deg + 180) % 360 - 180
    bump = np.exp(-0.5 * (distance_m / sigma_m) ** 2 - 0.5 * (turn_deg / sigma_deg) ** 2)
    return height * bump


def replay(query, grid, posterior):
    """A matcher whose query is the answer."""
    return query


def flat_match(query, grid, posterior):
    return 0.0


def driven(start, motions):
    """The true poses and the drive that a matcher with poses for queries sees."""
    poses = list(itertools.accumulate(motions, Pose.moved, initial=start))
    return poses, list(zip(poses, [None, *motions], strict=True))


def distance_m(pose, other):
    return math.hypot(pose.x_m - other.x_m, pose.y_m - other.y_m)


def turned_by_deg(pose, other):
    return abs((pose.heading_deg - other.heading_deg + 180) % 360 - 180)


# ---------------------------------------------------------------- a dense hidden Markov model


def offset_of(grid, target):
    """Cells from the corner of one grid to that of another: (rows, cols)."""
    cell_m = grid.map.cell_m
    rows = (grid.map.north_m - target.map.north_m) / cell_m
    return round(rows), round((target.map.west_m - grid.map.west_m) / cell_m)


def cut(mass, grid, target):
    """(rows, cols, headings) of one grid as cells of another, by hand; what is outside is lost."""
    row, col = offset_of(grid, target)
    result = np.zeros(target.shape)
    for r, c in np.ndindex(target.map.shape):
        if 0 <= r + row < grid.map.height and 0 <= c + col < grid.map.width:
            result[r, c] = mass[r + row, c + col]
    return result


def one_hot(grid, index):
    log_mass = np.full(grid.shape, -np.inf)
    log_mass[index] = 0.0
    return Posterior(grid, log_mass)


def moved_mass(posterior, motion):
    result = posterior.moved(motion)
    return result.grid, mass_of(result) * math.exp(result.log_evidence - posterior.log_evidence)


def transition(grid, target, motion):
    """(poses after, poses before): Posterior.moved of every state, with room enough around it.

    Displaced, cut to the grid and only then blurred and turned, as moved does it.
    """
    wide = PoseGrid(grid.map.padded(20), grid.num_headings)
    matrix = np.zeros((math.prod(target.shape), math.prod(grid.shape)))
    noise = Motion(turn_deg=motion.turn_deg, sigma_m=motion.sigma_m, sigma_deg=motion.sigma_deg)
    blurs = {}
    for column, index in enumerate(np.ndindex(grid.shape)):
        row, col = offset_of(wide, grid)
        start = one_hot(wide, (index[0] + row, index[1] + col, index[2]))
        reached, mass = moved_mass(start, Motion(motion.forward_m, motion.right_m))
        displaced = cut(mass, reached, target)
        for place in zip(*np.nonzero(displaced), strict=True):
            if place not in blurs:
                blurs[place] = moved_mass(one_hot(target, place), noise)[1]
            matrix[:, column] += displaced[place] * blurs[place].ravel()
    return matrix


def forward_backward(prior, likelihoods, matrices):
    """Textbook filter and smoother in float64: (filtered, smoothed, log evidence)."""
    alphas, log_evidence = [], 0.0
    for likelihood, matrix in zip(likelihoods, [np.eye(prior.size), *matrices], strict=True):
        joint = likelihood.ravel() * (matrix @ (alphas[-1] if alphas else prior.ravel()))
        log_evidence += math.log(joint.sum())
        alphas.append(joint / joint.sum())
    betas = [np.ones(prior.size)]
    for likelihood, matrix in zip(likelihoods[:0:-1], matrices[::-1], strict=True):
        betas.append(matrix.T @ (likelihood.ravel() * betas[-1]))
    products = [a * b for a, b in zip(alphas, betas[::-1], strict=True)]
    return alphas, [p / p.sum() for p in products], log_evidence


MOTIONS = (
    Motion(forward_m=1.3, right_m=0.4, turn_deg=50, sigma_m=0.4, sigma_deg=20),
    Motion(forward_m=-2.2, turn_deg=-100, sigma_m=0.9, sigma_deg=5),
    Motion(right_m=1.6, turn_deg=10),
    Motion(forward_m=0.7, sigma_deg=30),
)


@functools.cache
def hidden_markov(kidnap_probability, num_headings):
    """A drive on a tiny grid by the tracker, and by dense matrices: (steps, smoothed, oracle)."""
    rng = np.random.default_rng(5)
    grid = grid_of(4, 5, num_headings, west_m=3, north_m=7)
    # more to the east than elsewhere, so that the grid does follow
    prior = Posterior.flat(grid).update(rng.normal(0, 1, grid.shape))
    if num_headings > 1:
        prior = prior.update(evidence.compass(grid, 100, sigma_deg=30))
    prior = Posterior(grid, prior.log_mass)
    scores = [rng.normal(0, 2, grid.shape) for _ in range(5)]
    tracker = Tracker(replay, kidnap_probability=kidnap_probability, correlation_m=0)
    drive = list(zip(scores, [None, *MOTIONS], strict=True))
    steps = list(tracker.filtered(drive, prior))
    grids = [step.posterior.grid for step in steps]
    size = math.prod(grid.shape)
    matrices = [
        (1 - kidnap_probability) * transition(before, after, motion) + kidnap_probability / size
        for (before, after), motion in zip(itertools.pairwise(grids), MOTIONS, strict=True)
    ]
    oracle = forward_backward(mass_of(prior), [np.exp(score) for score in scores], matrices)
    return steps, tracker.smoothed(drive, prior), oracle


models = pytest.mark.parametrize(
    "kidnap_probability, num_headings", [(0.0, 8), (0.03, 8), (0.0, 1), (0.2, 1)]
)


@models
def test_the_filter_agrees_with_a_dense_hidden_markov_model(kidnap_probability, num_headings):
    steps, _, (expected, _, log_evidence) = hidden_markov(kidnap_probability, num_headings)
    for step, alpha in zip(steps, expected, strict=True):
        assert mass_of(step.posterior).ravel() == approx(alpha, abs=1e-5)
    assert steps[-1].posterior.log_evidence == approx(log_evidence, abs=1e-4)


@models
def test_the_smoother_agrees_with_a_dense_hidden_markov_model(kidnap_probability, num_headings):
    steps, smoothed, (_, expected, log_evidence) = hidden_markov(kidnap_probability, num_headings)
    for step, posterior, gamma in zip(steps, smoothed, expected, strict=True):
        assert posterior.grid == step.posterior.grid
        assert mass_of(posterior).ravel() == approx(gamma, abs=1e-5)
        assert posterior.log_evidence == approx(log_evidence, abs=1e-4)


def test_the_grids_of_that_drive_follow_the_car():
    steps, _, _ = hidden_markov(0.0, 8)
    assert len({step.posterior.grid for step in steps}) > 2


def test_a_gap_is_its_own_adjoint():
    """Smoothing over a gap: the dense matrix of the gap, built state by state."""
    grid, rng = grid_of(5, 4, 4), np.random.default_rng(0)
    tracker = Tracker(replay, kidnap_probability=0.1, max_gap_m=2.0)
    scores = [rng.normal(0, 2, grid.shape) for _ in range(2)]
    spread = Motion(sigma_m=1.0)
    matrix = np.zeros((80, 80))
    for column, index in enumerate(np.ndindex(grid.shape)):
        lost = one_hot(PoseGrid(grid.map, 1), (index[0], index[1], 0))
        matrix[:, column] = np.repeat(moved_mass(lost, spread)[1].ravel() / 4, 4)
    prior = Posterior.flat(grid)
    _, expected, log_evidence = forward_backward(
        mass_of(prior), [np.exp(score) for score in scores], [0.9 * matrix + 0.1 / 80]
    )
    smoothed = tracker.smoothed([(scores[0], None), (scores[1], None)], prior)
    assert np.stack([mass_of(p).ravel() for p in smoothed]) == approx(np.stack(expected), abs=1e-5)
    assert smoothed[0].log_evidence == approx(log_evidence, abs=1e-5)


# ---------------------------------------------------------------- frames as they come


def test_the_filter_takes_one_frame_at_a_time():
    taken = []

    def endless():
        for index in itertools.count():
            taken.append(index)
            yield Pose(0, 0, 0), Motion()

    steps = Tracker(peak_at).filtered(endless(), Posterior.flat(square(3)))
    assert taken == []
    next(steps)
    assert taken == [0]
    next(steps)
    assert taken == [0, 1]


def test_the_filter_is_the_loop_of_the_design():
    _, drive = driven(Pose(0, 0, 0), [NORTH_4] * 3)
    posterior = Posterior.flat(square(12))
    for (query, motion), step in zip(
        drive,
        Tracker(peak_at, kidnap_probability=0, correlation_m=0).filtered(drive, posterior),
        strict=True,
    ):
        posterior = posterior.moved(motion) if motion else posterior
        posterior = posterior.update(peak_at(query, posterior.grid, posterior))
        assert step.posterior.log_mass == approx(posterior.log_mass, abs=1e-5)
        assert step.posterior.grid == posterior.grid


def test_the_matcher_gets_the_prediction_and_its_grid():
    seen = []

    def watching(query, grid, posterior):
        seen.append((grid, posterior.mode()))
        return peak_at(query, grid, posterior)

    _, drive = driven(Pose(0.5, 0.5, 0), [NORTH_4])
    prior = Posterior.flat(square(10)).update(peak_at(Pose(0.5, 0.5, 0), square(10), None) * 3)
    (_, step) = Tracker(watching, kidnap_probability=1e-6).filtered(drive, prior)
    assert seen[1][0] == step.posterior.grid
    assert seen[1][1] == Pose(0.5, 4.5, 0)


def test_the_motion_of_the_first_frame_is_not_used():
    prior = Posterior.flat(square(4))
    for motion in (None, Motion(forward_m=3)):
        (step,) = Tracker(flat_match).filtered([("", motion)], prior)
        assert step.posterior.grid == prior.grid
        assert step.motion == Motion()


def test_no_frames_give_no_posteriors():
    assert Tracker(flat_match).smoothed([], Posterior.flat(square(2))) == []


def test_steps_cannot_be_written_to():
    (step,) = Tracker(peak_at).filtered([(Pose(0, 0, 0), None)], Posterior.flat(square(3)))
    with pytest.raises(ValueError, match="read-only"):
        step.evidence[0] = 1


def test_a_localizer_is_a_matcher():
    class Matcher:
        cell_m, num_headings, reach_m, scale, map_parts = 1.0, 16, 5.0, 1.0, 1

        def log_likelihood(self, query, map_raster, grid, *, headings=None):
            assert map_raster == grid.map.padded(5)
            return peak_at(query, grid, None)

    poses, drive = driven(Pose(0.5, 0.5, 90), [NORTH_4] * 4)
    tracker = Tracker(Localizer(maps=lambda grid: grid, matcher=Matcher()).match)
    smoothed = tracker.smoothed(drive, Posterior.flat(square(12)))
    assert distance_m(smoothed[-1].mode(), poses[-1]) < 1


# ---------------------------------------------------------------- tempering


def test_evidence_counts_in_proportion_to_the_way():
    tracker = Tracker(flat_match, correlation_m=8, evidence_scale=0.5)
    assert tracker.weight(Motion(forward_m=3, right_m=-4)) == approx(0.5 * 5 / 8)
    assert tracker.weight(Motion(forward_m=-80)) == 0.5
    assert tracker.weight(Motion(turn_deg=90)) == 0
    assert tracker.weight(None) == 0.5


def test_without_correlation_every_frame_counts_in_full():
    assert Tracker(flat_match, correlation_m=0).weight(Motion()) == 1


def test_the_first_frame_counts_in_full_and_later_ones_by_their_way():
    _, drive = driven(Pose(0, 0, 0), [Motion(forward_m=1), Motion(forward_m=100)])
    tracker = Tracker(peak_at, correlation_m=4, evidence_scale=0.5, max_gap_m=200)
    steps = list(tracker.filtered(drive, Posterior.flat(square(9))))
    for (query, _), step, weight in zip(drive, steps, (0.5, 0.125, 0.5), strict=True):
        scores = peak_at(query, step.posterior.grid, None)
        assert step.evidence == approx(weight * scores, abs=1e-5)


def test_a_standing_car_is_neither_surer_nor_lost_for_being_filmed():
    drive = [(Pose(0.5, 0.5, 0), Motion())] * 50
    steps = list(Tracker(peak_at).filtered(drive, Posterior.flat(square(9))))
    first, last = steps[0].posterior, steps[-1].posterior
    assert last.log_mass == approx(first.log_mass, abs=1e-5)


def test_evidence_that_excludes_is_not_asked_when_nothing_is_new():
    """0 times -inf would be no number."""

    def exclusive(query, grid, posterior):
        return evidence.disc(grid, 0, 0, radius_m=3)

    drive = [("", Motion())] * 3
    steps = list(Tracker(exclusive).filtered(drive, Posterior.flat(square(5))))
    assert np.isfinite(steps[-1].posterior.log_evidence)


def test_a_street_counts_the_same_however_often_it_is_filmed():
    def total(frames):
        _, drive = driven(Pose(0, -6, 0), [Motion(forward_m=12 / frames)] * frames)
        tracker = Tracker(peak_at, kidnap_probability=0.05, correlation_m=4)
        *_, last = tracker.filtered(drive, Posterior.flat(square(14)))
        return last.posterior.log_mass.max()

    assert total(12) == approx(total(3), abs=0.3)


# ---------------------------------------------------------------- robustness


strong = functools.partial(peak_at, height=12)


def kidnapped_drive():
    """Six frames to the north, then the camera is 20 m to the east and looks south."""
    before, first = driven(Pose(-10, -14, 0), [NORTH_4] * 5)
    after, second = driven(Pose(10, 6, 180), [NORTH_4] * 4)
    return [*before, *after], [*first, (after[0], NORTH_4), *second[1:]]


def test_a_kidnapped_camera_is_found_again_within_a_few_frames():
    poses, drive = kidnapped_drive()
    steps = list(Tracker(strong).filtered(drive, Posterior.flat(square(40))))
    found = [distance_m(s.posterior.mode(), p) for s, p in zip(steps, poses, strict=True)]
    assert max(found[2:6]) < 1.5
    assert found[6] > 10
    assert max(found[8:]) < 2


def test_hindsight_finds_the_kidnapping_itself():
    poses, drive = kidnapped_drive()
    smoothed = Tracker(strong).smoothed(drive, Posterior.flat(square(40)))
    found = [distance_m(s.mode(), p) for s, p in zip(smoothed, poses, strict=True)]
    assert max(found) < 2


def test_kidnapping_leads_to_places_that_the_prior_excluded():
    grid = square(20)
    prior = Posterior.flat(grid).update(evidence.disc(grid, -10, 0, radius_m=5))
    drive = [(Pose(-10, 0, 0), None), *[(Pose(10, 0, 0), Motion(sigma_m=0.1))] * 3]
    *_, last = Tracker(peak_at, correlation_m=0).filtered(drive, prior)
    assert distance_m(last.posterior.mode(), Pose(10, 0)) < 1.5


def test_a_gap_spreads_the_mass_and_forgets_the_heading():
    grid = square(60, cell_m=2.0)
    prior = one_hot(grid, (30, 30, 3))
    tracker = Tracker(flat_match, kidnap_probability=0, max_gap_m=20)
    _, step = tracker.filtered([("", None), ("", None)], prior)
    assert step.motion is None
    assert step.posterior.heading() == approx(np.full(16, 1 / 16), abs=1e-6)
    x_m, y_m = grid.map.to_xy(30.5, 30.5)
    # two standard deviations of a normal distribution in the plane
    assert step.posterior.probability_within(20, x_m, y_m) == approx(1 - math.exp(-2), abs=0.02)


def test_a_gap_is_bridged_by_the_evidence_after_it():
    poses, drive = driven(Pose(-10, -10, 0), [NORTH_4, Motion(12, 5, 90), NORTH_4, NORTH_4])
    drive[2] = (poses[2], None)
    steps = list(Tracker(peak_at, max_gap_m=20).filtered(drive, Posterior.flat(square(30))))
    assert distance_m(steps[-1].posterior.mode(), poses[-1]) < 1.5
    assert turned_by_deg(steps[-1].posterior.mode(), poses[-1]) < 12


@pytest.mark.parametrize(
    "limit_m, message", [(50, "longer than max_gap_m, 50"), (5000, "off the grid")]
)
def test_an_impossible_jump_is_a_gap_with_a_warning(caplog, limit_m, message):
    poses, drive = driven(Pose(0, 0, 0), [NORTH_4, NORTH_4])
    drive[1] = (poses[1], Motion(forward_m=900))
    tracker = Tracker(peak_at, max_gap_m=limit_m)
    # no heading stands out, so the grid does not follow the jump
    prior = Posterior.flat(square(20))
    weak = [(Pose(500, 500, 0), None), *drive[1:]]
    with caplog.at_level(logging.WARNING):
        steps = list(tracker.filtered(weak, prior))
    assert [step.motion is None for step in steps] == [False, True, False]
    assert message in caplog.text
    assert "Frame 1" in caplog.text
    assert distance_m(steps[-1].posterior.mode(), poses[-1]) < 1.5


def test_a_jump_does_not_carry_the_grid_away():
    poses, drive = driven(Pose(0, 0, 0), [NORTH_4, NORTH_4])
    drive[1] = (poses[1], Motion(forward_m=900))
    prior = Posterior.flat(square(20)).update(evidence.compass(square(20), 0, sigma_deg=5))
    *_, last = Tracker(peak_at).filtered(drive, prior)
    assert distance_m(last.posterior.mode(), poses[-1]) < 1.5


def test_a_frame_that_excludes_everything_adds_nothing(caplog):
    prior = Posterior.flat(square(5))
    scores = [np.zeros((1, 1, 1)), np.full((1, 1, 1), -np.inf), np.zeros((1, 1, 1))]
    drive = [(score, Motion(forward_m=1, sigma_m=0.1)) for score in scores]
    with caplog.at_level(logging.WARNING):
        steps = list(Tracker(replay).filtered(drive, prior))
    assert (steps[1].evidence == 0).all()
    assert "Frame 1 adds nothing" in caplog.text
    assert len(Tracker(replay).smoothed(drive, prior)) == 3


def test_without_kidnapping_a_frame_that_excludes_everything_is_refused():
    drive = [(np.full((1, 1, 1), -np.inf), None)]
    with pytest.raises(ImpossibleEvidenceError, match="widen the prior"):
        list(Tracker(replay, kidnap_probability=0).filtered(drive, Posterior.flat(square(5))))


def test_a_drive_off_the_map_goes_by_odometry(caplog):
    def until(query, grid, posterior):
        if query is None:
            raise MapOutsideError("The map ends here.")
        return peak_at(query, grid, posterior)

    poses, drive = driven(Pose(0, 0, 0), [NORTH_4] * 2)
    drive[1:] = [(None, motion) for _, motion in drive[1:]]
    prior = Posterior.flat(square(12)).update(peak_at(poses[0], square(12), None))
    with caplog.at_level(logging.WARNING):
        *_, last = Tracker(until).filtered(drive, prior)
    assert distance_m(last.posterior.mode(), poses[-1]) < 1.5
    assert "Frame 2 is off the map" in caplog.text
    with pytest.raises(MapOutsideError):
        list(Tracker(until).filtered([(None, None)], prior))


def test_evidence_that_is_not_a_number_is_a_bug():
    drive = [(np.full((1, 1, 1), np.nan), None)]
    with pytest.raises(ValueError, match="NaN"):
        list(Tracker(replay).filtered(drive, Posterior.flat(square(3))))


# ---------------------------------------------------------------- ambiguity


def streets(query, grid, posterior, *, corner_x=12.0):
    """A town of two parallel streets; only on the southern one a street leads north, at x = 12.

    Both ways along a street look alike; the query says nothing more than "a street".
    """
    x, y = np.meshgrid(*grid.map.centers())
    along_x = np.minimum(np.abs(y), np.abs(y - 30))
    beside_corner = np.where(np.abs(y - 7) <= 8, np.abs(x - corner_x), np.inf)
    heading = np.radians(grid.headings_deg)
    east = -0.5 * along_x[:, :, None] ** 2 - 8 * np.cos(heading) ** 2
    north = -0.5 * beside_corner[:, :, None] ** 2 - 8 * np.sin(heading) ** 2
    return np.maximum(np.maximum(east, north), -12.0)


def test_two_streets_alike_are_told_apart_by_driving_around_a_corner():
    """All headings, anywhere within 40 m: on which street, where, and which way?"""
    step = Motion(forward_m=4, sigma_m=0.2, sigma_deg=2)
    corner = Motion(forward_m=4, turn_deg=-90, sigma_m=0.2, sigma_deg=2)
    poses, drive = driven(Pose(-12, 0, 90), [step] * 5 + [corner] + [step] * 3)
    grid = square(44)
    prior = Posterior.flat(grid).update(evidence.disc(grid, 0, 10, radius_m=40))
    tracker = Tracker(streets, correlation_m=4)
    steps = list(tracker.filtered(drive, prior))
    straight = steps[5].posterior
    assert straight.probability_within(4, poses[5].x_m, poses[5].y_m) < 0.2
    # alike: the same place on the other street
    alias = straight.probability_within(4, poses[5].x_m, poses[5].y_m + 30)
    assert alias == approx(straight.probability_within(4, poses[5].x_m, poses[5].y_m), rel=0.5)
    end = steps[-1].posterior
    assert end.probability_within(4, poses[-1].x_m, poses[-1].y_m) > 0.8
    # and hindsight knows it all the way back
    start = tracker.smoothed(drive, prior)[0]
    assert start.probability_within(5, poses[0].x_m, poses[0].y_m) > 0.8
    assert turned_by_deg(start.mode(), poses[0]) < 15


def test_turning_the_world_turns_filter_and_smoother():
    rng = np.random.default_rng(3)
    grid = square(4, num_headings=8)
    scores = [rng.normal(0, 2, grid.shape) for _ in range(4)]
    motions = [None, *MOTIONS[:3]]

    def turned(volume):  # a quarter clockwise: every heading grows by two bins of 45
        return np.roll(np.rot90(volume, k=-1), 2, axis=2)

    tracker = Tracker(replay, correlation_m=2)
    prior = Posterior.flat(grid)
    straight = tracker.smoothed(zip(scores, motions, strict=True), prior)
    around = tracker.smoothed(zip(map(turned, scores), motions, strict=True), prior)
    for a, b in zip(straight, around, strict=True):
        assert mass_of(b) == approx(turned(mass_of(a)), abs=1e-5)
        assert b.log_evidence == approx(a.log_evidence, abs=1e-4)


# ---------------------------------------------------------------- lag


def test_a_lag_longer_than_the_drive_is_the_smoother():
    _, drive = kidnapped_drive()
    tracker, prior = Tracker(peak_at), Posterior.flat(square(24))
    for a, b in zip(
        tracker.lagged(drive, prior, lag=100), tracker.smoothed(drive, prior), strict=True
    ):
        assert a.log_mass == approx(b.log_mass, abs=1e-6)
        assert a.grid == b.grid


@pytest.mark.parametrize("lag", [1, 2, 3, 4])
def test_a_lagged_frame_knows_at_least_lag_frames_more(lag):
    """Every answer is that of a smoother over a drive which ends lag frames later, or more."""
    poses, drive = kidnapped_drive()
    tracker, prior = Tracker(peak_at), Posterior.flat(square(24))
    found = list(tracker.lagged(drive, prior, lag=lag))
    assert len(found) == len(poses)
    for index, posterior in enumerate(found):
        ends = range(min(index + lag + 1, len(poses)), min(index + 2 * lag, len(poses)) + 1)
        seen = [tracker.smoothed(drive[:end], prior)[index] for end in ends]
        errors = [np.abs(mass_of(posterior) - mass_of(s)).max() for s in seen]
        assert min(errors) < 1e-5


def test_lagged_answers_come_while_the_drive_goes_on():
    endless = ((Pose(0, 0, 0), Motion(forward_m=0.1)) for _ in itertools.count())
    lagged = Tracker(peak_at).lagged(endless, Posterior.flat(square(3)), lag=3)
    assert len(list(itertools.islice(lagged, 10))) == 10


# ---------------------------------------------------------------- rigid alignment


DETOUR = [Motion(5, 1, 30), Motion(6, 0, -75), Motion(4.4, 0, 10), Motion(7, 0, 0)]


def test_alignment_finds_the_placement_of_a_drive():
    start = Pose(3.5, -4.5, 60)
    poses, drive = driven(start, DETOUR)
    steps = Tracker(peak_at, correlation_m=0).filtered(drive, Posterior.flat(square(40)))
    prior = Posterior.flat(square(20, num_headings=72))
    alignment = aligned(steps, prior)
    assert alignment.posterior.mode() == start
    for pose, expected in zip(alignment.poses, poses, strict=True):
        assert distance_m(pose, expected) < 1e-6
        assert turned_by_deg(pose, expected) < 1e-6


def test_alignment_sums_the_evidence_at_the_moved_poses():
    """Brute force: every placement, every frame, interpolated linearly by hand."""
    rng = np.random.default_rng(8)
    seen = grid_of(7, 8, 8, west_m=-2, north_m=4)
    scores = [rng.normal(0, 1, seen.shape) for _ in range(3)]
    motions = [None, Motion(1.2, 0.3, 20), Motion(0.4, -1.0, 70)]
    tracker = Tracker(replay, correlation_m=0, kidnap_probability=0.5)
    steps = list(tracker.filtered(zip(scores, motions, strict=True), Posterior.flat(seen)))
    prior = Posterior.flat(grid_of(4, 4, 12, west_m=-0.3, north_m=2.2, cell_m=0.7))
    expected = np.zeros(prior.grid.shape)
    for index in np.ndindex(prior.grid.shape):
        pose = prior.grid.pose_at(*index)
        for score, step, motion in zip(scores, steps, motions, strict=True):
            pose = pose.moved(motion) if motion else pose
            ratio = np.exp(score) / np.exp(score).mean()
            value = trilinear(ratio, step.posterior.grid, pose)
            expected[index] += math.log(0.98 * value + 0.02)
    found = aligned(steps, prior, outlier_probability=0.02).posterior
    expected -= np.logaddexp.reduce(expected, axis=None)
    assert found.log_mass == approx(expected, abs=1e-4)


def trilinear(ratio, grid, pose):
    """Between the centres of eight cells and bins; 1 outside of the grid."""
    col, row = grid.map.to_pixel(pose.x_m, pose.y_m)
    total = 0.0
    for r, c, k in itertools.product(*[(0, 1)] * 3):
        position = np.array([row - 0.5, col - 0.5, pose.heading_deg * grid.num_headings / 360])
        cell = np.floor(position) + np.array([r, c, k])
        weight = np.prod(1 - np.abs(position - cell))
        inside = 0 <= cell[0] < grid.map.height and 0 <= cell[1] < grid.map.width
        at = int(cell[0]), int(cell[1]), int(cell[2]) % grid.num_headings
        total += weight * (ratio[at] if inside else 1.0)
    return total


def test_one_bad_frame_does_not_exclude_a_placement():
    start = Pose(0.5, 0.5, 0)
    _, drive = driven(start, DETOUR)
    drive[2] = (Pose(-30, 12, 90), drive[2][1])
    steps = Tracker(
        functools.partial(peak_at, height=40), correlation_m=0, kidnap_probability=0.01
    ).filtered(drive, Posterior.flat(square(40)))
    assert aligned(steps, Posterior.flat(square(10, 72))).posterior.mode() == start


def test_alignment_refuses_a_gap_and_a_prior_without_headings():
    prior = Posterior.flat(square(5))
    tracker = Tracker(flat_match)
    drive = [("", None), ("", Motion(forward_m=1)), ("", None)]
    with pytest.raises(ValueError, match=r"Frame 2 follows a gap.*smoothed"):
        aligned(tracker.filtered(drive, prior), prior)
    with pytest.raises(ValueError, match=r"one bin of heading.*onto"):
        aligned([], Posterior.flat(square(5, num_headings=1)))
    with pytest.raises(ValueError, match="outlier_probability"):
        aligned([], prior, outlier_probability=1.0)


# ---------------------------------------------------------------- odometry and refusals


def test_odometry_is_noisier_the_longer_the_way():
    motion = odometry(8, 6, -20, distance_noise=0.05, heading_noise_deg=1.5, floor_m=0.2)
    assert (motion.forward_m, motion.right_m, motion.turn_deg) == (8, 6, -20)
    # 10 m: 0.5 m along, 0.26 m by the turn, and the floor
    sideways_m = 10 * math.radians(1.5)
    assert motion.sigma_m == approx(math.sqrt(0.5**2 + sideways_m**2 + 0.2**2))
    assert motion.sigma_deg == 1.5
    assert odometry(0).sigma_m == approx(0.2)


@pytest.mark.parametrize("name", ["distance_noise", "heading_noise_deg", "floor_m"])
def test_odometry_refuses_negative_noise(name):
    with pytest.raises(ValueError, match=rf"0 or more.*{name} -1"):
        odometry(1, **{name: -1})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kidnap_probability": 1}, r"\[0, 1\), got 1"),
        ({"kidnap_probability": math.nan}, "kidnap_probability"),
        ({"correlation_m": -1}, "Use 0"),
        ({"evidence_scale": 0}, "evidence_scale must be positive"),
        ({"max_gap_m": math.inf}, "max_gap_m must be positive and finite, got inf"),
    ],
)
def test_a_tracker_refuses_senseless_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Tracker(flat_match, **options)


def test_a_lag_of_nothing_is_refused_at_once():
    with pytest.raises(ValueError, match="lag must be 1 frame or more, got 0"):
        Tracker(flat_match).lagged([], Posterior.flat(square(2)), lag=0)
