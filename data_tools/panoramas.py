"""A manifest of street photos: panoramas levelled or cut into perspective views, faces blurred.

Files that are used as they are stay where they are. As soon as one must be made (a panorama that is
not level or not a whole sphere, crops, a blur), all images of the dataset are written into `images`
beside the tables, without the metadata that cameras put into files.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np

from crossview import atomic, console, manifest_schema, photos, rectify, tables
from crossview.cameras import Equirectangular, Pinhole
from crossview.errors import DatasetError, ManifestError, OutOfRegionError, PhotoError
from crossview.frames import LocalFrame
from crossview.manifest import Manifest
from data_tools.ground_images import GroundImage, Skipped, require_below

IMAGES = "images"
JPEG_QUALITY = 95
REGION_RADIUS_M = 30_000.0
"""An image farther from the anchor of all regions begins another one; a frame ends at 50 km."""

LEVEL_DEG = 0.1
"""A panorama tilted by less is level: half a pixel of one that is 2048 wide."""

_ANCHOR_DECIMALS = 4
_NOT_FOR_FILES = re.compile(r"[^\w.-]+")

Blur = Callable[[np.ndarray], np.ndarray]
"""An image (rows, cols, 3) uint8 RGB with faces and number plates made unrecognisable."""


@dataclass(frozen=True)
class Crops:
    """Perspective views that a panorama is cut into: one rig of level cameras.

    Args:
        number: How many, evenly around; the first looks straight ahead.
        field_of_view_deg: Across and down.
        side_px: Columns and rows of each.
        pitch_deg: How far they look up.
    """

    number: int = 4
    field_of_view_deg: float = 90.0
    side_px: int = 1024
    pitch_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.number < 1 or self.side_px < 1 or not 0 < self.field_of_view_deg < 180:
            raise ValueError(
                f"Crops are 1 or more, of 1 pixel or more, within 0..180 degrees; got {self}."
            )
        if not -90 <= self.pitch_deg <= 90:
            raise ValueError(f"pitch_deg is within -90..90 degrees, got {self.pitch_deg}.")

    @property
    def camera(self) -> Pinhole:
        """The camera of each."""
        focal_px = self.side_px / 2 / math.tan(math.radians(self.field_of_view_deg) / 2)
        return Pinhole.from_focal(self.side_px, self.side_px, focal_px)


@dataclass(frozen=True, eq=False)
class PhotoDataset:
    """A manifest that was written, and what is not in it.

    Args:
        manifest: The dataset.
        skipped: Images that could not be used.
        num_magnetic: Views whose only heading is a magnetic one, which is kept and not used.
        num_unplaced: Views without a position.
        num_assumed_spheres: Images whose shape alone says that they are panoramas.
    """

    manifest: Manifest
    skipped: tuple[Skipped, ...]
    num_magnetic: int
    num_unplaced: int
    num_assumed_spheres: int


def require_free(out: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that holds a manifest, unless it may be replaced.

    Raises:
        ManifestError: It does.
    """
    if (out / manifest_schema.DATASET_FILE).exists() and not overwrite:
        raise ManifestError(
            f"{out} holds a manifest already. Choose another folder, or replace it with "
            "overwrite=True (--overwrite)."
        )


def write_photos(
    images: Sequence[GroundImage],
    out: str | Path,
    *,
    name: str,
    licence: str,
    attribution: str,
    image_root: str | Path,
    skipped: Iterable[Skipped] = (),
    region: str = "photos",
    crops: Crops | None = None,
    blur: Blur | None = None,
    overwrite: bool = False,
) -> PhotoDataset:
    """Write a manifest of street images.

    Args:
        images: With files. Those that turn out to be unreadable are skipped and listed.
        out: The manifest's folder. It may exist without a manifest (downloads are there already).
        name: Of the dataset.
        licence: Of the images that do not say their own.
        attribution: Who must be named.
        image_root: The folder that holds all files.
        skipped: Images that were lost on the way here.
        region: Name of the region; images far apart get more, `photos-2` and so on.
        crops: Cut panoramas into perspective views.
        blur: Makes faces and number plates unrecognisable; it sees every image that is written.
        overwrite: Replace a manifest that is there.

    Raises:
        DatasetError: No image is left.
        ManifestError: A manifest is there, or the rows break its schema.
    """
    out = Path(out)
    require_free(out, overwrite=overwrite)
    lost = list(skipped)
    makes = blur is not None or any(_must_be_made(image, crops) for image in images)
    root = out / IMAGES if makes else Path(image_root)
    root.mkdir(parents=True, exist_ok=True)
    writer = _Writer(root, crops, blur) if makes else _InPlace(root)
    views: list[dict[str, Any]] = []
    cameras: dict[str, dict[str, Any]] = {}
    anchors, num_assumed = _Regions(region), 0
    for image in console.progress(images, total=len(images), unit="image"):
        try:
            made = list(writer.views(image))
        except (PhotoError, ManifestError) as error:
            lost.append(Skipped(image.image_id, str(error)))
            continue
        place = anchors.of(image)
        num_assumed += bool(made) and image.is_assumed_sphere
        for view, camera in made:
            cameras.setdefault(camera["camera_id"], camera)
            views.append({**_row(image, licence), "region": place, **view})
    if not views:
        first = f" {lost[0].image_id}: {lost[0].reason}" if lost else ""
        raise DatasetError(f"None of the images can be used.{first}")
    manifest = Manifest.from_rows(
        name=name,
        licence=licence,
        attribution=attribution,
        image_root=_root_as_written(root, out),
        regions=anchors.rows(),
        cameras=list(cameras.values()),
        views=views,
    )
    _put(manifest, out)
    manifest = Manifest.load(out)
    unknown = manifest.views["heading_deg"].isna()
    return PhotoDataset(
        manifest=manifest,
        skipped=tuple(lost),
        num_magnetic=int((unknown & manifest.views["magnetic_heading_deg"].notna()).sum()),
        num_unplaced=int(manifest.views["lat_deg"].isna().sum()),
        num_assumed_spheres=num_assumed,
    )


def _root_as_written(root: Path, out: Path) -> str:
    """Relative where it lies in the manifest's folder, so that both move together."""
    root, out = root.resolve(), out.resolve()
    return (root.relative_to(out) if root.is_relative_to(out) else root).as_posix()


def _put(manifest: Manifest, out: Path) -> None:
    """Write the tables into a folder that may hold images; dataset.json comes last."""
    out.mkdir(parents=True, exist_ok=True)
    finished = out / ".tables"
    with tables.atomic_folder(finished, overwrite=True) as partial:
        manifest.write(partial)
    for path in sorted(finished.iterdir(), key=lambda p: p.name == manifest_schema.DATASET_FILE):
        path.replace(out / path.name)
    finished.rmdir()


def _must_be_made(image: GroundImage, crops: Crops | None) -> bool:
    if image.kind != "panorama" or image.path is None:
        return False
    if crops is not None or _is_tilted(image.pitch_deg, image.roll_deg):
        return True
    try:
        tags = photos.read_tags(image.path, ignore_gps=True)
    except PhotoError:
        return False
    # without tags, or with those of a level whole sphere, the file is a Panorama as it is
    gpano = tags.panorama
    is_cropped = gpano is not None and (
        gpano.full_width_px not in (None, gpano.cropped_width_px)
        or gpano.full_height_px not in (None, gpano.cropped_height_px)
    )
    is_tilted = gpano is not None and _is_tilted(gpano.pitch_deg, gpano.roll_deg)
    return is_cropped or is_tilted or tags.width_px != 2 * tags.height_px or tags.orientation != 1


def _is_tilted(pitch_deg: float | None, roll_deg: float | None) -> bool:
    return max(abs(pitch_deg or 0.0), abs(roll_deg or 0.0)) > LEVEL_DEG


@dataclass(frozen=True)
class _InPlace:
    """Views that point at files where they are."""

    root: Path

    def views(self, image: GroundImage) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The columns of one view, and its camera."""
        path = _file_of(image)
        require_below(path, self.root)
        width_px, height_px = photos.decoded_size(path)
        camera = _camera_row(image.camera, width_px, height_px)
        relative = path.resolve().relative_to(self.root.resolve()).as_posix()
        yield _view(image.image_id, relative, camera, image), camera


@dataclass(frozen=True)
class _Writer:
    """Views whose images are written."""

    root: Path
    crops: Crops | None
    blur: Blur | None

    def views(self, image: GroundImage) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The columns of each view of an image, and its camera."""
        if image.kind == "photo":
            yield self._photo(image)
            return
        pixels, seen, heading_deg = _level_sphere(image)
        level = replace(image, pitch_deg=0.0, roll_deg=0.0, heading_deg=heading_deg)
        if self.crops is None:
            yield self._sphere(level, pixels, seen)
        else:
            yield from self._cropped(level, pixels, seen, self.crops)

    def _photo(self, image: GroundImage) -> tuple[dict[str, Any], dict[str, Any]]:
        path = _file_of(image)
        width_px, height_px = photos.decoded_size(path)
        camera = _camera_row(image.camera, width_px, height_px)
        if self.blur is None:
            name = _file_name(image.image_id, path.suffix.lower())
            if (self.root / name).resolve() != path.resolve():
                with atomic.replacing(self.root / name) as temporary:
                    shutil.copyfile(path, temporary)
        else:
            name = self._write(image.image_id, photos.read_pixels(path))
        return _view(image.image_id, name, camera, image), camera

    def _sphere(
        self, image: GroundImage, pixels: np.ndarray, seen: np.ndarray | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        height_px, width_px = pixels.shape[:2]
        camera = _camera_row(None, width_px, height_px)
        if seen is not None:
            camera = self._masked(camera, seen)
        return _view(image.image_id, self._write(image.image_id, pixels), camera, image), camera

    def _cropped(
        self, image: GroundImage, pixels: np.ndarray, seen: np.ndarray | None, crops: Crops
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        camera = crops.camera
        row = _camera_row(camera, camera.width_px, camera.height_px)
        for i in range(crops.number):
            look = {"turn_deg": 360.0 * i / crops.number, "pitch_deg": crops.pitch_deg}
            if seen is not None and not rectify.perspective(seen, camera, **look)[0].all():
                continue  # a part of it was never seen
            view_id = f"{image.image_id}-{i}"
            name = self._write(view_id, rectify.perspective(pixels, camera, **look)[0])
            one = replace(
                image,
                kind="photo",
                pitch_deg=crops.pitch_deg,
                heading_deg=_plus(image.heading_deg, look["turn_deg"]),
                magnetic_heading_deg=_plus(image.magnetic_heading_deg, look["turn_deg"]),
            )
            # views without a heading cannot be mounted in a rig
            station = image.image_id if one.heading_deg is not None else ""
            yield {**_view(view_id, name, row, one), "station_id": station}, row

    def _masked(self, camera: dict[str, Any], seen: np.ndarray) -> dict[str, Any]:
        """A camera of its own for a sphere of which a part was never seen."""
        from PIL import Image

        key = hashlib.sha256(np.packbits(seen).tobytes()).hexdigest()[:12]
        name = f"mask-{key}.png"
        with atomic.replacing(self.root / name) as temporary:
            # white is not the world
            Image.fromarray(np.where(seen, 0, 255).astype(np.uint8)).save(temporary)
        return {**camera, "camera_id": f"{camera['camera_id']}-{key}", "mask": name}

    def _write(self, view_id: str, pixels: np.ndarray) -> str:
        from PIL import Image

        if self.blur is not None:
            pixels = _blurred(pixels, self.blur)
        name = _file_name(view_id, ".jpg")
        with atomic.replacing(self.root / name) as temporary:
            Image.fromarray(pixels).save(temporary, quality=JPEG_QUALITY, subsampling=0)
        return name


def _blurred(pixels: np.ndarray, blur: Blur) -> np.ndarray:
    blurred = np.asarray(blur(pixels))
    if blurred.shape != pixels.shape or blurred.dtype != np.uint8:
        raise ValueError(
            f"The blur gave back {blurred.shape} {blurred.dtype}; expected an image like the one "
            f"it got, {pixels.shape} uint8."
        )
    return blurred


class _Regions:
    """Regions as far apart as their frames allow, in the order of the images."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._frames: dict[str, LocalFrame] = {}

    def of(self, image: GroundImage) -> str:
        """The region of an image; the first for one without a position."""
        if image.lat_deg is None or image.lon_deg is None:
            return next(iter(self._frames), self._name)
        for name, frame in self._frames.items():
            try:
                if math.hypot(*frame.to_local(image.lat_deg, image.lon_deg)) <= REGION_RADIUS_M:
                    return name
            except OutOfRegionError:
                continue
        number = len(self._frames) + 1
        name = self._name if number == 1 else f"{self._name}-{number}"
        anchor = (round(axis, _ANCHOR_DECIMALS) for axis in (image.lat_deg, image.lon_deg))
        self._frames[name] = LocalFrame(*anchor)
        return name

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the regions table."""
        frames = self._frames or {self._name: LocalFrame(0.0, 0.0)}
        return [
            {"name": name, "lat_deg": frame.lat_deg, "lon_deg": frame.lon_deg}
            for name, frame in frames.items()
        ]


def _level_sphere(
    image: GroundImage,
) -> tuple[np.ndarray, np.ndarray | None, float | None]:
    """Pixels of a level whole sphere, where they were seen (None: everywhere), and its heading.

    What the record says of pitch and roll wins over the file's tags.
    """
    path = _file_of(image)
    if not _is_tilted(image.pitch_deg, image.roll_deg):
        panorama = photos.read_panorama(path, heading_deg=image.heading_deg, ignore_gps=True)
        return panorama.image, panorama.mask, panorama.heading_deg
    pixels = photos.read_pixels(path)
    height_px, width_px = pixels.shape[:2]
    if width_px != 2 * height_px:
        raise PhotoError(
            f"{image.image_id} has {width_px} x {height_px} pixels; a whole sphere is twice as "
            "wide as high, and only such a one can be levelled by numbers from elsewhere."
        )
    level, _ = rectify.levelled(
        pixels,
        Equirectangular(width_px, height_px),
        pitch_deg=image.pitch_deg or 0.0,
        roll_deg=image.roll_deg or 0.0,
    )
    return level, None, image.heading_deg


def _plus(heading_deg: float | None, turn_deg: float) -> float | None:
    return None if heading_deg is None else heading_deg + turn_deg


def _file_of(image: GroundImage) -> Path:
    if image.path is None:
        raise PhotoError(f"{image.image_id} has no file.")
    return image.path


def _file_name(view_id: str, suffix: str) -> str:
    """A name in one folder for an id that may hold slashes; equal names for equal ids only."""
    plain = _NOT_FOR_FILES.sub("-", view_id).strip(".-") or "image"
    if plain != view_id:
        plain += "-" + hashlib.sha256(view_id.encode()).hexdigest()[:8]
    return plain + suffix


def _camera_row(camera: Pinhole | None, width_px: int, height_px: int) -> dict[str, Any]:
    """A row of the cameras table; its id says what it is, so that equal cameras are one."""
    size = {"width_px": width_px, "height_px": height_px}
    if camera is None:
        return {"camera_id": f"sphere-{width_px}x{height_px}", "model": "equirectangular", **size}
    if (camera.width_px, camera.height_px) != (width_px, height_px):
        raise PhotoError(
            f"The image has {width_px} x {height_px} pixels and its camera {camera.width_px} x "
            f"{camera.height_px}."
        )
    lens = manifest_schema.distortion_text(camera.distortion)
    numbers = {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy}
    text = f"{sorted(numbers.items())} {lens}"
    key = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = f"pinhole-{width_px}x{height_px}-{key}"
    return {"camera_id": name, "model": "pinhole", **size, **numbers, "distortion": lens}


def _view(view_id: str, file: str, camera: dict[str, Any], image: GroundImage) -> dict[str, Any]:
    """The columns of a view that depend on its pixels."""
    columns = ("kind", "heading_deg", "magnetic_heading_deg", "pitch_deg", "roll_deg")
    return {
        "view_id": view_id,
        "image": file,
        "camera_id": camera["camera_id"],
        **{column: getattr(image, column) for column in columns},
    }


def _row(image: GroundImage, licence: str) -> dict[str, Any]:
    """The columns of a view that its image says."""
    time_utc = ""
    if image.taken is not None and image.taken.tzinfo is not None:
        time_utc = image.taken.astimezone(UTC).isoformat().replace("+00:00", "Z")
    columns = (
        "sequence_id", "order", "lat_deg", "lon_deg", "height_m", "accuracy_m", "attribution",
        "source",
    )  # fmt: skip
    return {
        **{column: getattr(image, column) for column in columns},
        "time_utc": time_utc,
        "licence": image.licence or licence,
    }
