"""What is known of a query's camera in an evaluation, and what of it an encoder is shown."""

import numpy as np

from crossview.preprocessing import UNSEEN_RGB, Preprocessing
from crossview.retrieval import Seeing

WHOLE = Preprocessing((16, 64), (16, 64))
NARROW = Preprocessing((16, 16), (16, 64), fov_deg=90.0)


def test_an_encoder_of_a_limited_field_of_view_is_told_of_no_heading():
    seeing = Seeing(5.0, 360.0, seed=3)
    assert seeing.for_encoder(WHOLE) == seeing
    assert seeing.for_encoder(NARROW) == Seeing(180.0, 360.0, seed=3)
    assert seeing.needs_heading(WHOLE) and not seeing.needs_heading(NARROW)
    assert not Seeing(180.0).needs_heading(WHOLE)


def numbered(cols=64):
    """One row per colour, whose green says where a column looks."""
    image = np.zeros((16, cols, 3), np.uint8)
    image[..., 1] = np.arange(cols)
    return image


def is_grey(image):
    return (image == np.array(UNSEEN_RGB)).all(axis=(0, 2))


def test_a_photo_shows_what_it_shows_however_little_of_panoramas_is_seen():
    """In an encoder of a full turn it is turned by its heading's error, and no more."""
    for number in range(20):
        seeing = Seeing(30.0, 90.0, seed=2)
        panorama = seeing(numbered(), number, WHOLE)
        photo = seeing(numbered(), number, WHOLE, is_photo=True)
        columns = round(seeing.turn_deg(number) / 360 * 64)
        assert np.array_equal(photo, np.roll(numbered(), columns, axis=1))
        assert is_grey(panorama).sum() in (47, 48, 49)


def test_what_a_camera_sees_of_a_panorama_is_where_a_limited_encoder_looks():
    for number in range(20):
        seeing = Seeing(180.0, 45.0, seed=2)
        image = seeing(numbered(), number, NARROW)
        shown = ~is_grey(image)
        assert shown[5:11].all() and shown.sum() in (7, 8, 9)
        whole = Seeing(180.0, seed=2)(numbered(), number, NARROW)
        assert np.array_equal(image[:, shown], whole[:, shown])
