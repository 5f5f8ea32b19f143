"""Pictures of answers, maps, photos and what was seen in them: each is drawn on an `ax`.

Nothing is shown, and pyplot is not needed:

    figure = matplotlib.figure.Figure(figsize=(8, 6), layout="constrained")
    plots.heatmap(localization, figure.subplots(), background=town_map)
    figure.savefig("heat.png")
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossview import angles, map_style
from crossview.cameras import Pinhole, map_from_camera
from crossview.errors import FrameMismatchError
from crossview.export import credible_regions
from crossview.frames import LocalFrame, Pose
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

CONTOUR_LEVELS = (0.5, 0.9)

DECADES = 4
"""Density below the highest by more powers of ten than this is not coloured."""

_SMALL, _TINY = 8, 6.5  # points
_HEAT = (("#ffeda0", 0.0), ("#fdbb57", 0.35), ("#f2703a", 0.7), ("#cf2430", 0.9), ("#6a0838", 0.95))
_REGION_STYLES: tuple[Any, ...] = ("solid", (0, (4, 2)), (0, (1, 2)))
_ARROW_SHARE = 0.1
_ATTRIBUTION_CHARACTERS = 70
_SCALE_BAR_SHARE = 0.25
_MARGIN_SHARE = 0.04
_MAX_PICTURE_CELLS = 1500
_QUIET = 0.45
"""How far the colours of a map go towards white below a heat map."""


class _Look(NamedTuple):
    """Of a pose; the truth is larger and lies below, so that both are seen where they agree."""

    color: str
    marker: str
    size: float
    zorder: float


_ESTIMATE = _Look("#1146c4", "o", 1.0, 6)
_TRUTH = _Look("#00703c", "D", 1.4, 5)


_CHANNEL_COLORS = ("#4daf4a", "#d7191c", "#377eb8", "#ff9f1c", "#7b3294", "#00a6a6")
_UNSEEN_COLOR, _SEEN_COLOR = "#d9d9d9", "#ffffff"

_FOOT_COLOR, _EDGE_COLOR = "#ffe600", "#00e5ff"
_NEAR_PLANE_M = 0.3

_COLUMN_INCHES, _GAP_INCHES, _ROSE_INCHES = 2.0, 0.12, 0.95
"""Of the column beside a map: its width, its distance, and the diameter of the rose in it."""

_MAX_COLUMN_SHARE = 0.6


def heatmap(
    answer: Localization | Posterior,
    ax: Axes,
    *,
    background: MapRaster | SatelliteTile | Callable[[MapGrid], MapRaster] | None = None,
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
        if callable(background):
            background = background(_picture_grid(bounds, grids[0]))
        _require_frame(background.grid.frame, grids[0].frame)
        _draw_background(background, ax)
        attribution = attribution or getattr(background, "attribution", "")
    heat = _draw_density(localization, ax)
    handles = _draw_regions(localization, ax)
    handles.append(_draw_windows(grids, ax))
    handles += _draw_poses(localization.best.mode(), truth, ax, bounds)
    _finish_map(ax, bounds, attribution)
    ax.set_title(title, loc="left")
    beside = _beside(ax)
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
    _legend(ax, handles, beside, top_inches=-2.3, title=_summary(localization))
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
    ax.imshow(map_style.picture(map_raster), extent=_extent(grid), origin="upper")
    handles: list[Any] = [
        Patch(facecolor=group.color, edgecolor="#888888", linewidth=0.5, label=group.label)
        for group in map_style.groups_of_cells(map_raster)
    ]
    for group, (rows, cols) in map_style.points_by_group(map_raster):
        x_m, y_m = grid.to_xy(cols + 0.5, rows + 0.5)
        style: dict[str, Any] = {"marker": "o", "color": group.point_color, "linestyle": "none"}
        ax.plot(x_m, y_m, markersize=3, markeredgewidth=0, **style)
        handles.append(Line2D([], [], markersize=4, label=f"{group.label} (dot)", **style))
    _finish_map(ax, grid.bounds, attribution)
    _legend_beside(ax, handles)
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
    picture[~view.seen] = to_rgb(_UNSEEN_COLOR)
    left_m, ahead_m = -(view.camera_col + 0.5) * view.cell_m, (view.camera_row + 0.5) * view.cell_m
    right_m, back_m = left_m + cols * view.cell_m, ahead_m - rows * view.cell_m
    ax.imshow(picture, extent=(left_m, right_m, back_m, ahead_m), origin="upper")
    reach_m = max(rows, cols) * view.cell_m
    step_m = _round_length_m(reach_m / 4)
    for radius_m in np.arange(step_m, reach_m, step_m):
        ax.add_patch(Circle((0, 0), radius_m, fill=False, color="#777777", lw=0.5, ls=":"))
    ax.plot(0, 0, marker="^", markersize=9, color=_ESTIMATE.color, markeredgecolor="white")
    ax.set(
        xlim=(left_m, right_m),
        ylim=(back_m, ahead_m),
        aspect="equal",
        xlabel="to the right (m)",
        ylabel="ahead (m)",
    )
    handles = [Patch(facecolor=c, label=name) for c, name in zip(colors, names, strict=True)]
    handles.append(Patch(facecolor=_UNSEEN_COLOR, label="not seen"))
    _legend_beside(ax, handles)
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
    _legend_beside(ax, handles)
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
        ax.plot(col, row, color=color, lw=1.4, label=label, path_effects=_halo("black", 2.4))
    ax.set(xlim=(0, photo.camera.width_px), ylim=(photo.camera.height_px, 0))
    ax.legend(loc="lower left", fontsize=_SMALL, framealpha=0.8)
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
            extent=_extent(posterior.grid.map),
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
    bar.set_label("probability per m²", fontsize=_SMALL)
    ax.tick_params(labelsize=_TINY)


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
            path_effects=_halo("white", 2.2) if style == "solid" else None,
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
    handles = [_draw_pose(estimate, ax, _ESTIMATE, label, length_m)]
    if truth is not None:
        label = f"truth, {_error_text(estimate, truth)}"
        handles.append(_draw_pose(truth, ax, _TRUTH, label, length_m))
    return handles


def _draw_pose(pose: Pose, ax: Axes, look: _Look, label: str, length_m: float) -> Any:
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
    ax.set_xticks(np.deg2rad([0, 90, 180, 270]), ["N", "E", "S", "W"], fontsize=_SMALL)
    ax.tick_params(axis="x", pad=-3)
    ax.set_yticks([])
    ax.set_title("heading", fontsize=_SMALL)
    if num_headings == 1:
        ax.text(0, 0, "not\nrepresented", ha="center", va="center", fontsize=_TINY)
        return
    mass = sum(
        float(weight) * angles.resample_bins(posterior.heading(), num_headings)
        for weight, posterior in zip(localization.weights, localization.posteriors, strict=True)
    )
    centers_rad = np.deg2rad(localization.best.grid.headings_deg)
    width_rad = 2 * np.pi / num_headings
    ax.bar(centers_rad, np.sqrt(mass), width=width_rad, color=_ESTIMATE.color, linewidth=0)


def _summary(localization: Localization) -> str:
    text = f"within 5 m: {localization.probability_within(5.0):.0%}"
    if len(localization.posteriors) > 1 or localization.probability_elsewhere > 0:
        text += f"\nelsewhere: {localization.probability_elsewhere:.0%}"
    return text


# ----------------------------------------------------------------------- map


def _draw_background(background: MapRaster | SatelliteTile, ax: Axes) -> None:
    if isinstance(background, MapRaster):
        colors = map_style.picture(background)
        colors = colors + _QUIET * (1 - colors)
    else:
        colors = background.rgb / 255
        colors[~background.covered] = 1.0
    ax.imshow(colors, extent=_extent(background.grid), origin="upper")


def _finish_map(ax: Axes, bounds: Bounds, attribution: str) -> None:
    """North up, metres on the axes, a scale bar and the sources."""
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import (  # type: ignore[import-untyped]
        AnchoredSizeBar,
    )

    ax.set(
        xlim=(bounds.west_m, bounds.east_m),
        ylim=(bounds.south_m, bounds.north_m),
        aspect="equal",
        xlabel="east (m)",
        ylabel="north (m)",
    )
    length_m = _round_length_m(_SCALE_BAR_SHARE * (bounds.east_m - bounds.west_m))
    bar = AnchoredSizeBar(
        ax.transData,
        length_m,
        f"{length_m:g} m",
        "lower left",
        size_vertical=0.006 * (bounds.north_m - bounds.south_m),
        label_top=True,
        borderpad=0.6,
        sep=2,
        fontproperties=FontProperties(size=_SMALL),
    )
    bar.patch.set(alpha=0.8, linewidth=0)
    bar.size_bar.get_children()[0].set_facecolor("black")
    bar.set_zorder(7)
    ax.add_artist(bar)
    ax.text(
        0.995,
        0.005,
        textwrap.fill(attribution, _ATTRIBUTION_CHARACTERS),
        transform=ax.transAxes,
        in_layout=False,
        ha="right",
        va="bottom",
        fontsize=_TINY,
        path_effects=_halo("white", 2),
        zorder=7,
    )


def _round_length_m(length_m: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length_m))
    return max(step * power for step in (1, 2, 5) if step * power <= length_m * (1 + 1e-9))


def _extent(grid: MapGrid) -> tuple[float, float, float, float]:
    """Outer edges as imshow wants them: left, right, bottom, top."""
    bounds = grid.bounds
    return bounds.west_m, bounds.east_m, bounds.south_m, bounds.north_m


def _picture_bounds(grids: Sequence[MapGrid]) -> Bounds:
    """The box around all grids, and a margin."""
    west_m, south_m, east_m, north_m = zip(*(grid.bounds for grid in grids), strict=True)
    margin_m = _MARGIN_SHARE * max(max(east_m) - min(west_m), max(north_m) - min(south_m))
    return Bounds(
        min(west_m) - margin_m, min(south_m) - margin_m,
        max(east_m) + margin_m, max(north_m) + margin_m,
    )  # fmt: skip


def _picture_grid(bounds: Bounds, like: MapGrid) -> MapGrid:
    """Cells for the whole picture, as fine as a window's where that is not too many."""
    side_m = max(bounds.east_m - bounds.west_m, bounds.north_m - bounds.south_m)
    cell_m = max(like.cell_m, side_m / _MAX_PICTURE_CELLS)
    height = math.ceil((bounds.north_m - bounds.south_m) / cell_m)
    width = math.ceil((bounds.east_m - bounds.west_m) / cell_m)
    return MapGrid(like.frame, bounds.west_m, bounds.north_m, cell_m, height, width)


def _require_frame(background: LocalFrame, answer: LocalFrame) -> None:
    if background != answer:
        raise FrameMismatchError(
            f"The background is anchored at {background} and the answer at {answer}. "
            "Build both from one LocalFrame."
        )


# ------------------------------------------------------------ beside the axes


def _beside(ax: Axes) -> Any:
    """Room at the right of the axes: inches to the right of and above their upper right corner.

    The axes give up a part of their place in the figure, with or without a layout engine.
    """
    from matplotlib.transforms import ScaledTranslation

    figure = ax.figure
    width_inches = figure.dpi_scale_trans.inverted().transform_bbox(figure.bbox).width
    place = ax.get_subplotspec()
    if place is None:
        box = ax.get_position(original=True)
        share = min(_COLUMN_INCHES / (width_inches * box.width), _MAX_COLUMN_SHARE)
        ax.set_position((box.x0, box.y0, (1 - share) * box.width, box.height))
    else:
        width = place.get_position(figure).width  # type: ignore[arg-type]
        if figure.get_layout_engine() is not None:
            # which uses the margins of the figure too
            width /= figure.subplotpars.right - figure.subplotpars.left
        share = min(_COLUMN_INCHES / (width_inches * width), _MAX_COLUMN_SHARE)
        halves = place.subgridspec(1, 2, width_ratios=(1 - share, share), wspace=0)
        ax.set_subplotspec(halves[0])
        figure.add_subplot(halves[1]).set_axis_off()
    corner = ScaledTranslation(1, 1, ax.transAxes)  # type: ignore[arg-type]
    return figure.dpi_scale_trans + corner


def _legend_beside(ax: Axes, handles: Sequence[Any]) -> None:
    _legend(ax, handles, _beside(ax))


def _legend(
    ax: Axes, handles: Sequence[Any], beside: Any, *, top_inches: float = 0, title: str = ""
) -> None:
    legend = ax.legend(
        handles=handles,
        title=title,
        loc="upper left",
        bbox_to_anchor=(_GAP_INCHES, top_inches),
        bbox_transform=beside,
        borderaxespad=0,
        fontsize=_SMALL,
        title_fontproperties={"size": _SMALL, "weight": "bold"},
        frameon=False,
        alignment="left",
        handlelength=1.6,
    )
    legend.set_in_layout(False)  # its room is reserved


def _halo(color: str, width: float) -> list[Any]:
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground=color)]


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
