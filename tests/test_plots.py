import math
import subprocess
import sys

import numpy as np
import pytest
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytest import approx

from crossview import map_style, plots
from crossview.birdseye import BirdsEye
from crossview.cameras import Pinhole
from crossview.errors import FrameMismatchError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.legends import CROSSVIEW
from crossview.localizer import Localization
from crossview.photos import Photo
from crossview.posterior import Posterior
from crossview.rasters import MapRaster, SatelliteTile
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Building, Scene

FRAME = LocalFrame(lat_deg=48.85, lon_deg=2.33)
HOTTEST = (111, 20, 66)
"""The upper end of the heat colours, nearly opaque on white."""


def new_axes(layout="constrained", size=(7.0, 5.0)):
    return Figure(figsize=size, layout=layout, dpi=72).subplots()


def rendered(ax):
    """Pixels of the whole figure, (rows, cols, 3) as numbers."""
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def places_of(color, ax, *, tolerance=12):
    """Where a colour shows, as fractions of the axes from their lower left, (n, 2)."""
    pixels = rendered(ax)
    rows, cols = np.nonzero(np.abs(pixels - color).max(axis=2) <= tolerance)
    display = np.stack([cols + 0.5, pixels.shape[0] - rows - 0.5], axis=1)
    places = ax.transAxes.inverted().transform(display)
    return places[((places > 0) & (places < 1)).all(axis=1)]


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def grid_at(west_m=100.0, north_m=50.0, *, rows=20, cols=20, cell_m=1.0, headings=1, frame=FRAME):
    return PoseGrid(MapGrid(frame, west_m, north_m, cell_m, rows, cols), headings)


def posterior_on(grid, mass, log_evidence=0.0):
    volume = np.zeros(grid.shape)
    for index, value in mass.items():
        volume[index] = value
    with np.errstate(divide="ignore"):
        return Posterior(grid, np.log(volume / volume.sum()), log_evidence)


def hot_in_the_north_east(headings=1):
    """Four by four equal cells, larger than the dot of the estimate."""
    cells = {(row, col, 0): 1.0 for row in range(2, 8) for col in range(12, 18)}
    return posterior_on(grid_at(headings=headings), cells)


def map_of(areas=None, *, grid=None, ways=None, points=None, covered=None):
    """A map in our legend from names of classes and the slices that they fill."""
    grid = grid or grid_at().map
    classes = np.zeros((*grid.shape, 3), np.uint8)
    for channel, drawn in enumerate((areas, ways, points)):
        for name, where in (drawn or {}).items():
            classes[(*where, channel)] = CROSSVIEW.find(name)[1]
    covered = np.ones(grid.shape, bool) if covered is None else covered
    height = np.zeros(grid.shape, np.float32)
    return MapRaster(grid, classes, "crossview", covered, CROSSVIEW.names, height)


# ---------------------------------------------------------------- heat map


def test_heatmap_returns_its_axes_with_metres_and_north_up():
    ax = new_axes()
    assert plots.heatmap(hot_in_the_north_east(), ax, title="A street") is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east (m)", "north (m)")
    assert ax.get_title(loc="left") == "A street"
    west_m, east_m = ax.get_xlim()
    south_m, north_m = ax.get_ylim()
    assert west_m < 100
    assert east_m > 120
    assert south_m < 30
    assert north_m > 50
    assert ax.get_aspect() == 1


@pytest.mark.parametrize("layout", ["constrained", None])
def test_a_hot_cell_in_the_north_east_shows_in_the_upper_right(layout):
    ax = new_axes(layout)
    plots.heatmap(hot_in_the_north_east(), ax)
    places = places_of(HOTTEST, ax)
    assert len(places) > 100
    # cells 12 to 18 of 20 from the west and 2 to 8 from the north, and a margin around the window
    margin = 0.04 / 1.08
    assert places.min(axis=0) == approx([margin + 12 / 21.6, margin + 12 / 21.6], abs=0.02)
    assert places.max(axis=0) == approx([margin + 18 / 21.6, margin + 18 / 21.6], abs=0.02)


@pytest.mark.parametrize("layout", ["constrained", None])
def test_rose_bar_and_legend_lie_beside_the_map_and_inside_the_figure(layout):
    ax = new_axes(layout)
    plots.heatmap(hot_in_the_north_east(headings=8), ax, truth=Pose(110, 40, 3))
    rendered(ax)
    renderer = ax.figure.canvas.get_renderer()
    for artist in (ax.get_legend(), *ax.child_axes):
        box = artist.get_tightbbox(renderer)
        assert box.x0 >= ax.get_window_extent().x1
        assert box.x1 <= ax.figure.bbox.x1
        assert box.y0 >= 0
    assert ax.get_tightbbox(renderer).x0 >= 0


def test_axes_without_a_grid_make_room_too():
    ax = Figure(figsize=(7, 5)).add_axes((0.1, 0.1, 0.85, 0.8))
    plots.map_raster(map_of({"road": (0, 0)}), ax)
    rendered(ax)
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1


def test_the_colour_bar_says_density_per_square_metre():
    posterior = posterior_on(grid_at(cell_m=0.5), {(0, 0, 0): 3, (0, 1, 0): 1})
    ax = new_axes()
    plots.heatmap(posterior, ax)
    (bar,) = [child for child in ax.child_axes if child.get_xlabel()]
    assert bar.get_xlabel() == "probability per m²"
    # 0.75 in a quarter of a square metre
    assert bar.get_xlim()[1] == approx(3.0)
    assert bar.get_xlim()[0] == approx(3e-4)
    assert bar.get_xscale() == "log"


def test_the_rose_is_clockwise_from_the_north_and_its_areas_are_the_probabilities():
    ax = new_axes()
    plots.heatmap(posterior_on(grid_at(headings=8), {(0, 0, 2): 0.8, (5, 5, 5): 0.2}), ax)
    (rose,) = [child for child in ax.child_axes if child.name == "polar"]
    assert rose.get_theta_direction() == -1
    assert rose.get_theta_offset() == approx(math.pi / 2)
    middles = [bar.get_x() + bar.get_width() / 2 for bar in rose.patches]
    assert middles == approx(list(np.deg2rad(np.arange(8) * 45)))
    areas = np.array([bar.get_height() for bar in rose.patches]) ** 2
    assert areas == approx([0, 0, 0.8, 0, 0, 0.2, 0, 0], abs=1e-6)


def test_the_rose_of_all_windows_weighs_them():
    first = posterior_on(grid_at(headings=4), {(0, 0, 1): 1}, math.log(0.75))
    second = posterior_on(grid_at(300, headings=8), {(0, 0, 0): 1}, math.log(0.25))
    ax = new_axes()
    plots.heatmap(Localization((first, second)), ax)
    (rose,) = [child for child in ax.child_axes if child.name == "polar"]
    areas = np.array([bar.get_height() for bar in rose.patches]) ** 2
    assert areas == approx([0.25, 0.75, 0, 0], abs=1e-6)


def test_without_headings_the_rose_says_so():
    ax = new_axes()
    plots.heatmap(hot_in_the_north_east(), ax)
    (rose,) = [child for child in ax.child_axes if child.name == "polar"]
    assert not rose.patches
    assert "not" in rose.texts[0].get_text()


def test_the_legend_names_the_error_against_the_truth():
    grid = grid_at(headings=4)
    posterior = posterior_on(grid, {(10, 10, 1): 1})
    estimate = posterior.mode()
    truth = Pose(estimate.x_m + 3, estimate.y_m - 4, heading_deg=80)
    ax = new_axes()
    plots.heatmap(posterior, ax, truth=truth)
    assert "estimate, 90°" in texts(ax)
    assert "truth, 5.0 m, 10.0° off" in texts(ax)
    assert ax.get_legend().get_title().get_text() == "within 5 m: 100%"


def test_arrows_point_along_the_heading():
    ax = new_axes()
    posterior = posterior_on(grid_at(headings=4), {(10, 10, 1): 1})
    plots.heatmap(posterior, ax)
    (arrow,) = [patch for patch in ax.patches if type(patch).__name__ == "FancyArrow"]
    corners = arrow.get_path().vertices
    estimate = posterior.mode()
    tip = corners[corners[:, 0].argmax()]
    assert tip[0] > estimate.x_m + 1
    assert tip[1] == approx(estimate.y_m)
    assert corners[:, 0].min() == approx(estimate.x_m)


def test_region_outlines_are_those_of_the_cells():
    ax = new_axes()
    plots.heatmap(posterior_on(grid_at(), {(10, 10, 0): 0.6, (10, 12, 0): 0.35}), ax)
    half, most = [c for c in ax.collections if "probability" in c.get_label()]
    assert [len(half.get_segments()), len(most.get_segments())] == [1, 2]
    assert {tuple(corner) for corner in half.get_segments()[0]} == {
        (110, 40), (111, 40), (111, 39), (110, 39),
    }  # fmt: skip


def test_a_region_that_is_not_reached_is_not_drawn():
    localization = Localization((posterior_on(grid_at(), {(3, 3, 0): 1}),), log_rest=math.log(0.25))
    ax = new_axes()
    plots.heatmap(localization, ax)
    assert "50% of probability" in texts(ax)
    assert "90% of probability" not in texts(ax)
    assert "elsewhere: 20%" in ax.get_legend().get_title().get_text()


def test_all_windows_are_drawn_with_one_colour_scale():
    first = posterior_on(grid_at(), {(3, 3, 0): 1}, math.log(0.9))
    second = posterior_on(grid_at(200, 60), {(3, 3, 0): 1}, math.log(0.1))
    ax = new_axes()
    plots.heatmap(Localization((first, second)), ax)
    assert ax.get_xlim()[0] < 100
    assert ax.get_xlim()[1] > 220
    assert ax.get_ylim()[1] > 60
    left, right = ax.images
    assert left.norm is right.norm
    assert (left.get_array().max(), right.get_array().max()) == (approx(0.9), approx(0.1))


def test_a_background_in_another_frame_is_refused():
    other = map_of(grid=grid_at(frame=LocalFrame(48.0, 2.0)).map)
    with pytest.raises(FrameMismatchError, match="Build both from one LocalFrame"):
        plots.heatmap(hot_in_the_north_east(), new_axes(), background=other)


def test_a_map_below_is_drawn_in_place():
    water = {"water": (slice(0, 6), slice(0, 6))}
    ax = new_axes()
    plots.heatmap(posterior_on(grid_at(), {(15, 15, 0): 1}), ax, background=map_of(water))
    quiet = np.array([0x9C, 0xC3, 0xE6])
    quiet = quiet + 0.45 * (255 - quiet)
    places = places_of(quiet, ax, tolerance=2)
    assert len(places) > 100
    assert places[:, 0].max() < 0.35
    assert places[:, 1].min() > 0.65


def test_a_map_source_is_asked_for_the_whole_picture():
    asked = []

    def maps(grid):
        asked.append(grid)
        return map_of(grid=grid)

    first = posterior_on(grid_at(), {(3, 3, 0): 1}, math.log(0.9))
    second = posterior_on(grid_at(4000, 60), {(3, 3, 0): 1}, math.log(0.1))
    ax = new_axes()
    plots.heatmap(Localization((first, second)), ax, background=maps)
    (grid,) = asked
    assert grid.frame == FRAME
    assert grid.bounds.west_m < 100
    assert grid.bounds.east_m >= ax.get_xlim()[1]
    assert grid.width <= 1500
    assert grid.cell_m > 1


def test_imagery_is_a_background_and_its_source_is_named():
    rgb = np.zeros((20, 20, 3), np.uint8)
    rgb[:10, :10] = (10, 200, 30)
    tile = SatelliteTile(grid_at().map, rgb, np.ones((20, 20), bool), attribution="© Somebody")
    ax = new_axes()
    plots.heatmap(posterior_on(grid_at(), {(15, 15, 0): 1}), ax, background=tile)
    places = places_of((10, 200, 30), ax, tolerance=2)
    assert places[:, 0].max() < 0.52
    assert places[:, 1].min() > 0.48
    assert "© Somebody" in [text.get_text() for text in ax.texts]


def test_the_given_attribution_is_written():
    ax = new_axes()
    plots.heatmap(hot_in_the_north_east(), ax, background=map_of(), attribution="© OSM people")
    assert "© OSM people" in [text.get_text() for text in ax.texts]


# --------------------------------------------------------------------- map


def test_map_raster_shows_a_north_western_building_in_the_upper_left():
    ax = new_axes()
    building = map_of({"building": (slice(0, 5), slice(0, 8))})
    assert plots.map_raster(building, ax, attribution="© A") is ax
    places = places_of((0xC9, 0xA9, 0x8F), ax, tolerance=2)
    assert places.min(axis=0) == approx([0, 0.75], abs=0.02)
    assert places.max(axis=0) == approx([0.4, 1], abs=0.02)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east (m)", "north (m)")
    assert ax.get_xlim() == (100, 120)
    assert ax.get_ylim() == (30, 50)


def test_the_legend_lists_what_occurs():
    drawn = map_of(
        {"building": (slice(0, 5), slice(0, 8)), "road": (slice(9, 12), slice(None))},
        ways={"fence": (15, slice(None))},
        points={"tree": (18, 4), "bench": (18, 6)},
    )
    ax = new_axes()
    plots.map_raster(drawn, ax)
    assert texts(ax) == ["building", "road", "wall, fence", "trees (dot)", "other (dot)"]


def test_points_stand_at_the_centres_of_their_cells():
    ax = new_axes()
    plots.map_raster(map_of(points={"tree": (18, 4)}), ax)
    (trees,) = ax.lines
    assert (trees.get_xdata(), trees.get_ydata()) == (approx([104.5]), approx([31.5]))


def test_cells_without_a_map_are_marked():
    covered = np.ones((20, 20), bool)
    covered[:, 10:] = False
    ax = new_axes()
    plots.map_raster(map_of(covered=covered), ax)
    assert texts(ax) == ["no map"]
    places = places_of((0xBD, 0xBD, 0xBD), ax, tolerance=2)
    assert len(places) > 1000
    assert np.mean(places[:, 0] > 0.49) > 0.99


def test_every_class_of_both_legends_has_a_colour_of_its_group_or_is_a_point():
    from crossview.legends import ORIENTERNET

    for legend in (CROSSVIEW, ORIENTERNET):
        for name in legend.areas + legend.ways:
            assert map_style.group_of(name).label != "other", name


# ---------------------------------------------------------- bird's-eye view


def small_view():
    values = np.zeros((5, 3, 2), np.float32)
    seen = np.zeros((5, 3), bool)
    seen[:3] = True
    values[0, 2, 0] = 4.0
    values[1, 0, 1] = 0.5
    return BirdsEye(values, seen, cell_m=2.0, camera_row=4, camera_col=1)


def test_birdseye_has_the_camera_at_the_origin_and_ahead_up():
    ax = new_axes()
    assert plots.birdseye(small_view(), ax) is ax
    # the camera's cell is 2 m wide and centred on it; four rows are ahead of it
    assert ax.get_xlim() == (-3, 3)
    assert ax.get_ylim() == (-1, 9)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("to the right (m)", "ahead (m)")


def test_birdseye_shows_what_is_ahead_on_the_right_in_the_upper_right():
    ax = new_axes()
    plots.birdseye(small_view(), ax, names=("free", "wall base"))
    places = places_of((0x4D, 0xAF, 0x4A), ax, tolerance=3)
    assert places.min(axis=0) == approx([2 / 3, 0.8], abs=0.03)
    assert texts(ax) == ["free", "wall base", "not seen"]
    # the largest value of each channel has its full colour
    assert places_of((0xD7, 0x19, 0x1C), ax, tolerance=3)[:, 0].max() < 0.35


def test_birdseye_wants_a_name_for_every_channel():
    with pytest.raises(ValueError, match="has 2 channels and 1 names"):
        plots.birdseye(small_view(), new_axes(), names=["free"])


# ------------------------------------------------------------- segmentation


def test_segmentation_covers_the_image_and_lists_the_shares():
    probabilities = np.zeros((2, 4, 3))
    probabilities[0, :, 2] = 1  # the upper half is sky
    probabilities[1, :, 0] = 1
    ax = new_axes()
    image = np.full((20, 40, 3), 255, np.uint8)
    assert plots.segmentation(image, probabilities, ("road", "car", "sky"), ax, opacity=1) is ax
    assert texts(ax) == ["road 50%", "sky 50%"]
    sky = places_of((70, 130, 180), ax, tolerance=2)
    assert sky.min(axis=0) == approx([0, 0.5], abs=0.02)
    assert sky.max(axis=0) == approx([1, 1], abs=0.02)
    assert ax.get_ylim() == (20, 0)


def test_segmentation_wants_a_name_for_every_channel():
    with pytest.raises(ValueError, match="for 2 classes, got"):
        plots.segmentation(
            np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3)), ("a", "b"), new_axes()
        )


# -------------------------------------------------------- footprints on photo

NORTH = Pose(1000.0, 500.0, 0.0)


def photo_200(**options):
    """90 degrees across, level, 1.6 m above the street: the horizon is row 100."""
    image = np.zeros((200, 200, 3), np.uint8)
    return Photo(image, Pinhole.from_focal(200, 200, 100.0), **options)


def house(west_m, south_m, east_m, north_m):
    """A box relative to the camera."""
    return shapely.box(1000 + west_m, 500 + south_m, 1000 + east_m, 500 + north_m)


def drawn_lines(photo, buildings, pose=NORTH, **options):
    """Drawn (col, row) of the feet and of the upper edges inside of the image, (n, 2) each."""
    ax = new_axes()
    assert plots.footprints_on_photo(photo, buildings, pose, ax, **options) is ax
    lines = {line.get_label(): np.stack(line.get_data(), axis=1) for line in ax.lines}
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    feet, edges = (
        line[((line >= 0) & (line < (width, height))).all(axis=1)]
        for line in (lines["feet of walls"], lines["upper edges and corners"])
    )
    return feet, edges


def test_a_wall_ahead_is_where_the_pinhole_puts_it():
    # 10 m ahead and 10 m wide: its foot is 1.6 m below the eye and its top 5 m above
    feet, edges = drawn_lines(photo_200(), [(house(-5, 10, 5, 20), 6.6)])
    assert np.median(feet[:, 1]) == approx(116)
    # the sides of the house show for the slack of 0.3 m
    assert feet[:, 1] == approx(116, abs=0.5)
    assert (feet[:, 0].min(), feet[:, 0].max()) == (approx(50), approx(150))
    assert edges[:, 1].min() == approx(50)
    assert edges[:, 1].max() == approx(116)


def test_the_far_side_of_a_building_and_what_is_behind_it_are_hidden():
    near, behind = (house(-5, 10, 5, 20), 6.6), (house(-5, 30, 5, 40), 6.6)
    alone = drawn_lines(photo_200(), [near])
    both = drawn_lines(photo_200(), [behind, near])
    assert np.array_equal(np.unique(alone[0], axis=0), np.unique(both[0], axis=0))
    assert np.array_equal(np.unique(alone[1], axis=0), np.unique(both[1], axis=0))


def test_a_tower_behind_shows_its_top_only():
    near, tower = (house(-20, 10, 20, 20), 6.6), (house(-5, 30, 5, 40), 31.6)
    feet, edges = drawn_lines(photo_200(), [near, tower])
    assert feet[:, 1].min() == approx(116)
    # 30 m above the eye, 30 m away
    assert edges[:, 1].min() == approx(0, abs=1e-6)


def test_a_building_of_unknown_height_has_feet_only_and_hides_towers():
    near, tower = (house(-20, 10, 20, 20), math.nan), (house(-5, 30, 5, 40), 31.6)
    feet, edges = drawn_lines(photo_200(), [near, tower])
    assert feet[:, 1].min() == approx(116)
    assert edges.size == 0
    feet_of_none, _ = drawn_lines(photo_200(), [(near[0], None), tower])
    assert np.array_equal(feet, feet_of_none)


def test_walls_behind_the_camera_and_beyond_the_range_are_left_out():
    buildings = [(house(-5, -20, 5, -10), 6.6), (house(-5, 60, 5, 70), 6.6)]
    feet, edges = drawn_lines(photo_200(), buildings, range_m=50.0)
    assert feet.size == edges.size == 0


def test_a_camera_that_looks_east_sees_the_house_in_the_east():
    feet, _ = drawn_lines(photo_200(), [(house(10, -5, 20, 5), 6.6)], Pose(1000, 500, 90.0))
    assert feet[:, 1] == approx(116, abs=0.5)
    assert (feet[:, 0].min(), feet[:, 0].max()) == (approx(50), approx(150))


@pytest.mark.parametrize("roll_deg", [180.0, 90.0, -90.0])
def test_a_photo_stored_on_its_side_is_shown_upright(roll_deg):
    buildings = [(house(-5, 10, 3, 20), 6.6)]
    upright = drawn_lines(photo_200(), buildings)
    turned = drawn_lines(photo_200(roll_deg=roll_deg), buildings)
    assert turned[0] == approx(upright[0], abs=1e-6)
    assert turned[1] == approx(upright[1], abs=1e-6)


def test_a_pose_without_heading_is_refused():
    with pytest.raises(ValueError, match="no heading"):
        plots.footprints_on_photo(photo_200(), [], Pose(0, 0), new_axes())


def test_feet_fall_between_wall_and_ground_of_an_independent_rendering():
    boxes = [(-14, 8, -4, 18, 9.0), (5, 12, 15, 30, 14.0), (-12, 25, 2, 40, 20.0)]
    buildings = [(house(*box[:4]), box[4]) for box in boxes]
    camera = Pinhole.from_focal(400, 300, 200.0)
    tilt = {"pitch_deg": 6.0, "roll_deg": -5.0}
    pose = Pose(1000.0, 500.0, 10.0)
    scene = Scene(buildings=tuple(Building(*building) for building in buildings))
    classes = render_photo(scene, pose, camera, height_m=2.5, **tilt).classes
    photo = Photo(np.zeros((300, 400, 3), np.uint8), camera, height_m=2.5, **tilt)
    feet, edges = drawn_lines(photo, buildings, pose)
    is_building = np.pad(classes == CLASSES.index("building"), 3, mode="edge")
    col, row = np.floor(feet).astype(int).T + 3
    assert len(feet) > 100
    assert is_building[row - 2, col].mean() > 0.95
    assert is_building[row + 2, col].mean() < 0.05
    # upper edges and corners: a wall within two pixels on some side, sky or ground on another
    col, row = np.floor(edges).astype(int).T + 3
    around = np.stack([is_building[row + i, col + j] for i in (-2, 0, 2) for j in (-2, 0, 2)])
    assert around.any(axis=0).all()


# ------------------------------------------------------------------ pyplot


def test_pictures_need_no_pyplot():
    code = """
import sys
import numpy as np
from crossview import map_style, plots
assert "matplotlib" not in sys.modules, "plots imports matplotlib when it is imported"
from matplotlib.figure import Figure
from crossview.frames import LocalFrame
from crossview.grids import MapGrid, PoseGrid
from crossview.posterior import Posterior
grid = PoseGrid(MapGrid(LocalFrame(50, 8), 0, 0, 1.0, 4, 4), 4)
ax = Figure().subplots()
plots.heatmap(Posterior.flat(grid), ax)
ax.figure.canvas.draw()
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
