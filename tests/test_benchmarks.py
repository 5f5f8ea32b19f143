"""Benchmarks run, agree with themselves and say what they measured; no numbers are judged here."""

import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import column_inputs, columns, encoders, harness, manifest, paris, voting, worlds
from benchmarks.__main__ import BENCHMARKS, machine_facts, main
from crossview.nn.encoders import encoder

REPOSITORY = Path(__file__).resolve().parents[1]


def run_benchmarks(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_name_all_names_are_listed():
    finished = run_benchmarks()
    assert finished.returncode == 0
    for name in BENCHMARKS:
        assert name in finished.stdout


def test_an_unknown_name_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        main(["vote"])
    assert "voting" in capsys.readouterr().err


def test_several_names_run_one_after_the_other(monkeypatch, capsys):
    ran = []
    for name in ("polar", "gallery"):
        module = importlib.import_module(f"benchmarks.{name}")
        made = harness.Results(f"table of {name}", {})
        monkeypatch.setattr(module, "run", lambda *, quick, made=made: ran.append(quick) or made)
    assert main(["polar", "gallery", "--quick"]) == 0
    assert ran == [True, True]
    assert capsys.readouterr().out == "table of polar\ntable of gallery\n"
    with pytest.raises(SystemExit):
        main(["polar", "gallery", "--json", "numbers.json"])
    assert "--json is of one benchmark" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_voting_prints_a_table_and_writes_its_numbers(tmp_path):
    file = tmp_path / "voting.json"
    finished = run_benchmarks("voting", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) == 2 + len(voting.VARIANTS)
    assert all(line.startswith("|") and line.count("|") == lines[0].count("|") for line in lines)
    assert "plain FFT" in finished.stderr

    facts = json.loads(file.read_text())
    assert facts["benchmark"] == "voting"
    assert facts["machine"] == machine_facts()
    assert [row["variant"] for row in facts["rows"]] == list(voting.VARIANTS)
    for row in facts["rows"]:
        assert row["max_relative_difference"] < 1e-5
        assert row["cpu_s"] == pytest.approx(row["user_s"] + row["system_s"])
        assert 0 < row["peak_above_imports_bytes"] < row["peak_bytes"]
        assert {"wall_s", "cpu_ratio", "memory_ratio"} <= set(row)


@pytest.mark.slow
def test_quick_encoders_have_rates(tmp_path):
    file = tmp_path / "encoders.json"
    finished = run_benchmarks("encoders", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 2 + len(encoders.QUICK_CASES)
    described, trained = json.loads(file.read_text())["rows"]
    assert min(described["per_s"], trained["per_s"], described["product_gflop_per_s"]) > 0
    # forth and twice back, in both branches
    assert trained["gflop"] == pytest.approx(6 * described["gflop"])


@pytest.mark.slow
def test_operations_of_vgg16_are_those_of_its_convolutions():
    """Of 64 x 96 pixels: pixels of each block, times nine, times channels in and out, times two."""
    made = encoder("safa", ground_px=(64, 96), overhead_px=(64, 96))
    counted = encoders.flops_of(made.ground, np.zeros((1, 64, 96, 3), np.uint8))
    channels = [[3, 64, 64], [64, 128, 128], *[[a, b, b, b] for a, b in ((128, 256), (256, 512))]]
    channels.append([512] * 4)
    convolutions = sum(
        2 * 9 * (64 * 96 // 4**block) * given * made_of
        for block, chain in enumerate(channels)
        for given, made_of in itertools.pairwise(chain)
    )
    head = 8 * (2 * 2 * 6 * 3 + 2 * 6 * 512)
    assert counted == convolutions + head


def test_what_does_not_fit_into_free_memory_is_skipped_with_a_reason():
    case = voting.Case(512, 256)
    reason = voting.shortage(case, "plain FFT", 4 * 10**9)
    assert reason == "needs about 7.3 GB and 4.0 GB are free"
    assert voting.shortage(case, "plain FFT", 20 * 10**9) is None
    assert voting.shortage(case, "crossview", 4 * 10**9) is None
    assert voting.shortage(case, "plain FFT", None) is None


def test_a_skipped_variant_has_a_row_without_numbers(monkeypatch):
    monkeypatch.setattr(voting, "plain_bytes", lambda case: 10**18)
    monkeypatch.setattr(voting, "available_bytes", lambda: 10**9)
    monkeypatch.setattr(
        voting, "VARIANTS", {name: voting.VARIANTS[name] for name in ("plain FFT", "crossview")}
    )
    results = voting.run(quick=True)
    skipped, engine = results.numbers["rows"]
    assert "1.0 GB are free" in skipped["skipped"]
    assert "cpu_s" not in skipped
    assert engine["max_relative_difference"] == 0
    assert "cpu_ratio" not in engine
    assert "skipped: needs about" in results.table


# ---------------------------------------------------------------------- tiles


@pytest.mark.slow
def test_quick_tiles_prints_one_table_of_downloads_and_of_the_store(tmp_path):
    file = tmp_path / "tiles.json"
    finished = run_benchmarks("tiles", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert all(line.startswith("|") and line.count("|") == lines[0].count("|") for line in lines)
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == len(lines) - 2
    polite = rows[0]
    assert (polite["tiles"], polite["requests"], polite["failed"]) == (30, 30, 0)
    assert all(row["per_s"] == pytest.approx(row["tiles"] / row["seconds"]) for row in rows)


# ---------------------------------------------------------------------- galleries


@pytest.mark.slow
def test_quick_gallery_says_how_it_is_written_and_that_every_variant_is_exact(tmp_path):
    file = tmp_path / "gallery.json"
    finished = run_benchmarks("gallery", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    caption, _, *lines = finished.stdout.splitlines()
    assert "3,000 x 32 descriptors" in caption
    assert all(line.startswith("|") and line.count("|") == lines[0].count("|") for line in lines)
    facts = json.loads(file.read_text())
    rows = [*facts["prior"], *facts["single"], *facts["batch"]]
    assert len(rows) == len(lines) - 2
    assert facts["written"]["megabytes"] == pytest.approx((128 + 3000 * 32 * 4) / 1e6)
    for row in rows:
        # float16 may swap what differs by its rounding
        assert row.get("recall", 1.0) >= (0.99 if "float16" in row["variant"] else 1.0)
    for row in (*facts["prior"], *facts["single"]):
        assert 0 < row["p50_ms"] <= row["p95_ms"]


# ---------------------------------------------------------------------- columns


@pytest.fixture(scope="module")
def column_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    column_inputs.write(columns.QUICK_CASE, folder)
    return folder


def found_by(step, folder):
    """The answer of every variant of a step, in this process."""
    given = column_inputs.read(folder, step)
    return {name: variant(given)() for name, variant in columns.VARIANTS[step].items()}


@pytest.mark.slow
def test_quick_columns_prints_a_caption_and_a_table_and_writes_its_numbers(tmp_path):
    file = tmp_path / "columns.json"
    finished = run_benchmarks("columns", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    caption, _, *lines = finished.stdout.splitlines()
    assert "in 0.3 s, and the ray-casting in 3 s" in caption
    assert "levelling and matching use 2 threads" in caption
    variants = [(step, name) for step, names in columns.VARIANTS.items() for name in names]
    assert len(lines) == 2 + len(variants)
    assert all(line.startswith("|") and line.count("|") == lines[0].count("|") for line in lines)

    facts = json.loads(file.read_text())
    assert facts["benchmark"] == "columns"
    assert [(row["step"], row["variant"]) for row in facts["rows"]] == variants
    for row, line in zip(facts["rows"], lines[2:], strict=True):
        is_sample = row["share_of_work"] < 1
        assert is_sample == ("≈" in line) == ("memory_ratio" not in row)
        assert row["cpu_s"] == pytest.approx(row["user_s"] + row["system_s"])
        assert 0 < row["peak_above_imports_bytes"] < row["peak_bytes"]
        assert {"wall_s", "cpu_ratio", "wall_ratio"} <= set(row)
        for difference in row["differences"].values():
            assert difference["share_within_tolerance"] > 0.85


def test_matching_is_the_same_by_every_formulation(column_folder):
    ours, without_compiler, one_by_one = found_by("matching", column_folder).values()
    assert ours.arrays["sums"].shape[1] == columns.QUICK_CASE.num_headings
    assert without_compiler.arrays["sums"] == pytest.approx(ours.arrays["sums"], abs=1e-2)
    sampled = ours.arrays["sums"][one_by_one.cells]
    assert one_by_one.arrays["sums"] == pytest.approx(sampled, abs=1e-2)
    assert one_by_one.share == len(sampled) / len(ours.arrays["sums"])


def test_rays_meet_the_same_walls_by_every_formulation(column_folder):
    ours, gathered, exact = found_by("ray-casting", column_folder).values()
    for name, least in (("range_m", 0.95), ("skyline_deg", 0.85)):
        for answer in (gathered, exact):
            cells = slice(None) if answer.cells is None else answer.cells
            values = ours.arrays[name][cells]
            assert values.shape == answer.arrays[name].shape
            away = columns._difference(name, answer.arrays[name], values)
            assert away["share_within_tolerance"] > least, name


def test_a_station_is_found_where_it_stands_with_rays_remembered_or_not(column_folder):
    before, now = found_by("station after segmentation", column_folder).values()
    assert before.arrays["position"].sum() == pytest.approx(1.0, abs=1e-4)
    assert now.arrays["position"] == pytest.approx(before.arrays["position"])


def test_a_sample_is_extrapolated_to_the_whole_work(monkeypatch, column_folder, capsys, tmp_path):
    seconds = {"cpu_s": 2.0, "user_s": 1.5, "system_s": 0.5, "wall_s": 2.5}
    monkeypatch.setattr(harness, "cheapest", lambda call, *, repeats: (call(), seconds))
    answer = tmp_path / "answer.pickle"
    columns._measure("matching", "pose by pose (NumPy)", str(column_folder), str(answer), "1")
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["cpu_s"] == pytest.approx(2.0 / numbers["share_of_work"])
    assert numbers["wall_s"] == pytest.approx(2.5 / numbers["share_of_work"])
    assert numbers["share_of_work"] < 1


def test_a_row_that_was_skipped_has_no_numbers_and_the_next_is_ours():
    rows = [
        {"step": "matching", "variant": "a", "skipped": "numba is not installed"},
        {"cpu_s": 2.0, "wall_s": 1.0, "share_of_work": 1, "peak_above_imports_bytes": 5},
    ]
    rows[1] |= {"step": "matching", "variant": "b", "user_s": 2.0, "system_s": 0.0}
    columns._compare(rows, {"b": ({"sums": np.zeros((2, 2))}, None)})
    assert rows[1]["cpu_ratio"] == 1
    first, second = columns._table(rows).splitlines()[2:]
    assert "skipped: numba is not installed" in first
    assert first.count("|") == second.count("|")


def test_nearly_all_is_not_all():
    assert columns._percent(0.99999) == "99.99 %"
    assert columns._percent(1.0) == "100 %"


# ---------------------------------------------------------------------- manifest


@pytest.mark.slow
def test_quick_manifest_saves_loads_checks_and_appends_within_its_memory():
    # its own asserts see to it that every row arrives
    results = manifest.run(quick=True)
    steps = [row["step"] for row in results.numbers["rows"]]
    assert set(manifest.STEPS) - set(steps) <= {"load Parquet"}
    assert len(results.table.splitlines()) == 2 + len(steps)
    for row in results.numbers["rows"]:
        # a million rows must fit into 1 GB: a fiftieth of it beside what the libraries need
        assert row["peak_bytes"] < 250e6, row


# ---------------------------------------------------------------------- osm


def test_quick_osm_compares_the_readers_and_draws_windows(tmp_path):
    file = tmp_path / "osm.json"
    finished = run_benchmarks("osm", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    reading, drawing = finished.stdout.strip().split("\n\n")
    for table in (reading, drawing):
        lines = table.splitlines()
        assert all(line.count("|") == lines[0].count("|") for line in lines)
    facts = json.loads(file.read_text())
    ours, osmnx = (facts["reading"][name] for name in ("ours", "osmnx"))
    assert ours["features"] == osmnx["features"] > 100
    assert facts["ratios"]["seconds"] == pytest.approx(osmnx["cpu_s"] / ours["cpu_s"])
    assert 0 < facts["drawing"]["town"]["median_ms"] <= facts["drawing"]["town"]["high_ms"]


# ---------------------------------------------------------------------- render


@pytest.mark.slow
def test_quick_render_measures_every_picture_and_a_city(tmp_path):
    file = tmp_path / "render.json"
    finished = run_benchmarks("render", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    caption, _, *lines = finished.stdout.splitlines()
    assert "The aim is 300 shaded panoramas per second on two cores" in caption
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    facts = json.loads(file.read_text())
    assert len(lines) == 2 + len(facts["rows"]) + 1
    assert facts["agreement"] > 0.998
    classes, shaded = facts["rows"][:2]
    assert classes["per_s_and_core"] > shaded["per_s_and_core"] > 0
    brute_force = facts["rows"][-1]
    assert brute_force["share_of_work"] < 1
    assert "≈" in lines[-2]
    (pairs,) = (row for row in facts["rows"] if "RenderedPairs" in row["how"])
    assert 0 < pairs["per_s_and_core"] < shaded["per_s_and_core"]
    city = facts["cities"]["made_up"]
    assert city["peak_bytes"] > city["index_bytes"] > 0
    assert city["buildings"] > 10


# ---------------------------------------------------------------------- polar


def test_quick_polar_measures_every_way_to_the_same_tiles(tmp_path):
    file = tmp_path / "polar.json"
    finished = run_benchmarks("polar", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    caption, _, *lines = finished.stdout.splitlines()
    assert (
        "The aim for 1200 px to 112 x 616 is 1850 per second on two cores and 22 times" in caption
    )
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    rows = json.loads(file.read_text())["rows"]
    assert len(lines) == 2 + len(rows)
    measured = {row["how"]: row for row in rows if "skipped" not in row}
    assert len(measured) >= 4
    for row in measured.values():
        assert row["per_s_and_core"] > 0
        # OpenCV's fixed maps have weights of 5 bits
        assert row["furthest"] < (8 if "int16" in row["how"] else 0.6)
    loop = measured["a loop over pixels (Python)"]
    assert loop["ratio"] < 1 == measured["published formulation (NumPy, float64)"]["ratio"]


# ---------------------------------------------------------------------- paris


def test_quick_paris_measures_real_rigs(tmp_path, data_dir):
    file = tmp_path / "paris.json"
    finished = run_benchmarks("paris", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    (summary,) = json.loads(file.read_text())[paris.QUICK_STATIONS].values()
    assert summary["n"] == 3
    assert summary["median_position_error_m"] < 0.9


def test_without_the_photos_paris_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSVIEW_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"has no paris_itowns .* set CROSSVIEW_DATA"):
        paris.run(quick=True)


def test_a_row_of_paris_says_means_and_where_seeds_differ():
    summary = {
        "n": 14,
        "median_position_error_m": 0.514,
        "within_1m": 0.85,
        "range": {"within_1m": [0.79, 0.86], "median_position_error_m": [0.51, 0.52]},
        "wrong_place": {"probability_elsewhere": 0.72, "answered": 0.114},
    }
    cells = [cell.strip() for cell in paris.row("rig", summary).strip("|").split("|")]
    assert cells[:4] == ["rig", "14", "0.51 m", "0.85 (0.79-0.86) / - / -"]
    assert cells[-2:] == ["- / -", "0.72, 11% answered"]


# ---------------------------------------------------------------------- worlds


def test_quick_worlds_places_views_of_a_town(tmp_path):
    file = tmp_path / "worlds.json"
    finished = run_benchmarks("worlds", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    head, _, line = finished.stdout.strip().splitlines()
    assert line.count("|") == head.count("|")
    numbers = json.loads(file.read_text())
    (found,) = (found for name, found in numbers.items() if name.startswith("perfect"))
    assert found["n"] == worlds.QUICK_VIEWS


def test_recall_counts_errors_below_each_threshold():
    queries = [
        {"position_error_m": 0.5, "heading_error_deg": 4.0},
        {"position_error_m": 3.0, "heading_error_deg": 90.0},
    ]
    found = worlds.recall(queries)
    assert [found[f"within_{t:g}m"] for t in worlds.THRESHOLDS] == [0.5, 0.5, 1.0]
    assert [found[f"within_{t:g}deg"] for t in worlds.THRESHOLDS] == [0.0, 0.0, 0.5]


# ---------------------------------------------------------------------- retrieval


@pytest.mark.slow
def test_quick_two_stage_goes_from_towns_to_poses(tmp_path, monkeypatch):
    """What it keeps in a folder, a second run finds there."""
    monkeypatch.setenv("CROSSVIEW_BENCHMARK_FOLDER", str(tmp_path / "kept"))
    file = tmp_path / "two_stage.json"
    finished = run_benchmarks("two_stage", "--quick", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
    facts = json.loads(file.read_text())
    assert len(facts["errors_m"]) == facts["n"] == 3
    assert 0 <= facts["first"] <= facts["among"] <= 1 and facts["scale"] > 0
    weights = tmp_path / "kept" / "model-wide-quick" / "best" / "model.json"
    made = weights.stat().st_mtime_ns
    assert run_benchmarks("two_stage", "--quick").returncode == 0
    assert weights.stat().st_mtime_ns == made
