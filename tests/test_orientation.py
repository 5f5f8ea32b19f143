"""Circular correlation against a literal loop, and headings that come back from it."""

import keras
import numpy as np
import pytest

from crossview.nn import orientation


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def literal_correlation(overhead, ground):
    """Column by column, shift by shift."""
    cols, num_cols = overhead.shape[2], ground.shape[2]
    out = np.zeros((len(overhead), len(ground), cols))
    for a, b, k in np.ndindex(out.shape):
        for j in range(num_cols):
            out[a, b, k] += (overhead[a, :, (k + j) % cols] * ground[b, :, j]).sum(dtype=float)
    return out


def lengths(maps):
    return np.sqrt((maps**2).sum(axis=(1, 2, 3), keepdims=True))


@pytest.mark.parametrize("cols", [15, 16])
@pytest.mark.parametrize("num_cols", [1, 7, 15])
def test_a_correlation_is_the_literal_sum(cols, num_cols):
    overhead, ground = drawn((3, 4, cols, 5)), drawn((2, 4, num_cols, 5), 1)
    made = np.asarray(orientation.circular_correlation(overhead, ground))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, literal_correlation(overhead, ground), atol=3e-5)


def test_correlations_of_half_precision_are_computed_in_float32():
    overhead, ground = drawn((2, 2, 16, 3)), drawn((2, 2, 5, 3), 1)
    rounded = [keras.ops.cast(each, "bfloat16") for each in (overhead, ground)]
    exact = [np.asarray(keras.ops.cast(each, "float32")) for each in rounded]
    made = np.asarray(orientation.circular_correlation(*rounded))
    np.testing.assert_allclose(made, literal_correlation(*exact), atol=3e-5)


def test_a_similarity_is_that_of_the_columns_below_at_the_best_shift():
    """Crop at the shift of the largest inner product, and normalise the crop: as published."""
    overhead, ground = drawn((3, 2, 12, 4)), drawn((5, 2, 5, 4), 1)
    ground /= lengths(ground)
    found = orientation.align(overhead, ground)
    correlation = literal_correlation(overhead, ground)
    for a, b in np.ndindex(3, 5):
        k = correlation[a, b].argmax()
        crop = np.take(overhead[a], np.arange(k, k + 5), axis=1, mode="wrap")
        expected = (crop * ground[b]).sum() / np.linalg.norm(crop)
        assert int(found.shift[a, b]) == k
        assert float(found.similarity[a, b]) == pytest.approx(expected, abs=1e-5)


def test_a_part_of_a_map_is_found_where_it_was_cut():
    overhead = drawn((4, 3, 64, 8))
    shifts = [0, 1, 40, 63]
    ground = np.stack([np.roll(overhead[i], -k, axis=1)[:, :16] for i, k in enumerate(shifts)])
    ground /= lengths(ground)
    found = orientation.align(overhead, ground)
    np.testing.assert_array_equal(np.diag(np.asarray(found.shift)), shifts)
    np.testing.assert_allclose(np.diag(np.asarray(found.similarity)), 1.0, atol=1e-5)
    off_diagonal = np.asarray(found.similarity)[~np.eye(4, dtype=bool)]
    assert off_diagonal.max() < 0.6


def test_energy_below_a_ground_map_goes_around():
    overhead = np.zeros((1, 1, 6, 1), np.float32)
    overhead[0, 0, :, 0] = [1, 2, 3, 4, 5, 6]
    made = np.asarray(orientation.covered_energy(overhead, 2))
    np.testing.assert_allclose(made, [[5, 13, 25, 41, 61, 37]])


@pytest.mark.parametrize(
    ("shift", "num_cols", "heading_deg"),
    [
        (0, 64, 0.0),  # a whole turn that fits as it is
        (16, 64, 90.0),
        (24, 16, 0.0),  # a quarter in the middle looks north
        (40, 16, 90.0),
        (56, 16, 180.0),
        (0, 2, 185.625),  # the middle of two columns at the left edge, which is south
    ],
)
def test_a_shift_is_the_heading_of_the_middle_of_the_ground_map(shift, num_cols, heading_deg):
    made = orientation.heading_deg(np.array([shift]), cols=64, num_cols=num_cols)
    assert float(made[0]) == pytest.approx(heading_deg)


@pytest.mark.parametrize(
    ("overhead", "ground"),
    [((1, 2, 8, 3), (1, 2, 9, 3)), ((1, 2, 8, 3), (1, 2, 8, 4)), ((1, 2, 8, 3), (2, 8, 3))],
)
def test_maps_that_do_not_fit_are_refused(overhead, ground):
    with pytest.raises(ValueError, match="at most as wide"):
        orientation.circular_correlation(np.zeros(overhead), np.zeros(ground))
