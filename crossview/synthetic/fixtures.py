"""What stands about in a world as triangles and ellipsoids: trees, fences, lamps, signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crossview.synthetic.mesh import (
    MeshBuilder,
    Walls,
    at_height,
    prism,
    quads,
    regular_ring,
    triangulated,
    turned,
)

if TYPE_CHECKING:
    from crossview.synthetic.things import Barrier, Post, Tree

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
        crown = builder.surface("vegetation", tree.leaves, instance)
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


class _Part(NamedTuple):
    """A box or a mast of a post: beside it along its facing, from one height to another."""

    class_name: str
    material: str
    ahead_m: tuple[float, float]
    half_width_m: float
    low_m: float
    high_m: float


def _mast(material: str, radius_m: float, high_m: float) -> _Part:
    return _Part("pole", material, (-radius_m, radius_m), radius_m, 0.0, high_m)


POSTS: Mapping[str, tuple[_Part, ...]] = MappingProxyType(
    {
        "lamp": (
            _mast("metal", 0.07, 6.0),
            _Part("pole", "metal", (0.0, 1.2), 0.04, 5.9, 6.0),
            _Part("pole", "lamp", (0.9, 1.5), 0.12, 5.75, 5.9),
        ),
        "signal": (
            _mast("metal", 0.06, 3.3),
            _Part("traffic light", "signal", (0.06, 0.3), 0.15, 2.3, 3.2),
        ),
        "sign": (
            _mast("metal", 0.035, 2.6),
            _Part("traffic sign", "sign", (0.035, 0.06), 0.3, 2.0, 2.6),
        ),
        "pole": (
            _mast("bark", 0.12, 9.0),
            _Part("pole", "bark", (-0.06, 0.06), 0.9, 8.3, 8.42),
        ),
        "mast": (_mast("metal", 0.08, 8.0),),
        "bollard": (_mast("metal", 0.08, 0.9),),
    }
)
"""What posts are made of; the first part is the mast, a prism of eight sides, the others boxes."""

_MAST_CORNERS = 8
_BENCH_LENGTH_M = 1.6


def add_posts(builder: MeshBuilder, posts: Sequence[Post], first_instance: int) -> int:
    """Masts with what hangs on them; the next free instance."""
    for instance, post in enumerate(posts, first_instance):
        mast, *boxes = POSTS[post.kind]
        ring = regular_ring(post.x_m, post.y_m, mast.half_width_m, _MAST_CORNERS)
        row = builder.surface(mast.class_name, mast.material, instance)
        builder.triangles(prism(ring, 0.0, mast.high_m), row)
        for box in boxes:
            row = builder.surface(box.class_name, box.material, instance)
            corners = _rectangle(box.ahead_m, box.half_width_m)
            ring = turned(corners, post.facing_deg) + np.array([post.x_m, post.y_m])
            builder.triangles(prism(ring, box.low_m, box.high_m, has_floor=True), row)
    return first_instance + len(posts)


def add_benches(
    builder: MeshBuilder, benches: Sequence[tuple[float, float, float]], first_instance: int
) -> int:
    """A seat and a back, of no class; the next free instance."""
    seat = _rectangle((-0.25, 0.2), _BENCH_LENGTH_M / 2), 0.0, 0.45
    back = _rectangle((-0.3, -0.25), _BENCH_LENGTH_M / 2), 0.0, 0.85
    for instance, (x_m, y_m, facing_deg) in enumerate(benches, first_instance):
        row = builder.surface("background", "timber", instance)
        for corners, low_m, high_m in (seat, back):
            ring = turned(corners, facing_deg) + np.array([x_m, y_m])
            builder.triangles(prism(ring, low_m, high_m), row)
    return first_instance + len(benches)


def _rectangle(ahead_m: tuple[float, float], half_width_m: float) -> np.ndarray:
    """Corners (right, ahead) of a rectangle, counter-clockwise, (4, 2)."""
    (near, far), side = ahead_m, half_width_m
    return np.array([(-side, near), (side, near), (side, far), (-side, far)])
