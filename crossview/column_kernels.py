"""Sums over columns, compiled for those who have the extra `fast` (numba), and over neighbours."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@functools.cache
def compiled() -> Kernel | None:
    """A kernel from (log ratios, codes, columns, turns) to sums; None where numba is missing.

    Args of the kernel:
        log ratios: (azimuths, codes) float32.
        codes: (cells, azimuths) uint16.
        columns: Those of the query to sum over, int64.
        turns: Azimuths of the headings to try, int64.

    It returns (cells, headings) float32.
    """
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    # numba's own threads may not be started from several Python threads, so callers split the work
    @numba.njit(cache=True, nogil=True)
    def sums(
        log_ratio: np.ndarray, codes: np.ndarray, columns: np.ndarray, turns: np.ndarray
    ) -> np.ndarray:
        num_cells, num_azimuths = codes.shape
        place = np.full(log_ratio.shape[1], -1, np.int32)
        seen = np.empty(log_ratio.shape[1], np.int32)
        num_seen = 0
        for cell in range(num_cells):
            for azimuth in range(num_azimuths):
                code = codes[cell, azimuth]
                if place[code] < 0:
                    place[code], seen[num_seen] = num_seen, code
                    num_seen += 1
        # a row per code, so that what one azimuth adds to all turns lies side by side
        by_turn = np.zeros((num_seen, 2 * num_azimuths), np.float32)
        for column in columns:
            # turned by t, a query's column k looks at azimuth t + k
            turn = (num_azimuths - column) % num_azimuths
            for i in range(num_seen):
                by_turn[i, turn] = log_ratio[column, seen[i]]
        for i in range(num_seen):
            by_turn[i, num_azimuths:] = by_turn[i, :num_azimuths]
        total = np.empty((num_cells, len(turns)), np.float32)
        around = np.empty(num_azimuths, np.float32)
        for cell in range(num_cells):
            around[:] = 0.0
            for azimuth in range(num_azimuths):
                first = num_azimuths - azimuth
                row = by_turn[place[codes[cell, azimuth]], first : first + num_azimuths]
                for turn in range(num_azimuths):
                    around[turn] += row[turn]
            for k in range(len(turns)):
                total[cell, k] = around[turns[k]]
        return total

    return sums


def convolved(values: np.ndarray, taps: np.ndarray, *, axis: int) -> np.ndarray:
    """Weighted sums of neighbours along an axis, where all of them are there.

    No product of matrices: BLAS has threads of its own, which waste those that call it.

    Args:
        values: Any shape; the axis is shorter by len(taps) - 1 in the answer.
        taps: Weights of a symmetric kernel.
        axis: Along which neighbours are.
    """
    along = values.swapaxes(0, axis)
    size = len(along) - len(taps) + 1
    total = taps.item(0) * along[:size]
    for i in range(1, len(taps)):
        total += taps.item(i) * along[i : i + size]
    return total.swapaxes(0, axis)
