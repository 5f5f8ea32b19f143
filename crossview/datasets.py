"""Batches of training pairs: what the two branches of a network see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import keras
import numpy as np

from crossview.manifest import Manifest
from crossview.pairs import Augmentation, PairTable, cut, ground_image, overhead_image
from crossview.preprocessing import Preprocessing

if TYPE_CHECKING:
    from crossview.synthetic.on_the_fly import RenderedPairs

MAX_KEPT_BYTES = 6_000_000_000
"""Images that are kept in memory once they are read and prepared."""


class Batches(Protocol):
    """Which pairs come together in an epoch (see sampling)."""

    def epoch(self, number: int) -> Sequence[np.ndarray]:
        """Indices of pairs, a batch each."""


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
        self._shift_m = 0.0 if augmentation is None else augmentation.shift_m
        if self._shift_m and preprocessing.footprint_m is None:
            raise ValueError(
                "Tiles are shifted within larger ones, so the encoder must say how much of a tile "
                "it looks at: give it a footprint_m."
            )
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

    def use(self, batches: Batches) -> None:
        """From now on other pairs come together."""
        self._batches, self._indices = batches, (-1, ())

    def images(
        self, row: int, *, shift_m: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ground and overhead image of a pair; what was read is kept while there is room.

        Args:
            row: Of the table.
            shift_m: East and north from the tile's middle to that of the overhead image; only
                where tiles are shifted at all.
        """
        ground, overhead = self._kept.get(row) or self._read(row)
        if self._shift_m:
            cell_m = float(self.manifest.row("tiles", self.table.tile_ids[row])["cell_m"])
            part = cut(overhead, cell_m, self.preprocessing.footprint_m, shift_m=shift_m)
            overhead = self.preprocessing.overhead(part)
        return ground, overhead

    def _read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The ground image, and the overhead image; the whole tile where it is shifted later."""
        view_id, tile_id = self.table.view_ids[row], self.table.tile_ids[row]
        found = (
            ground_image(self.manifest, view_id, tile_id, self.preprocessing),
            self.manifest.tile_pixels(tile_id)
            if self._shift_m
            else overhead_image(self.manifest, tile_id, self.preprocessing),
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
        if self._augmentation is None:
            return self.images(row)
        rng = np.random.default_rng([self._seed, self.epoch, row])
        shift_m = (0.0, 0.0)
        if self._shift_m:
            east_m, north_m = rng.uniform(-self._shift_m, self._shift_m, 2).tolist()
            shift_m = east_m, north_m
        is_polar = self.preprocessing.polar is not None
        return self._augmentation(*self.images(row, shift_m=shift_m), rng, is_polar=is_polar)


class RenderedBatches(keras.utils.PyDataset):
    """Pairs that are rendered while a network trains, as ManifestPairs gives stored ones.

    Args:
        pairs: Renders panoramas and tiles (crossview.synthetic.on_the_fly.RenderedPairs); its
            workers and epochs are used.
        preprocessing: What the network looks at.
        augmentation: How pairs are varied.
        seed: Of the augmentation.

    Batches: `({"ground", "overhead"}, {})`; they have no position, so losses in metres are not for
    them.
    """

    def __init__(
        self,
        pairs: RenderedPairs,
        preprocessing: Preprocessing,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(workers=pairs.workers, max_queue_size=pairs.max_queue_size)
        self.pairs = pairs
        self.preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed

    @property
    def epoch(self) -> int:
        """Number of the present epoch."""
        return self.pairs.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self.pairs.epoch = number

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.pairs)

    def on_epoch_end(self) -> None:
        """The next epoch has other pairs."""
        self.pairs.on_epoch_end()

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """A batch of the present epoch; see the class."""
        images, headings_deg = self.pairs[index]
        rng = np.random.default_rng([self._seed, self.epoch, index])
        made = [
            self._prepared(panorama, tile, float(heading_deg), rng)
            for panorama, tile, heading_deg in zip(
                images["panorama"], images["tile"], headings_deg, strict=True
            )
        ]
        ground, overhead = (np.stack(side) for side in zip(*made, strict=True))
        return {"ground": ground, "overhead": overhead}, {}

    def _prepared(
        self, panorama: np.ndarray, tile: np.ndarray, heading_deg: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        ground = self.preprocessing.ground_of_sphere(panorama, heading_deg=heading_deg)
        overhead = self.preprocessing.overhead(tile)
        if self._augmentation is None:
            return ground, overhead
        is_polar = self.preprocessing.polar is not None
        return self._augmentation(ground, overhead, rng, is_polar=is_polar)
