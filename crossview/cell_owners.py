"""Which squares on the ground own the cells of a grid, and mean likelihoods of what they own."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview.grids import MapGrid

_PARTS_AT_ONCE = 1 << 17
"""Parts of cells that are looked at together: what coarse grids need in memory beside an answer."""


@dataclass(frozen=True, eq=False)
class CellShares:
    """Which tiles own the cells of a grid, and how much of each.

    Args:
        tiles: (entries,) int32, -1 for none; those of the first cell, then those of the second.
        num_parts: (entries,) int32, how many of a cell's parts are a tile's.
        starts: (cells + 1,) int64, where the entries of each cell begin.
        parts: Of a cell. Where it is 1, the two before are empty: each cell has one entry.
    """

    tiles: np.ndarray
    num_parts: np.ndarray
    starts: np.ndarray
    parts: int

    @classmethod
    def of(
        cls, positions_m: np.ndarray, footprint_m: float, cells: MapGrid, *, side: int
    ) -> CellShares:
        """As owners, of cells that are looked at in side x side parts, some rows at a time."""
        height, width = cells.shape
        if side == 1:
            owner = _owners_between(positions_m, footprint_m, cells, 0, height)
            return cls(owner.ravel(), np.empty(0, np.int32), np.empty(0, np.int64), 1)
        fine, band = cells.divided(side), max(_PARTS_AT_ONCE // (width * side**2), 1)
        entries = []
        for top in range(0, height, band):
            bottom = min(top + band, height)
            owner = _owners_between(positions_m, footprint_m, fine, top * side, bottom * side)
            by_cell = owner.reshape(-1, side, width, side).swapaxes(1, 2).reshape(-1, side**2)
            entries.append(_runs(np.sort(by_cell, axis=1)))
        tiles, num_parts, num_tiles = (np.concatenate(each) for each in zip(*entries, strict=True))
        return cls(tiles, num_parts, np.r_[0, num_tiles.cumsum()], side**2)

    def log_mean_exp(self, values: np.ndarray) -> np.ndarray:
        """Of the parts of every cell, natural log of the mean of exponentials.

        Args:
            values: Of tiles, (n + 1, headings) float32; the last row is that of no tile.

        Returns:
            (cells, headings) float32.
        """
        if self.parts == 1:
            return values[self.tiles]
        mixed = np.empty((len(self.starts) - 1, values.shape[1]), np.float32)
        at_once = max(_PARTS_AT_ONCE // values.shape[1], 1)
        marks = np.arange(0, self.starts[-1], at_once)
        edges = np.unique(np.searchsorted(self.starts, marks, side="right") - 1).tolist()
        for top, bottom in itertools.pairwise((*edges, len(mixed))):
            starts = self.starts[top : bottom + 1]
            entries = slice(starts[0], starts[-1])
            scores = values[self.tiles[entries]].astype(np.float64)
            peak = np.maximum.reduceat(scores, starts[:-1] - starts[0])
            scores -= np.repeat(peak, np.diff(starts), axis=0)
            weights = np.exp(scores, out=scores) * self.num_parts[entries, None]
            total = np.add.reduceat(weights, starts[:-1] - starts[0])
            mixed[top:bottom] = np.log(total / self.parts) + peak
        return mixed


def owners(positions_m: np.ndarray, footprint_m: float, cells: MapGrid) -> np.ndarray:
    """Which tile each cell belongs to: the nearest one that holds its centre.

    Args:
        positions_m: (tiles, 2), x and y of the middles of the tiles.
        footprint_m: Side of a tile, square and north-up.
        cells: The grid.

    Returns:
        (rows, cols) int32, index of the tile; -1 where there is none.
    """
    owner = _owners_between(positions_m, footprint_m, cells, 0, cells.height)
    owner.flags.writeable = False
    return owner


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of sorted rows: each once, how often it is there, and how many a row has."""
    is_first = np.ones(ordered.shape, bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.flatnonzero(is_first)
    counts = np.diff(first, append=ordered.size).astype(np.int32)
    return ordered.ravel()[first], counts, is_first.sum(axis=1)


def _owners_between(
    positions_m: np.ndarray, footprint_m: float, cells: MapGrid, first: int, end: int
) -> np.ndarray:
    """As owners, of the rows of a grid from first and before end."""
    owner = np.full((end - first, cells.width), -1, np.int32)
    nearest = np.full(owner.shape, np.inf, np.float32)
    half = footprint_m / 2 / cells.cell_m
    cols, rows = cells.to_pixel(*positions_m.T)
    reaching = np.flatnonzero((rows + half > first) & (rows - half < end))
    for i, col, row in zip(
        reaching.tolist(), cols[reaching].tolist(), rows[reaching].tolist(), strict=True
    ):
        top, bottom = _centres_within(row - half, row + half, first, end)
        left, right = _centres_within(col - half, col + half, 0, cells.width)
        if top >= bottom or left >= right:
            continue
        # by the larger of the two offsets: the nearest square that holds a cell, if any does
        distance = np.maximum(
            np.abs(np.arange(top, bottom) + 0.5 - row)[:, None],
            np.abs(np.arange(left, right) + 0.5 - col)[None, :],
        ).astype(np.float32)
        part = np.s_[top - first : bottom - first, left:right]
        closer = distance < nearest[part]
        owner[part][closer] = i
        nearest[part][closer] = distance[closer]
    return owner


def _centres_within(low: float, high: float, first: int, end: int) -> tuple[int, int]:
    """The first and past-the-last cell whose centres lie between two positions.

    Of the cells from `first` and before `end`.
    """
    return max(math.ceil(low - 0.5), first), min(math.floor(high - 0.5) + 1, end)


def log_mean_exp(values: np.ndarray, axis: Any = None) -> Any:
    """Natural log of the mean of exponentials along an axis or over all."""
    peak = values.max(axis=axis, keepdims=True)
    mean = np.exp(values - peak).mean(axis=axis)
    return np.log(mean) + np.squeeze(peak, axis=axis)
