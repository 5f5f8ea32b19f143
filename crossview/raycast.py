"""Looking around in a map: the first wall and the skyline in every direction from every cell.

A panorama's column sees the ground up to a first wall, that wall, and the sky above the highest
thing behind. Both follow from a map of buildings by walking along a ray. All cells of a grid walk
the same steps, so one step is one shifted slice of the map for all of them: no gather, and without
a compiler (see ray_kernels) the work is that of a few hundred additions of images per direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossview import angles, ray_kernels
from crossview.errors import FrameMismatchError, GridMismatchError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.legends import BUILDING
from crossview.rasters import MapRaster

FIRST_STEP_M = 0.2
"""Nothing stands closer to a camera than this."""

_STEP_SHARE = 0.02
"""Length of a step far away, as a share of the distance walked: it is also the error of a range."""

_NO_SKYLINE = -math.inf


@dataclass(frozen=True, eq=False)
class RayMap:
    """What a camera would see of the buildings from every cell of a grid.

    Args:
        grid: The cells; rays start at their centres.
        height_m: Of the camera above the ground, which is a plane.
        range_m: (rows, cols, azimuths) float16, distance along the ground to the first wall; inf
            where there is none within the map's margin, NaN where the map ends before. Azimuth
            bin k looks at k * 360 / azimuths clockwise from the frame's north.
        skyline_deg: (rows, cols, azimuths) float16, elevation of the highest building edge of a
            ray above the horizon (negative where it is below the camera); NaN where the first
            wall's height is not known, 0 where there is no building.
        free: (rows, cols) bool, False where a cell's centre is inside of a building.
    """

    grid: MapGrid
    height_m: float
    range_m: np.ndarray
    skyline_deg: np.ndarray
    free: np.ndarray

    def __post_init__(self) -> None:
        for name in ("range_m", "skyline_deg", "free"):
            array = getattr(self, name)
            if array.shape[:2] != self.grid.shape:
                raise GridMismatchError(f"{name} is {array.shape} and its grid {self.grid.shape}.")
            array.flags.writeable = False

    @property
    def num_azimuths(self) -> int:
        """Directions of a full turn."""
        return self.range_m.shape[2]


def cast(
    map_raster: MapRaster,
    grid: MapGrid,
    *,
    height_m: float,
    num_azimuths: int = 256,
    reach_m: float,
) -> RayMap:
    """Walk from every cell of a grid in every direction.

    Args:
        map_raster: The map, on cells of the grid divided by a whole number, and at least reach_m
            beyond it on every side.
        grid: Where rays start.
        height_m: Of the camera above the ground.
        num_azimuths: Directions of a full turn.
        reach_m: How far to walk.

    Raises:
        FrameMismatchError: Map and grid are anchored at different places.
        GridMismatchError: The map's cells do not divide the grid's, or it ends too early.
    """
    if not 0 < height_m < math.inf or not FIRST_STEP_M < reach_m < math.inf:
        raise ValueError(
            f"height_m must be positive and reach_m more than {FIRST_STEP_M}, got {height_m} and "
            f"{reach_m}."
        )
    walk = _Walk.on(map_raster, grid, height_m=height_m, reach_m=reach_m)
    range_m = np.empty((*grid.shape, num_azimuths), np.float16)
    skyline_deg = np.empty_like(range_m)
    for k in range(num_azimuths):
        azimuth_deg = k * angles.FULL_TURN_DEG / num_azimuths
        range_m[:, :, k], skyline_deg[:, :, k] = walk.look(azimuth_deg)
    return RayMap(grid, height_m, range_m, skyline_deg, walk.free)


def cell_around(frame: LocalFrame, pose: Pose, *, cell_m: float = 0.5) -> MapGrid:
    """One cell with a pose in its middle: the grid to cut a map around for look_around."""
    return MapGrid(frame, pose.x_m - cell_m / 2, pose.y_m + cell_m / 2, cell_m, 1, 1)


def look_around(
    maps: Callable[[MapGrid], MapRaster],
    frame: LocalFrame,
    pose: Pose,
    *,
    height_m: float,
    num_azimuths: int = 256,
    reach_m: float = 120.0,
    parts: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """What a camera at exactly one pose would see of the buildings.

    Args:
        maps: Cuts the map.
        frame: Of the pose.
        pose: With a heading.
        height_m: Of the camera above the ground.
        num_azimuths: Directions of a full turn, the first along the heading.
        reach_m: How far to walk.
        parts: Map cells along half a metre.

    Returns:
        range_m, skyline_deg: As in RayMap, (azimuths,) each.
    """
    if pose.heading_deg is None:
        raise ValueError(f"{pose} has no heading, so its first direction is not known.")
    cell = cell_around(frame, pose)
    map_raster = maps(cell.padded(reach_m).divided(parts))
    walk = _Walk.on(map_raster, cell, height_m=height_m, reach_m=reach_m)
    turns_deg = np.arange(num_azimuths) * (angles.FULL_TURN_DEG / num_azimuths)
    seen = [walk.look(pose.heading_deg + turn_deg) for turn_deg in turns_deg]
    return tuple(np.array([one[part][0, 0] for one in seen]) for part in (0, 1))  # type: ignore[return-value]


def steps_m(reach_m: float, cell_m: float) -> np.ndarray:
    """Distances at which a ray looks at the map: no cell is skipped nearby, (steps,) growing."""
    distances = [FIRST_STEP_M]
    while distances[-1] < reach_m:
        distances.append(distances[-1] + max(0.8 * cell_m, _STEP_SHARE * distances[-1]))
    return np.minimum(distances, reach_m)


@dataclass(frozen=True, eq=False)
class _Walk:
    """A map as rays see it.

    Args:
        grid: Where rays start.
        margin: (row, col) of the grid's corner in the map.
        distances_m: Where rays look.
        seen: Its phases, uint8, what a cell is as ray_kernels names it.
        above_m: Its phases, float32, height of buildings above the camera; -inf where there is
            none, or none known.
    """

    grid: MapGrid
    margin: tuple[int, int]
    distances_m: np.ndarray
    seen: np.ndarray
    above_m: np.ndarray

    @classmethod
    def on(cls, map_raster: MapRaster, grid: MapGrid, *, height_m: float, reach_m: float) -> _Walk:
        division, margin = _placed(map_raster.grid, grid, reach_m)
        building = map_raster.class_mask(BUILDING) & map_raster.covered
        height = map_raster.building_height_m
        is_unknown = building & ~(height > 0)
        above_m = np.where(building & ~is_unknown, height - np.float32(height_m), _NO_SKYLINE)
        seen = np.where(map_raster.knows(BUILDING), ray_kernels.OPEN, ray_kernels.UNCOVERED)
        seen[building] = ray_kernels.BUILDING
        seen[is_unknown] = ray_kernels.OF_UNKNOWN_HEIGHT
        walked_m = steps_m(reach_m, map_raster.grid.cell_m)
        return cls(
            grid,
            margin,
            walked_m,
            ray_kernels.phases(seen.astype(np.uint8), division, ray_kernels.OPEN),
            ray_kernels.phases(above_m.astype(np.float32), division, _NO_SKYLINE),
        )

    @property
    def free(self) -> np.ndarray:
        """Grid cells whose centre is not in a building, (rows, cols) bool."""
        rows, cols = self._cells(np.zeros(1), np.zeros(1))
        at = ray_kernels.every(self.seen, rows.item(), cols.item(), self.grid.shape)
        return (at == ray_kernels.OPEN) | (at == ray_kernels.UNCOVERED)

    def look(self, azimuth_deg: float) -> tuple[np.ndarray, np.ndarray]:
        """Range and skyline of all cells in one direction, (rows, cols) each."""
        range_m = np.full(self.grid.shape, np.inf, np.float32)
        slope = np.full(self.grid.shape, _NO_SKYLINE, np.float32)
        is_missing = np.zeros(self.grid.shape, bool)
        walk = ray_kernels.compiled() or ray_kernels.walk_without_compiler
        distances_m, rows, cols = self._places(azimuth_deg)
        walk(
            self.seen, self.above_m,
            distances_m.astype(np.float32), (1 / distances_m).astype(np.float32), rows, cols,
            range_m, slope, is_missing,
        )  # fmt: skip
        skyline_deg = np.where(np.isneginf(slope), 0.0, np.rad2deg(np.arctan(slope)))
        skyline_deg[is_missing | np.isnan(range_m)] = np.nan
        return range_m, skyline_deg

    def _places(self, azimuth_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distances, rows and columns that a ray looks at, far to near, each cell once.

        What a look meets stands between the look before and this one.
        """
        east, north = (float(part) for part in angles.forward(azimuth_deg))
        walked = self.distances_m
        rows, cols = self._cells(east * walked, north * walked)
        nearer = np.maximum(np.arange(len(walked)) - 1, 0)
        is_new = (rows != rows[nearer]) | (cols != cols[nearer])
        is_new[0] = True
        kept = np.flatnonzero(is_new)[::-1]
        return (walked[nearer] + walked)[kept] / 2, rows[kept], cols[kept]

    def _cells(self, east_m: np.ndarray, north_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, col) in map cells of what lies so far from the first grid cell's centre."""
        division = len(self.seen)
        middle, fine_m = division / 2, self.grid.cell_m / division
        return (
            self.margin[0] + np.floor(middle - north_m / fine_m).astype(np.int64),
            self.margin[1] + np.floor(middle + east_m / fine_m).astype(np.int64),
        )


def _placed(cells: MapGrid, grid: MapGrid, reach_m: float) -> tuple[int, tuple[int, int]]:
    """How many map cells divide a grid cell's side, and the grid's corner in map cells."""
    if cells.frame != grid.frame:
        raise FrameMismatchError(
            f"The rays start in {grid.frame} and the map is anchored at {cells.frame}. Build both "
            "from one LocalFrame."
        )
    division = round(grid.cell_m / cells.cell_m)
    col, row = (float(p) for p in cells.to_pixel(grid.west_m, grid.north_m))
    aligned = (
        division >= 1
        and math.isclose(division * cells.cell_m, grid.cell_m)
        and abs(row - round(row)) < 1e-6
        and abs(col - round(col)) < 1e-6
    )
    if not aligned:
        raise GridMismatchError(
            f"The map's cells, {cells}, do not divide those of {grid}. Cut the map with "
            "maps(grid.padded(reach_m).divided(2))."
        )
    row, col = round(row), round(col)
    needed = math.ceil(reach_m / cells.cell_m - 1e-6)
    spare = min(
        row,
        col,
        cells.height - row - grid.height * division,
        cells.width - col - grid.width * division,
    )
    if spare < needed:
        raise GridMismatchError(
            f"The map goes {spare * cells.cell_m:g} m beyond the grid and rays walk {reach_m:g} m. "
            "Cut the map with maps(grid.padded(reach_m).divided(2))."
        )
    return division, (row, col)
