"""Approximate search: exact where FAISS is, honest about what it misses, refused by name."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from fakes.galleries import descriptors, gallery

from crossview.errors import GalleryError, MissingExtraError
from crossview.faiss_search import FaissIndex

QUERIES = descriptors(20, seed=4)


@pytest.fixture(scope="module")
def made():
    pytest.importorskip("faiss")
    return gallery(600)


def test_a_flat_index_finds_what_exact_search_finds(made):
    found, exact = FaissIndex.of(made, "Flat").search(QUERIES, 7), made.search_many(QUERIES, 7)
    np.testing.assert_array_equal(found.rows, exact.rows)
    np.testing.assert_allclose(found.similarity, exact.similarity, atol=1e-6)


def test_bytes_are_ranked_by_the_numbers_that_they_stand_for(made):
    index = FaissIndex.of(made)
    assert index.recall(QUERIES, 5) == 1.0
    raw = index.index.search(QUERIES, 5)[0]
    exact = made.search_many(QUERIES, 5).similarity
    assert np.abs(raw - exact).max() > 1e-5  # the index itself only knows bytes
    np.testing.assert_allclose(index.search(QUERIES, 5).similarity, exact, atol=1e-6)


def test_what_is_no_descriptor_is_refused(made):
    queries = QUERIES.copy()
    queries[1, 3] = np.nan
    with pytest.raises(GalleryError, match="NaN"):
        FaissIndex.of(made, "Flat").search(queries, 3)


def test_recall_is_the_share_that_is_found(made):
    index = FaissIndex.of(made, "IVF8,Flat")  # looks into one of eight lists
    found, exact = (
        index.search(QUERIES, 5).rows.tolist(),
        made.search_many(QUERIES, 5).rows.tolist(),
    )
    shares = [len({*a} & {*b}) / 5 for a, b in zip(found, exact, strict=True)]
    assert 0.1 < index.recall(QUERIES, 5) < 0.9
    assert index.recall(QUERIES, 5) == pytest.approx(np.mean(shares))


def test_what_is_not_found_is_said(made):
    few = FaissIndex.of(made, "IVF64,Flat").search(QUERIES, 100)
    missing = few.rows < 0
    assert missing.any()
    assert np.all(few.similarity[missing] == -np.inf)
    assert np.all(np.diff(missing.astype(int), axis=1) >= 0)  # they come last


def test_an_index_comes_back_for_its_own_gallery_only(made, tmp_path):
    index = FaissIndex.of(made)
    index.save(tmp_path / "g.index")
    again = FaissIndex.load(tmp_path / "g.index", made).search(QUERIES, 3)
    np.testing.assert_array_equal(again.rows, index.search(QUERIES, 3).rows)
    with pytest.raises(GalleryError, match="600 descriptors"):
        FaissIndex.load(tmp_path / "g.index", gallery(500))
    another = replace(made, descriptors=descriptors(600, seed=9))
    with pytest.raises(GalleryError, match="another model"):
        FaissIndex.load(tmp_path / "g.index", another)
    (tmp_path / "g.index").write_bytes(b"nothing")
    with pytest.raises(GalleryError, match="no index of FAISS"):
        FaissIndex.load(tmp_path / "g.index", made)


def test_an_impossible_index_is_refused(made):
    for factory in ("Nonsense", "IVF5000,Flat"):
        with pytest.raises(GalleryError, match=factory):
            FaissIndex.of(made, factory)


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"crossview\[faiss\]"):
        FaissIndex.of(gallery(10))
