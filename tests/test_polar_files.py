"""Polar tiles as files: what is written, what is left out, and going on after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossview.errors import DatasetError
from crossview.manifest import Manifest
from crossview.polar import polar_tile
from crossview.preprocessing import Preprocessing
from data_tools.cli import main
from data_tools.polar import PolarForm, SquareTile, make_polar_tiles, tiles_in, tiles_of

REPOSITORY = Path(__file__).resolve().parents[1]
FORM = PolarForm(8, 32)
FACTS = {"name": "made up", "licence": "CC0-1.0", "attribution": ""}


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def noise(seed, size_px=40):
    return np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for k in range(5):
        write(tmp_path / "tiles" / "town" / f"{k}.png", noise(k))
    return tmp_path / "tiles"


def pixels(path):
    return np.asarray(Image.open(path))


def inodes(folder):
    return {path.name: path.stat().st_ino for path in folder.rglob("*.png")}


def test_files_are_what_encoders_see(folder, tmp_path):
    result = run("polar", folder, "--out", tmp_path / "polar", "--height", 8, "--width", 32)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == ["made", "5", "kept", "0", "excluded", "0"]
    rules = Preprocessing((8, 32), (8, 32))
    for k in range(5):
        found = pixels(tmp_path / "polar" / "town" / f"{k}.png")
        np.testing.assert_array_equal(found, rules.overhead(noise(k)))


def test_published_files_are_rescaled_and_not_averaged(folder, tmp_path):
    options = ("--convention", "safa", "--rescale", "minmax", "--height", 8, "--width", 32)
    assert run("polar", folder, "--out", tmp_path / "polar", *options).exit_code == 0
    for k in range(5):
        found = pixels(tmp_path / "polar" / "town" / f"{k}.png")
        expected = polar_tile(noise(k), 8, 32, convention="safa", rescale="minmax")
        np.testing.assert_array_equal(found, expected)
        assert (found.min(), found.max()) == (0, 255)


def manifest_of(folder, **rotations_deg):
    """A manifest of the images of a folder, some of which do not have north up."""
    place = {"region": "town", "lat_deg": 50.0, "lon_deg": 8.0, "cell_m": 0.5}
    tiles = [
        {"tile_id": f"tile-{k}", "image": f"town/{k}.png", **place}
        | {"rotation_deg": rotations_deg.get(f"tile_{k}")}
        for k in range(5)
    ]
    facts = FACTS | {"image_root": folder.resolve()}
    regions = [{"name": "town", "lat_deg": 50.0, "lon_deg": 8.0}]
    manifest = Manifest.from_rows(**facts, regions=regions, tiles=tiles)
    return manifest.save(folder.parent / "manifest")


def test_tiles_of_a_manifest_look_north_in_the_middle_however_they_lie(folder, tmp_path):
    manifest = manifest_of(folder, tile_1=90.0)
    result = run("polar", manifest.folder, "--out", tmp_path / "polar", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["made"], said["excluded"]) == (5, [])
    form = PolarForm()
    # the upper edge of the second points east: turned clockwise by a quarter, it is on the right
    for k, image in ((0, noise(0)), (1, np.rot90(noise(1), -1))):
        found = pixels(tmp_path / "polar" / "town" / f"{k}.png").astype(int)
        assert found.shape == (112, 616, 3)
        assert np.abs(found - form.of(np.ascontiguousarray(image))).max() <= 1


def test_what_cannot_be_read_is_listed_and_has_no_file(folder, tmp_path):
    torn = folder / "town" / "1.png"
    torn.write_bytes(torn.read_bytes()[:2000])
    write(folder / "town" / "2.png", noise(2)[:30])
    (folder / "town" / "3.png").write_bytes(b"")
    (folder / "town" / "4.png").unlink()
    (folder / "town" / "4.png").symlink_to(write(tmp_path / "elsewhere.png", noise(4)))
    result = run("polar", folder, "--out", tmp_path / "polar", "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    problems = {one["tile"]: one["problem"] for one in said["excluded"]}
    assert (said["made"], sorted(problems)) == (1, [f"town/{k}.png" for k in (1, 2, 3, 4)])
    assert "cannot be read" in problems["town/1.png"]
    assert "30 x 40 pixels" in problems["town/2.png"]
    assert "leads out of" in problems["town/4.png"]
    assert [path.name for path in (tmp_path / "polar").rglob("*.png")] == ["0.png"]
    with (tmp_path / "polar" / "polar.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["town/0.png", "", "", "", ""]
    assert {row["tile"]: row["problem"] for row in rows if row["problem"]} == problems
    for name, problem in problems.items():
        assert f"{name}: {problem}" in result.stderr


def test_what_is_there_is_kept_and_what_changed_is_made_again(folder, tmp_path):
    out = tmp_path / "polar"
    tiles = tiles_in(folder)
    before = [file for file, _ in zip(make_polar_tiles(tiles[:3], out, FORM), "abc", strict=False)]
    assert not any(file.is_kept for file in before)
    there = inodes(out)
    (out / "town" / ".3.1234.part.png").write_bytes(b"of a killed build")
    again = list(make_polar_tiles(tiles, out, FORM))
    assert [file.is_kept for file in again] == [True, True, True, False, False]
    assert there.items() <= inodes(out).items()
    assert not list(out.rglob(".*"))
    # other images under old names: one that can be read, and one that cannot
    for k, change in (
        (0, lambda path: write(path, noise(9))),
        (1, lambda path: path.write_text("")),
    ):
        path = folder / "town" / f"{k}.png"
        change(path)
        os.utime(path, ns=(10**18, 10**18))
    changed = list(make_polar_tiles(tiles, out, FORM))
    assert [file.is_kept for file in changed] == [False, False, True, True, True]
    np.testing.assert_array_equal(pixels(out / "town" / "0.png"), FORM.of(noise(9)))
    assert not (out / "town" / "1.png").exists()


def test_a_killed_build_goes_on_where_it_was(tmp_path):
    """Killed hard, by the system, in the middle of a file."""
    for k in range(30):
        write(tmp_path / "tiles" / f"{k:02}.jpg", noise(k, 100))
    out = tmp_path / "polar"
    code = "from data_tools.cli import main; main()"
    command = [sys.executable, "-c", code, "polar", tmp_path / "tiles", "--out", out, "--threads=1"]
    command += ["--height=300", "--width=600"]  # some time for each
    with subprocess.Popen([*map(str, command)], cwd=REPOSITORY) as building:
        while len(list(out.glob("[0-9]*.png"))) < 3 and building.poll() is None:
            time.sleep(0.005)
        building.send_signal(signal.SIGKILL)
    there = inodes(out)
    finished = {name: inode for name, inode in there.items() if not name.startswith(".")}
    assert 3 <= len(finished) < 30
    assert not (out / "polar.csv").exists()
    for name in finished:
        assert pixels(out / name).shape == (300, 600, 3)
    result = run(*command[3:], "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["kept"], said["made"]) == (len(finished), 30 - len(finished))
    assert finished.items() <= inodes(out).items()
    assert len(inodes(out)) == 30


def test_a_folder_of_another_form_or_of_something_else_is_refused(folder, tmp_path):
    out = tmp_path / "polar"
    assert run("polar", folder, "--out", out).exit_code == 0
    result = run("polar", folder, "--out", out, "--convention", "safa")
    assert result.exit_code == 1
    assert "polar tiles of another form" in result.stderr
    result = run("polar", folder, "--out", folder)
    assert result.exit_code == 1
    assert "not empty and has no polar.json" in result.stderr
    assert inodes(folder).keys() == {f"{k}.png" for k in range(5)}


def test_polar_tiles_below_their_own_source_are_no_tiles(folder):
    for made in (5, 0):
        result = run("polar", folder, "--out", folder / "polar", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["made"] == made


def test_two_images_for_one_file_and_no_images_are_refused(folder, tmp_path):
    write(folder / "town" / "0.jpg", noise(0))
    with pytest.raises(DatasetError, match=r"2 tiles would be written to town/0\.png"):
        next(make_polar_tiles(tiles_in(folder), tmp_path / "polar", FORM))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no JPEG or PNG"):
        tiles_in(tmp_path / "empty")
    with pytest.raises(ValueError, match="'gif'"):
        PolarForm(image_format="gif")


def test_a_manifest_without_tiles_says_so(folder):
    manifest = manifest_of(folder)
    assert tiles_of(manifest)[3] == SquareTile("tile-3", manifest.image_folder, "town/3.png")
    empty = Manifest.from_rows(**FACTS, image_root=".").save(folder.parent / "none")
    with pytest.raises(DatasetError, match="made up has no tiles"):
        tiles_of(empty)
