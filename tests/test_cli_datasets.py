"""The commands crossview evaluate, show and report: datasets in, figures and pictures out."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from fakes import images
from fakes.commands import mistake, run, words_of
from fakes.towns import town_dataset
from pytest import approx

from crossview import column_tables, models
from crossview.camera_noise import CameraNoise
from crossview.manifest import Manifest
from crossview.pose_evaluation import Evaluation, finite
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.town import Town

pytestmark = pytest.mark.usefixtures("loggers_as_they_were")

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
