"""`crossview-data osm`: one line for a mistake, a map that VectorMap reads for the rest."""

import gzip
import hashlib
import json
import shlex
from itertools import pairwise
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import pyogrio
import pytest
import shapely
from click.testing import CliRunner
from fakes import images, overpass
from fakes.osm_files import OsmXml
from PIL import Image
from test_readme import blocks_of

from crossview import plots
from crossview.features import MapFeatures, feature_table
from crossview.frames import LocalFrame
from crossview.geopackages import map_facts
from crossview.grids import MapGrid
from crossview.manifest import Manifest
from crossview.pose_queries import map_sources
from crossview.tiles import GeoBounds
from crossview.vectors import VectorMap
from data_tools import openstreetmap
from data_tools.cli import main

MAPS_PAGE = Path(__file__).resolve().parents[1] / "docs" / "maps.md"
FLORENCE = MAPS_PAGE.parent / "figures" / "florence.png"
FRAME = LocalFrame(lat_deg=-35.2809, lon_deg=149.13)
BOUNDS = GeoBounds(149.125, -35.285, 149.135, -35.275)
BOMB = """<?xml version="1.0"?>
<!DOCTYPE osm [
 <!ENTITY a "aaaaaaaaaa">
 {entities}
]>
<osm version="0.6"><node id="1" lat="1" lon="1" version="1"><tag k="natural" v="&z;"/></node></osm>
"""


@pytest.fixture
def extract(tmp_path):
    town = OsmXml(FRAME, bounds=BOUNDS)
    town.box(0, 0, 20, 10, {"building": "house", "height": "7 m"})
    town.box(300, 0, 320, 10, {"building": "yes"})
    town.way([(-50, -5), (50, -5)], {"highway": "residential"})
    town.node(5, -8, {"natural": "tree"})
    return town.write(tmp_path / "town.osm")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "maps" / "town.gpkg"


def run(*arguments):
    return CliRunner().invoke(main, ["osm", *map(str, arguments)])


def test_a_file_becomes_a_map_that_can_be_drawn(extract, out):
    result = run(extract, "--out", out)
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["map"] == str(out)
    assert (lines["buildings"], lines["areas"], lines["lines"], lines["points"]) == (
        "2",
        "2",
        "1",
        "1",
    )
    assert (lines["date"], lines["licence"]) == ("not known", "ODbL-1.0")
    raster = VectorMap.read(out)(MapGrid.around(FRAME, 10, 5, radius_m=20, cell_m=0.5))
    assert raster.class_mask("building").sum() == pytest.approx(800, abs=40)
    assert np.nanmax(raster.building_height_m) == 7
    assert map_facts(out).source == "town.osm"  # no path of this machine


def test_json_is_one_object_on_stdout(extract, out):
    result = run(extract, "--out", out, "--json")
    said = json.loads(result.stdout)
    assert said["extent"] == list(BOUNDS)
    assert said["attribution"] == "© OpenStreetMap contributors"
    assert (said["buildings"], said["complete"], said["skipped"]) == (2, True, {})


def test_a_place_is_cut_out(extract, out, tmp_path, monkeypatch):
    area = tmp_path / "area.geojson"
    shape = shapely.box(149.1295, -35.2812, 149.1305, -35.2805)
    geopandas.GeoDataFrame(geometry=[shape], crs=4326).to_file(area)
    points = tmp_path / "points.csv"
    points.write_text("lat,lon\n-35.2809,149.1300\n-35.2808,149.1301\n")
    monkeypatch.setattr(
        openstreetmap,
        "geocoder",
        lambda _: lambda _: geopandas.GeoDataFrame(geometry=[shape], crs=4326),
    )
    for place in (
        ("--box", 149.1295, -35.2812, 149.1305, -35.2805),
        ("--around", -35.2809, 149.13, "--radius-m", 40),
        ("--points", points, "--radius-m", 40),
        ("--area", area),
        ("--place", "Canberra"),
    ):
        result = run(extract, "--out", out, "--overwrite", *place)
        assert result.exit_code == 0, result.stderr
        assert map_facts(out).extent.west == pytest.approx(149.1295, abs=1e-4)
        assert len(pyogrio.read_dataframe(out, layer="areas")) == 1


def test_a_place_that_the_file_covers_in_part_is_exit_code_1(extract, out):
    result = run(extract, "--out", out, "--box", 149.1295, -35.2812, 149.2, -35.2805)
    assert result.exit_code == 1
    assert "complete    no" in result.stdout
    assert "does not cover the whole area" in result.stderr
    assert map_facts(out).extent == (149.1295, -35.2812, 149.135, -35.2805)


def test_a_map_can_be_cut_out_of_a_map(extract, out, tmp_path):
    run(extract, "--out", out)
    part = tmp_path / "part.gpkg"
    result = run(out, "--out", part, "--around", -35.2809, 149.13, "--radius-m", 40)
    assert result.exit_code == 0, result.stderr
    assert map_facts(part).licence == "ODbL-1.0"
    assert len(pyogrio.read_dataframe(part, layer="areas")) == 1


def test_a_small_place_is_asked_of_a_server(extract, out, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSVIEW_CACHE", str(tmp_path / "cache"))
    with overpass.serving(extract) as (url, state):
        command = ("--overpass-url", url, "--box", *BOUNDS, "--out", out)
        first = run(*command, "--json")
        assert first.exit_code == 0, first.stderr
        again = run(*command, "--overwrite")
        assert "gave before" in again.stderr
        assert run(*command, "--overwrite", "--refresh").exit_code == 0
        assert len(state.queries) == 2
    said = json.loads(first.stdout)
    assert (said["date"], said["licence"]) == (overpass.DATE, "ODbL-1.0")
    assert said["source"] == "Overpass server 127.0.0.1"
    assert said["buildings"] == 2


def test_a_named_place_is_asked_of_the_geocoder_that_is_named(extract, out, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSVIEW_CACHE", str(tmp_path / "cache"))
    asked = []

    def geocoder(server):
        asked.append((server.url, server.timeout_s))
        shape = shapely.box(149.1295, -35.2812, 149.1305, -35.2805)
        return lambda _: geopandas.GeoDataFrame(geometry=[shape], crs=4326)

    monkeypatch.setattr(openstreetmap, "geocoder", geocoder)
    place = ("--place", "Canberra", "--geocoder-url", "http://localhost:1/", "--timeout-s", 7)
    assert run(extract, "--out", out, *place).exit_code == 0
    assert run(extract, "--out", out, "--overwrite", "--place", "Canberra").exit_code == 0
    assert asked == [("http://localhost:1/", 7), (openstreetmap.PUBLIC_NOMINATIM_URL, 180)]


@pytest.mark.parametrize(
    ("text", "date"), [("2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z"), ("yesterday", "")]
)
def test_a_date_is_kept_only_if_it_is_one(extract, out, text, date):
    extract.write_text(extract.read_text().replace("<osm ", f'<osm timestamp="{text}" ', 1))
    result = run(extract, "--out", out)
    assert result.exit_code == 0
    assert map_facts(out).date == date
    assert ("'yesterday' of its date" in result.stderr) == (not date)


def test_the_picture_of_florence_is_made_as_the_page_says(tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "firenze.pmtiles").symlink_to(data_dir / "osm" / "firenze.pmtiles")
    (line,) = [x for x in "".join(blocks_of(MAPS_PAGE, "bash")).splitlines() if "duomo.gpkg" in x]
    assert CliRunner().invoke(main, shlex.split(line)[1:]).exit_code == 0
    names = {"VectorMap": VectorMap, "MapGrid": MapGrid, "plots": plots, "plt": plt}
    (block,) = blocks_of(MAPS_PAGE, "py")
    exec(block, names)
    assert "© OpenStreetMap" in names["duomo"].attribution
    raster = names["raster"]
    assert raster.covered.all()
    # the nave, the middle of the baptistery, and the foot of the bell tower
    for lat_deg, lon_deg in ((43.7731, 11.2558), (43.7731, 11.2550), (43.77282, 11.25570)):
        col, row = raster.grid.to_pixel(*raster.grid.frame.to_local(lat_deg, lon_deg))
        assert raster.class_mask("building")[int(row), int(col)]
    with Image.open("florence.png") as drawn, Image.open(FLORENCE) as shown:
        assert np.subtract(drawn.size, shown.size) == pytest.approx(0, abs=12)
    assert FLORENCE.stat().st_size < 200_000


# ---------------------------------------------------------------- into a dataset


def dataset(folder, *names):
    """A saved manifest with a tile in the middle of each region."""
    place = {"lat_deg": FRAME.lat_deg, "lon_deg": FRAME.lon_deg}
    regions = [{"name": name, **place} for name in names]
    tiles = [
        {"tile_id": f"t{i}", "region": name, "image": "t.png", "cell_m": 0.5, **place}
        for i, name in enumerate(names)
    ]
    return Manifest.from_rows(
        name="town", licence="CC0-1.0", attribution="nobody", image_root=folder,
        regions=regions, tiles=tiles,
    ).save(folder / "dataset").folder  # fmt: skip


def test_a_map_becomes_part_of_a_dataset_and_is_drawn(extract, tmp_path):
    folder = dataset(tmp_path, "town")
    result = run(extract, "--into", folder, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["map"], said["buildings"]) == (str(folder / "maps" / "town.gpkg"), 2)
    manifest = Manifest.load(folder)
    (row,) = manifest.maps.to_dict("records")
    digest = hashlib.sha256((folder / "maps" / "town.gpkg").read_bytes()).hexdigest()
    assert row == {
        "region": "town", "file": "maps/town.gpkg", "kind": "osm", "surveyed": "", "date": "",
        "sha256": digest,
    }  # fmt: skip
    (file,) = manifest.map_files("town")
    assert file.path == folder / "maps" / "town.gpkg"
    raster = map_sources(manifest)["town"](MapGrid.around(FRAME, 10, 5, radius_m=20, cell_m=0.5))
    assert raster.class_mask("building").sum() == pytest.approx(800, abs=40)
    assert raster.class_mask("road").any()


def test_every_region_gets_its_own_map(extract, tmp_path):
    names = "Old town", "old_town", "Old_town_1"  # names of files that would be alike
    folder = dataset(tmp_path, *names)
    assert "3 regions (Old town, old_town, Old_town_1)" in refused(extract, "--into", folder)
    assert "no region 'x'" in refused(extract, "--into", folder, "--region", "x")
    for region in names:
        assert run(extract, "--into", folder, "--region", region).exit_code == 0
    files = Manifest.load(folder).map_files()
    assert tuple(file.region for file in files) == names
    assert len({str(file.path).casefold() for file in files}) == 3
    assert all(file.path.is_file() for file in files)


def test_the_map_of_a_region_is_replaced_only_where_that_is_wanted(extract, tmp_path):
    folder = dataset(tmp_path, "a", "b")
    for region in ("a", "b"):
        run(extract, "--into", folder, "--region", region)
    before = Manifest.load(folder).maps
    again = (extract, "--into", folder, "--region", "a", "--around", -35.2809, 149.13)
    assert "has a map already" in refused(*again, "--radius-m", 40)
    assert Manifest.load(folder).maps.equals(before)
    assert run(*again, "--radius-m", 40, "--overwrite").exit_code == 0
    after = Manifest.load(folder).maps
    assert after["region"].tolist() == ["b", "a"]
    assert after["sha256"][0] == before["sha256"][1]
    assert after["sha256"][1] != before["sha256"][0]
    path = Manifest.load(folder).map_files("a")[0].path
    assert len(pyogrio.read_dataframe(path, layer="areas")) == 1


def test_the_map_of_another_region_is_never_written_over(extract, tmp_path):
    folder = dataset(tmp_path, "a", "b")
    run(extract, "--into", folder, "--region", "a")
    # one map for two regions, as an importer may have it
    Manifest.append(folder, maps=[{"region": "b", "file": "maps/a.gpkg", "kind": "osm"}])
    shared = (folder / "maps" / "a.gpkg").read_bytes()
    part = ("--around", -35.2809, 149.13, "--radius-m", 40, "--overwrite")
    assert run(extract, "--into", folder, "--region", "a", *part).exit_code == 0
    assert (folder / "maps" / "a.gpkg").read_bytes() == shared
    assert Manifest.load(folder).map_files("a")[0].path.name == "a_1.gpkg"


FAR = {"lat_deg": -35.2809, "lon_deg": 149.137}  # beyond the extract
NEAR = {"lat_deg": -35.2800, "lon_deg": 149.1333}


def test_a_map_of_another_place_is_refused_before_anything_is_written(extract, tmp_path):
    folder = dataset(tmp_path, "town")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    far = ("--around", NEAR["lat_deg"], NEAR["lon_deg"], "--radius-m", 40)
    elsewhere = OsmXml(LocalFrame(49.28, -123.12), bounds=(-123.13, 49.27, -123.11, 49.29))
    elsewhere.box(0, 0, 20, 10, {"building": "yes"})
    town = OsmXml(FRAME, bounds=BOUNDS)
    town.box(290, 90, 310, 110, {"building": "yes"})
    for arguments in (
        (elsewhere.write(tmp_path / "elsewhere.osm"),),
        (town.write(tmp_path / "far.osm"), *far),
    ):
        words = refused(*arguments, "--into", folder)
        assert "none of the 1 views and tiles of region 'town' lies there" in words
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (folder / "maps").exists()


def test_a_map_that_misses_a_part_of_the_dataset_is_written_and_exit_code_1(extract, tmp_path):
    folder = dataset(tmp_path, "town")
    tile = {"region": "town", "image": "t.png", "cell_m": 0.5}
    Manifest.append(folder, tiles=[{"tile_id": name, **tile, **FAR} for name in ("far", "too")])
    result = run(extract, "--into", folder, "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["outside"], said["complete"]) == (2, False)
    assert "2 of 3 views and tiles of region town lie outside" in result.stderr
    result = run(extract, "--into", folder, "--overwrite")
    assert {"outside     2", "complete    no"} <= set(result.stdout.splitlines())
    assert len(Manifest.load(folder).maps) == 1


def test_a_place_beyond_the_border_of_a_map_counts_as_outside():
    # its extent is a box, of which the east was cut off along a border
    features = MapFeatures(
        feature_table([]), BOUNDS, "m", unmapped=shapely.box(149.13, *BOUNDS[1:])
    )
    places = np.array([[-35.28, 149.129], [-35.28, 149.131], [-35.29, 149.129]])
    assert openstreetmap.is_outside(features, places).tolist() == [False, True, True]


def test_check_warns_of_a_map_that_misses_views_and_refuses_one_that_cannot_be_read(
    extract, tmp_path
):
    folder = dataset(tmp_path, "town")
    images.write_png(tmp_path / "t.png", images.plain_image(4, 4))
    assert run(extract, "--into", folder).exit_code == 0
    result = CliRunner().invoke(main, ["check", str(folder), "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["warnings"] == []
    # as a script may do it that writes tables for itself
    tiles = folder / "tiles.csv"
    tiles.write_text(tiles.read_text().replace("149.13,", "149.2,"))
    result = CliRunner().invoke(main, ["check", str(folder), "--json"])
    (warning,) = json.loads(result.stdout)["warnings"]
    assert "maps.csv row 2: 1 of 1 views and tiles of region 'town' lie outside" in warning
    assert (result.exit_code, warning in result.stderr) == (0, True)
    maps = folder / "maps.csv"
    content = (folder / "maps" / "town.gpkg").read_bytes()
    maps.write_text(maps.read_text().replace(hashlib.sha256(content).hexdigest(), ""))
    (folder / "maps" / "town.gpkg").write_bytes(b"no map")
    result = CliRunner().invoke(main, ["check", str(folder)])
    assert result.exit_code == 1
    assert "maps.csv row 2, column file: " in result.stdout
    assert "cannot be read as a GeoPackage" in result.stdout


def test_no_map_is_written_outside_of_a_dataset(extract, tmp_path):
    folder = dataset(tmp_path, "../town")
    (tmp_path / "elsewhere").mkdir()
    (folder / "maps").symlink_to(tmp_path / "elsewhere")
    assert "leads out of the manifest's folder" in refused(extract, "--into", folder)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (folder / "maps").unlink()
    assert run(extract, "--into", folder).exit_code == 0
    (file,) = Manifest.load(folder).map_files()
    assert file.path.resolve().parent == folder.resolve() / "maps"


def test_a_folder_that_is_no_dataset_is_refused(extract, tmp_path):
    assert "is not a manifest" in refused(extract, "--into", tmp_path)
    assert list(tmp_path.glob("maps")) == []


# ---------------------------------------------------------------- mistakes


def refused(*arguments):
    """The one line that a mistake is answered with."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "a file, or --overpass"),
        (("town.osm", "--overpass"), "a file, or --overpass"),
        (("--overpass",), "A place"),
        (("town.osm", "--around", 1, 2), "--around needs --radius-m"),
        (("town.osm", "--radius-m", 2), "--radius-m needs --around or --points"),
        (("town.osm", "--refresh"), "--refresh needs --overpass or --overpass-url"),
        (("town.osm", "--timeout-s", 5), "--timeout-s needs --overpass or --overpass-url or"),
        (("town.osm", "--geocoder-url", "x"), "--geocoder-url needs --place"),
        (("town.osm", "--points", "nix.csv", "--radius-m", 2), "'nix.csv' does not exist"),
        (("town.osm", "--area", "nix.json"), "'nix.json' does not exist"),
        (("town.osm", "--around", 1, 2, "--radius-m", -2), "expected a positive number, got -2"),
        (("town.osm", "--place", "x", "--box", 1, 2, 3, 4), "one of them"),
        (("town.osm", "--region", "x"), "--region needs --into"),
        (("town.osm", "--into", "."), "--out FILE, or --into DATASET"),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(out, arguments, words):
    result = run(*arguments, "--out", out)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_map_that_is_there_is_kept(extract, out):
    run(extract, "--out", out)
    before = out.read_bytes()
    assert "--overwrite" in refused(extract, "--out", out)
    assert out.read_bytes() == before


def test_a_place_outside_of_the_file_is_an_error_and_no_empty_map(extract, out):
    words = refused(extract, "--out", out, "--around", -35.3, 149.2, "--radius-m", 100)
    assert "covers latitude -35.28500..-35.27500" in words
    assert "swapped" in refused(extract, "--out", out, "--box", -35.28, 149.1, -35.27, 149.2)
    words = refused(extract, "--out", out, "--around", -35.2765, 149.126, "--radius-m", 9)
    assert "Nothing is mapped" in words
    assert not out.exists()


def test_an_unknown_format_and_a_missing_file_are_errors(out, tmp_path):
    (tmp_path / "town.dxf").write_text("0\nSECTION\n")
    assert ".pmtiles" in refused(tmp_path / "town.dxf", "--out", out)
    for name in ("no.osm.pbf", "no.pmtiles", "no.gpkg", "no.parquet"):
        assert "There is no map file" in refused(tmp_path / name, "--out", out)


def test_a_name_that_no_map_can_have_is_refused_before_anything_is_read(tmp_path):
    words = refused(tmp_path / "not there.osm", "--out", tmp_path / "town.shp")
    assert "town.shp does not end in .gpkg" in words


def test_an_entity_bomb_is_refused(out, tmp_path):
    names = "abcdefghijklmnopqrstuvwxyz"
    entities = "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in pairwise(names)
    )
    text = BOMB.format(entities=entities)
    (tmp_path / "bomb.osm").write_text(text)
    (tmp_path / "bomb.osm.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("bomb.osm", "bomb.osm.gz"):
        assert "entities" in refused(tmp_path / name, "--out", out)
    outside = '<!ENTITY z SYSTEM "file:///etc/hostname">'
    (tmp_path / "file.osm").write_text(BOMB.format(entities=outside))
    assert "entities" in refused(tmp_path / "file.osm", "--out", out)


def test_an_extract_without_features_is_refused(out, tmp_path):
    path = tmp_path / "empty.osm"
    path.write_text('<?xml version="1.0"?>\n<osm version="0.6"/>\n')
    assert "holds no map feature" in refused(path, "--out", out)
    path.write_bytes(b"")
    assert "empty.osm" in refused(path, "--out", out)


def pbf_of(extract, path):
    """The extract as PBF, written by osmium."""
    import osmium

    with osmium.SimpleWriter(str(path)) as writer:
        for element in osmium.FileProcessor(str(extract)):
            writer.add(element)
    return path


def test_pbf_with_garbage_is_refused_or_another_map(extract, out, tmp_path):
    good = pbf_of(extract, tmp_path / "good.osm.pbf")
    assert run(good, "--out", out).exit_code == 0
    content = good.read_bytes()
    bad = tmp_path / "bad.osm.pbf"
    for garbage in (
        b"\x00" * 64,
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(60),
        content[: len(content) // 2],
    ):
        bad.write_bytes(garbage)
        assert "cannot be read as OpenStreetMap data" in refused(bad, "--out", out, "--overwrite")
    rng = np.random.default_rng(7)
    for _ in range(60):
        broken = bytearray(content)
        broken[rng.integers(len(broken))] = rng.integers(256)
        bad.write_bytes(bytes(broken))
        result = run(bad, "--out", out, "--overwrite")
        assert result.exit_code == 0 or result.stderr.startswith("Error: "), result.stderr


def test_a_geopackage_of_another_schema_version_is_refused(extract, out, tmp_path):
    run(extract, "--out", out)
    table = pyogrio.read_dataframe(out, layer="areas")
    said = json.loads(pyogrio.read_info(out, layer="areas")["dataset_metadata"]["CROSSVIEW_MAP"])
    old = tmp_path / "old.gpkg"
    metadata = {"CROSSVIEW_MAP": json.dumps(said | {"schema_version": 0})}
    pyogrio.write_dataframe(table, old, layer="areas", dataset_metadata=metadata)
    words = refused(old, "--out", tmp_path / "new.gpkg")
    assert "schema version 0, and this crossview reads version 1. Make it again" in words
