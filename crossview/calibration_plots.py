"""Whether stated probabilities hold, drawn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossview import drawing
from crossview.evaluation import coverage_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STATED = np.linspace(0, 1, 101)
"""Probabilities at which the coverage is drawn."""

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


def _sorted_levels(name: str, series: npt.ArrayLike) -> np.ndarray:
    values = np.sort(np.asarray(series, dtype=float), axis=None)
    if not values.size or not (values[0] >= 0 and values[-1] <= 1):
        found = f"{values[0]} to {values[-1]}" if values.size else "none"
        raise ValueError(
            f"Levels of {name!r} are expected in [0, 1], one per answer; got {found}. "
            "evaluation.credible_level(posterior, truth, rng=rng) gives them."
        )
    return values
