"""Orientation by circular correlation: how far a ground map is turned against an overhead map.

Both are maps of azimuth columns, of which a ground map may have fewer: a limited field of view. At
shift k the first column of the ground map lies on column k of the overhead map, which goes around.

Reference: Shi et al., "Where am I looking at? Joint Location and Orientation Estimation by
Cross-View Matching" (DSM), CVPR 2020.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from crossview.angles import FULL_TURN_DEG

_LEAST_ENERGY = 1e-12


class Aligned(NamedTuple):
    """How alike maps are at the shift at which they correlate best.

    Attributes:
        similarity: (overhead, ground), -1 to 1: the ground map against the columns of the overhead
            map that lie under it, both of length 1.
        shift: (overhead, ground) int32, columns.
    """

    similarity: Any
    shift: Any


def circular_correlation(overhead: Any, ground: Any) -> Any:
    """Inner products of every overhead with every ground map, at every shift.

    By the Fourier transform of each row and channel, in float32.

    Args:
        overhead: (overhead, rows, cols, channels)
        ground: (ground, rows, narrow, channels), narrow at most cols.

    Returns:
        (overhead, ground, cols) float32; the last axis is the shift.
    """
    cols = _checked_cols(overhead, ground)
    to_re, to_im = _spectrum(overhead, cols)
    of_re, of_im = _spectrum(ground, cols)
    # the conjugate of the ground's spectrum times the overhead's, summed over rows and channels
    of_re, of_im = (ops.transpose(part, (0, 2, 1)) for part in (of_re, of_im))
    re = ops.matmul(to_re, of_re) + ops.matmul(to_im, of_im)
    im = ops.matmul(to_im, of_re) - ops.matmul(to_re, of_im)
    pairs_last = (ops.transpose(part, (1, 2, 0)) for part in (re, im))
    return ops.irfft(tuple(pairs_last), cols)


def align(overhead: Any, ground: Any) -> Aligned:
    """The best shift of every pair, and how alike they are there.

    Args:
        overhead: (overhead, rows, cols, channels)
        ground: (ground, rows, narrow, channels), of length 1 each.
    """
    overhead, ground = ops.cast(overhead, "float32"), ops.cast(ground, "float32")
    correlation = circular_correlation(overhead, ground)
    shift = ops.argmax(correlation, axis=-1)
    here = ops.expand_dims(shift, -1)
    length = ops.sqrt(ops.maximum(covered_energy(overhead, ground.shape[2]), _LEAST_ENERGY))
    best = ops.take_along_axis(correlation, here, axis=-1)
    lengths = ops.take_along_axis(
        ops.broadcast_to(length[:, None], ops.shape(correlation)), here, -1
    )
    return Aligned(ops.squeeze(best / lengths, -1), ops.cast(shift, "int32"))


def covered_energy(overhead: Any, num_cols: int) -> Any:
    """Sum of squares of the columns that lie under a ground map, at every shift.

    Args:
        overhead: (overhead, rows, cols, channels)
        num_cols: Of the ground map.

    Returns:
        (overhead, cols)
    """
    energy = ops.sum(ops.square(overhead), axis=(1, 3))
    cols = energy.shape[1]
    # sums of windows, not differences of running sums: those may turn negative
    column, shift = np.ogrid[:cols, :cols]
    is_covered = (column - shift) % cols < num_cols
    return ops.matmul(energy, ops.cast(is_covered, energy.dtype))


def heading_deg(shift: Any, *, cols: int, num_cols: int) -> Any:
    """Where the middle of a ground map looks, clockwise from the overhead map's middle.

    Args:
        shift: Columns, any shape.
        cols: Of the overhead map.
        num_cols: Of the ground map.

    Returns:
        Degrees in [0, 360), in the shape of shift.
    """
    middle = ops.cast(shift, "float32") + num_cols / 2
    return ops.mod(middle / cols * FULL_TURN_DEG - FULL_TURN_DEG / 2, FULL_TURN_DEG)


def _spectrum(maps: Any, cols: int) -> tuple[Any, Any]:
    """Real and imaginary parts, (frequencies, maps, rows * channels)."""
    count, rows, _, channels = maps.shape
    last = ops.transpose(ops.cast(maps, "float32"), (0, 1, 3, 2))
    parts = ops.rfft(last, cols)
    size = (-1 if count is None else count, rows * channels, cols // 2 + 1)
    return tuple(ops.transpose(ops.reshape(part, size), (2, 0, 1)) for part in parts)


def _checked_cols(overhead: Any, ground: Any) -> int:
    (_, *to), (_, *of) = overhead.shape, ground.shape
    if len(to) != 3 or len(of) != 3 or (to[0], to[2]) != (of[0], of[2]) or of[1] > to[1]:
        raise ValueError(
            f"Maps are (count, rows, cols, channels), the ground map at most as wide; got "
            f"{tuple(overhead.shape)} and {tuple(ground.shape)}."
        )
    return to[1]
