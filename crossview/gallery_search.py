"""One query answered by a gallery: the tiles most like it, with their places and probabilities."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crossview.angles import normalize_deg
from crossview.describers import Orienting
from crossview.errors import GalleryError
from crossview.exact_search import Ranking
from crossview.gallery import Gallery
from crossview.posterior import Posterior
from crossview.preprocessing import stated_heading_deg
from crossview.statements import OUTSIDE
from crossview.strips import Prior

_TILES_AT_ONCE = 256
"""Tiles that are aligned at a time: 4 MB of 4,096 numbers each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundTile:
    """A tile that a query looks like.

    Args:
        tile_id: Its name.
        similarity: 1 is equal.
        lat_deg: Latitude of its middle.
        lon_deg: Longitude of its middle.
        probability: That it shows the place of the query; None where nobody can say.
        heading_deg: Where the middle of the query looks if it belongs to the tile, clockwise from
            true north; None where the encoder was not asked.
    """

    tile_id: str
    similarity: float
    lat_deg: float
    lon_deg: float
    probability: float | None = None
    heading_deg: float | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """The tiles of a gallery most like a query.

    Args:
        gallery: Its name.
        ranking: Rows of the gallery, best first.
        tiles: The same with names and places.
        probability_none: That none of the gallery's tiles inside of the prior is right; None where
            nobody can say.
    """

    gallery: str
    ranking: Ranking
    tiles: tuple[FoundTile, ...]
    probability_none: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values, without what nobody can say."""
        answer = {"gallery": self.gallery, "found": [_said(asdict(tile)) for tile in self.tiles]}
        return {**answer, **_said({"probability_none": self.probability_none})}

    def sentences(self) -> str:
        """A line for every tile, and one for none of them."""
        lines = []
        for tile in self.tiles:
            stated = "" if tile.probability is None else f"{tile.probability:6.1%}  "
            looks = "" if tile.heading_deg is None else f"  looks {tile.heading_deg:.0f} deg"
            place = f"{tile.lat_deg:.6f} {tile.lon_deg:.6f}"
            lines.append(f"{tile.similarity:.4f}  {stated}{place}  {tile.tile_id}{looks}")
        if self.probability_none is not None:
            lines.append(f"none of these tiles: {self.probability_none:.1%}")
        return "\n".join(lines)


def find(
    gallery: Gallery,
    query: Any,
    k: int,
    *,
    heading_deg: float | None = None,
    prior: Prior | None = None,
    none: float = OUTSIDE,
) -> Found:
    """The tiles that a photo or panorama looks like.

    Of a query whose heading is known one descriptor is compared, and of another one for each of the
    gallery's headings, of which the best counts. Where the gallery has one heading only, an encoder
    that finds headings itself (see gallery.Orienting) aligns the query with every tile: similarity
    is that of its `similarities`, as in `crossview evaluate retrieval`, and headings are told, but
    no probabilities, as the gallery's scale is that of known headings.

    Args:
        gallery: With an encoder.
        query: What was photographed.
        k: Tiles at most.
        heading_deg: Where the middle of the query looks, clockwise from true north; by default what
            it says of itself.
        prior: As in Gallery.search.
        none: Probability, before the query is seen, that no tile shows it.

    Raises:
        GalleryError: See Gallery.described; or a Posterior is the prior of a query that is aligned.
        MapOutsideError: No tile lies inside of the prior.
    """
    if heading_deg is None:
        heading_deg = stated_heading_deg(query)
    if heading_deg is None and gallery.num_headings == 1 and isinstance(gallery.encoder, Orienting):
        return _aligned(gallery, gallery.encoder, query, k, prior)
    described = gallery.described(query, heading_deg=heading_deg)
    ranking = gallery.search(described, k, prior=prior)
    if gallery.scale is None:
        return _found(gallery, ranking)
    stated = gallery.probabilities(described, prior=prior, none=none)
    probability = stated.probability[np.searchsorted(stated.rows, ranking.rows)]
    return _found(gallery, ranking, probability=probability.tolist(), probability_none=stated.none)


def _aligned(
    gallery: Gallery, encoder: Orienting, query: Any, k: int, prior: Prior | None
) -> Found:
    if isinstance(prior, Posterior):
        raise GalleryError(
            f"A prior of probabilities is weighed by the scale of the {gallery.title}, and that is "
            "of queries whose heading is known. State the heading, build the gallery with several "
            "headings (--headings 64), or give a disc or a polygon as the prior."
        )
    if gallery.scale is not None:
        _log.warning(
            "No probabilities are stated: the scale of the %s is that of queries whose heading is "
            "known. State the heading, or build the gallery with several headings (--headings 64).",
            gallery.title,
        )
    # straight ahead is the tiles' upper edge
    ahead = gallery.described(query, heading_deg=gallery.convergence_deg)
    rows = gallery.rows_inside(prior)
    similarity = np.concatenate(
        [
            np.asarray(encoder.similarities(_descriptors(gallery, block), ahead))[:, 0]
            for block in np.split(rows, range(_TILES_AT_ONCE, len(rows), _TILES_AT_ONCE))
        ]
    )
    ranking = gallery.ranked(rows, similarity, k, prior=prior)
    looks_deg = np.asarray(encoder.headings_deg(_descriptors(gallery, ranking.rows), ahead))[:, 0]
    true_deg = normalize_deg(looks_deg + gallery.convergence_deg)
    return _found(gallery, ranking, heading_deg=true_deg.tolist())


def _descriptors(gallery: Gallery, rows: np.ndarray) -> np.ndarray:
    return gallery.descriptors[rows].astype(np.float32)


def _found(
    gallery: Gallery,
    ranking: Ranking,
    *,
    probability_none: float | None = None,
    **columns: list[float],
) -> Found:
    """With names and places; columns are further fields of tiles."""
    lat_deg, lon_deg = gallery.frame.to_geodetic(*gallery.positions_m[ranking.rows].T)
    table = {
        "tile_id": gallery.tile_ids[ranking.rows].tolist(),
        "similarity": ranking.similarity.tolist(),
        "lat_deg": lat_deg.tolist(),
        "lon_deg": lon_deg.tolist(),
        **columns,
    }
    rows = zip(*table.values(), strict=True)
    tiles = tuple(FoundTile(**dict(zip(table, row, strict=True))) for row in rows)
    return Found(gallery.name, ranking, tiles, probability_none)


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
