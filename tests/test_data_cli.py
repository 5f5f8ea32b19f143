"""The command crossview-data: data on stdout, words on stderr, one line for a mistake."""

import io
import json
import subprocess
import sys
import threading

import click
import pytest
from click.testing import CliRunner
from fakes import itowns as fake

from crossview import console
from crossview.manifest import Manifest
from data_tools.cli import main


@pytest.fixture
def source(tmp_path):
    return fake.write_folder(
        tmp_path / "source", [fake.station(7), fake.station(8, seconds=1)], photos_of={7}
    )


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_import_writes_a_manifest_and_prints_its_folder(tmp_path, source):
    result = run("import", "itowns", source, "--out", tmp_path / "paris")
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'paris'}\n"
    assert "1 stations with 5 photos imported; 1 stations without any photo" in result.stderr
    assert len(Manifest.load(tmp_path / "paris").views) == 5


def test_import_as_json_is_one_object(tmp_path, source):
    result = run("import", "itowns", source, "--out", tmp_path / "paris", "--json")
    said = json.loads(result.stdout)
    assert (said["folder"], said["views"], said["stations"]) == (str(tmp_path / "paris"), 5, 1)


def test_every_command_has_json_for_scripts():
    def commands(command, path):
        if not isinstance(command, click.Group):
            yield path, command
            return
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), f"{path} {name}".strip())

    found = dict(commands(main, ""))
    assert len(found) >= 11
    without = [
        path for path, c in found.items() if "--json" not in {o for p in c.params for o in p.opts}
    ]
    assert without == []


def test_quiet_says_nothing_but_the_answer(tmp_path, source):
    result = run("--quiet", "import", "itowns", source, "--out", tmp_path / "paris")
    assert result.stderr == ""
    assert result.stdout == f"{tmp_path / 'paris'}\n"


def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(tmp_path, source):
    fake.photo_path(source, 7, 303).unlink()
    result = run("import", "itowns", source, "--out", tmp_path / "paris")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(
        "Error: 1 photos are missing or damaged: station 7 has no photo"
    )
    assert result.stderr.count("\n") == 1


def test_overwrite_replaces_a_manifest(tmp_path, source):
    command = ("import", "itowns", source, "--out", tmp_path / "paris")
    assert run(*command).exit_code == 0
    refused = run(*command)
    assert refused.exit_code == 1
    assert "--overwrite" in refused.stderr
    assert run(*command, "--overwrite").exit_code == 0


def test_check_prints_a_summary(tmp_path, source):
    run("import", "itowns", source, "--out", tmp_path / "paris")
    result = run("check", tmp_path / "paris")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["name"] == "IGN research iTowns sample dataset"
    assert {key: lines[key] for key in ("views", "cameras", "stations", "maps", "problems")} == {
        "views": "5", "cameras": "5", "stations": "1", "maps": "1", "problems": "0",
    }  # fmt: skip


def test_check_lists_every_image_that_does_not_open(tmp_path, source):
    run("import", "itowns", source, "--out", tmp_path / "paris")
    for camera in (301, 304):
        path = fake.photo_path(source, 7, camera)
        path.write_bytes(path.read_bytes()[:300])
    result = run("check", tmp_path / "paris")
    assert result.exit_code == 1
    assert "views.csv row 3, column image: " in result.stdout
    assert "views.csv row 6, column image: " in result.stdout
    assert result.stdout.endswith("problems  2\n")


def test_check_lists_broken_rows(tmp_path, source):
    run("import", "itowns", source, "--out", tmp_path / "paris")
    views = tmp_path / "paris" / "views.csv"
    views.write_text(views.read_text().replace(",photo,", ",sketch,"))
    result = run("check", tmp_path / "paris")
    assert result.exit_code == 1
    assert "views.csv row 2, column kind: 'sketch' is not possible" in result.stdout
    assert result.stdout.endswith("problems  5\n")


def test_a_folder_that_is_no_manifest_is_a_problem(tmp_path):
    result = run("check", tmp_path)
    assert result.exit_code == 1
    assert "dataset.json: not found" in result.stdout


class Terminal(io.StringIO):
    """A stderr that people look at."""

    def __init__(self):
        super().__init__()
        self.is_written = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        self.is_written.set()
        return super().write(text)


def test_what_takes_long_says_its_seconds_and_wipes_them_away(monkeypatch):
    monkeypatch.setattr(console, "PROGRESS_DELAY_S", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with console.waiting("Reading town.osm.pbf"):
        assert sys.stderr.is_written.wait(10)
    said, blanks, last = sys.stderr.getvalue().rsplit("\r", 2)
    assert "Reading town.osm.pbf: 0 s" in said
    assert (blanks.strip(), len(blanks), last) == ("", len("Reading town.osm.pbf: 0 s"), "")


def test_what_is_quick_or_goes_to_a_file_says_nothing(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with console.waiting("Reading town.osm.pbf"):
        pass
    monkeypatch.setattr(console, "PROGRESS_DELAY_S", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    before = threading.active_count()
    with console.waiting("Reading town.osm.pbf"):
        assert threading.active_count() == before
    assert (terminal.getvalue(), sys.stderr.getvalue()) == ("", "")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from data_tools.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'pandas', 'PIL', 'pyproj', 'keras', 'geopandas', 'tqdm'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "import" in result.stdout


def test_paris_is_imported_and_checks(data_dir, tmp_path):
    result = run("import", "itowns", data_dir / "paris_itowns", "--out", tmp_path / "paris")
    assert "27 stations with 135 photos imported; 23 stations without any photo" in result.stderr
    result = run("check", tmp_path / "paris")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "problems  0")
