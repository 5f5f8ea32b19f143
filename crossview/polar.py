"""Satellite tiles as a camera at their centre has its columns, and back: polar and ground-plane.

In a polar tile row 0 is the rim and the last row the centre. The centre column looks along the
heading (north by default), azimuth grows to the right: a wall stands in the same columns as in a
panorama. Its rows are even steps on the ground; those of the ground-plane transform are even steps
of the camera's angles, and hold for what lies on the ground.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview import polar_kernels, rectify
from crossview.cameras import Camera, Equirectangular, map_from_camera
from crossview.polar_kernels import WEIGHT_BITS

CONVENTIONS = ("crossview", "safa")
RESCALES = (None, "minmax")

MAX_SIZE_PX = 65_535
"""Of a square tile: addresses of its pixels have 32 bits."""

_NUM_TABLES = 8
"""Tables that are remembered, of about 3 MB each at 112 x 616."""


def polar_grid(
    height: int,
    width: int,
    size_px: int,
    *,
    heading_deg: float = 0.0,
    convention: str = "crossview",
) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a polar tile looks in the square tile.

    "crossview" has half-pixel centres like everything here: row i is at (1 - (i + 0.5) / height)
    of the half side, and column j looks along heading_deg + ((j + 0.5) / width - 0.5) * 360.
    "safa" is as published tiles and checkpoints have it (Shi et al., Spatial-Aware Feature
    Aggregation, NeurIPS 2019): row i at (height - 1 - i) / height, column j along
    180 + j / width * 360, around the pixel *index* size / 2. Its positions are indices, whose
    pixels have their centres at whole numbers, and are half a pixel more here.

    Args:
        height: Rows of the polar tile.
        width: Columns of it, 360 degrees.
        size_px: Side of the square, north-up tile.
        heading_deg: Azimuth of the centre column.
        convention: "crossview" or "safa".

    Returns:
        col, row: Positions in the tile, corner origin, each (height, width).

    Raises:
        ValueError: A size is not positive, or there is no such convention.
    """
    shape = _Shape(height, width, size_px, heading_deg, convention)
    azimuth = np.deg2rad(shape.azimuth_deg(np.arange(width) + 0.5))
    radius_px = shape.radius_px(np.arange(height) + 0.5)[:, None]
    center_px = shape.center_px
    return center_px + radius_px * np.sin(azimuth), center_px - radius_px * np.cos(azimuth)


@dataclass(frozen=True, eq=False)
class PolarTable:
    """Which four pixels of a tile make up each pixel of its polar form, computed once.

    Taps lie in the order of their addresses in the tile: memory is read in one sweep.

    Args:
        height: Rows of the polar tile.
        width: Columns of it.
        size_px: Side of the square tile.
        place: (taps,) uint32, the pixel of the polar tile, row * width + column.
        address: (taps,) uint32, the first of its pixels, row * size_px + column; the others are
            to its right, below it, and below to the right.
        weights: (taps, 4) float64, of the four pixels; they sum to 1.
    """

    height: int
    width: int
    size_px: int
    place: np.ndarray
    address: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        size_px: int,
        *,
        heading_deg: float = 0.0,
        convention: str = "crossview",
    ) -> PolarTable:
        """The table of polar_grid; bilinear, nearest within half a pixel of the tile's edges."""
        return _table(height, width, size_px, float(heading_deg), convention)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The polar form of a tile, in its dtype (whole numbers are rounded).

        Args:
            image: (size_px, size_px, channels) of numbers; bytes are quickest.

        Returns:
            (height, width, channels)
        """
        self._check(image)
        if image.dtype != np.uint8:
            values = self.values(image)
            return (np.rint(values) if image.dtype.kind in "iu" else values).astype(image.dtype)
        channels = image.shape[2]
        out = np.empty((self.height * self.width, channels), np.uint8)
        fill = polar_kernels.compiled(channels) or polar_kernels.fill_without_compiler
        image = np.ascontiguousarray(image).reshape(-1)
        fill(image, self.address, self.byte_weights, self.place, self.size_px, out)
        return out.reshape(self.height, self.width, channels)

    def values(self, image: np.ndarray) -> np.ndarray:
        """The polar form in float64, not rounded: (height, width, channels)."""
        self._check(image)
        flat = image.reshape(-1, image.shape[2])
        out = np.empty((len(self.place), image.shape[2]))
        out[self.place] = sum(
            flat.take(at, axis=0) * weight[:, None]
            for at, weight in zip(self.pixels.T, self.weights.T, strict=True)
        )
        return out.reshape(self.height, self.width, image.shape[2])

    @property
    def pixels(self) -> np.ndarray:
        """(taps, 4) int64, the four pixels of each tap."""
        steps = 0, 1, self.size_px, self.size_px + 1
        return self.address[:, None] + np.array(steps, dtype=np.int64)

    @functools.cached_property
    def byte_weights(self) -> np.ndarray:
        """(taps, 4) uint16, in units of 2^-WEIGHT_BITS; they sum to 1 exactly."""
        whole = np.rint(self.weights * (1 << WEIGHT_BITS)).astype(np.int64)
        largest = whole.argmax(axis=1)
        whole[np.arange(len(whole)), largest] += (1 << WEIGHT_BITS) - whole.sum(axis=1)
        return whole.astype(np.uint16)

    def _check(self, image: np.ndarray) -> None:
        if image.ndim != 3 or image.shape[:2] != (self.size_px, self.size_px):
            raise ValueError(
                f"This table is of square tiles (rows, cols, channels) of {self.size_px} px, got "
                f"{image.shape}. Make a table of that size, or resize the tile."
            )


def polar_tile(
    image: np.ndarray,
    height: int,
    width: int,
    *,
    heading_deg: float = 0.0,
    convention: str = "crossview",
    rescale: str | None = None,
) -> np.ndarray:
    """The polar form of a square, north-up tile.

    Args:
        image: (size, size, channels) of numbers.
        height: Rows of the polar tile.
        width: Columns of it, 360 degrees.
        heading_deg: Azimuth of the centre column.
        convention: "crossview" or "safa" (see polar_grid).
        rescale: "minmax" stretches the values as byte_rescaled does, before they are rounded.
            The published SAFA tiles, and so the checkpoints, have it.

    Returns:
        (height, width, channels), in the image's dtype; uint8 where it was rescaled.

    Raises:
        ValueError: The tile is not square, or an option is unknown.
    """
    if rescale not in RESCALES:
        raise ValueError(f"rescale is one of {RESCALES}, got {rescale!r}.")
    if image.ndim != 3 or image.shape[0] != image.shape[1]:
        raise ValueError(
            f"A tile is square, (size, size, channels), got {image.shape}. Crop it around the "
            "place that the polar tile is of."
        )
    table = PolarTable.of(height, width, len(image), heading_deg=heading_deg, convention=convention)
    return table(image) if rescale is None else byte_rescaled(table.values(image))


def byte_rescaled(image: np.ndarray) -> np.ndarray:
    """Numbers as bytes: the least becomes 0 and the largest 255, over all channels; bytes stay.

    What the image writer of old SciPy versions did with anything but bytes. A mild stretch of
    contrast, and none where the image spans 0 to 255 anyway. A constant image becomes black.
    """
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    if not math.isfinite(high - low):
        raise ValueError(f"Only finite numbers can be rescaled, got {low} to {high}.")
    scaled = (image - low) * (255.0 / ((high - low) or 1.0))
    return (scaled.clip(0.0, 255.0) + 0.5).astype(np.uint8)


def square_tile(
    polar: np.ndarray,
    size_px: int,
    *,
    heading_deg: float = 0.0,
    convention: str = "crossview",
) -> tuple[np.ndarray, np.ndarray]:
    """The square, north-up tile that a polar tile is of: the inverse, inside its rim.

    Args:
        polar: (height, width, channels).
        size_px: Side of the tile.
        heading_deg: Azimuth of the centre column.
        convention: "crossview" or "safa" (see polar_grid).

    Returns:
        image: (size_px, size_px, channels) in the dtype of polar, zero where nothing is known.
        valid: (size_px, size_px) bool, False in the corners, which no polar tile has.
    """
    if polar.ndim != 3:
        raise ValueError(f"A polar tile is (height, width, channels), got {polar.shape}.")
    height, width, _ = polar.shape
    shape = _Shape(height, width, size_px, heading_deg, convention)
    position = np.arange(size_px) + 0.5 - shape.center_px
    east, north = position, -position[:, None]
    col = shape.col(np.rad2deg(np.arctan2(east, north)))
    row = shape.row(np.hypot(east, north))
    valid = row >= 0
    # the last row is a ring around the centre, and within it nothing is nearer
    return rectify.sampled(polar, col, np.where(valid, row, 0.0), valid=valid, wraps=True), valid


def ground_plane_tile(
    image: np.ndarray,
    camera: Camera,
    size_px: int,
    cell_m: float,
    *,
    height_m: float,
    heading_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What a photo or panorama shows from above, if all of it were flat ground: a north-up tile.

    The camera is over the tile's middle. Whatever stands up is smeared away from it. Cells are
    looked up bilinearly, and near the horizon many are of one pixel.

    Args:
        image: (rows, cols) or (rows, cols, channels).
        camera: Of the image.
        size_px: Side of the tile.
        cell_m: Side of a cell.
        height_m: Of the camera above the ground.
        heading_deg: Where the camera looks.
        pitch_deg: How far it looks up.
        roll_deg: How far its right side is down.

    Returns:
        image: (size_px, size_px[, channels]) in its dtype, zero where nothing was seen.
        valid: (size_px, size_px) bool, False where the camera did not look.
    """
    _require_above_ground(height_m, cell_m)
    if image.shape[:2] != (camera.height_px, camera.width_px):
        raise ValueError(
            f"The image is {image.shape} and its camera has {camera.height_px} x "
            f"{camera.width_px} pixels (rows x columns). Scale the camera with the image."
        )
    east_m = (np.arange(size_px) + 0.5 - size_px / 2) * cell_m
    on_ground = np.stack(
        np.broadcast_arrays(east_m, -east_m[:, None], np.float64(-height_m)), axis=-1
    )
    # the rotation back is the transpose, and row vectors turn by another transpose
    col, row = camera.project(on_ground @ map_from_camera(heading_deg, pitch_deg, roll_deg))
    valid = camera.contains(col, row)
    wraps = isinstance(camera, Equirectangular)
    return rectify.sampled(image, col, row, valid=valid, wraps=wraps), valid


def ground_plane_view(
    tile: np.ndarray,
    cell_m: float,
    camera: Camera,
    *,
    height_m: float,
    heading_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What a camera over the middle of a tile would show if the ground were flat: the inverse.

    Args:
        tile: (size, size) or (size, size, channels), north-up.
        cell_m: Side of a cell.
        camera: Of the view: Equirectangular for a panorama.
        height_m: As in ground_plane_tile, like the rest.
        heading_deg: Where the camera looks.
        pitch_deg: How far it looks up.
        roll_deg: How far its right side is down.

    Returns:
        image: (rows, cols[, channels]) in the tile's dtype, zero where it shows no ground.
        valid: (rows, cols) bool, False above the horizon and beyond the tile.
    """
    _require_above_ground(height_m, cell_m)
    if tile.ndim not in (2, 3) or tile.shape[0] != tile.shape[1]:
        raise ValueError(f"A tile is square, (size, size[, channels]), got {tile.shape}.")
    rays = camera.rays(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px)[:, None] + 0.5)
    east, north, up = np.moveaxis(rays @ map_from_camera(heading_deg, pitch_deg, roll_deg).T, -1, 0)
    cells = height_m / cell_m / np.where(up < 0, -up, np.nan)
    col, row = len(tile) / 2 + east * cells, len(tile) / 2 - north * cells
    valid = (col >= 0) & (col <= len(tile)) & (row >= 0) & (row <= len(tile))
    return rectify.sampled(tile, col, row, valid=valid), valid


def _require_above_ground(height_m: float, cell_m: float) -> None:
    if not (0 < height_m < math.inf and 0 < cell_m < math.inf):
        raise ValueError(f"height_m and cell_m are positive metres, got {height_m} and {cell_m}.")


@dataclass(frozen=True)
class _Shape:
    """The two conventions: from positions of a polar tile, corner origin, to azimuth and radius."""

    height: int
    width: int
    size_px: int
    heading_deg: float
    convention: str

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise ValueError(f"convention is one of {CONVENTIONS}, got {self.convention!r}.")
        if not (self.height >= 1 and self.width >= 1 and 2 <= self.size_px <= MAX_SIZE_PX):
            raise ValueError(
                "A polar tile has at least one row and column and is of a square of 2 to "
                f"{MAX_SIZE_PX} px, got {self.height} x {self.width} of {self.size_px}."
            )
        if not math.isfinite(self.heading_deg):
            raise ValueError(f"heading_deg must be finite, got {self.heading_deg}.")

    @property
    def _lag_px(self) -> float:
        """What a published position, an index, is behind ours."""
        return 0.5 if self.convention == "safa" else 0.0

    @property
    def center_px(self) -> float:
        return self.size_px / 2 + self._lag_px

    def azimuth_deg(self, col: Any) -> Any:
        return self.heading_deg + ((col - self._lag_px) / self.width - 0.5) * 360.0

    def col(self, azimuth_deg: Any) -> Any:
        """Inverse of azimuth_deg, in [0, width)."""
        turn = (azimuth_deg - self.heading_deg) / 360.0 + 0.5
        return (turn * self.width + self._lag_px) % self.width

    def radius_px(self, row: Any) -> Any:
        return (1.0 - (row + self._lag_px) / self.height) * self.size_px / 2

    def row(self, radius_px: Any) -> Any:
        """Inverse of radius_px."""
        return (1.0 - radius_px / (self.size_px / 2)) * self.height - self._lag_px


@functools.lru_cache(maxsize=_NUM_TABLES)
def _table(
    height: int, width: int, size_px: int, heading_deg: float, convention: str
) -> PolarTable:
    col, row = polar_grid(height, width, size_px, heading_deg=heading_deg, convention=convention)
    # from positions to indices, whose pixels have their centres at whole numbers
    index = np.stack([col.ravel(), row.ravel()], axis=1) - 0.5
    first = np.floor(index).astype(np.int64).clip(0, size_px - 2)
    address = first[:, 1] * size_px + first[:, 0]
    right, down = (index - first).clip(0.0, 1.0).T
    weights = np.stack(
        [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down], axis=1
    )
    order = np.argsort(address, kind="stable")
    arrays = order.astype(np.uint32), address[order].astype(np.uint32), weights[order]
    for array in arrays:
        array.flags.writeable = False
    return PolarTable(height, width, size_px, *arrays)
