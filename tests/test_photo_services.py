"""Mapillary and Panoramax: what answers mean, addresses that expire, tokens that nobody sees."""

import json
import logging

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import photo_servers as fake
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from crossview import cameras
from crossview.errors import DatasetError, RefusedError
from crossview.manifest import Manifest
from crossview.tiles import GeoBounds
from data_tools import fetch, photo_services
from data_tools.cli import main
from data_tools.ground_images import GroundImage, Skipped
from data_tools.photo_services import (
    Mapillary,
    Panoramax,
    camera_from_mapillary,
    fetch_images,
    orientation_from_mapillary,
)

BOX = GeoBounds(2.33, 48.84, 2.345, 48.855)


@pytest.fixture
def server():
    with fake.serving(fake.PhotoServer()) as running:
        yield running


@pytest.fixture
def client():
    with fetch.Client(500, backoff_s=0.01, max_attempts=2) as client:
        yield client


@pytest.fixture
def mapillary(server, client):
    return Mapillary(client, fetch.Secret(fake.TOKEN), url=f"{server.url}/graph")


@pytest.fixture
def panoramax(server, client):
    return Panoramax(client, url=f"{server.url}/stac")


# ---------------------------------------------------------------- Mapillary


def test_an_image_of_mapillary_is_read(server, mapillary):
    server.add_mapillary(123, 2.34, 48.85)
    (image,) = mapillary.search(BOX)
    assert (image.image_id, image.source, image.kind) == ("mapillary-123", "mapillary:123", "photo")
    # the computed position, and both headings apart
    assert (image.lat_deg, image.lon_deg) == (48.85, 2.34)
    assert image.magnetic_heading_deg == 350.5
    assert (image.heading_deg, image.pitch_deg, image.roll_deg) == pytest.approx(
        (0, 0, 0), abs=1e-9
    )
    assert image.taken.isoformat() == "2014-06-16T12:31:34.841000+00:00"
    assert image.licence == "CC-BY-SA-4.0"
    assert image.attribution == "© somebody, Mapillary"
    assert image.sequence_id == "seq-a"


@given(st.floats(0, 359.9), st.floats(-80, 80), st.floats(-170, 170))
def test_a_rotation_vector_becomes_heading_pitch_and_roll(heading_deg, pitch_deg, roll_deg):
    map_from_camera = cameras.map_from_camera(heading_deg, pitch_deg, roll_deg)
    vector = Rotation.from_matrix(map_from_camera.T).as_rotvec().tolist()
    got = orientation_from_mapillary({"computed_rotation": vector, "exif_orientation": 1})
    turn_deg = (got["heading_deg"] - heading_deg + 180) % 360 - 180
    assert turn_deg == pytest.approx(0, abs=1e-6)
    assert (got["pitch_deg"], got["roll_deg"]) == pytest.approx((pitch_deg, roll_deg), abs=1e-6)


def test_a_camera_that_looks_east_by_hand():
    # right is south, down is down, forward is east: rows in (east, north, up)
    camera_from_map = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0.0]])
    vector = Rotation.from_matrix(camera_from_map).as_rotvec().tolist()
    got = orientation_from_mapillary({"computed_rotation": vector})
    assert got["heading_deg"] == pytest.approx(90)


def test_of_a_turned_image_only_the_computed_compass_is_used():
    entry = fake.mapillary_entry(1, 0, 0, exif_orientation=6, computed_compass_angle=33.0)
    assert orientation_from_mapillary(entry) == {"heading_deg": 33.0}
    assert orientation_from_mapillary({"compass_angle": 20.0}) == {}


def test_the_camera_is_that_of_the_file_and_its_lens_is_opensfms(
    server, mapillary, client, tmp_path
):
    server.add_mapillary(1, 2.34, 48.85, file=fake.jpeg(64, 48))
    (image,) = fetch_images(mapillary, client, BOX, tmp_path / "f")
    camera = image.camera
    assert (camera.width_px, camera.height_px) == (64, 48)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((54.4, 54.4, 32, 24))
    # OpenSfM: x = X/Z, r^2 = x^2 + y^2, image = focal * (1 + k1 r^2 + k2 r^4) * x, longer side 1
    x, y, focal, k1, k2 = 0.3, -0.2, 0.85, -0.05, 0.02
    factor = focal * (1 + k1 * (x * x + y * y) + k2 * (x * x + y * y) ** 2)
    expected = (32 + 64 * factor * x, 24 + 64 * factor * y)
    got = camera.project(np.array([x, y, 1.0]))
    assert (float(got[0]), float(got[1])) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("parameters", [None, [], [0.8], [0, 0, 0], [0.85, -9.0, 0.0]])
def test_a_camera_without_parameters_or_with_a_folding_lens_is_refused(parameters):
    with pytest.raises(ValueError, match=r"camera_parameters|folds"):
        camera_from_mapillary(parameters)


def test_what_cannot_be_used_is_skipped_and_said(server, mapillary):
    server.add_mapillary(1, 2.34, 48.85, camera_type="fisheye")
    server.add_mapillary(2, 2.34, 48.85, camera_parameters=None)
    server.add_mapillary(3, 2.34, 48.85, captured_at=None)
    server.add_mapillary("../../evil", 2.34, 48.85)
    reasons = {one.image_id: one.reason for one in mapillary.search(BOX)}
    assert "cameras of type 'fisheye'" in reasons["1"]
    assert "camera_parameters are None" in reasons["2"]
    assert set(reasons) == {"1", "2", "3", "../../evil"}
    assert "its id is" in reasons["../../evil"]


def test_a_panorama_has_no_camera(server, mapillary):
    server.add_mapillary(1, 2.34, 48.85, camera_type="spherical", camera_parameters=[])
    (image,) = mapillary.search(BOX)
    assert (image.kind, image.camera) == ("panorama", None)


def test_a_box_is_asked_in_pieces_that_mapillary_allows_and_full_answers_are_quartered(
    server, mapillary, monkeypatch
):
    monkeypatch.setattr(photo_services, "LIMIT", 5)
    rng = np.random.default_rng(0)
    for number in range(40):
        server.add_mapillary(number, *rng.uniform((2.3301, 48.8401), (2.3449, 48.8549)))
    found = list(mapillary.search(BOX))
    assert sorted(int(image.source[10:]) for image in found) == list(range(40))
    assert len(server.asked("/graph/images")) > 8


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((48.84, 2.33, 48.85, 2.3), "south below north"),
        ((2.0, 48.0, 3.0, 49.0), "1.00 square degrees"),
        ((170.0, -20.0, -170.0, -19.9), "west below east"),
    ],
)  # fmt: skip
def test_an_impossible_or_huge_box_is_refused_before_anything_is_asked(
    server, mapillary, panoramax, box, message
):
    for service in (mapillary, panoramax):
        with pytest.raises(DatasetError, match=message):
            list(service.search(GeoBounds(*box)))
    assert server.requests == []


# ---------------------------------------------------------------- fetching


def test_addresses_that_expired_are_renewed_and_only_ids_are_kept(
    server, mapillary, client, tmp_path
):
    server.expire_after_search = True
    for number in (1, 2, 3):
        server.add_mapillary(number, 2.34, 48.85, captured_at=1_402_921_894_841 - number)
    images = list(fetch_images(mapillary, client, BOX, tmp_path / "f"))
    assert [image.source for image in images] == ["mapillary:3", "mapillary:2", "mapillary:1"]
    assert [image.order for image in images] == [0, 1, 2]
    assert all(image.path.read_bytes() == fake.jpeg() for image in images)
    assert len(server.asked("/graph/3")) >= 1


def test_what_is_there_is_not_fetched_again(server, mapillary, client, tmp_path):
    for number in (1, 2, 3):
        server.add_mapillary(number, 2.34, 48.85)
    first = list(fetch_images(mapillary, client, BOX, tmp_path / "f"))
    first[1].path.unlink()
    server.requests.clear()
    again = list(fetch_images(mapillary, client, BOX, tmp_path / "f"))
    assert len(server.asked("/file/")) == 1
    assert [image.path for image in again] == [image.path for image in first]


def test_an_image_that_is_gone_or_broken_is_skipped_and_leaves_no_file(
    server, mapillary, client, tmp_path
):
    for number in (1, 2, 3):
        server.add_mapillary(number, 2.34, 48.85)
    server.gone.add("1")
    server.files["2"] = b"\xff\xd8\xff and no image"
    found = list(fetch_images(mapillary, client, BOX, tmp_path / "f"))
    assert [one.image_id for one in found if isinstance(one, Skipped)] == [
        "mapillary-1", "mapillary-2"
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["mapillary-3.jpg"]


def test_the_token_goes_to_the_api_and_nowhere_else(server, mapillary, client, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        server.add_mapillary(1, 2.34, 48.85)
        list(fetch_images(mapillary, client, BOX, tmp_path / "f"))
        bad = Mapillary(client, fetch.Secret("not-the-token"), url=f"{server.url}/graph")
        with pytest.raises(RefusedError) as error:
            list(bad.search(BOX))
    secrets = (fake.TOKEN, "not-the-token", fake.TOKEN.replace("|", "%7C"))
    assert not any(secret in caplog.text + str(error.value) for secret in secrets)
    for path, headers in server.requests:
        assert not any(secret in path for secret in secrets)
        assert ("Authorization" in headers) == path.startswith("/graph")


def test_errors_of_the_api_are_said_in_its_words(server, mapillary, client):
    with pytest.raises(DatasetError, match="Mapillary refuses the question: bbox area"):
        mapillary._entries(GeoBounds(2.0, 48.0, 3.0, 49.0))
    server.answer = lambda path, headers: (200, "text/html", b"<html>maintenance</html>")
    with pytest.raises(DatasetError, match=r"text/html that is not JSON"):
        list(mapillary.search(BOX))
    server.answer = lambda path, headers: (200, "application/json", b'{"images": []}')
    with pytest.raises(DatasetError, match="without a list of images"):
        list(mapillary.search(BOX))


# ---------------------------------------------------------------- Panoramax


def test_a_picture_of_panoramax_is_read(server, panoramax):
    server.add_panoramax("0005086d-65eb", 2.34, 48.85)
    (image,) = panoramax.search(BOX)
    expected = GroundImage(
        "panoramax-0005086d-65eb", kind="panorama", url=image.url, lat_deg=48.85, lon_deg=2.34,
        accuracy_m=4.0, heading_deg=82.0, taken=image.taken, sequence_id="c0ffee",
        licence="etalab-2.0", attribution="IGN, Panoramax", source="panoramax:0005086d-65eb",
    )  # fmt: skip
    assert image == expected
    assert image.taken.utctimetuple()[:5] == (2022, 10, 19, 5, 56)


def test_a_magnetic_azimuth_is_no_heading(server, panoramax):
    exif = {"Exif.GPSInfo.GPSImgDirectionRef": "M"}
    server.add_panoramax("a", 2.34, 48.85, exif=exif)
    (image,) = panoramax.search(BOX)
    assert (image.heading_deg, image.magnetic_heading_deg) == (None, 82.0)


def test_a_field_of_view_becomes_a_focal_length_of_the_file(server, panoramax, client, tmp_path):
    server.add_panoramax("a", 2.34, 48.85, field_of_view=90, file=fake.jpeg(80, 60))
    server.add_panoramax("b", 2.34, 48.85, field_of_view=None)
    found = {one.image_id: one for one in fetch_images(panoramax, client, BOX, tmp_path / "f")}
    assert "field of view is None" in found["b"].reason
    assert found["panoramax-a"].camera.fx == pytest.approx(40)
    assert found["panoramax-a"].camera.horizontal_fov_deg == pytest.approx(90)


def test_all_pages_are_read_once(server, panoramax):
    for number in range(7):
        server.add_panoramax(f"p{number}", 2.34, 48.85)
    assert len(list(panoramax.search(BOX))) == 7
    assert len(server.asked("/stac/search")) == 4


def test_the_next_page_of_another_server_is_not_followed(server, panoramax, monkeypatch):
    for number in range(3):
        server.add_panoramax(f"p{number}", 2.34, 48.85)
    stac = server._stac
    elsewhere = [{"rel": "next", "href": "http://127.0.0.1:9/search"}]
    monkeypatch.setattr(
        server, "_stac", lambda names, query: {**stac(names, query), "links": elsewhere}
    )
    with pytest.raises(DatasetError, match="another server"):
        list(panoramax.search(BOX))


def test_an_expired_address_of_panoramax_is_renewed(server, panoramax, client, tmp_path):
    server.add_panoramax("a", 2.34, 48.85)
    (image,) = panoramax.search(BOX)
    server.generation += 1
    fetched = photo_services.download(panoramax, client, image, tmp_path)
    assert fetched.path.is_file()
    assert server.asked("/stac/collections/c0ffee/items/a")


# ---------------------------------------------------------------- the commands


def run(*arguments, **environment):
    return CliRunner().invoke(main, ["photos", *map(str, arguments)], env=environment)


def test_photos_of_mapillary_become_a_manifest(server, tmp_path):
    for number in (1, 2):
        server.add_mapillary(number, 2.34 + number / 1e4, 48.85)
    server.add_mapillary(3, 2.34, 48.85, camera_type="spherical", file=fake.jpeg(64, 32))
    out = tmp_path / "m"
    arguments = ("mapillary", "--box", *BOX, "--out", out, "--api-url", f"{server.url}/graph",
                 "--rate", 500, "--json")  # fmt: skip
    result = run(*arguments, CROSSVIEW_MAPILLARY_KEY=fake.TOKEN)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["views"] == 3
    manifest = Manifest.load(out)
    assert manifest.image_root == "originals"
    assert set(manifest.views["source"]) == {"mapillary:1", "mapillary:2", "mapillary:3"}
    assert manifest.views["licence"].unique().tolist() == ["CC-BY-SA-4.0"]
    assert [p for problems in manifest.file_problems() for p in problems] == []
    everything = "".join(path.read_text() for path in out.glob("*.*") if path.is_file())
    assert fake.TOKEN not in everything
    assert "sig=" not in everything
    assert manifest.photo("mapillary-1").camera.distortion is not None


@pytest.mark.parametrize("service", ["mapillary", "panoramax"])
def test_a_manifest_that_is_there_is_noticed_before_anything_is_asked(server, tmp_path, service):
    server.add_mapillary(1, 2.34, 48.85)
    server.add_panoramax("a", 2.34, 48.85)
    api = {"mapillary": "graph", "panoramax": "stac"}[service]
    arguments = (service, "--box", *BOX, "--out", tmp_path / "m", "--rate", 500,
                 "--api-url", f"{server.url}/{api}")  # fmt: skip
    assert run(*arguments, CROSSVIEW_MAPILLARY_KEY=fake.TOKEN).exit_code == 0
    server.requests.clear()
    again = run(*arguments, CROSSVIEW_MAPILLARY_KEY=fake.TOKEN)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "holds a manifest already" in again.stderr
    assert server.requests == []
    assert run(*arguments, "--overwrite", CROSSVIEW_MAPILLARY_KEY=fake.TOKEN).exit_code == 0
    assert server.requests


def test_the_place_is_a_box_or_a_radius_around_points(server, tmp_path):
    for number, lat_deg in ((1, 48.85), (2, 48.8505), (3, 48.852)):
        server.add_mapillary(number, 2.34, lat_deg)
    (tmp_path / "walk.csv").write_text("lat,lon\n48.8500,2.34\n48.8503,2.34\n")
    api = ("--rate", 500, "--api-url", f"{server.url}/graph")
    for i, place in enumerate([("--points", tmp_path / "walk.csv"), ("--around", 48.8502, 2.34)]):
        out = tmp_path / f"m{i}"
        result = run("mapillary", "--out", out, *place, "--radius-m", 40, *api,
                     CROSSVIEW_MAPILLARY_KEY=fake.TOKEN)  # fmt: skip
        assert result.exit_code == 0, result.output
        assert set(Manifest.load(out).views["source"]) == {"mapillary:1", "mapillary:2"}
    result = run("panoramax", "--out", tmp_path / "m", *api)
    assert (result.exit_code, "--around or --points with --radius-m" in result.stderr) == (2, True)
    result = run("panoramax", "--out", tmp_path / "m", "--around", 48.85, 2.34, *api)
    assert (result.exit_code, "--around needs --radius-m" in result.stderr) == (2, True)


def test_without_a_token_the_variable_is_named(server, tmp_path):
    result = run("mapillary", "--box", *BOX, "--out", tmp_path / "m", CROSSVIEW_MAPILLARY_KEY="",
                 XDG_CONFIG_HOME=str(tmp_path))  # fmt: skip
    assert result.exit_code == 1
    assert "CROSSVIEW_MAPILLARY_KEY" in result.stderr


def test_panoramas_are_cut_blurred_and_their_originals_deleted(server, tmp_path):
    for number in ("a", "b"):
        server.add_panoramax(number, 2.34, 48.85)
    server.gone.add("b")
    out = tmp_path / "m"
    arguments = ("panoramax", "--box", *BOX, "--out", out, "--api-url", f"{server.url}/stac",
                 "--rate", 500, "--crops", 4, "--crop-px", 16)  # fmt: skip
    result = run(*arguments, "--blur", "numpy:zeros_like")
    assert result.exit_code == 1
    assert "Skipped panoramax-b" in result.stderr
    manifest = Manifest.load(out)
    assert len(manifest.rig("panoramax-a").photos) == 4
    assert manifest.photo("panoramax-a-0").image.max() == 0
    assert not (out / "originals").exists()
    assert manifest.views["attribution"].tolist() == ["IGN, Panoramax"] * 4
