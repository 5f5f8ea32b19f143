"""Pictures of answers, maps, photos and what was seen in them: each is drawn on an `ax`.

Nothing is shown, and pyplot is not needed:

    figure = matplotlib.figure.Figure(figsize=(8, 6), layout="constrained")
    plots.heatmap(localization, figure.subplots(), background=town_map)
    figure.savefig("heat.png")
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import angles, drawing, map_style
from crossview.calibration_plots import errors, reliability
from crossview.cameras import Pinhole, map_from_camera
from crossview.column_plots import columns
from crossview.drawing import Background
from crossview.drive_plots import drive
from crossview.export import credible_regions
from crossview.frames import Pose
from crossview.grids import Bounds, MapGrid
from crossview.localizer import Localization
from crossview.posterior import Posterior
from crossview.rasters import MapRaster, SatelliteTile
from crossview.sightlines import Walls
from crossview.synthetic.palette import CLASS_COLORS

if TYPE_CHECKING:
    import shapely
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from crossview.birdseye import BirdsEye
    from crossview.photos import Photo

__all__ = [
    "birdseye",
    "columns",
    "drive",
    "errors",
    "footprints_on_photo",
    "heatmap",
    "map_raster",
    "reliability",
    "segmentation",
]

CONTOUR_LEVELS = (0.5, 0.9)

DECADES = 4
"""Density below the highest by more powers of ten than this is not coloured."""

_HEAT = (("#ffeda0", 0.0), ("#fdbb57", 0.35), ("#f2703a", 0.7), ("#cf2430", 0.9), ("#6a0838", 0.95))
_REGION_STYLES: tuple[Any, ...] = ("solid", (0, (4, 2)), (0, (1, 2)))
_ARROW_SHARE = 0.1
_MARGIN_SHARE = 0.04

_CHANNEL_COLORS = ("#4daf4a", "#d7191c", "#377eb8", "#ff9f1c", "#7b3294", "#00a6a6")
_SEEN_COLOR = "#ffffff"

_FOOT_COLOR, _EDGE_COLOR = "#ffe600", "#00e5ff"
_NEAR_PLANE_M = 0.3

_ROSE_INCHES = 0.95
"""Diameter of the rose in the column beside a map."""


def heatmap(
    answer: Localization | Posterior,
    ax: Axes,
    *,
    background: Background | None = None,
    truth: Pose | None = None,
    title: str = "",
    attribution: str = "",
) -> Axes:
    """How probable it is that the camera stood somewhere, on a map; beside it its heading.

    Colour is probability density per square metre on a logarithmic scale; what is less than
    1e-4 of the peak has none. Lines are the exact outlines of the smallest regions that hold
    50 and 90 %. The rose shows the probability of each heading by area, clockwise from the
    frame's north, which is up everywhere. All windows of a localization are drawn; give
    `localization.best` to see the best one closely.

    Args:
        answer: A localization, or one posterior.
        ax: Where to draw; a column at its right is used for rose, colour bar and legend.
        background: A map or an image in the same frame, or a map source, which is asked for
            what the picture shows.
        truth: Where the camera really was.
        title: Above the picture.
        attribution: Who must be named for the background; by default what an image says.

    Raises:
        FrameMismatchError: The background is in another frame.
    """
    localization = Localization((answer,)) if isinstance(answer, Posterior) else answer
    grids = [posterior.grid.map for posterior in localization.posteriors]
    bounds = _picture_bounds(grids)
    if background is not None:
        attribution = drawing.draw_background(background, ax, bounds, grids[0], attribution)
    heat = _draw_density(localization, ax)
    handles = _draw_regions(localization, ax)
    handles.append(_draw_windows(grids, ax))
    handles += _draw_poses(localization.best.peak(), truth, ax, bounds)
    drawing.finish_map(ax, bounds, attribution)
    ax.set_title(title, loc="left")
    beside = drawing.beside(ax)
    rose = ax.inset_axes(
        (0.35, -0.3 - _ROSE_INCHES, _ROSE_INCHES, _ROSE_INCHES),
        transform=beside,
        projection="polar",
    )
    rose.set_in_layout(False)
    _draw_heading_rose(localization, rose)
    bar = ax.inset_axes((0.15, -1.7, 1.4, 0.12), transform=beside)
    bar.set_in_layout(False)
    _draw_colour_bar(heat, bar)
    drawing.legend(ax, handles, beside, top_inches=-2.3, title=_summary(localization))
    return ax


def map_raster(map_raster: MapRaster, ax: Axes, *, attribution: str = "") -> Axes:
    """The classes of a map: areas filled, ways darker on top, points as dots.

    Args:
        map_raster: In either legend.
        ax: Where to draw; a column at its right is used for the legend of what occurs.
        attribution: Who must be named for the map.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grid = map_raster.grid
    ax.imshow(map_style.picture(map_raster), extent=drawing.extent(grid), origin="upper")
    handles: list[Any] = [
        Patch(facecolor=group.color, edgecolor="#888888", linewidth=0.5, label=group.label)
        for group in map_style.groups_of_cells(map_raster)
    ]
    for group, (rows, cols) in map_style.points_by_group(map_raster):
        x_m, y_m = grid.to_xy(cols + 0.5, rows + 0.5)
        style: dict[str, Any] = {"marker": "o", "color": group.point_color, "linestyle": "none"}
        ax.plot(x_m, y_m, markersize=3, markeredgewidth=0, **style)
        handles.append(Line2D([], [], markersize=4, label=f"{group.label} (dot)", **style))
    drawing.finish_map(ax, grid.bounds, attribution)
    drawing.legend_beside(ax, handles)
    return ax


def satellite(
    tile: SatelliteTile, ax: Axes, *, estimate: Pose | None = None, truth: Pose | None = None
) -> Axes:
    """A satellite tile, and where a camera stood on it.

    Args:
        tile: The image.
        ax: Where to draw.
        estimate: In the tile's frame, where the camera probably stood.
        truth: Where it really stood.
    """
    bounds = tile.grid.bounds
    attribution = drawing.draw_background(tile, ax, bounds, tile.grid, "")
    length_m = _ARROW_SHARE * min(bounds.east_m - bounds.west_m, bounds.north_m - bounds.south_m)
    for pose, look, label in (
        (estimate, drawing.ESTIMATE, "estimate"),
        (truth, drawing.TRUTH, "truth"),
    ):
        if pose is not None:
            _draw_pose(pose, ax, look, label, length_m)
    drawing.finish_map(ax, bounds, attribution)
    return ax


def birdseye(view: BirdsEye, ax: Axes, *, names: Sequence[str] | None = None) -> Axes:
    """What a camera saw of its surroundings from above; it stands at (0, 0) and looks up.

    Every channel has a colour, the stronger the larger its value (of the channel's own largest);
    unseen cells are grey.

    Args:
        view: The bird's-eye view.
        ax: Where to draw; a column at its right is used for the legend.
        names: What the channels are.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Circle, Patch

    rows, cols, channels = view.values.shape
    names = names or [f"channel {channel}" for channel in range(channels)]
    if len(names) != channels:
        raise ValueError(f"The view has {channels} channels and {len(names)} names: {names}.")
    colors = list(itertools.islice(itertools.cycle(_CHANNEL_COLORS), channels))
    picture = np.full((rows, cols, 3), to_rgb(_SEEN_COLOR))
    for channel, color in enumerate(colors):
        values = np.clip(view.values[..., channel], 0, None)
        opacity = np.where(view.seen, values / max(float(values.max()), 1e-12), 0)[..., None]
        picture = (1 - opacity) * picture + opacity * np.array(to_rgb(color))
    picture[~view.seen] = to_rgb(drawing.UNSEEN_COLOR)
    left_m, ahead_m = -(view.camera_col + 0.5) * view.cell_m, (view.camera_row + 0.5) * view.cell_m
    right_m, back_m = left_m + cols * view.cell_m, ahead_m - rows * view.cell_m
    ax.imshow(picture, extent=(left_m, right_m, back_m, ahead_m), origin="upper")
    reach_m = max(rows, cols) * view.cell_m
    step_m = drawing.round_length_m(reach_m / 4)
    for radius_m in np.arange(step_m, reach_m, step_m):
        ax.add_patch(Circle((0, 0), radius_m, fill=False, color="#777777", lw=0.5, ls=":"))
    ax.plot(0, 0, marker="^", markersize=9, color=drawing.ESTIMATE.color, markeredgecolor="white")
    ax.set(
        xlim=(left_m, right_m),
        ylim=(back_m, ahead_m),
        aspect="equal",
        xlabel="to the right (m)",
        ylabel="ahead (m)",
    )
    handles = [Patch(facecolor=c, label=name) for c, name in zip(colors, names, strict=True)]
    handles.append(Patch(facecolor=drawing.UNSEEN_COLOR, label="not seen"))
    drawing.legend_beside(ax, handles)
    return ax


def segmentation(
    image: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    ax: Axes,
    *,
    opacity: float = 0.55,
) -> Axes:
    """The most probable class of every pixel over the image, in the colours of Cityscapes.

    Args:
        image: (rows, cols, 3) uint8 RGB, shown as it is.
        probabilities: (rows, cols, classes) in the image's orientation, any resolution.
        classes: Names of the channels.
        ax: Where to draw; a column at its right is used for the legend of what occurs.
        opacity: Of the colours over the image.
    """
    from matplotlib.patches import Patch

    if probabilities.ndim != 3 or probabilities.shape[2] != len(classes):
        raise ValueError(
            f"Probabilities are (rows, cols, classes) for {len(classes)} classes, got "
            f"{probabilities.shape}."
        )
    colors = np.array([CLASS_COLORS.get(name, (160, 160, 160)) for name in classes], np.uint8)
    label = probabilities.argmax(axis=2)
    _show_photo(image, ax)
    extent = (0, image.shape[1], image.shape[0], 0)
    ax.imshow(colors[label], extent=extent, alpha=opacity, interpolation="nearest")
    share = np.bincount(label.ravel(), minlength=len(classes)) / label.size
    handles = [
        Patch(facecolor=colors[k] / 255, label=f"{classes[k]} {share[k]:.0%}")
        for k in np.argsort(-share, kind="stable")
        if share[k] >= 0.005
    ]
    drawing.legend_beside(ax, handles)
    return ax


def footprints_on_photo(
    photo: Photo,
    buildings: Iterable[tuple[shapely.Polygon, float | None]],
    pose: Pose,
    ax: Axes,
    *,
    range_m: float = 80.0,
) -> Axes:
    """Where the map says that walls stand and end, drawn into a photo: the eye's check of a pose.

    Yellow is the foot of the walls on level ground, cyan their upper edges where the height is
    known. What another building of the map hides is left out; one of unknown height hides
    everything behind it. A photo that was stored on its side is shown upright.

    Args:
        photo: With its camera, pitch, roll and height above the street.
        buildings: Footprints in the pose's frame, each with its height in metres (None or NaN
            where it is not known).
        pose: Of the photo's own camera.
        ax: Where to draw.
        range_m: Walls farther away are left out.

    Raises:
        ValueError: The pose has no heading.
    """
    if pose.heading_deg is None:
        raise ValueError(f"{pose} has no heading, so nothing can be projected into its photo.")
    photo = photo.upright()
    rotation = map_from_camera(pose.heading_deg, photo.pitch_deg, photo.roll_deg)
    walls = Walls.around(buildings, pose, eye_m=photo.height_m, range_m=range_m)
    _show_photo(photo.image, ax)
    for points, color, label in (
        (walls.upper_edges(), _EDGE_COLOR, "upper edges and corners"),
        (walls.feet(), _FOOT_COLOR, "feet of walls"),
    ):
        col, row = _projected(points, photo.camera, rotation)
        shown = np.isfinite(col) & (np.hypot(points[:, 0], points[:, 1]) <= range_m)
        shown[shown] = ~walls.hide(points[shown])
        col = np.where(shown, col, np.nan)
        ax.plot(col, row, color=color, lw=1.4, label=label, path_effects=drawing.halo("black", 2.4))
    ax.set(xlim=(0, photo.camera.width_px), ylim=(photo.camera.height_px, 0))
    ax.legend(loc="lower left", fontsize=drawing.SMALL, framealpha=0.8)
    return ax


# ------------------------------------------------------------------ heat map


def _draw_density(localization: Localization, ax: Axes) -> Any:
    """The image of one window, for a colour bar that serves them all."""
    from matplotlib.colors import LogNorm

    densities = [
        float(weight) * posterior.position() / posterior.grid.map.cell_m**2
        for weight, posterior in zip(localization.weights, localization.posteriors, strict=True)
    ]
    peak = max(float(density.max()) for density in densities)
    norm = LogNorm(peak * 10.0**-DECADES, peak)
    image = None
    for density, posterior in zip(densities, localization.posteriors, strict=True):
        image = ax.imshow(
            np.ma.masked_less(density, peak * 10.0**-DECADES),
            extent=drawing.extent(posterior.grid.map),
            origin="upper",
            cmap=_heat_colormap(),
            norm=norm,
            interpolation="nearest",
        )
    return image


def _heat_colormap() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    colors = [to_rgba(color, opacity) for color, opacity in _HEAT]
    return LinearSegmentedColormap.from_list("heat", colors)


def _draw_colour_bar(heat: Any, ax: Any) -> None:
    bar = ax.figure.colorbar(heat, cax=ax, orientation="horizontal", extend="min")
    bar.set_label("probability per m²", fontsize=drawing.SMALL)
    ax.tick_params(labelsize=drawing.TINY)


def _draw_regions(localization: Localization, ax: Axes) -> list[Any]:
    from matplotlib.collections import LineCollection

    drawn = []
    regions = credible_regions(localization, CONTOUR_LEVELS)
    for region, style in zip(regions, _REGION_STYLES, strict=False):
        if not region.reached:
            continue
        rings = [
            np.asarray(ring.coords)
            for part in region.outline().geoms
            for ring in (part.exterior, *part.interiors)
        ]
        outline = LineCollection(
            rings,
            colors="#222222",
            linewidths=1.0,
            linestyles=[style],
            label=f"{region.level:.0%} of probability",
            path_effects=drawing.halo("white", 2.2) if style == "solid" else None,
        )
        drawn.append(ax.add_collection(outline, autolim=False))
    return drawn


def _draw_windows(grids: Iterable[MapGrid], ax: Axes) -> Any:
    """Where was looked at all."""
    from matplotlib.collections import LineCollection

    corners = [
        [(b.west_m, b.south_m), (b.east_m, b.south_m), (b.east_m, b.north_m), (b.west_m, b.north_m)]
        for b in (grid.bounds for grid in grids)
    ]
    frames = LineCollection(
        [[*box, box[0]] for box in corners], colors="#666666", linewidths=0.8, label="searched"
    )
    return ax.add_collection(frames, autolim=False)


def _draw_poses(estimate: Pose, truth: Pose | None, ax: Axes, bounds: Bounds) -> list[Any]:
    side_m = min(bounds.east_m - bounds.west_m, bounds.north_m - bounds.south_m)
    length_m = _ARROW_SHARE * side_m
    label = "estimate"
    if estimate.heading_deg is not None:
        label += f", {estimate.heading_deg:.0f}°"
    handles = [_draw_pose(estimate, ax, drawing.ESTIMATE, label, length_m)]
    if truth is not None:
        label = f"truth, {_error_text(estimate, truth)}"
        handles.append(_draw_pose(truth, ax, drawing.TRUTH, label, length_m))
    return handles


def _draw_pose(pose: Pose, ax: Axes, look: drawing.Look, label: str, length_m: float) -> Any:
    from matplotlib.patches import FancyArrow

    if pose.heading_deg is not None:
        east, north = length_m * look.size * np.array(angles.forward(pose.heading_deg))
        arrow = FancyArrow(
            pose.x_m,
            pose.y_m,
            float(east),
            float(north),
            width=0.12 * length_m,
            head_width=0.4 * length_m,
            length_includes_head=True,
            facecolor=look.color,
            edgecolor="white",
            linewidth=0.8,
            zorder=look.zorder,
        )
        ax.add_patch(arrow)
    (dot,) = ax.plot(
        pose.x_m,
        pose.y_m,
        linestyle="none",
        marker=look.marker,
        markersize=7 * look.size,
        color=look.color,
        markeredgecolor="white",
        label=label,
        zorder=look.zorder + 0.1,
    )
    return dot


def _error_text(estimate: Pose, truth: Pose) -> str:
    distance_m = math.hypot(estimate.x_m - truth.x_m, estimate.y_m - truth.y_m)
    text = f"{distance_m:.1f} m" if distance_m < 100 else f"{distance_m:.0f} m"
    if estimate.heading_deg is not None and truth.heading_deg is not None:
        text += f", {abs(angles.difference_deg(estimate.heading_deg, truth.heading_deg)):.1f}°"
    return f"{text} off"


def _draw_heading_rose(localization: Localization, ax: Any) -> None:
    """A histogram whose areas are the probabilities, clockwise from north at the top."""
    num_headings = localization.best.grid.num_headings
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    ax.set_xticks(np.deg2rad([0, 90, 180, 270]), ["N", "E", "S", "W"], fontsize=drawing.SMALL)
    ax.tick_params(axis="x", pad=-3)
    ax.set_yticks([])
    ax.set_title("heading", fontsize=drawing.SMALL)
    if num_headings == 1:
        ax.text(0, 0, "not\nrepresented", ha="center", va="center", fontsize=drawing.TINY)
        return
    mass = sum(
        float(weight) * angles.resample_bins(posterior.heading(), num_headings)
        for weight, posterior in zip(localization.weights, localization.posteriors, strict=True)
    )
    centers_rad = np.deg2rad(localization.best.grid.headings_deg)
    width_rad = 2 * np.pi / num_headings
    ax.bar(centers_rad, np.sqrt(mass), width=width_rad, color=drawing.ESTIMATE.color, linewidth=0)


def _summary(localization: Localization) -> str:
    text = f"within 5 m: {localization.probability_within(5.0):.0%}"
    if len(localization.posteriors) > 1 or localization.probability_elsewhere > 0:
        text += f"\nelsewhere: {localization.probability_elsewhere:.0%}"
    return text


# ----------------------------------------------------------------------- map


def _picture_bounds(grids: Sequence[MapGrid]) -> Bounds:
    """The box around all grids, and a margin."""
    west_m, south_m, east_m, north_m = zip(*(grid.bounds for grid in grids), strict=True)
    margin_m = _MARGIN_SHARE * max(max(east_m) - min(west_m), max(north_m) - min(south_m))
    return Bounds(
        min(west_m) - margin_m, min(south_m) - margin_m,
        max(east_m) + margin_m, max(north_m) + margin_m,
    )  # fmt: skip


# -------------------------------------------------------------------- photos


def _show_photo(image: np.ndarray, ax: Axes) -> None:
    """Pixel positions with a corner origin on the axes."""
    rows, cols = image.shape[:2]
    ax.imshow(image, extent=(0, cols, rows, 0))
    ax.set(xlabel="column (px)", ylabel="row (px)")


def _projected(
    points: np.ndarray, camera: Pinhole, map_from_camera_axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions of points around the eye, (col, row); NaN far outside of the image."""
    directions = points @ map_from_camera_axes
    directions[~(directions[:, 2] > _NEAR_PLANE_M)] = np.nan
    col, row = camera.project(directions)
    # a bit more than the image, so that lines reach its edges
    near = (np.abs(col / camera.width_px - 0.5) < 0.75) & (
        np.abs(row / camera.height_px - 0.5) < 0.75
    )
    return np.where(near, col, np.nan), np.where(near, row, np.nan)
