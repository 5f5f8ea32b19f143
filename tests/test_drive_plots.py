import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytest import approx

from crossview import plots
from crossview.errors import FrameMismatchError
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.legends import CROSSVIEW
from crossview.posterior import Posterior
from crossview.rasters import MapRaster
from crossview.tracking import Step

FRAME = LocalFrame(48.85, 2.33)
EASTWARD = [Pose(100.5 + 4 * i, 49.5, 90.0) for i in range(6)]


def new_axes(layout="constrained"):
    return Figure(figsize=(8, 5), layout=layout, dpi=72).subplots()


def certain(pose, *, frame=FRAME, num_headings=4):
    """A posterior of 8 x 8 m that holds 95 % at a pose and the rest in the next cell east."""
    grid = PoseGrid(MapGrid(frame, pose.x_m - 4.5, pose.y_m + 3.5, 1.0, 8, 8), num_headings)
    volume = np.zeros(grid.shape)
    row, col, k = grid.index_of(pose)
    volume[row, col, k], volume[row, col + 1, k] = 0.95, 0.05
    with np.errstate(divide="ignore"):
        return Posterior(grid, np.log(volume))


def peaks(poses):
    """Where the posteriors of certain poses say that they are: finer than a cell."""
    return [certain(pose).peak() for pose in poses]


def line_of(ax, label):
    (line,) = (line for line in ax.lines if line.get_label().startswith(label))
    return np.stack(line.get_data(), axis=1)


def collection(ax, kind):
    (found,) = (c for c in ax.collections if type(c).__name__ == kind)
    return found


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def xy(poses):
    return [(pose.x_m, pose.y_m) for pose in poses]


def empty_map(grid):
    classes = np.zeros((*grid.shape, 3), np.uint8)
    height = np.zeros(grid.shape, np.float32)
    covered = np.ones(grid.shape, bool)
    return MapRaster(grid, classes, "crossview", covered, CROSSVIEW.names, height)


def test_the_path_joins_the_most_probable_poses():
    ax = new_axes()
    assert plots.drive(map(certain, EASTWARD), ax, title="A street") is ax
    assert line_of(ax, "filtered") == approx(np.array(xy(peaks(EASTWARD))))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east (m)", "north (m)")
    assert ax.get_title(loc="left") == "A street"
    assert ax.get_aspect() == 1


def test_steps_of_a_tracker_are_taken_one_at_a_time():
    alive = []

    def steps():
        for pose in EASTWARD:
            alive.append(pose)
            yield Step(certain(pose), np.zeros((1, 1, 1)), Motion(forward_m=4))

    ax = new_axes()
    plots.drive(steps(), ax)
    assert len(alive) == 6
    assert line_of(ax, "filtered") == approx(np.array(xy(peaks(EASTWARD))))


def test_arrowheads_point_along_the_headings():
    ax = new_axes()
    northward = [Pose(100.5, 4.0 * i, 0.0) for i in range(8)]
    plots.drive(map(certain, northward), ax)
    arrows = [path.vertices for path in collection(ax, "PolyCollection").get_paths()]
    assert len(arrows) == 8
    for arrow, pose in zip(arrows, northward, strict=True):
        tip, right, left = arrow[:3]
        assert tip[0] == approx(certain(pose).peak().x_m)
        assert tip[1] > pose.y_m > right[1]
        assert right[0] > pose.x_m > left[0]


def test_arrowheads_of_a_standing_car_do_not_pile_up():
    ax = new_axes()
    plots.drive([certain(EASTWARD[0])] * 5 + [certain(EASTWARD[-1])], ax)
    assert len(collection(ax, "PolyCollection").get_paths()) == 2


def test_without_headings_there_are_no_arrowheads():
    posteriors = [certain(pose, num_headings=1) for pose in EASTWARD]
    ax = new_axes()
    plots.drive(posteriors, ax)
    assert len(collection(ax, "PolyCollection").get_paths()) == 0
    assert line_of(ax, "filtered") == approx(np.array(xy(peaks(EASTWARD))))


def test_regions_are_the_outlines_of_the_cells():
    ax = new_axes()
    plots.drive([certain(EASTWARD[0])], ax)
    (outline,) = collection(ax, "PathCollection").get_paths()
    assert {tuple(corner) for corner in outline.vertices} == {
        (100, 49), (101, 49), (101, 50), (100, 50),
    }  # fmt: skip
    assert "90% of probability" in texts(ax)
    ax = new_axes()
    plots.drive([certain(EASTWARD[0])], ax, level=0.99)
    (outline,) = collection(ax, "PathCollection").get_paths()
    assert outline.vertices[:, 0].max() == 102
    assert "99% of probability" in texts(ax)


def test_regions_are_those_of_hindsight_where_it_is_given():
    north = [Pose(pose.x_m, pose.y_m + 2, 90.0) for pose in EASTWARD]
    ax = new_axes()
    plots.drive(map(certain, EASTWARD), ax, smoothed=map(certain, north))
    assert line_of(ax, "filtered") == approx(np.array(xy(peaks(EASTWARD))))
    assert line_of(ax, "smoothed") == approx(np.array(xy(peaks(north))))
    regions = collection(ax, "PathCollection").get_paths()
    assert len(regions) == 6
    assert all(region.vertices[:, 1].min() == 51 for region in regions)


def test_the_legend_says_how_far_paths_are_off():
    truths = [Pose(pose.x_m, pose.y_m + 3, 80.0) for pose in EASTWARD]
    truths[2] = None
    drifting = [Pose(pose.x_m, pose.y_m + 13, 80.0) for pose in EASTWARD]
    ax = new_axes()
    plots.drive(map(certain, EASTWARD), ax, truths=truths, odometry=drifting)
    assert texts(ax) == [
        "truth",
        "odometry alone,\n10.0 m, 0.0° off (median)",
        "filtered,\n3.0 m, 10.0° off (median)",
        "90% of probability",
        "first frame",
    ]
    assert np.isnan(line_of(ax, "truth")[2]).all()
    assert line_of(ax, "odometry") == approx(np.array(xy(drifting)))


def test_all_paths_are_inside_of_the_picture_and_a_street_is_not_a_line():
    odometry = [Pose(pose.x_m, pose.y_m - 40 * i, 90.0) for i, pose in enumerate(EASTWARD)]
    ax = new_axes()
    plots.drive(map(certain, EASTWARD), ax, odometry=odometry)
    (west, east), (south, north) = ax.get_xlim(), ax.get_ylim()
    assert south < odometry[-1].y_m < 49.5 < north
    assert west < 100
    assert east > 121
    assert (east - west) / (north - south) == approx(0.4)


def test_a_map_source_is_asked_for_the_picture_and_its_source_is_named():
    asked = []

    def maps(grid):
        asked.append(grid)
        return empty_map(grid)

    ax = new_axes()
    plots.drive(map(certain, EASTWARD), ax, background=maps, attribution="© Somebody")
    (grid,) = asked
    assert (grid.frame, grid.cell_m) == (FRAME, 1.0)
    assert grid.bounds.west_m == ax.get_xlim()[0]
    assert grid.bounds.east_m >= ax.get_xlim()[1]
    assert "© Somebody" in [text.get_text() for text in ax.texts]


def test_a_background_in_another_frame_is_refused():
    other = empty_map(MapGrid(LocalFrame(48.0, 2.0), 0, 0, 1.0, 5, 5))
    with pytest.raises(FrameMismatchError, match="Build both from one LocalFrame"):
        plots.drive(map(certain, EASTWARD), new_axes(), background=other)


def test_a_used_up_generator_is_refused():
    steps = map(certain, EASTWARD)
    assert len(list(steps)) == 6
    with pytest.raises(ValueError, match="no frame to draw"):
        plots.drive(steps, new_axes())


def test_truths_are_one_per_frame():
    with pytest.raises(ValueError, match="5 truths and 6 frames of 'filtered'"):
        plots.drive(map(certain, EASTWARD), new_axes(), truths=EASTWARD[:5])


@pytest.mark.parametrize("layout", ["constrained", None])
def test_the_legend_lies_beside_the_map_and_inside_the_figure(layout):
    ax = new_axes(layout)
    plots.drive(
        map(certain, EASTWARD),
        ax,
        smoothed=map(certain, EASTWARD),
        truths=EASTWARD,
        odometry=EASTWARD,
    )
    FigureCanvasAgg(ax.figure).draw()
    box = ax.get_legend().get_window_extent()
    assert box.x0 >= ax.get_window_extent().x1
    assert box.x1 <= ax.figure.bbox.x1
