"""Contact sheets and summaries: what is on them, where, and who is named."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import manifests as fake
from fakes.osm_files import OsmXml
from PIL import Image

from crossview.errors import ManifestError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.manifest import Manifest
from crossview.manifest_summary import summary
from crossview.vectors import VectorMap
from data_tools import contact_sheets
from data_tools.cli import main
from data_tools.contact_sheets import draw_contact_sheet, map_lines, tile_position


def tile(tile_id, x_m=0.0, y_m=0.0, **columns):
    place = fake.FRAME.geo_pose(Pose(x_m, y_m, 0.0))
    return {
        "tile_id": tile_id, "region": "town", "image": f"{tile_id}.png", "lat_deg": place.lat_deg,
        "lon_deg": place.lon_deg, "cell_m": 0.5, "rotation_deg": place.heading_deg,
        "date": "2024-05", "provider": "Somebody",
        "attribution": "© Somebody's satellite", **columns,
    }  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    root = fake.write_images(tmp_path / "images", fake.views())
    for name in ("t", "u"):
        Image.fromarray(np.full((100, 120, 3), 90, np.uint8)).save(root / f"{name}.png")
    pairs = [{"view_id": "b-1", "tile_id": "t"}, {"view_id": "p", "tile_id": "u"}]
    pairs.append({"view_id": "p", "tile_id": "t"})
    return fake.manifest(root, tiles=[tile("t"), tile("u")], pairs=pairs).save(tmp_path / "m")


def texts_of(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def figures(monkeypatch):
    """Figures that are written."""
    from matplotlib.figure import Figure

    written, savefig = [], Figure.savefig

    def keep(self, *arguments, **options):
        written.append(self)
        return savefig(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return written


def test_views_with_a_tile_come_first_and_their_first_tile_is_beside_them(saved, tmp_path):
    sheet = draw_contact_sheet(saved, tmp_path / "sheet.png", num_views=2)
    assert sheet.view_ids == ("b-1", "p")
    assert sheet.tile_ids == ("t", "u")
    assert sheet.problems == ()
    with Image.open(tmp_path / "sheet.png") as image:
        assert min(image.size) > 200


def test_a_tile_that_a_view_is_in_the_middle_of_comes_before_others(saved, tmp_path):
    pairs = [
        {"view_id": "p", "tile_id": "t", "relation": "semipositive"},
        {"view_id": "p", "tile_id": "u", "relation": "positive"},
    ]
    manifest = fake.manifest(saved.image_folder, tiles=[tile("t"), tile("u")], pairs=pairs)
    sheet = draw_contact_sheet(manifest, tmp_path / "sheet.png", num_views=1)
    assert (sheet.view_ids, sheet.tile_ids) == (("p",), ("u",))


def test_who_must_be_named_is_written_underneath(saved, tmp_path, figures):
    draw_contact_sheet(saved, tmp_path / "sheet.png")
    words = " ".join(" ".join(texts_of(figures[0])).split())
    assert "Nobody, with thanks (CC0). © Somebody's satellite" in words
    assert words.count("© Somebody's satellite") == 1
    both = replace(saved, attribution="Nobody; © Somebody's satellite")
    draw_contact_sheet(both, tmp_path / "sheet.png")
    assert " ".join(texts_of(figures[1])).count("© Somebody's satellite") == 1
    assert {"N", "60 m 2024-05"} <= {text.replace("  ", " ") for text in texts_of(figures[0])}


def test_the_lot_follows_the_seed(saved, tmp_path):
    drawn = [
        draw_contact_sheet(saved, tmp_path / "sheet.png", num_views=3, seed=seed).view_ids
        for seed in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_a_dataset_of_tiles_alone_has_a_sheet_too(saved, tmp_path):
    manifest = fake.manifest(saved.image_root, views=[], tiles=[tile("t"), tile("u")])
    sheet = draw_contact_sheet(manifest, tmp_path / "sheet.png")
    assert (sheet.view_ids, sheet.tile_ids) == (("", ""), ("t", "u"))
    with pytest.raises(ManifestError, match="neither views nor tiles"):
        draw_contact_sheet(fake.manifest("images", views=[]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_an_image_that_cannot_be_read_has_a_panel_that_says_why(saved, tmp_path, figures):
    (saved.image_folder / "photos" / "p.png").unlink()
    sheet = draw_contact_sheet(saved, tmp_path / "sheet.png")
    assert len(sheet.problems) == 1
    assert "There is no file" in sheet.problems[0]
    assert any(text.startswith("There is no file") for text in texts_of(figures[0]))


def with_map(manifest, *, file="maps/town.osm"):
    """The manifest with a map in its folder: a road, a rail, a building, and a road far away."""
    town = OsmXml(fake.FRAME, bounds=(2.32, 48.84, 2.34, 48.86))
    town.way([(-200.0, 5.0), (200.0, 5.0)], {"highway": "residential"})
    town.way([(-7.0, -200.0), (-7.0, 200.0)], {"railway": "tram"})
    town.box(2, 8, 10, 14, {"building": "yes"})
    town.way([(300.0, 300.0), (310.0, 300.0)], {"highway": "residential"})
    (manifest.folder / "maps").mkdir()
    town.write(manifest.folder / file)
    return Manifest.append(manifest.folder, maps=[{"region": "town", "file": file, "kind": "osm"}])


@pytest.mark.parametrize("turn_deg", [0.0, 90.0, 213.0])
def test_the_map_lies_on_a_tile_where_the_ground_is(saved, turn_deg):
    manifest = with_map(saved)
    features = VectorMap.read(manifest.map_files("town")[0].path).features
    row = manifest.row("tiles", "t") | {"rotation_deg": turn_deg}
    lines = map_lines(manifest, features, row, (120, 100))
    turn = np.deg2rad(turn_deg)

    def pixels(x_m, y_m):  # written out: the upper edge points to turn_deg
        right_m = x_m * np.cos(turn) - y_m * np.sin(turn)
        up_m = x_m * np.sin(turn) + y_m * np.cos(turn)
        return np.stack([60 + right_m / 0.5, 50 - up_m / 0.5], axis=-1)

    (road,), (rail,), (house,) = lines["roads"], lines["rails"], lines["buildings"]
    for line, (a, b) in ((road, ([-9, 5], [9, 5])), (rail, ([-7, -9], [-7, 9]))):
        start, end = pixels(*a), pixels(*b)
        along = (end - start) / np.hypot(*(end - start))
        off = line - start
        assert np.abs(off[:, 0] * along[1] - off[:, 1] * along[0]).max() < 0.05
        assert np.hypot(*(line[-1] - line[0])) > 120  # from edge to edge
    corners = {tuple(np.round(corner)) for corner in pixels(np.array([2, 10, 10, 2]),
                                                          np.array([8, 8, 14, 14]))}  # fmt: skip
    assert {tuple(np.round(corner)) for corner in house} == corners


def test_a_sheet_draws_the_map_of_a_region_and_names_its_makers(saved, tmp_path, figures):
    from matplotlib.collections import LineCollection

    before = draw_contact_sheet(saved, tmp_path / "before.png")
    sheet = draw_contact_sheet(with_map(saved), tmp_path / "sheet.png")
    assert sheet == before
    words = [" ".join(" ".join(texts_of(figure)).split()) for figure in figures]
    assert "roads cyan, rails magenta, buildings orange" in words[1]
    assert "OpenStreetMap contributors" in words[1]
    assert "OpenStreetMap" not in words[0]
    drawn = [len(c.get_segments()) for c in figures[1].findobj(LineCollection)]
    assert sum(drawn) == 2 * 3  # two tiles
    assert not figures[0].findobj(LineCollection)


def test_underneath_stand_only_the_colours_that_are_drawn(saved, tmp_path, figures):
    town = OsmXml(fake.FRAME, bounds=(2.32, 48.84, 2.34, 48.86))
    town.way([(-200.0, 5.0), (200.0, 5.0)], {"highway": "residential"})
    # beyond the edge of a tile of 60 m x 50 m, in the circle around it
    town.way([(33.0, -3.0), (33.0, 3.0)], {"railway": "tram"})
    far = OsmXml(fake.FRAME, bounds=(2.32, 48.84, 2.34, 48.86))
    far.way([(300.0, 300.0), (310.0, 300.0)], {"highway": "residential"})
    manifest = with_map(saved)
    for content in (town, far):
        content.write(manifest.map_files()[0].path)
        draw_contact_sheet(manifest, tmp_path / "sheet.png")
    road, none = (" ".join(" ".join(texts_of(figure)).split()) for figure in figures)
    assert road.endswith("Map: roads cyan")
    assert "Map:" not in none
    assert "OpenStreetMap" not in none


def test_a_map_that_cannot_be_read_is_said(saved, tmp_path):
    manifest = with_map(saved)
    manifest.map_files()[0].path.write_text("no map")
    sheet = draw_contact_sheet(manifest, tmp_path / "sheet.png")
    assert len(sheet.problems) == 1
    assert "cannot be read as OpenStreetMap data" in sheet.problems[0]
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize("far_m", [0.0, 20_000.0])
def test_a_camera_is_drawn_where_the_tiles_own_grid_has_it(far_m):
    # a tile as `satellite` makes it: north-up in a frame of its own, far from the region's
    place = fake.FRAME.geo_pose(Pose(far_m, 300.0, 0.0))
    own = LocalFrame(place.lat_deg + 0.01, place.lon_deg - 0.01)
    x_m, y_m = own.to_local(place.lat_deg, place.lon_deg)
    grid = MapGrid(own, float(x_m) - 30, float(y_m) + 25, cell_m=0.5, height=100, width=120)
    row = tile("t", far_m, 300.0, rotation_deg=float(own.convergence_deg(x_m, y_m)) % 360)
    pose = Pose(far_m + 12.0, 310.0, 0.0)
    geo = fake.FRAME.geo_pose(pose)
    expected = grid.to_pixel(*own.to_local(geo.lat_deg, geo.lon_deg))
    manifest = fake.manifest("images", views=[], tiles=[row])
    got = tile_position(manifest, manifest.row("tiles", "t"), (120, 100), pose)
    assert got == pytest.approx(expected, abs=0.01)


def test_a_tile_that_points_east_has_the_east_up():
    manifest = fake.manifest("images", views=[], tiles=[tile("t", rotation_deg=90.0)])
    row = manifest.row("tiles", "t")
    # 10 m east is 20 pixels up, 5 m north 10 pixels to the left
    got = tile_position(manifest, row, (120, 100), Pose(10.0, 5.0, 0.0))
    assert got == pytest.approx((60 - 10, 50 - 20), abs=1e-3)


def test_photos_are_shown_upright_and_panoramas_have_their_north(
    saved, tmp_path, figures, monkeypatch
):
    shown, show = [], contact_sheets._show

    def keep(ax, pixels):
        shown.append(pixels.shape)
        show(ax, pixels)

    monkeypatch.setattr(contact_sheets, "_show", keep)
    turned = [dict(fake.views()[3], roll_deg=90.0), fake.views()[4]]
    draw_contact_sheet(fake.manifest(saved.image_root, views=turned), tmp_path / "sheet.png")
    assert shown == [(40, 30, 3), (40, 80, 3)]
    # heading 30 degrees: north is 30 of 360 degrees left of the middle of 80 columns
    lines = [line.get_xdata()[0] for ax in figures[0].axes for line in ax.lines]
    assert lines == [pytest.approx(40 - 80 * 30 / 360, abs=0.1)]


# ---------------------------------------------------------------- the summary and the commands


def test_a_summary_counts_what_is_there(saved):
    found = summary(saved)
    assert found.counts == {
        "regions": 1, "cameras": 3, "views": 5, "tiles": 2, "pairs": 3, "maps": 0, "stations": 3,
    }  # fmt: skip
    assert found.kinds == {"panorama": 1, "photo": 4}
    assert found.splits == {"(none)": 2, "train": 1, "val": 2}
    assert found.placed == {"position": 5, "heading": 5, "magnetic heading": 0}
    assert (found.first, found.last) == ("2014-06-16T12:31:34.841000Z",) * 2
    assert found.tile_dates == ("2024-05", "2024-05")
    assert found.providers == {"Somebody": 2}
    box = found.extent["town"]
    assert (box.west, box.south) == pytest.approx((fake.FRAME.lon_deg, fake.FRAME.lat_deg))
    # 110 m east and 51 m north of the anchor
    assert box.east - box.west == pytest.approx(
        110 / (111_320 * np.cos(np.deg2rad(48.85))), rel=0.01
    )
    assert box.north - box.south == pytest.approx(51 / 111_200, rel=0.01)


def test_times_with_offsets_are_compared_as_moments():
    times = ["2024-05-01T23:00:00-05:00", "2024-05-02T01:00:00Z", "2024-05-02T05:30:00+02:00"]
    views = [dict(row, time_utc=t) for row, t in zip(fake.views(), times, strict=False)]
    found = summary(fake.manifest("/images", views=views))
    assert (found.first, found.last) == ("2024-05-02T01:00:00Z", "2024-05-02T04:00:00Z")


def test_a_region_across_the_antimeridian_has_a_small_extent():
    views = [
        {**fake.view(name, "side", None), "lat_deg": -17.0, "lon_deg": lon_deg, "region": "fiji"}
        for name, lon_deg in (("a", 179.99), ("b", -179.98))
    ]
    regions = [{"name": "fiji", "lat_deg": -17.0, "lon_deg": 180.0}]
    box = summary(fake.manifest("/images", views=views, regions=regions)).extent["fiji"]
    assert (box.west, box.east) == pytest.approx((179.99, 180.02))


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_info_prints_the_summary(saved):
    lines = run("info", saved.folder).stdout.splitlines()
    words = dict(line.split(maxsplit=1) for line in lines)
    assert words["licence"] == "CC0"
    assert words["splits"] == "2 (none), 1 train, 2 val"
    assert words["extent"].startswith("town: 48.85000 to 48.85046 N, 2.33000 to")
    printed = json.loads(run("info", saved.folder, "--json").stdout)
    assert printed == json.loads(json.dumps(summary(saved).as_json()))


def test_check_as_json_lists_each_problem(saved):
    (saved.image_folder / "u.png").write_bytes(b"")
    result = run("check", saved.folder, "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["views"] == 5
    assert [(p["file"], p["row"], p["column"]) for p in printed["problems"]] == [
        ("tiles.csv", 3, "image")
    ]
    assert run("check", saved.folder, "--tables-only").exit_code == 0


def test_sheet_writes_a_file_and_fails_where_an_image_is_missing(saved, tmp_path):
    out = tmp_path / "new" / "folder" / "sheet.png"
    result = run("sheet", saved.folder, "--out", out, "--views", 2, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["view_ids"] == ["b-1", "p"]
    (saved.image_folder / "t.png").unlink()
    result = run("sheet", saved.folder, "--out", out)
    assert result.exit_code == 1
    assert result.stdout == f"{out}\n"
    assert "There is no file" in result.stderr
