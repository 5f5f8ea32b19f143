"""Pairs of a prepared dataset: which view belongs to which tile, and what a camera sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossview.angles import FULL_TURN_DEG
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.preprocessing import UNSEEN_RGB, Preprocessing

if TYPE_CHECKING:
    import pandas as pd

POSITIVE = "positive"
"""The relation of a view to the tile that shows its place."""

REGIONS_APART_M = 100_000.0
"""Between the frames of two regions, so that places of different regions are never neighbours."""


@dataclass(frozen=True)
class Augmentation:
    """How pairs are varied in training.

    Args:
        heading_spread_deg: Ground images are turned evenly within this both ways: 180 for networks
            that do not know the heading.
        fov_deg: Least and largest azimuth that ground images show; what is outside is UNSEEN_RGB.
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

    def __call__(
        self, ground: np.ndarray, overhead: np.ndarray, rng: np.random.Generator, *, is_polar: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """One pair, varied.

        Args:
            ground: (rows, cols, 3), a full turn whose middle looks north.
            overhead: (rows, cols, 3), polar with a middle that looks north, or square.
            rng: What is drawn.
            is_polar: Which of the two the overhead image is.
        """
        quarter, is_mirrored = int(rng.integers(4)), bool(rng.integers(2))
        spread_deg = self.heading_spread_deg
        turn_deg, fov_deg = rng.uniform(-spread_deg, spread_deg), rng.uniform(*self.fov_deg)
        middle_deg = rng.uniform(0, FULL_TURN_DEG)
        if self.is_turned:
            # what was in the north comes to the east: columns to the right, tiles clockwise
            ground = np.roll(ground, quarter * ground.shape[1] // 4, axis=1)
            if is_polar:
                overhead = np.roll(overhead, quarter * overhead.shape[1] // 4, axis=1)
            else:
                overhead = np.rot90(overhead, -quarter)
        if self.is_mirrored and is_mirrored:
            ground, overhead = ground[:, ::-1], overhead[:, ::-1]
        return seen(ground, turn_deg=turn_deg, fov_deg=fov_deg, middle_deg=middle_deg), overhead


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


def ground_image(
    manifest: Manifest, view_id: str, tile_id: str, preprocessing: Preprocessing
) -> np.ndarray:
    """What a network sees of a view, its heading counted from the upper edge of a tile.

    Returns:
        (rows, cols, 3) uint8, as preprocessing says.
    """
    heading_deg = manifest.row("views", view_id)["heading_deg"]
    rotation_deg = manifest.row("tiles", tile_id)["rotation_deg"]
    turn_deg = float(np.nan_to_num(heading_deg) - np.nan_to_num(rotation_deg))
    return preprocessing.ground(manifest.view(view_id), heading_deg=turn_deg)


def overhead_image(
    manifest: Manifest,
    tile_id: str,
    preprocessing: Preprocessing,
    *,
    shift_m: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """What a network sees of a tile; larger ones are cut to preprocessing.footprint_m.

    Returns:
        (rows, cols, 3) uint8, as preprocessing says.
    """
    tile, cell_m = manifest.tile_pixels(tile_id), float(manifest.row("tiles", tile_id)["cell_m"])
    return preprocessing.overhead(cut(tile, cell_m, preprocessing.footprint_m, shift_m=shift_m))


def cut(
    tile: np.ndarray,
    cell_m: float,
    footprint_m: float | None,
    *,
    shift_m: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """A square part of a tile, to the next pixel.

    Args:
        tile: (side, side, 3), north-up.
        cell_m: Of its pixels.
        footprint_m: Side of the part; None for all of it.
        shift_m: East and north from the tile's middle to the part's.

    Raises:
        ManifestError: The part reaches beyond the tile.
    """
    if footprint_m is None:
        return tile
    side = round(footprint_m / cell_m)
    east, north = (round(length_m / cell_m) for length_m in shift_m)
    top, left = (len(tile) - side) // 2 - north, (len(tile) - side) // 2 + east
    if not (0 <= top <= len(tile) - side and 0 <= left <= len(tile) - side):
        raise ManifestError(
            f"A tile of {len(tile) * cell_m:g} m does not hold a square of {footprint_m:g} m that "
            f"is {shift_m[0]:g} m east and {shift_m[1]:g} m north of its middle. Make larger tiles "
            "(--tile-px), or shift less."
        )
    return tile[top : top + side, left : left + side]


def positions_m(manifest: Manifest, rows: pd.DataFrame) -> np.ndarray:
    """Where rows of views or tiles are, (rows, 2) float64; regions lie REGIONS_APART_M apart."""
    position_m = np.empty((len(rows), 2))
    for number, region in enumerate(manifest.regions["name"]):
        here = np.flatnonzero((rows["region"] == region).to_numpy())
        lat_deg, lon_deg = (rows[name].to_numpy()[here] for name in ("lat_deg", "lon_deg"))
        x_m, y_m = manifest.frame(region).to_local(lat_deg, lon_deg)
        position_m[here] = np.column_stack([x_m + number * REGIONS_APART_M, y_m])
    return position_m


@dataclass(frozen=True, eq=False)
class PairTable:
    """Which view belongs to which tile, and where it was taken.

    Args:
        view_ids: Of the pairs.
        tile_ids: Of the pairs.
        position_m: (pairs, 2) float64 of the views, see positions_m.
    """

    view_ids: tuple[str, ...]
    tile_ids: tuple[str, ...]
    position_m: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest, *, split: str | None = None) -> PairTable:
        """The positive pairs of a dataset, those of one split if it has any.

        Raises:
            ManifestError: There are none.
        """
        views = manifest.views.set_index("view_id")
        pairs = manifest.pairs[manifest.pairs["relation"] == POSITIVE]
        of_pairs = views.loc[pairs["view_id"]]
        is_used = of_pairs["lat_deg"].notna().to_numpy()
        if split is not None:
            is_used = is_used & (of_pairs["split"] == split).to_numpy()
        pairs, of_pairs = pairs[is_used], of_pairs[is_used]
        if not len(pairs):
            which = "" if split is None else f" of split {split!r}"
            raise ManifestError(
                f"{manifest.name} has no pairs{which} of a view with a position and a "
                f"{POSITIVE!r} tile: make them with `crossview synthesize --tiles centered` or "
                "`crossview-data satellite --points`."
            )
        return cls(
            tuple(pairs["view_id"]), tuple(pairs["tile_id"]), positions_m(manifest, of_pairs)
        )

    def __len__(self) -> int:
        """Pairs."""
        return len(self.view_ids)
