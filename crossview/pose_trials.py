"""One query with a known pose, searched from the rough prior that users have, or a wrong one."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview import angles
from crossview.errors import MapOutsideError
from crossview.evaluation import PoseResult, pose_result
from crossview.evidence import DEFAULT_COMPASS_SIGMA_DEG, prior_within
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.legends import BUILDING
from crossview.localizer import Localization, ObservingMatcher, search_disc
from crossview.pose_queries import Query
from crossview.posterior import Posterior
from crossview.rasters import MapRaster
from crossview.statements import OUTSIDE, Statement

WRONG_PLACE_M = (70.0, 150.0)
"""How far away the middle of a disc is that does not hold the camera."""

_MAX_DRAWS = 200
_CELL_M = 1.0
"""Of the map that tells whether a place is open."""


@dataclass(frozen=True)
class PriorRule:
    """How rough the prior of a trial is.

    Args:
        radius_m: Radius of the disc that surely holds the camera.
        shift_m: The disc's centre is off the truth by up to this, uniformly, per axis.
        compass_sigma_deg: Standard deviation of a compass; None searches all headings. The
            compass reads the truth plus an error drawn from this.
        seed: Of the draws. A query's draw depends on its own name only, not on the others.
        enclosed: How probable a place in a closed courtyard or a building is, as a share of one in
            the open (see evidence.reachable); 1 if nothing is known of that.
        outside: Probability, as the localizer is told, that the disc does not hold the camera.
    """

    radius_m: float = 25.0
    shift_m: float = 15.0
    compass_sigma_deg: float | None = None
    seed: int = 0
    enclosed: float = 1.0
    outside: float = OUTSIDE

    def __post_init__(self) -> None:
        if (
            not 0 < self.radius_m < math.inf
            or not 0 <= self.shift_m * math.sqrt(2) <= self.radius_m
        ):
            raise ValueError(
                f"A disc of {self.radius_m} m whose centre is up to {self.shift_m} m off per axis "
                "may not hold the camera. Give a positive radius_m of at least 1.42 times shift_m."
            )
        if self.compass_sigma_deg is not None and not 0 < self.compass_sigma_deg < math.inf:
            raise ValueError(f"compass_sigma_deg must be positive, got {self.compass_sigma_deg}.")


@dataclass(frozen=True)
class Trial:
    """One query of a dataset, what is known about it, and the answer.

    Args:
        name: Station or view.
        truth: Where the camera stood, in the region's frame.
        prior: The rough idea that the localizer was given.
        localization: What it answered.
        result: How good that is.
        wrong_place: What was stated of the query in a disc that does not hold it; None where
            nobody asked.
    """

    name: str
    truth: Pose
    prior: Posterior
    localization: Localization
    result: PoseResult
    wrong_place: Statement | None = None


def drawn_prior(
    rule: PriorRule, query: Query, frame: LocalFrame, matcher: ObservingMatcher
) -> Posterior:
    """The rough idea of one query: a shifted disc, and perhaps a compass with an error."""
    rng = _rng(rule, query)
    shift_x_m, shift_y_m = rng.uniform(-rule.shift_m, rule.shift_m, size=2)
    center = Pose(query.truth.x_m + shift_x_m, query.truth.y_m + shift_y_m)
    return _prior_around(center, rule, query, frame, matcher=matcher, rng=rng)


def trial(
    query: Query,
    view: Any,
    frame: LocalFrame,
    matcher: ObservingMatcher,
    maps: Callable[[MapGrid], MapRaster],
    *,
    rule: PriorRule,
) -> Trial:
    """Localize what matcher.observe made of one query."""
    prior = drawn_prior(rule, query, frame, matcher)
    localization = _searched(view, prior, matcher, maps, rule)
    result = pose_result(localization.best, query.truth, stated=localization.stated())
    return Trial(query.name, query.truth, prior, localization, result)


def wrong_statement(
    query: Query,
    view: Any,
    frame: LocalFrame,
    matcher: ObservingMatcher,
    maps: Callable[[MapGrid], MapRaster],
    *,
    rule: PriorRule,
) -> Statement | None:
    """What is stated of one query in a disc that does not hold it: good answers are none.

    Returns:
        None where the map knows no wrong place (see wrong_place).
    """
    rng = _rng(rule, query)
    center = wrong_place(query.truth, frame, maps, radius_m=rule.radius_m, rng=rng)
    if center is None:
        return None
    prior = _prior_around(center, rule, query, frame, matcher=matcher, rng=rng)
    return _searched(view, prior, matcher, maps, rule).stated()


def wrong_place(
    truth: Pose,
    frame: LocalFrame,
    maps: Callable[[MapGrid], MapRaster],
    *,
    radius_m: float,
    rng: np.random.Generator,
) -> Pose | None:
    """The middle of a disc that does not hold the camera: on open ground that the map knows.

    Args:
        truth: Where the camera is.
        frame: Of the truth.
        maps: Cuts the map.
        radius_m: Of the disc, all of which the map must cover.
        rng: Draws how far away it is (WRONG_PLACE_M) and in which direction.

    Returns:
        None where no such place was found around the truth.
    """
    if not radius_m < WRONG_PLACE_M[0]:
        raise ValueError(
            f"A wrong place is {WRONG_PLACE_M[0]:g} m away or more, and a disc of {radius_m:g} m "
            "around it may hold the camera. Give a smaller radius_m."
        )
    for _ in range(_MAX_DRAWS):
        away_m, azimuth_deg = rng.uniform(*WRONG_PLACE_M), rng.uniform(0.0, angles.FULL_TURN_DEG)
        east, north = angles.forward(azimuth_deg)
        place = Pose(float(truth.x_m + away_m * east), float(truth.y_m + away_m * north))
        if _is_open(place, frame, maps, radius_m):
            return place
    return None


def _is_open(
    place: Pose, frame: LocalFrame, maps: Callable[[MapGrid], MapRaster], radius_m: float
) -> bool:
    """Whether the map knows all around a place, and the place is not in a building."""
    cells = MapGrid.around(frame, place.x_m, place.y_m, radius_m=radius_m, cell_m=_CELL_M)
    try:
        map_raster = maps(cells)
    except MapOutsideError:
        return False
    middle = cells.cell_of(place.x_m, place.y_m)
    return bool(map_raster.covered.all() and not map_raster.class_mask(BUILDING)[middle])


def _rng(rule: PriorRule, query: Query) -> np.random.Generator:
    return np.random.default_rng([rule.seed, zlib.crc32(query.name.encode())])


def _prior_around(
    center: Pose,
    rule: PriorRule,
    query: Query,
    frame: LocalFrame,
    *,
    matcher: ObservingMatcher,
    rng: np.random.Generator,
) -> Posterior:
    heading_deg = None
    if rule.compass_sigma_deg is not None and query.truth.heading_deg is not None:
        heading_deg = query.truth.heading_deg + rng.normal(0.0, rule.compass_sigma_deg)
    return prior_within(
        frame,
        center.x_m,
        center.y_m,
        radius_m=rule.radius_m,
        like=matcher,
        heading_deg=heading_deg,
        compass_sigma_deg=rule.compass_sigma_deg or DEFAULT_COMPASS_SIGMA_DEG,
    )


def _searched(
    view: Any,
    prior: Posterior,
    matcher: ObservingMatcher,
    maps: Callable[[MapGrid], MapRaster],
    rule: PriorRule,
) -> Localization:
    return search_disc(
        view,
        prior,
        maps,
        matcher,
        radius_m=rule.radius_m,
        enclosed=rule.enclosed,
        outside=rule.outside,
    )
