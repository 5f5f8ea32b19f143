"""Descriptors compared exactly: which rows of many are most like some.

Descriptors have length one, so that their product is the cosine of the angle between them. Both
sides may be float32 or float16; products are float32.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 16_384
"""Rows that are compared at a time: 32 MB of 512 float32."""

BLOCK_QUERIES = 1024
"""Queries that are compared at a time: their products with a block of rows take 64 MB."""

_FEWEST_PER_RUN = 16
"""Runs of rows that are shorter on average are gathered instead of sliced."""

_GAP_ROWS = 8
"""A gap up to this is read along: a slice costs as much as some rows."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The rows most like a query, best first.

    Args:
        rows: Which, (k,); of many queries (queries, k).
        similarity: Product with the query, of the same shape.
    """

    rows: np.ndarray
    similarity: np.ndarray


def to_rows(descriptors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Products of some rows with queries, (n, queries) float32; no other row is looked at but in
    small gaps.

    Args:
        descriptors: (N, D), perhaps memory-mapped.
        queries: (queries, D) float32.
        rows: (n,) in ascending order, at least one.
    """
    breaks = (np.flatnonzero(np.diff(rows) > _GAP_ROWS) + 1).tolist()
    if len(rows) < _FEWEST_PER_RUN * (len(breaks) + 1):
        blocks = [rows[a : a + BLOCK_ROWS] for a in range(0, len(rows), BLOCK_ROWS)]
        return np.concatenate([_product(descriptors[block], queries) for block in blocks])
    products = np.empty((len(rows), len(queries)), np.float32)
    for start, end in itertools.pairwise((0, *breaks, len(rows))):
        run = rows[start:end]
        first = int(run[0])
        products[start:end] = _product(descriptors[first : run[-1] + 1], queries)[run - first]
    return products


def to_all(descriptors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Products of all rows with queries, (N, queries) float32."""
    blocks = range(0, len(descriptors), BLOCK_ROWS)
    return np.concatenate([_product(descriptors[a : a + BLOCK_ROWS], queries) for a in blocks])


def best(score: np.ndarray, k: int) -> np.ndarray:
    """Where the k highest of (n,) are, best first; ties in their order."""
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}.")
    if k >= len(score):
        return np.argsort(-score, kind="stable")
    among = np.flatnonzero(score >= np.partition(score, -k)[-k])
    return among[np.argsort(-score[among], kind="stable")[:k]]


def search(descriptors: np.ndarray, queries: np.ndarray, k: int) -> Ranking:
    """The k rows most like each query, exactly, in blocks; ties in the order of rows.

    Args:
        descriptors: (N, D), perhaps memory-mapped.
        queries: (queries, D) float32.
        k: How many; at most N are found.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}.")
    k = min(k, len(descriptors))
    parts = [
        _search_block(descriptors, queries[first : first + BLOCK_QUERIES], k)
        for first in range(0, len(queries), BLOCK_QUERIES)
    ]
    empty = Ranking(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    return Ranking(
        np.concatenate([empty.rows, *(part.rows for part in parts)]),
        np.concatenate([empty.similarity, *(part.similarity for part in parts)]),
    )


def _search_block(descriptors: np.ndarray, queries: np.ndarray, k: int) -> Ranking:
    found = Ranking(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
    for first in range(0, len(descriptors), BLOCK_ROWS):
        block = descriptors[first : first + BLOCK_ROWS].astype(np.float32, copy=False)
        scores = queries @ block.T
        if found.rows.shape[1] == k:
            # later rows lose ties, so only what is better can be among the best
            hits = scores > found.similarity[:, -1:]
        else:
            rank = min(k, scores.shape[1])
            hits = scores >= np.partition(scores, -rank)[:, -rank, None]
        # on two axes nonzero takes eight times as long
        query, col = np.divmod(np.flatnonzero(hits), scores.shape[1])
        found = _with_hits(found, query, Ranking(first + col, scores[query, col]), k)
    return found


def _with_hits(found: Ranking, query: np.ndarray, hits: Ranking, k: int) -> Ranking:
    """The k best of each query after some more rows, (hits,), which are few."""
    num_queries, num_before = found.rows.shape
    queries = np.concatenate([np.repeat(np.arange(num_queries), num_before), query])
    rows = np.concatenate([found.rows.ravel(), hits.rows])
    similarity = np.concatenate([found.similarity.ravel(), hits.similarity])
    order = np.lexsort((rows, -similarity, queries))
    counts = np.bincount(queries, minlength=num_queries)
    starts = np.r_[0, np.cumsum(counts)[:-1]]
    kept = order[starts[:, None] + np.arange(min(k, counts.min()))]
    return Ranking(rows[kept], similarity[kept])


def _product(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32, copy=False)
    if len(queries) == 1:  # as a vector: BLAS is quicker
        return (rows @ queries[0])[:, None]
    return rows @ queries.T
