"""EXIF and XMP by hand-worked numbers."""

import logging
import math

import pytest
from fakes import images
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from crossview import exif
from crossview.errors import PhotoError

DIRECTION = {16: "T", 17: 315.87}


def fix_of(gps):
    return exif.fix_of(images.exif(gps=gps), "a.jpg")


def focal_px_of(photo, *, width_px=36, height_px=24):
    tags = images.exif(photo=photo)
    return exif.focal_px_of(tags, width_px=width_px, height_px=height_px, name="a.jpg")


def test_degrees_minutes_and_seconds_become_signed_degrees():
    fix = fix_of(images.PLACE)
    assert fix.lat_deg == pytest.approx(49 + 16 / 60 + 56.47 / 3600)
    assert fix.lon_deg == pytest.approx(-(123 + 6 / 60 + 52.04 / 3600))
    assert (fix.heading_deg, fix.accuracy_m) == (None, None)


def test_south_and_west_are_negative_and_decimal_degrees_are_read():
    fix = fix_of({1: "S", 2: (35.25,), 3: "W", 4: (149.0, 7.5)})
    assert (fix.lat_deg, fix.lon_deg) == pytest.approx((-35.25, -149.125))


@pytest.mark.parametrize(
    ("tags", "heading_deg", "reference"),
    [
        ({16: "T", 17: 315.87}, 315.87, "true"),
        ({16: "M", 17: 90.0}, 90.0, "magnetic"),
        ({17: 90.0}, 90.0, "magnetic"),
        ({16: "T", 17: 360.0}, 0.0, "true"),
    ],
)
def test_a_compass_heading_keeps_its_reference(tags, heading_deg, reference):
    fix = fix_of({**images.PLACE, **tags})
    assert fix.heading_deg == pytest.approx(heading_deg)
    assert fix.heading_reference == reference


@pytest.mark.parametrize(
    ("error", "accuracy_m"), [(35.0, 35.0), ("35/1", 35.0), ("1152328/373", 3089.35)]
)
def test_a_positioning_error_is_an_accuracy_also_where_it_is_written_as_text(error, accuracy_m):
    assert fix_of({**images.PLACE, 31: error}).accuracy_m == pytest.approx(accuracy_m, rel=1e-5)


def test_a_positioning_error_of_zero_is_not_known():
    assert fix_of({**images.PLACE, 31: 0.0}).accuracy_m is None


def test_a_photo_without_gps_has_no_fix():
    assert fix_of({}) is None
    assert fix_of({29: "2023:06:17", **DIRECTION}) is None


def test_a_receiver_without_a_fix_gives_none_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, "crossview"):
        assert fix_of({**images.PLACE, 9: "V"}) is None
    assert "a.jpg: GPSStatus is V" in caplog.text


@pytest.mark.parametrize(
    ("tags", "tag"),
    [
        ({2: (91.0, 0.0, 0.0)}, "GPSLatitude is"),
        ({2: (49.0, 61.0, 0.0)}, "GPSLatitude is"),
        ({2: (49.0, 0.0, -1.0)}, "GPSLatitude is"),
        ({2: (IFDRational(1, 0), IFDRational(0, 0), 0.0)}, "GPSLatitude is"),
        ({4: (180.0, 30.0, 0.0)}, "GPSLongitude is"),
        ({1: "X"}, "GPSLatitudeRef is 'X'"),
        ({3: ""}, "GPSLongitudeRef is ''"),
        ({2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, "GPSLatitude, GPSLongitude is 0, 0"),
        ({16: "T", 17: 400.0}, "GPSImgDirection is"),
        ({16: "X", 17: 40.0}, "GPSImgDirectionRef is 'X'"),
        ({16: "T", 17: -1.0}, "GPSImgDirection is"),
        ({31: -1.0}, "GPSHPositioningError is -1.0"),
    ],
)
def test_an_impossible_gps_tag_is_named_with_the_way_out(tags, tag):
    with pytest.raises(PhotoError, match=rf"^a\.jpg: EXIF {tag}.*; expected .*ignore_gps=True"):
        fix_of({**images.PLACE, **tags})


@pytest.mark.parametrize("unknown", [IFDRational(0, 0), "0/0", "many"])
@pytest.mark.parametrize(("tag", "name"), [(17, "GPSImgDirection"), (31, "GPSHPositioningError")])
def test_an_unknown_compass_or_accuracy_leaves_the_position(tag, name, unknown, caplog):
    with caplog.at_level(logging.WARNING, "crossview"):
        fix = fix_of({**images.PLACE, tag: unknown})
    assert fix.lat_deg == pytest.approx(49.28235277)
    assert (fix.heading_deg, fix.accuracy_m) == (None, None)
    assert f"a.jpg: EXIF {name}" in caplog.text


@pytest.mark.parametrize("direction", [{}, {17: IFDRational(0, 0)}])
def test_the_reference_of_no_direction_is_not_read(direction):
    fix = fix_of({**images.PLACE, 16: "X", **direction})
    assert fix.heading_deg is None


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_half_a_position_is_an_error(missing):
    tags = {tag: value for tag, value in images.PLACE.items() if tag != missing}
    with pytest.raises(PhotoError, match="EXIF GPSL"):
        fix_of(tags)


def test_an_image_of_one_pixel_a_millimetre_has_the_35_mm_focal_length_in_pixels():
    assert focal_px_of({0xA405: 26}) == pytest.approx(26.0)


def test_the_35_mm_focal_length_counts_along_the_diagonal():
    # 4:3: the diagonal of 40 x 30 is 50
    focal_px = focal_px_of({0xA405: 26}, width_px=40, height_px=30)
    assert focal_px == pytest.approx(26 * 50 / math.sqrt(36**2 + 24**2))
    assert focal_px_of({0xA405: 26}, width_px=30, height_px=40) == focal_px


def test_a_phone_that_gives_both_focal_lengths_means_the_diagonal():
    # iPhone 8: 3.99 mm on 4032 x 3024 pixels of 1.22 um, sold as 28 mm; 29.2 by the width
    diagonal_mm = 1.22e-3 * math.hypot(4032, 3024)
    assert round(3.99 / diagonal_mm * exif.FILM_DIAGONAL_MM) == 28
    assert round(3.99 / (1.22e-3 * 4032) * 36) == 29


@pytest.mark.parametrize(
    ("unit", "resolution"), [(2, 508.0), (3, 200.0), (4, 20.0), (5, 0.02), (None, 508.0)]
)
def test_focal_length_and_sensor_resolution_give_pixels(unit, resolution):
    # 5 mm at 20 pixels/mm; without a unit EXIF means inches
    tags = {0x920A: 5.0, 0xA20E: resolution} | ({} if unit is None else {0xA210: unit})
    assert focal_px_of(tags) == pytest.approx(100.0, rel=1e-4)


def test_a_resized_photo_has_a_focal_length_as_much_smaller():
    tags = {0x920A: 5.0, 0xA20E: 20.0, 0xA210: 4, 0xA002: 72}
    assert focal_px_of(tags, width_px=36) == pytest.approx(50.0)


def test_digital_zoom_lengthens_the_physical_focal_length_only_and_is_logged(caplog):
    with caplog.at_level(logging.INFO, "crossview"):
        physical = focal_px_of({0x920A: 5.0, 0xA20E: 20.0, 0xA210: 4, 0xA404: 2.0})
    assert physical == pytest.approx(200.0)
    assert "digital zoom of 2" in caplog.text
    assert focal_px_of({0xA405: 26, 0xA404: 2.0}) == pytest.approx(26.0)


@pytest.mark.parametrize("tags", [{}, {0xA405: 0}, {0x920A: 5.0}, {0x920A: 0.0, 0xA20E: 20.0}])
def test_a_photo_that_does_not_say_has_no_focal_length(tags):
    assert focal_px_of(tags) is None


@pytest.mark.parametrize("as_elements", [False, True])
def test_gpano_is_read_from_attributes_and_from_elements(as_elements):
    packet = images.gpano(
        as_elements=as_elements, ProjectionType="equirectangular", PoseHeadingDegrees="350.5",
        PosePitchDegrees="-3", PoseRollDegrees="2.5", FullPanoWidthPixels=400,
        FullPanoHeightPixels=200, CroppedAreaLeftPixels=40, CroppedAreaTopPixels=30,
        CroppedAreaImageWidthPixels=320, CroppedAreaImageHeightPixels=100,
    )  # fmt: skip
    tags = exif.panorama_tags_of(packet, "p.jpg")
    assert (tags.heading_deg, tags.pitch_deg, tags.roll_deg) == (350.5, -3.0, 2.5)
    assert (tags.full_width_px, tags.full_height_px) == (400, 200)
    assert (tags.left_px, tags.top_px) == (40, 30)
    assert (tags.cropped_width_px, tags.cropped_height_px) == (320, 100)


def test_xmp_without_gpano_says_nothing():
    assert exif.panorama_tags_of(images.gpano(), "p.jpg") == exif.PanoramaTags()


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (images.gpano(PoseHeadingDegrees="400"), "PoseHeadingDegrees is '400'"),
        (images.gpano(PosePitchDegrees="up"), "PosePitchDegrees is 'up'"),
        (images.gpano(FullPanoWidthPixels="nan"), "FullPanoWidthPixels is 'nan'"),
        (images.gpano(ProjectionType="cylindrical"), "'cylindrical'.*Convert it"),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', "declares entities"),
        (b"<x", "not XML"),
        ("<x/>".encode("utf-16"), "not UTF-8"),
        (b" " * (exif.MAX_XMP_BYTES + 1), "at most"),
    ],
)
def test_a_bad_xmp_packet_is_an_error_that_says_why(packet, message):
    with pytest.raises(PhotoError, match=rf"^p\.jpg.*{message}"):
        exif.panorama_tags_of(packet, "p.jpg")


@given(st.dictionaries(
    st.sampled_from([1, 2, 3, 4, 9, 16, 17, 31]),
    st.one_of(
        st.text(max_size=3), st.floats(), st.binary(max_size=4), st.integers(), st.none(),
        st.lists(st.floats(), max_size=4).map(tuple),
    ),
))  # fmt: skip
def test_whatever_the_tags_hold_the_answer_is_a_place_or_a_photo_error(gps):
    class Tags:
        def get_ifd(self, _):
            return gps

    try:
        fix = exif.fix_of(Tags(), "a.jpg")
    except PhotoError:
        return
    assert fix is None or abs(fix.lat_deg) <= 90


def test_exif_survives_a_file():
    tags = images.exif(photo={0xA405: 26}, gps=images.PLACE)
    again = Image.Exif()
    again.load(tags.tobytes())
    assert exif.fix_of(again, "a.jpg").lat_deg == pytest.approx(49.28235277)
