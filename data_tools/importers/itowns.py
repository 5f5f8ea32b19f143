"""Importer of the iTowns sample dataset: panoramic stations of IGN's Stereopolis van in Paris.

The folder holds `panoramicsMetaData.json` (stations), `cameraCalibration.json` (the rig),
`buildingFootprint.json` (both in Lambert-93) and photos below `images/`. What its numbers mean was
found by projecting the footprints into the photos:

- A station's heading is clockwise from Lambert-93 *grid* north; pitch is up and roll right side
  down as ours, applied in the order heading, pitch, roll.
- A camera's `rotation` has the rows z, x, y of its axes where `orientation` is 2, and z, -x, -y
  (half a turn) where it is 3; `position` is in metres. Both are in a body frame *forward, right,
  down*, whose origin is 2.0 m above the street.
- `projection` and `distortion.pps` are for 2048 pixels and count rows from the *bottom edge*, so
  that both edges of the image are whole numbers: corner origin. `poly357` goes from undistorted
  to distorted pixels around pps.
- The horizontal cameras are stored upside down; masks are stored likewise, white is the van.
- A building's `hauteur` is its height in metres, 0 where it is not known.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from crossview import angles, frames, manifest_schema, photos, tables
from crossview.cameras import (
    Pinhole,
    RadialDistortion,
    map_from_camera,
    orientation_from_rotation,
)
from crossview.errors import DatasetError, PhotoError
from crossview.manifest import Manifest

CRS = "EPSG:2154"
BODY_HEIGHT_M = 2.0
"""Of the body frame above the street: with the cameras 0.865 m above it, wall bases fall on wall
bases at 2.865 m. The stations' altitude is that of the street (it equals dtm.json)."""

SEQUENCE_GAP_S = 60.0
"""A longer pause begins another drive; the van waits at a corner for 16 s."""

NAME = "IGN research iTowns sample dataset"
LICENCE = "CC BY-NC-ND 3.0"
ATTRIBUTION = (
    "IGN research iTowns sample dataset, © IGN. IGN created this sample dataset for the purpose of "
    "geovisualization research activities and opensource development, but does not endorse the way "
    "they are used in this project or the conclusions put forward."
)
REGION = "paris"
FOOTPRINTS_FILE = "footprints.geojson"

_STATIONS, _CALIBRATION = "panoramicsMetaData.json", "cameraCalibration.json"
_BUILDINGS = "buildingFootprint.json"
_PHOTO_NAME = re.compile(r"-(?P<camera>\d+)-\d+_0*(?P<station>\d+)\.jpe?g", re.IGNORECASE)
_LEVEL_FROM_BODY = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""Body axes (forward, right, down) as camera axes (right, down, forward)."""

_AXES_SIGN = {2: 1.0, 3: -1.0}
"""By `orientation`, how a camera is mounted; 0 and 1 are quarter turns, which no folder has yet."""

_LON_LAT_DECIMALS = 9
"""A tenth of a millimetre."""

_ANCHOR_DECIMALS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RigCamera:
    """One camera of the van.

    Args:
        camera_id: As in the dataset.
        camera: Of the calibrated size, corner origin, rows from the top.
        body_from_camera: (3, 3), camera axes to the level camera axes of the body (right, down,
            forward).
        position_m: (3,), in the body's axes right, down, forward.
        mask: Path of its mask below the folder, or "".
    """

    camera_id: str
    camera: Pinhole
    body_from_camera: np.ndarray
    position_m: np.ndarray
    mask: str


def import_itowns(source: str | Path, out: str | Path, *, overwrite: bool = False) -> Manifest:
    """Write a manifest of an iTowns folder; its photos stay where they are.

    A station without any photo is skipped and counted in the log; one with some photos missing
    or truncated is an error.

    Args:
        source: The dataset's folder.
        out: The manifest's folder, which must not exist yet.
        overwrite: Replace a manifest that is there.

    Raises:
        DatasetError: The folder is not complete; the message names all that is missing.
        ManifestError: `out` exists.
    """
    source = Path(source)
    stations = _stations(source)
    rig = _rig(source)
    footprints = footprints_from_itowns(_json(source / _BUILDINGS, dict))
    files = _photo_files(source)
    present = [s for s in stations if any((s["id"], c.camera_id) in files for c in rig)]
    if not present:
        raise DatasetError(
            f"No photo below {source / 'images'} belongs to a station of {_STATIONS}; expected "
            "names such as Paris-140616_0740-301-00001_0000482.jpg."
        )
    sizes = _photo_sizes(present, rig, files)
    with tables.atomic_folder(out, overwrite=overwrite) as folder:
        text = json.dumps(footprints, ensure_ascii=False)
        (folder / FOOTPRINTS_FILE).write_text(text, encoding="utf-8")
        _manifest(source, present, rig, files, sizes).write(folder)
    _log.info(
        "%d stations with %d photos imported; %d stations without any photo skipped.",
        len(present),
        len(present) * len(rig),
        len(stations) - len(present),
    )
    return Manifest.load(out)


def rig_camera_from_itowns(entry: Mapping[str, Any]) -> RigCamera:
    """A camera of cameraCalibration.json in our conventions (see the module)."""
    height_px = int(entry["size"][1])
    matrix = np.array(entry["projection"], dtype=float).reshape(3, 3)
    pps_col, pps_row = entry["distortion"]["pps"]
    sign = _AXES_SIGN.get(entry["orientation"])
    if sign is None:
        raise DatasetError(
            f"Camera {entry['id']} has orientation {entry['orientation']}; expected 2 or 3. What "
            "quarter turns mean could not be checked, as no known folder has any."
        )
    z_axis, x_axis, y_axis = np.array(entry["rotation"], dtype=float).reshape(3, 3)
    axes = np.stack([sign * x_axis, sign * y_axis, z_axis], axis=1)
    return RigCamera(
        camera_id=str(entry["id"]),
        camera=Pinhole(
            width_px=int(entry["size"][0]),
            height_px=height_px,
            fx=matrix[0, 0],
            fy=matrix[1, 1],
            cx=matrix[0, 2],
            cy=height_px - matrix[1, 2],
            distortion=RadialDistortion(
                pps_col, height_px - pps_row, tuple(entry["distortion"]["poly357"])
            ),
        ),
        body_from_camera=_LEVEL_FROM_BODY @ axes,
        position_m=_LEVEL_FROM_BODY @ np.array(entry["position"], dtype=float),
        mask=entry.get("mask", ""),
    )


def view_from_itowns(station: Mapping[str, Any], rig_camera: RigCamera) -> dict[str, Any]:
    """Pose columns of one view: position with the lever arm, orientation from true north."""
    grid_from_body = map_from_camera(station["heading"], station["pitch"], station["roll"])
    east_m, north_m, up_m = grid_from_body @ rig_camera.position_m
    orientation = orientation_from_rotation(grid_from_body @ rig_camera.body_from_camera)
    place_m = station["easting"] + east_m, station["northing"] + north_m
    lat_deg, lon_deg = frames.geodetic_from_projected(CRS, *place_m)
    heading_deg = orientation.heading_deg + frames.grid_convergence_deg(CRS, *place_m)
    return {
        "lat_deg": lat_deg,
        "lon_deg": lon_deg,
        "heading_deg": float(angles.normalize_deg(heading_deg)),
        "roll_deg": orientation.roll_deg,
        "pitch_deg": orientation.pitch_deg,
        "height_m": BODY_HEIGHT_M + up_m,
    }


def footprints_from_itowns(collection: Mapping[str, Any]) -> dict[str, Any]:
    """Building footprints in Lambert-93 as RFC 7946 GeoJSON, `height` in metres or null."""
    code = str(collection.get("crs", {}).get("properties", {}).get("code"))
    if f"EPSG:{code}" != CRS:
        raise DatasetError(f"{_BUILDINGS} is in EPSG:{code}; expected {CRS} (Lambert-93).")
    try:
        features = [_footprint(feature) for feature in collection["features"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{_BUILDINGS} is not laid out as expected ({error!r}).") from error
    return {
        "type": "FeatureCollection",
        "attribution": ATTRIBUTION,
        "licence": LICENCE,
        "features": features,
    }


def _footprint(feature: Mapping[str, Any]) -> dict[str, Any]:
    properties, geometry = feature["properties"], feature["geometry"]
    if geometry["type"] != "MultiPolygon":
        raise ValueError(f"geometry {geometry['type']}")
    height_m = properties["hauteur"]
    return {
        "type": "Feature",
        "id": properties["id"],
        "properties": {"building": "yes", "height": height_m if height_m > 0 else None},
        "geometry": {
            "type": "MultiPolygon",
            "coordinates": [
                [_lon_lat_ring(ring, outer=i == 0) for i, ring in enumerate(polygon)]
                for polygon in geometry["coordinates"]
            ],
        },
    }


def _lon_lat_ring(ring: Sequence[Sequence[float]], *, outer: bool) -> list[list[float]]:
    """A ring in degrees, longitude first; outer rings run counter-clockwise and holes clockwise."""
    easting_m, northing_m = np.array(ring, dtype=float)[:, :2].T
    lat_deg, lon_deg = frames.geodetic_from_projected(CRS, easting_m, northing_m)
    east, north = easting_m - easting_m[0], northing_m - northing_m[0]
    counter_clockwise = np.sum(east[:-1] * north[1:] - east[1:] * north[:-1]) > 0
    positions = np.round(np.stack([lon_deg, lat_deg], axis=1), _LON_LAT_DECIMALS).tolist()
    return positions if counter_clockwise == outer else positions[::-1]


def _json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is missing. An iTowns folder holds {_STATIONS}, {_CALIBRATION}, {_BUILDINGS} "
            "and images/."
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, kind):
        raise DatasetError(f"{path} holds a {type(content).__name__}; expected a {kind.__name__}.")
    return content


def _stations(source: Path) -> list[dict[str, Any]]:
    """Stations in the order of time, with `id` as text and `time` parsed."""
    stations = []
    for entry in _json(source / _STATIONS, list):
        try:
            numbers = {
                key: float(entry[key])
                for key in ("easting", "northing", "heading", "pitch", "roll")
            }
            time = datetime.fromisoformat(entry["date"])
            stations.append(
                {"id": str(entry["id"]), "date": entry["date"], "time": time, **numbers}
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{_STATIONS} has a station that is not laid out as expected ({error!r}): {entry}."
            ) from error
    return sorted(stations, key=lambda station: station["time"])


def _rig(source: Path) -> list[RigCamera]:
    rig = []
    for entry in _json(source / _CALIBRATION, list):
        try:
            rig.append(rig_camera_from_itowns(entry))
        except DatasetError:
            raise
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DatasetError(
                f"{_CALIBRATION} has a camera that is not laid out as expected ({error!r})."
            ) from error
        if rig[-1].mask and not (source / rig[-1].mask).is_file():
            raise DatasetError(
                f"{source / rig[-1].mask}, the mask of camera {rig[-1].camera_id}, is missing."
            )
    return rig


def _photo_files(source: Path) -> dict[tuple[str, str], Path]:
    """Photos by station and camera."""
    files: dict[tuple[str, str], Path] = {}
    for path in sorted((source / "images").rglob("*")):
        match = _PHOTO_NAME.search(path.name)
        if match is None:
            continue
        key = match["station"], match["camera"]
        if key in files:
            raise DatasetError(
                f"{files[key]} and {path} are both camera {key[1]}, station {key[0]}."
            )
        files[key] = path
    return files


def _photo_sizes(
    stations: Sequence[Mapping[str, Any]],
    rig: Sequence[RigCamera],
    files: Mapping[tuple[str, str], Path],
) -> dict[str, tuple[int, int]]:
    """Size of each camera's photos, after making sure that all are there and whole."""
    wrong = []
    sizes: dict[str, tuple[int, int]] = {}
    for station in stations:
        for rig_camera in rig:
            path = files.get((station["id"], rig_camera.camera_id))
            if path is None:
                wrong.append(
                    f"station {station['id']} has no photo of camera {rig_camera.camera_id}"
                )
                continue
            try:
                size = photos.decoded_size(path)
            except PhotoError as error:
                wrong.append(str(error).rstrip("."))
                continue
            if size != sizes.setdefault(rig_camera.camera_id, size):
                wrong.append(
                    f"{path.name} has {size[0]} x {size[1]} pixels, others of its camera do not"
                )
    if wrong:
        raise DatasetError(
            f"{len(wrong)} photos are missing or damaged: {'; '.join(wrong)}. Complete them, or "
            "remove all photos of their stations."
        )
    return sizes


def _manifest(
    source: Path,
    stations: Sequence[Mapping[str, Any]],
    rig: Sequence[RigCamera],
    files: Mapping[tuple[str, str], Path],
    sizes: Mapping[str, tuple[int, int]],
) -> Manifest:
    lat_deg, lon_deg = frames.geodetic_from_projected(
        CRS,
        np.mean([station["easting"] for station in stations]),
        np.mean([station["northing"] for station in stations]),
    )
    region = {
        "name": REGION,
        "lat_deg": round(lat_deg, _ANCHOR_DECIMALS),
        "lon_deg": round(lon_deg, _ANCHOR_DECIMALS),
    }
    footprints = {
        "region": REGION, "file": FOOTPRINTS_FILE, "kind": "footprints", "surveyed": "building",
    }  # fmt: skip
    return Manifest.from_rows(
        name=NAME,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        image_root=source.resolve(),
        regions=[region],
        cameras=[_camera_row(rig_camera, sizes[rig_camera.camera_id]) for rig_camera in rig],
        views=list(_view_rows(source, stations, rig, files)),
        maps=[footprints],
    )


def _camera_row(rig_camera: RigCamera, size: tuple[int, int]) -> dict[str, Any]:
    """The camera of the files, which are smaller than what was calibrated."""
    camera = rig_camera.camera.scaled(size[0] / rig_camera.camera.width_px)
    if (camera.width_px, camera.height_px) != size:
        raise DatasetError(
            f"Photos of camera {rig_camera.camera_id} have {size[0]} x {size[1]} pixels, which is "
            f"no scaled {rig_camera.camera.width_px} x {rig_camera.camera.height_px} as calibrated."
        )
    return {
        "camera_id": rig_camera.camera_id,
        "model": "pinhole",
        "width_px": camera.width_px,
        "height_px": camera.height_px,
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "distortion": manifest_schema.distortion_text(camera.distortion),
        "mask": rig_camera.mask,
    }


def _view_rows(
    source: Path,
    stations: Sequence[Mapping[str, Any]],
    rig: Sequence[RigCamera],
    files: Mapping[tuple[str, str], Path],
) -> Iterator[dict[str, Any]]:
    for station, (drive, order) in zip(stations, _drives(stations), strict=True):
        for rig_camera in rig:
            path = files[station["id"], rig_camera.camera_id]
            yield {
                "view_id": f"{station['id']}-{rig_camera.camera_id}",
                "region": REGION,
                "station_id": station["id"],
                "sequence_id": f"drive-{drive}",
                "order": order,
                "time_utc": station["date"],
                "kind": "photo",
                "image": path.relative_to(source).as_posix(),
                "camera_id": rig_camera.camera_id,
                "licence": LICENCE,
                **view_from_itowns(station, rig_camera),
            }


def _drives(stations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Number of the drive, from 1, and place in it, of stations in the order of time."""
    drive, order = 1, 0
    for i, station in enumerate(stations):
        pause_s = (station["time"] - stations[i - 1]["time"]).total_seconds() if i else 0.0
        drive, order = (drive + 1, 0) if pause_s > SEQUENCE_GAP_S else (drive, order)
        yield drive, order
        order += 1
