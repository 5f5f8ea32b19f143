"""When a photo or a tile is taken: light, season, weather and sensor, and who is on the street."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.synthetic.scene import Scene

if TYPE_CHECKING:
    from crossview.synthetic.appearance import Appearance
    from crossview.synthetic.mesh import Mesh

PLACES, HEIGHTS, PHOTOS, STREETS, FLIGHTS, AIR, LABELS, DRIVES, SPLITS = range(9)
"""What is drawn: each has random numbers of its own, so that none depends on another."""

LEAST_SUN_DEG, LEAST_VISIBILITY_M = 15.0, 3000.0
"""For imagery from above."""


@dataclass(frozen=True)
class Moment:
    """One time.

    Args:
        time_id: Its name in the dataset.
        appearance: What the world looks like; None in class images.
        movers_seed: Of cars and people.
        tilt_deg: Of a satellite, off the vertical.
        tilt_azimuth_deg: Where it stands then.
    """

    time_id: str
    appearance: Appearance | None
    movers_seed: int
    tilt_deg: float = 0.0
    tilt_azimuth_deg: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        looks = None if self.appearance is None else asdict(self.appearance)
        return {**vars(self), "appearance": looks}


def traffic(
    scene: Scene, seed: int, density: float, *, keep_out_m: Sequence[tuple[float, float]] = ()
) -> Mesh | None:
    """Cars and people at one time, away from cameras; None where there are none."""
    if density == 0:
        return None
    from crossview.synthetic.movers import movers_mesh

    return movers_mesh(scene, seed, density=density, keep_out_m=keep_out_m)


def daylight(rng: np.random.Generator, randomness: float) -> Appearance:
    """What the world looks like from above: nobody flies at night or in fog."""
    from crossview.synthetic.appearance import Appearance

    while True:
        looks = Appearance.drawn(int(rng.integers(2**32)), randomness=randomness)
        if looks.sun_elevation_deg >= LEAST_SUN_DEG and looks.visibility_m >= LEAST_VISIBILITY_M:
            return looks


def seed_of(seed: int, region: str, stream: int, index: int) -> int:
    """A seed of its own for one thing of one world, whatever else there is."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(region.encode()), stream, index])
    return int(sequence.generate_state(1, np.uint32)[0])


def rng_of(seed: int, region: str, stream: int, index: int) -> np.random.Generator:
    """Random numbers of its own, as seed_of."""
    return np.random.default_rng([seed, zlib.crc32(region.encode()), stream, index])
