"""The command crossview: data on stdout, words on stderr, one line for a mistake."""

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from fakes import images
from fakes.towns import town_dataset
from PIL import Image
from pytest import approx

from crossview import cli, column_tables, demo, models
from crossview.camera_noise import CameraNoise
from crossview.cli import main, options
from crossview.frames import LocalFrame
from crossview.manifest import Manifest
from crossview.pose_evaluation import Evaluation, finite
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.town import Town

NETWORKS = ("keras", "tensorflow", "jax", "torch")
HEAVY = (*NETWORKS, "rasterio", "geopandas", "pandas", "matplotlib", "osmium", "scipy", "shapely")
COMMANDS = {
    (),
    ("demo",),
    ("evaluate",),
    ("evaluate", "pose"),
    ("fit",),
    ("fit", "semantic"),
    ("localize",),
    ("report",),
    ("show",),
}
FIGURES = (
    "n",
    "num_stations",
    "median_position_error_m",
    "within_1m",
    "within_2m",
    "within_5m",
    "median_heading_error_deg",
    "within_5deg",
    "within_10deg",
    "nll",
    "coverage_50",
    "coverage_50_interval",
    "coverage_90",
    "coverage_90_interval",
    "coverage_95",
    "coverage_95_interval",
    "probability_elsewhere",
    "answered",
    "probability_within_5m",
    "selective_accuracy_5m",
)
NOT_SHARES = ("n", "num_stations", "nll", "median_position_error_m", "median_heading_error_deg")


@pytest.fixture(autouse=True)
def _loggers_as_they_were():
    loggers = [logging.getLogger(name) for name in ("", "crossview", "data_tools")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def run(*arguments):
    """Run a command; whatever is no mistake of the user's is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def mistake(*arguments, exit_code=1):
    """What a command says on stderr, in one line, about a mistake."""
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Traceback" not in result.stderr
    return last


def words_of(options):
    """Options as words: True is a flag, None leaves one out."""
    for name, value in options.items():
        if value is not None:
            yield "--" + name.replace("_", "-")
            yield from () if value is True else (value,)


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


@pytest.fixture(scope="module")
def model(dataset, tmp_path_factory):
    """A folder with tables of that dataset itself: enough to draw pictures."""
    folder = tmp_path_factory.mktemp("model")
    samples = column_tables.samples_of(Manifest.load(dataset), PaletteSegmenter())
    models.save_model(column_tables.tables(samples), folder)
    return folder


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
        *("localize", folder / "photo.png", "--panorama", "--class-image"),
        *("--map", folder / "town.osm", "--out", tmp_path),
        *("--lat", rough_place.lat_deg, "--lon", rough_place.lon_deg, "--radius-m", 25),
    )
    assert result.exit_code == 0, result.stderr
    collection = json.loads((tmp_path / "photo_localized.geojson").read_text(encoding="utf-8"))
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
    with rasterio.open(tmp_path / "photo_localized.tif") as raster:
        assert raster.read(1).sum() == approx(1.0, abs=1e-4)
    with Image.open(tmp_path / "photo_localized.png") as picture:
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


# --------------------------------------------------------------------- evaluate


def test_evaluate_prints_the_promised_figures_of_every_rig(dataset, tmp_path):
    path = tmp_path / "figures.json"
    result = run("evaluate", "pose", dataset, "--class-image", "--json", path)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    figures = json.loads(result.stdout)
    assert tuple(figures) == FIGURES
    assert figures["n"] == 2
    assert figures["median_position_error_m"] < 1.0
    assert figures["median_heading_error_deg"] < 360 / 64
    for name in set(FIGURES) - set(NOT_SHARES):
        assert 0.0 <= np.min(figures[name]) <= np.max(figures[name]) <= 1.0
    # panoramic rigs in an exact map
    assert (figures["answered"], figures["selective_accuracy_5m"]) == (1.0, 1.0)
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["summary"] == figures
    assert set(report["queries"]["0"]) == {"s0", "s1"}
    assert report["prior"]["radius_m"] == 25.0
    assert report["prior"]["seed"] == [0]


def test_evaluate_is_the_same_every_time_and_another_with_another_seed(dataset):
    def figures(seed):
        command = ("evaluate", "pose", dataset, "--class-image", "--radius-m", 8, "--shift-m", 4)
        return run(*command, "--compass-sigma-deg", 10, "--seed", seed).stdout

    first = figures(0)
    assert json.loads(first)["n"] == 2
    assert figures(0) == first
    assert figures(1) != first


def test_evaluate_single_counts_every_photo_and_a_compass_helps(dataset):
    command = ("evaluate", "pose", dataset, "--class-image", "--single", "--compass-sigma-deg", 5)
    figures = json.loads(run(*command, "--radius-m", 8, "--shift-m", 4).stdout)
    assert figures["n"] == 8
    assert figures["within_10deg"] > 0.7


def test_wrong_places_are_summarised_beside_the_right_ones(dataset, tmp_path):
    path = tmp_path / "figures.json"
    command = ("evaluate", "pose", dataset, "--class-image", "--wrong-place", "--outside", 0.2)
    figures = json.loads(run(*command, "--radius-m", 12, "--shift-m", 6, "--json", path).stdout)
    assert tuple(figures) == (*FIGURES, "wrong_place")
    wrong = figures["wrong_place"]
    assert (tuple(wrong), wrong["n"]) == (("n", "probability_elsewhere", "answered"), 2)
    assert wrong["probability_elsewhere"] > 0.1
    assert figures["probability_elsewhere"] < 0.01
    report = json.loads(path.read_text(encoding="utf-8"))
    sure = [one["probability_within_5m"] for one in report["wrong_place"]["0"].values()]
    assert wrong["answered"] == sum(one >= 0.5 for one in sure) / 2
    stated = [one["probability_elsewhere"] for one in report["wrong_place"]["0"].values()]
    assert np.mean(stated) == approx(wrong["probability_elsewhere"])
    stated = [one["stated"]["probability_elsewhere"] for one in report["queries"]["0"].values()]
    assert np.mean(stated) == approx(figures["probability_elsewhere"])
    assert report["prior"]["outside"] == 0.2


@pytest.mark.parametrize(
    ("changes", "known", "errors"),
    [
        ({}, CameraNoise(), None),
        ({"pitch_sigma_deg": 3, "focal_sigma": 0.1}, CameraNoise(3.0, focal_sigma=0.1), None),
        (
            {"pitch_sigma_deg": 3, "camera_error": True},
            CameraNoise(pitch_sigma_deg=3.0),
            CameraNoise(pitch_sigma_deg=3.0),
        ),
        (
            {"roll_sigma_deg": 3, "camera_error": True, "trust_camera": True},
            CameraNoise(),
            CameraNoise(roll_sigma_deg=3.0),
        ),
    ],
    ids=str,
)
def test_cameras_can_be_mis_stated_and_integrated_over_or_trusted(
    dataset, changes, known, errors, monkeypatch
):
    asked = []

    def places(evaluation, rules):
        asked.append(evaluation)
        return {"summary": {}}

    monkeypatch.setattr(Evaluation, "places", places)
    words = words_of({"class_image": True, "single": True, **changes})
    assert run("evaluate", "pose", dataset, *words).exit_code == 0
    assert [(one.matcher.noise, one.camera_error) for one in asked] == [(known, errors)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pitch_sigma_deg": 3}, "--pitch-sigma-deg: the cameras of rigs are calibrated"),
        ({"single": True, "camera_error": True}, "--camera-error draws from"),
        ({"single": True, "focal_sigma": 0.1, "trust_camera": True}, "give --camera-error too"),
        (
            {"single": True, "matcher": "birdseye", "height_sigma_m": 1},
            "--height-sigma-m: --matcher",
        ),
        ({"matcher": "birdseye", "cache": "views"}, "--cache remembers columns"),
        ({"drive": True, "single": True}, "A drive is of whole rigs"),
        ({"drive": True, "wrong_place": True}, "A drive is of whole rigs"),
        ({"cameras": "wide"}, "give --single too"),
        ({"seeds": "a"}, "expected numbers or ranges"),
    ],
    ids=str,
)
def test_options_of_evaluate_that_do_not_belong_together_are_usage_errors(dataset, changes, words):
    options = words_of({"class_image": True, **changes})
    assert words in mistake("evaluate", "pose", dataset, *options, exit_code=2)


def test_an_answer_that_excludes_the_truth_has_no_nll_and_the_json_stays_json():
    figures = finite({"nll": math.inf, "n": 2, "coverage_95": 0.5, "other": None})
    assert figures == {"nll": None, "n": 2, "coverage_95": 0.5, "other": None}


def test_a_prior_that_may_exclude_the_truth_is_refused(dataset):
    command = ("evaluate", "pose", dataset, "--class-image", "--radius-m", 2, "--shift-m", 12)
    assert "may not hold the camera" in mistake(*command)


def test_a_folder_that_is_no_manifest_is_refused(tmp_path):
    assert "dataset.json" in mistake("evaluate", "pose", tmp_path, "--class-image")


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path):
    result = run("evaluate", "pose", tmp_path / "nowhere", "--class-image")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr


def test_a_broken_table_names_file_row_and_column(dataset, tmp_path):
    copy = tmp_path / "broken"
    Manifest.load(dataset).save(copy)
    table = copy / "views.csv"
    table.write_text(table.read_text().replace(",photo,", ",picture,", 1))
    message = mistake("evaluate", "pose", copy, "--class-image")
    assert "views.csv" in message
    assert "kind" in message


def test_a_missing_photo_is_named(dataset, tmp_path):
    copy = tmp_path / "broken"
    Manifest.load(dataset).save(copy)
    table = copy / "views.csv"
    table.write_text(table.read_text().replace("s0-2.png", "gone.png"))
    assert "gone.png" in mistake("evaluate", "pose", copy, "--class-image")


def test_a_dataset_without_a_pose_cannot_be_evaluated(tmp_path):
    image = tmp_path / "photo.png"
    images.write_png(image)
    camera = {"width_px": 40, "height_px": 30, "fx": 20.0, "fy": 20.0, "cx": 20.0, "cy": 15.0}
    (tmp_path / "town.osm").write_bytes(Town.from_seed(0).to_osm_xml())
    Manifest.from_rows(
        name="no poses",
        licence="CC0-1.0",
        attribution="nobody",
        image_root=tmp_path,
        folder=tmp_path,
        regions=[{"name": "town", "lat_deg": 50.0, "lon_deg": 8.0}],
        cameras=[{"camera_id": "c", "model": "pinhole", **camera}],
        views=[
            {
                "view_id": "a",
                "region": "town",
                "order": 0,
                "kind": "photo",
                "image": "photo.png",
                "camera_id": "c",
            }
        ],
        maps=[{"region": "town", "file": "town.osm", "kind": "osm"}],
    ).save(tmp_path / "manifest")
    message = mistake("evaluate", "pose", tmp_path / "manifest", "--class-image")
    assert "no query with a known pose" in message


def test_an_unknown_matcher_is_a_usage_error(dataset):
    assert "semantic" in mistake("evaluate", "pose", dataset, "--matcher", "magic", exit_code=2)


# ------------------------------------------------------------------------- show


def test_show_prints_the_pictures_that_it_wrote(dataset, model, tmp_path):
    options = ("--class-image", "--model", model, "--radius-m", 8, "--shift-m", 4)
    result = run("show", dataset, "s1", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    paths = [Path(line) for line in result.stdout.splitlines()]
    expected = {"birdseye", "columns", "map", "heatmap", "s1-0-footprints"}
    assert expected <= {path.stem for path in paths}
    assert all(path.is_file() for path in paths)


def test_show_of_an_unknown_station_names_those_that_there_are(dataset, model, tmp_path):
    options = ("--class-image", "--model", model)
    message = mistake("show", dataset, "s7", *options, "--out", tmp_path / "out")
    assert "'s7'" in message
    assert "s0, s1" in message
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------- report


@pytest.fixture
def report(dataset, model, tmp_path):
    """Arguments of a small report that works; keyword arguments change options."""

    def arguments(**changes):
        options = {
            "class_image": True,
            "model": model,
            "radius_m": 8,
            "shift_m": 4,
            "out": tmp_path / "out",
        } | changes
        return ["report", dataset, *words_of(options)]

    return arguments


def test_report_prints_the_files_that_it_wrote(report, tmp_path):
    result = run(*report())
    assert (result.exit_code, result.stderr) == (0, "")
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    kinds = {path.stem.rsplit("-", 1)[0] for path in paths}
    assert kinds == {"report", "success-1", "failure-1", "reliability", "errors"}


def test_report_of_single_photos_with_a_compass_and_without_heights(report, tmp_path):
    changes = {"single": True, "compass_sigma_deg": 5, "no_heights": True, "stations": "s1"}
    result = run(*report(**changes, count=1))
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "4 single photos" in text
    assert "with a compass of 5 degrees, without the map's building heights" in text


def test_report_warns_of_the_licence_in_its_help():
    shown = " ".join(run("report", "--help").stdout.split())
    assert "publish the folder only if their licence allows" in shown


def test_report_of_an_unknown_station_writes_nothing(report, tmp_path):
    assert "'s7' names no station" in mistake(*report(stations="s7"))
    assert not (tmp_path / "out").exists()


def test_report_needs_a_prior_that_holds_the_camera(report, tmp_path):
    assert "may not hold the camera" in mistake(*report(radius_m=2, shift_m=12))
    assert not (tmp_path / "out").exists()


def test_report_with_a_model_that_is_not_there_names_it(report):
    assert "There is no model 'nowhere'" in mistake(*report(model="nowhere"))


@pytest.mark.parametrize("changes", [{"count": 0}, {"matcher": "birdseye"}, {"out": None}], ids=str)
def test_senseless_options_of_report_are_usage_errors(report, changes):
    (name,) = changes
    assert f"--{name}" in mistake(*report(**changes), exit_code=2)
