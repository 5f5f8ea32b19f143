"""Satellite imagery end to end, from real servers on loopback: TiTiler, and MapProxy before it."""

import json
import math
import re
import shutil
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mercantile
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from fakes import pyramids, real_tile_servers
from fakes.tile_server import TileServer, tile_bytes
from PIL import Image
from pytest import approx

from crossview import rasters, tiles
from crossview.errors import DatasetError, MapError
from crossview.manifest import Manifest
from data_tools import (
    capabilities,
    downloads,
    fetch,
    galleries,
    providers,
    satellite,
    tile_plans,
)
from data_tools.areas import Area
from data_tools.cli import main
from data_tools.mosaics import num_tiles_of
from data_tools.points import Points
from data_tools.tile_store import TileImage, TileStore

ZOOM, LEFT, TOP = 18, 41_400, 89_600
COLUMNS, ROWS = 6, 5
"""Tiles of the GeoTIFF that the servers show, whose pixels are those of the zoom."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A GeoTIFF on the tiles' own pixels: every tile is a window of it."""
    tile_m = pyramids.WORLD_M / 2**ZOOM
    pixels = np.concatenate(
        [
            np.concatenate(
                [pyramids.position_tile((ZOOM, LEFT + i, TOP + j)) for i in range(COLUMNS)], axis=1
            )
            for j in range(ROWS)
        ]
    )
    path = tmp_path_factory.mktemp("source") / "aerial.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, dtype="uint8", height=256 * ROWS, width=256 * COLUMNS,
        crs="EPSG:3857", tiled=True, photometric="RGB",
        transform=Affine(
            tile_m / 256, 0, LEFT * tile_m - pyramids.WORLD_M / 2,
            0, -tile_m / 256, pyramids.WORLD_M / 2 - TOP * tile_m,
        ),
    ) as target:  # fmt: skip
        target.write(np.moveaxis(pixels, -1, 0))
    return path


@pytest.fixture(scope="module")
def titiler():
    with real_tile_servers.titiler() as base:
        yield base


@pytest.fixture(scope="module")
def template(titiler, source):
    return real_tile_servers.titiler_template(titiler, source)


@pytest.fixture(scope="module")
def mapproxy(template, tmp_path_factory):
    path = tmp_path_factory.mktemp("mapproxy") / "mapproxy.yaml"
    real_tile_servers.write_mapproxy_configuration(path, template)
    with real_tile_servers.mapproxy(path) as base:
        yield base


def inner_box(columns=4, rows=3):
    """Degrees of some tiles of the source, its border left out."""
    box = tiles.bounds(np.array([LEFT + 1, LEFT + columns]), np.array([TOP + 1, TOP + rows]), ZOOM)
    return box.west[0], box.south[1], box.east[1], box.north[0]


def middle():
    west, south, east, north = inner_box()
    return (south + north) / 2, (west + east) / 2


def run(*arguments):
    return CliRunner().invoke(main, ["satellite", *(str(argument) for argument in arguments)])


def read_window(path, bounds):
    """Pixels of a raster within bounds of its own system, (3, rows, cols)."""
    with rasterio.open(path) as dataset:
        window = rasterio.windows.from_bounds(*bounds, dataset.transform)
        assert [window.col_off, window.row_off] == approx(
            [round(window.col_off), round(window.row_off)], abs=0.01
        )
        return dataset.read([1, 2, 3], window=window.round_offsets().round_lengths())


# ---------------------------------------------------------------- a mosaic


def assert_is_the_source(mosaic, source):
    with rasterio.open(mosaic) as dataset:
        assert dataset.shape == (3 * 256, 4 * 256)
        assert (dataset.read(4) == 255).all()
        mine, bounds = dataset.read([1, 2, 3]), dataset.bounds
    assert (mine == read_window(source, bounds)).all()


def test_xyz_tiles_become_a_mosaic_that_is_bit_exact_and_in_place(tmp_path, source, template):
    result = run("--box", *inner_box(), "--url", template, "--zoom", ZOOM, "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'o' / 'box.tif'}\n"
    assert "12 tiles fetched" in result.stderr
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"box.tif", "tiles.mbtiles"}
    assert_is_the_source(tmp_path / "o" / "box.tif", source)


@pytest.mark.parametrize(
    "service",
    [
        ("--wmts", "/wmts/1.0.0/WMTSCapabilities.xml", "--layer", "aerial"),
        ("--wmts", "/service?SERVICE=WMTS&REQUEST=GetCapabilities&VERSION=1.0.0"),
        ("--wmts", "/service", "--layer", "aerial"),
        ("--wms", "/service?", "--layer", "aerial", "--wms-format", "image/png"),
    ],
    ids=["wmts restful", "wmts only layer", "wmts of a service's address", "wms"],
)
def test_other_services_of_a_real_server_give_the_same_pixels(tmp_path, source, mapproxy, service):
    kind, path, *options = service
    out = tmp_path / "o"
    result = run(
        "--box", *inner_box(), kind, mapproxy + path, *options, "--zoom", ZOOM, "--out", out
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert_is_the_source(out / "box.tif", source)


def test_an_address_that_is_no_wmts_is_told_in_the_servers_words(tmp_path, mapproxy, monkeypatch):
    monkeypatch.setattr(fetch, "LONGEST_BACKOFF_S", 0.0)
    box = ("--box", *inner_box(), "--zoom", ZOOM, "--out", tmp_path / "o")
    assert_refused("The server says: unknown WMTS request", *box, "--wmts",
                   mapproxy + "/service?SERVICE=WMTS&REQUEST=GetNothing")  # fmt: skip
    assert_refused("status 404", *box, "--wmts", mapproxy + "/nothing")


def test_the_login_of_a_wmts_is_told_for_tiles_of_the_same_server_only(mapproxy, monkeypatch):
    url = mapproxy.replace("//", "//bob:s3cret@") + "/service"
    provider = satellite.wmts_provider(url)
    assert provider.template.startswith(mapproxy)
    assert provider.headers == {"Authorization": "Basic Ym9iOnMzY3JldA=="}
    assert satellite.wmts_provider(mapproxy + "/service").headers == {}

    def moved(document, layer, *, url):
        described = capabilities.wmts_layer(document, layer, url=url)
        return replace(described, template=described.template.replace("127.0.0.1", "b.example"))

    monkeypatch.setattr(satellite, "capabilities", SimpleNamespace(
        document_url=capabilities.document_url, wmts_layer=moved))  # fmt: skip
    elsewhere = satellite.wmts_provider(url)
    assert "b.example" in elsewhere.template
    assert elsewhere.headers == {}


def test_a_password_reaches_the_server_and_nothing_that_is_made(tmp_path):
    csv = write_points(tmp_path / "p.csv", middle())
    with TileServer(tile_px=256) as server:
        url = server.url.replace("//", "//bob:s3cr%40et@")
        result = run("--points", csv, "--url", url, "--zoom", ZOOM, "--crop-m", 30, "--mosaic",
                     "--out", tmp_path / "o")  # fmt: skip
        assert result.exit_code == 0, result.output
        assert {entry.headers["Authorization"] for entry in server.log} == {
            "Basic Ym9iOnMzY3JAZXQ="
        }
        server.absent.update(entry.tile for entry in server.log)
    down = run("--points", csv, "--url", url, "--zoom", ZOOM - 1, "--crop-m", 30,
               "--out", tmp_path / "o", "--rate", 1e4, "--json")  # fmt: skip
    assert down.exit_code == 1
    made = [path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()]
    assert len(made) > 8
    for text in (result.output.encode(), down.output.encode(), *made):
        assert not any(part in text for part in (b"s3cr", b"Ym9iOnMz", b"bob"))


def test_a_second_run_fetches_nothing(tmp_path, template):
    command = ("--box", *inner_box(), "--url", template, "--zoom", ZOOM, "--out", tmp_path / "o")
    run(*command)
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    tiles_of = json.loads(result.stdout)["tiles"]
    assert (tiles_of["stored"], tiles_of["already"], tiles_of["bytes"]) == (0, 12, 0)


def test_missing_tiles_are_exit_code_1_and_named(tmp_path, template):
    west, south, east, north = inner_box()
    box = (west - 0.01, south, east, north)  # TiTiler says 404 outside of its file
    result = run(
        "--box", *box, "--url", template, "--zoom", ZOOM, "--out", tmp_path / "o", "--json"
    )
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert not answer["complete"]
    assert answer["tiles"]["absent"] == answer["mosaics"][0]["num_missing"] > 0
    assert f"{answer['tiles']['absent']} tiles are not at the provider" in result.stderr


def test_a_place_without_a_single_tile_is_questioned(tmp_path, template):
    box = ("--box", 2.30, 48.80, 2.301, 48.801)
    result = run(*box, "--url", template, "--zoom", ZOOM, "--out", tmp_path / "o")
    assert result.exit_code == 1
    assert "none of these tiles. Is the place right" in result.stderr
    assert "--ask-absent-again" in result.stderr


def test_a_mosaic_is_not_replaced_by_less_after_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "LONGEST_BACKOFF_S", 0.0)
    out, ids = (
        tmp_path / "o",
        [(ZOOM, LEFT + 1 + i, TOP + 1 + j) for i in range(4) for j in range(3)],
    )
    with TileServer(tile_px=256, faults={tile: ["500"] * 6 for tile in ids[:5]}) as server:
        command = ("--box", *inner_box(), "--zoom", ZOOM, "--url", server.url, "--out", out)

        def ran():
            result = run(*command)
            return result.exit_code, result.stdout, result.stderr

        mosaic = out / "box.tif"
        code, stdout, _ = ran()
        assert (code, stdout, num_tiles_of(mosaic)) == (1, f"{mosaic}\n", 7)
        assert (ran()[0], num_tiles_of(mosaic)) == (0, 12)
        good = mosaic.read_bytes()
        (out / "tiles.mbtiles").unlink()
        server.faults.update({tile: deque(["500"] * 6) for tile in ids[:5]})
        code, stdout, stderr = ran()
        assert (code, stdout, mosaic.read_bytes() == good) == (1, "", True)
        assert "No mosaic is written of 7 of 12 tiles" in stderr
        assert f"{mosaic} stays as it was" in stderr
        (out / "tiles.mbtiles").unlink()
        server.absent.update(ids)
        code, stdout, stderr = ran()
        assert (code, stdout, mosaic.read_bytes() == good) == (1, "", True)
        mosaic.unlink()
        code, stdout, stderr = ran()
        assert (code, stdout, mosaic.exists()) == (1, "", False)
        assert "stays" not in stderr
        answer = json.loads(run(*command, "--json").stdout)
        assert (answer["complete"], answer["mosaics"][0]["path"]) == (False, None)


def test_a_manifest_is_not_replaced_by_less_after_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "LONGEST_BACKOFF_S", 0.0)
    lat_deg, lon_deg = middle()
    csv = write_points(tmp_path / "p.csv", (lat_deg, lon_deg), (lat_deg, lon_deg + 3e-3))
    x, y = (int(axis) for axis in tiles.tile(lat_deg, lon_deg + 3e-3, ZOOM))
    with TileServer(tile_px=256) as server:
        command = ("--points", csv, "--crop-m", 30, "--crop-px", 30, "--zoom", ZOOM,
                   "--url", server.url, "--out", tmp_path / "o")  # fmt: skip
        assert run(*command).exit_code == 0
        (tmp_path / "o" / "tiles.mbtiles").unlink()
        server.faults[ZOOM, x, y].extend(["500"] * 6)
        result = run(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "After failures only 1 of 2 tiles" in result.stderr
        assert len(Manifest.load(tmp_path / "o" / "manifest").tiles) == 2
        result = run(*command)
        assert result.exit_code == 0, result.output


def test_mosaics_have_the_name_that_is_given(tmp_path, template):
    west, south, east, north = inner_box()
    common = ("--url", template, "--zoom", ZOOM, "--out", tmp_path / "o")
    run("--box", *inner_box(), *common, "--name", "whole")
    result = run("--box", west, south, east, (south + north) / 2, *common, "--name", "south part")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'o' / 'south_part.tif'}\n"
    with rasterio.open(tmp_path / "o" / "whole.tif") as whole:
        assert whole.shape == (3 * 256, 4 * 256)


def test_tiles_of_512_pixels_are_bit_exact_too(tmp_path, source, template):
    west, south, east, north = mercantile.bounds(LEFT // 2 + 1, TOP // 2 + 1, ZOOM - 1)
    result = run(
        "--box", west, south, east, north, "--url", template + "&tilesize=512", "--tile-px", 512,
        "--zoom", ZOOM - 1, "--out", tmp_path / "o",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "o" / "box.tif") as dataset:
        assert dataset.shape == (512, 512)
        assert (dataset.read([1, 2, 3]) == read_window(source, dataset.bounds)).all()


def test_a_dry_run_says_what_it_takes_and_makes_nothing(tmp_path, template):
    out = tmp_path / "o"
    command = ("--box", *inner_box(), "--url", template, "--zoom", ZOOM, "--out", out)
    result = run(*command, "--dry-run", "--json", "--rate", "2")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert (plan["num_tiles"], plan["num_stored"]) == (12, 0)
    assert plan["minutes"] == approx(12 / 2 / 60)
    assert plan["megabytes"] == approx(12 * 0.019)
    assert not out.exists()
    run(*command)
    result = run(*command, "--dry-run")
    assert "12 tiles, 12 there already, 0 to fetch" in result.stdout


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("https://tile.openstreetmap.org/{z}/{x}/{y}.png", (), ["is not for download"]),
        ("https://tiles.example.org/{z}/{x}/{y}", (), ["--i-have-permission"]),
        ("https://a.example/{z}/{x}/{y}", ("--i-have-permission", "--rate", 6), ["at most 5"]),
        ("https://a.example/{z}/{x}/{y}?k={key}", ("--i-have-permission",), ["CROSSVIEW_A_EX"]),
        ("http://127.0.0.1:9/{z}/{x}/{y}", (), []),
    ],
)  # fmt: skip
def test_a_dry_run_says_what_would_be_refused(tmp_path, monkeypatch, url, options, words):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    box = ("--box", 8, 50, 8.1, 50.05, "--zoom", 18, "--url", url, "--out", tmp_path / "o")
    result = run(*box, *options, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    refused = json.loads(result.stdout)["refused"]
    assert len(refused) == len(words)
    for word, reason in zip(words, refused, strict=True):
        assert word in reason
        assert reason in result.stderr
        assert reason in run(*box, *options).stderr  # the same words as those of the real run
    assert not (tmp_path / "o").exists()


def test_a_dry_run_says_that_yes_would_be_asked_for(tmp_path):
    box = ("--box", 8, 50, 8.4, 50.3, "--zoom", 19, "--url", URL, "--out", tmp_path / "o")
    assert "It would be refused: " in (words := run(*box, "--dry-run").stderr)
    assert "say --yes" in words
    assert "refused" not in run(*box, "--dry-run", "--yes").stderr


def test_a_dry_run_counts_what_the_store_holds_of_other_places(tmp_path):
    url = "https://tiles.example.org/{z}/{x}/{y}"
    tile_ids = [tiles.TileId(18, x, y) for x in range(40) for y in range(24)]
    (tmp_path / "o").mkdir()
    with downloads.store_for(
        providers.from_template(url), tmp_path / "o" / "tiles.mbtiles"
    ) as store:
        sea = pyramids.encoded(np.zeros((256, 256, 3), np.uint8))
        store.put_many(TileImage(tile, sea, 256) for tile in tile_ids)
    box = ("--box", 8, 50, 8.01, 50.007, "--zoom", 18, "--url", url, "--out", tmp_path / "o")
    plan = json.loads(run(*box, "--dry-run", "--json").stdout)
    assert 40 < plan["num_tiles"] < 1000
    (refused,) = plan["refused"]
    assert "--i-have-permission" in refused
    other = [option.replace("example.org", "example.com") for option in map(str, box)]
    plan = json.loads(run(*other, "--dry-run", "--json", "--i-have-permission").stdout)
    (refused,) = plan["refused"]
    assert "Write each source into a file of its own" in refused
    assert refused in run(*other, "--i-have-permission").stderr


# ---------------------------------------------------------------- again, later


def test_stored_tiles_that_have_changed_and_absent_ones_are_asked_for_again(tmp_path):
    west, south, east, north = inner_box()
    command = ("--box", west, south, east, north, "--zoom", ZOOM, "--out", tmp_path / "o", "--json")
    ids = [(ZOOM, LEFT + 1 + i, TOP + 1 + j) for i in range(4) for j in range(3)]
    with TileServer(tile_px=256, absent=ids[:2]) as server:
        command += ("--url", server.url)
        assert run(*command).exit_code == 1

        def asked(*options):
            before = len(server.log)
            answer = json.loads(run(*command, *options).stdout)["tiles"]
            return len(server.log) - before, answer["stored"], answer["already"], answer["absent"]

        assert asked() == (0, 0, 10, 2)
        server.answer = lambda *tile: tile_bytes(*tile, tile_px=256) if tile != ids[5] else (
            tile_bytes(0, 0, 0, tile_px=256)
        )  # fmt: skip
        assert asked("--refresh") == (10, 1, 9, 2)
        with TileStore(tmp_path / "o" / "tiles.mbtiles") as store:
            assert store.get(tiles.TileId(*ids[5])) == tile_bytes(0, 0, 0, tile_px=256)
        server.absent.clear()
        dry = json.loads(run(*command, "--ask-absent-again", "--refresh", "--dry-run").stdout)
        assert (dry["num_stored"], dry["num_refreshed"]) == (10, 10)
        assert asked("--ask-absent-again") == (2, 2, 10, 0)
        assert asked("--refresh") == (12, 0, 12, 0)


# ---------------------------------------------------------------- crops


def write_points(path, *places):
    rows = "".join(f"p{i},{lat},{lon}\n" for i, (lat, lon) in enumerate(places))
    path.write_text("name,lat,lon\n" + rows)
    return path


def test_points_become_crops_in_true_metres_with_a_manifest(tmp_path, template):
    lat_deg, lon_deg = middle()
    csv = write_points(tmp_path / "p.csv", (lat_deg, lon_deg), (lat_deg + 2e-4, lon_deg))
    out = tmp_path / "o"
    result = run(
        "--points", csv, "--url", template, "--zoom", ZOOM, "--crop-m", 60, "--crop-px", 150,
        "--attribution", "made up", "--date", "2021-07-01", "--out", out, "--name", "gallery",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out / 'manifest'}\n"
    manifest = Manifest.load(out / "manifest")
    assert (manifest.name, manifest.attribution) == ("gallery", "made up")
    row = manifest.tiles.iloc[0]
    assert (row["tile_id"], row["cell_m"], row["date"]) == ("p0", 0.4, "2021-07-01")
    assert (row["lat_deg"], row["lon_deg"]) == approx((lat_deg, lon_deg), abs=1e-9)
    assert row["provider"] == "127.0.0.1"
    with Image.open(manifest.image_folder / row["image"]) as image:
        crop = np.asarray(image).astype(float)
    # the middle of the crop shows the colour of its place
    expected = pyramids.position_colors(np.array(lat_deg), np.array(lon_deg))
    assert np.abs(crop[74:76, 74:76].mean(axis=(0, 1)) - expected).max() < 3
    # the key of a provider would be in a URL, and no URL is in what is handed on
    for path in (out / "manifest").iterdir():
        assert "http" not in path.read_text()


def test_an_area_becomes_crops_on_a_grid(tmp_path, template):
    west, south, east, north = inner_box()
    box = (west + 1e-3, south + 1e-3, east - 1e-3, north - 7e-4)
    result = run(
        "--box", *box, "--url", template, "--resolution", 0.6, "--crop-m", 40, "--overlap", 0.5,
        "--image-format", "jpg", "--out", tmp_path / "o", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    manifest = Manifest.load(answer["manifest"])
    assert len(manifest.tiles) == answer["crops"]["written"] > 10
    assert (manifest.tiles["cell_m"] * 102).round(6).nunique() == 1
    assert answer["mosaics"] == []


def save_drive(tmp_path):
    """Three photos with positions, as a manifest."""
    lat_deg, lon_deg = middle()
    (tmp_path / "photos").mkdir()
    camera = {
        "camera_id": "c", "model": "pinhole", "width_px": 8, "height_px": 6, "fx": 4.0, "fy": 4.0,
        "cx": 4.0, "cy": 3.0,
    }  # fmt: skip
    views = []
    for i, north_deg in enumerate((0.0, 1e-4, 5e-4)):
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
        views.append(
            {"view_id": f"v{i}", "region": "town", "order": i, "kind": "photo", "camera_id": "c",
             "image": f"{i}.png", "lat_deg": lat_deg + north_deg, "lon_deg": lon_deg}
        )  # fmt: skip
    Manifest.from_rows(
        name="drive", licence="CC0-1.0", attribution="me", image_root=tmp_path / "photos",
        regions=[{"name": "town", "lat_deg": lat_deg, "lon_deg": lon_deg}],
        cameras=[camera], views=views,
    ).save(tmp_path / "drive")  # fmt: skip
    return tmp_path / "drive"


def test_views_of_a_manifest_get_crops_and_pairs(tmp_path, template):
    result = run(
        "--views", save_drive(tmp_path), "--url", template, "--zoom", ZOOM, "--crop-m", 60,
        "--out", tmp_path / "o",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    manifest = Manifest.load(tmp_path / "o" / "manifest")
    assert manifest.photo("v1").image.shape == (6, 8, 3)
    # 11 m apart: in the middle half of each other's 60 m; 44 m and 56 m: not in the crop
    pairs = {tuple(pair) for pair in manifest.pairs.itertuples(index=False)}
    assert pairs == {
        ("v0", "v0", "positive"), ("v0", "v1", "positive"),
        ("v1", "v0", "positive"), ("v1", "v1", "positive"),
        ("v2", "v2", "positive"),
    }  # fmt: skip
    assert [problem for found in manifest.file_problems() for problem in found] == []


def test_photos_and_crops_without_a_folder_in_common_are_refused(tmp_path):
    views = SimpleNamespace(image_folder=Path("/photos-of-nowhere"))
    roots = galleries.roots_in_place(views, Path("/photos-of-nowhere/crops"))
    assert (roots.image_root, roots.of_photos, roots.of_crops) == (
        "/photos-of-nowhere", "", "crops/",
    )  # fmt: skip
    with pytest.raises(DatasetError, match=r"no folder in common.*--copy-images"):
        galleries.roots_in_place(views, tmp_path / "crops")


def test_photos_that_are_copied_move_with_the_dataset(tmp_path, source):
    views = save_drive(tmp_path)
    command = ("--views", views, "--file", source, "--crop-m", 30, "--crop-px", 30,
               "--copy-images", "--out", tmp_path / "o")  # fmt: skip
    for _ in range(2):  # what has been copied is not copied again, and is no other dataset
        result = run(*command)
        assert result.exit_code == 0, result.output
    shutil.rmtree(tmp_path / "photos")
    shutil.rmtree(views)
    (tmp_path / "o").rename(tmp_path / "moved")
    manifest = Manifest.load(tmp_path / "moved" / "manifest")
    assert [problem for found in manifest.file_problems() for problem in found] == []
    assert manifest.photo("v1").image.shape == (6, 8, 3)
    again = run("--views", tmp_path / "moved" / "manifest", *command[2:-1], tmp_path / "moved")
    assert again.exit_code == 0, again.output
    assert len(list((tmp_path / "moved").rglob("*.png"))) == 6


def test_a_photo_that_leads_out_of_its_folder_is_not_copied(tmp_path, source):
    views = save_drive(tmp_path)
    secret = tmp_path / "secret.png"
    (tmp_path / "photos" / "1.png").rename(secret)
    (tmp_path / "photos" / "1.png").symlink_to(secret)
    assert_refused(
        "leads out of", "--views", views, "--file", source, "--crop-m", 30, "--crop-px", 30,
        "--copy-images", "--out", tmp_path / "o",
    )  # fmt: skip


# ---------------------------------------------------------------- crops, again


def learn(folder):
    """What other commands write into a manifest: splits, a map, whom to credit for it."""
    manifest = Manifest.load(folder)
    (folder / "maps").mkdir()
    (folder / "maps" / "town.gpkg").write_bytes(b"a map")
    (folder / "notes.txt").write_text("mine")
    region = manifest.regions["name"][0]
    split = np.resize(["train", "val"], len(manifest.views)).astype(object)
    replace(
        manifest,
        attribution=f"{manifest.attribution}; © OpenStreetMap contributors",
        views=manifest.views.assign(split=split),
        maps=[{"region": region, "file": "maps/town.gpkg", "kind": "osm"}],
    ).rewrite("views", "maps")


def test_the_same_command_again_keeps_splits_and_maps(tmp_path, source):
    command = ("--views", save_drive(tmp_path), "--file", source, "--crop-m", 30, "--crop-px", 30,
               "--attribution", "A", "--out", tmp_path / "o")  # fmt: skip
    assert run(*command).exit_code == 0
    folder = tmp_path / "o" / "manifest"
    before = Manifest.load(folder)
    learn(folder)
    shutil.rmtree(tmp_path / "o" / "crops")
    result = run(*command, "--attribution", "B")
    assert result.exit_code == 0, result.output
    after = Manifest.load(folder)
    assert after.views["split"].tolist() == ["train", "val", "train"]
    (map_file,) = after.map_files("town")
    assert map_file.path.read_bytes() == b"a map"
    assert (folder / "notes.txt").read_text() == "mine"
    assert after.attribution == "me; B; © OpenStreetMap contributors"
    for table in ("regions", "cameras", "pairs"):
        assert getattr(after, table).equals(getattr(before, table))
    assert [problem for found in after.file_problems() for problem in found] == []
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["manifest", "crops"]


def test_points_alone_are_a_manifest_that_keeps_its_map_too(tmp_path, source):
    csv = write_points(tmp_path / "p.csv", middle())
    command = ("--points", csv, "--file", source, "--crop-m", 30, "--crop-px", 30,
               "--out", tmp_path / "o")  # fmt: skip
    run(*command)
    learn(tmp_path / "o" / "manifest")
    assert run(*command).exit_code == 0
    assert len(Manifest.load(tmp_path / "o" / "manifest").map_files()) == 1


def test_crops_that_could_not_be_had_before_come_later(tmp_path, source):
    lat_deg, lon_deg = middle()
    csv = write_points(tmp_path / "p.csv", (lat_deg, lon_deg), (lat_deg, lon_deg + 1.5e-3))
    half = tmp_path / source.name
    with rasterio.open(source) as whole:
        pixels = whole.read()
        pixels = pixels[:, :, : pixels.shape[2] // 2 + 128]
        profile = whole.profile | {"width": pixels.shape[2]}
        with rasterio.open(half, "w", **profile) as target:
            target.write(pixels)
    command = ("--points", csv, "--crop-m", 30, "--crop-px", 30, "--out", tmp_path / "o")
    assert run(*command, "--file", half).exit_code == 1
    assert Manifest.load(tmp_path / "o" / "manifest").tiles["tile_id"].tolist() == ["p0"]
    assert run(*command, "--file", source).exit_code == 0
    assert len(Manifest.load(tmp_path / "o" / "manifest").tiles) == 2


def test_a_manifest_of_something_else_is_replaced_only_when_that_is_said(tmp_path, source):
    lat_deg, lon_deg = middle()
    first = write_points(tmp_path / "a.csv", (lat_deg, lon_deg), (lat_deg + 1e-4, lon_deg))
    second = write_points(tmp_path / "b.csv", (lat_deg, lon_deg + 1e-4))
    out = ("--out", tmp_path / "o")
    crops = ("--crop-m", 30, "--crop-px", 30, *out)
    larger = ("--points", first, "--file", source, "--crop-m", 60, *out)
    assert run("--points", first, "--file", source, *crops).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*.*")}
    other_file = Path(shutil.copy(source, tmp_path / "other.tif"))
    for words, command in (
        ("p1", ("--points", second, "--file", source, *crops)),
        # nobody listens there: it is refused before it is asked
        ("p1", ("--points", second, "--url", URL, "--zoom", ZOOM, *crops)),
        ("cell_m of 'p0'", (*larger, "--crop-px", 30)),
        ("30 pixels a side, not 60", (*larger, "--cell-m", 1)),
        ("provider of 'p0'", ("--points", first, "--file", other_file, *crops)),
        ("image of 'p0'", ("--points", first, "--file", source, "--image-format", "jpg", *crops)),
        ("2 tiles that", ("--views", save_drive(tmp_path), "--file", source, *crops)),
    ):  # fmt: skip
        assert_refused(words, *command)
        assert_refused("--overwrite", *command)
    assert {path: path.read_bytes() for path in (tmp_path / "o").rglob("*.*")} == before
    dry = run("--points", second, "--url", URL, "--zoom", ZOOM, *crops, "--dry-run", "--json")
    assert "p1" in json.loads(dry.stdout)["refused"][0]
    learn(tmp_path / "o" / "manifest")
    result = run("--points", second, "--file", source, *crops, "--overwrite")
    assert result.exit_code == 0, result.output
    manifest = Manifest.load(tmp_path / "o" / "manifest")
    assert manifest.tiles["tile_id"].tolist() == ["p0"]
    # the region is another one, so its map is not that of this place; crops have no orphans
    assert not len(manifest.maps)
    assert not (tmp_path / "o" / "manifest" / "maps" / "town.gpkg").exists()
    assert [path.name for path in (tmp_path / "o" / "crops").iterdir()] == ["p0.png"]
    assert (tmp_path / "o" / "manifest" / "notes.txt").read_text() == "mine"


def test_a_split_that_differs_is_not_chosen_silently(tmp_path, source):
    views = save_drive(tmp_path)
    command = ("--views", views, "--file", source, "--crop-m", 30, "--crop-px", 30,
               "--out", tmp_path / "o")  # fmt: skip
    run(*command)
    learn(tmp_path / "o" / "manifest")
    manifest = Manifest.load(views)
    replace(manifest, views=manifest.views.assign(split="test")).rewrite("views")
    assert_refused("split of 'v0' in views.csv is train, not test", *command)
    assert run(*command, "--overwrite").exit_code == 0
    manifest = Manifest.load(tmp_path / "o" / "manifest")
    assert set(manifest.views["split"]) == {"test"}
    assert len(manifest.maps) == 1  # of a region that is the same


def test_a_folder_that_is_no_manifest_is_refused_before_anything_is_fetched(tmp_path):
    csv = write_points(tmp_path / "p.csv", middle())
    (tmp_path / "o" / "manifest").mkdir(parents=True)
    (tmp_path / "o" / "manifest" / "dataset.json").write_text("{")
    assert_refused("--overwrite", "--points", csv, "--url", URL, "--zoom", ZOOM, "--crop-m", 30,
                   "--out", tmp_path / "o")  # fmt: skip


def test_a_second_imagery_has_names_of_its_own(tmp_path, source):
    size = ("--crop-m", 30, "--crop-px", 30)
    other = Path(shutil.copy(source, tmp_path / "other.tif"))
    run("--views", save_drive(tmp_path), "--file", source, *size, "--out", tmp_path / "a")
    first = tmp_path / "a" / "manifest"
    second = ("--views", first, "--file", other, *size, "--out", tmp_path / "b")
    for _ in range(2):
        result = run(*second)
        assert result.exit_code == 0, result.output
        assert "are called v0_2" in result.stderr
        manifest = Manifest.load(tmp_path / "b" / "manifest")
        names = ["v0", "v1", "v2"]
        assert manifest.tiles["tile_id"].tolist() == names + [f"{name}_2" for name in names]
        assert manifest.tiles["provider"].tolist() == ["aerial.tif"] * 3 + ["other.tif"] * 3
        pairs = {tuple(pair) for pair in manifest.pairs.itertuples(index=False)}
        assert {("v2", "v2", "positive"), ("v2", "v2_2", "positive")} < pairs
        assert [problem for found in manifest.file_problems() for problem in found] == []


def test_crops_into_the_manifest_of_their_views_are_made_once(tmp_path, source):
    views = save_drive(tmp_path)
    (tmp_path / "o").mkdir()
    views.rename(tmp_path / "o" / "manifest")
    command = ("--views", tmp_path / "o" / "manifest", "--file", source, "--crop-m", 30,
               "--crop-px", 30, "--out", tmp_path / "o")  # fmt: skip
    for _ in range(2):
        result = run(*command)
        assert result.exit_code == 0, result.output
        manifest = Manifest.load(tmp_path / "o" / "manifest")
        assert manifest.tiles["tile_id"].tolist() == ["v0", "v1", "v2"]
        assert len(manifest.pairs) == 5


def test_crops_of_a_local_file_and_of_a_store_agree(tmp_path, source, template):
    csv = write_points(tmp_path / "p.csv", middle())
    size = ("--crop-m", 60, "--crop-px", 150)
    run("--points", csv, "--url", template, "--zoom", ZOOM, *size, "--out", tmp_path / "online")
    for name, file in (("tif", source), ("mbtiles", tmp_path / "online" / "tiles.mbtiles")):
        result = run("--points", csv, "--file", file, *size, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    crops = [
        np.asarray(Image.open(tmp_path / folder / "crops" / "p0.png")).astype(float)
        for folder in ("online", "tif", "mbtiles")
    ]
    assert (crops[0] == crops[2]).all()
    assert np.abs(crops[0] - crops[1]).max() <= 1


def test_tiles_that_an_archive_lacks_are_counted(tmp_path, template):
    box = inner_box()
    run("--box", *box, "--url", template, "--zoom", ZOOM, "--out", tmp_path / "a")
    archive = tmp_path / "a" / "tiles.mbtiles"
    with TileStore.writing(archive) as store:
        store._connection().execute("DELETE FROM tiles WHERE tile_column = ?", (LEFT + 1,))
    result = run("--box", *box, "--file", archive, "--out", tmp_path / "b")
    assert result.exit_code == 1
    assert "3 of 12 tiles are not in the file." in result.stderr


@pytest.mark.parametrize("kind", ["tif", "mbtiles"])
def test_what_is_said_of_a_file_replaces_only_that(tmp_path, source, kind):
    if kind == "tif":
        file = Path(shutil.copy(source, tmp_path / "a.tif"))
        with rasterio.open(file, "r+") as dataset:
            dataset.update_tags(
                PROVIDER="P", ATTRIBUTION="A", TERMS_URL="https://a.example/t", DATE="2019"
            )
    else:
        file = tmp_path / "a.mbtiles"
        provider = providers.from_template(
            URL, name="P", attribution="A", terms_url="https://a.example/t", capture_date="2019"
        )
        with downloads.store_for(provider, file) as store:
            store.put_many(
                TileImage(tiles.TileId(*tile), pyramids.encoded(pyramids.position_tile(tile)), 256)
                for i in range(COLUMNS)
                for j in range(ROWS)
                for tile in [(ZOOM, LEFT + i, TOP + j)]
            )
    csv = write_points(tmp_path / "p.csv", middle())
    crops = ("--points", csv, "--file", file, "--crop-m", 30, "--crop-px", 30)
    told = []
    for i, options in enumerate([(), ("--attribution", "B"), ("--date", "2020")]):
        result = run(*crops, *options, "--out", tmp_path / f"{i}")
        assert result.exit_code == 0, result.output
        row = Manifest.load(tmp_path / f"{i}" / "manifest").tiles.iloc[0]
        told.append(tuple(row[["provider", "attribution", "terms_url", "date"]]))
    assert told == [
        ("P", "A", "https://a.example/t", "2019"),
        ("P", "B", "https://a.example/t", "2019"),
        ("P", "A", "https://a.example/t", "2020"),
    ]


def test_options_that_mean_nothing_with_a_file_are_refused(tmp_path, source):
    csv = write_points(tmp_path / "p.csv", middle())
    size = ("--points", csv, "--crop-m", 30, "--crop-px", 30, "--out", tmp_path / "o")
    archive = tmp_path / "a.mbtiles"
    TileStore.writing(archive).close()
    fetched, layers = "tiles that are fetched, not --file", "--wmts or --wms"
    of_both = [
        (fetched, "--max-zoom", 3), (layers, "--layer", "x"), (fetched, "--rate", 1),
        (fetched, "--refresh"), (fetched, "--yes"), (fetched, "--dry-run"),
    ]  # fmt: skip
    one = "tiles, and this --file is one image"
    of_image = [(one, "--zoom", 3), (one, "--tile-px", 512), *of_both]
    for file, options in ((source, of_image), (archive, of_both)):
        for words, *option in options:
            said = f"{option[0]} means nothing here: it needs {words}. Leave it out."
            assert_refused(said, *size, "--file", file, *option)


@pytest.fixture
def places(tmp_path):
    """Options of each kind of place."""
    return {
        "box": ("--box", *inner_box()),
        "points": ("--points", write_points(tmp_path / "p.csv", middle())),
        "views": ("--views", save_drive(tmp_path)),
    }


@pytest.mark.parametrize(
    ("place", "options", "words"),
    [
        ("box", ("--radius-m", 9), "--points or --views"),
        ("points", ("--radius-m", 9, "--crop-m", 30), "--grid or --mosaic"),
        ("box", ("--collection", "naip"), "--stac"),
        ("box", ("--geocoder-url", "http://127.0.0.1:9"), "--place"),
        ("box", ("--layer", "x"), "--wmts or --wms"),
        ("box", ("--wms-format", "image/jpeg"), "--wms"),
        ("points", ("--grid", "--radius-m", 9), "--points or --views, and --crop-m"),
        ("box", ("--grid", "--crop-m", 30), "--points or --views, and --crop-m"),
        ("points", ("--overlap", 0.5, "--crop-m", 30), "around points --grid"),
        ("box", ("--overlap", 0.5), "--crop-m"),
        ("box", ("--min-covered", 1), "crops: --crop-m"),
        ("box", ("--image-format", "png"), "crops: --crop-m"),
        ("box", ("--overwrite",), "crops: --crop-m"),
        ("points", ("--copy-images", "--crop-m", 30), "--views and --crop-m"),
        ("views", ("--name", "x", "--crop-m", 30), "that of --views has one"),
        ("box", ("--rate", 1, "--stac", "http://127.0.0.1:9"), "--stac only lists"),
        ("box", ("--crop-m", 1, "--stac", "http://127.0.0.1:9"), "--stac only lists"),
    ],
)
def test_options_that_would_change_nothing_are_refused(tmp_path, places, place, options, words):
    source = () if "--stac" in options else ("--url", URL, "--zoom", 18, "--out", tmp_path / "o")
    result = run(*places[place], *options, *source)
    assert (result.exit_code, result.stdout) == (2, "")
    said = f"Error: {options[0]} means nothing here: it needs .*{words}.*Leave it out"
    assert re.search(said, " ".join(result.stderr.split()))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("points", ("--radius-m", 9, "--crop-m", 30, "--grid", "--overlap", 0.2)),
        ("points", ("--radius-m", 9, "--crop-m", 30, "--mosaic", "--name", "x")),
        ("points", ("--radius-m", 9, "--name", "x")),
        ("box", ("--crop-m", 30, "--overlap", 0.2, "--min-covered", 0.5, "--overwrite")),
        ("views", ("--crop-m", 30, "--mosaic", "--name", "x", "--copy-images")),
    ],
)
def test_options_that_mean_something_are_taken(tmp_path, places, place, options):
    result = run(*places[place], *options, "--url", URL, "--zoom", 18, "--out", tmp_path / "o",
                 "--dry-run")  # fmt: skip
    assert result.exit_code == 0, result.output


def test_crops_beyond_the_imagery_are_left_out_and_exit_code_1(tmp_path, source):
    lat_deg, lon_deg = middle()
    csv = write_points(tmp_path / "p.csv", (lat_deg, lon_deg), (lat_deg, lon_deg + 0.1))
    result = run(
        "--points", csv, "--file", source, "--crop-m", 30, "--crop-px", 30, "--out", tmp_path / "o",
        "--json",
    )  # fmt: skip
    assert result.exit_code == 1
    assert json.loads(result.stdout)["crops"] == {"written": 1, "left_out": ["p1"]}


def test_vancouver_crops_lie_where_the_aerial_photo_does(tmp_path, titiler, data_dir):
    aerial = data_dir / "aerial" / "vancouver_1m.tif"
    places = [(49.2720, -123.0790), (49.2715, -123.0775)]
    csv = write_points(tmp_path / "p.csv", *places)
    template = real_tile_servers.titiler_template(titiler, aerial) + "&resampling=bilinear"
    result = run(
        "--points", csv, "--url", template, "--zoom", 18, "--crop-m", 100, "--crop-px", 200,
        "--out", tmp_path / "o",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    manifest = Manifest.load(tmp_path / "o" / "manifest")
    job = satellite.job_of(aerial, Points(*np.array(places).T, ("p0", "p1")), tmp_path,
                           crop_m=100, crop_px=200)  # fmt: skip
    for crop, image in zip(job.crops, manifest.tiles["image"], strict=True):
        mine = np.asarray(Image.open(manifest.image_folder / image)).astype(float).mean(axis=-1)
        there = rasters.read_geotiff(aerial, crop.grid).rgb.astype(float).mean(axis=-1)
        spectrum = np.fft.fft2(mine - mine.mean()) * np.conj(np.fft.fft2(there - there.mean()))
        peak = np.fft.ifft2(spectrum).real.argmax()
        assert np.unravel_index(peak, mine.shape) == (0, 0)
        assert np.corrcoef(mine.ravel(), there.ravel())[0, 1] > 0.95


# ---------------------------------------------------------------- what is refused


def assert_refused(message, *arguments):
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())


URL = "http://127.0.0.1:9/{z}/{x}/{y}.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--box", 49.27, -123.14, 49.29, -123.10, "--zoom", 18), "seem to be swapped"),
        (("--box", 8, 50, 8, 50.1, "--zoom", 18), "has no area"),
        (("--box", 10, 84, 11, 86, "--zoom", 12), "Web Mercator end at 85.0511"),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 25), "has the zooms 0 to 19, not 25"),
        (("--box", 8, 50, 8.1, 50.1, "--resolution", 0.01), "0.01 m is finer. Take --zoom 19"),
        (("--box", 8, 50, 8.1, 50.1), "Give --zoom (0 to 19) or --resolution"),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--resolution", 1), "not both"),
        (("--box", 8, 50, 8.1, 50.1, "--place", "X", "--zoom", 18), "Give one of --box"),
        (("--zoom", 18), "Give one of --box"),
        (("--box", 8, 50, 8.4, 50.3, "--zoom", 19), "say --yes"),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--rate", 0), "expected a positive number"),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--rate", -1), "expected a positive number"),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--rate", "nan"), "expected a positive number"),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--rate", "inf"), "expected a positive number"),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--crop-m", 70, "--min-covered", 80), "0<=x<=1"),
        (
            ("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--crop-m", 70, "--min-covered", "nan"),
            "share",
        ),
        (
            ("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--crop-m", 0.5, "--crop-px", 100_000),
            "16,384",
        ),
        (("--box", 8, 50, 8.1, 50.1, "--zoom", 18, "--no-mosaic"), "nothing to make"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, arguments, message):
    assert_refused(message, *arguments, "--url", URL, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_million_square_kilometres_are_refused_with_the_estimate(tmp_path):
    france = ("--box", -5, 42, 8, 51, "--zoom", 19, "--url", URL, "--out", tmp_path / "o")
    result = run(*france, "--rate", 50, "--yes")
    assert result.exit_code == 1
    assert re.search(
        r"Error: [\d,]{7,9} square km at zoom 19 are [\d,]{11} tiles, about [\d.]+ TB and "
        r"[\d.]+ days at 50 tiles a second\. That is more than 20,000,000",
        result.stderr,
    )
    dry = run(*france, "--dry-run", "--json")
    assert json.loads(dry.stdout)["num_tiles"] > 3e8


def test_a_mosaic_around_points_of_two_cities_is_refused(tmp_path):
    csv = write_points(tmp_path / "p.csv", (49.0, 8.0), (52.0, 13.0))
    points = ("--points", csv, "--zoom", 18, "--url", URL, "--out", tmp_path / "o")
    assert_refused("Make one for each town, or crops", *points, "--radius-m", 100)
    assert_refused("--radius-m", *points)
    assert run(*points, "--crop-m", 50, "--dry-run").exit_code == 0


def test_an_unknown_host_is_refused_above_1000_tiles_without_permission(tmp_path):
    url = "https://tiles.example.org/{z}/{x}/{y}.png"
    box = ("--box", 8, 50, 8.1, 50.05, "--zoom", 18, "--url", url, "--out", tmp_path / "o")
    assert_refused("--i-have-permission", *box)
    assert not (tmp_path / "o").exists()


def test_a_missing_key_or_a_wrong_rate_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    box = ("--box", 8, 50, 8.001, 50.001, "--zoom", 18, "--out", tmp_path / "o")
    url = "https://tiles.example.org/{z}/{x}/{y}.png"
    assert_refused("CROSSVIEW_TILES_EXAMPLE_ORG_KEY", *box, "--url", url + "?key={key}")
    assert_refused("at most 5 times a second", *box, "--url", url, "--rate", 6)
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------- plans


def provider(**facts):
    return providers.from_template(URL, name="made up", **({"max_zoom": 20} | facts))


def test_the_zoom_for_a_resolution_is_the_coarsest_that_is_fine_enough():
    for lat_deg in (0.0, -35.3, 60.0):
        zoom = tile_plans.zoom_for_resolution(provider(), lat_deg, 0.5)
        assert max(tile_plans.ground_resolution_m(lat_deg, zoom)) <= 0.5
        assert max(tile_plans.ground_resolution_m(lat_deg, zoom - 1)) > 0.5


def test_a_resolution_is_kept_everywhere_in_an_area(tmp_path):
    # at the middle, 53 degrees north, zoom 17 has pixels of 0.72 m; at the south end of 0.92 m
    tall = Area.of_box(8.0, 39.5, 8.1, 66.5)
    for area in (tall, Area.of_box(8.0, -66.5, 8.1, -39.5)):
        job = satellite.job_of(provider(), area, tmp_path, resolution_m=0.75)
        assert job.zoom == 18
        assert max(tile_plans.ground_resolution_m(39.5, 18)) <= 0.75
    over = satellite.job_of(provider(), Area.of_box(8, -60, 8.1, 60), tmp_path, resolution_m=1.19)
    assert max(tile_plans.ground_resolution_m(0.0, over.zoom)) <= 1.19
    points = Points(np.array([60.0, 40.0]), np.array([8.0, 8.0]), ("", ""))
    job = satellite.job_of(provider(), points, tmp_path, resolution_m=0.75, radius_m=50)
    assert max(tile_plans.ground_resolution_m(40.0, job.zoom)) <= 0.75


def test_both_ends_of_a_tall_area_are_told(tmp_path):
    job = satellite.job_of(provider(), Area.of_box(8.0, 50.0, 8.01, 51.0), tmp_path, zoom=18)
    plan = satellite.plan(job)
    assert [lat_deg for lat_deg, *_ in plan.ends] == [50.0, 51.0]
    across_m, up_m = tile_plans.ground_resolution_m(51.0, 18)
    assert f"{across_m:.4f} x {up_m:.4f} m at 51.000 N" in plan.sentences()
    job = satellite.job_of(provider(), Area.of_box(8.0, 50.0, 8.01, 50.3), tmp_path, zoom=18)
    assert satellite.plan(job).ends == ()
    assert " m at " not in satellite.plan(job).sentences()


def test_the_estimate_counts_tiles_that_are_not_in_the_main_file_yet(tmp_path):
    west, south, east, north = inner_box()
    job = satellite.job_of(provider(), Area.of_box(west, south, east, north), tmp_path, zoom=ZOOM)
    ids = [tiles.TileId(ZOOM, LEFT + 1 + i, TOP + 1 + j) for i in range(4) for j in range(3)]
    bodies = [tile_bytes(*tile, tile_px=256) for tile in ids[:3]]
    with downloads.store_for(job.source, job.store_path) as store:
        store.put_many(map(TileImage, ids[:3], bodies, [256] * 3))
        store.put_absent({ids[3]: "404", ids[4]: "404"})
        # another process: the bytes are in the file beside it
        assert job.store_path.stat().st_size < len(bodies[0])
        plan = satellite.plan(job)
    mean_bytes = sum(map(len, bodies)) / 3
    assert plan.megabytes == approx(7 * mean_bytes / 1e6)
    assert (plan.num_stored, plan.num_absent, plan.num_missing) == (3, 2, 7)
    assert "12 tiles, 3 there already, 2 known not to exist, 7 to fetch" in plan.sentences()


def test_larger_tiles_have_finer_pixels():
    assert tile_plans.ground_resolution_m(50.0, 17, 512) == approx(
        tile_plans.ground_resolution_m(50.0, 18, 256)
    )


def test_the_resolution_is_told_for_both_axes(tmp_path):
    canberra = Area.of_box(149.12, -35.29, 149.14, -35.27)
    job = satellite.job_of(provider(), canberra, tmp_path, zoom=20)
    plan = satellite.plan(job)
    # E 5.4: the sphere's 156543 cos(lat) / 2**zoom is 0.112 % and -0.336 % off
    sphere_m = 2 * math.pi * 6378137 / 256 / 2**20 * math.cos(math.radians(35.28))
    assert plan.east_west_m / sphere_m - 1 == approx(0.00112, abs=2e-5)
    assert plan.north_south_m / sphere_m - 1 == approx(-0.00336, abs=2e-5)
    assert f"{plan.east_west_m:.4f} m east-west" in plan.sentences()
    assert "around 35.280 S, 149.130 E" in plan.sentences()


def test_an_area_outside_of_the_provider_is_refused_and_swapped_axes_are_said():
    netherlands = provider(bounds=tiles.GeoBounds(3.0, 50.5, 7.5, 54.0))
    tile_plans.require_coverage(netherlands, Area.of_box(5.0, 51.0, 5.1, 51.1))
    with pytest.raises(MapError, match="lies around latitude 48"):
        tile_plans.require_coverage(netherlands, Area.of_box(11.0, 48.0, 11.1, 48.1))
    with pytest.raises(MapError, match="seem to be swapped"):
        tile_plans.require_coverage(netherlands, Area.of_box(51.0, 5.0, 51.1, 5.1))
