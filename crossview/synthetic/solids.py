"""Buildings as closed solids: walls that know where they begin and end, roofs, shop fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.mesh import MeshBuilder, at_height, quads, triangulated
from crossview.synthetic.roofs import roof_triangles

if TYPE_CHECKING:
    from crossview.synthetic.things import Building

SHOP_REACH_M = 3.0
"""A shop in the open is behind the nearest wall within this distance."""

_SHOP_DEPTH_M = 20.0
_SHOP_HEIGHT_M = 2.5
_SHOP_WIDTH_M = 2.0
"""Least height and width of a wall with a shop front."""

_SAME_DIRECTION = 1e-4


def add_buildings(
    builder: MeshBuilder,
    buildings: Sequence[Building],
    first_instance: int,
    shops_m: Sequence[tuple[float, float]] = (),
) -> int:
    """Closed solids, but for the floor of what stands on the ground; the next free instance.

    Args:
        builder: Takes the triangles.
        buildings: The buildings.
        first_instance: Number of the first; the others follow.
        shops_m: Where shops are, (x, y): the nearest wall of the building around each, or within
            SHOP_REACH_M of it, gets a shop front.
    """
    if not buildings:
        return first_instance
    roofs, owner = _roofs(buildings)
    instances = first_instance + np.arange(len(buildings))
    materials = [building.roof_material for building in buildings]
    rows = builder.surfaces("building", materials, instances)
    builder.triangles(roofs, rows[owner])
    base_m = np.array([building.base_m for building in buildings])
    _add_walls(builder, buildings, _Walls.below(roofs, owner), instances, shops_m)
    # undersides of what does not stand on the ground
    raised = np.flatnonzero(base_m[owner] > 0)
    below = at_height(roofs[raised, ::-1, :2], base_m[owner[raised]][:, None])
    builder.triangles(below, rows[owner[raised]])
    return first_instance + len(buildings)


def _roofs(buildings: Sequence[Building]) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of all roofs, and which building each is of, in order."""
    flat = [k for k, building in enumerate(buildings) if building.roof.shape == "flat"]
    corners, owner = triangulated(np.array([buildings[k].footprint for k in flat], dtype=object))
    owner = np.array(flat, dtype=int)[owner]
    tops_m = np.array([building.height_m for building in buildings])
    parts, owners = [at_height(corners, tops_m[owner][:, None])], [owner]
    for k, building in enumerate(buildings):
        if building.roof.shape != "flat":
            parts.append(roof_triangles(building.footprint, building.roof, building.height_m))
            owners.append(np.full(len(parts[-1]), k))
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(parts)[order], owner[order]


@dataclass(frozen=True, eq=False)
class _Walls:
    """What is below the borders of roofs: quadrilaterals, several to a wall with a gable.

    Args:
        starts: Upper left corners seen from outside, (quadrilaterals, 3).
        ends: Upper right corners.
        owner: Which building each is of, (quadrilaterals,) int.
        wall: Which wall each is part of.
        owner_of_wall: Which building each wall is of, (walls,) int.
        frames: Of the walls, (walls, 6), as a Mesh has them.
    """

    starts: np.ndarray
    ends: np.ndarray
    owner: np.ndarray
    wall: np.ndarray
    owner_of_wall: np.ndarray
    frames: np.ndarray

    @classmethod
    def below(cls, roofs: np.ndarray, owner: np.ndarray) -> _Walls:
        """Walls under the edges that only one triangle of a roof has."""
        corners = np.column_stack([np.repeat(owner, 3), roofs[:, :, :2].reshape(-1, 2)])
        number = np.unique(corners, axis=0, return_inverse=True)[1].reshape(-1, 3)
        start, end = number.ravel(), np.roll(number, -1, axis=1).ravel()
        count = int(number.max(initial=0)) + 1
        is_border = ~np.isin(start * count + end, end * count + start)
        starts = roofs.reshape(-1, 3)[is_border]
        ends = np.roll(roofs, -1, axis=1).reshape(-1, 3)[is_border]
        owner = np.repeat(owner, 3)[is_border]
        wall, first = _straight_runs(ends - starts, start[is_border], end[is_border])
        return cls(starts, ends, owner, wall, owner[first], _frames(starts, ends, wall, first))


def _straight_runs(
    along_m: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which wall each edge is part of, (edges,), and the first edge of each wall.

    Args:
        along_m: From the start to the end, (edges, 3).
        start: Numbers of the corners where edges start, (edges,).
        end: And where they end.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    along = along_m[:, :2] / np.hypot(along_m[:, 0], along_m[:, 1])[:, None]
    order = np.argsort(start, kind="stable")
    following = order[np.searchsorted(start[order], end) % len(order)]
    turn = along[:, 0] * along[following, 1] - along[:, 1] * along[following, 0]
    ahead = np.einsum("ij,ij->i", along, along[following])
    goes_on = (np.abs(turn) < _SAME_DIRECTION) & (ahead > 0) & (start[following] == end)
    edges = np.flatnonzero(goes_on)
    links = coo_array((np.ones(len(edges)), (edges, following[edges])), shape=(len(start),) * 2)
    count, wall = connected_components(links, directed=False)
    is_first = np.ones(len(start), bool)
    is_first[following[edges]] = False
    first = np.zeros(count, int)
    first[wall[is_first]] = np.flatnonzero(is_first)
    return wall, first


def _frames(
    starts: np.ndarray, ends: np.ndarray, wall: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Frames of walls: as high as they are rectangles, which under a gable is to the eaves."""
    along = ends[:, :2] - starts[:, :2]
    length_m, top_m = np.zeros(len(first)), np.full(len(first), np.inf)
    np.add.at(length_m, wall, np.hypot(*along.T))
    np.minimum.at(top_m, wall, np.minimum(starts[:, 2], ends[:, 2]))
    tangent = along[first] / np.hypot(*along[first].T)[:, None]
    return np.column_stack([starts[first, :2], tangent, length_m, top_m])


def _add_walls(
    builder: MeshBuilder,
    buildings: Sequence[Building],
    walls: _Walls,
    instances: np.ndarray,
    shops_m: Sequence[tuple[float, float]],
) -> None:
    materials = [buildings[k].wall_material for k in walls.owner_of_wall]
    for k in _shop_fronts(buildings, walls, shops_m):
        if f"{materials[k]}_shop" in MATERIALS:
            materials[k] += "_shop"
    rows = builder.surfaces("building", materials, instances[walls.owner_of_wall], walls.frames)
    base_m = np.array([building.base_m for building in buildings])[walls.owner]
    low_start, low_end = (at_height(top[:, :2], base_m) for top in (walls.starts, walls.ends))
    triangles = quads(low_start, low_end, walls.ends, walls.starts)
    # a roof that comes down to the base leaves a triangle, or nothing
    is_upright = np.column_stack([walls.ends[:, 2], walls.starts[:, 2]]) > base_m[:, None]
    kept = is_upright.ravel()
    builder.triangles(triangles[kept], np.repeat(rows[walls.wall], 2)[kept])


def _shop_fronts(
    buildings: Sequence[Building], walls: _Walls, shops_m: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Walls that get a shop front, once each."""
    import shapely

    owner, frames = walls.owner_of_wall, walls.frames
    on_ground = np.array([building.base_m == 0 for building in buildings])[owner]
    is_large = (frames[:, 4] >= _SHOP_WIDTH_M) & (frames[:, 5] >= _SHOP_HEIGHT_M)
    fitting = np.flatnonzero(on_ground & is_large)
    if not len(shops_m) or not len(fitting):
        return np.zeros(0, int)
    points = np.array(shapely.points(np.asarray(shops_m, dtype=float)))
    origin, along = frames[fitting, :2], frames[fitting, 2:4]
    ends = np.stack([origin, origin + along * frames[fitting, 4:5]], axis=1)
    lines = np.array(shapely.linestrings(ends))
    footprints = shapely.STRtree([building.footprint for building in buildings])
    around = dict(footprints.query(points, predicate="within").T.tolist())
    near = shapely.STRtree(lines).query(points, predicate="dwithin", distance=_SHOP_DEPTH_M).T
    distance_m = shapely.distance(points[near[:, 0]], lines[near[:, 1]])
    best: dict[int, tuple[float, int]] = {}
    for (shop, line), away_m in zip(near.tolist(), distance_m.tolist(), strict=True):
        wall = int(fitting[line])
        if around[shop] == owner[wall] if shop in around else away_m <= SHOP_REACH_M:
            best[shop] = min(best.get(shop, (np.inf, -1)), (away_m, wall))
    return np.unique([wall for _, wall in best.values()]).astype(int)
