"""What an answer says of itself: how sure it is, and whether it is an answer at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

STATED_WITHIN_M = 5.0
"""How near the truth an answer says that it is."""

MIN_PROBABILITY = 0.5
"""An answer that is less probable than this to be within STATED_WITHIN_M is no answer."""

OUTSIDE = 0.05
"""Probability that a rough place is worse than its radius says, where nobody says better."""


@dataclass(frozen=True)
class Statement:
    """The probabilities that are stated beside a pose.

    Args:
        probability_within_5m: That the camera is within STATED_WITHIN_M of it.
        probability_elsewhere: That the camera is nowhere that was searched.
    """

    probability_within_5m: float
    probability_elsewhere: float

    @property
    def is_answer(self) -> bool:
        """Whether the pose is sure enough to be given as an answer."""
        return self.probability_within_5m >= MIN_PROBABILITY


def statement_summary(statements: Iterable[Statement]) -> dict[str, float | None]:
    """What several answers say of themselves, on average.

    Returns:
        probability_elsewhere (mean) and answered (the share that is an answer; in selective
        prediction also called coverage). Both are None for no answers.
    """
    listed = list(statements)
    if not listed:
        return {"probability_elsewhere": None, "answered": None}
    return {
        "probability_elsewhere": fmean(one.probability_elsewhere for one in listed),
        "answered": fmean(one.is_answer for one in listed),
    }
