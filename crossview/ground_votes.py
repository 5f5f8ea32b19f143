"""What lies on the ground around a camera, from above, against what the map says lies there.

Columns (see column_evidence) know walls and skylines and nothing else. A map of OpenStreetMap also
knows roads, paths, lawns, water, hedges, trees and poles, and a segmentation network sees most of
them. Every pixel of ground is a point on the ground plane, and so is the foot of whatever stands on
it: the lowest pixel of a wall, a hedge, a trunk or a pole that is right above ground, with nothing
before it. A table says how much more often each is seen on each kind of place than anywhere; it is
counted at known poses, like the tables of the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from crossview import angles, birdseye, voting
from crossview.birdseye import BirdsEye
from crossview.birdseye_matcher import feet, on_ground
from crossview.columns import SegmentedImage
from crossview.errors import MapError
from crossview.frames import Pose
from crossview.grids import MapGrid
from crossview.legends import BUILDING, CROSSVIEW, Legend
from crossview.rasters import MapRaster
from crossview.voting import VotingMap

SURFACES = {"road": ("road",), "sidewalk": ("sidewalk",), "terrain": ("terrain",)}
"""Ground that is seen, and its Cityscapes classes."""

FEET = {
    "wall foot": ("building",),
    "fence foot": ("wall", "fence"),
    "plant foot": ("vegetation",),
    "pole foot": ("pole", "traffic light", "traffic sign"),
}
"""What stands on the ground, by its lowest pixel, and its Cityscapes classes."""

CHANNELS = (*SURFACES, *FEET)
"""Of a view from above."""

PLACES: Mapping[str, tuple[str, ...]] = {
    "pole": ("lamp", "traffic_signal", "sign", "stop_sign", "pole", "bollard"),
    "tree": ("tree", "tree_row"),
    "barrier": ("wall", "fence", "hedge"),
    "building edge": ("building_outline",),
    "building": (BUILDING, "roof"),
    "path": ("path", "cycleway"),
    "road": ("road", "parking", "busway"),
    "water": ("water", "stream"),
    "green": ("grass", "park", "field", "trees", "forest", "pitch", "playground", "bare"),
}
"""Kinds of places on a map and the classes of the legends; where several meet the first wins."""

NOTHING, OPEN = "nothing", "open"
"""Nothing where the map would know of roads and buildings; open where it knows buildings only."""

LABELS = (*PLACES, NOTHING, OPEN)

UNKNOWN = len(LABELS)
"""Label of a cell about which the map says nothing."""

CELL_M = 0.5
VIEW_M = 22.0
"""How far from the camera pixels are trusted to lie on the ground plane."""

MARGIN_M = VIEW_M + 3.0
"""How much map around a pose takes part in its votes."""

_BLUR_M = 0.5
"""How far things stand from where the map has them."""

_OUTLIER_SHARE = 0.1
"""Of what is seen that is on no map."""

_POINTS_TO_BE_SURE = 3.0
"""Points in one cell that make its observation two thirds certain (1 - 1/e)."""

_PRIOR_CELLS = 50.0
"""Cells' worth of the mean over all places that each place starts with."""


@dataclass(frozen=True, eq=False)
class GroundTable:
    """How often each channel is seen on each kind of place, at known poses.

    Args:
        counts: (labels, channels), observed cells.
        legend_id: Of the maps that they were counted on: legends draw roads differently.
    """

    counts: np.ndarray
    legend_id: str = CROSSVIEW.legend_id

    def __post_init__(self) -> None:
        counts = np.array(self.counts, dtype=float)
        if counts.shape != (len(LABELS), len(CHANNELS)) or not (counts >= 0).all():
            raise ValueError(
                f"counts must be 0 or more for {len(LABELS)} places and {len(CHANNELS)} channels, "
                f"got an array of {counts.shape}."
            )
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)

    def ratios(self) -> np.ndarray:
        """How much more often a channel is seen on a place than anywhere, (labels + 1, channels).

        1 for UNKNOWN, and near 1 for places of which little was seen.
        """
        anywhere = self.counts.sum(axis=0) + 1.0
        anywhere /= anywhere.sum()
        table = self.counts + _PRIOR_CELLS * anywhere
        table /= table.sum(axis=1, keepdims=True)
        return np.vstack([table / anywhere, np.ones(len(CHANNELS))])

    def log_ratios(self, map_raster: MapRaster, *, parts: int = 1) -> np.ndarray:
        """Votes of a map's cells for each channel, (rows, cols, channels) float32.

        Args:
            map_raster: The map, its rows and columns a multiple of parts.
            parts: Map cells along the side of a voting cell, whose mean votes.

        Returns:
            Natural logs of ratios to a place unknown; 0 where the map says nothing.

        Raises:
            MapError: The map was drawn with another legend.
        """
        if map_raster.legend_id != self.legend_id:
            raise MapError(
                f"What lies on the ground was counted on maps of legend {self.legend_id!r}, and "
                f"this one is of {map_raster.legend_id!r}. Draw the map with the former."
            )
        label = place_labels(map_raster)
        ratio = self.ratios().astype(np.float32)[label]
        rows, cols = (side // parts for side in label.shape)
        ratio = ratio.reshape(rows, parts, cols, parts, len(CHANNELS)).mean(axis=(1, 3))
        sigma = _BLUR_M / (map_raster.grid.cell_m * parts)
        blurred = ndimage.gaussian_filter(ratio, (sigma, sigma, 0), mode="nearest")
        return np.log(_OUTLIER_SHARE + (1 - _OUTLIER_SHARE) * blurred)

    def to_json(self) -> dict[str, Any]:
        """As JSON says it."""
        return {
            "legend_id": self.legend_id,
            "labels": list(LABELS),
            "channels": list(CHANNELS),
            "counts": np.round(self.counts, 1).tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> GroundTable:
        """Inverse of to_json.

        Raises:
            ValueError: It has other places or channels.
        """
        for name, ours in (("labels", LABELS), ("channels", CHANNELS)):
            if tuple(content[name]) != ours:
                raise ValueError(f"its ground {name} are {content[name]} and ours {list(ours)}")
        return cls(np.array(content["counts"], float), content["legend_id"])


@dataclass(frozen=True, eq=False)
class GroundVotes:
    """Votes of the map around a grid of poses, which asks them with one view after the other.

    Args:
        poses: The grid; cells of CELL_M.
        votes: Of the map, `margin` cells wider on every side.
        margin: Cells.
    """

    poses: MapGrid
    votes: VotingMap
    margin: int

    @classmethod
    def on(
        cls, table: GroundTable, map_raster: MapRaster, poses: MapGrid, *, parts: int
    ) -> GroundVotes:
        """The votes of a table.

        Args:
            table: What is seen on which kind of place.
            map_raster: The map, in cells of the poses' divided by parts and MARGIN_M around them.
            poses: Where cameras may stand.
            parts: Map cells along the side of a pose's cell.

        Raises:
            GridMismatchError: The map's cells are others, or it ends too early.
        """
        around = poses.padded(MARGIN_M)
        near = map_raster.cut(around.divided(parts))
        votes = VotingMap(table.log_ratios(near, parts=parts), poses.cell_m)
        return cls(poses, votes, (around.height - poses.height) // 2)

    def scores(
        self, view: BirdsEye, rows: slice, cols: slice, headings: np.ndarray, *, num_headings: int
    ) -> np.ndarray:
        """Sums of the votes of all that a view has seen, (rows, cols, headings) float32.

        Args:
            view: As observed says.
            rows: Of the poses.
            cols: Of the poses.
            headings: Bins to try.
            num_headings: Of a full turn.
        """
        first_row, first_col = rows.start + self.margin, cols.start + self.margin
        height, width = rows.stop - rows.start, cols.stop - cols.start
        window = first_row, first_row + height, first_col, first_col + width
        asked = voting.vote(
            view, self.votes, num_headings=num_headings, window=window, headings=headings
        )
        everything = len(headings) == num_headings
        return asked.scores if everything else asked.scores[:, :, headings]


def observed(images: Sequence[SegmentedImage]) -> BirdsEye:
    """What lies on the ground around a query's reference, (rows, cols, CHANNELS).

    Args:
        images: With cameras, pitch, roll, heights and mounts.

    Returns:
        How sure each channel is in every cell, 0..1; nothing where no ground was seen.
    """
    points = [point for image in images for point in _points_of(image)]
    forward_m, right_m, channel, weight = map(np.concatenate, zip(*points, strict=True))
    near = np.hypot(forward_m, right_m) <= VIEW_M
    points_per_cell = birdseye.from_points(
        forward_m[near],
        right_m[near],
        weight[near, None] * np.eye(len(CHANNELS), dtype=np.float32)[channel[near]],
        cell_m=CELL_M,
        reach_m=VIEW_M,
        reduce="sum",
    )
    sure = -np.expm1(-points_per_cell.values / _POINTS_TO_BE_SURE)
    middle = points_per_cell.camera_row, points_per_cell.camera_col
    return BirdsEye(sure, points_per_cell.seen, CELL_M, *middle)


def place_labels(map_raster: MapRaster) -> np.ndarray:
    """What kind of place every cell is, (rows, cols) indices of LABELS, or UNKNOWN."""
    surveyed = map_raster.surveyed
    absent = UNKNOWN
    if BUILDING in surveyed:
        absent = LABELS.index(NOTHING if "road" in surveyed else OPEN)
    label = np.full(map_raster.grid.shape, absent, np.intp)
    for channel, names in enumerate(_classes(map_raster.legend)):
        own = np.array([UNKNOWN, *(_label_of(name) for name in names)], np.intp)
        here = own[map_raster.classes[..., channel]]
        if channel == 0:
            # an area of a kind that is not counted is not nothing
            label[(map_raster.classes[..., channel] > 0) & (here == UNKNOWN)] = UNKNOWN
        better = (here != UNKNOWN) & ((label >= len(PLACES)) | (here < label))
        label = np.where(better, here, label)
    return np.where(map_raster.covered, label, UNKNOWN)


def counts(view: BirdsEye, truth: Pose, map_raster: MapRaster) -> np.ndarray:
    """What a view shows on each kind of place at a known pose, (labels, channels).

    Args:
        view: As observed says.
        truth: The pose, with a heading, in the map's frame.
        map_raster: The map, MARGIN_M around the pose.
    """
    rows, cols = np.nonzero(view.seen)
    forward_m = (view.camera_row - rows) * view.cell_m
    right_m = (cols - view.camera_col) * view.cell_m
    east, north = angles.forward(truth.heading_deg or 0.0)
    col, row = map_raster.grid.to_pixel(
        truth.x_m + forward_m * east + right_m * north,
        truth.y_m + forward_m * north - right_m * east,
    )
    label = place_labels(map_raster)[row.astype(np.intp), col.astype(np.intp)]
    total = np.zeros((len(LABELS) + 1, len(CHANNELS)))
    np.add.at(total, label, view.values[rows, cols])
    return total[:UNKNOWN]


def _points_of(image: SegmentedImage) -> list[tuple[np.ndarray, ...]]:
    """Forward, right, channel and weight of the ground points of one image, channel by channel."""

    def shows(classes: Iterable[str]) -> np.ndarray:
        return np.isin(image.classes, list(classes))[image.label]

    ground = shows(name for names in SURFACES.values() for name in names)
    step = _column_step(image)
    thinned = np.zeros_like(image.usable)
    thinned[:, step // 2 :: step] = image.usable[:, step // 2 :: step]
    middle, lower_edge = 0.5, 1.0
    # a foot is the border between a thing's lowest pixel and the ground's highest
    pixels = [(thinned & shows(names), middle, float(step)) for names in SURFACES.values()]
    pixels += [
        (image.usable & feet(ground, shows(names)), lower_edge, 1.0) for names in FEET.values()
    ]
    points: list[tuple[np.ndarray, ...]] = []
    for channel, (shown, row_offset, weight) in enumerate(pixels):
        forward_m, right_m = on_ground(
            image.image, shown, image.mount, reach_m=VIEW_M, row_offset=row_offset
        )
        number = np.full(forward_m.size, channel, np.intp)
        place = forward_m + image.mount.forward_m, right_m + image.mount.right_m
        points.append((*place, number, np.full(forward_m.size, weight, np.float32)))
    return points


def _column_step(image: SegmentedImage) -> int:
    """Every how-manieth column is enough: at VIEW_M they are half a cell apart, or one of them."""
    camera, cols = image.image.camera, image.label.shape[1]
    at_px = camera.width_px / 2 + np.array([0.0, camera.width_px / cols])
    one, next_one = camera.rays(at_px, np.full(2, camera.height_px / 2))
    apart_m = VIEW_M * float(np.linalg.norm(one - next_one))
    return max(1, int(CELL_M / 2 / apart_m))


def _classes(legend: Legend) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return legend.areas, legend.ways, legend.points


def _label_of(name: str) -> int:
    """The kind of place of a class of a legend; UNKNOWN for classes that say nothing here."""
    for label, names in enumerate(PLACES.values()):
        if name in names:
            return label
    return UNKNOWN
