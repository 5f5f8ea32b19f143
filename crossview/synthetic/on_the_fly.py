"""Training pairs that are rendered while a network trains: nothing is stored."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from crossview.cameras import Equirectangular
from crossview.frames import Pose
from crossview.grids import MapGrid
from crossview.synthetic import moments
from crossview.synthetic.moments import daylight, rng_of
from crossview.synthetic.places import Place, open_place
from crossview.synthetic.render import render_photo, render_satellite
from crossview.synthetic.worlds import World

if TYPE_CHECKING:
    from crossview.synthetic.mesh import Mesh

FLIGHTS = 8
"""Moments of traffic below the satellite, for each world; light and season are each tile's own."""


class RenderedPairs(keras.utils.PyDataset):
    """Panoramas and the satellite tiles around them, batch by batch, never the same twice.

    With an `epoch` they are always the same, for validation.

    A batch depends on the seed, the epoch and its index alone, whatever the number of workers. All
    its places are in one world; batches take turns. Photo and tile are of different times. The
    renderer leaves the interpreter's lock, so that workers are threads (use_multiprocessing stays
    False) and share the worlds' memory.

    Args:
        worlds: Where to take them.
        batch_size: Pairs of a batch.
        num_batches: Of an epoch.
        panorama: The camera; (rows, cols) of panoramas are its height and width. One that is not
            twice as wide as high has rows that are higher than its columns are wide.
        tile_px: Side of a tile.
        cell_m: Of a tile.
        height_m: Lowest and highest lens above the ground.
        heading_spread_deg: Headings are even within this around north: 0 for panoramas that are
            aligned with their tiles, 180 for any.
        sidewalks: Share of places on sidewalks.
        randomness: Of light, season, weather and sensor, 0 to 1.
        traffic: Density of cars and people; 0 is quicker.
        seed: Of everything.
        epoch: The one whose batches these always are, as validation needs them (Keras ends epochs
            of validation data too); None for other pairs in every epoch.
        workers: Threads that render ahead.
        max_queue_size: Batches that they are ahead.

    Batches: `({"panorama": (batch, rows, cols, 3) uint8, "tile": (batch, tile_px, tile_px, 3)
    uint8}, heading_deg)`, the heading of the panoramas' middle columns, (batch,) float32 degrees
    clockwise from the tiles' upward direction.
    """

    def __init__(
        self,
        worlds: Sequence[World],
        *,
        batch_size: int = 32,
        num_batches: int = 100,
        panorama: Equirectangular | None = None,
        tile_px: int = 256,
        cell_m: float = 0.25,
        height_m: tuple[float, float] = (1.6, 1.6),
        heading_spread_deg: float = 0.0,
        sidewalks: float = 0.2,
        randomness: float = 1.0,
        traffic: float = 1.0,
        seed: int = 0,
        epoch: int | None = None,
        workers: int = 1,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=max_queue_size)
        if not worlds:
            raise ValueError("Pairs are rendered in one world or more, got none.")
        if epoch is not None and epoch < 0:
            raise ValueError(f"Epochs count from 0, got {epoch}.")
        if min(batch_size, num_batches, tile_px) < 1 or not cell_m > 0:
            raise ValueError(
                f"batch_size, num_batches, tile_px and cell_m are above 0, got {batch_size}, "
                f"{num_batches}, {tile_px} and {cell_m}."
            )
        self.worlds = tuple(worlds)
        self.batch_size = batch_size
        self.epoch = 0 if epoch is None else epoch
        self._is_fixed = epoch is not None
        self._num_batches = num_batches
        self._panorama = panorama or Equirectangular(512, 128)
        self._tile_px, self.cell_m = tile_px, cell_m
        self._height_m = height_m
        self._heading_spread_deg = heading_spread_deg
        self._sidewalks = sidewalks
        self._randomness = randomness
        self._traffic = traffic
        self._seed = seed
        self._lock = threading.Lock()
        self._flown_over = functools.lru_cache(maxsize=FLIGHTS * len(worlds))(self._below)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._num_batches

    def on_epoch_end(self) -> None:
        """The next epoch has other places and times; Keras also ends one before it starts."""
        self.epoch += not self._is_fixed

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """A batch of the present epoch; see the class."""
        if not 0 <= index < self._num_batches:
            raise IndexError(f"Batch {index} of {self._num_batches}.")
        number = self.epoch * self._num_batches + index
        rng = rng_of(self._seed, "batch", moments.PLACES, number)
        which = number % len(self.worlds)
        world = self.worlds[which]
        heights_m = rng.uniform(*self._height_m, size=self.batch_size)
        places = [self._place(world, rng, height_m) for height_m in heights_m]
        people = self._people(world, int(rng.integers(2**32)), places)
        made = [
            self._pair(which, place, height_m, people, rng)
            for place, height_m in zip(places, heights_m.tolist(), strict=True)
        ]
        panoramas, tiles = (np.stack(images) for images in zip(*made, strict=True))
        headings_deg = np.array([place.heading_deg for place in places], np.float32)
        return {"panorama": panoramas, "tile": tiles}, headings_deg

    def _place(self, world: World, rng: np.random.Generator, height_m: float) -> Pose:
        def draw() -> Place:
            return world.streets.place(rng, sidewalks=self._sidewalks, spread_deg=0.0)

        with self._lock:  # the streets and obstacles of a world are made when first asked for
            place = open_place(draw, world.obstacles, height_m, refused=Counter())
        spread_deg = self._heading_spread_deg
        return Pose(place.pose.x_m, place.pose.y_m, float(rng.uniform(-spread_deg, spread_deg)))

    def _people(self, world: World, seed: int, places: Sequence[Pose]) -> Mesh | None:
        keep_out_m = [(place.x_m, place.y_m) for place in places]
        return moments.traffic(world.scene, seed, self._traffic, keep_out_m=keep_out_m)

    def _below(self, which: int, flight: int) -> Mesh | None:
        """The traffic of a flight over a world."""
        seed = moments.seed_of(self._seed, "batch", moments.FLIGHTS, which * FLIGHTS + flight)
        return moments.traffic(self.worlds[which].scene, seed, self._traffic)

    def _pair(
        self,
        which: int,
        place: Pose,
        height_m: float,
        people: Mesh | None,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        from crossview.synthetic.appearance import Appearance

        world, half_m = self.worlds[which], self._tile_px * self.cell_m / 2
        looks = Appearance.drawn(int(rng.integers(2**32)), randomness=self._randomness)
        photo: Any = render_photo(
            world.scene, place, self._panorama, height_m=height_m, movers=people, appearance=looks
        )
        grid = MapGrid(
            world.frame, place.x_m - half_m, place.y_m + half_m, self.cell_m,
            self._tile_px, self._tile_px,
        )  # fmt: skip
        with self._lock:
            below = self._flown_over(which, int(rng.integers(FLIGHTS)))
        tile: Any = render_satellite(
            world.scene, grid, movers=below, appearance=daylight(rng, self._randomness)
        )
        return photo.rgb, tile.rgb
