"""Cells against other cells: how much of each lies in which, and where the heaviest squares are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import sparse

from crossview.grids import MapGrid


class Square(NamedTuple):
    """Edges in cells."""

    top: int
    bottom: int
    left: int
    right: int


def overlap_shares(offset: float, size: float, num_from: int, num_to: int) -> sparse.csr_array:
    """Share of each cell of one row of cells that falls into each cell of another.

    Args:
        offset: Where the first row's first cell starts, in cells of the second.
        size: Side of the first row's cells, in cells of the second.
        num_from: Cells of the first.
        num_to: Cells of the second.

    Returns:
        (num_to, num_from), columns sum to one for cells that lie inside.
    """
    start = np.round(offset + size * np.arange(num_from), 9)
    end = np.round(start + size, 9)
    index = np.floor(start)[:, None] + np.arange(math.ceil(size) + 1)
    length = np.minimum(end[:, None], index + 1) - np.maximum(start[:, None], index)
    valid = (length > 0) & (index >= 0) & (index < num_to)
    source = np.broadcast_to(np.arange(num_from)[:, None], index.shape)
    return sparse.csr_array(
        (length[valid] / size, (index[valid].astype(np.int64), source[valid])),
        shape=(num_to, num_from),
    )


def touched(overlap: sparse.csr_array) -> slice:
    """The source cells that have any share."""
    columns = np.unique(overlap.indices)
    return slice(int(columns[0]), int(columns[-1]) + 1) if columns.size else slice(0, 0)


def along_rows(weights: sparse.csr_array, mass: np.ndarray) -> np.ndarray:
    """Shares of overlap_shares applied to the first axis of an array."""
    flat = weights @ mass.reshape(mass.shape[0], -1)
    return flat.reshape(weights.shape[0], *mass.shape[1:])


def share_inside(cells: MapGrid, window: MapGrid) -> np.ndarray:
    """How much of every cell lies inside a window, (rows, cols) in [0, 1]."""
    inside = window.bounds
    bounds = cells.bounds
    edges_x = bounds.west_m + cells.cell_m * np.arange(cells.width + 1)
    edges_y = bounds.north_m - cells.cell_m * np.arange(cells.height + 1)
    clipped_x = np.clip(edges_x, inside.west_m, inside.east_m)
    clipped_y = np.clip(edges_y, inside.south_m, inside.north_m)
    return np.outer(-np.diff(clipped_y), np.diff(clipped_x)) / cells.cell_m**2


def heaviest_squares(mass: np.ndarray, *, side: int, count: int) -> list[Square]:
    """Disjoint squares of side x side cells that hold the most, heaviest first."""
    height, width = min(side, mass.shape[0]), min(side, mass.shape[1])
    held = _box_sums(mass, 0, height, 0, width)
    # a peak held by many squares is best looked at from the middle of one
    middle = _box_sums(mass, height // 4, height - height // 4, width // 4, width - width // 4)
    # rounding noise must not decide between squares that hold the same
    preference = np.round(held + 0.01 * middle[: held.shape[0], : held.shape[1]], 9)
    squares: list[Square] = []
    while len(squares) < count:
        row, col = (int(i) for i in np.unravel_index(np.argmax(preference), preference.shape))
        if not preference[row, col] > 0:
            break
        squares.append(Square(row, row + height, col, col + width))
        preference[
            max(row - height + 1, 0) : row + height, max(col - width + 1, 0) : col + width
        ] = -1.0
    return squares


def on_lattice(cells: MapGrid, cell_m: float, square: Square) -> MapGrid:
    """The grid of the frame's lattice nearest to a square of cells: neighbours share edges."""
    west_m, north_m = cells.to_xy(square.left, square.top)
    east_m, south_m = cells.to_xy(square.right, square.bottom)
    west, east = round(float(west_m) / cell_m), round(float(east_m) / cell_m)
    south, north = round(float(south_m) / cell_m), round(float(north_m) / cell_m)
    return MapGrid(
        cells.frame,
        west * cell_m,
        north * cell_m,
        cell_m,
        max(north - south, 1),
        max(east - west, 1),
    )


def _box_sums(values: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Sum over rows top..bottom and columns left..right counted from every cell that allows it."""
    cumulative = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    cumulative[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    rows, cols = cumulative.shape[0] - bottom, cumulative.shape[1] - right
    return (
        cumulative[bottom : bottom + rows, right : right + cols]
        - cumulative[top : top + rows, right : right + cols]
        - cumulative[bottom : bottom + rows, left : left + cols]
        + cumulative[top : top + rows, left : left + cols]
    )
