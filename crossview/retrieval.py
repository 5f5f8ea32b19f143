"""How good an encoder is on a dataset: descriptors of its views and tiles, and recalls."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossview import angles
from crossview.angles import FULL_TURN_DEG
from crossview.augmentation import Variation
from crossview.describers import (
    BATCH_SIZE,
    Describer,
    Orienting,
    Pointer,
    aligned,
    described,
)
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.pairs import (
    POSITIVE,
    TRAIN,
    PairTable,
    east_north_m,
    ground_image,
    is_photo,
    overhead_image,
    positions_m,
    splits_of,
    tile_side_m,
)
from crossview.preprocessing import Preprocessing
from crossview.retrieval_evaluation import (
    THRESHOLDS_M,
    Protocol,
    Ranks,
    errors_m,
    metre_curve,
    one_percent,
    ranks_by,
    ranks_of,
    recall,
    tiles_containing,
    tiles_within,
)

if TYPE_CHECKING:
    import pandas as pd

GALLERIES = ("split", "region")
"""Among which tiles views are looked for: see Exam.of."""

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


@dataclass(frozen=True)
class Seeing:
    """What is known of a query's camera, and how it is drawn; the same for every encoder.

    Args:
        heading_spread_deg: The heading is known up to an even error of so much both ways: 180 is
            not at all.
        fov_deg: Azimuth that the camera sees of a panorama, its middle anywhere, or where the
            encoder looks that sees no more than a part. Photos show what they show.
        seed: Of both.
    """

    heading_spread_deg: float = 5.0
    fov_deg: float = FULL_TURN_DEG
    seed: int = 0

    def __call__(
        self,
        ground: np.ndarray,
        number: int,
        preprocessing: Preprocessing,
        *,
        is_photo: bool = False,
    ) -> np.ndarray:
        """What the camera of a query shows, by its number, of a pairs.ground_image."""
        turn_deg, middle_deg = self._drawn(number)
        varied = Variation(turn_deg=turn_deg, fov_deg=self.fov_deg, middle_deg=middle_deg)
        return varied.of_ground(ground, preprocessing, is_photo=is_photo)

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
        tile_ids: The gallery.
        tile_position_m: (tiles, 2) float64, as table.position_m.
        tiles: Which tiles these are, one of GALLERIES.
        split: That the views are of; None for all.
    """

    manifest: Manifest
    table: PairTable
    tile_ids: tuple[str, ...]
    tile_position_m: npt.NDArray[np.float64]
    tiles: str = "region"
    split: str | None = None

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        *,
        split: str | None = None,
        needs_heading: bool = False,
        tiles: str | None = None,
    ) -> Exam:
        """All pairs of a dataset or of one split of it.

        Args:
            manifest: The dataset.
            split: Only pairs of this split.
            needs_heading: Leave out views whose heading nobody knows.
            tiles: "split" looks among the tiles of the views of the split, "region" among all
                tiles of the views' regions. By default that of the split where every tile of these
                regions is some view's own and shows the places of views of one split only, as
                CVUSA and CVACT are evaluated; otherwise the region, as VIGOR is.

        Raises:
            ManifestError: There are no pairs, a tile has no position, a view's tile is in another
                region, or there is no split whose tiles could be meant.
        """
        if tiles not in (None, *GALLERIES):
            raise ValueError(f"tiles is one of {', '.join(GALLERIES)}, got {tiles!r}.")
        if tiles == "split" and split is None:
            raise ManifestError(
                "The tiles of a split are asked for, but no split is: say which (--split), or "
                "look among all tiles of the region (--tiles region)."
            )
        if split is None and TRAIN in splits_of(manifest.views):
            logger.warning(
                "All views of %s are queries, those of the split 'train' too: --split says which.",
                manifest.name,
            )
        table = PairTable.of(manifest, split=split, needs_heading=needs_heading)
        all_tiles = manifest.tiles[manifest.tiles["region"].isin(_regions(manifest, table))]
        of_pairs = _splits_of_pairs(manifest)
        if tiles is None:
            is_divided = split is not None and _is_divided(of_pairs, all_tiles["tile_id"])
            tiles = "split" if is_divided else "region"
        there, which = all_tiles, "all of their regions"
        if tiles == "split":
            shown = of_pairs.loc[of_pairs["split"] == split, "tile_id"]
            there = manifest.tiles[manifest.tiles["tile_id"].isin(shown)]
            which = f"those of the split {split!r}, not all {len(all_tiles):,} of their regions"
        logger.info("%d views are looked for among %d tiles, %s.", len(table), len(there), which)
        position_m = positions_m(manifest, there)
        if not np.isfinite(position_m).all():
            raise ManifestError(f"{manifest.name} has tiles without a position in tiles.csv.")
        return cls(manifest, table, tuple(there["tile_id"]), position_m, tiles, split)

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
    def side_m(self) -> npt.NDArray[np.float64]:
        """(tiles,) sides on the ground: cities have tiles of other sizes."""
        return np.array([tile_side_m(self.manifest, tile_id) for tile_id in self.tile_ids])

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
        asked, seeing = seeing, seeing.for_encoder(describer.preprocessing)
        if seeing != asked:
            logger.warning(
                "An encoder that sees %g degrees is told of no heading: its queries look anywhere, "
                "not within %g degrees.",
                describer.preprocessing.fov_deg, asked.heading_spread_deg,
            )  # fmt: skip
        tile_numbers, tiles = self.tile_descriptors(describer)
        has_tile = np.isin(self.right(), tile_numbers)
        view_numbers, queries = self.query_descriptors(
            describer, seeing, np.flatnonzero(has_tile).tolist()
        )
        if not len(queries):
            raise ManifestError(
                f"No view of {self.manifest.name} can be read together with its tile. "
                "`crossview-data check` lists what is wrong."
            )
        there = self._only(view_numbers, tile_numbers)
        orienting = describer if isinstance(describer, Orienting) else None

        def rank(protocols: Sequence[Protocol]) -> list[Ranks]:
            if orienting is None:
                return ranks_by(queries, tiles, protocols)
            return ranks_of(aligned(orienting, queries, tiles), protocols)

        found, first = there._result(
            rank,
            prior_radius_m=prior_radius_m,
            footprint_m=describer.preprocessing.footprint_m,
        )
        if orienting is not None:
            found |= there._headings(
                describer, orienting, queries, tiles, seeing=seeing, numbers=view_numbers
            )
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

    def report(
        self, describer: Describer, seeing: Seeing, *, prior_radius_m: float | None = None
    ) -> dict[str, Any]:
        """What examine finds, with what was examined and how: another run can be compared."""
        found = self.examine(describer, seeing, prior_radius_m=prior_radius_m)
        seen = seeing.for_encoder(describer.preprocessing)
        return {
            "dataset": self.manifest.name,
            "architecture": getattr(describer, "architecture", type(describer).__name__),
            "fingerprint": getattr(describer, "fingerprint", None),
            "split": self.split,
            "tiles": self.tiles,
            **asdict(seen),
            "fov_deg": min(seen.fov_deg, describer.preprocessing.fov_deg),
            "prior_radius_m": prior_radius_m,
            **found,
        }

    def query_descriptors(
        self, describer: Describer, seeing: Seeing, numbers: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The views that can be read, as a camera sees them.

        Args:
            describer: Of the views.
            seeing: How they are seen.
            numbers: Of the views; by default all.

        Returns:
            Their numbers, (queries,), and descriptors, (queries, D).
        """
        seeing = seeing.for_encoder(describer.preprocessing)

        def image(number: int) -> np.ndarray:
            tile_id = self.table.tile_ids[number]
            return self._seen(describer, seeing, number, tile_id, number=number)

        numbers = range(len(self.table)) if numbers is None else numbers
        return described(image, describer.ground_descriptors, numbers, "views")

    def tile_descriptors(self, describer: Describer) -> tuple[np.ndarray, np.ndarray]:
        """The tiles of the gallery that can be read: numbers, (tiles,), and (tiles, D)."""

        def image(number: int) -> np.ndarray:
            return overhead_image(self.manifest, self.tile_ids[number], describer.preprocessing)

        numbers = range(len(self.tile_ids))
        return described(image, describer.overhead_descriptors, numbers, "tiles")

    def result(
        self,
        queries: np.ndarray,
        tiles: np.ndarray,
        *,
        prior_radius_m: float | None = None,
        footprint_m: float | None = None,
    ) -> dict[str, Any]:
        """Recalls and metres, shares as fractions.

        Args:
            queries: (queries, D)
            tiles: (tiles, D)
            prior_radius_m: Also look among the tiles within this of each query only.
            footprint_m: Side of the square in the middle of tiles that was described; None is all.
        """
        rank = functools.partial(ranks_by, queries, tiles)
        return self._result(rank, prior_radius_m=prior_radius_m, footprint_m=footprint_m)[0]

    def _result(
        self,
        rank: Callable[[Sequence[Protocol]], list[Ranks]],
        *,
        prior_radius_m: float | None,
        footprint_m: float | None,
    ) -> tuple[dict[str, Any], np.ndarray]:
        """See result; and the number of the tile that each query looks like most."""
        position_m, tile_m = self.table.position_m, self.tile_position_m
        right = self.right()
        protocols = {
            "own": Protocol(right),
            "close": Protocol(tiles_within(position_m, tile_m, WITHIN_M)),
            "holding": Protocol(tiles_containing(position_m, tile_m, footprint_m or self.side_m)),
        }
        if any(semi := self.semipositives()):
            protocols["hit"] = Protocol(right, ignored=semi)
        if prior_radius_m is not None:
            near = tiles_within(position_m, tile_m, prior_radius_m)
            protocols["local"] = Protocol(right, candidates=near)
        ranks = dict(zip(protocols, rank(list(protocols.values())), strict=True))
        error_m = errors_m(ranks["own"].first, position_m, tile_m)
        found: dict[str, Any] = {
            **_recalls("recall", ranks["own"], len(tile_m)),
            **_recalls("any_within_5m", ranks["close"], len(tile_m)),
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
        found |= {"num_queries": len(position_m), "num_tiles": len(tile_m)}
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
        of_photo = is_photo(self.manifest, view_id)
        return seeing(ground, number, describer.preprocessing, is_photo=of_photo)

    def _headings(
        self,
        describer: Describer,
        orienting: Orienting,
        queries: np.ndarray,
        tiles: np.ndarray,
        *,
        seeing: Seeing,
        numbers: np.ndarray,
    ) -> dict[str, float]:
        """Errors of where a network says that queries look, if it knew their tiles."""
        own = self.right()
        error_deg = np.empty(len(queries))
        for start in range(0, len(queries), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            told_deg = orienting.headings_deg(tiles[own[rows]], queries[rows]).diagonal()
            true_deg = [
                self._looks_deg(describer, seeing, row, int(numbers[row]))
                for row in range(*rows.indices(len(queries)))
            ]
            error_deg[rows] = np.abs(angles.difference_deg(told_deg, np.array(true_deg)))
        error_deg = error_deg[np.isfinite(error_deg)]
        if not len(error_deg):
            return {}
        return {
            "median_heading_error_deg": float(np.median(error_deg)),
            **{f"within_{bound:g}deg": float(np.mean(error_deg <= bound)) for bound in DEGREES},
        }

    def _looks_deg(self, describer: Describer, seeing: Seeing, row: int, number: int) -> float:
        """Where the middle of a query looks, from the upper edge of its tile; NaN if unknown."""
        view = self.manifest.row("views", self.table.view_ids[row])
        if np.isnan(view["heading_deg"]):
            return float("nan")
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
        side_m = np.broadcast_to(
            pointer.preprocessing.footprint_m or self.side_m, len(self.tile_ids)
        )
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
            half_m = side_m[first[rows.start : rows.stop], None] / 2
            said_m = pointer.offsets(np.stack(ground), np.stack(overhead)) * half_m
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


def _regions(manifest: Manifest, table: PairTable) -> set[str]:
    """The regions of pairs.

    Raises:
        ManifestError: A tile is in another region than its view.
    """
    of_views = manifest.views.set_index("view_id")["region"].loc[list(table.view_ids)]
    of_tiles = manifest.tiles.set_index("tile_id")["region"].loc[list(table.tile_ids)]
    apart = np.flatnonzero(of_views.to_numpy() != of_tiles.to_numpy())
    if len(apart):
        row = apart[0]
        raise ManifestError(
            f"{manifest.name}: view {table.view_ids[row]} is in the region {of_views.iloc[row]!r} "
            f"and its tile {table.tile_ids[row]} in {of_tiles.iloc[row]!r}; there are {len(apart)} "
            "such pairs. A view and its own tile are in one region: correct pairs.csv, or the "
            "regions in views.csv and tiles.csv."
        )
    return set(of_views)


def _splits_of_pairs(manifest: Manifest) -> pd.DataFrame:
    """The pairs of a dataset, positive or not, with the split of the view, or ""."""
    split = manifest.views.set_index("view_id")["split"].fillna("")
    return manifest.pairs.assign(split=split.loc[manifest.pairs["view_id"]].to_numpy())


def _is_divided(of_pairs: pd.DataFrame, tile_ids: pd.Series) -> bool:
    """Whether every tile is some view's own, and all views whose places it shows of one split."""
    own = of_pairs.loc[of_pairs["relation"] == POSITIVE, "tile_id"]
    num_splits = of_pairs.groupby("tile_id")["split"].nunique()
    return bool(tile_ids.isin(own).all() and (num_splits.loc[tile_ids] == 1).all())


def _recalls(name: str, ranks: Ranks, num_tiles: int) -> dict[str, float | None]:
    """At KS and at 1 % by both conventions; None where 1 % of the tiles is less than one."""
    floor, plus_1 = (one_percent(num_tiles, how) for how in ("floor", "floor+1"))
    return {
        **{f"{name}_{k}": recall(ranks, k) for k in KS},
        f"{name}_one_percent_floor": recall(ranks, floor) if floor else None,
        f"{name}_one_percent_plus_1": recall(ranks, plus_1),
    }
