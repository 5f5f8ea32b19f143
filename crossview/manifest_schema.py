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
  its offset. magnetic_heading_deg is what a compass said and nobody has corrected: it is never used
  as a heading. source names the image where it came from (`mapillary:ID`), as addresses expire;
  licence and attribution are its own where they differ from the dataset's. split is train, val,
  test or any other name; empty where a view belongs to none, such as one in the buffer between two.
- tiles: satellite images, with the place of their middle, who provided them, under which terms.
  rotation_deg is where their upper edge points. pairs: which tile shows which view.
- maps: files in the manifest's own folder. surveyed names the classes whose absence means absence,
  separated by semicolons.

Images and masks are paths below the image root, with forward slashes; a path leaves its root
neither by `..` nor by a symbolic link. sha256 is that of the file, where it is wanted. An empty
cell is "not known".

A file TABLE.parquet beside TABLE.csv is a quicker copy (see parquet): the CSV is the truth. Rows
are appended in place (see appends). Manifests of older schema versions are read (see ADDED_COLUMNS)
and saved as the present one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import angles, appends, parquet, tables
from crossview.cameras import RadialDistortion
from crossview.errors import ManifestError, OutOfRegionError
from crossview.frames import LocalFrame
from crossview.tables import Column, Problem

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2
ADDED_COLUMNS: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    2: {
        "views": ("magnetic_heading_deg", "attribution", "source", "sha256"),
        "tiles": ("provider", "attribution", "terms_url", "sha256"),
        "maps": ("sha256",),
    },
}
"""What each schema version brought: in a manifest of an older one it is "not known"."""

DATASET_FILE = "dataset.json"
KEYED_TABLES = ("regions", "cameras", "views", "tiles")
"""Tables whose first column is unique and referred to."""

CHECKED_FILES: Mapping[str, str] = {"views": "image", "tiles": "image", "maps": "file"}
"""Tables with a sha256, and the column that names its file."""

STEEP_PITCH_DEG = 45.0
"""A view that looks higher or lower than this says little of where it stands on a map."""

_SHA256 = re.compile("[0-9a-f]{64}")
_PANORAMA, _PHOTO = "panorama", "photo"

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
    is_absolute = path.startswith("/") or path[1:2] == ":"
    return not (is_absolute or "\\" in path or "\0" in path or ".." in path.split("/"))


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


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


def _sha256() -> Column:
    return Column("sha256", "text", False, _is_sha256, "64 hexadecimal digits, small letters")


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
        _angle("magnetic_heading_deg", _is_heading, "degrees in [0, 360)"),
        Column("attribution"),
        Column("source"),
        _sha256(),
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
        Column("provider"),
        Column("attribution"),
        Column("terms_url"),
        _sha256(),
    ),
    "pairs": (_key("view_id"), _key("tile_id"), Column("relation")),
    "maps": (
        _key("region"),
        _path("file", required=True),
        _choice("kind", "osm", "footprints", "raster"),
        Column("surveyed"),
        Column("date"),
        _sha256(),
    ),
}


def problems(folder: str | Path) -> list[Problem]:
    """Everything in a manifest's files that breaks the schema; images are not opened.

    Copies in Parquet are compared with their CSV, cell by cell.
    """
    _, parsed, found = read(Path(folder), use_parquet=False)
    found = found or checked(parsed)[1]
    for name, table in parsed.items():
        found.extend(parquet.disagreements(Path(folder) / f"{name}.csv", table, SCHEMA[name]))
    return found


def read(
    folder: Path, *, use_parquet: bool = True
) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[Problem]]:
    """The content of all files, and which cells are impossible; see checked for the rest.

    Args:
        folder: The manifest.
        use_parquet: Read the copies in Parquet of those tables whose CSV they were made of.
    """
    dataset, found = _read_dataset(folder / DATASET_FILE)
    parsed = {}
    if not found:
        newer = _newer_columns(dataset.pop("schema_version"))
        sizes = appends.sizes_before(folder)
        for name, columns in SCHEMA.items():
            path = folder / f"{name}.csv"
            copy = parquet.read(path, columns) if use_parquet and path.name not in sizes else None
            parsed[name], wrong = copy or tables.read(
                path, columns, optional=newer[name], size_bytes=sizes.get(path.name)
            )
            found.extend(wrong)
    return dataset, parsed, found


def version_of(folder: Path) -> int:
    """The schema version of a manifest that can be read."""
    dataset, found = _read_dataset(folder / DATASET_FILE)
    if found:
        raise ManifestError(str(found[0]))
    return int(dataset["schema_version"])


def _newer_columns(version: int) -> dict[str, set[str]]:
    """By table, the columns that came after a version.

    Its tables may have them nevertheless: a manifest is brought up to date in place, table by
    table (see Manifest.rewrite).
    """
    newer = [tables for since, tables in ADDED_COLUMNS.items() if since > version]
    return {name: {c for added in newer for c in added.get(name, ())} for name in SCHEMA}


def _read_dataset(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    def wrong(message: str) -> tuple[dict[str, Any], list[Problem]]:
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
    known = range(min(ADDED_COLUMNS) - 1, SCHEMA_VERSION + 1)
    if version not in known:
        return wrong(
            f"its schema_version is {version!r} and this crossview reads {known[0]} to "
            f"{known[-1]}. Import the dataset again, or use the crossview that wrote it."
        )
    if set(content) != set(DATASET_KEYS) or not all(isinstance(v, str) for v in content.values()):
        return wrong(f"expected the texts {', '.join(DATASET_KEYS)}, got {', '.join(content)}.")
    return {**content, "schema_version": version}, []


def checked(given: Mapping[str, Any]) -> tuple[dict[str, pd.DataFrame], list[Problem]]:
    """Typed tables out of tables or rows, and everything that breaks the schema."""
    parsed, found = {}, []
    for name, columns in SCHEMA.items():
        parsed[name], wrong = tables.parse(f"{name}.csv", given[name], columns)
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
    for i, row in enumerate(tables.rows(parsed["cameras"]), tables.FIRST_ROW):
        found += [Problem("cameras.csv", i, *wrong) for wrong in _camera_problems(row)]
    models = dict(zip(parsed["cameras"]["camera_id"], parsed["cameras"]["model"], strict=True))
    views = _Columns(parsed["views"])
    rules = [*_view_rules(views, models), *_station_rules(views)]
    wrong = [
        Problem("views.csv", int(i) + tables.FIRST_ROW, column, message(i))
        for is_broken, column, message in rules
        for i in np.flatnonzero(is_broken).tolist()
    ]
    return found + sorted(wrong, key=lambda problem: problem.row or 0)


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


class _Columns:
    """Columns of a table as arrays."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table

    def __getitem__(self, name: str) -> np.ndarray:
        return self._table[name].to_numpy()


_Rule = tuple[np.ndarray, str, Callable[[int], str]]
"""Which rows (rows,) break it, the column to blame, and what to say of a row."""


def _view_rules(views: _Columns, models: Mapping[str, str]) -> Iterator[_Rule]:
    is_half = np.isnan(views["lat_deg"]) != np.isnan(views["lon_deg"])
    yield is_half, "lon_deg", lambda _: "a position has lat_deg and lon_deg, or neither."
    kind, camera = views["kind"], views["camera_id"]
    lacks_camera = (kind == _PHOTO) & (camera == "")
    yield lacks_camera, "camera_id", lambda _: "empty, and a photo needs a camera."
    for name, model in ((_PHOTO, "pinhole"), (_PANORAMA, "equirectangular")):
        others = [camera_id for camera_id, other in models.items() if other != model]
        message = f"a {name} needs a camera of model {model}."
        yield (kind == name) & _is_in(camera, others), "camera_id", _saying(message)


def _station_rules(views: _Columns) -> Iterator[_Rule]:
    """What keeps views of one station from forming a rig."""
    import pandas as pd

    station_id, view_id, region = views["station_id"], views["view_id"], views["region"]
    is_alone = station_id == ""
    is_alone[is_alone] = _is_in(view_id[is_alone], station_id)
    yield (
        is_alone,
        "station_id",
        lambda i: (
            f"empty, so view {view_id[i]!r} is a station of that name, which view "
            f"{view_id[np.flatnonzero(station_id == view_id[i])[0]]!r} has as its station_id. Give "
            "it a station_id: the same if they were taken together, else another."
        ),
    )
    place = np.flatnonzero(station_id != "")
    codes = pd.factorize(station_id[place])[0]
    first = place[np.unique(codes, return_index=True)[1]]
    num_views = np.bincount(codes)
    has_place = ~np.isnan(views["lat_deg"])

    def everywhere(is_broken: np.ndarray) -> np.ndarray:
        whole = np.zeros(len(station_id), dtype=bool)
        whole[place] = is_broken
        return whole

    yield (
        everywhere(region[place] != region[first[codes]]),
        "region",
        lambda i: (
            f"station {station_id[i]!r} is in region "
            f"{region[np.flatnonzero(station_id == station_id[i])[0]]!r} already."
        ),
    )
    yield (
        everywhere((num_views[codes] > 1) & np.isnan(views["heading_deg"][place])),
        "heading_deg",
        lambda i: (
            f"empty, and each of the {np.sum(station_id == station_id[i])} views of station "
            f"{station_id[i]!r} needs one to be mounted in a rig."
        ),
    )
    num_placed = np.bincount(codes, weights=has_place[place])
    yield (
        everywhere(~has_place[place] & (num_placed[codes] > 0)),
        "lat_deg",
        lambda i: (
            f"empty, and other views of station {station_id[i]!r} have a position: all or none of "
            "them need one."
        ),
    )


def _saying(message: str) -> Callable[[int], str]:
    return lambda _: message


def _is_in(values: np.ndarray, others: Any) -> np.ndarray:
    import pandas as pd

    return pd.Series(values, dtype=object, copy=False).isin(others).to_numpy()


def _place_problems(parsed: Mapping[str, pd.DataFrame]) -> list[Problem]:
    """Rows that lie too far from their region."""
    frames = {
        row["name"]: LocalFrame(row["lat_deg"], row["lon_deg"])
        for row in tables.records(parsed["regions"])
    }
    found: list[Problem] = []
    for name in ("views", "tiles"):
        places = parsed[name][["region", "lat_deg", "lon_deg"]].dropna()
        for region, rows in places.groupby("region"):
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
