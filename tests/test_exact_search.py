"""Exact comparison against sorting everything."""

import numpy as np
import pytest
from fakes.galleries import descriptors

from crossview import exact_search


def full_sort(rows, query, k):
    """Indices by falling product and rising index, one product at a time."""
    scored = [(-float(np.dot(row.astype(np.float32), query)), i) for i, row in enumerate(rows)]
    return [i for _, i in sorted(scored)[:k]]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_search_is_exact_whatever_the_blocks(monkeypatch, block, dtype):
    monkeypatch.setattr(exact_search, "BLOCK_ROWS", block)
    monkeypatch.setattr(exact_search, "BLOCK_QUERIES", 4)
    rows, queries = descriptors(150).astype(dtype), descriptors(9, seed=5)
    found = exact_search.search(rows, queries, 6)
    assert found.rows.tolist() == [full_sort(rows, query, 6) for query in queries]
    expected = np.take_along_axis(queries @ rows.astype(np.float32).T, found.rows, axis=1)
    np.testing.assert_allclose(found.similarity, expected, atol=1e-6)


@pytest.mark.parametrize("block", [3, 1000])
def test_ties_go_to_the_first_row(monkeypatch, block):
    monkeypatch.setattr(exact_search, "BLOCK_ROWS", block)
    # sums of quarters are exact, wherever in a block BLAS adds them
    rows = np.tile(np.array([[1, 1, 1, 1], [1, 1, 1, -1], [1, -1, -1, 1]], np.float32) / 2, (5, 1))
    found = exact_search.search(rows, rows[1:2], 7)
    assert found.rows[0, :5].tolist() == [1, 4, 7, 10, 13]
    np.testing.assert_array_equal(exact_search.best(np.array([0.1, 0.9, 0.9, 0.3, 0.9]), 2), [1, 2])


def test_more_than_there_are_are_all(monkeypatch):
    monkeypatch.setattr(exact_search, "BLOCK_ROWS", 4)
    rows = descriptors(10)
    found = exact_search.search(rows, rows[:2], 50)
    assert found.rows.shape == (2, 10)
    assert found.rows[0].tolist() == full_sort(rows, rows[0], 10)
    assert exact_search.search(rows, rows[:0], 3).rows.shape == (0, 3)


def test_no_best_is_refused():
    with pytest.raises(ValueError, match="k must be"):
        exact_search.search(descriptors(3), descriptors(1), 0)
    with pytest.raises(ValueError, match="k must be"):
        exact_search.best(np.zeros(3), 0)


@pytest.mark.parametrize(
    "rows",
    [[0], [5, 6, 7], [0, 1, 2, 40, 41, 42, 99], list(range(20, 80, 2)), list(range(0, 100, 20))],
    ids=["one", "a run", "short runs", "small gaps", "scattered"],
)
@pytest.mark.parametrize("num_queries", [1, 3])
def test_products_of_some_rows_are_those_of_all(rows, num_queries):
    everything, queries = descriptors(100), descriptors(num_queries, seed=9)
    expected = exact_search.to_all(everything, queries)[rows]
    np.testing.assert_allclose(
        exact_search.to_rows(everything, queries, np.array(rows)), expected, atol=1e-6
    )


class Watched:
    """Rows that remember which of them were looked at."""

    def __init__(self, rows):
        self.rows, self.seen = rows, set()

    def __getitem__(self, index):
        numbers = np.arange(len(self.rows))[index]
        self.seen |= set(numbers.tolist())
        return self.rows[index]


def test_rows_outside_are_not_looked_at():
    watched = Watched(descriptors(10_000))
    rows = np.concatenate([np.arange(100, 130), np.arange(4000, 4030), [4035]])
    exact_search.to_rows(watched, descriptors(1, seed=3), rows)
    assert set(rows.tolist()) <= watched.seen
    assert watched.seen <= {*range(100, 130), *range(4000, 4036)}
