"""How a matcher sees one station of a dataset, drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossview import atomic, plots
from crossview.birdseye_matcher import CHANNELS, BirdsEyeMatcher
from crossview.errors import ManifestError
from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.manifest import Manifest
from crossview.photos import Photo
from crossview.pose_evaluation import PriorRule, queries, trial
from crossview.segmenters import Segmenter, upright_images
from crossview.vectors import VectorMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_INCHES = (10.0, 8.0)
_ATTRIBUTION_CHARACTERS = 160
_MARGIN_M = 10.0
_SIGHT_M = 80.0
"""How far from the camera buildings are drawn on photos."""


def draw_station(
    manifest: Manifest,
    station_id: str,
    matcher: BirdsEyeMatcher,
    maps: Mapping[str, VectorMap],
    *,
    rule: PriorRule,
    out: Path,
) -> list[Path]:
    """Draw a station's photos with projected footprints, classes, view from above, map, heat map.

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
    found = [query for query in queries(manifest) if query.name == station_id]
    if not found:
        known = [query.name for query in queries(manifest)]
        raise ManifestError(
            f"{manifest.name} has no station {station_id!r} with a pose. It has "
            f"{', '.join(known[:8])}{' ...' if len(known) > 8 else ''}."
        )
    (query,) = found
    frame, vector_map = manifest.frame(query.region), maps[query.region]
    (station,) = (s for s in manifest.stations() if s.station_id == station_id)
    out.mkdir(parents=True, exist_ok=True)
    sources = [text for text in (manifest.attribution, vector_map.attribution) if text]
    canvas = _Canvas(out, " ".join(sources))
    images = query.read()
    segmenter = _Remembering(matcher.segmenter)
    view = replace(matcher, segmenter=segmenter).observe(images)
    for view_id, (image, _), probabilities in zip(
        station.view_ids, upright_images(images), segmenter.answers, strict=True
    ):
        classes = matcher.segmenter.classes
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
    plots.birdseye(view, canvas.axes("birdseye"), names=CHANNELS)
    answer = trial(query, view, frame, matcher, vector_map, rule=rule)
    background = vector_map(answer.localization.best.grid.map.padded(_MARGIN_M))
    plots.map_raster(background, canvas.axes("map"))
    plots.heatmap(
        answer.localization,
        canvas.axes("heatmap"),
        background=vector_map,
        truth=query.truth,
    )
    return canvas.write()


def _grid_around(frame: LocalFrame, x_m: float, y_m: float) -> MapGrid:
    return MapGrid.around(frame, x_m, y_m, radius_m=_SIGHT_M, cell_m=1.0)


class _Remembering:
    """A segmenter that keeps what it answered, in order: networks are slow."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.classes = segmenter.classes
        self.answers: list[np.ndarray] = []
        self._segmenter = segmenter

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.answers.append(self._segmenter(image))
        return self.answers[-1]


class _Canvas:
    """Figures by file name, written at the end, each with its sources underneath."""

    def __init__(self, out: Path, attribution: str) -> None:
        self._out = out
        self._attribution = textwrap.fill(attribution, _ATTRIBUTION_CHARACTERS)
        self._figures: dict[str, Figure] = {}

    def axes(self, name: str) -> Axes:
        """The axes of a new figure."""
        from matplotlib.figure import Figure

        self._figures[name] = Figure(figsize=_SIZE_INCHES, layout="constrained")
        self._figures[name].supxlabel(self._attribution, fontsize=6)
        return self._figures[name].add_subplot()

    def write(self) -> list[Path]:
        """Write every figure as NAME.png."""
        paths = []
        for name, figure in self._figures.items():
            path = self._out / f"{name}.png"
            with atomic.replacing(path) as temporary:
                figure.savefig(temporary, dpi=110)
            paths.append(path)
        return paths
