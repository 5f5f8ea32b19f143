"""Evaluation of retrieval against slow literal readings of the published protocols."""

import numpy as np

from crossview.retrieval_evaluation import ranks, recall


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def random_descriptors(num_queries=60, num_tiles=90, width=16, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    tiles = unit(rng.normal(size=(num_tiles, width)))
    queries = tiles[np.arange(num_queries) % num_tiles]
    return unit(queries + noise * rng.normal(size=queries.shape)), tiles


def test_ranks_are_those_of_the_sorted_similarities():
    queries, tiles = random_descriptors()
    got = ranks(queries, tiles, np.arange(60), max_bytes=40_000)
    for k, query in enumerate(queries):
        order = np.argsort(-(tiles.astype(np.float64) @ query))
        assert got.num_better[k] == list(order).index(k)


def test_a_constant_network_scores_k_of_n():
    same = unit(np.ones((90, 16)))
    got = ranks(same[:60], same, np.arange(60), max_bytes=40_000)
    assert np.allclose([recall(got, 1), recall(got, 9)], [1 / 90, 9 / 90])
