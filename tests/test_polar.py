"""Polar tiles: published check values, a literal loop, panoramas of the same place, and back."""

import math

import numpy as np
import pytest
from pytest import approx
from scipy import ndimage

from crossview import polar, polar_kernels
from crossview.polar import PolarTable, byte_rescaled, polar_grid, polar_tile, square_tile


def noise(size_px, channels=3, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 256, (size_px, size_px, channels)).astype(dtype)


def smooth(size_px, seed=0):
    """A tile without detail finer than some pixels, so that it survives being resampled."""
    blurred = ndimage.gaussian_filter(noise(size_px, seed=seed, dtype=float), (6, 6, 0))
    return 255 * (blurred - blurred.min()) / np.ptp(blurred)


def published(image, height, width):
    """The published polar transform, pixel by pixel; a tile's indices are (row, column)."""
    size = len(image)
    out = np.zeros((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            theta = 2 * math.pi * j / width
            rho = size / 2 * (height - 1 - i) / height
            row, col = size / 2 + rho * math.cos(theta), size / 2 - rho * math.sin(theta)
            up, left = int(row), int(col)
            down, right = row - up, col - left
            out[i, j] = (
                (1 - down) * (1 - right) * image[up, left]
                + (1 - down) * right * image[up, left + 1]
                + down * (1 - right) * image[up + 1, left]
                + down * right * image[up + 1, left + 1]
            )
    return out


@pytest.mark.parametrize(
    ("sizes", "place", "index"),
    [
        ((112, 616, 750), (0, 0), (746.6518, 375)),
        ((112, 616, 750), (0, 154), (375, 3.3482)),
        ((112, 616, 750), (0, 308), (3.3482, 375)),
        ((112, 616, 750), (0, 462), (375, 746.6518)),
        ((112, 616, 750), (111, 99), (375, 375)),
        ((112, 616, 750), (56, 77), (505.2150, 244.7850)),
        ((112, 616, 1200), (0, 0), (1194.6429, 600)),
        ((112, 616, 1200), (56, 77), (808.3440, 391.6560)),
        ((128, 512, 750), (64, 64), (505.5109, 244.4891)),
    ],
)
def test_published_indices_are_ours_less_half_a_pixel(sizes, place, index):
    """The (row, column) that the published formula gives."""
    col, row = polar_grid(*sizes, convention="safa")
    assert (row[place] - 0.5, col[place] - 0.5) == approx(index, abs=5e-5)


def test_ours_are_at_the_centres_of_pixels():
    col, row = polar_grid(2, 4, 100)
    # rings at a quarter and three quarters of the half side, looking 225, 315, 45 and 135 degrees
    for i, radius_px in ((0, 37.5), (1, 12.5)):
        away = radius_px / math.sqrt(2)
        assert col[i] == approx(50 + away * np.array([-1, -1, 1, 1]))
        assert row[i] == approx(50 + away * np.array([1, -1, -1, 1]))


@pytest.mark.parametrize("convention", polar.CONVENTIONS)
def test_a_heading_is_at_the_centre_column(convention):
    north = polar_tile(noise(60), 8, 36, convention=convention)
    # ten degrees are a column here
    turned = polar_tile(noise(60), 8, 36, heading_deg=40, convention=convention)
    assert np.array_equal(turned, np.roll(north, -4, axis=1))


def test_published_tiles_are_those_of_a_literal_loop():
    image = noise(90)
    expected = published(image.astype(float), 20, 48)
    table = PolarTable.of(20, 48, 90, convention="safa")
    assert table.values(image) == approx(expected, abs=1e-9)
    rescaled = polar_tile(image, 20, 48, convention="safa", rescale="minmax")
    low, high = expected.min(), expected.max()
    assert np.array_equal(
        rescaled, ((expected - low) * (255 / (high - low)) + 0.5).astype(np.uint8)
    )


@pytest.mark.parametrize("size_px", [2, 37, 200])
def test_bytes_are_interpolated_as_scipy_does_and_rounded(size_px):
    image = noise(size_px)
    col, row = polar_grid(24, 60, size_px)
    expected = np.stack(
        [
            ndimage.map_coordinates(
                image[..., k].astype(float), [row - 0.5, col - 0.5], order=1, mode="nearest"
            )
            for k in range(3)
        ],
        axis=-1,
    )
    found = polar_tile(image, 24, 60)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() < 0.52  # half a step, and weights of 15 bits
    assert polar_tile(image.astype(np.float32), 24, 60) == approx(expected, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_compiled_kernel_and_numpy_agree_to_the_bit(channels, monkeypatch):
    if polar_kernels.compiled() is None:
        pytest.skip("numba is not installed: uv pip install -e .[fast]")
    image = noise(150, channels)
    compiled = polar_tile(image, 20, 48)
    monkeypatch.setattr(polar_kernels, "compiled", lambda: None)
    assert np.array_equal(polar_tile(image, 20, 48), compiled)


def test_weights_of_bytes_sum_to_one():
    for size_px in (2, 33, 1200):
        weights = PolarTable.of(16, 40, size_px).weights
        assert set(weights.sum(axis=1).tolist()) == {1 << polar.WEIGHT_BITS}
    white = np.full((1200, 1200, 3), 255, np.uint8)
    assert (polar_tile(white, 16, 40) == 255).all()


def test_bytes_are_rescaled_as_old_scipy_wrote_images():
    # the example of its own documentation
    image = np.array(
        [
            [91.06794177, 3.39058326, 84.4221549],
            [73.88003259, 80.91433048, 4.88878881],
            [51.53875334, 34.45808177, 27.5873488],
        ]
    )
    expected = [[255, 0, 236], [205, 225, 4], [140, 90, 70]]
    assert byte_rescaled(image).tolist() == expected
    assert byte_rescaled(noise(4)).tolist() == noise(4).tolist()
    assert (byte_rescaled(np.full((2, 2), 7.0)) == 0).all()
    with pytest.raises(ValueError, match="finite"):
        byte_rescaled(np.array([0.0, np.nan]))


@pytest.mark.parametrize(("convention", "center"), [("crossview", 60.0), ("safa", 60.5)])
def test_a_tile_comes_back_inside_the_rim_and_says_where(convention, center):
    image = smooth(121)
    options = {"heading_deg": 77, "convention": convention}
    again, valid = square_tile(polar_tile(image, 200, 900, **options), 121, **options)
    away_px = np.hypot(*(np.indices((121, 121)) - center))
    assert valid[away_px < 60.2].all()
    assert not valid[away_px > 60.51].any()
    assert np.abs(again - image)[valid].max() < 2.0
    assert (again[~valid] == 0).all()


def test_what_is_no_tile_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="Crop it around"):
        polar_tile(np.zeros((4, 5, 3)), 8, 16)
    with pytest.raises(ValueError, match="of 4 px, got"):
        PolarTable.of(8, 16, 4)(np.zeros((5, 5, 3)))
    with pytest.raises(ValueError, match="'SAFA'"):
        polar_grid(8, 16, 100, convention="SAFA")
    with pytest.raises(ValueError, match="'byte'"):
        polar_tile(noise(4), 8, 16, rescale="byte")
    with pytest.raises(ValueError, match="0 x 16 of 100"):
        polar_grid(0, 16, 100)
    with pytest.raises(ValueError, match="finite"):
        polar_grid(8, 16, 100, heading_deg=math.nan)
