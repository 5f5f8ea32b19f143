"""How a matcher sees one station of a dataset, drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossview import atomic, column_evidence, plots, raycast
from crossview.birdseye_matcher import CHANNELS, BirdsEyeMatcher
from crossview.column_model import ColumnModel
from crossview.columns import ColumnView
from crossview.errors import ManifestError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.manifest import Manifest
from crossview.photos import Photo
from crossview.pose_queries import Query, queries
from crossview.pose_trials import PriorRule, trial
from crossview.rasters import MapRaster
from crossview.segmenters import Remembering, upright_images
from crossview.semantic import SemanticMatcher
from crossview.vectors import VectorMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (10.0, 8.0)
WIDE_INCHES = (14.0, 5.0)
"""A panorama is wide."""

_ATTRIBUTION_CHARACTERS = 160
_MARGIN_M = 10.0
_SIGHT_M = 80.0
"""How far from the camera buildings are drawn on photos."""


def draw_station(
    manifest: Manifest,
    station_id: str,
    matcher: SemanticMatcher,
    maps: Mapping[str, VectorMap],
    *,
    rule: PriorRule,
    out: Path,
) -> list[Path]:
    """Draw a station: its photos with footprints and classes, its columns, map and heat map.

    The bird's-eye view is that of the simpler matcher; heat map and best pose are of this one.

    Args:
        manifest: The dataset.
        station_id: One of its stations, with a known pose.
        matcher: What is looked at.
        maps: The map of every region.
        rule: How rough the prior of the heat map is.
        out: Folder to write into; made where it is not there.

    Returns:
        The PNG files.
    """
    query = _query_of(manifest, station_id)
    frame, vector_map = manifest.frame(query.region), maps[query.region]
    stations = manifest.stations(max_pitch_deg=90.0)
    (station,) = (one for one in stations if one.station_id == station_id)
    images = query.read()
    matcher = replace(matcher, segmenter=Remembering(matcher.segmenter))
    views = matcher.observe(images)
    answer = trial(query, views, frame, matcher, vector_map, rule=rule)
    out.mkdir(parents=True, exist_ok=True)
    canvas = _Canvas(out, sources(manifest, vector_map))
    for view_id, (image, _) in zip(station.view_ids, upright_images(images), strict=True):
        probabilities, classes = matcher.segmenter(image.image), matcher.segmenter.classes
        plots.segmentation(image.image, probabilities, classes, canvas.axes(f"{view_id}-classes"))
        pose = manifest.pose(view_id)
        if isinstance(image, Photo) and pose is not None:
            buildings = vector_map.buildings(_grid_around(frame, pose.x_m, pose.y_m))
            plots.footprints_on_photo(
                image,
                list(zip(buildings.geometry, buildings["height_m"], strict=True)),
                pose,
                canvas.axes(f"{view_id}-footprints"),
            )
    plots.birdseye(
        BirdsEyeMatcher(matcher.segmenter).observe(images),
        canvas.axes("birdseye"),
        names=CHANNELS,
    )
    draw_columns(
        views[0],
        matcher.model,
        canvas.axes("columns", WIDE_INCHES),
        maps=vector_map,
        frame=frame,
        poses={"best": answer.localization.best.peak(), "true": query.truth},
    )
    background = vector_map(answer.localization.best.grid.map.padded(_MARGIN_M))
    plots.map_raster(background, canvas.axes("map"))
    plots.heatmap(
        answer.localization,
        canvas.axes("heatmap"),
        background=vector_map,
        truth=query.truth,
    )
    return canvas.write()


def draw_columns(
    view: ColumnView,
    model: ColumnModel,
    ax: Axes,
    *,
    maps: Callable[[MapGrid], MapRaster],
    frame: LocalFrame,
    poses: Mapping[str, Pose],
) -> Axes:
    """A query's columns with what the map says of poses, and how well each column fits each.

    Args:
        view: The columns.
        model: What they are compared with.
        ax: Where to draw.
        maps: Cuts the map.
        frame: Of the poses.
        poses: By name; those without a heading are left out.
    """
    # what the matcher sums, for a map that was cast for this very height
    evidence = column_evidence.evidence(view, model).above(model.calibration.unknown_level)
    column = np.arange(view.num_azimuths)
    seen, explained = {}, {}
    for name, pose in poses.items():
        if pose.heading_deg is None:
            continue
        rays = raycast.look_around(
            maps, frame, pose, height_m=view.height_m, num_azimuths=view.num_azimuths
        )
        seen[name] = rays
        explained[name] = evidence.log_ratio[column, column_evidence.codes_of(*rays)]
    return plots.columns(view, ax, poses=seen, explained=explained)


def sources(manifest: Manifest, vector_map: VectorMap) -> str:
    """Who must be named beside a picture of photos and a map: with the photos' licence."""
    photos = (manifest.attribution or manifest.name).rstrip(". ")
    of_map = vector_map.attribution.rstrip(". ")
    if of_map == photos:
        return f"Photos and map: {photos} (photos: {manifest.licence})"
    return f"Photos: {photos} ({manifest.licence})" + (f". Map: {of_map}" if of_map else "")


def _query_of(manifest: Manifest, station_id: str) -> Query:
    known = queries(manifest, max_pitch_deg=90.0)
    found = [query for query in known if query.name == station_id]
    if not found:
        names = [query.name for query in known]
        raise ManifestError(
            f"{manifest.name} has no station {station_id!r} with a pose. It has "
            f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}."
        )
    return found[0]


def _grid_around(frame: LocalFrame, x_m: float, y_m: float) -> MapGrid:
    return MapGrid.around(frame, x_m, y_m, radius_m=_SIGHT_M, cell_m=1.0)


class _Canvas:
    """Figures by file name, written at the end, each with its sources underneath."""

    def __init__(self, out: Path, attribution: str) -> None:
        self._out = out
        self._attribution = attribution
        self._figures: dict[str, Figure] = {}

    def axes(self, name: str, size_inches: tuple[float, float] = SIZE_INCHES) -> Axes:
        """The axes of a new figure."""
        self._figures[name] = new_figure(size_inches, self._attribution)
        return self._figures[name].add_subplot()

    def write(self) -> list[Path]:
        """Write every figure as NAME.png."""
        return [
            write_figure(figure, self._out / f"{name}.png")
            for name, figure in self._figures.items()
        ]


def new_figure(size_inches: tuple[float, float], attribution: str) -> Figure:
    """An empty figure with its sources underneath."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained")
    figure.supxlabel(textwrap.fill(attribution, _ATTRIBUTION_CHARACTERS), fontsize=6)
    return figure


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all."""
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
