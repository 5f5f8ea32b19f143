"""Which pairs share a training batch: neighbours, look-alikes or strangers, each once per epoch.

Epochs depend on the seed and their number alone, so that training resumes anywhere. A pair is in
one batch of an epoch, or left_out tells it: only pairs that would be alone in a batch are. Batches
have batch_size pairs; a last one has the rest, and more are smaller only where pairs exclude so
many others that no batch can be filled.

References: neighbourhoods as batches, Xia et al., "Geographically Local Representation Learning",
ECCV Workshops 2020; groups of look-alikes, Deuser et al., "Sample4Geo", ICCV 2023; no two pairs
that share an overhead image, Zhu et al., "VIGOR", CVPR 2021.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse, spatial

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the Earth (IUGG)."""

Indices = npt.NDArray[np.int64]

_MAX_FAILURES = 256  # pairs in a row that do not fit into a batch before it stays small

_BLOCK_BYTES = 64 * 2**20  # of similarities at a time


@dataclass(frozen=True, eq=False)
class RandomBatches:
    """Batches of strangers.

    Args:
        num_pairs: Of the dataset.
        batch_size: Pairs of a batch, 2 or more.
        seed: Of everything.
        excluding: (pairs, any) ids, such as of all overhead images that show a pair's place
            (positive and semi-positives), -1 for none: pairs that share an id share no batch.
    """

    num_pairs: int
    batch_size: int
    seed: int = 0
    excluding: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        _check(self.num_pairs, self.batch_size, self.excluding)

    def epoch(self, number: int) -> list[Indices]:
        """The batches of an epoch, indices of pairs."""
        rng = np.random.default_rng((self.seed, number))
        packing = _Packing(self.num_pairs, self.batch_size, self._conflicts)
        packing.add_groups(rng.permutation(self.num_pairs), lambda _: ())
        return packing.finished(rng)

    def left_out(self, number: int) -> Indices:
        """Pairs that are in no batch of an epoch."""
        return _missing(self.num_pairs, self.epoch(number))

    @functools.cached_property
    def _conflicts(self) -> sparse.csr_array | None:
        return _conflicts(self.num_pairs, self.excluding)


@dataclass(frozen=True, eq=False)
class NeighbourBatches:
    """Batches of neighbours: on the ground, or of what a network takes for alike.

    Centres are drawn without replacement. A centre takes num_companions pairs with it that are
    neighbours and not placed yet; with None it takes a whole batch or, where fewer are left,
    waits: the pairs that remain at the end are cut into compact batches of what is near.

    Args:
        position_m: (pairs, 2) metres in one local frame, float64; for places on the globe see
            of_lat_lon.
        batch_size: Pairs of a batch, 2 or more.
        radius_m: Neighbours are at most so far away; or
        num_neighbours: they are so many nearest ones.
        num_companions: Neighbours that go with each centre (Sample4Geo: 64 in batches of
            128; VIGOR's mining: 1); None fills a batch (Xia et al.).
        num_nearest: So many of them are the nearest, the others are drawn.
        seed: Of everything.
        excluding: (pairs, any) ids, -1 for none: pairs that share an id share no batch.
        excluding_within_m: Pairs nearer than this share no batch (Xia et al., 2021: 5 m).
        alike: (pairs, any) indices of each pair's neighbours, nearest first, -1 for none, in
            place of those on the ground; see with_similar.
    """

    position_m: npt.NDArray[np.float64]
    batch_size: int
    radius_m: float | None = None
    num_neighbours: int | None = None
    num_companions: int | None = None
    num_nearest: int = 0
    seed: int = 0
    excluding: npt.NDArray[np.int64] | None = None
    excluding_within_m: float | None = None
    alike: Indices | None = None

    def __post_init__(self) -> None:
        position_m = np.array(self.position_m, np.float64)
        if position_m.ndim != 2 or position_m.shape[1] not in (2, 3):
            raise ValueError(
                f"position_m must be (pairs, 2), east and north, got shape {position_m.shape}."
            )
        if not np.isfinite(position_m).all():
            first = int(np.flatnonzero(~np.isfinite(position_m).all(axis=1))[0])
            raise ValueError(f"Positions must be finite, but that of pair {first} is not.")
        if (self.radius_m is None) == (self.num_neighbours is None):
            raise ValueError(
                f"Give either radius_m or num_neighbours, got {self.radius_m} and "
                f"{self.num_neighbours}."
            )
        for name in ("radius_m", "num_neighbours", "num_companions", "excluding_within_m"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        position_m.flags.writeable = False
        object.__setattr__(self, "position_m", position_m)
        _check(len(position_m), self.batch_size, self.excluding)

    @classmethod
    def of_lat_lon(
        cls,
        lat_deg: npt.ArrayLike,
        lon_deg: npt.ArrayLike,
        batch_size: int,
        *,
        radius_m: float | None = None,
        excluding_within_m: float | None = None,
        **options: object,
    ) -> NeighbourBatches:
        """Neighbours by great-circle distance, anywhere on the globe and in several regions.

        Args:
            lat_deg: (pairs,) latitudes.
            lon_deg: (pairs,) longitudes.
            batch_size: Pairs of a batch.
            radius_m: Of neighbourhoods, along great circles.
            excluding_within_m: Pairs nearer than this share no batch, along great circles.
            options: See the class.
        """
        chords_m = [
            None if arc_m is None else chord_m(arc_m) for arc_m in (radius_m, excluding_within_m)
        ]
        return cls(
            sphere_m(lat_deg, lon_deg),
            batch_size,
            radius_m=chords_m[0],
            excluding_within_m=chords_m[1],
            **options,  # type: ignore[arg-type]
        )

    def epoch(self, number: int) -> list[Indices]:
        """The batches of an epoch, indices of pairs."""
        rng = np.random.default_rng((self.seed, number))
        packing = _Packing(len(self.position_m), self.batch_size, self._conflicts)
        order = rng.permutation(len(self.position_m))

        def neighbours(centre: int) -> Indices:
            found = self.neighbours(centre)
            found = found[packing.batch_of[found] < 0]
            nearest, others = found[: self.num_nearest], found[self.num_nearest :]
            return np.concatenate([nearest, rng.permutation(others)])

        if self.num_companions is None:
            packing.add_whole(order, neighbours)
            rest = packing.unplaced()
            for group in _compact(rest, self.position_m[rest], self.batch_size, rng):
                packing.add_batch(group)
            packing.add_groups(packing.unplaced(), lambda _: ())
        else:
            packing.add_groups(order, neighbours, self.num_companions)
        return packing.finished(rng)

    def left_out(self, number: int) -> Indices:
        """Pairs that are in no batch of an epoch."""
        return _missing(len(self.position_m), self.epoch(number))

    def with_similar(
        self,
        overhead: npt.NDArray[np.floating],
        ground: npt.NDArray[np.floating] | None = None,
        *,
        num_neighbours: int = 128,
        num_companions: int | None = None,
    ) -> NeighbourBatches:
        """The same sampler, with neighbours of what a network now takes for alike.

        Args:
            overhead: (pairs, D) descriptors of the overhead images.
            ground: (pairs, D) of the ground images that look for them; the overhead ones if None.
            num_neighbours: Most similar ones of each pair, without itself and what it excludes.
            num_companions: See the class; half a batch in all if neither says it.
        """
        if len(overhead) != len(self.position_m):
            raise ValueError(
                f"There are {len(overhead)} descriptors of {len(self.position_m)} pairs."
            )
        if num_companions is None:
            num_companions = self.num_companions or max(1, self.batch_size // 2 - 1)
        queries = overhead if ground is None else ground
        if not (np.isfinite(queries).all() and np.isfinite(overhead).all()):
            raise ValueError("Descriptors must be finite, but some are not: has training diverged?")
        return replace(
            self,
            alike=_most_similar(queries, overhead, num_neighbours, self._conflicts),
            num_companions=num_companions,
        )

    @functools.cached_property
    def _tree(self) -> spatial.cKDTree:
        return spatial.cKDTree(self.position_m)

    @functools.cached_property
    def _conflicts(self) -> sparse.csr_array | None:
        close = None
        if self.excluding_within_m is not None:
            # "nearer than": the tree's radius is inclusive
            nearer_m = np.nextafter(self.excluding_within_m, 0)
            close = self._tree.query_pairs(nearer_m, output_type="ndarray")
        return _conflicts(len(self.position_m), self.excluding, close)

    def neighbours(self, pair: int) -> Indices:
        """All neighbours of a pair, the nearest first, without itself."""
        if self.alike is not None:
            found = self.alike[pair]
            return found[found >= 0]
        if self.num_neighbours is not None:
            num = min(self.num_neighbours, len(self.position_m) - 1)
            found = self._tree.query(self.position_m[pair], num + 1)[1]
            return found[found != pair][:num]
        found = np.array(self._tree.query_ball_point(self.position_m[pair], self.radius_m))
        found = found[found != pair]
        apart_m = np.linalg.norm(self.position_m[found] - self.position_m[pair], axis=1)
        return found[np.argsort(apart_m, kind="stable")]


def sphere_m(lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Places on a sphere of the Earth's radius, (..., 3) metres from its centre.

    Straight distances between them order as great circles do; see chord_m.
    """
    lat_deg, lon_deg = np.broadcast_arrays(
        np.asarray(lat_deg, np.float64), np.asarray(lon_deg, np.float64)
    )
    if not (np.abs(lat_deg) <= 90).all() or not np.isfinite(lon_deg).all():
        raise ValueError("Latitudes must be in [-90, 90] and longitudes finite, in degrees.")
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    unit = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return EARTH_RADIUS_M * unit


def chord_m(arc_m: float) -> float:
    """The straight distance through the Earth between places that are arc_m apart on it."""
    half_turn = min(arc_m / (2 * EARTH_RADIUS_M), np.pi / 2)
    return float(2 * EARTH_RADIUS_M * np.sin(half_turn))


class _Packing:
    """Batches as they fill; a pair is placed once, and never beside one that excludes it."""

    def __init__(self, num_pairs: int, batch_size: int, conflicts: sparse.csr_array | None) -> None:
        self.batch_size, self.conflicts = batch_size, conflicts
        self.batches: list[list[int]] = []
        self.batch_of = np.full(num_pairs, -1)

    def unplaced(self) -> Indices:
        return np.flatnonzero(self.batch_of < 0)

    def excluded_by(self, pair: int) -> Indices:
        if self.conflicts is None:
            return np.empty(0, np.int64)
        start, end = self.conflicts.indptr[pair : pair + 2]
        return self.conflicts.indices[start:end]

    def placed(self, pair: int, batch: int) -> bool:
        """Places a pair if it may, and says so."""
        if self.batch_of[pair] >= 0 or len(self.batches[batch]) >= self.batch_size:
            return False
        if batch in self.batch_of[self.excluded_by(pair)]:
            return False
        self.batches[batch].append(int(pair))
        self.batch_of[pair] = batch
        return True

    def add_batch(self, pairs: Iterable[int]) -> int:
        """A new batch of those pairs that may share it."""
        self.batches.append([])
        for pair in pairs:
            self.placed(pair, len(self.batches) - 1)
        return len(self.batches) - 1

    def add_whole(self, centres: Iterable[int], neighbours: Callable[[int], Indices]) -> None:
        """Batches of centres with as many neighbours as fill one; other centres are passed over."""
        for centre in centres:
            if self.batch_of[centre] >= 0:
                continue
            found = neighbours(centre)
            if len(found) < self.batch_size - 1:
                continue
            batch = self.add_batch((centre, *found))
            if len(self.batches[batch]) < self.batch_size:
                self.batch_of[self.batches.pop()] = -1

    def add_groups(
        self,
        centres: Indices,
        neighbours: Callable[[int], Iterable[int]],
        num_companions: int = 0,
    ) -> None:
        """All centres, each with up to num_companions neighbours, batch after batch."""
        waiting = collections.deque(centres)
        while waiting:
            batch, postponed = self.add_batch(()), []
            num_failures = 0
            while waiting and num_failures < _MAX_FAILURES:
                centre = waiting.popleft()
                if self.batch_of[centre] >= 0:
                    continue
                if not self.placed(centre, batch):
                    postponed.append(centre)
                    if len(self.batches[batch]) == self.batch_size:
                        break
                    num_failures += 1
                    continue
                num_failures, room = 0, num_companions
                for pair in neighbours(centre):
                    if room == 0:
                        break
                    room -= self.placed(pair, batch)
            waiting.extendleft(reversed(postponed))

    def finished(self, rng: np.random.Generator) -> list[Indices]:
        """The full batches in any order, then what smaller ones hold, poured into the fewest."""
        size = np.array([len(pairs) for pairs in self.batches])
        short = np.flatnonzero((size > 0) & (size < self.batch_size))
        for batch in short[np.argsort(size[short], kind="stable")]:
            self._pour(batch, short, size)
        for batch in short[size[short] == 1]:  # others that excluded it may have gone
            self._pour(batch, short, size)
        batches = [np.array(pairs) for pairs in self.batches if len(pairs) > 1]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        small = [batch for batch in batches if len(batch) < self.batch_size]
        return [full[k] for k in rng.permutation(len(full))] + sorted(small, key=len, reverse=True)

    def _pour(self, batch: int, short: Indices, size: Indices) -> None:
        """Pairs of a batch into the fullest of other batches that take them."""
        kept = []
        for pair in self.batches[batch]:
            is_open = (size[short] > 0) & (size[short] < self.batch_size) & (short != batch)
            open_to_it = np.setdiff1d(short[is_open], self.batch_of[self.excluded_by(pair)])
            if open_to_it.size == 0:
                kept.append(pair)
                continue
            fullest = open_to_it[np.argmax(size[open_to_it])]
            self.batches[fullest].append(pair)
            self.batch_of[pair] = fullest
            size[fullest] += 1
        self.batches[batch] = kept
        size[batch] = len(kept)


def _compact(
    pairs: Indices, position_m: npt.NDArray[np.float64], size: int, rng: np.random.Generator
) -> list[Indices]:
    """Groups of what is near, all of one size but one: halved across the longer side."""
    num_axes = position_m.shape[1]
    turn = np.linalg.qr(rng.normal(size=(num_axes, num_axes)))[0]  # other cuts in every epoch
    stack, groups = [(pairs, position_m @ turn)], []
    while stack:
        part, at_m = stack.pop()
        if len(part) <= size:
            groups.append(part)
            continue
        half = max(1, len(part) // size // 2) * size
        order = np.argsort(at_m[:, np.argmax(np.ptp(at_m, axis=0))], kind="stable")
        stack += [(part[side], at_m[side]) for side in (order[:half], order[half:])]
    return groups


def _conflicts(
    num_pairs: int,
    excluding: npt.NDArray[np.int64] | None,
    close: npt.NDArray[np.int64] | None = None,
) -> sparse.csr_array | None:
    """(pairs, pairs), which pairs may not share a batch; None if all may."""
    found = []
    if excluding is not None:
        ids = np.asarray(excluding).reshape(num_pairs, -1)
        pair, col = np.nonzero(ids >= 0)
        names, which = np.unique(ids[pair, col], return_inverse=True)
        shows = sparse.csr_array(
            (np.ones(len(pair), np.int32), (pair, which)), (num_pairs, len(names))
        )
        found.append((shows @ shows.T).tocoo())
    if close is not None:
        both = np.concatenate([close, close[:, ::-1]]).T
        found.append(
            sparse.coo_array((np.ones(both.shape[1], np.int32), both), (num_pairs, num_pairs))
        )
    if not found:
        return None
    total = sum(found[1:], start=found[0]).tocoo()
    is_other = total.row != total.col
    return sparse.csr_array(
        (np.ones(is_other.sum(), np.int8), (total.row[is_other], total.col[is_other])),
        (num_pairs, num_pairs),
    )


def _most_similar(
    queries: npt.NDArray[np.floating],
    overhead: npt.NDArray[np.floating],
    num_neighbours: int,
    conflicts: sparse.csr_array | None,
) -> Indices:
    """(pairs, num_neighbours) indices, best first, without a pair itself and its conflicts."""
    num_pairs = len(overhead)
    num = min(num_neighbours, num_pairs - 1)
    rows = max(1, _BLOCK_BYTES // (4 * num_pairs))
    table = np.empty((num_pairs, num), np.int64)
    for start in range(0, num_pairs, rows):
        block = np.asarray(queries[start : start + rows], np.float32)
        similarity = block @ np.asarray(overhead, np.float32).T
        here = np.arange(len(block))
        similarity[here, start + here] = -np.inf
        if conflicts is not None:
            similarity[conflicts[start : start + rows].nonzero()] = -np.inf
        best = np.argpartition(-similarity, num - 1, axis=1)[:, :num]
        values = np.take_along_axis(similarity, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        ordered = np.take_along_axis(best, order, axis=1)
        ordered[np.take_along_axis(values, order, axis=1) == -np.inf] = -1
        table[start : start + rows] = ordered
    return table


def _check(num_pairs: int, batch_size: int, excluding: npt.NDArray[np.int64] | None) -> None:
    if not 2 <= batch_size <= num_pairs:
        raise ValueError(
            f"batch_size must be between 2 and the {num_pairs} pairs of the dataset, got "
            f"{batch_size}."
        )
    if excluding is not None and len(excluding) != num_pairs:
        raise ValueError(f"excluding has {len(excluding)} rows for {num_pairs} pairs.")


def _missing(num_pairs: int, batches: list[Indices]) -> Indices:
    is_missing = np.ones(num_pairs, bool)
    for batch in batches:
        is_missing[batch] = False
    return np.flatnonzero(is_missing)
