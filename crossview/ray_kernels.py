"""Walking along rays, compiled for those who have the extra `fast` (numba)."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import numpy as np

OPEN, BUILDING, OF_UNKNOWN_HEIGHT, UNCOVERED = range(4)
"""What a map's cell is to a ray."""

Kernel = Callable[..., None]


@functools.cache
def compiled() -> Kernel | None:
    """A kernel that walks from all cells of a grid along one direction; None without numba.

    Args of the kernel:
        seen: The map cut into phases (see there), uint8, OPEN and so on.
        above_m: The same of float32, height of buildings above the camera, -inf without one.
        distances_m, inverse: (steps,) float32, far to near, and 1 / m.
        rows, cols: (steps,) int64, the map's cell that the first grid cell looks at in each step.
        range_m, slope, is_missing: (rows, cols) of the grid, float32, float32 and bool, holding
            inf, -inf and False. It writes range and slope of the skyline, and where the height of
            the first wall is not known.
    """
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    @numba.njit(cache=True, nogil=True)
    def walk(
        seen: np.ndarray,
        above_m: np.ndarray,
        distances_m: np.ndarray,
        inverse: np.ndarray,
        rows: np.ndarray,
        cols: np.ndarray,
        range_m: np.ndarray,
        slope: np.ndarray,
        is_missing: np.ndarray,
    ) -> None:
        division = len(seen)
        first = np.empty(range_m.shape[1], np.int64)
        for row in range(range_m.shape[0]):
            first[:] = -1
            skyline = slope[row]
            for i in range(len(rows)):
                at, place = rows[i] + row * division, cols[i]
                phase, at = at % division, at // division
                things = seen[phase, place % division, at, place // division :]
                heights = above_m[phase, place % division, at, place // division :]
                share = inverse[i]
                for col in range(len(first)):  # without branches, so that it becomes vectors
                    rise = heights[col] * share
                    skyline[col] = rise if rise > skyline[col] else skyline[col]
                    first[col] = i if things[col] != OPEN else first[col]
            for col in range(len(first)):
                i = first[col]
                if i >= 0:
                    at, place = rows[i] + row * division, cols[i] + col * division
                    thing = seen[at % division, place % division, at // division, place // division]
                    range_m[row, col] = np.nan if thing == UNCOVERED else distances_m[i]
                    is_missing[row, col] = thing == OF_UNKNOWN_HEIGHT

    return walk


def walk_without_compiler(
    seen: np.ndarray,
    above_m: np.ndarray,
    distances_m: np.ndarray,
    inverse: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    range_m: np.ndarray,
    slope: np.ndarray,
    is_missing: np.ndarray,
) -> None:
    """What compiled() does, in NumPy."""
    uncovered, unknown = seen == UNCOVERED, seen == OF_UNKNOWN_HEIGHT
    wall = (seen != OPEN) & ~uncovered
    ends, is_all_known = bool(uncovered.any()), not unknown.any()
    rise = np.empty_like(slope)
    for i in range(len(rows)):
        place = int(rows[i]), int(cols[i]), slope.shape
        np.multiply(every(above_m, *place), inverse[i], out=rise)
        np.maximum(slope, rise, out=slope)
        is_wall = every(wall, *place)
        if ends:
            np.copyto(range_m, np.float32(np.nan), where=every(uncovered, *place))
        np.copyto(range_m, distances_m[i], where=is_wall)
        if not is_all_known:
            np.copyto(is_missing, every(unknown, *place), where=is_wall)


def phases(image: np.ndarray, division: int, beyond: float) -> np.ndarray:
    """A map cut into one image per place of its cells within a grid's cell, so shifts are slices.

    Args:
        image: (map rows, map cols).
        division: Map cells along a side of a grid cell.
        beyond: What is added where the division does not divide the map.

    Returns:
        (division, division, rows, cols) of the image's type, by row and column within a grid cell.
    """
    spare = [(0, -side % division) for side in image.shape]
    padded = np.pad(image, spare, constant_values=beyond)
    rows, cols = (side // division for side in padded.shape)
    parts = padded.reshape(rows, division, cols, division)
    return np.ascontiguousarray(parts.transpose(1, 3, 0, 2))


def every(images: np.ndarray, row: int, col: int, shape: tuple[int, int]) -> np.ndarray:
    """What all cells of a grid see at the same step, of this shape: a view of phases."""
    division = len(images)
    (down, row_phase), (right, col_phase) = divmod(row, division), divmod(col, division)
    return images[row_phase, col_phase, down : down + shape[0], right : right + shape[1]]
