"""Fitting the column model on photos with known poses: tables by counting, scale by likelihood.

`column_tables` counts what rigs show, `column_calibration` says what the counts are worth; here
both become a model. The correlation of a drive's frames is chosen last, by the matcher itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.column_calibration import Bench, blocked_tables
from crossview.column_model import ColumnModel
from crossview.column_tables import Sample, provenance_of, samples_of, tables
from crossview.drive_evaluation import drives
from crossview.pose_evaluation import DRIVE_HEADINGS, Evaluation
from crossview.pose_trials import PriorRule
from crossview.segmenters import Segmenter
from crossview.semantic import SemanticMatcher

if TYPE_CHECKING:
    from crossview.manifest import Manifest

__all__ = ["Fit", "fit", "provenance_of", "samples_of", "with_correlation"]

CORRELATIONS_M = (3.5, 7.0, 14.0, 28.0, 56.0)
"""The values that are tried. Frames are 3.5 m apart or more: shorter lengths cannot be told."""

DRIVE_SEEDS = 2
"""Made-up odometries for the correlation of drives."""

_WORST_NLL = 700.0
"""Of a truth that is excluded: exp(-700) is about the smallest probability in float64."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model, and how it did on what was left out.

    Args:
        model: Tables of all stations, with the calibration.
        log_score_by_station: Mean over a station's left-out trials, its rig's (also on a map
            without heights) and its photos', of the log density at the truth, per square metre and
            degree, plus the log probability of telling right from wrong places.
    """

    model: ColumnModel
    log_score_by_station: Mapping[str, float]

    @property
    def log_score(self) -> float:
        """The mean over stations."""
        return float(np.mean(list(self.log_score_by_station.values())))


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
    by_station = blocked_tables(samples, num_folds)
    calibration, scores = Bench.of(samples, by_station, segmenter, seed=seed).best()
    found = Fit(tables(samples).calibrated(calibration), MappingProxyType(scores))
    said = {
        **(provenance or {}),
        "stations": list(by_station),
        "folds": num_folds,
        "left_out_log_score": round(found.log_score, 3),
    }
    return replace(found, model=replace(found.model, provenance=MappingProxyType(said)))


def with_correlation(
    model: ColumnModel,
    manifest: Manifest,
    segmenter: Segmenter,
    *,
    stations: str | None = None,
    cache: Path | None = None,
) -> ColumnModel:
    """The model with the correlation length under which filtered drives are probable.

    The drives are the dataset's own, with made-up odometry (see drive_evaluation.with_odometry); of
    the lengths within a standard error of the best the longest is taken. A dataset without drives
    leaves the model as it is. The tables have seen these stations, so the length is on the short
    side.
    """
    matcher = SemanticMatcher(segmenter, model, num_headings=DRIVE_HEADINGS)
    evaluation = Evaluation(manifest, matcher, stations=stations, cache=cache)
    if not drives(manifest, evaluation.queries()):
        return model
    rules = [PriorRule(seed=seed) for seed in range(DRIVE_SEEDS)]
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
