"""What the column matcher refuses: maps, grids, segmenters and headings."""

import pytest
from fakes.court_columns import (
    FRAME,
    GRID,
    SEGMENTER,
    court_matcher,
    court_view,
    empty_map,
    scores_on,
)

from crossview.errors import FrameMismatchError, GridMismatchError
from crossview.frames import LocalFrame
from crossview.grids import MapGrid, PoseGrid
from crossview.semantic import SemanticMatcher


@pytest.fixture(scope="module")
def matcher():
    return court_matcher()


@pytest.fixture(scope="module")
def view():
    return court_view()


def test_a_map_in_another_frame_is_refused(matcher, view):
    elsewhere = MapGrid(LocalFrame(50.0, 8.001), -60.0, 60.0, 0.25, 480, 480)
    with pytest.raises(FrameMismatchError, match="Build both from one LocalFrame"):
        matcher.log_likelihood(view, empty_map(elsewhere), GRID)


@pytest.mark.parametrize(
    "poses",
    [
        PoseGrid(MapGrid(FRAME, -2.0, 2.0, 1.0, 4, 4), 64),
        PoseGrid(MapGrid(FRAME, -2.0, 2.0, 0.5, 8, 8), 32),
        PoseGrid(MapGrid(FRAME, -2.2, 2.0, 0.5, 8, 8), 64),
        PoseGrid(MapGrid(FRAME, -2.0, 2.2, 0.5, 8, 8), 64),
    ],
    ids=["cells of 1 m", "32 headings", "off the lattice in x", "off the lattice in y"],
)
def test_a_grid_that_the_matcher_does_not_look_at_is_refused(matcher, view, poses):
    with pytest.raises(GridMismatchError, match=r"cells of 0\.5 m .*64 headings.*like=matcher"):
        scores_on(matcher, view, poses)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_map_of_other_cells_is_refused(matcher, view, parts):
    raster = empty_map(GRID.map.padded(matcher.reach_m).divided(parts))
    with pytest.raises(GridMismatchError, match=r"the map is on.*divided\(matcher\.map_parts\)"):
        matcher.log_likelihood(view, raster, GRID)


def test_a_map_that_ends_before_the_reach_is_refused(matcher, view):
    with pytest.raises(GridMismatchError, match=r"padded\(matcher\.reach_m\)"):
        scores_on(matcher, view, GRID, more_m=-12.0)


@pytest.mark.parametrize("shift", [0, 3, 8, 15])
def test_the_reach_is_enough_wherever_blocks_begin(matcher, view, shift):
    cells = MapGrid(FRAME, 0.5 * shift, -0.5 * shift, 0.5, 3, 3)
    assert scores_on(matcher, view, PoseGrid(cells, 64)).shape == (3, 3, 64)


def test_a_segmenter_of_unknown_classes_is_refused(matcher):
    class Strange:
        classes = ("road", "unicorn")

    with pytest.raises(ValueError, match="do not: unicorn"):
        SemanticMatcher(Strange(), matcher.model)


@pytest.mark.parametrize("num_headings", [0, 1, 2, 96, 512])
def test_headings_that_do_not_divide_the_columns_are_refused(matcher, num_headings):
    with pytest.raises(ValueError, match=f"divide 256 columns, got {num_headings}"):
        SemanticMatcher(SEGMENTER, matcher.model, num_headings=num_headings)
