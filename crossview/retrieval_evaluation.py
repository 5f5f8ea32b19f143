"""How good retrieval is: ranks of the right tiles, recalls, hit rates and metres.

Ties are never in anybody's favour: what ties with the right tile shares its places, and a recall
is the mean over all orders of it. A network that gives the same descriptor to everything scores
K / N at K, where the published evaluations (ranks by strictly nearer tiles) give it 100 %.

Descriptors are L2-normalised, so that inner products order as distances do. They may be
memory-mapped; blocks of inner products are held, never the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import spatial, special

TIE = 2e-6
"""Inner products nearer than this tie: rounding of a float32 product of unit vectors, which depends
on how the product is cut into blocks."""

MAX_BYTES = 256 * 2**20
"""For blocks of descriptors and inner products."""

NORM_TOLERANCE = 0.01
"""Of squared norms: float16 rounds them by less."""

ONE_PERCENT = ("floor", "floor+1", "round+1")

Descriptors = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where queries' right tiles stand among the tiles that compete.

    Args:
        num_better: (queries,) competing tiles that are more similar than the best right tile.
        num_tied: (queries,) competing tiles that are as similar.
        num_right: (queries,) right tiles that are as similar as the best; 0 where a query has no
            right tile at all, which is a miss at every K.
        num_tiles: (queries,) tiles that compete, and right ones.
    """

    num_better: Indices
    num_tied: Indices
    num_right: Indices
    num_tiles: Indices

    @property
    def middle(self) -> npt.NDArray[np.float64]:
        """(queries,) mid-ranks from 0: the mean over all orders of ties; inf without right tile."""
        # the first of r right tiles among t others stands at t / (r + 1) in the mean
        rank = self.num_better + self.num_tied / (self.num_right + 1)
        return np.where(self.num_right > 0, rank, np.inf)

    def hits(self, k: int) -> npt.NDArray[np.float64]:
        """(queries,) probability that a right tile is among the first k, over orders of ties."""
        places = np.clip(k - self.num_better, 0, None)
        places = np.minimum(places, self.num_tied + self.num_right)
        # none of the places: C(tied, places) / C(tied + right, places)
        can_miss = places <= self.num_tied
        log_miss = _log_choose(self.num_tied, np.where(can_miss, places, 0)) - _log_choose(
            self.num_tied + self.num_right, np.where(can_miss, places, 0)
        )
        return np.where(can_miss, -np.expm1(log_miss), 1.0)


def recall(ranks: Ranks, k: int) -> float:
    """Share of queries with a right tile among their first k, 0 to 1."""
    return float(np.mean(ranks.hits(k)))


def one_percent(num_tiles: int, convention: str = "floor") -> int:
    """The k of "recall at 1 %", which papers count in three ways.

    Args:
        num_tiles: In the gallery.
        convention: "floor" of 0.01 n (SAFA's test, TransGeo, Sample4Geo), "floor+1" (CVM-Net,
            VIGOR) or "round+1" (University-1652 as Sample4Geo evaluates it).
    """
    if convention not in ONE_PERCENT:
        raise ValueError(f"convention must be one of {', '.join(ONE_PERCENT)}, got {convention!r}.")
    if convention == "round+1":
        return round(0.01 * num_tiles) + 1
    return num_tiles // 100 + (convention == "floor+1")


@dataclass(frozen=True, eq=False)
class TileLists:
    """For each query some tiles: starts (queries + 1,) into indices, as rows of a sparse matrix."""

    starts: Indices
    indices: Indices

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, query: int) -> Indices:
        return self.indices[self.starts[query] : self.starts[query + 1]]

    @classmethod
    def of(cls, lists: npt.ArrayLike | Sequence[npt.ArrayLike] | TileLists) -> TileLists:
        """From one index for each query, or a sequence of any number of them for each."""
        if isinstance(lists, TileLists):
            return lists
        if isinstance(lists, np.ndarray) and lists.ndim == 1 and lists.dtype != object:
            return cls(np.arange(len(lists) + 1), lists.astype(np.int64))
        rows = [np.atleast_1d(np.asarray(row, np.int64)) for row in lists]  # type: ignore[union-attr]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return cls(starts, np.concatenate([np.empty(0, np.int64), *rows]))

    def of_rows(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """(row from start, tile) of all entries of queries start to stop."""
        bounds = self.starts[start : stop + 1]
        row = np.repeat(np.arange(stop - start), np.diff(bounds))
        return row, self.indices[bounds[0] : bounds[-1]]


def tiles_within(
    query_position_m: npt.ArrayLike, tile_position_m: npt.ArrayLike, radius_m: float
) -> TileLists:
    """Tiles whose centres are within a radius of each query, (queries, 2) and (tiles, 2) metres."""
    return _around(query_position_m, tile_position_m, radius_m, norm=2)


def tiles_containing(
    query_position_m: npt.ArrayLike, tile_position_m: npt.ArrayLike, footprint_m: float
) -> TileLists:
    """Tiles whose north-up square of side footprint_m holds each query, edges included.

    The same squares around queries hold the tiles' centres: a box prior of that side.
    """
    return _around(query_position_m, tile_position_m, footprint_m / 2, norm=np.inf)


@dataclass(frozen=True)
class BlockPlan:
    """How many rows of queries and of tiles are multiplied at a time.

    Args:
        rows: Of either.
        num_bytes: Upper bound of what is held beside the descriptors themselves.
    """

    rows: int
    num_bytes: int

    @classmethod
    def of(cls, width: int, max_bytes: int = MAX_BYTES) -> BlockPlan:
        """The largest blocks of descriptors of a width that fit."""
        # rows^2 products (float32) and their comparison (bool), float32 copies of both blocks,
        # one block of right tiles
        rows = int((math.sqrt((12 * width) ** 2 + 20 * max_bytes) - 12 * width) / 10)
        if rows < 1:
            raise ValueError(
                f"One row of descriptors of {width} needs more than {max_bytes} bytes."
            )
        return cls(rows, 5 * rows**2 + 12 * width * rows)


def ranks(
    queries: Descriptors,
    tiles: Descriptors,
    right: npt.ArrayLike | Sequence[npt.ArrayLike] | TileLists,
    *,
    ignored: Sequence[npt.ArrayLike] | TileLists | None = None,
    candidates: Sequence[npt.ArrayLike] | TileLists | None = None,
    max_bytes: int = MAX_BYTES,
) -> Ranks:
    """Where right tiles stand among all, or among candidates.

    Args:
        queries: (queries, D)
        tiles: (tiles, D)
        right: (queries,) index of each query's right tile, or for each query all of them: the
            best counts, and they do not compete with each other.
        ignored: For each query the tiles that do not compete (VIGOR's semi-positives).
        candidates: For each query the only tiles that are looked at (a prior); right tiles that
            are not among them are not found.
        max_bytes: For blocks.
    """
    right = TileLists.of(right)
    ignored = TileLists.of([()] * len(queries) if ignored is None else ignored)
    candidates = None if candidates is None else TileLists.of(candidates)
    for name, lists in {"right": right, "ignored": ignored, "candidates": candidates}.items():
        if lists is None:
            continue
        if len(lists) != len(queries):
            raise ValueError(f"{name} is for {len(lists)} queries, but there are {len(queries)}.")
        if lists.indices.size and not 0 <= lists.indices.min() <= lists.indices.max() < len(tiles):
            raise ValueError(f"{name} has indices outside of the {len(tiles)} tiles.")
    if queries.shape[1] != tiles.shape[1]:
        raise ValueError(
            f"Queries have {queries.shape[1]} numbers and tiles {tiles.shape[1]}: they are of "
            "different encoders."
        )
    if candidates is not None:
        return _ranks_among(queries, tiles, right, ignored, candidates)
    return _ranks_among_all(queries, tiles, right, ignored, BlockPlan.of(tiles.shape[1], max_bytes))


def _ranks_among_all(
    queries: Descriptors, tiles: Descriptors, right: TileLists, ignored: TileLists, plan: BlockPlan
) -> Ranks:
    better, tied, num_right = np.zeros((3, len(queries)), np.int64)
    num_tiles = np.full(len(queries), len(tiles))
    products = np.empty(plan.rows**2, np.float32)
    for start in range(0, len(queries), plan.rows):
        block = _checked(queries, start, start + plan.rows, "queries")
        here = slice(start, start + len(block))
        row, tile = right.of_rows(here.start, here.stop)
        score = _paired(block, tiles, row, tile, plan.rows)
        best = np.full(len(block), -np.inf, np.float32)
        np.maximum.at(best, row, score)
        num_right[here] = np.bincount(row[score >= best[row] - TIE], minlength=len(block))
        ignored_row, ignored_tile = ignored.of_rows(here.start, here.stop)
        out = np.unique(
            np.stack([np.concatenate([tile, ignored_tile]), np.concatenate([row, ignored_row])]),
            axis=1,
        )
        is_right = np.isin(out[0] * len(block) + out[1], tile * len(block) + row)
        num_tiles[here] -= np.bincount(out[1, ~is_right], minlength=len(block))
        for first in range(0, len(tiles), plan.rows):
            other = _checked(tiles, first, first + plan.rows, "tiles", is_new=start == 0)
            size = len(block) * len(other)
            scores = products[:size].reshape(len(block), len(other))
            np.matmul(block, other.T, out=scores)
            low, high = np.searchsorted(out[0], (first, first + len(other)))
            scores[out[1, low:high], out[0, low:high] - first] = -np.inf
            above = np.count_nonzero(scores > (best + TIE)[:, None], axis=1)
            better[here] += above
            tied[here] += np.count_nonzero(scores >= (best - TIE)[:, None], axis=1) - above
    has_right = num_right > 0
    better[~has_right], tied[~has_right] = num_tiles[~has_right], 0
    return Ranks(better, tied, num_right, num_tiles)


def _ranks_among(
    queries: Descriptors,
    tiles: Descriptors,
    right: TileLists,
    ignored: TileLists,
    candidates: TileLists,
) -> Ranks:
    counts = np.zeros((4, len(queries)), np.int64)
    for k in range(len(queries)):
        found = np.unique(candidates[k])
        is_right = np.isin(found, right[k])
        competes = ~is_right & ~np.isin(found, ignored[k])
        counts[3, k] = np.count_nonzero(competes | is_right)
        if not is_right.any():
            counts[0, k] = counts[3, k]
            continue
        query = _checked(queries, k, k + 1, "queries")[0]
        scores = _checked(tiles, found, None, "tiles") @ query
        best = scores[is_right].max()
        counts[0, k] = np.count_nonzero(scores[competes] > best + TIE)
        counts[1, k] = np.count_nonzero(scores[competes] >= best - TIE) - counts[0, k]
        counts[2, k] = np.count_nonzero(scores[is_right] >= best - TIE)
    return Ranks(*counts)


def _paired(
    block: Descriptors, tiles: Descriptors, row: Indices, tile: Indices, at_once: int
) -> npt.NDArray[np.float32]:
    """Inner products of single pairs of a row of the block and a tile."""
    at_once = max(1, at_once // 2)  # rows of both are gathered
    scores = np.empty(len(row), np.float32)
    for k in range(0, len(row), at_once):
        here = slice(k, k + at_once)
        theirs = _checked(tiles, tile[here], None, "tiles")
        scores[here] = np.einsum("ij,ij->i", block[row[here]], theirs)
    return scores


def _checked(
    descriptors: Descriptors,
    rows: int | Indices,
    stop: int | None,
    name: str,
    *,
    is_new: bool = True,
) -> npt.NDArray[np.float32]:
    """Rows from one index to another or of some indices, float32, seen to be L2-normalised."""
    block = np.asarray(
        descriptors[rows if stop is None else slice(rows, stop)],
        np.float32,
    )
    if not is_new:
        return block
    square = np.einsum("ij,ij->i", block, block)
    is_unit = np.abs(square - 1) < NORM_TOLERANCE  # False for NaN
    if not is_unit.all():
        bad = int(np.flatnonzero(~is_unit)[0])
        which = bad + rows if isinstance(rows, int) else int(rows[bad])
        raise ValueError(
            f"Descriptors must be L2-normalised, but row {which} of the {name} has the squared "
            f"norm {square[bad]:.3g}. Leave out images that could not be described."
        )
    return block


def _around(
    query_position_m: npt.ArrayLike, tile_position_m: npt.ArrayLike, radius_m: float, *, norm: float
) -> TileLists:
    tree = spatial.cKDTree(np.asarray(tile_position_m, np.float64))
    found = tree.query_ball_point(
        np.asarray(query_position_m, np.float64), radius_m, p=norm, return_sorted=True
    )
    return TileLists.of(list(found))


def _log_choose(n: npt.NDArray[np.int64], k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
