"""How good an encoder is on a dataset: descriptors of its views and tiles, and recalls."""

from __future__ import annotations

import functools
import logging
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crossview import angles, console
from crossview.angles import FULL_TURN_DEG
from crossview.errors import ManifestError, PhotoError
from crossview.manifest import Manifest
from crossview.pairs import (
    PairTable,
    Variation,
    east_north_m,
    ground_image,
    overhead_image,
    positions_m,
    tile_side_m,
)
from crossview.preprocessing import Preprocessing
from crossview.retrieval_evaluation import (
    THRESHOLDS_M,
    Protocol,
    errors_m,
    metre_curve,
    one_percent,
    ranks_by,
    ranks_of,
    recall,
    tiles_containing,
    tiles_within,
)

BATCH_SIZE = 64
"""Images that are described at a time."""

KS = (1, 5, 10)
WITHIN_M = 5.0
"""Of the metre protocol of CVACT's test set."""

CURVE = "metre_curve"
"""Shares of errors below every threshold, which people look at as a curve."""

DEGREES = (5.0, 10.0)
"""Errors of headings, of networks that find them."""

METRES = (1.0, 5.0, 10.0, 25.0)
"""Errors of the first tile, or of the place that a network sees in it."""


logger = logging.getLogger(__name__)


class Describer(typing.Protocol):
    """What makes descriptors of prepared images: an encoder, or a baseline."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it looks at."""

    def ground_descriptors(self, images: np.ndarray) -> np.ndarray:
        """(batch, D) of (batch, rows, cols, 3)."""

    def overhead_descriptors(self, images: np.ndarray) -> np.ndarray:
        """(batch, D) of (batch, rows, cols, 3)."""


@typing.runtime_checkable
class Pointer(Describer, typing.Protocol):
    """A describer that also says where in a tile a camera is, such as nn.encoders.OffsetEncoder."""

    def offsets(self, ground: np.ndarray, overhead: np.ndarray) -> np.ndarray:
        """(batch, 2) south and west of the tiles' middles, in half tiles."""


@typing.runtime_checkable
class Orienting(Describer, typing.Protocol):
    """A describer that finds headings, such as nn.encoders.OrientedEncoder."""

    def similarities(self, overhead: np.ndarray, ground: np.ndarray) -> Any:
        """(overhead, ground) of descriptors, each at the heading that fits best."""

    def headings_deg(self, overhead: np.ndarray, ground: np.ndarray) -> np.ndarray:
        """(overhead, ground), where the middles of ground images look."""


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

    def __call__(self, ground: np.ndarray, number: int, preprocessing: Preprocessing) -> np.ndarray:
        """What the camera of a query shows, by its number, of a pairs.ground_image."""
        middle_deg = self._drawn(number)[1]
        return Variation(
            turn_deg=self.turn_deg(number), fov_deg=self.fov_deg, middle_deg=middle_deg
        ).of_ground(ground, preprocessing)

    def for_encoder(self, preprocessing: Preprocessing) -> Seeing:
        """What is known where an encoder is to use it: all, or not where its query looks.

        One with a limited field of view describes what is in the middle of a query, and is told of
        no heading: its queries look anywhere, whatever spread is asked for.
        """
        if preprocessing.is_full_turn:
            return self
        return replace(self, heading_spread_deg=FULL_TURN_DEG / 2)

    def needs_heading(self, preprocessing: Preprocessing) -> bool:
        """Whether views whose heading nobody knows are of no use."""
        return self.for_encoder(preprocessing).heading_spread_deg < FULL_TURN_DEG / 2

    def turn_deg(self, number: int) -> float:
        """The heading at which a query shows what is in the north."""
        return self._drawn(number)[0]

    def _drawn(self, number: int) -> tuple[float, float]:
        rng = np.random.default_rng([self.seed, number])
        spread_deg = self.heading_spread_deg
        return rng.uniform(-spread_deg, spread_deg), rng.uniform(0, FULL_TURN_DEG)


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
    def of(
        cls, manifest: Manifest, *, split: str | None = None, needs_heading: bool = False
    ) -> Exam:
        """All pairs of a dataset or of one split of it.

        Args:
            manifest: The dataset.
            split: Only pairs of this split.
            needs_heading: Leave out views whose heading nobody knows.

        Raises:
            ManifestError: There are no pairs, or a tile has no position.
        """
        table = PairTable.of(manifest, split=split, needs_heading=needs_heading)
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
        return [
            [numbers[tile_id] for tile_id in others if tile_id in numbers]
            for others in self.table.semipositive_ids
        ]

    @functools.cached_property
    def footprint_m(self) -> float:
        """Side of the first tile on the ground."""
        return tile_side_m(self.manifest, self.tile_ids[0])

    def examine(
        self, describer: Describer, seeing: Seeing, *, prior_radius_m: float | None = None
    ) -> dict[str, Any]:
        """Recalls and metres of what can be read; what cannot is named and counted.

        Args:
            describer: What is examined; if it says where in tiles cameras are (`offsets`), the
                metres of these places are measured too.
            seeing: How queries are seen.
            prior_radius_m: See result.

        Raises:
            ManifestError: No image can be read.
        """
        view_numbers, queries = self.query_descriptors(describer, seeing)
        tile_numbers, tiles = self.tile_descriptors(describer)
        has_tile = np.isin(self.right()[view_numbers], tile_numbers)
        view_numbers, queries = view_numbers[has_tile], queries[has_tile]
        if not len(queries):
            raise ManifestError(
                f"No view of {self.manifest.name} can be read together with its tile. "
                "`crossview-data check` lists what is wrong."
            )
        there = self._only(view_numbers, tile_numbers)
        orienting = describer if isinstance(describer, Orienting) else None
        similarity = None if orienting is None else _aligned(orienting, queries, tiles)
        found, first = there._result(
            queries, tiles, prior_radius_m=prior_radius_m, similarity=similarity
        )
        if orienting is not None:
            error_deg = there._heading_errors_deg(orienting, queries, tiles, seeing, view_numbers)
            found["median_heading_error_deg"] = float(np.median(error_deg))
            found |= {
                f"within_{bound_deg:g}deg": float(np.mean(error_deg <= bound_deg))
                for bound_deg in DEGREES
            }
        if isinstance(describer, Pointer):
            error_m = there._pointed_errors_m(describer, seeing, first, view_numbers)
            found["median_error_with_offset_m"] = float(np.median(error_m))
            found |= {
                f"within_{bound_m:g}m_with_offset": float(np.mean(error_m < bound_m))
                for bound_m in METRES
            }
            found[CURVE]["share_with_offset"] = metre_curve(error_m).tolist()
        num_unread = len(self.table) - len(view_numbers), len(self.tile_ids) - len(tile_numbers)
        return {**found, "excluded_queries": num_unread[0], "excluded_tiles": num_unread[1]}

    def query_descriptors(
        self, describer: Describer, seeing: Seeing
    ) -> tuple[np.ndarray, np.ndarray]:
        """The views that can be read, as a camera sees them.

        Returns:
            Their numbers, (queries,), and descriptors, (queries, D).
        """

        def image(number: int) -> np.ndarray:
            tile_id = self.table.tile_ids[number]
            return self._seen(describer, seeing, number, tile_id, number=number)

        return _described(image, describer.ground_descriptors, len(self.table), "views")

    def tile_descriptors(self, describer: Describer) -> tuple[np.ndarray, np.ndarray]:
        """The tiles of the gallery that can be read: numbers, (tiles,), and (tiles, D)."""

        def image(number: int) -> np.ndarray:
            return overhead_image(self.manifest, self.tile_ids[number], describer.preprocessing)

        return _described(image, describer.overhead_descriptors, len(self.tile_ids), "tiles")

    def result(
        self, queries: np.ndarray, tiles: np.ndarray, *, prior_radius_m: float | None = None
    ) -> dict[str, Any]:
        """Recalls and metres, shares as fractions.

        Args:
            queries: (queries, D)
            tiles: (tiles, D)
            prior_radius_m: Also look among the tiles within this of each query only.
        """
        return self._result(queries, tiles, prior_radius_m=prior_radius_m)[0]

    def _result(
        self,
        queries: np.ndarray,
        tiles: np.ndarray,
        *,
        prior_radius_m: float | None,
        similarity: np.ndarray | None = None,
    ) -> tuple[dict[str, Any], np.ndarray]:
        """See result; and the number of the tile that each query looks like most."""
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
        wanted = list(protocols.values())
        if similarity is None:
            ranks = dict(zip(protocols, ranks_by(queries, tiles, wanted), strict=True))
        else:
            ranks = dict(zip(protocols, ranks_of(similarity, wanted), strict=True))
        error_m = errors_m(ranks["own"].first, position_m, tile_m)
        floor, plus_1 = (one_percent(len(tiles), how) for how in ("floor", "floor+1"))
        found: dict[str, Any] = {
            **{f"recall_{k}": recall(ranks["own"], k) for k in KS},
            "recall_one_percent_floor": recall(ranks["own"], floor),
            "recall_one_percent_plus_1": recall(ranks["own"], plus_1),
            "any_within_5m_1": recall(ranks["close"], 1),
            "contains_camera_1": recall(ranks["holding"], 1),
            "median_error_m": float(np.median(error_m)),
            **{f"within_{bound_m:g}m": float(np.mean(error_m < bound_m)) for bound_m in METRES},
            CURVE: {"threshold_m": THRESHOLDS_M.tolist(), "share": metre_curve(error_m).tolist()},
        }
        if "hit" in ranks:
            found["hit_rate"] = recall(ranks["hit"], 1)
        if "local" in ranks:
            found |= {f"local_recall_{k}": recall(ranks["local"], k) for k in KS}
            found["local_num_tiles"] = float(np.mean(ranks["local"].num_tiles))
        found |= {"num_queries": len(queries), "num_tiles": len(tiles)}
        return found, ranks["own"].first

    def _only(self, views: np.ndarray, tiles: np.ndarray) -> Exam:
        """The exam of some views and some tiles, by number."""
        return replace(
            self,
            table=self.table.only(views),
            tile_ids=tuple(self.tile_ids[number] for number in tiles),
            tile_position_m=self.tile_position_m[tiles],
        )

    def _seen(
        self, describer: Describer, seeing: Seeing, row: int, tile_id: str, *, number: int
    ) -> np.ndarray:
        """A query as a camera sees it, its heading counted from the upper edge of a tile."""
        view_id = self.table.view_ids[row]
        ground = ground_image(self.manifest, view_id, tile_id, describer.preprocessing)
        return seeing(ground, number, describer.preprocessing)

    def _heading_errors_deg(
        self,
        describer: Orienting,
        queries: np.ndarray,
        tiles: np.ndarray,
        seeing: Seeing,
        numbers: np.ndarray,
    ) -> np.ndarray:
        """Of where a network says that queries look, if it knew their tiles, 0 to 180."""
        own = self.right()
        error_deg = np.empty(len(queries))
        for start in range(0, len(queries), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            told_deg = describer.headings_deg(tiles[own[rows]], queries[rows]).diagonal()
            true_deg = [
                self._looks_deg(describer, seeing, row, int(numbers[row]))
                for row in range(*rows.indices(len(queries)))
            ]
            error_deg[rows] = np.abs(angles.difference_deg(told_deg, np.array(true_deg)))
        return error_deg[np.isfinite(error_deg)]

    def _looks_deg(self, describer: Describer, seeing: Seeing, row: int, number: int) -> float:
        """Where the middle of a query looks, from the upper edge of its tile; NaN if unknown."""
        view = self.manifest.row("views", self.table.view_ids[row])
        if describer.preprocessing.is_full_turn or view["kind"] != "photo":
            # what was in the north came to turn_deg, so the middle looks as far to the other side
            return -seeing.turn_deg(number)
        tile = self.manifest.row("tiles", self.table.tile_ids[row])
        return float(view["heading_deg"] - np.nan_to_num(tile["rotation_deg"]))

    def _pointed_errors_m(
        self, pointer: Pointer, seeing: Seeing, first: np.ndarray, numbers: np.ndarray
    ) -> np.ndarray:
        """Metres from where cameras are to where a network says that they are in first tiles."""
        error_m = np.empty(len(first))
        side_m = pointer.preprocessing.footprint_m or self.footprint_m
        for start in range(0, len(first), BATCH_SIZE):
            rows = range(start, min(start + BATCH_SIZE, len(first)))
            tile_ids = [self.tile_ids[first[row]] for row in rows]
            ground = [
                self._seen(pointer, seeing, row, tile_id, number=int(numbers[row]))
                for row, tile_id in zip(rows, tile_ids, strict=True)
            ]
            overhead = [
                overhead_image(self.manifest, tile_id, pointer.preprocessing)
                for tile_id in tile_ids
            ]
            said_m = pointer.offsets(np.stack(ground), np.stack(overhead)) * (side_m / 2)
            from_middle_m = [
                east_north_m(self.manifest, tile_id, each)
                for tile_id, each in zip(tile_ids, said_m, strict=True)
            ]
            error_m[list(rows)] = errors_m(
                first[list(rows)],
                self.table.position_m[list(rows)],
                self.tile_position_m,
                offset_m=np.array(from_middle_m),
            )
        return error_m


def _aligned(describer: Orienting, queries: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """(queries, tiles) float32, each at the heading that fits best, in small blocks."""
    alike = np.empty((len(queries), len(tiles)), np.float32)
    for start in console.progress(
        range(0, len(queries), BATCH_SIZE), total=None, unit=" blocks aligned"
    ):
        rows = slice(start, start + BATCH_SIZE)
        for first in range(0, len(tiles), BATCH_SIZE):
            cols = slice(first, first + BATCH_SIZE)
            alike[rows, cols] = np.asarray(describer.similarities(tiles[cols], queries[rows])).T
    return alike


def _described(
    image: Callable[[int], np.ndarray],
    describe: Callable[[np.ndarray], np.ndarray],
    total: int,
    unit: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of images that can be read, and their descriptors; the others are named."""
    numbers: list[int] = []
    described: list[np.ndarray] = []
    block: list[np.ndarray] = []
    for number in console.progress(range(total), total=total, unit=f" {unit}"):
        try:
            block.append(image(number))
        except (PhotoError, ManifestError) as error:
            # a view says in which row of its table the image is that cannot be read
            if not isinstance(
                error.__cause__ if isinstance(error, ManifestError) else error, PhotoError
            ):
                raise
            logger.warning("Left out: %s", error)
            continue
        numbers.append(number)
        if len(block) == BATCH_SIZE:
            described.append(_padded(describe, block))
            block = []
    if block:
        described.append(_padded(describe, block))
    empty = np.empty((0, 1), np.float32)
    return np.array(numbers, dtype=int), np.concatenate(described) if described else empty


def _padded(
    describe: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray]
) -> np.ndarray:
    """Descriptors of a batch that is filled up, so that networks see one size only."""
    missing = BATCH_SIZE - len(images)
    return describe(np.stack([*images, *[images[-1]] * missing]))[: len(images)]
