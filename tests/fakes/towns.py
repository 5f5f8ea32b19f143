"""Small prepared datasets of the synthetic town: rigs of class photos with exact poses."""

from pathlib import Path

import numpy as np
from PIL import Image

from crossview import angles
from crossview.cameras import Pinhole
from crossview.frames import Pose
from crossview.manifest import Manifest
from crossview.synthetic.palette import colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

CAMERA = Pinhole.from_focal(320, 240, 160.0)
"""90 degrees across."""

HEIGHT_M = 2.0
MOUNTS = ((0.0, 0.4, 0.0), (90.0, 0.0, 0.3), (180.0, -0.4, 0.0), (270.0, 0.0, -0.3))
"""(heading_deg, forward_m, right_m) of the rig's four cameras, about the vehicle's middle."""


def town_dataset(folder: Path, *, num_stations: int = 2, seed: int = 1) -> Path:
    """Write the town, photos of four cameras at each of a few stations, and their manifest.

    Returns:
        The manifest's folder. Stations are "s0", "s1", ...; the views of s0 are "s0-0" to "s0-3".
    """
    images = folder / "images"
    images.mkdir(parents=True)
    town = Town.from_seed(0)
    town.write(folder / "town.osm")
    features = VectorMap.read(folder / "town.osm").features
    scene = Scene.from_features(features, town.frame)
    views = []
    for i, middle in enumerate(town.viewpoints(num_stations, seed=seed)):
        for k, mount in enumerate(MOUNTS):
            pose = mounted(middle, *mount)
            write_class_photo(images / f"s{i}-{k}.png", scene, pose)
            place = town.frame.geo_pose(pose)
            views.append(
                {
                    "view_id": f"s{i}-{k}",
                    "region": "town",
                    "station_id": f"s{i}",
                    "order": k,
                    "kind": "photo",
                    "image": f"s{i}-{k}.png",
                    "camera_id": "wide",
                    "lat_deg": place.lat_deg,
                    "lon_deg": place.lon_deg,
                    "heading_deg": place.heading_deg,
                    "roll_deg": 0.0,
                    "pitch_deg": 0.0,
                    "height_m": HEIGHT_M,
                }
            )
    camera = {name: getattr(CAMERA, name) for name in ("width_px", "height_px")}
    camera |= {name: getattr(CAMERA, name) for name in ("fx", "fy", "cx", "cy")}
    Manifest.from_rows(
        name="synthetic town",
        licence="CC0-1.0",
        attribution="nobody",
        image_root=images,
        folder=folder,
        regions=[
            {"name": "town", "lat_deg": town.frame.lat_deg, "lon_deg": town.frame.lon_deg},
        ],
        cameras=[{"camera_id": "wide", "model": "pinhole", **camera}],
        views=views,
        maps=[{"region": "town", "file": "town.osm", "kind": "osm", "surveyed": "building"}],
    ).save(folder / "manifest")
    return folder / "manifest"


def mounted(middle: Pose, heading_deg: float, forward_m: float, right_m: float) -> Pose:
    """Where a camera of the rig stands and looks."""
    east, north = angles.forward(middle.heading_deg)
    return Pose(
        middle.x_m + float(forward_m * east + right_m * north),
        middle.y_m + float(forward_m * north - right_m * east),
        middle.heading_deg + heading_deg,
    )


def write_class_photo(path: Path, scene: Scene, pose: Pose, *, camera: Pinhole = CAMERA) -> None:
    """The class image that a camera takes, in the colours of the palette, as a PNG file."""
    rendering = render_photo(scene, pose, camera, height_m=HEIGHT_M)
    Image.fromarray(np.ascontiguousarray(colored(rendering.classes))).save(path)
