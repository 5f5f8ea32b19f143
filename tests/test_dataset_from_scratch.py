"""The commands of docs/dataset_from_scratch.md, run as they stand, on made-up and on real files."""

import gzip
import re
import shlex
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from click.testing import CliRunner
from fakes import images as fake
from fakes.osm_files import OsmXml
from PIL import Image
from test_readme import blocks_of

from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.manifest import Manifest
from crossview.pose_queries import map_sources
from data_tools.cli import main
from data_tools.contact_sheets import map_lines

PAGE = Path(__file__).resolve().parents[1] / "docs" / "dataset_from_scratch.md"
FRAME = LocalFrame(lat_deg=-35.2809, lon_deg=149.13)
CRS = "EPSG:32755"  # UTM, whose north is off by 1.1 degrees here
ROADS_M = [[(-150.0, 8.0), (150.0, 40.0)], [(-10.0, -150.0), (15.0, 150.0)]]
HALF_WIDTH_M = 3.0
ROADS_OF_VANCOUVER = (
    '<bounds minlat="49.2660" minlon="-123.136" maxlat="49.294" maxlon="-123.0758"/>'
)
ROAD, GRASS = (70, 70, 75), (90, 140, 80)


def run_page(number):
    """Run a shell block of the page; every command must end well."""
    block = blocks_of(PAGE, "bash")[number]
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "crossview-data"
            result = CliRunner().invoke(main, words[1:])
            assert result.exit_code == 0, (line, result.output)


def write_aerial(path):
    """A lawn with two streets of 6 m, painted by pyproj and rasterio."""
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", CRS, always_xy=True)
    lines = []
    for places in ROADS_M:
        lat_deg, lon_deg = FRAME.to_geodetic(*np.array(places).T)
        lines.append(shapely.LineString(np.stack(to_utm.transform(lon_deg, lat_deg), axis=-1)))
    east, north = to_utm.transform(FRAME.lon_deg, FRAME.lat_deg)
    transform = rasterio.Affine(0.25, 0.0, east - 110, 0.0, -0.25, north + 110)
    is_road = rasterio.features.rasterize(
        [line.buffer(HALF_WIDTH_M) for line in lines], (880, 880), transform=transform
    )
    pixels = np.where(is_road.astype(bool), np.array(ROAD)[:, None, None],
                      np.array(GRASS)[:, None, None]).astype(np.uint8)  # fmt: skip
    with rasterio.open(path, "w", driver="GTiff", crs=CRS, transform=transform, width=880,
                       height=880, count=3, dtype="uint8") as file:  # fmt: skip
        file.write(pixels)


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A folder with all that the page begins with."""
    monkeypatch.chdir(tmp_path)
    write_aerial(tmp_path / "aerial.tif")
    lat_deg, lon_deg = FRAME.to_geodetic(np.array([-160.0, 160.0]), np.array([-160.0, 160.0]))
    town = OsmXml(FRAME, bounds=(lon_deg[0], lat_deg[0], lon_deg[1], lat_deg[1]))
    for places in ROADS_M:
        town.way(places, {"highway": "residential"})
    town.box(20, -20, 32, -8, {"building": "house", "height": "6 m"})
    (tmp_path / "extract.osm.gz").write_bytes(gzip.compress(town.text().encode()))
    table = blocks_of(PAGE, "text")[0]
    (tmp_path / "photos.csv").write_text(table)
    (tmp_path / "points.csv").write_text("name,lat,lon\np,-35.2809,149.13\n")
    (tmp_path / "images").mkdir()
    for row in table.splitlines()[1:]:
        fake.phone_photo(tmp_path / row.split(",")[0])
    return tmp_path


def require_roads_on_streets(manifest):
    """Where the map has a road, the tile shows one; and no street is without a road."""
    features = map_sources(manifest)["photos" if len(manifest.views) else "region"].features
    for tile_id in manifest.tiles["tile_id"]:
        with Image.open(manifest.image_path("tiles", tile_id)) as image:
            pixels = np.asarray(image).astype(float)
        rows, cols = pixels.shape[:2]
        lines = map_lines(manifest, features, manifest.row("tiles", tile_id), (cols, rows))
        is_street = np.abs(pixels - ROAD).sum(axis=-1) < np.abs(pixels - GRASS).sum(axis=-1)
        cell_m = manifest.row("tiles", tile_id)["cell_m"]
        col, row = np.arange(cols) + 0.5, np.arange(rows)[:, None] + 0.5
        roads = shapely.MultiLineString(lines["roads"])
        distance_m = shapely.distance(roads, shapely.points(*np.broadcast_arrays(col, row)))
        distance_m = distance_m * cell_m
        assert is_street[distance_m < HALF_WIDTH_M - 0.3].all()
        assert not is_street[distance_m > HALF_WIDTH_M + 0.3].any()
        assert is_street.any()


def test_photos_imagery_and_a_map_become_one_dataset(made_up):
    run_page(0)
    manifest = Manifest.load(made_up / "town" / "manifest")
    assert manifest.views["heading_deg"].tolist() == [0.0, 90.0]
    assert len(manifest.tiles) == 2
    positive = manifest.pairs[manifest.pairs["relation"] == "positive"]
    assert set(positive["view_id"]) == set(manifest.views["view_id"])
    assert [map_file.kind for map_file in manifest.map_files("photos")] == ["osm"]
    assert [p for problems in manifest.file_problems() for p in problems] == []
    require_roads_on_streets(manifest)
    x_m, y_m = manifest.frame("photos").to_local(*FRAME.to_geodetic(26.0, -14.0))
    grid = MapGrid.around(manifest.frame("photos"), float(x_m), float(y_m), radius_m=10, cell_m=0.5)
    raster = map_sources(manifest)["photos"](grid)
    assert raster.class_mask("building").sum() == pytest.approx(12 * 12 * 4, abs=40)
    with Image.open(made_up / "town.png") as sheet:
        assert min(sheet.size) > 300


def test_the_imagery_of_the_page_may_be_made_again(made_up):
    run_page(0)
    satellite = blocks_of(PAGE, "bash")[0].splitlines()[3]
    split = (
        "crossview-data split town/manifest --cell-m 10 --buffer-m 1 --share a=0.5 --share b=0.5"
    )
    for line in (split, satellite):
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)
    manifest = Manifest.load(made_up / "town" / "manifest")
    assert (manifest.views["split"] != "").any()
    assert [map_file.kind for map_file in manifest.map_files("photos")] == ["osm"]
    assert [p for problems in manifest.file_problems() for p in problems] == []


def test_places_alone_become_a_gallery_with_a_map(made_up):
    run_page(1)
    manifest = Manifest.load(made_up / "places" / "manifest")
    assert manifest.tiles["tile_id"].tolist() == ["p"]
    assert len(manifest.maps) == 1
    require_roads_on_streets(manifest)
    assert (made_up / "places.png").is_file()


def test_points_in_vancouver_become_a_gallery_with_a_map(tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aerial.tif").symlink_to(data_dir / "aerial" / "vancouver_1m.tif")
    # it states the box of its buildings; its roads, which are looked at here, reach farther
    text = gzip.decompress((data_dir / "osm" / "vancouver_downtown.osm.gz").read_bytes()).decode()
    text = re.sub("<bounds [^>]*/>", ROADS_OF_VANCOUVER, text, count=1)
    (tmp_path / "extract.osm.gz").write_bytes(gzip.compress(text.encode(), 1))
    # three along a street and its railway, and a yard without a road
    (tmp_path / "points.csv").write_text(
        "name,lat,lon\nwest,49.27045,-123.0848\nmiddle,49.27033,-123.0841\n"
        "east,49.27035,-123.0835\nyard,49.2722,-123.0835\n"
    )
    run_page(1)
    manifest = Manifest.load(tmp_path / "places" / "manifest")
    assert [p for problems in manifest.file_problems() for p in problems] == []
    (map_file,) = manifest.map_files("region")
    features = map_sources(manifest)["region"].features
    assert features.source == str(map_file.path)
    drawn = {
        tile_id: map_lines(manifest, features, manifest.row("tiles", tile_id), (240, 240))
        for tile_id in manifest.tiles["tile_id"]
    }
    assert {tile_id: len(lines["roads"]) for tile_id, lines in drawn.items()} == {
        "west": 2, "middle": 2, "east": 1, "yard": 0,
    }  # fmt: skip
    with Image.open(tmp_path / "places.png") as sheet:
        assert min(sheet.size) > 300


def test_photos_in_vancouver_get_a_map(tmp_path, data_dir):
    photos, out = data_dir / "photos_vancouver", tmp_path / "photos"
    extract = data_dir / "osm" / "vancouver_downtown.osm.gz"
    for arguments in (
        ["photos", "folder", photos, "--out", out],
        ["osm", extract, "--into", out, "--points", photos, "--radius-m", 150],
        ["check", out],
        ["sheet", out, "--out", tmp_path / "sheet.png"],
    ):
        result = CliRunner().invoke(main, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
    manifest = Manifest.load(out)
    source, frame = map_sources(manifest)["photos"], manifest.frame("photos")
    for view_id in manifest.views["view_id"]:
        pose = manifest.pose(view_id)
        raster = source(MapGrid.around(frame, pose.x_m, pose.y_m, radius_m=100, cell_m=1.0))
        assert raster.covered.all()
        assert raster.class_mask("building").mean() > 0.1
        assert raster.class_mask("road").mean() > 0.01
