"""Whether photos and map are off by a constant, and whether it turns with the vehicle or stays.

At poses that are known, the columns of a station still prefer places beside the truth. An offset
that all stations share in the vehicle's own axes belongs to the rig or to the pose convention; one
that they share on the ground belongs to the map, its datum, or the positions as a whole. A street
with a corner tells the two apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from crossview import angles, column_evidence, raycast
from crossview.columns import ColumnView
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.pose_evaluation import Evaluation
from crossview.rasters import MapRaster
from crossview.semantic import SemanticMatcher, column_sums

CELL_M = 0.125
"""Spacing of the offsets, and of the map that they are looked up in."""

LARGEST_M = 1.5
"""Offsets up to this are tried, per axis."""

_HEADINGS_AROUND = 2
"""Bins on either side of the true heading that take part: heading truth has errors of its own."""

_NORTH_DEG = 0.0
"""Heading of a vehicle whose right is east and whose ahead is north."""


@dataclass(frozen=True, eq=False)
class Preference:
    """How much more a station's columns like places beside its true pose.

    Args:
        name: Of the station.
        heading_deg: Its true heading.
        log_ratio: (rows, cols) at offsets of CELL_M on the ground, north up, the truth in the
            middle.
    """

    name: str
    heading_deg: float
    log_ratio: np.ndarray

    def at(self, east_m: np.ndarray, north_m: np.ndarray) -> np.ndarray:
        """Between the offsets, interpolated linearly."""
        middle = (self.log_ratio.shape[0] - 1) / 2
        rows = middle - np.asarray(north_m) / CELL_M
        cols = middle + np.asarray(east_m) / CELL_M
        return ndimage.map_coordinates(self.log_ratio, [rows, cols], order=1, mode="nearest")


@dataclass(frozen=True)
class Offset:
    """A constant offset of estimates from truths, and how much better it explains the stations.

    Args:
        right_m: To the right of the vehicle, or to the east.
        forward_m: Ahead of the vehicle, or to the north.
        sigma_right_m: Standard error.
        sigma_forward_m: Standard error.
        log_gain: Log-likelihood ratio to no offset.
    """

    right_m: float
    forward_m: float
    sigma_right_m: float
    sigma_forward_m: float
    log_gain: float


def preference(
    name: str,
    view: ColumnView,
    truth: Pose,
    frame: LocalFrame,
    maps: Callable[[MapGrid], MapRaster],
    *,
    matcher: SemanticMatcher,
) -> Preference:
    """What one station says of places beside its true pose."""
    if truth.heading_deg is None:
        raise ValueError(f"{name} has no heading: offsets are looked for around it.")
    side = 2 * round(LARGEST_M * math.sqrt(2) / CELL_M) + 1
    half_m = side * CELL_M / 2
    cells = MapGrid(frame, truth.x_m - half_m, truth.y_m + half_m, CELL_M, side, side)
    rays = raycast.cast(
        maps(cells.padded(matcher.sight_m)),
        cells,
        height_m=view.height_m,
        num_azimuths=view.num_azimuths,
        reach_m=matcher.sight_m,
    )
    evidence = column_evidence.evidence(view, matcher.model)
    center = int(angles.bin_of(truth.heading_deg, view.num_azimuths))
    near = (center + np.arange(-_HEADINGS_AROUND, _HEADINGS_AROUND + 1)) % view.num_azimuths
    codes = column_evidence.ray_codes(rays).reshape(side * side, -1)
    sums = column_sums(evidence, codes, near, num_headings=view.num_azimuths)
    log_ratio = np.logaddexp.reduce(matcher.scale * sums.astype(float), axis=0)
    log_ratio = np.where(rays.free, log_ratio.reshape(side, side), log_ratio.min())
    return Preference(name, truth.heading_deg, log_ratio - log_ratio[side // 2, side // 2])


def preferences(evaluation: Evaluation) -> list[Preference]:
    """What every rig of a dataset says of places beside its true pose.

    Raises:
        ValueError: The matcher looks at no columns.
    """
    maps, matcher = evaluation.maps(), evaluation.column_matcher()
    return [
        preference(
            query.name,
            views[0],
            query.truth,
            evaluation.manifest.frame(query.region),
            maps[query.region],
            matcher=matcher,
        )
        for query, views in evaluation.views()
    ]


def vehicle_offset(preferences: Sequence[Preference]) -> Offset:
    """The offset that all stations share in their vehicle's axes, right and forward."""
    return _best(preferences, [one.heading_deg for one in preferences])


def ground_offset(preferences: Sequence[Preference]) -> Offset:
    """The offset that all stations share on the ground, east and north."""
    return _best(preferences, [_NORTH_DEG] * len(preferences))


def _best(preferences: Sequence[Preference], headings_deg: Iterable[float]) -> Offset:
    if not preferences:
        raise ValueError("There is no station with a known pose to compare with the map.")
    axis = np.arange(-LARGEST_M, LARGEST_M + CELL_M / 2, CELL_M)
    right_m, forward_m = np.meshgrid(axis, axis)
    total = np.zeros(right_m.shape)
    for one, heading_deg in zip(preferences, headings_deg, strict=True):
        ahead_x, ahead_y = angles.forward(heading_deg)
        total += one.at(
            forward_m * ahead_x + right_m * ahead_y, forward_m * ahead_y - right_m * ahead_x
        )
    weight = np.exp(total - total.max())
    weight /= weight.sum()
    mean_right, mean_forward = float((weight * right_m).sum()), float((weight * forward_m).sum())
    return Offset(
        mean_right,
        mean_forward,
        math.sqrt(float((weight * (right_m - mean_right) ** 2).sum()) + CELL_M**2 / 12),
        math.sqrt(float((weight * (forward_m - mean_forward) ** 2).sum()) + CELL_M**2 / 12),
        float(total.max() - total[total.shape[0] // 2, total.shape[1] // 2]),
    )
