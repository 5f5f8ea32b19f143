"""Training pairs of a prepared dataset: what the two branches of a network see, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np

from crossview.angles import FULL_TURN_DEG
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.preprocessing import UNSEEN_RGB, Preprocessing

POSITIVE = "positive"
"""The relation of a view to the tile that shows its place."""

REGIONS_APART_M = 100_000.0
"""Between the frames of two regions, so that places of different regions are never neighbours."""

MAX_KEPT_BYTES = 6_000_000_000
"""Images that are kept in memory once they are read and prepared."""


class Batches(Protocol):
    """Which pairs come together in an epoch (see sampling)."""

    def epoch(self, number: int) -> Sequence[np.ndarray]:
        """Indices of pairs, a batch each."""


@dataclass(frozen=True)
class Augmentation:
    """How pairs are varied in training.

    Args:
        heading_spread_deg: Ground images are turned evenly within this both ways: 180 for networks
            that do not know the heading.
        fov_deg: Least and largest azimuth that ground images show; what is outside is UNSEEN_RGB.
        is_turned: Both images of a pair are turned together by quarter turns.
        is_mirrored: Both images of a pair are mirrored together, every second time.
    """

    heading_spread_deg: float = 0.0
    fov_deg: tuple[float, float] = (FULL_TURN_DEG, FULL_TURN_DEG)
    is_turned: bool = True
    is_mirrored: bool = True

    def __post_init__(self) -> None:
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


@dataclass(frozen=True, eq=False)
class PairTable:
    """Which view belongs to which tile, and where it was taken.

    Args:
        view_ids: Of the pairs.
        tile_ids: Of the pairs.
        position_m: (pairs, 2) float64, x and y; regions lie REGIONS_APART_M apart.
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
            is_used &= (of_pairs["split"] == split).to_numpy()
        pairs, of_pairs = pairs[is_used], of_pairs[is_used]
        if not len(pairs):
            which = "" if split is None else f" of split {split!r}"
            raise ManifestError(
                f"{manifest.name} has no pairs{which} of a view with a position and a "
                f"{POSITIVE!r} tile: make them with `crossview synthesize --tiles centered` or "
                "`crossview-data satellite --around`."
            )
        position_m = np.empty((len(pairs), 2))
        for number, region in enumerate(manifest.regions["name"]):
            rows = np.flatnonzero((of_pairs["region"] == region).to_numpy())
            lat_deg, lon_deg = (of_pairs[name].to_numpy()[rows] for name in ("lat_deg", "lon_deg"))
            x_m, y_m = manifest.frame(region).to_local(lat_deg, lon_deg)
            position_m[rows] = np.column_stack([x_m + number * REGIONS_APART_M, y_m])
        return cls(tuple(pairs["view_id"]), tuple(pairs["tile_id"]), position_m)

    def __len__(self) -> int:
        """Pairs."""
        return len(self.view_ids)


class ManifestPairs(keras.utils.PyDataset):
    """Prepared pairs of a dataset, in batches that depend on the seed, epoch and index alone.

    Args:
        manifest: The dataset.
        preprocessing: What the network looks at.
        batches: Which pairs come together.
        table: The pairs; by default all of the dataset.
        augmentation: How they are varied; None leaves them as they are.
        seed: Of the augmentation.
        workers: Threads that read ahead.

    Batches: `({"ground": (batch, rows, cols, 3) uint8, "overhead": the same}, {"position_m":
    (batch, 2) float32, from the middle of the batch})`.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        batches: Batches,
        *,
        table: PairTable | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int = 2,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=max_queue_size)
        self.manifest = manifest
        self.preprocessing = preprocessing
        self.table = table or PairTable.of(manifest)
        self.epoch = 0
        self._batches = batches
        self._augmentation = augmentation
        self._seed = seed
        self._indices: tuple[int, Sequence[np.ndarray]] = (-1, ())
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        """Batches of the present epoch."""
        return len(self._of_epoch())

    def on_epoch_end(self) -> None:
        """The next epoch has other batches."""
        self.epoch += 1

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """A batch of the present epoch; see the class."""
        rows = self._of_epoch()[index]
        ground, overhead = zip(*(self._varied(int(row)) for row in rows), strict=True)
        position_m = self.table.position_m[rows]
        facts = {"position_m": (position_m - position_m.mean(axis=0)).astype(np.float32)}
        return {"ground": np.stack(ground), "overhead": np.stack(overhead)}, facts

    def images(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Ground and overhead image of a pair, as they are; kept while there is room."""
        found = self._kept.get(row)
        if found is None:
            view_id, tile_id = self.table.view_ids[row], self.table.tile_ids[row]
            found = (
                ground_image(self.manifest, view_id, tile_id, self.preprocessing),
                (self.preprocessing.overhead(self.manifest.tile_pixels(tile_id))),
            )
            size = found[0].nbytes + found[1].nbytes
            if self._kept_bytes + size <= MAX_KEPT_BYTES:
                self._kept[row], self._kept_bytes = found, self._kept_bytes + size
        return found

    def _of_epoch(self) -> Sequence[np.ndarray]:
        number, batches = self._indices
        if number != self.epoch:
            batches = self._batches.epoch(self.epoch)
            self._indices = (self.epoch, batches)
        return batches

    def _varied(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        images = self.images(row)
        if self._augmentation is None:
            return images
        rng = np.random.default_rng([self._seed, self.epoch, row])
        return self._augmentation(*images, rng, is_polar=self.preprocessing.polar is not None)
