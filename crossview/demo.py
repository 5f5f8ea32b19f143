"""The demo: a made-up town, one rendered photo in it, and where the map says it was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossview import angles, atomic
from crossview.answers import Answer, localize_photo
from crossview.cameras import Equirectangular
from crossview.frames import Fix, LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.models import load_model
from crossview.photos import Panorama
from crossview.rasters import SatelliteTile
from crossview.semantic import SemanticMatcher
from crossview.synthetic.appearance import Appearance
from crossview.synthetic.label_noise import noisy
from crossview.synthetic.moments import daylight, traffic
from crossview.synthetic.palette import PaletteSegmenter, colored
from crossview.synthetic.render import Rendering, SatelliteView, render_photo, render_satellite
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

CAMERA = Equirectangular(width_px=1024, height_px=512)
"""A 360 degree camera: one photo of 90 degrees often fits several places of a street."""

MODEL = "columns-class-image"
CAMERA_HEIGHT_M = 1.6
PRIOR_RADIUS_M = 25.0
PRIOR_SHIFT_M = 15.0

LABEL_NOISE = 0.5
"""Errors of the photo's classes: label_noise says what 1 is."""

TILE_M, TILE_CELL_M = 80.0, 0.2
"""Of the satellite view around the rough place."""

PICTURE_INCHES = (13.0, 10.0)
TITLES = {
    "photo": "photo, all around: which way is not known",
    "birdseye": "bird's-eye view of its classes",
    "heatmap": "where the map says it was taken",
    "satellite": "satellite view, another day",
}


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Args:
        answer: The posterior and its map.
        estimate: The most probable pose.
        truth: Where the photo was really taken.
    """

    answer: Answer
    estimate: Pose
    truth: Pose

    @property
    def position_error_m(self) -> float:
        """Distance of the estimate from the truth."""
        return math.hypot(self.estimate.x_m - self.truth.x_m, self.estimate.y_m - self.truth.y_m)

    @property
    def heading_error_deg(self) -> float:
        """Turn between estimate and truth."""
        if self.estimate.heading_deg is None or self.truth.heading_deg is None:
            raise ValueError(f"{self.estimate} or {self.truth} has no heading.")
        return abs(float(angles.difference_deg(self.estimate.heading_deg, self.truth.heading_deg)))

    def report(self) -> str:
        """Estimate, truth and error in words."""
        frame = self.answer.localization.best.grid.map.frame
        lines = [self.answer.summary()]
        for name, pose in (("estimate", self.estimate), ("truth", self.truth)):
            place = frame.geo_pose(pose)
            lines.append(
                f"{name}: {place.lat_deg:.7f}, {place.lon_deg:.7f}, "
                f"heading {place.heading_deg:.1f} deg"
            )
        lines.append(f"error: {self.position_error_m:.2f} m, {self.heading_error_deg:.1f} deg")
        return "\n".join(lines)


def run(out: Path, *, seed: int = 0) -> DemoResult:
    """Make a town, take a photo in it, localize the photo, and write everything into a folder.

    The map goes through the OpenStreetMap reader: photo and map share one XML file, and nothing
    else. The photo's classes are the renderer's with made-up errors, so no network is needed; cars
    and people in it are in no map. The satellite view is of another day.
    """
    out.mkdir(parents=True, exist_ok=True)
    town = Town.from_seed(seed)
    town.write(out / "town.osm")
    vector_map = VectorMap.read(out / "town.osm")
    (truth,) = town.viewpoints(1, seed=seed)
    scene = Scene.from_features(vector_map.features, town.frame)
    seen = _photographed(scene, truth, seed=seed)
    photo = _colours(seen)
    labels = colored(noisy(seen.classes, np.random.default_rng(seed), strength=LABEL_NOISE))
    query = Panorama(labels, height_m=CAMERA_HEIGHT_M)
    place = rough_place(town, truth, seed=seed)
    answer = localize_photo(
        query,
        vector_map,
        SemanticMatcher(PaletteSegmenter(), load_model(MODEL)),
        place=place,
        radius_m=PRIOR_RADIUS_M,
    )
    frame = answer.localization.best.grid.map.frame
    here = frame.pose(town.frame.geo_pose(truth))
    answer = replace(answer, truth=here)
    answer.write(out, name="photo_localized")
    tile = _flown_over(scene, town.frame, place, seed=seed)
    for name, image in (("photo", photo), ("labels", labels), ("satellite", tile.rgb)):
        _write_png(image, out / f"{name}.png")
    result = DemoResult(answer, answer.localization.best.peak(), here)
    _draw(result, query, photo, tile, out / "demo.png")
    return result


def photo_of(scene: Scene, pose: Pose) -> Panorama:
    """The class image, in colours, that the demo's camera takes; it does not know its heading."""
    rendering = render_photo(scene, pose, CAMERA, height_m=CAMERA_HEIGHT_M)
    return Panorama(colored(rendering.classes), height_m=CAMERA_HEIGHT_M)


def _photographed(scene: Scene, pose: Pose, *, seed: int) -> Rendering:
    """What the camera takes on a day with traffic."""
    movers = traffic(scene, seed, 1.0, keep_out_m=[(pose.x_m, pose.y_m)])
    return render_photo(
        scene, pose, CAMERA, height_m=CAMERA_HEIGHT_M, movers=movers, appearance=Appearance()
    )


def _flown_over(scene: Scene, frame: LocalFrame, place: Fix, *, seed: int) -> SatelliteTile:
    """The rough place from above, on another day."""
    grid = MapGrid.around(
        frame,
        *map(float, frame.to_local(place.lat_deg, place.lon_deg)),
        radius_m=TILE_M / 2,
        cell_m=TILE_CELL_M,
    )
    rng = np.random.default_rng(seed)
    # other draws than the photo's, of the same seed
    movers = traffic(scene, seed + 1, 1.0)
    seen = render_satellite(scene, grid, movers=movers, appearance=daylight(rng, 1.0))
    return SatelliteTile(grid, _colours(seen), np.ones(grid.shape, dtype=bool))


def _colours(seen: Rendering | SatelliteView) -> np.ndarray:
    if seen.rgb is None:
        raise ValueError("Without an appearance nothing has colours.")
    return seen.rgb


def _draw(
    result: DemoResult, query: Panorama, photo: np.ndarray, tile: SatelliteTile, path: Path
) -> None:
    """Photo, bird's-eye view, heat map and satellite tile on one page."""
    from crossview import plots
    from crossview.birdseye_matcher import CHANNELS, BirdsEyeMatcher
    from crossview.pictures import new_figure, write_figure

    figure = new_figure(PICTURE_INCHES, "A made-up town (CC0)")
    axes = figure.subplot_mosaic(
        [["photo", "birdseye"], ["satellite", "heatmap"]],
        width_ratios=(1.2, 1),
        height_ratios=(1, 1.2),
    )
    axes["photo"].imshow(photo)
    axes["photo"].set_axis_off()
    view = BirdsEyeMatcher(PaletteSegmenter()).observe(query)
    plots.birdseye(view, axes["birdseye"], names=CHANNELS)
    localization, maps = result.answer.localization, result.answer.maps
    plots.heatmap(localization, axes["heatmap"], background=maps, truth=result.truth)
    frame = localization.best.grid.map.frame
    estimate, truth = (
        tile.grid.frame.pose(frame.geo_pose(pose)) for pose in (result.estimate, result.truth)
    )
    plots.satellite(tile, axes["satellite"], estimate=estimate, truth=truth)
    for name, title in TITLES.items():
        axes[name].set_title(title, loc="left")
    write_figure(figure, path)


def rough_place(town: Town, truth: Pose, *, seed: int) -> Fix:
    """What a bad satellite fix would say: up to 15 m off per axis."""
    shift_x_m, shift_y_m = np.random.default_rng(seed).uniform(
        -PRIOR_SHIFT_M, PRIOR_SHIFT_M, size=2
    )
    lat_deg, lon_deg = town.frame.to_geodetic(truth.x_m + shift_x_m, truth.y_m + shift_y_m)
    return Fix(lat_deg, lon_deg)


def _write_png(image: np.ndarray, path: Path) -> None:
    from PIL import Image

    with atomic.replacing(path) as temporary:
        Image.fromarray(image).save(temporary)
