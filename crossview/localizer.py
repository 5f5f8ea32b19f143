"""From a query and a prior to a pose: coarse by gallery, fine by matcher, one posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from crossview import angles
from crossview.errors import MapOutsideError
from crossview.evidence import ENCLOSED, Nothing, on_open_ground
from crossview.grids import MapGrid, PoseGrid
from crossview.posterior import Mode, Posterior, Resolution
from crossview.rasters import MapRaster
from crossview.statements import OUTSIDE, STATED_WITHIN_M, Statement

WINDOW_MARGIN_M = 2.0
"""How much wider than a disc the one window is that holds it: its cells may stick out."""


class Gallery(Protocol):
    """Coarse knowledge: what a whole place looks like."""

    def log_likelihood(self, query: Any, grid: PoseGrid) -> np.ndarray:
        """Log-likelihood that broadcasts to the grid."""


class Matcher(Resolution, Protocol):
    """Fine knowledge: how a query fits a map at every pose, in cells and headings of its own."""

    @property
    def reach_m(self) -> float:
        """How far from the camera it looks at the map."""

    @property
    def map_parts(self) -> int:
        """How many map cells it wants along the side of a pose cell."""

    @property
    def scale(self) -> float:
        """The factor that makes its scores log-likelihoods."""

    def log_likelihood(
        self,
        query: Any,
        map_raster: MapRaster,
        grid: PoseGrid,
        *,
        headings: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log-likelihood on the grid; bins that `headings` does not list are -inf."""


class ObservingMatcher(Matcher, Protocol):
    """A matcher that can look at a query once and compare it often."""

    def observe(self, query: Any) -> Any:
        """What log_likelihood takes in place of the query."""


@dataclass(frozen=True)
class Localization:
    """Where a query was taken: one posterior per window, and the probability of elsewhere.

    Args:
        posteriors: One per window, best first; their log_evidence makes them compete.
        log_rest: Log of what no window holds, on the scale of log_evidence.
    """

    posteriors: tuple[Posterior, ...]
    log_rest: float = -math.inf

    def __post_init__(self) -> None:
        if not self.posteriors:
            raise ValueError("A localization needs at least one window; the prior had none.")
        best_first = sorted(self.posteriors, key=lambda p: p.log_evidence, reverse=True)
        object.__setattr__(self, "posteriors", tuple(best_first))

    @property
    def best(self) -> Posterior:
        """The posterior on the most probable window."""
        return self.posteriors[0]

    @property
    def weights(self) -> np.ndarray:
        """Probability of every window, (windows,); with probability_elsewhere they sum to one."""
        log_weights = np.array([*(p.log_evidence for p in self.posteriors), self.log_rest])
        weights = np.exp(log_weights - log_weights.max())
        return weights[:-1] / weights.sum()

    @property
    def probability_elsewhere(self) -> float:
        """Probability that no window holds the camera."""
        return max(0.0, 1.0 - float(self.weights.sum()))

    def hedged(self, outside: float) -> Localization:
        """The same if the prior itself holds the camera with a probability only.

        A place outside is unknown: its log ratio is that of a place without map, 0.

        Args:
            outside: Probability, before the query was seen, that the camera is not in the prior.
        """
        if not 0 <= outside < 1:
            raise ValueError(f"outside must be a probability in [0, 1), got {outside}.")
        if outside == 0:
            return self
        log_odds = math.log(outside) - math.log1p(-outside)
        return Localization(self.posteriors, float(np.logaddexp(self.log_rest, log_odds)))

    def probability_within(self, radius_m: float) -> float:
        """Probability that the camera stands within a distance of the best answer."""
        pose = self.best.peak()
        probability = sum(
            float(weight) * posterior.probability_within(radius_m, pose.x_m, pose.y_m)
            for weight, posterior in zip(self.weights, self.posteriors, strict=True)
        )
        return min(probability, 1.0)  # masses are float32

    def stated(self) -> Statement:
        """What users are told beside the best pose."""
        return Statement(self.probability_within(STATED_WITHIN_M), self.probability_elsewhere)

    def modes(self, count: int) -> list[Mode]:
        """Peaks of all windows, most probable first."""
        modes = [
            Mode(mode.pose, mode.mass * float(weight))
            for weight, posterior in zip(self.weights, self.posteriors, strict=True)
            for mode in posterior.modes(count)
        ]
        return sorted(modes, key=lambda mode: mode.mass, reverse=True)[:count]


@dataclass(frozen=True)
class Localizer:
    """The whole way: a gallery says where to look, a matcher looks closely there.

    Args:
        maps: Cuts the map: a MapGrid to a MapRaster on it.
        matcher: Fine knowledge.
        gallery: Coarse knowledge.
        max_windows: How many places are looked at closely.
        window_radius_m: Half the side of such a place.
    """

    maps: Callable[[MapGrid], MapRaster]
    matcher: Matcher
    gallery: Gallery = field(default_factory=Nothing)
    max_windows: int = 4
    window_radius_m: float = 64.0

    def localize(self, query: Any, prior: Posterior) -> Localization:
        """Where a query was taken.

        Args:
            query: A Photo, Panorama or Rig that gallery and matcher understand.
            prior: What is known before: Posterior.flat(grid) updated with evidence.
        """
        coarse = prior.update(self.gallery.log_likelihood(query, prior.grid))
        windows = coarse.windows(self.max_windows, self.window_radius_m, like=self.matcher)
        fine = [coarse.onto(w).update(self.match(query, w, coarse)) for w in windows]
        return Localization(tuple(fine), log_rest=coarse.log_mass_outside(windows))

    def match(self, query: Any, grid: PoseGrid, coarse: Posterior) -> np.ndarray:
        """The matcher's log-likelihood on a window, for the headings that are still possible.

        A window that the map does not reach gets the log ratio of a place unknown, 0.

        Raises:
            MapOutsideError: The map does not reach the prior at all.
        """
        try:
            cells = grid.map.padded(self.matcher.reach_m).divided(self.matcher.map_parts)
            map_raster = self.maps(cells)
        except MapOutsideError:
            self.maps(coarse.grid.map)  # raises too where nothing of the prior is on the map
            return np.zeros((1, 1, 1), np.float32)
        possible = angles.resample_bins(coarse.heading(), grid.num_headings) > 0
        headings = None if possible.all() else np.flatnonzero(possible)
        return self.matcher.log_likelihood(query, map_raster, grid, headings=headings)


def search_disc(
    query: Any,
    prior: Posterior,
    maps: Callable[[MapGrid], MapRaster],
    matcher: Matcher,
    *,
    radius_m: float,
    enclosed: float = ENCLOSED,
    outside: float = OUTSIDE,
) -> Localization:
    """Search a disc for a query: the whole of it at once, courtyards less, and perhaps elsewhere.

    Args:
        query: What the matcher understands.
        prior: The disc and perhaps a compass (evidence.prior_within).
        maps: Cuts the map.
        matcher: Compares query and map.
        radius_m: Of the disc.
        enclosed: How probable a closed courtyard is, as in evidence.reachable.
        outside: Probability that the disc does not hold the camera.
    """
    # what the prior's own sources made of each other is no evidence of the query's
    prior = replace(on_open_ground(prior, maps, enclosed=enclosed), log_evidence=0.0)
    localizer = Localizer(maps, matcher, window_radius_m=radius_m + WINDOW_MARGIN_M)
    return localizer.localize(query, prior).hedged(outside)
