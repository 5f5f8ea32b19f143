"""A made-up manifest: two stations of two photos and a sky, and a panorama."""

import numpy as np
from PIL import Image

from crossview.frames import LocalFrame, Pose
from crossview.manifest import Manifest

FRAME = LocalFrame(48.85, 2.33)
TERMS = {"name": "Made-up", "licence": "CC0", "attribution": "Nobody, with thanks"}

REGIONS = [{"name": "town", "lat_deg": FRAME.lat_deg, "lon_deg": FRAME.lon_deg}]
CAMERAS = [
    {
        "camera_id": "front", "model": "pinhole", "width_px": 40, "height_px": 30, "fx": 35.25,
        "fy": 35.5, "cx": 20.5, "cy": 14.5, "mask": "hood.png",
        "distortion": '{"center": [20.0, 15.0], "radial": [-1e-05, 2e-10]}',
    },
    {
        "camera_id": "side", "model": "pinhole", "width_px": 40, "height_px": 30, "fx": 35.0,
        "fy": 35.0, "cx": 20.0, "cy": 15.0,
    },
    {"camera_id": "sphere", "model": "equirectangular", "width_px": 80, "height_px": 40},
]  # fmt: skip


def view(view_id, camera_id, pose, **columns):
    """A row of the views table; the pose is in the region's frame."""
    place = {}
    if pose is not None:
        geo = FRAME.geo_pose(pose)
        place = {"lat_deg": geo.lat_deg, "lon_deg": geo.lon_deg, "heading_deg": geo.heading_deg}
    return {
        "view_id": view_id, "region": "town", "order": 0, "kind": "photo",
        "image": f"photos/{view_id}.png", "camera_id": camera_id, "height_m": 2.5,
        **place, **columns,
    }  # fmt: skip


def views():
    """Station a heads east at (100, 50) with a camera to its left and one to the sky."""
    return [
        view("a-1", "front", Pose(100, 50, 90), station_id="a", sequence_id="d", split="val",
             roll_deg=180.0, pitch_deg=1.0, time_utc="2014-06-16T12:31:34.841Z"),
        view("a-0", "side", Pose(100, 50, 10), station_id="a", sequence_id="d", pitch_deg=89.0),
        view("a-2", "side", Pose(98, 51, 0), station_id="a", sequence_id="d", split="val"),
        view("b-1", "front", Pose(110, 50, 95), station_id="b", sequence_id="d", order=1,
             split="train"),
        view("p", "sphere", Pose(0, 0, 30), kind="panorama", accuracy_m=4.0),
    ]  # fmt: skip


def write_images(root, rows):
    """Every image of the rows, coloured by its place in them, and the mask."""
    (root / "photos").mkdir(parents=True)
    for i, row in enumerate(rows):
        size = (40, 80) if row["kind"] == "panorama" else (30, 40)
        Image.fromarray(np.full((*size, 3), 10 * i, np.uint8)).save(root / row["image"])
    hood = np.zeros((30, 40), np.uint8)
    hood[20:] = 255
    Image.fromarray(hood).save(root / "hood.png")
    return root


def manifest(image_root, **changes):
    """A manifest, not saved; changes replace tables or terms."""
    tables = {"regions": REGIONS, "cameras": CAMERAS, "views": views()}
    return Manifest.from_rows(**{**TERMS, "image_root": image_root, **tables, **changes})
