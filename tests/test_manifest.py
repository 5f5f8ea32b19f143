"""The manifest: schema, atomic saving, poses, rigs."""

import json
import math

import pytest
from fakes import manifests as fake
from hypothesis import given
from hypothesis import strategies as st

from crossview import manifest_schema, tables
from crossview.cameras import Equirectangular, Pinhole, RadialDistortion
from crossview.errors import ManifestError
from crossview.frames import Pose
from crossview.manifest import Manifest, MapFile
from crossview.photos import Mount


@pytest.fixture
def images(tmp_path):
    return fake.write_images(tmp_path / "images", fake.views())


@pytest.fixture
def saved(tmp_path, images):
    return fake.manifest(images).save(tmp_path / "made-up")


def edit(folder, table, old, new):
    path = folder / f"{table}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def names_below(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_table_and_column_is_as_designed(saved):
    headers = {
        table: (saved.folder / f"{table}.csv").read_text().splitlines()[0] for table in saved.TABLES
    }
    assert headers == {
        "regions": "name,lat_deg,lon_deg",
        "cameras": "camera_id,model,width_px,height_px,fx,fy,cx,cy,distortion,mask",
        "views": "view_id,region,station_id,sequence_id,order,time_utc,kind,image,camera_id,"
        "lat_deg,lon_deg,heading_deg,roll_deg,pitch_deg,height_m,accuracy_m,split,licence,"
        "magnetic_heading_deg,attribution,source,sha256",
        "tiles": "tile_id,region,image,lat_deg,lon_deg,cell_m,rotation_deg,date,provider,"
        "attribution,terms_url,sha256",
        "pairs": "view_id,tile_id,relation",
        "maps": "region,file,kind,surveyed,date,sha256",
    }  # fmt: skip
    dataset = json.loads((saved.folder / "dataset.json").read_text())
    assert dataset["schema_version"] == 2
    assert dataset["attribution"] == "Nobody, with thanks"


def test_what_was_saved_is_loaded_exactly(saved, images):
    original, again = fake.manifest(images), Manifest.load(saved.folder)
    for table in Manifest.TABLES:
        assert getattr(again, table).equals(getattr(original, table)), table
    assert (again.name, again.licence) == (original.name, original.licence)
    assert again.image_folder == images


@given(st.floats(-1000, 1000), st.floats(-1000, 1000), st.floats(0, 360, exclude_max=True))
def test_a_pose_survives_the_table(tmp_path_factory, x_m, y_m, heading_deg):
    folder = tmp_path_factory.mktemp("pose") / "m"
    rows = [fake.view("v", "side", Pose(x_m, y_m, heading_deg))]
    pose = fake.manifest("images", views=rows).save(folder).pose("v")
    assert (pose.x_m, pose.y_m) == pytest.approx((x_m, y_m), abs=1e-6)
    turn_deg = (pose.heading_deg - heading_deg + 180) % 360 - 180
    assert turn_deg == pytest.approx(0, abs=1e-9)


def test_cameras_come_back_with_their_lens(saved):
    assert saved.camera("front") == Pinhole(
        40, 30, fx=35.25, fy=35.5, cx=20.5, cy=14.5,
        distortion=RadialDistortion(20.0, 15.0, (-1e-5, 2e-10)),
    )  # fmt: skip
    assert saved.camera("side").distortion is None
    assert saved.camera("sphere") == Equirectangular(80, 40)


def test_a_lens_as_text_is_read_back():
    lens = RadialDistortion(512.25, 1 / 3, (-1.4e-7, 3.7e-14, -4.7e-21))
    text = manifest_schema.distortion_text(lens)
    assert manifest_schema.distortion_of(text) == lens
    assert manifest_schema.distortion_text(None) == ""


def test_a_region_has_its_frame(saved):
    assert saved.frame("town") == fake.FRAME
    with pytest.raises(ManifestError, match=r"There is no name 'city' in regions\.csv"):
        saved.frame("city")


def test_stations_are_grouped_and_the_first_level_view_is_the_reference(saved):
    stations = {station.station_id: station for station in saved.stations()}
    assert list(stations) == ["a", "b", "p"]
    assert stations["a"].view_ids == ("a-1", "a-2")
    assert (stations["a"].sequence_id, stations["b"].order) == ("d", 1)
    truth = stations["a"].truth
    assert (truth.x_m, truth.y_m, truth.heading_deg) == pytest.approx((100, 50, 90))
    assert stations["p"].view_ids == ("p",)


def test_mounts_are_forward_and_right_of_the_reference(saved):
    (station,) = saved.stations(split="val")
    # heading east, 2 m west is behind and 1 m north is to the left
    assert vars(station.mounts[0]) == {"heading_deg": 0, "forward_m": 0, "right_m": 0}
    mount = station.mounts[1]
    assert (mount.heading_deg, mount.forward_m, mount.right_m) == pytest.approx(
        (270, -2, -1), abs=1e-6
    )


def test_stations_are_chosen_by_region_and_split(saved):
    assert [s.station_id for s in saved.stations(region="town", split="train")] == ["b"]
    assert saved.stations(region="elsewhere") == []


def test_a_camera_to_the_sky_joins_the_rig_only_when_asked(saved):
    assert len(saved.rig("a").photos) == 2
    everything = saved.rig("a", max_pitch_deg=90)
    assert sorted(photo.pitch_deg for photo in everything.photos) == [0.0, 1.0, 89.0]


def test_the_reference_is_the_first_level_view_though_one_to_the_sky_comes_before(saved):
    (station,) = saved.stations(split="val", max_pitch_deg=90)
    assert station.view_ids == ("a-1", "a-0", "a-2")
    assert saved.rig("a", max_pitch_deg=90).mounts[0] == Mount()
    assert (station.truth.x_m, station.truth.y_m) == pytest.approx((100, 50))
    assert station.truth.heading_deg == pytest.approx(90)


def test_a_camera_to_the_sky_is_mounted_on_the_level_reference(saved):
    sky = saved.rig("a", max_pitch_deg=90).mounts[1]
    # it is said to look along 10 degrees, and the reference along 90
    assert (sky.heading_deg, sky.forward_m, sky.right_m) == pytest.approx((280, 0, 0), abs=1e-6)


def test_other_views_keep_their_place_whether_the_sky_is_asked_for_or_not(saved):
    level, everything = saved.rig("a"), saved.rig("a", max_pitch_deg=90)
    assert everything.mounts[0] == level.mounts[0]
    assert everything.mounts[2] == level.mounts[1]


def test_a_station_of_cameras_to_the_sky_alone_still_has_a_reference(images):
    rows = [
        fake.view("a-0", "side", Pose(100, 50, 10), station_id="a", order=2, pitch_deg=89.0),
        fake.view("a-1", "side", Pose(100, 50, 70), station_id="a", order=1, pitch_deg=80.0),
    ]
    (station,) = fake.manifest(images, views=rows).stations()
    assert station.view_ids == ("a-1", "a-0")
    assert station.truth.heading_deg == pytest.approx(70)


def test_a_rig_holds_the_photos_with_their_pose_camera_and_mask(saved):
    rig = saved.rig("a")
    front, side = rig.photos
    assert (front.roll_deg, front.pitch_deg, front.height_m) == (180.0, 1.0, 2.5)
    assert front.camera == saved.camera("front")
    assert front.mask[:20].all()
    assert not front.mask[20:].any()
    assert side.mask is None
    assert (front.image[0, 0, 0], side.image[0, 0, 0]) == (0, 20)


def test_a_photo_gives_no_hint_of_where_it_was_taken(saved):
    assert saved.photo("a-1").fix is None
    assert saved.panorama("p").fix is None


def test_a_panorama_has_its_true_heading(saved):
    assert saved.panorama("p").heading_deg == pytest.approx(
        fake.FRAME.geo_pose(Pose(0, 0, 30)).heading_deg
    )
    with pytest.raises(ManifestError, match="'p' is a panorama, not a photo"):
        saved.photo("p")


def test_a_view_without_a_position_has_no_pose(tmp_path, images):
    rows = [fake.view("v", "side", None)]
    manifest = fake.manifest(images, views=rows).save(tmp_path / "m")
    assert manifest.pose("v") is None
    (station,) = manifest.stations()
    assert station.truth is None


@pytest.mark.parametrize("station_id", ["", "a"])
def test_a_view_is_not_mixed_with_the_station_that_has_its_name(images, station_id):
    rows = [
        fake.view("b", "side", Pose(0, 0, 0), station_id="a"),
        fake.view("a", "side", Pose(300, 0, 0), station_id=station_id),
    ]
    if station_id:
        (station,) = fake.manifest(images, views=rows).stations()
        assert station.view_ids == ("a", "b")
    else:
        with pytest.raises(ManifestError, match=r"views\.csv row 3, column station_id: .*view 'b'"):
            fake.manifest(images, views=rows)


@pytest.mark.parametrize(
    ("unknown", "column"),
    [(("heading_deg",), "heading_deg"), (("lat_deg", "lon_deg"), "lat_deg")],
)
def test_a_view_that_cannot_be_mounted_in_its_station_names_its_row(images, unknown, column):
    rows = [fake.view(name, "side", Pose(0, 0, 0), station_id="s") for name in "uvw"]
    rows[1] |= dict.fromkeys(unknown)
    message = rf"^views\.csv row 3, column {column}: empty, and .*station 's'[^(]*$"
    with pytest.raises(ManifestError, match=message):
        fake.manifest(images, views=rows)


def test_a_station_may_have_headings_and_no_position(tmp_path, images):
    rows = [
        fake.view(name, "side", None, heading_deg=heading_deg, station_id="s")
        for name, heading_deg in (("v", 10), ("w", 100))
    ]
    (station,) = fake.manifest(images, views=rows).save(tmp_path / "m").stations()
    assert station.truth is None
    assert [vars(mount) for mount in station.mounts] == [
        {"heading_deg": 0, "forward_m": 0, "right_m": 0},
        {"heading_deg": 90, "forward_m": 0, "right_m": 0},
    ]


def test_unknown_stations_and_views_are_named(saved):
    with pytest.raises(ManifestError, match="no station 'z'"):
        saved.rig("z")
    with pytest.raises(ManifestError, match=r"no view_id 'z' in views\.csv"):
        saved.photo("z")


def test_images_are_opened_only_when_they_are_asked_for(tmp_path):
    manifest = fake.manifest(tmp_path / "nowhere").save(tmp_path / "m")
    assert len(manifest.stations()) == 3
    with pytest.raises(ManifestError, match=r"views\.csv row 2, column image: There is no file"):
        manifest.photo("a-1")


def test_an_image_of_another_size_than_its_camera_names_the_row(saved):
    edit(saved.folder, "cameras", "side,pinhole,40,30", "side,pinhole,30,40")
    with pytest.raises(ManifestError, match=r"views\.csv row 4, column image: .*40 x 30.*30 x 40"):
        Manifest.load(saved.folder).photo("a-2")


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("regions", "48.85", "98.85", r"regions\.csv row 2, column lat_deg: '98.85' is not"),
        ("regions", "town", "village", r"views\.csv row 2, column region: there is no 'town'"),
        ("cameras", "35.25", "-35.25", r"cameras\.csv row 2, column fx: '-35.25' is not possible"),
        ("cameras", "35.25", "", r"cameras\.csv row 2, column fx: empty, and a pinhole"),
        ("cameras", "side,pinhole", "side,fisheye", r"row 3, column model: 'fisheye'.*pinhole or"),
        ("cameras", "40,30,35.0", "40.5,30,35.0", r"row 3, column width_px: '40.5' is not a whole"),
        ("cameras", "sphere,equirectangular,80,40,", "sphere,equirectangular,80,40,9",
         r"row 4, column fx: an equirectangular camera has none"),
        ("cameras", '""center""', '""middle""', r"row 2, column distortion: .* is not JSON like"),
        ("cameras", "hood.png", "../hood.png", r"row 2, column mask: '../hood.png' is not"),
        ("cameras", "side,", "front,", r"row 3, column camera_id: 'front' is in row 2 already"),
        ("views", "photos/a-1.png", "../a-1.png", r"views\.csv row 2, column image: '../a-1.png'"),
        ("views", "photos/a-1.png", "/etc/a.png", r"row 2, column image: '/etc/a.png'"),
        ("views", "photos/a-1.png", "a\\..\\b.png", r"row 2, column image: 'a"),
        ("views", "photos/a-1.png", "C:/a.png", r"row 2, column image: 'C:/a.png'"),
        ("views", "photos/a-1.png", "", r"row 2, column image: empty"),
        ("views", "12:31:34.841Z", "12:31:34.841", r"row 2, column time_utc: .*ISO 8601"),
        ("views", ",photo,photos/a-2", ",sketch,photos/a-2", r"row 4, column kind: 'sketch'"),
        ("views", "a-2.png,side,", "a-2.png,back,", r"row 4, column camera_id: there is no 'back'"),
        ("views", "a-2.png,side,", "a-2.png,,", r"row 4, column camera_id: empty, and a photo"),
        ("views", "a-2.png,side,", "a-2.png,sphere,", r"row 4, column camera_id: a photo needs a"),
        ("views", "a-2.png,side,48", "a-2.png,side,49", r"row 4, column lat_deg: .*50 km"),
        ("views", "a-2.png,side,48.", "a-2.png,side,,48.", r"row 4: 23 cells"),
        ("views", "a-2,town", "a-1,town", r"row 4, column view_id: 'a-1' is in row 2 already"),
        ("views", "d,0,2014", "d,zero,2014", r"row 2, column order: 'zero' is not a whole number"),
        ("views", ",heading_deg,", ",heading,", r"row 1: the header .*: missing 'heading_"),
    ],
)  # fmt: skip
def test_a_broken_table_names_file_row_and_column(saved, table, old, new, message):
    edit(saved.folder, table, old, new)
    with pytest.raises(ManifestError, match=message):
        Manifest.load(saved.folder)


def test_several_problems_are_counted_and_all_are_listed_by_problems(saved):
    edit(saved.folder, "cameras", "35.25", "wide")
    edit(saved.folder, "cameras", "35.5", "high")
    with pytest.raises(ManifestError, match=r"column fx.*1 more problems.*crossview-data check"):
        Manifest.load(saved.folder)
    found = manifest_schema.problems(saved.folder)
    assert [(p.file, p.row, p.column) for p in found] == [
        ("cameras.csv", 2, "fx"), ("cameras.csv", 2, "fy"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not found, so .* is not a manifest"),
        ("{", "not a JSON file"),
        ("[]", "expected an object"),
        ('{"schema_version": 3}', "schema_version is 3 and this crossview reads 1 to 2"),
        ("{}", "schema_version is None"),
        ('{"schema_version": 1, "name": "x"}', "expected the texts name, licence"),
    ],
)
def test_a_bad_dataset_file_is_refused(saved, content, message):
    path = saved.folder / "dataset.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ManifestError, match=rf"dataset\.json: .*{message}"):
        Manifest.load(saved.folder)


def test_a_missing_table_is_named(saved):
    (saved.folder / "pairs.csv").unlink()
    with pytest.raises(ManifestError, match=r"pairs\.csv: the file is missing"):
        Manifest.load(saved.folder)


def test_rows_that_break_the_schema_never_become_a_manifest(images):
    rows = [fake.view("v", "side", Pose(0, 0, 0), pitch_deg=100.0)]
    with pytest.raises(ManifestError, match=r"views\.csv row 2, column pitch_deg: '100.0'"):
        fake.manifest(images, views=rows)
    with pytest.raises(ManifestError, match="Unknown tables"):
        fake.manifest(images, photos=[])


def test_a_manifest_is_never_half_written(tmp_path, images, monkeypatch):
    write = tables.write

    def fail(path, *arguments):
        if "pairs" in path.name:
            raise OSError("disk full")
        write(path, *arguments)

    monkeypatch.setattr(tables, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        fake.manifest(images).save(tmp_path / "m")
    assert names_below(tmp_path) == ["images"]


def test_an_existing_manifest_is_replaced_only_on_demand(saved):
    with pytest.raises(ManifestError, match="exists already"):
        saved.save(saved.folder)
    fewer = fake.manifest(saved.image_root, views=fake.views()[:1])
    assert len(fewer.save(saved.folder, overwrite=True).views) == 1


def test_images_may_lie_beside_the_tables_and_move_with_them(tmp_path):
    manifest = fake.manifest("images").save(tmp_path / "m")
    fake.write_images(tmp_path / "m" / "images", fake.views())
    (tmp_path / "m").rename(tmp_path / "moved")
    assert Manifest.load(tmp_path / "moved").photo("a-1").image.shape == (30, 40, 3)
    assert manifest.image_root == "images"


def test_a_copy_of_a_manifest_finds_the_same_images_and_its_own_maps(tmp_path):
    with tables.atomic_folder(tmp_path / "m") as folder:
        fake.manifest("images", maps=[{"region": "town", "file": "m/a.osm", "kind": "osm"}]).write(
            folder
        )
        fake.write_images(folder / "images", fake.views())
        (folder / "m").mkdir()
        (folder / "m" / "a.osm").write_text("<osm/>")
    copy = Manifest.load(tmp_path / "m").save(tmp_path / "deeper" / "copy")
    assert copy.photo("a-1").image.shape == (30, 40, 3)
    assert copy.map_files()[0].path.read_text() == "<osm/>"
    assert list(copy.file_problems()) == [[]] * copy.num_files


def test_maps_say_what_they_surveyed(tmp_path, images):
    rows = [
        {"region": "town", "file": "b.geojson", "kind": "footprints", "surveyed": "building;tree"},
        {"region": "town", "file": "a.osm", "kind": "osm", "date": "2014-06-16"},
    ]
    manifest = fake.manifest(images, maps=rows).save(tmp_path / "m")
    path = tmp_path / "m"
    assert manifest.map_files("town") == [
        MapFile("town", path / "b.geojson", "footprints", frozenset({"building", "tree"}), ""),
        MapFile("town", path / "a.osm", "osm", frozenset(), "2014-06-16"),
    ]
    assert manifest.map_files("elsewhere") == []


def test_a_manifest_that_is_not_saved_has_no_relative_files():
    with pytest.raises(ManifestError, match="not saved yet"):
        _ = fake.manifest("images").image_folder


def test_every_file_is_opened_and_what_fails_is_named(tmp_path, images):
    rows = [{"region": "town", "file": "a.osm", "kind": "osm"}]
    manifest = fake.manifest(images, maps=rows).save(tmp_path / "m")
    (images / "photos" / "a-2.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (images / "photos" / "b-1.png").unlink()
    found = [problem for problems in manifest.file_problems() for problem in problems]
    assert [(p.file, p.row) for p in found] == [("views.csv", 4), ("views.csv", 5), ("maps.csv", 2)]
    assert len(list(manifest.file_problems())) == manifest.num_files == 1 + 5 + 1


def test_tiles_and_pairs_are_checked_too(images):
    tile = {
        "tile_id": "t", "region": "town", "image": "t.png", "lat_deg": 48.85, "lon_deg": 2.33,
        "cell_m": 0.2,
    }  # fmt: skip
    manifest = fake.manifest(
        images, tiles=[tile], pairs=[{"view_id": "p", "tile_id": "t", "relation": "positive"}]
    )
    assert math.isnan(manifest.tiles["rotation_deg"][0])
    with pytest.raises(ManifestError, match=r"pairs\.csv row 2, column tile_id: there is no 'u'"):
        fake.manifest(images, tiles=[tile], pairs=[{"view_id": "p", "tile_id": "u"}])
    with pytest.raises(ManifestError, match=r"tiles\.csv row 2, column cell_m: '0'"):
        fake.manifest(images, tiles=[{**tile, "cell_m": 0}])


def test_one_station_cannot_be_in_two_regions(images):
    regions = [*fake.REGIONS, {"name": "city", "lat_deg": 48.85, "lon_deg": 2.33}]
    rows = [
        fake.view("v", "side", Pose(0, 0, 0), station_id="s"),
        fake.view("w", "side", Pose(0, 0, 0), station_id="s", region="city"),
    ]
    with pytest.raises(
        ManifestError, match=r"row 3, column region: station 's' is in region 'town'"
    ):
        fake.manifest(images, regions=regions, views=rows)
