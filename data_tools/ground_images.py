"""Street-level images and what is known of each: from folders (EXIF, XMP), CSV files, GPX tracks.

Every source makes the same records; panoramas.py makes a manifest of them. A heading counts from
true north only where the source says so. A compass counts from magnetic north: its heading is kept
beside, and becomes a heading only with a declination that somebody gives.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crossview import angles, manifest_schema, photos
from crossview.cameras import Pinhole
from crossview.errors import DatasetError, PhotoError
from data_tools.points import require_places

if TYPE_CHECKING:
    from data_tools.gpx_tracks import Track

Kind = Literal["photo", "panorama"]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class GroundImage:
    """One image from the street.

    Args:
        image_id: Its name, unique in the dataset; may hold slashes, as below a folder.
        kind: photo or panorama.
        path: The file; None where it is still to be fetched.
        url: Where it is fetched from, which expires and is never kept.
        lat_deg: None where it is not known, like all numbers below.
        lon_deg: With lat_deg.
        accuracy_m: Standard deviation of the position per axis.
        heading_deg: From true north.
        magnetic_heading_deg: What a compass said.
        pitch_deg: Looking up.
        roll_deg: Right side down, of the stored image.
        height_m: Above the street.
        camera: Of the stored pixels of a photo; a panorama has none.
        taken: When; without a time zone where that is not known.
        sequence_id: The drive or walk, or "".
        order: Place in it.
        licence: Of this image, or "".
        attribution: Who must be named, or "".
        source: Where it came from, such as mapillary:ID.
        is_assumed_sphere: Whether nothing but its shape says that it is a panorama.
    """

    image_id: str
    kind: Kind = "photo"
    path: Path | None = None
    url: str = ""
    lat_deg: float | None = None
    lon_deg: float | None = None
    accuracy_m: float | None = None
    heading_deg: float | None = None
    magnetic_heading_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    height_m: float | None = None
    camera: Pinhole | None = None
    taken: datetime | None = None
    sequence_id: str = ""
    order: int = 0
    licence: str = ""
    attribution: str = ""
    source: str = ""
    is_assumed_sphere: bool = False

    def __post_init__(self) -> None:
        if (self.lat_deg is None) != (self.lon_deg is None):
            raise ValueError(f"{self.image_id}: a position has a latitude and a longitude.")
        for name in ("heading_deg", "magnetic_heading_deg"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, float(angles.normalize_deg(value)))


@dataclass(frozen=True)
class Skipped:
    """An image that could not be used.

    Args:
        image_id: Its name.
        reason: Why.
    """

    image_id: str
    reason: str


def images_in_folder(
    folder: str | Path,
    *,
    focal_px: float | None = None,
    ignore_gps: bool = False,
    kind: Kind | None = None,
) -> tuple[list[GroundImage], list[Skipped]]:
    """The JPEG and PNG files below a folder, by name, with what they say of themselves.

    A file is a panorama where GPano tags say so, or where it is twice as wide as high and has no
    focal length, which is an assumption (GroundImage.is_assumed_sphere). EXIF orientation becomes
    roll, as pixels are taken as they are stored. Symbolic links out of the folder are skipped: a
    manifest's paths do not leave its root.

    Args:
        folder: The folder.
        focal_px: Focal length in pixels of photos that do not say theirs.
        ignore_gps: Leave out the positions and compasses of the files.
        kind: What all of them are, whatever they say.

    Raises:
        DatasetError: There is no image.
        ValueError: focal_px is not positive.
    """
    _require_focal(focal_px)
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise DatasetError(f"There are no JPEG or PNG files below {folder}.")
    found, skipped = [], []
    for i, path in enumerate(paths):
        name = path.relative_to(folder).as_posix()
        try:
            require_below(path, folder)
            image = image_from_file(path, name, focal_px=focal_px, ignore_gps=ignore_gps, kind=kind)
            found.append(replace(image, order=i))
        except (PhotoError, ValueError) as error:
            skipped.append(Skipped(name, str(error)))
    return found, skipped


def _require_focal(focal_px: float | None) -> None:
    if focal_px is not None and not 0 < focal_px < math.inf:
        raise ValueError(f"A focal length is a positive number of pixels, got {focal_px}.")


def require_below(path: Path, folder: Path) -> None:
    """Refuse a file that is not below a folder, by a symbolic link that leads out of it.

    Raises:
        PhotoError: It does.
    """
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise PhotoError(f"{path.name} is a symbolic link that leads nowhere ({error}).") from error
    if not target.is_relative_to(folder.resolve()):
        raise PhotoError(
            f"{path.name} leads out of {folder}, to {target}. Copy the file, or name a folder that "
            "holds both."
        )


def image_from_file(
    path: Path,
    image_id: str,
    *,
    focal_px: float | None = None,
    ignore_gps: bool = False,
    kind: Kind | None = None,
) -> GroundImage:
    """One image file with what it says of itself (see images_in_folder).

    Raises:
        PhotoError: It cannot be read, is stored as a mirror image, or is a photo whose focal
            length nobody says.
    """
    tags = photos.read_tags(path, ignore_gps=ignore_gps)
    fix = tags.fix
    is_magnetic = fix is not None and fix.heading_reference == "magnetic"
    image = GroundImage(
        image_id,
        path=path,
        lat_deg=None if fix is None else fix.lat_deg,
        lon_deg=None if fix is None else fix.lon_deg,
        accuracy_m=None if fix is None else fix.accuracy_m,
        heading_deg=None if fix is None or is_magnetic else fix.heading_deg,
        magnetic_heading_deg=fix.heading_deg if fix is not None and is_magnetic else None,
        taken=tags.taken,
    )
    known_px = tags.focal_px if tags.focal_px is not None else focal_px
    is_assumed = (
        kind is None
        and tags.panorama is None
        and tags.width_px == 2 * tags.height_px
        and tags.focal_px is None
    )
    if kind is None:
        kind = "panorama" if is_assumed or tags.panorama is not None else "photo"
    if kind == "panorama":
        heading_deg = tags.panorama.heading_deg if tags.panorama is not None else None
        if heading_deg is not None:
            image = replace(image, heading_deg=heading_deg, magnetic_heading_deg=None)
        return replace(image, kind=kind, is_assumed_sphere=is_assumed)
    if tags.orientation not in _ROLL_DEG:
        raise PhotoError(f"{image_id} is stored as a mirror image (EXIF orientation).")
    if known_px is None:
        raise PhotoError(
            f"{image_id} does not say its focal length. Give it in pixels of the full-size image: "
            "focal_px=, or --focal-px on the command line. Half the width is a 90 degree field of "
            "view."
        )
    camera = Pinhole.from_focal(tags.width_px, tags.height_px, known_px)
    roll_deg = _ROLL_DEG[tags.orientation]
    return replace(image, camera=camera, roll_deg=roll_deg or None)


_ROLL_DEG = {1: 0.0, 3: 180.0, 6: 90.0, 8: 270.0}
"""Roll of a camera whose image must be turned so; the others are mirror images."""

_CSV_ALIASES = {"lat": "lat_deg", "latitude": "lat_deg", "lon": "lon_deg", "lng": "lon_deg",
                "longitude": "lon_deg", "file": "image", "filename": "image", "time": "time_utc",
                "license": "licence"}  # fmt: skip
_CSV_NUMBERS = (
    "lat_deg", "lon_deg", "accuracy_m", "heading_deg", "magnetic_heading_deg", "pitch_deg",
    "roll_deg", "height_m",
)  # fmt: skip
_CSV_TEXTS = ("sequence_id", "licence", "attribution", "source")
CSV_COLUMNS = ("image", "kind", "time_utc", "order", "focal_px", *_CSV_NUMBERS, *_CSV_TEXTS)
_CSV_CHECKED = {
    column.name: column
    for column in manifest_schema.SCHEMA["views"]
    if column.name in ("kind", "accuracy_m", "pitch_deg", "roll_deg", "height_m")
}
"""Columns that the manifest would refuse later, by a row that nobody wrote."""


def images_in_csv(
    path: str | Path,
    folder: str | Path | None = None,
    *,
    focal_px: float | None = None,
    kind: Kind | None = None,
) -> tuple[list[GroundImage], list[Skipped]]:
    """The images of a CSV file with one row each.

    What the table says wins over what the files say; an empty cell leaves it to the file. An image
    with a cell focal_px is no panorama by its shape alone.

    Args:
        path: The table: a column `image` and any of CSV_COLUMNS (headings clockwise from true
            north, times ISO 8601 with an offset); lat and lon are taken for lat_deg and lon_deg.
        folder: Where image paths begin; by default where the table lies.
        focal_px: As in images_in_folder.
        kind: As in images_in_folder, of rows whose cell is empty.

    Raises:
        DatasetError: The table cannot be read, or names an image twice; the message names row and
            column.
        ValueError: focal_px is not positive.
    """
    _require_focal(focal_px)
    path = Path(path)
    folder = path.parent if folder is None else Path(folder)
    found, skipped = [], []
    row_of: dict[str, int] = {}
    for i, (row, cells) in enumerate(_csv_rows(path)):
        place = f"{path.name} row {row}"
        values = _csv_values(place, cells)
        name, focal = values.pop("image"), values.pop("focal_px", None)
        normal = os.path.normpath(name)
        if Path(normal).is_absolute() or os.pardir in Path(normal).parts:
            raise DatasetError(f"{place}: {name!r} leads out of {folder}.")
        first = row_of.setdefault(normal, row)
        if first != row:
            raise DatasetError(f"{place}, column image: {name!r} is in row {first} already.")
        try:
            require_below(folder / name, folder)
            image = image_from_file(
                folder / name, name, focal_px=focal or focal_px, kind=values.pop("kind", kind)
            )
            if image.is_assumed_sphere and focal is not None:
                image = image_from_file(folder / name, name, focal_px=focal, kind="photo")
            found.append(replace(image, **{"order": i, **values}))
        except (PhotoError, ValueError) as error:
            skipped.append(Skipped(name, str(error)))
    return found, skipped


def placed_on_track(
    images: Sequence[GroundImage],
    track: Track,
    *,
    clock_ahead_s: float | None = None,
    max_gap_s: float = 10.0,
) -> tuple[list[GroundImage], list[Skipped]]:
    """Images with the position that a GPX track has at their time; what they had before is gone.

    Args:
        images: With a time each.
        track: Of the same walk or drive.
        clock_ahead_s: How far the camera's clock is ahead of UTC, its time zone included: 7200
            for one that is right in Paris in summer. None trusts the time zones in the files.
        max_gap_s: Longest time between the two points of the track around an image; in a longer
            gap nobody knows the way that was taken.

    Returns:
        placed: With new positions.
        skipped: Images without a time, outside of the track, or in a gap.

    Raises:
        DatasetError: No image could be placed; the message says how far the times are apart.
    """
    placed, skipped = [], []
    for image in images:
        try:
            moment = _utc(image, clock_ahead_s)
            lat_deg, lon_deg = track.at(moment, max_gap_s=max_gap_s)
            placed.append(
                replace(image, lat_deg=lat_deg, lon_deg=lon_deg, accuracy_m=None, taken=moment)
            )
        except DatasetError as error:
            skipped.append(Skipped(image.image_id, str(error)))
    if not placed:
        times = [
            _utc(i, clock_ahead_s)
            for i in images
            if i.taken is not None and (clock_ahead_s is not None or i.taken.tzinfo is not None)
        ]
        between = "none"
        if times:
            between = f"{min(times):%Y-%m-%d %H:%M:%S} to {max(times):%Y-%m-%d %H:%M:%S} UTC"
        raise DatasetError(
            f"No image is on the track. Its times: {track.first:%Y-%m-%d %H:%M:%S} to "
            f"{track.last:%Y-%m-%d %H:%M:%S} UTC; those of the images: {between}. If the camera's "
            f"clock is off, say how far it is ahead of UTC: --clock-ahead-s. First reason: "
            f"{skipped[0].reason if skipped else 'there are no images'}"
        )
    return placed, skipped


def with_declination(images: Iterable[GroundImage], declination_deg: float) -> list[GroundImage]:
    """Images whose magnetic headings became headings from true north.

    Args:
        images: Those without a heading from true north get one; magnetic_heading_deg stays.
        declination_deg: How far magnetic north is east of true north there and then.
    """
    if not -180 <= declination_deg <= 180:
        raise ValueError(f"declination_deg is within -180..180 degrees, got {declination_deg}.")
    return [
        replace(image, heading_deg=image.magnetic_heading_deg + declination_deg)
        if image.heading_deg is None and image.magnetic_heading_deg is not None
        else image
        for image in images
    ]


def _utc(image: GroundImage, clock_ahead_s: float | None) -> datetime:
    if image.taken is None:
        raise DatasetError(f"{image.image_id} does not say when it was taken.")
    if clock_ahead_s is not None:
        # what the clock showed, whatever zone the file names
        shown = image.taken.replace(tzinfo=UTC)
        return shown - timedelta(seconds=clock_ahead_s)
    if image.taken.tzinfo is None:
        raise DatasetError(
            f"{image.image_id} was taken at {image.taken} by a clock of unknown time zone. Say how "
            "far it is ahead of UTC: clock_ahead_s=, or --clock-ahead-s."
        )
    return image.taken.astimezone(UTC)


def _csv_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their number, by our column names; empty cells left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = csv.reader(file, strict=True)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DatasetError(f"{path} is not a CSV file in UTF-8 with a header ({error}).") from error
    names = [_CSV_ALIASES.get(name.strip().lower(), name.strip().lower()) for name in header]
    unknown = sorted(set(names) - set(CSV_COLUMNS))
    if unknown or "image" not in names or len(set(names)) < len(names):
        what = f"unknown {unknown[0]!r}" if unknown else "it needs `image`, and each column once"
        raise DatasetError(f"{path.name}: {what}. Possible columns: {', '.join(CSV_COLUMNS)}.")
    rows = []
    for row, cells in enumerate(lines, 2):
        if len(cells) != len(names):
            raise DatasetError(
                f"{path.name} row {row}: {len(cells)} cells, and the header has {len(names)}."
            )
        rows.append((row, {name: cell for name, cell in zip(names, cells, strict=True) if cell}))
    return rows


def _csv_values(place: str, cells: Mapping[str, str]) -> dict[str, Any]:
    """Values of a row as GroundImage has them, with `image` and `focal_px`."""
    if "image" not in cells:
        raise DatasetError(f"{place}, column image: empty.")
    values: dict[str, Any] = {"image": cells["image"]}
    for name, cell in cells.items():
        try:
            if name in (*_CSV_NUMBERS, "focal_px"):
                values[name] = _finite(cell)
            elif name == "order":
                values[name] = int(cell)
            elif name == "time_utc":
                values["taken"] = datetime.fromisoformat(cell)
            elif name in (*_CSV_TEXTS, "kind"):
                values[name] = cell
        except ValueError as error:
            raise DatasetError(f"{place}, column {name}: {cell!r} is not possible.") from error
        checked = _CSV_CHECKED.get(name)
        if checked is not None and not checked.valid(values[name]):
            raise DatasetError(
                f"{place}, column {name}: {cell!r} is not possible; expected {checked.expected}."
            )
    _require_position(f"{place} ({cells['image']})", values)
    return values


def _require_position(place: str, values: Mapping[str, Any]) -> None:
    """Refuse half a position, one that is none, and a focal length that is none."""
    if ("lat_deg" in values) != ("lon_deg" in values):
        raise DatasetError(f"{place}: a position has a latitude and a longitude, or neither.")
    try:
        _require_focal(values.get("focal_px"))
        if "lat_deg" in values:
            require_places(np.array([values["lat_deg"]]), np.array([values["lon_deg"]]))
    except ValueError as error:
        raise DatasetError(f"{place}: {error}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
