"""Areas and points on the globe, and the tiles that cover them; oracles: mercantile, shapely."""

import math

import geopandas as gpd
import mercantile
import numpy as np
import pyproj
import pytest
import shapely
from fakes.geojson import write_geojson
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import tiles
from data_tools.areas import Area, TileCover, cover_around, geocoded_area, read_area
from data_tools.points import Points

VANCOUVER = (-123.136, 49.2705, -123.099, 49.294)


def tile_set(cover):
    return set(zip(*(axis.tolist() for axis in cover.tiles()), strict=True))


def by_mercantile(box, zoom):
    return {(tile.x, tile.y) for tile in mercantile.tiles(*box, zoom)}


def points(*places):
    lat_deg, lon_deg = zip(*places, strict=True)
    return Points(np.array(lat_deg), np.array(lon_deg), ("",) * len(places))


# ---------------------------------------------------------------- tiles that cover an area


@given(
    west=st.floats(-179, 170),
    south=st.floats(-84, 80),
    width=st.floats(1e-4, 0.5),
    height=st.floats(1e-4, 0.5),
    zoom=st.integers(0, 14),
)
def test_the_tiles_of_a_box_agree_with_mercantile(west, south, width, height, zoom):
    box = west, south, west + width, south + height
    assert tile_set(Area.of_box(*box).cover(zoom)) == by_mercantile(box, zoom)


def test_a_box_of_whole_tiles_needs_exactly_those():
    box = mercantile.bounds(323600, 358900, 20)
    assert tile_set(Area.of_box(*box).cover(20)) == {(323600, 358900)}


def test_the_tiles_of_a_polygon_are_those_that_it_intersects():
    triangle = shapely.Polygon([(8.0, 50.0), (8.2, 50.02), (8.05, 50.15)])
    expected = {
        (tile.x, tile.y)
        for tile in mercantile.tiles(*triangle.bounds, 15)
        if shapely.intersects(triangle, shapely.box(*mercantile.bounds(tile)))
    }
    cover = Area(triangle).cover(15)
    assert tile_set(cover) == expected
    assert cover.num_tiles == len(expected) < len(by_mercantile(triangle.bounds, 15))


def test_a_country_is_counted_without_listing_its_tiles():
    netherlands = Area.of_box(3.4, 50.75, 7.2, 53.55)
    cover = netherlands.cover(19)
    x, y = tiles.tile([53.55, 50.75], [3.4, 7.2], 19)
    assert cover.num_tiles == (x[1] - x[0] + 1) * (y[1] - y[0] + 1) > 25e6
    assert cover.row.size < 10_000


def test_runs_merge_where_they_touch_or_overlap():
    cover = TileCover.of_runs(
        4, np.array([3, 2, 3, 3]), np.array([0, 5, 2, 8]), np.array([3, 6, 5, 9])
    )
    assert list(zip(cover.row, cover.first, cover.last, strict=True)) == [
        (2, 5, 6),
        (3, 0, 5),
        (3, 8, 9),
    ]
    assert cover.num_tiles == 2 + 6 + 2


def test_squares_around_points_need_the_tiles_of_their_boxes():
    rng = np.random.default_rng(0)
    places = points(*zip(rng.uniform(49.0, 49.02, 40), rng.uniform(8.0, 8.02, 40), strict=True))
    cover = cover_around(places, 60.0, 18)
    geod = pyproj.Geod(ellps="WGS84")
    expected = set()
    for lat_deg, lon_deg in zip(places.lat_deg, places.lon_deg, strict=True):
        lon, lat, _ = geod.fwd([lon_deg] * 4, [lat_deg] * 4, [0, 90, 180, 270], [60.0] * 4)
        expected |= by_mercantile((lon[3], lat[2], lon[1], lat[0]), 18)
    assert tile_set(cover) == expected
    assert tile_set(Area.around(places, 60.0).cover(18)) == expected


def test_points_far_apart_need_no_tiles_between_them():
    assert cover_around(points((49.0, 8.0), (52.0, 13.0)), 30.0, 17).num_tiles <= 8


# ---------------------------------------------------------------- the antimeridian and the poles


def test_a_box_over_the_antimeridian_is_two():
    fiji = Area.of_box(179.9, -17.0, -179.9, -16.9)
    assert fiji.bounds == (179.9, -17.0, -179.9, -16.9)
    assert fiji.center == approx((-16.95, 180.0)) or fiji.center == approx((-16.95, -180.0))
    expected = by_mercantile((179.9, -17.0, -179.9, -16.9), 12)  # mercantile splits it too
    assert tile_set(fiji.cover(12)) == expected
    assert [piece.name for piece in fiji.pieces] == ["box_west", "box_east"]
    assert [piece.shape.bounds[0] for piece in fiji.pieces] == [179.9, -180.0]


def test_squares_around_points_at_the_antimeridian_come_back_on_the_other_side():
    place = points((-16.8, 179.9999))
    cover = cover_around(place, 100.0, 17)
    assert {x for x, _ in tile_set(cover)} == {0, 2**17 - 1}
    assert tile_set(cover) == tile_set(Area.around(place, 100.0).cover(17))


def test_a_polygon_that_counts_on_beyond_180_degrees_comes_back(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", shapely.box(179.9, -17, 180.2, -16.9))
    area = read_area(path)
    assert area.bounds == approx((179.9, -17, -179.8, -16.9))
    assert area.square_km == approx(Area.of_box(179.9, -17, -179.8, -16.9).square_km)


def test_a_polygon_with_an_edge_around_the_globe_is_refused(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", shapely.box(-179.9, -17, 179.9, -16.9))
    with pytest.raises(ValueError, match=r"antimeridian.*RFC 7946"):
        read_area(path)


def test_the_poles_are_beyond_web_mercator():
    with pytest.raises(ValueError, match=r"Mercator end at 85\.0511"):
        Area.of_box(10, 84, 11, 86)
    with pytest.raises(ValueError, match=r"Mercator end at 85\.0511"):
        cover_around(points((85.05, 0.0)), 500.0, 12)


# ---------------------------------------------------------------- boxes that are none


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((49.27, -123.14, 49.29, -123.10), "seem to be swapped"),
        ((8.0, 50.0, 8.0, 50.1), "has no area"),
        ((8.0, 50.1, 8.1, 50.0), "south is north of north"),
        ((190.0, 50.0, 191.0, 51.0), "longitudes go from -180 to 180"),
        ((8.0, math.nan, 8.1, 50.0), "four numbers"),
    ],
)
def test_an_impossible_box_is_refused(box, message):
    with pytest.raises(ValueError, match=message):
        Area.of_box(*box)


def test_an_area_is_measured_on_the_ellipsoid():
    # one degree at the equator: 111.320 km by 110.574 km
    assert Area.of_box(0, -0.5, 1, 0.5).square_km == approx(111.320 * 110.574, rel=1e-4)


# ---------------------------------------------------------------- files


def test_the_polygons_of_a_geojson_are_one_area(tmp_path):
    path = write_geojson(
        tmp_path / "two.geojson", shapely.box(8, 50, 8.1, 50.1), shapely.box(9, 50, 9.1, 50.1)
    )
    area = read_area(path)
    assert area.name == "two"
    assert area.shape.area == approx(0.02)


def test_a_geojson_in_metres_of_a_national_grid_is_converted(tmp_path):
    utm = shapely.box(492000, 5458000, 493000, 5459000)
    area = read_area(write_geojson(tmp_path / "a.geojson", utm, crs="EPSG:26910"))
    assert area.square_km == approx(1.0, rel=2e-3)
    assert area.bounds.west == approx(-123.11, abs=0.01)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (shapely.Point(8, 50), "--points .*geojson --radius-m"),
        (shapely.box(49.27, -123.14, 49.29, -123.10), "seem to be swapped"),
    ],
)
def test_a_geojson_without_a_possible_area_is_refused(tmp_path, shape, message):
    with pytest.raises(ValueError, match=message):
        read_area(write_geojson(tmp_path / "a.geojson", shape))


def test_a_file_that_is_no_geojson_is_refused(tmp_path):
    (tmp_path / "a.geojson").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_area(tmp_path / "a.geojson")
    with pytest.raises(ValueError, match="There is no file"):
        read_area(tmp_path / "b.geojson")


# ---------------------------------------------------------------- names


def test_a_place_is_the_outline_that_the_geocoder_finds():
    outline = shapely.box(*VANCOUVER)
    table = gpd.GeoDataFrame({"display_name": ["V"]}, geometry=[outline], crs="EPSG:4326")
    area = geocoded_area("Vancouver", lambda place: table)
    assert (area.name, area.shape) == ("Vancouver", outline)


def test_a_place_without_an_outline_is_its_box():
    west, south, east, north = VANCOUVER
    table = gpd.GeoDataFrame(
        {"bbox_west": [west], "bbox_south": [south], "bbox_east": [east], "bbox_north": [north]},
        geometry=[shapely.Point(-123.12, 49.28)],
        crs="EPSG:4326",
    )
    assert geocoded_area("V", lambda place: table).bounds == VANCOUVER


def test_a_place_that_nobody_knows_is_said():
    with pytest.raises(ValueError, match="No place is called 'Atlantis'"):
        geocoded_area("Atlantis", lambda place: gpd.GeoDataFrame(geometry=[], crs="EPSG:4326"))
