"""Trials of a calibration: samples in discs that hold them, or do not, and what they score.

The map around a disc is ray-cast once. Once for every Setting of a calibration its poses are scored
and summed, under every scale and blur; the other numbers of a calibration need the sums only.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

from crossview import angles, column_evidence
from crossview.column_model import ColumnModel
from crossview.column_tables import Sample
from crossview.evidence import prior_within
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.ground_votes import GroundVotes
from crossview.pose_trials import PriorRule, wrong_place
from crossview.semantic import SemanticMatcher, column_sums

SCALES = (0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.45, 0.65, 1.0)
POSITION_SIGMAS_M = (0.1, 0.15, 0.25, 0.35, 0.5, 0.7, 1.0)
HEADING_SIGMAS_DEG = (0.2, 0.35, 0.5, 0.8, 1.2, 1.8)
"""The scales and blurs that are tried."""

SHAPE = len(SCALES), len(POSITION_SIGMAS_M), len(HEADING_SIGMAS_DEG)
"""Of arrays by (scale, position sigma, heading sigma)."""

PRIOR = PriorRule()
"""The discs in which stations are searched: as in an evaluation, but courtyards are as probable as
streets."""

_log = logging.getLogger(__name__)

_BLUR_SIGMAS = 4.0

_CELLS_AT_ONCE = 64
"""Cells that are summed together: they stay in the processor's cache."""


@dataclass(frozen=True)
class Place:
    """A disc that is searched, as cells of the matcher's lattice around it.

    Args:
        cells: The grid, with a margin for the blur.
        center_m: Of the disc, (x, y).
    """

    cells: MapGrid
    center_m: tuple[float, float]

    @classmethod
    def around(cls, frame: LocalFrame, center: np.ndarray, matcher: SemanticMatcher) -> Place:
        """A disc around (x, y)."""
        x_m, y_m = map(float, center)
        prior = prior_within(frame, x_m, y_m, radius_m=PRIOR.radius_m, like=matcher)
        return cls(prior.grid.map.padded(3 * max(POSITION_SIGMAS_M)), (x_m, y_m))

    def mask(self) -> np.ndarray:
        """Which cells have their centre in the disc, (rows, cols) bool."""
        x_m, y_m = self.cells.centers()
        return self._holds(x_m[None, :], y_m[:, None])

    def holds(self, pose: Pose) -> bool:
        """Whether a camera stands in the disc."""
        return bool(self._holds(np.float64(pose.x_m), np.float64(pose.y_m)))

    def _holds(self, x_m: np.ndarray | np.float64, y_m: np.ndarray | np.float64) -> np.ndarray:
        away_m = np.hypot(x_m - self.center_m[0], y_m - self.center_m[1])
        return np.asarray(away_m <= PRIOR.radius_m)


@dataclass(frozen=True, eq=False)
class Trial:
    """A sample in a disc that holds it, or does not.

    Args:
        sample: The sample.
        place: The disc.
        row: Of the place's free cells, (cells,).
        col: Their columns.
        codes: What the map shows there, (cells, azimuths).
        rays_height_m: Height of the camera for which the map was ray-cast.
        votes: Of the ground, (cells, headings) float16; None where nobody counted or looked.
    """

    sample: Sample
    place: Place
    row: np.ndarray
    col: np.ndarray
    codes: np.ndarray
    rays_height_m: float
    votes: np.ndarray | None

    @classmethod
    def at(cls, sample: Sample, place: Place, matcher: SemanticMatcher) -> Trial:
        """The trial, with the map ray-cast and asked for its votes by the matcher's table."""
        cells = place.cells
        map_raster = sample.maps(cells.padded(matcher.reach_m).divided(matcher.map_parts))
        height_m = matcher.rays_height_m(sample.view)
        parts = []
        for rows, cols, block in matcher.coded_blocks(map_raster, cells, height_m):
            row, col = np.nonzero(block.free)
            parts.append((row + rows.start, col + cols.start, block.codes[block.free]))
        row, col, codes = map(np.concatenate, zip(*parts, strict=True))
        table, ground = matcher.model.ground, sample.view.ground
        votes = None
        if table is not None and ground is not None:
            everywhere = slice(0, cells.height), slice(0, cells.width)
            votes = GroundVotes.on(table, map_raster, cells, parts=matcher.map_parts).scores(
                ground,
                *everywhere,
                np.arange(matcher.num_headings),
                num_headings=matcher.num_headings,
            )[row, col]
            # thousands of cells vote, and a share of each counts
            votes = votes.astype(np.float16)
        return cls(sample, place, row, col, codes, height_m, votes)

    @property
    def is_right(self) -> bool:
        """Whether the camera is in the disc."""
        return self.place.holds(self.sample.truth)


def places(sample: Sample, matcher: SemanticMatcher, *, seed: int) -> Iterator[Place]:
    """A disc that holds the camera, and one that does not (where the map has another)."""
    rng = np.random.default_rng([seed, zlib.crc32(sample.station.encode())])
    shift_m = rng.uniform(-PRIOR.shift_m, PRIOR.shift_m, 2)
    truth = np.array([sample.truth.x_m, sample.truth.y_m])
    yield Place.around(sample.frame, truth + shift_m, matcher)
    elsewhere = wrong_place(
        sample.truth, sample.frame, sample.maps, radius_m=PRIOR.radius_m, rng=rng
    )
    if elsewhere is not None:
        center = np.array([elsewhere.x_m, elsewhere.y_m])
        yield Place.around(sample.frame, center, matcher)


@dataclass(frozen=True, eq=False)
class Sums:
    """What a trial's scores come to, by (scale, position sigma, heading sigma).

    Args:
        log_total: Log of the sum of exp(score) over the disc.
        log_truth: Log of exp(score) at the truth; None in wrong places.
        best: scale * best conceivable score, by scale alone.
        num_poses: Of the disc.
        pose_size: Square metres times degrees of one pose.
    """

    log_total: np.ndarray
    log_truth: np.ndarray | None
    best: np.ndarray
    num_poses: int
    pose_size: float

    @classmethod
    def of(cls, trial: Trial, model: ColumnModel, *, num_headings: int) -> Sums:
        """Scores of every pose of the disc, and what they come to under every blur."""
        mask = trial.place.mask()
        evidence = column_evidence.evidence(
            trial.sample.view, model, rays_height_m=trial.rays_height_m
        )
        headings = np.arange(num_headings)
        score = column_sums(evidence, trial.codes, headings, num_headings=num_headings).T
        share = np.float32(model.calibration.votes_share)
        votes = np.zeros_like(score) if trial.votes is None else share * trial.votes
        reached = np.stack([_reached(trial, mask, sigma_m) for sigma_m in POSITION_SIGMAS_M])
        with np.errstate(divide="ignore"):
            log_reached = np.log(reached)
        log_total = np.logaddexp.reduce(
            _log_mass(score, votes)[:, None] + log_reached, axis=2, keepdims=True, initial=-np.inf
        )
        log_truth = _log_truth(trial, score, votes) if trial.is_right else None
        return cls(
            np.broadcast_to(log_total, SHAPE),
            log_truth,
            evidence.best * np.array(SCALES),
            int(mask.sum()) * num_headings,
            trial.place.cells.cell_m**2 * angles.FULL_TURN_DEG / num_headings,
        )

    def scores(self, unknown_level: float, unexplained_share: float) -> np.ndarray:
        """Log score of the trial by (scale, position sigma, heading sigma).

        In the right place the log density at the truth, per square metre and degree, plus the log
        probability of that place at even odds with elsewhere; in a wrong one that of elsewhere.
        """
        unknown = (unknown_level * self.best)[:, None, None]
        log_kept, log_share = math.log1p(-unexplained_share), math.log(unexplained_share)
        log_poses = math.log(self.num_poses)
        total = np.logaddexp(log_kept + self.log_total - unknown, log_share + log_poses)
        here = total - log_poses
        if self.log_truth is None:
            return -np.logaddexp(0.0, here)
        truth = np.logaddexp(log_kept + self.log_truth - unknown, log_share)
        return truth - total - math.log(self.pose_size) - np.logaddexp(0.0, -here)


def _log_mass(score: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Log of the sum over headings of exp(scale * score + votes), (scales, cells)."""
    log_mass = np.empty((len(SCALES), len(score)))
    for first in range(0, len(score), _CELLS_AT_ONCE):
        part = slice(first, first + _CELLS_AT_ONCE)
        for i, scale in enumerate(SCALES):
            logit = np.float32(scale) * score[part]
            logit += votes[part]
            peak = logit.max(axis=1, keepdims=True)
            logit -= peak
            log_mass[i, part] = np.log(np.exp(logit, out=logit).sum(axis=1)) + peak[:, 0]
    return log_mass


def _log_truth(trial: Trial, score: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Log of exp(scale * score + votes) at the truth under every blur, as SHAPE says."""
    near = [_near(trial, sigma_m) for sigma_m in POSITION_SIGMAS_M]
    # the widest blur takes from all cells that the others take from
    free = near[-1][0]
    if not len(free):
        # a wrong pose, a passage or an arcade: nothing brings mass there but the floor
        _log.warning("Station %s stands in a building of the map.", trial.sample.station)
        return np.full(SHAPE, -np.inf)
    shares = np.zeros((len(near), len(free)))
    for own, (cells, weights) in zip(shares, near, strict=True):
        own[np.searchsorted(free, cells)] = weights
    num_headings = score.shape[1]
    taps = np.stack(
        [_heading_taps(trial.sample.truth, num_headings, s) for s in HEADING_SIGMAS_DEG], axis=1
    )
    log_truth = np.empty(SHAPE)
    for i, scale in enumerate(SCALES):
        logit = scale * score[free].astype(float) + votes[free]
        peak = logit.max()
        with np.errstate(divide="ignore"):  # what float64 cannot say is left to the floor
            log_truth[i] = np.log(shares @ np.exp(logit - peak) @ taps) + peak
    return log_truth


def _reached(trial: Trial, mask: np.ndarray, sigma_m: float) -> np.ndarray:
    """Share of each free cell's mass that a blur leaves in the disc, (cells,)."""
    # blurring the mass and blurring the disc are the same
    sigma = sigma_m / trial.place.cells.cell_m
    blurred = ndimage.gaussian_filter(mask.astype(float), sigma, mode="constant")
    return blurred[trial.row, trial.col]


def _near(trial: Trial, sigma_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Free cells whose mass a blur brings to the truth's cell, and which share of it."""
    cells, truth = trial.place.cells, trial.sample.truth
    sigma = sigma_m / cells.cell_m
    truth_row, truth_col = cells.cell_of(truth.x_m, truth.y_m)
    away2 = (trial.row - truth_row) ** 2 + (trial.col - truth_col) ** 2
    near = np.flatnonzero(away2 <= (_BLUR_SIGMAS * max(sigma, 1.0)) ** 2)
    # as a sampled Gaussian does, also where it is narrower than a cell
    offsets = np.arange(-round(_BLUR_SIGMAS * sigma) - 1, round(_BLUR_SIGMAS * sigma) + 2)
    norm = float(np.exp(-0.5 * offsets**2 / sigma**2).sum()) ** 2
    return near, np.exp(-0.5 * away2[near] / sigma**2) / norm


def _heading_taps(truth: Pose, num_headings: int, sigma_deg: float) -> np.ndarray:
    """Weights of bins whose mass a blur brings to the truth's bin, (headings,)."""
    bin_deg = angles.FULL_TURN_DEG / num_headings
    center = int(angles.bin_of(truth.heading_deg or 0.0, num_headings))
    turn_deg = angles.difference_deg(angles.bin_headings_deg(num_headings), center * bin_deg)
    edges = special.ndtr((turn_deg[:, None] + np.array([-0.5, 0.5]) * bin_deg) / sigma_deg)
    return edges[:, 1] - edges[:, 0]
