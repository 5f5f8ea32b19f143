"""Cameras: pixel positions to rays and back, and how a camera stands in the world.

Camera axes: x right, y down, z forward. Pixel positions (col, row) have a corner origin, so the
centre of the first pixel is (0.5, 0.5) and the middle of the image (width / 2, height / 2).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crossview import angles

_INVERSION_STEPS = 60
_TABLE_SIZE = 257
_RADIUS_UNIT_PX = 1000.0
_NO_DIFFERENCE = 1e-12
_INVERSION_TOLERANCE_PX = 1e-9


@dataclass(frozen=True)
class RadialDistortion:
    """A radial polynomial in pixels, from undistorted to distorted positions.

    p_distorted = c + (p - c) (1 + k1 r^2 + k2 r^4 + ...), r the distance of p from c in pixels.
    The centre is free (OpenCV's k1, k2, k3 are the case of c at the principal point, each divided
    by the focal length to the power 2, 4, 6).

    Args:
        center_col: Column position of c.
        center_row: Row position of c.
        coefficients: k1, k2, ... in px^-2, px^-4, ...
    """

    center_col: float
    center_row: float
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", tuple(float(k) for k in self.coefficients))
        values = (self.center_col, self.center_row, *self.coefficients)
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{self} has a value that is not finite.")

    def distorted(self, col: npt.ArrayLike, row: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Where the lens puts a position of the ideal pinhole."""
        d_col = np.asarray(col, dtype=float) - self.center_col
        d_row = np.asarray(row, dtype=float) - self.center_row
        factor = self._factor(np.hypot(d_col, d_row))
        return self.center_col + d_col * factor, self.center_row + d_row * factor

    def undistorted(self, col: npt.ArrayLike, row: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of distorted; NaN beyond the radius where the polynomial turns back."""
        d_col = np.asarray(col, dtype=float) - self.center_col
        d_row = np.asarray(row, dtype=float) - self.center_row
        radius = np.hypot(d_col, d_row)
        ideal = self._ideal_radius(radius)
        factor = np.divide(ideal, radius, out=np.ones_like(radius), where=radius > 0)
        return self.center_col + d_col * factor, self.center_row + d_row * factor

    def scaled(self, factor: float) -> RadialDistortion:
        """The same lens in an image resized by a factor."""
        return RadialDistortion(
            self.center_col * factor,
            self.center_row * factor,
            tuple(k / factor ** (2 * i + 2) for i, k in enumerate(self.coefficients)),
        )

    @functools.cached_property
    def max_ideal_radius_px(self) -> float:
        """Ideal radius where the polynomial stops growing and would fold the image; inf if never.

        The smallest root of the slope 1 + 3 k1 r^2 + 5 k2 r^4 + ...
        """
        # in (r / 1000 px)^2, where terms that make no difference to any image can be told
        slope = [1.0]
        for i, k in enumerate(self.coefficients):
            slope.append((2 * i + 3) * k * _RADIUS_UNIT_PX ** (2 * i + 2))
        polynomial = np.polynomial.Polynomial(slope).trim(_NO_DIFFERENCE)
        roots = polynomial.roots()
        real = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots.real)) & (roots.real > 0)]
        return _RADIUS_UNIT_PX * math.sqrt(real.min()) if real.size else math.inf

    def _factor(self, radius: np.ndarray) -> np.ndarray:
        return 1.0 + sum(
            (k * radius ** (2 * i + 2) for i, k in enumerate(self.coefficients)),
            start=np.zeros_like(radius),
        )

    def _slope(self, radius: np.ndarray) -> np.ndarray:
        return 1.0 + sum(
            ((2 * i + 3) * k * radius ** (2 * i + 2) for i, k in enumerate(self.coefficients)),
            start=np.zeros_like(radius),
        )

    def _ideal_radius(self, radius: np.ndarray) -> np.ndarray:
        """Inverse of the polynomial where it grows; NaN for radii that it never reaches.

        Newton's method from a table, inside of a bracket: where the slope is small a step may
        leave it, and then the bracket is halved.
        """
        limit = self.max_ideal_radius_px
        if math.isfinite(limit):
            reachable = radius <= limit * float(self._factor(np.array(limit)))
        else:
            reachable = np.isfinite(radius)
            # a polynomial that never turns back is at least as far out as in, or grows to be
            limit = self._radius_beyond(float(np.max(radius, where=reachable, initial=1.0)))
        target = np.where(reachable, radius, 0.0)
        table = np.linspace(0.0, limit, _TABLE_SIZE)
        ideal = np.interp(target, table * self._factor(table), table)
        low, high = np.zeros_like(ideal), np.full_like(ideal, limit)
        for _ in range(_INVERSION_STEPS):
            excess = ideal * self._factor(ideal) - target
            low = np.where(excess < 0, ideal, low)
            high = np.where(excess > 0, ideal, high)
            with np.errstate(divide="ignore", invalid="ignore"):
                stepped = ideal - excess / self._slope(ideal)
            inside = (stepped >= low) & (stepped <= high)
            following = np.where(inside, stepped, (low + high) / 2)
            following = np.where(excess == 0, ideal, following)
            if np.all(np.abs(following - ideal) < _INVERSION_TOLERANCE_PX):
                ideal = following
                break
            ideal = following
        return np.where(reachable, ideal, np.nan)

    def _radius_beyond(self, distorted: float) -> float:
        """An ideal radius whose distorted one is larger, for a polynomial that always grows."""
        ideal = distorted
        while ideal * float(self._factor(np.array(ideal))) < distorted:
            ideal *= 2
        return ideal


@dataclass(frozen=True)
class Pinhole:
    """A perspective camera, with an optional radial lens distortion.

    Args:
        width_px: Columns of the image.
        height_px: Rows of the image.
        fx: Focal length along columns, pixels.
        fy: Focal length along rows, pixels.
        cx: Column position of the principal point.
        cy: Row position of the principal point.
        distortion: The lens, or None for an ideal one.
    """

    width_px: int
    height_px: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: RadialDistortion | None = None

    def __post_init__(self) -> None:
        _check_size(self.width_px, self.height_px)
        if not (0 < self.fx < math.inf and 0 < self.fy < math.inf):
            raise ValueError(f"Focal lengths must be positive pixels, got {self.fx}, {self.fy}.")
        if not (math.isfinite(self.cx) and math.isfinite(self.cy)):
            raise ValueError(f"The principal point must be finite, got {self.cx}, {self.cy}.")

    @classmethod
    def from_focal(cls, width_px: int, height_px: int, focal_px: float) -> Pinhole:
        """Square pixels and the principal point in the middle of the image."""
        return cls(width_px, height_px, focal_px, focal_px, width_px / 2, height_px / 2)

    @property
    def horizontal_fov_deg(self) -> float:
        """Angle between the rays at the left and right ends of the middle row."""
        left, right = self.rays([0.0, self.width_px], [self.cy, self.cy])
        return float(np.rad2deg(np.arccos(np.clip(left @ right, -1.0, 1.0))))

    def rays(self, col: npt.ArrayLike, row: npt.ArrayLike) -> np.ndarray:
        """Unit vectors (..., 3), camera axes; NaN where the lens model has no inverse."""
        col, row = np.broadcast_arrays(np.asarray(col, float), np.asarray(row, float))
        if self.distortion is not None:
            col, row = self.distortion.undistorted(col, row)
        direction = np.stack(
            [(col - self.cx) / self.fx, (row - self.cy) / self.fy, np.ones(np.shape(col))], axis=-1
        )
        return direction / np.linalg.norm(direction, axis=-1, keepdims=True)

    def project(self, directions: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of rays for directions of any length, (..., 3) -> (col, row).

        Positions may lie outside of the image (see contains). NaN behind the camera, and where
        the lens polynomial has turned back and would fold far rays into the image.
        """
        directions = np.asarray(directions, dtype=float)
        depth = np.where(directions[..., 2] > 0, directions[..., 2], np.nan)
        col = self.cx + self.fx * directions[..., 0] / depth
        row = self.cy + self.fy * directions[..., 1] / depth
        if self.distortion is None:
            return col, row
        lens = self.distortion
        ideal = np.hypot(col - lens.center_col, row - lens.center_row)
        folded = ideal > lens.max_ideal_radius_px
        col, row = lens.distorted(col, row)
        return np.where(folded, np.nan, col), np.where(folded, np.nan, row)

    def contains(self, col: npt.ArrayLike, row: npt.ArrayLike) -> np.ndarray:
        """Whether positions lie in the image."""
        col, row = np.asarray(col, float), np.asarray(row, float)
        return (col >= 0) & (col < self.width_px) & (row >= 0) & (row < self.height_px)

    def scaled(self, factor: float) -> Pinhole:
        """The camera of the image resized by a factor; the size is rounded to whole pixels."""
        return Pinhole(
            width_px=round(self.width_px * factor),
            height_px=round(self.height_px * factor),
            fx=self.fx * factor,
            fy=self.fy * factor,
            cx=self.cx * factor,
            cy=self.cy * factor,
            distortion=None if self.distortion is None else self.distortion.scaled(factor),
        )

    def undistorted(self) -> Pinhole:
        """The same camera with an ideal lens."""
        return replace(self, distortion=None)


@dataclass(frozen=True)
class Equirectangular:
    """A full sphere: azimuth grows to the right, straight ahead is column position width / 2.

    Args:
        width_px: Columns, 360 degrees.
        height_px: Rows, from straight up (top edge) to straight down (bottom edge).
    """

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        _check_size(self.width_px, self.height_px)

    def rays(self, col: npt.ArrayLike, row: npt.ArrayLike) -> np.ndarray:
        """Unit vectors (..., 3), camera axes."""
        azimuth = (np.asarray(col, float) / self.width_px - 0.5) * 2 * np.pi
        elevation = (0.5 - np.asarray(row, float) / self.height_px) * np.pi
        flat = np.cos(elevation)
        return np.stack(
            np.broadcast_arrays(np.sin(azimuth) * flat, -np.sin(elevation), np.cos(azimuth) * flat),
            axis=-1,
        )

    def project(self, directions: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of rays for directions of any length; columns in [0, width)."""
        x, y, z = np.moveaxis(np.asarray(directions, dtype=float), -1, 0)
        azimuth = np.arctan2(x, z)
        elevation = np.arctan2(-y, np.hypot(x, z))
        col = (azimuth / (2 * np.pi) + 0.5) * self.width_px
        return np.where(col >= self.width_px, 0.0, col), (0.5 - elevation / np.pi) * self.height_px

    def contains(self, col: npt.ArrayLike, row: npt.ArrayLike) -> np.ndarray:
        """Whether positions lie in the image."""
        col, row = np.asarray(col, float), np.asarray(row, float)
        return (col >= 0) & (col < self.width_px) & (row >= 0) & (row <= self.height_px)

    def scaled(self, factor: float) -> Equirectangular:
        """The camera of the image resized by a factor."""
        return Equirectangular(round(self.width_px * factor), round(self.height_px * factor))


Camera = Pinhole | Equirectangular


class Orientation(NamedTuple):
    """How a camera looks: heading clockwise, pitch up, roll right side down, degrees."""

    heading_deg: float
    pitch_deg: float
    roll_deg: float


def map_from_camera(
    heading_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0
) -> np.ndarray:
    """Rotation from camera axes (right, down, forward) to the map's (east, north, up), (3, 3).

    The camera first turns to its heading, then pitches up, then rolls right side down, each
    about its own axes. Columns are the camera's x, y and z axes on the map.
    """
    heading, pitch, roll = np.deg2rad([heading_deg, pitch_deg, roll_deg])
    level_right = np.array([np.cos(heading), -np.sin(heading), 0.0])
    level_ahead = np.array([np.sin(heading), np.cos(heading), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    ahead = np.cos(pitch) * level_ahead + np.sin(pitch) * up
    down = np.sin(pitch) * level_ahead - np.cos(pitch) * up
    right = np.cos(roll) * level_right + np.sin(roll) * down
    below = np.cos(roll) * down - np.sin(roll) * level_right
    return np.stack([right, below, ahead], axis=1)


def orientation_from_rotation(rotation: npt.ArrayLike) -> Orientation:
    """Inverse of map_from_camera; roll in (-180, 180], and 0 for a camera that looks straight up.

    Args:
        rotation: (3, 3), columns are the camera's axes in (east, north, up).
    """
    rotation = np.asarray(rotation, dtype=float)
    if rotation.shape != (3, 3) or not np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-4):
        raise ValueError(f"Expected a (3, 3) rotation matrix, got {rotation!r}.")
    if np.linalg.det(rotation) < 0:
        raise ValueError(
            f"{rotation!r} is a mirror image. Columns are x right, y down, z forward: an axis that "
            "points up or backward has to be negated."
        )
    right, _, ahead = rotation.T
    level = math.hypot(ahead[0], ahead[1])
    pitch_deg = math.degrees(math.atan2(ahead[2], level))
    if level < 1e-9:
        # heading and roll turn about one axis here: call it all heading
        return Orientation(float(angles.heading_of(-right[1], right[0])), pitch_deg, 0.0)
    heading_deg = float(angles.heading_of(ahead[0], ahead[1]))
    unrolled = map_from_camera(heading_deg, pitch_deg)
    roll_deg = math.degrees(math.atan2(right @ unrolled[:, 1], right @ unrolled[:, 0]))
    return Orientation(heading_deg, pitch_deg, roll_deg)


def _check_size(width_px: int, height_px: int) -> None:
    if width_px < 1 or height_px < 1:
        raise ValueError(f"An image has at least one pixel, got {width_px} x {height_px}.")
