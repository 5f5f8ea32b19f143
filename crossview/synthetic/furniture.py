"""What stands about in a world as triangles and ellipsoids: trees, fences, walls and hedges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crossview.synthetic.mesh import (
    MeshBuilder,
    Walls,
    at_height,
    prism,
    quads,
    regular_ring,
    triangulated,
)

if TYPE_CHECKING:
    from crossview.synthetic.scene import Barrier, Tree

TRUNK_RADIUS_M = 0.2
BARE_TRUNK_SHARE = 0.3
"""Share of a tree's height below its crown."""

_TRUNK_CORNERS = 6
_BARRIERS = {
    # class: material, and thickness in metres; of 0, a sheet that is seen from both sides
    "fence": ("fence", 0.0),
    "wall": ("stone", 0.25),
    "vegetation": ("hedge", 0.8),
}
_OTHER_BARRIER = ("concrete", 0.25)


def add_trees(builder: MeshBuilder, trees: Sequence[Tree], first_instance: int) -> int:
    """Trunks as prisms and crowns as ellipsoids; the next free instance."""
    for instance, tree in enumerate(trees, first_instance):
        half_m = tree.height_m * (1 - BARE_TRUNK_SHARE) / 2
        middle_m = tree.height_m - half_m
        trunk = regular_ring(tree.x_m, tree.y_m, TRUNK_RADIUS_M, _TRUNK_CORNERS)
        bark = builder.surface("vegetation", "bark", instance)
        builder.triangles(prism(trunk, 0.0, middle_m), bark)
        crown = builder.surface("vegetation", "leaves", instance)
        builder.crown((tree.x_m, tree.y_m, middle_m, tree.crown_radius_m, half_m), crown)
    return first_instance + len(trees)


def add_barriers(builder: MeshBuilder, barriers: Sequence[Barrier], first_instance: int) -> int:
    """Fences as sheets, walls and hedges as boxes along their lines; the next free instance."""
    for instance, barrier in enumerate(barriers, first_instance):
        material, thickness_m = _BARRIERS.get(barrier.class_name, _OTHER_BARRIER)
        row = builder.surface(barrier.class_name, material, instance)
        if thickness_m:
            builder.triangles(_box(barrier, thickness_m), row)
        else:
            builder.triangles(_sheet(barrier), row)
    return first_instance + len(barriers)


def _box(barrier: Barrier, thickness_m: float) -> np.ndarray:
    import shapely

    strip = barrier.line.buffer(thickness_m / 2, cap_style="flat", join_style="mitre")
    polygons = shapely.get_parts(strip)
    lid, _ = triangulated(polygons)
    sides = Walls.around(polygons).triangles_m(0.0, barrier.height_m)
    return np.concatenate([sides, at_height(lid, barrier.height_m)])


def _sheet(barrier: Barrier) -> np.ndarray:
    import shapely

    corners_m, line = shapely.get_coordinates(shapely.get_parts(barrier.line), return_index=True)
    first = np.flatnonzero(line[1:] == line[:-1])
    low, high = at_height(corners_m, 0.0), at_height(corners_m, barrier.height_m)
    front = quads(low[first], low[first + 1], high[first + 1], high[first])
    return np.concatenate([front, front[:, ::-1]])
