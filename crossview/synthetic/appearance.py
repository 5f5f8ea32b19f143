"""How a world looks at one moment: light, weather, season, colours and the camera's own traits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SEASONS = ("spring", "summer", "autumn", "winter")

_STREAM = 0x5EED_C010
"""Keeps these draws apart from others that are made of the same seed."""

_NIGHT_SHARE, _SNOW_SHARE, _WET_SHARE, _FOG_SHARE = 0.1, 0.4, 0.25, 0.12
"""How often at full randomness: night and dusk; snow, in winter; wet streets; fog or haze."""


@dataclass(frozen=True)
class Appearance:
    """Everything about a picture that is not geometry; as it stands, a clear noon in summer.

    The photo of a place and its satellite view are given two of these, so that nothing but
    geometry is common to them.

    Args:
        sun_azimuth_deg: Where the sun is, clockwise from north.
        sun_elevation_deg: How high it is. Shadows are cast from 3 degrees up; below 0 it is dusk
            and lamps and windows are lit, below -12 it is night.
        cloud_cover: 0 is a clear sky, 1 an overcast one without shadows.
        season: One of SEASONS: colours of leaves and grass; in winter broad-leaved trees are bare.
        snow: Share of level surfaces that are under snow, 0 to 1.
        wetness: 0 is dry, 1 has dark and mirroring streets, 0 to 1.
        visibility_m: Distance at which fog or haze leaves 2 % of the contrast; inf without air.
        world_seed: Of what keeps its colours: walls, roofs, cars, the pattern of the ground. Two
            pictures of one world with the same number show the same paint.
        paint: How much colours of things vary among each other, 0 to 1.
        texture: Strength of the surfaces' patterns, 1 is natural.
        color_cast: Gains of red, green and blue.
        saturation: 1 is natural, 0 is grey.
        exposure_ev: Brighter by so many stops than the automatic exposure.
        contrast: Exponent around middle grey, 1 is natural.
        blur: Share of a pixel's light that its neighbours get, 0 to 0.6.
        noise_levels: Standard deviation of the sensor's noise in 8-bit levels.
        noise_seed: Of the noise.
        jpeg_quality: From 1 to 95; None is not compressed.

    Raises:
        ValueError: A value is out of its range; the message says which.
    """

    sun_azimuth_deg: float = 180.0
    sun_elevation_deg: float = 50.0
    cloud_cover: float = 0.0
    season: str = "summer"
    snow: float = 0.0
    wetness: float = 0.0
    visibility_m: float = 20_000.0
    world_seed: int = 0
    paint: float = 0.6
    texture: float = 1.0
    color_cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    exposure_ev: float = 0.0
    contrast: float = 1.0
    blur: float = 0.25
    noise_levels: float = 0.0
    noise_seed: int = 0
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        if self.season not in SEASONS:
            raise ValueError(f"season is {self.season!r}; expected one of {', '.join(SEASONS)}.")
        object.__setattr__(self, "color_cast", tuple(float(gain) for gain in self.color_cast))
        if len(self.color_cast) != 3 or not all(0 < gain < 10 for gain in self.color_cast):
            raise ValueError(f"color_cast has three positive gains, got {self.color_cast}.")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is from {low:g} to {high:g}, got {value}.")

    @classmethod
    def drawn(cls, seed: int, randomness: float = 1.0) -> Appearance:
        """A moment drawn at random, the same for a seed on every machine.

        Args:
            seed: Of the draws, from 0.
            randomness: 0 is always the same clear noon; 1 draws from everything; between them
                ranges are narrower, and night, snow, wet streets and fog are rarer, in
                proportion.
        """
        if not 0 <= randomness <= 1:
            raise ValueError(f"randomness is from 0 to 1, got {randomness}.")
        noon = cls()
        if randomness == 0:
            return noon
        rng = np.random.default_rng(np.random.SeedSequence([_STREAM, seed]))

        def between(low: float, high: float, usual: float) -> float:
            return usual + randomness * (float(rng.uniform(low, high)) - usual)

        def happens(share: float) -> bool:
            return float(rng.random()) < share * randomness

        season = SEASONS[int(rng.integers(4))] if happens(1.0) else noon.season
        is_late, is_clouded = happens(_NIGHT_SHARE), happens(0.6)
        elevation_deg = between(10.0, 25.0 if season == "winter" else 62.0, 50.0)
        late_deg = float(rng.uniform(-14.0, 6.0))
        cover = float(rng.uniform(0.1, 1.0))
        snow = float(rng.uniform(0.5, 1.0)) if happens(_SNOW_SHARE) else 0.0
        wetness = float(rng.uniform(0.3, 1.0)) if happens(_WET_SHARE) else 0.0
        fog_m = float(np.exp(rng.uniform(math.log(60.0), math.log(2000.0))))
        return cls(
            sun_azimuth_deg=between(90.0, 270.0, noon.sun_azimuth_deg),
            sun_elevation_deg=late_deg if is_late else elevation_deg,
            cloud_cover=cover * randomness if is_clouded else 0.0,
            season=season,
            snow=snow if season == "winter" else 0.0,
            wetness=wetness,
            visibility_m=fog_m if happens(_FOG_SHARE) else noon.visibility_m,
            world_seed=int(rng.integers(2**31)) if happens(1.0) else noon.world_seed,
            paint=between(0.2, 1.0, noon.paint),
            texture=between(0.5, 1.6, noon.texture),
            color_cast=(between(0.9, 1.12, 1.0), 1.0, between(0.88, 1.12, 1.0)),
            saturation=between(0.7, 1.25, 1.0),
            exposure_ev=between(-0.5, 0.5, 0.0),
            contrast=between(0.9, 1.15, 1.0),
            blur=between(0.0, 0.5, noon.blur),
            noise_levels=between(0.0, 5.0, 0.0),
            noise_seed=int(rng.integers(2**31)),
            jpeg_quality=int(rng.integers(45, 96)) if happens(0.9) else None,
        )


_RANGES = (
    ("sun_azimuth_deg", -360, 720),
    ("sun_elevation_deg", -90, 90),
    ("cloud_cover", 0, 1),
    ("snow", 0, 1),
    ("wetness", 0, 1),
    ("visibility_m", 1, math.inf),
    ("world_seed", 0, 2**32),
    ("paint", 0, 1),
    ("texture", 0, 5),
    ("saturation", 0, 3),
    ("exposure_ev", -8, 8),
    ("contrast", 0.2, 4),
    ("blur", 0, 0.6),
    ("noise_levels", 0, 100),
    ("noise_seed", 0, 2**32),
    ("jpeg_quality", 1, 95),
)
