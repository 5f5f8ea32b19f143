"""How large errors are, and whether stated probabilities hold, drawn."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossview import drawing
from crossview.evaluation import POSITION_THRESHOLDS_M, coverage_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STATED = np.linspace(0, 1, 101)
"""Probabilities at which the coverage is drawn."""

_SMALLEST_ERROR_M = 0.05
"""Where the axis of errors begins: less is drawn there."""

_LABEL_CHARACTERS = 26

_LOOKS = (
    ("#1146c4", "solid"),
    ("#d1495b", (0, (5, 1.5))),
    ("#00703c", (0, (2, 1))),
    ("#7b3294", (0, (6, 1.5, 1.5, 1.5))),
    ("#b8860b", (0, (1, 1))),
)


def reliability(levels: Mapping[str, npt.ArrayLike], ax: Axes, *, confidence: float = 0.9) -> Axes:
    """How often the truth was inside regions of a stated probability, for every probability.

    Honest answers lie on the diagonal; below it the truth is inside less often than stated. A
    band is what the count at each probability leaves open, one probability at a time: neighbours
    share their answers, and leave the diagonal together.

    Args:
        levels: By name, the credible level of the truth of every answer, (answers,) in [0, 1]:
            evaluation.credible_level with a generator.
        ax: Where to draw; a column at its right is used for the legend.
        confidence: Of the bands.
    """
    from matplotlib.patches import Patch

    ax.plot([0, 1], [0, 1], color="#555555", lw=1, ls=(0, (1, 2)), label="as stated", zorder=2)
    looks = itertools.cycle(_LOOKS)
    for (name, series), (color, style) in zip(levels.items(), looks, strict=False):
        ordered = _sorted_levels(name, series)
        covered = np.searchsorted(ordered, _STATED, side="right")
        low, high = np.array(
            [coverage_interval(int(count), ordered.size, confidence) for count in covered]
        ).T
        ax.fill_between(_STATED, low, high, color=color, alpha=0.16, lw=0, zorder=1)
        label = f"{name} (n = {ordered.size})"
        ax.plot(_STATED, covered / ordered.size, color=color, ls=style, lw=1.6, label=label)
    corners = (
        (0.03, 0.97, "under-confident", "left", "top"),
        (0.97, 0.03, "over-confident", "right", "bottom"),
    )
    for x, y, text, align, vertical in corners:
        ax.text(x, y, text, ha=align, va=vertical, fontsize=drawing.SMALL, color="#777777")
    ticks = np.linspace(0, 1, 6)
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xticks=ticks,
        yticks=ticks,
        aspect="equal",
        xlabel="stated probability of the region",
        ylabel="share of truths inside of it",
    )
    ax.grid(color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    band = Patch(facecolor="#888888", alpha=0.3, lw=0, label=f"{confidence:.0%} interval")
    handles, _ = ax.get_legend_handles_labels()
    drawing.legend_beside(ax, [*handles[1:], handles[0], band])
    return ax


def errors(errors_m: Mapping[str, npt.ArrayLike], ax: Axes) -> Axes:
    """The share of answers whose position is at most so far off, for every distance.

    Dotted lines are the distances that evaluation.pose_summary counts within.

    Args:
        errors_m: By name, the distance of every answer from the truth, (answers,).
        ax: Where to draw; a column at its right is used for the legend.
    """
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

    largest_m = max(POSITION_THRESHOLDS_M)
    looks = itertools.cycle(_LOOKS)
    for (name, series), (color, style) in zip(errors_m.items(), looks, strict=False):
        ordered = _sorted_errors(name, series)
        largest_m = max(largest_m, float(ordered[-1]))
        shares = np.arange(ordered.size + 1) / ordered.size
        label = f"{name} (n = {ordered.size}), median {np.median(ordered):.2f} m"
        ax.plot(
            np.concatenate([[0.0, *ordered], [ordered[-1] * 1e3 + 1e3]]),
            np.concatenate([shares, [1.0]]),
            drawstyle="steps-post",
            color=color,
            ls=style,
            lw=1.6,
            label=textwrap.fill(label, _LABEL_CHARACTERS),
        )
    for threshold_m in POSITION_THRESHOLDS_M:
        ax.axvline(threshold_m, color="#777777", lw=0.9, ls=(0, (1, 2)), zorder=1)
    ax.set(
        xscale="log",
        xlim=(_SMALLEST_ERROR_M, 1.3 * largest_m),
        ylim=(0, 1.02),
        xlabel="error of the position (m)",
        ylabel="share of answers with at most that error",
    )
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=99))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    ax.grid(color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    drawing.legend_beside(ax, ax.get_legend_handles_labels()[0])
    return ax


def _sorted_errors(name: str, series: npt.ArrayLike) -> np.ndarray:
    values = np.sort(np.asarray(series, dtype=float), axis=None)
    if not values.size or not (values[0] >= 0 and np.isfinite(values[-1])):
        found = f"{values[0]} to {values[-1]}" if values.size else "none"
        raise ValueError(
            f"Errors of {name!r} are expected in metres, 0 or more, one per answer; got {found}."
        )
    return values


def _sorted_levels(name: str, series: npt.ArrayLike) -> np.ndarray:
    values = np.sort(np.asarray(series, dtype=float), axis=None)
    if not values.size or not (values[0] >= 0 and values[-1] <= 1):
        found = f"{values[0]} to {values[-1]}" if values.size else "none"
        raise ValueError(
            f"Levels of {name!r} are expected in [0, 1], one per answer; got {found}. "
            "evaluation.credible_level(posterior, truth, rng=rng) gives them."
        )
    return values
