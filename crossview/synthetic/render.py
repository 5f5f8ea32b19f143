"""What a camera and a satellite see in a world: classes, things, distances, normals, colours.

Every pixel is one exact ray through its centre. A level camera's columns are vertical half-planes
and are cast as a whole; the rays of any other camera are cast one by one, by the same code.
"""

from __future__ import annotations

import functools
import threading
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crossview.cameras import Camera, Equirectangular, map_from_camera
from crossview.frames import Pose
from crossview.grids import MapGrid
from crossview.synthetic import shading, tracing
from crossview.synthetic.appearance import Appearance
from crossview.synthetic.mesh import Mesh
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.scene import Scene
from crossview.synthetic.tracing import Fan, Index, Picture

_BUILDING = CLASSES.index("building")
_SAME_AZIMUTH_RAD = 1e-12
_MAX_TILT_DEG = 60.0


@dataclass(frozen=True, eq=False)
class Rendering:
    """What a camera sees, pixel by pixel; read-only arrays.

    Args:
        classes: Index into palette.CLASSES (Cityscapes train ids), (rows, cols) uint8. Water is
            "background", which is also the class of pixels that the lens model does not reach.
        instances: One number per thing, 0 for the ground and the sky, (rows, cols) int32.
            Numbers of movers count on from those of the scene.
        distance_m: Along the ground, from the camera's foot to the foot of what is seen;
            inf for the sky, NaN where the lens model does not reach. (rows, cols) float64.
        depth_m: Along the ray, likewise.
        normals: Unit vectors (east, north, up) that point out of what is seen, zeros in the sky,
            (rows, cols, 3) float32.
        rgb: (rows, cols, 3) uint8, None where no appearance was asked for.
    """

    classes: np.ndarray
    instances: np.ndarray
    distance_m: np.ndarray
    depth_m: np.ndarray
    normals: np.ndarray
    rgb: np.ndarray | None = None

    def __post_init__(self) -> None:
        _make_read_only(self)


@dataclass(frozen=True, eq=False)
class SatelliteView:
    """What is seen from far above, cell by cell of a map; read-only arrays.

    Args:
        grid: The cells, on the ground: with a tilt, things are displaced by relief.
        classes: As of Rendering; also instances, normals and rgb. (rows, cols) uint8.
        instances: See there.
        height_m: Above the ground, of what is seen, (rows, cols) float64.
        normals: See there.
        rgb: See there.
    """

    grid: MapGrid
    classes: np.ndarray
    instances: np.ndarray
    height_m: np.ndarray
    normals: np.ndarray
    rgb: np.ndarray | None = None

    def __post_init__(self) -> None:
        _make_read_only(self)


def render_photo(
    scene: Scene,
    pose: Pose,
    camera: Camera,
    *,
    height_m: float = 1.6,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
    movers: Mesh | None = None,
    appearance: Appearance | None = None,
) -> Rendering:
    """The photo that a camera takes in a scene; a panorama with an Equirectangular camera.

    Args:
        scene: The world, in the pose's frame.
        pose: Where the camera stands and looks.
        camera: Its model; one ray is followed through the centre of every pixel.
        height_m: Of the camera above the ground.
        pitch_deg: Positive looks up.
        roll_deg: Positive is right side down.
        movers: Cars and people of this moment.
        appearance: Light, weather and colours of this moment; without one there is no picture.

    Raises:
        ValueError: The pose has no heading, or lies inside of a building.
        ModuleNotFoundError: numba is not installed.
    """
    if pose.heading_deg is None:
        raise ValueError(f"{pose} has no heading, so a camera there looks nowhere known.")
    if not 0 < height_m < np.inf:
        raise ValueError(f"height_m must be positive metres above the ground, got {height_m}.")
    indices = _indices(scene, movers)
    eye_m = np.array([[pose.x_m, pose.y_m, height_m]])
    _require_open_air(indices[0], eye_m)
    rays = _rays(camera)
    if rays.azimuths_rad is not None and pitch_deg == roll_deg == 0:
        azimuths_rad = rays.azimuths_rad + np.deg2rad(pose.heading_deg)
        fan = Fan(
            eye_m, np.sin(azimuths_rad), np.cos(azimuths_rad), rays.slopes, rays.slopes_by_row
        )
        lengths = rays.lengths
    else:
        turn = map_from_camera(pose.heading_deg, pitch_deg, roll_deg)
        fan = Fan.of_rays(eye_m, rays.directions @ turn.T)
        lengths = np.sqrt(1.0 + fan.slopes * fan.slopes).reshape(camera.height_px, camera.width_px)
    picture = Picture.partly_lent(fan.slopes.shape[1], fan.slopes.shape[0])
    tracing.trace(indices, fan, picture)
    rgb = None
    if appearance is not None:
        rgb = shading.photo_rgb(
            indices, fan, picture, appearance, pixel_rad=rays.pixel_rad, shape=lengths.shape,
            wraps=isinstance(camera, Equirectangular),
        )  # fmt: skip
    picture = _shaped(picture, lengths.shape)
    return Rendering(
        picture.classes,
        picture.instances,
        picture.along,
        picture.along * lengths,
        picture.normals,
        rgb,
    )


def render_satellite(
    scene: Scene,
    grid: MapGrid,
    *,
    tilt_deg: float = 0.0,
    tilt_azimuth_deg: float = 0.0,
    movers: Mesh | None = None,
    appearance: Appearance | None = None,
) -> SatelliteView:
    """What a satellite sees of a scene: parallel rays through the centres of a map's cells.

    Args:
        scene: The world, in the grid's frame.
        grid: The cells, on the ground.
        tilt_deg: How far off the vertical the satellite stands. What is z m high is displaced
            by z * tan(tilt_deg), away from the satellite.
        tilt_azimuth_deg: In which direction the satellite stands, clockwise from north.
        movers: Cars and people of this moment.
        appearance: Light, weather and colours of this moment; without one there is no picture.

    Raises:
        ValueError: tilt_deg is not in [0, 60].
        ModuleNotFoundError: numba is not installed.
    """
    if not 0 <= tilt_deg <= _MAX_TILT_DEG:
        raise ValueError(
            f"tilt_deg must be from 0 (straight down) to {_MAX_TILT_DEG:g}, got {tilt_deg}."
        )
    indices, lean = _indices(scene, movers), _lean(tilt_deg, tilt_azimuth_deg)
    picture = Picture.partly_lent(grid.height, grid.width)
    tracing.drape(indices, grid, lean=lean, picture=picture)
    rgb = None
    if appearance is not None:
        view = np.array([grid.west_m, grid.north_m, grid.cell_m])
        rgb = shading.map_rgb(indices, np.array(lean), view, picture, appearance)
    picture = _shaped(picture, grid.shape)
    return SatelliteView(
        grid, picture.classes, picture.instances, picture.along, picture.normals, rgb
    )


class _Rays(NamedTuple):
    """The rays of a camera.

    Args:
        directions: In camera axes, (pixels, 3), NaN where there is none.
        pixel_rad: What the pixel in the middle sees, radians.
        azimuths_rad: Of the columns of a level camera, to the right of its heading, (cols,); None
            where the rays of a column differ, so that there are no azimuths of columns.
        slopes: Of a level camera, climb per metre along the ground, (cols, rows).
        slopes_by_row: The same, (rows, cols).
        lengths: Of a level camera, metres of ray per metre along the ground, (rows, cols).
    """

    directions: np.ndarray
    pixel_rad: float
    azimuths_rad: np.ndarray | None
    slopes: np.ndarray
    slopes_by_row: np.ndarray
    lengths: np.ndarray


@functools.lru_cache(maxsize=16)
def _rays(camera: Camera) -> _Rays:
    col, row = np.meshgrid(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px) + 0.5)
    directions = camera.rays(col, row)
    level = np.hypot(directions[..., 0], directions[..., 2])
    slopes = np.ascontiguousarray((-directions[..., 1] / level).T)
    azimuths_rad = np.arctan2(directions[..., 0], directions[..., 2])
    has_columns = bool(
        np.all(np.ptp(azimuths_rad, axis=0) < _SAME_AZIMUTH_RAD)
        and np.all(np.diff(slopes, axis=1) < 0)
        and np.all(np.abs(slopes) < tracing.MAX_SLOPE)
    )
    return _Rays(
        directions.reshape(-1, 3),
        _pixel_rad(camera),
        azimuths_rad[0] if has_columns else None,
        slopes,
        slopes.T.copy(),
        np.sqrt(1.0 + slopes * slopes).T.copy(),
    )


def _pixel_rad(camera: Camera) -> float:
    if isinstance(camera, Equirectangular):
        return 2 * np.pi / camera.width_px
    return 1 / camera.fx


def _shaped(picture: Picture, shape: tuple[int, ...]) -> Picture:
    """The same pixels in rows and columns; what renderings keep is to be read only."""
    for array in (picture.classes, picture.instances, picture.along, picture.normals):
        array.flags.writeable = False
    return Picture(*(array.reshape(*shape, *array.shape[2:]) for array in picture))


def _lean(tilt_deg: float, azimuth_deg: float) -> tuple[float, float]:
    """East and north displacement per metre of height, seen from a tilt in an azimuth."""
    shift, azimuth = np.tan(np.deg2rad(tilt_deg)), np.deg2rad(azimuth_deg)
    return float(-shift * np.sin(azimuth)), float(-shift * np.cos(azimuth))


_INDEX_OF: weakref.WeakKeyDictionary[Mesh, Index] = weakref.WeakKeyDictionary()
_INDEX_LOCK = threading.Lock()


def _indices(scene: Scene, movers: Mesh | None) -> list[Index]:
    """Indices of the scene and what moves in it, made once for each mesh."""
    with _INDEX_LOCK:
        for mesh in (scene.mesh, movers):
            if mesh is not None and mesh not in _INDEX_OF:
                _INDEX_OF[mesh] = Index.of(mesh)
        return [_INDEX_OF[mesh] for mesh in (scene.mesh, movers) if mesh is not None]


def _require_open_air(index: Index, eye_m: np.ndarray) -> None:
    """From inside of a solid, what is straight above is seen from behind."""
    above = tracing.trace([index], Fan.of_rays(eye_m, np.array([[0.0, 0.0, 1.0]])))
    if above.classes[0, 0] == _BUILDING and above.normals[0, 0, 2] > 0:
        x_m, y_m, height_m = eye_m[0]
        top_m = height_m + tracing.MAX_SLOPE * above.along[0, 0]
        raise ValueError(
            f"The camera at ({x_m:.1f}, {y_m:.1f}) m, {height_m:.1f} m up, stands inside of a "
            f"building that is {top_m:.1f} m high. Move it into the open."
        )


def _make_read_only(rendering: Rendering | SatelliteView) -> None:
    """Arrays that nobody can write to: copies, unless nobody could."""
    for name, value in vars(rendering).items():
        if isinstance(value, np.ndarray):
            whole = value if value.base is None else value.base
            own = value.copy() if value.flags.writeable or whole.flags.writeable else value
            own.flags.writeable = False
            object.__setattr__(rendering, name, own)
