"""What a camera in a made-up town sees: the class of every pixel, and how far away it is.

Every pixel's ray is followed exactly, whatever the camera's pitch, roll and lens: the ground is
a plane, walls are vertical, roofs are flat, crowns are ellipsoids. To be quick, rays, walls and
trees are sorted into narrow sectors of azimuth, and a ray is tried only on what overlaps its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crossview.cameras import Camera, map_from_camera
from crossview.frames import Pose
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.scene import Scene

_ROAD, _SIDEWALK, _TERRAIN = (CLASSES.index(name) for name in ("road", "sidewalk", "terrain"))
_BUILDING, _VEGETATION = CLASSES.index("building"), CLASSES.index("vegetation")
_SKY, _BACKGROUND = CLASSES.index("sky"), CLASSES.index("background")

_SECTORS = 1440
_FULL_TURN_RAD = 2 * np.pi
_SECTOR_RAD = _FULL_TURN_RAD / _SECTORS
_SECTOR_SLACK = 1e-6
_CORNER_SLACK = 1e-9
"""Share of a wall by which it reaches beyond its ends, so that no ray slips through a corner."""

_TRUNK_RADIUS_M = 0.2
_BARE_TRUNK_SHARE = 0.3
"""Share of a tree's height below its crown."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """What a camera sees, pixel by pixel.

    Args:
        classes: Index into palette.CLASSES (Cityscapes train ids), (rows, cols) uint8. Water is
            "background", which is also the class of pixels that the lens model does not reach.
        distance_m: Along the ground, from the camera's foot to the foot of what is seen;
            inf for the sky, NaN where the lens model does not reach. (rows, cols) float64.
    """

    classes: np.ndarray
    distance_m: np.ndarray

    def __post_init__(self) -> None:
        for name in ("classes", "distance_m"):
            own = np.array(getattr(self, name))  # nobody else's
            own.flags.writeable = False
            object.__setattr__(self, name, own)


def render_photo(
    scene: Scene,
    pose: Pose,
    camera: Camera,
    *,
    height_m: float = 1.6,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
) -> Rendering:
    """The class image that a camera takes in a scene; a panorama with an Equirectangular camera.

    Args:
        scene: The town, in the pose's frame.
        pose: Where the camera stands and looks.
        camera: Its model; one ray is followed through the centre of every pixel.
        height_m: Of the camera above the ground.
        pitch_deg: Positive looks up.
        roll_deg: Positive is right side down.

    Raises:
        ValueError: The pose has no heading, or lies inside of a building.
    """
    if pose.heading_deg is None:
        raise ValueError(f"{pose} has no heading, so a camera there looks nowhere known.")
    if not 0 < height_m < np.inf:
        raise ValueError(f"height_m must be positive metres above the ground, got {height_m}.")
    _require_open_air(scene, pose, height_m)
    col, row = np.meshgrid(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px) + 0.5)
    directions = camera.rays(col, row) @ map_from_camera(pose.heading_deg, pitch_deg, roll_deg).T
    rays = _Rays.from_directions(directions.reshape(-1, 3))
    distance_m, classes = _first_hits(scene, np.array([pose.x_m, pose.y_m, height_m]), rays)
    return Rendering(classes.reshape(col.shape), distance_m.reshape(col.shape))


class _Rays(NamedTuple):
    """Directions as (east, north, climb) per metre along the ground; NaN where there is none."""

    east: np.ndarray
    north: np.ndarray
    climb: np.ndarray

    @classmethod
    def from_directions(cls, directions: np.ndarray) -> _Rays:
        east, north, up = directions.T
        # a ray straight up or down still needs an azimuth: it climbs very steeply to the north
        level = np.maximum(np.hypot(east, north), 1e-12)
        is_vertical = np.hypot(east, north) < 1e-12
        return cls(
            np.where(is_vertical, 0.0, east / level),
            np.where(is_vertical, 1.0, north / level),
            up / level,
        )

    def at(self, index: np.ndarray) -> _Rays:
        return _Rays(*(column[index] for column in self))

    def reach(self, eye: np.ndarray, distance_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the rays are above the ground at a distance, (x_m, y_m)."""
        return eye[0] + self.east * distance_m, eye[1] + self.north * distance_m


class _Walls(NamedTuple):
    """Vertical rectangles on the ground, relative to the camera's foot, (walls,) each."""

    start_x: np.ndarray
    start_y: np.ndarray
    along_x: np.ndarray
    along_y: np.ndarray
    top_m: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, scene: Scene, eye: np.ndarray) -> _Walls:
        """Walls of buildings, and barriers."""
        import shapely

        lines, tops_m, classes = [], [], []
        for building in scene.buildings:
            footprint = building.footprint
            for ring in (footprint.exterior, *footprint.interiors):
                lines.append(shapely.get_coordinates(ring))
                tops_m.append(building.height_m)
                classes.append(_BUILDING)
        for barrier in scene.barriers:
            lines.append(shapely.get_coordinates(barrier.line))
            tops_m.append(barrier.height_m)
            classes.append(CLASSES.index(barrier.class_name))
        num_walls = [len(line) - 1 for line in lines]
        start = np.concatenate([np.zeros((0, 2)), *(line[:-1] for line in lines)]) - eye[:2]
        end = np.concatenate([np.zeros((0, 2)), *(line[1:] for line in lines)]) - eye[:2]
        return cls(
            start[:, 0],
            start[:, 1],
            (end - start)[:, 0],
            (end - start)[:, 1],
            np.repeat(np.array(tops_m, dtype=float), num_walls),
            np.repeat(np.array(classes, dtype=np.uint8), num_walls),
        )

    def at(self, index: np.ndarray) -> _Walls:
        return _Walls(*(column[index] for column in self))

    def sectors(self) -> tuple[np.ndarray, np.ndarray]:
        """First azimuth and span of every wall as seen from the camera, radians."""
        first = np.arctan2(self.start_x, self.start_y)
        last = np.arctan2(self.start_x + self.along_x, self.start_y + self.along_y)
        turn = np.mod(last - first + np.pi, _FULL_TURN_RAD) - np.pi
        return np.where(turn >= 0, first, last), np.abs(turn)

    def distance_m(self, rays: _Rays, eye_m: float) -> np.ndarray:
        """Along the ground to every wall, inf where missed, (rays, walls)."""
        east, north, climb = rays.east[:, None], rays.north[:, None], rays.climb[:, None]
        turn = east * self.along_y - north * self.along_x
        distance = (self.start_x * self.along_y - self.start_y * self.along_x) / turn
        share = (self.start_x * north - self.start_y * east) / turn
        is_hit = (
            (distance > 0)
            & (share >= -_CORNER_SLACK)
            & (share <= 1 + _CORNER_SLACK)
            & (eye_m + climb * distance <= self.top_m)
        )
        return np.where(is_hit, distance, np.inf)


class _Trees(NamedTuple):
    """Trunks and crowns, relative to the camera's foot, (trees,) each."""

    x: np.ndarray
    y: np.ndarray
    radius_m: np.ndarray
    middle_m: np.ndarray
    half_height_m: np.ndarray

    @classmethod
    def of(cls, scene: Scene, eye: np.ndarray) -> _Trees:
        table = np.array(
            [(tree.x_m, tree.y_m, tree.height_m, tree.crown_radius_m) for tree in scene.trees]
        ).reshape(-1, 4)
        x, y, height_m, radius_m = table.T
        half_height_m = height_m * (1 - _BARE_TRUNK_SHARE) / 2
        return cls(x - eye[0], y - eye[1], radius_m, height_m - half_height_m, half_height_m)

    def at(self, index: np.ndarray) -> _Trees:
        return _Trees(*(column[index] for column in self))

    def sectors(self) -> tuple[np.ndarray, np.ndarray]:
        """First azimuth and span of every tree as seen from the camera, radians."""
        distance = np.hypot(self.x, self.y)
        reach = np.maximum(self.radius_m, _TRUNK_RADIUS_M)
        half = np.arcsin(np.minimum(reach / np.maximum(distance, 1e-9), 1.0))
        half = np.where(distance <= reach, np.pi, half)
        return np.arctan2(self.x, self.y) - half, 2 * half

    def distance_m(self, rays: _Rays, eye_m: float) -> np.ndarray:
        """Along the ground to every crown or trunk, inf where missed, (rays, trees)."""
        east, north, climb = rays.east[:, None], rays.north[:, None], rays.climb[:, None]
        ahead = east * self.x + north * self.y
        aside = east * self.y - north * self.x
        return np.minimum(
            self._crown_m(ahead, climb, eye_m), self._trunk_m(ahead, aside, climb, eye_m)
        )

    def _crown_m(self, ahead: np.ndarray, climb: np.ndarray, eye_m: float) -> np.ndarray:
        """Nearer root of the quadratic of a line and an ellipsoid; 0 from within."""
        across, upward = 1 / self.radius_m**2, 1 / self.half_height_m**2
        above = eye_m - self.middle_m
        a = across + climb**2 * upward
        b = climb * above * upward - ahead * across
        c = (self.x**2 + self.y**2) * across + above**2 * upward - 1
        discriminant = b**2 - a * c
        distance = (-b - np.sqrt(np.maximum(discriminant, 0.0))) / a
        distance = np.where(c <= 0, 0.0, distance)
        return np.where((discriminant >= 0) & (distance >= 0), distance, np.inf)

    def _trunk_m(
        self, ahead: np.ndarray, aside: np.ndarray, climb: np.ndarray, eye_m: float
    ) -> np.ndarray:
        inside = _TRUNK_RADIUS_M**2 - aside**2
        distance = ahead - np.sqrt(np.maximum(inside, 0.0))
        is_hit = (inside >= 0) & (distance > 0) & (eye_m + climb * distance <= self.middle_m)
        return np.where(is_hit, distance, np.inf)


def _first_hits(scene: Scene, eye: np.ndarray, rays: _Rays) -> tuple[np.ndarray, np.ndarray]:
    """Distance along the ground, and class, of the first thing on every ray."""
    is_seen = np.isfinite(rays.climb)
    is_down = is_seen & (rays.climb < 0)
    distance_m = np.where(is_seen, np.inf, np.nan)
    distance_m[is_down] = eye[2] / -rays.climb[is_down]
    classes = np.where(is_seen, _SKY, _BACKGROUND).astype(np.uint8)
    classes[is_down] = _TERRAIN
    for roof, roof_m in _roof_hits(scene, eye, rays):
        distance_m[roof], classes[roof] = np.minimum(distance_m[roof], roof_m), _BUILDING
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for in_sector, walls, trees in _sectors(rays, _Walls.of(scene, eye), _Trees.of(scene, eye)):
            here = rays.at(in_sector)
            wall_m, wall = _nearest(walls.distance_m(here, eye[2]))
            tree_m, _ = _nearest(trees.distance_m(here, eye[2]))
            thing_m = np.minimum(wall_m, tree_m)
            is_hit = (thing_m <= distance_m[in_sector]) & (thing_m < np.inf)
            is_wall = is_hit & (wall_m <= tree_m)
            hit = in_sector[is_hit]
            distance_m[hit], classes[hit] = thing_m[is_hit], _VEGETATION
            classes[in_sector[is_wall]] = walls.classes[wall[is_wall]]
    ground = np.flatnonzero(classes == _TERRAIN)
    classes[ground] = _ground_classes(scene, *rays.at(ground).reach(eye, distance_m[ground]))
    return distance_m, classes


def _roof_hits(
    scene: Scene, eye: np.ndarray, rays: _Rays
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every building lower than the eye: indices of the rays that meet its roof, and where."""
    import shapely

    down = np.flatnonzero(rays.climb < 0)
    for building in scene.buildings:
        if building.height_m >= eye[2]:
            continue
        roof_m = (eye[2] - building.height_m) / -rays.climb[down]
        x_m, y_m = rays.at(down).reach(eye, roof_m)
        west, south, east, north = building.footprint.bounds
        near = np.flatnonzero((x_m >= west) & (x_m <= east) & (y_m >= south) & (y_m <= north))
        is_on = shapely.contains_xy(building.footprint, x_m[near], y_m[near])
        yield down[near[is_on]], roof_m[near[is_on]]


def _ground_classes(scene: Scene, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    import shapely

    classes = np.full(x_m.shape, _TERRAIN, dtype=np.uint8)
    layers = ((scene.water, _BACKGROUND), (scene.sidewalks, _SIDEWALK), (scene.roads, _ROAD))
    for area, index in layers:
        classes[shapely.contains_xy(area, x_m, y_m)] = index
    return classes


def _nearest(distance_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest distance on every ray, and which thing it is; inf where there is no thing."""
    if not distance_m.shape[1]:
        return np.full(len(distance_m), np.inf), np.zeros(len(distance_m), dtype=int)
    which = distance_m.argmin(axis=1)
    return distance_m[np.arange(len(distance_m)), which], which


def _sectors(
    rays: _Rays, walls: _Walls, trees: _Trees
) -> Iterator[tuple[np.ndarray, _Walls, _Trees]]:
    """Sector by sector: indices of its rays, and the walls and trees that reach into it."""
    azimuth = np.arctan2(rays.east, rays.north)
    is_seen = np.isfinite(azimuth)
    seen = np.flatnonzero(is_seen)
    rays_of, first_ray = _by_sector(_sector_of(azimuth[is_seen]), seen)
    walls_of, first_wall = _overlaps(*walls.sectors())
    trees_of, first_tree = _overlaps(*trees.sectors())
    for k in np.flatnonzero(np.diff(first_ray)):
        yield (
            rays_of[first_ray[k] : first_ray[k + 1]],
            walls.at(walls_of[first_wall[k] : first_wall[k + 1]]),
            trees.at(trees_of[first_tree[k] : first_tree[k + 1]]),
        )


def _overlaps(first_rad: np.ndarray, span_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Things in every sector that their azimuths touch, as _by_sector gives them."""
    first = np.floor(first_rad / _SECTOR_RAD - _SECTOR_SLACK).astype(int)
    last = np.floor((first_rad + span_rad) / _SECTOR_RAD + _SECTOR_SLACK).astype(int)
    counts = np.minimum(last - first + 1, _SECTORS)
    thing = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return _by_sector((first[thing] + step) % _SECTORS, thing)


def _by_sector(sector: np.ndarray, thing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Things in the order of their sectors; sector k holds those from first[k] to first[k + 1]."""
    order = np.argsort(sector, kind="stable")
    return thing[order], np.searchsorted(sector[order], np.arange(_SECTORS + 1))


def _sector_of(azimuth_rad: np.ndarray) -> np.ndarray:
    return np.floor(azimuth_rad / _SECTOR_RAD).astype(int) % _SECTORS


def _require_open_air(scene: Scene, pose: Pose, height_m: float) -> None:
    import shapely

    for building in scene.buildings:
        if height_m < building.height_m and shapely.contains_xy(
            building.footprint, pose.x_m, pose.y_m
        ):
            raise ValueError(
                f"The camera at ({pose.x_m:.1f}, {pose.y_m:.1f}) m stands inside of a building "
                f"that is {building.height_m:.1f} m high. Move it into the open."
            )
