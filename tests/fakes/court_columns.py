"""The column matcher in the court: its map, exact tables, a view of a pose, and its scores.

Everything that takes time is made once for all test modules.
"""

import functools
from dataclasses import replace

import numpy as np

from crossview import column_evidence, columns, legends, raycast
from crossview.column_model import NUM_RANGES, Calibration, ColumnModel
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.rasters import MapRaster
from crossview.semantic import SemanticMatcher
from crossview.synthetic.palette import PaletteSegmenter
from fakes.court import COURT, HEIGHT_M, sphere_taken

FRAME = LocalFrame(50.0, 8.0)
SEGMENTER = PaletteSegmenter()
POSE = Pose(3.25, -4.25, 45.0)
SOFT = Calibration()
SHARP = Calibration(position_sigma_m=0.0, heading_sigma_deg=0.0, unexplained_share=0.0)
"""Without blur and floor: the score itself."""

BLURRED = replace(SHARP, position_sigma_m=0.6, heading_sigma_deg=5.0)

GRID = PoseGrid(MapGrid.around(FRAME, 5.0, -3.0, radius_m=5.0, cell_m=0.5), 64)
"""10 x 10 m around the pose, in four blocks of rays."""

PART = slice(9, 15), slice(5, 11)
"""Rows and columns of SMALL."""


@functools.cache
def court_map(grid: MapGrid) -> MapRaster:
    """The court as a map source, cell by cell."""
    x_m, y_m = grid.centers()
    height_m = np.zeros(grid.shape, np.float32)
    for house in COURT.buildings:
        west_m, south_m, east_m, north_m = house.footprint.bounds  # boxes, all of them
        rows, cols = (south_m < y_m) & (y_m < north_m), (west_m < x_m) & (x_m < east_m)
        height_m[np.ix_(rows, cols)] = house.height_m
    return raster_on(grid, height_m > 0, height_m)


def raster_on(grid, building, height_m=None, *, covered=None):
    """A map that knows buildings only, of 8 m where no heights are given."""
    _, class_id = legends.legend("crossview").find("building")
    classes = np.zeros((*grid.shape, 3), np.uint8)
    classes[..., 0][building] = class_id
    return MapRaster(
        grid,
        classes,
        "crossview",
        np.ones(grid.shape, bool) if covered is None else covered,
        frozenset({"building"}),
        np.where(building, 8.0, 0.0).astype(np.float32) if height_m is None else height_m,
    )


def empty_map(grid: MapGrid) -> MapRaster:
    return raster_on(grid, np.zeros(grid.shape, bool))


def without_heights(cells):
    """The court, as if nobody had measured it."""
    return court_map(cells).without_heights()


def doubled(cells):
    """The court, with buildings twice as high."""
    raster = court_map(cells)
    return replace(raster, building_height_m=raster.building_height_m * 2)


def counted(maps, scene, frame, poses):
    """Tables of exact panoramas of a few poses."""
    counts = sum(
        column_evidence.region_counts(
            columns.observed(sphere_taken(scene, pose), SEGMENTER),
            *raycast.look_around(maps, frame, pose, height_m=HEIGHT_M, reach_m=40.0),
        )
        for pose in poses
    )
    return ColumnModel(counts, np.full(NUM_RANGES, 1 / NUM_RANGES), 8.0, 2.5, SOFT)


@functools.cache
def court_matcher():
    """With 64 headings and small blocks, and the default calibration."""
    # not the pose that is looked for
    poses = [Pose(-5.0, 8.0, 10.0), Pose(8.0, 3.0, 260.0)]
    model = counted(court_map, COURT, FRAME, poses)
    return SemanticMatcher(SEGMENTER, model, num_headings=64, block_cells=32, sight_blocks=2)


def calibrated(matcher, calibration, **changes):
    return replace(matcher, model=matcher.model.calibrated(calibration), **changes)


@functools.cache
def court_view():
    """What an exact panorama at the pose shows."""
    return court_matcher().observe(sphere_taken(COURT, POSE))


@functools.cache
def court_scores(calibration):
    """Of that view on the grid."""
    scores = scores_on(calibrated(court_matcher(), calibration), court_view(), GRID)
    scores.flags.writeable = False
    return scores


def scores_on(matcher, query, grid, *, maps=court_map, more_m=0.0, headings=None):
    """What a matcher says, on as much map as it wants and perhaps more."""
    cells = grid.map.padded(matcher.reach_m + more_m).divided(matcher.map_parts)
    return matcher.log_likelihood(query, maps(cells), grid, headings=headings)


def window_of(grid, rows, cols):
    """The poses of some rows and columns of a grid."""
    cells = grid.map
    return PoseGrid(
        MapGrid(
            FRAME,
            cells.west_m + cols.start * 0.5,
            cells.north_m - rows.start * 0.5,
            0.5,
            rows.stop - rows.start,
            cols.stop - cols.start,
        ),
        grid.num_headings,
    )


SMALL = window_of(GRID, *PART)
"""3 x 3 m around the pose, in one block of rays with all that a blur brings."""
