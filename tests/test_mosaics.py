"""Tiles joined into a COG: bit-exact, in place, and in little memory."""

import subprocess
import sys

import mercantile
import numpy as np
import pytest
import rasterio
from fakes import pyramids
from pytest import approx
from rio_cogeo.cogeo import cog_validate

from crossview.tiles import TileId
from data_tools.areas import Area, TileCover
from data_tools.imagery import Origin, TileImagery
from data_tools.mosaics import num_tiles_of, write_mosaic

ZOOM, LEFT, TOP = 18, 41_400, 89_600
ORIGIN = Origin("made up", "© nobody", "https://example.org/terms", "2020")


def cover_of(columns, rows):
    """A rectangle of tiles."""
    row = np.arange(TOP, TOP + rows)
    return TileCover.of_runs(ZOOM, row, 0 * row + LEFT, 0 * row + LEFT + columns - 1)


def view_of(source):
    return TileImagery(source, ZOOM, ORIGIN)


def test_a_mosaic_of_lossless_tiles_is_bit_exact(tmp_path):
    source = pyramids.Tiles(pyramids.noise_tile)
    made = write_mosaic(view_of(source), cover_of(4, 3), tmp_path / "m.tif")
    assert (made.num_tiles, made.num_missing, made.is_lossless) == (12, 0, True)
    with rasterio.open(made.path) as dataset:
        assert dataset.shape == (768, 1024)
        pixels = np.moveaxis(dataset.read(), 0, -1)
    for column in range(4):
        for row in range(3):
            expected = pyramids.noise_tile((ZOOM, LEFT + column, TOP + row))
            window = np.s_[256 * row : 256 * row + 256, 256 * column : 256 * column + 256]
            assert (pixels[window][..., :3] == expected).all()
    assert (pixels[..., 3] == 255).all()


def test_a_mosaic_lies_where_its_tiles_do(tmp_path):
    source = pyramids.Tiles(pyramids.noise_tile)
    made = write_mosaic(view_of(source), cover_of(2, 3), tmp_path / "m.tif")
    north_west = mercantile.xy_bounds(LEFT, TOP, ZOOM)
    south_east = mercantile.xy_bounds(LEFT + 1, TOP + 2, ZOOM)
    with rasterio.open(made.path) as dataset:
        assert dataset.crs.to_epsg() == 3857
        pixel_m = (south_east.right - north_west.left) / 512
        tolerance_m = 0.01 * pixel_m
        assert dataset.bounds == approx(
            (north_west.left, south_east.bottom, south_east.right, north_west.top), abs=tolerance_m
        )


def test_a_mosaic_is_a_valid_cog_that_names_its_source(tmp_path):
    source = pyramids.Tiles(pyramids.noise_tile)
    made = write_mosaic(view_of(source), cover_of(5, 5), tmp_path / "m.tif")
    is_valid, errors, warnings = cog_validate(str(made.path))
    assert (is_valid, errors, warnings) == (True, [], [])
    with rasterio.open(made.path) as dataset:
        tags = dataset.tags()
        assert dataset.overviews(1)
    assert tags["ATTRIBUTION"] == tags["TIFFTAG_COPYRIGHT"] == "© nobody"
    assert (tags["PROVIDER"], tags["DATE"], tags["ZOOM"]) == ("made up", "2020", "18")
    assert tags["TERMS_URL"] == "https://example.org/terms"


def test_missing_tiles_are_transparent_and_counted(tmp_path):
    gone = TileId(ZOOM, LEFT + 1, TOP)
    source = pyramids.Tiles(pyramids.noise_tile, without=[gone])
    made = write_mosaic(view_of(source), cover_of(2, 2), tmp_path / "m.tif")
    assert (made.num_tiles, made.num_missing) == (3, 1)
    with rasterio.open(made.path) as dataset:
        alpha = dataset.read(4)
    assert (alpha[:256, 256:] == 0).all()
    assert (alpha[256:] == 255).all()


def test_a_mosaic_of_too_few_tiles_is_not_written(tmp_path):
    cover, path = cover_of(2, 1), tmp_path / "m.tif"
    ids = [TileId(ZOOM, LEFT, TOP), TileId(ZOOM, LEFT + 1, TOP)]
    none, one, both = (
        view_of(pyramids.Tiles(pyramids.noise_tile, without=gone)) for gone in (ids, ids[1:], [])
    )
    made = write_mosaic(none, cover, path)
    assert (made.path, made.num_tiles, made.num_missing) == (None, 0, 2)
    assert list(tmp_path.iterdir()) == []
    assert write_mosaic(both, cover, path).path == path
    before = path.read_bytes()
    assert write_mosaic(one, cover, path, min_tiles=num_tiles_of(path)).path is None
    assert path.read_bytes() == before
    assert write_mosaic(one, cover, path).path == path
    assert num_tiles_of(path) == 1
    path.write_text("no image")
    assert num_tiles_of(path) == num_tiles_of(tmp_path / "nothing.tif") == 0


def test_a_polygon_reads_no_tile_beside_it(tmp_path):
    row = np.array([TOP, TOP + 1])
    cover = TileCover.of_runs(ZOOM, row, np.array([LEFT, LEFT + 2]), np.array([LEFT, LEFT + 2]))
    source = pyramids.Tiles(pyramids.noise_tile)
    made = write_mosaic(view_of(source), cover, tmp_path / "m.tif")
    assert (made.width_px, made.height_px, made.num_tiles) == (768, 512, 2)
    assert source.asked == [TileId(ZOOM, LEFT, TOP), TileId(ZOOM, LEFT + 2, TOP + 1)]


def test_a_mosaic_of_jpeg_tiles_is_jpeg(tmp_path):
    def encode(pixels):
        return pyramids.encoded(pixels, "JPEG", quality=90)

    source = pyramids.Tiles(pyramids.position_tile, encode=encode)
    made = write_mosaic(view_of(source), cover_of(2, 2), tmp_path / "m.tif")
    assert not made.is_lossless
    with rasterio.open(made.path) as dataset:
        assert dataset.profile["compress"] == "jpeg"
        pixels = np.moveaxis(dataset.read([1, 2, 3])[:, :256, :256], 0, -1)
        assert (dataset.dataset_mask() == 255).all()
    expected = pyramids.position_tile((ZOOM, LEFT, TOP))
    assert np.abs(pixels.astype(float) - expected).mean() < 3


def test_an_interrupted_mosaic_leaves_nothing(tmp_path):
    class Broken:
        def get(self, tile):
            if tile.x > LEFT:
                raise KeyboardInterrupt
            return pyramids.encoded(pyramids.noise_tile(tile))

    with pytest.raises(KeyboardInterrupt):
        write_mosaic(view_of(Broken()), cover_of(2, 2), tmp_path / "m.tif")
    assert list(tmp_path.iterdir()) == []


def test_both_sides_of_the_antimeridian_become_a_mosaic_each(tmp_path):
    fiji = Area.of_box(179.999, -16.801, -179.999, -16.799, name="fiji")
    source = pyramids.Tiles(pyramids.noise_tile)
    for piece in fiji.pieces:
        made = write_mosaic(view_of(source), piece.cover(ZOOM), tmp_path / f"{piece.name}.tif")
        assert made.width_px <= 2 * 256
    with rasterio.open(tmp_path / "fiji_east.tif") as dataset:
        assert dataset.bounds.left == approx(-20037508.342789, abs=1e-3)


MEMORY = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np
from fakes import pyramids
from data_tools.areas import TileCover
from data_tools.imagery import Origin, TileImagery
from data_tools.mosaics import write_mosaic
body = pyramids.encoded(np.full((256, 256, 3), 7, np.uint8))
class Same:
    def get(self, tile):
        return body
side = int(sys.argv[1])
row = np.arange(89600, 89600 + side)
cover = TileCover.of_runs(18, row, 0 * row + 41400, 0 * row + 41400 + side - 1)
write_mosaic(TileImagery(Same(), 18, Origin("x")), cover, sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_area(tmp_path, request):
    tests = str(request.config.rootpath / "tests")

    def peak_bytes(side):
        command = [sys.executable, "-c", MEMORY.format(tests=tests), str(side), tmp_path / "m.tif"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    # 4 and 36 times the cache of 128 MB would be 100 MB and 400 MB of pixels
    assert peak_bytes(40) - peak_bytes(20) < 60e6
