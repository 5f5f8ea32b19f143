"""Rendering worlds: panoramas, photos, tiles and pairs per second, beside alternatives.

The real city is left out without the data.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.harness import Results
from crossview.cameras import Camera, Equirectangular, Pinhole
from crossview.frames import Pose
from crossview.grids import MapGrid

if TYPE_CHECKING:
    from crossview.synthetic.appearance import Appearance
    from crossview.synthetic.mesh import Mesh
    from crossview.synthetic.scene import Scene
    from crossview.synthetic.worlds import World

AIM_PANORAMAS_PER_S = 300
"""Of 128 x 512, with full shading, on two cores."""

NUM_THREADS = 2
SEED = 4
PATTERN = "mixed"
HEIGHT_M = 2.0
TILE_M = 64.0
PANORAMA = Equirectangular(512, 128)
PERSPECTIVE = Pinhole.from_focal(256, 256, 128.0)
REPEATS = 7

_WORLDS_M = (700.0, 2000.0)
"""Sides of a town and of a city of 4 km^2."""

CITY = "osm/vancouver_downtown.osm.gz"
CITY_BOX = -123.13126, 49.27326, -123.10375, 49.29124
"""Of a real city, 2 km by 2 km: west, south, east, north."""

PAIRS_PER_BATCH, NUM_BATCHES = 32, 2

_QUICK_WORLDS_M = (300.0, 300.0)
_SAMPLED_RAYS = 1000

logger = logging.getLogger(__name__)


def run(*, quick: bool) -> Results:
    """Speeds in a town, and time and memory of a city, each in a process of its own."""
    town_m, city_m = _QUICK_WORLDS_M if quick else _WORLDS_M
    options = ["--quick"] if quick else []
    logger.info("a town of %g m, then a city of %g m", town_m, city_m)
    speeds = harness.in_own_process("benchmarks.render", "speeds", town_m, *options)
    cities = {"made_up": harness.in_own_process("benchmarks.render", "city", city_m, *options)}
    data = Path(os.environ.get("CROSSVIEW_DATA", Path(__file__).parents[2] / "shared" / "data"))
    missing = "" if (data / CITY).is_file() else f"{data} has no {CITY}: set CROSSVIEW_DATA"
    if quick or missing:
        logger.warning("No real city: %s.", missing or "too long for --quick")
    else:
        real = ("city", city_m, "--extract", data / CITY)
        cities["real"] = harness.in_own_process("benchmarks.render", *real)
    numbers = {"aim_panoramas_per_s": AIM_PANORAMAS_PER_S, **speeds, "cities": cities}
    caption = (
        f"A town of {town_m:g} m with cars and people, random light and weather, JPEG. Least CPU "
        f"time of {1 if quick else REPEATS}; two threads: of both cores' CPU time. "
        f"{speeds['agreement']:.2%} of the sampled rays meet the triangle that trying all of them "
        f"finds, to 1e-6. The aim is {AIM_PANORAMAS_PER_S} shaded panoramas per second on two "
        "cores. Pairs while training are batches of RenderedPairs as they come, with their own "
        "places and traffic." + ("" if "real" in cities else " The real city was left out.")
    )
    return Results(f"{caption}\n\n{_table(speeds['rows'], cities)}", numbers)


def _table(rows: list[dict[str, Any]], cities: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| picture | how | per second and core | per second, 2 threads | beside ours |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        sign = "≈" if row["share_of_work"] < 1 else ""
        both = f"{row['per_s_2_threads']:.0f}" if "per_s_2_threads" in row else ""
        beside = row.get("beside_ours", "")
        speed = f"{sign}{row['per_s_and_core']:.3g}"
        lines.append(f"| {row['picture']} | {row['how']} | {speed} | {both} | {beside} |")
    for name, city in cities.items():
        megabytes = {part: city[f"{part}_bytes"] / 1e6 for part in ("mesh", "index", "peak")}
        lines.append(
            f"| a {name.replace('_', '-')} city of {city['area_km2']:.2g} km² | "
            f"{city['buildings']:,} buildings, {city['triangles']:,} triangles: read "
            f"{city['scene_s']:.1f} s, triangles {city['mesh_s']:.1f} s, index "
            f"{city['index_s']:.1f} s | {city['per_s_and_core']:.0f} panoramas | | mesh "
            f"{megabytes['mesh']:.0f} MB, index {megabytes['index']:.0f} MB, peak above imports "
            f"{megabytes['peak']:.0f} MB |"
        )
    return "\n".join(lines)


# ------------------------------------------------------------------ in a process of its own


@dataclass(frozen=True)
class _Places:
    """A town, places in it, and the moments at which they are taken."""

    world: "World"
    poses: tuple[Pose, ...]
    tiles: tuple[MapGrid, ...]
    moments: "tuple[Appearance, ...]"
    movers: "tuple[Mesh, ...]"

    @property
    def scene(self) -> "Scene":
        """Of the town."""
        return self.world.scene

    @classmethod
    def of_size(cls, size_m: float, num_views: int) -> "_Places":
        from crossview.synthetic.appearance import Appearance
        from crossview.synthetic.movers import movers_mesh

        world, poses = _town(size_m, num_views)
        return cls(
            world,
            poses,
            tuple(_tile(pose) for pose in poses),
            tuple(Appearance.drawn(seed) for seed in range(2 * num_views)),
            tuple(movers_mesh(world.scene, seed) for seed in range(2)),
        )


def _town(size_m: float, num_views: int) -> "tuple[World, tuple[Pose, ...]]":
    import tempfile

    from crossview.synthetic.town import Town
    from crossview.synthetic.worlds import World

    town = Town.from_seed(SEED, pattern=PATTERN, size_m=size_m)
    with tempfile.TemporaryDirectory() as folder:
        town.write(Path(folder) / "town.osm")
        world = World.read("town", Path(folder) / "town.osm")
    return world, town.viewpoints(num_views, seed=SEED)


def _extract(path: Path, num_views: int) -> "tuple[World, tuple[Pose, ...]]":
    from crossview import osm
    from crossview.synthetic.worlds import World
    from crossview.tiles import GeoBounds

    world = World.of("city", osm.read_osm(path, GeoBounds(*CITY_BOX)))
    rng = np.random.default_rng(SEED)
    places = [world.streets.place(rng, sidewalks=0.0, spread_deg=30.0) for _ in range(num_views)]
    return world, tuple(place.pose for place in places)


def _tile(pose: Pose) -> MapGrid:
    from crossview.frames import LocalFrame

    half_m, cells = TILE_M / 2, 256
    frame = LocalFrame(0.0, 0.0)  # no matter: the scene's metres are used
    return MapGrid(frame, pose.x_m - half_m, pose.y_m + half_m, TILE_M / cells, cells, cells)


class _Row(NamedTuple):
    """One line of the table: what is made of view number k, of how much of it, and how often."""

    picture: str
    how: str
    take: Callable[[int], Any]
    share_of_work: float = 1.0
    has_threads: bool = True
    num_pictures: int = 1
    num_takes: int | None = None


def _speeds(size_m: float, *, is_quick: bool) -> dict[str, Any]:
    num_views, repeats = (4, 1) if is_quick else (32, REPEATS)
    world = _Places.of_size(size_m, num_views)
    lines = (*_pictures(world), *_alternatives(world))
    rows = [_measured(row, num_views, repeats) for row in lines]
    first = rows[0]
    for row in rows:
        if "ours" not in row["how"]:
            ratio = first["per_s_and_core"] / row["per_s_and_core"]
            row["beside_ours"] = f"{ratio:.3g}x the seconds"
    return {"rows": rows, "agreement": _agreement(world)}


def _measured(row: _Row, num_views: int, repeats: int) -> dict[str, Any]:
    row.take(0)  # compiles
    views = range(row.num_takes or (num_views if row.has_threads else 1))
    num_pictures = len(views) * row.num_pictures
    _, alone = harness.cheapest(lambda: [row.take(k) for k in views], repeats=repeats)
    facts = {
        "picture": row.picture,
        "how": row.how,
        "share_of_work": row.share_of_work,
        "per_s_and_core": num_pictures / alone["cpu_s"] * row.share_of_work,
    }
    if row.has_threads:
        with ThreadPool(NUM_THREADS) as pool:
            _, both = harness.cheapest(
                lambda: pool.map(row.take, views, chunksize=1), repeats=repeats
            )
        # of CPU seconds: whoever else is on the machine does not count
        facts["per_s_2_threads"] = NUM_THREADS * num_pictures / both["cpu_s"]
        facts["per_s_2_threads_wall"] = num_pictures / both["wall_s"]
    return facts


def _pictures(world: _Places) -> list[_Row]:
    """What we render, ours."""
    from crossview.synthetic.render import render_photo, render_satellite

    def photo(k: int, camera: Camera, *, moment: int | None = None) -> Any:
        return render_photo(
            world.scene,
            world.poses[k],
            camera,
            height_m=HEIGHT_M,
            movers=None if moment is None else world.movers[0],
            appearance=None if moment is None else world.moments[moment],
        )

    def tile(k: int, moment: int) -> Any:
        return render_satellite(
            world.scene, world.tiles[k], movers=world.movers[1], appearance=world.moments[moment]
        )

    def pair(k: int) -> Any:
        return photo(k, PANORAMA, moment=2 * k), tile(k, 2 * k + 1)

    from crossview.synthetic.on_the_fly import RenderedPairs

    pairs = RenderedPairs(
        [world.world],
        batch_size=PAIRS_PER_BATCH,
        num_batches=NUM_BATCHES,
        panorama=PANORAMA,
        cell_m=TILE_M / 256,
        heading_spread_deg=180.0,
    )
    panorama, perspective, satellite = "panorama 128 x 512", "photo 256 x 256", "tile 256 x 256"
    return [
        _Row(panorama, "ours, classes and depth", lambda k: photo(k, PANORAMA)),
        _Row(panorama, "ours, full shading", lambda k: photo(k, PANORAMA, moment=k)),
        _Row(perspective, "ours, full shading", lambda k: photo(k, PERSPECTIVE, moment=k)),
        _Row(satellite, "ours, full shading", lambda k: tile(k, k)),
        _Row("pair: panorama and tile", "ours, full shading, two moments", pair),
        _Row(
            "pair: panorama and tile",
            "ours, while training (RenderedPairs)",
            pairs.__getitem__,
            num_pictures=PAIRS_PER_BATCH,
            num_takes=NUM_BATCHES,
        ),
    ]


def _alternatives(world: _Places) -> list[_Row]:
    """Other ways to the classes and depth of a panorama."""
    from crossview.synthetic import tracing
    from crossview.synthetic.render import render_photo

    # a pitch that nobody sees has every ray cast by itself
    def one_by_one(k: int) -> Any:
        return render_photo(
            world.scene, world.poses[k], PANORAMA, height_m=HEIGHT_M, pitch_deg=1e-9
        )

    triangles_m = tracing.Index.of(world.scene.mesh).things.triangles
    eye_m, directions = _sample(world, 0)

    def brute_force(_: int) -> Any:
        return _first_triangles(triangles_m, eye_m, directions)

    picture, num_pixels = "panorama 128 x 512", PANORAMA.width_px * PANORAMA.height_px
    return [
        _Row(picture, "ray by ray through the same index", one_by_one),
        _Row(
            picture,
            "every triangle on every ray (NumPy)",
            brute_force,
            share_of_work=len(directions) / num_pixels,
            has_threads=False,
        ),
    ]


def _sample(world: _Places, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Eye and some rays of a panorama, (3,) and (rays, 3)."""
    from crossview.cameras import map_from_camera

    pose = world.poses[k]
    rng = np.random.default_rng(SEED)
    col, row = rng.uniform(0, 512, _SAMPLED_RAYS), rng.uniform(0, 128, _SAMPLED_RAYS)
    heading_deg = pose.heading_deg if pose.heading_deg is not None else 0.0
    directions = PANORAMA.rays(col, row) @ map_from_camera(heading_deg).T
    return np.array([pose.x_m, pose.y_m, HEIGHT_M]), directions


def _first_triangles(
    triangles_m: np.ndarray, eye_m: np.ndarray, directions: np.ndarray
) -> np.ndarray:
    """Distances to the first triangle on each unit ray (Moeller and Trumbore, 1997)."""
    corner, first, second = np.moveaxis(triangles_m, 1, 0)
    first, second = first - corner, second - corner
    from_corner = eye_m - corner
    turned = np.cross(from_corner, first)
    along = np.einsum("ij,ij->i", turned, second)
    nearest = np.empty(len(directions))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, direction in enumerate(directions):
            across = np.cross(direction, second)
            determinant = np.einsum("ij,ij->i", across, first)
            u = np.einsum("ij,ij->i", across, from_corner) / determinant
            v = turned @ direction / determinant
            distance = along / determinant
            is_hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
            nearest[k] = distance.min(where=is_hit, initial=np.inf)
    return nearest


def _agreement(world: _Places) -> float:
    """Share of rays whose distance to the first triangle is that of every one tried."""
    from crossview.synthetic import tracing
    from crossview.synthetic.mesh import Mesh

    mesh = world.scene.mesh
    eye_m, directions = _sample(world, 0)
    bare = Mesh(**{**vars(mesh), "crowns_m": np.zeros((0, 5)), "crown_surfaces": np.zeros(0)})
    index = tracing.Index.of(bare)
    found = tracing.trace([index], tracing.Fan.of_rays(eye_m, directions))
    expected_m = _first_triangles(index.things.triangles, eye_m, directions)
    distance_m = found.along[0] / np.hypot(directions[:, 0], directions[:, 1])
    with np.errstate(divide="ignore"):
        ground_m = np.where(directions[:, 2] < 0, -HEIGHT_M / directions[:, 2], np.inf)
    return float(np.isclose(distance_m, np.minimum(expected_m, ground_m), rtol=1e-6).mean())


def _city(size_m: float, *, is_quick: bool, extract: Path | None) -> dict[str, Any]:
    from crossview.synthetic import tracing
    from crossview.synthetic.appearance import Appearance
    from crossview.synthetic.render import render_photo

    tracing.kernels()
    before = harness.resident_bytes()
    (world, poses), scene_s = harness.cheapest(
        lambda: _town(size_m, 8) if extract is None else _extract(extract, 8), repeats=1
    )
    scene = world.scene
    mesh, mesh_s = harness.cheapest(lambda: scene.mesh, repeats=1)
    index, index_s = harness.cheapest(lambda: tracing.Index.of(mesh), repeats=2)
    index_bytes, num_triangles = index.num_bytes, len(mesh.triangles_m)
    del index
    moments: Sequence[Any] = [Appearance.drawn(seed) for seed in range(len(poses))]

    def take_all() -> None:
        for pose, moment in zip(poses, moments, strict=True):
            render_photo(scene, pose, PANORAMA, height_m=HEIGHT_M, appearance=moment)

    take_all()
    _, seconds = harness.cheapest(take_all, repeats=1 if is_quick else REPEATS)
    return {
        "area_km2": (size_m / 1000) ** 2,
        "buildings": len(scene.buildings),
        "triangles": num_triangles,
        "scene_s": scene_s["cpu_s"],
        "mesh_s": mesh_s["cpu_s"],
        "index_s": index_s["cpu_s"],
        "per_s_and_core": len(poses) / seconds["cpu_s"],
        "mesh_bytes": sum(array.nbytes for array in vars(mesh).values()),
        "index_bytes": index_bytes,
        "peak_bytes": harness.peak(before)["peak_above_imports_bytes"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("speeds", "city"))
    parser.add_argument("size_m", type=float)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--extract", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "speeds":
        measured = _speeds(arguments.size_m, is_quick=arguments.quick)
    else:
        measured = _city(arguments.size_m, is_quick=arguments.quick, extract=arguments.extract)
    print(json.dumps(measured))
