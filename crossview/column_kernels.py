"""Summing over columns, compiled, for those who have the extra `fast` (numba)."""

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
    @numba.njit(fastmath=True, cache=True, nogil=True)
    def sums(
        log_ratio: np.ndarray, codes: np.ndarray, columns: np.ndarray, turns: np.ndarray
    ) -> np.ndarray:
        num_cells, num_azimuths = codes.shape
        total = np.zeros((num_cells, len(turns)), np.float32)
        around = np.empty(2 * num_azimuths, np.int32)
        for cell in range(num_cells):
            around[:num_azimuths] = codes[cell]
            around[num_azimuths:] = codes[cell]
            own = total[cell]
            for column in columns:
                row = log_ratio[column]
                for k in range(len(turns)):
                    own[k] += row[around[column + turns[k]]]
        return total

    return sums
