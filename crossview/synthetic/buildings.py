"""Buildings of a world as triangles: walls that know where they begin, and roofs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crossview.synthetic.mesh import MeshBuilder, Walls, at_height, triangulated

if TYPE_CHECKING:
    from crossview.synthetic.scene import Building


def add_buildings(builder: MeshBuilder, buildings: Sequence[Building], first_instance: int) -> int:
    """Closed solids, but for a floor on the ground; the next free instance."""
    footprints = np.array([building.footprint for building in buildings], dtype=object)
    tops_m = np.array([building.height_m for building in buildings])
    walls, (lids, lid_owner) = Walls.around(footprints), triangulated(footprints)
    frames = walls.frames(tops_m[walls.owner])
    rows = np.concatenate(
        [
            np.zeros(0, int),
            *(
                builder.walls("building", ["plaster"] * int(count), first_instance + k, part)
                for k, (count, part) in enumerate(_runs(walls.owner, frames, len(buildings)))
            ),
        ]
    )
    builder.triangles(walls.triangles_m(0.0, tops_m[walls.owner]), np.repeat(rows, 2))
    roofs = np.array(
        [
            builder.surface("building", "roof_gravel", first_instance + k)
            for k in range(len(buildings))
        ],
        dtype=int,
    )
    builder.triangles(at_height(lids, tops_m[lid_owner][:, None]), roofs[lid_owner])
    return first_instance + len(buildings)


def _runs(owner: np.ndarray, rows: np.ndarray, count: int) -> list[tuple[int, np.ndarray]]:
    ends = np.searchsorted(owner, np.arange(count + 1))
    return [(int(b - a), rows[a:b]) for a, b in itertools.pairwise(ends)]
