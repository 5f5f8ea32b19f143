"""The blur of the column matcher: a literal convolution that keeps all mass."""

import math

import numpy as np
import pytest
from fakes.court_columns import (
    BLURRED,
    GRID,
    SHARP,
    SMALL,
    calibrated,
    court_matcher,
    court_view,
    empty_map,
    scores_on,
)
from pytest import approx
from scipy import special

from crossview.grids import PoseGrid


@pytest.fixture(scope="module")
def matcher():
    return court_matcher()


@pytest.fixture(scope="module")
def view():
    return court_view()


def normal_weights(sigma, reach, *, cumulative):
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    if cumulative:
        weights = special.ndtr((offsets + 0.5) / sigma) - special.ndtr((offsets - 0.5) / sigma)
    return weights / weights.sum()


def test_the_blur_is_a_literal_convolution_of_probabilities(matcher, view):
    """Mass moves by 0.6 m along rows and columns, and by 5 degrees around."""
    across, around = (
        normal_weights(1.2, 4, cumulative=False),
        normal_weights(5.0 * 64 / 360, 3, cumulative=True),
    )
    wide = PoseGrid(GRID.map.padded(2.0), 64)
    ratio = np.exp(scores_on(calibrated(matcher, SHARP), view, wide).astype(float))
    expected = np.zeros(GRID.shape)
    for down, weight_down in enumerate(across):
        for right, weight_right in enumerate(across):
            part = ratio[down : down + GRID.map.height, right : right + GRID.map.width]
            expected += weight_down * weight_right * part
    expected = sum(w * np.roll(expected, k - 3, axis=2) for k, w in enumerate(around))
    # the literal weights spread as far as they should
    assert math.sqrt(across @ np.arange(-4, 5) ** 2) * 0.5 == approx(0.6, rel=0.02)
    found = scores_on(calibrated(matcher, BLURRED), view, GRID)
    with np.errstate(divide="ignore"):
        log_expected = np.log(expected)
    possible = np.isfinite(log_expected)
    assert found[possible] == approx(log_expected[possible], abs=1e-3)
    assert np.all(found[~possible] == -np.inf)
    assert possible.any()


def test_a_blur_moves_no_mass_in_or_out_of_what_is_alike_everywhere(matcher, view):
    sharp = scores_on(calibrated(matcher, SHARP), view, SMALL, maps=empty_map)
    blurred = scores_on(calibrated(matcher, BLURRED), view, SMALL, maps=empty_map)
    assert blurred == approx(sharp, abs=1e-3)
