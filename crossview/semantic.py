"""Matching the columns of a panorama against the walls that a map has: no training on poses.

Every column of a photo, a rig or a panorama sees ground up to a first wall, and sky above the
highest roof behind. The map says where both would be at every pose, and tables of what a
segmentation network makes of ground, walls and sky (see column_evidence) say how well that fits.
Where the map knows roads, paths, lawns and trees, what lies on the ground adds its votes (see
ground_votes).
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from scipy import special

from crossview import angles, column_evidence, column_kernels, columns, ground_votes, raycast
from crossview.birdseye import BirdsEye
from crossview.camera_noise import CameraNoise
from crossview.column_evidence import ColumnEvidence
from crossview.column_kernels import convolved
from crossview.column_model import Calibration, ColumnModel
from crossview.columns import NUM_THREADS, ColumnView
from crossview.errors import GridMismatchError
from crossview.grids import MapGrid, PoseGrid, place_of, require_frame
from crossview.ground_votes import CELL_M, GroundVotes
from crossview.legends import BUILDING
from crossview.photos import Panorama, Photo, Rig
from crossview.rasters import MapRaster
from crossview.segmenters import Segmenter

_log = logging.getLogger(__name__)

_HEIGHT_STEP_M = 0.1
"""Cameras are ray-cast at whole steps of height, so that photos of one street share the work."""

_CELLS_AT_ONCE = 2048
"""Cells that are summed together: they share a table of the codes that any of them sees."""

_ROWS_AT_ONCE = 16
"""Of cells that are blurred together: they stay in the processor's cache."""

_VOTES_BYTES = 256_000_000
"""Memory up to which the votes of all cells are asked for at once."""

_BLUR_SIGMAS = 3.0

_FLOAT32_NATS = 80.0
"""Whose exponential, and that of minus them, float32 holds with all digits."""

_NEGLIGIBLE_NATS = 20.0
"""Below the floor, what is lost is a rounding of it."""

_ON_LATTICE = 1e-6


_Ask: TypeAlias = Callable[[BirdsEye, slice, slice], np.ndarray]
"""Votes of what is seen on the ground, for rows and columns: (rows, cols, headings)."""


class RayCache:
    """Ray-cast blocks of maps, by content: the least recently used go when memory is full.

    Args:
        max_bytes: Memory for them. A block of 32 m x 32 m at 0.5 m has 2 MB.
    """

    def __init__(self, max_bytes: int = 500_000_000) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[Hashable, CodeBlock] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], CodeBlock]) -> CodeBlock:
        """The block of a key, made now if it is not remembered."""
        if key not in self._blocks:
            self._blocks[key] = make()
            while self.num_bytes > self.max_bytes and len(self._blocks) > 1:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    @property
    def num_bytes(self) -> int:
        """Memory in use."""
        return sum(block.codes.nbytes + block.free.nbytes for block in self._blocks.values())


@dataclass(frozen=True, eq=False)
class CodeBlock:
    """What a map says about a block of cells.

    Args:
        codes: (rows, cols, azimuths) uint16, the hypothesis of every ray (see column_evidence).
        free: (rows, cols) bool, cells that are not inside of a building.
    """

    codes: np.ndarray
    free: np.ndarray

    def __post_init__(self) -> None:
        self.codes.flags.writeable = self.free.flags.writeable = False


@dataclass(frozen=True)
class SemanticMatcher:
    """First walls and skylines of the map against the columns of a query: every pose is tried.

    Args:
        segmenter: What each pixel shows.
        model: Tables and calibration, made for this segmenter.
        cell_m: Cells of the poses.
        num_headings: Heading bins; a divisor of the 256 columns.
        sight_blocks: How far from the camera the skyline may stand, in blocks.
        map_parts: The map is drawn with so many cells along the side of a pose cell.
        block_cells: Side of the blocks that are ray-cast together and remembered.
        noise: How badly the camera of single photos is known.
        rays: Remembered blocks of the map.
    """

    segmenter: Segmenter
    model: ColumnModel
    cell_m: float = 0.5
    num_headings: int = columns.NUM_AZIMUTHS
    sight_blocks: int = 4
    map_parts: int = 2
    block_cells: int = 64
    noise: CameraNoise = field(default_factory=CameraNoise)
    rays: RayCache = field(default_factory=RayCache, repr=False, compare=False)

    def __post_init__(self) -> None:
        columns.grouping(self.segmenter.classes)
        if self.num_headings < 4 or columns.NUM_AZIMUTHS % self.num_headings:
            raise ValueError(
                f"num_headings must divide {columns.NUM_AZIMUTHS} columns, got {self.num_headings}."
            )
        if self.model.calibration.votes_share > 0 and self.cell_m != CELL_M:
            raise ValueError(
                f"The model's votes count in cells of {CELL_M} m, and cell_m is {self.cell_m}. Use "
                "those, or a model whose votes_share is 0."
            )

    @property
    def scale(self) -> float:
        """Share of a column that counts."""
        return self.model.calibration.scale

    @property
    def sight_m(self) -> float:
        """How far from the camera the skyline may stand."""
        return self.sight_blocks * self.block_cells * self.cell_m

    @property
    def reach_m(self) -> float:
        """How much map around a pose takes part in its score: its block may end beside it."""
        return self.sight_m + (self._blur_cells + self.block_cells) * self.cell_m

    def observe(self, query: Photo | Panorama | Rig) -> tuple[ColumnView, ...]:
        """The query's columns, once for every camera that it may have been taken with.

        The slow part, worth keeping when a query is asked about twice.
        """
        images = columns.segmented(query, self.segmenter)
        return tuple(
            replace(columns.levelled(variant), ground=ground_votes.observed(variant))
            for variant in self.noise.variants(images)
        )

    def log_likelihood(
        self,
        query: Photo | Panorama | Rig | Sequence[ColumnView],
        map_raster: MapRaster,
        grid: PoseGrid,
        *,
        headings: np.ndarray | None = None,
    ) -> np.ndarray:
        """How well the query fits the map at every pose, (rows, cols, headings).

        Args:
            query: Images, or what observe made of them.
            map_raster: The map: cells of the grid divided by map_parts, and reach_m around it.
            grid: The poses; cells of this matcher, and its number of headings or 1.
            headings: Indices of the bins to try; the others are -inf.

        Returns:
            Log-likelihood ratios to a place unknown; with one bin, the log of their mean over
            headings.

        Raises:
            FrameMismatchError: Map and poses are anchored at different places.
            GridMismatchError: The cells or headings are others, or the map ends too early.
        """
        views = self.observe(query) if isinstance(query, Photo | Panorama | Rig) else query
        require_frame(map_raster.grid, grid.map)
        self._require_fit(grid)
        grid.require_memory()
        _require_views(views)
        tried = self._tried(headings)
        height_m = self.rays_height_m(views[0])
        evidence = self._evidence(views, height_m)
        place_of(grid.map.divided(self.map_parts), map_raster.grid)  # or it raises
        cells = grid.map.padded(self._blur_cells * self.cell_m)
        if not map_raster.class_mask(BUILDING).any():
            _log.warning("The map has no building near %s: columns say nothing there.", grid.map)
            evidence = [ColumnEvidence(np.zeros_like(one.log_ratio)) for one in evidence]
        blur = _Blur.of(self.model.calibration, self.cell_m, self.num_headings, self._blur_cells)
        needed = blur.needed(tried)
        ask = self._asking(views, map_raster, cells, needed)
        if ask is None and not any(one.active.any() for one in evidence):
            return self._nothing(grid, tried)
        unexplained = self.model.calibration.unexplained_share
        seen = list(zip(evidence, map(_ground, views), strict=True))
        blocks = self._scored_blocks(
            seen, ask, map_raster, cells, headings=needed, height_m=height_m
        )
        if grid.num_headings == 1:
            image = np.full((*cells.shape, 1), -np.inf)
            weights = blur.weights(needed, tried) / self.num_headings
            for rows, cols, free, scores in blocks:
                image[rows, cols][free, 0] = _log_dot(scores, weights)
            floor = unexplained * len(tried) / self.num_headings
            return blur.over_positions(image, share=1 - unexplained, floor=floor)
        volume = np.full((*cells.shape, len(needed)), -np.inf, np.float32)
        for rows, cols, free, scores in blocks:
            volume[rows, cols][free] = scores
        blurred = blur.over_poses(volume, needed, tried, share=1 - unexplained, floor=unexplained)
        if len(tried) == self.num_headings:
            return blurred
        result = np.full(grid.shape, -np.inf, np.float32)
        result[:, :, tried] = blurred
        return result

    def rays_height_m(self, view: ColumnView) -> float:
        """The height for which the map is ray-cast: whole steps, so that photos share the work."""
        return _HEIGHT_STEP_M * max(1, round(view.height_m / _HEIGHT_STEP_M))

    def _evidence(self, views: Sequence[ColumnView], height_m: float) -> list[ColumnEvidence]:
        """What the columns say, compared with a place unknown, for every possible camera."""
        level = self.model.calibration.unknown_level
        return [
            column_evidence.evidence(view, self.model, rays_height_m=height_m).above(level)
            for view in views
        ]

    def _asking(
        self,
        views: Sequence[ColumnView],
        map_raster: MapRaster,
        cells: MapGrid,
        headings: np.ndarray,
    ) -> _Ask | None:
        """What to ask for votes of the ground; None where nobody counted any, or none is seen."""
        table = self.model.ground
        if table is None or self.model.calibration.votes_share == 0 or not any(map(_ground, views)):
            return None
        votes = GroundVotes.on(table, map_raster, cells, parts=self.map_parts)

        def ask(ground: BirdsEye, rows: slice, cols: slice) -> np.ndarray:
            return votes.scores(ground, rows, cols, headings, num_headings=self.num_headings)

        num_votes = len(views) * cells.height * cells.width * self.num_headings
        if num_votes * np.dtype(np.float32).itemsize > _VOTES_BYTES:
            return ask
        # blocks share most of what they look at
        everywhere = slice(0, cells.height), slice(0, cells.width)
        asked = functools.cache(lambda ground: ask(ground, *everywhere))
        return lambda ground, rows, cols: asked(ground)[rows, cols]

    def _scored_blocks(
        self,
        seen: Sequence[tuple[ColumnEvidence, BirdsEye | None]],
        ask: _Ask | None,
        map_raster: MapRaster,
        cells: MapGrid,
        *,
        headings: np.ndarray,
        height_m: float,
    ) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
        """Blocks of cells: rows, cols, which are free, and their scores (free cells, headings)."""
        for rows, cols, block in self.coded_blocks(map_raster, cells, height_m):
            wanted = block.codes[block.free]
            sums = []
            for evidence, ground in seen:
                total = column_sums(evidence, wanted, headings, num_headings=self.num_headings).T
                total *= self.scale
                if ask is not None and ground is not None:
                    votes = ask(ground, rows, cols)[block.free]
                    total += self.model.calibration.votes_share * votes
                sums.append(total)
            # which of the cameras it was is not known, and all are equally probable
            scores = functools.reduce(_log_add_exp, sums)
            yield rows, cols, block.free, scores - np.float32(math.log(len(seen)))

    def coded_blocks(
        self, map_raster: MapRaster, cells: MapGrid, height_m: float
    ) -> Iterator[tuple[slice, slice, CodeBlock]]:
        """Blocks of the lattice that a grid touches, cut to it: rows, cols, what is seen.

        Args:
            map_raster: The map, as log_likelihood wants it.
            cells: The grid.
            height_m: Of the camera.
        """
        side = self.block_cells
        first_row = round(-cells.north_m / self.cell_m)
        first_col = round(cells.west_m / self.cell_m)
        digests = _Digests(map_raster, side * self.map_parts)
        for block_row in range(first_row // side, (first_row + cells.height - 1) // side + 1):
            for block_col in range(first_col // side, (first_col + cells.width - 1) // side + 1):
                grid = MapGrid(
                    cells.frame,
                    block_col * side * self.cell_m,
                    -block_row * side * self.cell_m,
                    self.cell_m,
                    side,
                    side,
                )
                around = grid.padded(self.sight_m).divided(self.map_parts)
                block = self.rays.get(
                    (digests.of(around), height_m, grid, around),
                    functools.partial(_cast, map_raster, grid, around, height_m, self.sight_m),
                )
                row, col = block_row * side - first_row, block_col * side - first_col
                rows = slice(max(row, 0), min(row + side, cells.height))
                cols = slice(max(col, 0), min(col + side, cells.width))
                own = (
                    slice(rows.start - row, rows.stop - row),
                    slice(cols.start - col, cols.stop - col),
                )
                yield rows, cols, CodeBlock(block.codes[own], block.free[own])

    @property
    def _blur_cells(self) -> int:
        return math.ceil(_BLUR_SIGMAS * self.model.calibration.position_sigma_m / self.cell_m)

    def _tried(self, headings: np.ndarray | None) -> np.ndarray:
        if headings is None:
            return np.arange(self.num_headings)
        tried = np.unique(headings)
        is_index = np.issubdtype(tried.dtype, np.integer) and tried.size > 0
        if not is_index or tried[0] < 0 or tried[-1] >= self.num_headings:
            raise ValueError(
                f"headings are indices of bins, at least one and below {self.num_headings}; got "
                f"{headings!r}."
            )
        return tried

    def _nothing(self, grid: PoseGrid, tried: np.ndarray) -> np.ndarray:
        """The answer to a query that says nothing: every pose alike."""
        if grid.num_headings == 1:
            share = math.log(len(tried) / self.num_headings)
            return np.full((*grid.map.shape, 1), share, np.float32)
        result = np.full(grid.shape, -np.inf, np.float32)
        result[:, :, tried] = 0.0
        return result

    def _require_fit(self, grid: PoseGrid) -> None:
        cells = grid.map
        on_lattice = all(
            abs(p - round(p)) < _ON_LATTICE
            for p in (cells.west_m / self.cell_m, cells.north_m / self.cell_m)
        )
        fits = math.isclose(cells.cell_m, self.cell_m) and on_lattice
        if not fits or grid.num_headings not in (1, self.num_headings):
            raise GridMismatchError(
                f"This matcher looks at cells of {self.cell_m} m on the frame's lattice and "
                f"{self.num_headings} headings; the poses are on {grid}. Make the grid with "
                "posterior.windows(..., like=matcher)."
            )


def column_sums(
    evidence: ColumnEvidence, codes: np.ndarray, headings: np.ndarray, *, num_headings: int
) -> np.ndarray:
    """Sum over a query's columns of their log ratios, at many cells and headings.

    Args:
        evidence: Of the query; column 0 looks along its heading.
        codes: What the map shows, (cells, azimuths); azimuth 0 is north.
        headings: Bins to try.
        num_headings: Of a full turn; a divisor of the azimuths.

    Returns:
        (headings, cells) float32.
    """
    turns = np.asarray(headings, np.int64) * (codes.shape[1] // num_headings)
    used = np.flatnonzero(evidence.active)
    kernel = column_kernels.compiled() or sums_without_compiler
    num_parts = NUM_THREADS * max(1, math.ceil(len(codes) / (NUM_THREADS * _CELLS_AT_ONCE)))

    def look_up(part: np.ndarray) -> np.ndarray:
        return kernel(evidence.log_ratio, np.ascontiguousarray(part), used, turns)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return np.concatenate(list(pool.map(look_up, np.array_split(codes, num_parts)))).T


def sums_without_compiler(
    log_ratio: np.ndarray, codes: np.ndarray, used: np.ndarray, turns: np.ndarray
) -> np.ndarray:
    """What column_kernels.compiled() does, in NumPy: (cells, headings)."""
    num_azimuths = codes.shape[1]
    is_seen = np.zeros(log_ratio.shape[1], bool)
    is_seen[codes] = True
    # a row per code, so that what one azimuth adds to all turns lies side by side
    by_turn = np.zeros((np.count_nonzero(is_seen), num_azimuths), np.float32)
    # turned by t, a query's column k looks at azimuth t + k
    by_turn[:, -used] = log_ratio[used][:, is_seen].T
    by_turn = np.concatenate([by_turn, by_turn], axis=1)
    place = (np.cumsum(is_seen) - 1)[codes.T]
    total = np.zeros(codes.shape, np.float32)
    for azimuth in range(num_azimuths):
        total += by_turn[place[azimuth], num_azimuths - azimuth : 2 * num_azimuths - azimuth]
    return total[:, turns]


def _ground(view: ColumnView) -> BirdsEye | None:
    """What a view shows of the ground; None where it shows nothing of it."""
    return view.ground if view.ground is not None and view.ground.seen.any() else None


def _log_add_exp(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """np.logaddexp of finite values, many times as fast."""
    total = -np.abs(first - second)
    np.exp(total, out=total)
    total += 1.0
    np.log(total, out=total)
    total += np.maximum(first, second)
    return total


def _log_dot(log_values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log of a weighted sum along the last axis, float64."""
    with np.errstate(divide="ignore"):
        log_terms = log_values + np.log(weights).astype(np.float32)
    peak = log_terms.max(axis=-1, keepdims=True)
    log_terms -= peak
    np.exp(log_terms, out=log_terms)
    return np.log(log_terms.sum(axis=-1, dtype=float)) + peak[..., 0]


def _require_views(views: Sequence[ColumnView]) -> None:
    widths = {view.num_azimuths for view in views}
    if widths != {columns.NUM_AZIMUTHS}:
        raise ValueError(
            f"A query is looked at in {columns.NUM_AZIMUTHS} columns, at least once; got views of "
            f"{sorted(widths)} columns. Use what observe returns."
        )


@dataclass(frozen=True)
class _Blur:
    """What the map as a whole may be off: mass moves to neighbouring cells and headings.

    Args:
        cell_taps: Weights of neighbouring rows and of columns, centred; an odd number of them.
        heading_taps: Weights of neighbouring heading bins, centred; an odd number of them.
        num_headings: Bins of a full turn.
    """

    cell_taps: np.ndarray
    heading_taps: np.ndarray
    num_headings: int

    @classmethod
    def of(
        cls, calibration: Calibration, cell_m: float, num_headings: int, margin_cells: int
    ) -> _Blur:
        offsets = np.arange(-margin_cells, margin_cells + 1)
        density = np.exp(-0.5 * (offsets * cell_m / max(calibration.position_sigma_m, 1e-9)) ** 2)
        sigma_bins = calibration.heading_sigma_deg * num_headings / angles.FULL_TURN_DEG
        reach = min(math.ceil(_BLUR_SIGMAS * sigma_bins), (num_headings - 1) // 2)
        offsets = np.arange(-reach, reach + 1)
        # the normal distribution's mass in each bin
        edges = special.ndtr((offsets[:, None] + [-0.5, 0.5]) / max(sigma_bins, 1e-9))
        mass = edges[:, 1] - edges[:, 0]
        return cls(density / density.sum(), mass / mass.sum(), num_headings)

    def needed(self, tried: np.ndarray) -> np.ndarray:
        """Bins that reach the ones to try."""
        reach = len(self.heading_taps) // 2
        return np.unique((tried[:, None] + np.arange(-reach, reach + 1)) % self.num_headings)

    def weights(self, needed: np.ndarray, tried: np.ndarray) -> np.ndarray:
        """Share of each needed bin that ends in a bin to try."""
        return self._over_headings(np.ones(len(tried)), tried, needed)

    def over_positions(self, log_ratio: np.ndarray, *, share: float, floor: float) -> np.ndarray:
        """What over_poses does with ratios of no heading, (rows, cols, 1)."""
        only = np.zeros(1, np.intp)
        alike = replace(self, heading_taps=np.ones(1), num_headings=1)
        return alike.over_poses(log_ratio, only, only, share=share, floor=floor)

    def over_poses(
        self,
        log_ratio: np.ndarray,
        needed: np.ndarray,
        tried: np.ndarray,
        *,
        share: float,
        floor: float,
    ) -> np.ndarray:
        """Log of a share of the blurred ratios and a floor together, without the margin.

        Args:
            log_ratio: (rows, cols, needed bins).
            needed: See needed.
            tried: Bins to try.
            share: Factor of the ratios.
            floor: Ratio to add.

        Returns:
            (rows, cols, bins to try) float32.
        """
        margin = len(self.cell_taps) // 2
        rows, cols = (size - 2 * margin for size in log_ratio.shape[:2])
        log_floor = math.log(floor) if floor > 0 else -math.inf
        dtype, offset = _scale(float(log_ratio.max(initial=-math.inf)), log_floor)
        result = np.empty((rows, cols, len(tried)), np.float32)

        def blur(first: int) -> None:
            last = min(first + _ROWS_AT_ONCE, rows)
            ratio = log_ratio[first : last + 2 * margin].astype(dtype)
            ratio -= offset
            np.exp(ratio, out=ratio)
            ratio = convolved(convolved(ratio, self.cell_taps, axis=0), self.cell_taps, axis=1)
            ratio = self._over_headings(ratio, needed, tried)
            ratio *= share
            ratio += math.exp(log_floor - offset)
            with np.errstate(divide="ignore"):
                np.log(ratio, out=ratio)
            ratio += offset
            # of a high peak's scale the floor may be 0
            np.maximum(ratio, log_floor, out=result[first:last])

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for _ in pool.map(blur, range(0, rows, _ROWS_AT_ONCE)):
                pass
        return result

    def _over_headings(
        self, ratio: np.ndarray, given: np.ndarray, wanted: np.ndarray
    ) -> np.ndarray:
        """Blurred around the circle: from (..., given bins), others being 0, to wanted ones."""
        reach = len(self.heading_taps) // 2
        around = ratio
        if len(given) < self.num_headings:
            around = np.zeros((*ratio.shape[:-1], self.num_headings), ratio.dtype)
            around[..., given] = ratio
        ends = around[..., self.num_headings - reach :], around, around[..., :reach]
        around = np.concatenate(ends, axis=-1)
        around = convolved(around, self.heading_taps, axis=around.ndim - 1)
        return around if len(wanted) == self.num_headings else around[..., wanted]


def _scale(log_peak: float, log_floor: float) -> tuple[type[np.floating], float]:
    """A float and a log offset for ratios up to a peak, where what underflows does not count."""
    offset = max(0.0, log_peak - _FLOAT32_NATS)
    if offset - _FLOAT32_NATS <= log_floor - _NEGLIGIBLE_NATS:
        return np.float32, offset
    # float64 holds 700 nats
    highest = max(log_peak, log_floor)
    return np.float64, highest if highest > -math.inf else 0.0


class _Digests:
    """Names of parts of a map by their content: what buildings stand there, and how high.

    The map is cut into tiles of the frame's lattice, each is hashed once, and a part of whole tiles
    is named by theirs.
    """

    def __init__(self, map_raster: MapRaster, tile_cells: int) -> None:
        self._cells = map_raster.grid
        self._tile_cells = tile_cells
        self._content = np.where(
            map_raster.knows(BUILDING),
            np.where(map_raster.class_mask(BUILDING), map_raster.building_height_m, -1.0),
            -2.0,
        ).astype(np.float32)
        self._known: dict[tuple[int, int], bytes] = {}

    def of(self, part: MapGrid) -> tuple[bytes, ...]:
        """Digests of the tiles of a part.

        Raises:
            GridMismatchError: The map's cells are others, or it does not hold the part.
        """
        row, col = place_of(part, self._cells)
        side = self._tile_cells
        return tuple(
            self._digest(first_row, first_col)
            for first_row in range(row, row + part.height, side)
            for first_col in range(col, col + part.width, side)
        )

    def _digest(self, row: int, col: int) -> bytes:
        if (row, col) not in self._known:
            side = self._tile_cells
            tile = np.ascontiguousarray(self._content[row : row + side, col : col + side])
            self._known[row, col] = hashlib.blake2b(tile.tobytes(), digest_size=16).digest()
        return self._known[row, col]


def _cast(
    map_raster: MapRaster, grid: MapGrid, around: MapGrid, height_m: float, sight_m: float
) -> CodeBlock:
    rays = raycast.cast(
        map_raster.cut(around),
        grid,
        height_m=height_m,
        reach_m=sight_m,
        num_azimuths=columns.NUM_AZIMUTHS,
    )
    return CodeBlock(column_evidence.ray_codes(rays), rays.free)
