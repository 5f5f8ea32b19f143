"""Calibration of a column model by blocked cross-validation.

The calibration has few numbers and is chosen by the probability that it gives to the true poses of
stations whose stretch of street was left out of the tables (neighbouring stations see the same
houses), to rigs on maps with and without heights and to their single photos, and by how well it
tells the right place from a wrong one.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from crossview.column_model import Calibration, ColumnModel
from crossview.column_tables import Sample, tables
from crossview.column_trials import (
    HEADING_SIGMAS_DEG,
    POSITION_SIGMAS_M,
    SCALES,
    SHAPE,
    Sums,
    Trial,
    places,
)
from crossview.pose_queries import without_heights
from crossview.segmenters import Segmenter
from crossview.semantic import NUM_THREADS, RayCache, SemanticMatcher

TRIED: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "outlier_share": (0.2, 0.1, 0.03, 0.01),
        "height_share": (0.3, 0.5, 0.7, 0.9, 0.97),
        "pixel_scale": (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
        "votes_share": (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
    }
)
"""Values of a setting in the order of the search, of each the one that trusts least first."""

UNKNOWN_LEVELS = tuple(np.linspace(0.05, 0.95, 19).round(3).tolist())
UNEXPLAINED_SHARES = (1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Tried with every setting, as are the scales and blurs of column_trials."""

_SINGLE_WEIGHT = 0.25
"""A rig's photos together count as much as the rig on one of its two maps."""

_RAYS_BYTES = 2_000_000_000
"""Memory for the ray-cast maps of a street."""

_log = logging.getLogger(__name__)

_At: TypeAlias = tuple[int, int, int]
"""Index of a scale, a position sigma and a heading sigma."""


def blocked_tables(samples: Sequence[Sample], num_folds: int) -> dict[str, ColumnModel]:
    """Tables for every station with a rig, which have not seen its stretch of the street.

    Args:
        samples: In the order of the street.
        num_folds: How many stretches.

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
    found = {}
    for training, left_out in _folds(stations, num_folds):
        model = tables(sample for sample in samples if sample.station in training)
        found.update(dict.fromkeys(left_out, model))
    return found


def _folds(stations: Sequence[str], num_folds: int) -> Iterator[tuple[set[str], Sequence[str]]]:
    """Stations to train on and stations left out; neighbours of what is left out are in neither."""
    edges = np.linspace(0, len(stations), num_folds + 1).round().astype(int)
    for first, last in itertools.pairwise(edges):
        yield {*stations[: max(first - 1, 0)], *stations[last + 1 :]}, stations[first:last]


def _on_poorer_maps(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, and the rigs again where nobody has measured a building."""
    rigs = (sample for sample in samples if sample.is_rig)
    return [*samples, *(replace(rig, maps=without_heights(rig.maps)) for rig in rigs)]


@dataclass(frozen=True)
class Setting:
    """The part of a calibration that changes columns, before anything is summed."""

    pixel_scale: float = Calibration.pixel_scale
    height_share: float = Calibration.height_share
    outlier_share: float = Calibration.outlier_share
    votes_share: float = Calibration.votes_share

    def applied(self, model: ColumnModel) -> ColumnModel:
        """The tables with it."""
        return model.calibrated(replace(model.calibration, **vars(self)))


@dataclass(frozen=True, eq=False)
class Scores:
    """How good a setting is with every scale and blur, at the best of the other numbers.

    Args:
        by_station: (stations, scales, position sigmas, heading sigmas), mean score of the trials.
        levels: The best unknown_level of each, (scales, position sigmas, heading sigmas).
        shares: The best unexplained_share.
    """

    by_station: np.ndarray
    levels: np.ndarray
    shares: np.ndarray

    def at(self, at: _At) -> np.ndarray:
        """With one scale and blur, (stations,)."""
        return self.by_station[(slice(None), *at)]

    @property
    def best_at(self) -> _At:
        """Where the mean over stations is highest."""
        mean = self.by_station.mean(axis=0)
        scale, position, heading = np.unravel_index(int(mean.argmax()), mean.shape)
        return int(scale), int(position), int(heading)

    @property
    def log_score(self) -> float:
        """The mean over stations there."""
        return float(self.at(self.best_at).mean())

    def most_careful(self, best_by_station: np.ndarray) -> _At | None:
        """The smallest scale, then the widest blurs, that is within a standard error of the best.

        None where nothing of this setting is.
        """
        lost = best_by_station[:, None, None, None] - self.by_station
        error = lost.std(axis=0, ddof=1) / math.sqrt(len(lost))
        careful = np.argwhere(lost.mean(axis=0) <= error).tolist()
        if not careful:
            return None
        scale, position, heading = max(careful, key=lambda at: (-at[0], at[1], at[2]))
        return scale, position, heading

    def calibration(self, setting: Setting, at: _At) -> Calibration:
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
class Bench:
    """Left-out trials, scored under any calibration.

    Args:
        trials: Of all stations.
        models: Tables for every station, which have not seen it (see blocked_tables).
        num_headings: Heading bins.
    """

    trials: Sequence[Trial]
    models: Mapping[str, ColumnModel]
    num_headings: int

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        models: Mapping[str, ColumnModel],
        segmenter: Segmenter,
        *,
        seed: int,
    ) -> Bench:
        """Every sample in a place that holds it and in one that does not; here maps are ray-cast.

        Rigs are also tried on the map without its heights: maps of other towns may have none. Their
        scores are stricter than the matcher's: a place unknown is taken to have heights even so
        (ColumnEvidence.above knows better, but by pose, and sums are made before).

        Args:
            samples: Rigs and photos.
            models: Tables for every station.
            segmenter: What made their columns.
            seed: Of the discs.
        """
        from tqdm import tqdm

        widest = Calibration(position_sigma_m=max(POSITION_SIGMAS_M))
        # a rig and its photos are searched in the same places, which are ray-cast once
        rays = RayCache(_RAYS_BYTES)
        matchers = {
            station: SemanticMatcher(segmenter, model.calibrated(widest), rays=rays)
            for station, model in models.items()
        }
        trials = [
            Trial.at(sample, place, matchers[sample.station])
            for sample in tqdm(_on_poorer_maps(samples), unit="place", delay=2, disable=None)
            for place in places(sample, matchers[sample.station], seed=seed)
        ]
        return cls(trials, models, next(iter(matchers.values())).num_headings)

    @property
    def have_votes(self) -> bool:
        """Whether anybody looked at the ground."""
        return any(trial.votes is not None for trial in self.trials)

    @property
    def stations(self) -> list[str]:
        """Names, in the order of the trials."""
        return list(dict.fromkeys(trial.sample.station for trial in self.trials))

    def best(self) -> tuple[Calibration, dict[str, float]]:
        """The calibration to use, and the mean left-out score of every station under it.

        The numbers of a setting are searched one at a time, the others as found so far, with every
        scale and blur. A street is a small sample, so the best is not what is used: from there
        every number in turn goes to the value that trusts map and columns least and is still within
        one standard error of the best (of the differences by station), as in the one-standard-error
        rule of Breiman et al. (1984). Of that setting the smallest scale and the widest blurs
        within the error are taken.
        """
        tried = _Tried(self)
        best = Setting()
        for name in TRIED:
            best = max(self._varied(best, name), key=lambda one: tried[one].log_score)
        goal = tried[best].at(tried[best].best_at)
        setting, at = best, tried[best].best_at
        for name in TRIED:
            setting, at = next(
                (one, careful)
                for one in self._varied(setting, name)
                if (careful := tried[one].most_careful(goal)) is not None
            )
        by_station = dict(zip(self.stations, tried[setting].at(at).tolist(), strict=True))
        return tried[setting].calibration(setting, at), by_station

    def _varied(self, setting: Setting, name: str) -> list[Setting]:
        """It with every value of one number, the least trusting first."""
        if name == "votes_share" and not self.have_votes:
            return [setting]
        return [replace(setting, **{name: value}) for value in TRIED[name]]

    def _scored(self, setting: Setting) -> Scores:
        """Every station's mean score by the other numbers of a calibration."""
        sums = self.summed(setting)
        weights = np.array([1.0 if t.sample.is_rig else _SINGLE_WEIGHT for t in self.trials])
        of_trial = np.array([trial.sample.station for trial in self.trials])
        member = np.stack([weights * (of_trial == name) for name in self.stations])
        member /= member.sum(axis=1, keepdims=True)
        by_station = np.full((len(member), *SHAPE), -np.inf)
        levels, shares = np.zeros(SHAPE), np.zeros(SHAPE)
        for level, share in itertools.product(UNKNOWN_LEVELS, UNEXPLAINED_SHARES):
            tried = np.tensordot(member, np.stack([one.scores(level, share) for one in sums]), 1)
            better = tried.mean(axis=0) > by_station.mean(axis=0)
            by_station[:, better] = tried[:, better]
            levels[better], shares[better] = level, share
        return Scores(by_station, levels, shares)

    def summed(self, setting: Setting) -> list[Sums]:
        """What the scores of every trial come to."""
        from tqdm import tqdm

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            jobs = pool.map(functools.partial(self._summed, setting), self.trials)
            return list(
                tqdm(jobs, total=len(self.trials), unit="trial", delay=2, disable=None, leave=False)
            )

    def _summed(self, setting: Setting, trial: Trial) -> Sums:
        model = setting.applied(self.models[trial.sample.station])
        return Sums.of(trial, model, num_headings=self.num_headings)


class _Tried(dict[Setting, Scores]):
    """Scores of settings, each computed when it is first asked for."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench

    def __missing__(self, setting: Setting) -> Scores:
        scores = self[setting] = self._bench._scored(setting)
        _log.info("left-out log score %.3f with %s", scores.log_score, setting)
        return scores
