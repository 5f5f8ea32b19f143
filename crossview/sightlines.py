"""Which edges of a map's buildings a camera can see: lines in metres around its eye."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.frames import Pose

if TYPE_CHECKING:
    import shapely

STEP_M = 0.25
"""Distance between the points of a line: a lens bends it, and a part of it may be hidden."""

WALL_SLACK_M = 0.3
"""Walls this close in front of a point do not hide it: footprints of neighbours overlap a bit."""

_BLOCK_POINTS = 2000


@dataclass(frozen=True, eq=False)
class Ring:
    """One ring of walls.

    Args:
        corners: (corners, 2), the last is the first.
        points: The same ring with a point at least every STEP_M, (points, 2).
        top_m: Upper edge above the eye; NaN where the height is not known.
    """

    corners: np.ndarray
    points: np.ndarray
    top_m: float


@dataclass(frozen=True)
class Walls:
    """Walls on level ground, relative to an eye: x east, y north, z up, metres.

    Args:
        rings: Outer walls and those of courtyards.
        eye_m: Height of the eye above the ground.
    """

    rings: tuple[Ring, ...]
    eye_m: float

    @classmethod
    def around(
        cls,
        buildings: Iterable[tuple[shapely.Polygon, float | None]],
        pose: Pose,
        *,
        eye_m: float,
        range_m: float,
    ) -> Walls:
        """The walls of the buildings that come closer than range_m.

        Args:
            buildings: Footprints in the pose's frame, each with its height in metres (None or
                NaN where it is not known).
            pose: Where the eye is.
            eye_m: Its height above the ground.
            range_m: Buildings farther away are left out.
        """
        import shapely

        eye = shapely.Point(pose.x_m, pose.y_m)
        rings = []
        for footprint, height_m in buildings:
            if shapely.distance(footprint, eye) > range_m:
                continue
            top_m = math.nan if height_m is None else float(height_m) - eye_m
            for ring in _rings(footprint):
                points = shapely.segmentize(ring, STEP_M)
                corners, points = (
                    shapely.get_coordinates(line) - (pose.x_m, pose.y_m) for line in (ring, points)
                )
                rings.append(Ring(corners, points, top_m))
        return cls(tuple(rings), eye_m)

    def feet(self) -> np.ndarray:
        """Where walls stand on the ground, (points, 3); a row of NaN ends each line."""
        return _joined(_line(ring.points, -self.eye_m) for ring in self.rings)

    def upper_edges(self) -> np.ndarray:
        """Where walls of known height end, and their corners, (points, 3), as from feet."""
        return _joined(
            line
            for ring in self.rings
            if not math.isnan(ring.top_m)
            for line in (_line(ring.points, ring.top_m), *self._uprights(ring))
        )

    def hide(self, points: np.ndarray) -> np.ndarray:
        """Whether a wall stands between the eye and each point, (points, 3) -> (points,) bool.

        A wall of unknown height hides everything behind it.
        """
        blocks = [
            self._hide_block(points[first : first + _BLOCK_POINTS])
            for first in range(0, len(points), _BLOCK_POINTS)
        ]
        return np.concatenate([np.zeros(0, dtype=bool), *blocks])

    def _uprights(self, ring: Ring) -> Iterator[np.ndarray]:
        count = max(2, math.ceil((ring.top_m + self.eye_m) / STEP_M))
        z_m = np.linspace(-self.eye_m, ring.top_m, count)
        for corner in ring.corners[:-1]:
            yield _line(np.tile(corner, (count, 1)), z_m)

    def _hide_block(self, points: np.ndarray) -> np.ndarray:
        x, y, z = (column[:, None] for column in points.T)
        start = np.concatenate([np.zeros((0, 2)), *(ring.corners[:-1] for ring in self.rings)])
        end = np.concatenate([np.zeros((0, 2)), *(ring.corners[1:] for ring in self.rings)])
        num_walls = [len(ring.corners) - 1 for ring in self.rings]
        top_m = np.repeat([ring.top_m for ring in self.rings], num_walls)
        (start_x, start_y), (along_x, along_y) = start.T, (end - start).T
        # walls along the line of sight, and an eye in a wall, give infinite numbers
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # the line of sight, share * point, meets the wall at start + place * along
            turn = x * along_y - y * along_x
            share = (start_x * along_y - start_y * along_x) / turn
            place = (start_x * y - start_y * x) / turn
            in_front = (1 - share) * np.hypot(x, y) > WALL_SLACK_M
            crosses = (share > 0) & (place >= 0) & (place <= 1)
            passes_over = share * z > top_m  # False where the height is not known
        return np.any(crosses & in_front & ~passes_over, axis=1)


def _rings(footprint: Any) -> Iterator[Any]:
    import shapely

    for part in shapely.get_parts(footprint):
        yield part.exterior
        yield from part.interiors


def _line(xy_m: np.ndarray, z_m: float | np.ndarray) -> np.ndarray:
    line = np.full((len(xy_m) + 1, 3), np.nan)
    line[:-1, :2] = xy_m
    line[:-1, 2] = z_m
    return line


def _joined(lines: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 3)), *lines])
