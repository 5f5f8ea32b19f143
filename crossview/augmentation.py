"""How pairs are varied in training, and what is seen of a turn: turned, mirrored, cut together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crossview.angles import FULL_TURN_DEG
from crossview.preprocessing import UNSEEN_RGB, Preprocessing


@dataclass(frozen=True)
class Augmentation:
    """How pairs are varied in training.

    Args:
        heading_spread_deg: Ground images are turned evenly within this both ways: 180 for networks
            that do not know the heading.
        fov_deg: Least and largest azimuth that ground images show of panoramas; what is outside is
            UNSEEN_RGB. Photos show what they show.
        is_turned: Both images of a pair are turned together by quarter turns.
        is_mirrored: Both images of a pair are mirrored together, every second time.
        shift_m: Overhead images are cut out of larger tiles, off their middles by as much, evenly
            in both directions: for galleries whose tiles are not centred on cameras.
    """

    heading_spread_deg: float = 0.0
    fov_deg: tuple[float, float] = (FULL_TURN_DEG, FULL_TURN_DEG)
    is_turned: bool = True
    is_mirrored: bool = True
    shift_m: float = 0.0

    def __post_init__(self) -> None:
        if not self.shift_m >= 0:
            raise ValueError(f"shift_m is 0 or more, got {self.shift_m}.")
        least_deg, largest_deg = self.fov_deg
        if not 0 < least_deg <= largest_deg <= FULL_TURN_DEG:
            raise ValueError(f"fov_deg rises within 0..360, got {self.fov_deg}.")
        if not 0 <= self.heading_spread_deg <= FULL_TURN_DEG / 2:
            raise ValueError(f"heading_spread_deg is in 0..180, got {self.heading_spread_deg}.")

    def for_encoder(self, preprocessing: Preprocessing) -> Augmentation:
        """The same for an encoder; one with a limited field of view is told of no heading.

        It describes what is in the middle of a query, wherever that looks.
        """
        if preprocessing.is_full_turn:
            return self
        return replace(self, heading_spread_deg=FULL_TURN_DEG / 2)

    def draw(self, rng: np.random.Generator) -> Variation:
        """What is done to one pair."""
        shift_m = (0.0, 0.0)
        if self.shift_m:
            east_m, north_m = rng.uniform(-self.shift_m, self.shift_m, 2).tolist()
            shift_m = east_m, north_m
        quarter, is_mirrored = int(rng.integers(4)), bool(rng.integers(2))
        spread_deg = self.heading_spread_deg
        return Variation(
            shift_m=shift_m,
            num_quarters=quarter if self.is_turned else 0,
            is_mirrored=self.is_mirrored and is_mirrored,
            turn_deg=rng.uniform(-spread_deg, spread_deg),
            fov_deg=rng.uniform(*self.fov_deg),
            middle_deg=rng.uniform(0, FULL_TURN_DEG),
        )


@dataclass(frozen=True)
class Variation:
    """What is done to both images of a pair, and to the camera's place in the tile.

    Args:
        shift_m: East and north from the tile's middle to that of the part that is cut out.
        num_quarters: Turns of 90 degrees, clockwise.
        is_mirrored: East becomes west, after the turns.
        turn_deg: What the ground image has in the north comes to this heading.
        fov_deg: Azimuth that the ground image shows of a panorama.
        middle_deg: Where the middle of what it shows looks, before turn_deg; of no consequence to
            encoders that take a part of the turn.
    """

    shift_m: tuple[float, float] = (0.0, 0.0)
    num_quarters: int = 0
    is_mirrored: bool = False
    turn_deg: float = 0.0
    fov_deg: float = FULL_TURN_DEG
    middle_deg: float = 0.0

    def of_ground(
        self, image: np.ndarray, preprocessing: Preprocessing, *, is_photo: bool = False
    ) -> np.ndarray:
        """What an encoder looks at of a ground image; varied.

        Args:
            image: As ground_image makes it.
            preprocessing: Of the encoder.
            is_photo: Whether it is of a photo, which shows a part of the turn as it is.
        """
        if is_part(image, preprocessing):
            return image[:, ::-1] if self.is_mirrored else image
        # what was in the north comes to the east: columns to the right, tiles clockwise
        image = np.roll(image, self.num_quarters * image.shape[1] // 4, axis=1)
        image = image[:, ::-1] if self.is_mirrored else image
        fov_deg = FULL_TURN_DEG if is_photo else self.fov_deg
        # an encoder that takes a part of the turn looks where its camera does
        middle_deg = self.middle_deg if preprocessing.is_full_turn else -self.turn_deg
        image = seen(image, turn_deg=self.turn_deg, fov_deg=fov_deg, middle_deg=middle_deg)
        return preprocessing.middle_of(image)

    def of_overhead(self, image: np.ndarray, *, is_polar: bool) -> np.ndarray:
        """(rows, cols, 3), polar with a middle that looks north, or square; the same, varied."""
        if is_polar:
            image = np.roll(image, self.num_quarters * image.shape[1] // 4, axis=1)
        else:
            image = np.rot90(image, -self.num_quarters)
        return image[:, ::-1] if self.is_mirrored else image

    def of_offset(self, offset: np.ndarray) -> np.ndarray:
        """How far a camera is south and west of the middle of a tile, (2,); in the varied one."""
        south, west = offset
        for _ in range(self.num_quarters):
            south, west = -west, south
        return np.array([south, -west if self.is_mirrored else west])


AS_IT_IS = Variation()


def seen(
    ground: np.ndarray, *, turn_deg: float = 0.0, fov_deg: float, middle_deg: float = 0.0
) -> np.ndarray:
    """A full turn of which a camera sees a part, its heading known up to an error.

    Args:
        ground: (rows, cols, 3) uint8, a full turn whose middle looks north.
        turn_deg: What is in the north comes to this heading.
        fov_deg: Azimuth that is seen.
        middle_deg: Where its middle looks, before the turn.

    Returns:
        (rows, cols, 3) uint8, to the next column.
    """
    cols = ground.shape[1]
    if fov_deg < FULL_TURN_DEG:
        heading_deg = ((np.arange(cols) + 0.5) / cols - 0.5) * FULL_TURN_DEG
        off_deg = (heading_deg - middle_deg + 180.0) % FULL_TURN_DEG - 180.0
        ground = np.where(
            (np.abs(off_deg) <= fov_deg / 2)[None, :, None], ground, np.array(UNSEEN_RGB, np.uint8)
        )
    return np.roll(ground, round(turn_deg / FULL_TURN_DEG * cols), axis=1)


def is_part(image: np.ndarray, preprocessing: Preprocessing) -> bool:
    """Whether a ground image is what a limited field of view sees already, and no full turn."""
    return not preprocessing.is_full_turn and image.shape[1] == preprocessing.ground_px[1]
