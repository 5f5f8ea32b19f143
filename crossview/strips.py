"""Places in strips: which of a million lie inside of a prior, in microseconds."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from crossview.grids import Bounds
from crossview.posterior import Posterior

if TYPE_CHECKING:
    import shapely

_ROUNDING_M = 1e-6
"""How much more is looked at before it is decided exactly."""


@dataclass(frozen=True)
class Disc:
    """All places within a distance of one.

    Args:
        x_m: East of the frame's anchor.
        y_m: North of it.
        radius_m: The distance.
    """

    x_m: float
    y_m: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x_m + self.y_m) and 0 < self.radius_m < math.inf):
            raise ValueError(f"A disc needs a finite place and a positive radius, got {self}.")


Prior: TypeAlias = "Disc | shapely.Polygon | shapely.MultiPolygon | Posterior"
"""Where something may be: of a Posterior, every cell whose probability is not zero."""


def strip_order(positions_m: np.ndarray, strip_m: float) -> np.ndarray:
    """In which order places are in strips, (places,): by strip from the south, then by x."""
    x_m, y_m = np.asarray(positions_m, dtype=float).T
    return np.lexsort((y_m, x_m, np.floor(y_m / strip_m)))


@dataclass(frozen=True, eq=False)
class Strips:
    """Places sorted by strips of equal height: what lies close together is in a few runs of rows.

    Args:
        positions_m: (N, 2) float64, x and y, in the order of strip_order; at least one.
        strip_m: Height of a strip; strip 0 begins at the frame's anchor.

    Raises:
        ValueError: The places are in another order.
    """

    positions_m: np.ndarray
    strip_m: float

    def __post_init__(self) -> None:
        if np.any(np.diff(self._keys) < 0):
            raise ValueError("The places are not in strips: sort them by strip_order.")

    def rows_inside(self, prior: Prior) -> np.ndarray:
        """Places that a prior holds, edges too: rows in ascending order, (n,) int64.

        Raises:
            ValueError: It is an empty area.
            TypeError: It is no prior.
        """
        if isinstance(prior, Disc):
            return self._rows_in_disc(prior)
        if isinstance(prior, Posterior):
            rows = self.rows_in_box(prior.grid.map.bounds)
            return rows[probability_at(prior, self.positions_m[rows]) > 0]
        import shapely

        if not isinstance(prior, shapely.Polygon | shapely.MultiPolygon):
            raise TypeError(
                f"A prior is a Disc, a polygon or a Posterior, got a {type(prior).__name__}."
            )
        if prior.is_empty:
            raise ValueError("The area of the prior is empty.")
        west, south, east, north = shapely.bounds(prior).tolist()
        rows = self.rows_in_box(Bounds(west, south, east, north))
        shapely.prepare(prior)
        return rows[shapely.intersects_xy(prior, *self.positions_m[rows].T)]

    def rows_in_box(self, box: Bounds) -> np.ndarray:
        """Places in a box, edges too: rows in ascending order, (n,) int64."""
        strips = self._strips_between(box.south_m, box.north_m)
        rows = self._rows_between(strips, box.west_m - _ROUNDING_M, box.east_m + _ROUNDING_M)
        x_m, y_m = self.positions_m[rows].T
        inside = (x_m >= box.west_m) & (x_m <= box.east_m)
        return rows[inside & (y_m >= box.south_m) & (y_m <= box.north_m)]

    def distance_m(self, prior: Prior) -> float:
        """From the nearest place to what a prior holds."""
        x_m, y_m = self.positions_m.T
        if isinstance(prior, Disc):
            return float(np.hypot(x_m - prior.x_m, y_m - prior.y_m).min()) - prior.radius_m
        if isinstance(prior, Posterior):
            from scipy.spatial import cKDTree

            rows, cols = np.nonzero(prior.position())
            centres = np.column_stack(prior.grid.map.to_xy(cols + 0.5, rows + 0.5))
            return float(cKDTree(centres).query(self.positions_m)[0].min())
        import shapely

        return float(shapely.distance(shapely.points(self.positions_m), prior).min())

    def distance_to_box_m(self, box: Bounds) -> float:
        """From the nearest place to a box; 0 where it holds one."""
        x_m, y_m = self.positions_m.T
        across = np.maximum(np.maximum(box.west_m - x_m, x_m - box.east_m), 0.0)
        along = np.maximum(np.maximum(box.south_m - y_m, y_m - box.north_m), 0.0)
        return float(np.hypot(across, along).min())

    @functools.cached_property
    def _first_and_last(self) -> tuple[int, int]:
        y_m = self.positions_m[:, 1]
        return math.floor(y_m.min() / self.strip_m), math.floor(y_m.max() / self.strip_m)

    @functools.cached_property
    def _west_and_step(self) -> tuple[float, float]:
        """The smallest x, and what a strip adds to a key: more than the width of them all."""
        x_m = self.positions_m[:, 0]
        return float(x_m.min()), float(np.ptp(x_m)) + 2.0

    @functools.cached_property
    def _keys(self) -> np.ndarray:
        """A number for each place that grows with strip and x: one binary search finds both."""
        x_m, y_m = self.positions_m.T
        west_m, step = self._west_and_step
        return (np.floor(y_m / self.strip_m) - self._first_and_last[0]) * step + (x_m - west_m)

    def _strips_between(self, south_m: float, north_m: float) -> np.ndarray:
        first, last = self._first_and_last
        low = max(math.floor((south_m - _ROUNDING_M) / self.strip_m), first)
        high = min(math.floor((north_m + _ROUNDING_M) / self.strip_m), last)
        return np.arange(low, high + 1)

    def _rows_between(self, strips: np.ndarray, west_m: Any, east_m: Any) -> np.ndarray:
        """Rows of strips between two x, numbers or one for each strip."""
        west, step = self._west_and_step
        base = (strips - self._first_and_last[0]) * step - west
        # beyond the first and the last place of a strip keys would be those of its neighbours
        low, high = (
            np.clip(west_m, west - 0.5, west + step - 1),
            np.clip(east_m, west - 0.5, west + step - 1),
        )
        starts = np.searchsorted(self._keys, base + low)
        ends = np.searchsorted(self._keys, base + high, side="right")
        runs = zip(starts.tolist(), ends.tolist(), strict=True)
        return np.concatenate([np.empty(0, np.int64), *(np.arange(a, b) for a, b in runs)])

    def _rows_in_disc(self, disc: Disc) -> np.ndarray:
        strips = self._strips_between(disc.y_m - disc.radius_m, disc.y_m + disc.radius_m)
        # half the widest chord of the disc in each strip
        south_m = strips * self.strip_m - disc.y_m
        nearest_m = np.maximum(np.maximum(south_m, -(south_m + self.strip_m)), 0.0)
        half_m = np.sqrt(np.maximum(disc.radius_m**2 - nearest_m**2, 0.0)) + _ROUNDING_M
        rows = self._rows_between(strips, disc.x_m - half_m, disc.x_m + half_m)
        offset_m = self.positions_m[rows]
        offset_m -= (disc.x_m, disc.y_m)
        return rows[np.einsum("nd,nd->n", offset_m, offset_m) <= disc.radius_m**2]


def probability_at(posterior: Posterior, positions_m: np.ndarray) -> np.ndarray:
    """Probability of the cells that hold places inside of a posterior's grid, (places,)."""
    cells = posterior.grid.map
    col, row = (np.floor(at).astype(int) for at in cells.to_pixel(*positions_m.T))
    # the eastern and the southern edge belong to the last cells
    row, col = np.minimum(row, cells.height - 1), np.minimum(col, cells.width - 1)
    return posterior.position()[row, col]
