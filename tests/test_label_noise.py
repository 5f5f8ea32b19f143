"""Made-up errors of segmentation: how many, where, and the same again."""

import numpy as np
import pytest

from crossview.synthetic.label_noise import MISTAKEN_FOR, NoisySegmenter, noisy
from crossview.synthetic.palette import CLASSES, PaletteSegmenter, colored

ROAD, SKY, BUILDING = (CLASSES.index(name) for name in ("road", "sky", "building"))


def street(rows=256, cols=512):
    """Sky over houses over a road."""
    classes = np.full((rows, cols), SKY, np.uint8)
    classes[rows // 2 :] = ROAD
    classes[rows // 4 : rows * 5 // 8, cols // 4 : cols * 3 // 4] = BUILDING
    return classes


def wrong(strength, seed=0):
    return noisy(street(), np.random.default_rng(seed), strength=strength) != street()


def test_no_strength_is_no_noise_and_more_is_more():
    shares = [np.mean([wrong(strength, k).mean() for k in range(5)]) for strength in (0, 0.5, 1, 2)]
    assert shares[0] == 0
    assert 0.01 < shares[1] < 0.8 * shares[2] < 0.64 * shares[3]
    assert 0.03 < shares[2] < 0.2


def test_most_errors_are_near_boundaries_or_of_classes_that_look_alike():
    classes = street()
    found = noisy(classes, np.random.default_rng(1))
    far = np.ones(classes.shape, bool)
    for row in (64, 128, 160):
        far[row - 14 : row + 14] = False
    for col in (128, 384):
        far[:, col - 14 : col + 14] = False
    seen = {
        (CLASSES[a], CLASSES[b])
        for a, b in zip(classes[far], found[far], strict=True)
        if a != b and CLASSES[b] != "background"
    }
    assert seen
    assert all(new in MISTAKEN_FOR[old] for old, new in seen)
    assert (found != classes)[far].mean() < (found != classes)[~far].mean()
    assert set(MISTAKEN_FOR) == set(CLASSES)
    assert set().union(*MISTAKEN_FOR.values()) <= set(CLASSES)


def test_a_noisy_segmenter_errs_the_same_for_an_image_and_a_seed():
    image = colored(street())
    one, same, other = (
        NoisySegmenter(PaletteSegmenter(), strength=1.0, seed=seed)(image) for seed in (2, 2, 3)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert one.shape == (256, 512, len(CLASSES))
    assert (one.sum(axis=-1) == 1).all()
    exact = NoisySegmenter(PaletteSegmenter(), strength=0.0)
    np.testing.assert_array_equal(exact(image).argmax(axis=-1), street())
    assert "noise 0" in exact.fingerprint


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="0 or more, got -1"):
        noisy(street(), np.random.default_rng(0), strength=-1)

    class Three:
        classes = ("a", "b", "c")

    with pytest.raises(ValueError, match="knows the classes"):
        NoisySegmenter(Three())
