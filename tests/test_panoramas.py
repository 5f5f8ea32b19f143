"""Manifests of street photos: in place, cut, levelled, blurred; regions, rigs, headings."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import images as fake
from PIL import Image

from crossview import cameras
from crossview.cameras import Equirectangular, Pinhole
from crossview.errors import DatasetError, ManifestError
from crossview.manifest import Manifest
from data_tools.cli import main
from data_tools.ground_images import GroundImage, Skipped, images_in_folder
from data_tools.panoramas import Crops, write_photos

HEIGHT_PX = 128
TERMS = {"name": "Made-up", "licence": "CC0", "attribution": "nobody"}


def world(rays):
    """What is seen along directions (east, north, up): smooth colours, (..., 3) uint8."""
    return np.rint(127.5 + 100 * rays).astype(np.uint8)


def sphere(heading_deg, pitch_deg=0.0, roll_deg=0.0):
    """What a 360 degree camera sees of the world; its tilt written out as a rotation."""
    camera = Equirectangular(2 * HEIGHT_PX, HEIGHT_PX)
    rays = camera.rays(np.arange(2 * HEIGHT_PX) + 0.5, np.arange(HEIGHT_PX)[:, None] + 0.5)
    return world(rays @ cameras.map_from_camera(heading_deg, pitch_deg, roll_deg).T)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def panorama(path, heading_deg=0.0, *, seen_heading_deg=None, **columns):
    tilt = {name: columns.get(name) or 0.0 for name in ("pitch_deg", "roll_deg")}
    seen = heading_deg if seen_heading_deg is None else seen_heading_deg
    save(path, sphere(seen, **tilt))
    options = {"lat_deg": 48.85, "lon_deg": 2.33, "heading_deg": heading_deg, **columns}
    return GroundImage(path.stem, kind="panorama", path=path, **options)


def photo(path, *, camera=None, **columns):
    save(path, fake.plain_image(40, 30))
    camera = camera or Pinhole.from_focal(40, 30, 35.0)
    options = {"lat_deg": 48.85, "lon_deg": 2.33, **columns}
    return GroundImage(path.stem, path=path, camera=camera, **options)


def write(tmp_path, images, **options):
    return write_photos(images, tmp_path / "out", image_root=tmp_path / "in", **TERMS, **options)


# ---------------------------------------------------------------- in place


def test_files_that_are_used_as_they_are_stay_where_they_are(tmp_path):
    images = [
        photo(tmp_path / "in" / "a.png", heading_deg=12.0, roll_deg=180.0, accuracy_m=4.0),
        photo(tmp_path / "in" / "deep" / "b.png", magnetic_heading_deg=30.0),
        panorama(tmp_path / "in" / "p.png", 77.0),
    ]
    written = write(tmp_path, images)
    manifest = written.manifest
    assert manifest.image_folder == tmp_path / "in"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["dataset.json", *(f"{table}.csv" for table in manifest.TABLES)]
    )
    assert manifest.views["image"].tolist() == ["a.png", "deep/b.png", "p.png"]
    assert (written.num_magnetic, written.num_unplaced, written.skipped) == (1, 0, ())
    assert manifest.photo("a").roll_deg == 180
    assert math.isnan(manifest.row("views", "b")["heading_deg"])
    assert manifest.row("views", "b")["magnetic_heading_deg"] == 30
    assert manifest.panorama("p").heading_deg == 77
    # one camera for both photos, and one sphere
    assert len(manifest.cameras) == 2
    assert [p for problems in manifest.file_problems() for p in problems] == []


def test_a_camera_that_does_not_fit_and_a_broken_file_are_skipped(tmp_path):
    images = [
        photo(tmp_path / "in" / "a.png"),
        photo(tmp_path / "in" / "b.png", camera=Pinhole.from_focal(41, 30, 35.0)),
        photo(tmp_path / "in" / "c.png"),
    ]
    (tmp_path / "in" / "c.png").write_bytes(b"nothing")
    written = write(tmp_path, images, skipped=[Skipped("z", "lost before")])
    assert [one.image_id for one in written.skipped] == ["z", "b", "c"]
    assert written.manifest.views["view_id"].tolist() == ["a"]
    with pytest.raises(DatasetError, match=r"None of the images can be used\. c: "):
        write_photos(images[2:], tmp_path / "none", image_root=tmp_path / "in", **TERMS)
    assert not (tmp_path / "none" / "dataset.json").exists()


def test_a_manifest_is_replaced_only_on_demand(tmp_path):
    images = [photo(tmp_path / "in" / "a.png")]
    write(tmp_path, images)
    with pytest.raises(ManifestError, match="--overwrite"):
        write(tmp_path, images)
    write(tmp_path, images, overwrite=True)


def test_images_far_apart_get_regions_of_their_own(tmp_path):
    places = [(48.85, 2.33), (48.9, 2.4), (35.0, -80.0), (None, None), (48.85, 2.9), (35.1, -80.0)]
    images = [
        photo(tmp_path / "in" / f"{i}.png", lat_deg=lat_deg, lon_deg=lon_deg)
        for i, (lat_deg, lon_deg) in enumerate(places)
    ]
    written = write(tmp_path, images, region="place")
    assert written.manifest.views["region"].tolist() == [
        "place", "place", "place-2", "place", "place-3", "place-2",
    ]  # fmt: skip
    assert written.num_unplaced == 1
    assert written.manifest.pose("3") is None


def test_images_without_any_position_are_a_dataset_too(tmp_path):
    images = [photo(tmp_path / "in" / "a.png", lat_deg=None, lon_deg=None)]
    assert write(tmp_path, images).num_unplaced == 1


# ---------------------------------------------------------------- cut and levelled


@pytest.mark.parametrize("tilt", [{}, {"pitch_deg": 12.0, "roll_deg": -20.0}])
def test_crops_are_what_cameras_there_would_have_seen(tmp_path, tilt):
    image = panorama(tmp_path / "in" / "p.png", 30.0, **tilt)
    manifest = write(tmp_path, [image], crops=Crops(3, 80.0, 64, pitch_deg=5.0)).manifest
    rig = manifest.rig("p")
    assert [mount.heading_deg for mount in rig.mounts] == pytest.approx([0, 120, 240])
    for i, view in enumerate(rig.photos):
        assert view.pitch_deg == 5.0
        assert view.camera.horizontal_fov_deg == pytest.approx(80)
        rays = view.camera.rays(np.arange(64) + 0.5, np.arange(64)[:, None] + 0.5)
        expected = world(rays @ cameras.map_from_camera(30 + 120 * i, 5.0).T)
        assert np.abs(view.image.astype(int) - expected).max() <= 6
    headings_deg = manifest.views["heading_deg"].to_numpy()
    assert headings_deg == pytest.approx([30, 150, 270])


def test_a_tilted_panorama_is_levelled(tmp_path):
    image = panorama(tmp_path / "in" / "p.png", 200.0, pitch_deg=8.0, roll_deg=15.0)
    level = write(tmp_path, [image]).manifest.panorama("p")
    assert level.heading_deg == 200
    difference = np.abs(level.image.astype(int) - sphere(200.0))
    assert difference.max() <= 8
    assert np.abs(sphere(200.0, 8.0, 15.0).astype(int) - sphere(200.0)).max() > 25


def test_a_part_of_a_sphere_is_padded_and_what_was_not_seen_is_masked(tmp_path):
    whole = sphere(90.0)
    rows = slice(32, 96)
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-'
        b'syntax-ns#"><r:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
        b'GPano:FullPanoWidthPixels="256" GPano:FullPanoHeightPixels="128" '
        b'GPano:CroppedAreaLeftPixels="0" GPano:CroppedAreaTopPixels="32" '
        b'GPano:CroppedAreaImageWidthPixels="256" GPano:CroppedAreaImageHeightPixels="64" '
        b'GPano:PoseHeadingDegrees="90"/></r:RDF></x:xmpmeta>'
    )
    (tmp_path / "in").mkdir()
    fake.write_png(tmp_path / "in" / "p.png", np.ascontiguousarray(whole[rows]), xmp=xmp)
    (image,), _ = images_in_folder(tmp_path / "in")
    manifest = write(tmp_path, [image]).manifest
    got = manifest.panorama("p.png")
    assert got.heading_deg == 90
    assert got.mask[rows].all()
    assert not got.mask[:32].any()
    assert not got.mask[96:].any()
    assert np.abs(got.image[rows].astype(int) - whole[rows])[2:-2].max() <= 6
    # 64 rows are 90 degrees: crops of 60 degrees fit between, those of 100 do not
    crops = write_photos([image], tmp_path / "fit", image_root=tmp_path / "in",
                         crops=Crops(2, 60.0, 32), **TERMS)  # fmt: skip
    assert len(crops.manifest.views) == 2
    with pytest.raises(DatasetError, match="None of the images"):
        write_photos([image], tmp_path / "wide", image_root=tmp_path / "in",
                     crops=Crops(2, 100.0, 32), **TERMS)  # fmt: skip


def test_crops_of_a_panorama_without_a_heading_are_no_rig(tmp_path):
    image = panorama(
        tmp_path / "in" / "p.png", None, seen_heading_deg=0.0, magnetic_heading_deg=350.0
    )
    manifest = write(tmp_path, [image], crops=Crops(4, 90.0, 16)).manifest
    assert manifest.views["station_id"].tolist() == [""] * 4
    assert manifest.views["heading_deg"].isna().all()
    assert manifest.views["magnetic_heading_deg"].tolist() == [350, 80, 170, 260]


def test_crops_of_a_panorama_without_a_position_are_a_rig(tmp_path):
    image = panorama(tmp_path / "in" / "p.png", 30.0, lat_deg=None, lon_deg=None)
    rig = write(tmp_path, [image], crops=Crops(4, 90.0, 16)).manifest.rig("p")
    assert [mount.heading_deg for mount in rig.mounts] == pytest.approx([0, 90, 180, 270])


def test_photos_beside_panoramas_that_are_cut_are_copied(tmp_path):
    images = [photo(tmp_path / "in" / "a.png"), panorama(tmp_path / "in" / "p.png")]
    manifest = write(tmp_path, images, crops=Crops(4, 90.0, 16)).manifest
    assert (tmp_path / "out" / "images" / "a.png").read_bytes() == (
        tmp_path / "in" / "a.png"
    ).read_bytes()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert Manifest.load(tmp_path / "moved").photo("a").image.shape == (30, 40, 3)
    assert len(manifest.stations()) == 2


@pytest.mark.parametrize(
    "wrong", [{"number": 0}, {"side_px": 0}, {"field_of_view_deg": 180.0}, {"pitch_deg": 91.0}]
)
def test_impossible_crops_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        Crops(**wrong)


# ---------------------------------------------------------------- blur


def test_every_image_that_is_written_goes_through_the_blur(tmp_path):
    seen = []

    def blur(pixels):
        seen.append(pixels.shape)
        return np.full_like(pixels, 9)

    images = [photo(tmp_path / "in" / "a.png"), panorama(tmp_path / "in" / "p.png")]
    manifest = write(tmp_path, images, blur=blur, crops=Crops(2, 90.0, 16)).manifest
    assert seen == [(30, 40, 3), (16, 16, 3), (16, 16, 3)]
    for view_id in ("a", "p-0", "p-1"):
        assert set(np.unique(manifest.photo(view_id).image)) == {9}
    # the files that were given are nobody's to change
    assert np.array_equal(np.asarray(Image.open(images[0].path)), fake.plain_image(40, 30))


def test_what_a_camera_wrote_into_a_file_is_not_in_a_blurred_one(tmp_path):
    (tmp_path / "in").mkdir()
    fake.phone_photo(tmp_path / "in" / "a.jpg")
    images, _ = images_in_folder(tmp_path / "in")
    manifest = write(tmp_path, images, blur=lambda pixels: pixels).manifest
    with Image.open(manifest.image_path("views", "a.jpg")) as image:
        assert dict(image.getexif()) == {}


def test_a_blur_that_gives_back_another_image_is_an_error(tmp_path):
    images = [photo(tmp_path / "in" / "a.png")]
    with pytest.raises(
        ValueError, match=r"gave back \(15, 20, 3\) uint8; expected .*\(30, 40, 3\)"
    ):
        write(tmp_path, images, blur=lambda pixels: pixels[::2, ::2])
    assert not (tmp_path / "out" / "dataset.json").exists()


# ---------------------------------------------------------------- the commands


def run(*arguments):
    return CliRunner().invoke(main, ["photos", *map(str, arguments)])


def test_a_folder_becomes_a_manifest_and_magnetic_headings_are_said(tmp_path):
    (tmp_path / "in").mkdir()
    fake.phone_photo(tmp_path / "in" / "a.jpg", gps={**fake.PLACE, 16: "M", 17: 350.0})
    out = tmp_path / "out"
    result = run("folder", tmp_path / "in", "--out", out, "--licence", "CC0")
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert "1 views have a magnetic heading only" in result.stderr
    assert Manifest.load(out).name == "out"
    result = run("folder", tmp_path / "in", "--out", out, "--overwrite", "--declination-deg", 16)
    assert "magnetic" not in result.stderr
    assert Manifest.load(out).views["heading_deg"].tolist() == [6]


def test_a_declination_that_nothing_needs_is_said(tmp_path):
    (tmp_path / "in").mkdir()
    fake.phone_photo(tmp_path / "in" / "a.jpg", gps={**fake.PLACE, 16: "T", 17: 350.0})
    result = run("folder", tmp_path / "in", "--out", tmp_path / "out", "--declination-deg", 16)
    assert result.exit_code == 0
    assert "--declination-deg changes nothing" in result.stderr
    assert Manifest.load(tmp_path / "out").views["heading_deg"].tolist() == [350]


def test_images_taken_for_panoramas_by_their_shape_are_counted_and_can_be_photos(tmp_path):
    save(tmp_path / "in" / "a.png", fake.plain_image(80, 40))
    save(tmp_path / "in" / "b.png", fake.plain_image(80, 40))
    command = ("folder", tmp_path / "in", "--out", tmp_path / "out", "--json")
    result = run(*command)
    assert json.loads(result.stdout)["assumed_panoramas"] == 2
    assert "2 images are twice as wide as high" in result.stderr
    result = run(*command, "--overwrite", "--kind", "photo", "--focal-px", 50)
    assert (result.exit_code, json.loads(result.stdout)["assumed_panoramas"]) == (0, 0)
    assert "twice as wide" not in result.stderr
    assert set(Manifest.load(tmp_path / "out").views["kind"]) == {"photo"}
    assert "twice as wide" not in run(*command, "--overwrite", "--kind", "panorama").stderr


def test_a_photo_is_no_panorama_because_somebody_says_so(tmp_path):
    save(tmp_path / "in" / "a.png", fake.plain_image(40, 30))
    save(tmp_path / "in" / "b.png", fake.plain_image(80, 40))
    result = run("folder", tmp_path / "in", "--out", tmp_path / "out", "--kind", "panorama")
    assert result.exit_code == 1
    assert "Skipped a.png: " in result.stderr
    assert len(Manifest.load(tmp_path / "out").views) == 1


def test_a_link_out_of_the_folder_is_skipped_and_the_rest_is_written(tmp_path):
    fake.phone_photo(save(tmp_path / "in" / "a.jpg", fake.plain_image(4, 4)))
    fake.phone_photo(tmp_path / "b.jpg")
    (tmp_path / "in" / "b.jpg").symlink_to(tmp_path / "b.jpg")
    result = run("folder", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "Skipped b.jpg: b.jpg leads out of" in result.stderr
    assert Manifest.load(tmp_path / "out").views["view_id"].tolist() == ["a.jpg"]
    image = photo(tmp_path / "elsewhere" / "c.png")
    with pytest.raises(DatasetError, match=r"c: c\.png leads out of"):
        write_photos([image], tmp_path / "none", image_root=tmp_path / "in", **TERMS)


def test_two_rows_for_one_image_name_the_table_that_was_given(tmp_path):
    fake.phone_photo(tmp_path / "a.jpg")
    (tmp_path / "t.csv").write_text("image\na.jpg\na.jpg\n")
    result = run("csv", tmp_path / "t.csv", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "t.csv row 3, column image: 'a.jpg' is in row 2 already" in result.stderr
    assert "views.csv" not in result.stderr


def test_a_walk_is_placed_on_its_track_and_the_rest_is_counted(tmp_path):
    (tmp_path / "in").mkdir()
    for name, second in (("a", 2), ("b", 55)):
        tags = fake.exif(photo={0xA405: 28, 0x9003: f"2024:06:01 14:00:{second:02}"})
        fake.write_jpeg(tmp_path / "in" / f"{name}.jpg", tags=tags)
    (tmp_path / "t.gpx").write_text(
        '<gpx xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
        '<trkpt lat="48" lon="2"><time>2024-06-01T12:00:00Z</time></trkpt>'
        '<trkpt lat="48.0004" lon="2"><time>2024-06-01T12:00:04Z</time></trkpt>'
        "</trkseg></trk></gpx>"
    )
    result = run("folder", tmp_path / "in", "--out", tmp_path / "out", "--json",
                 "--gpx", tmp_path / "t.gpx", "--clock-ahead-s", 7200)  # fmt: skip
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert (printed["views"], printed["unplaced"]) == (1, 0)
    assert [one["image_id"] for one in printed["skipped"]] == ["b.jpg"]
    view = Manifest.load(tmp_path / "out").row("views", "a.jpg")
    assert (view["lat_deg"], view["time_utc"]) == (pytest.approx(48.0002), "2024-06-01T12:00:02Z")


def test_a_table_becomes_a_manifest(tmp_path):
    save(tmp_path / "p.jpg", sphere(0.0))
    (tmp_path / "t.csv").write_text("image,lat,lon,heading_deg\np.jpg,48.85,2.33,10\n")
    result = run("csv", tmp_path / "t.csv", "--out", tmp_path / "out", "--crops", 4,
                 "--crop-px", 16)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(Manifest.load(tmp_path / "out").rig("p.jpg").photos) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--blur", "nowhere:hide"], "cannot be imported"),
        (["--blur", "numpy"], "expected MODULE:FUNCTION"),
        (["--clock-ahead-s", "5"], "--clock-ahead-s needs --gpx"),
        (["--max-gap-s", "5"], "--max-gap-s needs --gpx"),
        (["--crop-px", "5"], "--crop-px needs --crops"),
        (["--focal-px", "-3"], "expected a positive number, got -3"),
    ],
)
def test_wrong_options_are_said(tmp_path, arguments, message):
    (tmp_path / "in").mkdir()
    fake.phone_photo(tmp_path / "in" / "a.jpg")
    result = run("folder", tmp_path / "in", "--out", tmp_path / "out", *arguments)
    assert result.exit_code != 0
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("95,3", "no place on the globe"),
        ("48.85,-190", "no place on the globe"),
        ("-123.1,49.2", "seem to be swapped"),
    ],
)
def test_an_impossible_position_names_the_file_and_the_row(tmp_path, place, words):
    for name in ("a.jpg", "b.jpg"):
        fake.phone_photo(tmp_path / name)
    (tmp_path / "t.csv").write_text(f"image,lat,lon\na.jpg,48.85,2.33\nb.jpg,{place}\n")
    result = run("csv", tmp_path / "t.csv", "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: t.csv row 3 (b.jpg): " in result.stderr
    assert words in result.stderr
    assert not (tmp_path / "out").exists()
