"""Fitting the column model on photos with known poses: tables by counting, scale by likelihood.

Tables need poses but no optimiser: at a known pose the map says which region every pixel is in, and
the pixels are counted. The calibration has few numbers and is chosen by the probability that it
gives to the true poses of stations whose stretch of street was left out of the tables (blocked
cross-validation: neighbouring stations see the same houses), to rigs and to their single photos,
and by how well it tells the right place from a wrong one.
"""

from __future__ import annotations

import itertools
import logging
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy import ndimage, special

from crossview import angles, column_evidence, raycast
from crossview.column_model import COUNTS_SHAPE, NUM_RANGES, Calibration, ColumnModel
from crossview.columns import ColumnView
from crossview.errors import MapOutsideError
from crossview.evidence import prior_within
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.observations import ObservationStore
from crossview.pose_evaluation import (
    DRIVE_HEADINGS,
    Evaluation,
    PriorRule,
    drives,
    map_sources,
    queries,
    stations_of,
)
from crossview.rasters import MapRaster
from crossview.segmenters import Remembering, Segmenter, fingerprint
from crossview.semantic import NUM_THREADS, RayCache, SemanticMatcher, column_sums

if TYPE_CHECKING:
    from crossview.manifest import Manifest

PIXEL_SCALES = (0.01, 0.02, 0.04, 0.08)
HEIGHT_SHARES = (0.5, 0.7, 0.9, 0.97)
OUTLIER_SHARES = (0.01, 0.03, 0.1)
SCALES = (0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.45, 0.65, 1.0)
POSITION_SIGMAS_M = (0.1, 0.15, 0.25, 0.35, 0.5, 0.7, 1.0)
HEADING_SIGMAS_DEG = (0.2, 0.35, 0.5, 0.8, 1.2, 1.8)
UNKNOWN_LEVELS = tuple(np.linspace(0.05, 0.95, 19).round(3).tolist())
UNEXPLAINED_SHARES = (1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3)
CORRELATIONS_M = (3.5, 7.0, 14.0, 28.0, 56.0)
"""The values that are tried. Frames are 3.5 m apart or more: shorter lengths cannot be told."""

DRIVE_SEEDS = 2
"""Made-up odometries for the correlation of drives."""

PRIOR_RADIUS_M, PRIOR_SHIFT_M = 25.0, 15.0
"""Of the discs in which stations are searched, as in pose_evaluation."""

WRONG_PLACE_M = (70.0, 150.0)
"""How far away a disc is that does not hold the camera."""

_HEIGHTS_WITHIN_M = 50.0
_MAX_DRAWS = 200
_BLUR_SIGMAS = 4.0
_WORST_NLL = 700.0
"""Of a truth that is excluded: exp(-700) is about the smallest probability in float64."""

_SINGLE_WEIGHT = 0.25
"""A rig's photos together count as much as the rig."""

_EMPTY_MODEL = ColumnModel(np.ones(COUNTS_SHAPE), np.full(NUM_RANGES, 1 / NUM_RANGES))
"""For looking only."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sample:
    """A rig or a photo with a known pose.

    Args:
        station: Its place in the street: samples of one station are left out together.
        view: Its columns.
        truth: Its pose in the frame of its region.
        frame: That frame.
        maps: Cuts the map of its region.
        is_rig: Whether it is a whole rig, whose pixels are counted; else it is one of its photos.
    """

    station: str
    view: ColumnView
    truth: Pose
    frame: LocalFrame
    maps: Callable[[MapGrid], MapRaster]
    is_rig: bool


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model, and how it did on what was left out.

    Args:
        model: Tables of all stations, with the calibration.
        log_score: Mean over left-out trials of the log density at the truth, per square metre and
            degree, plus the log probability of telling right from wrong places.
        trials: The same of every left-out trial, by station; rigs and photos together.
    """

    model: ColumnModel
    log_score: float
    trials: Mapping[str, float]


def fit(
    samples: Sequence[Sample],
    segmenter: Segmenter,
    *,
    num_folds: int = 3,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Fit:
    """Tables and calibration of stations along streets.

    Args:
        samples: In the order of the street, so that folds are stretches.
        segmenter: What made their columns.
        num_folds: Stretches for the cross-validation of the calibration.
        seed: Of the discs that are searched.
        provenance: What to say of the model's origin.

    Raises:
        ValueError: There are fewer than two stations per fold.
    """
    stations = list(dict.fromkeys(sample.station for sample in samples if sample.is_rig))
    if num_folds < 2:
        raise ValueError(f"num_folds is {num_folds}; something must be left out: at least 2.")
    if len(stations) < 2 * num_folds:
        raise ValueError(
            f"{len(stations)} stations with poses are too few for {num_folds} stretches of at "
            "least two. Give more stations, or fewer folds."
        )
    model = tables(samples)
    folds = list(_folds(stations, num_folds))
    trained = {
        station: tables([s for s in samples if s.station in training])
        for training, left_out in folds
        for station in left_out
    }
    bench = _Bench.of(samples, trained, segmenter, seed=seed)
    calibration, scores = bench.best()
    said = {
        **(provenance or {}),
        "stations": stations,
        "folds": num_folds,
        "left_out_log_score": round(float(np.mean(list(scores.values()))), 3),
    }
    return Fit(
        replace(model, calibration=calibration, provenance=MappingProxyType(said)),
        float(np.mean(list(scores.values()))),
        MappingProxyType(scores),
    )


def with_correlation(
    model: ColumnModel,
    manifest: Manifest,
    segmenter: Segmenter,
    *,
    stations: str | None = None,
    cache: Path | None = None,
) -> ColumnModel:
    """The model with the correlation length under which filtered drives are probable.

    The drives are the dataset's own, with made-up odometry (see pose_evaluation.with_odometry); of
    the lengths within a standard error of the best the longest is taken. A dataset without drives
    leaves the model as it is. The tables have seen these stations, so the length is on the short
    side.
    """
    matcher = SemanticMatcher(segmenter, model, num_headings=DRIVE_HEADINGS)
    evaluation = Evaluation(manifest, matcher, stations=stations, cache=cache)
    if not drives(manifest, evaluation.queries()):
        return model
    rules = [PriorRule(PRIOR_RADIUS_M, PRIOR_SHIFT_M, seed=seed) for seed in range(DRIVE_SEEDS)]
    by_station = {}
    for correlation_m in CORRELATIONS_M:
        calibration = replace(model.calibration, correlation_m=correlation_m)
        tried = replace(evaluation, matcher=replace(matcher, model=model.calibrated(calibration)))
        by_station[correlation_m] = _nll_by_station(tried.drives(rules))
        mean = float(by_station[correlation_m].mean())
        _log.info("frames independent after %.1f m: nll %.3f", correlation_m, mean)
    best = min(by_station.values(), key=lambda nll: float(nll.mean()))
    longest_m = max(length_m for length_m, nll in by_station.items() if _is_close(nll - best))
    return model.calibrated(replace(model.calibration, correlation_m=longest_m))


def _nll_by_station(report: Mapping[str, Any]) -> np.ndarray:
    """Mean over seeds of what filtered frames say of their truths, (stations,)."""
    seeds = [
        [frame["filtered"]["nll"] for frame in frames.values()]
        for frames in report["queries"].values()
    ]
    # None is what JSON says of an infinite one
    return np.mean([[_WORST_NLL if nll is None else nll for nll in one] for one in seeds], axis=0)


def _is_close(lost: np.ndarray) -> bool:
    """Whether a mean loss is within its standard error of none."""
    return bool(lost.mean() <= lost.std(ddof=1) / math.sqrt(lost.size))


def samples_of(
    manifest: Manifest,
    segmenter: Segmenter,
    *,
    stations: str | None = None,
    cache: Path | None = None,
) -> list[Sample]:
    """The rigs of a dataset and their single photos, looked at, in the order of the drive.

    Args:
        manifest: The dataset.
        segmenter: What each pixel shows.
        stations: Which ones, as pose_evaluation.stations_of understands; None for all.
        cache: Folder that remembers views.
    """
    from tqdm import tqdm

    chosen = None if stations is None else set(stations_of(manifest, stations))
    maps = map_sources(manifest)
    # a rig and its single photos are the same images
    looker = SemanticMatcher(Remembering(segmenter), _EMPTY_MODEL)
    observe = looker.observe if cache is None else ObservationStore(cache).observer(looker)
    rigs = queries(manifest, stations=chosen, max_pitch_deg=90.0)
    photos = queries(manifest, single=True, stations=chosen)
    per_station = Counter(photo.station for photo in photos)
    # the one photo of a station is its rig
    singles = (photo for photo in photos if per_station[photo.station] > 1)
    found = [*rigs, *singles]
    order = {s.station_id: s.order for s in manifest.stations(max_pitch_deg=90.0)}
    found.sort(key=lambda query: (query.region, order[query.station], query.station))
    return [
        Sample(
            query.station,
            observe(query.read())[0],
            query.truth,
            manifest.frame(query.region),
            maps[query.region],
            is_rig=query.name == query.station,
        )
        for query in tqdm(found, unit="query", delay=2, disable=None)
    ]


def provenance_of(manifest: Manifest, segmenter: Segmenter) -> dict[str, str]:
    """What a model says of where it comes from."""
    return {
        "dataset": manifest.name,
        "licence": manifest.licence,
        "attribution": manifest.attribution,
        "segmenter": fingerprint(segmenter),
    }


def tables(samples: Iterable[Sample]) -> ColumnModel:
    """What the rigs of known poses show, with the default calibration."""
    rigs = [sample for sample in samples if sample.is_rig]
    counts = sum(_counted(sample) for sample in rigs)
    heights_m = np.concatenate([_heights_around_m(sample) for sample in rigs])
    model = ColumnModel(np.asarray(counts), _range_shares(rigs))
    if heights_m.size < 2 or float(np.std(heights_m)) == 0:
        return model
    return replace(
        model,
        height_mean_m=round(float(np.mean(heights_m)), 2),
        height_std_m=round(float(np.std(heights_m)), 2),
    )


def _counted(sample: Sample) -> np.ndarray:
    rays = raycast.look_around(
        sample.maps,
        sample.frame,
        sample.truth,
        height_m=sample.view.height_m,
        num_azimuths=sample.view.num_azimuths,
    )
    return column_evidence.region_counts(sample.view, *rays)


def _range_shares(rigs: Sequence[Sample]) -> np.ndarray:
    """How often the first wall is in each range, seen from free places around the stations."""
    counts = np.ones(NUM_RANGES)
    for rig in rigs:
        cells = MapGrid.around(rig.frame, rig.truth.x_m, rig.truth.y_m, radius_m=16, cell_m=2.0)
        rays = raycast.cast(
            rig.maps(cells.padded(column_evidence.FARTHEST_M).divided(8)),
            cells,
            height_m=rig.view.height_m,
            num_azimuths=64,
            reach_m=column_evidence.FARTHEST_M,
        )
        bins = column_evidence.range_bins(rays.range_m[rays.free].astype(np.float32))
        counts += np.bincount(bins.ravel(), minlength=NUM_RANGES + 1)[:NUM_RANGES]
    return counts / counts.sum()


def _heights_around_m(sample: Sample) -> np.ndarray:
    """Heights of map cells with a building around a station: large buildings count more."""
    pose = sample.truth
    cells = MapGrid.around(sample.frame, pose.x_m, pose.y_m, radius_m=_HEIGHTS_WITHIN_M, cell_m=2.0)
    height_m = sample.maps(cells).building_height_m
    return height_m[np.isfinite(height_m) & (height_m > 0)]


def _folds(stations: Sequence[str], num_folds: int) -> Iterator[tuple[set[str], set[str]]]:
    """Stations to train on and stations left out; neighbours of what is left out are in neither."""
    edges = np.linspace(0, len(stations), num_folds + 1).round().astype(int)
    for first, last in itertools.pairwise(edges):
        training = {*stations[: max(first - 1, 0)], *stations[last + 1 :]}
        yield training, set(stations[first:last])


@dataclass(frozen=True)
class _Place:
    """A disc, as cells of the matcher's lattice around it.

    Args:
        cells: The grid, with a margin for the blur.
        center_m: Of the disc, (x, y).
    """

    cells: MapGrid
    center_m: tuple[float, float]

    def mask(self) -> np.ndarray:
        x_m, y_m = self.cells.centers()
        away_m = np.hypot(x_m[None, :] - self.center_m[0], y_m[:, None] - self.center_m[1])
        return away_m <= PRIOR_RADIUS_M


@dataclass(frozen=True)
class _Setting:
    """The part of a calibration that changes columns, before anything is summed."""

    pixel_scale: float
    height_share: float
    outlier_share: float

    def applied(self, model: ColumnModel) -> ColumnModel:
        return model.calibrated(replace(model.calibration, **vars(self)))


@dataclass(frozen=True, eq=False)
class _Trial:
    """A sample in a disc that holds it, or does not.

    Args:
        sample: The sample.
        place: The disc.
        is_right: Whether the camera is in it.
        row: Of the place's free cells, (cells,).
        col: Their columns.
        codes: What the map shows there, (cells, azimuths).
    """

    sample: Sample
    place: _Place
    is_right: bool
    row: np.ndarray
    col: np.ndarray
    codes: np.ndarray

    @classmethod
    def at(
        cls, sample: Sample, place: _Place, matcher: SemanticMatcher, *, is_right: bool
    ) -> _Trial:
        cells = place.cells
        map_raster = sample.maps(cells.padded(matcher.reach_m).divided(matcher.map_parts))
        rows, cols, codes = [], [], []
        for in_rows, in_cols, block in matcher.coded_blocks(
            map_raster, cells, matcher.rays_height_m(sample.view)
        ):
            row, col = np.nonzero(block.free)
            rows.append(row + in_rows.start)
            cols.append(col + in_cols.start)
            codes.append(block.codes[block.free])
        return cls(
            sample,
            place,
            is_right,
            np.concatenate(rows),
            np.concatenate(cols),
            np.concatenate(codes),
        )


@dataclass(frozen=True, eq=False)
class _Sums:
    """What a trial's scores come to, by (scale, position sigma, heading sigma).

    Args:
        log_total: Log of the sum of exp(score) over the disc.
        log_truth: Log of exp(score) at the truth; NaN in wrong places.
        best: scale * best conceivable score, by scale alone.
        num_poses: Of the disc.
    """

    log_total: np.ndarray
    log_truth: np.ndarray
    best: np.ndarray
    num_poses: int


_At: TypeAlias = tuple[int, int, int]
"""Index of a scale, a position sigma and a heading sigma."""


@dataclass(frozen=True, eq=False)
class _Scores:
    """How good a setting is with every scale and blur, at the best of the other numbers.

    Args:
        by_station: (stations, scales, position sigmas, heading sigmas), mean score of the trials.
        levels: The best unknown_level of each, (scales, position sigmas, heading sigmas).
        shares: The best unexplained_share.
    """

    by_station: np.ndarray
    levels: np.ndarray
    shares: np.ndarray

    @property
    def best_at(self) -> _At:
        """Where the mean over stations is highest."""
        mean = self.by_station.mean(axis=0)
        scale, position, heading = np.unravel_index(int(mean.argmax()), mean.shape)
        return int(scale), int(position), int(heading)

    @property
    def best_by_station(self) -> np.ndarray:
        """Scores there, (stations,)."""
        scale, position, heading = self.best_at
        return self.by_station[:, scale, position, heading]

    @property
    def log_score(self) -> float:
        """Their mean."""
        return float(self.best_by_station.mean())

    def most_careful(self, best_by_station: np.ndarray) -> _At | None:
        """The smallest scale, then the widest blurs, that is within a standard error of the best.

        None where nothing of this setting is.
        """
        lost = best_by_station[:, None, None, None] - self.by_station
        error = lost.std(axis=0, ddof=1) / math.sqrt(len(lost))
        careful = np.argwhere(lost.mean(axis=0) <= error).tolist()
        if not careful:
            return None
        at = max(careful, key=lambda at: (-at[0], at[1], at[2]))
        return at[0], at[1], at[2]

    def calibration(self, setting: _Setting, at: _At) -> Calibration:
        """All numbers together."""
        return Calibration(
            **vars(setting),
            scale=SCALES[at[0]],
            position_sigma_m=POSITION_SIGMAS_M[at[1]],
            heading_sigma_deg=HEADING_SIGMAS_DEG[at[2]],
            unknown_level=float(self.levels[at]),
            unexplained_share=float(self.shares[at]),
        )


@dataclass(frozen=True, eq=False)
class _Bench:
    """Left-out trials, scored under any calibration."""

    trials: Sequence[_Trial]
    models: Mapping[str, ColumnModel]
    matcher: SemanticMatcher

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        models: Mapping[str, ColumnModel],
        segmenter: Segmenter,
        *,
        seed: int,
    ) -> _Bench:
        from tqdm import tqdm

        widest = Calibration(position_sigma_m=max(POSITION_SIGMAS_M))
        model = next(iter(models.values())).calibrated(widest)
        matcher = SemanticMatcher(segmenter, model, rays=RayCache(2_000_000_000))
        # a rig and its photos are searched in the same places, which are ray-cast once
        trials = [
            _Trial.at(sample, place, matcher, is_right=is_right)
            for sample in tqdm(samples, unit="place", delay=2, disable=None)
            for is_right, place in _places(sample, matcher, seed=seed)
        ]
        return cls(trials, models, matcher)

    def best(self) -> tuple[Calibration, dict[str, float]]:
        """The calibration to use, and the mean left-out score of every station under it.

        One group of numbers is tried at a time. A street is a small sample: of all calibrations
        whose score is within one standard error of the best (of the differences by station), the
        one that trusts map and columns least is taken, as in the one-standard-error rule of Breiman
        et al. (1984): the most outliers, then the least trust in heights and pixels, the smallest
        scale, and the widest blur.
        """
        start = Calibration()
        setting = _Setting(start.pixel_scale, start.height_share, start.outlier_share)
        found = {setting: self._scored(setting)}
        for name, values in (
            ("pixel_scale", PIXEL_SCALES),
            ("height_share", HEIGHT_SHARES),
            ("outlier_share", OUTLIER_SHARES),
        ):
            for value in values:
                tried = replace(setting, **{name: value})
                if tried not in found:
                    found[tried] = self._scored(tried)
                    _log.info("left-out log score %.3f with %s", found[tried].log_score, tried)
            setting = max(found, key=lambda one: found[one].log_score)
        careful = {
            one: at
            for one, scores in found.items()
            if (at := scores.most_careful(found[setting].best_by_station)) is not None
        }
        setting = max(
            careful, key=lambda one: (one.outlier_share, -one.height_share, -one.pixel_scale)
        )
        at = careful[setting]
        names = list(dict.fromkeys(trial.sample.station for trial in self.trials))
        by_station = found[setting].by_station[:, at[0], at[1], at[2]]
        return (
            found[setting].calibration(setting, at),
            {name: float(score) for name, score in zip(names, by_station, strict=True)},
        )

    def _scored(self, setting: _Setting) -> _Scores:
        """Every station's mean score by the other numbers of a calibration."""
        sums = self._summed(setting)
        weights = np.array([1.0 if t.sample.is_rig else _SINGLE_WEIGHT for t in self.trials])
        stations = np.array([trial.sample.station for trial in self.trials])
        names = list(dict.fromkeys(stations))
        member = np.stack([weights * (stations == name) for name in names])
        member /= member.sum(axis=1, keepdims=True)
        shape = len(SCALES), len(POSITION_SIGMAS_M), len(HEADING_SIGMAS_DEG)
        by_station = np.full((len(names), *shape), -np.inf)
        levels, shares = np.zeros(shape), np.zeros(shape)
        for level, share in itertools.product(UNKNOWN_LEVELS, UNEXPLAINED_SHARES):
            scores = np.stack([_score(one, level, share, self.matcher) for one in sums])
            tried = np.tensordot(member, scores, 1)
            better = tried.mean(axis=0) > by_station.mean(axis=0)
            by_station[:, better] = tried[:, better]
            levels[better], shares[better] = level, share
        return _Scores(by_station, levels, shares)

    def _summed(self, setting: _Setting) -> list[_Sums]:
        from tqdm import tqdm

        def look(trial: _Trial) -> _Sums:
            return self._sums_of(trial, setting)

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            jobs = pool.map(look, self.trials)
            return list(
                tqdm(jobs, total=len(self.trials), unit="trial", delay=2, disable=None, leave=False)
            )

    def _sums_of(self, trial: _Trial, setting: _Setting) -> _Sums:
        """Scores of every pose of the disc, and what they come to under every blur."""
        sample, num_headings = trial.sample, self.matcher.num_headings
        model = setting.applied(self.models[sample.station])
        rays_height_m = self.matcher.rays_height_m(sample.view)
        evidence = column_evidence.evidence(sample.view, model, rays_height_m=rays_height_m)
        score = column_sums(
            evidence, trial.codes, np.arange(num_headings), num_headings=num_headings
        )
        return _summary(trial, score.T, evidence.best)


def _summary(trial: _Trial, score: np.ndarray, best: float) -> _Sums:
    cells, mask = trial.place.cells, trial.place.mask()
    num_headings = score.shape[1]
    shape = len(SCALES), len(POSITION_SIGMAS_M), len(HEADING_SIGMAS_DEG)
    log_total, log_truth = np.empty(shape), np.full(shape, np.nan)
    # blurring the mass and blurring the disc are the same
    reached = [
        ndimage.gaussian_filter(mask.astype(float), sigma_m / cells.cell_m, mode="constant")
        for sigma_m in POSITION_SIGMAS_M
    ]
    taps = np.stack(
        [_heading_taps(trial.sample.truth, num_headings, s) for s in HEADING_SIGMAS_DEG], axis=1
    )
    peak = float(score.max())
    score = score - np.float32(peak)
    for i, scale in enumerate(SCALES):
        ratio = np.exp(np.float32(scale) * score)
        by_cell = ratio.sum(axis=1, dtype=float)
        for j, sigma_m in enumerate(POSITION_SIGMAS_M):
            mass = float(reached[j][trial.row, trial.col] @ by_cell)
            with np.errstate(divide="ignore"):  # what float32 cannot say is left to the floor
                log_total[i, j] = np.log(mass) + scale * peak
                if trial.is_right:
                    near, weights = _near(trial, sigma_m / cells.cell_m)
                    log_truth[i, j] = np.log(weights @ ratio[near] @ taps) + scale * peak
    return _Sums(log_total, log_truth, best * np.array(SCALES), int(mask.sum()) * num_headings)


def _near(trial: _Trial, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Free cells whose mass a blur brings to the truth's cell, and which share of it."""
    truth = trial.sample.truth
    truth_row, truth_col = trial.place.cells.cell_of(truth.x_m, truth.y_m)
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


def _score(sums: _Sums, level: float, share: float, matcher: SemanticMatcher) -> np.ndarray:
    """Log score of one trial by (scale, position sigma, heading sigma)."""
    unknown = (level * sums.best)[:, None, None]
    log_kept, log_share = math.log1p(-share), math.log(share)
    total = np.logaddexp(log_kept + sums.log_total - unknown, log_share + math.log(sums.num_poses))
    here = total - math.log(sums.num_poses)
    if np.isnan(sums.log_truth).all():
        return -np.logaddexp(0.0, here)  # the probability of elsewhere, at even odds
    truth = np.logaddexp(log_kept + sums.log_truth - unknown, log_share)
    bin_deg = angles.FULL_TURN_DEG / matcher.num_headings
    density = truth - total - math.log(matcher.cell_m**2 * bin_deg)
    return density - np.logaddexp(0.0, -here)


def _places(
    sample: Sample, matcher: SemanticMatcher, *, seed: int
) -> Iterator[tuple[bool, _Place]]:
    """A disc that holds the camera, and one that does not (where the map has another)."""
    rng = np.random.default_rng([seed, zlib.crc32(sample.station.encode())])
    shift_m = rng.uniform(-PRIOR_SHIFT_M, PRIOR_SHIFT_M, 2)
    truth = np.array([sample.truth.x_m, sample.truth.y_m])
    yield True, _place(sample.frame, truth + shift_m, matcher)
    for _ in range(_MAX_DRAWS):
        away_m, azimuth_deg = rng.uniform(*WRONG_PLACE_M), rng.uniform(0, 360)
        center = truth + away_m * np.array(angles.forward(azimuth_deg))
        place = _place(sample.frame, center, matcher)
        if _is_street(sample, place):
            yield False, place
            return


def _place(frame: LocalFrame, center: np.ndarray, matcher: SemanticMatcher) -> _Place:
    x_m, y_m = map(float, center)
    prior = prior_within(frame, x_m, y_m, radius_m=PRIOR_RADIUS_M, like=matcher)
    margin_m = 3 * max(POSITION_SIGMAS_M)
    return _Place(prior.grid.map.padded(margin_m), (x_m, y_m))


def _is_street(sample: Sample, place: _Place) -> bool:
    """Whether the map knows a disc, and its middle is open ground."""
    try:
        map_raster = sample.maps(place.cells)
    except MapOutsideError:
        return False
    middle = map_raster.grid.cell_of(*place.center_m)
    return bool(map_raster.covered.all() and map_raster.building_height_m[middle] == 0)
