"""What an image file says of itself: position, compass, focal length (EXIF), panorama (XMP GPano).

Tag names and meanings: CIPA DC-008 (Exif 2.32); Google, "Photo Sphere XMP Metadata" (GPano).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from crossview import angles
from crossview.errors import PhotoError
from crossview.frames import Fix

if TYPE_CHECKING:
    from PIL import Image

FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
"""Diagonal of the 35 mm film frame, 43.27 mm."""

MAX_XMP_BYTES = 1 << 20
"""An XMP packet in a JPEG segment has at most 64 kB; one in a PNG may be larger."""

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_ORIENTATION, _TAKEN, _TAKEN_OFFSET, _TAKEN_FRACTION = 0x0112, 0x9003, 0x9011, 0x9291
_FOCAL_LENGTH, _FOCAL_LENGTH_35MM, _DIGITAL_ZOOM = 0x920A, 0xA405, 0xA404
_FOCAL_PLANE_X_RESOLUTION, _FOCAL_PLANE_UNIT, _PIXEL_X_DIMENSION = 0xA20E, 0xA210, 0xA002
_LAT_REF, _LAT, _LON_REF, _LON = 1, 2, 3, 4
_STATUS, _DIRECTION_REF, _DIRECTION, _POSITIONING_ERROR = 9, 16, 17, 31


class _Axis(NamedTuple):
    """The two tags of a latitude or a longitude."""

    name: str
    tag: int
    ref_tag: int
    positive: str
    negative: str
    limit_deg: float


_LAT_AXIS = _Axis("GPSLatitude", _LAT, _LAT_REF, "N", "S", 90.0)
_LON_AXIS = _Axis("GPSLongitude", _LON, _LON_REF, "E", "W", 180.0)
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_GPANO = "{http://ns.google.com/photos/1.0/panorama/}"

_log = logging.getLogger(__name__)


def fix_of(exif: Image.Exif, name: str) -> Fix | None:
    """The GPS position and compass of a photo; None where it has no position.

    GPSHPositioningError becomes accuracy_m as it is: the standard does not say which share of
    fixes it holds, and phones write a radius of about 68 %, so it is on the careful side of a
    standard deviation per axis. GPSImgDirection becomes heading_deg; where its reference is
    missing it counts as magnetic, the weaker of the two claims. Either is None where its tag holds
    no number, such as the standard's 0/0 for "unknown".

    Args:
        exif: The tags.
        name: What to call the photo in an error.

    Raises:
        PhotoError: A tag holds what no place on Earth has; the message names it.
    """
    gps = exif.get_ifd(_GPS_IFD)
    if not {_LAT, _LON} & set(gps):
        return None
    if _text(gps.get(_STATUS)) == "V":
        _log.warning(
            "%s: GPSStatus is V, a receiver without a fix; its position is not used.", name
        )
        return None
    lat_deg = _angle_deg(gps, _LAT_AXIS, name)
    lon_deg = _angle_deg(gps, _LON_AXIS, name)
    if lat_deg == 0 and lon_deg == 0:
        raise _impossible(
            name,
            "GPSLatitude, GPSLongitude",
            "0, 0",
            "a place (receivers without a fix write zeros)",
        )
    accuracy_m, heading_deg = _accuracy_m(gps, name), _heading_deg(gps, name)
    if heading_deg is None:
        return Fix(lat_deg, lon_deg, accuracy_m)
    return Fix(lat_deg, lon_deg, accuracy_m, heading_deg, _heading_reference(gps, name))


def focal_px_of(exif: Image.Exif, *, width_px: int, height_px: int, name: str) -> float | None:
    """Focal length in pixels of the image as stored in the file; None where it does not say.

    FocalLengthIn35mmFilm first: the angle of view is compared along the *diagonal*, as cameras
    are specified (CIPA DCG-001): focal_px = f35 * diagonal_px / 43.27 mm. On 3:2 images this is
    f35 * width / 36, which other programs use for all; on a phone's 4:3 that is 4 % too short:
    a 4.25 mm lens on a sensor of 5.64 mm x 4.23 mm is sold as "26 mm", 26.1 by the diagonal and
    27.1 by the width. It holds the digital zoom already.
    Else FocalLength times FocalPlaneXResolution (pixels of PixelXDimension), times the digital
    zoom.

    Args:
        exif: The tags.
        width_px: Columns of the image in the file, before any EXIF orientation.
        height_px: Rows.
        name: What to call the photo in the log.
    """
    tags = exif.get_ifd(_EXIF_IFD)
    zoom = _positive(tags.get(_DIGITAL_ZOOM)) or 1.0
    if zoom > 1:
        _log.info("%s was taken with a digital zoom of %g.", name, zoom)
    film_mm = _positive(tags.get(_FOCAL_LENGTH_35MM))
    if film_mm is not None:
        return film_mm * math.hypot(width_px, height_px) / FILM_DIAGONAL_MM
    focal_mm = _positive(tags.get(_FOCAL_LENGTH))
    resolution = _positive(tags.get(_FOCAL_PLANE_X_RESOLUTION))
    unit_mm = _UNIT_MM.get(tags.get(_FOCAL_PLANE_UNIT, 2))
    if focal_mm is None or resolution is None or unit_mm is None:
        return None
    resized = width_px / (_positive(tags.get(_PIXEL_X_DIMENSION)) or width_px)
    return focal_mm * resolution / unit_mm * resized * max(zoom, 1.0)


def taken_at(exif: Image.Exif, name: str) -> datetime | None:
    """When a photo was taken; without a time zone where its file does not say which.

    DateTimeOriginal with SubSecTimeOriginal and OffsetTimeOriginal. None where there is none, and
    for the standard's blanks and a camera whose clock was never set.
    """
    tags = exif.get_ifd(_EXIF_IFD)
    text = _text(tags.get(_TAKEN))
    if not text.strip(" :0"):
        return None
    try:
        moment = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
        fraction = _text(tags.get(_TAKEN_FRACTION))
        if fraction.isdigit():
            moment += timedelta(seconds=float(f"0.{fraction}"))
        offset = _text(tags.get(_TAKEN_OFFSET)).strip(" :")
        return moment.replace(tzinfo=datetime.fromisoformat(f"2000-01-01T00:00{offset}").tzinfo)
    except ValueError:
        _log.warning("%s: EXIF DateTimeOriginal is %r; it is taken as unknown.", name, text)
        return None


def orientation_of(exif: Image.Exif) -> int:
    """How the stored image must be turned to be upright, 1 to 8 as EXIF counts; 1 is not at all."""
    value = exif.get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


@dataclass(frozen=True)
class PanoramaTags:
    """GPano: how an equirectangular image lies in its sphere.

    Args:
        heading_deg: Azimuth at the centre of the sphere's columns, or None.
        pitch_deg: How far the centre is above the horizon.
        roll_deg: As ours: growing, the horizon turns counter-clockwise in the image.
        full_width_px: Columns of the whole sphere, in the pixels of the tags.
        full_height_px: Rows of the whole sphere.
        left_px: Columns of the sphere left of the image.
        top_px: Rows of the sphere above the image.
        cropped_width_px: Columns of the image when the tags were written.
        cropped_height_px: Rows of the image.
    """

    heading_deg: float | None = None
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    full_width_px: float | None = None
    full_height_px: float | None = None
    left_px: float = 0.0
    top_px: float = 0.0
    cropped_width_px: float | None = None
    cropped_height_px: float | None = None


def panorama_tags_of(xmp: bytes | str, name: str) -> PanoramaTags:
    """The GPano part of a raw XMP packet; all defaults where there is none.

    Raises:
        PhotoError: The packet is too large, is not XML, declares entities, or a tag is impossible.
    """
    values = _gpano_values(xmp, name)
    projection = values.get("ProjectionType", "equirectangular")
    if projection != "equirectangular":
        raise PhotoError(
            f"{name}: GPano:ProjectionType is {projection!r}; only 'equirectangular' panoramas "
            "can be read. Convert it first."
        )

    def number(tag: str, low: float, high: float) -> float | None:
        return _xmp_number(values, tag, low, high, name)

    heading_deg = number("PoseHeadingDegrees", 0.0, 360.0)
    size_limit = 1e6
    return PanoramaTags(
        heading_deg=None if heading_deg is None else float(angles.normalize_deg(heading_deg)),
        pitch_deg=number("PosePitchDegrees", -90.0, 90.0) or 0.0,
        roll_deg=number("PoseRollDegrees", -180.0, 180.0) or 0.0,
        full_width_px=number("FullPanoWidthPixels", 1, size_limit),
        full_height_px=number("FullPanoHeightPixels", 1, size_limit),
        left_px=number("CroppedAreaLeftPixels", 0, size_limit) or 0.0,
        top_px=number("CroppedAreaTopPixels", 0, size_limit) or 0.0,
        cropped_width_px=number("CroppedAreaImageWidthPixels", 1, size_limit),
        cropped_height_px=number("CroppedAreaImageHeightPixels", 1, size_limit),
    )


def _angle_deg(gps: Mapping[int, Any], axis: _Axis, name: str) -> float:
    """Degrees, minutes and seconds with their hemisphere, as signed degrees."""
    value, ref = gps.get(axis.tag), _text(gps.get(axis.ref_tag)).upper()[:1]
    if ref not in (axis.positive, axis.negative):
        raise _impossible(name, f"{axis.name}Ref", repr(ref), f"{axis.positive} or {axis.negative}")
    parts = [_number(part) for part in (value if isinstance(value, tuple | list) else (value,))]
    degrees = sum(part / 60**i for i, part in enumerate(parts))
    possible = (
        1 <= len(parts) <= 3
        and parts[0] >= 0
        and all(0 <= part <= 60 for part in parts[1:])
        and degrees <= axis.limit_deg
    )
    if not possible:
        expected = f"degrees, minutes and seconds up to {axis.limit_deg:g} degrees"
        raise _impossible(name, axis.name, str(value), expected)
    return -degrees if ref == axis.negative else degrees


def _accuracy_m(gps: Mapping[int, Any], name: str) -> float | None:
    accuracy_m = _number_if_known(gps, _POSITIONING_ERROR, "GPSHPositioningError", name)
    if accuracy_m is None:
        return None
    if not 0 <= accuracy_m < math.inf:
        raise _impossible(
            name, "GPSHPositioningError", repr(gps[_POSITIONING_ERROR]), "metres, 0 or more"
        )
    return accuracy_m or None


def _heading_deg(gps: Mapping[int, Any], name: str) -> float | None:
    heading_deg = _number_if_known(gps, _DIRECTION, "GPSImgDirection", name)
    if heading_deg is None:
        return None
    if not 0 <= heading_deg <= 360:
        raise _impossible(name, "GPSImgDirection", repr(gps[_DIRECTION]), "0 to 359.99 degrees")
    return heading_deg


def _number_if_known(gps: Mapping[int, Any], tag: int, tag_name: str, name: str) -> float | None:
    """A tag's value; None where it is absent or no number, as the standard's 0/0 for unknown."""
    if tag not in gps:
        return None
    number = _number(gps[tag])
    if math.isnan(number):
        _log.warning("%s: EXIF %s is %r; it is taken as unknown.", name, tag_name, gps[tag])
        return None
    return number


def _heading_reference(gps: Mapping[int, Any], name: str) -> Literal["true", "magnetic"]:
    ref = _text(gps.get(_DIRECTION_REF)).upper()[:1]
    if ref not in ("", "T", "M"):
        raise _impossible(name, "GPSImgDirectionRef", repr(gps[_DIRECTION_REF]), "T or M")
    return "true" if ref == "T" else "magnetic"


def _impossible(name: str, tag: str, came: str, expected: str) -> PhotoError:
    return PhotoError(
        f"{name}: EXIF {tag} is {came}; expected {expected}. Correct the tag, or read the photo "
        "without its position (ignore_gps=True, or --ignore-gps) and say where it was taken."
    )


def _number(value: Any) -> float:
    """A tag's value as a float, NaN for anything that is not a number (1/0 too).

    Some programs re-write rationals as text: iPhone photos with GPSHPositioningError "35/1" exist.
    """
    try:
        return float(Fraction(_text(value)) if isinstance(value, str | bytes) else value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if 0 < number < math.inf else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    return value.strip("\0 ") if isinstance(value, str) else ""


def _gpano_values(xmp: bytes | str, name: str) -> dict[str, str]:
    """GPano properties of a packet, whether written as attributes or as elements."""
    from xml.etree import ElementTree

    if len(xmp) > MAX_XMP_BYTES:
        raise PhotoError(
            f"{name}: its XMP packet has {len(xmp)} bytes; at most {MAX_XMP_BYTES} are read."
        )
    try:
        text = xmp.decode("utf-8-sig") if isinstance(xmp, bytes) else xmp
    except UnicodeDecodeError as error:
        raise PhotoError(f"{name}: its XMP packet is not UTF-8 ({error}).") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise PhotoError(f"{name}: its XMP packet declares entities, which XMP never does.")
    try:
        # decoded, size-limited and without a DTD: nothing is left that could expand
        root = ElementTree.fromstring(text.strip("\0 \r\n\t"))  # noqa: S314
    except ElementTree.ParseError as error:
        raise PhotoError(f"{name}: its XMP packet is not XML ({error}).") from error
    values = {}
    for element in root.iter():
        pairs = [*element.attrib.items(), (element.tag, element.text or "")]
        values.update({k.removeprefix(_GPANO): v.strip() for k, v in pairs if k.startswith(_GPANO)})
    return values


def _xmp_number(
    values: Mapping[str, str], tag: str, low: float, high: float, name: str
) -> float | None:
    if not values.get(tag):
        return None
    number = _number(values[tag])
    if not low <= number <= high:
        raise PhotoError(
            f"{name}: GPano:{tag} is {values[tag]!r}; expected a number from {low:g} to {high:g}."
        )
    return number
