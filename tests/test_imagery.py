"""Imagery on grids in true metres: tiles, raster files, archives."""

import sqlite3
import struct
import zlib

import numpy as np
import pyproj
import pytest
import rasterio
from fakes import pyramids
from pytest import approx

from crossview import tiles
from crossview.errors import MapError
from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.tiles import TileId
from data_tools import downloads, imagery, pmtiles, providers, satellite
from data_tools.imagery import FileImagery, Origin, TileImagery
from data_tools.tile_store import TileImage

ORIGIN = Origin("made up", "nobody", "https://example.org/terms", "2020-05-01")
ZOOM = 19
CANBERRA = LocalFrame(-35.2809, 149.13)


def grid_at(frame, *, x_m=0.0, y_m=0.0, side_px=200, cell_m=0.4):
    half_m = side_px * cell_m / 2
    return MapGrid(frame, x_m - half_m, y_m + half_m, cell_m, side_px, side_px)


def expected_colors(grid):
    """What the pattern looks like on a grid, cell by cell, by pyproj."""
    col, row = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x_m, y_m = grid.to_xy(col, row)
    to_globe = pyproj.Transformer.from_crs(grid.frame.crs, "EPSG:4326", always_xy=True)
    lon_deg, lat_deg = to_globe.transform(x_m, y_m)
    return pyramids.position_colors(lat_deg, lon_deg)


def shift_m(tile):
    """How far the pattern lies from its place, east and north, by least squares over all cells."""
    grid, step = tile.grid, 0.05
    east, north = (
        expected_colors(
            MapGrid(grid.frame, grid.west_m - x, grid.north_m - y, grid.cell_m, *grid.shape)
        )
        for x, y in ((step, 0.0), (0.0, step))
    )
    expected = expected_colors(grid)
    slopes = np.stack([(moved - expected).ravel() / step for moved in (east, north)], axis=-1)
    return np.linalg.lstsq(slopes, (tile.rgb - expected).ravel(), rcond=None)[0]


def difference(tile, expected):
    return np.abs(tile.rgb.astype(float) - expected).max()


@pytest.mark.parametrize(
    "place",
    [(-35.2809, 149.13), (49.28, -123.12), (0.0, 0.0), (-16.8, 179.9999), (-16.8, -180.0)],
    ids=["south", "west", "equator", "east of the seam", "west of the seam"],
)
def test_tiles_on_a_grid_show_the_ground_where_it_is(place):
    frame = LocalFrame(*place)
    source = pyramids.Tiles(pyramids.position_tile)
    grid = grid_at(frame, x_m=30.0, y_m=-20.0)
    tile = TileImagery(source, ZOOM, ORIGIN).on(grid)
    assert tile.covered.all()
    assert difference(tile, expected_colors(grid)) <= 2
    assert np.abs(shift_m(tile)).max() < 0.01 * grid.cell_m
    assert (tile.attribution, tile.date) == ("nobody", "2020-05-01")


def test_a_crop_of_larger_cells_averages():
    source = pyramids.Tiles(pyramids.position_tile)
    grid = grid_at(CANBERRA, side_px=50, cell_m=1.6)
    tile = TileImagery(source, ZOOM, ORIGIN).on(grid)
    assert tile.covered.all()
    assert difference(tile, expected_colors(grid)) <= 2.5


def test_where_a_tile_is_missing_nothing_is_covered():
    x, y = tiles.tile(-35.2809, 149.13, ZOOM)
    gone = TileId(ZOOM, int(x), int(y))
    source = pyramids.Tiles(pyramids.position_tile, without=[gone])
    grid = grid_at(CANBERRA)
    tile = TileImagery(source, ZOOM, ORIGIN).on(grid)
    assert not tile.covered.all()
    assert tile.covered.any()
    assert (tile.rgb[~tile.covered] == 0).all()
    col, row = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    lat_deg, lon_deg = CANBERRA.to_geodetic(*grid.to_xy(col, row))
    column, line = tiles.tile(lat_deg, lon_deg, ZOOM)
    inside = (column == gone.x) & (line == gone.y)
    assert np.mean(tile.covered == ~inside) > 0.98  # but for cells on the edge


def test_no_tile_at_all_covers_nothing():
    class Empty:
        def get(self, tile):
            return None

    tile = TileImagery(Empty(), ZOOM, ORIGIN).on(grid_at(CANBERRA))
    assert not tile.covered.any()


def test_neighbouring_crops_decode_a_tile_once():
    source = pyramids.Tiles(pyramids.position_tile)
    view = TileImagery(source, ZOOM, ORIGIN)
    for x_m in (0.0, 5.0, 10.0):
        view.on(grid_at(CANBERRA, x_m=x_m))
    assert len(source.asked) == len(set(source.asked))


def test_palette_grey_and_jpeg_tiles_are_decoded():
    grey = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256).astype(np.uint8)
    pixels = imagery.decoded_tile(pyramids.encoded(grey), 256)
    assert pixels.shape == (256, 256, 4)
    assert (pixels[..., :3] == grey[..., None]).all()
    assert (pixels[..., 3] == 255).all()
    body = pyramids.encoded(np.zeros((256, 256, 3), np.uint8), "JPEG")
    assert imagery.decoded_tile(body, 256).shape == (256, 256, 4)


def test_a_tile_of_another_size_is_refused_with_the_option_that_helps():
    body = pyramids.encoded(np.zeros((512, 512, 3), np.uint8))
    with pytest.raises(MapError, match=r"512 x 512 pixels, expected 256 x 256.*--tile-px 512"):
        imagery.decoded_tile(body, 256)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_a_tile_that_is_no_image_is_refused(body):
    with pytest.raises(MapError, match="no image of PNG, JPEG, WEBP"):
        imagery.decoded_tile(body, 256)


def test_lossless_formats_are_known():
    pixels = pyramids.noise_tile((1, 0, 0))
    assert imagery.is_lossless(pyramids.encoded(pixels))
    assert imagery.is_lossless(pyramids.encoded(pixels, "WEBP", lossless=True))
    assert not imagery.is_lossless(pyramids.encoded(pixels, "WEBP"))
    assert not imagery.is_lossless(pyramids.encoded(pixels, "JPEG"))


# ---------------------------------------------------------------- files


def write_tif(path, grid, pixels, **tags):
    with rasterio.open(
        path, "w", driver="GTiff", count=3, dtype="uint8", height=grid.height, width=grid.width,
        crs=rasterio.CRS.from_wkt(grid.frame.crs.to_wkt()), transform=grid.transform,
    ) as target:  # fmt: skip
        target.write(np.moveaxis(pixels, -1, 0))
        target.update_tags(**tags)
    return path


def test_a_raster_file_is_imagery_with_what_its_tags_say(tmp_path):
    grid = grid_at(CANBERRA, side_px=40)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = write_tif(tmp_path / "a.tif", grid, pixels, ATTRIBUTION="someone", DATE="2019")
    found = FileImagery(path)
    assert found.origin == Origin("a.tif", "someone", "", "2019")
    assert (found.on(grid).rgb == pixels).all()
    assert not found.on(grid_at(CANBERRA, x_m=500.0)).covered.any()


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"nothing")
    with pytest.raises(MapError, match="cannot be read as an image"):
        FileImagery(tmp_path / "a.tif")
    with pytest.raises(MapError, match="There is no file"):
        FileImagery(tmp_path / "b.tif")


# ---------------------------------------------------------------- archives


def write_mbtiles(path, found, **metadata):
    """Somebody else's MBTiles, as its specification has it."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE metadata (name text, value text)")
    connection.execute(
        "CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, "
        "tile_data blob)"
    )
    connection.executemany("INSERT INTO metadata VALUES (?, ?)", metadata.items())
    rows = [(z, x, 2**z - 1 - y, body) for (z, x, y), body in found.items()]
    connection.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return path


def varint(number):
    body = b""
    while number >= 0x80:
        body += bytes([number & 0x7F | 0x80])
        number >>= 7
    return body + bytes([number])


def write_pmtiles(path, found, *, tile_type=2):
    """A PMTiles of one directory, as its specification (version 3) has it."""
    ordered = sorted((pmtiles.tile_id(*tile), body) for tile, body in found.items())
    ids = [number for number, _ in ordered]
    steps = [b - a for a, b in zip([0, *ids], ids, strict=False)]
    lengths = [len(body) for _, body in ordered]
    offsets = np.cumsum([0, *lengths[:-1]]) + 1
    numbers = [len(ids), *steps, *[1] * len(ids), *lengths, *map(int, offsets)]
    directory = b"".join(map(varint, numbers))
    metadata = b'{"name": "aerial 2021-06-01", "attribution": "someone"}'
    bodies = b"".join(body for _, body in ordered)
    root, said = 127, 127 + len(directory)
    start = said + len(metadata)
    header = b"PMTiles\x03" + struct.pack(
        "<8Q3Q6B4iB2i",
        root, len(directory), said, len(metadata), start, 0, start, len(bodies),
        len(ids), len(ids), len(ids), 1, 1, 1, tile_type, 17, 17, 0, 0, 0, 0, 17, 0, 0,
    )  # fmt: skip
    path.write_bytes(header + directory + metadata + bodies)
    return path


def some_tiles(zoom=17):
    x, y = (int(axis) for axis in tiles.tile(CANBERRA.lat_deg, CANBERRA.lon_deg, zoom))
    ids = [(zoom, x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return {tile: pyramids.encoded(pyramids.position_tile(tile)) for tile in ids}


@pytest.mark.parametrize("kind", ["mbtiles", "pmtiles"])
def test_an_archive_of_tiles_is_imagery(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "mbtiles":
        write_mbtiles(
            path, some_tiles(), name="aerial", attribution="someone", format="png",
            minzoom="17", maxzoom="17",
        )  # fmt: skip
    else:
        write_pmtiles(path, some_tiles())
    grid = grid_at(CANBERRA, side_px=60)
    with imagery.open_archive(path) as archive:
        tile = archive.on(grid)
    assert archive.zoom == 17
    assert archive.origin.attribution == "someone"
    assert tile.covered.all()
    assert difference(tile, expected_colors(grid)) <= 5  # pixels of a metre


def test_a_store_of_ours_says_of_its_imagery_what_the_provider_did(tmp_path):
    provider = providers.from_template(
        "https://a.example/{z}/{x}/{y}", name="aerial", attribution="someone",
        terms_url="https://a.example/terms", capture_date="2000/2005",
    )  # fmt: skip
    with downloads.store_for(provider, tmp_path / "a.mbtiles") as store:
        store.put_many(TileImage(TileId(*tile), body, 256) for tile, body in some_tiles().items())
    said = Origin("aerial", "someone", "https://a.example/terms", "2000/2005")
    with imagery.open_archive(tmp_path / "a.mbtiles") as archive:
        assert archive.origin == said == satellite.origin_of(provider)


def test_vector_tiles_are_no_imagery(tmp_path):
    path = write_pmtiles(tmp_path / "a.pmtiles", {(17, 0, 0): zlib.compress(b"x")}, tile_type=1)
    with pytest.raises(MapError, match="vector tiles"), imagery.open_archive(path):
        pass
    path = write_mbtiles(tmp_path / "a.mbtiles", {}, format="pbf")
    with pytest.raises(MapError, match="vector tiles"), imagery.open_archive(path):
        pass


def test_a_zoom_that_an_archive_lacks_is_refused(tmp_path):
    path = write_pmtiles(tmp_path / "a.pmtiles", some_tiles())
    with (
        pytest.raises(MapError, match="has the zooms 17 to 17, not 19"),
        imagery.open_archive(path, zoom=19),
    ):
        pass


def test_our_mercator_is_the_one_of_web_maps():
    """The seam-free projection that crops are cut in agrees with EPSG:3857 to the millimetre."""
    source = pyramids.Tiles(pyramids.noise_tile)
    view = TileImagery(source, ZOOM, ORIGIN)
    with view._opened(np.zeros((256, 256, 4), np.uint8), 479_000 * 256, 317_000 * 256, 149.13) as (
        dataset,
        crs,
    ):
        to_globe = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
        lon_deg, lat_deg = to_globe.transform(*(dataset.transform @ (0, 0)))
    north, west = tiles.geodetic(479_000, 317_000, ZOOM)
    assert (lat_deg, lon_deg) == approx((float(north), float(west)), abs=1e-8)


def test_a_virtual_raster_is_imagery_too(tmp_path):
    grid = grid_at(CANBERRA, side_px=40)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    write_tif(tmp_path / "a.tif", grid, pixels)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{band}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    transform = ", ".join(repr(number) for number in grid.transform.to_gdal())
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="40" rasterYSize="40"><SRS>{grid.frame.crs.to_wkt()}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"
    )
    assert (FileImagery(tmp_path / "a.vrt").on(grid).rgb == pixels).all()
