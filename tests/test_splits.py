"""Splits on the ground: nothing leaks across the buffer, shares are near, lots repeat."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import manifests as fake
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from crossview.errors import ManifestError
from crossview.frames import LocalFrame, Pose
from crossview.manifest import Manifest
from data_tools import splits
from data_tools.cli import main

GEOD = Geod(ellps="WGS84")


def town(x_m, y_m, *, region="town", frame=fake.FRAME, stations=None, prefix="v"):
    """Rows of views in a region's frame."""
    rows = []
    for i, place in enumerate(zip(x_m, y_m, strict=True)):
        geo = frame.geo_pose(Pose(*map(float, place), 0.0))
        rows.append({
            **fake.view(f"{prefix}{i:04}", "side", None), "region": region,
            "lat_deg": geo.lat_deg, "lon_deg": geo.lon_deg, "heading_deg": 0.0,
            "station_id": "" if stations is None else f"s{stations[i]}",
        })  # fmt: skip
    return rows


def scattered(num_views, *, side_m=3000.0, seed=0, **options):
    rng = np.random.default_rng(seed)
    return town(*rng.uniform(-side_m / 2, side_m / 2, (2, num_views)), **options)


def manifest_of(rows, regions=fake.REGIONS):
    return fake.manifest("images", views=rows, regions=regions)


def split_of(division):
    views = division.manifest.views
    return dict(zip(views["view_id"], views["split"], strict=True))


def nearest_of_another_split_m(manifest):
    """By brute force and on the ellipsoid: not how the splits are made."""
    views = manifest.views[manifest.views["split"] != ""]
    i, j = np.triu_indices(len(views), 1)
    split, lon_deg, lat_deg = (views[name].to_numpy() for name in ("split", "lon_deg", "lat_deg"))
    differ = split[i] != split[j]
    i, j = i[differ], j[differ]
    _, _, distance_m = GEOD.inv(lon_deg[i], lat_deg[i], lon_deg[j], lat_deg[j])
    return float(np.min(distance_m)) if len(i) else np.inf


@given(
    num_views=st.integers(40, 160),
    buffer_m=st.floats(0, 150),
    seed=st.integers(0, 10),
    num_stations=st.integers(20, 60),
)
def test_no_two_views_of_different_splits_are_nearer_than_the_buffer(
    num_views, buffer_m, seed, num_stations
):
    stations = np.arange(num_views) % num_stations
    rows = scattered(num_views, seed=seed, stations=stations)
    try:
        division = splits.by_cells(
            manifest_of(rows), {"train": 0.5, "test": 0.5}, cell_m=400, buffer_m=buffer_m, seed=seed
        )
    except ManifestError as error:
        assert "No view is left" in str(error)
        return
    assert nearest_of_another_split_m(division.manifest) >= buffer_m
    views = division.manifest.views
    assert (views.groupby("station_id")["split"].nunique() == 1).all()


def test_only_views_near_another_split_give_way():
    division = splits.by_cells(manifest_of(scattered(400)), cell_m=600, buffer_m=60, seed=1)
    views = division.manifest.views
    kept, dropped = views[views["split"] != ""], views[views["split"] == ""]
    assert division.num_buffered == len(dropped) > 0
    for _, view in dropped.iterrows():
        lon_deg, lat_deg = np.full(len(kept), view["lon_deg"]), np.full(len(kept), view["lat_deg"])
        _, _, distance_m = GEOD.inv(lon_deg, lat_deg, kept["lon_deg"], kept["lat_deg"])
        assert distance_m.min() < 60


def test_the_smallest_split_keeps_its_views_and_the_largest_gives_way():
    x_m = np.array([0, 10, 20, 30, 40, 50, 60.0])
    rows = town(x_m, np.zeros(7), region="town")
    regions = [*fake.REGIONS, {**fake.REGIONS[0], "name": "east"}]
    for row in rows[5:]:
        row["region"] = "east"
    division = splits.by_named_regions(
        manifest_of(rows, regions), {"town": "train", "east": "test"}, buffer_m=25
    )
    # the test views stand at 50 m and 60 m: train keeps what is at 25 m or farther from 50 m
    assert list(split_of(division).values()) == ["train"] * 3 + [""] * 2 + ["test"] * 2
    assert (division.counts, division.num_buffered) == ({"train": 3, "test": 2}, 2)


def test_a_distance_of_just_the_buffer_is_enough():
    # 1 degree of longitude on the equator: the chord of the ellipsoid, by hand
    chord_m = 2 * 6378137.0 * np.sin(np.deg2rad(0.001) / 2)
    rows = [
        {**fake.view(name, "side", None), "region": region, "lat_deg": 0.0, "lon_deg": lon_deg}
        for name, region, lon_deg in (("a", "west", 0.0), ("b", "east", 0.001))
    ]
    regions = [{"name": name, "lat_deg": 0.0, "lon_deg": 0.0} for name in ("west", "east")]
    named = {"west": "train", "east": "test"}
    division = splits.by_named_regions(
        manifest_of(rows, regions), named, buffer_m=chord_m * (1 - 1e-9)
    )
    assert division.num_buffered == 0
    with pytest.raises(ManifestError, match="No view is left"):
        splits.by_named_regions(manifest_of(rows, regions), named, buffer_m=chord_m * (1 + 1e-9))


def test_neighbours_in_two_regions_do_not_leak():
    other = LocalFrame(fake.FRAME.lat_deg + 0.03, fake.FRAME.lon_deg)
    regions = [*fake.REGIONS, {"name": "north", "lat_deg": other.lat_deg, "lon_deg": other.lon_deg}]
    rows = scattered(150, side_m=3400) + scattered(
        150, side_m=3400, seed=9, region="north", frame=other, prefix="n"
    )
    division = splits.by_named_regions(
        manifest_of(rows, regions), {"town": "train", "north": "test"}, buffer_m=200
    )
    assert division.num_buffered > 0
    assert nearest_of_another_split_m(division.manifest) >= 200


def test_neighbours_across_the_antimeridian_do_not_leak():
    frame = LocalFrame(-17.0, 180.0)
    regions = [{"name": "fiji", "lat_deg": -17.0, "lon_deg": 180.0}]
    rows = scattered(200, region="fiji", frame=frame)
    assert {row["lon_deg"] > 0 for row in rows} == {True, False}
    division = splits.by_cells(manifest_of(rows, regions), cell_m=600, buffer_m=80)
    assert nearest_of_another_split_m(division.manifest) >= 80


@pytest.mark.parametrize("shares", [
    {"train": 0.8, "val": 0.1, "test": 0.1}, {"a": 0.25, "b": 0.75}, {"x": 1.0},
])  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_shares_are_near_those_that_were_asked_for(shares, seed):
    rows = scattered(2000, side_m=4000, seed=seed)
    bare = splits.by_cells(manifest_of(rows), shares, cell_m=200, buffer_m=0, seed=seed)
    x_m, y_m = fake.FRAME.to_local([r["lat_deg"] for r in rows], [r["lon_deg"] for r in rows])
    cells = np.stack([np.floor(x_m / 200), np.floor(y_m / 200)])
    largest = np.unique(cells, axis=1, return_counts=True)[1].max() / len(rows)
    for split, share in shares.items():
        assert bare.shares[split] == pytest.approx(share, abs=largest)
    assert bare.num_buffered == 0


def test_shares_stay_near_with_a_buffer_that_is_narrow_beside_the_cells():
    rows = scattered(2000, side_m=6000)
    division = splits.by_cells(manifest_of(rows), cell_m=1000, buffer_m=20)
    for split, share in splits.DEFAULT_SHARES.items():
        assert division.shares[split] == pytest.approx(share, abs=0.06)


def test_a_lot_repeats_whatever_the_order_of_the_rows_and_another_seed_draws_anew():
    rows = scattered(300, stations=np.arange(300) // 3)
    first = split_of(splits.by_cells(manifest_of(rows), cell_m=400, buffer_m=30, seed=7))
    again = split_of(splits.by_cells(manifest_of(rows[::-1]), cell_m=400, buffer_m=30, seed=7))
    other = split_of(splits.by_cells(manifest_of(rows), cell_m=400, buffer_m=30, seed=8))
    assert first == again
    assert first != other


def test_whole_cells_go_to_one_split():
    division = splits.by_cells(manifest_of(scattered(500)), cell_m=500, buffer_m=0)
    views = division.manifest.views
    x_m, y_m = fake.FRAME.to_local(views["lat_deg"], views["lon_deg"])
    assert (views.groupby([x_m // 500, y_m // 500])["split"].nunique() == 1).all()
    assert views["split"].nunique() == 3


def test_whole_towns_go_to_one_split():
    regions, rows = [], []
    for i in range(6):
        frame = LocalFrame(48.0 + i, 2.0)
        regions.append({"name": f"t{i}", "lat_deg": frame.lat_deg, "lon_deg": frame.lon_deg})
        rows += scattered(20, region=f"t{i}", frame=frame, prefix=f"t{i}-", seed=i)
    division = splits.by_regions(manifest_of(rows, regions), {"train": 2 / 3, "test": 1 / 3})
    assert (division.manifest.views.groupby("region")["split"].nunique() == 1).all()
    assert division.counts == {"train": 80, "test": 40}


def polygons_file(path, *boxes):
    def ring(west, south, east, north):
        return [[west, south], [east, south], [east, north], [west, north], [west, south]]

    features = [
        {"type": "Feature", "properties": {"split": split},
         "geometry": {"type": "Polygon", "coordinates": [ring(*box)]}}
        for split, *box in boxes
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_views_go_to_the_polygon_that_they_stand_in(tmp_path):
    rows = scattered(300)
    lon_deg, lat_deg = fake.FRAME.lon_deg, fake.FRAME.lat_deg
    file = polygons_file(
        tmp_path / "a.geojson",
        ("test", lon_deg, lat_deg, lon_deg + 1, lat_deg + 1),
        ("val", lon_deg - 1, lat_deg - 1, lon_deg, lat_deg),
    )
    division = splits.by_polygons(manifest_of(rows), file, rest="train", buffer_m=0)
    expected = {
        (True, True): "test", (False, False): "val", (True, False): "train", (False, True): "train",
    }  # fmt: skip
    got = split_of(division)
    for row in rows:
        assert got[row["view_id"]] == expected[row["lon_deg"] > lon_deg, row["lat_deg"] > lat_deg]
    without = splits.by_polygons(manifest_of(rows), file, buffer_m=0)
    assert without.num_left_out == division.counts["train"]
    assert set(without.counts) == {"test", "val"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no GeoJSON of polygons with a property `split`"),
        ('{"features": []}', "has no polygons"),
        ('{"features": [{"properties": {}, "geometry": null}]}', "no GeoJSON of polygons"),
        ('{"features": [{"properties": {"split": "a"}, "geometry": {"type": "Point", '
         '"coordinates": [1, 2]}}]}', "Point of split 'a' is no valid polygon"),
    ],
)  # fmt: skip
def test_a_file_without_polygons_says_so(tmp_path, content, message):
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(ManifestError, match=message):
        splits.by_polygons(manifest_of(scattered(5)), tmp_path / "a.geojson")


def test_polygons_that_overlap_on_a_view_are_refused(tmp_path):
    lon_deg, lat_deg = fake.FRAME.lon_deg, fake.FRAME.lat_deg
    box = (lon_deg - 1, lat_deg - 1, lon_deg + 1, lat_deg + 1)
    file = polygons_file(tmp_path / "a.geojson", ("test", *box), ("val", *box))
    with pytest.raises(ManifestError, match="'v0000' is in polygons of 'test' and of 'val'"):
        splits.by_polygons(manifest_of(scattered(5)), file)


@pytest.mark.parametrize(
    ("shares", "options", "message"),
    [
        ({"train": 0.5}, {}, "add to 1"),
        ({"train": 1.5, "test": -0.5}, {}, "above 0"),
        ({"train": float("nan"), "test": 0.5}, {}, "add to 1"),
        ({"": 1.0}, {}, "needs a name"),
        ({"train": 1.0}, {"cell_m": 90.0}, "more than twice buffer_m"),
        ({"train": 1.0}, {"buffer_m": -1.0}, "0 or more metres"),
        ({"a": 0.5, "b": 0.5}, {"cell_m": 1e5}, "cannot be divided into 2 splits"),
    ],
)
def test_what_makes_no_sense_is_refused(shares, options, message):
    rows = town([10.0, 20.0], [10.0, 10.0])
    with pytest.raises(ValueError, match=message):
        splits.by_cells(manifest_of(rows), shares, **options)


def test_views_without_a_position_get_no_split_and_a_dataset_of_them_is_refused():
    rows = [*scattered(100), fake.view("lost", "side", None)]
    division = splits.by_cells(manifest_of(rows), buffer_m=10)
    assert split_of(division)["lost"] == ""
    assert division.num_unplaced == 1
    with pytest.raises(ManifestError, match="no views with a position"):
        splits.by_cells(manifest_of(rows[-1:]))


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path):
    return manifest_of(scattered(200)).save(tmp_path / "m").folder


def run(*arguments):
    return CliRunner().invoke(main, ["split", *map(str, arguments)])


def test_the_command_writes_the_split_column_and_says_how_many(folder):
    result = run(folder, "--cell-m", 400, "--buffer-m", 30, "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    expected = splits.by_cells(manifest_of(scattered(200)), cell_m=400, buffer_m=30, seed=3)
    assert printed["splits"] == expected.counts
    assert printed["in_the_buffer"] == expected.num_buffered
    assert Manifest.load(folder).views.equals(expected.manifest.views)


def test_the_command_takes_shares_towns_and_polygons(folder, tmp_path):
    result = run(folder, "--share", "a=0.5", "--share", "b=0.5", "--buffer-m", 0)
    assert [line.split()[0] for line in result.stdout.splitlines()[:2]] == ["a", "b"]
    assert run(folder, "--region", "town=test").exit_code == 0
    assert set(Manifest.load(folder).views["split"]) == {"test"}
    file = polygons_file(tmp_path / "a.geojson", ("val", -180, -90, 180, 90))
    assert run(folder, "--polygons", file).exit_code == 0
    assert set(Manifest.load(folder).views["split"]) == {"val"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "train"], "expected NAME=VALUE"),
        (["--share", "train=most"], "'train=most': 'most' is no number; expected a part of 1"),
        (["--rest", "train"], "--rest needs --region or --polygons"),
        (["--region", "town=test", "--cell-m", "90"], "--cell-m does nothing beside --region"),
        (["--region", "city=test"], "no region 'city'"),
        (["--region", "town=test", "--share", "a=1"], "--share does nothing beside --region"),
        (["--by", "region"], "1 cells or regions"),
    ],
)
def test_the_command_says_what_is_wrong_and_writes_nothing(folder, arguments, message):
    before = (folder / "views.csv").read_bytes()
    result = run(folder, *arguments)
    assert result.exit_code != 0
    assert message in result.stderr
    assert (folder / "views.csv").read_bytes() == before
