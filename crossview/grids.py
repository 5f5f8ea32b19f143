"""Rasters on the ground: north-up grids of square cells, and grids of poses on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from crossview import angles
from crossview.errors import (
    FrameMismatchError,
    GridMismatchError,
    OutOfRegionError,
    VolumeTooLargeError,
)
from crossview.frames import LocalFrame, Pose

if TYPE_CHECKING:
    from affine import Affine

MAX_VOLUME_BYTES = 1_000_000_000
"""Largest pose volume in float32 that is made without being asked for."""

_LATTICE_SLACK = 1e-6
"""Share of a cell below which a border counts as lying on the lattice."""


class Bounds(NamedTuple):
    """A box in a LocalFrame, metres."""

    west_m: float
    south_m: float
    east_m: float
    north_m: float


@dataclass(frozen=True)
class MapGrid:
    """A north-up raster of square cells in a LocalFrame.

    Row 0 is north, column 0 west. Positions have a corner origin: the first cell covers
    [0, 1) x [0, 1) and its centre is (0.5, 0.5). Integers are indices, floats are positions.

    Args:
        frame: Where the metres are.
        west_m: x of the outer edge of column 0.
        north_m: y of the outer edge of row 0.
        cell_m: Side of a cell.
        height: Number of rows.
        width: Number of columns.
    """

    frame: LocalFrame
    west_m: float
    north_m: float
    cell_m: float
    height: int
    width: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cell_m) and self.cell_m > 0):
            raise ValueError(f"cell_m must be positive, got {self.cell_m}.")
        if not (math.isfinite(self.west_m) and math.isfinite(self.north_m)):
            raise ValueError(f"west_m and north_m must be finite, got {self}.")
        if self.height != int(self.height) or self.width != int(self.width):
            raise ValueError(f"height and width must be whole numbers, got {self}.")
        object.__setattr__(self, "height", int(self.height))
        object.__setattr__(self, "width", int(self.width))
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"A grid needs at least one row and one column, got {self.height} x {self.width}."
            )

    @classmethod
    def around(
        cls, frame: LocalFrame, x_m: float, y_m: float, *, radius_m: float, cell_m: float
    ) -> MapGrid:
        """The smallest grid of the frame's lattice that holds a square of +-radius_m.

        Edges are whole multiples of cell_m from the anchor, so that all grids of one cell size
        made here line up.
        """
        if not (math.isfinite(x_m + y_m + radius_m) and radius_m > 0 and cell_m > 0):
            raise ValueError(
                f"A grid around a place needs a finite place and a positive radius and cell; got "
                f"({x_m}, {y_m}) m, radius_m {radius_m}, cell_m {cell_m}."
            )
        west, east = _lattice_range(x_m - radius_m, x_m + radius_m, cell_m)
        south, north = _lattice_range(y_m - radius_m, y_m + radius_m, cell_m)
        return cls(frame, west * cell_m, north * cell_m, cell_m, north - south, east - west)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.height, self.width

    @property
    def transform(self) -> Affine:
        """(col, row) -> (x_m, y_m) as rasterio wants it."""
        from affine import Affine

        return Affine(self.cell_m, 0.0, self.west_m, 0.0, -self.cell_m, self.north_m)

    @property
    def bounds(self) -> Bounds:
        """The outer edges."""
        return Bounds(
            west_m=self.west_m,
            south_m=self.north_m - self.height * self.cell_m,
            east_m=self.west_m + self.width * self.cell_m,
            north_m=self.north_m,
        )

    def to_pixel(self, x_m: npt.ArrayLike, y_m: npt.ArrayLike) -> tuple[Any, Any]:
        """Position in the raster, (col, row), corner origin."""
        x_m, y_m = np.asarray(x_m, dtype=float), np.asarray(y_m, dtype=float)
        return (x_m - self.west_m) / self.cell_m, (self.north_m - y_m) / self.cell_m

    def to_xy(self, col: npt.ArrayLike, row: npt.ArrayLike) -> tuple[Any, Any]:
        """Inverse of to_pixel."""
        col, row = np.asarray(col, dtype=float), np.asarray(row, dtype=float)
        return self.west_m + col * self.cell_m, self.north_m - row * self.cell_m

    def cell_of(self, x_m: float, y_m: float) -> tuple[int, int]:
        """Index (row, col) of the cell that holds a place.

        Raises:
            OutOfRegionError: The place is outside of the grid.
        """
        col, row = self.to_pixel(x_m, y_m)
        if not (0 <= row < self.height and 0 <= col < self.width):
            raise OutOfRegionError(
                f"({x_m:.2f}, {y_m:.2f}) m is outside of the grid, {self.bounds}."
            )
        return math.floor(row), math.floor(col)

    def centers(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the cells: x_m of the columns, (cols,), and y_m of the rows, (rows,)."""
        return (
            self.west_m + (np.arange(self.width) + 0.5) * self.cell_m,
            self.north_m - (np.arange(self.height) + 0.5) * self.cell_m,
        )

    def padded(self, margin_m: float) -> MapGrid:
        """The grid with at least margin_m more on every side, in whole cells."""
        if margin_m < 0:
            raise ValueError(f"margin_m must be 0 or more, got {margin_m}.")
        cells = math.ceil(margin_m / self.cell_m - _LATTICE_SLACK)
        return MapGrid(
            self.frame,
            self.west_m - cells * self.cell_m,
            self.north_m + cells * self.cell_m,
            self.cell_m,
            self.height + 2 * cells,
            self.width + 2 * cells,
        )

    def divided(self, parts: int) -> MapGrid:
        """The same area in cells of a whole part of the side."""
        if parts < 1 or parts != int(parts):
            raise ValueError(f"parts must be a whole number, at least 1, got {parts}.")
        return MapGrid(
            self.frame,
            self.west_m,
            self.north_m,
            self.cell_m / parts,
            self.height * int(parts),
            self.width * int(parts),
        )

    def shifted(self, *, rows: int, cols: int) -> MapGrid:
        """The grid moved by whole cells, south and east for positive numbers."""
        return MapGrid(
            self.frame,
            self.west_m + cols * self.cell_m,
            self.north_m - rows * self.cell_m,
            self.cell_m,
            self.height,
            self.width,
        )


@dataclass(frozen=True)
class PoseGrid:
    """The poses that are told apart: cells of a map times heading bins.

    Args:
        map: Cells; a pose stands at a cell's centre.
        num_headings: Bins, bin k centred on k * 360 / num_headings. A multiple of 4, or 1 where
            heading is not represented.
    """

    map: MapGrid
    num_headings: int

    def __post_init__(self) -> None:
        if self.num_headings != 1 and (self.num_headings < 4 or self.num_headings % 4):
            raise ValueError(
                f"num_headings must be a multiple of 4, or 1 where heading is not represented; "
                f"got {self.num_headings}."
            )
        object.__setattr__(self, "num_headings", int(self.num_headings))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, headings)."""
        return self.map.height, self.map.width, self.num_headings

    @property
    def headings_deg(self) -> np.ndarray:
        """Centres of the heading bins in the frame, (headings,)."""
        return angles.bin_headings_deg(self.num_headings)

    def pose_at(self, row: int, col: int, k: int) -> Pose:
        """The pose at a cell's centre; without a heading where there is one bin only."""
        height, width, num_headings = self.shape
        if not (0 <= row < height and 0 <= col < width and 0 <= k < num_headings):
            raise OutOfRegionError(f"Index {(row, col, k)} is outside of a volume of {self.shape}.")
        x_m, y_m = self.map.to_xy(col + 0.5, row + 0.5)
        heading_deg = None if num_headings == 1 else float(self.headings_deg[k])
        return Pose(float(x_m), float(y_m), heading_deg)

    def index_of(self, pose: Pose) -> tuple[int, int, int]:
        """Inverse of pose_at: (row, col, k) of the cell and bin that hold a pose.

        Raises:
            OutOfRegionError: The pose is outside of the map.
            ValueError: The grid has headings and the pose has none.
        """
        row, col = self.map.cell_of(pose.x_m, pose.y_m)
        if self.num_headings == 1:
            return row, col, 0
        if pose.heading_deg is None:
            raise ValueError(f"{pose} has no heading, so it has no cell in a grid with headings.")
        return row, col, int(angles.bin_of(pose.heading_deg, self.num_headings))

    def require_memory(self, max_bytes: int = MAX_VOLUME_BYTES) -> None:
        """Refuse a volume that would be larger than max_bytes in float32.

        Raises:
            VolumeTooLargeError: It would; the message names the ways out.
        """
        num_bytes = 4 * math.prod(self.shape)
        if num_bytes > max_bytes:
            raise VolumeTooLargeError(
                f"A pose volume of {self.shape} needs {num_bytes / 1e9:.1f} GB and the limit is "
                f"{max_bytes / 1e9:.1f} GB. Use num_headings=1 (matchers then sum over headings as "
                "they go), larger cells, a smaller window, or, where there is one, more max_bytes."
            )


def require_frame(cells: MapGrid, poses: MapGrid) -> None:
    """Refuse a map and poses of different frames.

    Raises:
        FrameMismatchError: They are anchored at different places.
    """
    if cells.frame != poses.frame:
        raise FrameMismatchError(
            f"The prior is anchored at {poses.frame} and the map at {cells.frame}. "
            "Build both from one LocalFrame."
        )


def place_of(part: MapGrid, whole: MapGrid) -> tuple[int, int]:
    """The (row, col) in a grid of a smaller grid's first cell.

    Raises:
        GridMismatchError: The smaller one is not made of cells of the larger.
    """
    col, row = (float(p) for p in whole.to_pixel(part.west_m, part.north_m))
    same_cells = math.isclose(part.cell_m, whole.cell_m) and part.frame == whole.frame
    whole_cells = abs(row - round(row)) < _LATTICE_SLACK and abs(col - round(col)) < _LATTICE_SLACK
    row, col = round(row), round(col)
    holds = (
        row >= 0
        and col >= 0
        and row + part.height <= whole.height
        and col + part.width <= whole.width
    )
    if not (same_cells and whole_cells and holds):
        raise GridMismatchError(
            f"{part} is asked for, and the map is on {whole}. Cut the map with "
            "maps(grid.map.padded(matcher.reach_m).divided(matcher.map_parts))."
        )
    return row, col


def _lattice_range(low_m: float, high_m: float, cell_m: float) -> tuple[int, int]:
    """Whole cells that cover an interval; rounding noise does not add a cell."""
    return (
        math.floor(low_m / cell_m + _LATTICE_SLACK),
        math.ceil(high_m / cell_m - _LATTICE_SLACK),
    )
