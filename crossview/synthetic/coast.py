"""The sea, of which maps only have the coast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_BESIDE_COAST_M = 0.01
_LAND_WEIGHT = 4.0
"""A part of a map is sea if it has this much more coast on the right side than on the wrong one."""


def sea(coastlines: Sequence[Any], extent: BaseGeometry) -> list[BaseGeometry]:
    """The parts of the extent to the right of coastlines, as OpenStreetMap draws them.

    A coast that ends inside of the extent, where an extract was cut along a border, goes on
    straight to the extent's nearest side. Parts with coasts on both sides are land.
    """
    import shapely

    if not coastlines:
        return []
    coast = shapely.line_merge(shapely.intersection(shapely.union_all(coastlines), extent))
    ends = shapely.get_parts(shapely.boundary(coast))
    border = extent.boundary
    lines = shapely.union_all([coast, border, *shapely.shortest_line(ends, border)])
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    corners, line = shapely.get_coordinates(shapely.get_parts(coastlines), return_index=True)
    along = np.diff(corners, axis=0)
    length_m = np.hypot(*along.T)
    is_edge = (line[1:] == line[:-1]) & (length_m > 0)
    along, length_m, start = along[is_edge], length_m[is_edge], corners[:-1][is_edge]
    right = np.column_stack([along[:, 1], -along[:, 0]]) / length_m[:, None]
    tree, wet_m = shapely.STRtree(faces), np.zeros(len(faces))
    for side in (1.0, -1.0):
        beside = shapely.points(start + along / 2 + side * _BESIDE_COAST_M * right)
        edge, face = tree.query(np.array(beside), predicate="within")
        np.add.at(wet_m, face, np.where(side > 0, 1.0, -_LAND_WEIGHT) * length_m[edge])
    return list(faces[wet_m > 0])
