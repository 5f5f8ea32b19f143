"""The iTowns importer: conventions by hand on a made-up folder, and the real one."""

import itertools
import json
import logging
import re

import numpy as np
import pytest
from fakes import itowns as fake

from crossview import frames, rectify
from crossview.cameras import Equirectangular, Orientation, Pinhole, map_from_camera
from crossview.errors import DatasetError, ManifestError
from crossview.manifest import Manifest
from data_tools.importers import itowns
from data_tools.importers.itowns import (
    ATTRIBUTION,
    footprints_from_itowns,
    import_itowns,
    rig_camera_from_itowns,
)

CONVERGENCE_DEG = -0.4825
"""Of Lambert-93 in Paris 6e: (2.3348 - 3 deg) * 0.7256 (the cone's constant), by hand."""


@pytest.fixture
def source(tmp_path):
    return fake.write_folder(tmp_path / "source", [fake.station(7)])


def imported(tmp_path, stations, **options):
    source = fake.write_folder(tmp_path / "made-up", stations, **options)
    return import_itowns(source, tmp_path / "out")


def view(manifest, view_id):
    return manifest.views.set_index("view_id").loc[view_id]


def test_headings_become_true_and_each_camera_has_its_own(tmp_path):
    manifest = imported(tmp_path, [fake.station(7, heading=90.0)])
    headings = manifest.views.set_index("view_id")["heading_deg"]
    for camera, grid_heading in (("301", 90), ("302", 0), ("303", 270), ("304", 180)):
        expected = (grid_heading + CONVERGENCE_DEG) % 360
        assert headings[f"7-{camera}"] == pytest.approx(expected, abs=2e-3)


def test_a_heading_a_rounding_error_west_of_north_is_0_and_not_360(monkeypatch):
    level = Orientation(heading_deg=0.0, pitch_deg=0.0, roll_deg=180.0)
    monkeypatch.setattr(itowns, "orientation_from_rotation", lambda _: level)
    monkeypatch.setattr(frames, "grid_convergence_deg", lambda *_: -1e-14)
    camera = rig_camera_from_itowns(fake._camera(301))
    row = itowns.view_from_itowns(fake.station(7), camera)
    assert row["heading_deg"] == 0.0


def test_rig_cameras_are_compared_as_objects_since_they_hold_arrays():
    one, other = (rig_camera_from_itowns(fake._camera(301)) for _ in range(2))
    assert one != other
    assert len({one, other}) == 2


def test_a_camera_stored_upside_down_is_level_with_a_roll_of_180(tmp_path):
    manifest = imported(tmp_path, [fake.station(7)])
    for camera in (301, 302, 303, 304):
        row = view(manifest, f"7-{camera}")
        assert abs(row["roll_deg"]) == pytest.approx(180)
        assert row["pitch_deg"] == pytest.approx(0, abs=1e-9)


def test_a_station_with_its_nose_up_tilts_each_camera_in_its_own_way(tmp_path):
    manifest = imported(tmp_path, [fake.station(7, pitch=2.0)])
    assert view(manifest, "7-301")["pitch_deg"] == pytest.approx(2.0)
    assert view(manifest, "7-303")["pitch_deg"] == pytest.approx(-2.0)
    # the right side of the camera that looks left is in front, and goes up
    assert view(manifest, "7-302")["roll_deg"] == pytest.approx(178.0)
    assert view(manifest, "7-304")["roll_deg"] == pytest.approx(-178.0)


def test_a_station_with_its_right_side_down_does_too(tmp_path):
    manifest = imported(tmp_path, [fake.station(7, roll=1.0)])
    assert view(manifest, "7-301")["roll_deg"] == pytest.approx(-179.0)
    assert view(manifest, "7-302")["pitch_deg"] == pytest.approx(1.0)
    assert view(manifest, "7-304")["pitch_deg"] == pytest.approx(-1.0)


def test_the_camera_to_the_sky_has_the_back_of_the_van_at_its_right(tmp_path):
    manifest = imported(tmp_path, [fake.station(7, heading=0.0)])
    row = view(manifest, "7-300")
    right, _, ahead = map_from_camera(row["heading_deg"], row["pitch_deg"], row["roll_deg"]).T
    assert ahead == pytest.approx([0, 0, 1], abs=1e-6)
    back_deg = np.deg2rad(180 + CONVERGENCE_DEG)
    assert right == pytest.approx([np.sin(back_deg), np.cos(back_deg), 0], abs=1e-4)


def test_positions_hold_the_lever_arm_and_heights_are_above_the_street(tmp_path):
    manifest = imported(tmp_path, [fake.station(7, heading=90.0)])
    frame = manifest.frame("paris")
    lat_deg, lon_deg = frames.geodetic_from_projected("EPSG:2154", fake.EASTING_M, fake.NORTHING_M)
    x_m, y_m = frame.to_local(lat_deg, lon_deg)
    # heading east: half a metre forward is east, a quarter to the left is north
    for camera, east_m, north_m in (("301", 0.5, 0.0), ("302", 0.0, 0.25), ("304", 0.0, -0.25)):
        pose = manifest.pose(f"7-{camera}")
        # grid east is not quite east
        assert (pose.x_m - x_m, pose.y_m - y_m) == pytest.approx((east_m, north_m), abs=6e-3)
        assert view(manifest, f"7-{camera}")["height_m"] == pytest.approx(2.8)


def test_mounts_are_seen_from_the_front_camera(tmp_path):
    manifest = imported(tmp_path, [fake.station(7, heading=200.0)])
    (station,) = manifest.stations()
    assert station.view_ids == ("7-301", "7-302", "7-303", "7-304")
    assert [mount.heading_deg for mount in station.mounts] == pytest.approx([0, 270, 180, 90])
    assert [mount.forward_m for mount in station.mounts] == pytest.approx(
        [0, -0.5, -1.0, -0.5], abs=1e-3
    )
    assert [mount.right_m for mount in station.mounts] == pytest.approx(
        [0, -0.25, 0, 0.25], abs=1e-3
    )


def test_the_calibration_is_flipped_to_rows_from_the_top_and_scaled_to_the_files(tmp_path):
    manifest = imported(tmp_path, [fake.station(7)])
    camera = manifest.camera("302")
    # 64 px calibrated, 32 stored: cy = (64 - 30) / 2
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (18.0, 18.0, 16.5, 17.0)
    assert (camera.distortion.center_col, camera.distortion.center_row) == (16.25, 16.5)
    assert camera.distortion.coefficients == pytest.approx((-4e-4, 32e-8, -192e-12))


def test_the_van_is_masked_and_only_where_there_is_a_mask(tmp_path):
    front, left, *_ = imported(tmp_path, [fake.station(7)]).rig("7").photos
    assert not front.mask[:6].any()
    assert front.mask[10:].all()
    assert left.mask is None
    # upright, the van is at the bottom
    assert not front.upright().mask[-6:].any()


def test_a_scene_lands_in_the_photos_where_its_direction_says(tmp_path):
    """Photos drawn from a sphere of direction colours, by the dataset's own convention."""
    station = fake.station(7, heading=75.0, pitch=3.0, roll=-2.0)
    manifest = imported(
        tmp_path, [station], image_of=lambda _, camera: _direction_image(station, camera)
    )
    for camera in fake.ROTATIONS:
        photo, row = manifest.photo(f"7-{camera}"), view(manifest, f"7-{camera}")
        grid_heading = row["heading_deg"] - CONVERGENCE_DEG
        rotation = map_from_camera(grid_heading, photo.pitch_deg, photo.roll_deg)
        position = np.arange(4, 28) + 0.5
        rays = photo.camera.rays(position, position[:, None]) @ rotation.T
        shown = photo.image[4:28, 4:28] / 127.5 - 1
        assert np.abs(shown - rays).max() < 0.06, camera


def _direction_image(station, camera):
    """What a camera of the fake rig sees of a world coloured by direction (east, north, up)."""
    heading, pitch, roll = np.deg2rad([station[key] for key in ("heading", "pitch", "roll")])
    turn = np.array([
        [np.cos(heading), np.sin(heading), 0], [-np.sin(heading), np.cos(heading), 0], [0, 0, 1],
    ])  # fmt: skip
    nose_up = np.array([
        [1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)],
    ])  # fmt: skip
    right_down = np.array([
        [np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)],
    ])  # fmt: skip
    half_turn = -1.0 if camera == 300 else 1.0
    z, x, y = (np.array(row, dtype=float) for row in fake.ROTATIONS[camera])
    rows, cols = np.indices((fake.STORED_PX, fake.STORED_PX)) + 0.5
    # of the calibrated size, rows from the bottom; then the lens by fixed point
    distorted = np.stack([2 * cols, 64 - 2 * rows], -1) - [32.5, 31.0]
    ideal = distorted.copy()
    for _ in range(50):
        square = (ideal**2).sum(-1, keepdims=True)
        ideal = distorted / (1 - 1e-4 * square + 2e-8 * square**2 - 3e-12 * square**3)
    col, row = ideal[..., 0] + 32.5, ideal[..., 1] + 31.0
    across, down = (col - 33.0) / 36.0 * half_turn, -(row - 30.0) / 36.0 * half_turn
    body = across[..., None] * x + down[..., None] * y + z
    body /= np.linalg.norm(body, axis=-1, keepdims=True)
    right_forward_up = np.stack([body[..., 1], body[..., 0], -body[..., 2]], -1)
    world = right_forward_up @ (turn @ nose_up @ right_down).T
    return np.rint((world + 1) * 127.5).clip(0, 255).astype(np.uint8)


def test_a_pause_of_more_than_a_minute_begins_another_drive(tmp_path):
    stations = [
        fake.station(number, seconds=seconds)
        for number, seconds in ((9, 0), (8, 20), (12, 90), (11, 95))
    ]
    manifest = imported(tmp_path, stations)
    found = [(s.station_id, s.sequence_id, s.order) for s in manifest.stations()]
    assert found == [
        ("9", "drive-1", 0), ("8", "drive-1", 1), ("12", "drive-2", 0), ("11", "drive-2", 1),
    ]  # fmt: skip
    assert view(manifest, "8-301")["time_utc"] == "2014-06-16T12:00:20.500Z"


def test_a_station_without_any_photo_is_skipped_and_counted(tmp_path, caplog):
    stations = [fake.station(number, seconds=number) for number in (1, 2, 3)]
    with caplog.at_level(logging.INFO, "data_tools"):
        manifest = imported(tmp_path, stations, photos_of={2})
    assert [station.station_id for station in manifest.stations()] == ["2"]
    assert "1 stations with 5 photos imported; 2 stations without any photo skipped" in caplog.text


def test_missing_and_truncated_photos_are_all_listed_and_nothing_is_written(tmp_path, source):
    fake.photo_path(source, 7, 302).unlink()
    path = fake.photo_path(source, 7, 304)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DatasetError) as error:
        import_itowns(source, tmp_path / "out")
    assert "2 photos are missing or damaged" in str(error.value)
    assert "station 7 has no photo of camera 302" in str(error.value)
    assert f"{path.name} cannot be read" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_photo_of_another_size_is_refused(tmp_path, source):
    second = fake.station(8, seconds=5)
    metadata = source / "panoramicsMetaData.json"
    metadata.write_text(json.dumps([*json.loads(metadata.read_text()), second]))
    for camera in fake.ROTATIONS:
        fake._save(fake.photo_path(source, 8, camera), np.zeros((32, 24, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"0000008\.jpg has 24 x 32 pixels"):
        import_itowns(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("panoramicsMetaData.json", None, r"panoramicsMetaData\.json is missing"),
        ("panoramicsMetaData.json", "[{", "cannot be read as JSON"),
        ("panoramicsMetaData.json", "{}", "holds a dict; expected a list"),
        ("panoramicsMetaData.json", '[{"id": 1}]', "not laid out as expected.*easting"),
        ("cameraCalibration.json", '[{"id": 1}]', "not laid out as expected.*size"),
        ("buildingFootprint.json", "{}", r"expected EPSG:2154"),
        ("images/mask301.jpg", None, "mask of camera 301, is missing"),
    ],
)
def test_an_incomplete_folder_is_refused_by_what_is_wrong(tmp_path, source, name, content, message):
    (source / name).unlink()
    if content is not None:
        (source / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        import_itowns(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="No photo below"):
        imported(tmp_path, [fake.station(1)], photos_of=set())


def test_a_quarter_turned_camera_is_refused_because_none_was_ever_seen():
    with pytest.raises(DatasetError, match=r"Camera 301 has orientation 0; expected 2 or 3"):
        rig_camera_from_itowns({**fake._camera(301), "orientation": 0})


def test_an_existing_manifest_is_replaced_only_on_demand(tmp_path, source):
    import_itowns(source, tmp_path / "out")
    with pytest.raises(ManifestError, match="exists already"):
        import_itowns(source, tmp_path / "out")
    assert len(import_itowns(source, tmp_path / "out", overwrite=True).views) == 5


def test_images_stay_where_they_are_and_the_terms_are_kept(tmp_path, source):
    manifest = import_itowns(source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cameras.csv", "dataset.json", "footprints.geojson", "maps.csv", "pairs.csv",
        "regions.csv", "tiles.csv", "views.csv",
    ]  # fmt: skip
    assert manifest.image_folder == source.resolve()
    assert manifest.licence == "CC BY-NC-ND 3.0"
    assert "does not endorse" in manifest.attribution
    assert set(manifest.views["licence"]) == {"CC BY-NC-ND 3.0"}


def test_footprints_are_a_surveyed_map_in_degrees_with_heights(tmp_path, source):
    manifest = import_itowns(source, tmp_path / "out")
    (map_file,) = manifest.map_files("paris")
    assert (map_file.kind, map_file.surveyed) == ("footprints", frozenset({"building"}))
    content = json.loads(map_file.path.read_text())
    assert content["attribution"] == ATTRIBUTION
    assert "crs" not in content
    first, second = content["features"]
    assert (first["properties"]["height"], second["properties"]["height"]) == (12, None)
    frame = manifest.frame("paris")
    station_x_m, station_y_m = frame.to_local(
        *frames.geodetic_from_projected("EPSG:2154", fake.EASTING_M, fake.NORTHING_M)
    )
    for feature, west_m in ((first, 10.0), (second, 40.0)):
        (ring,) = feature["geometry"]["coordinates"][0]
        lon_deg, lat_deg = np.array(ring).T
        x_m, y_m = frame.to_local(lat_deg, lon_deg)
        assert x_m.min() - station_x_m == pytest.approx(west_m, abs=0.1)
        assert y_m.min() - station_y_m == pytest.approx(-5.0, abs=0.5)
        # RFC 7946: the outer ring is counter-clockwise
        assert np.sum(x_m[:-1] * y_m[1:] - x_m[1:] * y_m[:-1]) > 0


def test_footprints_in_another_grid_are_refused():
    with pytest.raises(DatasetError, match=r"EPSG:3857; expected EPSG:2154"):
        footprints_from_itowns({"crs": {"properties": {"code": 3857}}, "features": []})


@pytest.fixture(scope="module")
def paris(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("itowns") / "paris"
    return import_itowns(data_dir / "paris_itowns", out)


def test_paris_has_27_stations_with_135_views(paris):
    assert len(paris.stations()) == 27
    assert len(paris.views) == 135
    assert {s.sequence_id for s in paris.stations()} == {"drive-1"}
    assert [s.order for s in paris.stations()] == list(range(27))
    assert all(len(s.view_ids) == 4 for s in paris.stations())


def test_the_front_camera_of_paris_482_looks_along_its_true_heading(paris):
    # the station's grid heading, the convergence, and the camera's own atan(0.00573631 / 0.999983)
    expected = 176.117188 + CONVERGENCE_DEG + np.rad2deg(0.00573631)
    assert view(paris, "482-301")["heading_deg"] == pytest.approx(expected, abs=0.01)
    assert view(paris, "482-301")["height_m"] == pytest.approx(2.865, abs=0.01)


def test_paris_drives_where_its_front_camera_looks(paris):
    stations = paris.stations()
    for before, after in itertools.pairwise(stations):
        if before.station_id in ("496", "497"):
            continue  # the corner
        step = np.array([after.truth.x_m - before.truth.x_m, after.truth.y_m - before.truth.y_m])
        middle = np.deg2rad((before.truth.heading_deg + after.truth.heading_deg) / 2)
        ahead = np.array([np.sin(middle), np.cos(middle)])
        assert step @ ahead / np.linalg.norm(step) > np.cos(np.deg2rad(12)), before.station_id


def test_both_calibrations_of_paris_agree_on_the_horizontal_cameras(data_dir):
    """The easier file has X right, Y forward, Z up, rows x, y, z, and rows from the top."""
    folder = data_dir / "paris_itowns"
    easier = json.loads((folder / "camera_calibration_horizontal.json").read_text())
    ours = {
        entry["id"]: rig_camera_from_itowns(entry)
        for entry in json.loads((folder / "cameraCalibration.json").read_text())
    }
    right_down_forward = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    for entry in easier:
        rig_camera = ours[entry["id"]]
        axes = np.array(entry["rotation"]).reshape(3, 3).T
        assert rig_camera.body_from_camera == pytest.approx(right_down_forward @ axes, abs=1e-5)
        position = right_down_forward @ np.array(entry["position"])
        assert rig_camera.position_m == pytest.approx(position, abs=1e-3)
        camera, matrix = rig_camera.camera, np.array(entry["projection"]).reshape(3, 3)
        assert (camera.fx, camera.cx) == pytest.approx((matrix[0, 0], matrix[0, 2]), abs=0.02)
        assert (camera.fy, camera.cy) == pytest.approx((matrix[1, 1], matrix[1, 2]), abs=0.02)
        pps = camera.distortion.center_col, camera.distortion.center_row
        assert pps == pytest.approx(entry["distortion"]["pps"])
        assert camera.distortion.coefficients == pytest.approx(entry["distortion"]["poly357"])


def test_the_sky_camera_of_paris_continues_the_front_camera_where_they_overlap(paris):
    """Both are warped to look 44 degrees up; with the sky turned round they do not fit."""
    target = Pinhole.from_focal(300, 300, 150.0)
    agreement = {0.0: [], 180.0: []}
    for station in paris.stations()[::3]:
        front_id, sky_id = f"{station.station_id}-301", f"{station.station_id}-300"
        wanted = map_from_camera(view(paris, front_id)["heading_deg"], 44.0)

        def seen(view_id, extra_deg, wanted=wanted):
            photo, heading_deg = paris.photo(view_id), view(paris, view_id)["heading_deg"]
            looks = map_from_camera(heading_deg + extra_deg, photo.pitch_deg, photo.roll_deg)
            image, valid = rectify.rectified(photo.image, photo.camera, target, wanted.T @ looks)
            return image.mean(axis=2), valid

        front, front_valid = seen(front_id, 0.0)
        for turn_deg, found in agreement.items():
            sky, sky_valid = seen(sky_id, turn_deg)
            both = front_valid & sky_valid
            assert both.sum() > 1500
            found.append(np.corrcoef(front[both], sky[both])[0, 1])
    assert np.median(agreement[0.0]) > np.median(agreement[180.0]) + 0.2


def test_masks_of_paris_cover_the_van_in_the_photos_as_stored(paris):
    front, _, back, _ = paris.rig("482").photos
    for photo in (front, back):
        share = 1 - photo.mask.mean()
        assert 0.05 < share < 0.25
        upright = photo.upright()
        assert not upright.mask[-5:, 400:600].any()
        assert upright.mask[:700].all()


def test_footprints_of_paris_are_540_and_none_covers_the_street(paris):
    import shapely

    (map_file,) = paris.map_files()
    content = json.loads(map_file.path.read_text())
    assert len(content["features"]) == 540
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in content["features"]]
    tree = shapely.STRtree(shapes)
    for lat_deg, lon_deg in zip(paris.views["lat_deg"], paris.views["lon_deg"], strict=True):
        assert not tree.query(shapely.Point(lon_deg, lat_deg), predicate="within").size


def test_view_ids_name_station_and_camera(paris):
    assert all(re.fullmatch(r"\d{3}-30[0-4]", view_id) for view_id in paris.views["view_id"])
    assert isinstance(paris, Manifest)
    assert not isinstance(paris.camera("300"), Equirectangular)
