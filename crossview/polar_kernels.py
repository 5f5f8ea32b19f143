"""Polar tiles of bytes from a table of taps, compiled for those who have the extra `fast`."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import numpy as np

WEIGHT_BITS = 15
"""Weights are in units of 2^-15, so that four of them sum to 2^15 and fit 16 bits each."""

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, np.ndarray], None]

_HALF = 1 << (WEIGHT_BITS - 1)


@functools.cache
def compiled(channels: int) -> Kernel | None:
    """A kernel that fills a polar tile of so many channels; None where numba is missing.

    Args of the kernel:
        image: (size * size * channels,) uint8.
        address: (taps,) uint32, the first of four pixels (see polar.PolarTable).
        weights: (taps, 4) uint16 that sum to 2^WEIGHT_BITS.
        place: (taps,) uint32, pixels of the polar tile.
        size_px: Side of the tile.
        out: (pixels, channels) uint8, written.
    """
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    # numbers without a sign are never counted from the end, and channels are a constant here: the
    # inner loop is then straight code
    apart = np.uint64(channels)
    half, bits = np.uint32(_HALF), np.uint32(WEIGHT_BITS)

    @numba.njit(cache=True, nogil=True)
    def fill(
        image: np.ndarray,
        address: np.ndarray,
        weights: np.ndarray,
        place: np.ndarray,
        size_px: int,
        out: np.ndarray,
    ) -> None:
        row = np.uint64(size_px) * apart
        for tap in range(len(address)):
            first, to = np.uint64(address[tap]) * apart, np.uint64(place[tap])
            here, right = np.uint32(weights[tap, 0]), np.uint32(weights[tap, 1])
            down, across = np.uint32(weights[tap, 2]), np.uint32(weights[tap, 3])
            for channel in range(apart):
                one = first + channel
                two = one + row
                total = half + here * image[one] + right * image[one + apart]
                total += down * image[two] + across * image[two + apart]
                out[to, channel] = total >> bits

    return fill


def fill_without_compiler(
    image: np.ndarray,
    address: np.ndarray,
    weights: np.ndarray,
    place: np.ndarray,
    size_px: int,
    out: np.ndarray,
) -> None:
    """What compiled() does, in NumPy: the same to the bit."""
    channels = out.shape[1]
    # single bytes: NumPy takes them far quicker than rows of three
    at = (address.astype(np.intp)[:, None] * channels + np.arange(channels)).ravel()
    total = np.full(at.shape, _HALF, np.uint32)
    for weight, step in zip(weights.T, (0, 1, size_px, size_px + 1), strict=True):
        total += image[step * channels :].take(at) * np.repeat(weight.astype(np.uint32), channels)
    out[place] = (total >> WEIGHT_BITS).reshape(-1, channels)
