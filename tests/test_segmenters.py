"""Queries as a network knows images: upright, and without the own car."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview.cameras import Pinhole
from crossview.photos import Mount, Panorama, Photo, Rig
from crossview.segmenters import Remembering, fingerprint, upright_images, usable_pixels


def photo(roll_deg=0.0, mask=None):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    return Photo(image, Pinhole.from_focal(6, 4, 5.0), roll_deg=roll_deg, mask=mask)


def test_a_photo_stored_on_its_side_is_turned_upright():
    ((image, mount),) = upright_images(photo(roll_deg=91.0))
    assert mount == Mount()
    assert image.roll_deg == pytest.approx(1.0)
    # its right side is down: what is at the right belongs to the bottom
    assert np.array_equal(image.image, np.rot90(photo().image, k=-1))


def test_a_panorama_is_upright_already():
    panorama = Panorama(np.zeros((4, 8, 3), np.uint8))
    ((image, mount),) = upright_images(panorama)
    assert image is panorama
    assert mount == Mount()


def test_every_photo_of_a_rig_keeps_its_mount():
    mounts = (Mount(10.0, 0.5, 0.1), Mount(190.0, -0.5, 0.0))
    found = upright_images(Rig((photo(), photo(roll_deg=180.0)), mounts))
    assert [mount for _, mount in found] == list(mounts)
    assert [image.roll_deg for image, _ in found] == [0.0, 0.0]
    assert np.array_equal(found[1][0].image, photo().image[::-1, ::-1])


def test_without_a_mask_all_pixels_are_usable():
    assert usable_pixels(photo(), 3, 5).all()
    assert usable_pixels(photo(), 3, 5).shape == (3, 5)


def test_in_its_own_size_the_mask_is_what_is_usable():
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    assert np.array_equal(usable_pixels(photo(mask=mask), 4, 6), mask)


def test_in_twice_the_size_every_pixel_of_the_mask_is_four():
    mask = np.random.default_rng(1).random((4, 6)) < 0.5
    expected = np.kron(mask, np.ones((2, 2), bool))
    assert np.array_equal(usable_pixels(photo(mask=mask), 8, 12), expected)


@given(st.integers(1, 9), st.integers(1, 13))
def test_a_pixel_of_any_size_is_usable_where_the_mask_is_true_at_its_centre(rows, cols):
    mask = np.random.default_rng(2).random((4, 6)) < 0.5
    usable = usable_pixels(photo(mask=mask), rows, cols)
    for row in range(rows):
        for col in range(cols):
            at = int((2 * row + 1) * 4 // (2 * rows)), int((2 * col + 1) * 6 // (2 * cols))
            assert usable[row, col] == mask[at]


# ---------------------------------------------------------------------- remembering


class Asked:
    """Says how often it was asked."""

    classes = ("road",)
    fingerprint = "asked"

    def __init__(self):
        self.times = 0

    def __call__(self, image):
        self.times += 1
        return np.full((*image.shape[:2], 1), self.times, np.float32)


def test_a_remembering_segmenter_asks_once_for_the_same_pixels():
    asked = Asked()
    remembering = Remembering(asked, max_images=2)
    images = [np.full((2, 3, 3), value, np.uint8) for value in range(3)]
    assert remembering(images[0]).max() == remembering(images[0].copy()).max() == 1
    assert remembering(images[1]).max() == 2
    assert remembering.classes == ("road",)
    assert fingerprint(remembering) == "asked"


def test_a_remembering_segmenter_tells_shapes_of_the_same_bytes_apart():
    remembering = Remembering(Asked())
    assert remembering(np.zeros((2, 3, 3), np.uint8)).shape == (2, 3, 1)
    assert remembering(np.zeros((3, 2, 3), np.uint8)).shape == (3, 2, 1)


def test_a_remembering_segmenter_forgets_the_oldest():
    remembering = Remembering(Asked(), max_images=2)
    images = [np.full((2, 3, 3), value, np.uint8) for value in range(3)]
    assert [remembering(image).max() for image in images] == [1, 2, 3]
    assert remembering(images[2]).max() == 3
    assert remembering(images[0]).max() == 4
