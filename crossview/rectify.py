"""Rectifying: an image as another camera at the same place would have taken it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossview import angles
from crossview.cameras import Camera, Equirectangular, Pinhole, RadialDistortion, map_from_camera

ROTATION_TOLERANCE = 1e-4
_BLOCK_PX = 1 << 18
_QUARTER_TURN_DEG = 90.0


def rectified(
    image: np.ndarray,
    camera: Camera,
    target_camera: Camera,
    target_from_source: npt.ArrayLike,
) -> tuple[np.ndarray, np.ndarray]:
    """The image that target_camera would have taken from the same place.

    Every pixel of the target is a ray, turned into the source's axes and looked up there:
    bilinear between pixel centres, nearest within half a pixel of the image's edges, and around
    the seam of a panorama. Only a rotation is possible: distances are not known. Shrinking is not
    smoothed, so make the image small before, not by the target camera.

    Args:
        image: (rows, cols) or (rows, cols, channels), any real numbers or bool.
        camera: The camera of the image.
        target_camera: The camera wanted.
        target_from_source: (3, 3), rotation of the source's axes (right, down, forward) to the
            target's.

    Returns:
        image: Of the target camera, in the dtype of the source (integers are rounded; bool is
            True where every pixel around is); zero where nothing was seen.
        valid: (rows, cols) bool, False where the source camera did not look.
    """
    _check_image(image, camera)
    rotation = np.asarray(target_from_source, dtype=float)
    if rotation.shape != (3, 3) or not np.allclose(
        rotation @ rotation.T, np.eye(3), atol=ROTATION_TOLERANCE
    ):
        raise ValueError(
            f"target_from_source must be a (3, 3) rotation between camera axes, got {rotation!r}."
        )
    height, width = target_camera.height_px, target_camera.width_px
    out = np.zeros((height, width, *image.shape[2:]), dtype=image.dtype)
    valid = np.zeros((height, width), dtype=bool)
    planes = _padded_planes(image, wraps=isinstance(camera, Equirectangular))
    block_rows = max(1, _BLOCK_PX // width)
    for first in range(0, height, block_rows):
        rows = np.arange(first, min(first + block_rows, height))
        rays = target_camera.rays(np.arange(width) + 0.5, rows[:, None] + 0.5)
        # (target_from_source)^-1 is the transpose, and row vectors turn by another transpose
        col, row = camera.project(rays @ rotation)
        seen = camera.contains(col, row)
        sampled = _bilinear(planes, np.where(seen, col, 0.0), np.where(seen, row, 0.0))
        sampled[~seen] = 0
        out[rows] = _as_dtype(sampled, image.dtype).reshape(len(rows), width, *image.shape[2:])
        valid[rows] = seen
    return out, valid


def sampled(
    image: np.ndarray, col: np.ndarray, row: np.ndarray, *, valid: np.ndarray, wraps: bool = False
) -> np.ndarray:
    """An image at positions inside of it, bilinear as in rectified.

    Args:
        image: (rows, cols) or (rows, cols, channels), any real numbers or bool.
        col: Column positions, corner origin, any shape.
        row: Row positions, of the same shape.
        valid: Which to look up, of the same shape; the others become zero.
        wraps: Whether the last column is beside the first one.

    Returns:
        The shape of the positions, and channels; the dtype of the image (see rectified).
    """
    planes = _padded_planes(image, wraps=wraps)
    values = _bilinear(planes, np.where(valid, col, 0.0), np.where(valid, row, 0.0))
    values[~valid] = 0
    return _as_dtype(values, image.dtype).reshape(*np.shape(valid), *image.shape[2:])


def levelled(
    image: np.ndarray,
    camera: Camera,
    *,
    pitch_deg: float,
    roll_deg: float,
    target_camera: Camera | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The image of a camera with the same heading that is level and has an ideal lens.

    Args:
        image: (rows, cols) or (rows, cols, channels).
        camera: The camera of the image.
        pitch_deg: How far the camera looks up.
        roll_deg: How far its right side is down; any angle, near 180 for an upside-down image.
        target_camera: The level camera; by default the camera itself without its lens, turned
            upright (see turned_camera).

    Returns:
        image, valid: As from rectified.
    """
    if target_camera is None:
        target_camera = camera
        if isinstance(camera, Pinhole):
            target_camera = turned_camera(camera, quarter_turns(roll_deg)).undistorted()
    target_from_source = map_from_camera(0.0).T @ map_from_camera(0.0, pitch_deg, roll_deg)
    return rectified(image, camera, target_camera, target_from_source)


def perspective(
    panorama: np.ndarray,
    target_camera: Camera,
    *,
    turn_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The photo that a camera in the middle of a level panorama would have taken.

    Args:
        panorama: Equirectangular, (rows, cols) or (rows, cols, channels), a full sphere.
        target_camera: The camera wanted.
        turn_deg: Where it looks, clockwise from the panorama's straight ahead (the column
            position width / 2). Its heading is the panorama's heading plus this turn.
        pitch_deg: How far it looks up.
        roll_deg: How far its right side is down.

    Returns:
        image, valid: As from rectified; valid is True everywhere.
    """
    camera = Equirectangular(width_px=panorama.shape[1], height_px=panorama.shape[0])
    source_from_target = map_from_camera(0.0).T @ map_from_camera(turn_deg, pitch_deg, roll_deg)
    return rectified(panorama, camera, target_camera, source_from_target.T)


def quarter_turns(roll_deg: float) -> int:
    """How many clockwise quarter turns bring an image with this roll closest to upright, 0..3.

    A camera with its right side down (roll 90) needs its image turned clockwise once.
    """
    return int(np.floor(angles.normalize_deg(roll_deg) / _QUARTER_TURN_DEG + 0.5)) % 4


def turned_image(image: np.ndarray, num_quarters: int) -> np.ndarray:
    """The image turned clockwise by quarter turns: no pixel changes its value."""
    return np.rot90(image, k=-num_quarters, axes=(0, 1))


def turned_camera(camera: Pinhole, num_quarters: int) -> Pinhole:
    """The camera of turned_image, lens included; its roll is num_quarters * 90 deg less."""
    for _ in range(num_quarters % 4):
        camera = _turned_once(camera)
    return camera


def _turned_once(camera: Pinhole) -> Pinhole:
    """A position (col, row) of the image moves to (height - row, col)."""
    lens = camera.distortion
    return Pinhole(
        width_px=camera.height_px,
        height_px=camera.width_px,
        fx=camera.fy,
        fy=camera.fx,
        cx=camera.height_px - camera.cy,
        cy=camera.cx,
        distortion=None
        if lens is None
        else RadialDistortion(
            camera.height_px - lens.center_row, lens.center_col, lens.coefficients
        ),
    )


def _check_image(image: np.ndarray, camera: Camera) -> None:
    if image.ndim not in (2, 3) or image.shape[:2] != (camera.height_px, camera.width_px):
        raise ValueError(
            f"The image is {image.shape}; its camera expects (rows, cols[, channels]) of "
            f"{camera.height_px} x {camera.width_px}. Scale the camera with the image."
        )


def _padded_planes(image: np.ndarray, *, wraps: bool) -> np.ndarray:
    """Pixels (rows + 2, cols + 2, channels) with a border: the edge again, or around the seam."""
    planes = image.reshape(*image.shape[:2], -1)
    planes = np.pad(planes, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return np.pad(planes, ((0, 0), (1, 1), (0, 0)), mode="wrap" if wraps else "edge")


def _bilinear(planes: np.ndarray, col: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Values (..., channels) of padded planes at corner-origin positions of the image."""
    # the border adds one pixel, and the first centre is at 0.5
    col, row = col + 0.5, row + 0.5
    left = np.clip(np.floor(col).astype(np.intp), 0, planes.shape[1] - 2)
    upper = np.clip(np.floor(row).astype(np.intp), 0, planes.shape[0] - 2)
    right_share = (col - left)[..., None].astype(np.float32)
    lower_share = (row - upper)[..., None].astype(np.float32)
    top = planes[upper, left] * (1 - right_share) + planes[upper, left + 1] * right_share
    bottom = planes[upper + 1, left] * (1 - right_share) + planes[upper + 1, left + 1] * right_share
    return top * (1 - lower_share) + bottom * lower_share


def _as_dtype(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if np.issubdtype(dtype, np.bool_):
        return values >= 1.0 - 1e-4
    if np.issubdtype(dtype, np.integer):
        return np.rint(values).astype(dtype)
    return values.astype(dtype)
