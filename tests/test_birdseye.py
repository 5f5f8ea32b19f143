"""Bird's-eye views: where the camera stands, what turning means, points into cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview.birdseye import BirdsEye, Turntable, from_points, template
from crossview.errors import GridMismatchError


def one_cell(row, col, *, shape=(5, 5), camera_row=4, camera_col=2):
    """A view of one seen cell of value 1."""
    values = np.zeros((*shape, 1))
    values[row, col] = 1
    return BirdsEye(values, values[..., 0] > 0, 0.5, camera_row, camera_col)


def cells(turned):
    """Offsets (south, east) from the camera and values of a template's cells with weight."""
    rows, cols = np.nonzero(turned.values[..., 0])
    return {
        (int(row + turned.first_row), int(col + turned.first_col)): float(
            turned.values[row, col, 0]
        )
        for row, col in zip(rows, cols, strict=True)
    }


@pytest.mark.parametrize(
    ("heading_deg", "offset"), [(0, (-3, 1)), (90, (1, 3)), (180, (3, -1)), (270, (-1, -3))]
)
def test_three_ahead_and_one_right_turns_clockwise_with_the_heading(heading_deg, offset):
    view = one_cell(1, 3)  # camera at row 4, column 2
    assert cells(template(view, heading_deg)) == {offset: 1.0}


def test_a_view_turned_by_45_degrees_is_mixed_bilinearly():
    # the cell 1 ahead lies at (-sqrt(1/2), sqrt(1/2)) cells south and east of the camera
    view = one_cell(3, 2)
    near = np.sqrt(0.5)
    # sampling is at map cells: (-1, 1) lies sqrt(2) ahead and 0 aside, (-1, 0) and (0, 1) lie
    # sqrt(1/2) ahead and sqrt(1/2) aside
    expected = {
        (-1, 1): 2 - np.sqrt(2),
        (-1, 0): near * (1 - near),
        (0, 1): near * (1 - near),
    }
    assert cells(template(view, 45)) == pytest.approx(expected, abs=1e-6)


def test_a_turned_mask_is_whole_only_where_all_four_cells_were_seen():
    view = BirdsEye(np.ones((3, 3, 1)), np.ones((3, 3), bool), 1.0, 1, 1)
    turned = template(view, 45)
    whole = turned.seen_share > 1 - 1e-4
    rows, cols = np.nonzero(whole)
    offsets = {
        (r + turned.first_row, c + turned.first_col) for r, c in zip(rows, cols, strict=True)
    }
    assert offsets == {(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)}


def test_a_forward_only_view_turns_about_a_camera_below_its_last_row():
    values = np.ones((3, 1, 1))
    view = BirdsEye(values, np.ones((3, 1), bool), 1.0, camera_row=3, camera_col=0)
    assert cells(template(view, 90)) == {(0, 1): 1.0, (0, 2): 1.0, (0, 3): 1.0}
    assert cells(template(view, 180)) == {(1, 0): 1.0, (2, 0): 1.0, (3, 0): 1.0}


def test_what_was_not_seen_has_no_value():
    values = np.full((2, 2, 1), np.nan)
    values[0, 0] = 3
    seen = np.array([[True, False], [False, False]])
    view = BirdsEye(values, seen, 1.0, 0, 0)
    assert view.values[..., 0].tolist() == [[3, 0], [0, 0]]


def test_arrays_are_copied_and_read_only():
    values, seen = np.ones((2, 2, 1)), np.ones((2, 2), bool)
    view = BirdsEye(values, seen, 1.0, 0, 0)
    values[:], seen[:] = 5, False
    assert view.values.dtype == np.float32
    assert (view.values == 1).all()
    assert view.seen.all()
    with pytest.raises(ValueError, match="read-only"):
        view.values[0, 0, 0] = 2


def test_reach_counts_the_cell_and_its_bilinear_neighbours():
    # a cell 3 ahead and 4 to the right weighs on the open square around it: its far corner is
    # hypot(4, 5) = 6.4 cells away, so at most 6 whole cells
    view = one_cell(0, 4, shape=(4, 5), camera_row=3, camera_col=0)
    assert view.reach_cells == 6
    assert view.reach_m == 3.0
    # a far corner exactly 5 cells away has no weight there
    assert one_cell(0, 3, shape=(3, 4), camera_row=2, camera_col=0).reach_cells == 4


def test_a_view_that_saw_nothing_reaches_nowhere():
    view = BirdsEye(np.ones((3, 3, 2)), np.zeros((3, 3), bool), 1.0, 1, 1)
    assert view.reach_cells == 0
    assert template(view, 30).values.shape == (1, 1, 2)


@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 5),
    camera=st.tuples(st.integers(-3, 8), st.integers(-3, 8)),
    heading_deg=st.floats(0, 360, exclude_max=True),
    seed=st.integers(0, 1000),
)
def test_a_template_holds_all_of_the_turned_view_within_reach(
    rows, cols, camera, heading_deg, seed
):
    rng = np.random.default_rng(seed)
    seen = rng.random((rows, cols)) < 0.7
    view = BirdsEye(rng.normal(size=(rows, cols, 1)), seen, 1.0, *camera)
    turned = template(view, heading_deg)
    reach = view.reach_cells
    last_row = turned.first_row + turned.values.shape[0] - 1
    last_col = turned.first_col + turned.values.shape[1] - 1
    assert -reach <= turned.first_row <= 0 <= last_row <= reach
    assert -reach <= turned.first_col <= 0 <= last_col <= reach
    # a box far too large has no more weight than the template's own
    turntable = Turntable(view)
    extent = turntable.extent(heading_deg)
    wide = type(extent)(-25, 26, -25, 26)
    _, samples = turntable.sample(heading_deg, wide)
    assert np.abs(samples).sum() == pytest.approx(
        np.abs(turned.values).sum() + turned.seen_share.sum(), abs=1e-4
    )


@pytest.mark.parametrize(("bin_index", "count"), [(0, 4224), (1, 3885), (2, 3739), (8, 3355)])
def test_valid_cells_of_a_wedge_are_those_counted_in_the_reference(bin_index, count):
    # 64 headings, a field of view of 90 degrees, and a canvas of 129 x 129 cells that cuts corners
    ahead, aside = np.mgrid[64:0:-1, -64:65]
    seen = np.abs(aside) <= ahead
    view = BirdsEye(np.ones((64, 129, 1)), seen, 0.5, camera_row=64, camera_col=64)
    turned = template(view, bin_index * 360 / 64)
    rows = turned.first_row + np.arange(turned.values.shape[0])
    cols = turned.first_col + np.arange(turned.values.shape[1])
    canvas = turned.seen_share[np.abs(rows) <= 64][:, np.abs(cols) <= 64]
    assert np.count_nonzero(canvas > 1 - 1e-4) == count


def test_points_fall_into_the_cell_whose_centre_is_nearest():
    view = from_points(
        forward_m=[0.0, 0.9, 1.1, 0.0, -2.0],
        right_m=[0.0, 0.0, 0.0, 1.1, 0.0],
        values=[[1.0], [2.0], [4.0], [8.0], [16.0]],
        cell_m=2.0,
        reach_m=3.0,
        reduce="sum",
    )
    assert (view.camera_row, view.camera_col) == (1, 1)
    assert view.values[..., 0].tolist() == [[0, 4, 0], [0, 3, 8], [0, 16, 0]]
    assert view.seen.tolist() == [[False, True, False], [False, True, True], [False, True, False]]


def test_points_are_averaged_per_cell_in_double_precision():
    many = 3000
    values = np.full((many, 1), 1e6)
    values[::2] += 1
    view = from_points(np.zeros(many), np.zeros(many), values, cell_m=1.0, reach_m=0.0)
    assert view.values.shape == (1, 1, 1)
    assert view.values[0, 0, 0] == 1e6 + 0.5


def test_points_beyond_the_edge_are_left_out_even_near_the_horizon():
    view = from_points(
        [1e300, 0.0, -50.0], [0.0, 1.0, 0.0], np.ones((3, 2)), cell_m=1.0, reach_m=4.0
    )
    assert view.values.shape == (9, 9, 2)
    assert np.argwhere(view.seen).tolist() == [[4, 5]]


@given(reach_m=st.floats(0, 30), cell_m=st.floats(0.1, 3))
def test_a_view_of_points_covers_its_reach_and_less_than_a_cell_more(reach_m, cell_m):
    view = from_points([], [], np.empty((0, 1)), cell_m=cell_m, reach_m=reach_m)
    half_side_m = view.values.shape[0] / 2 * cell_m
    assert view.values.shape[0] % 2 == 1
    assert reach_m - 1e-9 <= half_side_m <= max(reach_m + cell_m, cell_m / 2) + 1e-9


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"values": np.ones((2, 2))}, GridMismatchError, r"\(rows, cols, channels\).*\(2, 2\)"),
        ({"seen": np.ones((2, 3), bool)}, GridMismatchError, r"shape \(2, 2\).*\(2, 3\)"),
        ({"seen": np.ones((2, 2))}, GridMismatchError, "bool array.*float64"),
        ({"values": np.full((2, 2, 1), np.inf)}, ValueError, "not finite.*not seen"),
        ({"cell_m": 0.0}, ValueError, "positive number of metres; got 0.0"),
        ({"camera_row": 0.5}, ValueError, "camera_row is a whole number; got 0.5"),
    ],
)
def test_a_view_says_what_is_wrong_with_it(change, error, message):
    good = {
        "values": np.ones((2, 2, 1)),
        "seen": np.ones((2, 2), bool),
        "cell_m": 0.5,
        "camera_row": 2,
        "camera_col": 0,
    }
    with pytest.raises(error, match=message):
        BirdsEye(**(good | change))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"right_m": [0.0]}, GridMismatchError, r"equally long; got shapes \(2,\) and \(1,\)"),
        ({"values": [1.0, 2.0]}, GridMismatchError, r"\(2, channels\), one row per point"),
        ({"forward_m": [0.0, np.nan]}, ValueError, "miss the ground"),
        ({"reduce": "median"}, ValueError, "'mean', 'sum'.*'median'"),
        ({"reach_m": -1.0}, ValueError, "reach_m must be zero or more metres; got -1.0"),
        ({"cell_m": -1.0}, ValueError, "cell_m must be a positive"),
    ],
)
def test_points_say_what_is_wrong_with_them(change, error, message):
    good = {
        "forward_m": [0.0, 1.0],
        "right_m": [0.0, 1.0],
        "values": [[1.0], [2.0]],
        "cell_m": 1.0,
        "reach_m": 2.0,
    }
    arguments = good | change
    points = [arguments.pop(name) for name in ("forward_m", "right_m", "values")]
    with pytest.raises(error, match=message):
        from_points(*points, **arguments)
