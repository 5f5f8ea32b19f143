"""Polar tiles of bytes from a table of taps, compiled for those who have the extra `fast`."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, np.ndarray], None]


@functools.cache
def compiled() -> Kernel | None:
    """A kernel that fills a polar tile (see PolarTable); None where numba is missing.

    Args of the kernel:
        image: (size * size * channels,) uint8.
        address: (taps,) int32.
        weights: (taps, 4) uint16 that sum to 2^15.
        place: (taps,) int32.
        size_px: Side of the tile.
        out: (pixels, channels) uint8, written.
    """
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    @numba.njit(cache=True, nogil=True)
    def fill(
        image: np.ndarray,
        address: np.ndarray,
        weights: np.ndarray,
        place: np.ndarray,
        size_px: int,
        out: np.ndarray,
    ) -> None:
        channels = out.shape[1]
        below = size_px * channels
        half = np.uint32(1 << 14)
        for tap in range(len(address)):
            at, to = address[tap] * channels, place[tap]
            here, right = np.uint32(weights[tap, 0]), np.uint32(weights[tap, 1])
            down, across = np.uint32(weights[tap, 2]), np.uint32(weights[tap, 3])
            for channel in range(channels):
                one = at + channel
                two = one + below
                total = half + here * image[one] + right * image[one + channels]
                total += down * image[two] + across * image[two + channels]
                out[to, channel] = total >> np.uint32(15)

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
    pixels = image.reshape(-1, out.shape[1])
    total = np.full((len(address), out.shape[1]), 1 << 14, np.uint32)
    for weight, step in zip(weights.T, (0, 1, size_px, size_px + 1), strict=True):
        total += pixels[address + step] * weight.astype(np.uint32)[:, None]
    out[place] = total >> 15
