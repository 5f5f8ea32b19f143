"""How badly a single photo's camera is known, and photos as other cameras would have taken them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from crossview.cameras import Pinhole
from crossview.columns import SegmentedImage
from crossview.photos import Panorama, Photo, Rig

_FOCAL_LIMITS = (0.5, 2.0)
"""A focal length is at most this far off, as a factor."""

_LOWEST_HEIGHT_M = 0.3
_FEWEST = 3
_NUM_PAIRINGS = 300
"""Ways to combine the errors that are tried for the least correlated."""


@dataclass(frozen=True)
class CameraNoise:
    """Standard deviations of what is stated about a camera; all 0 where it is calibrated.

    Args:
        pitch_sigma_deg: Of the pitch.
        roll_sigma_deg: Of the roll.
        height_sigma_m: Of the height above the ground.
        focal_sigma: Of the focal length, as a share of it.
        num_variants: Cameras that stand for all of these, the stated one among them.
    """

    pitch_sigma_deg: float = 0.0
    roll_sigma_deg: float = 0.0
    height_sigma_m: float = 0.0
    focal_sigma: float = 0.0
    num_variants: int = 16

    def __post_init__(self) -> None:
        sigmas = self._sigmas()
        if not all(0 <= sigma < math.inf for sigma in sigmas) or self.num_variants < _FEWEST:
            raise ValueError(
                f"Standard deviations must be 0 or more and num_variants at least {_FEWEST}, which "
                f"is the stated camera and one on either side; got {self}."
            )

    @property
    def is_none(self) -> bool:
        """Whether the camera is known exactly."""
        return not any(self._sigmas())

    def variants(self, images: Sequence[SegmentedImage]) -> list[tuple[SegmentedImage, ...]]:
        """The same pixels as taken by every camera that it may have been, equally probable.

        Only a single photo varies: rigs of several are calibrated, and panoramas are level. The
        draws are stratified, and the same for every photo.
        """
        photo = images[0].image
        if len(images) > 1 or isinstance(photo, Panorama) or self.is_none:
            return [tuple(images)]
        return [(replace(images[0], image=_varied(photo, *draw)),) for draw in self._draws()]

    def misstated(self, photo: Photo, rng: np.random.Generator) -> Photo:
        """A photo that states another camera than it was taken with, off by a drawn error."""
        return _varied(photo, *(float(rng.normal(0.0, sigma)) for sigma in self._sigmas()))

    def num_views(self, query: Photo | Panorama | Rig) -> int:
        """How many variants a query has."""
        single = isinstance(query, Photo) or (isinstance(query, Rig) and len(query.photos) == 1)
        return self.num_variants if single and not self.is_none else 1

    def _sigmas(self) -> tuple[float, float, float, float]:
        return (
            self.pitch_sigma_deg, self.roll_sigma_deg, self.height_sigma_m, self.focal_sigma,
        )  # fmt: skip

    def _draws(self) -> list[tuple[float, float, float, float]]:
        """Errors of pitch, roll, height and focal length; the first are all 0."""
        varied = [i for i, sigma in enumerate(self._sigmas()) if sigma > 0]
        draws = np.zeros((self.num_variants, len(self._sigmas())))
        if self.num_variants > 1:
            normal = _stratified_normal(self.num_variants - 1, len(varied))
            # as many as there are, the stated camera among them, have the stated spread
            spread = np.sqrt((normal**2).sum(axis=0) / self.num_variants)
            draws[1:, varied] = normal / spread * np.array(self._sigmas())[varied]
        return [tuple(map(float, draw)) for draw in draws]  # type: ignore[misc]


def _varied(
    photo: Photo, pitch_deg: float, roll_deg: float, height_m: float, focal: float
) -> Photo:
    factor = float(np.clip(1.0 + focal, *_FOCAL_LIMITS))
    camera = photo.camera
    return replace(
        photo,
        camera=Pinhole(
            camera.width_px,
            camera.height_px,
            fx=camera.fx * factor,
            fy=camera.fy * factor,
            cx=camera.cx,
            cy=camera.cy,
            distortion=camera.distortion,
        ),
        pitch_deg=float(np.clip(photo.pitch_deg + pitch_deg, -90.0, 90.0)),
        roll_deg=photo.roll_deg + roll_deg,
        height_m=max(_LOWEST_HEIGHT_M, photo.height_m + height_m),
    )


def _stratified_normal(count: int, num_axes: int) -> np.ndarray:
    """Normal draws, (count, axes): every axis has one in each of `count` equal strata.

    Of many ways to pair the strata of the axes the least correlated is taken (a Latin hypercube).
    """
    quantiles = special.ndtri((np.arange(count) + 0.5) / count)
    rng = np.random.default_rng(0)
    best, lowest = np.tile(quantiles[:, None], num_axes), np.inf
    for _ in range(_NUM_PAIRINGS if num_axes > 1 and count > 2 else 1):
        paired = np.stack([rng.permutation(quantiles) for _ in range(num_axes)], axis=1)
        worst = np.abs(paired.T @ paired - np.diag((paired**2).sum(axis=0))).max()
        if worst < lowest:
            best, lowest = paired, worst
    return best
