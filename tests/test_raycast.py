"""Rays through a made-up map, against exact intersections of lines and polygons."""

import dataclasses
import math

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import Polygon, box

from crossview import angles, legends, ray_kernels, raycast
from crossview.errors import FrameMismatchError, GridMismatchError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.rasters import MapRaster

FRAME = LocalFrame(50.0, 8.0)
EYE_M = 2.0
REACH_M = 40.0
NUM_AZIMUTHS = 40
GRID = MapGrid(FRAME, west_m=101.0, north_m=-197.0, cell_m=1.0, height=5, width=7)
NORTH, EAST, SOUTH, WEST = (NUM_AZIMUTHS * k // 4 for k in range(4))


def place(*corners_m):
    """A polygon given from the grid's north-western corner, x east and y north."""
    return Polygon([(101.0 + x, -197.0 + y) for x, y in corners_m])


def block(west_m, south_m, east_m, north_m):
    return box(101.0 + west_m, -197.0 + south_m, 101.0 + east_m, -197.0 + north_m)


# corners on whole metres, so that cells of a metre and its parts draw them exactly
HOUSES = (
    (block(-6, 9, 12, 14), 8.0),
    (block(2, 15, 9, 20), 30.0),  # behind, and higher
    (place((13, -9), (20, -9), (20, -3), (16, -3), (16, 2), (13, 2)), 5.0),
    (block(-4, -24, 3, -20), 12.0),
    (block(-20, -7, -15, 4), 1.0),  # lower than the camera
    (block(-30, -6, -24, 3), 4.0),
    (block(4, -2, 5, -1), 3.0),  # a cell of the grid itself
)


def raster_of(houses, grid, *, covered=None):
    """A map of buildings, cell by cell."""
    x_m, y_m = np.meshgrid(*grid.centers())
    classes = np.zeros((*grid.shape, 3), np.uint8)
    height_m = np.zeros(grid.shape, np.float32)
    _, class_id = legends.legend("crossview").find("building")
    for footprint, house_m in houses:
        inside = shapely.contains_xy(footprint, x_m, y_m)
        classes[..., 0][inside] = class_id
        height_m[inside] = house_m
    return MapRaster(
        grid,
        classes,
        "crossview",
        np.ones(grid.shape, bool) if covered is None else covered(x_m, y_m),
        frozenset({"building"}),
        height_m,
    )


def cast(houses=HOUSES, *, parts=2, grid=GRID, covered=None, reach_m=REACH_M, height_m=EYE_M):
    cells = grid.padded(reach_m).divided(parts)
    return raycast.cast(
        raster_of(houses, cells, covered=covered),
        grid,
        height_m=height_m,
        num_azimuths=NUM_AZIMUTHS,
        reach_m=reach_m,
    )


def chords_m(footprint, x_m, y_m, azimuth_deg):
    """Where a ray enters and leaves a footprint: distances, one pair for each crossing."""
    east, north = angles.forward(azimuth_deg)
    ray = shapely.LineString(
        [(x_m, y_m), (x_m + REACH_M * float(east), y_m + REACH_M * float(north))]
    )
    pieces = shapely.get_parts(shapely.intersection(ray, footprint))
    from_m = [np.hypot(*(shapely.get_coordinates(p) - (x_m, y_m)).T) for p in pieces]
    return [(float(d.min()), float(d.max())) for d in from_m if d.size]


def step_at(distance_m, parts):
    """Two looks at a map may be as far apart, and a map's cell is crossed cornerwise at most."""
    cell_m = GRID.cell_m / parts
    return max(math.sqrt(2) * cell_m, 0.02 * distance_m) + 1e-3 * distance_m


def bracket(x_m, y_m, azimuth_deg, parts):
    """Least and largest range and skyline that a walk in steps may find on an exact map."""
    nearest = farthest = math.inf
    lowest = highest = -math.inf
    for footprint, house_m in HOUSES:
        for enter_m, leave_m in chords_m(footprint, x_m, y_m, azimuth_deg):
            step_m = step_at(leave_m, parts)
            above_m = house_m - EYE_M
            # a wall may be said to stand in the middle of the step that finds it
            first_m, last_m = max(enter_m - step_m / 2, 0.1), leave_m + step_m / 2
            ends_deg = [math.degrees(math.atan2(above_m, d)) for d in (first_m, last_m)]
            nearest = min(nearest, first_m)
            highest = max(highest, *ends_deg)
            if leave_m - enter_m < 2 * step_m:
                continue  # a corner, that a step may pass
            farthest = min(farthest, enter_m + step_m)
            seen_m = enter_m + step_m if above_m > 0 else leave_m - step_m
            lowest = max(lowest, math.degrees(math.atan2(above_m, seen_m)))
    highest = 0.0 if highest == -math.inf else highest
    if farthest == math.inf:  # nothing, or corners only, which may be missed
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    return nearest, farthest, lowest, highest


# -------------------------------------------------------------------- exactness


def test_the_compiled_walk_is_that_of_numpy_to_the_bit(monkeypatch):
    """With buildings of unknown height, and a map that ends."""
    pytest.importorskip("numba")
    cells = GRID.padded(REACH_M).divided(2)
    houses = raster_of(HOUSES, cells, covered=lambda x_m, _: x_m < np.quantile(x_m, 0.8))
    height_m = houses.building_height_m.copy()
    height_m[np.random.default_rng(0).random(height_m.shape) < 0.3] = np.nan
    houses = dataclasses.replace(houses, building_height_m=height_m)
    options = {"height_m": EYE_M, "num_azimuths": 64, "reach_m": REACH_M}
    compiled = raycast.cast(houses, GRID, **options)
    monkeypatch.setattr(ray_kernels, "compiled", lambda: None)
    walked = raycast.cast(houses, GRID, **options)
    assert np.isnan(compiled.range_m).any() and np.isfinite(compiled.range_m).any()
    assert np.isnan(compiled.skyline_deg).sum() > np.isnan(compiled.range_m).sum()
    for name in ("range_m", "skyline_deg", "free"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(walked, name))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_ranges_and_skylines_are_those_of_lines_and_polygons_to_a_step(parts):
    rays = cast(parts=parts)
    x_m, y_m = GRID.centers()
    compared = 0
    for row, col in np.argwhere(rays.free):
        for k in range(NUM_AZIMUTHS):
            azimuth_deg = k * 360 / NUM_AZIMUTHS
            nearest, farthest, lowest, highest = bracket(x_m[col], y_m[row], azimuth_deg, parts)
            at = f"cell {row, col}, azimuth {azimuth_deg}"
            range_m, skyline_deg = rays.range_m[row, col, k], rays.skyline_deg[row, col, k]
            assert nearest * (1 - 1e-3) - 1e-3 <= range_m <= farthest, at
            assert lowest - 0.05 <= skyline_deg <= highest + 0.05, at
            compared += farthest < math.inf
    assert compared > 500


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_ranges_and_skylines_are_not_biased(parts):
    rays = cast(parts=parts)
    x_m, y_m = GRID.centers()
    too_far_m, too_high_deg = [], []
    for row, col in np.argwhere(rays.free):
        for k in range(NUM_AZIMUTHS):
            chords = [
                (enter_m, leave_m, house_m)
                for footprint, house_m in HOUSES
                for enter_m, leave_m in chords_m(
                    footprint, x_m[col], y_m[row], k * 360 / NUM_AZIMUTHS
                )
            ]
            # walls met squarely, at a distance where steps are those of cells
            if chords and min(b - a for a, b, _ in chords) > 3 and min(chords)[0] < 20:
                skyline = max((h - EYE_M) / (a if h > EYE_M else b) for a, b, h in chords)
                too_far_m.append(rays.range_m[row, col, k] - min(chords)[0])
                too_high_deg.append(
                    rays.skyline_deg[row, col, k] - math.degrees(math.atan(skyline))
                )
    assert len(too_far_m) > 300
    assert np.mean(too_far_m) == approx(0.0, abs=0.1 / parts)
    assert np.mean(too_high_deg) == approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("azimuth", "house"),
    [
        (NORTH, block(1, 10, 6, 14)),
        (EAST, block(16, -5, 20, 0)),
        (SOUTH, block(1, -20, 6, -15)),
        (WEST, block(-14, -5, -9, 0)),
    ],
    ids=["north", "east", "south", "west"],
)
def test_azimuth_0_is_north_and_azimuths_grow_clockwise(azimuth, house):
    rays = cast([(house, 8.0)])
    # 5 m wide and 12.5 m away: 11 degrees to both sides, and azimuths are 9 degrees apart
    seen = {(azimuth + k) % NUM_AZIMUTHS for k in (-1, 0, 1)}
    assert set(np.flatnonzero(np.isfinite(rays.range_m[2, 3]))) == seen


def test_the_skyline_is_the_highest_edge_and_not_that_of_the_nearest_wall():
    near, far = block(-6, 9, 12, 14), block(-6, 15, 12, 20)
    # from the middle of cell (0, 3), half a metre below the corner: walls 9.5 and 15.5 m away
    low_first = cast([(near, 4.0), (far, 30.0)], parts=4)
    assert low_first.range_m[0, 3, NORTH] == approx(9.5, abs=0.25)
    assert low_first.skyline_deg[0, 3, NORTH] == approx(math.degrees(math.atan(28 / 15.5)), abs=0.7)
    high_first = cast([(near, 30.0), (far, 4.0)], parts=4)
    assert high_first.skyline_deg[0, 3, NORTH] == approx(math.degrees(math.atan(28 / 9.5)), abs=0.7)


def test_from_above_the_skyline_is_the_far_edge_of_a_roof():
    rays = cast([(block(-6, 5, 12, 14), 3.0)], parts=4, height_m=9.0)
    assert rays.range_m[0, 3, NORTH] == approx(5.5, abs=0.25)
    assert rays.skyline_deg[0, 3, NORTH] == approx(math.degrees(math.atan(-6 / 14.5)), abs=0.6)


# ------------------------------------------------------------- nothing and unknown


def test_without_buildings_the_range_is_infinite_and_the_skyline_level():
    rays = cast([])
    assert np.all(np.isposinf(rays.range_m))
    assert np.all(rays.skyline_deg == 0.0)
    assert rays.free.all()


def test_a_wall_beyond_the_reach_is_not_seen():
    house = block(-6, 9, 12, 14)
    assert np.isinf(cast([(house, 8.0)], reach_m=9.0).range_m[0, 3, NORTH])
    assert np.isfinite(cast([(house, 8.0)], reach_m=10.0).range_m[0, 3, NORTH])


def test_the_range_is_not_known_where_the_map_ends_before_a_wall():
    walls = [(block(-6, 9, 12, 14), 8.0), (block(-6, -20, 12, -15), 8.0)]
    rays = cast(walls, covered=lambda x_m, y_m: y_m < -197.0 + 5)
    assert np.isnan(rays.range_m[:, 3, NORTH]).all()
    assert np.isnan(rays.skyline_deg[:, 3, NORTH]).all()
    assert np.isfinite(rays.range_m[:, 3, SOUTH]).all()
    assert np.isfinite(rays.skyline_deg[:, 3, SOUTH]).all()


def test_the_map_may_end_behind_the_first_wall():
    house = block(-6, 9, 12, 14)
    rays = cast([(house, 8.0)], covered=lambda x_m, y_m: y_m < -197.0 + 12)
    complete = cast([(house, 8.0)])
    assert rays.range_m[0, 3, NORTH] == complete.range_m[0, 3, NORTH]
    assert rays.skyline_deg[0, 3, NORTH] == complete.skyline_deg[0, 3, NORTH]


def test_buildings_where_nothing_is_covered_are_no_walls():
    rays = cast(covered=lambda x_m, y_m: np.zeros(x_m.shape, bool))
    assert np.isnan(rays.range_m).all()
    assert rays.free.all()


def test_the_skyline_is_not_known_where_the_first_wall_has_no_height():
    rays = cast([(block(-6, 9, 12, 14), np.nan), (block(-6, 15, 12, 20), 30.0)])
    assert np.isfinite(rays.range_m[:, 3, NORTH]).all()
    assert np.isnan(rays.skyline_deg[:, 3, NORTH]).all()
    assert np.all(rays.skyline_deg[:, 3, SOUTH] == 0.0)


def test_a_building_without_height_behind_a_known_one_changes_nothing():
    known = (block(-6, 9, 12, 14), 8.0)
    # from no cell of the grid it is seen past the one before
    behind = cast([known, (block(2, 15, 9, 20), np.nan)])
    assert np.array_equal(behind.skyline_deg, cast([known]).skyline_deg)


def test_a_building_of_height_0_has_no_known_height():
    rays = cast([(block(-6, 9, 12, 14), 0.0)])
    assert np.isfinite(rays.range_m[0, 3, NORTH])
    assert np.isnan(rays.skyline_deg[0, 3, NORTH])


def test_a_cell_is_free_unless_its_centre_is_in_a_building():
    free = cast().free
    assert np.argwhere(~free).tolist() == [[1, 4]]


# ------------------------------------------------------------------- one pose


def test_looking_around_from_a_cell_is_casting_from_it():
    cells = raycast.cell_around(FRAME, Pose(104.5, -199.5, 0.0), cell_m=0.5)
    rays = raycast.cast(
        raster_of(HOUSES, cells.padded(REACH_M).divided(4)),
        cells,
        height_m=EYE_M,
        num_azimuths=NUM_AZIMUTHS,
        reach_m=REACH_M,
    )
    range_m, skyline_deg = looked(0.0)
    assert range_m == approx(rays.range_m[0, 0].astype(float), rel=1e-3)
    assert skyline_deg == approx(rays.skyline_deg[0, 0].astype(float), rel=1e-3, abs=1e-3)


def looked(heading_deg):
    return raycast.look_around(
        lambda grid: raster_of(HOUSES, grid),
        FRAME,
        Pose(104.5, -199.5, heading_deg),
        height_m=EYE_M,
        num_azimuths=NUM_AZIMUTHS,
        reach_m=REACH_M,
    )


def test_the_first_direction_is_the_heading():
    north, turned = looked(0.0), looked(63.0)
    # 7 bins of 9 degrees
    for ahead, there in zip(turned, north, strict=True):
        assert ahead == approx(np.roll(there, -7))


def test_the_cell_around_a_pose_has_it_in_its_middle():
    cell = raycast.cell_around(FRAME, Pose(3.2, -4.1, 10.0), cell_m=0.5)
    assert (cell.shape, cell.cell_m) == ((1, 1), 0.5)
    assert cell.to_xy(0.5, 0.5) == approx((3.2, -4.1))


def test_a_pose_without_heading_cannot_look_around():
    with pytest.raises(ValueError, match="no heading"):
        looked(None)


# ---------------------------------------------------------------------- steps


@pytest.mark.parametrize("cell_m", [0.1, 0.25, 1.0])
def test_steps_grow_from_the_first_to_the_reach_and_skip_no_cell_nearby(cell_m):
    steps_m = raycast.steps_m(50.0, cell_m)
    assert (steps_m[0], steps_m[-1]) == (raycast.FIRST_STEP_M, 50.0)
    lengths_m = np.diff(steps_m)
    assert np.all(lengths_m > 0)
    assert np.all(lengths_m <= np.maximum(cell_m, 0.02 * steps_m[:-1]) + 1e-9)


# -------------------------------------------------------------------- refusals


def test_a_map_of_another_frame_is_refused():
    cells = raster_of([], GRID.padded(REACH_M).divided(2))
    grid = MapGrid(LocalFrame(50.0, 8.001), GRID.west_m, GRID.north_m, 1.0, 5, 7)
    with pytest.raises(FrameMismatchError, match="one LocalFrame"):
        raycast.cast(cells, grid, height_m=EYE_M, reach_m=REACH_M)


@pytest.mark.parametrize(
    "cells",
    [
        MapGrid(FRAME, 51.0, -147.0, 0.4, 300, 300),
        MapGrid(FRAME, 51.0, -147.0, 2.0, 60, 60),
        MapGrid(FRAME, 51.1, -147.0, 0.5, 240, 240),
        MapGrid(FRAME, 51.0, -147.1, 0.5, 240, 240),
    ],
    ids=["2.5 cells", "half a cell", "shifted east", "shifted south"],
)
def test_map_cells_that_do_not_divide_the_grids_are_refused(cells):
    with pytest.raises(GridMismatchError, match=r"do not divide.*divided\(2\)"):
        raycast.cast(raster_of([], cells), GRID, height_m=EYE_M, reach_m=REACH_M)


@pytest.mark.parametrize("rows, cols", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_a_map_that_ends_within_the_reach_on_any_side_is_refused(rows, cols):
    cells = raster_of([], GRID.padded(REACH_M).divided(2).shifted(rows=rows, cols=cols))
    with pytest.raises(GridMismatchError, match=r"39\.5 m beyond the grid and rays walk 40 m"):
        raycast.cast(cells, GRID, height_m=EYE_M, reach_m=REACH_M)


@pytest.mark.parametrize("wrong", [{"height_m": 0.0}, {"reach_m": 0.2}, {"height_m": math.nan}])
def test_a_senseless_height_or_reach_is_refused(wrong):
    options = {"height_m": EYE_M, "reach_m": REACH_M} | wrong
    with pytest.raises(ValueError, match="height_m must be positive"):
        raycast.cast(raster_of([], GRID.padded(REACH_M)), GRID, **options)


def test_the_arrays_of_a_ray_map_fit_its_grid_and_are_read_only():
    rays = cast([])
    assert rays.num_azimuths == NUM_AZIMUTHS
    with pytest.raises(ValueError, match="read-only"):
        rays.range_m[0] = 0
    with pytest.raises(GridMismatchError, match="free is"):
        raycast.RayMap(GRID, EYE_M, rays.range_m, rays.skyline_deg, np.ones((2, 2), bool))
