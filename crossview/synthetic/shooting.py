"""Photographing a part of a synthetic dataset: images on the disk, and rows of its tables.

Every place and every tile depends on the recipe and its own number alone, so that parts can be made
in any order, by any process, and again.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crossview import atomic
from crossview.cameras import Camera, Equirectangular
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import Bounds, MapGrid
from crossview.synthetic import drives, label_noise, moments
from crossview.synthetic.mesh import Mesh
from crossview.synthetic.moments import Moment, rng_of, seed_of
from crossview.synthetic.palette import CLASS_COLORS
from crossview.synthetic.places import Place, open_place
from crossview.synthetic.recipes import TILE_OVERLAP, Recipe
from crossview.synthetic.render import Rendering, SatelliteView, render_photo, render_satellite
from crossview.synthetic.worlds import World

BLOCK = 32
"""Places that are made at a time, and share their traffic: building its index takes a while."""

TILES_BLOCK = 32
FLIGHTS_KEPT = 16
"""Flights whose traffic is kept for the next tile; of a city they are tens of megabytes each."""

IMAGES_PER_FOLDER = 1000

DEPTH_UNIT_M = 0.01
"""Of depth and height images, 16 bits: 0 is the sky (or the ground), 65535 655.35 m and more."""

JPEG_QUALITY = 95
PROVIDER = "crossview synthesize"
POSITIVE, SEMIPOSITIVE = "positive", "semipositive"
"""A view is in the middle half of a tile, or further out; after VIGOR (Zhu et al., 2021)."""

_PALETTE = np.array(list(CLASS_COLORS.values()), np.uint8).tobytes()
_MOST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Block:
    """A part of a dataset.

    Args:
        region: Name of the world.
        map_path: Its map file.
        map_sha256: Of that.
        what: Places to stand at, or tiles of the grid.
        first: Number of the first.
        count: How many.
        drive: Number of their drive; -1 where there is none.
    """

    region: str
    map_path: str
    map_sha256: str
    what: Literal["places", "tiles"]
    first: int
    count: int
    drive: int = -1

    @property
    def key(self) -> str:
        """Its name."""
        return f"{self.region} {self.what} {self.first}"


@dataclass
class Made:
    """What became of a block, as plain values.

    Args:
        key: Of the block.
        rows: Rows of the manifest's tables, by table.
        labels: SHA-256 of the class images by view, of datasets of photos in colours.
        times: Facts of the moments.
        motions: Rows of the odometry.
        files: SHA-256 of every file that was written, by its path below the dataset.
        refused: Why places were refused, and how often.
        num_bytes: Of all files.
    """

    key: str
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    times: list[dict[str, Any]] = field(default_factory=list)
    motions: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    num_bytes: int = 0


@functools.lru_cache(maxsize=2)
def world_of(region: str, map_path: str, map_sha256: str) -> World:  # noqa: ARG001 (the file's content)
    """The world of a map file, kept for the next block."""
    return World.read(region, Path(map_path))


def make(recipe: Recipe, folder: Path, block: Block) -> Made:
    """Take all photos, or tiles, of a block and write them into a dataset's folder.

    Raises:
        OSError: The disk is full, or cannot be written to.
    """
    world = world_of(block.region, block.map_path, block.map_sha256)
    shot = _Shot(recipe, folder, world, Made(block.key))
    if block.what == "tiles":
        shot.grid_tiles(block)
    else:
        shot.places(block)
    return shot.made


def warm_up(recipe: Recipe, world: World) -> None:
    """Compile what renders, so that of several processes only the first one has to."""
    west, _, _, north = world.bounds_m
    looks = {} if recipe.pictures == "classes" else {"appearance": appearance_of(recipe, "", 0)}
    camera = Equirectangular(4, 2)
    pose, height_m = Pose(west, north, 0.0), 1000.0  # above everything
    render_photo(world.scene, pose, camera, height_m=height_m, **looks)
    if recipe.tiles != "none":
        render_satellite(world.scene, MapGrid(world.frame, west, north, 1.0, 2, 2), **looks)


def lattice(recipe: Recipe, bounds_m: Bounds) -> tuple[int, int, int, int]:
    """Tiles of a grid whose middle halves cover a box: first column and row, and how many.

    The lattice is that of the frame; rows count from the north.
    """
    step_m = recipe.side_m * (1 - TILE_OVERLAP)
    west, south, east, north = (side / step_m for side in bounds_m)
    col, row = int(np.floor(west)), int(np.ceil(north))
    return col, row, int(np.ceil(east)) - col, row - int(np.floor(south))


def grid_tile(recipe: Recipe, frame: LocalFrame, bounds_m: Bounds, number: int) -> MapGrid:
    """A tile of the grid, by its number: row by row from the north-west."""
    first_col, first_row, num_cols, _ = lattice(recipe, bounds_m)
    row, col = divmod(number, num_cols)
    step_m = recipe.side_m * (1 - TILE_OVERLAP)
    margin_m = (recipe.side_m - step_m) / 2
    return MapGrid(
        frame,
        (first_col + col) * step_m - margin_m,
        (first_row - row) * step_m + margin_m,
        recipe.cell_m,
        recipe.tile_px,
        recipe.tile_px,
    )


def grid_tile_id(recipe: Recipe, region: str, bounds_m: Bounds, number: int) -> str:
    """Its name."""
    row, col = divmod(number, lattice(recipe, bounds_m)[2])
    return f"{region}_r{row:04d}_c{col:04d}"


def tiles_showing(
    recipe: Recipe, region: str, bounds_m: Bounds, pose: Pose
) -> list[tuple[str, str]]:
    """Tiles of the grid that show a place, and how: the positive one first."""
    first_col, first_row, num_cols, num_rows = lattice(recipe, bounds_m)
    step_m = recipe.side_m * (1 - TILE_OVERLAP)
    own_col = int(np.floor(pose.x_m / step_m)) - first_col
    own_row = first_row - 1 - int(np.floor(pose.y_m / step_m))
    reach = recipe.side_m / 2 / step_m
    found = []
    for row in range(max(0, own_row - 1), min(num_rows, own_row + 2)):
        for col in range(max(0, own_col - 1), min(num_cols, own_col + 2)):
            across = abs(pose.x_m / step_m - (first_col + col + 0.5))
            up = abs(pose.y_m / step_m - (first_row - row - 0.5))
            if max(across, up) > reach:
                continue
            relation = POSITIVE if (row, col) == (own_row, own_col) else SEMIPOSITIVE
            found.append((grid_tile_id(recipe, region, bounds_m, row * num_cols + col), relation))
    return sorted(found, key=lambda one: one[1])


@functools.lru_cache(maxsize=FLIGHTS_KEPT)
def flight_of(recipe: Recipe, region: str, number: int) -> Moment:
    """When a flight over a world takes its tiles."""
    rng = rng_of(recipe.seed, region, moments.FLIGHTS, number)
    return Moment(
        f"{region}-flight-{number}",
        appearance_of(recipe, region, number, stream=moments.AIR),
        seed_of(recipe.seed, region, moments.FLIGHTS, number),
        tilt_deg=recipe.max_tilt_deg * float(np.sqrt(rng.uniform())),
        tilt_azimuth_deg=float(rng.uniform(0.0, 360.0)),
    )


def drive_places(
    recipe: Recipe, world: World, drive: int, count: int
) -> tuple[list[Place], Counter[str]]:
    """The frames of a drive, all in the open, and how often frames of other routes were refused.

    Of some routes the first that is long enough and open all along is taken, else the one that is
    longest in the open from its start.
    """
    refused: Counter[str] = Counter()
    best: list[Pose] = []
    graph = _graph(world)
    length_m = (count + 1) * recipe.spacing_m
    for attempt in range(ROUTES):
        rng = rng_of(recipe.seed, world.region, moments.DRIVES, ROUTES * drive + attempt)
        poses = drives.poses_along(
            graph.route(rng, length_m), spacing_m=recipe.spacing_m, count=count
        )
        good: list[Pose] = []
        for pose in poses:
            why = world.obstacles.refusal(pose.x_m, pose.y_m, recipe.height_m)
            if why is not None:
                refused[why] += 1
                break
            good.append(pose)
        if len(good) > len(best):
            best = good
        if len(best) == count:
            break
    return [Place(pose, "lane") for pose in best], refused


ROUTES = 20
"""That are tried for a drive."""


@functools.lru_cache(maxsize=2)
def _graph(world: World) -> drives.RoadGraph:
    return drives.RoadGraph(world.scene, world.bounds_m)


@functools.lru_cache(maxsize=FLIGHTS_KEPT)
def _flown_over(recipe: Recipe, world: World, seed: int) -> Mesh | None:
    return moments.traffic(world.scene, seed, recipe.traffic)


def appearance_of(recipe: Recipe, region: str, number: int, *, stream: int = moments.PHOTOS) -> Any:
    """What a world looks like when the photos of a place, or of a drive, are taken.

    Args:
        recipe: What is made.
        region: Name of the world.
        number: Of the place or drive.
        stream: moments.PHOTOS, or AIR for flights.

    Returns:
        An Appearance, or None where class images are made.
    """
    if recipe.pictures == "classes":
        return None
    rng = rng_of(recipe.seed, region, stream, number)
    if stream == moments.AIR:
        return moments.daylight(rng, recipe.randomness)
    from crossview.synthetic.appearance import Appearance

    return Appearance.drawn(int(rng.integers(2**32)), randomness=recipe.randomness)


class _Shot:
    """Takes pictures in one world and keeps account."""

    def __init__(self, recipe: Recipe, folder: Path, world: World, made: Made) -> None:
        self.made = made
        self._recipe = recipe
        self._folder = folder
        self._world = world
        self._refused: Counter[str] = Counter()
        self._planned: list[tuple[str, MapGrid, int]] = []

    def places(self, block: Block) -> None:
        recipe, world = self._recipe, self._world
        is_drive = block.drive >= 0
        if is_drive:
            found, self._refused = drive_places(recipe, world, block.drive, block.count)
            heights_m = [recipe.height_m] * len(found)
            self._odometry(found, block)
        else:
            numbers = range(block.first, block.first + block.count)
            heights_m = [self._height_m(number) for number in numbers]
            found = [self._place(*one) for one in zip(numbers, heights_m, strict=True)]
        group = block.drive if is_drive else block.first // BLOCK
        movers_seed = seed_of(recipe.seed, world.region, moments.STREETS, group)
        keep_out_m = [(place.pose.x_m, place.pose.y_m) for place in found]
        traffic = moments.traffic(world.scene, movers_seed, recipe.traffic, keep_out_m=keep_out_m)
        for k, (place, height_m) in enumerate(zip(found, heights_m, strict=True)):
            number = block.first + k
            time = block.drive if is_drive else number
            name = f"{world.region}-{'drive' if is_drive else 'time'}-{time:06d}"
            looks = appearance_of(recipe, world.region, time)
            moment = Moment(name, looks, movers_seed)
            sequence_id = self._sequence_id(block.drive) if is_drive else ""
            self._station(place, height_m, moment, traffic, number=number, sequence_id=sequence_id)
            if not is_drive or k == 0:
                self.made.times.append({**moment.facts(), "traffic": recipe.traffic})
        self._tiles()
        self.made.refused = dict(self._refused)

    def grid_tiles(self, block: Block) -> None:
        recipe, world = self._recipe, self._world
        for number in range(block.first, block.first + block.count):
            grid = grid_tile(recipe, world.frame, world.bounds_m, number)
            tile_id = grid_tile_id(recipe, world.region, world.bounds_m, number)
            self._planned.append((tile_id, grid, number))
        self._tiles()

    def _height_m(self, number: int) -> float:
        recipe = self._recipe
        rng = rng_of(recipe.seed, self._world.region, moments.HEIGHTS, number)
        return recipe.height_m + recipe.height_spread_m * float(rng.uniform(-1.0, 1.0))

    def _place(self, number: int, height_m: float) -> Place:
        recipe, world = self._recipe, self._world
        rng = rng_of(recipe.seed, world.region, moments.PLACES, number)
        return open_place(
            lambda: world.streets.place(
                rng, sidewalks=recipe.sidewalks, spread_deg=recipe.heading_spread_deg
            ),
            world.obstacles,
            height_m,
            refused=self._refused,
        )

    def _odometry(self, found: list[Place], block: Block) -> None:
        poses = [place.pose for place in found]
        rng = rng_of(self._recipe.seed, self._world.region, moments.PLACES, block.drive)
        for k, motion in enumerate(drives.odometry(poses, rng), 1):
            number = block.first + k
            row = {"sequence_id": self._sequence_id(block.drive), "order": number}
            row |= {"station_id": self._station_id(number), **vars(motion)}
            self.made.motions.append(row)

    def _station(
        self,
        place: Place,
        height_m: float,
        moment: Moment,
        traffic: Mesh | None,
        *,
        number: int,
        sequence_id: str,
    ) -> None:
        recipe, world = self._recipe, self._world
        rng = rng_of(recipe.seed, world.region, moments.PHOTOS, number)
        station_id = self._station_id(number)
        spreads_deg = recipe.pitch_spread_deg, recipe.roll_spread_deg
        # 0.0 is added, or level would be -0.0 half of the time
        pitch_deg, roll_deg = (
            float(rng.uniform(-1.0, 1.0)) * spread + 0.0 for spread in spreads_deg
        )
        for turn_deg in recipe.turns_deg:
            pose = place.pose.moved(Motion(turn_deg=turn_deg))
            seen = render_photo(
                world.scene,
                pose,
                recipe.camera,
                height_m=height_m,
                pitch_deg=pitch_deg,
                roll_deg=roll_deg,
                movers=traffic,
                **_looks(moment),
            )
            view_id = station_id if recipe.kind != "rig" else f"{station_id}-{turn_deg:03.0f}"
            image, sha256 = self._view(view_id, number, seen)
            self._row(
                "views",
                view_id=view_id,
                region=world.region,
                station_id=station_id,
                sequence_id=sequence_id,
                order=number,
                kind="panorama" if recipe.kind == "panorama" else "photo",
                image=image,
                camera_id=recipe.camera_id,
                **_geo_pose(world.frame, pose),
                roll_deg=roll_deg,
                pitch_deg=pitch_deg,
                height_m=height_m,
                source=moment.time_id,
                sha256=sha256,
            )
            self._pairs(view_id, station_id, pose)
        if recipe.tiles == "centered":
            half_m, x_m, y_m = recipe.side_m / 2, place.pose.x_m, place.pose.y_m
            grid = MapGrid(
                world.frame, x_m - half_m, y_m + half_m, recipe.cell_m,
                recipe.tile_px, recipe.tile_px,
            )  # fmt: skip
            self._planned.append((station_id, grid, number))

    def _pairs(self, view_id: str, station_id: str, pose: Pose) -> None:
        recipe, world = self._recipe, self._world
        if recipe.tiles == "centered":
            self._row("pairs", view_id=view_id, tile_id=station_id, relation=POSITIVE)
        elif recipe.tiles == "grid":
            for tile_id, relation in tiles_showing(recipe, world.region, world.bounds_m, pose):
                self._row("pairs", view_id=view_id, tile_id=tile_id, relation=relation)

    def _view(self, view_id: str, number: int, seen: Rendering) -> tuple[str, str]:
        """Write the images of a view; where the photo is, and its SHA-256."""
        recipe = self._recipe
        rng = rng_of(recipe.seed, view_id, moments.LABELS, 0)
        classes = label_noise.noisy(seen.classes, rng, strength=recipe.label_noise)
        name = self._name(view_id, number)
        if recipe.with_classes:
            sha256 = self._png(f"classes/{name}.png", classes, palette=True)
            self.made.labels[view_id] = sha256
            self._png(f"instances/{name}.png", _instances(seen.instances))
            self._png(f"depth/{name}.png", _steps(seen.depth_m))
            if recipe.with_normals:
                self._png(f"normals/{name}.png", _normals(seen.normals))
        if recipe.pictures == "classes":
            image = f"views/{name}.png"
            return image, self._png(image, classes, palette=True)
        return self._picture(f"views/{name}", seen.rgb)

    def _tiles(self) -> None:
        """Take the planned tiles, those of a flight together; rows are in the order of numbers."""
        for tile in sorted(self._planned, key=lambda tile: tile[2] % self._recipe.num_flights):
            self._tile(*tile)
        order = {tile_id: number for tile_id, _, number in self._planned}
        self.made.rows.get("tiles", []).sort(key=lambda row: order[row["tile_id"]])

    def _tile(self, tile_id: str, grid: MapGrid, number: int) -> None:
        """Take a tile, write it, and say so in a row."""
        recipe, world = self._recipe, self._world
        flight = flight_of(recipe, world.region, number % recipe.num_flights)
        traffic = _flown_over(recipe, world, flight.movers_seed)
        seen: SatelliteView = render_satellite(
            world.scene,
            grid,
            tilt_deg=flight.tilt_deg,
            tilt_azimuth_deg=flight.tilt_azimuth_deg,
            movers=traffic,
            **_looks(flight),
        )
        name = self._name(tile_id, number)
        if recipe.with_classes:
            self._png(f"tile_classes/{name}.png", seen.classes, palette=True)
            self._png(f"tile_heights/{name}.png", _steps(seen.height_m))
        if recipe.pictures == "classes":
            image = f"tiles/{name}.png"
            sha256 = self._png(image, seen.classes, palette=True)
        else:
            image, sha256 = self._picture(f"tiles/{name}", seen.rgb)
        middle = grid.to_xy(grid.width / 2, grid.height / 2)
        lat_deg, lon_deg = world.frame.to_geodetic(*middle)
        place = Pose(float(middle[0]), float(middle[1]), 0.0)
        self._row(
            "tiles",
            tile_id=tile_id,
            region=world.region,
            image=image,
            lat_deg=float(lat_deg),
            lon_deg=float(lon_deg),
            cell_m=grid.cell_m,
            rotation_deg=_geo_pose(world.frame, place)["heading_deg"],
            date=flight.time_id,
            provider=PROVIDER,
            attribution=world.attribution,
            sha256=sha256,
        )

    def _station_id(self, number: int) -> str:
        return f"{self._world.region}-{number:06d}"

    def _sequence_id(self, drive: int) -> str:
        return f"{self._world.region}-drive-{drive:04d}"

    def _name(self, key: str, number: int) -> str:
        return f"{self._world.region}/{number // IMAGES_PER_FOLDER:03d}/{key}"

    def _row(self, table: str, **cells: Any) -> None:
        self.made.rows.setdefault(table, []).append(cells)

    def _picture(self, name: str, rgb: np.ndarray | None) -> tuple[str, str]:
        from PIL import Image

        if rgb is None:
            raise ValueError("The renderer gave no colours; set pictures to classes.")
        file = f"{name}.{self._recipe.image_format}"
        if self._recipe.image_format == "png":
            return file, self._png(file, rgb)
        body = io.BytesIO()
        Image.fromarray(rgb).save(body, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        return file, self._write(file, body.getvalue())

    def _png(self, file: str, array: np.ndarray, *, palette: bool = False) -> str:
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(array))
        if palette:
            image.putpalette(_PALETTE)
        body = io.BytesIO()
        image.save(body, format="PNG")
        return self._write(file, body.getvalue())

    def _write(self, file: str, body: bytes) -> str:
        path = self._folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(body)
        self.made.files[file] = hashlib.sha256(body).hexdigest()
        self.made.num_bytes += len(body)
        return self.made.files[file]


def _looks(moment: Moment) -> dict[str, Any]:
    return {} if moment.appearance is None else {"appearance": moment.appearance}


def _geo_pose(frame: LocalFrame, pose: Pose) -> dict[str, float | None]:
    place = frame.geo_pose(pose)
    return {
        "lat_deg": place.lat_deg,
        "lon_deg": place.lon_deg,
        "heading_deg": place.heading_deg,
    }


def _steps(metres: np.ndarray) -> np.ndarray:
    """Metres as whole steps of DEPTH_UNIT_M, (rows, cols) uint16; 0 where there are none."""
    known = np.where(np.isfinite(metres), metres, 0.0)
    return np.rint(known / DEPTH_UNIT_M).clip(0, _MOST).astype(np.uint16)


def _instances(numbers: np.ndarray) -> np.ndarray:
    """Numbers of things in 16 bits: 0 stays 0, and from 65536 on they count from 1 again."""
    return np.where(numbers > 0, (numbers - 1) % _MOST + 1, 0).astype(np.uint16)


def _normals(normals: np.ndarray) -> np.ndarray:
    """East, north and up from -1..1 to 0..254; zeros, the sky, are 127."""
    return np.rint((normals + 1.0) * 127.0).astype(np.uint8)


def camera_row(camera_id: str, camera: Camera) -> dict[str, Any]:
    """A row of the cameras table, of a camera without distortion."""
    row: dict[str, Any] = {"camera_id": camera_id, "model": "equirectangular"}
    row |= {"width_px": camera.width_px, "height_px": camera.height_px}
    numbers = {name: getattr(camera, name, None) for name in ("fx", "fy", "cx", "cy")}
    if numbers["fx"] is not None:
        row |= {"model": "pinhole", **numbers}
    return row
