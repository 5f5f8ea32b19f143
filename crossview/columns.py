"""Columns of a levelled panorama: what a query shows by azimuth and elevation.

A photo, a panorama or a rig becomes one table of class probabilities over azimuth and elevation in
the query's own frame (azimuth 0 is the query's heading). Cameras of a rig stand beside each other;
their pixels are moved to where the reference camera would see the same thing if the ground were a
plane and everything above it stood NOMINAL_RANGE_M away: exact on the ground, where walls begin.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossview import angles, atomic
from crossview.birdseye import BirdsEye
from crossview.cameras import map_from_camera
from crossview.photos import Mount, Panorama, Photo, Rig
from crossview.segmenters import Segmenter, upright_images, usable_pixels

NUM_AZIMUTHS = 256
"""Columns of a full turn, 1.4 degrees each; column k is centred on k * 360 / 256."""

LOWEST_DEG, HIGHEST_DEG = -60.0, 90.0
"""Elevations that are looked at: below is the vehicle, above the zenith is nothing."""

ELEVATION_STEP_DEG = 0.25

NUM_ELEVATIONS = round((HIGHEST_DEG - LOWEST_DEG) / ELEVATION_STEP_DEG)

NOMINAL_RANGE_M = 10.0
"""Where things above the ground stand in a street, to move them from one camera to another."""

GROUPS = {
    "road": ("road",),
    "walk": ("sidewalk", "terrain"),
    "wall": ("building", "wall", "fence"),
    "plant": ("vegetation",),
    "sky": ("sky",),
    "mover": ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    "other": ("pole", "traffic light", "traffic sign", "background"),
}
"""What columns tell apart, and the Cityscapes classes of each."""

NUM_THREADS = 2
"""That look at blocks of columns: NumPy lets go of the interpreter inside of them."""

_SAMPLES_PER_COLUMN = 4
_BLOCK_COLUMNS = 8
_COARSE_STEP = 8
"""Of the elevations that tell whether an image sees anything of a block."""


@dataclass(frozen=True, eq=False)
class ColumnView:
    """What a query shows by azimuth and elevation.

    Args:
        probability: (azimuths, elevations, groups) float32 in the order of GROUPS, the mean over
            the pixels of each bin; sums to 1 where seen, 0 elsewhere. Azimuth bin k is centred on
            k * 360 / azimuths clockwise from the query's heading; elevation bins of
            ELEVATION_STEP_DEG grow upwards from LOWEST_DEG.
        seen: (azimuths, elevations) bool.
        height_m: Of the reference camera above the ground.
        ground: What lies on the ground, from above (see ground_votes); None if nobody looked.
    """

    probability: np.ndarray
    seen: np.ndarray
    height_m: float
    ground: BirdsEye | None = None

    def __post_init__(self) -> None:
        expected = (self.seen.shape[0], NUM_ELEVATIONS, len(GROUPS))
        if self.probability.shape != expected or self.seen.shape != expected[:2]:
            raise ValueError(
                f"A column view has probabilities of (azimuths, {NUM_ELEVATIONS}, {len(GROUPS)}) "
                f"and seen of their first two axes; got {self.probability.shape} and "
                f"{self.seen.shape}."
            )
        for array in (self.probability, self.seen):
            array.flags.writeable = False

    @property
    def num_azimuths(self) -> int:
        """Columns of a full turn."""
        return self.seen.shape[0]

    @classmethod
    def load(cls, path: str | Path) -> ColumnView:
        """Inverse of save."""
        with np.load(path, allow_pickle=False) as archive:
            ground = None
            if "ground" in archive:
                ground = BirdsEye(
                    archive["ground"].astype(np.float32) / 255,
                    archive["ground_seen"],
                    float(archive["ground_cell_m"]),
                    *map(int, archive["ground_camera"]),
                )
            probability = archive["probability"].astype(np.float32) / 255
            return cls(probability, archive["seen"], float(archive["height_m"]), ground)

    def save(self, path: str | Path) -> None:
        """Write an .npz file; probabilities and what is on the ground are kept to 1/255."""
        arrays = {
            "probability": np.rint(255 * self.probability).astype(np.uint8),
            "seen": self.seen,
            "height_m": np.float64(self.height_m),
        }
        if self.ground is not None:
            arrays |= {
                "ground": np.rint(255 * self.ground.values).astype(np.uint8),
                "ground_seen": self.ground.seen,
                "ground_cell_m": np.float64(self.ground.cell_m),
                "ground_camera": np.array([self.ground.camera_row, self.ground.camera_col]),
            }
        with atomic.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """One upright image of a query, and what its pixels show.

    Args:
        image: A photo, or a level panorama.
        mount: Where it stands on the rig.
        grouped: (rows, cols, groups) probabilities in the order of GROUPS, of any resolution.
        label: (rows, cols), the most probable of `classes`.
        classes: Names of the segmenter's classes, as in Cityscapes.
    """

    image: Photo | Panorama
    mount: Mount
    grouped: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]

    @functools.cached_property
    def usable(self) -> np.ndarray:
        """Pixels that show the world and not the camera's own car, (rows, cols) bool."""
        return usable_pixels(self.image, *self.grouped.shape[:2])


def elevations_deg() -> np.ndarray:
    """Centres of the elevation bins, (elevations,), growing."""
    return LOWEST_DEG + (np.arange(NUM_ELEVATIONS) + 0.5) * ELEVATION_STEP_DEG


def elevation_bin(elevation_deg: np.ndarray) -> np.ndarray:
    """Bins below an elevation, 0 .. NUM_ELEVATIONS: where a sum over bins up to it ends."""
    position = (np.asarray(elevation_deg, float) - LOWEST_DEG) / ELEVATION_STEP_DEG
    return np.clip(np.rint(position), 0, NUM_ELEVATIONS).astype(np.intp)


def grouping(classes: Sequence[str]) -> np.ndarray:
    """Which group each class of a segmenter belongs to, (classes, groups) of 0 and 1.

    Raises:
        ValueError: A class is in no group.
    """
    group_of = {name: i for i, names in enumerate(GROUPS.values()) for name in names}
    unknown = [name for name in classes if name not in group_of]
    if unknown:
        raise ValueError(
            f"The segmenter knows classes that columns do not: {', '.join(unknown)}. Expected "
            f"names of Cityscapes: {', '.join(group_of)}."
        )
    return np.eye(len(GROUPS), dtype=np.float32)[[group_of[name] for name in classes]]


def segmented(query: Photo | Panorama | Rig, segmenter: Segmenter) -> tuple[SegmentedImage, ...]:
    """What the pixels of a query show: the slow part, needed once whatever the camera's pose."""
    from tqdm import tqdm

    member = grouping(segmenter.classes)
    images = tqdm(upright_images(query), unit="photo", delay=2, disable=None, leave=False)
    found = []
    for image, mount in images:
        probability = np.asarray(segmenter(image.image))
        label = probability.argmax(axis=-1)
        found.append(
            SegmentedImage(image, mount, probability @ member, label, tuple(segmenter.classes))
        )
    return tuple(found)


def levelled(images: Sequence[SegmentedImage], *, num_azimuths: int = NUM_AZIMUTHS) -> ColumnView:
    """The levelled columns of all images together.

    Args:
        images: With cameras, pitch, roll, heights and mounts; the first is the reference, whose
            height counts.
        num_azimuths: Columns of a full turn.
    """
    total = np.empty((num_azimuths, NUM_ELEVATIONS, len(GROUPS)), np.float32)
    count = np.empty((num_azimuths, NUM_ELEVATIONS), np.float32)

    def look(first: int) -> None:
        block = slice(first, min(first + _BLOCK_COLUMNS, num_azimuths))
        total[block], count[block] = _columns_of(images, block, num_azimuths)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for _ in pool.map(look, range(0, num_azimuths, _BLOCK_COLUMNS)):
            pass
    total /= np.maximum(count, 1.0)[:, :, None]
    return ColumnView(total, count > 0, images[0].image.height_m)


def observed(
    query: Photo | Panorama | Rig, segmenter: Segmenter, *, num_azimuths: int = NUM_AZIMUTHS
) -> ColumnView:
    """The levelled columns of a photo, a panorama or a rig: segmented, then levelled."""
    return levelled(segmented(query, segmenter), num_azimuths=num_azimuths)


def _columns_of(
    images: Sequence[SegmentedImage], block: slice, num_azimuths: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums (columns, elevations, groups) over the pixels of a block, and their counts."""
    height_m = images[0].image.height_m
    points = _nominal_points(block, num_azimuths, height_m)
    shape = block.stop - block.start, NUM_ELEVATIONS
    total, count = np.zeros((*shape, len(GROUPS)), np.float32), np.zeros(shape, np.float32)
    for image in images:
        coarse = _projected(image, points[:, :, [0, -1], ::_COARSE_STEP], height_m)
        if not image.image.camera.contains(*coarse).any():
            continue
        values, inside = _looked_up(image, *_projected(image, points, height_m))
        total += values.sum(axis=1)
        count += inside.sum(axis=1)
    return total, count


def _projected(
    segmented_image: SegmentedImage, points: np.ndarray, height_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where an image sees points around a reference camera, (col, row) in its camera's pixels."""
    image, mount = segmented_image.image, segmented_image.mount
    level = (image.pitch_deg, image.roll_deg) if isinstance(image, Photo) else (0.0, 0.0)
    offset_m = np.array([mount.right_m, mount.forward_m, image.height_m - height_m])
    level_from_camera = map_from_camera(mount.heading_deg, *level)[..., None, None, None]
    # no product of matrices: BLAS has threads of its own, which waste those that call it
    directions = sum(level_from_camera[i] * (points[i] - offset_m[i]) for i in range(3))
    return image.camera.project(np.moveaxis(directions, 0, -1))


def _looked_up(
    segmented_image: SegmentedImage, col: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (..., groups) at positions, 0 where there are none, and where there are."""
    camera, grouped = segmented_image.image.camera, segmented_image.grouped
    rows, cols, num_groups = grouped.shape
    inside = camera.contains(col, row)
    col = np.where(inside, col * (cols / camera.width_px), 0).astype(np.intp)
    row = np.where(inside, row * (rows / camera.height_px), 0).astype(np.intp)
    # the lower rim of a panorama is inside, and its last row is meant
    pixel = np.minimum(row, rows - 1) * cols + np.minimum(col, cols - 1)
    inside &= segmented_image.usable.ravel()[pixel]
    values = grouped.reshape(-1, num_groups).take(pixel, axis=0)
    values *= inside[..., None]
    return values, inside


def _nominal_points(block: slice, num_azimuths: int, height_m: float) -> np.ndarray:
    """Where what each elevation shows probably is, to the right of, ahead of and above the camera.

    Returns:
        (3, columns, samples, elevations) metres.
    """
    within = (np.arange(_SAMPLES_PER_COLUMN) + 0.5) / _SAMPLES_PER_COLUMN - 0.5
    position = np.arange(block.start, block.stop)[:, None] + within
    right, ahead = angles.forward(position * (angles.FULL_TURN_DEG / num_azimuths))
    slope = np.tan(np.deg2rad(elevations_deg()))
    with np.errstate(divide="ignore"):
        on_ground_m = np.where(slope < 0, height_m / -slope, np.inf)
    range_m = np.minimum(on_ground_m, NOMINAL_RANGE_M)
    return np.stack(
        np.broadcast_arrays(right[..., None] * range_m, ahead[..., None] * range_m, range_m * slope)
    )
