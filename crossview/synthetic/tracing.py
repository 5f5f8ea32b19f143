"""What a ray meets first in a mesh: an index of its triangles and ellipsoids, and casting rays."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.mesh import Mesh
from crossview.synthetic.palette import CLASSES

if TYPE_CHECKING:
    from crossview.grids import MapGrid

CELL_M = 4.0
"""Of the index of what stands up (3 m are 5 % quicker, 8 m a third slower); larger where a mesh
is so wide that there would be too many."""

GROUND_CELL_M = 1.0
"""Of the index of the ground, likewise."""

MAX_SLOPE = 1e10
"""Of rays: those straight up or down climb so steeply to the north."""

_MAX_CELLS = 16_000_000
_FLAT_M = 1e-12
"""Triangles no higher than this are ground."""

_WITHOUT_SURFACE = ("background", "sky", "terrain")
"""Classes where there is no ray, nothing on the ray, and ground beyond the mesh."""


class Things(NamedTuple):
    """What stands up, and what of it is in each cell of a grid.

    Args:
        triangles: Corners, (n, 3, 3) float64.
        crowns: Upright ellipsoids as in Mesh, (k, 5) float64; crown k is thing n + k.
        starts: Where the things of each cell start in items, (cells + 1,) int64.
        items: Numbers of things, int32.
        tops: Height of the highest thing in each cell, (cells,) float64.
        grid: West, south, cell, columns and rows (row 0 is south), height of the highest thing.
        normals: Unit vectors of the triangles, outward, (n, 3) float32.
        surfaces: Rows of the surface table, (n,) int32.
        crown_surfaces: (k,) int32.
    """

    triangles: np.ndarray
    crowns: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    tops: np.ndarray
    grid: np.ndarray
    normals: np.ndarray
    surfaces: np.ndarray
    crown_surfaces: np.ndarray


class Ground(NamedTuple):
    """The triangles of the ground, and what of them is in each cell of a grid of its own.

    Args:
        triangles: (g, 3, 3) float64.
        surfaces: (g,) int32.
        starts: As of Things; also items and grid.
        items: See there.
        grid: See there.
        owners: The triangle that holds all of a cell, -1 where none does, (cells,) int32.
    """

    triangles: np.ndarray
    surfaces: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    grid: np.ndarray
    owners: np.ndarray


class Table(NamedTuple):
    """The surface table of a mesh, and what is shown where there is no surface.

    Args:
        classes: As of Mesh; also instances, materials and frames.
        instances: See there.
        materials: See there.
        frames: See there.
        nothing: Classes without a ray, of the sky, of bare ground, and its material, (4,) uint8.
    """

    classes: np.ndarray
    instances: np.ndarray
    materials: np.ndarray
    frames: np.ndarray
    nothing: np.ndarray


class Picture(NamedTuple):
    """What rays met first, (rows, columns, ...) each.

    Args:
        along: Metres along the ground from below the eye, inf in the sky, NaN where there is no
            ray; of parallel rays, metres above the ground. float64.
        hits: Number of the thing in its mesh, or a constant of trace_kernels, int32.
        meshes: Number of the mesh, int8.
        surfaces: Row of the mesh's surface table, -1 where there is none, int32.
        classes: Index into palette.CLASSES, uint8.
        instances: int32; those of later meshes count on from those of earlier ones.
        materials: Index into materials.MATERIALS, uint8.
        normals: Unit vectors, (rows, columns, 3) float32; zeros in the sky.
        walls: Of walls: metres from the left end, length, height of the top, and a whole number
            that tells walls apart, (rows, columns, 4) float32; zeros elsewhere.
    """

    along: np.ndarray
    hits: np.ndarray
    meshes: np.ndarray
    surfaces: np.ndarray
    classes: np.ndarray
    instances: np.ndarray
    materials: np.ndarray
    normals: np.ndarray
    walls: np.ndarray

    @classmethod
    def blank(cls, height: int, width: int) -> Picture:
        """Memory for one."""
        return cls(*(np.empty((height, width, *rest), kind) for rest, kind in _PIXEL))

    @classmethod
    def partly_lent(cls, height: int, width: int) -> Picture:
        """Memory for one, of which this thread's next one takes all but what renderings keep.

        Fresh memory costs as much time as drawing into it.
        """
        shape = height, width
        if getattr(_LENT, "shape", None) != shape:
            _LENT.shape, _LENT.picture = shape, cls.blank(height, width)
        kept: dict[str, np.ndarray] = {
            name: np.empty((*shape, *rest), kind)
            for name, (rest, kind) in zip(cls._fields, _PIXEL, strict=True)
            if name in ("along", "classes", "instances", "normals")
        }
        return _LENT.picture._replace(**kept)


_PIXEL: tuple[tuple[tuple[int, ...], type], ...] = (
    ((), np.float64),
    ((), np.int32),
    ((), np.int8),
    ((), np.int32),
    ((), np.uint8),
    ((), np.int32),
    ((), np.uint8),
    ((3,), np.float32),
    ((4,), np.float32),
)
"""Shape and type of a pixel in each of the arrays of a picture."""

_LENT = threading.local()


class Fan(NamedTuple):
    """Rays in columns, each column in one vertical half-plane.

    Args:
        eyes: Where each column's rays start, above the ground, (columns, 3), or all, (1, 3).
        sines: Of the columns' azimuths: east per metre along the ground, (columns,).
        cosines: North per metre along the ground, (columns,).
        slopes: Climb per metre along the ground, (columns, rows); they fall from row to row. NaN
            is no ray, and only where a column has one row.
        slopes_by_row: The same in the order of memory of a picture, (rows, columns).
    """

    eyes: np.ndarray
    sines: np.ndarray
    cosines: np.ndarray
    slopes: np.ndarray
    slopes_by_row: np.ndarray

    @classmethod
    def of_rays(cls, eyes_m: np.ndarray, directions: np.ndarray) -> Fan:
        """One column for every ray.

        Args:
            eyes_m: Where they start: (3,), or (rays, 3).
            directions: East, north and up, any length, (rays, 3); NaN is no ray.
        """
        east, north, up = np.asarray(directions, dtype=float).reshape(-1, 3).T
        level = np.hypot(east, north)
        is_level = level > np.abs(up) / MAX_SLOPE
        level = np.where(is_level, level, 1.0)
        slopes = np.where(is_level, up / level, np.where(up > 0, MAX_SLOPE, -MAX_SLOPE))
        slopes[np.isnan(up + level)] = np.nan
        return cls(
            np.atleast_2d(np.asarray(eyes_m, dtype=float)),
            np.where(is_level, east / level, 0.0),
            np.where(is_level, north / level, 1.0),
            slopes[:, None],
            slopes[None],
        )


@dataclass(frozen=True, eq=False)
class Index:
    """A mesh that rays can be cast into.

    Args:
        things: What stands up.
        ground: What lies.
        table: What the surfaces are.
    """

    things: Things
    ground: Ground
    table: Table

    @classmethod
    def of(cls, mesh: Mesh) -> Index:
        """Sort a mesh into cells.

        Raises:
            ModuleNotFoundError: numba is not installed.
        """
        is_ground = np.all(np.abs(mesh.triangles_m[:, :, 2]) <= _FLAT_M, axis=1)
        standing, ground = np.flatnonzero(~is_ground), mesh.triangles_m[is_ground]
        standing = standing[_by_place(mesh.triangles_m[standing])]
        triangles = mesh.triangles_m[standing]
        starts, items, tops, grid = _binned(triangles, mesh.crowns_m, CELL_M)
        things = Things(
            triangles, mesh.crowns_m, starts, items, tops, grid,
            _normals(triangles), mesh.surfaces[standing], mesh.crown_surfaces,
        )  # fmt: skip
        starts, items, _, grid = _binned(ground, np.zeros((0, 5)), GROUND_CELL_M)
        owners = kernels().ground_owners(ground, starts, items, grid)
        nothing = [CLASSES.index(name) for name in _WITHOUT_SURFACE] + [MATERIALS.index("soil")]
        return cls(
            _read_only(things),
            _read_only(Ground(ground, mesh.surfaces[is_ground], starts, items, grid, owners)),
            _read_only(
                Table(
                    mesh.classes,
                    mesh.instances,
                    mesh.materials,
                    mesh.frames,
                    np.array(nothing, np.uint8),
                )
            ),
        )

    @functools.cached_property
    def lamps_m(self) -> np.ndarray:
        """Where lamps hang, x and y, (lamps, 2) float64."""
        materials = self.table.materials[self.things.surfaces]
        heads = np.flatnonzero(materials == MATERIALS.index("lamp"))
        instances = self.table.instances[self.things.surfaces[heads]]
        _, first = np.unique(instances, return_index=True)
        return self.things.triangles[heads[first]].mean(axis=1)[:, :2].copy()

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(
            array.nbytes for part in (self.things, self.ground, self.table) for array in part
        )


@functools.cache
def kernels() -> Any:
    """The compiled functions, trace_kernels.

    Raises:
        ModuleNotFoundError: numba is not installed.
    """
    if importlib.util.find_spec("numba") is None:
        raise ModuleNotFoundError(
            "Rendering needs numba, which is not installed: pip install 'crossview[render]'."
        )
    from crossview.synthetic import trace_kernels

    return trace_kernels


def trace(indices: Sequence[Index], fan: Fan, picture: Picture | None = None) -> Picture:
    """What the rays of a fan meet first.

    Args:
        indices: Meshes, at least one; the ground is that of the first. Of things in the same
            place those of earlier meshes are seen.
        fan: The rays.
        picture: Memory for the answer, fresh without.
    """
    if picture is None:
        picture = Picture.blank(fan.slopes.shape[1], fan.slopes.shape[0])
    for number, index in enumerate(indices):
        kernels().cast(fan, index.things, number, picture)
    for number, (first, index) in enumerate(_counted(indices)):
        kernels().describe_fan(fan, index.things, index.ground, index.table, number, first, picture)
    return picture


def drape(
    indices: Sequence[Index],
    grid: MapGrid,
    *,
    lean: tuple[float, float],
    picture: Picture | None = None,
) -> Picture:
    """What parallel rays through the centres of a map's cells meet first.

    Args:
        indices: As trace takes them.
        grid: The map, on the ground.
        lean: How far east and north things appear displaced per metre of height.
        picture: Memory for the answer, fresh without.
    """
    if picture is None:
        picture = Picture.blank(grid.height, grid.width)
    picture.along[:], picture.hits[:], picture.meshes[:] = 0.0, kernels().GROUND, 0
    leaning, view = np.array(lean, float), np.array([grid.west_m, grid.north_m, grid.cell_m])
    for number, index in enumerate(indices):
        kernels().drape(leaning, view, index.things, number, picture)
    for number, (first, index) in enumerate(_counted(indices)):
        kernels().describe_draped(
            leaning, view, index.things, index.ground, index.table, number, first, picture
        )
    return picture


def _counted(indices: Sequence[Index]) -> list[tuple[int, Index]]:
    """Every index, and what is added to its instances."""
    most = [int(index.table.instances.max(initial=0)) for index in indices]
    return list(zip(np.cumsum([0, *most[:-1]]).tolist(), indices, strict=True))


def _by_place(triangles: np.ndarray) -> np.ndarray:
    """An order in which neighbours are neighbours in memory too."""
    col, row = np.floor(triangles[:, :, :2].mean(axis=1) / CELL_M).astype(np.int64).T
    return np.lexsort((col, row))


def _binned(triangles: np.ndarray, crowns: np.ndarray, cell_m: float) -> tuple[np.ndarray, ...]:
    """Starts, items, tops and grid of things."""
    corners, middle, reach = triangles.reshape(-1, 3), crowns[:, :2], crowns[:, 3:4]
    points = np.concatenate([corners[:, :2], middle - reach, middle + reach])
    if not len(points):
        empty = np.zeros(0)
        return np.zeros(1, np.int64), np.zeros(0, np.int32), empty, np.zeros(6)
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    cell_m = max(cell_m, float(np.sqrt(size.prod() / _MAX_CELLS)), float(size.max() / _MAX_CELLS))
    num_cols, num_rows = np.floor(size / cell_m) + 1
    grid = np.array([*low, cell_m, num_cols, num_rows, 0.0])
    starts, items, tops = kernels().binned(triangles, crowns, grid)
    grid[5] = tops.max()
    return starts, items, tops, grid


def _normals(triangles: np.ndarray) -> np.ndarray:
    """Unit vectors, zeros of triangles without an area, (n, 3) float32."""
    first, second, third = np.moveaxis(triangles, 1, 0)
    normals = np.cross(second - first, third - first)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0).astype(
        np.float32
    )


def _read_only(arrays: Any) -> Any:
    """The same arrays, which nobody can write to (and always of one type for the compiler)."""
    own = []
    for array in arrays:
        view = np.ascontiguousarray(array).view()
        view.flags.writeable = False
        own.append(view)
    return type(arrays)(*own)
