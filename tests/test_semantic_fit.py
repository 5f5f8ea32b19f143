"""Fitting: what is counted, what is left out, and scores that are those of the matcher itself."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from pytest import approx

from crossview import (
    column_calibration,
    column_evidence,
    column_tables,
    column_trials,
    columns,
    semantic_fit,
)
from crossview.column_evidence import ColumnEvidence
from crossview.column_model import Calibration
from crossview.evidence import disc
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localizer
from crossview.posterior import Posterior
from crossview.semantic import SemanticMatcher
from crossview.synthetic.dataset import write_dataset
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.town import Town

SEGMENTER = PaletteSegmenter()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("town") / "dataset"
    return write_dataset(Town.from_seed(11), out, num_stations=4, seed=11)


@pytest.fixture(scope="module")
def samples(dataset):
    return column_tables.samples_of(dataset, SEGMENTER)


def test_samples_are_every_rig_with_its_photos_in_the_order_of_the_table(samples):
    names = [(sample.station, sample.is_rig) for sample in samples]
    expected = [(f"{k:03d}", rig) for k in range(4) for rig in (True, False, False, False, False)]
    assert names == expected


def test_samples_of_some_stations_only(dataset):
    found = column_tables.samples_of(dataset, SEGMENTER, stations="1-2")
    assert {sample.station for sample in found} == {"001", "002"}


def test_the_tables_count_the_rigs_pixels_once_and_in_their_place(samples):
    model = column_tables.tables(samples)
    seen = sum(int(sample.view.seen.sum()) for sample in samples if sample.is_rig)
    assert 0.9 * seen < model.counts.sum() <= seen + 1
    groups = {name: i for i, name in enumerate(columns.GROUPS)}
    ground, _, facade, _, sky = model.counts.sum(axis=1)
    # exact class images at exact poses: sky is above roofs, roads are before walls
    assert sky[groups["sky"]] > 0.9 * model.counts[..., groups["sky"]].sum()
    assert ground[groups["road"]] > 0.9 * model.counts[..., groups["road"]].sum()
    assert facade[groups["wall"]] > 0.5 * facade.sum()


def test_the_tables_know_how_far_walls_are_and_how_high(samples):
    model = column_tables.tables(samples)
    assert model.range_shares.sum() == approx(1.0)
    heights_m = (
        samples[0]
        .maps(MapGrid.around(samples[0].frame, 0, 0, radius_m=200, cell_m=2.0))
        .building_height_m
    )
    known = heights_m[heights_m > 0]
    assert known.min() < model.height_mean_m < known.max()


@pytest.mark.parametrize(("num_stations", "num_folds"), [(13, 3), (6, 3), (4, 2), (27, 5)])
def test_every_station_is_left_out_once_and_its_neighbours_are_not_trained_on(
    num_stations, num_folds
):
    stations = [str(k) for k in range(num_stations)]
    folds = list(column_calibration._folds(stations, num_folds))
    assert sorted(name for _, left_out in folds for name in left_out) == sorted(stations)
    for training, left_out in folds:
        assert training
        assert all(abs(int(a) - int(b)) > 1 for a in training for b in left_out)


def test_too_few_stations_for_the_folds_are_refused(samples):
    with pytest.raises(ValueError, match="4 stations with poses are too few for 3 stretches"):
        semantic_fit.fit(samples, SEGMENTER, num_folds=3)


@pytest.fixture(scope="module")
def bench(samples):
    chosen = [sample for sample in samples if sample.station == "000"][:2]
    model = column_tables.tables(samples)
    return column_calibration.Bench.of(chosen, {"000": model}, SEGMENTER, seed=3), model


def test_wrong_places_are_in_the_open_whether_heights_are_known_or_not(samples, bench):
    bare = replace(samples[0], maps=lambda grid: samples[0].maps(grid).without_heights())
    matcher = SemanticMatcher(SEGMENTER, bench[1])
    for seed in range(3):
        right, wrong = column_trials.places(samples[0], matcher, seed=seed)
        assert list(column_trials.places(bare, matcher, seed=seed)) == [right, wrong]
        middle = wrong.cells.cell_of(*wrong.center_m)
        assert not samples[0].maps(wrong.cells).class_mask("building")[middle]
        assert right.holds(samples[0].truth)
        assert not wrong.holds(samples[0].truth)


def test_a_rig_is_also_tried_on_a_map_that_knows_no_heights(bench):
    rig, _, _, _, bare, _ = bench[0].trials
    assert rig.sample.is_rig
    assert bare.sample.is_rig
    assert bare.place == rig.place
    for trial, has_heights in ((rig, True), (bare, False)):
        heights_m = trial.sample.maps(trial.place.cells).building_height_m
        assert np.isfinite(heights_m).all() == has_heights
    assert (bare.codes != rig.codes).any()


def above_a_place_with_heights(evidence, level):
    """ColumnEvidence.above, as if every place unknown had a known skyline."""
    shape = -1, column_evidence.UNKNOWN_RANGE + 1, column_evidence.UNKNOWN_SKYLINE + 1
    ratio = evidence.log_ratio.reshape(shape).copy()
    known = ratio[:, :-1, :-1].max(axis=(1, 2), keepdims=True)
    ratio[:, :-1] -= level * known
    return ColumnEvidence(ratio.reshape(evidence.log_ratio.shape))


def matched(trial, model, calibration):
    """The posterior of a trial's disc by the matcher itself."""
    matcher = SemanticMatcher(SEGMENTER, model.calibrated(calibration))
    place = trial.place
    inner = place.cells.shifted(rows=6, cols=6)
    inner = replace(inner, height=place.cells.height - 12, width=place.cells.width - 12)
    grid = PoseGrid(inner, matcher.num_headings)
    prior = Posterior.flat(grid).update(
        disc(grid, *place.center_m, radius_m=column_trials.PRIOR.radius_m)
    )
    prior = Posterior(grid, prior.log_mass)  # the disc's own evidence is none of the query's
    scores = Localizer(trial.sample.maps, matcher).match((trial.sample.view,), grid, prior)
    return prior.update(scores)


@pytest.mark.slow
@pytest.mark.parametrize("votes_share", [0.0, 0.02])
def test_a_score_is_the_log_density_and_the_log_probability_that_the_matcher_gives(
    bench, votes_share, monkeypatch
):
    """The fit sums over discs without blurring volumes: an independent way to the same number.

    Where skylines are not known, the fit is stricter than the matcher: a place unknown has heights.
    """
    trials, model = bench[0].trials, bench[1]
    at = 3, 4, 3  # of SCALES, POSITION_SIGMAS_M, HEADING_SIGMAS_DEG
    calibration = Calibration(
        pixel_scale=0.02,
        scale=column_trials.SCALES[at[0]],
        position_sigma_m=column_trials.POSITION_SIGMAS_M[at[1]],
        heading_sigma_deg=column_trials.HEADING_SIGMAS_DEG[at[2]],
        unknown_level=0.6,
        unexplained_share=0.03,
        votes_share=votes_share,
    )
    setting = column_calibration.Setting(
        0.02, calibration.height_share, calibration.outlier_share, votes_share
    )
    assert [trial.is_right for trial in trials] == [True, False] * 3
    for k, (trial, sums) in enumerate(zip(trials, bench[0].summed(setting), strict=True)):
        found = sums.scores(0.6, 0.03)[at]
        if k == 4:  # the first on the map without heights, which come last
            monkeypatch.setattr(ColumnEvidence, "above", above_a_place_with_heights)
        posterior = matched(trial, model, calibration)
        here = posterior.log_evidence
        if trial.is_right:
            truth = posterior.log_density(trial.sample.truth)
            expected = truth - math.log1p(math.exp(-here))
        else:
            expected = -np.logaddexp(0.0, here)
        assert found == approx(expected, abs=0.05)


@pytest.mark.slow
def test_a_fit_of_a_town_finds_places_that_it_has_not_seen(samples, caplog, monkeypatch):
    tried = {"height_share": (0.7,), "pixel_scale": (0.01, 0.02), "votes_share": (0.0, 0.02)}
    monkeypatch.setattr(column_calibration, "TRIED", tried)
    rigs = [sample for sample in samples if sample.is_rig]
    with caplog.at_level(logging.INFO, logger="crossview.column_calibration"):
        found = semantic_fit.fit(rigs, SEGMENTER, num_folds=2, provenance={"dataset": "town"})
    assert sum("left-out log score" in record.message for record in caplog.records) == 3
    assert set(found.log_score_by_station) == {"000", "001", "002", "003"}
    assert found.log_score == approx(np.mean(list(found.log_score_by_station.values())))
    # a flat posterior over the disc has -13.5, and -0.7 for right or wrong
    assert found.log_score > -6.0
    assert found.model.provenance["dataset"] == "town"
    assert found.model.provenance["stations"] == ["000", "001", "002", "003"]


def scores_of(by_station):
    """Scores of four stations, from a function of (scale, position sigma, heading sigma)."""
    shape = len(column_trials.SCALES), 2, 2
    table = np.zeros((4, *shape))
    for at in np.ndindex(shape):
        table[(slice(None), *at)] = by_station(*at)
    return column_calibration.Scores(table, np.zeros(shape), np.zeros(shape))


def test_of_what_is_within_a_standard_error_of_the_best_the_most_careful_is_taken():
    noise = np.array([1.0, -1.0, 1.0, -1.0])
    # half of a standard error is lost from each scale to the next smaller one than the fifth
    error = noise.std(ddof=1) / 2
    found = scores_of(lambda scale, *_: -0.5 * error * abs(scale - 5) + noise * (scale != 5))
    assert found.best_at[0] == 5
    assert found.most_careful(found.at(found.best_at)) == (3, 1, 1)


def test_what_is_surely_worse_is_never_taken():
    found = scores_of(
        lambda scale, position, heading: -0.1 * np.ones(4) * (scale + position + heading)
    )
    assert found.most_careful(found.at(found.best_at)) == (0, 0, 0)
    assert found.most_careful(found.at(found.best_at) + 1.0) is None


class FakeBench(column_calibration.Bench):
    """Whose score of a setting is a formula."""

    stations = ("a", "b", "c", "d")
    have_votes = True

    def __init__(self, score):
        super().__init__((), {}, 4)
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "asked", [])

    def _scored(self, setting):
        self.asked.append(setting)
        noise = np.array([1.0, -1.0, 1.0, -1.0])
        noise *= column_calibration.TRIED["outlier_share"].index(setting.outlier_share)
        return scores_of(lambda *_: self.score(setting) + noise)


def test_one_number_is_tried_at_a_time_with_the_others_as_found_so_far():
    bench = FakeBench(lambda s: -abs(s.pixel_scale - 0.04) - 100 * abs(s.votes_share - 0.01))
    bench.best()
    assert len(bench.asked) == len(set(bench.asked))
    first = bench.asked[: sum(len(values) - 1 for values in column_calibration.TRIED.values()) + 1]
    assert len({s.outlier_share for s in first if s.pixel_scale != 0.01}) == 1
    assert {s.pixel_scale for s in first if s.votes_share > 0} == {0.04}
    assert {s.votes_share for s in first} == {*column_calibration.TRIED["votes_share"]}


def test_of_settings_that_do_alike_the_least_trust_in_everything_is_taken():
    calibration, by_station = FakeBench(lambda _: 0.0).best()
    for name, values in column_calibration.TRIED.items():
        assert getattr(calibration, name) == values[0], name
    assert list(by_station) == ["a", "b", "c", "d"]


def test_heights_are_trusted_no_more_than_helps_at_the_outliers_that_are_taken():
    # few outliers need trusted heights, many do without
    def score(setting):
        return 0.0 if setting.outlier_share == 0.2 else -10.0 * (setting.height_share < 0.9)

    calibration, _ = FakeBench(score).best()
    assert (calibration.outlier_share, calibration.height_share) == (0.2, 0.3)


def test_care_stops_where_it_surely_costs():
    bench = FakeBench(
        lambda s: -100.0 * (s.outlier_share - 0.03) ** 2 - 9.0 * (s.height_share < 0.7)
    )
    calibration, _ = bench.best()
    assert (calibration.outlier_share, calibration.height_share) == (0.1, 0.7)


def test_votes_are_taken_where_they_surely_help():
    calibration, _ = FakeBench(lambda s: 10.0 * (s.votes_share > 0.005)).best()
    assert calibration.votes_share == 0.01


@pytest.mark.slow
def test_a_station_inside_of_a_building_is_said_and_does_not_stop_a_fit(samples, bench, caplog):
    trial, model = bench[0].trials[0], bench[1]
    none = np.zeros(0, int)
    walled = replace(
        trial, row=none, col=none, codes=trial.codes[:0], votes=None if trial.votes is None else
        trial.votes[:0],
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        sums = column_trials.Sums.of(walled, model, num_headings=256)
    assert "Station 000 stands in a building" in caplog.text
    scores = sums.scores(0.5, 0.03)
    assert np.isfinite(scores).all()
    # all that is left is the floor, which is flat over the disc
    pose_m2_deg = sums.num_poses * sums.pose_size
    assert scores[0, 0, 0] == approx(-math.log(pose_m2_deg) - np.logaddexp(0, -math.log(0.03)))


@pytest.mark.parametrize(
    ("lost", "expected"),
    [([0, 0, 0], True), ([0.5, -1.1, 0.2], True), ([0.5, 0.6, 0.5], False), ([-1, -1, -1], True)],
)
def test_a_loss_within_its_standard_error_counts_as_none(lost, expected):
    assert semantic_fit._is_close(np.array(lost, float)) is expected


def test_frames_that_exclude_the_truth_make_a_correlation_impossible():
    frames = {"a": {"filtered": {"nll": 1.0}}, "b": {"filtered": {"nll": None}}}
    other = {"a": {"filtered": {"nll": 2.0}}, "b": {"filtered": {"nll": 3.0}}}
    nll = semantic_fit._nll_by_station({"queries": {0: frames, 1: other}})
    assert nll.tolist() == [1.5, (700.0 + 3.0) / 2]
