"""Evaluation of retrieval against slow literal readings of the published protocols."""

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from crossview.retrieval_evaluation import (
    MAX_BYTES,
    THRESHOLDS_M,
    BlockPlan,
    Protocol,
    Ranks,
    errors_m,
    great_circle_m,
    metre_curve,
    one_percent,
    ranks,
    ranks_by,
    ranks_of,
    recall,
    tiles_containing,
    tiles_within,
)

SMALL_BYTES = 20_000  # blocks of 39 rows of 16 numbers: several of both


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


class Town:
    """130 queries, and 200 tiles on a grid of 20 m; each query's own tile is the nearest one."""

    def __init__(self, noise=0.5, seed=0):
        rng = np.random.default_rng(seed)
        col, row = np.meshgrid(np.arange(20), np.arange(10))
        self.tile_m = 20.0 * np.stack([col.ravel(), row.ravel()], axis=1)[rng.permutation(200)]
        self.query_m = rng.uniform(0, 190, (130, 2))
        self.apart_m = np.linalg.norm(self.query_m[:, None] - self.tile_m[None], axis=2)
        self.own = self.apart_m.argmin(axis=1)
        self.semi = np.argsort(self.apart_m, axis=1)[:, 1:4]
        self.tiles = unit(rng.normal(size=(200, 16)))
        self.queries = unit(self.tiles[self.own] + noise * rng.normal(size=(130, 16)))

    def distances(self):
        """2 - 2 <q, t> in float64, (queries, tiles), as the published evaluations make it."""
        return 2 - 2 * self.queries.astype(np.float64) @ self.tiles.astype(np.float64).T


@pytest.fixture(scope="module")
def town():
    return Town()


def literal_ranks(town):
    """SAFA: how many tiles are strictly nearer than the query's own."""
    return [
        sum(other < row[own] for other in row)
        for row, own in zip(town.distances(), town.own, strict=True)
    ]


# The published protocols, read literally


@pytest.mark.parametrize("max_bytes", [SMALL_BYTES, MAX_BYTES])
def test_recalls_are_those_of_strict_ranks_where_nothing_ties(town, max_bytes):
    got = ranks(town.queries, town.tiles, town.own, max_bytes=max_bytes)
    expected = literal_ranks(town)
    assert list(got.num_better) == list(got.middle) == expected
    for k in (1, 5, 10, one_percent(200), one_percent(200, "floor+1")):
        assert recall(got, k) == np.mean([rank < k for rank in expected])
    assert 0.2 < recall(got, 1) < 0.9


def test_any_within_5_m_of_the_first_k(town):
    """CVACT_test: a query is a hit if any of its first K tiles is within 5 m."""
    close = tiles_within(town.query_m, town.tile_m, 5.0)
    got = ranks(town.queries, town.tiles, close, max_bytes=SMALL_BYTES)
    for k in (1, 5, 20):
        hits = [
            any(town.apart_m[q, tile] <= 5 for tile in np.argsort(row)[:k])
            for q, row in enumerate(town.distances())
        ]
        assert recall(got, k) == np.mean(hits)
    assert 0 < recall(got, 20) < np.mean(np.diff(close.starts) > 0) < 1  # some have none at all


def test_local_recall_ranks_within_the_radius_of_the_true_place(town):
    """Xia et al. (2020): strictly nearer ones among the tiles within 60 m."""
    near = tiles_within(town.query_m, town.tile_m, 60.0)
    got = ranks(town.queries, town.tiles, town.own, candidates=near)
    expected = [
        sum(row[j] < row[town.own[q]] for j in range(200) if town.apart_m[q, j] <= 60)
        for q, row in enumerate(town.distances())
    ]
    assert list(got.middle) == expected
    assert list(got.num_tiles) == [np.sum(row <= 60) for row in town.apart_m]


def test_local_recall_with_several_right_tiles(town):
    """Xia et al. (2021): the nearest descriptor within 15 m against those 15 to 50 m away."""
    right = tiles_within(town.query_m, town.tile_m, 15.0)
    got = ranks(
        town.queries,
        town.tiles,
        right,
        candidates=tiles_within(town.query_m, town.tile_m, 50.0),
    )
    hits = []
    for q, row in enumerate(town.distances()):
        best = min(row[j] for j in range(200) if town.apart_m[q, j] <= 15)
        others = [row[j] for j in range(200) if 15 < town.apart_m[q, j] <= 50]
        hits.append(not any(other < best for other in others))
    assert recall(got, 1) == np.mean(hits)
    assert max(np.diff(right.starts)) > 1


def test_hit_rate_as_published_takes_semi_positives_out_of_the_race(town):
    """VIGOR: the recall at 1 without the three semi-positives."""
    got = ranks(town.queries, town.tiles, town.own, ignored=list(town.semi), max_bytes=SMALL_BYTES)
    hits = []
    for q, row in enumerate(town.distances()):
        racing = np.delete(np.arange(200), town.semi[q])
        hits.append(racing[row[racing].argmin()] == town.own[q])
    assert recall(got, 1) == np.mean(hits) > np.mean(np.array(literal_ranks(town)) < 1)
    assert set(got.num_tiles) == {197}


def test_geometric_hit_rate_looks_whether_the_first_tile_holds_the_camera(town):
    holding = tiles_containing(town.query_m, town.tile_m, 50.0)
    got = ranks(town.queries, town.tiles, holding, max_bytes=SMALL_BYTES)
    firsts = town.distances().argmin(axis=1)
    is_held = (abs(town.tile_m[firsts] - town.query_m) <= 25).all(axis=1)
    assert recall(got, 1) == np.mean(is_held)
    assert np.array_equal(got.first, firsts)


def test_a_coarse_fix_leaves_the_tiles_of_a_box(town):
    """VIGOR: candidates in a box around a fix with a uniform error."""
    fix_m = town.query_m + np.random.default_rng(0).uniform(-50, 50, town.query_m.shape)
    box = tiles_containing(fix_m, town.tile_m, 2 * 60.0)
    got = ranks(town.queries, town.tiles, town.own, candidates=box)
    hits = []
    for q, row in enumerate(town.distances()):
        inside = np.flatnonzero((abs(town.tile_m - fix_m[q]) <= 60).all(axis=1))
        hits.append(inside[row[inside].argmin()] == town.own[q])
    assert recall(got, 1) == np.mean(hits)


def test_metres_are_from_the_query_to_its_first_tile(town):
    got = ranks(town.queries, town.tiles, town.own, max_bytes=SMALL_BYTES)
    expected = [
        town.apart_m[q, min(range(200), key=row.__getitem__)]
        for q, row in enumerate(town.distances())
    ]
    error_m = errors_m(got.first, town.query_m, town.tile_m)
    assert np.allclose(error_m, expected)
    for threshold_m, share in zip(THRESHOLDS_M, metre_curve(error_m), strict=True):
        assert share == np.mean([one < threshold_m for one in expected])


def test_told_offsets_move_the_answer():
    error_m = errors_m(
        np.array([1, 0, -1]),
        np.zeros((3, 2)),
        [[3.0, 0], [0, 8]],
        offset_m=[[0, -2], [0, 4], [0, 0]],
    )
    assert list(error_m) == [6, 5, np.inf]


def test_several_protocols_of_one_multiplication_are_those_of_each_alone(town):
    near = tiles_within(town.query_m, town.tile_m, 60.0)
    protocols = [
        Protocol(town.own),
        Protocol(town.own, candidates=near),
        Protocol(tiles_within(town.query_m, town.tile_m, 15.0)),
        Protocol(town.own, ignored=list(town.semi)),
    ]
    together = ranks_by(town.queries, town.tiles, protocols, max_bytes=SMALL_BYTES)
    for protocol, got in zip(protocols, together, strict=True):
        alone = ranks(
            town.queries,
            town.tiles,
            protocol.right,
            ignored=protocol.ignored,
            candidates=protocol.candidates,
        )
        assert np.array_equal(got.middle, alone.middle)
        assert np.array_equal(got.first, alone.first)


def test_similarities_that_are_given_rank_as_products_do(town):
    protocols = [
        Protocol(town.own),
        Protocol(town.own, candidates=tiles_within(town.query_m, town.tile_m, 60.0)),
        Protocol(tiles_within(town.query_m, town.tile_m, 15.0)),
        Protocol(town.own, ignored=list(town.semi)),
    ]
    expected = ranks_by(town.queries, town.tiles, protocols)
    similarity = town.queries @ town.tiles.T
    for got, one in zip(ranks_of(similarity, protocols), expected, strict=True):
        for name in ("num_better", "num_tied", "num_right", "num_tiles", "first"):
            assert np.array_equal(getattr(got, name), getattr(one, name)), name
    in_blocks = ranks_of((similarity[k : k + 7] for k in range(0, 130, 7)), protocols)
    for got, one in zip(in_blocks, expected, strict=True):
        for name in ("num_better", "num_tied", "num_right", "num_tiles", "first"):
            assert np.array_equal(getattr(got, name), getattr(one, name)), name
    for wrong in (similarity[:100], np.concatenate([similarity, similarity])):
        with pytest.raises(ValueError, match="but right tiles are of 130"):
            ranks_of(iter([wrong[:60], wrong[60:]]), protocols)
    for value in (np.nan, np.inf, -np.inf):
        similarity[3, 4] = value
        with pytest.raises(ValueError, match="must be finite"):
            ranks_of(similarity, protocols)


# Ties


def test_a_constant_network_scores_one_of_n_by_every_protocol(town):
    """Published evaluations, which rank by what is strictly nearer, give it 100 %."""
    constant = unit(np.linspace(1, 2, 16))
    queries, tiles = np.tile(constant, (130, 1)), np.tile(constant, (200, 1))
    close = tiles_within(town.query_m, town.tile_m, 15.0)
    near = tiles_within(town.query_m, town.tile_m, 60.0)
    holding = tiles_containing(town.query_m, town.tile_m, 50.0)
    protocols = {
        "own": (Protocol(town.own), 1 / 200),
        "any close": (Protocol(close), np.mean(np.diff(close.starts)) / 200),
        "hit rate": (Protocol(town.own, ignored=list(town.semi)), 1 / 197),
        "geometric": (Protocol(holding), np.mean(np.diff(holding.starts)) / 200),
        "local": (Protocol(town.own, candidates=near), np.mean(1 / np.diff(near.starts))),
    }
    got = ranks_by(queries, tiles, [one for one, _ in protocols.values()], max_bytes=SMALL_BYTES)
    for (name, (_, expected)), found in zip(protocols.items(), got, strict=True):
        assert recall(found, 1) == pytest.approx(expected, rel=1e-6), name
    assert recall(got[0], one_percent(200)) == pytest.approx(0.01)
    assert recall(got[0], 200) == 1
    assert set(got[0].middle) == {99.5}
    error_m = errors_m(got[0].first, town.query_m, town.tile_m)
    assert np.mean(error_m == errors_m(town.own, town.query_m, town.tile_m)) < 0.05


def test_rounding_does_not_order_what_is_the_same(town):
    """Blocks of other sizes round the products of a constant network in other ways."""
    constant = unit(np.random.default_rng(3).normal(size=1021))
    tiles = np.tile(constant, (301, 1))
    for max_bytes in (200_000, 700_000, MAX_BYTES):
        got = ranks(tiles[:97], tiles, np.arange(97), max_bytes=max_bytes)
        assert set(got.num_better) == {0} and set(got.num_tied) == {300}


@pytest.mark.parametrize(("right", "tied", "better"), [(1, 0, 2), (1, 3, 0), (2, 3, 1), (3, 1, 0)])
def test_ties_are_the_mean_over_all_orders(right, tied, better):
    got = Ranks(*np.array([[better], [tied], [right], [9], [0]]))
    orders = list(itertools.permutations([True] * right + [False] * tied))
    for k in range(1, 8):
        hits = [any(([False] * better + list(order))[:k]) for order in orders]
        assert got.hits(k)[0] == pytest.approx(np.mean(hits))
    places = [better + order.index(True) for order in orders]
    assert got.middle[0] == pytest.approx(np.mean(places))


def test_a_query_without_a_right_tile_is_a_miss(town):
    right = [[] for _ in range(130)]
    right[0] = [town.own[0]]
    near = [np.arange(200)] * 130
    for options in ({}, {"candidates": near}):
        got = ranks(town.queries, town.tiles, right, **options)
        assert recall(got, 200) == pytest.approx(1 / 130)
        assert set(got.num_better[1:]) == {200} and np.isinf(got.middle[1:]).all()


def test_a_prior_without_the_right_tile_is_a_miss_and_an_empty_one_too(town):
    candidates = [np.setdiff1d(np.arange(200), [own]) for own in town.own]
    candidates[3] = np.empty(0, int)
    got = ranks(town.queries, town.tiles, town.own, candidates=candidates)
    assert recall(got, 200) == 0 and got.first[3] == -1 and got.num_tiles[3] == 0


def test_a_tile_listed_twice_counts_once(town):
    twice = [[own, own] for own in town.own]
    got = ranks(town.queries, town.tiles, twice, ignored=[[*row, *row] for row in town.semi])
    assert set(got.num_right) == {1} and set(got.num_tiles) == {197}


# Conventions


def test_three_counts_of_one_percent():
    counts = [one_percent(8884, name) for name in ("floor", "floor+1", "round+1")]
    assert counts == [88, 89, 90]
    assert [one_percent(951, name) for name in ("floor", "floor+1", "round+1")] == [9, 10, 11]


def test_edges_and_radii_are_inclusive():
    tile_m = np.array([[0.0, 0], [10, 0], [10, 10]])
    assert list(tiles_within([[0.0, 0]], tile_m, 10.0)[0]) == [0, 1]
    assert list(tiles_containing([[0.0, 0]], tile_m, 20.0)[0]) == [0, 1, 2]
    assert list(tiles_containing([[0.0, 0]], tile_m, 19.9)[0]) == [0]


def test_tiles_of_other_sides_hold_what_is_in_them(town):
    """One city's tiles are larger than another's."""
    side_m = np.random.default_rng(5).choice([30.0, 50.0, 76.8], 200)
    holding = tiles_containing(town.query_m, town.tile_m, side_m)
    assert len(holding) == 130
    for q, place_m in enumerate(town.query_m):
        inside = abs(town.tile_m - place_m).max(axis=1) <= side_m / 2
        assert list(holding[q]) == list(np.flatnonzero(inside))
    for count in (0, 1):
        few = tiles_containing(town.query_m[:count], town.tile_m, side_m)
        assert (
            len(few) == count and len(tiles_within(town.query_m[:count], town.tile_m, 9)) == count
        )


def test_neighbours_are_the_same_in_blocks(town, monkeypatch):
    whole = tiles_within(town.query_m, town.tile_m, 60.0)
    monkeypatch.setattr("crossview.retrieval_evaluation._CENTRES", 7)
    blocks = tiles_within(town.query_m, town.tile_m, 60.0)
    assert np.array_equal(whole.starts, blocks.starts)
    assert np.array_equal(whole.indices, blocks.indices)


def test_great_circle_by_hand():
    # a degree of latitude, and one of longitude at 60 degrees, of VIGOR's sphere
    assert great_circle_m(10, 20, 11, 20) == pytest.approx(6_371_004 * np.pi / 180)
    assert great_circle_m(60, -0.5, 60, 0.5) == pytest.approx(55_597, rel=1e-4)


# Size


def test_vigors_evaluation_needs_less_than_a_gigabyte_beside_its_descriptors():
    """52,605 queries and 90,618 tiles of 4096: the published matrix has 38 GB."""
    plan = BlockPlan.of(4096)
    products = plan.rows**2 * (4 + 1)  # float32, and a comparison of them
    descriptors = 3 * plan.rows * 4096 * 4  # queries, tiles, right tiles beside their queries
    of_each_query = 52_605 * 8 * 40  # counts and lists
    assert products + descriptors == plan.num_bytes <= MAX_BYTES
    assert plan.num_bytes + of_each_query < 300 * 2**20 < 1e9
    # the gallery is read once for each block of queries
    assert -(-52_605 // plan.rows) == 14


@pytest.mark.parametrize("width", [1, 16, 512, 4096, 100_000])
def test_block_plans_use_what_they_may(width):
    plan, larger = BlockPlan.of(width), BlockPlan.of(width).rows + 1
    assert plan.num_bytes <= MAX_BYTES < 5 * larger**2 + 12 * width * larger


def test_one_row_must_fit():
    with pytest.raises(ValueError, match="One row of descriptors of 4096 needs more than 1000"):
        BlockPlan.of(4096, 1000)


def anonymous_bytes():
    """Memory of this process that is not mapped from files."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_stays_at_the_plan_beside_mapped_descriptors(tmp_path):
    num_queries, num_tiles, width = 6000, 12_000, 256
    rng = np.random.default_rng(0)
    for name, num_rows in {"queries": num_queries, "tiles": num_tiles}.items():
        np.save(tmp_path / f"{name}.npy", unit(rng.normal(size=(num_rows, width))))
    queries, tiles = (
        np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("queries", "tiles")
    )
    ranks(queries[:9], tiles[:9], np.arange(9))  # BLAS takes its own buffers once
    limit, before = 32 * 2**20, anonymous_bytes()
    peak, is_done = before, threading.Event()

    def watch():
        nonlocal peak
        while not is_done.wait(0.002):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    got = ranks(queries, tiles, np.arange(num_queries), max_bytes=limit)
    is_done.set()
    watcher.join()
    matrix = 4 * num_queries * num_tiles
    assert peak - before < limit + 24 * 2**20 < matrix / 4
    assert recall(got, num_tiles) == 1


def test_half_precision_galleries_rank_as_their_numbers_do(town):
    half = town.tiles.astype(np.float16)
    got = ranks(town.queries, half, town.own, max_bytes=SMALL_BYTES)
    scores = town.queries.astype(np.float64) @ half.astype(np.float64).T
    expected = [np.sum(row > row[own]) for row, own in zip(scores, town.own, strict=True)]
    assert list(got.num_better) == expected


# Bad input


def with_row(descriptors, row, value):
    changed = descriptors.copy()
    changed[row] = value
    return changed


def test_images_without_a_descriptor_are_refused_and_never_scored(town):
    bad = with_row(town.tiles, 150, 0.0)
    with pytest.raises(ValueError, match="row 150 of the tiles has the squared norm 0"):
        ranks(town.queries, bad, town.own, max_bytes=SMALL_BYTES)
    bad = with_row(town.queries, 77, np.nan)
    with pytest.raises(ValueError, match="row 77 of the queries has the squared norm nan"):
        ranks(bad, town.tiles, town.own, max_bytes=SMALL_BYTES)
    with pytest.raises(ValueError, match="row 77 of the queries"):
        ranks(bad, town.tiles, town.own, candidates=[np.arange(200)] * 130)


def test_lists_of_other_queries_or_tiles_are_refused(town):
    with pytest.raises(ValueError, match="right is for 129 queries, but there are 130"):
        ranks(town.queries, town.tiles, town.own[1:])
    with pytest.raises(ValueError, match="right has indices outside of the 100 tiles"):
        ranks(town.queries, town.tiles[:100], town.own)
    with pytest.raises(ValueError, match="Queries have 16 numbers and tiles 8"):
        ranks(town.queries, town.tiles[:, :8], town.own)
    with pytest.raises(ValueError, match="convention must be one of floor, "):
        one_percent(10, "ceil")
