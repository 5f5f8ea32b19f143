"""The demo: a made-up town, one photo in it, and where the map says it was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossview import angles, atomic
from crossview.answers import Answer, localize_photo
from crossview.cameras import Equirectangular
from crossview.frames import Fix, Pose
from crossview.models import load_model
from crossview.photos import Panorama
from crossview.semantic import SemanticMatcher
from crossview.synthetic.palette import PaletteSegmenter, colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

CAMERA = Equirectangular(width_px=1024, height_px=512)
"""A 360 degree camera: one photo of 90 degrees often fits several places of a street."""

MODEL = "columns-class-image"
CAMERA_HEIGHT_M = 1.6
PRIOR_RADIUS_M = 25.0
PRIOR_SHIFT_M = 15.0


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
    else. The photo is a class image, so no network is needed.
    """
    out.mkdir(parents=True, exist_ok=True)
    town = Town.from_seed(seed)
    town.write(out / "town.osm")
    vector_map = VectorMap.read(out / "town.osm")
    (truth,) = town.viewpoints(1, seed=seed)
    scene = Scene.from_features(vector_map.features, town.frame)
    photo = photo_of(scene, truth)
    _write_png(photo.image, out / "photo.png")
    answer = localize_photo(
        photo,
        vector_map,
        SemanticMatcher(PaletteSegmenter(), load_model(MODEL)),
        place=rough_place(town, truth, seed=seed),
        radius_m=PRIOR_RADIUS_M,
    )
    frame = answer.localization.best.grid.map.frame
    truth = frame.pose(town.frame.geo_pose(truth))
    answer = replace(answer, truth=truth)
    answer.write(out, name="photo_localized")
    return DemoResult(answer, answer.localization.best.peak(), truth)


def photo_of(scene: Scene, pose: Pose) -> Panorama:
    """The class image, in colours, that the demo's camera takes; it does not know its heading."""
    rendering = render_photo(scene, pose, CAMERA, height_m=CAMERA_HEIGHT_M)
    return Panorama(colored(rendering.classes), height_m=CAMERA_HEIGHT_M)


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
