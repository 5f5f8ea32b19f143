"""Class images as pictures: there and back, and nothing else is taken for one."""

import io

import numpy as np
import pytest
from PIL import Image

from crossview.synthetic.palette import CLASS_COLORS, CLASSES, PaletteSegmenter, colored


def blocks(rng: np.random.Generator) -> np.ndarray:
    """A class image of large patches."""
    return np.kron(rng.integers(0, len(CLASSES), (4, 6)), np.ones((32, 32), dtype=int))


def test_there_are_twenty_classes_in_the_order_of_train_ids():
    assert len(CLASSES) == 20
    assert [CLASSES.index(c) for c in ("road", "building", "vegetation", "sky", "car")] == [
        *(0, 2, 8, 10, 13)
    ]


def test_no_two_classes_have_one_color():
    assert len(set(CLASS_COLORS.values())) == 20


def test_the_segmenter_reads_every_class_back():
    class_image = np.arange(20).reshape(4, 5)
    probabilities = PaletteSegmenter()(colored(class_image))
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (4, 5, 20)
    assert np.array_equal(probabilities.argmax(axis=-1), class_image)
    assert np.array_equal(probabilities.sum(axis=-1), np.ones((4, 5)))
    assert np.array_equal(probabilities.max(axis=-1), np.ones((4, 5)))


def test_the_channels_have_the_names_of_the_classes():
    assert PaletteSegmenter().classes == CLASSES


def test_the_segmenter_survives_jpeg():
    class_image = blocks(np.random.default_rng(0))
    file = io.BytesIO()
    Image.fromarray(colored(class_image)).save(file, "JPEG", quality=95, subsampling=0)
    classes = PaletteSegmenter()(np.asarray(Image.open(file))).argmax(axis=-1)
    assert (classes == class_image).mean() > 0.98


def test_a_real_photo_is_refused():
    gray = np.full((20, 30, 3), 118, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"100% of the pixels have no colour .* real photo"):
        PaletteSegmenter()(gray)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 4), (1, 4, 5, 3)])
def test_an_image_that_is_not_rgb_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="Expected an RGB image"):
        PaletteSegmenter()(np.zeros(shape, dtype=np.uint8))


def test_a_floating_point_image_is_refused():
    with pytest.raises(ValueError, match="float64"):
        PaletteSegmenter()(np.zeros((4, 5, 3)))


@pytest.mark.parametrize("index", [-1, 20])
def test_a_class_without_a_color_is_refused(index: int):
    with pytest.raises(ValueError, match="expected 0 to 19"):
        colored(np.array([[0, index]]))
