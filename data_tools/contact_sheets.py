"""A contact sheet: some views of a manifest on one page, each with its satellite tile beside it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import angles, atomic, photos, rectify
from crossview.errors import ManifestError, MapError, PhotoError
from crossview.frames import Pose
from crossview.manifest import Manifest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crossview.features import MapFeatures

NUM_VIEWS = 12
NUM_COLUMNS = 3
SIDE_PX = 480
"""Longer side of an image on the sheet."""

_PANEL_INCHES = 2.6
_TEXT_CHARACTERS = 180
_CAMERA_COLOUR = "yellow"
_NORTH_COLOUR = "tab:red"
_MAP_LINES = {
    "roads": ("line", "highway", "cyan"),
    "rails": ("line", "railway", "magenta"),
    "buildings": ("area", "building", "orange"),
}
"""What is drawn of a map on tiles: kind, key and colour."""


@dataclass(frozen=True)
class ContactSheet:
    """What was drawn.

    Args:
        view_ids: The views, in the order of their table.
        tile_ids: The tile beside each view, or "".
        problems: What could not be read; its panel says so.
    """

    view_ids: tuple[str, ...]
    tile_ids: tuple[str, ...]
    problems: tuple[str, ...]


def draw_contact_sheet(
    manifest: Manifest, out: Path, *, num_views: int = NUM_VIEWS, seed: int = 0
) -> ContactSheet:
    """Draw some views, or tiles where there are no views, and write them as one image.

    Views are drawn by lot, those with a tile first. On photos a small compass shows where they
    look, on panoramas a line where north is, on tiles a dot where the camera stood, an arrow where
    it looked and another to the north. Roads, rails and buildings of the region's map are drawn
    on tiles, to be compared with the imagery. Who must be named is written underneath.

    Args:
        manifest: The dataset.
        out: The image: a file whose name ends on .png, .jpg or .pdf; its folder is made.
        num_views: At most so many.
        seed: Of the lot.

    Raises:
        ManifestError: There are neither views nor tiles.
    """
    from matplotlib.figure import Figure

    panels = _panels(manifest, num_views, np.random.default_rng(seed))
    if not panels:
        raise ManifestError(f"{manifest.name} has neither views nor tiles to draw.")
    with_views = bool(panels[0][0])
    with_tiles = any(tile_id for _, tile_id in panels)
    num_columns = min(NUM_COLUMNS, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    widths = ([1.35] if with_views else []) + ([1.0] if with_tiles else [])
    figure = Figure(
        figsize=(_PANEL_INCHES * num_columns * sum(widths), _PANEL_INCHES * num_rows + 0.7),
        layout="constrained",
    )
    axes = figure.subplots(
        num_rows, num_columns * len(widths), squeeze=False, width_ratios=widths * num_columns
    ).reshape(num_rows * num_columns, len(widths))
    problems: list[str] = []
    maps = _maps(manifest, [tile_id for _, tile_id in panels if tile_id], problems)
    drawn: set[str] = set()
    for ax in axes.flat:
        ax.set_axis_off()
    for (view_id, tile_id), beside in zip(panels, axes, strict=False):
        if view_id:
            _draw(beside[0], problems, lambda ax, v=view_id: _draw_view(manifest, v, ax))
        if tile_id:
            _draw(
                beside[-1],
                problems,
                lambda ax, v=view_id, t=tile_id: drawn.update(_draw_tile(manifest, maps, t, v, ax)),
            )
    figure.suptitle(manifest.name, fontsize=11)
    sources = _sources(manifest, panels, maps.values() if drawn else (), drawn)
    figure.supxlabel(textwrap.fill(sources, _TEXT_CHARACTERS), fontsize=6)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(out) as temporary:
        figure.savefig(temporary, dpi=110)
    view_ids, tile_ids = zip(*panels, strict=True)
    return ContactSheet(view_ids, tile_ids, tuple(problems))


def tile_position(
    manifest: Manifest, tile: Mapping[str, Any], size_px: tuple[int, int], pose: Pose
) -> tuple[float, float]:
    """Where a pose of the tile's region is in its image, (col, row), corner origin.

    Args:
        manifest: The dataset.
        tile: A row of the tiles.
        size_px: Columns and rows of the image.
        pose: In the frame of the region.
    """
    col, row = _tile_pixels(manifest, tile, size_px, pose.x_m, pose.y_m)
    return float(col), float(row)


def _tile_pixels(
    manifest: Manifest, tile: Mapping[str, Any], size_px: tuple[int, int], x_m: Any, y_m: Any
) -> tuple[Any, Any]:
    """Where places of the region are in the image of a tile, (col, row), corner origin."""
    frame = manifest.frame(tile["region"])
    middle_x_m, middle_y_m = frame.to_local(tile["lat_deg"], tile["lon_deg"])
    right_m, up_m = _turned(x_m - middle_x_m, y_m - middle_y_m, _up_deg(manifest, tile))
    return size_px[0] / 2 + right_m / tile["cell_m"], size_px[1] / 2 - up_m / tile["cell_m"]


def _up_deg(manifest: Manifest, tile: Mapping[str, Any]) -> float:
    """Where the upper edge of a tile points, from the north of the region's frame."""
    frame = manifest.frame(tile["region"])
    x_m, y_m = frame.to_local(tile["lat_deg"], tile["lon_deg"])
    rotation_deg = 0.0 if math.isnan(tile["rotation_deg"]) else tile["rotation_deg"]
    return rotation_deg - float(frame.convergence_deg(x_m, y_m))


def _turned(x_m: Any, y_m: Any, up_deg: float) -> tuple[Any, Any]:
    """A vector (east, north) as (right, up) of an image whose upper edge points to up_deg."""
    up_x, up_y = angles.forward(up_deg)
    return x_m * up_y - y_m * up_x, x_m * up_x + y_m * up_y


def _panels(manifest: Manifest, num_views: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Views with their tiles, either "" where there is none."""
    view_ids = manifest.views["view_id"].to_numpy()
    if not view_ids.size:
        return [("", tile_id) for tile_id in _drawn(manifest.tiles["tile_id"], num_views, rng)]
    pairs = manifest.pairs
    # a view lies far out in the others
    pairs = pairs.iloc[np.argsort(pairs["relation"].to_numpy() != "positive", kind="stable")]
    first_pairs = pairs.drop_duplicates("view_id")
    tile_of = dict(zip(first_pairs["view_id"], first_pairs["tile_id"], strict=True))
    is_paired = manifest.views["view_id"].isin(list(tile_of)).to_numpy()
    chosen = _drawn(view_ids[is_paired], num_views, rng)
    chosen += _drawn(view_ids[~is_paired], num_views - len(chosen), rng)
    place = {view_id: i for i, view_id in enumerate(view_ids.tolist())}
    return [(v, tile_of.get(v, "")) for v in sorted(chosen, key=place.__getitem__)]


def _drawn(keys: Any, number: int, rng: np.random.Generator) -> list[str]:
    chosen = rng.permutation(len(keys))[:number]
    return np.asarray(keys, dtype=object)[np.sort(chosen)].tolist()


def _draw(ax: Axes, problems: list[str], draw: Any) -> None:
    """Draw a panel; what cannot be read is written into it."""
    try:
        draw(ax)
    except (PhotoError, ManifestError) as error:
        problems.append(str(error))
        ax.text(0.5, 0.5, textwrap.fill(str(error), 32), ha="center", va="center", fontsize=6)


def _draw_view(manifest: Manifest, view_id: str, ax: Axes) -> None:
    row = manifest.row("views", view_id)
    pixels = photos.read_pixels(manifest.image_path("views", view_id))
    if row["kind"] == "photo" and not math.isnan(row["roll_deg"]):
        pixels = rectify.turned_image(pixels, rectify.quarter_turns(row["roll_deg"]))
    _show(ax, pixels)
    height_px, width_px = pixels.shape[:2]
    known = not math.isnan(row["heading_deg"])
    words = [_short(view_id), row["split"], f"{row['heading_deg']:.0f}°" if known else ""]
    ax.set_title("  ".join(filter(None, words)), fontsize=7)
    if known and row["kind"] == "panorama":
        turn_deg = float(angles.difference_deg(0.0, row["heading_deg"]))
        north_col = width_px * (0.5 + turn_deg / angles.FULL_TURN_DEG)
        ax.axvline(north_col, color=_NORTH_COLOUR, linewidth=1)
        ax.text(north_col, 0.08 * height_px, "N", color=_NORTH_COLOUR, fontsize=7, ha="center")
    elif known:
        _draw_compass(ax.inset_axes((0.84, 0.74, 0.15, 0.25)), row["heading_deg"])


def _draw_compass(ax: Axes, heading_deg: float) -> None:
    """A rose with north up and a needle where the camera looks."""
    from matplotlib.patches import Circle

    east, north = angles.forward(heading_deg)
    ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    ax.set_axis_off()
    ax.add_patch(Circle((0, 0), 1.0, facecolor="white", alpha=0.75))
    ax.text(0, 0.62, "N", color=_NORTH_COLOUR, fontsize=5, ha="center", va="center")
    ax.annotate(
        "", (0.95 * float(east), 0.95 * float(north)), (0, 0),
        arrowprops={"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": "black"},
    )  # fmt: skip


def _draw_tile(
    manifest: Manifest, maps: Mapping[str, MapFeatures], tile_id: str, view_id: str, ax: Axes
) -> set[str]:
    """Draw a tile with its map and its view, and say which of _MAP_LINES are on it."""
    tile = manifest.row("tiles", tile_id)
    pixels = photos.read_pixels(manifest.image_path("tiles", tile_id))
    _show(ax, pixels)
    height_px, width_px = pixels.shape[:2]
    ax.set_title(f"{width_px * tile['cell_m']:.0f} m  {tile['date']}".strip(), fontsize=7)
    drawn = set[str]()
    if tile["region"] in maps:
        drawn = _draw_map(manifest, maps[tile["region"]], tile, (width_px, height_px), ax)
    up_deg = _up_deg(manifest, tile)
    right, up = _turned(*angles.forward(0.0), up_deg)
    corner, length_px = (0.9 * width_px, 0.14 * height_px), 0.09 * height_px
    tip = (corner[0] + right * length_px, corner[1] - up * length_px)
    _arrow(ax, corner, tip, _NORTH_COLOUR)
    ax.text(*tip, "N", color=_NORTH_COLOUR, fontsize=7, ha="center", va="bottom")
    pose = manifest.pose(view_id) if view_id else None
    if pose is None:
        return drawn
    col, row = tile_position(manifest, tile, (width_px, height_px), pose)
    ax.plot(col, row, "o", markersize=5, color=_CAMERA_COLOUR, markeredgecolor="black")
    if pose.heading_deg is not None:
        right, up = _turned(*angles.forward(pose.heading_deg), up_deg)
        length_px = 0.2 * height_px
        _arrow(ax, (col, row), (col + right * length_px, row - up * length_px), _CAMERA_COLOUR)
    return drawn


def _maps(
    manifest: Manifest, tile_ids: Iterable[str], problems: list[str]
) -> dict[str, MapFeatures]:
    """By region of the tiles, the first of its vector maps; one that cannot be read is said."""
    from crossview.vectors import VectorMap

    maps = {}
    for region in dict.fromkeys(manifest.row("tiles", tile_id)["region"] for tile_id in tile_ids):
        try:
            files = [file for file in manifest.map_files(region) if file.kind != "raster"]
            if files:
                maps[region] = VectorMap.read(files[0].path).features
        except (MapError, ManifestError) as error:
            problems.append(str(error))
    return maps


def map_lines(
    manifest: Manifest, features: MapFeatures, tile: Mapping[str, Any], size_px: tuple[int, int]
) -> dict[str, list[np.ndarray]]:
    """Axes of roads and rails, and outlines of buildings, on the image of a tile.

    Args:
        manifest: The dataset.
        features: A map of the tile's region.
        tile: A row of the tiles.
        size_px: Columns and rows of the image.

    Returns:
        By `roads`, `rails` and `buildings`, lines of (N, 2) columns and rows, corner origin, that
        reach into the image.
    """
    import shapely

    frame = manifest.frame(tile["region"])
    radius_m = math.hypot(*size_px) / 2 * tile["cell_m"]
    x_m, y_m = frame.to_local(tile["lat_deg"], tile["lon_deg"])
    lat_deg, lon_deg = frame.to_geodetic(
        x_m + radius_m * np.array([-1, -1, 1, 1]), y_m + radius_m * np.array([-1, 1, -1, 1])
    )
    box = (lon_deg.min(), lat_deg.min(), lon_deg.max(), lat_deg.max())
    table = features.table
    table = table.iloc[table.sindex.query(shapely.box(*box), predicate="intersects")]

    def to_pixels(lon_lat_deg: np.ndarray) -> np.ndarray:
        places = frame.to_local(lon_lat_deg[:, 1], lon_lat_deg[:, 0])
        return np.stack(_tile_pixels(manifest, tile, size_px, *places), axis=-1)

    lines, image = {}, shapely.box(0, 0, *size_px)
    for name, (kind, key, _) in _MAP_LINES.items():
        has_key = np.array([key in tags for tags in table["tags"]], dtype=bool)
        is_meant = has_key & (table["kind"] == kind).to_numpy()
        shapes = table.geometry[is_meant].to_numpy()
        shapes = shapely.boundary(shapes) if kind == "area" else shapes
        # a long road must not leave the region
        parts = shapely.get_parts(shapely.clip_by_rect(shapes, *box))
        parts = shapely.transform(parts, to_pixels)
        parts = parts[shapely.intersects(parts, image)]
        lines[name] = [shapely.get_coordinates(part) for part in parts]
    return lines


def _draw_map(
    manifest: Manifest,
    features: MapFeatures,
    tile: Mapping[str, Any],
    size_px: tuple[int, int],
    ax: Axes,
) -> set[str]:
    """Draw a map on a tile, and say which of _MAP_LINES it has there."""
    from matplotlib.collections import LineCollection

    drawn = map_lines(manifest, features, tile, size_px)
    for name, lines in drawn.items():
        color = _MAP_LINES[name][-1]
        ax.add_collection(LineCollection(lines, colors=color, linewidths=0.8), autolim=False)
    return {name for name, lines in drawn.items() if lines}


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": color, "linewidth": 1.5}
    # one that leaves the image is drawn nevertheless
    ax.annotate("", end, start, arrowprops=arrow, annotation_clip=False)


def _show(ax: Axes, pixels: np.ndarray) -> None:
    """The image small, in axes that count its full pixels from the corner."""
    from PIL import Image

    height_px, width_px = pixels.shape[:2]
    factor = min(1.0, SIDE_PX / max(height_px, width_px))
    size = (max(1, round(width_px * factor)), max(1, round(height_px * factor)))
    small = Image.fromarray(pixels).resize(size, resample=Image.Resampling.BOX)
    ax.imshow(np.asarray(small), extent=(0, width_px, height_px, 0))
    ax.set(xlim=(0, width_px), ylim=(height_px, 0))


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"


def _sources(
    manifest: Manifest,
    panels: Iterable[tuple[str, str]],
    maps: Iterable[MapFeatures],
    drawn: Collection[str],
) -> str:
    """Who must be named: the dataset, and views, tiles and maps where they say otherwise."""
    whole = (manifest.attribution or manifest.name).rstrip(". ")
    named = {f"{whole} ({manifest.licence})" if manifest.licence else whole: None}
    for view_id, tile_id in panels:
        for table, key in (("views", view_id), ("tiles", tile_id)):
            if not key:
                continue
            row = manifest.row(table, key)
            licence = row.get("licence", "")
            licence = "" if licence == manifest.licence else licence
            words = [row["attribution"].rstrip(". "), f"({licence})" if licence else ""]
            text = " ".join(filter(None, words))
            if text not in whole:
                named.setdefault(text)
    for features in maps:
        named.setdefault(features.attribution.rstrip(". "))
    if drawn:
        colours = (f"{name} {colour}" for name, (*_, colour) in _MAP_LINES.items() if name in drawn)
        named.setdefault(f"Map: {', '.join(colours)}")
    return ". ".join(filter(None, named))
