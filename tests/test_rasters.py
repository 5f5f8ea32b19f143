import dataclasses

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from pytest import approx
from rasterio.enums import ColorInterp

from crossview import legends
from crossview.errors import GridMismatchError, MapError
from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.rasters import MapRaster, SatelliteTile, read_geotiff

FRAME = LocalFrame(lat_deg=49.28, lon_deg=-123.12)
GRID = MapGrid(FRAME, west_m=-20.0, north_m=30.0, cell_m=0.5, height=40, width=60)
FRAME_CRS = rasterio.CRS.from_wkt(FRAME.crs.to_wkt())
UTM = "EPSG:32610"


def noise(bands=3, dtype=np.uint8, *, high=255, shape=GRID.shape):
    return np.random.default_rng(3).integers(1, high, (bands, *shape)).astype(dtype)


def write(path, values, *, transform=GRID.transform, crs=FRAME_CRS, colors=None, **profile):
    """A GeoTIFF of (bands, rows, cols)."""
    bands, rows, cols = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=rows,
        width=cols,
        dtype=values.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as target:
        target.write(values)
        if colors:
            target.colorinterp = colors
    return path


def raster(**changes):
    values = {
        "grid": GRID,
        "classes": np.zeros((*GRID.shape, 3), np.uint8),
        "legend_id": "orienternet",
        "covered": np.ones(GRID.shape, bool),
        "surveyed": frozenset({"building"}),
        "building_height_m": np.zeros(GRID.shape, np.float32),
    }
    return MapRaster(**{**values, **changes})


# MapRaster


def test_class_mask_finds_a_class_in_its_channel():
    classes = np.zeros((*GRID.shape, 3), np.uint8)
    classes[1, 2, 0] = 1  # building
    classes[3, 4, 1] = 1  # fence
    classes[5, 6, 2] = 33  # street_cabinet
    map_raster = raster(classes=classes)
    assert np.argwhere(map_raster.class_mask("building")).tolist() == [[1, 2]]
    assert np.argwhere(map_raster.class_mask("fence")).tolist() == [[3, 4]]
    assert np.argwhere(map_raster.class_mask("street_cabinet")).tolist() == [[5, 6]]
    assert map_raster.legend.legend_id == "orienternet"


def test_unknown_class_is_an_error():
    with pytest.raises(ValueError, match="no class 'sidewalk'"):
        raster().class_mask("sidewalk")


def test_arrays_of_a_map_raster_are_its_own_and_read_only():
    covered = np.ones(GRID.shape, bool)
    map_raster = raster(covered=covered)
    covered[:] = False
    assert map_raster.covered.all()
    for name in ("classes", "covered", "building_height_m"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(map_raster, name)[0] = 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": np.zeros((40, 60), np.uint8)}, r"classes .*\(40, 60, 3\).*got \(40, 60\)"),
        ({"classes": np.zeros((40, 60, 3))}, "classes .*dtype uint8.*float64"),
        ({"covered": np.ones((60, 40), bool)}, r"covered .*\(40, 60\).*got \(60, 40\)"),
        ({"covered": np.ones((40, 60))}, "covered .*dtype bool.*float64"),
        ({"building_height_m": np.zeros((40, 60))}, "building_height_m .*float32.*float64"),
        ({"covered": None}, "covered .*NoneType"),
    ],
)
def test_array_that_does_not_fit_the_grid_is_an_error(changes, message):
    with pytest.raises(GridMismatchError, match=message):
        raster(**changes)


def test_class_beyond_the_legend_is_an_error_that_names_the_channel():
    classes = np.zeros((*GRID.shape, 3), np.uint8)
    classes[0, 0, 1] = 11
    with pytest.raises(ValueError, match=r"'ways' holds class 11.*'orienternet' has 10"):
        raster(classes=classes)


def test_unknown_legend_and_surveyed_class_are_errors():
    with pytest.raises(ValueError, match="No legend is called 'mine'"):
        raster(legend_id="mine")
    with pytest.raises(ValueError, match="surveyed names sidewalk"):
        raster(surveyed=frozenset({"sidewalk"}))


@pytest.mark.parametrize("height_m", [-1.0, np.inf])
def test_impossible_height_is_an_error(height_m):
    heights_m = np.full(GRID.shape, height_m, np.float32)
    with pytest.raises(ValueError, match="0 or more, or NaN"):
        raster(building_height_m=heights_m)


def test_unknown_height_is_nan():
    heights_m = np.full(GRID.shape, np.nan, np.float32)
    assert np.isnan(raster(building_height_m=heights_m).building_height_m).all()


def test_arrays_of_a_satellite_tile_are_its_own_and_read_only():
    rgb = np.zeros((*GRID.shape, 3), np.uint8)
    tile = SatelliteTile(GRID, rgb, np.ones(GRID.shape, bool))
    rgb[:] = 9
    assert not tile.rgb.any()
    with pytest.raises(ValueError, match="read-only"):
        tile.covered[0] = False
    with pytest.raises(GridMismatchError, match="rgb"):
        dataclasses.replace(tile, rgb=rgb[:-1])


# parts of a raster


def numbered():
    """A map whose cells all differ."""
    rng = np.random.default_rng(5)
    return raster(
        classes=rng.integers(0, 3, (*GRID.shape, 3)).astype(np.uint8),
        covered=rng.random(GRID.shape) < 0.5,
        building_height_m=rng.uniform(0, 20, GRID.shape).astype(np.float32),
    )


def test_a_cut_is_the_cells_of_the_smaller_grid():
    part = MapGrid(FRAME, GRID.west_m + 3.5, GRID.north_m - 2.0, 0.5, 10, 20)
    whole, cut = numbered(), numbered().cut(part)
    assert cut.grid == part
    for name in ("classes", "covered", "building_height_m"):
        assert np.array_equal(getattr(cut, name), getattr(whole, name)[4:14, 7:27]), name
    assert (cut.legend_id, cut.surveyed) == (whole.legend_id, whole.surveyed)


def test_a_cut_to_the_whole_grid_is_the_map():
    whole = numbered()
    assert np.array_equal(whole.cut(GRID).classes, whole.classes)


@pytest.mark.parametrize(
    "part",
    [
        MapGrid(FRAME, GRID.west_m, GRID.north_m, 0.25, 10, 10),
        MapGrid(FRAME, GRID.west_m + 0.1, GRID.north_m, 0.5, 10, 10),
        MapGrid(FRAME, GRID.west_m, GRID.north_m - 0.1, 0.5, 10, 10),
        GRID.shifted(rows=1, cols=0),
        GRID.shifted(rows=-1, cols=0),
        GRID.shifted(rows=0, cols=1),
        GRID.shifted(rows=0, cols=-1),
        MapGrid(LocalFrame(49.28, -123.13), GRID.west_m, GRID.north_m, 0.5, 10, 10),
    ],
    ids=["cells", "off in x", "off in y", "south", "north", "east", "west", "frame"],
)
def test_what_is_not_made_of_cells_of_the_map_cannot_be_cut(part):
    with pytest.raises(GridMismatchError, match=r"is asked for, and the map is on.*divided"):
        numbered().cut(part)


def test_without_heights_buildings_have_none_and_open_ground_keeps_0():
    heights_m = np.zeros(GRID.shape, np.float32)
    heights_m[:5], heights_m[5:9] = 8.0, np.nan
    bare = raster(building_height_m=heights_m).without_heights().building_height_m
    assert np.isnan(bare[:9]).all()
    assert np.all(bare[9:] == 0.0)
    assert bare.dtype == np.float32


def test_without_heights_everything_else_stays():
    whole = numbered()
    bare = whole.without_heights()
    assert np.array_equal(bare.classes, whole.classes)
    assert np.array_equal(bare.covered, whole.covered)
    assert bare.grid == whole.grid


# GeoTIFF


@pytest.mark.parametrize("resampling", ["bilinear", "nearest"])
def test_file_on_the_same_cells_comes_back_unchanged(tmp_path, resampling):
    values = noise()
    tile = read_geotiff(write(tmp_path / "a.tif", values), GRID, resampling=resampling)
    assert np.array_equal(tile.rgb, np.moveaxis(values, 0, -1))
    assert tile.covered.all()
    assert tile.grid == GRID


def test_larger_grid_is_covered_where_the_file_lies(tmp_path):
    values = noise()
    tile = read_geotiff(write(tmp_path / "a.tif", values), GRID.padded(2.0))
    assert tile.covered.sum() == GRID.height * GRID.width
    assert np.array_equal(tile.rgb[4:-4, 4:-4], np.moveaxis(values, 0, -1))
    assert not tile.rgb[~tile.covered].any()


def test_window_is_the_same_cells_of_the_file(tmp_path):
    values = noise()
    window = MapGrid(FRAME, GRID.west_m + 5, GRID.north_m - 3, GRID.cell_m, 10, 20)
    tile = read_geotiff(write(tmp_path / "a.tif", values), window)
    assert np.array_equal(tile.rgb, np.moveaxis(values, 0, -1)[6:16, 10:30])


def test_finer_file_is_averaged(tmp_path):
    fine = MapGrid(FRAME, GRID.west_m, GRID.north_m, GRID.cell_m / 4, 160, 240)
    checkers = np.indices(fine.shape).sum(axis=0) % 2 * 200
    path = write(tmp_path / "a.tif", checkers[None].astype(np.uint8), transform=fine.transform)
    assert np.ptp(read_geotiff(path, GRID).rgb[2:-2, 2:-2].astype(int)) <= 30
    assert np.mean(read_geotiff(path, GRID).rgb) == approx(100, abs=3)


def ramps(lat_deg, lon_deg):
    """Brightness by place: 4 levels a metre north, 3 a metre east, and 2 south-east."""
    north_m = (np.asarray(lat_deg) - FRAME.lat_deg) * 111_215.0
    east_m = (np.asarray(lon_deg) - FRAME.lon_deg) * 72_750.0
    return np.stack([4 * north_m + 60, 3 * east_m + 100, 2 * (east_m - north_m) + 120])


def placed(crs, west_of_anchor, north_of_anchor, cell, *, turned_deg=0.0):
    """A transform whose corner lies so far west and north of the anchor, in units of the crs."""
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [FRAME.lon_deg], [FRAME.lat_deg])
    cos, sin = cell * np.cos(np.deg2rad(turned_deg)), cell * np.sin(np.deg2rad(turned_deg))
    return Affine(cos, sin, x - west_of_anchor, sin, -cos, y + north_of_anchor)


@pytest.mark.parametrize(
    ("crs", "corner", "cell", "turned_deg"),
    [
        (UTM, (40.0, 40.0), 0.5, 0.0),
        ("EPSG:4326", (5e-4, 3e-4), 5e-6, 0.0),
        ("EPSG:3857", (60.0, 60.0), 0.6, 0.0),
        (UTM, (60.0, 40.0), 0.5, 30.0),
    ],
    ids=["utm", "degrees", "web mercator", "turned"],
)
def test_warped_image_is_right_at_every_cell_centre(tmp_path, crs, corner, cell, turned_deg):
    shape = (200, 220)
    transform = placed(crs, *corner, cell, turned_deg=turned_deg)
    a, b, c, d, e, f = transform[:6]
    row, col = np.indices(shape).reshape(2, -1) + 0.5
    lon_deg, lat_deg = rasterio.warp.transform(
        crs, "EPSG:4326", a * col + b * row + c, d * col + e * row + f
    )
    values = ramps(np.reshape(lat_deg, shape), np.reshape(lon_deg, shape))
    path = write(
        tmp_path / "a.tif",
        np.clip(np.rint(values), 0, 255).astype(np.uint8),
        crs=crs,
        transform=transform,
    )
    grid = MapGrid(FRAME, west_m=-14.0, north_m=16.0, cell_m=1.0, height=28, width=30)
    tile = read_geotiff(path, grid)
    expected = np.moveaxis(ramps(*FRAME.to_geodetic(*np.meshgrid(*grid.centers()))), 0, -1)
    assert tile.covered.all()
    assert expected.min() >= 0
    assert expected.max() <= 255
    # half a cell is 2 levels in red and 1.5 in green
    assert np.abs(tile.rgb - expected)[..., :2].max() < 1.2
    assert np.abs(tile.rgb - expected).mean() < 0.4


def test_nodata_is_not_covered(tmp_path):
    values = noise()
    values[:, :5] = 0
    tile = read_geotiff(write(tmp_path / "a.tif", values, nodata=0), GRID)
    assert not tile.covered[:5].any()
    assert tile.covered[5:].all()
    assert np.array_equal(tile.rgb, np.moveaxis(values, 0, -1))


def test_nodata_does_not_bleed_into_its_neighbours(tmp_path):
    values = np.full((1, *GRID.shape), 200, np.uint8)
    values[:, :, :31] = 0
    path = write(tmp_path / "a.tif", values, nodata=0)
    shifted = MapGrid(FRAME, GRID.west_m + 0.2, GRID.north_m - 0.2, GRID.cell_m, 39, 59)
    tile = read_geotiff(path, shifted)
    assert np.all(tile.rgb[tile.covered] == 200)
    assert tile.covered.any()
    assert not tile.covered.all()


def test_transparent_pixels_are_not_covered(tmp_path):
    alpha = np.full((1, *GRID.shape), 255, np.uint8)
    alpha[:, :, :7] = 0
    values = np.concatenate([noise(), alpha])
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    tile = read_geotiff(write(tmp_path / "a.tif", values, colors=colors), GRID)
    assert not tile.covered[:, :7].any()
    assert tile.covered[:, 7:].all()
    assert np.array_equal(tile.rgb[:, 7:], np.moveaxis(values[:3], 0, -1)[:, 7:])
    assert not tile.rgb[:, :7].any()


def test_alpha_band_needs_not_be_the_last(tmp_path):
    alpha, infrared = np.full((2, 1, *GRID.shape), [[[[255]]], [[[0]]]], np.uint8)
    alpha[:, :, :7] = 0
    values = np.concatenate([noise(), alpha, infrared])
    path = write(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    with rasterio.open(path) as written:
        assert written.colorinterp[3:] == (ColorInterp.alpha, ColorInterp.undefined)
    tile = read_geotiff(path, GRID)
    assert np.array_equal(tile.covered, alpha[0] > 0)
    assert np.array_equal(tile.rgb[:, 7:], np.moveaxis(values[:3], 0, -1)[:, 7:])


def test_masked_pixels_are_not_covered(tmp_path):
    path = write(tmp_path / "a.tif", noise())
    mask = np.full(GRID.shape, 255, np.uint8)
    mask[:, -3:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    covered = read_geotiff(path, GRID).covered
    assert np.array_equal(covered, mask > 0)


def test_bands_are_taken_by_their_colour(tmp_path):
    values = noise(4)
    colors = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    path = write(tmp_path / "a.tif", values, colors=colors, photometric="MINISBLACK")
    assert np.array_equal(read_geotiff(path, GRID).rgb, np.moveaxis(values[[3, 2, 1]], 0, -1))


def test_one_band_is_grey(tmp_path):
    values = noise(1)
    tile = read_geotiff(write(tmp_path / "a.tif", values), GRID)
    assert np.array_equal(tile.rgb, np.repeat(values[0][..., None], 3, axis=-1))


def test_palette_becomes_its_colours(tmp_path):
    values = noise(1, high=3)
    path = write(tmp_path / "a.tif", values, photometric="PALETTE")
    table = {1: (255, 0, 0, 255), 2: (0, 128, 64, 255)}
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, table)
    expected = np.array([(0, 0, 0), table[1][:3], table[2][:3]])[values[0]]
    assert np.array_equal(read_geotiff(path, GRID).rgb, expected)


def test_sixteen_bits_are_stretched_over_the_range(tmp_path):
    values = np.linspace(0, 3000, GRID.height * GRID.width).reshape(1, *GRID.shape)
    path = write(tmp_path / "a.tif", values.astype(np.uint16))
    grey = read_geotiff(path, GRID, value_range=(500, 1520)).rgb[..., 0]
    expected = np.clip(np.rint((values[0].astype(int) - 500) / 4), 0, 255)
    assert np.array_equal(grey, expected)


def test_sixteen_bits_are_stretched_alike_in_every_window(tmp_path):
    values = np.linspace(0, 3000, GRID.height * GRID.width).reshape(1, *GRID.shape)
    path = write(tmp_path / "a.tif", values.astype(np.uint16))
    whole = read_geotiff(path, GRID).rgb
    window = MapGrid(FRAME, GRID.west_m, GRID.north_m, GRID.cell_m, 10, 60)
    assert np.array_equal(read_geotiff(path, window).rgb, whole[:10])
    assert whole.min() == 0
    assert whole.max() == 255
    assert np.mean(whole == 0) == approx(0.02, abs=0.005)


def test_floating_point_nodata_is_not_covered(tmp_path):
    values = noise(1, np.float32)
    values[:, :4] = np.nan
    tile = read_geotiff(write(tmp_path / "a.tif", values, nodata=np.nan), GRID)
    assert np.array_equal(tile.covered, ~np.isnan(values[0]))


@pytest.mark.parametrize("band", [0, 2])
def test_not_a_number_is_not_covered_though_the_file_declares_no_nodata(tmp_path, band):
    values = noise(3, np.float32)
    values[band, :4] = np.nan
    tile = read_geotiff(write(tmp_path / "a.tif", values), GRID)
    assert not tile.covered[:4].any()
    assert tile.covered[4:].all()


def test_attribution_and_date_travel_with_the_tile(tmp_path):
    path = write(tmp_path / "a.tif", noise())
    tile = read_geotiff(path, GRID, attribution="City of Vancouver", date="2015-07")
    assert (tile.attribution, tile.date) == ("City of Vancouver", "2015-07")


def test_system_can_be_named_where_the_file_does_not(tmp_path):
    values = noise()
    path = write(tmp_path / "a.tif", values, crs=None)
    with pytest.raises(MapError, match=r"does not name its coordinate system.*crs='EPSG:"):
        read_geotiff(path, GRID)
    tile = read_geotiff(path, GRID, crs=FRAME.crs.to_wkt())
    assert np.array_equal(tile.rgb, np.moveaxis(values, 0, -1))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_image_without_a_place_is_an_error(tmp_path):
    path = write(tmp_path / "a.tif", noise(), transform=Affine.identity())
    with pytest.raises(MapError, match="does not say where it lies"):
        read_geotiff(path, GRID)


@pytest.mark.parametrize("place", [(49.4, -123.0), (48.85, 2.35), (-49.28, 56.88)])
def test_image_of_another_place_is_an_error_that_names_both(tmp_path, place):
    path = write(tmp_path / "a.tif", noise())
    grid = MapGrid(LocalFrame(*place), -10.0, 10.0, 0.5, 40, 40)
    with pytest.raises(MapError, match=rf"west=-123\.12.*grid Bounds.*lat_deg={place[0]}"):
        read_geotiff(path, grid)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(MapError, match=r"no file .*nowhere\.tif"):
        read_geotiff(tmp_path / "nowhere.tif", GRID)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_broken_file_is_an_error(tmp_path, share):
    path = write(tmp_path / "a.tif", noise(shape=(200, 300)))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    grid = MapGrid(FRAME, GRID.west_m, GRID.north_m, 0.5, 200, 300)
    with pytest.raises(MapError, match="complete GeoTIFF"):
        read_geotiff(path, grid)


def test_unknown_resampling_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"'bilinear', 'nearest'.*'cubic'"):
        read_geotiff(write(tmp_path / "a.tif", noise()), GRID, resampling="cubic")


@pytest.mark.parametrize(
    ("name", "lat_deg", "lon_deg"),
    [
        ("atlanta_spacenet.tif", 33.6384, -84.4789),
        ("lasvegas_spacenet.tif", 36.1406, -115.2320),
        ("vancouver_1m.tif", 49.2720, -123.0780),
    ],
)
def test_real_images_fill_a_tile(data_dir, name, lat_deg, lon_deg):
    grid = MapGrid.around(LocalFrame(lat_deg, lon_deg), 0, 0, radius_m=100, cell_m=0.5)
    tile = read_geotiff(data_dir / "aerial" / name, grid)
    assert tile.covered.all()
    assert 30 < tile.rgb.mean() < 220
    assert tile.rgb.std() > 20


# ------------------------------------------------------------------------- coarser


def test_a_coarser_cell_is_a_building_where_half_of_it_is_and_as_high_as_its_highest():
    cells = MapGrid(LocalFrame(50.0, 8.0), 10.0, 20.0, 0.5, 4, 6)
    channel, building = legends.legend("crossview").find("building")
    classes = np.zeros((4, 6, 3), np.uint8)
    height_m = np.zeros((4, 6), np.float32)
    for row, col, top_m in ((0, 0, 5.0), (0, 1, 7.0), (1, 2, 9.0), (2, 4, np.nan), (3, 5, 3.0)):
        classes[row, col, channel], height_m[row, col] = building, top_m
    covered = np.ones((4, 6), bool)
    covered[3, 0] = False
    known = frozenset({"building"})
    coarse = MapRaster(cells, classes, "crossview", covered, known, height_m).coarsened(2)
    assert coarse.grid == MapGrid(cells.frame, 10.0, 20.0, 1.0, 2, 3)
    assert coarse.class_mask("building").tolist() == [[True, False, False], [False, False, True]]
    assert coarse.building_height_m[0].tolist() == [7.0, 0.0, 0.0]
    assert np.isnan(coarse.building_height_m[1, 2])
    assert coarse.covered.tolist() == [[True, True, True], [False, True, True]]


def test_a_map_knows_a_class_where_it_is_drawn_or_was_surveyed_and_only_where_covered():
    cells = MapGrid(LocalFrame(50.0, 8.0), 0.0, 1.0, 1.0, 1, 3)
    channel, building = legends.legend("crossview").find("building")
    classes = np.zeros((1, 3, 3), np.uint8)
    classes[0, 0, channel] = building
    covered = np.array([[True, True, False]])
    height_m = np.zeros((1, 3), np.float32)

    def known(*surveyed):
        names = frozenset(surveyed)
        drawn = MapRaster(cells, classes, "crossview", covered, names, height_m)
        return drawn.knows("building").tolist()

    assert known("building") == [[True, True, False]]
    assert known() == [[True, False, False]]
