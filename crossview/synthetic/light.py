"""Light of a moment: colours of the sun, the sky, clouds and fog, and how a camera exposes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crossview.synthetic.appearance import Appearance

SHADOWS_FROM_DEG = 3.0
"""A lower sun casts no shadows: they would be endless."""

# Linear red, green and blue by the sun's elevation, roughly as photographed; daylight is about 1.
# Civil twilight ends at -6 degrees, nautical at -12, astronomical at -18. By night the sky is dark
# and what light there is on the ground comes from the town.
_ELEVATIONS_DEG = (-18.0, -12.0, -9.0, -6.0, 0.0, 10.0, 30.0, 60.0)
_ZENITH = (
    (0.00012, 0.00015, 0.0003), (0.0004, 0.0006, 0.0017), (0.0023, 0.0040, 0.012),
    (0.016, 0.030, 0.085), (0.11, 0.19, 0.42),
    (0.15, 0.29, 0.65), (0.15, 0.33, 0.78), (0.13, 0.31, 0.78),
)  # fmt: skip
_HORIZON = (
    (0.0005, 0.0005, 0.0006), (0.0020, 0.0019, 0.0031), (0.017, 0.0135, 0.017),
    (0.12, 0.085, 0.085), (0.80, 0.52, 0.34),
    (0.76, 0.70, 0.62), (0.66, 0.76, 0.92), (0.62, 0.76, 0.97),
)  # fmt: skip
_SUN = (
    (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0), (0.40, 0.17, 0.06),
    (1.15, 0.80, 0.50), (1.60, 1.42, 1.18), (1.80, 1.68, 1.52),
)  # fmt: skip
_AMBIENT = (
    (0.008, 0.0085, 0.011), (0.017, 0.019, 0.026), (0.036, 0.040, 0.062),
    (0.080, 0.090, 0.14), (0.22, 0.22, 0.28),
    (0.30, 0.34, 0.43), (0.34, 0.41, 0.54), (0.36, 0.43, 0.56),
)  # fmt: skip
_SKY_SHARE = (0.06, 0.12, 0.3, 0.6, 1.0, 1.0, 1.0, 1.0)
"""How bright clouds and fog are beside what falls on the ground, of which the town's lamps send
little up."""

_GREY = np.array([0.95, 0.98, 1.02])
_MIDDLE = 0.82
"""What the automatic exposure makes of a white surface in the open."""

_ADAPTATION = 0.72
"""Share, in stops, of darkness that the automatic exposure makes up for: night stays darker."""

_EXTINCTION = 3.912
"""Optical depth at the visibility: 2 % of the contrast is left (Koschmieder, 1924)."""


SUN, AMBIENT, BOUNCE, ZENITH, HORIZON, CLOUD, FOG = range(7)
"""Rows of Light.colors: light on a surface that faces the sun, on one that faces up from the sky
alone, on one that faces down; the sky above and at the horizon; clouds; fog."""


class Light(NamedTuple):
    """What shade_kernels need to know of a moment.

    Args:
        sun_direction: Unit vector to the sun, east, north and up, (3,).
        colors: Linear, a row for each of SUN to FOG, (7, 3).
        cover: Of clouds, 0 to 1.
        extinction: Per metre.
        night: 0 by day, 1 when all lamps are lit.
        gain: Of the exposure.
    """

    sun_direction: np.ndarray
    colors: np.ndarray
    cover: float
    extinction: float
    night: float
    gain: float

    @classmethod
    def of(cls, appearance: Appearance) -> Light:
        """The light of a moment."""
        zenith, horizon, sun, ambient = (
            _at(appearance.sun_elevation_deg, table)
            for table in (_ZENITH, _HORIZON, _SUN, _AMBIENT)
        )
        elevation = np.deg2rad(appearance.sun_elevation_deg)
        azimuth = np.deg2rad(appearance.sun_azimuth_deg)
        level = np.cos(elevation)
        to_sun = np.array([np.sin(azimuth) * level, np.cos(azimuth) * level, np.sin(elevation)])
        cover = appearance.cloud_cover
        direct = (1 - cover) ** 1.3
        # what clouds keep from the ground they scatter down
        scattered = sun * max(to_sun[2], 0.05) * (1 - direct) * 0.38
        grey = _GREY * (ambient + scattered).mean()
        sun, ambient = sun * direct, _mixed(ambient + scattered, grey, 0.8 * cover)
        grey = grey * np.interp(appearance.sun_elevation_deg, _ELEVATIONS_DEG, _SKY_SHARE)
        zenith = _mixed(zenith, 1.05 * grey, cover**2)
        horizon = _mixed(horizon, 1.25 * grey, cover**2)
        white = (ambient + sun * max(to_sun[2], 0.0)).mean()
        snow = 0.35 * appearance.snow
        colors = {
            SUN: sun,
            AMBIENT: ambient,
            BOUNCE: (0.22 + snow) * (ambient + sun * max(to_sun[2], 0.0)),
            ZENITH: zenith,
            HORIZON: horizon,
            CLOUD: _mixed(grey * 1.5, 0.75 * (sun + ambient), 0.7 * direct),
            FOG: _mixed(horizon, 1.1 * grey, 0.6),
        }
        return cls(
            to_sun,
            np.array([colors[row] for row in range(len(colors))]),
            cover,
            _EXTINCTION / appearance.visibility_m,
            float(np.clip((2.0 - appearance.sun_elevation_deg) / 6.0, 0.0, 1.0)),
            float(_MIDDLE / white**_ADAPTATION * 2.0**appearance.exposure_ev),
        )


def _at(elevation_deg: float, table: tuple[tuple[float, ...], ...]) -> np.ndarray:
    return np.array(
        [np.interp(elevation_deg, _ELEVATIONS_DEG, c) for c in zip(*table, strict=True)]
    )


def _mixed(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return one + share * (other - one)
