import math

import mercantile
import morecantile
import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import tiles

ZOOMS = range(31)
WEB_MERCATOR = morecantile.tms.get("WebMercatorQuad")
GEOD = pyproj.Geod(ellps="WGS84")


def random_places(seed, count=100):
    rng = np.random.default_rng(seed)
    return rng.uniform(-85, 85, count), rng.uniform(-180, 180, count)


def random_tiles(zoom, count=100):
    rng = np.random.default_rng(zoom)
    return rng.integers(0, 2**zoom, count), rng.integers(0, 2**zoom, count)


@pytest.mark.parametrize("zoom", ZOOMS)
def test_the_tile_of_a_place_agrees_with_mercantile(zoom):
    lat_deg, lon_deg = random_places(zoom)
    x, y = tiles.tile(lat_deg, lon_deg, zoom)
    expected = [mercantile.tile(lon, lat, zoom) for lat, lon in zip(lat_deg, lon_deg, strict=True)]
    assert x.tolist() == [tile.x for tile in expected]
    assert y.tolist() == [tile.y for tile in expected]


@pytest.mark.parametrize("zoom", range(25))
def test_the_tile_of_a_place_agrees_with_morecantile(zoom):
    lat_deg, lon_deg = random_places(100 + zoom, 20)
    x, y = tiles.tile(lat_deg, lon_deg, zoom)
    for i in range(lat_deg.size):
        tile = WEB_MERCATOR.tile(lon_deg[i], lat_deg[i], zoom)
        assert (x[i], y[i]) == (tile.x, tile.y)


@pytest.mark.parametrize("zoom", ZOOMS)
def test_bounds_agree_with_mercantile(zoom):
    x, y = random_tiles(zoom)
    bounds = tiles.bounds(x, y, zoom)
    for i in range(x.size):
        expected = mercantile.bounds(int(x[i]), int(y[i]), zoom)
        ours = [bounds.west[i], bounds.south[i], bounds.east[i], bounds.north[i]]
        assert ours == approx(list(expected), abs=1e-11)


@pytest.mark.parametrize("zoom", range(25))
def test_bounds_agree_with_morecantile(zoom):
    x, y = random_tiles(zoom, 20)
    bounds = tiles.bounds(x, y, zoom)
    for i in range(x.size):
        expected = WEB_MERCATOR.bounds(morecantile.Tile(int(x[i]), int(y[i]), zoom))
        ours = [bounds.west[i], bounds.south[i], bounds.east[i], bounds.north[i]]
        assert ours == approx(list(expected), abs=1e-9)


def test_bounds_are_west_south_east_north_and_row_0_is_north():
    # the north-west quarter of the world
    bounds = tiles.bounds(0, 0, 1)
    assert tiles.GeoBounds._fields == ("west", "south", "east", "north")
    assert tuple(bounds) == approx((-180, 0, 0, math.degrees(math.atan(math.sinh(math.pi)))))


@pytest.mark.parametrize("zoom", ZOOMS)
def test_the_centre_of_a_tile_is_in_it(zoom):
    x, y = random_tiles(zoom)
    lat_deg, lon_deg = tiles.geodetic(x + 0.5, y + 0.5, zoom)
    assert np.array_equal(tiles.tile(lat_deg, lon_deg, zoom), (x, y))


@pytest.mark.parametrize("zoom", ZOOMS)
def test_the_north_west_corner_of_a_tile_is_in_it(zoom):
    x, y = random_tiles(zoom)
    bounds = tiles.bounds(x, y, zoom)
    assert np.array_equal(tiles.tile(bounds.north, bounds.west, zoom), (x, y))


@given(st.floats(-85, 85), st.floats(-180, 180), st.integers(0, 22))
def test_position_and_geodetic_are_inverse(lat_deg, lon_deg, zoom):
    back = tiles.geodetic(*tiles.position(lat_deg, lon_deg, zoom), zoom)
    assert back == approx((lat_deg, lon_deg), abs=1e-9)


def test_positions_are_in_tiles_x_east_and_y_south_from_the_north_west_corner():
    assert tiles.position(0, 0, 3) == approx((4, 4))
    x, y = tiles.position([40, -40], [10, 10], 0)
    assert x == approx([0.5 + 10 / 360] * 2)
    assert y[0] < 0.5 < y[1]


@pytest.mark.parametrize("zoom", ZOOMS)
def test_the_poles_belong_to_the_first_and_last_row(zoom):
    _, y = tiles.tile([90, 86, -86, -90], 0.0, zoom)
    assert y.tolist() == [0, 0, 2**zoom - 1, 2**zoom - 1]


@pytest.mark.parametrize("zoom", ZOOMS)
def test_the_antimeridian_belongs_to_the_first_and_last_column(zoom):
    x, _ = tiles.tile(0.0, [-180.0, 180.0], zoom)
    assert x.tolist() == [0, 2**zoom - 1]


def test_everything_is_vectorised_and_tiles_are_integers():
    x, y = tiles.tile(np.zeros((3, 4)), np.zeros((3, 4)), 5)
    assert x.shape == y.shape == (3, 4)
    assert x.dtype == y.dtype == np.int64
    assert tiles.bounds(x, y, 5).west.shape == (3, 4)
    east_west_m, north_south_m = tiles.resolution_m(np.zeros((3, 1)), 5)
    assert east_west_m.shape == north_south_m.shape == (3, 1)


@pytest.mark.parametrize("lat_deg", [91, -91, math.nan])
def test_a_latitude_that_is_no_latitude_is_refused(lat_deg):
    with pytest.raises(ValueError, match=r"-90\.\.90"):
        tiles.tile([0, lat_deg], 0, 3)


@pytest.mark.parametrize("lon_deg", [181, 540, -180.5, math.nan, math.inf])
def test_a_longitude_that_is_no_longitude_is_refused(lon_deg):
    with pytest.raises(ValueError, match=r"-180\.\.180"):
        tiles.tile(0, [0, lon_deg], 3)


@pytest.mark.parametrize("zoom", [-1, 31, 2.5])
def test_a_zoom_outside_of_the_pyramid_is_refused(zoom):
    with pytest.raises(ValueError, match="zoom"):
        tiles.tile(0, 0, zoom)


# ---------------------------------------------------------------- ground resolution


@pytest.mark.parametrize(
    "lat_deg, east_west_percent, north_south_percent",
    [
        (-35.28, 0.112, -0.336),
        (51.75, 0.207, -0.051),
        (47.6, 0.183, -0.123),
        (49.0, 0.191, -0.098),
        (0.0, 0.0, -0.669),
    ],
    ids=["Canberra", "Oxford", "Seattle", "Karlsruhe", "equator"],
)
def test_the_usual_formula_is_wrong_by_the_published_percentages(
    lat_deg, east_west_percent, north_south_percent
):
    usual_m = 156543.03392804097 * math.cos(math.radians(lat_deg)) / 2**19
    east_west_m, north_south_m = tiles.resolution_m(lat_deg, 19)
    assert 100 * (east_west_m / usual_m - 1) == approx(east_west_percent, abs=0.003)
    assert 100 * (north_south_m / usual_m - 1) == approx(north_south_percent, abs=0.003)


@pytest.mark.parametrize("lat_deg", [-80.0, -35.28, 0.0, 30.0, 51.75, 70.0])
@pytest.mark.parametrize("zoom", [14, 19])
def test_resolution_is_the_geodesic_size_of_a_pixel(lat_deg, zoom):
    x, y = tiles.position(lat_deg, 149.0, zoom)
    half = 0.5 / 256
    lat, lon = tiles.geodetic(
        np.array([x - half, x + half, x, x]), np.array([y, y, y - half, y + half]), zoom
    )
    _, _, east_west_m = GEOD.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, north_south_m = GEOD.inv(lon[2], lat[2], lon[3], lat[3])
    assert tiles.resolution_m(lat_deg, zoom) == approx((east_west_m, north_south_m), rel=1e-6)


def test_a_tile_of_512_pixels_has_half_the_resolution():
    coarse, fine = tiles.resolution_m(40, 15), tiles.resolution_m(40, 15, tile_px=512)
    assert np.divide(coarse, fine) == approx([2, 2])
