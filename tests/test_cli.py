"""The command crossview: data on stdout, words on stderr; help, demo and localize."""

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fakes import images
from fakes.commands import mistake, run, words_of
from fakes.towns import town_dataset
from PIL import Image
from pytest import approx

from crossview import cli, demo
from crossview.camera_noise import CameraNoise
from crossview.cli import options
from crossview.frames import LocalFrame
from crossview.manifest import Manifest
from crossview.synthetic.town import Town

pytestmark = pytest.mark.usefixtures("loggers_as_they_were")

NETWORKS = ("keras", "tensorflow", "jax", "torch")
HEAVY = (*NETWORKS, "rasterio", "geopandas", "pandas", "matplotlib", "osmium", "scipy", "shapely")
COMMANDS = {
    (),
    ("demo",),
    ("evaluate",),
    ("evaluate", "pose"),
    ("evaluate", "retrieval"),
    ("fit",),
    ("fit", "semantic"),
    ("gallery",),
    ("gallery", "build"),
    ("gallery", "fit"),
    ("gallery", "search"),
    ("localize",),
    ("report",),
    ("show",),
    ("synthesize",),
    ("train",),
    ("train", "retrieval"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo's town, its photo (a panorama of classes) and the rough place."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo.run(folder)


@pytest.fixture(scope="module")
def rough_place(made):
    _, result = made
    return result.answer.localization.best.grid.map.frame


@pytest.fixture(scope="module")
def class_photo(tmp_path_factory):
    """Nothing to be recognised: half sky, half road."""
    path = tmp_path_factory.mktemp("photo") / "road.png"
    pixels = np.full((60, 80, 3), (128, 64, 128), np.uint8)
    pixels[:30] = (70, 130, 180)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return town_dataset(tmp_path_factory.mktemp("dataset"), num_stations=2)


@pytest.fixture
def localize(made, class_photo, tmp_path):
    """Arguments of a small search that works; keyword arguments change options."""
    folder, _ = made
    place = Town.from_seed(0).frame

    def arguments(photo=class_photo, **changes):
        options = {
            "map": folder / "town.osm",
            "out": tmp_path / "out",
            "class_image": True,
            "lat": place.lat_deg,
            "lon": place.lon_deg,
            "radius_m": 4,
            "focal_px": 40,
        } | changes
        return ["localize", photo, *words_of(options)]

    return arguments


# ------------------------------------------------------------------------- help


def test_help_of_every_command_works_without_networks_and_heavy_libraries():
    script = f"""
import sys
from crossview.cli import main
for command in {sorted(COMMANDS)!r}:
    try:
        main([*command, "--help"])
    except SystemExit as end:
        assert end.code == 0, command
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    assert not loaded, (command, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage:") == len(COMMANDS)


def test_the_list_of_commands_is_that_of_their_own_help():
    overview = run("--help").stdout
    for name, (_, line) in cli.COMMANDS.items():
        assert name in overview
        assert line.split()[0] in overview
        assert run(name, "--help").exit_code == 0
    assert {command[0] for command in COMMANDS if command} == set(cli.COMMANDS)


def test_the_installed_command_answers():
    command = Path(sys.executable).with_name("crossview")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("crossview, version ")


def test_an_unknown_command_is_a_usage_error():
    assert "No such command 'locate'" in mistake("locate", exit_code=2)


# ------------------------------------------------------------------------- demo


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "demo"
    return folder, run("demo", "--out", folder, "--stations", 1)


def test_demo_prints_estimate_truth_and_error_and_writes_its_files(demonstrated):
    folder, result = demonstrated
    assert (result.exit_code, result.stderr) == (0, "")
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert {"estimate", "truth", "error", "answer"} <= set(lines)
    error_m, turn_deg = (float(part.split()[0]) for part in lines["error"].split(", "))
    assert error_m <= 0.71
    assert turn_deg <= 360 / 64
    written = {path.name for path in folder.iterdir()}
    assert {"town.osm", "photo.png", "photo_localized.png", "photo_localized.geojson"} <= written


def test_demo_with_stations_makes_a_dataset_to_evaluate(demonstrated):
    folder, _ = demonstrated
    options = ("--class-image", "--radius-m", 8, "--shift-m", 4)
    evaluated = run("evaluate", "pose", folder / "dataset", *options)
    assert json.loads(evaluated.stdout)["n"] == 1


@pytest.mark.parametrize("stations", [-1, "many"])
def test_demo_refuses_a_senseless_number_of_stations(tmp_path, stations):
    assert "--stations" in mistake("demo", "--out", tmp_path, "--stations", stations, exit_code=2)


def test_demo_needs_a_folder_to_write_into():
    assert "--out" in mistake("demo", exit_code=2)


# --------------------------------------------------------------------- localize


def test_localize_finds_the_demos_photo_and_writes_three_files(made, rough_place, tmp_path):
    folder, truth = made[0], made[1].truth
    result = run(
        *("localize", folder / "labels.png", "--panorama", "--class-image"),
        *("--map", folder / "town.osm", "--out", tmp_path),
        *("--lat", rough_place.lat_deg, "--lon", rough_place.lon_deg, "--radius-m", 25),
    )
    assert result.exit_code == 0, result.stderr
    collection = json.loads((tmp_path / "labels_localized.geojson").read_text(encoding="utf-8"))
    assert [len(collection["bbox"]), collection["type"]] == [4, "FeatureCollection"]
    kinds = [feature["properties"]["kind"] for feature in collection["features"]]
    assert kinds[0] == "pose"
    assert kinds.count("credible_region") == 3
    best = collection["features"][0]
    lon_deg, lat_deg = best["geometry"]["coordinates"]
    x_m, y_m = rough_place.to_local(lat_deg, lon_deg)
    assert math.hypot(x_m - truth.x_m, y_m - truth.y_m) < 0.75
    assert best["properties"]["probability_within_5m"] > 0.5
    assert best["properties"]["heading_deg"] == approx(truth.heading_deg, abs=360 / 64)
    with rasterio.open(tmp_path / "labels_localized.tif") as raster:
        assert raster.read(1).sum() == approx(1.0, abs=1e-4)
    with Image.open(tmp_path / "labels_localized.png") as picture:
        assert min(picture.size) > 800
    assert result.stdout.startswith("answer: ok\n")


def test_localize_finds_a_perspective_photo_with_a_compass(dataset, tmp_path):
    manifest = Manifest.load(dataset)
    view = manifest.views.set_index("view_id").loc["s0-0"]
    camera = manifest.camera("wide")
    place = LocalFrame(view["lat_deg"], view["lon_deg"])
    lat_deg, lon_deg = place.to_geodetic(4.0, -3.0)
    result = run(
        *("localize", manifest.image_folder / view["image"], "--class-image"),
        *("--map", manifest.map_files()[0].path, "--out", tmp_path, "--json"),
        *("--lat", lat_deg, "--lon", lon_deg, "--radius-m", 8),
        *("--focal-px", camera.fx, "--height-m", view["height_m"]),
        *("--heading-deg", view["heading_deg"] + 3.0, "--compass-sigma-deg", 5),
    )
    assert result.exit_code == 0, result.stderr
    best = json.loads(result.stdout)["features"][0]
    x_m, y_m = place.to_local(*best["geometry"]["coordinates"][::-1])
    assert math.hypot(x_m, y_m) < 3.0
    assert best["properties"]["heading_deg"] == approx(view["heading_deg"], abs=5.0)


def test_json_prints_the_geojson_that_is_written_and_nothing_else(localize, tmp_path):
    result = run(*localize(json=True))
    assert result.exit_code == 0, result.stderr
    written = json.loads((tmp_path / "out" / "road_localized.geojson").read_text(encoding="utf-8"))
    assert json.loads(result.stdout) == written


def test_an_uncertain_answer_is_an_answer_and_no_error(localize):
    result = run(*localize(radius_m=15))
    assert result.exit_code == 0
    assert result.stdout.startswith("answer: no answer (too uncertain)\n")


def test_a_photo_with_a_fix_needs_no_place(localize, tmp_path):
    degrees = {1: "N", 2: (50.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)}
    pixels = np.full((30, 40, 3), (128, 64, 128), np.uint8)
    pixels[:15] = (70, 130, 180)
    photo = images.phone_photo(tmp_path / "phone.jpg", gps=degrees, image=pixels)
    result = run(*localize(photo, lat=None, lon=None, focal_px=None, json=True))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["crossview"]["frame"] == {"lat_deg": 50.0, "lon_deg": 8.0}


def test_the_place_on_the_command_line_wins_over_the_photos_and_its_compass_stays(
    localize, tmp_path
):
    tags = {**images.PLACE, 16: "T", 17: 90.0}
    pixels = np.full((30, 40, 3), (128, 64, 128), np.uint8)
    pixels[:15] = (70, 130, 180)
    photo = images.phone_photo(tmp_path / "phone.jpg", gps=tags, image=pixels)
    result = run(*localize(photo, compass_sigma_deg=2, json=True))
    assert result.exit_code == 0, result.stderr
    collection = json.loads(result.stdout)
    assert collection["crossview"]["frame"] == {"lat_deg": 50.0, "lon_deg": 8.0}
    assert collection["features"][0]["properties"]["heading_deg"] == approx(90.0, abs=3.0)


@pytest.mark.slow
def test_a_phone_photo_whose_gps_is_450_m_off_gets_no_answer(data_dir, tmp_path):
    result = run(
        *("localize", data_dir / "photos_vancouver" / "query_vancouver_1.JPG"),
        *("--map", data_dir / "osm" / "vancouver_downtown.osm.gz", "--out", tmp_path, "--json"),
        *("--weights", data_dir / "weights" / "espnetv2_s_2.0_city_1024x512.pth"),
    )
    assert result.exit_code == 0, result.stderr
    best = json.loads(result.stdout)["features"][0]["properties"]
    assert best["answer"] == "no answer"
    assert best["probability_within_5m"] < 0.5
    assert (tmp_path / "query_vancouver_1_localized.png").is_file()


# ----------------------------------------------------------- mistakes of localize


def test_a_photo_without_a_place_names_the_options_that_give_one(localize, tmp_path):
    message = mistake(*localize(lat=None, lon=None))
    assert "road.png does not say where it was taken" in message
    assert "--lat and --lon" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["lat", "lon"])
def test_half_a_place_is_a_usage_error(localize, missing):
    assert "--lat and --lon together" in mistake(*localize(**{missing: None}), exit_code=2)


def test_a_latitude_beyond_the_pole_is_a_usage_error(localize):
    assert "--lat" in mistake(*localize(lat=91), exit_code=2)


def test_a_photo_without_a_focal_length_names_the_option(localize):
    message = mistake(*localize(focal_px=None))
    assert "road.png does not say its focal length" in message
    assert "--focal-px" in message


def test_a_map_of_another_place_is_refused_with_both_places(localize, tmp_path):
    message = mistake(*localize(lat=-35.28, lon=149.13))
    assert "covers latitude 49.99" in message
    assert "lies outside" in message
    assert not (tmp_path / "out").exists()


def test_swapped_latitude_and_longitude_are_thought_of(localize):
    assert "not swapped" in mistake(*localize(lat=8.0, lon=50.0))


def test_a_file_that_is_no_image_is_refused_by_name(localize, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    assert "notes.jpg" in mistake(*localize(path))


def test_a_truncated_photo_is_refused_by_name(localize, tmp_path):
    path = images.truncated_jpeg(tmp_path / "half.jpg")
    assert "half.jpg cannot be read" in mistake(*localize(path))


def test_a_bomb_is_refused_by_a_limit_that_an_option_raises(localize, tmp_path):
    bomb = images.png_bomb(tmp_path / "bomb.png")
    assert "bomb.png" in mistake(*localize(bomb))
    small = mistake(*localize(max_megapixels=0.001))
    assert "road.png has 80 x 60 pixels and the limit is 0.001 million" in small
    result = run(*localize(max_megapixels=0.0048))
    assert result.exit_code == 0, result.stderr


def test_impossible_gps_is_refused_and_an_option_ignores_it(localize, tmp_path):
    impossible = {1: "N", 2: (149.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)}
    photo = images.phone_photo(tmp_path / "phone.jpg", gps=impossible)
    assert "phone.jpg" in mistake(*localize(photo, lat=None, lon=None))
    assert "--lat" in mistake(*localize(photo, lat=None, lon=None, ignore_gps=True))


def test_a_real_photo_is_no_class_image(localize, tmp_path):
    photo = images.phone_photo(tmp_path / "phone.jpg", gps=None)
    assert "class images only" in mistake(*localize(photo))


def test_a_photo_that_is_not_there_is_named(localize, tmp_path):
    result = run(*localize(tmp_path / "nowhere.jpg"))
    assert result.exit_code in (1, 2)
    assert "nowhere.jpg" in result.stderr
    assert result.stdout == ""


def test_a_map_that_is_not_there_is_named(localize, tmp_path):
    result = run(*localize(map=tmp_path / "nowhere.osm"))
    assert result.exit_code in (1, 2)
    assert "nowhere.osm" in result.stderr
    assert result.stdout == ""


def test_a_map_that_is_none_is_named(localize, tmp_path):
    path = tmp_path / "notes.osm"
    path.write_text("no map")
    assert "notes.osm" in mistake(*localize(map=path))


def test_a_network_needs_its_weights_and_both_options_are_named(localize):
    message = mistake(*localize(class_image=None), exit_code=2)
    assert "--weights" in message
    assert "--class-image" in message


def test_weights_that_are_not_there_are_named(localize, tmp_path):
    result = run(*localize(class_image=None, weights=tmp_path / "nowhere.pth"))
    assert result.exit_code in (1, 2)
    assert "nowhere.pth" in result.stderr
    assert result.stdout == ""


def test_corrupt_weights_are_refused_by_name(localize, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    assert "weights.pth" in mistake(*localize(class_image=None, weights=path))


def test_malicious_weights_are_refused_and_not_run(localize, tmp_path):
    path, victim = tmp_path / "weights.pth", tmp_path / "victim"
    command = f"touch {victim}".encode()
    path.write_bytes(b"cposix\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR.")
    assert "posix.system" in mistake(*localize(class_image=None, weights=path))
    assert not victim.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"pitch_deg": 100},
        {"heading_deg": "nan"},
        {"radius_m": "nan"},
        {"radius_m": "inf"},
        {"radius_m": 5000},
        {"radius_m": 90_000},
        {"lat": "nan"},
        {"height_m": "inf"},
        {"focal_px": "inf"},
        {"compass_sigma_deg": "inf"},
    ],
    ids=str,
)
def test_senseless_numbers_end_in_one_line(localize, changes, tmp_path):
    if "compass_sigma_deg" in changes:
        changes = {**changes, "heading_deg": 10}
    result = run(*localize(**changes))
    assert result.exit_code in (1, 2)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(localize, class_photo):
    result = run(*localize(out=class_photo))
    assert result.exit_code == 2
    assert "--out" in result.stderr


@pytest.mark.parametrize("where", [{"panorama": True, "focal_px": None}, {"matcher": "birdseye"}])
@pytest.mark.parametrize(
    "sigma", ["pitch_sigma_deg", "roll_sigma_deg", "height_sigma_m", "focal_sigma"]
)
def test_camera_noise_that_would_be_ignored_is_a_usage_error(localize, where, sigma, tmp_path):
    message = mistake(*localize(**where, **{sigma: 0.1}), exit_code=2)
    assert f"--{sigma.replace('_', '-')}: " in message
    assert f"--{next(iter(where))}" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (5.0, 2.0, 0.15, 0.02)),
        ({"pitch_deg": 0, "roll_deg": 0}, (1.0, 0.5, 0.15, 0.02)),
        ({"pitch_deg": 3, "height_sigma_m": 0, "focal_sigma": 0.1}, (1.0, 2.0, 0.0, 0.1)),
        ({"pitch_sigma_deg": 0, "roll_deg": 1, "roll_sigma_deg": 4}, (0.0, 4.0, 0.15, 0.02)),
    ],
    ids=str,
)
def test_camera_noise_that_is_not_given_is_the_usual(localize, changes, expected, monkeypatch):
    asked = []

    def matcher(self, name, *, noise):
        asked.append(noise)
        raise ValueError("enough")

    monkeypatch.setattr(options.Looks, "matcher", matcher)
    assert "enough" in mistake(*localize(**changes))
    assert asked == [CameraNoise(*expected)]


def test_the_callers_own_log_handlers_stay(localize):
    root = logging.getLogger()
    before = root.handlers[:]
    run(*localize(focal_px=None))
    assert root.handlers == before


def test_verbose_says_where_a_mistake_was_found(localize):
    result = run("--verbose", *localize(focal_px=None))
    assert result.exit_code == 1
    assert "MissingFocalLengthError" in result.stderr
    assert result.stdout == ""
