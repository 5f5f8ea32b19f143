"""Places in strips against a look at every place."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from crossview.frames import LocalFrame
from crossview.grids import Bounds, MapGrid, PoseGrid
from crossview.posterior import Posterior
from crossview.strips import Disc, Strips, probability_at, strip_order

FRAME = LocalFrame(52.5, 13.4)


def strips(positions_m, strip_m=250.0):
    positions_m = np.asarray(positions_m, dtype=float)
    return Strips(positions_m[strip_order(positions_m, strip_m)], strip_m)


def scattered(count, seed):
    rng = np.random.default_rng(seed)
    # whole tens: places share coordinates with each other, with edges and with strips
    return rng.integers(-150, 150, (count, 2)) * 10.0 + rng.choice([0.0, 0.3], (count, 2))


def checked(places, prior, inside):
    rows = places.rows_inside(prior)
    expected = [k for k, (x_m, y_m) in enumerate(places.positions_m) if inside(x_m, y_m)]
    assert rows.tolist() == expected


@settings(deadline=None)
@given(
    st.integers(1, 300), st.integers(0, 1000), st.integers(1, 200),
    st.tuples(st.integers(-180, 180), st.integers(-180, 180)), st.sampled_from([40.0, 250.0, 1e5]),
)  # fmt: skip
def test_a_disc_holds_what_is_within_its_radius(count, seed, radius, middle, strip_m):
    places = strips(scattered(count, seed), strip_m)
    disc = Disc(10.0 * middle[0], 10.0 * middle[1], 10.0 * radius)
    checked(
        places,
        disc,
        lambda x_m, y_m: (x_m - disc.x_m) ** 2 + (y_m - disc.y_m) ** 2 <= disc.radius_m**2,
    )


@settings(deadline=None)
@given(
    st.integers(1, 300), st.integers(0, 1000),
    st.lists(st.integers(-180, 180), min_size=4, max_size=4), st.sampled_from([40.0, 250.0]),
)  # fmt: skip
def test_a_box_holds_what_is_between_its_edges(count, seed, edges, strip_m):
    places = strips(scattered(count, seed), strip_m)
    west, east = sorted(10.0 * e for e in edges[:2])
    south, north = sorted(10.0 * e for e in edges[2:])
    rows = places.rows_in_box(Bounds(west, south, east, north))
    expected = [
        k
        for k, (x_m, y_m) in enumerate(places.positions_m)
        if west <= x_m <= east and south <= y_m <= north
    ]
    assert rows.tolist() == expected


def test_a_polygon_with_a_hole_holds_what_shapely_says():
    places = strips(scattered(400, seed=3))
    area = shapely.Polygon(
        [(-900, -700), (1100, -200), (300, 1200)],
        holes=[[(0, 0), (300, 0), (300, 300), (0, 300)]],
    )
    checked(places, area, lambda x_m, y_m: area.covers(shapely.Point(x_m, y_m)))
    both = shapely.MultiPolygon([area, shapely.box(-1400, 900, -1000, 1300)])
    checked(places, both, lambda x_m, y_m: both.covers(shapely.Point(x_m, y_m)))


def raster(mass):
    """A posterior over cells of 100 m, the first row north of the second."""
    mass = np.asarray(mass, dtype=float)
    grid = PoseGrid(MapGrid(FRAME, -100.0, 100.0, 100.0, *mass.shape), 4)
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass / mass.sum() / 4)
    return Posterior(grid, np.repeat(log_mass[:, :, None], 4, axis=2))


def test_a_raster_holds_cells_with_any_probability():
    prior = raster([[3.0, 0.0, 1.0], [0.0, 4.0, 0.0]])
    places = strips([(-50, 50), (50, 50), (150, 50), (-50, -50), (50, -50), (150, -50), (950, 0)])
    rows = places.rows_inside(prior)
    assert sorted(map(tuple, places.positions_m[rows])) == [(-50, 50), (50, -50), (150, 50)]
    np.testing.assert_allclose(
        sorted(probability_at(prior, places.positions_m[rows])), [1 / 8, 3 / 8, 4 / 8], rtol=1e-6
    )


def test_the_southern_and_the_eastern_edge_of_a_raster_belong_to_its_last_cells():
    prior = raster([[1.0, 2.0], [3.0, 10.0]])
    assert probability_at(prior, np.array([[100.0, -100.0]])) == pytest.approx(10 / 16)
    assert len(strips([(100.0, -100.0), (100.1, -100.0)]).rows_inside(prior)) == 1


def test_distances_are_those_to_the_nearest_place():
    places = strips([(0, 0), (400, 0)])
    assert places.distance_m(Disc(0, 1000, 660)) == pytest.approx(340)
    assert places.distance_m(shapely.box(500, -10, 600, 10)) == pytest.approx(100)
    assert places.distance_to_box_m(Bounds(403, 4, 500, 10)) == pytest.approx(5)
    assert places.distance_to_box_m(Bounds(-10, -10, 10, 10)) == 0
    # the only cell that is possible has its centre at (-50, 50)
    prior = raster([[1.0, 0.0], [0.0, 0.0]])
    assert places.distance_m(prior) == pytest.approx(50 * 2**0.5)


def test_places_in_another_order_are_refused():
    with pytest.raises(ValueError, match="strip_order"):
        Strips(np.array([[1.0, 0.0], [0.0, 0.0]]), 250.0)


@pytest.mark.parametrize("disc", [(0, 0, 0), (0, 0, -1), (np.nan, 0, 5), (0, 0, np.inf)])
def test_a_disc_without_a_size_or_place_is_refused(disc):
    with pytest.raises(ValueError, match="positive radius"):
        Disc(*disc)


def test_what_is_no_prior_is_refused():
    places = strips([(0, 0)])
    with pytest.raises(ValueError, match="empty"):
        places.rows_inside(shapely.Polygon())
    with pytest.raises(TypeError, match="got a tuple"):
        places.rows_inside((0, 0, 10))
