"""Crops in true metres: where they lie, what they are called, which view they show."""

import numpy as np
import pyproj
import pytest
import shapely
from fakes import pyramids
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pytest import approx

from crossview import tiles
from crossview.frames import LocalFrame
from crossview.tiles import TileId
from data_tools import crops
from data_tools.areas import Area
from data_tools.crops import POSITIVE, SEMIPOSITIVE, CropSize
from data_tools.imagery import Origin, TileImagery
from data_tools.points import Points

GEOD = pyproj.Geod(ellps="WGS84")
SIZE = CropSize(100, 0.5)
BOX = (-123.12, 49.28, -123.117, 49.2815)


def points(lat_deg, lon_deg, names=None):
    names = tuple(names or ("",) * len(lat_deg))
    return Points(np.array(lat_deg), np.array(lon_deg), names)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("measures", "pixel_m", "expected"),
    [
        ((70.0, 512, None), None, (512, 70 / 512)),
        ((70.0, None, 0.25), None, (280, 0.25)),
        ((None, 640, 0.1), None, (640, 0.1)),
        ((70.0, None, None), 0.3, (233, 0.3)),
        ((None, 512, None), 0.3, (512, 0.3)),
    ],
)
def test_a_size_is_two_measures_or_one_and_the_pixel(measures, pixel_m, expected):
    size = CropSize.of(*measures, pixel_m=pixel_m)
    assert (size.side_px, size.cell_m) == approx(expected)


def test_a_crop_that_is_larger_than_memory_is_refused():
    assert CropSize.of(100.0, crops.MAX_SIDE_PX, None).side_px == 16_384
    for measures in ((0.5, 100_000, None), (5_000.0, None, 0.1)):
        with pytest.raises(ValueError, match=r"more than the 16,384"):
            CropSize.of(*measures)


@pytest.mark.parametrize("measures", [(70.0, 512, 0.1), (70.0, 0, None), (-1.0, 512, None)])
def test_an_impossible_size_is_refused(measures):
    with pytest.raises(ValueError, match="--crop-m"):
        CropSize.of(*measures)


def test_one_measure_without_a_pixel_is_refused():
    assert CropSize.of(None, None, None) is None
    with pytest.raises(ValueError, match="Give two of"):
        CropSize.of(70.0, None, None)


# ---------------------------------------------------------------- centred on points


def test_a_centred_crop_has_its_point_in_the_middle_and_its_size_on_the_ground():
    places = points([-35.28, -35.29], [149.13, 149.14])
    frames, regions = crops.regions_of(places)
    made = crops.centred_crops(places, SIZE, frames, regions)
    for crop, lat_deg, lon_deg in zip(made, places.lat_deg, places.lon_deg, strict=True):
        grid = crop.grid
        assert grid.to_pixel(*grid.frame.to_local(lat_deg, lon_deg)) == approx((50.0, 50.0))
        corners = grid.to_xy(np.array([0, 100, 0]), np.array([50, 50, 0]))
        lat, lon = grid.frame.to_geodetic(*corners)
        azimuth_deg, _, side_m = GEOD.inv(lon[0], lat[0], lon[1], lat[1])
        assert side_m == approx(50.0, abs=1e-4)
        assert azimuth_deg == approx(90.0, abs=0.01)
    centers = crops.centers_of(made)
    assert centers.lat_deg == approx(places.lat_deg, abs=1e-9)
    assert centers.lon_deg == approx(places.lon_deg, abs=1e-9)


def test_crops_have_the_names_of_their_points_where_those_differ(caplog):
    frames, regions = crops.regions_of(points([49.0, 49.0], [8.0, 8.001]))
    for names, expected, words in (
        (("a/b é.jpg", "c.JPEG"), ["a_b_", "c"], ""),
        (("same", "same"), ["000000", "000001"], "2 are double, such as 'same'"),
        (("a/b", "a_b"), ["000000", "000001"], "2 are double, such as 'a/b'"),
        (("...", "x"), ["000000", "000001"], "1 are no file names, such as '...'"),
        (("", "x"), ["000000", "000001"], "1 are no file names, such as ''"),
        (("", ""), ["000000", "000001"], ""),
    ):
        caplog.clear()
        places = points([49.0, 49.0], [8.0, 8.001], names)
        made = crops.centred_crops(places, SIZE, frames, regions)
        assert [crop.tile_id for crop in made] == expected
        assert words in caplog.text
        assert bool(caplog.records) == bool(words)


def test_points_of_two_cities_have_two_regions():
    frames, regions = crops.regions_of(
        points([49.0, 52.0, 49.01, 52.01], [8.0, 13.0, 8.01, 13.01]), "town"
    )
    assert regions.tolist() == ["town_1", "town_2", "town_1", "town_2"]
    assert frames["town_2"] == LocalFrame(52.005, 13.005)


def test_a_region_may_lie_on_both_sides_of_the_antimeridian():
    frames, regions = crops.regions_of(points([-16.8, -16.8], [179.99, -179.99]))
    assert set(regions) == {"region"}
    assert abs(frames["region"].lon_deg) == approx(180.0)


# ---------------------------------------------------------------- on a grid


@given(overlap=st.sampled_from([0.0, 0.25, 0.5]), turn=st.floats(0.0, 1.0))
def test_crops_on_a_grid_cover_an_area(overlap, turn):
    west, south, east, north = BOX
    shape = shapely.Polygon([(west, south), (east, south), (east, north - turn * 0.001)])
    frames, made = crops.grid_crops(Area(shape), SIZE, overlap=overlap)
    (frame,) = frames.values()
    squares = [shapely.box(*bounds_of(crop)) for crop in made]
    lonlat = shapely.get_coordinates(shapely.segmentize(shape, 1e-4))
    corners = np.stack(frame.to_local(lonlat[:, 1], lonlat[:, 0]), axis=-1)
    assert shapely.covers(shapely.union_all(squares).buffer(1e-6), shapely.Polygon(corners))


def bounds_of(crop):
    bounds = crop.grid.bounds
    return bounds.west_m, bounds.south_m, bounds.east_m, bounds.north_m


def test_at_half_an_overlap_every_place_is_in_the_middle_half_of_one_crop():
    area = Area.of_box(*BOX)
    frames, made = crops.grid_crops(area, SIZE, overlap=0.5)
    (frame,) = frames.values()
    rng = np.random.default_rng(0)
    lat_deg, lon_deg = rng.uniform(BOX[1], BOX[3], 300), rng.uniform(BOX[0], BOX[2], 300)
    x_m, y_m = frame.to_local(lat_deg, lon_deg)
    pairs = list(crops.pairs_of([str(i) for i in range(300)], x_m, y_m, made))
    for i in range(300):
        mine = [pair["relation"] for pair in pairs if pair["view_id"] == str(i)]
        assert mine.count(POSITIVE) == 1
        assert 1 <= len(mine) <= 4


def test_a_crop_of_a_grid_is_named_by_row_and_column_from_the_north_west():
    _, made = crops.grid_crops(Area.of_box(*BOX), SIZE, region="van")
    first, last = made[0], made[-1]
    assert first.tile_id == "van_r0000_c0000"
    assert bounds_of(first)[0] < bounds_of(last)[0]
    assert bounds_of(first)[3] > bounds_of(last)[3]
    assert len({crop.tile_id for crop in made}) == len(made)


def test_areas_that_do_not_fit_a_frame_or_are_too_many_crops_are_refused():
    with pytest.raises(ValueError, match="50 km from its middle"):
        crops.grid_crops(Area.of_box(8.0, 50.0, 10.0, 51.0), SIZE)
    with pytest.raises(ValueError, match="crops of 5 m, more than"):
        crops.grid_crops(Area.of_box(8.0, 50.0, 8.2, 50.1), CropSize(10, 0.5))
    with pytest.raises(ValueError, match="overlap"):
        crops.grid_crops(Area.of_box(*BOX), SIZE, overlap=1.0)


# ---------------------------------------------------------------- views and files


def test_a_view_is_positive_in_the_middle_half_and_semipositive_outside():
    frames, regions = crops.regions_of(points([49.0], [8.0]))
    made = crops.centred_crops(points([49.0], [8.0], ["t"]), SIZE, frames, regions)
    x_m = np.array([0.0, 12.4, 12.6, 24.9, 25.1])
    pairs = list(crops.pairs_of(list("abcde"), x_m, 0 * x_m, made))
    assert [(pair["view_id"], pair["relation"]) for pair in pairs] == [
        ("a", POSITIVE),
        ("b", POSITIVE),
        ("c", SEMIPOSITIVE),
        ("d", SEMIPOSITIVE),
    ]


def test_crops_are_written_whole_and_those_without_imagery_are_left_out(tmp_path):
    zoom = 18
    frames, regions = crops.regions_of(points([49.0, 49.0], [8.0, 8.01]))
    made = crops.centred_crops(points([49.0, 49.0], [8.0, 8.01], "ab"), SIZE, frames, regions)

    class West:
        def get(self, tile):
            lon_deg = tile.x / 2**zoom * 360 - 180
            return pyramids.encoded(pyramids.position_tile(tile)) if lon_deg < 8.005 else None

    view = TileImagery(West(), zoom, Origin("x"))
    first, second = crops.write_crops(view, made, tmp_path / "crops")
    assert (first.file, first.covered) == ("a.png", 1.0)
    assert (second.file, second.covered) == (None, 0.0)
    assert [path.name for path in (tmp_path / "crops").iterdir()] == ["a.png"]
    with Image.open(tmp_path / "crops" / "a.png") as image:
        assert (np.asarray(image) == view.on(made[0].grid).rgb).all()


def test_a_crop_with_a_hole_is_written_when_asked_for(tmp_path):
    frames, regions = crops.regions_of(points([49.0], [8.0]))
    made = crops.centred_crops(points([49.0], [8.0], ["a"]), SIZE, frames, regions)
    x, y = (int(axis) for axis in tiles.tile(49.0, 8.0, 18))
    source = pyramids.Tiles(pyramids.position_tile, without=[TileId(18, x, y)])
    view = TileImagery(source, 18, Origin("x"))
    (crop,) = crops.write_crops(view, made, tmp_path)
    assert crop.file is None
    assert 0 < crop.covered < 1
    (crop,) = crops.write_crops(view, made, tmp_path, image_format="jpg", min_covered=0.1)
    assert crop.file == "a.jpg"
    with pytest.raises(ValueError, match="expected png or jpg"):
        list(crops.write_crops(view, made, tmp_path, image_format="gif"))
