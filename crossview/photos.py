"""Photos, panoramas and rigs: what a camera saw, and reading it from JPEG and PNG files."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossview import angles, exif, rectify
from crossview.cameras import Equirectangular, Pinhole
from crossview.errors import (
    MissingFocalLengthError,
    MissingLocationError,
    PhotoError,
    PhotoTooLargeError,
)
from crossview.frames import Fix

if TYPE_CHECKING:
    from PIL import Image, ImageFile

DEFAULT_HEIGHT_M = 1.6
"""A phone in front of the eyes."""

MAX_PIXELS = 200_000_000
"""Largest image read unless asked: 600 MB as RGB. The largest phone sensors have 200 million."""

MASK_THRESHOLD = 128
"""A mask's pixel this bright or brighter is not the world."""

_JPEG_START, _PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif"}
_GPANO = b"photos/1.0/panorama"
"""In the name of its XML namespace."""

_FULL_SPHERE_RATIO, _RATIO_TOLERANCE = 2.0, 0.01

# what Pillow raises on damaged files, depending on where the damage is
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
)

_log = logging.getLogger(__name__)
_FILTERS = threading.RLock()


@dataclass(frozen=True, eq=False)
class Photo:
    """A perspective photo, as stored: a picture on its side has a roll near 90 or 270 degrees.

    Args:
        image: (rows, cols, 3) uint8 RGB, read-only.
        camera: The camera of these pixels.
        roll_deg: How far the camera's right side is down; near 180 where the image is stored
            upside down.
        pitch_deg: How far the camera looks up.
        height_m: Of the camera above the street.
        fix: What the device said of its place, if it did.
        mask: (rows, cols) bool, True where a pixel shows the world and False where it shows the
            vehicle itself; None where all do.
    """

    image: np.ndarray
    camera: Pinhole
    roll_deg: float = 0.0
    pitch_deg: float = 0.0
    height_m: float = DEFAULT_HEIGHT_M
    fix: Fix | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_image(self.image)
        if self.image.shape[:2] != (self.camera.height_px, self.camera.width_px):
            raise ValueError(
                f"The image has {self.image.shape[1]} x {self.image.shape[0]} pixels (columns x "
                f"rows) and its camera {self.camera.width_px} x {self.camera.height_px}. Scale the "
                "camera with the image: camera.scaled(factor)."
            )
        if not (math.isfinite(self.roll_deg) and -90 <= self.pitch_deg <= 90):
            raise ValueError(
                f"roll_deg must be finite and pitch_deg within -90..90, got {self.roll_deg} and "
                f"{self.pitch_deg}."
            )
        _check_height(self.height_m)
        _freeze_arrays(self)

    def upright(self) -> Photo:
        """The same photo turned by whole quarters until its roll is within 45 degrees of level.

        No pixel changes its value; camera, mask and roll turn along. For whatever knows only
        upright pictures, such as a segmenter.
        """
        num_quarters = rectify.quarter_turns(self.roll_deg)
        return Photo(
            image=rectify.turned_image(self.image, num_quarters),
            camera=rectify.turned_camera(self.camera, num_quarters),
            roll_deg=float(angles.difference_deg(self.roll_deg, 90.0 * num_quarters)),
            pitch_deg=self.pitch_deg,
            height_m=self.height_m,
            fix=self.fix,
            mask=None if self.mask is None else rectify.turned_image(self.mask, num_quarters),
        )

    def levelled(self, camera: Pinhole | None = None) -> Photo:
        """The same view without roll, pitch and lens distortion (see rectify.levelled).

        The mask is False too where the photo saw nothing.
        """
        if camera is None:
            num_quarters = rectify.quarter_turns(self.roll_deg)
            camera = rectify.turned_camera(self.camera, num_quarters).undistorted()
        level = functools.partial(
            rectify.levelled,
            camera=self.camera,
            pitch_deg=self.pitch_deg,
            roll_deg=self.roll_deg,
            target_camera=camera,
        )
        image, seen = level(self.image)
        if self.mask is not None:
            seen &= level(self.mask)[0]
        return Photo(image, camera, height_m=self.height_m, fix=self.fix, mask=seen)


@dataclass(frozen=True, eq=False)
class Panorama:
    """A level full sphere, equirectangular: azimuth grows to the right.

    Args:
        image: (rows, cols, 3) uint8 RGB, read-only, twice as wide as high.
        heading_deg: Azimuth at the column position width / 2, from true north; None where it is
            not known.
        height_m: Of the camera above the street.
        fix: What the device said of its place, if it did.
        mask: (rows, cols) bool, True where a pixel shows the world; None where all do.
    """

    image: np.ndarray
    heading_deg: float | None = None
    height_m: float = DEFAULT_HEIGHT_M
    fix: Fix | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_image(self.image)
        height_px, width_px = self.image.shape[:2]
        if abs(width_px / height_px - _FULL_SPHERE_RATIO) > _RATIO_TOLERANCE * _FULL_SPHERE_RATIO:
            raise ValueError(
                f"A panorama is a full sphere, twice as wide as high; got {width_px} x {height_px} "
                "pixels. Pad it to the full sphere and mask what was added."
            )
        if self.heading_deg is not None:
            if not math.isfinite(self.heading_deg):
                raise ValueError(
                    f"heading_deg is {self.heading_deg}; use None where it is not known."
                )
            object.__setattr__(self, "heading_deg", float(angles.normalize_deg(self.heading_deg)))
        _check_height(self.height_m)
        _freeze_arrays(self)

    @property
    def camera(self) -> Equirectangular:
        """The camera of the image."""
        return Equirectangular(width_px=self.image.shape[1], height_px=self.image.shape[0])


@dataclass(frozen=True)
class Mount:
    """Where a rig's photo was taken, seen from the rig's reference pose.

    Args:
        heading_deg: The photo's heading minus the reference's, [0, 360).
        forward_m: Along the reference's heading.
        right_m: To the right of it.
    """

    heading_deg: float = 0.0
    forward_m: float = 0.0
    right_m: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in vars(self).values()):
            raise ValueError(f"{self} has a value that is not finite.")
        object.__setattr__(self, "heading_deg", float(angles.normalize_deg(self.heading_deg)))


@dataclass(frozen=True, eq=False)
class Rig:
    """Photos taken together from one vehicle.

    Args:
        photos: One or more.
        mounts: One for each photo. The rig's pose is where all mounts are zero.
    """

    photos: tuple[Photo, ...]
    mounts: tuple[Mount, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "photos", tuple(self.photos))
        object.__setattr__(self, "mounts", tuple(self.mounts))
        if not self.photos or len(self.photos) != len(self.mounts):
            raise ValueError(
                f"A rig has at least one photo and one mount for each, got {len(self.photos)} "
                f"photos and {len(self.mounts)} mounts."
            )


def read_photo(
    path: str | Path,
    *,
    focal_px: float | None = None,
    roll_deg: float = 0.0,
    pitch_deg: float = 0.0,
    height_m: float = DEFAULT_HEIGHT_M,
    ignore_gps: bool = False,
    max_side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Photo:
    """A perspective photo from a JPEG or PNG file, turned as its EXIF orientation says.

    The principal point is taken to be in the middle of the image and the lens to be ideal.

    Args:
        path: The file.
        focal_px: Focal length in pixels of the file's full size; by default what its EXIF says
            (see exif.focal_px_of).
        roll_deg: How far the right side of the turned image is down; files do not say.
        pitch_deg: How far the camera looks up; files do not say.
        height_m: Of the camera above the street.
        ignore_gps: Leave out the position and compass of the file.
        max_side_px: Make a larger image smaller until its longer side has this many pixels; the
            camera shrinks with it.
        max_pixels: Refuse a larger image, before it is decoded.

    Raises:
        PhotoError: The file is not an image that can be read, or its GPS tags are impossible.
        PhotoTooLargeError: It has more than max_pixels.
        MissingFocalLengthError: Neither the file nor focal_px gives a focal length.
    """
    path = Path(path)
    with _logged_warnings(path.name), _opened(path, max_pixels) as image:
        tags = image.getexif()
        fix = None if ignore_gps else exif.fix_of(tags, path.name)
        if focal_px is None:
            width_px, height_px = image.size
            focal_px = exif.focal_px_of(
                tags, width_px=width_px, height_px=height_px, name=path.name
            )
        if focal_px is None:
            raise MissingFocalLengthError(
                f"{path.name} does not say its focal length (no FocalLengthIn35mmFilm, and no "
                "FocalLength with FocalPlaneXResolution). Give it in pixels of the full-size "
                "image: focal_px=, or --focal-px on the command line. Half the width is a "
                "90 degree field of view."
            )
        turned = _turned_by_exif(image)
        pixels = _rgb(_shrunk(turned, max_side_px))
    camera = Pinhole.from_focal(*turned.size, focal_px)
    return Photo(pixels, _resized(camera, pixels), roll_deg, pitch_deg, height_m=height_m, fix=fix)


def read_panorama(
    path: str | Path,
    *,
    heading_deg: float | None = None,
    height_m: float = DEFAULT_HEIGHT_M,
    ignore_gps: bool = False,
    max_side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Panorama:
    """A panorama from a JPEG or PNG file, level and padded to the full sphere.

    XMP GPano tags say which part of the sphere the image is (the rest is black and masked), how
    it must be levelled, and its heading, which is taken to be from true north.

    Args:
        path: The file.
        heading_deg: Azimuth at the middle column, where the file does not know or is wrong.
        height_m: Of the camera above the street.
        ignore_gps: Leave out the position and compass of the file.
        max_side_px: Make a larger image smaller until its longer side has this many pixels.
        max_pixels: Refuse a larger image or sphere, before it is decoded.

    Raises:
        PhotoError: The file is not an image that can be read, its tags are impossible, or it is
            no full sphere and does not say which part.
        PhotoTooLargeError: It has more than max_pixels.
    """
    path = Path(path)
    with _logged_warnings(path.name), _opened(path, max_pixels) as image:
        fix = None if ignore_gps else exif.fix_of(image.getexif(), path.name)
        packet = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
        tags = exif.panorama_tags_of(packet, path.name) if packet else exif.PanoramaTags()
        turned = _turned_by_exif(image)
        sphere = _sphere_size(tags, *turned.size, name=path.name, max_pixels=max_pixels)
        factor = _shrinking(turned.size, max_side_px)
        pixels = _rgb(_shrunk(turned, max_side_px))
    pixels, mask = _padded(pixels, sphere, tags, factor)
    if tags.pitch_deg or tags.roll_deg:
        pixels, mask = _level_sphere(pixels, mask, tags)
    if heading_deg is None:
        heading_deg = tags.heading_deg
    return Panorama(pixels, heading_deg, height_m, fix, None if mask.all() else mask)


def read_fix(path: str | Path) -> Fix | None:
    """Position and compass of a JPEG or PNG file (see exif.fix_of); no pixel is decoded.

    Raises:
        PhotoError: The file is not an image, or its GPS tags are impossible.
    """
    path = Path(path)
    with _logged_warnings(path.name), _opened(path, math.inf) as image:
        return exif.fix_of(image.getexif(), path.name)


@dataclass(frozen=True)
class FileTags:
    """What an image file says of itself; its pixels are not decoded.

    Args:
        width_px: Columns as stored, before any EXIF orientation.
        height_px: Rows as stored.
        orientation: How it must be turned to be upright, 1 to 8 as EXIF counts.
        fix: Position and compass, where there are any.
        focal_px: Focal length in stored pixels, where the file says.
        taken: When; without a time zone where the file does not say which.
        panorama: GPano, where there is any.
    """

    width_px: int
    height_px: int
    orientation: int
    fix: Fix | None
    focal_px: float | None
    taken: datetime | None
    panorama: exif.PanoramaTags | None


def read_tags(
    path: str | Path, *, ignore_gps: bool = False, max_pixels: int = MAX_PIXELS
) -> FileTags:
    """What a JPEG or PNG file says of itself.

    Raises:
        PhotoError: The file is not an image that can be read, or its tags are impossible.
        PhotoTooLargeError: It has more than max_pixels.
    """
    path = Path(path)
    with _logged_warnings(path.name), _opened(path, max_pixels) as image:
        tags = image.getexif()
        packet = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
        if not packet or _GPANO not in (packet.encode() if isinstance(packet, str) else packet):
            packet = None
        width_px, height_px = image.size
        return FileTags(
            width_px,
            height_px,
            exif.orientation_of(tags),
            None if ignore_gps else exif.fix_of(tags, path.name),
            exif.focal_px_of(tags, width_px=width_px, height_px=height_px, name=path.name),
            exif.taken_at(tags, path.name),
            None if packet is None else exif.panorama_tags_of(packet, path.name),
        )


def read_pixels(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Pixels of a JPEG or PNG file as stored, whatever its EXIF says: (rows, cols, 3) uint8 RGB.

    Raises:
        PhotoError: The file is not an image that can be read.
        PhotoTooLargeError: It has more than max_pixels.
    """
    with _opened(Path(path), max_pixels) as image:
        return _rgb(image)


def read_mask(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A mask file as Photo wants it, (rows, cols) bool: True where the pixel shows the world.

    In the file, white (at least half bright) is what is *not* the world, such as a car's hood.
    """
    with _opened(Path(path), max_pixels) as image:
        return np.asarray(image.convert("L")) < MASK_THRESHOLD


def decoded_size(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width_px, height_px) of an image, after making sure that all of it can be decoded.

    Raises:
        PhotoError: It cannot, for instance because the file is truncated.
    """
    with _opened(Path(path), max_pixels) as image:
        size = image.size
        # a JPEG is read to its end at any scale, and an eighth is much quicker
        image.draft(None, (max(1, size[0] // 8), max(1, size[1] // 8)))
        image.load()
    return size


def require_fix(photo: Photo | Panorama, name: str) -> Fix:
    """The fix of a photo that must have one.

    Raises:
        MissingLocationError: It has none; the message says which option gives a location.
    """
    if photo.fix is None:
        raise MissingLocationError(
            f"{name} does not say where it was taken, and a search needs to begin somewhere. "
            "Give a rough place: --lat and --lon (with --radius-m) on the command line, or a prior."
        )
    return photo.fix


@contextlib.contextmanager
def _opened(path: Path, max_pixels: float) -> Iterator[ImageFile.ImageFile]:
    """An image whose pixels are not decoded yet; whatever goes wrong inside is a PhotoError."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
            file.seek(0)
            with _logged_warnings(path.name):
                opened = _format_of(start, path)(file)
            with opened as image:
                _check_size(image.size, path.name, max_pixels)
                yield image
    except PhotoError:
        raise
    except FileNotFoundError as error:
        raise PhotoError(f"There is no file {path}.") from error
    except _DECODER_ERRORS as error:
        raise PhotoError(
            f"{path.name} cannot be read as an image ({error}). It may be truncated or damaged."
        ) from error


def _format_of(start: bytes, path: Path) -> type[ImageFile.ImageFile]:
    """The decoder for a file that begins so.

    The decoders are called by name: PIL.Image.open would try every format it knows, and has a
    size limit of its own that is global.
    """
    from PIL import JpegImagePlugin, PngImagePlugin

    if start.startswith(_JPEG_START):
        return JpegImagePlugin.JpegImageFile
    if start.startswith(_PNG_START):
        return PngImagePlugin.PngImageFile
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        raise PhotoError(
            f"{path.name} is a HEIC/HEIF image, which is not read here. Convert it to JPEG and "
            "keep its EXIF, for instance with `heif-convert` or "
            "`magick photo.heic photo.jpg`, or set the phone to 'most compatible'."
        )
    raise PhotoError(f"{path.name} is not a JPEG or PNG image; it begins with {start[:8]!r}.")


@contextlib.contextmanager
def _logged_warnings(name: str) -> Iterator[None]:
    """Pillow warns of damaged metadata; say which file it was, in the log.

    One thread at a time, as filters of warnings are those of the whole process: what threads read
    many of (`read_pixels`) has this around its header only.
    """
    with _FILTERS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if "PIL" in Path(warning.filename).parts:
            _log.warning("%s: %s", name, warning.message)
        else:  # of another thread
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _check_size(size: tuple[int, int], name: str, max_pixels: float) -> None:
    width_px, height_px = size
    if width_px * height_px > max_pixels:
        raise PhotoTooLargeError(
            f"{name} has {width_px} x {height_px} pixels and the limit is {max_pixels / 1e6:g} "
            "million. Make it smaller, or raise the limit if you trust the file: max_pixels=, or "
            "--max-megapixels on the command line."
        )


def _turned_by_exif(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _shrinking(size: tuple[int, int], max_side_px: int | None) -> float:
    if max_side_px is None:
        return 1.0
    if max_side_px < 1:
        raise PhotoError(f"max_side_px must be at least 1, got {max_side_px}.")
    return min(1.0, max_side_px / max(size))


def _shrunk(image: Image.Image, max_side_px: int | None) -> Image.Image:
    """Area-weighted reduction; edges stay where they are, as corner-origin positions want."""
    from PIL import Image

    factor = _shrinking(image.size, max_side_px)
    if factor == 1.0:
        return image
    if image.mode in ("P", "1"):
        image = image.convert("RGB")
    width_px, height_px = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width_px, height_px), resample=Image.Resampling.BOX)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        # 16-bit grey, which convert("RGB") would clip at 255
        grey = (np.asarray(image, dtype=np.float64) / 257.0).round().clip(0, 255)
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _resized(camera: Pinhole, pixels: np.ndarray) -> Pinhole:
    """An ideal camera for the image made smaller, exact in both axes."""
    height_px, width_px = pixels.shape[:2]
    across, down = width_px / camera.width_px, height_px / camera.height_px
    return Pinhole(
        width_px,
        height_px,
        fx=camera.fx * across,
        fy=camera.fy * down,
        cx=camera.cx * across,
        cy=camera.cy * down,
    )


def _sphere_size(
    tags: exif.PanoramaTags, width_px: int, height_px: int, *, name: str, max_pixels: int
) -> tuple[float, float]:
    """Size of the full sphere in pixels of the file, which may have been resized since."""
    resized = 1.0 if tags.cropped_width_px is None else width_px / tags.cropped_width_px
    full_width = width_px if tags.full_width_px is None else tags.full_width_px * resized
    full_height = height_px if tags.full_height_px is None else tags.full_height_px * resized
    if abs(full_width / full_height - _FULL_SPHERE_RATIO) > _RATIO_TOLERANCE * _FULL_SPHERE_RATIO:
        raise PhotoError(
            f"{name}: a full sphere is twice as wide as high, and this one is {full_width:.0f} x "
            f"{full_height:.0f} pixels. A part of a sphere needs GPano tags (FullPanoWidthPixels "
            "and so on) that say which; a perspective photo is read with read_photo."
        )
    inside = (
        tags.left_px * resized + width_px <= full_width + 1
        and tags.top_px * resized + height_px <= full_height + 1
    )
    if not inside:
        raise PhotoError(
            f"{name}: GPano says that the image begins at column {tags.left_px:g}, row "
            f"{tags.top_px:g} of a sphere of {tags.full_width_px} x {tags.full_height_px}, where "
            "it does not fit."
        )
    _check_size((round(full_width), round(full_height)), f"The full sphere of {name}", max_pixels)
    return full_width, full_height


def _padded(
    pixels: np.ndarray, sphere: tuple[float, float], tags: exif.PanoramaTags, factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """The crop in its sphere, and where it is."""
    height_px, width_px = pixels.shape[:2]
    full_width = max(width_px, round(sphere[0] * factor))
    full_height = max(height_px, round(sphere[1] * factor))
    mask = np.zeros((full_height, full_width), dtype=bool)
    full = np.zeros((full_height, full_width, 3), dtype=np.uint8)
    per_tag = factor if tags.cropped_width_px is None else width_px / tags.cropped_width_px
    left = min(round(tags.left_px * per_tag), full_width - width_px)
    top = min(round(tags.top_px * per_tag), full_height - height_px)
    place = slice(top, top + height_px), slice(left, left + width_px)
    full[place], mask[place] = pixels, True
    return full, mask


def _level_sphere(
    pixels: np.ndarray, mask: np.ndarray, tags: exif.PanoramaTags
) -> tuple[np.ndarray, np.ndarray]:
    camera = Equirectangular(width_px=pixels.shape[1], height_px=pixels.shape[0])
    upright = functools.partial(
        rectify.levelled, camera=camera, pitch_deg=tags.pitch_deg, roll_deg=tags.roll_deg
    )
    return upright(pixels)[0], upright(mask)[0]


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"An image is (rows, cols, 3) uint8 RGB, got {image.shape} {image.dtype}.")


def _check_height(height_m: float) -> None:
    if not 0 < height_m < math.inf:
        raise ValueError(f"height_m must be positive, got {height_m}.")


def _freeze_arrays(photo: Photo | Panorama) -> None:
    """Read-only copies of image and mask."""
    mask = photo.mask
    if mask is not None and (mask.dtype != bool or mask.shape != photo.image.shape[:2]):
        raise ValueError(
            f"A mask is (rows, cols) bool like its image, {photo.image.shape[:2]}; got "
            f"{mask.shape} {mask.dtype}."
        )
    for field, array in (("image", photo.image), ("mask", mask)):
        if array is not None:
            own = np.array(array)
            own.flags.writeable = False
            object.__setattr__(photo, field, own)
