"""Trials with rough priors: draws that stand on their own, priors that hold the truth, figures."""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image
from pytest import approx

from crossview import angles, legends, pose_trials
from crossview.camera_noise import CameraNoise
from crossview.errors import ManifestError, MapOutsideError
from crossview.evaluation import pose_summary
from crossview.frames import LocalFrame, Pose
from crossview.manifest import Manifest
from crossview.photos import Panorama, Photo, Rig
from crossview.pose_evaluation import Evaluation
from crossview.pose_queries import Query, map_sources, queries
from crossview.pose_trials import (
    WRONG_PLACE_M,
    PriorRule,
    drawn_prior,
    trial,
    wrong_place,
    wrong_statement,
)
from crossview.rasters import MapRaster

FRAME = LocalFrame(50.0, 8.0)
TRUTH = Pose(120.25, -75.75, 90.0)


@dataclass(frozen=True)
class PeakMatcher:
    """Sure of one pose of the frame, whatever it is shown; observe gives the query back."""

    peak: Pose | None = None
    cell_m: float = 0.5
    num_headings: int = 16
    reach_m: float = 5.0
    scale: float = 1.0
    map_parts: int = 1

    def observe(self, query):
        return query

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        scores = np.zeros(grid.shape)
        if self.peak is not None:
            scores[grid.index_of(self.peak)] = 30.0
        return scores


def query_of(name, truth=TRUTH):
    return Query(name, name, "town", truth, lambda: None)


def trials(manifest, matcher, maps, rule):
    """Every query of a dataset, localized one at a time."""
    for query in queries(manifest):
        frame, view = manifest.frame(query.region), matcher.observe(query.read())
        yield trial(query, view, frame, matcher, maps[query.region], rule=rule)


def drawn(name, *, seed=0, truth=TRUTH, matcher=None, **rule):
    matcher = PeakMatcher() if matcher is None else matcher
    return drawn_prior(PriorRule(seed=seed, **rule), query_of(name, truth), FRAME, matcher)


def middle(prior):
    mean = prior.mean()
    return mean.x_m, mean.y_m


def probability_at(prior, pose):
    row, col = prior.grid.map.cell_of(pose.x_m, pose.y_m)
    return prior.position()[row, col]


# ------------------------------------------------------------------------ draws


def test_a_draw_depends_on_the_seed_and_the_querys_name_alone():
    first = drawn("station 7")
    for name in ("station 8", "station 9"):
        assert middle(drawn(name)) != middle(first)
    again = drawn("station 7")
    assert again.grid == first.grid
    assert np.array_equal(again.log_mass, first.log_mass)
    assert middle(drawn("station 7", seed=1)) != middle(first)


def test_the_shift_of_a_query_is_the_same_wherever_it_stands():
    elsewhere = Pose(-800.25, 440.25, 10.0)
    near, far = middle(drawn("a")), middle(drawn("a", truth=elsewhere))
    shift = near[0] - TRUTH.x_m, near[1] - TRUTH.y_m
    assert (far[0] - elsewhere.x_m, far[1] - elsewhere.y_m) == approx(shift, abs=0.05)


def test_a_compass_does_not_change_the_shift():
    assert middle(drawn("a", compass_sigma_deg=5.0)) == approx(middle(drawn("a")), abs=0.01)


def test_shifts_are_uniform_up_to_their_limit_per_axis(monkeypatch):
    centers = []
    monkeypatch.setattr(
        pose_trials, "prior_within", lambda frame, x_m, y_m, **_: centers.append((x_m, y_m))
    )
    for i in range(500):
        drawn(str(i), shift_m=15.0)
    shifts = np.array(centers) - (TRUTH.x_m, TRUTH.y_m)
    assert np.abs(shifts).max() <= 15.0
    assert np.abs(shifts).max() > 14.5
    assert shifts.mean(axis=0) == approx([0, 0], abs=1.2)
    assert shifts.std(axis=0) == approx([15 / math.sqrt(3)] * 2, rel=0.1)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.12


def test_the_compass_reads_the_truth_plus_an_error_of_its_sigma(monkeypatch):
    readings = []
    monkeypatch.setattr(
        pose_trials,
        "prior_within",
        lambda *_, heading_deg, compass_sigma_deg, **__: readings.append(
            (heading_deg, compass_sigma_deg)
        ),
    )
    for i in range(500):
        drawn(str(i), compass_sigma_deg=5.0)
    headings_deg, sigmas_deg = np.array(readings).T
    errors_deg = angles.difference_deg(headings_deg, TRUTH.heading_deg)
    assert errors_deg.mean() == approx(0.0, abs=0.8)
    assert errors_deg.std() == approx(5.0, rel=0.1)
    assert set(sigmas_deg) == {5.0}


def test_without_a_compass_all_headings_are_equal():
    prior = drawn("a")
    assert prior.onto(replace(prior.grid, num_headings=16)).heading() == approx(np.full(16, 1 / 16))


def test_a_truth_without_heading_has_no_compass():
    prior = drawn("a", truth=Pose(0.0, 0.0), compass_sigma_deg=5.0)
    assert prior.grid.num_headings == 1


@pytest.mark.parametrize("name", [f"station {i}" for i in range(25)])
def test_the_prior_holds_the_truth(name):
    # 15 m per axis are 21.2 m at most, and the disc has 25 m
    assert probability_at(drawn(name, radius_m=25.0, shift_m=15.0), TRUTH) > 0


def test_without_a_shift_the_disc_stands_around_the_truth():
    prior = drawn("a", radius_m=10.0, shift_m=0.0)
    assert middle(prior) == approx((TRUTH.x_m, TRUTH.y_m), abs=1e-3)
    possible = np.count_nonzero(prior.position()) * 0.5**2
    assert possible == approx(math.pi * 10.0**2, rel=0.03)


# --------------------------------------------------------------------- datasets


VIEW = {
    "region": "town",
    "kind": "photo",
    "camera_id": "wide",
    "image": "photo.png",
    "lat_deg": 50.0,
    "lon_deg": 8.0,
    "height_m": 1.6,
}


def view(view_id, **columns):
    return {**VIEW, "view_id": view_id, "order": 0, "heading_deg": 0.0, **columns}


@pytest.fixture
def dataset(tmp_path):
    """A function that makes a manifest of views, with one small photo and one small panorama."""
    for name, size in (("photo", (12, 16)), ("panorama", (8, 16))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{name}.png")

    def made(*views, **tables):
        camera = {"width_px": 16, "height_px": 12, "fx": 8.0, "fy": 8.0, "cx": 8.0, "cy": 6.0}
        return Manifest.from_rows(
            name="small",
            licence="CC0-1.0",
            attribution="nobody",
            image_root=tmp_path,
            folder=tmp_path,
            regions=[{"name": "town", "lat_deg": 50.0, "lon_deg": 8.0}],
            cameras=[{"camera_id": "wide", "model": "pinhole", **camera}],
            views=list(views),
            **tables,
        )

    return made


def test_a_station_is_one_query_and_its_pose_that_of_its_first_view(dataset):
    manifest = dataset(
        view("a0", station_id="a", heading_deg=30.0),
        view("a1", station_id="a", order=1, heading_deg=120.0),
        view("b0", station_id="b", lat_deg=50.0003),
    )
    first, second = queries(manifest)
    assert (first.name, second.name) == ("a", "b")
    assert (first.truth.x_m, first.truth.y_m, first.truth.heading_deg) == approx((0, 0, 30.0))
    assert second.truth.y_m == approx(33.4, abs=0.1)
    rig = first.read()
    assert isinstance(rig, Rig)
    assert [mount.heading_deg for mount in rig.mounts] == approx([0.0, 90.0])


def test_single_makes_every_photo_a_query_with_its_own_pose(dataset):
    manifest = dataset(
        view("a0", station_id="a", heading_deg=30.0),
        view("a1", station_id="a", order=1, heading_deg=120.0),
    )
    found = queries(manifest, single=True)
    assert [query.name for query in found] == ["a0", "a1"]
    assert [query.truth.heading_deg for query in found] == approx([30.0, 120.0])
    assert all(isinstance(query.read(), Photo) for query in found)


@pytest.mark.parametrize("single", [False, True])
def test_a_view_to_the_sky_is_no_query(dataset, single):
    manifest = dataset(
        view("front", station_id="a"),
        view("sky", station_id="a", order=1, pitch_deg=80.0),
    )
    (query,) = queries(manifest, single=single)
    assert query.name == ("front" if single else "a")


@pytest.mark.parametrize("single", [False, True])
def test_what_has_no_pose_is_no_query(dataset, single):
    manifest = dataset(view("known"), view("unknown", lat_deg=None, lon_deg=None))
    assert [query.name for query in queries(manifest, single=single)] == ["known"]


def test_a_panorama_is_a_query(dataset):
    panorama = view("p", kind="panorama", camera_id=None, image="panorama.png", heading_deg=70.0)
    (query,) = queries(dataset(panorama))
    assert isinstance(query.read(), Panorama)
    assert query.truth.heading_deg == approx(70.0)


def test_images_are_read_only_when_they_are_asked_for(dataset, tmp_path):
    manifest = dataset(view("a"))
    (tmp_path / "photo.png").unlink()
    (query,) = queries(manifest)
    with pytest.raises(ValueError, match=r"photo\.png"):
        query.read()


BUILDINGS = """{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {},
"geometry": {"type": "Polygon", "coordinates":
[[[8.0, 50.0], [8.001, 50.0], [8.001, 50.001], [8.0, 50.001], [8.0, 50.0]]]}}]}"""


def map_row(file="map.geojson", **columns):
    return {"region": "town", "file": file, "kind": "footprints", **columns}


def test_a_region_without_a_map_is_named(dataset):
    with pytest.raises(ManifestError, match=r"Region 'town' of small has no map.*maps\.csv"):
        map_sources(dataset(view("a")))


def test_the_map_of_a_region_surveys_what_the_table_says(dataset, tmp_path):
    (tmp_path / "map.geojson").write_text(BUILDINGS)
    sources = map_sources(dataset(view("a"), maps=[map_row(surveyed="building")]))
    assert sources["town"].surveyed == {"building"}


def test_where_the_table_does_not_say_the_kind_of_map_decides_what_is_surveyed(dataset, tmp_path):
    (tmp_path / "map.geojson").write_text(BUILDINGS)
    sources = map_sources(dataset(view("a"), maps=[map_row()]))
    assert sources["town"].surveyed == {"building"}


def test_of_two_maps_the_first_is_used_and_said(dataset, tmp_path, caplog):
    for name in ("first", "second"):
        (tmp_path / f"{name}.geojson").write_text(BUILDINGS)
    rows = [map_row("first.geojson"), map_row("second.geojson")]
    with caplog.at_level(logging.WARNING, logger="crossview"):
        sources = map_sources(dataset(view("a"), maps=rows))
    assert sources["town"].features.source.endswith("first.geojson")
    assert "2 maps" in caplog.text


# ----------------------------------------------------------------------- trials


def no_map(grid):
    return None


def test_an_answer_3_m_east_4_m_north_and_a_bin_too_far_right_is_5_m_and_a_bin_off(dataset):
    manifest = dataset(view("a", heading_deg=90.0))
    # the truth is the corner of four cells: the peak's cell has its centre half a cell away
    matcher = PeakMatcher(peak=Pose(3.25, 4.25, 112.5))
    (found,) = trials(manifest, matcher, {"town": no_map}, PriorRule())
    assert found.name == "a"
    assert (found.truth.x_m, found.truth.y_m) == approx((0, 0), abs=1e-6)
    assert found.result.position_error_m == approx(math.hypot(3.25, 4.25))
    assert found.result.heading_error_deg == approx(22.5)
    # facing east: 3.25 m too far ahead and 4.25 m too far to the left
    assert found.result.longitudinal_m == approx(3.25)
    assert found.result.lateral_m == approx(-4.25)
    assert found.result.covered == (False, False, False)


def test_the_whole_prior_is_searched_in_one_window(dataset):
    rule = PriorRule(radius_m=25.0, shift_m=15.0)
    (found,) = trials(dataset(view("a")), PeakMatcher(), {"town": no_map}, rule)
    assert len(found.localization.posteriors) == 1
    assert found.localization.probability_elsewhere == approx(rule.outside, abs=1e-6)
    # a matcher that knows nothing leaves the prior, whose truth has its share of disc and turn
    assert found.result.nll == approx(math.log(math.pi * 25**2 * 360), abs=0.02)


def test_a_right_answer_covers_the_truth(dataset):
    manifest = dataset(view("a", heading_deg=90.0))
    matcher = PeakMatcher(peak=Pose(0.25, -0.25, 90.0))
    (near,) = trials(manifest, matcher, {"town": no_map}, PriorRule())
    assert near.result.position_error_m < 0.4
    assert near.result.covered == (True, True, True)


def test_a_prior_that_may_exclude_the_truth_is_refused():
    PriorRule(radius_m=25.0, shift_m=15.0)
    with pytest.raises(ValueError, match="may not hold the camera"):
        PriorRule(radius_m=20.0, shift_m=15.0)
    with pytest.raises(ValueError, match="compass_sigma_deg must be positive"):
        PriorRule(compass_sigma_deg=0.0)


def test_a_trial_does_not_depend_on_the_others(dataset):
    views = [view(name, station_id=name, lat_deg=50.0 + 1e-3 * i) for i, name in enumerate("abc")]
    maps, matcher = {"town": no_map}, PeakMatcher()
    together = {t.name: t.prior for t in trials(dataset(*views), matcher, maps, PriorRule())}
    alone = next(iter(trials(dataset(views[2]), matcher, maps, PriorRule())))
    assert list(together) == ["a", "b", "c"]
    assert together["c"].grid == alone.prior.grid
    assert np.array_equal(together["c"].log_mass, alone.prior.log_mass)


def test_a_compass_leaves_the_headings_around_its_reading(dataset):
    rule = PriorRule(compass_sigma_deg=5.0)
    (found,) = trials(dataset(view("a", heading_deg=90.0)), PeakMatcher(), {"town": no_map}, rule)
    heading = found.localization.best.heading()
    assert heading[3:6].sum() > 0.99
    assert found.result.heading_error_deg <= 22.5


def test_trials_are_made_one_at_a_time(dataset):
    read = []

    class Watching(PeakMatcher):
        def observe(self, query):
            read.append(query)
            return query

    running = trials(
        dataset(view("a"), view("b")),
        Watching(),
        {"town": no_map},
        PriorRule(radius_m=5.0, shift_m=3.0),
    )
    assert read == []
    next(running)
    assert len(read) == 1


def test_the_summary_of_two_trials_by_hand(dataset):
    manifest = dataset(
        view("a", heading_deg=90.0), view("b", heading_deg=90.0, lat_deg=50.0, lon_deg=8.00001)
    )
    matcher = PeakMatcher(peak=Pose(0.25, 0.25, 90.0))
    summary = pose_summary(
        one.result for one in trials(manifest, matcher, {"town": no_map}, PriorRule())
    )
    # b stands 0.717 m east of a, and both answers are the same cell
    errors_m = [math.hypot(0.25, 0.25), math.hypot(0.7169 - 0.25, 0.25)]
    assert summary["n"] == 2
    assert summary["median_position_error_m"] == approx(sum(errors_m) / 2, abs=1e-3)
    assert (summary["within_1m"], summary["within_5deg"]) == (1.0, 1.0)
    assert summary["median_heading_error_deg"] == approx(0.0, abs=1e-5)


# ----------------------------------------------------------- what answers say of themselves


@dataclass(frozen=True)
class EvenMatcher(PeakMatcher):
    """The same log ratio at every pose: it tells this disc from elsewhere, and no more."""

    log_ratio: float = 0.0

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        return np.full(grid.shape, self.log_ratio)


@pytest.mark.parametrize("compass_sigma_deg", [None, 5.0])
@pytest.mark.parametrize("log_ratio", [-3.0, 0.0, 2.0])
def test_the_stated_probability_of_elsewhere_is_that_of_bayes(
    dataset, log_ratio, compass_sigma_deg
):
    rule = PriorRule(outside=0.2, compass_sigma_deg=compass_sigma_deg)
    matcher = EvenMatcher(log_ratio=log_ratio)
    (found,) = trials(dataset(view("a", heading_deg=90.0)), matcher, {"town": no_map}, rule)
    elsewhere = 0.2 / (0.2 + 0.8 * math.exp(log_ratio))
    stated = found.result.stated
    assert stated.probability_elsewhere == approx(elsewhere, abs=1e-3)
    # one place is as good as another, and a disc of 5 m is a 25th of one of 25 m
    assert 0 < stated.probability_within_5m < 1.1 * (1 - elsewhere) / 25
    assert not stated.is_answer


def test_a_sure_answer_says_so(dataset):
    matcher = PeakMatcher(peak=Pose(0.25, -0.25, 90.0))
    (found,) = trials(dataset(view("a")), matcher, {"town": no_map}, PriorRule())
    assert found.result.stated.probability_within_5m > 0.99
    assert found.result.stated.is_answer


def town_map(cells, *, built=lambda x_m, y_m: x_m < -np.inf, covered=lambda x_m, y_m: True):
    x_m, y_m = np.meshgrid(*cells.centers())
    classes = np.zeros((*cells.shape, 3), np.uint8)
    channel, building_id = legends.legend("crossview").find("building")
    classes[built(x_m, y_m), channel] = building_id
    return MapRaster(
        cells,
        classes,
        "crossview",
        np.broadcast_to(covered(x_m, y_m), cells.shape),
        frozenset({"building"}),
        np.where(built(x_m, y_m), 9.0, 0.0).astype(np.float32),
    )


def wrong_places(maps, *, count=200, radius_m=25.0):
    rng = np.random.default_rng(0)
    found = [wrong_place(TRUTH, FRAME, maps, radius_m=radius_m, rng=rng) for _ in range(count)]
    return np.array([(place.x_m - TRUTH.x_m, place.y_m - TRUTH.y_m) for place in found])


def test_wrong_places_are_in_all_directions_and_so_far_that_no_disc_holds_the_camera():
    away_m = wrong_places(town_map)
    distance_m = np.hypot(*away_m.T)
    assert WRONG_PLACE_M == (70.0, 150.0)
    assert 70.0 <= distance_m.min() < 75.0
    assert 145.0 < distance_m.max() <= 150.0
    quadrants = np.bincount((away_m > 0) @ [1, 2], minlength=4)
    assert quadrants.min() > 30


def test_wrong_places_are_not_in_buildings_and_all_around_them_is_known():
    def maps(cells):
        return town_map(
            cells,
            built=lambda x_m, y_m: x_m < TRUTH.x_m,
            covered=lambda x_m, y_m: y_m < TRUTH.y_m + 50.0,
        )

    east_m, north_m = wrong_places(maps).T
    assert east_m.min() > -1.0
    # 25 m around the middle, on cells of a metre
    assert 15.0 < north_m.max() <= 26.0


def test_where_the_map_knows_no_other_place_there_is_no_wrong_one():
    def nowhere(cells):
        raise MapOutsideError("There is no map.")

    rng = np.random.default_rng(0)
    assert wrong_place(TRUTH, FRAME, nowhere, radius_m=25.0, rng=rng) is None
    found = wrong_statement(query_of("a"), None, FRAME, PeakMatcher(), nowhere, rule=PriorRule())
    assert found is None


def test_a_disc_that_may_reach_back_to_the_camera_is_no_wrong_place():
    with pytest.raises(ValueError, match="70 m away or more, and a disc of 70 m"):
        wrong_places(town_map, radius_m=70.0, count=1)


@dataclass(frozen=True)
class NearTruthMatcher(PeakMatcher):
    """Sure of the truth where it is on the grid, and that it is elsewhere where it is not."""

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        scores = np.full(grid.shape, -4.0)
        x_m, y_m = np.meshgrid(*grid.map.centers())
        scores[np.hypot(x_m - TRUTH.x_m, y_m - TRUTH.y_m) < 2.0] = 20.0
        return scores


@pytest.mark.parametrize("compass_sigma_deg", [None, 5.0])
def test_in_a_wrong_place_elsewhere_is_probable_and_nothing_is_answered(compass_sigma_deg):
    asked = query_of("a"), None, FRAME, NearTruthMatcher(), town_map
    rule = PriorRule(compass_sigma_deg=compass_sigma_deg)
    right, wrong = trial(*asked, rule=rule).result.stated, wrong_statement(*asked, rule=rule)
    assert right.is_answer
    assert right.probability_elsewhere < 1e-4
    assert not wrong.is_answer
    assert wrong.probability_elsewhere == approx(0.05 / (0.05 + 0.95 * math.exp(-4.0)), abs=1e-3)


def test_a_wrong_place_depends_on_the_seed_and_the_querys_name_alone(monkeypatch):
    centers = []
    inner = pose_trials.prior_within

    def watched(frame, x_m, y_m, **options):
        centers.append((x_m, y_m))
        return inner(frame, x_m, y_m, **options)

    monkeypatch.setattr(pose_trials, "prior_within", watched)
    for name, seed in (("a", 0), ("b", 0), ("a", 1), ("a", 0)):
        asked = query_of(name), None, FRAME, PeakMatcher(), town_map
        wrong_statement(*asked, rule=PriorRule(seed=seed))
    assert centers[3] == centers[0]
    assert len(set(centers)) == 3


# ------------------------------------------------------------------- cameras with errors


def test_every_single_photo_has_a_camera_error_of_its_own_and_the_same_one_always(dataset):
    views = [view(name, station_id="a", order=i) for i, name in enumerate("pqrs")]
    error = CameraNoise(pitch_sigma_deg=3.0)
    evaluation = Evaluation(dataset(*views), PeakMatcher(), single=True, camera_error=error)
    first, again = ([photo.pitch_deg for _, photo in evaluation.views()] for _ in range(2))
    assert first == again
    assert len(set(first)) == 4
    assert 0 < max(map(abs, first)) < 15.0
    alone = replace(evaluation, manifest=dataset(views[2]))
    assert [photo.pitch_deg for _, photo in alone.views()] == [first[2]]


def test_rigs_have_no_camera_error(dataset):
    views = [view(name, station_id="a", order=i) for i, name in enumerate("pq")]
    error = CameraNoise(pitch_sigma_deg=3.0)
    ((_, rig),) = Evaluation(dataset(*views), PeakMatcher(), camera_error=error).views()
    assert [photo.pitch_deg for photo in rig.photos] == [0.0, 0.0]


def test_a_matcher_without_columns_has_no_views_to_remember(dataset, tmp_path):
    evaluation = Evaluation(dataset(view("a")), PeakMatcher(), cache=tmp_path)
    with pytest.raises(ValueError, match="PeakMatcher looks at none"):
        next(evaluation.views())


# ------------------------------------------------------------------------------ figures


@dataclass(frozen=True)
class SometimesMatcher(PeakMatcher):
    """Sure of one pose while its disc is to the west of it; else it knows nothing."""

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        x_m, _ = grid.map.centers()
        scores = super().log_likelihood(query, map_raster, grid)
        return scores if x_m.mean() < self.peak.x_m else np.zeros(grid.shape)


@pytest.fixture
def measured(dataset, tmp_path):
    """Figures of two stations of two photos each, and every query's result."""
    (tmp_path / "map.geojson").write_text(BUILDINGS)
    peak = Pose(0.25, 6.25, 0.0)
    lat_deg, lon_deg = FRAME.to_geodetic(peak.x_m, peak.y_m)
    # the answer is right at b and 6 m off at a
    views = [view(name, station_id="a") for name in ("a0", "a1")]
    views += [view(n, station_id="b", lat_deg=lat_deg, lon_deg=lon_deg) for n in ("b0", "b1")]
    manifest = dataset(*views, maps=[map_row(surveyed="building")])
    matcher = SometimesMatcher(peak=peak)
    rules = [PriorRule(radius_m=20.0, shift_m=10.0, seed=seed) for seed in range(3)]
    report = Evaluation(manifest, matcher, single=True).places(rules)
    results = [list(found.values()) for found in report["queries"].values()]
    assert [len(found) for found in results] == [4, 4, 4]
    return report["summary"], results


def test_photos_of_a_station_are_one_answer_for_the_interval_of_a_coverage(measured):
    from scipy import stats

    summary, results = measured
    assert (summary["n"], summary["num_stations"], summary["num_seeds"]) == (4, 2, 3)
    for i, level in enumerate((50, 90, 95)):
        share = np.mean([[one["covered"][i] for one in found] for found in results])
        assert summary[f"coverage_{level}"] == approx(share)
        assert 0 < share < 1
        beta = stats.beta(2 * share + 0.5, 2 * (1 - share) + 0.5)
        assert summary[f"coverage_{level}_interval"] == approx([beta.ppf(0.05), beta.ppf(0.95)])


def test_the_accuracy_of_answers_is_of_the_answers_of_all_seeds(measured):
    summary, results = measured
    answered = [
        [one for one in f if one["stated"]["probability_within_5m"] >= 0.5] for f in results
    ]
    assert len({len(found) for found in answered}) > 1
    assert summary["answered"] == approx(sum(map(len, answered)) / 12)
    right = [one["position_error_m"] < 5.0 for found in answered for one in found]
    assert summary["selective_accuracy_5m"] == approx(np.mean(right))
    assert 0 < np.mean(right) < 1
