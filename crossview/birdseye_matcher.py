"""Matching what the pixels are (ground, wall), drawn from above, against the map: a simple vote.

The column matcher (see semantic) is better on everything that was measured; this one needs no
tables, and is what it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage, special

from crossview import birdseye, voting
from crossview.birdseye import BirdsEye
from crossview.cameras import map_from_camera
from crossview.errors import GridMismatchError
from crossview.grids import MapGrid, PoseGrid, require_frame
from crossview.legends import BUILDING
from crossview.photos import Mount, Panorama, Photo, Rig
from crossview.rasters import MapRaster
from crossview.segmenters import Segmenter, upright_images, usable_pixels

GROUND_CLASSES = ("road", "sidewalk", "terrain")
WALL_CLASSES = ("building", "wall", "fence")

FREE, WALL_BASE, BEHIND = 0, 1, 2
"""Channels of the bird's-eye view: open ground, the foot of a wall, and what the wall hides."""

CHANNELS = ("open ground", "wall base", "behind a wall")
"""Their names."""

_SAMPLES_TO_BE_SURE = 3.0
"""Points in one cell that make its observation two thirds certain (1 - 1/e)."""

_SIGHT_STEP_M = 0.25
"""Distance between points along a line of sight."""

_WALL_MARGIN_M = 0.5
"""A line of sight is clear up to this before a wall base, and hidden from this behind it."""

_BEHIND_M = 2.5
"""How deep a building is at least."""


_WALL_SIGHT_M = 3.0
"""Farther walls than this make no difference to a cell's vote, so a map's crop makes none."""


@dataclass(frozen=True, eq=False)
class GroundPoints:
    """Places on the ground plane in the query's own frame, and what was observed there.

    Args:
        forward_m: Ahead of the query's reference, (points,).
        right_m: To its right, (points,).
        channel: FREE, WALL_BASE or BEHIND, (points,).
    """

    forward_m: np.ndarray
    right_m: np.ndarray
    channel: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[GroundPoints]) -> GroundPoints:
        """All points of several observations."""
        return cls(
            np.concatenate([part.forward_m for part in parts]),
            np.concatenate([part.right_m for part in parts]),
            np.concatenate([part.channel for part in parts]),
        )


def ground_points(
    query: Photo | Panorama,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    reach_m: float,
    mount: Mount,
) -> GroundPoints:
    """What one image shows of the ground plane: open ground, wall bases, lines of sight.

    A wall base is the lowest pixel of a column that shows a wall right above one that shows the
    ground: there the wall stands, nothing stands before it, and what is behind it is hidden.

    Args:
        query: An upright image with its camera, height, pitch and roll; the ground is a plane.
        probabilities: (rows, cols, classes) of that image, any resolution.
        classes: Names of the channels.
        reach_m: Points farther than this from the camera are left out.
        mount: Where the image's camera sits on a rig.
    """
    rows, cols, _ = probabilities.shape
    label = probabilities.argmax(axis=-1)
    is_ground = np.isin(classes, GROUND_CLASSES)[label]
    is_base = feet(is_ground, np.isin(classes, WALL_CLASSES)[label])
    usable = usable_pixels(query, rows, cols)
    middle, lower_edge = 0.5, 1.0
    ground = on_ground(query, usable & is_ground, mount, reach_m=reach_m, row_offset=middle)
    # a wall's foot is the border between its lowest pixel and the ground's highest
    wall_feet = on_ground(query, usable & is_base, mount, reach_m=reach_m, row_offset=lower_edge)
    points = GroundPoints.joined([_points(*ground, FREE), *_lines_of_sight(*wall_feet)])
    return GroundPoints(
        points.forward_m + mount.forward_m, points.right_m + mount.right_m, points.channel
    )


def observed(
    query: Photo | Panorama | Rig,
    segmenter: Segmenter,
    *,
    cell_m: float,
    reach_m: float,
    vehicle_radius_m: float = 1.5,
) -> BirdsEye:
    """Open ground, wall bases and what they hide around a camera, from above, (rows, cols, 3).

    Args:
        query: A photo, a levelled panorama or a rig; forward is the query's heading.
        segmenter: What each pixel shows.
        cell_m: Side of a cell.
        reach_m: How far from the camera pixels are trusted to lie on the ground plane.
        vehicle_radius_m: Where the camera stands there is no building: this disc is open ground.

    Returns:
        How sure each of FREE, WALL_BASE and BEHIND is in every cell, 0..1.
    """
    from tqdm import tqdm

    points = [
        ground_points(
            image, segmenter(image.image), segmenter.classes, reach_m=reach_m, mount=mount
        )
        for image, mount in tqdm(
            upright_images(query), unit="photo", delay=2, disable=None, leave=False
        )
    ]
    around = _disc_points(vehicle_radius_m, cell_m)
    return gathered(GroundPoints.joined([*points, around]), cell_m=cell_m, reach_m=reach_m)


def gathered(points: GroundPoints, *, cell_m: float, reach_m: float) -> BirdsEye:
    """Points per cell, as how sure they make it; what is open is not hidden."""
    # a rig's cameras reach farther than its reference, and the map is cut around that
    near = np.hypot(points.forward_m, points.right_m) <= reach_m + _WALL_MARGIN_M + _BEHIND_M
    counts = birdseye.from_points(
        points.forward_m[near],
        points.right_m[near],
        np.eye(3, dtype=np.float32)[points.channel[near]],
        cell_m=cell_m,
        reach_m=reach_m + _WALL_MARGIN_M + _BEHIND_M,
        reduce="sum",
    )
    sure = -np.expm1(-counts.values / _SAMPLES_TO_BE_SURE)
    sure[..., BEHIND] *= 1.0 - sure[..., FREE]
    return BirdsEye(sure, counts.seen, cell_m, counts.camera_row, counts.camera_col)


@dataclass(frozen=True)
class BuildingVotes:
    """What an observed cell says about the map cell under it, from the distance to its wall.

    Each vote is the log of a ratio: how much more probable the observation is there than
    anywhere, so that a place the map knows nothing about votes 0. They are mixtures, because
    labels and maps err. Set by hand; fitted tables are for a later step.

    Args:
        free_outside: Ratio for open ground well outside of every building.
        free_inside: Ratio for open ground well inside a building.
        behind_inside: Ratio for a hidden place well inside a building.
        behind_outside: Ratio for a hidden place outside: yards and gaps are hidden too.
        sigma_m: Over which distance from a wall inside becomes outside.
        wall_share: Share of wall bases that stand on a mapped wall; the others are anywhere.
        wall_sigma_m: Standard deviation of those from their wall.
        wall_density: Mean over a town of exp(-distance^2 / (2 wall_sigma_m^2)).
    """

    free_outside: float = 1.7
    free_inside: float = 0.1
    behind_inside: float = 1.7
    behind_outside: float = 0.6
    sigma_m: float = 0.5
    wall_share: float = 0.7
    wall_sigma_m: float = 0.7
    wall_density: float = 0.15

    def log_ratios(self, map_raster: MapRaster) -> np.ndarray:
        """Votes of the map's cells for FREE, WALL_BASE and BEHIND, (rows, cols, 3)."""
        building = map_raster.class_mask(BUILDING)
        depth_m = _depth_inside(building, map_raster.grid.cell_m)
        inside_m = np.clip(depth_m, -_WALL_SIGHT_M, _WALL_SIGHT_M)
        inside = special.expit(inside_m / self.sigma_m)
        near_wall = np.exp(-0.5 * (inside_m / self.wall_sigma_m) ** 2)
        ratios = np.stack(
            [
                self.free_outside + (self.free_inside - self.free_outside) * inside,
                1 - self.wall_share + self.wall_share * near_wall / self.wall_density,
                self.behind_outside + (self.behind_inside - self.behind_outside) * inside,
            ],
            axis=2,
        )
        known = map_raster.knows(BUILDING)
        return np.where(known[..., None], np.log(ratios), 0.0).astype(np.float32)


@dataclass(frozen=True)
class BirdsEyeMatcher:
    """Open ground lies outside of buildings, wall bases stand on walls: every pose is tried.

    Args:
        segmenter: What each pixel shows.
        cell_m: Cells of the vote.
        num_headings: Heading bins, a multiple of 4.
        view_m: How far from the camera pixels are trusted to lie on the ground plane.
        scale: Turns the summed votes into a log-likelihood: neighbouring pixels see the same
            thing, and are worth a fraction of independent ones.
        votes: What an observation says about a map cell.
    """

    segmenter: Segmenter
    cell_m: float = 0.5
    num_headings: int = 128
    view_m: float = 22.0
    scale: float = 0.05
    votes: BuildingVotes = field(default_factory=BuildingVotes)

    @property
    def map_parts(self) -> int:
        """Map cells along the side of a pose cell: it votes on the poses' own."""
        return 1

    @property
    def reach_m(self) -> float:
        """How much map around a pose takes part in its score."""
        seen_m = self.view_m + _WALL_MARGIN_M + _BEHIND_M
        return seen_m + _WALL_SIGHT_M + 3 * self.cell_m

    def observe(self, query: Photo | Panorama | Rig) -> BirdsEye:
        """The query from above; the slow part, worth keeping when a query is asked about twice."""
        return observed(query, self.segmenter, cell_m=self.cell_m, reach_m=self.view_m)

    def log_likelihood(
        self,
        query: Photo | Panorama | Rig | BirdsEye,
        map_raster: MapRaster,
        grid: PoseGrid,
        *,
        headings: np.ndarray | None = None,
    ) -> np.ndarray:
        """How well the query fits the map at every pose, (rows, cols, headings).

        Args:
            query: Images, or what observe made of them.
            map_raster: The map on the grid's cells and at least reach_m around them.
            grid: The poses; cells of this matcher, and its number of headings or 1.
            headings: Indices of the bins to try; the others are -inf.

        Returns:
            Log-likelihood ratios to a place unknown; with one bin, the log of their mean over
            headings.
        """
        view = query if isinstance(query, BirdsEye) else self.observe(query)
        window = self._window(map_raster, grid)
        _require_margin(window, map_raster.grid, view)
        votes = voting.VotingMap(self.votes.log_ratios(map_raster), map_raster.grid.cell_m)
        if grid.num_headings == 1:
            summary = voting.vote_streaming(
                view,
                votes,
                num_headings=self.num_headings,
                window=window,
                headings=headings,
                scale=self.scale,
            )
            return (summary.log_sum - np.log(self.num_headings))[:, :, None]
        scores = voting.vote(
            view, votes, num_headings=self.num_headings, window=window, headings=headings
        ).scores
        return self.scale * scores

    def _window(self, map_raster: MapRaster, grid: PoseGrid) -> voting.Window:
        cells, poses = map_raster.grid, grid.map
        require_frame(cells, poses)
        col, row = cells.to_pixel(poses.west_m, poses.north_m)
        fits = (
            np.isclose(poses.cell_m, self.cell_m)
            and np.isclose(cells.cell_m, self.cell_m)
            and abs(col - round(float(col))) < 1e-6
            and abs(row - round(float(row))) < 1e-6
            and grid.num_headings in (1, self.num_headings)
        )
        if not fits:
            raise GridMismatchError(
                f"This matcher votes in cells of {self.cell_m} m and {self.num_headings} headings; "
                f"the poses are on {grid} and the map on {cells}. Cut the map with "
                "maps(grid.map.padded(matcher.reach_m)) and make the grid with "
                "posterior.windows(..., like=matcher)."
            )
        row, col = round(float(row)), round(float(col))
        return row, row + poses.height, col, col + poses.width


def _require_margin(window: voting.Window, cells: MapGrid, view: BirdsEye) -> None:
    """Refuse a map that ends before the view does: what is cut off would vote 0."""
    row_start, row_stop, col_start, col_stop = window
    margin = min(row_start, col_start, cells.height - row_stop, cells.width - col_stop)
    # a cell's vote looks for walls around it
    needed = view.reach_cells + math.ceil(_WALL_SIGHT_M / cells.cell_m + 0.5)
    if margin < needed:
        raise GridMismatchError(
            f"The map goes {margin * cells.cell_m:g} m beyond the poses and the view asks for "
            f"{needed * cells.cell_m:g} m. Cut the map with "
            "maps(grid.map.padded(matcher.reach_m))."
        )


def feet(is_ground: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """The lowest pixel of each column that shows a thing right above the ground, (rows, cols)."""
    base = np.zeros_like(is_thing)
    base[:-1] = is_thing[:-1] & is_ground[1:]
    below = np.cumsum(base[::-1], axis=0)[::-1]
    return base & (below == 1)


def _points(forward_m: np.ndarray, right_m: np.ndarray, channel: int) -> GroundPoints:
    return GroundPoints(
        forward_m.ravel(), right_m.ravel(), np.full(forward_m.size, channel, np.int8)
    )


def _lines_of_sight(forward_m: np.ndarray, right_m: np.ndarray) -> list[GroundPoints]:
    """Wall bases, the clear ground before them and the hidden ground behind them."""
    range_m = np.hypot(forward_m, right_m)
    ahead, aside = forward_m / range_m, right_m / range_m
    longest_m = float(range_m.max(initial=0.0))
    before_m = np.arange(_SIGHT_STEP_M, longest_m, _SIGHT_STEP_M)
    clear = before_m[None, :] < range_m[:, None] - _WALL_MARGIN_M
    behind_m = range_m[:, None] + np.arange(
        _WALL_MARGIN_M, _WALL_MARGIN_M + _BEHIND_M, _SIGHT_STEP_M
    )
    return [
        _points(forward_m, right_m, WALL_BASE),
        _points((ahead[:, None] * before_m)[clear], (aside[:, None] * before_m)[clear], FREE),
        _points(ahead[:, None] * behind_m, aside[:, None] * behind_m, BEHIND),
    ]


def _disc_points(radius_m: float, cell_m: float) -> GroundPoints:
    """Open ground around the camera, dense enough to be sure of it."""
    step_m = cell_m / 4
    axis = np.arange(-radius_m, radius_m + step_m / 2, step_m)
    forward_m, right_m = np.meshgrid(axis, axis)
    inside = np.hypot(forward_m, right_m) <= radius_m
    return _points(forward_m[inside], right_m[inside], FREE)


def on_ground(
    query: Photo | Panorama,
    pixels: np.ndarray,
    mount: Mount,
    *,
    reach_m: float,
    row_offset: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels meet the ground, (forward_m, right_m) from the camera's foot, (points,) each.

    Args:
        query: The image.
        pixels: Which ones, (rows, cols) bool, any resolution.
        mount: Whose heading turns the camera on its rig.
        reach_m: Points farther than this are left out.
        row_offset: Which height of a pixel is meant: 0 its upper edge, 1 its lower one.
    """
    camera = query.camera
    row, col = np.nonzero(pixels)
    rays = camera.rays(
        (col + 0.5) * (camera.width_px / pixels.shape[1]),
        (row + row_offset) * (camera.height_px / pixels.shape[0]),
    )
    pitch_deg, roll_deg = (
        (query.pitch_deg, query.roll_deg) if isinstance(query, Photo) else (0.0, 0.0)
    )
    # with the mount's heading for the camera's, north is ahead of the query and east to its right
    right, ahead, up = (rays @ map_from_camera(mount.heading_deg, pitch_deg, roll_deg).T).T
    hits = up < -query.height_m / reach_m * np.hypot(ahead, right)
    range_m = query.height_m / -up[hits]
    return range_m * ahead[hits], range_m * right[hits]


def _depth_inside(building: np.ndarray, cell_m: float) -> np.ndarray:
    """Distance to the nearest wall, positive inside of buildings, metres."""
    if not building.any() or building.all():
        return np.full(building.shape, np.inf if building.any() else -np.inf)
    inside = ndimage.distance_transform_edt(building)
    outside = ndimage.distance_transform_edt(~building)
    # the wall runs between two cells' centres, half a cell from each
    return cell_m * np.where(building, inside - 0.5, 0.5 - outside)
