"""The schema of a manifest: a folder of CSV tables that point at images in place.

`dataset.json` holds the schema version, name, licence, attribution and image root. The tables:

- regions: name, lat_deg, lon_deg. The anchor of one LocalFrame each.
- cameras: camera_id, model (pinhole or equirectangular), width_px, height_px, fx, fy, cx, cy
  (pixels, corner origin), distortion, mask. Distortion is JSON in pixels, `{"center": [col, row],
  "radial": [k1, k2, ...]}`, as cameras.RadialDistortion; empty for an ideal lens. Mask is an image
  of the camera's size in which *white* (at least half bright) is not the world, such as a car's
  hood.
- views: one photo or panorama each, with the pose that is known of it: heading from *true* north,
  height above the street. The camera is that of the *stored* pixels, whatever EXIF says: an image
  stored upside down has a roll near 180 degrees. station_id groups what was taken together as a
  rig: of such views all have a heading, and all or none a position. A view without one is a
  station of its own, by the name of its view_id. sequence_id and order make a drive. accuracy_m
  is the standard deviation of the position per axis, where it is known. time_utc is ISO 8601 with
  its offset.
- tiles: satellite images with a place. pairs: which tile shows which view.
- maps: files in the manifest's own folder. surveyed names the classes whose absence means absence,
  separated by semicolons.

Images and masks are paths below the image root, with forward slashes. An empty cell is "not known".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from crossview import angles, tables
from crossview.cameras import RadialDistortion
from crossview.errors import OutOfRegionError
from crossview.frames import LocalFrame
from crossview.tables import Column, Problem

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
DATASET_FILE = "dataset.json"
KEYED_TABLES = ("regions", "cameras", "views", "tiles")
"""Tables whose first column is unique and referred to."""

STEEP_PITCH_DEG = 45.0
"""A view that looks higher or lower than this says little of where it stands on a map."""

DATASET_KEYS = ("name", "licence", "attribution", "image_root")


def _is_positive(value: float) -> bool:
    return value > 0


def _is_latitude(value: float) -> bool:
    return -90 <= value <= 90


def _is_longitude(value: float) -> bool:
    return -180 <= value <= 180


def _is_heading(value: float) -> bool:
    return 0 <= value < angles.FULL_TURN_DEG


def _is_roll(value: float) -> bool:
    return -angles.FULL_TURN_DEG <= value <= angles.FULL_TURN_DEG


def _is_inside(path: str) -> bool:
    """Whether a relative path stays below its root, on any system."""
    parts = PurePosixPath(path)
    windows = PureWindowsPath(path)
    return not (parts.is_absolute() or windows.drive or "\\" in path or ".." in parts.parts)


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _key(name: str) -> Column:
    return Column(name, required=True)


def _latitude(*, required: bool) -> Column:
    return Column("lat_deg", "number", required, _is_latitude, "degrees from -90 to 90")


def _longitude(*, required: bool) -> Column:
    return Column("lon_deg", "number", required, _is_longitude, "degrees from -180 to 180")


def _positive(name: str, *, required: bool = False) -> Column:
    return Column(name, "number", required, _is_positive, "a number above 0")


def _pixels(name: str) -> Column:
    return Column(name, "integer", True, _is_positive, "a whole number of pixels above 0")


def _path(name: str, *, required: bool = False) -> Column:
    expected = "a path below its root, with forward slashes and without '..'"
    return Column(name, "text", required, _is_inside, expected)


def _choice(name: str, *choices: str) -> Column:
    return Column(name, "text", True, choices.__contains__, " or ".join(choices))


def _angle(name: str, valid: Any, expected: str) -> Column:
    return Column(name, "number", False, valid, expected)


SCHEMA: Mapping[str, tuple[Column, ...]] = {
    "regions": (_key("name"), _latitude(required=True), _longitude(required=True)),
    "cameras": (
        _key("camera_id"),
        _choice("model", "pinhole", "equirectangular"),
        _pixels("width_px"),
        _pixels("height_px"),
        _positive("fx"),
        _positive("fy"),
        Column("cx", "number"),
        Column("cy", "number"),
        Column("distortion"),
        _path("mask"),
    ),
    "views": (
        _key("view_id"),
        _key("region"),
        Column("station_id"),
        Column("sequence_id"),
        Column("order", "integer"),
        Column("time_utc", "text", False, _is_time, "ISO 8601 with an offset, ...T12:31:34Z"),
        _choice("kind", "photo", "panorama"),
        _path("image", required=True),
        Column("camera_id"),
        _latitude(required=False),
        _longitude(required=False),
        _angle("heading_deg", _is_heading, "degrees clockwise from true north in [0, 360)"),
        _angle("roll_deg", _is_roll, "degrees from -360 to 360"),
        _angle("pitch_deg", _is_latitude, "degrees from -90 to 90"),
        _positive("height_m"),
        _positive("accuracy_m"),
        Column("split"),
        Column("licence"),
    ),
    "tiles": (
        _key("tile_id"),
        _key("region"),
        _path("image", required=True),
        _latitude(required=True),
        _longitude(required=True),
        _positive("cell_m", required=True),
        _angle("rotation_deg", _is_heading, "degrees clockwise from north in [0, 360)"),
        Column("date"),
    ),
    "pairs": (_key("view_id"), _key("tile_id"), Column("relation")),
    "maps": (
        _key("region"),
        _path("file", required=True),
        _choice("kind", "osm", "footprints", "raster"),
        Column("surveyed"),
        Column("date"),
    ),
}


def problems(folder: str | Path) -> list[Problem]:
    """Everything in a manifest's files that breaks the schema; images are not opened."""
    _, rows, found = read(Path(folder))
    return found or checked(rows)[1]


def read(folder: Path) -> tuple[dict[str, str], dict[str, list[dict[str, str]]], list[Problem]]:
    """The text of all files, and what is wrong with their shape."""
    dataset, found = _read_dataset(folder / DATASET_FILE)
    rows = {}
    if not found:
        for name, columns in SCHEMA.items():
            rows[name], wrong = tables.read_rows(folder / f"{name}.csv", columns)
            found.extend(wrong)
    return dataset, rows, found


def _read_dataset(path: Path) -> tuple[dict[str, str], list[Problem]]:
    def wrong(message: str) -> tuple[dict[str, str], list[Problem]]:
        return {}, [Problem(path.name, None, None, message)]

    if not path.is_file():
        return wrong(f"not found, so {path.parent} is not a manifest (crossview-data makes them).")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return wrong(f"not a JSON file ({error}).")
    if not isinstance(content, dict):
        return wrong("expected an object with a schema_version.")
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        return wrong(
            f"its schema_version is {version!r} and this crossview reads {SCHEMA_VERSION}. Import "
            "the dataset again, or use the crossview that wrote it."
        )
    if set(content) != set(DATASET_KEYS) or not all(isinstance(v, str) for v in content.values()):
        return wrong(f"expected the texts {', '.join(DATASET_KEYS)}, got {', '.join(content)}.")
    return content, []


def checked(rows: Mapping[str, Any]) -> tuple[dict[str, pd.DataFrame], list[Problem]]:
    """Typed tables, and everything that breaks the schema."""
    parsed, found = {}, []
    for name, columns in SCHEMA.items():
        given = rows[name] if isinstance(rows[name], list) else tables.records(rows[name])
        parsed[name], wrong = tables.parse(f"{name}.csv", given, columns)
        found.extend(wrong)
    if not found:
        found = [*_key_problems(parsed), *_row_problems(parsed)]
    if not found:
        found = _place_problems(parsed)
    return parsed, found


def _key_problems(parsed: Mapping[str, pd.DataFrame]) -> list[Problem]:
    keys = {name: parsed[name][columns[0].name] for name, columns in SCHEMA.items()}
    found = []
    for name in KEYED_TABLES:
        found += tables.duplicates(f"{name}.csv", parsed[name], SCHEMA[name][0].name)
    for name, column, target in (
        ("views", "region", "regions"),
        ("views", "camera_id", "cameras"),
        ("tiles", "region", "regions"),
        ("pairs", "view_id", "views"),
        ("pairs", "tile_id", "tiles"),
        ("maps", "region", "regions"),
    ):
        found += tables.dangling(f"{name}.csv", parsed[name], column, keys[target], f"{target}.csv")
    return found


def _row_problems(parsed: Mapping[str, pd.DataFrame]) -> list[Problem]:
    found = []
    for i, row in enumerate(tables.records(parsed["cameras"]), tables.FIRST_ROW):
        found += [Problem("cameras.csv", i, *wrong) for wrong in _camera_problems(row)]
    models = dict(zip(parsed["cameras"]["camera_id"], parsed["cameras"]["model"], strict=True))
    stations: dict[str, list[Mapping[str, Any]]] = {}
    views = tables.records(parsed["views"])
    for row in views:
        if row["station_id"]:
            stations.setdefault(row["station_id"], []).append(row)
    for i, row in enumerate(views, tables.FIRST_ROW):
        found += [Problem("views.csv", i, *wrong) for wrong in _view_problems(row, models)]
        found += [Problem("views.csv", i, *wrong) for wrong in _station_problems(row, stations)]
    return found


def _camera_problems(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    numbers = ("fx", "fy", "cx", "cy")
    known = [name for name in numbers if not math.isnan(row[name])]
    if row["model"] == "pinhole" and len(known) < len(numbers):
        missing = next(name for name in numbers if name not in known)
        yield missing, "empty, and a pinhole camera needs fx, fy, cx and cy."
    if row["model"] == "equirectangular" and (known or row["distortion"]):
        yield (known or ["distortion"])[0], "an equirectangular camera has none; leave it empty."
    if row["distortion"]:
        try:
            distortion_of(row["distortion"])
        except (ValueError, TypeError, KeyError):
            yield (
                "distortion",
                f"{row['distortion']!r} is not JSON like "
                '{"center": [512.0, 512.0], "radial": [-1e-7]} (pixels).',
            )


def _view_problems(row: Mapping[str, Any], models: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if math.isnan(row["lat_deg"]) != math.isnan(row["lon_deg"]):
        yield "lon_deg", "a position has lat_deg and lon_deg, or neither."
    if row["kind"] == "photo" and not row["camera_id"]:
        yield "camera_id", "empty, and a photo needs a camera."
    model = {"photo": "pinhole", "panorama": "equirectangular"}[row["kind"]]
    if row["camera_id"] and models.get(row["camera_id"], model) != model:
        yield "camera_id", f"a {row['kind']} needs a camera of model {model}."


def _station_problems(
    row: Mapping[str, Any], stations: Mapping[str, list[Mapping[str, Any]]]
) -> Iterator[tuple[str, str]]:
    """What keeps a view from forming one rig with the other views of its station."""
    if not row["station_id"]:
        if row["view_id"] in stations:
            other = stations[row["view_id"]][0]["view_id"]
            yield (
                "station_id",
                f"empty, so view {row['view_id']!r} is a station of that name, which view "
                f"{other!r} has as its station_id. Give it a station_id: the same if they were "
                "taken together, else another.",
            )
        return
    station = stations[row["station_id"]]
    first = station[0]
    if row["region"] != first["region"]:
        message = f"station {row['station_id']!r} is in region {first['region']!r} already."
        yield "region", message
    if len(station) > 1 and math.isnan(row["heading_deg"]):
        message = f"empty, and each of the {len(station)} views of station {row['station_id']!r} "
        yield "heading_deg", message + "needs one to be mounted in a rig."
    if math.isnan(row["lat_deg"]) and not all(math.isnan(view["lat_deg"]) for view in station):
        message = f"empty, and other views of station {row['station_id']!r} have a position: all "
        yield "lat_deg", message + "or none of them need one."


def _place_problems(parsed: Mapping[str, pd.DataFrame]) -> list[Problem]:
    """Rows that lie too far from their region."""
    frames = {
        row["name"]: LocalFrame(row["lat_deg"], row["lon_deg"])
        for row in tables.records(parsed["regions"])
    }
    found: list[Problem] = []
    for name in ("views", "tiles"):
        for region, rows in parsed[name].dropna(subset=["lat_deg"]).groupby("region"):
            frame = frames[str(region)]
            try:
                frame.to_local(rows["lat_deg"], rows["lon_deg"])
            except OutOfRegionError:
                found += _far_rows(f"{name}.csv", rows, frame)
    return found


def _far_rows(file: str, rows: pd.DataFrame, frame: LocalFrame) -> Iterator[Problem]:
    for index, lat_deg, lon_deg in zip(rows.index, rows["lat_deg"], rows["lon_deg"], strict=True):
        try:
            frame.to_local(lat_deg, lon_deg)
        except OutOfRegionError as error:
            yield Problem(file, index + tables.FIRST_ROW, "lat_deg", str(error))


def distortion_of(text: str) -> RadialDistortion:
    """Distortion of a cell; distortion_text is its inverse."""
    content = json.loads(text)
    if set(content) != {"center", "radial"}:
        raise ValueError("expected center and radial")
    col, row = content["center"]
    return RadialDistortion(float(col), float(row), tuple(content["radial"]))


def distortion_text(distortion: RadialDistortion | None) -> str:
    """A lens as the cameras table holds it."""
    if distortion is None:
        return ""
    center = [distortion.center_col, distortion.center_row]
    return json.dumps({"center": center, "radial": list(distortion.coefficients)})
