"""Galleries: what a whole place looks like from above, as one descriptor per tile.

A gallery is a very coarse map whose cells hold descriptors. It answers two questions: which tiles
look like a query (`search`, `search_many`), and how probable the query is at every pose
(`log_likelihood`), which is what the Localizer asks.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crossview import angles, exact_search, gallery_files
from crossview.cell_owners import CellShares, log_mean_exp
from crossview.describers import Orienting
from crossview.errors import (
    FrameMismatchError,
    GalleryError,
    MapOutsideError,
    OutOfRegionError,
)
from crossview.exact_search import Ranking
from crossview.frames import LocalFrame
from crossview.gallery_files import STRIP_M, Excluded, Model
from crossview.grids import Bounds, MapGrid, PoseGrid
from crossview.posterior import Posterior
from crossview.preprocessing import stated_heading_deg
from crossview.retrieval_evaluation import great_circle_m
from crossview.statements import OUTSIDE
from crossview.strips import Disc, Prior, Strips, probability_at, strip_order

__all__ = [
    "Disc",
    "Encoder",
    "Gallery",
    "Orienting",
    "Prior",
    "Ranking",
    "TileProbabilities",
    "knows_any_heading",
    "require_headings",
    "takes_headings",
]

MAX_REFERENCE_TILES = 8192
"""Tiles, evenly over the gallery, that say how likely a query is at any place."""

_CELLS_PER_FOOTPRINT = 4
"""Of a grid with fewer cells along the side of a tile, parts of cells are looked at."""

_LENGTH_TOLERANCE = 1e-3
"""How far the length of a query's descriptor may be off one."""


class Encoder(Protocol):
    """What makes descriptors: one of crossview.nn.encoders, or anything like it."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that the descriptors depend on."""

    @property
    def preprocessing(self) -> Any:
        """How images become its input (crossview.preprocessing.Preprocessing)."""

    def describe_tiles(self, images: Any) -> np.ndarray:
        """Square, north-up RGB images to descriptors of length one, (images, dimensions)."""

    def describe(self, query: Any, headings_deg: np.ndarray | None = None) -> np.ndarray:
        """The descriptor of a query, (dimensions,).

        Or with headings one for each, (headings, dimensions): as if the middle of the query looked
        there, clockwise from the tiles' upper edge.
        """


def takes_headings(encoder: Encoder) -> bool:
    """Whether descriptors of a query depend on where it is said to look.

    They do not where an encoder of a limited field of view sees the middle of a query, wherever
    that looks.
    """
    return encoder.preprocessing.is_full_turn or isinstance(encoder, Orienting)


def knows_any_heading(encoder: Encoder) -> bool:
    """Whether an encoder was trained on queries that look anywhere, and so is to be told nothing.

    Its heading_spread_deg says so (see nn.encoders.SiameseEncoder), where it has one. Descriptors
    of an Orienting encoder have a heading, however it was trained.
    """
    spread_deg = getattr(encoder, "heading_spread_deg", None)
    return spread_deg == angles.FULL_TURN_DEG / 2 and not isinstance(encoder, Orienting)


def require_headings(encoder: Encoder, num_headings: int) -> None:
    """Refuse to ask an encoder for several headings that cannot be asked.

    Raises:
        GalleryError: It sees nothing of where a query looks.
    """
    if num_headings > 1 and not takes_headings(encoder):
        name = getattr(encoder, "architecture", type(encoder).__qualname__)
        raise GalleryError(
            f"The encoder {name!r} with fov_deg={encoder.preprocessing.fov_deg:g} sees nothing of "
            f"where a query looks, so queries cannot be described at {num_headings} headings. "
            "Build its gallery with one (--headings 1), or use the architecture dsm."
        )


@dataclass(frozen=True, eq=False)
class TileProbabilities:
    """Which tile shows the place of a query.

    Args:
        rows: Tiles of the gallery, (n,).
        probability: Of each, (n,).
        none: That none of them does; all sum to one.
    """

    rows: np.ndarray
    probability: np.ndarray
    none: float


@dataclass(frozen=True, eq=False)
class Gallery:
    """Descriptors of the tiles of a region, by place.

    Make one with `Gallery.of`, or with `Gallery.load` of a folder (see gallery_files).

    Args:
        frame: Where the metres are.
        positions_m: (N, 2) float64, x and y of the middle of each tile, in strips.
        descriptors: (N, D) float32 or float16, of length one; may be memory-mapped.
        tile_ids: (N,) names.
        footprint_m: Side of a tile on the ground.
        model: What made the descriptors.
        encoder: Describes queries; needed for queries that are no descriptors yet.
        scale: What makes similarities log-likelihoods; needed for log_likelihood.
        num_headings: How many descriptors a query has, one for each heading that it may have:
            heading bin k is centred on k * 360 / num_headings. With 1 the encoder is asked once,
            at the heading that the query states, and the answer holds for every heading.
        strip_m: Height of a strip.
        images: (N,) files of the tiles from image_root, or "".
        image_root: Where they begin.
        attribution: What must be said where tiles are shown.
        excluded: Tiles that have no descriptor.
        name: For people.
    """

    frame: LocalFrame
    positions_m: np.ndarray
    descriptors: np.ndarray
    tile_ids: np.ndarray
    footprint_m: float
    model: Model
    encoder: Encoder | None = None
    scale: float | None = None
    num_headings: int = 1
    strip_m: float = STRIP_M
    images: np.ndarray | None = None
    image_root: str = ""
    attribution: str = ""
    excluded: tuple[Excluded, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        positions_m = np.array(self.positions_m, dtype=np.float64)
        descriptors = self.descriptors.view()  # it may be gigabytes
        for name, array in (("positions_m", positions_m), ("descriptors", descriptors)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        num_tiles = len(positions_m)
        if (
            not num_tiles
            or positions_m.shape != (num_tiles, 2)
            or self.descriptors.ndim != 2
            or {len(self.descriptors), len(self.tile_ids)} != {num_tiles}
        ):
            raise GalleryError(
                "A gallery has one or more tiles, each with a place (x, y), a descriptor and a "
                f"name; got {positions_m.shape} places, {self.descriptors.shape} descriptors and "
                f"{len(self.tile_ids)} names."
            )
        if not (np.isfinite(positions_m).all() and 0 < self.footprint_m < math.inf):
            raise GalleryError(
                "A gallery needs finite places and a positive footprint_m, got "
                f"{self.footprint_m} m."
            )
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise GalleryError(f"scale must be positive or None, got {self.scale}.")
        PoseGrid(MapGrid(self.frame, 0.0, 0.0, 1.0, 1, 1), self.num_headings)  # refuses 5 headings
        self.strips  # noqa: B018  # refuses places that are not in strips
        if self.encoder is not None:
            self.model.require(Model.of(self.encoder))
            require_headings(self.encoder, self.num_headings)

    @classmethod
    def of(
        cls,
        frame: LocalFrame,
        positions_m: np.ndarray,
        descriptors: np.ndarray,
        *,
        footprint_m: float,
        model: Model,
        tile_ids: np.ndarray | None = None,
        strip_m: float = STRIP_M,
        **options: Any,
    ) -> Gallery:
        """A gallery in memory, of tiles in any order; options are further fields.

        Raises:
            GalleryError: A descriptor holds NaN or is not of length one, or numbers differ.
        """
        positions_m = np.asarray(positions_m, dtype=np.float64).reshape(-1, 2)
        if tile_ids is None:
            tile_ids = np.array([str(k) for k in range(len(positions_m))], dtype=object)
        if not len(positions_m) == len(descriptors) == len(tile_ids):
            raise GalleryError(
                f"{len(positions_m)} places, {len(descriptors)} descriptors and {len(tile_ids)} "
                "names: each tile has one of each."
            )
        gallery_files.require_descriptors(descriptors, [f"tile {name!r}" for name in tile_ids])
        order = strip_order(positions_m, strip_m)
        return cls(
            frame,
            positions_m[order],
            np.asarray(descriptors)[order],
            np.asarray(tile_ids, dtype=object)[order],
            footprint_m,
            model,
            strip_m=strip_m,
            **options,
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], encoder: Encoder | None = None) -> Gallery:
        """A gallery from its folder; descriptors stay on disk until they are looked at.

        Args:
            folder: What GalleryWriter or `crossview gallery build` made.
            encoder: Describes queries; it must be the one that described the tiles.

        Raises:
            GalleryError: The folder is damaged or not finished, or the encoder is another one.
        """
        folder = Path(folder)
        index, sums = gallery_files.read_index(folder)
        tiles = gallery_files.read_tiles(folder, sums[gallery_files.TILES_FILE])
        return cls(
            frame=index.frame,
            positions_m=tiles[["x_m", "y_m"]].to_numpy(),
            descriptors=gallery_files.mapped_descriptors(folder),
            tile_ids=tiles["tile_id"].to_numpy(),
            footprint_m=index.footprint_m,
            model=index.model,
            encoder=encoder,
            scale=index.scale,
            num_headings=index.num_headings,
            strip_m=index.strip_m,
            images=tiles["image"].to_numpy(),
            image_root=str((folder / index.image_root).resolve()) if index.image_root else "",
            attribution=index.attribution,
            excluded=index.excluded,
            name=index.name or folder.name,
        )

    def with_scale(self, scale: float) -> Gallery:
        """The same with another scale."""
        return replace(self, scale=scale)

    @property
    def num_tiles(self) -> int:
        """How many tiles have a descriptor."""
        return len(self.positions_m)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"gallery {self.name!r}" if self.name else "gallery"

    def image_path(self, row: int) -> Path:
        """The image of a tile.

        Raises:
            GalleryError: The gallery does not say where images are.
        """
        if self.images is None or not self.images[row]:
            raise GalleryError(f"The {self.title} does not say where its images are.")
        return Path(self.image_root) / str(self.images[row])

    # -------------------------------------------------------------- search

    def search(self, query: Any, k: int, *, prior: Prior | None = None) -> Ranking:
        """The k tiles most like a query, exactly; ties go to the first row.

        The prior decides by the places of the tiles which descriptors are looked at. Where it is
        a Posterior, tiles are ranked by similarity and by how probable their place is: similarity
        times the gallery's scale plus the log of the prior's probability.

        Args:
            query: What the encoder describes, or a descriptor, (D,); of several (headings, D) the
                best counts.
            k: How many at most; fewer where the prior holds fewer.
            prior: A Disc, an area of the local frame, or a Posterior.

        Raises:
            MapOutsideError: No tile lies inside of the prior; the message says how far the
                nearest is.
            GalleryError: The prior is a Posterior and the gallery has no scale.
        """
        descriptors = self.described(query)
        rows = self.rows_inside(prior)
        if prior is None:
            similarity = exact_search.to_all(self.descriptors, descriptors)
        else:
            similarity = exact_search.to_rows(self.descriptors, descriptors, rows)
        return self.ranked(rows, similarity.max(axis=1), k, prior=prior)

    def ranked(
        self, rows: np.ndarray, similarity: np.ndarray, k: int, *, prior: Prior | None = None
    ) -> Ranking:
        """As search, of similarities that something else computed.

        Args:
            rows: As rows_inside gives them for the prior, (n,).
            similarity: Of their tiles, (n,).
            k: How many at most.
            prior: As in search.
        """
        score = similarity
        if isinstance(prior, Posterior):
            probability = probability_at(prior, self.positions_m[rows])
            score = self._fitted_scale() * similarity + np.log(probability)
        best = exact_search.best(score, k)
        return Ranking(rows[best], similarity[best])

    def search_many(self, descriptors: np.ndarray, k: int) -> Ranking:
        """As search without a prior, for many descriptors at once: (queries, D) to (queries, k)."""
        return exact_search.search(self.descriptors, self.checked(descriptors), k)

    def checked(self, descriptors: np.ndarray) -> np.ndarray:
        """Descriptors of queries, (queries, D) float32, seen to be some.

        Raises:
            GalleryError: One holds NaN or is not of length one, or has another number of
                dimensions.
        """
        return _checked(np.asarray(descriptors), self.descriptors.shape[1])

    def similarity(self, query: Any) -> np.ndarray:
        """Of a query to every tile, (N,) float32; of several descriptors the best counts."""
        return exact_search.to_all(self.descriptors, self.described(query)).max(axis=1)

    def rows_inside(self, prior: Prior | None) -> np.ndarray:
        """Tiles whose middle a prior holds, all without one: rows in ascending order, (n,) int64.

        Raises:
            FrameMismatchError: A Posterior is in another frame.
            MapOutsideError: There is none; the message says how far the nearest is.
        """
        if prior is None:
            return np.arange(self.num_tiles)
        if isinstance(prior, Posterior):
            self._require_frame(prior.grid.map)
        rows = self.strips.rows_inside(prior)
        if rows.size == 0:
            raise self._outside(self.strips.distance_m(prior))
        return rows

    def disc(self, lat_deg: float, lon_deg: float, radius_m: float) -> Disc:
        """A prior: all places within a distance of one on the globe.

        Raises:
            MapOutsideError: The place is farther away than any tile of a gallery can be; the
                message says how far.
        """
        try:
            return Disc(*self.frame.to_local(lat_deg, lon_deg), radius_m)
        except OutOfRegionError as error:
            middle = self.frame.to_geodetic(*self.positions_m.mean(axis=0))
            away_m = float(great_circle_m(lat_deg, lon_deg, *middle))
            raise MapOutsideError(
                f"No tile of the {self.title} lies inside the prior: latitude {lat_deg:g}, "
                f"longitude {lon_deg:g} is about {away_m / 1000:.0f} km from the gallery. Check "
                "that both are about the same place, and that the two are not swapped."
            ) from error

    # ---------------------------------------------------------- likelihood

    def described(self, query: Any, *, heading_deg: float | None = None) -> np.ndarray:
        """The descriptors of a query, (headings, D) float32; arrays are taken as descriptors.

        One is made at the heading that is given, else one for each of the gallery's num_headings;
        where that is 1, at the heading that the query states. An encoder that sees nothing of where
        a query looks (see takes_headings), or was trained for any heading, makes one without.

        Args:
            query: What the encoder describes.
            heading_deg: Where its middle looks, clockwise from true north, if that is known.

        Raises:
            GalleryError: There is no encoder, a descriptor is none, or nobody says where the query
                looks.
        """
        if isinstance(query, np.ndarray):
            return _checked(np.atleast_2d(query), self.descriptors.shape[1])
        if self.encoder is None:
            raise GalleryError(
                f"The {self.title} was loaded without an encoder, so it cannot describe a "
                f"{type(query).__name__}. Use Gallery.load(folder, encoder)."
            )
        if not takes_headings(self.encoder):
            return _checked(np.atleast_2d(self.encoder.describe(query)), self.descriptors.shape[1])
        headings_deg = self._headings_deg(query, heading_deg)
        described = np.atleast_2d(self.encoder.describe(query, headings_deg=headings_deg))
        if len(described) != len(headings_deg):
            raise GalleryError(
                f"The encoder gave {len(described)} descriptors of a query for "
                f"{len(headings_deg)} headings."
            )
        return _checked(described, self.descriptors.shape[1])

    def log_likelihood(self, query: Any, grid: PoseGrid) -> np.ndarray:
        """How much more likely the query is at a pose than at any place, natural log.

        A cell's tile is the nearest one whose footprint holds the cell's centre; its value is
        scale * similarity, minus the log of the mean of exp(scale * similarity) over the tiles of
        the whole gallery (of MAX_REFERENCE_TILES of them). So 0 is "as any tile": that is the
        value of cells without a tile, and of "none of these tiles".

        Args:
            query: What the encoder describes, or its descriptors, (D,) or (num_headings, D).
            grid: The poses.

        Returns:
            (rows, cols, 1), or (rows, cols, headings) where the gallery has several headings;
            float32.

        Raises:
            FrameMismatchError: The grid is in another frame.
            GalleryError: The gallery has no scale.
            MapOutsideError: No tile reaches the grid.
        """
        descriptors = self._described_for_bins(query)
        rows, shares = self._shares(grid.map)
        return self._spread(self._log_ratios(descriptors, rows), shares, grid)

    def log_likelihood_of(self, similarity: np.ndarray, grid: PoseGrid) -> np.ndarray:
        """As log_likelihood, of similarities that something else computed, such as a correlation.

        Args:
            similarity: Of the query to every tile, (N,) or (N, headings): heading bin k is centred
                on k * 360 / headings.
            grid: The poses.
        """
        similarity = np.asarray(similarity, dtype=np.float64).reshape(len(similarity), -1)
        if len(similarity) != self.num_tiles or not np.isfinite(similarity).all():
            raise GalleryError(
                f"Similarities are one finite number for each of {self.num_tiles} tiles, or one "
                f"for each heading too; got an array of {similarity.shape}."
            )
        rows, shares = self._shares(grid.map)
        scores = self._fitted_scale() * similarity
        return self._spread(scores[rows] - log_mean_exp(scores), shares, grid)

    def probabilities(
        self, query: Any, *, prior: Prior | None = None, none: float = OUTSIDE
    ) -> TileProbabilities:
        """How probable it is that a tile shows the place of a query, and that none does.

        Args:
            query: As in log_likelihood.
            prior: Tiles with their middle inside of it are equally probable before the query; of a
                Posterior as probable as their place.
            none: Probability, before the query was seen, that it is none of these tiles.
        """
        if not 0 <= none < 1:
            raise ValueError(f"none must be a probability in [0, 1), got {none}.")
        descriptors = self._described_for_bins(query)
        rows = self.rows_inside(prior)
        weight = np.ones(len(rows))
        if isinstance(prior, Posterior):
            weight = probability_at(prior, self.positions_m[rows])
        log_ratio = log_mean_exp(self._log_ratios(descriptors, rows), axis=1)
        peak = max(float(log_ratio.max()), 0.0)
        joint = (1 - none) * weight / weight.sum() * np.exp(log_ratio - peak)
        total = joint.sum() + none * math.exp(-peak)
        return TileProbabilities(rows, joint / total, none * math.exp(-peak) / total)

    def owner_of(self, x_m: float, y_m: float) -> int | None:
        """The tile that a place belongs to (see owners); None where there is none."""
        half_m = self.footprint_m / 2
        rows = self.strips.rows_in_box(
            Bounds(x_m - half_m, y_m - half_m, x_m + half_m, y_m + half_m)
        )
        if rows.size == 0:
            return None
        return int(rows[np.abs(self.positions_m[rows] - (x_m, y_m)).max(axis=1).argmin()])

    def reference_similarity(self, descriptors: np.ndarray) -> np.ndarray:
        """Of a query to the tiles that stand for the whole gallery, (tiles, headings) float32."""
        return self._reference @ descriptors.T

    @functools.cached_property
    def convergence_deg(self) -> float:
        """Where the tiles' upper edges point in the middle of the gallery, from true north."""
        return float(self.frame.convergence_deg(*self.positions_m.mean(axis=0)))

    # ------------------------------------------------------------- private

    def _headings_deg(self, query: Any, heading_deg: float | None) -> np.ndarray:
        """Where a query may look, clockwise from the tiles' upper edges, (headings,)."""
        if heading_deg is None and self.num_headings > 1:
            return angles.bin_headings_deg(self.num_headings)
        if heading_deg is None:
            heading_deg = stated_heading_deg(query)
        if heading_deg is None and self.encoder is not None and knows_any_heading(self.encoder):
            return np.zeros(1)
        if heading_deg is None:
            fix = getattr(query, "fix", None)
            magnetic_deg = None if fix is None else fix.heading_deg
            said = "does not say where it looks"
            if magnetic_deg is not None:
                said = (
                    f"says {magnetic_deg:.1f} deg from *magnetic* north (add the declination of "
                    "its place)"
                )
            other = (
                "let gallery_search.find align it"
                if isinstance(self.encoder, Orienting)
                else "train an encoder for any (--heading-spread-deg 180)"
            )
            raise GalleryError(
                f"The {type(query).__name__} {said}, and the {self.title} describes a query at one "
                "heading: its answer would be that of a camera that looks north. State the heading "
                "from true north (heading_deg, --heading-deg), build the gallery with several "
                f"headings (num_headings=16, --headings 16), or {other}."
            )
        return np.array([heading_deg - self.convergence_deg])

    def _described_for_bins(self, query: Any) -> np.ndarray:
        descriptors = self.described(query)
        if len(descriptors) not in {1, self.num_headings}:
            raise GalleryError(
                f"A query has 1 descriptor or one for each of {self.num_headings} headings, got "
                f"{len(descriptors)} descriptors."
            )
        return descriptors

    def _log_ratios(self, descriptors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """How much more likely a query is at tiles and headings than at any, (n, headings)."""
        scale = self._fitted_scale()
        level = log_mean_exp(scale * self.reference_similarity(descriptors).astype(float))
        similarity = exact_search.to_rows(self.descriptors, descriptors, rows)
        return scale * similarity.astype(float) - level

    def _fitted_scale(self) -> float:
        if self.scale is None:
            raise GalleryError(
                f"Nobody has fitted the scale of the {self.title}, so its similarities "
                "are no probabilities. Fit it on held-out queries (`crossview gallery fit`), or "
                "give one: gallery.with_scale(scale)."
            )
        return self.scale

    @functools.cached_property
    def strips(self) -> Strips:
        """Which tiles are where."""
        return Strips(self.positions_m, self.strip_m)

    def _require_frame(self, cells: MapGrid) -> None:
        if cells.frame != self.frame:
            raise FrameMismatchError(
                f"The prior is anchored at {cells.frame} and the gallery at {self.frame}. Build "
                "both from one LocalFrame."
            )

    def _outside(self, distance_m: float) -> MapOutsideError:
        return MapOutsideError(
            f"No tile of the {self.title} lies inside the prior: the nearest is "
            f"{distance_m:.0f} m away. Check that both are about the same place, or widen the "
            "prior."
        )

    @functools.cached_property
    def _reference(self) -> np.ndarray:
        """Descriptors that stand for the whole gallery, (n, D) float32."""
        count = min(self.num_tiles, MAX_REFERENCE_TILES)
        rows = np.linspace(0, self.num_tiles - 1, count).round().astype(int)
        return self.descriptors[rows].astype(np.float32)

    @functools.cached_property
    def _shares(self) -> Callable[[MapGrid], tuple[np.ndarray, CellShares]]:
        """Tiles that reach a grid, and which of them own its cells."""
        # queries of one place often have one grid
        return functools.lru_cache(maxsize=4)(self._find_shares)

    def _find_shares(self, cells: MapGrid) -> tuple[np.ndarray, CellShares]:
        self._require_frame(cells)
        parts = math.ceil(_CELLS_PER_FOOTPRINT * cells.cell_m / self.footprint_m)
        half_m, box = self.footprint_m / 2, cells.bounds
        rows = self.strips.rows_in_box(
            Bounds(
                box.west_m - half_m, box.south_m - half_m, box.east_m + half_m, box.north_m + half_m
            )
        )
        if rows.size == 0:
            raise self._outside(self.strips.distance_to_box_m(box))
        positions_m = self.positions_m[rows]
        return rows, CellShares.of(positions_m, self.footprint_m, cells, side=max(parts, 1))

    def _spread(self, scores: np.ndarray, shares: CellShares, grid: PoseGrid) -> np.ndarray:
        """Log-likelihoods of tiles and headings, (n, headings), on the cells of a grid."""
        values = _on_bins(scores, grid.num_headings)
        values = np.concatenate([values, np.zeros((1, values.shape[1]))]).astype(np.float32)
        return shares.log_mean_exp(values).reshape(*grid.map.shape, -1)


def _checked(descriptors: np.ndarray, dimensions: int) -> np.ndarray:
    """Descriptors of queries as float32.

    Raises:
        GalleryError: One holds NaN or is not of length one, or has another number of dimensions.
    """
    if descriptors.ndim != 2 or descriptors.shape[1] != dimensions:
        raise GalleryError(
            f"The gallery's descriptors have {dimensions} dimensions, got an array of "
            f"{descriptors.shape}."
        )
    lengths = np.linalg.norm(descriptors.astype(np.float32), axis=1)
    if not np.all(np.abs(lengths - 1) <= _LENGTH_TOLERANCE):
        raise GalleryError(
            "The descriptor of the query holds NaN, or its length is not one. Check the encoder's "
            "weights, and normalise descriptors that you made yourself."
        )
    return descriptors.astype(np.float32, copy=False)


def _on_bins(scores: np.ndarray, num_headings: int) -> np.ndarray:
    """Log-likelihoods of heading bins on another number of bins, (n, headings); one stays one."""
    if scores.shape[1] in (1, num_headings):
        return scores
    overlap = angles.bin_overlap(scores.shape[1], num_headings)
    peak = scores.max(axis=1, keepdims=True)
    likelihood = np.exp(scores - peak) @ (overlap / overlap.sum(axis=1, keepdims=True)).T
    return np.log(likelihood) + peak
