"""Queries and maps that say nothing, and places that are impossible."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fakes.court import HEIGHT_M
from fakes.court_columns import (
    BLURRED,
    FRAME,
    GRID,
    SHARP,
    SMALL,
    SOFT,
    calibrated,
    court_matcher,
    court_view,
    empty_map,
    raster_on,
    scores_on,
)
from pytest import approx

from crossview.column_model import ColumnModel
from crossview.columns import GROUPS, NUM_AZIMUTHS, NUM_ELEVATIONS, ColumnView
from crossview.grids import MapGrid, PoseGrid
from crossview.photos import Panorama
from crossview.posterior import Posterior
from crossview.synthetic.palette import CLASSES, colored


@pytest.fixture(scope="module")
def matcher():
    return court_matcher()


@pytest.fixture(scope="module")
def view():
    return court_view()


def same_class(name, *, seen=True):
    """A view of one group everywhere, or of nothing."""
    probability = np.zeros((NUM_AZIMUTHS, NUM_ELEVATIONS, len(GROUPS)), np.float32)
    if seen:
        probability[..., list(GROUPS).index(name)] = 1.0
    return (ColumnView(probability, np.full(probability.shape[:2], seen), HEIGHT_M),)


def test_a_panorama_that_is_alike_all_around_says_nothing_of_its_heading(matcher):
    labels = np.full((90, 180), CLASSES.index("sky"), np.uint8)
    labels[40:] = CLASSES.index("building")
    labels[50:] = CLASSES.index("road")
    scores = scores_on(calibrated(matcher, SHARP), Panorama(colored(labels)), SMALL)
    assert np.ptp(scores, axis=2).max() < 1e-2
    assert np.ptp(scores) > 1.0


def test_a_map_without_buildings_says_the_same_everywhere(matcher, view):
    scores = scores_on(calibrated(matcher, BLURRED), view, SMALL, maps=empty_map)
    prior = Posterior.flat(SMALL)
    assert prior.update(scores).log_mass == approx(prior.log_mass, abs=2e-2)
    # headings sum the same columns in another order
    assert np.ptp(scores) < 2e-2


def test_a_query_that_sees_nothing_is_as_good_as_a_place_unknown_on_open_ground(matcher):
    nothing = same_class("sky", seen=False)
    assert scores_on(matcher, nothing, SMALL, maps=empty_map) == approx(0.0, abs=1e-4)
    sharp = scores_on(calibrated(matcher, SHARP), nothing, GRID)
    assert sharp[np.isfinite(sharp)] == approx(0.0, abs=1e-4)


def test_of_a_query_that_sees_nothing_all_free_places_are_alike(matcher):
    nothing = same_class("sky", seen=False)
    free = np.isfinite(scores_on(calibrated(matcher, SHARP), nothing, GRID))
    scores = scores_on(calibrated(matcher, replace(SHARP, unexplained_share=0.02)), nothing, GRID)
    assert scores[free] == approx(0.0, abs=1e-4)
    # and a camera is not inside of a building, whatever it sees
    assert scores[~free] == approx(math.log(0.02))


@pytest.mark.parametrize("name", GROUPS)
def test_a_query_of_one_class_all_around_fits_no_place_better_than_another(matcher, name):
    scores = scores_on(matcher, same_class(name), SMALL)
    prior = Posterior.flat(SMALL)
    assert prior.update(scores).log_mass == approx(prior.log_mass, abs=1e-3)


def test_a_query_of_no_scenery_at_all_says_nothing(matcher):
    """What a network calls "background" all over, at night: neither here nor elsewhere."""
    assert np.unique(scores_on(matcher, same_class("other"), SMALL)).tolist() == [0.0]


def test_where_all_groups_show_alike_everywhere_any_query_says_nothing(matcher):
    flat = ColumnModel(np.full_like(matcher.model.counts, 500.0), matcher.model.range_shares)
    scores = scores_on(replace(matcher, model=flat), same_class("wall"), SMALL)
    assert scores == approx(0.0, abs=1e-3)


def inside_a_building():
    """3 x 3 m in the eastern building of the court, farther from its wall than the blur."""
    return MapGrid(FRAME, 14.5, 0.0, 0.5, 6, 6)


def test_a_camera_inside_of_a_building_keeps_the_floor(matcher, view):
    scores = scores_on(matcher, view, PoseGrid(inside_a_building(), 64))
    assert scores == approx(math.log(SOFT.unexplained_share))


@pytest.mark.parametrize("num_headings", [64, 1])
def test_without_a_floor_a_camera_inside_of_a_building_is_impossible(matcher, view, num_headings):
    grid = PoseGrid(inside_a_building(), num_headings)
    assert np.all(scores_on(calibrated(matcher, BLURRED), view, grid) == -np.inf)


def test_a_place_that_the_map_does_not_cover_is_a_place_unknown(matcher, view):
    def unknown(cells):
        nowhere = np.zeros(cells.shape, bool)
        return raster_on(cells, nowhere, covered=nowhere)

    assert scores_on(matcher, view, SMALL, maps=unknown) == approx(0.0, abs=1e-3)
