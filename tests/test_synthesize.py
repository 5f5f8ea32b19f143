"""Synthetic datasets: what is written, that it is true, and that interrupted ones go on."""

import errno
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from PIL import Image

from crossview import pose_queries
from crossview.cli import main
from crossview.drive_evaluation import drives as drives_of
from crossview.errors import ManifestError, MapError
from crossview.frames import Motion
from crossview.manifest import Manifest
from crossview.manifest_schema import problems
from crossview.synthetic import moments, shooting, synthesis
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.recipes import Recipe
from crossview.synthetic.render import render_photo
from crossview.synthetic.synthesis import estimate, synthesize
from crossview.synthetic.worlds import Source, World
from crossview.vectors import VectorMap

REPOSITORY = Path(__file__).resolve().parents[1]
TOWN = Source("town-1", seed=1)
SMALL = Recipe(
    (TOWN,), 36, width_px=64, height_px=32, tile_px=32, cell_m=1.5,
    pictures="classes", traffic=0.5,
)  # fmt: skip

POSE_COLUMNS = ("lat_deg", "lon_deg", "heading_deg", "height_m", "pitch_deg", "roll_deg")
POSES_SHA256 = "231fdd39eca30efa5cb76264d279abc0a641b085ef8db8c6da5b4b6f57c8938e"
CLASSES_SHA256 = {
    0: "8925effdb851ff04fb50f939d4264ff6268591e762ba06e1f12d060c149a590e",
    7: "fa27e22eb4dcadf585a57e06e5e20c201e2804798fbf734ba401157005c984ec",
    17: "5188b1ab7c6e0fc9f17a68496a4f2d13825cac72526b704bdf192b44219b32a6",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Panoramas and tiles of a town in colours, with classes, instances and depth."""
    out = tmp_path_factory.mktemp("synthetic") / "town"
    recipe = replace(SMALL, num_views=18, pictures="rgb", with_classes=True, sidewalks=0.3)
    return recipe, synthesize(recipe, out), Manifest.load(out)


def checksums(folder):
    """Every file below a folder and its SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*arguments):
    return CliRunner().invoke(main, ["synthesize", *map(str, arguments)])


# ------------------------------------------------------------------ what is written


def test_a_dataset_is_a_manifest_without_problems(dataset):
    _, summary, manifest = dataset
    assert problems(manifest.folder) == []
    assert [one for some in manifest.file_problems() for one in some] == []
    assert (summary.num_views, summary.num_tiles, summary.num_pairs) == (18, 18, 18)
    assert manifest.licence == "CC0-1.0"
    assert not (manifest.folder / ".synthesis").exists()
    assert "-0.0," not in (manifest.folder / "views.csv").read_text()


def test_poses_and_class_images_are_the_same_on_every_machine(dataset):
    """As pinned by constraints.txt; the map is pinned in test_town."""
    _, _, manifest = dataset
    poses = manifest.views[list(POSE_COLUMNS)].to_numpy(float).round(6) + 0.0
    assert hashlib.sha256(poses.astype("<f8").tobytes()).hexdigest() == POSES_SHA256
    for number, sha256 in CLASSES_SHA256.items():
        name = f"classes/town-1/000/town-1-{number:06d}.png"
        classes = np.asarray(Image.open(manifest.folder / name))
        assert (classes.shape, classes.dtype) == ((32, 64), np.uint8)
        assert hashlib.sha256(classes.tobytes()).hexdigest() == sha256, name


def test_class_images_are_a_manifest_of_their_own(dataset):
    _, _, manifest = dataset
    labels = Manifest.load(manifest.folder / "class_images")
    assert problems(labels.folder) == []
    assert [one for some in labels.file_problems() for one in some] == []
    assert list(labels.views["view_id"]) == list(manifest.views["view_id"])
    assert pose_queries.map_sources(labels)["town-1"].bounds_geo.west < 8.0


def test_depth_instances_and_classes_are_those_of_the_stated_pose(dataset):
    recipe, _, manifest = dataset
    world = World.read("town-1", manifest.map_files()[0].path)
    view = manifest.views.iloc[3]
    # things that move are not in this scene: only what stands is compared
    seen = render_photo(world.scene, manifest.pose(view.view_id), recipe.camera, height_m=1.6)
    name = view["image"].removeprefix("views/").removesuffix(".jpg")
    classes = np.asarray(Image.open(manifest.folder / f"classes/{name}.png"))
    depth = np.asarray(Image.open(manifest.folder / f"depth/{name}.png"))
    instances = np.asarray(Image.open(manifest.folder / f"instances/{name}.png"))
    still = ~np.isin(classes, [CLASSES.index(c) for c in ("car", "person", "truck", "bus")])
    assert still.mean() > 0.8
    assert (classes == seen.classes)[still].mean() > 0.99
    assert depth.dtype == instances.dtype == np.uint16
    expected_m = np.where(np.isfinite(seen.depth_m), seen.depth_m, 0.0).clip(0, 655.35)
    is_same = still & (classes == seen.classes)
    np.testing.assert_allclose(depth[is_same] / 100, expected_m[is_same], atol=0.02)
    np.testing.assert_array_equal(instances[is_same], seen.instances[is_same])


def test_cameras_stand_in_the_open_and_on_streets(dataset):
    _, _, manifest = dataset
    frame = manifest.frame("town-1")
    town_map = VectorMap.read(manifest.map_files()[0].path)
    table = town_map.features.table

    def to_local(lonlat):
        return np.stack(frame.to_local(lonlat[:, 1], lonlat[:, 0]), axis=-1)

    is_building = [("building" in tags) for tags in table["tags"]]
    walls = shapely.transform(table.geometry[is_building].to_numpy(), to_local)
    is_road = [("highway" in tags) for tags in table["tags"]]
    roads = shapely.transform(table.geometry[is_road].to_numpy(), to_local)
    places = shapely.points(to_local(manifest.views[["lon_deg", "lat_deg"]].to_numpy()))
    assert min(shapely.distance(place, walls).min() for place in places) > 0.75
    assert max(shapely.distance(place, roads).min() for place in places) < 8.0  # a sidewalk


def test_the_photo_and_the_tile_of_a_place_are_of_different_times(dataset):
    _, _, manifest = dataset
    times = [
        json.loads(line) for line in (manifest.folder / "times.jsonl").read_text().splitlines()
    ]
    by_id = {one["time_id"]: one for one in times}
    assert set(manifest.views["source"]) | set(manifest.tiles["date"]) == set(by_id)
    for view, tile in zip(manifest.views.itertuples(), manifest.tiles.itertuples(), strict=True):
        photo, flight = by_id[view.source], by_id[tile.date]
        assert photo["appearance"] != flight["appearance"]
        assert photo["movers_seed"] != flight["movers_seed"]
        assert flight["appearance"]["sun_elevation_deg"] >= moments.LEAST_SUN_DEG


def test_a_centred_tile_shows_the_roads_where_its_view_stands(tmp_path):
    synthesize(replace(SMALL, sidewalks=0.0, traffic=0.0), tmp_path / "town")
    manifest = Manifest.load(tmp_path / "town")
    middles = [
        np.asarray(Image.open(manifest.image_path("tiles", tile_id)))[15:17, 15:17]
        for tile_id in manifest.tiles["tile_id"]
    ]
    share = np.mean([np.any(middle == CLASSES.index("road")) for middle in middles])
    assert share > 0.8  # trees hide some


def test_a_grid_has_one_positive_tile_and_up_to_three_semipositive_ones(tmp_path):
    summary = synthesize(replace(SMALL, tiles="grid", num_views=30), tmp_path / "town")
    manifest = Manifest.load(tmp_path / "town")
    frame, side_m = manifest.frame("town-1"), 32 * 1.5
    tiles = manifest.tiles.set_index("tile_id")
    views = manifest.views.set_index("view_id")
    place = {
        key: np.array(frame.to_local(row.lat_deg, row.lon_deg)) for key, row in views.iterrows()
    }
    middle = {
        key: np.array(frame.to_local(row.lat_deg, row.lon_deg)) for key, row in tiles.iterrows()
    }
    assert summary.num_tiles == len(tiles) > 30
    for view_id in views.index:
        offset_m = {t: np.abs(place[view_id] - middle[t]).max() for t in tiles.index}
        expected = {
            t: "positive" if m < side_m / 4 else "semipositive"
            for t, m in offset_m.items()
            if m < side_m / 2
        }
        pairs = manifest.pairs[manifest.pairs["view_id"] == view_id]
        assert dict(zip(pairs["tile_id"], pairs["relation"], strict=True)) == expected
        assert Counter(expected.values())["positive"] == 1


@pytest.mark.parametrize(("tiles", "num_flights"), [("centered", 7), ("grid", 12)])
def test_the_traffic_of_a_flight_is_made_once_for_all_its_tiles(
    tmp_path, tiles, num_flights, monkeypatch
):
    calls, traffic = [], moments.traffic

    def counted(scene, seed, density, **options):
        calls.append(seed)
        return traffic(scene, seed, density, **options)

    monkeypatch.setattr(moments, "traffic", counted)
    recipe = replace(SMALL, num_views=40, tiles=tiles, num_flights=num_flights)
    synthesize(recipe, tmp_path / "town")
    table = Manifest.load(tmp_path / "town").tiles
    assert len(table) > 32
    assert list(table["tile_id"]) == sorted(table["tile_id"])
    assert len(set(table["date"])) == num_flights
    assert max(Counter(calls).values()) == 1


def test_a_rig_is_photos_all_around_from_one_place(tmp_path):
    recipe = replace(SMALL, kind="rig", width_px=24, height_px=24, num_views=3, num_cameras=3,
                     fov_deg=120.0, tiles="none")  # fmt: skip
    synthesize(recipe, tmp_path / "town")
    manifest = Manifest.load(tmp_path / "town")
    stations = manifest.stations()
    assert [len(station.view_ids) for station in stations] == [3, 3, 3]
    assert [mount.heading_deg for mount in stations[0].mounts] == pytest.approx([0, 120, 240])
    assert all(abs(mount.forward_m) < 1e-6 for mount in stations[0].mounts)
    assert manifest.rig(stations[1].station_id).photos[0].camera.horizontal_fov_deg == (
        pytest.approx(120.0)
    )


def test_photos_have_heights_pitches_and_rolls_within_their_spreads(tmp_path):
    recipe = replace(SMALL, kind="photo", width_px=24, height_px=18, tiles="none", height_m=2.0,
                     height_spread_m=0.5, pitch_spread_deg=10.0, roll_spread_deg=5.0)  # fmt: skip
    synthesize(recipe, tmp_path / "town")
    views = Manifest.load(tmp_path / "town").views
    assert views["height_m"].between(1.5, 2.5).all()
    assert views["height_m"].std() > 0.15
    assert views["pitch_deg"].abs().max() <= 10.0 < 4 * views["pitch_deg"].std()
    assert views["roll_deg"].abs().max() <= 5.0 < 4 * views["roll_deg"].std()


# ------------------------------------------------------------------ drives


def test_drives_follow_streets_and_their_odometry_is_about_right(tmp_path):
    recipe = replace(SMALL, frames=12, num_views=30, spacing_m=4.0, tiles="none")
    summary = synthesize(recipe, tmp_path / "town")
    manifest = Manifest.load(tmp_path / "town")
    assert summary.num_drives == 3
    driven = drives_of(manifest, pose_queries.queries(manifest))
    assert [len(one) for one in driven] == [12, 12, 6]
    world = World.read("town-1", manifest.map_files()[0].path)
    stated = {row["station_id"]: row for row in csv_rows(manifest.folder / "odometry.csv")}
    assert len(stated) == 30 - 3
    errors = []
    for one in driven:
        for before, after in itertools.pairwise(one):
            step = before.truth.motion_to(after.truth)
            assert 3.0 < np.hypot(step.forward_m, step.right_m) < 4.1  # corners are cut
            assert step.forward_m > 2.0
            assert abs(step.turn_deg) < 70
            row = stated[after.name]
            said = Motion(*(float(row[name]) for name in ("forward_m", "right_m", "turn_deg")))
            errors.append((said.forward_m / step.forward_m - 1, said.turn_deg - step.turn_deg))
        on_road = [world.scene.roads.distance(shapely.Point(q.truth.x_m, q.truth.y_m)) for q in one]
        assert max(on_road) < 1.0
    spread = np.std(errors, axis=0)
    assert 0.02 < spread[0] < 0.09
    assert 0.5 < spread[1] < 1.6


def csv_rows(path):
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------ going on


def test_a_full_disk_says_so_and_the_next_run_ends_the_same(tmp_path, monkeypatch):
    whole = synthesize(SMALL, tmp_path / "whole")
    write, written = shooting._Shot._write, []

    def full(self, file, body):
        if len(written) == 68:  # in the second block
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        return write(self, file, body)

    monkeypatch.setattr(shooting._Shot, "_write", full)
    with pytest.raises(OSError, match=r"disk of .* is full.*same command"):
        synthesize(SMALL, tmp_path / "town")
    assert not (tmp_path / "town" / "views.csv").exists()
    monkeypatch.undo()
    rest = synthesize(SMALL, tmp_path / "town")
    assert rest.num_made == 4  # of 36: the first block of 32 was there
    assert rest.num_views == whole.num_views
    assert checksums(tmp_path / "town") == checksums(tmp_path / "whole")


def test_files_that_were_lost_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis, "_finished", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        synthesize(SMALL, tmp_path / "town")
    monkeypatch.undo()
    lost, *_ = sorted((tmp_path / "town" / "views").rglob("*.png"))
    lost.write_bytes(lost.read_bytes()[:-20])
    assert synthesize(SMALL, tmp_path / "town").num_made == 32
    synthesize(SMALL, tmp_path / "whole")
    assert checksums(tmp_path / "town") == checksums(tmp_path / "whole")


def test_a_complete_dataset_is_left_alone(dataset):
    recipe, before, manifest = dataset
    old = checksums(manifest.folder)
    again = synthesize(recipe, manifest.folder)
    assert (again.num_made, again.num_views) == (0, before.num_views)
    assert checksums(manifest.folder) == old


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    arguments = [
        sys.executable, "-c", "from crossview.cli import main; main()",
        "synthesize", "--town", "1", "--views", "320",
        "--width", "64", "--height", "32", "--tile-px", "32", "--cell-m", "1.5",
        "--pictures", "classes", "--traffic", "0", "--workers", "2",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    town, journal = tmp_path / "town", tmp_path / "town" / ".synthesis" / "journal.jsonl"
    killed = subprocess.Popen([*arguments, "--out", str(town)], env=environment)
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        if journal.is_file() and journal.read_bytes().count(b"\n") > 1:
            break
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (town / "views.csv").exists()
    done = {
        file: (town / file).stat().st_mtime_ns
        for line in journal.read_bytes().rpartition(b"\n")[0].splitlines()
        for file in json.loads(line)["files"]
    }
    assert len(done) >= 2 * 2 * shooting.BLOCK
    subprocess.run([*arguments, "--out", str(town)], env=environment, check=True)
    assert done == {file: (town / file).stat().st_mtime_ns for file in done}
    subprocess.run([*arguments, "--out", str(tmp_path / "whole")], env=environment, check=True)
    assert checksums(town) == checksums(tmp_path / "whole")


@pytest.mark.slow
def test_any_number_of_workers_makes_the_same_dataset(tmp_path):
    recipe = replace(SMALL, num_views=80, pictures="rgb", with_classes=True, image_format="png")
    synthesize(recipe, tmp_path / "one")
    synthesize(recipe, tmp_path / "three", workers=3)
    one, three = checksums(tmp_path / "one"), checksums(tmp_path / "three")
    assert one.keys() == three.keys()
    exact = ("classes/", "instances/", "depth/", "tile_classes/", "maps/")
    assert [f for f in one if f.startswith(exact) and one[f] != three[f]] == []
    colours = [file for file in one if file.startswith(("views/", "tiles/"))]
    assert len(colours) == 160
    for file in colours:
        pixels = [np.asarray(Image.open(tmp_path / k / file), int) for k in ("one", "three")]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


# ------------------------------------------------------------------ the command


def test_the_command_makes_a_dataset_and_says_what(tmp_path):
    out = tmp_path / "town"
    common = ["--town", "1,4", "--views", 3, "--kind", "photo", "--width", 24, "--height", 18,
              "--tile-px", 16, "--pictures", "classes", "--traffic", 0, "--workers", 1,
              "--split", "town"]  # fmt: skip
    result = run(*common, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["num_views"], said["num_made"], said["splits"]) == (6, 6, {"test": 3, "train": 3})
    manifest = Manifest.load(out)
    assert list(manifest.regions["name"]) == ["town-1", "town-4"]
    assert {len(set(rows["split"])) for _, rows in manifest.views.groupby("region")} == {1}
    other = run(*common, "--out", out, "--seed", 5)
    assert other.exit_code == 1
    assert "seed is 0 there and 5 here" in other.output
    dry = run(*common, "--out", tmp_path / "none", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    about = json.loads(dry.stdout)
    assert about["num_files"] == said["num_files"]
    assert about["megabytes"] == pytest.approx(said["megabytes"], rel=0.2)
    assert not (tmp_path / "none").exists()


DRIVE = ["--town", "1", "--views", 5, "--drive"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--town", "1", "--views", 0], 1, "--views is 0; expected more than 0"),
        (["--views", 3], 1, "give --town SEED or --osm FILE"),
        (["--town", "1", "--pattern", "spiral", "--views", 1], 1, "No street pattern is called"),
        (["--town", "1", "--views", 1, "--frames", 5], 2, "give --drive too"),
        (["--town", "1", "--views", 1, "--normals"], 2, "--classes"),
        (["--town", "1", "--views", 1, "--width", 100], 1, "twice as wide as high"),
        (["--town", "x", "--views", 1], 2, "--town x: expected numbers or ranges"),
        (["--town", "-1", "--views", 1], 2, "--town -1: expected numbers or ranges from 0"),
        ([*DRIVE, "--height-spread-m", 0.5], 2, "leave out --height-spread-m"),
        ([*DRIVE, "--sidewalks", 0.5], 2, "stand on lanes at one height and look ahead"),
        ([*DRIVE, "--heading-spread-deg", 9], 2, "leave out --heading-spread-deg"),
        (["--town", "1", "--views", 1, "--fov-deg", 60], 2, "a full sphere: leave out --fov-deg"),
        (["--town", "1", "--views", 1, "--cameras", 3], 2, "A panorama is of one camera"),
        (
            ["--town", "1", "--views", 1, "--kind", "photo", "--cameras", 3],
            2,
            "A photo is of one camera: leave out --cameras, or give --kind rig",
        ),
        (["--town", "1", "--views", 1, "--tiles", "none", "--flights", 2], 2, "no tiles"),
        (["--town", "1", "--views", 1, "--label-noise", 1], 1, "give --classes too"),
        (["--town", "1", "--views", 1, "--tile-px", 100000], 1, "--tile-px of 100000 px is too"),
        (["--town", "1", "--views", 1, "--width", 20000, "--height", 10000], 1, "33,554,432"),
        (["--town", "1", "--views", 1, "--height-m", 0.1], 1, "stand above the ground"),
        (["--town", "1", "--views", 1, "--workers", 0], 1, "--workers is 0"),
        (["--town", "1", "--views", 1, "--randomness", 2], 1, "expected 0 to 1"),
        (["--osm", "no.osm", "--views", 1], 2, "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(tmp_path, arguments, code, words):
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.split())


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ManifestError, match="something else than a synthetic dataset"):
        synthesize(SMALL, tmp_path)


@pytest.mark.parametrize(
    ("kept", "words"), [("highway", "no buildings"), ("building", "no street to put cameras on")]
)
def test_an_extract_without_buildings_or_roads_is_refused(tmp_path, kept, words):
    lines, corners = [], [(0.0, 0.0), (0.0, 0.002), (0.002, 0.002), (0.002, 0.0)]
    for number, (lat_deg, lon_deg) in enumerate(corners, 1):
        lines.append(f'<node id="{number}" lat="{50 + lat_deg}" lon="{8 + lon_deg}" version="1"/>')
    refs = "".join(f'<nd ref="{k}"/>' for k in (1, 2, 3, 4, 1))
    lines.append(f'<way id="1" version="1">{refs}<tag k="{kept}" v="residential"/></way>')
    extract = tmp_path / "extract.osm"
    extract.write_text('<osm version="0.6">' + "".join(lines) + "</osm>")
    with pytest.raises(MapError, match=words):
        synthesize(replace(SMALL, sources=(Source("x", file=str(extract)),)), tmp_path / "out")


@pytest.mark.parametrize(
    "refused",
    [
        {"sources": (Source("town-1", seed=1, pattern="spiral"),)},
        {"height_m": 3.0},  # there is a map, and no room
    ],
)
def test_a_refused_run_does_not_stand_in_the_way_of_the_corrected_one(
    tmp_path, refused, monkeypatch
):
    def no_room(*_, **__):
        raise MapError("None of 1000 places on the streets has room for a camera.")

    right = replace(SMALL, num_views=2)
    with monkeypatch.context() as patched, pytest.raises((MapError, ValueError)):
        patched.setattr(shooting, "open_place", no_room)
        synthesize(replace(right, **refused), tmp_path / "town")
    assert synthesize(right, tmp_path / "town").num_made == 2
    synthesize(right, tmp_path / "whole")
    assert checksums(tmp_path / "town") == checksums(tmp_path / "whole")


def test_an_extract_is_credited_and_can_be_cut(tmp_path):
    Source("town-1", seed=1).write_map(tmp_path)
    extract = tmp_path / "real.osm"
    text = (tmp_path / "maps" / "town-1.osm").read_text().replace("crossview.synthetic", "somebody")
    extract.write_text(text)
    box = (7.9985, 49.999, 8.0015, 50.001)
    recipe = replace(SMALL, sources=(Source("real", file=str(extract), box=box),), num_views=2)
    synthesize(recipe, tmp_path / "out")
    manifest = Manifest.load(tmp_path / "out")
    assert (manifest.licence, manifest.attribution) == ("ODbL-1.0", "© OpenStreetMap contributors")
    assert manifest.maps["file"].tolist() == ["maps/real.gpkg"]
    assert manifest.views["lon_deg"].between(box[0], box[2]).all()
    assert pose_queries.map_sources(manifest)["real"].bounds_geo == pytest.approx(box)
    assert str(tmp_path) not in (tmp_path / "out" / "synthesis.json").read_text()
    extract.write_text(text + " ")
    with pytest.raises(ManifestError, match="the extract of real is another file"):
        synthesize(recipe, tmp_path / "out")


def test_an_estimate_is_near_what_comes_out(dataset):
    recipe, summary, _ = dataset
    about = estimate(recipe)
    assert about.num_files == pytest.approx(summary.num_files, abs=1)
    assert about.megabytes == pytest.approx(summary.megabytes, rel=0.3)


@pytest.mark.parametrize("options", [{}, {"tiles": "grid"}, {"frames": 8}])
def test_estimated_minutes_are_those_of_the_work_that_is_done(tmp_path, options, monkeypatch):
    """By a clock that goes on by so much for each thing that takes a while, and not otherwise."""
    costs_s = {(moments, "traffic"): 60.0, (shooting._Shot, "_view"): 1.0,
               (shooting._Shot, "_tile"): 2.0}  # fmt: skip
    now_s = [0.0]

    def slow(function, seconds):
        def call(*arguments, **named):
            now_s[0] += seconds
            return function(*arguments, **named)

        return call

    for (owner, name), seconds in costs_s.items():
        monkeypatch.setattr(owner, name, slow(getattr(owner, name), seconds))
    monkeypatch.setattr(synthesis, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    recipe = replace(SMALL, num_views=64, **options)
    about = estimate(recipe)
    start_s = now_s[0]
    shooting._flown_over.cache_clear()
    synthesize(recipe, tmp_path / "town")
    flights_s = recipe.num_flights * costs_s[moments, "traffic"]  # once, and not in the estimate
    assert about.minutes * 60 == pytest.approx(now_s[0] - start_s - flights_s, rel=0.05)
