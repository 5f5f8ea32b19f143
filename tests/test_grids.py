import math

import numpy as np
import pytest
import rasterio.transform
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview.errors import OutOfRegionError, VolumeTooLargeError
from crossview.frames import LocalFrame, Pose
from crossview.grids import Bounds, MapGrid, PoseGrid, place_of

FRAME = LocalFrame(-35.28, 149.13)

grids = st.builds(
    MapGrid,
    frame=st.just(FRAME),
    west_m=st.floats(-40_000, 40_000),
    north_m=st.floats(-40_000, 40_000),
    cell_m=st.floats(0.05, 50),
    height=st.integers(1, 400),
    width=st.integers(1, 400),
)


# ---------------------------------------------------------------- positions


def test_the_corner_of_the_grid_is_position_0_0_and_the_first_centre_half_a_cell_in(map_grid):
    assert map_grid.to_pixel(100, -40) == approx((0, 0))
    assert map_grid.to_xy(0.5, 0.5) == approx((101, -41))


def test_columns_grow_east_and_rows_grow_south(map_grid):
    assert map_grid.to_pixel(104, -40) == approx((2, 0))
    assert map_grid.to_pixel(100, -46) == approx((0, 3))


def test_bounds_are_the_outer_edges(map_grid):
    assert map_grid.bounds == Bounds(west_m=100, south_m=-52, east_m=116, north_m=-40)


@given(grids, st.floats(-40_000, 40_000), st.floats(-40_000, 40_000))
def test_to_xy_inverts_to_pixel(grid, x_m, y_m):
    assert grid.to_xy(*grid.to_pixel(x_m, y_m)) == approx((x_m, y_m), abs=1e-5)


@given(grids, st.floats(0, 1), st.floats(0, 1))
def test_to_pixel_inverts_to_xy(grid, across, along):
    col, row = across * grid.width, along * grid.height
    assert grid.to_pixel(*grid.to_xy(col, row)) == approx((col, row), abs=1e-5)


@given(grids, st.floats(0, 1), st.floats(0, 1))
def test_positions_agree_with_rasterio(grid, across, along):
    row = min(int(along * grid.height), grid.height - 1)
    col = min(int(across * grid.width), grid.width - 1)
    centre = rasterio.transform.xy(grid.transform, row, col, offset="center")
    corner = rasterio.transform.xy(grid.transform, row, col, offset="ul")
    assert grid.to_xy(col + 0.5, row + 0.5) == approx(centre, abs=1e-6)
    assert grid.to_xy(col, row) == approx(corner, abs=1e-6)
    assert grid.cell_of(*centre) == tuple(rasterio.transform.rowcol(grid.transform, *centre))
    assert grid.cell_of(*centre) == (row, col)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # in rasterio
@given(grids)
def test_bounds_and_transform_agree_with_rasterio(grid):
    bounds = grid.bounds
    expected = rasterio.transform.array_bounds(grid.height, grid.width, grid.transform)
    assert (bounds.west_m, bounds.south_m, bounds.east_m, bounds.north_m) == approx(expected)
    made = rasterio.transform.from_origin(grid.west_m, grid.north_m, grid.cell_m, grid.cell_m)
    assert tuple(grid.transform) == approx(tuple(made))


def test_centers_are_those_of_every_column_and_row(map_grid):
    x_m, y_m = map_grid.centers()
    assert x_m == approx([101, 103, 105, 107, 109, 111, 113, 115])
    assert y_m == approx([-41, -43, -45, -47, -49, -51])


def test_positions_are_vectorised(map_grid):
    col, row = map_grid.to_pixel(np.array([[100.0, 102.0]]), np.array([[-40.0], [-44.0]]))
    assert np.broadcast_shapes(col.shape, row.shape) == (2, 2)
    assert col.tolist() == [[0, 1]]
    assert row.tolist() == [[0], [2]]


def test_a_cell_holds_its_west_and_north_edge_and_not_the_others(map_grid):
    assert map_grid.cell_of(100, -40) == (0, 0)
    assert map_grid.cell_of(102, -42) == (1, 1)
    with pytest.raises(OutOfRegionError):
        map_grid.cell_of(116, -41)
    with pytest.raises(OutOfRegionError):
        map_grid.cell_of(101, -52)


@pytest.mark.parametrize("x_m, y_m", [(99.9, -41), (116.1, -41), (101, -39.9), (101, -52.1)])
def test_a_place_outside_of_the_grid_has_no_cell(map_grid, x_m, y_m):
    with pytest.raises(OutOfRegionError, match="outside of the grid"):
        map_grid.cell_of(x_m, y_m)


# ---------------------------------------------------------------- making grids


def test_a_grid_around_a_place_is_on_the_lattice_of_its_cell_size():
    grid = MapGrid.around(FRAME, 10.3, -4.9, radius_m=5, cell_m=2)
    # 5.3..15.3 and -9.9..0.1 on whole multiples of 2
    assert grid.bounds == Bounds(west_m=4, south_m=-10, east_m=16, north_m=2)
    assert grid.shape == (6, 6)


def test_a_grid_whose_square_is_on_the_lattice_has_no_spare_cell():
    grid = MapGrid.around(FRAME, 0.3, 0.1, radius_m=0.6, cell_m=0.1)
    assert grid.shape == (12, 12)
    assert grid.bounds == approx((-0.3, -0.5, 0.9, 0.7))


@given(
    st.floats(-40_000, 40_000),
    st.floats(-40_000, 40_000),
    st.floats(1, 100),
    st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0, 2.0, 7.0]),
)
def test_a_grid_around_a_place_holds_the_square_and_at_most_a_cell_more(x_m, y_m, radius_m, cell_m):
    bounds = MapGrid.around(FRAME, x_m, y_m, radius_m=radius_m, cell_m=cell_m).bounds
    spare = [
        x_m - radius_m - bounds.west_m,
        bounds.east_m - x_m - radius_m,
        y_m - radius_m - bounds.south_m,
        bounds.north_m - y_m - radius_m,
    ]
    assert min(spare) > -1e-5 * cell_m
    assert max(spare) < cell_m * (1 + 1e-5)
    for edge_m in bounds:
        assert edge_m / cell_m == approx(round(edge_m / cell_m), abs=1e-6)


def test_two_grids_of_one_cell_size_line_up():
    a = MapGrid.around(FRAME, 3.1, 4.1, radius_m=10, cell_m=0.5)
    b = MapGrid.around(FRAME, -7.77, 0.2, radius_m=3, cell_m=0.5)
    col, row = a.to_pixel(b.west_m, b.north_m)
    assert (col, row) == approx((round(float(col)), round(float(row))), abs=1e-9)


@given(grids, st.floats(0, 200))
def test_padding_adds_the_margin_in_whole_cells_on_every_side(grid, margin_m):
    padded = grid.padded(margin_m)
    cells = round((padded.width - grid.width) / 2)
    assert cells * grid.cell_m >= margin_m - 1e-5 * grid.cell_m
    assert (cells - 1) * grid.cell_m < margin_m
    assert padded.shape == (grid.height + 2 * cells, grid.width + 2 * cells)
    assert padded.to_pixel(grid.west_m, grid.north_m) == approx((cells, cells), abs=1e-6)
    assert (padded.cell_m, padded.frame) == (grid.cell_m, grid.frame)


def test_padding_by_a_whole_number_of_cells_adds_exactly_those():
    # in floats 0.3 / 0.1 is a little less than 3, and 3 * 0.1 / 0.1 a little more
    for margin_m in (0.3, 3 * 0.1):
        assert MapGrid(FRAME, 0, 0, 0.1, 4, 5).padded(margin_m).shape == (10, 11)


@given(grids, st.sampled_from([1, 2, 3, 4]))
def test_dividing_keeps_the_area_and_the_corner(grid, parts):
    fine = grid.divided(parts)
    assert fine.shape == (grid.height * parts, grid.width * parts)
    assert fine.cell_m == approx(grid.cell_m / parts)
    assert fine.bounds == approx(grid.bounds, rel=1e-12, abs=1e-6)
    assert fine.frame == grid.frame


def test_parts_of_a_cell_lie_inside_of_it(map_grid):
    fine = map_grid.divided(2)
    x_m, y_m = fine.centers()
    for row in range(fine.height):
        for col in range(fine.width):
            assert map_grid.cell_of(x_m[col], y_m[row]) == (row // 2, col // 2)


@pytest.mark.parametrize("parts", [0, -1, 1.5])
def test_a_cell_is_divided_into_whole_parts(map_grid, parts):
    with pytest.raises(ValueError, match=f"parts must be a whole number, at least 1, got {parts}"):
        map_grid.divided(parts)


def test_the_place_of_a_part_is_its_first_cell(map_grid):
    assert place_of(map_grid, map_grid) == (0, 0)
    assert place_of(map_grid.shifted(rows=3, cols=5), map_grid.padded(20.0)) == (13, 15)


@given(st.integers(0, 45), st.integers(0, 45), st.sampled_from([0.1, 0.25, 0.3, 1 / 3]))
def test_rounding_noise_does_not_move_a_part(row, col, cell_m):
    whole = MapGrid(FRAME, -2.0, 3.0, cell_m, 50, 50)
    part = MapGrid(FRAME, -2.0 + col * cell_m, 3.0 - row * cell_m, cell_m, 5, 5)
    assert place_of(part, whole) == (row, col)


def test_shifting_moves_the_grid_south_and_east(map_grid):
    shifted = map_grid.shifted(rows=2, cols=-1)
    assert (shifted.west_m, shifted.north_m) == (98, -44)
    assert shifted.shape == map_grid.shape


@pytest.mark.parametrize(
    "change",
    [
        {"cell_m": 0},
        {"cell_m": -1},
        {"cell_m": math.nan},
        {"cell_m": math.inf},
        {"height": 0},
        {"width": -3},
        {"width": 2.5},
        {"west_m": math.nan},
        {"north_m": math.inf},
    ],
    ids=str,
)
def test_a_senseless_grid_is_refused_with_what_came(change):
    fields = {"west_m": 0, "north_m": 0, "cell_m": 1, "height": 2, "width": 2} | change
    (name,) = change
    with pytest.raises(ValueError, match=rf"{name}|row"):
        MapGrid(FRAME, **fields)


@pytest.mark.parametrize(
    "name, value",
    [("cell_m", 0), ("cell_m", -1), ("radius_m", 0), ("radius_m", math.nan), ("x_m", math.nan)],
)
def test_a_senseless_grid_around_a_place_is_refused_with_what_came(name, value):
    arguments = {"x_m": 0, "y_m": 0, "radius_m": 5, "cell_m": 1} | {name: value}
    with pytest.raises(ValueError, match=rf"place.*{value}"):
        MapGrid.around(FRAME, **arguments)


def test_a_negative_margin_is_refused(map_grid):
    with pytest.raises(ValueError, match="margin_m"):
        map_grid.padded(-1)


# ---------------------------------------------------------------- poses


def test_a_pose_stands_at_the_centre_of_its_cell_and_bin(pose_grid):
    assert pose_grid.shape == (6, 8, 8)
    assert pose_grid.pose_at(0, 0, 0) == Pose(101, -41, 0)
    assert pose_grid.pose_at(5, 7, 2) == Pose(115, -51, 90)


@given(
    grids,
    st.sampled_from([1, 4, 8, 36, 64, 256]),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_index_of_inverts_pose_at(cells, num_headings, share):
    grid = PoseGrid(cells, num_headings)
    index = tuple(min(int(s * n), n - 1) for s, n in zip(share, grid.shape, strict=True))
    assert grid.index_of(grid.pose_at(*index)) == index


def test_a_pose_just_west_of_north_is_in_bin_0(pose_grid):
    assert pose_grid.index_of(Pose(101, -41, 338)) == (0, 0, 0)
    assert pose_grid.index_of(Pose(101, -41, 337)) == (0, 0, 7)


def test_without_headings_a_pose_has_none_and_any_heading_is_index_0(map_grid):
    grid = PoseGrid(map_grid, 1)
    assert grid.pose_at(2, 3, 0).heading_deg is None
    assert grid.index_of(Pose(101, -41, 123)) == (0, 0, 0)
    assert grid.index_of(Pose(101, -41)) == (0, 0, 0)


def test_a_pose_without_heading_has_no_index_in_a_grid_with_headings(pose_grid):
    with pytest.raises(ValueError, match="no heading"):
        pose_grid.index_of(Pose(101, -41))


@pytest.mark.parametrize("index", [(6, 0, 0), (0, 8, 0), (0, 0, 8), (-1, 0, 0), (0, 0, -1)])
def test_an_index_outside_of_the_volume_is_refused(pose_grid, index):
    with pytest.raises(OutOfRegionError, match="outside"):
        pose_grid.pose_at(*index)


@pytest.mark.parametrize("num_headings", [0, -4, 2, 3, 5, 6, 63])
def test_headings_come_in_multiples_of_four_or_as_one(map_grid, num_headings):
    with pytest.raises(ValueError, match="multiple of 4"):
        PoseGrid(map_grid, num_headings)


def test_a_volume_above_its_limit_is_refused_and_the_message_names_the_ways_out():
    grid = PoseGrid(MapGrid(FRAME, 0, 0, 0.5, 2000, 2000), 64)  # 1.024 GB of float32
    with pytest.raises(VolumeTooLargeError, match=r"1\.0 GB.*num_headings=1.*max_bytes"):
        grid.require_memory()
    grid.require_memory(1_100_000_000)
    PoseGrid(grid.map, 60).require_memory()
