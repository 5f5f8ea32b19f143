"""The ground of a world: layers on top of each other as triangles that do not overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crossview.synthetic.mesh import Mesh, MeshBuilder, at_height, triangulated

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

GRID_M = 2.0**-10
"""Corners of the ground lie on this grid (1 mm), so that borders that cross are cut cleanly."""

_CORNERS_PER_CELL = 300
"""The plane is quartered until no more corners of borders lie in a cell: cutting a cell takes
longer than in proportion."""

_LARGEST_CELL_M = 1024.0
_SMALLEST_CELL_M = 2.0


class Layer(NamedTuple):
    """An area of the ground, and what it is."""

    class_name: str
    material: str
    area: BaseGeometry


class _Cell(NamedTuple):
    west_m: float
    south_m: float
    east_m: float
    north_m: float


def ground_mesh(
    layers: Sequence[Layer], bounds_m: tuple[float, float, float, float], *, rest: tuple[str, str]
) -> Mesh:
    """Triangles at height 0 that fill a rectangle without a gap or an overlap.

    Args:
        layers: The uppermost first: where areas overlap, the first one is seen.
        bounds_m: West, south, east and north of the rectangle; grown to whole millimetres.
        rest: Class and material of what no layer covers.
    """
    import shapely

    layers = [layer for layer in layers if not layer.area.is_empty]
    borders = shapely.boundary([layer.area for layer in layers])
    lines = np.array([line for line in shapely.get_parts(borders) if line.length > 0], dtype=object)
    faces = np.concatenate(
        [_faces(cell, inside) for cell, inside in _quartered(_snapped(bounds_m), lines)]
    )
    which = _uppermost(layers, faces)
    corners_m, owner = triangulated(faces)
    builder = MeshBuilder()
    kinds = [(layer.class_name, layer.material) for layer in layers] + [rest]
    rows = np.array([builder.surface(*kind) for kind in kinds])
    builder.triangles(at_height(corners_m, 0.0), rows[which[owner]])
    return builder.mesh()


def _snapped(bounds_m: tuple[float, float, float, float]) -> _Cell:
    low, high = np.floor(np.array(bounds_m[:2]) / GRID_M), np.ceil(np.array(bounds_m[2:]) / GRID_M)
    return _Cell(*(np.concatenate([low, high]) * GRID_M).tolist())


def _quartered(cell: _Cell, lines: np.ndarray) -> Iterator[tuple[_Cell, np.ndarray]]:
    """Rectangles that hold few corners each, with what of the lines is inside."""
    import shapely

    inside = shapely.clip_by_rect(lines, *cell)
    inside = shapely.get_parts(inside[~shapely.is_empty(inside)])
    width_m, height_m = cell.east_m - cell.west_m, cell.north_m - cell.south_m
    is_small = max(width_m, height_m) <= _LARGEST_CELL_M
    if (is_small and shapely.get_num_coordinates(inside).sum() <= _CORNERS_PER_CELL) or max(
        width_m, height_m
    ) <= _SMALLEST_CELL_M:
        yield cell, inside
        return
    if width_m >= height_m:
        middle_m = float(np.round((cell.west_m + cell.east_m) / 2 / GRID_M) * GRID_M)
        halves = cell._replace(east_m=middle_m), cell._replace(west_m=middle_m)
    else:
        middle_m = float(np.round((cell.south_m + cell.north_m) / 2 / GRID_M) * GRID_M)
        halves = cell._replace(north_m=middle_m), cell._replace(south_m=middle_m)
    for half in halves:
        yield from _quartered(half, inside)


def _faces(cell: _Cell, lines: np.ndarray) -> np.ndarray:
    """The polygons into which lines cut a cell."""
    import shapely

    square = shapely.box(*cell)
    if not len(lines):
        return np.array([square], dtype=object)
    noded = shapely.union_all([*lines, square.exterior], grid_size=GRID_M)
    return shapely.get_parts(shapely.polygonize(shapely.get_parts(noded)))


def _uppermost(layers: Sequence[Layer], faces: np.ndarray) -> np.ndarray:
    """The first layer that each face lies in, (faces,) int; len(layers) where there is none."""
    import shapely

    points = shapely.point_on_surface(faces)
    x_m, y_m = shapely.get_x(points), shapely.get_y(points)
    which = np.full(len(faces), len(layers))
    for k, layer in enumerate(layers):
        left = np.flatnonzero(which == len(layers))
        shapely.prepare(layer.area)
        which[left[shapely.contains_xy(layer.area, x_m[left], y_m[left])]] = k
    return which
