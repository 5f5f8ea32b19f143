"""Columns and votes from above together: what the ground shows in the open adds to first walls.

Both look at the same pixels, so the votes count a share only. They made single photos more certain
of the truth, and rigs too certain (see docs/columns.md). Their ratios are set by hand and come
on top of the columns' calibration: probabilities of elsewhere and coverage were not fitted for both
together, and a single photo's votes use the stated camera only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossview.birdseye import BirdsEye
from crossview.birdseye_matcher import BirdsEyeMatcher
from crossview.column_model import ColumnModel
from crossview.columns import ColumnView
from crossview.grids import PoseGrid
from crossview.photos import Panorama, Photo, Rig
from crossview.rasters import MapRaster
from crossview.segmenters import Remembering
from crossview.semantic import SemanticMatcher

VOTES_SHARE = 0.5
"""Of the votes' own log-likelihood; half and all did alike on stations 482-494."""


@dataclass(frozen=True, eq=False)
class JointView:
    """What both matchers make of a query.

    Args:
        columns: For the column matcher.
        birdseye: For the votes.
    """

    columns: Sequence[ColumnView]
    birdseye: BirdsEye


@dataclass(frozen=True)
class JointMatcher:
    """The column matcher, and the bird's-eye matcher's votes at a share.

    Args:
        columns: Says what cells and headings there are.
        votes: With the same cells and headings.
        votes_share: Factor of the votes' log-likelihood.
    """

    columns: SemanticMatcher
    votes: BirdsEyeMatcher
    votes_share: float = VOTES_SHARE

    def __post_init__(self) -> None:
        ours, theirs = (
            (matcher.cell_m, matcher.num_headings) for matcher in (self.columns, self.votes)
        )
        if ours != theirs or not 0 < self.votes_share <= 1:
            raise ValueError(
                f"Both matchers need the same cells and headings, and a share in (0, 1]; got "
                f"{ours}, {theirs} and {self.votes_share}. Make one with JointMatcher.of(columns)."
            )

    @classmethod
    def of(cls, columns: SemanticMatcher) -> JointMatcher:
        """With votes in the column matcher's cells and headings, of the same network."""
        votes = BirdsEyeMatcher(
            columns.segmenter, cell_m=columns.cell_m, num_headings=columns.num_headings
        )
        return cls(columns, votes)

    @property
    def cell_m(self) -> float:
        """Side of a cell."""
        return self.columns.cell_m

    @property
    def num_headings(self) -> int:
        """Heading bins."""
        return self.columns.num_headings

    @property
    def model(self) -> ColumnModel:
        """Of the columns: drives take their correlation from it."""
        return self.columns.model

    @property
    def map_parts(self) -> int:
        """Map cells along the side of a pose cell."""
        return self.columns.map_parts

    @property
    def reach_m(self) -> float:
        """How much map around a pose takes part in its score."""
        return max(self.columns.reach_m, self.votes.reach_m)

    @property
    def scale(self) -> float:
        """Share of a column that counts."""
        return self.columns.scale

    def observe(self, query: Photo | Panorama | Rig) -> JointView:
        """What both make of a query; the network is asked once.

        Cameras that look steeply up see no ground and have no votes.
        """
        remembering = Remembering(self.columns.segmenter)
        columns = replace(self.columns, segmenter=remembering).observe(query)
        return JointView(columns, replace(self.votes, segmenter=remembering).observe(query))

    def log_likelihood(
        self,
        query: Photo | Panorama | Rig | JointView,
        map_raster: MapRaster,
        grid: PoseGrid,
        *,
        headings: np.ndarray | None = None,
    ) -> np.ndarray:
        """The sum of both, (rows, cols, headings); arguments as of SemanticMatcher."""
        view = query if isinstance(query, JointView) else self.observe(query)
        if grid.num_headings == 1:
            volume = self.log_likelihood(
                view, map_raster, PoseGrid(grid.map, self.num_headings), headings=headings
            )
            total = np.logaddexp.reduce(volume.astype(float), axis=2)
            return (total - math.log(self.num_headings))[:, :, None].astype(np.float32)
        columns = self.columns.log_likelihood(view.columns, map_raster, grid, headings=headings)
        near = grid.map.padded(self.votes.reach_m)
        coarse = map_raster.cut(near.divided(self.map_parts)).coarsened(self.map_parts)
        votes = self.votes.log_likelihood(view.birdseye, coarse, grid, headings=headings)
        # what is not tried is -inf in both, and a share of it too
        return columns + np.float32(self.votes_share) * votes
