"""A made-up town as a prepared dataset: rigs of class photos with exact poses, and the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossview import tables
from crossview.cameras import Pinhole
from crossview.frames import LocalFrame, Motion, Pose
from crossview.manifest import Manifest
from crossview.synthetic.palette import colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

CAMERA = Pinhole.from_focal(width_px=600, height_px=600, focal_px=300.0)
"""90 degrees: four of them see all around."""

CAMERA_HEIGHT_M = 2.5
"""A rig on a car's roof."""

RIG_TURNS_DEG = (0.0, 90.0, 180.0, 270.0)
REGION = "town"
CAMERA_ID = "pinhole-90"
MAP_FILE = "town.osm"
IMAGE_FOLDER = "images"
LICENCE = "CC0-1.0"


def write_dataset(town: Town, out: Path, *, num_stations: int, seed: int) -> Manifest:
    """Photograph a town from rigs on its streets; all of it is written or nothing.

    Args:
        town: The town.
        out: Folder to make: the manifest's tables, images/ and the map.
        num_stations: Rigs of four photos.
        seed: Of the places.

    Raises:
        ManifestError: The folder exists.
    """
    with tables.atomic_folder(out) as partial:
        (partial / IMAGE_FOLDER).mkdir()
        town.write(partial / MAP_FILE)
        scene = Scene.from_features(VectorMap.read(partial / MAP_FILE).features, town.frame)
        views = [
            _photographed(scene, town.frame, pose, order=order, turn_deg=turn_deg, out=partial)
            for order, pose in enumerate(town.viewpoints(num_stations, seed=seed))
            for turn_deg in RIG_TURNS_DEG
        ]
        _manifest(town.frame, views).write(partial)
    return Manifest.load(out)


def _photographed(
    scene: Scene, frame: LocalFrame, station: Pose, *, order: int, turn_deg: float, out: Path
) -> dict[str, Any]:
    """Take one photo of a rig, write it, and say so in a row of the manifest."""
    from PIL import Image

    pose = station.moved(Motion(turn_deg=turn_deg))
    rendering = render_photo(scene, pose, CAMERA, height_m=CAMERA_HEIGHT_M)
    view_id = f"{order:03d}-{turn_deg:03.0f}"
    image = f"{IMAGE_FOLDER}/{view_id}.png"
    Image.fromarray(colored(rendering.classes)).save(out / image)
    place = frame.geo_pose(pose)
    return {
        "view_id": view_id,
        "region": REGION,
        "station_id": f"{order:03d}",
        "order": order,
        "kind": "photo",
        "image": image,
        "camera_id": CAMERA_ID,
        "lat_deg": place.lat_deg,
        "lon_deg": place.lon_deg,
        "heading_deg": place.heading_deg,
        "roll_deg": 0.0,
        "pitch_deg": 0.0,
        "height_m": CAMERA_HEIGHT_M,
        "licence": LICENCE,
    }


def _manifest(frame: LocalFrame, views: list[dict[str, Any]]) -> Manifest:
    camera = {
        "camera_id": CAMERA_ID,
        "model": "pinhole",
        **{
            name: getattr(CAMERA, name)
            for name in ("width_px", "height_px", "fx", "fy", "cx", "cy")
        },
    }
    town_map = {"region": REGION, "file": MAP_FILE, "kind": "osm"}
    return Manifest.from_rows(
        name="a made-up town",
        licence=LICENCE,
        attribution="",
        image_root=".",
        regions=[{"name": REGION, "lat_deg": frame.lat_deg, "lon_deg": frame.lon_deg}],
        cameras=[camera],
        views=views,
        maps=[town_map],
    )
