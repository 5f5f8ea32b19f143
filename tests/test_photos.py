"""Photos and panoramas from files, and the types that hold them."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes import images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossview import photos
from crossview.cameras import Equirectangular, Pinhole, RadialDistortion, map_from_camera
from crossview.errors import (
    MissingFocalLengthError,
    MissingLocationError,
    PhotoError,
    PhotoTooLargeError,
)

CAMERA = Pinhole(40, 30, fx=35.0, fy=36.0, cx=21.0, cy=14.0)


def panorama_image(map_from_axes, width_px=80):
    """A sphere whose colours say which way each pixel looks, (v + 1) / 2."""
    camera = Equirectangular(width_px, width_px // 2)
    rays = camera.rays(np.arange(width_px) + 0.5, np.arange(width_px // 2)[:, None] + 0.5)
    return np.rint((rays @ map_from_axes.T + 1) * 127.5).astype(np.uint8)


def test_a_phone_photo_has_pixels_camera_and_fix(tmp_path):
    photo = photos.read_photo(images.phone_photo(tmp_path / "a.jpg"))
    assert np.abs(photo.image.astype(int) - images.plain_image()).max() <= 3
    focal_px = 28 * 50 / math.hypot(36, 24)
    assert photo.camera.fx == pytest.approx(focal_px)
    assert photo.camera == Pinhole.from_focal(40, 30, photo.camera.fx)
    assert photo.fix.lat_deg == pytest.approx(49.28235277)
    assert (photo.height_m, photo.pitch_deg, photo.roll_deg) == (1.6, 0.0, 0.0)


def test_a_png_is_read_and_options_say_what_files_do_not(tmp_path):
    path = images.write_png(tmp_path / "a.png")
    photo = photos.read_photo(path, focal_px=33.0, pitch_deg=5.0, roll_deg=-2.0, height_m=2.5)
    assert np.array_equal(photo.image, images.plain_image())
    assert photo.camera == Pinhole.from_focal(40, 30, 33.0)
    assert (photo.pitch_deg, photo.roll_deg, photo.height_m) == (5.0, -2.0, 2.5)
    assert photo.fix is None


@pytest.mark.parametrize(
    ("orientation", "corner"),
    # where the stored top left corner is shown: Exif 2.32, tag 274
    [(1, "top left"), (3, "bottom right"), (6, "top right"), (8, "bottom left")],
)
def test_exif_orientation_turns_the_pixels_and_the_camera(tmp_path, orientation, corner):
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    image[:10, :10] = 255
    path = images.phone_photo(tmp_path / "a.jpg", orientation=orientation, image=image)
    photo = photos.read_photo(path)
    sideways = orientation in (6, 8)
    assert photo.image.shape == ((40, 30, 3) if sideways else (30, 40, 3))
    assert (photo.camera.width_px, photo.camera.cx) == ((30, 15.0) if sideways else (40, 20.0))
    corners = {
        f"{vertical} {horizontal}": photo.image[row, col].mean()
        for vertical, row in (("top", 3), ("bottom", -3))
        for horizontal, col in (("left", 3), ("right", -3))
    }
    assert max(corners, key=corners.get) == corner


def test_a_photo_made_smaller_keeps_its_field_of_view(tmp_path):
    path = images.phone_photo(tmp_path / "a.jpg", image=images.plain_image(200, 150))
    full, small = photos.read_photo(path), photos.read_photo(path, max_side_px=70)
    assert small.image.shape == (52, 70, 3)
    assert (small.camera.width_px, small.camera.height_px) == (70, 52)
    assert small.camera.horizontal_fov_deg == pytest.approx(full.camera.horizontal_fov_deg)
    corner = np.array([200.0, 150.0])
    assert small.camera.rays(70, 52) == pytest.approx(full.camera.rays(*corner))
    assert photos.read_photo(path, max_side_px=500).image.shape == full.image.shape


def test_the_focal_length_option_counts_in_pixels_of_the_full_size(tmp_path):
    path = images.write_jpeg(tmp_path / "a.jpg", images.plain_image(200, 150))
    assert photos.read_photo(path, focal_px=100.0, max_side_px=100).camera.fx == 50.0


def test_a_sixteen_bit_gray_png_is_scaled_and_not_clipped(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((30, 40), 257 * 100, dtype=np.uint16)).save(path)
    assert np.unique(photos.read_pixels(path)).tolist() == [100]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_every_kind_of_png_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(images.plain_image()).convert(mode).save(path)
    assert photos.read_pixels(path).shape == (30, 40, 3)
    assert photos.read_photo(path, focal_px=30.0, max_side_px=20).image.shape == (15, 20, 3)


def test_stored_pixels_are_read_as_stored(tmp_path):
    path = images.phone_photo(tmp_path / "a.jpg", orientation=6)
    assert photos.read_pixels(path).shape == (30, 40, 3)


def test_white_in_a_mask_file_is_not_the_world(tmp_path):
    path = tmp_path / "mask.png"
    gray = np.zeros((30, 40), dtype=np.uint8)
    gray[:5], gray[5:10] = 255, 127
    Image.fromarray(gray).save(path)
    mask = photos.read_mask(path)
    assert not mask[:5].any()
    assert mask[5:].all()


def test_something_that_is_no_image_is_refused_by_name(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("dear diary")
    with pytest.raises(PhotoError, match=r"notes\.jpg is not a JPEG or PNG.*dear dia"):
        photos.read_photo(path)


def test_an_empty_and_a_missing_file_are_photo_errors(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PhotoError, match=r"empty\.jpg is not a JPEG or PNG"):
        photos.read_photo(tmp_path / "empty.jpg")
    with pytest.raises(PhotoError, match="There is no file"):
        photos.read_photo(tmp_path / "missing.jpg")


@pytest.mark.parametrize("reader", [photos.read_photo, photos.read_pixels, photos.decoded_size])
def test_a_truncated_jpeg_is_an_error_and_not_half_gray(tmp_path, reader):
    path = images.truncated_jpeg(tmp_path / "cut.jpg")
    options = {"focal_px": 100.0} if reader is photos.read_photo else {}
    with pytest.raises(PhotoError, match=r"cut\.jpg cannot be read.*truncated"):
        reader(path, **options)


def test_a_bomb_is_refused_before_it_is_decoded_and_without_warnings(tmp_path):
    path = images.png_bomb(tmp_path / "bomb.png")
    assert path.stat().st_size < 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PhotoTooLargeError, match=r"30000 x 30000.*200 million.*max_pixels"):
            photos.read_photo(path, focal_px=1000.0)


def test_the_limit_can_be_raised_above_that_of_pillow(tmp_path):
    path = images.png_bomb(tmp_path / "bomb.png")
    # now it is opened, and found to hold no pixels
    with pytest.raises(PhotoError, match="truncated or damaged") as error:
        photos.decoded_size(path, max_pixels=10**9)
    assert not isinstance(error.value, PhotoTooLargeError)


def test_the_limit_can_be_lowered(tmp_path):
    path = images.phone_photo(tmp_path / "a.jpg")
    assert photos.read_photo(path, max_pixels=1200).image.shape == (30, 40, 3)
    with pytest.raises(PhotoTooLargeError, match="40 x 30"):
        photos.read_photo(path, max_pixels=1199)


def test_heic_says_what_to_do(tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    with pytest.raises(PhotoError, match=r"HEIC.*Convert it to JPEG"):
        photos.read_photo(path)


def test_a_photo_without_focal_length_names_the_option(tmp_path):
    path = images.phone_photo(tmp_path / "a.jpg", focal_35mm=None)
    with pytest.raises(MissingFocalLengthError, match=r"focal_px=, or --focal-px"):
        photos.read_photo(path)
    assert photos.read_photo(path, focal_px=40.0).camera.fx == 40.0


def test_impossible_gps_is_an_error_unless_it_is_ignored(tmp_path):
    gps = {**images.PLACE, 2: (91.0, 0.0, 0.0)}
    path = images.phone_photo(tmp_path / "a.jpg", gps=gps)
    with pytest.raises(PhotoError, match=r"a\.jpg: EXIF GPSLatitude"):
        photos.read_photo(path)
    assert photos.read_photo(path, ignore_gps=True).fix is None


def test_a_photo_without_location_names_the_options(tmp_path):
    photo = photos.read_photo(images.phone_photo(tmp_path / "a.jpg", gps=None))
    with pytest.raises(MissingLocationError, match=r"^a\.jpg .*--lat and --lon"):
        photos.require_fix(photo, "a.jpg")


def test_a_photo_with_location_has_a_fix(tmp_path):
    photo = photos.read_photo(images.phone_photo(tmp_path / "a.jpg"))
    assert photos.require_fix(photo, "a.jpg") is photo.fix


def test_threads_leave_filters_of_warnings_as_they_were(tmp_path):
    """They belong to the whole process, and overlapping readers once restored each other's."""
    for k in range(8):
        Image.fromarray(np.full((400, 400, 3), k, np.uint8)).save(tmp_path / f"{k}.jpg")
    paths = [tmp_path / f"{k % 8}.jpg" for k in range(200)]
    hook, filters = warnings.showwarning, list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(photos.read_pixels, paths))
    assert warnings.showwarning is hook and list(warnings.filters) == filters
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(2, 1000), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_file_is_read_or_is_a_photo_error(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp()
    content = bytearray(images.phone_photo(folder / "whole.jpg").read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path = folder / "damaged.jpg"
    path.write_bytes(bytes(content))
    try:
        photo = photos.read_photo(path, focal_px=30.0)
    except PhotoError:
        return
    assert photo.image.dtype == np.uint8


def test_a_panorama_without_tags_is_a_full_sphere(tmp_path):
    path = images.write_png(tmp_path / "p.png", images.plain_image(80, 40))
    panorama = photos.read_panorama(path)
    assert panorama.camera == Equirectangular(80, 40)
    assert (panorama.heading_deg, panorama.mask, panorama.fix) == (None, None, None)
    assert photos.read_panorama(path, heading_deg=370.0).heading_deg == 10.0
    assert photos.read_panorama(path, max_side_px=40).image.shape == (20, 40, 3)


@pytest.mark.parametrize("writer", [images.write_png, images.write_jpeg])
def test_a_panorama_has_the_heading_of_its_xmp(tmp_path, writer):
    packet = images.gpano(PoseHeadingDegrees="123.5")
    path = writer(tmp_path / "p", images.plain_image(80, 40), xmp=packet)
    assert photos.read_panorama(path).heading_deg == 123.5


@pytest.mark.parametrize("factor", [1, 2])
def test_a_part_of_a_sphere_is_padded_and_masked_also_after_resizing(tmp_path, factor):
    packet = images.gpano(
        FullPanoWidthPixels=80 * factor, FullPanoHeightPixels=40 * factor,
        CroppedAreaLeftPixels=10 * factor, CroppedAreaTopPixels=8 * factor,
        CroppedAreaImageWidthPixels=50 * factor, CroppedAreaImageHeightPixels=20 * factor,
    )  # fmt: skip
    part = images.plain_image(50, 20)
    panorama = photos.read_panorama(images.write_png(tmp_path / "p.png", part, xmp=packet))
    assert panorama.image.shape == (40, 80, 3)
    assert np.array_equal(panorama.image[8:28, 10:60], part)
    assert panorama.mask[8:28, 10:60].all()
    assert panorama.mask.sum() == 50 * 20


def test_a_part_without_its_own_size_lies_as_far_right_when_made_smaller(tmp_path):
    packet = images.gpano(
        FullPanoWidthPixels=160, FullPanoHeightPixels=80,
        CroppedAreaLeftPixels=80, CroppedAreaTopPixels=20,
    )  # fmt: skip
    path = images.write_png(tmp_path / "p.png", images.plain_image(40, 40), xmp=packet)
    full = photos.read_panorama(path)
    small = photos.read_panorama(path, max_side_px=20)
    assert full.mask[20:60, 80:120].all()
    assert small.image.shape == (40, 80, 3)
    assert np.array_equal(small.mask, full.mask[::2, ::2])


def test_a_tilted_panorama_is_levelled(tmp_path):
    packet = images.gpano(PosePitchDegrees="12", PoseRollDegrees="-8", PoseHeadingDegrees="30")
    tilted = panorama_image(map_from_camera(30.0, 12.0, -8.0))
    panorama = photos.read_panorama(images.write_png(tmp_path / "p.png", tilted, xmp=packet))
    expected = panorama_image(map_from_camera(30.0))
    error = np.abs(panorama.image.astype(int) - expected)
    assert panorama.heading_deg == 30.0
    assert np.quantile(error, 0.98) <= 2


@pytest.mark.parametrize(
    ("size", "tags", "message"),
    [
        ((60, 40), {}, "twice as wide as high.*60 x 40"),
        ((60, 40), {"FullPanoWidthPixels": 100, "FullPanoHeightPixels": 80}, "100 x 80"),
        (
            (60, 40),
            {
                "FullPanoWidthPixels": 80,
                "FullPanoHeightPixels": 40,
                "CroppedAreaLeftPixels": 50,
            },
            "does not fit",
        ),
    ],
)
def test_a_panorama_that_is_no_sphere_is_refused(tmp_path, size, tags, message):
    xmp = images.gpano(**tags)
    path = images.write_png(tmp_path / "p.png", images.plain_image(*size), xmp=xmp)
    with pytest.raises(PhotoError, match=message):
        photos.read_panorama(path)


def test_a_small_part_of_a_huge_sphere_is_a_bomb_too(tmp_path):
    xmp = images.gpano(FullPanoWidthPixels=60_000, FullPanoHeightPixels=30_000)
    path = images.write_png(tmp_path / "p.png", images.plain_image(20, 10), xmp=xmp)
    with pytest.raises(PhotoTooLargeError, match=r"full sphere of p\.png has 60000 x 30000"):
        photos.read_panorama(path)


def make_photo(**options):
    return photos.Photo(images.plain_image(), CAMERA, **options)


def test_arrays_of_a_photo_are_read_only():
    photo = make_photo(mask=np.ones((30, 40), dtype=bool))
    for array in (photo.image, photo.mask):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0


def test_photos_and_panoramas_do_not_change_with_the_arrays_they_were_made_of():
    image, mask = np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40), bool)
    photo = photos.Photo(image, Pinhole.from_focal(40, 20, 30.0), mask=mask)
    panorama = photos.Panorama(image, mask=mask)
    image[:], mask[:] = 255, True
    for made in (photo, panorama):
        assert not made.image.any()
        assert not made.mask.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((30, 40), np.uint8)}, "uint8 RGB"),
        ({"image": np.zeros((30, 40, 3))}, "uint8 RGB"),
        ({"image": np.zeros((40, 30, 3), np.uint8)}, r"30 x 40 .*camera 40 x 30"),
        ({"mask": np.ones((30, 40))}, "bool"),
        ({"mask": np.ones((20, 40), bool)}, r"\(30, 40\)"),
        ({"height_m": 0.0}, "height_m"),
        ({"pitch_deg": 91.0}, "pitch_deg"),
        ({"roll_deg": math.nan}, "roll_deg"),
    ],
)
def test_a_photo_refuses_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        photos.Photo(**{"image": images.plain_image(), "camera": CAMERA, **changes})


def test_a_panorama_refuses_what_is_no_sphere():
    with pytest.raises(ValueError, match="twice as wide as high; got 40 x 30"):
        photos.Panorama(images.plain_image())
    with pytest.raises(ValueError, match="heading_deg"):
        photos.Panorama(images.plain_image(80, 40), heading_deg=math.nan)


def test_a_rig_has_one_mount_for_each_photo():
    photo = make_photo()
    assert photos.Mount(heading_deg=-90.0).heading_deg == 270.0
    assert len(photos.Rig([photo, photo], [photos.Mount(), photos.Mount(90.0)]).mounts) == 2
    with pytest.raises(ValueError, match="2 photos and 1 mounts"):
        photos.Rig((photo, photo), (photos.Mount(),))
    with pytest.raises(ValueError, match="at least one photo"):
        photos.Rig((), ())


@pytest.mark.parametrize("roll_deg", [2.0, 93.0, 179.0, -178.0, 271.5])
def test_an_upright_photo_looks_the_same_way_with_a_roll_of_less_than_45(roll_deg):
    lens = RadialDistortion(22.0, 13.0, (-1e-5,))
    camera = Pinhole(40, 30, fx=35.0, fy=36.0, cx=21.0, cy=14.0, distortion=lens)
    mask = np.random.default_rng(0).random((30, 40)) < 0.5
    photo = photos.Photo(
        images.plain_image(), camera, roll_deg=roll_deg, pitch_deg=7.0, height_m=3.0, mask=mask
    )
    upright = photo.upright()
    assert abs(upright.roll_deg) < 45
    assert (upright.pitch_deg, upright.height_m) == (7.0, 3.0)

    def looks(photo):
        rows, cols = np.indices(photo.image.shape[:2])
        rays = photo.camera.rays(cols + 0.5, rows + 0.5)
        directions = rays @ map_from_camera(0.0, photo.pitch_deg, photo.roll_deg).T
        found = np.concatenate(
            [directions.round(6), photo.image, photo.mask[:, :, None]], axis=2
        ).reshape(-1, 7)
        return found[np.lexsort(found.T)]

    assert looks(upright) == pytest.approx(looks(photo), abs=2e-6)


def test_a_levelled_photo_is_level_and_masks_what_it_did_not_see():
    mask = np.ones((30, 40), dtype=bool)
    mask[:, :5] = False
    photo = make_photo(roll_deg=184.0, pitch_deg=6.0, height_m=2.0, mask=mask)
    level = photo.levelled()
    assert (level.roll_deg, level.pitch_deg, level.height_m) == (0.0, 0.0, 2.0)
    assert level.camera == Pinhole(40, 30, fx=35.0, fy=36.0, cx=19.0, cy=16.0)
    # the stored left is the right of an upside-down image, and pitch leaves a strip at the edge
    assert not level.mask[:, -3:].any()
    assert level.mask[15, 15]


def test_the_three_phone_photos_of_vancouver(data_dir):
    paths = sorted((data_dir / "photos_vancouver").glob("*.JPG"))
    found = [photos.read_photo(path, max_side_px=256) for path in paths]
    fixes = [photos.require_fix(photo, "photo") for photo in found]
    assert [photo.image.shape for photo in found] == [(192, 256, 3)] * 3
    assert {fix.heading_reference for fix in fixes} == {"true"}
    assert [round(fix.heading_deg, 2) for fix in fixes] == [315.87, 175.35, 100.41]
    # the one whose GPS is 450 m off says itself that it is
    assert [round(fix.accuracy_m) for fix in fixes] == [3089, 35, 40]
    # 28 mm on a diagonal of 5/4 widths: half the width is 0.4 * 43.27 mm
    expected_deg = 2 * math.degrees(math.atan(0.4 * math.hypot(36, 24) / 28))
    assert found[0].camera.horizontal_fov_deg == pytest.approx(expected_deg)


def test_the_fix_of_a_file_is_read_without_its_pixels(tmp_path):
    path = images.phone_photo(tmp_path / "a.jpg")
    assert photos.read_fix(path) == photos.read_photo(path).fix
    assert photos.read_fix(images.write_png(tmp_path / "b.png")) is None
