"""What an encoder looks at: a photo or panorama as columns of azimuth, a tile as square or polar.

Colours stay RGB in 0..255: networks normalise them themselves.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from crossview.angles import FULL_TURN_DEG
from crossview.cameras import Equirectangular, Pinhole, map_from_camera
from crossview.overlaps import along_rows, overlap_shares, touched
from crossview.polar import CONVENTIONS, RESCALES, polar_tile
from crossview.rectify import rectified

if TYPE_CHECKING:
    from crossview.photos import Panorama, Photo

UNSEEN_RGB = (124, 117, 104)
"""Colour of what the camera did not see: the mean of ImageNet, which networks take to about 0."""

HALF_TURN_DEG = 180.0
_UNSEEN = np.array(UNSEEN_RGB, np.uint8)
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Preprocessing:
    """From what was photographed to the pixels that the two branches of an encoder take.

    Args:
        ground_px: Rows and columns of the ground image.
        overhead_px: Rows and columns of the overhead image.
        elevation_deg: Lowest and highest elevation that the rows of the ground image span.
        fov_deg: Azimuth that its columns span. At 360 its middle looks north; below, it looks
            where the middle of the query looks.
        footprint_m: Side of the square overhead image on the ground; None where it may be any.
        polar: Convention of the polar transform of the overhead image (see polar.polar_grid);
            None leaves it square.
        rescale: "minmax" stretches every polar image to 0..255, as weights of SAFA that were
            published expect it (see polar.polar_tile); None does not.
    """

    ground_px: tuple[int, int]
    overhead_px: tuple[int, int]
    elevation_deg: tuple[float, float] = (-45.0, 45.0)
    fov_deg: float = FULL_TURN_DEG
    footprint_m: float | None = None
    polar: str | None = "crossview"
    rescale: str | None = None

    def __post_init__(self) -> None:
        for name in ("ground_px", "overhead_px"):
            size = tuple(int(side) for side in getattr(self, name))
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"{name} is (rows, cols), both above 0; got {size}.")
            object.__setattr__(self, name, size)
        lowest, highest = (float(side) for side in self.elevation_deg)
        object.__setattr__(self, "elevation_deg", (lowest, highest))
        if not -90 <= lowest < highest <= 90:
            raise ValueError(
                f"elevation_deg is the lowest and the highest one, within -90..90; got {lowest} "
                f"and {highest}."
            )
        if not 0 < self.fov_deg <= FULL_TURN_DEG:
            raise ValueError(f"fov_deg is above 0 and at most 360, got {self.fov_deg}.")
        if self.polar not in (None, *CONVENTIONS):
            raise ValueError(
                f"polar is None or one of {', '.join(CONVENTIONS)}, got {self.polar!r}."
            )
        if self.rescale not in RESCALES or (self.rescale and self.polar is None):
            raise ValueError(
                f"rescale is one of {RESCALES} and of polar images only, got {self.rescale!r} with "
                f"polar {self.polar!r}."
            )
        if self.footprint_m is not None and not 0 < self.footprint_m < math.inf:
            raise ValueError(f"footprint_m is above 0 or None, got {self.footprint_m}.")

    @property
    def is_full_turn(self) -> bool:
        """Whether the ground image looks all around."""
        return self.fov_deg == FULL_TURN_DEG

    @property
    def whole(self) -> Preprocessing:
        """The same with a ground image of a full turn, whose middle is the ground image."""
        rows, cols = self.ground_px
        return replace(
            self,
            ground_px=(rows, round(cols * FULL_TURN_DEG / self.fov_deg)),
            fov_deg=FULL_TURN_DEG,
        )

    def middle_of(self, whole: np.ndarray) -> np.ndarray:
        """The ground image, (rows, cols, 3), in the middle of one of `whole`."""
        left = (whole.shape[1] - self.ground_px[1]) // 2
        return whole[:, left : left + self.ground_px[1]]

    def ground(self, query: Panorama | Photo, *, heading_deg: float | None = None) -> np.ndarray:
        """The ground image of a panorama or photo; what was not seen is UNSEEN_RGB.

        A photo is levelled, and its columns become columns of azimuth.

        Args:
            query: What was photographed.
            heading_deg: Where the middle of the query looks, clockwise from the overhead images'
                upward direction; by default what the query says of itself (see
                stated_heading_deg), else 0. Of no consequence where fov_deg is below 360: the
                middle stays in the middle.

        Returns:
            (rows, cols, 3) uint8 RGB at ground_px.
        """
        if heading_deg is None:
            heading_deg = stated_heading_deg(query) or 0.0
        image = query.image
        if query.mask is not None:
            image = np.where(query.mask[..., None], image, _UNSEEN)
        if isinstance(query.camera, Pinhole):
            image = self._sphere(image, query)
        return self.ground_of_sphere(image, heading_deg=heading_deg)

    def ground_of_sphere(self, image: np.ndarray, *, heading_deg: float = 0.0) -> np.ndarray:
        """The ground image of a full sphere of any resolution in rows and columns.

        Args:
            image: (rows, cols, 3) uint8 RGB, equirectangular.
            heading_deg: Where its middle looks; see ground.
        """
        _check_rgb(image)
        rows, cols = image.shape[:2]
        lowest, highest = self.elevation_deg
        top, bottom = (0.5 - angle / HALF_TURN_DEG for angle in (highest, lowest))
        turn_deg = -heading_deg if self.is_full_turn else 0.0
        left, right = (
            0.5 + (turn_deg + side * self.fov_deg) / FULL_TURN_DEG for side in (-0.5, 0.5)
        )
        return _resampled(
            image,
            _axis_weights(top * rows, bottom * rows, rows, self.ground_px[0]),
            _axis_weights(left * cols, right * cols, cols, self.ground_px[1], wraps=True),
        )

    def overhead(self, image: np.ndarray) -> np.ndarray:
        """The overhead image of a square, north-up tile.

        Args:
            image: (side, side, 3) uint8 RGB of any side.

        Returns:
            (rows, cols, 3) uint8 RGB at overhead_px.
        """
        return overhead_image(image, *self.overhead_px, polar=self.polar, rescale=self.rescale)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        plain = json.loads(json.dumps(asdict(self)))
        if self.rescale is None:  # encoders that are older than it keep their fingerprints
            del plain["rescale"]
        return plain

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Preprocessing:
        """Inverse of to_json.

        Raises:
            ValueError: It is no such description.
        """
        try:
            return cls(**content)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{content!r} is no description of preprocessing: {error}") from error

    def _sphere(self, image: np.ndarray, photo: Photo) -> np.ndarray:
        """A full sphere whose middle is the photo's, twice as fine as the ground image."""
        lowest, highest = self.elevation_deg
        rows_per_deg = self.ground_px[0] / (highest - lowest)
        cols_per_deg = self.ground_px[1] / self.fov_deg
        sphere = Equirectangular(
            math.ceil(_SUPERSAMPLING * cols_per_deg * FULL_TURN_DEG),
            math.ceil(_SUPERSAMPLING * rows_per_deg * HALF_TURN_DEG),
        )
        finest_per_deg = _SUPERSAMPLING * max(rows_per_deg, cols_per_deg)
        focal_px = min(photo.camera.fx, photo.camera.fy)
        shrunk, camera = _block_means(
            image, photo.camera, int(focal_px / math.degrees(1.0) / finest_per_deg)
        )
        target_from_source = map_from_camera(0.0).T @ map_from_camera(
            0.0, photo.pitch_deg, photo.roll_deg
        )
        seen, valid = rectified(shrunk, camera, sphere, target_from_source)
        return np.where(valid[..., None], seen, _UNSEEN)


def stated_heading_deg(query: Panorama | Photo) -> float | None:
    """Where the middle of a query looks, from true north; None where it does not say.

    A panorama's own heading, or that of a fix which counts from true north.
    """
    # queries of other people's encoders may be anything
    stated, fix = getattr(query, "heading_deg", None), getattr(query, "fix", None)
    if stated is None and fix is not None and fix.heading_reference == "true":
        stated = fix.heading_deg
    return stated


def overhead_image(
    image: np.ndarray,
    rows: int,
    cols: int,
    *,
    polar: str | None = "crossview",
    heading_deg: float = 0.0,
    rescale: str | None = None,
) -> np.ndarray:
    """A square, north-up tile as networks take it: what Preprocessing.overhead does.

    Args:
        image: (side, side, 3) uint8 RGB of any side.
        rows: Of the answer.
        cols: Of the answer.
        polar: Convention of the polar transform; None resizes.
        heading_deg: Azimuth of the centre column of a polar tile.
        rescale: See polar.polar_tile.

    Returns:
        (rows, cols, 3) uint8 RGB.
    """
    _check_rgb(image)
    size_px = image.shape[0]
    if image.shape[1] != size_px:
        raise ValueError(
            f"A tile is square and north-up; got {image.shape[0]} x {image.shape[1]} pixels. "
            "Cut a square around its middle."
        )
    if polar is None:
        return _resized(image, rows, cols)
    if polar == "crossview" and size_px > 2 * rows:
        # a polar tile looks at points, here as far apart as pixels; published ones skip pixels
        image = _resized(image, 2 * rows, 2 * rows)
    return polar_tile(image, rows, cols, heading_deg=heading_deg, convention=polar, rescale=rescale)


def _check_rgb(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"An image is (rows, cols, 3) uint8 RGB, got shape {image.shape} and {image.dtype}."
        )


def _block_means(image: np.ndarray, camera: Pinhole, block: int) -> tuple[np.ndarray, Pinhole]:
    """An image shrunk by a whole number, and its camera; what fills no block is cut off."""
    if block < 2:
        return image, camera
    rows, cols = (side // block for side in image.shape[:2])
    cut = image[: rows * block, : cols * block]
    means = cut.reshape(rows, block, cols, block, 3).mean(axis=(1, 3), dtype=np.float32)
    cut_camera = replace(camera, width_px=cols * block, height_px=rows * block)
    return np.rint(means).astype(np.uint8), cut_camera.scaled(1 / block)


def _resized(image: np.ndarray, rows: int, cols: int) -> np.ndarray:
    height, width = image.shape[:2]
    return _resampled(
        image, _axis_weights(0.0, height, height, rows), _axis_weights(0.0, width, width, cols)
    )


def _resampled(image: np.ndarray, rows: sparse.csr_array, cols: sparse.csr_array) -> np.ndarray:
    """An image mixed along both axes by weights (out, in), uint8."""
    used = touched(rows)
    tall = along_rows(rows[:, used], image[used].astype(np.float32))
    wide = along_rows(cols, np.ascontiguousarray(tall.swapaxes(0, 1)))
    return np.rint(wide.swapaxes(0, 1)).astype(np.uint8)


@functools.lru_cache(maxsize=256)
def _axis_weights(
    start: float, stop: float, num_in: int, num_out: int, *, wraps: bool = False
) -> sparse.csr_array:
    """(out, in) weights of equal cells between two positions; rows sum to one.

    Cells larger than a pixel average what they cover, smaller ones interpolate linearly.
    """
    scale = (stop - start) / num_out
    num_turns = 3 if wraps else 1
    if wraps:  # into the middle one of three turns
        start = start % num_in + num_in
    if scale >= 1:
        weights = overlap_shares(-start / scale, 1 / scale, num_turns * num_in, num_out) / scale
    else:
        weights = _linear_weights(start, scale, num_turns * num_in, num_out)
    entries = weights.astype(np.float32).tocoo()
    row, col = entries.coords
    return sparse.csr_array((entries.data, (row, col % num_in)), shape=(num_out, num_in))


def _linear_weights(start: float, scale: float, num_in: int, num_out: int) -> sparse.csr_array:
    position = np.clip(start + scale * (np.arange(num_out) + 0.5) - 0.5, 0, num_in - 1)
    lower = np.minimum(position.astype(int), max(num_in - 2, 0))
    share = position - lower
    index = np.stack([lower, np.minimum(lower + 1, num_in - 1)])
    out = np.broadcast_to(np.arange(num_out), index.shape)
    values = np.stack([1 - share, share])
    return sparse.csr_array((values.ravel(), (out.ravel(), index.ravel())), shape=(num_out, num_in))
