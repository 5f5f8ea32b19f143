"""Batches of training pairs: what the two branches of a network see."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import keras
import numpy as np

from crossview import console
from crossview.augmentation import AS_IT_IS, Augmentation, Variation
from crossview.errors import ManifestError, PhotoError, TileError
from crossview.manifest import Manifest
from crossview.memory import available_bytes
from crossview.pairs import (
    SAME_FOOTPRINT,
    PairTable,
    cut,
    ground_image,
    is_photo,
    offset_m,
    overhead_image,
    tile_side_m,
    tile_sides_m,
)
from crossview.photos import decoded_size
from crossview.preprocessing import UNSEEN_RGB, Preprocessing

if TYPE_CHECKING:
    from crossview.synthetic.on_the_fly import RenderedPairs

logger = logging.getLogger(__name__)

KEPT_SHARE = 0.3
"""Of the memory that is free when a dataset is made: images that are kept once they are read."""

KEPT_BYTES = 2_000_000_000
"""The same where the system does not say."""


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
        with_offsets: Also say where in their tiles cameras are.
        with_semipositives: Also show one more tile of each place, drawn anew every epoch: a
            semi-positive one, or the pair's own where there is none.

    Batches: `({"ground": (batch, rows, cols, 3) uint8, "overhead": the same}, {"position_m": of
    overhead images, "ground_position_m": of views, (batch, 2) float32, from the middle of the
    batch})`. Where the table has pairs without ground images the facts have "has_ground", (batch,)
    bool; these ground images are others of the batch, so that what networks compute of a whole
    batch stays as it is. With offsets facts have "offset", (batch, 2) float32, how far cameras are
    south and west of the middle of the overhead image in halves of its side; with semi-positives
    images have "semipositive" and facts both "offset" and "semipositive_offset".

    Raises:
        ManifestError: Tiles are too small to be shifted so far.
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
        with_offsets: bool = False,
        with_semipositives: bool = False,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=max_queue_size)
        self.manifest = manifest
        self.preprocessing = preprocessing
        self.table = table or PairTable.of(manifest)
        self.epoch = 0
        self._batches = batches
        self._augmentation = augmentation and augmentation.for_encoder(preprocessing)
        self._shift_m = 0.0 if augmentation is None else augmentation.shift_m
        if self._shift_m and preprocessing.footprint_m is None:
            raise ValueError(
                "Tiles are shifted within larger ones, so the encoder must say how much of a tile "
                "it looks at: give it a footprint_m."
            )
        require_room(manifest, self.table, preprocessing, shift_m=self._shift_m)
        self._seed = seed
        self._indices: tuple[int, Sequence[np.ndarray]] = (-1, ())
        self._with_offsets = with_offsets or with_semipositives
        self._with_semipositives = with_semipositives
        self._kept: dict[tuple[str, str], np.ndarray] = {}
        self._kept_bytes = 0
        free_bytes = available_bytes()
        self._most_kept_bytes = KEPT_BYTES if free_bytes is None else KEPT_SHARE * free_bytes

    def __len__(self) -> int:
        """Batches of the present epoch."""
        return len(self._of_epoch())

    def on_epoch_end(self) -> None:
        """The next epoch has other batches."""
        self.epoch += 1

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """A batch of the present epoch; see the class."""
        rows = self._of_epoch()[index]
        has_ground = self.table.has_ground[rows]
        images, facts = zip(*(self._varied(int(row)) for row in rows), strict=True)
        about = {name: np.stack([one[name] for one in facts]) for name in facts[0]}
        middle_m = about["position_m"].mean(axis=0)
        for name in ("position_m", "ground_position_m"):
            about[name] = (about[name] - middle_m).astype(np.float32)
        shown = {name: np.stack([one[name] for one in images]) for name in images[0]}
        if not self.table.has_ground.all():
            about["has_ground"] = has_ground
            if (seen := np.flatnonzero(has_ground)).size:
                instead = np.resize(seen, np.count_nonzero(~has_ground))
                shown["ground"][~has_ground] = shown["ground"][instead]
        return shown, about

    def use(self, batches: Batches) -> None:
        """From now on other pairs come together."""
        self._batches, self._indices = batches, (-1, ())

    def ground(self, row: int) -> np.ndarray:
        """The ground image of a pair, see pairs.ground_image; UNSEEN_RGB if it stays unseen.

        What was read is kept while there is room.
        """
        if not self.table.has_ground[row]:
            size_px = self.preprocessing.ground_px
            return np.broadcast_to(np.array(UNSEEN_RGB, np.uint8), (*size_px, 3))
        view_id, tile_id = self.table.view_ids[row], self.table.tile_ids[row]
        return self._once(
            (view_id, tile_id),
            lambda: ground_image(self.manifest, view_id, tile_id, self.preprocessing),
        )

    def overhead(self, tile_id: str, *, shift_m: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """The overhead image of a tile.

        Args:
            tile_id: Of the dataset.
            shift_m: East and north from the tile's middle to that of the image; only where tiles
                are shifted at all.
        """
        if not self._shift_m:
            return self._once(
                ("", tile_id), lambda: overhead_image(self.manifest, tile_id, self.preprocessing)
            )
        tile = self._once(("", tile_id), lambda: self.manifest.tile_pixels(tile_id))
        cell_m = float(self.manifest.row("tiles", tile_id)["cell_m"])
        try:
            part = cut(tile, cell_m, self.preprocessing.footprint_m, shift_m=shift_m)
        except ManifestError as error:
            raise TileError(f"Tile {tile_id}: {error}") from error
        return self.preprocessing.overhead(part)

    def _once(self, key: tuple[str, str], read: Callable[[], np.ndarray]) -> np.ndarray:
        if (kept := self._kept.get(key)) is not None:
            return kept
        image = read()
        if self._kept_bytes + image.nbytes <= self._most_kept_bytes:
            self._kept[key] = image
            self._kept_bytes += image.nbytes
        return image

    def _of_epoch(self) -> Sequence[np.ndarray]:
        number, batches = self._indices
        if number != self.epoch:
            batches = self._batches.epoch(self.epoch)
            self._indices = (self.epoch, batches)
        return batches

    def _varied(self, row: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Images and facts of a pair."""
        rng = np.random.default_rng([self._seed, self.epoch, row])
        varied = AS_IT_IS if self._augmentation is None else self._augmentation.draw(rng)
        own, has_ground = self.table.tile_ids[row], self.table.has_ground[row]
        shift_m = self._to_pixels(own, varied.shift_m)
        images = {
            "ground": varied.of_ground(
                self.ground(row),
                self.preprocessing,
                is_photo=is_photo(self.manifest, self.table.view_ids[row]),
            ),
            "overhead": self._varied_tile(own, varied, shift_m),
        }
        at_m = self.table.tile_position_m[row] + shift_m
        facts = {
            "position_m": at_m,
            "ground_position_m": self.table.position_m[row] if has_ground else at_m,
        }
        if self._with_offsets:
            facts["offset"] = self._offset(row, own, varied, shift_m)
        if self._with_semipositives:
            others = self.table.semipositive_ids[row]
            other = others[int(rng.integers(len(others)))] if others else own
            # tiles that hold the place near their edges would lose it
            shift_m = (0.0, 0.0) if others else shift_m
            images["semipositive"] = self._varied_tile(other, varied, shift_m)
            facts["semipositive_offset"] = self._offset(row, other, varied, shift_m)
        return images, facts

    def _to_pixels(self, tile_id: str, shift_m: tuple[float, float]) -> tuple[float, float]:
        """A shift by whole pixels, as tiles are cut."""
        if shift_m == (0.0, 0.0):
            return shift_m
        cell_m = float(self.manifest.row("tiles", tile_id)["cell_m"])
        return round(shift_m[0] / cell_m) * cell_m, round(shift_m[1] / cell_m) * cell_m

    def _varied_tile(
        self, tile_id: str, varied: Variation, shift_m: tuple[float, float]
    ) -> np.ndarray:
        is_polar = self.preprocessing.polar is not None
        return varied.of_overhead(self.overhead(tile_id, shift_m=shift_m), is_polar=is_polar)

    def _offset(
        self, row: int, tile_id: str, varied: Variation, shift_m: tuple[float, float]
    ) -> np.ndarray:
        """South and west of the middle of the overhead image, in halves of its side."""
        side_m = self.preprocessing.footprint_m or tile_side_m(self.manifest, tile_id)
        from_middle_m = offset_m(self.manifest, tile_id, self.table.view_ids[row], shift_m=shift_m)
        return varied.of_offset(from_middle_m / (side_m / 2)).astype(np.float32)


def require_room(
    manifest: Manifest, table: PairTable, preprocessing: Preprocessing, *, shift_m: float = 0.0
) -> None:
    """Refuse tiles that are smaller than what is cut out of them, by the first of every region.

    Args:
        manifest: The dataset.
        table: Its pairs.
        preprocessing: Its footprint_m is cut out of tiles.
        shift_m: So far off their middles.

    Raises:
        ManifestError: Even the largest are too small.
    """
    footprint_m = preprocessing.footprint_m
    if footprint_m is None:
        return
    side_m = tile_sides_m(manifest, table.tile_ids)[1]
    margin_m = (side_m - footprint_m) / 2
    if margin_m < shift_m - SAME_FOOTPRINT * footprint_m / 2:
        raise ManifestError(
            f"Squares of {footprint_m:g} m are to be up to {shift_m:g} m off the middle of tiles "
            f"of {side_m:g} m, which leave {max(margin_m, 0.0):g} m: make larger tiles "
            "(--tile-px), or shift less."
        )


def readable(
    manifest: Manifest, table: PairTable, *, least_side_m: float = 0.0, workers: int = 2
) -> PairTable:
    """The pairs whose images can be decoded to their ends; the others are named in the log.

    Args:
        manifest: The dataset.
        table: Its pairs.
        least_side_m: Of a tile on the ground; smaller ones and those that are not square are named
            and left out too.
        workers: Threads that decode.

    Raises:
        ManifestError: None can.
    """
    views = {
        view_id for view_id, seen in zip(table.view_ids, table.has_ground, strict=True) if seen
    }
    tiles = {*table.tile_ids, *(tile_id for others in table.semipositive_ids for tile_id in others)}
    images = [("views", one) for one in sorted(views)] + [("tiles", one) for one in sorted(tiles)]

    def fault(image: tuple[str, str]) -> str:
        try:
            width_px, height_px = decoded_size(manifest.image_path(*image))
        except (PhotoError, ManifestError) as error:
            return str(error)
        if image[0] == "views":
            return ""
        if width_px != height_px:
            return f"It has {width_px} x {height_px} pixels and is not square."
        side_m = width_px * float(manifest.row(*image)["cell_m"])
        if side_m < least_side_m * (1 - SAME_FOOTPRINT):
            return f"Its side is {side_m:.1f} m, and {least_side_m:.1f} m are needed."
        return ""

    with ThreadPoolExecutor(workers) as pool:
        faults = list(
            console.progress(pool.map(fault, images), total=len(images), unit=" images checked")
        )
    bad = {image for image, said in zip(images, faults, strict=True) if said}
    for image, said in zip(images, faults, strict=True):
        if said:
            logger.warning("Left out: %s %s: %s", image[0].removesuffix("s"), image[1], said)
    kept = [
        row
        for row, pair in enumerate(zip(table.view_ids, table.tile_ids, strict=True))
        if ("views", pair[0]) not in bad and ("tiles", pair[1]) not in bad
    ]
    if not kept:
        raise ManifestError(
            f"No pair of {manifest.name} can be read. `crossview-data check` lists what is wrong."
        )
    others = tuple(
        tuple(one for one in ids if ("tiles", one) not in bad) for ids in table.semipositive_ids
    )
    return replace(table, semipositive_ids=others).only(np.array(kept))


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
        self._augmentation = augmentation and augmentation.for_encoder(preprocessing)
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
        ground = self.preprocessing.whole.ground_of_sphere(panorama, heading_deg=heading_deg)
        part = cut(tile, self.pairs.cell_m, self.preprocessing.footprint_m)
        overhead = self.preprocessing.overhead(part)
        varied = AS_IT_IS if self._augmentation is None else self._augmentation.draw(rng)
        is_polar = self.preprocessing.polar is not None
        return (
            varied.of_ground(ground, self.preprocessing),
            varied.of_overhead(overhead, is_polar=is_polar),
        )
