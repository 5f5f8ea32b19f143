"""Where a camera may stand in a scene: on a lane or a sidewalk, in the open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crossview import angles
from crossview.errors import MapError
from crossview.frames import Pose
from crossview.grids import Bounds
from crossview.synthetic.scene import Scene

if TYPE_CHECKING:
    from crossview.synthetic.mesh import Mesh

WALL_CLEARANCE_M = 0.8
"""Least distance of a lens from footprints, also from those above it: bridges' buildings, gates."""

THING_CLEARANCE_M = 0.6
"""Least distance from fences, hedges, trunks, poles and benches."""

CROWN_CLEARANCE_M = 1.0
"""Least distance from leaves."""

SIGHT_M = 60.0
"""A place with no building this near says too little of where it is."""

MAX_DRAWS = 300
"""For one place; where so many are refused, there is no room."""

_NARROW_M = 4.5
"""A two-way street of less than this is driven in its middle."""

Refusal = Literal["building", "thing", "crown", "bare"]


@dataclass(frozen=True)
class Place:
    """Where a camera stands.

    Args:
        pose: In the scene's frame.
        ground: "lane" or "sidewalk".
    """

    pose: Pose
    ground: str


class Obstacles:
    """What a lens must not be in or near to.

    Args:
        scene: The scene.
        mesh: Its mesh, for the crowns.
    """

    def __init__(self, scene: Scene, mesh: Mesh) -> None:
        import shapely
        from scipy.spatial import cKDTree

        self._footprints = shapely.STRtree([b.footprint for b in scene.buildings])
        things: list[Any] = [barrier.line for barrier in scene.barriers]
        things += [shapely.Point(tree.x_m, tree.y_m) for tree in scene.trees]
        things += [shapely.Point(post.x_m, post.y_m) for post in scene.posts]
        things += [shapely.Point(bench[:2]) for bench in scene.benches]
        self._things = shapely.STRtree(things)
        self._crowns = np.asarray(mesh.crowns_m)
        self._crown_tree = cKDTree(self._crowns[:, :2]) if len(self._crowns) else None
        self._reach_m = float(self._crowns[:, 3].max(initial=0.0)) + CROWN_CLEARANCE_M

    def refusal(self, x_m: float, y_m: float, height_m: float) -> Refusal | None:
        """Why a lens cannot be there; None where it can.

        A footprint refuses at any height: under a building that spans a street it is dark.
        """
        import shapely

        point = shapely.Point(x_m, y_m)
        if self._footprints.query(point, "dwithin", WALL_CLEARANCE_M).size:
            return "building"
        if self._things.query(point, "dwithin", THING_CLEARANCE_M).size:
            return "thing"
        if self._is_in_a_crown(x_m, y_m, height_m):
            return "crown"
        return None

    def is_bare(self, x_m: float, y_m: float) -> bool:
        """Whether there is no building in sight."""
        import shapely

        return not self._footprints.query(shapely.Point(x_m, y_m), "dwithin", SIGHT_M).size

    def _is_in_a_crown(self, x_m: float, y_m: float, height_m: float) -> bool:
        if self._crown_tree is None:
            return False
        near = self._crowns[self._crown_tree.query_ball_point((x_m, y_m), self._reach_m)]
        across = np.hypot(near[:, 0] - x_m, near[:, 1] - y_m) / (near[:, 3] + CROWN_CLEARANCE_M)
        up = (near[:, 2] - height_m) / (near[:, 4] + CROWN_CLEARANCE_M)
        return bool(np.any(across**2 + up**2 < 1.0))


class Streets:
    """The pieces of street on which cameras may be put.

    Args:
        scene: The scene.
        bounds_m: Where cameras may stand.

    Raises:
        MapError: There is no street.
    """

    def __init__(self, scene: Scene, bounds_m: Bounds) -> None:
        import shapely

        self.lanes = _Pieces()
        self.sidewalks = _Pieces()
        box = shapely.box(*bounds_m)
        for street in scene.carriageways:
            for line in _lines_within(street.line, box):
                is_narrow = street.is_oneway or street.width_m < _NARROW_M
                offset_m = 0.0 if is_narrow else street.width_m / 4
                self.lanes.add(line, offset_m, is_oneway=street.is_oneway)
                for side, width_m in zip((-1.0, 1.0), street.sidewalks_m, strict=True):
                    if width_m > 0:
                        middle_m = side * (street.width_m + width_m) / 2
                        self.sidewalks.add(line, middle_m, is_oneway=True)
        for footway in scene.footways:
            for line in _lines_within(footway, box):
                self.sidewalks.add(line, 0.0, is_oneway=False)
        if not self.lanes.total_m:
            raise MapError(
                "There is no street to put cameras on where the map is complete. Use a map with "
                "roads (highway=*), or a larger one."
            )

    def place(self, rng: np.random.Generator, *, sidewalks: float, spread_deg: float) -> Place:
        """A draw, evenly by length; the camera may be in a wall (see Obstacles).

        Traffic keeps right. On a lane the heading is that of the traffic, on a sidewalk one way or
        the other along the street, plus an even draw of up to the spread.

        Args:
            rng: Draws.
            sidewalks: Share of places on sidewalks and footways, where there are any.
            spread_deg: See above.
        """
        is_walking = bool(rng.uniform() < sidewalks and self.sidewalks.total_m)
        pieces = self.sidewalks if is_walking else self.lanes
        x_m, y_m, heading_deg = pieces.at(rng.uniform() * pieces.total_m, rng)
        heading_deg += 180.0 * (is_walking and rng.uniform() < 0.5)
        heading_deg += rng.uniform(-spread_deg, spread_deg)
        return Place(Pose(x_m, y_m, heading_deg), "sidewalk" if is_walking else "lane")


class _Pieces:
    """Straight pieces of lines, each with how far to the right of it one keeps."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, ...]] = []
        self._made: tuple[np.ndarray, np.ndarray] | None = None
        self.total_m = 0.0

    def add(self, line: Any, offset_m: float, *, is_oneway: bool) -> None:
        points = np.asarray(line.coords)[:, :2]
        for (x0, y0), (x1, y1) in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
            self._ends.append((x0, y0, x1, y1, offset_m, float(is_oneway)))
            self.total_m += float(np.hypot(x1 - x0, y1 - y0))

    def at(self, along_m: float, rng: np.random.Generator) -> tuple[float, float, float]:
        """(x_m, y_m, heading_deg) so far along all pieces."""
        if self._made is None:
            ends = np.array(self._ends)
            self._made = ends, np.cumsum(np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]))
        ends, reached_m = self._made
        k = min(int(np.searchsorted(reached_m, along_m)), len(ends) - 1)
        x0, y0, x1, y1, offset_m, is_oneway = ends[k].tolist()
        length_m = float(np.hypot(x1 - x0, y1 - y0)) or 1.0
        east, north = (x1 - x0) / length_m, (y1 - y0) / length_m
        left_m = min(max(length_m - (float(reached_m[k]) - along_m), 0.0), length_m)
        x_m, y_m = x0 + left_m * east, y0 + left_m * north
        if not is_oneway and rng.uniform() < 0.5:
            east, north = -east, -north
        return (
            x_m + offset_m * north,
            y_m - offset_m * east,
            float(angles.heading_of(east, north)),
        )


def open_place(
    draw: Callable[[], Place],
    obstacles: Obstacles,
    height_m: float,
    *,
    refused: Counter[str],
) -> Place:
    """The first place of some draws where a camera can stand.

    Args:
        draw: Draws a place.
        obstacles: What a lens must not be near to.
        height_m: Of the lens above the ground.
        refused: Counts why places were refused.

    Raises:
        MapError: None of MAX_DRAWS was.
    """
    for _ in range(MAX_DRAWS):
        place = draw()
        x_m, y_m = place.pose.x_m, place.pose.y_m
        why = obstacles.refusal(x_m, y_m, height_m)
        if why is None and obstacles.is_bare(x_m, y_m):
            why = "bare"
        if why is None:
            return place
        refused[why] += 1
    raise MapError(
        f"None of {MAX_DRAWS} places on the streets has room for a camera at {height_m:g} m "
        f"({', '.join(f'{n} x {why}' for why, n in refused.items())}). Use another map or height."
    )


def _lines_within(line: Any, box: Any) -> Sequence[Any]:
    import shapely

    parts = shapely.get_parts(shapely.intersection(line, box))
    return [part for part in parts if part.geom_type == "LineString" and part.length > 0]
