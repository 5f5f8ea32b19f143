"""Tables of columns: their ratios by hand, their file, and what is refused."""

import json
import math
from dataclasses import asdict, replace
from types import MappingProxyType

import numpy as np
import pytest
from pytest import approx

from crossview.column_model import (
    BAND_EDGES_DEG,
    COUNTS_SHAPE,
    NUM_RANGES,
    REGIONS,
    Calibration,
    ColumnModel,
)
from crossview.columns import GROUPS

SHARES = np.full(NUM_RANGES, 1 / NUM_RANGES)


def made_up(seed=0, **options):
    """A model of numbers with one decimal, as files keep them."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 100_000, COUNTS_SHAPE) / 10
    shares = rng.multinomial(1_000_000, SHARES) / 1_000_000
    return ColumnModel(counts, shares, **options)


def edited(model, **changes):
    """The model's file with other content."""
    return json.dumps({**json.loads(model.to_json()), **changes})


# -------------------------------------------------------------------------- ratios


def test_a_group_that_shows_only_in_one_region_has_the_ratio_of_the_regions():
    counts = np.zeros(COUNTS_SHAPE)
    # so many pixels that the priors do not count: half of each band is sky, half is ground
    counts[0, :, 0] = 1e12
    counts[4, :, 4] = 1e12
    ratios = ColumnModel(counts, SHARES).ratios()
    assert ratios[0, :, 0] == approx(2.0)
    assert ratios[4, :, 4] == approx(2.0)
    assert ratios[0, :, 4] == approx(0.0, abs=1e-6)


def test_ratios_are_those_of_the_formulas_written_out():
    counts = np.random.default_rng(1).gamma(0.5, 500.0, COUNTS_SHAPE)
    ratios = ColumnModel(counts, SHARES).ratios()
    num_regions, num_bands, num_groups = COUNTS_SHAPE
    assert ratios.shape == (len(REGIONS), len(BAND_EDGES_DEG) + 1, len(GROUPS))
    for b in range(num_bands):
        table, weight = [], []
        for g in range(num_regions):
            mean = [counts[g, :, c].sum() + 1.0 for c in range(num_groups)]
            here = [counts[g, b, c] + 300.0 * mean[c] / sum(mean) for c in range(num_groups)]
            table.append([value / sum(here) for value in here])
            weight.append(counts[g, b].sum() + 1.0)
        for c in range(num_groups):
            anywhere = sum(w * t[c] for w, t in zip(weight, table, strict=True)) / sum(weight)
            for g in range(num_regions):
                # what is no scenery says nothing
                expected = 1.0 if list(GROUPS)[c] == "other" else table[g][c] / anywhere
                assert ratios[g, b, c] == approx(expected)


def test_a_group_that_a_band_never_shows_is_no_surprise_in_any_region():
    """Ratios average to one over the regions of a band: none is larger than one over its share."""
    counts = np.full(COUNTS_SHAPE, 1e4)
    counts[:, 3, 2] = 0.0
    ratios = ColumnModel(counts, SHARES).ratios()
    share = 1 / len(REGIONS)
    assert (share * ratios).sum(axis=0) == approx(1.0, rel=1e-3)
    assert ratios.max() < len(REGIONS) + 1e-6


def test_what_depends_on_elevation_alone_cancels():
    # more sky above than below, in all regions alike, and many pixels
    by_band = np.random.default_rng(2).uniform(1e9, 1e10, COUNTS_SHAPE[1:])
    ratios = ColumnModel(np.broadcast_to(by_band, COUNTS_SHAPE), SHARES).ratios()
    assert ratios == approx(1.0, rel=1e-5)


# ---------------------------------------------------------------------------- file


def test_a_model_comes_back_from_its_file():
    calibration = Calibration(pixel_scale=0.02, scale=0.5, unexplained_share=0.1)
    model = made_up(
        height_mean_m=11.5,
        height_std_m=3.25,
        calibration=calibration,
        provenance=MappingProxyType({"stations": ["a", "b"], "left_out_log_score": 1.5}),
    )
    again = ColumnModel.from_json(model.to_json())
    assert np.array_equal(again.counts, model.counts)
    assert np.array_equal(again.range_shares, model.range_shares)
    assert (again.height_mean_m, again.height_std_m) == (11.5, 3.25)
    assert again.calibration == calibration
    assert again.provenance == {"stations": ["a", "b"], "left_out_log_score": 1.5}


def test_a_file_is_the_same_after_another_round():
    model = ColumnModel(np.random.default_rng(3).gamma(1.0, 500.0, COUNTS_SHAPE), SHARES)
    text = model.to_json()
    assert ColumnModel.from_json(text).to_json() == text


def test_rounding_changes_no_ratio_by_more_than_a_thousandth():
    model = ColumnModel(np.random.default_rng(3).gamma(1.0, 500.0, COUNTS_SHAPE), SHARES)
    again = ColumnModel.from_json(model.to_json())
    assert again.ratios() == approx(model.ratios(), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("groups", {"road": ["road"], "rest": ["sky"]}),
        ("regions", ["ground", "wall", "sky"]),
        ("band_edges_deg", [0.0]),
        ("range_bins_m", [1.5, 60.0, 100]),
    ],
)
def test_tables_of_another_layout_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"{name} are .*this version has.*crossview fit semantic"):
        ColumnModel.from_json(edited(made_up(), **{name: value}))


def test_the_order_of_groups_may_not_be_another():
    groups = json.loads(made_up().to_json())["groups"]
    turned = dict(reversed(groups.items()))
    with pytest.raises(ValueError, match=r"groups are .*this version has.*crossview fit semantic"):
        ColumnModel.from_json(edited(made_up(), groups=turned))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "3", '"columns"', made_up().to_json()[:-200]],
    ids=["empty", "brace", "list", "object", "number", "text", "cut off"],
)
def test_what_is_not_a_model_is_refused_and_says_what_to_do(text):
    with pytest.raises(ValueError, match=r"not a column model.*crossview fit semantic"):
        ColumnModel.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": "many"},
        {"counts": [[1.0], [1.0, 2.0]]},
        {"calibration": {"sharpness": 1.0}},
        {"calibration": {"scale": 0.0}},
        {"calibration": {"scale": "high"}},
        {"counts": [1.0, 2.0]},
        {"range_shares": [0.5, 0.5]},
        {"height_mean_m": None},
        {"height_std_m": -1.0},
        {"provenance": 3},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused_and_says_what_to_do(changes):
    with pytest.raises(ValueError, match=r"not a column model.*crossview fit semantic"):
        ColumnModel.from_json(edited(made_up(), **changes))


def test_a_file_without_provenance_is_a_model_too():
    content = json.loads(made_up().to_json())
    del content["provenance"]
    assert ColumnModel.from_json(json.dumps(content)).provenance == {}


def test_another_calibration_leaves_the_tables():
    model, other = made_up(), Calibration(scale=0.25)
    changed = model.calibrated(other)
    assert changed.calibration == other
    assert np.array_equal(changed.counts, model.counts)
    assert model.calibration == Calibration()


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": np.ones((5, 9))}, r"counts .*\(5, 9, 7\), got \(5, 9\)"),
        ({"counts": np.full(COUNTS_SHAPE, -1.0)}, "counts .*not negative"),
        ({"counts": np.full(COUNTS_SHAPE, np.nan)}, "counts must be finite"),
        ({"counts": np.zeros(COUNTS_SHAPE)}, "fitted on no pixel"),
        ({"range_shares": SHARES[:-1]}, r"range_shares .*\(80,\), got \(79,\)"),
        ({"height_mean_m": 0.0}, "positive mean and standard deviation, got 0.0"),
        ({"height_std_m": math.nan}, "positive mean and standard deviation"),
    ],
)
def test_senseless_tables_are_refused(changes, message):
    fields = {"counts": np.ones(COUNTS_SHAPE), "range_shares": SHARES} | changes
    with pytest.raises(ValueError, match=message):
        ColumnModel(**fields)


def test_the_tables_of_a_model_are_its_own_and_read_only():
    counts = np.ones(COUNTS_SHAPE)
    model = ColumnModel(counts, SHARES)
    counts[:] = 7.0
    assert np.all(model.counts == 1.0)
    with pytest.raises(ValueError, match="read-only"):
        model.counts[0] = 0.0


@pytest.mark.parametrize("name", asdict(Calibration()))
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_calibration_is_finite_and_not_negative(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be"):
        replace(Calibration(), **{name: value})


@pytest.mark.parametrize("name", ["outlier_share", "unknown_level", "unexplained_share"])
def test_a_share_of_1_leaves_nothing_and_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be a share below 1.*got 1"):
        replace(Calibration(), **{name: 1})


def test_heights_may_be_certain_but_not_more():
    assert Calibration(height_share=1.0).height_share == 1.0
    with pytest.raises(ValueError, match="height_share"):
        Calibration(height_share=1.01)


@pytest.mark.parametrize("name", ["pixel_scale", "scale"])
def test_a_scale_of_0_would_ignore_the_query(name):
    with pytest.raises(ValueError, match="must be positive: 0 would ignore the query"):
        replace(Calibration(), **{name: 0.0})
