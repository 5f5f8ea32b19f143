"""A made-up folder in the layout of the iTowns sample dataset."""

import json

import numpy as np
from PIL import Image

# Rows z, x, y of each camera (forward, right, down), stored upside down but for the one that looks
# up, whose orientation 3 means half a turn more.
ROTATIONS = {
    300: ([0, 0, -1], [1, 0, 0], [0, -1, 0]),
    301: ([1, 0, 0], [0, -1, 0], [0, 0, -1]),
    302: ([0, -1, 0], [-1, 0, 0], [0, 0, -1]),
    303: ([-1, 0, 0], [0, 1, 0], [0, 0, -1]),
    304: ([0, 1, 0], [1, 0, 0], [0, 0, -1]),
}
POSITIONS = {
    300: (-0.1, 0.0, -0.9),
    301: (0.5, 0.0, -0.8),
    302: (0.0, -0.25, -0.8),
    303: (-0.5, 0.0, -0.8),
    304: (0.0, 0.25, -0.8),
}
EASTING_M, NORTHING_M = 651187.0, 6861379.0
CALIBRATED_PX, STORED_PX = 64, 32


def station(number, *, heading=90.0, pitch=0.0, roll=0.0, seconds=0, east_m=0.0, north_m=0.0):
    """An entry of panoramicsMetaData.json."""
    minutes, seconds = divmod(seconds, 60)
    return {
        "id": number,
        "easting": EASTING_M + east_m,
        "northing": NORTHING_M + north_m,
        "altitude": 39.0,
        "heading": heading,
        "roll": roll,
        "pitch": pitch,
        "date": f"2014-06-16T12:{minutes:02d}:{seconds:02d}.500Z",
    }


def write_folder(folder, stations, *, photos_of=None, image_of=None):
    """Write the dataset; returns its folder.

    Args:
        folder: Where; it is made.
        stations: Entries of the metadata.
        photos_of: Numbers of the stations that have photos; by default all.
        image_of: Image (rows, cols, 3) of a station and camera number; by default black.
    """
    pictures = folder / "images" / "140616"
    pictures.mkdir(parents=True)
    files = {
        "panoramicsMetaData.json": stations,
        "cameraCalibration.json": [_camera(number) for number in ROTATIONS],
        "buildingFootprint.json": _footprints(),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    _save(folder / "images" / "mask301.jpg", _mask())
    for entry in stations:
        if photos_of is not None and entry["id"] not in photos_of:
            continue
        for camera in ROTATIONS:
            image = np.zeros((STORED_PX, STORED_PX, 3), np.uint8)
            if image_of is not None:
                image = image_of(entry["id"], camera)
            _save(photo_path(folder, entry["id"], camera), image)
    return folder


def photo_path(folder, station_number, camera):
    """Where a photo lies."""
    name = f"Paris-140616_0740-{camera}-00001_{station_number:07d}.jpg"
    return folder / "images" / "140616" / name


def _camera(number):
    entry = {
        "id": number,
        "rotation": [float(value) for row in ROTATIONS[number] for value in row],
        "position": POSITIONS[number],
        "projection": [36.0, 0, 33.0, 0, 36.0, 30.0, 0, 0, 1],
        "size": [CALIBRATED_PX, CALIBRATED_PX],
        "distortion": {"pps": [32.5, 31.0], "poly357": [-1e-4, 2e-8, -3e-12]},
        "orientation": 3 if number == 300 else 2,
    }
    if number == 301:
        entry["mask"] = "images/mask301.jpg"
    return entry


def _footprints():
    """Two square buildings, the second without a height and with its ring the other way round."""
    squares = []
    for i, height_m in enumerate((12, 0)):
        west, south = EASTING_M + 10.0 + 30.0 * i, NORTHING_M - 5.0
        ring = [
            [west, south], [west, south + 10], [west + 10, south + 10], [west + 10, south],
            [west, south],
        ]  # fmt: skip
        squares.append(
            {
                "type": "Feature",
                "geometry": {
                    "type": "MultiPolygon",
                    "coordinates": [[ring if i == 0 else ring[::-1]]],
                },
                "properties": {"id": f"B{i}", "hauteur": height_m, "prec_plani": 2.5},
            }
        )
    return {
        "type": "FeatureCollection",
        "crs": {"type": "EPSG", "properties": {"code": "2154"}},
        "features": squares,
    }


def _mask():
    """White where the van is: at the top, since photos are stored upside down."""
    mask = np.zeros((STORED_PX, STORED_PX, 3), np.uint8)
    mask[:8] = 255
    return mask


def _save(path, image):
    Image.fromarray(image).save(path, "JPEG", quality=95)
