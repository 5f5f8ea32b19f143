"""A drive on the map: what was known of every frame's pose, and where the car really was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossview import angles, drawing
from crossview.drawing import Background
from crossview.export import credible_regions
from crossview.frames import Motion, Pose
from crossview.grids import Bounds, MapGrid
from crossview.posterior import Posterior
from crossview.tracking import Step

if TYPE_CHECKING:
    import shapely
    from matplotlib.axes import Axes

_ODOMETRY_COLOR, _FILTERED_COLOR = "#6d6875", "#d1495b"
_MARGIN_SHARE, _MARGIN_M = 0.06, 8.0
_LEAST_SIDES_RATIO = 0.4
"""Of the picture: a straight street is not a line."""

_ARROW_SHARE = 0.02
"""Length of a heading's arrowhead, as a share of the picture's longer side."""

_ARROW = ((0.6, 0.0), (-0.4, 0.34), (-0.4, -0.34))
"""Corners of an arrowhead, ahead and to the right, in lengths."""


class _Path(NamedTuple):
    """Poses of a drive, None where there is none, and how they are drawn."""

    poses: Sequence[Pose | None]
    label: str
    color: str
    zorder: float
    style: Any = "solid"
    width: float = 1.5
    has_arrows: bool = False

    @property
    def xy_m(self) -> np.ndarray:
        """(frames, 2), NaN where there is no pose."""
        nowhere = (np.nan, np.nan)
        return np.array([_xy_m(p) if p else nowhere for p in self.poses]).reshape(-1, 2)


def drive(
    steps: Iterable[Step | Posterior],
    ax: Axes,
    *,
    smoothed: Iterable[Posterior] | None = None,
    truths: Sequence[Pose | None] | None = None,
    odometry: Sequence[Pose] | None = None,
    background: Background | None = None,
    level: float = 0.9,
    title: str = "",
    attribution: str = "",
) -> Axes:
    """The most probable pose of every frame of a drive, joined, on a map.

    Arrowheads point along the headings, of frames that lie apart. Shaded are the smallest regions
    that hold `level` of each frame's probability: of the smoothed frames where they are given, else
    of the filtered ones. The legend says how far the paths are off the truth. North is up.

    Args:
        steps: What Tracker.filtered gave, taken one at a time, or posteriors.
        ax: Where to draw; a column at its right is used for the legend.
        smoothed: The same frames in hindsight.
        truths: Where the camera really was, for every frame; None where that is not known.
        odometry: The way that odometry alone tells, from a known first pose.
        background: A map or an image in the same frame, or a map source, which is asked for
            what the picture shows.
        level: Probability of the shaded regions, in (0, 1]; they are cut off at the picture.
        title: Above the picture.
        attribution: Who must be named for the background; by default what an image says.

    Raises:
        FrameMismatchError: The background is in another frame.
        ValueError: There is no frame, or truths are not one per frame.
    """
    poses, regions, cells = _looked_at(steps, level if smoothed is None else None)
    best_color = drawing.ESTIMATE.color
    if smoothed is None:
        paths = [_Path(poses, "filtered", best_color, 6, has_arrows=True)]
    else:
        later, regions, _ = _looked_at(smoothed, level)
        paths = [
            _Path(poses, "filtered", _FILTERED_COLOR, 5, width=1.1),
            _Path(later, "smoothed", best_color, 6, has_arrows=True),
        ]
    if odometry is not None:
        paths.insert(0, _Path(odometry, "odometry alone", _ODOMETRY_COLOR, 3, style=(0, (4, 2))))
    if truths is not None:
        paths = [_against(path, truths) for path in paths]
        paths.insert(0, _Path(truths, "truth", drawing.TRUTH.color, 4, width=3.2))
    bounds = _bounds(paths)
    if background is not None:
        attribution = drawing.draw_background(background, ax, bounds, cells, attribution)
    shade = _draw_regions(regions, ax, paths[-1].color, f"{level:.0%} of probability")
    handles = [_draw_path(path, ax, bounds) for path in paths]
    drawing.finish_map(ax, bounds, attribution)
    ax.set_title(title, loc="left")
    drawing.legend_beside(ax, [*handles, shade, _draw_start(paths[-1], ax)])
    return ax


def _looked_at(
    frames: Iterable[Step | Posterior], level: float | None
) -> tuple[list[Pose], list[shapely.MultiPolygon], MapGrid]:
    """Modes and regions of posteriors that need not be kept, and the cells of the last."""
    poses, regions, cells = [], [], None
    for frame in frames:
        posterior = frame.posterior if isinstance(frame, Step) else frame
        poses.append(posterior.peak())
        cells = posterior.grid.map
        if level is not None:
            regions += [region.outline() for region in credible_regions(posterior, [level])]
    if cells is None:
        raise ValueError(
            "The drive has no frame to draw. A generator can be taken once only: give "
            "list(tracker.filtered(...)) to use it twice."
        )
    return poses, regions, cells


def _against(path: _Path, truths: Sequence[Pose | None]) -> _Path:
    """The path, with what it is off the truth in its label."""
    if len(truths) != len(path.poses):
        raise ValueError(
            f"There are {len(truths)} truths and {len(path.poses)} frames of {path.label!r}. Give "
            "one truth per frame, None where it is not known."
        )
    pairs = [(p, t) for p, t in zip(path.poses, truths, strict=True) if p and t]
    if not pairs:
        return path
    off_m = np.median([np.hypot(p.x_m - t.x_m, p.y_m - t.y_m) for p, t in pairs])
    text = f"{off_m:.1f} m"
    turns_deg = [
        abs(angles.difference_deg(p.heading_deg, t.heading_deg))
        for p, t in pairs
        if p.heading_deg is not None and t.heading_deg is not None
    ]
    if turns_deg:
        text += f", {np.median(turns_deg):.1f}°"
    return path._replace(label=f"{path.label},\n{text} off (median)")


def _bounds(paths: Iterable[_Path]) -> Bounds:
    """The box around all paths, and a margin; not much longer than wide."""
    xy_m = np.concatenate([path.xy_m for path in paths])
    low_m, high_m = np.nanmin(xy_m, axis=0), np.nanmax(xy_m, axis=0)
    middle_m, sides_m = (low_m + high_m) / 2, high_m - low_m
    sides_m = sides_m + 2 * (_MARGIN_M + _MARGIN_SHARE * sides_m.max())
    west_m, south_m = middle_m - np.maximum(sides_m, _LEAST_SIDES_RATIO * sides_m.max()) / 2
    east_m, north_m = 2 * middle_m - (west_m, south_m)
    return Bounds(float(west_m), float(south_m), float(east_m), float(north_m))


def _draw_regions(regions: Iterable[shapely.MultiPolygon], ax: Axes, color: str, label: str) -> Any:
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch
    from matplotlib.path import Path

    outlines = [
        Path.make_compound_path(
            *(
                Path(np.asarray(ring.coords), closed=True)
                for part in region.geoms
                for ring in (part.exterior, *part.interiors)
            )
        )
        for region in regions
    ]
    looks: dict[str, Any] = {"facecolor": to_rgba(color, 0.12), "edgecolor": to_rgba(color, 0.45)}
    shades = PathCollection(outlines, linewidths=0.5, zorder=2, label=label, **looks)
    ax.add_collection(shades, autolim=False)
    return Patch(linewidth=0.5, label=label, **looks)


def _draw_path(path: _Path, ax: Axes, bounds: Bounds) -> Any:
    from matplotlib.collections import PolyCollection

    x_m, y_m = path.xy_m.T
    (line,) = ax.plot(
        x_m,
        y_m,
        color=path.color,
        ls=path.style,
        lw=path.width,
        label=path.label,
        zorder=path.zorder,
    )
    if path.has_arrows:
        side_m = max(bounds.east_m - bounds.west_m, bounds.north_m - bounds.south_m)
        arrows = PolyCollection(
            list(_arrowheads(path.poses, _ARROW_SHARE * side_m)),
            facecolor=path.color,
            edgecolor="white",
            linewidths=0.4,
            zorder=path.zorder,
        )
        ax.add_collection(arrows, autolim=False)
    return line


def _arrowheads(
    poses: Iterable[Pose | None], length_m: float
) -> Iterator[list[tuple[float, float]]]:
    """Corners of arrowheads along the headings, none on top of the one before."""
    before: Pose | None = None
    for pose in poses:
        if pose is None or pose.heading_deg is None:
            continue
        if before and math.dist(_xy_m(before), _xy_m(pose)) < length_m:
            continue
        before = pose
        yield [
            _xy_m(pose.moved(Motion(forward_m=length_m * ahead, right_m=length_m * right)))
            for ahead, right in _ARROW
        ]


def _xy_m(pose: Pose) -> tuple[float, float]:
    return pose.x_m, pose.y_m


def _draw_start(path: _Path, ax: Axes) -> Any:
    start_x_m, start_y_m = path.xy_m[0]
    (dot,) = ax.plot(
        start_x_m,
        start_y_m,
        linestyle="none",
        marker="o",
        markersize=8,
        markerfacecolor="white",
        markeredgecolor=path.color,
        markeredgewidth=1.8,
        label="first frame",
        zorder=path.zorder + 0.1,
    )
    return dot
