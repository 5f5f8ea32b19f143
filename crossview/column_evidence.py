"""What a column of a panorama says about the first wall and the skyline behind it.

A hypothesis is a pair: the range of the first wall, and the elevation of the skyline. It cuts the
column into five regions: open ground, the ground just before the wall, the lower facade, the upper
facade and the sky. Tables (see column_model) say how much more often each group of classes shows in
a region than at that elevation anyway, so whatever depends on elevation alone (paving that a
network calls a building) cancels. Summed over a column's pixels, and softened because pixels are
not independent and maps err, this is one table per column: the log-likelihood ratio of every
hypothesis. A map that was ray-cast (see raycast) says which hypothesis a pose stands for.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from crossview import columns
from crossview.column_kernels import convolved
from crossview.column_model import (
    BAND_EDGES_DEG,
    COUNTS_SHAPE,
    FARTHEST_M,
    NEAREST_M,
    NUM_RANGES,
    REGIONS,
    ColumnModel,
)
from crossview.columns import NUM_THREADS, ColumnView
from crossview.raycast import RayMap

NEAR_WALL_M = 2.5
"""Depth of the ground before a wall: sidewalks and parked cars."""

LOWER_FACADE_M = 4.0
"""Height above the street up to which a facade is shops, doors and what stands before it."""

LOWEST_SKYLINE_DEG, SKYLINE_STEP_DEG, NUM_SKYLINES = -10.0, 1.0, 96

RANGE_BLUR_BINS = 1.5
"""How far single walls are misplaced, in range bins: 7 %."""

SKYLINE_BLUR_DEG = 1.0
"""How far single roofs are."""

UNKNOWN_RANGE, UNKNOWN_SKYLINE = NUM_RANGES, NUM_SKYLINES
"""The bins of what a map does not say."""

NUM_CODES = (NUM_RANGES + 1) * (NUM_SKYLINES + 1)

_RANGE_RATIO = math.log(FARTHEST_M / NEAREST_M) / (NUM_RANGES - 1)
_CLOSEST_M = 0.5
_LOWEST_RATIO = 1e-3
"""No pixel is less probable than this share of its mean: labels err."""

_HEIGHT_STEP_M = 1.5
_LOWEST_BUILDING_M = 3.0
_HEIGHT_SIGMAS = 2.5
_BLUR_SIGMAS = 4.0
_LARGEST_LOG_RATIO = 30.0
_COLUMNS_AT_ONCE = 32
_SMALLEST_RATIO = 1e-12


@dataclass(frozen=True, eq=False)
class ColumnEvidence:
    """What a query's columns say about every hypothesis.

    Args:
        log_ratio: (azimuths, codes) float32 by code (see codes_of): natural log of how much more
            probable the column is there than by chance; 0 for what a map does not say.
    """

    log_ratio: np.ndarray

    def __post_init__(self) -> None:
        self.log_ratio.flags.writeable = False

    @property
    def active(self) -> np.ndarray:
        """Which columns say anything, (azimuths,) bool."""
        return np.ptp(self.log_ratio, axis=1) > 1e-5

    @property
    def best(self) -> float:
        """The largest sum over columns that a map with heights could offer."""
        return float(self._by_skyline[:, :NUM_RANGES, :NUM_SKYLINES].max((1, 2)).sum(dtype=float))

    def above(self, level: float) -> ColumnEvidence:
        """The same compared with a place unknown, whose columns reach a share of the best.

        The best with and without a known skyline differ, and so do the places unknown; what the
        map does not say at all stays 0.

        Args:
            level: The share.
        """
        ratio = self._by_skyline.copy()
        for skylines in (slice(0, NUM_SKYLINES), slice(UNKNOWN_SKYLINE, None)):
            part = ratio[:, :NUM_RANGES, skylines]
            part -= level * part.max(axis=(1, 2), keepdims=True)
        return ColumnEvidence(ratio.reshape(self.log_ratio.shape))

    @property
    def _by_skyline(self) -> np.ndarray:
        return self.log_ratio.reshape(-1, NUM_RANGES + 1, NUM_SKYLINES + 1)


def ranges_m() -> np.ndarray:
    """Centres of the range bins, (ranges,)."""
    return NEAREST_M * np.exp(_RANGE_RATIO * np.arange(NUM_RANGES))


def skylines_deg() -> np.ndarray:
    """Centres of the skyline bins, (skylines,)."""
    return LOWEST_SKYLINE_DEG + SKYLINE_STEP_DEG * np.arange(NUM_SKYLINES)


def range_bins(range_m: np.ndarray) -> np.ndarray:
    """Nearest bin of each range; UNKNOWN_RANGE for NaN, the last for inf."""
    clipped = np.clip(np.nan_to_num(range_m, nan=FARTHEST_M), NEAREST_M, FARTHEST_M)
    bins = np.rint(np.log(clipped / NEAREST_M) / _RANGE_RATIO).astype(np.int64)
    return np.where(np.isnan(range_m), UNKNOWN_RANGE, bins)


def skyline_bins(skyline_deg: np.ndarray) -> np.ndarray:
    """Nearest bin of each skyline; UNKNOWN_SKYLINE for NaN."""
    position = (np.nan_to_num(skyline_deg) - LOWEST_SKYLINE_DEG) / SKYLINE_STEP_DEG
    bins = np.clip(np.rint(position), 0, NUM_SKYLINES - 1).astype(np.int64)
    return np.where(np.isnan(skyline_deg), UNKNOWN_SKYLINE, bins)


def codes_of(range_m: np.ndarray, skyline_deg: np.ndarray) -> np.ndarray:
    """The hypothesis of each ray: range bin * (NUM_SKYLINES + 1) + skyline bin, uint16."""
    range_m, skyline_deg = np.asarray(range_m, np.float32), np.asarray(skyline_deg, np.float32)
    codes = range_bins(range_m) * (NUM_SKYLINES + 1) + skyline_bins(skyline_deg)
    return codes.astype(np.uint16)


def ray_codes(rays: RayMap) -> np.ndarray:
    """The hypotheses of a ray map, (rows, cols, azimuths) uint16."""
    # row by row: the arithmetic needs several times the memory of its result
    return np.stack([codes_of(*row) for row in zip(rays.range_m, rays.skyline_deg, strict=True)])


def region_counts(view: ColumnView, range_m: np.ndarray, skyline_deg: np.ndarray) -> np.ndarray:
    """What a view shows in each region of a place that is known.

    Args:
        view: The columns.
        range_m: First wall of each column, (azimuths,); NaN leaves the column out.
        skyline_deg: Its skyline, (azimuths,); NaN leaves the column out.

    Returns:
        Pixels by (region, band, group), float64.
    """
    known = np.isfinite(skyline_deg) & ~np.isnan(range_m)
    wall, sky = range_bins(range_m)[known], skyline_bins(skyline_deg)[known]
    cuts = _Cuts.at(view.height_m)
    roof = np.maximum(cuts.roof[sky], cuts.base[wall])
    edges = (cuts.near[wall], cuts.base[wall], np.minimum(cuts.lower[wall], roof), roof)
    bins = np.arange(columns.NUM_ELEVATIONS)
    region = sum((bins[None, :] >= edge[:, None]).astype(int) for edge in edges)
    counts = np.zeros(COUNTS_SHAPE)
    seen, probability = view.seen[known], view.probability[known]
    place = region * COUNTS_SHAPE[1] + bands()[None, :]
    np.add.at(counts.reshape(-1, COUNTS_SHAPE[2]), place[seen], probability[seen])
    return counts


def evidence(
    view: ColumnView, model: ColumnModel, *, rays_height_m: float | None = None
) -> ColumnEvidence:
    """What every column says about every hypothesis, softened as the calibration says.

    Args:
        view: The columns.
        model: Tables and calibration.
        rays_height_m: Height of the camera that the map's skylines were cast for; default the
            view's own.
    """
    rays_height_m = view.height_m if rays_height_m is None else rays_height_m
    seen = np.flatnonzero(view.seen.any(axis=1))
    parts = [seen[k : k + _COLUMNS_AT_ONCE] for k in range(0, len(seen), _COLUMNS_AT_ONCE)]
    log_ratio = np.zeros((view.num_azimuths, NUM_CODES), np.float32)

    def weigh(part: np.ndarray) -> None:
        some = ColumnView(view.probability[part], view.seen[part], view.height_m)
        log_ratio[part] = _log_ratio(some, model, rays_height_m)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for _ in pool.map(weigh, parts):
            pass
    return ColumnEvidence(log_ratio)


def pixel_scores(
    view: ColumnView, model: ColumnModel, *, rays_height_m: float | None = None
) -> np.ndarray:
    """Sum of the log ratios of a column's pixels under every hypothesis.

    Args:
        view: The columns.
        model: The tables.
        rays_height_m: Height of the camera that skylines are stated for; default the view's own.
            A skyline is moved as if it stood on the first wall.

    Returns:
        (azimuths, ranges, skylines) float32.
    """
    ratios = model.ratios().astype(np.float32)[:, bands()]  # (regions, elevations, groups)
    mean = view.probability.swapaxes(0, 1) @ ratios.transpose(1, 2, 0)
    log_ratio = np.log(np.maximum(mean, _LOWEST_RATIO)) * view.seen.T[:, :, None]
    below = np.zeros((len(REGIONS), view.num_azimuths, columns.NUM_ELEVATIONS + 1), np.float32)
    below[:, :, 1:] = np.cumsum(log_ratio, axis=0).transpose(2, 1, 0)
    cuts = _Cuts.at(view.height_m)
    rise_m = 0.0 if rays_height_m is None else rays_height_m - view.height_m
    slope = np.tan(np.deg2rad(skylines_deg()))[None, :] + rise_m / ranges_m()[:, None]
    roof = columns.elevation_bin(np.rad2deg(np.arctan(slope)))  # (ranges, skylines)
    roof = np.maximum(roof, cuts.base[:, None])
    lower = np.minimum(cuts.lower[:, None], roof)
    ground, near, low, high, sky = below
    to_base = ground[:, cuts.near] + near[:, cuts.base] - near[:, cuts.near] - low[:, cuts.base]
    score = (low - high)[:, lower]
    score += (high - sky)[:, roof]
    score += (to_base + sky[:, -1:])[:, :, None]
    return score


def bands() -> np.ndarray:
    """Which band of the tables each elevation is in, (elevations,)."""
    return np.digitize(columns.elevations_deg(), BAND_EDGES_DEG)


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Elevation bins where regions end: by range for the first three, by skyline for the roof."""

    near: np.ndarray
    base: np.ndarray
    lower: np.ndarray
    roof: np.ndarray

    @classmethod
    def at(cls, height_m: float) -> _Cuts:
        range_m = ranges_m()

        def cut(rise_m: float, at_m: np.ndarray) -> np.ndarray:
            return columns.elevation_bin(np.rad2deg(np.arctan(rise_m / at_m)))

        return cls(
            near=cut(-height_m, np.maximum(range_m - NEAR_WALL_M, _CLOSEST_M)),
            base=cut(-height_m, range_m),
            lower=cut(LOWER_FACADE_M - height_m, range_m),
            roof=columns.elevation_bin(skylines_deg()),
        )


def _log_ratio(view: ColumnView, model: ColumnModel, rays_height_m: float) -> np.ndarray:
    """What evidence holds, (azimuths, codes)."""
    soft = model.calibration
    score = pixel_scores(view, model, rays_height_m=rays_height_m)
    score *= soft.pixel_scale
    any_height = _over_heights(score, rays_height_m, model)
    # a place unknown: any range and any height, as often as they occur
    with np.errstate(divide="ignore"):
        log_share = np.log(model.range_shares)
    unknown = np.logaddexp.reduce(any_height + log_share, axis=1, keepdims=True)
    unknown = unknown.astype(np.float32)
    score -= unknown[:, :, None]
    known = np.exp(np.minimum(score, _LARGEST_LOG_RATIO, out=score), out=score)
    known = _blurred(known, RANGE_BLUR_BINS, axis=1)
    known = _blurred(known, SKYLINE_BLUR_DEG / SKYLINE_STEP_DEG, axis=2)
    any_height = np.exp(np.minimum(any_height - unknown, _LARGEST_LOG_RATIO))
    any_height = _blurred(any_height, RANGE_BLUR_BINS, axis=1)
    ratio = np.ones((view.num_azimuths, NUM_RANGES + 1, NUM_SKYLINES + 1), np.float32)
    ratio[:, :NUM_RANGES, :NUM_SKYLINES] = (
        soft.height_share * known + (1 - soft.height_share) * any_height[:, :, None]
    )
    ratio[:, :NUM_RANGES, UNKNOWN_SKYLINE] = any_height
    ratio *= 1 - soft.outlier_share
    ratio += soft.outlier_share
    ratio[:, UNKNOWN_RANGE] = 1.0
    np.maximum(ratio, _SMALLEST_RATIO, out=ratio)
    return np.log(ratio, out=ratio).reshape(view.num_azimuths, -1)


def _blurred(values: np.ndarray, sigma_bins: float, *, axis: int) -> np.ndarray:
    """Blurred by a normal distribution; beyond the first and the last bin it goes on like them."""
    reach = round(_BLUR_SIGMAS * sigma_bins)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_bins) ** 2)
    width = [(reach, reach) if i == axis else (0, 0) for i in range(values.ndim)]
    return convolved(np.pad(values, width, mode="edge"), taps / taps.sum(), axis=axis)


def _over_heights(score: np.ndarray, height_m: float, model: ColumnModel) -> np.ndarray:
    """Log of the mean of exp(score) over the building heights of a place, (azimuths, ranges)."""
    mean_m, std_m = model.height_mean_m, model.height_std_m
    lowest_m = max(_LOWEST_BUILDING_M, mean_m - _HEIGHT_SIGMAS * std_m)
    highest_m = max(mean_m + _HEIGHT_SIGMAS * std_m, lowest_m + _HEIGHT_STEP_M)
    building_m = np.arange(lowest_m, highest_m, _HEIGHT_STEP_M)
    log_share = -0.5 * ((building_m - mean_m) / std_m) ** 2
    log_share -= np.logaddexp.reduce(log_share)
    skyline_deg = np.rad2deg(np.arctan((building_m - height_m) / ranges_m()[:, None]))
    by_height = score[:, np.arange(NUM_RANGES)[:, None], skyline_bins(skyline_deg)]
    return np.logaddexp.reduce(by_height + log_share.astype(np.float32), axis=2)
