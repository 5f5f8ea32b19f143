"""Simple knowledge about a pose, each as one log-likelihood on a PoseGrid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from crossview import angles
from crossview.errors import MissingLocationError
from crossview.frames import Fix, LocalFrame
from crossview.grids import (
    MAX_VOLUME_BYTES,
    Bounds,
    MapGrid,
    PoseGrid,
    place_of,
    require_frame,
)
from crossview.posterior import Posterior, Resolution

if TYPE_CHECKING:
    import shapely

    from crossview.rasters import MapRaster

DEFAULT_COMPASS_SIGMA_DEG = 15.0
"""Standard deviation of a phone's compass among buildings, where nothing better is known."""

ENCLOSED = 0.05
"""How probable a place in a building or a closed courtyard is, as a share of one in the open."""

PASSAGE_M = 1.0
"""A gap between buildings that is narrower than this is closed."""

_BUILDING = "building"
"""What the legends call it; they are a layer above."""

_AROUND_M = 100.0
"""How much map around a prior is looked at for ways out of courtyards."""

_FLAT_SIGMA_DEG = 720.0
"""A compass this bad is flat: its first harmonic is exp(-(2 pi)^2 2) < 1e-34."""

_TAIL_SIGMAS = 8.0
"""How far a normal distribution is wrapped around the circle."""


class Nothing:
    """The gallery of somebody who has none: it knows nothing about any pose."""

    def log_likelihood(self, query: Any, grid: PoseGrid) -> np.ndarray:  # noqa: ARG002
        """Zero everywhere, (1, 1, 1)."""
        return np.zeros((1, 1, 1), np.float32)


def prior_within(
    frame: LocalFrame,
    x_m: float,
    y_m: float,
    *,
    radius_m: float,
    like: Resolution,
    heading_deg: float | None = None,
    compass_sigma_deg: float = DEFAULT_COMPASS_SIGMA_DEG,
) -> Posterior:
    """The usual rough idea: somewhere within a disc, and perhaps a compass.

    Args:
        frame: Where the metres are.
        x_m: East of the frame's anchor, the disc's centre.
        y_m: North of it.
        radius_m: The disc's radius.
        like: Cell size and headings wanted: a matcher. The cells get larger by whole factors
            where the volume would not fit into memory.
        heading_deg: What a compass says, in the frame; None searches all headings.
        compass_sigma_deg: Standard deviation of the compass.
    """
    if not 0 < radius_m < math.inf:
        raise ValueError(f"radius_m must be positive and finite, got {radius_m}.")
    cell_m = like.cell_m
    num_headings = 1 if heading_deg is None else like.num_headings
    while (2 * radius_m / cell_m) ** 2 * num_headings * 4 > MAX_VOLUME_BYTES / 4:
        cell_m *= 2
    cells = MapGrid.around(frame, x_m, y_m, radius_m=radius_m, cell_m=cell_m)
    grid = PoseGrid(cells, num_headings)
    prior = Posterior.flat(grid).update(disc(grid, x_m, y_m, radius_m=radius_m))
    if heading_deg is None:
        return prior
    return prior.update(compass(grid, heading_deg, sigma_deg=compass_sigma_deg))


def gaussian(grid: PoseGrid, x_m: float, y_m: float, *, sigma_m: float) -> np.ndarray:
    """A position with a standard deviation per axis, averaged over each cell: (rows, cols, 1)."""
    if not 0 < sigma_m < math.inf:
        raise ValueError(f"sigma_m must be positive and finite, got {sigma_m}.")
    _require_place(x_m, y_m)
    center_x, center_y = grid.map.centers()
    half_m = grid.map.cell_m / 2
    east = _log_mean_normal(center_x - half_m - x_m, center_x + half_m - x_m, sigma_m)
    north = _log_mean_normal(center_y - half_m - y_m, center_y + half_m - y_m, sigma_m)
    return (north[:, None] + east[None, :])[:, :, None]


def position_fix(grid: PoseGrid, fix: Fix, *, sigma_m: float | None = None) -> np.ndarray:
    """What a satellite fix says about the position, (rows, cols, 1).

    Args:
        grid: The poses.
        fix: The device's answer. Its accuracy is used where sigma_m is not given.
        sigma_m: Standard deviation per axis.
    """
    sigma_m = sigma_m if sigma_m is not None else fix.accuracy_m
    if sigma_m is None:
        raise MissingLocationError(f"{fix} does not say how accurate it is. Give sigma_m.")
    x_m, y_m = grid.map.frame.to_local(fix.lat_deg, fix.lon_deg)
    return gaussian(grid, x_m, y_m, sigma_m=sigma_m)


def disc(grid: PoseGrid, x_m: float, y_m: float, *, radius_m: float) -> np.ndarray:
    """0 where a cell's centre is within a radius of a place, -inf elsewhere: (rows, cols, 1).

    A disc smaller than a cell keeps the cell that holds its centre.
    """
    if not 0 < radius_m < math.inf:
        raise ValueError(f"radius_m must be positive and finite, got {radius_m}.")
    _require_place(x_m, y_m)
    center_x, center_y = grid.map.centers()
    inside = np.hypot(center_x[None, :] - x_m, center_y[:, None] - y_m) <= radius_m
    if not inside.any():
        inside = (np.abs(center_x[None, :] - x_m) <= grid.map.cell_m / 2) & (
            np.abs(center_y[:, None] - y_m) <= grid.map.cell_m / 2
        )
    return _allowed(inside)


def box(grid: PoseGrid, bounds: Bounds) -> np.ndarray:
    """0 where a cell's centre is inside of a box, -inf elsewhere: (rows, cols, 1)."""
    center_x, center_y = grid.map.centers()
    across = (center_x >= bounds.west_m) & (center_x <= bounds.east_m)
    along = (center_y >= bounds.south_m) & (center_y <= bounds.north_m)
    return _allowed(along[:, None] & across[None, :])


def polygon(grid: PoseGrid, area: shapely.Polygon | shapely.MultiPolygon) -> np.ndarray:
    """0 where a cell's centre is inside of an area of the local frame, -inf elsewhere."""
    import shapely

    center_x, center_y = grid.map.centers()
    shapely.prepare(area)
    return _allowed(shapely.intersects_xy(area, *np.meshgrid(center_x, center_y)))


def compass(grid: PoseGrid, heading_deg: float, *, sigma_deg: float) -> np.ndarray:
    """A heading in the grid's frame with its standard deviation: (headings,).

    A wrapped normal distribution, averaged over each bin.
    """
    if not 0 < sigma_deg < math.inf:
        raise ValueError(f"sigma_deg must be positive and finite, got {sigma_deg}.")
    if not math.isfinite(heading_deg):
        raise ValueError(f"heading_deg must be a finite number of degrees, got {heading_deg}.")
    if grid.num_headings == 1:
        return np.zeros(1)
    if sigma_deg > _FLAT_SIGMA_DEG:
        return np.full(grid.num_headings, -math.log(angles.FULL_TURN_DEG))
    turn_deg = angles.difference_deg(grid.headings_deg, heading_deg)
    half_deg = angles.FULL_TURN_DEG / grid.num_headings / 2
    num_turns = math.ceil(_TAIL_SIGMAS * sigma_deg / angles.FULL_TURN_DEG) + 1
    turns = turn_deg[:, None] + angles.FULL_TURN_DEG * np.arange(-num_turns, num_turns + 1)
    wrapped = _log_mean_normal(turns - half_deg, turns + half_deg, sigma_deg)
    return np.logaddexp.reduce(wrapped, axis=1)


def compass_fix(
    grid: PoseGrid,
    fix: Fix,
    *,
    sigma_deg: float = DEFAULT_COMPASS_SIGMA_DEG,
    declination_deg: float | None = None,
) -> np.ndarray:
    """What a device's compass says about the heading, (headings,).

    Args:
        grid: The poses.
        fix: The device's answer.
        sigma_deg: Standard deviation.
        declination_deg: Where magnetic north is, clockwise from true north; needed for a
            magnetic heading, which is never corrected by a guess.
    """
    if fix.heading_deg is None:
        return np.zeros(1)
    heading_deg = fix.heading_deg
    if fix.heading_reference == "magnetic":
        if declination_deg is None:
            raise ValueError(f"{fix} counts its heading from magnetic north. Give declination_deg.")
        heading_deg += declination_deg
    x_m, y_m = grid.map.frame.to_local(fix.lat_deg, fix.lon_deg)
    convergence_deg = grid.map.frame.convergence_deg(x_m, y_m)
    return compass(grid, heading_deg - convergence_deg, sigma_deg=sigma_deg)


def roads(grid: PoseGrid, map_raster: MapRaster, *, road_classes: tuple[str, ...]) -> np.ndarray:
    """0 on road cells and where the map knows nothing, -inf elsewhere: (rows, cols, 1).

    Args:
        grid: The poses.
        map_raster: A map on the same cells.
        road_classes: Names in its legend that count as road.
    """
    require_same_cells(grid, map_raster)
    on_road = ~map_raster.covered
    for name in road_classes:
        on_road = on_road | map_raster.class_mask(name)
    return _allowed(on_road)


def reachable(
    grid: PoseGrid,
    map_raster: MapRaster,
    *,
    passage_m: float = PASSAGE_M,
    enclosed: float = ENCLOSED,
) -> np.ndarray:
    """Places that can be reached from the rim of the map; courtyards are rare: (rows, cols, 1).

    Args:
        grid: The poses.
        map_raster: A map on the same cells or with more around them; the more, the better it is
            known what is enclosed.
        passage_m: A gap between buildings that is narrower than this is closed.
        enclosed: How probable an enclosed cell or one inside of a building is, as a share of one
            in the open.

    Returns:
        0 for cells in the open and where the map knows nothing, log(enclosed) elsewhere.
    """
    from scipy import ndimage

    if not 0 < enclosed <= 1:
        raise ValueError(f"enclosed must be a share in (0, 1], got {enclosed}.")
    first_row, first_col = place_of(grid.map, map_raster.grid)
    free = ~map_raster.class_mask(_BUILDING)
    known = map_raster.knows(_BUILDING)
    reach_cells = passage_m / 2 / map_raster.grid.cell_m
    # how far from the nearest wall; the rim of the map is no wall
    wide = ndimage.distance_transform_edt(free) > reach_cells if not free.all() else free
    labels, _ = ndimage.label(wide | ~known)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    is_open = np.isin(labels, np.unique(rim[rim > 0]))
    # what the narrowing took off at the walls
    is_open = free & (ndimage.distance_transform_edt(~is_open) <= reach_cells + 1)
    is_open |= ~known
    rows, cols = grid.map.shape
    part = is_open[first_row : first_row + rows, first_col : first_col + cols]
    return np.where(part, 0.0, math.log(enclosed))[:, :, None]


def on_open_ground(
    prior: Posterior, maps: Callable[[MapGrid], MapRaster], *, enclosed: float = ENCLOSED
) -> Posterior:
    """A prior that knows that cameras seldom stand in buildings and closed courtyards.

    Args:
        prior: What is known else; it stays as it is where its cells are too coarse for a passage.
        maps: Cuts the map.
        enclosed: As in reachable; 1 leaves the prior as it is.
    """
    if enclosed == 1.0 or prior.grid.map.cell_m > PASSAGE_M:
        return prior
    map_raster = maps(prior.grid.map.padded(_AROUND_M))
    return prior.update(reachable(prior.grid, map_raster, enclosed=enclosed))


def require_same_cells(grid: PoseGrid, map_raster: MapRaster) -> None:
    """Refuse a map whose frame is another one than the grid's, or whose cells differ.

    Raises:
        FrameMismatchError: They are anchored at different places.
        ValueError: Their cells differ.
    """
    require_frame(map_raster.grid, grid.map)
    if map_raster.grid != grid.map:
        raise ValueError(
            f"The map covers {map_raster.grid} and the grid {grid.map}. Cut the map to the grid."
        )


def _require_place(x_m: float, y_m: float) -> None:
    if not (math.isfinite(x_m) and math.isfinite(y_m)):
        raise ValueError(f"A place needs finite x_m and y_m, got ({x_m}, {y_m}).")


def _allowed(inside: npt.ArrayLike) -> np.ndarray:
    return np.where(np.asarray(inside), 0.0, -np.inf)[:, :, None]


def _log_mean_normal(low: np.ndarray, high: np.ndarray, sigma: float) -> np.ndarray:
    """Log of the mean density of a centred normal over intervals, accurate in both tails."""
    a, b = low / sigma, high / sigma
    # the same interval mirrored into the left tail, where log_ndtr keeps its digits
    right = a + b > 0
    a, b = np.where(right, -b, a), np.where(right, -a, b)
    log_b = log_ndtr(b)
    log_mass = log_b + np.log1p(-np.exp(np.minimum(log_ndtr(a) - log_b, -1e-300)))
    return log_mass - math.log(sigma) - np.log(b - a)
