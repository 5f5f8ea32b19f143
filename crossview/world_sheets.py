"""A contact sheet of a synthetic dataset: each place from the street and from above, to look at.

What must be seen: vertical edges of walls and mouths of streets stand in the same columns of the
panorama and of the polar tile below it, the map's footprints lie on the walls of the photo, no
camera is in a wall, and nothing floats.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import drawing, plots
from crossview.cameras import Equirectangular, Pinhole
from crossview.errors import ManifestError
from crossview.frames import Pose
from crossview.grids import MapGrid
from crossview.manifest import Manifest, Station
from crossview.photos import Photo
from crossview.pictures import new_figure, write_figure
from crossview.polar import polar_tile
from crossview.synthetic.moments import Moment, traffic
from crossview.synthetic.palette import colored
from crossview.synthetic.recipes import Recipe
from crossview.synthetic.render import Rendering, SatelliteView, render_photo, render_satellite
from crossview.synthetic.shooting import appearance_of, flight_of
from crossview.synthetic.synthesis import RECIPE_FILE
from crossview.synthetic.worlds import World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANORAMA = Equirectangular(1024, 512)
PHOTO = Pinhole.from_focal(480, 360, 260.0)
TILE_PX, TILE_CELL_M = 400, 0.2
POLAR_ROWS = 256
ROW_INCHES = 4.4
WIDTH_INCHES = 12.0

_SHOWN_DEG = 60.0
"""Panoramas are shown up to this above and below the horizon."""

_FAR_M = 80.0
_NORTH_COLOR, _CAMERA_COLOR = "tab:red", "yellow"


def draw_sheet(folder: str | Path, out: Path, *, num_views: int = 4, seed: int = 0) -> list[str]:
    """Draw some places of a synthetic dataset, as the dataset states their poses.

    For each a panorama above the polar tile of the same columns, a photo ahead with the footprints
    of the map, classes and depth, and the satellite view. All are rendered anew from the dataset's
    map, light and flights, in sizes fit to be looked at; cars and people on the street are others.

    Args:
        folder: What synthesize made.
        out: The image (.png, .jpg, .pdf).
        num_views: Places, drawn by lot.
        seed: Of the lot.

    Returns:
        The stations that were drawn.

    Raises:
        ManifestError: The folder is no complete synthetic dataset.
    """
    folder = Path(folder)
    path = folder / RECIPE_FILE
    if num_views < 1:
        raise ValueError(f"A sheet shows 1 view or more, got {num_views}.")
    if not path.is_file():
        raise ManifestError(f"{folder} has no {RECIPE_FILE}: crossview synthesize makes them.")
    recipe = Recipe.from_json(json.loads(path.read_text(encoding="utf-8"))["recipe"])
    manifest = Manifest.load(folder)
    stations = manifest.stations()
    lot = np.random.default_rng(seed).permutation(len(stations))[:num_views]
    chosen = [stations[k] for k in sorted(lot.tolist())]
    credit = manifest.attribution or "A made-up town (CC0)"
    figure = new_figure((WIDTH_INCHES, ROW_INCHES * len(chosen) + 0.4), f"Map: {credit}")
    axes = figure.subplots(
        2 * len(chosen),
        3,
        squeeze=False,
        width_ratios=(2.7, 1, 1),
        height_ratios=(1, 1) * len(chosen),
    )
    worlds: dict[str, World] = {}
    for k, station in enumerate(chosen):
        if station.region not in worlds:
            source = next(s for s in recipe.sources if s.region == station.region)
            worlds = {station.region: World.read(station.region, folder / source.map_file)}
        row = manifest.row("views", station.view_ids[0])
        _draw_place(worlds[station.region], recipe, station, row, axes[2 * k : 2 * k + 2])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_figure(figure, out)
    return [station.station_id for station in chosen]


def _draw_place(
    world: World, recipe: Recipe, station: Station, row: dict[str, Any], axes: np.ndarray
) -> None:
    pose = station.truth
    if pose is None or pose.heading_deg is None:
        raise ManifestError(f"Station {station.station_id} has no pose.")
    number = station.order // recipe.frames if recipe.frames else station.order
    looks = appearance_of(recipe, world.region, number)
    people = traffic(world.scene, station.order, recipe.traffic, keep_out_m=[(pose.x_m, pose.y_m)])
    moment = Moment(station.station_id, looks, station.order)
    flight = flight_of(recipe, world.region, station.order % recipe.num_flights)
    flown_over = traffic(world.scene, flight.movers_seed, recipe.traffic)

    def photographed(camera: Any) -> Rendering:
        return render_photo(
            world.scene, pose, camera, height_m=row["height_m"], movers=people,
            appearance=moment.appearance,
        )  # fmt: skip

    half_m = TILE_PX * TILE_CELL_M / 2
    grid = MapGrid(world.frame, pose.x_m - half_m, pose.y_m + half_m, TILE_CELL_M, TILE_PX, TILE_PX)
    above = render_satellite(
        world.scene, grid, movers=flown_over, tilt_deg=flight.tilt_deg,
        tilt_azimuth_deg=flight.tilt_azimuth_deg, appearance=flight.appearance,
    )  # fmt: skip
    panorama, ahead = photographed(PANORAMA), photographed(PHOTO)
    _draw_panorama(_picture(panorama), pose, axes[0, 0], station.station_id)
    tile = _picture(above)
    turned = polar_tile(tile, POLAR_ROWS, PANORAMA.width_px, heading_deg=pose.heading_deg)
    _draw_polar(turned, pose, axes[1, 0], half_m)
    _draw_photo(world, _picture(ahead), pose, row["height_m"], axes[0, 1])
    _draw_tile(tile, pose, half_m, axes[1, 1])
    _plain(axes[0, 2], "classes").imshow(colored(ahead.classes))
    depth_m = np.where(np.isfinite(ahead.depth_m), ahead.depth_m, np.nan)
    _plain(axes[1, 2], f"depth, to {_FAR_M:g} m").imshow(
        depth_m, cmap="viridis_r", vmin=0, vmax=_FAR_M
    )


def _picture(seen: Rendering | SatelliteView) -> np.ndarray:
    return colored(seen.classes) if seen.rgb is None else seen.rgb


def _plain(ax: Axes, title: str) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=drawing.SMALL)
    return ax


def _draw_panorama(image: np.ndarray, pose: Pose, ax: Axes, title: str) -> None:
    width_px, height_px = PANORAMA.width_px, PANORAMA.height_px
    _plain(ax, f"{title}: panorama")
    ax.imshow(image, extent=(0, width_px, height_px, 0), aspect="auto")
    margin_px = (0.5 - _SHOWN_DEG / 180) * height_px
    ax.set(xlim=(0, width_px), ylim=(height_px - margin_px, margin_px))
    _draw_quarters(ax, pose)


def _draw_polar(image: np.ndarray, pose: Pose, ax: Axes, half_m: float) -> None:
    _plain(ax, f"satellite view in polar form, rim at {half_m:g} m, of another time")
    ax.imshow(image, extent=(0, PANORAMA.width_px, 0, half_m), aspect="auto")
    ax.set(xlim=(0, PANORAMA.width_px), ylim=(0, half_m))
    _draw_quarters(ax, pose)


def _draw_quarters(ax: Axes, pose: Pose) -> None:
    """Where north, east, south and west are, in panoramas and polar tiles alike."""
    for name, azimuth_deg in zip("NESW", (0.0, 90.0, 180.0, 270.0), strict=True):
        turn = (azimuth_deg - (pose.heading_deg or 0.0) + 180.0) % 360.0
        col = turn / 360.0 * PANORAMA.width_px
        color = _NORTH_COLOR if name == "N" else "white"
        ax.axvline(col, color=color, lw=0.7, ls=(0, (4, 6)))
        ax.text(
            col, 0.98, name, color=color, fontsize=drawing.SMALL, ha="center", va="top",
            transform=ax.get_xaxis_transform(), path_effects=drawing.halo("black", 1.5),
        )  # fmt: skip


def _draw_photo(world: World, image: np.ndarray, pose: Pose, height_m: float, ax: Axes) -> None:
    buildings = [(one.footprint, one.height_m) for one in world.scene.buildings]
    near = [
        one
        for one in buildings
        if abs(one[0].centroid.x - pose.x_m) + abs(one[0].centroid.y - pose.y_m) < 4 * _FAR_M
    ]
    plots.footprints_on_photo(Photo(image, PHOTO, height_m=height_m), near, pose, ax)
    ax.set(xlabel="", ylabel="")
    if (legend := ax.get_legend()) is not None:  # the title says as much
        legend.remove()
    _plain(ax, "photo ahead; footprints: feet yellow, tops cyan")


def _draw_tile(image: np.ndarray, pose: Pose, half_m: float, ax: Axes) -> None:
    _plain(ax, f"satellite view, {2 * half_m:g} m wide")
    ax.imshow(image, extent=(-half_m, half_m, -half_m, half_m))
    heading = np.deg2rad(pose.heading_deg or 0.0)
    ax.annotate(
        "", (half_m / 4 * np.sin(heading), half_m / 4 * np.cos(heading)), (0, 0),
        arrowprops={"arrowstyle": "->", "color": _CAMERA_COLOR, "lw": 1.5},
    )  # fmt: skip
    ax.plot(0, 0, "o", color=_CAMERA_COLOR, ms=4)
