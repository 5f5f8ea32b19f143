"""Benchmarks run, agree with themselves and say what they measured; no numbers are judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import voting
from benchmarks.__main__ import BENCHMARKS, machine_facts, main

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
