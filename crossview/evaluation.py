"""How good answers are: errors in metres and degrees, and whether stated probabilities hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import special

from crossview import angles
from crossview.errors import OutOfRegionError
from crossview.frames import Pose
from crossview.posterior import Posterior
from crossview.statements import STATED_WITHIN_M, Statement, statement_summary

POSITION_THRESHOLDS_M = (1.0, 2.0, 5.0)
HEADING_THRESHOLDS_DEG = (5.0, 10.0)
COVERAGE_LEVELS = (0.50, 0.90, 0.95)


@dataclass(frozen=True)
class PoseResult:
    """One answer against the truth.

    Args:
        position_error_m: Distance of the posterior's peak from the truth.
        heading_error_deg: Turn between them, 0..180; None where heading is not represented.
        lateral_m: Part of the error across the true heading, positive to the right.
        longitudinal_m: Part along the true heading, positive ahead.
        nll: Minus log of the probability density at the truth, per square metre and degree;
            inf where the posterior excludes the truth.
        covered: For each of COVERAGE_LEVELS, whether the truth's cell is in the smallest region
            of that probability.
        stated: What the answer says of itself; None where nobody asked.
    """

    position_error_m: float
    heading_error_deg: float | None
    lateral_m: float | None
    longitudinal_m: float | None
    nll: float
    covered: tuple[bool, ...]
    stated: Statement | None = None


def pose_result(
    posterior: Posterior, truth: Pose, *, stated: Statement | None = None
) -> PoseResult:
    """The posterior's peak and its regions against the truth."""
    estimate = posterior.peak()
    dx_m, dy_m = estimate.x_m - truth.x_m, estimate.y_m - truth.y_m
    heading_error_deg = lateral_m = longitudinal_m = None
    if truth.heading_deg is not None:
        east, north = angles.forward(truth.heading_deg)
        longitudinal_m = float(dx_m * east + dy_m * north)
        lateral_m = float(dx_m * north - dy_m * east)
        if estimate.heading_deg is not None:
            turn_deg = angles.difference_deg(estimate.heading_deg, truth.heading_deg)
            heading_error_deg = abs(float(turn_deg))
    return PoseResult(
        position_error_m=math.hypot(dx_m, dy_m),
        heading_error_deg=heading_error_deg,
        lateral_m=lateral_m,
        longitudinal_m=longitudinal_m,
        nll=-posterior.log_density(truth),
        covered=tuple(_holds(posterior, level, truth) for level in COVERAGE_LEVELS),
        stated=stated,
    )


def credible_level(
    posterior: Posterior, truth: Pose, *, rng: np.random.Generator | None = None
) -> float:
    """How much probability the smallest region holds that holds the truth, in (0, 1].

    The probability of all cells that are at least as probable as the truth's; 1 where the
    posterior excludes it or its grid ends before. Where it is at most m < 1, the truth is in
    posterior.region(m).

    A probable cell counts in full, and so do all that tie with it: where single cells hold much,
    honest answers have levels that are too high (a flat posterior always has 1). For a reliability
    diagram give a generator, which draws the level evenly between the probability of the more
    probable cells and that, so that the levels of honest answers are uniform.

    Args:
        posterior: The answer.
        truth: Where the camera was; its heading does not matter.
        rng: Draws within the truth's cell and its ties.
    """
    try:
        row, col = posterior.grid.map.cell_of(truth.x_m, truth.y_m)
    except OutOfRegionError:
        return 1.0
    position = posterior.position()
    if position[row, col] == 0:
        return 1.0
    total = position.sum()
    through = float(position[position >= position[row, col]].sum() / total)
    if rng is not None:
        before = float(position[position > position[row, col]].sum() / total)
        through = before + (through - before) * (1 - rng.random())
    return min(through, 1.0)


def coverage_interval(
    num_covered: float, num_answers: int, confidence: float = 0.9
) -> tuple[float, float]:
    """Between which shares the true coverage lies, as a count of covered truths tells it.

    Jeffreys' interval (Brown, Cai and DasGupta, 2001): quantiles of the beta distribution with
    half a success and half a failure added; it ends at 0 for none covered and at 1 for all.

    Args:
        num_covered: Answers whose region holds the truth; no whole number where it is a mean.
        num_answers: All answers, 1 or more.
        confidence: Probability that the interval states, in (0, 1).

    Returns:
        low, high: In [0, 1].
    """
    if not (num_answers >= 1 and 0 <= num_covered <= num_answers and 0 < confidence < 1):
        raise ValueError(
            f"Expected 0 to num_answers covered of at least 1 answer and a confidence in (0, 1); "
            f"got {num_covered} of {num_answers} and {confidence}."
        )
    successes, failures = num_covered + 0.5, num_answers - num_covered + 0.5
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(successes, failures, tail)) if num_covered else 0.0
    is_all = num_covered == num_answers
    return low, 1.0 if is_all else float(special.betaincinv(successes, failures, 1 - tail))


def pose_summary(results: Iterable[PoseResult]) -> dict[str, float | int | None]:
    """The figures that papers print; shares are fractions, thresholds are strict.

    Returns:
        n, median_position_error_m, within_{1,2,5}m, median_heading_error_deg, within_{5,10}deg,
        nll (mean; inf if any answer excluded the truth) and coverage_{50,90,95}. Heading figures
        are None where heading is not represented. Where all answers state how sure they are, also
        probability_elsewhere, answered (see statements.statement_summary), probability_within_5m
        (mean) and selective_accuracy_5m, the share within 5 m of those that are an answer; None
        if none is.
    """
    results = list(results)
    if not results:
        raise ValueError("No results to summarise: the dataset has no photo with a known pose.")
    error_m = np.array([result.position_error_m for result in results])
    turns_deg = [r.heading_error_deg for r in results if r.heading_error_deg is not None]
    summary: dict[str, float | int | None] = {
        "n": len(results),
        "median_position_error_m": float(np.median(error_m)),
    }
    for threshold_m in POSITION_THRESHOLDS_M:
        summary[f"within_{threshold_m:g}m"] = float(np.mean(error_m < threshold_m))
    summary["median_heading_error_deg"] = float(np.median(turns_deg)) if turns_deg else None
    for threshold_deg in HEADING_THRESHOLDS_DEG:
        within = float(np.mean(np.array(turns_deg) < threshold_deg)) if turns_deg else None
        summary[f"within_{threshold_deg:g}deg"] = within
    summary["nll"] = float(np.mean([result.nll for result in results]))
    for i, level in enumerate(COVERAGE_LEVELS):
        summary[f"coverage_{level:.0%}".rstrip("%")] = float(
            np.mean([result.covered[i] for result in results])
        )
    stated = [result.stated for result in results if result.stated is not None]
    if len(stated) == len(results):
        is_answer = np.array([one.is_answer for one in stated])
        right = error_m[is_answer] < STATED_WITHIN_M
        summary |= statement_summary(stated)
        summary["probability_within_5m"] = float(np.mean([s.probability_within_5m for s in stated]))
        summary["selective_accuracy_5m"] = float(np.mean(right)) if right.size else None
    return summary


def _holds(posterior: Posterior, level: float, truth: Pose) -> bool:
    try:
        row, col = posterior.grid.map.cell_of(truth.x_m, truth.y_m)
    except OutOfRegionError:
        return False
    return bool(posterior.region(level)[row, col])
