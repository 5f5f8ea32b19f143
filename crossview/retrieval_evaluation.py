"""How good retrieval is: ranks of the right tiles, recalls, hit rates and metres.

Ties are never in anybody's favour: what ties with the right tile shares its places, and a recall
is the mean over all orders of it. A network that gives the same descriptor to everything scores
K / N at K, where the published evaluations (ranks by strictly nearer tiles) give it 100 %.

Descriptors are L2-normalised, so that inner products order as distances do. They may be
memory-mapped; blocks of inner products are held, never the matrix.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
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

_CENTRES = 4096
"""Places whose neighbours are lists of Python at a time."""

VIGOR_RADIUS_M = 6_371_004.0
"""Of the sphere on which VIGOR measures."""

THRESHOLDS_M = 1.1 ** (np.arange(242) / 5)
"""VIGOR's thresholds of errors, 1 m to 99 m."""

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
        first: (queries,) the most similar tile, right, competing or ignored; of those that tie
            the first of the gallery; -1 for a query without any candidate.
    """

    num_better: Indices
    num_tied: Indices
    num_right: Indices
    num_tiles: Indices
    first: Indices

    @property
    def middle(self) -> npt.NDArray[np.float64]:
        """(queries,) ranks from 0, the mean over all orders of ties; inf without a right tile."""
        # the first of r right tiles among t others stands at t / (r + 1) in the mean
        rank = self.num_better + self.num_tied / (self.num_right + 1)
        return np.where(self.num_right > 0, rank, np.inf)

    def hits(self, k: int) -> npt.NDArray[np.float64]:
        """(queries,) probability that a right tile is among the first k, over orders of ties."""
        all_tied = self.num_tied + self.num_right
        places = np.minimum(np.maximum(k - self.num_better, 0), all_tied)
        # none has one of the places: C(tied, places) / C(tied + right, places)
        can_miss = places <= self.num_tied
        places = np.where(can_miss, places, 0)
        log_miss = _log_choose(self.num_tied, places) - _log_choose(all_tied, places)
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
    def of(cls, lists: Lists) -> TileLists:
        """From one index for each query, or a sequence of any number of them for each."""
        if isinstance(lists, TileLists):
            return lists
        if isinstance(lists, np.ndarray) and lists.ndim == 1 and lists.dtype != object:
            return cls(np.arange(len(lists) + 1), lists.astype(np.int64))
        rows = [np.unique(np.asarray(row, np.int64)) for row in lists]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return cls(starts, np.concatenate([np.empty(0, np.int64), *rows]))

    def of_rows(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """(row from start, tile) of all entries of queries start to stop."""
        bounds = self.starts[start : stop + 1]
        row = np.repeat(np.arange(stop - start), np.diff(bounds))
        return row, self.indices[bounds[0] : bounds[-1]]

    def transposed(self, num_tiles: int) -> TileLists:
        """For each tile the queries that list it, in their order."""
        row, tile = self.of_rows(0, len(self))
        counts = np.bincount(tile, minlength=num_tiles)
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return TileLists(starts, row[np.argsort(tile, kind="stable")])


Lists = npt.NDArray[np.int64] | Sequence[npt.ArrayLike] | TileLists
"""For each query one tile, (queries,) indices, or any number of them."""


def tiles_within(
    query_position_m: npt.ArrayLike, tile_position_m: npt.ArrayLike, radius_m: float
) -> TileLists:
    """Tiles whose centres are within a radius of each query, (queries, 2) and (tiles, 2) metres."""
    return _around(query_position_m, tile_position_m, np.asarray(radius_m), norm=2)


def tiles_containing(
    query_position_m: npt.ArrayLike, tile_position_m: npt.ArrayLike, footprint_m: npt.ArrayLike
) -> TileLists:
    """Tiles whose north-up squares hold each query, edges included.

    Squares of one side around queries hold the tiles' centres: a box prior of that side.

    Args:
        query_position_m: (queries, 2) east, north.
        tile_position_m: (tiles, 2) centres.
        footprint_m: Side of the squares, or (tiles,) of each.
    """
    half_m = np.asarray(footprint_m, np.float64) / 2
    # cities have tiles of other sides: each looks for the queries that it holds
    holding = _around(tile_position_m, query_position_m, half_m, norm=np.inf)
    return holding.transposed(len(np.asarray(query_position_m)))


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


@dataclass(frozen=True, eq=False)
class Protocol:
    """What counts as found.

    Args:
        right: (queries,) index of each query's right tile, or for each query all of them: the
            best counts, and they do not compete with each other.
        ignored: For each query the tiles that do not compete.
        candidates: For each query the only tiles that are looked at (a prior); right tiles that
            are not among them are not found.
    """

    right: Lists
    ignored: Lists | None = None
    candidates: Lists | None = None


def ranks(
    queries: Descriptors,
    tiles: Descriptors,
    right: Lists,
    *,
    ignored: Lists | None = None,
    candidates: Lists | None = None,
    max_bytes: int = MAX_BYTES,
) -> Ranks:
    """Where right tiles stand among all tiles, or among candidates; see Protocol.

    Args:
        queries: (queries, D)
        tiles: (tiles, D)
        right: The tile or the tiles that each query is to find.
        ignored: Tiles that do not compete.
        candidates: The only tiles that are looked at.
        max_bytes: For blocks.
    """
    protocol = Protocol(right, ignored, candidates)
    return ranks_by(queries, tiles, [protocol], max_bytes=max_bytes)[0]


def ranks_by(
    queries: Descriptors,
    tiles: Descriptors,
    protocols: Sequence[Protocol],
    *,
    max_bytes: int = MAX_BYTES,
) -> list[Ranks]:
    """Ranks by several protocols, of one multiplication of all queries and tiles.

    Args:
        queries: (queries, D)
        tiles: (tiles, D)
        protocols: What counts; the published ones are

            - SAFA, DSM, TransGeo, VIGOR and others: each query's own tile is right.
            - CVACT_test: right are all tiles_within 5 m of the query.
            - Xia et al. (2020), local: candidates are tiles_within 100 m.
            - Xia et al. (2021): right are all within 5 m, candidates all within 50 m.
            - VIGOR's hit rate: the recall at 1 while semi-positives are ignored. The geometric
              one: right are all tiles_containing the camera.
            - VIGOR with a coarse fix: candidates are tiles_containing the fix, of a footprint
              of 400 m.
        max_bytes: For blocks.

    Returns:
        As many as protocols.
    """
    if queries.shape[1] != tiles.shape[1]:
        raise ValueError(
            f"Queries have {queries.shape[1]} numbers and tiles {tiles.shape[1]}: they are of "
            "different encoders."
        )
    listed = [_Listed(protocol, len(queries), len(tiles)) for protocol in protocols]
    plan = BlockPlan.of(tiles.shape[1], max_bytes)
    among_all = [one for one in listed if one.candidates is None]
    for_all = iter(_ranks_among_all(queries, tiles, among_all, plan) if among_all else ())

    def inner(query: int, found: Indices) -> npt.NDArray[np.float32]:
        return (
            _checked(tiles, found, None, "tiles")
            @ _checked(queries, query, query + 1, "queries")[0]
        )

    return [
        next(for_all)
        if one.candidates is None
        else Ranks(*_among(inner, slice(0, len(queries)), one, one.candidates))
        for one in listed
    ]


def ranks_of(
    similarity: npt.NDArray[np.floating] | Iterable[npt.NDArray[np.floating]],
    protocols: Sequence[Protocol],
) -> list[Ranks]:
    """Ranks by several protocols, where similarities are no inner products: DSM's.

    Args:
        similarity: (queries, tiles), finite; or blocks of its rows, one held at a time.
        protocols: See ranks_by.

    Returns:
        As many as protocols.
    """
    listed: list[_Listed] = []
    found: list[list[Indices]] = [[] for _ in protocols]
    here = slice(0, 0)
    num_queries = len(TileLists.of(protocols[0].right)) if protocols else 0
    for block in [similarity] if isinstance(similarity, np.ndarray) else similarity:
        here = slice(here.stop, here.stop + len(block))
        listed = listed or [_Listed(one, num_queries, block.shape[1]) for one in protocols]
        if here.stop > num_queries:
            break
        scores = np.asarray(block, np.float32)
        if not np.isfinite(scores.max(initial=0) - scores.min(initial=0)):
            raise ValueError(
                "Similarities must be finite. Leave out images that were not described."
            )
        first = scores.argmax(axis=1)
        for columns, one in zip(found, listed, strict=True):
            columns.append(_of_scores(scores, first, here, one))
    if here.stop != num_queries:
        raise ValueError(
            f"Similarities are of {here.stop} queries or more, but right tiles are of "
            f"{num_queries}: give all blocks of rows, in order."
        )
    return [Ranks(*np.concatenate(columns, axis=1)) for columns in found]


def errors_m(
    first: Indices,
    query_position_m: npt.ArrayLike,
    tile_position_m: npt.ArrayLike,
    *,
    offset_m: npt.ArrayLike = 0.0,
) -> npt.NDArray[np.float64]:
    """(queries,) metres between queries and where their most similar tiles say that they are.

    Args:
        first: (queries,) of Ranks; where it is -1 the error is inf.
        query_position_m: (queries, 2) east, north.
        tile_position_m: (tiles, 2) centres.
        offset_m: (queries, 2) from the tile's centre to the place, where a network tells it.
    """
    told_m = np.asarray(tile_position_m, np.float64)[first] + np.asarray(offset_m)
    error_m = np.hypot(*(told_m - np.asarray(query_position_m, np.float64)).T)
    return np.where(first >= 0, error_m, np.inf)


def metre_curve(
    error_m: npt.ArrayLike, thresholds_m: npt.ArrayLike = THRESHOLDS_M
) -> npt.NDArray[np.float64]:
    """(thresholds,) shares of errors that are less than each threshold."""
    ordered_m = np.sort(np.asarray(error_m, np.float64))
    return np.searchsorted(ordered_m, np.asarray(thresholds_m), side="left") / len(ordered_m)


def great_circle_m(
    lat_deg: npt.ArrayLike,
    lon_deg: npt.ArrayLike,
    other_lat_deg: npt.ArrayLike,
    other_lon_deg: npt.ArrayLike,
    *,
    radius_m: float = VIGOR_RADIUS_M,
) -> npt.NDArray[np.float64]:
    """Metres between places on a sphere, by the haversine formula; VIGOR's errors are such."""
    lat, other_lat = np.radians(lat_deg), np.radians(other_lat_deg)
    apart = np.radians(np.subtract(other_lon_deg, lon_deg))
    square = (
        np.sin((other_lat - lat) / 2) ** 2
        + np.cos(lat) * np.cos(other_lat) * np.sin(apart / 2) ** 2
    )
    return 2 * radius_m * np.arcsin(np.sqrt(square))


class _Listed:
    """A protocol's lists, checked."""

    def __init__(self, protocol: Protocol, num_queries: int, num_tiles: int) -> None:
        none = TileLists(np.zeros(num_queries + 1, np.int64), np.empty(0, np.int64))
        self.right = TileLists.of(protocol.right)
        self.ignored = none if protocol.ignored is None else TileLists.of(protocol.ignored)
        candidates = protocol.candidates
        self.candidates = None if candidates is None else TileLists.of(candidates)
        for name in ("right", "ignored", "candidates"):
            lists = getattr(self, name)
            if lists is None:
                continue
            if len(lists) != num_queries:
                raise ValueError(
                    f"{name} is for {len(lists)} queries, but there are {num_queries}."
                )
            tile = lists.indices
            if tile.size and not 0 <= tile.min() <= tile.max() < num_tiles:
                raise ValueError(f"{name} has indices outside of the {num_tiles} tiles.")


class _Count:
    """Ranks by one protocol of a block of queries, as blocks of tiles pass by."""

    def __init__(
        self,
        listed: _Listed,
        here: slice,
        num_tiles: int,
        scores_of: Callable[[Indices, Indices], npt.NDArray[np.float32]],
    ) -> None:
        """Begin to count.

        Args:
            listed: The protocol.
            here: The queries of the block.
            num_tiles: Of the gallery.
            scores_of: Scores of single pairs, of rows in the block and tiles.
        """
        num_rows: int = here.stop - here.start
        row, tile = listed.right.of_rows(here.start, here.stop)
        ignored_row, ignored_tile = listed.ignored.of_rows(here.start, here.stop)
        score = scores_of(row, tile)
        self.best = np.full(num_rows, -np.inf, np.float32)
        np.maximum.at(self.best, row, score)
        self.num_right = np.bincount(row[score >= self.best[row] - TIE], minlength=num_rows)
        # what does not compete, in the order in which blocks of tiles come
        both = np.stack([np.append(tile, ignored_tile), np.append(row, ignored_row)])
        self.out_tile, self.out_row = np.unique(both, axis=1)
        is_right = np.isin(self.out_tile * num_rows + self.out_row, tile * num_rows + row)
        num_ignored = np.bincount(self.out_row[~is_right], minlength=num_rows)
        self.num_tiles = num_tiles - num_ignored
        self.num_better, self.num_as_good = np.zeros((2, num_rows), np.int64)

    def add(self, scores: npt.NDArray[np.float32], first: int) -> None:
        """Count scores, (queries of the block, tiles from first)."""
        low, high = np.searchsorted(self.out_tile, (first, first + scores.shape[1]))
        row, col = self.out_row[low:high], self.out_tile[low:high] - first
        out_scores = scores[row, col]

        def num_above(bar: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
            out = np.bincount(row[out_scores > bar[row]], minlength=len(bar))
            return np.count_nonzero(scores > bar[:, None], axis=1) - out

        self.num_better += num_above(self.best + TIE)
        self.num_as_good += num_above(self.best - TIE)

    def columns(self) -> npt.NDArray[np.int64]:
        """(4, queries of the block), as the fields of Ranks."""
        return np.stack(
            [self.num_better, self.num_as_good - self.num_better, self.num_right, self.num_tiles]
        )


def _ranks_among_all(
    queries: Descriptors, tiles: Descriptors, protocols: Sequence[_Listed], plan: BlockPlan
) -> list[Ranks]:
    columns = np.zeros((len(protocols), 5, len(queries)), np.int64)
    first_tile = np.zeros(len(queries), np.int64)
    products = np.empty(plan.rows**2, np.float32)
    for start in range(0, len(queries), plan.rows):
        block = _checked(queries, start, start + plan.rows, "queries")
        here = slice(start, start + len(block))
        pairs = functools.partial(_paired, block, tiles, at_once=plan.rows)
        counts = [_Count(listed, here, len(tiles), pairs) for listed in protocols]
        highest = np.full(len(block), -np.inf, np.float32)
        for first in range(0, len(tiles), plan.rows):
            other = _checked(tiles, first, first + plan.rows, "tiles", is_new=start == 0)
            scores = products[: len(block) * len(other)].reshape(len(block), len(other))
            np.matmul(block, other.T, out=scores)
            best = scores.argmax(axis=1)
            score = scores[np.arange(len(block)), best]
            first_tile[here] = np.where(score > highest, first + best, first_tile[here])
            highest = np.maximum(highest, score)
            for count in counts:
                count.add(scores, first)
        columns[:, :4, here] = [count.columns() for count in counts]
    columns[:, 4] = first_tile
    return [Ranks(*one) for one in columns]


def _of_scores(
    scores: npt.NDArray[np.float32], first: Indices, here: slice, listed: _Listed
) -> Indices:
    """(5, rows) as the fields of Ranks, of the scores of some queries and all tiles."""
    if listed.candidates is not None:
        return _among(lambda query, found: scores[query - here.start, found], here, listed,
                      listed.candidates)  # fmt: skip
    count = _Count(listed, here, scores.shape[1], lambda row, tile: scores[row, tile])
    count.add(scores, 0)
    return np.vstack([count.columns(), first])


def _among(
    scores_of: Callable[[int, Indices], npt.NDArray[np.float32]],
    here: slice,
    listed: _Listed,
    candidates: TileLists,
) -> Indices:
    """(5, rows) as the fields of Ranks, query by query, each among its candidates."""
    columns = np.zeros((5, here.stop - here.start), np.int64)
    for row, query in enumerate(range(here.start, here.stop)):
        found = np.unique(candidates[query])
        if found.size == 0:
            columns[4, row] = -1
            continue
        is_right = np.isin(found, listed.right[query])
        competes = ~is_right & ~np.isin(found, listed.ignored[query])
        scores = scores_of(query, found)
        best = scores[is_right].max(initial=-np.inf)
        num_better = np.count_nonzero(scores[competes] > best + TIE)
        columns[:, row] = (
            num_better,
            np.count_nonzero(scores[competes] > best - TIE) - num_better,
            np.count_nonzero(scores[is_right] > best - TIE),
            np.count_nonzero(competes | is_right),
            found[scores.argmax()],
        )
    return columns


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
    centre_m: npt.ArrayLike,
    place_m: npt.ArrayLike,
    radius_m: npt.NDArray[np.float64],
    *,
    norm: float,
) -> TileLists:
    """For each centre the places within its radius; lists of Python are of a block of centres."""
    centre_m = np.asarray(centre_m, np.float64).reshape(-1, 2)
    radius_m = np.broadcast_to(radius_m, len(centre_m))
    tree = spatial.cKDTree(np.asarray(place_m, np.float64).reshape(-1, 2))
    counts, indices = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(centre_m), _CENTRES):
        rows = slice(start, start + _CENTRES)
        found = tree.query_ball_point(centre_m[rows], radius_m[rows], p=norm, return_sorted=True)
        counts.append(np.array([len(row) for row in found], np.int64))
        indices += [np.array(list(itertools.chain.from_iterable(found)), np.int64)]
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return TileLists(starts, np.concatenate(indices))


def _log_choose(n: npt.NDArray[np.int64], k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
