"""Triangles and ellipsoids of a world, and a table of what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.palette import CLASSES

_LAYOUT = {
    # field: its shape after the first axis, its type, and the field that is as long
    "triangles_m": ((3, 3), np.float64, "surfaces"),
    "surfaces": ((), np.int32, "triangles_m"),
    "crowns_m": ((5,), np.float64, "crown_surfaces"),
    "crown_surfaces": ((), np.int32, "crowns_m"),
    "classes": ((), np.uint8, "instances"),
    "instances": ((), np.int32, "materials"),
    "materials": ((), np.uint8, "frames"),
    "frames": ((6,), np.float64, "classes"),
}


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles and upright ellipsoids, in local metres: x east, y north, z up.

    Ground lies at z = 0. The arrays are read-only copies.

    Args:
        triangles_m: Corners (x, y, z), counter-clockwise seen from outside (of the ground: from
            above), (n, 3, 3) float64.
        surfaces: Row of the surface table for every triangle, (n,) int32.
        crowns_m: Ellipsoids: x, y and z of the middle, radius in the plane, half height,
            (k, 5) float64.
        crown_surfaces: Row of the surface table for every ellipsoid, (k,) int32.
        classes: Surface table: index into palette.CLASSES, (m,) uint8.
        instances: One number per thing (a building, a tree, a car), 0 for the ground, (m,) int32.
        materials: Index into materials.MATERIALS, (m,) uint8.
        frames: Of walls: x and y of the left end as seen from outside, x and y of the unit vector
            to the right end, length, and the height up to which the wall is a rectangle (under a
            gable the eaves), in metres; zeros for what is no wall. (m, 6) float64.

    Raises:
        ValueError: Shapes do not fit, or a number points outside of its table.
    """

    triangles_m: np.ndarray
    surfaces: np.ndarray
    crowns_m: np.ndarray
    crown_surfaces: np.ndarray
    classes: np.ndarray
    instances: np.ndarray
    materials: np.ndarray
    frames: np.ndarray

    def __post_init__(self) -> None:
        for name, (shape, dtype, _) in _LAYOUT.items():
            own = np.array(getattr(self, name), dtype=dtype)  # nobody else's
            if own.shape[1:] != shape or own.ndim != len(shape) + 1:
                raise ValueError(f"{name} has the shape {own.shape}, expected (rows, *{shape}).")
            own.flags.writeable = False
            object.__setattr__(self, name, own)
        for name, (_, _, other) in _LAYOUT.items():
            if len(getattr(self, name)) != len(getattr(self, other)):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} rows and {other} "
                    f"{len(getattr(self, other))}; expected as many."
                )
        for name, end in (
            ("surfaces", len(self.classes)),
            ("crown_surfaces", len(self.classes)),
            ("classes", len(CLASSES)),
            ("materials", len(MATERIALS)),
        ):
            numbers = getattr(self, name)
            if numbers.size and not 0 <= numbers.min() <= numbers.max() < end:
                raise ValueError(
                    f"{name} runs from {numbers.min()} to {numbers.max()}; expected 0 to {end - 1}."
                )

    @classmethod
    def joined(cls, meshes: Sequence[Mesh]) -> Mesh:
        """All meshes in one, their instances as they are; nothing at all of no mesh."""
        if not meshes:
            return MeshBuilder().mesh()
        first_row = np.cumsum([0, *(len(mesh.classes) for mesh in meshes[:-1])])
        columns = {
            name: np.concatenate([getattr(mesh, name) for mesh in meshes]) for name in _LAYOUT
        }
        for name in ("surfaces", "crown_surfaces"):
            counts = [len(getattr(mesh, name)) for mesh in meshes]
            columns[name] = columns[name] + np.repeat(first_row, counts)
        return cls(**columns)

    @property
    def bounds(self) -> tuple[float, float, float, float, float, float]:
        """Least x, y and z and greatest x, y and z of everything, metres.

        Raises:
            ValueError: The mesh is empty.
        """
        corners = self.triangles_m.reshape(-1, 3)
        middle, reach = self.crowns_m[:, :3], self.crowns_m[:, [3, 3, 4]]
        points = np.concatenate([corners, middle - reach, middle + reach])
        if not len(points):
            raise ValueError("An empty mesh has no bounds.")
        west, south, low = points.min(axis=0).tolist()
        east, north, high = points.max(axis=0).tolist()
        return west, south, low, east, north, high


class MeshBuilder:
    """A mesh while it is being put together."""

    def __init__(self) -> None:
        self._surfaces: list[tuple[int, int, int]] = []
        self._frames: list[np.ndarray] = []
        self._triangles: list[np.ndarray] = []
        self._triangle_rows: list[np.ndarray] = []
        self._crowns: list[tuple[float, ...]] = []
        self._crown_rows: list[int] = []

    def surface(self, class_name: str, material: str, instance: int = 0) -> int:
        """A new row of the surface table."""
        return int(self.surfaces(class_name, [material], np.array([instance]))[0])

    def surfaces(
        self,
        class_name: str,
        materials: Sequence[str],
        instances: np.ndarray,
        frames: np.ndarray | None = None,
    ) -> np.ndarray:
        """New rows of the surface table, (rows,) int; with frames (rows, 6) for walls."""
        first, kind = len(self._surfaces), CLASSES.index(class_name)
        self._surfaces += [
            (kind, int(instance), MATERIALS.index(material))
            for material, instance in zip(materials, instances, strict=True)
        ]
        self._frames.append(np.zeros((len(materials), 6)) if frames is None else frames)
        return np.arange(first, len(self._surfaces))

    def triangles(self, corners_m: np.ndarray, rows: int | np.ndarray) -> None:
        """Triangles (n, 3, 3) of a surface, or of one surface each (n,)."""
        corners_m = np.asarray(corners_m, dtype=float).reshape(-1, 3, 3)
        self._triangles.append(corners_m)
        self._triangle_rows.append(np.broadcast_to(rows, len(corners_m)))

    def crown(self, ellipsoid: tuple[float, float, float, float, float], row: int) -> None:
        """An ellipsoid of a surface, as Mesh.crowns_m has them."""
        self._crowns.append(ellipsoid)
        self._crown_rows.append(row)

    def mesh(self) -> Mesh:
        """Everything that was added."""
        table = np.array(self._surfaces, dtype=np.int64).reshape(-1, 3)
        return Mesh(
            triangles_m=np.concatenate([np.zeros((0, 3, 3)), *self._triangles]),
            surfaces=np.concatenate([np.zeros(0, np.int32), *self._triangle_rows]),
            crowns_m=np.array(self._crowns, dtype=float).reshape(-1, 5),
            crown_surfaces=np.array(self._crown_rows, dtype=np.int32),
            classes=table[:, 0],
            instances=table[:, 1],
            materials=table[:, 2],
            frames=np.concatenate([np.zeros((0, 6)), *self._frames]),
        )


def triangulated(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons cut into triangles on their own corners, seen counter-clockwise from above.

    Args:
        polygons: Valid shapely polygons, (n,).

    Returns:
        corners_m: (triangles, 3, 2) float64.
        owner: Which polygon each triangle is of, (triangles,) int.
    """
    import shapely

    pieces, owner = shapely.get_parts(
        shapely.constrained_delaunay_triangles(np.asarray(polygons, dtype=object)),
        return_index=True,
    )
    corners_m = shapely.get_coordinates(pieces).reshape(-1, 4, 2)[:, :3]
    return _counter_clockwise(corners_m), owner


def at_height(corners_m: np.ndarray, height_m: float | np.ndarray) -> np.ndarray:
    """Flat corners (..., 2) with a height, (..., 3)."""
    height_m = np.broadcast_to(height_m, corners_m.shape[:-1])
    return np.concatenate([corners_m, height_m[..., None]], axis=-1)


def quads(
    low_start: np.ndarray, low_end: np.ndarray, high_end: np.ndarray, high_start: np.ndarray
) -> np.ndarray:
    """Two triangles for each four corners (n, 3), which run counter-clockwise, (2 n, 3, 3)."""
    first = np.stack([low_start, low_end, high_end], axis=1)
    second = np.stack([low_start, high_end, high_start], axis=1)
    return np.stack([first, second], axis=1).reshape(-1, 3, 3)


def prism(
    ring_m: np.ndarray, bottom_m: float, top_m: float, *, has_floor: bool = False
) -> np.ndarray:
    """Sides and lid of an upright convex prism over a counter-clockwise ring (corners, 2)."""
    low, high = at_height(ring_m, bottom_m), at_height(ring_m, top_m)
    sides = quads(low, np.roll(low, -1, axis=0), np.roll(high, -1, axis=0), high)
    floor = [_fan(low[::-1])] if has_floor else []
    return np.concatenate([sides, _fan(high), *floor])


def turned(offsets_m: np.ndarray, heading_deg: float | np.ndarray) -> np.ndarray:
    """Offsets (right, ahead) of things that look along headings, as (east, north), (..., 2)."""
    heading = np.radians(heading_deg)
    right, ahead = offsets_m[..., 0], offsets_m[..., 1]
    sine, cosine = np.sin(heading), np.cos(heading)
    return np.stack([right * cosine + ahead * sine, ahead * cosine - right * sine], axis=-1)


def regular_ring(x_m: float, y_m: float, radius_m: float, corners: int) -> np.ndarray:
    """A regular polygon, counter-clockwise, (corners, 2)."""
    turn = 2 * np.pi * np.arange(corners) / corners
    return np.column_stack([x_m + radius_m * np.cos(turn), y_m + radius_m * np.sin(turn)])


@dataclass(frozen=True, eq=False)
class Walls:
    """Edges of polygons that stand upright, seen from outside from left to right.

    Args:
        starts_m: Left ends, (walls, 2).
        ends_m: Right ends, (walls, 2).
        owner: Which polygon each is of, (walls,) int.
    """

    starts_m: np.ndarray
    ends_m: np.ndarray
    owner: np.ndarray

    @classmethod
    def around(cls, polygons: np.ndarray) -> Walls:
        """The edges of polygons and of their holes, longer than nothing."""
        import shapely

        # outer rings counter-clockwise, holes clockwise: the inside is on the left
        polygons = shapely.orient_polygons(np.asarray(polygons, dtype=object))
        rings, ring_owner = shapely.get_rings(polygons, return_index=True)
        corners_m, ring = shapely.get_coordinates(rings, return_index=True)
        is_edge = (ring[1:] == ring[:-1]) & (corners_m[1:] != corners_m[:-1]).any(axis=1)
        first = np.flatnonzero(is_edge)
        return cls(corners_m[first], corners_m[first + 1], ring_owner[ring[first]])

    def triangles_m(self, low_m: float | np.ndarray, high_m: float | np.ndarray) -> np.ndarray:
        """Two triangles for each wall, (2 walls, 3, 3)."""
        return quads(
            at_height(self.starts_m, low_m),
            at_height(self.ends_m, low_m),
            at_height(self.ends_m, high_m),
            at_height(self.starts_m, high_m),
        )


def _fan(ring: np.ndarray) -> np.ndarray:
    """A convex ring (corners, 3) as triangles around its first corner."""
    return np.stack([np.repeat(ring[:1], len(ring) - 2, axis=0), ring[1:-1], ring[2:]], axis=1)


def _counter_clockwise(corners_m: np.ndarray) -> np.ndarray:
    (first, second), last = np.moveaxis(corners_m[:, :2], 1, 0), corners_m[:, 2]
    a, b = second - first, last - first
    is_clockwise = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0
    turned = corners_m.copy()
    turned[is_clockwise, 1:] = corners_m[is_clockwise, :0:-1]
    return turned
