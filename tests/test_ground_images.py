"""Photos in folders, CSV tables and on GPX tracks: what files say, what tables say, and clocks."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from fakes import images as fake
from hypothesis import given
from hypothesis import strategies as st

from crossview import exif, photos
from crossview.errors import DatasetError
from data_tools.gpx_tracks import Track, read_track
from data_tools.ground_images import (
    GroundImage,
    images_in_csv,
    images_in_folder,
    placed_on_track,
    with_declination,
)

NOON = datetime(2024, 6, 1, 12, 0, 0, tzinfo=UTC)
TAKEN, OFFSET, FRACTION = 0x9003, 0x9011, 0x9291
GPANO = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
    b'GPano:ProjectionType="equirectangular" GPano:PoseHeadingDegrees="123.5"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


# ---------------------------------------------------------------- what files say


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({TAKEN: "2024:06:01 14:00:05"}, datetime(2024, 6, 1, 14, 0, 5)),
        ({TAKEN: "2024:06:01 14:00:05", OFFSET: "+02:00"}, NOON + timedelta(seconds=5)),
        ({TAKEN: "2024:06:01 14:00:05", OFFSET: "-03:30", FRACTION: "25"},
         NOON + timedelta(hours=5.5, seconds=5.25)),
        ({TAKEN: "2024:06:01 12:00:00", OFFSET: "Z"}, NOON),
        ({TAKEN: "0000:00:00 00:00:00"}, None),
        ({TAKEN: "    :  :     :  :  "}, None),
        ({TAKEN: "2024-13-01"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_when_a_photo_was_taken(tags, expected):
    assert exif.taken_at(fake.exif(photo=tags), "a.jpg") == expected


def test_a_file_says_all_it_knows_without_its_pixels(tmp_path):
    path = fake.phone_photo(tmp_path / "a.jpg", orientation=6)
    tags = photos.read_tags(path)
    assert (tags.width_px, tags.height_px, tags.orientation) == (40, 30, 6)
    assert tags.focal_px == pytest.approx(28 * 50 / np.hypot(36, 24))
    assert tags.fix.lat_deg == pytest.approx(49.282353, abs=1e-6)
    assert (tags.panorama, tags.taken) == (None, None)
    path.write_bytes(path.read_bytes()[:-200])
    assert photos.read_tags(path).width_px == 40


def test_a_folder_is_read_by_name_and_what_has_no_focal_length_is_skipped(tmp_path):
    (tmp_path / "b").mkdir()
    fake.phone_photo(tmp_path / "b" / "2.jpg")
    fake.phone_photo(tmp_path / "1.JPG", focal_35mm=None)
    fake.write_png(tmp_path / "b" / "3.png", fake.plain_image(80, 40), xmp=GPANO)
    fake.write_jpeg(tmp_path / "b" / "4.jpeg", fake.plain_image(80, 40))
    (tmp_path / "b" / "5.jpg").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("not an image")
    found, skipped = images_in_folder(tmp_path)
    assert [(image.image_id, image.kind) for image in found] == [
        ("b/2.jpg", "photo"), ("b/3.png", "panorama"), ("b/4.jpeg", "panorama"),
    ]  # fmt: skip
    assert [one.image_id for one in skipped] == ["1.JPG", "b/5.jpg"]
    assert "--focal-px" in skipped[0].reason
    assert [image.heading_deg for image in found] == [None, 123.5, None]
    with_focal, _ = images_in_folder(tmp_path, focal_px=33.0)
    assert with_focal[0].camera.fx == 33.0
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="no JPEG or PNG"):
        images_in_folder(empty)


def test_a_magnetic_compass_is_no_heading_until_somebody_gives_the_declination(tmp_path):
    fake.phone_photo(tmp_path / "m.jpg", gps={**fake.PLACE, 16: "M", 17: 350.0})
    fake.phone_photo(tmp_path / "t.jpg", gps={**fake.PLACE, 16: "T", 17: 350.0})
    found, _ = images_in_folder(tmp_path)
    assert [(i.heading_deg, i.magnetic_heading_deg) for i in found] == [(None, 350), (350, None)]
    corrected = with_declination(found, 16.0)
    # magnetic north is 16 degrees east of true north
    assert [(i.heading_deg, i.magnetic_heading_deg) for i in corrected] == [(6, 350), (350, None)]
    with pytest.raises(ValueError, match="declination_deg"):
        with_declination(found, 1600.0)


@pytest.mark.parametrize(("orientation", "roll_deg"), [(1, None), (3, 180), (6, 90), (8, 270)])
def test_the_orientation_of_a_file_becomes_roll_of_the_stored_pixels(
    tmp_path, orientation, roll_deg
):
    path = fake.phone_photo(tmp_path / "a.jpg", orientation=orientation)
    (image,), _ = images_in_folder(tmp_path)
    assert image.roll_deg == roll_deg
    # another road to the same picture: Pillow turns it, and we turn a photo with that roll
    turned = photos.read_photo(path).image
    stored = photos.Photo(photos.read_pixels(path), image.camera, roll_deg=roll_deg or 0.0)
    assert np.array_equal(stored.upright().image, turned)


def test_a_mirror_image_is_skipped(tmp_path):
    fake.phone_photo(tmp_path / "a.jpg", orientation=5)
    assert "mirror image" in images_in_folder(tmp_path)[1][0].reason


# ---------------------------------------------------------------- tables


def test_a_table_wins_over_the_files_and_an_empty_cell_does_not(tmp_path):
    fake.phone_photo(tmp_path / "a.jpg")
    fake.phone_photo(tmp_path / "b.jpg", focal_35mm=None)
    table = tmp_path / "t.csv"
    table.write_text(
        "\ufefffile,Lat,lng,heading_deg,time,focal_px,order,license\n"
        "b.jpg,48.5,2.5,370,2024-06-01T14:00:00+02:00,35.5,7,CC0\n"
        "a.jpg,,,,,,,\n"
        "c.jpg,1,2,,,,,\n"
    )
    (b, a), (lost,) = images_in_csv(table)
    assert (b.lat_deg, b.lon_deg, b.heading_deg, b.order, b.licence) == (48.5, 2.5, 10, 7, "CC0")
    assert (b.taken, b.camera.fx) == (NOON, 35.5)
    assert a.lat_deg == pytest.approx(49.282353, abs=1e-6)
    assert a.order == 1
    assert (lost.image_id, "no file" in lost.reason) == ("c.jpg", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lat,lon\n1,2\n", "it needs `image`"),
        ("image,altitude\na.jpg,3\n", "unknown 'altitude'. Possible columns: image"),
        ("image,lat,lat_deg\na.jpg,3,3\n", "each column once"),
        ("image,lat,lon\na.jpg,3\n", r"t\.csv row 2: 2 cells, and the header has 3"),
        ("image,lat,lon\na.jpg,x,3\n", r"t\.csv row 2, column lat_deg: 'x' is not possible"),
        ("image,lat,lon\na.jpg,nan,3\n", "column lat_deg: 'nan'"),
        (
            "image,lat,lon\na.jpg,,3\n",
            r"row 2 \(a\.jpg\): a position has a latitude and a longitude",
        ),
        ("image,time\na.jpg,noon\n", "column time_utc: 'noon'"),
        ("image,lat,lon\n../a.jpg,1,2\n", "'../a.jpg' leads out of"),
        ("image\n/etc/hosts\n", "leads out of"),
        ("image\na/../../a.jpg\n", "leads out of"),
        ("", "not a CSV file"),
        ("image\na.jpg\n./a.jpg\n", r"t\.csv row 3, column image: '\./a\.jpg' is in row 2"),
        ("image,kind\na.jpg,sphere\n", r"row 2, column kind: 'sphere'.*photo or panorama"),
        ("image,pitch_deg\na.jpg,91\n", r"t\.csv row 2, column pitch_deg: '91'.*-90 to 90"),
        ("image,accuracy_m\na.jpg,0\n", r"row 2, column accuracy_m: '0'.*above 0"),
        ("image,focal_px\na.jpg,-3\n", r"t\.csv row 2 \(a\.jpg\): A focal length is a positive"),
    ],
)
def test_a_wrong_table_names_row_and_column(tmp_path, text, message):
    fake.phone_photo(tmp_path / "a.jpg")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        images_in_csv(tmp_path / "t.csv")


# ---------------------------------------------------------------- wide images and links


def test_an_image_twice_as_wide_as_high_is_what_it_is_said_to_be(tmp_path):
    fake.write_jpeg(tmp_path / "wide.jpg", fake.plain_image(80, 40))
    fake.write_png(tmp_path / "tagged.png", fake.plain_image(80, 40), xmp=GPANO)
    fake.phone_photo(tmp_path / "phone.jpg")

    def kinds(images):
        return {i.image_id: (i.kind, i.is_assumed_sphere) for i in images}

    found, _ = images_in_folder(tmp_path)
    assert kinds(found) == {
        "phone.jpg": ("photo", False),
        "tagged.png": ("panorama", False),
        "wide.jpg": ("panorama", True),
    }
    photos_alone, _ = images_in_folder(tmp_path, kind="photo", focal_px=33.0)
    assert {i.kind for i in photos_alone} == {"photo"}
    assert next(i for i in photos_alone if i.image_id == "wide.jpg").camera.fx == 33.0
    (skipped,) = images_in_folder(tmp_path / ".", kind="photo")[1][-1:]
    assert (skipped.image_id, "--focal-px" in skipped.reason) == ("wide.jpg", True)
    table = tmp_path / "t.csv"
    for row, expected in (
        ("wide.jpg,photo,33", ("photo", False)),
        ("wide.jpg,,33", ("photo", False)),
        ("wide.jpg,panorama,", ("panorama", False)),
        ("wide.jpg,,", ("panorama", True)),
        ("tagged.png,,33", ("panorama", False)),
    ):
        table.write_text(f"image,kind,focal_px\n{row}\n")
        (image,), _ = images_in_csv(table)
        assert (image.kind, image.is_assumed_sphere) == expected, row


@pytest.mark.parametrize("focal_px", [-3.0, 0.0, float("nan")])
def test_an_impossible_focal_length_is_refused_whether_it_is_needed_or_not(tmp_path, focal_px):
    fake.write_jpeg(tmp_path / "wide.jpg", fake.plain_image(80, 40))
    (tmp_path / "t.csv").write_text("image\nwide.jpg\n")
    with pytest.raises(ValueError, match="a positive number of pixels"):
        images_in_folder(tmp_path, focal_px=focal_px)
    with pytest.raises(ValueError, match="a positive number of pixels"):
        images_in_csv(tmp_path / "t.csv", focal_px=focal_px)


def test_links_out_of_the_folder_and_in_circles_are_skipped_and_those_within_are_files(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    fake.phone_photo(folder / "a.jpg")
    fake.phone_photo(tmp_path / "elsewhere.jpg")
    (folder / "out.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "gone.jpg").symlink_to("nothing.jpg")
    (folder / "within.jpg").symlink_to("a.jpg")
    (folder / "t.csv").write_text("image\na.jpg\nout.jpg\ncircle.jpg\ngone.jpg\nwithin.jpg\n")
    for found, skipped in (images_in_folder(folder), images_in_csv(folder / "t.csv")):
        assert sorted(image.image_id for image in found) == ["a.jpg", "within.jpg"]
        reasons = {one.image_id: one.reason for one in skipped}
        assert set(reasons) == {"out.jpg", "circle.jpg", "gone.jpg"}
        assert "leads out of" in reasons["out.jpg"]
        assert str(tmp_path / "elsewhere.jpg") in reasons["out.jpg"]


# ---------------------------------------------------------------- tracks


def gpx(*points, namespace="http://www.topografix.com/GPX/1/1"):
    text = "".join(
        f'<trkpt lat="{lat}" lon="{lon}">' + (f"<ele>3</ele><time>{time}</time>" if time else "")
        + "</trkpt>"
        for lat, lon, time in points
    )  # fmt: skip
    return (
        f'<?xml version="1.0"?><gpx version="1.1" xmlns="{namespace}"><wpt lat="0" lon="0"/>'
        f"<trk><trkseg>{text}</trkseg></trk></gpx>"
    )


def written(tmp_path, text):
    path = tmp_path / "t.gpx"
    path.write_text(text)
    return path


def seconds(*numbers):
    return [NOON.timestamp() + number for number in numbers]


def test_a_place_between_two_points_is_in_proportion_to_the_time(tmp_path):
    path = written(tmp_path, gpx(
        (48.001, 2.002, "2024-06-01T12:00:08Z"), (48.0, 2.0, "2024-06-01T14:00:00+02:00"),
        (47.0, 1.0, None), (48.002, 2.002, "2024-06-01T12:00:12"),
    ))  # fmt: skip
    track = read_track(path)
    assert (track.first, track.last) == (NOON, NOON + timedelta(seconds=12))
    assert track.at(NOON + timedelta(seconds=2), max_gap_s=8) == pytest.approx((48.00025, 2.0005))
    assert track.at(NOON + timedelta(seconds=9), max_gap_s=8) == pytest.approx((48.00125, 2.002))
    assert track.at(NOON + timedelta(seconds=12), max_gap_s=8) == pytest.approx((48.002, 2.002))


@given(st.lists(st.integers(0, 100_000), min_size=2, max_size=30, unique=True), st.data())
def test_every_time_on_a_track_is_interpolated_as_numpy_does(offsets, data):
    offsets = sorted(offsets)
    rng = np.random.default_rng(len(offsets))
    lat_deg, lon_deg = rng.uniform(-80, 80, len(offsets)), rng.uniform(-70, 70, len(offsets))
    track = Track(np.array(seconds(*offsets)), lat_deg, lon_deg)
    when = data.draw(st.floats(offsets[0], offsets[-1]))
    got = track.at(NOON + timedelta(seconds=when), max_gap_s=1e6)
    expected = (np.interp(when, offsets, lat_deg), np.interp(when, offsets, lon_deg))
    assert got == pytest.approx(expected, abs=1e-4)


def test_the_antimeridian_is_crossed_the_short_way(tmp_path):
    track = read_track(written(tmp_path, gpx(
        (-17.0, 179.999, "2024-06-01T12:00:00Z"), (-17.0, -179.999, "2024-06-01T12:00:04Z"),
    )))  # fmt: skip
    assert track.at(NOON + timedelta(seconds=1), max_gap_s=9)[1] == pytest.approx(179.9995)
    assert track.at(NOON + timedelta(seconds=3), max_gap_s=9)[1] == pytest.approx(-179.9995)


def test_gaps_and_times_outside_of_the_track_are_refused():
    track = Track(np.array(seconds(0, 5, 65)), np.zeros(3), np.zeros(3))
    with pytest.raises(DatasetError, match=r"a gap of 60 s .* at most 10 s"):
        track.at(NOON + timedelta(seconds=30), max_gap_s=10)
    # at its ends one knows where one was
    assert track.at(NOON + timedelta(seconds=65), max_gap_s=10) == (0, 0)
    for second in (-1, 66):
        with pytest.raises(DatasetError, match="outside of the track"):
            track.at(NOON + timedelta(seconds=second), max_gap_s=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<gpx", "cannot be read as GPX"),
        (
            '<?xml version="1.0"?><!DOCTYPE gpx [<!ENTITY a "b">]><gpx>&a;</gpx>',
            "declares entities",
        ),
        (gpx((1, 2, None)), "no track points with a time"),
        (gpx((1, 2, "yesterday")), "'yesterday' cannot be read"),
        (gpx((91, 2, "2024-06-01T12:00:00Z")), "no place"),
    ],
)
def test_a_file_that_is_no_track_says_so(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        read_track(written(tmp_path, text))


def test_gpx_1_0_is_read_too(tmp_path):
    text = gpx((1, 2, "2024-06-01T12:00:00Z"), namespace="http://www.topografix.com/GPX/1/0")
    assert read_track(written(tmp_path, text)).at(NOON, max_gap_s=1) == (1, 2)


TRACK = Track(np.array(seconds(0, 10)), np.array([48.0, 48.001]), np.array([2.0, 2.0]))


def photo(name, taken):
    return GroundImage(name, lat_deg=1.0, lon_deg=1.0, accuracy_m=5.0, taken=taken)


def test_photos_are_placed_by_their_time_zone():
    zone = timezone(timedelta(hours=-7))
    taken = (NOON + timedelta(seconds=5)).astimezone(zone)
    (image,), skipped = placed_on_track([photo("a", taken)], TRACK)
    assert (image.lat_deg, image.lon_deg) == pytest.approx((48.0005, 2.0))
    assert (image.accuracy_m, skipped) == (None, [])


def test_a_clock_that_is_ahead_is_set_back_whatever_zone_the_file_names():
    shown = datetime(2024, 6, 1, 14, 0, 9)  # 2 hours of time zone, and 4 s too fast
    for taken in (shown, shown.replace(tzinfo=timezone(timedelta(hours=5)))):
        (image,), _ = placed_on_track([photo("a", taken)], TRACK, clock_ahead_s=7204.0)
        assert image.lat_deg == pytest.approx(48.0005)
        assert image.taken == NOON + timedelta(seconds=5)


def test_photos_that_cannot_be_placed_are_skipped_with_the_reason():
    images = [
        photo("good", NOON), photo("late", NOON + timedelta(hours=1)), photo("never", None),
        photo("nowhere", datetime(2024, 6, 1, 12)),
    ]  # fmt: skip
    placed, skipped = placed_on_track(images, TRACK)
    assert [image.image_id for image in placed] == ["good"]
    reasons = {one.image_id: one.reason for one in skipped}
    assert "outside of the track" in reasons["late"]
    assert "does not say when" in reasons["never"]
    assert "unknown time zone" in reasons["nowhere"]


def test_a_clock_that_is_hours_off_is_suspected_and_said():
    with pytest.raises(
        DatasetError,
        match=r"12:00:00 to .*12:00:10 UTC; .*2024-06-01 14:00:05 to 2024-06-02 02:00:05 UTC.*"
        "--clock-ahead-s",
    ):
        placed_on_track(
            [
                photo(name, NOON + timedelta(hours=h, seconds=5))
                for name, h in (("a", 2), ("b", 14))
            ],
            TRACK,
        )
