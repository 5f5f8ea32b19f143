"""Tables of what columns of a panorama show, and the few numbers that say what they are worth.

The tables count how often each group of classes shows in each region of a column (see
column_evidence) at each elevation, at poses that are known. The calibration turns sums of their log
ratios into probabilities that hold. Both are one JSON text; a model is a folder with it (see
models).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from crossview.columns import GROUPS
from crossview.ground_votes import GroundTable

KIND = "columns"

REGIONS = ("open ground", "ground before the wall", "lower facade", "upper facade", "sky")

BAND_EDGES_DEG = (-30.0, -20.0, -12.0, -6.0, 0.0, 8.0, 20.0, 45.0)
"""Elevations between which the tables are constant."""

NEAREST_M, FARTHEST_M = 1.5, 60.0
"""Ranges told apart; what is nearer or farther counts as at the end."""

NUM_RANGES = 80
"""Bins of equal ratio, 4.8 % each."""

COUNTS_SHAPE = (len(REGIONS), len(BAND_EDGES_DEG) + 1, len(GROUPS))

_LAYOUT = {
    "groups": {name: list(classes) for name, classes in GROUPS.items()},
    "regions": list(REGIONS),
    "band_edges_deg": list(BAND_EDGES_DEG),
    "range_bins_m": [NEAREST_M, FARTHEST_M, NUM_RANGES],
}
_PRIOR_PIXELS = 300.0
"""Pixels' worth of its region's mean that each band of a table starts with."""

_PRIOR_REGION_PIXELS = 1.0


@dataclass(frozen=True)
class Calibration:
    """The few numbers that turn counts into probabilities that hold; fitted by likelihood.

    Args:
        pixel_scale: Share of a pixel that counts: neighbours show the same.
        outlier_share: Probability that a column shows something that the map does not know.
        height_share: Probability that a stated building height is right (to about a degree of
            skyline); else it is drawn from the heights of the place.
        scale: Share of a column that counts. 256 columns times this is the effective number of
            columns: neighbours share what the map gets wrong.
        position_sigma_m: How far the map as a whole may be off the photos, per axis.
        heading_sigma_deg: The same of the heading.
        unknown_level: Score of a place unknown, as a share of the best conceivable score of every
            column.
        unexplained_share: Probability that the query fits no place of the map at all.
        correlation_m: On a drive, how far apart frames are whose evidence is independent.
        votes_share: Share of a cell's votes that counts (see ground_votes); 0 leaves them out.
    """

    pixel_scale: float = 0.01
    outlier_share: float = 0.1
    height_share: float = 0.7
    scale: float = 0.7
    position_sigma_m: float = 0.4
    heading_sigma_deg: float = 1.0
    unknown_level: float = 0.7
    unexplained_share: float = 0.02
    correlation_m: float = 5.0
    votes_share: float = 0.0

    def __post_init__(self) -> None:
        shares = (
            "outlier_share", "height_share", "unknown_level", "unexplained_share", "votes_share",
        )  # fmt: skip
        for name, value in vars(self).items():
            within = 0 <= value < 1 or (name == "height_share" and value == 1)
            if not math.isfinite(value) or value < 0 or (name in shares and not within):
                raise ValueError(f"{name} must be a share below 1 or not negative, got {value}.")
        if self.pixel_scale == 0 or self.scale == 0:
            raise ValueError("pixel_scale and scale must be positive: 0 would ignore the query.")


@dataclass(frozen=True, eq=False)
class ColumnModel:
    """Tables of what columns show, and the calibration of what they are worth.

    Args:
        counts: (regions, bands, groups), how many pixels showed each group at known poses.
        range_shares: (ranges,), how often the first wall is that far, over places and azimuths.
        height_mean_m: Of the buildings whose height a map does not know.
        height_std_m: Standard deviation of those.
        calibration: See Calibration.
        ground: What is seen on which kind of place; None where nobody counted.
        provenance: What it was fitted on, for people.
    """

    counts: np.ndarray
    range_shares: np.ndarray
    height_mean_m: float = 18.0
    height_std_m: float = 4.0
    calibration: Calibration = field(default_factory=Calibration)
    ground: GroundTable | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for name, shape in (("counts", COUNTS_SHAPE), ("range_shares", (NUM_RANGES,))):
            array = np.array(getattr(self, name), dtype=float)
            if array.shape != shape or not np.all(np.isfinite(array)) or np.any(array < 0):
                raise ValueError(
                    f"{name} must be finite, not negative and of shape {shape}, got {array.shape}."
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not math.isclose(self.range_shares.sum(), 1.0, abs_tol=1e-3):
            raise ValueError(
                f"range_shares are the shares of all ranges and sum to one, got "
                f"{self.range_shares.sum():.4g}."
            )
        if not self.counts.any():
            raise ValueError("All counts are 0: the model was fitted on no pixel.")
        if self.calibration.votes_share > 0 and self.ground is None:
            raise ValueError(
                f"votes_share is {self.calibration.votes_share} and there is no table of what lies "
                "on the ground. Count one (`crossview fit semantic`), or set it to 0."
            )
        if not (self.height_mean_m > 0 and self.height_std_m > 0):
            raise ValueError(
                f"Building heights need a positive mean and standard deviation, got "
                f"{self.height_mean_m} and {self.height_std_m}."
            )

    @classmethod
    def from_json(cls, text: str) -> ColumnModel:
        """Inverse of to_json.

        Raises:
            ValueError: It is not such a model, or one of other groups of classes.
        """
        try:
            content = json.loads(text)
            _require_layout(content)
            model = cls(
                np.array(content["counts"], float),
                np.array(content["range_shares"], float),
                float(content["height_mean_m"]),
                float(content["height_std_m"]),
                Calibration(**content["calibration"]),
                None if content.get("ground") is None else GroundTable.from_json(content["ground"]),
                MappingProxyType(content.get("provenance", {})),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"This is not a column model ({type(error).__name__}: {error}). Make one with "
                "`crossview fit semantic`."
            ) from error
        return model

    def to_json(self) -> str:
        """All of it as one JSON text."""
        content = {
            "kind": KIND,
            **_LAYOUT,
            "calibration": asdict(self.calibration),
            "height_mean_m": self.height_mean_m,
            "height_std_m": self.height_std_m,
            "counts": np.round(self.counts, 1).tolist(),
            "range_shares": np.round(self.range_shares, 6).tolist(),
            "ground": None if self.ground is None else self.ground.to_json(),
            "provenance": dict(self.provenance),
        }
        return json.dumps(content, indent=1) + "\n"

    def calibrated(self, calibration: Calibration) -> ColumnModel:
        """The same tables with another calibration."""
        return replace(self, calibration=calibration)

    def ratios(self) -> np.ndarray:
        """How much more often a group shows in a region than at that elevation at all.

        Returns:
            (regions, bands, groups), ratios (not logs): mixtures of classes average them. The
            group of what is no scenery ("other") says nothing: its ratio is 1.
        """
        region = self.counts.sum(axis=1) + _PRIOR_REGION_PIXELS
        region /= region.sum(axis=-1, keepdims=True)
        table = self.counts + _PRIOR_PIXELS * region[:, None]
        table /= table.sum(axis=-1, keepdims=True)
        # the mixture of the same tables, so that ratios average to one over the regions of a band
        share = self.counts.sum(axis=-1) + _PRIOR_REGION_PIXELS
        share /= share.sum(axis=0)
        anywhere = np.einsum("rb,rbg->bg", share, table)
        ratios = table / anywhere
        ratios[:, :, list(GROUPS).index("other")] = 1.0
        return ratios


def _require_layout(content: Mapping[str, Any]) -> None:
    for name, ours in _LAYOUT.items():
        # as texts: the order of the groups is that of the tables' axis
        if json.dumps(content[name]) != json.dumps(ours):
            raise ValueError(f"its {name} are {content[name]} and this version has {ours}")
