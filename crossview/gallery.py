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
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from crossview import angles, gallery_files
from crossview.errors import FrameMismatchError, GalleryError, MapOutsideError
from crossview.frames import LocalFrame
from crossview.gallery_files import STRIP_M, Excluded, Model
from crossview.grids import MapGrid, PoseGrid
from crossview.posterior import Posterior

if TYPE_CHECKING:
    import shapely

MAX_REFERENCE_TILES = 8192
"""Tiles, evenly over the gallery, that say how likely a query is at any place."""

_BLOCK_ROWS = 16_384
"""Descriptors that are compared at a time: 32 MB of 512 float32."""

_BLOCK_QUERIES = 1024
"""Queries that are compared at a time: their similarities to a block of rows take 64 MB."""

_FEWEST_PER_RUN = 16
"""Runs of rows shorter than this on average are gathered instead of sliced."""

_GAP_ROWS = 8
"""A gap up to this between rows is read along: a slice costs as much as some rows."""

_CELLS_PER_FOOTPRINT = 4
"""A grid whose cells are larger than this part of a tile is looked at more closely."""

_ROUNDING_M = 1e-6

_LENGTH_TOLERANCE = 1e-3


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


@dataclass(frozen=True)
class Disc:
    """A rough place: all within a distance.

    Args:
        x_m: East of the frame's anchor.
        y_m: North of it.
        radius_m: How far.
    """

    x_m: float
    y_m: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x_m + self.y_m) and 0 < self.radius_m < math.inf):
            raise ValueError(f"A disc needs a finite place and a positive radius, got {self}.")


Prior: TypeAlias = "Disc | shapely.Polygon | shapely.MultiPolygon | Posterior"
"""Where tiles are looked for, by the place of their middle; a Posterior also by how probable."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Tiles that look most like a query, best first.

    Args:
        rows: Which tiles of the gallery, (k,); of many queries (queries, k).
        similarity: Cosine of the angle between the descriptors, of the same shape.
    """

    rows: np.ndarray
    similarity: np.ndarray


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
            and the answer holds for every heading.
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
        positions_m.flags.writeable = False
        object.__setattr__(self, "positions_m", positions_m)
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
        if np.any(np.diff(self._keys) < 0):
            raise GalleryError("The tiles of a gallery are in strips: make one with Gallery.of.")
        if self.encoder is not None:
            self.model.require(Model.of(self.encoder))

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
        order = gallery_files.strip_order(positions_m, strip_m)
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
        index, _ = gallery_files.read_index(folder)
        tiles = gallery_files.read_tiles(folder)
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
        """
        descriptors = self.described(query)
        rows = None if prior is None else self.rows_inside(prior)
        similarity = self._similarity(descriptors, rows).max(axis=1)
        if rows is None:
            best = _best(similarity, k)
            return Ranking(best, similarity[best])
        score = similarity
        if isinstance(prior, Posterior):
            score = similarity + self._log_prior(prior, rows) / self._fitted_scale()
        best = _best(score, k)
        return Ranking(rows[best], similarity[best])

    def search_many(self, descriptors: np.ndarray, k: int) -> Ranking:
        """As search without a prior, for many descriptors at once: (queries, D) to (queries, k)."""
        descriptors = _checked(descriptors, self.descriptors.shape[1])
        k = min(k, self.num_tiles)
        parts = [
            self._best_of_all(descriptors[first : first + _BLOCK_QUERIES], k)
            for first in range(0, len(descriptors), _BLOCK_QUERIES)
        ]
        rows, similarity = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Ranking(rows, similarity)

    def rows_inside(self, prior: Prior) -> np.ndarray:
        """Tiles whose middle a prior holds: rows in ascending order, (n,) int64.

        Raises:
            MapOutsideError: There is none; the message says how far the nearest is.
        """
        rows = self._rows_inside(prior)
        if rows.size == 0:
            raise MapOutsideError(
                f"No tile of the gallery {self.name!r} lies inside the prior: the nearest is "
                f"{self._distance_to(prior):.0f} m away. Check that both are about the same place, "
                "or widen the prior."
            )
        return rows

    # ---------------------------------------------------------- likelihood

    def described(self, query: Any) -> np.ndarray:
        """The descriptors of a query, (headings, D) float32; arrays are taken as descriptors.

        Raises:
            GalleryError: There is no encoder, or a descriptor is none.
        """
        if isinstance(query, np.ndarray):
            return _checked(np.atleast_2d(query), self.descriptors.shape[1])
        if self.encoder is None:
            raise GalleryError(
                f"The gallery {self.name!r} was loaded without an encoder, so it cannot describe a "
                f"{type(query).__name__}. Use Gallery.load(folder, encoder)."
            )
        if self.num_headings == 1:
            described = self.encoder.describe(query)
        else:
            headings_deg = angles.bin_headings_deg(self.num_headings)
            described = self.encoder.describe(query, headings_deg=headings_deg)
        described = np.atleast_2d(described)
        if len(described) != self.num_headings:
            raise GalleryError(
                f"The encoder gave {len(described)} descriptors of a query for {self.num_headings} "
                "headings."
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
        descriptors = self.described(query)
        rows, owners = self._owners(self._cells_for(grid.map))
        scale = self._fitted_scale()
        scores = scale * self._similarity(descriptors, rows).astype(np.float64)
        scores -= _log_mean_exp(scale * (self._reference @ descriptors.T).astype(np.float64))
        return self._spread(scores, owners, grid)

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
        rows, owners = self._owners(self._cells_for(grid.map))
        scores = self._fitted_scale() * similarity
        return self._spread(scores[rows] - _log_mean_exp(scores), owners, grid)

    # ------------------------------------------------------------- private

    def _fitted_scale(self) -> float:
        if self.scale is None:
            raise GalleryError(
                f"Nobody has fitted the scale of the gallery {self.name!r}, so its similarities "
                "are no probabilities. Fit it on held-out queries (crossview.gallery_scale), or "
                "give one: gallery.with_scale(scale)."
            )
        return self.scale

    @functools.cached_property
    def _keys(self) -> np.ndarray:
        """A number for each row that grows with strip and x, for one binary search in all."""
        x_m, y_m = self.positions_m.T
        strips = gallery_files.strips_of(y_m, self.strip_m)
        return (strips - strips.min()) * self._strip_key + (x_m - self._west_m)

    @functools.cached_property
    def _west_m(self) -> float:
        return float(self.positions_m[:, 0].min())

    @functools.cached_property
    def _strip_key(self) -> float:
        """More than the width of the gallery: what a strip adds to a key."""
        return float(np.ptp(self.positions_m[:, 0])) + 2.0

    @functools.cached_property
    def _strip_range(self) -> tuple[int, int]:
        strips = gallery_files.strips_of(self.positions_m[:, 1], self.strip_m)
        return int(strips.min()), int(strips.max())

    def _rows_inside(self, prior: Prior) -> np.ndarray:
        if isinstance(prior, Disc):
            return self._rows_in_disc(prior)
        if isinstance(prior, Posterior):
            if prior.grid.map.frame != self.frame:
                raise FrameMismatchError(
                    f"The prior is anchored at {prior.grid.map.frame} and the gallery at "
                    f"{self.frame}. Build both from one LocalFrame."
                )
            rows = self._rows_in_box(*prior.grid.map.bounds)
            return rows[self._log_prior(prior, rows) > -np.inf]
        import shapely

        rows = self._rows_in_box(*shapely.bounds(prior).tolist())
        shapely.prepare(prior)
        return rows[shapely.intersects_xy(prior, *self.positions_m[rows].T)]

    def _rows_in_disc(self, disc: Disc) -> np.ndarray:
        first, last = self._strip_range
        south, north = disc.y_m - disc.radius_m, disc.y_m + disc.radius_m
        low = max(math.floor((south - _ROUNDING_M) / self.strip_m), first)
        high = min(math.floor((north + _ROUNDING_M) / self.strip_m), last)
        strips = np.arange(low, high + 1)
        # the widest chord of the disc in each strip
        edges = strips * self.strip_m - disc.y_m
        nearest_m = np.maximum(np.maximum(edges, -(edges + self.strip_m)), 0.0)
        half_m = np.sqrt(np.maximum(disc.radius_m**2 - nearest_m**2, 0.0)) + _ROUNDING_M
        rows = self._rows_in_strips(strips, disc.x_m - half_m, disc.x_m + half_m)
        offset = self.positions_m[rows]
        offset -= (disc.x_m, disc.y_m)
        return rows[np.einsum("nd,nd->n", offset, offset) <= disc.radius_m**2]

    def _rows_in_box(self, west: float, south: float, east: float, north: float) -> np.ndarray:
        """Tiles with their middle in a box; edges count."""
        first, last = self._strip_range
        low = max(math.floor((south - _ROUNDING_M) / self.strip_m), first)
        high = min(math.floor((north + _ROUNDING_M) / self.strip_m), last)
        strips = np.arange(low, high + 1)
        rows = self._rows_in_strips(strips, west - _ROUNDING_M, east + _ROUNDING_M)
        x_m, y_m = self.positions_m[rows].T
        return rows[(x_m >= west) & (x_m <= east) & (y_m >= south) & (y_m <= north)]

    def _rows_in_strips(self, strips: np.ndarray, west: Any, east: Any) -> np.ndarray:
        """Rows of strips between two x."""
        base = (strips - self._strip_range[0]) * self._strip_key
        # a key between two strips stands for everything beyond the gallery's edge
        edge = self._strip_key - 1.0
        starts = np.searchsorted(self._keys, base + np.clip(west - self._west_m, -0.5, edge))
        ends = np.searchsorted(self._keys, base + np.clip(east - self._west_m, -0.5, edge), "right")
        parts = [np.arange(a, b) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _distance_to(self, prior: Prior) -> float:
        """From the nearest tile's middle to what the prior holds."""
        x_m, y_m = self.positions_m.T
        if isinstance(prior, Disc):
            distance_m = np.hypot(x_m - prior.x_m, y_m - prior.y_m) - prior.radius_m
            return float(distance_m.min())
        if isinstance(prior, Posterior):
            from scipy.spatial import cKDTree

            rows, cols = np.nonzero(prior.position())
            cells = np.column_stack(prior.grid.map.to_xy(cols + 0.5, rows + 0.5))
            distance_m, _ = cKDTree(cells).query(self.positions_m)
            return float(distance_m.min())
        import shapely

        return float(shapely.distance(shapely.points(self.positions_m), prior).min())

    def _log_prior(self, prior: Posterior, rows: np.ndarray) -> np.ndarray:
        """Log of a prior's probability at the tiles' middles, whatever the heading; (n,)."""
        col, row = (
            np.floor(p).astype(int) for p in prior.grid.map.to_pixel(*self.positions_m[rows].T)
        )
        height, width = prior.grid.map.shape
        # the eastern and the southern edge belong to the last cells
        position = prior.position()[np.minimum(row, height - 1), np.minimum(col, width - 1)]
        with np.errstate(divide="ignore"):
            return np.log(position)

    def _similarity(self, descriptors: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        """Of descriptors to tiles, (n, headings) float32; None stands for all tiles."""
        if rows is None:
            parts = [slice(a, a + _BLOCK_ROWS) for a in range(0, self.num_tiles, _BLOCK_ROWS)]
            return np.concatenate([_dot(self.descriptors[part], descriptors) for part in parts])
        breaks = np.flatnonzero(np.diff(rows) > _GAP_ROWS) + 1
        if len(rows) < _FEWEST_PER_RUN * (len(breaks) + 1):
            parts = [slice(a, a + _BLOCK_ROWS) for a in range(0, len(rows), _BLOCK_ROWS)]
            return np.concatenate([_dot(self.descriptors[rows[p]], descriptors) for p in parts])
        firsts, lasts = rows[np.r_[0, breaks]], rows[np.r_[breaks, len(rows)] - 1]
        runs = zip(firsts.tolist(), lasts.tolist(), strict=True)
        whole = np.concatenate([_dot(self.descriptors[a : b + 1], descriptors) for a, b in runs])
        # where each run begins among what was read
        offsets = np.r_[0, np.cumsum(lasts - firsts + 1)[:-1]] - firsts
        return whole[rows + np.repeat(offsets, np.diff(np.r_[0, breaks, len(rows)]))]

    def _best_of_all(self, descriptors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar tiles of each query, block by block: rows and similarity."""
        rows = np.zeros((len(descriptors), 0), np.int64)
        similarity = np.zeros((len(descriptors), 0), np.float32)
        for first in range(0, self.num_tiles, _BLOCK_ROWS):
            scores = _dot(self.descriptors[first : first + _BLOCK_ROWS], descriptors).T
            if rows.shape[1] == k:
                query, col = np.nonzero(scores > similarity[:, -1:])
            else:
                rank = min(k, scores.shape[1])
                query, col = np.nonzero(scores >= np.partition(scores, -rank)[:, -rank:][:, :1])
            rows, similarity = _with_hits(
                rows, similarity, query, first + col, scores[query, col], k=k
            )
        return rows, similarity

    @functools.cached_property
    def _reference(self) -> np.ndarray:
        """Descriptors that stand for the whole gallery, (n, D) float32."""
        count = min(self.num_tiles, MAX_REFERENCE_TILES)
        rows = np.linspace(0, self.num_tiles - 1, count).round().astype(int)
        return self.descriptors[rows].astype(np.float32)

    def _cells_for(self, cells: MapGrid) -> MapGrid:
        """The cells of a grid, divided where they are coarser than the tiles."""
        if cells.frame != self.frame:
            raise FrameMismatchError(
                f"The grid is anchored at {cells.frame} and the gallery at {self.frame}. Build "
                "both from one LocalFrame."
            )
        parts = math.ceil(_CELLS_PER_FOOTPRINT * cells.cell_m / self.footprint_m)
        return cells.divided(max(parts, 1))

    @functools.cached_property
    def _owners(self) -> Callable[[MapGrid], tuple[np.ndarray, np.ndarray]]:
        # queries of one place have one grid
        return functools.lru_cache(maxsize=4)(self._find_owners)

    def _find_owners(self, cells: MapGrid) -> tuple[np.ndarray, np.ndarray]:
        """Tiles that reach a grid, and which of them owns each cell, (rows, cols), -1 for none."""
        half_m = self.footprint_m / 2
        bounds = cells.bounds
        rows = self._rows_in_box(
            bounds.west_m - half_m, bounds.south_m - half_m,
            bounds.east_m + half_m, bounds.north_m + half_m,
        )  # fmt: skip
        if rows.size == 0:
            x_m, y_m = (bounds.west_m + bounds.east_m) / 2, (bounds.south_m + bounds.north_m) / 2
            outside = np.maximum(
                np.abs(self.positions_m - (x_m, y_m))
                - ((bounds.east_m - bounds.west_m) / 2, (bounds.north_m - bounds.south_m) / 2),
                0.0,
            )
            raise MapOutsideError(
                f"No tile of the gallery {self.name!r} reaches the prior, {bounds}: the nearest is "
                f"{np.hypot(*outside.T).min():.0f} m away. Check that both are about the same "
                "place, or widen the prior."
            )
        return rows, _owners(self.positions_m[rows], half_m, cells)

    def _spread(self, scores: np.ndarray, owners: np.ndarray, grid: PoseGrid) -> np.ndarray:
        """Log-likelihoods of tiles and headings, (n, headings), on the cells of a grid."""
        values = _on_bins(scores, grid.num_headings)
        values = np.concatenate([values, np.zeros((1, values.shape[1]))]).astype(np.float32)
        height, width = grid.map.shape
        parts = owners.shape[0] // height
        if parts == 1:
            return values[owners]
        closely = values[owners].reshape(height, parts, width, parts, -1)
        return _log_mean_exp(closely.astype(np.float64), axis=(1, 3)).astype(np.float32)


def _owners(positions_m: np.ndarray, half_m: float, cells: MapGrid) -> np.ndarray:
    """Which square around which place holds each cell's centre, the nearest one; -1 for none."""
    owners = np.full(cells.shape, -1, np.int32)
    nearest = np.full(cells.shape, np.inf, np.float32)
    half = half_m / cells.cell_m
    cols, rows = cells.to_pixel(*positions_m.T)
    for i, (col, row) in enumerate(zip(cols.tolist(), rows.tolist(), strict=True)):
        top, bottom = _centres_within(row - half, row + half, cells.height)
        left, right = _centres_within(col - half, col + half, cells.width)
        if top >= bottom or left >= right:
            continue
        # by the larger of the two offsets: the nearest square that holds a cell, if any does
        distance = np.maximum(
            np.abs(np.arange(top, bottom) + 0.5 - row)[:, None],
            np.abs(np.arange(left, right) + 0.5 - col)[None, :],
        ).astype(np.float32)
        part = np.s_[top:bottom, left:right]
        closer = distance < nearest[part]
        owners[part][closer] = i
        nearest[part][closer] = distance[closer]
    owners.flags.writeable = False
    return owners


def _centres_within(low: float, high: float, count: int) -> tuple[int, int]:
    """First and past-the-last of `count` cells whose centres lie between two positions."""
    return max(math.ceil(low - 0.5), 0), min(math.floor(high - 0.5) + 1, count)


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


def _dot(tiles: np.ndarray, descriptors: np.ndarray) -> np.ndarray:
    """(n, D) and (headings, D) to (n, headings) float32."""
    tiles = tiles.astype(np.float32, copy=False)
    if len(descriptors) == 1:  # as a vector: BLAS is quicker
        return (tiles @ descriptors[0])[:, None]
    return tiles @ descriptors.T


def _best(score: np.ndarray, k: int) -> np.ndarray:
    """Where the k highest are, best first; ties in their order."""
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}.")
    if k < len(score):
        lowest = np.partition(score, -k)[-k]
        among = np.flatnonzero(score >= lowest)
    else:
        among = np.arange(len(score))
    return among[np.argsort(-score[among], kind="stable")[:k]]


def _with_hits(
    rows: np.ndarray,
    similarity: np.ndarray,
    query: np.ndarray,
    hit_rows: np.ndarray,
    hit_similarity: np.ndarray,
    *,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each query after some more hits, which are few; ties in the order of rows."""
    num_queries, num_before = rows.shape
    queries = np.concatenate([np.repeat(np.arange(num_queries), num_before), query])
    all_rows = np.concatenate([rows.ravel(), hit_rows])
    all_similarity = np.concatenate([similarity.ravel(), hit_similarity])
    order = np.lexsort((all_rows, -all_similarity, queries))
    counts = np.bincount(queries, minlength=num_queries)
    starts = np.r_[0, np.cumsum(counts)[:-1]]
    best = order[starts[:, None] + np.arange(min(k, counts.min()))]
    return all_rows[best], all_similarity[best]


def _log_mean_exp(values: np.ndarray, axis: Any = None) -> Any:
    peak = values.max(axis=axis, keepdims=True)
    mean = np.exp(values - peak).mean(axis=axis)
    return np.log(mean) + np.squeeze(peak, axis=axis)


def _on_bins(scores: np.ndarray, num_headings: int) -> np.ndarray:
    """Log-likelihoods of heading bins on another number of bins, (n, headings); one stays one."""
    if scores.shape[1] in (1, num_headings):
        return scores
    overlap = angles.bin_overlap(scores.shape[1], num_headings)
    peak = scores.max(axis=1, keepdims=True)
    likelihood = np.exp(scores - peak) @ (overlap / overlap.sum(axis=1, keepdims=True)).T
    return np.log(likelihood) + peak
