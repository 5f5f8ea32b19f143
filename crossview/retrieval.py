"""How good an encoder is on a dataset: descriptors of its views and tiles, and recalls."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossview import console
from crossview.angles import FULL_TURN_DEG
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.pairs import PairTable, ground_image, overhead_image, positions_m, seen
from crossview.preprocessing import Preprocessing
from crossview.retrieval_evaluation import (
    Protocol,
    errors_m,
    one_percent,
    ranks_by,
    recall,
    tiles_containing,
    tiles_within,
)

BATCH_SIZE = 64
"""Images that are described at a time."""

KS = (1, 5, 10)
WITHIN_M = 5.0
"""Of the metre protocol of CVACT's test set."""

SEMIPOSITIVE = "semipositive"


class Describer(typing.Protocol):
    """What makes descriptors of prepared images: an encoder, or a baseline."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it looks at."""

    def ground_descriptors(self, images: np.ndarray) -> np.ndarray:
        """(batch, D) of (batch, rows, cols, 3)."""

    def overhead_descriptors(self, images: np.ndarray) -> np.ndarray:
        """(batch, D) of (batch, rows, cols, 3)."""


@dataclass(frozen=True)
class PixelCorrelation:
    """A baseline that has learned nothing: the correlation of grey levels in the same places.

    Args:
        preprocessing: Of equal ground and overhead sizes, polar.
    """

    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.preprocessing.ground_px != self.preprocessing.overhead_px:
            raise ValueError(
                "Pixels are compared in the same places: ground and overhead images have one size."
            )

    def ground_descriptors(self, images: np.ndarray) -> np.ndarray:
        """Standardised grey levels, (batch, rows * cols) float32 of length 1."""
        grey = images.mean(axis=3, dtype=np.float32).reshape(len(images), -1)
        grey -= grey.mean(axis=1, keepdims=True)
        return grey / np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-12)

    overhead_descriptors = ground_descriptors


@dataclass(frozen=True)
class Seeing:
    """What is known of a query's camera, and how it is drawn; the same for every encoder.

    Args:
        heading_spread_deg: The heading is known up to an even error of so much both ways: 180 is
            not at all.
        fov_deg: Azimuth that the camera sees of a panorama, its middle anywhere.
        seed: Of both.
    """

    heading_spread_deg: float = 5.0
    fov_deg: float = FULL_TURN_DEG
    seed: int = 0

    def __call__(self, ground: np.ndarray, number: int) -> np.ndarray:
        """What the camera of a query shows, by its number."""
        rng = np.random.default_rng([self.seed, number])
        spread_deg = self.heading_spread_deg
        turn_deg, middle_deg = rng.uniform(-spread_deg, spread_deg), rng.uniform(0, FULL_TURN_DEG)
        return seen(ground, turn_deg=turn_deg, fov_deg=self.fov_deg, middle_deg=middle_deg)


@dataclass(frozen=True, eq=False)
class Exam:
    """Views to look for, and the tiles among which they are looked for.

    Args:
        manifest: The dataset.
        table: The views with their tiles.
        tile_ids: The gallery: all tiles of the views' regions.
        tile_position_m: (tiles, 2) float64, as table.position_m.
    """

    manifest: Manifest
    table: PairTable
    tile_ids: tuple[str, ...]
    tile_position_m: npt.NDArray[np.float64]

    @classmethod
    def of(cls, manifest: Manifest, *, split: str | None = None) -> Exam:
        """All pairs of a dataset or of one split of it.

        Raises:
            ManifestError: There are no pairs, or a tile has no position.
        """
        table = PairTable.of(manifest, split=split)
        region_of = dict(zip(manifest.views["view_id"], manifest.views["region"], strict=True))
        used = {region_of[view_id] for view_id in table.view_ids}
        tiles = manifest.tiles[manifest.tiles["region"].isin(used)]
        position_m = positions_m(manifest, tiles)
        if not np.isfinite(position_m).all():
            raise ManifestError(f"{manifest.name} has tiles without a position in tiles.csv.")
        return cls(manifest, table, tuple(tiles["tile_id"]), position_m)

    def right(self) -> np.ndarray:
        """Number of every query's tile, (queries,)."""
        numbers = {tile_id: number for number, tile_id in enumerate(self.tile_ids)}
        return np.array([numbers[tile_id] for tile_id in self.table.tile_ids])

    def semipositives(self) -> list[list[int]]:
        """Numbers of tiles that show a query's place without being its tile, for each query."""
        numbers = {tile_id: number for number, tile_id in enumerate(self.tile_ids)}
        queries = {view_id: number for number, view_id in enumerate(self.table.view_ids)}
        found: list[list[int]] = [[] for _ in queries]
        pairs = self.manifest.pairs[self.manifest.pairs["relation"] == SEMIPOSITIVE]
        for view_id, tile_id in zip(pairs["view_id"], pairs["tile_id"], strict=True):
            if view_id in queries and tile_id in numbers:
                found[queries[view_id]].append(numbers[tile_id])
        return found

    @property
    def footprint_m(self) -> float:
        """Side of the first tile on the ground."""
        pixels = self.manifest.tile_pixels(self.tile_ids[0])
        return len(pixels) * float(self.manifest.row("tiles", self.tile_ids[0])["cell_m"])

    def query_descriptors(self, describer: Describer, seeing: Seeing) -> np.ndarray:
        """Descriptors of the views as a camera sees them, (queries, D)."""
        pairs = zip(self.table.view_ids, self.table.tile_ids, strict=True)
        images = (
            seeing(ground_image(self.manifest, *pair, describer.preprocessing), number)
            for number, pair in enumerate(pairs)
        )
        return _described(images, describer.ground_descriptors, len(self.table), "views")

    def tile_descriptors(self, describer: Describer) -> np.ndarray:
        """Descriptors of the gallery, (tiles, D)."""
        images = (
            overhead_image(self.manifest, tile_id, describer.preprocessing)
            for tile_id in self.tile_ids
        )
        return _described(images, describer.overhead_descriptors, len(self.tile_ids), "tiles")

    def result(
        self, queries: np.ndarray, tiles: np.ndarray, *, prior_radius_m: float | None = None
    ) -> dict[str, Any]:
        """Recalls and metres, shares as fractions.

        Args:
            queries: (queries, D)
            tiles: (tiles, D)
            prior_radius_m: Also look among the tiles within this of each query only.
        """
        position_m, tile_m = self.table.position_m, self.tile_position_m
        right = self.right()
        protocols = {
            "own": Protocol(right),
            "close": Protocol(tiles_within(position_m, tile_m, WITHIN_M)),
            "holding": Protocol(tiles_containing(position_m, tile_m, self.footprint_m)),
        }
        if any(semi := self.semipositives()):
            protocols["hit"] = Protocol(right, ignored=semi)
        if prior_radius_m is not None:
            near = tiles_within(position_m, tile_m, prior_radius_m)
            protocols["local"] = Protocol(right, candidates=near)
        ranks = dict(
            zip(protocols, ranks_by(queries, tiles, list(protocols.values())), strict=True)
        )
        floor, plus_1 = (one_percent(len(tiles), how) for how in ("floor", "floor+1"))
        found: dict[str, Any] = {
            **{f"recall_{k}": recall(ranks["own"], k) for k in KS},
            "recall_one_percent_floor": recall(ranks["own"], floor),
            "recall_one_percent_plus_1": recall(ranks["own"], plus_1),
            "any_within_5m_1": recall(ranks["close"], 1),
            "contains_camera_1": recall(ranks["holding"], 1),
            "median_error_m": float(np.median(errors_m(ranks["own"].first, position_m, tile_m))),
        }
        if "hit" in ranks:
            found["hit_rate"] = recall(ranks["hit"], 1)
        if "local" in ranks:
            found |= {f"local_recall_{k}": recall(ranks["local"], k) for k in KS}
            found["local_num_tiles"] = float(np.mean(ranks["local"].num_tiles))
        return {**found, "num_queries": len(queries), "num_tiles": len(tiles)}


def _described(
    images: Iterator[np.ndarray],
    describe: Callable[[np.ndarray], np.ndarray],
    total: int,
    unit: str,
) -> np.ndarray:
    described: list[np.ndarray] = []
    block: list[np.ndarray] = []
    for image in console.progress(images, total=total, unit=f" {unit}"):
        block.append(image)
        if len(block) == BATCH_SIZE:
            described.append(_padded(describe, block))
            block = []
    if block:
        described.append(_padded(describe, block))
    return np.concatenate(described)


def _padded(
    describe: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray]
) -> np.ndarray:
    """Descriptors of a batch that is filled up, so that networks see one size only."""
    missing = BATCH_SIZE - len(images)
    return describe(np.stack([*images, *[images[-1]] * missing]))[: len(images)]
