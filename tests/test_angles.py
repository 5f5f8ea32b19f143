import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import angles

any_deg = st.floats(-1e4, 1e4, allow_nan=False)
bin_counts = st.sampled_from([1, 4, 8, 12, 16, 36, 64, 100])


def test_a_heading_is_reported_in_0_to_360():
    assert angles.normalize_deg([-90, 0, 360, 725]) == approx([270, 0, 0, 5])


def test_a_tiny_negative_heading_is_0_and_not_360():
    assert angles.normalize_deg(-1e-20) == 0.0


@given(any_deg)
def test_a_normalized_heading_is_the_same_direction_within_one_turn(heading_deg):
    normal = float(angles.normalize_deg(heading_deg))
    assert 0 <= normal < 360
    turns = (heading_deg - normal) / 360
    assert turns == approx(round(turns), abs=1e-9)


def test_the_turn_from_350_to_10_is_20_clockwise():
    assert angles.difference_deg(10, 350) == approx(20)
    assert angles.difference_deg(350, 10) == approx(-20)


def test_a_half_turn_is_plus_180_whichever_way():
    assert angles.difference_deg([0, 180], [180, 0]) == approx([180, 180])


@given(any_deg, any_deg)
def test_a_turn_added_to_its_start_gives_its_end(a_deg, b_deg):
    turn = float(angles.difference_deg(a_deg, b_deg))
    assert -180 < turn <= 180
    gap = float(angles.normalize_deg(b_deg + turn - a_deg))
    assert min(gap, 360 - gap) == approx(0, abs=1e-8)


def test_heading_counts_clockwise_from_north():
    east, north = angles.forward([0, 90, 180, 270])
    assert east == approx([0, 1, 0, -1], abs=1e-12)
    assert north == approx([1, 0, -1, 0], abs=1e-12)


@given(st.floats(0, 359.999), st.floats(0.01, 1e5))
def test_heading_of_a_step_inverts_forward_for_any_length(heading_deg, length):
    east, north = angles.forward(heading_deg)
    turn = angles.difference_deg(angles.heading_of(length * east, length * north), heading_deg)
    assert turn == approx(0, abs=1e-9)


def test_a_mathematical_angle_is_counter_clockwise_from_east():
    assert angles.from_math_rad([0, math.pi / 2, math.pi, -math.pi / 2]) == approx(
        [90, 0, 270, 180]
    )


@given(st.floats(-math.pi + 1e-9, math.pi))
def test_mathematical_angles_make_the_round_trip(angle_rad):
    assert angles.to_math_rad(angles.from_math_rad(angle_rad)) == approx(angle_rad, abs=1e-9)


def test_the_mean_of_350_and_20_is_5():
    assert angles.circular_mean_deg([350, 20]) == approx(5)


def test_the_mean_heading_follows_its_weights():
    # atan2(3 sin 90, 1 cos 0) = 71.565 deg
    assert angles.circular_mean_deg([0, 90], [1, 3]) == approx(math.degrees(math.atan2(3, 1)))


@pytest.mark.parametrize("opposite", [[0, 180], [90, 270], [0, 90, 180, 270]])
def test_the_mean_of_directions_that_cancel_is_0(opposite):
    assert angles.circular_mean_deg(opposite) == 0.0


def test_eight_bins_are_45_degrees_apart_from_north():
    assert angles.bin_headings_deg(8) == approx([0, 45, 90, 135, 180, 225, 270, 315])


def test_bins_are_centred_so_that_bin_0_straddles_north():
    # 4 bins of 90 degrees: bin 0 is [315, 45)
    headings_deg = [315.1, 0, 44.9, 45.1, 134.9, 135.1, 314.9]
    assert angles.bin_of(headings_deg, 4).tolist() == [0, 0, 0, 1, 1, 2, 3]


@given(bin_counts, st.floats(-0.499, 0.499))
def test_every_heading_within_half_a_bin_of_a_centre_is_in_its_bin(num_headings, offset):
    headings_deg = angles.bin_headings_deg(num_headings) + offset * 360 / num_headings
    assert angles.bin_of(headings_deg, num_headings).tolist() == list(range(num_headings))


def overlap_by_sampling(num_from, num_to, samples=20000):
    """Where the mass of each source bin goes, by looking at many headings of every bin."""
    within = (np.arange(samples) + 0.5) / samples - 0.5
    shares = np.zeros((num_to, num_from))
    for k in range(num_from):
        heading_deg = np.mod((k + within) * 360 / num_from, 360)
        target = np.mod(np.round(heading_deg * num_to / 360), num_to).astype(int)
        shares[:, k] = np.bincount(target, minlength=num_to) / samples
    return shares


@pytest.mark.parametrize("num_from, num_to", [(64, 16), (16, 64), (12, 8), (8, 12), (4, 1), (1, 4)])
def test_bin_overlap_agrees_with_where_headings_really_fall(num_from, num_to):
    assert angles.bin_overlap(num_from, num_to) == approx(
        overlap_by_sampling(num_from, num_to), abs=2e-4
    )


def test_one_of_8_centred_bins_straddles_the_edge_of_two_of_4():
    # bin 1 of 8 covers 22.5..67.5; the edge of 4 bins is at 45: half and half
    assert angles.resample_bins([0, 1, 0, 0, 0, 0, 0, 0], 4) == approx([0.5, 0.5, 0, 0])


def test_the_north_bin_of_4_splits_into_one_whole_and_two_half_bins_of_8():
    assert angles.resample_bins([1, 0, 0, 0], 8) == approx([0.5, 0.25, 0, 0, 0, 0, 0, 0.25])


@given(bin_counts, bin_counts, st.integers(0, 2**31))
def test_resampling_bins_conserves_mass_and_stays_positive(num_from, num_to, seed):
    mass = np.random.default_rng(seed).random((2, 3, num_from))
    resampled = angles.resample_bins(mass, num_to)
    assert resampled.shape == (2, 3, num_to)
    assert resampled.sum(axis=2) == approx(mass.sum(axis=2), rel=1e-12)
    assert resampled.min() >= 0


def test_resampling_to_the_same_number_changes_nothing_and_copies():
    mass = np.array([0.1, 0.2, 0.3, 0.4])
    resampled = angles.resample_bins(mass, 4)
    resampled[0] = 9
    assert mass.tolist() == [0.1, 0.2, 0.3, 0.4]


def test_resampling_works_on_any_axis():
    mass = np.random.default_rng(0).random((8, 5))
    along_first = angles.resample_bins(mass, 4, axis=0)
    assert along_first == approx(angles.resample_bins(mass.T, 4).T)
