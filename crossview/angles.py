"""Headings: degrees clockwise, [0, 360), and bins of them centred on k * 360 / K."""

import numpy as np
import numpy.typing as npt

FULL_TURN_DEG = 360.0

_CANCELLED = 1e-12


def normalize_deg(heading_deg: npt.ArrayLike) -> np.ndarray:
    """The same direction in [0, 360)."""
    turned = np.mod(np.asarray(heading_deg, dtype=float), FULL_TURN_DEG)
    # A tiny negative angle is rounded up to a full turn by mod.
    return np.where(turned >= FULL_TURN_DEG, 0.0, turned)


def difference_deg(a_deg: npt.ArrayLike, b_deg: npt.ArrayLike) -> np.ndarray:
    """The signed turn from b to a, in (-180, 180]; positive is clockwise."""
    turn = normalize_deg(np.asarray(a_deg, dtype=float) - np.asarray(b_deg, dtype=float))
    return np.where(turn > FULL_TURN_DEG / 2, turn - FULL_TURN_DEG, turn)


def from_math_rad(angle_rad: npt.ArrayLike) -> np.ndarray:
    """Heading of a mathematical angle (radians, counter-clockwise from east)."""
    return normalize_deg(90.0 - np.rad2deg(angle_rad))


def to_math_rad(heading_deg: npt.ArrayLike) -> np.ndarray:
    """Inverse of from_math_rad, in (-pi, pi]."""
    return np.deg2rad(difference_deg(90.0, heading_deg))


def forward(heading_deg: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The unit step along a heading, (east, north) = (sin h, cos h)."""
    heading_rad = np.deg2rad(heading_deg)
    return np.sin(heading_rad), np.cos(heading_rad)


def heading_of(east: npt.ArrayLike, north: npt.ArrayLike) -> np.ndarray:
    """Inverse of forward for any step length; a zero step has heading 0."""
    # azimuth is clockwise from north, so the arguments of atan2 are swapped
    return normalize_deg(np.rad2deg(np.arctan2(east, north)))


def circular_mean_deg(
    heading_deg: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> np.ndarray:
    """The weighted mean direction; 0 where the directions cancel exactly."""
    east, north = forward(heading_deg)
    weight = np.ones_like(east) if weights is None else np.asarray(weights, dtype=float)
    mean_east, mean_north = (weight * east).sum(), (weight * north).sum()
    # sin(pi) is 1e-16 in floats: opposite directions must not leave one
    cancelled = np.hypot(mean_east, mean_north) <= _CANCELLED * np.abs(weight).sum()
    return np.where(cancelled, 0.0, heading_of(mean_east, mean_north))


def bin_headings_deg(num_headings: int) -> np.ndarray:
    """Headings of the bins' centres, (headings,); bin 0 is north."""
    return np.arange(num_headings) * (FULL_TURN_DEG / num_headings)


def bin_of(heading_deg: npt.ArrayLike, num_headings: int) -> np.ndarray:
    """Index of the bin that holds a heading: bins are centred, so bin 0 straddles north."""
    position = normalize_deg(heading_deg) * (num_headings / FULL_TURN_DEG)
    return np.floor(position + 0.5).astype(np.int64) % num_headings


def bin_overlap(num_from: int, num_to: int) -> np.ndarray:
    """Share of each bin of one division that falls into each bin of another.

    Both divisions have centred bins, which straddle each other's edges whenever the numbers
    differ: 64 bins do not nest in 16.

    Returns:
        (num_to, num_from); every column sums to one.
    """
    # positions in units of 1 / (2 num_from num_to) of a turn, where all edges are whole numbers
    half_from, half_to = num_to, num_from
    turn = 2 * num_from * num_to
    start_from = (2 * np.arange(num_from) - 1) * half_from
    start_to = (2 * np.arange(num_to) - 1) * half_to
    overlap = np.zeros((num_to, num_from))
    for whole_turn in (-turn, 0, turn):
        low = np.maximum(start_to[:, None], start_from[None, :] + whole_turn)
        high = np.minimum(
            start_to[:, None] + 2 * half_to, start_from[None, :] + whole_turn + 2 * half_from
        )
        overlap += np.maximum(high - low, 0)
    return overlap / (2 * half_from)


def resample_bins(mass: npt.ArrayLike, num_to: int, *, axis: int = -1) -> np.ndarray:
    """Mass of centred heading bins, spread over another number of centred bins.

    Mass is uniform inside a bin and conserved. This is the one place where numbers of
    headings change.

    Args:
        mass: Any array with the heading bins on `axis`.
        num_to: Number of bins wanted.
        axis: Axis of the bins.

    Returns:
        The array with `num_to` bins on that axis, float64.
    """
    mass = np.asarray(mass, dtype=float)
    if mass.shape[axis] == num_to:
        return mass.copy()
    weights = bin_overlap(mass.shape[axis], num_to)
    return np.moveaxis(np.tensordot(weights, np.moveaxis(mass, axis, 0), axes=1), 0, axis)
