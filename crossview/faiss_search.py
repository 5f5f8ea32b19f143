"""Large searches without a prior by FAISS (extra `faiss`): candidates quickly, then ranked exactly.

With a prior it is not needed: a disc holds some hundred tiles of a million, and reading those takes
less time than an index with a filter (python -m benchmarks gallery).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import atomic, exact_search
from crossview.errors import GalleryError, MissingExtraError
from crossview.exact_search import Ranking

if TYPE_CHECKING:
    from crossview.gallery import Gallery

FACTORY = "SQ8"
"""One byte for each number: a quarter of the memory, and nearly every neighbour is found."""

OVERSAMPLING = 8
"""Candidates for each tile that is wanted."""

_TRAINING_ROWS = 100_000
_PROBES = 32
"""Descriptors of a gallery that an index of it is asked for when it is read."""


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An approximate index over the descriptors of a gallery.

    Args:
        gallery: Ranks the candidates.
        index: Finds them by inner products; in the order of the gallery's rows.
    """

    gallery: Gallery
    index: Any

    @classmethod
    def of(cls, gallery: Gallery, factory: str = FACTORY) -> FaissIndex:
        """Build an index.

        Args:
            gallery: What is searched.
            factory: As faiss.index_factory takes it: "SQ8" is small, "IVF1024,SQ8" quick. What
                it misses depends on the descriptors: see recall.

        Raises:
            MissingExtraError: FAISS is not installed.
            GalleryError: FAISS does not know the factory, or cannot train it on so few tiles.
        """
        faiss, rows = _faiss(), gallery.descriptors
        try:
            index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            index.train(rows[:: max(len(rows) // _TRAINING_ROWS, 1)].astype(np.float32))
        except RuntimeError as error:
            raise GalleryError(
                f"FAISS cannot make an index {factory!r} of {len(rows)} descriptors "
                f"({str(error).splitlines()[-1]}). Use 'Flat' or 'SQ8'."
            ) from error
        for first in range(0, len(rows), exact_search.BLOCK_ROWS):
            index.add(rows[first : first + exact_search.BLOCK_ROWS].astype(np.float32))
        return cls(gallery, index)

    @classmethod
    def load(cls, path: str | Path, gallery: Gallery) -> FaissIndex:
        """Inverse of save.

        Raises:
            MissingExtraError: FAISS is not installed.
            GalleryError: The file is no index, or one of another gallery.
        """
        try:
            index = _faiss().read_index(str(path))
        except RuntimeError as error:
            raise GalleryError(f"{path} is no index of FAISS.") from error
        if (index.ntotal, index.d) != gallery.descriptors.shape:
            raise GalleryError(
                f"{path} is of {index.ntotal} descriptors of {index.d} numbers and the gallery "
                f"{gallery.name!r} has {gallery.descriptors.shape}. Build it again."
            )
        loaded = cls(gallery, index)
        if (share := loaded._knows_its_own()) < 0.5:
            raise GalleryError(
                f"{path} finds {share:.0%} of the descriptors of the gallery {gallery.name!r} when "
                "it is asked for them: it is of another model or other tiles. Build it again."
            )
        return loaded

    def save(self, path: str | Path) -> None:
        """Write the index to a file."""
        with atomic.replacing(path) as temporary:
            _faiss().write_index(self.index, str(temporary))

    def search(self, descriptors: np.ndarray, k: int) -> Ranking:
        """As Gallery.search_many, among OVERSAMPLING * k candidates of each query.

        Where the index finds fewer than k, the last rows are -1 and their similarity -inf.
        """
        queries = np.ascontiguousarray(self.gallery.checked(descriptors))
        count = min(OVERSAMPLING * k, self.gallery.num_tiles)
        _, candidates = self.index.search(queries, count)
        similarity = np.full(candidates.shape, -np.inf, np.float32)
        for of_query, rows, query in zip(similarity, candidates, queries, strict=True):
            found = np.flatnonzero(rows >= 0)
            of_query[found] = self.gallery.descriptors[rows[found]].astype(np.float32) @ query
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return Ranking(
            np.take_along_axis(candidates, best, axis=1),
            np.take_along_axis(similarity, best, axis=1),
        )

    def _knows_its_own(self) -> float:
        """Share of some descriptors of the gallery that are found by themselves."""
        rows = np.linspace(0, self.gallery.num_tiles - 1, _PROBES).astype(np.intp)
        asked = self.gallery.descriptors[rows].astype(np.float32)
        found = self.search(asked, OVERSAMPLING).similarity[:, 0]
        return float(np.mean(found >= np.square(asked).sum(axis=1) - 1e-3))

    def recall(self, descriptors: np.ndarray, k: int) -> float:
        """Share of the exact k best that this finds."""
        exact, found = self.gallery.search_many(descriptors, k), self.search(descriptors, k)
        hits = [np.isin(a, b) for a, b in zip(exact.rows, found.rows, strict=True)]
        return float(np.mean(hits))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            "Approximate search needs faiss: pip install 'crossview[faiss]'. Gallery.search_many "
            "is exact and needs nothing."
        ) from error
    return faiss
