"""Drives through a scene: routes along its streets, and what a bad odometry says of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview import angles, tracking
from crossview.errors import MapError
from crossview.frames import Motion, Pose
from crossview.grids import Bounds
from crossview.synthetic.scene import Carriageway, Scene

DISTANCE_NOISE = 0.05
"""Standard deviation of a step's length, as a share of it: wheels slip, tyres differ."""

HEADING_NOISE_DEG = 1.0
"""Standard deviation of every turn and of the direction of a step."""

_STEP_M = 0.5
"""Between the points of a path while it is drawn."""

_ROUNDING_M = 2.5
"""Standard deviation of the Gaussian that rounds corners: a turn of about 5 m radius."""

_CROSSING_M, _CROSSING_SHARE = 4.0, 0.35
"""How much of a lane belongs to the crossing at its end, where one steers freely; at most this
share of it."""

_SNAP_M = 0.25
_NARROW_M = 4.5
_MAX_EDGES = 4000


@dataclass(frozen=True)
class _Edge:
    """A way to drive from one crossing to the next: its line, and how far right one keeps."""

    start: int
    end: int
    line: np.ndarray
    offset_m: float
    street: int


class RoadGraph:
    """Which streets lead where.

    Streets meet where they share a corner, as OpenStreetMap has them.

    Args:
        scene: The scene.
        bounds_m: Drives stay in here.

    Raises:
        MapError: There is no street.
    """

    def __init__(self, scene: Scene, bounds_m: Bounds) -> None:
        self._edges: list[_Edge] = []
        self._leaving: dict[int, list[int]] = {}
        pieces = _noded(scene.carriageways, bounds_m)
        nodes: dict[tuple[int, int], int] = {}
        for number, (line, street) in enumerate(pieces):
            ends = [nodes.setdefault(_key(point), len(nodes)) for point in (line[0], line[-1])]
            is_narrow = street.is_oneway or street.width_m < _NARROW_M
            offset_m = 0.0 if is_narrow else street.width_m / 4
            self._add(_Edge(ends[0], ends[1], line, offset_m, number))
            if not street.is_oneway:
                self._add(_Edge(ends[1], ends[0], line[::-1], offset_m, number))
        if not self._edges:
            raise MapError(
                "There is no street to drive on where the map is complete. Use a map with roads "
                "(highway=*), or a larger one."
            )

    def route(self, rng: np.random.Generator, length_m: float) -> np.ndarray:
        """A drive that turns at crossings by lot, never back, and ends where a street ends.

        Args:
            rng: Draws.
            length_m: Where it may end.

        Returns:
            Points on the lane every half metre, (points, 2): x_m, y_m.
        """
        lengths_m = np.array([_length_m(edge.line) for edge in self._edges])
        edge = self._edges[int(rng.choice(len(lengths_m), p=lengths_m / lengths_m.sum()))]
        parts, driven_m, seen = [_lane(edge)], _length_m(edge.line), {edge.street: 1}
        for _ in range(_MAX_EDGES):
            if driven_m >= length_m:
                break
            onward = [self._edges[k] for k in self._leaving.get(edge.end, ())]
            ahead = [one for one in onward if one.street != edge.street]
            if not ahead:
                break
            # streets that were not driven yet come first, as a survey would have it
            rarest = min(seen.get(one.street, 0) for one in ahead)
            fresh = [one for one in ahead if seen.get(one.street, 0) == rarest]
            edge = fresh[int(rng.integers(len(fresh)))]
            seen[edge.street] = seen.get(edge.street, 0) + 1
            parts.append(_lane(edge))
            driven_m += _length_m(edge.line)
        return _rounded(np.concatenate(parts))

    def _add(self, edge: _Edge) -> None:
        self._leaving.setdefault(edge.start, []).append(len(self._edges))
        self._edges.append(edge)


def poses_along(path: np.ndarray, *, spacing_m: float, count: int) -> list[Pose]:
    """Poses at even distances along a path, looking ahead.

    Args:
        path: (points, 2), as RoadGraph.route gives it.
        spacing_m: From one to the next.
        count: At most so many; fewer where the path ends.
    """
    reached_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    at_m = np.arange(count) * spacing_m
    at_m = at_m[at_m <= reached_m[-1] - _STEP_M]
    x_m, y_m = (np.interp(at_m, reached_m, path[:, k]) for k in range(2))
    ahead = [np.interp(at_m + _STEP_M, reached_m, path[:, k]) for k in range(2)]
    heading_deg = angles.heading_of(ahead[0] - x_m, ahead[1] - y_m)
    return [
        Pose(float(x), float(y), float(heading))
        for x, y, heading in zip(x_m, y_m, np.atleast_1d(heading_deg), strict=True)
    ]


def odometry(poses: Sequence[Pose], rng: np.random.Generator) -> list[Motion]:
    """What a car that measures badly says of every step of a drive, with its own uncertainty.

    The model is that of drive_evaluation.with_odometry: the length of a step is off by 5 % of it,
    its direction and the turn by 1 degree, all independent from step to step.
    """
    motions = []
    for before, after in itertools.pairwise(poses):
        true = before.motion_to(after)
        factor = 1.0 + rng.normal(0.0, DISTANCE_NOISE)
        aside_rad = np.deg2rad(rng.normal(0.0, HEADING_NOISE_DEG))
        forward_m, right_m = true.forward_m, true.right_m
        motions.append(
            tracking.odometry(
                float(factor * (forward_m * np.cos(aside_rad) - right_m * np.sin(aside_rad))),
                float(factor * (right_m * np.cos(aside_rad) + forward_m * np.sin(aside_rad))),
                true.turn_deg + float(rng.normal(0.0, HEADING_NOISE_DEG)),
                distance_noise=DISTANCE_NOISE,
                heading_noise_deg=HEADING_NOISE_DEG,
            )
        )
    return motions


def _noded(
    streets: Sequence[Carriageway], bounds_m: Bounds
) -> list[tuple[np.ndarray, Carriageway]]:
    """Lines cut where they share a corner with another."""
    import shapely

    box = shapely.box(*bounds_m)
    lines: list[tuple[np.ndarray, Carriageway]] = []
    for street in streets:
        parts = shapely.get_parts(shapely.intersection(street.line, box))
        parts = parts[(shapely.get_type_id(parts) == 1) & (shapely.length(parts) > _SNAP_M)]
        lines += [(shapely.get_coordinates(part), street) for part in parts]
    counts: dict[tuple[int, int], int] = {}
    for line, _ in lines:
        keys = {_key(point) for point in line}
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
    pieces = []
    for line, street in lines:
        cuts = [k for k in range(1, len(line) - 1) if counts[_key(line[k])] > 1]
        bounds = [0, *cuts, len(line) - 1]
        pieces += [(line[a : b + 1], street) for a, b in itertools.pairwise(bounds)]
    return pieces


def _key(point: Any) -> tuple[int, int]:
    return round(float(point[0]) / _SNAP_M), round(float(point[1]) / _SNAP_M)


def _length_m(line: np.ndarray) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def _lane(edge: _Edge) -> np.ndarray:
    """Points on the right lane of an edge, every half metre, cut short of the crossings."""
    import shapely
    from shapely.ops import substring

    line: Any = shapely.LineString(edge.line)
    if edge.offset_m:
        lane = shapely.offset_curve(line, -edge.offset_m, join_style="mitre")
        # a line that winds more tightly than it is wide has no lane: its middle will do
        line = lane if lane.geom_type == "LineString" and not lane.is_empty else line
    # a lane to the right begins before the one that leads there has reached the crossing
    cut_m = min(_CROSSING_M, _CROSSING_SHARE * line.length)
    line = substring(line, cut_m, line.length - cut_m)
    at_m = np.linspace(0.0, line.length, max(2, round(line.length / _STEP_M) + 1))
    return np.asarray(shapely.get_coordinates(shapely.line_interpolate_point(line, at_m)))


def _rounded(path: np.ndarray) -> np.ndarray:
    """A path of even steps whose corners can be driven; it keeps its ends."""
    from scipy.ndimage import gaussian_filter1d

    reached_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    at_m = np.arange(0.0, reached_m[-1], _STEP_M)
    even = np.column_stack([np.interp(at_m, reached_m, path[:, k]) for k in range(2)])
    return gaussian_filter1d(even, _ROUNDING_M / _STEP_M, axis=0, mode="nearest")
