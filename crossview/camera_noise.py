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
_PRIMES = (2, 3, 5, 7)


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
        if not all(0 <= sigma < math.inf for sigma in sigmas) or self.num_variants < 1:
            raise ValueError(
                f"Standard deviations must be 0 or more and num_variants at least 1, got {self}."
            )

    def variants(
        self, images: Sequence[SegmentedImage]
    ) -> list[tuple[SegmentedImage, ...]]:
        """The same pixels as taken by every camera that it may have been, equally probable.

        Only the photo of a single camera varies: rigs are calibrated, and panoramas are level.
        The draws are the quantiles of a Halton sequence, the same for every photo.
        """
        photo = images[0].image
        if len(images) > 1 or isinstance(photo, Panorama) or not any(self._sigmas()):
            return [tuple(images)]
        return [(replace(images[0], image=_varied(photo, *draw)),) for draw in self._draws()]

    def num_views(self, query: Photo | Panorama | Rig) -> int:
        """How many variants a query has."""
        single = isinstance(query, Photo) or (isinstance(query, Rig) and len(query.photos) == 1)
        return self.num_variants if single and any(self._sigmas()) else 1

    def _sigmas(self) -> tuple[float, float, float, float]:
        return (
            self.pitch_sigma_deg, self.roll_sigma_deg, self.height_sigma_m, self.focal_sigma,
        )  # fmt: skip

    def _draws(self) -> list[tuple[float, float, float, float]]:
        """Errors of pitch, roll, height and focal length; the first are all 0."""
        varied = [i for i, sigma in enumerate(self._sigmas()) if sigma > 0]
        draws = np.zeros((self.num_variants, len(_PRIMES)))
        for prime, i in zip(_PRIMES, varied, strict=False):
            quantile = [_halton(k, prime) for k in range(1, self.num_variants)]
            draws[1:, i] = self._sigmas()[i] * special.ndtri(quantile)
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


def _halton(k: int, base: int) -> float:
    """The k-th member of the van der Corput sequence in (0, 1), k from 1."""
    value, share = 0.0, 1.0
    while k:
        share /= base
        value += share * (k % base)
        k //= base
    return value
