"""Evidence of columns, against the formulas written out as loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from scipy import ndimage

from crossview import column_evidence
from crossview.column_evidence import (
    NUM_CODES,
    NUM_SKYLINES,
    RANGE_BLUR_BINS,
    UNKNOWN_RANGE,
    UNKNOWN_SKYLINE,
)
from crossview.column_model import (
    BAND_EDGES_DEG,
    COUNTS_SHAPE,
    FARTHEST_M,
    NEAREST_M,
    NUM_RANGES,
    Calibration,
    ColumnModel,
)
from crossview.columns import GROUPS, NUM_ELEVATIONS, ColumnView
from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.raycast import RayMap

ELEVATIONS_DEG = np.array([-60 + 0.25 * (i + 0.5) for i in range(600)])
RANGES_M = [1.5 * 40 ** (i / 79) for i in range(80)]
SKYLINES_DEG = [-10 + i for i in range(96)]
HEIGHT_M = 2.2
SKY, OTHER = list(GROUPS).index("sky"), list(GROUPS).index("other")


def made_up_view(seed=0, *, num_azimuths=5, height_m=HEIGHT_M, seen_share=0.8):
    """Random classes in random places, a few pixels missing and the last column all missing."""
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.full(len(GROUPS), 0.3), (num_azimuths, NUM_ELEVATIONS))
    seen = rng.random((num_azimuths, NUM_ELEVATIONS)) < seen_share
    seen[-1] = False
    return ColumnView(
        np.where(seen[..., None], probability, 0.0).astype(np.float32), seen, height_m
    )


def made_up_model(seed=1, **options):
    rng = np.random.default_rng(seed)
    counts = rng.gamma(0.5, 400.0, COUNTS_SHAPE)
    shares = rng.dirichlet(np.full(NUM_RANGES, 2.0))
    calibration = Calibration(**options)
    return ColumnModel(counts, shares, 14.0, 3.0, calibration)


def band(elevation_deg):
    return sum(elevation_deg >= edge for edge in BAND_EDGES_DEG)


def region_of(elevation_deg, range_m, skyline_deg, height_m):
    """The region of a column that an elevation is in, where the wall and the sky begin there."""

    def ends(rise_m, at_m):
        # to the nearest quarter of a degree, where bins meet
        return round((math.degrees(math.atan(rise_m / at_m)) + 60) / 0.25) * 0.25 - 60

    near = ends(-height_m, max(range_m - 2.5, 0.5))
    base = ends(-height_m, range_m)
    roof = max(skyline_deg, base)
    lower = min(ends(4.0 - height_m, range_m), roof)
    return sum(elevation_deg > edge for edge in (near, base, lower, roof))


def literal_score(view, model, azimuth, range_m, skyline_deg):
    """Sum over a column's pixels of log max(1e-3, sum over groups of p T / M)."""
    ratios = model.ratios()
    total = 0.0
    for i, elevation_deg in enumerate(ELEVATIONS_DEG):
        if view.seen[azimuth, i]:
            region = region_of(elevation_deg, range_m, skyline_deg, view.height_m)
            p = view.probability[azimuth, i].astype(float)
            total += math.log(max(1e-3, float(p @ ratios[region, band(elevation_deg)])))
    return total


# -------------------------------------------------------------------------- codes


def test_range_bins_run_from_1_5_to_60_metres_in_equal_ratios():
    assert column_evidence.ranges_m() == approx(RANGES_M)
    assert (RANGES_M[0], RANGES_M[-1]) == approx((NEAREST_M, FARTHEST_M))


@pytest.mark.parametrize(
    ("range_m", "expected"),
    [(0.2, 0), (1.5, 0), (1.53, 0), (1.54, 1), (60.0, 79), (500.0, 79),
     (math.inf, 79), (math.nan, UNKNOWN_RANGE)],
)  # fmt: skip
def test_the_bin_of_a_range_by_hand(range_m, expected):
    # half a bin is a factor of 40 ** (0.5 / 79) = 1.0236
    assert column_evidence.range_bins(np.array([range_m]))[0] == expected


@pytest.mark.parametrize(
    ("skyline_deg", "expected"),
    [(-40.0, 0), (-10.0, 0), (-9.4, 1), (0.0, 10), (0.4, 10), (0.6, 11), (85.0, 95), (89.0, 95),
     (math.nan, UNKNOWN_SKYLINE)],
)  # fmt: skip
def test_the_bin_of_a_skyline_by_hand(skyline_deg, expected):
    assert column_evidence.skylines_deg() == approx(SKYLINES_DEG)
    assert column_evidence.skyline_bins(np.array([skyline_deg]))[0] == expected


@given(st.floats(1.5, 60.0), st.floats(-10.0, 85.0))
def test_a_code_holds_the_nearest_range_and_skyline(range_m, skyline_deg):
    code = int(column_evidence.codes_of(np.array([range_m]), np.array([skyline_deg]))[0])
    range_bin, skyline_bin = divmod(code, NUM_SKYLINES + 1)
    assert abs(math.log(RANGES_M[range_bin] / range_m)) <= math.log(40) / 79 / 2 + 1e-5
    assert abs(SKYLINES_DEG[skyline_bin] - skyline_deg) <= 0.5 + 1e-5


def test_codes_of_what_is_not_known_by_hand():
    codes = column_evidence.codes_of(
        np.array([np.nan, np.nan, 1.5, np.inf]), np.array([np.nan, 20.0, np.nan, 0.0])
    )
    assert codes.tolist() == [80 * 97 + 96, 80 * 97 + 30, 96, 79 * 97 + 10]
    assert NUM_CODES == 81 * 97
    assert codes.dtype == np.uint16


def test_codes_of_a_ray_map_are_those_of_its_rays():
    rng = np.random.default_rng(2)
    range_m = rng.uniform(1, 80, (3, 4, 8)).astype(np.float16)
    skyline_deg = rng.uniform(-12, 80, (3, 4, 8)).astype(np.float16)
    range_m[0, 0, 0], skyline_deg[1, 1, 1] = np.nan, np.nan
    grid = MapGrid(LocalFrame(50.0, 8.0), 0.0, 0.0, 0.5, 3, 4)
    rays = RayMap(grid, 1.6, range_m, skyline_deg, np.ones((3, 4), bool))
    codes = column_evidence.ray_codes(rays)
    assert codes.shape == (3, 4, 8)
    for at in np.ndindex(3, 4, 8):
        assert codes[at] == column_evidence.codes_of(range_m[at], skyline_deg[at])


def test_bands_by_hand():
    bands = column_evidence.bands()
    # -60 .. -30 are 120 bins, then 10 degrees, 8, 6, 6, 8, 12, 25 and 45 up to the zenith
    assert np.bincount(bands).tolist() == [120, 40, 32, 24, 24, 32, 48, 100, 180]
    assert np.all(np.diff(bands) >= 0)


# ----------------------------------------------------------------- scores of pixels


@pytest.mark.parametrize("height_m", [1.6, 2.865, 4.5])
def test_pixel_scores_are_sums_of_log_ratios_written_out(height_m):
    view, model = made_up_view(height_m=height_m), made_up_model()
    scores = column_evidence.pixel_scores(view, model)
    assert scores.shape == (5, NUM_RANGES, NUM_SKYLINES)
    rng = np.random.default_rng(3)
    tried = [(0, 0, 0), (1, 79, 95), (2, 79, 10), (3, 5, 2)]
    tried += [(int(a), int(r), int(s)) for a, r, s in rng.integers(0, (5, 80, 96), (60, 3))]
    for azimuth, r, s in tried:
        expected = literal_score(view, model, azimuth, RANGES_M[r], SKYLINES_DEG[s])
        assert scores[azimuth, r, s] == approx(expected, abs=0.02), (azimuth, r, s)


def test_no_pixel_counts_for_less_than_a_thousandth():
    probability = np.zeros((1, NUM_ELEVATIONS, len(GROUPS)), np.float32)
    probability[..., SKY] = 1.0
    counts = np.full(COUNTS_SHAPE, 1e6)
    counts[:4, :, SKY] = 0.0
    view = ColumnView(probability, np.ones((1, NUM_ELEVATIONS), bool), HEIGHT_M)
    model = ColumnModel(counts, np.full(NUM_RANGES, 1 / NUM_RANGES))
    highest_sky = column_evidence.pixel_scores(view, model)[0, 0, -1]
    # all up to 85 degrees is not sky, what is above has the ratio of sky
    sky = math.log(model.ratios()[4, -1, SKY])
    assert highest_sky == approx(580 * math.log(1e-3) + 20 * sky, rel=1e-4)


def test_a_column_that_sees_nothing_scores_0_everywhere():
    assert np.all(column_evidence.pixel_scores(made_up_view(), made_up_model())[-1] == 0.0)


def test_where_all_groups_show_alike_in_all_regions_nothing_scores():
    model = ColumnModel(np.full(COUNTS_SHAPE, 500.0), np.full(NUM_RANGES, 1 / NUM_RANGES))
    assert column_evidence.pixel_scores(made_up_view(), model) == approx(0.0, abs=1e-3)


# ----------------------------------------------------------------- counting regions


def test_region_counts_are_sums_of_probabilities_written_out():
    view = made_up_view(4, num_azimuths=12)
    rng = np.random.default_rng(5)
    # on bins, so that the literal regions are exactly the same
    range_m = np.array(RANGES_M)[rng.integers(0, NUM_RANGES, 12)]
    skyline_deg = np.array(SKYLINES_DEG, float)[rng.integers(0, NUM_SKYLINES, 12)]
    range_m[3], skyline_deg[5], range_m[7], skyline_deg[7] = np.nan, np.nan, np.inf, 0.0
    expected = np.zeros(COUNTS_SHAPE)
    for azimuth in range(12):
        if azimuth in (3, 5):
            continue
        for i, elevation_deg in enumerate(ELEVATIONS_DEG):
            if view.seen[azimuth, i]:
                wall_m = min(float(range_m[azimuth]), 60.0)
                region = region_of(elevation_deg, wall_m, skyline_deg[azimuth], HEIGHT_M)
                expected[region, band(elevation_deg)] += view.probability[azimuth, i]
    assert column_evidence.region_counts(view, range_m, skyline_deg) == approx(expected, rel=1e-5)


def test_every_seen_pixel_of_a_known_column_is_counted_once():
    view = made_up_view(6)
    counts = column_evidence.region_counts(view, np.full(5, 7.0), np.full(5, 30.0))
    assert counts.sum() == approx(view.seen.sum(), rel=1e-5)


def test_columns_that_the_map_does_not_know_are_not_counted():
    view = made_up_view(6)
    unknown = column_evidence.region_counts(view, np.full(5, np.nan), np.full(5, 3.0))
    assert not unknown.any()
    assert not column_evidence.region_counts(view, np.full(5, 7.0), np.full(5, np.nan)).any()


# ----------------------------------------------------------------------- evidence


def building_heights_m(mean_m, std_m):
    """Heights in steps of 1.5 m to 2.5 standard deviations, none below 3 m, and their shares."""
    lowest_m = max(3.0, mean_m - 2.5 * std_m)
    number = math.ceil((mean_m + 2.5 * std_m - lowest_m) / 1.5)
    heights_m = np.array([lowest_m + 1.5 * i for i in range(number)])
    weights = np.exp(-0.5 * ((heights_m - mean_m) / std_m) ** 2)
    return heights_m, weights / weights.sum()


def literal_evidence(view, model):
    """Ratios to a place unknown, softened, in double precision: (azimuths, 81, 97)."""
    soft = model.calibration
    score = soft.pixel_scale * column_evidence.pixel_scores(view, model).astype(float)
    heights_m, shares = building_heights_m(model.height_mean_m, model.height_std_m)
    any_height = np.zeros(score.shape[:2])
    for r, range_m in enumerate(RANGES_M):
        for house_m, share in zip(heights_m, shares, strict=True):
            skyline_deg = math.degrees(math.atan((house_m - view.height_m) / range_m))
            s = min(max(round(skyline_deg + 10), 0), 95)
            any_height[:, r] += share * np.exp(score[:, r, s])
    unknown = any_height @ model.range_shares
    known = np.exp(score) / unknown[:, None, None]
    any_height /= unknown[:, None]
    known = ndimage.gaussian_filter(known, (0, RANGE_BLUR_BINS, 1.0), mode="nearest")
    any_height = ndimage.gaussian_filter(any_height, (0, RANGE_BLUR_BINS), mode="nearest")
    ratio = np.ones((len(score), 81, 97))
    stated = soft.height_share
    ratio[:, :80, :96] = stated * known + (1 - stated) * any_height[..., None]
    ratio[:, :80, 96] = any_height
    mixed = (1 - soft.outlier_share) * ratio + soft.outlier_share
    mixed[:, 80] = 1.0
    return np.log(mixed)


@pytest.mark.parametrize(
    "options",
    [{}, {"height_share": 1.0}, {"height_share": 0.0, "outlier_share": 0.3, "pixel_scale": 0.02}],
    ids=["default", "heights are sure", "heights say nothing"],
)
def test_evidence_is_that_of_the_formulas_in_double_precision(options):
    view, model = made_up_view(), made_up_model(**options)
    found = column_evidence.evidence(view, model)
    expected = literal_evidence(view, model)
    assert found.log_ratio.reshape(5, 81, 97) == approx(expected, abs=2e-3)
    assert found.best == approx(expected.reshape(5, -1).max(axis=1).sum(), abs=1e-2)


def test_an_unknown_skyline_says_what_the_heights_of_the_place_say_together():
    # without a blur it would be the literal sum; the blur over ranges is repeated here
    view, model = made_up_view(), made_up_model(outlier_share=0.0)
    score = 0.01 * column_evidence.pixel_scores(view, model).astype(float)
    heights_m, shares = building_heights_m(14.0, 3.0)
    summed = np.zeros(NUM_RANGES)
    for r, range_m in enumerate(RANGES_M):
        for house_m, share in zip(heights_m, shares, strict=True):
            skyline_deg = np.array([math.degrees(math.atan((house_m - HEIGHT_M) / range_m))])
            summed[r] += share * math.exp(score[2, r, column_evidence.skyline_bins(skyline_deg)[0]])
    blurred = ndimage.gaussian_filter1d(summed, RANGE_BLUR_BINS, mode="nearest")
    expected = np.log(blurred / (summed @ model.range_shares))
    found = column_evidence.evidence(view, model).log_ratio.reshape(5, 81, 97)
    assert found[2, :80, UNKNOWN_SKYLINE] == approx(expected, abs=1e-3)


def test_an_unknown_range_says_exactly_nothing():
    ratios = column_evidence.evidence(made_up_view(), made_up_model()).log_ratio
    assert np.all(ratios.reshape(5, 81, 97)[:, UNKNOWN_RANGE] == 0.0)


def test_a_column_that_sees_nothing_says_nothing_and_is_not_active():
    found = column_evidence.evidence(made_up_view(), made_up_model())
    assert found.log_ratio[-1] == approx(0.0, abs=1e-5)
    assert found.active.tolist() == [True, True, True, True, False]


def test_a_view_that_sees_nothing_is_best_everywhere():
    view = made_up_view(seen_share=0.0)
    found = column_evidence.evidence(view, made_up_model())
    assert found.log_ratio == approx(0.0, abs=1e-5)
    assert found.best == approx(0.0, abs=1e-4)
    assert not found.active.any()


def test_a_column_is_never_worse_than_an_outlier():
    model = made_up_model(outlier_share=0.25, pixel_scale=0.5)
    ratios = column_evidence.evidence(made_up_view(), model).log_ratio
    assert ratios.min() == approx(math.log(0.25), abs=1e-4)
    assert np.isfinite(ratios).all()


def test_evidence_is_finite_though_no_column_is_an_outlier():
    model = made_up_model(outlier_share=0.0, height_share=1.0)
    assert np.isfinite(column_evidence.evidence(made_up_view(), model).log_ratio).all()


def test_on_average_over_places_unknown_a_column_is_as_probable_as_anywhere():
    # with nothing softened but the blur, which ends of the range bins keep
    model = made_up_model(outlier_share=0.0, height_share=0.0)
    ratio = np.exp(column_evidence.evidence(made_up_view(), model).log_ratio.astype(float))
    by_range = ratio.reshape(5, 81, 97)[:, :80, UNKNOWN_SKYLINE]
    assert by_range @ model.range_shares == approx(np.ones(5), abs=0.05)


def test_open_ground_before_a_wall_that_shows_as_such_is_best_at_its_range():
    """Sidewalk up to a wall at 8 m whose roof stands 40 degrees high, and tables that know so."""
    truth_m, roof_deg = 8.0, 40.0
    groups = {0: "road", 1: "walk", 2: "wall", 3: "wall", 4: "sky"}
    names = list(GROUPS)
    probability = np.zeros((1, NUM_ELEVATIONS, len(GROUPS)), np.float32)
    for i, elevation_deg in enumerate(ELEVATIONS_DEG):
        region = region_of(elevation_deg, truth_m, roof_deg, HEIGHT_M)
        probability[0, i, names.index(groups[region])] = 1.0
    counts = np.full(COUNTS_SHAPE, 100.0)
    for region, name in groups.items():
        counts[region, :, names.index(name)] = 2000.0
    model = ColumnModel(counts, np.full(NUM_RANGES, 1 / NUM_RANGES))
    view = ColumnView(probability, np.ones((1, NUM_ELEVATIONS), bool), HEIGHT_M)
    scores = column_evidence.pixel_scores(view, model)[0]
    best_range, best_skyline = np.unravel_index(scores.argmax(), scores.shape)
    assert RANGES_M[best_range] == approx(truth_m, rel=0.03)
    assert SKYLINES_DEG[best_skyline] == roof_deg
